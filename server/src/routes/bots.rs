//! `/api/rooms/ROOM/messages` and `/api/hooks/SECRET`: messages by programs that hold a token or an address.
//!
//! What a token allows is looked at here, who may write where in the store. It must not know cookies.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Buf;
use futures_util::stream::Stream;
use serde::{Deserialize, Serialize};
use shared::acts::Scope;
use shared::model::{Body, Ms, Ref, RoomId, RoomName, Seq};
use shared::protocol::{ErrorCode, Event, EventKind, PAGE_EVENTS_MAX, RoomKind};
use warp::Filter;
use warp::http::{HeaderMap, Method, StatusCode};
use warp::reject::Rejection;
use warp::reply::Response;

use super::cookies::bearer;
use super::json::{Problem, answer, expect_json, parse, read};
use super::{Context, text};
use crate::addresses::Client;
use crate::engine::wall_clock;
use crate::handshake::is_origin_allowed;
use crate::secrets::Secret;
use crate::store::{Append, Appended, Identity, NewSession, StoreError, TokenHash};

/// A message to be written. Its `ref` makes a repeat harmless.
#[derive(Deserialize)]
struct Message {
    body: String,
    #[serde(rename = "ref")]
    reference: Option<Ref>,
}

/// Where a message stands.
#[derive(Serialize)]
struct Written {
    room: RoomId,
    seq: Seq,
    at: Ms,
    #[serde(rename = "ref")]
    reference: Option<Ref>,
}

/// A part of a room's log, oldest first.
#[derive(Serialize)]
struct Messages {
    room: RoomId,
    epoch: u32,
    head: Seq,
    events: Vec<Event>,
}

/// What Slack's incoming webhooks take, as far as it is text.
#[derive(Deserialize)]
struct Payload {
    text: String,
}

/// What is asked for.
enum Target {
    Room(String),
    Hook(String),
}

/// A request, besides its body.
struct Call<'a> {
    context: &'a Context,
    client: Client,
    method: Method,
    headers: HeaderMap,
    query: String,
    /// The time of day.
    at: Ms,
}

/// These endpoints; other paths are left to other filters.
pub(super) fn filter(context: Arc<Context>) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    let target = warp::path!("api" / "rooms" / String / "messages")
        .map(Target::Room)
        .or(warp::path!("api" / "hooks" / String).map(Target::Hook))
        .unify();
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    target
        .and(warp::method())
        .and(warp::ext::get::<Client>())
        .and(warp::header::headers_cloned())
        .and(query)
        .and(warp::body::stream())
        .then(move |target, method, client, headers, query, body| {
            let context = context.clone();
            async move {
                let at = wall_clock(SystemTime::now());
                let call = Call { context: &context, client, method, headers, query, at };
                call.answer(target, body).await.unwrap_or_else(|problem| problem.response())
            }
        })
}

