//! What somebody on the way would measure to learn whether a name exists: how long a sign-in with a wrong
//! password takes for a name that is known, and for one that is not.

#[path = "../tests/people/mod.rs"]
mod people;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::Ipv4Addr;
use std::time::Instant;

use serde_json::json;

use support::Magpie;

/// Sign-ins with each sort of name.
const COUNT: u8 = 200;

fn main() {
    let server = Magpie::start(&[]);
    people::sign_up(&server, "Ada");
    let mut times = [Vec::new(), Vec::new()];
    for number in 0..COUNT {
        // One after the other, so that both meet the same machine; from many addresses, so that no limit is met.
        for (place, name) in ["Ada".to_owned(), format!("Nobody {number}")].iter().enumerate() {
            let from = Ipv4Addr::new(127, 1, number, 1 + place as u8);
            let body = json!({"name": name, "password": "wrong horse battery"}).to_string();
            let request = people::page_post(&server, "/api/sign-in", None);
            let start = Instant::now();
            let answer = people::send_from(&server, from, request, body.as_bytes());
            assert_eq!(answer.status, 401);
            times[place].push(start.elapsed());
        }
    }
    let [known, unknown] = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    let ratio = known.as_secs_f64() / unknown.as_secs_f64();
    println!("known names {known:?}, unknown names {unknown:?}: {ratio:.3}");
}
