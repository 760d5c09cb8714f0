//! `/lab/…`: one message by short polling, long polling and server-sent events, for people who learn or debug
//! WebSockets and want to see the same message arrive in other ways.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /lab/messages?channel=C`, text as the body | 201 and the message |
//! | `GET /lab/poll?channel=C&after=N` | 200 at once, with the messages after `N` |
//! | `GET /lab/long-poll?channel=C&after=N` | the same when there is a message, or with none after 25 s |
//! | `GET /lab/events?channel=C&after=N` | `text/event-stream`, one event a message |
//!
//! A channel is a random word of the visitor's: visitors do not see each other's messages. Nothing is kept
//! for long, and the chat is not touched: this file must not know rooms, users, stores or sessions. The page
//! at `/lab` is the client's.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Buf;
use futures_util::stream::{self, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use shared::model::Ms;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use warp::http::header::{ALLOW, CACHE_CONTROL, HeaderName, HeaderValue, RETRY_AFTER};
use warp::http::{HeaderMap, Method, StatusCode};
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

use crate::addresses::Client;
use crate::gate::network;
use crate::handshake::{Rules, is_origin_allowed};

/// All limits of the lab.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Messages kept per channel; the oldest goes first.
    pub messages: usize,
    /// Longest message, in bytes.
    pub message_bytes: usize,
    /// Channels kept; the least recently used goes first.
    pub channels: usize,
    /// Long polls and event streams at a time.
    pub waiting: usize,
    /// Of these, per client address.
    pub waiting_per_client: usize,
    /// Longest wait of a long poll.
    pub wait: Duration,
    /// Longest life of an event stream; an `EventSource` comes back by itself.
    pub stream: Duration,
    /// Longest time for a message to arrive.
    pub receive: Duration,
    /// Requests that a client may make at once.
    pub burst: u32,
    /// After these, one request per so many milliseconds.
    pub interval_ms: Ms,
    /// Client addresses that are counted at a time.
    pub clients: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages: 100,
            message_bytes: 1_000,
            channels: 500,
            waiting: 500,
            waiting_per_client: 10,
            wait: Duration::from_secs(25),
            stream: Duration::from_secs(10 * 60),
            receive: Duration::from_secs(10),
            burst: 40,
            interval_ms: 200,
            clients: 10_000,
        }
    }
}

/// Longest name of a channel, in bytes, and the shortest: random ones do not collide.
const CHANNEL_BYTES: std::ops::RangeInclusive<usize> = 8..=64;

/// The channels and the counts of their users.
pub struct Lab {
    limits: Limits,
    clock: Clock,
    state: Mutex<State>,
}

type Clock = fn() -> Ms;

#[derive(Default)]
struct State {
    channels: HashMap<String, Channel>,
    /// Number of the last message, over all channels: it goes on when a channel is dropped and comes back,
    /// so that a reader's `after` stays right.
    last: u64,
    /// Grows with each use of a channel.
    uses: u64,
    /// When each client will have its whole burst again.
    rested_at: HashMap<IpAddr, Ms>,
    /// Long polls and event streams of each client.
    waiting: HashMap<IpAddr, usize>,
    /// No more waiting: the server goes down.
    closed: bool,
}

struct Channel {
    messages: VecDeque<Message>,
    /// The number of the last message. Readers that wait are told; when the channel is dropped, too.
    last: watch::Sender<u64>,
    used: u64,
}

/// A message as readers get it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Message {
    n: u64,
    at: Ms,
    text: String,
}

/// What a poll answers.
#[derive(Serialize)]
struct Page {
    messages: Vec<Message>,
    /// The `after` of the next request.
    last: u64,
}

