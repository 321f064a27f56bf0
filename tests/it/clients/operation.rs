//! What operators set: certificates, rates, traces, files.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Command;

use serde_json::{Value, json};

use super::{Ward, python, said};
use crate::serving::Server;
use crate::sources::installed;
use crate::synovia::{command, json_lines, root};

/// HTTPS with a certificate that is renewed, and clients that show theirs.
#[test]
fn https_with_certificates() {
    if !installed(&["curl", "openssl"]) {
        return;
    }
    let ward = Ward::new();
    let dir = ward.dir.path();
    let openssl = |script: &str| said(&Command::new("bash").args(["-euc", script]).current_dir(dir).output().unwrap());
    openssl(
        "new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1.key -out $1.csr -subj /CN=$1 2>&1
                 printf 'basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1' > $1.ext
                 openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $1.ext -out $1.pem 2>&1; }
         for ca in ca other; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $ca.key -out $ca.pem -days 2 -subj /CN=$ca 2>&1; done
         new server; new renewed; new ward; new stranger
         openssl x509 -req -in stranger.csr -CA other.pem -CAkey other.key -CAcreateserial -days 2 -out stranger.pem 2>&1
         cp server.pem now.pem; cp server.key now.key",
    );
    let fingerprint = |name: &str| {
        let text = openssl(&format!("openssl x509 -in {name}.pem -noout -fingerprint -sha256"));
        text.trim().split('=').nth(1).unwrap().to_owned()
    };
    std::fs::write(dir.join("clients"), format!("sha256:{} ward predict\nsecret operator admin\n", fingerprint("ward"))).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    let mut server = command();
    server.args([
        "serve",
        "--tls-certificate",
        &path("now.pem"),
        "--tls-key",
        &path("now.key"),
        "--client-ca",
        &path("ca.pem"),
        "--token-file",
        &path("clients"),
        "--audit-log",
        &path("audit.jsonl"),
        "--rate",
        "4",
    ]);
    let server = Server::start_unready(&ward.models, &dir.join("log"), server);
    let curl = |arguments: &str| {
        let script = format!(
            "curl -sS --retry 20 --retry-delay 1 --retry-connrefused -o body -w '%{{http_code}} %{{http_version}}' {}",
            arguments.replace("URL", &format!("https://{}", server.rest))
        );
        let output = Command::new("bash").args(["-c", &script]).current_dir(dir).output().unwrap();
        let code = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), code, std::fs::read_to_string(dir.join("body")).unwrap_or_default())
    };
    let as_ward = "--cacert ca.pem --cert ward.pem --key ward.key";
    let predict = format!("{as_ward} -F images=@chest.dcm -F records=@chart.json URL/v1/models/lung/predict");
    // The first one waits for the models.
    assert_eq!(curl(&format!("{as_ward} URL/v2/health/ready")).1, "200 2");
    let (_, code, body) = curl(&predict);
    assert!(code == "200 2" && body.contains("probabilities"), "{code} {body}");
    assert_eq!(json_lines(&std::fs::read_to_string(dir.join("audit.jsonl")).unwrap())[0]["client"], "ward");
    // A client of this name may predict, and that is all; a token beside the certificate may more.
    assert_eq!(curl(&format!("{as_ward} -X POST URL/v2/repository/models/lung/load")).1, "403 2");
    assert_eq!(curl("--http1.1 --cacert ca.pem --cert renewed.pem --key renewed.key -H 'Authorization: Bearer secret' -X POST URL/v2/repository/models/lung/load").1, "200 1.1");
    assert_eq!(curl("--cacert ca.pem --cert renewed.pem --key renewed.key URL/v2").1, "401 2");
    // Without a certificate, with a stranger's, with another authority, and without HTTPS at all there is no answer.
    for arguments in [
        "--retry 0 --cacert ca.pem URL/v2",
        "--retry 0 --cacert ca.pem --cert stranger.pem --key stranger.key URL/v2",
        &format!("--retry 0 {} URL/v2", as_ward.replace("ca.pem", "other.pem")),
        &format!("--retry 0 http://{}/v2", server.rest),
    ] {
        let (is_well, code, _) = curl(arguments);
        assert!(!is_well && code.starts_with("000"), "{arguments}: {code}");
    }
    // A token that is shown is what counts, whatever certificate is beside it.
    assert_eq!(curl(&format!("{as_ward} -H 'Authorization: Bearer wrong' URL/v2")).1, "401 2");
    // More than four at once are too many, and said to be.
    let model = "URL/v2/models/lung/infer";
    let parallel =
        format!("{as_ward} --retry 0 --parallel --parallel-immediate --parallel-max 40 -d '{{}}' {}", [model; 40].join(" -o /dev/null "));
    let codes = curl(&parallel).1;
    assert!(codes.contains("400") && codes.contains("429"), "{codes}");
    // A renewed certificate is shown after SIGHUP; a broken one is not.
    let shown = || {
        openssl(&format!(
            "echo | openssl s_client -connect {} -cert ward.pem -key ward.key 2>/dev/null | openssl x509 -noout -fingerprint -sha256",
            server.rest
        ))
        .trim()
        .split('=')
        .nth(1)
        .unwrap()
        .to_owned()
    };
    assert_eq!(shown(), fingerprint("server"));
    let renew = |certificate: &str, key: &str, event: &str| {
        openssl(&format!("{certificate}; {key}; kill -HUP {}", server.id()));
        let started = std::time::Instant::now();
        while !std::fs::read_to_string(dir.join("log")).unwrap().contains(event) {
            assert!(started.elapsed().as_secs() < 60);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    renew("cp renewed.pem now.pem", "cp renewed.key now.key", "{\"event\":\"certificate\",\"failure\":null");
    assert_eq!(shown(), fingerprint("renewed"));
    renew("echo nothing > now.pem", "true", "\"failure\":\"");
    assert_eq!(shown(), fingerprint("renewed"));
    let log = std::fs::read_to_string(dir.join("log")).unwrap();
    assert!(!log.contains("secret") && !log.contains("PRIVATE"), "{log}");
}

/// A collector of traces: the bodies that were sent to it.
fn collector() -> (String, std::sync::mpsc::Receiver<Value>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut reader = BufReader::new(socket.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = n.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").unwrap();
            if tell.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (address, told)
}

/// Where a request's time goes is in its client's trace; and neither there nor in log, metrics and errors is anybody.
#[test]
fn traces_name_nobody() {
    let ward = Ward::new();
    let (collector, told) = collector();
    let mut server = ward.serve(&["--traces", &collector]);
    let expected = ward.predict(&server, &[]);
    let mut texts = vec![expected.to_string()];
    if installed(&["curl"]) {
        let given = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let at = format!("http://{}/v1/models/lung/predict", server.rest);
        let files = ["-F", "images=@chest.dcm", "-F", "records=@chart.json"];
        said(&Command::new("curl").args(["-sS", "-H", given]).args(files).arg(at).current_dir(ward.dir.path()).output().unwrap());
    }
    // What goes wrong, too: a patient that is no FHIR any more, and one in the place of an image.
    let patient = ward.resources.iter().find(|resource| resource["resourceType"] == "Patient").unwrap().to_string();
    for (kind, body) in
        [("application/fhir+json", &patient[..patient.len() - 1]), ("application/dicom", &patient), ("application/fhir+json", &patient)]
    {
        texts.push(server.ask("POST", "/v1/models/lung/predict", kind, body.as_bytes()).1.to_string());
    }
    let name = ward.resources.iter().find_map(|resource| resource["name"][0]["family"].as_str()).unwrap();
    texts.push(server.ask_for_text("GET", "/metrics"));
    // An address is said back to whoever asks, and to nobody else.
    server.ask("POST", &format!("/v2/models/{name}/infer?{name}"), "application/json", b"{}");
    texts.push(server.ask_for_text("GET", "/metrics"));
    server.end();
    texts.push(std::fs::read_to_string(ward.dir.path().join("log")).unwrap());
    let messages: Vec<Value> = told.try_iter().collect();
    let spans: Vec<&Value> =
        messages.iter().flat_map(|message| message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap()).collect();
    texts.extend(messages.iter().map(ToString::to_string));
    let of_client: Vec<&&Value> = spans.iter().filter(|span| span["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736").collect();
    if installed(&["curl"]) {
        let whole = of_client.iter().find(|span| span["name"] == "POST /v1/models/{model}/predict").unwrap();
        assert_eq!((&whole["parentSpanId"], &whole["kind"]), (&json!("00f067aa0ba902b7"), &json!(2)));
        let time = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
        for name in ["prepare", "infer"] {
            let part = of_client.iter().find(|span| span["name"] == name).unwrap();
            assert_eq!(part["parentSpanId"], whole["spanId"], "{name}");
            assert!(
                time(part, "startTimeUnixNano") >= time(whole, "startTimeUnixNano")
                    && time(part, "endTimeUnixNano") <= time(whole, "endTimeUnixNano")
            );
        }
        assert_eq!(of_client.len(), 3);
    }
    assert!(spans.len() >= 9, "{}", spans.len());
    let identifying = |resource: &Value| {
        let texts = [
            &resource["id"],
            &resource["identifier"][0]["value"],
            &resource["name"][0]["family"],
            &resource["name"][0]["given"][0],
            &resource["birthDate"],
        ];
        texts.into_iter().filter_map(Value::as_str).filter(|text| text.len() > 3).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut n = 0;
    for word in ward.resources.iter().flat_map(identifying).chain([name.to_owned()]) {
        n += 1;
        assert!(texts.iter().all(|text| !text.contains(&word)), "a name, an identifier or a date is said");
    }
    assert!(n > 20, "{n}");
    let Some(python) = python() else { return };
    // As OpenTelemetry's own definitions have it.
    let script = "import json, sys\nfrom google.protobuf.json_format import ParseDict\nfrom opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as Request\nprint(sum(len(ParseDict(message, Request()).resource_spans[0].scope_spans[0].spans) for message in json.load(open(sys.argv[1]))))";
    let file = ward.dir.path().join("traces.json");
    std::fs::write(&file, json!(messages).to_string()).unwrap();
    assert_eq!(said(&Command::new(python).args(["-c", script]).arg(file).output().unwrap()).trim(), spans.len().to_string());
}

/// Settings of a file, with what is said beside it before it.
#[test]
fn settings_of_a_file() {
    let ward = Ward::new();
    let file = ward.dir.path().join("serve.toml");
    let text = format!(
        "models = \"{}\"\naudit-log = \"{}\"\nrate = 1000\nmax-body = 1\naccess-log = false\n",
        ward.models.display(),
        ward.dir.path().join("audit.jsonl").display()
    );
    std::fs::write(&file, text).unwrap();
    let server = ward.serve(&["--config", &file.display().to_string()]);
    ward.predict(&server, &[]);
    assert_eq!(json_lines(&std::fs::read_to_string(ward.dir.path().join("audit.jsonl")).unwrap()).len(), 1);
    let large = vec![b' '; 1_500_000];
    assert_eq!(server.ask("POST", "/v1/models/lung/predict", "application/dicom", &large).0, 413);
    drop(server);
    let server = ward.serve(&["--max-body", "2", "--config", &file.display().to_string()]);
    assert_eq!(server.ask("POST", "/v1/models/lung/predict", "application/dicom", &large).0, 400);
    drop(server);
    for (text, words) in [
        ("modells = \"a\"", "--modells"),
        ("rate = [1]", "`rate` is neither"),
        ("rate = \"often\"", "often"),
        ("rate", "serve.toml"),
        ("rate = 1", "no models"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = crate::synovia::run(&format!("serve --config {}", file.display()));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(words), "{text}: {said}");
    }
}

/// What is in the files for operators is what there is.
#[test]
fn files_for_operators_hold() {
    let help = crate::synovia::succeed("serve --help");
    let is_option = |option: &str| {
        let there = [" ", "\n"].iter().any(|end| help.contains(&format!("--{option}{end}")));
        assert!(there, "--{option} is no option of `serve`");
    };
    let folder = root().join("pipelines/serving");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let mut n = 0;
    for line in read("serve.toml").lines() {
        // A remark, or a setting behind one.
        let setting = line.trim_start_matches("# ");
        if let Some((key, _)) = setting.split_once(" = ").filter(|(key, _)| !key.contains(' ')) {
            is_option(key);
            n += 1;
        }
    }
    for name in ["Dockerfile", "kubernetes.yaml"] {
        let text: String =
            read(name).lines().filter(|line| !line.starts_with('#') && *line != "---").map(|line| line.to_owned() + "\n").collect();
        for word in text.split(|c: char| c.is_whitespace() || "\"',[]()".contains(c)) {
            let known = ["release", "workspace", "locked", "from", "to", "system", "uid"];
            let option = word.strip_prefix("--").map(|option| option.split('=').next().unwrap());
            if let Some(option) = option.filter(|option| !option.is_empty() && !known.iter().any(|of_others| of_others == option)) {
                is_option(option);
                n += 1;
            }
        }
    }
    assert!(n > 20, "{n}");
    if installed(&["systemd-analyze"]) {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join("synovia.service");
        let program = command().get_program().to_owned();
        std::fs::write(&unit, read("synovia.service").replace("/usr/local/bin/synovia", &program.to_string_lossy())).unwrap();
        let output = Command::new("systemd-analyze").arg("verify").arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("synovia.service"), "{said}");
    }
}
