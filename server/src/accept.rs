//! The accept loop, and HTTP/1.1 for what it accepted, with the timers and limits that warp's own server lacks.
//!
//! It must not know routes: it is given a service. Every request has two extensions: the [`Client`] that it is
//! from, and the `Arc<Permit>` of its connection, which goes along with an upgraded socket.

mod opening;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use warp::http::{Request, Response, Uri};

use crate::addresses::Client;
use crate::gate::{Full, Gate, Permit};
use crate::tls::Tls;
use opening::{Opening, opening};

/// Most headers of one request; more are answered with 431.
const HEADERS_MAX: usize = 100;
/// How long an answer may still be read by a peer after its connection was told to end.
const ENDING_WAIT: Duration = Duration::from_secs(60);
/// Pause after the system refused to accept, as when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// First requests that are read and answered at once, on one worker.
pub const HANDSHAKES_MAX: usize = 32;
/// Connections that may wait to be accepted: a whole restart's worth of clients.
const BACKLOG: i32 = 8_192;

/// How patient a loop is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a request to begin, at first and on an idle connection; zero is no limit.
    pub idle: Duration,
    /// For a request's head; zero is no limit.
    pub header: Duration,
}

/// Binds an address with the options that accepted sockets inherit.
///
/// # Errors
/// The system's.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A connection that was let in, on its way to a worker.
pub struct Arrival {
    socket: std::net::TcpStream,
    /// What it must speak; `None` is plain HTTP.
    tls: Option<Arc<Tls>>,
    permit: Arc<Permit>,
}

/// What accept loops have in common.
#[derive(Clone)]
pub struct Door {
    /// What all connections must speak; `None` is plain HTTP.
    pub tls: Option<Arc<Tls>>,
    pub gate: Arc<Gate>,
    /// The workers, who are given a connection each in turn.
    pub seats: Vec<mpsc::UnboundedSender<Arrival>>,
    /// Nobody is let in once this is true.
    pub stop: watch::Receiver<bool>,
}

/// Accepts on all listeners until `stop` is true. Meant for a thread of its own: the queue at the door is
/// short, and whoever finds it full tries again a second later. Runs inside a `LocalSet`.
pub async fn run(listeners: Vec<std::net::TcpListener>, door: Door) {
    let mut loops = JoinSet::new();
    for listener in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => drop(loops.spawn_local(accept(listener, door.clone()))),
            Err(error) => return tracing::error!(%error, "cannot wait for connections"),
        }
    }
    while loops.join_next().await.is_some_and(|ended| ended.is_ok()) {}
}

