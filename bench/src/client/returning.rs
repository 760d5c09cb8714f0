//! Clients that come back when their connection ends, as the browser's does: after a random wait by the rules
//! of `shared::reconnect`, with what they have, repeating under the same `ref` what is not acknowledged.
//!
//! It must not know why a connection ended, nor what the scenario makes of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shared::protocol::{AfterClose, CloseCode, ErrorCode, Failure};
use shared::reconnect::{SPREAD_MS, STABLE_MS, backoff_ms, jitter};

use super::{Load, Stage};

const NS_PER_MS: u64 = 1_000_000;
/// What a send waits that was refused without a time.
const RETRY_MS: u32 = 1_000;

/// What becomes of clients whose connection ends.
pub struct Returning {
    random: fastrand::Rng,
    /// When something is due, what, and for which client.
    due: BinaryHeap<Reverse<(u64, Task, usize)>>,
    /// Those that came back.
    pub returns: Vec<Return>,
    /// Attempts to come back, by when each was begun.
    pub attempts: Vec<u64>,
    /// Answers other than 101 to an upgrade: their first lines.
    pub turned_away: Vec<String>,
    /// Sends that were refused for now.
    pub refused: Vec<Refused>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Connect,
    SayAgain,
}

/// A client that lost its connection and has another, and everything it missed. In nanoseconds of the load's
/// clock.
#[derive(Clone, Copy, Debug)]
pub struct Return {
    pub client: usize,
    /// The close code, if there was a close frame.
    pub code: Option<u16>,
    /// The close frame came, or else the connection's end.
    pub closed: u64,
    /// The attempt that succeeded began.
    pub begun: u64,
    pub back: u64,
}

/// A send that was refused for now.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    pub code: ErrorCode,
    /// From its transmission to the refusal, in nanoseconds.
    pub after: u64,
}

impl Returning {
    /// `seed` decides the random waits.
    pub fn new(seed: u64) -> Returning {
        Returning {
            random: fastrand::Rng::with_seed(seed),
            due: BinaryHeap::new(),
            returns: Vec::new(),
            attempts: Vec::new(),
            turned_away: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// The most attempts within a window of time, in nanoseconds.
    pub fn most_attempts_within(&self, window: u64) -> usize {
        let mut times = self.attempts.clone();
        times.sort_unstable();
        let from = |place: usize| times[place..].iter().take_while(|at| **at < times[place] + window).count();
        (0..times.len()).map(from).max().unwrap_or(0)
    }
}

impl Load {
    /// Clients whose connection has ended and that are not back.
    pub fn away(&self) -> usize {
        self.conns.iter().filter(|conn| conn.times.closed > 0).count()
    }

    /// Does what is due for those who come back; how long there is then nothing to do, at most `wait`.
    pub(super) fn come_back(&mut self, wait: Duration) -> Result<Duration> {
        loop {
            let now = self.now();
            let Some(returning) = &mut self.returning else { return Ok(wait) };
            let (task, index) = match returning.due.peek() {
                Some(Reverse((at, task, index))) if *at <= now => (*task, *index),
                Some(Reverse((at, ..))) => return Ok(wait.min(Duration::from_nanos(at - now))),
                None => return Ok(wait),
            };
            returning.due.pop();
            match task {
                Task::Connect => {
                    returning.attempts.push(now);
                    self.connect(index)?;
                }
                Task::SayAgain => self.say_again(index)?,
            }
        }
    }

    /// A connection has ended: when will its client try again?
    pub(super) fn went_away(&mut self, index: usize, code: Option<u16>) -> Result<()> {
        let now = self.now();
        let Some(returning) = &mut self.returning else { return Ok(()) };
        let conn = &mut self.conns[index];
        if conn.times.closed == 0 {
            conn.times.closed = now;
        }
        if conn.times.welcomed > 0 && now - conn.times.welcomed >= STABLE_MS as u64 * NS_PER_MS {
            conn.attempt = 0;
        }
        // Without a close frame a browser reports 1006, which no server sends.
        let bound = match code.map_or(AfterClose::Reconnect, CloseCode::after) {
            AfterClose::Stay | AfterClose::Reconnect => backoff_ms(conn.attempt),
            AfterClose::ReconnectSpread => SPREAD_MS,
            AfterClose::NewSession => anyhow::bail!("client {index} was signed out ({code:?})"),
        };
        conn.attempt += 1;
        conn.code = code.or(conn.code);
        // What is cut off comes again.
        conn.resuming = None;
        let wait = jitter(bound, returning.random.u64(..)) as u64 * NS_PER_MS;
        returning.due.push(Reverse((now + wait, Task::Connect, index)));
        Ok(())
    }

    /// An upgrade was answered with something else than 101.
    pub(super) fn turned_away(&mut self, index: usize, head: &str) -> Result<()> {
        let conn = &mut self.conns[index];
        if let Some(mut socket) = conn.socket.take() {
            self.poll.registry().deregister(&mut socket)?;
        }
        conn.stage = Stage::Closed(None);
        if let Some(returning) = &mut self.returning {
            returning.turned_away.push(head.lines().next().unwrap_or_default().to_owned());
        }
        self.went_away(index, None)
    }

    /// A client is connected and has everything.
    pub(super) fn is_back(&mut self, index: usize, now: u64) {
        let conn = &mut self.conns[index];
        conn.times.resumed = now;
        self.arrived += 1;
        let closed = std::mem::take(&mut conn.times.closed);
        let code = conn.code.take();
        if let Some(returning) = self.returning.as_mut().filter(|_| closed > 0) {
            returning.returns.push(Return {
                client: index,
                code,
                closed,
                begun: conn.times.begun,
                back: now,
            });
        }
    }

    /// Transmits again what is not acknowledged, or the next that waits.
    pub(super) fn say_again(&mut self, index: usize) -> Result<()> {
        let conn = &self.conns[index];
        let Some(sender) = conn.sender.as_ref().filter(|_| conn.stage == Stage::Open) else { return Ok(()) };
        let mut numbers: Vec<u32> = sender.pending.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.transmit(index, number)?;
        }
        self.send_next(index)
    }

    /// The server refused something. Those who come back say again what they may say later.
    pub(super) fn refused(&mut self, index: usize, payload: &[u8], now: u64) -> Result<()> {
        let text = String::from_utf8_lossy(payload);
        let failure: Failure = serde_json::from_slice(payload).context("an error that cannot be read")?;
        let pending = self.conns[index].sender.as_ref().and_then(|sender| sender.pending.values().next());
        let (Some(returning), Some(pending)) = (&mut self.returning, pending) else {
            anyhow::bail!("the server refused: {text}");
        };
        let is_for_now = matches!(failure.code, ErrorCode::Unavailable | ErrorCode::RateLimited);
        ensure!(is_for_now && failure.reference.is_some(), "the server refused: {text}");
        returning.refused.push(Refused { code: failure.code, after: now - pending.transmitted });
        let wait = u64::from(failure.retry_ms.unwrap_or(RETRY_MS)) * NS_PER_MS;
        returning.due.push(Reverse((now + wait, Task::SayAgain, index)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_the_most_attempts_in_a_short_time() {
        let attempts = vec![100, 0, 199, 250, 260, 1_000];
        let returning = Returning { attempts, ..Returning::new(0) };
        assert_eq!(returning.most_attempts_within(100), 3);
        assert_eq!(returning.most_attempts_within(10_000), 6);
        assert_eq!(Returning::new(0).most_attempts_within(100), 0);
    }
}
