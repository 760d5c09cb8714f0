//! `cargo xtask autobahn`: the Autobahn test suite, which tries WebSocket servers, against `/ws/echo`.
//!
//! The suite needs Python 2.7; it is put into an environment of its own below `target/xtask`. Several of its
//! processes share the cases, since it is the suite that takes the time, not the server. What counts as good
//! is decided here: nothing failed, nothing left unimplemented, every connection ended as it should. Autobahn
//! takes a dropped connection for a close frame; our own tests, in `server/tests/frames.rs`, do not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::cargo::{cargo, messages, work_dir};
use crate::report::{Outcome, Report};
use crate::test::run_with_limit;
use crate::tools;

/// All cases, in groups that one process of the suite runs: the longest first, to share them evenly.
const ALL: [&[&str]; 14] = [
    &["12.3.*"],
    &["12.2.*"],
    &["13.5.*"],
    &["13.3.*"],
    &["13.4.*"],
    &["13.2.*"],
    &["13.6.*"],
    &["12.4.*"],
    &["12.5.*"],
    &["13.1.*"],
    &["12.1.*"],
    &["13.7.*"],
    &["9.*"],
    &["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"],
];
const ALL_COUNT: usize = 517;

/// What takes seconds, for every `cargo xtask test`: of the compressed messages only the small ones. (To the
/// suite, `13.*.1` would mean 13.1.10 as well.)
const QUICK: [&[&str]; 3] = [
    &["9.*"],
    &[
        "12.1.1", "12.1.2", "12.1.3", "12.1.4", "13.1.1", "13.2.1", "13.3.1", "13.4.1", "13.5.1", "13.6.1",
        "13.7.1",
    ],
    &["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"],
];
const QUICK_COUNT: usize = 312;
/// What the quick cases are called in a report.
pub const QUICK_TITLE: &str = "Autobahn, quick cases";

/// The largest message in the suite, in bytes: case 9.1.6.
const ECHO_BYTES: &str = "16777216";
/// How the suite calls the server in its report.
const AGENT: &str = "magpie";
/// How long a group of cases may take. The suite has limits of its own for each case.
const GROUP_LIMIT: Duration = Duration::from_secs(1_800);
const START_LIMIT: Duration = Duration::from_secs(20);

/// Runs every case against a release build.
pub fn all(report: &mut Report) {
    report.part("Autobahn, all cases", || {
        let wstest = tools::wstest()?.context(tools::NO_PYTHON_2)?;
        run(&wstest, &build(&["--release"])?, &ALL, ALL_COUNT)
    });
}

/// Runs the quick cases against a debug build.
pub fn some(report: &mut Report) {
    report.part(QUICK_TITLE, || {
        let wstest = tools::wstest()?.context(tools::NO_PYTHON_2)?;
        run(&wstest, &build(&[])?, &QUICK, QUICK_COUNT)
    });
}

/// Runs the quick cases, as a part of all tests, against a server that is built already; `built` are the
/// messages of that.
pub fn quick(report: &mut Report, built: &[Value]) {
    report.part(QUICK_TITLE, || match tools::wstest()? {
        Some(wstest) => run(&wstest, &executable(built)?, &QUICK, QUICK_COUNT),
        // Systems ship this interpreter no more: a machine without it shall not fail for that.
        None => Ok(Outcome::excused(tools::NO_PYTHON_2)),
    });
}

fn build(flags: &[&str]) -> Result<PathBuf> {
    let build = ["build", "-p", "server", "--bin", "magpie", "--locked"];
    executable(&messages(cargo(&build).args(flags))?)
}

/// The server's program, by the messages of the build that made it.
fn executable(messages: &[Value]) -> Result<PathBuf> {
    let is_magpie = |message: &&Value| {
        message["target"]["name"] == "magpie"
            && message["target"]["kind"][0] == "bin"
            && message["profile"]["test"] == false
    };
    let path = messages.iter().filter(is_magpie).find_map(|message| message["executable"].as_str());
    path.map(PathBuf::from).context("the build made no program `magpie`")
}

