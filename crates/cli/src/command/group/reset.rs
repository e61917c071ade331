//! `sabir group reset`.

use sabir_server::client::{Client, Failure, GroupOffset, Position, Start};
use serde_json::{Value, json};

use super::super::{confirm, counted, group_admin, in_time, places};
use super::{committed, without_members};
use crate::args::ClientArgs;
use crate::args::group::{ResetArgs, To};
use crate::args::value::Place;
use crate::failure::{CliError, Exit};
use crate::output::{Show, Table, grouped, print};

pub async fn run(client: &mut dyn Client, args: &ClientArgs, reset: ResetArgs) -> Result<(), CliError> {
    let before = before(client, args, &reset).await?;
    let mut topics = reset.topics.clone();
    if topics.is_empty() {
        topics = before.iter().map(|o| o.topic.clone()).collect();
    }
    topics.sort();
    topics.dedup();
    if topics.is_empty() {
        let problem = format!("group {} has committed nothing", reset.group);
        return Err(CliError::new(Exit::NotFound, problem).advise("Name the topics with --topic."));
    }
    let mut moves = Vec::new();
    for topic in topics {
        for position in places(client, args, &topic, reset.partition, reset.to.start()).await? {
            let old = before.iter().find(|o| o.topic == topic && o.partition == position.partition);
            moves.push(reset.to.moved(topic.clone(), position, old.map(|o| o.committed)));
        }
    }
    if !reset.dry_run {
        let lag = counted(moves.iter().map(Move::lag).sum(), "message", "messages");
        let partitions = counted(moves.len() as u64, "partition", "partitions");
        confirm(reset.sure, &format!("Reset {} in {partitions}, to be {lag} behind?", reset.group))?;
        let offsets: Vec<_> = moves.iter().map(|m| (m.topic.clone(), m.partition, m.after)).collect();
        in_time(args.timeout.0, group_admin(client)?.commit(&reset.group, &offsets)).await?;
    }
    let outcome = if reset.dry_run { "would be reset" } else { "reset" };
    Ok(print(reset.output.output, &Moves { group: reset.group, moves, outcome })?)
}

/// What the group has committed so far. One that does not exist has nothing, and is made if topics are named.
async fn before(
    client: &mut dyn Client,
    args: &ClientArgs,
    reset: &ResetArgs,
) -> Result<Vec<GroupOffset>, CliError> {
    match in_time(args.timeout.0, group_admin(client)?.describe(&reset.group)).await {
        Ok(group) => without_members(&group)?,
        Err(error) if error.failure == Failure::NotFound && !reset.topics.is_empty() => return Ok(Vec::new()),
        Err(error) if error.failure == Failure::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    committed(client, args, &reset.group).await
}

impl To {
    /// What to ask the broker for. An offset, and a way to go, are measured here from the ends.
    fn start(&self) -> Start {
        match self.to {
            Some(Place::Earliest) => Start::Earliest,
            Some(Place::Time(moment)) => Start::Time(moment.at()),
            Some(Place::Latest | Place::Offset(_)) | None => Start::Latest,
        }
    }

    fn moved(&self, topic: String, position: Position, before: Option<i64>) -> Move {
        let Position { partition, first, next, end } = position;
        let wanted = match (self.to, self.by) {
            (Some(Place::Offset(offset)), _) => offset,
            // Where nothing is committed there is nothing to go from but the beginning.
            (None, Some(by)) => before.unwrap_or(first).saturating_add(by),
            _ => next,
        };
        let after = wanted.clamp(first, end);
        Move { topic, partition, before, after, end, clamped: after != wanted }
    }
}

/// Where a group goes on in a partition.
struct Move {
    topic: String,
    partition: i32,
    before: Option<i64>,
    after: i64,
    end: i64,
    /// What was asked for lies outside the partition; this is the nearest there is.
    clamped: bool,
}

impl Move {
    fn lag(&self) -> u64 {
        (self.end - self.after).max(0) as u64
    }
}

struct Moves {
    group: String,
    moves: Vec<Move>,
    outcome: &'static str,
}

impl Show for Moves {
    fn json(&self) -> Value {
        let one = |m: &Move| {
            json!({"topic": m.topic, "partition": m.partition, "before": m.before, "after": m.after,
                   "end": m.end, "lag": m.lag(), "clamped": m.clamped})
        };
        let moves: Value = self.moves.iter().map(one).collect();
        json!({"group": self.group, "outcome": self.outcome, "partitions": moves})
    }

    fn tables(&self) -> Vec<Table> {
        let row = |m: &Move| {
            let before = m.before.map_or("-".into(), |b| b.to_string());
            let after = format!("{}{}", m.after, if m.clamped { " (the nearest there is)" } else { "" });
            vec![m.topic.clone(), m.partition.to_string(), before, after, m.end.to_string(), grouped(m.lag())]
        };
        vec![Table {
            title: Some(format!("{} {}", self.group, self.outcome)),
            head: vec!["TOPIC", "PARTITION", "BEFORE", "AFTER", "END", "LAG"],
            rows: self.moves.iter().map(row).collect(),
        }]
    }

    fn names(&self) -> Vec<String> {
        vec![self.group.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(to: Option<Place>, by: Option<i64>, before: Option<i64>) -> (i64, bool) {
        // What the broker finds for a time is 6.
        let position = Position { partition: 0, first: 3, next: 6, end: 9 };
        let moved = To { to, by }.moved("t".into(), position, before);
        (moved.after, moved.clamped)
    }

    #[test]
    fn a_move_stays_in_the_partition_and_says_so() {
        assert_eq!(after(Some(Place::Offset(5)), None, None), (5, false));
        assert_eq!(after(Some(Place::Offset(0)), None, None), (3, true));
        assert_eq!(after(Some(Place::Offset(10)), None, None), (9, true));
        assert_eq!(after(Some(Place::Latest), None, Some(1)), (6, false));
        assert_eq!(after(None, Some(-2), Some(8)), (6, false));
        assert_eq!(after(None, Some(-20), Some(8)), (3, true));
        assert_eq!(after(None, Some(i64::MAX), Some(8)), (9, true));
        assert_eq!(after(None, Some(1), None), (4, false));
    }
}
