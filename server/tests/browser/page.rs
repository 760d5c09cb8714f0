//! Browsers and what a person does with a page: look, click, type, wait for something to show.
//!
//! Nothing here sleeps for luck: every wait is for a condition and has a deadline, and what fails shows the
//! page's text and the browser's console. It must not know what a scenario is about.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

/// How long anything may take to show.
const LIMIT: Duration = Duration::from_secs(20);
/// How often a page is asked.
const POLL: Duration = Duration::from_millis(25);

/// Shorthands for scripts: `$` and `$$` for selectors, `id` for a `data-testid`, `text` for what one of them
/// shows, `rows` for the conversation.
const PRELUDE: &str = r#"
    const $ = selector => document.querySelector(selector);
    const $$ = selector => [...document.querySelectorAll(selector)];
    const id = name => $(`[data-testid="${name}"]`);
    const text = name => id(name)?.innerText ?? null;
    const room = name => $$('[data-testid="room-link"]').find(link => link.dataset.roomName === name);
    const badge = name => room(name)?.querySelector('[data-testid="unread"]')?.innerText ?? null;
    const rows = () => $$('.timeline [data-seq], .timeline [data-state]').map(row => ({
        seq: row.dataset.seq === undefined ? null : Number(row.dataset.seq),
        state: row.dataset.state ?? 'system',
        text: (row.querySelector('[data-testid="message-body"]') ?? row.querySelector('span')).innerText,
    }));
    const bodies = () => rows().filter(row => row.state !== 'system').map(row => row.text);
"#;

/// A row of the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `None` until it is confirmed.
    pub seq: Option<u64>,
    pub text: String,
}

/// A running chromedriver.
pub struct Driver {
    child: Child,
    /// Path of the browser.
    chromium: String,
    port: u16,
}

