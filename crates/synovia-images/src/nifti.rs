//! NIfTI-1 volumes, gzipped or not: one file, one study, its middle axial slice seen as radiologists do (the patient's right on
//! the left, front above).
//!
//! Not read: NIfTI-2, pairs of header and image, colour and complex voxels, more than the first of several volumes.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use synovia_cohort::Study;

use crate::dicom::shades;
use crate::error::Fault;
use crate::picture;
use crate::preparation::{MAX_MM, MIN_MM, Picture, Preparation};
use crate::scan::evenly;
use crate::stack::nearest;

/// Bytes of one volume that are read: 512 x 512 x 512 of 16 bits.
const MAX_BYTES: u64 = 256 << 20;
/// Voxels of the slice that is shown: as many as a frame of DICOM may have. Each takes some twelve bytes.
const MAX_SAMPLES: usize = 1 << 26;

const fn malformed(what: &'static str) -> Fault {
    Fault::Nifti(what)
}

/// What of the header (348 bytes) matters.
struct Header {
    big_endian: bool,
    dim: [usize; 3],
    datatype: i16,
    /// 1 where the file has none that a voxel has.
    spacing_mm: [f64; 3],
    /// The same, nothing there.
    measured_mm: [Option<f64>; 3],
    offset: u64,
    slope: f64,
    intercept: f64,
    /// Shown from and to, where the file says it.
    shown: Option<(f64, f64)>,
    /// World from voxel axes: rows right, front, head.
    matrix: [[f64; 3]; 3],
}

/// Whether a file is named as NIfTI files are.
pub(crate) fn is_nifti(path: &Path) -> bool {
    let is = |path: &Path, wanted: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted));
    is(path, "nii") || is(path, "gz") && path.file_stem().is_some_and(|stem| is(Path::new(stem), "nii"))
}

/// The study that a volume is by itself, named by its file without `.nii` and `.gz`.
pub(crate) fn study_of(path: &Path, file: &str) -> Study {
    let mut study = picture::study_of(path, file);
    if let Some(stem) = study.study_instance_uid.strip_suffix(".nii") {
        study.study_instance_uid = stem.to_owned();
    }
    study
}

fn open(path: &Path) -> Result<Box<dyn Read>, Fault> {
    let file = BufReader::new(File::open(path)?);
    let gzipped = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    Ok(if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

fn read_exact(source: &mut dyn Read, buffer: &mut [u8]) -> Result<(), Fault> {
    source.read_exact(buffer).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Fault::Truncated,
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => malformed("the gzip stream is damaged"),
        _ => Fault::Io(error),
    })
}

impl Header {
    fn read(source: &mut dyn Read) -> Result<Self, Fault> {
        let mut bytes = [0u8; 348];
        read_exact(source, &mut bytes)?;
        let big_endian = match bytes[..4] {
            [0x5C, 1, 0, 0] => false,
            [0, 0, 1, 0x5C] => true,
            _ => return Err(malformed("no NIfTI-1 header")),
        };
        if &bytes[344..347] != b"n+1" {
            return Err(malformed("not a single file with header and image (magic n+1)"));
        }
        let short = |at: usize| {
            let pair = [bytes[at], bytes[at + 1]];
            if big_endian { i16::from_be_bytes(pair) } else { i16::from_le_bytes(pair) }
        };
        let float = |at: usize| {
            let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            f64::from(if big_endian { f32::from_be_bytes(word) } else { f32::from_le_bytes(word) })
        };
        let dim = [1, 2, 3].map(|k| if k <= short(40) as usize { usize::try_from(short(40 + 2 * k)).unwrap_or(0) } else { 1 });
        if !(2..=7).contains(&short(40)) || dim.contains(&0) {
            return Err(malformed("its dimensions are not those of an image"));
        }
        // What the unit of space is (xyzt_units): metres, millimetres or micrometres; unknown counts as millimetres.
        let unit_mm = match bytes[123] & 7 {
            1 => 1e3,
            3 => 1e-3,
            _ => 1.0,
        };
        let is_length = |mm: &f64| (MIN_MM..=MAX_MM).contains(mm);
        let measured_mm = [1, 2, 3].map(|k| Some(float(76 + 4 * k).abs() * unit_mm).filter(is_length));
        let spacing_mm = measured_mm.map(|mm| mm.unwrap_or(1.0));
        let slope = float(112);
        let (slope, intercept) = if slope == 0.0 || !slope.is_finite() { (1.0, 0.0) } else { (slope, float(116)) };
        let (high, low) = (float(124), float(128));
        let matrix = if short(254) > 0 {
            [280, 296, 312].map(|row| [0, 4, 8].map(|column| float(row + column)))
        } else if short(252) > 0 {
            quaternion([float(256), float(260), float(264)], spacing_mm, float(76))
        } else {
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        };
        let offset = float(108);
        if !intercept.is_finite() || !(348.0..=1e9).contains(&offset) {
            return Err(malformed("its offset or intercept is no number that an image has"));
        }
        let shown = (low.is_finite() && high.is_finite() && high > low).then_some((low, high));
        Ok(Self { big_endian, dim, datatype: short(70), spacing_mm, measured_mm, offset: offset as u64, slope, intercept, shown, matrix })
    }

