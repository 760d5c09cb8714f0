//! The built program, on a port of its own: started, killed, and started again on the same port and data.
//!
//! It must not know browsers.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_magpie");
const START_LIMIT: Duration = Duration::from_secs(20);

pub struct Program {
    data: TempDir,
    child: Child,
    /// `http://ADDRESS:PORT`, or `https://…`.
    pub url: String,
    links: mpsc::Receiver<String>,
    flags: &'static [&'static str],
}

impl Program {
    /// Starts it with new data on a free port.
    pub fn start(flags: &'static [&'static str]) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let (child, url, links) = start(data.path(), "127.0.0.1:0", flags)?;
        Ok(Self { data, child, url, links, flags })
    }

    /// Ends it as a crash would: SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again after `kill`.
    pub fn start_again(&mut self) -> Result<()> {
        let (child, url, links) = start(self.data.path(), self.address(), self.flags)?;
        (self.child, self.links) = (child, links);
        ensure!(url == self.url, "it is now at {url}");
        Ok(())
    }

    /// The address and port it listens on.
    pub fn address(&self) -> &str {
        self.url.split_once("://").map_or("", |(_, address)| address)
    }

    /// The link by which somebody becomes its owner, which the log of the first start has.
    pub fn owner_link(&self) -> Result<String> {
        self.links.recv_timeout(START_LIMIT).context("no link in the log")
    }

    /// Runs `magpie announce`.
    pub fn announce(&self, text: &str) -> Result<()> {
        let output =
            Command::new(PROGRAM).arg("announce").arg(text).arg("--data").arg(self.data.path()).output()?;
        ensure!(output.status.success(), "magpie announce: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It fails only if it is dead already.
        let _ = self.kill();
    }
}

/// Starts the program and waits for the line of its log that names its address.
fn start(data: &Path, listen: &str, flags: &[&str]) -> Result<(Child, String, mpsc::Receiver<String>)> {
    let mut command = Command::new(PROGRAM);
    command.args(["--listen", listen, "--message-rate", "0", "--request-rate", "0"]).args(flags);
    command.arg("--data").arg(data).env("RUST_LOG", "info");
    let mut child =
        command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().context("starting magpie")?;
    let log = BufReader::new(child.stderr.take().context("no log")?);
    let (told, url) = mpsc::channel();
    let (linked, links) = mpsc::channel();
    std::thread::spawn(move || {
        // The whole log is read, so that the program never waits for a reader; it is shown with a failure.
        for line in log.lines().map_while(Result::ok) {
            eprintln!("magpie: {line}");
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(url) = entry["url"].as_str() {
                // Nobody waits for a second address.
                let _ = told.send(url.to_owned());
            }
            if let Some(link) = entry["link"].as_str() {
                let _ = linked.send(link.to_owned());
            }
        }
    });
    match url.recv_timeout(START_LIMIT) {
        Ok(url) => Ok((child, url, links)),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error).context("magpie named no address in its log")
        }
    }
}
