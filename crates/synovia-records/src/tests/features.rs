//! Fitting a plan on some examples and applying it to others.

use synovia_cohort::{Event, EventKind, EventValue, Example, ExampleId, Patient, PatientId, PatientRecord, Sex, Time};

use super::{event, record};
use crate::{FeatureConfig, FeaturePlan, FeatureSource, PlanBuilder, Statistic};

const GLUCOSE: &str = "http://loinc.org|2345-7";
const LOCAL: &str = "lab|x";
const SMOKING: &str = "http://loinc.org|72166-2";

fn number(day: f64, code: &str, value: f64, unit: &str) -> Event {
    event(day, EventKind::Observation, code, EventValue::Number { value, unit: unit.into() })
}

fn example(record: &PatientRecord, day: f64) -> Example<'_> {
    let at = Time::from_seconds(0).plus_days(day);
    Example::new(ExampleId::of_patient(&PatientId::new("p"), at), record.id.clone(), at, None, Some(record), Some(365.0)).unwrap()
}

fn fit(config: FeatureConfig, records: &[PatientRecord]) -> FeaturePlan {
    let mut builder = PlanBuilder::new(config);
    for record in records {
        builder.observe(&example(record, 1000.0), &record.patient);
    }
    builder.finish()
}

/// The row as `name = value` of what is not missing, and whether anything is known.
fn row(plan: &FeaturePlan, record: &PatientRecord) -> (Vec<String>, bool) {
    let mut out = vec![-7.0; plan.features.len()];
    let known = plan.row(&example(record, 1000.0), &record.patient, &mut out);
    let names = plan.features.iter().zip(&out).filter(|(_, x)| !x.is_nan()).map(|(f, x)| format!("{} = {x}", f.spec.name)).collect();
    (names, known)
}

fn born(year_days: f64, sex: Option<Sex>) -> Patient {
    Patient { birth: Some(Time::from_seconds(0).plus_days(1000.0 - year_days)), sex, ..Patient::default() }
}

#[test]
fn the_last_value_in_the_window_in_the_features_unit() {
    let train = record(Patient::default(), vec![number(900.0, LOCAL, 1.0, "g/L"), number(901.0, LOCAL, 2.0, "g/L")]);
    let other = record(Patient::default(), vec![number(900.0, LOCAL, 1.0, "mg/dL")]);
    let plan = fit(FeatureConfig::default(), &[train.clone(), train, other]);
    assert_eq!(plan.specs()[0].unit, "g/L");
    assert!(plan.unconverted.is_empty());
    let of = |events| row(&plan, &record(Patient::default(), events));
    assert_eq!(of(vec![number(900.0, LOCAL, 1.0, "g/L"), number(950.0, LOCAL, 400.0, "mg/dL")]), (vec!["lab|x = 4".to_owned()], true));
    // The future and what is older than the history window are not seen.
    assert_eq!(of(vec![number(1000.1, LOCAL, 9.0, "g/L")]), (vec![], false));
    assert_eq!(of(vec![number(634.9, LOCAL, 9.0, "g/L")]), (vec![], false));
    assert_eq!(of(vec![number(1000.0, LOCAL, 3.0, "g/L")]), (vec!["lab|x = 3".to_owned()], true));
    // What can't be had in the unit is missing, never taken for it.
    assert_eq!(of(vec![number(900.0, LOCAL, 5.0, "furlong")]), (vec![], false));
    assert_eq!(of(vec![number(900.0, LOCAL, 1.0, "g/L"), number(950.0, LOCAL, 5.0, "furlong")]), (vec!["lab|x = 1".to_owned()], true));
}

#[test]
fn statistics_in_windows() {
    let config = FeatureConfig { statistics: Statistic::ALL.to_vec(), windows_days: vec![10.0, 200.0], ..FeatureConfig::default() };
    let train = record(Patient::default(), vec![number(900.0, LOCAL, 2.0, "g/L")]);
    let plan = fit(config.clone(), &[train]);
    assert_eq!(plan.features.len(), 16);
    let units: Vec<String> = plan.specs().into_iter().take(8).map(|s| s.unit).collect();
    assert_eq!(units, ["g/L", "g/L", "g/L", "g/L", "g/L", "g/L/d", "", "d"]);
    let of = |events| row(&plan, &record(Patient::default(), events)).0;
    assert_eq!(
        of(vec![number(900.0, LOCAL, 1.0, "g/L"), number(910.0, LOCAL, 200.0, "mg/dL"), number(920.0, LOCAL, 6.0, "g/L")]),
        [
            "lab|x: count of 10 d = 0",
            "lab|x: last of 200 d = 6",
            "lab|x: first of 200 d = 1",
            "lab|x: mean of 200 d = 3",
            "lab|x: min of 200 d = 1",
            "lab|x: max of 200 d = 6",
            "lab|x: slope of 200 d = 0.25",
            "lab|x: count of 200 d = 3",
            "lab|x: time_since of 200 d = 80",
        ]
    );
    // One number has no slope, and nobody counted where there is no chart.
    assert!(!of(vec![number(999.0, LOCAL, 1.0, "g/L")]).iter().any(|text| text.contains("slope")));
    assert_eq!(of(vec![]), Vec::<String>::new());
    // A measurement whose columns do not all fit is left out whole.
    assert!(
        fit(FeatureConfig { max_features: 15, ..config }, &[record(Patient::default(), vec![number(900.0, LOCAL, 2.0, "g/L")])])
            .features
            .is_empty()
    );
}

