//! `synovia tune`: random search over settings of the joint model with successive halving (Jamieson & Talwalkar 2016, "Non-stochastic
//! best arm identification and hyperparameter optimization"), by the validation loss alone: test examples are not looked at.
//!
//! All trials are trained for a few epochs, the best third of them for three times as many, and so on; each time anew, since the
//! learning rate falls over the epochs that there are. The pipeline as it is goes through all rounds, so that what is won can be seen.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::str::FromStr;

use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use synovia_cohort::{CohortReader, Train};
use synovia_encoders::FeatureStatistics;
use synovia_training::{Together, TrainingError, fit_statistics};

use super::{Context, Work, stages};
use crate::cli::TuneArgs;
use crate::failure::{UsageError, print};
use crate::pipeline::{Pipeline, Start};
use crate::stages::place::Place;
use crate::stages::train::{self, Course};
use crate::stages::{cohort, ingest};

/// How many times fewer trials, and more epochs, each round has.
const FACTOR: usize = 3;
/// What was measured, a line a training, in the run folder.
const LOG: &str = "tune.jsonl";

/// A setting and what it may be: `KEY=VALUE,VALUE…`, `KEY=LOW..HIGH` (of whole numbers where both ends are written so) or
/// `KEY=log:LOW..HIGH`.
#[derive(Clone, Debug, PartialEq)]
pub struct Vary {
    key: String,
    of: Values,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    Listed(Vec<String>),
    Whole { low: i64, high: i64 },
    Between { low: f64, high: f64, by_logarithm: bool },
}

impl FromStr for Vary {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "write KEY=VALUE,VALUE or KEY=LOW..HIGH or KEY=log:LOW..HIGH, such as training.learning_rate=log:1e-4..1e-2";
        let (key, of) = text.split_once('=').ok_or(expected)?;
        let is_free = (key.starts_with("model.") || key.starts_with("training.")) && key != "training.epochs" && key != "training.threads";
        if !is_free {
            return Err(format!("`{key}` can't be varied: a setting of [model] or [training] can, but for the epochs and threads"));
        }
        let (range, by_logarithm) = of.strip_prefix("log:").map_or((of, false), |range| (range, true));
        let of = match range.split_once("..") {
            None if by_logarithm => return Err(expected.to_owned()),
            None => Values::Listed(of.split(',').map(|value| value.trim().to_owned()).collect()),
            Some((low, high)) => match (low.parse(), high.parse(), by_logarithm) {
                (Ok(low), Ok(high), false) if low < high => Values::Whole { low, high },
                _ => {
                    let (low, high): (f64, f64) = (low.parse().map_err(|_| expected)?, high.parse().map_err(|_| expected)?);
                    let is_range = low < high && low.is_finite() && high.is_finite() && (!by_logarithm || low > 0.0);
                    if !is_range {
                        return Err(format!("`{range}` is no range: the lower end comes first, and is above 0 for a logarithm"));
                    }
                    Values::Between { low, high, by_logarithm }
                }
            },
        };
        Ok(Self { key: key.to_owned(), of })
    }
}

impl Vary {
    /// `KEY=VALUE`, with numbers that can be read and typed.
    fn draw(&self, rng: &mut ChaCha8Rng) -> String {
        let value = match &self.of {
            Values::Listed(values) => values[rng.random_range(0..values.len())].clone(),
            Values::Whole { low, high } => rng.random_range(*low..=*high).to_string(),
            Values::Between { low, high, by_logarithm: true } => {
                three_digits(rng.random_range(low.ln()..high.ln()).exp().clamp(*low, *high))
            }
            Values::Between { low, high, by_logarithm: false } => three_digits(rng.random_range(*low..*high)),
        };
        format!("{}={value}", self.key)
    }
}

fn three_digits(value: f64) -> String {
    // What is read from these digits is shown shortly.
    format!("{value:.2e}").parse::<f64>().map_or_else(|_| value.to_string(), |rounded| format!("{rounded:?}"))
}

