//! Pages and dialogs of fields, buttons and lists, as data: what stands in them, and what each button means.
//! One view draws them all. Pure; it must not know how that looks, nor the browser.

pub mod desk;
pub mod doors;
pub mod pages;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use shared::acts::{Act, GROUP_MAX, List};
use shared::model::{LOBBY, Line, Ms, RoomId, Seq, UserId, UserName};
use shared::protocol::{EventKind, User};
use shared::rights::{Right, Role};

use crate::account::Request;
use crate::room::Room;
use crate::route::Route;
use crate::state::State;

/// A page, or what is in a dialog.
#[derive(Clone)]
pub struct Panel {
    pub title: String,
    pub sections: Vec<Section>,
}

/// A part of a panel: a form, a list, or both.
#[derive(Clone, Default)]
pub struct Section {
    /// Names it for tests and styles.
    pub id: &'static str,
    /// Empty: none.
    pub heading: String,
    pub note: String,
    pub fields: Vec<Field>,
    /// Enter in a field is the first one.
    pub buttons: Vec<Button>,
    pub rows: Vec<Row>,
    /// The list that goes on after the rows.
    pub more: Option<List>,
    /// What was made and is to be copied.
    pub secret: String,
}

/// A field of a form. Its value goes to the buttons of its section.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub label: &'static str,
    pub kind: Kind,
    /// What stands in it at first.
    pub value: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Text,
    /// The name that one signs in with.
    SignInName,
    OldPassword,
    NewPassword,
    /// The value is empty, or not.
    Check(String),
    /// Values, and what they are called.
    Choice(Vec<(String, String)>),
}

/// What comes of a button: it gets the values of the fields, and may find fault with them.
pub type Deed = Rc<dyn Fn(&[String]) -> Result<Do, String>>;

#[derive(Clone)]
pub struct Button {
    pub label: String,
    pub is_grave: bool,
    pub deed: Deed,
}

