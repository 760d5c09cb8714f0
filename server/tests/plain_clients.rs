//! Plain mode as others use it: a WebSocket library that knows nothing of Magpie, and the script that
//! docs/protocol.md tells people to run.
//!
//! MAGPIE_TEST_PYTHON names a Python that can import `websockets`; without it those tests say so and return.

mod support;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};
use support::{CLOSE, Got, Magpie, Request, Socket, WAIT, connect};

/// A Python that can import `websockets`, or a line that says why there is none.
fn python() -> Option<OsString> {
    let python = std::env::var_os("MAGPIE_TEST_PYTHON");
    if python.is_none() {
        println!("skipped: MAGPIE_TEST_PYTHON is not set; cargo xtask test sets it");
    }
    python
}

/// A running script and the lines that it prints; ended when dropped.
struct Script {
    child: Child,
    lines: Receiver<String>,
}

impl Script {
    fn start(python: &OsString, source: &str) -> Self {
        let mut child = Command::new(python)
            .args(["-u", "-c", source])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok());
        });
        Self { child, lines }
    }

    /// The next line that `matches`.
    #[track_caller]
    fn find(&self, matches: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.lines.recv_timeout(WAIT).expect("the script prints a line");
            if matches(&line) {
                return line;
            }
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a plain client hears next.
#[track_caller]
fn heard(socket: &mut Socket) -> (String, String) {
    let value = socket.value();
    let object = value.as_object().unwrap();
    assert_eq!(object.len(), 2, "{value}");
    let text = |name: &str| object[name].as_str().unwrap().to_owned();
    (text("sender"), text("message"))
}

/// Says something and hears it: the client is in, and this is its name.
#[track_caller]
fn introduce(socket: &mut Socket, text: &str) -> String {
    socket.text(text);
    loop {
        let (sender, message) = heard(socket);
        if message == text {
            return sender;
        }
    }
}

#[test]
fn plain_clients_hear_each_other_and_who_leaves() {
    let server = Magpie::start(&[]);
    let mut one = Socket::plain(&server, "/ws");
    let ada = introduce(&mut one, "I am first");
    let mut two = Socket::plain(&server, "/ws");
    let bob = introduce(&mut two, "I am second");
    assert_ne!(ada, bob);
    assert_eq!(heard(&mut one), (bob.clone(), "I am second".into()));

    let texts = [
        "hello",
        "  spaces around  ",
        "{\"sender\":\"root\",\"message\":\"forged\"}",
        "tab\tand\nline",
        "😀 é",
    ];
    for text in texts {
        one.text(text);
        for socket in [&mut one, &mut two] {
            assert_eq!(heard(socket), (ada.clone(), text.to_owned()));
        }
    }
    // Those who speak magpie.v1 are in the same room.
    let (mut full, welcome) = Socket::full(&server, None);
    one.text("to everyone");
    let event = full.find(|value| value["body"] == "to everyone");
    assert_eq!(event["user"]["name"], ada.as_str());
    heard(&mut one);
    heard(&mut two);
    full.json(&support::send(&support::reference(7, 7, 7), "to the plain"));
    let name = welcome["user"]["name"].as_str().unwrap().to_owned();
    assert_eq!(heard(&mut two), (name.clone(), "to the plain".into()));
    assert_eq!(heard(&mut one), (name, "to the plain".into()));

    // What cannot be said is told to the one who tried.
    one.text("");
    assert_eq!(heard(&mut one).0, "Magpie");
    one.text(&"a".repeat(4_001));
    assert_eq!(heard(&mut one).0, "Magpie");

    two.send(CLOSE, b"");
    assert_eq!(two.closed(), None);
    assert_eq!(heard(&mut one), (bob, "Client disconnected".into()));
    let mut third = Socket::plain(&server, "/ws");
    let eve = introduce(&mut third, "I come and fall");
    assert_eq!(heard(&mut one), (eve.clone(), "I come and fall".into()));
    third.cut();
    assert_eq!(heard(&mut one), (eve, "Client disconnected".into()));
    // A newcomer hears what is said from now on, not what was.
    let mut late = Socket::plain(&server, "/ws");
    late.text("what did I miss?");
    assert_eq!(heard(&mut late).1, "what did I miss?");
}

#[test]
fn trial_addresses_answer() {
    let server = Magpie::start(&[]);
    let mut hello = Socket::plain(&server, "/ws/hello");
    hello.text("Ada");
    assert_eq!(hello.frame().payload, b"Hello Ada!");
    let mut echo = Socket::plain(&server, "/ws/echo?events=1");
    echo.send(support::BINARY, b"\0\x01\x02");
    assert_eq!(echo.frame().payload, b"\0\x01\x02");
    let told = String::from_utf8(echo.frame().payload).unwrap();
    let time = told.strip_prefix("Server Event: Ping at ").unwrap();
    assert!(time.len() == 8 && time.bytes().all(|byte| byte.is_ascii_digit() || byte == b':'), "{told}");
    // A text of the chat does not come here.
    let mut chat = Socket::plain(&server, "/ws");
    introduce(&mut chat, "only in the lobby");
    assert!(matches!(hello.next(std::time::Duration::from_millis(100)), Got::Nothing));
}

#[test]
fn many_guests_have_names_of_their_own() {
    let server = Magpie::start(&[]);
    let mut sockets: Vec<Socket> = (0..40).map(|_| Socket::plain(&server, "/ws")).collect();
    let named = sockets.iter_mut().enumerate();
    let names: HashSet<String> = named.map(|(n, socket)| introduce(socket, &format!("I am {n}"))).collect();
    assert_eq!(names.len(), 40, "{names:?}");
}

#[test]
fn a_library_that_knows_nothing_of_us_talks_to_us() {
    let Some(python) = python() else { return };
    let server = Magpie::start(&[]);
    let mut socket = Socket::plain(&server, "/ws");
    introduce(&mut socket, "first");
    // With the library's defaults: permessage-deflate is offered, pings are sent and answered.
    let source = r#"
import asyncio, json, websockets

async def main():
    async with websockets.connect("ws://ADDRESS/ws") as socket:
        assert socket.subprotocol is None
        await (await socket.ping())
        await socket.send("hello from a library")
        await socket.send("compressible " * 200)
        async for text in socket:
            message = json.loads(text)
            assert set(message) == {"sender", "message"}, message
            print(json.dumps(message), flush=True)
            if message["message"] == "goodbye":
                break
    print("closed", socket.close_code)
    async with websockets.connect("ws://ADDRESS/ws", subprotocols=["magpie.v1"]) as socket:
        assert socket.subprotocol == "magpie.v1"
        await socket.send(json.dumps({"type": "hello"}))
        print(json.loads(await socket.recv())["type"])
    try:
        await websockets.connect("ws://ADDRESS/ws", origin="https://evil.example")
    except websockets.InvalidStatus as error:
        print("status", error.response.status_code)

asyncio.run(main())
"#;
    let script = Script::start(&python, &source.replace("ADDRESS", &server.address.to_string()));
    let (name, text) = heard(&mut socket);
    assert_eq!(text, "hello from a library");
    assert_eq!(heard(&mut socket), (name.clone(), "compressible ".repeat(200)));
    socket.text("goodbye");
    let printed = |line: String| serde_json::from_str::<Value>(&line).unwrap();
    let line = script.find(|line| line.contains("hello from a library"));
    assert_eq!(printed(line), json!({"sender": name, "message": "hello from a library"}));
    script.find(|line| line.contains("goodbye"));
    script.find(|line| line == "closed 1000");
    script.find(|line| line == "welcome");
    script.find(|line| line == "status 403");
    heard(&mut socket);
    assert_eq!(heard(&mut socket), (name, "Client disconnected".into()));
}

#[test]
fn the_script_of_the_documentation_runs_as_it_is() {
    let page = include_str!("../../docs/protocol.md");
    let source = page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(source.contains("ws://127.0.0.1:8080/ws"));
    let Some(python) = python() else { return };
    let server = Magpie::start(&[]);
    let mut socket = Socket::plain(&server, "/ws");
    introduce(&mut socket, "first");
    let script = Script::start(&python, &source.replace("127.0.0.1:8080", &server.address.to_string()));
    let (name, text) = heard(&mut socket);
    assert_eq!(text, "hello from Python");
    script.find(|line| line == format!("{{'sender': '{name}', 'message': 'hello from Python'}}"));
    socket.text("hello, Python");
    script.find(|line| line.contains("hello, Python"));
}

#[test]
fn the_documentation_gives_the_key_of_the_rfc() {
    let page = include_str!("../../docs/protocol.md");
    assert!(page.contains(support::KEY) && page.contains(support::KEY_ACCEPTED));
    let server = Magpie::start(&[]);
    let socket = Socket::open(connect(server.address), &Request::upgrade(&server, "/ws"));
    assert_eq!(socket.response.header("sec-websocket-accept"), Some(support::KEY_ACCEPTED));
}
