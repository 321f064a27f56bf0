//! Columns that the report divides the test split by: what of sex, age and other categories the feature table keeps, and which
//! modalities an example has.

use std::collections::BTreeMap;
use std::path::Path;

use synovia_cohort::{CohortReader, ExampleRow};
use synovia_evaluation::{Attribute, ModalityPattern};
use synovia_records::{FeaturePlan, FeatureSource};

use super::ingest::read_json;

/// Ages from which on a band begins, years.
const BANDS: [(f32, &str); 4] = [(0.0, "under 50"), (50.0, "50 to 64"), (65.0, "65 to 79"), (80.0, "80 and over")];

/// Adds the groups of a cohort's rows to `attributes`; a fold's cohort adds to those of the others.
pub fn add_attributes(cohort: &Path, reader: &CohortReader, attributes: &mut BTreeMap<String, Attribute>) -> anyhow::Result<()> {
    let plan: FeaturePlan = read_json(&cohort.join("features.json"))?;
    let mut add = |column: &str, row: &ExampleRow, group: &str| {
        let attribute =
            attributes.entry(column.to_owned()).or_insert_with(|| Attribute { name: column.to_owned(), ..Attribute::default() });
        attribute.groups.insert(row.id.clone(), group.to_owned());
    };
    let mut values = vec![0.0; reader.manifest().features.len()];
    for row in reader.rows() {
        if let Some(pattern) = ModalityPattern::of(row.image_row.is_some(), row.record_row.is_some()) {
            add("modalities", row, pattern.as_str());
        }
        if !reader.read_record(row, &mut values)? {
            continue;
        }
        for (feature, &value) in plan.features.iter().zip(&values).filter(|(_, value)| !value.is_nan()) {
            match &feature.source {
                FeatureSource::Age => add("age", row, band(value)),
                FeatureSource::Fact { name } if name.eq_ignore_ascii_case("age") => add("age", row, band(value)),
                FeatureSource::Sex(sex) if value == 1.0 => add("sex", row, &format!("{sex:?}").to_lowercase()),
                FeatureSource::FactIs { name, value: category } if value == 1.0 => add(name, row, category),
                _ => {}
            }
        }
    }
    Ok(())
}

fn band(age: f32) -> &'static str {
    BANDS.iter().rev().find(|(from, _)| age >= *from).map_or(BANDS[0].1, |(_, name)| name)
}
