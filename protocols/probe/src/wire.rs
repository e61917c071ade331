//! The lines: what a client sends, a word and its arguments with one space between them. The last argument of some may have spaces.

use sabir_net::{DropReason, Ending};

/// The longest line, in bytes, without its end.
pub(crate) const MOST_LINE: usize = 64 * 1024;
/// The longest name of a register, a queue or a client, in bytes.
const MOST_NAME: usize = 200;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// Introduces itself; another connection of that name is closed.
    Hello {
        client: &'a str,
    },
    Create {
        topic: &'a str,
        partitions: u32,
    },
    /// Has a queue of the broker's be there, whose messages are leased.
    Queue {
        name: &'a str,
    },
    /// The same where what comes back waits, at most so many times.
    Retries {
        name: &'a str,
        most: u32,
        ms: u32,
    },
    Publish {
        topic: &'a str,
        partition: i32,
        text: &'a str,
    },
    /// The same record to partition 0 of several topics.
    Send {
        topics: &'a str,
        text: &'a str,
    },
    /// A record that `apply` appends, and older ones removed, so that at most so many are kept.
    Keep {
        topic: &'a str,
        partition: i32,
        most: u32,
        text: &'a str,
    },
    Offsets {
        topic: &'a str,
    },
    Read {
        topic: &'a str,
        partition: i32,
        offset: i64,
        most: usize,
    },
    /// From now on the topic's records are sent, as far as there is credit.
    Subscribe {
        topic: &'a str,
    },
    /// That many more messages may be sent.
    Credit {
        messages: u32,
    },
    Set {
        name: &'a str,
        value: &'a str,
    },
    Get {
        name: &'a str,
    },
    Add {
        name: &'a str,
        number: i64,
    },
    Put {
        queue: &'a str,
        value: &'a str,
    },
    /// Waits for what is put.
    Take {
        queue: &'a str,
        ms: u32,
    },
    Lease {
        queue: &'a str,
        ms: u32,
    },
    Done {
        queue: &'a str,
        lease: u64,
    },
    Return {
        queue: &'a str,
        lease: u64,
    },
    /// The same, not to come again before some time is over.
    Delay {
        queue: &'a str,
        lease: u64,
        ms: u32,
    },
    /// Something about a group of consumers at a partition.
    Group {
        topic: &'a str,
        partition: i32,
        group: &'a str,
        what: GroupCommand<'a>,
    },
    /// Answers what it was asked.
    Answer {
        number: u64,
        text: &'a str,
    },
}

/// What is wanted of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupCommand<'a> {
    Make,
    Drop,
    /// The next messages, for a consumer.
    Next {
        consumer: &'a str,
        most: u32,
    },
    Ack {
        offset: u64,
    },
    Return {
        offset: u64,
    },
    /// A message that another consumer has had for so long.
    Claim {
        consumer: &'a str,
        offset: u64,
        idle_ms: u32,
    },
    /// It goes on there.
    Seek {
        offset: u64,
    },
    Leave {
        consumer: &'a str,
    },
    Show,
}

/// A line that is no command, and what is wrong with it: it is answered with that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadLine(pub(crate) &'static str);

/// A line that is longer than any may be: where the next one begins is not waited for, and the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LongLine;

impl From<LongLine> for Ending {
    fn from(LongLine: LongLine) -> Self {
        Self::dropped(DropReason::FrameSize, "it sent a line that is too long")
    }
}

/// Bytes of the line at the front, with its end, if it has come whole.
///
/// # Errors
/// [`LongLine`]
pub(crate) fn line_len(input: &[u8]) -> Result<Option<usize>, LongLine> {
    let looked_at = &input[..input.len().min(MOST_LINE + 2)];
    match looked_at.iter().position(|byte| *byte == b'\n') {
        Some(at) => Ok(Some(at + 1)),
        None if looked_at.len() == MOST_LINE + 2 => Err(LongLine),
        None => Ok(None),
    }
}

