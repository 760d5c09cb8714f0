//! A proxy before some nodes, by the very file in docs/proxy that operators are given: only addresses are put
//! into it. What a machine's own configuration has around that file is here, for a process without rights.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{free_address, get, until};
use crate::process::Process;

const NGINX_CONF: &str = include_str!("../../../docs/proxy/nginx.conf");
const HAPROXY_CFG: &str = include_str!("../../../docs/proxy/haproxy.cfg");
/// The nodes in those files.
const NODES: [&str; 3] = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"];
/// Connections of the proxy, to clients and to nodes.
const CONNECTIONS: usize = 8_000;
/// Lines of its log that are shown.
const LOG_LINES: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    Nginx,
    Haproxy,
}

impl ProxyKind {
    /// The program; or a line that says why the test is skipped.
    fn program(self) -> Option<PathBuf> {
        let variable = match self {
            ProxyKind::Nginx => "NGINX",
            ProxyKind::Haproxy => "HAPROXY",
        };
        let program = std::env::var_os(variable).map(PathBuf::from).filter(|program| program.is_file());
        if program.is_none() {
            println!("skipped: {variable} is not set; cargo xtask test sets it");
        }
        program
    }
}

/// A running proxy.
pub struct Proxy {
    pub address: SocketAddr,
    // Before its files.
    _process: Process,
    directory: tempfile::TempDir,
}

impl Proxy {
    /// Starts one before three nodes, and waits until it passes requests on.
    ///
    /// # Errors
    /// It does not.
    pub fn start(kind: ProxyKind, nodes: &[SocketAddr]) -> Result<Option<Proxy>> {
        let Some(program) = kind.program() else { return Ok(None) };
        let address = free_address()?;
        let directory = tempfile::tempdir().context("a directory for the proxy")?;
        let at = |name: &str| directory.path().join(name);
        let mut command = Command::new(program);
        match kind {
            ProxyKind::Nginx => {
                let site = with_addresses(NGINX_CONF, "listen 80;", &format!("listen {address};"), nodes)?;
                std::fs::write(at("magpie.conf"), site)?;
                // Debian's would want to write into /var. Who is root stays root.
                let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
                let user = if is_root { "user root root;" } else { "" };
                let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|name| format!("{name}_temp_path {name};\n"))
                    .concat();
                let around = format!(
                    "{user} daemon off; pid nginx.pid; worker_processes 2;\n\
                     events {{ worker_connections {CONNECTIONS}; }}\n\
                     http {{\naccess_log off;\n{temporary}include magpie.conf;\n}}\n"
                );
                std::fs::write(at("nginx.conf"), around)?;
                command.arg("-p").arg(directory.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
            }
            ProxyKind::Haproxy => {
                let site = with_addresses(HAPROXY_CFG, "bind :80", &format!("bind {address}"), nodes)?;
                std::fs::write(at("magpie.cfg"), site)?;
                std::fs::write(at("global.cfg"), format!("global\n    maxconn {}\n", CONNECTIONS / 2))?;
                command.args(["-db", "-q", "-f"]).arg(at("global.cfg")).arg("-f").arg(at("magpie.cfg"));
            }
        }
        // Its own complaints would be many where nodes come and go by design.
        let log = std::fs::File::create(at("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = Process::spawn(&mut command)?;
        until("the proxy passes on what it is asked", || get(address, "/healthz") == Some(200))
            .with_context(|| {
                let log = std::fs::read_to_string(at("log")).unwrap_or_default();
                format!("{kind:?} says: {log}")
            })?;
        Ok(Some(Proxy { address, _process: process, directory }))
    }

    /// The end of what it complained about.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// One of the files with other addresses.
fn with_addresses(file: &str, listen: &str, our_listen: &str, nodes: &[SocketAddr]) -> Result<String> {
    ensure!(nodes.len() == NODES.len(), "the files in docs/proxy are for {} nodes", NODES.len());
    ensure!(file.matches(listen).count() == 1, "`{listen}` does not stand once in the file");
    let mut file = file.replace(listen, our_listen);
    for (theirs, ours) in NODES.iter().zip(nodes) {
        ensure!(file.contains(theirs), "the file does not name {theirs}");
        file = file.replace(theirs, &ours.to_string());
    }
    Ok(file)
}
