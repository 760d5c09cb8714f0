//! The list of one's rooms, and oneself below it.

use std::rc::Rc;

use shared::model::RoomId;
use shared::protocol::{Presence, RoomKind, User};
use yew::prelude::*;

use super::{
    Ask, ICON_CLOSE, ICON_EDIT, ICON_LOCK, ICON_PEOPLE, ICON_PLUS, avatar, count_text, icon, presence_name,
};
use crate::panels::Card;
use crate::route::Route;

/// A room in the list.
#[derive(Clone, PartialEq)]
pub struct Entry {
    pub id: RoomId,
    pub kind: RoomKind,
    pub title: AttrValue,
    pub route: Route,
    pub unread: u32,
    /// Unread messages that mention the reader.
    pub mentioned: u32,
    /// The other one of a direct conversation, with their presence.
    pub peer: Option<(User, Presence)>,
}

#[derive(Properties, PartialEq)]
pub struct Props {
    pub rooms: Rc<Vec<Entry>>,
    pub current: Option<RoomId>,
    pub route: Route,
    pub me: Option<User>,
    /// Whether it lies over the conversation.
    pub open: bool,
    pub go: Callback<Route>,
    pub ask: Callback<Ask>,
}

/// The list of rooms: public ones, then direct conversations.
#[component]
pub fn Rooms(props: &Props) -> Html {
    let is_talk = |room: &Entry| matches!(room.kind, RoomKind::Direct | RoomKind::Group);
    let section = |talks: bool| {
        let rooms = props.rooms.iter().filter(move |room| is_talk(room) == talks);
        rooms.map(|room| room_link(room, props.current == Some(room.id), &props.go))
    };
    let directs = props.rooms.iter().any(is_talk);
    let lab = follow(&props.go, Route::Lab);
    html! {
        <nav class={classes!("rooms", props.open.then_some("open"))} aria-label="Rooms" id="rooms">
            <div class="rooms-head">
                <span class="brand">
                    <svg class="brand-mark" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
                        <path class="brand-body" d="M2 20.500c4.500-.3 6.500-2.600 7.600-5.400 1.700-4.500 4-8.600 8.400-8.600 1.500 0 2.600.5 3.300 1.400l2.200.9-2.200.9c-.2 5.300-3.700 9.300-9.300 9.300-2.700 0-3.700 1.500-10 1.500z" />
                        <path class="brand-wing" d="M9.800 15.700c3.700.3 6.600-1.600 7.700-4.900-3.700-.5-6.400 1.300-7.700 4.900z" />
                    </svg>
                    { "Magpie" }
                </span>
                <button class="icon-button" aria-label="Find or create a room" title="Find or create a room"
                    data-testid="browse-rooms" onclick={props.ask.reform(|_| Ask::Directory)}>
                    { icon(ICON_PLUS) }
                </button>
                <button class="icon-button only-narrow" aria-label="Close" onclick={props.ask.reform(|_| Ask::Close)}>
                    { icon(ICON_CLOSE) }
                </button>
            </div>
            <div class="rooms-list">
                <h2>{ "Rooms" }</h2>
                <ul>{ for section(false) }</ul>
                if directs {
                    <h2>{ "Direct messages" }</h2>
                    <ul>{ for section(true) }</ul>
                }
            </div>
            <div class="rooms-foot">
                if let Some(me) = &props.me {
                    <button class="me" title="Your profile" onclick={props.ask.reform(|_| Ask::Card(Card::Me))}>
                        { avatar(me.id, me.name.as_str(), None) }
                        <span class="me-name"><span class="sr">{ "You are " }</span><span data-testid="me-name">{ me.name.as_str() }</span></span>
                        { icon(ICON_EDIT) }
                    </button>
                }
                <a class="lab-link" href={Route::Lab.path()} onclick={lab} title="Try the connection"
                    aria-current={(props.route == Route::Lab).then_some("page")}>{ "Lab" }</a>
            </div>
        </nav>
    }
}

fn room_link(entry: &Entry, current: bool, go: &Callback<Route>) -> Html {
    let unread = entry.unread > 0;
    html! {
        <li key={entry.id.bits()}>
            <a class={classes!("room-link", unread.then_some("unread"))} href={entry.route.path()}
                data-testid="room-link" data-room-name={&entry.title} onclick={follow(go, entry.route.clone())}
                aria-current={current.then_some("page")}>
                if let Some((user, presence)) = &entry.peer {
                    { avatar(user.id, user.name.as_str(), Some(*presence)) }
                    <span class="room-name">{ &entry.title }</span>
                    <span class="sr">{ ", " }{ presence_name(*presence) }</span>
                } else {
                    <span class="hash" aria-hidden="true">
                        { match entry.kind {
                            RoomKind::Private => icon(ICON_LOCK),
                            RoomKind::Group => icon(ICON_PEOPLE),
                            RoomKind::Public | RoomKind::Direct => html! { { "#" } },
                        } }
                    </span>
                    <span class="room-name">{ &entry.title }</span>
                    if entry.kind == RoomKind::Private { <span class="sr">{ ", private" }</span> }
                }
                if entry.mentioned > 0 {
                    <span class="badge fresh" data-testid="mentioned">{ "@" }{ count_text(entry.mentioned) }</span>
                    <span class="sr">{ " mention you, " }</span>
                }
                if unread {
                    <span class="badge" data-testid="unread">{ count_text(entry.unread) }</span>
                    <span class="sr">{ " unread" }</span>
                }
            </a>
        </li>
    }
}

/// Follows a link inside the page; clicks that ask for a new tab or window are the browser's.
pub(super) fn follow(go: &Callback<Route>, route: Route) -> Callback<MouseEvent> {
    let go = go.clone();
    Callback::from(move |event: MouseEvent| {
        if event.button() != 0 || event.ctrl_key() || event.meta_key() || event.shift_key() || event.alt_key()
        {
            return;
        }
        event.prevent_default();
        go.emit(route.clone());
    })
}
