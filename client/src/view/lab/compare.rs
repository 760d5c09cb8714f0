//! One message sent four ways: how long until it is received, and what it costs in bytes.
//!
//! A run listens in all four ways, then sends the text once through a socket and once by HTTP for the other
//! three, and notes when each has it. This file must not know the lab's socket beside it.

use gloo_events::EventListener;
use gloo_net::http::{Request, Response};
use gloo_timers::callback::Timeout;
use js_sys::{Math, Reflect};
use serde::Deserialize;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::spawn_local;
use web_sys::{EventSource, HtmlInputElement, MessageEvent, WebSocket};
use yew::prelude::*;

use super::frames;
use super::{now, socket_url};

/// Short polling asks this often, in milliseconds.
const POLL_MS: u32 = 1_000;
/// From readiness to the message, in milliseconds: the long poll must have reached the server.
const SETTLE_MS: u32 = 300;
/// A run ends after this long, in milliseconds.
const RUN_MS: u32 = 15_000;
/// Longest message of the lab's HTTP endpoints, in bytes.
const TEXT_BYTES_MAX: usize = 1_000;

/// A way for a message to reach a page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    Socket,
    Events,
    LongPoll,
    ShortPoll,
}

use Way::{Events, LongPoll, ShortPoll, Socket};

const WAYS: [Way; 4] = [Socket, Events, LongPoll, ShortPoll];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Socket => "WebSocket",
            Events => "Server-sent events",
            LongPoll => "Long polling",
            ShortPoll => "Short polling",
        }
    }

    fn test_id(self) -> &'static str {
        match self {
            Socket => "lab-way-websocket",
            Events => "lab-way-events",
            LongPoll => "lab-way-long-poll",
            ShortPoll => "lab-way-short-poll",
        }
    }

    fn explanation(self) -> &'static str {
        match self {
            Socket => "One connection stays open and carries frames both ways, with a few bytes around each.",
            Events => {
                "One answer never ends: the server writes each event into it, and sending takes a request."
            }
            LongPoll => {
                "The server holds a request until there is something to say; then the page asks again."
            }
            ShortPoll => {
                "The page asks every second, mostly in vain, and a message waits half a second on average."
            }
        }
    }
}

/// How it goes in one way.
#[derive(Clone, Debug, Default)]
struct Progress {
    delay_ms: Option<f64>,
    failure: Option<String>,
    /// Polls that were answered.
    polls: usize,
    /// Bytes to send the message.
    out_bytes: usize,
    /// Bytes to receive it.
    in_bytes: usize,
}

impl Progress {
    fn is_over(&self) -> bool {
        self.delay_ms.is_some() || self.failure.is_some()
    }
}

/// What the lab's polls answer, as far as it matters here.
#[derive(Deserialize)]
struct Page {
    messages: Vec<serde::de::IgnoredAny>,
}

/// What the lab's HTTP endpoints say when they refuse.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// An answer's body, and about how many bytes went both ways for it.
pub struct Answer {
    body: String,
    bytes: usize,
}

pub enum Msg {
    Type(String),
    Start,
    /// The socket or the event stream is open.
    Ready(Way),
    Failed(Way),
    Send,
    Echoed(MessageEvent),
    Event(MessageEvent),
    Poll(Way),
    /// Answers name their run: they may come when another has begun.
    Polled(u32, Way, Result<Answer, String>),
    Posted(u32, Result<Answer, String>),
    TimeOver,
}

/// The connections and timers of a run. Dropped, they end.
struct Live {
    socket: WebSocket,
    source: EventSource,
    ready: [bool; 2],
    poll: Option<Timeout>,
    send: Option<Timeout>,
    _over: Timeout,
    _listeners: [EventListener; 6],
}

impl Drop for Live {
    fn drop(&mut self) {
        // It fails only for bad arguments, and there are none.
        let _ = self.socket.close();
        self.source.close();
    }
}

/// The comparison.
pub struct Compare {
    text: String,
    complaint: Option<String>,
    run: u32,
    channel: String,
    live: Option<Live>,
    sent_at: Option<f64>,
    /// In the order of [`WAYS`]; none before the first run.
    progress: Option<[Progress; 4]>,
}

impl Component for Compare {
    type Message = Msg;
    type Properties = ();

