//! A table and its pictures through the binary: from files to predictions, what a changed setting makes run again, and leaks.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::runs::the_same_as_evaluated;
use crate::synovia::{json_lines, root, run, succeed};

const SIDE: u32 = 20;

/// A table of 80 subjects, a picture of each in the folder that `folder` says of the ill and the well, and a pipeline of both.
fn cohort(dir: &Path, folder: fn(bool) -> &'static str) -> PathBuf {
    let pictures = dir.join("pictures");
    let mut table = "Subject,Age,Sex,Grade,Ill\n".to_owned();
    for k in 0..80u32 {
        let ill = k % 3 == 0;
        let age = if k % 7 == 0 { String::new() } else { (40 + k % 40).to_string() };
        let grade = ["low", "middle", "high"][(k % 40) as usize / 14];
        writeln!(table, "s{k:03},{age},{},{grade},{}", ["F", "M"][k as usize % 2], u8::from(ill)).unwrap();
        let shade = |x: u32, y: u32| image::Luma([(if ill { 150 } else { 90 } + 7 * ((x + k) % 5) + 3 * (y % 4)) as u8]);
        let to = pictures.join(folder(ill));
        std::fs::create_dir_all(&to).unwrap();
        image::GrayImage::from_fn(SIDE, SIDE, shade).save(to.join(format!("s{k:03}_a.png"))).unwrap();
    }
    std::fs::write(dir.join("table.csv"), &table).unwrap();
    let pipeline = dir.join("p.toml");
    let text = format!(
        r#"
name = "table"
seed = 3
[images]
path = "{}"
kind = "picture"
size = 16
[records]
path = "{}"
format = "csv"
id = "Subject"
image = "{{Subject}}_a"
features = ["Age", "Sex"]
[cohort]
unit = "patient"
[[task]]
name = "ill"
kind = "binary"
label = {{ column = "Ill", equals = "1" }}
[model]
width = 4
embedding = 8
[training]
epochs = 2
batch = 8
"#,
        pictures.display(),
        dir.join("table.csv").display()
    );
    std::fs::write(&pipeline, text).unwrap();
    pipeline
}

#[test]
fn a_table_and_its_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = cohort(dir.path(), |_| "");
    let run = dir.path().join("run");
    let said = succeed(&format!("run {} --quiet --run {}", pipeline.display(), run.display()));
    assert!(said.contains("AUROC") && said.contains("report.html"), "results are printed, however quiet: {said}");

    // To predict from, a table needs neither the label nor, where no pictures are given, their names.
    let table = std::fs::read_to_string(dir.path().join("table.csv")).unwrap();
    let unlabelled: String = table.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned() + "\n").collect();
    std::fs::write(dir.path().join("new.csv"), unlabelled).unwrap();
    let records = format!("--records {}", dir.path().join("new.csv").display());
    let images = format!("--images {}", dir.path().join("pictures").display());
    let predict = |inputs: &str| json_lines(&succeed(&format!("predict --quiet --model {} {inputs}", run.join("model.onnx").display())));
    for (inputs, image, record) in
        [(format!("{images} {records}"), true, true), (images.clone(), true, false), (records.clone(), false, true)]
    {
        let lines = predict(&inputs);
        assert_eq!(lines.len(), 80, "{inputs}");
        for line in &lines {
            assert_eq!(line["present"], serde_json::json!({ "image": image, "record": record }));
        }
        if image && record {
            the_same_as_evaluated(&lines, &run);
        }
    }
    // A picture by itself is what it is in its folder.
    let picture = dir.path().join("pictures/s007_a.png");
    let alone = predict(&format!("--images {}", picture.display()));
    assert_eq!(alone.len(), 1);
    assert!(predict(&images).contains(&alone[0]));
}

