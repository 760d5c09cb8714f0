//! Accounts over HTTP, as data: what to ask, what the answers say, and where it stands. Pure; it must not
//! know how a request travels.

use std::fmt;

use serde::Deserialize;
use shared::protocol::User;
use shared::rights::Role;

use crate::route::Route;

/// A password, token or link: it is never shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Who one is, and what the server allows.
    Account,
    SignUp,
    SignIn,
    SignOut,
    SignOutEverywhere,
    Password,
    /// What a link is for.
    Link,
    Reset,
    Owner,
}

impl Ask {
    pub fn path(self) -> &'static str {
        match self {
            Ask::Account => "/api/account",
            Ask::SignUp => "/api/sign-up",
            Ask::SignIn => "/api/sign-in",
            Ask::SignOut | Ask::SignOutEverywhere => "/api/sign-out",
            Ask::Password => "/api/password",
            Ask::Link => "/api/link",
            Ask::Reset => "/api/reset",
            Ask::Owner => "/api/owner",
        }
    }
}

/// A request: what is asked, and the fields of its JSON. Empty ones are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub ask: Ask,
    pub fields: Vec<(&'static str, Secret)>,
}

impl Request {
    pub fn new(ask: Ask, fields: &[(&'static str, &str)]) -> Self {
        let fields = fields.iter().filter(|(_, text)| !text.is_empty());
        Self { ask, fields: fields.map(|(name, text)| (*name, Secret((*text).to_owned()))).collect() }
    }

    /// The body of a POST; `None`: it is a GET.
    pub fn body(&self) -> Option<String> {
        let mut body = match self.ask {
            Ask::Account => return None,
            Ask::SignOutEverywhere => "{\"everywhere\":true".to_owned(),
            Ask::SignOut => "{\"everywhere\":false".to_owned(),
            _ => "{".to_owned(),
        };
        for (name, text) in &self.fields {
            // A text always encodes.
            let text = serde_json::to_string(&text.0).unwrap_or_default();
            body = [body.as_str(), if body.len() > 1 { ",\"" } else { "\"" }, name, "\":", &text].concat();
        }
        Some(body + "}")
    }
}

/// The fields of all answers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Answer {
    pub user: Option<User>,
    pub role: Role,
    pub guests: bool,
    pub registration: String,
    /// What a link is for.
    pub kind: String,
    /// Why it was refused.
    pub message: String,
    pub retry_ms: Option<u32>,
}

impl Answer {
    /// Reads an answer; `status` 0 is none at all.
    pub fn read(status: u16, body: &str) -> Self {
        let answer: Self = serde_json::from_str(body).unwrap_or_default();
        if is_good(status) || !answer.message.is_empty() {
            return answer;
        }
        Self { message: "The server cannot be reached. Try again.".to_owned(), ..answer }
    }

    /// Why it was refused, for people.
    pub fn refusal(&self) -> String {
        match self.retry_ms {
            Some(ms) => [&self.message, " Try again in ", &ms.div_ceil(1_000).to_string(), " s."].concat(),
            None => self.message.clone(),
        }
    }
}

/// Whether a status says that it was done.
pub fn is_good(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Where it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// What the server said of accounts; `None` until it was asked.
    pub known: Option<Answer>,
    /// What the link of the address is for; `None` until it was asked.
    pub link: Option<Answer>,
    /// What was asked and has no answer yet.
    waits: Option<Ask>,
    /// Why the last request was refused, or what came of it, and whether that is good.
    pub said: String,
    pub is_well: bool,
}

impl Account {
    /// What has to be asked to show a page.
    pub fn begin(route: &Route) -> Vec<Request> {
        let account = Request::new(Ask::Account, &[]);
        match route {
            Route::Join(secret) | Route::Reset(secret) | Route::Owner(secret) => {
                vec![account, Request::new(Ask::Link, &[("link", &secret.0)])]
            }
            _ => vec![account],
        }
    }

    /// Whether a request may go: a form is not sent twice.
    pub fn may_ask(&mut self, request: &Request) -> bool {
        let may = self.waits.is_none();
        if may {
            self.waits = Some(request.ask);
            self.said.clear();
        }
        may
    }

    /// Takes an answer; gives the page to load, if the session is another one now.
    pub fn answered(&mut self, ask: Ask, status: u16, body: &str) -> Option<&'static str> {
        let answer = Answer::read(status, body);
        self.waits = self.waits.filter(|waits| *waits != ask);
        self.is_well = is_good(status);
        if !self.is_well {
            self.said = answer.refusal();
            return None;
        }
        match ask {
            Ask::Account => self.known = Some(answer),
            Ask::Link => self.link = Some(answer),
            Ask::Password => {
                self.said = "Your password is changed, and your other sessions are signed out.".to_owned();
            }
            Ask::SignOut | Ask::SignOutEverywhere => return Some("/sign-in"),
            Ask::SignUp | Ask::SignIn | Ask::Reset | Ask::Owner => return Some("/"),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_json_and_hides_what_it_holds() {
        let request = Request::new(Ask::SignIn, &[("name", "A\"b"), ("password", "geheim"), ("link", "")]);
        assert_eq!(request.body().as_deref(), Some(r#"{"name":"A\"b","password":"geheim"}"#));
        assert!(!format!("{request:?}").contains("geheim"));
        let out = Request::new(Ask::SignOut, &[]);
        assert_eq!(out.body().as_deref(), Some(r#"{"everywhere":false}"#));
        assert_eq!(Request::new(Ask::Account, &[]).body(), None);
    }

    #[test]
    fn a_form_is_sent_once_and_a_new_session_loads_the_page() {
        let mut account = Account::default();
        let ask = Request::new(Ask::SignIn, &[("name", "Ada"), ("password", "geheim")]);
        assert!(account.may_ask(&ask) && !account.may_ask(&ask));
        let refusal = r#"{"code":"bad_credentials","message":"Wrong."}"#;
        assert_eq!(account.answered(Ask::SignIn, 401, refusal), None);
        assert_eq!(account.said, "Wrong.");
        assert!(account.may_ask(&ask) && account.said.is_empty());
        assert_eq!(account.answered(Ask::SignIn, 200, "{}"), Some("/"));
        assert_eq!(account.answered(Ask::SignOut, 204, ""), Some("/sign-in"));
        assert_eq!(account.answered(Ask::Password, 204, ""), None);
        assert!(account.said.starts_with("Your password is changed"));
    }

    #[test]
    fn a_link_is_looked_at_before_it_is_used() {
        let route = Route::Join(Secret("abc".to_owned()));
        let asked = Account::begin(&route);
        assert_eq!(asked, [Request::new(Ask::Account, &[]), Request::new(Ask::Link, &[("link", "abc")])]);
        let mut account = Account::default();
        account.answered(Ask::Link, 404, r#"{"code":"not_found","message":"It no longer works."}"#);
        assert_eq!((account.link, account.said.as_str()), (None, "It no longer works."));
    }

    #[test]
    fn a_refusal_says_why_and_when() {
        let slow = Answer::read(429, r#"{"code":"rate_limited","message":"Too fast.","retry_ms":1200}"#);
        assert_eq!(slow.refusal(), "Too fast. Try again in 2 s.");
        assert_eq!(Answer::read(0, "").refusal(), "The server cannot be reached. Try again.");
        let known = r#"{"user":null,"role":"guest","guests":false,"registration":"invite"}"#;
        let known = Answer::read(200, known);
        assert!(!known.guests && known.registration == "invite" && known.message.is_empty());
        assert_eq!(Answer::read(204, ""), Answer::default());
    }
}
