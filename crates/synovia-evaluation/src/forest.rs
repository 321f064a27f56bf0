//! A baseline that finds thresholds and interactions in the record: a forest of decision trees (Breiman 2001).

use ndarray::{Array2, ArrayView1};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use synovia_cohort::{Task, TaskKind};

use crate::EvaluationError;
use crate::baseline::{Column, check_features, columns, design, labelled};
use crate::panel::n_labels;

/// How a forest is grown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForestOptions {
    /// Trees.
    pub n_trees: usize,
    /// Most splits from the root to a leaf.
    pub max_depth: usize,
    /// Fewest examples of a leaf.
    pub min_leaf: usize,
    /// Most examples that a tree draws, with replacement; as many as there are where they are fewer.
    pub max_samples: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for ForestOptions {
    fn default() -> Self {
        Self { n_trees: 100, max_depth: 8, min_leaf: 5, max_samples: 4000, seed: 0 }
    }
}

/// Trees of our own, since those of linfa-trees 0.8 differ from fit to fit (they go through hash maps), each on a bootstrap sample and a random third of the inputs (Ho 1998); probabilities are means of the shares
/// of classes in their leaves, with one example of every class added to each leaf.
pub struct ForestBaseline {
    n_features: usize,
    columns: Vec<Column>,
    trees: Vec<Tree>,
    binary: bool,
}

struct Tree {
    /// Inputs that it looks at.
    inputs: Vec<usize>,
    nodes: Vec<Node>,
}

enum Node {
    Split {
        input: usize,
        at: f64,
        below: usize,
        above: usize,
    },
    /// Share of each class.
    Leaf(Vec<f64>),
}

impl ForestBaseline {
    /// Fits on the training split, as [`crate::LogisticBaseline::fit`]: medians for what is missing, and inputs that say so.
    ///
    /// # Shapes
    /// - features: `[n, n_features]`, NaN where missing
    /// - labels: `[n]`
    ///
    /// # Errors
    /// When shapes do not fit, a feature is infinite, a label is no class, or a class has no label.
    pub fn fit(
        features: &[f32],
        n_features: usize,
        labels: &[Option<f32>],
        task: &Task,
        options: &ForestOptions,
    ) -> Result<Self, EvaluationError> {
        let (rows, targets) = labelled(features, n_features, labels, task)?;
        let columns = columns(n_features, &rows);
        let x = design(&columns, &rows);
        let n_classes = n_labels(task);
        let grow = |tree: usize| Tree::grow(&x, &targets, n_classes, tree as u64, options);
        let trees = (0..options.n_trees).into_par_iter().map(grow).collect();
        Ok(Self { n_features, columns, trees, binary: task.kind == TaskKind::Binary })
    }

    /// Probabilities of a feature table.
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
        let of_row = |row: ArrayView1<f64>| {
            let mut sum: Vec<f64> = Vec::new();
            for tree in &self.trees {
                let shares = tree.leaf(row);
                sum.resize(shares.len(), 0.0);
                sum.iter_mut().zip(shares).for_each(|(to, share)| *to += share);
            }
            sum
        };
        let mut out = Vec::new();
        for row in x.rows() {
            let sum = of_row(row);
            let total: f64 = sum.iter().sum();
            out.extend(sum.iter().skip(usize::from(self.binary)).map(|s| (s / total) as f32));
        }
        Ok(out)
    }
}

