//! A text of the server in each form in which it goes out, made once by whoever needs that form first.
//!
//! Hubs on several threads share these. It must not know what the text says.

use std::sync::OnceLock;

use crate::websocket::Frame;

/// One text, for any number of connections.
#[derive(Debug)]
pub struct Encoded {
    text: String,
    frame: OnceLock<Frame>,
    deflated: OnceLock<Option<Frame>>,
}

impl Encoded {
    pub fn new(text: String) -> Self {
        Self { text, frame: OnceLock::new(), deflated: OnceLock::new() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text as one WebSocket message.
    pub fn frame(&self) -> &Frame {
        self.frame.get_or_init(|| Frame::text(&self.text))
    }

    /// The same, compressed; `None` where that would gain nothing.
    pub fn deflated(&self) -> Option<&Frame> {
        self.deflated.get_or_init(|| Frame::deflated_text(&self.text)).as_ref()
    }
}

impl PartialEq for Encoded {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Encoded {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_made_once() {
        let long = Encoded::new("la".repeat(1_000));
        assert!(std::ptr::eq(long.frame(), long.frame()));
        assert_eq!(*long.frame(), Frame::text(long.text()));
        let deflated = long.deflated().map(std::ptr::from_ref);
        assert!(deflated.is_some() && deflated == long.deflated().map(std::ptr::from_ref));
        assert_eq!(Encoded::new("short".into()).deflated(), None);
    }
}
