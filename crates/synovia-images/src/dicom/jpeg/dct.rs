//! Sequential DCT frames (T.81 §F.2): of 12 bits, which the usual decoder refuses, and of 8 bits with subsampled colour
//! differences, which it rounds to other values than libjpeg between the samples.

use super::entropy::{Bits, Table};
use super::{DAMAGED, Frame, Scan, Tables};
use crate::error::Fault;

/// Figure 5: where in a block the k-th coefficient is.
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28, 35, 42, 49, 56,
    57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// One component, padded to whole blocks of whole units (MCUs).
struct Plane {
    width: usize,
    /// In sixteenths, which are rounded after the samples in between were computed.
    values: Vec<i32>,
    done: bool,
}

/// A frame being decoded.
pub(super) struct Image {
    frame: Frame,
    /// Largest sampling factors.
    h_max: usize,
    v_max: usize,
    planes: Vec<Plane>,
    /// For each frequency its value at each place.
    basis: [[f32; 8]; 8],
}

impl Image {
    pub(super) fn new(frame: Frame) -> Result<Self, Fault> {
        if !matches!(frame.precision, 8 | 12) || frame.rows == 0 || frame.columns == 0 {
            return Err(DAMAGED);
        }
        let h_max = frame.components.iter().map(|c| c.h).max().ok_or(DAMAGED)?;
        let v_max = frame.components.iter().map(|c| c.v).max().ok_or(DAMAGED)?;
        let (across, down) = (frame.columns.div_ceil(8 * h_max), frame.rows.div_ceil(8 * v_max));
        let plane = |h: usize, v: usize| {
            let (width, height) = (across * h * 8, down * v * 8);
            Plane { width, values: vec![0; width * height], done: false }
        };
        let planes = frame.components.iter().map(|c| plane(c.h, c.v)).collect();
        // §A.3.3, with C(u) √2 in the table: an eighth is left, so that a block of one level is exact.
        let basis = std::array::from_fn(|u| {
            std::array::from_fn(|x| {
                let scale = if u == 0 { 1.0 } else { std::f64::consts::SQRT_2 };
                (scale * ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0).cos()) as f32
            })
        });
        Ok(Self { frame, h_max, v_max, planes, basis })
    }

    pub(super) const fn frame(&self) -> &Frame {
        &self.frame
    }

    pub(super) fn is_complete(&self) -> bool {
        self.planes.iter().all(|plane| plane.done)
    }

    pub(super) fn scan(&mut self, scan: &Scan<'_>, tables: &Tables) -> Result<usize, Fault> {
        let mut bits = Bits::new(scan.entropy);
        let (h_max, v_max) = (self.h_max, self.v_max);
        // §A.2: a scan of one component has its own blocks in rows; of several, units with H x V blocks of each.
        let alone = scan.components.len() == 1;
        let (across, down) = if alone {
            let c = self.frame.components[scan.components[0].0];
            ((self.frame.columns * c.h).div_ceil(8 * h_max), (self.frame.rows * c.v).div_ceil(8 * v_max))
        } else {
            (self.frame.columns.div_ceil(8 * h_max), self.frame.rows.div_ceil(8 * v_max))
        };
        let mut last = vec![0i32; scan.components.len()];
        for unit in 0..across * down {
            if tables.restart_interval > 0 && unit > 0 && unit % tables.restart_interval == 0 {
                bits.restart()?;
                last.fill(0);
            }
            let (unit_x, unit_y) = (unit % across, unit / across);
            for (&(k, dc, ac), last) in scan.components.iter().zip(&mut last) {
                let component = self.frame.components[k];
                let dc = tables.dc.get(dc).and_then(Option::as_ref).ok_or(DAMAGED)?;
                let ac = tables.ac.get(ac).and_then(Option::as_ref).ok_or(DAMAGED)?;
                let quantisation = tables.quantisation.get(component.quantisation).and_then(Option::as_ref).ok_or(DAMAGED)?;
                let (h, v) = if alone { (1, 1) } else { (component.h, component.v) };
                for block in 0..h * v {
                    let coefficients = block_of(&mut bits, dc, ac, quantisation, last)?;
                    let (x, y) = (8 * (unit_x * h + block % h), 8 * (unit_y * v + block / h));
                    let plane = &mut self.planes[k];
                    inverse(&self.basis, &coefficients, self.frame.precision, |row, column, value| {
                        plane.values[(y + row) * plane.width + x + column] = value;
                    });
                }
            }
            bits.check()?;
        }
        scan.components.iter().for_each(|&(k, ..)| self.planes[k].done = true);
        Ok(bits.marker())
    }

    /// Pixel after pixel. Of a component with half of the samples, a pixel is three parts of the sample that it lies in and one
    /// of the sample next to it, rounded up and down in turn, as by libjpeg; of one with fewer, samples are repeated.
    pub(super) fn finish(self) -> Vec<u16> {
        let n = self.planes.len();
        let Frame { rows, columns, .. } = self.frame;
        let mut values = vec![0; rows * columns * n];
        let largest = (1 << self.frame.precision) - 1;
        for (k, (plane, component)) in self.planes.iter().zip(&self.frame.components).enumerate() {
            let (half_across, half_down) = (2 * component.h == self.h_max, 2 * component.v == self.v_max);
            let across: Vec<_> = (0..columns).map(|x| own_and_next(x, columns, component.h, self.h_max)).collect();
            for (y, line) in values.chunks_exact_mut(columns * n).enumerate() {
                let [near, far] = own_and_next(y, rows, component.v, self.v_max).map(|y| &plane.values[y * plane.width..]);
                let at = |x: usize| if half_down { (3 * near[x] + far[x] + 1 + (x + y) as i32 % 2) >> 2 } else { near[x] };
                for (x, (&[own, next], value)) in across.iter().zip(line[k..].iter_mut().step_by(n)).enumerate() {
                    let sixteenths = if half_across { (3 * at(own) + at(next) + 2 - x as i32 % 2) >> 2 } else { at(own) };
                    *value = ((sixteenths + 8) >> 4).clamp(0, largest) as u16;
                }
            }
        }
        values
    }
}

