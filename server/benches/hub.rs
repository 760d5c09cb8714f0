//! What the hub's steps cost without a socket: a message from its request to what its room is told, and a
//! session from its hello to its welcome. Beside them, what a frame costs to read, write and compress.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::{Arc, Mutex};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use server::broker::memory::MemoryBroker;
use server::broker::{Broker, Hint};
use server::engine::query_store;
use server::hub::{Arrival, Conn, Effect, Hub, HubConfig, Input, Mode, Request};
use server::store::Store;
use server::store::memory::MemoryStore;
use server::websocket::{Frame, Machine};
use shared::model::{LOBBY, Ref};
use shared::protocol::ClientEnvelope;
use uuid::Uuid;

/// A hub whose store answers at once, and what its broker told it.
struct Driver {
    hub: Hub,
    store: MemoryStore,
    broker: MemoryBroker,
    hints: Arc<Mutex<Vec<Hint>>>,
    effects: Vec<Effect>,
    refs: u128,
}

impl Driver {
    fn with_members(members: Conn) -> Self {
        let hints: Arc<Mutex<Vec<Hint>>> = Arc::default();
        let broker = MemoryBroker::new();
        let sink = hints.clone();
        broker.attach(1, Arc::new(move |hint, _| sink.lock().unwrap().push(hint)));
        let config = HubConfig { message_rate: 0, request_rate: 0, ..HubConfig::default() };
        let hub = Hub::new(1, config, broker.is_lossy(), [1; 32]);
        let store = MemoryStore::new([0; 32]);
        let mut driver = Self { hub, store, broker, hints, effects: Vec::new(), refs: 0 };
        for conn in 0..members {
            driver.start(conn);
        }
        driver
    }

    fn start(&mut self, conn: Conn) {
        let mut token = [0; 32];
        token[..4].copy_from_slice(&conn.to_be_bytes());
        self.run(Input::Connected {
            conn,
            mode: Mode::Full,
            arrival: Arrival { token, ephemeral: false, may_be_new: true, device: Default::default() },
        });
        let hello = ClientEnvelope::Hello { resume: Vec::new() };
        self.run(Input::Request { conn, request: Ok(Request::Envelope(hello)) });
    }

    fn say(&mut self) -> Input {
        self.refs += 1;
        let reference = Ref(Uuid::from_u128(self.refs));
        let body = "It is a fine day. ".repeat(7);
        let send = ClientEnvelope::Send { room: LOBBY, reference, body };
        Input::Request { conn: 0, request: Ok(Request::Envelope(send)) }
    }

    /// Handles an input and all that follows from it.
    fn run(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.hub.handle(0, input, &mut self.effects);
            for effect in self.effects.drain(..) {
                match effect {
                    Effect::Append { ticket, append } => {
                        let result =
                            self.store.append(vec![append]).now_or_never().unwrap().unwrap().remove(0);
                        inputs.push_back(Input::Appended { ticket, result });
                    }
                    Effect::Query { ticket, query } => {
                        let answer = query_store(&self.store, query).now_or_never().unwrap();
                        inputs.push_back(Input::Answered { ticket, answer });
                    }
                    Effect::Publish { topic, hint } => self.broker.publish(1, topic, hint),
                    Effect::Follow(topic) => self.broker.follow(1, topic),
                    Effect::Unfollow(topic) => self.broker.unfollow(1, topic),
                    told => drop(black_box(told)),
                }
            }
            inputs.extend(self.hints.lock().unwrap().drain(..).map(Input::Hint));
        }
    }
}

fn hub(criterion: &mut Criterion) {
    for members in [10, 1_000] {
        let mut driver = Driver::with_members(members);
        criterion.bench_function(&format!("a message among {members}"), |bencher| {
            bencher.iter(|| {
                let input = driver.say();
                driver.run(input);
            });
        });
    }
    criterion.bench_function("a start and an end among 1000", |bencher| {
        let mut driver = Driver::with_members(1_000);
        bencher.iter(|| {
            driver.start(1_000);
            driver.run(Input::Closed { conn: 1_000 });
        });
    });
}

fn frames(criterion: &mut Criterion) {
    let text = "It is a fine day. ".repeat(60);
    criterion
        .bench_function("write a frame of 1 KB", |bencher| bencher.iter(|| Frame::text(black_box(&text))));
    criterion.bench_function("compress a frame of 1 KB", |bencher| {
        bencher.iter(|| Frame::deflated_text(black_box(&text)));
    });
    // A frame of a client, masked with zeros (RFC 6455 §5.3).
    let mut frame = vec![0x81, 0xfe];
    frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    criterion.bench_function("read a frame of 1 KB", |bencher| {
        let mut machine = Machine::new(64 * 1024, false);
        bencher.iter_batched(
            || frame.clone(),
            |mut bytes| machine.feed(&mut bytes, |incoming| drop(black_box(incoming))),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, hub, frames);
criterion_main!(benches);
