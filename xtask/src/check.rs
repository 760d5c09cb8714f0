//! `cargo xtask check`: what can be said about the sources without running them.
//!
//! Which way dependencies may point is in `directions`.

use crate::cargo::{cargo, run};
use crate::directions;
use crate::report::{Outcome, Report};

pub fn all(report: &mut Report) {
    format(report);
    directions::all(report);
    clippy(report, &[]);
    wasm(report);
}

pub fn format(report: &mut Report) {
    report.part("formatting", || run(&mut cargo(&["fmt", "--all", "--check"])).map(|()| Outcome::passed()));
}

pub fn clippy(report: &mut Report, environment: &[(&str, &str)]) {
    let arguments =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"];
    report.part("clippy", || {
        run(cargo(&arguments).envs(environment.iter().copied())).map(|()| Outcome::passed())
    });
}

/// That `shared` alone compiles for the browser. Comes after something that builds the server, whose build
/// script adds the target for wasm32 where it is missing.
pub fn wasm(report: &mut Report) {
    let arguments = ["check", "-p", "shared", "--locked", "--target", "wasm32-unknown-unknown"];
    report.part("shared compiles for wasm32", || run(&mut cargo(&arguments)).map(|()| Outcome::passed()));
}
