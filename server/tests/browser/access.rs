//! The page without a mouse, and on a phone.

use anyhow::{Result, bail, ensure};
use fantoccini::key::Key;
use serde_json::json;

use crate::World;
use crate::page::Page;

/// Presses Tab until an element has the focus.
async fn tab_to(page: &Page, selector: &str) -> Result<()> {
    let mut path = Vec::new();
    for _ in 0..400 {
        if page.eval(&format!("document.activeElement.matches({})", json!(selector))).await? == json!(true) {
            return Ok(());
        }
        page.press(Key::Tab).await?;
        let label = "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText).slice(0, 40)";
        path.push(page.eval(label).await?.to_string());
        if path.len() > 60 {
            break;
        }
    }
    bail!("Tab never reaches {selector}; it goes to {}", path.join(", "))
}

pub async fn the_keyboard_is_enough(world: &World) -> Result<()> {
    let World { ada, ben, .. } = world;
    ada.enter("/").await?;
    ada.until_is("the focus in the composer", "document.activeElement === id('composer')", true).await?;

    // Rooms.
    tab_to(ada, "[data-room-name='book-club']").await?;
    ada.press(Key::Enter).await?;
    ada.until_is("the room", "location.pathname", "/r/book-club").await?;
    tab_to(ada, "[data-room-name=lobby]").await?;
    ada.press(Key::Enter).await?;
    ada.until_is("the lobby", "location.pathname", "/").await?;

    // The dialogs give the focus back.
    for (button, field) in [
        ("[data-testid=browse-rooms]", "[data-testid=room-name-input]"),
        ("button.me", "[data-testid=rename] input"),
    ] {
        tab_to(ada, button).await?;
        ada.press(Key::Enter).await?;
        ada.until("the focus in the dialog", &format!("document.activeElement.matches('{field}')")).await?;
        for _ in 0..6 {
            ada.press(Key::Tab).await?;
            let inside =
                "document.activeElement === document.body || !!document.activeElement.closest('dialog')";
            ada.until("the focus to stay inside", inside).await?;
        }
        ada.press(Key::Escape).await?;
        ada.until("no dialog", "!$('dialog')").await?;
        ada.until("the focus back", &format!("document.activeElement.matches('{button}')")).await?;
    }

    // What has the focus shows it.
    let ring = "getComputedStyle(document.activeElement).outlineStyle !== 'none' || getComputedStyle(document.activeElement).boxShadow !== 'none'";
    ada.until("a visible focus", ring).await?;

    tab_to(ada, "[data-testid=composer]").await?;
    ada.type_into("[data-testid=composer]", "Without a mouse\n").await?;
    ben.until_last("Without a mouse").await
}

pub async fn a_phone_is_enough(world: &World) -> Result<()> {
    let World { ada, ben, .. } = world;
    let screen = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
    ada.devtools("Emulation.setDeviceMetricsOverride", screen).await?;
    ada.devtools("Emulation.setTouchEmulationEnabled", json!({ "enabled": true })).await?;
    ada.enter("/").await?;
    fits(ada).await?;

    let shown = |selector: &str| {
        format!(
            "(box => box.left >= 0 && box.right <= innerWidth && box.width > 0)($('{selector}').getBoundingClientRect())"
        )
    };
    ada.until_is("the rooms out of the way", &shown("#rooms"), false).await?;
    ada.click(".header button.only-narrow").await?;
    ada.until("the drawer", &shown("#rooms")).await?;
    fits(ada).await?;
    ada.click_room("book-club").await?;
    ada.until_is(
        "the room",
        "[location.pathname, $('.header h1')?.innerText]",
        json!(["/r/book-club", "#book-club"]),
    )
    .await?;
    ada.until_is("the drawer to go", &shown("#rooms"), false).await?;

    // On a touch screen Enter is a new line and the button sends.
    ada.type_into("[data-testid=composer]", "From a\nphone").await?;
    ada.until_is("two lines", "id('composer').value", "From a\nphone").await?;
    ada.until(
        "the button in sight",
        "(box => box.bottom <= innerHeight && box.height >= 40)(id('send').getBoundingClientRect())",
    )
    .await?;
    ada.click("[data-testid=send]").await?;
    ada.until_last("From a\nphone").await?;
    ben.click_room("book-club").await?;
    ben.until_last("From a\nphone").await?;
    fits(ada).await?;

    ada.devtools("Emulation.clearDeviceMetricsOverride", json!({})).await?;
    ada.devtools("Emulation.setTouchEmulationEnabled", json!({ "enabled": false })).await
}

/// Nothing scrolls sideways.
async fn fits(page: &Page) -> Result<()> {
    let sizes = page.eval("[document.documentElement.scrollWidth, innerWidth]").await?;
    ensure!(
        sizes[0] == sizes[1] && sizes[1] == 390,
        "the page is {} wide on a screen of {}",
        sizes[0],
        sizes[1]
    );
    Ok(())
}
