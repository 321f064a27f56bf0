//! The trained model on test examples to what its answers owe to each part of their input, and whether that holds.

mod alike;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use synovia_cohort::{CohortReader, ExampleRow, Split, Task, TaskKind};
use synovia_encoders::FeatureStatistics;
use synovia_evaluation::{
    Calibration, CalibrationMap, Case, Estimate, Explanations, FeatureWeight, IntegratedCheck, MapCheck, ModalityPattern, ModalityShare,
    Peak, TaskExplanation, probabilities,
};
use synovia_explanation::{ImageShape, Map, area, deleted, inserted, overlay_of, picture, rank_correlation, shapley};
use synovia_images::BurnedIn;
use synovia_training::{Asked, Differentiable, Given, Integrated, Presence, Target, shuffled, spread};

use super::cache::Stage;
use super::embeddings::Embedded;
use super::ingest::write_json;
use super::place::Place;
use super::run_stage;
use super::train::open_model;
use crate::commands::Work;

/// Raised when the stage gives other outputs for the same inputs.
const VERSION: u32 = 7;
/// Where it writes.
pub const FILE: &str = "explanations.json";

/// Test examples of which modalities and Grad-CAM are told.
const N_EXAMPLES: usize = 512;
/// Of these, examples from which places are taken away.
const N_CHECKED: usize = 32;
/// Times that a map is moved elsewhere at random, to be held against that.
const N_RANDOM: usize = 3;
/// Numbers of the images that an example is asked about at once.
const HELD: usize = 1 << 23;
/// And of which integrated gradients are taken, with the cases that are shown.
const N_INTEGRATED: usize = 12;
/// How far their parts may miss, and how many gradients are taken for it at most.
const TOLERANCE: f64 = 0.01;
const MOST_GRADIENTS: usize = 4096;
/// Examples that a feature is told of from.
const MIN_KNOWN: usize = 4;
/// Features of a case, and of a task.
const N_FEATURES: usize = 6;
/// Stage of the image tower whose maps are shown: the first, of the finest places. The later ones blur where something is, and what
/// their places say of it has wandered to its rim.
const STAGE: usize = 1;

/// Runs the stage unless it is fresh: on the first of several folds.
pub fn run(work: &Work, trained: &Stage, place: &Place) -> anyhow::Result<Stage> {
    let settings = serde_json::json!({ "seed": work.pipeline.seed, "calibration": work.pipeline.training.calibration, "cases": work.pipeline.report.cases });
    let stage = Stage::new("explain", VERSION, &settings)?.after(trained);
    run_stage(&stage, &work.run, &work.progress, &[FILE], || explain_all(work, place))?;
    Ok(stage)
}

