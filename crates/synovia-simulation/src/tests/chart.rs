//! The chart: references, times and units, and the truth again from nothing but its text.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use synovia_cohort::{ExampleId, PatientId, Time};

use super::{cohort, config, ndjson, numbers, texts, truth};

const TYPES: [&str; 7] = ["Patient", "Encounter", "Observation", "Condition", "MedicationRequest", "ImagingStudy", "DiagnosticReport"];

fn time(value: &Value) -> Time {
    Time::parse_fhir(value.as_str().unwrap()).unwrap()
}

fn code(resource: &Value) -> &str {
    resource["code"]["coding"][0]["code"].as_str().unwrap()
}

#[test]
fn references_resolve_but_for_the_counted_traps() {
    let (dir, summary) = cohort(&config(420));
    let mut ids = BTreeSet::new();
    let (mut unknown, mut unknown_studies, mut in_error) = (0, 0, 0);
    for kind in TYPES {
        let resources = ndjson(dir.path(), kind);
        assert_eq!(resources.len() as u64, summary.resources[kind]);
        for resource in &resources {
            assert_eq!(resource["resourceType"], kind);
            assert!(ids.insert(format!("{kind}/{}", resource["id"].as_str().unwrap())), "an id twice");
            in_error += u64::from(resource["status"] == "entered-in-error");
        }
    }
    for kind in &TYPES[1..] {
        for resource in ndjson(dir.path(), kind) {
            if !ids.contains(resource["subject"]["reference"].as_str().unwrap()) {
                unknown += u64::from(*kind == "Observation");
                unknown_studies += u64::from(*kind == "ImagingStudy");
            }
            if *kind == "DiagnosticReport" {
                assert!(ids.contains(resource["imagingStudy"][0]["reference"].as_str().unwrap()));
                assert!(time(&resource["issued"]) > time(&resource["effectiveDateTime"]));
            }
        }
    }
    assert_eq!(
        (unknown, unknown_studies, in_error),
        (summary.n_unknown_subjects, summary.n_unknown_study_subjects, summary.n_entered_in_error)
    );
    assert!(unknown > 0 && unknown_studies > 0 && in_error > 0 && summary.n_unusable_units > 0, "{summary:?}");
}

#[test]
fn namesakes_are_different_patients() {
    let (dir, _) = cohort(&config(102));
    let patients = ndjson(dir.path(), "Patient");
    for k in [0, 50, 100] {
        let (a, b) = (&patients[k], &patients[k + 1]);
        assert_eq!(a["name"], b["name"]);
        assert_eq!(a["birthDate"].as_str().unwrap()[..4], b["birthDate"].as_str().unwrap()[..4]);
        assert_ne!(a["birthDate"], b["birthDate"]);
        assert_ne!(a["identifier"], b["identifier"]);
    }
    let mrns: BTreeSet<&str> = patients.iter().map(|p| p["identifier"][0]["value"].as_str().unwrap()).collect();
    assert_eq!(mrns.len(), patients.len());
}

/// What a study is followed by, and what a visit can see of another.
#[test]
fn the_future_is_there_to_be_refused_and_visits_do_not_overlap() {
    let (dir, _) = cohort(&config(400));
    let mut studies: BTreeMap<String, Vec<Time>> = BTreeMap::new();
    for study in ndjson(dir.path(), "ImagingStudy") {
        studies.entry(study["subject"]["reference"].as_str().unwrap().to_owned()).or_default().push(time(&study["started"]));
    }
    let (mut diagnoses, mut chemotherapies, mut later_cea) = (0, 0, 0);
    for (kind, field) in [("Observation", "effectiveDateTime"), ("Condition", "onsetDateTime"), ("MedicationRequest", "authoredOn")] {
        for resource in ndjson(dir.path(), kind) {
            let Some(studies) = studies.get(resource["subject"]["reference"].as_str().unwrap()) else { continue };
            let at = time(&resource[field]);
            let Some(last) = studies.iter().filter(|&&study| study < at).max() else { continue };
            // Outcomes of a visit are more than a year before the next one: no history of a year sees them.
            if let Some(next) = studies.iter().filter(|&&study| study >= at).min() {
                assert!(next.days_since(at) < 360.0 || at.days_since(*last) < 400.0);
            }
            if kind == "Condition" && code(&resource) == "363358000" {
                assert!((20.0..=150.0).contains(&at.days_since(*last)));
                assert_eq!(last, studies.iter().max().unwrap(), "a malignant study is the last");
                assert!(time(&resource["recordedDate"]) >= at);
                diagnoses += 1;
            }
            later_cea += usize::from(kind == "Observation" && code(&resource) == "2039-6" && at.days_since(*last) < 200.0);
            chemotherapies += usize::from(resource["medicationCodeableConcept"]["coding"][0]["code"] == "40048");
        }
    }
    assert!(diagnoses > 100 && chemotherapies == diagnoses && later_cea == diagnoses, "{diagnoses} {chemotherapies} {later_cea}");
}

