//! A store in memory: for tests, simulations, and for trying Magpie out. Nothing survives the process.
//!
//! Every reply is ready at once, so that a simulation needs no runtime. It must not know a clock, a random
//! source or a thread.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::model::{Claim, LOBBY, LOBBY_NAME, Ms, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{Event, EventKind, Listing, RoomInfo, RoomKind, UNREAD_MAX, User};

use super::{
    Account, Append, Appended, Entered, Identity, Page, Reply, RoomKey, Store, StoreError, TokenHash,
    UNREAD_SCAN_MAX, numbered,
};

/// A handle to a store in memory. Clones share it, so that a test can keep one across "restarts".
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

struct State {
    secret: [u8; 32],
    users: HashMap<UserId, (User, String)>,
    user_skeletons: HashMap<String, UserId>,
    sessions: HashMap<TokenHash, UserId>,
    rooms: HashMap<RoomId, Room>,
    room_skeletons: HashMap<String, RoomId>,
    directs: HashMap<(UserId, UserId), RoomId>,
    memberships: BTreeSet<(UserId, RoomId)>,
    cursors: HashMap<(UserId, RoomId), Seq>,
    references: HashMap<(UserId, Ref), (RoomId, Seq)>,
    unavailable: bool,
    answers_to_lose: usize,
}

struct Room {
    kind: Kind,
    epoch: u32,
    /// The event with `seq` n stands at n - 1.
    events: Vec<Event>,
    members: BTreeSet<UserId>,
}

enum Kind {
    Public(RoomName),
    Direct(UserId, UserId),
}

impl Room {
    fn head(&self) -> Seq {
        self.events.len() as Seq
    }

    fn page(&self, from: usize, to: usize) -> Page {
        Page { epoch: self.epoch, head: self.head(), events: self.events[from..to].to_vec() }
    }
}

impl MemoryStore {
    /// An empty store with the given secret.
    pub fn new(secret: [u8; 32]) -> Self {
        let mut state = State {
            secret,
            users: HashMap::new(),
            user_skeletons: HashMap::new(),
            sessions: HashMap::new(),
            rooms: HashMap::new(),
            room_skeletons: HashMap::new(),
            directs: HashMap::new(),
            memberships: BTreeSet::new(),
            cursors: HashMap::new(),
            references: HashMap::new(),
            unavailable: false,
            answers_to_lose: 0,
        };
        if let Ok(claim) = RoomName::claim(LOBBY_NAME) {
            state.room_skeletons.insert(claim.skeleton, LOBBY);
            state.rooms.insert(LOBBY, Room::new(Kind::Public(claim.name)));
        }
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// For tests: from now on nothing is read or written, and every answer is `Unavailable`; or all is well
    /// again.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.lock().unavailable = unavailable;
    }

    /// For tests: the next `count` writes are done, but answered with `Unavailable`, as when a connection to
    /// a database breaks between the commit and its answer.
    pub fn lose_answers(&self, count: usize) {
        self.lock().answers_to_lose = count;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T: Send + 'static>(&self, read: impl FnOnce(&State) -> Result<T, StoreError>) -> Reply<T> {
        let state = self.lock();
        let answer = if state.unavailable { Err(switched_off()) } else { read(&state) };
        Box::pin(std::future::ready(answer))
    }

    fn write<T: Send + 'static>(&self, write: impl FnOnce(&mut State) -> Result<T, StoreError>) -> Reply<T> {
        let mut state = self.lock();
        let mut answer = if state.unavailable { Err(switched_off()) } else { write(&mut state) };
        if state.answers_to_lose > 0 {
            state.answers_to_lose -= 1;
            answer = Err(StoreError::Unavailable("the answer was lost".into()));
        }
        Box::pin(std::future::ready(answer))
    }
}

fn switched_off() -> StoreError {
    StoreError::Unavailable("switched off".into())
}

impl Room {
    fn new(kind: Kind) -> Self {
        Self { kind, epoch: 1, events: Vec::new(), members: BTreeSet::new() }
    }
}

impl State {
    fn user(&self, user: UserId) -> Result<User, StoreError> {
        self.users.get(&user).map(|(user, _)| user.clone()).ok_or(StoreError::NotFound)
    }

    fn room(&self, room: RoomId) -> Result<&Room, StoreError> {
        self.rooms.get(&room).ok_or(StoreError::NotFound)
    }

    fn is_member(&self, room: RoomId, user: UserId) -> bool {
        if room == LOBBY { self.users.contains_key(&user) } else { self.memberships.contains(&(user, room)) }
    }

    /// The room, if the user is in it.
    fn room_of(&self, room: RoomId, user: UserId) -> Result<&Room, StoreError> {
        if self.is_member(room, user) { self.room(room) } else { Err(StoreError::NotFound) }
    }

