//! Several workers in one process, from outside: nobody can tell on which one they are.
//!
//! Connections go round the workers, so that neighbours here are on different ones.

mod support;

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};
use support::{LOBBY, Magpie, Socket, reference, send};

const WORKERS: [&str; 6] = ["--workers", "3", "--message-rate", "0", "--request-rate", "0"];

/// How many connections to open so that each worker has two of them.
const PEOPLE: usize = 6;

fn people(server: &Magpie) -> Vec<(Socket, Value)> {
    (0..PEOPLE).map(|_| Socket::full(server, None)).collect()
}

#[test]
fn writers_on_all_workers_make_one_order() {
    const EACH: u64 = 200;
    let server = Magpie::start(&WORKERS);
    let writers: Vec<_> = people(&server)
        .into_iter()
        .enumerate()
        .map(|(writer, (mut socket, _))| {
            thread::spawn(move || {
                let own = |n| reference(writer as u32, 0, n);
                for n in 0..EACH {
                    socket.json(&send(&own(n), &format!("{writer} {n}")));
                }
                // Everything that anybody says, in the order in which it comes; each ack once.
                let (mut heard, mut acked) = (Vec::new(), BTreeSet::new());
                while heard.len() < PEOPLE * EACH as usize || acked.len() < EACH as usize {
                    let value = socket.value();
                    match value["type"].as_str() {
                        Some("event") if value["kind"] == "message" => {
                            heard.push((value["seq"].as_u64().unwrap(), value["ref"].to_string()));
                        }
                        Some("ack") => assert!(acked.insert(value["ref"].to_string())),
                        Some("error") => panic!("{value}"),
                        _ => {}
                    }
                }
                heard
            })
        })
        .collect();
    let heard: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    for (listener, list) in heard.iter().enumerate() {
        assert!(list.windows(2).all(|pair| pair[0].0 < pair[1].0), "listener {listener}: out of order");
        assert_eq!(list, &heard[0], "listener {listener}");
        let refs: BTreeSet<&String> = list.iter().map(|(_, reference)| reference).collect();
        assert_eq!(refs.len(), PEOPLE * EACH as usize);
    }
}

#[test]
fn presence_rooms_and_names_cross_workers() {
    let server = Magpie::start(&WORKERS);
    let mut people = people(&server);
    let (first, rest) = people.split_first_mut().unwrap();
    first.0.find(|value| value["online"] == PEOPLE);
    // A room made on one worker is joined on the others; a direct conversation opens there by itself.
    first.0.json(&json!({"type": "create", "name": "den"}));
    let den = first.0.expect("joined")["room"].clone();
    for (socket, _) in &mut *rest {
        socket.json(&json!({"type": "join", "room": "den"}));
        assert_eq!(socket.expect("joined")["room"], den);
    }
    first.0.find(|value| value["room"] == den && value["online"] == PEOPLE);
    rest[0].0.json(&json!({"type": "direct", "user": first.1["user"]["id"]}));
    let direct = rest[0].0.expect("joined")["room"].clone();
    assert_eq!(first.0.expect("joined")["room"], direct);
    // A name, and that somebody left.
    rest[1].0.json(&json!({"type": "rename", "name": "Somebody Else"}));
    first.0.find(|value| value["kind"] == "renamed" && value["name"] == "Somebody Else");
    rest[2].0.json(&json!({"type": "leave", "room": den}));
    first.0.find(|value| value["room"] == den && value["kind"] == "left");
    let (gone, _) = people.remove(1);
    gone.cut();
    people[0].0.find(|value| value["room"] == LOBBY && value["kind"] == "left");
}

#[test]
fn one_person_on_two_workers_is_one_person() {
    let server = Magpie::start(&WORKERS);
    let (mut one, welcome) = Socket::full(&server, None);
    let cookie = one.response.cookie().unwrap();
    let (mut two, again) = Socket::full(&server, Some(&cookie));
    assert_eq!(welcome["user"], again["user"]);
    one.json(&json!({"type": "create", "name": "den"}));
    let den = one.expect("joined")["room"].clone();
    assert_eq!(two.expect("joined")["room"], den, "the other device is in the room too");
    two.json(&json!({"type": "send", "room": den, "ref": reference(1, 0, 1), "body": "hello"}));
    let seq = two.expect("ack")["seq"].clone();
    one.json(&json!({"type": "read", "room": den, "seq": seq}));
    let read = |value: &Value| value["type"] == "read" && value["seq"] == seq && value["unread"] == 0;
    one.find(read);
    two.find(read);
}

#[test]
fn all_workers_go_down_in_good_order() {
    let mut server = Magpie::start(&WORKERS);
    let people = people(&server);
    server.signal("TERM");
    for (mut socket, _) in people {
        assert_eq!(socket.closed(), Some(1012));
    }
    assert!(server.wait().success());
}
