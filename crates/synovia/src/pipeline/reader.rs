//! Section by section, a document becomes a [`Pipeline`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use synovia_cohort::EndpointKind;
use synovia_evaluation::Calibrator;
use synovia_fusion::FusionKind;
use synovia_records::{Format, LongLayout, Statistic};
use synovia_training::{Balance, Branches, Imbalance, Privacy};

use super::PROVENANCE;
use super::problem::{Place, Problem, nearest, quoted};
use super::reader_cohort;
use super::reader_images;
use super::reader_model;
use super::reader_task::{self, Source};
use super::section::{Problems, Section};
use super::settings::{
    Augmentation, Device, EndpointLabel, Features, History, ImageEncoder, ImageLink, Pipeline, RecordEncoder, RecordFormat, Records,
    ReportSettings, Sampling, Start, Training, Unit,
};
use super::span::{TimeSpan, TimeUnit};
use super::translation::address;
use super::tree::{Table, Value};

const TOP: [&str; 10] = ["name", "seed", "images", "records", "cohort", "task", "model", "training", "report", PROVENANCE];

/// All that is wrong, or the pipeline.
pub(super) fn read(document: &Table) -> Result<Pipeline, Vec<Problem>> {
    let problems = Problems::default();
    let pipeline = read_into(document, &problems);
    let problems = problems.into_sorted();
    match pipeline {
        Some(pipeline) if problems.is_empty() => Ok(pipeline),
        _ if problems.is_empty() => Err(vec![Problem::new(Place::File, "an incomplete pipeline".to_owned())]),
        _ => Err(problems),
    }
}

