//! People for the clauses: users of each role, and what they do.

use std::sync::atomic::{AtomicU64, Ordering};

use shared::acts::{Act, Entry, List};
use shared::model::{Line, Ms, RoomId, Seq, UserId};
use shared::protocol::{EventKind, RoomKind, User};
use shared::rights::Role;

use super::{guest, log, ok, room_claim, token, wait};
use crate::store::{Applicant, ListQuery, Made, NewSession, Outcome, Store, StoreError, TokenHash};

/// The time at which people act where a clause does not say.
pub const NOW: Ms = 1_000_000;
/// The first owner of the server.
const BOSS: u64 = 900;

/// The session that a user with an id has once they have a password.
pub fn session(id: u64) -> TokenHash {
    token(1_000 + id)
}

pub fn new_session(id: u64) -> NewSession {
    NewSession::of(session(id), NOW)
}

/// A user with a password.
pub fn member(store: &dyn Store, id: u64, name: &str) -> User {
    let user = guest(store, id, name);
    ok(store.sign_up(Applicant::Guest(token(id)), format!("hash of {name}"), None, new_session(id)));
    user
}

/// The server's first owner.
pub fn boss(store: &dyn Store) -> User {
    let user = UserId::from_bits(BOSS);
    if let Ok(account) = wait(store.account(user)) {
        return account.user;
    }
    let boss = member(store, BOSS, "Boss");
    assert!(ok(store.offer_ownership(token(5_000), NOW, NOW + 1, false)));
    assert_eq!(ok(store.take_ownership(token(5_000), session(BOSS), NOW)).role, Role::Owner);
    boss
}

/// A user of a role.
pub fn person(store: &dyn Store, id: u64, name: &str, role: Role) -> User {
    if role == Role::Guest {
        return guest(store, id, name);
    }
    let user = member(store, id, name);
    if role > Role::Member {
        done(store, &boss(store), Act::SetRole { user: user.id, role });
    }
    user
}

/// A private room of a user, with others in it.
pub fn private(store: &dyn Store, id: u64, name: &str, owner: &User, others: &[&User]) -> RoomId {
    let id = RoomId::from_bits(id);
    ok(store.create_room(id, RoomKind::Private, room_claim(name), owner.id, 0, NOW));
    for other in others {
        done(store, owner, Act::Invite { room: id, user: other.id });
    }
    id
}

/// What is made by an act that is tried now.
fn made() -> Made {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    Made { session: token(0), id: 10_000_000 + next, secret: token(10_000_000 + next) }
}

pub fn act_at(store: &dyn Store, by: &User, act: Act, at: Ms) -> Result<Outcome, StoreError> {
    wait(store.act(by.id, act, made(), at))
}

pub fn act(store: &dyn Store, by: &User, what: Act) -> Result<Outcome, StoreError> {
    act_at(store, by, what, NOW)
}

/// An act that is done.
pub fn done(store: &dyn Store, by: &User, what: Act) -> Outcome {
    act(store, by, what).unwrap()
}

/// An act that makes a secret, and what it made.
pub fn make(store: &dyn Store, by: &User, what: Act, at: Ms) -> Result<(TokenHash, Outcome), StoreError> {
    let made = made();
    wait(store.act(by.id, what, made, at)).map(|outcome| (made.secret, outcome))
}

/// A question for the rows of a list.
pub fn question(list: List) -> ListQuery {
    ListQuery { list, room: None, text: Line::default(), before: None, session: token(0), at: NOW }
}

pub fn rows(store: &dyn Store, by: &User, list: List) -> Vec<Entry> {
    ok(store.list(by.id, question(list)))
}

/// The only event of an outcome, which stands at the end of its room's log.
pub fn told(store: &dyn Store, outcome: &Outcome) -> EventKind {
    assert_eq!(outcome.events.len(), 1);
    let event = &outcome.events[0];
    assert_eq!(log(store, event.room).last(), Some(event));
    event.kind.clone()
}

/// The kind of what stands at a place.
pub fn kind_at(store: &dyn Store, room: RoomId, seq: Seq) -> EventKind {
    log(store, room)[seq as usize - 1].kind.clone()
}
