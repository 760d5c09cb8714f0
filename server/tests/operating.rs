//! What an operator sees from outside: readiness, a drain with a delay, metrics, `magpie health`.

mod support;

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::{CLOSE, LOBBY, Magpie, Request, Socket, exchange, reference, run, send, until};

fn readiness(server: &Magpie, query: &str) -> (u16, String) {
    let response = Request::new(server, "GET", &format!("/readyz{query}")).send(server);
    (response.status, response.text())
}

#[test]
fn a_drain_with_a_delay_goes_on_serving_and_is_not_ready() {
    let mut server = Magpie::start(&["--drain-delay", "3600"]);
    let data = server.data().to_str().unwrap().to_owned();
    let (mut ada, _) = Socket::full(&server, None);
    assert_eq!(readiness(&server, "").0, 200);
    let healthy = run(&["health", "--data", &data]);
    assert_eq!(healthy.status.code(), Some(0), "{healthy:?}");
    assert_eq!(String::from_utf8_lossy(&healthy.stdout), "server: ok\nstore: ok\nbroker: ok\n");

    server.signal("TERM");
    let (_, text) = until("it is not ready", || Some(readiness(&server, "")).filter(|ready| ready.0 == 503));
    assert_eq!(text, "server: going down\nstore: ok\nbroker: ok\n");
    assert_eq!(readiness(&server, "?exclude=broker").0, 503);
    assert_eq!(readiness(&server, "?exclude=server").0, 200);
    let ill = run(&["health", "--data", &data]);
    assert_eq!(ill.status.code(), Some(1), "{ill:?}");
    assert!(String::from_utf8_lossy(&ill.stderr).contains("server: going down"), "{ill:?}");
    // Whoever is sent here nevertheless is served, and so are those who are here.
    let (mut bob, _) = Socket::full(&server, None);
    ada.json(&send(&reference(1, 2, 3), "still here"));
    assert_eq!(bob.expect("event")["room"], LOBBY);

    // The operator has waited long enough.
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(130));
}

#[test]
fn after_the_delay_everyone_is_told_and_the_end_is_good() {
    let mut server = Magpie::start(&["--drain-delay", "1"]);
    let mut ada = Socket::plain(&server, "/ws");
    server.signal("TERM");
    loop {
        let frame = ada.frame();
        if frame.first == CLOSE {
            assert_eq!(frame.close_code(), Some(1012));
            break;
        }
    }
    drop(ada);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn prometheus_reads_metrics_on_a_listener_of_their_own() {
    let server = Magpie::start(&["--metrics-listen", "127.0.0.1:0"]);
    let address: SocketAddr = until("the address is told", || {
        let log = server.log();
        let mut entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let url = entries.find_map(|entry| Some(entry["metrics"].as_str()?.to_owned()))?;
        url.strip_prefix("http://")?.strip_suffix("/metrics")?.parse().ok()
    });
    let get = |path: &str| exchange(address, &Request::new(&server, "GET", path).bytes()).unwrap();
    let (mut ada, _) = Socket::full(&server, None);
    let (mut bob, _) = Socket::full(&server, None);
    for n in 0..5 {
        ada.json(&send(&reference(1, 2, n), "counted"));
        bob.find(|value| value["type"] == "event" && value["ref"] == json!(reference(1, 2, n)));
    }
    let text = until("all is counted", || {
        let response = get("/metrics");
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let text = response.text();
        let has = |line: &str| text.lines().any(|other| other == line);
        // The two arrivals are events as well.
        let is_counted = has("magpie_committed_total 7") && has("magpie_users 2") && has("magpie_rooms 1");
        is_counted.then_some(text.clone())
    });
    for line in [
        "magpie_connections 2",
        "magpie_ready{part=\"store\"} 1",
        "magpie_commit_seconds_bucket{le=\"+Inf\"}",
    ] {
        assert!(text.lines().any(|other| other.starts_with(line)), "{line}: {text}");
    }
    // Every metric says what it is, and no name or text of anybody is in it.
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let is_told = |name: &str| text.contains(&format!("# HELP {name} "));
        assert!(is_told(name) || base.is_some_and(is_told), "{name} is not explained: {text}");
    }
    assert!(!text.contains("counted"));
    assert_eq!(get("/").status, 404);
    // People do not get there.
    assert_eq!(Request::new(&server, "GET", "/metrics").send(&server).status, 404);
}
