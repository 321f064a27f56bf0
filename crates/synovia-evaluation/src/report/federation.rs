//! The report of a federation: what each hospital gains by joining, and what it cost.

use super::chart::{Line, Plot, whisker};
use super::html::{escape, heads, number, table};
use super::{Section, page};
use crate::gain::signed;

/// Two models on the same test examples.
#[derive(Clone, Debug)]
pub struct SiteGain {
    /// Whose test examples: a site's, or all sites'.
    pub site: String,
    /// The task.
    pub task: String,
    /// Labelled test examples.
    pub n: usize,
    /// AUROC of the model that it is held against: of the site alone, or of all data in one place.
    pub alone: Option<f64>,
    /// AUROC of the model that all made.
    pub together: Option<f64>,
    /// Difference, and the ends of its 95 % interval.
    pub gain: Option<(f64, f64, f64)>,
}

/// What a site gave.
#[derive(Clone, Debug)]
pub struct Contribution {
    /// The site.
    pub site: String,
    /// Training examples.
    pub n_train: u64,
    /// Whether it has images, and records.
    pub has: (bool, bool),
    /// Rounds in which its update counted.
    pub rounds: usize,
    /// Its share of all examples that were trained on.
    pub share: f64,
    /// Distance that it moved from the shared weights, in units of the median of the sites: mean and largest over the rounds.
    pub norm: (f64, f64),
    /// Bytes that it sent.
    pub bytes: u64,
    /// ε that it spent, where training is private.
    pub epsilon: Option<f64>,
}

/// A federation, as far as its report tells of it.
#[derive(Clone, Debug)]
pub struct FederationReport {
    /// The pipeline's name.
    pub name: String,
    /// How the cohort was divided.
    pub partition: String,
    /// How weights were put together.
    pub method: String,
    /// The round whose weights are kept, from 1.
    pub best_round: usize,
    /// Digits of those weights.
    pub hash: String,
    /// Bytes to and from all sites.
    pub bytes: u64,
    /// After each round, over the validation examples of all sites.
    pub validation_losses: Vec<f64>,
    /// Each site by itself against what all made.
    pub sites: Vec<SiteGain>,
    /// The same over the test examples of all sites, within sites.
    pub pooled: Vec<SiteGain>,
    /// What all made against a model of all data in one place, where that was trained.
    pub central: Vec<SiteGain>,
    /// What each site gave.
    pub contributions: Vec<Contribution>,
    /// What was left out, and why: a line each.
    pub refused: Vec<String>,
}

/// The report as one HTML file that loads nothing.
pub fn federation_html(report: &FederationReport) -> String {
    let mut sections = Vec::new();
    let mut add = |id: &str, name: &str, body: String| sections.push(Section { id: id.to_owned(), name: name.to_owned(), body });
    add("sites", "Each site", gains(&report.sites, "alone", "Test AUROC of each site's own model and of what all made"));
    add(
        "central",
        "Against one place",
        gains(&report.central, "one place", "Test AUROC of a model of all data in one place and of what all made"),
    );
    add("rounds", "Rounds", rounds(report));
    add("contributions", "What each site gave", contributions(report));
    let lead = format!(
        "{} sites ({}), {} of {} rounds; {} MiB went to and from them.",
        report.contributions.len(),
        escape(&report.partition),
        escape(&report.method),
        report.validation_losses.len(),
        number(report.bytes >> 20)
    );
    let cards: String = report.pooled.iter().map(card).collect();
    page("Federation report", &report.name, &lead, &format!("<div class=\"cards\">{cards}</div>"), sections)
}

/// The verdict on one task, over the test patients of all sites.
fn card(gain: &SiteGain) -> String {
    let (class, verdict) = match gain.gain {
        Some((_, low, _)) if low > 0.0 => ("better", "joining is better"),
        Some((_, _, high)) if high < 0.0 => ("worse", "joining is worse"),
        _ => ("", "no evidence of gain"),
    };
    let value = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
    let sentence = gain.gain.map_or_else(String::new, |(gain, low, high)| {
        format!("<p>AUROC differs by {} (95 % interval {} to {}).</p>", signed(gain), signed(low), signed(high))
    });
    format!(
        "<div class=\"card {class}\"><h2>{}</h2><p class=\"verdict\">{verdict}</p><dl><div><dt>each site alone</dt><dd>{}</dd></div>\
         <div><dt>together</dt><dd>{}</dd></div></dl>{sentence}<p class=\"what\">{} test examples of all sites, each by its site's own \
         model and by what all made, compared within its site; patients drawn again.</p></div>",
        escape(&gain.task),
        value(gain.alone),
        value(gain.together),
        number(gain.n as u64)
    )
}

fn gains(gains: &[SiteGain], other: &str, caption: &str) -> String {
    if gains.is_empty() {
        return String::new();
    }
    let reach = gains.iter().filter_map(|gain| gain.gain).map(|(_, low, high)| low.abs().max(high.abs())).fold(0.05f64, f64::max);
    let cell =
        |value: Option<f64>| value.map_or_else(|| "<td class=\"n\">–</td>".to_owned(), |value| format!("<td class=\"n\">{value:.3}</td>"));
    let row = |gain: &SiteGain| {
        let (text, plot) = match gain.gain {
            Some((value, low, high)) => (
                format!("{}<small>{} to {}</small>", signed(value), signed(low), signed(high)),
                whisker("v-joint", value, Some((low, high)), (-reach, reach)),
            ),
            None => ("–".to_owned(), String::new()),
        };
        let (alone, together) = (cell(gain.alone), cell(gain.together));
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td>{alone}{together}<td class=\"n\">{text}</td><td>{plot}</td></tr>",
            escape(&gain.site),
            escape(&gain.task),
            number(gain.n as u64)
        )
    };
    let rows: String = gains.iter().map(row).collect();
    let other = format!("#{other}");
    let names = ["site", "task", "#test examples", other.as_str(), "#together", "#gain (95 %)", "drawn"];
    table(&format!("{caption}; whiskers from −{reach:.2} to +{reach:.2}"), &heads(&names), &rows)
}

