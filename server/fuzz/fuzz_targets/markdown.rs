//! Any text as Markdown: nothing visible is lost or invented, nesting is bounded, and a link leads only where
//! a link may lead.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::markdown::{Block, Inline, LISTS_MAX, QUOTES_MAX, URL_BYTES_MAX, parse};

/// Quotes, lists with their items' paragraphs, and each kind of span once.
const DEPTH_MAX: usize = QUOTES_MAX as usize + LISTS_MAX as usize + 1 + 5 + 1;

fuzz_target!(|text: &str| {
    let mut shown = String::new();
    let mut nodes = 0;
    blocks(&parse(text), 1, &mut nodes, &mut shown);
    let (shown, typed) = (letters(&shown), letters(text));
    // `[URL](URL)` is shown once: then some of what was typed is not there, and still nothing else is.
    let mut rest = typed.chars();
    assert!(shown.chars().all(|c| rest.any(|other| other == c)), "{shown:?} of {typed:?}");
    assert!(shown == typed || text.contains("]("), "{shown:?} of {typed:?}");
    assert!(nodes <= 2 * text.chars().count() + 2, "{nodes} nodes of {} bytes", text.len());
});

/// What markup is not made of.
fn letters(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !"*_~`[]()\\>-+.".contains(*c)).collect()
}

fn blocks(found: &[Block], depth: usize, nodes: &mut usize, shown: &mut String) {
    for block in found {
        *nodes += 1;
        match block {
            Block::Paragraph(inner) => inlines(inner, depth, false, nodes, shown),
            Block::Code { language, text } => shown.extend([language.as_deref().unwrap_or_default(), text]),
            Block::Quote(inner) => blocks(inner, depth + 1, nodes, shown),
            Block::List { start, items } => {
                for (index, item) in (0..).zip(items) {
                    shown.push_str(&start.map_or(String::new(), |start| (start + index).to_string()));
                    blocks(item, depth + 1, nodes, shown);
                }
            }
        }
    }
}

fn inlines(found: &[Inline], depth: usize, in_link: bool, nodes: &mut usize, shown: &mut String) {
    assert!(depth <= DEPTH_MAX, "{depth} deep");
    for inline in found {
        *nodes += 1;
        match inline {
            Inline::Text(text) | Inline::Code(text) => shown.push_str(text),
            Inline::Break => shown.push('\n'),
            Inline::Strong(inner) | Inline::Emphasis(inner) | Inline::Strike(inner) => {
                inlines(inner, depth + 1, in_link, nodes, shown);
            }
            Inline::Link { url, text } => {
                check(url);
                assert!(!in_link, "a link within a link");
                inlines(text, depth + 1, true, nodes, shown);
                if *text != [Inline::Text(url.clone())] {
                    shown.push_str(url);
                }
            }
        }
    }
}

fn check(url: &str) {
    let lower = url.to_ascii_lowercase();
    assert!(["http://", "https://", "mailto:"].iter().any(|scheme| lower.starts_with(scheme)), "{url:?}");
    assert!(url.len() <= URL_BYTES_MAX);
    assert!(!url.chars().any(|c| c.is_whitespace() || c.is_control()), "{url:?}");
    assert!(!url.chars().any(shared::model::is_deceptive), "{url:?}");
}
