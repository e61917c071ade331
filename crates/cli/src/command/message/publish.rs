//! `sabir message publish`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};

use bytes::Bytes;
use sabir_server::client::{Client, ClientError, Failure, Outgoing, PublishOptions, Receipt, Start};
use serde_json::{Value, json};

use super::super::{about_topic, in_time, tell};
use super::{lines, no_partition};
use crate::args::ClientArgs;
use crate::args::message::PublishArgs;
use crate::failure::{CliError, Exit};
use crate::output::{Format, Show, Table};

/// Messages sent before the next lines are read, by number and by bytes.
const CHUNK_MESSAGES: usize = 1000;
const CHUNK_BYTES: usize = 1 << 20;
/// Receipts that a table shows one by one; more are counted.
const SHOWN: usize = 20;

pub async fn run(args: PublishArgs, client_args: &ClientArgs) -> Result<(), CliError> {
    // The input before the connection: a file that is not there is no reason to bother a broker.
    let mut input = Input::open(&args)?;
    let (connector, mut client) = client_args.connect_as().await?;
    args.options.known_to(connector.publish_options())?;
    let mut published = Published { topic: args.topic.clone(), receipts: Vec::new(), count: 0 };
    let outcome = publish(&mut *client, client_args, &args, &mut input, &mut published).await;
    tell(args.output.output, &published, outcome)
}

/// Publishes all of the input. What was published before an error is in `published`, too.
async fn publish(
    client: &mut dyn Client,
    client_args: &ClientArgs,
    args: &PublishArgs,
    input: &mut Input,
    published: &mut Published,
) -> Result<(), CliError> {
    let options = PublishOptions { timeout: client_args.timeout.0, options: args.options.0.clone() };
    let keep_all = args.output.output != Format::Table;
    while let Some(chunk) = input.chunk(args)? {
        let sending = client.publish(&args.topic, chunk, &options);
        let outcome = in_time(client_args.timeout.0, sending).await;
        let outcome = match outcome {
            Err(error) => Err(about_partition(client, client_args, args, error).await),
            done => done,
        };
        let receipts = about_topic(client, client_args, &args.topic, outcome).await?;
        published.count += receipts.len();
        let room = if keep_all { usize::MAX } else { SHOWN.saturating_sub(published.receipts.len()) };
        published.receipts.extend(receipts.into_iter().take(room));
    }
    Ok(())
}

/// What kept messages from being published: where the broker refused them and no partition has the number that was named, that, however the
/// broker says it.
async fn about_partition(
    client: &mut dyn Client,
    client_args: &ClientArgs,
    args: &PublishArgs,
    error: ClientError,
) -> ClientError {
    let (topic, Some(partition)) = (&args.topic, args.partition) else { return error };
    if error.failure != Failure::Refused {
        return error;
    }
    let asking = client.positions(topic, Some(partition), Start::Latest);
    match in_time(client_args.timeout.0, asking).await {
        Ok(positions) if positions.is_empty() => no_partition(topic, partition),
        _ => error,
    }
}

enum Input {
    One(Option<Outgoing>),
    Lines(Lines),
}

impl Input {
    fn open(args: &PublishArgs) -> Result<Self, CliError> {
        if args.tombstone {
            return Ok(Input::One(Some(message(args, None, None))));
        }
        if let Some(value) = &args.value {
            return Ok(Input::One(Some(message(args, None, Some(value.clone().into())))));
        }
        let mut reader: Box<dyn Read> = match &args.file {
            Some(path) => {
                let file = File::open(path)
                    .map_err(|e| CliError { message: format!("{}: {e}", path.display()), ..e.into() })?;
                Box::new(file)
            }
            None => {
                if io::stdin().is_terminal() {
                    eprintln!("Reading from the terminal: each line is a message, Ctrl-D ends.");
                }
                Box::new(io::stdin().lock())
            }
        };
        if !args.whole {
            return Ok(Input::Lines(Lines::new(reader)));
        }
        let mut whole = Vec::new();
        reader.read_to_end(&mut whole)?;
        Ok(Input::One(Some(message(args, None, Some(whole.into())))))
    }

