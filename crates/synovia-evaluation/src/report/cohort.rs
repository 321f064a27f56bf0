//! What the report says of the cohort: from files to examples, and what was left behind.

use synovia_cohort::Refused;

use super::html::{escape, heads, number, percent, table};
use super::{Flow, Report, SplitSummary};

/// Reasons shown before the rest share a line.
const MOST_REASONS: usize = 40;

pub(super) fn section(report: &Report) -> String {
    let mut out = super::consort::section(&report.participants, &report.sides);
    if let Some(flow) = &report.flow {
        out.push_str(&steps(flow));
    }
    out.push_str(&splits(&report.splits));
    if let Some(flow) = report.flow.as_ref().filter(|flow| !flow.failed_links.is_empty()) {
        out.push_str(&counts("Links between image and record that failed", "Why", &flow.failed_links));
    }
    if let Some(refused) = report.refused {
        out.push_str(&refusals(refused));
    }
    if let Some(rejected) = &report.rejected {
        let all: Vec<(String, u64)> = rejected.iter().map(|(reason, &n)| (reason.clone(), n)).collect();
        if all.is_empty() {
            out.push_str("<p>Ingest took everything: nothing was rejected.</p>");
        } else {
            out.push_str(&counts("What ingest did not take", "Reason", &all));
        }
    }
    out
}

fn steps(flow: &Flow) -> String {
    let items: String = flow
        .steps
        .iter()
        .map(|step| {
            let note = step.note.as_ref().map(|note| format!("<small>{}</small>", escape(note))).unwrap_or_default();
            format!("<li><b>{}</b><span>{}{note}</span></li>", number(step.count), escape(&step.name))
        })
        .collect();
    if items.is_empty() { String::new() } else { format!("<h3>From files to examples</h3><ol class=\"flow\">{items}</ol>") }
}

fn splits(splits: &[SplitSummary]) -> String {
    if splits.is_empty() {
        return String::new();
    }
    let rows: String = splits
        .iter()
        .map(|s| {
            let n = |part: usize| format!("<td class=\"n\">{}<small>{}</small></td>", number(part as u64), percent(part, s.n_examples));
            format!(
                "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td>{}{}{}</tr>",
                s.split.as_str(),
                number(s.n_patients as u64),
                number(s.n_examples as u64),
                n(s.n_image),
                n(s.n_record),
                n(s.n_both)
            )
        })
        .collect();
    let mut out = table(
        "Splits: a patient is in one of them",
        &heads(&["Split", "#Patients", "#Examples", "#With image", "#With record", "#With both"]),
        &rows,
    );
    let rows: String = splits
        .iter()
        .flat_map(|s| s.labels.iter().map(move |labels| (s, labels)))
        .map(|(s, labels)| {
            let n: usize = labels.classes.iter().map(|c| c.n).sum();
            let classes: Vec<String> =
                labels.classes.iter().map(|c| format!("{} {} ({})", number(c.n as u64), escape(&c.class), percent(c.n, n))).collect();
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"wide\">{}</td><td class=\"n\">{}</td></tr>",
                escape(&labels.task),
                s.split.as_str(),
                classes.join(", "),
                number(labels.n_unlabelled as u64)
            )
        })
        .collect();
    if !rows.is_empty() {
        out.push_str(&table("Labels by split", &heads(&["Task", "Split", "Known labels", "#Unknown"]), &rows));
    }
    out
}

fn refusals(refused: Refused) -> String {
    let all = [
        ("Events after the prediction time".to_owned(), refused.future_events),
        ("Images after the prediction time, or of unknown time".to_owned(), refused.future_images),
        ("Events before the history window".to_owned(), refused.old_events),
    ];
    counts("Kept out of the inputs by the prediction time", "What", &all)
}

/// A table of counts, the most frequent first.
fn counts(caption: &str, what: &str, all: &[(String, u64)]) -> String {
    let mut all: Vec<&(String, u64)> = all.iter().collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let row = |name: &str, n: u64| format!("<tr><td class=\"wide\">{}</td><td class=\"n\">{}</td></tr>", escape(name), number(n));
    let mut rows: String = all.iter().take(MOST_REASONS).map(|(name, n)| row(name, *n)).collect();
    if all.len() > MOST_REASONS {
        let rest: u64 = all[MOST_REASONS..].iter().map(|(_, n)| n).sum();
        rows.push_str(&row(&format!("{} other reasons", all.len() - MOST_REASONS), rest));
    }
    let total: u64 = all.iter().map(|(_, n)| n).sum();
    rows.push_str(&row("Together", total).replacen("<tr>", "<tr class=\"strong\">", 1));
    table(caption, &heads(&[what, "#Count"]), &rows)
}
