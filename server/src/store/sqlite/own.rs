//! What people do for themselves: cursors, quiet rooms, blocks, their own sessions.

use sha2::{Digest, Sha256};
use shared::acts::BLOCKS_MAX;
use shared::model::{Ms, RoomId, Seq, UserId};

use super::database::params;
use super::facts::permit;
use super::identities::sessions_but;
use super::{Trouble, Writer, number, read};
use crate::store::{Cursor, Ended, Outcome, StoreError, TokenHash};

/// The public id of a session. It tells nothing of the hash.
pub(super) fn session_id(token: &TokenHash) -> String {
    let digest = Sha256::digest(token);
    let bits = digest.iter().take(8).fold(0, |bits: u64, byte| bits << 8 | u64::from(*byte));
    RoomId::from_bits(bits).to_string()
}

impl Writer {
    pub(super) fn mark_read(
        &mut self,
        room: RoomId,
        user: UserId,
        seq: Seq,
        version: Option<u32>,
    ) -> Result<Cursor, Trouble> {
        let head = self.head(room)?.ok_or(StoreError::NotFound)?;
        if !self.is_member(room, user)? {
            return Err(StoreError::NotFound.into());
        }
        let (old, kept) = read::cursor_place(&self.connection, room, user)?;
        let new = seq.min(head).max(old);
        if new != old && version.is_none_or(|version| version >= kept) {
            // Another node may move the same cursor.
            self.connection
                .prepare_cached(
                    "INSERT INTO cursors (user, room, read) VALUES (?1, ?2, ?3)
                     ON CONFLICT (user, room) DO UPDATE SET read = excluded.read
                     WHERE cursors.read < excluded.read AND cursors.version <= ?4",
                )?
                .execute([
                    number(user.bits()),
                    number(room.bits()),
                    number(new),
                    version.map_or(i64::MAX, i64::from),
                ])?;
        }
        read::cursor(&self.connection, room, user)
    }

    pub(super) fn set_unread(&mut self, by: UserId, room: RoomId, seq: Seq) -> Result<Outcome, Trouble> {
        self.facts(room, by)?.demand_member()?;
        let head = self.head(room)?.unwrap_or(0);
        self.connection
            .prepare_cached(
                "INSERT INTO cursors (user, room, read, version) VALUES (?1, ?2, ?3, 1)
                 ON CONFLICT (user, room) DO UPDATE SET read = excluded.read, version = cursors.version + 1",
            )?
            .execute([number(by.bits()), number(room.bits()), number(seq.saturating_sub(1).min(head))])?;
        let cursor = read::cursor(&self.connection, room, by)?;
        Ok(Outcome { cursor: Some((room, cursor)), ..Outcome::default() })
    }

    pub(super) fn set_quiet(&mut self, by: UserId, room: RoomId, quiet: bool) -> Result<Outcome, Trouble> {
        self.facts(room, by)?.demand_member()?;
        self.connection
            .prepare_cached(
                "INSERT INTO cursors (user, room, read, quiet) VALUES (?1, ?2, 0, ?3)
                 ON CONFLICT (user, room) DO UPDATE SET quiet = excluded.quiet",
            )?
            .execute(params![number(by.bits()), number(room.bits()), quiet])?;
        Ok(Outcome { rooms: vec![room], ..Outcome::default() })
    }

    pub(super) fn block(
        &mut self,
        by: UserId,
        target: UserId,
        blocked: bool,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        read::user(&self.connection, target)?;
        permit(by != target)?;
        let of = [number(by.bits()), number(target.bits())];
        let before = self.cursors_beside(by, target)?;
        let changed = if blocked {
            let blocks: i64 = self
                .connection
                .prepare_cached("SELECT count(*) FROM blocks WHERE user = ?1 AND blocked <> ?2")?
                .query_row(of, |row| row.get(0))?;
            if read::bits(blocks)? >= BLOCKS_MAX as u64 {
                return Err(StoreError::TooMany.into());
            }
            self.connection
                .prepare_cached(
                    "INSERT INTO blocks (user, blocked, at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (user, blocked) DO NOTHING",
                )?
                .execute([of[0], of[1], at])?
        } else {
            self.connection
                .prepare_cached("DELETE FROM blocks WHERE user = ?1 AND blocked = ?2")?
                .execute(of)?
        };
        if changed == 0 {
            return Ok(Outcome::default());
        }
        if let Some(room) = read::direct(&self.connection, by.min(target), by.max(target))? {
            self.forget_place(room);
        }
        let after = self.cursors_beside(by, target)?;
        let rooms = before.iter().zip(&after).filter(|(before, after)| before != after);
        let rooms = rooms.map(|((room, _), _)| *room).collect();
        Ok(Outcome { users: vec![by], rooms, ..Outcome::default() })
    }

    /// A user's cursors in the rooms that somebody else is in, too.
    fn cursors_beside(&self, user: UserId, other: UserId) -> Result<Vec<(RoomId, Cursor)>, Trouble> {
        if self.connection.is_server() {
            // Each statement is a journey there and back, for which everybody waits.
            return read::cursors_beside(&self.connection, user, other);
        }
        let mut cursors = Vec::new();
        for room in read::room_ids_of(&self.connection, user)? {
            if read::is_member(&self.connection, room, other)? {
                cursors.push((room, read::cursor(&self.connection, room, user)?));
            }
        }
        Ok(cursors)
    }

    pub(super) fn end_one_session(&mut self, by: UserId, id: &str) -> Result<Outcome, Trouble> {
        let tokens = sessions_but(&self.connection, by, None)?;
        let token = tokens.into_iter().find(|token| session_id(token) == id).ok_or(StoreError::NotFound)?;
        self.end_session(&token)?;
        Ok(Outcome { ended: vec![Ended { user: by, tokens: vec![token] }], ..Outcome::default() })
    }

    pub(super) fn end_other_sessions(&mut self, by: UserId, but: &TokenHash) -> Result<Outcome, Trouble> {
        let ended = self.end_sessions(by, Some(but))?;
        let ended = if ended.tokens.is_empty() { Vec::new() } else { vec![ended] };
        Ok(Outcome { ended, ..Outcome::default() })
    }
}
