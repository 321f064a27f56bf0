//! The rounds of a federation whose sites are all in this process.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use synovia_federation::{Global, Plan, RoundReport, Statement, Terms, Unmerged, ValidationSums, aggregate, agree};
use synovia_training::encode_weights;

use super::site::Site;
use super::{read_global, read_server, write};
use crate::progress::Progress;
use crate::stages::ingest::{read_json, write_json};

/// One finished round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// What the coordinator did.
    #[serde(flatten)]
    pub report: RoundReport,
    /// Loss of what all share over the validation examples of all sites, in units of an uninformed guess.
    pub validation_loss: f64,
}

/// A finished federation.
pub struct Federated {
    /// What was agreed.
    pub plan: Plan,
    /// Its rounds.
    pub rounds: Vec<Round>,
    /// The round with the lowest validation loss, from 1.
    pub best_round: usize,
    /// Where its files are.
    pub folder: PathBuf,
}

impl Federated {
    /// What all shared after the best round.
    pub fn best(&self) -> anyhow::Result<Global> {
        read_global(&self.folder.join("best.safetensors"))
    }
}

fn round_path(folder: &Path, round: usize) -> PathBuf {
    folder.join(format!("round-{round:05}.safetensors"))
}

fn moments_path(folder: &Path, round: usize) -> PathBuf {
    folder.join(format!("moments-{round:05}.safetensors"))
}

/// Raised when the same plan gives other weights or another choice of rounds.
const VERSION: u32 = 4;

/// Runs all rounds, in a folder of `parent` that is named for the plan; goes on after the last round that is whole.
///
/// A round is whole when `rounds.json` says so. What a killed one left is made again, to the same bits: sites keep what they
/// began it with.
pub fn run(sites: &[&Site], statements: Vec<Statement>, terms: &Terms, parent: &Path, progress: &Progress) -> anyhow::Result<Federated> {
    let (plan, first) = agree(statements, terms)?;
    let digest = plan.digest();
    let folder = parent.join(format!("{}-{VERSION}", &digest[..16]));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    write_json(&folder.join("plan.json"), &plan)?;
    let rounds_path = folder.join("rounds.json");
    let mut rounds: Vec<Round> = if rounds_path.exists() { read_json(&rounds_path)? } else { Vec::new() };
    let mut global = match rounds.len() {
        0 => first,
        done => {
            progress.note("federate", &format!("goes on after round {done} of {}", plan.rounds));
            read_global(&round_path(&folder, done))?
        }
    };
    while rounds.len() < plan.rounds {
        let round = rounds.len() + 1;
        let mut server = read_server(&moments_path(&folder, round - 1))?;
        let mut updates = Vec::with_capacity(sites.len());
        for site in sites {
            updates.push(Unmerged { from: site.name.clone(), bytes: site.fit(&plan, &global, progress)? });
        }
        let (next, report) = aggregate(&plan, &global, &updates, &mut server)?;
        let validated = sites.iter().map(|site| Ok((site, site.validate(&plan, &next)?))).collect::<anyhow::Result<Vec<_>>>()?;
        let validation_loss = ValidationSums::loss(&plan, &validated.iter().map(|(_, validated)| &validated.sums).collect::<Vec<_>>());
        if rounds.iter().all(|before| validation_loss < before.validation_loss) {
            write(&folder.join("best.safetensors"), &next.encode()?)?;
            for (site, validated) in &validated {
                site.keep_best(&digest, &validated.weights)?;
            }
        }
        if !server.moments.is_empty() {
            write(&moments_path(&folder, round), &encode_weights(&server.moments, "moments")?)?;
        }
        write(&round_path(&folder, round), &next.encode()?)?;
        progress
            .note("federate", &format!("round {round} of {}: validation loss {validation_loss:.4}, {}", plan.rounds, &report.hash[..16]));
        rounds.push(Round { report, validation_loss });
        write_json(&rounds_path, &rounds)?;
        for old in [round_path(&folder, round.wrapping_sub(2)), moments_path(&folder, round.wrapping_sub(2))] {
            if old.exists() {
                std::fs::remove_file(&old).with_context(|| old.display().to_string())?;
            }
        }
        global = next;
    }
    let mut best_round = 1;
    for (k, round) in rounds.iter().enumerate() {
        if round.validation_loss < rounds[best_round - 1].validation_loss {
            best_round = k + 1;
        }
    }
    Ok(Federated { plan, rounds, best_round, folder })
}
