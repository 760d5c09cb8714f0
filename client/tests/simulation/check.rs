//! What must hold: after every step of a client, and when all faults are over. It looks, and changes nothing.

use std::collections::{BTreeSet, HashMap, HashSet};

use client::link::Phase;
use client::rows::{Key, Row};
use server::store::{Account, NewSession, Store};
use shared::model::{LOBBY, Ref, RoomId, Seq, UserId, UserName};
use shared::protocol::{Event, EventKind, Presence, RoomInfo, UNREAD_MAX};

use super::ledger::now;
use super::world::{Client, World};

impl World {
    /// Every room a client holds is a run of one log, and shows each message once.
    pub fn check_shown(&self, client: usize) {
        let state = &self.clients[client].state;
        for room in state.rooms.values() {
            let timeline = &room.timeline;
            let mut next = timeline.first();
            let mut refs = HashSet::new();
            for event in timeline.events() {
                assert_eq!(event.seq, next, "client {client}: a run has no holes");
                assert_eq!(event.room, room.info.id);
                next += 1;
                if let Some(reference) = event.reference {
                    assert!(
                        refs.insert((event.user.id, reference)),
                        "client {client} shows {reference} twice"
                    );
                }
            }
            for event in timeline.ahead() {
                assert!(event.seq > next, "client {client}: what waits is behind a hole");
            }
            assert!(timeline.head() + 1 >= next, "client {client} knows how far the log goes");
        }
        if let Some(room) = state.current_room() {
            let mut keys = HashSet::new();
            for row in state.rows(room.info.id) {
                let Row::Group { lines, .. } = row else { continue };
                for line in lines {
                    assert!(keys.insert(line.key), "client {client} shows {:?} twice", line.key);
                }
            }
        }
    }

    /// Whether nothing is under way any more.
    pub fn is_quiet(&self) -> bool {
        self.here().all(|(_, client)| {
            let state = &client.state;
            let is_online = matches!(state.phase(), Phase::Online { .. });
            let is_complete = state.rooms.values().all(|room| !room.timeline.is_behind());
            let is_shown = state.current_room().is_none_or(|room| room.timeline.is_loaded());
            let is_sent = client
                .unsent()
                .all(|unsent| unsent.failed.is_some() || !state.rooms.contains_key(&unsent.room));
            let is_linked = client.link.as_ref().is_some_and(|link| !link.is_orphan && !link.is_dead);
            is_linked && is_online && is_complete && is_shown && is_sent
        })
    }

    /// Those who have not closed the page for good.
    fn here(&self) -> impl Iterator<Item = (usize, &Client)> {
        self.clients.iter().enumerate().filter(|(_, client)| !client.is_gone)
    }

    /// Why it is not quiet, for people.
    pub fn unrest(&self) -> String {
        let of_client = |(place, client): (usize, &Client)| {
            let state = &client.state;
            let rooms: Vec<String> = state
                .rooms
                .values()
                .filter(|room| room.timeline.is_behind() || !room.timeline.is_loaded())
                .map(|room| {
                    let timeline = &room.timeline;
                    format!("{} {} of {}", room.info.id, timeline.last(), timeline.head())
                })
                .collect();
            format!(
                "client {place}: {:?}, route {:?}, behind in {rooms:?}, unsent {:?}, wakes in {:?}",
                state.phase(),
                state.route,
                client.storage.values().collect::<Vec<_>>(),
                state.wake_at().map(|at| at - self.clock(place)),
            )
        };
        self.here().map(of_client).collect::<Vec<_>>().join("\n")
    }

    /// A room's whole log.
    pub fn log(&self, room: RoomId) -> Vec<Event> {
        now(self.store.events_before(room, Seq::MAX, usize::MAX)).events
    }

    /// A user as the store has them.
    fn account(&self, token: u8) -> Account {
        let identity = now(self.store.identify(NewSession::of([token; 32], 0), None));
        assert!(!identity.fresh);
        now(self.store.account(identity.user.id))
    }

