//! A part of a cohort's rows, made on any machine, and all parts put together: the same bytes as one machine writes.
//!
//! What takes long is divided: pixels and features. Who is in the cohort, its splits and its columns follow from the whole of
//! the records, so that each shard, and the merge, finds them for itself and gets the same.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use synovia_cohort::{CohortReader, CohortWriter, ExampleRow, Rejected};

use super::{Builder, Draft, Place, Stage, run_stage};
use crate::commands::Work;
use crate::stages::atomic::atomic_dir;
use crate::stages::cache::Key;
use crate::stages::ingest::{read_json, write_json};
use crate::stages::run_folder::{RunFolder, SHARDS};

/// Raised when a shard's files are laid out otherwise.
const VERSION: u32 = 1;
/// Folder of a shard's rows.
const ROWS: &str = "rows";

/// One of several parts. Written `2/8`: the third of eight, for they count from 0, as indices of jobs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which, from 0.
    pub index: usize,
    /// Of how many.
    pub count: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, count)) if index < count && count <= 9999 => Ok(Self { index, count }),
            _ => Err("a shard is such as 0/4: the first of four; the last is 3/4".to_owned()),
        }
    }
}

impl Shard {
    /// Its folder's name.
    pub fn name(self) -> String {
        format!("{}-of-{}", self.index, self.count)
    }

    fn from_name(name: &str) -> Option<Self> {
        name.replacen("-of-", "/", 1).parse().ok()
    }

    /// Its part of `n` things in a row.
    fn range(self, n: usize) -> Range<usize> {
        let at = |k: usize| (k as u128 * n as u128 / self.count as u128) as usize;
        at(self.index)..at(self.index + 1)
    }
}

/// What a shard says of itself.
#[derive(Serialize, Deserialize)]
struct Label {
    /// The cohort stage that it is a part of.
    cohort: Key,
    shard: Shard,
    /// Examples before it, in the whole cohort.
    first: usize,
    /// Images before it.
    first_image: usize,
}

/// Makes a shard's rows in the shard's folder, which is `work.run`, unless they are there.
pub fn run(work: &Work, ingested: &Stage, place: &Place, shard: Shard) -> anyhow::Result<()> {
    let cohort = super::stage(work, ingested, place)?.key();
    let settings = serde_json::json!({ "shard": shard, "cohort": cohort });
    let stage = Stage::new(&place.stage("shard"), VERSION, &settings)?;
    run_stage(&stage, &work.run, &work.progress, &[&place.relative(ROWS)], || {
        let mut builder = Builder::open(work)?;
        let (drafts, plan) = builder.drafts(place)?;
        let range = shard.range(drafts.len());
        let target = place.path(&work.run, ROWS);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        let dir = atomic_dir(&target)?;
        let writer = CohortWriter::create(dir.path(), builder.manifest(&plan, &drafts[range.clone()]))?;
        let mut rows: Vec<ExampleRow> = drafts[range.clone()].iter().map(|draft| draft.row.clone()).collect();
        builder.make_features(&drafts, range.clone(), &plan, &mut |k, features| {
            rows[k - range.start].record_row = Some((k - range.start) as u32);
            Ok(writer.write_record(k - range.start, features)?)
        })?;
        let wanted: Vec<usize> = range.clone().filter(|&k| drafts[k].study.is_some()).collect();
        let mut rejected = Vec::new();
        let write = |n: usize, pixels: &[f32]| -> anyhow::Result<()> { Ok(writer.write_image(n, pixels)?) };
        builder.make_images(&drafts, &wanted, place, &write, &mut |n, refused| match refused {
            Some(refused) => rejected.push(refused),
            None => rows[wanted[n] - range.start].image_row = Some(n as u32),
        })?;
        writer.finish(&rows)?;
        write_json(&dir.path().join("rejected.json"), &rejected)?;
        let first_image = drafts[..range.start].iter().filter(|draft| draft.study.is_some()).count();
        write_json(&dir.path().join("shard.json"), &Label { cohort, shard, first: range.start, first_image })?;
        dir.commit()?;
        work.progress.note(&place.stage("shard"), &format!("{} of {} examples", rows.len(), drafts.len()));
        Ok(())
    })?;
    Ok(())
}

/// Puts the shards in `RUN/shards` together to the run's cohort, unless it is fresh.
pub fn merge(work: &Work, ingested: &Stage, place: &Place) -> anyhow::Result<Stage> {
    let stage = super::stage(work, ingested, place)?;
    run_stage(&stage, &work.run, &work.progress, &[&place.relative("cohort")], || {
        let made = Made::open(&work.run, place, &stage.key())?;
        let mut builder = Builder::open(work)?;
        let (drafts, plan) = builder.drafts(place)?;
        made.check(&drafts)?;
        builder.write(drafts, &plan, place, Some(&made))
    })?;
    Ok(stage)
}

/// The rows of all shards.
pub(super) struct Made {
    parts: Vec<(PathBuf, Label, CohortReader)>,
}

