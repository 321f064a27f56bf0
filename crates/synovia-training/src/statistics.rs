//! Statistics of the features, fitted on the train split.

use synovia_cohort::{FeatureKind, Train, View};
use synovia_encoders::FeatureStatistics;

use crate::TrainingError;

#[derive(Clone, Default)]
struct Moments {
    n: f64,
    mean: f64,
    m2: f64,
    m3: f64,
}

impl Moments {
    /// One more value (Pébay 2008, single-pass central moments).
    fn push(&mut self, x: f64) {
        let n0 = self.n;
        self.n += 1.0;
        let delta = x - self.mean;
        let step = delta / self.n;
        let term = delta * step * n0;
        self.mean += step;
        self.m3 += term * step * (self.n - 2.0) - 3.0 * step * self.m2;
        self.m2 += term;
    }

    fn variance(&self) -> f64 {
        if self.n > 1.0 { self.m2 / self.n } else { 0.0 }
    }

    fn skewness(&self) -> f64 {
        if self.m2 > 0.0 { self.n.sqrt() * self.m3 / self.m2.powf(1.5) } else { 0.0 }
    }
}

/// A feature above this skewness is standardised on the log scale if that makes it less skewed.
const SKEWED: f64 = 1.5;

/// Mean, spread and scale of each feature over the train split, in one pass and constant memory.
pub fn fit_statistics(train: &View<'_, Train>) -> Result<FeatureStatistics, TrainingError> {
    let features = &train.manifest().features;
    let mut plain = vec![Moments::default(); features.len()];
    let mut logs = plain.clone();
    let mut smallest = vec![f64::INFINITY; features.len()];
    train.for_each_record(|_, row| {
        for (k, &x) in row.iter().enumerate() {
            if x.is_finite() {
                let x = f64::from(x);
                plain[k].push(x);
                smallest[k] = smallest[k].min(x);
                if x > 0.0 {
                    logs[k].push(x.ln());
                }
            }
        }
    })?;
    let mut out = FeatureStatistics::identity(features.len());
    for (k, feature) in features.iter().enumerate() {
        let positive = smallest[k] > 0.0 && smallest[k].is_finite();
        let skewed = plain[k].skewness() > SKEWED && logs[k].skewness().abs() < plain[k].skewness();
        let log = feature.kind == FeatureKind::Number && positive && skewed;
        let moments = if log { &logs[k] } else { &plain[k] };
        let std = moments.variance().sqrt();
        out.log[k] = f32::from(u8::from(log));
        out.floor[k] = if log { (smallest[k] / 2.0) as f32 } else { 1.0 };
        out.mean[k] = moments.mean as f32;
        out.std[k] = if std > 1e-6 * moments.mean.abs().max(1e-6) { std as f32 } else { 1.0 };
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_agree_with_the_definition() {
        let values = [1.0, 2.0, 2.5, 9.0, -4.0];
        let mut moments = Moments::default();
        for &x in &values {
            moments.push(x);
        }
        let mean = values.iter().sum::<f64>() / 5.0;
        let central = |p| values.iter().map(|x: &f64| (x - mean).powi(p)).sum::<f64>() / 5.0;
        assert!((moments.mean - mean).abs() < 1e-12);
        assert!((moments.variance() - central(2)).abs() < 1e-12);
        assert!((moments.skewness() - central(3) / central(2).powf(1.5)).abs() < 1e-12);
    }
}
