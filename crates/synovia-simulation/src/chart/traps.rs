//! What a careful reader refuses: units that mean nothing, and references to nobody.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::labs::CRP;
use super::resources::{Observation, Quantity, Reference, UCUM};
use super::writer::{Category, Chart, ResourceType};
use super::{Page, aftermath};
use crate::SimulationError;

/// One in this many patients has an observation beside it that names a patient whom nobody knows.
const UNKNOWN_SUBJECT_EVERY: usize = 200;
/// One in this many patients has an imaging study beside it that names a patient whom nobody knows.
const UNKNOWN_STUDY_EVERY: usize = 250;

/// A number that has nothing to do with the lab's value, in a unit from which no value can be had.
pub(super) fn unusable_quantity(loinc: &str, rng: &mut ChaCha8Rng) -> Quantity {
    let number = (rng.random_range(1.0..60.0f64) * 100.0).round() / 100.0;
    let unit = match loinc {
        "1988-5" => Some("mmol/L"),
        "2039-6" => [None, Some("furlong")][usize::from(rng.random_bool(0.5))],
        "718-7" => Some("kg"),
        _ => Some("[arb'U]"),
    };
    Quantity { value: number, unit, system: unit.map(|_| UCUM), code: unit }
}

/// Resources in the patient's files that belong to nobody in the cohort.
pub(super) fn strangers(page: &mut Page, chart: &mut Chart) -> Result<(), SimulationError> {
    let number = page.patient.index + 1;
    let nobody = || Reference { reference: format!("Patient/unknown-{number}") };
    if page.patient.index % UNKNOWN_SUBJECT_EVERY == 7 {
        let observation = chart.observation(Category::Laboratory, CRP.code, page.visit.time.plus_days(-3.0));
        let quantity = Some(CRP.quantity(page.rng.random_range(1.0..50.0), page.patient.site));
        chart.add(ResourceType::Observation, &Observation { subject: nobody(), value_quantity: quantity, ..observation })?;
        chart.traps.unknown_subjects += 1;
    }
    if page.patient.index % UNKNOWN_STUDY_EVERY == 11 {
        let uid = format!("2.25.{}", page.rng.random::<u64>());
        let study = aftermath::imaging_study(chart.next_id(ResourceType::ImagingStudy), nobody(), &uid, page.visit);
        chart.add(ResourceType::ImagingStudy, &study)?;
        chart.traps.unknown_study_subjects += 1;
    }
    Ok(())
}
