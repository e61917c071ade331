//! What a client asks for: each is begun where its line is read, and answered in its turn.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use sabir_broker::projection::View;
use sabir_broker::queue::reader::{Found, QueueReader};
use sabir_broker::{
    Caller, EntryRef, EntryRefused, NewTopic, Partition, ProjectionEntry, Publish, PublishTargets, Reply,
};
use sabir_frontend::{GiveUp, Parked};
use sabir_model::{Backoff, Offset, PartitionId, QueueConfig, ShardFailure, ShardId, TopicConfig};

use crate::frontend::ProbeFrontend;
use crate::groups;
use crate::records::{Kept, READ_BYTES, no_partition, no_topic, text};
use crate::state::{State, command};
use crate::wire::GroupCommand;

/// The most records of one answer.
const MOST_READ: usize = 1000;

/// The most messages that a consumer of a group takes at once.
const MOST_TAKEN: u32 = 1000;

/// What comes of an answer: its lines.
type Coming = Pin<Box<dyn Future<Output = String>>>;

/// An answer, as it comes.
pub(crate) enum Answering {
    /// It is there.
    There(String),
    /// It comes by itself; until then it counts as so many bytes.
    Comes(Coming, usize),
    /// It is worked on when all before it are sent: it may be much.
    InTurn(Coming),
}

impl Answering {
    /// Takes it if it has come.
    pub(crate) fn look(&mut self, cx: &mut Context<'_>) {
        if let Self::Comes(coming, _) = self
            && let Poll::Ready(answer) = coming.as_mut().poll(cx)
        {
            *self = Self::There(answer);
        }
    }

    /// The answer, now that all before it are sent.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        match self {
            Self::There(answer) => Poll::Ready(std::mem::take(answer)),
            Self::Comes(coming, _) | Self::InTurn(coming) => coming.as_mut().poll(cx),
        }
    }

    /// Bytes that wait, or may.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::There(answer) => answer.len(),
            Self::Comes(_, bytes) => *bytes,
            Self::InTurn(_) => 0,
        }
    }
}

/// An answer that is there.
pub(crate) fn at_once(answer: impl Into<String>) -> Answering {
    Answering::There(answer.into())
}

/// One that comes by itself, and is short.
pub(crate) fn soon(answer: impl Future<Output = String> + 'static) -> Answering {
    Answering::Comes(Box::pin(answer), 0)
}

/// An answer in the one form that errors have.
pub(crate) fn error(why: impl std::fmt::Display) -> String {
    format!("ERR {why}")
}

