//! Means by hand, and updates that must not count.

use std::collections::BTreeMap;

use synovia_encoders::FeatureStatistics;
use synovia_fusion::NamedTensor;
use synovia_training::Weights;

use super::{model, terms, training};
use crate::{FederationError, Global, Kept, Method, Plan, RoundReport, ServerState, Unmerged, Update, aggregate};

/// A plan of sites a, b and c.
fn plan(method: Method) -> Plan {
    let terms = terms(5, method);
    Plan {
        rounds: terms.rounds,
        local_epochs: 1,
        method,
        kept: Kept::default(),
        least_sites: 1,
        sites: ["a", "b", "c"].map(str::to_owned).to_vec(),
        model: model(),
        training: training(0.0),
        features: Vec::new(),
        geometry: None,
        tasks: Vec::new(),
        labels: Vec::new(),
        statistics: FeatureStatistics::identity(0),
    }
}

fn weights(values: &[(&str, &[f32])]) -> Weights {
    let tensor = |values: &[f32]| NamedTensor { shape: vec![values.len()], values: values.to_vec() };
    values.iter().map(|(name, values)| ((*name).to_owned(), tensor(values))).collect()
}

/// An update of the first round: for each name its numbers and how many examples trained them.
fn update(plan: &Plan, site: &str, values: &[(&str, &[f32], u64)]) -> Update {
    let named: Vec<(&str, &[f32])> = values.iter().map(|(name, values, _)| (*name, *values)).collect();
    Update {
        plan: plan.digest(),
        round: 1,
        site: site.to_owned(),
        examples: values.iter().map(|(name, _, n)| ((*name).to_owned(), *n)).collect(),
        losses: vec![0.5],
        epsilon: None,
        weights: weights(&named),
    }
}

fn merge(plan: &Plan, start: Weights, updates: &[Update]) -> Result<(Global, RoundReport), FederationError> {
    let global = Global { plan: plan.digest(), round: 0, weights: start };
    let unmerged = |update: &Update| Unmerged { from: format!("{}.safetensors", update.site), bytes: update.encode().unwrap() };
    aggregate(plan, &global, &updates.iter().map(unmerged).collect::<Vec<_>>(), &mut ServerState::default())
}

#[test]
fn the_mean_is_by_examples() {
    let plan = plan(Method::FedAvg);
    let of = |site, values: &[f32], n| update(&plan, site, &[("w", values, n)]);
    let updates = [of("a", &[1.0, 2.0], 10), of("b", &[3.0, 4.0], 30), of("c", &[100.0, -50.0], 60)];
    let (after, report) = merge(&plan, weights(&[("w", &[0.0, 0.0])]), &updates).unwrap();
    assert_eq!(after.weights["w"].values, [61.0, -28.6]);
    assert_eq!((after.round, report.sites.len(), report.absent.len()), (1, 3, 0));
    assert_eq!(report.sites[0].norm, 5f64.sqrt());
    assert_eq!(report.sites[2].norm_over_median, 12_500f64.sqrt() / 5.0, "the farthest one shows");
}

#[test]
fn equal_sites_are_their_mean() {
    let plan = plan(Method::FedAvg);
    let values = [0.1, -7.3e-5, 1.0 / 3.0, 2.5e9, f32::MIN_POSITIVE];
    let of = |site, n| update(&plan, site, &[("w", &values, n)]);
    let (after, _) = merge(&plan, weights(&[("w", &[0.0; 5])]), &[of("a", 77), of("b", 77), of("c", 77)]).unwrap();
    assert_eq!(after.weights["w"].values, values);
}

