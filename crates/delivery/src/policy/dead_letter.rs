//! How a message came to be dead-lettered: a record for each queue and reason, the latest first.

use std::sync::Arc;

use sabir_base::varint::{put_i64, put_u64, take_i64, take_u32};
use sabir_model::stored::{end, put_bytes, take_count, take_form, take_str, take_u8};
use sabir_model::{Backoff, DecodeError};

use super::{DeliveryLimit, LimitedCount, RetryPolicy};

const FORM: u8 = 1;

/// The most records that are kept; the oldest goes.
const MOST: usize = 256;

/// Why a message was dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DeathReason {
    /// A consumer rejected it.
    Rejected = 0,
    /// Its time was over.
    Expired = 1,
    /// Its queue was full.
    QueueLength = 2,
    /// It was tried too often.
    DeliveryLimit = 3,
    /// It is a dead letter already, and an operator has it go back to the queue that gave it up.
    Redriven = 4,
}

impl DeathReason {
    /// Those for which queues give messages up.
    pub const ALL: [Self; 4] = [Self::Rejected, Self::Expired, Self::QueueLength, Self::DeliveryLimit];

    /// That of a stored byte.
    ///
    /// # Errors
    /// It is none's.
    pub fn stored(byte: u8) -> Result<Self, DecodeError> {
        let mut all = Self::ALL.into_iter().chain([Self::Redriven]);
        all.find(|reason| *reason as u8 == byte).ok_or(DecodeError::Field("reason"))
    }
}

/// What becomes of messages that a queue gives up, and when it does so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeathPolicy {
    /// Whether they are published elsewhere; else they are dropped.
    pub dead_letters: bool,
    /// When messages that come back such that it counts are tried again, and when they are given up.
    pub retry: RetryPolicy,
}

impl DeathPolicy {
    /// Of a queue or a subscription: whether there is an address for dead letters, how often a message may come back such that it counts, and
    /// how long it waits then.
    pub fn of_returns(dead_letters: bool, most: Option<u32>, backoff: Option<Arc<Backoff>>) -> Self {
        let limit = most.map(|most| DeliveryLimit { count: LimitedCount::Returned, most });
        Self { dead_letters, retry: RetryPolicy { limit, backoff } }
    }
}

/// What happened to a message in one queue for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The queue's name.
    pub queue: Arc<str>,
    /// Why.
    pub reason: DeathReason,
    /// How often.
    pub count: u32,
    /// When first, in milliseconds.
    pub first_ms: i64,
    /// When last, in milliseconds.
    pub last_ms: i64,
}

/// A message's deaths, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deaths(Vec<Death>);

impl Deaths {
    /// The records.
    pub fn iter(&self) -> impl Iterator<Item = &Death> {
        self.0.iter()
    }

    /// Adds a death: to the record of the same queue and reason, which becomes the latest, or one of its own.
    pub fn add(&mut self, queue: &Arc<str>, reason: DeathReason, now_ms: i64) {
        let known = self.0.iter().position(|death| death.queue == *queue && death.reason == reason);
        let mut death = match known {
            Some(place) => self.0.remove(place),
            None => Death { queue: queue.clone(), reason, count: 0, first_ms: now_ms, last_ms: now_ms },
        };
        death.count = death.count.saturating_add(1);
        death.last_ms = now_ms;
        self.0.truncate(MOST - 1);
        self.0.insert(0, death);
    }

    /// Whether a queue may not have the message again: it came from there, and no consumer rejected it on its way round, so that it would
    /// go round for ever.
    pub fn is_cycle(&self, queue: &str) -> bool {
        let Some(there) = self.0.iter().position(|death| &*death.queue == queue) else { return false };
        self.0[..=there].iter().all(|death| death.reason != DeathReason::Rejected)
    }

    /// Appends the stored form: 1 · count · (queue · reason · how often · first · last) of each.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_u64(out, self.0.len() as u64);
        for death in &self.0 {
            put_bytes(out, death.queue.as_bytes());
            out.push(death.reason as u8);
            put_u64(out, death.count.into());
            put_i64(out, death.first_ms);
            put_i64(out, death.last_ms);
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// A newer form, a cut or overlong value, an unknown reason.
    pub fn decode(mut stored: &[u8]) -> Result<Self, DecodeError> {
        let input = &mut stored;
        take_form(input, FORM)?;
        let count = take_count(input, 5)?;
        let deaths = (0..count).map(|_| take_death(input)).collect::<Result<_, _>>()?;
        end(input)?;
        Ok(Self(deaths))
    }
}

fn take_death(input: &mut &[u8]) -> Result<Death, DecodeError> {
    Ok(Death {
        queue: take_str(input)?.into(),
        reason: DeathReason::stored(take_u8(input)?)?,
        count: take_u32(input)?,
        first_ms: take_i64(input)?,
        last_ms: take_i64(input)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deaths(of: &[(&str, DeathReason)]) -> Deaths {
        let mut deaths = Deaths::default();
        of.iter().zip(1..).for_each(|((queue, reason), now)| deaths.add(&Arc::from(*queue), *reason, now));
        deaths
    }

    #[test]
    fn deaths_in_one_queue_for_one_reason_are_one_record() {
        use DeathReason::{Expired, Rejected};
        let deaths = deaths(&[("a", Expired), ("b", Rejected), ("a", Rejected), ("a", Expired)]);
        let seen: Vec<_> =
            deaths.iter().map(|d| (&*d.queue, d.reason, d.count, d.first_ms, d.last_ms)).collect();
        assert_eq!(seen, [("a", Expired, 2, 1, 4), ("a", Rejected, 1, 3, 3), ("b", Rejected, 1, 2, 2)]);
    }

    #[test]
    fn a_cycle_without_a_rejection_ends() {
        use DeathReason::{Expired, QueueLength, Rejected};
        assert!(!deaths(&[("a", Expired)]).is_cycle("b"), "it was never there");
        assert!(deaths(&[("a", Expired), ("b", QueueLength)]).is_cycle("a"));
        assert!(!deaths(&[("a", Expired), ("b", Rejected)]).is_cycle("a"));
        assert!(!deaths(&[("a", Rejected), ("b", Expired)]).is_cycle("a"));
        assert!(deaths(&[("a", Rejected), ("b", Expired)]).is_cycle("b"), "the rejection was before");
    }

    #[test]
    fn records_are_bounded_and_the_oldest_go() {
        let queues: Vec<String> = (0..MOST + 9).map(|n| n.to_string()).collect();
        let all: Vec<_> = queues.iter().map(|queue| (queue.as_str(), DeathReason::Expired)).collect();
        let deaths = deaths(&all);
        assert_eq!(deaths.iter().count(), MOST);
        assert_eq!(deaths.iter().last().map(|death| &*death.queue), Some("9"));
    }

    #[test]
    fn deaths_are_stored_in_these_bytes() {
        let deaths = deaths(&[("a", DeathReason::Expired), ("bc", DeathReason::DeliveryLimit)]);
        let mut out = Vec::new();
        deaths.encode(&mut out);
        assert_eq!(out, [1, 2, 2, b'b', b'c', 3, 1, 4, 4, 1, b'a', 1, 1, 2, 2]);
        assert_eq!(Deaths::decode(&out), Ok(deaths));
        assert!((0..out.len()).all(|len| Deaths::decode(&out[..len]).is_err()));
        assert_eq!(Deaths::decode(&[1, 1, 0, 9, 1, 0, 0]), Err(DecodeError::Field("reason")));
    }
}
