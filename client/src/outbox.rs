//! What the person has sent and the server has not confirmed: one queue, in the order of sending. Sends of a
//! room go one at a time, so that their order holds over retries. Pure; it must not know the connection.

use serde::{Deserialize, Serialize};
use shared::model::{Ms, Ref, RoomId, Seq, UserId};
use shared::protocol::ClientEnvelope;

use crate::map::sorted;

/// Most unsent messages that are kept.
pub const OUTBOX_MAX: usize = 200;
/// How long a send may stay without an answer on a connection that lives; then it is repeated.
pub const ACK_TIMEOUT_MS: Ms = 15_000;

/// A message that is not confirmed, as it is kept in the browser's storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsent {
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Who sent it: another user of the same browser must not send it for them.
    pub user: UserId,
    pub room: RoomId,
    pub body: String,
    /// When it was sent, or sent again, by the server's clock as far as it is known. It grows along the
    /// queue, so that the order survives in a storage without one.
    pub at: Ms,
    /// Why the server refused it for good: it waits for the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// How far an unsent message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not transmitted on this connection.
    Waiting,
    /// Transmitted; the answer is awaited.
    Sent { at: Ms },
    /// The server asked to try again at this time.
    Held { until: Ms },
    /// Durable; its event is not in the timeline yet.
    Acked { seq: Seq },
}

/// An unsent message and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub unsent: Unsent,
    pub stage: Stage,
}

impl Item {
    /// Whether the server has it, or refused it: either way it does not hold up those behind it.
    fn is_settled(&self) -> bool {
        self.unsent.failed.is_some() || matches!(self.stage, Stage::Acked { .. })
    }

    /// When to transmit it, if nothing is before it.
    fn due_at(&self) -> Ms {
        match self.stage {
            Stage::Waiting | Stage::Acked { .. } => Ms::MIN,
            Stage::Sent { at } => at + ACK_TIMEOUT_MS,
            Stage::Held { until } => until,
        }
    }
}

/// The queue of all rooms.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    items: Vec<Item>,
}

impl Outbox {
    /// A queue of what the storage held.
    pub fn new(unsent: Vec<Unsent>) -> Self {
        let mut unsent = sorted(unsent, |a, b| (a.at, a.reference).cmp(&(b.at, b.reference)));
        unsent.dedup_by_key(|unsent| unsent.reference);
        Self { items: unsent.into_iter().map(|unsent| Item { unsent, stage: Stage::Waiting }).collect() }
    }

