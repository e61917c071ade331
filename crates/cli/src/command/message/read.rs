//! `sabir message read` and `tail`.

use std::time::Duration;

use sabir_server::client::{Position, Start};

use super::super::in_time;
use super::show::Printer;
use crate::args::{ClientArgs, MessageFormat, ReadArgs, StartArgs, TailArgs};
use crate::failure::CliError;

/// How long one request waits for messages.
const WAIT: Duration = Duration::from_millis(500);

/// What to read.
pub struct Reading {
    topic: String,
    partition: Option<i32>,
    start: Start,
    count: Option<u64>,
    follow: bool,
    format: MessageFormat,
}

impl From<ReadArgs> for Reading {
    fn from(args: ReadArgs) -> Self {
        let ReadArgs { topic, start, count, partition, follow, output } = args;
        Self { topic, partition, start: start.start(), count, follow, format: output }
    }
}

impl From<TailArgs> for Reading {
    fn from(args: TailArgs) -> Self {
        let TailArgs { topic, last, partition, count, output } = args;
        Self { topic, partition, start: Start::Last(last), count, follow: true, format: output }
    }
}

impl StartArgs {
    fn start(&self) -> Start {
        match (self.offset, self.since, self.last) {
            (Some(offset), _, _) => Start::Offset(offset),
            (_, Some(since), _) => Start::Time(since.at()),
            (_, _, Some(last)) => Start::Last(last),
            _ => Start::Earliest,
        }
    }
}

pub async fn run(reading: Reading, args: &ClientArgs) -> Result<(), CliError> {
    let mut client = args.connect().await?;
    let asking = client.positions(&reading.topic, reading.partition, reading.start);
    let mut positions = in_time(args.timeout.0, asking).await?;
    let mut printer = Printer::new(reading.format);
    let mut left = reading.count.unwrap_or(u64::MAX);
    while left > 0 && (reading.follow || positions.iter().any(unread)) {
        if !reading.follow {
            positions.retain(unread);
        }
        let ends: Vec<_> = positions.iter().map(|p| (p.partition, p.end)).collect();
        let got =
            in_time(args.timeout.0.max(WAIT * 2), client.read(&reading.topic, &mut positions, WAIT)).await?;
        // The end is what it was when reading began, unless new messages are waited for.
        let wanted = |partition, offset| {
            reading.follow || ends.iter().any(|(p, end)| *p == partition && offset < *end)
        };
        for message in got.iter().filter(|m| wanted(m.partition, m.offset)).take(left as usize) {
            printer.show(message)?;
            left -= 1;
        }
        printer.flush()?;
        if !reading.follow {
            for (position, (_, end)) in positions.iter_mut().zip(ends) {
                position.end = end;
            }
        }
    }
    Ok(())
}

fn unread(position: &Position) -> bool {
    position.next < position.end
}
