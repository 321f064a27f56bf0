//! More requests than a server can answer: `overload ADDRESS PATH BODY RATE SECONDS PID [JSON_LENGTH]` begins RATE requests a second,
//! each on a connection of its own, whether those before it were answered or not. Prints a JSON line: how many were answered, and
//! whether as the first one was; how many were told 429, and how fast; what else happened; the memory of PID at the beginning and
//! its most after that.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const THREADS: usize = 2048;

/// Status and body of one exchange.
fn ask(address: &str, request: &[u8]) -> std::io::Result<(u16, bool, Vec<u8>)> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_mins(1)))?;
    socket.write_all(request)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, head.contains("retry-after"), answer.split_off(end + 4)))
}

fn resident_mb(pid: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
    kb.unwrap_or(f64::NAN) / 1024.0
}

#[derive(Default)]
struct Seen {
    answered_ms: Vec<f64>,
    refused_ms: Vec<f64>,
    others: BTreeMap<String, u64>,
    latest_ms: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, body, rate, seconds, pid, rest @ ..] = &arguments[..] else {
        return Err("usage: overload ADDRESS PATH BODY RATE SECONDS PID [JSON_LENGTH]".into());
    };
    let body = std::fs::read(body)?;
    let more = rest.first().map_or_else(String::new, |n| format!("Inference-Header-Content-Length: {n}\r\n"));
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    let (rate, seconds): (f64, f64) = (rate.parse()?, seconds.parse()?);
    let (status, _, expected) = ask(address, &request)?;
    if status != 200 {
        return Err(format!("the first request is answered {status}").into());
    }
    let before = resident_mb(pid);
    let (seen, next, is_over) = (Mutex::new(Seen::default()), AtomicU64::new(0), AtomicBool::new(false));
    let n = (rate * seconds) as u64;
    let started = Instant::now();
    let client = || {
        loop {
            let k = next.fetch_add(1, Ordering::Relaxed);
            if k >= n {
                return;
            }
            let due = started + Duration::from_secs_f64(k as f64 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let began = Instant::now();
            let outcome = ask(address, &request);
            let ms = began.elapsed().as_secs_f64() * 1e3;
            let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            seen.latest_ms = seen.latest_ms.max((began - due).as_secs_f64() * 1e3);
            let other = match outcome {
                Ok((200, _, body)) if body == expected => {
                    seen.answered_ms.push(ms);
                    continue;
                }
                Ok((429, true, _)) => {
                    seen.refused_ms.push(ms);
                    continue;
                }
                Ok((200, ..)) => "another answer than the first".to_owned(),
                Ok((status, ..)) => status.to_string(),
                Err(error) => error.kind().to_string(),
            };
            *seen.others.entry(other).or_default() += 1;
        }
    };
    let most = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                most.push(resident_mb(pid));
                std::thread::sleep(Duration::from_millis(500));
            }
            most
        });
        let threads: Vec<_> =
            (0..THREADS).filter_map(|_| std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, client).ok()).collect();
        threads.into_iter().for_each(|thread| drop(thread.join()));
        is_over.store(true, Ordering::Relaxed);
        watch.join().unwrap_or_default()
    });
    let Seen { mut answered_ms, mut refused_ms, others, latest_ms } = seen.into_inner()?;
    answered_ms.sort_unstable_by(f64::total_cmp);
    refused_ms.sort_unstable_by(f64::total_cmp);
    let at = |times: &[f64], share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied();
    let peak = |of: &[f64]| of.iter().copied().fold(f64::NAN, f64::max);
    let (early, late) = most.split_at(most.len() / 2);
    let line = serde_json::json!({
        "rate": rate, "seconds": seconds, "begun": n, "latest_ms": latest_ms,
        "answered": answered_ms.len(), "answered_p50_ms": at(&answered_ms, 0.5), "answered_p99_ms": at(&answered_ms, 0.99),
        "refused": refused_ms.len(), "refused_p50_ms": at(&refused_ms, 0.5), "refused_p99_ms": at(&refused_ms, 0.99),
        "refused_most_ms": at(&refused_ms, 1.0), "others": others,
        "mb_before": before, "mb_first_half": peak(early), "mb_second_half": peak(late),
    });
    println!("{line}");
    Ok(())
}
