//! The network between browsers and nodes: links that open, carry, break and are given up. It carries what it
//! is given, and changes nothing on the way.

use std::collections::{BTreeMap, VecDeque};

use client::state::Input;
use server::hub::{Conn, Mode};
use server::simulation::Output;
use shared::model::{Ms, RoomId, Seq, UserId};
use shared::protocol::{CloseCode, ServerEnvelope};

use super::world::World;

/// A connection without a close frame (RFC 6455 §7.4.1).
pub const CLOSE_ABNORMAL: u16 = 1006;
/// After how long a node drops a connection through which nothing comes: its pings stay without an answer.
const UNANSWERED_MS: Ms = 60_000;

/// How a link ends.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Both sides learn of it; what is under way is lost.
    Clean,
    /// The client learns of it; what it has sent may still arrive.
    ClientFirst,
    /// The server learns of it; what it has sent may still arrive.
    ServerFirst,
    /// The server learns of it, the client must find out.
    Silent,
    /// Nobody learns of it: both must find out.
    Unnoticed,
}

/// What is on its way to a client.
pub enum Down {
    Envelope(Box<ServerEnvelope>),
    Close(CloseCode),
}

/// Where a connection stands in a room's log.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// It was told of this head, and of no event since.
    Head(Seq),
    /// It was told of this event.
    Event(Seq),
}

/// A client's socket with what is under way on it.
#[derive(Default)]
pub struct Link {
    pub node: usize,
    pub token: u8,
    /// The connection at the node, once it is open.
    pub conn: Option<Conn>,
    /// Who the node takes them for, once it has welcomed them.
    pub user: Option<UserId>,
    /// Up to where it has heard each room's log, or where that ended when it began to hear.
    pub heard: BTreeMap<RoomId, Progress>,
    /// The session was ended before the link opened.
    pub is_void: bool,
    pub up: VecDeque<String>,
    pub down: VecDeque<Down>,
    /// The node knows it no more.
    pub is_orphan: bool,
    /// Nothing comes through any more, and nobody says so.
    pub is_dead: bool,
    /// When the node drops it because nothing comes through.
    pub dropped_at: Option<Ms>,
}

impl World {
    /// The client lets go of its socket; the node learns of it later.
    pub fn give_up(&mut self, client: usize) {
        if let Some(link) = self.clients[client].link.take()
            && link.conn.is_some()
            && !link.is_orphan
            && self.nodes[link.node].is_some()
        {
            self.orphans.push(link);
        }
    }

    /// The node learns that a link ended.
    fn end(&mut self, link: &Link) {
        if let (Some(conn), Some(node)) = (link.conn, &mut self.nodes[link.node])
            && !link.is_orphan
        {
            node.close(conn);
        }
    }

    pub fn cut(&mut self, client: usize, cut: Cut) {
        let Some(mut link) = self.clients[client].link.take() else { return };
        self.say(|| format!("client {client} is cut off: {cut:?}"));
        if link.conn.is_none() {
            self.input(client, Input::Closed { code: CLOSE_ABNORMAL });
            return;
        }
        match cut {
            Cut::Clean => {
                self.end(&link);
                self.input(client, Input::Closed { code: CLOSE_ABNORMAL });
            }
            Cut::ClientFirst => {
                if !link.is_orphan && self.nodes[link.node].is_some() {
                    let kept = self.rng.usize(..=link.up.len());
                    link.up.truncate(kept);
                    self.orphans.push(link);
                }
                self.input(client, Input::Closed { code: CLOSE_ABNORMAL });
            }
            Cut::ServerFirst | Cut::Silent => {
                self.end(&link);
                let kept = self.rng.usize(..=link.down.len());
                link.down.truncate(kept);
                link.is_orphan = true;
                link.is_dead |= matches!(cut, Cut::Silent);
                self.clients[client].link = Some(link);
            }
            Cut::Unnoticed => {
                link.up.clear();
                link.down.clear();
                link.is_dead = true;
                link.dropped_at.get_or_insert(self.now + UNANSWERED_MS);
                self.clients[client].link = Some(link);
            }
        }
    }

    /// Nodes drop connections of which they have heard nothing for too long.
    pub fn drop_unanswered(&mut self) {
        for place in 0..self.clients.len() {
            let is_due = |link: &Link| !link.is_orphan && link.dropped_at.is_some_and(|at| at <= self.now);
            if self.clients[place].link.as_ref().is_some_and(is_due)
                && let Some(mut link) = self.clients[place].link.take()
            {
                self.end(&link);
                link.is_orphan = true;
                self.clients[place].link = Some(link);
            }
        }
    }

