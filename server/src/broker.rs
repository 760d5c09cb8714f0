//! Node-to-node fan-out: the seam between a hub and its peers.
//!
//! What goes through a broker is a hint. It may be lost, repeated or reordered; a hub notices by `seq` and
//! reads what it lacks from the store. A local event and one of another node arrive at the hub the same
//! way: through [`Sink`]. Brokers know only `shared`, and that an event is encoded once for all hubs of a process.

pub mod chaos;
pub mod conformance;
pub mod memory;
pub mod redis;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shared::model::{Ms, RoomId, Seq, UserId};
use shared::protocol::{Event, EventKind, Person, PlainMessage, Presence, ServerEnvelope, User, encode};

use crate::encoded::Encoded;
use crate::store::{Cursor, Ended};

/// Tells the hubs of a cluster apart. A hub that starts anew has another.
pub type HubId = u32;

/// Ids that a process has for its hubs, counted from [`first_hub`]: for more than the workers it may have and
/// what else it attaches to the broker.
const HUBS_PER_PROCESS: HubId = 512;

/// The first id for the hubs of this process. It is random, so that processes differ without knowing of each
/// other: of ten on one broker two have the same once in 180,000 starts.
///
/// # Errors
/// The system gives no random bytes.
pub fn first_hub() -> Result<HubId, getrandom::Error> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)?;
    Ok(HubId::from_ne_bytes(random) / HUBS_PER_PROCESS * HUBS_PER_PROCESS)
}

/// Whom a hint concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Those in a room.
    Room(RoomId),
    /// The connections of one user.
    User(UserId),
    /// One hub, which has this topic from the start.
    Hub(HubId),
    /// Everyone. Every hub has this topic from the start.
    All,
}

impl Topic {
    /// Whose topic it is, if it is a user's.
    pub fn user(self) -> Option<UserId> {
        if let Topic::User(user) = self { Some(user) } else { None }
    }
}

/// A committed event on its way to those in its room.
#[derive(Debug)]
pub struct Logged {
    pub event: Arc<Event>,
    full: OnceLock<Arc<Encoded>>,
    plain: OnceLock<Option<Arc<Encoded>>>,
}

impl Logged {
    pub fn new(event: Event) -> Self {
        Self { event: Arc::new(event), full: OnceLock::new(), plain: OnceLock::new() }
    }

    /// The event for those who speak `magpie.v1`.
    pub fn full(&self) -> &Arc<Encoded> {
        let encoded = || Encoded::new(encode(&ServerEnvelope::Event((*self.event).clone())));
        self.full.get_or_init(|| Arc::new(encoded()))
    }

    /// The event for those in plain mode, who are only told of messages.
    pub fn plain(&self) -> Option<&Arc<Encoded>> {
        let plain = || match &self.event.kind {
            EventKind::Message { body, .. } => {
                let sender = self.event.user.name.to_string();
                let message = body.as_str().to_owned();
                Some(Arc::new(Encoded::new(encode(&PlainMessage { sender, message }))))
            }
            _ => None,
        };
        self.plain.get_or_init(plain).as_ref()
    }
}

impl PartialEq for Logged {
    fn eq(&self, other: &Self) -> bool {
        self.event == other.event
    }
}

impl Eq for Logged {}

/// An event on its way to another process, which encodes it for its own connections.
mod logged {
    use super::{Arc, Event, Logged};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(logged: &Arc<Logged>, serializer: S) -> Result<S::Ok, S::Error> {
        logged.event.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Logged>, D::Error> {
        Event::deserialize(deserializer).map(|event| Arc::new(Logged::new(event)))
    }
}

/// Counts the changes of who is present at one hub: each has a number above those before it, in whichever room.
pub type PresenceVersion = u64;

/// What one hub tells the others, itself included. As JSON it goes from process to process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// An event was committed.
    Event(#[serde(with = "logged")] Arc<Logged>),
    /// A room's log goes on to this `seq` at least: instead of an event that is too large for a hint.
    Head { room: RoomId, seq: Seq },
    /// A person's presence at one hub, in one room: the change `version`, the first in the room since `after`
    /// (0: since the hub follows the room).
    Presence {
        origin: HubId,
        room: RoomId,
        user: User,
        presence: Presence,
        version: PresenceVersion,
        after: PresenceVersion,
    },
    /// Who is present in a room at one hub after the change `version`, in `parts` parts of which each is of the
    /// users with ids from `first` to `last`: those who are not in it are not there.
    Present {
        origin: HubId,
        room: RoomId,
        version: PresenceVersion,
        part: u32,
        parts: u32,
        first: UserId,
        last: UserId,
        people: Vec<Person>,
    },
    /// A hub wants to hear who is present in a room, from those who know of a later change than it does. They
    /// answer on its own topic.
    PresenceWanted { origin: HubId, room: RoomId, known: Vec<(HubId, PresenceVersion)> },
    /// A hub lives, and in which rooms presence changed there in the last half minute, up to which version. For
    /// `Topic::All`, as is the next.
    Alive { origin: HubId, changed: Vec<(RoomId, PresenceVersion)> },
    /// A hub ends in good order: its people are about to be at others.
    Leaving { origin: HubId },
    /// A person is typing.
    Typing { room: RoomId, user: User },
    /// A user's cursor moved.
    Read { user: UserId, room: RoomId, cursor: Cursor },
    /// A user has a new name.
    Renamed { user: User },
    /// A user became a member of a room, or no longer is one.
    Membership { user: UserId, room: RoomId, member: bool },
    /// Sessions or tokens of a user are void. For `Topic::All`: a hub that is about to let one of them in does not
    /// follow its user yet.
    Ended(Ended),
    /// A user's role, or whom they have blocked, is another. For `Topic::User`, as is the next.
    User { user: UserId },
    /// A room looks different to one user.
    Room { user: UserId, room: RoomId },
    /// Address bans or outgoing webhooks are others. For `Topic::All`.
    Rules,
    /// The operator speaks to everyone.
    Announcement { text: String, at: Ms },
    /// Hints of any kind may have been lost: whoever counts on them looks again. For `Topic::All`; a broker gives
    /// it to its own hubs when it is connected again.
    Doubt,
    /// Of a broker to its own hubs: until the next `Doubt` nothing comes from other processes.
    #[serde(skip)]
    CutOff,
    /// Of a broker to its own hubs, for `Topic::User`: from now on hints of other processes on that topic come, or
    /// there is a `Doubt` first.
    #[serde(skip)]
    Followed { user: UserId },
}

/// What a hint weighs beside its texts and lists, in bytes, roughly.
const HINT_BYTES: usize = 256;
/// The same of an entry of a list.
const ENTRY_BYTES: usize = 64;

impl Hint {
    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        let more = match self {
            Hint::Event(logged) => match &logged.event.kind {
                EventKind::Message { body, .. } => body.as_str().len(),
                _ => 0,
            },
            Hint::Announcement { text, .. } => text.len(),
            Hint::Present { people, .. } => people.len() * ENTRY_BYTES,
            Hint::PresenceWanted { known, .. } => known.len() * ENTRY_BYTES,
            Hint::Alive { changed, .. } => changed.len() * ENTRY_BYTES,
            Hint::Ended(ended) => ended.tokens.len() * ENTRY_BYTES,
            _ => 0,
        };
        HINT_BYTES + more
    }