fn rounds(report: &FederationReport) -> String {
    let points: Vec<(f64, f64)> =
        report.validation_losses.iter().enumerate().map(|(k, &loss)| ((k + 1) as f64, loss)).filter(|(_, loss)| loss.is_finite()).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let (low, high) = points.iter().fold((first.1, first.1), |(low, high), (_, loss)| (low.min(*loss), high.max(*loss)));
    let margin = 0.05 * (high - low).max(1e-6);
    let description = format!("Validation loss by round, from {:.3} to {:.3}.", first.1, last.1);
    let plot = Plot {
        id: "rounds-loss".to_owned(),
        title: "Validation loss over all sites".to_owned(),
        description,
        x_label: "round",
        y_label: "loss",
        x: (first.0, last.0),
        y: ((low - margin).max(0.0), high + margin),
        reference: None,
        marker: Some((report.best_round as f64, "kept".to_owned())),
        lines: vec![Line { class: "v-joint", label: "validation".to_owned(), dots: Vec::new(), points }],
        histograms: Vec::new(),
    };
    let refused: String = report.refused.iter().map(|line| format!("<li>{}</li>", escape(line))).collect();
    let refused = if refused.is_empty() { String::new() } else { format!("<h3>Left out</h3><ul class=\"notes\">{refused}</ul>") };
    format!(
        "<p>In units of the loss of an uninformed guess; the weights after round {} are kept (<span class=\"code\">{}</span>).</p>\
         <div class=\"figures\">{}</div>{refused}",
        report.best_round,
        escape(&report.hash.chars().take(16).collect::<String>()),
        plot.figure()
    )
}

fn contributions(report: &FederationReport) -> String {
    let is_private = report.contributions.iter().any(|site| site.epsilon.is_some());
    let row = |site: &Contribution| {
        let has = match site.has {
            (true, true) => "images and records",
            (true, false) => "images",
            (false, true) => "records",
            (false, false) => "nothing",
        };
        let epsilon = match site.epsilon {
            Some(epsilon) => format!("<td class=\"n\">{epsilon:.2}</td>"),
            None if is_private => "<td class=\"n\">–</td>".to_owned(),
            None => String::new(),
        };
        format!(
            "<tr><th scope=\"row\">{}</th><td>{has}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:.1} %</td>\
             <td class=\"n\">{:.2}<small>at most {:.2}</small></td><td class=\"n\">{:.1}</td>{epsilon}</tr>",
            escape(&site.site),
            number(site.n_train),
            site.rounds,
            100.0 * site.share,
            site.norm.0,
            site.norm.1,
            site.bytes as f64 / f64::from(1 << 20)
        )
    };
    let rows: String = report.contributions.iter().map(row).collect();
    let mut names = vec!["site", "has", "#training examples", "#rounds", "#share of examples", "#step, in medians", "#MiB sent"];
    if is_private {
        names.push("#ε spent");
    }
    table("What each site gave; a step far from the median of the sites is one to look at", &heads(&names), &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gain(site: &str, gain: Option<(f64, f64, f64)>) -> SiteGain {
        SiteGain { site: site.into(), task: "ill".into(), n: 1200, alone: Some(0.7), together: Some(0.75), gain }
    }

    fn report() -> FederationReport {
        let site = |name: &str, epsilon| Contribution {
            site: name.into(),
            n_train: 100,
            has: (true, false),
            rounds: 3,
            share: 0.25,
            norm: (1.0, 1.5),
            bytes: 3 << 20,
            epsilon,
        };
        FederationReport {
            name: "a <b>".into(),
            partition: "modality".into(),
            method: "fedavg".into(),
            best_round: 2,
            hash: "0123456789abcdef0123".into(),
            bytes: 5 << 30,
            validation_losses: vec![1.0, 0.8, 0.9],
            sites: vec![gain("north", Some((0.05, -0.01, 0.11))), gain("<south>", None)],
            pooled: vec![gain("all", Some((0.05, 0.02, 0.08)))],
            central: Vec::new(),
            contributions: vec![site("north", None), site("south", None)],
            refused: vec!["round 2: site `south` sent NaN".into()],
        }
    }

    #[test]
    fn says_what_was_gained_and_what_it_cost() {
        let html = federation_html(&report());
        for expected in
            ["joining is better", "+0.050", "\u{2212}0.010 to +0.110", "5\u{202f}120 MiB", "0123456789abcdef<", "sent NaN", "&lt;south&gt;"]
        {
            assert!(html.contains(expected), "{expected}");
        }
        assert!(!html.contains("<south>") && !html.contains("a <b>") && !html.contains("ε spent") && !html.contains("id=\"central\""));
        let uncertain = FederationReport { pooled: vec![gain("all", Some((0.05, -0.02, 0.08)))], ..report() };
        assert!(federation_html(&uncertain).contains("no evidence of gain"));
        let mut private = report();
        private.contributions[0].epsilon = Some(2.5);
        assert!(federation_html(&private).contains("ε spent"));
    }
}
