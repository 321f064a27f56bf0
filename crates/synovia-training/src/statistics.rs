//! Statistics of the features, fitted on the train split, of one place or of several together.

use serde::{Deserialize, Serialize};
use synovia_cohort::{FeatureKind, FeatureSpec, Train, View};
use synovia_encoders::FeatureStatistics;

use crate::TrainingError;

/// Number, mean and sums of squared and cubed distances from the mean.
///
/// They are written as texts: as numbers of JSON they would not always come back to the last bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "[String; 4]", try_from = "[String; 4]")]
pub struct Moments {
    n: f64,
    mean: f64,
    m2: f64,
    m3: f64,
}

impl From<Moments> for [String; 4] {
    fn from(Moments { n, mean, m2, m3 }: Moments) -> Self {
        [n, mean, m2, m3].map(|x| format!("{x:?}"))
    }
}

impl TryFrom<[String; 4]> for Moments {
    type Error = std::num::ParseFloatError;

    fn try_from([n, mean, m2, m3]: [String; 4]) -> Result<Self, Self::Error> {
        Ok(Self { n: n.parse()?, mean: mean.parse()?, m2: m2.parse()?, m3: m3.parse()? })
    }
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

    /// Those of both together (Pébay 2008, equations 2.1 and 2.2); with none, the other's own bits.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        if self.n == 0.0 || other.n == 0.0 {
            return if self.n == 0.0 { other } else { self };
        }
        let n = self.n + other.n;
        let delta = other.mean - self.mean;
        let product = self.n * other.n / n;
        Self {
            n,
            mean: self.mean + delta * other.n / n,
            m2: self.m2 + other.m2 + delta * delta * product,
            m3: self.m3
                + other.m3
                + delta.powi(3) * product * (self.n - other.n) / n
                + 3.0 * delta * (self.n * other.m2 - other.n * self.m2) / n,
        }
    }

    /// Number of values.
    pub fn n(&self) -> f64 {
        self.n
    }

    fn variance(&self) -> f64 {
        if self.n > 1.0 { self.m2 / self.n } else { 0.0 }
    }

    fn skewness(&self) -> f64 {
        if self.m2 > 0.0 { self.n.sqrt() * self.m3 / self.m2.powf(1.5) } else { 0.0 }
    }
}

/// What one place says of a feature: no value of anybody, but sums over all of its training examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FeatureMoments {
    /// Of the values.
    pub values: Moments,
    /// Of the logarithms of those above 0.
    pub logs: Moments,
    /// Binary exponent of the smallest value above 0: the largest `e` with 2ᵉ not above it.
    pub exponent: Option<i32>,
}

impl FeatureMoments {
    /// Those of each feature over the train split, in one pass and constant memory.
    ///
    /// # Errors
    /// [`TrainingError::Store`] when the cohort can't be read.
    pub fn of(train: &View<'_, Train>) -> Result<Vec<Self>, TrainingError> {
        let mut all = vec![Self::default(); train.manifest().features.len()];
        train.for_each_record(|_, row| {
            all.iter_mut().zip(row).filter(|(_, x)| x.is_finite()).for_each(|(moments, &x)| moments.push(f64::from(x)));
        })?;
        Ok(all)
    }

    fn push(&mut self, x: f64) {
        self.values.push(x);
        if x > 0.0 {
            self.logs.push(x.ln());
            // Of a number that was an f32 and is above 0, the bits of an f64 have it: none of them is subnormal.
            let exponent = (x.to_bits() >> 52) as i32 - 1023;
            self.exponent = Some(self.exponent.map_or(exponent, |least| least.min(exponent)));
        }
    }

    /// Those of both places together.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        Self {
            values: self.values.merged(other.values),
            logs: self.logs.merged(other.logs),
            exponent: self.exponent.into_iter().chain(other.exponent).min(),
        }
    }
}

