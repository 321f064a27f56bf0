//! `synovia`: parse, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser;
use synovia::cli::{Cli, Command};
use synovia::commands::stages::Until;
use synovia::commands::{
    Context, audit, bench, compare, deidentify, federate, predict, receive, serve, simulate, stages, tune, verify_log,
};
use synovia::failure::{Failure, print};

/// The system's allocator keeps an arena a thread and gives little of it back: ingest grew from 26 MB at 1,000 patients
/// to 54 MB at 12,000 with it, and is flat with this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.global.json;
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_output() => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(json);
            failure.exit_code()
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let context = Context::new(&cli.global);
    match &cli.command {
        Command::Simulate(args) => simulate::simulate(args, &context)?,
        Command::Audit(args) => audit::audit(args, &context)?,
        Command::Compare(args) => compare::compare(args)?,
        Command::Ingest(args) => stages::run(args, &context, Until::Ingest)?,
        Command::Cohort(args) => match args.shard {
            None => stages::run(&args.pipeline, &context, Until::Cohort)?,
            Some(shard) => stages::run_shard(&args.pipeline, &context, shard)?,
        },
        Command::Merge(args) => stages::merge(args, &context)?,
        Command::Tune(args) => tune::tune(args, &context)?,
        Command::Train(args) => stages::run(args, &context, Until::Train)?,
        Command::Explain(args) => stages::run(args, &context, Until::Explain)?,
        Command::Evaluate(args) => stages::run(args, &context, Until::Evaluate)?,
        Command::Run(args) => stages::run(args, &context, Until::Export)?,
        Command::Export(args) => stages::export(args, &context)?,
        Command::Predict(args) => predict::predict(args, &context)?,
        Command::Serve(args) => serve::serve(args, &context)?,
        Command::VerifyLog(args) => verify_log::verify_log(args)?,
        Command::Federate(args) => federate::federate(args, &context)?,
        Command::Bench(args) => bench::bench(args, &context)?,
        Command::Deidentify(args) => deidentify::deidentify_folder(args, &context)?,
        Command::Receive(args) => receive::receive(args, &context)?,
        Command::InstallOnnxruntime(args) => {
            let path = synovia_onnx::install_runtime(&args.to)?;
            print(path.display())?;
        }
    }
    Ok(())
}
