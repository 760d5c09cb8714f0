//! The durable history: the seam between the server and its databases.
//!
//! An adapter implements [`Store`] and passes the conformance suite in `store/conformance.rs`; nothing else
//! in the server knows which one runs. Stores know only `shared`: no hub, no sockets, no broker.

pub mod memory;
pub mod migrate;
pub mod postgres;
pub mod sqlite;

#[cfg(test)]
mod conformance;

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use shared::acts::{Act, Entry, List, Scope};
use shared::model::{Claim, Line, Ms, NAME_CHARS_MAX, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{Event, EventKind, Listing, RoomInfo, RoomKind, User};
use shared::rights::Role;

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
    /// The user may see it, but not do that (`shared::rights`).
    #[error("forbidden")]
    Forbidden,
    /// There are as many of these as there can be.
    #[error("too many")]
    TooMany,
    /// The room is archived.
    #[error("archived")]
    Archived,
    /// The author may not write in the room until then.
    #[error("muted until {0}")]
    Muted(Ms),
    /// The room is in slow mode: the author may write again then.
    #[error("slow mode until {0}")]
    SlowMode(Ms),
    /// One of the two has blocked the other.
    #[error("blocked")]
    Blocked,
    /// The user is banned.
    #[error("banned")]
    Banned,
    /// The session was ended, or its time is over: nobody gets in by its token any more.
    #[error("ended")]
    Ended,
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

/// Who somebody becomes who has no session yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    pub id: UserId,
    /// Names to choose from.
    pub names: Vec<Claim<UserName>>,
}

/// Whose session or token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: User,
    pub role: Role,
    /// True if this call made the user.
    pub fresh: bool,
    /// When the session or token ends.
    pub until: Option<Ms>,
    /// What a bot's token allows; `None`: a session, which allows all that the user may.
    pub scopes: Option<Vec<Scope>>,
    /// The only room that a webhook's token is for.
    pub only_room: Option<RoomId>,
}

/// A user and all they are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub user: User,
    pub role: Role,
    /// The lobby and every room the user is a member of.
    pub rooms: Vec<RoomInfo>,
    /// Whom the user has blocked.
    pub blocked: Vec<UserId>,
}

/// A session to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSession {
    pub token: TokenHash,
    /// What it is used from, for people to recognise.
    pub device: Line,
    pub at: Ms,
    pub until: Ms,
}

impl NewSession {
    /// A session of an unknown device that does not end by itself.
    pub fn of(token: TokenHash, at: Ms) -> Self {
        Self { token, device: Line::default(), at, until: Ms::MAX }
    }
}

/// Sessions and tokens of a user that are void now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub user: UserId,
    pub tokens: Vec<TokenHash>,
}

/// A user who has a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub user: User,
    /// The password's hash in PHC form.
    pub password: String,
}

/// What a link is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// To sign up.
    Invite,
    /// To set this user's password.
    Reset(User),
    /// To become the server's owner.
    Owner,
}

/// Who signs up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applicant {
    /// The guest of a session keeps their name, rooms and messages. The session ends.
    Guest(TokenHash),
    /// Somebody new.
    New { id: UserId, name: Claim<UserName> },
}

/// What an act needs that only a shell has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The acting user's session.
    pub session: TokenHash,
    /// Random bits for the id of what is made.
    pub id: u64,
    /// The hash of the secret that is told in `done`. The secret of an outgoing webhook, which has to be known
    /// to sign with, is the hash itself.
    pub secret: TokenHash,
}

/// What follows from an act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub events: Vec<Event>,
    /// Who is in which room from now on, or no longer.
    pub memberships: Vec<(UserId, RoomId, bool)>,
    pub ended: Vec<Ended>,
    /// Users whose role or blocks are others now.
    pub users: Vec<UserId>,
    /// The acting user's rooms that look different to them alone (`quiet`).
    pub rooms: Vec<RoomId>,
    /// The acting user's cursor that was set back.
    pub cursor: Option<(RoomId, Cursor)>,
    /// A user that was made.
    pub user: Option<User>,
    /// Bans, outgoing webhooks, or the programs that they do not hear, are others now.
    pub rules_changed: bool,
}

