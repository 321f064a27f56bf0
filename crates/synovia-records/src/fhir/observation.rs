//! Observations: the value in each of its types, units settled, panels by their components.

use synovia_cohort::EventKind;

use super::convert::{At, end_of, first};
use super::element::{CodeableConcept, Decimal, Quantity, SampledData, text};
use super::resource::{Component, Observation};
use crate::spill::{Said, Token, Value};
use crate::units;

const NOT_FINITE: &str = "not a finite number";

/// Why a value can't be taken: the element, and the reason.
type Refusal = (&'static str, String);

/// What an Observation or a component of it found.
fn value<'c>(of: &'c Component<'_>, code: Token<'_>) -> Result<Value<'c>, Refusal> {
    if let Some(quantity) = &of.quantity {
        return number(quantity, code, "valueQuantity.value", "valueQuantity.code");
    }
    if let Some(integer) = of.integer {
        let Decimal::Finite(value) = integer else { return Err(("valueInteger", NOT_FINITE.to_owned())) };
        return settled(value, "", code, "valueInteger");
    }
    if let Some(concept) = &of.concept {
        return match (concept.token(), text(concept.text.as_ref())) {
            (Some((code, _)), _) => Ok(Value::Code(code)),
            (None, "") => Err(("valueCodeableConcept", "no coding with a code".to_owned())),
            (None, text) => Ok(Value::Text(text)),
        };
    }
    if let Some(answer) = of.boolean {
        return Ok(Value::Code(Token::new("", if answer { "true" } else { "false" })));
    }
    if let Some(range) = &of.range {
        // The middle of a range; of one that is open, the end that there is.
        let end = |quantity: &'c Quantity<'_>| number(quantity, code, "valueRange", "valueRange");
        return match (range.low.as_ref().map(end).transpose()?, range.high.as_ref().map(end).transpose()?) {
            (Some(Value::Number { value: low, unit }), Some(Value::Number { value: high, unit: other })) if unit == other => {
                Ok(Value::Number { value: f64::midpoint(low, high), unit })
            }
            (Some(one), None) | (None, Some(one)) => Ok(one),
            (None, None) => Err(("valueRange", "no number".to_owned())),
            _ => Err(("valueRange", "its ends have different units".to_owned())),
        };
    }
    if let Some(ratio) = &of.ratio {
        return quotient(ratio.numerator.as_ref(), ratio.denominator.as_ref(), code);
    }
    if let Some(sampled) = &of.sampled {
        return mean_of(sampled, code);
    }
    let words = [of.string.as_ref(), of.date_time.as_ref(), of.time.as_ref()].into_iter().map(text).find(|words| !words.is_empty());
    Ok(match words.unwrap_or_else(|| end_of(of.period.as_ref())) {
        "" => Value::None,
        words => Value::Text(words),
    })
}

/// The UCUM code wins over the unit's human-readable text. A comparator (`<`, `>`) is not kept: the limit stands for what
/// could not be measured beyond it.
fn number<'q>(
    quantity: &'q Quantity<'_>,
    code: Token<'_>,
    value_path: &'static str,
    unit_path: &'static str,
) -> Result<Value<'q>, Refusal> {
    let value = match quantity.value {
        Some(Decimal::Finite(value)) => value,
        Some(Decimal::NotANumber) => return Err((value_path, NOT_FINITE.to_owned())),
        None => return Err((value_path, "no number".to_owned())),
    };
    settled(value, unit_of(quantity), code, unit_path)
}

/// The number in its code's unit, or why it can't be had.
fn settled<'q>(value: f64, unit: &'q str, code: Token<'_>, path: &'static str) -> Result<Value<'q>, Refusal> {
    units::settle(code, value, unit)
        .map(|(value, unit)| Value::Number { value, unit })
        .map_err(|error| (path, units::refusal(code, error, unit)))
}

fn unit_of<'q>(quantity: &'q Quantity<'_>) -> &'q str {
    [quantity.code.as_ref(), quantity.unit.as_ref()].into_iter().map(text).find(|u| !u.is_empty()).unwrap_or_default()
}

