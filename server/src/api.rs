//! What the HTTP requests of all workers have in common: the operator's wishes, the counts of what may not be
//! done too often, and the hashing of passwords.
//!
//! It must not know a request.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use shared::model::{Ms, UserId};

use crate::accounts::{Guard, Registration};
use crate::config::{Config, OnOff};
use crate::gate::network;
use crate::limits::{Limiter, Pace, TooOften};
use crate::passwords::Hasher;
use crate::store::TokenHash;

/// Requests to `/api` of one address, each of which may ask the store.
const REQUESTS: Pace = Pace::new(200, 20);
/// New accounts of one address, and attempts to make one.
const SIGN_UPS: Pace = Pace::new(30, 60_000);
/// How often it is noted that a token was used.
const TOUCHES: Pace = Pace::new(1, 60_000);
/// Addresses and tokens that are counted at a time, of each sort.
const KEYS_MAX: usize = 10_000;

/// One for the whole process.
#[derive(Debug)]
pub struct Api {
    pub registration: Registration,
    /// Whether people may talk without an account.
    pub guests: bool,
    pub session_days: u32,
    /// Characters of a message; 0 is no limit but the frame's.
    pub message_chars: usize,
    pub hasher: Hasher,
    messages: Pace,
    requests: Pace,
    start: Instant,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    guard: Guard,
    addresses: Limiter<IpAddr>,
    sign_ups: Limiter<IpAddr>,
    messages: Limiter<UserId>,
    requests: Limiter<TokenHash>,
    touches: Limiter<TokenHash>,
}

impl Api {
    pub fn new(config: &Config) -> Self {
        let counts = Counts {
            guard: Guard::default(),
            addresses: Limiter::new(KEYS_MAX),
            sign_ups: Limiter::new(KEYS_MAX),
            messages: Limiter::new(KEYS_MAX),
            requests: Limiter::new(KEYS_MAX),
            touches: Limiter::new(KEYS_MAX),
        };
        Self {
            registration: config.registration,
            guests: config.guests == OnOff::On,
            session_days: config.session_days,
            message_chars: config.max_message_chars,
            hasher: Hasher::default(),
            messages: Pace::per_second(config.message_rate),
            requests: Pace::per_second(config.request_rate),
            start: Instant::now(),
            counts: Mutex::new(counts),
        }
    }

    /// Milliseconds since the start: a clock that nobody sets.
    pub fn now(&self) -> Ms {
        Ms::try_from(self.start.elapsed().as_millis()).unwrap_or(Ms::MAX)
    }

    /// Counts a request of an address.
    ///
    /// # Errors
    /// It is one too many.
    pub fn request(&self, address: IpAddr) -> Result<(), TooOften> {
        self.counts().addresses.take(network(address), REQUESTS, self.now())
    }

    /// Counts an attempt to make an account.
    ///
    /// # Errors
    /// It is one too many.
    pub fn sign_up(&self, address: IpAddr) -> Result<(), TooOften> {
        self.counts().sign_ups.take(network(address), SIGN_UPS, self.now())
    }

    /// Counts a message of a program, whichever of its tokens it came with.
    ///
    /// # Errors
    /// It is one too many.
    pub fn message(&self, user: UserId) -> Result<(), TooOften> {
        self.counts().messages.take(user, self.messages, self.now())
    }

    /// Counts a look into a room by a token.
    ///
    /// # Errors
    /// It is one too many.
    pub fn look(&self, token: TokenHash) -> Result<(), TooOften> {
        self.counts().requests.take(token, self.requests, self.now())
    }

    /// Whether it is time to note that a token is in use.
    pub fn is_touch_due(&self, token: TokenHash) -> bool {
        self.counts().touches.take(token, TOUCHES, self.now()).is_ok()
    }

    /// Something about the guard of passwords.
    pub fn guard<T>(&self, act: impl FnOnce(&mut Guard, Ms) -> T) -> T {
        let now = self.now();
        act(&mut self.counts().guard, now)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
