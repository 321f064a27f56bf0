//! Turns at burn's random generator: its CPU backend has one for the whole process, and several models may be trained at once. Only what
//! [`crate::fit`] does takes turns; private training, learning without labels, and models that are made to predict draw as they come,
//! and are not to run beside it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;

static TURN: Mutex<()> = Mutex::new(());

/// Runs `work` as the only one that draws, with numbers of `seed`: the same ones whatever else is trained meanwhile. It must not ask for
/// another turn.
pub(crate) fn drawing<R>(device: &Device, seed: u64, work: impl FnOnce() -> R) -> R {
    // A panic elsewhere leaves nothing half-way: each turn begins with its own seed.
    let _turn: MutexGuard<'_, ()> = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(seed);
    work()
}
