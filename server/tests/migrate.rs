//! The move from one node to many, as an operator does it: with the built program, from a directory to a real
//! PostgreSQL server. POSTGRES_BIN names the folder of its programs; without it these tests say so and return.

mod people;
mod support;

#[path = "support/postgres.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod postgres;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};

use people::{PASSWORD, act, bearer, owner, sign_in, sign_up, whoami};
use postgres::Server;
use serde_json::{Value, json};
use support::{
    LOBBY, Magpie, Request, Socket, assert_seqs_have_no_hole, command, connect, reference, run, send,
};

/// So that the limits of rate do not stand between a test and the store.
const FAST: [&str; 4] = ["--message-rate", "0", "--request-rate", "0"];
/// Events of a directory that takes a while to move: several batches.
const EVENTS: u32 = 40_000;

fn migrate(from: &Path, to: &str) -> Output {
    run(&["migrate", "--from", from.to_str().unwrap(), "--to", to])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_owned()).unwrap()
}

/// Fails, with a sentence that says this.
#[track_caller]
fn refused(output: &Output, why: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(why) && !said.contains("panicked"), "{said}");
}

/// The name in a database's address.
fn name(address: &str) -> &str {
    address.rsplit('/').next().unwrap()
}

/// Starts a node on a database.
fn node(address: &str) -> Magpie {
    Magpie::start(&[&FAST[..], &["--database", address]].concat())
}

/// What a program that cannot start on a database says.
fn cannot_start(address: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    run(&["--listen", "127.0.0.1:0", "--data", data, "--database", address])
}

#[test]
fn people_and_programs_find_everything_as_it_was() {
    let Some(server) = postgres::shared() else { return };
    let directory = tempfile::tempdir().unwrap();
    let address = server.database();
    let mut one = Magpie::start_on(directory.path(), &FAST);
    let (olga, _, mut socket) = owner(&one);
    let (ada, who) = sign_up(&one, "Ada");
    let bot = act(&mut socket, json!({"act": "make_bot", "name": "Robot"}))["user"]["id"].clone();
    let scopes = json!(["send", "read"]);
    let token = json!({"act": "make_token", "bot": bot, "text": "t", "scopes": scopes, "seconds": 0});
    let token = act(&mut socket, token)["secret"].as_str().unwrap().to_owned();
    let (mut guest, welcome) = Socket::full(&one, None);
    let cookie = guest.response.cookie().unwrap();
    for n in 0..6 {
        guest.json(&send(&reference(1, 1, n), &format!("number {n}")));
        guest.expect("ack");
    }
    guest.json(&json!({"type": "create", "name": "den"}));
    guest.find(|value| value["type"] == "joined" && value["room"] != LOBBY);
    let before = guest.read_room(LOBBY, 0);
    assert_seqs_have_no_hole(&before);

    refused(&migrate(directory.path(), &address), "in use by another process");
    one.signal("TERM");
    assert_eq!(one.wait().code(), Some(0));
    let moved = migrate(directory.path(), &address);
    let said = text(&moved.stdout);
    assert_eq!(moved.status.code(), Some(0), "{said} {}", text(&moved.stderr));
    for line in ["users: ", "events: ", " rows are the same, SHA-256 ", "done: start Magpie with --database"]
    {
        assert!(said.contains(line), "{said}");
    }

    let many = [node(&address), node(&address)];
    // The guest comes back with the cookie of before, and what they had by then.
    let request =
        Request::upgrade(&many[0], "/ws").with("Sec-WebSocket-Protocol", "magpie.v1").with("Cookie", &cookie);
    let mut back = Socket::open(connect(many[0].address), &request);
    let last = before[before.len() - 3]["seq"].as_u64().unwrap();
    let resume = json!([{"room": LOBBY, "epoch": welcome["rooms"][0]["epoch"], "seq": last}]);
    back.json(&json!({"type": "hello", "resume": resume}));
    assert_eq!(back.expect("welcome")["user"], welcome["user"]);
    let joined = back.find(|value| value["type"] == "joined" && value["room"] == LOBBY);
    assert_eq!((&joined["after"], &joined["gap"]), (&json!(last), &json!(false)));
    let rest: Vec<Value> = before[before.len() - 2..].to_vec();
    assert_eq!(joined["events"].as_array().unwrap()[..2], rest);
    // What was said before is not said again; what is new stands behind all.
    let said = before.iter().find(|event| event["body"] == "number 3").unwrap();
    back.json(&send(&reference(1, 1, 3), "once more"));
    assert_eq!(back.expect("ack")["seq"], said["seq"]);
    back.json(&send(&reference(1, 1, 99), "on and on"));
    assert!(back.expect("ack")["seq"].as_u64() > before.last().unwrap()["seq"].as_u64());
    let events = Socket::full(&many[1], None).0.read_room(LOBBY, 0);
    assert_seqs_have_no_hole(&events);
    assert_eq!(events[..before.len()], before);

    assert_eq!(whoami(&many[1], &ada)["id"], who["id"]);
    assert_eq!(whoami(&many[0], &olga)["role"], "owner");
    assert_eq!(sign_in(&many[1], "ada", PASSWORD).status, 200);
    let mut robot = bearer(&many[0], &token).unwrap_or_else(|_| panic!("the token is not good"));
    robot.json(&json!({"type": "hello"}));
    assert_eq!(robot.expect("welcome")["user"]["id"], bot);
    assert!(text(&migrate(directory.path(), &address).stdout).contains("all of it was moved before"));
}

