//! Hints may have been lost: what the hub and its connections know is compared with the store.
//!
//! Events are found by comparing heads, presence by what peers name. All else is read again here: whether
//! sessions are void, and of each user who is here the name, the role, the rooms and cursors. That is spread, so
//! that a hub of many users leaves the store to others too; what is doubted meanwhile is read once more
//! afterwards.

use std::collections::HashSet;

use shared::model::{Ms, RoomId, UserId};
use shared::protocol::{CloseCode, RoomInfo, ServerEnvelope};

use super::{Asker, Conn, HEADS_EVERY_MS, Hub, Look, Out, Pending, Query, Ticket};
use crate::store::{Account, TokenHash};

/// Users that are being read at once, and how many at most are begun in one tick.
const READING_MAX: usize = 8;
const BEGUN_PER_TICK: usize = 100;
/// How long after one look at everybody the next may begin; and after one at the sessions and the heads.
const PAUSE_MS: Ms = 5_000;
const SESSIONS_PAUSE_MS: Ms = 1_000;
/// How often sessions are looked at without a doubt, where hints can be lost: whoever ended one may be cut off
/// itself. And how often while this hub knows that it is cut off.
const SESSIONS_EVERY_MS: Ms = 30_000;
const SESSIONS_CUT_OFF_MS: Ms = 3_000;
/// How often everybody is looked at while nothing comes from other processes.
const EVERYBODY_CUT_OFF_MS: Ms = 30_000;
/// How long the first connection of a user waits until the hub hears of the user. Then the user is read twice.
const FOLLOW_WAIT_MS: Ms = 500;
/// Tokens in one question.
const TOKENS_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// There is a doubt that no look at everybody has met yet.
    is_open: bool,
    /// The hub's `serial` at the last doubt: whoever was identified by an earlier question is looked at again.
    raised_at: Ticket,
    /// When the next look at everybody may begin; and when this one may go on, after the store failed.
    next_at: Ms,
    not_before: Ms,
    /// Users to be read again.
    users: Vec<UserId>,
    reading: usize,
    begun: usize,
    /// There is a doubt that no look at sessions and heads has met yet.
    is_urgent: bool,
    urgent_not_before: Ms,
    sessions_at: Ms,
    everybody_at: Ms,
    /// Tokens to be looked at; whether some are just now; and when the others may be, after the store failed.
    tokens: Vec<TokenHash>,
    is_asking: bool,
    tokens_not_before: Ms,
}

impl Hub {
    /// Hints of any kind may have been lost up to now.
    pub(super) fn doubt(&mut self, now: Ms) {
        self.counts.doubts += 1;
        self.listen_to_peers(now);
        self.look_at_all();
    }

    /// Everything that hints tell of is to be looked at.
    pub(super) fn look_at_all(&mut self) {
        // What the store is being asked may be answered as it was before.
        self.serial += 1;
        for present in self.users.values_mut() {
            present.changed_at = self.serial;
        }
        self.doubt.is_open = true;
        self.doubt.is_urgent = true;
        self.doubt.raised_at = self.serial;
    }

    /// Goes on with what there is to look at again.
    pub(super) fn settle_doubt(&mut self, now: Ms, out: Out) {
        self.doubt.begun = 0;
        // Cut off, or without a broker between processes.
        let is_alone = self.peers.is_cut_off() || self.config.shared_store && !self.lossy;
        let every = if is_alone { SESSIONS_CUT_OFF_MS } else { SESSIONS_EVERY_MS };
        self.doubt.is_urgent |= (self.lossy || is_alone) && now - self.doubt.sessions_at >= every;
        self.doubt.is_open |= is_alone && now - self.doubt.everybody_at >= EVERYBODY_CUT_OFF_MS;
        if self.doubt.is_urgent && now >= self.doubt.urgent_not_before {
            self.doubt.is_urgent = false;
            self.doubt.urgent_not_before = now + SESSIONS_PAUSE_MS;
            self.doubt.sessions_at = now;
            self.doubt.tokens = self.known_tokens();
            self.heads_at = now - HEADS_EVERY_MS;
        }
        self.ask_void(now, out);
        if now < self.doubt.not_before {
            return;
        }
        let is_idle = self.doubt.users.is_empty() && self.doubt.reading == 0;
        if self.doubt.is_open && is_idle && now >= self.doubt.next_at {
            self.doubt.is_open = false;
            self.doubt.next_at = now + PAUSE_MS;
            self.doubt.everybody_at = now;
            self.doubt.users = self.users.keys().copied().collect();
            let rooms: Vec<RoomId> = self.rooms.keys().copied().collect();
            self.peers.ask(rooms.into_iter());
        }
        self.read_doubted(out);
    }

