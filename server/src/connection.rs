//! One WebSocket: reads a socket and gives its engine what arrives, or serves one of the trial addresses.
//!
//! It must not know rooms or users; what a request means is the hub's business.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use shared::protocol::{CloseCode, decode};
use tokio::time::{Instant, timeout, timeout_at};

use crate::engine::{ConnId, Engine, NewConnection};
use crate::gate::Permit;
use crate::handshake::Deflate;
use crate::hub::{Arrival, Mode, Request};
use crate::socket::Socket;
use crate::websocket::{Frame, Incoming, Machine};

/// Bytes the kernel may hold unsent before a socket counts as full. Without it the kernel takes megabytes
/// for a peer that does not read.
const NOTSENT_BYTES: u32 = 16 * 1024;
/// Bytes read at once, into one buffer per thread. Compressed, they can become a hundred times as many before
/// anybody else has a turn.
const READ_BYTES: usize = 8 * 1024;
/// How long a frame that was begun may take to arrive.
const STALLED_FRAME: Duration = Duration::from_secs(30);
/// How long hyper may take to hand over the socket after the answer 101.
const UPGRADE_WAIT: Duration = Duration::from_secs(10);
/// How long a closing trial connection is read on.
const TRIAL_CLOSE_WAIT: Duration = Duration::from_secs(3);
/// Longest time a trial peer may take nothing.
const TRIAL_WRITE_WAIT: Duration = Duration::from_secs(10);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What an upgraded connection is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    Chat {
        mode: Mode,
        arrival: Arrival,
    },
    /// Sends back what comes; with `events`, also says the time by itself.
    Echo {
        events: Option<Duration>,
    },
    /// Greets by name.
    Hello,
}

/// An upgrade that was answered with 101.
#[derive(Debug)]
pub struct Upgrade {
    pub on_upgrade: OnUpgrade,
    pub purpose: Purpose,
    pub deflate: Option<Deflate>,
    pub permit: Arc<Permit>,
    /// Longest message, in bytes.
    pub message_bytes_max: usize,
    /// Silence after which a trial peer is pinged, and again until it is given up.
    pub ping_interval: Duration,
}

/// Takes the socket over from HTTP and serves it until it ends.
pub async fn serve(engine: Rc<Engine>, upgrade: Upgrade) {
    let Upgrade { on_upgrade, purpose, deflate, permit, message_bytes_max, ping_interval } = upgrade;
    let Ok(Ok(upgraded)) = timeout(UPGRADE_WAIT, on_upgrade).await else { return };
    let Some((socket, early)) = Socket::take_over(upgraded) else { return };
    socket.limit_unsent(NOTSENT_BYTES);
    let machine = Machine::new(message_bytes_max, deflate.is_some());
    let deflate = deflate.is_some_and(Deflate::compresses);
    match purpose {
        Purpose::Chat { mode, arrival } => {
            let socket = Rc::new(socket);
            let new = NewConnection { socket: socket.clone(), mode, arrival, deflate, permit };
            let id = engine.open(new);
            let reader = tokio::task::spawn_local(read(engine.clone(), id, socket, machine, early));
            engine.set_reader(id, reader.abort_handle());
        }
        Purpose::Echo { events } => {
            let trial = Trial { socket, machine, deflate, ping_interval, reply: Reply::Echo, permit };
            trial.run(early, events).await;
        }
        Purpose::Hello => {
            let trial = Trial { socket, machine, deflate, ping_interval, reply: Reply::Hello, permit };
            trial.run(early, None).await;
        }
    }
}

/// Reads a chat connection to its end.
async fn read(engine: Rc<Engine>, id: ConnId, socket: Rc<Socket>, mut machine: Machine, mut early: Vec<u8>) {
    let mut is_over = !take(&engine, id, machine.feed(&mut early, |incoming| pass(&engine, id, incoming)));
    drop(early);
    loop {
        let ready = if machine.is_midway() && !is_over {
            match timeout(STALLED_FRAME, socket.readable()).await {
                Ok(ready) => ready,
                Err(_) => {
                    engine.close(id, CloseCode::NoAnswer);
                    is_over = true;
                    continue;
                }
            }
        } else {
            socket.readable().await
        };
        if ready.is_err() {
            break;
        }
        let read = BUFFER.with_borrow_mut(|buffer| match socket.try_read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            // After a close frame of ours the peer is only read so that it sees that frame.
            Ok(_) if is_over || engine.mode(id).is_none() => Ok(()),
            Ok(count) => {
                let fed = machine.feed(&mut buffer[..count], |incoming| pass(&engine, id, incoming));
                is_over = !take(&engine, id, fed);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        });
        if read.is_err() {
            break;
        }
        engine.room_for(id).await;
    }
    engine.closed(id);
}

/// Closes a connection that broke the protocol. True if it goes on.
fn take(engine: &Engine, id: ConnId, fed: Result<(), CloseCode>) -> bool {
    if let Err(code) = fed {
        engine.close(id, code);
    }
    fed.is_ok()
}

fn pass(engine: &Engine, id: ConnId, incoming: Incoming) {
    let Some(mode) = engine.mode(id) else { return };
    match incoming {
        Incoming::Text(text) => {
            let bytes = text.len();
            let request = match mode {
                Mode::Full => decode(&text).map(Request::Envelope),
                Mode::Plain => Ok(Request::Plain(text)),
            };
            engine.request(id, request, bytes);
        }
        Incoming::Binary(_) => engine.close(id, CloseCode::UnsupportedData),
        Incoming::Ping(payload) => engine.control(id, Some(&payload)),
        Incoming::Pong => engine.control(id, None),
        Incoming::Close(reply) => engine.close_with(id, Frame::close_reply(reply)),
    }
}