fn explain_all(work: &Work, place: &Place) -> anyhow::Result<()> {
    let reader = CohortReader::open(&place.path(&work.run, "cohort"))?;
    let (settings, weights) = open_model(work, place)?;
    let Some((&variant, of_variant)) = settings.variants.iter().next() else { anyhow::bail!("the run has no model") };
    let (own, manifest) = (Presence::of(&of_variant.model), reader.manifest());
    let geometry = manifest.geometry.filter(|_| own.image);
    let shape = geometry.map_or([0; 3], |g| [g.channels, g.height, g.width]);
    let mut rows: Vec<&ExampleRow> = reader.rows().iter().filter(|row| row.split == Split::Test && own.sees(row)).collect();
    // Ids are digests: their order has nothing to do with the patients.
    rows.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    // However many there are, as many are held as are explained.
    let chosen = |k: usize| (0..rows.len()).filter(|&i| rows[i].labels[k].is_some()).take(N_EXAMPLES).collect::<Vec<usize>>();
    let wanted: BTreeSet<usize> = (0..manifest.tasks.len()).flat_map(chosen).collect();
    let given = wanted.into_iter().map(|i| Ok((i, read(&reader, rows[i], own)?))).collect::<anyhow::Result<BTreeMap<usize, Given>>>()?;
    let mut explainer = Explainer {
        asked: Asked::new(&of_variant.model, &weights[&variant], shape)?,
        model: Differentiable::new(&of_variant.model, &weights[&variant], shape)?,
        shuffled: Differentiable::new(&of_variant.model, &shuffled(&weights[&variant], work.pipeline.seed), shape)?,
        image: geometry.map(|g| ImageShape { channels: g.channels, size: g.height }),
        slices: work.pipeline.images.as_ref().map_or(1, |images| images.selection.slices),
        means: means(&settings.statistics),
        reader: &reader,
        seed: work.pipeline.seed,
        known: BTreeMap::new(),
    };
    // What a private model has seen nobody may know.
    let is_private = settings.variants.values().any(|of_variant| of_variant.training.privacy.is_some());
    if !is_private {
        explainer.known = alike::known(&reader, &explainer.asked, own)?;
    }
    let images = embed(&explainer.asked, &given);
    let calibrations = of_variant.calibrated(work.pipeline.training.calibration);
    let bar = work.progress.start("explain", Some(manifest.tasks.len() as u64), "tasks");
    let mut tasks = Vec::new();
    // Neighbours in the plane are found step by step, on one thread: meanwhile the others explain.
    let embedding = std::thread::scope(|scope| {
        let embedding = scope.spawn(|| explainer.map(own));
        for (k, task) in manifest.tasks.iter().enumerate() {
            let known = chosen(k);
            let rows: Vec<&ExampleRow> = known.iter().map(|&i| rows[i]).collect();
            let given: Vec<&Given> = known.iter().map(|i| &given[i]).collect();
            let images: Vec<Option<&[f32]>> = known.iter().map(|i| images.get(i).map(Vec::as_slice)).collect();
            if !rows.is_empty() {
                tasks.push(explainer.task(k, task, &calibrations[k], &rows, &given, &images));
            }
            bar.set(k as u64 + 1);
        }
        embedding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    bar.finish("");
    // Who may not be told of, or may be seen by name, is not shown.
    if is_private || shows_names(work) || !work.pipeline.report.cases {
        tasks.iter_mut().for_each(|task| task.cases.clear());
    }
    let explanations = Explanations { model: variant, fold: place.fold().map(|fold| fold + 1), embedding, tasks };
    write_json(&work.run.join(FILE), &explanations)
}

/// What the image tower makes of the images, a place each.
fn embed(asked: &Asked, given: &BTreeMap<usize, Given>) -> BTreeMap<usize, Vec<f32>> {
    let given: Vec<(usize, &Given)> = given.iter().map(|(&place, given)| (place, given)).collect();
    let parts: Vec<&[(usize, &Given)]> = given.chunks(N_CHECKED).collect();
    let of_parts = spread(&parts, |part| asked.embed(&part.iter().map(|(_, given)| *given).collect::<Vec<_>>()));
    given.iter().zip(of_parts.into_iter().flatten()).filter_map(|((place, _), made)| Some((*place, made?))).collect()
}

/// Whether images were taken although a name may be burned into them.
fn shows_names(work: &Work) -> bool {
    work.pipeline.images.as_ref().is_some_and(|images| images.selection.burned_in == BurnedIn::Accept)
}

/// What a model of `own` sees of an example.
pub fn read(reader: &CohortReader, row: &ExampleRow, own: Presence) -> anyhow::Result<Given> {
    let manifest = reader.manifest();
    let mut given = Given { image: None, record: None };
    if let Some(g) = manifest.geometry.filter(|_| own.image && row.image_row.is_some()) {
        let mut image = vec![0.0; g.channels * g.height * g.width];
        reader.read_image(row, &mut image)?;
        given.image = Some(image);
    }
    if own.record && row.record_row.is_some() {
        let mut record = vec![f32::NAN; manifest.features.len()];
        reader.read_record(row, &mut record)?;
        given.record = Some(record);
    }
    Ok(given)
}

/// What each feature is on the training split's mean, in its own unit.
fn means(statistics: &FeatureStatistics) -> Vec<f32> {
    statistics.mean.iter().zip(&statistics.log).map(|(&mean, &log)| if log > 0.0 { mean.exp() } else { mean }).collect()
}

/// Mean over patients of the mean over their examples, with Student's interval over patients.
fn mean(values: &[(&str, f64)]) -> Estimate {
    let mut by_patient: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for &(patient, value) in values {
        by_patient.entry(patient).or_default().push(value);
    }
    let means: Vec<f64> = by_patient.values().map(|values| values.iter().sum::<f64>() / values.len() as f64).collect();
    let n = means.len() as f64;
    if means.is_empty() {
        return Estimate { note: Some("there is none".to_owned()), ..Estimate::default() };
    }
    let mean = means.iter().sum::<f64>() / n;
    if means.len() < 2 {
        return Estimate { value: Some(mean), note: Some("one patient has no interval".to_owned()), ..Estimate::default() };
    }
    let error = (means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt();
    let width = student_t(means.len() - 1) * error;
    Estimate { value: Some(mean), low: Some(mean - width), high: Some(mean + width), note: None }
}

/// The 97.5 % quantile of Student's t; a little wide between the listed degrees of freedom.
fn student_t(degrees: usize) -> f64 {
    const KNOWN: [(usize, f64); 14] = [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (6, 2.447),
        (7, 2.365),
        (8, 2.306),
        (9, 2.262),
        (10, 2.228),
        (15, 2.131),
        (30, 2.042),
        (60, 2.000),
        (120, 1.980),
    ];
    KNOWN.iter().rev().find(|(known, _)| *known <= degrees).map_or(f64::INFINITY, |(_, t)| *t)
}

struct Explainer<'a> {
    asked: Asked,
    model: Differentiable,
    shuffled: Differentiable,
    /// Of images, where the model looks at any.
    image: Option<ImageShape>,
    /// Slices of a volume that its channels are, 1 where they are none.
    slices: usize,
    means: Vec<f32>,
    reader: &'a CohortReader,
    seed: u64,
    /// Training examples by what is shown of them.
    known: BTreeMap<ModalityPattern, Embedded<'a>>,
}

/// What is explained of a task.
struct Explained<'a> {
    k: usize,
    task: &'a Task,
    calibration: CalibrationMap,
    rows: &'a [&'a ExampleRow],
    given: &'a [&'a Given],
    /// What the image tower makes of their images.
    images: &'a [Option<&'a [f32]>],
    /// What the model makes of all that each shows.
    embeddings: Vec<Vec<f32>>,
    /// The class that is explained of each example.
    classes: Vec<usize>,
    /// Its probability.
    probabilities: Vec<f64>,
}

