//! A Redis server of a test's own: on a free port, with nothing kept, ended by its process id.
//! It must not use the server's own code.

#![allow(dead_code, reason = "each test program uses a part")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest wait for what should happen soon. Generous, since test machines are busy.
pub const WAIT: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(1);

pub struct Redis {
    program: PathBuf,
    directory: tempfile::TempDir,
    password: Option<&'static str>,
    port: u16,
    child: Option<Child>,
}

impl Redis {
    /// A running server; or a line that says why there is none.
    pub fn start() -> Option<Self> {
        let mut redis = Self::prepare(None)?;
        redis.run();
        Some(redis)
    }

    /// A server that is not running yet.
    pub fn prepare(password: Option<&'static str>) -> Option<Self> {
        let Some(program) = std::env::var_os("REDIS_SERVER") else {
            println!("skipped: REDIS_SERVER is not set; cargo xtask test sets it");
            return None;
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        Some(Self { program: program.into(), directory, password, port, child: None })
    }

    /// Starts it, on the same port each time.
    pub fn run(&mut self) {
        assert!(self.child.is_none());
        let mut command = Command::new(&self.program);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.args(["--enable-debug-command", "yes", "--port", &self.port.to_string(), "--dir"]);
        command.arg(self.directory.path());
        if let Some(password) = self.password {
            command.args(["--requirepass", password]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
        until("Redis listens", || TcpStream::connect(self.address()).is_ok());
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address())
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id();
        let kill = format!("kill -{name} {id}");
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Gives it a command and returns its answer as it stands on the wire.
    pub fn command(&self, words: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(format!("{words}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.strip_suffix("+OK\r\n").expect("QUIT is answered").to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Also ends one that is stopped.
        self.kill();
    }
}

/// Waits for a condition, and says how long that took.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < WAIT, "{what}: not within {} s", WAIT.as_secs());
        std::thread::park_timeout(POLL);
    }
    start.elapsed()
}
