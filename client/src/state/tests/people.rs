//! Accounts, roles, private rooms, cursors that go back, deletions, mentions, blocks and lists.

use shared::acts::{Act, Entry, List};
use shared::model::{LOBBY, Line, RoomId, RoomName, Seq, UserId};
use shared::protocol::{
    ClientEnvelope, ErrorCode, Event, EventKind, Person, Presence, RoomInfo, RoomKind, ServerEnvelope,
};
use shared::rights::{Right, Role, Standing};

use super::{BOOKS, Client, T0, empty, failure, info, join, joined, message, reference, user, welcome};
use crate::link::Phase;
use crate::route::Route;
use crate::rows::{Row, Standing as Place};
use crate::state::{Barrier, Effect, Input};

const DEN: RoomId = RoomId::from_bits(60);

fn event(room: RoomId, seq: Seq, author: u64, kind: EventKind) -> ServerEnvelope {
    let event = Event { kind, ..message(room, seq, author, None) };
    ServerEnvelope::Event(event)
}

fn mention(room: RoomId, seq: Seq, whom: Vec<UserId>, all: bool) -> ServerEnvelope {
    let EventKind::Message { body, .. } = message(room, seq, 2, None).kind else { unreachable!() };
    event(room, seq, 2, EventKind::Message { body, mentions: whom, all })
}

fn closed_room(id: RoomId, kind: RoomKind) -> RoomInfo {
    RoomInfo { name: None, ..RoomInfo { head: 0, ..RoomInfo::new(id, kind) } }
}

fn read(seq: Seq, version: u32) -> Effect {
    Effect::Transmit(ClientEnvelope::Read { room: LOBBY, seq, version: Some(version) })
}

fn read_frame(seq: Seq, version: u32, unread: u32) -> ServerEnvelope {
    ServerEnvelope::Read { room: LOBBY, seq, version, unread, mentioned: 0 }
}

fn open(route: Route, replace: bool) -> Effect {
    Effect::Navigate { route, replace }
}

/// Lets the wait pass until the next attempt to connect.
fn connect_again(client: &mut Client) {
    let Phase::Waiting { until } = client.state.phase() else { panic!("it does not wait") };
    client.check_after(until - client.now, &[Effect::Connect]);
}

fn notices(client: &Client) -> Vec<&str> {
    client.state.notices.iter().map(|notice| notice.text.as_str()).collect()
}

#[test]
fn a_cursor_goes_back_when_it_was_set_back_and_only_then() {
    let mut client = Client::online(5, 5);
    let act = Act::Unread { room: LOBBY, seq: 3 };
    client.check(Input::Act(act.clone()), &[Effect::Transmit(ClientEnvelope::Act(act))]);
    client.receive(read_frame(2, 1, 3));
    assert_eq!((client.state.rooms[&LOBBY].read, client.unread(LOBBY)), (2, 3));
    assert_eq!(client.state.rooms[&LOBBY].new_line, Some(2));
    // It stays so while the room is in view, until one comes back to it.
    client.check(Input::Seen { room: LOBBY, seq: 5 }, &[]);
    assert_eq!(client.unread(LOBBY), 3);
    client.receive(read_frame(5, 0, 0));
    assert_eq!(client.unread(LOBBY), 3, "a cursor of before");
    client.go(Input::Navigated(Route::room("books").unwrap()));
    client.go(Input::Navigated(Route::Lobby));
    client.check(Input::Seen { room: LOBBY, seq: 5 }, &[read(5, 1)]);
    assert_eq!(client.unread(LOBBY), 0);
    client.receive(read_frame(4, 1, 1));
    assert_eq!(client.unread(LOBBY), 0, "of the same version the higher one holds");
}

