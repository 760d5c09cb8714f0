//! Which way dependencies may point: client → shared ← server, and decisions know no I/O.
//!
//! Two tables say it, one about crates and one about files; the rest of this file reads them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cargo::{cargo, output, root};
use crate::report::{Outcome, Report};

/// Crates that a crate must not depend on, directly or through others. A trailing `*` stands for any ending.
struct CrateRule {
    package: &'static str,
    target: &'static str,
    /// As `cargo tree --edges` has it. What only tests use does not count unless `dev` is here.
    edges: &'static str,
    without: &'static [&'static str],
}

const NATIVE: &str = "host-tuple";
const WASM: &str = "wasm32-unknown-unknown";

#[rustfmt::skip]
const CRATES: [CrateRule; 4] = [
    CrateRule { package: "shared", target: NATIVE, edges: "normal", without: &["tokio", "web-sys", "js-sys", "gloo*", "warp", "hyper", "rusqlite", "rustls*", "ring", "server", "client"] },
    CrateRule { package: "shared", target: WASM,   edges: "normal", without: &["tokio", "web-sys", "js-sys", "gloo*", "warp", "hyper", "rusqlite", "rustls*", "ring", "server", "client"] },
    CrateRule { package: "client", target: WASM,   edges: "normal", without: &["tokio", "warp", "hyper", "rusqlite", "rustls*", "ring", "server"] },
    CrateRule { package: "server", target: NATIVE, edges: "normal,dev", without: &["yew", "web-sys", "gloo*", "openssl", "openssl-sys", "aws-lc*", "native-tls", "client"] },
];

/// Files that must not name some crates or parts of the standard library. `foo.rs` stands for itself and for
/// all below `foo/`, if that exists; a path that ends in `/` for all below it.
struct FileRule {
    paths: &'static [&'static str],
    without: &'static [&'static str],
}

const IO: [&str; 16] = [
    "tokio",
    "warp",
    "hyper*",
    "tungstenite",
    "rusqlite",
    "socket2", // servers
    "web_sys",
    "js_sys",
    "wasm_bindgen*",
    "gloo*", // browsers
    "std::net",
    "std::fs",
    "std::thread",
    "std::process", // the system
    "SystemTime",
    "Instant", // clocks
];

#[rustfmt::skip]
const FILES: [FileRule; 8] = [
    FileRule { paths: &["shared/src/"], without: &IO },
    FileRule { paths: &["server/src/hub.rs", "server/src/names.rs", "server/src/secrets.rs", "server/src/token.rs"], without: &IO },
    FileRule { paths: &["server/src/accounts.rs", "server/src/addresses.rs", "server/src/device.rs", "server/src/limits.rs", "server/src/hooks/target.rs"], without: &["tokio", "hyper*", "rusqlite", "socket2", "std::fs", "std::thread", "SystemTime", "Instant", "crate::routes", "crate::engine", "crate::hub"] },
    FileRule { paths: &["server/src/store.rs", "server/src/broker.rs"], without: &["warp", "hyper*", "crate::hub", "crate::engine", "crate::routes"] },
    FileRule { paths: &["server/src/encoded.rs", "server/src/engine/inbox.rs", "server/src/handshake.rs", "server/src/websocket.rs"], without: &["tokio", "std::net", "socket2", "crate::engine", "crate::routes", "crate::store"] },
    FileRule { paths: &["server/src/socket.rs"], without: &["warp", "crate::hub", "crate::engine", "crate::routes"] },
    FileRule { paths: &["server/src/tls.rs"], without: &["warp", "hyper*", "crate::hub", "crate::engine", "crate::routes"] },
    FileRule { paths: &["client/src/account.rs", "client/src/link.rs", "client/src/map.rs", "client/src/mention.rs", "client/src/outbox.rs", "client/src/panels.rs", "client/src/room.rs", "client/src/route.rs", "client/src/rows.rs", "client/src/state.rs", "client/src/timeline.rs"], without: &IO },
];

pub fn all(report: &mut Report) {
    report.part("directions of dependencies", || {
        let mut broken = Vec::new();
        for rule in &CRATES {
            broken.extend(check_crate(rule)?);
        }
        for rule in &FILES {
            for path in rule.paths {
                broken.extend(check_path(path, rule.without)?);
            }
        }
        if broken.is_empty() {
            return Ok(Outcome::passed());
        }
        for line in &broken {
            eprintln!("{line}");
        }
        Ok(Outcome::failed(format!("{} broken, the first: {}", broken.len(), broken[0])))
    });
}

