//! Starts the client in the page's `#app`, and sees to it that a panic leaves a page that says so.

use client::app::App;
use client::view::panic;

fn main() {
    panic::install();
    let document = web_sys::window().and_then(|window| window.document());
    match document.and_then(|document| document.get_element_by_id("app")) {
        Some(root) => {
            yew::Renderer::<App>::with_root(root).render();
        }
        None => web_sys::console::error_1(&"The page has no #app.".into()),
    }
}