    /// What every client holds of a log is that part of it, up to its end if it is live.
    pub fn check_logs(&self) {
        let mut logs: HashMap<RoomId, Vec<Event>> = HashMap::new();
        for (place, client) in self.here() {
            for room in client.state.rooms.values() {
                let id = room.info.id;
                let log = logs.entry(id).or_insert_with(|| self.log(id));
                let timeline = &room.timeline;
                let held: Vec<Event> = timeline.events().map(|event| unnamed(event)).collect();
                let from = timeline.first() as usize - 1;
                let part: Vec<Event> = log.iter().skip(from).take(held.len()).map(unnamed).collect();
                assert_eq!(held, part, "client {place} holds what the log of {id} has");
                if timeline.is_live() {
                    assert_eq!(timeline.last(), log.len() as Seq, "client {place} is at the end of {id}");
                    assert_eq!(timeline.head(), log.len() as Seq);
                    assert!(!timeline.has_hole());
                }
            }
        }
    }

    /// What a client knows of its rooms is what the store has.
    pub fn check_rooms(&self) {
        for (place, client) in self.here() {
            let Account { user, role, rooms: infos, blocked } = self.account(client.token);
            let state = &client.state;
            assert_eq!(state.me.as_ref(), Some(&user), "client {place} knows its name");
            assert_eq!(state.role, role, "client {place} knows its role");
            assert_eq!(sorted(&state.blocked), sorted(&blocked), "client {place} knows whom it has blocked");
            let rooms: Vec<RoomId> = state.rooms.keys().copied().collect();
            let ids: Vec<RoomId> = sorted(&infos.iter().map(|info| info.id).collect::<Vec<_>>());
            assert_eq!(rooms, ids, "client {place} knows its rooms");
            for info in infos {
                let room = &state.rooms[&info.id];
                assert_eq!(
                    (room.read, room.unread, room.mentioned),
                    (info.read, info.unread, info.mentioned),
                    "client {place} knows what is read in {}: {room:#?}",
                    info.id
                );
                self.check_counts(&info, user.id, &blocked);
                assert_eq!(
                    self.looks(&room.info),
                    self.looks(&info),
                    "client {place} knows what {} is",
                    info.id
                );
            }
        }
    }

    /// What is unread is what others have said after the cursor.
    fn check_counts(&self, info: &RoomInfo, user: UserId, blocked: &[UserId]) {
        let (mut unread, mut mentioned) = (0, 0);
        for event in self.log(info.id).into_iter().filter(|event| event.seq > info.read) {
            let EventKind::Message { mentions, all, .. } = event.kind else { continue };
            if event.user.id != user && !blocked.contains(&event.user.id) {
                unread += 1;
                mentioned += u32::from(all || mentions.contains(&user));
            }
        }
        let unread = u32::min(unread, UNREAD_MAX);
        assert_eq!((info.unread, info.mentioned), (unread, mentioned.min(unread)), "of {user} in {info:?}");
    }

    /// Who has the page open is shown as online to everybody who looks, and nobody else is.
    pub fn check_presence(&mut self) {
        let present: BTreeSet<UserId> = self.people().into_iter().collect();
        for place in 0..self.clients.len() {
            let client = &self.clients[place];
            // Elsewhere it is not told before it is asked.
            let Some(room) = client.state.current_room().filter(|_| !client.is_gone) else { continue };
            let mut shown = BTreeSet::new();
            for person in room.people.values().filter(|person| person.presence != Presence::Offline) {
                assert_eq!(person.presence, Presence::Online, "client {place} takes {person:?} for away");
                shown.insert(person.user.id);
            }
            let online = room.online as usize;
            let id = room.info.id;
            let expected: BTreeSet<UserId> = match id {
                LOBBY => present.clone(),
                id => self.ledger.look(id).members.intersection(&present).copied().collect(),
            };
            assert_eq!(shown, expected, "client {place} knows who is there in {id}");
            assert_eq!(online, expected.len(), "client {place} knows how many are there in {id}");
        }
    }

