use std::collections::BTreeMap;

use synovia_cohort::{ExampleId, ExampleRow, FeatureKind, FeatureSpec, FlowCounts, LeftOut, Refused, Split, Task, Time};

use super::simulated::{Simulation, binary, stage};
use crate::{
    Calibration, CalibrationMap, CalibrationRow, Case, Curve, EmbeddingMap, EmbeddingPoint, Epoch, Estimate, EvaluationOptions,
    Explanations, FeatureRow, FeatureWeight, Flow, FlowStep, IntegratedCheck, MapCheck, Metrics, ModalityPattern, ModalityShare, Neighbour,
    NeighbourCheck, OnnxCheck, OnnxRun, Prediction, Report, Robustness, RobustnessCurve, RobustnessPoint, SplitSummary, TaskExplanation,
    TaskRobustness, Variant, Worsening, evaluate, model_card, pool_folds, report_html,
};

/// What would break out of a page that forgot to escape it.
const HOSTILE: &str = "<script src=\"https://evil.example/x.js\">'&\u{7}</script>";

fn predictions(tasks: &[Task]) -> Vec<Prediction> {
    let separations = [(Variant::Joint, 1.8), (Variant::Image, 1.0), (Variant::Record, 0.8), (Variant::JointImage, 0.9)];
    let mut out = Simulation::new(90, &separations).draw(3);
    for prediction in &mut out {
        prediction.task = tasks[0].name.as_str().into();
        prediction.class = tasks[0].classes[0].as_str().into();
    }
    for k in 0..40usize {
        let (id, patient) = (ExampleId::from_digest(&format!("s{k}")), format!("s{k}").into());
        let row = if k % 4 == 0 { [0.2, 0.5, 0.3] } else { [0.6, 0.3, 0.1] };
        out.extend(Prediction::rows(&id, &patient, Split::Test, &tasks[1], Some((k % 3) as f32), &row, Variant::Joint));
    }
    out
}

fn hostile_tasks() -> [Task; 2] {
    [Task { name: HOSTILE.into(), classes: vec![HOSTILE.into()], ..binary() }, stage()]
}

fn measured(tasks: &[Task]) -> (Vec<Prediction>, Metrics) {
    let predictions = predictions(tasks);
    let metrics = evaluate(&predictions, tasks, &EvaluationOptions { n_bootstrap: 50, ..EvaluationOptions::default() }).unwrap();
    (predictions, metrics)
}

/// A report with every section, and hostile text wherever text can be.
fn full<'a>(tasks: &'a [Task], predictions: &'a [Prediction], metrics: &'a Metrics, folds: &'a [Metrics]) -> Report<'a> {
    let text = || HOSTILE.to_owned();
    let row = ExampleRow {
        id: ExampleId::from_digest("e"),
        patient: "p".into(),
        split: Split::Train,
        prediction_time: Time::from_seconds(0),
        image_row: Some(0),
        record_row: None,
        labels: vec![Some(1.0), None],
        endpoints: Vec::new(),
    };
    Report {
        folds,
        intended_use: Some(text()),
        limits: vec![text()],
        flow: Some(Flow {
            steps: vec![FlowStep { name: text(), count: 1_234_567, note: Some(text()) }],
            failed_links: vec![(text(), 4_321)],
        }),
        participants: vec![
            FlowCounts { name: text(), patients: 9_876, ..FlowCounts::default() },
            FlowCounts {
                name: text(),
                patients: 8_765,
                examples: Some(17_654),
                left_out: Some(LeftOut { reason: text(), patients: 1_111, examples: None }),
            },
        ],
        sides: vec![FlowCounts { name: text(), patients: 8_765, examples: Some(17_654), left_out: None }],
        rejected: Some(BTreeMap::from([(text(), 98_765)])),
        refused: Some(Refused { future_events: 7_654_321, future_images: 11, old_events: 0 }),
        splits: SplitSummary::of_rows(&[row], tasks),
        training: vec![Curve {
            name: text(),
            epochs: (1..5).map(|epoch| Epoch { epoch, train_loss: 1.0 / epoch as f64, validation_loss: Some(f64::NAN) }).collect(),
            best_epoch: Some(3),
        }],
        calibrations: [
            CalibrationMap::Temperature { value: 1.5 },
            CalibrationMap::LogitLine { slope: 1.25, intercept: -0.5 },
            CalibrationMap::Beta { a: 1.0, b: 2.0, c: 0.5 },
            CalibrationMap::Steps { first: 0.1, steps: vec![[-1.0, 0.5, 0.25]] },
        ]
        .map(|map| CalibrationRow {
            task: text(),
            variant: Variant::Joint,
            calibration: Calibration { map, n: 10, log_loss_before: None, log_loss_after: None, note: Some(text()) },
        })
        .to_vec(),
        explanations: Some(explanations(&text)),
        robustness: Some(robustness(&text)),
        features: vec![FeatureRow {
            spec: FeatureSpec { name: text(), kind: FeatureKind::Number, code: text(), unit: text() },
            coverage: 0.25,
        }],
        onnx: Some(OnnxCheck {
            opset: 18,
            bytes: 1_500_000,
            tolerance: 1e-5,
            runs: vec![OnnxRun { modalities: text(), batch: 7, max_difference: 3.21e-7 }],
        }),
        settings: Some(text()),
        seed: Some(424_242),
        provenance: vec![(text(), text())],
        ..Report::new(HOSTILE, metrics, tasks, predictions)
    }
}

