//! What must hold: after every step of a client, and when all faults are over. It looks, and changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use client::link::Phase;
use client::rows::{Key, Row};
use futures_util::FutureExt;
use server::store::{NewSession, Reply, Store};
use shared::model::{Ref, RoomId, Seq, UserId};
use shared::protocol::{Event, EventKind, RoomInfo};

use super::world::World;

fn now<T>(reply: Reply<T>) -> T {
    reply.now_or_never().expect("a store in memory answers at once").expect("it is available")
}

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
        self.clients.iter().all(|client| {
            let state = &client.state;
            let is_online = matches!(state.phase(), Phase::Online { .. });
            let is_complete = state.rooms.values().all(|room| !room.timeline.is_behind());
            let is_shown = state.current_room().is_none_or(|room| room.timeline.is_loaded());
            let is_sent = client
                .storage
                .values()
                .all(|unsent| unsent.failed.is_some() || !state.rooms.contains_key(&unsent.room));
            let is_linked = client.link.as_ref().is_some_and(|link| !link.is_orphan && !link.is_dead);
            is_linked && is_online && is_complete && is_shown && is_sent
        })
    }

    /// Why it is not quiet, for people.
    pub fn unrest(&self) -> String {
        let of_client = |(place, client): (usize, &super::world::Client)| {
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
        self.clients.iter().enumerate().map(of_client).collect::<Vec<_>>().join("\n")
    }

    /// A room's whole log.
    pub fn log(&self, room: RoomId) -> Vec<Event> {
        now(self.store.events_before(room, Seq::MAX, usize::MAX)).events
    }

    /// A user's rooms as the store has them.
    fn infos(&self, token: u8) -> (UserId, String, BTreeMap<RoomId, RoomInfo>) {
        let identity = now(self.store.identify(NewSession::of([token; 32], 0), None));
        assert!(!identity.fresh);
        let account = now(self.store.account(identity.user.id));
        let rooms = account.rooms.into_iter().map(|info| (info.id, info)).collect();
        (identity.user.id, identity.user.name.to_string(), rooms)
    }

    /// What every client holds of a log is that part of it, up to its end if it is live.
    pub fn check_logs(&self) {
        let mut logs: HashMap<RoomId, Vec<Event>> = HashMap::new();
        for (place, client) in self.clients.iter().enumerate() {
            for room in client.state.rooms.values() {
                let id = room.info.id;
                let log = logs.entry(id).or_insert_with(|| self.log(id));
                let timeline = &room.timeline;
                let held: Vec<&Event> = timeline.events().map(|event| &**event).collect();
                let from = timeline.first() as usize - 1;
                let part: Vec<&Event> = log.iter().skip(from).take(held.len()).collect();
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
        for (place, client) in self.clients.iter().enumerate() {
            let (user, name, infos) = self.infos(client.token);
            let state = &client.state;
            let me = state.me.as_ref().expect("it was welcomed");
            assert_eq!((me.id, me.name.as_str()), (user, name.as_str()), "client {place} knows its name");
            let rooms: Vec<RoomId> = state.rooms.keys().copied().collect();
            assert_eq!(rooms, infos.keys().copied().collect::<Vec<_>>(), "client {place} knows its rooms");
            for (id, info) in infos {
                let room = &state.rooms[&id];
                assert_eq!(
                    (room.read, room.unread),
                    (info.read, info.unread),
                    "client {place} knows what is read in {id}: {room:#?}"
                );
                assert_eq!((&room.info.name, &room.info.peer), (&info.name, &info.peer), "client {place}");
            }
        }
    }

    /// Every message is in the log exactly once, in the order of sending, and nothing is pending.
    pub fn check_messages(&self) {
        let mut found: HashMap<(UserId, Ref), (RoomId, Seq)> = HashMap::new();
        let rooms: HashSet<RoomId> =
            self.clients.iter().flat_map(|client| self.infos(client.token).2).map(|(id, _)| id).collect();
        for id in
            rooms.iter().copied().chain(self.sent.values().map(|sent| sent.room)).collect::<HashSet<_>>()
        {
            let mut orders: HashMap<usize, usize> = HashMap::new();
            for (place, event) in self.log(id).into_iter().enumerate() {
                assert_eq!(event.seq, place as Seq + 1);
                let Some(reference) = event.reference else { continue };
                let twice = found.insert((event.user.id, reference), (id, event.seq));
                assert_eq!(twice, None, "{reference} is in the log of {id} twice");
                let sent = &self.sent[&reference];
                assert_eq!((sent.user, sent.room), (event.user.id, id));
                assert!(matches!(&event.kind, EventKind::Message { body, .. } if body.as_str() == sent.body));
                if !sent.was_refused {
                    let before = orders.insert(sent.client, sent.order);
                    assert!(before < Some(sent.order), "{} stands too late in the log of {id}", sent.body);
                }
            }
        }
        for (reference, sent) in &self.sent {
            let is_there = found.contains_key(&(sent.user, *reference));
            assert!(is_there || !sent.was_confirmed, "{} was confirmed and is lost", sent.body);
            assert!(is_there || sent.was_discarded, "{} of client {} is lost", sent.body, sent.client);
        }
        for (place, client) in self.clients.iter().enumerate() {
            assert!(client.storage.is_empty(), "client {place} still keeps {:?}", client.storage);
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
            assert_eq!((&room.info.name, &room.info.peer), (&other.info.name, &other.info.peer), "{id}");
            if room.timeline.is_loaded() && other.timeline.is_live() {
                let count = room.timeline.events().len().min(other.timeline.events().len());
                let newest = room.timeline.events().rev().take(count);
                assert!(newest.eq(other.timeline.events().rev().take(count)), "{id}");
            }
        }
    }
}