async fn accept(listener: TcpListener, Door { tls, gate, seats, mut stop }: Door) {
    let mut seats = seats.iter().cycle();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        // The worker makes the socket known to its own runtime.
        match accepted.and_then(|(socket, address)| Ok((socket.into_std()?, address))) {
            Ok((socket, address)) => match gate.enter(address.ip()) {
                Ok(permit) => {
                    let arrival = Arrival { socket, tls: tls.clone(), permit: Arc::new(permit) };
                    if seats.next().is_none_or(|seat| seat.send(arrival).is_err()) {
                        return;
                    }
                }
                // Words would cost a handshake.
                Err(_) if tls.is_some() => {}
                Err(full) => drop(tokio::task::spawn_local(refuse(socket, full))),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers a connection that is one too many, without reading what it wants.
async fn refuse(socket: std::net::TcpStream, full: Full) {
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let (head, text) = match full {
        Full::Address => {
            ("429 Too Many Requests\r\nRetry-After: 10", "Too many connections from your address.")
        }
        Full::Server => {
            ("503 Service Unavailable\r\nRetry-After: 10", "The server is full. Try again later.")
        }
    };
    answer(socket, head, text).await;
}

/// Answers whatever is asked, and closes.
async fn answer(socket: TcpStream, head: &str, text: &str) {
    let answer = format!(
        "HTTP/1.1 {head}\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    let _ = timeout(Duration::from_secs(1), socket.writable()).await;
    let _ = socket.try_write(answer.as_bytes());
    // Closing before the request is read would reset the connection, and the answer with it.
    let _ = socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Write);
    let mut rest = [0; 1024];
    let _ = timeout(Duration::from_secs(1), async {
        while socket.readable().await.is_ok() && !matches!(socket.try_read(&mut rest), Ok(0)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The right to be at work on a first request.
type Turn = Option<OwnedSemaphorePermit>;

/// Serves a connection that a worker was given. Its first request waits for its turn: so many at once are at
/// work, and the others do not slow down those who talk already. Nobody has a turn while the network is
/// waited for: who says what they want in drips is served without one.
pub async fn serve<S, B>(
    Arrival { socket, tls, permit }: Arrival,
    turns: Arc<Semaphore>,
    patience: Patience,
    service: S,
    mut stop: watch::Receiver<bool>,
) where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let begin = async {
        // hyper's own timer starts with the first byte.
        let said = timeout(or_a_day(patience.idle), socket.readable()).await;
        let (opening, is_whole) = match said {
            Ok(Ok(())) => opening(&socket).await,
            _ => (Opening::Gone, true),
        };
        let is_served = is_whole && opening != Opening::Gone;
        (opening, if is_served { turns.acquire_owned().await.ok() } else { None })
    };
    let (opening, turn) = tokio::select! {
        begun = begin => begun,
        // Nobody was promised anything yet.
        _ = stop.wait_for(|stop| *stop) => return,
    };
    match (opening, tls) {
        (Opening::Gone, _) | (Opening::Other, Some(_)) => {}
        (_, None) => serve_http(socket, turn, ("http", permit), patience, service, stop).await,
        // On the heap, so that a plain connection is not larger for it.
        (Opening::Tls, Some(tls)) => {
            if let Some(stream) = Box::pin(handshake(socket, &tls, turn, patience)).await {
                Box::pin(serve_http(stream, None, ("https", permit), patience, service, stop)).await;
            }
        }
        // Somebody typed http.
        (Opening::Http, Some(_)) => {
            drop(turn);
            answer(socket, "400 Bad Request", "This port speaks TLS (https).").await;
        }
    }
}

/// TLS comes first. The turn is for its signature, which is made at once; then it is the peer's. What fails
/// is the peer's too, and it has its alert.
async fn handshake(
    socket: TcpStream,
    tls: &Tls,
    turn: Turn,
    patience: Patience,
) -> Option<TlsStream<TcpStream>> {
    let mut handshake = pin!(timeout(or_a_day(patience.header), tls.acceptor().accept(socket)));
    let begun = futures_util::poll!(handshake.as_mut());
    drop(turn);
    let ended = match begun {
        Poll::Ready(ended) => ended,
        Poll::Pending => handshake.await,
    };
    ended.ok()?.ok()
}

/// No limit is as good as a day.
fn or_a_day(wait: Duration) -> Duration {
    if wait.is_zero() { Duration::from_secs(86_400) } else { wait }
}

async fn serve_http<S, B, I>(
    stream: I,
    turn: Turn,
    (scheme, permit): (&'static str, Arc<Permit>),
    patience: Patience,
    service: S,
    mut stop: watch::Receiver<bool>,
) where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let turn = Rc::new(Cell::new(turn));
    let requested_at = Rc::new(Cell::new(Instant::now()));
    let service = {
        let (requested_at, turn) = (requested_at.clone(), turn.clone());
        hyper::service::service_fn(move |mut request: Request<Incoming>| {
            requested_at.set(Instant::now());
            let client = permit.client(scheme, request.headers());
            request.extensions_mut().insert::<Client>(client);
            request.extensions_mut().insert(permit.clone());
            let version = request.version();
            request.extensions_mut().insert(version);
            // A target without a path (RFC 9112 §3.2.3) is nowhere here, and warp's `path::full` panics at it.
            if request.uri().path_and_query().is_none() {
                *request.uri_mut() = Uri::from_static("*");
            }
            let (answer, turn) = (service.call(request), turn.clone());
            async move {
                let mut answer = pin!(answer);
                let first = futures_util::poll!(answer.as_mut());
                // What is waited for now, such as the store, is not this thread's work.
                turn.take();
                match first {
                    Poll::Ready(answer) => answer,
                    Poll::Pending => answer.await,
                }
            }
        })
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).max_headers(HEADERS_MAX);
    http.header_read_timeout(or_a_day(patience.header));
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = pin!(connection);
    let mut ends_at = None;
    loop {
        let idle_at = requested_at.get() + or_a_day(patience.idle);
        let is_ending = ends_at.is_some();
        tokio::select! {
            // An error here is the peer's: it went away, or did not speak HTTP and has its answer.
            _ = connection.as_mut() => return,
            // Ends an idle connection; one at work is ended after its answer.
            () = sleep_until(idle_at), if !is_ending => {
                if requested_at.get() + or_a_day(patience.idle) <= Instant::now() {
                    ends_at = Some(Instant::now() + ENDING_WAIT);
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = sleep_until(ends_at.unwrap_or(idle_at)), if is_ending => return,
            _ = stop.wait_for(|stop| *stop), if !is_ending => {
                ends_at = Some(Instant::now() + ENDING_WAIT);
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
