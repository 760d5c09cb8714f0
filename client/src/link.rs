//! The connection's policy: when to connect, wait, probe and give up. Pure: it gets the time and says what
//! to do; it must not know sockets, envelopes other than `ping`, or what the connection is for.

use shared::model::Ms;
use shared::protocol::{AfterClose, ClientEnvelope, CloseCode};
use shared::reconnect::{SPREAD_MS, STABLE_MS, backoff_ms, jitter};

use crate::state::Effect;

/// How long a socket may take to open, and then to answer `hello`.
pub const CONNECT_TIMEOUT_MS: Ms = 10_000;
/// Silence after which the connection is probed.
pub const SILENCE_MS: Ms = 25_000;
/// How long a probe may stay without any frame from the server.
pub const PROBE_TIMEOUT_MS: Ms = 5_000;
/// Silence after which a woken client does not bother to probe: the server has dropped it by now.
pub const DEAD_MS: Ms = 90_000;
/// Trouble that is over sooner is not shown.
pub const BANNER_AFTER_MS: Ms = 1_000;

/// Where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not started, or ended for good.
    Stopped,
    /// The socket is opening.
    Connecting { since: Ms },
    /// `hello` is sent.
    Greeting { since: Ms },
    /// `welcome` has come.
    Online { since: Ms },
    /// There is no socket; the next one opens at `until`.
    Waiting { until: Ms },
}

/// What the page says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Banner {
    Connecting,
    /// Whole seconds until the next attempt, at least 1.
    Waiting {
        seconds: u32,
    },
}

/// The connection as the client sees it.
#[derive(Clone, Debug)]
pub struct Link {
    phase: Phase,
    /// Attempts since the connection was last stable.
    attempt: u32,
    /// Since when things are not as they should be.
    trouble_since: Option<Ms>,
    /// When the last frame came.
    heard_at: Ms,
    /// When the probe that is under way was sent.
    probed_at: Option<Ms>,
    probes: u64,
    random: u64,
}

impl Link {
    /// `seed` decides the random waits.
    pub fn new(seed: u64) -> Self {
        Self {
            phase: Phase::Stopped,
            attempt: 0,
            trouble_since: None,
            heard_at: 0,
            probed_at: None,
            probes: 0,
            random: seed,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether `welcome` has come on the present socket.
    pub fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online { .. })
    }

    /// Opens a socket.
    pub fn connect(&mut self, now: Ms, effects: &mut Vec<Effect>) {
        self.trouble_since.get_or_insert(now);
        self.phase = Phase::Connecting { since: now };
        effects.push(Effect::Connect);
    }

    /// There is no connection to be had without another session.
    pub fn stop(&mut self) {
        self.phase = Phase::Stopped;
        self.trouble_since = None;
    }

    /// The socket is open, and `hello` is sent.
    pub fn opened(&mut self, now: Ms) {
        self.heard_at = now;
        self.phase = Phase::Greeting { since: now };
    }

    /// A frame came.
    pub fn heard(&mut self, now: Ms) {
        self.heard_at = now;
    }

    /// `welcome` came.
    pub fn welcomed(&mut self, now: Ms) {
        self.trouble_since = None;
        self.phase = Phase::Online { since: now };
    }

    /// `pong` came.
    pub fn ponged(&mut self, n: u64) {
        if n == self.probes {
            self.answered();
        }
    }

    /// The probe has an answer, be it a refusal.
    pub fn answered(&mut self) {
        self.probed_at = None;
    }