    fn create(_: &Context<Self>) -> Self {
        Self {
            text: "The same message".to_owned(),
            complaint: None,
            run: 0,
            channel: String::new(),
            live: None,
            sent_at: None,
            progress: None,
        }
    }

    fn update(&mut self, ctx: &Context<Self>, msg: Msg) -> bool {
        match msg {
            Msg::Type(text) => self.text = text,
            Msg::Start => self.start(ctx),
            Msg::Ready(way) => self.ready(ctx, way),
            Msg::Failed(way) => {
                self.fail(way, "The connection failed.");
                self.ready(ctx, way);
            }
            Msg::Send => self.send(ctx),
            Msg::Echoed(event) => {
                let text = event.data().as_string().unwrap_or_default();
                if text == self.text {
                    self.of(Socket).in_bytes = frames::frame_bytes(text.len(), false);
                    self.arrived(Socket);
                }
            }
            Msg::Event(event) => {
                let data = event.data().as_string().unwrap_or_default();
                self.of(Events).in_bytes = frames::event_bytes(data.len(), event.last_event_id().len());
                self.arrived(Events);
            }
            Msg::Poll(way) => self.poll(ctx, way),
            Msg::Polled(run, way, answer) if run == self.run => self.polled(ctx, way, answer),
            Msg::Posted(run, answer) if run == self.run => self.posted(answer),
            Msg::Polled(..) | Msg::Posted(..) => return false,
            Msg::TimeOver => {
                for way in WAYS {
                    self.fail(way, "It was not received in time.");
                }
            }
        }
        if WAYS.iter().all(|way| self.is_over(*way)) {
            self.live = None;
        }
        true
    }

    fn view(&self, ctx: &Context<Self>) -> Html {
        let link = ctx.link();
        let start = link.callback(|event: SubmitEvent| {
            event.prevent_default();
            Msg::Start
        });
        let typed = link.batch_callback(|event: InputEvent| {
            event.target_dyn_into::<HtmlInputElement>().map(|field| Msg::Type(field.value()))
        });
        let runs = self.live.is_some();
        html! {
            <section class="lab-section" aria-labelledby="lab-compare">
                <h2 id="lab-compare">{ "One message, four ways" }</h2>
                <form class="lab-row" onsubmit={start}>
                    <div class="lab-grow">
                        <label class="label" for="lab-compare-text">{ "Text" }</label>
                        <input class="field" id="lab-compare-text" data-testid="lab-compare-input" autocomplete="off"
                            value={self.text.clone()} oninput={typed} disabled={runs} />
                    </div>
                    <button class="button primary" type="submit" data-testid="lab-compare" disabled={runs}>
                        { "Send the same message four ways" }
                    </button>
                </form>
                <p class="note bad" role="alert">{ self.complaint.clone().unwrap_or_default() }</p>
                <p class="sr" role="status">
                    { match &self.progress { None => "", Some(_) if runs => "Running.", Some(_) => "Done." } }
                </p>
                <div class="lab-ways">
                    { for WAYS.into_iter().map(|way| self.view_way(way)) }
                </div>
                <p class="note">
                    { "How this is counted. Times run from the moment of sending until this page has the message, in the \
                       same page. Exact: payloads, and the frames of the WebSocket unless it compresses (then they are \
                       smaller). Estimated: the headers of requests, which a page cannot see, the headers of answers, for \
                       which browsers report 300 bytes whatever they are, and the framing of events. Not counted: opening \
                       connections, TLS and TCP. Compression of answers is counted where the browser reports it." }
                </p>
            </section>
        }
    }
}

impl Compare {
    fn of(&mut self, way: Way) -> &mut Progress {
        &mut self.progress.get_or_insert_default()[way as usize]
    }

