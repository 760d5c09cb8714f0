//! Magpie's client: the page that people chat in.
//!
//! Two halves. The core is pure: `state` takes what happened and says what to do, with `link`, `outbox`,
//! `map`, `mention`, `room`, `rows`, `route` and `timeline` below it; none of them knows a browser. Around it, `app` owns the
//! state and carries out its effects with `socket`, `http` and `storage`, and `view` shows it, one file for
//! each panel. `panels` says what is in pages and dialogs of fields, buttons and lists; `desk` shows the pages
//! that only the whole program has; `account` and `view::door` are the way in, apart from all this.

pub mod account;
pub mod app;
pub mod desk;
pub mod http;
pub mod link;
pub mod map;
pub mod mention;
pub mod outbox;
pub mod panels;
pub mod room;
pub mod route;
pub mod rows;
pub mod socket;
pub mod state;
pub mod storage;
pub mod timeline;
pub mod view;
