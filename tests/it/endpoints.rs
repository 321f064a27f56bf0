//! Numbers, times to events and treatments through the binary: from a table to estimates, the report, and answers of the exported model.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use polars::prelude::{ParquetReader, SerReader};

use crate::synovia::{json_lines, run, succeed};

const N: u64 = 500;

/// Even numbers in [0, 1), the same each time.
fn draw(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as f64 / (1u64 << 31) as f64
}

/// A table in which a number is 40 + 5x; an event comes the sooner the higher x; the second of two treatments, given more often where x is
/// high, adds 1 to the score where x > 0 and takes 1 away elsewhere.
fn pipeline(dir: &Path, tasks: &str, more: &str) -> PathBuf {
    let mut table = "Subject,x,noise,number,days,died,treated,score,ill\n".to_owned();
    let mut state = 7;
    for k in 0..N {
        let x = 2.0 * draw(&mut state) - 1.0;
        let noise = draw(&mut state);
        let number = 40.0 + 5.0 * x + 0.5 * draw(&mut state);
        let event = -draw(&mut state).max(1e-9).ln() * 300.0 * (-1.5 * x).exp();
        let last = 50.0 + 350.0 * draw(&mut state);
        let treated = draw(&mut state) < 0.5 + 0.3 * x;
        let gain = if x > 0.0 { 1.0 } else { -1.0 };
        let score = 10.0 - 2.0 * x + if treated { gain } else { 0.0 } + 0.2 * draw(&mut state);
        // Of some nothing is known.
        let number = if k % 25 == 0 { String::new() } else { format!("{number:.4}") };
        writeln!(
            table,
            "s{k:03},{x:.5},{noise:.5},{number},{:.3},{},{},{score:.4},{}",
            event.min(last),
            u8::from(event <= last),
            u8::from(treated),
            u8::from(x + draw(&mut state) > 0.5)
        )
        .unwrap();
    }
    std::fs::write(dir.join("table.csv"), &table).unwrap();
    let path = dir.join("p.toml");
    let text = format!(
        r#"
name = "endpoints"
seed = 3
[records]
path = "{}"
format = "csv"
id = "Subject"
features = ["x", "noise"]
[cohort]
unit = "patient"
{more}
{tasks}
[model]
record = "linear"
fusion = "late"
embedding = 32
dropout = 0.0
[training]
epochs = 60
batch = 32
learning_rate = 0.005
"#,
        dir.join("table.csv").display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

const ENDPOINTS: &str = r#"
[[task]]
name = "number"
kind = "regression"
label = { column = "number" }
[[task]]
name = "death"
kind = "survival"
label = { column = "days", event = "died" }
[[task]]
name = "score"
kind = "treatment"
label = { column = "score", treatment = "treated" }
"#;

const CLASSES: &str = r#"
[[task]]
name = "ill"
kind = "binary"
label = { column = "ill", equals = "1" }
"#;

fn metrics(run: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(run.join("metrics.json")).unwrap()).unwrap()
}

/// A model's estimates of the test split: task, example and quantity.
fn estimates(run: &Path, variant: &str) -> BTreeMap<(String, String, String), f64> {
    let table = ParquetReader::new(File::open(run.join("estimates.parquet")).unwrap()).finish().unwrap();
    let text = |name: &str| table.column(name).unwrap().str().unwrap().iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>();
    let (examples, tasks, quantities, variants) = (text("example_id"), text("task"), text("quantity"), text("variant"));
    let values = table.column("value").unwrap().f32().unwrap();
    (0..table.height())
        .filter(|&k| variants[k] == variant)
        .map(|k| ((tasks[k].clone(), examples[k].clone(), quantities[k].clone()), f64::from(values.get(k).unwrap())))
        .collect()
}

#[test]
fn endpoints_beside_a_class() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("run");
    let pipeline = pipeline(dir.path(), &(CLASSES.to_owned() + ENDPOINTS), "");
    let said = succeed(&format!("run {} --quiet --run {}", pipeline.display(), to.display()));
    for word in ["concordance", "root mean squared error", "average effect", "AUROC"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    let metrics = metrics(&to);
    let value = |task: &str, measure: &str| metrics["endpoints"][task]["variants"]["record"][measure]["value"].as_f64().unwrap();
    assert!(value("number", "r2") > 0.9, "{}", metrics["endpoints"]["number"]);
    assert!(value("death", "concordance") > 0.65, "{}", metrics["endpoints"]["death"]);
    // All the same is worth 10; by x it is half a point more.
    let effect = &metrics["endpoints"]["score"]["variants"]["record"];
    assert!(value("score", "policy_value") - value("score", "value_of_first") > 0.25, "{effect}");
    assert!(
        effect["average_effect"]["low"].as_f64().unwrap() < 0.0 && effect["average_effect"]["high"].as_f64().unwrap() > 0.0,
        "{effect}"
    );
    assert!(metrics["tasks"]["ill"]["variants"]["record"]["auroc"]["value"].as_f64().unwrap() > 0.7);

    let report = std::fs::read_to_string(to.join("report.html")).unwrap();
    for text in ["The time to an event", "The outcome under two treatments", "A number", "concordance (Uno’s C)"] {
        assert!(report.contains(text), "{text}");
    }
    let card = std::fs::read_to_string(to.join("model-card.md")).unwrap();
    assert!(card.contains("death (survival)") && card.contains("score (treatment)") && card.contains("number (regression)"), "{card}");

    // Nothing of the table's answers is needed to predict, and the exported model says what was evaluated.
    let table = std::fs::read_to_string(dir.path().join("table.csv")).unwrap();
    let inputs: String = table.lines().map(|line| line.split(',').take(3).collect::<Vec<_>>().join(",") + "\n").collect();
    std::fs::write(dir.path().join("new.csv"), inputs).unwrap();
    let records = dir.path().join("new.csv");
    let out = succeed(&format!("predict --quiet --model {} --records {}", to.join("model.onnx").display(), records.display()));
    let evaluated = estimates(&to, "record");
    let mut n_compared = 0;
    for line in json_lines(&out) {
        for (task, quantities) in line["estimates"].as_object().unwrap() {
            for (quantity, said) in quantities.as_object().unwrap() {
                let key = (task.clone(), line["example"].as_str().unwrap().to_owned(), quantity.clone());
                let (said, expected) = (said.as_f64().unwrap(), evaluated[&key]);
                assert!((said - expected).abs() <= 2e-5 * expected.abs().max(1.0), "{key:?}: {said}, not {expected}");
                n_compared += 1;
            }
        }
        let survival: Vec<f64> = line["estimates"]["death"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).collect();
        assert!(survival.iter().all(|p| (0.0..=1.0).contains(p)), "{line}");
        let score = &line["estimates"]["score"];
        let part = |name: &str| score[name].as_f64().unwrap();
        assert!((part("outcome_1") - part("outcome_0") - part("effect")).abs() < 1e-4, "{score}");
        assert!(line["probabilities"]["ill"].is_object());
    }
    assert_eq!(n_compared, evaluated.len());

    // What was asked is written out, and reading it gives the same run.
    let again = run(&format!("run {} --quiet --run {}", to.join("pipeline.toml").display(), to.display()));
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
}

#[test]
fn endpoints_alone_and_over_folds() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = pipeline(dir.path(), ENDPOINTS, "folds = 3");
    let to = dir.path().join("run");
    succeed(&format!("run {} --quiet --run {} --set training.epochs=5", pipeline.display(), to.display()));
    let metrics = metrics(&to);
    assert_eq!(metrics["tasks"].as_object().unwrap().len(), 0);
    let number = &metrics["endpoints"]["number"];
    let n_known = N - N.div_ceil(25);
    assert_eq!((number["n"].as_u64().unwrap(), number["n_unknown"].as_u64().unwrap()), (n_known, N - n_known), "each is tested once");
    assert_eq!(number["n_folds"], 3);
    assert!(metrics["endpoints"]["death"]["variants"]["record"]["concordance"]["low"].is_number());
    // What answers a federation has no way to train.
    let refused = run(&format!("federate simulate {} --out {}", pipeline.display(), dir.path().join("f").display()));
    assert!(!refused.status.success());
}

#[test]
fn what_can_not_be_learnt_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let task = r#"
[[task]]
name = "score"
kind = "treatment"
label = { column = "score", treatment = "ill" }
"#;
    let pipeline = pipeline(dir.path(), task, "");
    let table = std::fs::read_to_string(dir.path().join("table.csv")).unwrap();
    let cut = |line: &str| line.rsplit_once(',').unwrap().0.to_owned();
    let all_treated: String =
        table.lines().enumerate().map(|(k, line)| if k == 0 { line.to_owned() } else { cut(line) + ",1" } + "\n").collect();
    std::fs::write(dir.path().join("table.csv"), all_treated).unwrap();
    let refused = run(&format!("run {} --quiet --run {}", pipeline.display(), dir.path().join("run").display()));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("no more than one treatment"), "{said}");
}
