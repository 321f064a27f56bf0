//! Every measure against another implementation. The numbers are what `peers/constants.py` prints, of numpy 2.4.6, scipy 1.17.1,
//! scikit-learn 1.9.1, scikit-survival 0.28.0, lifelines 0.30.3, statsmodels 0.15.0 and scikit-uplift 0.5.1; those marked (numpy)
//! are the textbook's formula there.

use crate::{
    Average, ClassConfusion, Confusion, KaplanMeier, Multilabel, Observed, Treated, UpliftCurve, auroc, auroc_one_against_one,
    auroc_one_against_rest, average_effect, average_effect_error, average_precision, average_precision_one_against_rest, brier_parts,
    calibration_line, expected_calibration_error, expected_calibration_error_equal_mass, harrell_concordance, holm,
    integrated_survival_brier, mcnemar, paired_delong, partial_auroc, pehe, policy_value, qini_coefficient, regression,
    sensitivity_at_specificity, specificity_at_sensitivity, survival_brier, time_dependent_auroc, uno_concordance, uplift_curve,
    wilson_interval,
};

const N: usize = 200;

/// The uniform numbers of the script.
pub(crate) fn uniform(n: usize) -> Vec<f64> {
    let mut s: u64 = 12345;
    let mut next = || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (s >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..n).map(|_| next()).collect()
}

fn round_to(x: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (x * scale).round_ties_even() / scale
}

pub(super) struct Data {
    pub u: Vec<f64>,
    pub y: Vec<bool>,
    pub p1: Vec<f64>,
    pub p2: Vec<f64>,
}

pub(super) fn data() -> Data {
    let u = uniform(2400);
    let y: Vec<bool> = u[..N].iter().map(|u| *u < 0.3).collect();
    let one = |i: usize| f64::from(u8::from(y[i]));
    let p1 = (0..N).map(|i| (0.15 + 0.35 * one(i) + 0.5 * (u[N + i] - 0.3)).clamp(0.001, 0.999)).collect();
    let p2 = (0..N).map(|i| round_to((0.2 + 0.2 * one(i) + 0.6 * (u[2 * N + i] - 0.3)).clamp(0.0, 1.0), 2)).collect();
    Data { u, y, p1, p2 }
}

#[track_caller]
pub(super) fn check(got: impl Into<Option<f64>>, expected: f64) {
    let got = got.into().expect("a value");
    assert!((got - expected).abs() <= 1e-10 * expected.abs().max(1.0), "{got} instead of {expected}");
}

#[test]
fn the_data_are_the_scripts() {
    check(data().u[0], 0.10957860598549463);
}

#[test]
fn ranking() {
    let Data { y, p1, p2, .. } = data();
    for (p, values) in [
        (&p1, [0.9448499594484996, 0.9121044050837035, 0.8600515888260798, 0.8958610208073496, 0.7619047619047619, 0.7956204379562044]),
        (&p2, [0.7511875796547329, 0.6275952681753827, 0.6200964698851752, 0.6639802717518475, 0.36507936507936506, 0.3941605839416058]),
    ] {
        check(auroc(p, &y), values[0]);
        check(average_precision(p, &y), values[1]);
        check(partial_auroc(p, &y, 0.1), values[2]);
        check(partial_auroc(p, &y, 0.3), values[3]);
        check(sensitivity_at_specificity(p, &y, 0.9), values[4]);
        check(specificity_at_sensitivity(p, &y, 0.9), values[5]);
    }
    check(partial_auroc(&p1, &y, 1.0), 0.9448499594484996);
    assert_eq!((partial_auroc(&p1, &y, 0.0), partial_auroc(&p1, &[true; N], 0.1)), (None, None));
}

