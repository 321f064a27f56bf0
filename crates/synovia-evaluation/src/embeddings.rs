//! Where examples lie in a model's eyes: principal axes, a map by t-SNE, and the training examples that lie nearest.

use linfa::traits::Transformer as _;
use linfa_linalg::eigh::{EigSort as _, EighInto as _};
use linfa_tsne::TSneParams;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::EvaluationError;
use crate::panel::ModalityPattern;

/// Effective number of neighbours of t-SNE, and its steps.
const PERPLEXITY: f64 = 30.0;
const N_STEPS: usize = 1000;

/// Test examples on a plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingMap {
    /// What the model saw of each.
    pub pattern: ModalityPattern,
    /// Training examples that the principal axes are of.
    pub n_train: usize,
    /// Share of their variance along each axis.
    pub explained: [f64; 2],
    /// Test examples.
    pub points: Vec<EmbeddingPoint>,
}

/// A test example on the map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingPoint {
    /// Along the first two principal axes of the training's embeddings.
    pub pca: [f32; 2],
    /// By t-SNE over the test examples (van der Maaten & Hinton 2008); none of fewer than four.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tsne: Option<[f32; 2]>,
    /// Labels, a task each.
    pub labels: Vec<Option<f32>>,
}

impl EmbeddingMap {
    /// Of the embeddings of training examples, which axes are fitted on, and of test examples with their labels. `None` where the
    /// training's do not vary, or are too few for two axes.
    ///
    /// # Shapes
    /// - train, test: `[n][d]`
    pub fn fit(pattern: ModalityPattern, train: &[&[f32]], test: &[&[f32]], labels: &[&[Option<f32>]]) -> Option<Self> {
        let axes = PrincipalAxes::fit(train, 2).ok()?;
        let &[first, second] = axes.explained.as_slice() else { return None };
        let tsne = tsne(test);
        let points = test.iter().zip(labels).enumerate().map(|(i, (row, labels))| {
            let at = axes.project(row);
            EmbeddingPoint { pca: [at[0], at[1]], tsne: tsne.as_ref().map(|all| all[i]), labels: labels.to_vec() }
        });
        Some(Self { pattern, n_train: train.len(), explained: [first, second], points: points.collect() })
    }
}

/// Directions in which embeddings vary most.
#[derive(Clone, Debug, PartialEq)]
pub struct PrincipalAxes {
    mean: Vec<f64>,
    /// `[n_axes][d]`
    axes: Vec<Vec<f64>>,
    /// Share of the variance along each axis.
    pub explained: Vec<f64>,
}

impl PrincipalAxes {
    /// The first `most` axes, fewer where the embeddings are narrower or fewer. Each points to where its largest part is positive. They are
    /// all of the eigenvectors of the covariance, not the first few by iteration, which is wrong without a word where many units are dead.
    ///
    /// # Shapes
    /// - rows: `[n][d]`
    ///
    /// # Errors
    /// [`EvaluationError`] of fewer than two rows, of rows that are all alike, of other widths, or not finite.
    pub fn fit(rows: &[&[f32]], most: usize) -> Result<Self, EvaluationError> {
        let (n, d) = (rows.len(), rows.first().map_or(0, |row| row.len()));
        let refused = |what: &str| Err(EvaluationError::Option { what: format!("principal axes: {what}") });
        if n < 2 || d == 0 {
            return refused("there are fewer than two embeddings");
        }
        if let Some(row) = rows.iter().find(|row| row.len() != d) {
            return Err(EvaluationError::Shape { what: "an embedding", len: row.len(), expected: d });
        }
        if let Some(position) = rows.iter().flat_map(|row| row.iter()).position(|x| !x.is_finite()) {
            return Err(EvaluationError::NotFinite { what: "embeddings", position });
        }
        let mut mean = vec![0.0; d];
        rows.iter().for_each(|row| mean.iter_mut().zip(*row).for_each(|(mean, &x)| *mean += f64::from(x)));
        mean.iter_mut().for_each(|mean| *mean /= n as f64);
        let mut covariance = Array2::<f64>::zeros((d, d));
        let mut away = vec![0.0; d];
        for row in rows {
            away.iter_mut().zip(*row).zip(&mean).for_each(|((away, &x), mean)| *away = f64::from(x) - mean);
            for (i, &a) in away.iter().enumerate().filter(|(_, a)| **a != 0.0) {
                covariance.row_mut(i).iter_mut().zip(&away).for_each(|(sum, b)| *sum += a * b / n as f64);
            }
        }
        let total: f64 = covariance.diag().sum();
        // Less is the rounding of the mean, and no difference of two numbers in single precision.
        if total <= 1e-18 * mean.iter().map(|mean| mean * mean).sum::<f64>() {
            return refused("the embeddings do not vary");
        }
        let (variances, vectors) = match covariance.eigh_into() {
            Ok(found) => found.sort_eig_desc(),
            Err(error) => return refused(&error.to_string()),
        };
        let n_axes = most.min(d).min(n - 1);
        let axis = |k: usize| {
            let axis = vectors.column(k);
            let largest = axis.iter().copied().fold(0.0_f64, |most, part| if part.abs() > most.abs() { part } else { most });
            axis.iter().map(|part| part * largest.signum()).collect::<Vec<f64>>()
        };
        Ok(Self {
            mean,
            axes: (0..n_axes).map(axis).collect(),
            explained: variances.iter().take(n_axes).map(|variance| (variance / total).max(0.0)).collect(),
        })
    }

