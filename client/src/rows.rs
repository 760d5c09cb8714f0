//! What a room's view shows, line by line: days, groups of messages, system lines. Pure; dates and words are
//! the view's.

use std::rc::Rc;

use shared::model::{Ms, Ref, Seq, UserId};
use shared::protocol::{Event, EventKind, User};

use crate::outbox::Item;
use crate::room::{self, Room};

/// Messages of one sender closer than this make one group.
pub const GROUP_MS: Ms = 5 * 60_000;

const MINUTE_MS: Ms = 60_000;
const DAY_MS: Ms = 24 * 60 * MINUTE_MS;

/// One entry of the view, top to bottom.
#[derive(Clone, Debug, PartialEq)]
pub enum Row<'a> {
    /// A new day begins; any time of that day.
    Day { at: Ms },
    /// Everything below is new since the room was opened.
    New,
    /// Messages of one sender; `hidden`: the reader has blocked them.
    Group { author: &'a User, own: bool, hidden: bool, lines: Vec<Line<'a>> },
    /// Something happened to the room or to somebody in it: `event.kind` is never `Message`, `Deleted`,
    /// `Deletion` or `Unknown`.
    System { event: &'a Rc<Event> },
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Line<'a> {
    /// Stays the same from pending to confirmed.
    pub key: Key,
    pub at: Ms,
    /// Empty for a message that was deleted.
    pub body: &'a str,
    /// It mentions the reader.
    pub mentions_me: bool,
    pub standing: Standing<'a>,
}

/// What a message is known by: its `ref` while and after one's own is sent, else its `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Own(Ref),
    Seq(Seq),
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing<'a> {
    /// In the log.
    Confirmed(&'a Rc<Event>),
    /// On its way; `Retry` and `Discard` do nothing.
    Pending(Ref),
    /// Refused; the person may `Retry` or `Discard` it.
    Failed { reference: Ref, reason: &'a str },
}

/// The rows of a room: its events, then what is unsent. `offset_minutes` is what local time is ahead of UTC.
pub fn rows<'a>(
    room: &'a Room,
    unsent: impl Iterator<Item = &'a Item>,
    me: Option<&'a User>,
    blocked: &[UserId],
    offset_minutes: i32,
) -> Vec<Row<'a>> {
    let offset_ms = Ms::from(offset_minutes) * MINUTE_MS;
    let mut list = List { rows: Vec::new(), day: Ms::MIN, offset_ms, blocked };
    let mut new_line = room.new_line;
    for event in room.timeline.events() {
        let own = me.is_some_and(|me| me.id == event.user.id);
        match &event.kind {
            EventKind::Message { .. } | EventKind::Deleted => {
                let body = match &event.kind {
                    EventKind::Message { body, .. } => body.as_str(),
                    _ => "",
                };
                list.day(event.at);
                if !own && new_line.is_some_and(|seq| event.seq > seq) {
                    new_line = None;
                    list.rows.push(Row::New);
                }
                let key = match event.reference {
                    Some(reference) if own => Key::Own(reference),
                    _ => Key::Seq(event.seq),
                };
                let standing = Standing::Confirmed(event);
                let mentions_me = !own && me.is_some_and(|me| room::mentions(event, me.id));
                list.message(&event.user, own, Line { key, at: event.at, body, mentions_me, standing });
            }
            EventKind::Deletion { .. } | EventKind::Unknown => {}
            EventKind::Created
            | EventKind::Joined
            | EventKind::Left
            | EventKind::Invited { .. }
            | EventKind::Removed { .. }
            | EventKind::Transferred { .. }
            | EventKind::Muted { .. }
            | EventKind::Topic { .. }
            | EventKind::RoomRenamed { .. }
            | EventKind::Archived { .. }
            | EventKind::SlowMode { .. }
            | EventKind::Renamed { .. } => {
                list.day(event.at);
                list.rows.push(Row::System { event });
            }
        }
    }
    if let Some(me) = me {
        for Item { unsent, .. } in unsent {
            let reference = unsent.reference;
            let standing = match &unsent.failed {
                Some(reason) => Standing::Failed { reference, reason },
                None => Standing::Pending(reference),
            };
            list.day(unsent.at);
            let body = &unsent.body;
            let line = Line { key: Key::Own(reference), at: unsent.at, body, mentions_me: false, standing };
            list.message(me, true, line);
        }
    }
    list.rows
}

struct List<'a, 'b> {
    rows: Vec<Row<'a>>,
    blocked: &'b [UserId],
    /// The day of the last row, in days since 1970 by local time.
    day: Ms,
    offset_ms: Ms,
}