impl Lab {
    pub fn new(limits: Limits) -> Self {
        let clock = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Ms::try_from(since.as_millis()).unwrap_or(Ms::MAX)
        };
        Self::with_clock(limits, clock)
    }

    fn with_clock(limits: Limits, clock: Clock) -> Self {
        Self { limits, clock, state: Mutex::default() }
    }

    /// Ends all waiting and allows no more: for a server that goes down.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.channels.clear();
    }

    /// A panic while the lock was held cannot leave anything half done that matters here.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request of the client.
    fn admit(&self, client: IpAddr) -> Result<(), Refusal> {
        let now = (self.clock)();
        let burst_ms = self.limits.interval_ms * Ms::from(self.limits.burst);
        let mut state = self.state();
        if state.rested_at.len() >= self.limits.clients && !state.rested_at.contains_key(&client) {
            state.rested_at.retain(|_, rested_at| *rested_at > now);
            if state.rested_at.len() >= self.limits.clients {
                return Err(Refusal::Busy);
            }
        }
        let rested_at = state.rested_at.get(&client).copied().unwrap_or(now);
        // A clock that was set back must not lock anybody out for longer than a burst takes.
        let next = rested_at.clamp(now, now + burst_ms) + self.limits.interval_ms;
        if next > now + burst_ms {
            return Err(Refusal::TooFast { retry_ms: next - now - burst_ms });
        }
        state.rested_at.insert(client, next);
        Ok(())
    }

    fn post(&self, channel: &str, text: String) -> Message {
        let at = (self.clock)();
        let mut state = self.state();
        state.last += 1;
        let message = Message { n: state.last, at, text };
        let channel = state.channel(channel, &self.limits);
        if channel.messages.len() >= self.limits.messages {
            channel.messages.pop_front();
        }
        channel.messages.push_back(message.clone());
        channel.last.send_replace(message.n);
        message
    }

    fn read(&self, channel: &str, after: u64) -> Vec<Message> {
        let mut state = self.state();
        state.uses += 1;
        let uses = state.uses;
        let Some(channel) = state.channels.get_mut(channel) else { return Vec::new() };
        channel.used = uses;
        channel.messages.iter().filter(|message| message.n > after).cloned().collect()
    }

    /// Lets a client wait on a channel.
    fn wait(self: &Arc<Self>, client: IpAddr, channel: &str) -> Result<Waiting, Refusal> {
        let mut state = self.state();
        let (all, own) = (state.waiting.values().sum::<usize>(), state.waiting.get(&client).copied());
        if state.closed || all >= self.limits.waiting {
            return Err(Refusal::Busy);
        }
        if own.is_some_and(|own| own >= self.limits.waiting_per_client) {
            return Err(Refusal::TooManyWaiting);
        }
        *state.waiting.entry(client).or_default() += 1;
        let last = state.channel(channel, &self.limits).last.subscribe();
        Ok(Waiting { lab: self.clone(), client, channel: channel.to_owned(), last })
    }
}

impl State {
    /// The channel, made if need be.
    fn channel(&mut self, name: &str, limits: &Limits) -> &mut Channel {
        self.uses += 1;
        if self.channels.len() >= limits.channels && !self.channels.contains_key(name) {
            let oldest = self.channels.iter().min_by_key(|(_, channel)| channel.used);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.channels.remove(&oldest);
            }
        }
        let channel = self.channels.entry(name.to_owned()).or_insert_with(|| Channel {
            messages: VecDeque::new(),
            last: watch::Sender::new(0),
            used: 0,
        });
        channel.used = self.uses;
        channel
    }
}

/// A reader that waits, for as long as it lives.
struct Waiting {
    lab: Arc<Lab>,
    client: IpAddr,
    channel: String,
    last: watch::Receiver<u64>,
}

impl Waiting {
    /// The messages after `after`, as soon as there are any; none when the time is over or the channel gone.
    async fn next(&mut self, after: u64, until: Instant) -> Vec<Message> {
        // Either end of the wait leads to the same question.
        let _ = timeout_at(until, self.last.wait_for(|last| *last > after)).await;
        self.lab.read(&self.channel, after)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.lab.state();
        if let Some(count) = state.waiting.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                state.waiting.remove(&self.client);
            }
        }
    }
}

