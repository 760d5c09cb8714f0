//! Accounts over HTTP, against the built program: made, claimed, signed in to and out of, with every way to do so
//! wrongly, and the sockets that must close.

mod people;
mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use people::{
    Answer, PASSWORD, act, get, guest, owner, owner_secret, page_post, post, send_with, sign_in, sign_up,
    whoami,
};
use serde_json::{Value, json};
use support::{LOBBY, Magpie, Request, Socket, connect, read_response, run};

/// By when a socket of a session that ended is closed.
const CLOSED_WAIT: Duration = Duration::from_secs(5);

/// Waits until a socket is closed because its session is void.
#[track_caller]
fn assert_signed_out(mut socket: Socket) {
    let start = Instant::now();
    assert_eq!(socket.closed(), Some(1008));
    assert!(start.elapsed() < CLOSED_WAIT, "{:?}", start.elapsed());
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
    assert!(answer.json["message"].as_str().is_some_and(|message| message.len() > 5), "{answer:?}");
    assert_eq!(answer.cookie, None, "{answer:?}");
}

#[test]
fn a_guest_claims_their_name_and_comes_back_elsewhere() {
    let server = Magpie::start(&[]);
    let first = guest(&server);
    assert_eq!(
        whoami(&server, &first),
        json!({"user": null, "role": "guest", "guests": true, "registration": "open"})
    );
    let (socket, welcome) = Socket::full(&server, Some(&first));
    let user = welcome["user"].clone();
    assert_eq!(whoami(&server, &first)["user"], user);

    // The guest keeps who they are; the session is a new one, and the old one's socket closes.
    let claimed = post(&server, "/api/sign-up", Some(&first), &json!({"password": PASSWORD}));
    assert_eq!((claimed.status, &claimed.json), (200, &json!({"user": user, "role": "member"})));
    let second = claimed.cookie.unwrap();
    assert_ne!(first, second);
    assert_signed_out(socket);
    assert_eq!(whoami(&server, &first)["user"], Value::Null);
    let (socket, welcome) = Socket::full(&server, Some(&second));
    assert_eq!((&welcome["user"], &welcome["role"]), (&user, &json!("member")));
    assert_refused(
        &post(&server, "/api/sign-up", Some(&second), &json!({"password": PASSWORD})),
        403,
        "forbidden",
    );

    // Elsewhere, with the name as somebody types it.
    let name = user["name"].as_str().unwrap().to_uppercase();
    let there = sign_in(&server, &name, PASSWORD);
    assert_eq!((there.status, &there.json["user"]), (200, &user));
    let third = there.cookie.unwrap();
    let (other, _) = Socket::full(&server, Some(&third));

    // Signing out is for one place.
    let out = post(&server, "/api/sign-out", Some(&second), &json!({}));
    assert_eq!((out.status, out.text.as_str()), (204, ""));
    assert_eq!(out.cookie.as_deref(), Some("magpie_session="));
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_signed_out(socket);
    assert_eq!(whoami(&server, &third)["user"], user);

    // Or for all.
    let fourth = sign_in(&server, &name, PASSWORD).cookie.unwrap();
    let out = post(&server, "/api/sign-out", Some(&fourth), &json!({"everywhere": true}));
    assert_eq!(out.status, 204);
    assert_signed_out(other);
    assert_eq!(
        (&whoami(&server, &third)["user"], &whoami(&server, &fourth)["user"]),
        (&Value::Null, &Value::Null)
    );
    // Nobody is anybody by a cookie that is over, and the page gives another.
    assert_signed_out(Socket::hello(&server, Some(&third)));
    let renewed = get(&server, "/", Some(&third)).cookie.unwrap();
    assert_ne!(renewed, third);
    let (_socket, welcome) = Socket::full(&server, Some(&renewed));
    assert_eq!(welcome["role"], "guest");
    assert_eq!(get(&server, "/", Some(&renewed)).cookie, None);
}

