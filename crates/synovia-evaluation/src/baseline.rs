//! The baseline that any record model is held against: logistic regression on the feature table.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::{FittedLogisticRegression, LogisticRegression, MultiFittedLogisticRegression, MultiLogisticRegression};
use ndarray::{Array1, Array2};
use synovia_cohort::{Task, TaskKind};

use crate::EvaluationError;
use crate::panel::n_labels;

/// How the baseline is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogisticOptions {
    /// Weight α of the penalty ½ α |w|² beside the sum of the examples' losses, on scaled features; the intercept is free.
    pub alpha: f64,
    /// Iterations of L-BFGS.
    pub max_iterations: u64,
}

impl Default for LogisticOptions {
    fn default() -> Self {
        Self { alpha: 1.0, max_iterations: 500 }
    }
}

/// One input of a baseline, made of a column of the feature table.
pub(crate) struct Column {
    feature: usize,
    /// What stands for a missing value: the median of the training split.
    median: f64,
    mean: f64,
    deviation: f64,
    /// Of a column with missing values in training: mean and deviation of 1 where missing, else 0.
    missing: Option<(f64, f64)>,
}

enum Fitted {
    Binary(FittedLogisticRegression<f64, usize>),
    Multiclass(MultiFittedLogisticRegression<f64, usize>),
}

/// A logistic regression with its preparation: medians for what is missing, an input that says so, and scaling, all of the
/// training split.
pub struct LogisticBaseline {
    n_features: usize,
    columns: Vec<Column>,
    fitted: Fitted,
}

impl LogisticBaseline {
    /// Fits on the training split; examples without a label are left out, and so are features that do not vary.
    ///
    /// # Shapes
    /// - features: `[n, n_features]`, NaN where missing
    /// - labels: `[n]`, as [`synovia_cohort::ExampleRow::labels`]
    ///
    /// # Errors
    /// When shapes do not fit, a feature is infinite, a label is no class, or a class has no label.
    pub fn fit(
        features: &[f32],
        n_features: usize,
        labels: &[Option<f32>],
        task: &Task,
        options: &LogisticOptions,
    ) -> Result<Self, EvaluationError> {
        let (rows, targets) = labelled(features, n_features, labels, task)?;
        let columns = columns(n_features, &rows);
        let dataset = DatasetBase::new(design(&columns, &rows), Array1::from(targets));
        let fitted = match task.kind {
            TaskKind::Binary => Fitted::Binary(
                LogisticRegression::default()
                    .alpha(options.alpha)
                    .max_iterations(options.max_iterations)
                    .gradient_tolerance(1e-6)
                    .fit(&dataset)?,
            ),
            TaskKind::Multiclass | TaskKind::Ordinal => Fitted::Multiclass(
                MultiLogisticRegression::default()
                    .alpha(options.alpha)
                    .max_iterations(options.max_iterations)
                    .gradient_tolerance(1e-6)
                    .fit(&dataset)?,
            ),
        };
        Ok(Self { n_features, columns, fitted })
    }

    /// Probabilities of a feature table; a row of NaN, a patient without a record, gets what the medians give.
    ///
    /// # Shapes
    /// - features: `[n, n_features]`, NaN where missing
    /// - result: `[n, task.n_outputs()]`
    ///
    /// # Errors
    /// When the length is no multiple of the number of features, or a feature is infinite.
    pub fn probabilities(&self, features: &[f32]) -> Result<Vec<f32>, EvaluationError> {
        let n = features.len().checked_div(self.n_features).unwrap_or_default();
        check_features(features, self.n_features, n)?;
        let rows: Vec<&[f32]> = features.chunks_exact(self.n_features.max(1)).collect();
        let x = design(&self.columns, &rows);
        Ok(match &self.fitted {
            // linfa's probability is that of the label it met more often, which may be 0.
            Fitted::Binary(model) => {
                let of_zero = model.labels().pos.class == 0;
                model.predict_probabilities(&x).iter().map(|&p| if of_zero { 1.0 - p } else { p } as f32).collect()
            }
            Fitted::Multiclass(model) => model.predict_probabilities(&x).iter().map(|&p| p as f32).collect(),
        })
    }
}

