//! Markdown as people write it in chats, parsed to a typed tree that a view turns into nodes.
//!
//! Ours, and small, because a first visit may transfer 200 KB: pulldown-cmark adds 64 KB to the compressed
//! client, this adds 13 KB at most. It is no CommonMark: one newline is a line break, `#` is text, HTML is
//! text. What is not markup stays as it was typed; nothing is an error.
//!
//! Messages come from anybody, so: time is linear in the text (each step looks ahead only over what it then
//! consumes, or a bounded number of times in all), nesting has a limit, and only http, https and mailto
//! become links. This file must not know HTML, Yew, rooms or people; `@name` is text here.

use crate::model::is_deceptive;

/// Quotes within quotes; deeper `>` are text.
pub const QUOTES_MAX: u8 = 4;
/// Lists within lists; deeper markers are text.
pub const LISTS_MAX: u8 = 2;
/// Longest link target, in bytes; what is longer stays text.
pub const URL_BYTES_MAX: usize = 2_048;
/// Longest name of a code block's language, in bytes; what is longer is its first line.
const LANGUAGE_BYTES_MAX: usize = 32;
/// Longest run of backticks that can fence a code span.
const TICKS_MAX: usize = 8;
/// Most digits of a numbered item, so that the number and the next one fit.
const DIGITS_MAX: usize = 9;

/// A part of a message that stands on lines of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    Paragraph(Vec<Inline>),
    /// Fenced code: lines joined by `\n`, without the last line's end.
    Code {
        language: Option<String>,
        text: String,
    },
    Quote(Vec<Block>),
    /// `start` is the number of the first item; `None` is a bulleted list. Numbers go up by one: a number
    /// out of order begins a list of its own, so that everybody reads the numbers that were typed.
    List {
        start: Option<u32>,
        items: Vec<Vec<Block>>,
    },
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Inline {
    Text(String),
    /// A line ends here.
    Break,
    Strong(Vec<Inline>),
    Emphasis(Vec<Inline>),
    Strike(Vec<Inline>),
    Code(String),
    /// `url` begins with `http://`, `https://` or `mailto:` (in any case) and holds no space or control
    /// character. There is no link in `text`, and no address other than `url`.
    Link {
        url: String,
        text: Vec<Inline>,
    },
}

/// Parses a message. Any text has a result.
pub fn parse(text: &str) -> Vec<Block> {
    let lines: Vec<&str> = text.lines().collect();
    blocks(&lines, 0, 0)
}

/// Parses lines that stand within so many quotes and lists.
fn blocks(lines: &[&str], quotes: u8, lists: u8) -> Vec<Block> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if is_blank(lines[at]) {
            at += 1;
            continue;
        }
        let (block, taken) = if let Some(fence) = Fence::at(lines, at) {
            code(&lines[at..], &fence)
        } else if quotes < QUOTES_MAX && quoted(lines[at]).is_some() {
            quote(&lines[at..], quotes, lists)
        } else if let Some(first) = Marker::of(lines[at]).filter(|_| lists < LISTS_MAX) {
            list(&lines[at..], first, quotes, lists)
        } else {
            paragraph(lines, at, quotes, lists)
        };
        found.push(block);
        at += taken;
    }
    found
}

/// Takes the first line, and the others up to a blank one or another block.
fn paragraph(lines: &[&str], at: usize, quotes: u8, lists: u8) -> (Block, usize) {
    let mut end = at + 1;
    while end < lines.len() && !is_blank(lines[end]) {
        let line = lines[end];
        let interrupts = Fence::at(lines, end).is_some()
            || (quotes < QUOTES_MAX && quoted(line).is_some())
            // A line of prose may begin with a number and a full stop by chance, but hardly with "1.".
            || (lists < LISTS_MAX && Marker::of(line).is_some_and(|marker| marker.number.is_none_or(|n| n == 1)));
        if interrupts {
            break;
        }
        end += 1;
    }
    let trimmed: Vec<&str> = lines[at..end].iter().map(|line| line.trim_end()).collect();
    (Block::Paragraph(inlines(&trimmed.join("\n"))), end - at)
}

/// The line that opens a code block.
struct Fence<'a> {
    indent: usize,
    ticks: usize,
    info: &'a str,
}

