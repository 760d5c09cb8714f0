//! Several nodes of Magpie on one PostgreSQL and one Redis, perhaps behind a proxy, all on free ports of this
//! machine and gone with the process that started them, however it ends.
//!
//! The programs are named by variables of the environment, which `cargo xtask` sets: POSTGRES_BIN,
//! REDIS_SERVER, NGINX, HAPROXY. It must not know what is asked of the nodes.

#[path = "../../server/tests/support/postgres.rs"]
#[allow(dead_code, reason = "a part is used here")]
pub mod postgres;
#[path = "../../server/tests/support/redis.rs"]
pub mod redis;

mod proxy;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process::{self, Guard};
use crate::server_process::{Place, Server};
use postgres::Server as Postgres;
pub use proxy::{Proxy, ProxyKind};
use redis::Redis;

/// How long something may take that should happen soon. Generous, since test machines are busy.
pub const WAIT: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);
/// Ports that the system gives to nobody by itself: a node that is away finds its port free when it is back,
/// however many connections there are from this machine to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Plan {
    pub magpie: PathBuf,
    pub nodes: usize,
    /// Flags of each node, besides those that make it one of the cluster.
    pub flags: Vec<String>,
    /// Whether PostgreSQL waits for the disk, as it does where people rely on it.
    pub syncs: bool,
}

pub struct Cluster {
    // Dropped in this order: the nodes first.
    pub nodes: Vec<Node>,
    pub postgres: Postgres,
    pub redis: Redis,
    redis_guard: Option<Guard>,
    _directory: tempfile::TempDir,
}

/// A node, which may be away.
pub struct Node {
    place: Place,
    pub address: SocketAddr,
    data: PathBuf,
    flags: Vec<String>,
    server: Option<Server>,
}

impl Cluster {
    /// Starts everything, and waits until each node is ready; or says what is missing on this machine.
    ///
    /// # Errors
    /// A part does not start.
    pub fn start(plan: &Plan) -> Result<Option<Cluster>> {
        let (Some(programs), Some(mut redis)) = (postgres::programs(), Redis::prepare(None)) else {
            return Ok(None);
        };
        let postgres = Postgres::start_with(&programs, plan.syncs);
        redis.run();
        let redis_guard = redis.id().map(Guard::over).transpose()?;
        let directory = tempfile::tempdir().context("a directory for the nodes")?;
        let database = postgres.database();
        let mut cluster = Cluster { nodes: Vec::new(), postgres, redis, redis_guard, _directory: directory };
        for index in 0..plan.nodes {
            let data = cluster._directory.path().join(format!("node-{index}"));
            let mut flags = vec!["--database".to_owned(), database.clone()];
            flags.extend(["--broker".to_owned(), cluster.redis.url()]);
            flags.extend(["--trusted-proxy".to_owned(), Ipv4Addr::LOCALHOST.to_string()]);
            flags.extend(plan.flags.iter().cloned());
            let place = Place { magpie: plan.magpie.clone(), data: data.clone() };
            let mut node = Node { place, address: free_address()?, data, flags, server: None };
            node.start()?;
            cluster.nodes.push(node);
        }
        for node in &cluster.nodes {
            node.ready()?;
        }
        Ok(Some(cluster))
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// A proxy before the nodes, by the configuration in docs/proxy; or says that there is no such program.
    ///
    /// # Errors
    /// It does not start.
    pub fn proxy(&self, kind: ProxyKind) -> Result<Option<Proxy>> {
        Proxy::start(kind, &self.addresses())
    }

    /// CPU time that Redis has used, in nanoseconds.
    pub fn redis_cpu_ns(&self) -> Result<u64> {
        process::cpu_ns(self.redis.id().context("Redis is not running")?)
    }

    /// CPU time that PostgreSQL and all its processes have used, in nanoseconds.
    pub fn postgres_cpu_ns(&self) -> Result<u64> {
        process::cpu_ns_with_children(self.postgres.pid)
    }

    /// Kills Redis.
    pub fn stop_redis(&mut self) {
        // The guard first: without its process it must not kill anything.
        self.redis_guard = None;
        self.redis.kill();
    }

    /// Starts Redis again, on its port and without data.
    pub fn start_redis(&mut self) -> Result<()> {
        self.redis.run();
        self.redis_guard = self.redis.id().map(Guard::over).transpose()?;
        Ok(())
    }
}

impl Node {
    /// Starts it, on the same port each time.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "the node is running");
        let server = Server::magpie(&self.place, &self.address.to_string(), &self.data, &self.flags)?;
        self.server = Some(server);
        Ok(())
    }

    pub fn server(&self) -> Result<&Server> {
        self.server.as_ref().context("the node is not running")
    }

    /// Tells it to end in good order, and waits until it has.
    ///
    /// # Errors
    /// It does not within `limit`, or not well.
    pub fn terminate(&mut self, limit: Duration) -> Result<()> {
        let status = self.server.take().context("the node is not running")?.terminate(limit)?;
        ensure!(status.success(), "the node ended with {status}");
        Ok(())
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    /// Waits until it says that it is ready.
    pub fn ready(&self) -> Result<()> {
        until("the node is ready", || get(self.address, "/readyz") == Some(200))
    }
}

/// The status of the answer to a GET; `None` without an answer.
pub fn get(address: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT).ok()?;
    stream.set_read_timeout(Some(WAIT)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// Waits until something is so.
///
/// # Errors
/// It is not within [`WAIT`].
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + WAIT;
    while !is_so() {
        ensure!(Instant::now() < end, "after {} s still waiting: {what}", WAIT.as_secs());
        std::thread::park_timeout(POLL);
    }
    Ok(())
}

/// An address on which nobody listens.
fn free_address() -> Result<SocketAddr> {
    let addresses = std::iter::repeat_with(|| SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(PORTS))));
    let mut free = addresses.take(1_000).filter(|address| TcpListener::bind(address).is_ok());
    free.next().context("no free port")
}
