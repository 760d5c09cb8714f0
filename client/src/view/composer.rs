//! Where a message is written. It keeps the text itself and reports it as a draft now and then, so that a
//! key press renders nothing but this.

use gloo_events::EventListener;
use gloo_timers::callback::Timeout;
use shared::model::RoomId;
use web_sys::HtmlTextAreaElement;
use yew::prelude::*;

use super::{ICON_SEND, icon, is_touch};
use crate::mention;

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
    /// Names that can be mentioned.
    pub people: Vec<AttrValue>,
    /// What keeps the person from writing, if anything.
    pub barrier: Option<AttrValue>,
    /// Seconds that have to pass between two messages; 0 for none.
    pub slow: u32,
    /// Names of those who are typing.
    pub typing: Vec<AttrValue>,
    /// Messages of this room that could not be sent.
    pub failed: usize,
    pub on_draft: Callback<(RoomId, String)>,
    pub on_send: Callback<(RoomId, String)>,
    pub on_retry_all: Callback<RoomId>,
}

pub enum Msg {
    /// The text, and where the caret is in it.
    Typed(String, usize),
    /// The next or the last of the names that are offered.
    Choose(bool),
    /// The name with this number in place of what was typed.
    Take(usize),
    /// Offer no names for what is typed now.
    Dismiss,
    /// Send this text, which is taken out of the field already.
    Send(String),
    /// Time to report the draft.
    Keep,
}

pub struct Composer {
    field: NodeRef,
    text: String,
    caret: usize,
    /// Whether names are offered for the `@` that is typed, and which of them is chosen.
    offers: bool,
    chosen: usize,
    /// Where the caret goes when the text is drawn.
    caret_waits: Option<u32>,
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
        Self {
            field: NodeRef::default(),
            text: ctx.props().draft.to_string(),
            caret: 0,
            offers: false,
            chosen: 0,
            caret_waits: None,
            unkept: None,
            touch: is_touch(),
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
            self.offers = false;
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
            Msg::Typed(text, caret) => {
                self.text = text;
                self.caret = caret;
                self.offers = true;
                self.chosen = 0;
                if self.unkept.is_none() {
                    let link = ctx.link().clone();
                    self.unkept = Some(Timeout::new(DRAFT_MS, move || link.send_message(Msg::Keep)));
                }
                true
            }
            Msg::Choose(next) => {
                let count = self.offered(props).len().max(1);
                self.chosen = (self.chosen + if next { 1 } else { count - 1 }) % count;
                true
            }
            Msg::Take(place) => {
                let Some(name) = self.offered(props).get(place).map(|name| (*name).to_owned()) else {
                    return false;
                };
                let (text, caret) = mention::complete(&self.text, self.caret, &name);
                self.caret_waits = Some(caret as u32);
                Component::update(self, ctx, Msg::Typed(text, caret));
                self.offers = false;
                true
            }
            Msg::Dismiss => {
                self.offers = false;
                true
            }
            Msg::Keep => {
                if self.unkept.take().is_some() {
                    props.on_draft.emit((props.room, self.text.clone()));
                }
                false
            }
            Msg::Send(text) => {
                self.text.clear();
                self.unkept = None;
                self.offers = false;
                props.on_send.emit((props.room, text));
                true
            }
        }
    }

    fn view(&self, ctx: &Context<Self>) -> Html {
        let props = ctx.props();
        let left = left(&self.text, props.limit);
        let label = ["Message ", &props.place].concat();
        let oninput = ctx.link().callback(|event: InputEvent| {
            let field = event.target_unchecked_into::<HtmlTextAreaElement>();
            let caret = field.selection_start().ok().flatten().unwrap_or(0);
            Msg::Typed(field.value(), caret as usize)
        });
        let offered = self.offered(props);
        let (offers, chosen) = (!offered.is_empty(), self.chosen.min(offered.len().saturating_sub(1)));
        let (touch, limit, field) = (self.touch, props.limit, self.field.clone());
        let onkeydown = ctx.link().batch_callback(move |event: KeyboardEvent| {
            // The Enter that ends a composition (Japanese, Chinese, accents) is not ours; 229 is how older
            // browsers say so.
            let composing = event.is_composing() || event.key_code() == 229;
            let msg = match event.key().as_str() {
                _ if composing => return None,
                "ArrowDown" if offers => Msg::Choose(true),
                "ArrowUp" if offers => Msg::Choose(false),
                "Tab" | "Enter" if offers && !event.shift_key() => Msg::Take(chosen),
                "Escape" if offers => Msg::Dismiss,
                "Enter" if !event.shift_key() && (!touch || event.ctrl_key()) => {
                    event.prevent_default();
                    return take(&field, limit);
                }
                _ => return None,
            };
            event.prevent_default();
            Some(msg)
        });
        let option = |(place, name): (usize, &&str)| {
            // Before the field would lose the focus.
            let onmousedown = ctx.link().callback(move |event: MouseEvent| {
                event.prevent_default();
                Msg::Take(place)
            });
            html! {
                <li id={["offer", &place.to_string()].concat()} role="option" data-testid="offer" {onmousedown}
                    aria-selected={if place == chosen { "true" } else { "false" }}>{ "@" }{ *name }</li>
            }
        };
        let field = self.field.clone();
        let onsubmit = ctx.link().batch_callback(move |event: SubmitEvent| {
            event.prevent_default();
            // Whoever tapped the button wants the keyboard to stay.
            if let Some(field) = field.cast::<HtmlTextAreaElement>() {
                let _ = field.focus();
            }
            take(&field, limit)
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
                if offers {
                    <ul class="offers" id="offers" role="listbox" aria-label="People">
                        { for offered.iter().enumerate().map(option) }
                    </ul>
                }
                if let Some(barrier) = &props.barrier {
                    <p class="barrier" role="status" data-testid="barrier">{ barrier }</p>
                } else {
                <form class="composer-box" {onsubmit}>
                    <div class="grow">
                        // As tall as the text: it gives the field its height without measuring.
                        <div class="grow-mirror" aria-hidden="true">{ &self.text }{ "\u{200b}" }</div>
                        <textarea ref={self.field.clone()} class="grow-field" rows="1" data-testid="composer"
                            aria-label={label.clone()} placeholder={label} value={self.text.clone()}
                            enterkeyhint={if touch { "enter" } else { "send" }} {oninput} {onkeydown}
                            aria-controls={offers.then_some("offers")}
                            aria-activedescendant={offers.then(|| ["offer", &chosen.to_string()].concat())} />
                    </div>
                    if left < COUNTER_FROM as isize {
                        <span class={classes!("counter", (left < 0).then_some("over"))} data-testid="counter" role="status">
                            { left }<span class="sr">{ " characters left" }</span>
                        </span>
                    }
                    <button class="send" type="submit" data-testid="send" aria-label="Send"
                        disabled={self.text.trim().is_empty() || left < 0}>{ icon(ICON_SEND) }</button>
                </form>
                }
                if props.slow > 0 {
                    <p class="note" data-testid="slow">{ "Slow mode: one message in " }{ props.slow }{ " s." }</p>
                }
            </footer>
        }
    }

    fn rendered(&mut self, _: &Context<Self>, first: bool) {
        if first {
            self.focus();
        }
        if let Some(caret) = self.caret_waits.take()
            && let Some(field) = self.field.cast::<HtmlTextAreaElement>()
        {
            // It fails only for fields without a text.
            let _ = field.set_selection_range(caret, caret);
        }
    }

    fn destroy(&mut self, ctx: &Context<Self>) {
        if self.unkept.take().is_some() {
            ctx.props().on_draft.emit((ctx.props().room, std::mem::take(&mut self.text)));
        }
    }
}

