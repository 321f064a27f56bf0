//! JPEG-LS, lossless and near-lossless (ITU-T T.87): decoded here because the usual library needs a C++ tool chain.
//!
//! Names are the recommendation's: `Ra`, `Rb`, `Rc`, `Rd` the neighbours, `A`, `B`, `C`, `N` the context statistics.
//! Not read: mapping tables, restart intervals, subsampled components.

use crate::error::Fault;

const DAMAGED: Fault = Fault::Codec { codec: "JPEG-LS" };

/// Decodes a stream to samples, those of a pixel together.
///
/// # Shapes
/// - result: `[rows, columns, samples]`
pub(super) fn decode(bytes: &[u8], columns: usize, rows: usize, samples: usize) -> Result<Vec<u16>, Fault> {
    let mut result = Vec::new();
    let mut frame: Option<(u32, Vec<u8>)> = None;
    let mut preset = Preset::default();
    let mut decoded = vec![false; samples];
    let mut at = 0;
    if bytes.get(..2) != Some(&[0xFF, 0xD8]) {
        return Err(DAMAGED);
    }
    at += 2;
    loop {
        // Markers may be preceded by fill bytes.
        while bytes.get(at) == Some(&0xFF) && bytes.get(at + 1) == Some(&0xFF) {
            at += 1;
        }
        let &[0xFF, marker, high, low] = bytes.get(at..at + 4).and_then(|head| head.first_chunk::<4>()).ok_or(DAMAGED)? else {
            return Err(DAMAGED);
        };
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        let segment = bytes.get(at + 4..end).ok_or(DAMAGED)?;
        at = end;
        match marker {
            // SOF55
            0xF7 => {
                let &[precision, y0, y1, x0, x1, n, ref components @ ..] = segment else { return Err(DAMAGED) };
                let got = (usize::from(u16::from_be_bytes([x0, x1])), usize::from(u16::from_be_bytes([y0, y1])), usize::from(n));
                if got != (columns, rows, samples) {
                    let (got_columns, got_rows, got_samples) = got;
                    return Err(Fault::StreamSize { codec: "JPEG-LS", got_columns, got_rows, got_samples, columns, rows, samples });
                }
                let components = components.as_chunks::<3>().0;
                if frame.is_some()
                    || !(2..=16).contains(&precision)
                    || components.len() != samples
                    || components.iter().any(|c| c[1] != 0x11)
                {
                    return Err(DAMAGED);
                }
                frame = Some((precision.into(), components.iter().map(|component| component[0]).collect()));
                result = vec![0; columns * rows * samples];
            }
            // LSE: preset coding parameters
            0xF8 => match segment {
                [1, values @ ..] if values.len() == 10 => {
                    let [maxval, t1, t2, t3, reset] = [0, 2, 4, 6, 8].map(|k| i32::from(u16::from_be_bytes([values[k], values[k + 1]])));
                    preset = Preset { maxval, t1, t2, t3, reset };
                }
                _ => return Err(DAMAGED),
            },
            // SOS
            0xDA => {
                let (precision, ids) = frame.as_ref().ok_or(DAMAGED)?;
                let (&n, rest) = segment.split_first().ok_or(DAMAGED)?;
                let (selectors, tail) = rest.split_at_checked(2 * usize::from(n)).ok_or(DAMAGED)?;
                let &[near, interleave, _] = tail else { return Err(DAMAGED) };
                let planes: Option<Vec<usize>> =
                    selectors.as_chunks::<2>().0.iter().map(|[id, _]| ids.iter().position(|known| known == id)).collect();
                let planes = planes.filter(|planes| !planes.is_empty()).ok_or(DAMAGED)?;
                if selectors.as_chunks::<2>().0.iter().any(|[_, table]| *table != 0) || (interleave == 0) != (planes.len() == 1) {
                    return Err(DAMAGED);
                }
                // Each component comes once.
                if planes.iter().any(|&plane| std::mem::replace(&mut decoded[plane], true)) {
                    return Err(DAMAGED);
                }
                let mut scan = Scan::new(&bytes[at..], *precision, near.into(), &preset)?;
                scan.planes(&planes, interleave, &mut result, columns, samples)?;
                at += scan.bits.consumed();
                if !decoded.contains(&false) {
                    return Ok(result);
                }
                // The scan's padding, up to the next marker.
                while at + 1 < bytes.len() && !(bytes[at] == 0xFF && bytes[at + 1] >= 0x80) {
                    at += 1;
                }
            }
            // APPn, COM
            0xE0..=0xEF | 0xFE => {}
            _ => return Err(DAMAGED),
        }
    }
}

