//! What happens around a server: files, room, clocks, signals, models that go.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Before, NDJSON, PREDICT, chart, models};
use crate::serving::Server;
use crate::synovia::{command, json_lines, skipped, succeed};

#[test]
fn no_more_files() {
    let mut server = Command::new("bash");
    server.args(["-c", "ulimit -n 60; exec \"$0\" serve \"$@\""]).arg(command().get_program());
    let before = Before::with(server);
    let address = before.server.rest.parse().unwrap();
    // Beyond what the system keeps in line a connection is not even begun.
    let open: Vec<TcpStream> = (0..120).filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()).collect();
    std::thread::sleep(Duration::from_millis(300));
    assert!(open.len() > 60);
    drop(open);
    before.ends_well(0);
}

/// What a killed server left in memory is removed by the next one; what a server that runs has there is its own.
#[test]
fn leftovers_in_memory() {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        skipped("there is no /dev/shm");
        return;
    }
    // No process has this number.
    let (left, own) = (memory.join("synovia-upload-4194999-left"), memory.join(format!("synovia-upload-{}-own", std::process::id())));
    [&left, &own].into_iter().for_each(|path| std::fs::create_dir_all(path).unwrap());
    std::fs::write(left.join("0001.json"), chart()).unwrap();
    let before = Before::new(&[]);
    assert!(!left.exists() && own.exists());
    std::fs::remove_dir(own).unwrap();
    let of_server = format!("synovia-upload-{}-", before.server.id());
    for _ in 0..5 {
        before.server.ask("POST", PREDICT, NDJSON, &chart());
    }
    std::thread::sleep(Duration::from_millis(200));
    let remains =
        std::fs::read_dir(memory).unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&of_server)).count();
    assert_eq!(remains, 0);
    before.ends_well(0);
}

/// Nothing can be put aside: what needs it is refused, and tensors are answered.
#[test]
fn no_room_for_uploads() {
    let gone = tempfile::tempdir().unwrap();
    let mut server = command();
    server.arg("serve").env("TMPDIR", gone.path());
    let before = Before::with(server);
    let path = gone.path().to_owned();
    drop(gone);
    let (status, answer) = before.server.ask("POST", PREDICT, NDJSON, &chart());
    assert!(status == 503 && answer["error"].as_str().unwrap().contains("no room"), "{status} {answer}");
    assert_eq!(before.server.ask("GET", "/v2/models/lung", "", b"").0, 200);
    std::fs::create_dir(&path).unwrap();
    before.ends_well(0);
    std::fs::remove_dir(&path).unwrap();
}