#[test]
fn only_those_count_that_trained_a_number() {
    let plan = plan(Method::FedAvg);
    let start = weights(&[("image.w", &[9.0]), ("record.w", &[9.0]), ("fusion.w", &[9.0])]);
    // a has images alone, b records alone; nobody else takes part.
    let updates = [
        update(&plan, "a", &[("image.w", &[1.0], 40), ("record.w", &[555.0], 0), ("fusion.w", &[2.0], 40)]),
        update(&plan, "b", &[("image.w", &[-555.0], 0), ("record.w", &[3.0], 120), ("fusion.w", &[6.0], 120)]),
    ];
    let (after, report) = merge(&plan, start.clone(), &updates).unwrap();
    assert_eq!(after.weights, weights(&[("image.w", &[1.0]), ("record.w", &[3.0]), ("fusion.w", &[5.0])]));
    assert_eq!(report.absent, ["c"]);
    let (after, _) = merge(&plan, start, &updates[..1]).unwrap();
    assert_eq!(after.weights["record.w"].values, [9.0], "what nobody trained stays as it was");
}

#[test]
fn the_order_of_arrival_is_of_no_matter() {
    let plan = plan(Method::FedAvg);
    // Numbers whose sum in double precision depends on its order.
    let of = |site, value, n| update(&plan, site, &[("w", &[value, value / 3.0], n)]);
    let updates = [of("a", 1e30, 1), of("b", -1e30, 1), of("c", 1.7, 1)];
    let merged = |order: [usize; 3]| merge(&plan, weights(&[("w", &[0.0, 0.0])]), &order.map(|k| updates[k].clone())).unwrap();
    let (first, report) = merged([0, 1, 2]);
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (other, other_report) = merged(order);
        assert!(other == first && other_report == report, "{order:?}");
    }
    assert_eq!(report.hash, first.hash());
}

#[test]
fn adam_at_the_coordinator() {
    let plan = plan(Method::FedAdam { rate: 0.1 });
    let mut server = ServerState::default();
    let (mut w, mut m, mut v) = (1.0f64, 0.0f64, 1e-6f64);
    let mut global = Global { plan: plan.digest(), round: 0, weights: weights(&[("w", &[1.0]), ("n.running_var", &[1.0])]) };
    for (round, mean) in [3.0f64, -1.0, 0.5].into_iter().enumerate() {
        // Algorithm 2 by hand: the step towards the mean is the gradient's opposite.
        let step = mean - w;
        m = 0.9 * m + 0.1 * step;
        v = 0.99 * v + 0.01 * step * step;
        w += 0.1 * m / (v.sqrt() + 1e-3);
        let update = Update { round: round + 1, ..update(&plan, "a", &[("w", &[mean as f32], 8), ("n.running_var", &[4.0], 8)]) };
        let unmerged = Unmerged { from: "a".to_owned(), bytes: update.encode().unwrap() };
        (global, _) = aggregate(&plan, &global, &[unmerged], &mut server).unwrap();
        let got = f64::from(global.weights["w"].values[0]);
        assert!((got - w).abs() < 1e-5, "round {}: {got}, not {w}", round + 1);
    }
    assert_eq!(global.weights["n.running_var"].values, [4.0], "a variance takes no step of Adam: it is the mean");
}

/// The reason for which one of two updates does not count; the other one does.
#[track_caller]
fn check(change: impl FnOnce(&mut Update), expected: &str) {
    let plan = plan(Method::FedAvg);
    let start = weights(&[("w", &[0.0, 0.0])]);
    let good = update(&plan, "a", &[("w", &[1.0, 2.0], 10)]);
    let mut bad = update(&plan, "b", &[("w", &[3.0, 4.0], 30)]);
    change(&mut bad);
    let (after, report) = merge(&plan, start.clone(), &[bad.clone(), good]).unwrap();
    assert_eq!(after.weights["w"].values, [1.0, 2.0], "the round goes on without it");
    assert_eq!(report.refused.iter().map(|r| r.reason.as_str()).collect::<Vec<_>>(), [expected]);
    assert_eq!(report.absent, ["b", "c"]);
    let error = merge(&plan, start, &[bad]).unwrap_err().to_string();
    assert!(error.starts_with("round 1 has 0 usable updates where 1 are needed: ") && error.ends_with(expected), "{error}");
}

