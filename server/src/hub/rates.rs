//! How fast a user may ask for what, on all their connections to this hub together.
//!
//! Pure: time comes in as an argument. It must not know what a request leads to.

use shared::model::Ms;
use shared::protocol::ClientEnvelope;

use super::HubConfig;
use super::session::Request;

/// How many seconds' worth of a rate a second a quiet bucket holds.
const BURST_SECONDS: u32 = 3;
/// Which part of a minute's worth of a rate a minute a quiet bucket holds.
const BURST_PER_MINUTE: u32 = 2;
/// Refusals before a connection that goes on is closed, and how many are forgotten in a second.
const REFUSALS: Rate = Rate { count: 10, per_ms: 1_000, burst: 500 };

/// So many in so much time, and so many at once by whoever was quiet. A count of 0 is no limit.
#[derive(Clone, Copy, Debug)]
struct Rate {
    count: u32,
    per_ms: Ms,
    burst: u32,
}

impl Rate {
    fn a_second(count: u32) -> Self {
        Self { count, per_ms: 1_000, burst: count.saturating_mul(BURST_SECONDS) }
    }

    fn a_minute(count: u32) -> Self {
        Self { count, per_ms: 60_000, burst: count.div_ceil(BURST_PER_MINUTE) }
    }
}

/// What sort of a request it is, as far as rates go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Something is said.
    Message,
    /// Somebody wants to be where they are not: rooms are made, joined, opened.
    Entry,
    /// Something is done, or somebody takes another name, which all their rooms are told.
    Act,
    /// A list is looked into.
    List,
    Other,
}

impl Class {
    /// `is_member`: whether the request is about a room that the user is in.
    pub fn of(request: &Request, is_member: bool) -> Self {
        let Request::Envelope(envelope) = request else { return Class::Message };
        match envelope {
            ClientEnvelope::Send { .. } => Class::Message,
            // Reading on.
            ClientEnvelope::Join { .. } if is_member => Class::Other,
            ClientEnvelope::Join { .. }
            | ClientEnvelope::Create { .. }
            | ClientEnvelope::Direct { .. }
            | ClientEnvelope::Group { .. } => Class::Entry,
            ClientEnvelope::Act(_) | ClientEnvelope::Rename { .. } => Class::Act,
            ClientEnvelope::List { .. } => Class::List,
            ClientEnvelope::Hello { .. }
            | ClientEnvelope::Leave { .. }
            | ClientEnvelope::History { .. }
            | ClientEnvelope::Read { .. }
            | ClientEnvelope::Presence { .. }
            | ClientEnvelope::Typing { .. }
            | ClientEnvelope::Members { .. }
            | ClientEnvelope::Directory
            | ClientEnvelope::Ping { .. } => Class::Other,
        }
    }
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

/// Requests of any kind: of a connection until it is welcomed, of a user from then on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Requests {
    all: Bucket,
    refused: Bucket,
}

impl Requests {
    pub fn admit(&mut self, now: Ms, config: &HubConfig) -> Admission {
        let wait = self.all.take(now, Rate::a_second(config.request_rate));
        self.judge(now, wait)
    }

    fn judge(&mut self, now: Ms, wait: Result<(), u32>) -> Admission {
        match wait {
            Ok(()) => Admission::Taken,
            Err(_) if self.refused.take(now, REFUSALS).is_err() => Admission::Hopeless,
            Err(retry_ms) => Admission::Refused { retry_ms },
        }
    }
}

/// What a user has asked for lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    requests: Requests,
    messages: Bucket,
    entries: Bucket,
    acts: Bucket,
    lists: Bucket,
    typing: Bucket,
}

impl Rates {
    /// Counts a request.
    pub fn admit(&mut self, now: Ms, class: Class, config: &HubConfig) -> Admission {
        let wait = self.requests.all.take(now, Rate::a_second(config.request_rate));
        let wait = wait.and_then(|()| match class {
            Class::Message => self.messages.take(now, Rate::a_second(config.message_rate)),
            Class::Entry => self.entries.take(now, Rate::a_minute(config.entry_rate)),
            Class::Act => self.acts.take(now, Rate::a_minute(config.act_rate)),
            Class::List => self.lists.take(now, Rate::a_minute(config.list_rate)),
            Class::Other => Ok(()),
        });
        self.requests.judge(now, wait)
    }