    fn check_rooms(&self, user: UserId, rooms_max: usize) -> Result<(), StoreError> {
        let all = (user, RoomId::from_bits(0))..=(user, RoomId::from_bits(u64::MAX));
        let full = rooms_max > 0 && self.memberships.range(all).count() >= rooms_max;
        if full { Err(StoreError::TooManyRooms) } else { Ok(()) }
    }

    fn unread(&self, room: &Room, user: UserId, read: Seq) -> u32 {
        let from = read.max(room.head().saturating_sub(UNREAD_SCAN_MAX));
        let news = room.events.iter().skip(from as usize);
        let unread =
            news.filter(|event| event.user.id != user && matches!(event.kind, EventKind::Message { .. }));
        unread.take(UNREAD_MAX as usize).count() as u32
    }

    fn info(&self, id: RoomId, user: UserId) -> Result<RoomInfo, StoreError> {
        let room = self.room_of(id, user)?;
        let read = self.cursors.get(&(user, id)).copied().unwrap_or(0);
        let (kind, name, peer) = match &room.kind {
            Kind::Public(name) => (RoomKind::Public, Some(name.clone()), None),
            Kind::Direct(low, high) => {
                (RoomKind::Direct, None, Some(self.user(if *low == user { *high } else { *low })?))
            }
        };
        let unread = self.unread(room, user, read);
        Ok(RoomInfo { id, kind, name, peer, epoch: room.epoch, head: room.head(), read, unread })
    }

    fn rooms_of(&self, user: UserId) -> Result<Vec<RoomInfo>, StoreError> {
        let all = (user, RoomId::from_bits(0))..=(user, RoomId::from_bits(u64::MAX));
        let rooms = self.memberships.range(all).map(|(_, room)| *room);
        std::iter::once(LOBBY).chain(rooms).map(|room| self.info(room, user)).collect()
    }

    /// Puts an event at the end of a room's log.
    fn push(
        &mut self,
        id: RoomId,
        user: User,
        at: Ms,
        kind: EventKind,
        reference: Option<Ref>,
    ) -> Result<Event, StoreError> {
        let room = self.rooms.get_mut(&id).ok_or(StoreError::NotFound)?;
        let event = Event { room: id, seq: room.head() + 1, at, user, kind, reference };
        room.events.push(event.clone());
        if let Some(reference) = reference {
            self.references.insert((event.user.id, reference), (id, event.seq));
        }
        Ok(event)
    }

    fn append(&mut self, append: Append) -> Result<Appended, StoreError> {
        let Append { room, author, at, kind, reference } = append;
        if kind == EventKind::Unknown {
            return Err(StoreError::Unavailable("an event of no known kind".into()));
        }
        let first = reference.and_then(|reference| self.references.get(&(author.id, reference)));
        if let Some((room, seq)) = first {
            let event = self.room(*room)?.events[*seq as usize - 1].clone();
            return Ok(Appended { event, first: false });
        }
        self.room(room)?;
        if !self.is_member(room, author.id) {
            return Err(StoreError::NotMember);
        }
        Ok(Appended { event: self.push(room, author, at, kind, reference)?, first: true })
    }

    fn make_member(&mut self, id: RoomId, user: UserId) {
        if let Some(room) = self.rooms.get_mut(&id) {
            room.members.insert(user);
            self.memberships.insert((user, id));
        }
    }

    /// Ends an act by which a user entered a room: the cursor stands at the head.
    fn enter(&mut self, id: RoomId, user: UserId, events: Vec<Event>) -> Result<Entered, StoreError> {
        let head = self.room(id)?.head();
        self.cursors.insert((user, id), head);
        Ok(Entered { info: self.info(id, user)?, events })
    }

    fn new_room(&mut self, id: RoomId, kind: Kind) -> Result<(), StoreError> {
        if self.rooms.contains_key(&id) {
            return Err(StoreError::Unavailable("a room has that id".into()));
        }
        self.rooms.insert(id, Room::new(kind));
        Ok(())
    }

    fn identify(
        &mut self,
        token: TokenHash,
        id: UserId,
        names: &[Claim<UserName>],
    ) -> Result<Identity, StoreError> {
        if let Some(user) = self.sessions.get(&token) {
            return Ok(Identity { user: self.user(*user)?, fresh: false });
        }
        if self.users.contains_key(&id) {
            return Err(StoreError::Unavailable("a user has that id".into()));
        }
        let claim = names
            .iter()
            .cloned()
            .chain(numbered(names, id))
            .find(|claim| !self.user_skeletons.contains_key(&claim.skeleton))
            .ok_or(StoreError::NameTaken)?;
        let user = User { id, name: claim.name };
        self.users.insert(id, (user.clone(), claim.skeleton.clone()));
        self.user_skeletons.insert(claim.skeleton, id);
        self.sessions.insert(token, id);
        self.cursors.insert((id, LOBBY), self.room(LOBBY)?.head());
        Ok(Identity { user, fresh: true })
    }

