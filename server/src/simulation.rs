//! A server without sockets, threads or a clock, for tests: a real hub, a store whose replies are ready at
//! once, and a broker, driven step by step.
//!
//! Whoever drives it decides what happens when; the same plan gives the same run. A crash is a drop: the
//! store, shared by `Arc`, is what remains.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use shared::model::{Line, Ms, RoomId, Seq};
use shared::protocol::CloseCode;

use crate::broker::{Broker, Hint, HubId, Sink, Topic};
use crate::engine::query_store;
use crate::hub::{Arrival, Conn, Counts, Effect, Hub, HubConfig, Input, Mode, Request};
use crate::store::{Store, StoreError, TokenHash};

/// The simulation's time zero, in milliseconds since 1970.
pub const START: Ms = 1_800_000_000_000;

/// What reached a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Text(String),
    Close(CloseCode),
}

/// One node.
pub struct Node {
    id: HubId,
    hub: Hub,
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    hints: Arc<Mutex<Vec<Hint>>>,
    inbox: VecDeque<Input>,
    /// Answers of the store that have not arrived yet.
    answers: VecDeque<Input>,
    outputs: HashMap<Conn, Vec<Output>>,
    connections: Conn,
    queries: usize,
    now: Ms,
    /// What the machine's clock was set ahead.
    ahead: Ms,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.broker.detach(self.id);
    }
}

impl Node {
    /// A node that has just started. No other ever had its `id`.
    pub fn new(
        id: HubId,
        config: HubConfig,
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        seed: u64,
    ) -> Self {
        let hints = Arc::new(Mutex::new(Vec::new()));
        let sink: Sink = {
            let hints = hints.clone();
            Arc::new(move |hint, _| hints.lock().expect("no test panics while it holds this").push(hint))
        };
        broker.attach(id, sink);
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let hub = Hub::new(id, config, broker.is_lossy(), bytes);
        let mut node = Self {
            id,
            hub,
            store,
            broker,
            hints,
            inbox: VecDeque::new(),
            answers: VecDeque::new(),
            outputs: HashMap::new(),
            connections: 0,
            queries: 0,
            now: 0,
            ahead: 0,
        };
        node.tick(0);
        node
    }

    /// Opens a connection; its number is never used again.
    pub fn connect(&mut self, mode: Mode, token: TokenHash, ephemeral: bool) -> Conn {
        self.connect_as(mode, Arrival { token, ephemeral, may_be_new: true, device: Line::default() })
    }

    /// Opens a connection that comes with a token of any sort.
    pub fn connect_as(&mut self, mode: Mode, arrival: Arrival) -> Conn {
        let conn = self.connections;
        self.connections += 1;
        self.outputs.insert(conn, Vec::new());
        self.inbox.push_back(Input::Connected { conn, mode, arrival });
        conn
    }

    /// A connection sends a text.
    pub fn send(&mut self, conn: Conn, text: &str) {
        let request = match self.hub.mode(conn) {
            Some(Mode::Plain) => Ok(Request::Plain(text.to_owned())),
            _ => shared::protocol::decode(text).map(Request::Envelope),
        };
        self.inbox.push_back(Input::Request { conn, request });
    }

    /// A connection ends. What it had not been given is lost.
    pub fn close(&mut self, conn: Conn) {
        self.outputs.remove(&conn);
        self.inbox.push_back(Input::Closed { conn });
    }

    /// The node ends in good order: it says so. What is left is to drop it.
    pub fn leave(&mut self) {
        self.inbox.push_back(Input::Leave);
        self.settle();
    }

    /// Moves the clock to a time since the start and lets the hub hear of it.
    pub fn tick(&mut self, now: Ms) {
        self.now = now;
        self.inbox.push_back(Input::Tick { wall: START + now + self.ahead });
    }

    /// Sets the machine's clock ahead; what has passed stays as it is.
    pub fn set_wall(&mut self, ahead: Ms) {
        self.ahead = ahead;
    }

    /// What the hub takes at the next step.
    pub fn upcoming(&mut self) -> Option<&Input> {
        let hints = std::mem::take(&mut *self.hints.lock().expect("no test panics while it holds this"));
        self.inbox.extend(hints.into_iter().map(Input::Hint));
        self.inbox.front()
    }

