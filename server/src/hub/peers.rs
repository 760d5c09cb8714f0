//! The other hubs: which of them live, and which changes of presence at them were missed.
//!
//! A hub says every few seconds that it lives; who is not heard of for longer is taken for dead, and its people
//! for gone. With that it names the rooms in which presence changed lately, so that who missed a change asks for
//! the whole of that room, and of no other. While the broker knows that it is cut off, nobody is given up.

use std::collections::VecDeque;

use shared::model::{Ms, RoomId, UserId};
use shared::protocol::{CROWD, Person, Presence};

use super::maps::HashMap;
use super::{ABSENCE_GRACE_MS, Effect, Hub, Out};
use crate::broker::{Hint, HubId, PresenceVersion, Topic};

/// How often a hub says that it lives.
const ALIVE_EVERY_MS: Ms = 5_000;
/// How long a hub counts as living after it last said so. With the time that it takes to look, its people are
/// offline within 30 s of its death.
const LEASE_MS: Ms = 25_000;
/// A longer time between two looks at the peers is a pause of this process, or of its machine.
const PAUSE_MS: Ms = 5_000;
/// How long a change of presence is named: longer than a lease, so that whoever hears of a hub at all hears of
/// its changes.
const CHANGES_NAMED_MS: Ms = 35_000;
/// Rooms that one sign of life names; there are as many hints as it takes.
const ALIVE_ROOMS_MAX: usize = 1_000;
/// How long a hub that was given up is remembered, should it come back.
const GONE_KEPT_MS: Ms = 3_600_000;
/// People in one part of an answer: with long names it stays below what a broker carries.
const PART_PEOPLE_MAX: usize = 200;
/// Rooms whose presence is asked for in one tick, after hints of any kind may have been lost.
const ASKED_PER_TICK: usize = 200;

/// Another hub.
#[derive(Debug)]
struct Peer {
    /// Until when it counts as living; or is remembered.
    until: Ms,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Living,
    /// It said that it ends.
    Leaving,
    Gone,
}

/// What is known of the other hubs, and what they are told.
#[derive(Debug, Default)]
pub(super) struct Peers {
    by_id: HashMap<HubId, Peer>,
    /// Nothing comes from other processes.
    is_cut_off: bool,
    told_at: Option<Ms>,
    looked_at: Ms,
    is_leaving: bool,
    /// The number of the last change of presence here.
    version: PresenceVersion,
    /// The last change of each room in which there was one lately, and when.
    changed: HashMap<RoomId, (PresenceVersion, Ms)>,
    /// Rooms whose presence is to be asked for.
    asking: VecDeque<RoomId>,
}

impl Peers {
    /// Whether it is known that nothing comes from other processes.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// How many live.
    pub fn living(&self) -> usize {
        self.by_id.values().filter(|peer| peer.standing != Standing::Gone).count()
    }

    /// The number of a change in a room.
    pub fn change(&mut self, room: RoomId, now: Ms, is_named: bool) -> PresenceVersion {
        self.version += 1;
        if is_named {
            self.changed.insert(room, (self.version, now));
        }
        self.version
    }

    /// Asks for the presence in these rooms, after those that are being asked for.
    pub fn ask(&mut self, rooms: impl Iterator<Item = RoomId>) {
        // Whatever waits is asked for all the same.
        self.asking.clear();
        self.asking.extend(rooms);
    }
}

impl Hub {
    /// A hint of a peer came. False if the peer was given up.
    pub(super) fn heard_of(&mut self, now: Ms, origin: HubId) -> bool {
        if !self.lossy {
            return true;
        }
        let until = now + LEASE_MS;
        let new = || Peer { until, standing: Standing::Living };
        self.peers.by_id.entry(origin).or_insert_with(new).standing != Standing::Gone
    }

