//! A dialog over the page: the browser's own, which keeps the focus inside, closes on Esc and gives the
//! focus back.

use wasm_bindgen::JsCast;
use web_sys::{HtmlDialogElement, HtmlElement};
use yew::prelude::*;

use super::{ICON_CLOSE, icon};

#[derive(Properties, PartialEq)]
pub struct Props {
    pub title: AttrValue,
    pub on_close: Callback<()>,
    pub children: Children,
}

/// A modal dialog, open from when it is mounted.
#[component]
pub fn Dialog(props: &Props) -> Html {
    let node = use_node_ref();
    {
        let node = node.clone();
        use_effect_with((), move |()| {
            let before = web_sys::window().and_then(|window| window.document()?.active_element());
            if let Some(dialog) = node.cast::<HtmlDialogElement>() {
                // It fails only for one that is open or not in the page.
                let _ = dialog.show_modal();
            }
            move || {
                // The browser gives the focus back only when a dialog is closed, not when it is removed.
                if let Some(element) = before.and_then(|element| element.dyn_into::<HtmlElement>().ok()) {
                    let _ = element.focus();
                }
            }
        });
    }
    {
        // Another dialog in place of this one: what had the focus is gone.
        let node = node.clone();
        let is_first = use_mut_ref(|| true);
        use_effect_with(props.title.clone(), move |_| {
            if !is_first.replace(false)
                && let Some(dialog) = node.cast::<HtmlElement>()
            {
                let _ = dialog.focus();
            }
        });
    }
    let on_close = props.on_close.reform(|_: Event| ());
    let close = props.on_close.reform(|_: MouseEvent| ());
    // A click on the dialog itself, not on what is in it, is one on the shade around it.
    let shade = {
        let on_close = props.on_close.clone();
        Callback::from(move |event: MouseEvent| {
            if event.target_dyn_into::<HtmlDialogElement>().is_some() {
                on_close.emit(());
            }
        })
    };
    html! {
        <dialog ref={node} class="dialog" tabindex="-1" aria-label={props.title.clone()} onclose={on_close} onclick={shade}>
            <div class="dialog-panel">
                <header class="dialog-head">
                    <h2>{ &props.title }</h2>
                    <button class="icon-button" aria-label="Close" onclick={close}>{ icon(ICON_CLOSE) }</button>
                </header>
                { for props.children.iter() }
            </div>
        </dialog>
    }
}