    /// The socket is closed.
    pub fn closed(&mut self, now: Ms, code: u16, effects: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Stopped | Phase::Waiting { .. }) {
            return;
        }
        self.drop_socket(now);
        match CloseCode::after(code) {
            // We never ask a server to close and then wait for it: 1000 is its own wish, and no reason to go.
            AfterClose::Stay | AfterClose::Reconnect => self.back_off(now),
            AfterClose::ReconnectSpread => self.wait(now, SPREAD_MS),
            AfterClose::NewSession => {
                self.stop();
                effects.push(Effect::RenewSession);
            }
        }
    }

    /// The person, or the browser, has reason to think that it works now, or to doubt that it does. True
    /// when the socket was given up.
    pub fn hurry(&mut self, now: Ms, effects: &mut Vec<Effect>) -> bool {
        match self.phase {
            Phase::Waiting { .. } => self.connect(now, effects),
            Phase::Online { .. } if now - self.heard_at >= DEAD_MS => {
                self.replace(now, effects);
                return true;
            }
            _ => self.probe(now, effects),
        }
        false
    }

    /// Asks for a sign of life.
    pub fn probe(&mut self, now: Ms, effects: &mut Vec<Effect>) {
        if self.is_online() && self.probed_at.is_none() {
            self.probes += 1;
            self.probed_at = Some(now);
            effects.push(Effect::Transmit(ClientEnvelope::Ping { n: self.probes }));
        }
    }

    /// Does what is due. True when the socket was given up.
    pub fn tick(&mut self, now: Ms, effects: &mut Vec<Effect>) -> bool {
        if let Phase::Online { since } = self.phase
            && now - since >= STABLE_MS
        {
            self.attempt = 0;
        }
        if self.act_at().is_none_or(|at| now < at) {
            return false;
        }
        match self.phase {
            Phase::Stopped => false,
            Phase::Waiting { .. } => {
                self.connect(now, effects);
                false
            }
            Phase::Connecting { .. } | Phase::Greeting { .. } => {
                effects.push(Effect::Disconnect { code: CloseCode::NoAnswer as u16 });
                self.drop_socket(now);
                self.back_off(now);
                true
            }
            Phase::Online { .. } if self.probed_at.is_some() => {
                self.replace(now, effects);
                true
            }
            Phase::Online { .. } => {
                self.probe(now, effects);
                false
            }
        }
    }

    /// When `tick` or the banner has something to do next.
    pub fn wake_at(&self, now: Ms) -> Option<Ms> {
        let banner = self.trouble_since.and_then(|since| match self.phase {
            _ if now < since + BANNER_AFTER_MS => Some(since + BANNER_AFTER_MS),
            // The next whole second of the countdown.
            Phase::Waiting { until } => Some(now + 1 + (until - now - 1).max(0) % 1_000),
            _ => None,
        });
        [self.act_at(), banner].into_iter().flatten().min()
    }

    /// What to say about the connection.
    pub fn banner(&self, now: Ms) -> Option<Banner> {
        if now < self.trouble_since? + BANNER_AFTER_MS {
            return None;
        }
        match self.phase {
            Phase::Stopped | Phase::Online { .. } => None,
            Phase::Connecting { .. } | Phase::Greeting { .. } => Some(Banner::Connecting),
            Phase::Waiting { until } => {
                Some(Banner::Waiting { seconds: ((until - now + 999) / 1_000).clamp(1, 999) as u32 })
            }
        }
    }

    fn act_at(&self) -> Option<Ms> {
        match self.phase {
            Phase::Stopped => None,
            Phase::Waiting { until } => Some(until),
            Phase::Connecting { since } | Phase::Greeting { since } => Some(since + CONNECT_TIMEOUT_MS),
            Phase::Online { .. } => Some(match self.probed_at {
                Some(at) => at.max(self.heard_at) + PROBE_TIMEOUT_MS,
                None => self.heard_at + SILENCE_MS,
            }),
        }
    }

    /// Gives up a socket that seemed to work and opens another: at once the first time, later after a wait.
    fn replace(&mut self, now: Ms, effects: &mut Vec<Effect>) {
        effects.push(Effect::Disconnect { code: CloseCode::NoAnswer as u16 });
        self.drop_socket(now);
        if self.attempt == 0 {
            self.attempt = 1;
            self.connect(now, effects);
        } else {
            self.back_off(now);
        }
    }

    fn drop_socket(&mut self, now: Ms) {
        self.probed_at = None;
        self.trouble_since.get_or_insert(now);
        if let Phase::Online { since } = self.phase
            && now - since >= STABLE_MS
        {
            self.attempt = 0;
        }
    }

    fn back_off(&mut self, now: Ms) {
        self.wait(now, backoff_ms(self.attempt));
    }

    /// Waits a random time of up to `bound`.
    fn wait(&mut self, now: Ms, bound: Ms) {
        self.attempt += 1;
        let wait = jitter(bound, self.next_random());
        self.phase = Phase::Waiting { until: now + wait };
    }

    /// SplitMix64: spreading clients needs no better randomness.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
