//! `cargo xtask …`: the tasks that need more than one cargo command.
//!
//! This file knows the command line; each task is a module. No task may know how another reports or runs:
//! that is `report` and `cargo`.

mod autobahn;
mod bench;
mod cargo;
mod check;
mod directions;
mod fuzz;
mod report;
mod size;
mod test;
mod tools;

use std::process::ExitCode;

use report::Report;

const USAGE: &str = "\
usage: cargo xtask <task>

  test           everything that must pass: formatting, clippy, directions of dependencies, all tests, the
                 browser and Python clients, the size of a first visit. Installs the tools that it needs
                 where it can. With CI=true, a part that had to be skipped counts as failed, but for
                 Autobahn where there is no Python 2.7.
  test --quick   the loop while working: no clippy, no browser, no Python, no fuzzing, no release build of the
                 client
  autobahn       all cases of the Autobahn test suite for WebSockets against /ws/echo: about ten minutes.
                 Needs a Python 2.7
  autobahn --quick   those that take seconds, which are a part of `test` too
  check          formatting, clippy and directions of dependencies
  size           what a first visit transfers, by file
  bench          what the server does and costs, beside warp's own chat; takes about 15 minutes
  bench NAME …   one or more of its scenarios: fan-out, durable, rooms, idle, storm, slow, resume
  bench --quick  every scenario in small, in under a minute: whether it works, not how well
  bench --help   its other options
  fuzz [--seconds N] [TARGET]
                 random inputs against what reads the input of strangers, for 60 s a target: a
                 part of `test` too. Needs a C++ compiler
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut report = Report::new();
    match arguments[..] {
        ["test"] => test::all(&mut report),
        ["test", "--quick"] => test::quick(&mut report),
        ["autobahn"] => autobahn::all(&mut report),
        ["autobahn", "--quick"] => autobahn::some(&mut report),
        ["check"] => check::all(&mut report),
        ["bench", ref arguments @ ..] => bench::run_with(&mut report, arguments),
        ["size"] => size::alone(&mut report),
        ["fuzz", ref rest @ ..] => {
            let (seconds, rest) = match rest {
                ["--seconds", seconds, rest @ ..] => (seconds.parse().ok(), rest),
                rest => (Some(fuzz::SECONDS), rest),
            };
            match (seconds, rest) {
                (Some(seconds), []) => fuzz::all(&mut report, seconds, None),
                (Some(seconds), [target]) if !target.starts_with('-') => {
                    fuzz::all(&mut report, seconds, Some(target));
                }
                _ => {
                    eprint!("{USAGE}");
                    return ExitCode::from(2);
                }
            }
        }
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    report.finish()
}
