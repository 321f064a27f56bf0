//! Lossless frames (T.81 annex H): each sample is a prediction from its neighbours and a coded difference.

use super::entropy::{Bits, QUICK, Table};
use super::{DAMAGED, Frame, Scan, Tables};
use crate::error::Fault;

/// A frame being decoded.
pub(super) struct Image {
    frame: Frame,
    values: Vec<u16>,
    /// Components that are whole.
    done: Vec<bool>,
    /// The point transform: bits that were shifted out before coding.
    shift: u32,
}

/// The code of one component.
struct Code<'a> {
    component: usize,
    table: &'a Table,
    differences: Vec<u32>,
}

impl Code<'_> {
    #[inline]
    fn difference(&self, bits: &mut Bits<'_>) -> Result<i32, Fault> {
        bits.fill();
        let entry = self.differences[bits.peek(QUICK)];
        if entry != 0 {
            bits.skip(entry >> 16);
            return Ok(i32::from(entry as u16 as i16));
        }
        match self.table.decode(bits)? {
            0 => Ok(0),
            // A code of 16 bits and 15 more are in the 32 that were filled.
            n @ 1..=15 => Ok(bits.difference(n.into())),
            16 => Ok(32_768),
            _ => Err(DAMAGED),
        }
    }
}

/// Table H.1: from the samples to the left (a), above (b), and left above (c).
#[inline]
const fn predicted<const SELECTION: u8>(a: i32, b: i32, c: i32) -> i32 {
    match SELECTION {
        1 => a,
        2 => b,
        3 => c,
        4 => a + b - c,
        5 => a + ((b - c) >> 1),
        6 => b + ((a - c) >> 1),
        _ => (a + b) >> 1,
    }
}

impl Image {
    pub(super) fn new(frame: Frame) -> Result<Self, Fault> {
        if frame.components.len() > 1 && frame.components.iter().any(|c| c.h != 1 || c.v != 1) {
            return Err(Fault::Kind { codec: "JPEG", kind: "subsampled lossless components" });
        }
        if !(2..=16).contains(&frame.precision) || frame.rows == 0 || frame.columns == 0 {
            return Err(DAMAGED);
        }
        let n = frame.components.len();
        let values = vec![0; frame.rows * frame.columns * n];
        Ok(Self { values, done: vec![false; n], frame, shift: 0 })
    }

    pub(super) const fn frame(&self) -> &Frame {
        &self.frame
    }

    pub(super) fn is_complete(&self) -> bool {
        self.done.iter().all(|&done| done)
    }

    pub(super) fn finish(mut self) -> Vec<u16> {
        if self.shift > 0 {
            self.values.iter_mut().for_each(|value| *value <<= self.shift);
        }
        self.values
    }

    pub(super) fn scan(&mut self, scan: &Scan<'_>, tables: &Tables) -> Result<usize, Fault> {
        if scan.shift >= self.frame.precision || !(1..=7).contains(&scan.selection) {
            return Err(DAMAGED);
        }
        if !tables.restart_interval.is_multiple_of(self.frame.columns) {
            return Err(Fault::Kind { codec: "JPEG", kind: "restarts within a row of a lossless frame" });
        }
        let codes: Option<Vec<Code<'_>>> = scan
            .components
            .iter()
            .map(|&(component, dc, _)| {
                let table = tables.dc.get(dc)?.as_ref()?;
                Some(Code { component, table, differences: table.differences() })
            })
            .collect();
        let codes = codes.ok_or(DAMAGED)?;
        self.shift = scan.shift;
        let rows = match scan.selection {
            1 => Self::rows::<1>,
            2 => Self::rows::<2>,
            3 => Self::rows::<3>,
            4 => Self::rows::<4>,
            5 => Self::rows::<5>,
            6 => Self::rows::<6>,
            _ => Self::rows::<7>,
        };
        let mut bits = Bits::new(scan.entropy);
        rows(self, &mut bits, &codes, tables.restart_interval / self.frame.columns)?;
        codes.iter().for_each(|code| self.done[code.component] = true);
        Ok(bits.marker())
    }

