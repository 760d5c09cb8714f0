//! The opening handshake of a WebSocket, decided from a request's head alone (RFC 6455 §4.2).
//!
//! Pure: no socket, no session, no warp. What is refused says how, in words.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tungstenite::handshake::derive_accept_key;
use warp::http::{HeaderMap, Method, StatusCode, Version, header};

use shared::protocol::SUBPROTOCOL;

use crate::hub::Mode;

/// What decides about a handshake besides the request.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `https` where the server itself speaks TLS, else `http`.
    pub scheme: &'static str,
    /// Origins that may connect besides the server's own, as `scheme://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// Whether permessage-deflate may be negotiated.
    pub deflate: bool,
}

impl Rules {
    /// The same rules for a client that speaks another scheme, to a proxy of ours.
    pub fn speaking(&self, scheme: &'static str) -> Self {
        Self { scheme, ..self.clone() }
    }
}

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub method: &'a Method,
    pub version: Version,
    pub headers: &'a HeaderMap,
}

/// An accepted handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// `Sec-WebSocket-Accept`.
    pub key: String,
    /// By the subprotocol; `Mode::Plain` without one.
    pub mode: Mode,
    pub deflate: Option<Deflate>,
}

/// Accepted parameters of permessage-deflate (RFC 7692 §7.1); there is never context takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// `server_max_window_bits`, where the client asked for it. Below 15 we agree and send nothing
    /// compressed: our compressor has one window size.
    pub server_bits: Option<u8>,
}

impl Deflate {
    /// The value of `Sec-WebSocket-Extensions`.
    pub fn header(self) -> String {
        let mut text =
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
        if let Some(bits) = self.server_bits {
            text.push_str(&format!("; server_max_window_bits={bits}"));
        }
        text
    }

    /// Whether we may compress what we send.
    pub fn compresses(self) -> bool {
        self.server_bits.is_none_or(|bits| bits == 15)
    }
}

/// A refused handshake: what to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: StatusCode,
    pub text: &'static str,
    pub headers: &'static [(&'static str, &'static str)],
}

const PLEASE_UPGRADE: Refused = Refused {
    status: StatusCode::UPGRADE_REQUIRED,
    text: "Please use a WebSocket client.",
    headers: &[("upgrade", "websocket"), ("connection", "Upgrade")],
};
const WRONG_VERSION: Refused = Refused {
    status: StatusCode::UPGRADE_REQUIRED,
    text: "This server speaks version 13 of the WebSocket protocol.",
    headers: &[("sec-websocket-version", "13"), ("upgrade", "websocket"), ("connection", "Upgrade")],
};

fn bad(text: &'static str) -> Refused {
    Refused { status: StatusCode::BAD_REQUEST, text, headers: &[] }
}

/// Decides about an upgrade. `subprotocols`: whether the address takes them (`/ws` does).
///
/// # Errors
/// The answer to give: 400, 403, 405 or 426 as the table in docs/protocol.md says.
pub fn accept(head: Head, rules: &Rules, subprotocols: bool) -> Result<Accepted, Refused> {
    let headers = head.headers;
    if head.method != Method::GET {
        return Err(Refused {
            status: StatusCode::METHOD_NOT_ALLOWED,
            text: "A WebSocket is opened with GET.",
            headers: &[("allow", "GET")],
        });
    }
    if head.version != Version::HTTP_11 {
        return Err(bad("A WebSocket is opened over HTTP/1.1."));
    }
    host(headers).ok_or(bad("The request needs one Host header."))?;
    if !lists(headers, "upgrade", "websocket") || !lists(headers, "connection", "upgrade") {
        return Err(PLEASE_UPGRADE);
    }
    match single(headers, "sec-websocket-version") {
        None => return Err(bad("The request needs one Sec-WebSocket-Version header.")),
        Some("13") => {}
        Some(_) => return Err(WRONG_VERSION),
    }
    let key = single(headers, "sec-websocket-key").ok_or(bad("The request needs one Sec-WebSocket-Key."))?;
    if !BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16) {
        return Err(bad("Sec-WebSocket-Key is 16 bytes in base64."));
    }
    if !is_origin_allowed(headers, rules) {
        return Err(Refused {
            status: StatusCode::FORBIDDEN,
            text: "Pages of another origin may not connect. The operator can allow them with --allow-origin.",
            headers: &[],
        });
    }
    let mode = if subprotocols { mode(headers)? } else { Mode::Plain };
    let deflate = if rules.deflate { deflate(headers) } else { None };
    Ok(Accepted { key: derive_accept_key(key.as_bytes()), mode, deflate })
}

/// Whether a state-changing request, or an upgrade, comes from an allowed page, or from none.
pub fn is_origin_allowed(headers: &HeaderMap, rules: &Rules) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    // Exactly: scheme, host and port. Browsers send the origin in lower case and without a default port.
    let is_own = origin
        .strip_prefix(rules.scheme)
        .and_then(|rest| rest.strip_prefix("://"))
        .zip(host(headers))
        .is_some_and(|(rest, host)| rest.eq_ignore_ascii_case(host));
    origins.next().is_none() && (is_own || rules.allowed_origins.iter().any(|allowed| allowed == origin))
}