#[derive(Clone, Copy, Debug)]
enum Reply {
    Echo,
    Hello,
}

/// A connection to one of the trial addresses: reads, answers, and reads on once its answer is taken.
struct Trial {
    socket: Socket,
    machine: Machine,
    deflate: bool,
    ping_interval: Duration,
    reply: Reply,
    permit: Arc<Permit>,
}

/// How a trial connection ends.
enum End {
    /// The peer is gone.
    Gone,
    /// A close frame is sent; the peer is given time to take it.
    Closing,
}

impl Trial {
    async fn run(mut self, early: Vec<u8>, events: Option<Duration>) {
        if let End::Closing = self.talk(early, events).await {
            self.socket.shutdown_write();
            let end = Instant::now() + TRIAL_CLOSE_WAIT;
            let mut rest = [0; 4096];
            while Instant::now() < end
                && let Ok(Ok(())) = timeout_at(end, self.socket.readable()).await
            {
                match self.socket.try_read(&mut rest) {
                    Ok(0) => return,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                    _ => tokio::task::yield_now().await,
                }
            }
        }
    }

    async fn talk(&mut self, early: Vec<u8>, events: Option<Duration>) -> End {
        let mut bytes = early;
        let mut pinged = false;
        let mut event_at = events.map(|every| Instant::now() + every);
        let mut heard_at = Instant::now();
        loop {
            let mut out = Vec::new();
            let mut closing = None;
            let (reply, deflate) = (self.reply, self.deflate);
            let fed = self.machine.feed(&mut bytes, |incoming| {
                // Whole frames only: one that drips would otherwise never be pinged.
                (heard_at, pinged) = (Instant::now(), false);
                if closing.is_none() {
                    match incoming {
                        Incoming::Close(code) => closing = Some(Frame::close_reply(code)),
                        other => answer(reply, deflate, other, &mut out),
                    }
                }
            });
            let banned = self.permit.is_banned().then(|| Frame::close(CloseCode::Policy));
            let closing = closing.or(fed.err().map(Frame::close)).or(banned);
            let is_closing = closing.is_some();
            out.extend(closing);
            for Frame(frame) in out {
                if self.write(&frame).await.is_err() {
                    return End::Gone;
                }
            }
            if is_closing {
                return End::Closing;
            }
            bytes.clear();
            // A socket that is always ready would never let others have their turn.
            tokio::task::yield_now().await;
            let ping_at = heard_at + self.ping_interval;
            let wait_until = event_at.map_or(ping_at, |event_at| event_at.min(ping_at));
            match timeout_at(wait_until, self.socket.readable()).await {
                Ok(Ok(())) => {
                    let read = BUFFER.with_borrow_mut(|buffer| {
                        let count = self.socket.try_read(buffer)?;
                        bytes.extend_from_slice(&buffer[..count]);
                        io::Result::Ok(count)
                    });
                    match read {
                        Ok(0) => return End::Gone,
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => return End::Gone,
                    }
                }
                Ok(Err(_)) => return End::Gone,
                Err(_) if event_at.is_some_and(|event_at| event_at <= Instant::now()) => {
                    event_at = events.map(|every| Instant::now() + every);
                    let Frame(frame) = Frame::text(&server_event(std::time::SystemTime::now()));
                    if self.write(&frame).await.is_err() {
                        return End::Gone;
                    }
                }
                Err(_) => {
                    let Frame(frame) = if pinged { Frame::close(CloseCode::NoAnswer) } else { Frame::ping() };
                    if self.write(&frame).await.is_err() {
                        return End::Gone;
                    }
                    if pinged {
                        return End::Closing;
                    }
                    (heard_at, pinged) = (Instant::now(), true);
                }
            }
        }
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() || self.socket.owes() {
            timeout(TRIAL_WRITE_WAIT, self.socket.writable()).await??;
            match self.socket.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn answer(reply: Reply, deflate: bool, incoming: Incoming, out: &mut Vec<Frame>) {
    out.push(match (reply, incoming) {
        (_, Incoming::Ping(payload)) => Frame::pong(&payload),
        (Reply::Echo, Incoming::Text(text)) => {
            let deflated = if deflate { Frame::deflated_text(&text) } else { None };
            deflated.unwrap_or_else(|| Frame::text(&text))
        }
        (Reply::Echo, Incoming::Binary(data)) => {
            let deflated = if deflate { Frame::deflated_binary(&data) } else { None };
            deflated.unwrap_or_else(|| Frame::binary(&data))
        }
        (Reply::Hello, Incoming::Text(name)) => Frame::text(&format!("Hello {name}!")),
        (Reply::Hello, Incoming::Binary(_)) | (_, Incoming::Pong | Incoming::Close(_)) => return,
    });
}

/// What `/ws/echo?events=` says by itself, with the time of day in UTC.
fn server_event(now: std::time::SystemTime) -> String {
    let seconds = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs()) % 86_400;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("Server Event: Ping at {hours:02}:{minutes:02}:{seconds:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_events_say_the_time() {
        let at = std::time::UNIX_EPOCH + Duration::from_secs(86_400 * 3 + 3_600 * 13 + 62);
        assert_eq!(server_event(at), "Server Event: Ping at 13:01:02");
    }
}