impl Tree {
    fn grow(x: &Array2<f64>, targets: &[usize], n_classes: usize, tree: u64, options: &ForestOptions) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(tree);
        let (n, width) = x.dim();
        let drawn: Vec<usize> = (0..n.min(options.max_samples)).map(|_| rng.random_range(0..n as u64) as usize).collect();
        let mut inputs: Vec<usize> = (0..width).collect();
        let kept = width.div_ceil(3);
        for k in 0..kept {
            inputs.swap(k, rng.random_range(k as u64..width as u64) as usize);
        }
        inputs.truncate(kept);
        let mut grower = Grower { x, targets, n_classes, inputs: &inputs, options, nodes: Vec::new() };
        grower.grow(drawn, 0);
        let nodes = grower.nodes;
        Self { inputs, nodes }
    }

    fn place(&self, value: impl Fn(usize) -> f64) -> usize {
        let mut at = 0;
        while let Node::Split { input, at: threshold, below, above } = &self.nodes[at] {
            at = if value(*input) < *threshold { *below } else { *above };
        }
        at
    }

    fn leaf(&self, row: ArrayView1<f64>) -> &[f64] {
        match &self.nodes[self.place(|k| row[self.inputs[k]])] {
            Node::Leaf(shares) => shares,
            Node::Split { .. } => &[],
        }
    }
}

/// A tree in growth: at each node the split with the least Gini impurity (Breiman et al. 1984), the first input and the
/// lowest threshold where several are as good.
struct Grower<'a> {
    x: &'a Array2<f64>,
    targets: &'a [usize],
    n_classes: usize,
    inputs: &'a [usize],
    options: &'a ForestOptions,
    nodes: Vec<Node>,
}

impl Grower<'_> {
    /// Grows a node of these rows and what is below it; returns where it stands.
    fn grow(&mut self, mut rows: Vec<usize>, depth: usize) -> usize {
        let place = self.nodes.len();
        let counts = self.counts(&rows);
        let total = rows.len() as f64 + self.n_classes as f64;
        self.nodes.push(Node::Leaf(counts.iter().map(|count| (count + 1.0) / total).collect()));
        let pure = counts.iter().filter(|count| **count > 0.0).count() < 2;
        if pure || depth == self.options.max_depth {
            return place;
        }
        if let Some((input, at)) = self.best_split(&mut rows, &counts) {
            let (below, above): (Vec<usize>, Vec<usize>) = rows.into_iter().partition(|&row| self.x[[row, self.inputs[input]]] < at);
            let (below, above) = (self.grow(below, depth + 1), self.grow(above, depth + 1));
            self.nodes[place] = Node::Split { input, at, below, above };
        }
        place
    }

    fn counts(&self, rows: &[usize]) -> Vec<f64> {
        let mut counts = vec![0.0; self.n_classes];
        rows.iter().for_each(|&row| counts[self.targets[row]] += 1.0);
        counts
    }

    /// The input (its place in `inputs`) and the threshold that leave the least impurity; `None` when nothing lowers it.
    fn best_split(&self, rows: &mut [usize], counts: &[f64]) -> Option<(usize, f64)> {
        let n = rows.len();
        // n × (1 − Gini impurity): what a node has in order, to be made as large as possible.
        let order = |counts: &[f64], n: f64| counts.iter().map(|count| count * count).sum::<f64>() / n;
        let mut best = (order(counts, n as f64) + 1e-9, None);
        for (place, &input) in self.inputs.iter().enumerate() {
            let value = |row: usize| self.x[[row, input]];
            rows.sort_unstable_by(|&a, &b| value(a).total_cmp(&value(b)).then(a.cmp(&b)));
            let (mut below, mut above) = (vec![0.0; self.n_classes], counts.to_vec());
            for k in 1..n {
                let class = self.targets[rows[k - 1]];
                below[class] += 1.0;
                above[class] -= 1.0;
                let (low, high) = (value(rows[k - 1]), value(rows[k]));
                if low == high || k < self.options.min_leaf || n - k < self.options.min_leaf {
                    continue;
                }
                let gained = order(&below, k as f64) + order(&above, (n - k) as f64);
                if gained > best.0 {
                    // Half way; where there is no number between them, the upper one, which is not below itself.
                    let middle = f64::midpoint(low, high);
                    best = (gained, Some((place, if middle > low { middle } else { high })));
                }
            }
        }
        best.1
    }
}
