//! Counts for Prometheus, in its text format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::app::App;

/// Upper bounds of the classes of times, seconds.
const BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Default)]
struct Series {
    count: u64,
    seconds: f64,
    /// Requests of each class, and those beyond the last.
    classes: [u64; BOUNDS.len() + 1],
}

/// Requests by protocol and route, and by how they ended.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<BTreeMap<&'static str, BTreeMap<String, BTreeMap<u16, Series>>>>);

impl Metrics {
    pub(crate) fn request(&self, protocol: &'static str, route: &str, status: u16, time: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let routes = all.entry(protocol).or_default();
        // Routes are few, and only the first request of one makes a name for it.
        if !routes.contains_key(route) {
            routes.insert(route.to_owned(), BTreeMap::new());
        }
        let Some(by_status) = routes.get_mut(route) else { return };
        let series = by_status.entry(status).or_default();
        series.count += 1;
        series.seconds += time.as_secs_f64();
        series.classes[BOUNDS.partition_point(|bound| *bound < time.as_secs_f64())] += 1;
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A label's value, as the format has it. Routes and models are plain, error texts are not here.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The whole of `/metrics`.
pub(crate) fn exposition(app: &App) -> String {
    let mut out = String::new();
    let name = "synovia_request_seconds";
    head(&mut out, name, "histogram", "Requests from their head to their answer, by protocol, route and status.");
    for (protocol, routes) in &*app.metrics.0.lock().unwrap_or_else(PoisonError::into_inner) {
        for (route, by_status) in routes {
            for (status, series) in by_status {
                let labels = format!("protocol=\"{protocol}\",route=\"{}\",status=\"{status}\"", label(route));
                let mut n = 0;
                for (bound, count) in BOUNDS.iter().zip(&series.classes) {
                    n += count;
                    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {n}");
                }
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", series.count);
                let _ = writeln!(out, "{name}_sum{{{labels}}} {}", series.seconds);
                let _ = writeln!(out, "{name}_count{{{labels}}} {}", series.count);
            }
        }
    }
    head(&mut out, "synovia_held_bytes", "gauge", "Bytes of bodies that are held.");
    let _ = writeln!(out, "synovia_held_bytes {}", app.held_bytes());
    head(&mut out, "synovia_ready", "gauge", "Whether the server takes requests.");
    let _ = writeln!(out, "synovia_ready {}", u8::from(app.is_ready()));
    let models: Vec<_> = app.repository.loaded().into_iter().map(|model| (model.statistics.counts(), model)).collect();
    let seconds = |ns: u64| ns as f64 / 1e9;
    let mut of_models = |name: &str, kind: &str, help: &str, value: &dyn Fn(&crate::statistics::Counts, &crate::model::Model) -> f64| {
        head(&mut out, name, kind, help);
        for (counts, model) in &models {
            let _ = writeln!(out, "{name}{{model=\"{}\",version=\"{}\"}} {}", label(&model.name), model.version, value(counts, model));
        }
    };
    of_models("synovia_model_waiting", "gauge", "Requests that wait for the model.", &|_, model| model.queue.len() as f64);
    of_models("synovia_model_examples_total", "counter", "Examples that were run.", &|counts, _| counts.inference_count as f64);
    of_models("synovia_model_runs_total", "counter", "Runs of the model, each a batch.", &|counts, _| counts.execution_count as f64);
    of_models("synovia_model_answered_total", "counter", "Requests to the model that were answered.", &|counts, _| {
        counts.success.count as f64
    });
    of_models("synovia_model_failed_total", "counter", "Requests to the model that were not: refused, late or failed.", &|counts, _| {
        counts.fail.count as f64
    });
    of_models("synovia_model_queue_seconds_total", "counter", "Time that requests waited.", &|counts, _| seconds(counts.queue.ns));
    of_models("synovia_model_run_seconds_total", "counter", "Time that the model ran.", &|counts, _| {
        seconds(counts.by_batch.values().map(|of| of.compute_infer.ns).sum())
    });
    out
}
