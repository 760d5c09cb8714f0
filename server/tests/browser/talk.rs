//! What people do with a chat every day.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::World;
use crate::page::Page;
use crate::program::Program;

/// The name that a person goes by.
pub async fn name(page: &Page) -> Result<String> {
    page.until("a name", "text('me-name')").await?;
    Ok(page.eval("text('me-name')").await?.as_str().unwrap_or_default().to_owned())
}

/// Both open the page for the first time and are in the lobby.
pub async fn enter(world: &World) -> Result<()> {
    tokio::try_join!(world.ada.enter("/"), world.ben.enter("/"))?;
    let (ada, ben) = (name(&world.ada).await?, name(&world.ben).await?);
    ensure!(ada != ben && !ada.is_empty(), "both are {ada:?}");
    Ok(())
}

/// Both go to another server, where nobody knows them.
pub async fn visit(world: &mut World, program: &Program) -> Result<()> {
    (world.ada.url, world.ben.url) = (program.url.clone(), program.url.clone());
    enter(world).await
}

/// Both come back to the server they use.
pub async fn come_home(world: &mut World) -> Result<()> {
    let home = &world.program.url;
    (world.ada.url, world.ben.url) = (home.clone(), home.clone());
    tokio::try_join!(world.ada.enter("/"), world.ben.enter("/")).map(drop)
}

pub async fn messages_go_both_ways(world: &World) -> Result<()> {
    let World { ada, ben, .. } = world;
    let (ada_name, ben_name) = (name(ada).await?, name(ben).await?);

    ada.say("Good morning").await?;
    ben.until_last("Good morning").await?;

    ben.type_into("[data-testid=composer]", "Morning, Ada!").await?;
    ada.until_is("the typing line", "text('typing')", [&ben_name, " is typing"].concat()).await?;
    ben.type_into("[data-testid=composer]", "\n").await?;
    ada.until_last("Morning, Ada!").await?;
    ada.until_is("the end of typing", "text('typing')", "").await?;

    // The first of a group has a heading, the next one has not.
    ada.say("One").await?;
    ada.say("Two").await?;
    ben.until_last("Two").await?;
    let heads =
        "$$('[data-testid=message]').slice(-3).map(row => row.querySelector('.by .name')?.innerText ?? null)";
    ben.until_is("the headings", heads, json!([ben_name, ada_name, null])).await?;

    // Shift+Enter is a new line.
    let keys =
        format!("first line{}\n{}second line\n", fantoccini::key::Key::Shift, fantoccini::key::Key::Null);
    ada.type_into("[data-testid=composer]", &keys).await?;
    ben.until_last("first line\nsecond line").await?;

    let mut names = [ada_name, ben_name];
    names.sort();
    for page in [ada, ben] {
        let present = "$$('[data-testid=member][data-presence=online] .member-name').map(name => name.innerText).sort()";
        page.until_is("the members", present, json!(names)).await?;
    }
    Ok(())
}

pub async fn a_tab_is_closed_and_opened_again(world: &World) -> Result<()> {
    let World { ada, ben, .. } = world;
    let before = name(ada).await?;
    let rows = ada.rows().await?;
    ada.type_into("[data-testid=composer]", "half a thou").await?;
    ada.close_tab().await?;
    ben.until_is("Ada to be gone", "$$('[data-testid=member][data-presence=online]').length", 1).await?;
    ada.enter("/").await?;
    ensure!(name(ada).await? == before, "{before} is now {}", name(ada).await?);
    ada.until_is("the draft", "id('composer').value", "half a thou").await?;
    let again = ada.rows().await?;
    ensure!(again == rows, "the history was {rows:#?} and is {again:#?}");
    ben.until_is("Ada to be back", "$$('[data-testid=member][data-presence=online]').length", 2).await?;
    // The draft goes on where it was left.
    ada.say("ght").await?;
    ben.until_last("half a thought").await
}

