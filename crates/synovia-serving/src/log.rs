//! JSON lines on stderr: what happened, to which route and model, how it ended and how long it took. Nothing that a client sent.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

/// Where lines go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    pub quiet: bool,
    pub access: bool,
}

impl Log {
    fn line(self, mut line: serde_json::Value) {
        if self.quiet {
            return;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = chrono::DateTime::from_timestamp(since.as_secs() as i64, since.subsec_nanos()).unwrap_or_default();
        line["time"] = json!(time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
        // A closed stderr is no reason to stop.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    /// Something about the server or a model of the folder.
    pub(crate) fn event(self, event: &str, more: serde_json::Value) {
        let mut line = json!({ "event": event });
        if let (Some(line), serde_json::Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        self.line(line);
    }

    /// A request. Those that the server is not to blame for are lines only on demand.
    pub(crate) fn request(self, protocol: &str, route: &str, model: Option<&str>, status: u16, time: Duration) {
        if self.access || status >= 500 {
            let ms = (time.as_secs_f64() * 1e6).round() / 1e3;
            self.line(json!({ "event": "request", "protocol": protocol, "route": route, "model": model, "status": status, "ms": ms }));
        }
    }
}
