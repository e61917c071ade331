//! What the journal knows of a shard's timers.

use std::collections::{BTreeMap, BTreeSet};

use sabir_base::varint::{put_i64, put_u64, take_i64, take_u32, take_u64};
use sabir_model::DecodeError;
use sabir_model::stored::{end, take_count, take_form, take_u8};

use crate::subscription::{Attempts, SubscriptionNo};

const FORM: u8 = 1;

/// A timer: when it fires, and a number that tells those of one millisecond apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey {
    /// The moment, in milliseconds.
    pub due_ms: i64,
    /// Its number; those that are set later have higher ones.
    pub number: u64,
}

impl TimerKey {
    /// Before all timers.
    pub const FIRST: Self = Self { due_ms: i64::MIN, number: 0 };

    fn encode(self, out: &mut Vec<u8>) {
        put_i64(out, self.due_ms);
        put_u64(out, self.number);
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { due_ms: take_i64(input)?, number: take_u64(input)? })
    }
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerTarget {
    /// A parked message becomes ready.
    Parked {
        /// Its subscription.
        subscription: SubscriptionNo,
        /// Which.
        offset: u64,
        /// The subscription's resets when it was parked.
        resets: u32,
        /// Its counts.
        attempts: Attempts,
    },
    /// What is kept elsewhere under a number.
    Kept(u64),
    /// A message is published that was kept back in a queue.
    Message {
        /// The queue's subscription.
        subscription: SubscriptionNo,
        /// Which.
        offset: u64,
    },
    /// The same of one that is published again and again.
    Repeated {
        /// The queue's subscription.
        subscription: SubscriptionNo,
        /// Which.
        offset: u64,
        /// How often it was.
        fired: u32,
    },
}

impl TimerTarget {
    fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Parked { subscription, offset, resets, attempts } => {
                out.push(0);
                put_u64(out, subscription.0);
                put_u64(out, offset);
                put_u64(out, resets.into());
                attempts.encode(out);
            }
            Self::Kept(number) => {
                out.push(1);
                put_u64(out, number);
            }
            Self::Message { subscription, offset } => {
                out.push(2);
                put_u64(out, subscription.0);
                put_u64(out, offset);
            }
            Self::Repeated { subscription, offset, fired } => {
                out.push(3);
                put_u64(out, subscription.0);
                put_u64(out, offset);
                put_u64(out, fired.into());
            }
        }
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(match take_u8(input)? {
            0 => Self::Parked {
                subscription: SubscriptionNo(take_u64(input)?),
                offset: take_u64(input)?,
                resets: take_u32(input)?,
                attempts: Attempts::decode(input)?,
            },
            1 => Self::Kept(take_u64(input)?),
            2 => Self::Message { subscription: SubscriptionNo(take_u64(input)?), offset: take_u64(input)? },
            3 => Self::Repeated {
                subscription: SubscriptionNo(take_u64(input)?),
                offset: take_u64(input)?,
                fired: take_u32(input)?,
            },
            tag => return Err(DecodeError::Version(tag)),
        })
    }
}

/// Appends timers, ascending: key and target of each.
pub(super) fn put_timers(out: &mut Vec<u8>, timers: &[(TimerKey, TimerTarget)]) {
    put_u64(out, timers.len() as u64);
    for (key, target) in timers {
        key.encode(out);
        target.encode(out);
    }
}

/// Takes timers off the front of `input`.
pub(super) fn take_timers(input: &mut &[u8]) -> Result<Vec<(TimerKey, TimerTarget)>, DecodeError> {
    let count = take_count(input, 4)?;
    (0..count).map(|_| Ok((TimerKey::decode(input)?, TimerTarget::decode(input)?))).collect()
}

/// A sorted run outside: its number, and the first key of each page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerRun {
    /// Its number; never reused.
    pub number: u64,
    /// The first key of each page.
    pub pages: Vec<TimerKey>,
    /// The last key.
    pub last: TimerKey,
    /// The highest number.
    pub highest: u64,
}

/// Where runs are kept.
pub trait RunSink {
    /// A page is written once: run 1 to n, page from 0; all pages of a run come at once.
    fn write(&mut self, run: u64, page: u32, stored: Vec<u8>);