#[test]
fn a_cursor_set_back_elsewhere_is_learnt_on_return() {
    let mut client = Client::online(5, 5);
    client.go(Input::Closed { code: 1001 });
    connect_again(&mut client);
    client.go(Input::Opened);
    let back = RoomInfo { read_version: 2, unread: 4, ..info(LOBBY, 5, 1) };
    client.receive(welcome(vec![back, info(BOOKS, 0, 0)]));
    assert_eq!((client.state.rooms[&LOBBY].read, client.unread(LOBBY)), (1, 4));
}

#[test]
fn a_deleted_message_is_gone_from_rows_and_counts() {
    let mut client = Client::online(3, 3);
    client.go(Input::Navigated(Route::room("books").unwrap()));
    client.receive(empty(info(BOOKS, 0, 0)));
    client.receive(event(LOBBY, 4, 2, message(LOBBY, 4, 2, None).kind));
    assert_eq!(client.unread(LOBBY), 1);
    client.receive(event(LOBBY, 5, 2, EventKind::Deletion { of: 4 }));
    client.receive(event(LOBBY, 6, 2, EventKind::Deletion { of: 1 }));
    assert_eq!(client.unread(LOBBY), 0);
    let rows = client.state.rows(LOBBY);
    let mut kinds = Vec::new();
    for row in &rows {
        if let Row::Group { lines, .. } = row {
            kinds.extend(lines.iter().map(|line| match line.standing {
                Place::Confirmed(event) => {
                    (event.seq, event.kind == EventKind::Deleted, line.body.is_empty())
                }
                _ => unreachable!(),
            }));
        }
    }
    assert_eq!(kinds, [(1, true, true), (2, false, false), (3, false, false), (4, true, true)]);
    assert!(rows.iter().all(|row| !matches!(row, Row::System { .. })));
}

#[test]
fn a_deletion_is_taken_out_of_order_and_by_pages_read_before_it() {
    let mut client = Client::online(10, 10);
    // Behind a hole.
    client.receive(event(LOBBY, 12, 2, message(LOBBY, 12, 2, None).kind));
    client.receive(event(LOBBY, 13, 2, EventKind::Deletion { of: 12 }));
    client.receive(event(LOBBY, 11, 2, EventKind::Deletion { of: 2 }));
    let kind = |client: &Client, seq: Seq| {
        let events = client.state.rooms[&LOBBY].timeline.events();
        events.filter(|event| event.seq == seq).map(|event| event.kind.clone()).next()
    };
    assert_eq!(kind(&client, 12), Some(EventKind::Deleted));
    assert_eq!(kind(&client, 2), Some(EventKind::Deleted));

    let mut client = Client::new();
    client.start(Route::Lobby, Vec::new());
    client.go(Input::Opened);
    client.receive(welcome(vec![info(LOBBY, 6, 6)]));
    client.receive(joined(info(LOBBY, 6, 6), None, 5..=6));
    client.receive(event(LOBBY, 7, 2, EventKind::Deletion { of: 3 }));
    let events = (1..=4).map(|seq| message(LOBBY, seq, 2, None)).collect();
    client.receive(ServerEnvelope::History { room: LOBBY, before: 5, events });
    assert_eq!(kind(&client, 3), Some(EventKind::Deleted));
}

