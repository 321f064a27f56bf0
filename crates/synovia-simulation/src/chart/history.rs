//! What was known before a study: everything here is at or before the prediction time.

use rand::RngExt;
use rand_distr::StandardNormal;
use synovia_cohort::Time;

use super::Page;
use super::labs::{self, CEA, CREATININE, CRP, GLUCOSE, HAEMOGLOBIN, NT_PROBNP, Test, WBC};
use super::resources::{Coding, Observation, Quantity};
use super::traps;
use super::writer::{Category, Chart, ResourceType};
use crate::SimulationError;
use crate::patient::{Site, start_of};
use crate::world::{Lab, LabState, Smoking};

const BLOOD_PRESSURE: Coding = Coding::loinc("85354-9", "Blood pressure panel with all children optional");
const SYSTOLIC: Coding = Coding::loinc("8480-6", "Systolic blood pressure");
const DIASTOLIC: Coding = Coding::loinc("8462-4", "Diastolic blood pressure");
const OXYGEN_SATURATION: Coding = Coding::loinc("59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry");
const BMI: Coding = Coding::loinc("39156-5", "Body mass index (BMI) [Ratio]");
const TEMPERATURE: Coding = Coding::loinc("8310-5", "Body temperature");
const SMOKING: Coding = Coding::loinc("72166-2", "Tobacco smoking status");
/// Probability that a vital sign or a bystander lab was not measured.
const P_NOT_MEASURED: f64 = 0.05;
/// Probability that a temperature is in degrees Fahrenheit.
const P_FAHRENHEIT: f64 = 0.15;
/// Probability that a visit has older bystander labs too, which a reader must not take for the newest.
const P_OLD_LABS: f64 = 0.25;
/// Probability that a measurement was entered twice, the second time wrongly.
const P_ENTERED_IN_ERROR: f64 = 0.01;

/// Long-standing diseases and their drugs, some of them begun within a year before the study.
pub(super) fn problems(page: &mut Page, chart: &mut Chart) -> Result<(), SimulationError> {
    let (known, rng, time) = (page.patient.comorbidities, &mut page.rng, page.visit.time);
    let diseases = [
        (known.copd, Coding::snomed("13645005", "Chronic obstructive lung disease"), Coding::rxnorm("435", "albuterol")),
        (known.diabetes, Coding::snomed("44054006", "Diabetes mellitus type 2"), Coding::rxnorm("6809", "metformin")),
        (known.hypertension, Coding::snomed("38341003", "Hypertensive disorder"), Coding::rxnorm("29046", "lisinopril")),
    ];
    for (present, disease, drug) in diseases {
        let recent = rng.random_bool(0.3);
        let days = if recent { rng.random_range(40.0..350.0) } else { rng.random_range(400.0..5000.0) };
        let treated = rng.random_bool(0.85);
        let delay = rng.random_range(0.0..30.0);
        if present {
            let onset = time.plus_days(-days);
            chart.add_condition(disease, onset, onset.plus_days(0.1))?;
            if treated {
                chart.add_medication(drug, onset.plus_days(delay))?;
            }
        }
    }
    Ok(())
}

/// The clinic visit within 30 days before a study, with its labs and vital signs.
pub(super) fn before(page: &mut Page, chart: &mut Chart) -> Result<(), SimulationError> {
    let clinic = page.visit.time.plus_seconds(-(page.rng.random_range(0.2..29.5f64) * 86_400.0) as i64);
    chart.add_encounter(Coding::encounter("AMB", "ambulatory"), None, clinic, 1)?;
    informative_labs(page, chart, clinic)?;
    bystander_labs(page, chart, clinic)?;
    if page.rng.random_bool(P_OLD_LABS) {
        let earlier = page.visit.time.plus_seconds(-(page.rng.random_range(120.0..355.0f64) * 86_400.0) as i64);
        chart.add_encounter(Coding::encounter("AMB", "ambulatory"), None, earlier, 1)?;
        bystander_labs(page, chart, earlier)?;
    }
    vital_signs(page, chart, clinic)?;
    let status = match page.visit.record.smoking {
        Smoking::Never => Coding::snomed("266919005", "Never smoked tobacco"),
        Smoking::Former => Coding::snomed("8517006", "Ex-smoker"),
        Smoking::Current => Coding::snomed("77176002", "Smoker"),
    };
    chart.add_answer(Category::SocialHistory, SMOKING, clinic, status)
}

