//! Mutates FHIR resources, ingests them, and looks that nothing panics and that every line is taken, skipped or rejected with
//! its number: `cargo run --release -p synovia-records --example mutate_resources -- 1000000 [SEED]`

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::time::Instant;

use synovia_cohort::{Rejected, RejectedLog};
use synovia_records::{FormatConfig, ingest};

const SEEDS: [&str; 8] = [
    r#"{"resourceType":"Patient","id":"p1","birthDate":"1960-02-29","gender":"female","name":[{"family":"A","given":["B"]}],"deceasedDateTime":"2021-01-01"}"#,
    r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"1988-5"}]},"subject":{"reference":"Patient/p1"},"effectiveDateTime":"2020-05-04T10:00:00+02:00","valueQuantity":{"value":5.5,"code":"mg/L"},"component":[{"code":{"coding":[{"code":"x"}]},"valueInteger":3}]}"#,
    r#"{"resourceType":"Condition","subject":{"reference":"urn:uuid:p1"},"code":{"coding":[{"system":"s","code":"x"}]},"onsetDateTime":"2020","recordedDate":"2020-03-01"}"#,
    r#"{"resourceType":"DiagnosticReport","status":"final","code":{"coding":[{"code":"r"}]},"subject":{"reference":"Patient/p1"},"issued":"2020-05-05T08:00:00Z","presentedForm":[{"contentType":"text/html","data":"PHA+Zm9vICZhbXA7IGJhcjwvcD4="}],"text":{"div":"<div>a &lt; b</div>"}}"#,
    r##"{"resourceType":"MedicationRequest","status":"active","intent":"order","subject":{"reference":"Patient/p1"},"contained":[{"resourceType":"Medication","id":"m","code":{"coding":[{"system":"rx","code":"1"}]}}],"medicationReference":{"reference":"#m"},"authoredOn":"2020-05-04"}"##,
    r#"{"resourceType":"ImagingStudy","status":"available","subject":{"reference":"Patient/p1"},"started":"2020-05-04T08:00:00Z","identifier":[{"system":"urn:dicom:uid","value":"urn:oid:1.2.3"},{"type":{"coding":[{"code":"ACSN"}]},"value":"A7"}],"modality":[{"code":"DX"}]}"#,
    r#"{"resourceType":"Bundle","type":"collection","entry":[{"fullUrl":"urn:uuid:9","resource":{"resourceType":"Procedure","status":"completed","code":{"coding":[{"code":"x"}]},"subject":{"reference":"Patient/p1"},"performedPeriod":{"start":"2020-01-01","end":"2020-01-02"}}}]}"#,
    r#"{"resourceType":"FamilyMemberHistory","status":"completed","patient":{"reference":"Patient/p1"},"date":"2020-01-01","relationship":{"coding":[{"code":"MTH"}]},"condition":[{"code":{"coding":[{"system":"s","code":"y"}]}}],"note":[{"text":"\u00e9 \"quoted\" \\ {[ "}]}"#,
];

/// `SplitMix64`: the same mutations for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % n.max(1) as u64) as usize
    }
}

fn mutated(random: &mut Random) -> Vec<u8> {
    let mut bytes = SEEDS[random.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..random.below(6) {
        let (at, byte) = (random.below(bytes.len()), (random.below(255) + 1) as u8);
        match random.below(5) {
            0 => bytes[at] = byte,
            1 => {
                bytes.remove(at);
            }
            2 => bytes.insert(at, byte),
            3 => bytes.truncate(at.max(1)),
            _ => {
                let piece = bytes[at..(at + random.below(20)).min(bytes.len())].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'x');
        }
    }
    bytes.retain(|b| *b != b'\n');
    bytes
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let n: u64 = arguments.next().ok_or("give the number of resources")?.parse()?;
    let mut random = Random(arguments.next().map_or(Ok(1), |seed| seed.parse())?);
    let folder = tempfile::tempdir()?;
    let (input, log) = (folder.path().join("mutated.ndjson"), folder.path().join("rejected.jsonl"));
    let mut out = BufWriter::new(std::fs::File::create(&input)?);
    let mut n_lines = 1;
    for _ in 0..n {
        let line = mutated(&mut random);
        n_lines += u64::from(!line.iter().all(u8::is_ascii_whitespace));
        out.write_all(&line)?;
        out.write_all(b"\n")?;
    }
    // The last line is sound: whatever came before, it is read.
    out.write_all(b"{\"resourceType\":\"Patient\",\"id\":\"the-last\"}\n")?;
    out.flush()?;
    let start = Instant::now();
    let rejected = RejectedLog::create(&log)?;
    let store = ingest(&input, &FormatConfig::fhir(), &folder.path().join("spill"), &rejected, &|_| {})?;
    rejected.finish()?;
    let mut lines = BTreeSet::new();
    for line in BufReader::new(std::fs::File::open(&log)?).lines() {
        let rejected: Rejected = serde_json::from_str(&line?)?;
        let number = rejected.position.strip_prefix("line ").and_then(|rest| rest.split([' ', ',']).next()?.parse::<u64>().ok());
        lines.insert(number.ok_or("a rejection without a line")?);
    }
    let found = (0..store.n_partitions()).map(|k| Ok(store.load(k)?.iter().any(|record| record.id.reveal() == "the-last")));
    assert!(found.collect::<Result<Vec<bool>, synovia_records::RecordsError>>()?.contains(&true), "the last line was not read");
    let summary = store.summary();
    let n_taken: u64 = summary.resources.values().chain(summary.skipped_types.values()).sum();
    assert!(n_taken + lines.len() as u64 >= n_lines, "{n_taken} taken and {} lines rejected of {n_lines}", lines.len());
    println!(
        "{n} mutated resources in {:.1} s: {} understood, {} of other types, {} lines rejected in part or whole ({} rejections), {} events",
        start.elapsed().as_secs_f64(),
        summary.resources.values().sum::<u64>(),
        summary.skipped_types.values().sum::<u64>(),
        lines.len(),
        summary.n_rejected,
        summary.n_events
    );
    Ok(())
}
