//! What each address answers: warp filters over the embedded client, the sockets and the lab.
//!
//! A route decides from the request alone and hands upgraded sockets to the engine's thread. It must not know
//! rooms, users or the hub's rules.

mod accounts;
mod bots;
mod cookies;
mod json;
pub mod lab;
mod pages;
mod sockets;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shared::model::Line;
use shared::protocol::Event;
use tokio::sync::mpsc;
use warp::Filter;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reject::Rejection;
use warp::reply::{Reply, Response};

use crate::addresses::Client;
use crate::api::Api;
use crate::broker::{Broker, Hint, HubId, Logged, Topic};
use crate::connection::Upgrade;
use crate::gate::Permit;
use crate::handshake::Rules;
use crate::health::{Health, Part};
use crate::store::Store;

/// What routes need to know.
pub struct Context {
    pub rules: Rules,
    pub store: Arc<dyn Store>,
    /// Tells the hubs what a request has changed, as this one of them.
    pub broker: Arc<dyn Broker>,
    pub hub: HubId,
    /// What all workers have in common.
    pub api: Arc<Api>,
    /// What signs session tokens.
    pub secret: [u8; 32],
    /// Upgraded sockets, to the engine's thread.
    pub upgrades: mpsc::UnboundedSender<Upgrade>,
    pub ping_interval: Duration,
    /// Longest message of a WebSocket, and of `/ws/echo`, in bytes.
    pub max_frame_bytes: usize,
    pub max_echo_bytes: usize,
    pub health: Arc<Health>,
    /// The lab's message store; `None` switches the lab off.
    pub lab: Option<Arc<lab::Lab>>,
}

impl Context {
    fn publish(&self, topic: Topic, hint: Hint) {
        self.broker.publish(self.hub, topic, hint);
    }

    /// Tells of events that are in the log.
    fn publish_events(&self, events: Vec<Event>) {
        for event in events {
            self.publish(Topic::Room(event.room), Hint::Event(Arc::new(Logged::new(event))));
        }
    }
}

/// Every route there is. It answers each request; nothing is left to warp's own rejections.
pub fn all(
    context: Arc<Context>,
) -> impl Filter<Extract = (Response,), Error = std::convert::Infallible> + Clone {
    let sockets = sockets::filter(context.clone());
    let health = health(context.clone());
    let lab = lab_filter(context.clone());
    let accounts = accounts::filter(context.clone());
    let bots = bots::filter(context.clone());
    let pages = pages::filter(context);
    banned()
        .or(sockets)
        .unify()
        .or(health)
        .unify()
        .or(accounts)
        .unify()
        .or(bots)
        .unify()
        .or(lab)
        .unify()
        .or(pages)
        .unify()
        .recover(|rejection: Rejection| async move { Ok::<_, std::convert::Infallible>(refuse(&rejection)) })
        .unify()
        .map(with_safety)
}

/// Whoever comes from a banned address gets nothing else.
fn banned() -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::ext::get::<Client>().and(warp::ext::get::<Arc<Permit>>()).and_then(
        |client: Client, permit: Arc<Permit>| {
            let is_banned = permit.gate().is_banned(client.address);
            let answer = is_banned.then(|| text(StatusCode::FORBIDDEN, "Your address is banned here.\n"));
            std::future::ready(answer.ok_or_else(warp::reject::not_found))
        },
    )
}

/// What a request is made with, for people to recognise.
fn device(headers: &HeaderMap) -> Line {
    let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    crate::device::describe(user_agent.unwrap_or_default())
}

fn lab_filter(context: Arc<Context>) -> warp::filters::BoxedFilter<(Response,)> {
    match &context.lab {
        Some(lab) => lab::filter(lab.clone(), context.rules.clone()).map(Reply::into_response).boxed(),
        None => warp::any().and_then(|| async { Err::<Response, _>(warp::reject::not_found()) }).boxed(),
    }
}

/// `/healthz`: the process lives. `/readyz`: it can take people; otherwise 503, and the text says which part is
/// not well. Who wants to go on without a part asks `/readyz?exclude=PART`, as Kubernetes' own servers have it.
fn health(context: Arc<Context>) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    let lives = warp::path!("healthz").and(warp::get().or(warp::head()).unify());
    let lives = lives.map(|| text(StatusCode::OK, "ok\n"));
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let ready = warp::path!("readyz").and(warp::get().or(warp::head()).unify()).and(query);
    let ready = ready.then(move |query: String| {
        let context = context.clone();
        async move {
            let names = query.split('&').filter_map(|pair| pair.strip_prefix("exclude="));
            let excluded: Vec<Part> = names.filter_map(Part::parse).collect();
            let report = context.health.report().await;
            let is_ready = report.is_ready_without(&excluded);
            let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            text(status, report.to_string())
        }
    });
    lives.or(ready).unify()
}

/// A short text.
fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    let mut response = Response::new(text.into().into());
    *response.status_mut() = status;
    let value = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The answer to what no route took. Nothing of the request is repeated in it.
fn refuse(rejection: &Rejection) -> Response {
    if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        text(StatusCode::METHOD_NOT_ALLOWED, "This address does not take that method.\n")
    } else if rejection.find::<warp::reject::PayloadTooLarge>().is_some() {
        text(StatusCode::PAYLOAD_TOO_LARGE, "That is too long.\n")
    } else if rejection.is_not_found() {
        text(StatusCode::NOT_FOUND, "There is nothing at this address.\n")
    } else {
        text(StatusCode::BAD_REQUEST, "That request makes no sense here.\n")
    }
}

/// What a page of ours has no use for, so that no script gets it either. Notifications are not such a
/// feature: the person is asked for them.
const PERMISSIONS: &str = "accelerometer=(), camera=(), display-capture=(), encrypted-media=(), \
     geolocation=(), gyroscope=(), hid=(), magnetometer=(), microphone=(), midi=(), payment=(), serial=(), \
     usb=(), xr-spatial-tracking=()";

/// What every answer says to browsers.
fn with_safety(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("permissions-policy", PERMISSIONS),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
