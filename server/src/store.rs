//! The durable history: the seam between the server and its databases.
//!
//! An adapter implements [`Store`] and passes the conformance suite in `store/conformance.rs`; nothing else
//! in the server knows which one runs. Stores know only `shared`: no hub, no sockets, no broker.

pub mod memory;
pub mod sqlite;

#[cfg(test)]
mod conformance;

use std::future::Future;
use std::pin::Pin;

use shared::model::{Claim, Ms, NAME_CHARS_MAX, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{Event, EventKind, Listing, RoomInfo, RoomKind, User};

/// How many of a room's newest events a store looks at when it counts what is unread. A longer run of one's
/// own messages, or of events that are no messages, hides what lies before it.
pub const UNREAD_SCAN_MAX: u64 = 10_000;

/// An answer of a store, now or later. A store works on its own threads; the future only waits.
pub type Reply<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// No such room, user or session.
    #[error("not found")]
    NotFound,
    /// The name, or one that looks like it, belongs to somebody else.
    #[error("name taken")]
    NameTaken,
    /// The user is in as many rooms as they may be.
    #[error("too many rooms")]
    TooManyRooms,
    /// The author is not a member of the room.
    #[error("not a member")]
    NotMember,
    /// The database does not answer, or could not write. Nothing was changed, or it is not known whether it
    /// was: a repeat is safe where there is a `ref`.
    #[error("store unavailable: {0}")]
    Unavailable(String),
}

/// An event to be appended; the store gives it its `seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    pub room: RoomId,
    pub author: User,
    pub at: Ms,
    pub kind: EventKind,
    pub reference: Option<Ref>,
}

/// An event that is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The event as it stands in the log. For a repeated (author, ref): the first one.
    pub event: Event,
    /// False for a repeat.
    pub first: bool,
}

/// SHA-256 of a session token: what is stored instead of it.
pub type TokenHash = [u8; 32];

/// The user of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: User,
    /// True if this call made the user.
    pub fresh: bool,
}

/// A user and all they are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub user: User,
    /// The lobby and every room the user is a member of.
    pub rooms: Vec<RoomInfo>,
}

/// A room's log, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub epoch: u32,
    /// `seq` of the newest event of the room at the time of reading.
    pub head: Seq,
    /// In the order of `seq`, without holes.
    pub events: Vec<Event>,
}

/// A change of membership: the room as the user sees it now, and the events that tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    pub info: RoomInfo,
    /// Empty if nothing changed (the user was a member already).
    pub events: Vec<Event>,
}

