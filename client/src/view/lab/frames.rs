//! What the lab shows of frames: a bounded log, sizes and times in words, and what a close frame may hold.
//!
//! Pure: this file must not know the browser. It is tested natively.

use std::collections::VecDeque;

/// Frames that the log keeps; the oldest goes first.
pub const LOG_MAX: usize = 200;
/// Characters of a frame that the log shows.
pub const TEXT_CHARS_MAX: usize = 200;
/// Bytes of a close frame's reason (RFC 6455 §5.5: 125 less two for the code).
pub const REASON_BYTES_MAX: usize = 123;

/// What a line of the log is about. It decides the line's colour, and its first word says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This page sent it.
    Sent,
    /// The server returned what this page had sent.
    Echo,
    /// The server sent it by itself.
    Server,
    /// The connection opened, closed or failed.
    Connection,
}

impl Source {
    /// Also the class.
    pub fn word(self) -> &'static str {
        match self {
            Source::Sent => "sent",
            Source::Echo => "echo",
            Source::Server => "server",
            Source::Connection => "connection",
        }
    }

    pub fn arrow(self) -> &'static str {
        match self {
            Source::Sent => "↑",
            Source::Echo | Source::Server => "↓",
            Source::Connection => "•",
        }
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Counts up from 1.
    pub n: u64,
    pub source: Source,
    /// The opcode in a word (RFC 6455 §5.2).
    pub kind: &'static str,
    /// Size of the payload; `None` where the browser does not show a frame.
    pub bytes: Option<usize>,
    /// Local time of day.
    pub time: String,
    pub text: String,
}

/// The newest frames, newest first.
#[derive(Clone, Debug, Default)]
pub struct Log {
    frames: VecDeque<Frame>,
    count: u64,
}

impl Log {
    pub fn push(
        &mut self,
        source: Source,
        kind: &'static str,
        bytes: Option<usize>,
        time: String,
        text: &str,
    ) {
        self.count += 1;
        self.frames.truncate(LOG_MAX - 1);
        self.frames.push_front(Frame { n: self.count, source, kind, bytes, time, text: shortened(text) });
    }

    pub fn clear(&mut self) {
        self.frames.clear();
    }

    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

/// The beginning of a long text.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => [&text[..end], "…"].concat(),
        None => text.to_owned(),
    }
}

/// A number of bytes in words.
pub fn size(bytes: usize) -> String {
    match bytes {
        1 => "1 byte".to_owned(),
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{}.{} KB", bytes / 1_000, bytes % 1_000 / 100),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

/// A time span in words, from milliseconds.
pub fn span(ms: f64) -> String {
    let tenths = (ms.clamp(0.0, 1e12) * 10.0).round() as u64;
    match tenths {
        0..100 => format!("{}.{} ms", tenths / 10, tenths % 10),
        100..10_000 => format!("{} ms", (tenths + 5) / 10),
        _ => format!("{}.{:02} s", tenths / 10_000, tenths % 10_000 / 100),
    }
}

/// A time of day with milliseconds.
pub fn clock(hours: u32, minutes: u32, seconds: u32, ms: u32) -> String {
    format!("{hours:02}:{minutes:02}:{seconds:02}.{ms:03}")
}

/// The ready state of a WebSocket in a word.
pub fn ready_state(state: u16) -> &'static str {
    match state {
        0 => "connecting",
        1 => "open",
        2 => "closing",
        _ => "closed",
    }
}

/// What a page may close with: a code of its own choice, and a short reason.
pub fn close_frame(code: &str, reason: &str) -> Result<u16, String> {
    let code = code.trim().parse().ok().filter(|code| matches!(code, 1000 | 3000..=4999));
    match code {
        None => Err("A page may close with 1000, or with 3000 to 4999.".to_owned()),
        Some(_) if reason.len() > REASON_BYTES_MAX => {
            Err(format!("A reason is at most {REASON_BYTES_MAX} bytes long: this one is {}.", reason.len()))
        }
        Some(code) => Ok(code),
    }
}

/// What a close code says (RFC 6455 §7.4.1 and the server's own).
pub fn close_word(code: u16) -> &'static str {
    match code {
        1000 => "normal",
        1001 => "going away",
        1002 => "protocol error",
        1003 => "unsupported data",
        1005 => "no code given",
        1006 => "connection lost, no close frame",
        1007 => "not UTF-8",
        1008 => "policy",
        1009 => "message too big",
        1010 => "extension missing",
        1011 => "server error",
        1012 => "restart",
        1013 => "try again later",
        1015 => "TLS failed",
        4000 => "too slow",
        4001 => "no answer to pings",
        4002 => "rate limited",
        _ => "application's own",
    }
}

