//! The one-time link by which somebody becomes an owner: offered while there is none, and to an operator who
//! asks for it.
//!
//! Whoever can read the log or the data directory runs the server already. It must not know sessions.

use std::sync::Arc;
use std::time::SystemTime;

use shared::model::Ms;

use crate::engine::wall_clock;
use crate::secrets::{Secret, Secrets};
use crate::store::{Store, StoreError};

/// How long a link works.
const VALID_MS: Ms = 7 * 86_400_000;

/// What the first owner's secret is made of the store's for.
const FIRST: &[u8] = b"first owner";

/// Makes links of a server.
#[derive(Clone)]
pub struct OwnerLinks {
    pub store: Arc<dyn Store>,
    /// Where people find the server, as `scheme://host[:port]`.
    pub origin: String,
}

impl OwnerLinks {
    /// The link for the first owner, while there is none: the same at each start and at each node, so that
    /// whichever of them was read in a log works.
    ///
    /// # Errors
    /// The store's.
    pub async fn first(&self) -> Result<Option<String>, StoreError> {
        self.offer(Secrets::new(self.store.secret()).constant(FIRST), false).await
    }

    /// A new link, in place of an earlier one.
    ///
    /// # Errors
    /// The store's; `Unavailable` also without random bytes from the system.
    pub async fn make(&self) -> Result<Option<String>, StoreError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        self.offer(Secrets::new(random).make(), true).await
    }

    async fn offer(&self, secret: Secret, always: bool) -> Result<Option<String>, StoreError> {
        let at = wall_clock(SystemTime::now());
        let is_kept = self.store.offer_ownership(secret.hash(), at, at + VALID_MS, always).await?;
        // The fragment goes to no server and into no log but our own.
        Ok(is_kept.then(|| format!("{}/owner#{}", self.origin, secret.text())))
    }
}