/// §C.2.4.1.1; 0 stands for the default.
#[derive(Default)]
struct Preset {
    maxval: i32,
    t1: i32,
    t2: i32,
    t3: i32,
    reset: i32,
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    n_held: u32,
    after_ff: bool,
}

impl Bits<'_> {
    /// Tops up to at least 57 bits, or to the marker that ends the scan.
    fn fill(&mut self) {
        while self.n_held <= 56 {
            let Some(&byte) = self.bytes.get(self.at) else { return };
            if self.after_ff {
                // §A.1: a byte after 0xFF starts with a stuffed 0; a 1 makes it a marker.
                if byte >= 0x80 {
                    return;
                }
                self.held = self.held << 7 | u64::from(byte);
                self.n_held += 7;
            } else {
                if byte == 0xFF && self.bytes.get(self.at + 1).is_none_or(|&next| next >= 0x80) {
                    return;
                }
                self.held = self.held << 8 | u64::from(byte);
                self.n_held += 8;
            }
            self.after_ff = byte == 0xFF;
            self.at += 1;
        }
    }

    fn read(&mut self, n: u32) -> Result<u32, Fault> {
        if n == 0 {
            return Ok(0);
        }
        if self.n_held < n {
            self.fill();
            if self.n_held < n {
                return Err(DAMAGED);
            }
        }
        self.n_held -= n;
        Ok((self.held >> self.n_held & ((1 << n) - 1)) as u32)
    }

    /// Zeros before the next one, which is read too.
    fn zeros(&mut self, limit: u32) -> Result<u32, Fault> {
        let mut n = 0;
        while self.read(1)? == 0 {
            n += 1;
            if n > limit {
                return Err(DAMAGED);
            }
        }
        Ok(n)
    }

    /// Bytes up to the end of the scan, at most: whole bytes that were not needed are given back.
    fn consumed(&self) -> usize {
        self.at - (self.n_held as usize / 8).min(self.at)
    }
}

/// §A.7.1.2, table A.1's companion: run length orders.
const J: [u32; 32] = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];

#[derive(Clone, Copy)]
struct Context {
    a: i32,
    b: i32,
    c: i32,
    n: i32,
}

#[derive(Clone, Copy)]
struct RunContext {
    a: i32,
    n: i32,
    nn: i32,
}

struct Scan<'a> {
    bits: Bits<'a>,
    near: i32,
    maxval: i32,
    thresholds: [i32; 3],
    reset: i32,
    range: i32,
    qbpp: u32,
    limit: u32,
    contexts: Vec<Context>,
    runs: [RunContext; 2],
}

impl<'a> Scan<'a> {
    fn new(bytes: &'a [u8], precision: u32, near: i32, preset: &Preset) -> Result<Self, Fault> {
        let default = |value: i32, otherwise: i32| if value == 0 { otherwise } else { value };
        let maxval = default(preset.maxval, (1 << precision) - 1);
        if maxval >= 1 << precision || near > maxval / 2 {
            return Err(DAMAGED);
        }
        let clamp = |value: i32, low: i32| if value > maxval || value < low { low } else { value };
        let [t1, t2, t3] = if maxval >= 128 {
            let factor = (maxval.min(4095) + 128) / 256;
            [factor + 2 + 3 * near, 4 * factor + 3 + 5 * near, 17 * factor + 4 + 7 * near]
        } else {
            let factor = 256 / (maxval + 1);
            [2.max(3 / factor + 3 * near), 3.max(7 / factor + 5 * near), 4.max(21 / factor + 7 * near)]
        };
        let t1 = default(preset.t1, clamp(t1, near + 1));
        let t2 = default(preset.t2, clamp(t2, t1));
        let t3 = default(preset.t3, clamp(t3, t2));
        let range = if near == 0 { maxval + 1 } else { (maxval + 2 * near) / (2 * near + 1) + 1 };
        let order = |n: i32| (n - 1).max(1).ilog2() + 1;
        let bpp = order(maxval + 1).max(2);
        let a = 2.max((range + 32) / 64);
        Ok(Self {
            bits: Bits { bytes, at: 0, held: 0, n_held: 0, after_ff: false },
            near,
            maxval,
            thresholds: [t1, t2, t3],
            reset: default(preset.reset, 64).max(3),
            range,
            qbpp: order(range),
            limit: 2 * (bpp + bpp.max(8)),
            contexts: vec![Context { a, b: 0, c: 0, n: 1 }; 365],
            runs: [RunContext { a, n: 1, nn: 0 }; 2],
        })
    }

