//! What nodes may tell whom: each frame is looked at in the very step in which a node gives it to a connection.
//!
//! A hub cannot know what it has not heard. So what is told of a room that is not public goes to a member of it
//! by the store, or to one whose way out this hub has neither delivered nor been hinted at; and to such a one
//! nothing of what happened after it, ever. What was deleted is not told by a hub that has delivered the
//! deletion. Of a session whose end it has heard of, a hub tells nothing more.

use std::collections::{BTreeSet, HashMap};

use server::broker::Hint;
use server::hub::Input;
use shared::model::{RoomId, Seq, UserId};
use shared::protocol::{Event, EventKind, RoomInfo, RoomKind, ServerEnvelope};

use super::links::{Link, Progress};
use super::world::World;

/// What a hub has been told that takes away a right to hear.
#[derive(Default)]
pub struct Heard {
    /// Sessions that ended.
    ended: BTreeSet<u8>,
    /// Who is out of a room, by which event.
    out: HashMap<(UserId, RoomId), Seq>,
}

impl World {
    /// Lets a node's hub take one input, and looks at all that it tells. False if there was none.
    pub fn step_node(&mut self, place: usize) -> bool {
        let Some(node) = &mut self.nodes[place] else { return false };
        let Some(input) = node.upcoming() else { return false };
        let is_loud = self.voice.is_loud();
        let said = if is_loud { format!("node {place} < {input:?}") } else { String::new() };
        match input {
            Input::Hint(Hint::Membership { user, room, member: false }) => {
                let (user, room) = (*user, *room);
                if !self.ledger.is_public(room)
                    && self.ledger.kinds.contains_key(&room)
                    && let Some(out) = self.ledger.look(room).out.get(&user)
                {
                    self.heard[place].out.insert((user, room), *out);
                }
            }
            Input::Hint(Hint::Ended(ended)) => {
                self.heard[place].ended.extend(ended.tokens.iter().map(|token| token[0]));
            }
            _ => {}
        }
        self.say(|| said);
        let Some(node) = &mut self.nodes[place] else { return false };
        let applied = node.applied();
        node.step();
        self.gather(place, &applied);
        true
    }

    /// Looks at a frame for a connection. `applied`: how far the hub had delivered its rooms before.
    pub fn see(&mut self, link: &mut Link, envelope: &ServerEnvelope, applied: &[(RoomId, Seq)]) {
        let rooms: Vec<(RoomId, &[Event])> = match envelope {
            ServerEnvelope::Error(_) | ServerEnvelope::Pong { .. } => return,
            ServerEnvelope::Welcome { user, rooms, .. } => {
                assert!(!link.is_void, "an ended session is not welcomed");
                link.user = Some(user.id);
                self.users.insert(link.token, user.id);
                for info in rooms {
                    self.note_kind(info);
                    self.see_counts(user.id, info);
                    link.heard.insert(info.id, Progress::Head(info.head));
                }
                rooms.iter().map(|info| (info.id, &[][..])).collect()
            }
            ServerEnvelope::Joined { room, events, info, head, .. } => {
                info.iter().for_each(|info| self.note_kind(info));
                link.heard.entry(*room).or_insert(Progress::Head(*head));
                vec![(*room, events)]
            }
            ServerEnvelope::Room { info } => {
                self.note_kind(info);
                if let Some(user) = link.user {
                    self.see_counts(user, info);
                }
                vec![(info.id, &[])]
            }
            ServerEnvelope::History { room, events, .. } => vec![(*room, events)],
            ServerEnvelope::Event(event) => {
                let progress = link.heard.insert(event.room, Progress::Event(event.seq));
                let is_next = match progress {
                    Some(Progress::Head(head)) => event.seq <= head + 1,
                    Some(Progress::Event(last)) => event.seq == last + 1,
                    None => false,
                };
                assert!(is_next, "after {progress:?} comes {event:?}");
                vec![(event.room, std::slice::from_ref(event))]
            }
            ServerEnvelope::Left { room } => {
                link.heard.remove(room);
                Vec::new()
            }
            ServerEnvelope::Read { room, .. }
            | ServerEnvelope::Presence { room, .. }
            | ServerEnvelope::Typing { room, .. }
            | ServerEnvelope::Members { room, .. } => vec![(*room, &[])],
            ServerEnvelope::Directory { rooms } => {
                for listing in rooms {
                    let kind = self.ledger.kinds.get(&listing.id);
                    assert!(kind.is_none_or(|kind| *kind == RoomKind::Public), "{listing:?} is listed");
                }
                Vec::new()
            }
            ServerEnvelope::Ack { reference, room, seq, .. } => {
                let author = link.user.expect("who sends was welcomed");
                let is_there = self.ledger.look(*room).has(*seq, author, Some(*reference));
                assert!(is_there, "{reference} is acknowledged and not at {seq} of {room}");
                let places = self.ledger.places(author, *reference);
                assert!(places.len() <= 1, "{reference} is in the log more than once: {places:?}");
                Vec::new()
            }
            ServerEnvelope::Renamed { .. }
            | ServerEnvelope::Announcement { .. }
            | ServerEnvelope::Me { .. }
            | ServerEnvelope::Done { .. }
            | ServerEnvelope::List { .. } => Vec::new(),
        };
        let user = link.user.expect("nobody is told anything before the welcome");
        let is_over = self.heard[link.node].ended.contains(&link.token);
        assert!(!is_over, "node {} knows that session {} ended: {envelope:?}", link.node, link.token);
        for (room, events) in rooms {
            let before = applied.iter().find(|(id, _)| *id == room).map(|(_, seq)| *seq);
            self.see_room(link.node, user, room, events, before);
        }
    }

    fn note_kind(&mut self, info: &RoomInfo) {
        self.ledger.kinds.insert(info.id, info.kind);
    }

    /// What is unread is what others have said between the cursor and the head.
    fn see_counts(&mut self, user: UserId, info: &RoomInfo) {
        if self.are_blocks {
            return;
        }
        let unread = self.ledger.look(info.id).unread(user, info.read, info.head);
        assert!(unread.is_none_or(|unread| unread == info.unread), "{unread:?} of {user} in {info:?}");
    }

    fn see_room(&mut self, node: usize, user: UserId, room: RoomId, events: &[Event], before: Option<Seq>) {
        let is_public = self.ledger.is_public(room);
        if is_public && events.is_empty() {
            return;
        }
        let heard = self.heard[node].out.get(&(user, room)).copied();
        let facts = self.ledger.look(room);
        for event in events {
            let is_there = facts.has(event.seq, event.user.id, event.reference);
            assert!(is_there, "node {node} tells {user} of what is not in the log: {event:?}");
            if let (EventKind::Message { .. }, Some(deletion)) = (&event.kind, facts.deleted.get(&event.seq))
            {
                let is_known = before.is_some_and(|before| before >= *deletion);
                assert!(!is_known, "node {node} tells {user} of what was deleted: {event:?}");
            }
        }
        if is_public || facts.members.contains(&user) {
            return;
        }
        let Some(out) = facts.out.get(&user).copied() else {
            panic!("node {node} tells {user} of {room}, where they never were");
        };
        let last = events.iter().map(|event| event.seq).max().unwrap_or(0);
        assert!(last <= out, "node {node} tells {user} of {last} in {room}, who was out at {out}");
        let is_known = before.is_some_and(|before| before >= out) || heard == Some(out);
        assert!(!is_known, "node {node} tells {user} of {room} and knows that they are out since {out}");
    }
}