    /// How far the hub has delivered the log of each room that it has loaded.
    pub fn applied(&self) -> Vec<(RoomId, Seq)> {
        self.hub.applied().collect()
    }

    /// Lets the hub take one input. False if there was none.
    pub fn step(&mut self) -> bool {
        self.upcoming();
        let Some(input) = self.inbox.pop_front() else { return false };
        let mut effects = Vec::new();
        self.hub.handle(self.now, input, &mut effects);
        for effect in effects {
            self.act(effect);
        }
        true
    }

    /// Lets the oldest answers of the store arrive, at most `count`. False if there was none.
    pub fn answer(&mut self, count: usize) -> bool {
        let count = count.min(self.answers.len());
        self.inbox.extend(self.answers.drain(..count));
        count > 0
    }

    /// Steps until nothing is left to do.
    pub fn settle(&mut self) {
        while self.step() || self.answer(usize::MAX) {}
    }

    /// What reached a connection since the last call.
    pub fn take(&mut self, conn: Conn) -> Vec<Output> {
        self.outputs.get_mut(&conn).map(std::mem::take).unwrap_or_default()
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Send { conn, text } => self.give(conn, Output::Text(text)),
            Effect::Share { conn, text } => self.give(conn, Output::Text(text.text().to_owned())),
            Effect::Fanout { room, full, plain } => {
                let (full_conns, plain_conns) = self.hub.listeners(room);
                let full_conns = full.map(|text| (text, full_conns.to_vec()));
                let plain_conns = plain.map(|text| (text, plain_conns.to_vec()));
                for (text, conns) in full_conns.into_iter().chain(plain_conns) {
                    for conn in conns {
                        self.give(conn, Output::Text(text.text().to_owned()));
                    }
                }
            }
            Effect::Everyone { full, plain } => {
                for conn in 0..self.connections {
                    if let Some(mode) = self.hub.mode(conn) {
                        let text = if mode == Mode::Full { &full } else { &plain };
                        self.give(conn, Output::Text(text.text().to_owned()));
                    }
                }
            }
            Effect::Close { conn, code } => self.give(conn, Output::Close(code)),
            Effect::Append { ticket, append } => {
                let results = self.store.append(vec![append]).now_or_never();
                let result = match results {
                    Some(Ok(mut results)) => results.remove(0),
                    Some(Err(error)) => Err(error),
                    None => Err(StoreError::Unavailable("the store is not ready at once".into())),
                };
                self.answers.push_back(Input::Appended { ticket, result });
            }
            Effect::Query { ticket, query } => {
                self.queries += 1;
                let answer = query_store(&*self.store, query).now_or_never();
                let late = || Err(StoreError::Unavailable("the store is not ready at once".into()));
                self.answers.push_back(Input::Answered { ticket, answer: answer.unwrap_or_else(late) });
            }
            Effect::Publish { topic, hint } => self.broker.publish(self.id, topic, hint),
            Effect::Follow(topic) => self.broker.follow(self.id, topic),
            Effect::Unfollow(topic) => self.broker.unfollow(self.id, topic),
        }
    }

    /// What the hub counted.
    pub fn counts(&self) -> Counts {
        self.hub.counts()
    }

    /// How often the store was asked, appends not counted.
    pub fn queries(&self) -> usize {
        self.queries
    }

    fn give(&mut self, conn: Conn, output: Output) {
        if let Some(outputs) = self.outputs.get_mut(&conn) {
            outputs.push(output);
        }
    }

    pub fn id(&self) -> HubId {
        self.id
    }

    /// Publishes a hint in the name of the node, as what answers to HTTP does.
    pub fn publish(&self, topic: Topic, hint: Hint) {
        self.broker.publish(self.id, topic, hint);
    }

    /// Publishes what an operator announces.
    pub fn announce(&self, text: &str) {
        let hint = Hint::Announcement { text: text.into(), at: START + self.now };
        self.broker.publish(self.id, Topic::All, hint);
    }
}
