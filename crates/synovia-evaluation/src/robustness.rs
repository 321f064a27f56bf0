//! How well answers hold as inputs get worse: curves of AUROC over how much worse they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Estimate, Variant};

/// In which way inputs get worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worsening {
    /// Examples lose their image.
    MissingImages,
    /// Examples lose their record.
    MissingRecords,
    /// Records lose some of their values.
    MissingValues,
    /// Features come in another unit, ten times as large, and nobody says so.
    ShiftedUnits,
    /// Images get noise.
    Noise,
    /// Images lose contrast.
    Contrast,
    /// Images lose resolution.
    Resolution,
}

impl Worsening {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::MissingImages, Self::MissingRecords, Self::MissingValues, Self::ShiftedUnits, Self::Noise, Self::Contrast, Self::Resolution];

    /// How much worse, after 0.
    pub const fn levels(self) -> &'static [f64] {
        match self {
            Self::MissingImages | Self::MissingRecords | Self::MissingValues => &[0.25, 0.5, 1.0],
            Self::ShiftedUnits => &[0.1, 0.25, 0.5],
            Self::Noise => &[0.05, 0.1, 0.2],
            Self::Contrast => &[0.3, 0.6, 0.9],
            Self::Resolution => &[0.5, 0.75, 0.875],
        }
    }

    /// Which modality it changes: the image, or else the record.
    pub const fn of_image(self) -> bool {
        matches!(self, Self::MissingImages | Self::Noise | Self::Contrast | Self::Resolution)
    }

    /// Whether the images that are there stay as they are.
    pub const fn leaves_images(self) -> bool {
        !matches!(self, Self::Noise | Self::Contrast | Self::Resolution)
    }

    /// What happens, for a reader.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::MissingImages => "Missing images",
            Self::MissingRecords => "Missing records",
            Self::MissingValues => "Missing values of the record",
            Self::ShiftedUnits => "Features in another unit",
            Self::Noise => "Noise",
            Self::Contrast => "Contrast",
            Self::Resolution => "Resolution",
        }
    }

    /// What a level is, in words.
    pub fn at(self, level: f64) -> String {
        let percent = 100.0 * level;
        match self {
            Self::MissingImages | Self::MissingRecords => format!("of {percent:.0} % of examples"),
            Self::MissingValues => format!("{percent:.0} % of them"),
            Self::ShiftedUnits => format!("{percent:.0} % of them, ten times too large"),
            Self::Noise => format!("deviation {percent:.0} % of the range of grey"),
            Self::Contrast => format!("{percent:.0} % lost"),
            Self::Resolution => format!("{percent:.1} % of rows and columns lost"),
        }
    }

    /// What the level is.
    pub const fn level(self) -> &'static str {
        match self {
            Self::MissingImages | Self::MissingRecords => "share of examples",
            Self::MissingValues => "share of values",
            Self::ShiftedUnits => "share of features, ten times too large",
            Self::Noise => "deviation, of the range of grey",
            Self::Contrast => "share of contrast lost",
            Self::Resolution => "share of rows and columns lost",
        }
    }
}

/// Curves of all tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Robustness {
    /// The fold whose models and test examples these are, from 1; none without folds.
    #[serde(default)]
    pub fold: Option<usize>,
    /// Test examples.
    pub n: usize,
    /// A task each.
    pub tasks: Vec<TaskRobustness>,
}

/// Curves of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRobustness {
    /// Its name.
    pub task: String,
    /// A curve for each way in which inputs get worse.
    pub curves: Vec<RobustnessCurve>,
}

/// AUROC over how much worse inputs are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RobustnessCurve {
    /// In which way.
    pub what: Worsening,
    /// In order of their level, 0 first.
    pub points: Vec<RobustnessPoint>,
    /// Relative robustness (Liang et al. 2021, MultiBench): the area under the curve, here over the range of levels, so that it is an
    /// AUROC.
    pub relative: BTreeMap<Variant, f64>,
    /// Effective robustness (there): how much more of its AUROC a model keeps than late fusion of the single models does, the mean over
    /// levels above 0.
    pub effective: BTreeMap<Variant, f64>,
}

