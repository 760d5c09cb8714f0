//! The conversation: it scrolls, asks for more of the log near its ends, and says which event was really
//! seen.
//!
//! Where the view stands is kept by `keeper`. It must not know how rows come about. Each room gets a
//! component of its own: mount it with the room as its key.

use std::cell::{Ref, RefCell};
use std::rc::Rc;

use gloo_timers::callback::Timeout;
use shared::model::{Ms, RoomId, Seq};
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{Element, HtmlElement, MutationObserver, MutationObserverInit, ResizeObserver};
use yew::prelude::*;

use super::keeper::Keeper;
use super::message::{Entry, Rows};
use super::{Ask, ICON_DOWN, count_text, icon, time};
use crate::state::Input;

/// Nearer to an end than this, more of the log is asked for, in CSS pixels.
const AHEAD_PX: f64 = 900.0;
/// Quiet after scrolling or drawing before it is noted what is on the screen, in milliseconds.
const SETTLE_MS: u32 = 120;
/// How long the live region stays silent after old rows came in, in milliseconds.
const HUSH_MS: u32 = 800;
/// How long a request for more of the log is not repeated, in milliseconds.
const ASK_AGAIN_MS: Ms = 2_000;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub room: RoomId,
    pub entries: Rc<Vec<Entry>>,
    /// Whether a page has come.
    pub loaded: bool,
    /// Whether the rows begin where the log begins.
    pub complete: bool,
    /// Whether the rows go on with what comes.
    pub live: bool,
    /// `seq` of the newest event held, with or without a row of its own.
    pub newest: Seq,
    pub read: Seq,
    pub unread: u32,
    /// Whether the tab is shown.
    pub visible: bool,
    /// The present day, as of `time::day`.
    pub today: i64,
    pub send: Callback<Input>,
    pub ask: Callback<Ask>,
}

pub enum Msg {
    /// The person scrolled, or the rows or the view changed.
    Moved,
    /// Nothing moved for a while.
    Settled,
    /// Old rows are in; new ones may be read out again.
    Speak,
    Jump,
}

/// ↑ and ↓ go from message to message, on the button of each.
fn step(event: KeyboardEvent) {
    let is_up = match event.key().as_str() {
        "ArrowUp" => true,
        "ArrowDown" => false,
        _ => return,
    };
    let Some(scroller) = event.target_dyn_into::<Element>() else { return };
    let Ok(Some(scroller)) = scroller.closest(".timeline") else { return };
    let Ok(buttons) = scroller.query_selector_all(".message .more") else { return };
    let button = |place: u32| buttons.item(place).and_then(|node| node.dyn_into::<HtmlElement>().ok());
    let active = scroller.owner_document().and_then(|document| document.active_element());
    let has_focus = |place: &u32| button(*place).map(Element::from) == active;
    let next = match (0..buttons.length()).find(has_focus) {
        Some(place) if is_up => place.checked_sub(1),
        Some(place) => Some(place + 1),
        // From the conversation itself: the newest one.
        None => buttons.length().checked_sub(1),
    };
    if let Some(button) = next.and_then(button) {
        event.prevent_default();
        let _ = button.focus();
    }
}

/// What tells that the rows or the view changed. Dropped, it tells nothing more.
struct Watch {
    resizes: ResizeObserver,
    changes: MutationObserver,
    _told: Closure<dyn FnMut()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.resizes.disconnect();
        self.changes.disconnect();
    }
}

pub struct Timeline {
    scroller: NodeRef,
    list: NodeRef,
    /// Empty until the elements are there.
    keeper: Rc<RefCell<Option<Keeper>>>,
    watch: Option<Watch>,
    /// Whether the button to the newest is shown.
    jump: bool,
    /// Whether the newest rows are wanted, and the rows held do not reach them yet.
    jumping: bool,
    reported_latest: Option<bool>,
    reported_seen: Seq,
    asked: Ms,
    ask_timer: Option<Timeout>,
    hush: bool,
    hush_timer: Option<Timeout>,
    settle_timer: Option<Timeout>,
}

impl Component for Timeline {
    type Message = Msg;
    type Properties = Props;

