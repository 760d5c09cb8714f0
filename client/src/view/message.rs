//! The rows of the conversation: messages, system lines, days, the "new" line.
//!
//! Each row is a component of its own with comparable properties, so that a new message renders one row.

use std::rc::Rc;

use shared::model::{Ms, Ref, RoomId};
use shared::protocol::{Event, EventKind, User};
use yew::prelude::*;
use yew::virtual_dom::Key;

use super::{Ask, ICON_ALERT, ICON_MORE, avatar, icon, markdown, time};
use crate::panels::Card;
use crate::rows;
use crate::state::Input;

/// A row that owns what it shows, so that it can be compared with the one before.
#[derive(Clone, PartialEq)]
pub enum Entry {
    Day { at: Ms },
    New,
    Message(Message),
    System(Rc<Event>),
}

/// A message's row.
#[derive(Clone, PartialEq)]
pub struct Message {
    pub key: rows::Key,
    pub at: Ms,
    /// The author, on the first message of a group; the others repeat only the name, for screen readers.
    pub head: Option<User>,
    pub author: AttrValue,
    pub own: bool,
    /// The reader has blocked the author.
    pub hidden: bool,
    pub mentions_me: bool,
    pub content: Content,
}

/// Where a message's text comes from.
#[derive(Clone, PartialEq)]
pub enum Content {
    Confirmed(Rc<Event>),
    Pending { text: String },
    Failed { text: String, reference: Ref, reason: String },
}

impl Message {
    /// Whether it is on its way.
    pub fn is_pending(&self) -> bool {
        matches!(self.content, Content::Pending { .. })
    }
}

impl Entry {
    /// What the row is known by while the list changes around it.
    pub fn key(&self) -> Key {
        match self {
            Entry::Day { at } => ["day", &time::day(*at).to_string()].concat().into(),
            Entry::New => "new".into(),
            Entry::Message(message) => match message.key {
                rows::Key::Own(reference) => reference.to_string().into(),
                rows::Key::Seq(seq) => seq.into(),
            },
            Entry::System(event) => event.seq.into(),
        }
    }
}

/// Turns the state's rows, which borrow, into entries, which can be kept.
pub fn entries(rows: &[rows::Row<'_>]) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        match row {
            rows::Row::Day { at } => entries.push(Entry::Day { at: *at }),
            rows::Row::New => entries.push(Entry::New),
            rows::Row::System { event } => entries.push(Entry::System(Rc::clone(event))),
            rows::Row::Group { author, own, hidden, lines } => {
                let name = AttrValue::from(author.name.to_string());
                for (index, line) in lines.iter().enumerate() {
                    let content = match line.standing {
                        rows::Standing::Confirmed(event) => Content::Confirmed(Rc::clone(event)),
                        rows::Standing::Pending(_) => Content::Pending { text: line.body.to_owned() },
                        rows::Standing::Failed { reference, reason } => Content::Failed {
                            text: line.body.to_owned(),
                            reference,
                            reason: reason.to_owned(),
                        },
                    };
                    entries.push(Entry::Message(Message {
                        key: line.key,
                        at: line.at,
                        head: (index == 0).then(|| (*author).clone()),
                        author: name.clone(),
                        own: *own,
                        hidden: *hidden,
                        mentions_me: line.mentions_me,
                        content,
                    }));
                }
            }
        }
    }
    entries
}

#[derive(Properties, PartialEq)]
pub struct RowsProps {
    pub entries: Rc<Vec<Entry>>,
    /// The present day: "Today" becomes "Yesterday" at midnight.
    pub today: i64,
    pub room: RoomId,
    pub send: Callback<Input>,
    pub ask: Callback<Ask>,
}

/// All rows, in the order of the log.
#[component]
pub fn Rows(props: &RowsProps) -> Html {
    let row = |entry: &Entry| {
        let key = entry.key();
        match entry {
            Entry::Day { at } => html! {
                <div {key} class="day" role="separator"><span>{ time::day_name(*at, props.today) }</span></div>
            },
            Entry::New => html! {
                <div {key} class="new-line" role="separator" data-testid="new-line"><span>{ "New" }</span></div>
            },
            Entry::System(event) => system_line(event, key),
            Entry::Message(message) => html! {
                <MessageRow {key} message={message.clone()} room={props.room} send={props.send.clone()}
                    ask={props.ask.clone()} />
            },
        }
    };
    props.entries.iter().map(row).collect()
}

