//! The wire, frozen: every envelope as JSON. What stands here is what clients in the field rely on; a line
//! may be added, not changed. docs/protocol.md shows the same examples, which a test compares.

use shared::model::{Body, LOBBY, Ref, RoomId, RoomName, UserId, UserName};
use shared::protocol::{
    AfterClose, ClientEnvelope, CloseCode, ErrorCode, Event, EventKind, Failure, Limits, Listing, Person,
    PlainMessage, Presence, Resume, RoomInfo, RoomKind, ServerEnvelope, User, decode, encode,
};
use shared::rights::Role;

const AT: i64 = 1_795_238_400_000;

fn ada() -> User {
    User { id: UserId::from_bits(0x1d5c_0b7f_93aa_2e11), name: UserName::parse("Ada").unwrap() }
}

fn bob() -> User {
    User { id: UserId::from_bits(0x2f11_7e5a_0c44_9d02), name: UserName::parse("Bob").unwrap() }
}

fn club() -> RoomId {
    RoomId::from_bits(0x0b1e_55ed_f00d_cafe)
}

fn reference() -> Ref {
    Ref::new(AT, [0x5a; 10])
}

fn info() -> RoomInfo {
    RoomInfo {
        name: Some(RoomName::parse("book-club").unwrap()),
        head: 42,
        read: 40,
        unread: 2,
        ..RoomInfo::new(club(), RoomKind::Public)
    }
}

fn direct_info() -> RoomInfo {
    RoomInfo { kind: RoomKind::Direct, name: None, peer: Some(bob()), ..info() }
}

fn event(kind: EventKind) -> Event {
    let reference = matches!(kind, EventKind::Message { .. }).then(reference);
    Event { room: club(), seq: 42, at: AT, user: ada(), kind, reference }
}

fn message() -> EventKind {
    EventKind::message(Body::parse("Good *morning*", 0).unwrap())
}

