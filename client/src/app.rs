//! The application: it owns the state, feeds it what happens in the browser, carries out what it says, and
//! draws it.
//!
//! It decides nothing about rooms, messages or the connection: that is `state`'s. What it keeps itself is
//! what only the page knows: which dialog is open, which drawer is out.

use std::rc::Rc;

use gloo_events::EventListener;
use gloo_timers::callback::{Interval, Timeout};
use shared::model::{LOBBY_NAME, Ms, Ref, RoomId, UserId};
use shared::protocol::{CloseCode, Presence, RoomKind};
use shared::rights::Right;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{HtmlElement, KeyboardEvent, VisibilityState, Window};
use yew::html::Scope;
use yew::prelude::*;

use crate::http;
use crate::link::Banner;
use crate::panels::{self, Card, Do, Panel};
use crate::room::Room;
use crate::route::Route;
use crate::socket::{Report, Socket};
use crate::state::{Barrier, Effect, Input, State};
use crate::storage;
use crate::view::announcements::announcements;
use crate::view::banner::banner;
use crate::view::composer::Composer;
use crate::view::dialog;
use crate::view::directory::Directory;
use crate::view::header::Header;
use crate::view::members::{self, Members};
use crate::view::message;
use crate::view::notices::notices;
use crate::view::rooms::{self, Rooms};
use crate::view::time;
use crate::view::timeline::Timeline;
use crate::view::{Ask, ICON_MENU, icon};
use crate::view::{panel, panic};

/// How often the page checks its clock and whether somebody is there, in milliseconds.
const WATCH_MS: u32 = 3_000;
/// A check that comes so much too late means that the machine slept, in milliseconds.
const JUMP_MS: Ms = 5_000;
/// Nobody touched the page for so long: the person is away, in milliseconds.
const IDLE_MS: Ms = 5 * 60_000;
/// The page is not loaded again for a new session more often than this, in milliseconds.
const RENEW_MS: Ms = 60_000;

/// What the program of a first visit has not.
#[derive(Clone, Copy)]
pub struct Desk {
    /// Draws the page of the route.
    pub page: fn(&State, &Callback<Do>) -> Html,
    /// In place of `panels::card`.
    pub card: fn(&State, &Card) -> Option<Panel>,
}

impl PartialEq for Desk {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Clone, Copy, PartialEq, Properties)]
pub struct Props {
    /// `None`: the browser loads the whole program for them.
    pub desk: Option<Desk>,
}

/// Starts the client in the page's `#app`, and sees to it that a panic leaves a page that says so.
pub fn start_as<C: BaseComponent>(props: C::Properties) {
    panic::install();
    let document = web_sys::window().and_then(|window| window.document());
    match document.and_then(|document| document.get_element_by_id("app")) {
        Some(root) => {
            yew::Renderer::<C>::with_root_and_props(root, props).render();
        }
        None => web_sys::console::error_1(&"The page has no #app.".into()),
    }
}

pub enum Msg {
    Input(Input),
    Socket(Report),
    /// The time that the state asked for, or the next second of a countdown.
    Timer,
    /// The person did something with the page.
    Touched,
    Watch,
    /// The browser moved in its history.
    Moved,
    /// The page is left. The browser may keep it to come back to, but not with an open socket.
    Left,
    Go(Route),
    Ask(Ask),
    Do(Do),
    Key(KeyboardEvent),
    Submit(RoomId, String),
}

/// What lies over the conversation.
#[derive(Clone, PartialEq)]
enum Dialog {
    Directory,
    Card(Card),
}

/// Which of the side panels was pulled over the conversation, on narrow screens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drawer {
    Rooms,
    Members,
}

/// The callbacks that views get: made once, so that a view whose properties are the same is not drawn again.
struct Links {
    send: Callback<Input>,
    go: Callback<Route>,
    ask: Callback<Ask>,
    run: Callback<Do>,
    close: Callback<()>,
    draft: Callback<(RoomId, String)>,
    submit: Callback<(RoomId, String)>,
    retry_all: Callback<RoomId>,
}

pub struct App {
    state: State,
    socket: Option<Socket>,
    links: Links,
    dialog: Option<Dialog>,
    drawer: Option<Drawer>,
    /// What had the focus before the drawer took it.
    before_drawer: Option<HtmlElement>,
    /// Whether the drawer that was pulled is still to be given the focus.
    drawer_waits: bool,
    /// Whether the member list is shown where there is room for it.
    members_shown: bool,
    /// When the page was last touched, and when it was last checked.
    touched: Ms,
    watched: Ms,
    idle: bool,
    title: String,
    /// When the timer goes off.
    timer: Option<(Ms, Timeout)>,
    _watch: Interval,
    _listeners: Vec<EventListener>,
}