#[test]
fn icd10_counts_for_its_category() {
    const ICD: &str = "http://hl7.org/fhir/sid/icd-10-cm";
    let of = |code: &str| record(Patient::default(), vec![event(900.0, EventKind::Condition, &format!("{ICD}|{code}"), EventValue::None)]);
    let plan = fit(FeatureConfig { roll_up: true, min_share: 0.6, ..FeatureConfig::default() }, &[of("C34.11"), of("C34.2"), of("I10")]);
    assert_eq!(
        plan.specs().into_iter().map(|s| (s.name, s.code)).collect::<Vec<_>>(),
        [("C34 and below".to_owned(), format!("{ICD}|C34"))]
    );
    assert_eq!(row(&plan, &of("C34.9")).0, ["C34 and below = 1"]);
    assert_eq!(row(&plan, &of("C34")).0, ["C34 and below = 1"]);
    assert_eq!(row(&plan, &of("C341.9")).0, ["C34 and below = 0"]);
}

#[test]
fn units_that_cannot_be_joined_are_counted() {
    let of = |unit| record(Patient::default(), vec![number(900.0, LOCAL, 1.0, unit)]);
    let plan = fit(FeatureConfig::default(), &[of("g/L"), of("g/L"), of("mmol/L")]);
    assert_eq!(plan.unconverted.get(LOCAL), Some(&1));
}

#[test]
fn absent_is_not_zero() {
    let flag = |kind, code| event(900.0, kind, code, EventValue::None);
    let diabetic = record(Patient::default(), vec![flag(EventKind::Condition, "s|dm"), flag(EventKind::Medication, "rx|metformin")]);
    let plan = fit(FeatureConfig::default(), std::slice::from_ref(&diabetic));
    let of = |events| row(&plan, &record(Patient::default(), events));
    assert_eq!(row(&plan, &diabetic), (vec!["s|dm = 1".to_owned(), "rx|metformin = 1".to_owned()], true));
    assert_eq!(of(vec![flag(EventKind::Condition, "s|other")]), (vec!["s|dm = 0".to_owned(), "rx|metformin = 0".to_owned()], true));
    // A chart that holds only the order for the image, or a contact, says nothing of diagnoses.
    assert_eq!(of(vec![flag(EventKind::Imaging, "DCM|DX"), flag(EventKind::Encounter, "AMB")]), (vec![], false));
    assert_eq!(of(vec![]), (vec![], false));
}

#[test]
fn answers_are_flags() {
    let smoker =
        |answer: &str| record(Patient::default(), vec![event(900.0, EventKind::Observation, SMOKING, EventValue::Code(answer.into()))]);
    let plan = fit(FeatureConfig::default(), &[smoker("s|never"), smoker("s|never"), smoker("s|current")]);
    let expect = |never, current| (vec![format!("{SMOKING}: s|never = {never}"), format!("{SMOKING}: s|current = {current}")], true);
    assert_eq!(row(&plan, &smoker("s|never")), expect(1, 0));
    assert_eq!(row(&plan, &smoker("s|current")), expect(0, 1));
    assert_eq!(row(&plan, &smoker("s|former")), expect(0, 0));
    assert_eq!(row(&plan, &record(Patient::default(), vec![])), (vec![], false));
}