fn check_crate(rule: &CrateRule) -> Result<Vec<String>> {
    let tree = output(
        cargo(&["tree", "--locked", "--prefix=none", "--format={p}", "--package", rule.package]).args([
            "--target",
            rule.target,
            "--edges",
            rule.edges,
        ]),
    )?;
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let found =
        names.into_iter().filter(|name| *name != rule.package && rule.without.iter().any(|f| fits(f, name)));
    Ok(found
        .map(|name| {
            format!(
                "{} depends on {name} (see: cargo tree -p {} --target {} -e {} -i {name})",
                rule.package, rule.package, rule.target, rule.edges
            )
        })
        .collect())
}

/// Whether a name is the forbidden one, or begins like a forbidden one that ends in `*`.
fn fits(forbidden: &str, name: &str) -> bool {
    forbidden.strip_suffix('*').map_or(forbidden == name, |start| name.starts_with(start))
}

fn check_path(path: &str, without: &[&str]) -> Result<Vec<String>> {
    let mut files = Vec::new();
    if let Some(directory) = path.strip_suffix('/') {
        collect(&root().join(directory), &mut files)?;
    } else {
        // A file that is gone must fail: otherwise a move would silently end the rule.
        files.push(root().join(path));
        let directory = root().join(path.trim_end_matches(".rs"));
        if directory.is_dir() {
            collect(&directory, &mut files)?;
        }
    }
    let mut broken = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file)
            .with_context(|| format!("a rule in xtask/src/directions.rs is about {}", file.display()))?;
        let name = file.strip_prefix(root()).unwrap_or(&file).display();
        broken.extend(scan(&source, without).map(|(line, word)| format!("{name}:{line} names {word}")));
    }
    Ok(broken)
}

/// All Rust files below a directory but those named `tests.rs`.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The lines (from 1) of a source that name something forbidden. Comments do not count, nor does anything
/// from the first `#[cfg(test)]` on, since tests stand at a file's end.
fn scan<'a>(source: &'a str, without: &'a [&str]) -> impl Iterator<Item = (usize, &'a str)> {
    let mut in_std_group = false;
    source.lines().take_while(|line| line.trim() != "#[cfg(test)]").enumerate().flat_map(
        move |(index, line)| {
            let code = line.split("//").next().unwrap_or_default();
            in_std_group |= code.contains("use std::{");
            let grouped = in_std_group;
            in_std_group &= !code.contains(';');
            without
                .iter()
                .filter(move |forbidden| names(code, forbidden, grouped))
                .map(move |word| (index + 1, *word))
        },
    )
}

/// Whether a line of code names a forbidden path. In a group, `use std::{fs, net}` names `std::fs`.
fn names(code: &str, forbidden: &str, in_std_group: bool) -> bool {
    let word = |character: char| character.is_alphanumeric() || character == '_';
    match forbidden.strip_prefix("std::") {
        Some(module) if in_std_group => code.split(|c| !word(c)).any(|name| name == module),
        Some(_) => code.split(|c| !word(c) && c != ':').any(|path| {
            path.strip_prefix(forbidden).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        }),
        None => code.split(|c| !word(c)).any(|name| fits(forbidden, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &[(usize, &str)]) {
        assert_eq!(scan(source, &IO).collect::<Vec<_>>(), expected, "{source}");
    }

    #[test]
    fn names_of_crates_are_found_as_whole_words() {
        check("use tokio::net;", &[(1, "tokio")]);
        check("let tokio_like = my_tokio;", &[]);
        check("fn f(e: gloo_net::Error) {}", &[(1, "gloo*")]);
        check("x\n\nuse std::time::Instant;", &[(3, "Instant")]);
    }

    #[test]
    fn parts_of_std_are_found_by_path_and_in_groups() {
        check("let f = std::fs::read(p);", &[(1, "std::fs")]);
        check("use std::fs;", &[(1, "std::fs")]);
        check("use std::{\n    fmt,\n    net::IpAddr,\n};\nlet net = 1;", &[(3, "std::net")]);
        check("use std::fmt; let fs = std::fsx::y;", &[]);
    }

    #[test]
    fn comments_and_tests_do_not_count() {
        check("// tokio runs this\nlet a = 1; // std::fs", &[]);
        check("fn f() {}\n#[cfg(test)]\nmod tests { use std::fs; }", &[]);
    }
}
