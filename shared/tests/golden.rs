//! The wire, frozen: every envelope as JSON. What stands here is what clients in the field rely on; a line
//! may be added, not changed. docs/protocol.md shows the same examples, which a test compares.

use std::collections::HashSet;

use shared::acts::{Act, Entry, List, Scope};
use shared::model::{Body, LOBBY, Line, Ref, RoomId, RoomName, UserId, UserName};
use shared::protocol::{
    AfterClose, ClientEnvelope, CloseCode, ErrorCode, Event, EventKind, FRAME_BYTES_MAX, Failure, Limits,
    Listing, Person, PlainMessage, Presence, Resume, RoomInfo, RoomKind, ServerEnvelope, User, decode,
    encode,
};
use shared::rights::Role;

const AT: i64 = 1_795_238_400_000;

fn ada() -> User {
    User { id: UserId::from_bits(0x1d5c_0b7f_93aa_2e11), name: UserName::parse("Ada").unwrap() }
}

fn bob() -> User {
    User { id: UserId::from_bits(0x2f11_7e5a_0c44_9d02), name: UserName::parse("Bob").unwrap() }
}

fn cy() -> User {
    User { id: UserId::from_bits(0x3556_f3a4_5a0e_8ccc), name: UserName::parse("Cy").unwrap() }
}

