//! The chart of a patient as FHIR R4 resources, one NDJSON line each: what was known before each study, what came of it,
//! and the traps that a reader must not fall into.

mod aftermath;
mod history;
mod labs;
mod resources;
mod traps;
mod writer;

use rand_chacha::ChaCha8Rng;
use synovia_cohort::Sex;

pub(crate) use writer::{Chart, ResourceType};

use crate::SimulationError;
use crate::patient::{Patient, Visit};
use crate::stream::{Purpose, stream};
use resources::{HumanName, Identifier, PatientResource};

/// A visit with what its part of the chart is drawn from.
struct Page<'a> {
    patient: &'a Patient,
    visit: &'a Visit,
    rng: ChaCha8Rng,
}

/// Everything that the chart holds of a patient.
pub(crate) fn chart(seed: u64, patient: &Patient) -> Result<Chart, SimulationError> {
    let mut chart = Chart::new(patient);
    let identity = &patient.identity;
    let gender = match identity.sex {
        Sex::Female => "female",
        Sex::Male => "male",
        Sex::Other => "other",
    };
    let resource = PatientResource {
        resource_type: "Patient",
        id: patient.id.reveal(),
        identifier: [Identifier { system: "urn:oid:1.2.36.146.595.217.0.1", value: patient.mrn.clone() }],
        active: true,
        name: [HumanName { r#use: "official", family: identity.family, given: [identity.given] }],
        gender: patient.has_record.then_some(gender),
        birth_date: patient.has_record.then(|| identity.birth.format("%Y-%m-%d").to_string()),
    };
    chart.add(ResourceType::Patient, &resource)?;
    for (k, visit) in patient.visits.iter().enumerate() {
        let mut page = Page { patient, visit, rng: stream(seed, patient.index, Purpose::Chart(k)) };
        if patient.has_record {
            if k == 0 {
                history::problems(&mut page, &mut chart)?;
            }
            history::before(&mut page, &mut chart)?;
        }
        aftermath::study(&mut page, &mut chart)?;
        aftermath::after(&mut page, &mut chart)?;
        if k == 0 {
            traps::strangers(&mut page, &mut chart)?;
        }
    }
    Ok(chart)
}
