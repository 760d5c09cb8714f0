//! The opening handshake and plain HTTP, byte by byte against the built program: every row of the table in
//! docs/protocol.md, and what strangers send.

mod support;

use std::io::Write;

use support::{
    CLOSE, Canary, KEY, KEY_ACCEPTED, Magpie, Request, Response, Socket, connect, exchange, read_response,
};

#[track_caller]
fn check(server: &Magpie, request: Request, status: u16) -> Response {
    let response = request.send(server);
    assert_eq!(response.status, status, "{}: {response:?}", request.line);
    response
}

#[test]
fn a_handshake_is_answered_as_the_rfc_says() {
    let server = Magpie::start(&[]);
    // Byte for byte what `curl` sends for the example in docs/protocol.md.
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nUser-Agent: curl/8\r\nAccept: */*\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        server.address
    );
    let response = exchange(server.address, request.as_bytes()).unwrap();
    assert_eq!(response.status, 101);
    assert_eq!(response.header("sec-websocket-accept"), Some(KEY_ACCEPTED));
    assert!(response.header("upgrade").unwrap().eq_ignore_ascii_case("websocket"));
    assert!(response.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert_eq!(response.header("sec-websocket-protocol"), None);
    assert_eq!(response.header("sec-websocket-extensions"), None);

    let good = Request::upgrade(&server, "/ws");
    let changed = |name, value| good.clone().with(name, value);
    for (request, status) in [
        (good.clone().without("Sec-WebSocket-Key"), 400),
        (changed("Sec-WebSocket-Key", ""), 400),
        (changed("Sec-WebSocket-Key", "c2hvcnQ="), 400),
        (changed("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZTE3Ynl0ZXM="), 400),
        (changed("Sec-WebSocket-Key", "this is not base64!!!!!!"), 400),
        (good.clone().and("Sec-WebSocket-Key", KEY), 400),
        (good.clone().without("Sec-WebSocket-Version"), 400),
        (good.clone().and("Sec-WebSocket-Version", "13"), 400),
        (good.clone().without("Host"), 400),
        (good.clone().line("GET /ws HTTP/1.0"), 400),
        (good.clone().without("Upgrade"), 426),
        (changed("Upgrade", "h2c"), 426),
        (changed("Connection", "keep-alive"), 426),
        (good.clone().without("Connection"), 426),
        (Request::new(&server, "GET", "/ws"), 426),
        (changed("Connection", "keep-alive, UPGRADE"), 101),
        (changed("Upgrade", "WebSocket"), 101),
        (good.clone().line("GET /ws/none HTTP/1.1"), 404),
        (good.clone().line("GET /wss HTTP/1.1"), 404),
        (good.clone().line("GET /ws/echo HTTP/1.1"), 101),
        (good.clone().line("GET /ws/hello HTTP/1.1"), 101),
        (good.clone().line("GET /ws?room=lobby HTTP/1.1"), 101),
    ] {
        check(&server, request, status);
    }
    for version in ["8", "14", "130", "thirteen"] {
        let response = check(&server, changed("Sec-WebSocket-Version", version), 426);
        assert_eq!(response.header("sec-websocket-version"), Some("13"));
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let response = good.clone().line(&format!("{method} /ws HTTP/1.1")).with("Content-Length", "0");
        assert_eq!(check(&server, response, 405).header("allow"), Some("GET"));
    }
    let response = check(&server, Request::new(&server, "GET", "/ws"), 426);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(response.text(), "Please use a WebSocket client.");
}

#[test]
fn only_known_origins_and_subprotocols_come_in() {
    let server = Magpie::start(&["--allow-origin", "https://chat.example.org"]);
    let own = format!("http://{}", server.address);
    let port = server.address.port();
    let good = Request::upgrade(&server, "/ws");
    for (origin, status) in [
        (own.as_str(), 101),
        ("https://chat.example.org", 101),
        ("http://chat.example.org", 403),
        ("https://chat.example.org:8443", 403),
        ("https://chat.example.org.evil.example", 403),
        ("https://evil-chat.example.org", 403),
        ("https://chat.example.org/", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("http://127.0.0.1", 403),
        (&format!("http://127.0.0.1:{}", port ^ 1), 403),
        (&format!("{own}0"), 403),
        (&format!("{own}.evil.example"), 403),
        (&format!("https://127.0.0.1:{port}"), 403),
        (&format!("ws://127.0.0.1:{port}"), 403),
        (&format!("http://localhost:{port}"), 403),
    ] {
        let response = good.clone().with("Origin", origin).send(&server);
        assert_eq!(response.status, status, "{origin:?}");
        // Refused before any session work.
        assert_eq!(response.header("set-cookie").is_some(), status == 101, "{origin:?}");
    }
    check(&server, good.clone().with("Origin", &own).and("Origin", "https://evil.example"), 403);
    for path in ["/ws/echo", "/ws/hello"] {
        check(&server, Request::upgrade(&server, path).with("Origin", "https://evil.example"), 403);
    }

    let offer = |value: &str| good.clone().with("Sec-WebSocket-Protocol", value);
    for value in ["magpie.v1", "chat, magpie.v1", "magpie.v2,magpie.v1"] {
        let response = check(&server, offer(value), 101);
        assert_eq!(response.header("sec-websocket-protocol"), Some("magpie.v1"), "{value:?}");
    }
    check(&server, offer("chat").and("Sec-WebSocket-Protocol", "magpie.v1"), 101);
    // Named in the query, for proxies that drop the header: what is not offered is not answered either.
    let mut by_query = Socket::plain(&server, "/ws?protocol=magpie.v1");
    assert_eq!(by_query.response.header("sec-websocket-protocol"), None);
    by_query.text(r#"{"type":"hello"}"#);
    by_query.expect("welcome");
    for value in ["chat", "magpie.v2", "MAGPIE.V1", "mqtt, wamp"] {
        let response = check(&server, offer(value), 400);
        assert!(response.text().contains("magpie.v1"), "{value:?}: {}", response.text());
    }
}

#[test]
fn permessage_deflate_is_negotiated_as_offered() {
    let server = Magpie::start(&[]);
    let offer = |value: &str| Request::upgrade(&server, "/ws/echo").with("Sec-WebSocket-Extensions", value);
    let base = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for value in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=10; server_no_context_takeover",
        "x-webkit-deflate-frame, permessage-deflate",
        "permessage-deflate; unknown, permessage-deflate",
    ] {
        let response = check(&server, offer(value), 101);
        assert_eq!(response.header("sec-websocket-extensions"), Some(base), "{value:?}");
    }
    let response = check(&server, offer("permessage-deflate; server_max_window_bits=\"9\""), 101);
    let with_bits = format!("{base}; server_max_window_bits=9");
    assert_eq!(response.header("sec-websocket-extensions"), Some(with_bits.as_str()));
    for value in [
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=010",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-bzip2",
    ] {
        let response = check(&server, offer(value), 101);
        assert_eq!(response.header("sec-websocket-extensions"), None, "{value:?}");
    }
    let server = Magpie::start(&["--no-deflate"]);
    let request = Request::upgrade(&server, "/ws").with("Sec-WebSocket-Extensions", "permessage-deflate");
    assert_eq!(check(&server, request, 101).header("sec-websocket-extensions"), None);
}

#[test]
fn cookies_are_the_servers_own() {
    let server = Magpie::start(&[]);
    let page = check(&server, Request::new(&server, "GET", "/"), 200);
    let attributes: Vec<&str> = page.header("set-cookie").unwrap().split("; ").collect();
    for wanted in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(attributes.contains(&wanted), "{attributes:?}");
    }
    // Over plain HTTP a browser would throw a Secure cookie away.
    assert!(!attributes.contains(&"Secure") && !attributes.iter().any(|one| one.starts_with("Domain")));
    let cookie = page.cookie().unwrap();
    // 43 characters of base64: 128 random bits and their proof.
    assert_eq!(cookie.strip_prefix("magpie_session=").unwrap().len(), 43);
    let other = check(&server, Request::new(&server, "GET", "/"), 200).cookie().unwrap();
    assert_ne!(cookie, other);
    let again = check(&server, Request::new(&server, "GET", "/").with("Cookie", &cookie), 200);
    assert_eq!(again.cookie(), None);
    let by_itself = check(&server, Request::new(&server, "GET", "/api/session"), 204);
    assert!(by_itself.cookie().is_some_and(|fresh| fresh != cookie && fresh != other));
    let kept = Request::new(&server, "GET", "/api/session").with("Cookie", &cookie);
    assert_eq!(check(&server, kept, 204).cookie(), None);

    // The same cookie is the same person; none is a fresh guest with a cookie of their own.
    let upgrade = Request::upgrade(&server, "/ws");
    let (_one, welcome) = Socket::full(&server, Some(&cookie));
    let (_two, twice) = Socket::full(&server, Some(&format!("theme=dark; {cookie}; x=y")));
    let (third, stranger) = Socket::full(&server, None);
    assert_eq!(welcome["user"], twice["user"]);
    assert_ne!(welcome["user"]["id"], stranger["user"]["id"]);
    let (_fourth, back) = Socket::full(&server, Some(&third.response.cookie().unwrap()));
    assert_eq!(stranger["user"], back["user"]);

    let mut forged = cookie.clone().into_bytes();
    let place = forged.len() - 10;
    forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for value in [
        forged.as_str(),
        "magpie_session=",
        "magpie_session=nonsense",
        &format!("{cookie}x"),
        &format!("{cookie}; {other}"),
        &format!("magpie_session={}", "A".repeat(60_000)),
    ] {
        let response = check(&server, upgrade.clone().with("Cookie", value), 403);
        assert_eq!(response.header("set-cookie"), None);
    }
    // The page replaces a cookie that is not worth anything.
    let response = check(&server, Request::new(&server, "GET", "/").with("Cookie", &forged), 200);
    assert!(response.cookie().is_some());
}

#[test]
fn what_is_malformed_is_refused_and_never_hangs() {
    let server = Magpie::start(&["--header-timeout", "2"]);
    let canary = Canary::start(&server);
    let good = Request::upgrade(&server, "/ws");
    check(&server, good.clone().with("X-Big", &"a".repeat(1024 * 1024)), 431);
    let many = (0..5_000).fold(good.clone(), |request, number| request.and(&format!("X-{number}"), "1"));
    check(&server, many, 431);

    let host = server.address;
    let head = format!("Host: {host}\r\n");
    let long = "a".repeat(100_000);
    for bytes in [
        format!("GET / HTTP/1.1\r\n{head}X: a\0b\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{head}X: a\rb\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{head}X Y: 1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{head}: 1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{head} folded\r\n\r\n"),
        format!("POST /lab/messages HTTP/1.1\r\n{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        format!("POST /lab/messages HTTP/1.1\r\n{head}Content-Length: -1\r\n\r\n"),
        format!("POST /lab/messages HTTP/1.1\r\n{head}Transfer-Encoding: sausage\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\n{head}\r\n"),
        format!("GET / HTTP/9.9\r\n{head}\r\n"),
        format!("GET\r\n{head}\r\n"),
        format!("GET / / HTTP/1.1\r\n{head}\r\n"),
        "\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03".to_owned() + &"\x01".repeat(200),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\r\n".repeat(300_000),
    ] {
        let response = exchange(host, bytes.as_bytes());
        let status = response.map(|response| response.status);
        let line = bytes.chars().take(80).collect::<String>();
        assert!(matches!(status, None | Some(400 | 414 | 431)), "{line:?}: {status:?}");
    }

    // Two lengths for one body are how requests are smuggled: the connection is closed after the answer
    // (RFC 9112 §6.1), and what comes behind is not taken for a request.
    let mut stream = connect(host);
    let both = format!(
        "POST / HTTP/1.1\r\n{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
         GET /smuggled HTTP/1.1\r\n{head}\r\n"
    );
    stream.write_all(both.as_bytes()).unwrap();
    let status = read_response(&mut stream).map(|response| response.status);
    assert!(matches!(status, None | Some(400 | 405)), "{status:?}");
    assert!(read_response(&mut stream).is_none(), "a connection with two lengths is closed");
    canary.stop();
}

#[test]
fn pages_say_nothing_that_was_sent() {
    let server = Magpie::start(&[]);
    for target in [
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/assets/../../Cargo.toml",
        "/assets/..%5c..%5cCargo.toml",
        "/assets/",
        "/assets",
        "/%00",
        "/assets/%00.js",
        "/.git/config",
        "/.env",
        "//evil.example/",
        "/r/../../etc/passwd",
        "/%ff%fe",
        "/magpie.db",
        "/data/magpie.db",
        "/control.sock",
        "/?%3Cscript%3Ealert(1)%3C/script%3E/x",
        "/<script>alert(1)</script>",
        "/x%0d%0aSet-Cookie:%20a=b",
    ] {
        let response = exchange(server.address, &Request::new(&server, "GET", target).bytes()).unwrap();
        let is_page = target.starts_with("/?");
        let is_refused = matches!(response.status, 400 | 403 | 404 | 405 | 416);
        assert!(is_refused || is_page && response.status == 200, "{target}: {response:?}");
        let all = format!("{:?}{}", response.headers, response.text());
        for sent in ["script>alert", "passwd", "Cargo", "evil", "root:", "[workspace]", "a=b"] {
            assert!(!all.contains(sent), "{target} gave {all}");
        }
        // What cannot be parsed at all is refused without a text.
        if !response.body.is_empty() {
            assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{target}");
        }
        if !is_page && !response.body.is_empty() {
            assert!(response.header("content-type").unwrap().starts_with("text/plain"), "{target}");
        }
    }
    // An absolute target is the same as its path (RFC 9112 §3.2.2); a proxy we are not.
    let absolute = Request::new(&server, "GET", "http://evil.example/etc/passwd").send(&server);
    assert_eq!(absolute.status, 404);
    for (method, target) in [
        ("POST", "/"),
        ("PUT", "/"),
        ("DELETE", "/lab"),
        ("TRACE", "/"),
        ("PATCH", "/r/lobby"),
        ("POST", "/healthz"),
        ("DELETE", "/readyz"),
        ("OPTIONS", "/"),
        ("BREW", "/"),
    ] {
        let request = Request::new(&server, method, target).with("Content-Length", "0");
        check(&server, request.with("X-Echo", "canary-word"), 405);
    }
    // Targets that name no path.
    for (method, target) in [("CONNECT", "evil.example:443"), ("GET", "evil.example"), ("OPTIONS", "*")] {
        check(&server, Request::new(&server, method, target), 404);
    }
}

#[test]
fn pages_are_cached_and_health_is_told() {
    let server = Magpie::start(&[]);
    let page = check(&server, Request::new(&server, "GET", "/"), 200);
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe-inline"), "{policy}");
    assert!(page.header("x-frame-options").is_some());
    assert_eq!(page.header("content-length").unwrap().parse(), Ok(page.body.len()));
    // The chat, and what has the rarer pages too.
    let body = |path: &str| check(&server, Request::new(&server, "GET", path), 200).body;
    for path in ["/r/lobby", "/d/0000000000001", "/p/0000000000001"] {
        assert!(body(path) == page.body, "{path}");
    }
    for path in ["/lab", "/sign-in", "/settings", "/settings/0000000000001", "/admin"] {
        assert!(body(path) == body("/join") && body(path) != page.body, "{path}");
    }

    let tag = page.header("etag").unwrap();
    for value in [tag.to_owned(), format!("\"other\", {tag}"), "*".to_owned()] {
        let request = Request::new(&server, "GET", "/").with("If-None-Match", &value);
        let response = check(&server, request, 304);
        assert_eq!((response.header("etag"), response.body.len()), (Some(tag), 0));
    }
    check(&server, Request::new(&server, "GET", "/").with("If-None-Match", "\"other\""), 200);
    let part = Request::new(&server, "GET", "/").with("Range", "bytes=0-4").send(&server);
    assert!(matches!(part.status, 200 | 206 | 416), "{part:?}");

    // What the page's size allows: a page of a line has no smaller form.
    for (accept, encodings) in [
        (Some("br, gzip"), [Some("br"), None]),
        (Some("gzip"), [Some("gzip"), None]),
        (Some("identity"), [None, None]),
        (None, [None, None]),
    ] {
        let request = Request::new(&server, "GET", "/");
        let request = accept.iter().fold(request, |request, accept| request.with("Accept-Encoding", accept));
        let response = check(&server, request, 200);
        assert!(encodings.contains(&response.header("content-encoding")), "{accept:?}: {response:?}");
        assert_eq!(response.header("vary").map(str::to_lowercase).as_deref(), Some("accept-encoding"));
    }

    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "server: ok\nstore: ok\nbroker: ok\n")] {
        let response = check(&server, Request::new(&server, "GET", path), 200);
        assert_eq!((response.text().as_str(), response.header("cache-control")), (text, Some("no-store")));
    }

    // One connection takes one request after the other.
    let mut stream = connect(server.address);
    for path in ["/healthz", "/nothing", "/readyz"] {
        stream.write_all(&Request::new(&server, "GET", path).bytes()).unwrap();
        let response = read_response(&mut stream).unwrap();
        assert_eq!(response.status, if path == "/nothing" { 404 } else { 200 });
    }
}

#[test]
fn what_is_sent_cannot_forge_a_line_of_the_log() {
    let server = Magpie::start(&[]);
    let fake = "\\n{\"level\":\"FAKE\"}";
    let good = Request::upgrade(&server, "/ws");
    for (request, status) in [
        (Request::new(&server, "GET", "/%0a%7b%22level%22:%22FAKE%22%7d").with("User-Agent", "FAKE"), 404),
        (good.clone().with("Origin", fake), 403),
        (good.clone().with("Sec-WebSocket-Protocol", fake), 400),
        (good.clone().with("Cookie", &format!("magpie_session={fake}")), 403),
        (good.clone().with("Sec-WebSocket-Extensions", fake), 101),
    ] {
        let response = check(&server, request, status);
        let all = format!("{:?}{}", response.headers, response.text());
        assert!(!all.contains("FAKE"), "{all}");
    }
    let mut socket = Socket::plain(&server, "/ws");
    socket.send(CLOSE, &[&1000u16.to_be_bytes(), "\n{\"level\":\"FAKE\"}\n".as_bytes()].concat());
    assert_eq!(socket.closed(), Some(1000));
    for line in server.log().lines() {
        let entry: serde_json::Value = serde_json::from_str(line).expect("each line of the log is JSON");
        assert_ne!(entry["level"], "FAKE");
    }
}

/// What every answer says to browsers, whatever it is about.
const SAFETY: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-frame-options", "DENY"),
];

/// What a page of a chat has no use for.
const UNUSED_FEATURES: [&str; 11] = [
    "accelerometer",
    "camera",
    "display-capture",
    "geolocation",
    "gyroscope",
    "hid",
    "microphone",
    "midi",
    "payment",
    "serial",
    "usb",
];

#[test]
fn every_answer_tells_browsers_what_they_may() {
    let server = Magpie::start(&[]);
    let get = |target: &str| Request::new(&server, "GET", target);
    let with = |method: &str, target: &str| Request::new(&server, method, target).with("Content-Length", "0");
    let page = check(&server, get("/"), 200);
    let tag = page.header("etag").unwrap();
    // Every file that the page names, and the icon that browsers ask for unasked.
    let text = page.text();
    let assets: Vec<&str> =
        text.split('"').filter(|part| part.starts_with('/') && part.contains('.')).collect();
    let is_bundled = !text.contains("MAGPIE_NO_CLIENT");
    assert!(assets.len() >= 3 || !is_bundled, "{text}");
    let mut requests: Vec<(Request, u16)> = assets.iter().map(|path| (get(path), 200)).collect();
    if is_bundled {
        requests.push((with("PUT", assets[0]), 405));
    }
    requests.extend([
        (get("/"), 200),
        (get("/r/lobby"), 200),
        (get("/d/0000000000001"), 200),
        (get("/lab"), 200),
        (with("HEAD", "/").with("Connection", "close"), 200),
        (get("/").with("If-None-Match", tag), 304),
        (with("POST", "/"), 405),
        (get("/nothing"), 404),
        (get("/assets/nothing.js"), 404),
        (get("/%00"), 404),
        (get("/api/session"), 204),
        (with("POST", "/api/session"), 404),
        (get("/healthz"), 200),
        (get("/readyz"), 200),
        (with("POST", "/healthz"), 405),
        (get("/ws"), 426),
        (with("POST", "/ws"), 405),
        (Request::upgrade(&server, "/ws").without("Sec-WebSocket-Key"), 400),
        (Request::upgrade(&server, "/ws").with("Origin", "https://evil.example"), 403),
        (Request::upgrade(&server, "/ws").with("Cookie", "magpie_session=forged"), 403),
        (get("/lab/poll?channel=channel-1"), 200),
        (get("/lab/poll?channel=%3Cscript%3E"), 400),
        (get("/lab/messages?channel=channel-1"), 405),
        (get("/lab/events?channel=channel-1"), 200),
        (with("POST", "/lab/messages?channel=channel-1"), 400),
    ]);
    for (request, status) in requests {
        let response = check(&server, request.clone(), status);
        for (name, value) in SAFETY {
            assert_eq!(response.header(name), Some(value), "{} of {}", name, request.line);
        }
        let permissions = response.header("permissions-policy").unwrap_or_default();
        let off: Vec<&str> = permissions.split(", ").filter_map(|one| one.strip_suffix("=()")).collect();
        for feature in UNUSED_FEATURES {
            assert!(off.contains(&feature), "{feature} of {}: {permissions}", request.line);
        }
        let is_html = response.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        if is_html || status == 304 {
            let policy = response.header("content-security-policy").unwrap_or_default();
            for part in
                ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
            {
                assert!(policy.split("; ").any(|one| one == part), "{part} of {}: {policy}", request.line);
            }
            assert!(!policy.contains("unsafe-inline") && !policy.contains("'unsafe-eval'"), "{policy}");
        }
        // No other site may read an answer.
        assert_eq!(response.header("access-control-allow-origin"), None, "{}", request.line);
    }
}

#[test]
fn other_sites_change_nothing() {
    let server = Magpie::start(&["--allow-origin", "https://chat.example.org"]);
    let own = format!("http://{}", server.address);
    let post =
        || Request::new(&server, "POST", "/lab/messages?channel=channel-1").with("Content-Length", "4");
    let send = |request: Request| {
        let bytes = [request.bytes(), b"text".to_vec()].concat();
        exchange(server.address, &bytes).expect("an answer")
    };
    for (origin, status) in [
        (own.as_str(), 201),
        ("https://chat.example.org", 201),
        ("http://chat.example.org", 403),
        (&own.replace("http:", "https:"), 403),
        (&own.replace("http:", "ftp:"), 403),
        (&format!("{own}0"), 403),
        (&format!("{own}/"), 403),
        (&format!("{own}.evil.example"), 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("http://", 403),
    ] {
        let response = send(post().with("Origin", origin));
        assert_eq!(response.status, status, "{origin:?}: {response:?}");
    }
    assert_eq!(send(post().with("Origin", &own).and("Origin", "https://evil.example")).status, 403);
    assert_eq!(send(post().with("Host", "").with("Origin", "http://")).status, 403);
    // A program that is no browser.
    assert_eq!(send(post()).status, 201);
    let kept = check(&server, Request::new(&server, "GET", "/lab/poll?channel=channel-1"), 200);
    assert_eq!(kept.text().matches("\"text\":\"text\"").count(), 3, "{}", kept.text());
}