impl Component for App {
    type Message = Msg;
    type Properties = Props;

    fn create(ctx: &Context<Self>) -> Self {
        let link = ctx.link();
        let now = time::now();
        let seed = u64::from_le_bytes(random::<8>());
        let watch = link.clone();
        let mut app = Self {
            state: State::new(seed),
            socket: None,
            links: Links {
                send: link.callback(Msg::Input),
                go: link.callback(Msg::Go),
                ask: link.callback(Msg::Ask),
                run: link.callback(Msg::Do),
                close: link.callback(|()| Msg::Ask(Ask::Close)),
                draft: link.callback(|(room, text)| Msg::Input(Input::Drafted { room, text })),
                submit: link.callback(|(room, text)| Msg::Submit(room, text)),
                retry_all: link.callback(|room| Msg::Input(Input::RetryAll(room))),
            },
            dialog: None,
            drawer: None,
            before_drawer: None,
            drawer_waits: false,
            members_shown: true,
            touched: now,
            watched: now,
            idle: false,
            title: String::new(),
            timer: None,
            _watch: Interval::new(WATCH_MS, move || watch.send_message(Msg::Watch)),
            _listeners: listen(link),
        };
        let start = Input::Start {
            route: here(),
            outbox: storage::outbox(),
            drafts: storage::drafts(),
            utc_offset_minutes: (time::zone_offset(now) / 60_000) as i32,
        };
        app.feed(ctx, start);
        app.feed(ctx, Input::Visibility(is_visible()));
        app
    }

    fn update(&mut self, ctx: &Context<Self>, msg: Msg) -> bool {
        match msg {
            Msg::Input(input) => self.feed(ctx, input),
            Msg::Socket(Report::Opened) => self.feed(ctx, Input::Opened),
            Msg::Socket(Report::Received(envelope)) => self.feed(ctx, Input::Received(*envelope)),
            Msg::Socket(Report::Closed(code)) => {
                self.socket = None;
                self.feed(ctx, Input::Closed { code });
            }
            Msg::Timer => {
                self.timer = None;
                self.feed(ctx, Input::Tick);
            }
            Msg::Touched => return self.touch(ctx),
            Msg::Watch => return self.watch(ctx),
            Msg::Moved => {
                self.drawer = None;
                self.feed(ctx, Input::Navigated(here()));
            }
            Msg::Left => {
                // What was read is told before the socket goes.
                self.feed(ctx, Input::Visibility(false));
                self.socket = None;
                self.feed(ctx, Input::Closed { code: CloseCode::GoingAway as u16 });
                return false;
            }
            Msg::Go(route) => {
                self.drawer = None;
                self.dialog = None;
                if route.is_door() || route.is_of_desk() && ctx.props().desk.is_none() {
                    load(&route.path());
                } else if route != self.state.route {
                    navigate(&route, false);
                    self.feed(ctx, Input::Navigated(route));
                }
            }
            Msg::Ask(ask) => self.answer(ask),
            Msg::Do(what) => {
                self.dialog = None;
                let input = match what {
                    Do::Act(act) => Input::Act(act),
                    Do::Rename(name) => Input::Rename(name),
                    Do::Direct(user) => Input::OpenDirect(user),
                    Do::Group(users) => Input::OpenGroup(users),
                    Do::Leave(room) => Input::LeaveRoom(room),
                    Do::Look(text) => Input::Look(text),
                    Do::More(list) => Input::More(list),
                    Do::ForgetMade => Input::ForgetMade,
                    Do::Go(route) => return Component::update(self, ctx, Msg::Go(route)),
                    Do::Open(card) => {
                        self.dialog = Some(Dialog::Card(card));
                        return true;
                    }
                    Do::Load(path) => {
                        load(path);
                        return false;
                    }
                    // Accounts are `view::door`'s.
                    Do::Ask(_) => return false,
                };
                self.feed(ctx, input);
            }
            Msg::Key(event) => return self.key(ctx, &event),
            Msg::Submit(room, text) => {
                let reference = Ref::new(time::now(), random());
                self.feed(ctx, Input::Submit { room, text, reference });
            }
        }
        true
    }

