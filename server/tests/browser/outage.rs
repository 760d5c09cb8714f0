//! The server dies, and nobody loses or repeats a word.

use anyhow::{Result, ensure};
use fantoccini::key::Key;

use crate::World;
use crate::page::{Page, Row};

const BANNER: &str = "/Reconnecting\\s+in \\d+ s/.test(text('banner') ?? '')";

pub async fn the_server_is_killed_in_a_burst(world: &mut World) -> Result<()> {
    let World { program, ada, ben } = world;
    let (ada, ben) = (&*ada, &*ben);
    ada.say("Here it comes").await?;
    ben.until_last("Here it comes").await?;
    let start = ada.newest().await?;

    let burst: Vec<String> = (1..=40).map(|n| format!("burst {n}")).collect();
    let typed = |part: &[String]| part.iter().map(|text| [text, "\n"].concat()).collect::<String>();
    let (first, second) = burst.split_at(30);
    let kill = async {
        ben.until("a part of the burst", "bodies().includes('burst 5')").await?;
        program.kill()
    };
    // The server dies somewhere in the first part, or at its end; Ada goes on typing while it is gone.
    let typed_first = typed(first);
    tokio::try_join!(ada.type_into("[data-testid=composer]", &typed_first), kill)?;
    ada.type_into("[data-testid=composer]", &typed(second)).await?;
    let before = ada.rows().await?;
    let confirmed: Vec<&Row> = before.iter().filter(|row| row.seq.is_some_and(|seq| seq > start)).collect();
    ensure!((1..=30).contains(&confirmed.len()), "{} of the burst were confirmed", confirmed.len());
    for page in [ada, ben] {
        page.until("the banner with its countdown", BANNER).await?;
    }

    program.start_again()?;
    for page in [ada, ben] {
        page.until_last("burst 40").await?;
        page.until("no banner", "!id('banner')").await?;
    }
    let (at_ada, at_ben) = (since(ada, start).await?, since(ben, start).await?);
    ensure!(at_ada == at_ben, "Ada has {at_ada:#?}, Ben has {at_ben:#?}");
    let texts: Vec<&String> = at_ada.iter().map(|row| &row.text).collect();
    ensure!(texts == burst.iter().collect::<Vec<_>>(), "not each once and in order: {texts:#?}");
    let seqs: Vec<Option<u64>> = at_ada.iter().map(|row| row.seq).collect();
    ensure!(seqs == (start + 1..=start + 40).map(Some).collect::<Vec<_>>(), "holes in {seqs:?}");
    ensure!(
        confirmed.iter().all(|row| at_ada.contains(row)),
        "what was confirmed has changed: {confirmed:#?}"
    );
    Ok(())
}

pub async fn what_is_sent_offline_arrives_once(world: &mut World) -> Result<()> {
    let World { program, ada, ben } = world;
    let start = ada.newest().await?;
    program.kill()?;
    ada.until("the banner", "id('banner')").await?;
    ada.say("Can you hear me?").await?;
    ada.say("No?").await?;
    let states = "$$('[data-testid=message]').slice(-2).map(row => [row.dataset.state, row.querySelector('[data-testid=message-body]').innerText])";
    ada.until_is(
        "pending messages",
        states,
        serde_json::json!([["pending", "Can you hear me?"], ["pending", "No?"]]),
    )
    .await?;
    ada.until("a button to hurry", "id('try-now')").await?;
    program.start_again()?;
    try_now(ada).await?;
    try_now(ben).await?;
    arrived_once(ada, ben, start, &["Can you hear me?", "No?"]).await
}

pub async fn a_tab_closed_offline_loses_nothing(world: &mut World) -> Result<()> {
    let World { program, ada, ben } = world;
    let start = ada.newest().await?;
    program.kill()?;
    ada.until("the banner", "id('banner')").await?;
    ada.say("I have to go").await?;
    ada.until_is("a pending message", "$$('[data-state=pending]').length", 1).await?;
    ada.close_tab().await?;
    program.start_again()?;
    try_now(ben).await?;
    ada.enter("/").await?;
    arrived_once(ada, ben, start, &["I have to go"]).await
}

/// Presses the button in the banner, if it is still there.
async fn try_now(page: &Page) -> Result<()> {
    page.eval("id('try-now')?.click()").await?;
    page.until("no banner", "!id('banner')").await
}

/// Waits for messages, and for one more, so that a second copy would have come before it.
async fn arrived_once(ada: &Page, ben: &Page, start: u64, texts: &[&str]) -> Result<()> {
    ben.until_last(texts.last().copied().unwrap_or_default()).await?;
    ada.type_into("[data-testid=composer]", &format!("There{}", Key::Enter)).await?;
    for page in [ada, ben] {
        page.until_last("There").await?;
        let rows = since(page, start).await?;
        let got: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
        ensure!(got[..] == [texts, &["There"]].concat()[..], "{} has {got:#?}", page.who);
    }
    Ok(())
}

/// The rows after a `seq`, and those that are not confirmed.
async fn since(page: &Page, seq: u64) -> Result<Vec<Row>> {
    let mut rows = page.rows().await?;
    rows.retain(|row| row.seq.is_none_or(|own| own > seq));
    Ok(rows)
}
