//! What is estimated rather than told apart: numbers, times to events, outcomes under treatments.

use std::collections::BTreeMap;

use synovia_cohort::EndpointKind;

use super::Report;
use super::html::{escape, estimate_cell, heads, marks, notes, number, percent, table};
use super::task::card_of;
use crate::{EndpointMeasure, EndpointMetrics, Estimate, Variant};

/// Cards of the summary, an endpoint each.
pub(super) fn cards(report: &Report) -> String {
    let card = |(k, (name, measured)): (usize, (&String, &EndpointMetrics))| {
        let first = EndpointMeasure::of(measured.kind)[0];
        let value = |variant: &Variant| measured.variants.get(variant)?.get(&first)?.value;
        let said: Vec<&str> = measured.gain.iter().map(|gain| gain.sentence.as_str()).collect();
        card_of(&format!("endpoint-{k}"), name, measured.gain.as_ref().map(|gain| gain.verdict), &value, first.describe(), &said)
    };
    report.metrics.endpoints.iter().enumerate().map(card).collect()
}

/// The section of one endpoint.
pub(super) fn section(report: &Report, name: &str, measured: &EndpointMetrics) -> String {
    let second = measured.n_second.map(|n| {
        let what = if measured.kind == EndpointKind::Survival { "with the event" } else { "given the second treatment" };
        format!(", {} {what} ({})", number(n as u64), percent(n, measured.n))
    });
    let unknown = match measured.n_unknown {
        0 => String::new(),
        n => format!(" Of {} more it is not known.", number(n as u64)),
    };
    let intro = format!(
        "<p>{}: {} test examples of {} patients{}.{unknown} Intervals at {:.0} % are of a bootstrap of patients.</p>",
        match measured.kind {
            EndpointKind::Regression => "A number",
            EndpointKind::Survival => "The time to an event",
            EndpointKind::Treatment { lower_is_better: false, .. } => "The outcome under two treatments, the higher the better",
            EndpointKind::Treatment { lower_is_better: true, .. } => "The outcome under two treatments, the lower the better",
        },
        number(measured.n as u64),
        number(measured.n_patients as u64),
        second.unwrap_or_default(),
        report.metrics.options.level * 100.0
    );
    let known = |measure: &&EndpointMeasure| measured.variants.values().any(|of| of.contains_key(measure));
    let measures: Vec<&EndpointMeasure> = EndpointMeasure::of(measured.kind).iter().filter(known).collect();
    let row = |name: &str, more: &str, cells: String| {
        let more = if more.is_empty() { String::new() } else { format!("<small>{}</small>", escape(more)) };
        format!("<tr><th scope=\"row\">{}{more}</th>{cells}</tr>", escape(name))
    };
    // The longer list goes down the page, which a phone can scroll.
    let (names, rows): (Vec<String>, String) = if measures.len() > measured.variants.len() {
        let names = std::iter::once("Measure".to_owned()).chain(measured.variants.keys().map(|variant| format!("#{variant}")));
        let of_measure = |measure: &&EndpointMeasure| {
            row(measure.describe(), "", measured.variants.values().map(|of| estimate_cell(of.get(measure))).collect())
        };
        (names.collect(), measures.iter().map(of_measure).collect())
    } else {
        let names = std::iter::once("Model".to_owned()).chain(measures.iter().map(|measure| format!("#{}", measure.describe())));
        let of_variant = |(variant, of): (&Variant, &BTreeMap<EndpointMeasure, Estimate>)| {
            row(variant.as_str(), variant.describe(), measures.iter().map(|measure| estimate_cell(of.get(measure))).collect())
        };
        (names.collect(), measured.variants.iter().map(of_variant).collect())
    };
    let gain = measured.gain.as_ref().map(|gain| format!("<p>{}</p>", escape(&gain.sentence))).unwrap_or_default();
    let heads = heads(&names.iter().map(String::as_str).collect::<Vec<_>>());
    intro
        + &gain
        + &table(&format!("{name}, by model"), &heads, &rows)
        + &marks(measured.variants.values().flat_map(|of| of.values()))
        + &notes(&measured.notes)
}
