//! The contract of [`Store`] as calls of the reader's and the writer's functions, on whatever medium.

use shared::acts::{Act, Entry};
use shared::model::{Claim, Line, Ms, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{Event, Listing, RoomInfo, RoomKind, User};

use super::{Medium, Writer, read};
use crate::store::{
    Account, AddressBan, Append, Appended, Applicant, Credentials, Cursor, Ended, Entered, Identity, Link,
    ListQuery, Made, NewSession, Newcomer, Outcome, OutgoingHook, Page, Reply, RoomKey, Store, StoreError,
    TokenHash,
};

impl<M: Medium> Store for M {
    fn append(&self, batch: Vec<Append>) -> Reply<Vec<Result<Appended, StoreError>>> {
        self.write(batch.len().max(1), move |writer| writer.append(batch))
    }

    fn events_after(&self, room: RoomId, after: Seq, limit: usize) -> Reply<Page> {
        self.read(move |connection| read::events_after(connection, room, after, limit))
    }

    fn events_before(&self, room: RoomId, before: Seq, limit: usize) -> Reply<Page> {
        self.read(move |connection| read::events_before(connection, room, before, limit))
    }

    fn identify(&self, session: NewSession, newcomer: Option<Newcomer>) -> Reply<Identity> {
        let NewSession { token, at, .. } = session;
        // A session that exists, which is nearly every one, costs no write.
        self.write_after(
            move |connection| match (read::identity(connection, &token)?, newcomer) {
                (Some(identity), _) => Ok(Ok(identity)),
                (None, Some(newcomer)) => Ok(Err(newcomer)),
                (None, None) => Err(StoreError::NotFound.into()),
            },
            move |writer, Newcomer { id, names }| writer.identify(token, id, &names, at),
        )
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
        _kind: RoomKind,
        name: Claim<RoomName>,
        user: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Reply<Entered> {
        self.write(1, move |writer| writer.create_room(id, name, user, rooms_max, at))
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

    fn mark_read(&self, room: RoomId, user: UserId, seq: Seq, _version: Option<u32>) -> Reply<Cursor> {
        self.write(1, move |writer| writer.mark_read(room, user, seq))
    }

    fn members(&self, room: RoomId, limit: usize) -> Reply<(Vec<User>, u32)> {
        self.read(move |connection| read::members(connection, room, limit))
    }

    fn directory(&self, user: UserId, limit: usize) -> Reply<Vec<Listing>> {
        self.read(move |connection| read::directory(connection, user, limit))
    }

    fn heads(&self, rooms: Vec<RoomId>) -> Reply<Vec<(RoomId, u32, Seq)>> {
        self.read(move |connection| {
            let mut heads = Vec::with_capacity(rooms.len());
            for room in rooms {
                if let Some((epoch, head)) = read::head(connection, room)? {
                    heads.push((room, epoch, head));
                }
            }
            Ok(heads)
        })
    }

    fn secret(&self) -> [u8; 32] {
        Medium::secret(self)
    }

    fn check(&self) -> Reply<()> {
        let write = self.write(1, Writer::check);
        let read = self.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?));
        Box::pin(async move {
            write.await?;
            read.await
        })
    }

    fn open_group(&self, _: RoomId, _: UserId, _: Vec<UserId>, _: usize, _: Ms) -> Reply<Entered> {
        refuse()
    }
    fn touch(&self, _: Vec<(TokenHash, Ms)>) -> Reply<()> {
        refuse()
    }
    fn credentials(&self, _: String) -> Reply<Credentials> {
        refuse()
    }
    fn sign_up(
        &self,
        _: Applicant,
        _: String,
        _: Option<TokenHash>,
        _: NewSession,
    ) -> Reply<(Identity, Option<Ended>)> {
        refuse()
    }
    fn sign_in(&self, _: UserId, _: NewSession, _: Option<TokenHash>) -> Reply<(Identity, Option<Ended>)> {
        refuse()
    }
    fn sign_out(&self, _: TokenHash, _: bool) -> Reply<Ended> {
        refuse()
    }
    fn set_password(&self, _: TokenHash, _: String) -> Reply<Ended> {
        refuse()
    }
    fn link(&self, _: TokenHash, _: Ms) -> Reply<Link> {
        refuse()
    }
    fn reset_password(&self, _: TokenHash, _: String, _: NewSession) -> Reply<(Identity, Ended)> {
        refuse()
    }
    fn take_ownership(&self, _: TokenHash, _: TokenHash, _: Ms) -> Reply<Identity> {
        refuse()
    }
    fn offer_ownership(&self, _: TokenHash, _: Ms, _: Ms) -> Reply<bool> {
        refuse()
    }
    fn act(&self, _: UserId, _: Act, _: Made, _: Ms) -> Reply<Outcome> {
        refuse()
    }
    fn list(&self, _: UserId, _: ListQuery) -> Reply<Vec<Entry>> {
        refuse()
    }
    fn address_bans(&self, _: Ms) -> Reply<Vec<AddressBan>> {
        refuse()
    }
    fn outgoing_hooks(&self) -> Reply<Vec<OutgoingHook>> {
        refuse()
    }
    fn hook_done(&self, _: u64, _: Seq, _: Line) -> Reply<()> {
        refuse()
    }
}

fn refuse<T: Send + 'static>() -> Reply<T> {
    Box::pin(std::future::ready(Err(StoreError::Forbidden)))
}
