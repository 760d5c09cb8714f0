//! Outgoing webhooks: posts each message of a room to the addresses that its keepers named, in order, and again
//! until it is taken or an hour has passed.
//!
//! Where a hook stands is in the store, so that a restart loses nothing; a message can come twice, under the
//! same `X-Magpie-Delivery`. It must not know sessions or sockets.

mod post;
mod target;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use shared::model::{Line, RoomId};
use shared::protocol::{Event, EventKind, encode};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::engine::wall_clock;
use crate::store::{OutgoingHook, Store, StoreError};
use post::{Poster, Undelivered};

/// Deliveries under way at once.
const AT_ONCE_MAX: usize = 8;
/// Events read at once.
const PAGE: usize = 50;
/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10 * 60);
/// How long one message is tried.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// How often a room is looked into although nothing was heard of it: a hint may be lost.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The pause after the store did not answer.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// All webhooks of a server, each with a task of its own. Lives on one thread, inside a `LocalSet`.
pub struct Hooks {
    store: Arc<dyn Store>,
    poster: Rc<Poster>,
    turns: Rc<Semaphore>,
    running: HashMap<u64, Running>,
}

struct Running {
    hook: Rc<RefCell<OutgoingHook>>,
    wake: Rc<Notify>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hooks {
    pub fn new(store: Arc<dyn Store>, allow_private: bool) -> Self {
        let (poster, turns) = (Rc::new(Poster::new(allow_private)), Rc::new(Semaphore::new(AT_ONCE_MAX)));
        Self { store, poster, turns, running: HashMap::new() }
    }

    /// These are all there are now.
    pub fn set(&mut self, hooks: Vec<OutgoingHook>) {
        self.running.retain(|id, _| hooks.iter().any(|hook| hook.id == *id));
        for hook in hooks {
            match self.running.get(&hook.id) {
                // Where it stands its task knows best.
                Some(running) => running.hook.borrow_mut().own = hook.own,
                None => drop(self.running.insert(hook.id, self.start(hook))),
            }
        }
    }

    /// The rooms that have webhooks.
    pub fn rooms(&self) -> impl Iterator<Item = RoomId> {
        self.running.values().map(|running| running.hook.borrow().room)
    }

    /// Something happened in a room.
    pub fn wake(&self, room: RoomId) {
        for running in self.running.values().filter(|running| running.hook.borrow().room == room) {
            running.wake.notify_one();
        }
    }

    fn start(&self, hook: OutgoingHook) -> Running {
        let (hook, wake) = (Rc::new(RefCell::new(hook)), Rc::new(Notify::new()));
        let delivery = Delivery {
            hook: hook.clone(),
            wake: wake.clone(),
            store: self.store.clone(),
            poster: self.poster.clone(),
            turns: self.turns.clone(),
            failing: None,
        };
        Running { hook, wake, task: spawn_local(delivery.run()).abort_handle() }
    }
}

/// The task of one webhook.
struct Delivery {
    hook: Rc<RefCell<OutgoingHook>>,
    wake: Rc<Notify>,
    store: Arc<dyn Store>,
    poster: Rc<Poster>,
    turns: Rc<Semaphore>,
    /// Since when the message is tried that comes next, and how often it was.
    failing: Option<(Instant, u32)>,
}

impl Delivery {
    async fn run(mut self) {
        loop {
            let (room, done) = (self.hook.borrow().room, self.hook.borrow().done);
            // Read again after each failure: a message may have been deleted meanwhile.
            match self.store.events_after(room, done, PAGE).await {
                Ok(page) if page.events.is_empty() => {
                    let _ = timeout(LOOK_EVERY, self.wake.notified()).await;
                }
                Ok(page) => {
                    for event in page.events {
                        if !self.take(event).await {
                            break;
                        }
                    }
                }
                // The room is gone, and the hook with it.
                Err(StoreError::NotFound) => return,
                Err(error) => {
                    tracing::warn!(%error, "a webhook waits for the store");
                    sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    /// Deals with the next event; false if it has to be tried again.
    async fn take(&mut self, event: Event) -> bool {
        if !is_due(&self.hook.borrow(), &event) {
            self.hook.borrow_mut().done = event.seq;
            // It may have been due when it failed, and been deleted since.
            self.failing = None;
            return true;
        }
        let hook = self.hook.borrow().clone();
        let (seq, id) = (event.seq, hook.id);
        let posted = {
            let _turn = self.turns.acquire().await;
            let at = wall_clock(SystemTime::now()) / 1_000;
            let (headers, body) = request(&hook, &event, at);
            self.poster.post(&hook.url, &headers, body).await
        };
        let (started, attempts) = self.failing.unwrap_or((Instant::now(), 0));
        let attempts = attempts + 1;
        let (is_over, said) = match posted {
            Ok(status) => (true, format!("delivered ({status})")),
            Err(why) => {
                let is_over = !why.may_pass() || started.elapsed() + pause(attempts) > PATIENCE;
                (is_over, complaint(&why, is_over, attempts, seq))
            }
        };
        if is_over {
            self.failing = None;
            self.hook.borrow_mut().done = seq;
        } else {
            self.failing = Some((started, attempts));
        }
        let done = self.hook.borrow().done;
        if let Err(error) = self.store.hook_done(id, done, Line::new(&said)).await {
            tracing::warn!(%error, hook = id, "where a webhook stands was not noted");
        }
        if !is_over {
            sleep(pause(attempts)).await;
        }
        is_over
    }
}

/// Whether an event is posted: a message, and not of a program that a hook of the room could have moved to say
/// it, or two would talk to each other for ever.
fn is_due(hook: &OutgoingHook, event: &Event) -> bool {
    matches!(event.kind, EventKind::Message { .. }) && !hook.own.contains(&event.user.id)
}

/// What those who keep the room are told.
fn complaint(why: &Undelivered, is_over: bool, attempts: u32, seq: u64) -> String {
    match (is_over, attempts) {
        (true, 1) => format!("gave up message {seq}: {why}"),
        (true, _) => format!("gave up message {seq} after {attempts} attempts: {why}"),
        (false, _) => format!("attempt {attempts} at message {seq} failed: {why}"),
    }
}

fn pause(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

/// The headers and the body of a delivery. `at`: seconds since 1970.
fn request(hook: &OutgoingHook, event: &Event, at: i64) -> (Vec<(&'static str, String)>, Bytes) {
    let body = encode(event);
    let headers = vec![
        ("x-magpie-signature", format!("sha256={}", signature(&hook.secret, at, &body))),
        ("x-magpie-timestamp", at.to_string()),
        ("x-magpie-delivery", format!("{}-{}", hook.id, event.seq)),
    ];
    (headers, body.into())
}

/// HMAC-SHA-256 (RFC 2104) of `TIMESTAMP.BODY` in hexadecimal. The key is the secret as it was shown: text.
fn signature(secret: &[u8; 32], at: i64, body: &str) -> String {
    let shown = BASE64_URL_SAFE_NO_PAD.encode(secret);
    // A key shorter than a block is filled up with zeros (§2).
    let mut key = [0; 64];
    key[..shown.len()].copy_from_slice(shown.as_bytes());
    let mut mac = Hmac::<Sha256>::new(&key.into());
    mac.update(format!("{at}.").as_bytes());
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::model::{Body, UserId, UserName};
    use shared::protocol::User;

    fn hook() -> OutgoingHook {
        let url = "https://a.example/".into();
        let own = vec![UserId::from_bits(9)];
        OutgoingHook { id: 3, room: RoomId::from_bits(7), url, secret: [1; 32], done: 0, own }
    }

    fn event(user: u64, kind: EventKind) -> Event {
        let user = User { id: UserId::from_bits(user), name: UserName::parse("Ada").unwrap() };
        Event { room: RoomId::from_bits(7), seq: 12, at: 5, user, kind, reference: None }
    }

    fn message() -> EventKind {
        EventKind::message(Body::parse("tea?", 0).unwrap())
    }

    #[test]
    fn messages_are_posted_but_not_those_of_its_own_programs() {
        assert!(is_due(&hook(), &event(1, message())));
        assert!(!is_due(&hook(), &event(9, message())));
        assert!(
            !is_due(&hook(), &event(1, EventKind::Deleted)) && !is_due(&hook(), &event(1, EventKind::Joined))
        );
    }

    #[test]
    fn a_delivery_is_signed_with_the_shown_secret() {
        let (headers, body) = request(&hook(), &event(1, message()), 1_700_000_000);
        let header = |name| headers.iter().find(|(other, _)| *other == name).unwrap().1.as_str();
        assert_eq!((header("x-magpie-timestamp"), header("x-magpie-delivery")), ("1700000000", "3-12"));
        // As `hmac.new(b"AQEB…", b"1700000000." + body, "sha256").hexdigest()` says in Python.
        assert_eq!(
            header("x-magpie-signature"),
            "sha256=c34d624cabc137d23fc6c939040e96d87475d2dca79bdb08ec0be49ba2078d39"
        );
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&body["body"], &body["seq"], &body["user"]["name"]),
            (&"tea?".into(), &12.into(), &"Ada".into())
        );
    }

    #[test]
    fn pauses_grow_to_ten_minutes() {
        let seconds = [1, 2, 3, 4, 10, 11, 40].map(|attempts| pause(attempts).as_secs());
        assert_eq!(seconds, [1, 2, 4, 8, 512, 600, 600]);
    }
}
