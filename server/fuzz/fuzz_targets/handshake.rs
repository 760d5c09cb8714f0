//! Any header values as a handshake: it is accepted as it should be, or refused with a known status.

#![no_main]

use libfuzzer_sys::fuzz_target;
use server::handshake::{Head, Rules, accept};
use warp::http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

/// A good handshake. A line of the input replaces one of these: its first byte says which, modulo their
/// number; from 128 on it is added instead.
const HEADERS: [(&str, &str); 8] = [
    ("host", "chat.example:8080"),
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-extensions", "permessage-deflate"),
    ("sec-websocket-protocol", "magpie.v1"),
    ("origin", "http://chat.example:8080"),
];

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for line in input.split(|byte| *byte == b'\n') {
        let [place, value @ ..] = line else { continue };
        let name = HeaderName::from_static(HEADERS[usize::from(*place) % HEADERS.len()].0);
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        if *place < 128 {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
    let rules =
        Rules { scheme: "http", allowed_origins: vec!["https://other.example".to_owned()], deflate: true };
    let head = Head { method: &Method::GET, version: Version::HTTP_11, headers: &headers };
    match accept(head, &rules, true) {
        Ok(accepted) => {
            assert_eq!(accepted.key.len(), 28);
            assert_eq!(headers.get_all("host").iter().count(), 1);
            let origin = headers["origin"].to_str().expect("a text").to_ascii_lowercase();
            let host = headers["host"].to_str().expect("a text").trim().to_ascii_lowercase();
            assert!(origin == format!("http://{host}") || origin == "https://other.example", "{origin}");
            if let Some(deflate) = accepted.deflate {
                assert!(deflate.server_bits.is_none_or(|bits| (8..=15).contains(&bits)), "{deflate:?}");
                HeaderValue::from_str(&deflate.header()).expect("a header's value");
            }
        }
        Err(refused) => assert!(matches!(refused.status.as_u16(), 400 | 403 | 426), "{refused:?}"),
    }
});
