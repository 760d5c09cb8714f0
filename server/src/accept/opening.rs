//! What a connection says first, looked at without taking it: whether there is enough to be dealt with, and
//! whether that is HTTP or TLS. Work is only begun for those whose words are all there.
//!
//! It must not know what is asked for.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Bytes that are looked at. A longer head counts as whole.
const LOOK_BYTES: usize = 4 * 1024;
/// Looks at words that are not whole yet, and the time between two.
const LOOKS: usize = 10;
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// First byte of a TLS connection: the type of a handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; LOOK_BYTES]);
}

/// What somebody said first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// The head of an HTTP request, or what is taken for one.
    Http,
    /// The first record of TLS.
    Tls,
    /// Something else, which is not worth a word.
    Other,
    /// Nothing: the peer is gone.
    Gone,
}

/// Looks at the first words of a connection that has some, and waits a moment for the rest of them. False if
/// that did not come.
pub(super) async fn opening(socket: &TcpStream) -> (Opening, bool) {
    let mut seen = (Opening::Gone, false);
    for look in 0..LOOKS {
        if look > 0 {
            sleep(LOOK_EVERY).await;
        }
        let peeked = poll_fn(|cx| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                let peeked = socket.poll_peek(cx, &mut buffer);
                peeked.map(|peeked: io::Result<usize>| peeked.map(|_| judge(buffer.filled())))
            })
        });
        seen = peeked.await.unwrap_or((Opening::Gone, true));
        if seen.1 {
            break;
        }
    }
    seen
}

/// What some first words are, and whether they are all there.
fn judge(words: &[u8]) -> (Opening, bool) {
    let is_full = words.len() >= LOOK_BYTES;
    match words {
        [] => (Opening::Gone, true),
        [TLS_HANDSHAKE, _, _, high, low, record @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            (Opening::Tls, is_full || record.len() >= length)
        }
        [TLS_HANDSHAKE, ..] => (Opening::Tls, false),
        // RFC 9112 §2.2 allows a line to end with a bare LF; hyper takes that too.
        _ => {
            let has_end = |end: &[u8]| words.windows(end.len()).any(|part| part == end);
            // Methods are words in capitals (RFC 9110 §9.1).
            let kind = if words[0].is_ascii_uppercase() { Opening::Http } else { Opening::Other };
            (kind, is_full || has_end(b"\r\n\r\n") || has_end(b"\n\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole_when_their_end_is_there() {
        for (words, expected) in [
            (&b""[..], (Opening::Gone, true)),
            (b"G", (Opening::Http, false)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", (Opening::Http, false)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", (Opening::Http, true)),
            (b"GET / HTTP/1.1\n\n", (Opening::Http, true)),
            (&[b'X'; LOOK_BYTES], (Opening::Http, true)),
            (b"\0\0", (Opening::Other, false)),
            (&[22], (Opening::Tls, false)),
            (&[22, 3, 1, 0, 3, 1, 2], (Opening::Tls, false)),
            (&[22, 3, 1, 0, 3, 1, 2, 3], (Opening::Tls, true)),
            (&[22; LOOK_BYTES], (Opening::Tls, true)),
        ] {
            assert_eq!(judge(words), expected, "{words:?}");
        }
    }
}
