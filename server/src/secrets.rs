//! Secrets that are told to people once: bots' tokens, webhooks' addresses and keys, links. Pure: random bytes
//! are arguments.
//!
//! A secret is 32 bytes, shown in base64url; the store keeps a hash. A session's token (see [`crate::token`])
//! looks the same from outside, and its hash is made in another way: neither can be used as the other.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::store::TokenHash;

/// What is hashed with a secret, so that its hash is no session's.
const PURPOSE: &[u8] = b"magpie secret";
/// Characters of a secret: 32 bytes in base64url without padding (RFC 4648 §5).
const TEXT_CHARS: usize = 43;

/// Makes secrets out of one that the system gave: HMAC-SHA-256 (RFC 2104) of a counter. Whoever sees some of
/// them learns nothing of the others, and the same seed gives the same ones.
pub struct Secrets {
    seed: [u8; 32],
    made: u64,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("made", &self.made).finish_non_exhaustive()
    }
}

impl Secrets {
    /// `seed` must come from the system's random source.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, made: 0 }
    }

    /// A secret that was never made before.
    pub fn make(&mut self) -> Secret {
        self.made += 1;
        Secret(self.mac(b"secret", self.made))
    }

    /// The same secret each time.
    pub fn constant(&self, purpose: &[u8]) -> Secret {
        Secret(self.mac(purpose, 0))
    }

    /// A number for a random source of which nothing secret depends.
    pub fn number(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.mac(b"number", 0);
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    fn mac(&self, purpose: &[u8], number: u64) -> [u8; 32] {
        // RFC 2104 §2: a key shorter than a block is filled up with zeros.
        let mut key = [0; 64];
        key[..self.seed.len()].copy_from_slice(&self.seed);
        let mut mac = Hmac::<Sha256>::new(&key.into());
        mac.update(purpose);
        mac.update(&number.to_be_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// Something that only who is told it knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Reads what [`Secret::text`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != TEXT_CHARS {
            return None;
        }
        BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// What people are told.
    pub fn text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// What the store keeps instead.
    pub fn hash(&self) -> TokenHash {
        Sha256::new().chain_update(PURPOSE).chain_update(self.0).finalize().into()
    }

    /// The bytes, to sign with.
    pub fn key(&self) -> [u8; 32] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_secrets_and_none_twice() {
        let made = |seed| {
            let mut secrets = Secrets::new([seed; 32]);
            (0..100).map(|_| secrets.make().text()).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(made(1).len(), 100);
        assert_eq!(made(1), made(1));
        assert!(made(1).is_disjoint(&made(2)));
        let secrets = Secrets::new([1; 32]);
        assert!(!format!("{secrets:?}").contains("1, 1"));
    }

    #[test]
    fn a_secret_is_read_as_it_was_written() {
        let secret = Secrets::new([1; 32]).make();
        let text = secret.text();
        assert_eq!(text.len(), TEXT_CHARS);
        assert!(Secret::parse(&text) == Some(secret));
        assert_ne!(secret.hash(), secret.key());
        for bad in ["", "A", &"A".repeat(42), &"A".repeat(44), &"=".repeat(43), "ö"] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(crate::token::verify(&[1; 32], &text), None, "no session's token");
        let session = crate::token::mint(&[1; 32], [2; 16]);
        let as_secret = Secret::parse(&session).unwrap().hash();
        assert_ne!(crate::token::verify(&[1; 32], &session), Some(as_secret), "nor the other way round");
    }
}
