//! Traces for OpenTelemetry: where the time of a request goes, as spans by OTLP over HTTP in JSON
//! (<https://opentelemetry.io/docs/specs/otlp/>). A span has route, status, model and times; nothing that a client sent but the
//! identifiers of its own trace (W3C Trace Context).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::log::Log;

/// The header by which a client says which trace its request is of.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// Spans that wait to be sent; more are dropped, so that no request waits for a collector.
const MAX_WAITING: usize = 4096;
/// Spans of one message.
const MAX_SENT: usize = 512;
/// How long spans wait for more.
const TOGETHER: Duration = Duration::from_secs(1);
/// How long a collector may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where a span stands: its trace, and itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    trace: u128,
    span: u64,
}

fn random() -> u64 {
    // Zero is no identifier.
    RandomState::new().hash_one(0).max(1)
}

impl Place {
    /// Of `traceparent`: `00-TRACE-SPAN-FLAGS`, with whether its client wants a trace; none where it is no such thing.
    fn parse(text: &str) -> Option<(Self, bool)> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, n| text.len() == n && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        // Versions to come may have more behind.
        let is_known = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        if !(is_known && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2)) {
            return None;
        }
        let place = Self { trace: u128::from_str_radix(trace, 16).ok()?, span: u64::from_str_radix(span, 16).ok()? };
        let is_sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        (place.trace != 0 && place.span != 0).then_some((place, is_sampled))
    }
}

/// A span, from its beginning on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    place: Place,
    parent: Option<u64>,
    at: SystemTime,
    since: Instant,
}

impl Begun {
    fn new(place: Place, parent: Option<u64>) -> Self {
        Self { place, parent, at: SystemTime::now(), since: Instant::now() }
    }

    /// One within it.
    pub(crate) fn within(&self) -> Self {
        Self::new(Place { trace: self.place.trace, span: random() }, Some(self.place.span))
    }
}

/// What goes to the collector.
pub(crate) struct Traces {
    is_on: bool,
    sender: RwLock<Option<SyncSender<Value>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Traces {
    /// - to: the collector's address of traces; nothing is recorded without one
    pub(crate) fn new(to: Option<&str>, log: Log) -> Self {
        let Some(to) = to.map(str::to_owned) else { return Self { is_on: false, sender: RwLock::new(None), thread: Mutex::new(None) } };
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new().name("traces".to_owned()).spawn(move || send_all(&to, &receiver, log)).ok();
        Self { is_on: true, sender: RwLock::new(Some(sender)), thread: Mutex::new(thread) }
    }

    /// A request's span, in its client's trace where it has one.
    pub(crate) fn begin(&self, traceparent: Option<&str>) -> Option<Begun> {
        if !self.is_on {
            return None;
        }
        let parent = match traceparent.and_then(Place::parse) {
            Some((_, false)) => return None,
            parent => parent.map(|(place, _)| place),
        };
        let trace = parent.map_or_else(|| u128::from(random()) << 64 | u128::from(random()), |parent| parent.trace);
        Some(Begun::new(Place { trace, span: random() }, parent.map(|parent| parent.span)))
    }

    /// The end of a span.
    ///
    /// - is_server: whether it is of a request, and no part of one
    pub(crate) fn end(&self, span: Option<Begun>, name: &str, is_server: bool, failed: bool, attributes: &[(&str, Value)]) {
        let Some(span) = span else { return };
        let started = span.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let ended = started + span.since.elapsed().as_nanos();
        let attribute = |(key, value): &(&str, Value)| {
            let value = match value {
                Value::Number(number) => json!({"intValue": number.to_string()}),
                value => json!({"stringValue": value.as_str().unwrap_or_default()}),
            };
            json!({"key": key, "value": value})
        };
        let mut line = json!({
            "traceId": format!("{:032x}", span.place.trace), "spanId": format!("{:016x}", span.place.span), "name": name,
            "kind": if is_server { 2 } else { 1 }, "startTimeUnixNano": started.to_string(), "endTimeUnixNano": ended.to_string(),
            "attributes": attributes.iter().map(attribute).collect::<Vec<Value>>(), "status": {"code": if failed { 2 } else { 0 }},
        });
        if let Some(parent) = span.parent {
            line["parentSpanId"] = json!(format!("{parent:016x}"));
        }
        // Where the collector is slow, spans are lost and requests are not.
        if let Some(sender) = self.sender.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = sender.try_send(line);
        }
    }

    /// Sends what waits, for as long as a collector may take.
    pub(crate) fn close(&self) {
        *self.sender.write().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

fn send_all(to: &str, receiver: &Receiver<Value>, log: Log) {
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).max_redirects(0).build());
    let mut is_failing = false;
    loop {
        let Ok(first) = receiver.recv() else { return };
        let mut spans = vec![first];
        let end = Instant::now() + TOGETHER;
        let is_over = loop {
            match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(span) => spans.push(span),
                Err(error) => break error == RecvTimeoutError::Disconnected,
            }
            if spans.len() == MAX_SENT {
                break false;
            }
        };
        let service = json!([
            {"key": "service.name", "value": {"stringValue": "synovia"}},
            {"key": "service.version", "value": {"stringValue": env!("CARGO_PKG_VERSION")}},
        ]);
        let scope = json!({"scope": {"name": "synovia-serving"}, "spans": spans});
        let message = json!({"resourceSpans": [{"resource": {"attributes": service}, "scopeSpans": [scope]}]});
        let failure = agent.post(to).content_type("application/json").send(message.to_string()).err().map(|error| error.to_string());
        if failure.is_some() {
            // What waits would only wait longer, and the end of the server with it.
            while receiver.try_recv().is_ok() {}
        }
        // A collector that is away is said to be once.
        if failure.is_some() != is_failing {
            is_failing = failure.is_some();
            log.event("traces", json!({ "failure": failure }));
        }
        if is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_of_clients() {
        let quiet = Log { quiet: true, access: false };
        let traces = Traces::new(Some("http://127.0.0.1:9/"), quiet);
        // The example of the standard.
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let span = traces.begin(Some(given)).unwrap();
        assert_eq!(
            (format!("{:032x}", span.place.trace).as_str(), span.parent),
            ("4bf92f3577b34da6a3ce929d0e0e4736", Some(0x00f0_67aa_0ba9_02b7))
        );
        let within = span.within();
        assert!(within.parent == Some(span.place.span) && within.place.trace == span.place.trace && within.place.span != span.place.span);
        // A client that is not traced is not; what is no traceparent begins a trace.
        assert!(traces.begin(Some(&given.replace("-01", "-00"))).is_none() && traces.begin(Some(&given.replace("-01", "-02"))).is_none());
        for wrong in [
            "",
            "00",
            &given.to_uppercase(),
            &given.replace("4bf9", "0x4b"),
            &format!("{given}-1"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            let span = traces.begin(Some(wrong)).unwrap();
            assert!(span.parent.is_none() && span.place.trace != 0, "{wrong}");
        }
        assert_eq!(
            traces.begin(Some(&given.replace("00-4b", "cc-4b").replace("-01", "-01-what-comes"))).unwrap().parent,
            Some(0x00f0_67aa_0ba9_02b7)
        );
        assert_ne!(traces.begin(None).unwrap().place, traces.begin(None).unwrap().place);
        assert!(Traces::new(None, quiet).begin(Some(given)).is_none());
    }
}
