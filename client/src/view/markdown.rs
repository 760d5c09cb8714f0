//! A message's text as nodes: the typed tree of `shared::markdown`, one node for each part.
//!
//! Nothing here makes HTML out of a string, so nothing that somebody types can become markup.

use shared::markdown::{Block, Inline, parse};
use yew::prelude::*;

/// A message's text.
pub fn body(text: &str) -> Html {
    parse(text).iter().map(block).collect()
}

fn blocks(blocks: &[Block]) -> Html {
    blocks.iter().map(block).collect()
}

fn block(block: &Block) -> Html {
    match block {
        Block::Paragraph(inner) => html! { <p>{ inlines(inner) }</p> },
        Block::Code { language, text } => html! {
            <pre tabindex="0" data-language={language.clone()}><code>{ text }</code></pre>
        },
        Block::Quote(inner) => html! { <blockquote>{ blocks(inner) }</blockquote> },
        Block::List { start: None, items } => {
            html! { <ul>{ for items.iter().map(|item| list_item(item)) }</ul> }
        }
        Block::List { start: Some(start), items } => html! {
            <ol start={start.to_string()}>{ for items.iter().map(|item| list_item(item)) }</ol>
        },
    }
}

fn list_item(item: &[Block]) -> Html {
    html! { <li>{ blocks(item) }</li> }
}

fn inlines(inner: &[Inline]) -> Html {
    inner.iter().map(inline).collect()
}

fn inline(inline: &Inline) -> Html {
    match inline {
        Inline::Text(text) => html! { { text } },
        Inline::Break => html! { <br /> },
        Inline::Strong(inner) => html! { <strong>{ inlines(inner) }</strong> },
        Inline::Emphasis(inner) => html! { <em>{ inlines(inner) }</em> },
        Inline::Strike(inner) => html! { <del>{ inlines(inner) }</del> },
        Inline::Code(text) => html! { <code>{ text }</code> },
        // The address in the title: a link's text may say something else.
        Inline::Link { url, text } => html! {
            <a href={url.clone()} title={url.clone()} target="_blank" rel="noopener noreferrer">{ inlines(text) }</a>
        },
    }
}
