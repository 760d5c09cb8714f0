//! What the whole client does, told as inputs and the effects they must have. `plans` has the random ones.

mod people;
mod plans;

use shared::model::{Body, LOBBY, Ms, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{
    ClientEnvelope, ErrorCode, Event, EventKind, Failure, Limits, Person, Presence, RoomInfo, RoomKind,
    ServerEnvelope, User,
};
use shared::reconnect::STABLE_MS;
use shared::rights::Role;

use super::{AWAY_AFTER_MS, Effect, Input, NOTICE_MS, State};
use crate::link::{Banner, CONNECT_TIMEOUT_MS, DEAD_MS, PROBE_TIMEOUT_MS, Phase, SILENCE_MS};
use crate::outbox::Unsent;
use crate::room::{ASK_TIMEOUT_MS, EVENT_GRACE_MS, READING_EVENTS_MAX, SHOWN_EVENTS_MAX};
use crate::route::Route;
use crate::rows::{Row, Standing};

const T0: Ms = 1_700_000_000_000;
const BOOKS: RoomId = RoomId::from_bits(50);

fn user(bits: u64) -> User {
    User { id: UserId::from_bits(bits), name: UserName::parse(&format!("u{bits}")).unwrap() }
}

fn reference(n: u64) -> Ref {
    let [.., a, b] = n.to_be_bytes();
    Ref::new(T0 + n as Ms, [a, b, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn message(room: RoomId, seq: Seq, author: u64, reference: Option<Ref>) -> Event {
    let body = Body::parse(&format!("{author}-{seq}"), 0).unwrap();
    Event { room, seq, at: T0 + seq as Ms, user: user(author), kind: EventKind::message(body), reference }
}

fn info(room: RoomId, head: Seq, read: Seq) -> RoomInfo {
    RoomInfo {
        name: Some(RoomName::parse(if room == LOBBY { "lobby" } else { "books" }).unwrap()),
        head,
        read,
        unread: (head - read).min(100) as u32,
        ..RoomInfo::new(room, RoomKind::Public)
    }
}

fn direct(room: RoomId, peer: u64) -> RoomInfo {
    RoomInfo { kind: RoomKind::Direct, name: None, peer: Some(user(peer)), ..info(room, 0, 0) }
}

fn welcome(rooms: Vec<RoomInfo>) -> ServerEnvelope {
    ServerEnvelope::Welcome {
        user: user(1),
        role: Role::Guest,
        blocked: vec![],
        rooms,
        limits: Limits::default(),
        now: T0,
    }
}

/// A page of messages by user 2.
fn joined(info: RoomInfo, after: Option<Seq>, seqs: std::ops::RangeInclusive<Seq>) -> ServerEnvelope {
    ServerEnvelope::Joined {
        room: info.id,
        epoch: info.epoch,
        head: info.head,
        events: seqs.map(|seq| message(info.id, seq, 2, None)).collect(),
        gap: false,
        after,
        info: Some(info),
    }
}

/// An answer to `resume`, which does not say how the reader sees the room.
fn resumed(room: RoomId, head: Seq, after: Seq) -> ServerEnvelope {
    ServerEnvelope::Joined {
        room,
        epoch: 1,
        head,
        events: (after + 1..=head).map(|seq| message(room, seq, 2, None)).collect(),
        gap: false,
        after: Some(after),
        info: None,
    }
}

/// The newest page of a room in which nothing happened.
fn empty(info: RoomInfo) -> ServerEnvelope {
    ServerEnvelope::Joined {
        room: info.id,
        epoch: info.epoch,
        head: 0,
        events: Vec::new(),
        gap: false,
        after: None,
        info: Some(info),
    }
}

fn failure(code: ErrorCode, retry_ms: Option<u32>) -> Failure {
    Failure { retry_ms, ..Failure::new(code, "No.") }
}

fn send(room: RoomId, n: u64, body: &str) -> Effect {
    Effect::Transmit(ClientEnvelope::Send { room, reference: reference(n), body: body.to_owned() })
}

fn join(room: &str, after: Option<Seq>) -> Effect {
    Effect::Transmit(ClientEnvelope::Join { room: room.to_owned(), after })
}

fn read(room: RoomId, seq: Seq) -> Effect {
    Effect::Transmit(ClientEnvelope::Read { room, seq, version: Some(0) })
}

/// A client and its clock.
struct Client {
    state: State,
    now: Ms,
}

impl Client {
    fn new() -> Self {
        Self { state: State::new(7), now: T0 }
    }

    /// A client that is in the lobby (1..=head, read to `read`) and in `books` (empty), and online.
    fn online(head: Seq, read: Seq) -> Self {
        let mut client = Self::new();
        client.start(Route::Lobby, Vec::new());
        client.go(Input::Opened);
        client.receive(welcome(vec![info(LOBBY, head, read), info(BOOKS, 0, 0)]));
        client.receive(joined(info(LOBBY, head, read), None, 1..=head));
        client
    }

    fn start(&mut self, route: Route, outbox: Vec<Unsent>) {
        let effects = self.go(Input::Start {
            route,
            outbox,
            drafts: vec![(BOOKS, "half".to_owned())],
            utc_offset_minutes: 0,
        });
        assert_eq!(effects, [Effect::Connect]);
    }

    fn go(&mut self, input: Input) -> Vec<Effect> {
        self.state.update(self.now, input)
    }

    fn receive(&mut self, envelope: ServerEnvelope) -> Vec<Effect> {
        self.go(Input::Received(envelope))
    }

    fn submit(&mut self, room: RoomId, n: u64, text: &str) -> Vec<Effect> {
        self.go(Input::Submit { room, text: text.to_owned(), reference: reference(n) })
    }

    /// The input has these effects.
    #[track_caller]
    fn check(&mut self, input: Input, effects: &[Effect]) {
        assert_eq!(self.go(input), effects);
    }

    /// The frame has these effects.
    #[track_caller]
    fn check_frame(&mut self, envelope: ServerEnvelope, effects: &[Effect]) {
        self.check(Input::Received(envelope), effects);
    }

    /// After `ms` milliseconds a tick is wanted (at the latest), and has these effects.
    #[track_caller]
    fn check_after(&mut self, ms: Ms, effects: &[Effect]) {
        let end = self.now + ms;
        let mut all = Vec::new();
        while let Some(at) = self.state.wake_at().filter(|at| *at <= end) {
            assert!(at > self.now, "a tick is wanted at once, again and again");
            self.now = at;
            all.extend(self.go(Input::Tick));
        }
        self.now = end;
        assert_eq!(all, effects);
    }

    fn seqs(&self, room: RoomId) -> Vec<Seq> {
        self.state.rooms[&room].timeline.events().map(|event| event.seq).collect()
    }

    fn unread(&self, room: RoomId) -> u32 {
        self.state.rooms[&room].unread
    }

    /// The bodies of a room's messages, with a mark for those that are not confirmed.
    fn bodies(&self, room: RoomId) -> Vec<String> {
        let mut bodies = Vec::new();
        for row in self.state.rows(room) {
            if let Row::Group { lines, .. } = row {
                bodies.extend(lines.iter().map(|line| match line.standing {
                    Standing::Confirmed(_) => line.body.to_owned(),
                    Standing::Pending(_) => format!("{}?", line.body),
                    Standing::Failed { reason, .. } => format!("{}! {reason}", line.body),
                }));
            }
        }
        bodies
    }
}

#[test]
fn a_first_visit_greets_and_loads_the_lobby() {
    let mut client = Client::new();
    client.start(Route::Lobby, Vec::new());
    assert!(client.state.current_room().is_none());
    client.check(Input::Opened, &[Effect::Transmit(ClientEnvelope::Hello { resume: Vec::new() })]);
    client.check_frame(
        welcome(vec![info(LOBBY, 3, 1), info(BOOKS, 0, 0)]),
        &[join("0000000000001", None), Effect::Transmit(ClientEnvelope::Members { room: LOBBY })],
    );
    assert_eq!((client.unread(LOBBY), client.state.rooms[&BOOKS].draft.as_str()), (2, "half"));
    client.check_frame(joined(info(LOBBY, 3, 1), None, 1..=3), &[]);
    let room = client.state.current_room().unwrap();
    assert_eq!((room.new_line, room.timeline.is_complete()), (Some(1), true));
    assert!(matches!(client.state.rows(LOBBY)[2], Row::New));
}

#[test]
fn a_message_is_kept_sent_and_confirmed_in_either_order() {
    for ack_first in [true, false] {
        let mut client = Client::online(1, 1);
        client.go(Input::Drafted { room: LOBBY, text: "hi".to_owned() });
        let effects = client.submit(LOBBY, 1, "hi");
        assert!(matches!(&effects[0], Effect::SaveUnsent(unsent) if unsent.body == "hi"));
        assert_eq!(
            effects[1..],
            [Effect::SaveDraft { room: LOBBY, text: String::new() }, send(LOBBY, 1, "hi")]
        );
        assert_eq!(client.bodies(LOBBY), ["2-1", "hi?"]);
        let ack = ServerEnvelope::Ack { reference: reference(1), room: LOBBY, seq: 2, at: T0 };
        let event = ServerEnvelope::Event(message(LOBBY, 2, 1, Some(reference(1))));
        let (first, second) = if ack_first { (ack, event) } else { (event, ack) };
        client.check_frame(first, &[Effect::ForgetUnsent(reference(1))]);
        assert_eq!(client.bodies(LOBBY).len(), 2);
        client.check_frame(second, &[]);
        assert_eq!(client.bodies(LOBBY), ["2-1", "1-2"]);
        assert_eq!(client.unread(LOBBY), 0);
    }
}

#[test]
fn sends_of_a_room_wait_for_each_other_and_go_out_again_after_a_reconnect() {
    let mut client = Client::online(0, 0);
    assert_eq!(client.submit(LOBBY, 1, "one").last(), Some(&send(LOBBY, 1, "one")));
    assert_eq!(client.submit(LOBBY, 2, "two").len(), 1, "only kept");
    assert_eq!(client.submit(BOOKS, 3, "three").last(), Some(&send(BOOKS, 3, "three")));
    client.check(Input::Closed { code: 1006 }, &[]);
    client.check_after(1_000, &[Effect::Connect]);
    client.go(Input::Opened);
    let effects = client.receive(welcome(vec![info(LOBBY, 0, 0), info(BOOKS, 0, 0)]));
    let sends: Vec<_> = effects
        .into_iter()
        .filter(|effect| matches!(effect, Effect::Transmit(ClientEnvelope::Send { .. })))
        .collect();
    assert_eq!(sends, [send(LOBBY, 1, "one"), send(BOOKS, 3, "three")]);
    let event = ServerEnvelope::Event(message(LOBBY, 1, 1, Some(reference(1))));
    client.check_frame(event, &[Effect::ForgetUnsent(reference(1)), send(LOBBY, 2, "two")]);
}

#[test]
fn a_refused_message_waits_for_the_person_and_a_hurried_one_for_the_server() {
    let mut client = Client::online(0, 0);
    client.submit(LOBBY, 1, "one");
    client.submit(LOBBY, 2, "two");
    let fail = |n, code, retry_ms| {
        ServerEnvelope::Error(Failure { reference: Some(reference(n)), ..failure(code, retry_ms) })
    };
    client.check_frame(fail(1, ErrorCode::RateLimited, Some(700)), &[]);
    client.check_after(699, &[]);
    client.check_after(1, &[send(LOBBY, 1, "one")]);
    let effects = client.receive(fail(1, ErrorCode::BodyTooLong, None));
    assert!(matches!(&effects[0], Effect::SaveUnsent(unsent) if unsent.failed.as_deref() == Some("No.")));
    assert_eq!(effects[1..], [send(LOBBY, 2, "two")]);
    assert_eq!(
        (client.bodies(LOBBY), client.state.failed_count(LOBBY)),
        (vec!["one! No.".to_owned(), "two?".to_owned()], 1)
    );
    client.go(Input::RetryAll(LOBBY));
    assert_eq!(client.bodies(LOBBY), ["two?", "one?"]);
    client.receive(fail(2, ErrorCode::NotMember, None));
    client.check(Input::Discard(reference(2)), &[Effect::ForgetUnsent(reference(2))]);
    assert_eq!(client.bodies(LOBBY), ["one?"]);
}

#[test]
fn what_another_user_of_the_browser_left_is_not_sent() {
    let unsent = |n, user: User| Unsent {
        reference: reference(n),
        user: user.id,
        room: LOBBY,
        body: n.to_string(),
        at: T0,
        failed: None,
    };
    let mut client = Client::new();
    client.start(Route::Lobby, vec![unsent(1, user(9)), unsent(2, user(1))]);
    client.go(Input::Opened);
    let effects = client.receive(welcome(vec![info(LOBBY, 0, 0)]));
    assert_eq!(effects.last(), Some(&send(LOBBY, 2, "2")));
    assert_eq!(client.bodies(LOBBY), ["2?"]);
}

#[test]
fn a_hole_is_asked_for_once_and_again_after_a_while() {
    let mut client = Client::online(3, 3);
    let live = |seq| ServerEnvelope::Event(message(LOBBY, seq, 2, None));
    client.check_frame(live(6), &[join("0000000000001", Some(3))]);
    client.check_frame(live(7), &[]);
    client.check_after(ASK_TIMEOUT_MS, &[join("0000000000001", Some(3))]);
    client.check_frame(joined(info(LOBBY, 7, 3), Some(3), 4..=5), &[]);
    assert_eq!((client.seqs(LOBBY), client.unread(LOBBY)), ((1..=7).collect(), 4));
    client.check_frame(live(5), &[]);
    assert_eq!(client.unread(LOBBY), 4);
}

#[test]
fn an_acknowledged_message_whose_event_does_not_come_is_asked_for() {
    let mut client = Client::online(3, 3);
    client.submit(LOBBY, 1, "hi");
    client.receive(ServerEnvelope::Ack { reference: reference(1), room: LOBBY, seq: 4, at: T0 });
    client.check_after(EVENT_GRACE_MS - 1, &[]);
    client.check_after(1, &[join("0000000000001", Some(3))]);
}

#[test]
fn a_reconnect_resumes_and_a_gap_or_another_log_replaces() {
    let mut client = Client::online(3, 3);
    client.go(Input::Closed { code: 1001 });
    client.check_after(1_000, &[Effect::Connect]);
    let effects = client.go(Input::Opened);
    let [Effect::Transmit(ClientEnvelope::Hello { resume })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((resume.len(), resume[0].room, resume[0].seq), (1, LOBBY, 3));
    // A live event may come before the answer to `resume`.
    client.receive(welcome(vec![info(LOBBY, 250, 3), info(BOOKS, 0, 0)]));
    assert_eq!(client.unread(LOBBY), 100);
    client.check_frame(ServerEnvelope::Event(message(LOBBY, 251, 2, None)), &[]);
    client.check_frame(joined(info(LOBBY, 250, 3), Some(3), 4..=103), &[join("0000000000001", Some(103))]);
    client
        .check_frame(joined(info(LOBBY, 251, 3), Some(103), 104..=203), &[join("0000000000001", Some(203))]);
    client.check_frame(joined(info(LOBBY, 251, 3), Some(203), 204..=251), &[]);
    assert_eq!(client.seqs(LOBBY), (1..=251).collect::<Vec<_>>());

    let ServerEnvelope::Joined { room, epoch, head, events, after, info: of, .. } =
        joined(info(LOBBY, 2_000, 3), Some(251), 1_901..=2_000)
    else {
        unreachable!()
    };
    client.check_frame(ServerEnvelope::Joined { room, epoch, head, events, after, info: of, gap: true }, &[]);
    assert_eq!(client.seqs(LOBBY), (1_901..=2_000).collect::<Vec<_>>());

    let other_log = RoomInfo { epoch: 2, unread: 0, ..info(LOBBY, 5, 5) };
    client.receive(welcome(vec![other_log.clone()]));
    assert_eq!((client.seqs(LOBBY).len(), client.state.rooms.len()), (0, 1));
    client.check_frame(joined(other_log, None, 1..=5), &[]);
    assert_eq!(client.seqs(LOBBY), [1, 2, 3, 4, 5]);
}

#[test]
fn an_answer_to_resume_leaves_what_the_welcome_said() {
    let mut client = Client::online(3, 3);
    client.go(Input::Closed { code: 1001 });
    client.check_after(1_000, &[Effect::Connect]);
    client.go(Input::Opened);
    client.receive(welcome(vec![RoomInfo { unread: 4, ..info(LOBBY, 9, 5) }, info(BOOKS, 0, 0)]));
    client.check_frame(resumed(LOBBY, 9, 3), &[]);
    assert_eq!((client.seqs(LOBBY), client.unread(LOBBY)), ((1..=9).collect(), 4));
    // Of a room that one is not in: somebody left it on another device meanwhile.
    client.check_frame(resumed(RoomId::from_bits(99), 9, 3), &[]);
    assert_eq!(client.state.rooms.len(), 2);
}

#[test]
fn reading_is_told_at_most_once_a_second_and_merges_by_maximum() {
    let mut client = Client::online(9, 2);
    assert_eq!((client.unread(LOBBY), client.state.total_unread()), (7, 7));
    client.check(Input::Seen { room: LOBBY, seq: 4 }, &[read(LOBBY, 4)]);
    client.check(Input::Seen { room: LOBBY, seq: 6 }, &[]);
    client.check(Input::Seen { room: LOBBY, seq: 7 }, &[]);
    client.check(Input::Seen { room: LOBBY, seq: 5 }, &[]);
    assert_eq!(client.unread(LOBBY), 2);
    client.check_after(1_000, &[read(LOBBY, 7)]);
    client
        .check_frame(ServerEnvelope::Read { room: LOBBY, seq: 4, unread: 5, version: 0, mentioned: 0 }, &[]);
    assert_eq!(client.unread(LOBBY), 2);
    client
        .check_frame(ServerEnvelope::Read { room: LOBBY, seq: 8, unread: 1, version: 0, mentioned: 0 }, &[]);
    assert_eq!(client.unread(LOBBY), 1);
    client.go(Input::Visibility(false));
    client.check(Input::Seen { room: LOBBY, seq: 9 }, &[]);
    assert_eq!(client.unread(LOBBY), 1);
}

#[test]
fn what_was_read_is_told_before_the_tab_can_close() {
    let mut client = Client::online(9, 2);
    client.check(Input::Seen { room: LOBBY, seq: 4 }, &[read(LOBBY, 4)]);
    client.check(Input::Seen { room: LOBBY, seq: 9 }, &[]);
    client.check(Input::Visibility(false), &[read(LOBBY, 9)]);
}

#[test]
fn only_messages_of_others_are_unread_also_in_rooms_that_are_not_loaded() {
    let mut client = Client::online(0, 0);
    let mut live = |seq, author, kind| {
        let event = Event { kind, ..message(BOOKS, seq, author, None) };
        client.receive(ServerEnvelope::Event(event));
        client.unread(BOOKS)
    };
    let text = || EventKind::message(Body::parse("x", 0).unwrap());
    assert_eq!(live(1, 2, EventKind::Joined), 0);
    assert_eq!(live(2, 1, text()), 0);
    assert_eq!(live(3, 2, text()), 1);
    assert_eq!(live(3, 2, text()), 1);
    assert_eq!(live(5, 3, text()), 2);
    assert_eq!(live(4, 3, text()), 3);
    // The other device reads; the server's count may or may not contain what came meanwhile.
    client.receive(ServerEnvelope::Read { room: BOOKS, seq: 4, unread: 0, version: 0, mentioned: 0 });
    assert_eq!(client.unread(BOOKS), 1);
    client.receive(ServerEnvelope::Read { room: BOOKS, seq: 5, unread: 0, version: 0, mentioned: 0 });
    assert_eq!(client.unread(BOOKS), 0);
}

#[test]
fn the_new_line_comes_when_messages_are_missed_and_goes_with_an_answer() {
    let mut client = Client::online(3, 3);
    let line = |client: &Client| client.state.rooms[&LOBBY].new_line;
    client.receive(ServerEnvelope::Event(message(LOBBY, 4, 2, None)));
    assert_eq!(line(&client), None, "it is seen as it comes");
    client.go(Input::Seen { room: LOBBY, seq: 4 });
    client.go(Input::Visibility(false));
    client.receive(ServerEnvelope::Event(message(LOBBY, 5, 2, None)));
    client.receive(ServerEnvelope::Event(message(LOBBY, 6, 2, None)));
    client.go(Input::Visibility(true));
    client.go(Input::Seen { room: LOBBY, seq: 6 });
    assert_eq!(line(&client), Some(4));
    client.submit(LOBBY, 1, "hi");
    assert_eq!(line(&client), None);
}

#[test]
fn typing_is_told_every_three_seconds_and_shown_for_six() {
    let mut client = Client::online(0, 0);
    let typing = Effect::Transmit(ClientEnvelope::Typing { room: LOBBY });
    let saved = |text: &str| Effect::SaveDraft { room: LOBBY, text: text.to_owned() };
    let drafted = |text: &str| Input::Drafted { room: LOBBY, text: text.to_owned() };
    client.check(drafted("a"), &[saved("a"), typing.clone()]);
    client.check(drafted("ab"), &[saved("ab")]);
    client.check_after(3_000, &[]);
    client.check(drafted("abc"), &[saved("abc"), typing]);
    client.check(drafted(""), &[saved("")]);

    client.receive(ServerEnvelope::Typing { room: LOBBY, user: user(1) });
    client.receive(ServerEnvelope::Typing { room: LOBBY, user: user(2) });
    client.receive(ServerEnvelope::Typing { room: LOBBY, user: user(3) });
    let typists = |client: &Client| -> Vec<u64> {
        client.state.rooms[&LOBBY].typing.iter().map(|typist| typist.user.id.bits()).collect()
    };
    assert_eq!(typists(&client), [2, 3]);
    client.receive(ServerEnvelope::Event(message(LOBBY, 1, 2, None)));
    assert_eq!(typists(&client), [3]);
    client.check_after(6_000, &[]);
    assert_eq!(typists(&client), [0u64; 0]);
}

#[test]
fn presence_merges_and_absence_is_told() {
    let mut client = Client::online(0, 0);
    let person = |bits, presence| Person { user: user(bits), presence };
    let people = vec![person(2, Presence::Online), person(3, Presence::Offline)];
    client.receive(ServerEnvelope::Members { room: BOOKS, online: 1, total: 2, people });
    let changes = vec![person(2, Presence::Offline), person(3, Presence::Away), person(4, Presence::Offline)];
    client.receive(ServerEnvelope::Presence { room: BOOKS, online: 1, people: changes });
    let room = &client.state.rooms[&BOOKS];
    let told: Vec<_> = room.people.values().map(|person| (person.user.id.bits(), person.presence)).collect();
    assert_eq!(told, [(2, Presence::Offline), (3, Presence::Away)]);
    assert_eq!((room.online, room.members), (1, 2));

    let tell = |presence| Effect::Transmit(ClientEnvelope::Presence { presence });
    client.check(Input::Idle(true), &[tell(Presence::Away)]);
    client.check(Input::Idle(false), &[tell(Presence::Online)]);
    client.go(Input::Visibility(false));
    let mut effects = Vec::new();
    for _ in 0..AWAY_AFTER_MS / 1_000 {
        client.now += 1_000;
        effects.extend(client.go(Input::Tick));
        client.receive(ServerEnvelope::Directory { rooms: Vec::new() });
    }
    assert_eq!(effects, [tell(Presence::Away)]);
    assert_eq!(client.go(Input::Visibility(true)).last(), Some(&tell(Presence::Online)));
}

#[test]
fn addresses_open_rooms_and_what_is_not_there_leads_to_the_lobby() {
    let mut client = Client::online(0, 0);
    client.check(
        Input::JoinRoom("Films".to_owned()),
        &[Effect::Navigate { route: Route::room("films").unwrap(), replace: false }, join("films", None)],
    );
    assert!(client.state.current_room().is_none());
    let not_found = Failure { request: Some("join".to_owned()), ..failure(ErrorCode::NotFound, None) };
    client.check_frame(
        ServerEnvelope::Error(not_found),
        &[Effect::Navigate { route: Route::Lobby, replace: true }],
    );
    assert_eq!((client.state.notices.len(), client.state.current_room().unwrap().info.id), (1, LOBBY));
    client.check_after(NOTICE_MS, &[]);
    assert!(client.state.notices.is_empty());

    let peer = user(5).id;
    client.check(
        Input::Navigated(Route::Direct(peer)),
        &[Effect::Transmit(ClientEnvelope::Direct { user: peer })],
    );
    let room = RoomId::from_bits(60);
    client.check_frame(empty(direct(room, 5)), &[Effect::Transmit(ClientEnvelope::Members { room })]);
    assert_eq!(client.state.current_room().unwrap().info.id, room);

    client.check(Input::LeaveRoom(room), &[Effect::Transmit(ClientEnvelope::Leave { room })]);
    client.check_frame(
        ServerEnvelope::Left { room },
        &[Effect::Navigate { route: Route::Lobby, replace: true }],
    );
    assert!(!client.state.rooms.contains_key(&room));
}

#[test]
fn what_the_server_puts_off_is_asked_again_then() {
    let mut client = Client::online(3, 0);
    let put_off = |request: &str| {
        let failure = failure(ErrorCode::RateLimited, Some(400));
        ServerEnvelope::Error(Failure { request: Some(request.to_owned()), ..failure })
    };
    client.check(Input::Seen { room: LOBBY, seq: 3 }, &[read(LOBBY, 3)]);
    client.check_frame(put_off("read"), &[]);
    client.check_after(400, &[read(LOBBY, 3)]);
    client.receive(ServerEnvelope::Read { room: LOBBY, seq: 3, unread: 0, version: 0, mentioned: 0 });
    client.check_frame(put_off("read"), &[]);
    client.check_after(1_000, &[]);

    let live = ServerEnvelope::Event(message(LOBBY, 6, 2, None));
    client.check_frame(live, &[join("0000000000001", Some(3))]);
    client.check_frame(put_off("join"), &[]);
    client.check_after(400, &[join("0000000000001", Some(3))]);
    client.check_frame(joined(info(LOBBY, 6, 3), Some(3), 4..=6), &[]);
    client.check_frame(put_off("members"), &[]);
    client.check_after(400, &[Effect::Transmit(ClientEnvelope::Members { room: LOBBY })]);

    let away = Effect::Transmit(ClientEnvelope::Presence { presence: Presence::Away });
    client.check(Input::Idle(true), std::slice::from_ref(&away));
    client.check_frame(put_off("presence"), &[]);
    client.check_after(400, &[away]);

    client.check(
        Input::JoinRoom("films".to_owned()),
        &[Effect::Navigate { route: Route::room("films").unwrap(), replace: false }, join("films", None)],
    );
    client.check_frame(put_off("join"), &[]);
    client.check_after(400, &[join("films", None)]);
    assert!(client.state.notices.is_empty());
}

#[test]
fn the_lobby_lists_those_present() {
    let mut client = Client::online(0, 0);
    let person = |bits, presence| Person { user: user(bits), presence };
    let people = vec![person(2, Presence::Online)];
    client.receive(ServerEnvelope::Members { room: LOBBY, online: 1, total: 1, people });
    let changes = vec![person(2, Presence::Offline), person(3, Presence::Away), person(4, Presence::Online)];
    client.receive(ServerEnvelope::Presence { room: LOBBY, online: 2, people: changes });
    let room = &client.state.rooms[&LOBBY];
    assert_eq!(room.people.keys().map(|id| id.bits()).collect::<Vec<_>>(), [3, 4]);
    assert_eq!((room.online, room.members), (2, 2));
}

#[test]
fn a_new_room_opens_when_it_is_made() {
    let mut client = Client::online(0, 0);
    client.check(
        Input::CreateRoom("Films".to_owned()),
        &[Effect::Transmit(ClientEnvelope::Create { name: "Films".to_owned(), private: false })],
    );
    let room = RoomId::from_bits(61);
    let films = RoomInfo { name: Some(RoomName::parse("films").unwrap()), ..info(room, 0, 0) };
    let effects = client.receive(empty(films));
    assert_eq!(effects[0], Effect::Navigate { route: Route::room("films").unwrap(), replace: false });
    assert_eq!(client.state.current_room().unwrap().info.id, room);
    let titles: Vec<_> = client.state.room_list().iter().map(|room| room.title()).collect();
    assert_eq!(titles, ["lobby", "books", "films"]);
}

#[test]
fn new_names_show_where_people_stand_now() {
    let mut client = Client::online(0, 0);
    let room = RoomId::from_bits(60);
    client.receive(empty(direct(room, 5)));
    let name = UserName::parse("Zoë").unwrap();
    let kind = EventKind::Renamed { name: name.clone() };
    client.receive(ServerEnvelope::Event(Event { kind, ..message(LOBBY, 1, 5, None) }));
    assert_eq!(client.state.rooms[&room].title(), "Zoë");
    client.receive(ServerEnvelope::Renamed { user: User { name, ..user(1) } });
    assert_eq!(client.state.me.as_ref().unwrap().name.as_str(), "Zoë");
}

#[test]
fn a_long_room_is_a_window_that_moves() {
    let mut client = Client::online(0, 0);
    for seq in 1..=400 {
        client.receive(ServerEnvelope::Event(message(LOBBY, seq, 2, None)));
    }
    assert_eq!(client.seqs(LOBBY).len(), SHOWN_EVENTS_MAX);
    client.go(Input::Scrolled { room: LOBBY, at_latest: false });
    client.check(
        Input::LoadOlder(LOBBY),
        &[Effect::Transmit(ClientEnvelope::History { room: LOBBY, before: 101 })],
    );
    client.check(Input::LoadOlder(LOBBY), &[]);
    assert!(client.state.rooms[&LOBBY].is_loading_older());
    let events = (1..=100).map(|seq| message(LOBBY, seq, 2, None)).collect();
    client.receive(ServerEnvelope::History { room: LOBBY, before: 101, events });
    assert!(client.state.rooms[&LOBBY].timeline.is_complete());
    for seq in 401..=1_100 {
        client.check_frame(ServerEnvelope::Event(message(LOBBY, seq, 2, None)), &[]);
    }
    assert_eq!(client.seqs(LOBBY), (1..=READING_EVENTS_MAX as Seq).collect::<Vec<_>>());
    assert_eq!(client.unread(LOBBY), 100);
    client.check(Input::LoadNewer(LOBBY), &[join("0000000000001", Some(1_000))]);
    client.check_frame(joined(info(LOBBY, 1_100, 0), Some(1_000), 1_001..=1_100), &[]);
    assert_eq!((client.seqs(LOBBY).len(), client.state.rooms[&LOBBY].timeline.is_live()), (1_000, false));
    client.check(Input::JumpToLatest(LOBBY), &[join("0000000000001", None)]);
    client.check_frame(joined(info(LOBBY, 1_100, 0), None, 1_001..=1_100), &[]);
    client.receive(ServerEnvelope::Event(message(LOBBY, 1_101, 2, None)));
    assert_eq!(client.seqs(LOBBY).last(), Some(&1_101));
    client.go(Input::Seen { room: LOBBY, seq: 1_101 });
    assert_eq!(client.unread(LOBBY), 0);
    client.go(Input::Navigated(Route::room("books").unwrap()));
    assert_eq!(client.seqs(LOBBY).len(), 100);
}

#[test]
fn a_dead_connection_is_noticed_and_replaced_at_once() {
    let mut client = Client::online(0, 0);
    let ping = |n| Effect::Transmit(ClientEnvelope::Ping { n });
    let dropped = Effect::Disconnect { code: 4001 };
    client.check_after(SILENCE_MS, &[ping(1)]);
    client.check_frame(ServerEnvelope::Pong { n: 1, now: T0 + 90_000 }, &[]);
    assert_eq!(client.state.clock_offset_ms, 90_000 - SILENCE_MS);
    client.check(Input::Woke, &[ping(2)]);
    client.check_after(PROBE_TIMEOUT_MS, &[dropped.clone(), Effect::Connect]);
    client.check_after(CONNECT_TIMEOUT_MS, std::slice::from_ref(&dropped));
    assert!(matches!(client.state.phase(), Phase::Waiting { .. }));
    assert!(matches!(client.state.banner(client.now), Some(Banner::Waiting { seconds: 1..=2 })));
    client.check(Input::TryNow, &[Effect::Connect]);
    assert_eq!(client.state.banner(client.now), Some(Banner::Connecting));

    // A machine that slept for long does not wait for an answer.
    let mut client = Client::online(0, 0);
    client.now += DEAD_MS;
    client.check(Input::Woke, &[dropped, Effect::Connect]);
    assert_eq!(client.state.banner(client.now), None);
}

#[test]
fn waits_grow_and_a_stable_minute_makes_them_short_again() {
    let mut client = Client::new();
    client.start(Route::Lobby, Vec::new());
    let mut longest = 0;
    for _ in 0..40 {
        client.check(Input::Closed { code: 1006 }, &[Effect::AskSession]);
        let Phase::Waiting { until } = client.state.phase() else { panic!() };
        longest = longest.max(until - client.now);
        client.check_after(until - client.now, &[Effect::Connect]);
    }
    assert!((16_000..=30_000).contains(&longest), "{longest}");
    client.go(Input::Opened);
    client.receive(welcome(vec![info(LOBBY, 0, 0)]));
    client.now += STABLE_MS;
    client.check(Input::Closed { code: 1006 }, &[]);
    let Phase::Waiting { until } = client.state.phase() else { panic!() };
    assert!(until - client.now <= 1_000);
}

#[test]
fn a_void_session_is_renewed_but_not_in_a_circle() {
    let mut client = Client::online(0, 0);
    client.check(Input::Closed { code: 1008 }, &[Effect::RenewSession]);
    assert_eq!(client.state.phase(), Phase::Stopped);
    // The page was loaded anew, and it was for nothing.
    client.check(Input::Refused, &[Effect::Load("/sign-in")]);
    client.check_after(600_000, &[]);
}

#[test]
fn a_clock_that_goes_back_stops_nothing() {
    let mut client = Client::online(0, 0);
    client.now -= 3_600_000;
    client.check(Input::Tick, &[]);
    assert!(client.state.wake_at().unwrap() <= client.now + SILENCE_MS);
    client.check_after(SILENCE_MS, &[Effect::Transmit(ClientEnvelope::Ping { n: 1 })]);
}

#[test]
fn after_sleep_what_the_socket_says_comes_before_it_is_given_up() {
    // Else the end of the old socket would be taken for that of the new one.
    let mut client = Client::online(3, 3);
    client.now += DEAD_MS + 1;
    client.check(Input::Closed { code: 1006 }, &[Effect::Connect]);
    assert!(matches!(client.state.phase(), Phase::Connecting { .. }));
}