impl Explained<'_> {
    fn probability(&self, logits: &[Vec<f32>], class: usize) -> f64 {
        let p = probabilities(&logits[self.k], &self.calibration, self.task);
        f64::from(if self.task.kind == TaskKind::Binary { p[0] } else { p[class] })
    }

    fn name(&self, class: usize) -> String {
        self.task.classes[if self.task.kind == TaskKind::Binary { 0 } else { class }].clone()
    }

    fn label(&self, i: usize) -> usize {
        self.rows[i].labels[self.k].unwrap_or_default() as usize
    }

    fn label_name(&self, label: usize) -> String {
        match self.task.kind {
            TaskKind::Binary if label == 0 => format!("not {}", self.task.classes[0]),
            TaskKind::Binary => self.task.classes[0].clone(),
            TaskKind::Multiclass | TaskKind::Ordinal => self.task.classes[label].clone(),
        }
    }

    fn of_patients<'b>(&'b self, values: &[(usize, f64)]) -> Vec<(&'b str, f64)> {
        values.iter().map(|&(i, value)| (self.rows[i].patient.as_str(), value)).collect()
    }
}

impl Explainer<'_> {
    fn explained<'a>(
        &self,
        k: usize,
        task: &'a Task,
        calibration: &Calibration,
        rows: &'a [&'a ExampleRow],
        given: &'a [&'a Given],
        images: &'a [Option<&'a [f32]>],
    ) -> Explained<'a> {
        let told = self.asked.ask_embedded(given, images);
        let (logits, embeddings): (Vec<_>, Vec<_>) = told.into_iter().map(|told| (told.logits, told.embedding)).unzip();
        // Of a binary task what it asks for, of several classes the likeliest.
        let class = |logits: &Vec<Vec<f32>>| match task.kind {
            TaskKind::Binary => 1,
            TaskKind::Multiclass | TaskKind::Ordinal => {
                (0..logits[k].len()).reduce(|a, b| if logits[k][b] > logits[k][a] { b } else { a }).unwrap_or(0)
            }
        };
        let classes: Vec<usize> = logits.iter().map(class).collect();
        let calibration = calibration.map.clone();
        let mut explained = Explained { k, task, calibration, rows, given, images, embeddings, classes, probabilities: Vec::new() };
        explained.probabilities = logits.iter().zip(&explained.classes).map(|(l, &class)| explained.probability(l, class)).collect();
        explained
    }

    fn task(
        &self,
        k: usize,
        task: &Task,
        calibration: &Calibration,
        rows: &[&ExampleRow],
        given: &[&Given],
        images: &[Option<&[f32]>],
    ) -> TaskExplanation {
        let explained = self.explained(k, task, calibration, rows, given, images);
        let shares = self.shares(&explained);
        let [maps, of_shuffled] = self.both_maps(&explained);
        let chosen = cases(&explained);
        let integrated = self.integrated(&explained, &chosen);
        let mut errors: Vec<f64> = integrated.values().map(Integrated::error).collect();
        errors.sort_by(f64::total_cmp);
        let size = self.image.map_or(0, |shape| shape.size);
        let peaks = (maps.iter().zip(&of_shuffled).enumerate())
            .filter_map(|(i, (map, other))| {
                let peak = |map: &synovia_training::Map| view(map, size).peak();
                Some(Peak {
                    example: rows[i].id.as_str().to_owned(),
                    label: rows[i].labels[k]?,
                    class: explained.classes[i],
                    peak: peak(map.as_ref()?),
                    shuffled: other.as_ref().and_then(peak),
                })
            })
            .collect();
        let neighbours = self.neighbours(&explained);
        TaskExplanation {
            task: task.name.clone(),
            n: rows.len(),
            modalities: modalities(&explained, &shares),
            features: self.features(&explained, &integrated),
            grad_cam: self.check(&explained, &maps, &of_shuffled),
            integrated: IntegratedCheck {
                n: errors.len(),
                median: errors.get(errors.len() / 2).copied().unwrap_or_default(),
                worst: errors.last().copied().unwrap_or_default(),
            },
            cases: (chosen.iter())
                .map(|(i, why)| Case {
                    neighbours: neighbours[*i].iter().take(alike::N_SHOWN).cloned().collect(),
                    ..self.case(&explained, *i, why, &shares[*i], &integrated[i], maps[*i].as_ref())
                })
                .collect(),
            neighbours: self.neighbour_check(&explained, &neighbours),
            peaks,
        }
    }

    /// Probability without either modality, share of the image, share of the record: by masked passes.
    fn shares(&self, explained: &Explained<'_>) -> Vec<[f64; 3]> {
        let without = |image: bool, record: bool| -> Vec<f64> {
            let hide = |given: &&Given| Given { image: None, record: given.record.as_ref().filter(|_| record).cloned() };
            let given: Vec<Given> = explained.given.iter().map(hide).collect();
            let images: Vec<Option<&[f32]>> = explained.images.iter().map(|made| made.filter(|_| image)).collect();
            let told = self.asked.ask_embedded(&given.iter().collect::<Vec<_>>(), &images);
            told.iter().zip(&explained.classes).map(|(told, &class)| explained.probability(&told.logits, class)).collect()
        };
        let (neither, image, record) = (without(false, false), without(true, false), without(false, true));
        (0..explained.given.len())
            .map(|i| {
                let shares = shapley(&[neither[i], image[i], record[i], explained.probabilities[i]]);
                [neither[i], shares[0], shares[1]]
            })
            .collect()
    }

    /// Those of the model, and those of the shuffled one.
    fn both_maps(&self, explained: &Explained<'_>) -> [Vec<Option<synovia_training::Map>>; 2] {
        let mut both = spread(&[&self.model, &self.shuffled], |model| self.maps(model, explained)).into_iter();
        std::array::from_fn(|_| both.next().unwrap_or_default())
    }

    /// Grad-CAM's sizes, spread over what its places look at.
    fn maps(&self, model: &Differentiable, explained: &Explained<'_>) -> Vec<Option<synovia_training::Map>> {
        let mut maps = vec![None; explained.given.len()];
        let classes: BTreeSet<usize> = explained.classes.iter().copied().collect();
        for class in classes {
            let of_class: Vec<usize> = (0..maps.len()).filter(|&i| explained.classes[i] == class).collect();
            let given: Vec<&Given> = of_class.iter().map(|&i| explained.given[i]).collect();
            let target = Target { task: explained.k, class };
            let size = self.image.map_or(1, |shape| shape.size);
            for (i, map) in of_class.into_iter().zip(model.grad_cam(&given, target, STAGE)) {
                maps[i] = map.map(|map| {
                    let values = view(&map, size).spread(map.field / size as f64);
                    synovia_training::Map { values, ..map }
                });
            }
        }
        maps
    }

    fn check(
        &self,
        explained: &Explained<'_>,
        maps: &[Option<synovia_training::Map>],
        of_shuffled: &[Option<synovia_training::Map>],
    ) -> Option<MapCheck> {
        let shape = self.image?;
        let correlation: Vec<(usize, f64)> = (maps.iter().zip(of_shuffled).enumerate())
            .filter_map(|(i, (map, other))| Some((i, rank_correlation(&map.as_ref()?.values, &other.as_ref()?.values))))
            .collect();
        let checked: Vec<(usize, &synovia_training::Map, &Vec<f32>)> = (maps.iter().enumerate())
            .filter_map(|(i, map)| Some((i, map.as_ref()?, explained.given[i].image.as_ref()?)))
            .take(N_CHECKED)
            .collect();
        let gained = spread(&checked, |&(i, map, image)| {
            let mut orders = vec![view(map, shape.size).order(shape.size)];
            // The same map moved around the image's edges: as smooth, and pointing anywhere.
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ i as u64);
            for _ in 0..N_RANDOM {
                let (down, across) = (rng.random_range(0..map.height), rng.random_range(0..map.width));
                let place = |k: usize| (k / map.width + down) % map.height * map.width + (k + across) % map.width;
                let values: Vec<f32> = (0..map.values.len()).map(|k| map.values[place(k)]).collect();
                orders.push(Map { values: &values, ..view(map, shape.size) }.order(shape.size));
            }
            self.areas(explained, i, image, shape, &orders)
        });
        let [deletion, insertion] = [0, 1].map(|k| checked.iter().zip(&gained).map(|((i, ..), of)| (*i, of[k])).collect::<Vec<_>>());
        (!deletion.is_empty()).then(|| MapCheck {
            n: deletion.len(),
            deletion: mean(&explained.of_patients(&deletion)),
            insertion: mean(&explained.of_patients(&insertion)),
            shuffled: mean(&explained.of_patients(&correlation)),
        })
    }

    /// How much less the answer about example `i` changes as pixels are deleted in the first of some orders than in the mean of the
    /// others, and how much sooner it is there as they are inserted: areas under the distance from the answer to the whole image.
    fn areas(&self, explained: &Explained<'_>, i: usize, image: &[f32], shape: ImageShape, orders: &[Vec<usize>]) -> [f64; 2] {
        // All begin or end with the whole image, of which the answer is known, and with the level one, of which it is asked once.
        let record = &explained.given[i].record;
        let (mut far, mut steps) = (Vec::new(), 0);
        for orders in orders.chunks((HELD / image.len() / 20).max(1)) {
            let sequences: Vec<Vec<Vec<f32>>> =
                orders.iter().flat_map(|order| [deleted(image, shape, order), inserted(image, shape, order)]).collect();
            steps = sequences[0].len() - 1;
            let level = far.is_empty().then(|| sequences[0][steps].clone());
            let images = level.into_iter().chain(sequences.into_iter().flat_map(|of| of.into_iter().take(steps).skip(1)));
            let given: Vec<Given> = images.map(|image| Given { image: Some(image), record: record.clone() }).collect();
            let logits = self.asked.logits(&given.iter().collect::<Vec<_>>());
            let of = |logits: &Vec<Vec<f32>>| (explained.probability(logits, explained.classes[i]) - explained.probabilities[i]).abs();
            far.extend(logits.iter().map(of));
        }
        let (level, between) = far.split_at(1);
        let areas: Vec<[f64; 2]> = (between.chunks(2 * (steps - 1)))
            .map(|of| {
                let (deletion, insertion) = of.split_at(steps - 1);
                [area(&[&[0.0], deletion, level].concat()), area(&[level, insertion, &[0.0]].concat())]
            })
            .collect();
        let random = |k: usize| areas[1..].iter().map(|areas| areas[k]).sum::<f64>() / (areas.len() - 1) as f64;
        [areas[0][0] - random(0), random(1) - areas[0][1]]
    }

    /// Of the cases, and of the first [`N_INTEGRATED`].
    fn integrated(&self, explained: &Explained<'_>, cases: &[(usize, String)]) -> BTreeMap<usize, Integrated> {
        let mut wanted: BTreeSet<usize> = cases.iter().map(|(i, _)| *i).collect();
        wanted.extend(0..explained.given.len().min(N_INTEGRATED));
        let of = |i: usize| {
            let given = explained.given[i];
            // An image that is level, at its own mean; a record of means.
            let level = |image: &Vec<f32>| match self.image {
                Some(shape) => deleted(image, shape, &(0..shape.size * shape.size).collect::<Vec<_>>()).pop().unwrap_or_default(),
                None => image.clone(),
            };
            let baseline = Given { image: given.image.as_ref().map(level), record: given.record.as_ref().map(|_| self.means.clone()) };
            let target = Target { task: explained.k, class: explained.classes[i] };
            self.model.integrated(given, &baseline, target, TOLERANCE, MOST_GRADIENTS)
        };
        let wanted: Vec<usize> = wanted.into_iter().collect();
        wanted.iter().copied().zip(spread(&wanted, |&i| of(i))).collect()
    }

    fn features(&self, explained: &Explained<'_>, integrated: &BTreeMap<usize, Integrated>) -> Vec<FeatureWeight> {
        let specs = &self.reader.manifest().features;
        // Cases are extreme; the first are anybody.
        let of = |k: usize| {
            let known = integrated
                .iter()
                .filter(|(i, _)| **i < N_INTEGRATED && explained.given[**i].record.as_ref().is_some_and(|record| !record[k].is_nan()));
            let sizes: Vec<f64> = known.map(|(_, parts)| f64::from(parts.record[k].abs())).collect();
            (sizes.len() >= MIN_KNOWN).then(|| FeatureWeight {
                feature: specs[k].name.clone(),
                size: sizes.iter().sum::<f64>() / sizes.len() as f64,
                n: sizes.len(),
            })
        };
        let mut weights: Vec<FeatureWeight> = (0..specs.len()).filter_map(of).collect();
        weights.sort_by(|a, b| b.size.total_cmp(&a.size));
        weights.truncate(2 * N_FEATURES);
        weights
    }

    fn case(
        &self,
        explained: &Explained<'_>,
        i: usize,
        why: &str,
        [neither, image, record]: &[f64; 3],
        parts: &Integrated,
        map: Option<&synovia_training::Map>,
    ) -> Case {
        let given = &explained.given[i];
        let specs = &self.reader.manifest().features;
        let values = given.record.as_deref().unwrap_or_default();
        let mut order: Vec<usize> = (0..parts.record.len()).filter(|&k| !values[k].is_nan()).collect();
        order.sort_by(|&a, &b| parts.record[b].abs().total_cmp(&parts.record[a].abs()));
        let feature = |&k: &usize| {
            let value = format!("{} {}", (f64::from(values[k]) * 1000.0).round() / 1000.0, specs[k].unit);
            (specs[k].name.clone(), value.trim().to_owned(), f64::from(parts.record[k]))
        };
        let mut shares = Vec::new();
        if given.image.is_some() {
            shares.push(("image".to_owned(), *image));
        }
        if given.record.is_some() {
            shares.push(("record".to_owned(), *record));
        }
        shares.push(("neither".to_owned(), *neither));
        // Of slices the middle one; three channels may be colours.
        let slices = self.slices;
        let drawn = self.image.zip(given.image.as_ref()).map(|(shape, image)| match slices {
            1 => (shape, image.as_slice()),
            n => {
                let middle = n / 2 * shape.size * shape.size;
                (ImageShape { channels: 1, ..shape }, &image[middle..middle + shape.size * shape.size])
            }
        });
        Case {
            example: explained.rows[i].id.as_str().to_owned(),
            why: why.to_owned(),
            class: explained.name(explained.classes[i]),
            probability: explained.probabilities[i],
            label: explained.label_name(explained.label(i)),
            shares,
            features: order.iter().take(N_FEATURES).map(feature).collect(),
            image: given.image.as_ref().map(|_| parts.image.iter().map(|&part| f64::from(part)).sum()),
            error: parts.error(),
            image_png: drawn.map(|(shape, image)| STANDARD.encode(picture(image, shape))),
            neighbours: Vec::new(),
            overlay_png: drawn.zip(map).map(|((shape, image), map)| STANDARD.encode(overlay_of(image, shape, view(map, shape.size)))),
        }
    }
}