fn explanations(text: &dyn Fn() -> String) -> Explanations {
    let estimate =
        |value: f64, width: f64| Estimate { value: Some(value), low: Some(value - width), high: Some(value + width), note: None };
    let case = Case {
        example: text(),
        why: text(),
        class: text(),
        probability: 0.8765,
        label: text(),
        shares: vec![(text(), 0.25)],
        features: vec![(text(), text(), -1.25)],
        image: Some(0.625),
        error: 0.001,
        neighbours: vec![Neighbour { example: text(), label: text(), distance: 1.5 }],
        image_png: Some("aGVsbG8=".to_owned()),
        overlay_png: Some("aGVsbG8=".to_owned()),
    };
    let task = TaskExplanation {
        task: text(),
        n: 1_234,
        modalities: vec![ModalityShare { modality: text(), size: estimate(0.2, 0.1), leads: 3, n_both: 4_567 }],
        features: vec![FeatureWeight { feature: text(), size: 0.5, n: 12 }],
        grad_cam: Some(MapCheck { n: 32, deletion: estimate(0.1, 0.05), insertion: estimate(0.1, 0.5), shuffled: estimate(0.0, 0.1) }),
        integrated: IntegratedCheck { n: 12, median: 0.0012, worst: 0.0099 },
        neighbours: Some(NeighbourCheck { n: 1_234, neighbours: 15, chance: 0.5, more: estimate(0.2, 0.1) }),
        cases: vec![case],
        peaks: Vec::new(),
    };
    let point = |x: f32, label: Option<f32>| EmbeddingPoint { pca: [x, -x], tsne: Some([x * x, x]), labels: vec![label; 3] };
    let points = vec![point(-1.0, Some(0.0)), point(2.0, Some(1.0)), point(3.0, None)];
    let embedding = EmbeddingMap { pattern: ModalityPattern::Both, n_train: 4_000, explained: [0.612, 0.234], points };
    Explanations { model: Variant::Joint, fold: Some(2), embedding: Some(embedding), tasks: vec![task] }
}

fn robustness(text: &dyn Fn() -> String) -> Robustness {
    let point = |level: f64, joint: Option<f64>| RobustnessPoint {
        level,
        auroc: [(Variant::Joint, joint), (Variant::LateFusion, Some(0.75 - 0.1 * level))]
            .map(|(variant, value)| (variant, Estimate { value, ..Estimate::default() }))
            .into(),
        novel: Some(level),
    };
    let curve = |what| RobustnessCurve::new(what, vec![point(0.0, Some(0.9)), point(0.5, Some(0.7)), point(1.0, None)]);
    Robustness { fold: Some(2), n: 1_234, tasks: vec![TaskRobustness { task: text(), curves: Worsening::ALL.map(curve).to_vec() }] }
}

