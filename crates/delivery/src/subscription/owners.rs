//! The owners of what is in flight: runs of messages that one owner got at one time.
//!
//! A run may span messages that are no longer in flight; the states say which are. So holes do not split a run.

use std::collections::BTreeMap;

use sabir_base::varint::{put_i64, put_u64, take_i64, take_u32, take_u64};
use sabir_model::DecodeError;
use sabir_model::stored::take_u8;

use super::dirty::DirtyBlocks;
use super::states::block_of;
use crate::policy::DeathReason;

/// The owner of a message that is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageOwner {
    /// A session of this run of the node.
    Session(u64),
    /// A named consumer, by its number in the subscription; it outlives sessions and starts.
    Named(u64),
    /// Any client that shows the token, until the deadline.
    Lease,
    /// A prepared transaction, which acknowledges the message when it commits.
    Prepared(u64),
    /// A prepared transaction, which publishes the message when it commits.
    Publishing(u64),
    /// No session: its queue has given it up, and it is to be published elsewhere. It outlives sessions and starts.
    DeadLetter(DeathReason),
}

impl MessageOwner {
    /// Appends the stored form.
    pub fn encode(self, out: &mut Vec<u8>) {
        let (tag, id) = match self {
            Self::Session(id) => (0, id),
            Self::Named(id) => (1, id),
            Self::Lease => (2, 0),
            Self::Prepared(id) => (3, id),
            Self::Publishing(id) => (4, id),
            Self::DeadLetter(reason) => (5, reason as u64),
        };
        out.push(tag);
        put_u64(out, id);
    }

    /// Takes an owner off the front of `input`.
    ///
    /// # Errors
    /// A cut input, an unknown kind.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let (tag, id) = (take_u8(input)?, take_u64(input)?);
        Ok(match tag {
            0 => Self::Session(id),
            1 => Self::Named(id),
            2 => Self::Lease,
            3 => Self::Prepared(id),
            4 => Self::Publishing(id),
            5 => Self::DeadLetter(
                u8::try_from(id).ok().map_or(Err(DecodeError::Field("reason")), DeathReason::stored)?,
            ),
            _ => return Err(DecodeError::Field("owner")),
        })
    }
}

/// Terms on which messages are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Their owner.
    pub owner: MessageOwner,
    /// How far their protocol got with them (received, released); 0 at first.
    pub phase: u8,
    /// Since when, in milliseconds.
    pub since_ms: i64,
    /// Milliseconds from then until the deadline; 0 is none.
    pub timeout_ms: u32,
    /// What settling must show where the fence is a token; 0 is none.
    pub token: u64,
}

impl Holding {
    /// The moment of the deadline, if there is one.
    pub fn deadline_ms(&self) -> Option<i64> {
        (self.timeout_ms > 0).then(|| self.since_ms.saturating_add(self.timeout_ms.into()))
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.owner.encode(out);
        out.push(self.phase);
        put_i64(out, self.since_ms);
        put_u64(out, self.timeout_ms.into());
        put_u64(out, self.token);
    }

    /// Takes terms off the front of `input`.
    ///
    /// # Errors
    /// As [`MessageOwner::decode`], a number out of range.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            owner: MessageOwner::decode(input)?,
            phase: take_u8(input)?,
            since_ms: take_i64(input)?,
            timeout_ms: take_u32(input)?,
            token: take_u64(input)?,
        })
    }
}

/// An owner in a phase, which many runs share.
type OwnerPhase = (MessageOwner, u8);

/// 32 bytes, since a million of them may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OwnerRun {
    since_ms: i64,
    token: u64,
    timeout_ms: u32,
    holder: u32,
    len: u32,
    /// Messages of the run that are still in flight.
    left: u32,
}

/// A run this long is not extended, so that its first messages do not keep it for ever.
const LONGEST: u32 = 1 << 16;