    fn read_doubted(&mut self, out: Out) {
        while self.doubt.reading < READING_MAX && self.doubt.begun < BEGUN_PER_TICK {
            let Some(user) = self.doubt.users.pop() else { break };
            if self.users.get(&user).is_some_and(|present| !present.conns.is_empty()) {
                self.doubt.reading += 1;
                self.doubt.begun += 1;
                self.counts.users_reread += 1;
                self.ask(Pending::Look(Look::Everything { user }), Query::Account { user }, out);
            }
        }
    }

    /// From now on this hub hears what happens to a user, who may have been read before.
    pub(super) fn user_followed(&mut self, user: UserId, out: Out) {
        let Some(present) = self.users.get_mut(&user) else { return };
        if std::mem::replace(&mut present.is_heard_of, true) {
            return;
        }
        match self.unheard_of.remove(&user) {
            Some((_, askers)) => askers.into_iter().for_each(|asker| self.ask_account(asker, user, out)),
            None => {
                // They may just be about to be welcomed with what was read before.
                self.note_change(user);
                self.doubt.users.push(user);
            }
        }
    }

    /// Does not wait any longer for brokers that take their time.
    pub(super) fn stop_waiting(&mut self, now: Ms, out: Out) {
        let late = |(_, (since, _)): (&UserId, &mut (Ms, Vec<Asker>))| now - *since >= FOLLOW_WAIT_MS;
        let late: Vec<_> = self.unheard_of.extract_if(|user, waiting| late((user, waiting))).collect();
        for (user, (_, askers)) in late {
            askers.into_iter().for_each(|asker| self.ask_account(asker, user, out));
        }
    }

