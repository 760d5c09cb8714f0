//! The one-time link by which somebody becomes an owner: offered while there is none, and to an operator who
//! asks for it.
//!
//! Whoever can read the log or the data directory runs the server already. It must not know sessions.

use std::sync::Arc;
use std::time::SystemTime;

use shared::model::Ms;

use crate::engine::wall_clock;
use crate::secrets::Secrets;
use crate::store::{Store, StoreError};

/// How long a link works.
const VALID_MS: Ms = 7 * 86_400_000;

/// Makes links of a server.
#[derive(Clone)]
pub struct OwnerLinks {
    pub store: Arc<dyn Store>,
    /// Where people find the server, as `scheme://host[:port]`.
    pub origin: String,
}

impl OwnerLinks {
    /// A new link, in place of an earlier one. Without `always` there is one only while there is no owner.
    ///
    /// # Errors
    /// The store's; `Unavailable` also without random bytes from the system.
    pub async fn make(&self, always: bool) -> Result<Option<String>, StoreError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let secret = Secrets::new(random).make();
        let at = wall_clock(SystemTime::now());
        let is_kept = self.store.offer_ownership(secret.hash(), at, at + VALID_MS, always).await?;
        // The fragment goes to no server and into no log but our own.
        Ok(is_kept.then(|| format!("{}/owner#{}", self.origin, secret.text())))
    }
}
