//! `synovia federate …`

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueEnum};
use synovia_federation::{Method, Partition};

use super::PipelineArgs;

/// `synovia federate`
#[derive(Args, Clone, Debug)]
pub struct FederateArgs {
    /// What to do
    #[command(subcommand)]
    pub what: FederateCommand,
}

/// Parts of a federation.
#[derive(Clone, Debug, Subcommand)]
pub enum FederateCommand {
    /// Many sites in one process: one cohort divided, rounds as between hospitals, and what each site gains by joining
    #[command(after_help = "Example: synovia federate simulate pipelines/lung.toml --sites 3 --partition dirichlet:0.3 --rounds 20")]
    Simulate(SimulateArgs),
    /// At a site: counts and sums over its train split, and its settings, before the first round
    #[command(after_help = "Example: synovia federate state pipelines/lung.toml --site north --out north.json")]
    State(StateArgs),
    /// At the coordinator: the plan and the first weights, from what the sites state
    #[command(after_help = "Example: synovia federate agree north.json south.json --rounds 20 --out federation")]
    Agree(AgreeArgs),
    /// At a site: one round of training, from shared weights to the site's own and how many examples trained each
    #[command(
        after_help = "Example: synovia federate fit --run runs/north --site north --plan plan.json --weights round.safetensors --out north.safetensors"
    )]
    Fit(FitArgs),
    /// At the coordinator: the updates of a round to the next shared weights
    #[command(
        after_help = "Example: synovia federate aggregate --plan plan.json --weights 0.safetensors --out 1.safetensors north.safetensors south.safetensors"
    )]
    Aggregate(AggregateArgs),
    /// At a site: the shared weights on its validation and test splits
    #[command(after_help = "Example: synovia federate evaluate --run runs/north --site north --plan plan.json --weights 1.safetensors")]
    Evaluate(EvaluateArgs),
    /// What a training with noise would cost in privacy: ε of the sampled Gaussian mechanism
    #[command(after_help = "Example: synovia federate account --sampling 0.01 --noise 1 --steps 1000 --delta 1e-5")]
    Account(AccountArgs),
}

/// What stays at each site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    /// Batch normalisation
    Norms,
    /// The tasks' heads
    Heads,
    /// The means and deviations that features are standardised by
    Statistics,
}

/// What the coordinator sets.
#[derive(Args, Clone, Debug)]
pub struct TermsArgs {
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub rounds: usize,
    /// Passes of a site over its examples in a round
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub local_epochs: usize,
    /// How weights are put together: fedavg, fedprox:STRENGTH, fedadam:RATE or scaffold
    #[arg(long, value_name = "METHOD", default_value = "fedavg")]
    pub method: Method,
    /// What stays at each site; may be repeated
    #[arg(long, value_name = "WHAT")]
    pub keep: Vec<Keep>,
    /// Training examples that a site must have
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub least_examples: u64,
    /// Updates without which a round fails
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub least_sites: usize,
}

/// `synovia federate simulate`
#[derive(Args, Clone, Debug)]
pub struct SimulateArgs {
    /// The pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Sites
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub sites: usize,
    /// How the cohort is divided: even, dirichlet:CONCENTRATION, modality or site:COLUMN
    #[arg(long, value_name = "P", default_value = "even")]
    pub partition: Partition,
    /// A folder of run folders with a cohort each (`synovia federate state`): these are the sites, and nothing is divided
    #[arg(long, value_name = "DIR", conflicts_with_all = ["sites", "partition"])]
    pub runs: Option<PathBuf>,
    /// What the coordinator sets.
    #[command(flatten)]
    pub terms: TermsArgs,
    /// Train on all sites' data in one place too, and hold the federation against it
    #[arg(long)]
    pub central: bool,
}

/// `synovia federate state`
#[derive(Args, Clone, Debug)]
pub struct StateArgs {
    /// The pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// The site's name
    #[arg(long, value_name = "NAME")]
    pub site: String,
    /// File to write
    #[arg(long, value_name = "FILE.json")]
    pub out: PathBuf,
}

/// `synovia federate agree`
#[derive(Args, Clone, Debug)]
pub struct AgreeArgs {
    /// Statements of all sites
    #[arg(value_name = "STATEMENT.json", required = true, num_args = 1..)]
    pub statements: Vec<PathBuf>,
    /// What the coordinator sets.
    #[command(flatten)]
    pub terms: TermsArgs,
    /// Folder for plan.json and weights.safetensors
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// A site, and what it is sent.
#[derive(Args, Clone, Debug)]
pub struct SiteArgs {
    /// The site's run folder, with its cohort
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// The site's name
    #[arg(long, value_name = "NAME")]
    pub site: String,
    /// The plan
    #[arg(long, value_name = "FILE.json")]
    pub plan: PathBuf,
    /// The shared weights
    #[arg(long, value_name = "FILE.safetensors")]
    pub weights: PathBuf,
}

/// `synovia federate fit`
#[derive(Args, Clone, Debug)]
pub struct FitArgs {
    /// The site, and what it is sent.
    #[command(flatten)]
    pub site: SiteArgs,
    /// File for its update
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
}

/// `synovia federate aggregate`
#[derive(Args, Clone, Debug)]
pub struct AggregateArgs {
    /// The sites' updates
    #[arg(value_name = "UPDATE.safetensors", required = true, num_args = 1..)]
    pub updates: Vec<PathBuf>,
    /// The plan
    #[arg(long, value_name = "FILE.json")]
    pub plan: PathBuf,
    /// The shared weights that the sites began with
    #[arg(long, value_name = "FILE.safetensors")]
    pub weights: PathBuf,
    /// File for the next shared weights
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
    /// What fedadam remembers; read where it is there, and written
    #[arg(long, value_name = "FILE.safetensors")]
    pub moments: Option<PathBuf>,
}

/// `synovia federate evaluate`
#[derive(Args, Clone, Debug)]
pub struct EvaluateArgs {
    /// The site, and what it is sent.
    #[command(flatten)]
    pub site: SiteArgs,
}

/// `synovia federate account`
#[derive(Args, Clone, Debug)]
pub struct AccountArgs {
    /// Chance that an example is in a step's batch
    #[arg(long, value_name = "Q")]
    pub sampling: f64,
    /// Standard deviation of the noise over the norm that gradients are clipped to
    #[arg(long, value_name = "SIGMA")]
    pub noise: f64,
    /// Steps
    #[arg(long, value_name = "T")]
    pub steps: u64,
    /// Chance that the bound may fail
    #[arg(long, value_name = "DELTA")]
    pub delta: f64,
}
