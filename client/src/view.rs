//! What the page looks like: one file for each panel, and what they share.
//!
//! Views show what they are given and report what the person does; they decide nothing about rooms,
//! messages or the connection. Styles are in client/style.css, in sections of the same names; there are no
//! inline ones, since the page's content security policy forbids them.

pub mod announcements;
pub mod banner;
pub mod composer;
pub mod dialog;
pub mod directory;
pub mod door;
pub mod header;
mod keeper;
pub mod lab;
pub mod markdown;
pub mod members;
pub mod message;
pub mod notices;
pub mod panel;
pub mod panic;
pub mod rooms;
pub mod time;
pub mod timeline;

use shared::model::UserId;
use shared::protocol::Presence;
use yew::prelude::*;

use crate::panels::Card;

/// What the person asks of the page itself. It opens and closes things, and leaves the state alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Show the rooms, where they are not always shown.
    Rooms,
    /// Show or hide the members.
    Members,
    /// Put away what lies over the conversation.
    Close,
    /// Open the list of public rooms.
    Directory,
    /// Open a dialog of a panel.
    Card(Card),
}

/// How many colours there are for people, as classes `c0` and on.
const COLOURS: u64 = 12;

/// The class of a person's colour, the same for everybody and for ever.
fn colour(user: UserId) -> String {
    // The low bits of an id may be few; fold the high ones in.
    let bits = user.bits();
    let folded = bits ^ bits >> 17 ^ bits >> 31 ^ bits >> 47;
    ["c", &(folded % COLOURS).to_string()].concat()
}

/// One or two letters for a name. The style sheet makes them capitals: the tables for that are in the
/// browser already.
fn initials(name: &str) -> String {
    let mut words = name.split([' ', '-', '_', '.']).filter_map(|word| word.chars().next());
    let first = words.next();
    let last = words.next_back();
    first.into_iter().chain(last).collect()
}

/// A person's initials on their colour, with a dot for their presence. For the eye only: the name stands
/// beside it.
fn avatar(user: UserId, name: &str, presence: Option<Presence>) -> Html {
    html! {
        <span class={classes!("avatar", colour(user))} aria-hidden="true">
            { initials(name) }
            if let Some(presence) = presence {
                <span class={classes!("dot", presence_name(presence))}></span>
            }
        </span>
    }
}

/// The word for a presence; also its class.
fn presence_name(presence: Presence) -> &'static str {
    match presence {
        Presence::Online => "online",
        Presence::Away => "away",
        Presence::Offline => "offline",
    }
}

/// A line drawing of 20 by 20, from the data of its path.
pub(crate) fn icon(path: &'static str) -> Html {
    html! {
        <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false"><path d={path} /></svg>
    }
}

pub(crate) const ICON_MENU: &str = "M3 5h14M3 10h14M3 15h14";
const ICON_PEOPLE: &str = "M7.5 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6M2 16.5c0-3 2.4-4.5 5.5-4.5s5.5 1.5 5.5 4.5M13 3.8a3 3 0 0 1 0 5.4M15 12.3c1.900.7 3 2.100 3 4.200";
const ICON_CLOSE: &str = "M5 5l10 10M15 5L5 15";
const ICON_PLUS: &str = "M10 4v12M4 10h12";
const ICON_SEND: &str = "M3 10l14-6-5 13-2.500-5.500z";
const ICON_DOWN: &str = "M10 4v12M5 11l5 5 5-5";
const ICON_EDIT: &str = "M4 16l.8-3.600L13 4.200l2.800 2.800-8.200 8.200z";
const ICON_LEAVE: &str = "M12 4H5v12h7M9 10h8M14 7l3 3-3 3";
const ICON_MEGAPHONE: &str = "M4 8v4h3l7 4V4L7 8zM7 12v4h2";
const ICON_MORE: &str = "M4.500 10h.01M10 10h.01M15.500 10h.01";
const ICON_LOCK: &str = "M5 9h10v7H5zM7 9V6.500a3 3 0 0 1 6 0V9";
const ICON_SETTINGS: &str = "M3 6h8M15 6h2M13 4v4M3 14h2M9 14h8M7 12v4";
const ICON_ALERT: &str = "M10 3l8 14H2zM10 8v4M10 14.200v.3";

/// Whether fingers are what the page is used with.
fn is_touch() -> bool {
    let query = web_sys::window().and_then(|window| window.match_media("(pointer: coarse)").ok().flatten());
    query.is_some_and(|query| query.matches())
}

/// An unread count as it is shown.
fn count_text(count: u32) -> String {
    if count >= shared::protocol::UNREAD_MAX { "99+".to_owned() } else { count.to_string() }
}