/// The tags of a page in order; panics where it is not well formed (every element closed, in order, no bare `<` or `&`).
fn tags(html: &str) -> Vec<String> {
    let (mut open, mut all): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let mut rest = html.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    while let Some(start) = rest.find('<') {
        let text = &rest[..start];
        let raw = open.last().is_some_and(|tag| tag == "style");
        assert!(
            raw || text.split('&').skip(1).all(|t| ["amp;", "lt;", "gt;", "quot;", "#39;"].iter().any(|e| t.starts_with(e))),
            "bare & in {text:?}"
        );
        let end =
            start + rest[start..].find('>').unwrap_or_else(|| panic!("unclosed tag at {:?}", &rest[start..(start + 40).min(rest.len())]));
        let tag = &rest[start + 1..end];
        assert!(tag.matches('"').count().is_multiple_of(2), "odd quotes in <{tag}>");
        let name = tag.trim_matches('/').split([' ', '/']).next().unwrap_or_default().to_owned();
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "</{name}> closes something else");
        } else {
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "strange tag <{tag}>");
            all.push(tag.to_owned());
            if !tag.ends_with('/') && !["meta", "br", "img"].contains(&name.as_str()) {
                open.push(name);
            }
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    all
}

#[test]
fn the_page_is_well_formed_and_loads_nothing() {
    let tasks = hostile_tasks();
    let (predictions, metrics) = measured(&tasks);
    let folds = pool_folds(std::slice::from_ref(&predictions), &tasks, &metrics.options).unwrap().folds;
    let html = report_html(&full(&tasks, &predictions, &metrics, &folds));
    let tags = tags(&html);
    let mut ids = std::collections::HashSet::new();
    for tag in &tags {
        let name = tag.split(' ').next().unwrap();
        assert!(!["script", "link", "iframe", "object", "embed", "base", "form", "image", "use"].contains(&name), "<{tag}>");
        // Every second piece between quotes is an attribute's value.
        let attributes: String = tag.split('"').step_by(2).collect();
        // A picture is in the page itself.
        let attributes = if name == "img" {
            assert!(tag.contains(" src=\"data:image/png;base64,"), "<{tag}>");
            attributes.replace(" src=", "")
        } else {
            attributes
        };
        for attribute in ["src", "data", "action", " on", "poster"] {
            assert!(!attributes.contains(attribute), "<{tag}>");
        }
        if let Some((_, target)) = tag.split_once("href=\"") {
            assert!(target.starts_with('#'), "<{tag}>");
        }
        if let Some((_, id)) = tag.split_once(" id=\"") {
            assert!(ids.insert(id.split('"').next().unwrap().to_owned()), "id twice: <{tag}>");
        }
    }
    // Whatever a label or a link in the page names is there.
    for tag in &tags {
        let named = tag.split_once("labelledby=\"").map(|(_, rest)| rest.split('"').next().unwrap()).into_iter().flat_map(|v| v.split(' '));
        let linked = tag.split_once("href=\"#").map(|(_, rest)| rest.split('"').next().unwrap());
        for id in named.chain(linked) {
            assert!(ids.contains(id), "nothing has the id {id}");
        }
    }
    // A reference into the page itself loads nothing.
    assert!(!html.replace("url(#", "").contains("url(") && !html.contains("@import") && !html.contains('\u{7}') && !html.contains("NaN"));
    assert!(html.contains("&lt;script src=&quot;https://evil.example/x.js&quot;&gt;&#39;&amp;"));
}

#[test]
fn what_the_report_is_given_it_shows() {
    let tasks = [binary(), stage()];
    let (predictions, metrics) = measured(&tasks);
    let html = report_html(&full(&tasks, &predictions, &metrics, std::slice::from_ref(&metrics)));
    let joint = &metrics.tasks["malignant"].variants[&Variant::Joint];
    let gain = metrics.tasks["malignant"].gain.as_ref().unwrap();
    for shown in [
        format!("{:.3}", joint.auroc.value.unwrap()),
        format!("{:.3} to {:.3}", joint.auprc.low.unwrap(), joint.auprc.high.unwrap()),
        gain.sentence.replace('<', "&lt;"),
        "1\u{202f}234\u{202f}567".to_owned(),
        "4\u{202f}321".to_owned(),
        "17\u{202f}654 examples".to_owned(),
        "1\u{202f}111 patients".to_owned(),
        "98\u{202f}765".to_owned(),
        "7\u{202f}654\u{202f}321".to_owned(),
        "25.0 %".to_owned(),
        "3.2e-7".to_owned(),
        "424242".to_owned(),
        "kept: epoch 3".to_owned(),
    ] {
        assert!(html.contains(&shown), "{shown:?} is not shown");
    }
    // ROC, PR, calibration and net benefit of the binary task; ROC and PR of three classes and one calibration; one of losses; seven of robustness; two maps a task.
    assert_eq!(tags(&html).iter().filter(|tag| *tag == "figure").count(), 4 + 7 + 1 + 7 + 4);
}

