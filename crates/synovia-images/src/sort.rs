//! Sorting more records than may be held: sorted runs on disk, merged when they are read. Memory is one buffer and a page a
//! run, whatever the number of records; few records never touch the disk.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};

/// Records that are being gathered.
pub(crate) struct Sorter<T> {
    folder: PathBuf,
    limit_bytes: usize,
    held_bytes: usize,
    held: Vec<T>,
    runs: Vec<File>,
}

impl<T: Ord + Serialize + DeserializeOwned> Sorter<T> {
    /// Runs go to unnamed files in `folder`; `limit_bytes` of records are held.
    pub(crate) fn new(folder: &Path, limit_bytes: usize) -> Self {
        Self { folder: folder.to_owned(), limit_bytes, held_bytes: 0, held: Vec::new(), runs: Vec::new() }
    }

    /// Takes a record that is `bytes` large.
    pub(crate) fn push(&mut self, record: T, bytes: usize) -> io::Result<()> {
        self.held.push(record);
        self.held_bytes += bytes;
        if self.held_bytes < self.limit_bytes {
            return Ok(());
        }
        self.held.sort_unstable();
        let mut out = BufWriter::new(tempfile::tempfile_in(&self.folder)?);
        for record in self.held.drain(..) {
            serde_json::to_writer(&mut out, &record)?;
            out.write_all(b"\n")?;
        }
        let mut run = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        run.seek(SeekFrom::Start(0))?;
        self.runs.push(run);
        self.held_bytes = 0;
        Ok(())
    }

    /// All records in order.
    pub(crate) fn sorted(mut self) -> io::Result<Sorted<T>> {
        self.held.sort_unstable();
        let mut sorted = Sorted {
            held: self.held.into_iter(),
            runs: self.runs.into_iter().map(|run| BufReader::with_capacity(16 << 10, run)).collect(),
            heads: BinaryHeap::new(),
        };
        for k in 0..=sorted.runs.len() {
            sorted.advance(k)?;
        }
        Ok(sorted)
    }
}

/// The merge of the runs, and of what was never written.
pub(crate) struct Sorted<T> {
    held: std::vec::IntoIter<T>,
    runs: Vec<BufReader<File>>,
    /// The next record of each, and whose it is.
    heads: BinaryHeap<Reverse<(T, usize)>>,
}

impl<T: Ord + DeserializeOwned> Sorted<T> {
    /// Puts the next record of run `k` among the heads; the run after the last one is in memory.
    fn advance(&mut self, k: usize) -> io::Result<()> {
        let next = match self.runs.get_mut(k) {
            None => self.held.next(),
            Some(run) => {
                let mut line = Vec::new();
                if run.read_until(b'\n', &mut line)? == 0 { None } else { Some(serde_json::from_slice(&line)?) }
            }
        };
        self.heads.extend(next.map(|record| Reverse((record, k))));
        Ok(())
    }
}

impl<T: Ord + DeserializeOwned> Iterator for Sorted<T> {
    type Item = io::Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((record, k)) = self.heads.pop()?;
        Some(self.advance(k).map(|()| record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_order_with_and_without_runs() {
        let records: Vec<(String, u64)> = (0..1000u64).map(|k| (format!("{}\n", k * 7919 % 101), k)).collect();
        let mut expected = records.clone();
        expected.sort();
        for limit in [1, 30, 1000, usize::MAX] {
            let mut sorter = Sorter::new(&std::env::temp_dir(), limit);
            for record in &records {
                sorter.push(record.clone(), 10).unwrap();
            }
            let sorted: Vec<(String, u64)> = sorter.sorted().unwrap().map(Result::unwrap).collect();
            assert_eq!(sorted, expected, "limit {limit}");
        }
        assert_eq!(Sorter::<u8>::new(&std::env::temp_dir(), 1).sorted().unwrap().count(), 0);
    }
}
