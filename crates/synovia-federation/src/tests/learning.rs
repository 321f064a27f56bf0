//! Sites that train: what federations of one, of equals and of unequals come to.

use std::path::Path;

use synovia_cohort::{CohortReader, Train, Validation};
use synovia_encoders::NormKind;
use synovia_fusion::{Absent, JointModelConfig};
use synovia_training::{
    Balance, Branches, Checkpoint, Fit, Imbalance, NoiseKey, Privacy, Sampling, Seen, Together, TrainingSettings, Weights, fit,
    fit_statistics,
};

use super::{Has, alone, cohort, model, terms, training};
use crate::message::examples_of;
use crate::{
    FederationError, Global, Kept, Method, Plan, ServerState, Statement, Terms, Unmerged, Update, ValidationSums, aggregate, agree,
    fit_round, validate_round,
};

/// A site with what it keeps.
struct Site<'a> {
    name: &'a str,
    reader: &'a CohortReader,
    state: Option<Checkpoint>,
    noise: Option<NoiseKey>,
}

fn sites<'a>(named: &[(&'a str, &'a CohortReader)]) -> Vec<Site<'a>> {
    named.iter().map(|&(name, reader)| Site { name, reader, state: None, noise: None }).collect()
}

fn statements(sites: &[Site<'_>], ema: f64) -> Vec<Statement> {
    sites.iter().map(|site| Statement::of(site.name, &model(), &training(ema), site.reader).unwrap()).collect()
}

fn part(site: &mut Site<'_>, plan: &Plan, global: &Global) -> Update {
    let (update, kept) = fit_round(plan, site.name, global, site.state.as_ref(), site.reader, site.noise.as_ref(), &mut |_| ()).unwrap();
    // As a process that ended in between would have it.
    site.state = Checkpoint::decode(&kept.encode().unwrap(), &plan.digest());
    assert!(site.state.is_some());
    update
}

fn merge(plan: &Plan, global: &Global, updates: &[Update]) -> Global {
    let unmerged: Vec<Unmerged> = updates.iter().map(|u| Unmerged { from: u.site.clone(), bytes: u.encode().unwrap() }).collect();
    aggregate(plan, global, &unmerged, &mut ServerState::default()).unwrap().0
}

/// All rounds; what is shared after each.
fn run(sites: &mut [Site<'_>], terms: &Terms, ema: f64) -> (Plan, Vec<Global>) {
    let (plan, first) = agree(statements(sites, ema), terms).unwrap();
    let mut all = vec![first];
    for round in 0..plan.rounds {
        let updates: Vec<Update> = sites.iter_mut().map(|site| part(site, &plan, &all[round])).collect();
        all.push(merge(&plan, &all[round], &updates));
    }
    (plan, all)
}

/// The model of a whole training on one cohort.
fn central(reader: &CohortReader, epochs: usize, ema: f64, checkpoints: &Path) -> (Weights, usize, Vec<f64>) {
    let (train, validation) = (reader.view::<Train>(), reader.view::<Validation>());
    let statistics = fit_statistics(&train).unwrap();
    let settings = TrainingSettings { epochs, patience: epochs, ..training(ema) };
    let model = model();
    let job = Fit {
        model: &model,
        statistics: &statistics,
        settings: &settings,
        checkpoints,
        data_key: "k",
        noise: None,
        start: None,
        together: &Together::new(),
    };
    let trained = fit(&job, &train, &validation, &mut |_| ()).unwrap();
    (trained.weights, trained.best_epoch, trained.history.iter().map(|line| line.validation_loss).collect())
}

#[test]
fn one_site_is_central_training_bit_for_bit() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), Has::ALL);
    for ema in [0.99, 0.0] {
        let (expected, best_epoch, losses) = central(&reader, 4, ema, &dir.path().join(format!("central {ema}")));
        let (plan, all) = run(&mut sites(&[("only", &reader)]), &terms(4, Method::FedAvg), ema);
        let validated: Vec<f64> = all[1..]
            .iter()
            .map(|global| {
                let validated = validate_round(&plan, "only", global, None, &reader).unwrap();
                ValidationSums::loss(&plan, &[&validated.sums])
            })
            .collect();
        assert_eq!(validated, losses, "ema {ema}: the losses after each round");
        assert!(all[best_epoch].candidate() == expected, "ema {ema}: the weights that are kept");
        assert_eq!(all[4].average().is_empty(), ema == 0.0, "no average travels where none is kept");
        let (_, two) = run(&mut sites(&[("only", &reader)]), &Terms { rounds: 2, local_epochs: 2, ..terms(2, Method::FedAvg) }, ema);
        assert!(two[2].weights == all[4].weights, "ema {ema}: two rounds of two epochs");
    }
}

