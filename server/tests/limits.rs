//! Who counts as whom behind proxies, who is kept away by their address, and what the log says of people who
//! would write their own lines into it: against the built program.

mod people;
mod support;

use std::net::Ipv4Addr;

use people::{act, owner, page_post, send_from, sign_in, sign_up};
use serde_json::{Value, json};
use support::{Magpie, Request, Response, Socket, connect_from, read_response, until};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const THERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 42);

fn open_from(server: &Magpie, from: Ipv4Addr, forwarded: Option<&str>) -> Result<Socket, Response> {
    let mut request = Request::upgrade(server, "/ws").with("Sec-WebSocket-Protocol", "magpie.v1");
    if let Some(forwarded) = forwarded {
        request = request.with("X-Forwarded-For", forwarded);
    }
    Socket::try_open(connect_from(server.address, from, false), &request)
}

#[test]
fn nobody_is_somebody_else_by_saying_so() {
    let server = Magpie::start(&["--max-connections-per-address", "3"]);
    let held: Vec<_> = (1..=3).map(|n| open_from(&server, HERE, Some(&format!("198.51.100.{n}")))).collect();
    assert!(held.iter().all(Result::is_ok));
    let mut stream = connect_from(server.address, HERE, false);
    assert_eq!(read_response(&mut stream).map(|refused| refused.status), Some(429));
    assert!(open_from(&server, THERE, None).is_ok(), "others are not kept out");
    let page = Request::new(&server, "GET", "/").with("X-Forwarded-Proto", "https");
    let mut stream = connect_from(server.address, THERE, false);
    std::io::Write::write_all(&mut stream, &page.bytes()).unwrap();
    assert!(read_response(&mut stream).unwrap().cookie().unwrap().starts_with("magpie_session="));
}