    fn view(&self, ctx: &Context<Self>) -> Html {
        let now = time::now();
        let room = self.state.current_room();
        let elsewhere = self.state.total_unread().saturating_sub(room.map_or(0, Room::notable));
        let route = &self.state.route;
        html! {
            <>
                <Rooms rooms={Rc::new(self.entries())} current={room.map(|room| room.info.id)}
                    route={self.state.route.clone()} me={self.state.me.clone()}
                    open={self.drawer == Some(Drawer::Rooms)} go={self.links.go.clone()} ask={self.links.ask.clone()} />
                <main class="main" inert={self.drawer.is_some()}>
                    if route.is_of_desk() {
                        <div class="page-bar only-narrow">
                            <button class="icon-button" aria-label="Rooms" onclick={self.links.ask.reform(|_| Ask::Rooms)}>
                                { icon(ICON_MENU) }
                            </button>
                        </div>
                        { ctx.props().desk.map(|desk| (desk.page)(&self.state, &self.links.run)) }
                    } else {
                        { self.header(room, elsewhere) }
                        { banner(self.state.banner(now), &self.links.send) }
                        { announcements(&self.state.announcements, &self.links.send) }
                        if let Some(room) = room {
                            { self.conversation(room, now) }
                        } else {
                            <div class="timeline-frame"><p class="timeline-note alone" role="status">{ "Opening…" }</p></div>
                        }
                    }
                </main>
                if let Some(room) = room.filter(|room| self.shows_members(room)) {
                    { self.members(room) }
                }
                if self.drawer.is_some() {
                    <div class="shade" onclick={self.links.ask.reform(|_: MouseEvent| Ask::Close)}></div>
                }
                { notices(&self.state.notices, &self.links.send) }
                { self.dialog(ctx) }
            </>
        }
    }

    fn rendered(&mut self, _: &Context<Self>, _: bool) {
        if std::mem::take(&mut self.drawer_waits) {
            focus(match self.drawer {
                Some(Drawer::Members) => "#members button",
                _ => "#rooms [aria-current], #rooms button",
            });
        }
        let title = self.page_title();
        if title != self.title {
            if let Some(document) = window().document() {
                document.set_title(&title);
            }
            self.title = title;
        }
    }
}

/// What happens.
impl App {
    /// Tells the state what happened and carries out what it answers.
    fn feed(&mut self, ctx: &Context<Self>, input: Input) {
        for effect in self.state.update(time::now(), input) {
            self.run(ctx, effect);
        }
        // What a dialog was about may be gone.
        if let Some(Dialog::Card(card)) = &self.dialog
            && self.card(ctx, card).is_none()
        {
            self.dialog = None;
        }
        self.set_timer(ctx);
    }

    fn run(&mut self, ctx: &Context<Self>, effect: Effect) {
        match effect {
            Effect::Connect => {
                // The old one goes first: two connections would each get everything.
                self.socket = None;
                self.socket = Some(Socket::open(ctx.link().callback(Msg::Socket)));
            }
            Effect::Disconnect { code } => {
                if let Some(socket) = self.socket.take() {
                    socket.close(code);
                }
            }
            Effect::Transmit(envelope) => {
                if let Some(socket) = &self.socket {
                    socket.send(&envelope);
                }
            }
            Effect::SaveUnsent(unsent) => storage::save_unsent(&unsent),
            Effect::ForgetUnsent(reference) => storage::forget_unsent(reference),
            Effect::SaveDraft { room, text } => storage::save_draft(room, &text),
            Effect::Navigate { route, replace } => {
                self.drawer = None;
                navigate(&route, replace);
            }
            Effect::RenewSession => {
                if http::changes_session() {
                    // The answer says where to go.
                } else if storage::may_renew(time::now(), RENEW_MS) {
                    // It fails only where the browser forbids it, and then there is no other way either.
                    let _ = window().location().reload();
                } else {
                    self.feed(ctx, Input::Refused);
                }
            }
            Effect::AskSession => http::ask_session(self.links.send.clone()),
            Effect::Load(path) => load(path),
        }
    }

