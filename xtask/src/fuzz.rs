//! `cargo xtask fuzz`: random inputs against the parts that read what strangers send.
//!
//! The targets are the binaries of `server/fuzz`, a workspace of its own. It must not know what they check.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{cargo, root, run};
use crate::report::{Outcome, Report};
use crate::tools::on_path;

/// How long each target runs, in seconds, unless another time is asked for.
pub const SECONDS: u32 = 60;
/// Longest input, in bytes.
const INPUT_BYTES_MAX: u32 = 4_096;
/// What a target may take before that counts as a failure: seconds for one input, and MiB of memory.
const INPUT_SECONDS_MAX: u32 = 10;
const MEMORY_MIB_MAX: u32 = 2_048;

const MISSING: &str =
    "no cargo-fuzz: install it (cargo install cargo-fuzz --locked; it needs a C++ compiler)";

/// Runs one target, or all of them.
pub fn all(report: &mut Report, seconds: u32, target: Option<&str>) {
    if on_path("cargo-fuzz").is_none() {
        return report.skip("fuzzing", MISSING);
    }
    let built = report.part("fuzz targets are built", || {
        // Without sanitizers: the code is safe Rust, and the runs are faster.
        run(&mut cargo_fuzz(&["build", "--sanitizer", "none"])).map(|()| Outcome::passed())
    });
    if !built {
        return;
    }
    let targets = match targets() {
        Ok(targets) => targets,
        Err(error) => {
            report.part("fuzz targets", || Err(error));
            return;
        }
    };
    let wanted: Vec<&String> =
        targets.iter().filter(|name| target.is_none_or(|target| target == *name)).collect();
    if wanted.is_empty() {
        let known = targets.join(", ");
        report.part("fuzz targets", || Ok(Outcome::failed(format!("no such target; there are {known}"))));
    }
    for name in wanted {
        report.part(&format!("fuzz {name}"), || one(name, seconds));
    }
}

fn one(name: &str, seconds: u32) -> Result<Outcome> {
    // What is found goes to `corpus`, which is not committed; `seeds` are only read.
    let corpus = directory().join("corpus").join(name);
    fs::create_dir_all(&corpus).with_context(|| format!("creating {}", corpus.display()))?;
    let seeds = directory().join("seeds").join(name);
    let mut command = cargo_fuzz(&["run", "--sanitizer", "none", name]);
    command.args([&corpus, &seeds]).arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
        "-print_final_stats=1".to_owned(),
    ]);
    Ok(match run(&mut command) {
        Ok(()) => Outcome::passed(),
        Err(_) => Outcome::failed(format!(
            "the input is in server/fuzz/artifacts/{name}, and above is how to run it again"
        )),
    })
}

/// The names of the targets, in the order of the alphabet.
fn targets() -> Result<Vec<String>> {
    let files = fs::read_dir(directory().join("fuzz_targets")).context("reading the list of targets")?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn directory() -> PathBuf {
    root().join("server/fuzz")
}

fn cargo_fuzz(arguments: &[&str]) -> Command {
    let mut command = cargo(&["fuzz"]);
    command.current_dir(root().join("server")).args(arguments);
    // cargo-fuzz asks for options that a stable compiler only takes with this; and no target needs the client.
    command.env("RUSTC_BOOTSTRAP", "1").env("MAGPIE_NO_CLIENT", "1");
    command
}