/// Each client envelope, with its JSON.
fn client() -> Vec<(ClientEnvelope, &'static str)> {
    let resume = vec![Resume { room: LOBBY, epoch: 1, seq: 17 }];
    vec![
        (ClientEnvelope::Hello { resume: vec![] }, r#"{"type":"hello"}"#),
        (
            ClientEnvelope::Hello { resume },
            r#"{"type":"hello","resume":[{"room":"0000000000001","epoch":1,"seq":17}]}"#,
        ),
        (
            ClientEnvelope::Join { room: "book-club".into(), after: None },
            r#"{"type":"join","room":"book-club"}"#,
        ),
        (
            ClientEnvelope::Join { room: club().to_string(), after: Some(40) },
            r#"{"type":"join","room":"0p7jnxqr0vjqy","after":40}"#,
        ),
        (
            ClientEnvelope::Create { name: "book-club".into(), private: false },
            r#"{"type":"create","name":"book-club"}"#,
        ),
        (ClientEnvelope::Direct { user: bob().id }, r#"{"type":"direct","user":"2y4byb8649782"}"#),
        (ClientEnvelope::Leave { room: club() }, r#"{"type":"leave","room":"0p7jnxqr0vjqy"}"#),
        (
            ClientEnvelope::History { room: club(), before: 42 },
            r#"{"type":"history","room":"0p7jnxqr0vjqy","before":42}"#,
        ),
        (
            ClientEnvelope::Send { room: club(), reference: reference(), body: "Good *morning*".into() },
            r#"{"type":"send","room":"0p7jnxqr0vjqy","ref":"01a1fc8c-1000-7a5a-9a5a-5a5a5a5a5a5a","body":"Good *morning*"}"#,
        ),
        (
            ClientEnvelope::Read { room: club(), seq: 42, version: None },
            r#"{"type":"read","room":"0p7jnxqr0vjqy","seq":42}"#,
        ),
        (ClientEnvelope::Rename { name: "Ada L.".into() }, r#"{"type":"rename","name":"Ada L."}"#),
        (ClientEnvelope::Presence { presence: Presence::Away }, r#"{"type":"presence","presence":"away"}"#),
        (ClientEnvelope::Typing { room: club() }, r#"{"type":"typing","room":"0p7jnxqr0vjqy"}"#),
        (ClientEnvelope::Members { room: club() }, r#"{"type":"members","room":"0p7jnxqr0vjqy"}"#),
        (ClientEnvelope::Directory, r#"{"type":"directory"}"#),
        (ClientEnvelope::Ping { n: 7 }, r#"{"type":"ping","n":7}"#),
    ]
}

/// Each server envelope and each kind of event, with its JSON.
fn server() -> Vec<(ServerEnvelope, &'static str)> {
    let person = |user, presence| Person { user, presence };
    vec![
        (
            ServerEnvelope::Welcome {
                user: ada(),
                role: Role::Member,
                blocked: vec![],
                rooms: vec![info()],
                limits: Limits { rooms_per_user: 200, ..Limits::default() },
                now: AT,
            },
            r#"{"type":"welcome","user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"role":"member","rooms":[{"id":"0p7jnxqr0vjqy","kind":"public","name":"book-club","epoch":1,"head":42,"read":40,"unread":2}],"limits":{"body_chars":4000,"name_chars":32,"frame_bytes":65536,"page_events":100,"rooms_per_user":200},"now":1795238400000}"#,
        ),
        (
            ServerEnvelope::Joined {
                room: club(),
                epoch: 1,
                head: 42,
                events: vec![event(message())],
                gap: false,
                after: Some(41),
                info: Some(info()),
            },
            r#"{"type":"joined","room":"0p7jnxqr0vjqy","epoch":1,"head":42,"events":[{"room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"message","body":"Good *morning*","ref":"01a1fc8c-1000-7a5a-9a5a-5a5a5a5a5a5a"}],"gap":false,"after":41,"info":{"id":"0p7jnxqr0vjqy","kind":"public","name":"book-club","epoch":1,"head":42,"read":40,"unread":2}}"#,
        ),
        (
            ServerEnvelope::Joined {
                room: club(),
                epoch: 1,
                head: 42,
                events: vec![],
                gap: true,
                after: None,
                info: Some(direct_info()),
            },
            r#"{"type":"joined","room":"0p7jnxqr0vjqy","epoch":1,"head":42,"events":[],"gap":true,"info":{"id":"0p7jnxqr0vjqy","kind":"direct","peer":{"id":"2y4byb8649782","name":"Bob"},"epoch":1,"head":42,"read":40,"unread":2}}"#,
        ),
        (
            ServerEnvelope::Joined {
                room: club(),
                epoch: 1,
                head: 42,
                events: vec![],
                gap: false,
                after: Some(42),
                info: None,
            },
            r#"{"type":"joined","room":"0p7jnxqr0vjqy","epoch":1,"head":42,"events":[],"gap":false,"after":42}"#,
        ),
        (ServerEnvelope::Left { room: club() }, r#"{"type":"left","room":"0p7jnxqr0vjqy"}"#),
        (
            ServerEnvelope::History { room: club(), before: 43, events: vec![event(EventKind::Joined)] },
            r#"{"type":"history","room":"0p7jnxqr0vjqy","before":43,"events":[{"room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"joined"}]}"#,
        ),
        (
            ServerEnvelope::Ack { reference: reference(), room: club(), seq: 42, at: AT },
            r#"{"type":"ack","ref":"01a1fc8c-1000-7a5a-9a5a-5a5a5a5a5a5a","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000}"#,
        ),
        (
            ServerEnvelope::Error(Failure {
                reference: Some(reference()),
                request: Some("send".into()),
                room: Some(club()),
                code: ErrorCode::RateLimited,
                message: "That was too fast. Wait a moment.".into(),
                retry_ms: Some(100),
            }),
            r#"{"type":"error","ref":"01a1fc8c-1000-7a5a-9a5a-5a5a5a5a5a5a","request":"send","room":"0p7jnxqr0vjqy","code":"rate_limited","message":"That was too fast. Wait a moment.","retry_ms":100}"#,
        ),
        (
            ServerEnvelope::Error(Failure::new(ErrorCode::BadJson, "A frame is one JSON object.")),
            r#"{"type":"error","code":"bad_json","message":"A frame is one JSON object."}"#,
        ),
        (
            ServerEnvelope::Event(event(message())),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"message","body":"Good *morning*","ref":"01a1fc8c-1000-7a5a-9a5a-5a5a5a5a5a5a"}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Created)),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"created"}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Joined)),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"joined"}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Left)),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"left"}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Renamed { name: UserName::parse("Ada L.").unwrap() })),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"renamed","name":"Ada L."}"#,
        ),
        (
            ServerEnvelope::Read { room: club(), seq: 42, version: 0, unread: 0, mentioned: 0 },
            r#"{"type":"read","room":"0p7jnxqr0vjqy","seq":42,"unread":0}"#,
        ),
        (
            ServerEnvelope::Renamed { user: ada() },
            r#"{"type":"renamed","user":{"id":"1tq0bfy9tmbgh","name":"Ada"}}"#,
        ),
        (
            ServerEnvelope::Presence { room: club(), online: 2, people: vec![person(bob(), Presence::Away)] },
            r#"{"type":"presence","room":"0p7jnxqr0vjqy","online":2,"people":[{"id":"2y4byb8649782","name":"Bob","presence":"away"}]}"#,
        ),
        (
            ServerEnvelope::Typing { room: club(), user: bob() },
            r#"{"type":"typing","room":"0p7jnxqr0vjqy","user":{"id":"2y4byb8649782","name":"Bob"}}"#,
        ),
        (
            ServerEnvelope::Members {
                room: club(),
                online: 1,
                total: 2,
                people: vec![person(ada(), Presence::Online), person(bob(), Presence::Offline)],
            },
            r#"{"type":"members","room":"0p7jnxqr0vjqy","online":1,"total":2,"people":[{"id":"1tq0bfy9tmbgh","name":"Ada","presence":"online"},{"id":"2y4byb8649782","name":"Bob","presence":"offline"}]}"#,
        ),
        (
            ServerEnvelope::Directory {
                rooms: vec![Listing {
                    id: club(),
                    name: RoomName::parse("book-club").unwrap(),
                    members: 2,
                    joined: true,
                }],
            },
            r#"{"type":"directory","rooms":[{"id":"0p7jnxqr0vjqy","name":"book-club","members":2,"joined":true}]}"#,
        ),
        (
            ServerEnvelope::Announcement { text: "Tea is ready".into(), at: AT },
            r#"{"type":"announcement","text":"Tea is ready","at":1795238400000}"#,
        ),
        (ServerEnvelope::Pong { n: 7, now: AT }, r#"{"type":"pong","n":7,"now":1795238400000}"#),
    ]
}

