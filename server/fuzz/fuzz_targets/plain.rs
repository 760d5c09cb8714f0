//! Any texts in plain mode: each comes out as it went in, to the sender and to others, as JSON, or not at all.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use server::broker::memory::MemoryBroker;
use server::hub::{HubConfig, Mode};
use server::simulation::{Node, Output};
use server::store::memory::MemoryStore;
use shared::model::Body;
use shared::protocol::PlainMessage;

// Each text ends with a NUL.
fuzz_target!(|input: &str| {
    let config = HubConfig { message_rate: 0, request_rate: 0, ..HubConfig::default() };
    let store = Arc::new(MemoryStore::new([0; 32]));
    let mut node = Node::new(1, config, store, Arc::new(MemoryBroker::new()), 1);
    let [one, two] = [1, 2].map(|token| node.connect(Mode::Plain, [token; 32], true));
    node.settle();
    for conn in [one, two] {
        node.take(conn);
    }
    for text in input.split('\0') {
        node.send(one, text);
        node.settle();
        let (own, other) = (messages(&mut node, one), messages(&mut node, two));
        match Body::parse(text, config.message_chars) {
            Ok(body) => {
                assert_eq!(own.len(), 1, "{own:?} for {text:?}");
                assert_eq!((own[0].message.as_str(), &own), (body.as_str(), &other));
            }
            // An error is told to the sender only.
            Err(_) => assert!(own.len() <= 1 && other.is_empty(), "{own:?} {other:?} for {text:?}"),
        }
    }
});

fn messages(node: &mut Node, conn: u32) -> Vec<PlainMessage> {
    let outputs = node.take(conn).into_iter();
    outputs
        .map(|output| match output {
            Output::Text(text) => serde_json::from_str(&text).expect("a plain message"),
            Output::Close(code) => panic!("closed with {code:?}"),
        })
        .collect()
}
