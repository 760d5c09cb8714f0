//! `cargo xtask test`: everything that must pass, in the order in which a failure is cheapest to find.
//!
//! All test programs are built by one cargo command, with one set of features, and then run one by one, so
//! that each is a part of its own in the report and gets the tools that it needs (see `tools`). A test that
//! prints a line beginning with `skipped: `, or that is `#[ignore]`d, counts as skipped.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo::{cargo, messages, run, words, work_dir};
use crate::report::{Counts, Outcome, Report};
use crate::tools::{NEEDS, WISHES};
use crate::{autobahn, check, directions, fuzz, size};

/// How long one test program may take before it is stopped and counts as failed.
const PROGRAM_LIMIT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(20);

pub fn all(report: &mut Report) {
    check::format(report);
    directions::all(report);
    // The tests run the client that is deployed, not the quick build of it.
    check::clippy(report, &size::RELEASE_CLIENT);
    let messages = programs(report, &size::RELEASE_CLIENT, true);
    check::wasm(report);
    report.part("examples in documentation", || {
        let mut test = cargo(&["test", "--workspace", "--all-features", "--locked", "--quiet", "--doc"]);
        run(test.envs(size::RELEASE_CLIENT)).map(|()| Outcome::passed())
    });
    let Some(messages) = messages else {
        for part in [autobahn::QUICK_TITLE, "size of a first visit"] {
            report.skip(part, "the tests did not build");
        }
        return;
    };
    autobahn::quick(report, &messages);
    report.part("size of a first visit", || size::measure(&messages));
    fuzz::all(report, fuzz::SECONDS, None);
}

pub fn quick(report: &mut Report) {
    check::format(report);
    directions::all(report);
    programs(report, &[], false);
}

/// Builds and runs the test programs; those that need tools only if `outside`. Returns cargo's messages.
fn programs(report: &mut Report, environment: &[(&str, &str)], outside: bool) -> Option<Vec<Value>> {
    let mut built = None;
    report.part("tests compile", || {
        let mut build = cargo(&["test", "--workspace", "--all-features", "--locked", "--no-run"]);
        built = Some(messages(build.envs(environment.iter().copied()))?);
        Ok(Outcome::passed())
    });
    let programs: Vec<Program> = built.iter().flatten().filter_map(Program::from_message).collect();
    let needs_tools = |program: &&Program| {
        NEEDS.iter().any(|need| (need.package, need.name) == (&program.package, &program.name))
    };

    for program in programs.iter().filter(|program| !needs_tools(program)) {
        // A tenth of the fault plans is enough between two edits.
        let fewer = if outside { vec![] } else { vec![("MAGPIE_PLANS", "1000".into())] };
        let wish = WISHES.iter().find(|wish| (wish.package, wish.name) == (&program.package, &program.name));
        let tools = wish.filter(|_| outside).and_then(|wish| (wish.environment)().ok());
        let environment = [fewer, tools.unwrap_or_default()].concat();
        report.part(&program.title(), || program.run(&environment));
    }
    for need in &NEEDS {
        let title = format!("{} tests/{}.rs", need.package, need.name);
        let program = programs.iter().filter(needs_tools).find(|program| program.title() == title);
        if !outside {
            report.skip(&title, "left out by --quick");
        } else if built.is_none() {
            report.skip(&title, "the tests did not build");
        } else {
            report.part(&title, || {
                let program = program.context("there is no such test program")?;
                match (need.environment)() {
                    Ok(environment) => program.run(&environment),
                    Err(missing) => Ok(Outcome::skipped(missing)),
                }
            });
        }
    }
    built
}

/// A compiled test program.
struct Program {
    package: String,
    name: String,
    /// The file that holds its tests, below the package's directory.
    source: String,
    executable: PathBuf,
    directory: PathBuf,
}

