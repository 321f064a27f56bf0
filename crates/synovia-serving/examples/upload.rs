//! An upload against the sum of its parts: `upload ADDRESS NAME MODEL.onnx IMAGE.dcm CHART.json N` asks the server at ADDRESS N times for
//! a prediction on an image and a chart, and in turn does alone what that has to do, by the library and from memory: the image
//! to the model's pixels, the chart to the model's features, and the model's run. Prints a JSON line of the medians, milliseconds, and
//! their ratio.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use synovia_cohort::RejectedLog;
use synovia_images::Source;
use synovia_onnx::Session;
use synovia_prediction::{Exported, Pictures, PredictionError, Prepared, for_each_example, records};

const BOUNDARY: &str = "0123456789abcdef";
/// Where the server puts uploads of this size, too.
const SCRATCH: &str = "/dev/shm";

fn form(image: &[u8], chart: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, bytes) in [("images", image), ("records", chart)] {
        body.extend(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"a\"\r\n\r\n").bytes());
        body.extend(bytes);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    body
}

/// One exchange on a connection that stays.
fn ask(socket: &mut TcpStream, request: &[u8]) -> Result<Value, Box<dyn std::error::Error>> {
    socket.write_all(request)?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 8192]);
    loop {
        let n = socket.read(&mut chunk)?;
        answer.extend_from_slice(&chunk[..n]);
        if n == 0 {
            return Err("the server closed the connection".into());
        }
        let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok()).ok_or("no length")?;
        if answer.len() >= end + 4 + length {
            return Ok(serde_json::from_slice(&answer[end + 4..])?);
        }
    }
}

/// The examples of a chart with or without an image, as the server makes them.
fn examples(exported: &Exported, pictures: &Pictures<'_>, chart: Option<&Path>) -> Result<Vec<Prepared>, PredictionError> {
    let scratch = tempfile::tempdir_in(SCRATCH).map_err(|source| PredictionError::Io { path: PathBuf::new(), source })?;
    let log = RejectedLog::counting();
    let store = match (chart, exported.records.as_ref()) {
        (Some(chart), Some(format)) => Some(records(chart, format, pictures.are_some(), scratch.path(), &log)?),
        _ => None,
    };
    let mut examples = Vec::new();
    for_each_example(pictures, store.as_ref(), exported, &log, &mut |_, _| (), &mut |example| {
        examples.push(example);
        Ok::<(), PredictionError>(())
    })?;
    Ok(examples)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, model, image, chart, n] = &arguments[..] else {
        return Err("usage: upload ADDRESS NAME MODEL.onnx IMAGE.dcm CHART.json N".into());
    };
    let (image, chart, n) = (std::fs::read(image)?, std::fs::read(chart)?, n.parse::<usize>()?);
    let mut session = Session::from_bytes(&std::fs::read(model)?, None)?;
    let exported = Exported::of(&session)?;
    let body = form(&image, &chart);
    let mut request = format!(
        "POST /v1/models/{name}/predict HTTP/1.1\r\nHost: {address}\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);

    let folder = tempfile::tempdir_in(SCRATCH)?;
    let in_memory = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).map(|()| path)
    };
    let chart = in_memory("chart.json", &chart)?;
    let log = RejectedLog::counting();
    // The server reads images where they arrived, too.
    let source = || Source::memory([("image.dcm".to_owned(), image.clone())]);
    let pictures = Pictures::of(source(), &exported, folder.path(), &log)?;
    let both = examples(&exported, &pictures, Some(&chart))?;
    let [example] = &both[..] else { return Err(format!("{} examples, not one", both.len()).into()) };
    let inputs = exported.inputs(example);
    let views: Vec<_> = inputs.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice())).collect();
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;

    let mut times: [Vec<f64>; 4] = Default::default();
    let timed = |times: &mut Vec<f64>, work: &mut dyn FnMut() -> Result<(), Box<dyn std::error::Error>>| {
        let began = Instant::now();
        work()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        Ok::<(), Box<dyn std::error::Error>>(())
    };
    let [whole, decode, features, run] = &mut times;
    for _ in 0..n {
        timed(whole, &mut || {
            let answer = ask(&mut socket, &request)?;
            let present = &answer["predictions"][0]["present"];
            if present["image"] == true && present["record"] == true { Ok(()) } else { Err(answer.to_string().into()) }
        })?;
        let mut source = Some(source());
        timed(decode, &mut || {
            let scratch = tempfile::tempdir_in(SCRATCH)?;
            let pictures = Pictures::of(source.take().ok_or("measured once")?, &exported, scratch.path(), &log)?;
            if examples(&exported, &pictures, None)?.len() == 1 { Ok(()) } else { Err("the image can't be read".into()) }
        })?;
        timed(features, &mut || {
            if examples(&exported, &Pictures::default(), Some(&chart))?.len() == 1 { Ok(()) } else { Err("the chart can't be read".into()) }
        })?;
        timed(run, &mut || session.run(&views).map(drop).map_err(Into::into))?;
    }
    let [whole, decode, features, run] = times.map(|mut times| median(&mut times));
    let parts = decode + features + run;
    let line = json!({ "n": n, "bytes": request.len(), "upload_ms": whole, "decode_ms": decode, "features_ms": features, "run_ms": run,
        "parts_ms": parts, "ratio": whole / parts });
    println!("{line}");
    Ok(())
}
