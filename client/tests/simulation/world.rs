//! The world of one plan: nodes on one store, browsers with their storage, and time. It carries out what it is
//! told; it must not decide what happens when.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use client::link::Phase;
use client::outbox::Unsent;
use client::route::Route;
use client::state::{Effect, Input, State};
use fastrand::Rng;
use server::broker::chaos::ChaosBroker;
use server::broker::memory::MemoryBroker;
use server::broker::{Broker, HubId};
use server::hub::HubConfig;
use server::simulation::{Node, START};
use server::store::memory::MemoryStore;
use server::store::{NewSession, Store};
use shared::model::{Ms, Ref, RoomId, UserId};
use shared::protocol::{ClientEnvelope, encode};

use super::ledger::{Ledger, now};
use super::links::{Cut, Link};
use super::sight::Heard;

/// A node that runs lets no more time than this pass between two looks at its clock; here the next look may be
/// later, but what is due soon is not done together with what is due much later.
const SOON_MS: Ms = 300;

/// A browser with one tab of the page.
pub struct Client {
    pub token: u8,
    pub state: State,
    pub link: Option<Link>,
    pub storage: BTreeMap<Ref, Unsent>,
    pub drafts: BTreeMap<RoomId, String>,
    pub route: Route,
    pub is_asleep: bool,
    /// The person has closed the page and does not come back.
    pub is_gone: bool,
    /// To which nodes there is no way.
    pub unreachable: Vec<bool>,
    /// What this browser's clock is ahead.
    pub skew_ms: Ms,
    /// After so many effects the tab is closed.
    pub effects_left: Option<usize>,
}

impl Client {
    fn new(token: u8, route: Route, nodes: usize) -> Self {
        Self {
            token,
            state: State::new(0),
            link: None,
            storage: BTreeMap::new(),
            drafts: BTreeMap::new(),
            route,
            is_asleep: false,
            is_gone: false,
            unreachable: vec![false; nodes],
            skew_ms: 0,
            effects_left: None,
        }
    }

