//! How far a stage is: a bar with rate and time left on a terminal, a line when it ends elsewhere, nothing when quiet.
//!
//! All of it goes to stderr; stdout is for results.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bars that move.
    Bars,
    /// One line when a stage ends.
    Lines,
    /// One JSON object when a stage ends.
    Json,
    /// Not at all.
    Quiet,
}

impl Mode {
    /// `--quiet` and `--json` as given; bars only on a terminal.
    pub fn choose(quiet: bool, json: bool, terminal: bool) -> Self {
        match (quiet, json, terminal) {
            (true, ..) => Self::Quiet,
            (_, true, _) => Self::Json,
            (.., true) => Self::Bars,
            _ => Self::Lines,
        }
    }
}

type Out = Arc<Mutex<dyn Write + Send>>;

/// Where stages say how far they are.
#[derive(Clone)]
pub struct Progress {
    mode: Mode,
    out: Out,
    /// Bars that move at once, one below the other.
    bars: MultiProgress,
}

impl Progress {
    /// To stderr.
    pub fn new(quiet: bool, json: bool) -> Self {
        let stderr = std::io::stderr();
        Self::to_writer(Mode::choose(quiet, json, stderr.is_terminal()), Arc::new(Mutex::new(stderr)))
    }

    /// Lines to any writer; bars go to the terminal.
    pub fn to_writer(mode: Mode, out: Out) -> Self {
        Self { mode, out, bars: MultiProgress::new() }
    }

