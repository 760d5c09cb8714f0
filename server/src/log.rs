//! What the log looks like: text for people, JSON for collectors. One line is one thing that happened, whatever
//! peers put into names and headers.
//!
//! It must not know what is logged.

use std::fmt::{self, Write};

use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::{EnvFilter, Layer, registry};

/// A subscriber that writes lines to `writer`. `is_text`: for people, with colours if `has_colours`.
pub fn subscriber<W>(
    filter: EnvFilter,
    writer: W,
    is_text: bool,
    has_colours: bool,
) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    use tracing_subscriber::layer::SubscriberExt;
    let layer = tracing_subscriber::fmt::layer().with_target(false);
    let layer = if is_text {
        let fields = debug_fn(|writer: &mut Writer<'_>, field, value| match field.name() {
            "message" => write!(Escaped(writer), "{value:?}"),
            name => {
                write!(writer, "{name}=")?;
                write!(Escaped(writer), "{value:?}")
            }
        })
        .delimited(" ");
        layer.fmt_fields(fields).with_ansi(has_colours).with_writer(writer).boxed()
    } else {
        // What is no plain character JSON escapes by itself.
        layer.json().flatten_event(true).with_writer(writer).boxed()
    };
    registry().with(filter).with(layer)
}

/// Writes on without anything that ends a line or commands a terminal.
struct Escaped<'a, 'b>(&'a mut Writer<'b>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_harmful =
            |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
        let mut rest = text;
        while let Some(at) = rest.find(is_harmful) {
            let (plain, other) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut chars = other.chars();
            if let Some(c) = chars.next() {
                write!(self.0, "{}", c.escape_default())?;
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of an event with a hostile text everywhere where a text can be.
    fn logged(hostile: &str, is_text: bool) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(EnvFilter::new("info"), move || writer.clone(), is_text, false);
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other(hostile.to_owned());
            tracing::warn!(%error, shown = %hostile, quoted = ?hostile, value = hostile, "said {hostile}");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_text_makes_a_line_of_its_own_or_commands_a_terminal() {
        for hostile in [
            "x\n2026-01-01T00:00:00.000000Z  INFO root signed in",
            "x\r\n{\"level\":\"INFO\",\"message\":\"signed in\"}",
            "\u{1b}[2J\u{1b}[31mred\u{1b}]0;title\u{7}",
            "\u{9b}31m",
            "a\u{2028}b\u{202e}c\u{85}d\u{0}",
            "\",\"level\":\"ERROR",
        ] {
            let text = logged(hostile, true);
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            let is_plain = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{202e}');
            assert!(text.trim_end_matches('\n').chars().all(is_plain), "{text:?}");
            assert!(text.contains(" WARN said ") && text.contains(" error="), "{text}");

            let json = logged(hostile, false);
            assert_eq!(json.matches('\n').count(), 1, "{json}");
            let line: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!((&line["level"], &line["value"]), (&"WARN".into(), &hostile.into()), "{json}");
            assert!(!json.trim_end().contains(|c: char| c.is_ascii_control()), "{json:?}");
        }
    }
}