#[test]
fn decisions() {
    let Data { y, p1, p2, .. } = data();
    let c = Confusion::at(&p1, &y, 0.3);
    assert_eq!((c.true_positive, c.false_positive, c.false_negative, c.true_negative), (63.0, 56.0, 0.0, 81.0));
    for (p, values) in [
        (
            &p1,
            [0.6923076923076923, 0.5594728550010625, 0.47678221059516024, 0.7956204379562044, 1.0, 0.5912408759124088, 0.5294117647058824],
        ),
        (
            &p2,
            [
                0.5393258426966292,
                0.25639052410532587,
                0.22311700615821894,
                0.6364268335071255,
                0.7619047619047619,
                0.5109489051094891,
                0.41739130434782606,
            ],
        ),
    ] {
        let c = Confusion::at(p, &y, 0.3);
        let got = [c.f1(), c.matthews(), c.kappa(), c.balanced_accuracy(), c.sensitivity(), c.specificity(), c.positive_predictive_value()];
        got.into_iter().zip(values).for_each(|(got, expected)| check(got, expected));
    }
    check(Confusion::at(&p2, &y, 0.3).negative_predictive_value(), 0.8235294117647058);
    // By hand: 119 alerts of 200, 63 right; no positive is missed, 56 false alarms.
    check(c.alert_rate(), 119.0 / 200.0);
    check(c.number_needed_to_evaluate(), 119.0 / 63.0);
    check(c.cost(10.0), 56.0 / 200.0);
    let none = Confusion::at(&p1, &y, 2.0);
    assert_eq!((none.positive_predictive_value(), none.matthews(), Confusion::default().accuracy()), (None, None, None));
}

#[test]
fn probabilities() {
    let Data { y, p1, p2, .. } = data();
    let mean = |p: &[f64]| p.iter().zip(&y).map(|(p, y)| (p - f64::from(u8::from(*y))).powi(2)).sum::<f64>() / N as f64;
    for (p, brier, reliability, resolution, width, mass) in [
        (&p1, 0.11910483682393874, 0.03941942201024071, 0.1360527777777778, 0.1662617641167288, 0.17582547359831247),
        (&p2, 0.17659, 0.016234367809290388, 0.05610245098039217, 0.09570000000000004, 0.09259999999999997),
    ] {
        let parts = brier_parts(p, &y).unwrap();
        check(mean(p), brier);
        check(parts.reliability, reliability); // (numpy)
        check(parts.resolution, resolution); // (numpy)
        check(parts.uncertainty, 0.21577500000000002);
        check(parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins, brier);
        check(expected_calibration_error_equal_mass(p, &y), mass); // (numpy)
        let narrow: Vec<f32> = p.iter().map(|&p| p as f32).collect();
        // (numpy); in f32, as predictions are: p2 has values on the ends of bins.
        assert!((expected_calibration_error(&narrow, &y).unwrap() - width).abs() < 1e-7);
    }
    let clipped: Vec<f64> = p2.iter().map(|p| p.clamp(0.01, 0.99)).collect();
    // statsmodels GLM, Binomial; 1.96 of its standard errors
    let z = 1.959963984540054;
    for (p, slope, error, intercept, its_error) in [
        (&p1, 4.807981504094969, 0.8977800636320907, -0.2779549758393536, 0.16875505987608533),
        (&clipped, 1.3354803884447513, 0.24219562594892258, -0.2226626832944484, 0.16368024649291285),
    ] {
        let line = calibration_line(p, &y, None, 0.95).unwrap();
        check(line.slope, slope);
        check(line.slope_interval.1, slope + z * error);
        check(line.intercept, intercept);
        check(line.intercept_interval.0, intercept - z * its_error);
        // With one example a patient the sandwich is no other estimator of the same.
        let clustered = calibration_line(p, &y, Some(&(0..N).collect::<Vec<_>>()), 0.95).unwrap();
        let width = |(low, high): (f64, f64)| high - low;
        assert!((width(clustered.slope_interval) / width(line.slope_interval) - 1.0).abs() < 0.6);
        // Examples that stand twice in their cluster tell nothing more.
        let twice = |k: usize| k / 2;
        let doubled = calibration_line(
            &(0..2 * N).map(|k| p[twice(k)]).collect::<Vec<_>>(),
            &(0..2 * N).map(|k| y[twice(k)]).collect::<Vec<_>>(),
            Some(&(0..2 * N).map(twice).collect::<Vec<_>>()),
            0.95,
        );
        check(width(doubled.unwrap().slope_interval), width(clustered.slope_interval));
    }
    assert_eq!(calibration_line(&p1, &[true; N], None, 0.95), None);
    assert_eq!(brier_parts::<f64>(&[], &[]), None);
}