impl<'a> Fence<'a> {
    /// A fence that holds nothing stays text: somebody typed backticks.
    fn at(lines: &[&'a str], at: usize) -> Option<Self> {
        let fence = Self::of(lines[at])?;
        let next = lines.get(at + 1);
        let holds = match next {
            Some(next) => !fence.is_closed_by(next),
            None => !fence.info.is_empty() && fence.language().is_none(),
        };
        holds.then_some(fence)
    }

    fn of(line: &'a str) -> Option<Self> {
        let indent = indent(line);
        let rest = line.trim_start_matches(' ');
        let info = rest.trim_start_matches('`');
        let ticks = rest.len() - info.len();
        (indent < 4 && ticks >= 3 && !info.contains('`')).then(|| Self { indent, ticks, info: info.trim() })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        Fence::of(line).is_some_and(|end| end.ticks >= self.ticks && end.info.is_empty())
    }

    fn language(&self) -> Option<&'a str> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+#-._".contains(&byte);
        let fits = !self.info.is_empty() && self.info.len() <= LANGUAGE_BYTES_MAX;
        (fits && self.info.bytes().all(is_word)).then_some(self.info)
    }
}

/// Takes the lines up to the closing fence, or all: who forgets it wanted code all the same.
fn code(lines: &[&str], fence: &Fence) -> (Block, usize) {
    let language = fence.language();
    let mut text = Vec::new();
    if language.is_none() && !fence.info.is_empty() {
        text.push(fence.info);
    }
    let mut taken = 1;
    for line in &lines[1..] {
        taken += 1;
        if fence.is_closed_by(line) {
            break;
        }
        text.push(&line[indent(line).min(fence.indent)..]);
    }
    (Block::Code { language: language.map(str::to_owned), text: text.join("\n") }, taken)
}

/// What follows the quote sign: `> text`, `>> text` or `>` alone, but not `>:(` or `->`.
fn quoted(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('>')?;
    let after = rest.trim_start_matches('>');
    (after.is_empty() || after.starts_with(' ')).then(|| rest.strip_prefix(' ').unwrap_or(rest))
}

/// Takes all lines that begin with a quote sign.
fn quote(lines: &[&str], quotes: u8, lists: u8) -> (Block, usize) {
    let inner: Vec<&str> = lines.iter().map_while(|line| quoted(line)).collect();
    (Block::Quote(blocks(&inner, quotes + 1, lists)), inner.len())
}

/// The beginning of a list's item.
#[derive(Clone, Copy)]
struct Marker<'a> {
    indent: usize,
    /// `None` is a bullet.
    number: Option<u32>,
    /// Bytes before the item's text.
    width: usize,
    text: &'a str,
}

impl<'a> Marker<'a> {
    /// `- text`, `* text`, `+ text`, `1. text` or `1) text`. A marker without text is text.
    fn of(line: &'a str) -> Option<Self> {
        let indent = indent(line);
        let rest = &line[indent..];
        let (number, after) = match rest.as_bytes().first()? {
            b'-' | b'*' | b'+' => (None, &rest[1..]),
            b'0'..=b'9' => {
                let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                let digits = &rest[..rest.len() - after.len()];
                // "007." would be read as "7.".
                if digits.len() > DIGITS_MAX || (digits.len() > 1 && digits.starts_with('0')) {
                    return None;
                }
                (Some(digits.parse().ok()?), after.strip_prefix(['.', ')'])?)
            }
            _ => return None,
        };
        let text = after.strip_prefix(' ')?;
        let found = Self { indent, number, width: line.len() - text.len(), text };
        (indent < 4 && !is_blank(text)).then_some(found)
    }

    fn is_followed_by(&self, next: &Marker) -> bool {
        match (self.number, next.number) {
            (None, None) => true,
            (Some(this), Some(next)) => next == this + 1,
            _ => false,
        }
    }
}

/// Takes the items; what is indented by two or more belongs to the item above it.
fn list(lines: &[&str], first: Marker, quotes: u8, lists: u8) -> (Block, usize) {
    let mut items = Vec::new();
    let mut marker = first;
    let mut item = vec![first.text];
    let mut at = 1;
    loop {
        let blanks = lines[at..].iter().take_while(|line| is_blank(line)).count();
        let Some(line) = lines.get(at + blanks) else { break };
        let depth = indent(line);
        if depth >= marker.indent + 2 || line.starts_with('\t') {
            item.extend(std::iter::repeat_n("", blanks));
            item.push(line.strip_prefix('\t').unwrap_or(&line[depth.min(marker.width)..]));
        } else if let Some(next) = Marker::of(line).filter(|next| marker.is_followed_by(next)) {
            items.push(blocks(&item, quotes, lists + 1));
            item.clear();
            item.push(next.text);
            marker = next;
        } else {
            break;
        }
        at += blanks + 1;
    }
    items.push(blocks(&item, quotes, lists + 1));
    (Block::List { start: first.number, items }, at)
}

fn is_blank(line: &str) -> bool {
    line.trim_start().is_empty()
}

