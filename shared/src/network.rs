//! Ranges of addresses as people write them: `203.0.113.7`, `203.0.113.0/24`, `2001:db8::/32`.
//!
//! It must not know who is kept away, or whose address it is.

use core::net::{IpAddr, Ipv6Addr};
use std::fmt;

/// Longest text that is looked at, in bytes: a full IPv6 address and its length.
const TEXT_BYTES_MAX: usize = 43;
/// The widest ranges that are taken: wider ones are slips of the finger that would hit everybody.
const V4_LENGTH_MIN: u8 = 8;
const V6_LENGTH_MIN: u8 = 16;

/// A range of addresses: those whose first `length` bits are the same (RFC 4632 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// Reads an address, or an address and a length behind a slash. The bits beyond the length are set to 0,
    /// and an IPv4 address in IPv6 form becomes what it is. `None` for anything else, and for ranges that
    /// are too wide.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (address, length) = match text.split_once('/') {
            Some((address, length)) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(length.parse::<u8>().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        let written: IpAddr = address.parse().ok()?;
        let address = written.to_canonical();
        let length = match (written, address) {
            // In ::ffff:0:0/96 the length counts the 96 bits, too.
            (IpAddr::V6(_), IpAddr::V4(_)) => length.map(|length| length.checked_sub(96)).unwrap_or(Some(32)),
            _ => Some(length.unwrap_or(bits(address))),
        }?;
        let least = if address.is_ipv4() { V4_LENGTH_MIN } else { V6_LENGTH_MIN };
        (least..=bits(address)).contains(&length).then(|| Self { address: cut(address, length), length })
    }

    /// Whether an address is in the range. IPv4 addresses in IPv6 form count as what they are.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && cut(address, self.length) == self.address
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all bits behind the first `length` set to 0.
fn cut(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_people_write_them() {
        for (text, shown) in [
            ("203.0.113.7", "203.0.113.7/32"),
            (" 203.0.113.7/24 ", "203.0.113.0/24"),
            ("10.9.8.7/8", "10.0.0.0/8"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("2001:db8:ffff::/32", "2001:db8::/32"),
            ("::ffff:203.0.113.7", "203.0.113.7/32"),
            ("::ffff:203.0.113.7/120", "203.0.113.0/24"),
        ] {
            assert_eq!(Network::parse(text).map(|network| network.to_string()).as_deref(), Some(shown));
        }
        for text in [
            "",
            "x",
            "203.0.113",
            "203.0.113.7/33",
            "203.0.113.7/",
            "203.0.113.7/+8",
            "203.0.113.7/24/24",
            "0.0.0.0/0",
            "10.0.0.0/7",
            "::/0",
            "2001:db8::/129",
            "::ffff:203.0.113.7/95",
            &"0".repeat(1_000),
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        let holds = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("203.0.113.0/24", "203.0.113.255") && !holds("203.0.113.0/24", "203.0.114.0"));
        assert!(holds("203.0.113.7", "203.0.113.7") && !holds("203.0.113.7", "203.0.113.8"));
        assert!(holds("203.0.113.7", "::ffff:203.0.113.7"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(!holds("2001:db8::/32", "32.1.13.184"));
    }
}