/// - size: rows of the image
fn view(map: &synovia_training::Map, size: usize) -> Map<'_> {
    let size = size.max(1) as f64;
    Map { height: map.height, width: map.width, values: &map.values, first: (map.first + 0.5) / size, step: map.stride as f64 / size }
}

/// Which part each modality has, over all examples.
fn modalities(explained: &Explained<'_>, shares: &[[f64; 3]]) -> Vec<ModalityShare> {
    let both: Vec<usize> =
        (0..shares.len()).filter(|&i| explained.given[i].image.is_some() && explained.given[i].record.is_some()).collect();
    if both.is_empty() {
        return Vec::new();
    }
    let of = |name: &str, at: usize| {
        let sizes: Vec<(usize, f64)> = both.iter().map(|&i| (i, shares[i][at].abs())).collect();
        let leads = both.iter().filter(|&&i| shares[i][at].abs() > shares[i][3 - at].abs()).count();
        ModalityShare { modality: name.to_owned(), size: mean(&explained.of_patients(&sizes)), leads, n_both: both.len() }
    };
    vec![of("image", 1), of("record", 2)]
}

/// Examples that show how the model is right, how it is wrong, and where it is unsure.
fn cases(explained: &Explained<'_>) -> Vec<(usize, String)> {
    let n = explained.given.len();
    let p = &explained.probabilities;
    let best = |wanted: &dyn Fn(usize) -> bool, score: &dyn Fn(usize) -> f64| {
        (0..n).filter(|&i| wanted(i)).reduce(|a, b| if score(b) > score(a) { b } else { a })
    };
    let mut chosen: Vec<(usize, String)> = Vec::new();
    let mut add = |found: Option<usize>, why: String| {
        if let Some(i) = found.filter(|i| chosen.iter().all(|(known, _)| known != i)) {
            chosen.push((i, why));
        }
    };
    match explained.task.kind {
        TaskKind::Binary => {
            let name = &explained.task.classes[0];
            add(best(&|i| explained.label(i) == 1 && p[i] > 0.5, &|i| p[i]), format!("The most sure of {name}, and right"));
            add(best(&|i| explained.label(i) == 0 && p[i] <= 0.5, &|i| -p[i]), format!("The most sure of no {name}, and right"));
            add(best(&|i| explained.label(i) == 0 && p[i] > 0.5, &|i| p[i]), format!("The most sure of {name}, and wrong"));
            add(best(&|i| explained.label(i) == 1 && p[i] <= 0.5, &|i| -p[i]), format!("The most sure of no {name}, and wrong"));
            add(best(&|_| true, &|i| -(p[i] - 0.5).abs()), "The least sure".to_owned());
        }
        TaskKind::Multiclass | TaskKind::Ordinal => {
            let is_right = |i: usize| explained.label(i) == explained.classes[i];
            add(best(&is_right, &|i| p[i]), "The most sure, and right".to_owned());
            add(best(&|i| !is_right(i), &|i| p[i]), "The most sure, and wrong".to_owned());
            add(best(&|_| true, &|i| -p[i]), "The least sure".to_owned());
        }
    }
    chosen
}
