//! Where a message is written. It keeps the text itself and reports it as a draft now and then, so that a
//! key press renders nothing but this.

use gloo_events::EventListener;
use gloo_timers::callback::Timeout;
use shared::model::RoomId;
use web_sys::HtmlTextAreaElement;
use yew::prelude::*;

use super::{ICON_SEND, icon};

/// How long a changed text waits until it is reported as a draft, in milliseconds.
const DRAFT_MS: u32 = 400;
/// The counter shows when fewer characters are left.
const COUNTER_FROM: usize = 400;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub room: RoomId,
    /// The room's title as it is spoken of: `#lobby`, `Ada`.
    pub place: AttrValue,
    /// The text to start with when the room is opened.
    pub draft: AttrValue,
    /// Characters that a message may have.
    pub limit: usize,
    /// Names of those who are typing.
    pub typing: Vec<AttrValue>,
    /// Messages of this room that could not be sent.
    pub failed: usize,
    pub on_draft: Callback<(RoomId, String)>,
    pub on_send: Callback<(RoomId, String)>,
    pub on_retry_all: Callback<RoomId>,
}

pub enum Msg {
    Typed(String),
    Send,
    /// Time to report the draft.
    Keep,
}

pub struct Composer {
    field: NodeRef,
    text: String,
    /// Whether the draft was not reported since it changed.
    unkept: Option<Timeout>,
    /// Whether Enter makes a new line: there is an on-screen keyboard.
    touch: bool,
    _leaving: Option<EventListener>,
}

impl Component for Composer {
    type Message = Msg;
    type Properties = Props;

    fn create(ctx: &Context<Self>) -> Self {
        let window = web_sys::window();
        // The page may be closed or frozen without another word.
        let leaving = window.as_ref().map(|window| {
            let link = ctx.link().clone();
            EventListener::new(window, "pagehide", move |_| link.send_message(Msg::Keep))
        });
        let touch = window.and_then(|window| window.match_media("(pointer: coarse)").ok().flatten());
        Self {
            field: NodeRef::default(),
            text: ctx.props().draft.to_string(),
            unkept: None,
            touch: touch.is_some_and(|query| query.matches()),
            _leaving: leaving,
        }
    }

    fn changed(&mut self, ctx: &Context<Self>, old: &Props) -> bool {
        let new = ctx.props();
        if new.room != old.room {
            if self.unkept.take().is_some() {
                old.on_draft.emit((old.room, std::mem::take(&mut self.text)));
            }
            self.text = new.draft.to_string();
            self.focus();
        } else if new.draft != old.draft && self.unkept.is_none() {
            // Somebody else changed it: another tab, or a message given back.
            self.text = new.draft.to_string();
        }
        true
    }

    fn update(&mut self, ctx: &Context<Self>, msg: Msg) -> bool {
        let props = ctx.props();
        match msg {
            Msg::Typed(text) => {
                self.text = text;
                if self.unkept.is_none() {
                    let link = ctx.link().clone();
                    self.unkept = Some(Timeout::new(DRAFT_MS, move || link.send_message(Msg::Keep)));
                }
                true
            }
            Msg::Keep => {
                if self.unkept.take().is_some() {
                    props.on_draft.emit((props.room, self.text.clone()));
                }
                false
            }
            Msg::Send => {
                // Whoever tapped the button wants the keyboard to stay.
                if let Some(field) = self.field.cast::<HtmlTextAreaElement>() {
                    let _ = field.focus();
                }
                if self.text.trim().is_empty() || self.left(props) < 0 {
                    return false;
                }
                self.unkept = None;
                props.on_send.emit((props.room, std::mem::take(&mut self.text)));
                true
            }
        }
    }

    fn view(&self, ctx: &Context<Self>) -> Html {
        let props = ctx.props();
        let left = self.left(props);
        let label = ["Message ", &props.place].concat();
        let oninput = ctx.link().callback(|event: InputEvent| {
            Msg::Typed(event.target_unchecked_into::<HtmlTextAreaElement>().value())
        });
        let touch = self.touch;
        let onkeydown = ctx.link().batch_callback(move |event: KeyboardEvent| {
            // The Enter that ends a composition (Japanese, Chinese, accents) is not ours; 229 is how older
            // browsers say so.
            let composing = event.is_composing() || event.key_code() == 229;
            if event.key() != "Enter" || event.shift_key() || composing || touch && !event.ctrl_key() {
                return None;
            }
            event.prevent_default();
            Some(Msg::Send)
        });
        let onsubmit = ctx.link().callback(|event: SubmitEvent| {
            event.prevent_default();
            Msg::Send
        });
        let room = props.room;
        html! {
            <footer class="composer">
                <p class="typing" data-testid="typing" role="status">{ typing(&props.typing) }</p>
                if props.failed > 0 {
                    <div class="failures" role="status">
                        <span>
                            { props.failed }
                            { if props.failed == 1 { " message was not sent." } else { " messages were not sent." } }
                        </span>
                        <button class="button small" data-testid="retry-all"
                            onclick={props.on_retry_all.reform(move |_| room)}>{ "Retry all" }</button>
                    </div>
                }
                <form class="composer-box" {onsubmit}>
                    <div class="grow">
                        // As tall as the text: it gives the field its height without measuring.
                        <div class="grow-mirror" aria-hidden="true">{ &self.text }{ "\u{200b}" }</div>
                        <textarea ref={self.field.clone()} class="grow-field" rows="1" data-testid="composer"
                            aria-label={label.clone()} placeholder={label} value={self.text.clone()}
                            enterkeyhint={if touch { "enter" } else { "send" }} {oninput} {onkeydown} />
                    </div>
                    if left < COUNTER_FROM as isize {
                        <span class={classes!("counter", (left < 0).then_some("over"))} data-testid="counter" role="status">
                            { left }<span class="sr">{ " characters left" }</span>
                        </span>
                    }
                    <button class="send" type="submit" data-testid="send" aria-label="Send"
                        disabled={self.text.trim().is_empty() || left < 0}>{ icon(ICON_SEND) }</button>
                </form>
            </footer>
        }
    }

    fn rendered(&mut self, _: &Context<Self>, first: bool) {
        if first {
            self.focus();
        }
    }

    fn destroy(&mut self, ctx: &Context<Self>) {
        if self.unkept.take().is_some() {
            ctx.props().on_draft.emit((ctx.props().room, std::mem::take(&mut self.text)));
        }
    }
}

impl Composer {
    /// How many characters may still be typed; below zero it is too long.
    fn left(&self, props: &Props) -> isize {
        if props.limit == 0 {
            return isize::MAX;
        }
        // Bytes are never fewer than characters: most texts need no counting.
        let long = self.text.len() + COUNTER_FROM >= props.limit;
        let used = if long { self.text.chars().count() } else { self.text.len() };
        props.limit as isize - used as isize
    }

    /// Puts the cursor into the field, except where that would raise a keyboard over the page unasked.
    fn focus(&self) {
        if let Some(field) = self.field.cast::<HtmlTextAreaElement>().filter(|_| !self.touch) {
            let _ = field.focus();
        }
    }
}

/// Who is typing, in a sentence; empty for nobody.
fn typing(names: &[AttrValue]) -> Html {
    match names {
        [] => Html::default(),
        [one] => html! { <>{ one }{ " is typing" }</> },
        [one, two] => html! { <>{ one }{ " and " }{ two }{ " are typing" }</> },
        [one, two, three] => html! { <>{ one }{ ", " }{ two }{ " and " }{ three }{ " are typing" }</> },
        _ => html! { { "Several people are typing" } },
    }
}
