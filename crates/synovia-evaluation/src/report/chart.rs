//! Plots as SVG.

use std::fmt::Write;

use super::html::{escape, heads, table};

/// Width of a plot, in the units of its own coordinates (pixels at full size).
const WIDTH: f64 = 340.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;
/// Height of the area of a curve.
const AREA: f64 = 270.0;
/// Height of a row of the histogram under a reliability diagram.
const STRIP: f64 = 26.0;

/// A line of a plot.
pub(super) struct Line {
    /// Class of the style sheet, which sets colour and dashes.
    pub class: &'static str,
    /// What a pointer that rests on it reads.
    pub label: String,
    pub points: Vec<(f64, f64)>,
    /// Radius of a mark at each point; none where empty.
    pub dots: Vec<f64>,
}

/// Bars under a plot that say how many examples each part of it is of.
pub(super) struct Histogram {
    pub class: &'static str,
    pub label: String,
    /// Centre and count of each bin.
    pub bins: Vec<(f64, usize)>,
}

pub(super) struct Plot {
    /// Unique in the page.
    pub id: String,
    pub title: String,
    /// The plot in words, for who can't see it.
    pub description: String,
    pub x_label: &'static str,
    pub y_label: &'static str,
    pub x: (f64, f64),
    pub y: (f64, f64),
    /// Of no information: the diagonal, the prevalence.
    pub reference: Option<[(f64, f64); 2]>,
    /// A vertical line with its name.
    pub marker: Option<(f64, String)>,
    pub lines: Vec<Line>,
    pub histograms: Vec<Histogram>,
}

impl Plot {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let share = |v: f64, (low, high): (f64, f64)| if high > low { (v - low) / (high - low) } else { 0.5 };
        (LEFT + share(x, self.x) * (WIDTH - LEFT - RIGHT), TOP + (1.0 - share(y, self.y)) * AREA)
    }

    /// The plot in a figure with its title.
    pub(super) fn figure(&self) -> String {
        let strips = self.histograms.len() as f64 * STRIP;
        let height = TOP + AREA + BOTTOM + strips;
        let (id, title) = (&self.id, escape(&self.title));
        let mut svg = format!(
            "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{}</desc>",
            escape(&self.description)
        );
        self.axes(&mut svg, strips);
        if let Some(reference) = self.reference {
            let _ = write!(svg, "<path class=\"ref\" d=\"{}\"/>", self.path(&reference));
        }
        if let Some((x, name)) = &self.marker {
            let (x, _) = self.at((*x, self.y.0));
            let anchor = if x > WIDTH * 0.6 { ("end", x - 4.0) } else { ("start", x + 4.0) };
            let bottom = TOP + AREA;
            let _ = write!(
                svg,
                "<path class=\"ref\" d=\"M{x:.1} {TOP}V{bottom}\"/><text x=\"{:.1}\" y=\"{}\" text-anchor=\"{}\">{}</text>",
                anchor.1,
                TOP + 10.0,
                anchor.0,
                escape(name)
            );
        }
        // What lies outside of the axes goes on there unseen: leaving its points out would join their neighbours by a line.
        let _ = write!(
            svg,
            "<clipPath id=\"{id}-c\"><rect x=\"{LEFT}\" y=\"{}\" width=\"{}\" height=\"{}\"/></clipPath>",
            TOP - 2.0,
            WIDTH - LEFT - RIGHT,
            AREA + 4.0
        );
        for line in &self.lines {
            let label = escape(&line.label);
            let path = self.path(&line.points);
            let _ = write!(svg, "<g class=\"line {}\"><title>{label}</title><path clip-path=\"url(#{id}-c)\" d=\"{path}\"/>", line.class);
            for (&point, radius) in line.points.iter().zip(&line.dots) {
                let (x, y) = self.at(point);
                let _ = write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/>");
            }
            svg.push_str("</g>");
            self.values(line, &mut svg);
        }
        self.strips(&mut svg);
        svg.push_str("</svg>");
        svg.push_str(&self.data());
        svg.push_str("</figure>");
        svg
    }

    /// Marks that show when a pointer is on them, and say the values there.
    fn values(&self, line: &Line, svg: &mut String) {
        let _ = write!(svg, "<g class=\"line {}\">", line.class);
        for &(x, y) in thinned(&line.points).filter(|(_, y)| (self.y.0..=self.y.1).contains(y)) {
            let (cx, cy) = self.at((x, y));
            let label = escape(&line.label);
            let _ = write!(
                svg,
                "<circle class=\"hover\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4\"><title>{label}; {} {x:.3}, {} {y:.3}</title></circle>",
                escape(self.x_label),
                escape(self.y_label)
            );
        }
        svg.push_str("</g>");
    }

    /// The plot's numbers as a table, folded away.
    fn data(&self) -> String {
        let rows: String = self
            .lines
            .iter()
            .rev()
            .flat_map(|line| thinned(&line.points).map(move |(x, y)| (line, x, y)))
            .map(|(line, x, y)| {
                format!("<tr><th scope=\"row\">{}</th><td class=\"n\">{x:.3}</td><td class=\"n\">{y:.3}</td></tr>", escape(&line.label))
            })
            .collect();
        if rows.is_empty() {
            return String::new();
        }
        let head = heads(&["Line", &format!("#{}", self.x_label), &format!("#{}", self.y_label)]);
        // The identifier keeps apart plots of one title.
        let body = table(&format!("{} (data of plot {})", self.title, self.id), &head, &rows);
        let thinned = if self.lines.iter().any(|line| line.points.len() > MOST_SHOWN) {
            format!("<p class=\"what\">Of lines with more than {MOST_SHOWN} points about as many stand here.</p>")
        } else {
            String::new()
        };
        format!("<details><summary>Data of the plot</summary>{thinned}{body}</details>")
    }

    fn axes(&self, svg: &mut String, strips: f64) {
        let (left, bottom, right) = (LEFT, TOP + AREA, WIDTH - RIGHT);
        svg.push_str("<g class=\"grid\">");
        for tick in ticks(self.x) {
            let (x, _) = self.at((tick, self.y.0));
            let y = bottom + 14.0 + strips;
            let _ = write!(
                svg,
                "<path d=\"M{x:.1} {TOP}V{bottom}\"/><text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>",
                tick_text(tick)
            );
        }
        for tick in ticks(self.y) {
            let (_, y) = self.at((self.x.0, tick));
            let text = tick_text(tick);
            let _ = write!(
                svg,
                "<path d=\"M{left} {y:.1}H{right}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                left - 6.0,
                y + 3.5
            );
        }
        let (middle_x, middle_y) = (f64::midpoint(left, right), TOP + AREA / 2.0);
        let _ = write!(
            svg,
            "</g><text class=\"axis\" x=\"{middle_x}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text class=\"axis\" transform=\"translate(12 {middle_y}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            bottom + strips + 32.0,
            escape(self.x_label),
            escape(self.y_label)
        );
    }

    fn strips(&self, svg: &mut String) {
        for (k, histogram) in self.histograms.iter().enumerate() {
            let floor = TOP + AREA + (k + 1) as f64 * STRIP;
            let most = histogram.bins.iter().map(|bin| bin.1).max().unwrap_or(1).max(1) as f64;
            let width = (WIDTH - LEFT - RIGHT) / crate::N_BINS as f64 - 2.0;
            let _ = write!(svg, "<g class=\"bars {}\"><path class=\"floor\" d=\"M{LEFT} {floor}H{}\"/>", histogram.class, WIDTH - RIGHT);
            for &(x, n) in &histogram.bins {
                let (x, _) = self.at((x, self.y.0));
                let h = ((STRIP - 6.0) * n as f64 / most).max(1.0);
                let _ = write!(
                    svg,
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{h:.1}\"><title>{}: {n} examples</title></rect>",
                    x - width / 2.0,
                    floor - h,
                    escape(&histogram.label)
                );
            }
            let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{most}</text></g>", LEFT - 6.0, floor - STRIP + 14.0);
        }
    }

    /// Points nearer to the last one drawn than a third of a pixel are left out: no eye sees them, and the file stays small.
    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        let mut drawn: Option<(f64, f64)> = None;
        for (k, &point) in points.iter().enumerate() {
            let (x, y) = self.at(point);
            let near = drawn.is_some_and(|(a, b)| (a - x).abs() < 0.33 && (b - y).abs() < 0.33);
            if !near || k + 1 == points.len() {
                let _ = write!(path, "{}{x:.1} {y:.1}", if drawn.is_none() { "M" } else { "L" });
                drawn = Some((x, y));
            }
        }
        path
    }
}