    /// Whether others would not find out by themselves, in a while, what it says.
    pub fn is_missed(&self) -> bool {
        match self {
            Hint::Present { .. }
            | Hint::PresenceWanted { .. }
            | Hint::Read { .. }
            | Hint::Renamed { .. }
            | Hint::Membership { .. }
            | Hint::Ended(_)
            | Hint::User { .. }
            | Hint::Room { .. }
            | Hint::Rules
            | Hint::Doubt => true,
            // By comparing heads, and by what the next signs of life name; the rest nobody finds out.
            Hint::Event(_)
            | Hint::Head { .. }
            | Hint::Presence { .. }
            | Hint::Alive { .. }
            | Hint::Leaving { .. }
            | Hint::Typing { .. }
            | Hint::Announcement { .. }
            | Hint::CutOff
            | Hint::Followed { .. } => false,
        }
    }
}

/// How a hint came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// From a hub of the same process, or from the broker itself.
    Process,
    /// From another process.
    Network,
}

/// Takes hints for one hub. It must not block and not call back into the broker.
pub type Sink = Arc<dyn Fn(Hint, Via) + Send + Sync>;

/// Publishes hints and delivers those of the topics that a hub follows.
///
/// **Contract.** `publish` never blocks and never fails: what cannot be delivered is dropped. A hub receives
/// its own hints too, at once and in its own order, whatever the state of the network. A hint of another hub
/// may come late, twice, out of order or never. After `follow` returns, hints published by this process on
/// that topic are delivered; those of other nodes, from some moment on. `unfollow` may be followed by a few
/// late hints. Following twice is following once.
///
/// A broker that is lossy says by `Hint::Followed` when that moment has come for a user's topic, soon after each
/// `follow`.
///
/// Whenever hints that are missed (`Hint::is_missed`) may have been lost, those who may lack them are given a
/// `Hint::Doubt` once hints get through again.
pub trait Broker: Send + Sync + 'static {
    /// Makes a hub known, following `Topic::All` and its own topic. Its sink is dropped by `detach`.
    fn attach(&self, hub: HubId, sink: Sink);
    fn detach(&self, hub: HubId);
    fn follow(&self, hub: HubId, topic: Topic);
    fn unfollow(&self, hub: HubId, topic: Topic);
    /// Gives a hint of `hub` to every follower of the topic.
    fn publish(&self, hub: HubId, topic: Topic, hint: Hint);
    /// True if hints can be lost, so that heads must be compared with the store now and then.
    fn is_lossy(&self) -> bool;
    /// Whether hints reach other processes just now, as far as that is known.
    ///
    /// # Errors
    /// They do not, and since when.
    fn check(&self) -> Result<(), Trouble> {
        Ok(())
    }
    /// What was counted since the broker was made. One that stays within its process counts nothing.
    fn counts(&self) -> Counts {
        Counts::default()
    }
}

/// What a broker between processes counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hints that were sent to other processes.
    pub sent: u64,
    /// Hints that were not sent: there was no connection, or too many waited.
    pub dropped: u64,
    /// Hints that were too large to send. Of events the place was told instead.
    pub too_large: u64,
    /// Hints of other processes that were delivered here.
    pub received: u64,
    /// Messages that could not be read: of another version, or not ours.
    pub unknown: u64,
    /// How often there was a new connection.
    pub connections: u64,
    /// Topics to which this process is subscribed.
    pub subscriptions: u64,
    /// How long a message to ourselves took, the last time.
    pub lag: Duration,
}

/// Why hints do not reach other processes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Trouble {
    pub since: Instant,
    pub cause: String,
}