#[test]
fn a_reports_conclusion_is_not_an_observations_answer() {
    let coded = |day, kind, answer: &str| event(day, kind, SMOKING, EventValue::Code(answer.into()));
    let both =
        record(Patient::default(), vec![coded(900.0, EventKind::Observation, "s|never"), coded(901.0, EventKind::Report, "s|current")]);
    let plan = fit(FeatureConfig { codes: Some(vec![SMOKING.to_owned()]), ..FeatureConfig::default() }, std::slice::from_ref(&both));
    let expect = [format!("{SMOKING}: s|never = 1"), format!("{SMOKING}: s|current = 1")];
    assert_eq!(row(&plan, &both).0, expect);
    // Plans of before told no kinds apart.
    let old: FeatureSource = serde_json::from_str(r#"{"answer":{"code":"c","value":"v"}}"#).unwrap();
    assert_eq!(old, FeatureSource::Answer { kind: EventKind::Observation, code: "c".to_owned(), value: "v".to_owned() });
}

#[test]
fn what_fits_after_a_measurement_that_does_not_is_taken() {
    let events = vec![number(900.0, LOCAL, 2.0, "g/L"), event(901.0, EventKind::Condition, "s|dm", EventValue::None)];
    let config = FeatureConfig { statistics: Statistic::ALL.to_vec(), max_features: 7, ..FeatureConfig::default() };
    assert_eq!(fit(config, &[record(Patient::default(), events)]).specs().into_iter().map(|s| s.code).collect::<Vec<_>>(), ["s|dm"]);
}

#[test]
fn age_and_sex() {
    let train = [record(born(10_000.0, Some(Sex::Female)), vec![]), record(born(9_000.0, Some(Sex::Male)), vec![])];
    let plan = fit(FeatureConfig::default(), &train);
    assert_eq!(
        row(&plan, &record(born(36_525.0, Some(Sex::Female)), vec![])),
        (vec!["age = 100".to_owned(), "sex: female = 1".to_owned(), "sex: male = 0".to_owned()], true)
    );
    assert_eq!(row(&plan, &record(born(365.25, None), vec![])), (vec!["age = 1".to_owned()], true));
    // Born after the prediction: an error of the chart, not an age.
    assert_eq!(row(&plan, &record(born(-10.0, None), vec![])), (vec![], false));
}

#[test]
fn only_facts_that_are_declared_are_inputs() {
    let facts = |educ: Option<f64>, sex: &str| Patient {
        facts: educ
            .map(|value| ("Educ".into(), EventValue::Number { value, unit: "".into() }))
            .into_iter()
            .chain([("M/F".into(), EventValue::Code(sex.into())), ("CDR".into(), EventValue::Number { value: 1.0, unit: "".into() })])
            .collect(),
        ..Patient::default()
    };
    let config = FeatureConfig { facts: vec!["M/F".to_owned(), "Educ".to_owned()], ..FeatureConfig::default() };
    let plan = fit(config, &[record(facts(Some(3.0), "F"), vec![]), record(facts(None, "M"), vec![])]);
    assert_eq!(
        row(&plan, &record(facts(Some(5.0), "M"), vec![])),
        (vec!["M/F: F = 0".to_owned(), "M/F: M = 1".to_owned(), "Educ = 5".to_owned()], true)
    );
    assert_eq!(row(&plan, &record(facts(None, "M"), vec![])).0, ["M/F: F = 0", "M/F: M = 1"]);
}

#[test]
fn rare_codes_and_codes_over_the_cap_are_no_features() {
    let mut records: Vec<PatientRecord> =
        (0..100).map(|k| record(Patient::default(), vec![number(900.0, LOCAL, f64::from(k), "g/L")])).collect();
    for record in records.iter_mut().take(4) {
        record.events.push(number(901.0, "lab|rare", 1.0, "g/L"));
    }
    for record in records.iter_mut().take(5) {
        record.events.push(number(902.0, "lab|often", 1.0, "g/L"));
    }
    let codes = |config| fit(config, &records).specs().into_iter().map(|s| s.code).collect::<Vec<_>>();
    assert_eq!(codes(FeatureConfig::default()), [LOCAL, "lab|often"]);
    assert_eq!(codes(FeatureConfig { max_features: 1, ..FeatureConfig::default() }), [LOCAL]);
    assert_eq!(codes(FeatureConfig { codes: Some(vec!["lab|rare".to_owned()]), ..FeatureConfig::default() }), ["lab|rare"]);
}

#[test]
fn the_order_of_the_examples_does_not_matter_and_the_plan_survives_a_file() {
    let records: Vec<PatientRecord> = (0..20)
        .map(|k| {
            let unit = if k % 3 == 0 { "mg/dL" } else { "mmol/L" };
            let mut events =
                vec![number(900.0, GLUCOSE, 5.0, unit), event(901.0, EventKind::Condition, &format!("s|{}", k % 4), EventValue::None)];
            events[0].display = format!("name {}", k % 5).as_str().into();
            record(born(9000.0 + f64::from(k), Some(if k % 2 == 0 { Sex::Male } else { Sex::Female })), events)
        })
        .collect();
    let plan = fit(FeatureConfig::default(), &records);
    let reversed: Vec<PatientRecord> = records.iter().rev().cloned().collect();
    assert_eq!(plan, fit(FeatureConfig::default(), &reversed));
    let text = serde_json::to_string(&plan).unwrap();
    let back: FeaturePlan = serde_json::from_str(&text).unwrap();
    assert_eq!(back, plan);
    assert_eq!(row(&back, &records[3]), row(&plan, &records[3]));
    assert_eq!(plan.features.len(), 3 + 1 + 4);
}
