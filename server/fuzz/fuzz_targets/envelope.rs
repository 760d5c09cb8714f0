//! Any text as an envelope: it is read or refused with an answer that can be sent, and what is read is written
//! back as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::protocol::{ServerEnvelope, decode, encode};

fuzz_target!(|text: &str| {
    match decode(text) {
        Ok(envelope) => assert_eq!(decode(&encode(&envelope)), Ok(envelope)),
        Err(failure) => {
            assert!(failure.message.chars().count() <= 200, "{failure:?}");
            let answer = ServerEnvelope::Error(failure);
            assert_eq!(serde_json::from_str::<ServerEnvelope>(&encode(&answer)).ok(), Some(answer));
        }
    }
    // What a client reads.
    if let Ok(envelope) = serde_json::from_str::<ServerEnvelope>(text) {
        assert_eq!(serde_json::from_str::<ServerEnvelope>(&encode(&envelope)).ok(), Some(envelope));
    }
});