/// [`LogisticBaseline::fit`] with default options on the training split, and its probabilities of `test`, `[n, task.n_outputs()]`.
///
/// # Errors
/// As those two.
pub fn logistic_baseline(
    train: &[f32],
    labels: &[Option<f32>],
    test: &[f32],
    n_features: usize,
    task: &Task,
) -> Result<Vec<f32>, EvaluationError> {
    LogisticBaseline::fit(train, n_features, labels, task, &LogisticOptions::default())?.probabilities(test)
}

/// The rows of a feature table that have a label, and their labels: all classes of the task among them.
///
/// # Errors
/// As [`LogisticBaseline::fit`].
pub(crate) fn labelled<'f>(
    features: &'f [f32],
    n_features: usize,
    labels: &[Option<f32>],
    task: &Task,
) -> Result<(Vec<&'f [f32]>, Vec<usize>), EvaluationError> {
    if n_features == 0 {
        return Err(EvaluationError::Option { what: "a baseline needs at least one feature of the record".to_owned() });
    }
    check_features(features, n_features, labels.len())?;
    let mut found = vec![false; n_labels(task)];
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (k, label) in labels.iter().enumerate() {
        let Some(label) = *label else { continue };
        if label.fract() != 0.0 || !(0.0..found.len() as f32).contains(&label) {
            return Err(EvaluationError::Option { what: format!("task `{}`: a label is {label}, which is no class", task.name) });
        }
        found[label as usize] = true;
        rows.push(&features[k * n_features..(k + 1) * n_features]);
        targets.push(label as usize);
    }
    let n_found = found.iter().filter(|&&f| f).count();
    if n_found < found.len() {
        return Err(EvaluationError::Classes { task: task.name.clone(), found: n_found, expected: found.len() });
    }
    Ok((rows, targets))
}

/// Inputs made of the features that tell something.
pub(crate) fn columns(n_features: usize, rows: &[&[f32]]) -> Vec<Column> {
    (0..n_features).filter_map(|feature| Column::fit(feature, rows)).collect()
}

impl Column {
    /// `None` for a feature that tells nothing: always missing, or always the same and never missing.
    fn fit(feature: usize, rows: &[&[f32]]) -> Option<Self> {
        let mut known: Vec<f64> = rows.iter().map(|row| f64::from(row[feature])).filter(|x| !x.is_nan()).collect();
        known.sort_unstable_by(f64::total_cmp);
        let median = match known.len() {
            0 => return None,
            n if n % 2 == 1 => known[n / 2],
            n => 0.5 * (known[n / 2 - 1] + known[n / 2]),
        };
        let (mean, deviation) = moments(rows.iter().map(|row| impute(row[feature], median)), rows.len());
        let absent = moments(rows.iter().map(|row| f64::from(u8::from(row[feature].is_nan()))), rows.len());
        let missing = (absent.1 > 0.0).then_some(absent);
        if deviation == 0.0 && missing.is_none() {
            return None;
        }
        Some(Self { feature, median, mean, deviation, missing })
    }
}

fn impute(x: f32, median: f64) -> f64 {
    if x.is_nan() { median } else { f64::from(x) }
}

/// Mean and deviation; a deviation that is only rounding counts as none.
fn moments(values: impl Iterator<Item = f64> + Clone, n: usize) -> (f64, f64) {
    let mean = values.clone().sum::<f64>() / n as f64;
    let deviation = (values.map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
    (mean, if deviation > 1e-9 * mean.abs() { deviation } else { 0.0 })
}

pub(crate) fn design(columns: &[Column], rows: &[&[f32]]) -> Array2<f64> {
    let width = columns.iter().map(|c| 1 + usize::from(c.missing.is_some())).sum();
    let mut x = Array2::zeros((rows.len(), width));
    for (mut to, row) in x.rows_mut().into_iter().zip(rows) {
        let mut k = 0;
        for column in columns {
            if column.deviation > 0.0 {
                to[k] = (impute(row[column.feature], column.median) - column.mean) / column.deviation;
            }
            k += 1;
            if let Some((mean, deviation)) = column.missing {
                to[k] = (f64::from(u8::from(row[column.feature].is_nan())) - mean) / deviation;
                k += 1;
            }
        }
    }
    x
}

pub(crate) fn check_features(features: &[f32], n_features: usize, n: usize) -> Result<(), EvaluationError> {
    if features.len() != n * n_features {
        return Err(EvaluationError::Shape { what: "features", len: features.len(), expected: n * n_features });
    }
    match features.iter().position(|x| x.is_infinite()) {
        Some(position) => Err(EvaluationError::NotFinite { what: "features", position }),
        None => Ok(()),
    }
}