/// How well models do at one level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RobustnessPoint {
    /// How much worse.
    pub level: f64,
    /// A model each.
    pub auroc: BTreeMap<Variant, Estimate>,
    /// Share of examples that the exported model calls novel (see [`crate::NoveltyScore`]): what a server would notice.
    #[serde(default)]
    pub novel: Option<f64>,
}

impl RobustnessCurve {
    /// Of points in order of their level.
    pub fn new(what: Worsening, points: Vec<RobustnessPoint>) -> Self {
        let mut curve = Self { what, points, relative: BTreeMap::new(), effective: BTreeMap::new() };
        let variants: Vec<Variant> = curve.points.first().map(|point| point.auroc.keys().copied().collect()).unwrap_or_default();
        let late = curve.values(Variant::LateFusion);
        for variant in variants {
            let Some(values) = curve.values(variant) else { continue };
            if let Some(area) = area(&values) {
                curve.relative.insert(variant, area);
            }
            if let Some(late) = late.as_ref().filter(|_| variant != Variant::LateFusion && values.len() > 1) {
                let kept = values.iter().zip(late).skip(1).map(|(own, late_fusion)| (own.1 - values[0].1) - (late_fusion.1 - late[0].1));
                curve.effective.insert(variant, kept.sum::<f64>() / (values.len() - 1) as f64);
            }
        }
        curve
    }

    /// Level and AUROC of a model; `None` where it is not known at every level.
    pub fn values(&self, variant: Variant) -> Option<Vec<(f64, f64)>> {
        self.points.iter().map(|point| Some((point.level, point.auroc.get(&variant)?.value?))).collect()
    }
}

/// The mean height of a line over its range, by trapezia.
fn area(values: &[(f64, f64)]) -> Option<f64> {
    let range = values.last()?.0 - values.first()?.0;
    let sum: f64 = values.windows(2).map(|pair| (pair[1].0 - pair[0].0) * f64::midpoint(pair[0].1, pair[1].1)).sum();
    (range > 0.0).then(|| sum / range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(lines: &[(Variant, [Option<f64>; 3])]) -> RobustnessCurve {
        let at = |k: usize| {
            let of = |(variant, values): &(Variant, [Option<f64>; 3])| (*variant, Estimate { value: values[k], ..Estimate::default() });
            RobustnessPoint { level: [0.0, 0.25, 1.0][k], auroc: lines.iter().map(of).collect(), novel: None }
        };
        RobustnessCurve::new(Worsening::Noise, (0..3).map(at).collect())
    }

    #[test]
    fn areas_and_what_is_kept() {
        let curve = curve(&[
            (Variant::Joint, [Some(0.9), Some(0.8), Some(0.6)]),
            (Variant::Image, [Some(0.7), None, Some(0.5)]),
            (Variant::LateFusion, [Some(0.8), Some(0.6), Some(0.5)]),
        ]);
        // (.25 × .85 + .75 × .7) and (.25 × .7 + .75 × .55).
        assert!((curve.relative[&Variant::Joint] - 0.7375).abs() < 1e-12);
        assert!((curve.relative[&Variant::LateFusion] - 0.5875).abs() < 1e-12);
        // It loses .1 and .3 where late fusion loses .2 and .3.
        assert!((curve.effective[&Variant::Joint] - 0.05).abs() < 1e-12);
        assert_eq!(curve.effective.len(), 1);
        assert!(!curve.relative.contains_key(&Variant::Image));
    }

    #[test]
    fn without_late_fusion_nothing_is_held_against_it() {
        let curve = curve(&[(Variant::Image, [Some(0.7), Some(0.7), Some(0.7)])]);
        assert!((curve.relative[&Variant::Image] - 0.7).abs() < 1e-12);
        assert!(curve.effective.is_empty());
    }

    #[test]
    fn levels_rise_from_above_0() {
        for what in Worsening::ALL {
            assert!(what.levels().first().is_some_and(|level| *level > 0.0) && what.levels().is_sorted(), "{}", what.describe());
        }
    }
}