#[test]
fn mentions_are_counted_apart_and_a_quiet_room_tells_nothing_else() {
    let mut client = Client::online(0, 0);
    let quiet = RoomInfo { quiet: true, ..info(BOOKS, 0, 0) };
    client.receive(ServerEnvelope::Room { info: quiet });
    client.receive(event(BOOKS, 1, 2, message(BOOKS, 1, 2, None).kind));
    assert_eq!((client.unread(BOOKS), client.state.total_unread()), (1, 0));
    client.receive(mention(BOOKS, 2, vec![UserId::from_bits(1)], false));
    client.receive(mention(BOOKS, 3, vec![UserId::from_bits(3)], false));
    client.receive(mention(BOOKS, 4, vec![], true));
    let books = &client.state.rooms[&BOOKS];
    assert_eq!((books.unread, books.mentioned, books.notable()), (4, 2, 2));
    assert_eq!(client.state.total_unread(), 2);
    // Counted again by the run, and read.
    client.go(Input::Navigated(Route::room("books").unwrap()));
    let page = [(1, vec![]), (2, vec![UserId::from_bits(1)]), (3, vec![]), (4, vec![])];
    let events = page.into_iter().map(|(seq, whom)| {
        let ServerEnvelope::Event(event) = mention(BOOKS, seq, whom, seq == 4) else { unreachable!() };
        event
    });
    let (epoch, gap) = (1, false);
    let events = events.collect();
    client.receive(ServerEnvelope::Joined {
        room: BOOKS,
        epoch,
        head: 4,
        events,
        gap,
        after: None,
        info: None,
    });
    let books = &client.state.rooms[&BOOKS];
    assert_eq!((books.unread, books.mentioned), (4, 2));
    let told = client.state.rows(BOOKS).iter().any(|row| match row {
        Row::Group { lines, .. } => lines.iter().filter(|line| line.mentions_me).count() == 2,
        _ => false,
    });
    assert!(told);
    client.go(Input::Seen { room: BOOKS, seq: 4 });
    let books = &client.state.rooms[&BOOKS];
    assert_eq!((books.unread, books.mentioned), (0, 0));
}

#[test]
fn who_is_blocked_is_hidden() {
    let mut client = Client::online(2, 2);
    let typing = ServerEnvelope::Typing { room: LOBBY, user: user(2) };
    client.receive(typing.clone());
    assert_eq!(client.state.rooms[&LOBBY].typing.len(), 1);
    client.receive(ServerEnvelope::Me { role: Role::Member, blocked: vec![UserId::from_bits(2)] });
    client.receive(typing);
    assert!(client.state.rooms[&LOBBY].typing.is_empty());
    // What they say is not counted, be it counted again by the run or as it comes.
    client.receive(event(LOBBY, 3, 2, message(LOBBY, 3, 2, None).kind));
    client.receive(event(BOOKS, 1, 2, message(BOOKS, 1, 2, None).kind));
    assert_eq!((client.unread(LOBBY), client.unread(BOOKS)), (0, 0));
    assert!(client.state.rows(LOBBY).iter().any(|row| matches!(row, Row::Group { hidden: true, .. })));
    client.receive(ServerEnvelope::Me { role: Role::Member, blocked: vec![] });
    assert!(!client.state.rows(LOBBY).iter().any(|row| matches!(row, Row::Group { hidden: true, .. })));
}

#[test]
fn what_keeps_one_from_writing_is_known_and_ends() {
    let mut client = Client::online(0, 0);
    let barrier = |client: &Client, room: RoomId| client.state.barrier(&client.state.rooms[&room]);
    let until = T0 + 60_000;
    client.receive(event(LOBBY, 1, 2, EventKind::Muted { target: user(3), until }));
    assert_eq!(barrier(&client, LOBBY), None);
    client.receive(event(LOBBY, 2, 2, EventKind::Muted { target: user(1), until }));
    assert_eq!(barrier(&client, LOBBY), Some(Barrier::Muted(until)));
    // A tick comes when it is over, so that the page shows it.
    let mut ticks = Vec::new();
    while client.now < until {
        client.now = client.state.wake_at().unwrap();
        ticks.push(client.now);
        client.go(Input::Tick);
        for n in 1..5 {
            client.receive(ServerEnvelope::Pong { n, now: client.now });
        }
    }
    assert!(ticks.contains(&until), "{ticks:?}");
    assert_eq!(barrier(&client, LOBBY), None);

    client.receive(event(BOOKS, 1, 2, EventKind::Archived { archived: true }));
    assert_eq!(barrier(&client, BOOKS), Some(Barrier::Archived));
    client.receive(event(BOOKS, 2, 2, EventKind::Archived { archived: false }));
    assert_eq!(barrier(&client, BOOKS), None);
    let talk = RoomInfo { peer: Some(user(2)), ..closed_room(DEN, RoomKind::Direct) };
    client.receive(empty(talk));
    client.receive(ServerEnvelope::Me { role: Role::Guest, blocked: vec![UserId::from_bits(2)] });
    assert_eq!(barrier(&client, DEN), Some(Barrier::Blocked(UserId::from_bits(2))));
}

