//! Long conversations: reading back, coming back, and where reading stopped.

use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::World;

const MESSAGES: usize = 250;

/// Messages in the lobby, from somebody who speaks the plain protocol.
fn flood(address: &str) -> Result<()> {
    let stream = TcpStream::connect(address)?;
    let (mut socket, _): (WebSocket<TcpStream>, _) =
        tungstenite::client(format!("ws://{address}/ws"), stream)?;
    for n in 1..=MESSAGES {
        socket.send(Message::text(format!("line {n} {}", "of a long story ".repeat(n % 23))))?;
        // Its own words come back: it is never far ahead of the server.
        socket.read()?;
    }
    Ok(socket.close(None)?)
}

pub async fn history_loads_without_moving_the_view(world: &World) -> Result<()> {
    let World { program, ada, .. } = world;
    let first = ada.rows().await?.first().and_then(|row| row.seq).context("an empty conversation")?;
    let address = program.address().to_owned();
    tokio::task::spawn_blocking(move || flood(&address)).await??;
    let last = format!("bodies().at(-1)?.startsWith('line {MESSAGES} ')");
    ada.until("the last line", &last).await?;

    ada.until_is("all of it read", "badge('lobby')", Value::Null).await?;

    // After a reload only the newest page is there.
    ada.enter("/").await?;
    ada.until("the last line", &last).await?;
    let loaded = ada.rows().await?.len();
    ensure!(loaded <= 100, "{loaded} rows at once");
    ada.until("the newest in sight", AT_BOTTOM).await?;
    let mut pages = 0;
    while ada.eval("!!$('.timeline-note.older')").await? == json!(true) {
        // Near the top older rows are asked for. From there on the place of one row is noted in each frame.
        let watch = "(() => {
            const view = $('.timeline');
            const first = $('.timeline [data-seq]').dataset.seq;
            view.scrollTop = 500;
            const top = view.getBoundingClientRect().top;
            const row = $$('.timeline [data-seq]').find(row => row.getBoundingClientRect().bottom > top + 10);
            const place = () => row.isConnected ? row.getBoundingClientRect().bottom : NaN;
            const start = place();
            window.moved = 0;
            window.frames_seen = 0;
            window.more = false;
            let after = 0;
            const look = () => {
                window.frames_seen += 1;
                window.moved = Math.max(window.moved, Math.abs(place() - start));
                after += $('.timeline [data-seq]').dataset.seq !== first;
                // A few frames more, for what comes late.
                if (after < 5) requestAnimationFrame(look); else window.more = true;
            };
            requestAnimationFrame(look);
            return start;
        })()";
        ada.eval(watch).await?;
        ada.until("older rows", "window.more").await?;
        let moved = ada.eval("window.moved").await?.as_f64().context("the row is gone")?;
        ensure!(moved <= 1.5, "the view moved by {moved} pixels");
        pages += 1;
        ensure!(pages < 20, "history has no end");
    }
    ensure!(pages >= 2, "all came in {pages} pages");
    let seqs: Vec<u64> = ada.rows().await?.iter().filter_map(|row| row.seq).collect();
    ensure!(seqs.first().is_some_and(|seq| *seq <= first), "it begins with {:?}, not {first}", seqs.first());
    ensure!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "holes in {seqs:?}");

    ada.click("[data-testid=jump]").await?;
    ada.until("the newest in sight", &format!("{last} && {AT_BOTTOM} && !id('jump')")).await
}

const AT_BOTTOM: &str =
    "($('.timeline').scrollHeight - $('.timeline').scrollTop - $('.timeline').clientHeight < 2)";

pub async fn reading_stops_and_goes_on(world: &World) -> Result<()> {
    let World { ada, ben, .. } = world;
    // Somebody who reads back is told of what comes, and stays where they are.
    for page in [ada, ben] {
        page.until("the newest in sight", AT_BOTTOM).await?;
    }
    ada.eval("$('.timeline').scrollTop = 2000").await?;
    ada.until("a button to the newest", "id('jump')").await?;
    let place = ada.eval("$('.timeline').scrollTop").await?;
    ben.say("Are you still there?").await?;
    ada.until_is("the count", "[text('jump')?.trim(), badge('lobby')]", json!(["1 new", "1"])).await?;
    ada.until_is("the same place", "$('.timeline').scrollTop", place).await?;
    ada.click("[data-testid=jump]").await?;
    ada.until_last("Are you still there?").await?;
    ada.until_is("no count", "[id('jump'), badge('lobby')]", json!([null, null])).await?;

    // Whoever comes back finds a line where reading stopped.
    ada.click_room("book-club").await?;
    ada.until_is("the room", "location.pathname", "/r/book-club").await?;
    for text in ["While", "you were", "away"] {
        ben.say(text).await?;
    }
    ada.until_is("a badge", "badge('lobby')", "3").await?;
    ada.click_room("lobby").await?;
    ada.until_last("away").await?;
    let after_line = "$$('.new-line ~ [data-testid=message]').map(row => row.querySelector('[data-testid=message-body]').innerText)";
    ada.until_is("the line", after_line, json!(["While", "you were", "away"])).await?;
    ada.until_is("no badge", "badge('lobby')", Value::Null).await?;
    // What was read stays read.
    ada.enter("/").await?;
    ada.until_last("away").await?;
    ada.until_is("nothing new", "[id('new-line'), badge('lobby')]", json!([null, null])).await
}