/// Spaces before the text.
fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// What a delimiter begins. Each kind is open at most once, which bounds nesting and keeps time linear: a
/// second opener takes the place of the first, which is text then.
#[derive(Clone, Copy, PartialEq)]
enum Span {
    /// `**`
    Strong,
    /// `*`
    Star,
    /// `_`
    Underscore,
    /// `~~`
    Strike,
    /// `[`
    Link,
}

impl Span {
    fn sign(self) -> &'static str {
        match self {
            Span::Strong => "**",
            Span::Star => "*",
            Span::Underscore => "_",
            Span::Strike => "~~",
            Span::Link => "[",
        }
    }
}

/// The state of reading one paragraph.
struct Reader<'a> {
    text: &'a str,
    /// Where the next piece begins, in bytes.
    at: usize,
    out: Vec<Inline>,
    /// What is open, outermost first, with the place of its sign in `out`, where it waits as text.
    open: Vec<(Span, usize)>,
    /// Runs of so many backticks are known not to come again: each is searched for in vain only once.
    ticks_gone: [bool; TICKS_MAX + 1],
}

fn inlines(text: &str) -> Vec<Inline> {
    let mut reader =
        Reader { text, at: 0, out: Vec::new(), open: Vec::new(), ticks_gone: [false; TICKS_MAX + 1] };
    while let Some(byte) = reader.rest().bytes().next() {
        match byte {
            b'\n' => {
                reader.out.push(Inline::Break);
                reader.at += 1;
            }
            b'\\' => reader.escape(),
            b'`' => reader.code(),
            b'*' | b'_' | b'~' => reader.delimiter(byte),
            b'[' => {
                reader.open(Span::Link);
                reader.at += 1;
            }
            b']' => reader.link(),
            b'h' | b'H' => reader.address(),
            _ => {
                let end = reader.rest().find(['\n', '\\', '`', '*', '_', '~', '[', ']', 'h', 'H']);
                reader.plain(end.unwrap_or(reader.rest().len()));
            }
        }
    }
    merged(reader.out)
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn before(&self) -> Option<char> {
        self.text[..self.at].chars().next_back()
    }

    /// Takes so many bytes as text.
    fn plain(&mut self, bytes: usize) {
        let piece = &self.rest()[..bytes];
        self.at += bytes;
        self.push(piece);
    }

    fn push(&mut self, piece: &str) {
        let waits = self.open.last().is_some_and(|(_, place)| place + 1 == self.out.len());
        match self.out.last_mut() {
            Some(Inline::Text(text)) if !waits => text.push_str(piece),
            _ => self.out.push(Inline::Text(piece.to_owned())),
        }
    }

    fn escape(&mut self) {
        let escapes = self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_punctuation);
        self.at += usize::from(escapes);
        self.plain(1);
    }

    fn code(&mut self) {
        let ticks = run(self.rest(), b'`');
        let Some(bytes) = self.code_length(ticks) else { return self.plain(ticks) };
        let text = self.rest()[ticks..ticks + bytes].replace('\n', " ");
        if is_blank(&text) {
            return self.plain(ticks);
        }
        // One space on both sides is there to set off a backtick.
        let inner = text.strip_prefix(' ').and_then(|text| text.strip_suffix(' ')).map(str::to_owned);
        let text = inner.unwrap_or(text);
        self.out.push(Inline::Code(text));
        self.at += ticks + bytes + ticks;
    }

    /// Bytes of a code span's text, up to a run of as many backticks as opened it.
    fn code_length(&mut self, ticks: usize) -> Option<usize> {
        if ticks > TICKS_MAX || self.ticks_gone[ticks] {
            return None;
        }
        let text = &self.rest()[ticks..];
        let mut at = 0;
        while let Some(found) = text[at..].find('`') {
            at += found;
            let length = run(&text[at..], b'`');
            if length == ticks {
                return Some(at);
            }
            at += length;
        }
        self.ticks_gone[ticks] = true;
        None
    }

    /// `*`, `**`, `***`, `_` and `~~`. Other runs are text, `__` too: `__init__` is a name.
    fn delimiter(&mut self, byte: u8) {
        let length = run(self.rest(), byte);
        let spans: &[Span] = match (byte, length) {
            (b'*', 1) => &[Span::Star],
            (b'*', 2) => &[Span::Strong],
            (b'*', 3) => &[Span::Strong, Span::Star],
            (b'_', 1) => &[Span::Underscore],
            (b'~', 2) => &[Span::Strike],
            _ => return self.plain(length),
        };
        let (before, after) = (self.before(), self.rest()[length..].chars().next());
        let is_text = |c: Option<char>| c.is_some_and(|c| !c.is_whitespace());
        let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        // Single signs within words are arithmetic and file names.
        let single = length == 1;
        let closes = is_text(before) && !(single && is_word(after));
        let opens = is_text(after) && !(single && is_word(before));

        let end = self.at + length;
        while self.at < end {
            let left = end - self.at;
            let fits = |span: Span| spans.contains(&span) && span.sign().len() <= left;
            let open = self.open.iter().rposition(|(span, _)| fits(*span)).filter(|_| closes);
            if let Some(index) = open {
                let (span, _) = self.open[index];
                let inner = self.take(index);
                self.out.push(match span {
                    Span::Strong => Inline::Strong(inner),
                    Span::Strike => Inline::Strike(inner),
                    _ => Inline::Emphasis(inner),
                });
                self.at += span.sign().len();
            } else if let Some(span) = spans.iter().find(|span| opens && fits(**span)) {
                self.open(*span);
                self.at += span.sign().len();
            } else {
                self.plain(left);
            }
        }
    }

    fn open(&mut self, span: Span) {
        self.open.retain(|(other, _)| *other != span);
        self.open.push((span, self.out.len()));
        self.out.push(Inline::Text(span.sign().to_owned()));
    }

    /// Ends the span and all that was opened within it, which stays text; takes the span's content out.
    fn take(&mut self, index: usize) -> Vec<Inline> {
        let (_, place) = self.open[index];
        self.open.truncate(index);
        merged(self.out.drain(place..).skip(1))
    }

    /// At `]`: makes a link if an address in parentheses follows.
    fn link(&mut self) {
        let Some(index) = self.open.iter().position(|(span, _)| *span == Span::Link) else {
            return self.plain(1);
        };
        let place = self.open[index].1;
        let target = self.rest()[1..].strip_prefix('(').and_then(target);
        // `[https://bank.example](https://thief.example)` would lie about where it goes.
        let honest = |url: &&str| !has_other_address(&self.out[place + 1..], url);
        match target.filter(|_| self.out.len() > place + 1).filter(honest) {
            Some(url) => {
                let mut text = self.take(index);
                unlink(&mut text);
                self.out.push(Inline::Link { url: url.to_owned(), text: merged(text) });
                self.at += "](".len() + url.len() + ")".len();
            }
            None => {
                // `remove` and not `truncate`: emphasis around and within a bracket goes on.
                self.open.remove(index);
                self.plain(1);
            }
        }
    }

    /// At an `h`: makes a link of a bare address.
    fn address(&mut self) {
        if self.before().is_some_and(char::is_alphanumeric) {
            return self.plain(1);
        }
        match address_length(self.rest()) {
            Some(length) if length <= URL_BYTES_MAX => {
                let url = &self.rest()[..length];
                self.out.push(Inline::Link { url: url.to_owned(), text: vec![Inline::Text(url.to_owned())] });
                self.at += length;
            }
            // All of it, or the addresses within would be searched again and again.
            Some(too_long) => self.plain(too_long),
            None => self.plain(1),
        }
    }
}

