//! The thread that talks to Redis: one connection to publish, one that is subscribed, and both anew after
//! any trouble with either.
//!
//! A message that the process sends itself once a second shows that both work, and how long hints take. That
//! finds a server that hangs, and a connection that is dead without having been closed.

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use ::redis::{AsyncConnectionConfig, Pipeline, RedisError};
use futures_util::StreamExt;
use shared::model::UserId;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::message::Codec;
use super::outgoing::Changed;
use super::{Link, add, lock};
use crate::broker::{Hint, Topic, Via};

/// How long Redis may take for a new connection, or for an answer.
const CONNECT_WAIT: Duration = Duration::from_secs(3);
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// How often the process sends itself a message, and how late it may come.
const BEAT_EVERY: Duration = Duration::from_secs(1);
const BEAT_WAIT: Duration = Duration::from_secs(3);
/// The pause after a connection that failed. It doubles from one to the next, up to the longer; a part of it
/// is left to chance, so that the processes of a cluster do not all come back at once.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How long a connection must have lasted for the pauses to begin anew.
const STABLE: Duration = Duration::from_secs(10);
/// Channels in one command.
const SUBSCRIBE_MAX: usize = 1_000;
/// How long what waits is sent yet when the broker ends.
const FLUSH_WAIT: Duration = Duration::from_millis(500);

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the connection was closed")]
    Closed,
}

/// Keeps the process connected until the broker is dropped.
pub(super) async fn run(link: &Link) {
    let ending = async {
        link.end.notified().await;
        sleep(FLUSH_WAIT).await;
    };
    tokio::select! {
        () = ending => {}
        () = keep(link) => {}
    }
}

async fn keep(link: &Link) {
    let mut pause = PAUSE_MIN;
    while !link.is_ending() {
        let start = Instant::now();
        let Err(broken) = session(link).await else { return };
        if link.is_ending() {
            return;
        }
        link.disconnected(broken.to_string());
        if start.elapsed() >= STABLE {
            pause = PAUSE_MIN;
        }
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Connects and does all there is to do. Returns well when the broker ends and everything was sent.
async fn session(link: &Link) -> Result<(), Broken> {
    let (publisher, sink, stream) = in_time(CONNECT_WAIT, connect(link)).await?;
    let beats = Beats::default();
    let mut subscriber = Subscriber { link, sink, subscribed: HashSet::new(), seen: Seen::default() };
    let seen = subscriber.seen.clone();
    let start = async {
        lock(&link.changes).note_all();
        in_time(ANSWER_WAIT, subscriber.sink.subscribe(link.channels.process(link.process))).await?;
        subscriber.look().await?;
        beats.beat(link, publisher.clone()).await?;
        link.connected();
        // What was followed since was taken for heard of, as nothing came.
        subscriber.look().await?;
        link.doubt();
        Ok::<(), Broken>(())
    };
    let receiving = receive(link, stream, &beats);
    tokio::pin!(receiving);
    tokio::select! {
        started = start => started?,
        broken = &mut receiving => return Err(broken),
    }
    tokio::select! {
        sent = send(link, publisher.clone(), &seen) => sent,
        broken = &mut receiving => Err(broken),
        broken = subscriber.run() => Err(broken),
        broken = beats.run(link, publisher) => Err(broken),
    }
}

async fn connect(link: &Link) -> Result<(MultiplexedConnection, PubSubSink, PubSubStream), RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WAIT))
        .set_response_timeout(Some(ANSWER_WAIT));
    let publisher = link.client.get_multiplexed_async_connection_with_config(&config).await?;
    let (sink, stream) = link.client.get_async_pubsub().await?.split();
    Ok((publisher, sink, stream))
}

async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, Broken> {
    match timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Broken::Silent(limit)),
    }
}

/// Sends what hubs publish, all that waits at once.
async fn send(link: &Link, mut publisher: MultiplexedConnection, seen: &Seen) -> Result<(), Broken> {
    loop {
        let batch = lock(&link.outgoing).take();
        if batch.is_empty() {
            if link.is_ending() {
                return Ok(());
            }
            link.to_send.notified().await;
            continue;
        }
        if batch.iter().any(|(_, hint)| is_question(hint)) {
            // Who asks must be able to hear the answers.
            let count = lock(&link.changes).count();
            seen.wait_for(count).await;
        }
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for (topic, hint) in &batch {
            let message = link.codec.write(hint).or_else(|| {
                add(&link.counters.too_large, 1);
                link.codec.write(&Codec::shorter(hint)?)
            });
            match message {
                Some(message) => {
                    let channel = link.channels.topic(*topic);
                    pipeline.cmd("PUBLISH").arg(channel).arg(message).ignore();
                }
                None => lock(&link.outgoing).lost(std::iter::once(hint)),
            }
        }
        let count = pipeline.len() as u64;
        if let Err(error) = in_time(ANSWER_WAIT, pipeline.exec_async(&mut publisher)).await {
            // Some of them may have come through all the same.
            add(&link.counters.dropped, count);
            lock(&link.outgoing).lost(batch.iter().map(|(_, hint)| hint));
            return Err(error);
        }
        add(&link.counters.sent, count);
        if batch.last().is_some_and(|(_, hint)| *hint == Hint::Doubt) {
            // Among what was lost may have been questions.
            link.local.deliver(Topic::All, Hint::Doubt, Via::Process);
        }
    }
}

