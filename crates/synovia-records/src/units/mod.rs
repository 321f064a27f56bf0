//! Units: a compact subset of UCUM, and the unit that each known code is kept in.

mod known;
mod ucum;

use crate::spill::Token;
pub use known::canonical_unit;
use known::{Known, known, known_loinc, limits};
use ucum::Unit;

/// Why a number can't be had in another unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The unit is not in the subset of UCUM that is read here.
    #[error("the unit is not one that is known")]
    Unknown,
    /// The two units measure different things.
    #[error("the unit measures something else")]
    Dimension,
    /// There is no unit where the code needs one.
    #[error("no unit where one is needed")]
    Missing,
    /// The number is one that no living body has.
    #[error("outside the limits of what a body can have")]
    Implausible,
    /// The number is not finite.
    #[error("not a finite number")]
    NotFinite,
}

/// `value` in unit `from` as a number of unit `to` (UCUM). `code` (`system|code`, may be empty) decides what mass a mole has,
/// and the few scales that are not proportional.
///
/// # Errors
/// [`UnitError`] when either unit is unknown, both measure different things, or the result is not finite.
pub fn convert(value: f64, from: &str, to: &str, code: &str) -> Result<f64, UnitError> {
    if from == to && value.is_finite() { Ok(value) } else { convert_known(value, from, to, known(code)) }
}

fn convert_known(value: f64, from: &str, to: &str, known: Option<Known>) -> Result<f64, UnitError> {
    if !value.is_finite() {
        return Err(UnitError::NotFinite);
    }
    if from == to {
        return Ok(value);
    }
    let (from, to) = (Unit::parse(from).ok_or(UnitError::Unknown)?, Unit::parse(to).ok_or(UnitError::Unknown)?);
    let result = match known {
        Some(known) if known.is_hba1c() => hba1c(value, from, to)?,
        _ => from.convert(value, to, known.and_then(|k| k.molar_mass), known.is_some_and(|k| k.monovalent)).ok_or(UnitError::Dimension)?,
    };
    if result.is_finite() { Ok(result) } else { Err(UnitError::NotFinite) }
}

/// HbA1c is a per cent by NGSP and a millimole per mole by IFCC: two scales joined by the master equation
/// NGSP = 0.09148 · IFCC + 2.152 (Hoelzel et al., Clin Chem 2004), though both are dimensionless.
fn hba1c(value: f64, from: Unit, to: Unit) -> Result<f64, UnitError> {
    let ngsp = |unit: Unit| unit.same_scale("%");
    let ifcc = |unit: Unit| unit.same_scale("mmol/mol");
    match () {
        () if ngsp(from) && ngsp(to) || ifcc(from) && ifcc(to) => Ok(value),
        () if ifcc(from) && ngsp(to) => Ok(0.09148 * value + 2.152),
        () if ngsp(from) && ifcc(to) => Ok((value - 2.152) / 0.09148),
        () => Err(UnitError::Dimension),
    }
}

/// Whether a text is a unit and no more than that: an annotation (`{…}`) may hold any words.
pub(crate) fn is_plain_unit(text: &str) -> bool {
    !text.contains('{') && Unit::parse(text).is_some()
}

/// The number and unit that an event keeps: for a code of the table in its canonical unit, for any other as it came.
pub(crate) fn settle<'a>(code: Token<'_>, value: f64, unit: &'a str) -> Result<(f64, &'a str), UnitError> {
    if !value.is_finite() {
        return Err(UnitError::NotFinite);
    }
    let unit = unit.trim();
    let known = if code.system == Some("http://loinc.org") { known_loinc(code.code) } else { None };
    let Some(known) = known else { return Ok((value, unit)) };
    if unit.is_empty() && !known.unit.starts_with('{') {
        return Err(UnitError::Missing);
    }
    let from = if unit.is_empty() { known.unit } else { unit };
    let value = convert_known(value, from, known.unit, Some(known))?;
    match limits(known.loinc) {
        Some((low, high)) if !(low..=high).contains(&value) => Err(UnitError::Implausible),
        _ => Ok((value, known.unit)),
    }
}

