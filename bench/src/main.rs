//! Measures Magpie, and beside it what it is compared with. `cargo xtask bench` builds and runs it;
//! docs/performance.md says what the figures mean.
//!
//! This file knows the command line. The servers are processes of their own (`server_process`), the load is
//! one thread (`client`), each scenario is a file, and `report` is what they give.

mod client;
mod floor;
mod frames;
mod plain_warp;
mod report;
mod scenarios;
mod server_process;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};

use report::{Failure, Machine, Report};
use scenarios::Run;
use server_process::Place;

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
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Run(arguments) => run(arguments),
        Command::Server(ServerCommand::PlainWarp { listen }) => plain_warp::serve(listen),
        Command::Server(ServerCommand::Floor { listen }) => floor::serve(listen),
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

    let mut report =
        Report { machine: Machine::here(), is_quick: run.is_quick, rows: Vec::new(), failures: Vec::new() };
    for scenario in chosen {
        eprintln!("==> {}: {}", scenario.name, scenario.about);
        let mut rows = Vec::new();
        match (scenario.run)(&run, &mut rows) {
            Ok(()) => report.rows.append(&mut rows),
            Err(error) => {
                eprintln!("FAILED {}: {error:#}", scenario.name);
                let failure = Failure { scenario: scenario.name.into(), why: format!("{error:#}") };
                report.failures.push(failure);
            }
        }
    }
    report.take_medians();
    report.save(&arguments.json)?;
    println!("{}", report.tables());
    println!("The figures are in {}.", arguments.json.display());
    ensure!(report.failures.is_empty(), "{} scenarios failed", report.failures.len());
    Ok(())
}
