//! What connections are owed: frames shared by all, a list per connection, and a backlog where a socket is
//! full. No allocation per delivery: lists live in one vector that each turn reuses.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::task::AbortHandle;

use crate::encoded::Encoded;
use crate::socket::Socket;
use crate::websocket::Frame;

/// The end of a list.
pub(super) const NONE: u32 = u32::MAX;
/// Deliveries, or bytes of frames, after which a turn stops deciding and writes.
const HEAVY_NODES: usize = 100_000;
const HEAVY_BYTES: usize = 8 * 1024 * 1024;
/// What is kept of the memory of a turn.
const KEPT_NODES: usize = 16 * 1024;
const KEPT_BYTES: usize = 256 * 1024;
/// Pieces given to the kernel in one call.
const SLICES_MAX: usize = 64;

/// A connection's frames of this turn, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

#[derive(Debug)]
struct Node {
    frame: u32,
    next: u32,
}

/// One message, encoded once for all who are owed it.
#[derive(Debug)]
struct Forms {
    plain: Bytes,
    /// For those that negotiated permessage-deflate.
    deflated: Option<Bytes>,
}

/// The frames of one turn and the lists of who is owed them.
#[derive(Debug, Default)]
pub(super) struct Frames {
    frames: Vec<Forms>,
    nodes: Vec<Node>,
    /// The frames of the last list that was joined, and their bytes: members of one room are often owed the
    /// same.
    joined_of: Vec<u32>,
    joined_deflate: bool,
    joined: Vec<u8>,
    /// The list at hand.
    list: Vec<u32>,
    /// Bytes of all frames.
    bytes: usize,
}

/// How far a write got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    Blocked,
}

impl Frames {
    /// Adds a frame of this turn; answers its number.
    pub fn add(&mut self, plain: Frame, deflated: Option<Frame>) -> u32 {
        self.bytes += plain.0.len();
        self.frames.push(Forms { plain: plain.0, deflated: deflated.map(|frame| frame.0) });
        (self.frames.len() - 1) as u32
    }

    /// Adds a text that many are owed, compressed too if somebody takes that; answers its number.
    pub fn share(&mut self, text: &Encoded, deflate: bool) -> u32 {
        let deflated = if deflate { text.deflated().cloned() } else { None };
        self.add(text.frame().clone(), deflated)
    }

    /// Puts a frame at the end of a connection's list.
    pub fn link(&mut self, list: &mut List, frame: u32) {
        let node = self.nodes.len() as u32;
        self.nodes.push(Node { frame, next: NONE });
        match self.nodes.get_mut(list.last as usize) {
            Some(last) if list.first != NONE => last.next = node,
            _ => list.first = node,
        }
        list.last = node;
    }

    /// The bytes of a list, frame by frame.
    pub fn list(&self, list: List, deflate: bool) -> impl Iterator<Item = &Bytes> {
        let mut at = list.first;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next;
            Some(self.bytes(node.frame, deflate))
        })
    }

    fn bytes(&self, frame: u32, deflate: bool) -> &Bytes {
        let Forms { plain, deflated } = &self.frames[frame as usize];
        deflated.as_ref().filter(|_| deflate).unwrap_or(plain)
    }

    /// Writes a list in one call. Answers with what the socket did not take; with an empty backlog if it took
    /// all but owes the kernel some of it.
    ///
    /// # Errors
    /// The socket's, other than "would block".
    pub fn write(&mut self, socket: &Socket, list: List, deflate: bool) -> io::Result<Option<Backlog>> {
        self.list.clear();
        let mut at = list.first;
        while let Some(node) = self.nodes.get(at as usize) {
            self.list.push(node.frame);
            at = node.next;
        }
        let written = if let [frame] = self.list[..] {
            try_write(socket, self.bytes(frame, deflate))?
        } else {
            if self.joined_of != self.list || self.joined_deflate != deflate {
                let mut joined = std::mem::take(&mut self.joined);
                joined.clear();
                for frame in &self.list {
                    joined.extend_from_slice(self.bytes(*frame, deflate));
                }
                self.joined = joined;
                self.joined_of.clone_from(&self.list);
                self.joined_deflate = deflate;
            }
            try_write(socket, &self.joined)?
        };
        let mut backlog = Backlog::default();
        backlog.extend(self.list(list, deflate), written);
        Ok((!backlog.pieces.is_empty() || socket.owes()).then_some(backlog))
    }

    /// Whether enough is owed to be written before more is decided.
    pub fn is_heavy(&self) -> bool {
        self.nodes.len() > HEAVY_NODES || self.bytes > HEAVY_BYTES
    }

    /// Forgets all frames and lists; keeps as much memory as a busy turn needs.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.nodes.clear();
        self.joined_of.clear();
        self.bytes = 0;
        self.frames.shrink_to(KEPT_NODES);
        self.nodes.shrink_to(KEPT_NODES);
        self.joined.clear();
        self.joined.shrink_to(KEPT_BYTES);
    }
}

