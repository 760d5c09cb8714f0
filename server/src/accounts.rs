//! The rules of accounts: who may make one, how often a password may be tried, how long a session lasts.
//! Pure: time is an argument.
//!
//! It must not know HTTP, cookies or the store.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;

use clap::ValueEnum;
use serde::Serialize;
use shared::model::Ms;

use crate::gate::network;
use crate::limits::{Limiter, Pace, TooOften};
use crate::store::Link;

/// Wrong passwords of one address, for whichever names.
const OF_ADDRESS: Pace = Pace::new(30, 10_000);
/// Wrong passwords of one address for one name.
const OF_NAME: Pace = Pace::new(10, 60_000);
/// Wrong passwords for one name from all addresses, before the name counts as besieged.
const SIEGE: Pace = Pace::new(100, 36_000);
/// Wrong passwords of one address for a besieged name, unless somebody has signed in from there before.
/// Never none: nobody can lock somebody else out.
const BESIEGED: Pace = Pace::new(2, 15 * 60_000);
/// Names, and pairs of a name and an address, that are counted at a time, and successful pairs that are known.
const KEYS_MAX: usize = 20_000;

const DAY_MS: Ms = 86_400_000;

/// Who may make an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// Anybody.
    Open,
    /// Who has an invitation.
    Invite,
    /// Nobody.
    Closed,
}

impl Registration {
    /// Whether somebody may sign up with this link, or without one. An owner's link always helps: a server's
    /// first owner has no account yet.
    pub fn allows(self, link: Option<&Link>) -> bool {
        match link {
            Some(Link::Owner) => true,
            Some(Link::Invite) => self != Registration::Closed,
            Some(Link::Reset(_)) => false,
            None => self == Registration::Open,
        }
    }
}

/// When a session that begins now ends.
pub fn session_end(now: Ms, days: u32) -> Ms {
    now + Ms::from(days) * DAY_MS
}

/// The key under which a name's attempts are counted; `None`: a name that nobody can have.
pub type NameKey = Option<String>;

/// Counts wrong passwords. An attempt counts when it begins, and is forgotten if it was right.
#[derive(Debug)]
pub struct Guard {
    addresses: Limiter<IpAddr>,
    pairs: Limiter<(NameKey, IpAddr)>,
    /// The same for names that are besieged.
    besieged: Limiter<(NameKey, IpAddr)>,
    names: Limiter<NameKey>,
    known: Known,
}

/// An attempt under way.
#[derive(Debug)]
#[must_use]
pub struct Attempt {
    name: NameKey,
    /// The address, or its /64.
    network: IpAddr,
    is_besieged: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            addresses: Limiter::new(KEYS_MAX),
            pairs: Limiter::new(KEYS_MAX),
            besieged: Limiter::new(KEYS_MAX),
            names: Limiter::new(KEYS_MAX),
            known: Known::default(),
        }
    }
}

impl Guard {
    /// Begins an attempt.
    ///
    /// # Errors
    /// The address has tried too often.
    pub fn begin(&mut self, name: NameKey, address: IpAddr, now: Ms) -> Result<Attempt, TooOften> {
        let network = network(address);
        let pair = (name.clone(), network);
        let is_besieged = self.names.is_full(&name, SIEGE, now) && !self.known.pairs.contains(&pair);
        // Who has used up the quicker pace does not gain by the slower one.
        let is_used_up = self.pairs.is_full(&pair, OF_NAME, now);
        let is_besieged = is_besieged && !is_used_up;
        self.addresses.take(network, OF_ADDRESS, now)?;
        let (pairs, pace) = self.pairs(is_besieged);
        if let Err(error) = pairs.take(pair, pace, now) {
            self.addresses.give_back(&network, OF_ADDRESS);
            return Err(error);
        }
        Ok(Attempt { name, network, is_besieged })
    }

    /// The attempt was right, or was none because the server could not look.
    pub fn forget(&mut self, attempt: Attempt) {
        self.addresses.give_back(&attempt.network, OF_ADDRESS);
        let (pairs, pace) = self.pairs(attempt.is_besieged);
        pairs.give_back(&(attempt.name, attempt.network), pace);
    }