#[test]
fn whoever_is_muted_is_told_so_and_slow_mode_waits() {
    let mut client = Client::online(0, 0);
    client.submit(LOBBY, 1, "one");
    let told = |code| {
        let mut failure = failure(code, Some(5_000));
        failure.reference = Some(reference(1));
        ServerEnvelope::Error(failure)
    };
    client.check_frame(told(ErrorCode::SlowMode), &[]);
    assert_eq!(client.state.failed_count(LOBBY), 0);
    client.receive(told(ErrorCode::Muted));
    assert_eq!(client.state.failed_count(LOBBY), 1);
}

#[test]
fn a_room_is_as_its_events_say() {
    let mut client = Client::online(0, 0);
    client.receive(event(BOOKS, 1, 2, EventKind::Topic { text: Line::new("Novels") }));
    client.receive(event(BOOKS, 2, 2, EventKind::SlowMode { seconds: 30 }));
    client.receive(event(BOOKS, 3, 2, EventKind::Transferred { target: user(1) }));
    let books = &client.state.rooms[&BOOKS];
    assert_eq!(books.info.topic, Some(Line::new("Novels")));
    assert_eq!(books.info.slow_seconds, 30);
    assert_eq!(client.state.standing(books), Standing::Owner);
    assert!(client.state.may(Right::DeleteRoom, books));
    client.receive(event(BOOKS, 1, 2, EventKind::Topic { text: Line::new("Old") }));
    client.receive(event(BOOKS, 4, 2, EventKind::Topic { text: Line::new("") }));
    assert_eq!(client.state.rooms[&BOOKS].info.topic, None);

    // In view, the address follows the name.
    client.go(Input::Navigated(Route::room("books").unwrap()));
    let renamed = event(BOOKS, 5, 2, EventKind::RoomRenamed { text: Line::new("novels") });
    let effects = client.receive(renamed);
    assert_eq!(effects.first(), Some(&open(Route::room("novels").unwrap(), true)));
    assert_eq!(client.state.current_room().map(|room| room.title()).as_deref(), Some("novels"));
}

#[test]
fn a_private_room_is_made_and_opened_and_an_invitation_opens_nothing() {
    let mut client = Client::online(0, 0);
    let create = ClientEnvelope::Create { name: "den".to_owned(), private: true };
    client.check(Input::CreatePrivateRoom("den".to_owned()), &[Effect::Transmit(create)]);
    let named = |name: &str, id| {
        let name = Some(RoomName::parse(name).unwrap());
        RoomInfo { name, ..closed_room(id, RoomKind::Private) }
    };
    client.check_frame(empty(named("other", RoomId::from_bits(61))), &[]);
    let effects = client.receive(empty(named("den", DEN)));
    assert_eq!(effects.first(), Some(&open(Route::Private(DEN), false)));
    assert_eq!(client.state.current_room().map(|room| room.info.id), Some(DEN));
    let names: Vec<String> = client.state.room_list().iter().map(|room| room.title()).collect();
    assert_eq!(names, ["lobby", "books", "den", "other"]);
    // Taken out of it, one is in the lobby.
    client.check_frame(ServerEnvelope::Left { room: DEN }, &[open(Route::Lobby, true)]);
}

