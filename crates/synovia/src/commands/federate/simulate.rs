//! `synovia federate simulate`: a cohort divided into sites that go through the rounds of a federation one after another, each
//! by the code that a hospital runs.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;
use synovia_cohort::{CohortReader, CohortWriter, ExampleId, ExampleRow, Geometry, Manifest};
use synovia_evaluation::{Contribution, FederationReport, SiteGain, federation_html};
use synovia_federation::{Method, Partition, Statement, Terms, partition};

use super::gain::{Gain, Scored, gain};
use super::rounds::{Federated, run};
use super::site::{Site, prepare, statement};
use crate::cli::federate::SimulateArgs;
use crate::commands::{Context, Work};
use crate::failure::print;
use crate::stages::atomic::{atomic_dir, atomic_file, remove};
use crate::stages::attributes::add_attributes;
use crate::stages::cache::Stage;
use crate::stages::ingest::write_json;
use crate::stages::run_folder::RunFolder;
use crate::stages::run_stage;

/// Raised when the sites' cohorts come out otherwise for the same inputs.
const VERSION: u32 = 1;
/// Folder of all that a simulation writes.
const FOLDER: &str = "federation";

/// One site in the report.
#[derive(Serialize)]
struct SiteLine {
    site: String,
    n_train: u64,
    /// Modalities that it trains.
    image: bool,
    record: bool,
    /// Train labels of each class, by task.
    labels: BTreeMap<String, Vec<u64>>,
    /// The rounds in which its validation loss alone was lowest.
    best_round_alone: usize,
    /// By task: its model alone against what all made, on its own test split.
    tasks: BTreeMap<String, Gain>,
}

#[derive(Serialize)]
struct Report {
    plan: String,
    partition: String,
    method: String,
    rounds: usize,
    best_round: usize,
    hash: String,
    /// Bytes to and from all sites, all rounds.
    bytes: u64,
    seconds: f64,
    /// Loss after each round, over the validation examples of all sites.
    validation_losses: Vec<f64>,
    sites: Vec<SiteLine>,
    /// All sites' test splits: each site's model alone against what all made.
    pooled: BTreeMap<String, Gain>,
    /// All sites' test splits: a model trained on all data in one place against what all made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    central: BTreeMap<String, Gain>,
}

/// Runs it, writes `RUN/federation/report.json` and `report.html`, and prints a table.
pub fn simulate(args: &SimulateArgs, context: &Context) -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    let work = Work::open(&args.pipeline, context)?;
    let root = work.run.join(FOLDER);
    let folders = if let Some(parent) = &args.runs {
        run_folders(parent)?
    } else {
        let aligned = prepare(&work)?;
        divide(&work, &aligned, args)?.into_iter().map(|name| (name.clone(), root.join("sites").join(name))).collect()
    };
    let sites = folders.iter().map(|(name, run)| Site::open(name, run)).collect::<anyhow::Result<Vec<_>>>()?;
    let statements = sites.iter().map(|site| statement(&work, site)).collect::<anyhow::Result<Vec<Statement>>>()?;
    for (site, stated) in sites.iter().zip(&statements) {
        // With it the folder is all that a SuperNode needs.
        write_json(&folders[&site.name].join("statement.json"), stated)?;
    }
    let terms = args.terms.terms();
    let all: Vec<&Site> = sites.iter().collect();
    let together = run(&all, statements.clone(), &terms, &root.join("together"), &work.progress)?;
    // The same budget, nothing kept, nobody else.
    let alone_terms = Terms { method: Method::FedAvg, kept: synovia_federation::Kept::default(), least_sites: 1, ..terms.clone() };
    let seed = together.plan.training.seed;
    let (mut lines, mut pooled_alone, mut pooled) = (Vec::new(), None::<Scored>, None::<Scored>);
    for (site, stated) in sites.iter().zip(&statements) {
        let alone = run(&[site], vec![stated.clone()], &alone_terms, &root.join("alone").join(&site.name), &work.progress)?;
        let scored = |federated: &Federated| Scored::of(&federated.plan, &site.best(&federated.plan.digest())?, &site.reader);
        let (of_alone, of_together) = (scored(&alone)?, scored(&together)?);
        lines.push(SiteLine {
            site: site.name.clone(),
            n_train: stated.n_train,
            image: stated.model.image.is_some(),
            record: stated.model.record.is_some(),
            labels: stated.tasks.iter().zip(&stated.labels).map(|(task, counts)| (task.name.clone(), counts.clone())).collect(),
            best_round_alone: alone.best_round,
            tasks: gains(&together, &of_alone, &of_together, seed),
        });
        add(&mut pooled_alone, of_alone);
        add(&mut pooled, of_together);
    }
    let (pooled_alone, pooled) = pooled_alone.zip(pooled).context("no site")?;
    let central = if args.central { central(&work, &together, &sites, &alone_terms, &pooled)? } else { BTreeMap::new() };
    let report = Report {
        plan: together.plan.digest(),
        partition: if args.runs.is_some() { "runs".to_owned() } else { args.partition.to_string() },
        method: together.plan.method.to_string(),
        rounds: together.rounds.len(),
        best_round: together.best_round,
        hash: together.best()?.hash(),
        bytes: together.rounds.iter().map(|round| round.report.bytes).sum(),
        seconds: started.elapsed().as_secs_f64(),
        validation_losses: together.rounds.iter().map(|round| round.validation_loss).collect(),
        sites: lines,
        pooled: gains(&together, &pooled_alone, &pooled, seed),
        central,
    };
    write_json(&root.join("report.json"), &report)?;
    let page = root.join("report.html");
    let html = federation_html(&page_of(&work.pipeline.name, &report, &together));
    atomic_file(&page, |out| -> anyhow::Result<()> { out.write_all(html.as_bytes()).with_context(|| page.display().to_string()) })?;
    print_table(&report)?;
    print(page.display())
}

