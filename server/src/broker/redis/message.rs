//! What goes through Redis: the names of channels, and one hint as a message.
//!
//! Pure: it must not know connections. A message is a JSON object that begins with its version and with who
//! sent it, so that a process knows its own by their first bytes.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::model::{RoomId, UserId};

use crate::broker::{Hint, HubId, Topic};

/// Changes when nodes that speak an earlier version would misread a message.
const VERSION: u32 = 1;
/// Largest message, in bytes. Of an event that is larger only the place is told, and it is read from the store.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Gives each topic its channel. Installations with different secrets have different channels, so that two
/// on one Redis do not hear each other. (Pub/sub of Redis does not tell its numbered databases apart.)
#[derive(Debug)]
pub(super) struct Channels {
    prefix: String,
}

impl Channels {
    pub fn new(secret: &[u8; 32]) -> Self {
        let hash = Sha256::new().chain_update("magpie broker").chain_update(secret).finalize();
        let namespace: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { prefix: format!("magpie:{namespace}:") }
    }

    pub fn topic(&self, topic: Topic) -> String {
        let Self { prefix } = self;
        match topic {
            Topic::Room(room) => format!("{prefix}room:{room}"),
            Topic::User(user) => format!("{prefix}user:{user}"),
            Topic::Hub(hub) => format!("{prefix}hub:{hub}"),
            Topic::All => format!("{prefix}all"),
        }
    }

    /// The channel on which a process hears only itself.
    pub fn process(&self, process: u64) -> String {
        format!("{}process:{process:016x}", self.prefix)
    }

    /// The topic of a channel; `None` for one that is not a topic's.
    pub fn read(&self, channel: &str) -> Option<Topic> {
        let name = channel.strip_prefix(&self.prefix)?;
        match name.split_once(':') {
            None => (name == "all").then_some(Topic::All),
            Some(("room", id)) => id.parse::<RoomId>().ok().map(Topic::Room),
            Some(("user", id)) => id.parse::<UserId>().ok().map(Topic::User),
            Some(("hub", id)) => id.parse::<HubId>().ok().map(Topic::Hub),
            Some(_) => None,
        }
    }
}

/// Writes the messages of one process, and reads those of others.
#[derive(Debug)]
pub(super) struct Codec {
    /// How each of its own messages begins.
    own: String,
}

/// What a message turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The process has delivered it itself.
    Own,
    Hint(Box<Hint>),
    /// Another version's, or no message at all.
    Unknown,
}

#[derive(Deserialize)]
struct Envelope {
    v: u32,
    hint: Hint,
}