fn line(text: &str) -> Line {
    Line::new(text)
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

fn private_info() -> RoomInfo {
    RoomInfo {
        kind: RoomKind::Private,
        owner: Some(ada().id),
        topic: Some(line("Dune, to page 90")),
        archived: true,
        slow_seconds: 30,
        muted_until: Some(AT + 600_000),
        read_version: 3,
        mentioned: 1,
        quiet: true,
        ..info()
    }
}

fn group_info() -> RoomInfo {
    let people = vec![bob(), cy()];
    RoomInfo { kind: RoomKind::Group, name: None, people, owner: Some(ada().id), ..info() }
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
        (
            ClientEnvelope::Create { name: "book-club".into(), private: true },
            r#"{"type":"create","name":"book-club","private":true}"#,
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
        (
            ClientEnvelope::Read { room: club(), seq: 42, version: Some(3) },
            r#"{"type":"read","room":"0p7jnxqr0vjqy","seq":42,"version":3}"#,
        ),
        (ClientEnvelope::Rename { name: "Ada L.".into() }, r#"{"type":"rename","name":"Ada L."}"#),
        (ClientEnvelope::Presence { presence: Presence::Away }, r#"{"type":"presence","presence":"away"}"#),
        (ClientEnvelope::Typing { room: club() }, r#"{"type":"typing","room":"0p7jnxqr0vjqy"}"#),
        (ClientEnvelope::Members { room: club() }, r#"{"type":"members","room":"0p7jnxqr0vjqy"}"#),
        (ClientEnvelope::Directory, r#"{"type":"directory"}"#),
        (ClientEnvelope::Ping { n: 7 }, r#"{"type":"ping","n":7}"#),
        (
            ClientEnvelope::Group { users: vec![bob().id, cy().id] },
            r#"{"type":"group","users":["2y4byb8649782","3anqkmhd0x36c"]}"#,
        ),
    ]
}

/// Each act and each list, with its JSON.
#[rustfmt::skip]
fn acts() -> Vec<(ClientEnvelope, &'static str)> {
    vec![
        (ClientEnvelope::Act(Act::Invite { room: club(), user: bob().id }), r#"{"type":"act","act":"invite","room":"0p7jnxqr0vjqy","user":"2y4byb8649782"}"#),
        (ClientEnvelope::Act(Act::Remove { room: club(), user: bob().id }), r#"{"type":"act","act":"remove","room":"0p7jnxqr0vjqy","user":"2y4byb8649782"}"#),
        (ClientEnvelope::Act(Act::Transfer { room: club(), user: bob().id }), r#"{"type":"act","act":"transfer","room":"0p7jnxqr0vjqy","user":"2y4byb8649782"}"#),
        (ClientEnvelope::Act(Act::Topic { room: club(), text: line("Dune, to page 90") }), r#"{"type":"act","act":"topic","room":"0p7jnxqr0vjqy","text":"Dune, to page 90"}"#),
        (ClientEnvelope::Act(Act::RenameRoom { room: club(), name: "reading".into() }), r#"{"type":"act","act":"rename_room","room":"0p7jnxqr0vjqy","name":"reading"}"#),
        (ClientEnvelope::Act(Act::Archive { room: club(), archived: true }), r#"{"type":"act","act":"archive","room":"0p7jnxqr0vjqy","archived":true}"#),
        (ClientEnvelope::Act(Act::DeleteRoom { room: club() }), r#"{"type":"act","act":"delete_room","room":"0p7jnxqr0vjqy"}"#),
        (ClientEnvelope::Act(Act::SlowMode { room: club(), seconds: 30 }), r#"{"type":"act","act":"slow_mode","room":"0p7jnxqr0vjqy","seconds":30}"#),
        (ClientEnvelope::Act(Act::Mute { room: club(), user: bob().id, seconds: 600 }), r#"{"type":"act","act":"mute","room":"0p7jnxqr0vjqy","user":"2y4byb8649782","seconds":600}"#),
        (ClientEnvelope::Act(Act::Delete { room: club(), seq: 42 }), r#"{"type":"act","act":"delete","room":"0p7jnxqr0vjqy","seq":42}"#),
        (ClientEnvelope::Act(Act::Report { room: club(), seq: 42, text: line("spam") }), r#"{"type":"act","act":"report","room":"0p7jnxqr0vjqy","seq":42,"text":"spam"}"#),
        (ClientEnvelope::Act(Act::Unread { room: club(), seq: 40 }), r#"{"type":"act","act":"unread","room":"0p7jnxqr0vjqy","seq":40}"#),
        (ClientEnvelope::Act(Act::Quiet { room: club(), quiet: true }), r#"{"type":"act","act":"quiet","room":"0p7jnxqr0vjqy","quiet":true}"#),
        (ClientEnvelope::Act(Act::Block { user: bob().id, blocked: true }), r#"{"type":"act","act":"block","user":"2y4byb8649782","blocked":true}"#),
        (ClientEnvelope::Act(Act::EndSession { id: "17".into() }), r#"{"type":"act","act":"end_session","id":"17"}"#),
        (ClientEnvelope::Act(Act::EndSessions), r#"{"type":"act","act":"end_sessions"}"#),
        (ClientEnvelope::Act(Act::MakeBot { name: "Tea bot".into() }), r#"{"type":"act","act":"make_bot","name":"Tea bot"}"#),
        (ClientEnvelope::Act(Act::MakeToken { bot: bob().id, text: line("kitchen"), scopes: vec![Scope::Read, Scope::Send], seconds: 0 }), r#"{"type":"act","act":"make_token","bot":"2y4byb8649782","text":"kitchen","scopes":["read","send"],"seconds":0}"#),
        (ClientEnvelope::Act(Act::RevokeToken { id: "17".into() }), r#"{"type":"act","act":"revoke_token","id":"17"}"#),
        (ClientEnvelope::Act(Act::MakeIncomingHook { room: club(), text: line("builds") }), r#"{"type":"act","act":"make_incoming_hook","room":"0p7jnxqr0vjqy","text":"builds"}"#),
        (ClientEnvelope::Act(Act::MakeOutgoingHook { room: club(), text: line("archive"), url: "https://example.org/in".into() }), r#"{"type":"act","act":"make_outgoing_hook","room":"0p7jnxqr0vjqy","text":"archive","url":"https://example.org/in"}"#),
        (ClientEnvelope::Act(Act::RemoveHook { id: "17".into() }), r#"{"type":"act","act":"remove_hook","id":"17"}"#),
        (ClientEnvelope::Act(Act::Ban { user: Some(bob().id), addresses: None, text: line("spam"), seconds: 3_600 }), r#"{"type":"act","act":"ban","user":"2y4byb8649782","text":"spam","seconds":3600}"#),
        (ClientEnvelope::Act(Act::Ban { user: None, addresses: Some("203.0.113.0/24".into()), text: line("spam"), seconds: 0 }), r#"{"type":"act","act":"ban","addresses":"203.0.113.0/24","text":"spam","seconds":0}"#),
        (ClientEnvelope::Act(Act::Unban { id: "17".into() }), r#"{"type":"act","act":"unban","id":"17"}"#),
        (ClientEnvelope::Act(Act::CloseReport { id: "17".into() }), r#"{"type":"act","act":"close_report","id":"17"}"#),
        (ClientEnvelope::Act(Act::SetRole { user: bob().id, role: Role::Moderator }), r#"{"type":"act","act":"set_role","user":"2y4byb8649782","role":"moderator"}"#),
        (ClientEnvelope::Act(Act::MakeInvite { text: line("the new team"), uses: 5, seconds: 604_800 }), r#"{"type":"act","act":"make_invite","text":"the new team","uses":5,"seconds":604800}"#),
        (ClientEnvelope::Act(Act::MakeReset { user: bob().id }), r#"{"type":"act","act":"make_reset","user":"2y4byb8649782"}"#),
        (ClientEnvelope::Act(Act::RevokeLink { id: "17".into() }), r#"{"type":"act","act":"revoke_link","id":"17"}"#),
        (ClientEnvelope::List { list: List::Sessions, room: None, text: None, before: None }, r#"{"type":"list","list":"sessions"}"#),
        (ClientEnvelope::List { list: List::Blocks, room: None, text: None, before: None }, r#"{"type":"list","list":"blocks"}"#),
        (ClientEnvelope::List { list: List::Bots, room: None, text: None, before: None }, r#"{"type":"list","list":"bots"}"#),
        (ClientEnvelope::List { list: List::Hooks, room: Some(club()), text: None, before: None }, r#"{"type":"list","list":"hooks","room":"0p7jnxqr0vjqy"}"#),
        (ClientEnvelope::List { list: List::Users, room: None, text: Some(line("Bo")), before: None }, r#"{"type":"list","list":"users","text":"Bo"}"#),
        (ClientEnvelope::List { list: List::Links, room: None, text: None, before: None }, r#"{"type":"list","list":"links"}"#),
        (ClientEnvelope::List { list: List::Bans, room: None, text: None, before: None }, r#"{"type":"list","list":"bans"}"#),
        (ClientEnvelope::List { list: List::Reports, room: None, text: None, before: None }, r#"{"type":"list","list":"reports"}"#),
        (ClientEnvelope::List { list: List::Audit, room: None, text: None, before: Some("17".into()) }, r#"{"type":"list","list":"audit","before":"17"}"#),
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
            ServerEnvelope::Welcome {
                user: ada(),
                role: Role::Guest,
                blocked: vec![bob().id],
                rooms: vec![info()],
                limits: Limits { rooms_per_user: 200, ..Limits::default() },
                now: AT,
            },
            r#"{"type":"welcome","user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"role":"guest","rooms":[{"id":"0p7jnxqr0vjqy","kind":"public","name":"book-club","epoch":1,"head":42,"read":40,"unread":2}],"blocked":["2y4byb8649782"],"limits":{"body_chars":4000,"name_chars":32,"frame_bytes":65536,"page_events":100,"rooms_per_user":200},"now":1795238400000}"#,
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
            ServerEnvelope::Event(event(EventKind::Message {
                body: Body::parse("@Bob, @room: tea!", 0).unwrap(),
                mentions: vec![bob().id],
                all: true,
            })),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"message","body":"@Bob, @room: tea!","mentions":["2y4byb8649782"],"all":true,"ref":"01a1fc8c-1000-7a5a-9a5a-5a5a5a5a5a5a"}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Deleted)),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"deleted"}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Deletion { of: 40 })),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"deletion","of":40}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Invited { target: bob() })),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"invited","target":{"id":"2y4byb8649782","name":"Bob"}}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Removed { target: bob() })),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"removed","target":{"id":"2y4byb8649782","name":"Bob"}}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Transferred { target: bob() })),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"transferred","target":{"id":"2y4byb8649782","name":"Bob"}}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Muted { target: bob(), until: AT + 600_000 })),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"muted","target":{"id":"2y4byb8649782","name":"Bob"},"until":1795239000000}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Topic { text: line("Dune, to page 90") })),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"topic","text":"Dune, to page 90"}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::RoomRenamed { text: line("reading") })),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"room_renamed","text":"reading"}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::Archived { archived: true })),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"archived","archived":true}"#,
        ),
        (
            ServerEnvelope::Event(event(EventKind::SlowMode { seconds: 30 })),
            r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":42,"at":1795238400000,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"slow_mode","seconds":30}"#,
        ),
        (
            ServerEnvelope::Read { room: club(), seq: 42, version: 0, unread: 0, mentioned: 0 },
            r#"{"type":"read","room":"0p7jnxqr0vjqy","seq":42,"unread":0}"#,
        ),
        (
            ServerEnvelope::Read { room: club(), seq: 39, version: 3, unread: 3, mentioned: 1 },
            r#"{"type":"read","room":"0p7jnxqr0vjqy","seq":39,"version":3,"unread":3,"mentioned":1}"#,
        ),
        (
            ServerEnvelope::Room { info: private_info() },
            r#"{"type":"room","info":{"id":"0p7jnxqr0vjqy","kind":"private","name":"book-club","owner":"1tq0bfy9tmbgh","topic":"Dune, to page 90","archived":true,"slow_seconds":30,"muted_until":1795239000000,"epoch":1,"head":42,"read":40,"read_version":3,"unread":2,"mentioned":1,"quiet":true}}"#,
        ),
        (
            ServerEnvelope::Room { info: group_info() },
            r#"{"type":"room","info":{"id":"0p7jnxqr0vjqy","kind":"group","people":[{"id":"2y4byb8649782","name":"Bob"},{"id":"3anqkmhd0x36c","name":"Cy"}],"owner":"1tq0bfy9tmbgh","epoch":1,"head":42,"read":40,"unread":2}}"#,
        ),
        (
            ServerEnvelope::Me { role: Role::Moderator, blocked: vec![bob().id] },
            r#"{"type":"me","role":"moderator","blocked":["2y4byb8649782"]}"#,
        ),
        (
            ServerEnvelope::Done { act: "invite".into(), room: Some(club()), user: None, secret: None },
            r#"{"type":"done","act":"invite","room":"0p7jnxqr0vjqy"}"#,
        ),
        (
            ServerEnvelope::Done { act: "make_bot".into(), room: None, user: Some(bob()), secret: None },
            r#"{"type":"done","act":"make_bot","user":{"id":"2y4byb8649782","name":"Bob"}}"#,
        ),
        (
            ServerEnvelope::Done {
                act: "make_token".into(),
                room: None,
                user: None,
                secret: Some("q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s".into()),
            },
            r#"{"type":"done","act":"make_token","secret":"q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s"}"#,
        ),
        (
            ServerEnvelope::List {
                list: List::Sessions,
                rows: vec![Entry {
                    id: "17".into(),
                    text: "Firefox on Linux".into(),
                    at: Some(AT),
                    until: Some(AT + 600_000),
                    current: true,
                    ..Entry::default()
                }],
            },
            r#"{"type":"list","list":"sessions","rows":[{"id":"17","text":"Firefox on Linux","at":1795238400000,"until":1795239000000,"current":true}]}"#,
        ),
        (
            ServerEnvelope::List {
                list: List::Reports,
                rows: vec![Entry {
                    id: "18".into(),
                    user: Some(bob()),
                    by: Some(ada()),
                    room: Some(club()),
                    seq: Some(42),
                    text: "spam".into(),
                    more: "Buy tea!".into(),
                    at: Some(AT),
                    ..Entry::default()
                }],
            },
            r#"{"type":"list","list":"reports","rows":[{"id":"18","user":{"id":"2y4byb8649782","name":"Bob"},"by":{"id":"1tq0bfy9tmbgh","name":"Ada"},"room":"0p7jnxqr0vjqy","seq":42,"text":"spam","more":"Buy tea!","at":1795238400000}]}"#,
        ),
        (
            ServerEnvelope::List {
                list: List::Links,
                rows: vec![Entry {
                    id: "19".into(),
                    kind: "invite".into(),
                    by: Some(ada()),
                    text: "the new team".into(),
                    until: Some(AT + 600_000),
                    uses: Some(5),
                    ..Entry::default()
                }],
            },
            r#"{"type":"list","list":"links","rows":[{"id":"19","kind":"invite","by":{"id":"1tq0bfy9tmbgh","name":"Ada"},"text":"the new team","until":1795239000000,"uses":5}]}"#,
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
    let (mut types, mut acts_seen, mut lists_seen) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (envelope, json) in client().into_iter().chain(acts()) {
        assert_eq!(encode(&envelope), json);
        assert_eq!(decode(json).as_ref(), Ok(&envelope));
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        types.insert(value["type"].as_str().unwrap().to_owned());
        let name = if value["type"] == "act" { &value["act"] } else { &value["type"] };
        assert_eq!(envelope.type_name(), name);
        match envelope {
            ClientEnvelope::Act(act) => drop(acts_seen.insert(act.name())),
            ClientEnvelope::List { list, .. } => drop(lists_seen.insert(list)),
            _ => {}
        }
    }
    assert_eq!(types, ClientEnvelope::TYPES.map(String::from).into(), "every type has an example");
    assert_eq!(acts_seen, Act::NAMES.into(), "every act has an example");
    assert_eq!(lists_seen, List::ALL.into(), "every list has an example");
}

#[test]
fn server_envelopes_are_as_they_always_were() {
    let (mut types, mut kinds) = (HashSet::new(), HashSet::new());
    for (envelope, json) in server() {
        assert_eq!(encode(&envelope), json);
        assert_eq!(serde_json::from_str::<ServerEnvelope>(json).unwrap(), envelope);
        if let ServerEnvelope::Event(Event { kind, .. }) = &envelope {
            kinds.insert(std::mem::discriminant(kind));
        }
        types.insert(std::mem::discriminant(&envelope));
    }
    assert_eq!(types.len(), 19, "every type has an example");
    // All but the kind that no server sends.
    assert_eq!(kinds.len(), 15, "every kind of event has an example");
}

/// What costs little to send must cost little to refuse.
#[test]
fn a_frame_that_is_made_to_be_expensive_is_refused_quickly() {
    let fill = |unit: &str| unit.repeat(FRAME_BYTES_MAX / unit.len() - 1);
    let frames = [
        fill("["),
        fill("{\"a\":"),
        format!(r#"{{"type":"ping","n":1,"x":{}"#, fill("[")),
        format!(r#"{{"type":"act","act":"topic","x":{}}}"#, fill("[")),
        format!(r#"{{"type":"ping",{}"n":1}}"#, fill(r#""n":1,"#)),
        format!(r#"{{"type":"act",{}"act":"end_sessions"}}"#, fill(r#""act":"x","#)),
        format!(r#"{{{}"n":1}}"#, fill(r#""type":"ping","#)),
        format!(r#"{{"type":"group","users":[{}]}}"#, fill(r#""x","#)),
        format!(r#"{{"type":"ping","n":{}}}"#, fill("9")),
        format!(r#"{{"type":"ping","n":1e{}}}"#, fill("9")),
        format!(r#"{{"type":"send","room":"{}"}}"#, fill("\\u0000")),
    ];
    for frame in frames {
        let begun = std::time::Instant::now();
        let failure = decode(&frame).unwrap_err();
        let shown = &frame[..frame.len().min(60)];
        assert!(matches!(failure.code, ErrorCode::BadJson | ErrorCode::BadField), "{shown}: {failure:?}");
        assert!(encode(&failure).len() < 1_000, "{shown}");
        // The measure is 100 ms; this is not even an optimised build, on a machine that may be busy.
        assert!(begun.elapsed() < std::time::Duration::from_millis(500), "{shown}: {:?}", begun.elapsed());
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
    let examples = client().into_iter().chain(acts()).map(|(_, json)| json.to_owned());
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
