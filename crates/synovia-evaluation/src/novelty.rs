//! How unlike the examples of the training a new one is: Mahalanobis' distance of its embedding (Lee et al. 2018), as a conformal p.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::panel::ModalityPattern;

/// Examples of the validation split whose distances are kept, at most: evenly over their order.
const MOST_KEPT: usize = 1000;
/// p at which an example is called novel: of ordinary ones no more than this share is.
pub const NOVEL: f64 = 0.01;

/// Where the training's embeddings lie, for each set of modalities that an example may have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoveltyScore {
    /// A part each.
    pub patterns: Vec<NoveltyPattern>,
}

/// Where embeddings of one set of modalities lie: a normal distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoveltyPattern {
    /// Which modalities the model saw.
    pub pattern: ModalityPattern,
    /// Training examples that it is of.
    pub n: usize,
    /// Their mean; shape `[d]`.
    #[serde(serialize_with = "packed", deserialize_with = "unpacked")]
    mean: Vec<f32>,
    /// W with Wᵀ W the inverse of their covariance, lower triangle row by row; shape `[d (d + 1) / 2]`.
    #[serde(serialize_with = "packed", deserialize_with = "unpacked")]
    whitening: Vec<f32>,
    /// Distances of validation examples, rising.
    #[serde(serialize_with = "packed", deserialize_with = "unpacked")]
    distances: Vec<f32>,
}

/// How unlike the training an example is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Novelty {
    /// Mahalanobis' distance: in standard deviations of the training's embeddings, over all directions.
    pub distance: f64,
    /// Share of validation examples that are at least as far, counting this one: under 1 / (their number + 1) it can't be.
    pub p: f64,
    /// Whether p is no more than [`NOVEL`].
    pub is_novel: bool,
}

impl NoveltyScore {
    /// Of an embedding; `None` for modalities that it was not fitted for, or an embedding of another width.
    ///
    /// # Shapes
    /// - embedding: `[d]`
    pub fn of(&self, embedding: &[f32], pattern: ModalityPattern) -> Option<Novelty> {
        let of_pattern = self.patterns.iter().find(|p| p.pattern == pattern)?;
        let d = of_pattern.mean.len();
        if d != embedding.len() || of_pattern.whitening.len() != d * (d + 1) / 2 {
            return None;
        }
        let distance = of_pattern.distance(embedding);
        // As exactly as the others are kept: an example is as far as itself.
        let n = of_pattern.distances.len();
        // What is no number is like nothing that was seen.
        let nearer = if distance.is_finite() { of_pattern.distances.partition_point(|&known| known < distance as f32) } else { n };
        let p = (n - nearer + 1) as f64 / (n + 1) as f64;
        Some(Novelty { distance, p, is_novel: p <= NOVEL })
    }
}

impl NoveltyPattern {
    /// Of the embeddings of training examples, and of validation examples that distances are held against. The covariance is drawn
    /// towards a multiple of the identity as Ledoit & Wolf (2004) have it, so that it can be inverted however few examples there are.
    /// `None` of fewer than two training examples, of embeddings that are all alike, or of so few validation examples that none could be
    /// called novel.
    ///
    /// # Shapes
    /// - train, validation: `[n][d]`
    pub fn fit(pattern: ModalityPattern, train: &[Vec<f32>], validation: &[Vec<f32>]) -> Option<Self> {
        let (n, d) = (train.len(), train.first()?.len());
        if n < 2
            || d == 0
            || ((validation.len() + 1) as f64) < 1.0 / NOVEL
            || train.iter().chain(validation).any(|row| row.len() != d || row.iter().any(|v| !v.is_finite()))
        {
            return None;
        }
        let mut mean = vec![0.0; d];
        train.iter().for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, &value)| *mean += f64::from(value) / n as f64));
        let mut factor = shrunk_covariance(train, &mean)?;
        cholesky(&mut factor, d)?;
        let mut fitted = Self {
            pattern,
            n,
            mean: mean.iter().map(|&value| value as f32).collect(),
            whitening: inverse_of_triangle(&factor, d).into_iter().map(|value| value as f32).collect(),
            distances: Vec::new(),
        };
        let mut distances: Vec<f32> = validation.iter().map(|row| fitted.distance(row) as f32).collect();
        distances.sort_by(f32::total_cmp);
        let kept = distances.len().min(MOST_KEPT);
        fitted.distances = (0..kept).map(|k| distances[(2 * k + 1) * distances.len() / (2 * kept)]).collect();
        Some(fitted)
    }

    fn distance(&self, embedding: &[f32]) -> f64 {
        let away: Vec<f64> = embedding.iter().zip(&self.mean).map(|(&value, &mean)| f64::from(value) - f64::from(mean)).collect();
        let mut rows = self.whitening.as_slice();
        let mut sum = 0.0;
        for k in 0..away.len() {
            let (row, rest) = rows.split_at(k + 1);
            sum += row.iter().zip(&away).map(|(&w, a)| f64::from(w) * a).sum::<f64>().powi(2);
            rows = rest;
        }
        sum.sqrt()
    }
}

