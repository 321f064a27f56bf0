//! How the program ends when it does not succeed: one line a problem, and the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use crate::pipeline::PipelineError;

/// A command that did not succeed.
#[derive(Debug)]
pub struct Failure(anyhow::Error);

/// Arguments that are each right but do not go together: exit code 2, as for a pipeline that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Whoever read standard output has gone, as `head` does when it has enough: nothing is left to do, and nothing is wrong.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct ClosedOutput;

/// Prints a line to standard output. Unlike `println!`, which panics, it ends the command quietly when nobody reads on.
///
/// # Errors
/// [`ClosedOutput`] when nobody reads; else what the system says.
pub fn print(line: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => ClosedOutput.into(),
        _ => anyhow::Error::new(error).context("writing to standard output"),
    })
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl Failure {
    /// Whether it is no failure at all: see [`ClosedOutput`].
    pub fn is_closed_output(&self) -> bool {
        self.0.is::<ClosedOutput>()
    }

    /// 2 for wrong usage or a wrong pipeline, 1 for all else.
    pub fn code(&self) -> u8 {
        let wrong = self.0.chain().any(|cause| cause.is::<PipelineError>() || cause.is::<UsageError>());
        if wrong { 2 } else { 1 }
    }

    /// The code for `main` to return.
    pub fn exit_code(&self) -> ExitCode {
        self.code().into()
    }

    /// A line a problem: a wrong pipeline may have several.
    pub fn lines(&self) -> Vec<String> {
        let wrong = self.0.chain().find_map(|cause| cause.downcast_ref::<PipelineError>());
        match wrong {
            Some(error) => error.to_string().lines().map(str::to_owned).collect(),
            None => vec![self.message()],
        }
    }

    /// The causes, outermost first, joined by `: `. An error that prints its own source is not followed by it again.
    fn message(&self) -> String {
        let mut message = String::new();
        for cause in self.0.chain().map(|cause| cause.to_string().replace(['\n', '\r'], " ")) {
            if message.is_empty() {
                message = cause;
            } else if !message.contains(&cause) {
                message.push_str(": ");
                message.push_str(&cause);
            }
        }
        message
    }

    /// Prints it to stderr: `error: …`, or a JSON object a line.
    pub fn print(&self, json: bool) {
        let mut out = std::io::stderr().lock();
        for line in self.lines() {
            let line = if json { serde_json::json!({"error": line, "exit": self.code()}).to_string() } else { format!("error: {line}") };
            // A closed stderr changes nothing of what happened.
            let _ = writeln!(out, "{line}");
        }
    }
}

#[cfg(test)]
// expect-test writes its raw strings with hashes, needed or not.
#[allow(clippy::needless_raw_string_hashes)]
mod tests {
    use anyhow::Context;
    use expect_test::{Expect, expect};

    use super::*;
    use crate::pipeline::Pipeline;
    use crate::stages::StageError;

    #[track_caller]
    fn check(failure: &Failure, expect: &Expect) {
        expect.assert_eq(&format!("{}\n{}", failure.lines().join("\n"), failure.code()));
    }

    #[test]
    fn lines_and_codes() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error: anyhow::Error = Err::<(), _>(full()).context("runs/lung/model: writing weights").unwrap_err();
        check(
            &error.into(),
            &expect![[r#"
            runs/lung/model: writing weights: no storage space
            1"#]],
        );
        let printed_twice = StageError::Io { path: "runs/lung".into(), source: full() };
        check(
            &printed_twice.into(),
            &expect![[r#"
            runs/lung: no storage space
            1"#]],
        );
        check(
            &anyhow::anyhow!("two\nlines").into(),
            &expect![[r#"
            two lines
            1"#]],
        );
        check(
            &UsageError("give --images, --records or both".into()).into(),
            &expect![[r#"
            give --images, --records or both
            2"#]],
        );
        let wrong = Pipeline::parse("name = 7\nseed = -1\n", &[], None).unwrap_err();
        let wrong = PipelineError::Wrong { path: "p.toml".into(), problems: wrong[wrong.len() - 2..].to_vec() };
        check(
            &anyhow::Error::from(wrong).context("reading").into(),
            &expect![[r#"
            p.toml:1: `name` must be a text in quotes, not 7
            p.toml:2: `seed` is -1, which is out of range; allowed: 0 or more
            2"#]],
        );
        let unreadable = Pipeline::read(std::path::Path::new("/nowhere/p.toml"), &[], None).unwrap_err();
        check(
            &unreadable.into(),
            &expect![[r#"
            /nowhere/p.toml: No such file or directory (os error 2); give the path of a pipeline such as pipelines/lung.toml
            2"#]],
        );
    }
}
