//! What it costs to write and to read an envelope: an event, a send, a page of a hundred events.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use shared::model::{Body, LOBBY, Ref, Seq, UserId, UserName};
use shared::protocol::{ClientEnvelope, Event, EventKind, ServerEnvelope, User, decode, encode};

fn event(seq: Seq) -> Event {
    let user = User { id: UserId::from_bits(7), name: UserName::parse("Quiet Otter").unwrap() };
    let body = Body::parse(&"It is a fine day. ".repeat(7), 0).unwrap();
    let reference = Some(Ref::new(1_795_238_400_000, [7; 10]));
    Event { room: LOBBY, seq, at: 1_795_238_400_000, user, kind: EventKind::message(body), reference }
}

fn envelopes(criterion: &mut Criterion) {
    let one = ServerEnvelope::Event(event(4_711));
    let page = ServerEnvelope::Joined {
        room: LOBBY,
        epoch: 1,
        head: 100,
        events: (1..=100).map(event).collect(),
        gap: false,
        after: Some(0),
        info: None,
    };
    let send = ClientEnvelope::Send {
        room: LOBBY,
        reference: Ref::new(1_795_238_400_000, [7; 10]),
        body: "It is a fine day. ".repeat(7),
    };
    for (name, envelope) in [("event", &one), ("page of 100", &page)] {
        let text = encode(envelope);
        criterion.bench_function(&format!("encode {name}"), |bencher| {
            bencher.iter(|| encode(black_box(envelope)))
        });
        criterion.bench_function(&format!("decode {name}"), |bencher| {
            bencher.iter(|| serde_json::from_str::<ServerEnvelope>(black_box(&text)).unwrap());
        });
    }
    let text = encode(&send);
    criterion.bench_function("decode send", |bencher| bencher.iter(|| decode(black_box(&text)).unwrap()));
}

criterion_group!(benches, envelopes);
criterion_main!(benches);
