//! What a hostile person types is text to everybody else, wherever it is shown.

#[path = "hostile/payloads.rs"]
mod payloads;

use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tungstenite::{Message, WebSocket};

use self::payloads::PAYLOADS;
use crate::World;
use crate::accounts::become_owner;
use crate::page::Page;
use crate::program::Program;
use crate::talk::{come_home, visit};

/// How many are said before both look: a page holds only so many rows.
const PART: usize = 100;
/// How many of the payloads go through the page's own composer.
const TYPED: usize = 5;
/// How many names one stranger tries.
const NAMES_OF_ONE: usize = 12;

/// Names of people that the server takes: to it they are text like any other. Its limit is 32 characters.
const NAMES: [&str; 8] = [
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<script>alert(1)</script>",
    "\"><b onclick=alert(1)>",
    "' autofocus onfocus='alert(1)",
    "[x](javascript:alert(1))",
    "{{constructor.constructor}}",
    "__proto__",
];

/// Names of rooms that are words of script, and nothing else.
const ROOMS: [&str; 6] = ["__proto__", "constructor", "javascript", "onerror", "hasownproperty", "null"];

/// Remembers what script would do if it ran, and how many elements there are that could do harm.
const PROBE: &str = "(() => {
    for (const name of ['alert', 'confirm', 'prompt', 'open', 'print']) {
        window[name] = () => { window.__pwned = name; };
    }
    document.addEventListener('securitypolicyviolation', event => {
        window.__pwned = `${event.effectiveDirective} ${event.blockedURI}`;
    });
    performance.setResourceTimingBufferSize(2000);
    return true;
})()";

/// Elements that load, run or redirect. The page has some of its own; a conversation adds none.
const ACTIVE: &str = "$$('script, iframe, frame, object, embed, applet, base, form, meta, link, style, template, noscript, \
     math, video, audio, img, picture, dialog, textarea, input, select').length";

/// What must never stand in the conversation, whatever was typed: other elements or attributes than those of
/// Markdown, handlers anywhere, links that lead elsewhere than they say or take this page along.
const FOREIGN: &str = "[
    ...$$('[data-testid=message-body] *').filter(element =>
        element.namespaceURI !== 'http://www.w3.org/1999/xhtml'
        || !['p', 'br', 'strong', 'em', 'del', 'code', 'pre', 'blockquote', 'ul', 'ol', 'li', 'a']
            .includes(element.localName)
        || [...element.attributes].some(attribute =>
            !['href', 'title', 'target', 'rel', 'start', 'tabindex', 'data-language']
                .includes(attribute.name))),
    ...$$('*').filter(element => [...element.attributes].some(({ name, value }) =>
        name.startsWith('on') || /^\\s*(javascript|data|vbscript):.*(pwned|alert)/i.test(value)
            && name !== 'title' && name !== 'data-room-name' && name !== 'aria-label')),
    ...$$('[data-testid=message-body] a').filter(link =>
        !['http:', 'https:', 'mailto:'].includes(link.protocol)
        || link.target !== '_blank' || link.rel !== 'noopener noreferrer'),
].map(element => element.outerHTML)";

/// What would have changed if any of it had run or loaded.
const TRACES: &str = "[
    window.__pwned ?? null,
    document.title.includes('pwned'),
    performance.getEntriesByType('resource').map(entry => entry.name)
        .filter(name => new URL(name).origin !== location.origin),
    document.cookie,
]";

/// Everything that a reader of each row can see or follow.
const SHOWN: &str = "$$('[data-testid=message-body]').map(body => [
    body.textContent,
    ...[...body.querySelectorAll('a')].map(link => link.getAttribute('href'))
        .filter((url, place) => body.querySelectorAll('a')[place].textContent !== url),
    ...[...body.querySelectorAll('pre')].map(code => code.dataset.language ?? ''),
].join(' '))";

const NEWEST: &str = "Number($$('.timeline [data-seq]').at(-1)?.dataset.seq)";