/// A ratio (a titre, a concentration in parts) as one number. Its units must be none, or the same.
fn quotient(numerator: Option<&Quantity<'_>>, denominator: Option<&Quantity<'_>>, code: Token<'_>) -> Result<Value<'static>, Refusal> {
    let (Some(numerator), Some(denominator)) = (numerator, denominator) else {
        return Err(("valueRatio", "no number".to_owned()));
    };
    let (Some(Decimal::Finite(above)), Some(Decimal::Finite(below))) = (numerator.value, denominator.value) else {
        return Err(("valueRatio", NOT_FINITE.to_owned()));
    };
    if unit_of(numerator) != unit_of(denominator) {
        return Err(("valueRatio", "of two units: not read".to_owned()));
    }
    settled(above / below, "1", code, "valueRatio")
}

/// The mean of a series of one dimension, in its origin's unit. What was beyond the device's limits (`L`, `U`) or could not be measured (`E`)
/// does not count.
fn mean_of<'q>(sampled: &'q SampledData<'_>, code: Token<'_>) -> Result<Value<'q>, Refusal> {
    let finite = |number: Option<Decimal>, path| match number {
        Some(Decimal::Finite(value)) => Ok(Some(value)),
        Some(Decimal::NotANumber) => Err((path, NOT_FINITE.to_owned())),
        None => Ok(None),
    };
    let Some(origin) = &sampled.origin else { return Err(("valueSampledData.origin", "no number".to_owned())) };
    let zero = finite(origin.value, "valueSampledData.origin")?.ok_or(("valueSampledData.origin", "no number".to_owned()))?;
    let factor = finite(sampled.factor, "valueSampledData.factor")?.unwrap_or(1.0);
    if finite(sampled.dimensions, "valueSampledData.dimensions")?.is_some_and(|n| n != 1.0) {
        return Err(("valueSampledData.dimensions", "of several dimensions: not read".to_owned()));
    }
    let (mut sum, mut n) = (0.0, 0u32);
    for sample in text(sampled.data.as_ref()).split_ascii_whitespace().filter(|sample| !matches!(*sample, "E" | "L" | "U")) {
        let number = sample.parse::<f64>().ok().filter(|number| number.is_finite());
        sum += number.ok_or(("valueSampledData.data", "a sample that is no number".to_owned()))?;
        n += 1;
    }
    if n == 0 {
        return Err(("valueSampledData.data", "no sample".to_owned()));
    }
    settled(sum / f64::from(n) * factor + zero, unit_of(origin), code, "valueSampledData.origin")
}

/// An event a component, and one of the whole where it has a value of its own or no components.
pub(crate) fn observation(o: &mut Observation<'_>, at: &mut At<'_>) {
    if !at.status(o.status.as_ref(), "status", &["registered", "cancelled", "entered-in-error", "unknown"]) {
        return;
    }
    let Some(key) = at.subject(o.subject.as_ref()) else { return };
    let happened = first(&[
        (text(o.effective.as_ref()), "effectiveDateTime"),
        (text(o.effective_instant.as_ref()), "effectiveInstant"),
        (end_of(o.effective_period.as_ref()), "effectivePeriod"),
        (text(o.effective_timing.as_ref().and_then(|timing| timing.event.iter().flatten().next_back())), "effectiveTiming"),
    ]);
    let Some((time, _)) = at.known(happened, (text(o.issued.as_ref()), "issued")) else { return };
    let take = |of: &Component<'_>, k: Option<usize>, at: &mut At<'_>| {
        let path = |element: &str| k.map_or_else(|| element.to_owned(), |k| format!("component[{k}].{element}"));
        let Some((code, display)) = of.code.as_ref().and_then(CodeableConcept::token) else {
            return at.trouble(&path("code"), "no coding with a code");
        };
        match value(of, code) {
            Ok(Value::None) if of.absent.is_some() => {
                at.trouble(&path("dataAbsentReason"), "no value: the source says that it is absent");
            }
            // A panel is its components.
            Ok(Value::None) if k.is_none() && !o.component.is_empty() => {}
            Ok(value) => at.event(key, &Said { time, kind: EventKind::Observation, code, display, value }),
            Err((element, reason)) => at.trouble(&path(element), reason),
        }
    };
    for (k, component) in o.component.iter().enumerate() {
        take(component, Some(k), at);
    }
    let own = Component {
        code: o.code.take(),
        quantity: o.quantity.take(),
        concept: o.concept.take(),
        string: o.string.take(),
        integer: o.integer,
        boolean: o.boolean,
        range: o.range.take(),
        ratio: o.ratio.take(),
        sampled: o.sampled.take(),
        time: o.time.take(),
        date_time: o.date_time.take(),
        period: o.period.take(),
        absent: o.absent.take(),
    };
    take(&own, None, at);
}
