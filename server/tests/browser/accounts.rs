//! Who one is: accounts are kept, signed out of and in to; links let people in.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::World;
use crate::page::Page;
use crate::program::Program;
use crate::talk::{come_home, visit};

const PASSWORD: &str = "correct horse battery";

/// Presses the last button that says this, once it is there.
pub async fn press(page: &Page, label: &str) -> Result<()> {
    let button = format!("$$('button').filter(button => button.innerText === {}).at(-1)", json!(label));
    page.until(label, &format!("(button => button && (button.click(), true))({button})")).await
}

/// Goes to the address of a link.
pub async fn follow(page: &Page, link: &str) -> Result<()> {
    let (_, path) =
        link.split_once("://").and_then(|(_, rest)| rest.split_once('/')).context("no address")?;
    page.open(&["/", path].concat()).await
}

/// Somebody keeps their account under a name, and runs the server from then on.
pub async fn become_owner(page: &Page, program: &Program, name: &str) -> Result<()> {
    follow(page, &program.owner_link()?).await?;
    page.fill("[data-testid=owner] input[name=username]", name).await?;
    page.type_into("[data-testid=owner] input[type=password]", &[PASSWORD, "\n"].concat()).await?;
    page.until("the lobby", "location.pathname === '/'").await?;
    page.until_online().await?;
    page.until_is("the name", "text('me-name')", name).await
}

pub async fn an_account_is_kept(world: &mut World) -> Result<()> {
    let program = Program::start(&[])?;
    visit(world, &program).await?;
    let World { ada, ben, .. } = world;
    become_owner(ada, &program, "Ada").await?;
    ada.say("I was here").await?;
    ben.until_last("I was here").await?;

    // Signed out, the page is the one to sign in, and Ada is the same as before afterwards.
    ada.enter("/").await?;
    ada.click("button.me").await?;
    press(ada, "Settings").await?;
    ada.until("this session", "text('sessions')?.includes('This one')").await?;
    press(ada, "Sign out").await?;
    ada.until_is("the page", "location.pathname", "/sign-in").await?;
    ada.fill("[data-testid=sign-in] input[name=username]", "ada").await?;
    ada.type_into("[data-testid=sign-in] input[type=password]", &[PASSWORD, "\n"].concat()).await?;
    ada.until("the lobby", "location.pathname === '/'").await?;
    ada.until_online().await?;
    ada.until_is("the same name", "text('me-name')", "Ada").await?;
    let own = "id('message') && $$('[data-testid=message]').at(-1).dataset.own";
    ada.until_is("the own message", own, "true").await?;

    // A link lets Ben in, who keeps what he is.
    ada.open("/admin").await?;
    ada.type_into("[data-testid=links] input", "For Ben").await?;
    press(ada, "Make an invitation").await?;
    ada.until("the link", "id('secret')?.value").await?;
    let link = ada.eval("id('secret').value").await?;
    follow(ben, link.as_str().unwrap_or_default()).await?;
    ben.fill("[data-testid=join] input[name=username]", "Ben").await?;
    ben.type_into("[data-testid=join] input[type=password]", &[PASSWORD, "\n"].concat()).await?;
    ben.until("the lobby", "location.pathname === '/'").await?;
    ben.until_online().await?;
    ben.until_is("the name", "text('me-name')", "Ben").await?;

    // It worked once.
    follow(ben, link.as_str().unwrap_or_default()).await?;
    ben.until("the reason", "text('problem') && !id('join')").await?;
    ben.read_console(false).await?;
    let told = ben.take_console();
    ensure!(told.iter().all(|line| line.contains("/api/link")), "the console says {told:?}");

    come_home(world).await
}
