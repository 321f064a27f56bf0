//! A baseline that finds thresholds and interactions in the record: a forest of decision trees (Breiman 2001).

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_trees::{DecisionTree, TreeNode};
use ndarray::{Array1, Array2, ArrayView1, Axis};
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

/// Trees of linfa, each on a bootstrap sample and a random third of the inputs (Ho 1998); probabilities are means of the shares
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
        let trees = (0..options.n_trees).into_par_iter().map(grow).collect::<Result<_, _>>()?;
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
    fn grow(x: &Array2<f64>, targets: &[usize], n_classes: usize, tree: u64, options: &ForestOptions) -> Result<Self, EvaluationError> {
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
        let sample = x.select(Axis(0), &drawn).select(Axis(1), &inputs);
        let labels: Vec<usize> = drawn.iter().map(|&i| targets[i]).collect();
        let mut nodes = Vec::new();
        if inputs.is_empty() {
            nodes.push(Node::Leaf(vec![1.0; n_classes]));
        } else {
            let dataset = DatasetBase::new(sample.clone(), Array1::from(labels.clone()));
            let fitted: DecisionTree<f64, usize> = DecisionTree::params()
                .max_depth(Some(options.max_depth))
                .min_weight_leaf(options.min_leaf as f32)
                .min_weight_split(2.0 * options.min_leaf as f32)
                .fit(&dataset)
                .map_err(|error: linfa::Error| EvaluationError::Option { what: format!("forest baseline: {error}") })?;
            copy(fitted.root_node(), n_classes, &mut nodes);
        }
        let mut tree = Self { inputs, nodes };
        // linfa keeps a leaf's class but not its shares: the sample goes through the tree once more.
        for (row, &label) in sample.rows().into_iter().zip(&labels) {
            let leaf = tree.place(|k| row[k]);
            if let Node::Leaf(counts) = &mut tree.nodes[leaf] {
                counts[label] += 1.0;
            }
        }
        for node in &mut tree.nodes {
            if let Node::Leaf(counts) = node {
                let total: f64 = counts.iter().sum();
                counts.iter_mut().for_each(|c| *c /= total);
            }
        }
        Ok(tree)
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

/// Copies a node and what is below it; returns where it stands.
fn copy(node: &TreeNode<f64, usize>, n_classes: usize, nodes: &mut Vec<Node>) -> usize {
    let place = nodes.len();
    nodes.push(Node::Leaf(vec![1.0; n_classes]));
    let children = node.children();
    if let (false, [Some(left), Some(right)]) = (node.is_leaf(), &children[..]) {
        let (below, above) = (copy(left, n_classes, nodes), copy(right, n_classes, nodes));
        let (input, at, _) = node.split();
        nodes[place] = Node::Split { input, at, below, above };
    }
    place
}
