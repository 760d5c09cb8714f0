//! `/api/…` for people: make an account, sign in and out, change a password, use a link.
//!
//! The rules are in [`crate::accounts`] and [`crate::passwords`], the facts in the store. Each change of a
//! session is told to the hubs, which close its sockets. It must not know rooms.

use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Buf;
use futures_util::stream::Stream;
use serde::{Deserialize, Serialize};
use shared::model::{Claim, Ms, UserId, UserName};
use shared::protocol::{ErrorCode, User};
use shared::rights::Role;
use warp::Filter;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::reject::Rejection;
use warp::reply::Response;

use super::cookies::{Session, bearer, clear_cookie, fresh, session, set_cookie};
use super::json::{BODY_BYTES_MAX, Problem, answer, expect_json, parse, read};
use super::{Context, device};
use crate::accounts::{Attempt, NameKey, Registration, session_end};
use crate::addresses::Client;
use crate::broker::{Hint, Topic};
use crate::engine::wall_clock;
use crate::handshake::is_origin_allowed;
use crate::passwords;
use crate::secrets::Secret;
use crate::store::{Applicant, Credentials, Ended, Identity, Link, NewSession, StoreError, TokenHash};

/// The last part of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Account,
    SignUp,
    SignIn,
    SignOut,
    Password,
    Link,
    Reset,
    Owner,
}

impl FromStr for Endpoint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "account" => Endpoint::Account,
            "sign-up" => Endpoint::SignUp,
            "sign-in" => Endpoint::SignIn,
            "sign-out" => Endpoint::SignOut,
            "password" => Endpoint::Password,
            "link" => Endpoint::Link,
            "reset" => Endpoint::Reset,
            "owner" => Endpoint::Owner,
            _ => return Err(()),
        })
    }
}

#[derive(Deserialize)]
struct SignUp {
    name: Option<String>,
    password: String,
    link: Option<String>,
}

#[derive(Deserialize)]
struct SignIn {
    name: String,
    password: String,
}

#[derive(Deserialize)]
struct SignOut {
    #[serde(default)]
    everywhere: bool,
}

#[derive(Deserialize)]
struct ChangePassword {
    old: String,
    new: String,
}

#[derive(Deserialize)]
struct UseLink {
    link: String,
}

#[derive(Deserialize)]
struct Reset {
    link: String,
    password: String,
}

/// Who somebody is now.
#[derive(Serialize)]
struct Person {
    user: User,
    role: Role,
}

impl From<Identity> for Person {
    fn from(identity: Identity) -> Self {
        Self { user: identity.user, role: identity.role }
    }
}

/// Who asks, and what they can do about it.
#[derive(Serialize)]
struct Account {
    user: Option<User>,
    role: Role,
    guests: bool,
    registration: Registration,
}

/// What a link is for.
#[derive(Serialize)]
struct LinkKind {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
}

/// A request, besides its body.
struct Call<'a> {
    context: &'a Context,
    client: Client,
    headers: HeaderMap,
    /// The time of day.
    at: Ms,
}

/// These endpoints; other paths are left to other filters.
pub(super) fn filter(context: Arc<Context>) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("api" / Endpoint)
        .and(warp::method())
        .and(warp::ext::get::<Client>())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |endpoint, method: Method, client, headers, body| {
            let context = context.clone();
            async move {
                let at = wall_clock(SystemTime::now());
                let call = Call { context: &context, client, headers, at };
                call.answer(endpoint, &method, body).await.unwrap_or_else(|problem| problem.response())
            }
        })
}

