//! Mutates the files of a folder and reads each mutant in every way: no panic, no file of more than ten seconds, and no allocation of
//! more than 1 GB: all that the process ever had of the address space is less (C libraries, code and stacks counted), so that what
//! is asked for and not used counts too. Prints a JSON line of what happened; what goes wrong is an error with its seed.
//!
//! `mutate_files FOLDER N [SEED]`

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use synovia_images::{ImageKind, Preparation, Profile, Secret, deidentify, load_file};

/// Larger files are read more slowly and no more thoroughly.
const MAX_SEED_BYTES: u64 = 40_000;
const LIMIT: Duration = Duration::from_secs(10);
const LIMIT_KB: u64 = 1_000_000;

/// The most address space that the process has had, in kB; `None` where the system does not tell.
fn peak_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?.split_whitespace().next()?.parse().ok()
}

/// An xorshift: the same mutants for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n.max(1)
    }
}

fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    // Half of the changes are in the first two kilobytes after the preamble, where the header and the codec's are.
    let start = if bytes.len() > 132 { 132 } else { 0 };
    for _ in 0..=random.below(8) {
        let n = bytes.len() - start;
        if n == 0 {
            break;
        }
        let at = start + if random.below(2) == 0 { random.below(n.min(2048)) } else { random.below(n) };
        match random.below(6) {
            0 => bytes[at] = random.below(256) as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = [0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF][random.below(6)],
            3 => {
                let end = (at + 1 + random.below(8)).min(bytes.len());
                bytes[at..end].fill([0x00, 0xFF][random.below(2)]);
            }
            4 => {
                let end = (at + random.below(64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = start + random.below(n);
                bytes.splice(to..to, part);
            }
            _ => {
                let end = (at + random.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    if random.below(8) == 0 {
        let n = random.below(bytes.len());
        bytes.truncate(n);
    }
    bytes
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: mutate_files FOLDER N [SEED]";
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or(usage)?);
    let n: u64 = arguments.next().and_then(|n| n.to_str()?.parse().ok()).ok_or(usage)?;
    let seed: u64 = arguments.next().and_then(|seed| seed.to_str()?.parse().ok()).unwrap_or(1);
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.is_file() && path.metadata()?.len() <= MAX_SEED_BYTES {
            seeds.push(std::fs::read(&path)?);
        }
    }
    seeds.sort_unstable();
    if seeds.is_empty() {
        return Err("no file of at most 40 kB in the folder".into());
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("mutant");
    let (plain, secret) = (Preparation::grey(16), Secret::new([7; 16])?);
    let spaced = Preparation { spacing_mm: Some(2.0), ..plain.clone() };
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let (mut images, mut clean, mut slowest) = (0u64, 0u64, Duration::ZERO);
    let start = Instant::now();
    for k in 0..n {
        let bytes = mutate(&seeds[random.below(seeds.len())], &mut random);
        std::fs::write(&path, &bytes)?;
        let began = Instant::now();
        let preparation = if k % 2 == 0 { &plain } else { &spaced };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let read = |kind| load_file(&path, kind, preparation).is_ok();
            let image = read(ImageKind::Dicom) || read(ImageKind::Picture);
            (image, deidentify(&path, Profile::default(), &secret).is_ok())
        }));
        let took = began.elapsed();
        slowest = slowest.max(took);
        let is_large = peak_kb().is_some_and(|kb| kb > LIMIT_KB);
        if outcome.is_err() || took > LIMIT || is_large {
            let kept = std::env::temp_dir().join(format!("mutant-{seed}-{k}"));
            std::fs::copy(&path, &kept)?;
            return Err(format!(
                "mutant {k} of seed {seed}: {}; kept as {}",
                match (outcome.is_err(), is_large) {
                    (true, _) => "a panic",
                    (_, true) => "an allocation that makes more than 1 GB of all",
                    _ => "slow",
                },
                kept.display()
            )
            .into());
        }
        let (image, deidentified) = outcome.unwrap_or_default();
        images += u64::from(image);
        clean += u64::from(deidentified);
        if (k + 1) % 10_000 == 0 {
            eprintln!("{} of {n}, {images} images, slowest {slowest:?}", k + 1);
        }
    }
    println!(
        "{{\"files\": {n}, \"images\": {images}, \"deidentified\": {clean}, \"slowest_s\": {:.3}, \"peak_address_space_mb\": {}, \"seconds\": {:.0}}}",
        slowest.as_secs_f64(),
        peak_kb().unwrap_or(0) / 1000,
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