    /// Lets the oldest of the links that were given up come nearer to its end.
    pub fn settle_orphan(&mut self) -> bool {
        if self.orphans.is_empty() {
            return false;
        }
        let place = self.rng.usize(..self.orphans.len());
        let link = &mut self.orphans[place];
        match (link.up.pop_front(), &mut self.nodes[link.node], link.conn) {
            (Some(text), Some(node), Some(conn)) => node.send(conn, &text),
            _ => {
                let link = self.orphans.swap_remove(place);
                self.end(&link);
            }
        }
        true
    }

    /// Opens a client's socket, if it is opening. False if nothing happened.
    pub fn open(&mut self, place: usize) -> bool {
        let client = &mut self.clients[place];
        let token = client.token;
        let Some(link) = client.link.as_mut().filter(|link| link.conn.is_none() && !client.is_asleep) else {
            return false;
        };
        let is_reachable = !client.unreachable[link.node];
        match &mut self.nodes[link.node] {
            Some(node) if is_reachable => {
                link.token = token;
                link.conn = Some(node.connect(Mode::Full, [token; 32], false));
                link.is_void = self.ledger.is_ended(token);
                self.input(place, Input::Opened);
            }
            // The client's own patience ends it.
            Some(_) if self.rng.bool() => return false,
            _ => {
                client.link = None;
                self.input(place, Input::Closed { code: CLOSE_ABNORMAL });
            }
        }
        true
    }

    /// Lets at most `count` frames of a client arrive at its node.
    pub fn carry_up(&mut self, client: usize, count: usize) -> bool {
        let Some(link) = &mut self.clients[client].link else { return false };
        let count = count.min(link.up.len());
        for text in link.up.drain(..count) {
            if let (Some(node), Some(conn), false) = (&mut self.nodes[link.node], link.conn, link.is_orphan) {
                node.send(conn, &text);
            }
        }
        count > 0
    }

    /// Takes what a node has just given to its connections, and looks at it.
    pub fn gather(&mut self, node: usize, applied: &[(RoomId, Seq)]) {
        for place in 0..self.clients.len() {
            if let Some(mut link) = self.clients[place].link.take_if(|link| link.node == node) {
                self.gather_of(&mut link, applied);
                self.clients[place].link = Some(link);
            }
        }
        for place in 0..self.orphans.len() {
            if self.orphans[place].node == node {
                let mut link = std::mem::take(&mut self.orphans[place]);
                self.gather_of(&mut link, applied);
                self.orphans[place] = link;
            }
        }
    }

    fn gather_of(&mut self, link: &mut Link, applied: &[(RoomId, Seq)]) {
        let (Some(conn), Some(node), false) = (link.conn, &mut self.nodes[link.node], link.is_orphan) else {
            return;
        };
        for output in node.take(conn) {
            let down = match output {
                Output::Text(text) => {
                    self.say(|| format!("node {} > {} {text}", link.node, link.token));
                    let envelope = serde_json::from_str(&text).expect("a server sends what a client knows");
                    self.see(link, &envelope, applied);
                    Down::Envelope(Box::new(envelope))
                }
                Output::Close(code) => Down::Close(code),
            };
            if !link.is_dead {
                link.down.push_back(down);
            }
        }
    }

    /// Lets at most `count` frames arrive at a client.
    pub fn carry_down(&mut self, place: usize, count: usize) -> bool {
        let mut moved = false;
        for _ in 0..count {
            let client = &mut self.clients[place];
            let Some(link) = client.link.as_mut().filter(|_| !client.is_asleep) else { break };
            let is_over = link.is_orphan && !link.is_dead;
            match link.down.pop_front() {
                Some(Down::Envelope(envelope)) => self.input(place, Input::Received(*envelope)),
                Some(Down::Close(code)) => {
                    let link = client.link.take().expect("it was there");
                    self.end(&link);
                    self.input(place, Input::Closed { code: code as u16 });
                }
                None if is_over => {
                    client.link = None;
                    self.input(place, Input::Closed { code: CLOSE_ABNORMAL });
                }
                None => break,
            }
            moved = true;
        }
        moved
    }
}
