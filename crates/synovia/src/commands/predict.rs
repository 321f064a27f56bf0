//! `synovia predict`: an exported file, images and records to a JSON line an example. Uses nothing but the file.

use anyhow::{Context as _, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use synovia_cohort::RejectedLog;
use synovia_images::{ImagesError, Login, Server, Source};
use synovia_onnx::Session;
use synovia_prediction::{Exported, Pictures, for_each_example, records};

use super::Context;
use crate::cli::PredictArgs;
use crate::failure::{UsageError, print};
use crate::pipeline::address;

/// Prints a JSON line an example; what was not taken goes to stderr, and what is wrong with all of it is an error.
pub fn predict(args: &PredictArgs, context: &Context) -> anyhow::Result<()> {
    context.use_threads(None)?;
    let bytes =
        std::fs::read(&args.model).with_context(|| format!("{}: give a model.onnx that `synovia export` wrote", args.model.display()))?;
    let hash = hex::encode(Sha256::digest(&bytes));
    let mut session = Session::from_bytes(&bytes, context.global.threads).with_context(|| args.model.display().to_string())?;
    let exported = Exported::of(&session).with_context(|| args.model.display().to_string())?;

    let log = RejectedLog::to_writer(Box::new(std::io::stderr()));
    let scratch = tempfile::tempdir().context("a temporary folder")?;
    let pictures = match &args.images {
        Some(_) if exported.preparation.is_none() => {
            return Err(UsageError("this model looks at records only; leave --images out".to_owned()).into());
        }
        Some(path) => match address(path) {
            Some(url) => {
                let server = Server::new(url, Login::None, Vec::new()).map_err(ImagesError::Server)?;
                Pictures::of(Source::server(server), &exported, scratch.path(), &log)?
            }
            None => Pictures::find(path, &exported, scratch.path(), &log)?,
        },
        None => Pictures::default(),
    };
    let store = match (&args.records, exported.records.as_ref()) {
        (Some(path), Some(format)) => Some(records(path, format, args.images.is_some(), scratch.path(), &log)?),
        (Some(_), None) => return Err(UsageError("this model looks at images only; leave --records out".to_owned()).into()),
        _ => None,
    };
    let mut n_examples = 0;
    let mut unlinked =
        |n: u64, reason: &str| context.progress.note("predict", &format!("{n} studies are not linked to a record: {reason}"));
    for_each_example(&pictures, store.as_ref(), &exported, &log, &mut unlinked, &mut |example| -> anyhow::Result<()> {
        n_examples += 1;
        let inputs = exported.inputs(&example);
        let views: Vec<_> = inputs.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice())).collect();
        let mut answer = json!(exported.answer(&example, &session.run(&views)?));
        answer["model"] = json!(hash);
        print(answer)
    })?;
    if n_examples == 0 {
        bail!("no image and no record that could be read; the reasons are above");
    }
    Ok(())
}
