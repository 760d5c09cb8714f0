//! `/ws`, `/ws/echo` and `/ws/hello`: the handshake, the session cookie or token, and the hand-over of the
//! socket.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::upgrade::OnUpgrade;
use shared::protocol::SUBPROTOCOL;
use shared::rights::Role;
use warp::Filter;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use warp::reject::Rejection;
use warp::reply::Response;

use super::cookies::{COOKIE_DAYS_MAX, Session, bearer, session, set_cookie};
use super::{Context, device, text};
use crate::addresses::Client;
use crate::connection::{Purpose, Upgrade};
use crate::engine::wall_clock;
use crate::gate::{Full, Permit};
use crate::handshake::{Accepted, Head, Refused, accept};
use crate::hub::{Arrival, Mode};
use crate::store::{Identity, NewSession, StoreError, TokenHash};

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
        .and(warp::ext::get::<Client>())
        .and(warp::ext::get::<Arc<Permit>>())
        .and(warp::ext::optional::<OnUpgrade>())
        .then(move |address, query: String, method, version, headers, client, permit, on_upgrade| {
            let context = context.clone();
            async move {
                let call = Call { context: &context, address, query, method, version, headers, client };
                call.answer(permit, on_upgrade).await.unwrap_or_else(|refusal| *refusal)
            }
        })
}

/// The parts of one request.
struct Call<'a> {
    context: &'a Context,
    address: Address,
    query: String,
    method: Method,
    version: Version,
    headers: HeaderMap,
    client: Client,
}

/// An answer that is no.
type Refusal = Box<Response>;

fn refusal(status: StatusCode, sentence: &'static str) -> Refusal {
    Box::new(text(status, sentence))
}

impl Call<'_> {
    async fn answer(&self, permit: Arc<Permit>, on_upgrade: Option<OnUpgrade>) -> Result<Response, Refusal> {
        let Self { context, address, client, .. } = self;
        let head = Head { method: &self.method, version: self.version, headers: &self.headers };
        let rules = context.rules.speaking(client.scheme);
        let accepted = accept(head, &rules, *address == Address::Chat);
        let Accepted { key, mode: negotiated, deflate } =
            accepted.map_err(|refused| Box::new(refuse(refused)))?;
        let Some(on_upgrade) = on_upgrade else {
            return Err(refusal(StatusCode::BAD_REQUEST, "This connection cannot be upgraded.\n"));
        };
        if let Err(too_often) = permit.gate().handshake(client.address, context.api.now()) {
            let mut response =
                text(StatusCode::TOO_MANY_REQUESTS, "Too many connections from your address.\n");
            let seconds = HeaderValue::from((too_often.retry_ms.max(1) - 1) / 1_000 + 1);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
            return Err(Box::new(response));
        }
        let permit = permit.of_client(client).map_err(|full| match full {
            Full::Address => {
                refusal(StatusCode::TOO_MANY_REQUESTS, "Too many connections from your address.\n")
            }
            Full::Server => {
                refusal(StatusCode::SERVICE_UNAVAILABLE, "The server is full. Try again later.\n")
            }
        })?;
        let is_named_in_query = query_value(&self.query, "protocol") == Some(SUBPROTOCOL);
        let mode = if is_named_in_query { Mode::Full } else { negotiated };
        let (purpose, cookie) = match address {
            Address::Hello => (Purpose::Hello, None),
            Address::Echo => (Purpose::Echo { events: events(&self.query) }, None),
            Address::Chat => {
                let (arrival, cookie) = self.arrival().await?;
                (Purpose::Chat { mode, arrival }, cookie)
            }
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
            if *address == Address::Echo { context.max_echo_bytes } else { context.max_frame_bytes };
        let upgrade = Upgrade { on_upgrade, purpose, deflate, permit, message_bytes_max, ping_interval };
        if context.upgrades.send(upgrade).is_err() {
            return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "The server goes down.\n"));
        }
        Ok(response)
    }

    /// As whom the connection comes, and the cookie of a fresh guest.
    async fn arrival(&self) -> Result<(Arrival, Option<String>), Refusal> {
        let Self { context, headers, client, .. } = self;
        let arrival =
            |token, ephemeral, may_be_new| Arrival { token, ephemeral, may_be_new, device: device(headers) };
        if let Some(token) = bearer(headers) {
            let unknown = || {
                let mut response = text(StatusCode::UNAUTHORIZED, "That token does not work.\n");
                let value = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
                Box::new(response)
            };
            let token = token.ok_or_else(unknown)?;
            // A webhook's address is for its own room, and not for listening.
            let identity = self.identify(token).await?.filter(|identity| identity.only_room.is_none());
            return identity.map(|_| (arrival(token, false, false), None)).ok_or_else(unknown);
        }
        let session = match session(headers, &context.secret, client.scheme) {
            Session::Forged => {
                let sentence = "The session cookie is not valid. Load the page again.\n";
                return Err(refusal(StatusCode::FORBIDDEN, sentence));
            }
            session => session,
        };
        if !context.api.guests {
            if let Session::Known(token) = session
                && self.identify(token).await?.is_some_and(|identity| identity.role > Role::Guest)
            {
                return Ok((arrival(token, false, false), None));
            }
            return Err(refusal(StatusCode::UNAUTHORIZED, "Sign in first: this server has no guests.\n"));
        }
        match session {
            Session::None { fresh, token } => {
                let cookie = set_cookie(&fresh, client.scheme, COOKIE_DAYS_MAX);
                Ok((arrival(token, true, true), Some(cookie)))
            }
            // Whose it is the hub asks, with the first words.
            Session::Known(token) => Ok((arrival(token, false, true), None)),
            Session::Forged => Err(refusal(StatusCode::FORBIDDEN, "The session cookie is not valid.\n")),
        }
    }

    async fn identify(&self, token: TokenHash) -> Result<Option<Identity>, Refusal> {
        let session = NewSession::of(token, wall_clock(SystemTime::now()));
        match self.context.store.identify(session, None).await {
            Ok(identity) => Ok(Some(identity)),
            Err(StoreError::Banned) => Err(refusal(StatusCode::FORBIDDEN, "This account is banned.\n")),
            Err(StoreError::Unavailable(_)) => {
                Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "The server cannot do that now.\n"))
            }
            Err(_) => Ok(None),
        }
    }
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
