//! A server that speaks TLS with a certificate of its own making.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::World;
use crate::program::Program;
use crate::talk::{come_home, visit};

/// Both go to another server, and back again at the end.
pub async fn people_chat_over_tls(world: &mut World) -> Result<()> {
    let program = Program::start(&["--tls-self-signed"])?;
    visit(world, &program).await?;
    let World { ada, ben, .. } = world;
    ada.until_is("a safe page", "[location.protocol, isSecureContext]", json!(["https:", true])).await?;

    ada.say("Nobody listens here").await?;
    ben.until_last("Nobody listens here").await?;
    ben.say("Are you sure?").await?;
    ada.until_last("Are you sure?").await?;

    let cookie = ada.client.get_named_cookie("__Host-magpie_session").await.context("the session cookie")?;
    ensure!(cookie.secure() == Some(true) && cookie.http_only() == Some(true), "{cookie:?}");
    // The cookie is what makes them the same person.
    let who = ada.eval("text('me-name')").await?;
    ada.enter("/").await?;
    ada.until_is("the same name", "text('me-name')", who).await?;

    come_home(world).await
}