/// Why a request was not served: a stable code and a sentence.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
enum Refusal {
    #[error("This address is for {0}.")]
    WrongMethod(&'static str),
    #[error("Another site may not post here.")]
    ForeignOrigin,
    #[error("The query needs channel=…, 8 to 64 of the characters A-Z, a-z, 0-9, - and _.")]
    BadChannel,
    #[error("after=… is the number of the last message you have.")]
    BadAfter,
    #[error("A message is at most {0} bytes long.")]
    TooLong(usize),
    #[error("A message is UTF-8 text, and not empty.")]
    BadText,
    #[error("The message did not arrive in time.")]
    TooSlow,
    #[error("Too many requests: please wait a little.")]
    TooFast { retry_ms: Ms },
    #[error("You have too many requests waiting: end one of them.")]
    TooManyWaiting,
    #[error("The lab is full: please try again in a minute.")]
    Busy,
}

/// How soon it makes sense to ask again, where only others can make room.
const BUSY_RETRY_MS: Ms = 60_000;
const WAITING_RETRY_MS: Ms = 5_000;

impl Refusal {
    fn status_and_code(self) -> (StatusCode, &'static str) {
        match self {
            Refusal::WrongMethod(_) => (StatusCode::METHOD_NOT_ALLOWED, "wrong_method"),
            Refusal::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign_origin"),
            Refusal::BadChannel => (StatusCode::BAD_REQUEST, "bad_channel"),
            Refusal::BadAfter => (StatusCode::BAD_REQUEST, "bad_after"),
            Refusal::TooLong(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_long"),
            Refusal::BadText => (StatusCode::BAD_REQUEST, "bad_text"),
            Refusal::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            Refusal::TooFast { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            Refusal::TooManyWaiting => (StatusCode::TOO_MANY_REQUESTS, "too_many_waiting"),
            Refusal::Busy => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        }
    }

    fn retry_ms(self) -> Option<Ms> {
        match self {
            Refusal::TooFast { retry_ms } => Some(retry_ms),
            Refusal::TooManyWaiting => Some(WAITING_RETRY_MS),
            Refusal::Busy => Some(BUSY_RETRY_MS),
            _ => None,
        }
    }
}

impl Reply for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            code: &'static str,
            message: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_ms: Option<Ms>,
        }
        let (status, code) = self.status_and_code();
        let body = Body { code, message: self.to_string(), retry_ms: self.retry_ms() };
        let mut response = json(status, &body);
        if let Some(retry_ms) = self.retry_ms() {
            // In whole seconds, rounded up (RFC 9110 §10.2.3).
            let seconds = retry_ms.max(1).div_euclid(1_000) + Ms::from(retry_ms.rem_euclid(1_000) > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Refusal::WrongMethod(allowed) = self {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    warp::reply::with_status(warp::reply::json(body), status).into_response()
}

/// The last part of the path.
#[derive(Clone, Copy, Debug)]
enum Endpoint {
    Messages,
    Poll,
    LongPoll,
    Events,
}

impl FromStr for Endpoint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "messages" => Ok(Endpoint::Messages),
            "poll" => Ok(Endpoint::Poll),
            "long-poll" => Ok(Endpoint::LongPoll),
            "events" => Ok(Endpoint::Events),
            _ => Err(()),
        }
    }
}

/// Texts, so that a bad one gets our answer.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Query {
    channel: String,
    after: String,
}

/// What a handler needs of a request, besides its body.
struct Call {
    endpoint: Endpoint,
    method: Method,
    client: IpAddr,
    headers: HeaderMap,
    query: Query,
}

/// The endpoints. Other paths, `/lab` itself too, are left to other filters.
pub fn filter(lab: Arc<Lab>, rules: Rules) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    let rules = Arc::new(rules);
    let query = warp::query::<Query>().or(warp::any().map(Query::default)).unify();
    warp::path!("lab" / Endpoint)
        .and(warp::method())
        .and(warp::ext::optional::<Client>())
        .and(warp::header::headers_cloned())
        .and(query)
        .and(warp::body::stream())
        .then(move |endpoint, method, from: Option<Client>, headers, query, body| {
            let (lab, rules) = (lab.clone(), rules.clone());
            let rules = from.map_or_else(|| (*rules).clone(), |client| rules.speaking(client.scheme));
            let call = Call { endpoint, method, client: client(from), headers, query };
            async move {
                let mut response =
                    answer(&lab, &rules, call, body).await.unwrap_or_else(|refusal| refusal.into_response());
                let headers = response.headers_mut();
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
        })
}

