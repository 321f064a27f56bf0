//! The trained models on test examples whose inputs get worse, to how much of their skill they keep.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;
use synovia_cohort::{CohortReader, ExampleRow, FeatureKind, Split, Task, TaskKind};
use synovia_evaluation::{
    Calibration, EvaluationOptions, ModalityPattern, Prediction, Robustness, RobustnessCurve, RobustnessPoint, TaskRobustness, Variant,
    Worsening, evaluate, probabilities,
};
use synovia_explanation::{ImageShape, coarser, flatter, noisy, sparser};
use synovia_training::{Asked, Given, Presence, Told, spread};

use super::cache::Stage;
use super::explain::read;
use super::ingest::write_json;
use super::novelty;
use super::place::Place;
use super::run_stage;
use super::train::open_model;
use crate::commands::Work;

/// Raised when the stage gives other outputs for the same inputs.
const VERSION: u32 = 2;
/// Where it writes.
pub const FILE: &str = "robustness.json";

/// Test examples that are asked about, and pixels that they may have altogether.
const N_EXAMPLES: usize = 512;
const N_PIXELS: usize = 1 << 25;
/// Examples of which a model is asked at once.
const AT_ONCE: usize = 64;
/// Bootstrap samples of each interval.
const N_BOOTSTRAP: usize = 200;
/// How much larger a value in another unit is.
const UNIT: f32 = 10.0;

/// Runs the stage unless it is fresh: on the first of several folds.
pub fn run(work: &Work, trained: &Stage, place: &Place) -> anyhow::Result<Stage> {
    let settings = serde_json::json!({ "seed": work.pipeline.seed, "calibration": work.pipeline.training.calibration });
    let stage = Stage::new("robustness", VERSION, &settings)?.after(trained);
    run_stage(&stage, &work.run, &work.progress, &[FILE], || measure(work, place))?;
    Ok(stage)
}

/// A model, what it sees, and how its answers are calibrated.
struct Model {
    variant: Variant,
    asked: Asked,
    sees: Presence,
    calibrations: Vec<Calibration>,
    /// What its image tower makes of the images as they are.
    embedded: Vec<Option<Vec<f32>>>,
}

/// What a model says of each example; nothing where it sees nothing.
type Answers = Vec<Option<Told>>;