impl Program {
    fn from_message(message: &Value) -> Option<Program> {
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let directory = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_owned();
        let source = PathBuf::from(message["target"]["src_path"].as_str()?);
        Some(Program {
            package: directory.file_name()?.to_str()?.to_owned(),
            name: message["target"]["name"].as_str()?.to_owned(),
            source: source.strip_prefix(&directory).ok()?.to_str()?.to_owned(),
            executable: PathBuf::from(message["executable"].as_str()?),
            directory,
        })
    }

    fn title(&self) -> String {
        format!("{} {}", self.package, self.source)
    }

    /// Runs it as `cargo test` would. Its output goes to a file first, and is shown if something failed.
    fn run(&self, environment: &[(&str, OsString)]) -> Result<Outcome> {
        let log = work_dir()?.join(self.title().replace([' ', '/'], "-")).with_extension("log");
        let file = File::create(&log).context("creating the file for a test's output")?;
        let mut command = Command::new(&self.executable);
        command.arg("--show-output").current_dir(&self.directory).env("CARGO_MANIFEST_DIR", &self.directory);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdout(file.try_clone()?).stderr(file);
        let ended_well = run_with_limit(&mut command, PROGRAM_LIMIT)?;
        let output = String::from_utf8_lossy(&fs::read(&log)?).into_owned();

        let (counts, reason) = read_results(&output);
        if ended_well && counts.failed == 0 {
            return Ok(Outcome { counts, reason, is_excused: false });
        }
        eprintln!("{output}");
        let failed = counts.failed.max(1);
        let failures: Vec<&str> = output.lines().filter_map(failed_test).collect();
        let reason = if failures.is_empty() { "ended badly".to_owned() } else { failures.join(", ") };
        Ok(Outcome { counts: Counts { failed, ..counts }, ..Outcome::failed(reason) })
    }
}

/// Runs a command; whether it ended well. One that takes too long is killed.
pub fn run_with_limit(command: &mut Command, limit: Duration) -> Result<bool> {
    let mut child = command.spawn().with_context(|| format!("starting {}", words(command)))?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("stopped after {} s", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

/// The name in a line such as `test hub::a_name ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// What a test program's output says: how many tests passed, failed and were skipped, and why those were.
fn read_results(output: &str) -> (Counts, String) {
    let mut counts = Counts::default();
    let mut skipped = 0;
    let mut reasons = Vec::new();
    for line in output.lines() {
        if let Some(reason) = line.trim_start().strip_prefix("skipped: ") {
            skipped += 1;
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        } else if let Some(numbers) = line.strip_prefix("test result: ") {
            let number = |word: &str| {
                let before = numbers.split([';', '.']).find_map(|part| part.trim().strip_suffix(word));
                before.and_then(|number| number.trim().parse::<usize>().ok()).unwrap_or(0)
            };
            let ignored = number("ignored");
            counts.passed += number("passed");
            counts.failed += number("failed");
            counts.skipped += ignored;
            if ignored > 0 {
                reasons.push("#[ignore]");
            }
        }
    }
    // libtest counts a test that says so itself as passed.
    counts.passed = counts.passed.saturating_sub(skipped);
    counts.skipped += skipped;
    (counts, reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(output: &str, passed: usize, failed: usize, skipped: usize, reason: &str) {
        assert_eq!(read_results(output), (Counts { passed, failed, skipped }, reason.to_owned()));
    }

    #[test]
    fn results_are_read_from_libtest() {
        let output =
            "test a ... ok\n\ntest result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out";
        check(output, 12, 0, 0, "");
        check("test result: FAILED. 1 passed; 2 failed; 3 ignored; 0 measured", 1, 2, 3, "#[ignore]");
        check("", 0, 0, 0, "");
    }

    #[test]
    fn a_test_that_says_so_was_skipped() {
        let output = "---- a stdout ----\nskipped: CHROMIUM is not set\n\ntest result: ok. 2 passed; 0 failed; 0 ignored";
        check(output, 1, 0, 1, "CHROMIUM is not set");
    }

    #[test]
    fn failed_tests_are_named() {
        assert_eq!(failed_test("test hub::tests::x ... FAILED"), Some("hub::tests::x"));
        assert_eq!(failed_test("test hub::tests::x ... ok"), None);
    }
}