/// What the projection answered, or why it did not.
pub(crate) fn answered(answer: Result<Bytes, ShardFailure>) -> String {
    answer.map_or_else(error, |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What was written, or why not.
pub(crate) fn entry<E>(written: Result<(E, Reply<Result<Bytes, ShardFailure>>), EntryRefused>) -> Answering {
    match written {
        Ok((_, reply)) => soon(async { answered(reply.await) }),
        Err(refused) => at_once(error(refused)),
    }
}

pub(crate) fn publish(
    probe: &ProbeFrontend,
    caller: &Caller,
    topic: &str,
    partition: i32,
    text: &str,
) -> Answering {
    match probe.batch(caller, topic, partition, text) {
        Err(why) => at_once(error(why)),
        Ok(append) => {
            let appending = probe.broker.append(vec![append]);
            soon(async move {
                let appended = appending.await.pop().expect("an answer for each batch");
                appended.map_or_else(error, |appended| format!("OK {}", appended.base_offset))
            })
        }
    }
}

/// Publishes the same record to several topics: an offset for each, or why that one refused it.
pub(crate) fn send(probe: &ProbeFrontend, caller: &Caller, targets: PublishTargets, text: &str) -> Answering {
    let number = targets.targets().len();
    let published = match probe.record(text, &targets.rules()) {
        Err(refusal) => return at_once(error(targets.refused(refusal))),
        Ok(batch) => probe.broker.publish(caller, &Publish::new(targets, [batch])),
    };
    match published {
        Err(refused) => at_once(error(refused)),
        Ok(mut outcomes) => soon(async move {
            let mut told = vec![String::new(); number];
            while let Some(outcome) = outcomes.next().await {
                let result = outcome.result.map(|appended| appended.base_offset.to_string());
                told[outcome.target] = result.unwrap_or_else(error);
            }
            format!("OK {}", told.join(", "))
        }),
    }
}

/// A record that comes with a command: `apply` appends it, and removes the oldest beyond so many. It judges no caller: whether this one may empty
/// the topic is asked here.
pub(crate) fn keep(
    probe: &ProbeFrontend,
    caller: &Caller,
    (topic, partition): (&str, i32),
    most: u32,
    text: &str,
) -> Answering {
    let place = match probe.emptied(caller, topic, partition) {
        Ok(place) => place,
        Err(why) => return at_once(error(why)),
    };
    match (probe.number(), probe.batch(caller, topic, partition, text)) {
        (Err(refused), _) => at_once(error(refused)),
        (_, Err(why)) => at_once(error(why)),
        (Ok(number), Ok(append)) => {
            let command = command(&format!("keep {} {most}", place.id));
            let with = ProjectionEntry { batches: vec![append], ..ProjectionEntry::new(command) };
            entry(probe.broker.write(caller, place.shard, number, &with))
        }
    }
}

pub(crate) fn create(probe: Arc<ProbeFrontend>, caller: Caller, topic: &str, partitions: u32) -> Answering {
    let config = probe.broker.options().defaults.clone();
    make(probe, caller, topic, partitions, config)
}

pub(crate) fn create_queue(
    probe: Arc<ProbeFrontend>,
    caller: Caller,
    name: &str,
    config: QueueConfig,
) -> Answering {
    make(probe, caller, name, 1, TopicConfig::of_queue(config))
}

/// The settings of a queue where what comes back waits, at most so many times.
pub(crate) fn retries(most: u32, ms: u32) -> QueueConfig {
    let retry = Some(Backoff::Steps([ms].into()));
    QueueConfig { retry, delivery_limit: Some(most), ..QueueConfig::default() }
}

fn make(
    probe: Arc<ProbeFrontend>,
    caller: Caller,
    topic: &str,
    partitions: u32,
    config: TopicConfig,
) -> Answering {
    let topic = NewTopic { name: topic.into(), partitions, config, internal: false, unlike: false };
    soon(async move {
        let made =
            probe.broker.create_topics(&caller, vec![topic]).await.pop().expect("an answer for each topic");
        made.map_or_else(error, |_| "OK".into())
    })
}

pub(crate) fn offsets(probe: &ProbeFrontend, caller: &Caller, topic: &str) -> Answering {
    let partitions = probe.broker.catalog().topic_of(caller, topic).map(|topic| topic.partitions.len());
    let Some(partitions) = partitions else { return at_once(error(no_topic(topic))) };
    let kept = (0..partitions as i32).filter_map(|partition| probe.kept(caller, topic, partition));
    let all: Vec<_> = kept.map(|kept| format!("{}:{}", kept.offsets.start, kept.offsets.end)).collect();
    at_once(format!("OK {}", all.join(" ")))
}

pub(crate) fn read(
    probe: Arc<ProbeFrontend>,
    caller: &Caller,
    topic: &str,
    partition: i32,
    offset: i64,
    most: usize,
) -> Answering {
    let Some(Kept { target, .. }) = probe.kept(caller, topic, partition) else {
        return at_once(error(no_partition(topic, partition)));
    };
    Answering::InTurn(Box::pin(async move {
        let from = Offset(offset);
        let read = match probe.broker.read(target, from, READ_BYTES, true).await {
            Ok(fetched) => probe.shown(target, partition, from, fetched).await,
            Err(failure) => Err(failure),
        };
        let found = match read {
            Ok((found, _)) => found,
            Err(failure) => return error(failure),
        };
        let lines = found.iter().take(most.min(MOST_READ));
        let mut answer: String = lines.map(|record| format!("{} {}\n", record.offset, record.text)).collect();
        answer.push_str("OK");
        answer
    }))
}

/// Reads a register as the entry left it that this client wrote there last, whatever others have written behind it.
pub(crate) fn get(
    probe: &ProbeFrontend,
    caller: &Caller,
    behind: Option<&EntryRef>,
    name: &str,
) -> Answering {
    let number = match probe.number() {
        Ok(number) => number,
        Err(refused) => return at_once(error(refused)),
    };
    let (home, name) = (probe.home(caller), name.to_owned());
    let read = move |view: &View<'_>| {
        let value = view.projection::<State>(number).and_then(|state| state.get(&name));
        value.map_or_else(|| "NIL".to_owned(), |value| format!("OK {value}"))
    };
    look(probe, caller, home, behind, 0, read)
}

/// Waits at a queue; `number` is one that no other waits by. If the client goes, so does its place there; where the node is to close it, what is given
/// with the answer gives the place up first.
pub(crate) fn take(
    probe: &ProbeFrontend,
    caller: &Caller,
    queue: &str,
    ms: u32,
    number: u64,
) -> (Answering, Option<GiveUp>) {
    let home = probe.home(caller);
    let written = probe.give_up(home, &format!("give-up {queue} {number}")).and_then(|give_up| {
        let (_, reply) = probe.write(caller, home, &format!("take {queue} {number}"))?;
        Ok((Parked::new(reply, give_up.clone()), give_up))
    });
    match written {
        Ok((parked, give_up)) => {
            let limit = Duration::from_millis(ms.into());
            (soon(async move { answered(parked.within(limit).await) }), Some(give_up))
        }
        Err(refused) => (at_once(error(refused)), None),
    }
}

/// Leases a queue's next message to the client that asks.
pub(crate) fn lease(probe: Arc<ProbeFrontend>, caller: &Caller, name: &str, ms: u32) -> Answering {
    let (place, target) = match probe.queue(caller, name) {
        Ok(found) => found,
        Err(why) => return at_once(error(why)),
    };
    let (entry, reply) = match probe.write(caller, place.shard, &format!("lease {} {ms}", place.id)) {
        Ok(written) => written,
        Err(refused) => return at_once(error(refused)),
    };
    // On the thread that applies it, whatever becomes of this connection meanwhile.
    let clock = probe.clock(place.shard).clone();
    drop(probe.broker.after(caller, &entry, move |_| clock.look_again()));
    Answering::InTurn(Box::pin(async move {
        let answer = answered(reply.await);
        let Some((_, offset)) = answer.strip_prefix("OK ").and_then(|given| given.split_once(' ')) else {
            return answer;
        };
        let offset = offset.parse().expect("the projection answers with an offset");
        let mut reader = QueueReader::new(target);
        match reader.read_one(&probe.broker, &probe.workers, offset).await {
            Ok(Found::Message(stored)) => {
                format!("{answer} {}", text(Some(stored.to_message(&probe.broker))))
            }
            Ok(Found::Gone | Found::Unread) => format!("{answer} "),
            // Its lease ends by itself, and it is tried again then.
            Ok(Found::Unreadable { error: failure, .. }) | Err(failure) => error(failure),
        }
    }))
}

pub(crate) fn end_lease(
    probe: &ProbeFrontend,
    caller: &Caller,
    name: &str,
    word: &str,
    numbers: &[u64],
) -> Answering {
    match probe.queue(caller, name) {
        Err(why) => at_once(error(why)),
        Ok((place, _)) => {
            let mut command = format!("{word} {}", place.id);
            numbers.iter().for_each(|number| command.push_str(&format!(" {number}")));
            entry(probe.write(caller, place.shard, &command))
        }
    }
}

/// The command of the projection; a group that is shown is not changed.
fn group_words(of: PartitionId, name: &str, what: GroupCommand<'_>) -> Option<String> {
    let (word, rest) = match what {
        GroupCommand::Make => ("make", String::new()),
        GroupCommand::Drop => ("drop", String::new()),
        GroupCommand::Next { consumer, most } => ("next", format!("{consumer} {}", most.min(MOST_TAKEN))),
        GroupCommand::Ack { offset } => ("ack", offset.to_string()),
        GroupCommand::Return { offset } => ("return", offset.to_string()),
        GroupCommand::Claim { consumer, offset, idle_ms } => {
            ("claim", format!("{consumer} {offset} {idle_ms}"))
        }
        GroupCommand::Seek { offset } => ("seek", offset.to_string()),
        GroupCommand::Leave { consumer } => ("leave", consumer.to_owned()),
        GroupCommand::Show => return None,
    };
    Some(format!("group-{word} {of} {name} {rest}"))
}

/// Writes what is wanted of a group; the version before would not read that command. A group is shown as this client left it by the last entry
/// that it wrote there. Gives that entry, if this is one.
pub(crate) fn group(
    probe: &ProbeFrontend,
    caller: &Caller,
    place: Partition,
    name: &str,
    what: GroupCommand<'_>,
    behind: Option<&EntryRef>,
) -> (Answering, Option<EntryRef>) {
    if !probe.broker.has_subscriptions() {
        return (at_once(error("the data directory's format level is too low for that")), None);
    }
    if let Some(words) = group_words(place.id, name, what) {
        let written = probe.write(caller, place.shard, &words);
        let of = written.as_ref().ok().map(|(of, _)| of.clone());
        return (entry(written), of);
    }
    let name = name.to_owned();
    let read = move |view: &View<'_>| groups::show(place.id, &name, view);
    (look(probe, caller, place.shard, behind, groups::SHOWN_BYTES, read), None)
}

/// Reads as an entry left it that this client wrote there last, whatever others have written behind it; else what is applied now. The answer counts as so
/// many bytes until it is there.
fn look(
    probe: &ProbeFrontend,
    caller: &Caller,
    shard: ShardId,
    behind: Option<&EntryRef>,
    bytes: usize,
    read: impl FnOnce(&View<'_>) -> String + Send + 'static,
) -> Answering {
    match behind {
        None => at_once(probe.broker.look(caller, shard, read).unwrap_or_else(error)),
        Some(entry) => {
            let reply = probe.broker.after(caller, entry, read);
            Answering::Comes(Box::pin(async { reply.await.unwrap_or_else(error) }), bytes)
        }
    }
}

/// Gives back what is leased, not to come again before some time is over. The version before would not read that command.
pub(crate) fn delay(probe: &ProbeFrontend, caller: &Caller, name: &str, lease: u64, ms: u32) -> Answering {
    match probe.broker.parks() {
        true => end_lease(probe, caller, name, "delay", &[lease, ms.into()]),
        false => at_once(error("the data directory's format level is too low for that")),
    }
}
