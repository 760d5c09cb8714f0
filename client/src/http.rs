//! Requests of accounts, by the browser's `fetch`. It must not know what they mean.

use std::cell::Cell;

use gloo_net::http;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::Response;
use yew::Callback;

use crate::account::{Ask, Request, is_good};
use crate::state::Input;

thread_local! {
    static CHANGES_SESSION: Cell<bool> = const { Cell::new(false) };
}

/// Whether a request is under way, or done, that ends this page's session. The server closes the session's
/// sockets at once; a page loaded anew for that would not hear the answer, and come as somebody else.
pub fn changes_session() -> bool {
    CHANGES_SESSION.get()
}

/// Asks whether the page's session is good. Without an answer there is no report. The program of a first
/// visit has no more of HTTP than this, and looks for two words in place of reading JSON.
pub fn ask_session(report: Callback<Input>) {
    spawn_local(async move {
        let text = session().await.unwrap_or_default();
        if text.contains("\"user\"") {
            let is_somebody = !text.contains("\"user\":null");
            report.emit(Input::Session { is_somebody, guests: !text.contains("\"guests\":false") });
        }
    });
}

async fn session() -> Option<String> {
    let response = JsFuture::from(web_sys::window()?.fetch_with_str("/api/account")).await.ok()?;
    let text = response.dyn_into::<Response>().ok()?.text().ok()?;
    JsFuture::from(text).await.ok()?.as_string()
}

/// Sends a request and reports the status and the text of the answer; status 0 is none.
pub fn send(request: Request, report: Callback<(Request, u16, String)>) {
    let changes = !matches!(request.ask, Ask::Account | Ask::Link | Ask::Password | Ask::Owner);
    if changes {
        CHANGES_SESSION.set(true);
    }
    spawn_local(async move {
        let (status, body) = fetch(&request).await.unwrap_or_default();
        if changes && !is_good(status) {
            CHANGES_SESSION.set(false);
        }
        report.emit((request, status, body));
    });
}

async fn fetch(request: &Request) -> Result<(u16, String), gloo_net::Error> {
    let path = request.ask.path();
    let response = match request.body() {
        None => http::Request::get(path).send().await?,
        Some(body) => {
            let request = http::Request::post(path).header("content-type", "application/json");
            request.body(body)?.send().await?
        }
    };
    Ok((response.status(), response.text().await?))
}
