use std::collections::HashMap;

use super::simulated::{Simulation, binary};
use crate::{Attribute, EvaluationOptions, Metrics, Prediction, Variant, add_subgroups, evaluate};

const QUICK: EvaluationOptions = EvaluationOptions { seed: 0, n_bootstrap: 100, level: 0.95 };

fn group(name: &str, of: impl Fn(&Prediction) -> Option<&'static str>, predictions: &[Prediction]) -> Attribute {
    let groups: HashMap<_, _> = predictions.iter().filter_map(|p| Some((p.example.clone(), of(p)?.to_owned()))).collect();
    Attribute { name: name.to_owned(), groups }
}

fn measured(predictions: &[Prediction], attributes: &[Attribute]) -> Metrics {
    let mut metrics = evaluate(predictions, &[binary()], &QUICK).unwrap();
    add_subgroups(&mut metrics, &[predictions], &[binary()], attributes).unwrap();
    metrics
}

#[test]
fn a_group_that_is_served_worse_is_found_and_one_that_is_not_is_not() {
    let mut predictions = Simulation::new(400, &[(Variant::Joint, 2.0)]).draw(1);
    predictions.extend(Simulation { prefix: "w", ..Simulation::new(400, &[(Variant::Joint, 0.3)]) }.draw(2));
    let served = group("sex", |p| Some(if p.patient.starts_with('w') { "female" } else { "male" }), &predictions);
    // A column that says nothing: patients by the evenness of their number.
    let nothing =
        group("parity", |p| Some(if p.patient[1..].parse::<usize>().unwrap() / 3 % 2 == 0 { "even" } else { "odd" }), &predictions);
    let metrics = measured(&predictions, &[served, nothing]);
    let groups = &metrics.tasks["malignant"].subgroups;
    assert_eq!(
        groups.iter().map(|g| (g.column.as_str(), g.group.as_str(), g.n)).collect::<Vec<_>>(),
        [("sex", "female", 400), ("sex", "male", 400), ("parity", "even", 402), ("parity", "odd", 398)]
    );
    assert!(groups[0].p_holm.unwrap() < 1e-6 && groups[0].gap.value.unwrap() < -0.2, "{:?}", groups[0]);
    assert!((groups[0].gap.value.unwrap() + groups[1].gap.value.unwrap()).abs() < 1e-12, "of two groups the gaps are opposite");
    assert!(groups[2].p_holm.unwrap() > 0.05, "{:?}", groups[2]);
    let scores: (Vec<f32>, Vec<bool>) =
        predictions.iter().filter(|p| p.patient.starts_with('w')).map(|p| (p.probability, p.label == Some(1.0))).unzip();
    assert_eq!(groups[0].auroc.value, crate::auroc(&scores.0, &scores.1));
    assert!(groups[0].auroc.low < groups[0].auroc.value && groups[0].auroc.value < groups[0].auroc.high);
}

#[test]
fn too_small_a_group_is_said_to_be_so() {
    let predictions = Simulation::new(300, &[(Variant::Joint, 1.0)]).draw(1);
    let few = group("site", |p| Some(if p.patient[1..].parse::<usize>().unwrap() < 12 { "B" } else { "A" }), &predictions);
    let one = group("scanner", |_| Some("only"), &predictions);
    let metrics = measured(&predictions, &[few, one]);
    let groups = &metrics.tasks["malignant"].subgroups;
    assert_eq!(groups.len(), 2, "a column of one group divides nothing");
    let small = groups.iter().find(|g| g.group == "B").unwrap();
    assert_eq!(small.too_small.as_deref(), Some("too small: 8 patients of not malignant, 10 are needed"));
    assert!(small.auroc.value.is_none() && small.p_holm.is_none());
    let html = crate::report_html(&crate::Report::new("r", &metrics, &[binary()], &predictions));
    assert!(html.contains("too small: 8 patients of not malignant") && html.contains("site: B"));
}

#[test]
fn net_benefit_by_hand() {
    let predictions = Simulation::new(300, &[(Variant::Joint, 1.5)]).draw(3);
    let metrics = measured(&predictions, &[]);
    let curve = &metrics.tasks["malignant"].decision[&Variant::Joint];
    assert_eq!(curve.points.len(), 49);
    let (scores, labels): (Vec<f32>, Vec<bool>) = predictions.iter().map(|p| (p.probability, p.label == Some(1.0))).unzip();
    for point in &curve.points {
        let c = crate::Confusion::at(&scores, &labels, point.threshold);
        assert_eq!(c, point.confusion);
        let odds = point.threshold / (1.0 - point.threshold);
        assert!((point.net_benefit - (c.true_positive - c.false_positive * odds) / 300.0).abs() < 1e-12);
        // 100 of 300 are positive.
        assert!((point.of_all - (100.0 - 200.0 * odds) / 300.0).abs() < 1e-12);
        assert!(point.low.unwrap() <= point.net_benefit + 1e-9 && point.net_benefit <= point.high.unwrap() + 1e-9);
    }
}

#[test]
fn a_patient_on_both_sides_makes_a_gap_surer() {
    // Each example stands twice, once a side: the gap is 0 whatever the draw.
    let once = Simulation::new(200, &[(Variant::Joint, 1.0)]).draw(4);
    let twin = |p: &Prediction, side: &str| Prediction {
        example: synovia_cohort::ExampleId::from_digest(&format!("{}{side}", p.example)),
        ..p.clone()
    };
    let predictions: Vec<Prediction> = once.iter().flat_map(|p| [twin(p, "l"), twin(p, "r")]).collect();
    let left: std::collections::HashSet<_> = once.iter().map(|p| twin(p, "l").example).collect();
    let sides = group("side", |p| Some(if left.contains(&p.example) { "left" } else { "right" }), &predictions);
    let metrics = measured(&predictions, &[sides]);
    let gap = &metrics.tasks["malignant"].subgroups[0].gap;
    assert!([gap.value, gap.low, gap.high].iter().all(|x| x.unwrap().abs() < 1e-7), "{gap:?}");
}

#[test]
fn the_gap_of_two_groups_counts_once() {
    let predictions = Simulation::new(600, &[(Variant::Joint, 1.0)]).draw(6);
    let of = |name: &'static str, bit: usize| {
        group(name, move |p| Some(if ((p.patient[1..].parse::<usize>().unwrap() / 3) >> bit) & 1 == 0 { "a" } else { "b" }), &predictions)
    };
    let metrics = measured(&predictions, &[of("first", 0), of("second", 1)]);
    let groups = &metrics.tasks["malignant"].subgroups;
    let smallest = groups[0].p.unwrap().min(groups[2].p.unwrap());
    let corrected = groups.iter().map(|g| g.p_holm.unwrap()).fold(1.0, f64::min);
    assert!((corrected - (2.0 * smallest).min(1.0)).abs() < 1e-12, "{smallest} of two gaps became {corrected}");
    assert!(groups[0].p_holm == groups[1].p_holm && groups[2].p_holm == groups[3].p_holm);
    let html = crate::report_html(&crate::Report::new("r", &metrics, &[binary()], &predictions));
    assert!(html.contains("No gap in AUROC is larger than chance"));
}