/// The letters of a text in their order of the alphabet: what Markdown neither takes away nor adds.
fn letters(text: &str) -> String {
    let mut letters: Vec<char> = text.chars().filter(char::is_ascii_alphabetic).collect();
    letters.sort_unstable();
    letters.into_iter().collect()
}

/// Somebody with a program of their own, who is not kept from anything by a page.
struct Stranger {
    socket: WebSocket<TcpStream>,
    said: usize,
}

impl Stranger {
    fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        let url = format!("ws://{address}/ws?protocol=magpie.v1");
        let mut stranger = Self { socket: tungstenite::client(url, stream)?.0, said: 0 };
        stranger.ask(&json!({ "type": "hello" }), &["welcome"])?;
        Ok(stranger)
    }

    /// Sends an envelope and answers with the first of these types, or the error.
    fn ask(&mut self, envelope: &Value, types: &[&str]) -> Result<Value> {
        self.socket.send(Message::text(envelope.to_string()))?;
        loop {
            let Message::Text(text) = self.socket.read()? else { continue };
            let answer: Value = serde_json::from_str(&text)?;
            let type_name = answer["type"].as_str().unwrap_or_default();
            if type_name == "error" || types.contains(&type_name) {
                return Ok(answer);
            }
        }
    }

    /// Says something in the lobby; answers with its `seq`.
    fn say(&mut self, body: &str) -> Result<u64> {
        self.said += 1;
        let reference = format!("01900000-0000-7000-8000-{:012x}", self.said);
        let send = json!({ "type": "send", "room": "0000000000001", "ref": reference, "body": body });
        let answer = self.ask(&send, &["ack"])?;
        answer["seq"].as_u64().with_context(|| format!("{body:?}: {answer}"))
    }

    fn say_all(&mut self, bodies: &[&str]) -> Result<u64> {
        bodies.iter().try_fold(0, |_, body| self.say(body))
    }

    /// Tries texts as the name of a room and of a person. Answers with the person's names that were taken, each
    /// of which said something, and with the last `seq`, if any was.
    fn try_names(&mut self, texts: &[&str]) -> Result<(Vec<String>, Option<u64>)> {
        let (mut names, mut last) = (Vec::new(), None);
        for payload in texts {
            let answer = self.ask(&json!({ "type": "create", "name": payload }), &["joined"])?;
            let is_room = ROOMS.contains(payload);
            ensure!(is_room || answer["code"] == "name_invalid", "a room called {payload:?}: {answer}");
            let answer = self.ask(&json!({ "type": "rename", "name": payload }), &["renamed"])?;
            let Some(name) = answer["user"]["name"].as_str() else {
                let code = answer["code"].as_str();
                ensure!(matches!(code, Some("name_invalid" | "name_taken")), "{payload:?}: {answer}");
                continue;
            };
            let has_only_text = name.chars().all(|c| !c.is_control() && !shared::model::is_deceptive(c));
            ensure!(has_only_text && name.chars().count() <= 32, "{payload:?} became {name:?}");
            // Some become the same, and one who keeps their name goes on under the same heading.
            if names.last().is_none_or(|last| last != name) {
                last = Some(self.say("What is in a name?")?);
                names.push(name.to_owned());
            }
        }
        Ok((names, last))
    }
}

/// Everything as a name, by several strangers: one may do only so much in a minute. They stay, since somebody
/// without a cookie leaves with their connection.
fn try_all_names(address: &str) -> Result<(Vec<Stranger>, Vec<String>, u64)> {
    let (mut strangers, mut names, mut last) = (Vec::new(), Vec::new(), 0);
    let all: Vec<&str> = PAYLOADS.iter().chain(&NAMES).chain(&ROOMS).copied().collect();
    for texts in all.chunks(NAMES_OF_ONE) {
        let mut stranger = Stranger::connect(address)?;
        let (taken, newest) = stranger.try_names(texts)?;
        names.extend(taken);
        last = newest.unwrap_or(last);
        strangers.push(stranger);
    }
    Ok((strangers, names, last))
}