#[test]
fn two_models() {
    let Data { y, p1, p2, .. } = data();
    let test = paired_delong(&p1, &p2, &y).unwrap();
    check(test.difference, 0.19366237979376666);
    check(test.standard_error, 0.038942610670252197); // (numpy, by pairs)
    check(test.z, 4.97301995065532); // given with the task: pROC's definition
    assert!((test.p / 6.591787425553143e-07 - 1.0).abs() < 1e-10, "{}", test.p);
    let small = paired_delong(&[0.1, 0.2, 0.6, 0.7, 0.8], &[0.3, 0.6, 0.2, 0.7, 0.9], &[false, false, true, true, true]).unwrap();
    check(small.z, 1.0);
    check(small.p, 0.31731050786291415);
    assert_eq!(paired_delong(&p1, &p1, &y).unwrap().p, 1.0);
    assert_eq!(paired_delong(&[0.1, 0.2], &[0.1, 0.2], &[true, false]), None);
    // statsmodels.stats.contingency_tables.mcnemar
    for (a, b, exact, chi2) in [
        (10, 2, 0.03857421875, 0.04330814281079206),
        (25, 11, 0.028816719655878845, 0.030260280020471753),
        (0, 3, 0.25, 0.24821307898992026),
        (60, 40, 0.05688793364098089, 0.05743311963200335),
        (56, 30, 0.0066739231422248664, 0.007021573953176727),
    ] {
        check(mcnemar(a, b).p_exact, exact);
        check(mcnemar(b, a).p_chi2, chi2);
    }
    assert_eq!(mcnemar(0, 0).p_exact, 1.0);
    assert!(mcnemar(3000, 3000).p_exact > 0.99 && mcnemar(5000, 0).p_exact < 1e-300);
    // Perfect against useless: no placement varies, so there is nothing to tell chance from.
    assert_eq!(paired_delong(&[0.1, 0.2, 0.8, 0.9], &[0.5; 4], &[false, false, true, true]), None);
    // statsmodels.stats.multitest.multipletests(method="holm")
    let corrected = holm(&[Some(0.01), Some(0.04), None, Some(0.03), Some(0.005), Some(0.5)]);
    [0.04, 0.09, 0.09, 0.025, 0.5].into_iter().zip(corrected.iter().flatten()).for_each(|(expected, got)| check(*got, expected));
    assert_eq!(corrected[2], None);
    // statsmodels.stats.proportion.proportion_confint(method="wilson")
    for (k, n, low, high) in [
        (45, 50, 0.7863976856252034, 0.9565242350681095),
        (0, 20, 0.0, 0.1611251580528194),
        (20, 20, 0.8388748419471804, 1.0),
        (1, 3, 0.06149194472039626, 0.7923403991979523),
    ] {
        let (a, b) = wilson_interval(k, n, 0.95).unwrap();
        check(a, low);
        check(b, high);
    }
    assert_eq!((wilson_interval(0, 0, 0.95), wilson_interval(3, 2, 0.95)), (None, None));
}