#[test]
fn a_claim_can_bring_a_name_that_is_free() {
    let server = Magpie::start(&[]);
    sign_up(&server, "Ada");
    let cookie = guest(&server);
    let (mut socket, welcome) = Socket::full(&server, Some(&cookie));
    let body = |name: &str| json!({"name": name, "password": PASSWORD});
    assert_refused(&post(&server, "/api/sign-up", Some(&cookie), &body("ADA")), 409, "name_taken");
    assert_refused(&post(&server, "/api/sign-up", Some(&cookie), &body("Magpie")), 400, "name_invalid");
    let claimed = post(&server, "/api/sign-up", Some(&cookie), &body("Grace"));
    assert_eq!((claimed.status, &claimed.json["user"]["id"]), (200, &welcome["user"]["id"]), "{claimed:?}");
    assert_eq!(claimed.json["user"]["name"], "Grace");
    let renamed = socket.expect("renamed");
    assert_eq!(renamed["user"]["name"], "Grace");
    // Without a guest there is no name to keep.
    assert_refused(&post(&server, "/api/sign-up", None, &json!({"password": PASSWORD})), 400, "name_invalid");
}

#[test]
fn a_wrong_name_is_answered_as_a_wrong_password() {
    let server = Magpie::start(&[]);
    sign_up(&server, "Ada");
    let (_socket, guest) = Socket::full(&server, Some(&guest(&server)));
    let known = sign_in(&server, "Ada", "wrong horse battery");
    assert_refused(&known, 401, "bad_credentials");
    let guest_name = guest["user"]["name"].as_str().unwrap();
    for name in ["Bob", guest_name, "", "\u{202e}", "Magpie", &"x".repeat(5_000), "' OR 1=1 --", "a\u{0}b"] {
        let unknown = sign_in(&server, name, "wrong horse battery");
        assert_eq!(unknown.shape(), known.shape(), "{name:?}");
    }
    for password in ["", "x", &"x".repeat(9_000)] {
        assert_eq!(sign_in(&server, "Ada", password).shape(), known.shape(), "{password:?}");
    }
}

#[test]
fn signing_in_ends_the_session_that_was_there() {
    let server = Magpie::start(&[]);
    let (ada, _) = sign_up(&server, "Ada");
    let cookie = guest(&server);
    let (socket, _) = Socket::full(&server, Some(&cookie));
    let body = json!({"name": "Ada", "password": PASSWORD});
    let signed_in = post(&server, "/api/sign-in", Some(&cookie), &body);
    assert_eq!(signed_in.status, 200);
    assert_signed_out(socket);
    let mine = signed_in.cookie.unwrap();
    assert!(mine != ada && mine != cookie);
    // Again from there: another token again.
    let (socket, _) = Socket::full(&server, Some(&mine));
    let again = post(&server, "/api/sign-in", Some(&mine), &body).cookie.unwrap();
    assert_ne!(again, mine);
    assert_signed_out(socket);
    assert_eq!(whoami(&server, &mine)["user"], Value::Null);
    assert_eq!(whoami(&server, &ada)["user"]["name"], "Ada", "another browser stays");
}

#[test]
fn a_new_password_ends_all_other_sessions() {
    let server = Magpie::start(&[]);
    let (here, _) = sign_up(&server, "Ada");
    let there = sign_in(&server, "Ada", PASSWORD).cookie.unwrap();
    let (mut mine, _) = Socket::full(&server, Some(&here));
    let (other, _) = Socket::full(&server, Some(&there));
    let change = |cookie: Option<&str>, old: &str, new: &str| {
        post(&server, "/api/password", cookie, &json!({"old": old, "new": new}))
    };
    assert_refused(&change(Some(&here), "wrong horse battery", "another horse"), 401, "bad_credentials");
    for (new, code) in [("short", "bad_password"), ("password123", "bad_password"), ("ada", "bad_password")] {
        assert_refused(&change(Some(&here), PASSWORD, new), 400, code);
    }
    assert_refused(&change(None, PASSWORD, "another horse"), 401, "sign_in_required");
    assert_refused(&change(Some(&guest(&server)), PASSWORD, "another horse"), 401, "sign_in_required");
    assert_eq!(change(Some(&here), PASSWORD, "another horse").status, 204);
    assert_signed_out(other);
    assert_eq!(whoami(&server, &there)["user"], Value::Null);
    mine.json(&json!({"type": "ping", "n": 1}));
    mine.expect("pong");
    assert_refused(&sign_in(&server, "Ada", PASSWORD), 401, "bad_credentials");
    assert_eq!(sign_in(&server, "Ada", "another horse").status, 200);
}