    fn is_over(&self, way: Way) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress[way as usize].is_over())
    }

    fn fail(&mut self, way: Way, reason: &str) {
        if !self.is_over(way) {
            self.of(way).failure = Some(reason.to_owned());
        }
    }

    fn arrived(&mut self, way: Way) {
        if let Some(sent_at) = self.sent_at.filter(|_| !self.is_over(way)) {
            self.of(way).delay_ms = Some(now() - sent_at);
        }
    }

    fn start(&mut self, ctx: &Context<Self>) {
        self.complaint = match self.text.len() {
            0 => Some("There is nothing to send.".to_owned()),
            1..=TEXT_BYTES_MAX => None,
            _ => Some(format!("The text may be {TEXT_BYTES_MAX} bytes long.")),
        };
        if self.complaint.is_some() {
            return;
        }
        self.run += 1;
        self.channel = random_channel();
        self.progress = Some(Default::default());
        self.sent_at = None;
        let socket = WebSocket::new(&socket_url("/ws/echo"));
        let source = EventSource::new(&["/lab/events?channel=", &self.channel].concat());
        let (Ok(socket), Ok(source)) = (socket, source) else {
            self.progress = None;
            self.complaint = Some("The browser refused to open a connection here.".to_owned());
            return;
        };
        let on = |target: &web_sys::EventTarget, name: &'static str, msg: fn(&Event) -> Option<Msg>| {
            let link = ctx.link().clone();
            EventListener::new(target, name, move |event| {
                if let Some(msg) = msg(event) {
                    link.send_message(msg);
                }
            })
        };
        let listeners = [
            on(&socket, "open", |_| Some(Msg::Ready(Socket))),
            on(&socket, "message", |event| event.dyn_ref().cloned().map(Msg::Echoed)),
            on(&socket, "close", |_| Some(Msg::Failed(Socket))),
            on(&source, "open", |_| Some(Msg::Ready(Events))),
            on(&source, "message", |event| event.dyn_ref().cloned().map(Msg::Event)),
            on(&source, "error", |_| Some(Msg::Failed(Events))),
        ];
        self.live = Some(Live {
            socket,
            source,
            ready: [false; 2],
            poll: None,
            send: None,
            _over: after(ctx, RUN_MS, || Msg::TimeOver),
            _listeners: listeners,
        });
        self.poll(ctx, LongPoll);
        self.poll(ctx, ShortPoll);
    }

    /// When the socket and the event stream are open (or will not be), it is soon time to send.
    fn ready(&mut self, ctx: &Context<Self>, way: Way) {
        let Some(live) = self.live.as_mut().filter(|live| live.send.is_none()) else { return };
        live.ready[way as usize] = true;
        if live.ready == [true; 2] {
            // The random part meets short polling at any point of its interval.
            let random_ms = (Math::random() * f64::from(POLL_MS)) as u32;
            live.send = Some(after(ctx, SETTLE_MS + random_ms, || Msg::Send));
        }
    }

    fn send(&mut self, ctx: &Context<Self>) {
        let Some(live) = &self.live else { return };
        let text = self.text.clone();
        self.sent_at = Some(now());
        if live.socket.send_with_str(&text).is_ok() {
            self.of(Socket).out_bytes = frames::frame_bytes(text.len(), true);
        }
        let path = ["/lab/messages?channel=", &self.channel].concat();
        let (link, run) = (ctx.link().clone(), self.run);
        spawn_local(async move { link.send_message(Msg::Posted(run, post(&path, text).await)) });
    }

    fn posted(&mut self, answer: Result<Answer, String>) {
        for way in [Events, LongPoll, ShortPoll] {
            match &answer {
                Ok(answer) => self.of(way).out_bytes = answer.bytes,
                Err(reason) => self.fail(way, reason),
            }
        }
    }

    fn poll(&mut self, ctx: &Context<Self>, way: Way) {
        if self.live.is_none() || self.is_over(way) {
            return;
        }
        let path = if way == LongPoll { "/lab/long-poll?channel=" } else { "/lab/poll?channel=" };
        let path = [path, &self.channel].concat();
        let (link, run) = (ctx.link().clone(), self.run);
        spawn_local(async move { link.send_message(Msg::Polled(run, way, get(&path).await)) });
    }

    fn polled(&mut self, ctx: &Context<Self>, way: Way, answer: Result<Answer, String>) {
        let page = answer.and_then(|answer| {
            let page = serde_json::from_str::<Page>(&answer.body)
                .map_err(|_| "The answer made no sense.".to_owned())?;
            Ok((page, answer.bytes))
        });
        match page {
            Ok((page, bytes)) => {
                let progress = self.of(way);
                progress.polls += 1;
                progress.in_bytes += bytes;
                if !page.messages.is_empty() {
                    self.arrived(way);
                } else if way == LongPoll {
                    self.poll(ctx, way);
                } else if let Some(live) = &mut self.live {
                    live.poll = Some(after(ctx, POLL_MS, || Msg::Poll(ShortPoll)));
                }
            }
            Err(reason) => self.fail(way, &reason),
        }
    }

    fn view_way(&self, way: Way) -> Html {
        let progress = self.progress.as_ref().map(|progress| &progress[way as usize]);
        let done = progress.filter(|progress| progress.delay_ms.is_some());
        let received = match progress {
            None => "–".to_owned(),
            Some(Progress { failure: Some(reason), .. }) => reason.clone(),
            Some(Progress { delay_ms: Some(ms), .. }) => frames::span(*ms),
            Some(_) if self.sent_at.is_some() => "waiting…".to_owned(),
            Some(_) => "listening…".to_owned(),
        };
        let bytes =
            |bytes: fn(&Progress) -> usize, note: &str| match done.map(bytes).filter(|bytes| *bytes > 0) {
                Some(bytes) => [&frames::size(bytes), note].concat(),
                None => "–".to_owned(),
            };
        let mark = if way == Socket { "" } else { " (estimate)" };
        let polls = match (way, done) {
            (Socket | Events, _) => "none needed".to_owned(),
            (LongPoll | ShortPoll, Some(progress)) => progress.polls.to_string(),
            (LongPoll | ShortPoll, None) => "–".to_owned(),
        };
        html! {
            <article class="lab-way" data-testid={way.test_id()}>
                <h3>{ way.name() }</h3>
                <p>{ way.explanation() }</p>
                <dl>
                    <div class="lab-delay"><dt>{ "Received after" }</dt><dd>{ received }</dd></div>
                    <div><dt>{ "To send" }</dt><dd>{ bytes(|progress| progress.out_bytes, mark) }</dd></div>
                    <div><dt>{ "To receive" }</dt><dd>{ bytes(|progress| progress.in_bytes, mark) }</dd></div>
                    <div><dt>{ "Polls" }</dt><dd>{ polls }</dd></div>
                </dl>
            </article>
        }
    }
}

