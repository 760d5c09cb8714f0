//! Rooms that are not for everybody, and what is taken back.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::World;
use crate::accounts::{become_owner, press};
use crate::program::Program;
use crate::talk::{come_home, name, visit};

pub async fn a_private_room_is_for_its_members(world: &mut World) -> Result<()> {
    let program = Program::start(&[])?;
    visit(world, &program).await?;
    let World { ada, ben, .. } = world;
    become_owner(ada, &program, "Ada").await?;
    let ben_name = name(ben).await?;

    ada.click("[data-testid=browse-rooms]").await?;
    ada.type_into("[data-testid=room-name-input]", "den").await?;
    ada.click("[data-testid=private]").await?;
    ada.click("[data-testid=create-room]").await?;
    ada.until("the room", "location.pathname.startsWith('/p/') && $('.header h1')?.innerText === 'den'")
        .await?;
    ada.say("The treasure is under the oak").await?;
    ada.until_last("The treasure is under the oak").await?;
    let den = ada.path().await?;

    // To Ben it is not there, by its name and by its address.
    for path in [den.as_str(), "/r/den"] {
        ben.enter(path).await?;
        ben.until_is("the lobby", "location.pathname", "/").await?;
    }
    let knows = "document.body.innerText.includes('treasure') || !!room('den')";
    ensure!(ben.eval(knows).await? == json!(false), "Ben knows of the room");

    // Invited, he is in it at once.
    ada.open(&den.replace("/p/", "/settings/")).await?;
    ada.type_into("[data-testid=look] input", &[&ben_name, "\n"].concat()).await?;
    press(ada, "Invite").await?;
    ben.until("the room in the list", "room('den')").await?;
    ben.click_room("den").await?;
    ben.until_last("The treasure is under the oak").await?;
    ben.say("@Ada is it?").await?;
    ada.enter(&den).await?;
    ada.until("a message that stands out", "$$('.message.for-me').length === 1").await?;

    // What is deleted is gone for both.
    ada.click("[data-testid=message-actions]").await?;
    press(ada, "Delete…").await?;
    press(ada, "Delete").await?;
    for page in [&*ada, &*ben] {
        page.until_is("the place of the message", "bodies()[0]", "This message was deleted.").await?;
        page.until("no word of it", "!document.body.innerText.includes('treasure')").await?;
    }
    ben.enter(&den).await?;
    ben.until_is("the place of the message", "bodies()[0]", "This message was deleted.").await?;

    // Unread again, and it stays so while the room is in view.
    ben.click("[data-testid=message-actions]").await?;
    press(ben, "Mark unread from here").await?;
    ben.until("the line", "id('new-line')").await?;

    // Taken out, he knows nothing of it again.
    ada.click("[data-testid=about]").await?;
    press(ada, "Remove from #den").await?;
    ben.until_is("the lobby", "[location.pathname, !!room('den')]", json!(["/", false])).await?;
    ada.say("Now we are alone").await?;
    ada.until_last("Now we are alone").await?;
    ben.enter(&den).await?;
    ben.until_is("the lobby", "location.pathname", "/").await?;
    ensure!(ben.eval("document.body.innerText.includes('alone')").await? == json!(false), "Ben still hears");

    come_home(world).await
}
