//! What the image files say of themselves: which instance they are, and where, by what and in what form they were made.

use std::collections::{BTreeMap, BTreeSet};

use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, OpenFileOptions, Tag};
use synovia_cohort::{ExampleRow, Split};

use super::{Audit, Kind, Place, labels, listed};

/// What an example's image says of its making, by what it may tell.
struct Made {
    site: String,
    scanner: String,
    format: String,
}

/// The header of a DICOM file up to its pixels; `None` for any other file.
fn header(path: &std::path::Path) -> Option<DefaultDicomObject> {
    OpenFileOptions::new().read_until(tags::PIXEL_DATA).open_file(path).ok()
}

pub(super) fn look(place: &Place<'_>, audit: &mut Audit) {
    let of_images = || place.reader.rows().iter().filter(|row| row.image_row.is_some());
    if of_images().next().is_none() {
        return;
    }
    let mut not_looked_at = |why: String| audit.not_looked_at.insert(format!("{}: the image files, of which {why}", place.name));
    let Some(folder) = &place.images else {
        not_looked_at("nothing says where they are".to_owned());
        return;
    };
    let mut instances: BTreeMap<String, (BTreeSet<Split>, &ExampleRow, u32)> = BTreeMap::new();
    let mut made = Vec::new();
    let (mut n_unknown, mut n_gone) = (0, 0);
    let mut n_headers = 0;
    for row in of_images() {
        let Some(study) = place.studies.get(row.id.as_str()) else {
            n_unknown += 1;
            continue;
        };
        let path = folder.join(&study.file);
        if !path.is_file() {
            n_gone += 1;
            continue;
        }
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let parent = path.parent().map(|p| p.display().to_string()).unwrap_or_default();
        let Some(object) = header(&path) else {
            made.push((row, Made { site: String::new(), scanner: String::new(), format: format!("{ending} in {parent}") }));
            continue;
        };
        n_headers += 1;
        let text = |tag: Tag| {
            object.element(tag).ok().and_then(|e| e.to_str().ok().map(|t| t.trim_end_matches(['\0', ' ']).to_owned())).unwrap_or_default()
        };
        let sop = text(tags::SOP_INSTANCE_UID);
        if !sop.is_empty() {
            let (splits, _, count) = instances.entry(sop).or_insert_with(|| (BTreeSet::new(), row, 0));
            splits.insert(row.split);
            *count += 1;
        }
        let scanner = [tags::MANUFACTURER, tags::MANUFACTURER_MODEL_NAME, tags::STATION_NAME].map(text).join(" ");
        let format = format!("{} {}", object.meta().transfer_syntax(), text(tags::PHOTOMETRIC_INTERPRETATION));
        made.push((row, Made { site: text(tags::INSTITUTION_NAME), scanner, format }));
    }
    if n_unknown > 0 {
        not_looked_at(format!("{n_unknown} are not in ingest/studies.json"));
    }
    if n_gone > 0 {
        not_looked_at(format!("{n_gone} are not in {} any more", folder.display()));
    }
    audit.headers += n_headers;
    for (splits, first, count) in instances.into_values().filter(|(splits, ..)| splits.len() > 1) {
        let evidence = format!("one SOP instance is in {}, under {count} examples, the first {}", listed(&splits), first.id);
        audit.leaks.push(place.leak(Kind::SameInstance, evidence));
    }
    let of: [(Kind, &str, fn(&Made) -> &str); 3] = [
        (Kind::SiteTellsLabel, "institution", |made| &made.site),
        (Kind::ScannerTellsLabel, "scanner", |made| &made.scanner),
        (Kind::FormatTellsLabel, "file format", |made| &made.format),
    ];
    for (kind, what, of) in of {
        let categories: Vec<(&ExampleRow, &str)> = made.iter().map(|(row, made)| (*row, of(made))).collect();
        labels::categories(place, kind, what, &categories, audit);
    }
}