/// The covariance, drawn towards the identity; the lower triangle, row by row. `None` where nothing varies.
fn shrunk_covariance(rows: &[Vec<f32>], mean: &[f64]) -> Option<Vec<f64>> {
    let (n, d) = (rows.len() as f64, mean.len());
    let mut covariance = vec![0.0; d * (d + 1) / 2];
    let (mut away, mut fourth) = (vec![0.0; d], 0.0);
    for row in rows {
        away.iter_mut().zip(row).zip(mean).for_each(|((away, &value), mean)| *away = f64::from(value) - mean);
        fourth += away.iter().map(|a| a * a).sum::<f64>().powi(2) / n;
        let mut to = covariance.iter_mut();
        for i in 0..d {
            for j in 0..=i {
                if let Some(to) = to.next() {
                    *to += away[i] * away[j] / n;
                }
            }
        }
    }
    let diagonal = |i: usize| i * (i + 1) / 2 + i;
    let mean_variance = (0..d).map(|i| covariance[diagonal(i)]).sum::<f64>() / d as f64;
    if mean_variance <= 0.0 {
        return None;
    }
    // Each entry off the diagonal stands for two.
    let all: f64 = covariance.iter().map(|c| c * c).sum();
    let squares = 2.0 * all - (0..d).map(|i| covariance[diagonal(i)].powi(2)).sum::<f64>();
    // How far the covariance is from a multiple of the identity, and how much of that is chance.
    let far = squares - d as f64 * mean_variance * mean_variance;
    let chance = ((fourth - squares) / n).clamp(0.0, far.max(0.0));
    let shrinkage = if far > 0.0 { chance / far } else { 1.0 };
    covariance.iter_mut().for_each(|c| *c *= 1.0 - shrinkage);
    (0..d).for_each(|i| covariance[diagonal(i)] += shrinkage * mean_variance);
    Some(covariance)
}

/// L with L Lᵀ the matrix, in its place; `None` where it is not positive definite.
fn cholesky(matrix: &mut [f64], d: usize) -> Option<()> {
    let at = |i: usize, j: usize| i * (i + 1) / 2 + j;
    for i in 0..d {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| matrix[at(i, k)] * matrix[at(j, k)]).sum();
            let rest = matrix[at(i, j)] - known;
            matrix[at(i, j)] = if i == j { Some(rest.sqrt()).filter(|root| *root > 0.0)? } else { rest / matrix[at(j, j)] };
        }
    }
    Some(())
}

/// The inverse of a lower triangle.
fn inverse_of_triangle(l: &[f64], d: usize) -> Vec<f64> {
    let at = |i: usize, j: usize| i * (i + 1) / 2 + j;
    let mut inverse = vec![0.0; l.len()];
    for j in 0..d {
        inverse[at(j, j)] = 1.0 / l[at(j, j)];
        for i in j + 1..d {
            let sum: f64 = (j..i).map(|k| l[at(i, k)] * inverse[at(k, j)]).sum();
            inverse[at(i, j)] = -sum / l[at(i, i)];
        }
    }
    inverse
}

/// Numbers as base64 of their little-endian bytes: a matrix in decimal would be most of a small model's file.
fn packed<S: Serializer>(values: &[f32], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()))
}