impl<'a> List<'a, '_> {
    /// Begins a new day where `at` is in one. A clock that went back begins none.
    fn day(&mut self, at: Ms) {
        let day = (at + self.offset_ms).div_euclid(DAY_MS);
        if day > self.day {
            self.day = day;
            self.rows.push(Row::Day { at });
        }
    }

    fn message(&mut self, author: &'a User, own: bool, line: Line<'a>) {
        if let Some(Row::Group { author: last_author, lines, .. }) = self.rows.last_mut()
            && *last_author == author
            && lines.last().is_some_and(|last| line.at - last.at < GROUP_MS)
        {
            lines.push(line);
        } else {
            let hidden = self.blocked.contains(&author.id);
            self.rows.push(Row::Group { author, own, hidden, lines: vec![line] });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Stage, Unsent};
    use shared::model::{Body, LOBBY, UserId, UserName};
    use shared::protocol::{RoomInfo, RoomKind};

    fn user(bits: u64) -> User {
        User { id: UserId::from_bits(bits), name: UserName::parse("Ada").unwrap() }
    }

    /// The rows of events given as (user, minutes, kind), told in short: me is user 1.
    #[track_caller]
    fn check(events: &[(u64, Ms, &str)], new_line: Option<Seq>, unsent: &[(Ms, bool)], rows_told: &[&str]) {
        let head = events.len() as Seq;
        let info = RoomInfo { head, ..RoomInfo::new(LOBBY, RoomKind::Public) };
        let mut room = Room::new(info, String::new());
        room.new_line = new_line;
        let page = events.iter().zip(1..).map(|((author, minutes, kind), seq)| Event {
            room: LOBBY,
            seq,
            at: minutes * MINUTE_MS,
            user: user(*author),
            kind: match *kind {
                "joined" => EventKind::Joined,
                "unknown" => EventKind::Unknown,
                body => EventKind::message(Body::parse(body, 0).unwrap()),
            },
            reference: None,
        });
        room.timeline.page_newest(1, head, page.collect());
        let items: Vec<Item> = unsent
            .iter()
            .map(|(minutes, is_failed)| Item {
                unsent: Unsent {
                    reference: Ref::new(*minutes, [0; 10]),
                    user: user(1).id,
                    room: LOBBY,
                    body: "unsent".to_owned(),
                    at: minutes * MINUTE_MS,
                    failed: is_failed.then(|| "no".to_owned()),
                },
                stage: Stage::Waiting,
            })
            .collect();
        let me = user(1);
        let told: Vec<String> = rows(&room, items.iter(), Some(&me), &[], 60)
            .iter()
            .map(|row| match row {
                Row::Day { at } => format!("day {}", at / MINUTE_MS),
                Row::New => "new".to_owned(),
                Row::System { event } => format!("system {}", event.seq),
                Row::Group { author, lines, .. } => {
                    let lines: Vec<String> = lines
                        .iter()
                        .map(|line| match line.standing {
                            Standing::Confirmed(event) => event.seq.to_string(),
                            Standing::Pending(_) => "pending".to_owned(),
                            Standing::Failed { reason, .. } => reason.to_owned(),
                        })
                        .collect();
                    format!("{}: {}", author.id.bits(), lines.join(" "))
                }
            })
            .collect();
        assert_eq!(told, rows_told);
    }

    #[test]
    fn a_group_is_one_sender_within_five_minutes() {
        check(
            &[
                (2, 0, "a"),
                (2, 4, "b"),
                (2, 9, "c"),
                (3, 9, "d"),
                (3, 9, "joined"),
                (3, 9, "unknown"),
                (3, 9, "e"),
            ],
            None,
            &[],
            &["day 0", "2: 1 2", "2: 3", "3: 4", "system 5", "3: 7"],
        );
    }

    #[test]
    fn days_are_those_of_local_time() {
        check(
            &[(2, 22 * 60 + 59, "a"), (2, 23 * 60, "b"), (2, 10, "c")],
            None,
            &[],
            &["day 1379", "2: 1", "day 1380", "2: 2 3"],
        );
    }

    #[test]
    fn the_new_line_stands_before_the_first_new_message_of_others() {
        check(
            &[(2, 0, "a"), (1, 0, "b"), (2, 0, "joined"), (2, 0, "c"), (2, 0, "d")],
            Some(1),
            &[],
            &["day 0", "2: 1", "1: 2", "system 3", "new", "2: 4 5"],
        );
        check(&[(2, 0, "a")], Some(1), &[], &["day 0", "2: 1"]);
    }

    #[test]
    fn what_is_unsent_comes_last_and_joins_the_own_group() {
        check(
            &[(1, 0, "a")],
            None,
            &[(1, false), (2, true), (8, false)],
            &["day 0", "1: 1 pending no", "1: pending"],
        );
        check(&[], None, &[(0, false)], &["day 0", "1: pending"]);
    }
}
