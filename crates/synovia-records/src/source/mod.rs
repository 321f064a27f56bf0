//! From a path to pieces of bytes: files, decompression, lines, Bundle entries, rows. Nothing here knows what they mean.

mod batch;
mod entries;
mod files;
mod lines;
mod rows;

pub(crate) use batch::{Batch, Piece, PieceKind, Pool, Trouble};
pub(crate) use entries::{WHOLE_FILE_BYTES, split_entries, whole_file};
pub(crate) use files::{Layout, Source, find, open, sayable};
pub(crate) use lines::{lines_of, split_lines, too_long};
pub(crate) use rows::{fields, split_rows};