fn system_line(event: &Event, key: Key) -> Html {
    let (does, whom, rest) = match &event.kind {
        EventKind::Created => (" created the room", "", ""),
        EventKind::Joined => (" joined", "", ""),
        EventKind::Left => (" left", "", ""),
        EventKind::Invited { target } => (" invited ", target.name.as_str(), ""),
        EventKind::Removed { target } => (" removed ", target.name.as_str(), ""),
        EventKind::Transferred { target } => (" made ", target.name.as_str(), " the owner"),
        EventKind::Muted { target, until } if *until > event.at => (" muted ", target.name.as_str(), ""),
        EventKind::Muted { target, .. } => (" let ", target.name.as_str(), " write again"),
        EventKind::Topic { text } if text.as_str().is_empty() => (" took the topic away", "", ""),
        EventKind::Topic { text } => (" set the topic: ", text.as_str(), ""),
        EventKind::RoomRenamed { text } => (" named the room ", text.as_str(), ""),
        EventKind::Archived { archived: true } => (" archived the room", "", ""),
        EventKind::Archived { archived: false } => (" took the room out of the archive", "", ""),
        EventKind::SlowMode { seconds: 0 } => (" ended slow mode", "", ""),
        EventKind::SlowMode { .. } => (" turned slow mode on", "", ""),
        EventKind::Renamed { name } => (" is now called ", name.as_str(), ""),
        // Messages have rows of their own, and what a newer server means is not for this page.
        EventKind::Message { .. } | EventKind::Deleted | EventKind::Deletion { .. } | EventKind::Unknown => {
            return Html::default();
        }
    };
    let sentence =
        html! { <><strong>{ event.user.name.as_str() }</strong>{ does }<strong>{ whom }</strong>{ rest }</> };
    html! {
        <div {key} class="system" data-testid="system-line" data-seq={event.seq.to_string()}>
            <span>{ sentence }</span>
            <time datetime={time::iso(event.at)} title={time::full(event.at)}>{ time::clock(event.at) }</time>
        </div>
    }
}

#[derive(Properties, PartialEq)]
struct MessageProps {
    message: Message,
    room: RoomId,
    ask: Callback<Ask>,
    send: Callback<Input>,
}

#[component]
fn MessageRow(props: &MessageProps) -> Html {
    let message = &props.message;
    let opened = use_state(|| false);
    let (text, state, seq) = match &message.content {
        Content::Confirmed(event) => match &event.kind {
            EventKind::Message { body, .. } => (body.as_str(), "sent", Some(event.seq)),
            _ => ("", "deleted", Some(event.seq)),
        },
        Content::Pending { text } => (text.as_str(), "pending", None),
        Content::Failed { text, .. } => (text.as_str(), "failed", None),
    };
    let stamp = html! {
        <time datetime={time::iso(message.at)} title={time::full(message.at)}>{ time::clock(message.at) }</time>
    };
    let classes = classes!(
        "message",
        state,
        message.head.is_some().then_some("head"),
        message.mentions_me.then_some("for-me"),
    );
    let actions = seq.map(|seq| {
        let room = props.room;
        props.ask.reform(move |_: ()| Ask::Card(Card::Message(room, seq)))
    });
    // A long press, or the other button of the mouse where nothing is to be copied.
    let oncontextmenu = actions.clone().map(|actions| {
        Callback::from(move |event: MouseEvent| {
            if super::is_touch() {
                event.prevent_default();
                actions.emit(());
            }
        })
    });
    let body = if state == "deleted" {
        html! { <p class="note">{ "This message was deleted." }</p> }
    } else if message.hidden && !*opened {
        let show = Callback::from(move |_: MouseEvent| opened.set(true));
        html! { <button class="note" onclick={show}>{ "A message of somebody you blocked. Show it." }</button> }
    } else {
        markdown::body(text)
    };
    html! {
        <article class={classes} data-testid="message" data-seq={seq.map(|seq| seq.to_string())} data-state={state}
            data-own={message.own.then_some("true")} {oncontextmenu}>
            if let Some(author) = &message.head {
                { avatar(author.id, author.name.as_str(), None) }
                <div class="by">
                    if message.own {
                        <span class="name">{ author.name.as_str() }</span>
                    } else {
                        <button class="name" title={["About ", author.name.as_str()].concat()}
                            onclick={about(&props.ask, author)}>{ author.name.as_str() }</button>
                    }
                    { stamp }
                </div>
            } else {
                <span class="sr">{ &message.author }{ ": " }</span>
                <span class="side">{ stamp }</span>
            }
            <div class="body" data-testid="message-body">{ body }</div>
            if let Some(actions) = actions {
                <button class="icon-button more" tabindex="-1" aria-label="Message actions" aria-haspopup="dialog"
                    data-testid="message-actions" onclick={actions.reform(|_: MouseEvent| ())}>{ icon(ICON_MORE) }</button>
            }
            if state == "pending" {
                <span class="pending-mark" role="img" aria-label="Sending"></span>
            }
            if let Content::Failed { reference, reason, .. } = &message.content {
                { failed(*reference, reason, &props.send) }
            }
        </article>
    }
}

fn about(ask: &Callback<Ask>, user: &User) -> Callback<MouseEvent> {
    let user = user.clone();
    ask.reform(move |_| Ask::Card(Card::Person(user.clone())))
}

fn failed(reference: Ref, reason: &str, send: &Callback<Input>) -> Html {
    let retry = send.reform(move |_: MouseEvent| Input::Retry(reference));
    let discard = send.reform(move |_: MouseEvent| Input::Discard(reference));
    html! {
        <div class="trouble">
            { icon(ICON_ALERT) }
            <span>{ "Not sent. " }{ reason }</span>
            <button class="button small" data-testid="retry" onclick={retry}>{ "Retry" }</button>
            <button class="button small quiet" data-testid="discard" onclick={discard}>{ "Delete" }</button>
        </div>
    }
}