#[test]
fn several_classes() {
    let u = data().u;
    let labels: Vec<usize> = u[600..800].iter().map(|u| (u * 3.0) as usize).collect();
    let mut p = Vec::new();
    for (i, &label) in labels.iter().enumerate() {
        let row: Vec<f64> = (0..3).map(|k| u[800 + 200 * k + i] + if k == label { 0.6 } else { 0.0 }).collect();
        let sum: f64 = row.iter().sum();
        p.extend(row.iter().map(|x| x / sum));
    }
    check(auroc_one_against_rest(&p, &labels, 3, Average::Macro), 0.9721478174603174);
    check(auroc_one_against_rest(&p, &labels, 3, Average::Weighted), 0.9725892857142857);
    check(auroc_one_against_one(&p, &labels, 3, Average::Macro), 0.9720717592592593);
    check(auroc_one_against_one(&p, &labels, 3, Average::Weighted), 0.9722239583333333);
    check(average_precision_one_against_rest(&p, &labels, 3, Average::Macro), 0.9446390488025888);
    check(average_precision_one_against_rest(&p, &labels, 3, Average::Weighted), 0.9465186732768041);
    check(average_precision_one_against_rest(&p, &labels, 3, Average::Micro), 0.9411787078263173);
    assert_eq!(auroc_one_against_one(&p, &labels, 3, Average::Micro), None);
    assert_eq!(auroc_one_against_one(&p, &labels[1..], 3, Average::Macro), None);
    // Micro: all pairs of example and class as one ranking.
    let one_hot: Vec<bool> = labels.iter().flat_map(|&y| (0..3).map(move |k| k == y)).collect();
    check(auroc_one_against_rest(&p, &labels, 3, Average::Micro), auroc(&p, &one_hot).unwrap());
    let called: Vec<usize> = p.chunks(3).map(|row| (0..3).fold(0, |top, k| if row[k] > row[top] { k } else { top })).collect();
    let confusion = ClassConfusion::new(3, &labels, &called);
    check(confusion.f1(Average::Macro), 0.8888238341448434);
    check(confusion.f1(Average::Weighted), 0.8902640313755203);
    check(confusion.f1(Average::Micro), 0.89);
    check(confusion.matthews(), 0.8351936330220855);
    check(confusion.kappa(), 0.8339622641509434);
    check(confusion.quadratic_kappa(), 0.8359486447931526);
    check(confusion.balanced_accuracy(), 0.8916666666666666);
    check(confusion.accuracy(), 0.89);
}

#[test]
fn several_labels() {
    let u = data().u;
    let (mut scores, mut labels) = (Vec::new(), Vec::new());
    for i in 0..N {
        for (k, below) in [0.3, 0.5, 0.1].into_iter().enumerate() {
            let label = u[1400 + 200 * k + i] < below;
            let noise = u[(2000 + 200 * k) % 2400 + i];
            scores.push((0.3 * f64::from(u8::from(label)) + 0.7 * noise).clamp(0.0, 1.0));
            labels.push(Some(label));
        }
    }
    let all = Multilabel::new(&scores, &labels, 3);
    let averages = [Average::Macro, Average::Weighted, Average::Micro];
    for (average, expected) in averages.into_iter().zip([0.8034250570207556, 0.8178148526613555, 0.8253069675407215]) {
        check(all.auroc(average), expected);
    }
    for (average, expected) in averages.into_iter().zip([0.6943780153949285, 0.7938920533386491, 0.7502120884890701]) {
        check(all.average_precision(average), expected);
    }
    for (average, expected) in averages.into_iter().zip([0.5152140178455968, 0.6332156417143475, 0.5914221218961625]) {
        check(all.f1(0.5, average), expected);
    }
    check(all.hamming_loss(), 0.3016666666666667);
    check(all.subset_accuracy(), 0.345);
    // An unknown label is no negative one.
    let mut known = labels.clone();
    (0..N).filter(|i| labels[3 * i] == Some(false) && i % 2 == 0).for_each(|i| known[3 * i] = None);
    let some = Multilabel::new(&scores, &known, 3);
    assert_ne!(some.auroc(Average::Macro), all.auroc(Average::Macro));
    assert_eq!(Multilabel::new(&scores, &vec![None; 3 * N], 3).hamming_loss(), None);
}

#[test]
fn numbers() {
    let Data { u, p1, p2, .. } = data();
    let truth: Vec<f64> = (0..N).map(|i| 3.0 * p1[i] + u[600 + i]).collect();
    let predicted: Vec<f64> = (0..N).map(|i| round_to(3.0 * p2[i] + u[800 + i], 1)).collect();
    let r = regression(&truth, &predicted).unwrap();
    check(r.mean_absolute_error, 0.6684786274751124);
    check(r.root_mean_squared_error, 0.8053536342346036);
    check(r.r2, -0.35323677132987963);
    check(r.pearson, 0.22682569613118142);
    check(r.spearman, 0.18996352675565434);
    let flat = regression(&[1.0, 1.0], &[0.0, 2.0]).unwrap();
    assert_eq!((flat.r2, flat.pearson), (None, None));
    assert_eq!(regression(&[], &[]), None);
}

