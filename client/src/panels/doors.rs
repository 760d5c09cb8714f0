//! The pages and forms of accounts: to sign in and out, to follow a link, to keep an account, to change a
//! password. They work without a connection.

use shared::protocol::User;
use shared::rights::Role;

use super::{Do, Field, Kind, Panel, Section, button, field, form_button, grave};
use crate::account::{Account, Answer, Ask, Request};
use crate::route::Route;

fn request(ask: Ask, fields: &[(&'static str, &str)]) -> Result<Do, String> {
    Ok(Do::Ask(Request::new(ask, fields)))
}

/// The pages to sign in, and to follow a link.
pub fn door(account: &Account, route: &Route) -> Panel {
    let known = account.known.as_ref();
    let name = |kind| field("Name", kind);
    let new_password = || field("Password", Kind::NewPassword);
    let one = |id, note: &str, fields, buttons| Section {
        id,
        note: note.to_owned(),
        fields,
        buttons,
        ..Section::default()
    };
    let mut sections = Vec::new();
    let title = match route {
        Route::Join(secret) => {
            if account.link.is_some() {
                let note = "You are invited. Choose a name and a password of 8 characters or more.";
                sections.push(by_link("join", note, "Join", known, &secret.0));
            }
            "Join"
        }
        Route::Reset(secret) => {
            let link = secret.0.clone();
            let user = account.link.as_ref().and_then(|link| link.user.as_ref());
            let user = user.map_or_else(String::new, |user| user.name.to_string());
            let fields = vec![Field { value: user, ..name(Kind::SignInName) }, new_password()];
            let set = form_button("Set password", move |values| {
                request(Ask::Reset, &[("link", &link), ("password", &values[1])])
            });
            if account.link.is_some() {
                sections.push(one("reset", "Of 8 characters or more.", fields, vec![set]));
            }
            "A new password"
        }
        Route::Owner(secret) => {
            let link = secret.0.clone();
            let note = "Whoever follows this link runs this server. It works once.";
            if known.is_some_and(|known| known.role > Role::Guest) {
                let own = form_button("Become the owner", move |_| request(Ask::Owner, &[("link", &link)]));
                sections.push(one("owner", note, Vec::new(), vec![own]));
            } else if account.link.is_some() {
                // Whoever runs a server must be able to come back to it.
                let note = [note, " Choose a name and a password of 8 characters or more."].concat();
                sections.push(by_link("owner", &note, "Become the owner", known, &link));
            }
            "Own this server"
        }
        _ => {
            let fields = vec![name(Kind::SignInName), field("Password", Kind::OldPassword)];
            let sign_in = form_button("Sign in", |values| {
                request(Ask::SignIn, &[("name", &values[0]), ("password", &values[1])])
            });
            sections.push(one("sign-in", "", fields, vec![sign_in]));
            if known.is_some_and(|known| known.registration == "open") {
                let sign_up = form_button("Create account", |values| {
                    request(Ask::SignUp, &[("name", &values[0]), ("password", &values[1])])
                });
                let fields = vec![name(Kind::SignInName), new_password()];
                let heading = "New here?".to_owned();
                sections.push(Section {
                    heading,
                    ..one("sign-up", "Choose a password of 8 characters or more.", fields, vec![sign_up])
                });
            }
            "Sign in"
        }
    };
    if known.is_some_and(|known| known.guests || known.user.is_some()) {
        let label = match known.and_then(|known| known.user.as_ref()) {
            Some(user) => ["Go on as ", user.name.as_str()].concat(),
            None => "Go on as a guest".to_owned(),
        };
        sections.push(one("go-on", "", Vec::new(), vec![button(&label, || Do::Load("/"))]));
    }
    Panel { title: title.to_owned(), sections }
}

/// The form by which a link makes an account, or keeps a guest's.
fn by_link(id: &'static str, note: &str, label: &str, known: Option<&Answer>, link: &str) -> Section {
    let user = known.and_then(|known| known.user.as_ref());
    let old = user.map_or_else(String::new, |user| user.name.to_string());
    let link = link.to_owned();
    Section {
        id,
        note: note.to_owned(),
        fields: vec![
            Field { value: old.clone(), ..field("Name", Kind::SignInName) },
            field("Password", Kind::NewPassword),
        ],
        buttons: vec![form_button(label, move |values| {
            let name = if values[0] == old { "" } else { &values[0] };
            request(Ask::SignUp, &[("name", name), ("password", &values[1]), ("link", &link)])
        })],
        ..Section::default()
    }
}

/// What is among the settings: for a guest to keep the account, for others the password and the way out.
pub fn own(me: &User, role: Role) -> Vec<Section> {
    if role == Role::Guest {
        return vec![claim(me)];
    }
    let password = Section {
        id: "password",
        heading: "Password".to_owned(),
        fields: vec![field("Old password", Kind::OldPassword), field("New password", Kind::NewPassword)],
        buttons: vec![form_button("Change password", |values| {
            request(Ask::Password, &[("old", &values[0]), ("new", &values[1])])
        })],
        ..Section::default()
    };
    let out = Section {
        id: "sign-out",
        heading: "Sign out".to_owned(),
        buttons: vec![
            form_button("Sign out", |_| request(Ask::SignOut, &[])),
            grave(form_button("Sign out everywhere", |_| request(Ask::SignOutEverywhere, &[]))),
        ],
        ..Section::default()
    };
    vec![password, out]
}

/// The form by which a guest becomes a member.
fn claim(user: &User) -> Section {
    let name = Field { label: "Name", kind: Kind::SignInName, value: user.name.to_string() };
    let old = user.name.to_string();
    Section {
        id: "claim",
        heading: "Keep this account".to_owned(),
        note: "You are a guest: only this browser knows you. With a password of 8 characters or more you can sign in anywhere."
            .to_owned(),
        fields: vec![name, field("Password", Kind::NewPassword)],
        buttons: vec![form_button("Keep this account", move |values| {
            let name = if values[0] == old { "" } else { &values[0] };
            request(Ask::SignUp, &[("name", name), ("password", &values[1])])
        })],
        ..Section::default()
    }
}
