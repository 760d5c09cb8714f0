//! Ids, names and message bodies: newtypes that can only hold what is allowed.
//!
//! Each is validated once, here, when it is parsed; code that holds one need not check again.
//! Look-alike detection needs large Unicode tables, so `UserName::claim` and `RoomName::claim` exist only
//! with the feature `names`, which the server turns on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Milliseconds since 1970-01-01 00:00 UTC.
pub type Ms = i64;

/// Position of an event in its room's log: gapless, from 1. 0 means "before the first event".
pub type Seq = u64;

/// Longest message body, in Unicode scalar values, unless the operator sets another limit.
pub const BODY_CHARS_MAX: usize = 4_000;
/// Longest name of a user or room, in Unicode scalar values.
pub const NAME_CHARS_MAX: usize = 32;
/// Longest topic, reason or note, in Unicode scalar values.
pub const LINE_CHARS_MAX: usize = 250;
/// Longest announcement, in Unicode scalar values.
pub const ANNOUNCEMENT_CHARS_MAX: usize = 1_000;

/// The digits of an id on the wire: Crockford's base 32, in lower case (no i, l, o, u).
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Digits of an id on the wire: 13 × 5 bits hold the 63 that are used.
const ID_DIGITS: usize = 13;

/// Why a text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadId;

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is 13 characters of 0-9 and a-z without i, l, o and u")
    }
}

fn write_id(id: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0u8; ID_DIGITS];
    for (place, digit) in text.iter_mut().rev().enumerate() {
        *digit = DIGITS[(id >> (5 * place)) as usize & 31];
    }
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn parse_id(text: &str) -> Result<u64, BadId> {
    if text.len() != ID_DIGITS {
        return Err(BadId);
    }
    let mut id = 0u64;
    for byte in text.bytes() {
        let digit = DIGITS.iter().position(|digit| *digit == byte).ok_or(BadId)?;
        id = id << 5 | digit as u64;
    }
    // The first digit may only use its low three bits.
    if id >> 63 != 0 || text.as_bytes()[0] > b'7' { Err(BadId) } else { Ok(id) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl $name {
            /// Makes an id of 63 of the given (random) bits.
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits & (u64::MAX >> 1))
            }

            /// The id as a number below 2⁶³, as databases keep it.
            pub const fn bits(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_id(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_id(self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                parse_id(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an id")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

id! {
    /// A user: one person or program. Guests are users.
    UserId
}
id! {
    /// A room: public, private or a direct conversation.
    RoomId
}

/// The room that exists from the start and that everyone is in.
pub const LOBBY: RoomId = RoomId(1);
/// The lobby's name.
pub const LOBBY_NAME: &str = "lobby";

/// The sender's own id of one send: a UUID (RFC 9562), version 7 from our client.
/// (author, ref) is unique for ever, which is what makes a send happen once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ref(pub Uuid);

impl Ref {
    /// A UUID version 7 (RFC 9562 §5.7) of a time and ten random bytes.
    pub fn new(now: Ms, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(now.max(0) as u64, &random).into_uuid())
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    Empty,
    TooLong,
    /// Holds a character that names may not have.
    Character(char),
    /// Mixes scripts in a way that is used to deceive.
    Scripts,
    /// Would be taken for the server itself.
    Reserved,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadName::Empty => f.write_str("A name needs at least one character."),
            BadName::TooLong => write!(f, "A name has at most {NAME_CHARS_MAX} characters."),
            BadName::Character(c) => write!(f, "A name cannot hold the character U+{:04X}.", *c as u32),
            BadName::Scripts => f.write_str("A name cannot mix letters of different scripts."),
            BadName::Reserved => f.write_str("That name is reserved."),
        }
    }
}

/// True for characters that are invisible, change direction or control the terminal: Unicode's Cc, Cf, Zl
/// and Zp, and the blank letters that are used to fake an empty name.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c as u32,
            0x00AD | 0x034F | 0x061C | 0x06DD | 0x070F | 0x08E2 | 0x115F | 0x1160 | 0x17B4 | 0x17B5
            | 0x0600..=0x0605 | 0x0890 | 0x0891 | 0x180B..=0x180F | 0x200B..=0x200F | 0x2028..=0x202E
            | 0x2060..=0x206F | 0x2800 | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB
            | 0x110BD | 0x110CD | 0x13430..=0x1343F | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A
            | 0xE0000..=0xE0FFF)
}

fn check_name(text: &str, allowed: impl Fn(char) -> bool) -> Result<(), BadName> {
    let mut chars = 0;
    for c in text.chars() {
        chars += 1;
        if is_deceptive(c) || !allowed(c) {
            return Err(BadName::Character(c));
        }
    }
    match chars {
        0 => Err(BadName::Empty),
        1..=NAME_CHARS_MAX => Ok(()),
        _ => Err(BadName::TooLong),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name! {
    /// A user's shown name: 1 to 32 characters, single spaces inside, none that deceives.
    UserName
}
name! {
    /// A public room's name, as it stands in its address: 1 to 32 lower-case letters, digits, `-`, `_`.
    RoomName
}

impl UserName {
    /// Trims the ends and folds runs of white space to one space; refuses everything else that is not
    /// allowed.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
        check_name(&folded, |c| c == ' ' || !c.is_whitespace())?;
        Ok(Self(folded))
    }
}

impl RoomName {
    /// Lower-cases, and turns spaces and a leading `#` into what an address can hold.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let text = text.trim();
        let text = text.strip_prefix('#').unwrap_or(text).to_lowercase();
        let folded = text.split_whitespace().collect::<Vec<_>>().join("-");
        check_name(&folded, |c| c.is_alphanumeric() || c == '-' || c == '_')?;
        Ok(Self(folded))
    }
}

/// A name with the key under which it is unique: equal for names that a person could confuse.
#[cfg(feature = "names")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim<N> {
    pub name: N,
    /// Unicode skeleton (UTS #39 §4) of the case-folded NFKC form.
    pub skeleton: String,
}