#[test]
fn client_envelopes_are_as_they_always_were() {
    let mut seen = Vec::new();
    for (envelope, json) in client() {
        assert_eq!(encode(&envelope), json);
        assert_eq!(decode(json).as_ref(), Ok(&envelope));
        assert!(json.contains(&format!(r#""type":"{}""#, envelope.type_name())));
        seen.push(envelope.type_name());
    }
    seen.dedup();
    assert_eq!(seen, ClientEnvelope::TYPES.to_vec(), "every type has an example");
}

#[test]
fn server_envelopes_are_as_they_always_were() {
    for (envelope, json) in server() {
        assert_eq!(encode(&envelope), json);
        assert_eq!(serde_json::from_str::<ServerEnvelope>(json).unwrap(), envelope);
    }
}

#[test]
fn what_a_newer_server_says_does_not_stop_an_older_client() {
    let json = r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1,"user":{"id":"1tq0bfy9tmbgh","name":"Ada","badge":"gold"},"kind":"poll","question":"Tea?","new":[1]}"#;
    let ServerEnvelope::Event(event) = serde_json::from_str(json).unwrap() else { panic!("an event") };
    assert_eq!((event.seq, event.kind), (42, EventKind::Unknown));
    let json = r#"{"type":"error","code":"too_tired","message":"Later."}"#;
    let ServerEnvelope::Error(failure) = serde_json::from_str(json).unwrap() else { panic!("an error") };
    assert_eq!(failure.code, ErrorCode::Unknown);
}

#[test]
fn frames_that_are_no_envelope_say_why() {
    let code = |text: &str| decode(text).unwrap_err().code;
    for text in ["", "x", "[]", "1", "\"hello\"", "null", "{", &"[".repeat(60_000), "{\"type\":\"ping\",}"] {
        assert_eq!(code(text), ErrorCode::BadJson, "{}", &text[..text.len().min(20)]);
    }
    for text in [r#"{"type":"dance"}"#, r#"{"type":""}"#, r#"{"type":"Hello"}"#] {
        assert_eq!(code(text), ErrorCode::UnknownType, "{text}");
    }
    for text in [
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"ping","n":-1}"#,
        r#"{"type":"ping","n":1e400}"#,
        r#"{"type":"ping","n":1,"n":2}"#,
        r#"{"type":"ping","type":"ping","n":1}"#,
        r#"{"type":"leave","room":"../../etc"}"#,
        r#"{"type":"read","room":"0p7jnxqr0vjqy","seq":18446744073709551616}"#,
    ] {
        let code = code(text);
        assert!(matches!(code, ErrorCode::BadField | ErrorCode::BadJson), "{text}: {code:?}");
    }
    let deep = format!(r#"{{"type":"ping","n":1,"x":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
    assert!(decode(&deep).is_err());
    let failure =
        decode(r#"{"type":"send","room":1,"ref":"01a1fc8c-1000-7a5a-9a5a-5a5a5a5a5a5a"}"#).unwrap_err();
    assert_eq!((failure.reference, failure.request.as_deref()), (Some(reference()), Some("send")));
}

#[test]
fn the_documentation_shows_every_example_code_and_close() {
    let page = include_str!("../../docs/protocol.md");
    let plain = PlainMessage { sender: "Quiet Otter".into(), message: "hello".into() };
    let examples = client().into_iter().map(|(_, json)| json.to_owned());
    let examples = examples.chain(server().into_iter().map(|(_, json)| json.to_owned()));
    for example in examples.chain([encode(&plain)]) {
        assert!(page.contains(&example), "docs/protocol.md lacks {example}");
    }
    for code in ErrorCode::ALL {
        let name = serde_json::to_string(&code).unwrap().replace('"', "`");
        assert!(page.contains(&format!("| {name} |")), "docs/protocol.md lacks the error {name}");
    }
    for (code, reason, after) in CloseCode::TABLE {
        let what = match after {
            AfterClose::Stay => "stay away",
            AfterClose::Reconnect => "reconnect, backing off",
            AfterClose::ReconnectSpread => "reconnect after a random wait",
            AfterClose::NewSession => "get a new session first",
        };
        let row = format!("| {} | {reason} | {what} |", code as u16);
        assert!(page.contains(&row), "docs/protocol.md lacks the row {row}");
    }
}
