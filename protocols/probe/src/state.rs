//! The protocol's own state, in each shard: registers, queues that clients wait at, and leases of a partition's records.
//!
//! All of it is decided where an entry is applied, in entry order. A command is its form, a word and its arguments, with spaces between them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sabir_base::varint::{put_i64, put_u64, take_i64, take_u64};
use sabir_broker::projection::delivery::{HeldBy, MessageOwner, Operation, Settlement, Terms, of_queue};
use sabir_broker::projection::{
    Effects, EntryId, FrontendProjection, Maps, PageDecodeError, PageError, PageKey, PageMap, PageValue,
    Paged, Projection, ProjectionFactory, decode_stored,
};
use sabir_model::{DecodeError, Offset, PartitionId, stored};

use crate::groups;
use crate::protocol::NAME;

/// What the broker is given.
pub(crate) const PROJECTION: ProjectionFactory = ProjectionFactory { name: NAME, make: State::make };

const TOO_MANY: &str = "ERR the shard has too many names";
const TOO_MUCH: &str = "ERR the shard's registers and queues hold too many bytes";

/// The form of commands and of all that is stored, but for leases.
const FORM: u8 = 1;
/// In the first one they were of any topic's records, and kept here.
const LEASES_FORM: u8 = 2;
/// Values, and waiting clients, of one queue; leases of one partition.
const MOST: usize = 1000;
/// Registers, and queues, of a shard.
const MOST_NAMES: usize = 100_000;
/// Bytes of all their values, in a shard.
const MOST_BYTES: usize = 64 << 20;

pub(crate) struct State {
    registers: Paged<Name, Text>,
    queues: Paged<Name, Queue>,
    /// By partition.
    leases: Paged<Name, Leases>,
    /// Of the values of registers and queues. It follows from these.
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Name(String);

#[derive(Debug, Clone)]
struct Text(String);

/// A queue has values, or clients that wait for some, or neither.
#[derive(Debug, Default)]
struct Queue {
    values: VecDeque<String>,
    /// The entries of those that wait, with the numbers that they are called by.
    takers: VecDeque<(EntryId, u64)>,
}

/// Leases of a queue of the broker's, which keeps what is leased under the lease's number; here is when each is over.
#[derive(Debug, Default)]
struct Leases {
    last: u64,
    deadlines: BTreeMap<u64, i64>,
}

/// What becomes of a message whose lease its client ends.
#[derive(Debug, Clone, Copy)]
enum LeaseEnd {
    Done,
    /// It is given back, as the queue's settings say.
    Returned,
    /// It is given back, and waits so many milliseconds.
    Delayed(u32),
}

/// A command, as an entry has it.
pub(crate) fn command(words: &str) -> Bytes {
    [&[FORM], words.as_bytes()].concat().into()
}

impl State {
    fn make(maps: &mut Maps<'_>) -> Result<Box<dyn FrontendProjection>, PageError> {
        let (registers, queues, leases) =
            (maps.map::<Name, Text>(0)?, maps.map::<Name, Queue>(1)?, maps.map(2)?);
        let of_registers: usize = registers.iter().map(|(_, value)| value.0.len()).sum();
        let of_queues: usize = queues.iter().flat_map(|(_, queue)| &queue.values).map(String::len).sum();
        Ok(Box::new(Self { registers, queues, leases, bytes: of_registers + of_queues }))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.registers.get(&Name(name.into())).map(|value| value.0.as_str())
    }

    /// When the next lease ends, by the node's time.
    pub(crate) fn next_deadline(&self) -> Option<i64> {
        self.leases.iter().flat_map(|(_, leases)| leases.deadlines.values()).min().copied()
    }

    fn set(&mut self, name: Name, value: &str) -> String {
        if !has_room_for(&self.registers, &name) {
            return TOO_MANY.into();
        }
        match self.set_within(name, value.into()) {
            None => TOO_MUCH.into(),
            Some(Some(before)) => format!("OK {before}"),
            Some(None) => "NIL".into(),
        }
    }

