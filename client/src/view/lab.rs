//! The page at `/lab`: one WebSocket to look at from close by, and one message sent four ways.
//!
//! It stands alone: it opens connections of its own, and must not know the chat's state or its connection.
//! It takes the browser's `WebSocket` as it is, since it shows what wrappers hide: the negotiated extensions,
//! `bufferedAmount`, how the close went.

mod compare;
mod frames;

use std::collections::VecDeque;

use gloo_events::EventListener;
use gloo_timers::callback::Interval;
use js_sys::{ArrayBuffer, Date, JsString, Uint8Array};
use shared::protocol::SUBPROTOCOL;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{BinaryType, CloseEvent, HtmlInputElement, HtmlSelectElement, MessageEvent, WebSocket};
use yew::prelude::*;

use compare::Compare;
use frames::{Log, Source};

/// Sent texts of which the echo is awaited; older ones are forgotten.
const AWAITED_MAX: usize = 100;
/// How often the facts are read again while there is a connection, in milliseconds.
const REFRESH_MS: u32 = 500;

/// An endpoint to connect to.
struct Endpoint {
    path: &'static str,
    subprotocol: Option<&'static str>,
    label: &'static str,
}

const ENDPOINTS: [Endpoint; 5] = [
    Endpoint { path: "/ws/echo?events=3", subprotocol: None, label: "Echo, and a server event every 3 s" },
    Endpoint { path: "/ws/echo", subprotocol: None, label: "Echo alone" },
    Endpoint { path: "/ws/hello", subprotocol: None, label: "Greeter: send a name" },
    Endpoint { path: "/ws", subprotocol: None, label: "Chat, plain: what you send is read in the lobby" },
    Endpoint { path: "/ws", subprotocol: Some(SUBPROTOCOL), label: "Chat, subprotocol magpie.v1" },
];

/// A socket and those who listen to it. Dropped, it is closed.
struct Connection {
    socket: WebSocket,
    _listeners: [EventListener; 4],
    _refresh: Interval,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // It fails only for bad arguments, and there are none.
        let _ = self.socket.close();
    }
}

/// What is known of the last connection; it stays to be read when the connection is gone.
#[derive(Clone, Default, PartialEq)]
struct Facts {
    url: String,
    subprotocol: String,
    extensions: String,
    state: &'static str,
    buffered: usize,
    opened_after: Option<f64>,
    round_trip: Option<f64>,
    close: Option<String>,
}

pub enum Msg {
    Choose(usize),
    Start,
    Opened,
    Received(MessageEvent),
    Failed,
    Closed(CloseEvent),
    Refresh,
    Type(String),
    Send { binary: bool },
    TypeCode(String),
    TypeReason(String),
    Close,
    Clear,
}

/// The lab.
pub struct Lab {
    chosen: usize,
    connection: Option<Connection>,
    started: f64,
    facts: Option<Facts>,
    log: Log,
    text: String,
    /// What was sent, and when, of which the echo is awaited.
    awaited: VecDeque<(String, f64)>,
    code: String,
    reason: String,
    /// What is wrong with what was typed.
    complaint: Option<String>,
    /// For screen readers: the last change of the connection.
    status: &'static str,
}

impl Component for Lab {
    type Message = Msg;
    type Properties = ();

    fn create(_: &Context<Self>) -> Self {
        Self {
            chosen: 0,
            connection: None,
            started: 0.0,
            facts: None,
            log: Log::default(),
            text: "Hello, server!".to_owned(),
            awaited: VecDeque::new(),
            code: "1000".to_owned(),
            reason: "That is all.".to_owned(),
            complaint: None,
            status: "Not connected.",
        }
    }

    fn update(&mut self, ctx: &Context<Self>, msg: Msg) -> bool {
        match msg {
            Msg::Choose(index) => self.chosen = index.min(ENDPOINTS.len() - 1),
            Msg::Start => self.start(ctx),
            Msg::Opened => {
                let after = now() - self.started;
                self.status = "Connected.";
                self.note("open", &["The handshake took ", &frames::span(after), "."].concat());
                if let Some(facts) = &mut self.facts {
                    facts.opened_after = Some(after);
                }
            }
            Msg::Received(event) => self.receive(&event),
            // The browser says no more than this, so that pages cannot search a private network.
            Msg::Failed => self.note("error", "The connection failed. The browser does not tell a page why."),
            Msg::Closed(event) => {
                let close = close_text(&event);
                self.note("close", &close);
                self.refresh();
                if let Some(facts) = &mut self.facts {
                    facts.close = Some(close);
                }
                self.status = "Connection closed.";
                self.connection = None;
            }
            Msg::Refresh => {
                let before = self.facts.clone();
                self.refresh();
                return before != self.facts;
            }
            Msg::Type(text) => self.text = text,
            Msg::Send { binary } => self.send(binary),
            Msg::TypeCode(code) => self.code = code,
            Msg::TypeReason(reason) => self.reason = reason,
            Msg::Close => self.close(),
            Msg::Clear => self.log.clear(),
        }
        self.refresh();
        true
    }