/// The malignant label and `p_record`, from the text of the chart alone, with formulas written out anew: labs of the 30 days
/// before the study, by code and unit, and nothing from after it.
#[test]
fn truth_follows_from_the_chart() {
    let (dir, _) = cohort(&config(250));
    let truth = truth(dir.path());
    let (tasks, examples, patients) = (texts(&truth, "task"), texts(&truth, "example_id"), texts(&truth, "patient_id"));
    let p_record = numbers(&truth, "p_record");
    let labels: Vec<f32> = truth.column("label").unwrap().f32().unwrap().iter().flatten().collect();
    let expected: BTreeMap<(String, String), (f64, f32)> = (0..truth.height())
        .filter(|&k| tasks[k] == "malignant")
        .map(|k| ((patients[k].clone(), examples[k].clone()), (p_record[k].unwrap(), labels[k])))
        .collect();
    let by_patient = |kind: &str| {
        let mut map: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for resource in ndjson(dir.path(), kind) {
            map.entry(resource["subject"]["reference"].as_str().unwrap().to_owned()).or_default().push(resource);
        }
        map
    };
    let (observations, conditions, encounters) = (by_patient("Observation"), by_patient("Condition"), by_patient("Encounter"));
    let births: BTreeMap<String, Time> = ndjson(dir.path(), "Patient")
        .iter()
        .map(|p| (format!("Patient/{}", p["id"].as_str().unwrap()), Time::parse_birth(p["birthDate"].as_str().unwrap()).unwrap()))
        .collect();
    let mut n_checked = 0;
    for study in ndjson(dir.path(), "ImagingStudy") {
        let subject = study["subject"]["reference"].as_str().unwrap();
        let Some(birth) = births.get(subject) else { continue };
        let started = time(&study["started"]);
        let uid = study["identifier"][0]["value"].as_str().unwrap().strip_prefix("urn:oid:").unwrap();
        let key = (PatientId::new(&subject["Patient/".len()..]).pseudonym(), ExampleId::of_study(uid).as_str().to_owned());
        let &(p_record, label) = &expected[&key];

        let seen = |o: &&Value| {
            let days = started.days_since(time(&o["effectiveDateTime"]));
            o["status"] == "final" && (0.0..=30.0).contains(&days)
        };
        let lab = |loinc: &str, unit: &str, median: f64, log_sd: f64| {
            let found = observations[subject].iter().filter(seen).find(|o| code(o) == loinc && o["valueQuantity"]["code"] == unit)?;
            Some((found["valueQuantity"]["value"].as_f64().unwrap() / median).ln() / log_sd)
        };
        let smoking = observations[subject].iter().filter(seen).find(|o| code(o) == "72166-2").unwrap();
        let smoking = match smoking["valueCodeableConcept"]["coding"][0]["code"].as_str().unwrap() {
            "266919005" => 0.0,
            "8517006" => 1.0,
            "77176002" => 2.0,
            other => panic!("smoking {other}"),
        };
        let age = (started.years_since(*birth) - 59.0) / (38.0 / 12f64.sqrt());
        let standing = 0.48 * (smoking - 0.85) / 0.6275f64.sqrt() + 0.4 * age;
        let (mut mean, mut variance) = (standing, 0.0);
        for (weight, z) in [(0.6, lab("2039-6", "ng/mL", 2.5, 0.6)), (0.5, lab("1988-5", "mg/L", 5.0, 0.7))] {
            match z {
                Some(z) => mean += weight * z,
                None => variance += weight * weight,
            }
        }
        // Midpoint sums over diameter, texture and what is missing of the score.
        let (mut sum, mut total) = (0.0, 0.0);
        for i in 0..200 {
            let d = -2.0 + 0.02 * (f64::from(i) + 0.5);
            for j in 0..60 {
                let z = if variance > 0.0 { -6.0 + 0.2 * (f64::from(j) + 0.5) } else { 0.0 };
                let weight = (-0.5 * (d * d + z * z)).exp();
                let r = mean + variance.sqrt() * z;
                for g in [-1.0, 1.0] {
                    sum += weight / (1.0 + (0.45 - 2.0 * d - g - 3.9 * r - 3.8 * g * r).exp());
                    total += weight;
                }
            }
        }
        assert!((sum / total - p_record).abs() < 5e-3, "{} from the chart, {p_record} in the table", sum / total);
        n_checked += 1;

        let in_window = |at: Time| (0.0..180.0).contains(&at.days_since(started));
        let diagnosed =
            conditions.get(subject).is_some_and(|c| c.iter().any(|c| code(c) == "363358000" && in_window(time(&c["onsetDateTime"]))));
        let followed = encounters[subject].iter().any(|e| time(&e["period"]["start"]).days_since(started) >= 180.0);
        if diagnosed || followed {
            assert_eq!(f32::from(u8::from(diagnosed)), label);
        }
    }
    assert_eq!(n_checked, expected.len());
}

/// Units differ between sites; values in the conventional unit do not.
#[test]
fn units_are_consistent_once_converted() {
    let (dir, _) = cohort(&config(400));
    let mut values: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for observation in ndjson(dir.path(), "Observation").iter().filter(|o| o["status"] == "final") {
        if let (Some(value), Some(unit)) = (observation["valueQuantity"]["value"].as_f64(), observation["valueQuantity"]["code"].as_str()) {
            values.entry((code(observation).to_owned(), unit.to_owned())).or_default().push(value);
        }
    }
    let median = |loinc: &str, unit: &str| {
        let mut values = values[&(loinc.to_owned(), unit.to_owned())].clone();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    // Conventional unit, SI unit, and the factor between them as laboratories publish it.
    for (loinc, conventional, si, factor) in
        [("718-7", "g/dL", "g/L", 10.0), ("2345-7", "mg/dL", "mmol/L", 0.0555), ("2160-0", "mg/dL", "umol/L", 88.4)]
    {
        let ratio = median(loinc, si) / median(loinc, conventional) / factor;
        assert!((ratio - 1.0).abs() < 0.06, "{loinc}: {ratio}");
    }
    assert!((median("8310-5", "Cel") * 1.8 + 32.0 - median("8310-5", "[degF]")).abs() < 0.5);
}
