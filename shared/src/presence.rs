//! Who is present in a room: a pure state with a difference to send.
//!
//! Presence is a signal: never stored and never counted on. Each origin (a node's hub) reports a person's
//! presence for itself; a person is as present as at their most present origin. This file must not know
//! connections, clocks or who listens.

use std::collections::{BTreeMap, HashMap};

use crate::model::UserId;
use crate::protocol::{Person, Presence, User};

/// One person in a room.
#[derive(Clone, Debug)]
struct Entry {
    user: User,
    /// Few origins report the same person: a list is smaller and faster than a map.
    origins: Vec<(u32, Presence)>,
}

impl Entry {
    fn presence(&self) -> Presence {
        self.origins.iter().map(|(_, presence)| *presence).max().unwrap_or_default()
    }
}

/// The people present in one room.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    people: HashMap<UserId, Entry>,
    /// What the listeners were last told of those who changed since, in the order of ids.
    changed: BTreeMap<UserId, (User, Presence)>,
}

impl Roster {
    /// Takes a report of one origin.
    pub fn set(&mut self, origin: u32, user: &User, presence: Presence) {
        let before = self.presence(user.id);
        let entry = self
            .people
            .entry(user.id)
            .or_insert_with(|| Entry { user: user.clone(), origins: Vec::with_capacity(1) });
        // Who goes may go under an old name: that origin may have missed the new one.
        let renamed = presence != Presence::Offline && entry.user.name != user.name;
        if renamed {
            entry.user.name.clone_from(&user.name);
        }
        entry.origins.retain(|(other, _)| *other != origin);
        if presence != Presence::Offline {
            entry.origins.push((origin, presence));
        }
        let after = entry.presence();
        if before != after || renamed {
            let shown = entry.user.clone();
            self.changed.entry(user.id).or_insert_with(|| (shown.clone(), before)).0 = shown.clone();
        }
        if after == Presence::Offline {
            self.people.remove(&user.id);
        }
    }

    /// How present a person is.
    pub fn presence(&self, user: UserId) -> Presence {
        self.people.get(&user).map_or(Presence::Offline, Entry::presence)
    }

    /// Whether an origin reports a person as present.
    pub fn is_present_at(&self, user: UserId, origin: u32) -> bool {
        self.people.get(&user).is_some_and(|entry| entry.origins.iter().any(|(other, _)| *other == origin))
    }

    /// Whether any other origin than this reports a person as present.
    pub fn is_present_elsewhere(&self, user: UserId, origin: u32) -> bool {
        self.people.get(&user).is_some_and(|entry| entry.origins.iter().any(|(other, _)| *other != origin))
    }

    /// How many people are present (online or away).
    pub fn online(&self) -> usize {
        self.people.len()
    }

    /// Whether there is a difference to send.
    pub fn is_dirty(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Those present, in no particular order.
    pub fn people(&self) -> impl Iterator<Item = Person> + '_ {
        self.people.values().map(|entry| Person { user: entry.user.clone(), presence: entry.presence() })
    }

    /// Those that one origin reports, in no particular order.
    pub fn of(&self, origin: u32) -> impl Iterator<Item = Person> + '_ {
        self.people.values().filter_map(move |entry| {
            let (_, presence) = *entry.origins.iter().find(|(other, _)| *other == origin)?;
            Some(Person { user: entry.user.clone(), presence })
        })
    }

    /// What changed since the last call, as it is now. People who came and went in between stay out unless
    /// their name changed.
    pub fn take_changes(&mut self) -> Vec<Person> {
        std::mem::take(&mut self.changed)
            .into_values()
            .filter_map(|(user, told)| {
                let presence = self.presence(user.id);
                (presence != told || presence != Presence::Offline).then_some(Person { user, presence })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserName;

    fn user(bits: u64) -> User {
        User { id: UserId::from_bits(bits), name: UserName::parse(&format!("u{bits}")).unwrap() }
    }

    fn told(roster: &mut Roster) -> Vec<(u64, Presence)> {
        roster.take_changes().into_iter().map(|p| (p.user.id.bits(), p.presence)).collect()
    }

    #[test]
    fn a_person_is_as_present_as_at_their_most_present_origin() {
        let mut roster = Roster::default();
        roster.set(1, &user(7), Presence::Away);
        roster.set(2, &user(7), Presence::Online);
        assert_eq!(told(&mut roster), [(7, Presence::Online)]);
        roster.set(2, &user(7), Presence::Offline);
        assert_eq!(told(&mut roster), [(7, Presence::Away)]);
        roster.set(1, &user(7), Presence::Offline);
        assert_eq!((roster.online(), told(&mut roster)), (0, vec![(7, Presence::Offline)]));
        assert!(!roster.is_dirty());
    }

    #[test]
    fn each_origin_has_its_own_people() {
        let mut roster = Roster::default();
        roster.set(1, &user(7), Presence::Away);
        roster.set(2, &user(7), Presence::Online);
        roster.set(2, &user(8), Presence::Online);
        let of = |origin| {
            let mut people: Vec<_> = roster.of(origin).map(|p| (p.user.id.bits(), p.presence)).collect();
            people.sort_unstable();
            people
        };
        assert_eq!(of(1), [(7, Presence::Away)]);
        assert_eq!(of(2), [(7, Presence::Online), (8, Presence::Online)]);
        assert_eq!(of(3), []);
    }

    #[test]
    fn a_short_visit_between_two_differences_is_not_told() {
        let mut roster = Roster::default();
        roster.set(1, &user(7), Presence::Online);
        roster.set(1, &user(7), Presence::Offline);
        assert_eq!(told(&mut roster), []);
    }

    #[test]
    fn a_new_name_is_told() {
        let mut roster = Roster::default();
        roster.set(1, &user(7), Presence::Online);
        roster.take_changes();
        let renamed = User { name: UserName::parse("Zoë").unwrap(), ..user(7) };
        roster.set(1, &renamed, Presence::Online);
        let changes = roster.take_changes();
        assert_eq!((changes.len(), changes[0].user.name.as_str()), (1, "Zoë"));
    }

    #[test]
    fn who_goes_under_an_old_name_keeps_the_new_one() {
        let mut roster = Roster::default();
        let renamed = User { name: UserName::parse("Zoë").unwrap(), ..user(7) };
        roster.set(1, &user(7), Presence::Online);
        roster.set(2, &renamed, Presence::Online);
        roster.take_changes();
        roster.set(1, &user(7), Presence::Offline);
        assert_eq!(roster.take_changes(), []);
        assert_eq!(roster.people().next().unwrap().user, renamed);
    }
}