/// Nothing ran, loaded, opened or moved.
async fn check_untouched(page: &Page, active: &Value) -> Result<()> {
    page.until_is("nothing foreign", FOREIGN, json!([])).await?;
    page.until_is("no other elements", ACTIVE, active.clone()).await?;
    page.until_is("the same page", "location.pathname + location.search + location.hash", "/").await?;
    page.until_is("no trace", TRACES, json!([null, false, [], ""])).await?;
    ensure!(page.client.windows().await?.len() == 1, "{} has another window", page.who);
    Ok(())
}

pub async fn script_is_text(world: &mut World) -> Result<()> {
    let program = Program::start(&[])?;
    visit(world, &program).await?;
    let World { ada, ben, .. } = world;
    for page in [&*ada, &*ben] {
        page.eval(PROBE).await?;
    }
    let active = ben.eval(ACTIVE).await?;

    // Through the composer, which is more than sending: it shows what is on its way.
    for payload in PAYLOADS.iter().filter(|payload| !payload.contains('\n')).take(TYPED) {
        ada.say(payload).await?;
        ben.until_last(payload).await?;
    }

    // All of it by somebody who needs no page; both look on.
    let address = program.address().to_owned();
    let mut stranger = spawn_blocking(move || Stranger::connect(&address)).await??;
    let mut links = 0;
    for payloads in PAYLOADS.chunks(PART) {
        let (back, last) =
            spawn_blocking(move || stranger.say_all(payloads).map(|last| (stranger, last))).await??;
        stranger = back;
        for page in [&*ada, &*ben] {
            page.until_is("the last of them", NEWEST, last).await?;
            let shown = page.eval(&format!("{SHOWN}.slice(-{})", payloads.len())).await?;
            let shown = shown.as_array().context("texts")?;
            ensure!(shown.len() == payloads.len(), "{} rows", shown.len());
            for (payload, shown) in payloads.iter().zip(shown) {
                let shown = shown.as_str().unwrap_or_default();
                ensure!(letters(shown) == letters(payload), "{} sees {shown:?} for {payload:?}", page.who);
            }
            check_untouched(page, &active).await?;
        }
        links += ben.eval("$$('[data-testid=message-body] a').length").await?.as_u64().unwrap_or(0);
    }
    // What is said of links is not said of nothing.
    ensure!(links > 10, "only {links} links");

    let address = program.address().to_owned();
    let (_strangers, names, last) = spawn_blocking(move || try_all_names(&address)).await??;
    ensure!(NAMES.iter().all(|name| names.iter().any(|taken| taken == name)), "taken were only {names:?}");
    for page in [&*ada, &*ben] {
        page.until_is("the last of them", NEWEST, last).await?;
        let headings = format!("$$('.by .name').slice(-{}).map(name => name.innerText)", names.len());
        page.until_is("the names", &headings, json!(names)).await?;
        check_untouched(page, &active).await?;
    }

    // The same from the history, and in lists, titles and headings.
    ada.enter("/").await?;
    ada.eval(PROBE).await?;
    ada.until_is("nothing foreign", FOREIGN, json!([])).await?;
    ada.click("[data-testid=browse-rooms]").await?;
    for room in ROOMS {
        let listed = format!("$$('.listing').some(listing => listing.innerText.includes('{room}'))");
        ada.until("the room in the list", &listed).await?;
    }
    // A room's name holds no markup: the dialog says so, the address leads to the lobby.
    ada.type_into("[data-testid=room-name-input]", "<svg onload=alert(1)>\n").await?;
    ada.until("the reason", "$('#room-name-note.bad')?.innerText").await?;
    ada.press(fantoccini::key::Key::Escape).await?;
    ada.until("no dialog", "!$('dialog')").await?;
    ben.enter("/r/__proto__").await?;
    ben.until_is("the room", "$('.header h1').innerText", "#__proto__").await?;
    for path in ["/r/%3Cimg%20src=x%20onerror=alert(1)%3E", "/r/javascript:alert(1)"] {
        ben.enter(path).await?;
        ben.until_is("the lobby", "$('.header h1').innerText", "#lobby").await?;
    }

    ben.enter("/").await?;

    // One's own name in the dialog, and in front of what one says.
    let new = "<b onmouseover=alert(1)>";
    ada.click("button.me").await?;
    ada.fill("[data-testid=rename] input", new).await?;
    ada.click("[data-testid=rename] button").await?;
    ada.until_is("the new name", "text('me-name')", new).await?;
    ada.say("My name is a trap").await?;
    ben.until_last("My name is a trap").await?;
    ben.until_is("the name", "$$('.by .name').at(-1).innerText", new).await?;
    for page in [&*ada, &*ben] {
        check_untouched(page, &active).await?;
    }

    come_home(world).await
}

