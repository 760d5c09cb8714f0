//! The one view of all panels: sections of fields, buttons and lists, as `panels` describes them.
//!
//! Fields keep their own text, so that what is typed, passwords above all, is nowhere but in the browser's
//! element until a button is pressed. It must not know what any of it is for.

use std::rc::Rc;

use js_sys::Reflect;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Element, HtmlDocument, HtmlInputElement};
use yew::prelude::*;

use super::{avatar, time};
use crate::panels::{Button, Do, Fact, Field, Kind, Panel, Row, Section};

/// A panel as a page, with something before its sections.
pub fn page(panel: &Panel, first: Html, takes_focus: bool, run: &Callback<Do>) -> Html {
    html! {
        <div class="page">
            <div class="page-body">
                <h1>{ &panel.title }</h1>
                { first }
                { sections(&panel.sections, takes_focus, run) }
            </div>
        </div>
    }
}

/// The sections of a panel; whether the first field takes the focus.
pub fn sections(sections: &[Section], takes_focus: bool, run: &Callback<Do>) -> Html {
    let section = |section: &Section| {
        html! {
            <View key={section.id} section={Given(Rc::new(section.clone()))} {takes_focus} {run} />
        }
    };
    sections.iter().map(section).collect()
}

/// A section, which is drawn whenever what is around it is drawn.
#[derive(Clone)]
struct Given(Rc<Section>);