/// A feature above this skewness is standardised on the log scale if that makes it less skewed.
const SKEWED: f64 = 1.5;

/// Mean, spread and scale of each feature over the train split.
pub fn fit_statistics(train: &View<'_, Train>) -> Result<FeatureStatistics, TrainingError> {
    Ok(statistics_of(&train.manifest().features, &FeatureMoments::of(train)?))
}

/// Mean, spread and scale of each feature, from its moments.
///
/// # Shapes
/// - moments: one a feature
pub fn statistics_of(features: &[FeatureSpec], moments: &[FeatureMoments]) -> FeatureStatistics {
    let mut out = FeatureStatistics::identity(features.len());
    for (k, (feature, FeatureMoments { values, logs, exponent })) in features.iter().zip(moments).enumerate() {
        let positive = values.n > 0.0 && logs.n == values.n;
        let skewed = values.skewness() > SKEWED && logs.skewness().abs() < values.skewness();
        let log = feature.kind == FeatureKind::Number && positive && skewed;
        let moments = if log { logs } else { values };
        let std = moments.variance().sqrt();
        out.log[k] = f32::from(u8::from(log));
        out.floor[k] = match exponent {
            Some(exponent) if log => (2f64.powi(exponent - 1) as f32).max(f32::MIN_POSITIVE),
            _ => 1.0,
        };
        out.mean[k] = moments.mean as f32;
        out.std[k] = if std > 1e-6 * moments.mean.abs().max(1e-6) { std as f32 } else { 1.0 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f64; 5] = [1.0, 2.0, 2.5, 9.0, -4.0];

    #[track_caller]
    fn check(moments: Moments) {
        let mean = VALUES.iter().sum::<f64>() / 5.0;
        let central = |p| VALUES.iter().map(|x: &f64| (x - mean).powi(p)).sum::<f64>() / 5.0;
        assert!((moments.mean - mean).abs() < 1e-12);
        assert!((moments.variance() - central(2)).abs() < 1e-12);
        assert!((moments.skewness() - central(3) / central(2).powf(1.5)).abs() < 1e-12);
    }

    fn of(values: &[f64]) -> FeatureMoments {
        let mut moments = FeatureMoments::default();
        values.iter().for_each(|&x| moments.push(x));
        moments
    }

    #[test]
    fn moments_agree_with_the_definition() {
        check(of(&VALUES).values);
    }

    #[test]
    fn moments_of_several_places_are_those_of_all() {
        for cut in 0..=VALUES.len() {
            check(of(&VALUES[..cut]).merged(of(&VALUES[cut..])).values);
        }
        let (alone, none) = (of(&VALUES), FeatureMoments::default());
        assert!(alone.merged(none) == alone && none.merged(alone) == alone, "one place is itself, bit for bit");
        let text = serde_json::to_string(&of(&[0.1, 0.2, 0.7])).unwrap();
        assert_eq!(serde_json::from_str::<FeatureMoments>(&text).unwrap(), of(&[0.1, 0.2, 0.7]), "and through a file");
    }

    #[test]
    fn the_floor_tells_no_value() {
        for (smallest, exponent) in [(1.0, 0), (1.99, 0), (0.3, -2), (8.0, 3), (f64::from(f32::MIN_POSITIVE) / 2.0, -127)] {
            assert_eq!(of(&[100.0, smallest, 0.0, -3.0]).exponent, Some(exponent), "{smallest}");
        }
        let feature = FeatureSpec { name: "x".into(), kind: FeatureKind::Number, code: String::new(), unit: String::new() };
        let skewed: Vec<f64> = (0..100).map(|k| f64::from(k).mul_add(0.1, -1.0).exp()).collect();
        let statistics = statistics_of(&[feature], &[of(&skewed)]);
        // The smallest is e⁻¹ = 0.368, between 2⁻² and 2⁻¹.
        assert_eq!((statistics.log[0], statistics.floor[0]), (1.0, 0.125));
    }
}
