//! Where randomness comes from: one stream for each patient and purpose, so that no draw depends on any other patient,
//! on the number of threads, or on how much randomness another purpose used.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a stream is used for. A visit's purposes have one stream a visit.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Name, sex, age, first study.
    Identity,
    /// Site, comorbidities, what is missing, UIDs.
    Setting,
    /// Factors and outcomes of visit `.0`.
    World(usize),
    /// Anatomy and noise of the radiographs of visit `.0`.
    Drawing(usize),
    /// Times and bystander values in the chart of visit `.0`.
    Chart(usize),
}

/// The stream of a patient for a purpose.
pub(crate) fn stream(seed: u64, patient: usize, purpose: Purpose) -> ChaCha8Rng {
    let purpose = match purpose {
        Purpose::Identity => 0,
        Purpose::Setting => 1,
        Purpose::World(visit) => 16 + visit,
        Purpose::Drawing(visit) => 32 + visit,
        Purpose::Chart(visit) => 48 + visit,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream((patient as u64) << 6 | purpose as u64);
    rng
}
