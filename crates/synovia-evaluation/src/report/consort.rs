//! The flow of participants as a diagram (CONSORT 2010, item 13a; TRIPOD+AI, item 20a), with a table beside it.

use std::fmt::Write;

use synovia_cohort::FlowCounts;

use super::html::{escape, heads, number, table};

/// Width of the diagram, in its own units: a narrow screen shows it at nine tenths.
const WIDTH: f64 = 360.0;
/// Width of the boxes on the left and of those on the right, which begin at [`ASIDE`].
const MAIN: f64 = 196.0;
const ASIDE: f64 = 214.0;
const LINE: f64 = 15.0;
const PAD: f64 = 8.0;
/// Space between boxes.
const GAP: f64 = 14.0;
/// Width of a letter: wide enough for most of them.
const LETTER: f64 = 6.4;

/// A text in lines of so many letters at most; a word that is longer is cut.
fn wrapped(text: &str, width: f64) -> Vec<String> {
    let most = (((width - 2.0 * PAD) / LETTER) as usize).max(1);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for (n, piece) in letters.chunks(most).enumerate() {
            match lines.last_mut() {
                Some(line) if n == 0 && line.chars().count() + 1 + piece.len() <= most => {
                    line.push(' ');
                    line.extend(piece);
                }
                _ => lines.push(piece.iter().collect()),
            }
        }
    }
    lines
}

/// `12 patients` and, where there are any to count, `34 examples`, a line each.
fn counted(patients: u64, examples: Option<u64>) -> Vec<String> {
    let mut lines = vec![format!("{} patient{}", number(patients), if patients == 1 { "" } else { "s" })];
    lines.extend(examples.map(|n| format!("{} example{}", number(n), if n == 1 { "" } else { "s" })));
    lines
}

/// A box with a name and counts in it.
struct Cell {
    x: f64,
    width: f64,
    name: Vec<String>,
    counts: Vec<String>,
    class: &'static str,
}

impl Cell {
    fn new(x: f64, width: f64, name: &str, (patients, examples): (u64, Option<u64>), class: &'static str) -> Self {
        Self { x, width, name: wrapped(name, width), counts: counted(patients, examples), class }
    }

    fn height(&self) -> f64 {
        2.0 * PAD + LINE * (self.name.len() + self.counts.len()) as f64
    }

    fn draw(&self, y: f64, svg: &mut String) {
        let (x, width, height, class) = (self.x, self.width, self.height(), self.class);
        let _ = write!(svg, "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"4\"/>");
        let lines = self.name.iter().map(|line| ("", line)).chain(self.counts.iter().map(|line| (" class=\"count\"", line)));
        for (k, (class, line)) in lines.enumerate() {
            let baseline = y + PAD + LINE * k as f64 + 11.0;
            let _ = write!(svg, "<text x=\"{:.1}\" y=\"{baseline:.1}\"{class}>{}</text>", x + PAD, escape(line));
        }
    }
}

fn arrow(svg: &mut String, d: &str) {
    let _ = write!(svg, "<path d=\"{d}\" marker-end=\"url(#consort-a)\"/>");
}

/// The diagram and its table; nothing without steps.
pub(super) fn section(flow: &[FlowCounts], sides: &[FlowCounts]) -> String {
    if flow.is_empty() {
        return String::new();
    }
    format!("<h3>Flow of participants</h3><div class=\"beside\">{}{}</div>", figure(flow, sides), counts(flow, sides))
}

