//! What only one process at a time may have. It must not know what for.

use shared::model::Ms;

use super::database::params;
use super::{Trouble, Writer};

impl Writer {
    /// The holder and the end stand in one value, eight bytes each, the most significant first: as such they are
    /// compared.
    pub(super) fn lease(&mut self, name: &str, holder: u64, at: Ms, until: Ms) -> Result<bool, Trouble> {
        let (key, holder, at) = (format!("lease {name}"), holder.to_be_bytes(), at.max(0).to_be_bytes());
        let value = [holder, until.max(0).to_be_bytes()].concat();
        let taken = self
            .connection
            .prepare_cached(
                "INSERT INTO meta (key, value) VALUES (?1, ?2)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value
                 WHERE substr(meta.value, 1, 8) = ?3 OR substr(meta.value, 9, 8) <= ?4",
            )?
            .execute(params![key.as_str(), value.as_slice(), holder.as_slice(), at.as_slice()])?;
        Ok(taken > 0)
    }
}
