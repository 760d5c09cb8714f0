//! Measures Magpie, and beside it what it is compared with. `cargo xtask bench` builds and runs it;
//! docs/performance.md says what the figures mean.
//!
//! This file knows the command line; what measures is the library.

mod floor;
mod plain_warp;
mod plot;
mod targets;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};

use bench::report::{Failure, Machine, Report};
use bench::scenarios::{self, Run};
use bench::server_process::Place;

#[derive(Parser)]
#[command(name = "bench", about)]
enum Command {
    /// Measure.
    Run(RunArguments),
    #[command(flatten)]
    Server(ServerCommand),
}

/// What is measured beside Magpie; started by `run`.
#[derive(Subcommand)]
enum ServerCommand {
    /// The chat of warp's documentation.
    PlainWarp {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// A bare `send()` in a loop.
    Floor {
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Args)]
struct RunArguments {
    /// Scenarios; all without one.
    scenarios: Vec<String>,
    /// Small numbers of everything, in under a minute: whether it works, not how well.
    #[arg(long)]
    quick: bool,
    /// How often a comparison is repeated; the report has the medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The program `magpie`; without it the one beside this program.
    #[arg(long)]
    magpie: Option<PathBuf>,
    /// Where the servers keep their data: a directory on a disk, since `fdatasync` is measured too.
    #[arg(long, default_value = "target/bench/data")]
    data: PathBuf,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench/latest.json")]
    json: PathBuf,
    /// Also write the figures into docs/performance.md and draw docs/performance.svg.
    #[arg(long)]
    write_docs: bool,
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Run(arguments) => run(arguments),
        Command::Server(ServerCommand::PlainWarp { listen }) => plain_warp::serve(listen),
        Command::Server(ServerCommand::Floor { listen }) => floor::serve(listen),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: RunArguments) -> Result<()> {
    let magpie = match arguments.magpie {
        Some(magpie) => magpie,
        None => std::env::current_exe()?.with_file_name("magpie"),
    };
    ensure!(magpie.is_file(), "{} is not there: build it in release first", magpie.display());
    std::fs::create_dir_all(&arguments.data).context("creating the data directory")?;
    let run = Run {
        place: Place { magpie, data: arguments.data },
        is_quick: arguments.quick,
        rounds: arguments.rounds,
    };
    let mut chosen = Vec::new();
    for name in &arguments.scenarios {
        match scenarios::ALL.iter().find(|scenario| scenario.name == name) {
            Some(scenario) => chosen.push(scenario),
            None => {
                bail!("there is no scenario {name}; there are: {}", scenarios::ALL.map(|s| s.name).join(", "))
            }
        }
    }
    if chosen.is_empty() {
        chosen.extend(&scenarios::ALL);
    }
    let busy = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    if let Some(load) = busy.split(' ').next().and_then(|load| load.parse::<f64>().ok()).filter(|l| *l > 0.5)
        && !run.is_quick
    {
        eprintln!("The machine is busy (load {load}): the figures will be worse than they could be.");
    }

    let mut report =
        Report { machine: Machine::here(), is_quick: run.is_quick, rows: Vec::new(), failures: Vec::new() };
    for scenario in chosen {
        eprintln!("==> {}: {}", scenario.name, scenario.about);
        let mut rows = Vec::new();
        if let Err(error) = (scenario.run)(&run, &mut rows) {
            eprintln!("FAILED {}: {error:#}", scenario.name);
            let failure = Failure { scenario: scenario.name.into(), why: format!("{error:#}") };
            report.failures.push(failure);
        }
        // What was measured before a failure was checked in full.
        report.rows.append(&mut rows);
    }
    report.take_medians();
    report.save(&arguments.json)?;
    println!("{}\n\n{}", report.machine.line(), report.tables());
    if let Some(table) = targets::table(&report).filter(|_| !report.is_quick) {
        println!("### What is asked of it\n\n{table}");
    }
    println!("The figures are in {}.", arguments.json.display());
    if arguments.write_docs {
        ensure!(!report.is_quick, "a quick run shows nothing that belongs into the documentation");
        write_docs(&report)?;
    }
    ensure!(report.failures.is_empty(), "{} scenarios failed", report.failures.len());
    Ok(())
}

/// The page about performance, and the comments in it between which the figures stand.
const PAGE: &str = "docs/performance.md";
const PLOT: &str = "docs/performance.svg";
const BEGIN: &str = "<!-- figures: begin -->\n";
const END: &str = "<!-- figures: end -->";

fn write_docs(report: &Report) -> Result<()> {
    let page = std::fs::read_to_string(PAGE).with_context(|| format!("reading {PAGE}"))?;
    let figures = format!(
        "Measured on {}.\n\n{}\n{}",
        report.machine.line(),
        targets::table(report).unwrap_or_default(),
        report.tables()
    );
    std::fs::write(PAGE, replace_block(&page, &figures)?).with_context(|| format!("writing {PAGE}"))?;
    std::fs::write(PLOT, plot::svg(report)).with_context(|| format!("writing {PLOT}"))?;
    println!("{PAGE} and {PLOT} are written.");
    Ok(())
}

/// The page with other figures.
fn replace_block(page: &str, figures: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no place for figures")?;
    let (_, after) = rest.split_once(END).context("the place for figures does not end")?;
    Ok(format!("{before}{BEGIN}\n{figures}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_replace_those_that_were_there() {
        let page = format!("# Title\n{BEGIN}old\n{END}\nend");
        let new = replace_block(&page, "new\n").unwrap();
        assert_eq!(new, format!("# Title\n{BEGIN}\nnew\n{END}\nend"));
        assert_eq!(replace_block(&new, "new\n").unwrap(), new);
        assert!(replace_block("# Title", "new").is_err());
    }
}
