//! `cargo xtask size`: what a first visit transfers, and that it stays within the budget.
//!
//! The server's build script writes the list; this file adds it up. It must not know how the bundle is made.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cargo::{cargo, messages};
use crate::report::{Outcome, Report};

/// All that a first visit transfers, compressed with brotli: page, style, scripts, wasm, icon. Headers do
/// not count.
const BUDGET_BYTES: usize = 200_000;

/// Makes the server's build script bundle the client as a release does, in any build of the server.
pub const RELEASE_CLIENT: [(&str, &str); 1] = [("MAGPIE_CLIENT_PROFILE", "wasm-release")];

pub fn alone(report: &mut Report) {
    report.part("size of a first visit", || {
        let mut check = cargo(&["check", "-p", "server", "--locked"]);
        measure(&messages(check.envs(RELEASE_CLIENT))?)
    });
}

/// Adds up the bundle that a build with [`RELEASE_CLIENT`] made; `messages` are that build's.
pub fn measure(messages: &[Value]) -> Result<Outcome> {
    let list = bundle_dir(messages).context("the server's build script did not run")?.join("assets.tsv");
    let list = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let mut total_bytes = 0;
    println!("{:>9} {:>9}  a first visit loads", "bytes", "brotli");
    for line in list.lines() {
        let [path, identity_bytes, brotli_bytes, when] = line.split('\t').collect::<Vec<_>>()[..] else {
            anyhow::bail!("a line of the bundle's list reads {line:?}");
        };
        if when == "first" {
            println!("{identity_bytes:>9} {brotli_bytes:>9}  {path}");
            total_bytes += brotli_bytes.parse::<usize>().context("reading a size")?;
        }
    }
    println!("{:>9} {total_bytes:>9}  of {BUDGET_BYTES}", "");
    Ok(if total_bytes <= BUDGET_BYTES {
        Outcome::passed()
    } else {
        Outcome::failed(format!("{total_bytes} bytes by brotli, {BUDGET_BYTES} allowed"))
    })
}

/// The output directory of the server's build script.
fn bundle_dir(messages: &[Value]) -> Option<PathBuf> {
    let is_server = |id: &str| id.contains("/server#");
    messages
        .iter()
        .filter(|message| message["reason"] == "build-script-executed")
        .find(|message| message["package_id"].as_str().is_some_and(is_server))
        .and_then(|message| message["out_dir"].as_str())
        .map(PathBuf::from)
}