    /// Decodes the scan's components into their places in `result`.
    fn planes(&mut self, planes: &[usize], interleave: u8, result: &mut [u16], columns: usize, samples: usize) -> Result<(), Fault> {
        let n = planes.len();
        // A line has one sample before it and one after (§A.2.1): before is the first of the line above, after its last.
        let mut above = vec![vec![0i32; columns + 2]; n];
        let mut line = above.clone();
        let mut run_index = vec![0usize; n];
        for row in result.chunks_exact_mut(columns * samples) {
            for k in 0..n {
                line[k][0] = above[k][1];
                above[k][columns + 1] = above[k][columns];
            }
            match interleave {
                0 | 1 => {
                    for k in 0..n {
                        self.line(&above[k..=k], &mut line[k..=k], &mut run_index[k], columns)?;
                    }
                }
                2 => self.line(&above, &mut line, &mut run_index[0], columns)?,
                _ => return Err(DAMAGED),
            }
            for (k, &plane) in planes.iter().enumerate() {
                for x in 0..columns {
                    row[x * samples + plane] = line[k][x + 1] as u16;
                }
            }
            std::mem::swap(&mut above, &mut line);
        }
        Ok(())
    }

    /// One line of one component, or of all when they are interleaved by sample.
    fn line(&mut self, above: &[Vec<i32>], line: &mut [Vec<i32>], run_index: &mut usize, columns: usize) -> Result<(), Fault> {
        let mut x = 1;
        while x <= columns {
            let mut flat = true;
            for k in 0..line.len() {
                let (ra, rb, rc, rd) = (line[k][x - 1], above[k][x], above[k][x - 1], above[k][x + 1]);
                flat &= [rd - rb, rb - rc, rc - ra].iter().all(|d| d.abs() <= self.near);
            }
            if !flat {
                for k in 0..line.len() {
                    let (ra, rb, rc, rd) = (line[k][x - 1], above[k][x], above[k][x - 1], above[k][x + 1]);
                    line[k][x] = self.regular(ra, rb, rc, rd)?;
                }
                x += 1;
                continue;
            }
            let run = self.run_length(run_index, columns + 1 - x)?;
            for samples in line.iter_mut() {
                let ra = samples[x - 1];
                samples[x..x + run].fill(ra);
            }
            x += run;
            if x > columns {
                break;
            }
            let together = line.len() > 1;
            for k in 0..line.len() {
                line[k][x] = self.interruption(line[k][x - 1], above[k][x], together, J[*run_index])?;
            }
            *run_index = run_index.saturating_sub(1);
            x += 1;
        }
        Ok(())
    }

    /// §A.7.1: samples equal to the one before, up to `left`.
    fn run_length(&mut self, index: &mut usize, left: usize) -> Result<usize, Fault> {
        let mut run = 0;
        while self.bits.read(1)? == 1 {
            let whole = 1 << J[*index];
            let n = whole.min(left - run);
            run += n;
            if n == whole {
                *index = (*index + 1).min(31);
            }
            if run == left {
                return Ok(run);
            }
        }
        run += self.bits.read(J[*index])? as usize;
        if run < left { Ok(run) } else { Err(DAMAGED) }
    }

    fn golomb(&mut self, k: u32, limit: u32) -> Result<i32, Fault> {
        let threshold = limit.checked_sub(self.qbpp + 1).ok_or(DAMAGED)?;
        let zeros = self.bits.zeros(threshold)?;
        let value = if zeros < threshold { zeros << k | self.bits.read(k)? } else { self.bits.read(self.qbpp)? + 1 };
        i32::try_from(value).map_err(|_| DAMAGED)
    }

    /// The order `k` with `n << k >= a`.
    fn order(n: i32, a: i32) -> Result<u32, Fault> {
        (0..24).find(|k| n << k >= a).ok_or(DAMAGED)
    }

    fn quantized(&self, d: i32) -> i32 {
        let [t1, t2, t3] = self.thresholds;
        let size = d.abs();
        let q = if size <= self.near { 0 } else { 1 + i32::from(size >= t1) + i32::from(size >= t2) + i32::from(size >= t3) };
        q * d.signum()
    }

    /// §A.8: the sample from its prediction and error, modulo the range.
    fn reconstructed(&self, prediction: i32, error: i32) -> i32 {
        let step = 2 * self.near + 1;
        let mut x = prediction + error * step;
        if x < -self.near {
            x += self.range * step;
        } else if x > self.maxval + self.near {
            x -= self.range * step;
        }
        x.clamp(0, self.maxval)
    }