#[test]
fn a_group_is_opened_and_named_after_the_others() {
    let mut client = Client::online(0, 0);
    let users = vec![UserId::from_bits(2), UserId::from_bits(3)];
    let group = ClientEnvelope::Group { users: users.clone() };
    client.check(Input::OpenGroup(users), &[Effect::Transmit(group)]);
    let told = RoomInfo { people: vec![user(2), user(3)], ..closed_room(DEN, RoomKind::Group) };
    let effects = client.receive(empty(told));
    assert_eq!(effects.first(), Some(&open(Route::Private(DEN), false)));
    assert_eq!(client.state.rooms[&DEN].title(), "u2, u3");
    client.receive(event(DEN, 1, 2, EventKind::Invited { target: user(4) }));
    client.receive(event(DEN, 2, 3, EventKind::Left));
    assert_eq!(client.state.rooms[&DEN].title(), "u2, u4");
}

#[test]
fn the_lists_of_a_page_are_asked_for_again_when_something_was_done() {
    let list = |list| Effect::Transmit(ClientEnvelope::List { list, room: None, text: None, before: None });
    let mut client = Client::online(0, 0);
    client.receive(ServerEnvelope::Me { role: Role::Member, blocked: vec![] });
    let lists = [list(List::Sessions), list(List::Blocks), list(List::Bots)];
    client.check(Input::Navigated(Route::Settings), &lists);
    let row = |id: &str| Entry { id: id.to_owned(), ..Entry::default() };
    let rows = vec![row("1"); shared::acts::ROWS_MAX];
    client.check_frame(ServerEnvelope::List { list: List::Sessions, rows }, &[]);
    assert!(client.state.list(List::Sessions).unwrap().goes_on);
    let more =
        ClientEnvelope::List { list: List::Sessions, room: None, text: None, before: Some("1".to_owned()) };
    client.check(Input::More(List::Sessions), &[Effect::Transmit(more)]);
    client.receive(ServerEnvelope::List { list: List::Sessions, rows: vec![row("2")] });
    assert_eq!(client.state.list(List::Sessions).unwrap().rows.len(), shared::acts::ROWS_MAX + 1);

    let done = ServerEnvelope::Done {
        act: "make_token".to_owned(),
        room: None,
        user: None,
        secret: Some("geheim".to_owned()),
    };
    client.check_frame(done, &lists);
    assert_eq!(client.state.made.as_ref().unwrap().secret.0, "geheim");
    assert!(!format!("{:?}", client.state).contains("geheim"));
    client.receive(ServerEnvelope::List { list: List::Sessions, rows: vec![row("3")] });
    assert_eq!(client.state.list(List::Sessions).unwrap().rows.len(), 1);
    // Too fast: they are asked for again when the server says so, without a word to the person.
    let mut slow = failure(ErrorCode::RateLimited, Some(2_000));
    slow.request = Some("list".to_owned());
    client.check_frame(ServerEnvelope::Error(slow), &[]);
    assert!(client.state.notices.is_empty());
    client.check_after(1_999, &[]);
    client.check_after(1, &lists);
    client.go(Input::Navigated(Route::Lobby));
    assert!(client.state.made.is_none() && client.state.lists.is_empty());
}

#[test]
fn an_act_that_was_refused_is_told() {
    let mut client = Client::online(0, 0);
    let refused = |request: &str| {
        let mut failure = failure(ErrorCode::Forbidden, None);
        failure.request = Some(request.to_owned());
        ServerEnvelope::Error(failure)
    };
    client.receive(refused("members"));
    assert_eq!(notices(&client).len(), 0);
    client.receive(refused("remove"));
    assert_eq!(notices(&client), ["No."]);
}

#[test]
fn where_guests_are_not_welcome_the_page_is_the_one_to_sign_in() {
    let mut client = Client::new();
    client.start(Route::Lobby, Vec::new());
    client.check(Input::Closed { code: 1006 }, &[Effect::AskSession]);
    // A server that is away does not answer, and is waited for.
    connect_again(&mut client);
    client.check(Input::Closed { code: 1006 }, &[Effect::AskSession]);
    // One that refuses for another reason, too.
    client.check(Input::Session { is_somebody: true, guests: false }, &[]);
    connect_again(&mut client);
    client.check(Input::Closed { code: 1006 }, &[Effect::AskSession]);
    let nobody = Input::Session { is_somebody: false, guests: false };
    client.check(nobody.clone(), &[Effect::Load("/sign-in")]);
    client.check_after(600_000, &[]);
    client.check(nobody, &[]);
}