    fn create(ctx: &Context<Self>) -> Self {
        let mut timeline = Self {
            scroller: NodeRef::default(),
            list: NodeRef::default(),
            keeper: Rc::default(),
            watch: None,
            jump: false,
            jumping: false,
            reported_latest: None,
            reported_seen: 0,
            asked: 0,
            ask_timer: None,
            hush: false,
            hush_timer: None,
            settle_timer: None,
        };
        timeline.hush(ctx);
        timeline
    }

    fn changed(&mut self, ctx: &Context<Self>, old: &Props) -> bool {
        let new = ctx.props();
        if new.entries != old.entries {
            let first_changed = new.entries.first().map(Entry::key) != old.entries.first().map(Entry::key);
            let last_changed = new.entries.last().map(Entry::key) != old.entries.last().map(Entry::key);
            if first_changed && !last_changed || !old.live || !new.live {
                self.hush(ctx);
            }
            if first_changed || last_changed {
                // What was asked for may have come.
                self.asked = 0;
            }
            // One's own new message is wanted in sight.
            let sent = last_changed
                && matches!(new.entries.last(), Some(Entry::Message(message)) if message.is_pending());
            if let Some(keeper) = self.keeper.borrow_mut().as_mut() {
                keeper.look();
                if sent || self.jumping && new.live {
                    keeper.stuck = true;
                    self.jumping = false;
                }
            }
        }
        true
    }

    fn update(&mut self, ctx: &Context<Self>, msg: Msg) -> bool {
        match msg {
            Msg::Moved => {
                self.report_latest(ctx);
                self.ask_for_more(ctx);
                self.settle(ctx);
                self.show_jump(ctx)
            }
            Msg::Settled => {
                self.ask_for_more(ctx);
                self.note_seen(ctx);
                false
            }
            Msg::Speak => {
                self.hush = false;
                true
            }
            Msg::Jump => {
                if ctx.props().live {
                    if let Some(keeper) = self.keeper.borrow_mut().as_mut() {
                        keeper.stuck = true;
                        keeper.hold();
                    }
                } else {
                    self.jumping = true;
                    ctx.props().send.emit(Input::JumpToLatest(ctx.props().room));
                }
                self.focus();
                true
            }
        }
    }

    fn view(&self, ctx: &Context<Self>) -> Html {
        let props = ctx.props();
        let keeper = Rc::clone(&self.keeper);
        let onscroll = ctx.link().callback(move |_: Event| {
            // At once: the rows may change before the message is dealt with.
            if let Some(keeper) = keeper.borrow_mut().as_mut() {
                keeper.look();
            }
            Msg::Moved
        });
        let live = if self.hush || !props.loaded { "off" } else { "polite" };
        html! {
            <div class="timeline-frame">
                <div ref={self.scroller.clone()} class="timeline" role="log" tabindex="0"
                    aria-label="Conversation. Arrow keys go from message to message."
                    aria-live={live} aria-busy={(!props.loaded).then_some("true")}
                    {onscroll} onkeydown={step}>
                    <div ref={self.list.clone()} class="timeline-list">
                        if !props.loaded {
                            <p key="loading" class="timeline-note">{ "Loading…" }</p>
                        } else if props.complete {
                            <p key="begin" class="timeline-note">{ "This is where the conversation begins." }</p>
                        } else {
                            <p key="older" class="timeline-note older">{ "Loading earlier messages…" }</p>
                        }
                        <Rows key="rows" entries={Rc::clone(&props.entries)} today={props.today}
                            room={props.room} send={props.send.clone()} ask={props.ask.clone()} />
                    </div>
                </div>
                if self.jump {
                    <button class={classes!("jump", (props.unread > 0).then_some("fresh"))} data-testid="jump"
                        onclick={ctx.link().callback(|_| Msg::Jump)}>
                        { icon(ICON_DOWN) }
                        if props.unread > 0 {
                            { count_text(props.unread) }{ " new" }
                        } else {
                            { "Latest" }
                        }
                    </button>
                }
            </div>
        }
    }

    fn rendered(&mut self, ctx: &Context<Self>, first: bool) {
        if first {
            self.watch(ctx);
        }
        if let Some(keeper) = self.keeper.borrow_mut().as_mut() {
            keeper.hold();
        }
        self.settle(ctx);
    }
}

