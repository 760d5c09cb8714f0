//! The addresses of the page: which path shows what, both ways. Pure; it must not know rooms or a browser.

use shared::model::{LOBBY_NAME, RoomId, RoomName, UserId};

use crate::account::Secret;

/// What the address bar says is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// `/`
    #[default]
    Lobby,
    /// `/r/NAME`: a public room.
    Room(RoomName),
    /// `/d/ID`: the direct conversation with a user.
    Direct(UserId),
    /// `/p/ID`: a private room or a group.
    Private(RoomId),
    /// `/sign-in`
    SignIn,
    /// `/join#SECRET`: an invitation to sign up.
    Join(Secret),
    /// `/reset#SECRET`: a new password.
    Reset(Secret),
    /// `/owner#SECRET`: who opens it runs the server.
    Owner(Secret),
    /// `/settings`: one's own.
    Settings,
    /// `/settings/ID`: a room's.
    RoomSettings(RoomId),
    /// `/admin`: for those who keep order.
    Admin,
    /// `/lab`: for trying the connection.
    Lab,
}

impl Route {
    /// Reads a path with its fragment, without a query. What is no address of ours is the lobby.
    pub fn parse(address: &str) -> Self {
        let (path, fragment) = address.split_once('#').unwrap_or((address, ""));
        let secret = || Secret(fragment.to_owned());
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let route = match (parts.next(), parts.next(), parts.next()) {
            (Some("lab"), None, _) => Some(Route::Lab),
            (Some("sign-in"), None, _) => Some(Route::SignIn),
            (Some("join"), None, _) => Some(Route::Join(secret())),
            (Some("reset"), None, _) => Some(Route::Reset(secret())),
            (Some("owner"), None, _) => Some(Route::Owner(secret())),
            (Some("settings"), None, _) => Some(Route::Settings),
            (Some("settings"), Some(id), None) => id.parse().ok().map(Route::RoomSettings),
            (Some("admin"), None, _) => Some(Route::Admin),
            (Some("p"), Some(id), None) => id.parse().ok().map(Route::Private),
            (Some("r"), Some(name), None) => percent_decode(name).and_then(|name| Self::room(&name)),
            (Some("d"), Some(id), None) => id.parse().ok().map(Route::Direct),
            _ => None,
        };
        route.unwrap_or_default()
    }

    /// The address of a public room, where the text can be a room's name.
    pub fn room(name: &str) -> Option<Self> {
        let name = RoomName::parse(name).ok()?;
        Some(if name.as_str() == LOBBY_NAME { Route::Lobby } else { Route::Room(name) })
    }

    /// The path of the route, percent-encoded, and its fragment.
    pub fn path(&self) -> String {
        let (start, rest) = match self {
            Route::Lobby => ("/", String::new()),
            Route::Room(name) => ("/r/", percent_encode(name.as_str())),
            Route::Direct(id) => ("/d/", id.to_string()),
            Route::Private(id) => ("/p/", id.to_string()),
            Route::SignIn => ("/sign-in", String::new()),
            Route::Join(secret) => ("/join#", secret.0.clone()),
            Route::Reset(secret) => ("/reset#", secret.0.clone()),
            Route::Owner(secret) => ("/owner#", secret.0.clone()),
            Route::Settings => ("/settings", String::new()),
            Route::RoomSettings(id) => ("/settings/", id.to_string()),
            Route::Admin => ("/admin", String::new()),
            Route::Lab => ("/lab", String::new()),
        };
        [start, &rest].concat()
    }

    /// Whether it is a page that the program of a first visit has not; server/src/assets.rs says the same of
    /// paths.
    pub fn is_of_desk(&self) -> bool {
        self.is_door() || matches!(self, Route::Settings | Route::RoomSettings(_) | Route::Admin | Route::Lab)
    }

    /// Whether it is a page to sign in, or to follow a link for people.
    pub fn is_door(&self) -> bool {
        matches!(self, Route::SignIn | Route::Join(_) | Route::Reset(_) | Route::Owner(_))
    }
}

fn percent_encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut path = String::new();
    for byte in text.bytes() {
        // The unreserved characters of RFC 3986 §2.3.
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            path.push(byte as char);
        } else {
            path.push('%');
            path.push(HEX[usize::from(byte >> 4)] as char);
            path.push(HEX[usize::from(byte & 15)] as char);
        }
    }
    path
}

/// `None` for a broken escape and for bytes that are not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            (high << 4 | low) as u8
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_routes_go_both_ways() {
        let user = UserId::from_bits(77);
        for route in [
            Route::Lobby,
            Route::room("book-club").unwrap(),
            Route::room("Żółć 2").unwrap(),
            Route::Direct(user),
            Route::Private(RoomId::from_bits(78)),
            Route::SignIn,
            Route::Join(Secret("abc-_".to_owned())),
            Route::Reset(Secret("abc".to_owned())),
            Route::Owner(Secret("abc".to_owned())),
            Route::Settings,
            Route::RoomSettings(RoomId::from_bits(78)),
            Route::Admin,
            Route::Lab,
        ] {
            assert_eq!(Route::parse(&route.path()), route, "{}", route.path());
            assert!(route.path().is_ascii());
        }
    }

    #[test]
    fn what_is_no_address_is_the_lobby() {
        for path in [
            "",
            "/",
            "/r",
            "/r/",
            "/r/lobby",
            "/r/%zz",
            "/r/%",
            "/r/%ff",
            "/r/a/b",
            "/d/x",
            "/p/x",
            "/x",
            "/lab/x",
            "/settings/x",
            "/admin/x",
            "/#x",
        ] {
            assert_eq!(Route::parse(path), Route::Lobby, "{path:?}");
        }
        assert_eq!(Route::parse("/r/Book%20Club"), Route::room("book-club").unwrap());
    }
}
