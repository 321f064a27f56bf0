//! How well endpoints are estimated: numbers, times to events, outcomes under treatments, with intervals by a bootstrap of patients.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use synovia_cohort::{Endpoint, EndpointKind, EndpointValue, ExampleId, Split};

use crate::bootstrap::{Weight, percentile_interval, resample};
use crate::gain::{VERDICT, signed};
use crate::{
    Estimate, EvaluationOptions, KaplanMeier, Observed, Treated, Variant, Verdict, auroc, average_effect, integrated_survival_brier,
    policy_value, regression, time_dependent_auroc, uno_concordance,
};

/// What one variant said of an example's endpoint, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointEstimate {
    /// Which example.
    pub example: ExampleId,
    /// Its patient's pseudonym.
    pub patient: Arc<str>,
    /// The example's split.
    pub split: Split,
    /// Which model.
    pub variant: Variant,
    /// The endpoint's two numbers, where they are known.
    pub known: Option<EndpointValue>,
    /// A value for each of [`EndpointFold::quantities`].
    pub values: Vec<f32>,
}

/// All that was said of an endpoint in one fold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointFold {
    /// What the values are.
    pub quantities: Vec<String>,
    /// Days at which survival is told; empty of other endpoints.
    pub edges: Vec<f64>,
    /// Of all splits and variants.
    pub estimates: Vec<EndpointEstimate>,
}

/// What is measured of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointMeasure {
    /// Root of the mean squared error, in the endpoint's unit.
    RootMeanSquaredError,
    /// Mean absolute error, in the endpoint's unit.
    MeanAbsoluteError,
    /// 1 − Σ (y − ŷ)² / Σ (y − ȳ)².
    R2,
    /// Spearman's rank correlation.
    Spearman,
    /// Uno's C up to the last edge but one.
    Concordance,
    /// Mean over time of the AUROC of who has had the event by then.
    TimeDependentAuroc,
    /// Integrated Brier score.
    IntegratedBrier,
    /// Root of the mean squared error of the outcome under the treatment that was given.
    OutcomeError,
    /// AUROC of that outcome, where it is yes or no.
    OutcomeAuroc,
    /// AUROC of which treatment was given.
    PropensityAuroc,
    /// Share of the examples whose chance of the second treatment is between [`OVERLAP`] and 1 less that.
    Overlap,
    /// Mean effect of the second treatment instead of the first, doubly robust.
    AverageEffect,
    /// Mean outcome if each were given what the model thinks better, doubly robust.
    PolicyValue,
    /// Mean outcome if all were given the first treatment, doubly robust.
    ValueOfFirst,
    /// Mean outcome if all were given the second treatment, doubly robust.
    ValueOfSecond,
    /// Share of the examples to whom the model would give the second treatment.
    ShareOfSecond,
}

/// A chance of a treatment below which hardly anybody like the example was given it.
pub const OVERLAP: f64 = 0.05;
/// Chances are taken to be at least this, so that no example counts for more than a hundred.
const LEAST_CHANCE: f64 = 0.01;
/// Share of examples without overlap from which on it is warned of.
const MUCH: f64 = 0.05;
/// Bootstrap samples at most: some measures look at each pair of examples.
const MOST_SAMPLES: usize = 500;

impl EndpointMeasure {
    /// Those of a kind of endpoint; the first is what models are compared by.
    pub const fn of(kind: EndpointKind) -> &'static [Self] {
        match kind {
            EndpointKind::Regression => &[Self::RootMeanSquaredError, Self::MeanAbsoluteError, Self::R2, Self::Spearman],
            EndpointKind::Survival => &[Self::Concordance, Self::TimeDependentAuroc, Self::IntegratedBrier],
            EndpointKind::Treatment { .. } => &[
                Self::OutcomeError,
                Self::OutcomeAuroc,
                Self::PropensityAuroc,
                Self::Overlap,
                Self::AverageEffect,
                Self::PolicyValue,
                Self::ValueOfFirst,
                Self::ValueOfSecond,
                Self::ShareOfSecond,
            ],
        }
    }

    /// Whether more of it is better.
    const fn rises(self) -> bool {
        !matches!(self, Self::RootMeanSquaredError | Self::MeanAbsoluteError | Self::IntegratedBrier | Self::OutcomeError)
    }

    /// In words for a reader of the report.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::RootMeanSquaredError => "root mean squared error",
            Self::MeanAbsoluteError => "mean absolute error",
            Self::R2 => "R²",
            Self::Spearman => "Spearman’s correlation",
            Self::Concordance => "concordance (Uno’s C)",
            Self::TimeDependentAuroc => "AUROC over time",
            Self::IntegratedBrier => "integrated Brier score",
            Self::OutcomeError => "root mean squared error of the outcome",
            Self::OutcomeAuroc => "AUROC of the outcome",
            Self::PropensityAuroc => "AUROC of which treatment",
            Self::Overlap => "share with overlap",
            Self::AverageEffect => "average effect",
            Self::PolicyValue => "value of the model’s choice",
            Self::ValueOfFirst => "value of the first for all",
            Self::ValueOfSecond => "value of the second for all",
            Self::ShareOfSecond => "share given the second",
        }
    }
}

