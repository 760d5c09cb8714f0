//! What an act may hold, before anybody looks whether it may be done. Names are claimed, addresses brought
//! into one form; whoever holds a checked act need not check again.
//!
//! It must not know who acts.

use super::{Act, HOOK_URL_BYTES_MAX, ROW_ID_BYTES_MAX, SECONDS_MAX, SLOW_SECONDS_MAX};
use crate::model::{BadName, RoomName, UserName};
use crate::network::Network;
use crate::protocol::{ErrorCode, Failure};

impl Act {
    /// The act as it is to be done.
    ///
    /// # Errors
    /// `bad_field` or `name_invalid`, with the act's name and room, ready to be sent.
    pub fn checked(self) -> Result<Self, Failure> {
        let (name, room) = (self.name(), self.room());
        self.check().map_err(|failure| Failure { request: Some(name.into()), room, ..failure })
    }

    fn check(self) -> Result<Self, Failure> {
        Ok(match self {
            Act::RenameRoom { room, name } => {
                let name = RoomName::claim(&name).map_err(invalid)?.name.to_string();
                Act::RenameRoom { room, name }
            }
            Act::MakeBot { name } => {
                Act::MakeBot { name: UserName::claim(&name).map_err(invalid)?.name.to_string() }
            }
            Act::SlowMode { seconds, .. } if seconds > SLOW_SECONDS_MAX => return Err(too_long()),
            Act::Mute { seconds, .. } | Act::MakeInvite { seconds, .. } if seconds > SECONDS_MAX => {
                return Err(too_long());
            }
            Act::MakeToken { bot, text, mut scopes, seconds } => {
                scopes.sort_unstable();
                scopes.dedup();
                if scopes.is_empty() {
                    return Err(bad("A token needs a scope."));
                }
                if seconds > SECONDS_MAX {
                    return Err(too_long());
                }
                Act::MakeToken { bot, text, scopes, seconds }
            }
            Act::MakeOutgoingHook { url, .. } if !is_hook_url(&url) => {
                return Err(bad("An address begins with https:// or http:// and has no name or password."));
            }
            Act::Ban { seconds, .. } if seconds > SECONDS_MAX => return Err(too_long()),
            Act::Ban { user: Some(user), addresses: None, text, seconds } => {
                Act::Ban { user: Some(user), addresses: None, text, seconds }
            }
            Act::Ban { user: None, addresses: Some(addresses), text, seconds } => {
                let network = Network::parse(&addresses)
                    .ok_or_else(|| bad("Addresses are like 203.0.113.7 or 2001:db8::/32."))?;
                Act::Ban { user: None, addresses: Some(network.to_string()), text, seconds }
            }
            Act::Ban { .. } => return Err(bad("A ban is of a user or of addresses.")),
            Act::EndSession { id }
            | Act::RevokeToken { id }
            | Act::RemoveHook { id }
            | Act::Unban { id }
            | Act::CloseReport { id }
            | Act::RevokeLink { id }
                if id.len() > ROW_ID_BYTES_MAX =>
            {
                return Err(bad("That is no id of a row."));
            }
            Act::Invite { .. }
            | Act::Remove { .. }
            | Act::Transfer { .. }
            | Act::Topic { .. }
            | Act::Archive { .. }
            | Act::DeleteRoom { .. }
            | Act::SlowMode { .. }
            | Act::Mute { .. }
            | Act::Delete { .. }
            | Act::Report { .. }
            | Act::Unread { .. }
            | Act::Quiet { .. }
            | Act::Block { .. }
            | Act::EndSession { .. }
            | Act::EndSessions
            | Act::RevokeToken { .. }
            | Act::MakeIncomingHook { .. }
            | Act::MakeOutgoingHook { .. }
            | Act::RemoveHook { .. }
            | Act::Unban { .. }
            | Act::CloseReport { .. }
            | Act::SetRole { .. }
            | Act::MakeInvite { .. }
            | Act::MakeReset { .. }
            | Act::RevokeLink { .. } => self,
        })
    }
}

/// Whether messages can be posted to an address. Where it leads is looked at when they are.
fn is_hook_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest.filter(|_| url.len() <= HOOK_URL_BYTES_MAX) else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    // A backslash is a slash to some who read addresses and a letter to others.
    let is_plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    is_plain && authority.starts_with(|c| is_host(c) && c != ':') && authority.chars().all(is_host)
}