/// How often the byte stands at the beginning.
fn run(text: &str, byte: u8) -> usize {
    text.bytes().take_while(|other| *other == byte).count()
}

/// Joins neighbouring texts.
fn merged(inlines: impl IntoIterator<Item = Inline>) -> Vec<Inline> {
    let mut out: Vec<Inline> = Vec::new();
    for inline in inlines {
        match (out.last_mut(), inline) {
            (Some(Inline::Text(text)), Inline::Text(more)) => text.push_str(&more),
            (_, inline) => out.push(inline),
        }
    }
    out
}

/// Turns links into their text.
fn unlink(inlines: &mut [Inline]) {
    for inline in inlines {
        match inline {
            Inline::Link { url, .. } => *inline = Inline::Text(std::mem::take(url)),
            Inline::Strong(inner) | Inline::Emphasis(inner) | Inline::Strike(inner) => unlink(inner),
            Inline::Text(_) | Inline::Break | Inline::Code(_) => {}
        }
    }
}

fn has_other_address(inlines: &[Inline], expected: &str) -> bool {
    inlines.iter().any(|inline| match inline {
        Inline::Link { url, .. } => url != expected,
        Inline::Strong(inner) | Inline::Emphasis(inner) | Inline::Strike(inner) => {
            has_other_address(inner, expected)
        }
        Inline::Text(_) | Inline::Break | Inline::Code(_) => false,
    })
}

/// Bytes of the scheme and `://` of a web address, if a host can follow.
fn web_scheme(text: &str) -> Option<usize> {
    let length = ["http://", "https://"]
        .into_iter()
        .find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))?
        .len();
    // `[` begins an IPv6 address.
    text[length..].starts_with(|c: char| c.is_alphanumeric() || c == '[').then_some(length)
}