    /// The messages of a room, in the order of sending.
    pub fn of_room(&self, room: RoomId) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.unsent.room == room)
    }

    pub fn is_full(&self) -> bool {
        self.items.len() >= OUTBOX_MAX
    }

    /// Puts a message at the end of the queue. Gives what to keep in the storage.
    pub fn push(&mut self, mut unsent: Unsent) -> Unsent {
        // The clock's correction may have changed since the last one.
        let newest = self.items.iter().map(|item| item.unsent.at).max();
        unsent.at = newest.map_or(unsent.at, |newest| unsent.at.max(newest + 1));
        self.items.push(Item { unsent: unsent.clone(), stage: Stage::Waiting });
        unsent
    }

    /// Drops from memory, not from storage, what another user sent.
    pub fn keep_user(&mut self, user: UserId) {
        self.items.retain(|item| item.unsent.user == user);
    }

    /// The connection is gone: what was on its way has to be transmitted again.
    pub fn disconnected(&mut self) {
        for item in &mut self.items {
            if let Stage::Sent { .. } = item.stage {
                item.stage = Stage::Waiting;
            }
        }
    }

    /// The server has the message, under this `seq`. True the first time: it can go from the storage.
    pub fn confirm(&mut self, reference: Ref, seq: Seq) -> bool {
        let Some(item) = self.find(reference) else { return false };
        if let Stage::Acked { .. } = item.stage {
            return false;
        }
        item.unsent.failed = None;
        item.stage = Stage::Acked { seq };
        true
    }

    /// Lets go of a room's messages that are durable and shown, or need not be shown: `last` is the last
    /// `seq` of a live timeline, or the largest number.
    pub fn settle(&mut self, room: RoomId, last: Seq) {
        self.items.retain(|item| match item.stage {
            Stage::Acked { seq } => item.unsent.room != room || seq > last,
            _ => true,
        });
    }

    /// The server will take the message later.
    pub fn hold(&mut self, reference: Ref, until: Ms) {
        if let Some(item) = self.find(reference)
            && !item.is_settled()
        {
            item.stage = Stage::Held { until };
        }
    }

    /// The server will not take the message. Gives what to keep in the storage.
    pub fn fail(&mut self, reference: Ref, reason: String) -> Option<Unsent> {
        let item = self.find(reference).filter(|item| !item.is_settled())?;
        item.stage = Stage::Waiting;
        item.unsent.failed = Some(reason);
        Some(item.unsent.clone())
    }

    /// Puts a refused message at the end of the queue. Gives what to keep in the storage.
    pub fn retry(&mut self, now: Ms, reference: Ref) -> Option<Unsent> {
        let place = self
            .items
            .iter()
            .position(|item| item.unsent.reference == reference && item.unsent.failed.is_some())?;
        let unsent = self.items.remove(place).unsent;
        Some(self.push(Unsent { at: now, failed: None, ..unsent }))
    }

    /// The refused messages of a room, in their order.
    pub fn failed(&self, room: RoomId) -> impl Iterator<Item = Ref> {
        self.of_room(room).filter(|item| item.unsent.failed.is_some()).map(|item| item.unsent.reference)
    }

    /// Forgets a message that was refused or has not been transmitted. True if there was one.
    pub fn discard(&mut self, reference: Ref) -> bool {
        let count = self.items.len();
        self.items.retain(|item| {
            item.unsent.reference != reference
                || matches!(item.stage, Stage::Sent { .. } | Stage::Acked { .. })
        });
        self.items.len() < count
    }

    /// What is to be transmitted now: of each room that `can_send`, the first message that is not settled.
    pub fn due(&mut self, now: Ms, can_send: impl Fn(RoomId) -> bool) -> Vec<ClientEnvelope> {
        let firsts = self.firsts(can_send);
        let mut envelopes = Vec::new();
        for place in firsts {
            let item = &mut self.items[place];
            if item.due_at() <= now {
                item.stage = Stage::Sent { at: now };
                envelopes.push(ClientEnvelope::Send {
                    room: item.unsent.room,
                    reference: item.unsent.reference,
                    body: item.unsent.body.clone(),
                });
            }
        }
        envelopes
    }

    /// When `due` has something next, if nothing else happens.
    pub fn wake_at(&self, can_send: impl Fn(RoomId) -> bool) -> Option<Ms> {
        self.firsts(can_send).into_iter().map(|place| self.items[place].due_at()).min()
    }

    /// The places of each room's first message that is not settled.
    fn firsts(&self, can_send: impl Fn(RoomId) -> bool) -> Vec<usize> {
        let mut rooms = Vec::new();
        let mut places = Vec::new();
        for (place, item) in self.items.iter().enumerate() {
            let room = item.unsent.room;
            if !item.is_settled() && !rooms.contains(&room) && can_send(room) {
                rooms.push(room);
                places.push(place);
            }
        }
        places
    }

    fn find(&mut self, reference: Ref) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.unsent.reference == reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(n: u8) -> Ref {
        Ref::new(i64::from(n), [n; 10])
    }

    fn unsent(n: u8, room: u64) -> Unsent {
        Unsent {
            reference: reference(n),
            user: UserId::from_bits(1),
            room: RoomId::from_bits(room),
            body: n.to_string(),
            at: i64::from(n),
            failed: None,
        }
    }

    /// The bodies that are due at `now`.
    #[track_caller]
    fn check(outbox: &mut Outbox, now: Ms, bodies: &[&str]) {
        let due: Vec<String> = outbox
            .due(now, |_| true)
            .into_iter()
            .map(|envelope| match envelope {
                ClientEnvelope::Send { body, .. } => body,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(due, bodies);
    }

    #[test]
    fn a_room_sends_one_at_a_time_and_in_order() {
        let mut outbox = Outbox::new(vec![unsent(2, 1), unsent(1, 1), unsent(3, 2), unsent(2, 1)]);
        check(&mut outbox, 0, &["1", "3"]);
        check(&mut outbox, 1, &[]);
        assert!(outbox.confirm(reference(1), 7) && !outbox.confirm(reference(1), 7));
        check(&mut outbox, 2, &["2"]);
        outbox.disconnected();
        check(&mut outbox, 3, &["2", "3"]);
        check(&mut outbox, 3 + ACK_TIMEOUT_MS, &["2", "3"]);
    }

    #[test]
    fn a_held_message_holds_up_its_room_and_a_refused_one_does_not() {
        let mut outbox = Outbox::new(vec![unsent(1, 1), unsent(2, 1), unsent(3, 1)]);
        check(&mut outbox, 0, &["1"]);
        outbox.hold(reference(1), 500);
        check(&mut outbox, 499, &[]);
        assert_eq!(outbox.wake_at(|_| true), Some(500));
        check(&mut outbox, 500, &["1"]);
        assert_eq!(outbox.fail(reference(1), "no".to_owned()).unwrap().failed.as_deref(), Some("no"));
        check(&mut outbox, 501, &["2"]);
        assert!(!outbox.discard(reference(2)), "it may be in the log");
        assert!(outbox.retry(502, reference(1)).unwrap().failed.is_none());
        outbox.confirm(reference(2), 1);
        check(&mut outbox, 503, &["3"]);
        outbox.confirm(reference(3), 2);
        check(&mut outbox, 504, &["1"]);
    }

    #[test]
    fn a_durable_message_stays_until_its_event_is_shown() {
        let mut outbox = Outbox::new(vec![unsent(1, 1)]);
        outbox.confirm(reference(1), 5);
        outbox.settle(RoomId::from_bits(1), 4);
        assert_eq!(outbox.of_room(RoomId::from_bits(1)).count(), 1);
        outbox.settle(RoomId::from_bits(1), 5);
        assert_eq!(outbox.of_room(RoomId::from_bits(1)).count(), 0);
    }
}