/// What a line says; its end may still be there.
pub(crate) fn parse(line: &[u8]) -> Result<Command<'_>, BadLine> {
    let text = std::str::from_utf8(line).map_err(|_| BadLine("it is not UTF-8"))?;
    let text = text.trim_end_matches(['\n', '\r']);
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok(match word {
        "HELLO" => Command::Hello { client: name(rest)? },
        "CREATE" => fields(rest)
            .and_then(|[topic, partitions]| Ok(Command::Create { topic, partitions: number(partitions)? }))?,
        "QUEUE" => Command::Queue { name: word_of(rest)? },
        "RETRIES" => fields(rest).and_then(|[name, most, ms]| {
            Ok(Command::Retries { name, most: number(most)?, ms: number(ms)? })
        })?,
        "PUBLISH" => fields(rest).and_then(|[topic, partition, text]| {
            Ok(Command::Publish { topic, partition: number(partition)?, text })
        })?,
        "SEND" => fields(rest).map(|[topics, text]| Command::Send { topics, text })?,
        "KEEP" => fields(rest).and_then(|[topic, partition, most, text]| {
            Ok(Command::Keep { topic, partition: number(partition)?, most: number(most)?, text })
        })?,
        "OFFSETS" => Command::Offsets { topic: word_of(rest)? },
        "READ" => fields(rest).and_then(|[topic, partition, offset, most]| {
            let (partition, offset) = (number(partition)?, number(offset)?);
            Ok(Command::Read { topic, partition, offset, most: number(most)? })
        })?,
        "SUBSCRIBE" => Command::Subscribe { topic: word_of(rest)? },
        "CREDIT" => Command::Credit { messages: number(rest)? },
        "SET" => fields(rest).and_then(|[of, value]| Ok(Command::Set { name: name(of)?, value }))?,
        "GET" => Command::Get { name: name(rest)? },
        "ADD" => {
            fields(rest).and_then(|[of, by]| Ok(Command::Add { name: name(of)?, number: number(by)? }))?
        }
        "PUT" => fields(rest).and_then(|[queue, value]| Ok(Command::Put { queue: name(queue)?, value }))?,
        "TAKE" => {
            fields(rest).and_then(|[queue, ms]| Ok(Command::Take { queue: name(queue)?, ms: number(ms)? }))?
        }
        "LEASE" => fields(rest).and_then(|[queue, ms]| Ok(Command::Lease { queue, ms: number(ms)? }))?,
        "DONE" => {
            fields(rest).and_then(|[queue, lease]| Ok(Command::Done { queue, lease: number(lease)? }))?
        }
        "RETURN" => {
            fields(rest).and_then(|[queue, lease]| Ok(Command::Return { queue, lease: number(lease)? }))?
        }
        "DELAY" => fields(rest).and_then(|[queue, lease, ms]| {
            Ok(Command::Delay { queue, lease: number(lease)?, ms: number(ms)? })
        })?,
        "GROUP" => fields(rest).and_then(|[topic, partition, group, what]| {
            let (group, what) = (name(group)?, group_command(what)?);
            Ok(Command::Group { topic, partition: number(partition)?, group, what })
        })?,
        "ANSWER" => fields(rest).and_then(|[of, text]| Ok(Command::Answer { number: number(of)?, text }))?,
        _ => return Err(BadLine("there is no such command")),
    })
}