    /// Sets the one timer: to what the state asks for, and to each second of a countdown.
    fn set_timer(&mut self, ctx: &Context<Self>) {
        let now = time::now();
        let second = matches!(self.state.banner(now), Some(Banner::Waiting { .. })).then_some(now + 1_000);
        let wanted = [self.state.wake_at(), second].into_iter().flatten().min();
        match wanted {
            None => self.timer = None,
            // A timer that is early enough stays: a tick does no harm.
            Some(at) if self.timer.as_ref().is_some_and(|(set, _)| *set <= at && *set >= now) => {}
            Some(at) => {
                let link = ctx.link().clone();
                let wait = (at - now).clamp(10, 60_000) as u32;
                let timer = Timeout::new(wait, move || link.send_message(Msg::Timer));
                self.timer = Some((at.max(now), timer));
            }
        }
    }

    /// True if the page has to be drawn again.
    fn touch(&mut self, ctx: &Context<Self>) -> bool {
        self.touched = time::now();
        let was_idle = std::mem::take(&mut self.idle);
        if was_idle {
            self.feed(ctx, Input::Idle(false));
        }
        was_idle
    }

    /// Looks at the clock. True if the page has to be drawn again.
    fn watch(&mut self, ctx: &Context<Self>) -> bool {
        let now = time::now();
        let late = now - self.watched - Ms::from(WATCH_MS);
        let new_day = time::day(now) != time::day(self.watched);
        self.watched = now;
        // Browsers slow down the timers of hidden tabs: there, late means nothing.
        let jumped = self.state.visible && late.abs() > JUMP_MS;
        if jumped {
            self.feed(ctx, Input::Woke);
        }
        let idle = !self.idle && now - self.touched >= IDLE_MS;
        if idle {
            self.idle = true;
            self.feed(ctx, Input::Idle(true));
        }
        jumped || idle || new_day
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Rooms => self.pull(Drawer::Rooms),
            Ask::Members => {
                if is_wide() {
                    self.members_shown = !self.members_shown;
                } else {
                    self.pull(Drawer::Members);
                }
            }
            Ask::Close => {
                // What lies on top goes first.
                if self.dialog.take().is_none() {
                    self.push_back();
                }
            }
            Ask::Directory => self.dialog = Some(Dialog::Directory),
            Ask::Card(card) => self.dialog = Some(Dialog::Card(card)),
        }
    }

    fn pull(&mut self, drawer: Drawer) {
        self.drawer = Some(drawer);
        self.drawer_waits = true;
        let active = window().document().and_then(|document| document.active_element());
        self.before_drawer = active.and_then(|element| element.dyn_into().ok());
    }

    /// Puts the drawer away and gives the focus back.
    fn push_back(&mut self) {
        self.drawer_waits = false;
        if self.drawer.take().is_some()
            && let Some(element) = self.before_drawer.take()
        {
            // Later: what had the focus is inert until the page is drawn.
            Timeout::new(0, move || drop(element.focus())).forget();
        }
    }

    /// The keys that work everywhere. True if the page has to be drawn again.
    fn key(&mut self, ctx: &Context<Self>, event: &KeyboardEvent) -> bool {
        match event.key().as_str() {
            "Escape" if self.drawer.is_some() && self.dialog.is_none() => {
                self.answer(Ask::Close);
                true
            }
            key @ ("ArrowUp" | "ArrowDown") if self.dialog.is_none() => {
                let rooms = self.state.room_list();
                let current = self.state.current_room().map(|room| room.info.id);
                let at = rooms.iter().position(|room| Some(room.info.id) == current).unwrap_or(0);
                let step = if key == "ArrowUp" { rooms.len().saturating_sub(1) } else { 1 };
                let next = rooms.get((at + step) % rooms.len().max(1));
                match next.map(|room| room.route()) {
                    Some(route) => Component::update(self, ctx, Msg::Go(route)),
                    None => false,
                }
            }
            _ => false,
        }
    }
}

/// What is shown.
impl App {
    fn entries(&self) -> Vec<rooms::Entry> {
        let entry = |room: &Room| rooms::Entry {
            id: room.info.id,
            kind: room.info.kind,
            title: room.title().into(),
            route: room.route(),
            unread: room.notable(),
            mentioned: room.mentioned,
            peer: room.info.peer.clone().map(|peer| {
                let presence = self.presence(peer.id);
                (peer, presence)
            }),
        };
        self.state.room_list().into_iter().map(entry).collect()
    }

    /// A person's presence, as far as any room tells and the reader wants to know.
    fn presence(&self, user: UserId) -> Presence {
        if self.state.blocked.contains(&user) {
            return Presence::Offline;
        }
        let known = self.state.rooms.values().filter_map(|room| room.people.get(&user));
        known.map(|person| person.presence).max().unwrap_or_default()
    }