/// Why a number of `code` can't be had, in words.
pub(crate) fn refusal(code: Token<'_>, error: UnitError, unit: &str) -> String {
    // The unit is shown only if it is one: a field that holds something else may hold a name.
    let shown = if is_plain_unit(unit) { format!(" (`{unit}`)") } else { String::new() };
    let expected = canonical_unit(&code.to_string()).unwrap_or_default();
    match error {
        UnitError::Implausible => format!("{code}: {error}"),
        UnitError::NotFinite => error.to_string(),
        _ => format!("{code}: {error}{shown}; expected one like {expected}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: f64, from: &str, to: &str, code: &str, expect: Result<f64, UnitError>) {
        match (convert(value, from, to, code), expect) {
            (Ok(got), Ok(expect)) => {
                assert!((got - expect).abs() <= 1e-9 * expect.abs().max(1.0), "{value} {from} → {to}: {got}, not {expect}");
            }
            (got, expect) => assert_eq!(got, expect, "{value} {from} → {to}"),
        }
    }

    #[test]
    fn proportional_units() {
        check(13.5, "g/dL", "g/L", "", Ok(135.0));
        check(135.0, "g/L", "mg/dL", "", Ok(13_500.0));
        check(5.0, "10*3/uL", "10*9/L", "", Ok(5.0));
        check(5.0, "10^3/uL", "10*9/L", "", Ok(5.0));
        check(5000.0, "/uL", "10*3/uL", "", Ok(5.0));
        check(4.2, "10*6/uL", "10*12/L", "", Ok(4.2));
        check(250.0, "pg/mL", "ng/L", "", Ok(250.0));
        check(0.5, "mg/dL", "mg/L", "", Ok(5.0));
        check(3.0, "ng/mL", "ug/L", "", Ok(3.0));
        check(70.0, "kg", "g", "", Ok(70_000.0));
        check(100.0, "[lb_av]", "kg", "", Ok(45.359_237));
        check(70.0, "[in_i]", "cm", "", Ok(177.8));
        check(1.8, "m", "cm", "", Ok(180.0));
        check(16.0, "kPa", "mm[Hg]", "", Ok(16_000.0 / 133.322));
        check(60.0, "/min", "Hz", "", Ok(1.0));
        check(0.97, "1", "%", "", Ok(97.0));
        check(2.0, "mU/L", "u[IU]/mL", "", Ok(2.0));
        check(60.0, "mL/min/{1.73_m2}", "mL/min", "", Ok(60.0));
        check(1.0, "ukat/L", "U/L", "", Ok(60.0));
        check(24.5, "kg/m2", "kg.m-2", "", Ok(24.5));
        check(60.0, "mL/min/1.73 m2", "mL/min/{1.73_m2}", "", Ok(60.0));
    }

    #[test]
    fn what_is_a_unit_and_says_no_more() {
        for (text, is) in [("mg/dL", true), ("furlong", false), ("mg{Jane Doe}", false), ("", false), ("%", true)] {
            assert_eq!(is_plain_unit(text), is, "{text}");
        }
    }

    #[test]
    fn temperatures_have_an_offset() {
        check(98.6, "[degF]", "Cel", "", Ok(37.0));
        check(37.0, "Cel", "[degF]", "", Ok(98.6));
        check(37.0, "Cel", "K", "", Ok(310.15));
        check(37.0, "Cel/m", "K", "", Err(UnitError::Unknown));
    }

    /// Factors as laboratories publish them, within their rounding.
    #[test]
    fn amounts_and_masses_by_code() {
        for (loinc, mmol_per_l, mg_per_dl) in [
            ("2345-7", 5.55, 100.0), // glucose, 18.016
            ("2093-3", 5.17, 200.0), // cholesterol, 38.67
            ("2571-8", 1.69, 150.0), // triglycerides, 88.57
            ("3094-0", 7.14, 20.0),  // urea nitrogen, 2.801
            ("17861-6", 2.5, 10.02), // calcium, 4.008
        ] {
            let code = format!("http://loinc.org|{loinc}");
            let got = convert(mmol_per_l, "mmol/L", "mg/dL", &code).unwrap();
            assert!((got / mg_per_dl - 1.0).abs() < 5e-3, "{loinc}: {got}");
        }
        // Creatinine: 1 mg/dL = 88.4 µmol/L.
        let got = convert(88.4, "umol/L", "mg/dL", "http://loinc.org|2160-0").unwrap();
        assert!((got - 1.0).abs() < 1e-3, "{got}");
        check(140.0, "meq/L", "mmol/L", "http://loinc.org|2951-2", Ok(140.0));
        check(5.0, "meq/L", "mmol/L", "http://loinc.org|17861-6", Err(UnitError::Dimension));
        check(5.5, "mmol/L", "mg/dL", "http://loinc.org|1988-5", Err(UnitError::Dimension));
        check(5.5, "mmol/L", "mg/dL", "", Err(UnitError::Dimension));
    }

    #[test]
    fn hba1c_is_not_proportional() {
        // 48 mmol/mol is 6.5 %, 53 is 7.0 %.
        for (ifcc, ngsp) in [(48.0, 6.5), (53.0, 7.0), (42.0, 6.0)] {
            let got = convert(ifcc, "mmol/mol", "%", "http://loinc.org|4548-4").unwrap();
            assert!((got - ngsp).abs() < 0.06, "{got}");
        }
        check(6.5, "%", "%", "http://loinc.org|4548-4", Ok(6.5));
        check(6.5, "g/L", "%", "http://loinc.org|4548-4", Err(UnitError::Dimension));
    }

    #[test]
    fn what_is_not_a_unit() {
        for bad in [
            "furlong",
            "",
            "mg//",
            "/",
            "mg/dL)",
            "(mg",
            "10*x",
            "kk",
            "m99999999",
            "ñ",
            "mg dL",
            "{open",
            "2..",
            "mL/min/1.73",
            "m2.5",
            "10*3.5/uL",
        ] {
            check(1.0, bad, "mg/dL", "", Err(UnitError::Unknown));
        }
        check(1.0, "mg/dL", "cm", "", Err(UnitError::Dimension));
        check(f64::NAN, "mg", "mg", "", Err(UnitError::NotFinite));
        check(1e300, "Gg", "[ppb].yg", "", Err(UnitError::Unknown));
    }

    #[test]
    fn a_known_code_needs_its_unit_and_others_keep_theirs() {
        let loinc = |code: &'static str| Token::new("http://loinc.org", code);
        assert_eq!(settle(loinc("2039-6"), 3.0, "ug/L"), Ok((3.0, "ng/mL")));
        assert_eq!(settle(loinc("2039-6"), 3.0, ""), Err(UnitError::Missing));
        assert_eq!(settle(loinc("2039-6"), 3.0, "furlong"), Err(UnitError::Unknown));
        assert_eq!(settle(loinc("1988-5"), 3.0, "mmol/L"), Err(UnitError::Dimension));
        assert_eq!(settle(loinc("72514-3"), 3.0, ""), Ok((3.0, "{score}")));
        assert_eq!(settle(Token::new("local", "x"), 3.0, "furlong"), Ok((3.0, "furlong")));
        assert_eq!(settle(Token::new("local", "x"), f64::INFINITY, "mg"), Err(UnitError::NotFinite));
    }

    #[test]
    fn what_no_body_has_is_refused_after_conversion() {
        let temperature = |value, unit| settle(Token::new("http://loinc.org", "8310-5"), value, unit);
        assert_eq!(temperature(98.6, "Cel"), Err(UnitError::Implausible));
        assert!(temperature(98.6, "[degF]").is_ok_and(|(value, _)| (value - 37.0).abs() < 1e-9));
        assert_eq!(settle(Token::new("http://loinc.org", "59408-5"), 970.0, "%"), Err(UnitError::Implausible));
        assert_eq!(settle(Token::new("http://loinc.org", "33914-3"), 4000.0, "mL/min/{1.73_m2}"), Err(UnitError::Implausible));
        assert_eq!(settle(Token::new("http://loinc.org", "2345-7"), 5.5, "mmol/L").map(|(_, unit)| unit), Ok("mg/dL"));
    }

    #[test]
    fn every_canonical_unit_is_one() {
        for known in known::TABLE {
            assert!(Unit::parse(known.unit).is_some(), "{}: {}", known.loinc, known.unit);
            let value = limits(known.loinc).map_or(7.0, |(low, high)| f64::midpoint(low, high));
            assert_eq!(settle(Token::new("http://loinc.org", known.loinc), value, known.unit), Ok((value, known.unit)));
        }
        assert!(known::limits_are_sound());
        assert!(known::TABLE.is_sorted_by(|a, b| a.loinc < b.loinc), "the table is searched by halves");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_unit_or_none(text in "[a-zA-Z0-9/.*^{}()\\[\\]%-]{0,24}") {
            let _ = Unit::parse(&text);
        }

        #[test]
        fn there_and_back(value in -1e6f64..1e6, pair in proptest::sample::select(vec![("g/L", "mg/dL"), ("Cel", "[degF]"), ("kPa", "mm[Hg]"), ("[lb_av]", "kg")])) {
            let back = convert(convert(value, pair.0, pair.1, "").unwrap(), pair.1, pair.0, "").unwrap();
            proptest::prop_assert!((back - value).abs() < 1e-6);
        }
    }
}
