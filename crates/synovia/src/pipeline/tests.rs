//! Every case is a file's text and what is said of it; paths under `D/` exist.

// expect-test writes its raw strings with hashes, needed or not.
#![allow(clippy::needless_raw_string_hashes)]

mod cohort;
mod endpoints;
mod labels;
mod training;
mod wrong;

use std::path::Path;
use std::sync::OnceLock;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use synovia_fusion::FusionKind;
use synovia_records::LabelSpec;
use synovia_training::Branches;

use super::*;

/// A pipeline of images and FHIR.
const LUNG: &str = r#"name = "lung"
seed = 7
[images]
path = "D/dicom"
kind = "dicom"
size = 64
[records]
path = "D/fhir"
format = "fhir"
history = "365d"
[cohort]
unit = "study"
split = { train = 0.7, validation = 0.1, test = 0.2 }
[[task]]
name = "malignant"
kind = "binary"
label = { condition = "http://snomed.info/sct|363358000", within = "180d" }
[[task]]
name = "stage"
kind = "multiclass"
label = { observation = "http://loinc.org|21908-9", within = "90d", classes = ["s|1", "s|2", "s|3"] }
[model]
image = "resnet18"
fusion = "gated"
[training]
epochs = 20
device = "cpu"
balance = "fixed"
kernels = true
"#;

/// A pipeline of pictures and a table.
const OASIS: &str = r#"name = "oasis"
[images]
path = "D/pictures"
kind = "picture"
[records]
path = "D/table.csv"
format = "csv"
id = "ID"
image = "{ID}_a"
features = ["Age", "M/F"]
[cohort]
folds = 5
[[task]]
name = "dementia"
kind = "binary"
label = { column = "CDR", above = 0 }
"#;

/// A folder with data of every kind, made once.
fn data() -> &'static Path {
    static DATA: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = DATA.get_or_init(|| {
        // A name that ends in D would be taken for the folder that the tests write as D.
        let dir = tempfile::Builder::new().suffix("-").tempdir().unwrap();
        for folder in ["dicom", "fhir", "pictures", "empty"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
            if folder != "empty" {
                std::fs::write(dir.path().join(folder).join("file"), "").unwrap();
            }
        }
        std::fs::write(dir.path().join("table.tsv"), "ID\tM/F\tAge\tCDR\n").unwrap();
        std::fs::write(dir.path().join("table.csv.gz"), "not for this reader").unwrap();
        std::fs::write(dir.path().join("table.csv"), "\u{feff}ID,M/F,Age,Educ,CDR\nx,F,70,2,0.5\n").unwrap();
        dir
    });
    made.path()
}

fn parse(toml: &str, overrides: &[&str]) -> Result<Pipeline, PipelineError> {
    let place = |text: &str| text.replace("D/", &format!("{}/", data().display()));
    let overrides: Vec<String> = overrides.iter().map(|text| place(text)).collect();
    Pipeline::parse(&place(toml), &overrides, None).map_err(|problems| PipelineError::Wrong { path: "p.toml".into(), problems })
}

/// The resolved pipeline, or what is wrong.
#[track_caller]
fn check(toml: &str, overrides: &[&str], expect: &Expect) {
    let text = match parse(toml, overrides) {
        Ok(pipeline) => pipeline.resolved_toml(&[]).unwrap(),
        Err(error) => error.to_string(),
    };
    expect.assert_eq(&text.replace(&format!("{}/", data().display()), "D/"));
}

/// What is said of a pipeline in which a text was replaced; a replacement that is not found is a mistake of the test.
#[track_caller]
fn edited(base: &str, from: &str, to: &str, expect: &Expect) {
    assert!(base.contains(from), "{from} is not in the base");
    check(&base.replacen(from, to, 1), &[], expect);
}

#[track_caller]
fn lung(from: &str, to: &str, expect: &Expect) {
    edited(LUNG, from, to, expect);
}

#[track_caller]
fn oasis(from: &str, to: &str, expect: &Expect) {
    edited(OASIS, from, to, expect);
}