#[test]
fn an_invitation_is_asked_for_and_used_up() {
    let server = Magpie::start(&["--registration", "invite"]);
    let body = |name: &str, link: Option<&str>| json!({"name": name, "password": PASSWORD, "link": link});
    let sign_up = |name: &str, link: Option<&str>| post(&server, "/api/sign-up", None, &body(name, link));
    assert_refused(&sign_up("Ada", None), 403, "forbidden");
    assert_refused(&sign_up("Ada", Some("x")), 404, "not_found");
    assert_refused(&sign_up("Ada", Some(&"A".repeat(43))), 404, "not_found");
    let (_cookie, _, mut socket) = owner(&server);
    let made = act(&mut socket, json!({"act": "make_invite", "text": "friends", "uses": 2, "seconds": 3600}));
    let secret = made["secret"].as_str().unwrap();
    let looked = post(&server, "/api/link", None, &json!({"link": secret}));
    assert_eq!((looked.status, looked.json), (200, json!({"kind": "invite"})));
    assert_refused(&sign_up("Olga", Some(secret)), 409, "name_taken");
    assert_eq!(sign_up("Ada", Some(secret)).status, 200);
    assert_eq!(sign_up("Bob", Some(secret)).status, 200);
    assert_refused(&sign_up("Eve", Some(secret)), 404, "not_found");
    assert_refused(&post(&server, "/api/link", None, &json!({"link": secret})), 404, "not_found");
}

#[test]
fn a_closed_server_takes_nobody_but_its_owner() {
    let server = Magpie::start(&["--registration", "closed", "--guests", "off"]);
    let account = get(&server, "/api/account", None).json;
    assert_eq!((&account["guests"], &account["registration"]), (&json!(false), &json!("closed")));
    let refused = post(&server, "/api/sign-up", None, &json!({"name": "Ada", "password": PASSWORD}));
    assert_refused(&refused, 403, "forbidden");
    let (_cookie, _, mut socket) = owner(&server);
    let made = act(&mut socket, json!({"act": "make_invite", "text": "", "uses": 0, "seconds": 0}));
    let body = json!({"name": "Ada", "password": PASSWORD, "link": made["secret"]});
    assert_refused(&post(&server, "/api/sign-up", None, &body), 403, "forbidden");
}

#[test]
fn without_guests_one_signs_in_first() {
    let server = Magpie::start(&["--guests", "off"]);
    let page = Request::new(&server, "GET", "/sign-in").send(&server);
    assert_eq!(page.status, 200);
    let cookie = page.cookie().unwrap();
    let upgrade = Request::upgrade(&server, "/ws");
    for request in [
        upgrade.clone(),
        upgrade.clone().with("Sec-WebSocket-Protocol", "magpie.v1"),
        upgrade.clone().with("Cookie", &cookie),
    ] {
        let refused = request.send(&server);
        assert_eq!((refused.status, refused.cookie()), (401, None), "{refused:?}");
        assert!(refused.text().contains("Sign in"), "{refused:?}");
    }
    let (member, user) = sign_up(&server, "Ada");
    let (_socket, welcome) = Socket::full(&server, Some(&member));
    assert_eq!(welcome["user"], user["user"]);
    assert_eq!(post(&server, "/api/sign-out", Some(&member), &json!({})).status, 204);
    assert_eq!(upgrade.with("Cookie", &member).send(&server).status, 401);
}

#[test]
fn a_link_resets_a_password_once() {
    let server = Magpie::start(&[]);
    let (ada, user) = sign_up(&server, "Ada");
    let (socket, _) = Socket::full(&server, Some(&ada));
    let (_cookie, _, mut owner) = owner(&server);
    let made = act(&mut owner, json!({"act": "make_reset", "user": user["user"]["id"]}));
    let link = &made["secret"];
    let looked = post(&server, "/api/link", None, &json!({"link": link}));
    assert_eq!((looked.status, looked.json), (200, json!({"kind": "reset", "user": user["user"]})));
    let reset =
        |password: &str| post(&server, "/api/reset", None, &json!({"link": link, "password": password}));
    assert_refused(&reset("short"), 400, "bad_password");
    let body = json!({"name": "Eve", "password": PASSWORD, "link": link});
    assert_refused(&post(&server, "/api/sign-up", None, &body), 404, "not_found");
    let done = reset("another horse");
    assert_eq!((done.status, &done.json["user"]), (200, &user["user"]));
    assert_signed_out(socket);
    assert_eq!(whoami(&server, &ada)["user"], Value::Null);
    assert_eq!(whoami(&server, &done.cookie.unwrap())["user"], user["user"]);
    assert_refused(&reset("third horse"), 404, "not_found");
    assert_refused(&sign_in(&server, "Ada", PASSWORD), 401, "bad_credentials");
    assert_eq!(sign_in(&server, "Ada", "another horse").status, 200);
}