impl Made {
    /// All shards of a cohort, each there once and of these inputs and settings.
    fn open(run: &RunFolder, place: &Place, cohort: &Key) -> anyhow::Result<Self> {
        let folder = run.join(SHARDS);
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("{}: run `synovia cohort PIPELINE --shard 0/N` and so on first", folder.display()))?;
        let mut shards: Vec<Shard> = Vec::new();
        for entry in entries {
            shards.extend(Shard::from_name(&entry.with_context(|| folder.display().to_string())?.file_name().to_string_lossy()));
        }
        let rows = |shard: Shard| folder.join(shard.name()).join(place.relative(ROWS));
        shards.retain(|shard| rows(*shard).join("shard.json").is_file());
        let count = shards.iter().map(|shard| shard.count).max().unwrap_or(0);
        shards.retain(|shard| shard.count == count);
        shards.sort_by_key(|shard| shard.index);
        if let Some(missing) = (0..count.max(1)).find(|k| shards.get(*k).map(|shard| shard.index) != Some(*k)) {
            bail!(
                "{}: shard {missing}/{count} is not there or not done; run `synovia cohort PIPELINE --shard {missing}/{count}`",
                folder.display()
            );
        }
        let open = |shard: Shard| -> anyhow::Result<(PathBuf, Label, CohortReader)> {
            let path = rows(shard);
            let label: Label = read_json(&path.join("shard.json"))?;
            if label.cohort != *cohort || label.shard != shard {
                bail!(
                    "{}: made from other inputs or settings than this run's; run the shard again (inputs are compared by name, size and time: copy them with their times)",
                    path.display()
                );
            }
            let reader = CohortReader::open(&path)?;
            Ok((path, label, reader))
        };
        Ok(Self { parts: shards.into_iter().map(open).collect::<anyhow::Result<_>>()? })
    }

    /// That the shards' examples are these.
    fn check(&self, drafts: &[Draft]) -> anyhow::Result<()> {
        let rows = self.parts.iter().flat_map(|(_, _, reader)| reader.rows());
        let n: usize = self.parts.iter().map(|(_, _, reader)| reader.rows().len()).sum();
        let same = |(row, draft): (&ExampleRow, &Draft)| {
            row.id == draft.row.id && row.split == draft.row.split && row.labels == draft.row.labels && row.endpoints == draft.row.endpoints
        };
        if n != drafts.len() || !rows.zip(drafts).all(same) {
            bail!("the shards hold other examples than this run's records give; run them again with this version");
        }
        Ok(())
    }

    pub(super) fn for_each_record(&self, take: &mut dyn FnMut(usize, &[f32]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        for (_, label, reader) in &self.parts {
            let mut features = vec![f32::NAN; reader.manifest().features.len()];
            for (k, row) in reader.rows().iter().enumerate() {
                if reader.read_record(row, &mut features)? {
                    take(label.first + k, &features)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn for_each_image(&self, take: &mut dyn FnMut(usize, &[f32]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        for (_, label, reader) in &self.parts {
            // A sixteenth of a bit of 65,535ths is lost on the way through f32, and nothing after rounding.
            let mut image = vec![0.0; reader.manifest().geometry.map_or(0, synovia_cohort::Geometry::len)];
            for row in reader.rows() {
                if let Some(n) = row.image_row {
                    reader.read_image(row, &mut image)?;
                    take(label.first_image + n as usize, &image)?;
                }
            }
        }
        Ok(())
    }

    /// What the shards refused, in the order of the examples.
    pub(super) fn rejected(&self) -> anyhow::Result<Vec<Rejected>> {
        let mut all = Vec::new();
        for (path, ..) in &self.parts {
            let rejected: Vec<Rejected> = read_json(&path.join("rejected.json"))?;
            all.extend(rejected);
        }
        Ok(all)
    }
}

/// Gives a shard the ingest of the run that it is a part of, where that is there: a link, so that it is read and not copied.
pub fn share_ingest(run: &Path, shard: &RunFolder) -> anyhow::Result<()> {
    let (from, to) = (run.join(crate::stages::ingest::FOLDER), shard.join(crate::stages::ingest::FOLDER));
    let record = run.join("stages/ingest.json");
    if to.symlink_metadata().is_ok() || !from.is_dir() || !record.is_file() {
        return Ok(());
    }
    let link = || {
        std::os::unix::fs::symlink(from.canonicalize()?, &to)?;
        std::fs::copy(&record, shard.join("stages/ingest.json")).map(|_| ())
    };
    link().with_context(|| to.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_named_by_index_and_count() {
        for (text, expected) in [("0/1", Some((0, 1))), ("2/8", Some((2, 8))), ("8/8", None), ("1", None), ("-1/2", None), ("0/0", None)] {
            assert_eq!(text.parse::<Shard>().ok().map(|shard| (shard.index, shard.count)), expected, "{text}");
        }
        let shard = Shard { index: 2, count: 8 };
        assert_eq!(Shard::from_name(&shard.name()), Some(shard));
    }

    #[test]
    fn parts_make_the_whole() {
        for n in [0, 1, 7, 8, 1000] {
            for count in [1, 3, 8] {
                let ranges: Vec<_> = (0..count).map(|index| Shard { index, count }.range(n)).collect();
                assert!(ranges[0].start == 0 && ranges[count - 1].end == n && ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert!(ranges.iter().all(|range| range.len().abs_diff(n / count) <= 1));
            }
        }
    }
}