/// What the page is to do.
#[derive(Debug, PartialEq)]
pub enum Do {
    Act(Act),
    /// Ask something of accounts.
    Ask(Request),
    Rename(String),
    Direct(UserId),
    Group(Vec<UserId>),
    Leave(RoomId),
    Look(String),
    More(List),
    ForgetMade,
    Go(Route),
    Open(Card),
    /// Load a page anew.
    Load(&'static str),
}

/// An entry of a list.
#[derive(Clone, Default)]
pub struct Row {
    pub user: Option<User>,
    pub text: String,
    pub facts: Vec<Fact>,
    pub buttons: Vec<Button>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    Text(String),
    Time(&'static str, Ms),
}

/// A dialog of this sort.
#[derive(Clone, Debug, PartialEq)]
pub enum Card {
    /// Oneself.
    Me,
    /// What can be done about somebody.
    Person(User),
    /// What can be done with a message.
    Message(RoomId, Seq),
    Report(RoomId, Seq),
    Delete(RoomId, Seq),
    Group,
}

/// A button that needs no fields.
pub fn button(label: &str, what: impl Fn() -> Do + 'static) -> Button {
    form_button(label, move |_| Ok(what()))
}

pub fn form_button(label: &str, deed: impl Fn(&[String]) -> Result<Do, String> + 'static) -> Button {
    Button { label: label.to_owned(), is_grave: false, deed: Rc::new(deed) }
}

pub fn act_button(label: &str, act: impl Fn() -> Act + 'static) -> Button {
    form_button(label, move |_| Ok(Do::Act(act())))
}

pub fn grave(button: Button) -> Button {
    Button { is_grave: true, ..button }
}

pub fn field(label: &'static str, kind: Kind) -> Field {
    Field { label, kind, value: String::new() }
}

fn act(act: Act) -> Result<Do, String> {
    Ok(Do::Act(act))
}

/// A room as it is spoken of.
pub fn place(room: &Room) -> String {
    let mark = if room.info.name.is_some() { "#" } else { "" };
    [mark, &room.title()].concat()
}

/// The dialog of a card; `None` when what it is about is gone.
pub fn card(state: &State, card: &Card) -> Option<Panel> {
    let (title, sections) = match card {
        Card::Me => ("Your profile".to_owned(), me(state)?),
        Card::Person(user) => (user.name.to_string(), vec![person(state, user)]),
        Card::Message(room, seq) => ("Message".to_owned(), message(state, *room, *seq)?),
        Card::Report(room, seq) => ("Report this message".to_owned(), vec![report(*room, *seq)]),
        Card::Delete(room, seq) => ("Delete this message?".to_owned(), vec![delete(*room, *seq)]),
        Card::Group => ("New group".to_owned(), vec![group(state)]),
    };
    Some(Panel { title, sections })
}

/// The form to take another name.
pub fn rename(me: &User) -> Section {
    let old = me.name.clone();
    let save = form_button("Save", move |values| match UserName::parse(&values[0]) {
        Ok(name) if name == old => Err("That is your name.".to_owned()),
        Ok(name) => Ok(Do::Rename(name.to_string())),
        Err(error) => Err(error.to_string()),
    });
    Section {
        id: "rename",
        note: "Others see your name beside each message that you send from now on.".to_owned(),
        fields: vec![Field { label: "Name", kind: Kind::Text, value: me.name.to_string() }],
        buttons: vec![save],
        ..Section::default()
    }
}

fn me(state: &State) -> Option<Vec<Section>> {
    let mut buttons = Vec::new();
    let mut note = "";
    if state.role == Role::Guest {
        note = "You are a guest: only this browser knows you. With a password you can sign in anywhere.";
        buttons.push(button("Keep this account…", || Do::Go(Route::Settings)));
        buttons.push(button("Sign in…", || Do::Go(Route::SignIn)));
    } else {
        buttons.push(button("Settings", || Do::Go(Route::Settings)));
    }
    if state.may_here(Right::ReadReports) {
        buttons.push(button("Administration", || Do::Go(Route::Admin)));
    }
    let links = Section { id: "links", note: note.to_owned(), buttons, ..Section::default() };
    Some(vec![rename(state.me.as_ref()?), links])
}

/// What everybody can do about somebody, and what those who keep the room can do at once.
fn person(state: &State, user: &User) -> Section {
    let id = user.id;
    let blocked = state.blocked.contains(&id);
    let block = if blocked { "Unblock" } else { "Block" };
    let mut buttons = vec![
        button("Send a message", move || Do::Direct(id)),
        act_button(block, move || Act::Block { user: id, blocked: !blocked }),
    ];
    if let Some(room) = state.current_room().filter(|room| state.may(Right::Remove, room)) {
        let room_id = room.info.id;
        if room_id != LOBBY {
            let label = ["Remove from ", &place(room)].concat();
            buttons.push(grave(act_button(&label, move || Act::Remove { room: room_id, user: id })));
        }
        buttons.push(button("More…", move || Do::Go(Route::RoomSettings(room_id))));
    }
    Section { id: "person", buttons, ..Section::default() }
}

fn message(state: &State, room: RoomId, seq: Seq) -> Option<Vec<Section>> {
    let shown = state.rooms.get(&room)?;
    let event = shown.timeline.events().find(|event| event.seq == seq)?;
    let own = state.me.as_ref().is_some_and(|me| me.id == event.user.id);
    let mut buttons = vec![act_button("Mark unread from here", move || Act::Unread { room, seq })];
    if matches!(event.kind, EventKind::Message { .. }) {
        if !own && state.may(Right::Report, shown) {
            buttons.push(button("Report…", move || Do::Open(Card::Report(room, seq))));
        }
        if own || state.may(Right::DeleteMessage, shown) {
            buttons.push(grave(button("Delete…", move || Do::Open(Card::Delete(room, seq)))));
        }
    }
    if !own {
        let user = event.user.clone();
        let label = ["About ", user.name.as_str()].concat();
        buttons.push(button(&label, move || Do::Open(Card::Person(user.clone()))));
    }
    Some(vec![Section { id: "message", buttons, ..Section::default() }])
}

fn report(room: RoomId, seq: Seq) -> Section {
    Section {
        id: "report",
        note: "The moderators see the message and what you write.".to_owned(),
        fields: vec![field("What is wrong with it?", Kind::Text)],
        buttons: vec![form_button("Report", move |values| {
            act(Act::Report { room, seq, text: Line::new(&values[0]) })
        })],
        ..Section::default()
    }
}

fn delete(room: RoomId, seq: Seq) -> Section {
    Section {
        id: "delete",
        note: "Nobody can read it any more, and it cannot be brought back.".to_owned(),
        buttons: vec![grave(act_button("Delete", move || Act::Delete { room, seq }))],
        ..Section::default()
    }
}

fn group(state: &State) -> Section {
    let mut people: Vec<User> = Vec::new();
    let me = state.me.as_ref().map(|me| me.id);
    for person in state.rooms.values().flat_map(|room| room.people.values()) {
        let place = people.partition_point(|other| other.name.as_str() < person.user.name.as_str());
        if Some(person.user.id) != me && people.iter().all(|other| other.id != person.user.id) {
            people.insert(place, person.user.clone());
        }
    }
    Section {
        id: "group",
        note: "A conversation without a name, for those you choose.".to_owned(),
        fields: people.iter().map(|user| field("", Kind::Check(user.name.to_string()))).collect(),
        buttons: vec![form_button("Open", move |values| {
            let chosen = people.iter().zip(values).filter(|(_, value)| !value.is_empty());
            let users: Vec<UserId> = chosen.map(|(user, _)| user.id).collect();
            if (1..GROUP_MAX).contains(&users.len()) {
                Ok(Do::Group(users))
            } else {
                Err(["Choose 1 to ", &(GROUP_MAX - 1).to_string(), " people."].concat())
            }
        })],
        ..Section::default()
    }
}