/// All of one endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointMetrics {
    /// What kind.
    pub kind: EndpointKind,
    /// Test examples whose numbers are known.
    pub n: usize,
    /// Those with the event, or given the second treatment; `None` of regression.
    pub n_second: Option<usize>,
    /// Patients that they are of.
    pub n_patients: usize,
    /// Test examples left out since their numbers are not known.
    pub n_unknown: usize,
    /// Folds that measures are means over; 1 without cross-validation.
    pub n_folds: usize,
    /// By variant.
    pub variants: BTreeMap<Variant, BTreeMap<EndpointMeasure, Estimate>>,
    /// Joint against the better single modality; `None` when one of them is not there.
    pub gain: Option<EndpointGain>,
    /// What a reader must know to read the numbers right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The paired difference joint − another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointGain {
    /// The single modality that was the better one on the validation split.
    pub over: Variant,
    /// What the difference is of.
    pub measure: EndpointMeasure,
    /// Joint − other.
    pub difference: Option<f64>,
    /// Lower end of the interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// By whether the interval at 99 % holds 0.
    pub verdict: Verdict,
    /// In a sentence, with the numbers.
    pub sentence: String,
}

/// The labelled examples of a split in one fold, laid out by example.
struct Laid<'a> {
    kind: EndpointKind,
    edges: &'a [f64],
    censoring: Option<KaplanMeier>,
    /// Place among all patients, the numbers, and what each variant said.
    examples: Vec<(usize, EndpointValue, BTreeMap<Variant, &'a [f32]>)>,
}

/// Measures each endpoint on the test split; `folds` are those of one endpoint.
///
/// # Shapes
/// - endpoints, folds: `[n_endpoints]`, `[n_endpoints][n_folds]`
pub fn evaluate_endpoints(
    endpoints: &[Endpoint],
    folds: &[Vec<EndpointFold>],
    options: &EvaluationOptions,
) -> BTreeMap<String, EndpointMetrics> {
    endpoints.iter().zip(folds).map(|(endpoint, folds)| (endpoint.name.clone(), evaluate_one(endpoint.kind, folds, options))).collect()
}

