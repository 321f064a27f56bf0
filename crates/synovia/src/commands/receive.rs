//! `synovia receive`: a C-STORE receiver that writes into a folder.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use synovia_images::{Receiver, Reception};
use synovia_serving::tls_config;

use super::Context;
use crate::cli::ReceiveArgs;
use crate::failure::print;

/// Receives until it is ended. Prints where it listens, then says how many instances came.
///
/// # Errors
/// When it can't listen or write.
pub fn receive(args: &ReceiveArgs, context: &Context) -> anyhow::Result<()> {
    let tls = args.tls.files()?.map(|files| tls_config(&files)).transpose()?.map(Arc::new);
    let listener = TcpListener::bind(&args.address).with_context(|| format!("{}: cannot listen there", args.address))?;
    let address = listener.local_addr().context("the address that it listens on")?;
    print(serde_json::json!({ "listening": address.to_string(), "title": args.title, "out": args.out }))?;
    let receiver = Receiver { folder: args.out.clone(), title: args.title.clone(), max_associations: args.associations, tls };
    let bar = context.progress.start("receive", None, "instances");
    let n_stored = AtomicU64::new(0);
    let report = |reception| match reception {
        Reception::Stored(_) => bar.set(n_stored.fetch_add(1, Ordering::Relaxed) + 1),
        Reception::Failed(what) => context.progress.note("receive", &what),
    };
    receiver.run(&listener, &report).with_context(|| args.out.display().to_string())?;
    Ok(())
}
