//! The protocol's own state, in each shard: registers, queues that clients wait at, and leases of a partition's records.
//!
//! All of it is decided where an entry is applied, in entry order. A command is its form, a word and its arguments, with spaces between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use sabir_base::varint::{put_i64, put_u64, take_i64, take_u64};
use sabir_broker::projection::{
    Effects, EntryId, FrontendProjection, Maps, PageDecodeError, PageError, PageKey, PageMap, PageValue,
    Paged, Projection, ProjectionFactory,
};
use sabir_model::{DecodeError, stored};

use crate::protocol::NAME;

/// What the broker is given.
pub(crate) const PROJECTION: ProjectionFactory = ProjectionFactory { name: NAME, make: State::make };

/// The form of commands and of all that is stored.
const FORM: u8 = 1;
/// Values, and waiting clients, of one queue; leases of one partition.
const MOST: usize = 1000;

pub(crate) struct State {
    registers: Paged<Name, Text>,
    queues: Paged<Name, Queue>,
    /// By partition.
    leases: Paged<Name, Leases>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

#[derive(Debug, Default)]
struct Leases {
    /// The first offset that was never leased.
    next: i64,
    last_lease: u64,
    /// The offset and the deadline of each.
    held: BTreeMap<u64, (i64, i64)>,
    /// What was leased and came back.
    returned: BTreeSet<i64>,
}

/// A command, as an entry has it.
pub(crate) fn command(words: &str) -> Bytes {
    [&[FORM], words.as_bytes()].concat().into()
}

impl State {
    fn make(maps: &mut Maps<'_>) -> Result<Box<dyn FrontendProjection>, PageError> {
        Ok(Box::new(Self { registers: maps.map(0)?, queues: maps.map(1)?, leases: maps.map(2)? }))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.registers.get(&Name(name.into())).map(|value| value.0.as_str())
    }

    /// When the next lease ends, by the node's time.
    pub(crate) fn next_deadline(&self) -> Option<i64> {
        let held = self.leases.iter().flat_map(|(_, leases)| leases.held.values());
        held.map(|(_, deadline)| *deadline).min()
    }

    fn add(&mut self, name: Name, by: i64) -> String {
        let before = self.registers.get(&name).map_or(Ok(0), |value| value.0.parse::<i64>());
        match before.ok().and_then(|before| before.checked_add(by)) {
            None => "ERR its value is no number, or becomes too large".into(),
            Some(sum) => {
                self.registers.insert(name, Text(sum.to_string()));
                format!("OK {sum}")
            }
        }
    }

    fn put(&mut self, name: Name, value: &str, effects: &mut Effects<'_>) -> String {
        let queue = self.queues.get_or_insert_with(name, Queue::default);
        queue.takers.retain(|(entry, _)| effects.may_wait(*entry));
        match queue.takers.pop_front() {
            Some((entry, _)) => effects.answer(entry, format!("OK {value}")),
            None if queue.values.len() >= MOST => return "ERR the queue is full".into(),
            None => queue.values.push_back(value.into()),
        }
        "OK".into()
    }

    fn take(&mut self, name: Name, number: u64, effects: &mut Effects<'_>) -> String {
        let queue = self.queues.get_or_insert_with(name, Queue::default);
        queue.takers.retain(|(entry, _)| effects.may_wait(*entry));
        match queue.values.pop_front() {
            Some(value) => format!("OK {value}"),
            None if queue.takers.len() >= MOST => "ERR too many wait at the queue".into(),
            None => {
                queue.takers.push_back((effects.answer_later(), number));
                String::new()
            }
        }
    }

    /// Who waits no longer is answered so, unless it was given something meanwhile.
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

    /// Leases the first record between `start` and `end` that is not leased: that is what the partition had when it was asked for.
    fn lease(&mut self, of: Name, [start, end, ms]: [i64; 3], now_ms: i64) -> String {
        let leases = self.leases.get_or_insert_with(of, Leases::default);
        if leases.held.len() >= MOST {
            return "ERR too many records are leased".into();
        }
        match leases.take_next(start, end) {
            None => "NIL".into(),
            Some(offset) => {
                leases.last_lease += 1;
                leases.held.insert(leases.last_lease, (offset, now_ms.saturating_add(ms)));
                format!("OK {} {offset}", leases.last_lease)
            }
        }
    }