#[test]
fn which_images_and_how_they_are_shown() {
    let with = |line: &str| parse(&LUNG.replacen("size = 64", &format!("size = 64\n{line}"), 1), &[]);
    let images = with("window = \"45/410\"\nviews = [\"PA\", \"AP\"]\nlaterality = \"L\"").unwrap().images.unwrap();
    assert_eq!(images.preparation().window.to_string(), "45/410");
    assert_eq!((images.selection.views.len(), images.selection.laterality.as_deref()), (2, Some("L")));
    let wrong = |result: Result<Pipeline, PipelineError>, what: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    };
    let images = with("spacing = 0.8\nslices = 3\nslice_spacing = 5").unwrap().images.unwrap();
    let preparation = images.preparation();
    assert_eq!((preparation.spacing_mm, preparation.slices, preparation.slice_spacing_mm), (Some(0.8), 3, Some(5.0)));
    wrong(with("spacing = 0"), "`spacing` in [images] is 0");
    wrong(with("slice_spacing = 5"), "`slice_spacing` in [images] is the distance of several: write slices = 8 too");
    let pictures = OASIS.replacen("kind = \"picture\"", "kind = \"picture\"\nspacing = 1", 1);
    wrong(parse(&pictures, &[]), "`spacing` in [images]: pictures have no millimetres; remove the line");
    wrong(with("window = \"lungs\""), "p.toml:7: `window` in [images]: a window is file, lung, bone");
    wrong(with("laterality = \"left\""), "p.toml:7: `laterality` in [images] is \"left\"; allowed: L, R, B, U");
    let views = OASIS.replacen("kind = \"picture\"", "kind = \"picture\"\nviews = [\"PA\"]", 1);
    wrong(parse(&views, &[]), "`views` in [images]: only DICOM files tell it");
}

/// What is written of a pipeline reads as the same pipeline, whatever its records are.
#[test]
fn records_in_each_format() {
    for (format, known) in [
        ("format = \"meds\"", synovia_records::Format::Meds),
        ("format = \"omop\"", synovia_records::Format::Omop),
        ("format = \"csv\"\ncolumns = { patient = \"p\", time = \"t\", code = \"c\", unit = \"u\" }", synovia_records::Format::Csv),
    ] {
        let pipeline = parse(&LUNG.replace("format = \"fhir\"", format), &[]).unwrap();
        let config = pipeline.format_config();
        assert_eq!((config.format, config.is_timeless()), (known, false));
        assert_eq!(config.long.as_ref().map(|layout| layout.unit.as_deref()), (known == synovia_records::Format::Csv).then_some(Some("u")));
        assert_eq!(pipeline.records.history_days(), Some(365.0));
        assert_eq!(pipeline.feature_config().max_features, 128);
        assert_eq!(parse(&pipeline.resolved_toml(&[]).unwrap(), &[]).unwrap(), pipeline);
    }
}