/// The target in `target)`, if it may be linked to.
fn target(text: &str) -> Option<&str> {
    let is_mail = text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("mailto:"));
    if !is_mail && web_scheme(text).is_none() {
        return None;
    }
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Some(&text[..at]).filter(|url| url.len() > "mailto:".len()),
            ')' => depth -= 1,
            // Another target begins: no search runs over it, so none is long in vain.
            ']' if text[at..].starts_with("](") => return None,
            _ => {}
        }
        if !is_url_char(c) || at >= URL_BYTES_MAX {
            return None;
        }
    }
    None
}

/// Bytes of the bare web address at the beginning: up to a space, a quote sign or a bracket that it did not
/// open, without the punctuation of the sentence around it.
fn address_length(text: &str) -> Option<usize> {
    let scheme = web_scheme(text)?;
    let (mut round, mut square) = (0, 0);
    let mut end = text.len();
    for (at, c) in text.char_indices().skip(scheme) {
        match c {
            '(' => round += 1,
            ')' => round -= 1,
            '[' => square += 1,
            ']' => square -= 1,
            _ => {}
        }
        let emphasis = matches!(c, '*' | '~') && text[at + 1..].starts_with(c);
        if round < 0 || square < 0 || emphasis || !is_url_char(c) {
            end = at;
            break;
        }
    }
    let url = text[..end].trim_end_matches(['.', ',', ':', ';', '!', '?', '\'', '*', '_', '~', '(', '[']);
    (url.len() > scheme).then_some(url.len())
}