/// Whom a request counts for. Requests without an address share one limit.
fn client(from: Option<Client>) -> IpAddr {
    from.map_or(Ipv4Addr::UNSPECIFIED.into(), |client| network(client.address))
}

async fn answer<S, B, E>(lab: &Arc<Lab>, rules: &Rules, call: Call, body: S) -> Result<Response, Refusal>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    lab.admit(call.client)?;
    let allowed = if matches!(call.endpoint, Endpoint::Messages) { "POST" } else { "GET" };
    if call.method.as_str() != allowed {
        return Err(Refusal::WrongMethod(allowed));
    }
    let channel = channel(&call.query)?;
    match call.endpoint {
        Endpoint::Messages => {
            // Browsers send `Origin` with each POST; other programs need not.
            if !is_origin_allowed(&call.headers, rules) {
                return Err(Refusal::ForeignOrigin);
            }
            let text = timeout(lab.limits.receive, text(body, lab.limits.message_bytes));
            let text = text.await.map_err(|_| Refusal::TooSlow)??;
            Ok(json(StatusCode::CREATED, &lab.post(channel, text)))
        }
        Endpoint::Poll => {
            let after = after(&call.query)?;
            Ok(page(lab.read(channel, after), after))
        }
        Endpoint::LongPoll => {
            let after = after(&call.query)?;
            let mut waiting = lab.wait(call.client, channel)?;
            let until = Instant::now() + lab.limits.wait;
            let mut messages = lab.read(channel, after);
            if messages.is_empty() {
                messages = waiting.next(after, until).await;
            }
            Ok(page(messages, after))
        }
        Endpoint::Events => {
            let after = after(&call.query)?.max(last_event_id(&call.headers));
            Ok(events(lab.wait(call.client, channel)?, after))
        }
    }
}

fn channel(query: &Query) -> Result<&str, Refusal> {
    let name = query.channel.as_str();
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let fits = CHANNEL_BYTES.contains(&name.len()) && name.bytes().all(is_allowed);
    fits.then_some(name).ok_or(Refusal::BadChannel)
}

fn after(query: &Query) -> Result<u64, Refusal> {
    match query.after.as_str() {
        "" => Ok(0),
        after => after.parse().map_err(|_| Refusal::BadAfter),
    }
}

/// What an `EventSource` that lost its connection says it has; 0 for others.
fn last_event_id(headers: &HeaderMap) -> u64 {
    let id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    id.and_then(|id| id.parse().ok()).unwrap_or(0)
}

async fn text<S, B, E>(body: S, bytes_max: usize) -> Result<String, Refusal>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        let mut piece = piece.map_err(|_| Refusal::TooSlow)?;
        if bytes.len() + piece.remaining() > bytes_max {
            return Err(Refusal::TooLong(bytes_max));
        }
        while piece.has_remaining() {
            let chunk = piece.chunk();
            bytes.extend_from_slice(chunk);
            let length = chunk.len();
            piece.advance(length);
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| Refusal::BadText)?;
    if text.is_empty() { Err(Refusal::BadText) } else { Ok(text) }
}

fn page(messages: Vec<Message>, after: u64) -> Response {
    let last = messages.last().map_or(after, |message| message.n);
    json(StatusCode::OK, &Page { messages, last })
}

/// The messages after `after` and those that come, until the stream's time is over or the channel gone.
fn events(waiting: Waiting, after: u64) -> Response {
    let until = Instant::now() + waiting.lab.limits.stream;
    let queue = VecDeque::from(waiting.lab.read(&waiting.channel, after));
    let stream =
        stream::unfold((waiting, queue, after), move |(mut waiting, mut queue, mut after)| async move {
            if queue.is_empty() {
                queue = waiting.next(after, until).await.into();
            }
            let message = queue.pop_front()?;
            after = message.n;
            let event = warp::sse::Event::default().id(message.n.to_string()).json_data(&message).ok()?;
            Some((Ok::<_, Infallible>(event), (waiting, queue, after)))
        });
    let mut response = warp::sse::reply(warp::sse::keep_alive().stream(stream)).into_response();
    // A proxy that collects answers before it passes them on would make a poll of the stream.
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests;
