//! An address that webhooks can be posted to. It must not use the server's own code.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;

use crate::support::WAIT;

/// What was posted to an address of ours.
#[derive(Debug)]
pub struct Posted {
    pub head: String,
    pub body: String,
}

impl Posted {
    pub fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Listens for posts, and answers with these statuses, the last of them ever after.
pub fn receiver(statuses: &[u16]) -> (u16, Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut statuses = VecDeque::from(statuses.to_vec());
    let (sender, posts) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let posted = receive(&mut stream.unwrap(), statuses[0]);
            if statuses.len() > 1 {
                statuses.pop_front();
            }
            if posted.is_some_and(|posted| sender.send(posted).is_err()) {
                return;
            }
        }
    });
    (port, posts)
}

fn receive(stream: &mut TcpStream, status: u16) -> Option<Posted> {
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.unwrap().parse().unwrap() {
            let location = "http://127.0.0.1:1/elsewhere";
            let answer =
                format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 2\r\n\r\nno");
            let _ = stream.write_all(answer.as_bytes());
            return Some(Posted { head: head.to_owned(), body: body.to_owned() });
        }
    }
}