#[test]
fn without_strength_proximal_is_the_mean_and_with_it_sites_stay_near() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let a = cohort(&dir.path().join("a"), Has::ALL);
    let b = cohort(&dir.path().join("b"), Has { seed: 2, n: 80, ..Has::ALL });
    let run = |method| run(&mut sites(&[("a", &a), ("b", &b)]), &terms(2, method), 0.0).1;
    let (average, none, strong) = (run(Method::FedAvg), run(Method::FedProx { mu: 0.0 }), run(Method::FedProx { mu: 100.0 }));
    for (average, none) in average.iter().zip(&none) {
        assert!(average.weights == none.weights, "round {}", average.round);
    }
    let moved = |all: &[Global]| {
        let parameters = all[1].weights.iter().filter(|(name, _)| name.ends_with("weight"));
        parameters
            .flat_map(|(name, t)| t.values.iter().zip(&all[0].weights[name].values))
            .map(|(x, y)| f64::from(x - y).powi(2))
            .sum::<f64>()
    };
    assert!(moved(&strong) < 0.9 * moved(&average), "{} and {}", moved(&strong), moved(&average));
}

#[test]
fn corrected_gradients_begin_as_they_are_and_then_differ() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let a = cohort(&dir.path().join("a"), Has::ALL);
    let b = cohort(&dir.path().join("b"), Has { seed: 2, n: 80, record: false, ..Has::ALL });
    let rounds = |named: &[(&str, &CohortReader)], method| run(&mut sites(named), &terms(3, method), 0.0).1;
    let same = |a: &Global, b: &Global| b.model() == a.model();
    // One site is what all are: there is nothing to correct.
    let (one, mean) = (rounds(&[("a", &a)], Method::Scaffold), rounds(&[("a", &a)], Method::FedAvg));
    assert!(same(&one[1], &mean[1]) && same(&one[2], &mean[2]));
    // Of two, nothing is known before the first round.
    let (two, mean) = (rounds(&[("a", &a), ("b", &b)], Method::Scaffold), rounds(&[("a", &a), ("b", &b)], Method::FedAvg));
    assert!(same(&two[1], &mean[1]) && !same(&two[2], &mean[2]));
    // By hand: the mean of the sites' changes, and of a number that one trains that one's.
    let mut both = sites(&[("a", &a), ("b", &b)]);
    let (plan, first) = agree(statements(&both, 0.0), &terms(3, Method::Scaffold)).unwrap();
    let updates: Vec<Update> = both.iter_mut().map(|site| part(site, &plan, &first)).collect();
    let after = merge(&plan, &first, &updates);
    let value = |weights: &Weights, name: &str| f64::from(weights[name].values[0]);
    let (image, record) = ("control/image_projection.weight", "control/record_projection.weight");
    let expected = f64::midpoint(value(&updates[0].weights, image), value(&updates[1].weights, image));
    assert!(expected != 0.0 && (value(&after.weights, image) - expected).abs() < 1e-9);
    assert_eq!(value(&updates[1].weights, record), 0.0, "it has no records");
    assert_eq!(value(&after.weights, record), value(&updates[0].weights, record));
    assert!(!after.weights.keys().any(|name| name.starts_with("control/") && name.contains("running")));
}

#[test]
fn noise_is_the_same_for_the_same_weights_only() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), Has { image: false, ..Has::ALL });
    let privacy = Some(Privacy { noise: 100.0, clip: 0.1, delta: 1e-5 });
    let private = TrainingSettings { privacy, clip: 1e9, ..training(0.0) };
    let stated = Statement::of("a", &JointModelConfig { norm: NormKind::Group, ..model() }, &private, &reader).unwrap();
    let (plan, first) = agree(vec![stated], &terms(2, Method::FedAvg)).unwrap();
    let key = NoiseKey::public(1);
    let round = |global: &Global| fit_round(&plan, "a", global, None, &reader, Some(&key), &mut |_| ()).unwrap();
    let (update, kept) = round(&first);
    assert_eq!(update, round(&first).0, "a round that was lost is done again");
    assert!(update.losses.is_empty() && update.epsilon.is_some());
    // Who asks for the same round from weights that are hardly others gets other noise, and can't subtract it.
    let mut other = first.clone();
    other.weights.get_mut("heads.0.bias").unwrap().values[0] += 1e-6;
    let moments = |kept: &Checkpoint| kept.moments["mean.heads.1.weight"].values.clone();
    let (ours, theirs) = (moments(&kept), moments(&round(&other).1));
    let far = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far > 0.1 * ours.iter().map(|x| x.abs()).fold(0.0, f32::max), "{far}");
}

