//! Writes the hostile FHIR files of `fixtures/bad/fhir`: all made up, each wrong in the way that its name says.
//!
//! `cargo run -p synovia-records --example make_bad_fhir -- fixtures/bad/fhir`

use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;

/// The one patient of the fixtures.
const PATIENT: &str = r#"{"resourceType":"Patient","id":"fixture-patient-1","identifier":[{"value":"MRN-FIXTURE-77"}],"name":[{"family":"Fixtureson"}],"gender":"female","birthDate":"1961-02-03"}"#;

fn observation(subject: &str, time: &str, value: &str) -> String {
    format!(
        r#"{{"resourceType":"Observation","id":"o","status":"final","code":{{"coding":[{{"system":"http://loinc.org","code":"1988-5","display":"CRP"}}]}},"subject":{{"reference":"{subject}"}},"effectiveDateTime":"{time}","valueQuantity":{{"value":{value},"unit":"mg/L","system":"http://unitsofmeasure.org","code":"mg/L"}}}}"#
    )
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("give the folder to write to")?);
    std::fs::create_dir_all(&folder)?;
    let write = |name: &str, lines: &[String]| std::fs::write(folder.join(name), lines.join("\n") + "\n");
    let patient = PATIENT.to_owned();
    let good = observation("Patient/fixture-patient-1", "2020-05-04T10:00:00Z", "5.5");

    write(
        "broken.ndjson",
        &[
            patient.clone(),
            r#"{"resourceType":"Observation","status":"final","code":{"coding":[}"#.to_owned(),
            good.clone(),
            "hello".to_owned(),
        ],
    )?;
    write(
        "nan.ndjson",
        &[
            patient.clone(),
            observation("Patient/fixture-patient-1", "2020-05-04", "NaN"),
            observation("Patient/fixture-patient-1", "2020-05-04", "\"NaN\""),
            observation("Patient/fixture-patient-1", "2020-05-04", "1e999"),
            observation("Patient/fixture-patient-1", "2020-05-04", "{}"),
            good.clone(),
        ],
    )?;
    write(
        "zero-date.ndjson",
        &[
            patient.clone(),
            observation("Patient/fixture-patient-1", "0000-00-00", "1"),
            observation("Patient/fixture-patient-1", "2023-02-30", "1"),
            observation("Patient/fixture-patient-1", "0001-01-01", "1"),
            observation("Patient/fixture-patient-1", "", "1"),
            good.clone(),
        ],
    )?;
    write(
        "unknown-subject.ndjson",
        &[
            patient.clone(),
            observation("Patient/fixture-nobody", "2020-05-04", "1"),
            observation("Group/fixture-group", "2020-05-04", "1"),
            observation("", "2020-05-04", "1"),
            good.clone(),
        ],
    )?;

    // The stream is cut in the middle of its compressed data.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    writeln!(gzip, "{PATIENT}")?;
    // A row of numbers that does not repeat, so that what is cut off is more than the end.
    for k in 0u64..2000 {
        let value = (k.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / f64::from(1 << 24);
        writeln!(gzip, "{}", observation("Patient/fixture-patient-1", "2020-05-04T10:00:00Z", &format!("{:.7}", 1000.0 * value)))?;
    }
    let whole = gzip.finish()?;
    std::fs::write(folder.join("truncated.ndjson.gz"), &whole[..whole.len() / 2])?;

    // References that go round, a Bundle that holds its own likeness, and Bundles in Bundles.
    let round = r#"{"fullUrl":"urn:uuid:aaaa-1","resource":{"resourceType":"MedicationRequest","status":"active","intent":"order","subject":{"reference":"urn:uuid:aaaa-1"},"medicationReference":{"reference":"urn:uuid:aaaa-2"},"authoredOn":"2020-05-04"}},{"fullUrl":"urn:uuid:aaaa-2","resource":{"resourceType":"Medication","id":"m","ingredient":[{"itemReference":{"reference":"urn:uuid:aaaa-2"}}]}}"#;
    let mut inner = format!(r#"{{"resourceType":"Bundle","id":"b","type":"collection","entry":[{round}]}}"#);
    for _ in 0..40 {
        inner =
            format!(r#"{{"resourceType":"Bundle","id":"b","type":"collection","entry":[{{"fullUrl":"urn:uuid:b","resource":{inner}}}]}}"#);
    }
    let entry = |resource: &str| format!(r#"{{"resource":{resource}}}"#);
    let entries = [entry(PATIENT), round.to_owned(), entry(&inner), entry(&good)].join(",\n");
    write("cycle.json", &[format!(r#"{{"resourceType":"Bundle","id":"b","type":"collection","entry":[{entries}]}}"#)])?;
    write(
        "truncated.json",
        &[format!(
            "{{\"resourceType\":\"Bundle\",\"type\":\"collection\",\"entry\":[\n{},\n{},\n{{\"resource\":{{\"resourceType\":\"Obs",
            entry(PATIENT),
            entry(&good)
        )],
    )?;
    // Deeper than any parser's stack.
    write(
        "deep.ndjson",
        &[
            patient,
            "[".repeat(100_000),
            format!(r#"{{"resourceType":"Observation","extension":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000)),
            good,
        ],
    )?;
    Ok(())
}
