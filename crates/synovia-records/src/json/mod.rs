//! JSON read in one pass over a buffer, as fast as two cores bring it: what is wanted is parsed, what is not is passed over
//! sixty-four bytes at a time by its quotes and brackets alone.
//!
//! This module knows nothing of FHIR, and is no judge of JSON: whatever it can't read, the caller gives to `serde_json`, whose
//! errors have a line and a column. What it passes over (an element that nobody reads) is not checked beyond its brackets.

mod block;
mod deserializer;
mod skip;

pub(crate) use deserializer::Json;