#[test]
fn the_log_has_the_owners_link_until_somebody_took_it() {
    let directory = tempfile::tempdir().unwrap();
    let server = Magpie::start_on(directory.path(), &[]);
    let first = owner_secret(&server);
    let take = |server: &Magpie, cookie: Option<&str>, secret: &str| {
        post(server, "/api/owner", cookie, &json!({"link": secret}))
    };
    let (ada, _) = sign_up(&server, "Ada");
    server.kill();

    // Each start tells the same one, so that whichever log was read is right.
    let server = Magpie::start_on(directory.path(), &[]);
    let second = owner_secret(&server);
    assert_eq!(first, second);
    assert_eq!(server.log().matches("/owner#").count(), 1);
    assert_refused(&take(&server, Some(&ada), &"A".repeat(first.len())), 404, "not_found");
    assert_refused(&take(&server, None, &second), 401, "sign_in_required");
    let looking = guest(&server);
    let (_guest, _) = Socket::full(&server, Some(&looking));
    assert_refused(&take(&server, Some(&looking), &second), 401, "sign_in_required");
    let (mut socket, _) = Socket::full(&server, Some(&ada));
    let taken = take(&server, Some(&ada), &second);
    assert_eq!((taken.status, &taken.json["role"]), (200, &json!("owner")), "{taken:?}");
    assert_eq!(socket.expect("me")["role"], "owner", "told at once");
    assert_refused(&take(&server, Some(&ada), &second), 404, "not_found");
    server.kill();

    let server = Magpie::start_on(directory.path(), &[]);
    assert_eq!(whoami(&server, &ada)["role"], "owner");
    assert!(!server.log().contains("/owner#"), "{}", server.log());
    // An operator whose owner has lost the password makes another one.
    let (bob, _) = sign_up(&server, "Bob");
    let printed = run(&["owner-link", "--data", directory.path().to_str().unwrap()]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    let (start, secret) = printed.trim().split_once("/owner#").unwrap();
    assert_eq!(start, format!("http://{}", server.address));
    assert_eq!(take(&server, Some(&bob), secret).json["role"], "owner");
}

#[test]
fn only_the_servers_own_page_changes_anything() {
    let server = Magpie::start(&[]);
    let (ada, _) = sign_up(&server, "Ada");
    let body = json!({"everywhere": true}).to_string();
    let request = || page_post(&server, "/api/sign-out", Some(&ada));
    for origin in ["null", "http://evil.example", "https://127.0.0.1", &format!("http://{}0", server.address)]
    {
        let answer = send_with(&server, request().with("Origin", origin), body.as_bytes());
        assert_refused(&answer, 403, "forbidden");
    }
    assert_refused(&send_with(&server, request().without("Origin"), body.as_bytes()), 403, "forbidden");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
        let answer = send_with(&server, request().with("Content-Type", kind), body.as_bytes());
        assert_refused(&answer, 415, "bad_json");
    }
    assert_refused(&send_with(&server, request().without("Content-Type"), body.as_bytes()), 415, "bad_json");
    for (body, code) in [
        (&b""[..], "bad_json"),
        (b"{", "bad_json"),
        (b"[]", "bad_json"),
        (b"[true]", "bad_json"),
        (b"{\"everywhere\":1}", "bad_field"),
        (b"{\"everywhere\":true,\"everywhere\":true}", "bad_field"),
        (b"\xff\xfe", "bad_json"),
        ("[".repeat(10_000).as_bytes(), "bad_json"),
        (format!("{{\"x\":{}", "[".repeat(10_000)).as_bytes(), "bad_json"),
    ] {
        assert_refused(&send_with(&server, request(), body), 400, code);
    }
    for (method, path) in [("GET", "/api/sign-out"), ("PUT", "/api/sign-in")] {
        let answer = send_with(&server, request().line(&format!("{method} {path} HTTP/1.1")), b"{}");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{path}");
    }
    let answer = send_with(&server, request().line("POST /api/account HTTP/1.1"), b"{}");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")));
    assert_eq!(whoami(&server, &ada)["user"]["name"], "Ada", "still signed in");
}

