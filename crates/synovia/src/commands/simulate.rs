//! `synovia simulate`.

use synovia_simulation::{Noise, SimulationConfig};

use super::Context;
use crate::cli::{self, SimulateArgs};
use crate::failure::print;

/// Writes a simulated cohort and prints what it holds.
pub fn simulate(args: &SimulateArgs, context: &Context) -> anyhow::Result<()> {
    context.use_threads(None)?;
    let config = SimulationConfig {
        n_patients: args.patients,
        seed: args.seed,
        missing_image: args.missing_image,
        missing_record: args.missing_record,
        noise: args.noise.map(|noise| match noise {
            cli::Noise::Image => Noise::Image,
            cli::Noise::Record => Noise::Record,
        }),
    };
    let bar = context.progress.start("simulate", Some(args.patients as u64), "patients");
    let summary = synovia_simulation::simulate(&config, &args.out, &|done| bar.set(done))?;
    bar.finish("");
    if context.global.json {
        print(serde_json::to_string(&summary)?)?;
    }
    Ok(())
}