    /// Starts a stage that counts `unit`s (`images`, `bytes`, `steps`): a bar with a `total`, a spinner without.
    pub fn start(&self, stage: &str, total: Option<u64>, unit: &str) -> Bar {
        let bar = match (self.mode, total) {
            (Mode::Bars, Some(total)) => self.bars.add(ProgressBar::new(total)),
            (Mode::Bars, None) => self.bars.add(ProgressBar::no_length()),
            _ => ProgressBar::hidden(),
        };
        bar.set_style(style(unit, total.is_some()));
        bar.set_prefix(stage.to_owned());
        if self.mode == Mode::Bars {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Bar {
            progress: self.clone(),
            shown: bar,
            stage: stage.to_owned(),
            unit: unit.to_owned(),
            started: Instant::now(),
            done: AtomicU64::new(0),
        }
    }

    /// Says one thing about a stage: `ingest: unchanged, skipped`.
    pub fn note(&self, stage: &str, what: &str) {
        match self.mode {
            Mode::Quiet => {}
            Mode::Json => self.line(&serde_json::json!({"stage": stage, "note": what}).to_string()),
            Mode::Bars | Mode::Lines => self.line(&format!("{stage}: {what}")),
        }
    }

    fn line(&self, text: &str) {
        // A closed stderr is no reason to stop the work. Bars step aside for a line.
        if self.mode == Mode::Bars && !self.bars.is_hidden() {
            let _ = self.bars.println(text);
        } else {
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = writeln!(out, "{text}");
        }
    }
}

/// How a bar (where the total is known) or a spinner that counts `unit`s looks.
fn style(unit: &str, has_total: bool) -> ProgressStyle {
    let (position, total, rate, named) = if unit == "bytes" {
        ("{binary_bytes}", "/{binary_total_bytes}", "{binary_bytes_per_sec}", "")
    } else {
        ("{human_pos}", "/{human_len} ", "{per_sec:.1}", unit)
    };
    let template = if has_total {
        format!("{{prefix:>9}} {{bar:28}} {position}{total}{named}  {rate}  {{eta}} left  {{msg}}")
    } else {
        format!("{{prefix:>9}} {{spinner}} {position} {named}  {rate}  {{elapsed}}  {{msg}}")
    };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

/// One stage's progress; any thread may move it. Dropped without [`Bar::finish`] (on an error), it leaves no line.
pub struct Bar {
    progress: Progress,
    shown: ProgressBar,
    stage: String,
    unit: String,
    started: Instant,
    done: AtomicU64,
}

impl Bar {
    /// So many are done in all.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.shown.set_position(done);
    }

    /// So many more are done.
    pub fn add(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
        self.shown.inc(more);
    }

    /// What a stage learns on its way is how much there is: a spinner becomes a bar with the time left.
    pub fn set_total(&self, total: u64) {
        self.shown.set_length(total);
        self.shown.set_style(style(&self.unit, true));
    }

    /// Shown at the end of the bar: the loss, say.
    pub fn message(&self, message: impl Into<Cow<'static, str>>) {
        self.shown.set_message(message);
    }

    /// The stage is done: the bar becomes a line, with `outcome` (may be empty) at its end.
    pub fn finish(self, outcome: &str) {
        self.shown.finish_and_clear();
        let (done, seconds) = (self.done.load(Ordering::Relaxed), self.started.elapsed().as_secs_f64());
        match self.progress.mode {
            Mode::Quiet => {}
            Mode::Json => {
                let seconds = (seconds * 1e3).round() / 1e3;
                let line =
                    serde_json::json!({"stage": self.stage, "done": done, "unit": self.unit, "seconds": seconds, "outcome": outcome});
                self.progress.line(&line.to_string());
            }
            Mode::Bars | Mode::Lines => self.progress.line(&summary(&self.stage, done, &self.unit, seconds, outcome)),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.shown.finish_and_clear();
    }
}

/// `ingest: 12,034 files in 3.2 s (3,761/s); 4 rejected`
fn summary(stage: &str, done: u64, unit: &str, seconds: f64, outcome: &str) -> String {
    let (amount, rate) = if unit == "bytes" {
        let mebibytes = done as f64 / f64::from(1 << 20);
        (format!("{mebibytes:.1} MiB"), format!("{:.1} MiB/s", mebibytes / seconds.max(1e-9)))
    } else {
        let rate = done as f64 / seconds.max(1e-9);
        let rate = if rate < 100.0 { format!("{rate:.1}") } else { thousands(rate.round() as u64) };
        (format!("{} {unit}", thousands(done)), format!("{rate}/s"))
    };
    let outcome = if outcome.is_empty() { String::new() } else { format!("; {outcome}") };
    let time = if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {:.0} s", (seconds / 60.0).floor(), (seconds % 60.0).floor())
    };
    // Of a moment's work the rate says nothing.
    let rate = if seconds < 0.5 { String::new() } else { format!(" ({rate})") };
    format!("{stage}: {amount} in {time}{rate}{outcome}")
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(done: u64, unit: &str, seconds: f64, outcome: &str, expect: &Expect) {
        expect.assert_eq(&summary("ingest", done, unit, seconds, outcome));
    }

    #[test]
    fn summaries() {
        check(12_034, "files", 3.2, "4 rejected", &expect!["ingest: 12,034 files in 3.2 s (3,761/s); 4 rejected"]);
        check(7, "epochs", 125.9, "", &expect!["ingest: 7 epochs in 2 min 5 s (0.1/s)"]);
        check(0, "files", 0.0, "", &expect!["ingest: 0 files in 0.0 s"]);
        check(1 << 30, "bytes", 8.0, "", &expect!["ingest: 1024.0 MiB in 8.0 s (128.0 MiB/s)"]);
        check(1_234_567, "rows", 0.1, "", &expect!["ingest: 1,234,567 rows in 0.1 s"]);
    }

    /// What one stage of three images writes.
    fn written(mode: Mode) -> String {
        let out = Arc::new(Mutex::new(Vec::new()));
        let progress = Progress::to_writer(mode, out.clone());
        progress.note("simulate", "unchanged, skipped");
        let bar = progress.start("ingest", Some(3), "images");
        std::thread::scope(|scope| {
            scope.spawn(|| bar.add(1));
            scope.spawn(|| bar.add(2));
        });
        bar.message("loss 0.3");
        bar.finish("1 rejected");
        drop(progress.start("cohort", None, "bytes"));
        String::from_utf8(out.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_a_stage_or_nothing() {
        assert_eq!(written(Mode::Quiet), "");
        assert_eq!(written(Mode::Lines), "simulate: unchanged, skipped\ningest: 3 images in 0.0 s; 1 rejected\n");
        let lines = written(Mode::Json);
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[1]["stage"], &lines[1]["done"], &lines[1]["unit"]), (&"ingest".into(), &3.into(), &"images".into()));
    }

    #[test]
    fn quiet_wins_over_json_over_the_terminal() {
        assert_eq!(Mode::choose(true, true, true), Mode::Quiet);
        assert_eq!(Mode::choose(false, true, true), Mode::Json);
        assert_eq!(Mode::choose(false, false, true), Mode::Bars);
        assert_eq!(Mode::choose(false, false, false), Mode::Lines);
    }
}
