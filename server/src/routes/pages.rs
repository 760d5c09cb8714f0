//! The embedded client and the session cookie that comes with its page.

use std::sync::Arc;
use std::time::SystemTime;

use warp::Filter;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::path::FullPath;
use warp::reject::Rejection;
use warp::reply::Response;

use super::cookies::{COOKIE_DAYS_MAX, Session, fresh, session, set_cookie};
use super::{Context, text};
use crate::addresses::Client;
use crate::assets::{self, Asset};
use crate::engine::wall_clock;
use crate::store::{NewSession, StoreError};

/// Gives the cookie by itself, to a page that did not come from here, as under `trunk serve`.
const SESSION_PATH: &str = "/api/session";
/// Where browsers look for an icon unasked.
const ICON_PATH: &str = "/favicon.ico";
/// Only our own files, and a socket to where the page came from. `'wasm-unsafe-eval'` allows no other eval.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

pub(super) fn filter(context: Arc<Context>) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    let request = warp::path::full().and(warp::method()).and(warp::header::headers_cloned());
    request.and(warp::ext::get::<Client>()).and_then(
        move |path: FullPath, method: Method, headers: HeaderMap, client: Client| {
            let context = context.clone();
            async move {
                let answer = answer(&context, path.as_str(), &method, &headers, client.scheme).await;
                answer.ok_or_else(warp::reject::not_found)
            }
        },
    )
}

async fn answer(
    context: &Context,
    path: &str,
    method: &Method,
    headers: &HeaderMap,
    scheme: &str,
) -> Option<Response> {
    let is_page = is_page(path, context.lab.is_some());
    if path == SESSION_PATH && method == Method::GET {
        let mut response = text(StatusCode::NO_CONTENT, "");
        give_session(&mut response, context, headers, scheme).await;
        return Some(response);
    }
    let asset = match path {
        _ if is_page => Some(assets::page(path)),
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
        give_session(&mut response, context, headers, scheme).await;
    }
    Some(response)
}

/// Sets the cookie of a fresh guest, unless the request has one of ours that still serves. A fresh one costs
/// the store nothing: a guest begins with their first words to a socket.
async fn give_session(response: &mut Response, context: &Context, headers: &HeaderMap, scheme: &str) {
    let renew = || fresh(&context.secret).map(|(fresh, _)| fresh);
    let fresh = match session(headers, &context.secret, scheme) {
        Session::Known(token) => {
            let session = NewSession::of(token, wall_clock(SystemTime::now()));
            let ended = context.store.identify(session, None).await == Err(StoreError::Ended);
            if ended { renew() } else { None }
        }
        Session::None { fresh, .. } => Some(fresh),
        // A cookie of another server at this address, or of data that was thrown away.
        Session::Forged => renew(),
    };
    let cookie = fresh.map(|fresh| set_cookie(&fresh, scheme, COOKIE_DAYS_MAX));
    if let Some(value) = cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}

/// The addresses that the client's own router knows.
fn is_page(path: &str, has_lab: bool) -> bool {
    const PAGES: [&str; 7] = ["/", "/sign-in", "/join", "/reset", "/owner", "/settings", "/admin"];
    /// These are followed by one part.
    const PARENTS: [&str; 4] = ["/r/", "/d/", "/p/", "/settings/"];
    let has_one_part = |rest: &str| !rest.is_empty() && !rest.contains('/');
    PAGES.contains(&path)
        || path == "/lab" && has_lab
        || PARENTS.iter().any(|parent| path.strip_prefix(parent).is_some_and(has_one_part))
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
        for path in [
            "/",
            "/r/lobby",
            "/d/0000000000001",
            "/p/0000000000001",
            "/lab",
            "/sign-in",
            "/join",
            "/reset",
            "/owner",
            "/settings",
            "/settings/0000000000001",
            "/admin",
        ] {
            assert!(is_page(path, true), "{path}");
        }
        for path in [
            "/lab/",
            "/r/",
            "/r/a/b",
            "/d/",
            "/index.html",
            "/..",
            "/r",
            "/x",
            "/p/",
            "/p/a/b",
            "/settings/",
            "/join/x",
            "/admin/",
        ] {
            assert!(!is_page(path, true), "{path}");
        }
        assert!(!is_page("/lab", false));
    }
}