/// All runs, by their first offset.
#[derive(Debug, Default)]
pub(super) struct Owners {
    runs: BTreeMap<u64, OwnerRun>,
    /// Holders with the number of their runs; a place without runs is free.
    holders: Vec<(OwnerPhase, u32)>,
    places: BTreeMap<OwnerPhase, u32>,
    /// The place that was asked for last.
    last: u32,
    pub dirty: DirtyBlocks,
}

impl Owners {
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The terms of a message that is in flight, and where its run ends.
    pub fn find(&self, offset: u64) -> Option<(Holding, u64)> {
        let (start, run) = self.runs.range(..=offset).next_back()?;
        let end = start + u64::from(run.len);
        (offset < end).then(|| (self.holding(run), end))
    }

    fn holding(&self, run: &OwnerRun) -> Holding {
        let (owner, phase) = self.holders[run.holder as usize].0;
        Holding { owner, phase, since_ms: run.since_ms, timeout_ms: run.timeout_ms, token: run.token }
    }

    /// Whether there are runs of an owner that is wanted.
    pub fn has(&self, wanted: impl Fn(MessageOwner) -> bool) -> bool {
        self.holders.iter().any(|((owner, _), runs)| *runs > 0 && wanted(*owner))
    }

    /// All runs: where they begin and end, and their terms.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, Holding)> {
        self.runs.iter().map(|(start, run)| (*start, start + u64::from(run.len), self.holding(run)))
    }

    /// The runs of the owners that are wanted; stops once all are found.
    pub fn runs_of(&self, wanted: impl Fn(MessageOwner) -> bool) -> Vec<(u64, u64)> {
        let holds = |holder: &OwnerPhase| wanted(holder.0);
        let count =
            self.holders.iter().filter(|(holder, _)| holds(holder)).map(|(_, runs)| *runs as usize).sum();
        let found = self.runs.iter().filter(|(_, run)| holds(&self.holders[run.holder as usize].0));
        found.take(count).map(|(start, run)| (*start, start + u64::from(run.len))).collect()
    }

    /// Gives messages to an owner. None of them has one; `count` tells how many of a range are in flight.
    pub fn take(&mut self, from: u64, to: u64, holding: Holding, count: &impl Fn(u64, u64) -> u64) {
        self.carve(from, to, count);
        let mut from = from;
        if self.extend(from, to, &holding) {
            return;
        }
        while from < to {
            let len = (to - from).min(u64::from(u32::MAX)) as u32;
            self.insert(from, &holding, len, len);
            from += u64::from(len);
        }
    }

    /// Lengthens the run that ends at `from` if it has the same terms.
    fn extend(&mut self, from: u64, to: u64, holding: &Holding) -> bool {
        let Some((start, run)) = self.runs.range_mut(..from).next_back() else { return false };
        let alike = run.since_ms == holding.since_ms
            && run.token == holding.token
            && run.timeout_ms == holding.timeout_ms
            && self.holders[run.holder as usize].0 == (holding.owner, holding.phase);
        if !alike || start + u64::from(run.len) != from || u64::from(run.len) + (to - from) > LONGEST.into() {
            return false;
        }
        run.len += (to - from) as u32;
        run.left += (to - from) as u32;
        let start = *start;
        self.dirty.insert(block_of(start));
        true
    }

    fn insert(&mut self, start: u64, holding: &Holding, len: u32, left: u32) {
        let holder = self.holder((holding.owner, holding.phase));
        let Holding { since_ms, timeout_ms, token, .. } = *holding;
        self.runs.insert(start, OwnerRun { since_ms, token, timeout_ms, holder, len, left });
        self.dirty.insert(block_of(start));
    }

    fn holder(&mut self, holder: OwnerPhase) -> u32 {
        let is_last = self.holders.get(self.last as usize).is_some_and(|(last, _)| *last == holder);
        if !is_last {
            self.last = match self.places.get(&holder) {
                Some(place) => *place,
                None => self.free_place(holder),
            };
        }
        self.holders[self.last as usize].1 += 1;
        self.last
    }

    fn free_place(&mut self, holder: OwnerPhase) -> u32 {
        let place = match self.holders.iter().position(|(_, runs)| *runs == 0) {
            Some(place) => place,
            None => {
                self.holders.push((holder, 0));
                self.holders.len() - 1
            }
        };
        self.places.remove(&self.holders[place].0);
        self.holders[place] = (holder, 0);
        self.places.insert(holder, place as u32);
        place as u32
    }

    fn remove(&mut self, start: u64) -> Option<OwnerRun> {
        let run = self.runs.remove(&start)?;
        self.holders[run.holder as usize].1 -= 1;
        self.dirty.insert(block_of(start));
        Some(run)
    }

    /// Takes messages, all of them in flight, from their owners.
    pub fn release(&mut self, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let Some((&start, run)) = self.runs.range_mut(..=at).next_back() else { return };
            let end = (start + u64::from(run.len)).min(to);
            run.left = run.left.saturating_sub(end.saturating_sub(at) as u32);
            let empty = run.left == 0;
            self.dirty.insert(block_of(start));
            if empty {
                self.remove(start);
            }
            at = end.max(at + 1);
        }
    }

    /// Makes room: cuts from the runs that reach into a range what is no longer in flight there.
    fn carve(&mut self, from: u64, to: u64, count: &impl Fn(u64, u64) -> u64) {
        while let Some((&start, run)) = self.runs.range(..to).next_back() {
            let (end, holding) = (start + u64::from(run.len), self.holding(run));
            if end <= from {
                return;
            }
            self.remove(start);
            self.part(start, from, &holding, count);
            self.part(to, end, &holding, count);
            if start < from {
                return;
            }
        }
    }

    /// Puts a part of a run back if anything of it is in flight.
    fn part(&mut self, from: u64, to: u64, holding: &Holding, count: &impl Fn(u64, u64) -> u64) {
        let left = if from < to { count(from, to) } else { 0 };
        if left > 0 {
            self.insert(from, holding, (to - from) as u32, left as u32);
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.runs.keys().for_each(|start| self.dirty.insert(block_of(*start)));
        self.runs.clear();
        self.holders.iter_mut().for_each(|(_, runs)| *runs = 0);
    }

    /// Bytes of memory behind the struct, about.
    pub fn bytes(&self) -> usize {
        // A leaf of eleven entries is two thirds full, more or less.
        self.runs.len() * (8 + size_of::<OwnerRun>()) * 3 / 2 + self.holders.len() * 72
    }

    /// The containers in which some begin.
    pub fn each_block(&self, mut each: impl FnMut(u64)) {
        let mut last = None;
        for block in self.runs.keys().map(|start| block_of(*start)) {
            if last.replace(block) != Some(block) {
                each(block);
            }
        }
    }

    /// Appends the stored form of the runs that begin in a container. Tells whether there are any.
    pub fn encode_block(&self, block: u64, out: &mut Vec<u8>) -> bool {
        let mut last = block * super::CONTAINER;
        let mut any = false;
        for (start, run) in self.runs.range(last..last + super::CONTAINER) {
            put_u64(out, start - last);
            put_u64(out, run.len.into());
            put_u64(out, run.left.into());
            self.holding(run).encode(out);
            (last, any) = (*start, true);
        }
        any
    }

    pub fn decode_block(&mut self, block: u64, input: &mut &[u8]) -> Result<(), DecodeError> {
        let mut start = block * super::CONTAINER;
        while !input.is_empty() {
            start = start.checked_add(take_u64(input)?).ok_or(DecodeError::Field("owner's range"))?;
            let (len, left) = (take_u32(input)?, take_u32(input)?);
            let holding = Holding::decode(input)?;
            if left == 0 || left > len || block_of(start) != block {
                return Err(DecodeError::Field("owner's range"));
            }
            self.insert(start, &holding, len, left);
        }
        self.dirty = DirtyBlocks::default();
        Ok(())
    }
}