#[test]
fn what_must_not_count() {
    check(|u| u.weights = weights(&[("w", &[3.0, f32::NAN])]), "site `b` sent NaN in `w`: its training has diverged");
    check(|u| u.weights = weights(&[("w", &[f32::INFINITY, 0.0])]), "site `b` sent inf in `w`: its training has diverged");
    check(|u| u.weights = weights(&[("v", &[3.0, 4.0])]), "site `b` sent weights of another model: there is no `w`");
    check(|u| u.weights = weights(&[("w", &[3.0, 4.0, 5.0])]), "site `b` sent weights of another model: `w` has shape [3], not [2]");
    check(
        |u| drop(u.weights.insert("x".to_owned(), u.weights["w"].clone())),
        "site `b` sent weights of another model: `x` is not in this one",
    );
    check(|u| u.examples = BTreeMap::new(), "site `b` does not say how many examples trained `w`");
    check(|u| u.round = 0, "site `b` sent an update of round 0 in round 1");
    check(|u| u.round = 2, "site `b` sent an update of round 2 in round 1");
    check(|u| u.plan = "1234".to_owned(), "site `b` sent weights of another federation (plan 1234)");
    check(|u| u.site = "z".to_owned(), "site `z` takes no part in this federation; it was agreed by a, b, c");
}

#[test]
fn a_site_counts_once() {
    let plan = plan(Method::FedAvg);
    let start = weights(&[("w", &[0.0])]);
    let (a, b) = (update(&plan, "a", &[("w", &[1.0], 10)]), update(&plan, "b", &[("w", &[3.0], 10)]));
    let (after, report) = merge(&plan, start.clone(), &[a.clone(), b.clone(), a.clone()]).unwrap();
    assert_eq!((after.weights["w"].values[0], report.refused.len()), (2.0, 1));
    assert_eq!(report.refused[0].reason, "site `a` sent this update twice; it counts once");
    let other = update(&plan, "a", &[("w", &[5.0], 10)]);
    for two in [[&a, &other], [&other, &a]] {
        let (after, report) = merge(&plan, start.clone(), &[two[0].clone(), b.clone(), two[1].clone()]).unwrap();
        assert_eq!((after.weights["w"].values[0], report.refused.len()), (3.0, 2), "in either order");
        assert_eq!(report.refused[0].reason, "site `a` sent two updates that differ; none of them counts");
    }
}

#[test]
fn bytes_that_are_no_update() {
    let plan = plan(Method::FedAvg);
    let good = update(&plan, "a", &[("w", &[1.0], 10)]);
    let bytes = good.encode().unwrap();
    let global = Global { plan: plan.digest(), round: 0, weights: weights(&[("w", &[0.0])]) };
    for cut in [0, 7, bytes.len() / 2, bytes.len() - 1] {
        let unmerged = [bytes[..cut].to_vec(), bytes.clone()].map(|bytes| Unmerged { from: "node 7".to_owned(), bytes });
        let (_, report) = aggregate(&plan, &global, &unmerged, &mut ServerState::default()).unwrap();
        assert_eq!((report.sites.len(), report.refused.len()), (1, 1), "cut at {cut}");
        assert!(report.refused[0].reason.starts_with("an update can't be read: "), "{}", report.refused[0].reason);
    }
    // What all share is no update of a site.
    let shared = Unmerged { from: "node 8".to_owned(), bytes: global.encode().unwrap() };
    let error = aggregate(&plan, &global, &[shared], &mut ServerState::default()).unwrap_err();
    assert!(matches!(error, FederationError::TooFew { got: 0, .. }), "{error}");
    assert_eq!(Global::decode(&global.encode().unwrap()).unwrap(), global);
    assert_eq!(Update::decode(&bytes).unwrap(), good);
}

#[test]
fn too_few_sites_and_too_many_rounds() {
    let plan = Plan { least_sites: 2, ..plan(Method::FedAvg) };
    let start = weights(&[("w", &[0.0])]);
    let error = merge(&plan, start.clone(), &[update(&plan, "a", &[("w", &[1.0], 10)])]).unwrap_err();
    assert_eq!(error.to_string(), "round 1 has 1 usable updates where 2 are needed");
    let last = Global { plan: plan.digest(), round: 5, weights: start };
    let error = aggregate(&plan, &last, &[], &mut ServerState::default()).unwrap_err();
    assert_eq!(error.to_string(), "round 5 was the last one of the plan");
}
