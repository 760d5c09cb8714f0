//! Whose request it is: the session cookie, or the token of a program in `Authorization`.
//!
//! It must not know users.

use warp::http::{HeaderMap, HeaderValue, header};

use crate::secrets::Secret;
use crate::store::TokenHash;
use crate::token;

/// The session cookie's name; and over TLS, where browsers then take it only from this very host and never
/// send it in the clear (RFC 6265bis §4.1.3.2).
const COOKIE: &str = "magpie_session";
const HOST_COOKIE: &str = "__Host-magpie_session";
/// How long a browser keeps a guest's cookie, in days: as long as browsers allow.
pub const COOKIE_DAYS_MAX: u32 = 400;

/// Whose request it is.
pub enum Session {
    /// A token that this server made.
    Known(TokenHash),
    /// A cookie that it did not make.
    Forged,
    /// No cookie: a fresh guest's token, and its hash.
    None { fresh: String, token: TokenHash },
}

fn cookie_name(scheme: &str) -> &'static str {
    if scheme == "https" { HOST_COOKIE } else { COOKIE }
}

/// Reads the session cookie. The other scheme's does not count: over TLS it could be anybody's on the way.
pub fn session(headers: &HeaderMap, secret: &[u8; 32], scheme: &str) -> Session {
    let name = cookie_name(scheme);
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(';'));
    let mut tokens = cookies.filter_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='));
    match (tokens.next(), tokens.next()) {
        (Some(token), None) => token::verify(secret, token).map_or(Session::Forged, Session::Known),
        (Some(_), Some(_)) => Session::Forged,
        (None, _) => match fresh(secret) {
            Some((fresh, token)) => Session::None { fresh, token },
            // Without random bytes from the system nothing is safe to hand out.
            None => Session::Forged,
        },
    }
}

/// A token that nobody has yet, and its hash; `None` if the system gives no random bytes.
pub fn fresh(secret: &[u8; 32]) -> Option<(String, TokenHash)> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    let fresh = token::mint(secret, random);
    let token = token::verify(secret, &fresh)?;
    Some((fresh, token))
}

/// The value of `Set-Cookie` for a token.
pub fn set_cookie(token: &str, scheme: &str, days: u32) -> String {
    let secure = if scheme == "https" { "; Secure" } else { "" };
    let seconds = days.min(COOKIE_DAYS_MAX) * 86_400;
    format!("{}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}", cookie_name(scheme))
}

/// The value of `Set-Cookie` that takes the cookie away.
pub fn clear_cookie(scheme: &str) -> String {
    set_cookie("", scheme, 0)
}

/// A program's token (RFC 6750 §2.1). `Some(None)` is one that cannot be right.
pub fn bearer(headers: &HeaderMap) -> Option<Option<TokenHash>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    let secret = |value: &HeaderValue| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let secret = scheme.eq_ignore_ascii_case("bearer").then(|| Secret::parse(token.trim()))?;
        Some(secret?.hash())
    };
    Some(if values.next().is_some() { None } else { secret(value) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Secrets;

    #[test]
    fn a_fresh_cookie_is_known_afterwards() {
        let secret = [9; 32];
        let with = |cookie: &str| {
            let sent = format!("other=1; {}", cookie.split(';').next().unwrap());
            HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&sent).unwrap())])
        };
        for scheme in ["http", "https"] {
            let Session::None { fresh, token } = session(&HeaderMap::new(), &secret, scheme) else {
                panic!("fresh")
            };
            let cookie = set_cookie(&fresh, scheme, 1);
            let mut headers = with(&cookie);
            assert!(matches!(session(&headers, &secret, scheme), Session::Known(known) if known == token));
            assert!(matches!(session(&headers, &[8; 32], scheme), Session::Forged));
            let other = if scheme == "http" { "https" } else { "http" };
            assert!(matches!(session(&headers, &secret, other), Session::None { .. }), "{scheme}");
            headers.append(header::COOKIE, headers[header::COOKIE].clone());
            assert!(matches!(session(&headers, &secret, scheme), Session::Forged));
        }
    }

    #[test]
    fn over_tls_the_cookie_stays_there() {
        let cookie = set_cookie("x", "https", 9_999);
        assert_eq!(
            cookie,
            "__Host-magpie_session=x; Path=/; HttpOnly; SameSite=Lax; Max-Age=34560000; Secure"
        );
        assert_eq!(
            set_cookie("x", "http", 90),
            "magpie_session=x; Path=/; HttpOnly; SameSite=Lax; Max-Age=7776000"
        );
        assert_eq!(clear_cookie("http"), "magpie_session=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0");
    }

    #[test]
    fn a_program_brings_its_token() {
        let secret = Secrets::new([1; 32]).make();
        let read = |values: &[&str]| {
            let values = values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap()));
            let mut headers = HeaderMap::new();
            values.for_each(|(name, value): (_, HeaderValue)| _ = headers.append(name, value));
            bearer(&headers)
        };
        let text = secret.text();
        assert_eq!(read(&[]), None);
        for good in [format!("Bearer {text}"), format!("bearer  {text}")] {
            assert_eq!(read(&[&good]), Some(Some(secret.hash())));
        }
        for bad in [text.clone(), format!("Basic {text}"), "Bearer x".into(), format!("Bearer {text}x")] {
            assert_eq!(read(&[&bad]), Some(None), "{bad}");
        }
        let good = format!("Bearer {text}");
        assert_eq!(read(&[&good, &good]), Some(None));
    }
}
