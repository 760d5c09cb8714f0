//! Random plans of faults against a small server: whatever is lost, repeated, reordered or cut, in the end
//! the client shows the log, each event once and in order, and everything sent is in it once, in order.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::{collection, proptest};
use shared::model::{Body, LOBBY, Ms, Ref, Seq};
use shared::protocol::{
    ClientEnvelope, ErrorCode, Event, EventKind, Failure, Limits, RoomInfo, ServerEnvelope,
};

use super::{T0, info, reference, user};
use crate::outbox::Unsent;
use crate::route::Route;
use crate::rows::Row;
use crate::state::{Effect, Input, State};

/// Events in one page of this server: few, so that plans need several.
const PAGE: usize = 4;
/// Furthest back it replays.
const REPLAY: Seq = 10;

#[derive(Clone, Debug)]
enum Step {
    /// Somebody else speaks, or joins.
    Other {
        is_message: bool,
    },
    Submit,
    /// The server takes the next frame; a send it may put off.
    Serve {
        puts_off: bool,
    },
    /// The client takes the next frame.
    Deliver,
    /// A live event to the client is lost, doubled, or comes later than the next.
    Lose,
    Double,
    Swap,
    /// The connection is cut, and what is on its way in both directions with it.
    Cut,
    /// The tab is closed and the page opened again.
    Reload,
    Wait(u16),
    Scroll {
        at_latest: bool,
    },
    Older,
    Newer,
    Jump,
    See,
    Navigate {
        is_away: bool,
    },
    ReadElsewhere,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(|is_message| Step::Other { is_message }),
        4 => Just(Step::Submit),
        8 => (0..8u8).prop_map(|n| Step::Serve { puts_off: n == 0 }),
        10 => Just(Step::Deliver),
        1 => Just(Step::Lose),
        1 => Just(Step::Double),
        1 => Just(Step::Swap),
        1 => Just(Step::Cut),
        1 => Just(Step::Reload),
        2 => (1..4_000u16).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(|at_latest| Step::Scroll { at_latest }),
        1 => Just(Step::Older),
        1 => Just(Step::Newer),
        1 => Just(Step::Jump),
        2 => Just(Step::See),
        1 => any::<bool>().prop_map(|is_away| Step::Navigate { is_away }),
        1 => Just(Step::ReadElsewhere),
    ]
}