/// Bytes of a frame on the wire, without compression (RFC 6455 §5.2). Those of a browser are masked.
pub fn frame_bytes(payload: usize, masked: bool) -> usize {
    let length = match payload {
        0..=125 => 0,
        126..=65_535 => 2,
        _ => 8,
    };
    2 + length + if masked { 4 } else { 0 } + payload
}

/// What browsers count for the headers of an answer, since they may not tell the true number
/// (Resource Timing, `transferSize`).
pub const ANSWER_HEADERS_BYTES: usize = 300;
/// Headers of a request besides its first line and `User-Agent`, as browsers send them: `Host`, `Accept…`,
/// `Sec-…`, `Referer`, `Cookie`.
const REQUEST_HEADERS_BYTES: usize = 450;

/// About how many bytes a request takes: a page cannot see its own headers.
pub fn request_bytes(path: &str, user_agent: &str, body: usize) -> usize {
    "GET  HTTP/1.1\r\n".len() + path.len() + user_agent.len() + REQUEST_HEADERS_BYTES + body
}

/// About how many bytes a server-sent event takes: `data:…`, `id:…` and the framing of a chunk (RFC 9112 §7.1).
pub fn event_bytes(data: usize, id: usize) -> usize {
    "data:\n".len() + data + "id:\n\n".len() + id + "3e8\r\n\r\n".len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_the_newest() {
        let mut log = Log::default();
        assert!(log.is_empty());
        for n in 0..LOG_MAX + 5 {
            log.push(Source::Sent, "text", Some(n), String::new(), "");
        }
        assert_eq!(log.frames().count(), LOG_MAX);
        assert_eq!(log.frames().next().map(|frame| frame.n), Some(LOG_MAX as u64 + 5));
        assert_eq!(log.frames().last().map(|frame| frame.n), Some(6));
        log.clear();
        assert!(log.is_empty());
        log.push(Source::Echo, "text", None, String::new(), "");
        assert_eq!(log.frames().next().map(|frame| frame.n), Some(LOG_MAX as u64 + 6));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let full = "ü".repeat(TEXT_CHARS_MAX);
        assert_eq!(shortened(&full), full);
        assert_eq!(shortened(&[&full, "ü"].concat()), [&full, "…"].concat());
        assert_eq!(shortened(""), "");
    }

    #[test]
    fn sizes_and_times_in_words() {
        let sizes =
            [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1_000, "1.0 KB"), (65_536, "65.5 KB")];
        for (bytes, words) in sizes.into_iter().chain([(2_340_000, "2.3 MB")]) {
            assert_eq!(size(bytes), words);
        }
        let spans = [
            (0.0, "0.0 ms"),
            (1.26, "1.3 ms"),
            (9.99, "10 ms"),
            (12.4, "12 ms"),
            (999.0, "999 ms"),
            (1_034.0, "1.03 s"),
            (-1.0, "0.0 ms"),
            (f64::NAN, "0.0 ms"),
        ];
        for (ms, words) in spans {
            assert_eq!(span(ms), words, "{ms}");
        }
        assert_eq!(clock(7, 5, 3, 9), "07:05:03.009");
    }

    #[test]
    fn a_page_may_close_with_some_codes_only() {
        for (code, allowed) in
            [("1000", true), (" 4999 ", true), ("3000", true), ("1001", false), ("2999", false)]
        {
            assert_eq!(close_frame(code, "").is_ok(), allowed, "{code}");
        }
        for code in ["", "x", "-1", "5000", "99999"] {
            assert!(close_frame(code, "").is_err(), "{code}");
        }
        assert_eq!(close_frame("1000", &"x".repeat(123)), Ok(1000));
        assert!(close_frame("1000", &"ü".repeat(62)).is_err());
    }

    #[test]
    fn frames_on_the_wire() {
        let cases = [(0, 2), (125, 127), (126, 130), (65_535, 65_539), (65_536, 65_546)];
        for (payload, bytes) in cases {
            assert_eq!(frame_bytes(payload, false), bytes);
            assert_eq!(frame_bytes(payload, true), bytes + 4);
        }
    }
}