/// Envelopes of a page's own person, over a socket of their own, one after the other; the number of errors
/// comes back.
const ACTS: &str = "
    const done = arguments[arguments.length - 1];
    const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws', 'magpie.v1');
    const left = [{ type: 'hello' }, ...arguments[0]];
    let errors = [];
    const next = () => left.length ? socket.send(JSON.stringify(left.shift())) : (socket.close(), done(errors));
    socket.onopen = next;
    socket.onmessage = event => {
        const { type, message } = JSON.parse(event.data);
        if (type === 'error') errors.push(message);
        if (type === 'error' || type === 'welcome' || type === 'done') next();
    };";

/// Reasons, topics and names of bots, where those who keep order read them.
pub async fn script_in_pages_and_lists_is_text(world: &mut World) -> Result<()> {
    let program = Program::start(&[])?;
    visit(world, &program).await?;
    let World { ada, ben, .. } = world;
    become_owner(ada, &program, "Ada").await?;
    ben.say("Report me").await?;
    ada.until_last("Report me").await?;
    let seq = ada.newest().await?;

    let lobby = "0000000000001";
    // As many as one person may do at once.
    let some = || PAYLOADS.iter().step_by(PAYLOADS.len() / 10).take(10);
    let ban = |(place, text): (usize, &&str)| {
        let addresses = format!("203.0.113.{place}");
        json!({ "type": "act", "act": "ban", "addresses": addresses, "text": text, "seconds": 0 })
    };
    let bans = some().enumerate().map(ban);
    let bots = NAMES.iter().map(|name| json!({ "type": "act", "act": "make_bot", "name": name }));
    let topics = some().map(|text| json!({ "type": "act", "act": "topic", "room": lobby, "text": text }));
    let acts: Vec<Value> = bans.chain(bots).chain(topics).collect();
    let errors = ada.client.execute_async(ACTS, vec![json!(acts)]).await?;
    ensure!(errors == json!([]), "{errors}");
    let report =
        |text: &&str| json!({ "type": "act", "act": "report", "room": lobby, "seq": seq, "text": text });
    // One person reports a message once, so that the last reason may be the only one that is listed.
    let reports: Vec<Value> = some().map(report).collect();
    ben.client.execute_async(ACTS, vec![json!(reports)]).await?;

    let shown =
        |words: &str| format!("document.querySelector('.page')?.textContent.includes({})", json!(words));
    for (path, words) in [("/admin", PAYLOADS[0]), ("/settings", NAMES[0])] {
        ada.open(path).await?;
        ada.eval(PROBE).await?;
        ada.until("what was said", &shown(words)).await?;
        ada.until_is("nothing foreign", FOREIGN, json!([])).await?;
        ada.until_is("no trace", TRACES, json!([null, false, [], ""])).await?;
        let foreign = "$$('.page *').filter(element => !['H1', 'H2', 'P', 'FORM', 'UL', 'LI', 'DIV', 'SPAN', 'STRONG', \
             'BUTTON', 'INPUT', 'SELECT', 'OPTION', 'LABEL'].includes(element.tagName)).map(element => element.outerHTML)";
        ada.until_is("no other elements", foreign, json!([])).await?;
    }
    ben.enter("/").await?;
    ben.eval(PROBE).await?;
    ben.until("a topic", "text('topic')").await?;
    ben.until_is("nothing foreign", FOREIGN, json!([])).await?;
    ben.until_is("no trace", TRACES, json!([null, false, [], ""])).await?;

    come_home(world).await
}
