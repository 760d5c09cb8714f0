//! A socket as the engine uses it: tried at once, waited for only when it is full or empty. Plain TCP, or TLS
//! over it.
//!
//! TLS has no task and no copy of the stream either: rustls, which does no I/O, works over the bare socket
//! and is tried in the same way. What it has taken counts as written; while the kernel does not take it,
//! `owes` is true and somebody has to `flush`. It must not know frames, HTTP or certificates.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::server::TlsStream;

/// Bytes that TLS may hold for a kernel that takes nothing: four records.
const UNSENT_BYTES_MAX: usize = 64 * 1024;
/// Reads from the kernel, of 4 KiB each, before others have their turn. Records can be empty.
const KERNEL_READS_MAX: usize = 8;

/// A connection's socket, which lives on one thread.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    tls: Option<Box<RefCell<Tls>>>,
}

#[derive(Debug)]
struct Tls {
    session: ServerConnection,
    /// Whether there may be plaintext that nobody has read yet.
    has_plaintext: bool,
    /// Whether the peer has said its last word.
    is_over: bool,
}

impl Socket {
    /// Takes a socket over from HTTP, with what HTTP had already read. `None` for a stream that is neither
    /// TCP nor TLS over it, or whose peer broke the protocol.
    pub fn take_over(upgraded: Upgraded) -> Option<(Self, Vec<u8>)> {
        let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
            // A copy, since even an empty buffer of hyper's holds 4 KiB.
            Ok(parts) => return Some((Self::plain(parts.io.into_inner()), parts.read_buf.to_vec())),
            Err(upgraded) => upgraded,
        };
        let parts = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>().ok()?;
        let (tcp, session) = parts.io.into_inner().into_inner();
        Some((Self::tls(tcp, session)?, parts.read_buf.to_vec()))
    }

    /// TCP without TLS.
    pub fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    /// TLS after its handshake.
    fn tls(tcp: TcpStream, mut session: ServerConnection) -> Option<Self> {
        session.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        let state = session.process_new_packets().ok()?;
        let (has_plaintext, is_over) = (state.plaintext_bytes_to_read() > 0, state.peer_has_closed());
        Some(Self { tcp, tls: Some(Box::new(RefCell::new(Tls { session, has_plaintext, is_over }))) })
    }

    /// Waits until there may be something to read, or the end.
    ///
    /// # Errors
    /// The system's.
    pub async fn readable(&self) -> io::Result<()> {
        // The kernel does not know of these.
        if self.tls.as_ref().is_some_and(|tls| tls.borrow().has_plaintext || tls.borrow().is_over) {
            return Ok(());
        }
        self.tcp.readable().await
    }

    /// Waits until the kernel takes bytes.
    ///
    /// # Errors
    /// The system's.
    pub async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    /// Reads what is there; 0 is the peer's end.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing, also where only a part of a record is there; `UnexpectedEof` if the
    /// peer's TLS ended without saying so; `InvalidData` if it is broken; and the system's.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.try_read(buffer),
            Some(tls) => tls.borrow_mut().try_read(&self.tcp, buffer),
        }
    }

    /// Writes as much as is taken now.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is, and the system's.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.try_write(bytes),
            Some(tls) => tls.borrow_mut().try_write(&self.tcp, bytes),
        }
    }

    /// Writes as much of several pieces as is taken now.
    ///
    /// # Errors
    /// As `try_write`.
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.try_write_vectored(pieces),
            Some(tls) => tls.borrow_mut().try_write_vectored(&self.tcp, pieces),
        }
    }

    /// Whether something that counts as written waits for the kernel.
    pub fn owes(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.borrow().session.wants_write())
    }

    /// Gives the kernel what waits for it. True when nothing is left.
    ///
    /// # Errors
    /// The system's, other than "would block".
    pub fn flush(&self) -> io::Result<bool> {
        self.tls.as_ref().map_or(Ok(true), |tls| tls.borrow_mut().flush(&self.tcp))
    }

    /// Tells the peer that nothing more comes. It may still send.
    pub fn shutdown_write(&self) {
        if let Some(tls) = &self.tls {
            let mut tls = tls.borrow_mut();
            tls.session.send_close_notify();
            // A kernel that has no room even for this holds bytes that the peer does not take: it then sees
            // the end of TCP without the end of TLS, after all that was said.
            let _ = tls.flush(&self.tcp);
        }
        // It fails only if the peer is gone.
        let _ = SockRef::from(&self.tcp).shutdown(Shutdown::Write);
    }

    /// Lets the kernel throw away what the peer has not taken, once the socket is dropped.
    pub fn discard_at_end(&self) {
        let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
    }

    /// Limits what the kernel holds unsent before the socket counts as full.
    pub fn limit_unsent(&self, bytes: u32) {
        // A system without the option only queues more in its kernel.
        let _ = SockRef::from(&self.tcp).set_tcp_notsent_lowat(bytes);
    }
}

impl Tls {
    fn try_read(&mut self, tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..KERNEL_READS_MAX {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.has_plaintext = false,
                Ok(count) => {
                    self.has_plaintext = count == buffer.len();
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
            self.session.read_tls(&mut Wire(tcp))?;
            let processed = self.session.process_new_packets();
            // An answer of the protocol itself, such as an alert. What is not taken goes with the next write.
            let flushed = self.flush(tcp);
            let state = processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.is_over = state.peer_has_closed();
            flushed?;
        }
        // The socket is still ready, so the next attempt comes at once.
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn try_write(&mut self, tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while self.flush(tcp)? {
            let rest = &bytes[taken..];
            if rest.is_empty() {
                return Ok(taken);
            }
            match self.session.writer().write(rest)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => taken += count,
            }
        }
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn try_write_vectored(&mut self, tcp: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.flush(tcp)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.session.writer().write_vectored(pieces)?;
        self.flush(tcp)?;
        Ok(count)
    }

    fn flush(&mut self, tcp: &TcpStream) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Wire(tcp)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// The bare socket, for rustls.
struct Wire<'a>(&'a TcpStream);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
