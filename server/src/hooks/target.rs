//! Where a webhook's messages may be posted to. Pure.
//!
//! Anybody who keeps a room can name an address, and the server stands where they may not reach: so nothing but
//! the public internet is posted to, unless the operator allows it. Names are looked up elsewhere, and each
//! address that comes of it is judged here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use warp::http::Uri;

/// A webhook's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub is_tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// The value of the header `Host`.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// Reads `http://…` or `https://…`; `None` for anything else, and for one with a name or password in it.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return None;
        }
        let port = match (authority.port_u16(), is_tls) {
            (Some(port), _) => port,
            // What stands behind the host is no number of a port.
            (None, _) if authority.as_str() != authority.host() => return None,
            (None, true) => 443,
            (None, false) => 80,
        };
        Some(Self {
            is_tls,
            host: host.to_owned(),
            port,
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

/// Whether an address is on the public internet, as far as its numbers say (RFC 6890 and its registries):
/// not of this machine, its network, a provider's inside, a test or a group, in whichever form it is written.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a == 10
        || a == 127
        || a >= 224
        || matches!((a, b), (100, 64..=127) | (169, 254) | (172, 16..=31) | (192, 168) | (198, 18 | 19))
        || matches!((a, b, c), (192, 0, 0 | 2) | (192, 88, 99) | (198, 51, 100) | (203, 0, 113))
        // What virtual machines of Azure ask about themselves.
        || address == Ipv4Addr::new(168, 63, 129, 16))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match parts {
        // IPv4 in IPv6, by translators (RFC 6052), and by tunnels (RFC 3056).
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(v4(high, low))
        }
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Teredo and other protocols' own, documentation.
        [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        let read = |url: &str| {
            let Target { is_tls, host, port, authority, path } = Target::parse(url)?;
            Some(format!("{is_tls} {host} {port} {authority} {path}"))
        };
        for (url, parts) in [
            ("https://a.example/hook?x=1", "true a.example 443 a.example /hook?x=1"),
            ("http://a.example:8080", "false a.example 8080 a.example:8080 /"),
            ("http://[2001:db8::1]:81/x", "false 2001:db8::1 81 [2001:db8::1]:81 /x"),
            ("HTTPS://A.example", "true A.example 443 A.example /"),
            ("http://2130706433/", "false 2130706433 80 2130706433 /"),
        ] {
            assert_eq!(read(url).as_deref(), Some(parts));
        }
        for url in [
            "",
            "/x",
            "a.example",
            "ftp://a.example/",
            "https://",
            "https://user@a.example/",
            "https://user:word@a.example/",
            "https://a.example:99999/",
            "https://a.example:/",
            "https://a example/",
            "https://a.example/\r\nx: y",
        ] {
            assert_eq!(read(url), None, "{url:?}");
        }
    }
}
