//! A server under measurement: a child process, so that its CPU time and memory are its own.
//!
//! It must not know what is asked of the server.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::client::Speech;

/// How long a server may take to listen.
const START_WAIT: Duration = Duration::from_secs(20);
/// Clock ticks a second in /proc (Linux fixes it for programs, whatever its own rate).
const TICKS_PER_SECOND: u64 = 100;

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
    child: Child,
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
        let mut command = match kind {
            Kind::Magpie => {
                std::fs::create_dir_all(data).with_context(|| format!("creating {}", data.display()))?;
                let mut command = Command::new(&place.magpie);
                command.arg("--data").arg(data);
                for limit in [
                    "--message-rate",
                    "--request-rate",
                    "--max-connections-per-address",
                    "--max-rooms-per-user",
                ] {
                    command.args([limit, "0"]);
                }
                command
            }
            Kind::PlainWarp | Kind::Floor => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(kind.name());
                command
            }
        };
        command.args(["--listen", listen]).env_remove("RUST_LOG").stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", kind.name()))?;
        let stderr = child.stderr.take().context("the server's log")?;
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
        let data = (kind == Kind::Magpie).then(|| data.to_owned());
        // From here on `drop` ends the child.
        let mut server = Server { kind, address: ([127, 0, 0, 1], 0).into(), child, data };
        server.address =
            rx.recv_timeout(START_WAIT).with_context(|| format!("{} does not listen", kind.name()))?;
        Ok(server)
    }

    /// CPU time that all its threads have used, in nanoseconds, to 10 ms.
    pub fn cpu_ns(&self) -> Result<u64> {
        let stat = self.proc("stat")?;
        // The name, in parentheses, may hold anything; fields after it are counted from the third.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let [user, system] = fields.get(11..13).context("fields of /proc/PID/stat")? else {
            bail!("fields of /proc/PID/stat")
        };
        let ticks = user.parse::<u64>()? + system.parse::<u64>()?;
        Ok(ticks * (1_000_000_000 / TICKS_PER_SECOND))
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
        Ok(kilobytes * 1024)
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path).with_context(|| format!("reading {path}: has the server ended?"))
    }

    /// Kills it (SIGKILL) and starts it again on the same port and data.
    pub fn restart(mut self, place: &Place) -> Result<Server> {
        let data = self.data.take().context("only magpie has data")?;
        self.child.kill()?;
        self.child.wait()?;
        Server::start_on(self.kind, place, &self.address.to_string(), &data)
    }

    /// Ends it.
    ///
    /// # Errors
    /// It had ended already, by itself.
    pub fn stop(mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{} ended by itself: {ended:?}", self.kind.name());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