/// Points of a line that have a value to point at, and a row in the table.
const MOST_SHOWN: usize = 24;

/// Points that stand for a line's: all of a few, about [`MOST_SHOWN`] of many, the last among them.
fn thinned(points: &[(f64, f64)]) -> impl Iterator<Item = &(f64, f64)> {
    let step = points.len().div_ceil(MOST_SHOWN).max(1);
    points.iter().enumerate().filter(move |(k, _)| k % step == 0 || k + 1 == points.len()).map(|(_, point)| point)
}

/// About five round numbers over a range.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let span = high - low;
    if !(span > 0.0 && span.is_finite()) {
        return vec![low];
    }
    let power = 10f64.powf((span / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| span / step <= 5.5).unwrap_or(span);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|k| k as f64 * step).collect()
}

fn tick_text(tick: f64) -> String {
    let text = format!("{tick:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".to_owned() } else { text.replace('-', "\u{2212}") }
}

/// A value on a scale with its interval as a whisker: a cell of a table.
pub(super) fn whisker(class: &str, value: f64, interval: Option<(f64, f64)>, (low, high): (f64, f64)) -> String {
    let at = |v: f64| 4.0 + 112.0 * ((v - low) / (high - low)).clamp(0.0, 1.0);
    let mut svg =
        format!("<svg class=\"whisker line {class}\" viewBox=\"0 0 120 18\" aria-hidden=\"true\"><path class=\"floor\" d=\"M4 17H116\"/>");
    if let Some((a, b)) = interval {
        let _ = write!(svg, "<path class=\"solid\" d=\"M{:.1} 9H{:.1}\"/>", at(a), at(b));
    }
    let _ = write!(svg, "<circle cx=\"{:.1}\" cy=\"9\" r=\"3\"/></svg>", at(value));
    svg
}

/// A sample of a line, for a legend.
pub(super) fn sample(class: &str) -> String {
    format!("<svg class=\"sample line {class}\" viewBox=\"0 0 28 10\" aria-hidden=\"true\"><path d=\"M1 5H27\"/></svg>")
}

/// A mark of a cloud, for a legend.
pub(super) fn swatch(class: &str) -> String {
    format!("<svg class=\"sample line {class}\" viewBox=\"0 0 28 10\" aria-hidden=\"true\"><circle cx=\"14\" cy=\"5\" r=\"4\"/></svg>")
}
