//! The writer of the embedded store: group commit, and what it remembers between changes.
//!
//! The changes themselves are in files by subject. Everything runs on one thread and inside one transaction per batch. A change answers only after the
//! commit, so it may rely on what earlier changes of its batch did.

use std::collections::{HashMap, HashSet};

use shared::model::{Ref, RoomId, UserId};

use super::appends::{Membership, Place};
use super::database::{Connection, Fault, NONE, OptionalExtension};
use super::queue::Queue;
use super::{Trouble, limit};

/// Weight of the changes in one transaction; the last may go over it.
const BATCH_MAX: usize = 4_096;
/// Events of a deleted room that are taken away in one transaction.
pub(in crate::store) const PURGE_MAX: usize = 10_000;
/// How often one transaction looks for more of them: twice for each room, once for what was said and once for the
/// end.
const PURGE_ROOMS_MAX: usize = 64;

/// A deleted room and its first event that is still there.
pub(in crate::store) const PURGED: &str =
    "SELECT p.room, (SELECT min(e.seq) FROM events e WHERE e.room = p.room) FROM purges p LIMIT 1";
/// Both ends are said as values: whatever a server believes to know of the room, that is little, and worth its
/// index.
pub(in crate::store) const PURGE: &str = "DELETE FROM events WHERE room = ?1 AND seq >= ?2 AND seq < ?3";

/// A change: run inside the transaction; what it returns is called after the commit. An error means that the
/// transaction is lost.
pub(super) type Change = Box<dyn FnOnce(&mut Writer) -> Result<Answer, Fault> + Send>;
/// Sends a change's answer.
pub(super) type Answer = Box<dyn FnOnce() + Send>;

pub(in crate::store) struct Writer {
    pub(in crate::store) connection: Connection,
    /// Rooms in use, with what this transaction did to them. Never wrong, but not complete.
    pub(super) places: HashMap<RoomId, Place>,
    /// Some of those who are members, likewise.
    pub(super) memberships: HashMap<(RoomId, UserId), Membership>,
    /// There may be events of deleted rooms.
    pub(super) purging: bool,
    /// Events are sent before the answer to the one before is there, where that is possible: no `ref` is thought
    /// to be a repeat.
    pub(super) ahead: bool,
    /// Except for these.
    pub(super) repeats: HashSet<(UserId, Ref)>,
    /// Transactions that were committed.
    #[cfg(test)]
    pub(super) commits: u64,
}

impl Writer {
    pub(in crate::store) fn new(connection: Connection) -> Self {
        Self {
            connection,
            places: HashMap::new(),
            memberships: HashMap::new(),
            purging: true,
            ahead: false,
            repeats: HashSet::new(),
            #[cfg(test)]
            commits: 0,
        }
    }

    /// Commits batches until the queue is closed and empty.
    pub(super) fn run(mut self, changes: &Queue<Change>) {
        while let Some(batch) = changes.take_some(BATCH_MAX) {
            let size = batch.len();
            match self.commit(batch) {
                Ok(answers) => answers.into_iter().for_each(|answer| answer()),
                Err(error) => {
                    // The answers are dropped unsent, which is an answer too: `Unavailable`.
                    tracing::error!(%error, size, "cannot write to the database");
                    self.forget();
                    if let Err(error) = self.connection.roll_back() {
                        tracing::error!(%error, "cannot roll back");
                    }
                }
            }
        }
    }

    fn commit(&mut self, batch: Vec<Change>) -> Result<Vec<Answer>, Fault> {
        self.connection.control("BEGIN IMMEDIATE")?;
        let mut answers = Vec::with_capacity(batch.len());
        for change in batch {
            answers.push(change(self)?);
        }
        self.purge_some()?;
        self.connection.control("COMMIT")?;
        #[cfg(test)]
        {
            self.commits += 1;
        }
        Ok(answers)
    }

    /// Whether there may be something to take away.
    pub(in crate::store) fn is_purging(&self) -> bool {
        self.purging
    }

    /// Takes away some of what was said in rooms that were deleted. All of it in the transaction that deletes a
    /// big room would keep everybody waiting.
    pub(in crate::store) fn purge_some(&mut self) -> Result<(), Fault> {
        if !self.purging {
            return Ok(());
        }
        self.purge().map_err(|trouble| match trouble {
            Trouble::Medium(fault) => fault,
            // A statement that reads nothing is not refused.
            Trouble::Refused(_) => Fault::NoRow,
        })
    }

    fn purge(&mut self) -> Result<(), Trouble> {
        let mut left = PURGE_MAX;
        for _ in 0..PURGE_ROOMS_MAX {
            let found = self
                .connection
                .prepare_cached(PURGED)?
                .query_row(NONE, |row| Ok((row.get::<i64>(0)?, row.get::<Option<i64>>(1)?)));
            let Some((room, first)) = found.optional()? else {
                self.purging = false;
                return Ok(());
            };
            let Some(first) = first else {
                self.connection.prepare_cached("DELETE FROM purges WHERE room = ?1")?.execute([room])?;
                continue;
            };
            let purged =
                self.connection.prepare_cached(PURGE)?.execute([room, first, first + limit(left)])?;
            left = left.saturating_sub(purged);
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Drops what is remembered, so that it is read again.
    pub(in crate::store) fn forget(&mut self) {
        self.places.clear();
        self.memberships.clear();
        self.repeats.clear();
    }

    /// Does several statements wholly or not at all.
    pub(super) fn atomically<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let before = self.connection.changes();
        self.connection.control("SAVEPOINT change")?;
        let done = change(self);
        if matches!(done, Err(Trouble::Refused(_))) && self.connection.changes() != before {
            self.connection.control("ROLLBACK TO change")?;
            self.forget();
        }
        if !matches!(done, Err(Trouble::Medium(_))) {
            self.connection.control("RELEASE change")?;
        }
        done
    }

    /// A write that changes nothing worth keeping.
    pub(super) fn check(&mut self) -> Result<(), Trouble> {
        let sql = self.connection.dialect(
            "INSERT INTO meta (key, value) VALUES ('checks', 1)
             ON CONFLICT (key) DO UPDATE SET value = value + 1",
            "INSERT INTO checks (id, count) VALUES (1, 1)
             ON CONFLICT (id) DO UPDATE SET count = checks.count + 1",
        );
        self.connection.prepare_cached(sql)?.execute(NONE)?;
        Ok(())
    }
}