    fn rows<const SELECTION: u8>(&mut self, bits: &mut Bits<'_>, codes: &[Code<'_>], restart_rows: usize) -> Result<(), Fault> {
        let n = self.frame.components.len();
        let width = self.frame.columns * n;
        // §H.1.2.1: the first sample, and again after a restart.
        let start = 1 << (self.frame.precision - self.shift - 1);
        for row in 0..self.frame.rows {
            let first = if restart_rows > 0 { row % restart_rows == 0 } else { row == 0 };
            if first && row > 0 {
                bits.restart()?;
            }
            let (before, rest) = self.values.split_at_mut(row * width);
            let line = &mut rest[..width];
            let above = (!first).then(|| &before[before.len() - width..]);
            match (codes, above) {
                ([code], Some(above)) if n == 1 => line_below::<SELECTION>(bits, code, above, line)?,
                _ => line_of_many::<SELECTION>(bits, codes, n, above, line, start)?,
            }
            bits.check()?;
        }
        Ok(())
    }
}

/// A line of a grey frame that has one above it.
fn line_below<const SELECTION: u8>(bits: &mut Bits<'_>, code: &Code<'_>, above: &[u16], line: &mut [u16]) -> Result<(), Fault> {
    // A copy can be held in registers.
    let mut own = bits.clone();
    let mut c = i32::from(above[0]);
    // §H.1.2.1: a line starts from the sample above.
    let mut a = (c + code.difference(&mut own)?) & 0xFFFF;
    line[0] = a as u16;
    for (value, &b) in line[1..].iter_mut().zip(&above[1..]) {
        let b = i32::from(b);
        a = (predicted::<SELECTION>(a, b, c) + code.difference(&mut own)?) & 0xFFFF;
        *value = a as u16;
        c = b;
    }
    *bits = own;
    Ok(())
}