    /// Sets a register, if there is room for the value. Gives what was there.
    fn set_within(&mut self, name: Name, value: String) -> Option<Option<String>> {
        let before = self.registers.get(&name).map_or(0, |before| before.0.len());
        let others = self.bytes - before;
        if value.len() > before && others + value.len() > MOST_BYTES {
            return None;
        }
        self.bytes = others + value.len();
        Some(self.registers.insert(name, Text(value)).map(|before| before.0))
    }

    fn add(&mut self, name: Name, by: i64) -> String {
        if !has_room_for(&self.registers, &name) {
            return TOO_MANY.into();
        }
        let before = self.registers.get(&name).map_or(Ok(0), |value| value.0.parse::<i64>());
        match before.ok().and_then(|before| before.checked_add(by)) {
            None => "ERR its value is no number, or becomes too large".into(),
            Some(sum) => match self.set_within(name, sum.to_string()) {
                None => TOO_MUCH.into(),
                Some(_) => format!("OK {sum}"),
            },
        }
    }

    fn put(&mut self, name: Name, value: &str, effects: &mut Effects<'_>) -> String {
        let queue = self.queues.get_or_insert_with(name, Queue::default);
        queue.takers.retain(|(entry, _)| effects.may_wait(*entry));
        match queue.takers.pop_front() {
            Some((entry, _)) => effects.answer(entry, format!("OK {value}")),
            None if queue.values.len() >= MOST => return "ERR the queue is full".into(),
            None if self.bytes + value.len() > MOST_BYTES => return TOO_MUCH.into(),
            None => {
                self.bytes += value.len();
                queue.values.push_back(value.into());
            }
        }
        "OK".into()
    }

    fn take(&mut self, name: Name, number: u64, effects: &mut Effects<'_>) -> String {
        let queue = self.queues.get_or_insert_with(name, Queue::default);
        queue.takers.retain(|(entry, _)| effects.may_wait(*entry));
        match queue.values.pop_front() {
            Some(value) => {
                self.bytes -= value.len();
                format!("OK {value}")
            }
            None if queue.takers.len() >= MOST => "ERR too many wait at the queue".into(),
            None => {
                queue.takers.push_back((effects.answer_later(), number));
                String::new()
            }
        }
    }

    /// A client that waits no longer is answered so, unless it was given something meanwhile.
    fn give_up(&mut self, name: &Name, number: u64, effects: &mut Effects<'_>) -> String {
        let Some(queue) = self.queues.get_mut(name) else { return "NIL".into() };
        let at = queue.takers.iter().position(|(entry, taker)| *taker == number && effects.may_wait(*entry));
        if let Some((entry, _)) = at.and_then(|at| queue.takers.remove(at)) {
            effects.answer(entry, "NIL");
        }
        "OK".into()
    }

    fn forget_if_empty(&mut self, name: &Name) {
        let empty = |queue: &Queue| queue.values.is_empty() && queue.takers.is_empty();
        if self.queues.get(name).is_some_and(empty) {
            self.queues.remove(name);
        }
    }

    /// Leases the first message that is ready.
    fn lease(&mut self, of: Name, ms: u32, effects: &mut Effects<'_>) -> Result<String, DecodeError> {
        let queue = of.partition()?;
        let leases = self.leases.get_or_insert_with(of, Leases::default);
        if leases.deadlines.len() >= MOST {
            return Ok("ERR too many messages are leased".into());
        }
        let terms = Terms { owner: MessageOwner::Lease, timeout_ms: ms, token: leases.last + 1 };
        let taken = effects.delivery(of_queue(queue), &Operation::Taken { count: 1, terms });
        Ok(match taken.map(|taken| taken.acquired.first().cloned()) {
            Err(refused) => format!("ERR {refused}"),
            Ok(None) => "NIL".into(),
            Ok(Some(message)) => {
                leases.last += 1;
                leases.deadlines.insert(leases.last, effects.time_ms().saturating_add(ms.into()));
                format!("OK {} {}", leases.last, message.start)
            }
        })
    }