    /// A peer says that it lives, and where presence changed.
    pub(super) fn alive(&mut self, now: Ms, origin: HubId, changed: &[(RoomId, PresenceVersion)], out: Out) {
        if origin == self.id || !self.lossy {
            return;
        }
        let was_known = self.heard_of(now, origin);
        if let Some(peer) =
            self.peers.by_id.get_mut(&origin).filter(|peer| peer.standing != Standing::Leaving)
        {
            *peer = Peer { until: now + LEASE_MS, standing: Standing::Living };
        }
        if !was_known {
            // It was forgotten, and longer ago than it names changes.
            let rooms: Vec<RoomId> = self.rooms.keys().copied().collect();
            self.peers.ask(rooms.into_iter());
            return;
        }
        for (id, version) in changed {
            let Some(room) = self.rooms.get(id).filter(|room| room.versions.is_behind(origin, *version))
            else {
                continue;
            };
            let known = vec![(origin, room.versions.sure(origin))];
            let hint = Hint::PresenceWanted { origin: self.id, room: *id, known };
            out.push(Effect::Publish { topic: Topic::Hub(origin), hint });
            self.counts.presence_reasked += 1;
        }
    }

    /// A peer ends. Its people have as long to come back as after a reload.
    pub(super) fn peer_leaves(&mut self, now: Ms, origin: HubId) {
        if origin != self.id && self.heard_of(now, origin) && self.lossy {
            let peer = Peer { until: now + ABSENCE_GRACE_MS, standing: Standing::Leaving };
            self.peers.by_id.insert(origin, peer);
        }
    }

    /// Nothing comes from other processes: that nobody is heard of means nothing.
    pub(super) fn cut_off(&mut self) {
        self.peers.is_cut_off = true;
    }

    /// Hints get through again, after some may not have.
    pub(super) fn listen_to_peers(&mut self, now: Ms) {
        self.peers.is_cut_off = false;
        for peer in self.peers.by_id.values_mut() {
            match peer.standing {
                Standing::Living => peer.until = now + LEASE_MS,
                Standing::Leaving => peer.until = now + ABSENCE_GRACE_MS,
                Standing::Gone => {}
            }
        }
    }

    /// What this hub's peers count on, now and then.
    pub(super) fn look_after_peers(&mut self, now: Ms, out: Out) {
        if !self.lossy {
            return;
        }
        let paused = now - std::mem::replace(&mut self.peers.looked_at, now);
        if paused > PAUSE_MS {
            // This process did not run: that it heard of nobody means nothing.
            self.peers.by_id.values_mut().for_each(|peer| peer.until += paused);
        }
        let is_due = self.peers.told_at.is_none_or(|at| now - at >= ALIVE_EVERY_MS);
        if is_due && !self.peers.is_leaving {
            self.peers.told_at = Some(now);
            self.tell_alive(now, out);
        }
        if !self.peers.is_cut_off {
            self.give_up_peers(now, out);
        }
        for _ in 0..ASKED_PER_TICK {
            let Some(id) = self.peers.asking.pop_front() else { break };
            self.want_presence(id, out);
        }
    }

    fn tell_alive(&mut self, now: Ms, out: Out) {
        self.peers.changed.retain(|_, (_, at)| now - *at < CHANGES_NAMED_MS);
        let changed: Vec<_> =
            self.peers.changed.iter().map(|(room, (version, _))| (*room, *version)).collect();
        let mut tell = |changed: &[(RoomId, PresenceVersion)]| {
            let hint = Hint::Alive { origin: self.id, changed: changed.to_vec() };
            out.push(Effect::Publish { topic: Topic::All, hint });
        };
        if changed.is_empty() {
            tell(&[]);
        }
        changed.chunks(ALIVE_ROOMS_MAX).for_each(tell);
    }

    /// Tells the peers that this hub ends, all of whose connections are gone.
    pub(super) fn leave_peers(&mut self, out: Out) {
        self.peers.is_leaving = true;
        if self.lossy {
            out.push(Effect::Publish { topic: Topic::All, hint: Hint::Leaving { origin: self.id } });
        }
    }

