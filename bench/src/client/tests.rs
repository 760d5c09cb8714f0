//! The checks of a load, without sockets.

use super::*;

const EVENT: &str = r#"{"type":"event","room":"0000000000001","seq":"#;

/// The frame of an event whose message was due at `at` nanoseconds.
fn event(seq: u64, at: u64) -> Vec<u8> {
    let mut payload = format!(r#"{EVENT}{seq},"kind":"message","body":""#).into_bytes();
    Marker { at, sender: 0, number: seq as u32 }.write(40, &mut payload);
    payload.extend_from_slice(br#""}"#);
    let mut frame = Vec::new();
    frames::push_bare(&mut frame, frames::TEXT, &payload);
    frame
}

/// Two members that are up to date.
fn two_members() -> Load {
    let mut load = Load::new(([127, 0, 0, 1], 1).into(), Speech::Magpie).unwrap();
    for _ in 0..2 {
        load.conns.push(Conn { stage: Stage::Open, ..Conn::new() });
    }
    load.track();
    load
}

#[test]
fn events_in_order_are_counted_from_when_they_were_due() {
    let mut load = two_members();
    let bytes: Vec<u8> = (1..=10).flat_map(|seq| event(seq, 1_000_000)).collect();
    // 51 ms: the server stalled, or the sender did; either counts.
    for member in 0..2 {
        assert_eq!(load.take(member, &bytes, 51_000_000).unwrap(), bytes.len());
    }
    assert_eq!(load.deliveries(), 20);
    let p50 = load.tallies[0].latency.value_at_quantile(0.5);
    assert!((50_000..=50_063).contains(&p50), "{p50} µs");
    load.verify().unwrap();
}

#[test]
fn half_a_frame_waits_for_its_rest() {
    let mut load = two_members();
    let bytes = [event(1, 0), event(2, 0)].concat();
    let first = event(1, 0).len();
    assert_eq!(load.take(0, &bytes[..first + 7], 1).unwrap(), first);
    assert_eq!(load.take(0, &bytes[first..], 1).unwrap(), bytes.len() - first);
    assert_eq!(load.take(1, &bytes[..bytes.len() - 1], 1).unwrap(), first);
    assert!(load.verify().is_err(), "the second member lacks an event");
}

#[test]
fn a_lost_doubled_swapped_or_altered_event_ends_the_run() {
    for (what, seqs) in [("lost", [1, 3]), ("doubled", [1, 1]), ("swapped", [2, 1])] {
        let bytes: Vec<u8> = seqs.iter().flat_map(|seq| event(*seq, 0)).collect();
        assert!(two_members().take(0, &bytes, 1).is_err(), "{what}, as the first member to get it");
        let mut load = two_members();
        let right: Vec<u8> = (1..=3).flat_map(|seq| event(seq, 0)).collect();
        load.take(0, &right, 1).unwrap();
        assert!(load.take(1, &bytes, 1).is_err(), "{what}, after another got it well");
    }
    let mut load = two_members();
    load.take(0, &event(1, 0), 1).unwrap();
    assert!(load.take(1, &event(1, 1), 1).is_err(), "altered");
}

#[test]
fn an_acknowledgement_comes_once_for_each_send() {
    let mut load = two_members();
    load.make_sender(0);
    load.send(0, 5_000).unwrap();
    let reference = Ref::new(1, frames::reference(load.salt, 0, 0));
    let ack = format!(r#"{{"type":"ack","ref":"{reference}","room":"0000000000001","seq":1,"at":1}}"#);
    let mut frame = Vec::new();
    frames::push_bare(&mut frame, frames::TEXT, ack.as_bytes());
    load.take(0, &frame, 2_005_000).unwrap();
    assert_eq!((load.pending(), load.tallies[0].acks, &load.completed[..]), (0, 1, &[0][..]));
    assert_eq!(load.tallies[0].ack_latency.max() / 10, 200);
    assert!(load.take(0, &frame, 3_000_000).is_err(), "a second one");
    assert!(load.take(1, &frame, 3_000_000).is_err(), "one for another");
}

#[test]
fn what_was_missed_must_come_whole() {
    let page = |seqs: std::ops::RangeInclusive<u64>, head: u64, gap: bool| {
        let events: Vec<String> =
            seqs.map(|seq| format!(r#"{{"room":"0000000000001","seq":{seq},"at":1}}"#)).collect();
        let events = events.join(",");
        let page = format!(
            r#"{{"type":"joined","room":"0000000000001","epoch":1,"head":{head},"events":[{events}],"gap":{gap},"info":{{}}}}"#
        );
        let mut frame = Vec::new();
        frames::push_bare(&mut frame, frames::TEXT, page.as_bytes());
        frame
    };
    let resuming = || {
        let mut load = two_members();
        load.take(0, &[event(1, 0), event(2, 0)].concat(), 1).unwrap();
        load.conns[0].resuming = Some(None);
        load
    };
    let mut load = resuming();
    load.take(0, &page(3..=5, 5, false), 1).unwrap();
    assert_eq!((load.arrived, load.conns[0].next_seq), (1, 6));

    // Live events overlap with the page.
    let mut load = resuming();
    load.take(0, &[event(5, 0), event(6, 0), page(3..=5, 5, false), event(7, 0)].concat(), 1).unwrap();
    assert_eq!((load.arrived, load.conns[0].next_seq), (1, 8));
    // And do not: the sixth never came.
    assert!(resuming().take(0, &[event(7, 0), page(3..=5, 5, false)].concat(), 1).is_err());
    assert!(resuming().take(0, &page(4..=5, 5, false), 1).is_err());

    // A gap is filled from the newest page backwards.
    let mut load = resuming();
    load.take(0, &page(8..=9, 9, true), 1).unwrap();
    assert_eq!(load.arrived, 0);
    let history = |text: &str| {
        let mut frame = Vec::new();
        frames::push_bare(&mut frame, frames::TEXT, text.as_bytes());
        frame
    };
    let older = r#"{"type":"history","room":"0000000000001","before":8,"events":[{"room":"0000000000001","seq":2},{"room":"0000000000001","seq":3},{"room":"0000000000001","seq":4},{"room":"0000000000001","seq":5},{"room":"0000000000001","seq":6},{"room":"0000000000001","seq":7}]}"#;
    load.take(0, &history(older), 1).unwrap();
    assert_eq!((load.arrived, load.conns[0].next_seq, load.conns[0].gaps), (1, 10, 1));
}
