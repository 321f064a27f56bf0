//! The records again: one person under two ids, features that are not of the past, reports that tell the label.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use synovia_cohort::{EventKind, EventValue, Example, Sex, Split, Time};
use synovia_records::FeaturePlan;

use super::labels::{Words, answer, questions};
use super::{Audit, Kind, Place, listed};
use crate::stages::cohort::named;
use crate::stages::ingest::read_json;

/// Name, birth, sex.
type Person = (u64, Time, Option<Sex>);

const fn order(sex: Option<Sex>) -> u8 {
    match sex {
        None => 0,
        Some(Sex::Female) => 1,
        Some(Sex::Male) => 2,
        Some(Sex::Other) => 3,
    }
}

pub(super) fn look(place: &Place<'_>, audit: &mut Audit) -> anyhow::Result<()> {
    let Some(store) = place.store else { return Ok(()) };
    let (rows, manifest) = (place.reader.rows(), place.reader.manifest());
    let path = place.folder.join("features.json");
    let plan: FeaturePlan = if path.is_file() { read_json(&path)? } else { FeaturePlan::default() };
    if plan.features.len() != manifest.features.len() {
        audit.not_looked_at.insert(format!("{}: how its features were made, which its features.json does not say", place.name));
    }
    let mut of_patient: HashMap<&str, Vec<usize>> = HashMap::new();
    for (k, row) in rows.iter().enumerate() {
        of_patient.entry(&row.patient).or_default().push(k);
    }
    let mut people: BTreeMap<(u64, Time, u8), (BTreeSet<Split>, BTreeSet<String>)> = BTreeMap::new();
    let mut groups: BTreeMap<Arc<str>, (BTreeSet<Split>, BTreeSet<String>)> = BTreeMap::new();
    let mut words: BTreeMap<(usize, usize), Words> = BTreeMap::new();
    let (mut stored, mut expected) = (vec![0.0f32; manifest.features.len()], vec![0.0f32; manifest.features.len()]);
    for partition in 0..store.n_partitions() {
        for record in store.load(partition)? {
            let Some(examples) = of_patient.get(record.id.pseudonym().as_str()) else { continue };
            audit.patients += 1;
            let person: Option<Person> = record.patient.name_digest.zip(record.patient.birth).map(|(n, b)| (n, b, record.patient.sex));
            if let Some(group) = named(&record, place.group.as_ref()) {
                let (splits, ids) = groups.entry(group).or_default();
                splits.extend(examples.iter().map(|&k| rows[k].split));
                ids.insert(record.id.pseudonym());
            }
            for &k in examples {
                let row = &rows[k];
                if let Some((name, birth, sex)) = person {
                    let (splits, ids) = people.entry((name, birth, order(sex))).or_default();
                    splits.insert(row.split);
                    ids.insert(row.patient.clone());
                }
                let example =
                    Example::new(row.id.clone(), record.id.clone(), row.prediction_time, None, Some(&record), place.history_days)?;
                if plan.features.len() == expected.len() && place.reader.read_record(row, &mut stored)? {
                    expected.fill(f32::NAN);
                    plan.row(&example, &record.patient, &mut expected);
                    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                    if let Some(j) = stored.iter().zip(&expected).position(|pair| !same(pair)) {
                        let evidence = format!(
                            "the feature `{}` of the example {} is not what the events up to its prediction time give",
                            manifest.features[j].name, row.id
                        );
                        audit.leaks.push(place.leak(Kind::FutureEvents, evidence));
                    }
                }
                let met = words_of(&example);
                if met.is_empty() {
                    continue;
                }
                for (t, task) in manifest.tasks.iter().enumerate() {
                    for (class, _) in questions(task) {
                        if let Some(label) = answer(row, t, class) {
                            words.entry((t, class)).or_default().add(&met, label);
                        }
                    }
                }
            }
        }
    }
    for (splits, ids) in people.into_values().filter(|(splits, ids)| splits.len() > 1 && ids.len() > 1) {
        let ids: Vec<String> = ids.into_iter().collect();
        let evidence = format!("the patients {} have the same name, birth date and sex, and are in {}", ids.join(" and "), listed(&splits));
        audit.leaks.push(place.leak(Kind::SamePerson, evidence));
    }
    for (splits, ids) in groups.into_values().filter(|(splits, ids)| splits.len() > 1 && ids.len() > 1) {
        let ids: Vec<String> = ids.into_iter().collect();
        let evidence = format!("the patients {} are of one group, and are in {}", ids.join(" and "), listed(&splits));
        audit.leaks.push(place.leak(Kind::GroupInTwoSplits, evidence));
    }
    for ((t, class), words) in &words {
        if let Some((word, area, n)) = words.telling() {
            let name = questions(&manifest.tasks[*t]).find(|(k, _)| k == class).map_or("", |(_, name)| name);
            let evidence = format!(
                "the word `{word}` in reports up to the prediction time alone tells `{}` ({name}): AUROC {area:.3} over {n} examples",
                manifest.tasks[*t].name
            );
            audit.leaks.push(place.leak(Kind::TextTellsLabel, evidence));
        }
    }
    Ok(())
}

/// Words of letters, in small letters, of the reports that an example may know.
fn words_of(example: &Example<'_>) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for event in example.history().iter().filter(|event| event.kind == EventKind::Report) {
        if let EventValue::Text(text) = &event.value {
            let found = text.split(|c: char| !c.is_alphabetic()).filter(|word| (3..=40).contains(&word.chars().count()));
            words.extend(found.map(str::to_lowercase));
        }
    }
    words
}
