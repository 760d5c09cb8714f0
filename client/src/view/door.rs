//! The pages to sign in and to follow a link, and the forms of one's account among the settings. They have no
//! need of the conversation, and it knows nothing of them: all goes over HTTP.

use shared::protocol::User;
use shared::rights::Role;
use yew::prelude::*;

use super::panel;
use crate::account::{Account, Ask, Request};
use crate::http;
use crate::panels::{Do, doors};
use crate::route::Route;
use crate::storage;

#[derive(Clone, PartialEq, Properties)]
pub struct Props {
    pub route: Route,
    /// Who one is, among the settings.
    #[prop_or_default]
    pub me: Option<User>,
    #[prop_or_default]
    pub role: Role,
}

pub enum Msg {
    Do(Do),
    Answered(Ask, u16, String),
}

pub struct Door {
    account: Account,
}

impl Component for Door {
    type Message = Msg;
    type Properties = Props;

    fn create(ctx: &Context<Self>) -> Self {
        if ctx.props().route.is_door() {
            Account::begin(&ctx.props().route).into_iter().for_each(|request| send(ctx, request));
        }
        Self { account: Account::default() }
    }

    fn update(&mut self, ctx: &Context<Self>, msg: Msg) -> bool {
        match msg {
            Msg::Do(Do::Ask(request)) => {
                if self.account.may_ask(&request) {
                    send(ctx, request);
                }
            }
            Msg::Do(Do::Load(path)) => load(path),
            Msg::Do(_) => {}
            Msg::Answered(ask, status, body) => {
                if let Some(path) = self.account.answered(ask, status, &body) {
                    if path != "/" {
                        // Whoever comes next is not to read what was not sent.
                        storage::forget_drafts();
                    }
                    load(path);
                }
            }
        }
        true
    }

    fn view(&self, ctx: &Context<Self>) -> Html {
        let props = ctx.props();
        let run = ctx.link().callback(Msg::Do);
        let said = html! { <p class={classes!("note", (!self.account.is_well).then_some("bad"))} role="alert" data-testid="problem">{ &self.account.said }</p> };
        match &props.me {
            Some(me) => {
                let sections = doors::own(me, props.role);
                html! { <>{ said }{ panel::sections(&sections, false, &run) }</> }
            }
            None => {
                let page = doors::door(&self.account, &props.route);
                html! { <main class="main door">{ panel::page(&page, said, true, &run) }</main> }
            }
        }
    }
}

fn send(ctx: &Context<Door>, request: Request) {
    http::send(
        request,
        ctx.link().callback(|(request, status, body): (Request, u16, String)| {
            Msg::Answered(request.ask, status, body)
        }),
    );
}

fn load(path: &str) {
    if let Some(window) = web_sys::window() {
        // It fails only for what is no address.
        let _ = window.location().assign(path);
    }
}