    fn view(&self, ctx: &Context<Self>) -> Html {
        html! {
            <div class="lab">
                <div class="lab-page">
                    <header>
                        <h1>{ "Lab" }</h1>
                        <p class="lab-lead">
                            { "Watch a WebSocket at work: connect, send, listen, close. Nothing here touches your rooms, \
                               except where you choose the chat as the endpoint." }
                        </p>
                    </header>
                    <p class="sr" role="status">{ self.status }</p>
                    { self.view_connection(ctx) }
                    { self.view_facts() }
                    { self.view_log(ctx) }
                    <Compare />
                </div>
            </div>
        }
    }
}

impl Lab {
    fn start(&mut self, ctx: &Context<Self>) {
        let endpoint = &ENDPOINTS[self.chosen];
        let url = socket_url(endpoint.path);
        self.awaited.clear();
        self.complaint = None;
        // The old one goes first, so that it says nothing into the new one's log.
        self.connection = None;
        self.started = now();
        let socket = match endpoint.subprotocol {
            Some(subprotocol) => WebSocket::new_with_str(&url, subprotocol),
            None => WebSocket::new(&url),
        };
        let Ok(socket) = socket else {
            self.complaint = Some("The browser refused to open a WebSocket here.".to_owned());
            return;
        };
        socket.set_binary_type(BinaryType::Arraybuffer);
        let link = ctx.link();
        let on = |name: &'static str, msg: fn(&Event) -> Option<Msg>| {
            let link = link.clone();
            EventListener::new(&socket, name, move |event| {
                if let Some(msg) = msg(event) {
                    link.send_message(msg);
                }
            })
        };
        let listeners = [
            on("open", |_| Some(Msg::Opened)),
            on("message", |event| event.dyn_ref().cloned().map(Msg::Received)),
            on("error", |_| Some(Msg::Failed)),
            on("close", |event| event.dyn_ref().cloned().map(Msg::Closed)),
        ];
        let refresh = Interval::new(REFRESH_MS, {
            let link = link.clone();
            move || link.send_message(Msg::Refresh)
        });
        self.connection = Some(Connection { socket, _listeners: listeners, _refresh: refresh });
        self.note("connect", &url);
        self.status = "Connecting.";
        self.facts = Some(Facts { url, ..Facts::default() });
    }

    /// Reads the facts that the socket tells at any time.
    fn refresh(&mut self) {
        let (Some(connection), Some(facts)) = (&self.connection, &mut self.facts) else { return };
        let socket = &connection.socket;
        facts.state = frames::ready_state(socket.ready_state());
        facts.buffered = socket.buffered_amount() as usize;
        facts.subprotocol = socket.protocol();
        facts.extensions = socket.extensions();
    }

    fn receive(&mut self, event: &MessageEvent) {
        let data = event.data();
        let (kind, bytes, text) = if let Some(buffer) = data.dyn_ref::<ArrayBuffer>() {
            let bytes = Uint8Array::new(buffer).to_vec();
            ("binary", bytes.len(), String::from_utf8_lossy(&bytes).into_owned())
        } else {
            let text = data.as_string().unwrap_or_default();
            ("text", text.len(), text)
        };
        let source = match self.awaited.iter().position(|(sent, _)| *sent == text) {
            Some(index) => {
                let sent_at = self.awaited[index].1;
                // Echoes come in order: what was sent before and did not come back will not.
                self.awaited.drain(..=index);
                if let Some(facts) = &mut self.facts {
                    facts.round_trip = Some(now() - sent_at);
                }
                Source::Echo
            }
            None => Source::Server,
        };
        self.log.push(source, kind, Some(bytes), time(), &text);
    }

    fn send(&mut self, binary: bool) {
        let Some(connection) = &self.connection else { return };
        let text = self.text.clone();
        let sent = match binary {
            true => connection.socket.send_with_u8_array(text.as_bytes()),
            false => connection.socket.send_with_str(&text),
        };
        match sent {
            Ok(()) => {
                let kind = if binary { "binary" } else { "text" };
                self.log.push(Source::Sent, kind, Some(text.len()), time(), &text);
                if self.awaited.len() >= AWAITED_MAX {
                    self.awaited.pop_front();
                }
                self.awaited.push_back((text, now()));
                self.complaint = None;
            }
            Err(error) => self.complaint = Some(error_text(&error)),
        }
    }

    fn close(&mut self) {
        let Some(connection) = &self.connection else { return };
        let closed = frames::close_frame(&self.code, &self.reason).and_then(|code| {
            let closing = connection.socket.close_with_code_and_reason(code, &self.reason);
            closing.map(|()| code).map_err(|error| error_text(&error))
        });
        match closed {
            Ok(code) => {
                // The code takes the first two bytes (RFC 6455 §5.5.1). What the log shows when the connection
                // is closed is the server's frame, which may hold another code.
                let text = format!("{code} “{}”", self.reason);
                self.log.push(Source::Sent, "close", Some(2 + self.reason.len()), time(), &text);
                self.complaint = None;
            }
            Err(complaint) => self.complaint = Some(complaint),
        }
    }

    fn note(&mut self, kind: &'static str, text: &str) {
        self.log.push(Source::Connection, kind, None, time(), text);
    }

    fn is_open(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.socket.ready_state() == WebSocket::OPEN)
    }

    fn view_connection(&self, ctx: &Context<Self>) -> Html {
        let link = ctx.link();
        let open = self.is_open();
        let choose = link.batch_callback(|event: Event| {
            event
                .target_dyn_into::<HtmlSelectElement>()
                .and_then(|select| select.value().parse().ok())
                .map(Msg::Choose)
        });
        let send = link.callback(|event: SubmitEvent| {
            event.prevent_default();
            Msg::Send { binary: false }
        });
        let close = link.callback(|event: SubmitEvent| {
            event.prevent_default();
            Msg::Close
        });
        html! {
            <section class="lab-section" aria-labelledby="lab-connection">
                <h2 id="lab-connection">{ "Connection" }</h2>
                <div class="lab-row">
                    <div class="lab-grow">
                        <label class="label" for="lab-endpoint">{ "Endpoint" }</label>
                        <select class="field" id="lab-endpoint" data-testid="lab-endpoint" onchange={choose}>
                            { for ENDPOINTS.iter().enumerate().map(|(index, endpoint)| html! {
                                <option value={index.to_string()} selected={index == self.chosen}>
                                    { [endpoint.path, " · ", endpoint.label].concat() }
                                </option>
                            }) }
                        </select>
                    </div>
                    <button class="button primary" data-testid="lab-start" onclick={link.callback(|_: MouseEvent| Msg::Start)}>
                        { if self.connection.is_some() { "Start again" } else { "Start WebSocket" } }
                    </button>
                </div>
                <form class="lab-row" onsubmit={send}>
                    <div class="lab-grow">
                        <label class="label" for="lab-text">{ "Text" }</label>
                        <input class="field" id="lab-text" data-testid="lab-input" autocomplete="off"
                            value={self.text.clone()} oninput={typed(link, Msg::Type)} />
                    </div>
                    <button class="button" type="submit" data-testid="lab-send" disabled={!open}>{ "Send" }</button>
                    <button class="button" type="button" data-testid="lab-send-binary" disabled={!open}
                        onclick={link.callback(|_: MouseEvent| Msg::Send { binary: true })}>
                        { "Send as binary" }
                    </button>
                </form>
                <form class="lab-row" onsubmit={close}>
                    <div class="lab-code">
                        <label class="label" for="lab-code">{ "Close code" }</label>
                        <input class="field" id="lab-code" data-testid="lab-code" inputmode="numeric" autocomplete="off"
                            value={self.code.clone()} oninput={typed(link, Msg::TypeCode)} />
                    </div>
                    <div class="lab-grow">
                        <label class="label" for="lab-reason">{ "Reason" }</label>
                        <input class="field" id="lab-reason" data-testid="lab-reason" autocomplete="off"
                            value={self.reason.clone()} oninput={typed(link, Msg::TypeReason)} />
                    </div>
                    <button class="button" type="submit" data-testid="lab-close" disabled={!open}>{ "Close" }</button>
                </form>
                <p class="note bad" role="alert">{ self.complaint.clone().unwrap_or_default() }</p>
            </section>
        }
    }

    fn view_facts(&self) -> Html {
        let Some(facts) = &self.facts else { return Html::default() };
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let after = |ms: Option<f64>, none: &str| ms.map_or(none.to_owned(), frames::span);
        let rows = [
            ("URL", facts.url.clone()),
            ("State", facts.state.to_owned()),
            ("Subprotocol", or(&facts.subprotocol, "none")),
            ("Extensions", or(&facts.extensions, "none")),
            ("Time to open", after(facts.opened_after, "not open yet")),
            ("Round trip", after(facts.round_trip, "send a text to measure")),
            ("Waiting to be sent", frames::size(facts.buffered)),
            ("Close", or(facts.close.as_deref().unwrap_or_default(), "not closed")),
        ];
        html! {
            <section class="lab-section" aria-labelledby="lab-facts">
                <h2 id="lab-facts">{ "Handshake and state" }</h2>
                <dl class="lab-facts" data-testid="lab-facts">
                    { for rows.into_iter().map(|(name, value)| html! {
                        <div><dt>{ name }</dt><dd>{ value }</dd></div>
                    }) }
                </dl>
            </section>
        }
    }

    fn view_log(&self, ctx: &Context<Self>) -> Html {
        html! {
            <section class="lab-section" aria-labelledby="lab-log">
                <div class="lab-head">
                    <h2 id="lab-log">{ "Frames, newest first" }</h2>
                    <button class="button small" data-testid="lab-clear" disabled={self.log.is_empty()}
                        onclick={ctx.link().callback(|_: MouseEvent| Msg::Clear)}>{ "Clear" }</button>
                </div>
                <div class="lab-log" role="log" aria-live="off" aria-labelledby="lab-log" tabindex="0" data-testid="lab-log">
                    if self.log.is_empty() {
                        <p class="note">{ "Nothing yet." }</p>
                    }
                    <ol>
                        { for self.log.frames().map(|frame| html! {
                            <li key={frame.n} class={classes!("lab-frame", frame.source.word())}>
                                <time>{ &frame.time }</time>
                                <span class="lab-source">
                                    <span aria-hidden="true">{ frame.source.arrow() }{ " " }</span>{ frame.source.word() }
                                </span>
                                <span class="lab-kind">{ frame.kind }</span>
                                <span class="lab-size">{ frame.bytes.map(frames::size).unwrap_or_default() }</span>
                                <span class="lab-text">{ &frame.text }</span>
                            </li>
                        }) }
                    </ol>
                </div>
                <p class="note">
                    { "Sizes are payloads. Browsers answer pings by themselves and show no page the ping and pong frames." }
                </p>
            </section>
        }
    }
}