/// What the client takes us for: host and port, as it typed them.
fn host(headers: &HeaderMap) -> Option<&str> {
    single(headers, header::HOST.as_str()).filter(|host| !host.is_empty())
}

/// The value of a header that stands exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() { None } else { Some(value.trim()) }
}

/// The elements of a comma-separated header.
fn elements<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| unquoted(value, ',')).map(str::trim).filter(|element| !element.is_empty())
}

/// Splits at a separator, but not within a quoted string (RFC 9110 §5.6.4).
fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match character {
            _ if was_escaped => {}
            '"' => is_quoted = !is_quoted,
            '\\' => is_escaped = is_quoted,
            _ => return character == separator && !is_quoted,
        }
        false
    })
}

fn lists(headers: &HeaderMap, name: &str, token: &str) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

fn mode(headers: &HeaderMap) -> Result<Mode, Refused> {
    let mut offered = elements(headers, "sec-websocket-protocol").peekable();
    if offered.peek().is_none() {
        return Ok(Mode::Plain);
    }
    if offered.any(|name| name == SUBPROTOCOL) {
        Ok(Mode::Full)
    } else {
        Err(bad("This server speaks the subprotocol magpie.v1, or none."))
    }
}

/// The first offer of permessage-deflate that we can keep: offers stand in the order in which the client
/// prefers them, and one with anything unknown, doubled or out of range is passed over (RFC 7692 §5, §7.1).
fn deflate(headers: &HeaderMap) -> Option<Deflate> {
    elements(headers, "sec-websocket-extensions").find_map(|offer| {
        let mut parts = unquoted(offer, ';').map(str::trim);
        if parts.next() != Some("permessage-deflate") {
            return None;
        }
        let mut seen: Vec<&str> = Vec::new();
        let mut server_bits = None;
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
                None => (part, None),
            };
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
            match (name, value) {
                ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
                // A hint. We leave it out of our answer, so the client may use what window it likes (§7.1.2.2).
                ("client_max_window_bits", None) => {}
                ("client_max_window_bits", Some(value)) => _ = window_bits(value)?,
                ("server_max_window_bits", Some(value)) => server_bits = Some(window_bits(value)?),
                _ => return None,
            }
        }
        Some(Deflate { server_bits })
    })
}

