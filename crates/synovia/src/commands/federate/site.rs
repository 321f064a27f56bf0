//! A site's part: what it states, its rounds, and what it keeps between them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;
use synovia_cohort::CohortReader;
use synovia_federation::{FederationError, Global, Plan, Statement, Update, Validated, ValidationSums, fit_round, validate_round};
use synovia_training::{Checkpoint, NoiseKey, Progress as Told, Weights};

use super::gain::{Scored, TestScore, score};
use super::{print_json, read_global, write};
use crate::cli::federate::{EvaluateArgs, FitArgs, SiteArgs, StateArgs};
use crate::commands::{Context, Work};
use crate::failure::UsageError;
use crate::progress::Progress;
use crate::stages::ingest::{read_json, write_json};
use crate::stages::place::Place;
use crate::stages::run_folder::RunFolder;
use crate::stages::{cohort, ingest, train};

/// A site that trains here.
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its cohort.
    pub reader: CohortReader,
    /// Its own folder in the run: what it keeps of each federation.
    folder: PathBuf,
}

impl Site {
    /// With the cohort of a run folder.
    pub fn open(name: &str, run: &Path) -> anyhow::Result<Self> {
        let reader = CohortReader::open(&run.join("cohort"))
            .with_context(|| format!("{}: no cohort of the site `{name}`; run `synovia cohort` there first", run.display()))?;
        Ok(Self { name: name.to_owned(), reader, folder: run.join("federation") })
    }

    fn kept(&self, digest: &str) -> PathBuf {
        self.folder.join(&digest[..digest.len().min(16)])
    }

    fn state_path(&self, digest: &str, round: usize) -> PathBuf {
        self.kept(digest).join(format!("state-{round:05}.safetensors"))
    }

    /// What it kept of its last round up to `round`; nothing before its first one.
    fn state(&self, digest: &str, round: usize) -> anyhow::Result<Option<Checkpoint>> {
        let last = self.rounds_kept(digest)?.into_iter().filter(|kept| *kept <= round).max();
        let Some(last) = last else { return Ok(None) };
        let path = self.state_path(digest, last);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let state = Checkpoint::decode(&bytes, digest);
        Ok(Some(state.with_context(|| format!("{}: not as it was written; remove it to begin with no history", path.display()))?))
    }

    fn rounds_kept(&self, digest: &str) -> anyhow::Result<Vec<usize>> {
        let dir = self.kept(digest);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| dir.display().to_string()),
        };
        let mut rounds = Vec::new();
        for entry in entries {
            let name = entry.with_context(|| dir.display().to_string())?.file_name();
            let number: Option<usize> =
                name.to_str().and_then(|name| name.strip_prefix("state-")?.strip_suffix(".safetensors")?.parse().ok());
            rounds.extend(number);
        }
        Ok(rounds)
    }

    /// Its part of the round after `global`, as it sends it. What it kept of the round before stays, so that a round that was
    /// lost on the way can be done again, to the same bits.
    pub fn fit(&self, plan: &Plan, global: &Global, progress: &Progress) -> anyhow::Result<Vec<u8>> {
        let digest = plan.digest();
        let state = self.state(&digest, global.round)?;
        let bar = progress.start(&format!("{} round {}", self.name, global.round + 1), None, "steps");
        let mut steps = 0;
        let key = self.kept(&digest).join("noise.key");
        let noise = plan.training.privacy.map(|_| NoiseKey::open(&key)).transpose()?;
        if noise.is_some() {
            self.spend_once(&digest, global)?;
        }
        let (update, kept) = fit_round(plan, &self.name, global, state.as_ref(), &self.reader, noise.as_ref(), &mut |told| {
            if let Told::Step { epoch, loss, examples_per_s, .. } = told {
                steps += 1;
                bar.set(steps);
                bar.message(format!("epoch {epoch}, loss {loss:.3}, {examples_per_s:.0} examples/s"));
            }
        })?;
        let losses: Vec<String> = update.losses.iter().map(|loss| format!("{loss:.3}")).collect();
        bar.finish(&match update.epsilon {
            Some(epsilon) => format!("ε {epsilon:.3} so far"),
            None => format!("losses {}", losses.join(" ")),
        });
        let dir = self.kept(&digest);
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        write(&self.state_path(&digest, update.round), &kept.encode()?)?;
        for old in self.rounds_kept(&digest)?.into_iter().filter(|kept| kept + 1 < update.round) {
            let path = self.state_path(&digest, old);
            std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        Ok(Update::encode(&update)?)
    }

    /// Refuses to train a round from other weights than before: ε is counted for one training of each round.
    fn spend_once(&self, digest: &str, global: &Global) -> anyhow::Result<()> {
        let path = self.kept(digest).join("trained.json");
        let mut trained: BTreeMap<usize, String> = if path.exists() { read_json(&path)? } else { BTreeMap::new() };
        let hash = global.hash();
        let before = trained.entry(global.round + 1).or_insert_with(|| hash.clone());
        if *before != hash {
            bail!(
                "round {} was trained privately already, from other weights ({}); once more would spend more of the patients' privacy than is counted",
                global.round + 1,
                &before[..before.len().min(16)]
            );
        }
        write_json(&path, &trained)
    }

    /// The shared weights at the site, on its validation split.
    pub fn validate(&self, plan: &Plan, global: &Global) -> anyhow::Result<Validated> {
        Ok(validate_round(plan, &self.name, global, self.state(&plan.digest(), global.round)?.as_ref(), &self.reader)?)
    }

    /// Keeps the weights that it would work with.
    pub fn keep_best(&self, digest: &str, weights: &Weights) -> anyhow::Result<()> {
        let dir = self.kept(digest);
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        write(&dir.join("best.safetensors"), &synovia_training::encode_weights(weights, digest)?)
    }

    /// What [`Site::keep_best`] kept.
    pub fn best(&self, digest: &str) -> anyhow::Result<Weights> {
        let path = self.kept(digest).join("best.safetensors");
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(synovia_training::decode_weights(&bytes).with_context(|| path.display().to_string())?.0)
    }
}