#[test]
fn equal_sites_are_one() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), Has::ALL);
    let mut three = sites(&[("a", &reader), ("b", &reader), ("c", &reader)]);
    let (plan, first) = agree(statements(&three, 0.9), &terms(2, Method::FedAvg)).unwrap();
    let one = part(&mut three[0], &plan, &first);
    // The same data and the same draws under three names.
    let updates = ["a", "b", "c"].map(|site| Update { site: site.to_owned(), ..one.clone() });
    let after = merge(&plan, &first, &updates);
    let trained = |name: &&String| one.examples[*name] > 0;
    assert!(after.weights.keys().filter(trained).all(|name| after.weights[name] == one.weights[name]));
    assert!(one.weights.keys().filter(trained).count() > 100);
    // Each site draws its own order and dropout.
    let other = part(&mut three[1], &plan, &first);
    let n_all = |update: &Update| update.examples["heads.0.bias"];
    assert!(other.weights != one.weights && n_all(&other) == n_all(&one));
}

#[test]
fn a_site_trains_what_it_has() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let pictures = cohort(&dir.path().join("p"), Has { record: false, ..Has::ALL });
    let charts = cohort(&dir.path().join("c"), Has { image: false, seed: 2, label: false, ..Has::ALL });
    let both = cohort(&dir.path().join("b"), Has { seed: 3, ..Has::ALL });
    let mut three = sites(&[("charts", &charts), ("pictures", &pictures), ("both", &both)]);
    let stated = statements(&three, 0.0);
    assert!(stated[0].model.image.is_none() && stated[1].model.record.is_none());
    let (plan, first) = agree(stated, &terms(1, Method::FedAvg)).unwrap();
    assert_eq!(plan.sites, ["both", "charts", "pictures"], "in order, however they came");
    assert!(plan.model.image.is_some() && plan.model.record.is_some());
    let updates: Vec<Update> = three.iter_mut().map(|site| part(site, &plan, &first)).collect();
    let n = |k: usize, name: &str| updates[k].examples[name];
    let n_all = |k: usize| n(k, "fusion.Gated.mix.weight");
    for (k, image, record, label) in [(0, false, true, false), (1, true, false, true)] {
        assert_eq!(n(k, "image_projection.weight"), if image { n_all(k) } else { 0 });
        assert_eq!(n(k, "fusion.Gated.gates.0.weight"), if image { n_all(k) } else { 0 });
        assert_eq!(n(k, "record.Table.first.weight"), if record { n_all(k) } else { 0 });
        assert_eq!(n(k, "fusion.Gated.gates.1.weight"), if record { n_all(k) } else { 0 });
        assert_eq!(n(k, "heads.0.weight"), if label { n_all(k) } else { 0 });
        assert_eq!((n(k, "heads.1.bias"), n(k, "record.Table.standardize.mean")), (n_all(k), 0));
    }
    // Of the site with both, hidden ones do not count either.
    assert!(n(2, "image_projection.weight") < n_all(2) && n(2, "record.Table.first.weight") < n_all(2));
    let after = merge(&plan, &first, &updates);
    // The image's tower is the mean of the two that have images: the site of charts left it as it was.
    let name = "image.ResNet.stem.conv.weight";
    let (n_p, n_b) = (n(1, name) as f64, n(2, name) as f64);
    let value = |k: usize| f64::from(updates[k].weights[name].values[5]);
    let expected = (n_p * value(1) + n_b * value(2)) / (n_p + n_b);
    assert!((f64::from(after.weights[name].values[5]) - expected).abs() < 1e-7);
    assert_eq!(updates[0].weights[name], first.weights[name]);
    for mean in ["mean", "std", "log", "floor"].map(|what| format!("record.Table.standardize.{what}")) {
        assert_eq!(after.weights[&mean], first.weights[&mean], "{mean}");
    }
}

