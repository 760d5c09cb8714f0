//! JSON in and out: what a request's body may be, and the one shape of what goes wrong.
//!
//! It must not know what is asked for.

use std::borrow::Cow;
use std::pin::pin;
use std::time::Duration;

use bytes::Buf;
use futures_util::stream::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::model::{BadBody, BadName, Ms};
use shared::protocol::{ErrorCode, Failure, encode};
use tokio::time::timeout;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::limits::TooOften;
use crate::passwords::{BadPassword, Busy};
use crate::store::StoreError;

/// Longest body of a request that is not a message, in bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest time for a body to arrive.
const BODY_WAIT: Duration = Duration::from_secs(10);
/// When to ask again what the server could not do just now.
const UNAVAILABLE_RETRY_MS: Ms = 1_000;

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub status: StatusCode,
    pub code: ErrorCode,
    pub message: Cow<'static, str>,
    pub retry_ms: Option<Ms>,
    /// The method that the address takes.
    pub allow: Option<&'static str>,
}

impl Problem {
    pub fn new(status: StatusCode, code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), retry_ms: None, allow: None }
    }

    /// The answer to whoever is not known, or not by what they brought.
    pub fn sign_in() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::SignInRequired, "Sign in first.")
    }

    pub fn bad_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::SignInRequired, "That token does not work.")
    }

    pub fn bad_credentials() -> Self {
        let message = "The name or the password is wrong.";
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::BadCredentials, message)
    }

    pub fn forbidden(message: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    pub fn not_found(message: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message)
    }

    /// The server cannot do it now.
    pub fn unavailable() -> Self {
        let message = "The server cannot do that now. Please try again.";
        Self {
            retry_ms: Some(UNAVAILABLE_RETRY_MS),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
        }
    }

    fn later(status: StatusCode, code: ErrorCode, message: &'static str, retry_ms: Ms) -> Self {
        Self { retry_ms: Some(retry_ms.max(1)), ..Self::new(status, code, message) }
    }

    /// What a store's refusal is here. `at` is the time of day.
    pub fn of_store(error: StoreError, at: Ms) -> Self {
        use StatusCode as S;
        match error {
            // Whoever is not in a room is told the same as of one that does not exist.
            StoreError::NotFound | StoreError::NotMember => {
                Self::not_found("There is no such thing, or it is not for you.")
            }
            StoreError::NameTaken => Self::new(
                S::CONFLICT,
                ErrorCode::NameTaken,
                "Somebody has that name, or one that looks like it.",
            ),
            StoreError::TooManyRooms => {
                Self::new(S::CONFLICT, ErrorCode::TooManyRooms, "You are in as many rooms as you can be.")
            }
            StoreError::TooMany => Self::new(S::CONFLICT, ErrorCode::TooMany, "There are too many of these."),
            StoreError::Forbidden => Self::forbidden("You may not do that."),
            StoreError::Archived => Self::new(
                S::FORBIDDEN,
                ErrorCode::Archived,
                "The room is archived: nobody writes there any more.",
            ),
            StoreError::Blocked => {
                Self::new(S::FORBIDDEN, ErrorCode::Blocked, "One of the two has blocked the other.")
            }
            StoreError::Banned => Self::new(S::FORBIDDEN, ErrorCode::Banned, "This account is banned."),
            StoreError::Ended => {
                Self::new(S::UNAUTHORIZED, ErrorCode::SignInRequired, "This session has ended.")
            }
            StoreError::Muted(until) => {
                let message = "You may not write in this room for a while.";
                Self::later(S::FORBIDDEN, ErrorCode::Muted, message, until - at)
            }
            StoreError::SlowMode(until) => {
                let message = "The room is in slow mode: wait a little between messages.";
                Self::later(S::TOO_MANY_REQUESTS, ErrorCode::SlowMode, message, until - at)
            }
            StoreError::Unavailable(_) => Self::unavailable(),
        }
    }

    pub fn response(&self) -> Response {
        let retry_ms = self.retry_ms.map(|retry_ms| u32::try_from(retry_ms).unwrap_or(u32::MAX));
        let failure = Failure { retry_ms, ..Failure::new(self.code, self.message.as_ref()) };
        let mut response = answer(self.status, &failure);
        let headers = response.headers_mut();
        if let Some(retry_ms) = self.retry_ms {
            // In whole seconds, rounded up (RFC 9110 §10.2.3).
            headers.insert(header::RETRY_AFTER, HeaderValue::from((retry_ms.max(1) - 1) / 1_000 + 1));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED && self.code == ErrorCode::SignInRequired {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<TooOften> for Problem {
    fn from(TooOften { retry_ms }: TooOften) -> Self {
        let message = "That was too often. Please wait a little.";
        Self::later(StatusCode::TOO_MANY_REQUESTS, ErrorCode::RateLimited, message, retry_ms)
    }
}

impl From<Busy> for Problem {
    fn from(Busy: Busy) -> Self {
        Self::unavailable()
    }
}

impl From<BadPassword> for Problem {
    fn from(error: BadPassword) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::BadPassword, error.to_string())
    }
}

impl From<BadName> for Problem {
    fn from(error: BadName) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::NameInvalid, error.to_string())
    }
}