#[test]
fn long_and_slow_bodies_are_not_waited_for() {
    let server = Magpie::start(&[]);
    let long = vec![b' '; 17 * 1024];
    assert_refused(&send_with(&server, page_post(&server, "/api/sign-in", None), &long), 413, "bad_field");
    // Announced, and sent in chunks.
    let chunked = page_post(&server, "/api/sign-in", None).with("Transfer-Encoding", "chunked");
    let mut stream = connect(server.address);
    stream.write_all(&chunked.bytes()).unwrap();
    let chunk = [b"4000\r\n".to_vec(), vec![b' '; 0x4000], b"\r\n".to_vec()].concat();
    while stream.write_all(&chunk).is_ok() && stream.set_nodelay(true).is_ok() {
        // Until the server has had enough.
        let mut byte = [0];
        stream.set_nonblocking(true).unwrap();
        let answered = stream.peek(&mut byte).is_ok();
        stream.set_nonblocking(false).unwrap();
        if answered {
            break;
        }
    }
    assert_eq!(read_response(&mut stream).map(|answer| answer.status), Some(413));
    // One that begins and never ends.
    let mut stream = connect(server.address);
    let request = page_post(&server, "/api/sign-in", None).with("Content-Length", "100");
    stream.write_all(&request.bytes()).unwrap();
    stream.write_all(b"{\"name\":").unwrap();
    assert_eq!(read_response(&mut stream).map(|answer| answer.status), Some(408));
}

#[test]
fn guessing_is_slowed_down_for_who_guesses() {
    let server = Magpie::start(&[]);
    sign_up(&server, "Ada");
    sign_up(&server, "Bob");
    let guesses =
        (0..40).map(|_| sign_in(&server, "Ada", "wrong horse battery")).take_while(|a| a.status == 401);
    assert_eq!(guesses.count(), 10);
    let refused = sign_in(&server, "Ada", PASSWORD);
    assert_refused(&refused, 429, "rate_limited");
    let retry_ms = refused.json["retry_ms"].as_u64().unwrap();
    assert!((1..=60_000).contains(&retry_ms), "{refused:?}");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(seconds, retry_ms.div_ceil(1_000));
    // A name that nobody has is no different.
    let guesses =
        (0..40).map(|_| sign_in(&server, "Nobody", "wrong horse battery")).take_while(|a| a.status == 401);
    assert_eq!(guesses.count(), 10);
    // Others are not locked out: neither somebody else here, nor Ada elsewhere.
    assert_eq!(sign_in(&server, "Bob", PASSWORD).status, 200);
    let body = json!({"name": "Ada", "password": PASSWORD}).to_string();
    let elsewhere = std::net::Ipv4Addr::new(127, 0, 0, 9);
    let answer =
        people::send_from(&server, elsewhere, page_post(&server, "/api/sign-in", None), body.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn an_accounts_cookie_is_kept_from_scripts_and_ends() {
    let server = Magpie::start(&["--session-days", "7"]);
    let answer = post(&server, "/api/sign-up", None, &json!({"name": "Ada", "password": PASSWORD}));
    let cookie = answer.header("set-cookie").unwrap();
    let (pair, flags) = cookie.split_once("; ").unwrap();
    assert_eq!(flags, "Path=/; HttpOnly; SameSite=Lax; Max-Age=604800");
    assert!(pair.starts_with("magpie_session=") && pair.len() >= 15 + 43, "{pair}");
    // A forged one is nobody's.
    let mut forged = pair.to_owned();
    forged.pop();
    assert_eq!(whoami(&server, &format!("{forged}x"))["user"], Value::Null);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn a_device_is_told_in_words_and_its_session_can_be_ended() {
    let server = Magpie::start(&[]);
    sign_up(&server, "Ada");
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let request = page_post(&server, "/api/sign-in", None).with("User-Agent", agent);
    let body = json!({"name": "Ada", "password": PASSWORD}).to_string();
    let there = send_with(&server, request, body.as_bytes()).cookie.unwrap();
    let (socket, _) = Socket::full(&server, Some(&there));
    let here = sign_in(&server, "Ada", PASSWORD).cookie.unwrap();
    let (mut mine, _) = Socket::full(&server, Some(&here));
    mine.json(&json!({"type": "list", "list": "sessions"}));
    let rows = mine.expect("list")["rows"].clone();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
    let row = rows.iter().find(|row| row["text"] == "Firefox on Linux").expect("the browser");
    act(&mut mine, json!({"act": "end_session", "id": row["id"]}));
    assert_signed_out(socket);
    assert_eq!(whoami(&server, &there)["user"], Value::Null);
    mine.json(&json!({"type": "join", "room": LOBBY}));
    mine.expect("joined");
}
