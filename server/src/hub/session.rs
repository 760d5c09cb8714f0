//! One connection's protocol state, and the rate limits that go with it.
//!
//! Pure: time comes in as an argument.

use shared::model::{Ms, RoomId, UserId};
use shared::protocol::{ClientEnvelope, Presence, Resume};

use crate::store::{Account, TokenHash};

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The subprotocol `magpie.v1`.
    Full,
    /// No subprotocol: text in, `{"sender","message"}` out.
    Plain,
}

/// Requests kept while the session is being set up. More are refused.
pub(super) const EARLY_REQUESTS_MAX: usize = 32;
/// Refusals in a row before a connection that goes on is closed.
const REFUSALS_MAX: u32 = 500;

/// What a connection asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Envelope(ClientEnvelope),
    /// A text in plain mode.
    Plain(String),
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Waits for `hello`.
    New,
    /// Asked the store who it is, or waits for rooms to be loaded.
    Starting(Box<Starting>),
    Ready,
}

#[derive(Debug, Default)]
pub(super) struct Starting {
    pub resume: Vec<Resume>,
    pub account: Option<Account>,
    /// The ticket of the question that `account` answers.
    pub asked_at: u64,
    /// Whether the user was made by this session.
    pub is_fresh: bool,
    /// Rooms that are not loaded yet.
    pub rooms_missing: usize,
    /// What came before the answer.
    pub early: Vec<Request>,
}

#[derive(Debug)]
pub(super) struct Session {
    /// Tells this session from an earlier one of the same connection number.
    pub serial: u64,
    pub mode: Mode,
    pub token: TokenHash,
    /// Came without a cookie, as scripts do: taken for gone for good when it closes.
    pub ephemeral: bool,
    pub phase: Phase,
    pub user: Option<UserId>,
    pub presence: Presence,
    /// The rooms this connection listens to, with its place in the room's list.
    pub rooms: Vec<(RoomId, u32)>,
    pub messages: Bucket,
    pub requests: Bucket,
    pub typing_at: Ms,
    /// Requests refused since the last one that was taken.
    refusals: u32,
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Taken,
    /// Too fast; what to say.
    Refused {
        retry_ms: u32,
    },
    /// Too fast for too long.
    Hopeless,
}

impl Session {
    pub fn new(serial: u64, mode: Mode, token: TokenHash, ephemeral: bool) -> Self {
        Self {
            serial,
            mode,
            token,
            ephemeral,
            phase: Phase::New,
            user: None,
            presence: Presence::Online,
            rooms: Vec::new(),
            messages: Bucket::default(),
            requests: Bucket::default(),
            typing_at: Ms::MIN / 2,
            refusals: 0,
        }
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    pub fn listens_to(&self, room: RoomId) -> bool {
        self.rooms.iter().any(|(other, _)| *other == room)
    }

    /// Counts a request against the rates, in requests a second; 0 is no limit.
    pub fn admit(&mut self, now: Ms, is_message: bool, message_rate: u32, request_rate: u32) -> Admission {
        let wait = match self.requests.take(now, request_rate) {
            Ok(()) if is_message => self.messages.take(now, message_rate),
            other => other,
        };
        match wait {
            Ok(()) => {
                self.refusals = 0;
                Admission::Taken
            }
            Err(_) if self.refusals >= REFUSALS_MAX => Admission::Hopeless,
            Err(retry_ms) => {
                self.refusals += 1;
                Admission::Refused { retry_ms }
            }
        }
    }
}

/// How many seconds' worth of its rate a quiet bucket holds.
const BURST_SECONDS: i64 = 3;

/// A token bucket that is full at first: `rate` a second, and a burst of three seconds' worth.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// When the bucket will be full again, in milliseconds × rate since the epoch of `Ms`.
    full_at: i64,
}

impl Bucket {
    /// Takes one, or says in how many milliseconds there will be one.
    pub fn take(&mut self, now: Ms, rate: u32) -> Result<(), u32> {
        let rate = i64::from(rate);
        if rate == 0 {
            return Ok(());
        }
        // Scaled by the rate so that a token is 1,000 units at any rate.
        let now = now * rate;
        let full_at = self.full_at.max(now) + 1_000;
        let over = full_at - now - BURST_SECONDS * 1_000 * rate;
        if over > 0 {
            return Err((over / rate + 1) as u32);
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let start = 1_700_000_000_000;
        assert_eq!((0..40).filter(|_| bucket.take(start, 10).is_ok()).count(), 30);
        let wait = bucket.take(start, 10).unwrap_err();
        assert!((100..=101).contains(&wait), "{wait}");
        assert_eq!(bucket.take(start + Ms::from(wait), 10), Ok(()));
        assert!(bucket.take(start + Ms::from(wait), 10).is_err());
        assert_eq!((0..1_000).filter(|_| bucket.take(start, 0).is_ok()).count(), 1_000);
    }

    #[test]
    fn who_goes_on_too_fast_is_given_up() {
        let mut session = Session::new(1, Mode::Full, [0; 32], false);
        let mut admit = |now| session.admit(now, true, 1, 0);
        assert_eq!((0..3).filter(|_| admit(0) == Admission::Taken).count(), 3);
        assert_eq!((0..REFUSALS_MAX).filter(|_| matches!(admit(0), Admission::Refused { .. })).count(), 500);
        assert_eq!(admit(0), Admission::Hopeless);
        assert_eq!(admit(60_000), Admission::Taken);
    }
}