impl Timeline {
    /// Keeps the view in place from now on, whatever changes it: rows, windows, keyboards, fonts.
    fn watch(&mut self, ctx: &Context<Self>) {
        let (Some(scroller), Some(list)) = (self.scroller.cast::<Element>(), self.list.cast::<Element>())
        else {
            return;
        };
        *self.keeper.borrow_mut() = Some(Keeper::new(scroller.clone(), list.clone()));
        let keeper = Rc::clone(&self.keeper);
        let link = ctx.link().clone();
        let told = Closure::<dyn FnMut()>::new(move || {
            if let Some(keeper) = keeper.borrow_mut().as_mut() {
                keeper.hold();
            }
            link.send_message(Msg::Moved);
        });
        let callback = told.as_ref().unchecked_ref();
        if let (Ok(resizes), Ok(changes)) = (ResizeObserver::new(callback), MutationObserver::new(callback)) {
            resizes.observe(&scroller);
            resizes.observe(&list);
            let children = MutationObserverInit::new();
            children.set_child_list(true);
            // It fails only where nothing is to be observed.
            let _ = changes.observe_with_options(&list, &children);
            self.watch = Some(Watch { resizes, changes, _told: told });
        }
    }

    /// The keeper, once the rows are in place.
    fn placed(&self) -> Option<Ref<'_, Keeper>> {
        let keeper = Ref::filter_map(self.keeper.borrow(), Option::as_ref).ok();
        keeper.filter(|keeper| keeper.is_placed())
    }

    fn report_latest(&mut self, ctx: &Context<Self>) {
        let Some(stuck) = self.placed().map(|keeper| keeper.stuck) else { return };
        let latest = stuck && ctx.props().live;
        if self.reported_latest != Some(latest) {
            self.reported_latest = Some(latest);
            ctx.props().send.emit(Input::Scrolled { room: ctx.props().room, at_latest: latest });
        }
    }

    fn ask_for_more(&mut self, ctx: &Context<Self>) {
        let props = ctx.props();
        let Some((above, below)) = self.placed().map(|keeper| (keeper.above(), keeper.below())) else {
            return;
        };
        let wanted = if !props.complete && above < AHEAD_PX {
            Input::LoadOlder(props.room)
        } else if !props.live && below < AHEAD_PX {
            Input::LoadNewer(props.room)
        } else {
            return;
        };
        let now = time::now();
        if (self.asked..self.asked + ASK_AGAIN_MS).contains(&now) {
            return;
        }
        self.asked = now;
        props.send.emit(wanted);
        // The view may stay at its end without another event: ask again if nothing comes.
        let link = ctx.link().clone();
        self.ask_timer = Some(Timeout::new(ASK_AGAIN_MS as u32, move || link.send_message(Msg::Settled)));
    }

    /// Reports the newest event that is wholly on the screen.
    fn note_seen(&mut self, ctx: &Context<Self>) {
        let props = ctx.props();
        let seen = match self.placed().filter(|_| props.visible) {
            Some(keeper) if props.live && keeper.is_at_bottom() => props.newest,
            Some(keeper) => keeper.last_seen().unwrap_or(0),
            None => return,
        };
        if seen > self.reported_seen.max(props.read) {
            self.reported_seen = seen;
            props.send.emit(Input::Seen { room: props.room, seq: seen });
        }
    }

    /// Decides about the button to the newest; true if it changes.
    fn show_jump(&mut self, ctx: &Context<Self>) -> bool {
        let props = ctx.props();
        let jump = self.placed().is_some_and(|keeper| {
            let far = keeper.below() > keeper.height() / 2.0;
            !props.live || !keeper.stuck && (far || props.unread > 0)
        });
        std::mem::replace(&mut self.jump, jump) != jump
    }

    fn settle(&mut self, ctx: &Context<Self>) {
        let link = ctx.link().clone();
        self.settle_timer = Some(Timeout::new(SETTLE_MS, move || link.send_message(Msg::Settled)));
    }

    fn hush(&mut self, ctx: &Context<Self>) {
        let link = ctx.link().clone();
        self.hush = true;
        self.hush_timer = Some(Timeout::new(HUSH_MS, move || link.send_message(Msg::Speak)));
    }

    /// The button that had the focus goes away: the rows take it.
    fn focus(&self) {
        if let Some(scroller) = self.scroller.cast::<HtmlElement>() {
            let _ = scroller.focus();
        }
    }
}
