//! What a hostile person types is text to everybody else.

use anyhow::{Context, Result, ensure};

use crate::World;
use crate::talk::name;

/// Each would call `alert`, which stops a browser under test, or change the title, if any of it ran.
const PAYLOADS: [&str; 14] = [
    "<img src=x onerror=\"document.title='pwned'\">",
    "\"><svg onload=document.title='pwned'>",
    "<script>document.title='pwned'</script>",
    "</textarea><script>alert(1)</script>",
    "<iframe srcdoc=\"<script>parent.document.title='pwned'</script>\"></iframe>",
    "<a href=\"javascript:document.title='pwned'\">click me</a>",
    "[click me](javascript:document.title='pwned')",
    "[click me]( JaVaScRiPt:alert(1))",
    "[click me](data:text/html,<script>alert(1)</script>)",
    "![x](x\" onerror=\"alert(1))",
    "https://example.org/\"onmouseover=\"document.title='pwned'",
    "<https://example.org/><script>alert(1)</script>",
    "`<b onclick=alert(1)>` {{constructor.constructor('alert(1)')()}}",
    "<style>@import 'https://example.org/x.css'</style><base href=https://example.org/>",
];

/// What must never stand in the conversation, whatever was typed.
const FOREIGN: &str = "$$('.timeline img, .timeline script, .timeline iframe, .timeline style, .timeline svg:not(.icon), \
     .timeline base, [onerror], [onload], [onclick], [onmouseover]').length \
     + $$('.timeline a').filter(link => !['http:', 'https:', 'mailto:'].includes(link.protocol) \
     || link.target !== '_blank' || !link.rel.includes('noopener')).length";

pub async fn script_is_text(world: &World) -> Result<()> {
    let World { ada, ben, .. } = world;
    for payload in PAYLOADS {
        ada.say(payload).await?;
    }
    for page in [ada, ben] {
        // The last has no markup of ours in it, so it shows as it was typed.
        page.until_last(PAYLOADS[PAYLOADS.len() - 1]).await?;
        let shown = page.eval(&format!("bodies().slice(-{})", PAYLOADS.len())).await?;
        for (payload, shown) in PAYLOADS.iter().zip(shown.as_array().context("texts")?) {
            let shown = shown.as_str().unwrap_or_default();
            // Code and images lose their marks; everything between stays.
            let probe = payload.split(['`', '[', ']', '(', ')', '!']).max_by_key(|part| part.len());
            ensure!(shown.contains(probe.unwrap_or(payload)), "{} sees {shown:?} for {payload:?}", page.who);
        }
        page.until_is("no foreign elements", FOREIGN, 0).await?;
    }

    let old = name(ada).await?;
    let new = "<img src=x onerror=alert(1)>";
    ada.click("button.me").await?;
    ada.fill("[data-testid=rename-input]", new).await?;
    ada.click("[data-testid=rename-save]").await?;
    ada.until_is("the new name", "text('me-name')", new).await?;
    ben.until_is("the line about it", "rows().at(-1).text", format!("{old} is now called {new}")).await?;
    ada.say("My name is a trap").await?;
    ben.until_last("My name is a trap").await?;
    ben.until_is("the name", "$$('.by .name').at(-1).innerText", new).await?;
    ben.until_is("no foreign elements", "$$('img, iframe, [onerror]').length", 0).await?;

    // A room's name holds no such thing: the dialog says so, the address leads to the lobby.
    ada.click("[data-testid=browse-rooms]").await?;
    ada.type_into("[data-testid=room-name-input]", "<svg onload=alert(1)>\n").await?;
    ada.until("the reason", "$('#room-name-note.bad')?.innerText").await?;
    ada.press(fantoccini::key::Key::Escape).await?;
    ada.until("no dialog", "!$('dialog')").await?;
    ben.enter("/r/%3Cimg%20src=x%20onerror=alert(1)%3E").await?;
    ben.until_is("the lobby", "$('.header h1').innerText", "#lobby").await?;

    for page in [ada, ben] {
        page.until("an untouched title", "!document.title.includes('pwned')").await?;
    }
    Ok(())
}
