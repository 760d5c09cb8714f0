//! What every store must do, clause by clause of the contract in `store.rs`. Each adapter runs all of it.
//!
//! A clause gets a function that opens the same store again and again. It must not know which one it is.

use std::sync::Arc;

use shared::model::{Body, Claim, Ms, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{Event, EventKind, RoomKind, User};
use uuid::Uuid;

use super::{
    Append, Appended, Cursor, Identity, NewSession, Newcomer, Reply, RoomKey, Store, StoreError, TokenHash,
};

/// Opens the store under test; what was written before must be in it. Handles of before are gone by then.
type Open<'a> = &'a dyn Fn() -> Arc<dyn Store>;

macro_rules! suite {
    ($($clause:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $clause() {
                let store = crate::store::memory::MemoryStore::new([7; 32]);
                super::$clause(&|| std::sync::Arc::new(store.clone()));
            })*
        }
        mod sqlite {
            $(#[test] fn $clause() {
                let dir = tempfile::tempdir().unwrap();
                let open = || crate::store::sqlite::SqliteStore::open(dir.path()).unwrap();
                super::$clause(&|| std::sync::Arc::new(open()));
            })*
        }
        mod postgres {
            $(#[test] fn $clause() {
                let Some(server) = crate::store::postgres::tests::server::shared() else { return };
                let address = server.database();
                let open = || crate::store::postgres::PostgresStore::open(&address).unwrap();
                super::$clause(&|| std::sync::Arc::new(open()));
            })*
        }
    };
}

mod accounts;
mod bots;
mod cursors;
pub(super) mod everything;
mod guests;
mod leases;
mod log;
mod membership;
mod moderation;
mod people;
mod reading;
mod rights;
mod rooms;

pub(super) fn wait<T>(reply: Reply<T>) -> Result<T, StoreError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(reply)
}

fn ok<T>(reply: Reply<T>) -> T {
    wait(reply).unwrap()
}

pub(super) fn user_claim(name: &str) -> Claim<UserName> {
    UserName::claim(name).unwrap()
}

fn room_claim(name: &str) -> Claim<RoomName> {
    RoomName::claim(name).unwrap()
}

/// Makes the user with an id, whose session token follows from it.
pub(super) fn guest(store: &dyn Store, id: u64, name: &str) -> User {
    let identity = ok(identify_in(store, token(id), UserId::from_bits(id), vec![user_claim(name)], 1));
    assert!(identity.fresh);
    identity.user
}

/// Asks whose a session is, or makes it.
fn identify_in(
    store: &dyn Store,
    token: TokenHash,
    id: UserId,
    names: Vec<Claim<UserName>>,
    at: Ms,
) -> Reply<Identity> {
    store.identify(NewSession::of(token, at), Some(Newcomer { id, names }))
}

/// The place of a cursor and what is unread after it.
fn read(reply: Reply<Cursor>) -> (Seq, u32) {
    let cursor = ok(reply);
    (cursor.seq, cursor.unread)
}

fn token(id: u64) -> [u8; 32] {
    let mut token = [0; 32];
    token[..8].copy_from_slice(&id.to_le_bytes());
    token
}

fn room(store: &dyn Store, id: u64, name: &str, user: &User) -> RoomId {
    ok(store.create_room(RoomId::from_bits(id), RoomKind::Public, room_claim(name), user.id, 0, 2)).info.id
}

fn enter(store: &dyn Store, room: RoomId, user: &User) {
    ok(store.join(by_id(room), user.id, 0, 3));
}

fn by_id(room: RoomId) -> RoomKey {
    RoomKey { id: Some(room), skeleton: None }
}

fn reference(bits: u128) -> Ref {
    Ref(Uuid::from_u128(bits))
}

pub(super) fn message(room: RoomId, author: &User, body: &str, reference: Option<Ref>) -> Append {
    let kind = EventKind::message(Body::parse(body, 0).unwrap());
    Append { room, author: author.clone(), at: 10, kind, reference }
}

pub(super) fn append(store: &dyn Store, append: Append) -> Result<Appended, StoreError> {
    ok(store.append(vec![append])).remove(0)
}

pub(super) fn say(store: &dyn Store, room: RoomId, author: &User, body: &str) -> Event {
    append(store, message(room, author, body, None)).unwrap().event
}

pub(super) fn log(store: &dyn Store, room: RoomId) -> Vec<Event> {
    ok(store.events_after(room, 0, usize::MAX)).events
}

fn seqs(events: &[Event]) -> Vec<Seq> {
    events.iter().map(|event| event.seq).collect()
}

/// The texts of the messages among events.
fn bodies(events: &[Event]) -> Vec<&str> {
    fn body(event: &Event) -> Option<&str> {
        match &event.kind {
            EventKind::Message { body, .. } => Some(body.as_str()),
            _ => None,
        }
    }
    events.iter().filter_map(body).collect()
}
