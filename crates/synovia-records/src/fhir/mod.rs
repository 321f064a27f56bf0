//! FHIR R4 JSON to items (<https://hl7.org/fhir/R4/>): only the elements that an event needs are read, borrowed from the
//! buffer; everything else is passed over by the parser.

mod convert;
mod element;
mod markup;
mod observation;
mod read;
mod reference;
mod report;
mod resource;
mod taken;

pub(crate) use read::{Where, read_bundle, read_piece};
