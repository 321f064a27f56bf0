//! Requests that are too large, that are not what they say, or that do not end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Before, NDJSON, PREDICT, chart};

fn form(field: &str, bytes: &[u8]) -> Vec<u8> {
    let mut body = format!("--frontier\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"a\"\r\n\r\n").into_bytes();
    body.extend(bytes);
    body.extend(b"\r\n--frontier--\r\n");
    body
}

#[test]
fn gigabyte_bodies() {
    let before = Before::new(&["--max-body", "32", "--max-held", "48"]);
    let send = |kind: &str| {
        let mut socket = before.open();
        let head = format!("POST {PREDICT} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        if kind.starts_with("multipart") {
            let part = "--frontier\r\nContent-Disposition: form-data; name=\"images\"; filename=\"a\"\r\n\r\n";
            write!(socket, "{:x}\r\n{part}\r\n", part.len()).unwrap();
        }
        let chunk = vec![b' '; 1 << 20];
        let mut n_taken = 0;
        for _ in 0..1024 {
            let written =
                write!(socket, "{:x}\r\n", chunk.len()).and_then(|()| socket.write_all(&chunk)).and_then(|()| socket.write_all(b"\r\n"));
            if written.is_err() {
                break;
            }
            n_taken += 1;
        }
        let mut answer = Vec::new();
        // A server that closes while more comes may take its answer with it.
        let _ = socket.read_to_end(&mut answer);
        (n_taken, String::from_utf8_lossy(&answer).into_owned())
    };
    let sent: Vec<(i32, String)> = std::thread::scope(|scope| {
        let kinds = [NDJSON, "multipart/form-data; boundary=frontier", "application/zip", "application/dicom"];
        let threads: Vec<_> = kinds.into_iter().map(|kind| scope.spawn(move || send(kind))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (n_taken, answer) in sent {
        assert!(n_taken < 1024 || !answer.starts_with("HTTP/1.1 200"), "{n_taken} MiB were taken: {answer}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413") || answer.starts_with("HTTP/1.1 429"), "{answer}");
    }
    before.ends_well(96);
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(Command::new(program).args(arguments).output().unwrap().stdout).unwrap()
}

/// A zip archive that `python3` makes of a script that has `z`.
fn zip(dir: &Path, script: &str) -> Vec<u8> {
    let path = dir.join("a.zip");
    let script =
        format!("import zipfile,sys\nz = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED, compresslevel=1)\n{script}\nz.close()");
    assert!(Command::new("python3").args(["-c", &script]).arg(&path).status().unwrap().success());
    std::fs::read(path).unwrap()
}

#[test]
fn zip_bombs() {
    let before = Before::new(&[]);
    let bombs = [
        "z.writestr('a.dcm', bytes(600 << 20))",
        "for k in range(20000): z.writestr(f'{k}.dcm', b'')",
        "import io\nb = b'x' * 1000\nfor _ in range(30):\n    o = io.BytesIO()\n    y = zipfile.ZipFile(o, 'w', zipfile.ZIP_DEFLATED)\n    y.writestr('a.zip', b)\n    y.close()\n    b = o.getvalue()\nz.writestr('a.zip', b)",
    ];
    let in_memory = || {
        let said = said_by("df", &["-B1", "--output=used", "/dev/shm"]);
        said.lines().last().and_then(|line| line.trim().parse::<u64>().ok()).unwrap_or_default()
    };
    let at_first = in_memory();
    for bomb in bombs {
        let bytes = zip(before.dir.path(), bomb);
        assert!(bytes.len() < 8 << 20);
        let (is_over, most) = (AtomicBool::new(false), AtomicU64::new(0));
        let (status, answer) = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    most.fetch_max(in_memory(), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let answer = before.server.ask("POST", PREDICT, "application/zip", &bytes);
            is_over.store(true, Ordering::Relaxed);
            answer
        });
        // Other tests use it, too, for a little each.
        assert!(most.load(Ordering::Relaxed) < at_first + (100 << 20), "{bomb}");
        assert!(status == 400 && answer["rejected"].is_array() || status == 503, "{status} {answer}");
    }
    // One whose directory lies.
    let mut bytes = zip(before.dir.path(), "z.writestr('a.dcm', bytes(1000))");
    let n = bytes.len();
    bytes[n - 12..n - 4].copy_from_slice(&[0xff; 8]);
    assert_eq!(before.server.ask("POST", PREDICT, "application/zip", &bytes).0, 400);
    before.ends_well(0);
}

#[test]
fn names_in_archives_lead_nowhere() {
    let before = Before::new(&[]);
    let outside = before.dir.path().join("outside");
    let script = format!(
        "for name in ['../../../../..{0}', '{0}', 'a/../../{0}', '..\\\\..\\\\outside']: z.writestr(name, b'DICM')\n\
         link = zipfile.ZipInfo('link.dcm')\nlink.external_attr = 0o120777 << 16\nz.writestr(link, '/etc/passwd')",
        outside.display()
    );
    let (status, answer) = before.server.ask("POST", PREDICT, "application/zip", &zip(before.dir.path(), &script));
    assert_eq!(status, 400, "{answer}");
    let text = answer.to_string();
    assert!(!outside.exists() && !text.contains("outside") && !text.contains("root:") && !text.contains("passwd"), "{text}");
    before.ends_well(0);
}

/// An element in explicit little endian with a short length.
fn element(group: u16, number: u16, vr: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = [group.to_le_bytes(), number.to_le_bytes()].concat();
    bytes.extend(vr.bytes());
    if matches!(vr, "OB" | "OW" | "SQ" | "UN") {
        bytes.extend([0, 0]);
        bytes.extend((value.len() as u32).to_le_bytes());
    } else {
        bytes.extend((value.len() as u16).to_le_bytes());
    }
    bytes.extend(value);
    bytes
}

/// A file of a transfer syntax, with a data set.
fn dicom(transfer_syntax: &str, data: &[u8]) -> Vec<u8> {
    let mut uid = transfer_syntax.as_bytes().to_vec();
    uid.resize(uid.len().next_multiple_of(2), 0);
    let meta =
        [element(2, 2, "UI", b"1.2.840.10008.5.1.4.1.1.7\0"), element(2, 3, "UI", b"1.2.3.4\0"), element(2, 0x10, "UI", &uid)].concat();
    [vec![0; 128], b"DICM".to_vec(), element(2, 0, "UL", &(meta.len() as u32).to_le_bytes()), meta, data.to_vec()].concat()
}

/// An image that says it is so large.
fn image(rows: u16, columns: u16, frames: &str, pixels: &[u8]) -> Vec<u8> {
    [
        element(8, 0x16, "UI", b"1.2.840.10008.5.1.4.1.1.1\0"),
        element(8, 0x18, "UI", b"1.2.3.4\0"),
        element(8, 0x60, "CS", b"CR"),
        element(0x20, 0xd, "UI", b"1.2.3\0"),
        element(0x20, 0xe, "UI", b"1.2.3.5\0"),
        element(0x28, 2, "US", &1u16.to_le_bytes()),
        element(0x28, 4, "CS", b"MONOCHROME2 "),
        element(0x28, 8, "IS", frames.as_bytes()),
        element(0x28, 0x10, "US", &rows.to_le_bytes()),
        element(0x28, 0x11, "US", &columns.to_le_bytes()),
        element(0x28, 0x100, "US", &16u16.to_le_bytes()),
        element(0x28, 0x101, "US", &16u16.to_le_bytes()),
        element(0x28, 0x102, "US", &15u16.to_le_bytes()),
        element(0x28, 0x103, "US", &0u16.to_le_bytes()),
        element(0x7fe0, 0x10, "OW", pixels),
    ]
    .concat()
}

#[test]
fn dicom_bombs() {
    let before = Before::new(&[]);
    let explicit = "1.2.840.10008.1.2.1";
    // The image itself is good: what is refused below is what was added.
    let (status, answer) = before.images(&dicom(explicit, &image(64, 64, "1 ", &[7; 64 * 64 * 2])));
    assert_eq!(status, 200, "{answer}");
    let mut deflated = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    // An element of 832 MB before all others.
    deflated.write_all(&[8, 0, 5, 0, b'O', b'B', 0, 0]).unwrap();
    deflated.write_all(&(832_u32 << 20).to_le_bytes()).unwrap();
    for _ in 0..13 {
        deflated.write_all(&vec![0; 64 << 20]).unwrap();
    }
    deflated.write_all(&image(64, 64, "1 ", &[7; 64 * 64 * 2])).unwrap();
    let deflated = deflated.finish().unwrap();
    let mut nested = image(64, 64, "1 ", &[]);
    nested.truncate(nested.len() - 12);
    for _ in 0..100_000 {
        // A sequence and an item, both of undefined length.
        nested.extend([0x40, 0, 0x75, 2, b'S', b'Q', 0, 0, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0, 0xe0, 0xff, 0xff, 0xff, 0xff]);
    }
    let mut endless = image(64, 64, "1 ", &[]);
    let n = endless.len();
    endless[n - 4..].copy_from_slice(&0xffff_fffe_u32.to_le_bytes());
    // A JPEG of 65,500 by 65,500 in a few bytes.
    let jpeg: Vec<u8> = [
        &[0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, 0xff, 0xdc, 0xff, 0xdc, 1, 1, 0x11, 0][..],
        &[0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0, 0, 0xff, 0xd9],
    ]
    .concat();
    let mut fragments = vec![0xfe, 0xff, 0, 0xe0, 0, 0, 0, 0, 0xfe, 0xff, 0, 0xe0];
    fragments.extend((jpeg.len() as u32).to_le_bytes());
    fragments.extend(jpeg);
    fragments.extend([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
    let mut encapsulated = image(65_500, 65_500, "1 ", &[]);
    let n = encapsulated.len();
    encapsulated[n - 4..].copy_from_slice(&[0xff; 4]);
    encapsulated.extend(fragments);
    let bombs = [
        ("65,535 by 65,535 pixels", dicom(explicit, &image(65_535, 65_535, "1 ", &[0; 64]))),
        ("two thousand million frames", dicom(explicit, &image(64, 64, "2000000000", &[0; 64]))),
        ("no pixel", dicom(explicit, &image(0, 0, "1 ", &[]))),
        ("pixels of a length that is not there", dicom(explicit, &endless)),
        ("a sequence in a sequence, and so on", dicom(explicit, &nested)),
        ("832 MB deflated", dicom("1.2.840.10008.1.2.1.99", &deflated)),
        ("a JPEG of 65,500 by 65,500", dicom("1.2.840.10008.1.2.4.50", &encapsulated)),
        ("a transfer syntax that is none", dicom("1.2.3.4.5.6.7.8.9", &image(64, 64, "1 ", &[7; 64 * 64 * 2]))),
    ];
    for (what, bytes) in bombs {
        assert!(bytes.len() < 16 << 20, "{what}: {}", bytes.len());
        let started = Instant::now();
        let (status, answer) = before.images(&bytes);
        assert!(status == 400 && !answer["rejected"].as_array().unwrap().is_empty(), "{what}: {status} {answer}");
        assert!(started.elapsed() < Duration::from_mins(1), "{what}");
    }
    before.ends_well(200);
}

#[test]
fn fhir_bombs() {
    let before = Before::new(&[]);
    let patient = |more: &str| format!("{{\"resourceType\": \"Patient\", \"id\": \"p\", {more}}}");
    let depth = 200_000;
    let bombs = [
        ("lists in lists", patient(&format!("\"x\": {}{}", "[".repeat(depth), "]".repeat(depth)))),
        ("objects in objects", patient(&format!("\"x\": {}1{}", "{\"x\":".repeat(depth), "}".repeat(depth)))),
        ("half of it", "[{".repeat(depth)),
        ("a text of 60 MB", patient(&format!("\"x\": \"{}\"", "a".repeat(60 << 20)))),
        ("a number that is none", patient("\"birthDate\": 1e999999")),
        ("a day that never was", patient("\"birthDate\": \"99999999-99-99\"")),
        (
            "contained in itself",
            patient("\"contained\": [{\"resourceType\": \"Patient\", \"id\": \"p\", \"link\": [{\"other\": {\"reference\": \"#p\"}}]}]"),
        ),
    ];
    for (what, text) in bombs {
        let (status, answer) = before.server.ask("POST", PREDICT, "application/fhir+json", text.as_bytes());
        assert_eq!(status, 400, "{what}: {answer}");
        assert!(answer.to_string().len() < 100_000, "{what}");
    }
    // Many patients are more than one request may have.
    let many: String = (0..5000)
        .map(|k| String::from_utf8(chart()).unwrap().replace("\"p\"", &format!("\"p{k}\"")).replace("Patient/p", &format!("Patient/p{k}")))
        .collect();
    let (status, answer) = before.server.ask("POST", PREDICT, NDJSON, many.as_bytes());
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("1024"), "{status} {answer}");
    before.ends_well(200);
}

#[test]
fn forms_of_too_much() {
    let before = Before::new(&[]);
    let kind = "multipart/form-data; boundary=frontier";
    let part = "--frontier\r\nContent-Disposition: form-data; name=\"images\"; filename=\"a\"\r\n\r\n\r\n";
    let many = part.repeat(20_000) + "--frontier--\r\n";
    let (status, answer) = before.server.ask("POST", PREDICT, kind, many.as_bytes());
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("4096"), "{answer}");
    for (what, body) in [
        ("a name without end", format!("--frontier\r\nContent-Disposition: form-data; name=\"{}", "a".repeat(1 << 20)).into_bytes()),
        ("a thousand headers", format!("--frontier\r\n{}\r\n\r\n", "x: y\r\n".repeat(1000)).into_bytes()),
        ("no name", b"--frontier\r\n\r\n{}\r\n--frontier--\r\n".to_vec()),
        ("no UTF-8", form("\u{fffd}images", b"")),
        ("another boundary", b"--other\r\nContent-Disposition: form-data; name=\"images\"\r\n\r\n\r\n--other--\r\n".to_vec()),
    ] {
        let (status, answer) = before.server.ask("POST", PREDICT, kind, &body);
        assert_eq!(status, 400, "{what}: {answer}");
    }
    before.ends_well(0);
}

#[test]
fn heads_of_too_much() {
    let before = Before::new(&[]);
    for (what, head) in [
        ("a header of a megabyte", format!("GET /v2 HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(1 << 20))),
        ("ten thousand headers", format!("GET /v2 HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(10_000))),
        ("an address of a megabyte", format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(1 << 20))),
        ("no end", "GET /v2 HTTP/1.1\r\n".to_owned() + &"a".repeat(4 << 20)),
    ] {
        let answer = before.raw(head.as_bytes());
        let refused = ["HTTP/1.1 431", "HTTP/1.1 414", "HTTP/1.1 400"].iter().any(|status| answer.starts_with(status));
        assert!(answer.is_empty() || refused, "{what}: {answer}");
    }
    before.ends_well(0);
}

/// A request that hides another one in its body, from a proxy that reads lengths in another way, is refused, and what it hides is not
/// answered.
#[test]
fn smuggled_requests() {
    let before = Before::new(&[]);
    let hidden = "GET /v2/repository/hidden HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = |headers: &str, body: &str| format!("POST /v2/repository/index HTTP/1.1\r\nhost: a\r\n{headers}\r\n\r\n{body}");
    let n = hidden.len();
    for (what, request) in [
        (
            "both lengths, the shorter first",
            post(&format!("content-length: {}\r\ntransfer-encoding: chunked", n + 5), &format!("0\r\n\r\n{hidden}")),
        ),
        (
            "both lengths, turned round",
            post(&format!("transfer-encoding: chunked\r\ncontent-length: {}", n + 5), &format!("0\r\n\r\n{hidden}")),
        ),
        ("two lengths", post(&format!("content-length: 0\r\ncontent-length: {n}"), hidden)),
        ("two lengths in one", post(&format!("content-length: 0, {n}"), hidden)),
        ("a length with a sign", post("content-length: +0", hidden)),
        ("a length below nothing", post("content-length: -1", hidden)),
        ("a length that is none", post("content-length: 0x0", hidden)),
        ("an encoding that nobody knows", post("transfer-encoding: xchunked", &format!("0\r\n\r\n{hidden}"))),
        ("chunked, and then not", post("transfer-encoding: chunked, identity", &format!("0\r\n\r\n{hidden}"))),
        ("an encoding in a name with a space", post("transfer-encoding : chunked", &format!("0\r\n\r\n{hidden}"))),
        ("a folded header", post("x: y\r\n transfer-encoding: chunked", &format!("0\r\n\r\n{hidden}"))),
        ("a chunk of a length that is none", post("transfer-encoding: chunked", &format!("0x0\r\n\r\n{hidden}"))),
        ("a chunk longer than any", post("transfer-encoding: chunked", &format!("ffffffffffffffff1\r\n\r\n{hidden}"))),
        ("a line that ends in its middle", post("x: y\rcontent-length: 0", hidden)),
        ("nothing where a byte should be", post("x: \0y", hidden)),
    ] {
        let answer = before.raw(request.as_bytes());
        let n_answers = answer.matches("HTTP/1.1 ").count();
        // Of two lengths one may be believed, if nothing is believed of what comes after it (RFC 9112, 6.3).
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 400") || answer.contains("connection: close");
        assert!(refused && n_answers <= 1 && !answer.contains("there is nothing at this address"), "{what}: {answer}");
    }
    // The same in the open is two requests.
    let answer = before.raw((post("content-length: 0", "") + hidden).as_bytes());
    assert!(answer.matches("HTTP/1.1 ").count() == 2 && answer.contains("there is nothing at this address"), "{answer}");
    before.ends_well(0);
}

#[test]
fn hostile_clients_do_not_hinder_others() {
    let before = Before::new(&["--timeout", "5"]);
    let slow: Vec<TcpStream> = (0..300)
        .map(|k| {
            let mut socket = before.open();
            let head = format!("POST {PREDICT} HTTP/1.1\r\nhost: a\r\ncontent-type: {NDJSON}\r\ncontent-length: 100000\r\n\r\n{{");
            socket.write_all(&head.as_bytes()[..if k % 2 == 0 { 30 } else { head.len() }]).unwrap();
            socket
        })
        .collect();
    let started = Instant::now();
    for _ in 0..20 {
        let (status, answer) = before.server.ask("POST", PREDICT, NDJSON, &chart());
        // Half of those who are slow hold a place of uploads each.
        assert_eq!((status, &answer), (200, &before.answer));
    }
    // If each of them waited for one that is slow, it were a hundred seconds.
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    for mut socket in slow {
        // All are told, or closed, before long.
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || ["HTTP/1.1 503", "HTTP/1.1 408", "HTTP/1.1 400"].iter().any(|s| text.starts_with(s)), "{text}");
    }
    assert!(started.elapsed() < Duration::from_secs(80), "{:?}", started.elapsed());
    before.ends_well(0);
}
