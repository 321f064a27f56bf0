//! `synovia federate`: a site's and the coordinator's parts of a federation, and a simulation of all of them.

mod gain;
mod rounds;
mod simulate;
mod site;

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use synovia_federation::{Global, Kept, Plan, ServerState, Statement, Terms, Unmerged, aggregate, agree};
use synovia_training::accountant::epsilon;
use synovia_training::{decode_weights, encode_weights};

use super::Context;
use crate::cli::federate::{AccountArgs, AggregateArgs, AgreeArgs, FederateArgs, FederateCommand, Keep, TermsArgs};
use crate::failure::{UsageError, print};
use crate::stages::StageError;
use crate::stages::atomic::atomic_file;
use crate::stages::ingest::{read_json, write_json};

/// Does one part.
pub fn federate(args: &FederateArgs, context: &Context) -> anyhow::Result<()> {
    match &args.what {
        FederateCommand::Simulate(args) => simulate::simulate(args, context),
        FederateCommand::State(args) => site::state(args, context),
        FederateCommand::Agree(args) => agree_all(args, context),
        FederateCommand::Fit(args) => site::fit(args, context),
        FederateCommand::Aggregate(args) => aggregate_round(args, context),
        FederateCommand::Evaluate(args) => site::evaluate(args, context),
        FederateCommand::Account(args) => account(args),
    }
}

impl TermsArgs {
    fn terms(&self) -> Terms {
        Terms {
            rounds: self.rounds,
            local_epochs: self.local_epochs,
            method: self.method,
            kept: Kept {
                norms: self.keep.contains(&Keep::Norms),
                heads: self.keep.contains(&Keep::Heads),
                statistics: self.keep.contains(&Keep::Statistics),
            },
            least_examples: self.least_examples,
            least_sites: self.least_sites,
        }
    }
}

fn agree_all(args: &AgreeArgs, context: &Context) -> anyhow::Result<()> {
    context.use_threads(None)?;
    let statements = args.statements.iter().map(|path| read_json::<Statement>(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let (plan, global) = agree(statements, &args.terms.terms())?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    write_json(&args.out.join("plan.json"), &plan)?;
    write(&args.out.join("weights.safetensors"), &global.encode()?)?;
    print(serde_json::json!({ "plan": plan.digest(), "sites": plan.sites, "rounds": plan.rounds, "hash": global.hash() }))
}

fn aggregate_round(args: &AggregateArgs, context: &Context) -> anyhow::Result<()> {
    context.use_threads(None)?;
    let plan: Plan = read_json(&args.plan)?;
    let global = read_global(&args.weights)?;
    let read = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(Unmerged { from: path.display().to_string(), bytes })
    };
    let updates = args.updates.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    let mut server = match &args.moments {
        Some(path) => read_server(path)?,
        None if matches!(plan.method, synovia_federation::Method::FedAdam { .. }) => {
            return Err(UsageError("fedadam remembers its steps from round to round; say where with --moments FILE".to_owned()).into());
        }
        None => ServerState::default(),
    };
    let (next, report) = aggregate(&plan, &global, &updates, &mut server)?;
    if let Some(path) = &args.moments {
        write(path, &encode_weights(&server.moments, "moments")?)?;
    }
    write(&args.out, &next.encode()?)?;
    print(serde_json::to_string(&report)?)
}

fn account(args: &AccountArgs) -> anyhow::Result<()> {
    let AccountArgs { sampling, noise, steps, delta } = *args;
    let epsilon = epsilon(sampling, noise, steps, delta)
        .ok_or_else(|| UsageError("--sampling is from 0 to 1, --noise not negative, and --delta between 0 and 1".to_owned()))?;
    // JSON has no infinity: without noise there is no bound.
    let epsilon = epsilon.is_finite().then_some(epsilon);
    print(serde_json::json!({ "epsilon": epsilon, "delta": delta, "sampling": sampling, "noise": noise, "steps": steps }))
}

fn read_server(path: &Path) -> anyhow::Result<ServerState> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(ServerState { moments: decode_weights(&bytes).with_context(|| path.display().to_string())?.0 }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(ServerState::default()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn read_global(path: &Path) -> anyhow::Result<Global> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Global::decode(&bytes).with_context(|| path.display().to_string())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(atomic_file(path, |out| out.write_all(bytes).map_err(|source| StageError::Io { path: path.to_owned(), source }))?)
}

/// One JSON line.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(serde_json::to_string(value)?)
}