#[test]
fn statistics_are_those_of_all_data() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (cohort(&dir.path().join("a"), Has::ALL), cohort(&dir.path().join("b"), Has { seed: 2, n: 55, ..Has::ALL }));
    let (plan, _) = agree(statements(&sites(&[("b", &b), ("a", &a)]), 0.0), &terms(1, Method::FedAvg)).unwrap();
    let mut values = Vec::new();
    let mut counts = [[0u64; 2]; 2];
    for reader in [&a, &b] {
        let train = reader.view::<Train>();
        train.for_each_record(|_, row| values.push(f64::from(row[0]))).unwrap();
        for row in train.rows() {
            row.labels.iter().zip(&mut counts).for_each(|(label, counts)| counts[label.unwrap() as usize] += 1);
        }
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let std = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    assert!((f64::from(plan.statistics.mean[0]) - mean).abs() < 1e-6 && (f64::from(plan.statistics.std[0]) - std).abs() < 1e-6);
    assert_eq!(plan.labels, counts.map(|c| c.to_vec()));
    // Four values would tell too much.
    let few = cohort(&dir.path().join("few"), Has { n: 6, ..Has::ALL });
    let stated = Statement::of("few", &model(), &training(0.0), &few).unwrap();
    assert_eq!((stated.n_train, stated.moments[0].values.n()), (4, 0.0));
    assert_eq!(
        agree(vec![stated], &Terms { least_examples: 20, ..terms(1, Method::FedAvg) }).unwrap_err().to_string(),
        "site `few` has 4 training examples where 20 are asked for; leave it out or lower --least-examples"
    );
}

#[test]
fn what_stays_at_a_site_does_not_travel() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (cohort(&dir.path().join("a"), Has::ALL), cohort(&dir.path().join("b"), Has { seed: 2, ..Has::ALL }));
    let mut two = sites(&[("a", &a), ("b", &b)]);
    let kept = Kept { norms: true, heads: true, statistics: true };
    let (plan, first) = agree(statements(&two, 0.9), &Terms { kept, ..terms(2, Method::FedAvg) }).unwrap();
    let updates: Vec<Update> = two.iter_mut().map(|site| part(site, &plan, &first)).collect();
    let own =
        ["heads.0.weight", "record.Table.first_norm.batch.gamma", "record.Table.first_norm.batch.running_var", "average/heads.1.bias"];
    for name in own {
        assert!(!updates[0].weights.contains_key(name), "{name}");
    }
    assert!(
        updates[0].weights.contains_key("record.Table.first.weight")
            && updates[0].weights.contains_key("average/record.Table.first.weight")
    );
    let after = merge(&plan, &first, &updates);
    let at = |site: &Site<'_>| validate_round(&plan, site.name, &after, site.state.as_ref(), site.reader).unwrap().weights;
    let (at_a, at_b) = (at(&two[0]), at(&two[1]));
    assert!(at_a["heads.0.weight"] != at_b["heads.0.weight"] && at_a["record.Table.first.weight"] == at_b["record.Table.first.weight"]);
    let mean = "record.Table.standardize.mean";
    assert!(at_a[mean] != at_b[mean] && at_a[mean] != first.weights[mean] && !updates[0].weights.contains_key(mean));
    assert!(at_a["record.Table.first_norm.batch.running_mean"] != at_b["record.Table.first_norm.batch.running_mean"]);
    let again = part(&mut two[0], &plan, &after);
    assert_eq!(again.round, 2);
}

#[test]
fn a_site_that_was_away_comes_back() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (cohort(&dir.path().join("a"), Has::ALL), cohort(&dir.path().join("b"), Has { seed: 2, ..Has::ALL }));
    let mut two = sites(&[("a", &a), ("b", &b)]);
    let (plan, first) = agree(statements(&two, 0.9), &terms(3, Method::FedAvg)).unwrap();
    let both: Vec<Update> = two.iter_mut().map(|site| part(site, &plan, &first)).collect();
    let one = merge(&plan, &first, &both);
    let second = part(&mut two[0], &plan, &one);
    let two_rounds = merge(&plan, &one, &[second]);
    let late = part(&mut two[1], &plan, &two_rounds);
    assert_eq!(late.round, 3);
    // A new machine at the site has no history, and still trains.
    two[1].state = None;
    assert_ne!(part(&mut two[1], &plan, &two_rounds).weights, late.weights);
}

