//! Features of real charts, held against an independent computation: `oracle/features_pandas.py`, run once.

use std::collections::HashMap;
use std::path::Path;

use synovia_cohort::{EventKind, Example, ExampleId, FeatureKind, FeatureSpec, PatientRecord, Sex, Time};

use super::read;
use crate::{Feature, FeaturePlan, FeatureSource, Statistic, canonical_unit};

/// The source of a column of the oracle's table.
fn source(column: &str) -> Option<(FeatureSource, String)> {
    let plain = |source| Some((source, String::new()));
    match column {
        "age" => return plain(FeatureSource::Age),
        "female" => return plain(FeatureSource::Sex(Sex::Female)),
        "patient" | "at" => return None,
        _ => {}
    }
    if let Some((kind, code)) = column.split_once('/').filter(|(_, code)| code.contains('|')) {
        let kind = match kind {
            "Condition" => EventKind::Condition,
            "Procedure" => EventKind::Procedure,
            _ => EventKind::Medication,
        };
        return plain(FeatureSource::Flag { kind, code: code.to_owned() });
    }
    let parts: Vec<&str> = column.split('/').collect();
    let code = format!("http://loinc.org|{}", parts[0]);
    let statistic = Statistic::ALL.into_iter().find(|s| s.as_str() == parts[2]).unwrap();
    let unit = canonical_unit(&code).unwrap();
    let unit = if statistic == Statistic::Slope { format!("{unit}/d") } else { unit.to_owned() };
    Some((FeatureSource::Value { code, statistic, window_days: Some(parts[1].parse().unwrap()) }, unit))
}

#[test]
fn synthea_as_pandas_has_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let synthea = folder.join("../../../shared/data/synthea");
    if !synthea.exists() {
        println!("skipped: no synthea data here");
        return;
    }
    let mut table = csv::Reader::from_path(folder.join("oracle/synthea_features.csv")).unwrap();
    let header = table.headers().unwrap().clone();
    let columns: Vec<(usize, Feature)> = header
        .iter()
        .enumerate()
        .filter_map(|(k, name)| {
            let (source, unit) = source(name)?;
            Some((k, Feature { spec: FeatureSpec { name: name.to_owned(), kind: FeatureKind::Number, code: String::new(), unit }, source }))
        })
        .collect();
    let plan = FeaturePlan { features: columns.iter().map(|(_, feature)| feature.clone()).collect(), ..FeaturePlan::default() };
    let records: HashMap<String, PatientRecord> =
        read(&synthea).records.into_iter().map(|record| (record.id.reveal().to_owned(), record)).collect();
    let (mut n_rows, mut n_numbers) = (0, 0);
    for row in table.records() {
        let row = row.unwrap();
        let record = &records[&row[0]];
        let at = Time::from_seconds(row[1].parse().unwrap());
        let example = Example::new(ExampleId::of_patient(&record.id, at), record.id.clone(), at, None, Some(record), None).unwrap();
        let mut got = vec![0.0f32; plan.features.len()];
        plan.row(&example, &record.patient, &mut got);
        for ((k, feature), got) in columns.iter().zip(got) {
            let name = &feature.spec.name;
            if row[*k].is_empty() {
                assert!(got.is_nan(), "{name}: {got} where there is none");
                continue;
            }
            let expected: f32 = row[*k].parse().unwrap();
            // The sums of a mean and a slope are made in another order.
            let summed = matches!(&feature.source, FeatureSource::Value { statistic: Statistic::Mean | Statistic::Slope, .. });
            let close = (got - expected).abs() <= 2e-6 * expected.abs().max(1e-3);
            assert!(got == expected || summed && close, "{name}: {got}, not {expected}");
            n_numbers += 1;
        }
        n_rows += 1;
    }
    assert_eq!(n_rows, 100);
    assert!(n_numbers > 4000, "{n_numbers}");
}