/// Epochs of each round, the last one those of the pipeline.
fn rounds(epochs: usize, n_rounds: usize) -> Vec<usize> {
    let mut rounds: Vec<usize> =
        (0..n_rounds).rev().map(|k| (epochs as f64 / (FACTOR as f64).powi(k as i32)).round().max(1.0) as usize).collect();
    rounds.dedup();
    rounds
}

/// What is left of `ranked`, best first, for the next round: the best third, and the pipeline as it is.
fn survivors(ranked: &[usize]) -> Vec<usize> {
    let mut left = ranked[..ranked.len().div_ceil(FACTOR)].to_vec();
    if !left.contains(&0) {
        left.push(0);
    }
    left
}

/// A line of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    /// Of the cohort and everything that decides what comes out.
    key: String,
    settings: Vec<String>,
    epochs: usize,
    /// `None` where the training diverged.
    validation_loss: Option<f64>,
}

/// Searches, and prints the settings with the lowest validation loss.
///
/// # Errors
/// A setting that can't be, or what training fails by.
pub fn tune(args: &TuneArgs, context: &Context) -> anyhow::Result<()> {
    let own = args.pipeline.read()?;
    if own.cohort.folds.is_some() {
        let what = "whom one fold validates on another tests: settings chosen so would be measured on patients that chose them. Tune with `split` in place of `folds`, on patients that are not in the folds";
        return Err(UsageError(what.to_owned()).into());
    }
    let mut rng = ChaCha8Rng::seed_from_u64(own.seed);
    let mut trials: Vec<(Vec<String>, Pipeline)> = Vec::new();
    for k in 0..args.trials {
        // Drawn for the first one too, which is the pipeline as it is.
        let drawn: Vec<String> = args.vary.iter().map(|vary| vary.draw(&mut rng)).collect();
        let settings = if k == 0 { Vec::new() } else { drawn };
        if trials.iter().any(|(known, _)| *known == settings) {
            continue;
        }
        let mut with = args.pipeline.clone();
        with.set.extend(settings.iter().cloned());
        let pipeline = with.read()?;
        if pipeline.training.privacy.is_some() {
            return Err(UsageError("each trial of a private training spends privacy: tune on other data".to_owned()).into());
        }
        trials.push((settings, pipeline));
    }
    let work = Work::open(&args.pipeline, context)?;
    if work.pipeline.training.start == Start::Alone {
        work.progress.note("tune", "trials begin with random weights: training.start = \"alone\" is left to the training after");
    }
    let ingested = ingest::run(&work)?;
    work.write_pipeline(&stages::hashes(&ingested))?;
    let place = &Place::all(None)[0];
    let aligned = cohort::run(&work, &ingested, place)?;
    stages::write_rejected(&work, &ingested, place)?;
    let reader = CohortReader::open(&place.path(&work.run, "cohort"))?;
    train::check_cohort(&work, place, &reader)?;
    let statistics = fit_statistics(&reader.view::<Train>())?;

    let data_key = aligned.key();
    let mut search = Search::open(&work, place, &reader, &statistics, data_key.as_str())?;
    let mut left: Vec<usize> = (0..trials.len()).collect();
    let mut losses: BTreeMap<usize, Vec<Option<f64>>> = BTreeMap::new();
    let rounds = rounds(work.pipeline.training.epochs, args.rounds);
    for (round, &epochs) in rounds.iter().enumerate() {
        for &trial in &left {
            let (settings, pipeline) = &trials[trial];
            losses.entry(trial).or_default().push(search.measure(trial, settings, pipeline, epochs)?);
        }
        let loss = |trial: &usize| losses[trial][round].unwrap_or(f64::INFINITY);
        left.sort_by(|a, b| loss(a).total_cmp(&loss(b)).then(a.cmp(b)));
        if round + 1 < rounds.len() {
            left = survivors(&left);
        }
    }
    report(&trials, &losses, &rounds, &left)
}

