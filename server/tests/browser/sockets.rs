//! Sockets seen from close by: the lab, and a page of six lines.

use anyhow::Result;
use serde_json::json;

use crate::World;
use crate::talk::name;

pub async fn the_lab_shows_a_socket(world: &World) -> Result<()> {
    let ada = &world.ada;
    ada.click(".lab-link").await?;
    ada.until_is("the lab", "[location.pathname, $('.lab h1')?.innerText]", json!(["/lab", "Lab"])).await?;
    ada.click("[data-testid=lab-start]").await?;
    ada.until("an open socket", "/\\bopen\\b/.test(text('lab-facts') ?? '') && !id('lab-send').disabled")
        .await?;

    ada.fill("[data-testid=lab-input]", "Is anybody there?").await?;
    ada.click("[data-testid=lab-send]").await?;
    let frame = |source: &str| format!("$('.lab-frame.{source} .lab-text')?.innerText");
    ada.until_is("what was sent", &frame("sent"), "Is anybody there?").await?;
    ada.until_is("the echo", &frame("echo"), "Is anybody there?").await?;
    ada.until("a server event", &frame("server")).await?;

    ada.fill("[data-testid=lab-code]", "4001").await?;
    ada.fill("[data-testid=lab-reason]", "enough").await?;
    ada.click("[data-testid=lab-close]").await?;
    ada.until_is("what was sent", &frame("sent"), "4001 “enough”").await?;
    ada.until("the close", "/Close\\s+4001 .*, clean/.test(text('lab-facts'))").await?;

    ada.click("[data-testid=lab-compare]").await?;
    let delays =
        "$$('.lab-way .lab-delay dd').filter(delay => /^[0-9.]+ (ms|s)$/.test(delay.innerText)).length";
    ada.until_is("four results", delays, 4).await?;
    ada.client.back().await?;
    ada.until_is("the lobby", "$('.header h1')?.innerText", "#lobby").await
}

/// The page is the server's own, without the client: `/healthz` is a text.
pub async fn six_lines_of_script_chat(world: &World) -> Result<()> {
    let World { ada, ben, .. } = world;
    let who = name(ada).await?;
    ada.open("/healthz").await?;
    let six_lines = "
        const socket = new WebSocket(`ws://${location.host}/ws`);
        socket.onopen = () => socket.send('Hello from six lines');
        socket.onmessage = event => {
            const { sender, message } = JSON.parse(event.data);
            document.body.append(`\\n${sender}: ${message}`);
        };";
    ada.client.execute(six_lines, Vec::new()).await?;
    ben.until_last("Hello from six lines").await?;
    ben.until_is("the author", "$$('.by .name').at(-1)?.innerText", who.clone()).await?;
    ada.until("its own words", &format!("document.body.innerText.includes('{who}: Hello from six lines')"))
        .await?;
    ben.say("You need no more").await?;
    ada.until("the answer", "document.body.innerText.includes('Ben: You need no more')").await?;
    ada.enter("/").await
}
