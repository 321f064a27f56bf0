//! A load of one request again and again: `load ADDRESS PATH BODY CLIENTS SECONDS [JSON_LENGTH]`, from as many connections that stay
//! open. Prints a JSON line: answers a second, and how long they took.

use std::io::{Error, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// One answer, read whole; whether it is a 200.
fn exchange(socket: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> Result<bool, Error> {
    socket.write_all(request)?;
    buffer.clear();
    let mut chunk = vec![0; 64 << 10];
    let mut end = None;
    loop {
        if end.is_none() {
            end = buffer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| {
                let head = String::from_utf8_lossy(&buffer[..at]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
                at + 4 + length.unwrap_or(0)
            });
        }
        if end.is_some_and(|end| buffer.len() >= end) {
            return Ok(buffer.starts_with(b"HTTP/1.1 200"));
        }
        match socket.read(&mut chunk)? {
            0 => return Err(Error::from(std::io::ErrorKind::UnexpectedEof)),
            n => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}

/// Times of the answers, and how many were none or no 200.
fn client(address: &str, request: &[u8], until: Instant) -> Result<(Vec<Duration>, u64), Error> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let (mut times, mut n_failed, mut buffer) = (Vec::new(), 0, Vec::new());
    while Instant::now() < until {
        let started = Instant::now();
        if exchange(&mut socket, request, &mut buffer)? { times.push(started.elapsed()) } else { n_failed += 1 }
    }
    Ok((times, n_failed))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, body, clients, seconds, rest @ ..] = &arguments[..] else {
        return Err("usage: load ADDRESS PATH BODY CLIENTS SECONDS [JSON_LENGTH]".into());
    };
    let body = std::fs::read(body)?;
    let more = rest.first().map_or_else(String::new, |n| format!("Inference-Header-Content-Length: {n}\r\n"));
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    let seconds: f64 = seconds.parse()?;
    let n_clients: usize = clients.parse()?;
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(seconds);
    let outcomes: Vec<Result<(Vec<Duration>, u64), Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_clients).map(|_| scope.spawn(|| client(address, &request, until))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(Error::other("a client failed")))).collect()
    });
    let took = started.elapsed().as_secs_f64();
    let (mut times, mut n_failed) = (Vec::new(), 0);
    for outcome in outcomes {
        let (of_client, failed) = outcome?;
        times.extend(of_client);
        n_failed += failed;
    }
    times.sort_unstable();
    let at =
        |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).map(|t| t.as_secs_f64() * 1e3);
    let line = serde_json::json!({
        "clients": n_clients, "answers": times.len(), "failed": n_failed, "per_s": times.len() as f64 / took,
        "p50_ms": at(0.5), "p99_ms": at(0.99),
    });
    println!("{line}");
    Ok(())
}