/// A reader's cursor as it stands, and what is after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub seq: Seq,
    /// How often it was set back.
    pub version: u32,
    /// Messages of others after it, without those of people the reader has blocked, at most `UNREAD_MAX`.
    pub unread: u32,
    /// Those among them that mention the reader.
    pub mentioned: u32,
}

/// Which rows of a list to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    pub list: List,
    pub room: Option<RoomId>,
    /// What names begin with, for `List::Users`.
    pub text: Line,
    /// The id of the last row that the asker has.
    pub before: Option<String>,
    /// The asker's session, which is marked.
    pub session: TokenHash,
    pub at: Ms,
}

/// Addresses that may not connect, as a network in CIDR form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressBan {
    pub addresses: String,
    pub until: Option<Ms>,
}

/// A webhook that messages are posted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingHook {
    pub id: u64,
    pub room: RoomId,
    pub url: String,
    /// What deliveries are signed with.
    pub secret: TokenHash,
    /// All messages up to here were delivered or given up.
    pub done: Seq,
    /// Programs whose messages are not posted, since a hook may have moved them to speak: the bots and webhooks
    /// of its maker, and the incoming webhooks of its room.
    pub own: Vec<UserId>,
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
    /// All who are in the room from now on and were not before.
    pub users: Vec<UserId>,
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
/// head then (a fresh guest's in the lobby, too). The cursor outlives the membership. It moves forward only,
/// except by `Act::Unread`, which raises its version.
///
/// **Rights.** Who may do what is `shared::rights::may`, asked with what stands in the store in the same
/// transaction. Whoever is not in a room that is not public gets the very answer of a room that does not exist.
/// Where somebody may see but not do, the answer is `Forbidden`.
///
/// **Deletion.** A message that was deleted reads as `EventKind::Deleted` ever after, at its place, without a
/// body anywhere; its `ref` stays taken.
///
/// **Bans.** A banned user has no sessions and gets none: `identify` and `sign_in` answer `Banned`. Bans,
/// mutes, sessions, tokens and links that have run out at `at` are as if they were not there.
///
/// **The lobby** exists from the start, everyone is in it, nobody can leave it, and it has no member rows.
///
/// **Failure.** `Unavailable` never means acknowledged. A store recovers by itself when its medium does.
pub trait Store: Send + Sync + 'static {
    /// Appends events, each by itself. `kind` is anything but `Unknown`.
    ///
    /// The answers stand in the order of the batch: `NotFound` for a room that is unknown to the author,
    /// `NotMember` for an author who is not in a public one, `Banned`; and for messages `Archived`, `Muted`,
    /// `SlowMode` (which whoever keeps the room is free of), and `Blocked` in a direct conversation one of
    /// whose two has blocked the other.
    ///
    /// A message's `mentions` and `all` are the store's to fill: those `@names` (`shared::mentions`) that are
    /// in the room and are not the author, and `@room` or `@here` where the author may.
    fn append(&self, batch: Vec<Append>) -> Reply<Vec<Result<Appended, StoreError>>>;

    /// The events after a `seq`, oldest first, at most `limit`. `NotFound` for an unknown room.
    fn events_after(&self, room: RoomId, after: Seq, limit: usize) -> Reply<Page>;

    /// The newest events before a `seq`, oldest first, at most `limit`. `Seq::MAX` reads the newest page.
    /// `NotFound` for an unknown room.
    fn events_before(&self, room: RoomId, before: Seq, limit: usize) -> Reply<Page>;

    /// Whose a session or a bot's token is. If there is no such session and there is a `newcomer`, makes the
    /// session, until `until`, and a guest with the first name of `names` that is free; if none is free, with
    /// the first that becomes free by a number behind it. Two calls with the same token make one guest.
    ///
    /// # Errors
    /// `NotFound` without a newcomer; `NameTaken` if `names` is empty or so are the numbers; `Banned`; `Ended`
    /// for a session that there was, for as long as browsers keep its token.
    fn identify(&self, session: NewSession, newcomer: Option<Newcomer>) -> Reply<Identity>;

    /// Those of these sessions' and bots' tokens that let nobody in: they were ended or revoked, or never were.
    /// Whether the time of one has run out is not looked at.
    fn void(&self, tokens: Vec<TokenHash>) -> Reply<Vec<TokenHash>>;

    /// A user, what they are, and the rooms they are in. `NotFound` for an unknown user.
    fn account(&self, user: UserId) -> Reply<Account>;

    /// Notes when sessions and tokens were last used. Unknown ones are passed over.
    fn touch(&self, sessions: Vec<(TokenHash, Ms)>) -> Reply<()>;

    /// The user with a name's skeleton, if they have a password. `NotFound` otherwise.
    fn credentials(&self, skeleton: String) -> Reply<Credentials>;

    /// Makes a member of a guest, or of somebody new: with a password, and a session that takes the guest's
    /// place. With a link one of its uses is taken; an owner's link makes an owner.
    ///
    /// # Errors
    /// `NotFound` for a session or link that is not there (any more) or not for signing up; `Forbidden` if the
    /// user of the session is no guest; `NameTaken`; `Banned`.
    fn sign_up(
        &self,
        who: Applicant,
        password: String,
        link: Option<TokenHash>,
        session: NewSession,
    ) -> Reply<(Identity, Option<Ended>)>;

    /// Makes a session of a user, in place of the one that the same browser had (which stays, should it be of
    /// an earlier sign-in of somebody else's: it ends all the same).
    ///
    /// # Errors
    /// `NotFound` for an unknown user, `Banned`.
    fn sign_in(
        &self,
        user: UserId,
        session: NewSession,
        replaces: Option<TokenHash>,
    ) -> Reply<(Identity, Option<Ended>)>;

    /// Ends a session, or all of its user. `NotFound` if there is none.
    fn sign_out(&self, session: TokenHash, everywhere: bool) -> Reply<Ended>;

    /// Sets the password of the user of a session, who has one already, and ends the user's other sessions.
    /// `NotFound` if there is no such session or no password yet.
    fn set_password(&self, session: TokenHash, password: String) -> Reply<Ended>;

    /// What a link is for; nothing is taken. `NotFound` for one that does not work (any more).
    fn link(&self, secret: TokenHash, at: Ms) -> Reply<Link>;

    /// Takes a link to reset a password: sets it, ends all sessions of its user, and makes a new one.
    /// `NotFound` for any other link, `Banned`.
    fn reset_password(
        &self,
        link: TokenHash,
        password: String,
        session: NewSession,
    ) -> Reply<(Identity, Ended)>;

    /// Takes the owner's link for the user of a session, who has a password. `NotFound` for any other link,
    /// or no such session; `Forbidden` for a guest.
    fn take_ownership(&self, link: TokenHash, session: TokenHash, at: Ms) -> Reply<Identity>;

    /// Keeps the hash of a link that makes an owner, in place of an earlier one, unless there is an owner and
    /// not `always`. True if it was kept; an earlier one does not work any more in any case.
    fn offer_ownership(&self, secret: TokenHash, at: Ms, until: Ms, always: bool) -> Reply<bool>;

    /// Does what a user wants done, all of it or nothing, and notes in the audit log what is to be answered
    /// for (each act that needs a right and is about others, a role, the server).
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `TooMany`, `TooManyRooms`, `NameTaken`, `Banned`; `Blocked` to invite somebody
    /// where one of the two has blocked the other; `NotMember` for a target that is not in the room.
    fn act(&self, by: UserId, act: Act, made: Made, at: Ms) -> Reply<Outcome>;

    /// The rows of a list, at most `ROWS_MAX`. `NotFound` for a room that the asker may not see, `Forbidden`.
    fn list(&self, by: UserId, query: ListQuery) -> Reply<Vec<Entry>>;

    /// The addresses that are banned.
    fn address_bans(&self, at: Ms) -> Reply<Vec<AddressBan>>;

    /// All webhooks that messages are posted to, except of rooms that their makers may not see any more. A new
    /// one begins at its room's head.
    fn outgoing_hooks(&self) -> Reply<Vec<OutgoingHook>>;

    /// Notes that a webhook has had all messages up to a `seq`, and what to say of the last delivery.
    fn hook_done(&self, id: u64, done: Seq, last: Line) -> Reply<()>;

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

    /// Makes a public or private room with `user` as its owner and first member and a `Created` event. Names
    /// of private rooms may be the same as others.
    ///
    /// # Errors
    /// `NameTaken`; `Forbidden`; `TooManyRooms` if the user is in `rooms_max` rooms (0 is no limit), the lobby
    /// not counted.
    fn create_room(
        &self,
        id: RoomId,
        kind: RoomKind,
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
    /// `NotFound` for an unknown peer, `Blocked`, `TooManyRooms` as in `create_room` (for `user` only).
    fn open_direct(&self, id: RoomId, user: UserId, peer: UserId, rooms_max: usize, at: Ms)
    -> Reply<Entered>;

    /// Opens the group of a user and others: the one that just these are in, or a new one, with a `Created` by
    /// `user`, who owns it. The others are at least two, and at most `GROUP_MAX - 1`.
    ///
    /// # Errors
    /// `NotFound` for an unknown user, `Blocked`, `TooMany`, `TooManyRooms` (for `user` only).
    fn open_group(
        &self,
        id: RoomId,
        user: UserId,
        others: Vec<UserId>,
        rooms_max: usize,
        at: Ms,
    ) -> Reply<Entered>;

    /// Makes a user a member of a public room, with a `Joined` event. A member stays one, whatever the
    /// room's kind. `room` is looked up as an id first, then by the name's skeleton.
    ///
    /// # Errors
    /// `NotFound` for an unknown room and, in the same way, for a room of others that is not public;
    /// `TooManyRooms`.
    fn join(&self, room: RoomKey, user: UserId, rooms_max: usize, at: Ms) -> Reply<Entered>;

    /// Ends a membership, with a `Left` event; `None` if there was none in a public room. A direct
    /// conversation stays: leaving it is `NotFound`, as is leaving the lobby or a room one cannot see. If its
    /// owner leaves, the room is the one's who has been in it longest.
    fn leave(&self, room: RoomId, user: UserId, at: Ms) -> Reply<Option<Event>>;

    /// A room as a member sees it. `NotFound` for anyone else.
    fn room_info(&self, room: RoomId, user: UserId) -> Reply<RoomInfo>;

    /// Moves a reader's cursor forward to `seq`, at most to the room's head; never back, and not at all if
    /// `version` is older than the cursor's. Answers with the cursor as it stands.
    ///
    /// # Errors
    /// `NotFound` if the user is not a member.
    fn mark_read(&self, room: RoomId, user: UserId, seq: Seq, version: Option<u32>) -> Reply<Cursor>;

    /// The members of a room by name, at most `limit`, and how many there are. Not for the lobby, whose
    /// answer is empty. `NotFound` for an unknown room.
    fn members(&self, room: RoomId, limit: usize) -> Reply<(Vec<User>, u32)>;

    /// The public rooms, most members first, at most `limit`. The lobby counts everyone.
    fn directory(&self, user: UserId, limit: usize) -> Reply<Vec<Listing>>;

    /// The epoch and head of each room that exists, in any order.
    fn heads(&self, rooms: Vec<RoomId>) -> Reply<Vec<(RoomId, u32, Seq)>>;

    /// A secret of this store, made at its first start and the same ever after.
    fn secret(&self) -> [u8; 32];

    /// Whether other processes may use the same data at the same time.
    fn is_shared(&self) -> bool;

    /// Takes what only one process at a time may have until `until`, or keeps it, unless another holder has it at
    /// `at`. True if `holder` has it now. Clocks that differ can make it change hands early.
    fn lease(&self, name: &'static str, holder: u64, at: Ms, until: Ms) -> Reply<bool>;

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
