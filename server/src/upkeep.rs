//! Keeps what holds for the whole process up to date: which addresses are banned, and which webhooks there are.
//!
//! It listens to the broker like a hub, and asks the store again every minute: a hint may be lost, and bans run
//! out. It must not know connections.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shared::model::RoomId;
use shared::network::Network;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::broker::{Broker, Hint, HubId, Topic};
use crate::engine::wall_clock;
use crate::gate::Gate;
use crate::hooks::Hooks;
use crate::store::{Store, StoreError};

/// How often the store is asked although nothing was heard.
const EVERY: Duration = Duration::from_secs(60);

/// What was heard.
enum News {
    Rules,
    Room(RoomId),
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

impl Upkeep {
    /// Runs for ever, inside a `LocalSet`.
    pub async fn run(mut self) {
        let (heard, mut news) = mpsc::unbounded_channel();
        let sink = move |hint| {
            let news = match hint {
                Hint::Rules => News::Rules,
                Hint::Event(logged) => News::Room(logged.event.room),
                _ => return,
            };
            let _ = heard.send(news);
        };
        self.broker.attach(self.hub, Arc::new(sink));
        let mut timer = interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut followed = HashSet::new();
        loop {
            tokio::select! {
                _ = timer.tick() => self.refresh(&mut followed).await,
                Some(news) = news.recv() => match news {
                    News::Rules => self.refresh(&mut followed).await,
                    News::Room(room) => self.hooks.wake(room),
                },
            }
        }
    }

    async fn refresh(&mut self, followed: &mut HashSet<RoomId>) {
        if let Err(error) = self.read().await {
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

    async fn read(&mut self) -> Result<(), StoreError> {
        let bans = self.store.address_bans(wall_clock(SystemTime::now())).await?;
        self.gate.ban(bans.iter().filter_map(|ban| Network::parse(&ban.addresses)).collect());
        self.hooks.set(self.store.outgoing_hooks().await?);
        Ok(())
    }
}
