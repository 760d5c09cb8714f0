//! What each part of a task came to, and the closing lines that say so.
//!
//! A part is never left out in silence: it passed, failed, or was skipped with a reason. It must not know
//! what the parts do.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often something passed, failed or was skipped: tests, or parts that count as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Counts {
    pub const ONE_PASSED: Counts = Counts { passed: 1, failed: 0, skipped: 0 };
    pub const ONE_FAILED: Counts = Counts { passed: 0, failed: 1, skipped: 0 };
    pub const ONE_SKIPPED: Counts = Counts { passed: 0, failed: 0, skipped: 1 };

    pub fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// A part's end: its counts, and for what did not pass, why.
pub struct Outcome {
    pub counts: Counts,
    pub reason: String,
    /// What was skipped may be, everywhere.
    pub is_excused: bool,
}

impl Outcome {
    pub fn passed() -> Outcome {
        Outcome { counts: Counts::ONE_PASSED, reason: String::new(), is_excused: false }
    }

    pub fn skipped(reason: impl Into<String>) -> Outcome {
        Outcome { counts: Counts::ONE_SKIPPED, reason: reason.into(), is_excused: false }
    }

    /// Skipped for want of something that a machine cannot be expected to have.
    pub fn excused(reason: impl Into<String>) -> Outcome {
        Outcome { is_excused: true, ..Outcome::skipped(reason) }
    }

    pub fn failed(reason: impl Into<String>) -> Outcome {
        Outcome { counts: Counts::ONE_FAILED, reason: reason.into(), is_excused: false }
    }
}

/// The parts so far.
pub struct Report {
    lines: Vec<String>,
    total: Counts,
    /// How many of the skipped are excused.
    excused: usize,
    /// With CI=true nobody reads the list, so a skipped part must fail, unless it is excused.
    skips_fail: bool,
}

impl Report {
    pub fn new() -> Report {
        let skips_fail = std::env::var_os("CI").is_some_and(|value| value == "true");
        Report { lines: Vec::new(), total: Counts::default(), excused: 0, skips_fail }
    }

    /// Does one part, and says which one while it runs. An error is a failure. Returns whether nothing failed.
    pub fn part(&mut self, name: &str, work: impl FnOnce() -> Result<Outcome>) -> bool {
        eprintln!("==> {name}");
        let start = Instant::now();
        let outcome = work().unwrap_or_else(|error| Outcome::failed(format!("{error:#}")));
        self.add(name, start.elapsed(), &outcome)
    }

    /// Records a part that was not begun.
    pub fn skip(&mut self, name: &str, reason: &str) {
        self.add(name, Duration::ZERO, &Outcome::skipped(reason));
    }

    fn add(&mut self, name: &str, elapsed: Duration, outcome: &Outcome) -> bool {
        let Counts { passed, failed, skipped } = outcome.counts;
        let word = if failed > 0 {
            "FAILED"
        } else if skipped > 0 {
            "skipped"
        } else {
            "passed"
        };
        let tests = match passed + failed + skipped {
            0 => "no tests".to_owned(),
            1 => String::new(),
            tests => format!("{tests} tests"),
        };
        let mut line = format!("{word:<8} {name:<34} {tests:>10} {:>7.1} s", elapsed.as_secs_f64());
        if !outcome.reason.is_empty() {
            line.push_str("  ");
            line.push_str(&outcome.reason);
            eprintln!("{line}");
        }
        self.lines.push(line);
        self.total.add(outcome.counts);
        self.excused += if outcome.is_excused { skipped } else { 0 };
        failed == 0
    }

    /// Prints the list and the closing line.
    pub fn finish(self) -> ExitCode {
        println!();
        for line in &self.lines {
            println!("{line}");
        }
        if self.has_bad_skips() {
            println!("\nCI=true: what was skipped counts as failed.");
        }
        let Counts { passed, failed, skipped } = self.total;
        println!("\n{passed} passed, {failed} failed, {skipped} skipped");
        if failed > 0 || self.has_bad_skips() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn has_bad_skips(&self) -> bool {
        self.skips_fail && self.total.skipped > self.excused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_excused_part_may_be_skipped_in_ci() {
        let mut report = Report { skips_fail: true, ..Report::new() };
        assert!(report.part("one", || Ok(Outcome::excused("no such thing exists here"))));
        assert!(!report.has_bad_skips());
        report.skip("two", "was not looked for");
        assert!(report.has_bad_skips());
        assert_eq!(report.total, Counts { passed: 0, failed: 0, skipped: 2 });
        report.skips_fail = false;
        assert!(!report.has_bad_skips());
    }
}
