//! Appends of many, on one node, in one transaction: rooms are locked and what is known of them and their
//! members is read for all at once; then the events are sent one behind the other.

use std::collections::BTreeSet;
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

/// What is thought of the refs of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    /// None was used before.
    None,
    /// Those that stand in the log, or twice in the batch, were.
    Refs,
    /// Any may have been.
    All,
}

impl Node {
    /// Appends all in one transaction. If another node's transaction, or a `ref` used before, was in the way,
    /// once more with those refs looked up; and then each by itself with care, again and again.
    pub(super) fn append(&mut self, jobs: Vec<Waiting<Appends>>) {
        let (jobs, deadline) = in_time(jobs);
        if jobs.is_empty() {
            return;
        }
        let mut done = self.append_some(&jobs, Care::None, deadline);
        if done.as_ref().is_err_and(is_conflict) {
            done = self.append_some(&jobs, Care::Refs, deadline);
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
            match self.append_some(&job, Care::All, deadline) {
                Ok(answers) => return answer(job.into(), answers),
                Err(fault) if is_conflict(&fault) => {}
                Err(_) => return,
            }
        }
    }

    fn append_some(
        &mut self,
        jobs: &[Waiting<Appends>],
        care: Care,
        deadline: Instant,
    ) -> Result<Vec<Answers>, Fault> {
        self.transact(SHARED, deadline, |writer| {
            let all = || jobs.iter().flat_map(|Waiting { job, .. }| &job.batch);
            lock_and_look(writer, all)?;
            if care == Care::Refs {
                look_for_refs(writer, all)?;
            }
            writer.set_ahead(care != Care::All);
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

/// Finds out which refs of some appends are repeats. Their rooms are locked: nobody appends there until the end.
fn look_for_refs<'a, I: Iterator<Item = &'a Append>>(
    writer: &mut Writer,
    appends: impl Fn() -> I,
) -> Result<(), Fault> {
    let mut asked = BTreeSet::new();
    let mut repeats = Vec::new();
    for append in appends() {
        if let Some(reference) = append.reference
            && !asked.insert((append.author.id, reference.0))
        {
            repeats.push((append.author.id, reference));
        }
    }
    let authors: Vec<i64> = asked.iter().map(|(author, _)| number(author.bits())).collect();
    let refs: Vec<u8> = asked.iter().flat_map(|(_, reference)| *reference.as_bytes()).collect();
    let values = [Value::Numbers(&authors), Value::Bytes(&refs)];
    repeats.extend(query(session(writer)?, REFS, &values, Writer::read_reference)?);
    writer.expect_repeats(repeats);
    Ok(())
}

/// The columns of `Writer::read_reference`. The refs come as one row of bytes.
const REFS: &str = "
    SELECT e.author, e.ref FROM (
        SELECT author, substr(CAST(?2 AS bytea), CAST(place AS integer) * 16 - 15, 16) AS ref
        FROM unnest(CAST(?1 AS bigint[])) WITH ORDINALITY AS authors (author, place)
    ) a JOIN events e ON e.author = a.author AND e.ref = a.ref AND e.ref IS NOT NULL";

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

#[cfg(test)]
mod tests {
    use shared::model::{Ref, Seq};
    use shared::protocol::User;
    use uuid::Uuid;

    use super::super::tests::server;
    use super::super::{ANSWER_MAX, PostgresStore, Servers};
    use super::*;
    use crate::store::Store;
    use crate::store::conformance::{guest, message, wait};

    fn hello(user: &User, n: u128) -> Append {
        message(LOBBY, user, &n.to_string(), Some(Ref(Uuid::from_u128(n))))
    }

    #[test]
    fn repeats_in_a_batch_are_told_from_what_is_new() {
        let Some(server) = server::shared() else { return };
        let address = server.database();
        let store = PostgresStore::open(&address).unwrap();
        let (ada, bob) = (guest(&store, 1, "Ada"), guest(&store, 2, "Bob"));
        wait(store.append((0..5).map(|n| hello(&ada, n)).collect())).unwrap();
        // Some are in the log, one is twice in the batch, and one is another author's.
        let batch =
            [9, 3, 10, 10, 0, 11].map(|n| hello(&ada, n)).into_iter().chain([hello(&bob, 3)]).collect();
        let jobs = [Waiting { job: Appends { batch, tx: oneshot::channel().0 }, since: Instant::now() }];
        let mut node = Node::new(&Servers::parse(&address).unwrap());
        let mut append = |care| node.append_some(&jobs, care, Instant::now() + ANSWER_MAX);
        assert!(append(Care::None).is_err_and(|fault| is_conflict(&fault)));
        let answers = append(Care::Refs).unwrap().remove(0).into_iter().map(Result::unwrap);
        let answers: Vec<(bool, Seq)> = answers.map(|answer| (answer.first, answer.event.seq)).collect();
        let expected = [(true, 6), (false, 4), (true, 7), (false, 7), (false, 1), (true, 8), (true, 9)];
        assert_eq!(answers, expected);
        // A repeat of all of it.
        let again = append(Care::All).unwrap().remove(0).into_iter().map(Result::unwrap);
        assert!(again.zip(answers).all(|(answer, (_, seq))| !answer.first && answer.event.seq == seq));
    }
}
