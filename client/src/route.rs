//! The addresses of the page: which path shows what, both ways. Pure; it must not know rooms or a browser.

use shared::model::{LOBBY_NAME, RoomName, UserId};

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
    /// `/lab`: for trying the connection.
    Lab,
}

impl Route {
    /// Reads a path (without query or fragment). What is no address of ours is the lobby.
    pub fn parse(path: &str) -> Self {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let route = match (parts.next(), parts.next(), parts.next()) {
            (Some("lab"), None, _) => Some(Route::Lab),
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

    /// The path of the route, percent-encoded.
    pub fn path(&self) -> String {
        match self {
            Route::Lobby => "/".to_owned(),
            Route::Room(name) => {
                let mut path = "/r/".to_owned();
                percent_encode(name.as_str(), &mut path);
                path
            }
            Route::Direct(id) => {
                let mut path = "/d/".to_owned();
                path.push_str(&id.to_string());
                path
            }
            Route::Lab => "/lab".to_owned(),
        }
    }
}

fn percent_encode(text: &str, path: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
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
            Route::Lab,
        ] {
            assert_eq!(Route::parse(&route.path()), route, "{}", route.path());
            assert!(route.path().is_ascii());
        }
    }

    #[test]
    fn what_is_no_address_is_the_lobby() {
        for path in
            ["", "/", "/r", "/r/", "/r/lobby", "/r/%zz", "/r/%", "/r/%ff", "/r/a/b", "/d/x", "/x", "/lab/x"]
        {
            assert_eq!(Route::parse(path), Route::Lobby, "{path:?}");
        }
        assert_eq!(Route::parse("/r/Book%20Club"), Route::room("book-club").unwrap());
    }
}