impl PartialEq for Given {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

#[derive(Properties, PartialEq)]
struct Props {
    section: Given,
    takes_focus: bool,
    run: Callback<Do>,
}

#[component]
fn View(props: &Props) -> Html {
    let section = &props.section.0;
    let problem = use_state(String::new);
    let press = {
        let (problem, run) = (problem.clone(), props.run.clone());
        Callback::from(move |(button, form): (Button, Option<Element>)| {
            match (button.deed)(&form.as_ref().map(values).unwrap_or_default()) {
                Ok(what) => {
                    problem.set(String::new());
                    // What was refused can be mended; what was taken is not sent twice.
                    if let Some(form) = form.filter(|_| !matches!(what, Do::Ask(_) | Do::Look(_))) {
                        clear(&form);
                    }
                    run.emit(what);
                }
                Err(text) => problem.set(text),
            }
        })
    };
    let onsubmit = {
        let (press, first) = (press.clone(), section.buttons.first().cloned());
        Callback::from(move |event: SubmitEvent| {
            event.prevent_default();
            if let Some(first) = &first {
                press.emit((first.clone(), event.target_dyn_into()));
            }
        })
    };
    let button = |(place, button): (usize, &Button), in_row: bool| {
        let kind = if in_row || place > 0 { "button" } else { "submit" };
        let onclick = (kind == "button").then(|| {
            let button = button.clone();
            press.reform(move |event: MouseEvent| {
                let target: Option<Element> = event.target_dyn_into();
                let form = target.and_then(|target| target.closest("form").ok().flatten());
                (button.clone(), form.filter(|_| !in_row))
            })
        });
        let look = if button.is_grave {
            "grave"
        } else if !in_row && place == 0 && !section.fields.is_empty() {
            "primary"
        } else {
            ""
        };
        html! {
            <button type={kind} class={classes!("button", in_row.then_some("small"), look)} {onclick}>{ &button.label }</button>
        }
    };
    let row = |row: &Row| {
        html! {
            <li class="entry">
                if let Some(user) = &row.user { { avatar(user.id, user.name.as_str(), None) } }
                <div class="entry-text">
                    if let Some(user) = &row.user { <strong>{ user.name.as_str() }</strong>{ " " } }
                    <span>{ &row.text }</span>
                    <p class="note">
                        { for row.facts.iter().map(|fact| html! { <span>{ match fact {
                            Fact::Text(text) => html! { { text } },
                            Fact::Time(what, at) => html! { <>{ *what }{ time::short(*at) }</> },
                        } }</span> }) }
                    </p>
                </div>
                { for row.buttons.iter().enumerate().map(|each| button(each, true)) }
            </li>
        }
    };
    let more = section.more.map(|list| {
        let onclick = props.run.reform(move |_: MouseEvent| Do::More(list));
        html! { <button type="button" class="button small" {onclick}>{ "More" }</button> }
    });
    html! {
        <form class="section" data-testid={section.id} {onsubmit}>
            if !section.heading.is_empty() { <h2>{ &section.heading }</h2> }
            if !section.secret.is_empty() { <Secret text={section.secret.clone()} /> }
            { for section.fields.iter().enumerate().map(|(place, field)| html! {
                <Entry id={[section.id, &place.to_string()].concat()} field={field.clone()} first={place == 0 && props.takes_focus} />
            }) }
            <p class={classes!("note", (!problem.is_empty()).then_some("bad"))} role="status">
                { if problem.is_empty() { &section.note } else { &*problem } }
            </p>
            if !section.buttons.is_empty() {
                <div class="buttons">{ for section.buttons.iter().enumerate().map(|each| button(each, false)) }</div>
            }
            if !section.rows.is_empty() { <ul class="entries">{ for section.rows.iter().map(row) }</ul> }
            { more }
        </form>
    }
}

#[derive(Properties, PartialEq)]
struct SecretProps {
    text: AttrValue,
}

/// What was made, to be copied. It may be far from the button that made it.
#[component]
fn Secret(props: &SecretProps) -> Html {
    let node = use_node_ref();
    {
        let node = node.clone();
        use_effect_with(props.text.clone(), move |_| {
            if let Some(field) = node.cast::<HtmlInputElement>() {
                field.select();
                field.scroll_into_view();
            }
        });
    }
    let text = props.text.as_str();
    let text = if text.starts_with('/') {
        let origin = web_sys::window().and_then(|window| window.location().origin().ok());
        [&origin.unwrap_or_default(), text].concat()
    } else {
        text.to_owned()
    };
    let copy = Callback::from(|event: MouseEvent| {
        let target: Option<Element> = event.target_dyn_into();
        let field = target.and_then(|target| target.previous_element_sibling());
        if let Some(field) = field.and_then(|field| field.dyn_into::<HtmlInputElement>().ok()) {
            field.select();
            let document =
                field.owner_document().and_then(|document| document.dyn_into::<HtmlDocument>().ok());
            // The modern way works only over TLS; where this one fails, the text is still selected.
            let _ = document.map(|document| document.exec_command("copy"));
        }
    });
    html! {
        <div class="field-row">
            <input ref={node} class="field" readonly=true value={text} aria-label="What was made" data-testid="secret" />
            <button type="button" class="button" onclick={copy}>{ "Copy" }</button>
        </div>
    }
}

#[derive(Properties, PartialEq)]
struct EntryProps {
    id: AttrValue,
    field: Field,
    first: bool,
}

/// A field with its label.
#[component]
fn Entry(props: &EntryProps) -> Html {
    let node = use_node_ref();
    {
        let node = node.clone();
        // Not as an attribute: it would be put back whenever the page is drawn.
        use_effect_with(props.field.value.clone(), move |value| {
            if let Some(element) = node.cast::<Element>() {
                put(&element, value);
            }
        });
    }
    let (kind, autocomplete) = match props.field.kind {
        Kind::SignInName => ("text", "username"),
        Kind::OldPassword => ("password", "current-password"),
        Kind::NewPassword => ("password", "new-password"),
        Kind::Check(_) => ("checkbox", "off"),
        Kind::Text | Kind::Choice(_) => ("text", "off"),
    };
    let id = props.id.clone();
    match &props.field.kind {
        Kind::Check(label) => html! {
            <label class="check"><input ref={node} type={kind} data-field="" />{ label }</label>
        },
        Kind::Choice(choices) => html! {
            <>
                <label class="label" for={id.clone()}>{ props.field.label }</label>
                <select ref={node} class="field" {id} data-field="">
                    { for choices.iter().map(|(value, label)| html! {
                        <option value={value.clone()}>{ label }</option>
                    }) }
                </select>
            </>
        },
        _ => html! {
            <>
                <label class="label" for={id.clone()}>{ props.field.label }</label>
                <input ref={node} class="field" type={kind} {id} name={autocomplete} {autocomplete} data-field=""
                    autocapitalize="none" spellcheck="false" autofocus={props.first} />
            </>
        },
    }
}

fn is_check(element: &Element) -> bool {
    element.get_attribute("type").as_deref() == Some("checkbox")
}

/// Puts a value into a field. An empty one is the first of a choice, which the browser would not take by
/// itself: the last one is put into the page first.
fn put(element: &Element, value: &str) {
    let (key, value) = if is_check(element) {
        ("checked", JsValue::from_bool(!value.is_empty()))
    } else if value.is_empty() && element.tag_name() == "SELECT" {
        ("selectedIndex", JsValue::from_f64(0.0))
    } else {
        ("value", JsValue::from_str(value))
    };
    // Setting a property of an element does not fail.
    let _ = Reflect::set(element, &key.into(), &value);
}

fn fields(form: &Element) -> Vec<Element> {
    let Ok(found) = form.query_selector_all("[data-field]") else { return Vec::new() };
    (0..found.length()).filter_map(|place| found.item(place)?.dyn_into().ok()).collect()
}

fn values(form: &Element) -> Vec<String> {
    let value = |element: &Element| {
        let get = |key: &str| Reflect::get(element, &key.into()).unwrap_or_default();
        if is_check(element) && !get("checked").is_truthy() {
            return String::new();
        }
        get("value").as_string().unwrap_or_default()
    };
    fields(form).iter().map(value).collect()
}

/// Empties what was typed.
fn clear(form: &Element) {
    for element in fields(form).iter().filter(|element| !is_check(element)) {
        if element.tag_name() != "SELECT" {
            put(element, "");
        }
    }
}
