//! Keeps what holds for the whole process up to date: which addresses are banned, and which webhooks there are.
//!
//! It listens to the broker like a hub, and asks the store again every minute: a hint may be lost, and bans run
//! out. Of several processes on one store one posts to the webhooks: the one that has the lease. It must not know
//! connections.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shared::model::{Ms, RoomId};
use shared::network::Network;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::broker::{Broker, Hint, HubId, Topic};
use crate::engine::wall_clock;
use crate::gate::Gate;
use crate::hooks::Hooks;
use crate::store::{Store, StoreError};

/// How often the store is asked although nothing was heard.
const EVERY: Duration = Duration::from_secs(60);

/// The lease's name, how long it lasts and how often it is renewed.
const LEASE: &str = "hooks";
const LEASE_MS: Ms = 30_000;
const LEASE_EVERY: Duration = Duration::from_secs(10);

/// What was heard.
enum News {
    Rules,
    Room(RoomId),
    /// Any of these may have been missed.
    Doubt,
}

/// What is kept up to date.
pub struct Upkeep {
    pub store: Arc<dyn Store>,
    pub broker: Arc<dyn Broker>,
    /// Its own id at the broker.
    pub hub: HubId,
    pub gate: Arc<Gate>,
    pub hooks: Hooks,
}

/// Whose turn it is to post to webhooks.
struct Turn {
    /// Until when it is ours.
    until: Option<Instant>,
    /// Whether we do.
    posts: bool,
}

impl Upkeep {
    /// Runs for ever, inside a `LocalSet`.
    pub async fn run(mut self) {
        let (heard, mut news) = mpsc::unbounded_channel();
        let sink = move |hint, _| {
            let news = match hint {
                Hint::Rules => News::Rules,
                Hint::Doubt => News::Doubt,
                Hint::Event(logged) => News::Room(logged.event.room),
                Hint::Head { room, .. } => News::Room(room),
                _ => return,
            };
            let _ = heard.send(news);
        };
        self.broker.attach(self.hub, Arc::new(sink));
        let mut timer = interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leases = interval(LEASE_EVERY);
        leases.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut followed = HashSet::new();
        let mut turn = Turn { until: None, posts: !self.store.is_shared() };
        loop {
            tokio::select! {
                _ = timer.tick() => self.refresh(turn.posts, &mut followed).await,
                _ = leases.tick(), if self.store.is_shared() => {
                    self.renew(&mut turn).await;
                    let may_post = turn.until.is_some_and(|until| Instant::now() < until);
                    if may_post != turn.posts {
                        turn.posts = may_post;
                        tracing::info!(posts = may_post, "whether this node posts to webhooks");
                        if !may_post {
                            // At once, whether or not the store answers.
                            self.hooks.set(Vec::new());
                        }
                        self.refresh(may_post, &mut followed).await;
                    }
                }
                Some(news) = news.recv() => match news {
                    News::Rules => self.refresh(turn.posts, &mut followed).await,
                    News::Room(room) => self.hooks.wake(room),
                    News::Doubt => {
                        self.refresh(turn.posts, &mut followed).await;
                        followed.iter().for_each(|room| self.hooks.wake(*room));
                    }
                },
            }
        }
    }

    /// Takes the lease, or keeps it, or finds that another process has it.
    async fn renew(&self, turn: &mut Turn) {
        let (begun, at) = (Instant::now(), wall_clock(SystemTime::now()));
        match self.store.lease(LEASE, self.hub.into(), at, at + LEASE_MS).await {
            Ok(true) => turn.until = Some(begun + Duration::from_millis(LEASE_MS as u64)),
            Ok(false) => turn.until = None,
            Err(error) => tracing::warn!(%error, "who posts to webhooks could not be agreed upon"),
        }
    }

    async fn refresh(&mut self, posts: bool, followed: &mut HashSet<RoomId>) {
        if let Err(error) = self.read(posts).await {
            return tracing::warn!(%error, "bans and webhooks could not be read");
        }
        let rooms: HashSet<RoomId> = self.hooks.rooms().collect();
        for room in rooms.difference(followed) {
            self.broker.follow(self.hub, Topic::Room(*room));
            // What was said before that is not heard of.
            self.hooks.wake(*room);
        }
        for room in followed.difference(&rooms) {
            self.broker.unfollow(self.hub, Topic::Room(*room));
        }
        *followed = rooms;
    }

    async fn read(&mut self, posts: bool) -> Result<(), StoreError> {
        let bans = self.store.address_bans(wall_clock(SystemTime::now())).await?;
        self.gate.ban(bans.iter().filter_map(|ban| Network::parse(&ban.addresses)).collect());
        let hooks = if posts { self.store.outgoing_hooks().await? } else { Vec::new() };
        self.hooks.set(hooks);
        Ok(())
    }
}
