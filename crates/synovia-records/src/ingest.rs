//! The ingest: one reader that cuts files into batches, workers that read them, and the settling of what they found.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use synovia_cohort::{Rejected, RejectedLog};

use crate::config::{Format, FormatConfig};
use crate::csv::Table;
use crate::error::RecordsError;
use crate::fhir::{Where, read_bundle, read_piece};
use crate::source::{
    Batch, Layout, PieceKind, Pool, Source, Trouble, WHOLE_FILE_BYTES, find, lines_of, open, split_entries, split_lines, split_rows,
    too_long, whole_file,
};
use crate::spill::{Context, MARKER, Raw, RecordStore, Sink, marker, publish, settle};
use crate::summary::{Summary, count};

/// Input bytes for a partition: small enough that a partition's patients fit in memory many times over, whatever their number.
/// A partition that still becomes too large is cut when it is settled.
const PARTITION_BYTES: u64 = 4 << 20;
const MAX_PARTITIONS: u64 = 256;
/// Compressed JSON is about this much larger than its file.
const GZIP_RATIO: u64 = 8;
/// Medication resources that are kept for those that refer to them; a formulary has thousands.
const MAX_MEDICATIONS: usize = 500_000;

/// Size of the files that [`ingest`] would read under `path`, bytes: the whole of its progress.
///
/// # Errors
/// [`RecordsError`] when there are none, or `path` can't be read.
pub fn input_bytes(path: &Path, format: &FormatConfig) -> Result<u64, RecordsError> {
    Ok(find(path, format.format)?.0.iter().map(|source| source.n_bytes).sum())
}

/// Reads every file of the format under `path` (a folder or a file) and writes its patients to the folder `spill`.
///
/// Nothing is held but a few megabytes of input and, in the end, one partition a thread: memory does not grow with the
/// number of patients. What is not taken goes to `rejected` with file, place and reason, never with an identifier: of a file
/// whose name holds a patient's, its number stands in. `progress` is told of the bytes read since it was last called, from
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
    let tables = match (format.format, &format.csv) {
        (Format::Fhir, _) => Vec::new(),
        (Format::Csv, None) => return Err(RecordsError::NoLayout),
        (Format::Csv, Some(layout)) => {
            sources.iter().map(|source| Table::open(source, layout, format.max_resource_bytes)).collect::<Result<_, _>>()?
        }
    };
    let n_bytes: u64 = sources.iter().map(|s| if s.gzip { s.n_bytes.saturating_mul(GZIP_RATIO) } else { s.n_bytes }).sum();
    let n_partitions = (n_bytes / PARTITION_BYTES).clamp(1, MAX_PARTITIONS) as usize;
    let raw = Raw::create(spill, n_partitions)?;
    let found = Mutex::new(Found { next: 0, ..Found::default() });
    let reading = Reading {
        sources: &sources,
        tables: &tables,
        format,
        raw: &raw,
        names_patient: sources.iter().map(|_| AtomicBool::new(false)).collect(),
        rejected,
        found,
        pool: Pool::default(),
    };
    for name in others {
        reading.log(&Rejected::new(name, "", format!("not read: expected {}", format.format.endings())));
    }
    reading.run(progress)?;

    let mut found = lock(&reading.found);
    let medications = std::mem::take(&mut found.medications);
    let (mut summary, any_alias) = (std::mem::take(&mut found.summary), found.any_alias);
    drop(found);
    let reject = |file: u64, place: u64, element: &str, reason: &str| {
        let file = file as usize;
        let unit = if sources.get(file).is_some_and(|s| s.layout == Layout::Json) { "entry" } else { "line" };
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
    publish(&marker_path, &text, true)?;
    RecordStore::open(spill)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all workers add to.
#[derive(Default)]
struct Found {
    summary: Summary,
    medications: HashMap<String, (String, String)>,
    any_alias: bool,
    n_rejected: u64,
    /// Troubles of batches that came before their turn: the log is in the order of the input for any number of threads.
    waiting: BTreeMap<u64, (usize, Vec<Trouble>)>,
    next: u64,
}

struct Reading<'a> {
    sources: &'a [Source],
    tables: &'a [Table],
    format: &'a FormatConfig,
    raw: &'a Raw,
    names_patient: Vec<AtomicBool>,
    rejected: &'a RejectedLog,
    found: Mutex<Found>,
    pool: Pool,
}

