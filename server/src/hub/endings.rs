//! Sessions that are void, and when sessions were last used.
//!
//! Whoever is signed out, banned or out of time is told nothing more from that very step on.

use shared::model::Ms;
use shared::protocol::CloseCode;

use super::{Conn, Effect, Hub, Out, Pending, Query};
use crate::store::{Ended, TokenHash};

/// How long it is remembered that a session was ended: longer than a connection takes to start.
const ENDED_KEPT_MS: Ms = 600_000;
/// How far ahead the hub knows which sessions end by themselves. Then it looks at all of them again.
const HORIZON_MS: Ms = 3_600_000;
/// How long before the horizon it does so.
const HORIZON_MARGIN_MS: Ms = 60_000;
/// How often the store is told which sessions were used.
const TOUCH_EVERY_MS: Ms = 60_000;
/// Sessions in one such call.
const TOUCHES_MAX: usize = 1_000;

impl Hub {
    /// Closes a connection, which from now on is told nothing and asks for nothing.
    pub(super) fn expel(&mut self, now: Ms, conn: Conn, code: CloseCode, out: Out) {
        // What was to be sent to a room's listeners in this step goes to those who listen after it.
        self.closed(now, conn, out);
        out.push(Effect::Close { conn, code });
    }

    /// Sessions of a user were ended.
    pub(super) fn ended(&mut self, now: Ms, ended: Ended, out: Out) {
        let Ended { user, tokens } = ended;
        let conns = self.users.get(&user).map_or(Vec::new(), |present| present.conns.clone());
        for conn in conns {
            if self.session(conn).is_some_and(|session| tokens.contains(&session.token)) {
                self.expel(now, conn, CloseCode::Policy, out);
            }
        }
        // Others may be about to be welcomed.
        self.ended.extend(tokens.into_iter().map(|token| (token, now)));
    }

    /// Whether a session may not be welcomed any more.
    pub(super) fn is_void(&self, now: Ms, conn: Conn) -> bool {
        self.session(conn)
            .is_some_and(|session| session.ends_at <= now || self.ended.contains_key(&session.token))
    }

    /// Remembers when a session ends, if that is soon.
    pub(super) fn note_end(&mut self, conn: Conn) {
        let Some(session) = self.session(conn) else { return };
        let (ends_at, serial) = (session.ends_at, session.serial);
        if ends_at < self.horizon {
            self.endings.insert((ends_at, conn), serial);
        }
    }

    /// Closes those whose time is over.
    pub(super) fn end_by_time(&mut self, now: Ms, out: Out) {
        if now >= self.horizon - HORIZON_MARGIN_MS {
            self.horizon = now + HORIZON_MS;
            for conn in 0..self.sessions.len() as Conn {
                self.note_end(conn);
            }
            self.ended.retain(|_, at| now - *at < ENDED_KEPT_MS);
        }
        while let Some(entry) = self.endings.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, conn), serial) = entry.remove_entry();
            let is_there = self.session(conn).is_some_and(|session| session.serial == serial);
            // One that is not welcomed yet is looked at then.
            if is_there && self.is_ready(conn) {
                self.expel(now, conn, CloseCode::Policy, out);
            }
        }
    }

    /// A session was used.
    pub(super) fn note_use(&mut self, conn: Conn) {
        let period = self.period;
        let Some(session) = self.session_mut(conn) else { return };
        if session.used_in != period {
            session.used_in = period;
            let token = session.token;
            self.used.push(token);
        }
    }

    /// Tells the store which sessions were used lately.
    pub(super) fn touch(&mut self, now: Ms, out: Out) {
        if now - self.touched_at < TOUCH_EVERY_MS {
            return;
        }
        self.touched_at = now;
        self.period += 1;
        let mut used: Vec<TokenHash> = std::mem::take(&mut self.used);
        used.sort_unstable();
        used.dedup();
        let at = now + self.wall_offset;
        for tokens in used.chunks(TOUCHES_MAX) {
            let sessions = tokens.iter().map(|token| (*token, at)).collect();
            self.ask(Pending::Touch, Query::Touch { sessions }, out);
        }
    }
}