    fn end_lease(
        &mut self,
        of: &Name,
        lease: u64,
        end: LeaseEnd,
        effects: &mut Effects<'_>,
    ) -> Result<String, DecodeError> {
        if let Some(leases) = self.leases.get_mut(of) {
            leases.deadlines.remove(&lease);
        }
        let (held_by, now_ms) = (HeldBy::Token(lease), effects.time_ms());
        let ended = effects.delivery_of_held(of_queue(of.partition()?), |ranges| match end {
            LeaseEnd::Done => Operation::Settled { ranges, held_by, why: Settlement::Acknowledged },
            LeaseEnd::Returned => Operation::Returned { ranges, held_by, counted: true, not_before_ms: 0 },
            LeaseEnd::Delayed(ms) => {
                let not_before_ms = now_ms.saturating_add(ms.into());
                Operation::Returned { ranges, held_by, counted: true, not_before_ms }
            }
        });
        let any = ended.is_ok_and(|ended| ended > 0);
        Ok(if any { "OK" } else { "ERR there is no such lease, or it has ended" }.into())
    }

    /// Has leases end that are over.
    fn expire(&mut self, effects: &mut Effects<'_>) -> Result<String, DecodeError> {
        let now_ms = effects.time_ms();
        let due = |leases: &Leases| leases.deadlines.values().any(|deadline| *deadline <= now_ms);
        let all: Vec<_> = self.leases.iter().filter(|(_, l)| due(l)).map(|(of, _)| of.clone()).collect();
        for of in all {
            // Nothing is to be done for a queue that is gone.
            let _ = effects.delivery_of_held(of_queue(of.partition()?), |ranges| {
                let (held_by, counted) = (HeldBy::Overdue, true);
                Operation::Returned { ranges, held_by, counted, not_before_ms: 0 }
            });
            let leases = self.leases.get_mut(&of).expect("it was found just now");
            leases.deadlines.retain(|_, deadline| *deadline > now_ms);
        }
        Ok("OK".into())
    }
}

impl Name {
    /// The partition that it names.
    fn partition(&self) -> Result<PartitionId, DecodeError> {
        number(&self.0).map(PartitionId)
    }
}

impl Projection for State {
    fn maps(&mut self) -> Vec<&mut dyn PageMap> {
        vec![&mut self.registers, &mut self.queues, &mut self.leases]
    }
}

impl FrontendProjection for State {
    fn apply(&mut self, command: &[u8], effects: &mut Effects<'_>) -> Result<Bytes, DecodeError> {
        let mut rest = command;
        stored::take_form(&mut rest, FORM)?;
        let words = std::str::from_utf8(rest).map_err(|_| DecodeError::Field("command"))?;
        let (word, of, rest) = three(words);
        let name = Name(of.into());
        let answer = match word {
            "set" => self.set(name.clone(), rest),
            "add" => self.add(name.clone(), number(rest)?),
            "put" | "take" if !has_room_for(&self.queues, &name) => TOO_MANY.into(),
            "put" => self.put(name.clone(), rest, effects),
            "take" => self.take(name.clone(), number(rest)?, effects),
            "give-up" => self.give_up(&name, number(rest)?, effects),
            "keep" => keep(name.partition()?, number(rest)?, effects),
            "lease" => self.lease(name.clone(), number(rest)?, effects)?,
            "done" => self.end_lease(&name, number(rest)?, LeaseEnd::Done, effects)?,
            "return" => self.end_lease(&name, number(rest)?, LeaseEnd::Returned, effects)?,
            "delay" => {
                let (lease, ms) = rest.split_once(' ').ok_or(DecodeError::Field("command"))?;
                self.end_lease(&name, number(lease)?, LeaseEnd::Delayed(number(ms)?), effects)?
            }
            "expire" => self.expire(effects)?,
            _ if word.starts_with("group-") => groups::apply(word, name.partition()?, rest, effects)?,
            _ => return Err(DecodeError::Field("command")),
        };
        self.forget_if_empty(&name);
        Ok(answer.into())
    }