    /// The next messages, `None` at the end.
    fn chunk(&mut self, args: &PublishArgs) -> Result<Option<Vec<Outgoing>>, CliError> {
        match self {
            Input::One(message) => Ok(message.take().map(|m| vec![m])),
            Input::Lines(lines) => lines.chunk(args),
        }
    }
}

/// Lines, each a message.
struct Lines {
    /// It holds a chunk, so that a file is sent in large ones.
    reader: BufReader<Box<dyn Read>>,
    /// Lines read, and those of them that are messages.
    number: u64,
    messages: u64,
    /// What ended the chunk before.
    failed: Option<CliError>,
}

impl Lines {
    fn new(input: Box<dyn Read>) -> Self {
        Self { reader: BufReader::with_capacity(CHUNK_BYTES, input), number: 0, messages: 0, failed: None }
    }

    /// The next lines, `None` at the end. Only the first of them is waited for: a pipe that pauses holds nothing back.
    fn chunk(&mut self, args: &PublishArgs) -> Result<Option<Vec<Outgoing>>, CliError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < CHUNK_MESSAGES && bytes < CHUNK_BYTES {
            match self.next(args, &mut bytes) {
                Ok(Line::Message(message)) => chunk.push(message),
                Ok(Line::Empty) => {}
                Ok(Line::End) => break,
                Err(error) if chunk.is_empty() => return Err(error),
                Err(error) => {
                    // What stands before it is published first.
                    self.failed = Some(error);
                    break;
                }
            }
            if !chunk.is_empty() && !self.reader.buffer().contains(&b'\n') {
                break;
            }
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn next(&mut self, args: &PublishArgs, bytes: &mut usize) -> Result<Line, CliError> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(Line::End);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        self.number += 1;
        // As JSON it is nothing; as text it is a message without content.
        if args.json && line.trim_ascii().is_empty() {
            return Ok(Line::Empty);
        }
        *bytes += line.len();
        let message = split(args, self.number, line.into()).map_err(|problem| {
            let advice = match self.messages {
                0 => "Nothing was published.",
                _ => "The lines before it were published.",
            };
            CliError::new(Exit::Failed, problem).advise(advice)
        })?;
        self.messages += 1;
        Ok(Line::Message(message))
    }
}

/// What a line is.
enum Line {
    Message(Outgoing),
    /// One that stands for nothing.
    Empty,
    /// There is none.
    End,
}

fn split(args: &PublishArgs, number: u64, line: Bytes) -> Result<Outgoing, String> {
    if args.json {
        let refused = |problem| format!("line {number} is no message: {problem}");
        return lines::message(&line, args.partition).map_err(refused);
    }
    let Some(separator) = &args.key_separator else {
        return Ok(message(args, None, Some(line)));
    };
    let found = line.windows(separator.len().max(1)).position(|w| w == separator.as_bytes());
    let Some(at) = found else {
        let text = String::from_utf8_lossy(&line);
        return Err(format!("line {number}: `{text}` has no `{separator}` between key and content"));
    };
    Ok(message(args, Some(line.slice(..at)), Some(line.slice(at + separator.len()..))))
}

fn message(args: &PublishArgs, key: Option<Bytes>, value: Option<Bytes>) -> Outgoing {
    let key = key.or_else(|| args.key.clone().map(Bytes::from));
    let headers = args.headers.iter().map(|(n, v)| (n.clone(), Some(v.clone().into()))).collect();
    Outgoing { partition: args.partition, key, value, headers }
}

struct Published {
    topic: String,
    receipts: Vec<Receipt>,
    count: usize,
}

impl Show for Published {
    fn json(&self) -> Value {
        let one = |r: &Receipt| json!({"topic": self.topic, "partition": r.partition, "offset": r.offset});
        self.receipts.iter().map(one).collect()
    }

