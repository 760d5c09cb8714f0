//! A server under measurement: a child process, so that its CPU time and memory are its own.
//!
//! It must not know what is asked of the server.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::client::Speech;
use crate::process::{self, Process};

/// How long a server may take to listen.
const START_WAIT: Duration = Duration::from_secs(60);
/// Flags that take off the limits which a load from one machine would reach.
pub const UNLIMITED: [&str; 8] = [
    "--message-rate",
    "0",
    "--request-rate",
    "0",
    "--max-connections-per-address",
    "0",
    "--max-rooms-per-user",
    "0",
];

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Magpie,
    PlainWarp,
    Floor,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Magpie => "magpie",
            Kind::PlainWarp => "plain-warp",
            Kind::Floor => "floor",
        }
    }

    pub fn speech(self) -> Speech {
        match self {
            Kind::Magpie => Speech::Magpie,
            Kind::PlainWarp => Speech::Text,
            Kind::Floor => Speech::Bare,
        }
    }
}

/// Where servers come from and keep their data.
#[derive(Clone, Debug)]
pub struct Place {
    /// The program `magpie`.
    pub magpie: PathBuf,
    /// A directory on a disk; each server gets one of its own in it.
    pub data: PathBuf,
}

/// A running server. It is killed when this is dropped.
pub struct Server {
    pub kind: Kind,
    pub address: SocketAddr,
    process: Process,
    data: Option<PathBuf>,
}

impl Server {
    /// Starts a server on a free port, with empty data.
    ///
    /// # Errors
    /// It does not come to listen.
    pub fn start(kind: Kind, place: &Place) -> Result<Server> {
        let data = place.data.join(kind.name());
        if data.exists() {
            std::fs::remove_dir_all(&data).with_context(|| format!("emptying {}", data.display()))?;
        }
        Server::start_on(kind, place, "127.0.0.1:0", &data)
    }

    /// Starts a server on an address with the data that is there.
    pub fn start_on(kind: Kind, place: &Place, listen: &str, data: &Path) -> Result<Server> {
        match kind {
            Kind::Magpie => Server::magpie(place, listen, data, &UNLIMITED.map(str::to_owned)),
            Kind::PlainWarp | Kind::Floor => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(kind.name());
                Server::spawn(kind, command, listen, None)
            }
        }
    }

    /// Starts a Magpie on an address with these data, and with these flags.
    ///
    /// # Errors
    /// It does not come to listen.
    pub fn magpie(place: &Place, listen: &str, data: &Path, flags: &[String]) -> Result<Server> {
        std::fs::create_dir_all(data).with_context(|| format!("creating {}", data.display()))?;
        let mut command = Command::new(&place.magpie);
        command.arg("--data").arg(data).args(flags);
        Server::spawn(Kind::Magpie, command, listen, Some(data.to_owned()))
    }

    fn spawn(kind: Kind, mut command: Command, listen: &str, data: Option<PathBuf>) -> Result<Server> {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("MAGPIE_") || name == "RUST_LOG") {
                command.env_remove(name);
            }
        }
        command.args(["--listen", listen]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command)?;
        let stderr = process.child.stderr.take().context("the server's log")?;
        let (tx, rx) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                match listening(&line) {
                    Some(address) => _ = tx.send(address),
                    // What a server complains about belongs beside its figures.
                    None if !line.contains("\"INFO\"") => eprintln!("    {line}"),
                    None => {}
                }
            }
        });
        let address =
            rx.recv_timeout(START_WAIT).with_context(|| format!("{} does not listen", kind.name()))?;
        Ok(Server { kind, address, process, data })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Tells it to end in good order, and waits until it has.
    ///
    /// # Errors
    /// It does not within `limit`.
    pub fn terminate(mut self, limit: Duration) -> Result<ExitStatus> {
        self.data = None;
        self.process.signal("TERM")?;
        self.process.wait(limit)
    }

    /// Kills it (SIGKILL); its data stay.
    pub fn kill(mut self) {
        self.data = None;
    }

    /// CPU time that all its threads have used, in nanoseconds, to 10 ms.
    pub fn cpu_ns(&self) -> Result<u64> {
        process::cpu_ns(self.id())
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> Result<u64> {
        process::rss_bytes(self.id())
    }

    /// Kills it (SIGKILL) and starts it again on the same port and data.
    pub fn restart(mut self, place: &Place) -> Result<Server> {
        let data = self.data.take().context("only magpie has data")?;
        let (kind, address) = (self.kind, self.address);
        self.kill();
        Server::start_on(kind, place, &address.to_string(), &data)
    }

    /// Ends it.
    ///
    /// # Errors
    /// It had ended already, by itself.
    pub fn stop(mut self) -> Result<()> {
        let ended = self.process.child.try_wait()?;
        ensure!(ended.is_none(), "{} ended by itself: {ended:?}", self.kind.name());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Before its files go.
        let _ = self.process.child.kill();
        let _ = self.process.child.wait();
        if let Some(data) = &self.data {
            let _ = std::fs::remove_dir_all(data);
        }
    }
}

/// The address in the line by which a server says that it listens.
fn listening(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(rest.len());
    rest[..end].parse().ok().filter(|_| line.contains("listening"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_log() {
        let address = Some("127.0.0.1:4321".parse().unwrap());
        let line = r#"{"level":"INFO","message":"listening","url":"http://127.0.0.1:4321","data":"d"}"#;
        assert_eq!(listening(line), address);
        assert_eq!(listening("listening on http://127.0.0.1:4321"), address);
        assert_eq!(listening(r#"{"message":"down"}"#), None);
    }
}