#[test]
fn behind_a_proxy_each_client_counts_for_themselves() {
    let server = Magpie::start(&["--max-connections-per-address", "2", "--trusted-proxy", "127.0.0.1"]);
    let open = |forwarded: &str| open_from(&server, HERE, Some(forwarded));
    let status = |opened: Result<Socket, Response>| opened.err().map_or(101, |refused| refused.status);
    let held = [open("198.51.100.1"), open("9.9.9.9, 198.51.100.1")];
    assert!(held.iter().all(Result::is_ok));
    assert_eq!(status(open("198.51.100.1")), 429);
    assert_eq!(status(open("203.0.113.9, 198.51.100.1, 127.0.0.1")), 429);
    let others: Vec<_> = (2..8).map(|n| open(&format!("198.51.100.{n}"))).collect();
    assert!(others.iter().all(Result::is_ok), "the proxy itself has no limit");
    // Somebody who is no proxy is not believed.
    let strangers =
        [open_from(&server, THERE, Some("198.51.100.50")), open_from(&server, THERE, Some("198.51.100.51"))];
    assert!(strangers.iter().all(Result::is_ok));
    let mut stream = connect_from(server.address, THERE, false);
    assert_eq!(read_response(&mut stream).map(|refused| refused.status), Some(429));
    drop(held);
    until("there is room again", || open("198.51.100.1").ok());
    // The proxy says what its clients speak.
    let page = Request::new(&server, "GET", "/").with("X-Forwarded-Proto", "https").send(&server);
    let cookie = page.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-magpie_session=") && cookie.ends_with("; Secure"), "{cookie}");
    let origin = format!("https://{}", server.address);
    for (proto, status) in [("https", 101), ("http", 403)] {
        let request =
            Request::upgrade(&server, "/ws").with("Origin", &origin).with("X-Forwarded-Proto", proto);
        assert_eq!(request.send(&server).status, status, "{proto}");
    }
    // Guesses, too, are the client's.
    let guess = |client: &str| {
        let request = page_post(&server, "/api/sign-in", None).with("X-Forwarded-For", client);
        send_from(&server, HERE, request, br#"{"name":"Ada","password":"wrong horse"}"#).status
    };
    assert_eq!(
        (0..11).map(|_| guess("198.51.100.77")).collect::<Vec<_>>(),
        [vec![401; 10], vec![429]].concat()
    );
    assert_eq!(guess("198.51.100.78"), 401);
}

#[test]
fn handshakes_have_a_pace() {
    let server = Magpie::start(&["--max-connections-per-address", "2"]);
    let statuses: Vec<u16> = (0..10)
        .map(|_| {
            // One after the other: the server knows of the end before the next begins.
            until("a connection is let in", || {
                let request = Request::upgrade(&server, "/ws/echo").bytes();
                let mut stream = connect_from(server.address, HERE, false);
                std::io::Write::write_all(&mut stream, &request).ok()?;
                let response = read_response(&mut stream)?;
                let is_full = response.status == 429 && response.header("retry-after") == Some("10");
                (!is_full).then_some(response.status)
            })
        })
        .collect();
    assert_eq!(statuses[..8], [101; 8]);
    assert_eq!(statuses[9], 429);
}

#[test]
fn a_banned_address_gets_nothing_and_loses_what_it_had() {
    let server = Magpie::start(&[]);
    let (_cookie, _, mut olga) = owner(&server);
    let page_from = |from: Ipv4Addr| {
        let mut stream = connect_from(server.address, from, false);
        std::io::Write::write_all(&mut stream, &Request::new(&server, "GET", "/").bytes()).unwrap();
        read_response(&mut stream).unwrap().status
    };
    let mut chat = open_from(&server, THERE, None).unwrap_or_else(|refused| panic!("{refused:?}"));
    chat.json(&json!({"type": "hello"}));
    chat.expect("welcome");
    assert_eq!(page_from(THERE), 200);
    act(&mut olga, json!({"act": "ban", "addresses": "127.0.0.40/29", "text": "floods", "seconds": 3600}));
    assert_eq!(chat.closed(), Some(1008));
    assert_eq!(page_from(THERE), 403);
    assert_eq!(open_from(&server, THERE, None).err().map(|refused| refused.status), Some(403));
    let request = page_post(&server, "/api/sign-in", None);
    assert_eq!(send_from(&server, THERE, request, b"{}").status, 403);
    assert_eq!((page_from(HERE), page_from(Ipv4Addr::new(127, 0, 0, 48))), (200, 200));
    olga.json(&json!({"type": "list", "list": "bans"}));
    let rows = olga.expect("list")["rows"].clone();
    act(&mut olga, json!({"act": "unban", "id": rows[0]["id"]}));
    until("the ban is over", || (page_from(THERE) == 200).then_some(()));
}

#[test]
fn nobody_writes_lines_into_the_log() {
    for form in ["json", "text"] {
        let server = Magpie::start(&["--log-form", form]);
        let name = "x\n2026-01-01T00:00:00Z  INFO signed in\r\n{\"level\":\"INFO\",\"message\":\"signed in\"}\u{1b}[31m";
        sign_up(&server, "Ada");
        assert_eq!(sign_in(&server, name, "wrong horse battery").status, 401);
        for path in
            ["/%0a%0dINFO%20signed%20in", "/r/%1b%5b31m", "/api/rooms/%0aINFO/messages", "/api/hooks/%0aINFO"]
        {
            let request = Request::new(&server, "GET", path)
                .with("User-Agent", "a\u{1b}[31m\tINFO signed in")
                .with("X-Forwarded-For", "1.1.1.1\tINFO signed in");
            let _ = request.send(&server);
        }
        let log = until("the log has both", || {
            let log = server.log();
            (log.contains("signed up") && log.contains("a sign-in failed")).then_some(log)
        });
        assert!(!log.contains("signed in") && !log.contains('\u{1b}'), "{log}");
        for line in log.lines() {
            let is_own = match form {
                "json" => serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"].is_string()),
                _ => {
                    line.len() > 30
                        && line.as_bytes()[10] == b'T'
                        && (line.contains(" INFO ") || line.contains(" WARN "))
                }
            };
            assert!(is_own, "{line:?}");
        }
    }
}