fn group_command(what: &str) -> Result<GroupCommand<'_>, BadLine> {
    let (word, rest) = what.split_once(' ').unwrap_or((what, ""));
    Ok(match word {
        "MAKE" if rest.is_empty() => GroupCommand::Make,
        "DROP" if rest.is_empty() => GroupCommand::Drop,
        "SHOW" if rest.is_empty() => GroupCommand::Show,
        "NEXT" => fields(rest).and_then(|[consumer, most]| {
            Ok(GroupCommand::Next { consumer: name(consumer)?, most: number(most)? })
        })?,
        "ACK" => GroupCommand::Ack { offset: number(rest)? },
        "RETURN" => GroupCommand::Return { offset: number(rest)? },
        "CLAIM" => fields(rest).and_then(|[consumer, offset, idle_ms]| {
            let (offset, idle_ms) = (number(offset)?, number(idle_ms)?);
            Ok(GroupCommand::Claim { consumer: name(consumer)?, offset, idle_ms })
        })?,
        "SEEK" => GroupCommand::Seek { offset: number(rest)? },
        "LEAVE" => GroupCommand::Leave { consumer: name(rest)? },
        _ => return Err(BadLine("there is no such command of a group")),
    })
}

/// So many arguments; the last one is all that is left.
fn fields<const N: usize>(rest: &str) -> Result<[&str; N], BadLine> {
    let mut all = rest.splitn(N, ' ');
    let mut found = [""; N];
    for field in &mut found {
        *field = all.next().ok_or(BadLine("an argument is missing"))?;
    }
    match found[..N - 1].iter().any(|field| field.is_empty()) {
        true => Err(BadLine("an argument is empty")),
        false => Ok(found),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, BadLine> {
    text.parse().map_err(|_| BadLine("an argument is not such a number as it must be"))
}

fn word_of(text: &str) -> Result<&str, BadLine> {
    match text.is_empty() || text.contains(' ') {
        true => Err(BadLine("a name is one word")),
        false => Ok(text),
    }
}

fn name(text: &str) -> Result<&str, BadLine> {
    word_of(text)
        .and_then(|name| if name.len() > MOST_NAME { Err(BadLine("a name is too long")) } else { Ok(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_what_is_none_is_said_to_be() {
        assert_eq!(
            parse(b"PUBLISH t 2 two words\r\n"),
            Ok(Command::Publish { topic: "t", partition: 2, text: "two words" })
        );
        assert_eq!(parse(b"SET a \n"), Ok(Command::Set { name: "a", value: "" }));
        assert_eq!(parse(b"CREDIT 5"), Ok(Command::Credit { messages: 5 }));
        assert_eq!(parse(b"LEASE t 50"), Ok(Command::Lease { queue: "t", ms: 50 }));
        let claim = GroupCommand::Claim { consumer: "c", offset: 5, idle_ms: 60 };
        assert_eq!(
            parse(b"GROUP t 0 g CLAIM c 5 60"),
            Ok(Command::Group { topic: "t", partition: 0, group: "g", what: claim })
        );
        for (line, says) in [
            (b"GROUP t 0 g TAKE".as_slice(), "command of a group"),
            (b"GROUP t 0 g MAKE x", "command of a group"),
            (b"GROUP t 0 g NEXT c", "missing"),
            (b"", "no such command"),
            (b"set a b", "no such command"),
            (b"SET a", "missing"),
            (b"SET  b", "empty"),
            (b"CREDIT -1", "number"),
            (b"LEASE t 5 6", "number"),
            (b"SUBSCRIBE a b", "one word"),
            (b"SUBSCRIBE", "one word"),
            (b"GET \xff", "UTF-8"),
        ] {
            assert!(parse(line).unwrap_err().0.contains(says), "{line:?}");
        }
        let long = format!("GET {}", "x".repeat(MOST_NAME + 1));
        assert_eq!(parse(long.as_bytes()), Err(BadLine("a name is too long")));
    }

    #[test]
    fn a_line_ends_before_it_is_too_long() {
        assert_eq!(line_len(b"GET a\nGET b\n"), Ok(Some(6)));
        assert_eq!(line_len(b"GET a"), Ok(None));
        let most = [vec![b'x'; MOST_LINE], b"\r\n".to_vec()].concat();
        assert_eq!(line_len(&most), Ok(Some(most.len())));
        assert_eq!(line_len(&most[..MOST_LINE + 1]), Ok(None));
        assert!(line_len(&vec![b'x'; MOST_LINE + 2]).is_err());
    }
}