/// The system's clock goes years forth and back: what has a limit is measured by one that does not.
#[test]
fn the_clock_jumps() {
    let library = ["x86_64", "aarch64"].map(|arch| PathBuf::from(format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketime.so.1")));
    let Some(library) = library.into_iter().find(|path| path.exists()) else {
        skipped("libfaketime is not installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (clock, log) = (dir.path().join("clock"), dir.path().join("audit.jsonl"));
    let set = |offset: &str| {
        std::fs::write(dir.path().join("new"), offset).unwrap();
        std::fs::rename(dir.path().join("new"), &clock).unwrap();
    };
    set("+0");
    let mut server = command();
    server.args(["serve", "--timeout", "20", "--audit-log"]).arg(&log);
    server.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &clock).env("FAKETIME_NO_CACHE", "1");
    server.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let before = Before::with(server);
    for offset in ["+3y", "-20y", "+50y", "+0"] {
        set(offset);
        let started = Instant::now();
        let (status, answer) = before.server.ask("POST", PREDICT, NDJSON, &chart());
        assert_eq!((status, &answer), (200, &before.answer), "{offset}");
        assert!(started.elapsed() < Duration::from_secs(15), "{offset}");
    }
    let years: Vec<String> =
        json_lines(&std::fs::read_to_string(&log).unwrap()).iter().map(|line| line["time"].as_str().unwrap()[..4].to_owned()).collect();
    assert!(years.len() == 5 && years[1] > years[0] && years[2] < years[0] && years[3] > years[1], "the clock did not jump: {years:?}");
    let said: Value = serde_json::from_str(&succeed(&format!("verify-log {}", log.display()))).unwrap();
    assert_eq!(said["lines"], 5);
    before.ends_well(0);
}

/// Killed in the middle of its work: all that was answered is in the audit log, whose chain holds.
#[test]
fn killed_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.jsonl");
    let mut before = Before::new(&["--audit-log", &log.display().to_string()]);
    let server = &before.server;
    let answered: usize = std::thread::scope(|scope| {
        let client = || {
            let mut n = 0;
            while let Some((200, _)) = server.try_ask("POST", PREDICT, NDJSON, &chart()) {
                n += 1;
            }
            n
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        std::thread::sleep(Duration::from_millis(500));
        assert!(Command::new("kill").args(["-9", &server.id().to_string()]).status().unwrap().success());
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    before.server.wait();
    let said: Value = serde_json::from_str(&succeed(&format!("verify-log {}", log.display()))).unwrap();
    let n_lines = said["lines"].as_u64().unwrap() as usize;
    // Those that it was about to answer may have a line, too.
    assert!(answered > 5 && (answered + 1..=answered + 9).contains(&n_lines), "{answered} answered, {n_lines} lines");
    // And it goes on where it was.
    Before::new(&["--audit-log", &log.display().to_string()]).ends_well(0);
    succeed(&format!("verify-log {}", log.display()));
}

/// Ended in the middle of its work: each client has a whole answer, or none was begun.
#[test]
fn ended_under_load() {
    let mut before = Before::new(&[]);
    let server = &before.server;
    let request = {
        let body = chart();
        let head = format!(
            "POST {PREDICT} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {NDJSON}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    };
    let ask = |n_whole: &mut usize| -> bool {
        let Ok(mut socket) = TcpStream::connect(&server.rest) else { return false };
        let mut answer = Vec::new();
        if socket.write_all(&request).is_err() {
            return false;
        }
        let read = socket.read_to_end(&mut answer);
        if answer.is_empty() {
            // It was in the queue of the system, and nobody had taken it.
            return false;
        }
        read.unwrap();
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), before.answer);
        *n_whole += 1;
        true
    };
    let n_whole: usize = std::thread::scope(|scope| {
        let client = || {
            let mut n = 0;
            while ask(&mut n) {}
            n
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        std::thread::sleep(Duration::from_millis(500));
        assert!(Command::new("kill").arg(server.id().to_string()).status().unwrap().success());
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(n_whole > 5, "{n_whole}");
    assert!(before.server.wait().success());
}

/// Its folder of models is taken away, and half a file put in its place: what is loaded answers on, and nothing else does.
#[test]
fn the_models_are_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("models");
    let file = folder.join("lung/1/model.onnx");
    let whole = std::fs::read(models().join("lung/1/model.onnx")).unwrap();
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, &whole).unwrap();
    let mut server = command();
    server.arg("serve");
    let server = Server::start_with(&folder, &dir.path().join("log"), server);
    let ask = || server.ask("POST", PREDICT, NDJSON, &chart());
    let before = ask();
    assert_eq!(before.0, 200);
    let load = || server.ask("POST", "/v2/repository/models/lung/load", "", b"").0;
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(ask(), before);
    assert_eq!(load(), 404);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    for n in [0, 1, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..n]).unwrap();
        assert_eq!(load(), 400, "{n} bytes");
        assert_eq!(ask(), before);
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(load(), 200);
    assert_eq!(ask(), before);
}

/// Whoever reads its log has gone: it goes on.
#[test]
fn nobody_reads_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Command::new("bash");
    // The reader ends at once.
    server.args(["-c", "exec \"$0\" serve \"$@\" 2> >(exec true)"]).arg(command().get_program());
    server.process_group(0);
    let server = Server::start_with(models(), &dir.path().join("log"), server);
    for _ in 0..20 {
        assert_eq!(server.ask("POST", PREDICT, NDJSON, &chart()).0, 200);
    }
}
