//! What stands above the conversation while there is no connection.

use yew::prelude::*;

use crate::link::Banner;
use crate::state::Input;

/// The trouble with the connection, if there is any, and a way to hurry.
pub fn banner(banner: Option<Banner>, send: &Callback<Input>) -> Html {
    // The live region stays, so that what comes into it is read out. The countdown is not: it changes each
    // second.
    html! {
        <div class="banner-place" role="status">
            if let Some(banner) = banner {
                <div class="banner" data-testid="banner">
                    <span class="spinner" aria-hidden="true"></span>
                    <span>
                        if let Banner::Waiting { seconds } = banner {
                            { "Reconnecting" }
                            <span aria-hidden="true">{ " in " }{ seconds }{ " s" }</span>
                        } else {
                            { "Connecting…" }
                        }
                    </span>
                    <span class="banner-note">{ "You can go on writing." }</span>
                    if let Banner::Waiting { .. } = banner {
                        <button class="button small" data-testid="try-now" onclick={send.reform(|_: MouseEvent| Input::TryNow)}>{ "Try now" }</button>
                    }
                </div>
            }
        </div>
    }
}
