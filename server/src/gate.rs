//! Who may connect: how many connections there are, in all and from each address, how often an address opens
//! a socket, and which addresses are banned.
//!
//! A permit lives as long as its socket, through HTTP and WebSocket. Proxies that the operator named have no
//! limit of their own: whom they speak for is counted instead. It must not know requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::model::Ms;
use shared::network::Network;
use tokio::sync::watch;
use warp::http::HeaderMap;

use crate::addresses::{Client, Proxies, contains};
use crate::limits::{Limiter, Pace, TooOften};

/// Sockets that an address may open in a minute, for each that it may have at once: everybody behind it can
/// reload their page a few times.
const HANDSHAKES_PER_CONNECTION: u32 = 4;
/// Addresses whose handshakes are counted at a time.
const ADDRESSES_MAX: usize = 10_000;

/// Counts connections; shared by all accept loops.
#[derive(Debug)]
pub struct Gate {
    /// Most connections in all; 0 is no limit.
    max: usize,
    /// Most connections from one address (IPv6: one /64); 0 is no limit, of handshakes neither.
    max_per_address: usize,
    proxies: Proxies,
    counts: Mutex<Counts>,
    bans: watch::Sender<Arc<[Network]>>,
}

#[derive(Debug)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
    handshakes: Limiter<IpAddr>,
}

/// The right to hold one connection.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    /// Whose connection it is: of a client behind a proxy, the client's.
    address: IpAddr,
    /// It counts for its address.
    is_counted: bool,
    /// The permit of the connection itself, for a client behind a proxy.
    behind: Option<Arc<Permit>>,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The server is full.
    Server,
    /// The address has as many connections as it may have.
    Address,
}

impl Gate {
    pub fn new(max: usize, max_per_address: usize) -> Arc<Self> {
        Self::behind(Proxies::default(), max, max_per_address)
    }

    /// A gate that some proxies bring clients to.
    pub fn behind(proxies: Proxies, max: usize, max_per_address: usize) -> Arc<Self> {
        let counts = Counts { all: 0, by_address: HashMap::new(), handshakes: Limiter::new(ADDRESSES_MAX) };
        let bans = watch::Sender::new(Arc::default());
        Arc::new(Self { max, max_per_address, proxies, counts: Mutex::new(counts), bans })
    }

