//! One WebSocket to the server: text frames of `magpie.v1`, in and out.
//!
//! It opens, sends, reports and closes, and decides nothing: when to connect again is `link`'s business.
//! A `Socket` that was dropped or closed never reports again, so news of an old connection cannot be taken
//! for news of the present one.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::sink::Sink;
use futures_util::stream::Stream;
use gloo_net::websocket::futures::WebSocket;
use gloo_net::websocket::{Message, State, WebSocketError};
use shared::protocol::{ClientEnvelope, SUBPROTOCOL, ServerEnvelope};
use wasm_bindgen_futures::spawn_local;
use yew::Callback;

/// What is reported when the connection ended and nobody said why (RFC 6455 §7.1.5).
const CLOSED_ABNORMALLY: u16 = 1006;

/// How the subprotocol is named in the handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As RFC 6455 §1.9 has it; not seen to work yet.
    HeaderFirst,
    /// The same, and it worked.
    Header,
    /// In the query, since something between drops the header from the answer, as `trunk serve` does.
    Query,
}

thread_local! {
    static WAY: Cell<Way> = const { Cell::new(Way::HeaderFirst) };
}

impl Way {
    /// What to try next, after a connection was or was not opened this way.
    fn after(self, has_opened: bool) -> Self {
        match self {
            Way::HeaderFirst | Way::Header if has_opened => Way::Header,
            Way::Query if has_opened => Way::Query,
            Way::Header => Way::Header,
            Way::HeaderFirst => Way::Query,
            Way::Query => Way::HeaderFirst,
        }
    }

    fn open(self) -> Option<WebSocket> {
        let url = address()?;
        let opened = match self {
            Way::HeaderFirst | Way::Header => WebSocket::open_with_protocol(&url, SUBPROTOCOL),
            Way::Query => WebSocket::open(&[&url, "?protocol=", SUBPROTOCOL].concat()),
        };
        opened.ok()
    }
}

/// Remembers whether a connection was opened. What drops the header may drop the cookie of the page as well:
/// then it is asked for by itself.
fn learn(way: Way, has_opened: bool) {
    let next = way.after(has_opened);
    WAY.set(next);
    if next == Way::Query
        && !has_opened
        && let Some(window) = web_sys::window()
    {
        let _ = window.fetch_with_str("/api/session");
    }
}

/// What a socket reports.
pub enum Report {
    /// The handshake is done; frames can be sent.
    Opened,
    Received(Box<ServerEnvelope>),
    /// The connection is gone, or never came to be. The last report.
    Closed(u16),
}

/// A connection, from the attempt to open it until it is dropped.
pub struct Socket {
    /// Empty once the connection is over.
    inner: Rc<RefCell<Option<WebSocket>>>,
}

impl Socket {
    /// Starts to connect to the server that the page came from.
    pub fn open(report: Callback<Report>) -> Self {
        let way = WAY.get();
        let inner = Rc::new(RefCell::new(way.open()));
        let own = Rc::clone(&inner);
        spawn_local(async move {
            if inner.borrow().is_none() {
                report.emit(Report::Closed(CLOSED_ABNORMALLY));
                return;
            }
            let mut opening = true;
            // The borrow ends with each poll, so that a report may send, or drop the socket.
            while let Some(next) = poll_fn(|cx| poll(&inner, &mut opening, cx)).await {
                let over = matches!(next, Report::Closed(_));
                if matches!(next, Report::Opened) || over && opening {
                    learn(way, !over);
                }
                if over {
                    inner.borrow_mut().take();
                }
                report.emit(next);
                if over {
                    return;
                }
            }
        });
        Self { inner: own }
    }

    /// Sends a frame. Without an open connection it is lost, as it would be on the way.
    pub fn send(&self, envelope: &ClientEnvelope) {
        let Ok(text) = serde_json::to_string(envelope) else { return };
        if let Some(socket) = self.inner.borrow_mut().as_mut().filter(|socket| is_open(socket)) {
            // A failure here is followed by a close, which is reported.
            let _ = Pin::new(socket).start_send(Message::Text(text));
        }
    }

    /// Ends the connection with a code, without a report.
    pub fn close(self, code: u16) {
        let taken = self.inner.borrow_mut().take();
        if let Some(socket) = taken {
            // Browsers take only 1000 and our own codes here (WebSockets standard, `close()`).
            let code = if code == 1000 || (3000..5000).contains(&code) { code } else { 1000 };
            let _ = socket.close(Some(code), None);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Not `borrow_mut`: the task may hold it when a report drops the socket.
        if let Ok(mut inner) = self.inner.try_borrow_mut() {
            inner.take();
        }
    }
}

/// The next report; `None` when the socket was dropped.
fn poll(
    inner: &RefCell<Option<WebSocket>>,
    opening: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Option<Report>> {
    let mut inner = inner.borrow_mut();
    let Some(socket) = inner.as_mut() else { return Poll::Ready(None) };
    if *opening {
        match Pin::new(&mut *socket).poll_ready(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(_) => {
                if is_open(socket) {
                    *opening = false;
                    return Poll::Ready(Some(Report::Opened));
                }
            }
        }
    }
    loop {
        match Pin::new(&mut *socket).poll_next(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(Message::Text(text)))) => match serde_json::from_str(&text) {
                Ok(envelope) => return Poll::Ready(Some(Report::Received(Box::new(envelope)))),
                // A newer server may say things that this page does not know.
                Err(_) => web_sys::console::debug_1(&"An envelope was not understood.".into()),
            },
            Poll::Ready(Some(Ok(Message::Bytes(_)))) => {}
            Poll::Ready(Some(Err(WebSocketError::ConnectionClose(event)))) => {
                return Poll::Ready(Some(Report::Closed(event.code)));
            }
            // Always followed by the close, which carries the code.
            Poll::Ready(Some(Err(_))) => {}
            Poll::Ready(None) => return Poll::Ready(Some(Report::Closed(CLOSED_ABNORMALLY))),
        }
    }
}

fn is_open(socket: &WebSocket) -> bool {
    matches!(socket.state(), State::Open)
}

/// Where `/ws` is, as seen from the page.
fn address() -> Option<String> {
    let location = web_sys::window()?.location();
    let scheme = if location.protocol().ok()? == "https:" { "wss://" } else { "ws://" };
    Some([scheme, &location.host().ok()?, "/ws"].concat())
}
