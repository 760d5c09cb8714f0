//! The dialog to find, join and make public rooms.

use shared::model::RoomName;
use shared::protocol::Listing;
use web_sys::HtmlInputElement;
use yew::prelude::*;

use super::Ask;
use super::dialog::Dialog;
use crate::panels::Card;
use crate::state::Input;

#[derive(Properties, PartialEq)]
pub struct Props {
    /// `None` until the answer has come.
    pub listings: Option<Vec<Listing>>,
    /// Whether one may make private rooms.
    pub may_hide: bool,
    pub send: Callback<Input>,
    pub ask: Callback<Ask>,
    pub on_close: Callback<()>,
}

/// The public rooms, filtered by what is typed, and a way to make one of that name.
#[component]
pub fn Directory(props: &Props) -> Html {
    let typed = use_state(String::new);
    let private = use_state(|| false);
    let problem = use_state(|| None::<String>);
    let send = props.send.clone();
    use_effect_with((), move |()| send.emit(Input::AskDirectory));

    let oninput = {
        let (typed, problem) = (typed.clone(), problem.clone());
        Callback::from(move |event: InputEvent| {
            problem.set(None);
            typed.set(event.target_unchecked_into::<HtmlInputElement>().value());
        })
    };
    let act = {
        let (send, on_close) = (props.send.clone(), props.on_close.clone());
        Callback::from(move |input: Input| {
            on_close.emit(());
            send.emit(input);
        })
    };
    let name = RoomName::parse(&typed);
    let wanted = name.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default();
    let listings = props.listings.as_deref().unwrap_or_default();
    let found: Vec<&Listing> = listings.iter().filter(|room| room.name.as_str().contains(&wanted)).collect();
    let exists = listings.iter().any(|room| room.name.as_str() == wanted);

    // Enter does what the button beside the text does.
    let onsubmit = {
        let (act, problem, name, private) = (act.clone(), problem.clone(), name.clone(), *private);
        Callback::from(move |event: SubmitEvent| {
            event.prevent_default();
            match &name {
                Ok(name) if exists && !private => act.emit(Input::JoinRoom(name.to_string())),
                Ok(name) if private => act.emit(Input::CreatePrivateRoom(name.to_string())),
                Ok(name) => act.emit(Input::CreateRoom(name.to_string())),
                Err(error) => problem.set(Some(error.to_string())),
            }
        })
    };
    let verb = if exists && !*private { "Open" } else { "Create" };
    let hide = {
        let private = private.clone();
        Callback::from(move |_: Event| private.set(!*private))
    };
    let group = props.ask.reform(|_: MouseEvent| Ask::Card(Card::Group));
    html! {
        <Dialog title="Rooms" on_close={props.on_close.clone()}>
            <form class="field-row" {onsubmit}>
                <label class="sr" for="room-name">{ "Room name" }</label>
                <input id="room-name" class="field" type="text" placeholder="Find or name a room" autocomplete="off"
                    autocapitalize="none" spellcheck="false" autofocus=true data-testid="room-name-input"
                    aria-describedby="room-name-note" value={(*typed).clone()} {oninput} />
                <button class="button primary" data-testid="create-room" type="submit"
                    disabled={typed.trim().is_empty()}>{ verb }</button>
            </form>
            <p id="room-name-note" class={classes!("note", problem.is_some().then_some("bad"))} role="status">
                if let Some(problem) = &*problem {
                    { problem }
                } else if !wanted.is_empty() && wanted != *typed {
                    { "It will be called #" }{ &wanted }{ "." }
                } else {
                    { if *private { "Only those who are invited know of it." } else { "Anyone here can find and join a public room." } }
                }
            </p>
            <div class="buttons">
                if props.may_hide {
                    <label class="check"><input type="checkbox" data-testid="private" checked={*private} onchange={hide} />{ "Private" }</label>
                }
                <button class="button small" data-testid="new-group" type="button" onclick={group}>{ "New group…" }</button>
            </div>
            if props.listings.is_none() {
                <p class="note">{ "Looking for rooms…" }</p>
            } else if found.is_empty() {
                <p class="note">{ "There is no room of that name yet." }</p>
            } else {
                <ul class="listings">
                    { for found.iter().map(|room| {
                        let name = room.name.clone();
                        let join = act.reform(move |_: MouseEvent| Input::JoinRoom(name.to_string()));
                        let people = if room.members == 1 { " member" } else { " members" };
                        html! {
                            <li key={room.id.bits()}>
                                <button class="listing" data-testid="join-room" onclick={join}>
                                    <span class="hash" aria-hidden="true">{ "#" }</span>
                                    <span class="listing-name">{ room.name.as_str() }</span>
                                    <span class="listing-count">{ room.members }{ people }</span>
                                    <span class="listing-verb">{ if room.joined { "Open" } else { "Join" } }</span>
                                </button>
                            </li>
                        }
                    }) }
                </ul>
            }
        </Dialog>
    }
}
