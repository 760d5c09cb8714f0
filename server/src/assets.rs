//! The browser client, embedded: the page and every file it loads, each as it is and compressed.
//!
//! `build.rs` makes the table. This file finds an asset and picks the form that a browser accepts. It must
//! not know warp, nor any path that is not an asset's.

/// One embedded file.
#[derive(Debug)]
pub struct Asset {
    /// The URL path, with its leading slash. The page is at `/`.
    pub path: &'static str,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The value of `ETag`. It is weak, since the same tag stands for all three forms (RFC 9110 §8.8.1).
    pub etag: &'static str,
    /// Whether the path holds the content's hash. Such an asset never changes and may be cached for ever;
    /// any other must be asked for again (`Cache-Control: no-cache`).
    pub immutable: bool,
    /// The file as it is.
    pub identity: &'static [u8],
    /// The file compressed with brotli, where that is smaller.
    pub brotli: Option<&'static [u8]>,
    /// The file compressed with gzip, where that is smaller.
    pub gzip: Option<&'static [u8]>,
}

/// The page first, then what it loads: about a handful, so that a scan is quick enough.
static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The asset at a URL path, such as `/assets/style-0123456789abcdef.css`. `/` is the page.
pub fn get(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

/// The page at an address that the client's own router knows: with the program that has the chat alone, or
/// with the whole one. client/src/route.rs says the same of its routes.
pub fn page(path: &str) -> &'static Asset {
    const WHOLE: [&str; 7] = ["/settings", "/admin", "/lab", "/sign-in", "/join", "/reset", "/owner"];
    let is_whole = WHOLE.iter().any(|start| path.starts_with(start));
    let page = get(if is_whole { "/desk" } else { "/" }).or_else(|| get("/"));
    page.expect("build.rs always writes the page")
}

/// The icon, for browsers that ask for one without having seen the page.
pub fn icon() -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path.starts_with("/assets/favicon"))
}

/// A content coding (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// No coding at all.
    Identity,
    /// `br`
    Brotli,
    /// `gzip`
    Gzip,
}

impl Encoding {
    /// The value of `Content-Encoding`; none for [`Encoding::Identity`].
    pub fn header(self) -> Option<&'static str> {
        match self {
            Encoding::Identity => None,
            Encoding::Brotli => Some("br"),
            Encoding::Gzip => Some("gzip"),
        }
    }
}

/// The form of `asset` for a request with this `Accept-Encoding` (RFC 9110 §12.5.3), and its bytes.
///
/// The highest weight wins; among equals brotli, then gzip. Uncompressed bytes are what is left: for a
/// request without the header, for one that accepts neither coding, and for one that accepts nothing, which
/// is answered all the same.
pub fn choose(asset: &Asset, accept_encoding: Option<&str>) -> (Encoding, &'static [u8]) {
    let accept = accept_encoding.unwrap_or_default();
    let mut best = (Encoding::Identity, asset.identity, weight(accept, "identity").unwrap_or(0));
    for (encoding, name, form) in
        [(Encoding::Gzip, "gzip", asset.gzip), (Encoding::Brotli, "br", asset.brotli)]
    {
        let weight = weight(accept, name).or_else(|| weight(accept, "*")).unwrap_or(0);
        if let Some(bytes) = form
            && weight > 0
            && weight >= best.2
        {
            best = (encoding, bytes, weight);
        }
    }
    (best.0, best.1)
}

/// The weight of a coding, in thousandths. `None` if it is not listed. A weight that is not one counts as 0.
fn weight(accept_encoding: &str, coding: &str) -> Option<u16> {
    accept_encoding.split(',').find_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(coding) {
            return None;
        }
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let Some(quality) = quality else { return Some(1000) };
        match quality.parse::<f32>() {
            Ok(value) if (0.0..=1.0).contains(&value) => Some((value * 1000.0) as u16),
            _ => Some(0),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Asset = Asset {
        path: "/x.js",
        content_type: "text/javascript",
        etag: "W/\"1\"",
        immutable: true,
        identity: b"as it is",
        brotli: Some(b"br"),
        gzip: Some(b"gzip"),
    };
    const PLAIN: Asset = Asset { brotli: None, gzip: None, ..ALL };

    #[track_caller]
    fn check(accept_encoding: Option<&str>, expected: Encoding) {
        let (encoding, bytes) = choose(&ALL, accept_encoding);
        assert_eq!(encoding, expected, "{accept_encoding:?}");
        assert_eq!(bytes, expected.header().map_or(ALL.identity, str::as_bytes));
        assert_eq!(choose(&PLAIN, accept_encoding), (Encoding::Identity, PLAIN.identity));
    }

    #[test]
    fn brotli_is_preferred_among_equals() {
        check(Some("gzip, deflate, br, zstd"), Encoding::Brotli);
        check(Some("br,gzip"), Encoding::Brotli);
        check(Some("*"), Encoding::Brotli);
        check(Some("GZIP;q=0.5, Br;Q=0.5"), Encoding::Brotli);
    }

    #[test]
    fn weights_decide() {
        check(Some("gzip;q=1.0, br;q=0.5"), Encoding::Gzip);
        check(Some("gzip;q=0.001"), Encoding::Gzip);
        check(Some("br;q=0.5, identity;q=0.8"), Encoding::Identity);
        check(Some("br ; q=0.9 , gzip ; q=0.8"), Encoding::Brotli);
    }

    #[test]
    fn zero_means_no() {
        check(Some("br;q=0, gzip"), Encoding::Gzip);
        check(Some("br;q=0.000, *"), Encoding::Gzip);
        check(Some("*;q=0"), Encoding::Identity);
        check(Some("identity;q=0, *;q=0"), Encoding::Identity);
        check(Some("identity;q=0, gzip"), Encoding::Gzip);
    }

    #[test]
    fn nothing_known_means_uncompressed() {
        check(None, Encoding::Identity);
        check(Some(""), Encoding::Identity);
        check(Some("zstd, deflate"), Encoding::Identity);
        check(Some("br;q=nonsense"), Encoding::Identity);
        check(Some("br;q=NaN, gzip;q=2"), Encoding::Identity);
        check(Some(",;,;q=1,"), Encoding::Identity);
    }

    #[test]
    fn the_table_holds_the_page_and_all_it_names() {
        for page in [page("/r/room"), page("/settings")] {
            let html = std::str::from_utf8(page.identity).expect("the page is UTF-8");
            assert!(page.content_type.starts_with("text/html"));
            assert!(!page.immutable);
            assert!(!html.contains("data-trunk"));
            for (index, _) in html.match_indices("\"/assets/") {
                let path = html[index + 1..].split('"').next().unwrap_or_default();
                assert!(get(path).is_some_and(|asset| asset.immutable), "{path}");
            }
        }
        assert!(get("/assets/unknown.js").is_none());
    }
}
