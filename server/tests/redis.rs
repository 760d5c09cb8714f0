//! The broker by way of a real Redis: what it does for the hubs of one process, and for those of several,
//! while Redis is there and while it is not.
//!
//! REDIS_SERVER names the program; without it these tests say so and return. Each starts a server of its
//! own. Two brokers are as two processes: all they share is that server.

#[path = "redis/faults.rs"]
mod faults;
#[path = "redis/process.rs"]
mod process;
#[path = "redis/repair.rs"]
mod repair;

use std::time::{Duration, Instant};

use process::{Redis, SECRET, connected, until};
use server::broker::conformance::{Clause, Ear, hint};
use server::broker::redis::RedisBroker;
use server::broker::{Broker, Hint, Topic};
use server::broker_conformance;
use shared::model::{RoomId, UserId, UserName};
use shared::protocol::{Presence, User};

fn on_redis(clause: Clause) {
    let Some(redis) = Redis::start() else { return };
    clause(&redis.broker());
}
broker_conformance!(on_redis);

const DEN: Topic = Topic::Room(RoomId::from_bits(50));

/// How many processes are subscribed to a topic's channel.
fn subscribers(redis: &Redis, suffix: &str) -> usize {
    let channels = redis.command("PUBSUB CHANNELS magpie:*");
    let Some(channel) = channels.lines().find(|line| line.ends_with(suffix)) else { return 0 };
    let answer = redis.command(&format!("PUBSUB NUMSUB {channel}"));
    answer.lines().last().unwrap().strip_prefix(':').unwrap().parse().unwrap()
}

fn user(id: u64) -> User {
    User { id: UserId::from_bits(id), name: UserName::parse("Ada").unwrap() }
}

#[test]
fn processes_hear_each_other_in_order_and_themselves_once() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (redis.broker(), redis.broker());
    let ears = [Ear::attach(&one, 1), Ear::attach(&one, 2), Ear::attach(&two, 3)];
    let deaf = Ear::attach(&two, 4);
    for (broker, hub) in [(&one, 1), (&one, 2), (&two, 3)] {
        broker.follow(hub, DEN);
    }
    until("both are subscribed", || subscribers(&redis, &format!("room:{}", RoomId::from_bits(50))) == 2);
    // Of another installation, on the same Redis.
    let stranger = RedisBroker::open(&redis.url(), &[8; 32]).unwrap();
    connected(&stranger);
    let strange = Ear::attach(&stranger, 5);
    stranger.publish(5, DEN, hint(9_999));
    for n in 0..1_000 {
        one.publish(1, DEN, hint(n));
    }
    let wanted: Vec<u64> = (0..1_000).collect();
    for ear in &ears {
        assert_eq!(ear.heard(1_000), wanted);
    }
    two.publish(3, Topic::All, hint(1_000));
    assert_eq!(ears[0].heard(1_001).last(), Some(&1_000));
    one.publish(1, Topic::All, hint(1_001));
    assert_eq!(ears[0].heard(1_002).last(), Some(&1_001));
    assert_eq!(ears[1].heard(1_002).len(), 1_002);
    assert_eq!(deaf.heard(2).len(), 2, "only what is for all");
    assert_eq!(strange.heard(0), [0u64; 0]);
    // Sent is what Redis has taken, a moment after the hubs of the process heard it.
    until("all is sent", || one.counts().sent == 1_001);
    let counts = one.counts();
    assert_eq!((counts.received, counts.dropped, counts.unknown), (1, 0, 0));
    assert!(counts.lag > Duration::ZERO);
    println!("a message to oneself takes {:?}", counts.lag);
}

#[test]
fn a_process_is_subscribed_once_to_what_its_hubs_follow() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (redis.broker(), redis.broker());
    let ears: Vec<_> = (0..4).map(|hub| Ear::attach(if hub < 3 { &one } else { &two }, hub)).collect();
    let room = format!("room:{}", RoomId::from_bits(50));
    for hub in 0..3 {
        one.follow(hub, DEN);
        one.follow(hub, DEN);
    }
    two.follow(3, DEN);
    until("two subscriptions", || subscribers(&redis, &room) == 2);
    one.unfollow(0, DEN);
    one.detach(1);
    // It has been done when something later has.
    one.follow(0, Topic::User(user(1).id));
    until("a later one", || subscribers(&redis, &format!("user:{}", user(1).id)) == 1);
    assert_eq!(subscribers(&redis, &room), 2);
    one.unfollow(2, DEN);
    until("the last follower gone", || subscribers(&redis, &room) == 1);
    two.detach(3);
    until("nobody left", || subscribers(&redis, &room) == 0);
    // For all, its two hubs, and the user.
    until("nothing else left", || one.counts().subscriptions == 4);
    drop(ears);
}