    /// Every message is in the log exactly once, in the order of sending, and nothing is pending.
    pub fn check_messages(&self) {
        let mut found: HashMap<(UserId, Ref), (RoomId, Seq)> = HashMap::new();
        let rooms = self.clients.iter().flat_map(|client| client.state.rooms.keys().copied());
        let rooms: BTreeSet<RoomId> = rooms.chain(self.sent.values().map(|sent| sent.room)).collect();
        for id in rooms {
            let mut orders: HashMap<usize, usize> = HashMap::new();
            for (place, event) in self.log(id).into_iter().enumerate() {
                assert_eq!(event.seq, place as Seq + 1);
                let Some(reference) = event.reference else { continue };
                let twice = found.insert((event.user.id, reference), (id, event.seq));
                assert_eq!(twice, None, "{reference} is in the log of {id} twice");
                let sent = &self.sent[&reference];
                assert_eq!((sent.user, sent.room), (event.user.id, id));
                match &event.kind {
                    EventKind::Message { body, .. } => assert_eq!(body.as_str(), sent.body),
                    kind => assert_eq!(*kind, EventKind::Deleted),
                }
                if !sent.was_refused {
                    let before = orders.insert(sent.client, sent.order);
                    assert!(before < Some(sent.order), "{} stands too late in the log of {id}", sent.body);
                }
            }
        }
        for (reference, sent) in &self.sent {
            if found.contains_key(&(sent.user, *reference)) {
                continue;
            }
            let is_excused =
                sent.was_discarded || self.lost.contains(&sent.user) || self.clients[sent.client].is_gone;
            assert!(!sent.was_confirmed, "{} was confirmed and is lost", sent.body);
            assert!(is_excused, "{} of client {} is lost", sent.body, sent.client);
        }
        for (place, client) in self.here() {
            assert_eq!(client.unsent().count(), 0, "client {place} still keeps {:?}", client.storage);
            for room in client.state.rooms.keys() {
                for row in client.state.rows(*room) {
                    let Row::Group { lines, .. } = row else { continue };
                    for line in lines {
                        let is_own =
                            matches!(line.key, Key::Own(reference) if self.sent.contains_key(&reference));
                        let is_confirmed = matches!(line.standing, client::rows::Standing::Confirmed(_));
                        assert!(
                            is_confirmed,
                            "client {place} shows {:?} as {:?} ({is_own})",
                            line.body, line.standing
                        );
                    }
                }
            }
        }
    }

    /// A page that is opened now shows the same as one that has been open all the time.
    pub fn check_same(&self, old: usize, new: usize) {
        let (old, new) = (&self.clients[old].state, &self.clients[new].state);
        assert_eq!(old.me, new.me);
        for (id, room) in new.rooms.iter() {
            let other = &old.rooms[id];
            assert_eq!((room.read, room.unread), (other.read, other.unread), "{id}");
            assert_eq!(self.looks(&room.info), self.looks(&other.info), "{id}");
            if room.timeline.is_loaded() && other.timeline.is_live() {
                let count = room.timeline.events().len().min(other.timeline.events().len());
                let newest = room.timeline.events().rev().take(count);
                assert!(newest.eq(other.timeline.events().rev().take(count)), "{id}");
            }
        }
    }
}

fn sorted<T: Clone + Ord>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort();
    items
}

/// What an event is. Who sent a message that is deleted need not know which it was.
fn unnamed(event: &Event) -> Event {
    let reference = event.reference.filter(|_| event.kind != EventKind::Deleted);
    Event { reference, ..event.clone() }
}

impl World {
    /// What a room is, without what is counted and in which order its people come. What others are called is left
    /// out where a node can have missed it: see docs/simulation.md.
    fn looks(&self, info: &RoomInfo) -> RoomInfo {
        let mut info =
            RoomInfo { head: 0, read: 0, read_version: 0, unread: 0, mentioned: 0, ..info.clone() };
        info.people.sort_by_key(|user| user.id);
        if self.chaos.is_some() {
            let name = UserName::parse("somebody").expect("a name");
            info.peer.iter_mut().chain(&mut info.people).for_each(|user| user.name = name.clone());
        }
        info
    }
}
