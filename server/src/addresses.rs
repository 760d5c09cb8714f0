//! Which address a request comes from, if proxies stand in between. Pure.
//!
//! Only a proxy that the operator named is believed, and of what it passes on only what it, or another such
//! proxy, has seen itself. It must not know what is asked for.

use std::net::{IpAddr, SocketAddr};

use shared::network::Network;
use warp::http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Where a request comes from. Every request has it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub address: IpAddr,
    /// What the client speaks, to us or to the proxy: `https` or `http`.
    pub scheme: &'static str,
    /// The address is another than that of the connection.
    pub is_forwarded: bool,
}

/// The proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct Proxies(pub Vec<Network>);

impl Proxies {
    pub fn trusts(&self, address: IpAddr) -> bool {
        contains(&self.0, address)
    }

    /// Who sends a request over a connection from `peer` that speaks `scheme`.
    pub fn client(&self, peer: IpAddr, scheme: &'static str, headers: &HeaderMap) -> Client {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return Client { address: peer, scheme, is_forwarded: false };
        }
        let mut address = peer;
        // Each hop has added whom it heard from, at the end.
        for hop in elements(headers, FORWARDED_FOR).into_iter().rev() {
            let Some(hop) = parse(hop) else { break };
            address = hop;
            if !self.trusts(hop) {
                break;
            }
        }
        let scheme = match elements(headers, FORWARDED_PROTO).last() {
            Some(proto) if proto.eq_ignore_ascii_case("https") => "https",
            Some(proto) if proto.eq_ignore_ascii_case("http") => "http",
            _ => scheme,
        };
        Client { address, scheme, is_forwarded: address != peer }
    }
}

/// Whether one of some networks holds an address.
pub fn contains(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// Reads a network for an operator.
///
/// # Errors
/// A sentence for the operator.
pub fn network(text: &str) -> Result<Network, String> {
    Network::parse(text)
        .ok_or_else(|| "this is neither an address nor a network such as 10.0.0.0/8, or too wide".into())
}

/// The elements of a header that is a list, over all its lines.
fn elements<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let lines = headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or_default());
    lines.flat_map(|line| line.split(',')).map(str::trim).collect()
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::{HeaderName, HeaderValue};

    fn client(trusted: &[&str], peer: &str, headers: &[(&str, &str)]) -> (String, &'static str) {
        let proxies = Proxies(trusted.iter().map(|text| network(text).unwrap()).collect());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        let client = proxies.client(peer.parse().unwrap(), "http", &map);
        assert_eq!(client.is_forwarded, client.address != peer.parse::<IpAddr>().unwrap().to_canonical());
        (client.address.to_string(), client.scheme)
    }

    #[test]
    fn strangers_are_not_believed() {
        let headers = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-proto", "https")];
        for trusted in [&[][..], &["10.0.0.0/8"]] {
            assert_eq!(client(trusted, "203.0.113.9", &headers), ("203.0.113.9".into(), "http"));
        }
    }

    #[test]
    fn the_last_address_that_is_no_proxy_of_ours_wins() {
        let trusted = ["10.0.0.0/8", "::1"];
        let from = |headers: &[(&str, &str)]| client(&trusted, "10.0.0.1", headers).0;
        assert_eq!(from(&[]), "10.0.0.1");
        assert_eq!(from(&[("x-forwarded-for", "198.51.100.1")]), "198.51.100.1");
        // What the client says itself stands to the left.
        assert_eq!(from(&[("x-forwarded-for", "1.1.1.1, 198.51.100.1, 10.0.0.7")]), "198.51.100.1");
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "198.51.100.1,10.2.3.4")];
        assert_eq!(from(&lines), "198.51.100.1");
        assert_eq!(from(&[("x-forwarded-for", "10.0.0.3, 10.0.0.2")]), "10.0.0.3");
        assert_eq!(from(&[("x-forwarded-for", "1.1.1.1, unknown")]), "10.0.0.1");
        assert_eq!(from(&[("x-forwarded-for", "1.1.1.1, garbage, 10.0.0.2")]), "10.0.0.2");
        for written in ["2001:db8::5", "[2001:db8::5]", "[2001:db8::5]:4711"] {
            assert_eq!(from(&[("x-forwarded-for", written)]), "2001:db8::5");
        }
        assert_eq!(from(&[("x-forwarded-for", "198.51.100.1:80")]), "198.51.100.1");
        assert_eq!(from(&[("x-forwarded-for", "::ffff:198.51.100.1")]), "198.51.100.1");
        assert_eq!(client(&trusted, "::ffff:10.0.0.1", &[("x-forwarded-for", "8.8.8.8")]).0, "8.8.8.8");
    }

    #[test]
    fn the_proxy_says_what_the_client_speaks() {
        let scheme = |value| client(&["10.0.0.0/8"], "10.0.0.1", &[("x-forwarded-proto", value)]).1;
        assert_eq!(
            ["https", "HTTPS", "http, https", "http", "gopher"].map(scheme),
            ["https", "https", "https", "http", "http"]
        );
    }
}
