//! The world of one plan: nodes on one store, browsers with their storage, and the links between them. It
//! carries out what it is told; it must not decide what happens when.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use client::link::Phase;
use client::outbox::Unsent;
use client::route::Route;
use client::state::{Effect, Input, State};
use fastrand::Rng;
use server::broker::Broker;
use server::broker::chaos::ChaosBroker;
use server::broker::memory::MemoryBroker;
use server::hub::{Conn, HubConfig, Mode};
use server::simulation::{Node, Output, START};
use server::store::memory::MemoryStore;
use shared::model::{Ms, Ref, RoomId, UserId};
use shared::protocol::{ClientEnvelope, encode};

/// A connection without a close frame (RFC 6455 §7.4.1).
pub const CLOSE_ABNORMAL: u16 = 1006;

/// How a link ends.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Both sides learn of it; what is under way is lost.
    Clean,
    /// The client learns of it; what it has sent may still arrive.
    ClientFirst,
    /// The server learns of it; what it has sent may still arrive.
    ServerFirst,
    /// The server learns of it, the client must find out.
    Silent,
}

/// A client's socket with what is under way on it.
#[derive(Default)]
pub struct Link {
    pub node: usize,
    /// The connection at the node, once it is open.
    pub conn: Option<Conn>,
    pub up: VecDeque<String>,
    pub down: VecDeque<Output>,
    /// The node knows it no more.
    pub is_orphan: bool,
    /// Nothing comes through any more, and nobody says so.
    pub is_dead: bool,
}

/// A browser with one tab of the page.
pub struct Client {
    pub token: u8,
    pub state: State,
    pub link: Option<Link>,
    pub storage: BTreeMap<Ref, Unsent>,
    pub drafts: BTreeMap<RoomId, String>,
    pub route: Route,
    pub is_asleep: bool,
    /// What this browser's clock is ahead.
    pub skew_ms: Ms,
    /// After so many effects the tab is closed.
    pub effects_left: Option<usize>,
}

impl Client {
    fn new(token: u8, route: Route) -> Self {
        Self {
            token,
            state: State::new(0),
            link: None,
            storage: BTreeMap::new(),
            drafts: BTreeMap::new(),
            route,
            is_asleep: false,
            skew_ms: 0,
            effects_left: None,
        }
    }
}

/// A message that a person sent.
pub struct Sent {
    pub client: usize,
    pub user: UserId,
    pub room: RoomId,
    pub body: String,
    /// Grows with each submission.
    pub order: usize,
    /// It was refused once, so that its place in the order is not known.
    pub was_refused: bool,
    pub was_discarded: bool,
    pub was_confirmed: bool,
}

/// What a plan decides beforehand.
pub struct Setting {
    pub nodes: usize,
    pub tokens: Vec<u8>,
    pub config: HubConfig,
    pub lossy: bool,
    pub verbose: bool,
}

pub struct World {
    pub rng: Rng,
    pub now: Ms,
    pub store: MemoryStore,
    pub broker: Arc<dyn Broker>,
    pub chaos: Option<Arc<ChaosBroker>>,
    pub config: HubConfig,
    pub nodes: Vec<Option<Node>>,
    pub clients: Vec<Client>,
    /// Links that their clients have given up and the nodes still know.
    pub orphans: Vec<Link>,
    pub sent: HashMap<Ref, Sent>,
    pub refs: u64,
    /// The message that a person throws away just now.
    discarding: Option<Ref>,
    verbose: bool,
}