    fn header(&self, room: Option<&Room>, elsewhere: u32) -> Html {
        html! {
            <Header kind={room.map_or(RoomKind::Public, |room| room.info.kind)}
                title={room.map_or_else(|| AttrValue::from(LOBBY_NAME), |room| room.title().into())}
                topic={room.and_then(|room| room.info.topic.as_ref().map(|topic| AttrValue::from(topic.to_string())))}
                settings={room.map(|room| Route::RoomSettings(room.info.id))} go={self.links.go.clone()}
                online={room.map_or(0, |room| room.online)} members={room.map_or(0, |room| room.members)}
                phase={self.state.phase()} {elsewhere}
                members_open={self.drawer == Some(Drawer::Members) || is_wide() && self.members_shown}
                ask={self.links.ask.clone()} />
        }
    }

    fn conversation(&self, room: &Room, now: Ms) -> Html {
        let id = room.info.id;
        let send = self.links.send.clone();
        let entries = Rc::new(message::entries(&self.state.rows(id)));
        let typing: Vec<AttrValue> =
            room.typing.iter().map(|typist| AttrValue::from(typist.user.name.to_string())).collect();
        let may_all = self.state.may(Right::MentionAll, room);
        let people =
            members::sorted(room.people.values()).into_iter().map(|person| person.user.name.to_string());
        let all = ["room", "here"].into_iter().filter(|_| may_all).map(str::to_owned);
        let people: Vec<AttrValue> = people.chain(all).map(AttrValue::from).collect();
        let slow = room.info.slow_seconds;
        let slow = if slow > 0 && !self.state.may(Right::SlowMode, room) { slow } else { 0 };
        let barrier = self.state.barrier(room).map(|barrier| match barrier {
            Barrier::Archived => "This room is archived: nobody writes here any more.".to_owned(),
            Barrier::Muted(until) => ["You cannot write here until ", &time::full(until), "."].concat(),
            Barrier::Blocked(_) => ["You have blocked ", &room.title(), "."].concat(),
        });
        html! {
            <>
                <Timeline key={id.bits()} room={id} {entries} loaded={room.timeline.is_loaded()}
                    complete={room.timeline.is_complete()} live={room.timeline.is_live()}
                    newest={room.timeline.events().next_back().map_or(0, |event| event.seq)} read={room.read}
                    unread={room.unread} visible={self.state.visible} today={time::day(now)} {send}
                    ask={self.links.ask.clone()} />
                <Composer room={id} place={panels::place(room)} {people} {slow} barrier={barrier.map(AttrValue::from)} draft={room.draft.clone()} limit={self.state.limits.body_chars} {typing}
                    failed={self.state.failed_count(id)} on_draft={self.links.draft.clone()}
                    on_send={self.links.submit.clone()} on_retry_all={self.links.retry_all.clone()} />
            </>
        }
    }

    /// Two people need no list.
    fn shows_members(&self, room: &Room) -> bool {
        room.info.kind != RoomKind::Direct && (self.members_shown || self.drawer == Some(Drawer::Members))
    }

    fn members(&self, room: &Room) -> Html {
        let mut people: Vec<_> = room.people.values().cloned().collect();
        for person in &mut people {
            if self.state.blocked.contains(&person.user.id) {
                person.presence = Presence::Offline;
            }
        }
        let people = Rc::new(members::sorted(people.iter()));
        html! {
            <Members room={room.info.id} {people} total={room.members}
                me={self.state.me.as_ref().map(|me| me.id)} open={self.drawer == Some(Drawer::Members)}
                send={self.links.send.clone()} ask={self.links.ask.clone()} />
        }
    }

    /// The panel of a card.
    fn card(&self, ctx: &Context<Self>, card: &Card) -> Option<Panel> {
        ctx.props().desk.map_or(panels::card as fn(&State, &Card) -> _, |desk| desk.card)(&self.state, card)
    }

    fn dialog(&self, ctx: &Context<Self>) -> Html {
        let (send, on_close) = (self.links.send.clone(), self.links.close.clone());
        match &self.dialog {
            Some(Dialog::Directory) => {
                let may_hide = self.state.may_here(Right::CreatePrivate);
                html! {
                    <Directory listings={self.state.directory.clone()} {may_hide} {send} {on_close}
                        ask={self.links.ask.clone()} />
                }
            }
            Some(Dialog::Card(card)) => match self.card(ctx, card) {
                Some(panel) => html! {
                    <dialog::Dialog title={panel.title.clone()} {on_close}>
                        { panel::sections(&panel.sections, true, &self.links.run) }
                    </dialog::Dialog>
                },
                None => Html::default(),
            },
            None => Html::default(),
        }
    }