fn measure(work: &Work, place: &Place) -> anyhow::Result<()> {
    let reader = CohortReader::open(&place.path(&work.run, "cohort"))?;
    let (settings, weights) = open_model(work, place)?;
    let manifest = reader.manifest();
    let shape = manifest.geometry.map_or([0; 3], |g| [g.channels, g.height, g.width]);
    let mut models = Vec::new();
    for (&variant, of_variant) in &settings.variants {
        let asked = Asked::new(&of_variant.model, &weights[&variant], shape)?;
        let calibrations = of_variant.calibrated(work.pipeline.training.calibration);
        models.push(Model { variant, asked, sees: Presence::of(&of_variant.model), calibrations, embedded: Vec::new() });
    }
    let any = |of: fn(&Presence) -> bool| models.iter().any(|model| of(&model.sees));
    let sees = Presence { image: any(|p| p.image), record: any(|p| p.record) };
    let is_wanted = |row: &&ExampleRow| row.split == Split::Test && sees.sees(row) && row.is_labelled();
    let mut rows: Vec<&ExampleRow> = reader.rows().iter().filter(is_wanted).collect();
    // Ids are digests: their order has nothing to do with the patients.
    rows.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    rows.truncate(N_EXAMPLES.min(N_PIXELS / shape.iter().product::<usize>().max(1)).max(1));
    let given = rows.iter().map(|row| read(&reader, row, sees)).collect::<anyhow::Result<Vec<Given>>>()?;
    let patients: Vec<Arc<str>> = rows.iter().map(|row| row.patient.as_str().into()).collect();
    let is_number = |k: &usize| manifest.features[*k].kind == FeatureKind::Number;
    let mut numbers: Vec<usize> = (0..manifest.features.len()).filter(is_number).collect();
    numbers.shuffle(&mut ChaCha8Rng::seed_from_u64(work.pipeline.seed));
    let worse = Worse { numbers, seed: work.pipeline.seed, shape: ImageShape { channels: shape[0], size: shape[1] } };
    let options = EvaluationOptions { seed: work.pipeline.seed, n_bootstrap: N_BOOTSTRAP, ..EvaluationOptions::default() };

    // Both modalities may be missing of an example only where a model is of both.
    let is_asked = |what: &Worsening| match what {
        Worsening::MissingImages | Worsening::MissingRecords => sees.image && sees.record,
        _ if what.of_image() => sees.image,
        Worsening::ShiftedUnits => !worse.numbers.is_empty(),
        _ => sees.record,
    };
    let asked: Vec<Worsening> = Worsening::ALL.into_iter().filter(is_asked).collect();
    let bar = work.progress.start("robustness", Some(asked.len() as u64 + 1), "ways");
    let embedded = spread(&models, |model| given.chunks(AT_ONCE).flat_map(|given| embed(model, given)).collect());
    models.iter_mut().zip(embedded).for_each(|(model, embedded)| model.embedded = embedded);
    let plain: Vec<Answers> = spread(&models, |model| answers(model, &given, true));
    // Where a modality goes missing, on those that have both: they stay the same examples, and who sees the other alone loses nothing.
    let is_counted = |i: usize, what: Worsening| {
        !matches!(what, Worsening::MissingImages | Worsening::MissingRecords) || (given[i].image.is_some() && given[i].record.is_some())
    };
    let is_shown = |variant: Variant, what: Worsening| {
        !matches!((what, variant), (Worsening::MissingImages, Variant::Image) | (Worsening::MissingRecords, Variant::Record))
    };
    let aurocs = |of: &[Answers], what: Worsening| -> anyhow::Result<Vec<BTreeMap<Variant, synovia_evaluation::Estimate>>> {
        let mut predictions = Vec::new();
        for (k, task) in manifest.tasks.iter().enumerate() {
            for (i, row) in rows.iter().enumerate().filter(|(i, _)| is_counted(*i, what)) {
                for (variant, p) in said(&models, of, i, k, task).into_iter().filter(|(variant, _)| is_shown(*variant, what)) {
                    predictions.extend(Prediction::rows(&row.id, &patients[i], Split::Test, task, row.labels[k], &p, variant));
                }
            }
        }
        if predictions.is_empty() {
            return Ok(vec![BTreeMap::new(); manifest.tasks.len()]);
        }
        let mut metrics = evaluate(&predictions, &manifest.tasks, &options)?;
        let of_task = |task: &Task| match metrics.tasks.remove(&task.name) {
            Some(measured) => measured.variants.into_iter().map(|(variant, m)| (variant, m.auroc)).collect(),
            None => BTreeMap::new(),
        };
        Ok(manifest.tasks.iter().map(of_task).collect())
    };
    // The first model is the one that is exported; what a private one has seen nobody may know.
    let known = match models.first() {
        Some(model) if settings.variants.values().all(|of_variant| of_variant.training.privacy.is_none()) => {
            Some(novelty::fit(&reader, &model.asked, model.sees)?)
        }
        _ => None,
    };
    let novel = |of: &[Answers], given: &[Given]| {
        let sees = models.first()?.sees;
        let is_novel = |(told, given): (&Option<Told>, &Given)| {
            let pattern = ModalityPattern::of(sees.image && given.image.is_some(), sees.record && given.record.is_some())?;
            Some(known.as_ref()?.of(&told.as_ref()?.embedding, pattern)?.is_novel)
        };
        let of: Vec<bool> = of.first()?.iter().zip(given).filter_map(is_novel).collect();
        (!of.is_empty()).then(|| of.iter().filter(|novel| **novel).count() as f64 / of.len() as f64)
    };
    let novel_at_0 = novel(&plain, &given);
    bar.set(1);
    let mut tasks: Vec<TaskRobustness> =
        manifest.tasks.iter().map(|task| TaskRobustness { task: task.name.clone(), curves: Vec::new() }).collect();
    for (done, &what) in asked.iter().enumerate() {
        let mut points: Vec<Vec<RobustnessPoint>> =
            aurocs(&plain, what)?.into_iter().map(|auroc| vec![RobustnessPoint { level: 0.0, auroc, novel: novel_at_0 }]).collect();
        for &level in what.levels() {
            let worse: Vec<Given> = given.par_iter().zip(&rows).map(|(given, row)| worse.of(given, row, what, level)).collect();
            let changed = |model: &Model| if what.of_image() { model.sees.image } else { model.sees.record };
            let before: Vec<(&Model, &Answers)> = models.iter().zip(&plain).collect();
            let of: Vec<Answers> =
                spread(
                    &before,
                    |(model, plain)| if changed(model) { answers(model, &worse, what.leaves_images()) } else { (*plain).clone() },
                );
            let novel = novel(&of, &worse);
            for (points, auroc) in points.iter_mut().zip(aurocs(&of, what)?) {
                points.push(RobustnessPoint { level, auroc, novel });
            }
        }
        for (task, points) in tasks.iter_mut().zip(points) {
            task.curves.push(RobustnessCurve::new(what, points));
        }
        bar.set(done as u64 + 2);
    }
    bar.finish("");
    write_json(&work.run.join(FILE), &Robustness { fold: place.fold().map(|fold| fold + 1), n: rows.len(), tasks })
}

fn embed(model: &Model, given: &[Given]) -> Vec<Option<Vec<f32>>> {
    model.asked.embed(&given.iter().collect::<Vec<_>>())
}

