//! One connection's protocol state.
//!
//! Pure: time comes in as an argument.

use shared::acts::Scope;
use shared::model::{Line, Ms, RoomId, UserId};
use shared::protocol::{ClientEnvelope, Presence, Resume};
use shared::rights::{Need, need};

use super::Arrival;
use super::rates::Requests;
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
    New(Box<Stranger>),
    /// Asked the store who it is, or waits for rooms to be loaded.
    Starting(Box<Starting>),
    Ready,
}

/// What is only needed to find out who somebody is.
#[derive(Debug, Default)]
pub(super) struct Stranger {
    pub may_be_new: bool,
    pub device: Line,
}

#[derive(Debug, Default)]
pub(super) struct Starting {
    pub resume: Vec<Resume>,
    pub account: Option<Account>,
    /// The ticket of the question that `account` answers.
    pub asked_at: u64,
    pub is_identified: bool,
    /// Whether the user was made by this session.
    pub is_fresh: bool,
    /// Rooms that are not loaded yet.
    pub rooms_missing: usize,
    /// What came before the answer.
    pub early: Vec<Request>,
}

/// What a token allows that is no session's.
#[derive(Debug)]
pub(super) struct Grant {
    pub scopes: Vec<Scope>,
    pub only_room: Option<RoomId>,
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
    /// `None`: all that the user may.
    pub grant: Option<Box<Grant>>,
    /// When it ends by itself, on the hub's clock.
    pub ends_at: Ms,
    pub presence: Presence,
    /// The rooms this connection listens to, with its place in the room's list.
    pub rooms: Vec<(RoomId, u32)>,
    /// Until it is welcomed; from then on the user's rates count.
    pub requests: Requests,
    /// The period in which it was last used.
    pub used_in: u32,
}

impl Session {
    pub fn new(serial: u64, mode: Mode, arrival: Arrival) -> Self {
        let Arrival { token, ephemeral, may_be_new, device } = arrival;
        Self {
            serial,
            mode,
            token,
            ephemeral,
            phase: Phase::New(Box::new(Stranger { may_be_new, device })),
            user: None,
            grant: None,
            ends_at: Ms::MAX,
            presence: Presence::Online,
            rooms: Vec::new(),
            requests: Requests::default(),
            used_in: 0,
        }
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Whether the store said whose it is.
    pub fn is_identified(&self) -> bool {
        match &self.phase {
            Phase::New(_) => false,
            Phase::Starting(starting) => starting.is_identified,
            Phase::Ready => true,
        }
    }

    /// Whether it listens to a room of the user's, or need not.
    pub fn is_told_of(&self, room: RoomId) -> bool {
        self.mode == Mode::Plain || !self.hears(room) || self.listens_to(room)
    }

    pub fn listens_to(&self, room: RoomId) -> bool {
        self.rooms.iter().any(|(other, _)| *other == room)
    }

    /// Whether it may be told what happens in a room of the user's.
    pub fn hears(&self, room: RoomId) -> bool {
        self.has(Scope::Read) && self.is_for(room)
    }

    /// Whether it may be asked about a room of the user's at all.
    pub fn is_for(&self, room: RoomId) -> bool {
        self.grant.as_ref().is_none_or(|grant| grant.only_room.is_none_or(|only| only == room))
    }

    pub fn has(&self, scope: Scope) -> bool {
        self.grant.as_ref().is_none_or(|grant| grant.scopes.contains(&scope))
    }

    /// Whether it may ask for something at all. What the user may is another question.
    pub fn may_ask(&self, envelope: &ClientEnvelope) -> bool {
        let need = need(envelope);
        let is_granted = match need {
            Need::Nothing => true,
            Need::Scope(scope) => self.has(scope),
            Need::Session => self.grant.is_none(),
        };
        // A token for one room is told the same of any other, whether it exists or not.
        let only_room = self.grant.as_ref().and_then(|grant| grant.only_room);
        is_granted && (need == Need::Nothing || only_room.is_none_or(|only| envelope.room() == Some(only)))
    }
}
