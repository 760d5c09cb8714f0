//! `cargo xtask fuzz`: random inputs against the parts that read what strangers send.
//!
//! The targets are the binaries of `server/fuzz`, a workspace of its own that links libFuzzer. What
//! `cargo fuzz` does to build them is a few compiler options, which stand here: so nothing has to be
//! installed but a C++ compiler. It must not know what the targets check.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo::{cargo, messages, output, root, work_dir};
use crate::report::{Counts, Outcome, Report};
use crate::test::run_with_limit;
use crate::tools::on_path;

/// How long each target runs, in seconds, unless another time is asked for.
pub const SECONDS: u32 = 60;
pub const TITLE: &str = "fuzzing";
/// Longest input, in bytes.
const INPUT_BYTES_MAX: u32 = 4_096;
/// What a target may take before that counts as a failure: seconds for one input, and MiB of memory.
const INPUT_SECONDS_MAX: u32 = 10;
const MEMORY_MIB_MAX: u32 = 2_048;
/// Targets that run at once, where there are as many cores.
const AT_ONCE: usize = 4;
/// How much longer than asked for a target may take, to begin and to end.
const SLACK: Duration = Duration::from_secs(60);

/// What makes libFuzzer see which ways an input takes through the code (LLVM's SanitizerCoverage). No
/// sanitizer: the code is safe Rust, and the runs are faster.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
];

/// Runs one target, or all of them, for so many seconds each.
pub fn all(report: &mut Report, seconds: u32, wanted: Option<&str>) {
    report.part(TITLE, || {
        if on_path("c++").is_none() {
            return Ok(Outcome::skipped("no C++ compiler (c++); install g++ or clang"));
        }
        let mut targets = build()?;
        if let Some(wanted) = wanted {
            let known = targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ");
            targets.retain(|target| target.name == wanted);
            if targets.is_empty() {
                bail!("there is no target {wanted}; there are {known}");
            }
        }
        Ok(run_all(&targets, seconds))
    });
}

struct Target {
    name: String,
    executable: PathBuf,
}

/// Builds the targets, with coverage; build scripts, which are for the host, without.
fn build() -> Result<Vec<Target>> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let mut command = cargo(&["build", "--release", "--bins", "--target", host, "--manifest-path"]);
    command.arg(directory().join("Cargo.toml")).arg("--target-dir").arg(root().join("target/fuzz"));
    // No target needs the client.
    command.env("RUSTFLAGS", FLAGS.join(" ")).env("MAGPIE_NO_CLIENT", "1");
    let mut targets: Vec<Target> = messages(&mut command)?.iter().filter_map(target).collect();
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(targets)
}

fn target(message: &Value) -> Option<Target> {
    let is_ours = message["target"]["src_path"].as_str()?.contains("fuzz_targets");
    let executable = message["executable"].as_str().filter(|_| is_ours)?;
    Some(Target { name: message["target"]["name"].as_str()?.to_owned(), executable: executable.into() })
}

/// Runs targets, some at once.
fn run_all(targets: &[Target], seconds: u32) -> Outcome {
    let at_once = std::thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE);
    let (next, failures) = (Mutex::new(targets.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(target) = next.lock().ok().and_then(|mut targets| targets.next()) {
                    match one(target, seconds) {
                        Ok(inputs) => eprintln!("{:<10} {inputs} inputs", target.name),
                        Err(error) => {
                            failures.lock().into_iter().for_each(|mut all| all.push(format!("{error:#}")));
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    let failed = failures.len();
    let counts = Counts { passed: targets.len() - failed, failed, skipped: 0 };
    Outcome { counts, reason: failures.join("; "), is_excused: false }
}

/// Runs one target; how many inputs it was given.
fn one(target: &Target, seconds: u32) -> Result<u64> {
    // What is found goes to `corpus`, which is not committed; `seeds` are only read.
    let Target { name, executable } = target;
    let (corpus, artifacts) =
        (directory().join("corpus").join(name), directory().join("artifacts").join(name));
    for made in [&corpus, &artifacts] {
        fs::create_dir_all(made).with_context(|| format!("creating {}", made.display()))?;
    }
    let log = work_dir()?.join(format!("fuzz-{name}.log"));
    let file = File::create(&log).context("creating the file for a target's output")?;
    let mut command = Command::new(executable);
    command.args([&corpus, &directory().join("seeds").join(name)]).args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".to_owned(),
    ]);
    command.stdout(file.try_clone()?).stderr(file);
    let ended_well = run_with_limit(&mut command, Duration::from_secs(seconds.into()) + SLACK)
        .with_context(|| format!("fuzzing {name}"))?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !ended_well {
        eprintln!("{said}");
        bail!("{name}: the input is in server/fuzz/artifacts/{name}; give it to {}", executable.display());
    }
    Ok(inputs(&said))
}

/// How many inputs a target's output counts.
fn inputs(said: &str) -> u64 {
    let count = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

fn directory() -> PathBuf {
    root().join("server/fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_counted_by_libfuzzer() {
        assert_eq!(
            inputs("Done 12\nstat::number_of_executed_units: 1234\nstat::slowest_unit_time_sec: 0"),
            1234
        );
        assert_eq!(inputs("no such line"), 0);
    }
}
