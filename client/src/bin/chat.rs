//! The client of a first visit: the chat alone. For other pages it has the browser load the whole one.

use client::app::{self, App, Props};

fn main() {
    app::start_as::<App>(Props { desk: None });
}
