//! What stands in the store, kept beside it: who was in which room until when, who wrote what, what was deleted.
//! It only reads, and only what is new since it last looked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::FutureExt;
use server::store::memory::MemoryStore;
use server::store::{NewSession, Reply, Store, StoreError};
use shared::model::{LOBBY, Ref, RoomId, Seq, UserId};
use shared::protocol::{EventKind, RoomKind, UNREAD_MAX};

/// A member list is never longer here.
const MEMBERS_MAX: usize = 1_000;

/// What a store in memory that is available answers.
pub fn now<T>(reply: Reply<T>) -> T {
    ask(reply).expect("it is available")
}

pub fn ask<T>(reply: Reply<T>) -> Result<T, StoreError> {
    reply.now_or_never().expect("a store in memory answers at once")
}

/// One room's log.
#[derive(Default)]
pub struct Facts {
    as_of: u64,
    pub head: Seq,
    /// The author and reference of each event, from `seq` 1 on.
    entries: Vec<(UserId, Option<Ref>)>,
    /// The authors of messages.
    messages: BTreeMap<Seq, UserId>,
    pub members: BTreeSet<UserId>,
    /// The last event by which somebody went out.
    pub out: BTreeMap<UserId, Seq>,
    /// Deleted messages, and the events that deleted them.
    pub deleted: BTreeMap<Seq, Seq>,
}

impl Facts {
    /// How many messages of others are between two places, the first one not counted. `None` if that is not
    /// the same at all times.
    pub fn unread(&self, user: UserId, read: Seq, head: Seq) -> Option<u32> {
        let messages = self.messages.range(read.min(head)..=head).filter(|(seq, _)| **seq > read);
        let unread = messages.filter(|(_, author)| **author != user).count() as u32;
        self.deleted.is_empty().then_some(unread.min(UNREAD_MAX))
    }

    /// Whether an event is in the log.
    pub fn has(&self, seq: Seq, author: UserId, reference: Option<Ref>) -> bool {
        let entry = seq.checked_sub(1).and_then(|place| self.entries.get(place as usize));
        entry.is_some_and(|(user, known)| {
            *user == author && (*known == reference || self.deleted.contains_key(&seq))
        })
    }
}

pub struct Ledger {
    pub store: MemoryStore,
    /// By the way that leads to no node: it never fails.
    rooms: HashMap<RoomId, Facts>,
    /// The kinds of the rooms that somebody was told of. They never change.
    pub kinds: BTreeMap<RoomId, RoomKind>,
    /// Where each message stands, as far as was looked.
    places: HashMap<(UserId, Ref), Vec<(RoomId, Seq)>>,
}

impl Ledger {
    pub fn new(store: MemoryStore) -> Self {
        Self { store, rooms: HashMap::new(), kinds: BTreeMap::new(), places: HashMap::new() }
    }

    /// Whether everybody may know of a room.
    pub fn is_public(&self, room: RoomId) -> bool {
        room == LOBBY || self.kinds.get(&room) == Some(&RoomKind::Public)
    }

    /// Whether a session was ended.
    pub fn is_ended(&self, token: u8) -> bool {
        ask(self.store.identify(NewSession::of([token; 32], 0), None)) == Err(StoreError::Ended)
    }

    /// Where a message stands in the rooms that were looked at.
    pub fn places(&self, author: UserId, reference: Ref) -> &[(RoomId, Seq)] {
        self.places.get(&(author, reference)).map_or(&[], Vec::as_slice)
    }

    /// A room as it is now.
    pub fn look(&mut self, room: RoomId) -> &Facts {
        let writes = self.store.writes();
        let facts = self.rooms.entry(room).or_default();
        if facts.as_of == writes {
            return facts;
        }
        facts.as_of = writes;
        let page = now(self.store.events_after(room, facts.head, usize::MAX));
        let mut is_moved = facts.head == 0;
        for event in page.events {
            facts.head += 1;
            assert_eq!(event.seq, facts.head, "the log of {room} has no holes");
            facts.entries.push((event.user.id, event.reference));
            if let Some(reference) = event.reference {
                self.places.entry((event.user.id, reference)).or_default().push((room, event.seq));
            }
            if let EventKind::Message { .. } = event.kind {
                facts.messages.insert(event.seq, event.user.id);
            }
            match event.kind {
                EventKind::Deletion { of } => drop(facts.deleted.insert(of, event.seq)),
                EventKind::Left => drop(facts.out.insert(event.user.id, event.seq)),
                EventKind::Removed { target } => drop(facts.out.insert(target.id, event.seq)),
                EventKind::Created | EventKind::Joined | EventKind::Invited { .. } => {}
                _ => continue,
            }
            is_moved = true;
        }
        if is_moved {
            let (members, _) = now(self.store.members(room, MEMBERS_MAX));
            facts.members = members.into_iter().map(|user| user.id).collect();
        }
        facts
    }
}