    /// A run is used up: its pages can go with the next checkpoint.
    fn drop_run(&mut self, run: u64);
}

/// Timers of a page.
pub(super) const PAGE: usize = 256;

/// A shard's timers.
#[derive(Debug, PartialEq, Eq)]
pub struct Timers {
    /// The most that are kept in memory.
    most: usize,
    next_number: u64,
    next_run: u64,
    /// All up to this one have fired.
    fired: TimerKey,
    memory: BTreeMap<TimerKey, TimerTarget>,
    runs: Vec<TimerRun>,
    /// Timers of runs that were recalled.
    recalled: BTreeSet<TimerKey>,
}

impl Timers {
    /// None; at most `most` will be kept in memory. It is part of the state: all replicas use the same.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(2),
            next_number: 1,
            next_run: 1,
            fired: TimerKey::FIRST,
            memory: BTreeMap::new(),
            runs: Vec::new(),
            recalled: BTreeSet::new(),
        }
    }

    /// Sets a timer. One whose time is past fires next, behind those that fired.
    pub fn set(&mut self, due_ms: i64, target: TimerTarget, out: &mut impl RunSink) -> TimerKey {
        let key = TimerKey { due_ms: due_ms.max(self.fired.due_ms), number: self.next_number };
        self.next_number += 1;
        self.memory.insert(key, target);
        if self.memory.len() > self.most {
            self.spill(out);
        }
        key
    }

    /// The later half goes out as a run.
    fn spill(&mut self, out: &mut impl RunSink) {
        let Some(&middle) = self.memory.keys().nth(self.most / 2) else { return };
        let later: Vec<_> = self.memory.split_off(&middle).into_iter().collect();
        let Some(&(last, _)) = later.last() else { return };
        let number = self.next_run;
        self.next_run += 1;
        let mut pages = Vec::with_capacity(later.len().div_ceil(PAGE));
        for (timers, page) in later.chunks(PAGE).zip(0..) {
            let mut stored = vec![FORM];
            put_timers(&mut stored, timers);
            out.write(number, page, stored);
            pages.push(timers[0].0);
        }
        let highest = later.iter().map(|(key, _)| key.number).max().unwrap_or(0);
        self.runs.push(TimerRun { number, pages, last, highest });
    }

    /// Recalls a timer that has not fired. The caller knows its key from when it was set; one that was set too late for its time may fire
    /// all the same.
    pub fn recall(&mut self, key: TimerKey) {
        let is_out = self.memory.remove(&key).is_none();
        let in_a_run =
            |run: &TimerRun| run.pages.first().is_some_and(|first| *first <= key) && key <= run.last;
        if is_out && key > self.fired && self.runs.iter().any(in_a_run) {
            self.recalled.insert(key);
        }
    }

    /// Recalls those of the timers in memory that are for one of these, and tells how many. What is out with a run fires all the same: to remember
    /// each of very many by its key would take the memory that runs save.
    pub fn recall_in_memory(&mut self, is_meant: impl Fn(&TimerTarget) -> bool) -> usize {
        let before = self.memory.len();
        self.memory.retain(|_, target| !is_meant(target));
        before - self.memory.len()
    }

    /// All timers up to a key have fired that had a number below `below` when this was proposed; those set since fire next. Tells
    /// whether it took effect: it does not if one of these may have gone out with a run, and is to be proposed anew.
    pub fn fire(&mut self, through: TimerKey, below: u64, out: &mut impl RunSink) -> bool {
        let is_late =
            |run: &TimerRun| run.highest >= below && run.pages.first().is_some_and(|first| *first <= through);
        if through <= self.fired || self.runs.iter().any(is_late) {
            return false;
        }
        self.fired = through;
        let behind = TimerKey { number: through.number + 1, ..through };
        let later = self.memory.split_off(&behind);
        let before = std::mem::replace(&mut self.memory, later);
        let late = before.into_iter().filter(|(key, _)| key.number >= below);
        self.memory.extend(late.map(|(key, target)| (TimerKey { due_ms: through.due_ms, ..key }, target)));
        self.recalled = self.recalled.split_off(&behind);
        self.drop_runs(through, out);
        true
    }

    fn drop_runs(&mut self, through: TimerKey, out: &mut impl RunSink) {
        self.runs.retain(|run| {
            let is_left = run.last > through;
            if !is_left {
                out.drop_run(run.number);
            }
            is_left
        });
    }

    /// The number of the timer that is set next.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// All up to this one have fired.
    pub fn fired(&self) -> TimerKey {
        self.fired
    }

    /// No timer that has not fired is due later; none if all have.
    pub fn last_due_ms(&self) -> Option<i64> {
        let in_memory = self.memory.last_key_value().map(|(key, _)| *key);
        let last = self.runs.iter().map(|run| run.last).chain(in_memory).max();
        last.filter(|last| *last > self.fired).map(|last| last.due_ms)
    }

    /// The runs that are not used up.
    pub fn runs(&self) -> &[TimerRun] {
        &self.runs
    }

    /// Whether a timer of a run was recalled.
    pub fn is_recalled(&self, key: TimerKey) -> bool {
        self.recalled.contains(&key)
    }

    /// The timers in memory behind a key, ascending.
    pub fn in_memory(&self, behind: TimerKey) -> impl Iterator<Item = (TimerKey, TimerTarget)> {
        let from = TimerKey { number: behind.number.saturating_add(1), ..behind };
        self.memory.range(from..).map(|(key, target)| (*key, *target))
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        let entry = size_of::<(TimerKey, TimerTarget)>();
        let pages: usize = self.runs.iter().map(|run| run.pages.capacity()).sum();
        self.memory.len() * entry * 3 / 2 + (pages + self.recalled.len()) * size_of::<TimerKey>() * 3 / 2
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_u64(out, self.most as u64);
        put_u64(out, self.next_number);
        put_u64(out, self.next_run);
        self.fired.encode(out);
        put_timers(out, &self.in_memory(TimerKey::FIRST).collect::<Vec<_>>());
        put_u64(out, self.runs.len() as u64);
        for run in &self.runs {
            put_u64(out, run.number);
            put_u64(out, run.pages.len() as u64);
            run.pages.iter().for_each(|key| key.encode(out));
            run.last.encode(out);
            put_u64(out, run.highest);
        }
        put_u64(out, self.recalled.len() as u64);
        self.recalled.iter().for_each(|key| key.encode(out));
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// A newer form, a cut or overlong value, a number out of range.
    pub fn decode(mut stored: &[u8]) -> Result<Self, DecodeError> {
        let input = &mut stored;
        take_form(input, FORM)?;
        let mut timers = Self::new(take_u32(input)? as usize);
        (timers.next_number, timers.next_run) = (take_u64(input)?, take_u64(input)?);
        timers.fired = TimerKey::decode(input)?;
        timers.memory = take_timers(input)?.into_iter().collect();
        let runs = take_count(input, 4)?;
        timers.runs = (0..runs).map(|_| take_run(input)).collect::<Result<_, _>>()?;
        let recalled = take_count(input, 2)?;
        timers.recalled = (0..recalled).map(|_| TimerKey::decode(input)).collect::<Result<_, _>>()?;
        end(input)?;
        Ok(timers)
    }

    /// Reads a page of a run.
    ///
    /// # Errors
    /// A newer form, a cut or overlong page, a number out of range.
    pub fn decode_page(mut stored: &[u8]) -> Result<Vec<(TimerKey, TimerTarget)>, DecodeError> {
        let input = &mut stored;
        take_form(input, FORM)?;
        let timers = take_timers(input)?;
        end(input)?;
        Ok(timers)
    }
}

fn take_run(input: &mut &[u8]) -> Result<TimerRun, DecodeError> {
    let number = take_u64(input)?;
    let pages = take_count(input, 2)?;
    let pages = (0..pages).map(|_| TimerKey::decode(input)).collect::<Result<_, _>>()?;
    Ok(TimerRun { number, pages, last: TimerKey::decode(input)?, highest: take_u64(input)? })
}