    fn give_up_peers(&mut self, now: Ms, out: Out) {
        let mut given_up = Vec::new();
        self.peers.by_id.retain(|id, peer| {
            let is_over = peer.until <= now;
            if is_over && peer.standing != Standing::Gone {
                given_up.push((*id, peer.standing));
                *peer = Peer { until: now + GONE_KEPT_MS, standing: Standing::Gone };
                return true;
            }
            !is_over
        });
        if given_up.iter().any(|(_, standing)| *standing == Standing::Living) {
            // What it did last it may not have told anybody.
            self.look_at_all();
        }
        for (origin, standing) in given_up {
            self.counts.peers_lost += u64::from(standing == Standing::Living);
            let rooms: Vec<RoomId> = self.rooms.keys().copied().collect();
            for id in rooms {
                let Some(room) = self.rooms.get_mut(&id) else { continue };
                room.versions.forget(origin);
                let people: Vec<Person> = room.roster.of(origin).collect();
                // In a crowd nobody is told of each who goes.
                let is_told = people.len() <= CROWD;
                for Person { user, .. } in people {
                    self.presence_in(origin, id, &user, Presence::Offline, is_told, out);
                }
            }
        }
    }

    /// Asks those who know more for the presence in a room.
    pub(super) fn want_presence(&self, id: RoomId, out: Out) {
        let Some(room) = self.rooms.get(&id) else { return };
        let known = room.versions.known();
        // Whoever had people there may not follow the room any more since they have left.
        let asked = known.iter().map(|(hub, _)| *hub);
        let asked = asked.filter(|hub| *hub != self.id && room.roster.of(*hub).next().is_some());
        let topics = asked.map(Topic::Hub).chain([Topic::Room(id)]);
        for topic in topics {
            let hint = Hint::PresenceWanted { origin: self.id, room: id, known: known.clone() };
            out.push(Effect::Publish { topic, hint });
        }
    }

    /// A peer wants to hear who is present here, unless it knows.
    pub(super) fn presence_wanted(
        &mut self,
        peer: HubId,
        id: RoomId,
        known: &[(HubId, PresenceVersion)],
        out: Out,
    ) {
        if peer == self.id {
            return;
        }
        let known = known.iter().find(|(hub, _)| *hub == self.id).map_or(0, |(_, version)| *version);
        let (version, mut people) = match self.rooms.get_mut(&id) {
            Some(room) => {
                if room.versions.own == 0 && known > 0 {
                    // Of an earlier time of the room here. Everybody has left it since.
                    room.versions.own = self.peers.version;
                }
                (room.versions.own, room.roster.of(self.id).collect())
            }
            None => (if known > 0 { self.peers.version } else { 0 }, Vec::new()),
        };
        if version == known {
            return;
        }
        people.sort_unstable_by_key(|person: &Person| person.user.id);
        let parts = people.len().div_ceil(PART_PEOPLE_MAX).max(1);
        let mut first = UserId::from_bits(0);
        for part in 0..parts {
            let rest = people.split_off(people.len().min(PART_PEOPLE_MAX));
            let here = std::mem::replace(&mut people, rest);
            let last = match people.first() {
                Some(next) => UserId::from_bits(next.user.id.bits() - 1),
                None => UserId::from_bits(u64::MAX),
            };
            let (part, parts) = (part as u32, parts as u32);
            let hint =
                Hint::Present { origin: self.id, room: id, version, part, parts, first, last, people: here };
            out.push(Effect::Publish { topic: Topic::Hub(peer), hint });
            first = UserId::from_bits(last.bits().wrapping_add(1));
        }
    }

    /// A peer said who of its people with ids from `first` to `last` are present in a room: just these.
    pub(super) fn present_at(
        &mut self,
        origin: HubId,
        id: RoomId,
        (first, last): (UserId, UserId),
        people: Vec<Person>,
        out: Out,
    ) {
        let Some(room) = self.rooms.get(&id) else { return };
        let is_in = |user: UserId| people.binary_search_by_key(&user, |person| person.user.id).is_ok();
        let was_there = room.roster.of(origin).map(|person| person.user);
        let gone: Vec<_> =
            was_there.filter(|user| (first..=last).contains(&user.id) && !is_in(user.id)).collect();
        let is_told = gone.len() <= CROWD;
        for user in gone {
            self.presence_in(origin, id, &user, Presence::Offline, is_told, out);
        }
        for Person { user, presence } in people {
            self.presence_in(origin, id, &user, presence, true, out);
        }
    }
}
