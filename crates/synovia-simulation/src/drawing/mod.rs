//! Radiographs from factors: anatomy-like background, signs, and noise. Knows no file format.
//!
//! Brightness is attenuation: 0 is air, 1 is bone, before exposure and noise.

mod canvas;
mod frontal;
mod lateral;

pub(crate) use canvas::Canvas;
pub(crate) use frontal::{FRONTAL_SIZE, frontal, lesion};
pub(crate) use lateral::{LATERAL_SIZE, lateral};
