//! Images from other systems, by programs that are not ours: Orthanc's DICOMweb, dcmtk's storescu. Where they are not installed
//! these tests skip, and say so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::synovia::{command, root, simulate, skipped};

/// Ends with the test, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn installed(programs: &[&str]) -> bool {
    let is = |program: &&str| ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
    let all = programs.iter().all(is);
    if !all {
        skipped(format!("{} not installed", programs.join(", ")));
    }
    all
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn synovia(line: &str) -> Command {
    let mut command = command();
    command.current_dir(root()).args(line.split_whitespace());
    command
}

/// What the command says, and whether it succeeded.
fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
}

/// Studies of a run, without the names of their files.
fn studies(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("ingest/studies.json")).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&text).unwrap();
    let studies = index["studies"].as_array_mut().unwrap();
    studies.iter_mut().for_each(|study| drop(study.as_object_mut().unwrap().remove("file")));
    std::mem::take(studies)
}

pub struct Orthanc {
    running: Running,
    pub url: String,
}

const LOGIN: &str = "user_variable = \"TEST_PACS_USER\"\npassword_variable = \"TEST_PACS_PASSWORD\"\n";

impl Orthanc {
    /// Whether both it and a sender are installed.
    pub fn is_installed() -> bool {
        let has_plugin = Path::new("/usr/share/orthanc/plugins/libOrthancDicomWeb.so").exists();
        if !has_plugin {
            skipped("orthanc-dicomweb is not installed");
        }
        has_plugin && installed(&["Orthanc", "storescu"])
    }

    pub fn end(mut self) {
        let _ = self.running.0.kill();
        let _ = self.running.0.wait();
    }

