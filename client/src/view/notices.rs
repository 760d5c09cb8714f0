//! Short messages to the person that go away by themselves.

use yew::prelude::*;

use super::{ICON_ALERT, ICON_CLOSE, icon};
use crate::state::{Input, Notice, NoticeKind};

/// The notices of the moment.
pub fn notices(notices: &[Notice], send: &Callback<Input>) -> Html {
    html! {
        <div class="notices" role="status">
            { for notices.iter().map(|notice| {
                let id = notice.id;
                let dismiss = send.reform(move |_: MouseEvent| Input::DismissNotice(id));
                let error = notice.kind == NoticeKind::Error;
                html! {
                    <div key={id} class={classes!("notice", error.then_some("error"))} data-testid="notice">
                        if error { { icon(ICON_ALERT) } }
                        <span>{ &notice.text }</span>
                        <button class="icon-button" aria-label="Dismiss" onclick={dismiss}>{ icon(ICON_CLOSE) }</button>
                    </div>
                }
            }) }
        </div>
    }
}
