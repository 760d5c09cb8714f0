//! What it costs the page to take an event, in order and late, and a page of history.

use std::hint::black_box;
use std::rc::Rc;

use client::timeline::Timeline;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use shared::model::{Body, LOBBY, Seq, UserId, UserName};
use shared::protocol::{Event, EventKind, User};

fn event(seq: Seq) -> Event {
    let user = User { id: UserId::from_bits(7), name: UserName::parse("Quiet Otter").unwrap() };
    let kind = EventKind::message(Body::parse("It is a fine day.", 0).unwrap());
    Event { room: LOBBY, seq, at: 1_795_238_400_000, user, kind, reference: None }
}

fn page(seqs: std::ops::RangeInclusive<Seq>) -> Vec<Event> {
    seqs.map(event).collect()
}

/// A timeline that holds the log up to its end, 1,000.
fn live() -> Timeline {
    let mut timeline = Timeline::new(1, 1_000);
    timeline.page_newest(1, 1_000, page(901..=1_000));
    timeline
}

fn timeline(criterion: &mut Criterion) {
    let in_order: Vec<Rc<Event>> = (1_001..=1_100).map(|seq| Rc::new(event(seq))).collect();
    let mut swapped = in_order.clone();
    swapped.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
    for (name, events) in [("100 events in order", in_order), ("100 events, each two swapped", swapped)] {
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched(
                || (live(), events.clone()),
                |(mut timeline, events)| {
                    events.into_iter().for_each(|event| timeline.apply(event));
                    black_box(timeline)
                },
                BatchSize::SmallInput,
            );
        });
    }
    criterion.bench_function("a page of history", |bencher| {
        bencher.iter_batched(
            || (live(), page(801..=900)),
            |(mut timeline, page)| {
                timeline.page_before(page, false);
                black_box(timeline)
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, timeline);
criterion_main!(benches);
