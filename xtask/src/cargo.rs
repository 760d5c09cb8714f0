//! Running cargo and other programs from the workspace's root.
//!
//! It must not know which commands a task needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The workspace's root.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where tasks keep what they make: a Python environment, the output of tests. `cargo clean` removes it.
pub fn work_dir() -> Result<PathBuf> {
    let directory = root().join("target/xtask");
    std::fs::create_dir_all(&directory).context("creating target/xtask")?;
    Ok(directory)
}

/// A cargo command, from the workspace's root.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Runs a command to its end, its output going where ours goes. A bad end is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {}", words(command)))?;
    ensure!(status.success(), "`{}` failed", words(command));
    Ok(())
}

/// Runs a command to its end and returns what it wrote to its output. Its errors go where ours go.
pub fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("starting {}", words(command)))?;
    ensure!(output.status.success(), "`{}` failed", words(command));
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` wrote bytes that are not UTF-8", words(command)))
}

/// A command as a person would type it.
pub fn words(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    command.get_args().fold(program, |line, argument| line + " " + &argument.to_string_lossy())
}

/// Runs a building command and returns cargo's messages (`cargo build --message-format=json`).
/// Warnings and errors are shown as usual.
pub fn messages(command: &mut Command) -> Result<Vec<Value>> {
    let text = output(command.arg("--message-format=json-render-diagnostics"))?;
    text.lines().map(|line| serde_json::from_str(line).context("reading cargo's messages")).collect()
}
