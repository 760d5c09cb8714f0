//! `@` in the composer: which name is being typed, who it could be, and the text with the name in its place.
//! Pure; places in a text are counted in UTF-16 units, as the browser counts them.

/// Most names that are offered.
pub const OFFERED_MAX: usize = 6;

/// The name that is being typed before the caret: where its `@` stands (in bytes), and what follows it.
pub fn typed(text: &str, caret: usize) -> Option<(usize, &str)> {
    let before = &text[..byte_of(text, caret)];
    let at = before.rfind('@')?;
    let name = &before[at + 1..];
    let is_start = !before[..at].ends_with(|c: char| c.is_alphanumeric() || c == '@');
    (is_start && !name.contains(char::is_whitespace)).then_some((at, name))
}

/// The names that begin so, or have a word that does: those first that begin so.
pub fn offered<'a>(names: impl Iterator<Item = &'a str> + Clone, typed: &str) -> Vec<&'a str> {
    let typed = typed.to_lowercase();
    let begins = |name: &&str| name.to_lowercase().starts_with(&typed);
    let goes_on = |name: &&str| name.to_lowercase().split(' ').skip(1).any(|word| word.starts_with(&typed));
    let first = names.clone().filter(begins);
    let others = names.filter(|name| !begins(name) && goes_on(name));
    let offered: Vec<&str> = first.chain(others).take(OFFERED_MAX).collect();
    match offered[..] {
        // It is there in full: Enter is to send it.
        [name] if name.to_lowercase() == typed => Vec::new(),
        _ => offered,
    }
}

/// The text with a name in place of what was typed, and where the caret goes then.
pub fn complete(text: &str, caret: usize, name: &str) -> (String, usize) {
    let end = byte_of(text, caret);
    let at = typed(text, caret).map_or(end, |(at, _)| at);
    let head = [&text[..at], "@", name, " "].concat();
    let caret = head.encode_utf16().count();
    (head + text[end..].trim_start_matches(' '), caret)
}

fn byte_of(text: &str, units: usize) -> usize {
    let mut left = units;
    for (byte, c) in text.char_indices() {
        if left == 0 {
            return byte;
        }
        left = left.saturating_sub(c.len_utf16());
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_typed_after_an_at_that_begins_a_word() {
        for (text, caret, name) in [
            ("@", 1, Some("")),
            ("hello @ad", 9, Some("ad")),
            ("hello @ad, you", 9, Some("ad")),
            ("(@ad", 4, Some("ad")),
            ("😀 @ad", 6, Some("ad")),
            ("hello @ad you", 13, None),
            ("ada@example", 11, None),
            ("hello", 5, None),
            ("@ad", 0, None),
        ] {
            assert_eq!(typed(text, caret).map(|(_, name)| name), name, "{text:?} at {caret}");
        }
    }

    #[test]
    fn names_are_offered_by_their_beginning_and_by_their_words() {
        let names = ["Bo Adams", "Ada", "Cid", "adam", "room"];
        assert_eq!(offered(names.into_iter(), "ad"), ["Ada", "adam", "Bo Adams"]);
        assert_eq!(offered(names.into_iter(), "").len(), 5);
        assert_eq!(offered(names.into_iter(), "Roo"), ["room"]);
        assert!(offered(names.into_iter(), "Room").is_empty(), "there is nothing left to offer");
        assert_eq!(offered(["a"; 20].into_iter(), "A").len(), OFFERED_MAX);
    }

    #[test]
    fn a_taken_name_stands_in_place_of_what_was_typed() {
        assert_eq!(complete("hello @ad", 9, "Ada L"), ("hello @Ada L ".to_owned(), 13));
        assert_eq!(complete("😀 @ad you", 6, "Ada"), ("😀 @Ada you".to_owned(), 8));
    }
}