pub async fn rooms_and_direct_messages(world: &World) -> Result<()> {
    let World { ada, ben, .. } = world;
    let (ada_name, ben_name) = (name(ada).await?, name(ben).await?);

    ada.click("[data-testid=browse-rooms]").await?;
    ada.type_into("[data-testid=room-name-input]", "Book Club\n").await?;
    ada.until_is(
        "the new room",
        "[location.pathname, $('.header h1').innerText]",
        json!(["/r/book-club", "#book-club"]),
    )
    .await?;
    ada.until("the first line", &format!("rows()[0]?.text === '{ada_name} created the room'")).await?;

    ben.enter("/r/book-club").await?;
    ada.until("Ben to join", &format!("rows().at(-1).text === '{ben_name} joined'")).await?;
    ben.say("What do we read?").await?;
    ada.until_last("What do we read?").await?;

    // Unread badges rise and fall.
    ada.click_room("lobby").await?;
    ada.until_is("the address", "location.pathname", "/").await?;
    ada.say("Over here").await?;
    ben.until_is("a badge", "badge('lobby')", "1").await?;
    ada.say("And here").await?;
    ben.until_is("a badge", "[badge('lobby'), document.title.startsWith('(2) ')]", json!(["2", true]))
        .await?;
    ben.click_room("lobby").await?;
    ben.until_last("And here").await?;
    ben.until_is("no badge", "[badge('lobby'), document.title]", json!([null, "lobby · Magpie"])).await?;

    // A direct message in one click.
    let member = format!("button.member[title='Message {ada_name}']");
    ben.click(&member).await?;
    ben.until("the conversation", "location.pathname.startsWith('/d/') && $('.timeline')").await?;
    ben.say("Between us").await?;
    ada.until_is("a badge", &format!("badge('{ben_name}')"), "1").await?;
    ada.click_room(&ben_name).await?;
    ada.until_last("Between us").await?;
    ada.until_is("no badge", &format!("badge('{ben_name}')"), serde_json::Value::Null).await?;

    // Back and forward.
    let place = "[location.pathname, $('.header h1').innerText]";
    let direct = ada.path().await?;
    ada.client.back().await?;
    ada.until_is("the lobby", place, json!(["/", "#lobby"])).await?;
    ada.until_last("And here").await?;
    ada.client.back().await?;
    ada.until_is("the room", place, json!(["/r/book-club", "#book-club"])).await?;
    ada.client.forward().await?;
    ada.client.forward().await?;
    ada.until_is("the conversation", place, json!([direct, ben_name])).await?;
    ada.until_last("Between us").await?;
    for page in [ada, ben] {
        page.click_room("lobby").await?;
        page.until_is("the lobby", place, json!(["/", "#lobby"])).await?;
    }
    Ok(())
}

pub async fn a_name_is_changed(world: &World) -> Result<()> {
    for (page, other, new) in [(&world.ada, &world.ben, "Ada Lovelace"), (&world.ben, &world.ada, "Ben")] {
        let old = name(page).await?;
        page.click("button.me").await?;
        page.fill("[data-testid=rename] input", new).await?;
        page.click("[data-testid=rename] button").await?;
        page.until_is("the new name", "text('me-name')", new).await?;
        let line = format!("{old} is now called {new}");
        other.until_is("the line about it", "rows().at(-1).text", line).await?;
        let listed =
            format!("$$('[data-testid=member] .member-name').some(name => name.innerText === '{new}')");
        other.until("the name in the list", &listed).await?;
    }
    Ok(())
}

pub async fn announcements_stand_apart(world: &World) -> Result<()> {
    let World { program, ada, ben } = world;
    program.announce("Tea at <b>four</b>")?;
    for page in [ada, ben] {
        page.until_is(
            "the announcement",
            "$('[data-testid=announcement] p')?.innerText",
            "Tea at <b>four</b>",
        )
        .await?;
        page.until("no message of it", "!bodies().some(body => body.includes('Tea at'))").await?;
        page.click("[data-testid=announcement] button").await?;
        page.until("no announcement", "!id('announcement')").await?;
    }
    Ok(())
}
