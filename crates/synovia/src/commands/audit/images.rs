//! The same picture, or nearly, in two splits; a picture from the future.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest, Sha256};
use synovia_cohort::Split;

use super::{Audit, Kind, Place, listed};

/// Side of the thumbnails that are compared.
const SIDE: usize = 16;
/// Two images are nearly the same when what sets each apart from the cohort's mean is correlated this much.
const NEAR: f32 = 0.95;
/// Bands of signs by which candidates for a comparison are found, and bits in each.
const BANDS: usize = 12;
const BITS: usize = 14;
/// More images than this with the same band are what all images have in common.
const MAX_BUCKET: usize = 500;

struct Thumbnail {
    row: usize,
    hash: [u8; 16],
    /// `SIDE × SIDE`, of mean 0 and norm 1, or 0 throughout.
    values: Vec<f32>,
}

pub(super) fn look(place: &Place<'_>, audit: &mut Audit) -> anyhow::Result<()> {
    let Some(geometry) = place.reader.manifest().geometry else { return Ok(()) };
    let mut image = vec![0.0f32; geometry.len()];
    let mut thumbnails = Vec::new();
    for (k, row) in place.reader.rows().iter().enumerate() {
        if !place.reader.read_image(row, &mut image)? {
            continue;
        }
        audit.images += 1;
        if !place.timeless
            && let Some(study) = place.studies.get(row.id.as_str())
            && study.time.is_some_and(|time| time > row.prediction_time)
        {
            audit
                .leaks
                .push(place.leak(Kind::FutureImage, format!("the image of the example {} is from after its prediction time", row.id)));
        }
        // An image of one grey level tells nothing.
        if image.iter().all(|pixel| *pixel == image[0]) {
            continue;
        }
        let mut hash = Sha256::new();
        for pixel in &image {
            hash.update(pixel.to_bits().to_le_bytes());
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hash.finalize()[..16]);
        let values = standardized(shrunk(&image[..geometry.height * geometry.width], geometry.height, geometry.width));
        thumbnails.push(Thumbnail { row: k, hash: short, values });
    }
    same(place, &thumbnails, audit);
    if geometry.height >= SIDE && geometry.width >= SIDE {
        nearly(place, thumbnails, audit);
    }
    Ok(())
}

/// The same pixels under two names. Two examples of one patient may share an image; two splits may not.
fn same(place: &Place<'_>, thumbnails: &[Thumbnail], audit: &mut Audit) {
    let rows = place.reader.rows();
    let mut seen: BTreeMap<[u8; 16], (BTreeSet<Split>, usize, u32)> = BTreeMap::new();
    for thumbnail in thumbnails {
        let (splits, _, count) = seen.entry(thumbnail.hash).or_insert_with(|| (BTreeSet::new(), thumbnail.row, 0));
        splits.insert(rows[thumbnail.row].split);
        *count += 1;
    }
    for (splits, first, count) in seen.into_values().filter(|(splits, ..)| splits.len() > 1) {
        let first = &rows[first].id;
        let evidence = format!("one image is in {}, under {count} examples, the first {first}", listed(&splits));
        audit.leaks.push(place.leak(Kind::SamePixels, evidence));
    }
}

/// Means of `SIDE × SIDE` cells.
fn shrunk(image: &[f32], height: usize, width: usize) -> Vec<f32> {
    let mut cells = vec![(0.0f32, 0u32); SIDE * SIDE];
    for (k, pixel) in image.iter().enumerate() {
        let cell = &mut cells[k / width * SIDE / height * SIDE + k % width * SIDE / width];
        *cell = (cell.0 + pixel, cell.1 + 1);
    }
    cells.into_iter().map(|(sum, n)| sum / n.max(1) as f32).collect()
}

/// The same less its mean, of norm 1: brightness and contrast do not count.
fn standardized(mut values: Vec<f32>) -> Vec<f32> {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    values.iter_mut().for_each(|x| *x -= mean);
    let norm = values.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 1e-6 {
        values.iter_mut().for_each(|x| *x /= norm);
    } else {
        values.fill(0.0);
    }
    values
}

/// Pairs across splits whose departures from the cohort's mean image are nearly the same. What all images of a kind have in
/// common, an anatomy, says nothing of two being one.
fn nearly(place: &Place<'_>, mut thumbnails: Vec<Thumbnail>, audit: &mut Audit) {
    let rows = place.reader.rows();
    let mut mean = vec![0.0f32; SIDE * SIDE];
    for thumbnail in &thumbnails {
        mean.iter_mut().zip(&thumbnail.values).for_each(|(m, x)| *m += x / thumbnails.len() as f32);
    }
    for thumbnail in &mut thumbnails {
        let rest = thumbnail.values.iter().zip(&mean).map(|(x, m)| x - m).collect();
        thumbnail.values = standardized(rest);
    }
    let mut found = BTreeSet::new();
    for band in 0..BANDS {
        let mut buckets: HashMap<u32, Vec<usize>> = HashMap::new();
        for (k, thumbnail) in thumbnails.iter().enumerate() {
            // Cells far from each other: neighbours have the same sign anyway.
            let bit = |b: usize| u32::from(thumbnail.values[(band * 37 + b * 89) % (SIDE * SIDE)] > 0.0) << b;
            buckets.entry((0..BITS).map(bit).sum()).or_default().push(k);
        }
        for bucket in buckets.into_values().filter(|bucket| bucket.len() <= MAX_BUCKET) {
            for (n, &a) in bucket.iter().enumerate() {
                for &b in &bucket[n + 1..] {
                    let (a, b) = (&thumbnails[a], &thumbnails[b]);
                    let across = rows[a.row].split != rows[b.row].split && rows[a.row].patient != rows[b.row].patient;
                    if across && a.hash != b.hash && a.values.iter().zip(&b.values).map(|(x, y)| x * y).sum::<f32>() >= NEAR {
                        found.insert((a.row, b.row));
                    }
                }
            }
        }
    }
    for (a, b) in found {
        let (a, b) = (&rows[a], &rows[b]);
        let evidence = format!("the images of {} ({}) and {} ({}) are nearly the same", a.id, a.split.as_str(), b.id, b.split.as_str());
        audit.leaks.push(place.leak(Kind::NearDuplicate, evidence));
    }
}