fn after(ctx: &Context<Compare>, ms: u32, msg: fn() -> Msg) -> Timeout {
    let link = ctx.link().clone();
    Timeout::new(ms, move || link.send_message(msg()))
}

/// Enough that two visitors do not meet; nothing depends on it being secret.
fn random_channel() -> String {
    let word = || (Math::random() * f64::from(u32::MAX)) as u32;
    format!("{:08x}{:08x}", word(), word())
}

async fn get(path: &str) -> Result<Answer, String> {
    answer(path, 0, Request::get(path).send().await).await
}

async fn post(path: &str, text: String) -> Result<Answer, String> {
    let bytes = text.len();
    let request = Request::post(path).body(text).map_err(|_| "The request could not be made.".to_owned())?;
    answer(path, bytes, request.send().await).await
}

async fn answer(path: &str, sent: usize, got: Result<Response, gloo_net::Error>) -> Result<Answer, String> {
    let failed = |_| "The server does not answer.".to_owned();
    let response = got.map_err(failed)?;
    let body = response.text().await.map_err(failed)?;
    if !response.ok() {
        let refusal = serde_json::from_str::<Refusal>(&body).ok().map(|refusal| refusal.message);
        return Err(refusal.unwrap_or_else(|| format!("The server answered {}.", response.status())));
    }
    let received = transfer_size(&response.url()).unwrap_or(body.len() + frames::ANSWER_HEADERS_BYTES);
    let user_agent =
        web_sys::window().and_then(|window| window.navigator().user_agent().ok()).unwrap_or_default();
    Ok(Answer { body, bytes: frames::request_bytes(path, &user_agent, sent) + received })
}

/// What the browser reports of the last answer from the address; it stops to report after some hundreds.
fn transfer_size(url: &str) -> Option<usize> {
    let entry = web_sys::window()?.performance()?.get_entries_by_name(url).pop();
    let size = Reflect::get(&entry, &JsValue::from_str("transferSize")).ok()?.as_f64()?;
    (size > 0.0).then_some(size as usize)
}