impl Call<'_> {
    async fn answer<S, B, E>(&self, endpoint: Endpoint, method: &Method, body: S) -> Result<Response, Problem>
    where
        S: Stream<Item = Result<B, E>>,
        B: Buf,
    {
        self.context.api.request(self.client.address)?;
        let allowed = if endpoint == Endpoint::Account { Method::GET } else { Method::POST };
        if *method != allowed {
            let allow = if endpoint == Endpoint::Account { "GET" } else { "POST" };
            let message = "This address does not take that method.";
            let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadField, message);
            return Err(Problem { allow: Some(allow), ..problem });
        }
        if endpoint == Endpoint::Account {
            return self.account().await;
        }
        // A browser says with each POST which page it is from. Whoever does not say is not let in either: the
        // cookie alone may have been sent for another site's page.
        let rules = self.context.rules.speaking(self.client.scheme);
        if !self.headers.contains_key(header::ORIGIN) || !is_origin_allowed(&self.headers, &rules) {
            return Err(Problem::forbidden(
                "Only the server's own page may do that (see the header Origin).",
            ));
        }
        expect_json(&self.headers)?;
        let body = read(body, BODY_BYTES_MAX).await?;
        match endpoint {
            Endpoint::Account => self.account().await,
            Endpoint::SignUp => self.sign_up(parse(&body)?).await,
            Endpoint::SignIn => self.sign_in(parse(&body)?).await,
            Endpoint::SignOut => self.sign_out(parse(&body)?).await,
            Endpoint::Password => self.change_password(parse(&body)?).await,
            Endpoint::Link => self.link(parse(&body)?).await,
            Endpoint::Reset => self.reset(parse(&body)?).await,
            Endpoint::Owner => self.own(parse(&body)?).await,
        }
    }

    async fn account(&self) -> Result<Response, Problem> {
        let token = match bearer(&self.headers) {
            Some(token) => Some(token.ok_or_else(Problem::bad_token)?),
            None => self.token(),
        };
        let who = self.who(token).await?;
        let (user, role) = who.map_or((None, Role::Guest), |who| (Some(who.user), who.role));
        let api = &self.context.api;
        let account = Account { user, role, guests: api.guests, registration: api.registration };
        Ok(answer(StatusCode::OK, &account))
    }

    async fn sign_up(&self, SignUp { name, password, link }: SignUp) -> Result<Response, Problem> {
        let (context, at) = (self.context, self.at);
        context.api.sign_up(self.client.address)?;
        let link = match link {
            Some(text) => Some(self.look_at(&text).await?),
            None => None,
        };
        let registration = context.api.registration;
        if !registration.allows(link.as_ref().map(|(_, link)| link)) {
            return Err(match registration {
                Registration::Closed => Problem::forbidden("Nobody can make an account here."),
                Registration::Invite if link.is_none() => {
                    Problem::forbidden("An account here needs an invitation.")
                }
                Registration::Invite | Registration::Open => bad_link(),
            });
        }
        let session = self.token();
        let guest = self.who(session).await?;
        if guest.as_ref().is_some_and(|guest| guest.role > Role::Guest) {
            return Err(Problem::forbidden("You have an account already."));
        }
        let name = name.map(|name| UserName::claim(&name)).transpose()?;
        let shown = match (&name, &guest) {
            (Some(claim), _) => &claim.name,
            (None, Some(guest)) => &guest.user.name,
            (None, None) => {
                let message = "An account needs a name.";
                return Err(Problem::new(StatusCode::BAD_REQUEST, ErrorCode::NameInvalid, message));
            }
        };
        passwords::check(&password, shown)?;
        let hash = context.api.hasher.hash(password).await?;
        let applicant = match (guest, session, name) {
            (Some(guest), Some(session), name) => {
                if let Some(name) = name.filter(|claim| claim.name != guest.user.name) {
                    self.rename(guest.user.id, name).await?;
                }
                Applicant::Guest(session)
            }
            (_, _, Some(name)) => {
                let mut random = [0; 8];
                getrandom::fill(&mut random).map_err(|_| Problem::unavailable())?;
                Applicant::New { id: UserId::from_bits(u64::from_ne_bytes(random)), name }
            }
            (_, _, None) => return Err(Problem::unavailable()),
        };
        let (fresh, new) = self.new_session()?;
        let link = link.map(|(secret, _)| secret);
        let signed_up = context.store.sign_up(applicant, hash, link, new).await;
        let (identity, ended) = signed_up.map_err(|error| Problem::of_store(error, at))?;
        tracing::info!(user = %identity.user.id, address = %self.client.address, "signed up");
        self.tell_ended(ended);
        context.publish(Topic::User(identity.user.id), Hint::User { user: identity.user.id });
        Ok(self.with_cookie(identity, &fresh))
    }

    async fn rename(&self, user: UserId, name: Claim<UserName>) -> Result<(), Problem> {
        let renamed = self.context.store.rename(user, name, true, self.at).await;
        let (user, events) = renamed.map_err(|error| Problem::of_store(error, self.at))?;
        self.context.publish_events(events);
        self.context.publish(Topic::User(user.id), Hint::Renamed { user });
        Ok(())
    }

    /// Whatever is wrong, the answer is the same, and so is the work.
    async fn sign_in(&self, SignIn { name, password }: SignIn) -> Result<Response, Problem> {
        let (context, at) = (self.context, self.at);
        let key = UserName::claim(&name).ok().map(|claim| claim.skeleton);
        let (attempt, credentials) = self.try_password(key.clone(), password).await?;
        let Some(Credentials { user, password }) = credentials else {
            context.api.guard(|guard, now| guard.wrong(attempt, now));
            tracing::info!(address = %self.client.address, "a sign-in failed");
            return Err(Problem::bad_credentials());
        };
        context.api.guard(|guard, _| guard.right(attempt));
        let (fresh, new) = self.new_session()?;
        let session = new.token;
        let (identity, ended) = match context.store.sign_in(user.id, new, self.token()).await {
            Err(StoreError::NotFound) => return Err(Problem::bad_credentials()),
            signed_in => signed_in.map_err(|error| Problem::of_store(error, at))?,
        };
        // The password may have become another while this one was looked at.
        let now = context.store.credentials(key.unwrap_or_default()).await;
        if now.map(|credentials| credentials.password) != Ok(password) {
            self.tell_ended(context.store.sign_out(session, false).await.ok());
            return Err(Problem::bad_credentials());
        }
        tracing::info!(user = %identity.user.id, address = %self.client.address, "signed in");
        self.tell_ended(ended);
        Ok(self.with_cookie(identity, &fresh))
    }

    /// Tries a password for a name: the attempt, and whose the two are. Nobody's name takes as long.
    async fn try_password(
        &self,
        key: NameKey,
        password: String,
    ) -> Result<(Attempt, Option<Credentials>), Problem> {
        let (context, at) = (self.context, self.at);
        let address = self.client.address;
        let attempt = context.api.guard(|guard, now| guard.begin(key.clone(), address, now))?;
        // A name that nobody can have is looked up, too, as one that nobody has.
        let looked_up = context.store.credentials(key.unwrap_or_default()).await;
        let credentials = match looked_up {
            Ok(credentials) => Some(credentials),
            Err(StoreError::NotFound) => None,
            Err(error) => {
                context.api.guard(|guard, _| guard.forget(attempt));
                return Err(Problem::of_store(error, at));
            }
        };
        let hash = credentials.as_ref().map(|found| found.password.clone());
        match context.api.hasher.verify(password, hash).await {
            Ok(fits) => Ok((attempt, credentials.filter(|_| fits))),
            Err(busy) => {
                context.api.guard(|guard, _| guard.forget(attempt));
                Err(busy.into())
            }
        }
    }

    async fn sign_out(&self, SignOut { everywhere }: SignOut) -> Result<Response, Problem> {
        if let Some(token) = self.token() {
            match self.context.store.sign_out(token, everywhere).await {
                Ok(ended) => self.tell_ended(Some(ended)),
                Err(StoreError::NotFound) => {}
                Err(error) => return Err(Problem::of_store(error, self.at)),
            }
        }
        let mut response = done();
        set(&mut response, clear_cookie(self.client.scheme));
        Ok(response)
    }

    async fn change_password(
        &self,
        ChangePassword { old, new }: ChangePassword,
    ) -> Result<Response, Problem> {
        let (context, at) = (self.context, self.at);
        let token = self.token().ok_or_else(Problem::sign_in)?;
        let who = self.who(Some(token)).await?.filter(|who| who.role > Role::Guest);
        let who = who.ok_or_else(Problem::sign_in)?;
        passwords::check(&new, &who.user.name)?;
        let key = UserName::claim(who.user.name.as_str()).ok().map(|claim| claim.skeleton);
        let (attempt, credentials) = self.try_password(key, old).await?;
        if credentials.is_none_or(|found| found.user.id != who.user.id) {
            context.api.guard(|guard, now| guard.wrong(attempt, now));
            let message = "The old password is wrong.";
            return Err(Problem { message: message.into(), ..Problem::bad_credentials() });
        }
        context.api.guard(|guard, _| guard.right(attempt));
        let hash = context.api.hasher.hash(new).await?;
        let ended = context.store.set_password(token, hash).await;
        let ended = ended.map_err(|error| match error {
            StoreError::NotFound => Problem::sign_in(),
            error => Problem::of_store(error, at),
        })?;
        tracing::info!(user = %who.user.id, address = %self.client.address, "changed the password");
        self.tell_ended(Some(ended));
        Ok(done())
    }

    async fn link(&self, UseLink { link }: UseLink) -> Result<Response, Problem> {
        let (_, link) = self.look_at(&link).await?;
        let (kind, user) = match link {
            Link::Invite => ("invite", None),
            Link::Reset(user) => ("reset", Some(user)),
            Link::Owner => ("owner", None),
        };
        Ok(answer(StatusCode::OK, &LinkKind { kind, user }))
    }

    async fn reset(&self, Reset { link, password }: Reset) -> Result<Response, Problem> {
        let (context, at) = (self.context, self.at);
        let (secret, Link::Reset(user)) = self.look_at(&link).await? else { return Err(bad_link()) };
        passwords::check(&password, &user.name)?;
        let hash = context.api.hasher.hash(password).await?;
        let (fresh, new) = self.new_session()?;
        let (identity, ended) = match context.store.reset_password(secret, hash, new).await {
            Err(StoreError::NotFound) => return Err(bad_link()),
            reset => reset.map_err(|error| Problem::of_store(error, at))?,
        };
        tracing::info!(user = %identity.user.id, address = %self.client.address, "reset the password");
        self.tell_ended(Some(ended));
        Ok(self.with_cookie(identity, &fresh))
    }

    async fn own(&self, UseLink { link }: UseLink) -> Result<Response, Problem> {
        let (context, at) = (self.context, self.at);
        let token = self.token().ok_or_else(Problem::sign_in)?;
        let who = self.who(Some(token)).await?.filter(|who| who.role > Role::Guest);
        who.ok_or_else(Problem::sign_in)?;
        let (secret, Link::Owner) = self.look_at(&link).await? else { return Err(bad_link()) };
        let identity = match context.store.take_ownership(secret, token, at).await {
            Err(StoreError::NotFound) => return Err(bad_link()),
            owned => owned.map_err(|error| Problem::of_store(error, at))?,
        };
        tracing::info!(user = %identity.user.id, address = %self.client.address, "became an owner");
        context.publish(Topic::User(identity.user.id), Hint::User { user: identity.user.id });
        Ok(answer(StatusCode::OK, &Person::from(identity)))
    }

    /// The session that the cookie names.
    fn token(&self) -> Option<TokenHash> {
        match session(&self.headers, &self.context.secret, self.client.scheme) {
            Session::Known(token) => Some(token),
            Session::Forged | Session::None { .. } => None,
        }
    }

    /// Whose a session is, if it is anybody's.
    async fn who(&self, token: Option<TokenHash>) -> Result<Option<Identity>, Problem> {
        let Some(token) = token else { return Ok(None) };
        match self.context.store.identify(NewSession::of(token, self.at), None).await {
            Ok(identity) => Ok(Some(identity)),
            Err(StoreError::NotFound | StoreError::Ended) => Ok(None),
            Err(error) => Err(Problem::of_store(error, self.at)),
        }
    }

    /// What a link that works is for.
    async fn look_at(&self, text: &str) -> Result<(TokenHash, Link), Problem> {
        let secret = Secret::parse(text).ok_or_else(bad_link)?.hash();
        match self.context.store.link(secret, self.at).await {
            Ok(link) => Ok((secret, link)),
            Err(StoreError::NotFound) => Err(bad_link()),
            Err(error) => Err(Problem::of_store(error, self.at)),
        }
    }

    /// A token that nobody has yet, and its session of an account.
    fn new_session(&self) -> Result<(String, NewSession), Problem> {
        let (fresh, token) = fresh(&self.context.secret).ok_or_else(Problem::unavailable)?;
        let until = session_end(self.at, self.context.api.session_days);
        Ok((fresh, NewSession { token, device: device(&self.headers), at: self.at, until }))
    }

    fn with_cookie(&self, identity: Identity, fresh: &str) -> Response {
        let mut response = answer(StatusCode::OK, &Person::from(identity));
        set(&mut response, set_cookie(fresh, self.client.scheme, self.context.api.session_days));
        response
    }

    /// Has the sockets of ended sessions closed, wherever they are.
    fn tell_ended(&self, ended: Option<Ended>) {
        if let Some(ended) = ended {
            self.context.publish(Topic::All, Hint::Ended(ended));
        }
    }
}

fn bad_link() -> Problem {
    Problem::not_found("That link does not work, or not any more.")
}

fn done() -> Response {
    let mut response = Response::new(Default::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn set(response: &mut Response, cookie: String) {
    if let Ok(value) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}
