//! `sabir message read` and `tail`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sabir_server::client::{Client, ClientError, Failure, Position, Settling, Start};

use super::super::{about_topic, counted, group_admin, in_time, reader_is_there};
use super::ending;
use super::filter::Filter;
use super::no_partition;
use super::show::{Form, Printer};
use crate::args::ClientArgs;
use crate::args::message::{ReadArgs, StartArgs, TailArgs};
use crate::failure::{CliError, Exit};

/// How long one request waits for messages.
const WAIT: Duration = Duration::from_millis(500);
/// What a tail begins with.
const TAIL: Start = Start::Last(10);

/// What is settled of what is read.
enum Settles {
    Nothing,
    /// All, for a group.
    For(String),
    /// What is shown.
    Shown,
}

impl Settles {
    fn group(&self) -> Option<&str> {
        match self {
            Settles::For(group) => Some(group),
            Settles::Nothing | Settles::Shown => None,
        }
    }

    /// What is asked of the client where so much was read and shown; none where it is asked nothing.
    fn of<'a>(&'a self, before: &'a [(i32, i64)], shown: &'a [(i32, i64)]) -> Option<Settling<'a>> {
        match self {
            Settles::Nothing => None,
            Settles::For(group) => Some(Settling::Group { group, before }),
            Settles::Shown => Some(Settling::Messages(shown)),
        }
    }
}

/// What to read.
pub struct Reading {
    topic: String,
    partition: Option<i32>,
    start: Start,
    settles: Settles,
    filter: Filter,
    limit: Option<u64>,
    follow: bool,
    form: Form,
}

impl From<ReadArgs> for Reading {
    fn from(args: ReadArgs) -> Self {
        let ReadArgs { topic, start, group, settle, filter, limit, partition, follow, output, format } = args;
        let (start, filter) = (start.start().unwrap_or(Start::Earliest), filter.into());
        let settles = match group {
            Some(group) => Settles::For(group),
            None if settle => Settles::Shown,
            None => Settles::Nothing,
        };
        Self { topic, partition, start, settles, filter, limit, follow, form: Form::of(output, format) }
    }
}

impl From<TailArgs> for Reading {
    fn from(args: TailArgs) -> Self {
        let TailArgs { topic, start, filter, partition, limit, output, format } = args;
        let (start, filter) = (start.start().unwrap_or(TAIL), filter.into());
        Self {
            topic,
            partition,
            start,
            settles: Settles::Nothing,
            filter,
            limit,
            follow: true,
            form: Form::of(output, format),
        }
    }
}

impl Reading {
    /// Where it begins: at the nearest offset to the one that was asked for, where another partition has that.
    fn begins_at(&self, mut positions: Vec<Position>) -> Result<Vec<Position>, ClientError> {
        let topic = &self.topic;
        if let (Some(partition), true) = (self.partition, positions.is_empty()) {
            return Err(no_partition(topic, partition));
        }
        let Start::Offset(offset) = self.start else { return Ok(positions) };
        let problem = match &positions[..] {
            [Position { partition, first, end, .. }] if !(*first..=*end).contains(&offset) => {
                Some(format!("{topic}-{partition} has no offset {offset}; it has {first} up to {end}"))
            }
            all if all.iter().all(|p| offset > p.end) => {
                let last = all.iter().map(|p| p.end).max().unwrap_or(0);
                Some(format!("no partition of {topic} has offset {offset}; they end at {last} or before"))
            }
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(ClientError::new(Failure::NotFound, problem));
        }
        positions.iter_mut().for_each(|p| p.next = offset.clamp(p.first, p.end));
        Ok(positions)
    }

    /// A read that failed, with how to read on behind it where the broker has the place and cannot read it.
    fn unread(&self, error: ClientError) -> CliError {
        let (failure, at) = (error.failure, error.at);
        let failed = CliError::from(error);
        match at {
            Some((partition, offset)) if failure == Failure::Refused => {
                failed.advise(self.reading_on(partition, offset + 1))
            }
            _ => failed,
        }
    }