#[test]
fn a_session_that_ended_while_away_is_renewed() {
    let mut client = Client::online(0, 0);
    client.go(Input::Closed { code: 1001 });
    connect_again(&mut client);
    client.check(Input::Closed { code: 1006 }, &[Effect::AskSession]);
    client.check(Input::Session { is_somebody: false, guests: true }, &[Effect::RenewSession]);
}

#[test]
fn people_who_come_and_go_are_listed() {
    let mut client = Client::online(0, 0);
    let person = |bits| Person { user: user(bits), presence: Presence::Online };
    let people = vec![person(1), person(2)];
    client.receive(ServerEnvelope::Members { room: BOOKS, online: 2, total: 2, people });
    let ids = |client: &Client| -> Vec<u64> {
        client.state.rooms[&BOOKS].people.keys().map(|id| id.bits()).collect()
    };
    client.receive(event(BOOKS, 1, 2, EventKind::Invited { target: user(3) }));
    assert_eq!((ids(&client), client.state.rooms[&BOOKS].members), (vec![1, 2, 3], 3));
    client.receive(event(BOOKS, 2, 1, EventKind::Removed { target: user(2) }));
    assert_eq!((ids(&client), client.state.rooms[&BOOKS].members), (vec![1, 3], 2));
}

#[test]
fn an_event_that_comes_behind_its_successors_acknowledgement_still_tells_how_the_room_is() {
    let group = RoomInfo {
        people: vec![user(2), user(3)],
        name: None,
        kind: RoomKind::Group,
        owner: Some(UserId::from_bits(1)),
        ..info(BOOKS, 1, 1)
    };
    let mut client = Client::online(0, 0);
    client.receive(ServerEnvelope::Room { info: group });
    let removed = event(BOOKS, 2, 1, EventKind::Removed { target: user(3) });
    client.receive(ServerEnvelope::Ack { reference: reference(1), room: BOOKS, seq: 3, at: T0 });
    client.receive(removed);
    assert_eq!(client.state.rooms[&BOOKS].info.people, [user(2)]);
}

#[test]
fn what_an_event_may_have_changed_unseen_is_asked_for() {
    // An unread message that is not held is deleted.
    let mut client = Client::online(0, 0);
    client.receive(ServerEnvelope::Room { info: info(BOOKS, 4, 1) });
    let books = BOOKS.to_string();
    client.check_frame(event(BOOKS, 5, 2, EventKind::Deletion { of: 1 }), &[]);
    client.check_frame(event(BOOKS, 6, 2, EventKind::Deletion { of: 3 }), &[join(&books, Some(6))]);
    let nothing = std::ops::RangeInclusive::new(7, 6);
    client.receive(joined(RoomInfo { unread: 2, ..info(BOOKS, 6, 1) }, Some(6), nothing));
    assert_eq!(client.unread(BOOKS), 2);
    // The owner leaves.
    let owned = RoomInfo { owner: Some(UserId::from_bits(2)), ..info(BOOKS, 6, 6) };
    client.receive(ServerEnvelope::Room { info: owned.clone() });
    client.check_frame(event(BOOKS, 7, 3, EventKind::Left), &[]);
    client.check_frame(event(BOOKS, 8, 2, EventKind::Left), &[join(&books, Some(8))]);
    // Of a crowd nobody asks.
    client.receive(ServerEnvelope::Room { info: owned });
    client.receive(ServerEnvelope::Presence { room: BOOKS, online: 101, people: Vec::new() });
    client.check_frame(event(BOOKS, 9, 2, EventKind::Left), &[]);
}