    /// The title of the tab, with what is unread.
    fn page_title(&self) -> String {
        let place = match self.state.current_room() {
            _ if self.state.route == Route::Lab => "Lab · Magpie".to_owned(),
            Some(room) => [&room.title(), " · Magpie"].concat(),
            None => "Magpie".to_owned(),
        };
        match self.state.total_unread() {
            0 => place,
            unread => ["(", &unread.to_string(), ") ", &place].concat(),
        }
    }
}

/// The page's window. There is one wherever this program runs.
fn window() -> Window {
    web_sys::window().expect("the page has a window")
}

/// The route in the address bar.
pub fn here() -> Route {
    let location = window().location();
    Route::parse(&[location.pathname().unwrap_or_default(), location.hash().unwrap_or_default()].concat())
}

/// Has the browser load a page.
fn load(path: &str) {
    // It fails only for what is no address.
    let _ = window().location().assign(path);
}

/// Changes the address without loading anything.
fn navigate(route: &Route, replace: bool) {
    let Ok(history) = window().history() else { return };
    let path = route.path();
    // Browsers refuse this when it is done hundreds of times a minute; the page goes on without.
    let _ = if replace {
        history.replace_state_with_url(&JsValue::NULL, "", Some(&path))
    } else {
        history.push_state_with_url(&JsValue::NULL, "", Some(&path))
    };
}

fn is_visible() -> bool {
    window().document().is_none_or(|document| document.visibility_state() != VisibilityState::Hidden)
}

/// Whether there is room for the member list beside the conversation; client/style.css has the same number.
fn is_wide() -> bool {
    window().match_media("(min-width: 1000px)").ok().flatten().is_some_and(|query| query.matches())
}

fn focus(selector: &str) {
    let found = window().document().and_then(|document| document.query_selector(selector).ok().flatten());
    if let Some(element) = found.and_then(|element| element.dyn_into::<HtmlElement>().ok()) {
        let _ = element.focus();
    }
}

/// Random bytes of the browser's.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Ok(crypto) = window().crypto() {
        // It fails only for more than 65,536 bytes.
        let _ = crypto.get_random_values_with_u8_array(&mut bytes);
    }
    bytes
}

/// Alt+↑ and Alt+↓ go to the room above and below.
fn is_room_step(event: &KeyboardEvent) -> bool {
    let plain = !event.ctrl_key() && !event.meta_key() && !event.shift_key();
    event.alt_key() && plain && matches!(event.key().as_str(), "ArrowUp" | "ArrowDown")
}

/// Listens to what the browser tells the page as a whole.
fn listen(link: &Scope<App>) -> Vec<EventListener> {
    let window = window();
    let mut listeners = Vec::new();
    let mut on = |name: &'static str, msg: fn() -> Msg| {
        let link = link.clone();
        listeners.push(EventListener::new(&window, name, move |_| link.send_message(msg())));
    };
    on("popstate", || Msg::Moved);
    on("pagehide", || Msg::Left);
    on("pageshow", || Msg::Input(Input::Woke));
    on("online", || Msg::Input(Input::Woke));
    on("offline", || Msg::Input(Input::Offline));
    on("focus", || Msg::Touched);
    on("pointerdown", || Msg::Touched);
    if let Some(document) = window.document() {
        let link = link.clone();
        listeners.push(EventListener::new(&document, "visibilitychange", move |_| {
            link.send_message(Msg::Input(Input::Visibility(is_visible())));
        }));
    }
    let link = link.clone();
    let options = gloo_events::EventListenerOptions::enable_prevent_default();
    listeners.push(EventListener::new_with_options(&window, "keydown", options, move |event| {
        link.send_message(Msg::Touched);
        if let Some(event) = event.dyn_ref::<KeyboardEvent>() {
            if event.key() == "Escape" || is_room_step(event) {
                link.send_message(Msg::Key(event.clone()));
            }
            // Here and not in `update`: later, the default action cannot be stopped.
            if is_room_step(event) {
                event.prevent_default();
            }
        }
    }));
    listeners
}
