//! Session tokens: what the cookie holds. Pure: secret and random bytes are arguments.
//!
//! A token is 128 random bits and a code that shows that this server made it (HMAC-SHA-256, RFC 2104, cut to
//! 128 bits), so that a guest costs no database row before they speak, and a forged token is refused without
//! a look-up. The store only ever sees its SHA-256.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::store::TokenHash;

const RANDOM_BYTES: usize = 16;
const CODE_BYTES: usize = 16;

/// A new token of 43 characters that a cookie can hold.
pub fn mint(secret: &[u8; 32], random: [u8; RANDOM_BYTES]) -> String {
    let mut bytes = random.to_vec();
    bytes.extend_from_slice(&mac(secret, &random).finalize().into_bytes()[..CODE_BYTES]);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The hash under which a token's session is kept; `None` for a token that this server did not make.
pub fn verify(secret: &[u8; 32], token: &str) -> Option<TokenHash> {
    // 43 characters hold the 32 bytes; anything longer is not decoded.
    if token.len() != 43 {
        return None;
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    let (random, code) = bytes.split_at_checked(RANDOM_BYTES)?;
    mac(secret, random).verify_truncated_left(code).ok()?;
    Some(Sha256::digest(&bytes).into())
}

fn mac(secret: &[u8; 32], random: &[u8]) -> Hmac<Sha256> {
    // RFC 2104 §2: a key shorter than a block is filled up with zeros.
    let mut key = [0; 64];
    key[..secret.len()].copy_from_slice(secret);
    let mut mac = Hmac::<Sha256>::new(&key.into());
    mac.update(random);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_tokens_are_taken() {
        let token = mint(&[1; 32], [2; 16]);
        assert!(verify(&[1; 32], &token).is_some());
        assert_eq!(verify(&[3; 32], &token), None);
        assert_ne!(verify(&[1; 32], &token), verify(&[1; 32], &mint(&[1; 32], [3; 16])));
        for place in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(verify(&[1; 32], std::str::from_utf8(&forged).unwrap()), None);
        }
        for bad in ["", "A", &"A".repeat(43), &"A".repeat(60_000), "ö"] {
            assert_eq!(verify(&[1; 32], bad), None);
        }
    }
}