/// Whether an address may hold it: no spaces, controls, quote signs, invisible characters that would change
/// how it reads, or punctuation of scripts that put no space after it.
fn is_url_char(c: char) -> bool {
    !(c.is_whitespace()
        || is_deceptive(c)
        || matches!(c, '<' | '>' | '"' | '`' | '\\' | '«' | '»' | '“' | '”' | '‘' | '’' | '…')
        || matches!(c, '、' | '。' | '〈'..='】' | '，' | '！' | '？' | '：' | '；' | '（' | '）'))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    /// The tree in short: `p(…)`, `b(…)`, `a<url>(…)`, and so on.
    fn show(blocks: &[Block]) -> String {
        let mut out = String::new();
        for block in blocks {
            match block {
                Block::Paragraph(inner) => write!(out, "p({})", show_inlines(inner)),
                Block::Code { language, text } => {
                    write!(
                        out,
                        "pre{}({text:?})",
                        language.as_deref().map(|l| format!(":{l}")).unwrap_or_default()
                    )
                }
                Block::Quote(inner) => write!(out, "quote({})", show(inner)),
                Block::List { start, items } => {
                    let items: String = items.iter().map(|item| format!("li({})", show(item))).collect();
                    write!(out, "{}({items})", start.map_or("ul".to_owned(), |n| format!("ol{n}")))
                }
            }
            .unwrap();
        }
        out
    }

    fn show_inlines(inlines: &[Inline]) -> String {
        let show = |inline: &Inline| match inline {
            Inline::Text(text) => text.clone(),
            Inline::Break => "/".to_owned(),
            Inline::Strong(inner) => format!("b({})", show_inlines(inner)),
            Inline::Emphasis(inner) => format!("i({})", show_inlines(inner)),
            Inline::Strike(inner) => format!("s({})", show_inlines(inner)),
            Inline::Code(text) => format!("code({text})"),
            Inline::Link { url, text } if *text == [Inline::Text(url.clone())] => format!("a({url})"),
            Inline::Link { url, text } => format!("a<{url}>({})", show_inlines(text)),
        };
        inlines.iter().map(show).collect()
    }

    #[track_caller]
    fn check(cases: &[(&str, &str)]) {
        for (text, expected) in cases {
            assert_eq!(show(&parse(text)), *expected, "of {text:?}");
        }
    }

    #[test]
    fn paragraphs_keep_line_breaks() {
        check(&[
            ("", ""),
            (" \n\t\n", ""),
            ("hello", "p(hello)"),
            ("a\nb", "p(a/b)"),
            ("a  \r\n  b", "p(a/  b)"),
            ("a\n\n\nb", "p(a)p(b)"),
            ("# no heading", "p(# no heading)"),
            ("---", "p(---)"),
            ("<b>no html</b> &amp;", "p(<b>no html</b> &amp;)"),
            ("@ada look", "p(@ada look)"),
        ]);
    }

    #[test]
    fn emphasis() {
        check(&[
            ("**a b**", "p(b(a b))"),
            ("*a b* _c_", "p(i(a b) i(c))"),
            ("~~a~~", "p(s(a))"),
            ("***a***", "p(b(i(a)))"),
            ("**a *b***", "p(b(a i(b)))"),
            ("*a **b***", "p(i(a b(b)))"),
            ("**a _b ~~c~~_**", "p(b(a i(b s(c))))"),
            ("**a\nb**", "p(b(a/b))"),
            ("das ist **wichtig**, ja", "p(das ist b(wichtig), ja)"),
            ("これは**重要**です", "p(これはb(重要)です)"),
            ("(*a*)", "p((i(a)))"),
        ]);
    }

    #[test]
    fn signs_that_are_no_emphasis_stay() {
        check(&[
            ("2 * 3 * 4", "p(2 * 3 * 4)"),
            ("2*3*4", "p(2*3*4)"),
            ("snake_case_name", "p(snake_case_name)"),
            ("_a_b_", "p(i(a_b))"),
            ("__init__", "p(__init__)"),
            ("**a", "p(**a)"),
            ("a**", "p(a**)"),
            ("** a **", "p(** a **)"),
            ("*a *b*", "p(*a i(b))"),
            ("*a **b* c**", "p(i(a **b) c**)"),
            ("****a****", "p(****a****)"),
            ("~a~ ~~~b~~~", "p(~a~ ~~~b~~~)"),
            (r"\*a\* \\ \a \_", r"p(*a* \ \a _)"),
            (r"\", r"p(\)"),
            (r"\> a", "p(> a)"),
            (r"1\. a", "p(1. a)"),
        ]);
    }

    #[test]
    fn code_spans() {
        check(&[
            ("`a *b*`", "p(code(a *b*))"),
            ("``a ` b``", "p(code(a ` b))"),
            ("`` ` ``", "p(code(`))"),
            ("` `", "p(` `)"),
            ("`a\nb`", "p(code(a b))"),
            ("`a", "p(`a)"),
            ("`a``", "p(`a``)"),
            (r"\`a`", "p(`a`)"),
            (r"`\`", r"p(code(\))"),
            ("**`a**`", "p(**code(a**))"),
            ("```a```", "p(code(a))"),
        ]);
    }

    #[test]
    fn code_blocks() {
        check(&[
            ("```\na\n\n  *b*\n```", r#"pre("a\n\n  *b*")"#),
            ("```rust\nfn a() {}\n```\nb", r#"pre:rust("fn a() {}")p(b)"#),
            ("a\n```\nb\n```", r#"p(a)pre("b")"#),
            ("```\na", r#"pre("a")"#),
            ("````\n```\n````", r#"pre("```")"#),
            ("  ```\n   a\n ```", r#"pre(" a")"#),
            ("```let a = 1;\nb\n```", r#"pre("let a = 1;\nb")"#),
            ("```", "p(```)"),
            ("```rust", "p(```rust)"),
            ("```\n```", "p(```/```)"),
        ]);
    }

    #[test]
    fn quotes() {
        check(&[
            ("> a\n> b\nc", "quote(p(a/b))p(c)"),
            ("a\n> b", "p(a)quote(p(b))"),
            (">\n> a", "quote(p(a))"),
            ("> a\n> > b", "quote(p(a)quote(p(b)))"),
            (">> a", "quote(quote(p(a)))"),
            ("> - a\n>   b", "quote(ul(li(p(a/b))))"),
            (">:(", "p(>:()"),
            (">_>", "p(>_>)"),
            ("a > b", "p(a > b)"),
            (">>>>> a", "quote(quote(quote(quote(p(> a)))))"),
        ]);
    }

    #[test]
    fn lists() {
        check(&[
            ("- a\n- b", "ul(li(p(a))li(p(b)))"),
            ("* a\n+ b", "ul(li(p(a))li(p(b)))"),
            ("1. a\n2. b", "ol1(li(p(a))li(p(b)))"),
            ("3) a\n4) b", "ol3(li(p(a))li(p(b)))"),
            ("1. a\n1. b\n7. c", "ol1(li(p(a)))ol1(li(p(b)))ol7(li(p(c)))"),
            ("- a\n  - b\n  - c\n- d", "ul(li(p(a)ul(li(p(b))li(p(c))))li(p(d)))"),
            ("1. a\n  - b\n2. c", "ol1(li(p(a)ul(li(p(b))))li(p(c)))"),
            ("- a\n\t- b", "ul(li(p(a)ul(li(p(b)))))"),
            ("- a\n  b\n\n  c\n\n- d\n\ne", "ul(li(p(a/b)p(c))li(p(d)))p(e)"),
            ("- a\n  ```\n  b\n    c\n  ```", r#"ul(li(p(a)pre("b\n  c")))"#),
            ("- - - - a", "ul(li(ul(li(p(- - a)))))"),
            ("buy:\n- milk\n1. bread", "p(buy:)ul(li(p(milk)))ol1(li(p(bread)))"),
            ("it was in\n1999. Or later", "p(it was in/1999. Or later)"),
            ("- **a**", "ul(li(p(b(a))))"),
            ("-", "p(-)"),
            ("- \n-a\n+1\n1.a", "p(-/-a/+1/1.a)"),
            ("*a* b", "p(i(a) b)"),
            ("007. a", "p(007. a)"),
            ("1234567890. a", "p(1234567890. a)"),
        ]);
    }

    #[test]
    fn links() {
        check(&[
            ("[a b](https://c.d/e)", "p(a<https://c.d/e>(a b))"),
            ("[a](HTTP://c.d) [b](mailto:x@y.z)", "p(a<HTTP://c.d>(a) a<mailto:x@y.z>(b))"),
            ("[**a**](https://c.d)", "p(a<https://c.d>(b(a)))"),
            ("**[a](https://c.d)**", "p(b(a<https://c.d>(a)))"),
            ("[a](https://c.d/e_(f))", "p(a<https://c.d/e_(f)>(a))"),
            ("[a [b](https://c.d)", "p([a a<https://c.d>(b))"),
            ("[*a](https://c.d)*", "p(a<https://c.d>(*a)*)"),
            ("[https://c.d](https://c.d)", "p(a(https://c.d))"),
            ("[`a`](https://c.d)", "p(a<https://c.d>(code(a)))"),
        ]);
    }

    #[test]
    fn only_three_schemes_become_links() {
        check(&[
            ("[a](javascript:alert(1))", "p([a](javascript:alert(1)))"),
            ("[a](data:text/html,b)", "p([a](data:text/html,b))"),
            ("[a](/b) [a](b) [a](//b.c)", "p([a](/b) [a](b) [a](//b.c))"),
            ("[a]( https://c.d)", "p([a]( a(https://c.d)))"),
            ("[a](java\nscript:b)", "p([a](java/script:b))"),
            ("[a](https://)", "p([a](https://))"),
            ("[a](mailto:)", "p([a](mailto:))"),
            ("[](https://c.d)", "p([](a(https://c.d)))"),
            ("[a](https://c.\u{202e}d)", "p([a](a(https://c).\u{202e}d))"),
            (
                "https://c.d/\u{3164}e https://c.d/\u{601}e",
                "p(a(https://c.d/)\u{3164}e a(https://c.d/)\u{601}e)",
            ),
            ("ftp://c.d file:///e", "p(ftp://c.d file:///e)"),
        ]);
    }

    #[test]
    fn a_link_does_not_lie_about_its_address() {
        check(&[(
            "[go to https://bank.example](https://thief.example)",
            "p([go to a(https://bank.example)](a(https://thief.example)))",
        )]);
    }

    #[test]
    fn bare_addresses() {
        check(&[
            ("see https://a.b/c?d=e#f.", "p(see a(https://a.b/c?d=e#f).)"),
            ("(https://a.b/c)", "p((a(https://a.b/c)))"),
            ("(https://a.b/c_(d))", "p((a(https://a.b/c_(d))))"),
            ("https://a.b/_c_/d*e", "p(a(https://a.b/_c_/d*e))"),
            ("**https://a.b** _https://a.b_", "p(b(a(https://a.b)) i(a(https://a.b)))"),
            ("**https://a.b**,c", "p(b(a(https://a.b)),c)"),
            ("<https://a.b>", "p(<a(https://a.b)>)"),
            ("\"https://a.b\", 'https://a.b'", "p(\"a(https://a.b)\", 'a(https://a.b)')"),
            ("https://a.b、https://c.d。", "p(a(https://a.b)、a(https://c.d)。)"),
            ("http://[::1]:80/", "p(a(http://[::1]:80/))"),
            ("Http://a.b!?", "p(a(Http://a.b)!?)"),
            ("https:// http://. xhttp://a", "p(https:// http://. xhttp://a)"),
            ("https://münchen.example/ü", "p(a(https://münchen.example/ü))"),
        ]);
        let long = format!("https://a.b/{}", "c".repeat(URL_BYTES_MAX));
        assert_eq!(parse(&long), [Block::Paragraph(vec![Inline::Text(long)])]);
    }

    #[test]
    fn time_is_linear() {
        const BYTES: usize = 64 * 1024;
        let parts = [
            "*",
            "**",
            "***",
            "_",
            "~~",
            "[",
            "]",
            "](",
            "[]",
            ">",
            "> ",
            "`",
            "```",
            "``` ",
            "\\",
            "(",
            "h",
            "-",
            " ",
            "\n",
            "1",
            "1. ",
            "- ",
            "*a ",
            "**a ",
            "a* ",
            "*a _b ",
            "_a*",
            "[a](",
            "[a](http://",
            "http://",
            "[a](http://b",
            "[a](http://b)",
            "[http://a](http://b)",
            "http://a-",
            "http://a(",
            "http://[",
            "http://.",
            "- a\n",
            "- a\n\n",
            "> - ",
            "  - a\n",
            "> a\n\n",
            "```\n",
            "```a\n```\n",
            "1. a\n\n\n",
            "`a``b```c",
            "\\``",
            "*a [b _c ~~d **e ",
            "\u{1f980}",
            "\t- a\n",
            ">\n",
            "> \n",
            "`\n",
        ];
        for part in parts {
            let text = part.repeat(BYTES / part.len());
            let start = Instant::now();
            let tree = parse(&text);
            // Without optimisation, on a busy machine; a quadratic step would take many seconds.
            assert!(start.elapsed() < Duration::from_secs(1), "{part:?} took {:?}", start.elapsed());
            assert!(depth(&tree) <= DEPTH_MAX, "{part:?}");
        }
    }

    /// Quotes, lists with their items' paragraphs, and each kind of span once.
    const DEPTH_MAX: usize = QUOTES_MAX as usize + LISTS_MAX as usize + 1 + 5 + 1;

    fn depth(blocks: &[Block]) -> usize {
        let of = |block: &Block| match block {
            Block::Paragraph(inner) => 1 + inline_depth(inner),
            Block::Code { .. } => 1,
            Block::Quote(inner) => 1 + depth(inner),
            Block::List { items, .. } => 1 + items.iter().map(|item| depth(item)).max().unwrap_or(0),
        };
        blocks.iter().map(of).max().unwrap_or(0)
    }

    fn inline_depth(inlines: &[Inline]) -> usize {
        let of = |inline: &Inline| match inline {
            Inline::Text(_) | Inline::Break | Inline::Code(_) => 1,
            Inline::Strong(inner) | Inline::Emphasis(inner) | Inline::Strike(inner) => {
                1 + inline_depth(inner)
            }
            Inline::Link { text, .. } => 1 + inline_depth(text),
        };
        inlines.iter().map(of).max().unwrap_or(0)
    }

    /// All that a reader can see or follow, in the order of the source.
    fn visible(blocks: &[Block]) -> String {
        let mut out = String::new();
        for block in blocks {
            match block {
                Block::Paragraph(inner) => out += &visible_inlines(inner),
                Block::Code { language, text } => out.extend([language.as_deref().unwrap_or_default(), text]),
                Block::Quote(inner) => out += &visible(inner),
                Block::List { start, items } => {
                    for (index, item) in (0..).zip(items) {
                        out.extend([start.map_or(String::new(), |n| (n + index).to_string()), visible(item)]);
                    }
                }
            }
        }
        out
    }

    fn visible_inlines(inlines: &[Inline]) -> String {
        let of = |inline: &Inline| match inline {
            Inline::Text(text) | Inline::Code(text) => text.clone(),
            Inline::Break => "\n".to_owned(),
            Inline::Strong(inner) | Inline::Emphasis(inner) | Inline::Strike(inner) => visible_inlines(inner),
            Inline::Link { url, text } if *text == [Inline::Text(url.clone())] => url.clone(),
            Inline::Link { url, text } => visible_inlines(text) + url,
        };
        inlines.iter().map(of).collect()
    }

    fn without_markup(text: &str) -> String {
        text.chars().filter(|c| !c.is_whitespace() && !"*_~`[]()\\>-+.".contains(*c)).collect()
    }

    /// Text that is thick with markup.
    fn messages() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-c0-9é。@ ]{1,3}",
            "\\PC",
            prop::sample::select(vec![
                "*",
                "**",
                "***",
                "_",
                "~~",
                "`",
                "``",
                "```",
                "[",
                "](",
                ")",
                "(",
                "> ",
                ">",
                "- ",
                "1. ",
                "2. ",
                "  ",
                "\\",
                "\n",
                "\n\n",
                "\n```",
                "\n> ",
                "\n- ",
                "\n  - ",
                "\n1. ",
                "http://",
                "https://a.b",
                "mailto:",
                "](https://c.d)",
                "\t",
                "\r\n",
                "\u{202e}",
                "\u{1f469}\u{200d}\u{1f680}",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn nothing_visible_is_lost_or_invented(text in messages()) {
            prop_assert_eq!(without_markup(&visible(&parse(&text))), without_markup(&text));
        }

        #[test]
        fn nesting_is_bounded(text in messages()) {
            prop_assert!(depth(&parse(&text)) <= DEPTH_MAX);
        }

        #[test]
        fn any_text_has_a_result(text in any::<String>()) {
            parse(&text);
        }
    }
}
