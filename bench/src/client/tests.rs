//! The checks of a load, without sockets.

use super::*;

const EVENT: &str = r#"{"type":"event","room":"0000000000001","seq":"#;

/// What an event says whose message was due at `at` nanoseconds.
fn body(seq: u64, at: u64) -> String {
    let mut body = Vec::new();
    Marker { at, sender: 0, number: seq as u32 }.write(40, &mut body);
    String::from_utf8(body).unwrap()
}

/// Its frame.
fn event(seq: u64, at: u64) -> Vec<u8> {
    text(&format!(r#"{EVENT}{seq},"kind":"message","body":"{}"}}"#, body(seq, at)))
}

fn text(payload: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    frames::push_bare(&mut frame, frames::TEXT, payload.as_bytes());
    frame
}

/// Events of a page, whose messages were due at 0.
fn listed(seqs: std::ops::RangeInclusive<u64>) -> String {
    let event = |seq| format!(r#"{{"room":"0000000000001","seq":{seq},"at":1,"body":"{}"}}"#, body(seq, 0));
    seqs.map(event).collect::<Vec<_>>().join(",")
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
    let frame =
        text(&format!(r#"{{"type":"ack","ref":"{reference}","room":"0000000000001","seq":1,"at":1}}"#));
    load.take(0, &frame, 2_005_000).unwrap();
    assert_eq!((load.pending(), load.tallies[0].acks, &load.completed[..]), (0, 1, &[0][..]));
    assert_eq!(load.tallies[0].ack_latency.max() / 10, 200);
    assert!(load.verify().is_err(), "nobody got what was acknowledged");
    // In that place stands its number 0 or something else.
    for (number, is_it) in [(0, true), (1, false)] {
        load.rooms[0].ring[1] = Copied { seq: 1, bytes: vec![0], marker: None };
        load.rooms[0].ring[1].marker = Some(Marker { at: 5_000, sender: 0, number });
        (load.rooms[0].head, load.conns[0].next_seq, load.conns[1].next_seq) = (1, 2, 2);
        assert_eq!(load.verify().is_ok(), is_it);
    }
    assert!(load.take(0, &frame, 3_000_000).is_err(), "a second one");
    assert!(load.take(1, &frame, 3_000_000).is_err(), "one for another");
}

#[test]
fn what_was_missed_must_come_whole() {
    let page = |seqs: std::ops::RangeInclusive<u64>, head: u64, gap: bool| {
        let events = listed(seqs);
        text(&format!(
            r#"{{"type":"joined","room":"0000000000001","epoch":1,"head":{head},"events":[{events}],"gap":{gap},"info":{{}}}}"#
        ))
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
    let older =
        format!(r#"{{"type":"history","room":"0000000000001","before":8,"events":[{}]}}"#, listed(2..=7));
    load.take(0, &text(&older), 1).unwrap();
    assert_eq!((load.arrived, load.conns[0].next_seq, load.conns[0].gaps), (1, 10, 1));
}

#[test]
fn a_page_has_what_others_got_live() {
    let page = |seq: u64, at: u64| {
        let event = format!(r#"{{"room":"0000000000001","seq":{seq},"at":1,"body":"{}"}}"#, body(seq, at));
        text(&format!(
            r#"{{"type":"joined","room":"0000000000001","epoch":1,"head":{seq},"events":[{event}],"gap":false}}"#
        ))
    };
    for (at, is_same) in [(0, true), (9, false)] {
        // Live first, then by a page, and the other way round.
        let mut load = two_members();
        load.take(0, &event(1, 0), 1).unwrap();
        load.conns[1].resuming = Some(None);
        assert_eq!(load.take(1, &page(1, at), 1).is_ok(), is_same);
        let mut load = two_members();
        load.conns[1].resuming = Some(None);
        load.take(1, &page(1, at), 1).unwrap();
        assert_eq!(load.take(0, &event(1, 0), 1).is_ok(), is_same);
    }
}

#[test]
fn the_messages_of_one_stand_in_the_order_in_which_they_were_said() {
    for (numbers, is_right) in [([1, 2, 3], true), ([1, 3, 2], false), ([1, 1, 2], false)] {
        let mut load = two_members();
        for (seq, number) in (1..).zip(numbers) {
            let marker = Some(Marker { at: 0, sender: 0, number });
            load.rooms[0].note(seq, marker).unwrap();
            load.rooms[0].head = seq;
        }
        assert_eq!(load.rooms[0].verify_order().is_ok(), is_right, "{numbers:?}");
    }
}