#[cfg(feature = "names")]
mod claim {
    use unicode_normalization::UnicodeNormalization;
    use unicode_normalization::char::is_combining_mark;
    use unicode_security::MixedScript;
    use unicode_security::confusable_detection::skeleton;

    use super::{BadName, Claim, RoomName, UserName};

    /// Most combining marks that may follow each other: real orthographies need two, rarely three.
    const MARKS_MAX: usize = 3;

    fn key(text: &str) -> String {
        // Case first, skeleton, then case again: some skeletons are capitals (0 → O).
        let folded: String = text.nfkc().flat_map(char::to_lowercase).filter(|c| *c != ' ').collect();
        let lowered = skeleton_of(&folded).to_lowercase();
        skeleton_of(&lowered)
    }

    fn skeleton_of(text: &str) -> String {
        skeleton(text).collect()
    }

    fn check(text: &str) -> Result<(), BadName> {
        let mut marks = 0;
        for c in text.chars() {
            marks = if is_combining_mark(c) { marks + 1 } else { 0 };
            if marks > MARKS_MAX {
                return Err(BadName::Character(c));
            }
        }
        if text.is_single_script() { Ok(()) } else { Err(BadName::Scripts) }
    }

    impl UserName {
        /// The NFKC form of a name and its uniqueness key.
        ///
        /// # Errors
        /// As `parse`, and for mixed scripts, heaps of combining marks, and the server's own name.
        pub fn claim(text: &str) -> Result<Claim<UserName>, BadName> {
            let name = UserName::parse(&text.nfkc().collect::<String>())?;
            check(name.as_str())?;
            let skeleton = key(name.as_str());
            if ["magpie", "system", "server"].into_iter().any(|reserved| skeleton == key(reserved)) {
                return Err(BadName::Reserved);
            }
            Ok(Claim { name, skeleton })
        }

        /// What the key of a name begins with that begins with such a text.
        pub fn search_key(text: &str) -> String {
            key(&text.split_whitespace().collect::<String>())
        }
    }

    impl RoomName {
        /// The NFKC form of a name and its uniqueness key.
        ///
        /// # Errors
        /// As `parse`, and for mixed scripts and heaps of combining marks.
        pub fn claim(text: &str) -> Result<Claim<RoomName>, BadName> {
            let name = RoomName::parse(&text.nfkc().collect::<String>())?;
            check(name.as_str())?;
            let skeleton = key(name.as_str());
            Ok(Claim { name, skeleton })
        }
    }
}

/// Why a text is not a message body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBody {
    Empty,
    /// Over so many characters.
    TooLong(usize),
}

impl fmt::Display for BadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadBody::Empty => f.write_str("A message needs some text."),
            BadBody::TooLong(max) => write!(f, "A message has at most {max} characters."),
        }
    }
}

/// A message's text: at least one character that shows, lines end in `\n`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Body(String);

