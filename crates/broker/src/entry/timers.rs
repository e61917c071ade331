//! Entries of timers: those that are due have fired, and what they published.

use sabir_delivery::subscription::{Attempts, Operation, SubscriptionNo};
use sabir_delivery::timer::TimerKey;
use sabir_model::{DecodeError, Extent, RecordFacts};

use super::{Body, DeliveryError, DeliveryOutcome, RecordPlace, ReferenceBody, kind};
use crate::codec::{Reader, put_i64, put_len, put_u64};

/// Without parked messages.
const FORM_1: u8 = 1;
const FORM: u8 = 2;
/// Marks of a message that fired: it goes somewhere, and what queues must know of it is said.
const PUBLISHED: u8 = 1 << 0;
const FACTS: u8 = 1 << 1;
/// It cannot be read, and its timer is set anew.
const PUT_OFF: u8 = 1 << 2;
/// It has fired before, and its timer is set once more.
const FIRED: u8 = 1 << 3;
const AGAIN: u8 = 1 << 4;
const MARKS: u8 = (1 << 5) - 1;

/// All timers up to a key have fired, but for those set since this was proposed: version 1 · the key: moment in milliseconds, signed, and
/// number · the number of the timer that was to be set next · list of messages, as [`FiredMessage`]. Where parked messages become ready: version 2, and the same ·
/// list of these, as [`DueMessage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimersFired {
    pub(crate) through: TimerKey,
    pub(crate) below: u64,
    pub(crate) messages: Vec<FiredMessage>,
    pub(crate) due: Vec<DueMessage>,
}

/// A parked message whose time has come: subscription · offset · the subscription's resets when it was parked · its counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DueMessage {
    pub(crate) subscription: SubscriptionNo,
    pub(crate) offset: u64,
    pub(crate) resets: u32,
    pub(crate) attempts: Attempts,
}

/// A message that was kept back, and where it goes: marks u8 (1 published, 2 facts, 4 put off, 8 fired before, 16 again) · partition and offset · if it is published: as a reference's
/// targets, largest timestamp and extent · facts, if marked · for how many milliseconds it is put off, if marked ·
/// how often it has fired, if marked · the moment for which its timer is set once more, if marked. One that goes nowhere and is not put off is dropped, but for one whose timer is set
/// once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FiredMessage {
    pub(crate) place: RecordPlace,
    /// A reference to the record, from its place.
    pub(crate) published: Option<ReferenceBody>,
    pub(crate) facts: Option<Box<RecordFacts>>,
    /// Its timer is set anew, for so long after the block's time.
    pub(crate) put_off_ms: Option<i64>,
    /// How often it has fired, this time included unless it is put off; 0 of what fires once.
    pub(crate) fired: u32,
    /// It stays, and its timer is set for that moment, in milliseconds.
    pub(crate) again_ms: Option<i64>,
}

impl FiredMessage {
    fn put(&self, out: &mut Vec<u8>) {
        let mark = |on: bool, bit: u8| if on { bit } else { 0 };
        let put_off = mark(self.put_off_ms.is_some(), PUT_OFF);
        let repeated = mark(self.fired > 0, FIRED) | mark(self.again_ms.is_some(), AGAIN);
        let published = mark(self.published.is_some(), PUBLISHED) | mark(self.facts.is_some(), FACTS);
        out.push(published | put_off | repeated);
        self.place.put(out);
        if let Some(ReferenceBody { targets, max_ts, extent, .. }) = &self.published {
            put_len(out, targets.len());
            targets.iter().for_each(|id| put_u64(out, id.0));
            put_i64(out, *max_ts);
            extent.encode(out);
        }
        self.facts.iter().for_each(|facts| facts.encode(out));
        self.put_off_ms.iter().for_each(|ms| put_i64(out, *ms));
        if self.fired > 0 {
            put_u64(out, self.fired.into());
        }
        self.again_ms.iter().for_each(|ms| put_i64(out, *ms));
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let marks = input.u8()?;
        if marks & !MARKS != 0 {
            return Err(DecodeError::Version(marks));
        }
        let place = RecordPlace::take(input)?;
        let published = if marks & PUBLISHED == 0 { None } else { Some(take_published(input, place)?) };
        let facts = if marks & FACTS == 0 { None } else { Some(Box::new(input.with(RecordFacts::decode)?)) };
        if facts.as_ref().is_some_and(|facts| facts.records() != 1) {
            return Err(DecodeError::Field("number of facts"));
        }
        let put_off_ms = if marks & PUT_OFF == 0 { None } else { Some(input.i64()?) };
        let fired = if marks & FIRED == 0 { 0 } else { input.u32()? };
        let again_ms = if marks & AGAIN == 0 { None } else { Some(input.i64()?) };
        Ok(Self { place, published, facts, put_off_ms, fired, again_ms })
    }
}

impl DueMessage {
    /// What becomes of it.
    pub(crate) fn operation(&self) -> Operation<'static> {
        let Self { offset, resets, attempts, .. } = *self;
        Operation::Due { offset, resets, attempts }
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.subscription.0);
        put_u64(out, self.offset);
        put_u64(out, self.resets.into());
        self.attempts.encode(out);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            subscription: SubscriptionNo(input.u64()?),
            offset: input.u64()?,
            resets: input.u32()?,
            attempts: input.with(Attempts::decode)?,
        })
    }
}

fn take_published(input: &mut Reader<'_>, place: RecordPlace) -> Result<ReferenceBody, DecodeError> {
    let body = ReferenceBody {
        targets: input.list(1, Reader::partition)?,
        max_ts: input.i64()?,
        source: Some(place),
        extent: input.with(Extent::decode)?,
    };
    if body.extent.records == 1 { Ok(body) } else { Err(DecodeError::Field("number of records")) }
}

impl Body for TimersFired {
    const KIND: u16 = kind::TIMERS_FIRED;
    type Outcome = Result<DeliveryOutcome, DeliveryError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(if self.due.is_empty() { FORM_1 } else { FORM });
        put_i64(out, self.through.due_ms);
        put_u64(out, self.through.number);
        put_u64(out, self.below);
        put_len(out, self.messages.len());
        self.messages.iter().for_each(|message| message.put(out));
        if !self.due.is_empty() {
            put_len(out, self.due.len());
            self.due.iter().for_each(|due| due.put(out));
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let form = input.u8()?;
        if !(FORM_1..=FORM).contains(&form) {
            return Err(DecodeError::Version(form));
        }
        let body = Self {
            through: TimerKey { due_ms: input.i64()?, number: input.u64()? },
            below: input.u64()?,
            messages: input.list(3, FiredMessage::take)?,
            due: if form == FORM_1 { Vec::new() } else { input.list(5, DueMessage::take)? },
        };
        input.end()?;
        Ok(body)
    }
}