    /// Lets one connection in.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Full> {
        let is_counted = !self.proxies.trusts(address);
        let mut counts = self.counts();
        if self.max > 0 && counts.all >= self.max {
            return Err(Full::Server);
        }
        if is_counted {
            self.count(&mut counts, address)?;
        }
        counts.all += 1;
        Ok(Permit { gate: self.clone(), address, is_counted, behind: None })
    }

    fn count(&self, counts: &mut Counts, address: IpAddr) -> Result<(), Full> {
        let count = counts.by_address.entry(network(address)).or_default();
        if self.max_per_address > 0 && *count >= self.max_per_address {
            return Err(Full::Address);
        }
        *count += 1;
        Ok(())
    }

    /// Counts the handshake of a WebSocket.
    ///
    /// # Errors
    /// The address opens sockets too fast.
    pub fn handshake(&self, address: IpAddr, now: Ms) -> Result<(), TooOften> {
        let rate = (self.max_per_address as u32).saturating_mul(HANDSHAKES_PER_CONNECTION);
        self.counts().handshakes.take(network(address), Pace::per_minute(rate), now)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.counts().all
    }

    /// Bans these addresses, and no others any more.
    pub fn ban(&self, networks: Vec<Network>) {
        self.bans.send_if_modified(|bans| {
            let is_new = **bans != *networks;
            if is_new {
                *bans = networks.into();
            }
            is_new
        });
    }

    pub fn is_banned(&self, address: IpAddr) -> bool {
        contains(&self.bans.borrow(), address)
    }

    /// Changes when others are banned.
    pub fn bans(&self) -> watch::Receiver<Arc<[Network]>> {
        self.bans.subscribe()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Who sends a request over the connection.
    pub fn client(&self, scheme: &'static str, headers: &HeaderMap) -> Client {
        self.gate.proxies.client(self.address, scheme, headers)
    }

    /// The permit of a client's own socket: a new one for who is behind a proxy.
    ///
    /// # Errors
    /// The client has as many as they may have.
    pub fn of_client(self: &Arc<Self>, client: &Client) -> Result<Arc<Self>, Full> {
        if !client.is_forwarded {
            return Ok(self.clone());
        }
        self.gate.count(&mut self.gate.counts(), client.address)?;
        let (gate, behind) = (self.gate.clone(), Some(self.clone()));
        Ok(Arc::new(Self { gate, address: client.address, is_counted: true, behind }))
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whether the address was banned since.
    pub fn is_banned(&self) -> bool {
        self.gate.is_banned(self.address)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        if self.behind.is_none() {
            counts.all -= 1;
        }
        let address = network(self.address);
        if self.is_counted
            && let Some(count) = counts.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}

/// What counts as one address: a subscriber of IPv6 has a whole /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted_and_come_back() {
        let gate = Gate::new(3, 2);
        let enter = |text: &str| gate.enter(text.parse().unwrap());
        let first = enter("10.0.0.1").unwrap();
        let _second = enter("::ffff:10.0.0.1").unwrap();
        assert_eq!(enter("10.0.0.1").unwrap_err(), Full::Address);
        let third = enter("2001:db8::1").unwrap();
        assert_eq!(enter("10.0.0.2").unwrap_err(), Full::Server);
        drop((first, third));
        let _again = [enter("10.0.0.1").unwrap(), enter("2001:db8::2").unwrap()];
        assert_eq!(gate.counts.lock().unwrap().by_address.len(), 2);
    }

    #[test]
    fn behind_a_proxy_its_clients_are_counted() {
        let gate = Gate::behind(Proxies(vec![Network::parse("10.0.0.0/8").unwrap()]), 0, 1);
        let enter = |text: &str| gate.enter(text.parse().unwrap()).map(Arc::new);
        let proxy = [enter("10.0.0.1").unwrap(), enter("10.0.0.1").unwrap(), enter("10.0.0.1").unwrap()];
        let headers =
            |text: &str| HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), text.parse().unwrap())]);
        let client = |text: &str| proxy[0].client("http", &headers(text));
        let first = proxy[0].of_client(&client("192.0.2.1")).unwrap();
        assert_eq!(proxy[1].of_client(&client("192.0.2.1")).unwrap_err(), Full::Address);
        let second = proxy[1].of_client(&client("192.0.2.2")).unwrap();
        assert_eq!(enter("192.0.2.2").unwrap_err(), Full::Address);
        // Strangers are not believed, and keep their own permit.
        let stranger = enter("192.0.2.3").unwrap();
        let client = stranger.client("http", &headers("192.0.2.4"));
        assert!(Arc::ptr_eq(&stranger.of_client(&client).unwrap(), &stranger));
        assert_eq!(gate.connections(), 4);
        drop((proxy, first, second, stranger));
        assert_eq!((gate.connections(), gate.counts().by_address.len()), (0, 0));
    }

    #[test]
    fn handshakes_of_an_address_have_a_pace() {
        let of = |max| Gate::new(0, max);
        let address = "192.0.2.1".parse().unwrap();
        let gate = of(2);
        assert_eq!((0..100).filter(|_| gate.handshake(address, 0).is_ok()).count(), 8);
        assert_eq!(gate.handshake("192.0.2.2".parse().unwrap(), 0), Ok(()));
        assert!((0..10_000).all(|_| of(0).handshake(address, 0).is_ok()), "no limit");
    }

    #[test]
    fn banned_addresses_are_known_until_they_are_not() {
        let gate = Gate::new(0, 0);
        let permit = gate.enter("192.0.2.9".parse().unwrap()).unwrap();
        let mut changes = gate.bans();
        assert!(!permit.is_banned());
        gate.ban(vec![Network::parse("192.0.2.0/24").unwrap()]);
        assert!(permit.is_banned() && changes.has_changed().unwrap());
        changes.mark_unchanged();
        gate.ban(vec![Network::parse("192.0.2.0/24").unwrap()]);
        assert!(!changes.has_changed().unwrap());
        gate.ban(Vec::new());
        assert!(!permit.is_banned() && changes.has_changed().unwrap());
    }

    #[test]
    fn a_64_of_ipv6_is_one_address() {
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::ffff:1".parse().unwrap()));
        assert_ne!(network("2001:db8::1".parse().unwrap()), network("2001:db8:0:1::1".parse().unwrap()));
    }
}