/// Reports what is typed into a field.
fn typed(link: &html::Scope<Lab>, msg: fn(String) -> Msg) -> Callback<InputEvent> {
    link.batch_callback(move |event: InputEvent| {
        event.target_dyn_into::<HtmlInputElement>().map(|field| msg(field.value()))
    })
}

fn close_text(event: &CloseEvent) -> String {
    let code = event.code();
    let clean = if event.was_clean() { "clean" } else { "not clean" };
    let reason = match event.reason() {
        reason if reason.is_empty() => "no reason".to_owned(),
        reason => ["“", &reason, "”"].concat(),
    };
    format!("{code} ({}), {reason}, {clean}", frames::close_word(code))
}

/// The address of a WebSocket endpoint of this page's own server.
fn socket_url(path: &str) -> String {
    let location = web_sys::window().map(|window| window.location());
    let part = |get: fn(&web_sys::Location) -> Result<String, JsValue>| {
        location.as_ref().and_then(|location| get(location).ok()).unwrap_or_default()
    };
    let scheme = if part(web_sys::Location::protocol) == "https:" { "wss://" } else { "ws://" };
    [scheme, &part(web_sys::Location::host), path].concat()
}

/// Milliseconds since the page began, with fractions: for measuring.
fn now() -> f64 {
    web_sys::window().and_then(|window| window.performance()).map_or(0.0, |performance| performance.now())
}

/// The local time of day.
fn time() -> String {
    let date = Date::new_0();
    frames::clock(date.get_hours(), date.get_minutes(), date.get_seconds(), date.get_milliseconds())
}

fn error_text(error: &JsValue) -> String {
    let message = js_sys::Reflect::get(error, &JsString::from("message")).ok();
    message.and_then(|message| message.as_string()).unwrap_or_else(|| "It did not work.".to_owned())
}