    /// How far along each axis an embedding lies.
    ///
    /// # Shapes
    /// - row: `[d]`
    /// - returns `[n_axes]`
    pub fn project(&self, row: &[f32]) -> Vec<f32> {
        let away: Vec<f64> = row.iter().zip(&self.mean).map(|(&x, m)| f64::from(x) - m).collect();
        self.axes.iter().map(|axis| axis.iter().zip(&away).map(|(part, x)| part * x).sum::<f64>() as f32).collect()
    }
}

/// `None` where rows differ in width, or a value is not finite.
fn matrix(rows: &[&[f32]]) -> Option<Array2<f64>> {
    let d = rows.first()?.len();
    let values: Vec<f64> = rows.iter().flat_map(|row| row.iter().map(|&x| f64::from(x))).collect();
    if values.iter().any(|x| !x.is_finite()) || rows.iter().any(|row| row.len() != d) {
        return None;
    }
    Array2::from_shape_vec((rows.len(), d), values).ok()
}

/// A plane on which near neighbours stay near; exact, so that its time grows with the square of the rows. `None` of fewer than four rows, of
/// rows that are all alike, or narrower than a plane.
///
/// # Shapes
/// - rows: `[n][d]`
pub fn tsne(rows: &[&[f32]]) -> Option<Vec<[f32; 2]>> {
    let matrix = matrix(rows)?;
    if rows.len() < 4 || matrix.ncols() < 2 || rows.iter().all(|row| row == &rows[0]) {
        return None;
    }
    let perplexity = PERPLEXITY.min((rows.len() - 1) as f64 / 3.0);
    // By way of the Barnes-Hut tree nothing would be drawn the same way twice.
    let plane = TSneParams::embedding_size(2).perplexity(perplexity).approx_threshold(0.0).max_iter(N_STEPS).transform(matrix).ok()?;
    let points: Vec<[f32; 2]> = plane.rows().into_iter().map(|row| [row[0] as f32, row[1] as f32]).collect();
    points.iter().flatten().all(|x| x.is_finite()).then_some(points)
}