/// Durable rooms, users, sessions, memberships and cursors.
///
/// **Order and durability.** An `Ok` of a method that writes means committed and synced to the medium.
/// Each room's events have the `seq` 1, 2, 3 … without a hole, given in commit order; a reader that sees an
/// event sees all before it. Writes that wait at the same time share a transaction (group commit). What a
/// caller passes in one `append` is appended in that order.
///
/// **Atomicity.** Each write is done wholly or not at all, together with the events that tell of it. An
/// append that fails does not disturb the others of its batch.
///
/// **Once.** (author, ref) is unique for ever. A repeat, concurrent or years later, in whichever room,
/// changes nothing and answers with the first event, also where the author could not append any more.
///
/// **Cursors.** Who enters a room by their own act has read what was said before: their cursor stands at the
/// head then (a fresh guest's in the lobby, too). The cursor outlives the membership.
///
/// **The lobby** exists from the start, everyone is in it, nobody can leave it, and it has no member rows.
///
/// **Failure.** `Unavailable` never means acknowledged. A store recovers by itself when its medium does.
pub trait Store: Send + Sync + 'static {
    /// Appends events, each by itself. `kind` is anything but `Unknown`.
    ///
    /// The answers stand in the order of the batch: `NotFound` for an unknown room, `NotMember` for an author
    /// who is not in it.
    fn append(&self, batch: Vec<Append>) -> Reply<Vec<Result<Appended, StoreError>>>;

    /// The events after a `seq`, oldest first, at most `limit`. `NotFound` for an unknown room.
    fn events_after(&self, room: RoomId, after: Seq, limit: usize) -> Reply<Page>;

    /// The newest events before a `seq`, oldest first, at most `limit`. `Seq::MAX` reads the newest page.
    /// `NotFound` for an unknown room.
    fn events_before(&self, room: RoomId, before: Seq, limit: usize) -> Reply<Page>;

    /// The user of a session. If there is none, makes the session and a guest with the first name of
    /// `names` that is free; if none is free, with the first that becomes free by a number behind it.
    /// Two calls with the same token make one guest. `id` is the new user's, should one be made.
    ///
    /// # Errors
    /// `NameTaken` if `names` is empty or so are the numbers.
    fn identify(&self, token: TokenHash, id: UserId, names: Vec<Claim<UserName>>, at: Ms) -> Reply<Identity>;

    /// A user and the rooms they are in. `NotFound` for an unknown user.
    fn account(&self, user: UserId) -> Reply<Account>;

    /// Gives a user another name and appends a `Renamed` to each room they are in except the lobby, and to
    /// the lobby if `tell_lobby`. The events' author carries the old name. The same name again changes
    /// nothing; a name that differs but has the user's own skeleton is allowed.
    ///
    /// # Errors
    /// `NameTaken`, `NotFound`.
    fn rename(
        &self,
        user: UserId,
        name: Claim<UserName>,
        tell_lobby: bool,
        at: Ms,
    ) -> Reply<(User, Vec<Event>)>;

    /// Makes a public room with `user` as its first member and a `Created` event.
    ///
    /// # Errors
    /// `NameTaken`; `TooManyRooms` if the user is in `rooms_max` rooms (0 is no limit), the lobby not counted.
    fn create_room(
        &self,
        id: RoomId,
        name: Claim<RoomName>,
        user: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Reply<Entered>;

    /// Opens the direct conversation of two users: makes it with a `Created` by `user` if it does not exist.
    /// With oneself it is a room of one, for notes, and one is one's own `peer`. Both are members from then
    /// on.
    ///
    /// # Errors
    /// `NotFound` for an unknown peer, `TooManyRooms` as in `create_room` (for `user` only).
    fn open_direct(&self, id: RoomId, user: UserId, peer: UserId, rooms_max: usize, at: Ms)
    -> Reply<Entered>;

    /// Makes a user a member of a public room, with a `Joined` event. A member stays one, whatever the
    /// room's kind. `room` is looked up as an id first, then by the name's skeleton.
    ///
    /// # Errors
    /// `NotFound` for an unknown room and, in the same way, for a direct conversation of others;
    /// `TooManyRooms`.
    fn join(&self, room: RoomKey, user: UserId, rooms_max: usize, at: Ms) -> Reply<Entered>;

    /// Ends a membership in a public room, with a `Left` event; `None` if there was none. A direct
    /// conversation stays: leaving it is `NotFound`, as is leaving the lobby or an unknown room.
    fn leave(&self, room: RoomId, user: UserId, at: Ms) -> Reply<Option<Event>>;

    /// A room as a member sees it. `NotFound` for anyone else.
    fn room_info(&self, room: RoomId, user: UserId) -> Reply<RoomInfo>;

    /// Moves a reader's cursor forward to `seq`, at most to the room's head; never back. Answers with the
    /// cursor as it stands and the unread messages of others after it, at most `UNREAD_MAX`.
    ///
    /// # Errors
    /// `NotFound` if the user is not a member.
    fn mark_read(&self, room: RoomId, user: UserId, seq: Seq) -> Reply<(Seq, u32)>;

    /// The members of a room by name, at most `limit`, and how many there are. Not for the lobby, whose
    /// answer is empty. `NotFound` for an unknown room.
    fn members(&self, room: RoomId, limit: usize) -> Reply<(Vec<User>, u32)>;

    /// The public rooms, most members first, at most `limit`. The lobby counts everyone.
    fn directory(&self, user: UserId, limit: usize) -> Reply<Vec<Listing>>;

    /// The epoch and head of each room that exists, in any order.
    fn heads(&self, rooms: Vec<RoomId>) -> Reply<Vec<(RoomId, u32, Seq)>>;

    /// A secret of this store, made at its first start and the same ever after.
    fn secret(&self) -> [u8; 32];

    /// Whether the store answers: one cheap read and one cheap write.
    fn check(&self) -> Reply<()>;
}

/// How a room is named in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomKey {
    pub id: Option<RoomId>,
    /// The skeleton of the text as a room name, where it is one.
    pub skeleton: Option<String>,
}

impl RoomKey {
    /// Reads an id or a name; a text that is neither names no room.
    pub fn parse(text: &str) -> Self {
        Self { id: text.parse().ok(), skeleton: RoomName::claim(text).ok().map(|claim| claim.skeleton) }
    }
}

/// What kind of event can be in a log, as databases keep it. The texts are for ever.
pub(crate) fn kind_name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Message { .. } => "message",
        EventKind::Created => "created",
        EventKind::Joined => "joined",
        EventKind::Left => "left",
        EventKind::Renamed { .. } => "renamed",
        EventKind::Unknown => "unknown",
    }
}

/// What a room kind is called in databases.
pub(crate) fn room_kind_name(kind: RoomKind) -> &'static str {
    match kind {
        RoomKind::Public => "public",
        RoomKind::Direct => "direct",
    }
}

/// Sequential numbers tried behind a name before those made of the id.
const NUMBERS_IN_ORDER: u64 = 20;
/// Numbers made of the id that are tried behind a name.
const NUMBERS_OF_ID: u32 = 8;

/// The names with numbers behind them, in the order in which [`Store::identify`] tries them.
pub(crate) fn numbered(names: &[Claim<UserName>], id: UserId) -> impl Iterator<Item = Claim<UserName>> {
    // After a few small numbers come longer and longer ones that nobody else is likely to try.
    let of_id = move |place: u32| id.bits().rotate_right(7 * place) % 10u64.pow(4 + place);
    let numbers = (2..=NUMBERS_IN_ORDER).chain((0..NUMBERS_OF_ID).map(of_id));
    numbers.flat_map(|number| {
        names.iter().filter_map(move |claim| {
            let number = format!(" {number}");
            let room = NAME_CHARS_MAX - number.len();
            let base: String = claim.name.as_str().chars().take(room).collect();
            UserName::claim(&(base + &number)).ok()
        })
    })
}
