//! The accept loop, and HTTP/1.1 for what it accepted, with the timers and limits that warp's own server lacks.
//!
//! It must not know routes: it is given a service, and tells it who the peer is by request extensions.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use warp::http::{Request, Response, Uri};

use crate::gate::{Full, Gate, Permit};
use crate::tls::Tls;

/// Most headers of one request; more are answered with 431.
const HEADERS_MAX: usize = 100;
/// How long an answer may still be read by a peer after its connection was told to end.
const ENDING_WAIT: Duration = Duration::from_secs(60);
/// Pause after the system refused to accept, as when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// First requests that are read and answered at once, on one worker.
pub const HANDSHAKES_MAX: usize = 32;
/// How long a connection may keep its turn before it has said what it wants.
const HANDSHAKE_TURN: Duration = Duration::from_millis(50);
/// First byte of a TLS connection: the type of a handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;
/// Connections that may wait to be accepted: a whole restart's worth of clients.
const BACKLOG: i32 = 8_192;

/// Who sent a request. Every request has it as an extension, and so the `Arc<Permit>` of its connection,
/// which goes along with an upgraded socket.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddr(pub SocketAddr);

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
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
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
    TcpListener::from_std(socket.into())
}

/// A connection that was let in, on its way to a worker.
pub struct Arrival {
    socket: std::net::TcpStream,
    /// What it must speak; `None` is plain HTTP.
    tls: Option<Arc<Tls>>,
    peer: PeerAddr,
    permit: Arc<Permit>,
}

/// Accepts until `stop` is true, and gives the workers of `seats` a connection each in turn. With `tls`, all of
/// them speak it.
pub async fn run(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    gate: Arc<Gate>,
    seats: Vec<mpsc::UnboundedSender<Arrival>>,
    mut stop: watch::Receiver<bool>,
) {
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
                    let (tls, peer) = (tls.clone(), PeerAddr(address));
                    let arrival = Arrival { socket, tls, peer, permit: Arc::new(permit) };
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
        "HTTP/1.1 {head}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
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

/// The right to be at work on a first request, for a while.
struct Turn {
    right: Option<OwnedSemaphorePermit>,
    until: Instant,
}

impl Turn {
    async fn wait(turns: Arc<Semaphore>) -> Self {
        let right = turns.acquire_owned().await.ok();
        Self { right, until: Instant::now() + HANDSHAKE_TURN }
    }
}

/// Serves a connection that a worker was given. Its first request waits for its turn: so many at once are at
/// work between their first byte and their answer, and the others do not slow down those who talk already.
pub async fn serve<S, B>(
    Arrival { socket, tls, peer, permit }: Arrival,
    turns: Arc<Semaphore>,
    patience: Patience,
    service: S,
    stop: watch::Receiver<bool>,
) where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    match tls {
        None => {
            // hyper's own timer starts with the first byte.
            if matches!(timeout(or_a_day(patience.idle), socket.readable()).await, Ok(Ok(()))) {
                let turn = Turn::wait(turns).await;
                serve_http(socket, turn, (peer, permit), patience, service, stop).await;
            }
        }
        // On the heap, so that a plain connection is not larger for it.
        Some(tls) => Box::pin(serve_tls(socket, &tls, turns, (peer, permit), patience, service, stop)).await,
    }
}

/// TLS comes first, in the same turn.
async fn serve_tls<S, B>(
    socket: TcpStream,
    tls: &Tls,
    turns: Arc<Semaphore>,
    peer: (PeerAddr, Arc<Permit>),
    patience: Patience,
    service: S,
    stop: watch::Receiver<bool>,
) where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut first = [0];
    match timeout(or_a_day(patience.idle), socket.peek(&mut first)).await {
        Ok(Ok(1)) if first[0] == TLS_HANDSHAKE => {}
        // A method: somebody typed http.
        Ok(Ok(1)) if first[0].is_ascii_uppercase() => {
            return answer(socket, "400 Bad Request", "This port speaks TLS (https).").await;
        }
        _ => return,
    }
    let mut turn = Turn::wait(turns).await;
    let mut handshake = pin!(timeout(or_a_day(patience.header), tls.acceptor().accept(socket)));
    let stream = tokio::select! {
        stream = handshake.as_mut() => stream,
        () = sleep_until(turn.until) => {
            turn.right = None;
            handshake.await
        }
    };
    // What fails here is the peer's, and it has its alert.
    if let Ok(Ok(stream)) = stream {
        serve_http(stream, turn, peer, patience, service, stop).await;
    }
}

/// No limit is as good as a day.
fn or_a_day(wait: Duration) -> Duration {
    if wait.is_zero() { Duration::from_secs(86_400) } else { wait }
}

async fn serve_http<S, B, I>(
    stream: I,
    turn: Turn,
    (peer, permit): (PeerAddr, Arc<Permit>),
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
    let turn_until = turn.until;
    let turn = Rc::new(Cell::new(turn.right));
    let requested_at = Rc::new(Cell::new(Instant::now()));
    let service = {
        let (requested_at, turn) = (requested_at.clone(), turn.clone());
        hyper::service::service_fn(move |mut request: Request<Incoming>| {
            requested_at.set(Instant::now());
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(permit.clone());
            let version = request.version();
            request.extensions_mut().insert(version);
            // A target without a path (RFC 9112 §3.2.3) is nowhere here, and warp's `path::full` panics at it.
            if request.uri().path_and_query().is_none() {
                *request.uri_mut() = Uri::from_static("*");
            }
            let (answer, turn) = (service.call(request), turn.clone());
            async move {
                let answer = answer.await;
                turn.take();
                answer
            }
        })
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).max_headers(HEADERS_MAX);
    http.header_read_timeout(or_a_day(patience.header));
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = pin!(connection);
    let mut ends_at = None;
    let mut has_turn = true;
    loop {
        let idle_at = requested_at.get() + or_a_day(patience.idle);
        let is_ending = ends_at.is_some();
        tokio::select! {
            // Who is slow to say what they want lets the next one begin.
            () = sleep_until(turn_until), if has_turn => {
                has_turn = false;
                turn.take();
            }
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
