//! What somebody uses, in a few words that they recognise: from the `User-Agent` of their request. Pure.
//!
//! Nothing of the header is repeated but a product's plain name.

use shared::model::Line;

/// Browsers by what only they say, the more particular first: most say that they are Safari and Chrome, too.
const BROWSERS: [(&str, &str); 10] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Vivaldi/", "Vivaldi"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("HeadlessChrome/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
];
/// Systems by what they say. Android is a Linux, an iPad says that it is like Mac OS X.
const SYSTEMS: [(&str, &str); 8] = [
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Macintosh", "Mac"),
    ("Mac OS X", "Mac"),
    ("Linux", "Linux"),
];
/// Longest name of a program, in bytes.
const PRODUCT_BYTES_MAX: usize = 24;
/// What is looked at of a header, in bytes.
const LOOK_BYTES: usize = 512;

/// A short description of a `User-Agent`; empty if it says nothing.
pub fn describe(user_agent: &str) -> Line {
    let end = (0..=LOOK_BYTES.min(user_agent.len())).rev().find(|end| user_agent.is_char_boundary(*end));
    let text = &user_agent[..end.unwrap_or(0)];
    let known = |table: &[(&str, &'static str)]| {
        table.iter().find(|(mark, _)| text.contains(mark)).map(|(_, name)| *name)
    };
    let browser = text.starts_with("Mozilla/").then(|| known(&BROWSERS)).flatten();
    Line::new(&match (browser, known(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        // Another program: its first word, up to the version.
        (None, _) => product(text).to_owned(),
    })
}

/// The name of the first product (RFC 9110 §10.1.5), if it is as plain as names of programs are.
fn product(text: &str) -> &str {
    let name = text.split(['/', ' ']).next().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.len() <= PRODUCT_BYTES_MAX && name.bytes().all(is_plain) { name } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_in_a_few_words() {
        for (user_agent, words) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/140.0.0.0 Safari/537.36",
                "Chrome on Windows",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/140.0.0.0 Safari/537.36 Edg/140.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
                 Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/140.0.0.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 15.5; rv:140.0) Firefox/140.0", "Firefox on Mac"),
            ("curl/8.5.0", "curl"),
            ("Python-urllib/3.11", "Python-urllib"),
            ("Mozilla/5.0", "Mozilla"),
            ("", ""),
        ] {
            assert_eq!(describe(user_agent).as_str(), words, "{user_agent}");
        }
    }

    #[test]
    fn nothing_strange_is_repeated() {
        for user_agent in [
            "<script>alert(1)</script>",
            "\u{1b}[31mred",
            "x\r\nSet-Cookie: a=b",
            "ö",
            "a{}",
            &"a".repeat(9_000),
        ] {
            let words = describe(user_agent);
            let is_plain = words.as_str().chars().all(|c| c.is_ascii_alphanumeric());
            assert!(is_plain && words.as_str().len() <= PRODUCT_BYTES_MAX, "{words:?}");
        }
    }
}
