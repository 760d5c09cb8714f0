//! What is shown when the program fails: never a dead page.
//!
//! After a panic nothing of ours may be called again, so the panel is made with plain DOM calls and its
//! button is a link, which needs no program.

use std::panic::PanicHookInfo;

use web_sys::{Document, Element};

/// Shows a panel with the reason when the program panics, and logs it.
pub fn install() {
    std::panic::set_hook(Box::new(|info| {
        console_error_panic_hook::hook(info);
        // A panic in here would hide the first one: what fails is left out.
        let _ = show(&reason(info));
    }));
}

fn reason(info: &PanicHookInfo<'_>) -> String {
    let what = info.payload_as_str().unwrap_or("unknown");
    match info.location() {
        Some(place) => [what, " (", place.file(), ":", &place.line().to_string(), ")"].concat(),
        None => what.to_owned(),
    }
}

fn show(reason: &str) -> Option<()> {
    let document = web_sys::window()?.document()?;
    let body = document.body()?;
    let shade = element(&document, "div", "panic", "")?;
    shade.set_attribute("role", "alertdialog").ok()?;
    shade.set_attribute("aria-label", "Magpie has stopped").ok()?;
    let panel = element(&document, "div", "panic-panel", "")?;
    let link = element(&document, "a", "button primary", "Reload")?;
    link.set_attribute("href", "").ok()?;
    for part in [
        element(&document, "h1", "", "Something went wrong")?,
        element(
            &document,
            "p",
            "",
            "Magpie met a fault of its own and has stopped. Unsent messages and drafts are kept; reload the page to go on.",
        )?,
        element(&document, "pre", "", reason)?,
        link,
    ] {
        panel.append_child(&part).ok()?;
    }
    shade.append_child(&panel).ok()?;
    body.append_child(&shade).ok()?;
    Some(())
}

fn element(document: &Document, tag: &str, class: &str, text: &str) -> Option<Element> {
    let element = document.create_element(tag).ok()?;
    element.set_class_name(class);
    element.set_text_content(Some(text));
    Some(element)
}