#[test]
fn classes_in_an_order_and_a_model_of_one_run_against_one_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = cohort(dir.path(), |_| "");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let (binary, ordinal) = (
        "kind = \"binary\"\nlabel = { column = \"Ill\", equals = \"1\" }",
        "kind = \"ordinal\"\nlabel = { column = \"Grade\", classes = [\"low\", \"middle\", \"high\"] }",
    );
    assert!(text.contains(binary));
    std::fs::write(&pipeline, text.replace(binary, ordinal)).unwrap();
    let [short, long] = [1, 12].map(|epochs| {
        let to = dir.path().join(format!("epochs-{epochs}"));
        let split = "--set cohort.split={train=0.5,validation=0.2,test=0.3}";
        succeed(&format!("run {} --quiet --run {} --set training.epochs={epochs} {split}", pipeline.display(), to.display()));
        to
    });
    let metrics: serde_json::Value = serde_json::from_slice(&std::fs::read(long.join("metrics.json")).unwrap()).unwrap();
    let task = &metrics["tasks"]["ill"];
    assert_eq!(task["kind"], "ordinal");
    let kappa = &task["variants"]["joint"]["more"]["quadratic_kappa"];
    assert!(kappa["value"].is_number() && kappa["low"].is_number(), "{kappa}");
    assert!(std::fs::read_to_string(long.join("report.html")).unwrap().contains(">Quadratic κ</th>"));
    assert!(std::fs::read_to_string(long.join("model-card.md")).unwrap().contains("(ordinal)"));

    let [short, long] = [short, long].map(|run| run.display().to_string());
    let between = |models: &str, one: &str, other: &str| json_lines(&succeed(&format!("compare --between {models} {one} {other}")));
    let lines = between("record,joint", &long, &short);
    let [line] = &lines[..] else { panic!("a line a task: {lines:?}") };
    assert!(line["task"] == "ill" && line["first"] == "record" && line["second"] == "joint" && line["n"].as_u64() > Some(10), "{line}");
    let difference = line["auroc"]["difference"].as_f64().unwrap();
    let back = between("joint,record", &short, &long)[0]["auroc"]["difference"].as_f64().unwrap();
    assert!((difference + back).abs() < 1e-9, "{difference} and {back}");
    assert_eq!(between("joint,joint", &long, &long)[0]["p"], 1.0);
    for (arguments, told) in [
        (format!("--between joint,joint {long}"), "give two runs, and two models"),
        (format!("--between joint,jiont {long} {short}"), "`jiont` is no model"),
    ] {
        let output = run(&format!("compare {arguments}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(told), "{said}");
    }
}

#[test]
fn a_changed_setting_makes_run_again_what_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = cohort(dir.path(), |_| "");
    let to = dir.path().join("run");
    let mut set = String::new();
    let mut check = |setting: &str, expected: &[&str]| {
        write!(set, " --set {setting}").unwrap();
        let output = run(&format!("run {} --run {}{set}", pipeline.display(), to.display()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let stages = ["ingest", "cohort", "train", "explain", "robustness", "evaluate", "export"];
        let ran: Vec<&str> = stages.into_iter().filter(|stage| !said.contains(&format!("{stage}: unchanged, skipped"))).collect();
        assert_eq!(ran, expected, "{setting}\n{said}");
    };
    check("seed=3", &["ingest", "cohort", "train", "explain", "robustness", "evaluate", "export"]);
    check("name=other", &["evaluate", "export"]);
    check("training.threads=1", &[]);
    check("training.calibration=\"isotonic\"", &["explain", "robustness", "evaluate", "export"]);
    check("report.cases=false", &["explain", "evaluate", "export"]);
    let told = std::fs::read_to_string(to.join("explanations.json")).unwrap();
    assert!(told.contains("\"cases\": []") || told.contains("\"cases\":[]"), "no case is shown");
    check("training.start=\"alone\"", &["train", "explain", "robustness", "evaluate", "export"]);
    same_budget_behind_each_tower(&to);
    check("training.epochs=1", &["train", "explain", "robustness", "evaluate", "export"]);
    check("cohort.split={train=0.6,validation=0.2,test=0.2}", &["cohort", "train", "explain", "robustness", "evaluate", "export"]);
    check("images.size=18", &["cohort", "train", "explain", "robustness", "evaluate", "export"]);
    check("records.features=[\"Age\"]", &["ingest", "cohort", "train", "explain", "robustness", "evaluate", "export"]);
    for file in ["report.html", "model-card.md", "model.onnx"] {
        let text = String::from_utf8_lossy(&std::fs::read(to.join(file)).unwrap()).into_owned();
        assert!(text.contains("other"), "{file}");
    }
}

#[test]
fn settings_are_searched_by_the_validation_loss() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = cohort(dir.path(), |_| "");
    let to = dir.path().join("run");
    let line = format!(
        "tune {} --run {} --set training.epochs=3 --vary training.learning_rate=log:1e-4..1e-2 --vary model.dropout=0.0,0.3 --trials 4 --rounds 2",
        pipeline.display(),
        to.display()
    );
    let tuned = |line: &str| {
        let output = run(line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), said.matches("best epoch").count())
    };
    // Four trials of one epoch, and of three the best two and, where it is not among them, the pipeline as it is.
    let (first, trainings) = tuned(&line);
    assert!((6..=7).contains(&trainings), "{trainings}: {first}");
    let rows: Vec<&str> = first.lines().collect();
    assert_eq!(rows.len(), 6, "{first}");
    assert!(rows[0].contains("1 epochs") && rows[0].contains("3 epochs") && first.contains("the pipeline as it is"), "{first}");
    let losses: Vec<f64> = json_lines(&std::fs::read_to_string(to.join("tune.jsonl")).unwrap())
        .iter()
        .filter(|line| line["epochs"] == 3)
        .map(|line| line["validation_loss"].as_f64().unwrap())
        .collect();
    let best: f64 = rows[1].split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(losses.iter().all(|loss| *loss > best - 1e-4), "{best} of {losses:?}");
    assert!(!to.join("model").exists() && !to.join("metrics.json").exists(), "nothing is measured on the test split");
    // What is known is not trained again, and what was cut off is.
    assert_eq!(tuned(&line), (first.clone(), 0));
    let log = std::fs::read_to_string(to.join("tune.jsonl")).unwrap();
    std::fs::write(to.join("tune.jsonl"), &log[..log.len() - 20]).unwrap();
    assert_eq!(tuned(&line), (first, 1));
    for wrong in ["--vary images.size=16,32", "--vary model.dropout=2.0..3.0", "--vary training.epochs=1,2"] {
        let output = run(&format!("tune {} --run {} {wrong}", pipeline.display(), to.display()));
        assert_eq!(output.status.code(), Some(2), "{wrong}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Models of one modality were trained twice where the joint model begins with their towers, and the best of all their epochs is kept.
fn same_budget_behind_each_tower(run: &Path) {
    let model: serde_json::Value = serde_json::from_slice(&std::fs::read(run.join("model/settings.json")).unwrap()).unwrap();
    let of = |variant: &str| {
        let variant = &model["variants"][variant];
        let history = variant["history"].as_array().unwrap();
        let epochs: Vec<u64> = history.iter().map(|line| line["epoch"].as_u64().unwrap()).collect();
        assert!(epochs.iter().copied().eq(1..=epochs.len() as u64), "{epochs:?}");
        let losses: Vec<f64> = history.iter().map(|line| line["validation_loss"].as_f64().unwrap()).collect();
        let kept = losses[variant["best_epoch"].as_u64().unwrap() as usize - 1];
        assert!(losses.iter().all(|loss| *loss >= kept), "{kept} of {losses:?}");
        epochs.len()
    };
    let joint = of("joint");
    assert_eq!([of("image"), of("record")], [2 * joint; 2]);
}

#[test]
fn a_tower_begins_with_a_checkpoint_of_torchvision() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = cohort(dir.path(), |_| "");
    let to = dir.path().join("run");
    let weights = root().join("fixtures/torch/resnet18.pth");
    let settings = format!("--set model.image_weights={} --set training.tower_rate=0.1", weights.display());
    let output = run(&format!("run {} --run {} {settings}", pipeline.display(), to.display()));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let note = "train: 100 tensors from ";
    assert!(said.contains(note) && said.contains("as if not given: none") && said.contains("fc.bias, fc.weight"), "{said}");
    assert!(said.contains("its stem for 3 channels made one for 1"), "{said}");
    let model: serde_json::Value = serde_json::from_slice(&std::fs::read(to.join("model/settings.json")).unwrap()).unwrap();
    assert_eq!(model["pretrained"]["taken"], 100);
    assert_eq!(model["pretrained"]["sha256"].as_str().unwrap().len(), 64);
    // The wrong width is said before anything is trained.
    let output = run(&format!("train {} --run {} {settings} --set model.width=8", pipeline.display(), to.display()));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("has shape [4") && said.contains("width = 64"), "{said}");
}

#[test]
fn a_folder_that_tells_the_label_is_named() {
    let check = |folder: fn(bool) -> &'static str, tells: bool| {
        let dir = tempfile::tempdir().unwrap();
        let pipeline = cohort(dir.path(), folder);
        let to = dir.path().join("run");
        succeed(&format!("cohort {} --quiet --run {}", pipeline.display(), to.display()));
        // The pictures have few patterns: that some are alike in two splits is found as well.
        let said = |why: &str| {
            let said = String::from_utf8_lossy(&run(&format!("audit {}", to.display())).stdout).into_owned();
            assert_eq!(said.contains("the file format of the image alone tells `ill`"), tells && why.is_empty(), "{said}");
            assert_eq!(said.contains("not looked at"), !why.is_empty(), "{said}");
            assert!(said.contains(why), "{said}");
        };
        said("");
        // What the cohort was made with counts, not what was asked for since.
        let asked = std::fs::read_to_string(to.join("pipeline.toml")).unwrap();
        assert!(asked.contains("/pictures"), "{asked}");
        std::fs::write(to.join("pipeline.toml"), asked.replace("/pictures", "/elsewhere")).unwrap();
        said("");
        std::fs::rename(dir.path().join("pictures"), dir.path().join("moved")).unwrap();
        said("80 are not in");
    };
    check(|ill| if ill { "ill" } else { "well" }, true);
    check(|_| "all", false);
}

#[test]
fn rejections_of_stages_that_are_skipped_stay() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = cohort(dir.path(), |_| "");
    // The header is whole, so that it is the cohort stage that finds the pixels wanting.
    let picture = dir.path().join("pictures/s007_a.png");
    let bytes = std::fs::read(&picture).unwrap();
    std::fs::write(&picture, &bytes[..bytes.len() - 40]).unwrap();
    let to = dir.path().join("run");
    let rejected = |command: &str| {
        succeed(&format!("{command} {} --quiet --run {}", pipeline.display(), to.display()));
        std::fs::read_to_string(to.join("rejected.jsonl")).unwrap()
    };
    let of_ingest = rejected("ingest");
    let of_cohort = rejected("cohort");
    assert!(of_cohort.len() > of_ingest.len() && of_cohort.starts_with(&of_ingest), "{of_cohort}");
    std::fs::remove_dir_all(to.join("ingest")).unwrap();
    assert_eq!(rejected("ingest"), of_cohort);
    std::fs::remove_file(to.join("rejected.jsonl")).unwrap();
    assert_eq!(rejected("cohort"), of_cohort);
}
