//! The load and the servers under it, for the program `bench` and for tests that need many clients.
//!
//! The servers are processes of their own ([`server_process`], [`cluster`]), the load is one thread
//! ([`client`]), each scenario is a file, and [`report`] is what they give.

pub mod client;
pub mod cluster;
pub mod frames;
pub mod process;
pub mod report;
pub mod scenarios;
pub mod server_process;
