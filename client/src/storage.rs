//! What survives a reload: unsent messages and drafts, in `localStorage`, one key for each.
//!
//! One key for each item, so that two tabs never overwrite each other's list. Storage may be missing, full or
//! forbidden (private windows): every failure here is tolerated, and the page then forgets on reload. This
//! file must not know when something is worth keeping.

use shared::model::{Ms, Ref, RoomId};
use web_sys::Storage;

use crate::outbox::Unsent;

const OUTBOX: &str = "magpie.outbox.";
const DRAFT: &str = "magpie.draft.";
const RENEWED: &str = "magpie.renewed";

fn storage() -> Option<Storage> {
    web_sys::window()?.local_storage().ok()?
}

fn write(key: &str, value: &str) {
    if let Some(storage) = storage() {
        let _ = storage.set_item(key, value);
    }
}

fn remove(key: &str) {
    if let Some(storage) = storage() {
        let _ = storage.remove_item(key);
    }
}

/// The entries whose key has a prefix: the rest of the key and the value.
fn entries(prefix: &str) -> Vec<(String, String)> {
    let Some(storage) = storage() else { return Vec::new() };
    let count = storage.length().unwrap_or(0);
    let keys = (0..count).filter_map(|index| storage.key(index).ok().flatten());
    keys.filter_map(|key| {
        let value = storage.get_item(&key).ok().flatten()?;
        key.strip_prefix(prefix).map(|rest| (rest.to_owned(), value))
    })
    .collect()
}

/// The messages that were not confirmed when the page was last closed, in any order.
pub fn outbox() -> Vec<Unsent> {
    entries(OUTBOX).iter().filter_map(|(_, value)| serde_json::from_str(value).ok()).collect()
}

/// Keeps an unsent message until it is confirmed or discarded.
pub fn save_unsent(unsent: &Unsent) {
    if let Ok(text) = serde_json::to_string(unsent) {
        write(&[OUTBOX, &unsent.reference.to_string()].concat(), &text);
    }
}

/// Forgets an unsent message.
pub fn forget_unsent(reference: Ref) {
    remove(&[OUTBOX, &reference.to_string()].concat());
}

/// The text that stands in the composer of each room.
pub fn drafts() -> Vec<(RoomId, String)> {
    entries(DRAFT).into_iter().filter_map(|(room, text)| Some((room.parse().ok()?, text))).collect()
}

/// Keeps a room's draft; an empty one is removed.
pub fn save_draft(room: RoomId, text: &str) {
    let key = [DRAFT, &room.to_string()].concat();
    if text.is_empty() { remove(&key) } else { write(&key, text) }
}

/// Forgets all drafts.
pub fn forget_drafts() {
    drafts().iter().for_each(|(room, _)| save_draft(*room, ""));
}

/// Notes that the page is loaded again for a new session. False if that was done less than `within_ms` before
/// `now`, so that a server which refuses every session does not make the page spin.
pub fn may_renew(now: Ms, within_ms: Ms) -> bool {
    let last = storage().and_then(|storage| storage.get_item(RENEWED).ok().flatten());
    let last: Option<Ms> = last.and_then(|text| text.parse().ok());
    if last.is_some_and(|last| (0..within_ms).contains(&(now - last))) {
        return false;
    }
    write(RENEWED, &now.to_string());
    true
}
