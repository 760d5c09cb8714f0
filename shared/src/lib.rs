//! What the server and the client say to each other and agree on: envelopes, ids, names, bodies, limits.
//!
//! Everything here is pure and builds for `wasm32-unknown-unknown`. It must not know sockets, clocks,
//! random sources, browsers or databases: whoever needs a time or a random number passes it in.

pub mod acts;
pub mod markdown;
pub mod mentions;
pub mod model;
pub mod network;
pub mod presence;
pub mod protocol;
pub mod reconnect;
pub mod rights;