fn invalid(error: BadName) -> Failure {
    Failure::new(ErrorCode::NameInvalid, error.to_string())
}

fn bad(message: &str) -> Failure {
    Failure::new(ErrorCode::BadField, message)
}

fn too_long() -> Failure {
    bad("That is too long a time.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acts::Scope;
    use crate::model::{Line, RoomId, UserId};

    const ROOM: RoomId = RoomId::from_bits(7);
    const USER: UserId = UserId::from_bits(8);

    fn ban(user: Option<UserId>, addresses: Option<&str>, seconds: u32) -> Act {
        Act::Ban { user, addresses: addresses.map(Into::into), text: Line::new("why"), seconds }
    }

    #[test]
    fn what_an_act_holds_is_brought_into_one_form() {
        let renamed = Act::RenameRoom { room: ROOM, name: "#Book Club".into() }.checked();
        assert_eq!(renamed, Ok(Act::RenameRoom { room: ROOM, name: "book-club".into() }));
        let bot = Act::MakeBot { name: " Tea  bot ".into() }.checked();
        assert_eq!(bot, Ok(Act::MakeBot { name: "Tea bot".into() }));
        assert_eq!(ban(None, Some("203.0.113.7/24"), 0).checked(), Ok(ban(None, Some("203.0.113.0/24"), 0)));
        let scopes = vec![Scope::Send, Scope::Read, Scope::Send];
        let token = |scopes| Act::MakeToken { bot: USER, text: Line::new("t"), scopes, seconds: SECONDS_MAX };
        assert_eq!(token(scopes).checked(), Ok(token(vec![Scope::Read, Scope::Send])));
    }

    #[test]
    fn what_no_act_can_hold_is_refused_with_its_name_and_room() {
        let failure = Act::RenameRoom { room: ROOM, name: "a/b".into() }.checked().unwrap_err();
        assert_eq!(failure.code, ErrorCode::NameInvalid);
        assert_eq!((failure.request.as_deref(), failure.room), (Some("rename_room"), Some(ROOM)));
        let text = Line::default;
        let long = || "x".repeat(ROW_ID_BYTES_MAX + 1);
        for act in [
            Act::SlowMode { room: ROOM, seconds: SLOW_SECONDS_MAX + 1 },
            Act::Mute { room: ROOM, user: USER, seconds: u32::MAX },
            Act::MakeInvite { text: text(), uses: 0, seconds: SECONDS_MAX + 1 },
            Act::MakeToken { bot: USER, text: text(), scopes: vec![], seconds: 0 },
            Act::MakeToken { bot: USER, text: text(), scopes: vec![Scope::Read], seconds: u32::MAX },
            ban(None, None, 0),
            ban(Some(USER), Some("203.0.113.7"), 0),
            ban(None, Some("0.0.0.0/0"), 0),
            ban(Some(USER), None, u32::MAX),
            Act::EndSession { id: long() },
            Act::RevokeToken { id: long() },
            Act::RemoveHook { id: long() },
            Act::Unban { id: long() },
            Act::CloseReport { id: long() },
            Act::RevokeLink { id: long() },
        ] {
            assert_eq!(act.clone().checked().unwrap_err().code, ErrorCode::BadField, "{act:?}");
        }
        assert_eq!(
            Act::MakeBot { name: "Magpie".into() }.checked().unwrap_err().code,
            ErrorCode::NameInvalid
        );
    }

    #[test]
    fn messages_are_posted_to_web_addresses_only() {
        for url in ["https://a.example/hook?x=1", "http://127.0.0.1:8080", "https://[2001:db8::1]/x"] {
            assert!(is_hook_url(url), "{url}");
        }
        for url in [
            "",
            "https://",
            "https:///x",
            "ftp://a.example",
            "javascript:alert(1)",
            "//a.example",
            "https://user:word@a.example/",
            "https://a.example@b.example",
            "https://a.example\\@b.example",
            "https://:80/",
            "https://a example/",
            "https://a.example/\u{202e}",
            "https://a.example/\r\nHost: b",
            &format!("https://a.example/{}", "x".repeat(HOOK_URL_BYTES_MAX)),
        ] {
            assert!(!is_hook_url(url), "{url:?}");
        }
    }
}