    fn end_lease(&mut self, of: &Name, lease: u64, comes_back: bool) -> String {
        let leases = self.leases.get_mut(of);
        match leases.and_then(|leases| Some((leases.held.remove(&lease)?.0, leases))) {
            None => "ERR there is no such lease, or it has ended".into(),
            Some((offset, leases)) => {
                leases.returned.extend(comes_back.then_some(offset));
                "OK".into()
            }
        }
    }

    fn expire(&mut self, now_ms: i64) -> String {
        let due = |leases: &Leases| leases.held.values().any(|(_, deadline)| *deadline <= now_ms);
        let all: Vec<_> = self.leases.iter().filter(|(_, l)| due(l)).map(|(of, _)| of.clone()).collect();
        for of in &all {
            let leases = self.leases.get_mut(of).expect("it was found just now");
            let ended = leases.held.extract_if(.., |_, (_, deadline)| *deadline <= now_ms);
            leases.returned.extend(ended.map(|(_, (offset, _))| offset));
        }
        "OK".into()
    }
}

impl Leases {
    fn take_next(&mut self, start: i64, end: i64) -> Option<i64> {
        // What retention has deleted is nobody's any more.
        self.returned = self.returned.split_off(&start);
        self.next = self.next.max(start);
        self.returned.pop_first().or_else(|| {
            let next = self.next;
            (next < end).then(|| {
                self.next += 1;
                next
            })
        })
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
            "set" => match self.registers.insert(name.clone(), Text(rest.into())) {
                Some(before) => format!("OK {}", before.0),
                None => "NIL".into(),
            },
            "add" => self.add(name.clone(), number(rest)?),
            "put" => self.put(name.clone(), rest, effects),
            "take" => self.take(name.clone(), number(rest)?, effects),
            "give-up" => self.give_up(&name, number(rest)?, effects),
            "lease" => {
                let (start, end, ms) = three(rest);
                self.lease(name.clone(), [number(start)?, number(end)?, number(ms)?], effects.time_ms())
            }
            "done" => self.end_lease(&name, number(rest)?, false),
            "return" => self.end_lease(&name, number(rest)?, true),
            "expire" => self.expire(effects.time_ms()),
            _ => return Err(DecodeError::Field("command")),
        };
        self.forget_if_empty(&name);
        Ok(answer.into())
    }
}

/// The first two words, and what is left.
fn three(words: &str) -> (&str, &str, &str) {
    let (first, rest) = words.split_once(' ').unwrap_or((words, ""));
    let (second, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    (first, second, rest)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, DecodeError> {
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
        decode(bytes, |rest| {
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
        decode(bytes, |rest| {
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
        out.push(FORM);
        put_i64(out, self.next);
        put_u64(out, self.last_lease);
        put_u64(out, self.held.len() as u64);
        for (lease, (offset, deadline)) in &self.held {
            put_u64(out, *lease);
            put_i64(out, *offset);
            put_i64(out, *deadline);
        }
        put_u64(out, self.returned.len() as u64);
        self.returned.iter().for_each(|offset| put_i64(out, *offset));
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        decode(bytes, |rest| {
            let (next, last_lease) = (take_i64(rest)?, take_u64(rest)?);
            let mut leases = Self { next, last_lease, ..Self::default() };
            for _ in 0..stored::take_count(rest, 3)? {
                let lease = take_u64(rest)?;
                leases.held.insert(lease, (take_i64(rest)?, take_i64(rest)?));
            }
            for _ in 0..stored::take_count(rest, 1)? {
                leases.returned.insert(take_i64(rest)?);
            }
            Ok(leases)
        })
    }
}

fn decode<T>(
    mut bytes: &[u8],
    take: impl FnOnce(&mut &[u8]) -> Result<T, DecodeError>,
) -> Result<T, PageDecodeError> {
    let all = || {
        stored::take_form(&mut bytes, FORM)?;
        let taken = take(&mut bytes)?;
        stored::end(bytes)?;
        Ok(taken)
    };
    all().map_err(|error: DecodeError| PageDecodeError(error.to_string()))
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
        let leases = Leases { next: 3, last_lease: 2, held: [(2, (1, 500))].into(), returned: [0].into() };
        let bytes = [1, 6, 2, 1, 2, 2, 0xe8, 0x07, 1, 0];
        assert_eq!(encoded(&leases), bytes);
        assert_eq!(Leases::decode(&bytes).unwrap().held, leases.held);
        assert_eq!(encoded(&Text("v".into())), [1, b'v']);
        assert!(
            Leases::decode(&[2, 6]).is_err() && Queue::decode(&[1, 9]).is_err(),
            "of a later form, or cut"
        );
    }
}
