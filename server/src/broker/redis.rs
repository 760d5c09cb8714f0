//! The broker of a cluster: hints go through the pub/sub of a Redis server.
//!
//! Within a process it is a [`MemoryBroker`], so that its hubs hear each other at once and in order whatever
//! the network does. What is published is also put into a queue, which a thread of its own empties into
//! Redis; the same thread delivers what other processes publish. Redis may be gone, hang or lose what it is
//! given: then hints are dropped and counted, hubs find events by comparing heads with the store, the thread
//! connects again and again, and then those who may have missed something are told to look again. Nothing is
//! kept in Redis.
//!
//! Pub/sub gives each message to everyone who may connect to that Redis, and in plain text: it belongs
//! behind a password, in a network of one's own.

mod connection;
mod message;
mod outgoing;

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shared::model::UserId;
use tokio::sync::Notify;

use super::memory::MemoryBroker;
use super::{Broker, Counts, Hint, HubId, Sink, Topic, Trouble, Via};
use message::{Channels, Codec, Message};
use outgoing::{Changes, Outgoing};

/// The broker of one process. Share it between the hubs of the process in an `Arc`.
///
/// When it is dropped, what waits is sent for a moment yet.
pub struct RedisBroker {
    link: Arc<Link>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no broker. None of these says the password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the broker's address is not like redis://HOST:PORT, redis://:PASSWORD@HOST:PORT or \
         redis://USER:PASSWORD@HOST:PORT, with /DB at most behind it"
    )]
    Address,
    #[error("the broker's thread cannot start: {0}")]
    Thread(#[from] io::Error),
    #[error("the system gives no random bytes for a process id")]
    Random,
}

/// What the process's hubs and the connection's thread share.
struct Link {
    client: ::redis::Client,
    /// For logs: without user and password.
    address: String,
    process: u64,
    channels: Channels,
    codec: Codec,
    local: MemoryBroker,
    outgoing: Mutex<Outgoing>,
    changes: Mutex<Changes>,
    /// Something is in `outgoing`, or in `changes`; or the broker ends.
    to_send: Notify,
    to_subscribe: Notify,
    end: Notify,
    is_ending: AtomicBool,
    /// `None` while hints get through.
    trouble: Mutex<Option<Trouble>>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    dropped: AtomicU64,
    too_large: AtomicU64,
    received: AtomicU64,
    unknown: AtomicU64,
    connections: AtomicU64,
    subscriptions: AtomicU64,
    lag_us: AtomicU64,
}

impl RedisBroker {
    /// A broker that begins to connect to `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]`. It need not be there:
    /// until it is, hints reach the hubs of this process only. Those with the same `secret` hear each other.
    ///
    /// # Errors
    /// The address is none, or the system lacks something.
    pub fn open(url: &str, secret: &[u8; 32]) -> Result<Self, OpenError> {
        use ::redis::IntoConnectionInfo;
        // The reason for which a text is no address may contain it.
        let info = url.into_connection_info().map_err(|_| OpenError::Address)?;
        let address = match info.addr() {
            ::redis::ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
            _ => return Err(OpenError::Address),
        };
        // Nothing is gained by waiting for more: all that waits is sent at once anyway.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let client = ::redis::Client::open(info.set_tcp_settings(tcp)).map_err(|_| OpenError::Address)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| OpenError::Random)?;
        let process = u64::from_ne_bytes(random);
        let trouble = Trouble { since: Instant::now(), cause: format!("not yet connected to {address}") };
        let link = Arc::new(Link {
            client,
            address,
            process,
            channels: Channels::new(secret),
            codec: Codec::new(process),
            local: MemoryBroker::new(),
            outgoing: Mutex::default(),
            changes: Mutex::default(),
            to_send: Notify::new(),
            to_subscribe: Notify::new(),
            end: Notify::new(),
            is_ending: AtomicBool::new(false),
            trouble: Mutex::new(Some(trouble)),
            counters: Counters::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("broker".into()).spawn({
            let link = link.clone();
            move || runtime.block_on(connection::run(&link))
        })?;
        Ok(Self { link, thread: Some(thread) })
    }
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        self.link.is_ending.store(true, Ordering::SeqCst);
        self.link.end.notify_one();
        self.link.to_send.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was logged when it happened.
            let _ = thread.join();
        }
    }
}

impl Broker for RedisBroker {
    fn attach(&self, hub: HubId, sink: Sink) {
        self.link.local.attach(hub, sink);
        self.link.note(Changes::note_all);
    }

    fn detach(&self, hub: HubId) {
        self.link.local.detach(hub);
        self.link.note(Changes::note_all);
    }

    fn follow(&self, hub: HubId, topic: Topic) {
        self.link.local.follow(hub, topic);
        self.link.note(|changes| changes.note(topic));
        if let Some(user) = topic.user().filter(|_| lock(&self.link.trouble).is_some()) {
            // Nothing comes before there is a new connection, and then a doubt.
            self.link.followed(user);
        }
    }