#[test]
fn survival() {
    let Data { u, p1, p2, .. } = data();
    let rate: Vec<f64> = p1.iter().map(|p| 0.1 * (2.0 * (p - 0.5)).exp()).collect();
    let observed: Vec<Observed> = (0..N)
        .map(|i| {
            let (event, censored) = (-(-u[600 + i]).ln_1p() / rate[i], -(-u[800 + i]).ln_1p() / 0.08);
            Observed { time: (2.0 * event.min(censored)).ceil() / 2.0, event: event <= censored }
        })
        .collect();
    assert_eq!(observed.iter().filter(|o| o.event).count(), 93);
    let (censoring, test, risk) = (KaplanMeier::of_censoring(&observed), &observed[100..], &p2[100..]);
    check(KaplanMeier::of_events(&observed).at(2.0), 0.8696088271653647);
    check(KaplanMeier::of_events(&observed).at(10.0), 0.5235204641256543);
    assert_eq!(KaplanMeier::of_events(&observed).at(-1.0), 1.0);
    check(harrell_concordance(&observed, &p2), 0.5621183301631795); // lifelines and scikit-survival
    check(uno_concordance(&censoring, test, risk, Some(20.0)), 0.5723536561664565);
    check(uno_concordance(&censoring, &observed, &p2, Some(15.0)), 0.5649802536530815);
    let times = [2.0, 5.0, 10.0, 15.0];
    let areas = time_dependent_auroc(&censoring, test, risk, &times).unwrap();
    let expected = [0.5141104585893443, 0.571008572552229, 0.6385467712840546, 0.5742648333346991];
    areas.at.iter().zip(expected).for_each(|(got, expected)| check(*got, expected));
    check(areas.mean, 0.5778245504720988);
    let curves: Vec<Vec<f64>> = times.iter().map(|t| rate[100..].iter().map(|r| (-r * t).exp()).collect()).collect();
    let expected = [0.12015810112226324, 0.2246097562710248, 0.27809634592761556, 0.28209388592651563];
    for ((time, curve), expected) in times.iter().zip(&curves).zip(expected) {
        check(survival_brier(&censoring, test, curve, *time), expected);
    }
    check(integrated_survival_brier(&censoring, test, &curves, &times), 0.244184047786297);
    // Nobody has an event: no pair, no area, no C.
    let none = [Observed { time: 1.0, event: false }; 3];
    assert_eq!(harrell_concordance(&none, &[0.1, 0.2, 0.3]), None);
    assert_eq!(time_dependent_auroc(&KaplanMeier::of_censoring(&none), &none, &[0.1, 0.2, 0.3], &[2.0]).unwrap().mean, None);
}

#[test]
fn treatment() {
    let Data { u, p1, p2, .. } = data();
    let (mut patients, mut estimated, mut truth) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..N {
        let propensity = 0.3 + 0.4 * p1[i];
        let treated = u[1000 + i] < propensity;
        let (mu0, mu1) = (p2[i], (p2[i] + 0.3 * (u[1200 + i] - 0.4)).clamp(0.0, 1.0));
        let outcome = f64::from(u8::from(u[1400 + i] < if treated { mu1 } else { mu0 }));
        patients.push(Treated { outcome, treated, propensity, modelled: [mu0 + 0.02, mu1 - 0.01] });
        estimated.push(0.5 * (mu1 - mu0) + 0.05 * u[1600 + i]);
        truth.push(mu1 - mu0);
    }
    check(pehe(&estimated, &truth), 0.047564097932179555); // (numpy), and so the next
    check(average_effect_error(&estimated, &truth), 0.012842854720921441);
    let policy: Vec<bool> = estimated.iter().map(|e| *e > 0.03).collect();
    let value = policy_value(&patients, &policy).unwrap(); // (numpy)
    check(value.value, 0.4070734521955386);
    check(value.standard_error, 0.04928243365259927);
    let effect = average_effect(&patients).unwrap(); // (numpy)
    check(effect.value, 0.04582904765624558);
    check(effect.standard_error, 0.06709143198448679);
    let outcome: Vec<f64> = patients.iter().map(|p| p.outcome).collect();
    let treated: Vec<bool> = patients.iter().map(|p| p.treated).collect();
    // scikit-uplift
    let qini = uplift_curve(&estimated, &outcome, &treated, UpliftCurve::Qini);
    check(qini[50].gain, 4.538461538461538);
    check(qini[100].gain, 8.428571428571429);
    check(qini[200].gain, 7.513274336283185);
    check(qini_coefficient(&estimated, &outcome, &treated), 0.11742204417004425);
    let uplift = uplift_curve(&estimated, &outcome, &treated, UpliftCurve::Uplift);
    let rates = |wanted: bool| {
        let of: Vec<f64> = patients.iter().filter(|p| p.treated == wanted).map(|p| p.outcome).collect();
        of.iter().sum::<f64>() / of.len() as f64
    };
    check(uplift[200].gain, (rates(true) - rates(false)) * 200.0);
    let certain = [Treated { propensity: 1.0, ..patients[0] }, patients[1]];
    assert_eq!(policy_value(&certain, &[true, false]), None, "who can't be treated otherwise tells nothing of it");
}