/// The run folders in a folder, by name: those with a cohort.
fn run_folders(parent: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let entries = std::fs::read_dir(parent).with_context(|| parent.display().to_string())?;
    let mut folders = BTreeMap::new();
    for entry in entries {
        let path = entry.with_context(|| parent.display().to_string())?.path();
        if path.join("cohort").is_dir() {
            folders.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path);
        }
    }
    if folders.is_empty() {
        bail!("{}: holds no run folder with a cohort; make them by `synovia federate state --run {0}/NAME --site NAME`", parent.display());
    }
    Ok(folders)
}

fn add(to: &mut Option<Scored>, more: Scored) {
    match to {
        Some(scored) => scored.extend(more),
        None => *to = Some(more),
    }
}

fn gains(together: &Federated, alone: &Scored, all: &Scored, seed: u64) -> BTreeMap<String, Gain> {
    together.plan.tasks.iter().enumerate().map(|(k, task)| (task.name.clone(), gain(alone, all, k, task, seed))).collect()
}

/// Divides the run's cohort, unless it is divided so already; returns the sites' names.
fn divide(work: &Work, aligned: &Stage, args: &SimulateArgs) -> anyhow::Result<Vec<String>> {
    let dir = work.run.join("cohort");
    let reader = CohortReader::open(&dir)?;
    let mut columns: HashMap<ExampleId, String> = HashMap::new();
    if let Partition::Site { column } = &args.partition {
        let mut attributes = BTreeMap::new();
        add_attributes(&dir, &reader, &mut attributes)?;
        let known = attributes.keys().cloned().collect::<Vec<_>>().join(", ");
        let attribute = attributes.remove(column);
        let attribute = attribute.with_context(|| format!("no column `{column}` to divide by in the features; there are: {known}"))?;
        columns.extend(attribute.groups);
    }
    let named = |row: &ExampleRow| columns.get(&row.id).cloned();
    let sites = partition(reader.rows(), args.sites, &args.partition, work.pipeline.seed, named)?;
    let settings = serde_json::json!({ "sites": args.sites, "partition": args.partition.to_string(), "seed": work.pipeline.seed });
    let stage = Stage::new("federation", VERSION, &settings)?.after(aligned);
    let outputs: Vec<String> = sites.iter().map(|(name, _)| format!("{FOLDER}/sites/{name}/cohort")).collect();
    run_stage(&stage, &work.run, &work.progress, &outputs.iter().map(String::as_str).collect::<Vec<_>>(), || {
        remove(&work.run.join(FOLDER))?;
        for (name, rows) in &sites {
            // A run folder like any other, in which `synovia federate fit` works too.
            let folder = RunFolder::open(&work.run.join(FOLDER).join("sites").join(name))?;
            let cohort = atomic_dir(&folder.join("cohort"))?;
            write_rows(&rows.iter().map(|row| (&reader, row)).collect::<Vec<_>>(), cohort.path())?;
            cohort.commit()?;
        }
        Ok(())
    })?;
    Ok(sites.into_iter().map(|(name, _)| name).collect())
}

/// A model trained on the data of all sites, in one place, against what all made.
fn central<'s>(
    work: &Work,
    together: &Federated,
    sites: &'s [Site],
    terms: &Terms,
    pooled: &Scored,
) -> anyhow::Result<BTreeMap<String, Gain>> {
    let of_site = |site: &'s Site| site.reader.rows().iter().map(move |row| (&site.reader, row));
    let mut rows: Vec<(&CohortReader, &ExampleRow)> = sites.iter().flat_map(of_site).collect();
    rows.sort_by(|a, b| a.1.id.cmp(&b.1.id));
    let folder = RunFolder::open(&work.run.join(FOLDER).join("central"))?;
    if !folder.join("cohort").exists() {
        let cohort = atomic_dir(&folder.join("cohort"))?;
        write_rows(&rows, cohort.path())?;
        cohort.commit()?;
    }
    let site = Site::open("central", folder.path())?;
    let stated = statement(work, &site)?;
    let federated = run(&[&site], vec![stated], terms, &folder.join("rounds"), &work.progress)?;
    let scored = Scored::of(&federated.plan, &site.best(&federated.plan.digest())?, &site.reader)?;
    Ok(gains(together, &scored, pooled, together.plan.training.seed))
}