fn informative_labs(page: &mut Page, chart: &mut Chart, clinic: Time) -> Result<(), SimulationError> {
    let (record, site) = (page.visit.record, page.patient.site);
    let tests: [(&Test, Lab, f64); 4] = [
        (&CEA, record.cea, labs::cea(record.cea.z)),
        (&CRP, record.crp, labs::crp(record.crp.z)),
        (&HAEMOGLOBIN, record.haemoglobin, labs::haemoglobin(&record)),
        (&NT_PROBNP, record.bnp, labs::nt_probnp(record.bnp.z)),
    ];
    for (test, lab, value) in tests {
        let at = clinic.plus_seconds(page.rng.random_range(300..1500));
        let mistyped = page.rng.random_bool(P_ENTERED_IN_ERROR);
        match lab.state {
            LabState::Measured => {
                chart.add_quantity(Category::Laboratory, test.code, at, test.quantity(value, site))?;
                if mistyped {
                    // Later than the true one: to who ignores the status it is the newest.
                    let quantity = Some(test.quantity(value * 100.0, site));
                    let observation = chart.observation(Category::Laboratory, test.code, at.plus_seconds(600));
                    let observation = Observation { status: "entered-in-error", value_quantity: quantity, ..observation };
                    chart.add(ResourceType::Observation, &observation)?;
                    chart.traps.entered_in_error += 1;
                }
            }
            LabState::Unusable => {
                let quantity = traps::unusable_quantity(test.code.code, &mut page.rng);
                chart.add_quantity(Category::Laboratory, test.code, at, quantity)?;
                chart.traps.unusable_units += 1;
            }
            LabState::Missing => {}
        }
    }
    Ok(())
}

/// Labs that no label depends on.
fn bystander_labs(page: &mut Page, chart: &mut Chart, clinic: Time) -> Result<(), SimulationError> {
    let site = page.patient.site;
    let diabetic = if page.patient.comorbidities.diabetes { 1.4 } else { 1.0 };
    for (test, median, log_sd) in [(&GLUCOSE, 98.0 * diabetic, 0.16), (&CREATININE, 0.95, 0.22), (&WBC, 7.2, 0.25)] {
        let at = clinic.plus_seconds(page.rng.random_range(300..1500));
        let z: f64 = page.rng.sample(StandardNormal);
        if !page.rng.random_bool(P_NOT_MEASURED) {
            chart.add_quantity(Category::Laboratory, test.code, at, test.quantity(median * (log_sd * z).exp(), site))?;
        }
    }
    Ok(())
}

fn vital_signs(page: &mut Page, chart: &mut Chart, clinic: Time) -> Result<(), SimulationError> {
    let rng = &mut page.rng;
    let at = clinic.plus_seconds(rng.random_range(0..300));
    let [pressure, pulse_pressure, saturation, bmi, temperature]: [f64; 5] = std::array::from_fn(|_| rng.sample(StandardNormal));
    let [has_pressure, has_saturation, has_bmi, has_temperature] = std::array::from_fn(|_| !rng.random_bool(P_NOT_MEASURED));
    let fahrenheit = rng.random_bool(P_FAHRENHEIT);
    if has_pressure {
        let mean = if page.patient.comorbidities.hypertension { 142.0 } else { 124.0 };
        let systolic = mean + 12.0 * pressure;
        let diastolic = (0.62 * systolic + 5.0 * pulse_pressure).min(systolic - 15.0);
        let parts = [(SYSTOLIC, systolic), (DIASTOLIC, diastolic)].map(|(code, x)| (code, Quantity::new(x, 0, "mm[Hg]")));
        chart.add_panel(Category::VitalSigns, BLOOD_PRESSURE, at, parts.into())?;
    }
    if has_saturation {
        let drop = if page.patient.comorbidities.copd { 3.0 } else { 0.0 };
        let percent = (97.0 - drop + 1.4 * saturation).clamp(75.0, 100.0);
        chart.add_quantity(Category::VitalSigns, OXYGEN_SATURATION, at, Quantity::new(percent, 0, "%"))?;
    }
    if has_bmi {
        chart.add_quantity(Category::VitalSigns, BMI, at, Quantity::new(26.5 * (0.17 * bmi).exp(), 1, "kg/m2"))?;
    }
    if has_temperature {
        let celsius = 36.7 + 0.35 * temperature;
        let american = fahrenheit && page.patient.site == Site::A;
        let quantity = if american { Quantity::new(celsius * 1.8 + 32.0, 1, "[degF]") } else { Quantity::new(celsius, 1, "Cel") };
        chart.add_quantity(Category::VitalSigns, TEMPERATURE, at, quantity)?;
    }
    debug_assert!(clinic > start_of(page.patient.identity.birth));
    Ok(())
}