fn run(wstest: &Path, magpie: &Path, groups: &[&[&str]], count: usize) -> Result<Outcome> {
    let directory = work_dir()?.join("autobahn");
    if directory.exists() {
        fs::remove_dir_all(&directory).context("removing the last run's reports")?;
    }
    fs::create_dir_all(&directory).context("creating the directory for reports")?;
    let server = Server::start(magpie, &directory)?;

    let waiting = Mutex::new(groups.iter().enumerate());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(groups.len());
    let results: Vec<Result<Vec<Case>>> = std::thread::scope(|scope| {
        let work = || -> Result<Vec<Case>> {
            let mut cases = Vec::new();
            while let Some((number, patterns)) = waiting.lock().ok().and_then(|mut waiting| waiting.next()) {
                let group = directory.join(number.to_string());
                cases.extend(run_group(wstest, &server.address, &group, patterns)?);
            }
            Ok(cases)
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect()
    });
    let mut cases: Vec<Case> = results.into_iter().collect::<Result<Vec<_>>>()?.concat();
    cases.sort();
    print!("{}", table(&cases));
    println!("Reports: {}", directory.display());
    judge(&cases, count)
}

/// Runs the suite once and reads its report.
fn run_group(wstest: &Path, address: &str, directory: &Path, patterns: &[&str]) -> Result<Vec<Case>> {
    fs::create_dir_all(directory)?;
    let server = json!({"agent": AGENT, "url": format!("ws://{address}/ws/echo")});
    let specification = json!({
        "outdir": directory, "servers": [server], "cases": patterns,
        "exclude-cases": [], "exclude-agent-cases": {},
    });
    let file = directory.join("spec.json");
    fs::write(&file, specification.to_string())?;
    let log = directory.join("wstest.log");
    let output = File::create(&log)?;
    let mut command = Command::new(wstest);
    command.args(["-m", "fuzzingclient", "-s"]).arg(&file).current_dir(directory);
    command.stdout(output.try_clone()?).stderr(output);
    let ended_well = run_with_limit(&mut command, GROUP_LIMIT)?;
    ensure!(ended_well, "wstest ended badly; see {}", log.display());
    let index = directory.join("index.json");
    let index = fs::read_to_string(&index).with_context(|| format!("reading {}", index.display()))?;
    read_index(&serde_json::from_str(&index).context("reading Autobahn's report")?)
}

/// One case and how it ended, in Autobahn's words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    /// Such as `[6, 4, 3]`.
    number: Vec<u32>,
    behavior: String,
    /// How the connection was closed.
    ending: String,
}

impl Case {
    fn is_bad(&self) -> bool {
        !matches!(self.behavior.as_str(), "OK" | "NON-STRICT" | "INFORMATIONAL")
            || !matches!(self.ending.as_str(), "OK" | "INFORMATIONAL")
    }

    fn is_good(&self) -> bool {
        self.behavior == "OK" && self.ending == "OK"
    }

    fn line(&self) -> String {
        let number: Vec<String> = self.number.iter().map(u32::to_string).collect();
        let Case { behavior, ending, .. } = self;
        format!("{} {behavior}, close {ending}", number.join("."))
    }
}

/// Reads the suite's index: an object of cases for each server.
fn read_index(index: &Value) -> Result<Vec<Case>> {
    let cases = index[AGENT].as_object().context("Autobahn's report does not name the server")?;
    let case = |(number, case): (&String, &Value)| {
        let text = |name: &str| case[name].as_str().map(str::to_owned).context("a case without a result");
        let number: Result<_, _> = number.split('.').map(str::parse).collect();
        Ok(Case { number: number?, behavior: text("behavior")?, ending: text("behaviorClose")? })
    };
    cases.iter().map(case).collect()
}

