//! Mutates rows of long CSV and of OMOP tables, and bytes of MEDS shards, ingests them, and looks that nothing panics, that the
//! process goes on, and that a sound row or shard beside them is read:
//! `cargo run --release -p synovia-records --example mutate_rows -- 1000000 [SEED]`

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use synovia_cohort::RejectedLog;
use synovia_records::{FormatConfig, LongLayout, RecordStore, ingest};

type Failure = Box<dyn std::error::Error>;

/// `SplitMix64`: the same mutations for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % n.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, most: usize) {
        for _ in 0..=self.below(most) {
            let (at, byte) = (self.below(bytes.len()), self.below(256) as u8);
            match self.below(4) {
                _ if bytes.is_empty() => bytes.push(byte),
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte & 7),
                2 => bytes.insert(at, byte),
                _ => {
                    bytes.remove(at);
                }
            }
        }
    }
}

fn unpacked(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path)?).read_to_string(&mut text)?;
    Ok(text.lines().map(|line| line.as_bytes().to_vec()).collect())
}

fn has(store: &RecordStore, patient: &str) -> Result<bool, Failure> {
    for k in 0..store.n_partitions() {
        if store.load(k)?.iter().any(|record| record.id.reveal() == patient) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes `n` mutated rows of a table, then blank lines (an open quote ends in them), then a sound row.
fn table(from: &Path, to: &Path, n: u64, last: &str, random: &mut Random) -> Result<(), Failure> {
    let lines = unpacked(from)?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(to)?);
    out.write_all(&lines[0])?;
    for _ in 0..n {
        let mut line = lines[1 + random.below(lines.len() - 1)].clone();
        random.mutate(&mut line, 4);
        line.retain(|b| *b != b'\n');
        out.write_all(b"\n")?;
        out.write_all(&line)?;
    }
    out.write_all(&vec![b'\n'; 1_100_000])?;
    writeln!(out, "{last}")?;
    out.flush()?;
    Ok(())
}

fn read(what: &str, n: u64, path: &Path, format: &FormatConfig, patient: &str) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let start = Instant::now();
    let rejected = RejectedLog::create(&folder.path().join("rejected.jsonl"))?;
    let store = ingest(path, format, &folder.path().join("spill"), &rejected, &|_| {})?;
    rejected.finish()?;
    assert!(has(&store, patient)?, "{what}: the sound row was not read");
    let s = store.summary();
    println!(
        "{n} mutated {what} in {:.1} s: {} rows understood, {} rejections, {} events",
        start.elapsed().as_secs_f64(),
        s.resources.values().sum::<u64>(),
        s.n_rejected,
        s.n_events
    );
    Ok(())
}

/// A panic of the decoder is caught where it is called; here it is counted instead of printed.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let n: u64 = arguments.next().ok_or("give the number of rows")?.parse()?;
    let mut random = Random(arguments.next().map_or(Ok(1), |seed| seed.parse())?);
    let cohort = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("oracle/cohort");
    let folder = tempfile::tempdir()?;

    let csv = folder.path().join("events.csv");
    table(&cohort.join("csv/events.csv.gz"), &csv, n / 2, "the-last,,,sex,,,female,,", &mut random)?;
    let column = |name: &str| Some(name.to_owned());
    let [patient, time, code] = ["pid", "when", "code"].map(str::to_owned);
    let (system, kind, value, unit, text) = (column("vocabulary"), column("kind"), column("value"), column("unit"), column("note"));
    let layout = LongLayout { patient, time, code, system, kind, value, unit, text, ..LongLayout::default() };
    read("rows of long CSV", n / 2, &csv, &FormatConfig::long(layout), "the-last")?;

    let omop = folder.path().join("omop");
    std::fs::create_dir(&omop)?;
    for name in ["PERSON.csv.gz", "CONCEPT.csv.gz"] {
        std::fs::copy(cohort.join("omop").join(name), omop.join(name))?;
    }
    for (name, last) in [("CONDITION_OCCURRENCE", "1040,1,2020-01-01,"), ("OBSERVATION", "1040,1,2,2020-01-01,")] {
        table(&cohort.join("omop").join(format!("{name}.csv.gz")), &omop.join(format!("{name}.csv")), n / 4, last, &mut random)?;
    }
    read("rows of OMOP tables", n / 4 * 2, &omop, &FormatConfig::omop(), "1040")?;

    std::panic::set_hook(Box::new(|_| {
        PANICS.fetch_add(1, Ordering::Relaxed);
    }));
    let meds = folder.path().join("meds");
    std::fs::create_dir_all(meds.join("data"))?;
    std::fs::copy(cohort.join("meds/data/held_out/0.parquet"), meds.join("data/sound.parquet"))?;
    let shard = std::fs::read(cohort.join("meds/data/train/0.parquet"))?;
    let (n_files, start, mut n_rejected, mut n_rows) = (n / 1000, Instant::now(), 0, 0);
    for k in 0..n_files {
        let mut bytes = shard.clone();
        // Every second file is hit in its footer.
        if k % 2 == 0 {
            random.mutate(&mut bytes, 8);
        } else {
            let mut footer = bytes.split_off(bytes.len().saturating_sub(3000));
            random.mutate(&mut footer, 4);
            bytes.extend(footer);
        }
        std::fs::write(meds.join("data/mutated.parquet"), &bytes)?;
        let store = match ingest(&meds, &FormatConfig::meds(), &folder.path().join("meds-spill"), &RejectedLog::counting(), &|_| {}) {
            Ok(store) => store,
            // A column's name was hit: that is said before anything is read.
            Err(synovia_records::RecordsError::MissingColumn { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        assert!(has(&store, "1040")?, "the sound shard was not read");
        n_rejected += store.summary().n_rejected;
        n_rows += store.summary().resources.values().sum::<u64>();
    }
    let _ = std::panic::take_hook();
    println!(
        "{n_files} mutated MEDS shards in {:.1} s: {n_rows} rows understood, {n_rejected} rejections, {} panics of the decoder caught",
        start.elapsed().as_secs_f64(),
        PANICS.load(Ordering::Relaxed)
    );
    Ok(())
}