/// A line of any frame.
fn line_of_many<const SELECTION: u8>(
    bits: &mut Bits<'_>,
    codes: &[Code<'_>],
    n: usize,
    above: Option<&[u16]>,
    line: &mut [u16],
    start: i32,
) -> Result<(), Fault> {
    for x in 0..line.len() / n {
        for code in codes {
            let at = x * n + code.component;
            let left = |values: &[u16]| i32::from(values[at - n]);
            let prediction = match (above, x) {
                (None, 0) => start,
                (None, _) => left(line),
                (Some(above), 0) => i32::from(above[at]),
                (Some(above), _) => predicted::<SELECTION>(left(line), i32::from(above[at]), left(above)),
            };
            line[at] = (prediction + code.difference(bits)?) as u16;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::super::{decode, frame_header};

    /// A frame in one interleaved scan; every difference's length has a code of five bits.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Written {
        pub(crate) columns: usize,
        pub(crate) samples: usize,
        pub(crate) precision: u32,
        pub(crate) selection: u8,
        pub(crate) restart_rows: usize,
    }

    #[derive(Default)]
    struct Out {
        bytes: Vec<u8>,
        held: u32,
        n_held: u32,
    }

    impl Out {
        fn put(&mut self, value: u32, n: u32) {
            for k in (0..n).rev() {
                self.held = self.held << 1 | value >> k & 1;
                self.n_held += 1;
                if self.n_held == 8 {
                    self.bytes.push(self.held as u8);
                    if self.held as u8 == 0xFF {
                        self.bytes.push(0);
                    }
                    (self.held, self.n_held) = (0, 0);
                }
            }
        }

        fn flush(&mut self) {
            while self.n_held > 0 {
                self.put(1, 1);
            }
        }
    }

    impl Written {
        /// Table H.1, written once more from the standard.
        fn predicted(self, values: &[u16], at: usize) -> i32 {
            let width = self.columns * self.samples;
            let (row, x) = (at / width, at % width);
            let first = if self.restart_rows > 0 { row % self.restart_rows == 0 } else { row == 0 };
            let value = |back: usize| i32::from(values[at - back]);
            match (first, x < self.samples) {
                (true, true) => 1 << (self.precision - 1),
                (true, false) => value(self.samples),
                (false, true) => value(width),
                (false, false) => {
                    let (a, b, c) = (value(self.samples), value(width), value(width + self.samples));
                    match self.selection {
                        1 => a,
                        2 => b,
                        3 => c,
                        4 => a + b - c,
                        5 => a + ((b - c) >> 1),
                        6 => b + ((a - c) >> 1),
                        _ => (a + b) >> 1,
                    }
                }
            }
        }

        pub(crate) fn encode(self, values: &[u16]) -> Vec<u8> {
            let width = self.columns * self.samples;
            let rows = values.len() / width;
            let mut out = Out { bytes: vec![0xFF, 0xD8], ..Out::default() };
            let n = self.samples as u8;
            out.bytes.extend([0xFF, 0xC4, 0, 2 + 17 + 17, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            out.bytes.extend(0..17);
            out.bytes.extend([0xFF, 0xDD, 0, 4]);
            out.bytes.extend(((self.restart_rows * self.columns) as u16).to_be_bytes());
            out.bytes.extend([0xFF, 0xC3, 0, 8 + 3 * n, self.precision as u8]);
            out.bytes.extend((rows as u16).to_be_bytes());
            out.bytes.extend((self.columns as u16).to_be_bytes());
            out.bytes.push(n);
            (1..=n).for_each(|id| out.bytes.extend([id, 0x11, 0]));
            out.bytes.extend([0xFF, 0xDA, 0, 6 + 2 * n, n]);
            (1..=n).for_each(|id| out.bytes.extend([id, 0]));
            out.bytes.extend([self.selection, 0, 0]);
            for (at, &value) in values.iter().enumerate() {
                if self.restart_rows > 0 && at > 0 && at % (width * self.restart_rows) == 0 {
                    out.flush();
                    let k = at / (width * self.restart_rows) - 1;
                    out.bytes.extend([0xFF, 0xD0 + (k % 8) as u8]);
                }
                // Modulo 65536, as a number from -32767 to 32768.
                let difference = i32::from((i32::from(value) - self.predicted(values, at)) as u16 as i16);
                let difference = if difference == -32_768 { 32_768 } else { difference };
                let n = 32 - difference.unsigned_abs().leading_zeros();
                out.put(n, 5);
                if n < 16 {
                    out.put((if difference < 0 { difference - 1 } else { difference }) as u32 & ((1 << n) - 1), n);
                }
            }
            out.flush();
            out.bytes.extend([0xFF, 0xD9]);
            out.bytes
        }
    }

    proptest! {
        #[test]
        fn what_was_written_comes_back(
            columns in 1usize..9, rows in 1usize..7, samples in 1usize..4, precision in 2u32..=16, selection in 1u8..=7,
            restart_rows in 0usize..3, seed in prop::collection::vec(any::<u16>(), 200),
        ) {
            let values: Vec<u16> = seed.into_iter().take(columns * rows * samples).map(|x| x >> (16 - precision)).collect();
            let written = Written { columns, samples, precision, selection, restart_rows };
            let bytes = written.encode(&values);
            let frame = frame_header(&bytes).unwrap();
            prop_assert_eq!((frame.process, frame.columns, frame.rows, frame.samples()), (0xC3, columns, rows, samples));
            prop_assert_eq!(decode(&bytes).unwrap(), values);
        }

        #[test]
        fn damage_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
            let written = Written { columns: 6, samples: 1, precision: 12, selection: 4, restart_rows: 2 };
            let mut bytes = written.encode(&(0..36).map(|x| x * 97 % 4096).collect::<Vec<_>>());
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            // The size is for the caller to check: here it may be anything of two bytes.
            if frame_header(&bytes).is_some_and(|frame| frame.columns * frame.rows < 1 << 16) {
                let _ = decode(&bytes);
            }
        }
    }
}