fn unpacked<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
    let (words, []) = bytes.as_chunks::<4>() else { return Err(serde::de::Error::custom("not a whole number of floats")) };
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::references::uniform;

    /// The uniform numbers of the tests, from −½ to ½.
    fn centred(n: usize) -> Vec<f64> {
        uniform(n).into_iter().map(|u| u - 0.5).collect()
    }

    /// 40 rows of four columns: a, a + b, b − c, 3 d.
    fn rows() -> Vec<Vec<f32>> {
        let row = |u: &[f64]| vec![u[0] as f32, (u[0] + u[1]) as f32, (u[1] - u[2]) as f32, (3.0 * u[3]) as f32];
        centred(160).chunks(4).map(row).collect()
    }

    /// Enough of them for validation.
    fn often(rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
        rows.iter().cycle().take(120).cloned().collect()
    }

    /// sklearn.covariance.LedoitWolf().fit(rows).mahalanobis(x) ** .5
    #[test]
    fn distances_are_those_of_scikit_learn() {
        let fitted = NoveltyPattern::fit(ModalityPattern::Both, &rows(), &often(&rows())).unwrap();
        let expected = [
            ([0.0, 0.0, 0.0, 0.0], 0.405_543_264_018_112_1),
            ([1.0, 0.0, 0.0, 0.0], 4.151_011_218_604_086),
            ([0.5, -0.5, 1.0, 2.0], 6.280_594_331_716_599),
            ([-1.0, 2.0, -1.0, 0.25], 11.913_932_256_424_152),
        ];
        for (x, expected) in expected {
            let distance = fitted.distance(&x);
            assert!((distance - expected).abs() < 1e-5 * expected.max(1.0), "{x:?}: {distance} and {expected}");
        }
    }

    #[test]
    fn p_counts_those_at_least_as_far() {
        let numbers: Vec<f32> = centred(600).into_iter().map(|u| u as f32).collect();
        let all: Vec<Vec<f32>> = numbers.chunks(4).map(<[f32]>::to_vec).collect();
        let score = NoveltyScore { patterns: vec![NoveltyPattern::fit(ModalityPattern::Image, &all[..51], &all[51..]).unwrap()] };
        // Of 99 validation examples the farthest is one of two with itself, of a hundred.
        let mut ps: Vec<f64> = all[51..].iter().map(|row| score.of(row, ModalityPattern::Image).unwrap().p).collect();
        ps.sort_by(f64::total_cmp);
        let expected: Vec<f64> = (2..=100).map(|k| f64::from(k) / 100.0).collect();
        assert!(ps.iter().zip(&expected).all(|(p, expected)| (p - expected).abs() < 1e-12), "{ps:?}");
        for unseen in [[9.0; 4], [f32::NAN; 4]] {
            let far = score.of(&unseen, ModalityPattern::Image).unwrap();
            assert!((far.p - 0.01).abs() < 1e-12 && far.is_novel, "{far:?}");
        }
        assert!(score.of(&[9.0; 4], ModalityPattern::Both).is_none() && score.of(&[9.0; 3], ModalityPattern::Image).is_none());
        assert!(NoveltyPattern::fit(ModalityPattern::Image, &all[..51], &all[52..]).is_none(), "98 are too few to call one in a hundred");
    }

    #[test]
    fn one_in_a_hundred_is_novel() {
        let numbers: Vec<f32> = centred(8_000).into_iter().map(|u| u as f32).collect();
        let all: Vec<Vec<f32>> = numbers.chunks(4).map(<[f32]>::to_vec).collect();
        let score = NoveltyScore { patterns: vec![NoveltyPattern::fit(ModalityPattern::Record, &all[..800], &all[800..1400]).unwrap()] };
        let novel = all[1400..].iter().filter(|row| score.of(row, ModalityPattern::Record).unwrap().is_novel).count();
        assert!(novel <= 15, "{novel} of 600");
        assert!(score.of(&[2.0, 0.0, 0.0, 0.0], ModalityPattern::Record).unwrap().is_novel);
    }

    #[test]
    fn files_keep_it_to_the_bit() {
        let all = rows();
        let score = NoveltyScore { patterns: vec![NoveltyPattern::fit(ModalityPattern::Both, &all[..20], &often(&all)).unwrap()] };
        let text = serde_json::to_string(&score).unwrap();
        assert_eq!(serde_json::from_str::<NoveltyScore>(&text).unwrap(), score);
        // A file whose parts do not fit together says nothing, and breaks nothing.
        let cut = text.replacen("\"whitening\":\"", "\"whitening\":\"AAAAAA==\",\"ignored\":\"", 1);
        assert!(serde_json::from_str::<NoveltyScore>(&cut).unwrap().of(&all[0], ModalityPattern::Both).is_none());
        assert!(serde_json::from_str::<NoveltyScore>(&text.replacen("\"mean\":\"", "\"mean\":\"AA", 1)).is_err());
    }

    #[test]
    fn what_never_varies_has_no_distance() {
        let same = vec![vec![1.0, 2.0]; 99];
        assert!(NoveltyPattern::fit(ModalityPattern::Both, &same[..9], &same).is_none());
        let one = vec![vec![1.0]; 99];
        assert!(NoveltyPattern::fit(ModalityPattern::Both, &one[..1], &one).is_none());
        assert!(NoveltyPattern::fit(ModalityPattern::Both, &[vec![1.0], vec![f32::NAN]], &one).is_none());
        // A direction in which nothing varies is drawn towards the others.
        let line: Vec<Vec<f32>> = (0..9u8).map(|k| vec![f32::from(k), 2.0]).collect();
        assert!(NoveltyPattern::fit(ModalityPattern::Both, &line, &often(&line)).is_some());
    }
}
