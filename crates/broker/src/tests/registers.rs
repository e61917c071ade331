//! A front end's own projection as tests have it: values by key, and a word with the records.

use std::fmt::{Debug, Display};

use bytes::Bytes;
use sabir_model::{DecodeError, Offset, PartitionId, Sequence};

use crate::projection::delivery::{
    HeldBy, MessageOwner, Operation, RangesBuffer, Settlement, SubscriptionSettings, SubscriptionStart,
    Terms, of_queue,
};
use crate::projection::{
    Effects, EntryId, FrontendProjection, Maps, PageDecodeError, PageError, PageKey, PageMap, PageValue,
    Paged, Projection, ProjectionFactory,
};

pub(crate) const REGISTERS: ProjectionFactory =
    ProjectionFactory { name: "registers", make: Registers::make };

/// The same as another front end has it.
pub(crate) const OTHERS: ProjectionFactory = ProjectionFactory { name: "others", make: Registers::make };

/// What `apply` answers where there is a value already.
pub(crate) const THERE: &[u8] = b"there";

pub(crate) struct Registers {
    values: Paged<Text, Text>,
    /// Keys with the block that is to be kept for them.
    pins: Paged<Text, Pin>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Text(Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pin(Sequence);

/// A command: a letter, the key's length, the key, the value.
fn command(letter: u8, key: &str, value: &[u8]) -> Bytes {
    [&[letter, key.len() as u8], key.as_bytes(), value].concat().into()
}

/// Answers with the value before.
pub(crate) fn set(key: &str, value: &[u8]) -> Bytes {
    command(b's', key, value)
}

pub(crate) fn delete(key: &str) -> Bytes {
    command(b'd', key, b"")
}

/// Sets the key if it has no value, appends the batch, and answers with its offset.
pub(crate) fn log_new(key: &str, value: &[u8]) -> Bytes {
    command(b'l', key, value)
}

/// Sets the key to the block's time and the entry's seed.
pub(crate) fn draw(key: &str) -> Bytes {
    command(b'r', key, b"")
}

/// Wants the entry's block kept.
pub(crate) fn pin(key: &str) -> Bytes {
    command(b'p', key, b"")
}

pub(crate) fn unpin(key: &str) -> Bytes {
    command(b'u', key, b"")
}

/// Is answered by what answers the key.
pub(crate) fn wait(key: &str) -> Bytes {
    command(b'w', key, b"")
}

/// Answers what waits for the key, and says whether anything may.
pub(crate) fn answer(key: &str, value: &[u8]) -> Bytes {
    command(b'a', key, value)
}

/// Leases so many messages of a queue, for a minute, and answers with which; if the entry has a batch, that is appended before.
pub(crate) fn lease(queue: PartitionId, count: u64) -> Bytes {
    command(b'q', "", &[queue.0.to_be_bytes(), count.to_be_bytes()].concat())
}

/// Settles a message that is leased, and answers with how many that was.
pub(crate) fn settle(queue: PartitionId, offset: u64) -> Bytes {
    command(b'x', "", &[queue.0.to_be_bytes(), offset.to_be_bytes()].concat())
}

/// Moves a partition's first offset, and answers with what it keeps then.
pub(crate) fn trim(partition: PartitionId, to: u64) -> Bytes {
    command(b't', "", &[partition.0.to_be_bytes(), to.to_be_bytes()].concat())
}

/// Does something about a partition's subscription of that name: makes it (`+`), removes it (`-`), takes so many messages (`t`), settles one
/// (`s`), or appends the batch that came with the entry, makes it, and takes and settles its first message (`a`).
pub(crate) fn subscription(what: u8, partition: PartitionId, name: &str, number: u64) -> Bytes {
    command(b'g', name, &[&partition.0.to_be_bytes()[..], &number.to_be_bytes(), &[what]].concat())
}

/// One that a later version may know.
pub(crate) fn newer() -> Bytes {
    command(b'?', "", b"")
}

/// One that is not to be applied.
pub(crate) fn panics() -> Bytes {
    command(b'!', "", b"")
}

impl Text {
    /// Where the entry stands that waits for this key.
    fn of_waiting(&self) -> Self {
        Self([b"waits: ", self.0.as_slice()].concat())
    }
}

impl Registers {
    fn make(maps: &mut Maps<'_>) -> Result<Box<dyn FrontendProjection>, PageError> {
        Ok(Box::new(Self { values: maps.map(0)?, pins: maps.map(1)? }))
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.values.get(&Text(key.into())).map(|value| value.0.clone())
    }

    fn put(&mut self, key: Text, value: &[u8]) -> Bytes {
        self.values.insert(key, Text(value.into())).map_or_else(Bytes::new, |before| before.0.into())
    }
}

/// What shows that a lease is the tests'.
const TOKEN: u64 = 7;

fn answered<T: Debug, E: Display>(result: Result<T, E>) -> Bytes {
    result.map_or_else(|error| error.to_string(), |done| format!("{done:?}")).into()
}

/// Does something about a partition, of which the value says two numbers.
fn on_partition(letter: u8, value: &[u8], effects: &mut Effects<'_>) -> Result<Bytes, DecodeError> {
    let numbers: &[u8; 16] = value.try_into().map_err(|_| DecodeError::Truncated)?;
    let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| numbers[at + i]));
    let (id, number) = (PartitionId(number(0)), number(8));
    let terms = Terms { owner: MessageOwner::Lease, timeout_ms: 60_000, token: TOKEN };
    Ok(match letter {
        b'q' => {
            if effects.batches() > 0 {
                effects.append(0).map_err(|_| DecodeError::Field("batch"))?;
            }
            let taken = effects.delivery(of_queue(id), &Operation::Taken { count: number as u32, terms });
            answered(taken.map(|taken| taken.acquired))
        }
        b'x' => {
            let (ranges, held_by) =
                (RangesBuffer::of(std::iter::once(number..number + 1)), HeldBy::Token(TOKEN));
            let (ranges, why) = (ranges.ranges(), Settlement::Acknowledged);
            let settled = effects.delivery(of_queue(id), &Operation::Settled { ranges, held_by, why });
            answered(settled.map(|settled| settled.concerned))
        }
        _ => {
            let moved = effects.move_log_start(id, Offset(number as i64));
            let kept = effects.partition(id).map(|kept| (kept.start.0, kept.end.0));
            answered(moved.map(|_| kept))
        }
    })
}

