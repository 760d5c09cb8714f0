//! Bots and webhooks against the built program: the very examples of docs/bots.md, and what can go wrong.

mod people;
mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use people::posts::{Posted, receiver};
use people::{Answer, act, bearer, owner, send_with, sign_up};
use serde_json::{Value, json};
use sha2::Sha256;
use support::{LOBBY, Magpie, Request, Socket, WAIT, clean, reference, send, until};

/// The examples of docs/bots.md in a language.
fn examples(language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bots.md")).unwrap();
    let parts = page.split("\n```").collect::<Vec<_>>();
    parts.iter().filter_map(|part| part.strip_prefix(&format!("{language}\n"))).map(str::to_owned).collect()
}

/// The one example that holds a text.
fn example(language: &str, mark: &str) -> String {
    let mut found = examples(language).into_iter().filter(|source| source.contains(mark));
    let source = found.next().expect("the example");
    assert!(found.next().is_none(), "{mark} stands in two examples");
    source
}

/// Whether this machine has some programs; says so if not.
fn has(programs: &[&str]) -> bool {
    let is_missing = |program: &&&str| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    };
    let missing = programs.iter().find(is_missing);
    if let Some(program) = missing {
        println!("skipped: this machine has no {program}");
    }
    missing.is_none()
}

/// A program that runs until it is dropped.
struct Program(Child);