    /// Messages that were there when reading began did not come.
    fn incomplete(&self, missing: i64) -> CliError {
        let messages = counted(missing.unsigned_abs(), "message", "messages");
        let problem = format!("{messages} of {} did not come", self.topic);
        CliError::new(Exit::Refused, problem)
            .advise("Another consumer has them, or they cannot be read: the broker's log and /readyz name what is damaged.")
    }

    fn reading_on(&self, partition: i32, next: i64) -> String {
        let topic = &self.topic;
        let how = match self.settles.group() {
            Some(group) => {
                format!(
                    "`sabir group reset {group} --topic {topic} --partition {partition} --to {next}` moves the group behind it"
                )
            }
            None => format!("--partition {partition} --offset {next} reads on behind it"),
        };
        format!(
            "{how}, or a higher offset where more stands in the same batch; the broker's log says what is wrong."
        )
    }
}

impl StartArgs {
    fn start(&self) -> Option<Start> {
        let offset = self.offset.map(Start::Offset);
        let since = self.since.map(|moment| Start::Time(moment.at()));
        offset.or(since).or(self.last.map(Start::Last))
    }
}

pub async fn run(reading: Reading, args: &ClientArgs) -> Result<(), CliError> {
    let mut connected = args.connect().await?;
    let client = &mut *connected;
    if let Some(asked) = reading.settles.of(&[], &[])
        && !client.settles(asked)
    {
        return Err(unsettled(asked).into());
    }
    let ending = ending::asked()?;
    let outcome = tokio::select! {
        outcome = read(&reading, args, client) => Ok(outcome),
        code = ending => Err(code),
    };
    // Also where it failed: what was taken and not settled is another reader's.
    match outcome {
        Ok(Ok(())) => Ok(in_time(args.timeout.0, client.stop_reading()).await?),
        Ok(Err(error)) => {
            // What failed first is what is told.
            let _ = in_time(args.timeout.0.min(ending::WITHIN), client.stop_reading()).await;
            Err(error)
        }
        Err(code) => {
            // The process ends in time whatever comes of it.
            let _ = client.stop_reading().await;
            std::process::exit(code.unwrap_or(1))
        }
    }
}

/// What is settled here otherwise, if at all.
fn unsettled(asked: Settling<'_>) -> ClientError {
    let (problem, advice) = match asked {
        Settling::Group { .. } => (
            "this protocol keeps no positions for groups",
            "Read without --group, or with another --proto; --settle takes messages off a queue.",
        ),
        Settling::Messages(_) => (
            "this protocol settles no single messages",
            "Read with --group, which commits what was read, or with another --proto.",
        ),
    };
    ClientError::new(Failure::Unsupported, problem).advise(advice)
}

async fn read(reading: &Reading, args: &ClientArgs, client: &mut dyn Client) -> Result<(), CliError> {
    let asking = client.positions(&reading.topic, reading.partition, reading.start);
    let outcome = in_time(args.timeout.0, asking).await.and_then(|positions| reading.begins_at(positions));
    let mut positions = about_topic(client, args, &reading.topic, outcome).await?;
    if let Some(group) = reading.settles.group() {
        go_on(client, args, group, &reading.topic, &mut positions).await?;
    }
    say_what_is_beyond(reading, &positions);
    let mut printer = Printer::new(&reading.topic, reading.form.clone());
    let mut left = reading.limit.unwrap_or(u64::MAX);
    let (mut missing, mut heard) = (0, Instant::now());
    while left > 0 && (reading.follow || positions.iter().any(unread)) {
        if !reading.follow {
            positions.retain(unread);
        }
        let ends: Vec<_> = positions.iter().map(|p| (p.partition, p.end)).collect();
        let before = read_so_far(&positions);
        let asking = client.read(&reading.topic, &mut positions, WAIT);
        let got = in_time(args.timeout.0.max(WAIT * 4), asking).await.map_err(|e| reading.unread(e))?;
        // The end is what it was when reading began, unless new messages are waited for.
        let wanted = |partition, offset| {
            reading.follow || ends.iter().any(|(p, end)| *p == partition && offset < *end)
        };
        let (mut seen, mut shown) = (BTreeMap::new(), Vec::new());
        for message in got.iter().filter(|m| wanted(m.partition, m.offset)) {
            if left == 0 {
                break;
            }
            seen.insert(message.partition, message.offset + 1);
            if reading.filter.fits(message) {
                printer.show(message)?;
                shown.push((message.partition, message.offset));
                left -= 1;
            }
        }
        printer.flush()?;
        // While nothing comes, nothing is written, and only this tells that the reader of the output has gone.
        reader_is_there()?;
        let seen: Vec<_> = seen.into_iter().collect();
        if let Some(what) = reading.settles.of(&seen, &shown).filter(|_| !seen.is_empty()) {
            in_time(args.timeout.0, client.settle(&reading.topic, what)).await?;
        }
        if !reading.follow {
            missing += settle_ends(&mut positions, &ends);
            if read_so_far(&positions) != before {
                heard = Instant::now();
            } else if heard.elapsed() >= args.timeout.0 {
                missing += positions.iter().map(to_come).sum::<i64>();
                break;
            }
        }
    }
    match missing {
        0 => Ok(()),
        _ => Err(reading.incomplete(missing)),
    }
}

