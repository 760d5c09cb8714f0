//! The lab's endpoints, through the same service that the server runs, without a socket.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::task::yield_now;
use warp::http::Request;

use super::*;

const C: &str = "channel-1";

fn frozen() -> Ms {
    1_000_000
}

fn lab(limits: Limits) -> Arc<Lab> {
    Arc::new(Lab::with_clock(limits, frozen))
}

fn roomy() -> Limits {
    Limits { burst: 10_000, ..Limits::default() }
}

fn rules() -> Rules {
    Rules { scheme: "https", ..Rules::default() }
}

fn from(ip: &str) -> Client {
    Client { address: ip.parse().unwrap(), scheme: "https", is_forwarded: false }
}

fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "chat.example");
    request.extension(from("192.0.2.1")).body(Full::new(body.into())).unwrap()
}

async fn reply(lab: &Arc<Lab>, request: Request<Full<Bytes>>) -> Response {
    TowerToHyperService::new(warp::service(filter(lab.clone(), rules()))).call(request).await.unwrap()
}

async fn body(response: Response) -> Value {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

async fn get(lab: &Arc<Lab>, path: &str) -> Value {
    let response = reply(lab, request("GET", path, "")).await;
    assert_eq!(response.status(), 200);
    body(response).await
}

async fn post(lab: &Arc<Lab>, channel: &str, text: &str) -> u64 {
    let response =
        reply(lab, request("POST", &format!("/lab/messages?channel={channel}"), text.to_owned())).await;
    assert_eq!(response.status(), 201);
    body(response).await["n"].as_u64().unwrap()
}

#[track_caller]
fn check_refusal(response: &Response, status: u16) {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn a_poll_answers_with_the_messages_after() {
    let lab = lab(roomy());
    assert_eq!(get(&lab, "/lab/poll?channel=channel-1").await, json!({"messages": [], "last": 0}));
    for (n, text) in [(1, "a"), (2, "b\n\"ü\"")] {
        assert_eq!(post(&lab, C, text).await, n);
    }
    let second = json!({"n": 2, "at": 1_000_000, "text": "b\n\"ü\""});
    assert_eq!(
        get(&lab, "/lab/poll?channel=channel-1").await,
        json!({"messages": [{"n": 1, "at": 1_000_000, "text": "a"}, second], "last": 2})
    );
    assert_eq!(
        get(&lab, "/lab/poll?channel=channel-1&after=1").await,
        json!({"messages": [second], "last": 2})
    );
    assert_eq!(get(&lab, "/lab/poll?channel=channel-1&after=2").await, json!({"messages": [], "last": 2}));
    assert_eq!(get(&lab, "/lab/poll?channel=channel-2").await, json!({"messages": [], "last": 0}));
}

#[tokio::test]
async fn a_long_poll_waits_for_a_message() {
    let lab = lab(roomy());
    let waits = tokio::spawn({
        let lab = lab.clone();
        async move { get(&lab, "/lab/long-poll?channel=channel-1&after=0").await }
    });
    while lab.state().waiting.is_empty() {
        yield_now().await;
    }
    post(&lab, "channel-2", "other").await;
    for _ in 0..20 {
        yield_now().await;
    }
    assert!(!waits.is_finished());
    post(&lab, C, "a").await;
    assert_eq!(waits.await.unwrap()["messages"][0]["text"], "a");
    assert!(lab.state().waiting.is_empty());
    // What is there already is not waited for.
    assert_eq!(get(&lab, "/lab/long-poll?channel=channel-1").await["last"], 2);
}

#[tokio::test]
async fn a_long_poll_ends_without_a_message() {
    let lab = lab(Limits { wait: Duration::from_millis(20), ..roomy() });
    assert_eq!(
        get(&lab, "/lab/long-poll?channel=channel-1&after=7").await,
        json!({"messages": [], "last": 7})
    );
    assert!(lab.state().waiting.is_empty());
}

#[tokio::test]
async fn events_come_as_they_happen() {
    let lab = lab(roomy());
    post(&lab, C, "a").await;
    post(&lab, C, "b").await;
    let mut request = request("GET", "/lab/events?channel=channel-1", "");
    request.headers_mut().insert("last-event-id", HeaderValue::from_static("1"));
    let response = reply(&lab, request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    let mut stream = response.into_body().into_data_stream();
    assert_eq!(
        stream.next().await.unwrap().unwrap(),
        "data:{\"n\":2,\"at\":1000000,\"text\":\"b\"}\nid:2\n\n"
    );
    post(&lab, C, "c\nd").await;
    assert_eq!(
        stream.next().await.unwrap().unwrap(),
        "data:{\"n\":3,\"at\":1000000,\"text\":\"c\\nd\"}\nid:3\n\n"
    );
    assert_eq!(lab.state().waiting.len(), 1);
    drop(stream);
    assert!(lab.state().waiting.is_empty());
}

#[tokio::test]
async fn an_event_stream_ends_in_time() {
    let lab = lab(Limits { stream: Duration::from_millis(20), ..roomy() });
    let response = reply(&lab, request("GET", "/lab/events?channel=channel-1", "")).await;
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn closing_ends_all_waiting() {
    let lab = lab(roomy());
    let events = reply(&lab, request("GET", "/lab/events?channel=channel-1", "")).await;
    lab.close();
    assert!(events.into_body().collect().await.unwrap().to_bytes().is_empty());
    check_refusal(&reply(&lab, request("GET", "/lab/long-poll?channel=channel-1", "")).await, 503);
}

#[tokio::test]
async fn bad_requests_get_a_code_and_a_sentence() {
    let lab = lab(roomy());
    let long = "x".repeat(1_001);
    let cases: [(&str, &str, &[u8], u16, &str); 12] = [
        ("GET", "/lab/poll", b"", 400, "bad_channel"),
        ("GET", "/lab/poll?channel=short", b"", 400, "bad_channel"),
        ("GET", "/lab/poll?channel=a%20b%20c%20d%20e", b"", 400, "bad_channel"),
        ("GET", "/lab/poll?channel=channel-1&channel=channel-2", b"", 400, "bad_channel"),
        ("GET", "/lab/poll?channel=channel-1&after=-1", b"", 400, "bad_after"),
        ("GET", "/lab/events?channel=channel-1&after=x", b"", 400, "bad_after"),
        ("GET", "/lab/messages?channel=channel-1", b"", 405, "wrong_method"),
        ("POST", "/lab/poll?channel=channel-1", b"", 405, "wrong_method"),
        ("POST", "/lab/messages", b"a", 400, "bad_channel"),
        ("POST", "/lab/messages?channel=channel-1", b"", 400, "bad_text"),
        ("POST", "/lab/messages?channel=channel-1", b"\xff", 400, "bad_text"),
        ("POST", "/lab/messages?channel=channel-1", long.as_bytes(), 413, "too_long"),
    ];
    for (method, path, content, status, code) in cases {
        let response = reply(&lab, request(method, path, content.to_vec())).await;
        check_refusal(&response, status);
        assert_eq!(response.headers().contains_key(ALLOW), status == 405);
        let body = body(response).await;
        assert_eq!(body["code"], code, "{method} {path}");
        assert!(body["message"].as_str().unwrap().ends_with('.'));
    }
    assert!(lab.read(C, 0).is_empty());
}

#[tokio::test]
async fn only_the_same_origin_may_post() {
    let lab = lab(roomy());
    let cases = [
        ("https://chat.example", 201),
        ("https://Chat.Example", 201),
        ("http://chat.example", 403),
        ("https://chat.example:8443", 403),
        ("https://evil.example", 403),
        ("https://chat.example.evil.example", 403),
        ("null", 403),
    ];
    for (origin, status) in cases {
        let mut request = request("POST", "/lab/messages?channel=channel-1", "a");
        request.headers_mut().insert("origin", HeaderValue::from_static(origin));
        assert_eq!(reply(&lab, request).await.status(), status, "{origin}");
    }
}

#[tokio::test]
async fn other_paths_are_left_to_others() {
    let lab = lab(roomy());
    let page = warp::path!("lab").map(|| "the page");
    let service = TowerToHyperService::new(warp::service(filter(lab, rules()).or(page)));
    assert_eq!(service.call(request("GET", "/lab", "")).await.unwrap().status(), 200);
    assert_eq!(service.call(request("GET", "/lab/other", "")).await.unwrap().status(), 404);
    assert_eq!(service.call(request("GET", "/lab/poll/more", "")).await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_hasty_client_waits_and_others_do_not() {
    let lab = lab(Limits { burst: 3, interval_ms: 1_500, ..Limits::default() });
    for _ in 0..3 {
        get(&lab, "/lab/poll?channel=channel-1").await;
    }
    let response = reply(&lab, request("GET", "/lab/poll?channel=channel-1", "")).await;
    check_refusal(&response, 429);
    assert_eq!(response.headers()[RETRY_AFTER], "2");
    assert_eq!(body(response).await["retry_ms"], 1_500);

    let mut other = request("GET", "/lab/poll?channel=channel-1", "");
    other.extensions_mut().insert(from("192.0.2.2"));
    assert_eq!(reply(&lab, other).await.status(), 200);
}

#[test]
fn the_burst_comes_back_with_time() {
    let mut lab =
        Lab::with_clock(Limits { burst: 2, interval_ms: 100, clients: 2, ..Limits::default() }, || 0);
    let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|ip| client(Some(from(ip))));
    assert_eq!(lab.admit(a), Ok(()));
    assert_eq!(lab.admit(a), Ok(()));
    assert_eq!(lab.admit(a), Err(Refusal::TooFast { retry_ms: 100 }));
    lab.clock = || 40;
    assert_eq!(lab.admit(a), Err(Refusal::TooFast { retry_ms: 60 }));
    lab.clock = || 100;
    assert_eq!(lab.admit(a), Ok(()));
    // Clients are counted up to a limit; those that rested are forgotten first.
    assert_eq!(lab.admit(b), Ok(()));
    assert_eq!(lab.admit(c), Err(Refusal::Busy));
    lab.clock = || 200;
    assert_eq!(lab.admit(c), Ok(()));
    // The clock was set back by an hour.
    lab.clock = || -3_600_000;
    assert_eq!(lab.admit(a), Err(Refusal::TooFast { retry_ms: 100 }));
}

#[test]
fn clients_are_counted_by_address_and_prefix() {
    let count = |ip: &str| client(Some(from(ip)));
    assert_eq!(count("::ffff:192.0.2.1"), count("192.0.2.1"));
    assert_eq!(count("2001:db8:1:2:3::4"), count("2001:db8:1:2::1"));
    assert_ne!(count("2001:db8:1:2::1"), count("2001:db8:1:3::1"));
    assert_eq!(client(None), Ipv4Addr::UNSPECIFIED);
}

#[tokio::test]
async fn waiting_is_bounded_for_each_and_for_all() {
    let lab = lab(Limits { waiting: 3, waiting_per_client: 2, ..roomy() });
    let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|ip| client(Some(from(ip))));
    let first = lab.wait(a, C).ok();
    let _second = lab.wait(a, C).ok();
    assert_eq!(lab.wait(a, C).err(), Some(Refusal::TooManyWaiting));
    let _third = lab.wait(b, C).ok();
    assert_eq!(lab.wait(b, C).err(), Some(Refusal::Busy));
    drop(first);
    assert!(lab.wait(b, C).is_ok());
}

#[tokio::test]
async fn channels_and_messages_are_bounded() {
    let lab = lab(Limits { channels: 2, messages: 3, ..roomy() });
    for text in ["a", "b", "c", "d"] {
        post(&lab, C, text).await;
    }
    assert_eq!(lab.read(C, 0).iter().map(|message| message.n).collect::<Vec<_>>(), [2, 3, 4]);

    post(&lab, "channel-2", "e").await;
    // Reading is use: the second is the oldest now.
    lab.read(C, 0);
    post(&lab, "channel-3", "f").await;
    assert!(lab.read("channel-2", 0).is_empty());
    assert_eq!(lab.read(C, 0).len(), 3);
    // Numbers go on, so that a reader of the dropped channel misses nothing new.
    assert_eq!(post(&lab, "channel-2", "g").await, 7);
}