#[test]
fn a_doubly_robust_value_is_right_where_either_model_is() {
    // Effect 0.2 for all, assignment confounded by x.
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(5);
    let draw = |rng: &mut rand_chacha::ChaCha8Rng| rand::RngExt::random::<f64>(rng);
    let (mut right_outcome, mut right_propensity, mut neither) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..40_000 {
        let x = draw(&mut rng);
        let propensity = 0.2 + 0.6 * x;
        let treated = draw(&mut rng) < propensity;
        let chance = 0.2 + 0.5 * x + if treated { 0.2 } else { 0.0 };
        let outcome = f64::from(u8::from(draw(&mut rng) < chance));
        let patient = Treated { outcome, treated, propensity, modelled: [0.2 + 0.5 * x, 0.4 + 0.5 * x] };
        right_outcome.push(Treated { propensity: 0.5, ..patient });
        right_propensity.push(Treated { modelled: [0.5, 0.5], ..patient });
        neither.push(Treated { propensity: 0.5, modelled: [0.5, 0.5], ..patient });
    }
    let effect = |patients: &[Treated]| average_effect(patients).unwrap();
    for patients in [&right_outcome, &right_propensity] {
        let e = effect(patients);
        assert!((e.value - 0.2).abs() < 4.0 * e.standard_error, "{e:?}");
    }
    assert!((effect(&neither).value - 0.2).abs() > 10.0 * effect(&neither).standard_error);
}

#[test]
fn bca_agrees_with_its_formula_in_numpy() {
    let Data { u, y, p2, .. } = data();
    let draws: Vec<usize> = (0..24_000).map(|k| (u[k % 2400] * 60.0) as usize).collect();
    let area = |of: &[usize]| {
        let (scores, labels): (Vec<f64>, Vec<bool>) = of.iter().map(|&i| (p2[i], y[i])).unzip();
        auroc(&scores, &labels).unwrap()
    };
    let mut samples: Vec<f64> = draws.chunks(60).map(area).collect();
    let left_out: Vec<f64> = (0..60).map(|k| area(&(0..60).filter(|&i| i != k).collect::<Vec<_>>())).collect();
    let value = area(&(0..60).collect::<Vec<_>>());
    check(value, 0.8157894736842105);
    let (low, high) = crate::bootstrap::bca_interval(value, &mut samples, &left_out, 0.95).unwrap();
    check(low, 0.7022222222222222);
    check(high, 0.880656108597285);
    // Where the value is outside of all samples it is the percentile interval.
    let (low, high) = crate::bootstrap::bca_interval(9.0, &mut [1.0, 2.0, 3.0], &[1.0, 2.0], 0.5).unwrap();
    assert_eq!((low, high), (1.5, 2.5));
    assert_eq!(crate::bootstrap::bca_interval(1.0, &mut [], &[], 0.95), None);
}