/// One room, one client, and the network between.
struct World {
    state: State,
    now: Ms,
    /// The browser's storage.
    storage: BTreeMap<Ref, Unsent>,
    submitted: Vec<Ref>,
    log: Vec<Event>,
    read: Seq,
    is_open: bool,
    /// Whether the server has answered `hello` on this connection.
    is_greeted: bool,
    to_server: VecDeque<ClientEnvelope>,
    to_client: VecDeque<ServerEnvelope>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::new(1),
            now: T0,
            storage: BTreeMap::new(),
            submitted: Vec::new(),
            log: Vec::new(),
            read: 0,
            is_open: false,
            is_greeted: false,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
        };
        world.load();
        world
    }

    /// The page is opened.
    fn load(&mut self) {
        self.cut();
        self.state = State::new(self.now as u64);
        let outbox = self.storage.values().cloned().collect();
        self.input(Input::Start { route: Route::Lobby, outbox, drafts: Vec::new(), utc_offset_minutes: 0 });
    }

    fn cut(&mut self) {
        self.is_open = false;
        self.is_greeted = false;
        self.to_server.clear();
        self.to_client.clear();
    }

    fn input(&mut self, input: Input) {
        let mut connects = false;
        for effect in self.state.update(self.now, input) {
            match effect {
                Effect::Connect => {
                    self.cut();
                    connects = true;
                }
                Effect::Disconnect { .. } => self.cut(),
                Effect::Transmit(envelope) => {
                    assert!(self.is_open, "{envelope:?} without a socket");
                    if let ClientEnvelope::Send { reference, .. } = &envelope {
                        assert!(self.storage.contains_key(reference), "sent before it is kept");
                    }
                    self.to_server.push_back(envelope);
                }
                Effect::SaveUnsent(unsent) => {
                    self.storage.insert(unsent.reference, unsent);
                }
                Effect::ForgetUnsent(reference) => {
                    let kept = self.storage.remove(&reference).expect("forgotten twice");
                    let is_durable = self.log.iter().any(|event| event.reference == Some(reference));
                    assert!(is_durable, "{kept:?} is lost");
                }
                Effect::SaveDraft { .. } | Effect::Navigate { .. } => {}
                // This server has no HTTP: nothing answers.
                Effect::AskSession => {}
                Effect::RenewSession | Effect::Load(_) => panic!("{effect:?}"),
            }
        }
        self.check_invariants();
        if connects {
            self.is_open = true;
            self.input(Input::Opened);
        }
    }

    /// What holds after every step: the run is a part of the log, and nothing is shown twice.
    fn check_invariants(&self) {
        assert!(self.state.wake_at().is_none_or(|at| at > self.now));
        let Some(room) = self.state.rooms.get(&LOBBY) else { return };
        if room.timeline.is_loaded() {
            let first = room.timeline.first() as usize - 1;
            assert!(room.timeline.last() as usize <= self.log.len());
            for (held, event) in room.timeline.events().zip(&self.log[first..]) {
                assert_eq!(**held, *event);
            }
        }
        let mut keys = Vec::new();
        for row in self.state.rows(LOBBY) {
            if let Row::Group { lines, .. } = row {
                keys.extend(lines.iter().map(|line| line.key));
            }
        }
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count, "something is shown twice");
    }

    fn info(&self) -> RoomInfo {
        let unread = self.log.iter().filter(|event| {
            let is_others = event.user.id != user(1).id;
            event.seq > self.read && is_others && matches!(event.kind, EventKind::Message { .. })
        });
        RoomInfo { unread: unread.count().min(100) as u32, ..info(LOBBY, self.log.len() as Seq, self.read) }
    }

    fn append(&mut self, author: u64, kind: EventKind, reference: Option<Ref>) {
        let seq = self.log.len() as Seq + 1;
        let event = Event { room: LOBBY, seq, at: self.now, user: user(author), kind, reference };
        self.log.push(event.clone());
        if self.is_greeted {
            self.to_client.push_back(ServerEnvelope::Event(event));
        }
    }

    fn joined(&self, after: Option<Seq>) -> ServerEnvelope {
        let head = self.log.len() as Seq;
        let gap = after.is_some_and(|after| head - after > REPLAY);
        let start = match after {
            Some(after) if !gap => after as usize,
            _ => self.log.len().saturating_sub(PAGE),
        };
        let events = self.log[start..].iter().take(PAGE).cloned().collect();
        ServerEnvelope::Joined { room: LOBBY, epoch: 1, head, events, gap, after, info: Some(self.info()) }
    }

    fn serve(&mut self, puts_off: bool) {
        let Some(envelope) = self.to_server.pop_front() else { return };
        match envelope {
            ClientEnvelope::Group { .. } | ClientEnvelope::Act(_) | ClientEnvelope::List { .. } => {}
            ClientEnvelope::Hello { resume } => {
                let limits = Limits { page_events: PAGE, ..Limits::default() };
                let rooms = vec![self.info()];
                self.to_client.push_back(ServerEnvelope::Welcome {
                    role: shared::rights::Role::Guest,
                    blocked: Vec::new(),
                    user: user(1),
                    rooms,
                    limits,
                    now: self.now,
                });
                self.is_greeted = true;
                for resume in resume {
                    self.to_client.push_back(self.joined(Some(resume.seq)));
                }
            }
            ClientEnvelope::Join { after, .. } => self.to_client.push_back(self.joined(after)),
            ClientEnvelope::History { room, before } => {
                let end = before as usize - 1;
                let events = self.log[end.saturating_sub(PAGE)..end].to_vec();
                self.to_client.push_back(ServerEnvelope::History { room, before, events });
            }
            ClientEnvelope::Send { reference, .. } if puts_off => {
                self.to_client.push_back(ServerEnvelope::Error(Failure {
                    reference: Some(reference),
                    retry_ms: Some(300),
                    ..Failure::new(ErrorCode::Unavailable, "Later.")
                }));
            }
            ClientEnvelope::Send { room, reference, body } => {
                let known = self.log.iter().find(|event| event.reference == Some(reference));
                let seq = known.map_or(self.log.len() as Seq + 1, |event| event.seq);
                if known.is_none() {
                    self.append(1, EventKind::message(Body::parse(&body, 0).unwrap()), Some(reference));
                }
                self.to_client.push_back(ServerEnvelope::Ack { reference, room, seq, at: self.now });
            }
            ClientEnvelope::Read { seq, .. } => self.read_to(seq),
            ClientEnvelope::Ping { n } => self.to_client.push_back(ServerEnvelope::Pong { n, now: self.now }),
            ClientEnvelope::Members { .. }
            | ClientEnvelope::Presence { .. }
            | ClientEnvelope::Typing { .. }
            | ClientEnvelope::Create { .. }
            | ClientEnvelope::Direct { .. }
            | ClientEnvelope::Leave { .. }
            | ClientEnvelope::Rename { .. }
            | ClientEnvelope::Directory => {}
        }
    }

    fn read_to(&mut self, seq: Seq) {
        assert!(seq <= self.log.len() as Seq);
        self.read = self.read.max(seq);
        if self.is_greeted {
            let unread = self.info().unread;
            self.to_client.push_back(ServerEnvelope::Read {
                room: LOBBY,
                seq: self.read,
                unread,
                version: 0,
                mentioned: 0,
            });
        }
    }

    fn is_event(&self, place: usize) -> bool {
        matches!(self.to_client.get(place), Some(ServerEnvelope::Event(_)))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Other { is_message: true } => {
                let body = Body::parse("hello", 0).unwrap();
                self.append(2, EventKind::message(body), None);
            }
            Step::Other { is_message: false } => self.append(3, EventKind::Joined, None),
            Step::Submit => {
                if self.state.rooms.contains_key(&LOBBY) {
                    let reference = reference(self.submitted.len() as u64);
                    self.submitted.push(reference);
                    let text = self.submitted.len().to_string();
                    self.input(Input::Submit { room: LOBBY, text, reference });
                }
            }
            Step::Serve { puts_off } => self.serve(*puts_off),
            Step::Deliver => {
                if let Some(envelope) = self.to_client.pop_front() {
                    self.input(Input::Received(envelope));
                }
            }
            Step::Lose => {
                if self.is_event(0) {
                    self.to_client.pop_front();
                }
            }
            Step::Double => {
                if self.is_event(0) {
                    self.to_client.push_back(self.to_client[0].clone());
                }
            }
            Step::Swap => {
                let is_ack = matches!(self.to_client.get(1), Some(ServerEnvelope::Ack { .. }));
                if self.is_event(0) && (self.is_event(1) || is_ack) {
                    self.to_client.swap(0, 1);
                }
            }
            Step::Cut => {
                if self.is_open {
                    self.cut();
                    self.input(Input::Closed { code: 1006 });
                }
            }
            Step::Reload => self.load(),
            Step::Wait(ms) => {
                self.now += Ms::from(*ms);
                self.input(Input::Tick);
            }
            Step::Scroll { at_latest } => {
                self.input(Input::Scrolled { room: LOBBY, at_latest: *at_latest });
            }
            Step::Older => self.input(Input::LoadOlder(LOBBY)),
            Step::Newer => self.input(Input::LoadNewer(LOBBY)),
            Step::Jump => self.input(Input::JumpToLatest(LOBBY)),
            Step::See => {
                if let Some(room) = self.state.rooms.get(&LOBBY) {
                    let seq = room.timeline.last();
                    self.input(Input::Seen { room: LOBBY, seq });
                }
            }
            Step::Navigate { is_away } => {
                self.input(Input::Navigated(if *is_away { Route::Lab } else { Route::Lobby }));
            }
            Step::ReadElsewhere => self.read_to(self.log.len() as Seq),
        }
    }

    /// The network works until nothing is on its way.
    fn settle(&mut self) {
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            self.serve(false);
            self.step(&Step::Deliver);
        }
    }

    /// The network works again, for a minute, and the person comes back.
    fn heal(&mut self) {
        // What was lost last can be noticed only by what comes after it.
        self.step(&Step::Other { is_message: true });
        self.input(Input::TryNow);
        self.step(&Step::Navigate { is_away: false });
        self.step(&Step::Jump);
        for _ in 0..120 {
            self.settle();
            self.step(&Step::Wait(500));
        }
    }
}

/// The plan ends well.
fn check(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        world.step(step);
    }
    world.heal();

    let room = &world.state.rooms[&LOBBY];
    assert!(room.timeline.is_live() && !room.timeline.has_hole());
    assert_eq!(room.timeline.last(), world.log.len() as Seq);
    assert_eq!(world.storage, BTreeMap::new());
    let sent: Vec<Ref> = world.log.iter().filter_map(|event| event.reference).collect();
    assert_eq!(sent, world.submitted, "each once, in the order of sending");

    // A snapshot and the events since it are as good as a later snapshot.
    let told = (room.read, room.unread, room.timeline.last());
    assert_eq!((room.read, room.unread), (world.read, world.info().unread));
    world.load();
    world.settle();
    let room = &world.state.rooms[&LOBBY];
    assert_eq!((room.read, room.unread, room.timeline.last()), told);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_ends_with_the_log_on_the_screen(steps in collection::vec(step(), 0..200)) {
        check(&steps);
    }
}
