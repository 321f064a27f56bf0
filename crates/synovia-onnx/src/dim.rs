//! Sizes that may follow the batch.

use std::fmt;

/// The batch sizes that a model is traced at. Three of them, so that "in proportion to the batch" is observed and not assumed:
/// any two points lie on a line.
pub(crate) const BATCHES: [usize; 3] = [3, 5, 11];

/// A size: `per_batch × batch + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Dim {
    pub per_batch: i64,
    pub offset: i64,
}

impl Dim {
    /// The batch itself.
    pub const BATCH: Self = Self { per_batch: 1, offset: 0 };

    /// The size that was seen at each of [`BATCHES`]; `None` when no line goes through them.
    pub fn fit(seen: [usize; 3]) -> Option<Self> {
        let [x0, x1, x2] = BATCHES.map(|batch| batch as i64);
        let [y0, y1, y2] = seen.map(|size| size as i64);
        let per_batch = (y1 - y0) / (x1 - x0);
        let offset = y0 - per_batch * x0;
        (per_batch * x1 + offset == y1 && per_batch * x2 + offset == y2).then_some(Self { per_batch, offset })
    }

    /// A size that does not follow the batch.
    pub const fn constant(size: usize) -> Self {
        Self { per_batch: 0, offset: size as i64 }
    }

    /// Its value, if it does not follow the batch.
    pub fn fixed(self) -> Option<i64> {
        (self.per_batch == 0).then_some(self.offset)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.per_batch, self.offset) {
            (0, offset) => write!(f, "{offset}"),
            (1, 0) => f.write_str("batch"),
            (per_batch, 0) => write!(f, "{per_batch}*batch"),
            (per_batch, offset) => write!(f, "{per_batch}*batch+{offset}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_line_is_found(per_batch in 0usize..9, offset in 0usize..99) {
            let dim = Dim::fit(BATCHES.map(|batch| per_batch * batch + offset));
            prop_assert_eq!(dim, Some(Dim { per_batch: per_batch as i64, offset: offset as i64 }));
        }
    }

    #[test]
    fn no_line_through_squares_and_halves() {
        assert_eq!(Dim::fit(BATCHES.map(|batch| batch * batch)), None);
        assert_eq!(Dim::fit(BATCHES.map(|batch| batch / 2)), None);
    }
}