impl World {
    pub fn new(mut rng: Rng, setting: Setting) -> Self {
        let chaos = setting.lossy.then(|| Arc::new(ChaosBroker::new(rng.u64(..), Default::default())));
        let broker: Arc<dyn Broker> = match &chaos {
            Some(chaos) => chaos.clone(),
            None => Arc::new(MemoryBroker::new()),
        };
        let mut world = Self {
            rng,
            now: 0,
            store: MemoryStore::new([0; 32]),
            broker,
            chaos,
            config: setting.config,
            nodes: (0..setting.nodes).map(|_| None).collect(),
            clients: setting.tokens.iter().map(|token| Client::new(*token, Route::Lobby)).collect(),
            orphans: Vec::new(),
            sent: HashMap::new(),
            refs: 0,
            discarding: None,
            verbose: setting.verbose,
        };
        (0..setting.nodes).for_each(|node| world.start_node(node));
        (0..world.clients.len()).for_each(|client| world.open_tab(client));
        world
    }

    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>8} {}", self.now, text());
        }
    }

    // Nodes.

    pub fn start_node(&mut self, place: usize) {
        self.say(|| format!("node {place} starts"));
        let seed = self.rng.u64(..);
        let (store, broker) = (Arc::new(self.store.clone()), self.broker.clone());
        let mut node = Node::new(place as u32, self.config, store, broker, seed);
        node.tick(self.now);
        self.nodes[place] = Some(node);
    }

    /// SIGKILL: what the node had in memory is gone, and its connections with it.
    pub fn crash_node(&mut self, place: usize) {
        self.say(|| format!("node {place} crashes"));
        self.nodes[place] = None;
        self.orphans.retain(|link| link.node != place);
        for client in 0..self.clients.len() {
            let link = self.clients[client].link.as_ref();
            if link.is_some_and(|link| link.node == place && link.conn.is_some()) {
                let cut = if self.rng.bool() { Cut::ServerFirst } else { Cut::Silent };
                self.cut(client, cut);
            }
        }
    }

    // Browsers.

    pub fn clock(&self, client: usize) -> Ms {
        START + self.now + self.clients[client].skew_ms
    }

    /// Opens the page anew, with what the storage holds.
    pub fn open_tab(&mut self, place: usize) {
        self.say(|| format!("client {place} opens its tab"));
        let seed = self.rng.u64(..);
        let client = &mut self.clients[place];
        client.state = State::new(seed);
        client.effects_left = None;
        let mut outbox: Vec<Unsent> = client.storage.values().cloned().collect();
        self.rng.shuffle(&mut outbox);
        let drafts = client.drafts.clone().into_iter().collect();
        let route = client.route.clone();
        self.input(place, Input::Start { route, outbox, drafts, utc_offset_minutes: 0 });
    }

    /// Opens the page on another device of a client's user.
    pub fn open_elsewhere(&mut self, old: usize) {
        let old = &self.clients[old];
        self.clients.push(Client::new(old.token, old.route.clone()));
        self.open_tab(self.clients.len() - 1);
    }

    pub fn close_tab(&mut self, client: usize) {
        self.say(|| format!("client {client} closes its tab"));
        self.give_up(client);
    }

    pub fn input(&mut self, client: usize, input: Input) {
        self.say(|| format!("client {client} < {input:?}"));
        let now = self.clock(client);
        self.discarding = match &input {
            Input::Discard(reference) => Some(*reference),
            _ => None,
        };
        let effects = self.clients[client].state.update(now, input);
        for effect in effects {
            if let Some(left) = &mut self.clients[client].effects_left {
                if *left == 0 {
                    self.close_tab(client);
                    self.open_tab(client);
                    return;
                }
                *left -= 1;
            }
            self.act(client, effect);
        }
        self.check_shown(client);
    }

    fn act(&mut self, place: usize, effect: Effect) {
        self.say(|| format!("client {place} > {effect:?}"));
        let client = &mut self.clients[place];
        match effect {
            Effect::Connect => {
                self.give_up(place);
                let node = self.rng.usize(..self.nodes.len());
                self.clients[place].link = Some(Link { node, ..Link::default() });
            }
            Effect::Disconnect { .. } => self.give_up(place),
            Effect::Transmit(envelope) => {
                let link = client.link.as_mut().expect("only a socket that is there is written to");
                assert!(link.conn.is_some(), "only a socket that is open is written to");
                let is_hello = matches!(envelope, ClientEnvelope::Hello { .. });
                let phase = client.state.phase();
                assert!(is_hello || matches!(phase, Phase::Online { .. }), "{phase:?} {envelope:?}");
                if !link.is_dead {
                    link.up.push_back(encode(&envelope));
                }
            }
            Effect::SaveUnsent(unsent) => {
                let order = self.sent.len();
                let sent = self.sent.entry(unsent.reference).or_insert_with(|| Sent {
                    client: place,
                    user: unsent.user,
                    room: unsent.room,
                    body: unsent.body.clone(),
                    order,
                    was_refused: false,
                    was_discarded: false,
                    was_confirmed: false,
                });
                sent.was_refused |= unsent.failed.is_some();
                client.storage.insert(unsent.reference, unsent);
            }
            Effect::ForgetUnsent(reference) => {
                client.storage.remove(&reference);
                if let Some(sent) = self.sent.get_mut(&reference) {
                    if self.discarding == Some(reference) {
                        sent.was_discarded = true;
                    } else {
                        sent.was_confirmed = true;
                    }
                }
            }
            Effect::SaveDraft { room, text } => {
                if text.is_empty() {
                    client.drafts.remove(&room);
                } else {
                    client.drafts.insert(room, text);
                }
            }
            Effect::Navigate { route, .. } => client.route = route,
            // This world has no HTTP: nothing answers.
            Effect::AskSession => {}
            Effect::RenewSession | Effect::Load(_) => panic!("no session is void here"),
        }
    }

    /// A person sends a text.
    pub fn submit(&mut self, client: usize, room: RoomId) {
        self.refs += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.refs.to_be_bytes());
        // Not in the order of sending: what is random in a reference comes first within a millisecond.
        random[0] = self.rng.u8(..);
        let reference = Ref::new(self.clock(client), random);
        let text = format!("message {}", self.refs);
        self.input(client, Input::Submit { room, text, reference });
    }

    // Links.

    /// The client lets go of its socket; the node learns of it later.
    fn give_up(&mut self, client: usize) {
        if let Some(link) = self.clients[client].link.take()
            && link.conn.is_some()
            && !link.is_orphan
            && self.nodes[link.node].is_some()
        {
            self.orphans.push(link);
        }
    }

    /// The node learns that a link ended.
    fn end(&mut self, link: &Link) {
        if let (Some(conn), Some(node)) = (link.conn, &mut self.nodes[link.node])
            && !link.is_orphan
        {
            node.close(conn);
        }
    }

    pub fn cut(&mut self, client: usize, cut: Cut) {
        let Some(mut link) = self.clients[client].link.take() else { return };
        self.say(|| format!("client {client} is cut off: {cut:?}"));
        if link.conn.is_none() {
            self.input(client, Input::Closed { code: CLOSE_ABNORMAL });
            return;
        }
        match cut {
            Cut::Clean => {
                self.end(&link);
                self.input(client, Input::Closed { code: CLOSE_ABNORMAL });
            }
            Cut::ClientFirst => {
                if !link.is_orphan && self.nodes[link.node].is_some() {
                    let kept = self.rng.usize(..=link.up.len());
                    link.up.truncate(kept);
                    self.orphans.push(link);
                }
                self.input(client, Input::Closed { code: CLOSE_ABNORMAL });
            }
            Cut::ServerFirst | Cut::Silent => {
                self.end(&link);
                let kept = self.rng.usize(..=link.down.len());
                link.down.truncate(kept);
                link.is_orphan = true;
                link.is_dead |= matches!(cut, Cut::Silent);
                self.clients[client].link = Some(link);
            }
        }
    }

    /// Lets the oldest of the links that were given up come nearer to its end.
    pub fn settle_orphan(&mut self) -> bool {
        if self.orphans.is_empty() {
            return false;
        }
        let place = self.rng.usize(..self.orphans.len());
        let link = &mut self.orphans[place];
        match (link.up.pop_front(), &mut self.nodes[link.node], link.conn) {
            (Some(text), Some(node), Some(conn)) => node.send(conn, &text),
            _ => {
                let link = self.orphans.swap_remove(place);
                self.end(&link);
            }
        }
        true
    }

    /// Opens a client's socket, if it is opening. False if nothing happened.
    pub fn open(&mut self, place: usize) -> bool {
        let client = &mut self.clients[place];
        let Some(link) = client.link.as_mut().filter(|link| link.conn.is_none() && !client.is_asleep) else {
            return false;
        };
        match &mut self.nodes[link.node] {
            Some(node) => {
                link.conn = Some(node.connect(Mode::Full, [client.token; 32], false));
                self.input(place, Input::Opened);
            }
            None => {
                client.link = None;
                self.input(place, Input::Closed { code: CLOSE_ABNORMAL });
            }
        }
        true
    }

    /// Lets at most `count` frames of a client arrive at its node.
    pub fn carry_up(&mut self, client: usize, count: usize) -> bool {
        let Some(link) = &mut self.clients[client].link else { return false };
        let count = count.min(link.up.len());
        for text in link.up.drain(..count) {
            if let (Some(node), Some(conn), false) = (&mut self.nodes[link.node], link.conn, link.is_orphan) {
                node.send(conn, &text);
            }
        }
        count > 0
    }

    /// Lets at most `count` frames arrive at a client.
    pub fn carry_down(&mut self, place: usize, count: usize) -> bool {
        let mut moved = false;
        for _ in 0..count {
            let client = &mut self.clients[place];
            let Some(link) = client.link.as_mut().filter(|_| !client.is_asleep) else { break };
            if let (Some(node), Some(conn), false) = (&mut self.nodes[link.node], link.conn, link.is_orphan) {
                link.down.extend(node.take(conn));
            }
            let is_over = link.is_orphan && !link.is_dead;
            match link.down.pop_front() {
                Some(Output::Text(text)) => {
                    let envelope = serde_json::from_str(&text).expect("a server sends what a client knows");
                    self.input(place, Input::Received(envelope));
                }
                Some(Output::Close(code)) => {
                    let link = client.link.take().expect("it was there");
                    self.end(&link);
                    self.input(place, Input::Closed { code: code as u16 });
                }
                None if is_over => {
                    client.link = None;
                    self.input(place, Input::Closed { code: CLOSE_ABNORMAL });
                }
                None => break,
            }
            moved = true;
        }
        moved
    }

    // Time.

    /// Time passes. Nodes and clients that are awake hear of it.
    pub fn pass(&mut self, ms: Ms) {
        self.now += ms;
        let now = self.now;
        self.nodes.iter_mut().flatten().for_each(|node| node.tick(now));
        for client in 0..self.clients.len() {
            self.tick(client);
        }
    }

    pub fn tick(&mut self, client: usize) {
        let clock = self.clock(client);
        let shown = &self.clients[client];
        if !shown.is_asleep && shown.state.wake_at().is_some_and(|at| at <= clock) {
            self.input(client, Input::Tick);
        }
    }

    /// Lets all that is under way arrive.
    pub fn flow(&mut self) {
        loop {
            let mut moved = false;
            for client in 0..self.clients.len() {
                moved |= self.open(client);
                moved |= self.carry_up(client, usize::MAX);
            }
            while self.settle_orphan() {
                moved = true;
            }
            for node in self.nodes.iter_mut().flatten() {
                while node.step() || node.answer(usize::MAX) {
                    moved = true;
                }
            }
            for client in 0..self.clients.len() {
                moved |= self.carry_down(client, usize::MAX);
            }
            if !moved {
                return;
            }
        }
    }

    /// Time until some client wants to be woken, at most `most` and at least 1.
    pub fn until_wake(&self, most: Ms) -> Ms {
        let waits = (0..self.clients.len())
            .filter_map(|client| Some(self.clients[client].state.wake_at()? - self.clock(client)));
        waits.min().unwrap_or(most).clamp(1, most)
    }
}