impl From<BadBody> for Problem {
    fn from(error: BadBody) -> Self {
        let code = match error {
            BadBody::Empty => ErrorCode::BodyEmpty,
            BadBody::TooLong(_) => ErrorCode::BodyTooLong,
        };
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }
}

/// An answer in JSON, which nobody keeps.
pub fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let mut response = Response::new(encode(body).into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Reads a body of at most so many bytes.
///
/// # Errors
/// It is too long, or takes too long.
pub async fn read<S, B, E>(body: S, bytes_max: usize) -> Result<Vec<u8>, Problem>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let too_slow = || {
        let message = "The request did not arrive in time.";
        Problem::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::Unavailable, message)
    };
    let read = async {
        let mut body = pin!(body);
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            let mut piece = piece.map_err(|_| too_slow())?;
            if bytes.len() + piece.remaining() > bytes_max {
                let message = "That is too long.";
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadField, message));
            }
            while piece.has_remaining() {
                let chunk = piece.chunk();
                bytes.extend_from_slice(chunk);
                let length = chunk.len();
                piece.advance(length);
            }
        }
        Ok(bytes)
    };
    timeout(BODY_WAIT, read).await.unwrap_or_else(|_| Err(too_slow()))
}

/// Refuses what a page of another site can send without asking us first: any type but JSON.
///
/// # Errors
/// It is not JSON by its `Content-Type`.
pub fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let is_json = types.next().and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let (essence, _) = value.split_once(';').unwrap_or((value, ""));
        essence.trim().eq_ignore_ascii_case("application/json")
    });
    if is_json && types.next().is_none() {
        return Ok(());
    }
    let message = "The body's type must be application/json.";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadJson, message))
}

/// Reads a body's JSON.
///
/// # Errors
/// It is none, or not of this shape. Nothing of it is repeated.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let bad = |code, message| Problem::new(StatusCode::BAD_REQUEST, code, message);
    let no_object = || bad(ErrorCode::BadJson, "The body is one JSON object.");
    // A list would be read as the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(no_object());
    }
    serde_json::from_slice(body).map_err(|error| match error.is_data() {
        true => bad(ErrorCode::BadField, "A field is missing, or holds what it cannot hold."),
        false => no_object(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_json() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_TYPE, value.parse().unwrap());
            }
            expect_json(&headers).is_ok()
        };
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/json;"] {
            assert!(of(&[good]), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=application/json",
            "text/plain; application/json",
            "application/jsonp",
        ] {
            assert!(!of(&[bad]), "{bad}");
        }
        assert!(!of(&[]) && !of(&["application/json", "text/plain"]));
    }

    #[test]
    fn what_is_not_yours_looks_like_what_is_not_there() {
        assert_eq!(Problem::of_store(StoreError::NotMember, 0), Problem::of_store(StoreError::NotFound, 0));
    }

    #[test]
    fn waits_are_told_in_both_ways() {
        let problem = Problem::of_store(StoreError::SlowMode(5_001), 1_000);
        let response = problem.response();
        assert_eq!((response.status(), problem.retry_ms), (StatusCode::TOO_MANY_REQUESTS, Some(4_001)));
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        assert_eq!(Problem::of_store(StoreError::Muted(10), 1_000).retry_ms, Some(1));
    }
}