/// A search on one cohort, and what is known of it.
struct Search<'a> {
    work: &'a Work,
    place: &'a Place,
    reader: &'a CohortReader,
    statistics: &'a FeatureStatistics,
    data_key: &'a str,
    known: BTreeMap<String, Measured>,
    log: File,
}

impl<'a> Search<'a> {
    fn open(
        work: &'a Work,
        place: &'a Place,
        reader: &'a CohortReader,
        statistics: &'a FeatureStatistics,
        data_key: &'a str,
    ) -> anyhow::Result<Self> {
        let path = work.run.join(LOG);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let known = text.lines().filter_map(|line| serde_json::from_str::<Measured>(line).ok());
        let known = known.map(|line| (line.key.clone(), line)).collect();
        let mut log = File::options().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
        // A line that a kill cut short stays a line by itself, and is measured again.
        if !text.is_empty() && !text.ends_with('\n') {
            writeln!(log).with_context(|| path.display().to_string())?;
        }
        Ok(Self { work, place, reader, statistics, data_key, known, log })
    }

    /// Validation loss of the joint model after so many epochs, by training unless it is known; `None` where training diverged.
    fn measure(&mut self, trial: usize, settings: &[String], pipeline: &Pipeline, epochs: usize) -> anyhow::Result<Option<f64>> {
        let Self { work, place, reader, statistics, data_key, .. } = *self;
        let mut pipeline = pipeline.clone();
        if epochs < pipeline.training.epochs {
            // As in a training of so few epochs from the start.
            pipeline.training.warmup_epochs = pipeline.training.warmup_epochs.min(epochs as f64 / 5.0);
            pipeline.training.epochs = epochs;
        }
        let training = train::training_settings(&pipeline);
        let (_, model) = train::variants(&pipeline, reader)?.swap_remove(0);
        let start = train::image_weights(work, &pipeline, &model)?;
        let told =
            serde_json::to_string(&(&model, &training, start.as_ref().map(|(_, checkpoint)| checkpoint), pipeline.training.unlabelled))?;
        let key = hex::encode(Sha256::digest(format!("{data_key} {told} {}", env!("SYNOVIA_COMMIT"))));
        if let Some(measured) = self.known.get(&key) {
            return Ok(measured.validation_loss);
        }
        let name = format!("trial-{}-of-{epochs}", trial + 1);
        // Checkpoints of another program are not gone on from.
        let of_program = format!("{data_key} {}", env!("SYNOVIA_COMMIT"));
        let course = Course { work, place, data_key: &of_program, settings: &training, statistics, reader };
        let train = || {
            let of_images = train::from_images_alone(work, place, &pipeline, &model, reader, data_key)?;
            let start = start.as_ref().map(|(weights, _)| weights).or(of_images.as_ref());
            course.fit(&name, &model, start, &Together::new())
        };
        let validation_loss = match train() {
            Ok(trained) => Some(train::lowest_loss(&trained)),
            Err(error) if matches!(error.downcast_ref(), Some(TrainingError::Diverged { .. })) => None,
            Err(error) => return Err(error),
        };
        let measured = Measured { key, settings: settings.to_vec(), epochs, validation_loss };
        writeln!(self.log, "{}", serde_json::to_string(&measured)?).with_context(|| work.run.join(LOG).display().to_string())?;
        train::remove_checkpoints(work, place, &name)?;
        Ok(validation_loss)
    }
}