/// - same_images: whether those that are there are as they were, so that what the tower made of them holds
fn answers(model: &Model, given: &[Given], same_images: bool) -> Answers {
    let mut out = vec![None; given.len()];
    for (part, given) in given.chunks(AT_ONCE).enumerate() {
        let first = part * AT_ONCE;
        let made = if same_images { Vec::new() } else { embed(model, given) };
        let made = if same_images { &model.embedded[first..first + given.len()] } else { &made };
        let embedded: Vec<Option<&[f32]>> = given.iter().zip(made).map(|(g, made)| made.as_deref().filter(|_| g.image.is_some())).collect();
        let seen = |i: &usize| embedded[*i].is_some() || (model.sees.record && given[*i].record.is_some());
        let seen: Vec<usize> = (0..given.len()).filter(seen).collect();
        let shown = |i: usize| Given { image: None, record: given[i].record.clone().filter(|_| model.sees.record) };
        let shown: Vec<Given> = seen.iter().map(|&i| shown(i)).collect();
        let of_images: Vec<Option<&[f32]>> = seen.iter().map(|&i| embedded[i]).collect();
        let told = model.asked.ask_embedded(&shown.iter().collect::<Vec<_>>(), &of_images);
        for (i, told) in seen.into_iter().zip(told) {
            out[first + i] = Some(told);
        }
    }
    out
}

/// Probabilities of an example by each model that sees something of it, and by late fusion of those of one modality.
fn said(models: &[Model], answers: &[Answers], i: usize, k: usize, task: &Task) -> Vec<(Variant, Vec<f32>)> {
    let mut out: Vec<(Variant, Vec<f32>)> = Vec::new();
    for (model, answers) in models.iter().zip(answers) {
        if let Some(told) = &answers[i] {
            out.push((model.variant, probabilities(&told.logits[k], &model.calibrations[k].map, task)));
        }
    }
    let single: Vec<&Vec<f32>> = out.iter().filter(|(variant, _)| *variant != Variant::Joint).map(|(_, p)| p).collect();
    if models.len() > 2 && !single.is_empty() {
        let late = mean_of_logs(&single, task.kind);
        out.push((Variant::LateFusion, late));
    }
    out
}

/// The normalised geometric mean of probabilities: of a binary task, the mean of log odds.
fn mean_of_logs(of: &[&Vec<f32>], kind: TaskKind) -> Vec<f32> {
    let log = |p: f32| f64::from(p).clamp(1e-7, 1.0 - 1e-7).ln();
    let mean = |f: &dyn Fn(&Vec<f32>) -> f64| of.iter().map(|p| f(p)).sum::<f64>() / of.len() as f64;
    match kind {
        TaskKind::Binary => {
            let odds = mean(&|p| log(p[0]) - log(1.0 - p[0])).exp();
            vec![(odds / (1.0 + odds)) as f32]
        }
        TaskKind::Multiclass | TaskKind::Ordinal => {
            let terms: Vec<f64> = (0..of[0].len()).map(|class| mean(&|p| log(p[class])).exp()).collect();
            let sum: f64 = terms.iter().sum();
            terms.iter().map(|term| (term / sum) as f32).collect()
        }
    }
}

struct Worse {
    seed: u64,
    shape: ImageShape,
    /// Features that are numbers, in the order in which their units change.
    numbers: Vec<usize>,
}

impl Worse {
    /// Draws for one example and one way to get worse: the same at every level.
    fn draws(&self, row: &ExampleRow, what: Worsening) -> ChaCha8Rng {
        // FNV-1a: the same on every machine.
        let words = row.id.as_str().bytes().chain([what as u8]);
        let hash = words.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        ChaCha8Rng::seed_from_u64(self.seed ^ hash)
    }

    fn of(&self, given: &Given, row: &ExampleRow, what: Worsening, level: f64) -> Given {
        let mut worse = given.clone();
        let mut rng = self.draws(row, what);
        let uniform = |rng: &mut ChaCha8Rng, n: usize| (0..n).map(|_| rng.random::<f32>()).collect::<Vec<f32>>();
        match what {
            Worsening::MissingImages => worse.image = worse.image.filter(|_| rng.random::<f64>() >= level),
            Worsening::MissingRecords => worse.record = worse.record.filter(|_| rng.random::<f64>() >= level),
            Worsening::MissingValues => {
                worse.record = worse.record.map(|record| sparser(&record, &uniform(&mut rng, record.len()), level));
            }
            // A laboratory changes its units for everybody.
            Worsening::ShiftedUnits => {
                if let Some(record) = &mut worse.record {
                    let shifted = (level * self.numbers.len() as f64).ceil() as usize;
                    self.numbers.iter().take(shifted).for_each(|&k| record[k] *= UNIT);
                }
            }
            Worsening::Noise => {
                worse.image = worse.image.map(|image| {
                    let draws: Vec<f32> = (0..image.len()).map(|_| rng.sample(StandardNormal)).collect();
                    noisy(&image, &draws, level)
                });
            }
            Worsening::Contrast => worse.image = worse.image.map(|image| flatter(&image, self.shape, level)),
            Worsening::Resolution => {
                let factor = (1.0 / (1.0 - level)).round() as usize;
                worse.image = worse.image.map(|image| coarser(&image, self.shape, factor));
            }
        }
        worse
    }
}