#[test]
fn defaults_are_written_out() {
    check(
        LUNG,
        &[],
        &expect![[r#"
            name = "lung"
            seed = 7

            [images]
            path = "D/dicom"
            kind = "dicom"
            size = 64
            window = "file"

            [records]
            path = "D/fhir"
            format = "fhir"
            history = "365d"

            [records.features]
            cap = 128
            min_share = 0.05

            [cohort]
            unit = "study"

            [cohort.split]
            by = "patient"
            train = 0.7
            validation = 0.1
            test = 0.2
            stratify = false

            [[task]]
            name = "malignant"
            kind = "binary"

            [task.label]
            condition = "http://snomed.info/sct|363358000"
            within = "180d"

            [[task]]
            name = "stage"
            kind = "multiclass"

            [task.label]
            observation = "http://loinc.org|21908-9"
            within = "90d"
            classes = ["s|1", "s|2", "s|3"]

            [model]
            image = "resnet18"
            width = 16
            record = "table"
            fusion = "gated"
            embedding = 128
            norm = "batch"
            dropout = 0.1
            modality_dropout = 0.2

            [training]
            epochs = 20
            batch = 32
            learning_rate = 0.001
            weight_decay = 0.01
            warmup_epochs = 1.0
            clip = 1.0
            ema = 0.999
            patience = 5
            sampling = "plain"
            device = "cpu"
            balance = "fixed"
            tower_rate = 1.0
            kernels = true
            calibration = "temperature"

            [training.augmentation]
            shift = 0.05
            rotate = 5.0
            scale = 0.05
            noise = 0.01
            brightness = 0.05
            flip = false
        "#]],
    );
    check(
        OASIS,
        &[],
        &expect![[r#"
            name = "oasis"
            seed = 0

            [images]
            path = "D/pictures"
            kind = "picture"
            size = 224
            window = "file"

            [records]
            path = "D/table.csv"
            format = "csv"
            id = "ID"
            image = "{ID}_a"
            features = ["Age", "M/F"]

            [cohort]
            unit = "study"
            folds = 5

            [cohort.split]
            by = "patient"
            train = 0.85
            validation = 0.15
            test = 0.0
            stratify = true

            [[task]]
            name = "dementia"
            kind = "binary"

            [task.label]
            column = "CDR"
            above = 0.0

            [model]
            image = "resnet18"
            width = 16
            record = "table"
            fusion = "gated"
            embedding = 128
            norm = "batch"
            dropout = 0.1
            modality_dropout = 0.2

            [training]
            epochs = 20
            batch = 32
            learning_rate = 0.001
            weight_decay = 0.01
            warmup_epochs = 1.0
            clip = 1.0
            ema = 0.999
            patience = 5
            sampling = "plain"
            device = "cpu"
            balance = "fixed"
            tower_rate = 1.0
            kernels = true
            calibration = "temperature"

            [training.augmentation]
            shift = 0.05
            rotate = 5.0
            scale = 0.05
            noise = 0.01
            brightness = 0.05
            flip = false
        "#]],
    );
}

#[test]
fn a_label_from_reports() {
    let condition = "condition = \"http://snomed.info/sct|363358000\"";
    let pipeline = parse(&LUNG.replace(condition, "report = \"s|xray\", conclusion = \"s|effusion\""), &[]).unwrap();
    let spec = LabelSpec::Conclusion { report: "s|xray".to_owned(), conclusion: "s|effusion".to_owned(), within_days: 180.0 };
    assert_eq!((pipeline.tasks.classes[0].label_spec(), pipeline.tasks.classes[0].task().classes), (spec, vec!["malignant".to_owned()]));
}

#[test]
fn overrides() {
    #[track_caller]
    fn set(overrides: &[&str], expect: &Expect) {
        check(LUNG, overrides, expect);
    }
    set(&["training.epochs"], &expect!["--set training.epochs: expected key=value, such as training.epochs=3"]);
    set(&["training..epochs=3"], &expect!["--set training..epochs: an empty key; write section.key=value, such as training.epochs=3"]);
    set(
        &["training.epochs=many"],
        &expect![[r#"--set training.epochs: `epochs` in [training] is "many", which is not a whole number; allowed: 1 to 10000"#]],
    );
    set(&["trainig.epochs=3"], &expect!["--set trainig.epochs: unknown key `trainig`; did you mean `training`?"]);
    set(&["seed.of=3"], &expect!["--set seed.of: `seed` is 7, which has no `of` in it"]);
    set(
        &["images.path=D/none"],
        &expect![[
            r#"--set images.path: `path` in [images]: "D/none" cannot be read: No such file or directory (os error 2); give another path, or make it first"#
        ]],
    );
    set(&["task.2.name=x"], &expect!["--set task.2.name: no `2` among the 2 of `task`, which count from 0"]);
    set(
        &["task.malign.name=x"],
        &expect!["--set task.malign.name: no `malign` among the 2 of `task`, which count from 0; did you mean `malignant`?"],
    );
    set(
        &["task.0.label.within=180"],
        &expect![[
            r#"--set task.0.label.within: `within` in label is "180", which has no unit; write h, d, w, mo or y after the number, such as "365d""#
        ]],
    );
    set(
        &["training.start=alone", "training.privacy={ noise = 1 }"],
        &expect![[
            r#"--set training.start: `start` is "alone", and a private joint model would then have spent what each modality's training spent as well; leave it out"#
        ]],
    );
    set(
        &["training.tower_rate=0.5", "model.image_weights=D/none.pth", "model.image=densenet121", "images.size=16"],
        &expect![[r#"
        p.toml:3: `size` in [images] is 16; a densenet121 needs images of at least 32
        --set model.image_weights: `image_weights`: D/none.pth cannot be read: No such file or directory (os error 2)"#]],
    );
    set(
        &["model.image=vit-tiny", "model.width=6", "images.size=40"],
        &expect![[r#"
        p.toml:3: `size` in [images] is 40; a vit-tiny needs a multiple of 16, the side of its patches
        p.toml:22: `width` in [model] is 6; a vit-tiny needs a multiple of 4"#]],
    );
    set(
        &["model.slices=attention"],
        &expect!["p.toml:22: `slices` in [model] is about volumes of several slices; write slices = 8 in [images], or leave it out"],
    );
    set(
        &["model.slices=attention", "images.slices=8", "model.image=none"],
        &expect!["p.toml:22: `slices` in [model] is about images, which are no input here; leave it out"],
    );
    set(
        &["model.fusion=sum", "model.width=2", "training.branches={ won = 1 }", "task.0.labelled=0"],
        &expect![[r#"
        --set model.fusion: `fusion` in [model] is "sum"; allowed: gated, concat, late, late-weighted, film, low-rank, attention, experts, bottleneck, shared-private
        --set model.width: `width` in [model] is 2, which is out of range; allowed: 4 to 128
        --set task.0.labelled: `labelled` in [[task]] is 0, which is out of range; allowed: more than 0 and at most 1
        --set training.branches: unknown key `won` in training.branches; did you mean `own`?"#]],
    );
}

#[test]
fn overrides_take_effect() {
    let overrides = [
        "training.epochs=3",
        "training.augmentation.flip=true",
        "images.path=D/pictures",
        "task.0.name=cancer",
        "task.stage.label.within=2y",
        "records.features={ cap = 9 }",
        "name=2024",
        "model.fusion = \"concat\"",
        "training.branches={ own = 0.25, joint = 1 }",
        "task.0.labelled=0.5",
        "training.start=alone",
        "training.tower_rate=0.1",
        "training.singles=true",
        "model.image=resnet50",
        "report.cases=false",
    ];
    let pipeline = parse(LUNG, &overrides).unwrap();
    assert_eq!(pipeline.training.epochs, 3);
    assert!(pipeline.training.augmentation.flip);
    assert!(pipeline.images.as_ref().unwrap().path.ends_with("pictures"));
    assert_eq!(pipeline.tasks.classes[0].name, "cancer");
    assert!(matches!(&pipeline.tasks.classes[1].label, Label::Observation { within, .. } if within.days() == 730.5));
    assert!(matches!(&pipeline.records.format, RecordFormat::Fhir { features: Features::Frequent { cap: 9, .. }, .. }));
    assert_eq!(pipeline.name, "2024");
    assert_eq!(pipeline.model.fusion, FusionKind::Concat);
    assert_eq!(pipeline.training.branches, Branches { own: 0.25, joint: 1.0, ..Branches::default() });
    assert_eq!((pipeline.training.start, pipeline.training.tower_rate), (Start::Alone, 0.1));
    assert_eq!((pipeline.model.image, pipeline.report.cases), (ImageEncoder::Resnet50, false));
    assert_eq!([pipeline.tasks.classes[0].labelled, pipeline.tasks.classes[1].labelled], [Some(0.5), None]);
    // A text is what was typed, whatever TOML would take it for.
    let typed = |toml: &str, setting: &str| parse(toml, &[setting]).unwrap();
    for name in ["0x10", "1_000", "0.50", "true", "2024-01-01"] {
        assert_eq!(typed(LUNG, &format!("name={name}")).name, name);
    }
    for value in ["0.5", "1_000", "1e3"] {
        let table = typed(&OASIS.replace("above = 0", "equals = \"1\""), &format!("task.0.label.equals={value}"));
        assert!(
            matches!(&table.tasks.classes[0].label, Label::Column { rule: ColumnRule::Equals { equals }, .. } if equals == value),
            "{value}"
        );
    }
    let last = parse(LUNG, &["seed=1", "seed=2"]).unwrap();
    assert_eq!(last.seed, 2);
    let seed = Pipeline::parse(&LUNG.replace("D/", &format!("{}/", data().display())), &["seed=1".to_owned()], Some(42)).unwrap();
    assert_eq!(seed.seed, 42);
}

#[test]
fn classes_of_tasks() {
    let of =
        |toml: &str| parse(toml, &[]).unwrap().tasks.classes.iter().map(TaskSettings::task).map(|task| task.classes).collect::<Vec<_>>();
    assert_eq!(of(LUNG), [vec!["malignant"], vec!["s|1", "s|2", "s|3"]]);
    assert_eq!(of(OASIS), [["CDR > 0"]]);
    assert_eq!(of(&OASIS.replace("above = 0", "classes = [\"0\", \"1\"], names = [\"well\", \"ill\"]")), [["ill"]]);
    assert_eq!(of(&OASIS.replace("above = 0", "equals = \"0.5\"")), [["CDR = 0.5"]]);
}

#[test]
fn image_links() {
    let link = ImageLink::parse("OAS_{ID}_a").unwrap();
    assert_eq!(link.name("0001"), "OAS_0001_a");
    assert_eq!(ImageLink::parse("ID").unwrap().name("0001"), "0001");
    for bad in ["", "{}", "{a}{b}", "a}", "{a", "{{a}}"] {
        assert_eq!(ImageLink::parse(bad), None, "{bad}");
    }
}

#[test]
fn provenance_is_read_back_as_nothing() {
    let pipeline = parse(LUNG, &[]).unwrap();
    let text = pipeline.resolved_toml(&[("version", "0.1.0".to_owned()), ("images", "quote \" and\nline".to_owned())]).unwrap();
    assert!(text.contains("[provenance]"), "{text}");
    assert_eq!(Pipeline::parse(&text, &[], None).unwrap(), pipeline);
}

#[test]
fn resolved_tables_read_as_themselves() {
    for (from, to) in [
        ("name", "name"),
        ("above = 0", "equals = \"0.5\""),
        ("above = 0", "classes = [\"0\", \"1\"], names = [\"well\", \"ill\"]"),
        ("{ID}_a", "ID"),
        ("folds = 5", ""),
        ("id = \"ID\"", "id = \"ID\"\ncategories = [\"Age\"]"),
    ] {
        let pipeline = parse(&OASIS.replacen(from, to, 1), &[]).unwrap();
        let resolved = pipeline.resolved_toml(&[]).unwrap();
        assert_eq!(Pipeline::parse(&resolved, &[], None).unwrap(), pipeline, "{resolved}");
    }
}

#[test]
fn headers_are_looked_at_where_they_can_be() {
    for (table, column, right) in [
        ("table.tsv", "Age", true),
        ("table.tsv", "Weight", false),
        ("table.csv.gz", "Weight", true),
        ("pictures", "Weight", true),
        ("table.csv", "Weight", false),
    ] {
        let toml = OASIS.replace("table.csv", table).replace("Age", column);
        assert_eq!(parse(&toml, &[]).is_ok(), right, "{table} {column}");
    }
}

/// The shipped pipelines, with the paths of their data replaced by ones that exist here.
#[test]
fn shipped_pipelines_are_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| std::fs::read_to_string(root.join("pipelines").join(name)).unwrap();
    let lung = parse(&read("lung.toml"), &["images.path=D/dicom", "records.path=D/fhir"]).unwrap();
    assert_eq!((lung.name.as_str(), lung.tasks.classes.len(), lung.model.width), ("lung", 2, 16));
    for (name, n_tasks) in [("verdicts", 1), ("branches", 1), ("fusions", 1), ("tasks", 3)] {
        let study = parse(&read(&format!("studies/{name}.toml")), &["images.path=D/dicom", "records.path=D/fhir"]).unwrap();
        assert_eq!((study.name.as_str(), study.tasks.classes.len()), (name, n_tasks));
    }
    let table = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF\n";
    std::fs::write(data().join("oasis.csv"), table).unwrap();
    let oasis = parse(&read("oasis.toml"), &["images.path=D/pictures", "records.path=D/oasis.csv"]).unwrap();
    assert_eq!(oasis.cohort.folds, Some(5));
    let RecordFormat::Csv { features, image, .. } = &oasis.records.format else { panic!("a table") };
    assert_eq!(features, &["Age", "M/F", "Educ", "SES"], "nothing that is computed from the image or close to the label");
    assert_eq!(image.as_ref().unwrap().name("OAS1_0001_MR1"), "OAS1_0001_MR1_a");
}

fn span() -> impl Strategy<Value = String> {
    (1u32..200, prop::sample::select(vec!["h", "d", "w", "mo", "y"])).prop_map(|(count, unit)| format!("{count}{unit}"))
}

fn label() -> impl Strategy<Value = String> {
    let code = "[a-z]{1,5}\\|[0-9A-Za-z \"\\\\]{1,8}"
        .prop_filter("a code that is not blank", |code| !code.ends_with('|') && !code.split('|').nth(1).unwrap().trim().is_empty());
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    prop_oneof![
        (code.clone(), span())
            .prop_map(move |(code, span)| format!("kind = \"binary\"\nlabel = {{ condition = {}, within = \"{span}\" }}", quoted(&code))),
        (code, span(), 2usize..5).prop_map(move |(code, span, n)| {
            let classes: Vec<String> = (0..n).map(|k| quoted(&format!("s|{k}"))).collect();
            let classes = classes.join(", ");
            format!("kind = \"multiclass\"\nlabel = {{ observation = {}, within = \"{span}\", classes = [{classes}] }}", quoted(&code))
        }),
    ]
}

fn any_pipeline() -> impl Strategy<Value = String> {
    let training = (1usize..100, 2usize..64, 1e-6f64..1.0, 0.0f64..1.0, any::<bool>(), prop::option::of(1usize..64));
    let model = (4usize..128, 4usize..512, 0.0f64..0.999, any::<bool>(), any::<bool>());
    (any::<i64>(), 0.01f64..0.5, prop::option::of(2usize..10), span(), prop::collection::vec(label(), 1..4), training, model).prop_map(
        |(seed, validation, folds, history, labels, (epochs, batch, rate, decay, balanced, threads), (width, embedding, dropout, concat, images))| {
            let images_section = if images { "[images]\npath = \"D/dicom\"\nkind = \"dicom\"\n" } else { "" };
            let split = match folds {
                Some(folds) => format!("folds = {folds}\nsplit = {{ train = {}, validation = {validation} }}", 1.0 - validation),
                None => format!("split = {{ train = {}, validation = {validation}, test = 0.4 }}", 1.0 - validation - 0.4),
            };
            let tasks: String = labels.iter().enumerate().map(|(k, label)| format!("[[task]]\nname = \"t{k}\"\n{label}\n")).collect::<Vec<_>>().concat();
            let threads = threads.map(|n| format!("threads = {n}\n")).unwrap_or_default();
            let (sampling, fusion) = (if balanced { "balanced" } else { "plain" }, if concat { "concat" } else { "gated" });
            format!(
                "name = \"p\"\nseed = {}\n{images_section}[records]\npath = \"D/fhir\"\nformat = \"fhir\"\nhistory = \"{history}\"\n[cohort]\n{split}\n{tasks}\
                 [model]\nwidth = {width}\nembedding = {embedding}\ndropout = {dropout:?}\nfusion = \"{fusion}\"\n\
                 [training]\nepochs = {epochs}\nbatch = {batch}\nlearning_rate = {rate:?}\nweight_decay = {decay:?}\nsampling = \"{sampling}\"\n{threads}",
                seed.unsigned_abs() >> 1
            )
        },
    )
}

proptest! {
    #[test]
    fn a_resolved_pipeline_reads_as_itself(toml in any_pipeline()) {
        let pipeline = parse(&toml, &[]).map_err(|error| TestCaseError::fail(format!("{error}\n{toml}")))?;
        let resolved = pipeline.resolved_toml(&[]).unwrap();
        prop_assert_eq!(Pipeline::parse(&resolved, &[], None).unwrap(), pipeline);
    }

    #[test]
    fn no_text_makes_it_panic(cut in 0usize..LUNG.len(), length in 0usize..40, put in ".{0,20}", set in "[a-z.0-9=\\[\\]{}\" ]{0,30}") {
        let end = (cut + length).min(LUNG.len());
        let toml = format!("{}{put}{}", &LUNG[..cut], &LUNG[end..]);
        if let Err(PipelineError::Wrong { problems, .. }) = parse(&toml, &[]) {
            prop_assert!(!problems.is_empty());
            let lines = toml.lines().count().max(1);
            for problem in problems {
                prop_assert!(!problem.message.contains('\n'), "one line each: {}", problem.message);
                if let Place::Line(line) = problem.place {
                    prop_assert!((1..=lines + 1).contains(&line));
                }
            }
        }
        let _ = parse(LUNG, &[&set]);
    }
}