/// The trials, those that went furthest first, and how the best one is asked for.
fn report(
    trials: &[(Vec<String>, Pipeline)],
    losses: &BTreeMap<usize, Vec<Option<f64>>>,
    rounds: &[usize],
    last: &[usize],
) -> anyhow::Result<()> {
    let column = |cells: &mut dyn Iterator<Item = String>| cells.fold(String::new(), |line, cell| format!("{line}{cell:<12}"));
    let heads = column(&mut rounds.iter().map(|epochs| format!("{epochs} epochs")));
    print(format_args!("{:<8}{heads}settings", "trial"))?;
    let mut order: Vec<usize> = last.to_vec();
    let mut others: Vec<usize> = losses.keys().copied().filter(|trial| !last.contains(trial)).collect();
    let furthest = |trial: &usize| losses[trial].last().copied().flatten().unwrap_or(f64::INFINITY);
    others.sort_by(|a, b| losses[b].len().cmp(&losses[a].len()).then(furthest(a).total_cmp(&furthest(b))));
    order.append(&mut others);
    for trial in order {
        let told = |round: usize| match losses[&trial].get(round) {
            Some(Some(loss)) => format!("{loss:.4}"),
            Some(None) => "diverged".to_owned(),
            None => "–".to_owned(),
        };
        let by_round = column(&mut (0..rounds.len()).map(told));
        let (settings, _) = &trials[trial];
        let settings = if settings.is_empty() { "the pipeline as it is".to_owned() } else { settings.join(" ") };
        print(format_args!("{:<8}{by_round}{settings}", trial + 1))?;
    }
    // There are two trials at least, and the pipeline as it is goes through all rounds.
    let best = &trials[last[0]].0;
    if best.is_empty() {
        return print("The pipeline as it is has the lowest validation loss.");
    }
    print(format_args!("Lowest validation loss: {}", best.iter().map(|setting| format!("--set {setting}")).collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_varied() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let Some(expected) = expected else {
                assert!(text.parse::<Vary>().is_err(), "{text}");
                return;
            };
            let vary: Vary = text.parse().unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let mut drawn: Vec<String> = (0..60).map(|_| vary.draw(&mut rng)).collect();
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn, expected);
        };
        check("model.dropout=0.1,0.3", Some(&["model.dropout=0.1", "model.dropout=0.3"]));
        check("training.batch=7..9", Some(&["training.batch=7", "training.batch=8", "training.batch=9"]));
        for wrong in [
            "dropout=0.1,0.2",
            "images.size=32,64",
            "training.epochs=5,10",
            "model.dropout",
            "model.dropout=0.5..0.1",
            "training.learning_rate=log:0..1",
            "training.learning_rate=log:0.1,0.2",
            "training.learning_rate=1e-4..fast",
        ] {
            check(wrong, None);
        }
        let vary: Vary = "training.learning_rate=log:1e-4..1e-2".parse().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let drawn: Vec<f64> = (0..2000).map(|_| vary.draw(&mut rng).split_once('=').unwrap().1.parse().unwrap()).collect();
        assert!(drawn.iter().all(|rate| (1e-4..=1e-2).contains(rate)));
        let below = drawn.iter().filter(|rate| **rate < 1e-3).count();
        assert!((900..1100).contains(&below), "by the logarithm half lies below the middle: {below}");
        assert_eq!(
            (three_digits(0.012_345), three_digits(123_456.0), three_digits(0.5)),
            ("0.0123".into(), "123000.0".into(), "0.5".into())
        );
    }

    #[test]
    fn rounds_and_who_is_left() {
        assert_eq!(rounds(20, 3), [2, 7, 20]);
        assert_eq!(rounds(27, 4), [1, 3, 9, 27]);
        assert_eq!(rounds(2, 3), [1, 2]);
        assert_eq!(rounds(20, 1), [20]);
        assert_eq!(survivors(&[4, 2, 0, 1, 3, 5, 6]), [4, 2, 0]);
        assert_eq!(survivors(&[4, 2, 3, 1, 0]), [4, 2, 0]);
        assert_eq!(survivors(&[0, 1]), [0]);
        assert_eq!(survivors(&[1, 0]), [1, 0]);
    }
}
