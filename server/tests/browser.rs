//! The page in real browsers against the built program: what a person sees, types and gets.
//!
//! One test, since starting two browsers is what takes time: Ada and Ben each have one, and the scenarios run
//! in turn on them. A failure names its scenario and shows what both see. Without `CHROMEDRIVER` and
//! `CHROMIUM` in the environment it is skipped; `cargo xtask test` sets them. `MAGPIE_TEST_SCENARIO` picks
//! scenarios by a part of their names, for those that need nothing of the ones before.

#[path = "browser/access.rs"]
mod access;
#[path = "browser/accounts.rs"]
mod accounts;
#[path = "browser/history.rs"]
mod history;
#[path = "browser/hostile.rs"]
mod hostile;
#[path = "browser/outage.rs"]
mod outage;
#[path = "browser/page.rs"]
mod page;
#[path = "browser/program.rs"]
mod program;
#[path = "browser/rooms.rs"]
mod rooms;
#[path = "browser/sockets.rs"]
mod sockets;
#[path = "browser/talk.rs"]
mod talk;
#[path = "browser/tls.rs"]
mod tls;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::page::{Driver, Page};
use crate::program::Program;

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Two people and the server they use.
struct World {
    program: Program,
    ada: Page,
    ben: Page,
}

#[tokio::test]
async fn two_people_in_browsers() {
    let (Ok(chromedriver), Ok(chromium)) = (std::env::var("CHROMEDRIVER"), std::env::var("CHROMIUM")) else {
        println!("skipped: CHROMEDRIVER and CHROMIUM are not set");
        return;
    };
    if let Err(error) = run(&chromedriver, &chromium).await {
        panic!("{error:#}");
    }
}

async fn run(chromedriver: &str, chromium: &str) -> Result<()> {
    let program = Program::start(&[])?;
    let driver = Driver::start(chromedriver, chromium)?;
    let (ada, ben) =
        tokio::try_join!(driver.browser("Ada", &program.url), driver.browser("Ben", &program.url))?;
    let mut world = World { program, ada, ben };
    let result = tokio::time::timeout(LIMIT, scenarios(&mut world)).await;
    let result = result.unwrap_or_else(|_| Err(anyhow!("not done after {} s", LIMIT.as_secs())));
    if result.is_err() {
        println!("{}\n{}", world.ada.describe().await, world.ben.describe().await);
    }
    // In any case, since browsers outlive their driver.
    let closed = (world.ada.client.close().await, world.ben.client.close().await);
    result?;
    closed.0?;
    Ok(closed.1?)
}

async fn scenarios(world: &mut World) -> Result<()> {
    let only = std::env::var("MAGPIE_TEST_SCENARIO").ok();
    macro_rules! run {
        ($($module:ident::$scenario:ident),* $(,)?) => {
            $(
                let name = concat!(stringify!($module), "::", stringify!($scenario));
                if only.as_ref().is_none_or(|only| name.contains(only.as_str())) {
                    let start = Instant::now();
                    $module::$scenario(world).await.with_context(|| format!("scenario {name} failed"))?;
                    // Only there the server was killed.
                    let killed = stringify!($module) == "outage";
                    for page in [&mut world.ada, &mut world.ben] {
                        page.read_console(killed).await?;
                        page.check_console().with_context(|| format!("scenario {name}"))?;
                    }
                    println!("{name}: {} ms", start.elapsed().as_millis());
                }
            )*
        };
    }
    talk::enter(world).await.context("entering")?;
    run!(
        talk::messages_go_both_ways,
        talk::a_tab_is_closed_and_opened_again,
        talk::rooms_and_direct_messages,
        talk::a_name_is_changed,
        talk::announcements_stand_apart,
        outage::the_server_is_killed_in_a_burst,
        outage::what_is_sent_offline_arrives_once,
        outage::a_tab_closed_offline_loses_nothing,
        sockets::the_lab_shows_a_socket,
        sockets::six_lines_of_script_chat,
        history::history_loads_without_moving_the_view,
        history::reading_stops_and_goes_on,
        access::the_keyboard_is_enough,
        access::a_phone_is_enough,
        tls::people_chat_over_tls,
        // Last, since their servers are others of the same host, and take the cookies.
        accounts::an_account_is_kept,
        rooms::a_private_room_is_for_its_members,
        hostile::script_is_text,
        hostile::script_in_pages_and_lists_is_text,
    );
    Ok(())
}