/// A hub that begins to follow a room asks who is there; the answers must not be faster than its subscription.
#[test]
fn who_asks_hears_the_answers() {
    const ROOMS: u64 = 20;
    /// So that Redis is busy with subscriptions while it is asked.
    const OTHERS: u64 = 5_000;
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (redis.broker(), redis.broker());
    let (questions, asked) = std::sync::mpsc::channel();
    two.attach(2, std::sync::Arc::new(move |hint, _| drop(questions.send(hint))));
    let rooms: Vec<RoomId> = (100..100 + ROOMS).map(RoomId::from_bits).collect();
    rooms.iter().for_each(|room| two.follow(2, Topic::Room(*room)));
    until("the other is subscribed", || two.counts().subscriptions == ROOMS + 2);
    let (answers, heard) = std::sync::mpsc::channel();
    one.attach(1, std::sync::Arc::new(move |hint, _| drop(answers.send(hint))));
    std::thread::scope(|scope| {
        let (rooms, answerer) = (&rooms, &two);
        scope.spawn(move || {
            for _ in rooms {
                // Its own answers come back to it too.
                let room = loop {
                    if let Hint::PresenceWanted { room, .. } =
                        asked.recv_timeout(process::WAIT).expect("a question")
                    {
                        break room;
                    }
                };
                let hint = Hint::Presence {
                    origin: 2,
                    room,
                    user: user(1),
                    presence: Presence::Online,
                    version: 1,
                    after: 0,
                };
                answerer.publish(2, Topic::Room(room), hint);
            }
        });
        for room in rooms {
            for other in 0..OTHERS {
                one.follow(1, Topic::User(UserId::from_bits(room.bits() * OTHERS + other)));
            }
            one.follow(1, Topic::Room(*room));
            one.publish(
                1,
                Topic::Room(*room),
                Hint::PresenceWanted { origin: 1, room: *room, known: vec![] },
            );
            let answer = loop {
                match heard.recv_timeout(process::WAIT).expect("an answer") {
                    Hint::PresenceWanted { .. } | Hint::Followed { .. } | Hint::Doubt => {}
                    other => break other,
                }
            };
            assert!(matches!(answer, Hint::Presence { room: of, .. } if of == *room), "{answer:?}");
        }
    });
}

#[test]
fn publishing_never_waits_and_what_waits_is_bounded() {
    const HINTS: u64 = 100_000;
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (redis.broker(), redis.broker());
    let (own, other) = (Ear::attach(&one, 1), Ear::attach(&two, 2));
    redis.signal("STOP");
    let start = Instant::now();
    for n in 0..HINTS {
        one.publish(1, Topic::All, hint(n));
    }
    println!("{HINTS} hints were published in {:?} while Redis hung", start.elapsed());
    assert_eq!(own.heard(0).len() as u64, HINTS, "in the process, all of it at once");
    let dropped = one.counts().dropped;
    assert!(dropped > HINTS / 2, "only {dropped} were dropped");
    until("it is noticed", || one.check().is_err());
    assert!(one.counts().dropped >= HINTS - 2_000, "nothing waits for a connection that is gone");
    redis.signal("CONT");
    connected(&one);
    connected(&two);
    one.publish(1, Topic::All, hint(HINTS));
    until("the next is heard", || other.heard(0).last() == Some(&HINTS));
    let heard = other.heard(0);
    assert!(heard.is_sorted_by(|a, b| a < b), "in order, and each once");
}

#[test]
fn what_was_published_last_is_sent_before_the_end() {
    let Some(redis) = Redis::start() else { return };
    let (one, two) = (redis.broker(), redis.broker());
    let ear = Ear::attach(&two, 2);
    until("the other is subscribed", || subscribers(&redis, ":all") == 1);
    (0..5_000).for_each(|n| one.publish(1, Topic::All, hint(n)));
    drop(one);
    assert_eq!(ear.heard(5_000).len(), 5_000);
    // One that cannot send any more ends all the same.
    let one = redis.broker();
    redis.signal("STOP");
    one.publish(1, Topic::All, hint(0));
    let start = Instant::now();
    drop(one);
    assert!(start.elapsed() < process::WAIT);
    println!("ended after {:?} although Redis hung", start.elapsed());
}

#[test]
fn a_password_is_used_and_a_wrong_one_named_as_the_trouble() {
    let Some(mut redis) = Redis::prepare(Some("open-sesame")) else { return };
    // It is not there yet: that is no error.
    let url = |password: &str| format!("redis://:{password}@{}", redis.address());
    let right = RedisBroker::open(&url("open-sesame"), &SECRET).unwrap();
    let wrong = RedisBroker::open(&url("hush-hush"), &SECRET).unwrap();
    until("both have tried", || {
        [&right, &wrong].iter().all(|broker| broker.check().is_err_and(|t| t.cause.contains("refused")))
    });
    redis.run();
    println!("connected {:?} after the server was there", until("in", || right.check().is_ok()));
    until("the trouble is the password", || {
        wrong.check().is_err_and(|trouble| trouble.cause.to_lowercase().contains("password"))
    });
    let cause = wrong.check().unwrap_err().cause;
    assert!(!cause.contains("hush"), "{cause}");
}
