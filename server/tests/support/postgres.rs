//! A PostgreSQL server for tests: on a free port, with data of its own, and gone with the process that started
//! it, however that ends. `POSTGRES_BIN` names the folder of its programs.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Makes the data where there are none, and runs the server until its input ends; then the data go, too, unless
/// the input said `keep`. `$1` is the data directory, `$2` the port, `$3` whether it syncs what it writes (`on`).
/// The server does not run as root.
const SCRIPT: &str = r#"
    set -eu
    as=
    if [ "$(id -u)" = 0 ]; then
        as="setpriv --reuid=postgres --regid=postgres --clear-groups"
        chown postgres "$1"
    fi
    cd "$1"
    [ -e "$1/PG_VERSION" ] || $as initdb -D "$1" -U magpie -A trust -E UTF8 --locale=C --no-sync >/dev/null
    $as postgres -D "$1" -p "$2" -k "$1" -c listen_addresses=127.0.0.1 -c max_connections=400 -c fsync="$3" \
        -c shared_buffers=64MB -c autovacuum=off </dev/null >/dev/null 2>&1 &
    trap : INT TERM HUP
    echo $!
    word=
    read -r word || true
    kill -QUIT $! 2>/dev/null || true
    wait $! || true
    [ "$word" = keep ] || rm -rf "$1"
"#;

pub struct Server {
    pub port: u16,
    folder: PathBuf,
    data: PathBuf,
    syncs: bool,
    databases: AtomicU64,
    /// Of the shell around the server, and of the server.
    shell: Child,
    input: Option<ChildStdin>,
    pub pid: u32,
}

/// The folder of PostgreSQL's programs, or a line that says why the test is skipped.
pub fn programs() -> Option<PathBuf> {
    let folder = std::env::var_os("POSTGRES_BIN").map(PathBuf::from);
    let folder = folder.filter(|folder| folder.join("postgres").is_file());
    if folder.is_none() {
        println!("skipped: POSTGRES_BIN names no folder with PostgreSQL's programs");
    }
    folder
}

/// The one server of this process.
pub fn shared() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Some(Server::start(&programs()?))).as_ref()
}

impl Server {
    /// Starts a server with fresh data, and waits until it answers.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, false)
    }

    /// The same; where it `syncs`, what it commits is on the disk, as it is when people use it.
    pub fn start_with(folder: &Path, syncs: bool) -> Self {
        let data = std::env::temp_dir().join(format!("magpie-postgres-{}", fastrand::u64(..)));
        std::fs::create_dir(&data).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (shell, input, pid) = run(folder, &data, port, syncs);
        let databases = AtomicU64::new(0);
        let server =
            Self { port, folder: folder.into(), data, syncs, databases, shell, input: Some(input), pid };
        server.wait();
        server
    }

    /// The address of a database of it.
    pub fn address(&self, database: &str) -> String {
        format!("postgres://magpie@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a database, which is empty.
    pub fn database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        assert!(self.sql("postgres", &format!("CREATE DATABASE {name}")).is_some());
        self.address(&name)
    }

    /// What a statement answers, by way of `psql`; `None` if it fails.
    pub fn sql(&self, database: &str, sql: &str) -> Option<String> {
        let output = Command::new(self.folder.join("psql"))
            .args(["-X", "-q", "-t", "-A", "-d", &self.address(database), "-c", sql])
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Sends the server and all its processes a signal, such as `STOP` or `KILL`.
    pub fn signal(&self, signal: &str) {
        if signal == "KILL" {
            // A process that it started just now would keep its memory, and it could not be restarted.
            let _ = Command::new("kill").args(["-STOP", &self.pid.to_string()]).status();
        }
        let of = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = of(self.pid).unwrap_or_default();
        let pids = children.split_whitespace().map(str::to_owned).chain([self.pid.to_string()]);
        // Some may just have ended.
        let _ = Command::new("kill").arg(format!("-{signal}")).args(pids).stderr(Stdio::null()).status();
    }

    /// Starts a server that was killed again, with the same data on the same port.
    pub fn restart(&mut self) {
        self.stop("keep\n");
        let (shell, input, pid) = run(&self.folder, &self.data, self.port, self.syncs);
        (self.shell, self.input, self.pid) = (shell, Some(input), pid);
        self.wait();
    }

    fn wait(&self) {
        let begin = Instant::now();
        while self.sql("postgres", "SELECT 1").is_none() {
            assert!(begin.elapsed() < Duration::from_secs(60), "the server does not answer");
        }
    }

    /// Stops the server at once.
    fn stop(&mut self, word: &str) {
        self.signal("CONT");
        if let Some(mut input) = self.input.take() {
            let _ = input.write_all(word.as_bytes());
        }
        let _ = self.shell.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop("");
    }
}

/// Runs the server in a shell. A process that ends, however it does, closes the shell's input.
fn run(folder: &Path, data: &Path, port: u16, syncs: bool) -> (Child, ChildStdin, u32) {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT, "postgres"])
        .arg(data)
        .arg(port.to_string())
        .arg(if syncs { "on" } else { "off" })
        .env("PATH", format!("{}:{path}", folder.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = line.trim().parse().expect("the server's process id");
    let input = shell.stdin.take().unwrap();
    (shell, input, pid)
}
