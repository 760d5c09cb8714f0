//! What the operator says to everyone: apart from the rooms, until it is put away.

use yew::prelude::*;

use super::{ICON_CLOSE, ICON_MEGAPHONE, icon, time};
use crate::state::{Announcement, Input};

/// The announcements that were not put away, newest last.
pub fn announcements(announcements: &[Announcement], send: &Callback<Input>) -> Html {
    html! {
        <div class="announcements" role="status">
            { for announcements.iter().map(|announcement| {
                let id = announcement.id;
                let dismiss = send.reform(move |_: MouseEvent| Input::DismissAnnouncement(id));
                html! {
                    <section key={id} class="announcement" data-testid="announcement" aria-label="Announcement">
                        { icon(ICON_MEGAPHONE) }
                        <div class="announcement-text">
                            <span class="announcement-head">
                                <strong>{ "Announcement" }</strong>
                                <time datetime={time::iso(announcement.at)} title={time::full(announcement.at)}>
                                    { time::clock(announcement.at) }
                                </time>
                            </span>
                            <p>{ &announcement.text }</p>
                        </div>
                        <button class="icon-button" aria-label="Dismiss announcement" onclick={dismiss}>
                            { icon(ICON_CLOSE) }
                        </button>
                    </section>
                }
            }) }
        </div>
    }
}