/// How many cases of each section ended in which way, and every case that is not simply good.
fn table(cases: &[Case]) -> String {
    let mut sections: BTreeMap<u32, [usize; 4]> = BTreeMap::new();
    let mut rest = String::new();
    for case in cases {
        let counts = sections.entry(case.number.first().copied().unwrap_or(0)).or_default();
        let column = match case.behavior.as_str() {
            _ if case.is_bad() => 3,
            "NON-STRICT" => 1,
            "INFORMATIONAL" => 2,
            _ => 0,
        };
        counts[column] += 1;
        if !case.is_good() {
            rest.push_str(&(case.line() + "\n"));
        }
    }
    let mut text = "section    good  non-strict  informational  bad\n".to_owned();
    let total = sections.values().fold([0; 4], |sum, counts| std::array::from_fn(|at| sum[at] + counts[at]));
    let lines = sections.iter().map(|(section, counts)| (section.to_string(), counts));
    for (section, [good, loose, informational, bad]) in lines.chain([("all".to_owned(), &total)]) {
        text.push_str(&format!("{section:>7} {good:>7} {loose:>11} {informational:>14} {bad:>4}\n"));
    }
    text + &rest
}

fn judge(cases: &[Case], count: usize) -> Result<Outcome> {
    ensure!(cases.len() == count, "{} cases ran, not {count}", cases.len());
    let bad: Vec<String> = cases.iter().filter(|case| case.is_bad()).map(Case::line).collect();
    let mut outcome = if bad.is_empty() { Outcome::passed() } else { Outcome::failed(bad.join("; ")) };
    outcome.counts.failed = bad.len();
    outcome.counts.passed = cases.len() - bad.len();
    Ok(outcome)
}

/// A server on a free port, with data of its own; it ends with this value.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(magpie: &Path, directory: &Path) -> Result<Server> {
        let log = directory.join("magpie.log");
        let mut command = Command::new(magpie);
        command.args(["--listen", "127.0.0.1:0", "--max-echo-bytes", ECHO_BYTES, "--data"]);
        command.arg(directory.join("data")).stdout(Stdio::null()).stderr(File::create(&log)?);
        // The suite tries the server as it is by itself.
        for (name, _) in std::env::vars_os() {
            if name == "RUST_LOG" || name.to_string_lossy().starts_with("MAGPIE_") {
                command.env_remove(name);
            }
        }
        let child = command.spawn().with_context(|| format!("starting {}", magpie.display()))?;
        let mut server = Server { child, address: String::new() };
        let end = Instant::now() + START_LIMIT;
        while Instant::now() < end && server.child.try_wait()?.is_none() {
            if let Some(address) =
                BufReader::new(File::open(&log)?).lines().find_map(|line| address(&line.ok()?))
            {
                server.address = address;
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the server did not start; see {}", log.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address that a line of the server's log names.
fn address(line: &str) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    entry["url"].as_str()?.strip_prefix("http://").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases() -> Vec<Case> {
        let case = |behavior: &str, ending: &str| json!({"behavior": behavior, "behaviorClose": ending});
        let index = json!({"magpie": {
            "1.1.1": case("OK", "OK"),
            "6.4.3": case("NON-STRICT", "OK"),
            "7.1.6": case("INFORMATIONAL", "INFORMATIONAL"),
            "10.1.1": case("OK", "UNCLEAN"),
            "13.7.18": case("UNIMPLEMENTED", "OK"),
        }});
        let mut cases = read_index(&index).unwrap();
        cases.sort();
        cases
    }

    #[test]
    fn what_failed_is_named_and_the_rest_counted() {
        let cases = cases();
        let outcome = judge(&cases, 5).unwrap();
        assert_eq!((outcome.counts.passed, outcome.counts.failed), (3, 2));
        assert_eq!(outcome.reason, "10.1.1 OK, close UNCLEAN; 13.7.18 UNIMPLEMENTED, close OK");
        assert_eq!(judge(&cases[..3], 3).unwrap().counts.failed, 0);
        assert!(judge(&cases, 6).is_err(), "a case that did not run is not good");
    }

    #[test]
    fn the_table_has_a_line_for_each_section_and_for_each_case_to_look_at() {
        let text = table(&cases());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["6", "0", "1", "0", "0"]);
        assert_eq!(lines[6].split_whitespace().collect::<Vec<_>>(), ["all", "1", "1", "1", "2"]);
        assert_eq!(lines.len(), 1 + 5 + 1 + 4);
    }

    #[test]
    fn the_address_is_read_from_the_log() {
        assert_eq!(address(r#"{"url":"http://127.0.0.1:4321"}"#), Some("127.0.0.1:4321".into()));
        assert_eq!(address("no JSON"), None);
    }
}
