//! A hub's questions as calls of the store, and the store's replies as answers for the hub.
//!
//! It must not know who asks, or what follows from an answer.

use std::pin::Pin;

use crate::hub::{Answer, Query};
use crate::store::{Store, StoreError};

/// Asks a store what a hub wants to know.
pub fn query_store(
    store: &dyn Store,
    query: Query,
) -> Pin<Box<dyn Future<Output = Result<Answer, StoreError>> + Send>> {
    macro_rules! call {
        ($reply:expr, $answer:expr) => {{
            let reply = $reply;
            Box::pin(async move { reply.await.map($answer) })
        }};
    }
    match query {
        Query::EventsAfter { room, after, limit } => {
            call!(store.events_after(room, after, limit), Answer::Page)
        }
        Query::EventsBefore { room, before, limit } => {
            call!(store.events_before(room, before, limit), Answer::Page)
        }
        Query::Identify { session, newcomer } => call!(store.identify(session, newcomer), Answer::Identity),
        Query::Touch { sessions } => call!(store.touch(sessions), |()| Answer::Touched),
        Query::Void { tokens } => call!(store.void(tokens), Answer::Void),
        Query::Account { user } => call!(store.account(user), Answer::Account),
        Query::Rename { user, name, tell_lobby, at } => {
            call!(store.rename(user, name, tell_lobby, at), |(user, events)| Answer::Renamed(user, events))
        }
        Query::CreateRoom { id, kind, name, user, rooms_max, at } => {
            call!(store.create_room(id, kind, name, user, rooms_max, at), Answer::Entered)
        }
        Query::OpenDirect { id, user, peer, rooms_max, at } => {
            call!(store.open_direct(id, user, peer, rooms_max, at), Answer::Entered)
        }
        Query::OpenGroup { id, user, others, rooms_max, at } => {
            call!(store.open_group(id, user, others, rooms_max, at), Answer::Entered)
        }
        Query::Act { by, act, made, at } => call!(store.act(by, act, made, at), Answer::Outcome),
        Query::List { by, query } => call!(store.list(by, query), Answer::Rows),
        Query::Join { room, user, rooms_max, at } => {
            call!(store.join(room, user, rooms_max, at), Answer::Entered)
        }
        Query::Leave { room, user, at } => call!(store.leave(room, user, at), Answer::Left),
        Query::RoomInfo { room, user } => call!(store.room_info(room, user), Answer::Info),
        Query::MarkRead { room, user, seq, version } => {
            call!(store.mark_read(room, user, seq, version), Answer::Read)
        }
        Query::Members { room, limit } => {
            call!(store.members(room, limit), |(users, total)| Answer::Members(users, total))
        }
        Query::Directory { user, limit } => call!(store.directory(user, limit), Answer::Directory),
        Query::Heads { rooms } => call!(store.heads(rooms), Answer::Heads),
    }
}