impl Call<'_> {
    async fn answer<S, B, E>(&self, target: Target, body: S) -> Result<Response, Problem>
    where
        S: Stream<Item = Result<B, E>>,
        B: Buf,
    {
        self.context.api.request(self.client.address)?;
        match (target, &self.method) {
            (Target::Room(room), &Method::GET) => self.read_room(&room).await,
            (Target::Room(room), &Method::POST) => self.write(&room, body).await,
            (Target::Hook(secret), &Method::POST) => self.hook(&secret, body).await,
            (target, _) => {
                let allow = if matches!(target, Target::Room(_)) { "GET, POST" } else { "POST" };
                let message = "This address does not take that method.";
                let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadField, message);
                Err(Problem { allow: Some(allow), ..problem })
            }
        }
    }

    async fn write<S, B, E>(&self, room: &str, body: S) -> Result<Response, Problem>
    where
        S: Stream<Item = Result<B, E>>,
        B: Buf,
    {
        let token = self.token()?;
        let rules = self.context.rules.speaking(self.client.scheme);
        if !is_origin_allowed(&self.headers, &rules) {
            return Err(Problem::forbidden("Pages of another origin may not do that."));
        }
        expect_json(&self.headers)?;
        let body = read(body, self.context.max_frame_bytes).await?;
        let who = self.who(token, Scope::Send).await?;
        self.context.api.message(who.user.id)?;
        let Message { body, reference } = parse(&body)?;
        let body = Body::parse(&body, self.context.api.message_chars)?;
        let room = self.room(&who, room).await?;
        let Appended { event, first } = self.append(room, who, body, reference).await?;
        let status = if first { StatusCode::CREATED } else { StatusCode::OK };
        let Event { room, seq, at, reference, .. } = event;
        Ok(answer(status, &Written { room, seq, at, reference }))
    }

    async fn read_room(&self, room: &str) -> Result<Response, Problem> {
        let token = self.token()?;
        let who = self.who(token, Scope::Read).await?;
        self.context.api.look(token)?;
        let after = match self.query.split('&').find_map(|pair| pair.strip_prefix("after=")) {
            Some(after) => Some(after.parse::<Seq>().map_err(|_| {
                let message = "after=… is the seq of the last event you have.";
                Problem::new(StatusCode::BAD_REQUEST, ErrorCode::BadField, message)
            })?),
            None => None,
        };
        let (store, of_store) = (&self.context.store, |error| Problem::of_store(error, self.at));
        let room = self.room(&who, room).await?;
        // Only members have an answer.
        store.room_info(room, who.user.id).await.map_err(of_store)?;
        let page = match after {
            Some(after) => store.events_after(room, after, PAGE_EVENTS_MAX),
            None => store.events_before(room, Seq::MAX, PAGE_EVENTS_MAX),
        };
        let page = page.await.map_err(of_store)?;
        let messages = Messages { room, epoch: page.epoch, head: page.head, events: page.events };
        Ok(answer(StatusCode::OK, &messages))
    }

    async fn hook<S, B, E>(&self, secret: &str, body: S) -> Result<Response, Problem>
    where
        S: Stream<Item = Result<B, E>>,
        B: Buf,
    {
        let no_hook = || Problem::not_found("There is no such webhook.");
        let token = Secret::parse(secret).ok_or_else(no_hook)?.hash();
        let body = read(body, self.context.max_frame_bytes).await?;
        let identity = self.identify(token).await?.ok_or_else(no_hook)?;
        let room = identity.only_room.ok_or_else(no_hook)?;
        self.context.api.message(identity.user.id)?;
        self.touch(token).await;
        let Payload { text: said } = match body.strip_prefix(b"payload=") {
            // As older programs send it to Slack: JSON in a form.
            Some(form) => parse(&percent_decoded(&form.iter().map(plus_to_space).collect::<Vec<_>>()))?,
            None => parse(&body)?,
        };
        let body = Body::parse(&said, self.context.api.message_chars)?;
        self.append(room, identity, body, None).await?;
        Ok(text(StatusCode::OK, "ok"))
    }

    /// The token that the program brings.
    fn token(&self) -> Result<TokenHash, Problem> {
        bearer(&self.headers).flatten().ok_or_else(Problem::bad_token)
    }

    async fn identify(&self, token: TokenHash) -> Result<Option<Identity>, Problem> {
        match self.context.store.identify(NewSession::of(token, self.at), None).await {
            Ok(identity) => Ok(Some(identity)),
            Err(StoreError::NotFound | StoreError::Ended) => Ok(None),
            Err(error) => Err(Problem::of_store(error, self.at)),
        }
    }

    /// Whose the token is, if it allows what is asked.
    async fn who(&self, token: TokenHash, scope: Scope) -> Result<Identity, Problem> {
        let identity = self.identify(token).await?.filter(|identity| identity.only_room.is_none());
        let identity = identity.ok_or_else(Problem::bad_token)?;
        if identity.scopes.as_ref().is_some_and(|scopes| !scopes.contains(&scope)) {
            return Err(Problem::forbidden("The token does not allow that (see its scopes)."));
        }
        self.touch(token).await;
        Ok(identity)
    }

    /// Notes that a token was used. That it fails is nobody's loss.
    async fn touch(&self, token: TokenHash) {
        if self.context.api.is_touch_due(token)
            && let Err(error) = self.context.store.touch(vec![(token, self.at)]).await
        {
            tracing::debug!(%error, "the use of a token was not noted");
        }
    }

    /// A room by its id, or one that the program is in by its name.
    async fn room(&self, who: &Identity, text: &str) -> Result<RoomId, Problem> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let no_room = || Problem::of_store(StoreError::NotFound, self.at);
        let text = String::from_utf8(percent_decoded(text.as_bytes())).map_err(|_| no_room())?;
        let wanted = RoomName::claim(&text).map_err(|_| no_room())?.skeleton;
        let account = self.context.store.account(who.user.id).await;
        let account = account.map_err(|error| Problem::of_store(error, self.at))?;
        let is_wanted = |name: &RoomName| RoomName::claim(name.as_str()).is_ok_and(|n| n.skeleton == wanted);
        let named = account.rooms.iter().filter(|room| room.name.as_ref().is_some_and(is_wanted));
        // Private rooms may have the name of another.
        let room = named.min_by_key(|room| room.kind != RoomKind::Public);
        room.map(|room| room.id).ok_or_else(no_room)
    }

    async fn append(
        &self,
        room: RoomId,
        who: Identity,
        body: Body,
        reference: Option<Ref>,
    ) -> Result<Appended, Problem> {
        let reference = match reference {
            Some(reference) => reference,
            None => {
                let mut random = [0; 10];
                getrandom::fill(&mut random).map_err(|_| Problem::unavailable())?;
                Ref::new(self.at, random)
            }
        };
        let kind = EventKind::message(body);
        let append = Append { room, author: who.user, at: self.at, kind, reference: Some(reference) };
        let of_store = |error| Problem::of_store(error, self.at);
        let appended = self.context.store.append(vec![append]).await.map_err(of_store)?;
        let appended = appended.into_iter().next().ok_or_else(Problem::unavailable)?.map_err(of_store)?;
        if appended.first {
            self.context.publish_events(vec![appended.event.clone()]);
        }
        Ok(appended)
    }
}

fn plus_to_space(byte: &u8) -> u8 {
    if *byte == b'+' { b' ' } else { *byte }
}

/// `%XX` as the byte it stands for (RFC 3986 §2.1); what is no such code stays as it is.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16).map(|digit| digit as u8);
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_in_addresses_are_read() {
        for (text, decoded) in
            [("a%20b", "a b"), ("%C3%b6", "ö"), ("100%", "100%"), ("%zz%4", "%zz%4"), ("", "")]
        {
            assert_eq!(percent_decoded(text.as_bytes()), decoded.as_bytes(), "{text}");
        }
    }
}
