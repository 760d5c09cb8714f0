//! People and programs as the tests from outside need them: requests with JSON as the page sends them, accounts,
//! and what is done over a socket.
//!
//! Like `support` it must not use the server's own code.

#![allow(dead_code, reason = "each test program uses a part")]

pub mod posts;

use std::io::Write;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::support::{Magpie, Request, Response, Socket, connect, connect_from, read_response, until};

pub const PASSWORD: &str = "correct horse battery";

/// An answer to a request with JSON.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub cookie: Option<String>,
    pub text: String,
    /// Null if it is none.
    pub json: Value,
}

impl Answer {
    pub fn of(response: Response) -> Self {
        let text = response.text();
        let json = serde_json::from_str(&text).unwrap_or_default();
        let cookie = response.cookie();
        Self { status: response.status, headers: response.headers, cookie, text, json }
    }

    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// All of it that could tell two answers apart.
    pub fn shape(&self) -> (u16, &str, Vec<(String, String)>) {
        let mut headers = self.headers.clone();
        headers.retain(|(name, _)| name != "date");
        (self.status, &self.text, headers)
    }
}

/// A POST as the server's own page makes it.
pub fn page_post(server: &Magpie, path: &str, cookie: Option<&str>) -> Request {
    let request = Request::new(server, "POST", path)
        .with("Origin", &format!("http://{}", server.address))
        .with("Content-Type", "application/json");
    match cookie {
        Some(cookie) => request.with("Cookie", cookie),
        None => request,
    }
}

/// Sends a request with a body.
pub fn send_with(server: &Magpie, request: Request, body: &[u8]) -> Answer {
    send_from(server, Ipv4Addr::LOCALHOST, request, body)
}

/// Sends a request with a body from another address of this machine.
pub fn send_from(server: &Magpie, from: Ipv4Addr, request: Request, body: &[u8]) -> Answer {
    let mut bytes = request.with("Content-Length", &body.len().to_string()).bytes();
    bytes.extend_from_slice(body);
    let mut stream = connect_from(server.address, from, false);
    // Who has read enough answers and closes.
    let _ = stream.write_all(&bytes);
    Answer::of(read_response(&mut stream).expect("an answer"))
}

/// What the page does.
pub fn post(server: &Magpie, path: &str, cookie: Option<&str>, body: &Value) -> Answer {
    send_with(server, page_post(server, path, cookie), body.to_string().as_bytes())
}

pub fn get(server: &Magpie, path: &str, cookie: Option<&str>) -> Answer {
    let request = Request::new(server, "GET", path);
    let request = match cookie {
        Some(cookie) => request.with("Cookie", cookie),
        None => request,
    };
    Answer::of(request.send(server))
}

/// Who the server takes the owner of a cookie for.
pub fn whoami(server: &Magpie, cookie: &str) -> Value {
    let answer = get(server, "/api/account", Some(cookie));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json
}

/// The cookie of a fresh guest.
pub fn guest(server: &Magpie) -> String {
    Request::new(server, "GET", "/").send(server).cookie().expect("a cookie")
}

/// Makes an account: its cookie and who it is.
pub fn sign_up(server: &Magpie, name: &str) -> (String, Value) {
    let answer = post(server, "/api/sign-up", None, &json!({"name": name, "password": PASSWORD}));
    assert_eq!(answer.status, 200, "{answer:?}");
    (answer.cookie.expect("a cookie"), answer.json)
}

pub fn sign_in(server: &Magpie, name: &str, password: &str) -> Answer {
    post(server, "/api/sign-in", None, &json!({"name": name, "password": password}))
}

/// The secret of the owner's link in the log.
pub fn owner_secret(server: &Magpie) -> String {
    let log = until("the owner's link", || {
        let log = server.log();
        log.contains("/owner#").then_some(log)
    });
    let rest = log.split_once("/owner#").unwrap().1;
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect()
}

/// An owner: their cookie, who they are, and a socket.
pub fn owner(server: &Magpie) -> (String, Value, Socket) {
    let body = json!({"name": "Olga", "password": PASSWORD, "link": owner_secret(server)});
    let answer = post(server, "/api/sign-up", None, &body);
    assert_eq!((answer.status, &answer.json["role"]), (200, &json!("owner")), "{answer:?}");
    let cookie = answer.cookie.unwrap();
    let (socket, _) = Socket::full(server, Some(&cookie));
    (cookie, answer.json, socket)
}

/// Does an act over a socket: what is said to that.
#[track_caller]
pub fn act(socket: &mut Socket, mut act: Value) -> Value {
    let name = act["act"].clone();
    act["type"] = "act".into();
    socket.json(&act);
    let done = socket.find(|value| {
        value["type"] == "done" && value["act"] == name
            || value["type"] == "error" && (value["request"] == name || value["request"] == "act")
    });
    assert_eq!(done["type"], "done", "{act} {done}");
    done
}

/// Opens `/ws` with a program's token.
pub fn bearer(server: &Magpie, token: &str) -> Result<Socket, Response> {
    let request = Request::upgrade(server, "/ws")
        .with("Sec-WebSocket-Protocol", "magpie.v1")
        .with("Authorization", &format!("Bearer {token}"));
    Socket::try_open(connect(server.address), &request)
}