/// A directory with many events.
fn big() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    Magpie::start_on(directory.path(), &FAST).kill();
    let database = rusqlite::Connection::open(directory.path().join("magpie.db")).unwrap();
    let insert = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
        INSERT INTO events (room, seq, at, author, author_name, kind, body)
        SELECT 1, n, n, 7, 'Ada', 'message', 'number ' || n FROM n";
    database.execute(insert, [EVENTS]).unwrap();
    directory
}

/// Begins a move and kills it while events are copied; the address of what is there then.
fn killed_midway(server: &Server, from: &Path) -> String {
    for _ in 0..20 {
        let address = server.database();
        let arguments = ["migrate", "--from", from.to_str().unwrap(), "--to", &address];
        let mut child = command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("events: ")));
        child.kill().unwrap();
        child.wait().unwrap();
        let there =
            server.sql(name(&address), "SELECT count(*) FROM events").unwrap().parse::<u32>().unwrap();
        if (1..EVENTS).contains(&there) {
            return address;
        }
    }
    panic!("it was always faster");
}

#[test]
fn a_move_that_was_killed_is_not_served_and_goes_on() {
    let Some(server) = postgres::shared() else { return };
    let directory = big();
    let address = killed_midway(server, directory.path());
    refused(&cannot_start(&address), "run `magpie migrate` again");
    let moved = migrate(directory.path(), &address);
    assert_eq!(moved.status.code(), Some(0), "{}", text(&moved.stderr));
    let said = text(&moved.stdout);
    assert!(!said.contains("events: 1000 of"), "what was there is not copied again: {said}");
    let sql = "SELECT count(*), max(seq), min(body), md5(string_agg(body, ',' ORDER BY seq)) FROM events";
    let found = server.sql(name(&address), sql).unwrap();
    assert!(found.starts_with(&format!("{EVENTS}|{EVENTS}|number 1|")), "{found}");
    let many = node(&address);
    let (mut socket, welcome) = Socket::full(&many, None);
    assert_eq!(welcome["rooms"][0]["head"], EVENTS);
    socket.json(&json!({"type": "join", "room": LOBBY}));
    let events = socket.expect("joined")["events"].clone();
    assert_eq!(events.as_array().unwrap().last().unwrap()["body"], format!("number {EVENTS}"));
}

#[test]
fn one_byte_that_is_another_is_noticed() {
    let Some(server) = postgres::shared() else { return };
    let directory = big();
    let address = killed_midway(server, directory.path());
    server.sql(name(&address), "UPDATE events SET body = 'numbes 77' WHERE seq = 77").unwrap();
    refused(
        &migrate(directory.path(), &address),
        "does not hold what the directory holds: events (room 1) differ",
    );
    refused(&cannot_start(&address), "run `magpie migrate` again");
}

#[test]
fn every_node_has_a_directory_of_its_own() {
    let Some(server) = postgres::shared() else { return };
    let address = server.database();
    let first = node(&address);
    let data = first.data().to_str().unwrap().to_owned();
    let second = run(&["--listen", "127.0.0.1:0", "--data", &data, "--database", &address]);
    refused(&second, "in use by another process");
    assert!(first.data().join("control.sock").exists());
}

#[test]
fn what_cannot_be_moved_is_said() {
    let nothing = tempfile::tempdir().unwrap();
    refused(&migrate(nothing.path(), "postgres://nobody@127.0.0.1:1/none"), "there is no database in");
    let directory = tempfile::tempdir().unwrap();
    Magpie::start_on(directory.path(), &FAST).kill();
    refused(
        &migrate(directory.path(), "postgres://nobody@127.0.0.1:1/none"),
        "the PostgreSQL server does not answer",
    );
    refused(&migrate(directory.path(), "postgres://localhost/none?sslmode=x"), "verify-full");
    let Some(server) = postgres::shared() else { return };
    let address = server.database();
    drop(node(&address));
    refused(&migrate(directory.path(), &address), "is not empty");
    // It still is what it was.
    drop(node(&address));
}
