//! Magpie's client: the page that people chat in.
//!
//! Two halves. The core is pure: `state` takes what happened and says what to do, with `link`, `outbox`,
//! `map`, `room`, `rows`, `route` and `timeline` below it; none of them knows a browser. Around it, `app` owns the
//! state and carries out its effects with `socket` and `storage`, and `view` shows it, one file for each
//! panel.

pub mod app;
pub mod link;
pub mod map;
pub mod outbox;
pub mod room;
pub mod route;
pub mod rows;
pub mod socket;
pub mod state;
pub mod storage;
pub mod timeline;
pub mod view;