    fn unfollow(&self, hub: HubId, topic: Topic) {
        self.link.local.unfollow(hub, topic);
        self.link.note(|changes| changes.note(topic));
    }

    fn publish(&self, hub: HubId, topic: Topic, hint: Hint) {
        self.link.local.publish(hub, topic, hint.clone());
        let is_taken = lock(&self.link.outgoing).push(topic, hint);
        if is_taken {
            self.link.to_send.notify_one();
        } else {
            add(&self.link.counters.dropped, 1);
        }
    }

    fn is_lossy(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), Trouble> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let cause = "the broker's thread has ended, which is a fault of ours".into();
            return Err(Trouble { since: Instant::now(), cause });
        }
        lock(&self.link.trouble).clone().map_or(Ok(()), Err)
    }

    fn counts(&self) -> Counts {
        let Counters { sent, dropped, too_large, received, unknown, connections, subscriptions, lag_us } =
            &self.link.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sent: read(sent),
            dropped: read(dropped),
            too_large: read(too_large),
            received: read(received),
            unknown: read(unknown),
            connections: read(connections),
            subscriptions: read(subscriptions),
            lag: Duration::from_micros(read(lag_us)),
        }
    }
}

impl Link {
    fn note(&self, note: impl FnOnce(&mut Changes)) {
        note(&mut lock(&self.changes));
        self.to_subscribe.notify_one();
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    /// Which of these topics somebody follows, and which nobody.
    fn sort(&self, topics: HashSet<Topic>) -> (Vec<Topic>, Vec<Topic>) {
        topics.into_iter().partition(|topic| self.local.is_followed(*topic))
    }

    fn followed(&self, user: UserId) {
        self.local.deliver(Topic::User(user), Hint::Followed { user }, Via::Process);
    }

    /// A message came from Redis.
    fn deliver(&self, channel: &str, payload: &[u8]) {
        let Some(topic) = self.channels.read(channel) else { return add(&self.counters.unknown, 1) };
        match self.codec.read(payload) {
            Message::Own => {}
            Message::Unknown => add(&self.counters.unknown, 1),
            Message::Hint(hint) => {
                add(&self.counters.received, 1);
                self.local.deliver(topic, *hint, Via::Network);
            }
        }
    }

    /// What came before now the hubs may have missed.
    fn doubt(&self) {
        self.local.deliver(Topic::All, Hint::Doubt, Via::Process);
    }

    /// From now on hints are sent.
    fn connected(&self) {
        lock(&self.outgoing).open();
        self.to_send.notify_one();
        let trouble = lock(&self.trouble).take();
        add(&self.counters.connections, 1);
        let lasted_ms = trouble.map_or(0, |trouble| trouble.since.elapsed().as_millis() as u64);
        let dropped = self.counters.dropped.load(Ordering::Relaxed);
        tracing::info!(address = self.address, lasted_ms, dropped, "the broker is connected");
    }

    /// From now on hints are dropped.
    fn disconnected(&self, cause: String) {
        let waiting = lock(&self.outgoing).close();
        self.local.deliver(Topic::All, Hint::CutOff, Via::Process);
        add(&self.counters.dropped, waiting as u64);
        self.counters.subscriptions.store(0, Ordering::Relaxed);
        let cause = format!("{}: {cause}", self.address);
        let mut trouble = lock(&self.trouble);
        // What lasts is logged once, unless its cause becomes another.
        if trouble.as_ref().is_none_or(|trouble| trouble.cause != cause) {
            tracing::warn!(cause, "the broker is out of reach; trying again");
        }
        let since = trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
        *trouble = Some(Trouble { since, cause });
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_its_password_told_to_nobody() {
        for bad in
            ["", "localhost", "http://x", "rediss://:hush@x", "redis://:hush@[", "redis+unix:///tmp/hush"]
        {
            let error = RedisBroker::open(bad, &[0; 32]).err().expect(bad);
            assert!(matches!(error, OpenError::Address), "{bad}: {error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{bad}");
        }
        // Port 1 of this machine: nobody answers there.
        let broker = RedisBroker::open("redis://ada:hush@127.0.0.1:1/3", &[0; 32]).unwrap();
        assert_eq!(broker.link.address, "127.0.0.1:1");
        let trouble = broker.check().unwrap_err();
        assert!(trouble.cause.contains("127.0.0.1:1") && !trouble.cause.contains("hush"), "{trouble}");
    }

    #[test]
    fn without_a_server_hubs_of_one_process_hear_each_other_and_the_rest_is_counted() {
        let broker = RedisBroker::open("redis://127.0.0.1:1", &[0; 32]).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = heard.clone();
        broker.attach(2, Arc::new(move |hint, _| lock(&ear).push(hint)));
        broker.publish(1, Topic::All, Hint::Rules);
        assert_eq!(*lock(&heard), [Hint::Rules]);
        assert_eq!(broker.counts().dropped, 1);
    }
}