    fn tables(&self) -> Vec<Table> {
        if self.count > SHOWN {
            let title = format!("{} messages published to {}", self.count, self.topic);
            return vec![Table { title: Some(title), head: vec![], rows: vec![] }];
        }
        let offset = |r: &Receipt| r.offset.map_or("-".into(), |o| o.to_string());
        let row = |r: &Receipt| vec![self.topic.clone(), r.partition.to_string(), offset(r)];
        let rows = self.receipts.iter().map(row).collect();
        vec![Table { title: None, head: vec!["TOPIC", "PARTITION", "OFFSET"], rows }]
    }

    fn names(&self) -> Vec<String> {
        let offset = |r: &Receipt| r.offset.map_or("-".into(), |o| o.to_string());
        self.receipts.iter().map(|r| format!("{}/{}/{}", self.topic, r.partition, offset(r))).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::message::MessageCommand;
    use crate::args::{Cli, Command};
    use crate::testing::NoClient;

    fn publishing(arguments: &[&str]) -> Box<PublishArgs> {
        let cli = Cli::parse_from([&["sabir", "message", "publish", "t"], arguments].concat());
        let Command::Message(noun) = cli.command else { panic!("it is about messages") };
        let MessageCommand::Publish(args) = noun.verb else { panic!("it publishes") };
        Box::new(args)
    }

    /// The contents of all messages, chunk by chunk, and what ended them.
    fn published(args: &PublishArgs, input: &'static str) -> (Vec<String>, Option<CliError>) {
        let (mut lines, mut contents) = (Lines::new(Box::new(input.as_bytes())), Vec::new());
        loop {
            match lines.chunk(args) {
                Ok(Some(chunk)) => contents
                    .extend(chunk.into_iter().map(|m| String::from_utf8(m.value.unwrap().to_vec()).unwrap())),
                Ok(None) => return (contents, None),
                Err(error) => return (contents, Some(error)),
            }
        }
    }

    #[test]
    fn empty_lines_among_messages_in_json_are_passed_over_and_those_of_text_are_messages() {
        let json = publishing(&["--json"]);
        let (one, two) = ("{\"value\": \"1\"}", "{\"value\": \"2\"}");
        let text = |lines: &[&str]| -> &'static str { lines.join("\n").leak() };
        for lines in [
            text(&[one, two, "", ""]),
            text(&["", one, "  ", "\r", two]),
            text(&[one, two, ""]),
            text(&[one, two]),
        ] {
            let (contents, error) = published(&json, lines);
            assert_eq!(contents, ["1", "2"], "{lines:?}");
            assert!(error.is_none(), "{lines:?}: {error:?}");
        }
        assert!(published(&json, "\n\n \n").0.is_empty());
        let (contents, error) = published(&json, "\n\nnonsense\n");
        let error = error.unwrap();
        assert!(contents.is_empty() && error.message.starts_with("line 3 is no message: "), "{error:?}");
        assert_eq!(published(&publishing(&[]), "a\n\nb\n").0, ["a", "", "b"]);
    }

    #[test]
    fn that_there_is_no_such_partition_is_told_of_what_was_refused_alone() {
        let cli = Cli::parse_from(["sabir", "message", "publish", "t", "x", "-p", "9"]);
        let Command::Message(noun) = cli.command else { panic!("it is about messages") };
        let MessageCommand::Publish(args) = noun.verb else { panic!("it publishes") };
        for (failure, told) in [
            (Failure::Refused, "t has no partition 9"),
            (Failure::Broken, "as it was"),
            (Failure::Connect, "as it was"),
            (Failure::Timeout, "as it was"),
            (Failure::Unsupported, "as it was"),
            (Failure::NotFound, "as it was"),
        ] {
            let error = ClientError::new(failure, "as it was");
            let telling =
                async { Ok(about_partition(&mut NoClient, &noun.client, &args, error).await.message) };
            assert_eq!(super::super::block_on(telling).unwrap(), told, "{failure:?}");
        }
    }
}