    /// Whether a typing signal is passed on: it is a signal, and one too many is not worth an answer.
    pub fn may_type(&mut self, now: Ms, every_ms: Ms) -> bool {
        self.typing.take(now, Rate { count: 1, per_ms: every_ms, burst: 1 }).is_ok()
    }
}

/// A token bucket that is full at first.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When the bucket will be full again, in milliseconds × count since the epoch of `Ms`.
    full_at: i64,
}

impl Bucket {
    /// Takes one, or says in how many milliseconds there will be one.
    fn take(&mut self, now: Ms, rate: Rate) -> Result<(), u32> {
        let count = i64::from(rate.count);
        if count == 0 {
            return Ok(());
        }
        // Scaled by the count so that a token is `per_ms` units at any rate.
        let now = now.saturating_mul(count);
        let full_at = self.full_at.max(now).saturating_add(rate.per_ms);
        let over = full_at - now - i64::from(rate.burst).saturating_mul(rate.per_ms);
        if over > 0 {
            return Err(u32::try_from(over / count + 1).unwrap_or(u32::MAX));
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
        let (start, rate) = (1_700_000_000_000, Rate::a_second(10));
        assert_eq!((0..40).filter(|_| bucket.take(start, rate).is_ok()).count(), 30);
        let wait = bucket.take(start, rate).unwrap_err();
        assert!((100..=101).contains(&wait), "{wait}");
        assert_eq!(bucket.take(start + Ms::from(wait), rate), Ok(()));
        assert!(bucket.take(start + Ms::from(wait), rate).is_err());
        assert_eq!((0..1_000).filter(|_| bucket.take(start, Rate::a_second(0)).is_ok()).count(), 1_000);
        let mut slow = Bucket::default();
        assert_eq!((0..40).filter(|_| slow.take(start, Rate::a_minute(12)).is_ok()).count(), 6);
        let wait = slow.take(start, Rate::a_minute(12)).unwrap_err();
        assert!((5_000..=5_001).contains(&wait), "{wait}");
        assert!(slow.take(Ms::MAX, Rate::a_second(u32::MAX)).is_ok(), "no rate overflows");
    }

    #[test]
    fn who_goes_on_too_fast_is_given_up_however_many_are_taken_between() {
        let config = HubConfig { message_rate: 1, request_rate: 0, ..HubConfig::default() };
        let mut rates = Rates::default();
        let mut admit = |now| rates.admit(now, Class::Message, &config);
        assert_eq!((0..3).filter(|_| admit(0) == Admission::Taken).count(), 3);
        assert_eq!((0..500).filter(|_| matches!(admit(0), Admission::Refused { .. })).count(), 500);
        assert_eq!(admit(0), Admission::Hopeless);
        assert_eq!(admit(1_000), Admission::Taken);
        assert_eq!((0..100).filter(|_| admit(1_000) == Admission::Hopeless).count(), 90);
        assert_eq!(admit(60_000), Admission::Taken);
    }

    #[test]
    fn each_class_has_its_own_rate() {
        let config = HubConfig { request_rate: 0, ..HubConfig::default() };
        let mut rates = Rates::default();
        for class in [Class::Message, Class::Entry, Class::Act, Class::List] {
            let mut admit = || rates.admit(0, class, &config);
            assert_eq!(admit(), Admission::Taken, "{class:?}");
            assert!((0..1_000).any(|_| admit() != Admission::Taken), "{class:?}");
        }
        assert!((0..1_000).all(|_| rates.admit(0, Class::Other, &config) == Admission::Taken));
        assert!(rates.may_type(0, 1_000) && !rates.may_type(999, 1_000) && rates.may_type(1_000, 1_000));
    }
}