impl Driver {
    pub fn start(chromedriver: &str, chromium: &str) -> Result<Self> {
        let mut command = Command::new(chromedriver);
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("starting chromedriver")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut driver = Self { child, chromium: chromium.to_owned(), port: 0 };
        for line in output.lines() {
            let line = line?;
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                driver.port = port.trim_end_matches('.').parse()?;
                return Ok(driver);
            }
        }
        bail!("chromedriver ended without naming its port")
    }

    /// A browser of its own, with a fresh profile.
    pub async fn browser(&self, who: &'static str, url: &str) -> Result<Page> {
        let profile = tempfile::tempdir()?;
        let data = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // Of a server that made its own.
            "--ignore-certificate-errors",
            "--no-first-run",
            "--window-size=1280,800",
            &data,
        ];
        let capabilities = json!({
            "goog:chromeOptions": { "binary": self.chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { bail!("not an object") };
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{}", self.port))
            .await
            .with_context(|| format!("starting {who}'s browser"))?;
        let session = client.session_id().await?.context("no session")?;
        Ok(Page {
            who,
            client,
            url: url.to_owned(),
            port: self.port,
            session,
            console: Vec::new(),
            _profile: profile,
        })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It fails only if it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A person's browser, with the page it shows.
pub struct Page {
    pub who: &'static str,
    pub client: Client,
    /// Where the server is.
    pub url: String,
    port: u16,
    session: String,
    /// Errors and warnings of the console that nobody has asked for yet.
    console: Vec<String>,
    _profile: TempDir,
}

impl Page {
    /// Loads a path of the server's.
    pub async fn open(&self, path: &str) -> Result<()> {
        self.client
            .goto(&[&self.url, path].concat())
            .await
            .with_context(|| format!("{} opens {path}", self.who))
    }

    /// Loads a path and waits for the conversation and the connection.
    pub async fn enter(&self, path: &str) -> Result<()> {
        self.open(path).await?;
        self.until_online().await
    }

    pub async fn until_online(&self) -> Result<()> {
        self.until("a connection", "$('.header .dot.online') && !id('banner') && $('.timeline [data-seq]')")
            .await
    }

    /// Closes the tab, as a person would, and opens an empty one.
    pub async fn close_tab(&self) -> Result<()> {
        let old = self.client.window().await?;
        let new = self.client.new_window(true).await?;
        self.client.switch_to_window(old).await?;
        self.client.close_window().await?;
        self.client.switch_to_window(new.handle).await?;
        Ok(())
    }

    /// The value of an expression in the page; see `PRELUDE` for what it may use.
    pub async fn eval(&self, expression: &str) -> Result<Value> {
        let script = format!("{PRELUDE} return ({expression});");
        let value = self.client.execute(&script, Vec::new()).await;
        value.with_context(|| format!("{} evaluates {expression}", self.who))
    }

    /// Waits until an expression is true.
    pub async fn until(&self, what: &str, expression: &str) -> Result<()> {
        self.until_is(what, &format!("!!({expression})"), true).await
    }

    /// Waits until an expression has a value.
    pub async fn until_is(&self, what: &str, expression: &str, wanted: impl Into<Value>) -> Result<()> {
        let wanted = wanted.into();
        let start = Instant::now();
        loop {
            let value = self.eval(expression).await?;
            if value == wanted {
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                bail!("{} waits for {what}: {expression} is {value}, not {wanted}", self.who);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The element of a selector, once it is there.
    pub async fn find(&self, selector: &str) -> Result<Element> {
        let what = format!("{} looks for {selector}", self.who);
        self.client.wait().at_most(LIMIT).every(POLL).for_element(Locator::Css(selector)).await.context(what)
    }

    pub async fn click(&self, selector: &str) -> Result<()> {
        let element = self.find(selector).await?;
        element.click().await.with_context(|| format!("{} clicks {selector}", self.who))
    }

    /// Clicks a room in the list.
    pub async fn click_room(&self, name: &str) -> Result<()> {
        self.click(&format!("[data-testid=room-link][data-room-name='{name}']")).await
    }

    /// Types into an element; `\n` is Enter.
    pub async fn type_into(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.find(selector).await?;
        let keys = text.strip_suffix('\n').unwrap_or(text);
        let typed = match keys {
            "" => element.click().await,
            _ => element.send_keys(&keys.replace('\n', &Key::Enter.to_string())).await,
        };
        typed.with_context(|| format!("{} types into {selector}", self.who))?;
        if keys.len() < text.len() { self.press(Key::Enter).await } else { Ok(()) }
    }

    /// Puts a text in the place of what stands in an input.
    pub async fn fill(&self, selector: &str, text: &str) -> Result<()> {
        self.type_into(selector, &format!("{}a{}", Key::Control, Key::Null)).await?;
        self.type_into(selector, text).await
    }

    /// Writes a message and sends it with Enter.
    pub async fn say(&self, text: &str) -> Result<()> {
        self.type_into("[data-testid=composer]", &[text, "\n"].concat()).await
    }

    /// Presses a key where the focus is.
    pub async fn press(&self, key: Key) -> Result<()> {
        // Not by way of the element that has the focus: the key may take it out of the page.
        let value = char::from(key);
        let keys = KeyActions::new("keyboard".to_owned())
            .then(KeyAction::Down { value })
            .then(KeyAction::Up { value });
        self.client.perform_actions(keys).await.with_context(|| format!("{} presses a key", self.who))
    }

    /// Waits until the last message of the conversation is this one, confirmed.
    pub async fn until_last(&self, text: &str) -> Result<()> {
        self.until_is(
            "the last message",
            "[bodies().at(-1), $$('[data-state=pending]').length]",
            json!([text, 0]),
        )
        .await
    }

    /// The rows of the conversation.
    pub async fn rows(&self) -> Result<Vec<Row>> {
        let rows = self.eval("rows()").await?;
        let rows = rows.as_array().context("rows")?.iter();
        Ok(rows
            .map(|row| Row {
                seq: row["seq"].as_u64(),
                text: row["text"].as_str().unwrap_or_default().to_owned(),
            })
            .collect())
    }

    /// The `seq` of the newest confirmed row.
    pub async fn newest(&self) -> Result<u64> {
        self.rows().await?.iter().filter_map(|row| row.seq).max().context("an empty conversation")
    }

    pub async fn path(&self) -> Result<String> {
        Ok(self.client.current_url().await?.path().to_owned())
    }

    /// A command of the browser's own protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Result<()> {
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await.map(drop)
    }

    /// Reads what the console says, and keeps the errors and warnings. A killed server is the one cause that is
    /// expected: then the browser complains of sockets that did not connect.
    pub async fn read_console(&mut self, server_was_killed: bool) -> Result<()> {
        let entries = self.post("se/log", &json!({ "type": "browser" })).await?;
        for entry in entries.as_array().context("the console")? {
            let message = entry["message"].as_str().unwrap_or_default();
            let is_bad = !matches!(entry["level"].as_str(), Some("INFO" | "DEBUG"));
            let is_expected = server_was_killed
                && ["WebSocket connection to", "/api/session", "/api/account"]
                    .iter()
                    .any(|cause| message.contains(cause));
            if is_bad && !is_expected {
                self.console.push(entry.to_string());
            }
        }
        Ok(())
    }

    /// What the console said and is not to be complained of.
    pub fn take_console(&mut self) -> Vec<String> {
        std::mem::take(&mut self.console)
    }

    /// The console must have had no errors and no warnings.
    pub fn check_console(&self) -> Result<()> {
        ensure!(self.console.is_empty(), "{}'s console says:\n{}", self.who, self.console.join("\n"));
        Ok(())
    }

    /// What a failure shows: the address, the page's text and the console.
    pub async fn describe(&mut self) -> String {
        if let Err(error) = self.read_console(false).await {
            self.console.push(error.to_string());
        }
        let page =
            self.client.execute("return location.href + '\\n' + document.body.innerText", Vec::new()).await;
        let page =
            page.map_or_else(|error| error.to_string(), |page| page.as_str().unwrap_or_default().to_owned());
        format!("---- {} ----\n{page}\n---- console ----\n{}\n", self.who, self.console.join("\n"))
    }

    /// A request to chromedriver for which there is no method.
    async fn post(&self, command: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let request = format!(
            "POST /session/{}/{command} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.session,
            self.port,
            body.len()
        );
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
        let mut stream = tokio::io::BufReader::new(stream);
        stream.write_all(request.as_bytes()).await?;
        // The connection stays open: the length says where the answer ends.
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let start = head.len();
            ensure!(stream.read_line(&mut head).await? > 0, "chromedriver: {command}: no answer");
            if let Some(value) = head[start..].to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await?;
        let answer = String::from_utf8(answer)?;
        ensure!(head.starts_with("HTTP/1.1 200"), "chromedriver: {command}: {answer}");
        Ok(serde_json::from_str::<Value>(&answer)?["value"].take())
    }
}
