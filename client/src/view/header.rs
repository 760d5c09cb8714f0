//! The line above the conversation: which room, who is there, how the connection is.

use shared::protocol::RoomKind;
use yew::prelude::*;

use super::rooms::follow;
use super::{Ask, ICON_LOCK, ICON_MENU, ICON_PEOPLE, ICON_SETTINGS, count_text, icon};
use crate::link::Phase;
use crate::route::Route;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub kind: RoomKind,
    pub title: AttrValue,
    /// What the room is about.
    pub topic: Option<AttrValue>,
    /// Where the room's settings are.
    pub settings: Option<Route>,
    pub go: Callback<Route>,
    /// People present; 0 is not known.
    pub online: u32,
    /// Members; 0 is not known.
    pub members: u32,
    pub phase: Phase,
    /// Unread messages in other rooms, for where the list is hidden.
    pub elsewhere: u32,
    pub members_open: bool,
    pub ask: Callback<Ask>,
}

/// The header of the conversation.
#[component]
pub fn Header(props: &Props) -> Html {
    let (state, word) = match props.phase {
        Phase::Online { .. } => ("online", "Connected"),
        Phase::Connecting { .. } | Phase::Greeting { .. } => ("away", "Connecting"),
        Phase::Waiting { .. } | Phase::Stopped => ("offline", "Not connected"),
    };
    let rooms_label = match props.elsewhere {
        0 => "Rooms".to_owned(),
        count => ["Rooms, ", &count_text(count), " unread elsewhere"].concat(),
    };
    html! {
        <header class="header">
            <button class="icon-button only-narrow" aria-label={rooms_label} onclick={props.ask.reform(|_| Ask::Rooms)}>
                { icon(ICON_MENU) }
                if props.elsewhere > 0 { <span class="badge-dot"></span> }
            </button>
            <div class="header-title">
                <h1>
                    { match props.kind {
                        RoomKind::Public => html! { <span class="hash" aria-hidden="true">{ "#" }</span> },
                        RoomKind::Private => icon(ICON_LOCK),
                        RoomKind::Direct | RoomKind::Group => Html::default(),
                    } }
                    { &props.title }
                </h1>
                <p class="header-note">
                    <span class={classes!("dot", state)} title={word}></span>
                    <span class="sr">{ word }{ ". " }</span>
                    if props.kind == RoomKind::Direct {
                        { "Direct conversation" }
                    } else if props.members > 0 {
                        <span class="tabular">{ props.members }</span>
                        { if props.members == 1 { " member" } else { " members" } }
                        if props.online > 0 { { ", " }<span class="tabular">{ props.online }</span>{ " here" } }
                    } else if props.online > 0 {
                        <span class="tabular">{ props.online }</span>{ " here" }
                    } else {
                        { word }
                    }
                    if let Some(topic) = &props.topic {
                        { " · " }<span data-testid="topic" title={topic}>{ topic }</span>
                    }
                </p>
            </div>
            if let Some(settings) = &props.settings {
                <a class="icon-button" aria-label="Room settings" title="Room settings" data-testid="room-settings"
                    href={settings.path()} onclick={follow(&props.go, settings.clone())}>{ icon(ICON_SETTINGS) }</a>
            }
            if props.kind != RoomKind::Direct {
                <button class="icon-button" aria-label="Members" title="Members"
                    aria-expanded={if props.members_open { "true" } else { "false" }}
                    onclick={props.ask.reform(|_| Ask::Members)}>
                    { icon(ICON_PEOPLE) }
                </button>
            }
        </header>
    }
}
