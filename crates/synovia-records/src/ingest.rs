//! The ingest: one reader that cuts files into batches, workers that read them, and the settling of what they found.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard, PoisonError};

use synovia_cohort::{Rejected, RejectedLog};

use crate::config::FormatConfig;
use crate::error::RecordsError;
use crate::fhir::{Where, read_bundle, read_piece};
use crate::rows::{Remembered, Rows};
use crate::source::{
    Batch, Layout, Piece, PieceKind, Pool, Source, Trouble, WHOLE_FILE_BYTES, find, lines_of, open, sayable, split_entries, split_lines,
    split_rows, too_long, whole_file,
};
use crate::spill::{Context, MARKER, Medications, Raw, RecordStore, Sink, marker, publish, settle};
use crate::summary::{Summary, count};

/// Input bytes for a partition: small enough that a partition's patients fit in memory many times over, whatever their number.
/// A partition that still becomes too large is cut when it is settled.
const PARTITION_BYTES: u64 = 4 << 20;
/// The same of FHIR, of which events are the twentieth part: a file is made for each partition, and that takes longer than it seems.
#[cfg(not(test))]
const FHIR_PARTITION_BYTES: u64 = 16 << 20;
#[cfg(test)]
const FHIR_PARTITION_BYTES: u64 = PARTITION_BYTES;
const MAX_PARTITIONS: u64 = 256;
/// Input that is read in less time than threads for it would be made in.
const FEW_BYTES: u64 = 256 << 10;
/// What compressed JSON, or a Parquet file, says is about this much larger than the file.
const PACKED_RATIO: u64 = 8;

/// Size of the files that [`ingest`] would read under `path`, bytes: the whole of its progress.
///
/// # Errors
/// [`RecordsError`] when there are none, or `path` can't be read.
pub fn input_bytes(path: &Path, format: &FormatConfig) -> Result<u64, RecordsError> {
    Ok(find(path, format.format)?.0.iter().map(|source| source.n_bytes).sum())
}