/// The same about a partition's subscription, of which the value says also what is to be done.
fn on_subscription(name: &str, value: &[u8], effects: &mut Effects<'_>) -> Result<Bytes, DecodeError> {
    let &[ref numbers @ .., what] = value else { return Err(DecodeError::Truncated) };
    let numbers: &[u8; 16] = numbers.try_into().map_err(|_| DecodeError::Truncated)?;
    let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| numbers[at + i]));
    let (id, number) = (PartitionId(number(0)), number(8));
    if matches!(what, b'+' | b'a') {
        if what == b'a' {
            effects.append(0).map_err(|_| DecodeError::Field("batch"))?;
        }
        let made = effects.subscribe(id, name, SubscriptionStart::Oldest, SubscriptionSettings::default());
        if what == b'+' {
            return Ok(answered(made.map(|_| "made")));
        }
    }
    let found = effects.subscription(id, name).map(|found| found.number());
    let Some(found) = found else { return Ok(Bytes::from_static(b"unknown")) };
    let terms = Terms { owner: MessageOwner::Named(1), timeout_ms: 0, token: 0 };
    let taken = |count| Operation::Taken { count, terms };
    let first = RangesBuffer::of(std::iter::once(number..number + 1));
    let (ranges, held_by) = (first.ranges(), HeldBy::Owner(terms.owner));
    let settled = Operation::Settled { ranges, held_by, why: Settlement::Acknowledged };
    Ok(match what {
        b'-' => answered(effects.unsubscribe(found)),
        b't' => answered(effects.delivery(found, &taken(number as u32)).map(|done| done.acquired)),
        b's' => answered(effects.delivery(found, &settled).map(|done| done.concerned)),
        _ => {
            let done = effects.delivery(found, &taken(1)).and(effects.delivery(found, &settled));
            let counts = effects.messages(found).map(|found| (found.counts(), found.next()));
            answered(done.map(|_| counts))
        }
    })
}

impl Projection for Registers {
    fn maps(&mut self) -> Vec<&mut dyn PageMap> {
        vec![&mut self.values, &mut self.pins]
    }

    fn lowest_block(&self) -> Option<Sequence> {
        self.pins.iter().map(|(_, pin)| pin.0).min()
    }
}

impl FrontendProjection for Registers {
    fn apply(&mut self, command: &[u8], effects: &mut Effects<'_>) -> Result<Bytes, DecodeError> {
        let (&[letter, len], rest) = command.split_first_chunk().ok_or(DecodeError::Truncated)?;
        let (key, value) = rest.split_at_checked(len.into()).ok_or(DecodeError::Truncated)?;
        let key = Text(key.into());
        Ok(match letter {
            b's' => self.put(key, value),
            b'd' => self.values.remove(&key).map_or_else(Bytes::new, |before| before.0.into()),
            b'l' if self.values.contains(&key) => Bytes::from_static(THERE),
            b'l' => match effects.append(0) {
                Ok(appended) => {
                    self.put(key, value);
                    Bytes::copy_from_slice(&appended.base_offset.0.to_be_bytes())
                }
                Err(error) => error.to_string().into(),
            },
            b'r' => self.put(key, format!("{} {}", effects.time_ms(), effects.seed()).as_bytes()),
            b'p' => {
                self.pins.insert(key, Pin(effects.block()));
                Bytes::new()
            }
            b'u' => {
                self.pins.remove(&key);
                Bytes::new()
            }
            b'w' => {
                self.values.insert(key.of_waiting(), Text(effects.answer_later().to_bytes().into()));
                Bytes::from_static(b"unheard")
            }
            b'a' => match self.values.remove(&key.of_waiting()) {
                None => Bytes::from_static(b"nothing waits"),
                Some(entry) => {
                    let entry = EntryId::from_bytes(entry.0.try_into().expect("it was stored so"));
                    effects.answer(entry, Bytes::copy_from_slice(value));
                    Bytes::from(if effects.may_wait(entry) { "answered" } else { "too late" })
                }
            },
            b'q' | b'x' | b't' => on_partition(letter, value, effects)?,
            b'g' => {
                let name = std::str::from_utf8(&key.0).map_err(|_| DecodeError::Field("name"))?;
                on_subscription(name, value, effects)?
            }
            b'!' => panic!("wanted by the test"),
            _ => return Err(DecodeError::Field("command")),
        })
    }

    fn partition_gone(&mut self, id: PartitionId) {
        self.put(Text("gone".into()), id.0.to_string().as_bytes());
    }
}

impl PageKey for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        Ok(Self(bytes.into()))
    }
}

impl PageValue for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        Ok(Self(bytes.into()))
    }
}

impl PageValue for Pin {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let block = bytes.try_into().map_err(|_| PageDecodeError("a block's number has 8 bytes".into()))?;
        Ok(Self(Sequence(u64::from_be_bytes(block))))
    }
}