fn figure(flow: &[FlowCounts], sides: &[FlowCounts]) -> String {
    let mut drawn = String::new();
    let middle = MAIN / 2.0 + 1.0;
    let mut y = 1.0;
    for (k, step) in flow.iter().enumerate() {
        if k > 0 {
            // From the box above to this one, and off to the right who is left out.
            let aside = step.left_out.as_ref().map(|left| {
                let reason = format!("left out: {}", left.reason);
                Cell::new(ASIDE, WIDTH - ASIDE - 1.0, &reason, (left.patients, left.examples), "aside")
            });
            let gap = aside.as_ref().map_or(2.0 * GAP, |aside| aside.height() + 2.0 * GAP);
            arrow(&mut drawn, &format!("M{middle:.1} {y:.1}V{:.1}", y + gap - 2.0));
            if let Some(aside) = aside {
                let across = y + GAP + aside.height() / 2.0;
                arrow(&mut drawn, &format!("M{middle:.1} {across:.1}H{:.1}", ASIDE - 2.0));
                aside.draw(y + GAP, &mut drawn);
            }
            y += gap;
        }
        let cell = Cell::new(1.0, MAIN, &step.name, (step.patients, step.examples), "main");
        cell.draw(y, &mut drawn);
        y += cell.height();
    }
    if !sides.is_empty() {
        let width = (WIDTH - 2.0 - GAP * (sides.len() - 1) as f64) / sides.len() as f64;
        let cells: Vec<Cell> = sides
            .iter()
            .enumerate()
            .map(|(k, side)| Cell::new(1.0 + k as f64 * (width + GAP), width, &side.name, (side.patients, side.examples), "side"))
            .collect();
        let fork = y + GAP;
        let _ = write!(drawn, "<path d=\"M{middle:.1} {y:.1}V{fork:.1}\"/>");
        for cell in &cells {
            let x = cell.x + width / 2.0;
            arrow(&mut drawn, &format!("M{middle:.1} {fork:.1}H{x:.1}V{:.1}", fork + GAP + 4.0));
            cell.draw(fork + GAP + 6.0, &mut drawn);
        }
        y = fork + GAP + 6.0 + cells.iter().map(Cell::height).fold(0.0, f64::max);
    }
    let (first, last) = (&flow[0], &flow[flow.len() - 1]);
    let described = format!(
        "From {} {} to {} in {} steps; the table beside it has every count.",
        number(first.patients),
        first.name,
        counted(last.patients, last.examples).join(" and "),
        flow.len()
    );
    format!(
        "<figure class=\"consort\"><figcaption>Who is in the cohort</figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-labelledby=\"consort-t consort-d\">\
         <title id=\"consort-t\">Flow of participants</title><desc id=\"consort-d\">{}</desc>\
         <defs><marker id=\"consort-a\" viewBox=\"0 0 8 8\" refX=\"6\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <path class=\"head\" d=\"M0 0L8 4L0 8Z\"/></marker></defs>{drawn}</svg></figure>",
        y + 1.0,
        escape(&described)
    )
}

fn counts(flow: &[FlowCounts], sides: &[FlowCounts]) -> String {
    let shown = |n: Option<u64>| n.map_or_else(|| "–".to_owned(), number);
    let row = |step: &FlowCounts, class: &str| {
        let left = step.left_out.as_ref();
        let reason = left.map(|left| format!("<small>left out: {}</small>", escape(&left.reason))).unwrap_or_default();
        format!(
            "<tr{class}><th scope=\"row\">{}{reason}</th><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            escape(&step.name),
            number(step.patients),
            shown(step.examples),
            shown(left.map(|left| left.patients)),
            shown(left.and_then(|left| left.examples)),
        )
    };
    let rows: String = flow.iter().map(|step| row(step, "")).chain(sides.iter().map(|side| row(side, " class=\"strong\""))).collect();
    table("At each step", &heads(&["Step", "#Patients", "#Examples", "#Patients left out", "#Examples left out"]), &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, width: f64, expected: &[&str]) {
        assert_eq!(wrapped(text, width), expected);
    }

    #[test]
    fn lines_keep_to_their_box() {
        // Twenty letters.
        let width = 20.5 * LETTER + 2.0 * PAD;
        check("adults", width, &["adults"]);
        check("not: known cancer before the image", width, &["not: known cancer", "before the image"]);
        check("condition http://snomed.info/sct|363358000", width, &["condition", "http://snomed.info/s", "ct|363358000"]);
        check("", width, &[]);
    }
}
