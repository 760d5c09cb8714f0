//! The embedded client and the session cookie that comes with its page.

use std::sync::Arc;

use warp::Filter;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::path::FullPath;
use warp::reject::Rejection;
use warp::reply::Response;

use super::{Context, text};
use crate::assets::{self, Asset};
use crate::store::TokenHash;
use crate::token;

/// The session cookie's name; and over TLS, where browsers then take it only from this very host and never
/// send it in the clear (RFC 6265bis §4.1.3.2).
const COOKIE: &str = "magpie_session";
const HOST_COOKIE: &str = "__Host-magpie_session";
/// Gives the cookie by itself, to a page that did not come from here, as under `trunk serve`.
const SESSION_PATH: &str = "/api/session";
/// Where browsers look for an icon unasked.
const ICON_PATH: &str = "/favicon.ico";
/// How long a browser keeps the cookie, in seconds: as long as browsers allow.
const COOKIE_SECONDS: u32 = 400 * 86_400;

/// Only our own files, and a socket to where the page came from. `'wasm-unsafe-eval'` allows no other eval.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// Whose request it is.
pub(super) enum Session {
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
pub(super) fn session(headers: &HeaderMap, secret: &[u8; 32], scheme: &str) -> Session {
    let name = cookie_name(scheme);
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(';'));
    let mut tokens = cookies.filter_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='));
    match (tokens.next(), tokens.next()) {
        (Some(token), None) => token::verify(secret, token).map_or(Session::Forged, Session::Known),
        (Some(_), Some(_)) => Session::Forged,
        (None, _) => {
            let mut random = [0; 16];
            // Without random bytes from the system nothing is safe to hand out.
            if getrandom::fill(&mut random).is_err() {
                return Session::Forged;
            }
            let fresh = token::mint(secret, random);
            match token::verify(secret, &fresh) {
                Some(token) => Session::None { fresh, token },
                None => Session::Forged,
            }
        }
    }
}

/// The value of `Set-Cookie` for a token.
pub(super) fn set_cookie(token: &str, scheme: &str) -> String {
    let secure = if scheme == "https" { "; Secure" } else { "" };
    let name = cookie_name(scheme);
    format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={COOKIE_SECONDS}{secure}")
}

pub(super) fn filter(context: Arc<Context>) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path::full().and(warp::method()).and(warp::header::headers_cloned()).and_then(
        move |path: FullPath, method: Method, headers: HeaderMap| {
            let answer = answer(&context, path.as_str(), &method, &headers);
            std::future::ready(answer.ok_or_else(warp::reject::not_found))
        },
    )
}

fn answer(context: &Context, path: &str, method: &Method, headers: &HeaderMap) -> Option<Response> {
    let is_page = is_page(path, context.lab.is_some());
    if path == SESSION_PATH && method == Method::GET {
        let mut response = text(StatusCode::NO_CONTENT, "");
        give_session(&mut response, context, headers);
        return Some(response);
    }
    let asset = match path {
        _ if is_page => Some(assets::page()),
        ICON_PATH => assets::icon(),
        _ => assets::get(path),
    }?;
    if method != Method::GET && method != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "This address does not take that method.\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    let mut response = serve(asset, path, headers);
    if is_page {
        let policy = HeaderValue::from_static(POLICY);
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        give_session(&mut response, context, headers);
    }
    Some(response)
}

/// Sets the cookie of a fresh guest, unless the request has one of ours.
fn give_session(response: &mut Response, context: &Context, headers: &HeaderMap) {
    let fresh = match session(headers, &context.secret, context.rules.scheme) {
        Session::Known(_) => None,
        Session::None { fresh, .. } => Some(fresh),
        // A cookie of another server at this address, or of data that was thrown away.
        Session::Forged => match session(&HeaderMap::new(), &context.secret, context.rules.scheme) {
            Session::None { fresh, .. } => Some(fresh),
            Session::Known(_) | Session::Forged => None,
        },
    };
    let cookie = fresh.map(|fresh| set_cookie(&fresh, context.rules.scheme));
    if let Some(value) = cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}

/// The addresses that the client's own router knows.
fn is_page(path: &str, has_lab: bool) -> bool {
    let has_one_part = |rest: &str| !rest.is_empty() && !rest.contains('/');
    path == "/"
        || path == "/lab" && has_lab
        || path.strip_prefix("/r/").is_some_and(has_one_part)
        || path.strip_prefix("/d/").is_some_and(has_one_part)
}

fn serve(asset: &'static Asset, path: &str, headers: &HeaderMap) -> Response {
    let value = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_known = value(header::IF_NONE_MATCH)
        .is_some_and(|tags| tags.split(',').map(str::trim).any(|tag| tag == "*" || tag == asset.etag));
    let (encoding, bytes) = assets::choose(asset, value(header::ACCEPT_ENCODING));
    let mut response = if is_known {
        let mut response = Response::new(Default::default());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(bytes::Bytes::from_static(bytes).into())
    };
    let out = response.headers_mut();
    let caching = if asset.immutable && asset.path == path {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    out.insert(header::ETAG, HeaderValue::from_static(asset.etag));
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if !is_known {
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
        if let Some(name) = encoding.header() {
            out.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clients_own_addresses_are_pages() {
        for path in ["/", "/r/lobby", "/d/0000000000001", "/lab"] {
            assert!(is_page(path, true), "{path}");
        }
        for path in ["/lab/", "/r/", "/r/a/b", "/d/", "/index.html", "/..", "/r", "/x"] {
            assert!(!is_page(path, true), "{path}");
        }
        assert!(!is_page("/lab", false));
    }

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
            let cookie = set_cookie(&fresh, scheme);
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
        let cookie = set_cookie("x", "https");
        assert_eq!(
            cookie,
            "__Host-magpie_session=x; Path=/; HttpOnly; SameSite=Lax; Max-Age=34560000; Secure"
        );
        assert_eq!(
            set_cookie("x", "http"),
            "magpie_session=x; Path=/; HttpOnly; SameSite=Lax; Max-Age=34560000"
        );
    }
}