#[test]
fn sections_without_data_are_left_out() {
    let tasks = [binary(), stage()];
    let (predictions, metrics) = measured(&tasks);
    let html = report_html(&Report::new("small", &metrics, &tasks, &predictions));
    let sections: Vec<String> = tags(&html).into_iter().filter(|tag| tag.starts_with("section ")).collect();
    let ids: Vec<&str> = sections.iter().filter_map(|tag| tag.split('"').nth(1)).collect();
    assert_eq!(ids, ["task-0", "task-1", "tripod", "methods", "reproduce"]);
    // Not even predictions: no curves, still a page.
    tags(&report_html(&Report::new("smaller", &metrics, &tasks, &[])));
    let all_negative: Vec<Prediction> =
        predictions.iter().filter(|p| &*p.task == "malignant").map(|p| Prediction { label: Some(0.0), ..p.clone() }).collect();
    let metrics = evaluate(&all_negative, &tasks, &metrics.options).unwrap();
    let html = report_html(&Report::new("degenerate", &metrics, &tasks, &all_negative));
    tags(&html);
    assert!(!html.contains("NaN") && html.contains("needs examples with and without the class"));
}

#[test]
fn a_failed_export_is_said() {
    let tasks = [binary(), stage()];
    let (predictions, metrics) = measured(&tasks);
    for (difference, agrees) in [(1e-6, true), (1e-4, false), (f64::NAN, false)] {
        let run = OnnxRun { modalities: "image".into(), batch: 1, max_difference: difference };
        let onnx = Some(OnnxCheck { opset: 18, bytes: 1, tolerance: 1e-5, runs: vec![run] });
        let html = report_html(&Report { onnx, ..Report::new("r", &metrics, &tasks, &predictions) });
        assert_eq!(!html.contains("do not agree"), agrees, "{difference}");
    }
}

#[test]
fn the_card_is_markdown_of_one_line_texts() {
    let tasks = hostile_tasks();
    let (predictions, metrics) = measured(&tasks);
    let card = model_card(&full(&tasks, &predictions, &metrics, &[]));
    assert!(!card.contains('<') || card.lines().all(|line| !line.contains("<script")), "{card}");
    for heading in ["## Intended use", "## Tasks", "## Data", "## Measures", "## Limits", "## Inputs from the record", "## Reproduce"] {
        assert!(card.lines().any(|line| line == heading), "no {heading}");
    }
    // Every table has one number of cells.
    for table in card.split("\n\n").filter(|block| block.starts_with('|')) {
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        let first = cells(table.lines().next().unwrap());
        assert!(table.lines().all(|line| cells(line) == first), "{table}");
    }
    let joint = &metrics.tasks[HOSTILE].variants[&Variant::Joint];
    assert!(card.contains(&format!(
        "{:.3} ({:.3} to {:.3})",
        joint.auroc.value.unwrap(),
        joint.auroc.low.unwrap(),
        joint.auroc.high.unwrap()
    )));
}

#[test]
fn a_split_summary_counts_what_is_there() {
    let row = |k: usize, split, image: Option<u32>, record: Option<u32>, labels: [Option<f32>; 2]| ExampleRow {
        id: ExampleId::from_digest(&k.to_string()),
        patient: format!("p{}", k / 2),
        split,
        prediction_time: Time::from_seconds(0),
        image_row: image,
        record_row: record,
        labels: labels.to_vec(),
        endpoints: Vec::new(),
    };
    let rows = [
        row(0, Split::Train, Some(0), None, [Some(1.0), Some(2.0)]),
        row(1, Split::Train, Some(1), Some(0), [Some(0.0), None]),
        row(2, Split::Train, None, Some(1), [None, Some(2.0)]),
        row(4, Split::Test, None, Some(2), [None, None]),
    ];
    let all = SplitSummary::of_rows(&rows, &[binary(), stage()]);
    assert_eq!(all.iter().map(|s| s.split).collect::<Vec<_>>(), [Split::Train, Split::Test]);
    let train = &all[0];
    assert_eq!((train.n_patients, train.n_examples, train.n_image, train.n_record, train.n_both), (2, 3, 2, 2, 1));
    let counts = |k: usize| train.labels[k].classes.iter().map(|c| c.n).collect::<Vec<_>>();
    assert_eq!((counts(0), counts(1)), (vec![1, 1], vec![0, 0, 2]));
    assert_eq!((train.labels[0].n_unlabelled, all[1].labels[1].n_unlabelled), (1, 1));
}