/// The `n` of `rows` whose embeddings are nearest (Euclid) to `to`, the nearest first: which, and how far.
///
/// # Shapes
/// - rows: `[n][d]`
/// - to: `[d]`
pub fn nearest(rows: &[&[f32]], to: &[f32], n: usize) -> Vec<(usize, f64)> {
    let far = |row: &[f32]| row.iter().zip(to).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt();
    let mut all: Vec<(usize, f64)> = rows.iter().enumerate().map(|(k, row)| (k, far(row))).collect();
    let by_distance = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0));
    if n < all.len() {
        all.select_nth_unstable_by(n, by_distance);
        all.truncate(n);
    }
    all.sort_by(by_distance);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::references::uniform;

    /// The uniform numbers of the tests, from −½ to ½.
    fn centred(n: usize) -> Vec<f32> {
        uniform(n).into_iter().map(|u| (u - 0.5) as f32).collect()
    }

    fn views(rows: &[Vec<f32>]) -> Vec<&[f32]> {
        rows.iter().map(Vec::as_slice).collect()
    }

    /// 40 rows of four columns: a, a + b, b − c, 3 d.
    fn rows() -> Vec<Vec<f32>> {
        let row = |u: &[f32]| vec![u[0], u[0] + u[1], u[1] - u[2], 3.0 * u[3]];
        centred(160).chunks(4).map(row).collect()
    }

    /// sklearn.decomposition.PCA(2).fit(rows), signs as ours
    #[test]
    fn axes_are_those_of_scikit_learn() {
        let rows = rows();
        let axes = PrincipalAxes::fit(&views(&rows), 2).unwrap();
        let close = |got: &[f64], expected: &[f64]| {
            assert_eq!(got.len(), expected.len());
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} and {expected:?}");
        };
        close(&axes.explained, &[0.720154046021, 0.198187645444]);
        close(&axes.axes[0], &[0.006987945762, -0.097835533891, -0.159284949563, 0.982348045127]);
        close(&axes.axes[1], &[0.419125234355, 0.716108949626, 0.536110183522, 0.155267128900]);
        let at: Vec<f64> = axes.project(&[1.0, 0.0, -1.0, 2.0]).into_iter().map(f64::from).collect();
        close(&at, &[2.336265414001, 0.267659368869]);
    }

    /// Few rows of many columns, most of which are dead: the axes hold all that there is, and no two are alike.
    #[test]
    fn axes_are_right_where_there_are_few_rows_and_dead_units() {
        let numbers = centred(10 * 64);
        let row = |k: usize| (0..64).map(|j| if j % 3 == 0 { numbers[64 * k + j].max(0.0) } else { 0.0 }).collect::<Vec<f32>>();
        let rows: Vec<Vec<f32>> = (0..10).map(row).collect();
        let axes = PrincipalAxes::fit(&views(&rows), 16).unwrap();
        assert_eq!(axes.axes.len(), 9);
        assert!((axes.explained.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{:?}", axes.explained);
        for (i, a) in axes.axes.iter().enumerate() {
            for (j, b) in axes.axes.iter().enumerate() {
                let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-9, "{i}, {j}: {product}");
            }
        }
        // Along the axes rows are as far apart as they are.
        let [a, b] = [axes.project(&rows[0]), axes.project(&rows[7])];
        let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        assert!((far(&a, &b) - far(&rows[0], &rows[7])).abs() < 1e-5);
    }

    #[test]
    fn what_does_not_vary_has_no_axes_and_no_map() {
        let same = vec![vec![1.0, 2.0, 3.0]; 50];
        let why = |rows: &[&[f32]]| PrincipalAxes::fit(rows, 2).unwrap_err().to_string();
        assert!(why(&views(&same)).contains("do not vary") && tsne(&views(&same)).is_none());
        assert!(why(&[&[1.0, 2.0]]).contains("fewer than two") && why(&[]).contains("fewer than two"));
        assert!(why(&[&[1.0, 2.0], &[1.0]]).contains("expected") && why(&[&[1.0, 2.0], &[1.0, f32::INFINITY]]).contains("finite"));
        assert!(tsne(&[&[1.0, f32::NAN], &[0.0, 1.0], &[2.0, 1.0], &[3.0, 1.0]]).is_none());
        assert!(tsne(&views(&rows()[..3])).is_none());
        // Of units that are dead and of units that say the same there is less than the width.
        let line: Vec<Vec<f32>> = centred(50).into_iter().map(|u| vec![0.0, u, 2.0 * u, 0.0]).collect();
        let axes = PrincipalAxes::fit(&views(&line), 3).unwrap();
        assert!((axes.explained[0] - 1.0).abs() < 1e-6 && axes.explained[1..].iter().all(|share| *share < 1e-6), "{axes:?}");
        let map = EmbeddingMap::fit(ModalityPattern::Image, &views(&line), &views(&line[..2]), &[&[Some(1.0)], &[None]]).unwrap();
        assert!(map.points.len() == 2 && map.points[0].tsne.is_none());
    }

    #[test]
    fn groups_stay_together_and_the_same_at_every_run() {
        let group = |k: usize| if k < 30 { 4.0 } else { -4.0 };
        let rows: Vec<Vec<f32>> = centred(240).chunks(4).enumerate().map(|(k, u)| u.iter().map(|x| x + group(k)).collect()).collect();
        let plane = tsne(&views(&rows)).unwrap();
        assert_eq!(plane, tsne(&views(&rows)).unwrap());
        let points: Vec<&[f32]> = plane.iter().map(<[f32; 2]>::as_slice).collect();
        for k in 0..60 {
            let (other, _) = nearest(&points, points[k], 2)[1];
            assert_eq!(k < 30, other < 30, "{k} lies beside {other}");
        }
    }

    #[test]
    fn the_nearest_come_first() {
        let rows: [&[f32]; 5] = [&[0.0, 0.0], &[3.0, 4.0], &[1.0, 0.0], &[0.0, -1.0], &[9.0, 9.0]];
        assert_eq!(nearest(&rows, &[0.0, 0.0], 4), [(0, 0.0), (2, 1.0), (3, 1.0), (1, 5.0)]);
        assert_eq!(nearest(&rows[..2], &[3.0, 4.0], 9), [(1, 0.0), (0, 5.0)]);
        assert!(nearest(&[], &[1.0], 3).is_empty());
    }
}