impl Program {
    fn start(program: &str, source: &str, server: &Magpie, token: &str) -> Self {
        let mut command = clean(Command::new(program), &["-c", source]);
        command.env("MAGPIE", format!("http://{}", server.address)).env("TOKEN", token);
        command.env("no_proxy", "*").stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bot with a token of these scopes: its user and the token.
fn make_bot(socket: &mut Socket, name: &str, scopes: &[&str]) -> (Value, String) {
    let bot = act(socket, json!({"act": "make_bot", "name": name}))["user"].clone();
    let token =
        json!({"act": "make_token", "bot": bot["id"], "text": "test", "scopes": scopes, "seconds": 0});
    (bot, act(socket, token)["secret"].as_str().unwrap().to_owned())
}

fn request(server: &Magpie, method: &str, room: &str, token: &str) -> Request {
    Request::new(server, method, &format!("/api/rooms/{room}/messages"))
        .with("Authorization", &format!("Bearer {token}"))
        .with("Content-Type", "application/json")
}

fn write(server: &Magpie, room: &str, token: &str, body: &Value) -> Answer {
    send_with(server, request(server, "POST", room, token), body.to_string().as_bytes())
}

fn read(server: &Magpie, room: &str, query: &str, token: &str) -> Answer {
    let request = request(server, "GET", room, token);
    Answer::of(request.line(&format!("GET /api/rooms/{room}/messages{query} HTTP/1.1")).send(server))
}

fn hook(server: &Magpie, secret: &str, body: &[u8]) -> Answer {
    send_with(server, Request::new(server, "POST", &format!("/api/hooks/{secret}")), body)
}

/// Makes a room and gives its id.
fn create(socket: &mut Socket, name: &str, private: bool) -> String {
    socket.json(&json!({"type": "create", "name": name, "private": private}));
    socket.expect("joined")["room"].as_str().unwrap().to_owned()
}

/// Says something until somebody answers with a text: a bot may not have begun to listen.
fn ask_until(socket: &mut Socket, question: &str, is_answer: impl Fn(&str) -> bool) {
    let mut number = 0;
    until("the bot answers", || {
        number += 1;
        socket.json(&send(&reference(0xb0, 7, number), question));
        let end = std::time::Instant::now() + Duration::from_secs(2);
        while let support::Got::Frame(frame) =
            socket.next(end.saturating_duration_since(std::time::Instant::now()))
        {
            let value: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
            if value["type"] == "event" && value["body"].as_str().is_some_and(&is_answer) {
                return Some(());
            }
        }
        None
    });
}

#[test]
fn the_bots_of_the_documentation_answer() {
    if !has(&["python3", "curl"]) {
        return;
    }
    let server = Magpie::start(&[]);
    let (cookie, _) = sign_up(&server, "Ada");
    let (mut ada, _) = Socket::full(&server, Some(&cookie));
    let (_, greeter) = make_bot(&mut ada, "Greeter", &["read", "send"]);
    let source = example("python", "!hello");
    assert!(source.trim().lines().count() <= 11, "ten lines and no more");
    let _python = Program::start("python3", &source, &server, &greeter);
    ask_until(&mut ada, "!hello", |text| text == "Hello Ada!");

    let (_, clock) = make_bot(&mut ada, "Clock", &["read", "send"]);
    let source = example("sh", "!time");
    assert!(source.trim().lines().count() <= 10, "ten lines and no more");
    let _shell = Program::start("sh", &source, &server, &clock);
    ask_until(&mut ada, "!time", |text| text.starts_with("It is ") && text.len() == "It is 12:34.".len());
}

#[test]
fn a_message_by_a_bot_is_written_once() {
    let server = Magpie::start(&[]);
    let (cookie, _) = sign_up(&server, "Ada");
    let (mut ada, _) = Socket::full(&server, Some(&cookie));
    let (bot, token) = make_bot(&mut ada, "Tea bot", &["read", "send"]);
    let message = json!({"body": "tea?", "ref": reference(1, 2, 3)});
    let first = write(&server, LOBBY, &token, &message);
    assert_eq!(
        (first.status, &first.json["room"], &first.json["ref"]),
        (201, &json!(LOBBY), &message["ref"])
    );
    let event = ada.find(|value| value["type"] == "event" && value["body"] == "tea?");
    assert_eq!((&event["user"], &event["seq"]), (&bot, &first.json["seq"]), "heard at once");
    let again = write(&server, "lobby", &token, &message);
    assert_eq!((again.status, &again.json), (200, &first.json));
    let other = write(&server, "lobby", &token, &json!({"body": "coffee?"}));
    assert_eq!(other.status, 201);
    let seq = first.json["seq"].as_u64().unwrap();
    let page = read(&server, LOBBY, &format!("?after={seq}"), &token).json;
    assert_eq!(
        (&page["events"][0]["body"], page["events"].as_array().unwrap().len()),
        (&json!("coffee?"), 1)
    );
    assert_eq!(page["head"], other.json["seq"]);
    let newest = read(&server, "LOBBY", "", &token).json;
    assert_eq!(newest["events"].as_array().unwrap().last().unwrap()["body"], "coffee?");
    for (body, code) in [
        (json!({"body": " "}), "body_empty"),
        (json!({"body": "x".repeat(4_001)}), "body_too_long"),
        (json!({"body": 1}), "bad_field"),
        (json!({"body": "x", "ref": "1"}), "bad_field"),
        (json!({}), "bad_field"),
    ] {
        let answer = write(&server, LOBBY, &token, &body);
        assert_eq!((answer.status, answer.code()), (400, code), "{body}");
    }
    assert_eq!(read(&server, LOBBY, "?after=x", &token).status, 400);
    // As long as they come, and written as long as can be.
    let long = json!({"body": "\u{1f600}".repeat(4_000)}).to_string().replace('\u{1f600}', "\\ud83d\\ude00");
    let answer = send_with(&server, request(&server, "POST", LOBBY, &token), long.as_bytes());
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[test]
fn a_token_is_for_what_it_was_made_for() {
    let server = Magpie::start(&[]);
    let (cookie, _) = sign_up(&server, "Ada");
    let (mut ada, _) = Socket::full(&server, Some(&cookie));
    let (_, reader) = make_bot(&mut ada, "Reader", &["read"]);
    let (_, sender) = make_bot(&mut ada, "Sender", &["send"]);
    let hello = json!({"body": "hello"});
    let status = |answer: Answer| (answer.status, answer.code().to_owned());
    assert_eq!(status(write(&server, LOBBY, &reader, &hello)), (403, "forbidden".into()));
    assert_eq!(status(read(&server, LOBBY, "", &sender)), (403, "forbidden".into()));
    assert_eq!(write(&server, LOBBY, &sender, &hello).status, 201);

    // A private room that it is not in is a room that is not there.
    let private = create(&mut ada, "secret", true);
    for (room, token) in
        [(private.as_str(), &reader), ("0000000000fff", &reader), ("secret", &reader), ("%ff", &reader)]
    {
        let missing = read(&server, room, "", token);
        assert_eq!(missing.shape(), read(&server, "0000000000ffe", "", token).shape(), "{room}");
        assert_eq!((missing.status, missing.code()), (404, "not_found"));
    }
    let missing = write(&server, &private, &sender, &hello);
    assert_eq!(missing.shape(), write(&server, "0000000000fff", &sender, &hello).shape());

    // What is no token, and what is not one any more.
    for bad in ["", "x", &"A".repeat(43), &"A".repeat(60_000)[..4_000]] {
        let answer = write(&server, LOBBY, bad, &hello);
        assert_eq!((answer.status, answer.code()), (401, "sign_in_required"), "{bad}");
        assert_eq!(bearer(&server, bad).err().map(|refused| refused.status), Some(401), "{bad}");
    }
    let none = request(&server, "POST", LOBBY, "x").without("Authorization");
    assert_eq!(
        send_with(&server, none.with("Cookie", &cookie), b"{\"body\":\"x\"}").status,
        401,
        "no cookies here"
    );
    let foreign = request(&server, "POST", LOBBY, &sender).with("Origin", "http://evil.example");
    assert_eq!(send_with(&server, foreign, b"{\"body\":\"x\"}").status, 403);

    // Over a socket it is the bot, and ends with the token.
    let mut socket = bearer(&server, &reader).unwrap_or_else(|refused| panic!("{refused:?}"));
    assert_eq!(socket.response.cookie(), None);
    socket.json(&json!({"type": "hello"}));
    assert_eq!(socket.expect("welcome")["user"]["name"], "Reader");
    socket.json(&send(&reference(1, 1, 1), "may I?"));
    assert_eq!(socket.expect("error")["code"], "forbidden");
    ada.json(&json!({"type": "list", "list": "bots"}));
    let rows = ada.expect("list")["rows"].clone();
    let row = rows.as_array().unwrap().iter().find(|row| row["kind"] == "read").unwrap();
    act(&mut ada, json!({"act": "revoke_token", "id": row["id"]}));
    assert_eq!(socket.closed(), Some(1008));
    assert_eq!(read(&server, LOBBY, "", &reader).status, 401);
    assert_eq!(bearer(&server, &reader).err().map(|refused| refused.status), Some(401));
}

#[test]
fn a_token_has_its_pace() {
    let server = Magpie::start(&["--message-rate", "1"]);
    let (cookie, _) = sign_up(&server, "Ada");
    let (mut ada, _) = Socket::full(&server, Some(&cookie));
    let (_, token) = make_bot(&mut ada, "Flood", &["send"]);
    let answers: Vec<Answer> = (0..8).map(|_| write(&server, LOBBY, &token, &json!({"body": "x"}))).collect();
    let refused = answers.iter().find(|answer| answer.status != 201).expect("a limit");
    assert_eq!((refused.status, refused.code()), (429, "rate_limited"));
    assert!(refused.json["retry_ms"].as_u64().is_some_and(|wait| (1..=1_000).contains(&wait)), "{refused:?}");
}

#[test]
fn an_address_takes_what_slacks_do() {
    let server = Magpie::start(&[]);
    let (cookie, _) = sign_up(&server, "Ada");
    let (mut ada, _) = Socket::full(&server, Some(&cookie));
    let room = create(&mut ada, "builds", true);
    let made = act(&mut ada, json!({"act": "make_incoming_hook", "room": room, "text": "CI"}));
    let secret = made["secret"].as_str().unwrap();

    // As the documentation says it, with curl.
    if !has(&["curl"]) {
        return;
    }
    let output = clean(Command::new("sh"), &["-c", &example("sh", "api/hooks")])
        .env("MAGPIE", format!("http://{}", server.address))
        .env("SECRET", secret)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "ok");
    let event = ada.find(|value| value["type"] == "event" && value["body"] == "The build is *green*.");
    assert_eq!((&event["room"], &event["user"]["name"]), (&json!(room), &json!("CI")));

    let form = b"payload=%7B%22text%22%3A%22a+b%26c%22%7D";
    let rich = br#"{"text":"rich","channel":"general","username":"root","attachments":[{}]}"#;
    for (body, said) in [(&form[..], "a b&c"), (rich, "rich")] {
        let answer = hook(&server, secret, body);
        assert_eq!((answer.status, answer.text.as_str()), (200, "ok"), "{answer:?}");
        let event = ada.find(|value| value["type"] == "event" && value["body"] == said);
        assert_eq!(event["user"]["name"], "CI", "whatever name it asks for");
    }
    for (body, code) in [(&b"x"[..], "bad_json"), (b"{}", "bad_field"), (b"{\"text\":\"\"}", "body_empty")] {
        let answer = hook(&server, secret, body);
        assert_eq!((answer.status, answer.code()), (400, code), "{answer:?}");
    }
    for bad in ["x", &"A".repeat(43)] {
        assert_eq!(hook(&server, bad, b"{\"text\":\"x\"}").status, 404);
    }
    // It is for writing into that room, and nothing else; and a bot's token is no address.
    assert_eq!(bearer(&server, secret).err().map(|refused| refused.status), Some(401));
    assert_eq!(read(&server, &room, "", secret).status, 401);
    let (_, token) = make_bot(&mut ada, "Bot", &["read", "send"]);
    assert_eq!(hook(&server, &token, b"{\"text\":\"x\"}").status, 404);
}

/// How the last delivery of a room's only outgoing webhook went.
fn last_delivery(socket: &mut Socket, room: &str) -> String {
    socket.json(&json!({"type": "list", "list": "hooks", "room": room}));
    let rows = socket.expect("list")["rows"].clone();
    let row = rows.as_array().unwrap().iter().find(|row| row["kind"] == "outgoing").unwrap();
    row["more"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn messages_are_posted_signed_and_again_after_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let server = Magpie::start_on(directory.path(), &["--allow-private-hooks"]);
    let (cookie, _) = sign_up(&server, "Ada");
    let (mut ada, _) = Socket::full(&server, Some(&cookie));
    let room = create(&mut ada, "ops", true);
    let (port, posts) = receiver(&[500, 302, 204]);
    let url = format!("http://127.0.0.1:{port}/hook?x=1");
    let made =
        act(&mut ada, json!({"act": "make_outgoing_hook", "room": room, "text": "mirror", "url": url}));
    let secret = made["secret"].as_str().unwrap();
    let incoming = act(&mut ada, json!({"act": "make_incoming_hook", "room": room, "text": "CI"}));
    let say = |socket: &mut Socket, number: u64, body: &str| {
        socket.json(&json!({"type": "send", "room": room, "ref": reference(3, 3, number), "body": body}));
        socket.find(|value| value["type"] == "ack" && value["ref"] == reference(3, 3, number))["seq"].clone()
    };
    let seq = say(&mut ada, 1, "first");

    // Refused, sent elsewhere, and taken: the same delivery each time.
    let attempts: Vec<Posted> = (0..3).map(|_| posts.recv_timeout(WAIT).expect("a post")).collect();
    for posted in &attempts {
        assert!(posted.head.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{posted:?}");
        assert_eq!(posted.header("host"), format!("127.0.0.1:{port}"));
        assert_eq!(posted.header("content-type"), "application/json");
        assert_eq!(posted.header("x-magpie-delivery"), attempts[0].header("x-magpie-delivery"));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{}.{}", posted.header("x-magpie-timestamp"), posted.body).as_bytes());
        let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(posted.header("x-magpie-signature"), format!("sha256={expected}"));
        let event = posted.json();
        assert_eq!((&event["body"], &event["seq"], &event["room"]), (&json!("first"), &seq, &json!(room)));
        assert_eq!(event["user"]["name"], "Ada");
    }
    let last = until("the delivery is noted", || {
        Some(last_delivery(&mut ada, &room)).filter(|last| last.contains("delivered"))
    });
    assert!(last.contains("204"), "{last}");

    // What a program of the room says is not posted back.
    assert_eq!(hook(&server, incoming["secret"].as_str().unwrap(), b"{\"text\":\"echo\"}").status, 200);
    say(&mut ada, 2, "second");
    assert_eq!(posts.recv_timeout(WAIT).unwrap().json()["body"], "second");
    ada.cut();
    server.kill();

    // Nothing is lost over a restart, and nothing that was noted comes again.
    let server = Magpie::start_on(directory.path(), &["--allow-private-hooks"]);
    let (mut ada, _) = Socket::full(&server, Some(&cookie));
    say(&mut ada, 3, "third");
    let next = posts.recv_timeout(WAIT).unwrap().json();
    let next = if next["body"] == "second" { posts.recv_timeout(WAIT).unwrap().json() } else { next };
    assert_eq!(next["body"], "third");
    ada.json(&json!({"type": "list", "list": "hooks", "room": room}));
    let rows = ada.expect("list")["rows"].clone();
    let row = rows.as_array().unwrap().iter().find(|row| row["kind"] == "outgoing").unwrap();
    act(&mut ada, json!({"act": "remove_hook", "id": row["id"]}));
    say(&mut ada, 4, "fourth");
    say(&mut ada, 5, "fifth");
    assert!(posts.recv_timeout(Duration::from_millis(500)).is_err(), "a removed hook is posted to");
}

#[test]
fn private_addresses_are_not_posted_to_unasked() {
    let server = Magpie::start(&[]);
    let (cookie, _, mut olga) = owner(&server);
    drop(cookie);
    let (port, posts) = receiver(&[204]);
    for (number, host) in
        ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0"].iter().enumerate()
    {
        let room = create(&mut olga, &format!("room-{number}"), false);
        let url = format!("http://{host}:{port}/");
        act(&mut olga, json!({"act": "make_outgoing_hook", "room": room, "text": "x", "url": url}));
        let own = reference(4, 4, number as u64);
        olga.json(&json!({"type": "send", "room": room, "ref": own, "body": "psst"}));
        olga.find(|value| value["type"] == "ack" && value["ref"] == own);
        let last = until("the delivery is given up", || {
            Some(last_delivery(&mut olga, &room)).filter(|last| last.contains("gave up"))
        });
        assert!(last.contains("private"), "{host}: {last}");
    }
    assert!(posts.try_recv().is_err(), "somebody was posted to");
}
