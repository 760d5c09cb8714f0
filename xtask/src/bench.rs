//! `cargo xtask bench`: builds the server and the load generator in release, and measures.
//!
//! What is measured, and all options, are the program `bench`'s own.

use anyhow::Context;

use crate::cargo::{cargo, root, run};
use crate::report::{Outcome, Report};
use crate::tools;

/// Builds and runs; `arguments` go to `bench run`.
pub fn run_with(report: &mut Report, arguments: &[&str]) {
    // Two commands, so that the features that the bench needs do not get into the server.
    let built = ["server", "bench"].iter().all(|package| {
        report.part(&format!("release build of {package}"), || {
            run(&mut cargo(&["build", "--release", "--locked", "--package", package]))
                .map(|()| Outcome::passed())
        })
    });
    if !built {
        return;
    }
    report.part("bench", || {
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        let program = root().join(target).join("release/bench");
        let program = program.canonicalize().with_context(|| format!("finding {}", program.display()))?;
        let mut bench = std::process::Command::new(program);
        match tools::cluster() {
            Ok(environment) => _ = bench.envs(environment),
            Err(missing) => eprintln!("{missing}"),
        }
        run(bench.current_dir(root()).arg("run").args(arguments)).map(|()| Outcome::passed())
    });
}
