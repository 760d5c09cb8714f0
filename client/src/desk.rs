//! What only the whole program shows: settings, administration, the lab. The program of a first visit is made
//! without this file.

use yew::prelude::*;

use crate::panels::{Do, pages};
use crate::route::Route;
use crate::state::State;
use crate::view::door::Door;
use crate::view::lab::Lab;
use crate::view::panel;

/// The page of the route.
pub fn page(state: &State, run: &Callback<Do>) -> Html {
    let account = match &state.me {
        Some(me) if state.route == Route::Settings => {
            html! { <Door route={Route::Settings} me={me.clone()} role={state.role} /> }
        }
        _ => Html::default(),
    };
    match pages::page(state) {
        _ if state.route == Route::Lab => html! { <Lab /> },
        Some(page) => panel::page(&page, account, false, run),
        None => Html::default(),
    }
}