/// What the pipeline of a run would train on its cohort.
pub fn statement(work: &Work, site: &Site) -> anyhow::Result<Statement> {
    let (_, model) = train::variants(&work.pipeline, &site.reader)?.swap_remove(0);
    Ok(Statement::of(&site.name, &model, &train::training_settings(&work.pipeline), &site.reader)?)
}

/// Runs the pipeline up to its cohort.
pub fn prepare(work: &Work) -> anyhow::Result<crate::stages::cache::Stage> {
    if work.pipeline.cohort.folds.is_some() {
        return Err(UsageError("a federation has no folds: take `folds` out of [cohort]".to_owned()).into());
    }
    if !work.pipeline.tasks.endpoints.is_empty() {
        let why = "a federation trains tasks with classes: take those of kind regression, survival and treatment out of [[task]]";
        return Err(UsageError(why.to_owned()).into());
    }
    let training = &work.pipeline.training;
    if !training.start.is_random() || training.unlabelled > 0 || work.pipeline.model.image_weights.is_some() {
        let why = "a federation begins with weights that are drawn at random; leave training.start, training.unlabelled and model.image_weights out";
        return Err(UsageError(why.to_owned()).into());
    }
    let ingested = ingest::run(work)?;
    cohort::run(work, &ingested, &Place::all(None)[0])
}

/// `synovia federate state`
pub fn state(args: &StateArgs, context: &Context) -> anyhow::Result<()> {
    let work = Work::open(&args.pipeline, context)?;
    prepare(&work)?;
    let site = Site::open(&args.site, work.run.path())?;
    write_json(&args.out, &statement(&work, &site)?)
}

fn open(args: &SiteArgs, context: &Context) -> anyhow::Result<(RunFolder, Site, Plan, Global)> {
    context.use_threads(None)?;
    if !args.run.join("cohort").is_dir() {
        bail!("{}: holds no cohort; run `synovia federate state` with this run folder first", args.run.display());
    }
    let run = RunFolder::open(&args.run)?;
    let plan: Plan = read_json(&args.plan)?;
    let site = Site::open(&args.site, &args.run)?;
    let manifest = site.reader.manifest();
    if manifest.tasks != plan.tasks || (!manifest.features.is_empty() && manifest.features != plan.features) {
        bail!("{}: its tasks or features are not those of the plan; state them again and agree anew", args.run.display());
    }
    Ok((run, site, plan, read_global(&args.weights)?))
}

/// `synovia federate fit`
pub fn fit(args: &FitArgs, context: &Context) -> anyhow::Result<()> {
    let (_run, site, plan, global) = open(&args.site, context)?;
    write(&args.out, &site.fit(&plan, &global, &context.progress)?)
}

#[derive(Serialize)]
struct Evaluated {
    site: String,
    round: usize,
    hash: String,
    /// Sums that the coordinator adds to those of other sites.
    validation: ValidationSums,
    /// The loss on this site's validation split alone, in units of an uninformed guess.
    validation_loss: f64,
    /// By task.
    test: BTreeMap<String, TestScore>,
}

/// `synovia federate evaluate`
pub fn evaluate(args: &EvaluateArgs, context: &Context) -> anyhow::Result<()> {
    let (_run, site, plan, global) = open(&args.site, context)?;
    let Validated { weights, sums } = site.validate(&plan, &global)?;
    let scored = Scored::of(&plan, &weights, &site.reader)?;
    let validation_loss = ValidationSums::loss(&plan, &[&sums]);
    if !validation_loss.is_finite() {
        return Err(FederationError::Damaged { what: "the shared weights", why: "their loss is not finite".to_owned() }.into());
    }
    print_json(&Evaluated {
        site: site.name.clone(),
        round: global.round,
        hash: global.hash(),
        validation: sums,
        validation_loss,
        test: plan.tasks.iter().enumerate().map(|(k, task)| (task.name.clone(), score(&scored, k, task, plan.training.seed))).collect(),
    })
}