    fn rename(
        &mut self,
        id: UserId,
        claim: Claim<UserName>,
        tell_lobby: bool,
        at: Ms,
    ) -> Result<(User, Vec<Event>), StoreError> {
        let old = self.user(id)?;
        if self.user_skeletons.get(&claim.skeleton).is_some_and(|owner| *owner != id) {
            return Err(StoreError::NameTaken);
        }
        if old.name == claim.name {
            return Ok((old, Vec::new()));
        }
        let new = User { id, name: claim.name };
        if let Some((_, skeleton)) = self.users.insert(id, (new.clone(), claim.skeleton.clone())) {
            self.user_skeletons.remove(&skeleton);
        }
        self.user_skeletons.insert(claim.skeleton, id);
        let mut rooms: Vec<RoomId> = self.rooms_of(id)?.into_iter().map(|info| info.id).collect();
        rooms.retain(|room| tell_lobby || *room != LOBBY);
        let mut events = Vec::new();
        for room in rooms {
            events.push(self.push(
                room,
                old.clone(),
                at,
                EventKind::Renamed { name: new.name.clone() },
                None,
            )?);
        }
        Ok((new, events))
    }

    fn create_room(
        &mut self,
        id: RoomId,
        claim: Claim<RoomName>,
        user: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Result<Entered, StoreError> {
        let creator = self.user(user)?;
        if self.room_skeletons.contains_key(&claim.skeleton) {
            return Err(StoreError::NameTaken);
        }
        self.check_rooms(user, rooms_max)?;
        self.new_room(id, Kind::Public(claim.name))?;
        self.room_skeletons.insert(claim.skeleton, id);
        self.make_member(id, user);
        let event = self.push(id, creator, at, EventKind::Created, None)?;
        self.enter(id, user, vec![event])
    }

    fn open_direct(
        &mut self,
        id: RoomId,
        user: UserId,
        peer: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Result<Entered, StoreError> {
        let creator = self.user(user)?;
        self.user(peer)?;
        let pair = (user.min(peer), user.max(peer));
        if let Some(room) = self.directs.get(&pair) {
            return Ok(Entered { info: self.info(*room, user)?, events: Vec::new() });
        }
        self.check_rooms(user, rooms_max)?;
        self.new_room(id, Kind::Direct(pair.0, pair.1))?;
        self.directs.insert(pair, id);
        self.make_member(id, user);
        self.make_member(id, peer);
        let event = self.push(id, creator, at, EventKind::Created, None)?;
        self.enter(id, user, vec![event])
    }

    fn find(&self, key: &RoomKey, user: UserId) -> Option<RoomId> {
        // A conversation of others is passed over as if it did not exist.
        let visible = |id: &RoomId| match self.rooms.get(id).map(|room| &room.kind) {
            Some(Kind::Public(_)) => true,
            Some(Kind::Direct(..)) => self.is_member(*id, user),
            None => false,
        };
        let by_name =
            || key.skeleton.as_ref().and_then(|skeleton| self.room_skeletons.get(skeleton).copied());
        key.id.filter(visible).or_else(by_name)
    }

    fn join(&mut self, key: &RoomKey, user: UserId, rooms_max: usize, at: Ms) -> Result<Entered, StoreError> {
        let joiner = self.user(user)?;
        let id = self.find(key, user).ok_or(StoreError::NotFound)?;
        if self.is_member(id, user) {
            return Ok(Entered { info: self.info(id, user)?, events: Vec::new() });
        }
        self.check_rooms(user, rooms_max)?;
        self.make_member(id, user);
        let event = self.push(id, joiner, at, EventKind::Joined, None)?;
        self.enter(id, user, vec![event])
    }

    fn leave(&mut self, id: RoomId, user: UserId, at: Ms) -> Result<Option<Event>, StoreError> {
        if id == LOBBY || matches!(self.room(id)?.kind, Kind::Direct(..)) {
            return Err(StoreError::NotFound);
        }
        if !self.memberships.remove(&(user, id)) {
            return Ok(None);
        }
        let leaver = self.user(user)?;
        if let Some(room) = self.rooms.get_mut(&id) {
            room.members.remove(&user);
        }
        self.push(id, leaver, at, EventKind::Left, None).map(Some)
    }

    fn mark_read(&mut self, id: RoomId, user: UserId, seq: Seq) -> Result<(Seq, u32), StoreError> {
        let head = self.room_of(id, user)?.head();
        let cursor = self.cursors.entry((user, id)).or_insert(0);
        *cursor = seq.min(head).max(*cursor);
        let read = *cursor;
        Ok((read, self.unread(self.room(id)?, user, read)))
    }

    fn members(&self, id: RoomId, limit: usize) -> Result<(Vec<User>, u32), StoreError> {
        let room = self.room(id)?;
        let mut members: Vec<User> =
            room.members.iter().map(|user| self.user(*user)).collect::<Result<_, _>>()?;
        members.sort_by(|a, b| (a.name.as_str(), a.id).cmp(&(b.name.as_str(), b.id)));
        members.truncate(limit);
        Ok((members, room.members.len() as u32))
    }

    fn directory(&self, user: UserId, limit: usize) -> Vec<Listing> {
        let listing = |(id, room): (&RoomId, &Room)| match &room.kind {
            Kind::Public(name) => {
                let members = if *id == LOBBY { self.users.len() } else { room.members.len() };
                let joined = self.is_member(*id, user);
                Some(Listing { id: *id, name: name.clone(), members: members as u32, joined })
            }
            Kind::Direct(..) => None,
        };
        let mut rooms: Vec<Listing> = self.rooms.iter().filter_map(listing).collect();
        rooms.sort_by(|a, b| b.members.cmp(&a.members).then_with(|| a.name.as_str().cmp(b.name.as_str())));
        rooms.truncate(limit);
        rooms
    }
}

impl Store for MemoryStore {
    fn append(&self, batch: Vec<Append>) -> Reply<Vec<Result<Appended, StoreError>>> {
        self.write(|state| Ok(batch.into_iter().map(|append| state.append(append)).collect()))
    }

    fn events_after(&self, room: RoomId, after: Seq, limit: usize) -> Reply<Page> {
        self.read(|state| {
            let room = state.room(room)?;
            let from = after.min(room.head()) as usize;
            Ok(room.page(from, from.saturating_add(limit).min(room.events.len())))
        })
    }

    fn events_before(&self, room: RoomId, before: Seq, limit: usize) -> Reply<Page> {
        self.read(|state| {
            let room = state.room(room)?;
            let to = before.saturating_sub(1).min(room.head()) as usize;
            Ok(room.page(to.saturating_sub(limit), to))
        })
    }

    fn identify(
        &self,
        token: TokenHash,
        id: UserId,
        names: Vec<Claim<UserName>>,
        _at: Ms,
    ) -> Reply<Identity> {
        self.write(|state| state.identify(token, id, &names))
    }

    fn account(&self, user: UserId) -> Reply<Account> {
        self.read(|state| Ok(Account { user: state.user(user)?, rooms: state.rooms_of(user)? }))
    }

    fn rename(
        &self,
        user: UserId,
        name: Claim<UserName>,
        tell_lobby: bool,
        at: Ms,
    ) -> Reply<(User, Vec<Event>)> {
        self.write(|state| state.rename(user, name, tell_lobby, at))
    }

    fn create_room(
        &self,
        id: RoomId,
        name: Claim<RoomName>,
        user: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Reply<Entered> {
        self.write(|state| state.create_room(id, name, user, rooms_max, at))
    }

    fn open_direct(
        &self,
        id: RoomId,
        user: UserId,
        peer: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Reply<Entered> {
        self.write(|state| state.open_direct(id, user, peer, rooms_max, at))
    }

    fn join(&self, room: RoomKey, user: UserId, rooms_max: usize, at: Ms) -> Reply<Entered> {
        self.write(|state| state.join(&room, user, rooms_max, at))
    }

    fn leave(&self, room: RoomId, user: UserId, at: Ms) -> Reply<Option<Event>> {
        self.write(|state| state.leave(room, user, at))
    }

    fn room_info(&self, room: RoomId, user: UserId) -> Reply<RoomInfo> {
        self.read(|state| state.info(room, user))
    }

    fn mark_read(&self, room: RoomId, user: UserId, seq: Seq) -> Reply<(Seq, u32)> {
        self.write(|state| state.mark_read(room, user, seq))
    }

    fn members(&self, room: RoomId, limit: usize) -> Reply<(Vec<User>, u32)> {
        self.read(|state| state.members(room, limit))
    }

    fn directory(&self, user: UserId, limit: usize) -> Reply<Vec<Listing>> {
        self.read(|state| Ok(state.directory(user, limit)))
    }

    fn heads(&self, rooms: Vec<RoomId>) -> Reply<Vec<(RoomId, u32, Seq)>> {
        self.read(|state| {
            let head = |id: &RoomId| state.rooms.get(id).map(|room| (*id, room.epoch, room.head()));
            Ok(rooms.iter().filter_map(head).collect())
        })
    }

    fn secret(&self) -> [u8; 32] {
        self.lock().secret
    }

    fn check(&self) -> Reply<()> {
        self.write(|_| Ok(()))
    }
}