/// Has positions end where they did when reading began, or before, where the client learned that what was there does not come; tells how many
/// messages do not.
fn settle_ends(positions: &mut [Position], ends: &[(i32, i64)]) -> i64 {
    let mut missing = 0;
    for (position, (_, end)) in positions.iter_mut().zip(ends) {
        position.end = position.end.min(*end);
        let comes_to = position.end.max(position.next);
        missing += (end - comes_to).max(0);
    }
    missing
}

fn read_so_far(positions: &[Position]) -> i64 {
    positions.iter().map(|position| position.next).sum()
}

/// How many messages of a position have not come.
fn to_come(position: &Position) -> i64 {
    (position.end - position.next).max(0)
}

/// What was asked for and is not there: a user who gets no message learns why.
fn say_what_is_beyond(reading: &Reading, positions: &[Position]) {
    let topic = &reading.topic;
    match reading.start {
        Start::Offset(offset) => {
            let beyond = |p: &&Position| p.end < offset || (p.end == offset && !reading.follow);
            for Position { partition, end, .. } in positions.iter().filter(beyond) {
                eprintln!("note: {topic}-{partition} ends at {end}: nothing is at offset {offset} yet");
            }
            for Position { partition, first, .. } in positions.iter().filter(|p| p.first > offset) {
                eprintln!("note: {topic}-{partition} begins at {first}: what was before it is gone");
            }
        }
        Start::Time(_) if !reading.follow && !positions.iter().any(unread) => {
            eprintln!("note: no message of {topic} is as young as that");
        }
        _ => {}
    }
}

fn unread(position: &Position) -> bool {
    position.next < position.end
}

/// Moves the positions to where a group is; where it has committed nothing they stay at the beginning. A group with members is
/// theirs: their coordinator would refuse what we commit.
async fn go_on(
    client: &mut dyn Client,
    args: &ClientArgs,
    group: &str,
    topic: &str,
    positions: &mut [Position],
) -> Result<(), CliError> {
    match in_time(args.timeout.0, group_admin(client)?.describe(group)).await {
        Ok(found) if !found.members.is_empty() => {
            let problem = format!("group {group} has members, who read for it");
            let advice =
                "Read without --group, or stop them first; `sabir group describe` shows who they are.";
            return Err(CliError::new(Exit::Refused, problem).advise(advice));
        }
        // One that does not exist is made by the first commit.
        Err(error) if error.failure != Failure::NotFound => return Err(error.into()),
        _ => {}
    }
    let committed = in_time(args.timeout.0, group_admin(client)?.offsets(group)).await?;
    for position in positions {
        let known = committed.iter().find(|o| o.topic == topic && o.partition == position.partition);
        if let Some(known) = known {
            position.next = known.committed.clamp(position.first, position.end);
        }
    }
    Ok(())
}
