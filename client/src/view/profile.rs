//! The own profile: the name that others see.

use shared::model::{NAME_CHARS_MAX, UserName};
use shared::protocol::User;
use web_sys::HtmlInputElement;
use yew::prelude::*;

use super::avatar;
use super::dialog::Dialog;
use crate::state::Input;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub me: User,
    pub send: Callback<Input>,
    pub on_close: Callback<()>,
}

/// The dialog to take another name.
#[component]
pub fn Profile(props: &Props) -> Html {
    let typed = use_state(|| props.me.name.to_string());
    let problem = use_state(|| None::<String>);
    let oninput = {
        let (typed, problem) = (typed.clone(), problem.clone());
        Callback::from(move |event: InputEvent| {
            problem.set(None);
            typed.set(event.target_unchecked_into::<HtmlInputElement>().value());
        })
    };
    let onsubmit = {
        let (typed, problem) = (typed.clone(), problem.clone());
        let (me, send, on_close) = (props.me.clone(), props.send.clone(), props.on_close.clone());
        Callback::from(move |event: SubmitEvent| {
            event.prevent_default();
            match UserName::parse(&typed) {
                Ok(name) => {
                    on_close.emit(());
                    if name != me.name {
                        send.emit(Input::Rename(name.to_string()));
                    }
                }
                Err(error) => problem.set(Some(error.to_string())),
            }
        })
    };
    html! {
        <Dialog title="Your profile" on_close={props.on_close.clone()}>
            <div class="profile-card">
                { avatar(props.me.id, &typed, None) }
                <div>
                    <strong>{ props.me.name.as_str() }</strong>
                    <p class="note">{ "You are a guest; this browser remembers who you are." }</p>
                </div>
            </div>
            <form {onsubmit}>
                <label class="label" for="own-name">{ "Name" }</label>
                <div class="field-row">
                    <input id="own-name" class="field" type="text" autocomplete="nickname" spellcheck="false"
                        autofocus=true maxlength={(NAME_CHARS_MAX * 2).to_string()} data-testid="rename-input"
                        aria-describedby="own-name-note" value={(*typed).clone()} {oninput} />
                    <button class="button primary" data-testid="rename-save" type="submit">{ "Save" }</button>
                </div>
                <p id="own-name-note" class={classes!("note", problem.is_some().then_some("bad"))} role="status">
                    if let Some(problem) = &*problem {
                        { problem }
                    } else {
                        { "Others see it beside each message that you send from now on." }
                    }
                </p>
            </form>
        </Dialog>
    }
}
