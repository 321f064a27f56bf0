//! Third-party decoders under guard: a panic becomes an error, and its message stays off the terminal.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::error::Fault;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `decode`; a panic in it becomes [`Fault::Panicked`]. Panics of other threads and of our own code are shown as ever.
pub(crate) fn guarded<T>(codec: &'static str, decode: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                previous(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    // What a decoder leaves half-done is dropped with the error: nothing of it is seen again.
    let result = panic::catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(outer);
    result.unwrap_or(Err(Fault::Panicked { codec }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_next_call_works() {
        let failed = guarded("test", || -> Result<(), Fault> { panic!("damaged") });
        assert!(matches!(failed, Err(Fault::Panicked { codec: "test" })));
        assert!(!GUARDED.get());
        assert_eq!(guarded("test", || Ok(7)).unwrap(), 7);
    }
}