    /// What the page has to send for the one who uses it now.
    pub fn unsent(&self) -> impl Iterator<Item = &Unsent> {
        let me = self.state.me.as_ref().map(|me| me.id);
        self.storage.values().filter(move |unsent| Some(unsent.user) == me)
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

/// How a run is followed.
#[derive(Clone, Default)]
pub enum Voice {
    #[default]
    Silent,
    /// Everything is printed.
    Loud,
    /// Everything goes into a hash.
    Hashed(DefaultHasher),
}

impl Voice {
    pub fn is_loud(&self) -> bool {
        !matches!(self, Voice::Silent)
    }
}

/// What a plan decides beforehand.
pub struct Setting {
    pub nodes: usize,
    /// A session for each browser, and whose account it is, if it is no guest's.
    pub tokens: Vec<(u8, Option<UserId>)>,
    pub config: HubConfig,
    pub lossy: bool,
    pub voice: Voice,
    pub store: MemoryStore,
}

pub struct World {
    pub rng: Rng,
    pub now: Ms,
    pub store: MemoryStore,
    /// Each node's own way to the store.
    pub ways: Vec<MemoryStore>,
    pub broker: Arc<dyn Broker>,
    pub chaos: Option<Arc<ChaosBroker>>,
    pub config: HubConfig,
    pub nodes: Vec<Option<Node>>,
    /// How many nodes were started.
    starts: HubId,
    /// Which nodes are cut off from the broker.
    pub cut_off: Vec<bool>,
    /// What the clocks of the machines are ahead.
    pub ahead: Vec<Ms>,
    pub heard: Vec<Heard>,
    pub ledger: Ledger,
    pub clients: Vec<Client>,
    /// Links that their clients have given up and the nodes still know.
    pub orphans: Vec<Link>,
    pub sent: BTreeMap<Ref, Sent>,
    pub refs: u64,
    /// Whose account a session is of.
    pub accounts: HashMap<u8, UserId>,
    /// Guests whose only session was ended: nobody is them any more.
    pub lost: BTreeSet<UserId>,
    /// As whom each session was welcomed.
    pub users: HashMap<u8, UserId>,
    tokens: u8,
    /// Hints were lost of what is no event, and nobody will tell again.
    pub signals_lost: bool,
    /// People are busy with who is in which room.
    pub is_about_order: bool,
    /// Somebody has blocked somebody.
    pub are_blocks: bool,
    /// The message that a person throws away just now.
    discarding: Option<Ref>,
    pub voice: Voice,
}

impl World {
    pub fn new(mut rng: Rng, setting: Setting) -> Self {
        let Setting { nodes, tokens, config, lossy, voice, store } = setting;
        let chaos = lossy.then(|| Arc::new(ChaosBroker::new(rng.u64(..), Default::default())));
        let broker: Arc<dyn Broker> = match &chaos {
            Some(chaos) => chaos.clone(),
            None => Arc::new(MemoryBroker::new()),
        };
        let mut world = Self {
            rng,
            now: 0,
            ways: (0..nodes).map(|_| store.another_way()).collect(),
            ledger: Ledger::new(store.clone()),
            store,
            broker,
            chaos,
            config,
            nodes: (0..nodes).map(|_| None).collect(),
            starts: 0,
            cut_off: vec![false; nodes],
            ahead: vec![0; nodes],
            heard: (0..nodes).map(|_| Heard::default()).collect(),
            clients: tokens.iter().map(|(token, _)| Client::new(*token, Route::Lobby, nodes)).collect(),
            orphans: Vec::new(),
            sent: BTreeMap::new(),
            refs: 0,
            tokens: tokens.iter().map(|(token, _)| *token).max().unwrap_or(0),
            accounts: tokens.into_iter().filter_map(|(token, user)| Some((token, user?))).collect(),
            lost: BTreeSet::new(),
            users: HashMap::new(),
            signals_lost: false,
            is_about_order: false,
            are_blocks: false,
            discarding: None,
            voice,
        };
        (0..nodes).for_each(|node| world.start_node(node));
        (0..world.clients.len()).for_each(|client| world.open_tab(client));
        world
    }

    pub fn say(&mut self, text: impl FnOnce() -> String) {
        match &mut self.voice {
            Voice::Silent => {}
            Voice::Loud => println!("{:>8} {}", self.now, text()),
            Voice::Hashed(hasher) => text().hash(hasher),
        }
    }

    /// What stands for all that happened, if it was hashed.
    pub fn trace(&self) -> u64 {
        match &self.voice {
            Voice::Hashed(hasher) => hasher.finish(),
            _ => 0,
        }
    }

    // Nodes.

    pub fn start_node(&mut self, place: usize) {
        self.say(|| format!("node {place} starts"));
        let seed = self.rng.u64(..);
        self.starts += 1;
        let (store, broker) = (Arc::new(self.ways[place].clone()), self.broker.clone());
        let mut node = Node::new(self.starts, self.config, store, broker, seed);
        node.set_wall(self.ahead[place]);
        node.tick(self.now);
        self.nodes[place] = Some(node);
        self.heard[place] = Heard::default();
        if let Some(chaos) = self.chaos.as_ref().filter(|_| self.cut_off[place]) {
            chaos.cut(self.starts);
        }
    }

    /// Cuts a node off from the broker, or lets it be heard again. A node that is cut off may notice it.
    pub fn set_cut_off(&mut self, place: usize, is_cut_off: bool, is_noticed: bool) {
        self.cut_off[place] = is_cut_off;
        let (Some(chaos), Some(node)) = (&self.chaos, &self.nodes[place]) else { return };
        if !is_cut_off {
            return chaos.mend(node.id());
        }
        chaos.cut(node.id());
        if is_noticed {
            chaos.notice(node.id());
        }
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
        self.clients.push(Client::new(old.token, old.route.clone(), self.nodes.len()));
        self.open_tab(self.clients.len() - 1);
    }

    pub fn close_tab(&mut self, client: usize) {
        self.say(|| format!("client {client} closes its tab"));
        self.give_up(client);
    }

    /// Loads the page anew in a browser whose session is void: whoever has an account signs in again, others
    /// are guests without a past.
    fn renew_session(&mut self, place: usize) {
        self.close_tab(place);
        self.tokens += 1;
        let token = self.tokens;
        match self.accounts.get(&self.clients[place].token).copied() {
            Some(user) => {
                now(self.store.sign_in(user, NewSession::of([token; 32], 0), None));
                self.accounts.insert(token, user);
            }
            None => self.lost.extend(self.users.get(&self.clients[place].token)),
        }
        self.clients[place].token = token;
        self.open_tab(place);
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
            if effect == Effect::RenewSession {
                return self.renew_session(client);
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
            Effect::RenewSession | Effect::Load(_) => panic!("there is no such page"),
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
        let mention = if self.rng.u8(..8) == 0 { "@room " } else { "" };
        let text = format!("{mention}message {}", self.refs);
        self.input(client, Input::Submit { room, text, reference });
    }

    /// Those who have the page open, one way or another.
    pub fn people(&self) -> Vec<UserId> {
        let clients = self.clients.iter().filter(|client| !client.is_gone);
        let users: BTreeSet<UserId> =
            clients.filter_map(|client| Some(client.state.me.as_ref()?.id)).collect();
        users.into_iter().collect()
    }

    // Time.

    /// Time passes. Nodes and clients that are awake hear of it: soon, and at the end.
    pub fn pass(&mut self, ms: Ms) {
        if ms > SOON_MS {
            self.pass_at_once(SOON_MS);
            for node in 0..self.nodes.len() {
                while self.step_node(node) {}
            }
        }
        self.pass_at_once(if ms > SOON_MS { ms - SOON_MS } else { ms });
    }

    fn pass_at_once(&mut self, ms: Ms) {
        self.now += ms;
        let now = self.now;
        self.drop_unanswered();
        self.nodes.iter_mut().flatten().for_each(|node| node.tick(now));
        for client in 0..self.clients.len() {
            self.tick(client);
        }
    }

    pub fn tick(&mut self, client: usize) {
        let clock = self.clock(client);
        let shown = &self.clients[client];
        let is_awake = !shown.is_asleep && !shown.is_gone;
        if is_awake && shown.state.wake_at().is_some_and(|at| at <= clock) {
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
            for node in 0..self.nodes.len() {
                while self.step_node(node) || self.answer_node(node, usize::MAX) {
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

    /// Lets the oldest answers of the store arrive at a node.
    pub fn answer_node(&mut self, place: usize, count: usize) -> bool {
        self.nodes[place].as_mut().is_some_and(|node| node.answer(count))
    }

    /// Time until some client wants to be woken, at most `most` and at least 1.
    pub fn until_wake(&self, most: Ms) -> Ms {
        let here = (0..self.clients.len()).filter(|client| !self.clients[*client].is_gone);
        let waits =
            here.filter_map(|client| Some(self.clients[client].state.wake_at()? - self.clock(client)));
        waits.min().unwrap_or(most).clamp(1, most)
    }
}