    fn pairs(&mut self, is_besieged: bool) -> (&mut Limiter<(NameKey, IpAddr)>, Pace) {
        if is_besieged { (&mut self.besieged, BESIEGED) } else { (&mut self.pairs, OF_NAME) }
    }

    /// The attempt was right.
    pub fn right(&mut self, attempt: Attempt) {
        self.known.add((attempt.name.clone(), attempt.network));
        self.forget(attempt);
    }

    /// The attempt was wrong.
    pub fn wrong(&mut self, attempt: Attempt, now: Ms) {
        // Once full it stays so until the attempts become fewer.
        let _ = self.names.take(attempt.name, SIEGE, now);
    }
}

/// From where people have signed in since the server started; the oldest are forgotten.
#[derive(Debug, Default)]
struct Known {
    pairs: HashSet<(NameKey, IpAddr)>,
    order: VecDeque<(NameKey, IpAddr)>,
}

impl Known {
    fn add(&mut self, pair: (NameKey, IpAddr)) {
        if self.pairs.insert(pair.clone()) {
            self.order.push_back(pair);
            if self.order.len() > KEYS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.pairs.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NameKey {
        Some(text.to_owned())
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + number).into())
    }

    /// Tries wrong passwords until it is told to wait; how many were tried.
    fn guess(guard: &mut Guard, who: &str, from: IpAddr, now: Ms) -> usize {
        let mut tried = 0;
        while let Ok(attempt) = guard.begin(name(who), from, now) {
            guard.wrong(attempt, now);
            tried += 1;
        }
        tried
    }

    #[test]
    fn registration_asks_for_the_right_link() {
        use Registration::{Closed, Invite, Open};
        for (link, allowed) in [
            (None, [true, false, false]),
            (Some(Link::Invite), [true, true, false]),
            (Some(Link::Owner), [true, true, true]),
        ] {
            assert_eq!([Open, Invite, Closed].map(|mode| mode.allows(link.as_ref())), allowed, "{link:?}");
        }
    }

    #[test]
    fn an_address_guesses_a_few_times_and_then_slowly() {
        let mut guard = Guard::default();
        assert_eq!(guess(&mut guard, "ada", address(1), 0), 10);
        let wait = guard.begin(name("ada"), address(1), 0).unwrap_err();
        assert_eq!(wait.retry_ms, 60_000);
        assert_eq!(guess(&mut guard, "ada", address(1), 60_000), 1);
        // Other names are as many guesses as an address has in all.
        let mut guard = Guard::default();
        let tried: usize = (0..100).map(|number| guess(&mut guard, &number.to_string(), address(1), 0)).sum();
        assert_eq!(tried, 30);
    }

    #[test]
    fn who_knows_the_password_may_use_it_all_day() {
        let mut guard = Guard::default();
        for _ in 0..1_000 {
            let attempt = guard.begin(name("ada"), address(1), 0).unwrap();
            guard.right(attempt);
        }
    }

    #[test]
    fn nobody_locks_somebody_else_out() {
        let mut guard = Guard::default();
        let home = guard.begin(name("ada"), address(1), 0).unwrap();
        guard.right(home);
        // A thousand addresses guess as much as they can.
        let tried: usize = (100..1_100).map(|number| guess(&mut guard, "ada", address(number), 0)).sum();
        // The first ten addresses have used their ten.
        assert_eq!(tried, 100 + 990 * 2, "a besieged name leaves each address two");
        // From where she signed in she may mistype as ever, and from anywhere else she may try.
        assert_eq!(guess(&mut guard, "ada", address(1), 0), 10);
        assert_eq!(guess(&mut guard, "ada", address(2), 0), 2);
        assert_eq!(guess(&mut guard, "bob", address(2), 0), 10, "another name is not besieged");
        // When it is over, it is over.
        assert_eq!(guess(&mut guard, "ada", address(3), 3_600_000), 10);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut known = Known::default();
        (0..KEYS_MAX as u32 * 2).for_each(|number| known.add((None, address(number))));
        assert_eq!((known.pairs.len(), known.order.len()), (KEYS_MAX, KEYS_MAX));
    }
}
