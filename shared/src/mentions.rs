//! What in a message may mention somebody: `@name`, `@room`, `@here`.
//!
//! Names may hold spaces, so an `@` offers several: the longest first. Which of them is somebody's is for
//! whoever knows the people. Code and links mention nobody, nor does an `@` within a word, as in an address.
//! This file must not know people or rooms.

use crate::markdown::{self, Block, Inline};
use crate::model::NAME_CHARS_MAX;

/// Mentions looked at in one message; what comes after them is text.
pub const MENTIONS_MAX: usize = 20;
/// Words of a name that is mentioned.
pub const WORDS_MAX: usize = 6;

/// What was found in a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub mentions: Vec<Mention>,
    /// `@room` or `@here`.
    pub all: bool,
}

/// One `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// The names that it may mean, the longest first.
    pub names: Vec<String>,
}

/// Stands in a text for code or a link: no name goes over it.
const OBJECT: char = '\u{fffc}';

/// Finds the mentions in a message.
pub fn find(body: &str) -> Found {
    let mut found = Found::default();
    if body.contains('@') {
        search(&markdown::parse(body), &mut found);
    }
    found
}

fn search(blocks: &[Block], found: &mut Found) {
    for block in blocks {
        match block {
            Block::Paragraph(inlines) => {
                let mut text = String::new();
                flatten(inlines, &mut text);
                scan(&text, found);
            }
            Block::Code { .. } => {}
            Block::Quote(blocks) => search(blocks, found),
            Block::List { items, .. } => items.iter().for_each(|item| search(item, found)),
        }
    }
}

fn flatten(inlines: &[Inline], text: &mut String) {
    for inline in inlines {
        match inline {
            Inline::Text(piece) => text.push_str(piece),
            Inline::Break => text.push('\n'),
            Inline::Strong(inner) | Inline::Emphasis(inner) | Inline::Strike(inner) => flatten(inner, text),
            Inline::Code(_) | Inline::Link { .. } => text.push(OBJECT),
        }
    }
}

fn scan(text: &str, found: &mut Found) {
    for (at, _) in text.match_indices('@') {
        let is_within_a_word =
            text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '@'));
        if is_within_a_word {
            continue;
        }
        let names = names(&text[at + 1..]);
        match names.last().map(String::as_str) {
            Some("room" | "here") => found.all = true,
            Some(_) if found.mentions.len() < MENTIONS_MAX => found.mentions.push(Mention { names }),
            _ => {}
        }
    }
}

/// The names that a text may begin with, the longest first. What ends a sentence may end a name, too: each
/// is offered with and without it.
fn names(text: &str) -> Vec<String> {
    // A sign or two may follow the longest name.
    let end = text
        .char_indices()
        .enumerate()
        .find(|(place, (_, c))| *place > NAME_CHARS_MAX + 1 || matches!(c, '\n' | '@' | &OBJECT))
        .map_or(text.len(), |(_, (at, _))| at);
    let text = &text[..end];
    let mut names: Vec<String> = Vec::new();
    let mut length = 0;
    for (place, word) in text.split(' ').take(WORDS_MAX).enumerate() {
        if word.is_empty() {
            break;
        }
        length += word.len() + usize::from(place > 0);
        let name = &text[..length];
        let trimmed = name.trim_end_matches(|c: char| !c.is_alphanumeric());
        for name in [trimmed, name] {
            let is_new = names.last().is_none_or(|last| last.len() < name.len());
            if is_new && !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX {
                names.push(name.to_owned());
            }
        }
    }
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(body: &str) -> Vec<Vec<String>> {
        find(body).mentions.into_iter().map(|mention| mention.names).collect()
    }

    #[test]
    fn a_name_is_offered_the_longest_first() {
        assert_eq!(
            names("hi @Ada Lovelace, hi"),
            [["Ada Lovelace, hi", "Ada Lovelace,", "Ada Lovelace", "Ada"]]
        );
        assert_eq!(names("(@ada)"), [["ada)", "ada"]]);
        assert_eq!(names("@Bob.\nand @Eve"), [vec!["Bob.", "Bob"], vec!["Eve"]]);
        assert_eq!(names("@a  b"), [["a"]]);
        assert_eq!(names("@a b c d e f g")[0][0], "a b c d e f");
        assert_eq!(names("**@Ada** _@Eve_"), [vec!["Ada"], vec!["Eve"]]);
        assert_eq!(names("@たなかさん、"), [["たなかさん、", "たなかさん"]]);
    }

    #[test]
    fn names_have_a_length() {
        let long = "ö".repeat(NAME_CHARS_MAX);
        assert_eq!(names(&format!("@{long}, hello")), [[long.clone()]]);
        assert_eq!(names(&format!("@{long}ö")), Vec::<Vec<String>>::new());
        assert_eq!(names(&format!("@a {long}")), [["a"]]);
    }

    #[test]
    fn what_is_no_mention() {
        for body in [
            "ada@example.org",
            "@",
            "@ x",
            "`@ada`",
            "```\n@ada\n```",
            "a_@ada",
            "@@ada",
            "https://example.org/@ada",
            "[@ada](https://example.org)",
        ] {
            let found = find(body);
            assert_eq!(found, Found::default(), "{body:?}");
        }
    }

    #[test]
    fn everyone() {
        for body in ["@room", "hello @here!", "> @room, look"] {
            assert!(find(body).all, "{body:?}");
        }
        for body in ["@rooms", "room", "`@room`", "@roomy", "x@room"] {
            assert!(!find(body).all, "{body:?}");
        }
    }

    #[test]
    fn mentions_are_bounded() {
        assert_eq!(find(&"@ada ".repeat(1_000)).mentions.len(), MENTIONS_MAX);
    }
}