    /// §A.3 to §A.6
    fn regular(&mut self, ra: i32, rb: i32, rc: i32, rd: i32) -> Result<i32, Fault> {
        let q = 81 * self.quantized(rd - rb) + 9 * self.quantized(rb - rc) + self.quantized(rc - ra);
        let sign = if q < 0 { -1 } else { 1 };
        let index = q.unsigned_abs() as usize;
        let Context { a, b, c, n } = self.contexts[index];
        let predicted = if rc >= ra.max(rb) {
            ra.min(rb)
        } else if rc <= ra.min(rb) {
            ra.max(rb)
        } else {
            ra + rb - rc
        };
        let predicted = (predicted + sign * c).clamp(0, self.maxval);
        let k = Self::order(n, a)?;
        let mapped = self.golomb(k, self.limit)?;
        let error = match (self.near == 0 && k == 0 && 2 * b <= -n, mapped & 1) {
            (false, 0) => mapped / 2,
            (false, _) => -(mapped + 1) / 2,
            (true, 0) => -(mapped / 2) - 1,
            (true, _) => mapped / 2,
        };
        if error.abs() > self.range {
            return Err(DAMAGED);
        }
        let context = &mut self.contexts[index];
        context.a += error.abs();
        context.b += error * (2 * self.near + 1);
        if context.n == self.reset {
            *context = Context { a: context.a >> 1, b: context.b >> 1, n: context.n >> 1, ..*context };
        }
        context.n += 1;
        if context.b <= -context.n {
            context.b = (context.b + context.n).max(1 - context.n);
            context.c = (context.c - 1).max(-128);
        } else if context.b > 0 {
            context.b = (context.b - context.n).min(0);
            context.c = (context.c + 1).min(127);
        }
        Ok(self.reconstructed(predicted, sign * error))
    }

    /// §A.7.2: the sample that ends a run. Samples that are interleaved `together` share the first context (§A.7.2, ILV 2).
    fn interruption(&mut self, ra: i32, rb: i32, together: bool, j: u32) -> Result<i32, Fault> {
        let kind = usize::from(!together && (ra - rb).abs() <= self.near);
        let (predicted, sign) = if kind == 1 { (ra, 1) } else { (rb, if ra > rb { -1 } else { 1 }) };
        let RunContext { a, n, nn } = self.runs[kind];
        let k = Self::order(n, if kind == 1 { a + (n >> 1) } else { a })?;
        let mapped = self.golomb(k, self.limit.checked_sub(j + 1).ok_or(DAMAGED)?)?;
        let t = mapped + kind as i32;
        let size = (t + 1) / 2;
        let error = if (k != 0 || 2 * nn >= n) == (t & 1 == 1) { -size } else { size };
        if size > self.range {
            return Err(DAMAGED);
        }
        let context = &mut self.runs[kind];
        context.nn += i32::from(error < 0);
        context.a += (mapped + 1 - kind as i32) >> 1;
        if context.n == self.reset {
            *context = RunContext { a: context.a >> 1, n: context.n >> 1, nn: context.nn >> 1 };
        }
        context.n += 1;
        Ok(self.reconstructed(predicted, sign * error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ITU-T T.87 §H.3, figures H.4 and H.5: a 4 x 4 image of 8 bits and its stream.
    const EXAMPLE: [u8; 62] = [
        0xFF, 0xD8, 0xFF, 0xF7, 0x00, 0x0B, 0x08, 0x00, 0x04, 0x00, 0x04, 0x01, 0x01, 0x11, 0x00, 0xFF, 0xDA, 0x00, 0x08, 0x01, 0x01, 0x00,
        0x00, 0x00, 0x00, 0xC0, 0x00, 0x00, 0x6C, 0x80, 0x20, 0x8E, 0x01, 0xC0, 0x00, 0x00, 0x57, 0x40, 0x00, 0x00, 0x6E, 0xE6, 0x00, 0x00,
        0x01, 0xBC, 0x18, 0x00, 0x00, 0x05, 0xD8, 0x00, 0x00, 0x91, 0x60, 0xFF, 0xD9, 0x00, 0x00, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn t_87_annex_h_3() {
        let expected = [0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145];
        assert_eq!(decode(&EXAMPLE, 4, 4, 1).unwrap(), expected);
    }

    #[test]
    fn a_stream_of_another_size_is_refused_before_it_is_decoded() {
        let fault = decode(&EXAMPLE, 4, 5, 1).unwrap_err().to_string();
        assert_eq!(fault, "the JPEG-LS stream is 4 x 4 x 1, the header says 4 x 5 x 1 (columns x rows x samples)");
    }

    #[test]
    fn cut_streams_are_errors() {
        for n in 0..50 {
            assert!(decode(&EXAMPLE[..n], 4, 4, 1).is_err(), "cut at {n}");
        }
    }

    proptest::proptest! {
        #[test]
        fn damage_never_panics(at in 15usize..57, value: u8) {
            let mut bytes = EXAMPLE;
            bytes[at] = value;
            if let Ok(samples) = decode(&bytes, 4, 4, 1) {
                proptest::prop_assert_eq!(samples.len(), 16);
            }
        }
    }
}
