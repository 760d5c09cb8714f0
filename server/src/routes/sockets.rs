//! `/ws`, `/ws/echo` and `/ws/hello`: the handshake, the session cookie, and the hand-over of the socket.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use shared::model::Line;
use shared::protocol::SUBPROTOCOL;
use warp::Filter;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use warp::reject::Rejection;
use warp::reply::Response;

use super::{Context, text};
use crate::connection::{Purpose, Upgrade};
use crate::gate::Permit;
use crate::handshake::{Accepted, Head, Refused, accept};
use crate::hub::{Arrival, Mode};
use crate::routes::pages::{Session, session, set_cookie};

/// The sockets' addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    Chat,
    Echo,
    Hello,
}

/// Seconds between two events of `/ws/echo?events=`: what may be asked for.
const EVENT_SECONDS: std::ops::RangeInclusive<u64> = 1..=3_600;

pub(super) fn filter(context: Arc<Context>) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    let address = warp::path!("ws")
        .map(|| Address::Chat)
        .or(warp::path!("ws" / "echo").map(|| Address::Echo))
        .unify()
        .or(warp::path!("ws" / "hello").map(|| Address::Hello))
        .unify();
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    address
        .and(query)
        .and(warp::method())
        .and(warp::ext::get::<Version>())
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Arc<Permit>>())
        .and(warp::ext::optional::<OnUpgrade>())
        .map(move |address, query: String, method, version, headers, permit, on_upgrade| {
            answer(&context, address, &query, &method, version, &headers, permit, on_upgrade)
        })
}

#[expect(clippy::too_many_arguments, reason = "the parts of one request")]
fn answer(
    context: &Context,
    address: Address,
    query: &str,
    method: &Method,
    version: Version,
    headers: &HeaderMap,
    permit: Arc<Permit>,
    on_upgrade: Option<OnUpgrade>,
) -> Response {
    let head = Head { method, version, headers };
    let accepted = match accept(head, &context.rules, address == Address::Chat) {
        Ok(accepted) => accepted,
        Err(refused) => return refuse(refused),
    };
    let Some(on_upgrade) = on_upgrade else {
        return text(StatusCode::BAD_REQUEST, "This connection cannot be upgraded.\n");
    };
    let Accepted { key, mode: negotiated, deflate } = accepted;
    let is_named_in_query = query_value(query, "protocol") == Some(SUBPROTOCOL);
    let mode = if is_named_in_query { Mode::Full } else { negotiated };
    let mut cookie = None;
    let arrival = |token, ephemeral| Arrival { token, ephemeral, may_be_new: true, device: Line::default() };
    let purpose = match address {
        Address::Hello => Purpose::Hello,
        Address::Echo => Purpose::Echo { events: events(query) },
        Address::Chat => match session(headers, &context.secret, context.rules.scheme) {
            Session::Known(token) => Purpose::Chat { mode, arrival: arrival(token, false) },
            Session::Forged => {
                return text(
                    StatusCode::FORBIDDEN,
                    "The session cookie is not valid. Load the page again.\n",
                );
            }
            Session::None { fresh, token } => {
                cookie = Some(set_cookie(&fresh, context.rules.scheme));
                Purpose::Chat { mode, arrival: arrival(token, true) }
            }
        },
    };

    let mut response = Response::new(Default::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let values = [
        (header::SEC_WEBSOCKET_ACCEPT, Some(key)),
        (header::SEC_WEBSOCKET_EXTENSIONS, deflate.map(|deflate| deflate.header())),
        (header::SET_COOKIE, cookie),
    ];
    for (name, value) in values {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            out.insert(name, value);
        }
    }
    if negotiated == Mode::Full {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    let ping_interval = context.ping_interval;
    let message_bytes_max =
        if address == Address::Echo { context.max_echo_bytes } else { context.max_frame_bytes };
    let upgrade = Upgrade { on_upgrade, purpose, deflate, permit, message_bytes_max, ping_interval };
    if context.upgrades.send(upgrade).is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "The server goes down.\n");
    }
    response
}

/// `events=SECONDS` of a query; anything else asks for none.
fn events(query: &str) -> Option<Duration> {
    query_value(query, "events")?
        .parse()
        .ok()
        .filter(|seconds| EVENT_SECONDS.contains(seconds))
        .map(Duration::from_secs)
}

fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn refuse(refused: Refused) -> Response {
    let mut response = text(refused.status, refused.text);
    for (name, value) in refused.headers {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    response
}