/// Writes a cohort of rows of others, each with the pixels and features that it has there.
fn write_rows(rows: &[(&CohortReader, &ExampleRow)], dir: &Path) -> anyhow::Result<()> {
    let (first, _) = rows.first().context("no rows")?;
    let count = |has: fn(&ExampleRow) -> bool| rows.iter().filter(|(_, row)| has(row)).count();
    let manifest = Manifest {
        n_images: count(|row| row.image_row.is_some()),
        n_records: count(|row| row.record_row.is_some()),
        n_examples: rows.len(),
        ..first.manifest().clone()
    };
    let mut image = vec![0.0; manifest.geometry.map_or(0, Geometry::len)];
    let mut record = vec![0.0; manifest.features.len()];
    let writer = CohortWriter::create(dir, manifest)?;
    let (mut n_images, mut n_records) = (0, 0);
    let mut written = Vec::with_capacity(rows.len());
    for (reader, row) in rows {
        let mut here = (*row).clone();
        if reader.read_image(row, &mut image)? {
            writer.write_image(n_images, &image)?;
            here.image_row = Some(n_images as u32);
            n_images += 1;
        }
        if reader.read_record(row, &mut record)? {
            writer.write_record(n_records, &record)?;
            here.record_row = Some(n_records as u32);
            n_records += 1;
        }
        written.push(here);
    }
    Ok(writer.finish(&written)?)
}

/// What the page tells.
fn page_of(name: &str, report: &Report, together: &Federated) -> FederationReport {
    let gains = |site: &str, tasks: &BTreeMap<String, Gain>| -> Vec<SiteGain> {
        let of = |(task, gain): (&String, &Gain)| SiteGain {
            site: site.to_owned(),
            task: task.clone(),
            n: gain.n,
            alone: gain.alone,
            together: gain.together,
            gain: gain.gain.zip(gain.low.zip(gain.high)).map(|(gain, (low, high))| (gain, low, high)),
        };
        tasks.iter().map(of).collect()
    };
    let reports = || together.rounds.iter().flat_map(|round| &round.report.sites);
    let all: u64 = reports().map(|site| site.examples).sum();
    let contribution = |line: &SiteLine| {
        let own: Vec<_> = reports().filter(|site| site.site == line.site).collect();
        let norms = || own.iter().map(|site| site.norm_over_median);
        Contribution {
            site: line.site.clone(),
            n_train: line.n_train,
            has: (line.image, line.record),
            rounds: own.len(),
            share: own.iter().map(|site| site.examples).sum::<u64>() as f64 / all.max(1) as f64,
            norm: (norms().sum::<f64>() / own.len().max(1) as f64, norms().fold(0.0, f64::max)),
            bytes: own.iter().map(|site| site.bytes).sum(),
            epsilon: own.last().and_then(|site| site.epsilon),
        }
    };
    let refused = together.rounds.iter().flat_map(|round| {
        let line = |refusal: &synovia_federation::Refusal| format!("round {}: {}", round.report.round, refusal.reason);
        round.report.refused.iter().map(line).collect::<Vec<_>>()
    });
    FederationReport {
        name: name.to_owned(),
        partition: report.partition.clone(),
        method: report.method.clone(),
        best_round: report.best_round,
        hash: report.hash.clone(),
        bytes: report.bytes,
        validation_losses: report.validation_losses.clone(),
        sites: report.sites.iter().flat_map(|line| gains(&line.site, &line.tasks)).collect(),
        pooled: gains("all sites", &report.pooled),
        central: gains("all sites", &report.central),
        contributions: report.sites.iter().map(contribution).collect(),
        refused: refused.collect(),
    }
}

fn print_table(report: &Report) -> anyhow::Result<()> {
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
    let signed = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:+.3}"));
    print(format_args!("{:<12}{:>7}  {:<16}{:>6}  {:>7}{:>10}  gain (95 %)", "site", "train", "task", "test", "alone", "together"))?;
    let line = |site: &str, n_train: String, task: &str, gain: &Gain| {
        print(format_args!(
            "{site:<12}{n_train:>7}  {task:<16}{:>6}  {:>7}{:>10}  {} ({} to {})",
            gain.n,
            shown(gain.alone),
            shown(gain.together),
            signed(gain.gain),
            signed(gain.low),
            signed(gain.high)
        ))
    };
    for site in &report.sites {
        for (task, gain) in &site.tasks {
            line(&site.site, site.n_train.to_string(), task, gain)?;
        }
    }
    let n_train: u64 = report.sites.iter().map(|site| site.n_train).sum();
    for (task, gain) in &report.pooled {
        line("all sites", n_train.to_string(), task, gain)?;
    }
    for (task, gain) in &report.central {
        line("one place", n_train.to_string(), task, gain)?;
    }
    let mebibytes = report.bytes as f64 / f64::from(1 << 20);
    let what = format!("{} of {} rounds, best {}", report.method, report.rounds, report.best_round);
    print(format_args!("{what}; {mebibytes:.1} MiB between sites and coordinator; weights {}", &report.hash[..16]))
}