    fn partition_gone(&mut self, id: PartitionId) {
        self.leases.remove(&Name(id.to_string()));
    }
}

/// Appends the record that came along to a partition, and moves the partition's start so that at most so many are kept. Answers with the
/// record's offset and the first that is kept.
fn keep(of: PartitionId, most: u32, effects: &mut Effects<'_>) -> String {
    let appended = match effects.append(0) {
        Ok(appended) => appended,
        Err(refused) => return format!("ERR {refused}"),
    };
    let Some(kept) = effects.partition(of) else { return "ERR there is no such partition".into() };
    let first = kept.start.max(Offset(kept.end.0 - i64::from(most)));
    match effects.move_log_start(of, first) {
        Ok(first) => format!("OK {} {first}", appended.base_offset),
        Err(refused) => format!("ERR {refused}"),
    }
}

/// Whether a map may have an entry of that name.
fn has_room_for<V: PageValue>(map: &Paged<Name, V>, name: &Name) -> bool {
    map.len() < MOST_NAMES || map.get(name).is_some()
}

/// The first two words, and what is left.
pub(crate) fn three(words: &str) -> (&str, &str, &str) {
    let (first, rest) = words.split_once(' ').unwrap_or((words, ""));
    let (second, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    (first, second, rest)
}

pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Result<T, DecodeError> {
    text.parse().map_err(|_| DecodeError::Field("number"))
}

impl PageKey for Name {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        String::from_utf8(bytes.into()).map(Self).map_err(|error| PageDecodeError(error.to_string()))
    }
}

impl PageValue for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        out.extend_from_slice(self.0.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        decode_stored(bytes, FORM, |rest| {
            let text = std::str::from_utf8(std::mem::take(rest)).map_err(|_| DecodeError::Field("text"))?;
            Ok(Self(text.into()))
        })
    }
}

impl PageValue for Queue {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_u64(out, self.values.len() as u64);
        self.values.iter().for_each(|value| stored::put_bytes(out, value.as_bytes()));
        put_u64(out, self.takers.len() as u64);
        for (entry, number) in &self.takers {
            out.extend_from_slice(&entry.to_bytes());
            put_u64(out, *number);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        decode_stored(bytes, FORM, |rest| {
            let mut queue = Self::default();
            for _ in 0..stored::take_count(rest, 1)? {
                queue.values.push_back(stored::take_str(rest)?.into());
            }
            for _ in 0..stored::take_count(rest, 21)? {
                let entry = EntryId::from_bytes(stored::take(rest)?);
                queue.takers.push_back((entry, take_u64(rest)?));
            }
            Ok(queue)
        })
    }
}

impl PageValue for Leases {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(LEASES_FORM);
        put_u64(out, self.last);
        put_u64(out, self.deadlines.len() as u64);
        for (lease, deadline) in &self.deadlines {
            put_u64(out, *lease);
            put_i64(out, *deadline);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        decode_stored(bytes, LEASES_FORM, |rest| {
            let mut leases = Self { last: take_u64(rest)?, ..Self::default() };
            for _ in 0..stored::take_count(rest, 2)? {
                leases.deadlines.insert(take_u64(rest)?, take_i64(rest)?);
            }
            Ok(leases)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded<V: PageValue>(value: &V) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(&mut out);
        out
    }

    #[test]
    fn what_is_stored_keeps_its_form() {
        let entry = EntryId::from_bytes(std::array::from_fn(|i| i as u8));
        let queue = Queue { values: ["a".to_owned()].into(), takers: [(entry, 300)].into() };
        let mut bytes = vec![1, 1, 1, b'a', 1];
        bytes.extend(0..20);
        bytes.extend([0xac, 0x02]);
        assert_eq!(encoded(&queue), bytes);
        let read = Queue::decode(&bytes).unwrap();
        assert_eq!((read.values, read.takers), (queue.values, queue.takers));
        let leases = Leases { last: 300, deadlines: [(2, 500)].into() };
        let bytes = [2, 0xac, 0x02, 1, 2, 0xe8, 0x07];
        assert_eq!(encoded(&leases), bytes);
        let read = Leases::decode(&bytes).unwrap();
        assert_eq!((read.last, read.deadlines), (leases.last, leases.deadlines));
        assert_eq!(encoded(&Text("v".into())), [1, b'v']);
        assert!(
            Leases::decode(&[3, 6, 0]).is_err() && Queue::decode(&[1, 9]).is_err(),
            "of a later form, or cut"
        );
    }
}