    fn voxel_bytes(&self) -> Result<usize, Fault> {
        match self.datatype {
            2 | 256 => Ok(1),
            4 | 512 => Ok(2),
            8 | 16 | 768 => Ok(4),
            64 | 1024 | 1280 => Ok(8),
            _ => Err(malformed("voxels of a kind that this build does not read; save it as integers or floats of one channel")),
        }
    }

    fn volume_bytes(&self) -> Result<u64, Fault> {
        let n = self.dim.iter().map(|&n| n as u64).product::<u64>() * self.voxel_bytes()? as u64;
        let [x, y, _] = self.axes();
        if self.dim[x] * self.dim[y] > MAX_SAMPLES {
            return Err(malformed("an axial slice of more than 67 million voxels"));
        }
        if n > MAX_BYTES { Err(malformed("a volume of more than 256 MiB")) } else { Ok(n) }
    }

    fn value(&self, bytes: &[u8]) -> f64 {
        let mut word = [0u8; 8];
        let n = bytes.len();
        // Little-endian, from the low end.
        if self.big_endian {
            (0..n).for_each(|k| word[k] = bytes[n - 1 - k]);
        } else {
            word[..n].copy_from_slice(bytes);
        }
        let [a, b, c, d, ..] = word;
        match self.datatype {
            2 => f64::from(a),
            256 => f64::from(a.cast_signed()),
            4 => f64::from(i16::from_le_bytes([a, b])),
            512 => f64::from(u16::from_le_bytes([a, b])),
            8 => f64::from(i32::from_le_bytes([a, b, c, d])),
            768 => f64::from(u32::from_le_bytes([a, b, c, d])),
            16 => f64::from(f32::from_le_bytes([a, b, c, d])),
            64 => f64::from_le_bytes(word),
            1024 => i64::from_le_bytes(word) as f64,
            _ => u64::from_le_bytes(word) as f64,
        }
    }

    /// Voxel axes that run nearest to left-right, back-front and feet-head.
    fn axes(&self) -> [usize; 3] {
        let strongest = |row: usize, axes: &[usize]| {
            let strength = |axis: &usize| self.matrix[row][*axis].abs();
            axes.iter().copied().max_by(|a, b| strength(a).total_cmp(&strength(b)).then(b.cmp(a))).unwrap_or(row)
        };
        let z = strongest(2, &[0, 1, 2]);
        let rest: Vec<usize> = (0..3).filter(|&axis| axis != z).collect();
        let x = strongest(0, &rest);
        let y = rest.into_iter().find(|&axis| axis != x).unwrap_or(1);
        [x, y, z]
    }
}

/// The matrix of a unit quaternion whose first part is left out, times the spacings; `handed` below zero flips the third axis
/// (nifti1.h, method 2).
fn quaternion([b, c, d]: [f64; 3], spacing_mm: [f64; 3], handed: f64) -> [[f64; 3]; 3] {
    let a = (1.0 - (b * b + c * c + d * d)).max(0.0).sqrt();
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let [x, y, z] = spacing_mm;
    let z = if handed < 0.0 { -z } else { z };
    rotation.map(|[i, j, k]| [i * x, j * y, k * z])
}

/// Reads the header only.
pub(crate) fn check_header(path: &Path) -> Result<(), Fault> {
    Header::read(&mut *open(path)?)?.volume_bytes().map(|_| ())
}

/// Decodes the middle axial slice.
pub(crate) fn decode_file(path: &Path, preparation: &Preparation) -> Result<Picture, Fault> {
    decode_slices(path, preparation, 1)?.pop().ok_or(Fault::Truncated)
}