    /// What it has at an address below its own, or below that of its DICOMweb service.
    pub fn get(&self, path: &str, accept: &str) -> Vec<u8> {
        let address = self.url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        // reader:test-password
        let login = "cmVhZGVyOnRlc3QtcGFzc3dvcmQ=";
        write!(socket, "GET {path} HTTP/1.0\r\nHost: a\r\nAuthorization: Basic {login}\r\nAccept: {accept}\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        assert!(answer.starts_with(b"HTTP/1.") && answer[9..12] == *b"200", "{path}: {}", String::from_utf8_lossy(&answer[..head]));
        answer.split_off(head + 4)
    }
}

/// An Orthanc with a login, that holds the files of a folder.
pub fn orthanc(dir: &Path, dicom: &Path) -> Orthanc {
    let (http, dimse) = (free_port(), free_port());
    let store = dir.join("orthanc");
    let settings = serde_json::json!({
        "Name": "TEST", "StorageDirectory": store, "IndexDirectory": store, "HttpPort": http, "DicomPort": dimse, "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": true, "AuthenticationEnabled": true, "RegisteredUsers": { "reader": "test-password" },
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"], "DicomWeb": { "Enable": true, "Root": "/dicom-web/" },
    });
    let path = dir.join("orthanc.json");
    std::fs::write(&path, settings.to_string()).unwrap();
    let mut command = Command::new("Orthanc");
    let running = Running(command.arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let start = Instant::now();
    let up = || [http, dimse].iter().all(|&port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    while !up() {
        assert!(start.elapsed() < Duration::from_secs(30), "Orthanc does not start");
        std::thread::sleep(Duration::from_millis(100));
    }
    let sent =
        Command::new("storescu").args(["-aec", "ORTHANC", "+sd", "+r", "127.0.0.1", &dimse.to_string()]).arg(dicom).output().unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    Orthanc { running, url: format!("http://127.0.0.1:{http}/dicom-web") }
}

fn pipeline(images: &str, records: &Path) -> String {
    format!(
        "name = \"test\"\n[images]\npath = \"{images}\"\nkind = \"dicom\"\nsize = 32\n[records]\npath = \"{}\"\nformat = \"fhir\"\n[[task]]\nname = \"malignant\"\nkind = \"binary\"\nlabel = {{ condition = \"http://snomed.info/sct|363358000\", within = \"180d\" }}\n",
        records.display()
    )
}

#[test]
fn a_dicomweb_server_is_as_good_as_a_folder() {
    if !Orthanc::is_installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 40, "");
    let server = orthanc(dir.path(), &data.join("dicom"));
    let write = |name: &str, images: &str, more: &str| {
        let text = pipeline(images, &data.join("fhir")).replace("size = 32\n", &format!("size = 32\n{more}"));
        let path = dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, text).unwrap();
        (path.display().to_string(), dir.path().join(format!("run-{name}")))
    };
    let run = |(pipeline, run): &(String, PathBuf), password: &str| {
        let mut command = synovia(&format!("cohort {pipeline} --run {} --quiet", run.display()));
        said(command.env("TEST_PACS_USER", "reader").env("TEST_PACS_PASSWORD", password))
    };
    let (folder, web) = (write("folder", &data.join("dicom").display().to_string(), ""), write("web", &server.url, LOGIN));
    let (ok, error) = run(&web, "wrong-password");
    assert!(!ok && error.contains("refuses access (401) with the login that was given") && !error.contains("wrong-password"), "{error}");
    let (ok, error) = run(&write("none", &server.url, ""), "");
    assert!(!ok && error.contains("without a login"), "{error}");
    let (ok, error) = run(&write("elsewhere", &format!("{}x", server.url), LOGIN), "test-password");
    assert!(!ok && error.contains("404") && error.contains("is this the address of its DICOMweb service?"), "{error}");

    // Killed on the way, it goes on from what is there.
    let mut killed = synovia(&format!("ingest {} --run {} --quiet", web.0, web.1.display()));
    let mut killed = killed.env("TEST_PACS_USER", "reader").env("TEST_PACS_PASSWORD", "test-password").spawn().unwrap();
    let copies = web.1.join("images");
    let n_copies = || {
        std::fs::read_dir(&copies)
            .map_or(0, |entries| entries.filter(|e| e.as_ref().is_ok_and(|e| e.path().extension().is_some_and(|x| x == "json"))).count())
    };
    let start = Instant::now();
    while n_copies() < 5 && killed.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let before: Vec<_> = {
        let mut all = Vec::new();
        files(&copies, &mut all);
        all.retain(|path| path.extension().is_some_and(|e| e == "json"));
        all.into_iter().map(|path| (path.metadata().unwrap().modified().unwrap(), path)).collect()
    };
    assert!(before.len() >= 5);
    for (name, at) in [("folder", &folder), ("web", &web)] {
        let (ok, error) = run(at, "test-password");
        assert!(ok, "{name}: {error}");
    }
    assert!(before.iter().all(|(time, path)| path.metadata().unwrap().modified().unwrap() == *time), "what was there was fetched again");
    assert_eq!(studies(&web.1), studies(&folder.1));
    let pixels = |run: &Path| std::fs::read(run.join("cohort/pixels-0000.u16")).unwrap();
    assert!(pixels(&web.1) == pixels(&folder.1), "the pixels differ");

    // Neither the copies nor the resolved pipeline tell who it was, or how to log in.
    let mut left = Vec::new();
    files(&copies, &mut left);
    left.retain(|path| path.extension().is_some_and(|e| e == "dcm"));
    let patients: Vec<String> = studies(&folder.1).iter().map(|study| study["patient"].as_str().unwrap().to_owned()).collect();
    for path in &left {
        let bytes = std::fs::read(path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!patients.iter().any(|patient| text.contains(patient)), "a patient is named in {}", path.display());
    }
    assert_eq!(left.len(), patients.len());
    assert!(!std::fs::read_to_string(web.1.join("pipeline.toml")).unwrap().contains("test-password"));
}

/// A running `synovia receive`, and its port.
fn receiver(out: &Path, options: &[&str]) -> (Running, String) {
    let mut command = synovia(&format!("receive --out {} --address 127.0.0.1:0 --title TEST --associations 2 --quiet", out.display()));
    let mut child = command.args(options).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let running = Running(child);
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    let port = said["listening"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    (running, port)
}

#[test]
fn what_storescu_sends_over_tls_is_in_the_folder() {
    if !installed(&["storescu", "echoscu", "openssl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 3, "");
    let certificates =
        "for ca in ca other; do openssl req -x509 -newkey rsa:2048 -nodes -keyout $ca.key -out $ca.pem -days 2 -subj /CN=$ca; done
         for name in server archive; do
             openssl req -newkey rsa:2048 -nodes -keyout $name.key -out $name.csr -subj /CN=$name
             printf 'basicConstraints=CA:FALSE' > $name.ext
             openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
         done";
    let (made, text) = said(Command::new("bash").args(["-euc", certificates]).current_dir(dir.path()));
    assert!(made, "{text}");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let out = dir.path().join("received");
    let (certificate, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let (_running, port) = receiver(&out, &["--tls-certificate", &certificate, "--tls-key", &key, "--client-ca", &ca]);
    let call = |program: &str, options: &[&str], files: &[&Path]| {
        let folders: &[&str] = if files.is_empty() { &[] } else { &["+sd", "+r"] };
        let mut command = Command::new(program);
        said(command.args(["-aec", "TEST"]).args(options).args(folders).args(["127.0.0.1", &port]).args(files))
    };
    let (archive, of_archive) = (path("archive.pem"), path("archive.key"));
    let known = ["+tls", &of_archive, &archive, "+cf", &ca];
    let (echoed, text) = call("echoscu", &known, &[]);
    assert!(echoed, "{text}");
    let (stored, text) = call("storescu", &known, &[&data.join("dicom")]);
    assert!(stored, "{text}");
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    files(&data.join("dicom"), &mut sent);
    files(&out, &mut received);
    assert_eq!(received.len(), sent.len());
    // Who shows no certificate, or one of another authority, does not trust ours, or speaks without TLS, is not answered.
    let (other, of_other) = (path("other.pem"), path("other.key"));
    let refused: [&[&str]; 4] =
        [&["+tla", "+cf", &ca], &["+tls", &of_other, &other, "+cf", &ca], &["+tls", &of_archive, &archive, "+cf", &other], &[]];
    for options in refused {
        assert!(!call("echoscu", options, &[]).0, "{options:?}");
    }
    assert!(call("echoscu", &known, &[]).0);
    // A key that is another's is an error before anything is received.
    let output =
        synovia(&format!("receive --out {} --tls-certificate {certificate} --tls-key {of_archive}", path("none"))).output().unwrap();
    assert!(!output.status.success());
}

#[test]
fn what_storescu_sends_is_in_the_folder() {
    if !installed(&["storescu", "echoscu"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 12, "");
    let out = dir.path().join("received");
    let (running, port) = receiver(&out, &[]);
    let call = |program: &str, title: &str, files: &[&Path]| {
        let folders: &[&str] = if files.is_empty() { &[] } else { &["+sd", "+r"] };
        let mut command = Command::new(program);
        command.args(["-aec", title]).args(folders).args(["127.0.0.1", &port]).args(files);
        command.output().unwrap().status.success()
    };
    assert!(call("echoscu", "TEST", &[]));
    assert!(!call("echoscu", "OTHER", &[]), "a title that is not ours is answered");
    assert!(call("storescu", "TEST", &[&data.join("dicom")]));
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    files(&data.join("dicom"), &mut sent);
    files(&out, &mut received);
    assert_eq!(received.len(), sent.len());
    // Sent again, it is there once.
    assert!(call("storescu", "TEST", &[&data.join("dicom")]));
    let mut again = Vec::new();
    files(&out, &mut again);
    assert_eq!(again.len(), sent.len());

    // A sender that breaks off, and one that speaks nonsense, leave nothing, and the receiver lives. Two more at a time are over
    // the limit.
    let connect = || std::net::TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
    // Who looks whether a port is open has begun no association.
    (0..8).for_each(|_| drop(connect()));
    std::thread::sleep(Duration::from_millis(300));
    assert!(call("echoscu", "TEST", &[]));
    let mut held = [connect(), connect()];
    std::thread::sleep(Duration::from_millis(200));
    assert!(!call("echoscu", "TEST", &[]), "a third association");
    for socket in &mut held {
        use std::io::Write;
        socket.write_all(&[1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 1]).unwrap();
    }
    drop(held);
    std::thread::sleep(Duration::from_millis(300));
    assert!(call("echoscu", "TEST", &[]));
    let mut partial = Vec::new();
    files(&dir.path().join("received.partial"), &mut partial);
    assert!(partial.is_empty(), "{partial:?}");
    drop(running);

    // Pixels are as they were sent: the received folder makes the same cohort.
    let run = |name: &str, images: &Path| {
        let path = dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, pipeline(&images.display().to_string(), &data.join("fhir"))).unwrap();
        let folder = dir.path().join(name);
        let (_, text) = said(&mut synovia(&format!("ingest {} --run {} --quiet", path.display(), folder.display())));
        assert!(folder.join("ingest/studies.json").is_file(), "{text}");
        studies(&folder)
    };
    assert_eq!(run("a", &out), run("b", &data.join("dicom")));
}