/// Reads every file of the format under `path` (a folder or a file) and writes its patients to the folder `spill`.
///
/// Nothing is held but a few megabytes of input, events until they are 64 MiB and, in the end, one partition a thread: memory does not
/// grow with the number of patients beyond that. What is not taken goes to `rejected` with file, place and reason, never with an identifier: a file that is
/// not named for a type of resource (`Observation.ndjson`) is called by its place in the order of the names, since it may be
/// named for a patient. `progress` is told of the bytes read since it was last called, from
/// any thread. Runs on as many threads as the current rayon pool has; the result is the same for any number.
///
/// # Errors
/// [`RecordsError`] when there is nothing to read, a table lacks a column that its layout names, or `spill` can't be
/// written. Until the last file is in place, [`RecordStore::open`] refuses the folder.
pub fn ingest(
    path: &Path,
    format: &FormatConfig,
    spill: &Path,
    rejected: &RejectedLog,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<RecordStore, RecordsError> {
    let (sources, others) = find(path, format.format)?;
    let mut of_metadata = Vec::new();
    let rows = Rows::open_all(&sources, format, &mut |file, position, reason| of_metadata.push((file, position, reason.to_owned())))?;
    let packed = |source: &Source| source.gzip || source.layout == Layout::Parquet;
    let n_bytes: u64 = sources.iter().map(|s| if packed(s) { s.n_bytes.saturating_mul(PACKED_RATIO) } else { s.n_bytes }).sum();
    let partition_bytes = if format.format == crate::Format::Fhir { FHIR_PARTITION_BYTES } else { PARTITION_BYTES };
    let n_partitions = (n_bytes / partition_bytes).clamp(1, MAX_PARTITIONS) as usize;
    let raw = Raw::create(spill, n_partitions)?;
    let found = Mutex::new(Found { next: 0, ..Found::default() });
    let reading = Reading {
        sources: &sources,
        rows: &rows,
        format,
        raw: &raw,
        failed: AtomicBool::new(false),
        rejected,
        found,
        pool: Pool::default(),
        progress,
    };
    for (k, name) in others.iter().enumerate() {
        let name = sayable(name, "other file", k, others.len());
        reading.log(&Rejected::new(name, "", format!("not read: expected {}", format.format.endings())));
    }
    for (file, position, reason) in of_metadata {
        reading.log(&Rejected::new(reading.name(file), position, reason));
    }
    reading.run()?;

    let mut found = lock(&reading.found);
    let mut medications = std::mem::take(&mut found.medications);
    let (mut summary, any_alias) = (std::mem::take(&mut found.summary), found.any_alias);
    drop(found);
    let n_beyond = medications.finish();
    if n_beyond > 0 {
        count(&mut summary.skipped_types, "Medication beyond the number that is kept", n_beyond);
    }
    let reject = |file: u64, place: u64, element: &str, reason: &str| {
        let file = file as usize;
        let unit = match sources.get(file).map(|s| s.layout) {
            Some(Layout::Json) => "entry",
            Some(Layout::Parquet) => "row",
            _ => "line",
        };
        Rejected::new(reading.name(file), format!("{unit} {place} {element}").trim_end(), reason)
    };
    let (parts, settled) = settle(spill, &raw, &Context { medications: &medications, reject: &reject, any_alias }, &|r| reading.log(r))?;
    summary.add(&settled);
    summary.n_files = sources.len() as u64;
    summary.n_bytes = sources.iter().map(|s| s.n_bytes).sum();
    summary.n_rejected = lock(&reading.found).n_rejected;
    let marker_path = spill.join(MARKER);
    let text = serde_json::to_vec_pretty(&marker(parts, summary))
        .map_err(|error| RecordsError::Io { path: marker_path.clone(), source: std::io::Error::other(error) })?;
    publish(&marker_path, &text)?;
    RecordStore::open(spill)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all workers add to.
#[derive(Default)]
struct Found {
    summary: Summary,
    medications: Medications,
    any_alias: bool,
    n_rejected: u64,
    /// Troubles of batches that came before their turn: the log is in the order of the input for any number of threads.
    waiting: BTreeMap<u64, (usize, Vec<Trouble>)>,
    next: u64,
}

struct Reading<'a> {
    sources: &'a [Source],
    rows: &'a [Rows],
    format: &'a FormatConfig,
    raw: &'a Raw,
    /// Whether a worker stopped on an error: nothing more need be read.
    failed: AtomicBool,
    rejected: &'a RejectedLog,
    found: Mutex<Found>,
    pool: Pool,
    progress: &'a (dyn Fn(u64) + Sync),
}

/// What is said of a file that can't be opened.
fn unreadable(error: &std::io::Error) -> Batch {
    let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
    let mut batch = Batch::default();
    batch.trouble("", if denied { "not readable: permission denied" } else { "not readable" });
    batch
}

impl Reading<'_> {
    /// What a file is called in a rejection.
    fn name(&self, file: usize) -> String {
        self.sources.get(file).map_or_else(String::new, |source| sayable(&source.name, "file", file, self.sources.len()))
    }

    fn log(&self, rejected: &Rejected) {
        self.rejected.push(rejected);
        lock(&self.found).n_rejected += 1;
    }

    fn run(&self) -> Result<(), RecordsError> {
        let is_little = self.sources.iter().map(|source| source.n_bytes).sum::<u64>() <= FEW_BYTES;
        let n_threads = if is_little { 1 } else { rayon::current_num_threads() };
        if n_threads <= 1 {
            let mut failure = None;
            self.produce(&mut |batch| match self.work(batch) {
                Ok(()) => true,
                Err(error) => {
                    failure = Some(error);
                    false
                }
            });
            return failure.map_or(Ok(()), Err);
        }
        let (sender, receiver) = sync_channel::<Batch>(2 * n_threads);
        let receiver = Mutex::new(receiver);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..n_threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut outcome = Ok(());
                        // After a failure the channel is still emptied, so that the reader never waits for a worker that is gone.
                        loop {
                            let Ok(batch) = lock(&receiver).recv() else { return outcome };
                            if outcome.is_ok() {
                                outcome = self.work(batch);
                                self.failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                            }
                        }
                    })
                })
                .collect();
            self.produce(&mut |batch| !self.failed.load(Ordering::Relaxed) && sender.send(batch).is_ok());
            drop(sender);
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn produce(&self, send: &mut dyn FnMut(Batch) -> bool) {
        let (mut number, mut go_on) = (0, true);
        for (file, source) in self.sources.iter().enumerate() {
            let mut numbered = |mut batch: Batch| {
                (batch.file, batch.number) = (file, number);
                number += 1;
                go_on = send(batch);
                go_on
            };
            let max_bytes = self.format.max_resource_bytes;
            if source.layout == Layout::Json && !source.gzip && source.n_bytes <= WHOLE_FILE_BYTES.min(max_bytes as u64) {
                let piece = Piece { kind: PieceKind::Unread, place: 1, line: 1, range: 0..0 };
                numbered(Batch { pieces: vec![piece], ..Batch::default() });
                if !go_on {
                    return;
                }
                continue;
            }
            match open(source, self.progress) {
                Ok(reader) => match source.layout {
                    Layout::Lines => split_lines(reader, max_bytes, &self.pool, &mut numbered),
                    Layout::Json => split_entries(reader, max_bytes, &mut numbered),
                    Layout::Table if self.rows[file].is_metadata() => {}
                    Layout::Table if self.rows[file].is_broken() => self.stretches(file, &mut numbered),
                    Layout::Table => split_rows(reader, max_bytes, self.rows[file].delimiter(), &mut numbered),
                    Layout::Parquet => self.stretches(file, &mut numbered),
                },
                Err(error) => {
                    numbered(unreadable(&error));
                }
            }
            if !go_on {
                return;
            }
        }
    }

    /// A stretch of a Parquet file a batch: what it holds, a worker reads.
    fn stretches(&self, file: usize, send: &mut dyn FnMut(Batch) -> bool) {
        if self.rows[file].is_metadata() {
            return;
        }
        match self.rows[file].stretches() {
            Err(reason) => {
                let mut batch = Batch::default();
                batch.trouble("", reason);
                send(batch);
            }
            Ok(stretches) => {
                for (group, rows, first, n_bytes) in stretches {
                    let piece = Piece { kind: PieceKind::Stretch, place: first, line: group as u64, range: rows };
                    if !send(Batch { pieces: vec![piece], ..Batch::default() }) {
                        return;
                    }
                    (self.progress)(n_bytes);
                }
            }
        }
    }

    /// The one piece of a batch that is a file, with its bytes.
    fn whole(&self, Batch { file, number, .. }: Batch) -> Batch {
        let source = &self.sources[file];
        let mut read = Batch::default();
        match open(source, self.progress) {
            Ok(reader) => whole_file(reader, source.n_bytes, &self.pool, &mut |batch| {
                read = batch;
                true
            }),
            Err(error) => read = unreadable(&error),
        }
        Batch { file, number, ..read }
    }

    fn sink(&self, file: usize) -> Sink {
        Sink::new(self.raw.n_partitions(), file)
    }

    /// Troubles of cutting, then those of reading.
    fn read(&self, batch: &Batch, sink: &mut Sink) {
        sink.troubles.extend(batch.troubles.iter().cloned());
        let mut remembered = Remembered::default();
        for piece in &batch.pieces {
            if piece.kind == PieceKind::Stretch {
                self.rows[batch.file].read_stretch(piece.line as usize, &piece.range, piece.place, &mut remembered, sink);
                continue;
            }
            let bytes = &batch.bytes[piece.range.clone()];
            match piece.kind {
                PieceKind::Row => self.rows[batch.file].read_row(bytes, piece.line, &mut remembered, sink),
                PieceKind::Lines => {
                    let max_bytes = self.format.max_resource_bytes;
                    for (line, bytes) in lines_of(bytes, piece.line) {
                        if bytes.len() > max_bytes {
                            sink.trouble(format!("line {line}"), too_long(max_bytes));
                        } else {
                            read_piece(bytes, &Where { kind: PieceKind::Resource, place: line, line }, sink);
                        }
                    }
                }
                PieceKind::File => {
                    let mut whole = self.sink(batch.file);
                    if read_bundle(bytes, &mut whole).is_ok() {
                        *sink = whole;
                    } else {
                        split_entries(bytes, self.format.max_resource_bytes, &mut |entries| {
                            self.read(&Batch { file: batch.file, ..entries }, sink);
                            true
                        });
                    }
                }
                kind => read_piece(bytes, &Where { kind, place: piece.place, line: piece.line }, sink),
            }
        }
    }

    fn work(&self, batch: Batch) -> Result<(), RecordsError> {
        let unread = batch.pieces.first().is_some_and(|piece| piece.kind == PieceKind::Unread);
        let batch = if unread { self.whole(batch) } else { batch };
        let mut sink = self.sink(batch.file);
        self.read(&batch, &mut sink);
        self.pool.give(batch.bytes);
        for (k, items) in sink.parts.iter().enumerate().filter(|(_, items)| !items.is_empty()) {
            self.raw.append(k, items)?;
        }
        let mut found = lock(&self.found);
        found.summary.add(&sink.summary);
        found.any_alias |= sink.any_alias;
        found.medications.merge(sink.medications);
        found.waiting.insert(batch.number, (batch.file, sink.troubles));
        loop {
            let next = found.next;
            let Some((file, troubles)) = found.waiting.remove(&next) else { return Ok(()) };
            found.next += 1;
            found.n_rejected += troubles.len() as u64;
            for trouble in troubles {
                self.rejected.push(&Rejected::new(self.name(file), trouble.position, trouble.reason));
            }
        }
    }
}