impl Reading<'_> {
    /// A file's name, unless it holds a patient's.
    fn name(&self, file: usize) -> String {
        match (self.sources.get(file), self.names_patient.get(file)) {
            (Some(source), Some(hide)) if !hide.load(Ordering::Relaxed) => source.name.to_string(),
            _ => format!("file {} of {} (named for a patient)", file + 1, self.sources.len()),
        }
    }

    fn log(&self, rejected: &Rejected) {
        self.rejected.push(rejected);
        lock(&self.found).n_rejected += 1;
    }

    fn run(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<(), RecordsError> {
        let n_threads = rayon::current_num_threads();
        if n_threads <= 1 {
            let mut failure = None;
            self.produce(progress, &mut |batch| match self.work(batch) {
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
                            }
                        }
                    })
                })
                .collect();
            let send = |sender: &SyncSender<Batch>, batch| sender.send(batch).is_ok();
            self.produce(progress, &mut |batch| send(&sender, batch));
            drop(sender);
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn produce(&self, progress: &(dyn Fn(u64) + Sync), send: &mut dyn FnMut(Batch) -> bool) {
        let (mut number, mut go_on) = (0, true);
        for (file, source) in self.sources.iter().enumerate() {
            let mut numbered = |mut batch: Batch| {
                (batch.file, batch.number) = (file, number);
                number += 1;
                go_on = send(batch);
                go_on
            };
            let max_bytes = self.format.max_resource_bytes;
            match open(source, progress) {
                Ok(reader) => match source.layout {
                    Layout::Lines => split_lines(reader, max_bytes, &self.pool, &mut numbered),
                    Layout::Json if !source.gzip && source.n_bytes <= WHOLE_FILE_BYTES.min(max_bytes as u64) => {
                        whole_file(reader, source.n_bytes, &self.pool, &mut numbered);
                    }
                    Layout::Json => split_entries(reader, max_bytes, &mut numbered),
                    Layout::Table => split_rows(reader, max_bytes, self.tables[file].delimiter, &mut numbered),
                },
                Err(error) => {
                    let mut batch = Batch::default();
                    batch.trouble(
                        "",
                        if error.kind() == std::io::ErrorKind::PermissionDenied {
                            "not readable: permission denied"
                        } else {
                            "not readable"
                        },
                    );
                    numbered(batch);
                }
            }
            if !go_on {
                return;
            }
        }
    }

    fn sink(&self, file: usize) -> Sink {
        Sink::new(self.raw.n_partitions(), file, &self.sources[file].name)
    }

    /// Troubles of cutting, then those of reading.
    fn read(&self, batch: &Batch, sink: &mut Sink) {
        sink.troubles.extend(batch.troubles.iter().cloned());
        for piece in &batch.pieces {
            let bytes = &batch.bytes[piece.range.clone()];
            match piece.kind {
                PieceKind::Row => self.tables[batch.file].read_row(bytes, piece.line, sink),
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
        let mut sink = self.sink(batch.file);
        self.read(&batch, &mut sink);
        self.pool.give(batch.bytes);
        if sink.file_names_patient {
            self.names_patient[batch.file].store(true, Ordering::Relaxed);
        }
        for (k, items) in sink.parts.iter().enumerate() {
            self.raw.append(k, items)?;
        }
        let mut found = lock(&self.found);
        found.summary.add(&sink.summary);
        found.any_alias |= sink.any_alias;
        for (key, medication) in sink.medications {
            if found.medications.len() < MAX_MEDICATIONS {
                found.medications.insert(key, medication);
            } else {
                count(&mut found.summary.skipped_types, "Medication beyond the number that is kept", 1);
            }
        }
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