/// 8 to 15 without leading zeros (RFC 7692 §7.1.2); a value may be quoted (RFC 6455 §9.1).
fn window_bits(value: &str) -> Option<u8> {
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let bits: u8 = value.parse().ok().filter(|bits| (8..=15).contains(bits))?;
    (value == bits.to_string()).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::{HeaderName, HeaderValue};

    const GOOD: [(&str, &str); 5] = [
        ("host", "chat.example:8080"),
        ("upgrade", "websocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in list.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    /// The good handshake with headers replaced (`name: None` removes) and added.
    fn check(
        replaced: &[(&str, Option<&str>)],
        added: &[(&str, &str)],
        method: Method,
        version: Version,
    ) -> Result<Accepted, (u16, bool)> {
        let mut list: Vec<(&str, &str)> = Vec::new();
        for (name, value) in GOOD {
            match replaced.iter().find(|(other, _)| *other == name) {
                Some((_, None)) => {}
                Some((_, Some(other))) => list.push((name, other)),
                None => list.push((name, value)),
            }
        }
        list.extend(added);
        let rules =
            Rules { scheme: "http", allowed_origins: vec!["https://other.example".into()], deflate: true };
        accept(Head { method: &method, version, headers: &headers(&list) }, &rules, true).map_err(|refused| {
            (refused.status.as_u16(), refused.headers.contains(&("sec-websocket-version", "13")))
        })
    }

    fn get(replaced: &[(&str, Option<&str>)], added: &[(&str, &str)]) -> Result<Accepted, (u16, bool)> {
        check(replaced, added, Method::GET, Version::HTTP_11)
    }

    #[test]
    fn the_rfc_example_is_accepted() {
        let accepted = get(&[], &[]).unwrap();
        assert_eq!(accepted.key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!((accepted.mode, accepted.deflate), (Mode::Plain, None));
    }

    #[test]
    fn bad_handshakes_have_their_answers() {
        assert_eq!(check(&[], &[], Method::POST, Version::HTTP_11), Err((405, false)));
        assert_eq!(check(&[], &[], Method::GET, Version::HTTP_10), Err((400, false)));
        assert_eq!(get(&[("host", None)], &[]), Err((400, false)));
        assert_eq!(get(&[("upgrade", None)], &[]), Err((426, false)));
        assert_eq!(get(&[("connection", Some("keep-alive"))], &[]), Err((426, false)));
        assert_eq!(get(&[("sec-websocket-version", Some("8"))], &[]), Err((426, true)));
        assert_eq!(get(&[("sec-websocket-version", Some("14"))], &[]), Err((426, true)));
        assert_eq!(get(&[("sec-websocket-version", None)], &[]), Err((400, false)));
        for key in [None, Some("c2hvcnQ="), Some("not base64 at all!!!!!!!"), Some("")] {
            assert_eq!(get(&[("sec-websocket-key", key)], &[]), Err((400, false)), "{key:?}");
        }
        assert_eq!(get(&[], &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]), Err((400, false)));
    }

    #[test]
    fn only_own_and_allowed_origins_connect() {
        for origin in ["http://chat.example:8080", "https://other.example"] {
            assert!(get(&[], &[("origin", origin)]).is_ok(), "{origin}");
        }
        for origin in [
            "null",
            "http://chat.example",
            "https://chat.example:8080",
            "http://chat.example:8081",
            "http://chat.example:80800",
            "http://evil.chat.example:8080",
            "http://chat.example:8080.evil.example",
            "https://other.example.evil.example",
            "",
        ] {
            assert_eq!(get(&[], &[("origin", origin)]), Err((403, false)), "{origin}");
        }
        let two = [("origin", "http://chat.example:8080"), ("origin", "http://evil.example")];
        assert_eq!(get(&[], &two), Err((403, false)));
    }

    #[test]
    fn subprotocols_are_negotiated() {
        let mode = |value| get(&[], &[("sec-websocket-protocol", value)]).map(|accepted| accepted.mode);
        assert_eq!(mode("magpie.v1"), Ok(Mode::Full));
        assert_eq!(mode("chat, magpie.v1"), Ok(Mode::Full));
        assert_eq!(mode("chat, superchat"), Err((400, false)));
        assert_eq!(mode("magpie.v11"), Err((400, false)));
    }

    /// The window that was agreed on, if anything was: `Some(None)` without a word about it.
    fn offer(value: &str) -> Option<Option<u8>> {
        let accepted = get(&[], &[("sec-websocket-extensions", value)]).unwrap();
        accepted.deflate.map(|deflate| deflate.server_bits)
    }

    #[test]
    fn deflate_is_accepted_with_every_parameter_of_the_rfc() {
        for value in [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=\"15\"",
            "permessage-deflate;client_max_window_bits = 10 ;server_no_context_takeover",
        ] {
            assert_eq!(offer(value), Some(None), "{value}");
        }
        for bits in 8..=15 {
            let value = format!("permessage-deflate; server_max_window_bits={bits}; client_max_window_bits");
            assert_eq!(offer(&value), Some(Some(bits)), "{value}");
        }
        assert_eq!(offer("permessage-deflate; server_max_window_bits=\"9\""), Some(Some(9)));
    }

    #[test]
    fn deflate_is_declined_where_an_offer_breaks_the_rfc() {
        for value in [
            "x-webkit-deflate-frame",
            "Permessage-Deflate",
            "permessage-deflate; ",
            "permessage-deflate; =10",
            "permessage-deflate; foo",
            "permessage-deflate; foo=1",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; client_no_context_takeover=",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits",
            "a=\"b, permessage-deflate, c\"",
        ] {
            assert_eq!(offer(value), None, "{value}");
        }
        for bits in ["", "\"\"", "\"", "7", "16", "010", "08", "+9", "-9", "9.0", "9\"", "\"9", "1000", "ten"]
        {
            for name in ["server_max_window_bits", "client_max_window_bits"] {
                assert_eq!(offer(&format!("permessage-deflate; {name}={bits}")), None, "{name}={bits}");
            }
        }
    }

    #[test]
    fn the_first_offer_of_deflate_that_we_can_keep_is_taken() {
        let (nine, ten) =
            ("permessage-deflate; server_max_window_bits=9", "permessage-deflate; server_max_window_bits=10");
        assert_eq!(offer(&format!("{nine}, permessage-deflate")), Some(Some(9)));
        assert_eq!(offer(&format!("permessage-deflate, {nine}")), Some(None));
        assert_eq!(offer(&format!("permessage-deflate; foo=\"a,b;c\\\"\", {ten}")), Some(Some(10)));
        assert_eq!(offer("permessage-deflate; foo, x-other; y=1, permessage-deflate"), Some(None));
        // As one header or several.
        let two = [("sec-websocket-extensions", "x-other"), ("sec-websocket-extensions", nine)];
        let agreed = get(&[], &two).unwrap().deflate.unwrap();
        let header = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(agreed.header(), format!("{header}; server_max_window_bits=9"));
        assert_eq!(Deflate { server_bits: None }.header(), header);
        // Our compressor has one window, of 15 bits.
        let compresses = [None, Some(9), Some(15)].map(|server_bits| Deflate { server_bits }.compresses());
        assert_eq!(compresses, [true, false, true]);
    }
}
