//! `synovia serve`: the server of exported models.

use std::ffi::OsString;
use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _};
use synovia_images::Login;
use synovia_pacs::Archive;
use synovia_serving::{Client, Pacs, Role, Settings};

use super::Context;
use crate::cli::{Cli, Command, Global, ServeArgs};
use crate::failure::{UsageError, print};

/// Environment variable with the token.
const TOKEN: &str = "SYNOVIA_TOKEN";
/// Environment variable with the collector of traces.
const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// Environment variables with the login of the image archive.
const PACS: [&str; 3] = ["SYNOVIA_PACS_USER", "SYNOVIA_PACS_PASSWORD", "SYNOVIA_PACS_TOKEN"];

/// Serves until it is told to end (SIGTERM, SIGINT). Prints where it listens.
///
/// # Errors
/// When it can't listen, or no model can be loaded.
pub fn serve(args: &ServeArgs, context: &Context) -> anyhow::Result<()> {
    give_back_memory();
    let (args, global) = match &args.config {
        Some(path) => configured(path)?,
        None => (args.clone(), context.global.clone()),
    };
    let (args, context) = (&args, &Context::new(&global));
    if args.pacs_store && args.pacs.is_none() {
        return Err(UsageError("--pacs-store needs --pacs".to_owned()).into());
    }
    let tls = args.tls.files()?;
    let Some(models) = &args.models else {
        return Err(UsageError("there are no models: say --models, or `models` in the file".to_owned()).into());
    };
    context.use_threads(None)?;
    let clients = clients(args.token_file.as_deref())?;
    if clients.is_empty() && !args.without_token {
        for address in [Some(&args.address), args.grpc_address.as_ref()].into_iter().flatten() {
            let mut addresses = address.to_socket_addrs().with_context(|| format!("{address}: not an address such as 127.0.0.1:8000"))?;
            if !addresses.all(|address| address.ip().is_loopback()) {
                let what = format!("{address} is open to other machines: set {TOKEN} or --token-file, or say --without-token");
                return Err(UsageError(what).into());
            }
        }
    }
    let settings = Settings {
        address: args.address.clone(),
        grpc_address: args.grpc_address.clone(),
        tls,
        rate: args.rate,
        clients,
        without_token: args.without_token,
        audit_log: args.audit_log.clone(),
        max_body_bytes: args.max_body << 20,
        max_held_bytes: args.max_held << 20,
        timeout: Duration::from_secs(args.timeout),
        max_queue: args.queue,
        max_batch: args.max_batch,
        batch_wait: Duration::from_micros(args.batch_wait),
        threads: context.global.threads,
        pacs: args.pacs.as_deref().map(|url| pacs(url, args)).transpose()?,
        traces: args.traces.clone().or_else(|| std::env::var(TRACES).ok().filter(|to| !to.is_empty())),
        access_log: args.access_log,
        quiet: context.global.quiet,
        ..Settings::new(models)
    };
    let listening = |at: synovia_serving::Listening| {
        let grpc = at.grpc.map(|address| address.to_string());
        // Nobody who reads it is no reason not to serve.
        let _ = print(serde_json::json!({ "listening": at.rest.to_string(), "grpc": grpc }));
    };
    Ok(synovia_serving::run(settings, listening)?)
}

/// The arguments of this process behind those that a file has.
fn configured(path: &Path) -> anyhow::Result<(ServeArgs, Global)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: the settings can't be read", path.display()))?;
    let wrong = |what: String| UsageError(format!("{}: {what}", path.display()));
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    let mut arguments: Vec<OsString> = vec!["synovia".into(), "serve".into()];
    for (key, value) in &table {
        let option = format!("--{key}");
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            // What is there or not.
            toml::Value::Boolean(true) => {
                arguments.push(option.into());
                continue;
            }
            toml::Value::Boolean(false) => continue,
            _ => return Err(wrong(format!("`{key}` is neither a text, a whole number, nor true or false")).into()),
        };
        arguments.extend([option.into(), value.into()]);
    }
    let command = Cli::command().mut_subcommand("serve", |serve| serve.args_override_self(true));
    let mut given: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(place) = given.iter().position(|argument| argument == "serve") {
        given.remove(place);
    }
    arguments.append(&mut given);
    let matches = command.try_get_matches_from(arguments).map_err(|error| wrong(error.to_string()))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| wrong(error.to_string()))?;
    match cli.command {
        Command::Serve(args) => Ok((args, cli.global)),
        _ => Err(wrong("these are no settings of `serve`".to_owned()).into()),
    }
}

/// What glibc is told by this it does not change by itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM: (&str, &str) = ("MALLOC_TRIM_THRESHOLD_", "131072");

/// Begins once more, with an allocator that gives back what is freed. Below ONNX Runtime lies glibc's, which keeps the more the
/// larger the pieces are that were freed: after loading a model twice its size. What it is told when a process begins stays so.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back_memory() {
    use std::os::unix::process::CommandExt as _;

    if std::env::var_os(TRIM.0).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        // Where it can't, all goes on with more memory.
        let _ = std::process::Command::new(program).args(std::env::args_os().skip(1)).env(TRIM.0, TRIM.1).exec();
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back_memory() {}

/// Who has to show what: by the file, else by the environment.
fn clients(file: Option<&Path>) -> anyhow::Result<Vec<Client>> {
    let Some(file) = file else {
        let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
        return Ok(token.iter().map(|token| Client::new("client", Role::Admin, token)).collect());
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("{}: the tokens can't be read", file.display()))?;
    Client::read(&text).map_err(|what| UsageError(format!("{}: {what}", file.display())).into())
}

/// The image archive. It may take two thirds of the time that a request has.
fn pacs(url: &str, args: &ServeArgs) -> anyhow::Result<Pacs> {
    let login = match PACS.map(|name| std::env::var(name).ok().filter(|value| !value.is_empty())) {
        [Some(user), Some(password), None] => Login::Basic { user, password },
        [None, None, Some(token)] => Login::Bearer(token),
        [None, None, None] => Login::None,
        _ => return Err(UsageError(format!("the archive's login is {} and {}, or {} alone", PACS[0], PACS[1], PACS[2])).into()),
    };
    let archive = Archive::new(url, login, Duration::from_secs(args.timeout) * 2 / 3).map_err(|error| UsageError(error.to_string()))?;
    Ok(Pacs { archive, stores: args.pacs_store })
}