impl Composer {
    /// The names for the `@` that is typed.
    fn offered<'a>(&self, props: &'a Props) -> Vec<&'a str> {
        let typed = mention::typed(&self.text, self.caret).filter(|_| self.offers);
        let names = props.people.iter().map(AttrValue::as_str);
        typed.map_or_else(Vec::new, |(_, typed)| mention::offered(names, typed))
    }

    /// Puts the cursor into the field, except where that would raise a keyboard over the page unasked.
    fn focus(&self) {
        if let Some(field) = self.field.cast::<HtmlTextAreaElement>().filter(|_| !self.touch) {
            let _ = field.focus();
        }
    }
}

/// Takes what is to be sent out of the field, at once: the next key may come before anything is drawn.
fn take(field: &NodeRef, limit: usize) -> Option<Msg> {
    let field = field.cast::<HtmlTextAreaElement>()?;
    let text = field.value();
    if text.trim().is_empty() || left(&text, limit) < 0 {
        return None;
    }
    field.set_value("");
    Some(Msg::Send(text))
}

/// How many characters may still be typed; below zero it is too long.
fn left(text: &str, limit: usize) -> isize {
    if limit == 0 {
        return isize::MAX;
    }
    // Bytes are never fewer than characters: most texts need no counting.
    let long = text.len() + COUNTER_FROM >= limit;
    let used = if long { text.chars().count() } else { text.len() };
    limit as isize - used as isize
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