impl Body {
    /// Folds line ends to `\n` and shows other control characters as U+FFFD; the rest stays as it is.
    /// At most `max` characters; 0 is no limit.
    pub fn parse(text: &str, max: usize) -> Result<Self, BadBody> {
        // A character is at most four bytes: what cannot fit is not looked at.
        if max > 0 && text.len() > max.saturating_mul(4) {
            return Err(BadBody::TooLong(max));
        }
        let is_foreign = |c: char| c.is_control() && c != '\n' && c != '\t';
        let text = if text.chars().any(is_foreign) {
            text.replace("\r\n", "\n")
                .chars()
                .map(|c| if c == '\r' { '\n' } else { c })
                .map(|c| if is_foreign(c) { char::REPLACEMENT_CHARACTER } else { c })
                .collect()
        } else {
            text.to_owned()
        };
        if text.chars().all(|c| c.is_whitespace() || is_deceptive(c)) {
            return Err(BadBody::Empty);
        }
        if max > 0 && text.chars().count() > max {
            return Err(BadBody::TooLong(max));
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One line of text: a topic, a reason, the name of a token. May be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Line(String);

impl Line {
    /// Trims the ends, folds runs of white space to one space, leaves out what deceives, and cuts at
    /// `LINE_CHARS_MAX`.
    pub fn new(text: &str) -> Self {
        let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
        let folded = words.collect::<Vec<_>>().join(" ");
        let line: String = folded.chars().filter(|c| !is_deceptive(*c)).take(LINE_CHARS_MAX).collect();
        Self(line.trim().to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_hides_nothing() {
        assert_eq!(Line::new("  a\r\n b\u{202e}c\u{7} ").as_str(), "a bc");
        assert_eq!(Line::new(&"ö".repeat(300)).as_str().chars().count(), LINE_CHARS_MAX);
        assert_eq!(Line::new("\u{200b}"), Line::default());
    }

    #[test]
    fn ids_survive_the_wire() {
        for bits in [0, 1, 31, 32, u64::MAX >> 1, 0x0123_4567_89ab_cdef] {
            let id = RoomId::from_bits(bits);
            assert_eq!(id.to_string().len(), 13);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(serde_json::from_str::<RoomId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        }
        for bad in ["", "0", "00000000000000", "000000000000i", "8000000000000", "zzzzzzzzzzzzz", "\u{0}"] {
            assert_eq!(bad.parse::<UserId>(), Err(BadId), "{bad:?}");
        }
    }

    #[test]
    fn bodies_are_kept_as_they_are_within_the_limit() {
        let parse = |text: &str| Body::parse(text, 4_000);
        assert_eq!(parse("  a\tb \n").unwrap().as_str(), "  a\tb \n");
        assert_eq!(parse("a\r\nb\rc\u{0}").unwrap().as_str(), "a\nb\nc\u{fffd}");
        assert_eq!(parse(""), Err(BadBody::Empty));
        assert_eq!(parse(" \n\u{200b}"), Err(BadBody::Empty));
        assert!(parse(&"ö".repeat(4_000)).is_ok());
        assert!(parse(&"😀".repeat(4_000)).is_ok());
        assert_eq!(parse(&"ö".repeat(4_001)), Err(BadBody::TooLong(4_000)));
        assert!(Body::parse(&"ö".repeat(50_000), 0).is_ok());
    }

    #[test]
    fn names_refuse_what_deceives() {
        assert_eq!(UserName::parse("  Ada   Lovelace ").unwrap().as_str(), "Ada Lovelace");
        for (text, why) in [
            ("", BadName::Empty),
            ("   ", BadName::Empty),
            ("a\u{202e}b", BadName::Character('\u{202e}')),
            ("a\u{200b}", BadName::Character('\u{200b}')),
            ("a\u{7}", BadName::Character('\u{7}')),
            ("\u{3164}", BadName::Character('\u{3164}')),
        ] {
            assert_eq!(UserName::parse(text), Err(why), "{text:?}");
        }
        assert_eq!(UserName::parse(&"x".repeat(33)), Err(BadName::TooLong));
        assert_eq!(RoomName::parse("#Book Club").unwrap().as_str(), "book-club");
        assert_eq!(RoomName::parse("a/b"), Err(BadName::Character('/')));
    }

    #[cfg(feature = "names")]
    #[test]
    fn look_alikes_share_a_key() {
        let key = |text: &str| UserName::claim(text).unwrap().skeleton;
        assert_eq!(key("Ada"), key("ADA"));
        assert_eq!(key("Ada Lovelace"), key("adalovelace"));
        assert_eq!(key("Ａｄａ"), key("Ada"));
        assert_eq!(key("раураl".replace('l', "ӏ").as_str()), key("paypal"));
        assert_eq!(key("Bob"), key("B0b"));
        assert_ne!(key("Ada"), key("Bob"));
        assert_eq!(UserName::claim("Adа"), Err(BadName::Scripts));
        assert_eq!(UserName::claim("MAGPIE"), Err(BadName::Reserved));
        assert!(UserName::claim(&format!("a{}", "\u{301}\u{302}\u{303}\u{304}".repeat(5))).is_err());
        assert!(UserName::claim("Żółć").is_ok() && UserName::claim("たなかさん").is_ok());
    }
}