/// `None` only after a problem was noted; a value with problems noted is thrown away by the caller.
fn read_into(document: &Table, problems: &Problems) -> Option<Pipeline> {
    let top = Section::new("", Place::File, Some(document), &TOP, problems);
    let name = top.word("name");
    match &name {
        Some(name) if !is_file_name(name) => {
            top.wrong("name", format!("`name` is \"{name}\"; it names the run folder, so write letters, digits, `.`, `_` or `-`"));
        }
        None if !top.has("name") => top.missing("name", "write one such as name = \"lung\""),
        _ => {}
    }
    let seed = top.integer("seed", 0..=i64::MAX).unwrap_or(0).cast_unsigned();

    let images = top.has("images").then(|| reader_images::read(&open(&top, "images", &reader_images::KEYS)));
    let records = if top.has("records") {
        let known = ["path", "format", "history", "features", "categories", "id", "image", "time", "columns"];
        Some(read_records(&open(&top, "records", &known)))
    } else {
        let advice = if images.is_some() {
            "labels come from the records: add it, and record = \"none\" in [model] to train on images alone"
        } else {
            "add [records], [images] or both"
        };
        top.missing("records", advice);
        None
    };
    let source = match records.as_ref().and_then(|records| records.as_ref()) {
        Some(Records { format: RecordFormat::Csv { features, .. }, path }) => Source::Csv { features, columns: header(path) },
        Some(_) => Source::Events,
        None => Source::Unknown,
    };
    let cohort = reader_cohort::read(&open(&top, "cohort", &reader_cohort::KEYS), images.is_some(), &source);
    let tasks = reader_task::read_tasks(&top, &source);
    if let Some(tasks) = &tasks
        && matches!(source, Source::Events)
        && cohort.unit == Unit::Patient
        && cohort.index.is_none()
        && images.is_none()
        && tasks.endpoints.iter().any(|endpoint| matches!(endpoint.label, EndpointLabel::Event { .. }))
    {
        let why = "survival is told from a moment that does not depend on what comes after it, and the last visit does: give `index` in [cohort], or unit = \"encounter\"";
        top.problems.push(&top.place_of("cohort"), why);
    }
    let model = reader_model::read(&open(&top, "model", &reader_model::KEYS), images.is_some());
    let training = read_training(&open(
        &top,
        "training",
        &[
            "epochs",
            "batch",
            "accumulate",
            "learning_rate",
            "weight_decay",
            "warmup_epochs",
            "clip",
            "ema",
            "swa",
            "patience",
            "sampling",
            "imbalance",
            "augmentation",
            "device",
            "threads",
            "balance",
            "branches",
            "calibration",
            "kernels",
            "privacy",
            "singles",
            "start",
            "tower_rate",
            "unlabelled",
        ],
    ));
    if training.tower_rate < 1.0 && training.start.is_random() && model.image_weights.is_none() && training.unlabelled == 0 {
        top.wrong(
            "training",
            "`tower_rate` in [training] is about towers that begin with trained weights, and none does; set training.start = \"alone\", training.unlabelled or model.image_weights",
        );
    }
    if !training.imbalance.is_none() && tasks.as_ref().is_some_and(|tasks| tasks.classes.is_empty()) {
        top.wrong("training", "`imbalance` in [training] is about rare classes, and no task has classes; leave it out");
    }
    if training.branches.shared > 0.0 && model.fusion != FusionKind::SharedPrivate {
        let why = "`shared` in training.branches holds together what the modalities say in common terms, and this fusion has none; set model.fusion = \"shared-private\"";
        top.wrong("training", why);
    }
    if training.privacy.is_some() && tasks.iter().flat_map(|tasks| &tasks.endpoints).any(|e| e.kind == EndpointKind::Survival) {
        let why = "`privacy` in [training]: the ends of the intervals of survival are times of single patients' events, without noise; leave one of the two out";
        top.wrong("training", why);
    }
    if training.unlabelled > 0 {
        let why = if images.is_none() || model.image == ImageEncoder::None {
            Some("there are no images to learn from")
        } else if model.image_weights.is_some() {
            Some("model.image_weights is what image towers begin with: keep one of the two")
        } else if training.privacy.is_some() {
            Some("it is not private, and training.privacy is asked for")
        } else {
            None
        };
        if let Some(why) = why {
            top.wrong("training", format!("`unlabelled` in [training]: {why}; leave it out"));
        }
    }
    let hidden = model.modality_dropout > 0.0 || training.branches.own > 0.0 || training.branches.joint > 0.0;
    if !model.absent.is_mask() && (images.is_none() || model.image == ImageEncoder::None || model.record == RecordEncoder::None) {
        top.wrong("model", "`absent` in [model] is about one of two modalities, and there is one; leave it out");
    } else if !model.absent.is_mask() && !hidden {
        let why = "`absent` in [model]: nothing teaches what stands for a modality while none is hidden; set modality_dropout above 0";
        top.wrong("model", why);
    }
    // What is wrong with the images themselves is said already.
    if !matches!(images, Some(None)) {
        reader_model::check(&top, &model, images.as_ref().and_then(Option::as_ref));
    }
    let images = match images {
        Some(images) => Some(images?),
        None => None,
    };
    let report = open(&top, "report", &["cases"]);
    let report = ReportSettings { cases: report.flag("cases").unwrap_or(true) };
    Some(Pipeline { name: name?, seed, images, records: records??, cohort, tasks: tasks?, model, training, report })
}

/// A section by its key; an absent one reads as an empty one.
fn open<'a>(top: &Section<'a>, key: &str, known: &[&str]) -> Section<'a> {
    let (table, place) = match top.table(key) {
        Some((table, place)) => (Some(table), place),
        None => (None, top.place.clone()),
    };
    Section::new(&format!("[{key}]"), place, table, known, top.problems)
}