#[track_caller]
fn refused(statements: Vec<Statement>, terms: &Terms, expected: &str) {
    let error = agree(statements, terms).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_stand_in_counts_those_who_trained_it() {
    let seen = Seen { examples: 100, images: 90, records: 60, labels: vec![70] };
    let of = |name: &str, own: f64| examples_of(name, &seen, &model(), Branches { own, ..Branches::default() });
    for (name, expected) in [
        ("absent.tokens.0", 10),
        ("absent.layers.1.weight", 40),
        ("average/absent.tokens.1", 40),
        ("image.x", 90),
        ("slices.score.weight", 90),
        ("fusion.Gated.gates.1.weight", 60),
        ("fusion.Gated.mix.weight", 100),
        ("fusion.SharedPrivate.shared.0.weight", 90),
        ("average/fusion.SharedPrivate.private.1.bias", 60),
        ("fusion.SharedPrivate.mix.weight", 100),
    ] {
        assert_eq!(of(name, 0.0), expected, "{name}");
    }
    assert_eq!(of("absent.tokens.0", 0.5), 100, "each modality is shown by itself");
}

#[test]
fn what_no_mean_of_sites_can_mean_is_refused() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), Has::ALL);
    let check = |change: fn(&mut TrainingSettings), expected: &str| {
        let mut training = training(0.0);
        change(&mut training);
        refused(vec![Statement::of("a", &model(), &training, &reader).unwrap()], &terms(1, Method::FedAvg), expected);
    };
    check(|t| t.sampling = Sampling::Balanced, "training.sampling = \"balanced\" has each site its own prior");
    check(|t| t.imbalance = Imbalance::Logits, "training.imbalance goes by each site's own labels");
    check(|t| t.swa = 0.25, "training.swa averages the last steps of one training");
    check(|t| t.balance = Balance::Dwa, "training.balance = \"dwa\" needs the losses of all rounds");
}

#[test]
fn who_does_not_agree_is_told() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), Has::ALL);
    let of = |site: &str| Statement::of(site, &model(), &training(0.0), &reader).unwrap();
    let terms = terms(1, Method::FedAvg);
    let change = |change: fn(&mut Statement)| {
        let mut b = of("b");
        change(&mut b);
        vec![of("a"), b]
    };
    refused(change(|s| s.training.batch = 8), &terms, "site `b` has training.batch 8 where site `a` has 16");
    refused(change(|s| s.model.embedding = 8), &terms, "site `b` has model.embedding 8 where site `a` has 16");
    refused(change(|s| s.model.absent = Absent::Token), &terms, "site `b` has model.absent \"token\" where site `a` has the default");
    let mut token = of("a");
    token.model.absent = Absent::Token;
    refused(vec![token, of("b")], &terms, "site `b` has model.absent the default where site `a` has \"token\"");
    refused(change(|s| s.tasks[0].name = "else".into()), &terms, "site `b` has the tasks else (match), high (high) where site `a` has");
    refused(change(|s| s.features[1].unit = "mg".into()), &terms, "site `b` has the features");
    refused(vec![of("a"), of("a")], &terms, "site `a` states what it has twice");
    refused(vec![], &terms, "no site takes part");
    let with = |method| Terms { method, ..terms.clone() };
    let averaged = Statement { training: training(0.9), ..of("a") };
    refused(vec![averaged], &with(Method::FedAdam { rate: 0.1 }), "set training.ema = 0");
    for name in ["", "../up", "a b", &"x".repeat(65)] {
        assert!(matches!(Statement::of(name, &model(), &training(0.0), &reader), Err(FederationError::SiteName(_))), "{name}");
    }
    let (plan, first) = agree(vec![of("a"), of("b")], &terms).unwrap();
    let stranger = fit_round(&plan, "z", &first, None, &reader, None, &mut |_| ()).unwrap_err();
    assert_eq!(stranger.to_string(), "site `z` takes no part in this federation; it was agreed by a, b");
    let other = Global { plan: "0".to_owned(), ..first.clone() };
    let error = fit_round(&plan, "a", &other, None, &reader, None, &mut |_| ()).unwrap_err();
    assert!(error.to_string().starts_with("the weights are of another federation (plan 0, not "), "{error}");
    let done = Global { round: 1, ..first };
    assert!(matches!(fit_round(&plan, "a", &done, None, &reader, None, &mut |_| ()), Err(FederationError::Finished(1))));
    // Nothing of any patient: neither a name nor a value.
    let text = serde_json::to_string(&of("a")).unwrap();
    for row in reader.rows() {
        assert!(!text.contains(&row.patient) && !text.contains(row.id.as_str()));
    }
}
