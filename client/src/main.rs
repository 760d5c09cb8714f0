//! The whole client: the chat, the pages of `desk`, and the pages to sign in.

use client::app::{self, Desk};
use client::view::door::{Door, Props};
use client::{desk, panels};

fn main() {
    let route = app::here();
    if route.is_door() {
        app::start_as::<Door>(Props { route, me: None, role: Default::default() });
    } else {
        let desk = Desk { page: desk::page, card: panels::desk::card };
        app::start_as::<app::App>(app::Props { desk: Some(desk) });
    }
}