fn is_file_name(name: &str) -> bool {
    !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// A path that can be read: a folder that is not empty or, unless `images`, a file; of images also a source of another kind.
pub(super) fn read_path(section: &Section<'_>, images: bool) -> Option<PathBuf> {
    if !section.has("path") {
        section.missing("path", "write path = \"…\", relative to the current directory");
        return None;
    }
    let text = section.word("path")?;
    let path = PathBuf::from(&text);
    if address(&path).is_some() {
        if images {
            return Some(path);
        }
        section.wrong("path", format!("{} is an address; this version reads folders only", section.name("path")));
        return None;
    }
    let reason = match readable(&path) {
        Ok(Readable::File) if images && synovia_images::Source::open(&path).is_err() => {
            "is neither a folder nor a DICOMDIR nor a zip archive; give one of them"
        }
        Ok(Readable::EmptyFolder) => "is an empty folder; put data there or give another path",
        Ok(_) => return Some(path),
        Err(error) => {
            section.wrong(
                "path",
                format!("{}: \"{text}\" cannot be read: {error}; give another path, or make it first", section.name("path")),
            );
            return None;
        }
    };
    section.wrong("path", format!("{}: \"{text}\" {reason}", section.name("path")));
    None
}

pub(super) enum Readable {
    File,
    Folder,
    EmptyFolder,
}

pub(super) fn readable(path: &Path) -> std::io::Result<Readable> {
    if std::fs::metadata(path)?.is_dir() {
        let first = std::fs::read_dir(path)?.next().transpose()?;
        return Ok(if first.is_some() { Readable::Folder } else { Readable::EmptyFolder });
    }
    File::open(path).map(|_| Readable::File)
}

/// No header is longer: what is, is no table, and reading on would cost its size in memory.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// The columns of a table; `None` for a folder, a compressed file, or one whose header cannot be read: ingest says why.
fn header(path: &Path) -> Option<Vec<String>> {
    let delimiter = match path.extension()?.to_str()?.to_lowercase().as_str() {
        "csv" => b',',
        "tsv" => b'\t',
        _ => return None,
    };
    let start = File::open(path).ok()?.take(MAX_HEADER_BYTES);
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(start);
    let columns = reader.headers().ok()?.iter().map(|column| column.trim_start_matches('\u{feff}').to_owned()).collect();
    Some(columns)
}

fn read_records(section: &Section<'_>) -> Option<Records> {
    let path = read_path(section, false);
    let formats = [("fhir", Format::Fhir), ("meds", Format::Meds), ("omop", Format::Omop), ("csv", Format::Csv)];
    let format = section.choice("format", &formats, &[]);
    if !section.has("format") {
        section.missing("format", "write format = \"fhir\", \"meds\", \"omop\" or \"csv\"");
    }
    let format = match format? {
        Format::Csv if !section.has("columns") => read_csv(section, path.as_deref()),
        format => read_events(section, format, path.as_deref()),
    };
    Some(Records { path: path?, format: format? })
}

/// `None` where nothing is written, or nothing right.
fn read_history(section: &Section<'_>) -> Option<History> {
    if matches!(section.get("history").map(|node| &node.value), Some(Value::Text(text)) if text == "all") {
        return Some(History::All);
    }
    section.span("history").map(History::Last)
}

fn read_events(section: &Section<'_>, format: Format, path: Option<&Path>) -> Option<RecordFormat> {
    for key in ["id", "image", "time", "categories"].into_iter().filter(|key| section.has(key)) {
        let advice = match format {
            Format::Fhir => "is for format = \"csv\"; FHIR says itself who, what and when: remove it",
            Format::Csv => "is for a table with a row a patient, and `columns` for one with a statement a row: remove one of them",
            Format::Meds | Format::Omop => "is for format = \"csv\": remove it",
        };
        section.wrong(key, format!("{} {advice}", section.name(key)));
    }
    if format != Format::Csv && section.has("columns") {
        section.wrong("columns", format!("{} is for format = \"csv\": remove it", section.name("columns")));
    }
    let features = match section.get("features").map(|node| &node.value) {
        None => Features::default(),
        Some(Value::Array(_)) => {
            let listed = section.texts("features")?;
            for name in listed.iter().filter(|name| !(is_token(name) || matches!(name.as_str(), "age" | "sex"))) {
                let advice = "write system|code such as \"http://loinc.org|2339-0\", \"age\" or \"sex\"";
                section.wrong("features", format!("{} has \"{name}\"; {advice}", section.name("features")));
            }
            Features::Listed(listed)
        }
        Some(_) => {
            let (table, place) = section.table("features")?;
            let known = ["cap", "min_share", "statistics", "windows", "roll_up"];
            let inner = Section::new("records.features", place, Some(table), &known, section.problems);
            let Features::Frequent { cap, min_share, statistics, windows, roll_up } = Features::default() else { return None };
            Features::Frequent {
                cap: inner.count("cap", 1..=4096).unwrap_or(cap),
                min_share: inner.number("min_share", 0.0..=1.0).unwrap_or(min_share),
                statistics: read_statistics(&inner).unwrap_or(statistics),
                windows: read_windows(&inner).unwrap_or(windows),
                roll_up: inner.flag("roll_up").unwrap_or(roll_up),
            }
        }
    };
    let history = read_history(section).or_else(|| TimeSpan::new(365, TimeUnit::Day).ok().map(History::Last))?;
    Some(match format {
        Format::Fhir => RecordFormat::Fhir { history, features },
        Format::Meds => RecordFormat::Meds { history, features },
        Format::Omop => RecordFormat::Omop { history, features },
        Format::Csv => RecordFormat::Long { columns: read_columns(section, path)?, history, features },
    })
}

/// Which columns of a long table say what.
fn read_columns(section: &Section<'_>, path: Option<&Path>) -> Option<LongLayout> {
    let (table, place) = section.table("columns")?;
    let known = ["patient", "time", "code", "system", "name", "kind", "value", "unit", "text"];
    let inner = Section::new("records.columns", place, Some(table), &known, section.problems);
    let needed = |key: &str| {
        if !inner.has(key) {
            inner.missing(key, "name the column of the table");
        }
        inner.word(key)
    };
    let header = path.and_then(header);
    for key in known {
        if let (Some(header), Some(column)) = (&header, inner.word(key)) {
            check_column(&inner, key, &column, &header.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
    let (patient, time, code) = (needed("patient"), needed("time"), needed("code"));
    let [system, name, kind, value, unit, text] = ["system", "name", "kind", "value", "unit", "text"].map(|key| inner.word(key));
    Some(LongLayout { patient: patient?, time: time?, code: code?, system, name, kind, value, unit, text, delimiter: None })
}

fn read_statistics(section: &Section<'_>) -> Option<Vec<Statistic>> {
    let names = Statistic::ALL.map(Statistic::as_str);
    let found = |text: &String| {
        let statistic = Statistic::ALL.into_iter().find(|statistic| statistic.as_str() == text);
        if statistic.is_none() {
            let meant = nearest(text, &names).map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default();
            section.wrong("statistics", format!("{} has \"{text}\"; allowed: {}{meant}", section.name("statistics"), names.join(", ")));
        }
        statistic
    };
    section.texts("statistics").map(|texts| texts.iter().filter_map(found).collect())
}

fn read_windows(section: &Section<'_>) -> Option<Vec<TimeSpan>> {
    let found = |text: &String| match text.parse() {
        Ok(span) => Some(span),
        Err(error) => {
            section.wrong("windows", format!("{} has \"{text}\", {error}", section.name("windows")));
            None
        }
    };
    section.texts("windows").map(|texts| texts.iter().filter_map(found).collect())
}

/// `system|code`, as FHIR search tokens are written.
pub(super) fn is_token(text: &str) -> bool {
    text.split_once('|').is_some_and(|(system, code)| !system.trim().is_empty() && !code.trim().is_empty() && !code.contains('|'))
}

fn read_csv(section: &Section<'_>, path: Option<&Path>) -> Option<RecordFormat> {
    let id = section.word("id");
    if !section.has("id") {
        section.missing("id", "name the column that identifies the patient");
    }
    let image = section.word("image").and_then(|text| {
        let link = ImageLink::parse(&text);
        if link.is_none() {
            let advice = "write a column, or one in braces with a text around it, such as \"{ID}_axial\"";
            section.wrong("image", format!("{} is \"{text}\"; {advice}", section.name("image")));
        }
        link
    });
    for key in ["time", "history"].into_iter().filter(|key| section.has(key)) {
        let advice = "its facts hold at any time: remove it, or name the `columns` of a table with a statement a row";
        section.wrong(key, format!("{} is not read of a table by this version; {advice}", section.name(key)));
    }
    let features = section.texts("features");
    if !section.has("features") {
        section.missing("features", "list the columns that are inputs; no other column becomes one");
    }
    let categories = section.texts("categories").unwrap_or_default();
    for column in categories.iter().filter(|column| features.as_ref().is_some_and(|features| !features.contains(column))) {
        section.wrong("categories", format!("`categories` has `{column}`, which is not among `features`: add it there or remove it here"));
    }
    if let (Some(id), Some(features)) = (&id, &features)
        && features.contains(id)
    {
        section.wrong("features", format!("`{id}` identifies the patient, so it cannot be a feature: remove it"));
    }
    if let Some(columns) = path.and_then(header) {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let named = [("id", id.as_ref()), ("image", image.as_ref().map(|link| &link.column))];
        let single = named.into_iter().filter_map(|(key, column)| column.map(|column| (key, column)));
        for (key, column) in single.chain(features.iter().flatten().map(|column| ("features", column))) {
            check_column(section, key, column, &columns);
        }
    }
    Some(RecordFormat::Csv { id: id?, image, features: features?, categories })
}

/// A problem when the table has no such column.
pub(super) fn check_column(section: &Section<'_>, key: &str, column: &str, columns: &[&str]) {
    if columns.contains(&column) {
        return;
    }
    let advice = match nearest(column, columns) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("it has {}", quoted(columns)),
    };
    section.wrong(key, format!("{}: the table has no column `{column}`; {advice}", section.name(key)));
}

const CALIBRATORS: [(&str, Calibrator); 4] = [
    ("temperature", Calibrator::Temperature),
    ("platt", Calibrator::Platt),
    ("isotonic", Calibrator::Isotonic),
    ("beta", Calibrator::Beta),
];

const BALANCES: [(&str, Balance); 9] = [
    ("fixed", Balance::Fixed),
    ("labels", Balance::Labels),
    ("uncertainty", Balance::Uncertainty),
    ("dwa", Balance::Dwa),
    ("gradnorm", Balance::GradNorm),
    ("pcgrad", Balance::PcGrad),
    ("cagrad", Balance::CaGrad),
    ("upgrad", Balance::UpGrad),
    ("mgda", Balance::Mgda),
];

const IMBALANCES: [(&str, Imbalance); 4] =
    [("none", Imbalance::None), ("weights", Imbalance::Weights), ("focal", Imbalance::Focal), ("logits", Imbalance::Logits)];

fn read_training(section: &Section<'_>) -> Training {
    let epochs = section.count("epochs", 1..=10_000).unwrap_or(20);
    let warmup_epochs = section.number("warmup_epochs", 0.0..=10_000.0);
    if let Some(warmup) = warmup_epochs.filter(|warmup| *warmup >= epochs as f64) {
        section.wrong(
            "warmup_epochs",
            format!("`warmup_epochs` is {warmup} of {epochs} epochs; the learning rate must have some left to fall in"),
        );
    }
    let no_device = "is not in this build; devices that are";
    let sampling = section.choice("sampling", &[("plain", Sampling::Plain), ("balanced", Sampling::Balanced)], &[]);
    let privacy = read_privacy(section);
    let start = section.choice("start", &[("random", Start::Random), ("alone", Start::Alone)], &[]).unwrap_or_default();
    if privacy.is_some() && start == Start::Alone {
        section.wrong(
            "start",
            "`start` is \"alone\", and a private joint model would then have spent what each modality's training spent as well; leave it out"
                .to_owned(),
        );
    }
    let accumulate = section.count("accumulate", 1..=1024).unwrap_or(1);
    if privacy.is_some() && accumulate > 1 {
        let why = "`accumulate` is about batches, and a private step takes in each patient alone already; leave it out";
        section.wrong("accumulate", why.to_owned());
    }
    let imbalance = section.choice("imbalance", &IMBALANCES, &[]).unwrap_or_default();
    if sampling == Some(Sampling::Balanced) && matches!(imbalance, Imbalance::Weights | Imbalance::Logits) {
        let why = "`imbalance` and sampling = \"balanced\" do the same thing twice to the first task; keep one of the two";
        section.wrong("imbalance", why.to_owned());
    }
    if privacy.is_some() && imbalance == Imbalance::Weights {
        let why = "`imbalance` is \"weights\", and a private training clips each patient to the same; set it to \"logits\"";
        section.wrong("imbalance", why.to_owned());
    }
    let swa = section.number("swa", 0.0..1.0).unwrap_or(0.0);
    if let Some(warmup) = warmup_epochs.filter(|warmup| *warmup > (1.0 - swa) * epochs as f64) {
        let why = format!("`swa` is {swa}: the last {} of {epochs} epochs, and the learning rate rises for {warmup}", swa * epochs as f64);
        section.wrong("swa", why);
    }
    let singles = section.flag("singles").unwrap_or(true);
    if !singles && start == Start::Alone {
        let why = "`singles` is false, and start = \"alone\" begins with the models of one modality; leave one of the two out";
        section.wrong("singles", why.to_owned());
    }
    Training {
        epochs,
        batch: section.count("batch", 2..=4096).unwrap_or(32),
        learning_rate: section.number("learning_rate", (std::ops::Bound::Excluded(0.0), std::ops::Bound::Included(1.0))).unwrap_or(1e-3),
        weight_decay: section.number("weight_decay", 0.0..=1.0).unwrap_or(0.01),
        warmup_epochs: warmup_epochs.unwrap_or_else(|| (epochs as f64 / 5.0).min(1.0).min((1.0 - swa) * epochs as f64 / 2.0)),
        clip: section.number("clip", (std::ops::Bound::Excluded(0.0), std::ops::Bound::Included(1000.0))).unwrap_or(1.0),
        accumulate,
        swa,
        imbalance,
        ema: section.number("ema", 0.0..1.0).unwrap_or(0.999),
        patience: section.count("patience", 0..=10_000).unwrap_or(5),
        sampling: sampling.unwrap_or(Sampling::Plain),
        device: section.choice("device", &[("cpu", Device::Cpu)], &[("cuda", no_device), ("wgpu", no_device)]).unwrap_or(Device::Cpu),
        threads: section.count("threads", 1..=1024),
        balance: section.choice("balance", &BALANCES, &[]).unwrap_or_default(),
        branches: read_branches(section),
        kernels: section.flag("kernels").unwrap_or(true),
        privacy,
        singles,
        start,
        unlabelled: section.count("unlabelled", 0..=10_000).unwrap_or(0),
        tower_rate: section.number("tower_rate", 0.0..=1.0).unwrap_or(1.0),
        calibration: section.choice("calibration", &CALIBRATORS, &[]).unwrap_or_default(),
        augmentation: read_augmentation(section),
    }
}

fn read_privacy(training: &Section<'_>) -> Option<Privacy> {
    let (table, place) = training.table("privacy")?;
    let section = Section::new("training.privacy", place, Some(table), &["noise", "clip", "delta"], training.problems);
    let above = |most: f64| (std::ops::Bound::Excluded(0.0), std::ops::Bound::Included(most));
    let noise = section.number("noise", above(1e6));
    if noise.is_none() && table.get("noise").is_none() {
        section.missing("noise", "noise = 1.0 is usual; `synovia federate account` says what ε comes of it");
    }
    Some(Privacy {
        noise: noise?,
        clip: section.number("clip", above(1000.0)).unwrap_or(1.0),
        delta: section.number("delta", (std::ops::Bound::Excluded(0.0), std::ops::Bound::Excluded(1.0))).unwrap_or(1e-5),
    })
}

fn read_branches(training: &Section<'_>) -> Branches {
    let Some((table, place)) = training.table("branches") else { return Branches::default() };
    let section = Section::new("training.branches", place, Some(table), &["own", "joint", "pairs", "shared"], training.problems);
    let weight = |key| section.number(key, 0.0..=10.0).unwrap_or(0.0);
    Branches { own: weight("own"), joint: weight("joint"), pairs: weight("pairs"), shared: weight("shared") }
}

fn read_augmentation(training: &Section<'_>) -> Augmentation {
    let default = Augmentation::default();
    let Some((table, place)) = training.table("augmentation") else { return default };
    let known = ["shift", "rotate", "scale", "noise", "brightness", "flip"];
    let section = Section::new("training.augmentation", place, Some(table), &known, training.problems);
    Augmentation {
        shift: section.number("shift", 0.0..=0.5).unwrap_or(default.shift),
        rotate: section.number("rotate", 0.0..=180.0).unwrap_or(default.rotate),
        scale: section.number("scale", 0.0..=0.5).unwrap_or(default.scale),
        noise: section.number("noise", 0.0..=1.0).unwrap_or(default.noise),
        brightness: section.number("brightness", 0.0..=1.0).unwrap_or(default.brightness),
        flip: section.flag("flip").unwrap_or(default.flip),
    }
}