    /// The tokens of those who are in, or about to be.
    fn known_tokens(&self) -> Vec<TokenHash> {
        let sessions = self.sessions.iter().flatten().filter(|session| session.is_identified());
        let mut tokens: Vec<TokenHash> = sessions.map(|session| session.token).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// Asks which of the tokens that are to be looked at are void, one question after the other.
    fn ask_void(&mut self, now: Ms, out: Out) {
        let Doubt { tokens, is_asking, tokens_not_before, .. } = &mut self.doubt;
        if *is_asking || tokens.is_empty() || now < *tokens_not_before {
            return;
        }
        *is_asking = true;
        let tokens = tokens.split_off(tokens.len().saturating_sub(TOKENS_MAX));
        self.ask(Pending::Void(tokens.clone()), Query::Void { tokens }, out);
    }

    /// A connection was identified by an answer to the question of this ticket.
    pub(super) fn doubt_identity(&mut self, now: Ms, ticket: Ticket, token: TokenHash, out: Out) {
        if ticket <= self.doubt.raised_at {
            // Its session may have been ended since, and the hint of that lost.
            self.doubt.tokens.push(token);
            self.ask_void(now, out);
        }
    }

    /// These let nobody in any more, although nobody said so.
    pub(super) fn voided(&mut self, now: Ms, tokens: Vec<TokenHash>, out: Out) {
        self.doubt.is_asking = false;
        self.ask_void(now, out);
        if tokens.is_empty() {
            return;
        }
        self.counts.sessions_voided += tokens.len() as u64;
        let void: HashSet<TokenHash> = tokens.iter().copied().collect();
        let is_void = |conn: &Conn| {
            self.session(*conn).is_some_and(|session| session.is_ready() && void.contains(&session.token))
        };
        let conns: Vec<Conn> = (0..self.sessions.len() as Conn).filter(is_void).collect();
        for conn in conns {
            self.expel(now, conn, CloseCode::Policy, out);
        }
        self.ended.extend(tokens.into_iter().map(|token| (token, now)));
    }

    /// The store did not say which of these are void.
    pub(super) fn not_voided(&mut self, now: Ms, tokens: Vec<TokenHash>) {
        self.doubt.is_asking = false;
        self.doubt.tokens.extend(tokens);
        self.doubt.tokens_not_before = now + HEADS_EVERY_MS;
    }

    /// A user was read again.
    pub(super) fn looked_at_everything(&mut self, now: Ms, ticket: Ticket, account: Account, out: Out) {
        let user = account.user.id;
        if self.is_stale(user, ticket) {
            return self.ask(Pending::Look(Look::Everything { user }), Query::Account { user }, out);
        }
        self.doubt.reading -= 1;
        self.reconcile(now, &account, out);
        // Which cursors the user's connections were told of is not known here.
        self.tell_rooms(user, account.rooms, out);
        self.read_doubted(out);
    }

    /// The store did not read a user again; perhaps it does later.
    pub(super) fn not_looked_at_everything(&mut self, now: Ms, user: UserId, is_later: bool) {
        self.doubt.reading -= 1;
        if is_later {
            self.doubt.users.push(user);
            self.doubt.not_before = now + HEADS_EVERY_MS;
        }
    }

    /// Tells a user's connections how their rooms look.
    pub(super) fn tell_rooms(&mut self, user: UserId, rooms: Vec<RoomInfo>, out: Out) {
        for info in rooms {
            let room = info.id;
            match self.current_info(info, user) {
                Some(info) => self.to_listeners_of(user, room, &ServerEnvelope::Room { info }, out),
                None => self.look(Look::Room { user, room }, out),
            }
        }
    }

    /// To those of a user's connections that listen to a room, and so were told of it.
    fn to_listeners_of(&self, user: UserId, room: RoomId, envelope: &ServerEnvelope, out: Out) {
        for conn in self.users.get(&user).map_or(&[][..], |present| &present.conns) {
            if self.session(*conn).is_some_and(|session| session.listens_to(room)) {
                self.send(*conn, envelope, out);
            }
        }
    }

    /// Brings what is known here of a user, and what their connections were told, to what the store says.
    /// Answers with the rooms that were not known before, if no connection is there to listen to them.
    pub(super) fn reconcile(&mut self, now: Ms, account: &Account, out: Out) -> Vec<RoomId> {
        let Account { user, role, rooms, blocked } = account;
        let id = user.id;
        let Some(present) = self.users.get_mut(&id) else { return Vec::new() };
        let is_renamed = present.user != *user;
        present.user.clone_from(user);
        let is_other = present.role != Some(*role) || present.blocked != *blocked;
        present.role = Some(*role);
        present.blocked.clone_from(blocked);
        let is_left = |room: &RoomId| !rooms.iter().any(|info| info.id == *room);
        let left: Vec<RoomId> = present.rooms.iter().copied().filter(is_left).collect();
        if is_renamed {
            self.to_user(id, &ServerEnvelope::Renamed { user: user.clone() }, out);
            self.tell_presence(id, true, out);
        }
        if is_other {
            self.to_user(id, &ServerEnvelope::Me { role: *role, blocked: blocked.clone() }, out);
        }
        for room in left {
            self.detach(now, id, room, out);
        }
        let mut new = Vec::new();
        for info in rooms {
            let Some(present) = self.users.get(&id) else { return new };
            let is_known = present.rooms.contains(&info.id);
            if present.conns.is_empty() {
                new.extend((!is_known).then_some(info.id));
            } else if !is_known || !self.is_everywhere(id, info.id) {
                self.attach_when_loaded(now, id, info.clone(), out);
            }
        }
        new
    }

    /// Whether all connections of a user that may hear of a room listen to it.
    pub(super) fn is_everywhere(&self, user: UserId, room: RoomId) -> bool {
        let Some(present) = self.users.get(&user) else { return true };
        present.conns.iter().filter_map(|conn| self.session(*conn)).all(|session| session.is_told_of(room))
    }
}
