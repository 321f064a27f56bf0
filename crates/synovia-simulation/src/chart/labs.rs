//! Laboratory tests: codes, units at each site, and the monotone maps from standardised values.

use synovia_cohort::Sex;

use super::resources::{Coding, Quantity};
use crate::patient::Site;
use crate::world::RecordFactors;

/// A test, with its unit at either site.
pub(super) struct Test {
    pub(super) code: Coding,
    unit_a: &'static str,
    unit_b: &'static str,
    /// Value at site B for 1 at site A.
    factor_b: f64,
    decimals_a: i32,
    decimals_b: i32,
}

const fn test(code: &'static str, display: &'static str, unit: &'static str, decimals: i32) -> Test {
    Test { code: Coding::loinc(code, display), unit_a: unit, unit_b: unit, factor_b: 1.0, decimals_a: decimals, decimals_b: decimals }
}

pub(super) const CEA: Test = test("2039-6", "Carcinoembryonic Ag [Mass/volume] in Serum or Plasma", "ng/mL", 2);
pub(super) const CRP: Test = test("1988-5", "C reactive protein [Mass/volume] in Serum or Plasma", "mg/L", 2);
pub(super) const NT_PROBNP: Test =
    test("33762-6", "Natriuretic peptide.B prohormone N-Terminal [Mass/volume] in Serum or Plasma", "pg/mL", 0);
pub(super) const WBC: Test = test("6690-2", "Leukocytes [#/volume] in Blood by Automated count", "10*3/uL", 1);
pub(super) const HAEMOGLOBIN: Test =
    Test { unit_b: "g/L", factor_b: 10.0, decimals_b: 0, ..test("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 1) };
/// 180.16 g/mol.
pub(super) const GLUCOSE: Test = Test {
    unit_b: "mmol/L",
    factor_b: 1.0 / 18.016,
    decimals_b: 1,
    ..test("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", 0)
};
/// 113.12 g/mol.
pub(super) const CREATININE: Test =
    Test { unit_b: "umol/L", factor_b: 88.4, decimals_b: 0, ..test("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 2) };

impl Test {
    /// `value` is in the unit of site A.
    pub(super) fn quantity(&self, value: f64, site: Site) -> Quantity {
        match site {
            Site::A => Quantity::new(value, self.decimals_a, self.unit_a),
            Site::B => Quantity::new(value * self.factor_b, self.decimals_b, self.unit_b),
        }
    }
}

/// CEA in ng/mL, log-normal.
pub(super) fn cea(z: f64) -> f64 {
    2.5 * (0.6 * z).exp()
}

/// CRP in mg/L, log-normal.
pub(super) fn crp(z: f64) -> f64 {
    5.0 * (0.7 * z).exp()
}

/// NT-proBNP in pg/mL, log-normal.
pub(super) fn nt_probnp(z: f64) -> f64 {
    180.0 * (0.8 * z).exp()
}

/// Haemoglobin in g/dL, normal about the mean of the patient's sex.
pub(super) fn haemoglobin(record: &RecordFactors) -> f64 {
    let mean = if record.sex == Sex::Female { 13.3 } else { 14.7 };
    (mean + 1.3 * record.haemoglobin.z).max(4.0)
}