/// Of `n` pixels of a line with `share` samples for each `whole` pixels: the sample that pixel `at` lies in, and the nearer one
/// next to it where there are half as many; at the edge the same again.
fn own_and_next(at: usize, n: usize, share: usize, whole: usize) -> [usize; 2] {
    let (own, last) = (at * share / whole, (n * share).div_ceil(whole) - 1);
    [own, if at.is_multiple_of(2) { own.saturating_sub(1) } else { last.min(own + 1) }]
}

/// §F.2.2: the dequantised coefficients of a block.
fn block_of(bits: &mut Bits<'_>, dc: &Table, ac: &Table, quantisation: &[f32; 64], last: &mut i32) -> Result<[f32; 64], Fault> {
    let mut block = [0.0; 64];
    bits.fill();
    let n = dc.decode(bits)?;
    if n > 15 {
        return Err(DAMAGED);
    }
    let difference = if n == 0 { 0 } else { bits.difference(n.into()) };
    // A damaged stream must not overflow what it adds up.
    *last = last.wrapping_add(difference).clamp(-(1 << 20), 1 << 20);
    block[0] = *last as f32 * quantisation[0];
    let mut k = 1;
    while k < 64 {
        bits.fill();
        let symbol = ac.decode(bits)?;
        let (run, n) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if n == 0 {
            if run != 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        let place = *ZIGZAG.get(k).ok_or(DAMAGED)?;
        block[place] = bits.difference(n) as f32 * quantisation[k];
        k += 1;
    }
    Ok(block)
}

/// §A.3.3: rows, then columns; the level shift and the range of so many bits. Most coefficients are 0 and cost nothing.
fn inverse(basis: &[[f32; 8]; 8], block: &[f32; 64], precision: u32, mut put: impl FnMut(usize, usize, i32)) {
    let half = (1u32 << (precision - 1)) as f32;
    let mut values = [[0.0f32; 8]; 8];
    for (source, of_column) in block.as_chunks::<8>().0.iter().zip(basis) {
        if source == &[0.0; 8] {
            continue;
        }
        let mut row = [0.0f32; 8];
        for (coefficient, of_row) in source.iter().zip(basis).filter(|(coefficient, _)| **coefficient != 0.0) {
            row.iter_mut().zip(of_row).for_each(|(value, share)| *value += share * coefficient);
        }
        for (line, share) in values.iter_mut().zip(of_column) {
            line.iter_mut().zip(&row).for_each(|(value, row)| *value += share * row);
        }
    }
    for (y, line) in values.iter().enumerate() {
        for (x, value) in line.iter().enumerate() {
            put(y, x, (2.0 * value + 16.0 * half).round().clamp(-1e6, 1e6) as i32);
        }
    }
}