/// Decodes `n` axial slices, evenly from feet to head.
pub(crate) fn decode_slices(path: &Path, preparation: &Preparation, n_slices: usize) -> Result<Vec<Picture>, Fault> {
    let mut source = open(path)?;
    let header = Header::read(&mut *source)?;
    let n = header.volume_bytes()?;
    std::io::copy(&mut (&mut source).take(header.offset - 348), &mut std::io::sink())?;
    // As much as comes is taken, so that a header alone allocates nothing.
    let mut bytes = Vec::new();
    source.take(n).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => Fault::Truncated,
        _ => Fault::Io(error),
    })?;
    if (bytes.len() as u64) < n {
        return Err(Fault::Truncated);
    }
    let size = header.voxel_bytes()?;
    let [x, y, z] = header.axes();
    let steps = [1, header.dim[0], header.dim[0] * header.dim[1]];
    let (width, height) = (header.dim[x], header.dim[y]);
    // Right is on the left, front above: both run against the world's axes.
    let along = |axis: usize, row: usize, k: usize| if header.matrix[row][axis] > 0.0 { header.dim[axis] - 1 - k } else { k };
    let ratio = Some(header.spacing_mm[x] / header.spacing_mm[y]).filter(|ratio| (0.1..=10.0).contains(ratio));
    let pixel_width = ratio.unwrap_or(1.0);
    let pixel_height_mm = ratio.and(header.measured_mm[x]).and(header.measured_mm[y]);
    let chosen = match preparation.slice_spacing_mm {
        Some(spacing) if header.dim[z] > 1 => {
            let step = header.measured_mm[z].ok_or(Fault::NoPlaces)?;
            nearest(&(0..header.dim[z]).map(|k| k as f64 * step).collect::<Vec<f64>>(), n_slices, spacing)
        }
        _ => (0..n_slices).map(|k| evenly(k, n_slices, header.dim[z])).collect(),
    };
    let slice = |k: usize| {
        let k = chosen[k];
        // The middle one is the same from either end for an odd number of slices; one alone is counted as it is stored.
        let k = if n_slices > 1 && header.matrix[2][z] < 0.0 { header.dim[z] - 1 - k } else { k };
        let mut values = Vec::with_capacity(width * height);
        for row in 0..height {
            for column in 0..width {
                let at = along(x, 0, column) * steps[x] + along(y, 1, row) * steps[y] + k * steps[z];
                values.push(header.value(&bytes[at * size..(at + 1) * size]) * header.slope + header.intercept);
            }
        }
        let plane = shades(&values, preparation.window, header.shown);
        Picture { width, height, pixel_width, pixel_height_mm, planes: vec![plane] }
    };
    Ok((0..n_slices).map(slice).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{ImageKind, load_file};

    /// A volume of 16-bit voxels; `matrix` by rows, as sform.
    fn volume(dim: [i16; 3], matrix: [[f32; 3]; 3], voxels: &[i16]) -> Vec<u8> {
        let mut bytes = vec![0u8; 352];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &348i32.to_le_bytes());
        for (k, n) in [3, dim[0], dim[1], dim[2]].into_iter().enumerate() {
            put(40 + 2 * k, &n.to_le_bytes());
        }
        put(70, &4i16.to_le_bytes());
        for k in 1..4 {
            put(76 + 4 * k, &1f32.to_le_bytes());
        }
        put(108, &352f32.to_le_bytes());
        put(254, &1i16.to_le_bytes());
        for (row, values) in matrix.iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                put(280 + 16 * row + 4 * column, &value.to_le_bytes());
            }
        }
        put(344, b"n+1\0");
        bytes.extend(voxels.iter().flat_map(|voxel| voxel.to_le_bytes()));
        bytes
    }

    fn shown(name: &str, bytes: &[u8]) -> Result<Vec<f32>, synovia_cohort::Rejected> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        load_file(&path, ImageKind::Nifti, &Preparation::grey(2)).map(|loaded| {
            assert_eq!(loaded.study.study_instance_uid, "head");
            loaded.pixels
        })
    }

    #[test]
    fn the_same_head_in_two_orientations() {
        // RAS, three slices from feet to head; in the middle one, by hand: right front 3, left front 2, right back 1, left back 0.
        // Voxel (i, j): i to the right, j to the front.
        let ras = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let voxels = [9, 9, 9, 9, 0, 1, 2, 3, 9, 9, 9, 9];
        // Seen: right on the left, front above.
        let expected = [1.0, 2.0 / 3.0, 1.0 / 3.0, 0.0];
        assert_eq!(shown("head.nii", &volume([2, 2, 3], ras, &voxels)).unwrap(), expected);
        // The same head, the first axis from head to feet, the second to the left, the third to the back.
        let other = [[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]];
        let turned = [9, 3, 9, 9, 2, 9, 9, 1, 9, 9, 0, 9];
        assert_eq!(shown("head.nii", &volume([3, 2, 2], other, &turned)).unwrap(), expected);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&volume([2, 2, 3], ras, &voxels)).unwrap();
        assert_eq!(shown("head.nii.gz", &gz.finish().unwrap()).unwrap(), expected);
    }

    #[test]
    fn a_quaternion_of_half_a_turn() {
        // About the third axis: x and y are reversed.
        let matrix = quaternion([0.0, 0.0, 1.0], [2.0, 3.0, 4.0], -1.0);
        assert_eq!(matrix, [[-2.0, 0.0, 0.0], [0.0, -3.0, 0.0], [0.0, 0.0, -4.0]]);
    }

    #[test]
    fn spacings_in_any_unit() {
        // Ten voxels in a row from left to right and five slices, all `size` units apart: at 2 mm ten of 1 mm are five pixels, of which
        // four are about the middle of a square of eight.
        let ras = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let voxels: Vec<i16> = (0..5).flat_map(|slice| [slice; 100]).collect();
        let prepared = |unit: u8, size: f32, spacing_mm: f64, slice_spacing_mm: Option<f64>, slices: usize| {
            let mut bytes = volume([10, 10, 5], ras, &voxels);
            bytes[123] = unit;
            (1..4).for_each(|k| bytes[76 + 4 * k..80 + 4 * k].copy_from_slice(&size.to_le_bytes()));
            // Shown from −1 to 4, so that what is of the image is not black.
            bytes[124..128].copy_from_slice(&4f32.to_le_bytes());
            bytes[128..132].copy_from_slice(&(-1f32).to_le_bytes());
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("head.nii");
            std::fs::write(&path, &bytes).unwrap();
            let preparation =
                Preparation { spacing_mm: Some(spacing_mm), slice_spacing_mm, slices, channels: slices, ..Preparation::grey(8) };
            load_file(&path, ImageKind::Nifti, &preparation).map(|loaded| loaded.pixels)
        };
        let check = |unit: u8, size: f32, spacing_mm: f64, slice_spacing_mm: Option<f64>, slices: usize| {
            let pixels = prepared(unit, size, spacing_mm, slice_spacing_mm, slices).unwrap();
            let channels: Vec<usize> = pixels.chunks(64).map(|channel| channel.iter().filter(|x| **x > 0.0).count()).collect();
            assert_eq!(channels, vec![16; slices], "unit {unit}");
            pixels.chunks(64).map(|channel| (channel[4 * 8 + 4] * 5.0).round() as i16 - 1).collect::<Vec<i16>>()
        };
        check(2, 1.0, 2.0, None, 1);
        check(0, 1.0, 2.0, None, 1);
        check(3, 1000.0, 2.0, None, 1);
        check(1, 0.001, 2.0, None, 1);
        assert_eq!(check(2, 1.0, 2.0, Some(2.0), 3), [0, 2, 4]);
        assert_eq!(check(2, 1.0, 2.0, Some(1.0), 3), [1, 2, 3]);
        // Sizes that no voxel has.
        for size in [0.0, f32::NAN, f32::INFINITY, 1e30] {
            assert!(prepared(2, size, 2.0, None, 1).unwrap_err().reason.contains("no spacing of its pixels"), "{size}");
        }
    }

    #[test]
    fn a_slice_of_hundreds_of_megapixels() {
        let ras = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        // Kilobytes of zeros that come to 256 MiB of one byte a voxel.
        let mut header = volume([16_384, 16_384, 1], ras, &[]);
        header[70] = 2;
        let mut gz = flate2::read::GzEncoder::new(header.as_slice().chain(std::io::repeat(0).take(1 << 28)), flate2::Compression::fast());
        let mut bytes = Vec::new();
        std::io::copy(&mut gz, &mut bytes).unwrap();
        let rejected = shown("head.nii.gz", &bytes).unwrap_err();
        assert_eq!(rejected.reason, "not a NIfTI file that this build reads: an axial slice of more than 67 million voxels");
    }

    #[test]
    fn damage_is_an_error() {
        let good = volume([2, 2, 1], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], &[1, 2, 3, 4]);
        for n in 0..good.len() {
            assert!(shown("head.nii", &good[..n]).is_err(), "cut at {n}");
        }
        assert!(shown("head.nii.gz", &good).is_err());
        for at in 0..352 {
            for value in [0x00, 0x7F, 0x80, 0xFF] {
                let mut bytes = good.clone();
                bytes[at] = value;
                if let Ok(pixels) = shown("head.nii", &bytes) {
                    assert!(pixels.iter().all(|x| (0.0..=1.0).contains(x)));
                }
            }
        }
    }
}