/// Whether other hubs answer a hint on the topic on which it is published.
fn is_question(hint: &Hint) -> bool {
    matches!(hint, Hint::PresenceWanted { .. })
}

/// Delivers what other processes publish.
async fn receive(link: &Link, mut stream: PubSubStream, beats: &Beats) -> Broken {
    let own = link.channels.process(link.process);
    while let Some(message) = stream.next().await {
        let channel = message.get_channel_name();
        if channel == own {
            beats.heard(message.get_payload_bytes());
        } else {
            link.deliver(channel, message.get_payload_bytes());
        }
    }
    Broken::Closed
}

/// Keeps Redis's subscriptions as what is followed in the process.
struct Subscriber<'a> {
    link: &'a Link,
    sink: PubSubSink,
    subscribed: HashSet<Topic>,
    seen: Seen,
}

impl Subscriber<'_> {
    async fn run(&mut self) -> Broken {
        loop {
            self.link.to_subscribe.notified().await;
            if let Err(broken) = self.look().await {
                return broken;
            }
        }
    }

    /// Subscribes to what is followed since, and ends what is not followed any more.
    async fn look(&mut self) -> Result<(), Broken> {
        let link = self.link;
        let Some((changed, count)) = lock(&link.changes).take() else { return Ok(()) };
        let topics = match changed {
            Changed::Topics(topics) => topics,
            Changed::All => link.local.topics().into_iter().chain(self.subscribed.iter().copied()).collect(),
        };
        let (mut wanted, mut unwanted) = link.sort(topics);
        let users: Vec<UserId> = wanted.iter().filter_map(|topic| topic.user()).collect();
        wanted.retain(|topic| self.subscribed.insert(*topic));
        unwanted.retain(|topic| self.subscribed.remove(topic));
        // The process's first hub: it has not heard what everybody was told.
        let is_first = wanted.contains(&Topic::All);
        let channels = |topics: &[Topic]| topics.iter().map(|t| link.channels.topic(*t)).collect::<Vec<_>>();
        for topics in wanted.chunks(SUBSCRIBE_MAX) {
            in_time(ANSWER_WAIT, self.sink.subscribe(channels(topics))).await?;
        }
        for topics in unwanted.chunks(SUBSCRIBE_MAX) {
            in_time(ANSWER_WAIT, self.sink.unsubscribe(channels(topics))).await?;
        }
        link.counters.subscriptions.store(self.subscribed.len() as u64, Ordering::Relaxed);
        self.seen.tell(count);
        users.into_iter().for_each(|user| link.followed(user));
        if is_first && lock(&link.trouble).is_none() {
            link.doubt();
        }
        Ok(())
    }
}

/// How many changes of what is followed Redis knows.
#[derive(Clone, Default)]
struct Seen(Rc<(Cell<u64>, Notify)>);

impl Seen {
    fn tell(&self, count: u64) {
        let (seen, told) = &*self.0;
        seen.set(count);
        told.notify_waiters();
    }

    async fn wait_for(&self, count: u64) {
        let (seen, told) = &*self.0;
        while seen.get() < count {
            told.notified().await;
        }
    }
}

/// Messages to ourselves.
#[derive(Default)]
struct Beats {
    sent: Cell<u64>,
    heard: Cell<u64>,
    told: Notify,
}

impl Beats {
    async fn run(&self, link: &Link, publisher: MultiplexedConnection) -> Broken {
        let mut dropped = link.counts_dropped();
        loop {
            sleep(BEAT_EVERY).await;
            if let Err(broken) = self.beat(link, publisher.clone()).await {
                return broken;
            }
            let before = std::mem::replace(&mut dropped, link.counts_dropped());
            if dropped > before {
                let count = dropped - before;
                tracing::warn!(count, "the broker is too slow: hints were dropped, the store will be asked");
            }
        }
    }

    /// Sends a message and waits for it.
    async fn beat(&self, link: &Link, mut publisher: MultiplexedConnection) -> Result<(), Broken> {
        let start = Instant::now();
        let number = self.sent.get() + 1;
        self.sent.set(number);
        let mut beat = Pipeline::new();
        beat.cmd("PUBLISH").arg(link.channels.process(link.process)).arg(number).ignore();
        let heard = async {
            // It may be heard before Redis says that it was sent.
            beat.exec_async(&mut publisher).await?;
            while self.heard.get() < number {
                self.told.notified().await;
            }
            Ok(())
        };
        in_time(BEAT_WAIT, heard).await?;
        let lag_us = start.elapsed().as_micros() as u64;
        link.counters.lag_us.store(lag_us, Ordering::Relaxed);
        Ok(())
    }

    fn heard(&self, payload: &[u8]) {
        let number = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        self.heard.set(number.unwrap_or_default());
        self.told.notify_one();
    }
}

impl Link {
    fn counts_dropped(&self) -> u64 {
        self.counters.dropped.load(Ordering::Relaxed)
    }
}
