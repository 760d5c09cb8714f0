//! Appends of many, on one node, in one transaction: rooms are locked and what is known of them and their
//! members is read for all at once; then the events are sent one behind the other.

use std::time::Instant;

use shared::model::LOBBY;
use tokio::sync::oneshot;

use super::session::Session;
use super::{Node, SHARED, Waiting, in_time, is_conflict, session};
use crate::store::sqlite::database::{Fault, Row, Value};
use crate::store::sqlite::{PLACES, Trouble, Writer, number};
use crate::store::{Append, Appended, StoreError};

type Answers = Vec<Result<Appended, StoreError>>;

/// Appends that somebody waits for.
pub(super) struct Appends {
    pub batch: Vec<Append>,
    pub tx: oneshot::Sender<Result<Answers, StoreError>>,
}

impl Node {
    /// Appends all in one transaction. If another node's transaction, or a `ref` used before, was in the way,
    /// once more with care; and then each by itself, again and again.
    pub(super) fn append(&mut self, jobs: Vec<Waiting<Appends>>) {
        let (jobs, deadline) = in_time(jobs);
        if jobs.is_empty() {
            return;
        }
        let mut done = self.append_some(&jobs, true, deadline);
        if done.as_ref().is_err_and(is_conflict) {
            done = self.append_some(&jobs, false, deadline);
        }
        match done {
            Ok(answers) => answer(jobs, answers),
            Err(fault) if is_conflict(&fault) => {
                jobs.into_iter().for_each(|job| self.append_alone(job, deadline));
            }
            // They are dropped unanswered.
            Err(_) => {}
        }
    }

    /// Appends with care until nothing is in the way, or the time is over.
    fn append_alone(&mut self, job: Waiting<Appends>, deadline: Instant) {
        let job = [job];
        while Instant::now() < deadline {
            match self.append_some(&job, false, deadline) {
                Ok(answers) => return answer(job.into(), answers),
                Err(fault) if is_conflict(&fault) => {}
                Err(_) => return,
            }
        }
    }

    fn append_some(
        &mut self,
        jobs: &[Waiting<Appends>],
        ahead: bool,
        deadline: Instant,
    ) -> Result<Vec<Answers>, Fault> {
        self.transact(SHARED, deadline, |writer| {
            let all = || jobs.iter().flat_map(|Waiting { job, .. }| &job.batch);
            lock_and_look(writer, all)?;
            writer.set_ahead(ahead);
            let append = |Waiting { job, .. }: &Waiting<Appends>| match writer.append(job.batch.clone()) {
                Ok(answers) => Ok(answers),
                Err(Trouble::Medium(fault)) => Err(fault),
                // Appends are refused one by one.
                Err(Trouble::Refused(error)) => Ok(vec![Err(error)]),
            };
            jobs.iter().map(append).collect()
        })
    }
}

fn answer(jobs: Vec<Waiting<Appends>>, answers: Vec<Answers>) {
    for (Waiting { job, .. }, answers) in jobs.into_iter().zip(answers) {
        // Whoever asked may have gone away.
        let _ = job.tx.send(Ok(answers));
    }
}

/// Locks the rooms of some appends, in an order that is the same for all nodes, and reads what has to be known
/// of them and of the authors. What is not found here is looked for again, one by one.
fn lock_and_look<'a, I: Iterator<Item = &'a Append>>(
    writer: &mut Writer,
    appends: impl Fn() -> I,
) -> Result<(), Fault> {
    let mut rooms: Vec<i64> = appends().map(|append| number(append.room.bits())).collect();
    rooms.sort_unstable();
    rooms.dedup();
    let mut pairs: Vec<(i64, i64)> =
        appends().map(|append| (number(append.room.bits()), number(append.author.id.bits()))).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let Some(earliest) = appends().map(|append| append.at).min() else { return Ok(()) };

    // The heads are read by a statement of their own: one that waits for a lock sees what was before it waited.
    let sql = "SELECT id FROM rooms WHERE id = ANY(?1) ORDER BY id FOR NO KEY UPDATE";
    query(session(writer)?, sql, &[Value::Numbers(&rooms)], |_| Ok(()))?;
    let places = query(session(writer)?, PLACES, &[Value::Numbers(&rooms)], Writer::read_place)?;
    let (of_rooms, of_users): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
    let values = [
        Value::Numbers(&of_rooms),
        Value::Numbers(&of_users),
        Value::Number(earliest),
        Value::Number(number(LOBBY.bits())),
    ];
    let members = query(session(writer)?, MEMBERSHIPS, &values, Writer::read_membership)?;
    writer.remember(places, members);
    Ok(())
}

/// The columns of `Writer::read_membership`, of members who are not banned. The lobby has all who exist. Nobody
/// goes on talking by way of a bot of theirs.
const MEMBERSHIPS: &str = "
    SELECT p.room, p.person, coalesce((
        SELECT max(until) FROM mutes WHERE room = p.room
        AND user IN (p.person, (SELECT bot_owner FROM users WHERE id = p.person))
    ), -9223372036854775808)
    FROM unnest(CAST(?1 AS bigint[]), CAST(?2 AS bigint[])) AS p (room, person)
    WHERE NOT EXISTS (SELECT 1 FROM bans WHERE user = p.person AND until > ?3)
    AND EXISTS (SELECT 1 FROM members WHERE user = p.person AND room = p.room
                UNION ALL SELECT 1 FROM users WHERE id = p.person AND p.room = ?4)";

fn query<T>(
    session: &Session,
    sql: &str,
    values: &[Value<'_>],
    read: impl Fn(Row<'_>) -> Result<T, Trouble>,
) -> Result<Vec<T>, Fault> {
    let rows = session.query(sql, values)?;
    // A row that cannot be read is met again, and answered for, where it is looked for by itself.
    Ok(rows.iter().filter_map(|row| read(Row::Server(row)).ok()).collect())
}