/// What a socket did not take yet.
#[derive(Debug)]
pub(super) struct Backlog {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Whether the front is the rest of a frame that was begun.
    is_begun: bool,
    task: Option<AbortHandle>,
}

impl Default for Backlog {
    fn default() -> Self {
        let pieces = VecDeque::new();
        Self { pieces, bytes: 0, is_begun: false, task: None }
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Backlog {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The task that writes when the socket is ready; it ends with the backlog.
    pub fn flush_by(&mut self, task: AbortHandle) {
        self.task = Some(task);
    }

    /// Adds frames, of which the first `written` bytes are written already.
    pub fn extend<'a>(&mut self, frames: impl Iterator<Item = &'a Bytes>, mut written: usize) {
        for frame in frames {
            if written >= frame.len() {
                written -= frame.len();
                continue;
            }
            self.is_begun |= written > 0;
            self.bytes += frame.len() - written;
            self.pieces.push_back(frame.slice(written..));
            written = 0;
        }
    }

    /// Throws away all but the rest of a frame that was begun.
    pub fn keep_begun(&mut self) {
        self.pieces.truncate(usize::from(self.is_begun));
        self.bytes = self.pieces.iter().map(Bytes::len).sum();
    }

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// The socket's, other than "would block".
    pub fn write(&mut self, socket: &Socket) -> io::Result<Progress> {
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            let mut written = match socket.try_write_vectored(&slices[..count]) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Blocked),
                Err(error) => return Err(error),
            };
            self.bytes -= written;
            while let Some(piece) = self.pieces.front_mut() {
                if written < piece.len() {
                    self.is_begun |= written > 0;
                    piece.advance(written);
                    break;
                }
                written -= piece.len();
                self.is_begun = false;
                self.pieces.pop_front();
            }
        }
        Ok(if socket.flush()? { Progress::Done } else { Progress::Blocked })
    }
}

/// Writes what the socket takes; "would block" is 0 bytes.
fn try_write(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    match socket.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn lists_share_frames_and_keep_their_order() {
        let mut frames = Frames::default();
        let [a, b, c] = ["a", "b", "c"].map(|text| frames.add(Frame(frame(text)), None));
        let (mut one, mut two) = (List::default(), List::default());
        for (list, frame) in [(&mut one, a), (&mut two, b)] {
            frames.link(list, frame);
        }
        frames.link(&mut one, c);
        frames.link(&mut two, a);
        let read = |list| frames.list(list, false).flat_map(|bytes| bytes.to_vec()).collect::<Vec<_>>();
        assert_eq!((read(one), read(two)), (b"ac".to_vec(), b"ba".to_vec()));
        assert_eq!(read(List::default()), b"");
    }

    #[test]
    fn a_backlog_keeps_the_frame_that_was_begun() {
        let frames = [frame("hello"), frame("world"), frame("!")];
        let mut backlog = Backlog::default();
        backlog.extend(frames.iter(), 7);
        assert_eq!((backlog.bytes(), backlog.pieces.len()), (4, 2));
        backlog.keep_begun();
        assert_eq!((backlog.bytes(), &backlog.pieces[0][..]), (3, &b"rld"[..]));
        let mut whole = Backlog::default();
        whole.extend(frames.iter(), 5);
        whole.keep_begun();
        assert_eq!((whole.bytes(), whole.pieces.len()), (0, 0));
    }
}