impl Codec {
    pub fn new(process: u64) -> Self {
        Self { own: format!(r#"{{"v":{VERSION},"from":"{process:016x}","hint":"#) }
    }

    /// What is told instead of a hint that is too large, if anything is.
    pub fn shorter(hint: &Hint) -> Option<Hint> {
        match hint {
            Hint::Event(logged) => Some(Hint::Head { room: logged.event.room, seq: logged.event.seq }),
            _ => None,
        }
    }

    /// The message; `None` if it would be too large, or cannot be written.
    pub fn write(&self, hint: &Hint) -> Option<Vec<u8>> {
        let mut bytes = self.own.clone().into_bytes();
        hint.serialize(&mut serde_json::Serializer::new(&mut bytes)).ok()?;
        bytes.push(b'}');
        (bytes.len() <= MESSAGE_BYTES_MAX).then_some(bytes)
    }

    pub fn read(&self, bytes: &[u8]) -> Message {
        if bytes.starts_with(self.own.as_bytes()) {
            return Message::Own;
        }
        match serde_json::from_slice::<Envelope>(bytes) {
            Ok(Envelope { v: VERSION, hint }) => Message::Hint(Box::new(hint)),
            _ => Message::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::model::{Body, LOBBY, UserName};
    use shared::protocol::{Event, EventKind, Person, Presence, User};

    use super::*;
    use crate::broker::Logged;
    use crate::store::{Cursor, Ended};

    fn user() -> User {
        User { id: UserId::from_bits(7), name: UserName::parse("Ada").unwrap() }
    }

    fn event(body: &str) -> Hint {
        let kind = EventKind::Message {
            body: Body::parse(body, 1_000).unwrap(),
            mentions: vec![user().id],
            all: false,
        };
        let reference = serde_json::from_str(r#""0192f0c1-2345-7abc-8def-0123456789ab""#).unwrap();
        Hint::Event(Arc::new(Logged::new(Event {
            room: LOBBY,
            seq: u64::MAX >> 11,
            at: 1_800_000_000_000,
            user: user(),
            kind,
            reference: Some(reference),
        })))
    }

    #[test]
    fn every_hint_arrives_as_it_was() {
        let (id, room) = (user().id, RoomId::from_bits(u64::MAX));
        let cursor = Cursor { seq: 9, version: 1, unread: 2, mentioned: 1 };
        let hints = [
            event("tea & \"cake\"\n🐦"),
            Hint::Head { room, seq: 7 },
            Hint::Presence {
                origin: u32::MAX,
                room,
                user: user(),
                presence: Presence::Away,
                version: 9,
                after: 0,
            },
            Hint::Present {
                origin: 1,
                room,
                version: 3,
                part: 0,
                parts: 1,
                first: UserId::from_bits(0),
                last: UserId::from_bits(u64::MAX),
                people: vec![Person { user: user(), presence: Presence::Online }],
            },
            Hint::PresenceWanted { origin: 1, room, known: vec![(2, 3)] },
            Hint::Alive { origin: 1, changed: vec![(room, 8)] },
            Hint::Leaving { origin: 1 },
            Hint::Doubt,
            Hint::Typing { room, user: user() },
            Hint::Read { user: id, room, cursor },
            Hint::Renamed { user: user() },
            Hint::Membership { user: id, room, member: true },
            Hint::Ended(Ended { user: id, tokens: vec![[0xab; 32], [0; 32]] }),
            Hint::User { user: id },
            Hint::Room { user: id, room },
            Hint::Rules,
            Hint::Announcement { text: "tea is ready".into(), at: -1 },
        ];
        let (own, other) = (Codec::new(1), Codec::new(2));
        for hint in hints {
            let bytes = own.write(&hint).unwrap();
            assert_eq!(own.read(&bytes), Message::Own);
            assert_eq!(other.read(&bytes), Message::Hint(Box::new(hint)));
        }
    }

    #[test]
    fn a_message_is_as_other_versions_expect_it() {
        let text = String::from_utf8(Codec::new(0xfeed).write(&Hint::Rules).unwrap()).unwrap();
        assert_eq!(text, r#"{"v":1,"from":"000000000000feed","hint":"rules"}"#);
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let codec = Codec::new(1);
        for text in [
            "",
            "{",
            "[]",
            "\u{0}",
            r#"{"v":1}"#,
            r#"{"v":2,"from":"0000000000000002","hint":"rules"}"#,
            r#"{"v":1,"from":"0000000000000002","hint":"quux"}"#,
            r#"{"v":1,"from":"0000000000000002","hint":{"typing":{}}}"#,
        ] {
            assert_eq!(codec.read(text.as_bytes()), Message::Unknown, "{text}");
        }
        let newer = r#"{"v":1,"from":"0000000000000002","hint":"rules","more":1}"#;
        assert_eq!(codec.read(newer.as_bytes()), Message::Hint(Box::new(Hint::Rules)));
    }

    #[test]
    fn what_is_too_large_is_not_sent() {
        let hint = |length| Hint::Announcement { text: "x".repeat(length), at: 0 };
        let length = MESSAGE_BYTES_MAX - Codec::new(1).write(&hint(0)).unwrap().len();
        assert!(Codec::new(1).write(&hint(length)).is_some());
        assert!(Codec::new(1).write(&hint(length + 1)).is_none());
    }

    #[test]
    fn of_an_event_that_is_too_large_the_place_is_told() {
        let large = event(&"x".repeat(900));
        let head = Hint::Head { room: LOBBY, seq: u64::MAX >> 11 };
        assert_eq!((Codec::shorter(&large), Codec::shorter(&Hint::Rules)), (Some(head), None));
    }

    #[test]
    fn what_a_broker_tells_its_own_hubs_does_not_leave_the_process() {
        assert_eq!(Codec::new(1).write(&Hint::CutOff), None);
    }

    #[test]
    fn each_topic_has_its_channel() {
        let channels = Channels::new(&[1; 32]);
        let of_user = Topic::User(UserId::from_bits(u64::MAX));
        for topic in [Topic::All, Topic::Room(LOBBY), of_user, Topic::Hub(HubId::MAX)] {
            let channel = channels.topic(topic);
            assert!(channel.starts_with("magpie:"), "{channel}");
            assert_eq!(channels.read(&channel), Some(topic));
            assert_eq!(Channels::new(&[2; 32]).read(&channel), None);
        }
        let mine = channels.process(1);
        for other in [mine.as_str(), "all", "magpie:all", &format!("{}all:", channels.prefix)] {
            assert_eq!(channels.read(other), None, "{other}");
        }
    }
}
