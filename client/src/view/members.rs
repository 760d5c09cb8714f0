//! Who is in the room.

use std::rc::Rc;

use shared::model::{LOBBY, RoomId, UserId};
use shared::protocol::{Person, Presence};
use yew::prelude::*;

use super::{Ask, ICON_CLOSE, ICON_LEAVE, ICON_MORE, avatar, icon, presence_name};
use crate::panels::Card;
use crate::state::Input;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub room: RoomId,
    /// Those known, in the order of the list.
    pub people: Rc<Vec<Person>>,
    /// Members; 0 is not known.
    pub total: u32,
    pub me: Option<UserId>,
    /// Whether it was opened by hand.
    pub open: bool,
    pub send: Callback<Input>,
    pub ask: Callback<Ask>,
}

/// Puts people into the order of the list: who is there first, then by name. There are few, so that this
/// need not be fast, only small.
pub fn sorted<'a>(people: impl Iterator<Item = &'a Person>) -> Vec<Person> {
    let mut sorted: Vec<(String, Person)> = Vec::new();
    for person in people {
        let name = person.user.name.as_str().to_lowercase();
        let at = sorted.partition_point(|(other, before)| {
            (before.presence, &name, person.user.id) > (person.presence, other, before.user.id)
        });
        sorted.insert(at, (name, person.clone()));
    }
    sorted.into_iter().map(|(_, person)| person).collect()
}

/// The members with their presence; a click on one opens the direct conversation.
#[component]
pub fn Members(props: &Props) -> Html {
    let row = |person: &Person| {
        let (id, own) = (person.user.id, props.me == Some(person.user.id));
        let open = props.send.reform(move |_: MouseEvent| Input::OpenDirect(id));
        let inner = html! {
            <>
                { avatar(id, person.user.name.as_str(), Some(person.presence)) }
                <span class="member-name">{ person.user.name.as_str() }</span>
                if own { <span class="member-you">{ "you" }</span> }
                <span class="sr">{ ", " }{ presence_name(person.presence) }</span>
            </>
        };
        let user = person.user.clone();
        let about = props.ask.reform(move |_: MouseEvent| Ask::Card(Card::Person(user.clone())));
        let class = classes!("member", (person.presence == Presence::Offline).then_some("absent"));
        html! {
            <li key={id.bits()} data-testid="member" data-presence={presence_name(person.presence)}>
                if own {
                    <div {class}>{ inner }</div>
                } else {
                    <button {class} title={["Message ", person.user.name.as_str()].concat()} onclick={open}>{ inner }</button>
                    <button class="icon-button more" aria-label={["About ", person.user.name.as_str()].concat()}
                        data-testid="about" onclick={about}>{ icon(ICON_MORE) }</button>
                }
            </li>
        }
    };
    let here = props.people.iter().filter(|person| person.presence != Presence::Offline).count();
    let (present, absent) = props.people.split_at(here);
    let unnamed = (props.total as usize).saturating_sub(props.people.len());
    let room = props.room;
    html! {
        <aside class={classes!("members", props.open.then_some("open"))} aria-label="Members" id="members">
            <div class="members-head">
                <h2>{ "Members" }</h2>
                <button class="icon-button only-drawer" aria-label="Close" onclick={props.ask.reform(|_| Ask::Close)}>
                    { icon(ICON_CLOSE) }
                </button>
            </div>
            <div class="members-list">
                if here > 0 {
                    <h3>{ "Here" }<span class="tabular">{ here }</span></h3>
                    <ul>{ for present.iter().map(row) }</ul>
                }
                if !absent.is_empty() {
                    <h3>{ "Not here" }<span class="tabular">{ absent.len() }</span></h3>
                    <ul>{ for absent.iter().map(row) }</ul>
                }
                if unnamed > 0 && !props.people.is_empty() {
                    <p class="note">{ "and " }{ unnamed }{ " more" }</p>
                }
            </div>
            if room != LOBBY {
                <div class="members-foot">
                    <button class="button quiet" data-testid="leave-room"
                        onclick={props.send.reform(move |_: MouseEvent| Input::LeaveRoom(room))}>
                        { icon(ICON_LEAVE) }{ "Leave room" }
                    </button>
                </div>
            }
        </aside>
    }
}