fn evaluate_one(kind: EndpointKind, folds: &[EndpointFold], options: &EvaluationOptions) -> EndpointMetrics {
    let (test, patients_by_fold, n_unknown) = lay_out(kind, folds, Split::Test);
    let measures = EndpointMeasure::of(kind);
    let mut variants: Vec<Variant> =
        test.iter().flat_map(|fold| fold.examples.iter().flat_map(|(.., said)| said.keys().copied())).collect();
    variants.sort_unstable();
    variants.dedup();
    let once = vec![1; patients_by_fold.iter().sum()];
    let measure = |weights: &[Weight]| variants.iter().map(|variant| mean_over_folds(&test, *variant, weights)).collect::<Vec<_>>();
    let values = measure(&once);
    let n_samples = options.n_bootstrap.min(MOST_SAMPLES);
    let samples = resample(&patients_by_fold, n_samples, options.seed, measure);
    let interval = |of: &dyn Fn(&Vec<Vec<Option<f64>>>) -> Option<f64>, level: f64| {
        let mut drawn: Vec<f64> = samples.iter().filter_map(of).filter(|x| x.is_finite()).collect();
        if drawn.len() * 2 < n_samples.max(1) { None } else { percentile_interval(&mut drawn, level) }
    };
    let estimates = |v: usize| {
        let of_measure = |(m, measure): (usize, &EndpointMeasure)| {
            let value = values[v][m]?;
            let interval = interval(&|sample| sample[v][m], options.level);
            Some((*measure, Estimate { value: Some(value), low: interval.map(|i| i.0), high: interval.map(|i| i.1), note: None }))
        };
        measures.iter().enumerate().filter_map(of_measure).collect()
    };
    let gain = || {
        if !variants.contains(&Variant::Joint) {
            return None;
        }
        let (validation, of_folds, _) = lay_out(kind, folds, Split::Validation);
        let of_validation = vec![1; of_folds.iter().sum()];
        let sign = if measures[0].rises() { 1.0 } else { -1.0 };
        let single: Vec<Variant> = [Variant::Image, Variant::Record].into_iter().filter(|variant| variants.contains(variant)).collect();
        let best = |of: &[Laid<'_>], weights: &[Weight]| {
            let of_single = single.iter().filter_map(|variant| Some((mean_over_folds(of, *variant, weights)[0]?, *variant)));
            of_single.max_by(|a, b| (sign * a.0).total_cmp(&(sign * b.0))).map(|(_, variant)| variant)
        };
        // Chosen on test, what the joint model is held against is favoured.
        let over = best(&validation, &of_validation).or_else(|| best(&test, &once))?;
        // On the examples that both predicted, fold by fold.
        let paired = |weights: &[Weight]| -> Option<f64> {
            let of_fold =
                |fold: &Laid<'_>| Some(fold.measures(Variant::Joint, over, weights)[0]? - fold.measures(over, Variant::Joint, weights)[0]?);
            let each: Vec<f64> = test.iter().filter_map(of_fold).collect();
            (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
        };
        let drawn: Vec<f64> = resample(&patients_by_fold, n_samples, options.seed, paired).into_iter().flatten().collect();
        let within = |level| if drawn.len() * 2 < n_samples.max(1) { None } else { percentile_interval(&mut drawn.clone(), level) };
        let (shown, sure) = (within(options.level), within(1.0 - VERDICT));
        let verdict = match sure {
            Some((low, high)) if sign * low > 0.0 && sign * high > 0.0 => Verdict::Better,
            Some((low, high)) if sign * low < 0.0 && sign * high < 0.0 => Verdict::Worse,
            _ => Verdict::NoEvidence,
        };
        let (low, high) = (shown.map(|i| i.0), shown.map(|i| i.1));
        let (measure, difference) = (measures[0], paired(&once));
        let sentence = sentence(verdict, over, measure, difference, shown, options.level);
        Some(EndpointGain { over, measure, difference, low, high, verdict, sentence })
    };
    let n: usize = test.iter().map(|fold| fold.examples.len()).sum();
    let second = test.iter().flat_map(|fold| &fold.examples).filter(|(_, [_, second], _)| *second > 0.0).count();
    let mut metrics = EndpointMetrics {
        kind,
        n,
        n_second: (kind != EndpointKind::Regression).then_some(second),
        n_patients: once.len(),
        n_unknown,
        n_folds: folds.len(),
        variants: variants.iter().enumerate().map(|(v, variant)| (*variant, estimates(v))).collect(),
        gain: gain(),
        notes: Vec::new(),
    };
    metrics.notes = notes(&metrics);
    metrics
}

fn sentence(
    verdict: Verdict,
    over: Variant,
    measure: EndpointMeasure,
    difference: Option<f64>,
    interval: Option<(f64, f64)>,
    level: f64,
) -> String {
    let against = match verdict {
        Verdict::Better => "The joint model is better than",
        Verdict::Worse => "The joint model is worse than",
        Verdict::NoEvidence => "There is no evidence of gain over",
    };
    let measure = measure.describe();
    match (difference, interval) {
        (Some(d), Some((low, high))) => format!(
            "{against} the {over} alone: {measure} differs by {} ({:.0} % interval {} to {}{}).",
            signed(d),
            level * 100.0,
            signed(low),
            signed(high),
            if verdict == Verdict::NoEvidence && (low > 0.0 || high < 0.0) {
                format!("; it takes the interval at {:.0} %, since trainings differ too", (1.0 - VERDICT) * 100.0)
            } else {
                String::new()
            }
        ),
        _ => format!("{against} the {over} alone: the difference can’t be measured."),
    }
}

fn notes(metrics: &EndpointMetrics) -> Vec<String> {
    let mut notes = Vec::new();
    if matches!(metrics.kind, EndpointKind::Treatment { .. }) {
        notes.push(
            "effects are causal only if, among patients with the same image and record, which treatment was given had nothing to do with the outcome otherwise"
                .to_owned(),
        );
        let outside = metrics.variants.values().next().and_then(|of| of.get(&EndpointMeasure::Overlap)?.value).map(|share| 1.0 - share);
        if let Some(outside) = outside.filter(|outside| *outside > MUCH) {
            notes.push(format!(
                "{:.0} % of the examples are of a kind that was hardly ever given one of the treatments (a chance under {OVERLAP}): of them the effect is a guess",
                outside * 100.0
            ));
        }
    }
    if metrics.n_folds > 1 {
        notes.push("measures are means over the folds, of which each has a model of its own".to_owned());
    }
    notes
}

/// The labelled examples of a split, with the number of patients of each fold and of examples that are not labelled.
fn lay_out(kind: EndpointKind, folds: &[EndpointFold], split: Split) -> (Vec<Laid<'_>>, Vec<usize>, usize) {
    let (mut laid, mut patients_by_fold, mut n_unknown, mut n_before) = (Vec::new(), Vec::new(), 0, 0);
    for fold in folds {
        let mut by_example: BTreeMap<&ExampleId, (&EndpointEstimate, BTreeMap<Variant, &[f32]>)> = BTreeMap::new();
        for estimate in fold.estimates.iter().filter(|estimate| estimate.split == split) {
            let entry = by_example.entry(&estimate.example).or_insert_with(|| (estimate, BTreeMap::new()));
            entry.1.insert(estimate.variant, &estimate.values);
        }
        let known = |(estimate, _): &&(&EndpointEstimate, BTreeMap<Variant, &[f32]>)| estimate.known.is_some();
        let mut patients: Vec<&str> = by_example.values().filter(known).map(|(estimate, _)| &*estimate.patient).collect();
        patients.sort_unstable();
        patients.dedup();
        n_unknown += by_example.values().filter(|(estimate, _)| estimate.known.is_none()).count();
        let place = |patient: &str| n_before + patients.binary_search(&patient).unwrap_or_default();
        let examples = by_example.values().filter_map(|(e, said)| Some((place(&e.patient), e.known?, said.clone()))).collect();
        let censoring = (kind == EndpointKind::Survival).then(|| {
            let of_train: BTreeMap<&ExampleId, EndpointValue> = (fold.estimates.iter())
                .filter(|estimate| estimate.split == Split::Train)
                .filter_map(|estimate| Some((&estimate.example, estimate.known?)))
                .collect();
            KaplanMeier::of_censoring(&of_train.into_values().map(observed).collect::<Vec<_>>())
        });
        laid.push(Laid { kind, edges: &fold.edges, censoring, examples });
        n_before += patients.len();
        patients_by_fold.push(patients.len());
    }
    (laid, patients_by_fold, n_unknown)
}

fn observed([days, event]: EndpointValue) -> Observed {
    Observed { time: f64::from(days), event: event > 0.0 }
}

/// Each measure of a variant, the mean over the folds that have it.
fn mean_over_folds(folds: &[Laid<'_>], variant: Variant, weights: &[Weight]) -> Vec<Option<f64>> {
    let of_folds: Vec<Vec<Option<f64>>> = folds.iter().map(|fold| fold.measures(variant, variant, weights)).collect();
    let n = EndpointMeasure::of(folds.first().map_or(EndpointKind::Regression, |fold| fold.kind)).len();
    (0..n)
        .map(|m| {
            let known: Vec<f64> = of_folds.iter().filter_map(|of_fold| of_fold[m]).collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        })
        .collect()
}

impl Laid<'_> {
    /// Each measure of a variant, on the examples that `beside` predicted too.
    fn measures(&self, variant: Variant, beside: Variant, weights: &[Weight]) -> Vec<Option<f64>> {
        let mut drawn: Vec<(EndpointValue, &[f32])> = Vec::new();
        for (patient, known, said) in &self.examples {
            if let Some(values) = said.get(&variant).filter(|_| said.contains_key(&beside)) {
                drawn.extend(std::iter::repeat_n((*known, *values), usize::from(weights[*patient])));
            }
        }
        match self.kind {
            EndpointKind::Regression => of_numbers(&drawn),
            EndpointKind::Survival => self.of_times(&drawn),
            EndpointKind::Treatment { binary, lower_is_better } => of_treatments(&drawn, binary, lower_is_better),
        }
    }

    fn of_times(&self, drawn: &[(EndpointValue, &[f32])]) -> Vec<Option<f64>> {
        let known: Vec<Observed> = drawn.iter().map(|(known, _)| observed(*known)).collect();
        // The last edge is where watching ends: nobody is seen after it.
        let times = &self.edges[..self.edges.len().saturating_sub(1)];
        let risk: Vec<f64> = drawn.iter().map(|(_, values)| -values.iter().map(|x| f64::from(*x)).sum::<f64>()).collect();
        let Some(censoring) = &self.censoring else { return vec![None; 3] };
        // Whoever has the event after all of the times is a control at each, and has no weight that could be infinite.
        let is_early = |o: &Observed| times.last().is_some_and(|last| o.time <= *last);
        let early: Vec<Observed> = known.iter().map(|o| Observed { event: o.event && is_early(o), ..*o }).collect();
        let survival = |k: usize| drawn.iter().map(|(_, values)| f64::from(values[k])).collect::<Vec<f64>>();
        vec![
            uno_concordance(censoring, &known, &risk, times.last().copied()),
            time_dependent_auroc(censoring, &early, &risk, times).and_then(|auroc| auroc.mean),
            integrated_survival_brier(censoring, &known, &(0..times.len()).map(survival).collect::<Vec<_>>(), times),
        ]
    }
}

fn of_numbers(drawn: &[(EndpointValue, &[f32])]) -> Vec<Option<f64>> {
    let truth: Vec<f64> = drawn.iter().map(|([y, _], _)| f64::from(*y)).collect();
    let said: Vec<f64> = drawn.iter().map(|(_, values)| f64::from(values[0])).collect();
    let Some(found) = regression(&truth, &said) else { return vec![None; 4] };
    vec![Some(found.root_mean_squared_error), Some(found.mean_absolute_error), found.r2, found.spearman]
}

fn of_treatments(drawn: &[(EndpointValue, &[f32])], binary: bool, lower_is_better: bool) -> Vec<Option<f64>> {
    let patients: Vec<Treated> = (drawn.iter())
        .map(|([outcome, second], values)| Treated {
            outcome: f64::from(*outcome),
            treated: *second > 0.0,
            propensity: f64::from(values[3]).clamp(LEAST_CHANCE, 1.0 - LEAST_CHANCE),
            modelled: [f64::from(values[0]), f64::from(values[1])],
        })
        .collect();
    let n = patients.len() as f64;
    let factual: Vec<f64> = patients.iter().map(|p| p.modelled[usize::from(p.treated)]).collect();
    let squares: f64 = patients.iter().zip(&factual).map(|(p, said)| (p.outcome - said).powi(2)).sum();
    let second: Vec<bool> = patients.iter().map(|p| p.treated).collect();
    let good: Vec<bool> = patients.iter().map(|p| p.outcome > 0.5).collect();
    let propensity: Vec<f64> = drawn.iter().map(|(_, values)| f64::from(values[3])).collect();
    let policy: Vec<bool> =
        patients.iter().map(|p| (p.modelled[1] < p.modelled[0]) == lower_is_better && p.modelled[1] != p.modelled[0]).collect();
    let share = |of: &dyn Fn(usize) -> bool| (n > 0.0).then(|| (0..patients.len()).filter(|k| of(*k)).count() as f64 / n);
    let value = |policy: &[bool]| policy_value(&patients, policy).map(|value| value.value);
    vec![
        (n > 0.0).then(|| (squares / n).sqrt()),
        if binary { auroc(&factual, &good) } else { None },
        auroc(&propensity, &second),
        share(&|k| propensity[k] >= OVERLAP && propensity[k] <= 1.0 - OVERLAP),
        average_effect(&patients).map(|effect| effect.value),
        value(&policy),
        value(&vec![false; patients.len()]),
        value(&vec![true; patients.len()]),
        share(&|k| policy[k]),
    ]
}
