//! The contract of [`Store`] as calls of the reader's and the writer's functions, on whatever medium.

use shared::acts::{Act, Entry};
use shared::model::{Claim, Line, Ms, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{Event, Listing, RoomInfo, RoomKind, User};

use super::database::NONE;
use super::{Medium, Writer, bots, identities, lists, read};
use crate::store::{
    Account, AddressBan, Append, Appended, Applicant, Credentials, Cursor, Ended, Entered, Identity, Link,
    ListQuery, Made, NewSession, Newcomer, Outcome, OutgoingHook, Page, Reply, RoomKey, Store, StoreError,
    TokenHash,
};

/// The keys of small writes that are not of a user and a room: they come behind all that are.
const HOOKS: u64 = u64::MAX - 1;
const TOUCHES: (u64, u64) = (u64::MAX, 0);
const LEASES: (u64, u64) = (u64::MAX, 1);
const LAST: (u64, u64) = (u64::MAX, 2);

impl<M: Medium> Store for M {
    fn append(&self, batch: Vec<Append>) -> Reply<Vec<Result<Appended, StoreError>>> {
        self.write_appends(batch)
    }

    fn events_after(&self, room: RoomId, after: Seq, limit: usize) -> Reply<Page> {
        self.read(move |connection| read::events_after(connection, room, after, limit))
    }

    fn events_before(&self, room: RoomId, before: Seq, limit: usize) -> Reply<Page> {
        self.read(move |connection| read::events_before(connection, room, before, limit))
    }

    fn identify(&self, session: NewSession, newcomer: Option<Newcomer>) -> Reply<Identity> {
        // A session that exists, which is nearly every one, costs no write.
        self.write_after(
            move |connection| match (identities::identity(connection, &session.token, session.at)?, newcomer)
            {
                (Some(identity), _) => Ok(Ok(identity)),
                (None, Some(newcomer)) => Ok(Err((session, newcomer))),
                (None, None) => Err(StoreError::NotFound.into()),
            },
            |writer, (session, newcomer)| writer.identify(&session, &newcomer),
        )
    }

    fn void(&self, tokens: Vec<TokenHash>) -> Reply<Vec<TokenHash>> {
        self.read(move |connection| identities::void(connection, tokens))
    }

    fn account(&self, user: UserId) -> Reply<Account> {
        self.read(move |connection| read::account(connection, user))
    }

    fn rename(
        &self,
        user: UserId,
        name: Claim<UserName>,
        tell_lobby: bool,
        at: Ms,
    ) -> Reply<(User, Vec<Event>)> {
        self.write(1, move |writer| writer.rename(user, name, tell_lobby, at))
    }

    fn create_room(
        &self,
        id: RoomId,
        kind: RoomKind,
        name: Claim<RoomName>,
        user: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Reply<Entered> {
        self.write(1, move |writer| writer.create_room(id, kind, &name, user, rooms_max, at))
    }

    fn open_direct(
        &self,
        id: RoomId,
        user: UserId,
        peer: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Reply<Entered> {
        self.write(1, move |writer| writer.open_direct(id, user, peer, rooms_max, at))
    }

    fn join(&self, room: RoomKey, user: UserId, rooms_max: usize, at: Ms) -> Reply<Entered> {
        self.write(1, move |writer| writer.join(&room, user, rooms_max, at))
    }

    fn leave(&self, room: RoomId, user: UserId, at: Ms) -> Reply<Option<Event>> {
        self.write(1, move |writer| writer.leave(room, user, at))
    }

    fn room_info(&self, room: RoomId, user: UserId) -> Reply<RoomInfo> {
        self.read(move |connection| read::room_info(connection, room, user))
    }

    fn mark_read(&self, room: RoomId, user: UserId, seq: Seq, version: Option<u32>) -> Reply<Cursor> {
        let key = (user.bits(), room.bits());
        self.write_small(key, 1, move |writer| writer.mark_read(room, user, seq, version))
    }

    fn members(&self, room: RoomId, limit: usize) -> Reply<(Vec<User>, u32)> {
        self.read(move |connection| read::members(connection, room, limit))
    }

    fn directory(&self, user: UserId, limit: usize) -> Reply<Vec<Listing>> {
        self.read(move |connection| read::directory(connection, user, limit))
    }

    fn heads(&self, rooms: Vec<RoomId>) -> Reply<Vec<(RoomId, u32, Seq)>> {
        self.read(move |connection| read::heads(connection, rooms))
    }

    fn secret(&self) -> [u8; 32] {
        Medium::secret(self)
    }

    fn is_shared(&self) -> bool {
        Medium::is_shared(self)
    }

    fn lease(&self, name: &'static str, holder: u64, at: Ms, until: Ms) -> Reply<bool> {
        self.write_small(LEASES, 1, move |writer| writer.lease(name, holder, at, until))
    }

    fn check(&self) -> Reply<()> {
        let write = self.write_small(LAST, 1, Writer::check);
        let read = self.read(|connection| connection.prepare_cached("SELECT 1")?.query_row(NONE, |_| Ok(())));
        Box::pin(async move {
            write.await?;
            read.await
        })
    }

    fn open_group(
        &self,
        id: RoomId,
        user: UserId,
        others: Vec<UserId>,
        rooms_max: usize,
        at: Ms,
    ) -> Reply<Entered> {
        self.write(1, move |writer| writer.open_group(id, user, others, rooms_max, at))
    }

    fn touch(&self, sessions: Vec<(TokenHash, Ms)>) -> Reply<()> {
        self.write_small(TOUCHES, sessions.len().max(1), move |writer| writer.touch(sessions))
    }

    fn credentials(&self, skeleton: String) -> Reply<Credentials> {
        self.read(move |connection| identities::credentials(connection, &skeleton))
    }

    fn sign_up(
        &self,
        who: Applicant,
        password: String,
        link: Option<TokenHash>,
        session: NewSession,
    ) -> Reply<(Identity, Option<Ended>)> {
        self.write(1, move |writer| writer.sign_up(who, &password, link, &session))
    }

    fn sign_in(
        &self,
        user: UserId,
        session: NewSession,
        replaces: Option<TokenHash>,
    ) -> Reply<(Identity, Option<Ended>)> {
        self.write(1, move |writer| writer.sign_in(user, &session, replaces))
    }

    fn sign_out(&self, session: TokenHash, everywhere: bool) -> Reply<Ended> {
        self.write(1, move |writer| writer.sign_out(&session, everywhere))
    }

    fn set_password(&self, session: TokenHash, password: String) -> Reply<Ended> {
        self.write(1, move |writer| writer.set_password(&session, &password))
    }

    fn link(&self, secret: TokenHash, at: Ms) -> Reply<Link> {
        self.read(move |connection| identities::link(connection, &secret, at).map(|(_, link, _)| link))
    }

    fn reset_password(
        &self,
        link: TokenHash,
        password: String,
        session: NewSession,
    ) -> Reply<(Identity, Ended)> {
        self.write(1, move |writer| writer.reset_password(&link, &password, &session))
    }

    fn take_ownership(&self, link: TokenHash, session: TokenHash, at: Ms) -> Reply<Identity> {
        self.write(1, move |writer| writer.take_ownership(&link, &session, at))
    }

    fn offer_ownership(&self, secret: TokenHash, at: Ms, until: Ms, always: bool) -> Reply<bool> {
        self.write(1, move |writer| writer.offer_ownership(&secret, at, until, always))
    }

    fn act(&self, by: UserId, act: Act, made: Made, at: Ms) -> Reply<Outcome> {
        self.write(1, move |writer| writer.act(by, act, made, at))
    }

    fn list(&self, by: UserId, query: ListQuery) -> Reply<Vec<Entry>> {
        self.read(move |connection| lists::list(connection, by, &query))
    }

    fn address_bans(&self, at: Ms) -> Reply<Vec<AddressBan>> {
        self.read(move |connection| lists::address_bans(connection, at))
    }

    fn outgoing_hooks(&self) -> Reply<Vec<OutgoingHook>> {
        self.read(bots::outgoing_hooks)
    }

    fn hook_done(&self, id: u64, done: Seq, last: Line) -> Reply<()> {
        self.write_small((HOOKS, id), 1, move |writer| writer.hook_done(id, done, &last))
    }
}
