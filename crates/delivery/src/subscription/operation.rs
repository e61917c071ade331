//! What an entry does to subscriptions: a list of operations, applied together or not at all.
//!
//! ```text
//!   form 1 · marks (1 strict) · operations to the end
//!   operation: tag (128: the subscription of the one before) · [subscription] · fields
//! ```

use sabir_base::varint::{put_i64, put_u64, take_i64, take_u32, take_u64};
use sabir_model::DecodeError;
use sabir_model::stored::{put_bytes, take_form, take_str, take_u8};

use super::{Attempts, MessageOwner, OffsetRanges};
use crate::policy::DeathReason;

const FORM: u8 = 1;
const STRICT: u8 = 1;
const SAME: u8 = 0x80;

/// A subscription's number in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionNo(pub u64);

/// Terms on which messages are acquired, from the block's time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The owner that gets them.
    pub owner: MessageOwner,
    /// Milliseconds until the deadline; 0 is none.
    pub timeout_ms: u32,
    /// What settling must show where the fence is a token; 0 is none.
    pub token: u64,
}

/// What messages must be for an operation to concern them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBy {
    /// Anything.
    Any,
    /// In flight with this owner.
    Owner(MessageOwner),
    /// In flight under this token.
    Token(u64),
    /// In flight beyond the deadline, which is at or before the block's time.
    Overdue,
}

/// Why a message is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Settlement {
    /// Its consumer said so.
    Acknowledged = 0,
    /// Its time was over.
    Expired = 1,
    /// Dropped, and not dead-lettered whatever its queue says.
    Dropped = 2,
    /// A reference to it stands in the dead-letter target, in the same entry or an earlier one.
    DeadLettered = 3,
    /// The log no longer has it.
    Gone = 4,
    /// Its consumer refused it for good.
    Rejected = 5,
    /// Its queue was longer than it may be.
    TooMany = 6,
    /// It came back more often than it may.
    TooOften = 7,
}

impl Settlement {
    /// Why a message is dead-lettered that is done with so; none where it is not, whatever its queue says.
    pub fn death(self) -> Option<DeathReason> {
        match self {
            Self::Expired => Some(DeathReason::Expired),
            Self::Rejected => Some(DeathReason::Rejected),
            Self::TooMany => Some(DeathReason::QueueLength),
            Self::TooOften => Some(DeathReason::DeliveryLimit),
            Self::Acknowledged | Self::Dropped | Self::DeadLettered | Self::Gone => None,
        }
    }
}

/// What a transfer does to the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptsChange {
    /// Nothing.
    Keep,
    /// One acquisition more.
    Add,
    /// So many acquisitions.
    Set(u32),
}

/// One change of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Messages were appended behind the last; those of a transaction are ready when it commits.
    Published {
        /// How many.
        count: u32,
        /// The transaction that is not yet decided.
        transaction: Option<u64>,
    },
    /// Ready messages go to an owner. Those that are not ready stay as they are.
    Acquired {
        /// Which.
        ranges: OffsetRanges<'a>,
        /// On which terms.
        terms: Terms,
    },
    /// The first ready messages go to an owner: a pull that `apply` decides.
    Taken {
        /// At most so many.
        count: u32,
        /// On which terms.
        terms: Terms,
    },
    /// Messages in flight are ready again, or parked.
    Returned {
        /// Which.
        ranges: OffsetRanges<'a>,
        /// The fence.
        held_by: HeldBy,
        /// Whether the return counts.
        counted: bool,
        /// The moment before which they are parked, in milliseconds; 0: as the queue's settings say, else ready at once.
        not_before_ms: i64,
    },
    /// Messages are done with; with no fence, ready and parked ones too.
    Settled {
        /// Which.
        ranges: OffsetRanges<'a>,
        /// The fence.
        held_by: HeldBy,
        /// Why.
        why: Settlement,
    },
    /// Messages in flight change owner.
    Transferred {
        /// Which.
        ranges: OffsetRanges<'a>,
        /// The terms with the new owner.
        terms: Terms,
        /// Only what has been with its owner for so long, in milliseconds.
        min_idle_ms: u32,
        /// Since when the new owner has them; the block's time if absent.
        since_ms: Option<i64>,
        /// What becomes of the counts.
        attempts: AttemptsChange,
        /// Whether what is not in flight is taken as well.
        force: bool,
    },
    /// Messages in flight have a new deadline, from the block's time on, and a phase.
    Extended {
        /// Which.
        ranges: OffsetRanges<'a>,
        /// The fence.
        held_by: HeldBy,
        /// Milliseconds until the deadline; 0 is none.
        timeout_ms: u32,
        /// How far their protocol got with them.
        phase: u8,
    },
    /// The position moves: what is ready before it is settled, what is settled behind it is ready.
    Reset {
        /// The offset of the first message to deliver.
        to: u64,
        /// Whether messages in flight and parked lose that state as well.
        everything: bool,
    },
    /// A parked message's time has come.
    Due {
        /// Which.
        offset: u64,
        /// The subscription's resets when it was parked; if it was reset since, the timer means nothing.
        resets: u32,
        /// Its counts, which its timer kept.
        attempts: Attempts,
    },
    /// Messages up to an offset may have been sent.
    Claimed {
        /// The first that has not.
        to: u64,
    },
    /// An owner is gone: all that it has is returned.
    Released {
        /// Their owner.
        owner: MessageOwner,
        /// Whether the returns count.
        counted: bool,
    },
    /// The node started: sessions and leases of its former run have ended.
    Started {
        /// Whether the run before ended in order.
        clean: bool,
    },
    /// What messages in flight come to is a transaction's to decide.
    Prepared {
        /// Which.
        ranges: OffsetRanges<'a>,
        /// The fence.
        held_by: HeldBy,
        /// The transaction.
        transaction: u64,
    },
    /// A transaction's acknowledgements and publishes take effect, or are undone.
    Decided {
        /// The transaction.
        transaction: u64,
        /// Whether it committed.
        commit: bool,
    },
    /// There is a consumer by this name, which may have no messages.
    ConsumerNamed {
        /// Its number.
        number: u64,
        /// Its name.
        name: &'a str,
    },
    /// A named consumer is gone, and what it had is settled.
    ConsumerForgotten {
        /// Its number.
        number: u64,
    },
    /// Nothing more is taken in, provided that no message waits; what is in flight does not.
    SealedIfEmpty,
}

impl Terms {
    fn encode(&self, out: &mut Vec<u8>) {
        self.owner.encode(out);
        put_u64(out, self.timeout_ms.into());
        put_u64(out, self.token);
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            owner: MessageOwner::decode(input)?,
            timeout_ms: take_u32(input)?,
            token: take_u64(input)?,
        })
    }
}

impl HeldBy {
    fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Any => out.push(0),
            Self::Owner(owner) => {
                out.push(1);
                owner.encode(out);
            }
            Self::Token(token) => {
                out.push(2);
                put_u64(out, token);
            }
            Self::Overdue => out.push(3),
        }
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match take_u8(input)? {
            0 => Ok(Self::Any),
            3 => Ok(Self::Overdue),
            1 => MessageOwner::decode(input).map(Self::Owner),
            2 => Ok(Self::Token(take_u64(input)?)),
            _ => Err(DecodeError::Field("fence")),
        }
    }
}

impl Settlement {
    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(match take_u8(input)? {
            0 => Self::Acknowledged,
            1 => Self::Expired,
            2 => Self::Dropped,
            3 => Self::DeadLettered,
            4 => Self::Gone,
            5 => Self::Rejected,
            6 => Self::TooMany,
            7 => Self::TooOften,
            _ => return Err(DecodeError::Field("settlement")),
        })
    }
}

impl AttemptsChange {
    fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Keep => out.push(0),
            Self::Add => out.push(1),
            Self::Set(count) => {
                out.push(2);
                put_u64(out, count.into());
            }
        }
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match take_u8(input)? {
            0 => Ok(Self::Keep),
            1 => Ok(Self::Add),
            2 => Ok(Self::Set(take_u32(input)?)),
            _ => Err(DecodeError::Field("change of counts")),
        }
    }
}

fn put_optional(out: &mut Vec<u8>, value: Option<i64>) {
    out.push(value.is_some().into());
    if let Some(value) = value {
        put_i64(out, value);
    }
}

fn take_optional(input: &mut &[u8]) -> Result<Option<i64>, DecodeError> {
    if take_bool(input)? { Ok(Some(take_i64(input)?)) } else { Ok(None) }
}

fn take_bool(input: &mut &[u8]) -> Result<bool, DecodeError> {
    match take_u8(input)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Field("truth value")),
    }
}

impl<'a> Operation<'a> {
    fn tag(&self) -> u8 {
        match self {
            Self::Published { .. } => 1,
            Self::Acquired { .. } => 2,
            Self::Taken { .. } => 3,
            Self::Returned { .. } => 4,
            Self::Settled { .. } => 5,
            Self::Transferred { .. } => 6,
            Self::Extended { .. } => 7,
            Self::Reset { .. } => 8,
            Self::Due { .. } => 9,
            Self::Claimed { .. } => 10,
            Self::Released { .. } => 11,
            Self::Started { .. } => 12,
            Self::Prepared { .. } => 13,
            Self::Decided { .. } => 14,
            Self::ConsumerNamed { .. } => 15,
            Self::ConsumerForgotten { .. } => 16,
            Self::SealedIfEmpty => 17,
        }
    }

    fn encode_fields(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Published { count, transaction } => {
                put_u64(out, count.into());
                out.push(transaction.is_some().into());
                transaction.into_iter().for_each(|id| put_u64(out, id));
            }
            Self::Acquired { ranges, terms } => {
                ranges.encode(out);
                terms.encode(out);
            }
            Self::Taken { count, terms } => {
                put_u64(out, count.into());
                terms.encode(out);
            }
            Self::Returned { ranges, held_by, counted, not_before_ms } => {
                ranges.encode(out);
                held_by.encode(out);
                out.push(counted.into());
                put_i64(out, not_before_ms);
            }
            Self::Settled { ranges, held_by, why } => {
                ranges.encode(out);
                held_by.encode(out);
                out.push(why as u8);
            }
            Self::Transferred { ranges, terms, min_idle_ms, since_ms, attempts, force } => {
                ranges.encode(out);
                terms.encode(out);
                put_u64(out, min_idle_ms.into());
                put_optional(out, since_ms);
                attempts.encode(out);
                out.push(force.into());
            }
            Self::Extended { ranges, held_by, timeout_ms, phase } => {
                ranges.encode(out);
                held_by.encode(out);
                put_u64(out, timeout_ms.into());
                out.push(phase);
            }
            _ => self.encode_rare(out),
        }
    }

    fn encode_rare(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Reset { to, everything } => {
                put_u64(out, to);
                out.push(everything.into());
            }
            Self::Due { offset, resets, attempts } => {
                put_u64(out, offset);
                put_u64(out, resets.into());
                attempts.encode(out);
            }
            Self::Claimed { to } => put_u64(out, to),
            Self::Released { owner, counted } => {
                owner.encode(out);
                out.push(counted.into());
            }
            Self::Started { clean } => out.push(clean.into()),
            Self::Prepared { ranges, held_by, transaction } => {
                ranges.encode(out);
                held_by.encode(out);
                put_u64(out, transaction);
            }
            Self::Decided { transaction, commit } => {
                put_u64(out, transaction);
                out.push(commit.into());
            }
            Self::ConsumerNamed { number, name } => {
                put_u64(out, number);
                put_bytes(out, name.as_bytes());
            }
            Self::ConsumerForgotten { number } => put_u64(out, number),
            _ => {}
        }
    }

    fn decode_fields(tag: u8, input: &mut &'a [u8]) -> Result<Self, DecodeError> {
        Ok(match tag {
            1 => Self::Published {
                count: take_u32(input)?,
                transaction: if take_bool(input)? { Some(take_u64(input)?) } else { None },
            },
            2 => Self::Acquired { ranges: OffsetRanges::decode(input)?, terms: Terms::decode(input)? },
            3 => Self::Taken { count: take_u32(input)?, terms: Terms::decode(input)? },
            4 => Self::Returned {
                ranges: OffsetRanges::decode(input)?,
                held_by: HeldBy::decode(input)?,
                counted: take_bool(input)?,
                not_before_ms: take_i64(input)?,
            },
            5 => Self::Settled {
                ranges: OffsetRanges::decode(input)?,
                held_by: HeldBy::decode(input)?,
                why: Settlement::decode(input)?,
            },
            6 => Self::Transferred {
                ranges: OffsetRanges::decode(input)?,
                terms: Terms::decode(input)?,
                min_idle_ms: take_u32(input)?,
                since_ms: take_optional(input)?,
                attempts: AttemptsChange::decode(input)?,
                force: take_bool(input)?,
            },
            7 => Self::Extended {
                ranges: OffsetRanges::decode(input)?,
                held_by: HeldBy::decode(input)?,
                timeout_ms: take_u32(input)?,
                phase: take_u8(input)?,
            },
            _ => Self::decode_rare(tag, input)?,
        })
    }

    fn decode_rare(tag: u8, input: &mut &'a [u8]) -> Result<Self, DecodeError> {
        Ok(match tag {
            8 => Self::Reset { to: take_u64(input)?, everything: take_bool(input)? },
            9 => Self::Due {
                offset: take_u64(input)?,
                resets: take_u32(input)?,
                attempts: Attempts::decode(input)?,
            },
            10 => Self::Claimed { to: take_u64(input)? },
            11 => Self::Released { owner: MessageOwner::decode(input)?, counted: take_bool(input)? },
            12 => Self::Started { clean: take_bool(input)? },
            13 => Self::Prepared {
                ranges: OffsetRanges::decode(input)?,
                held_by: HeldBy::decode(input)?,
                transaction: take_u64(input)?,
            },
            14 => Self::Decided { transaction: take_u64(input)?, commit: take_bool(input)? },
            15 => Self::ConsumerNamed { number: take_u64(input)?, name: take_str(input)? },
            16 => Self::ConsumerForgotten { number: take_u64(input)? },
            17 => Self::SealedIfEmpty,
            tag => return Err(DecodeError::Version(tag)),
        })
    }
}

/// Writes a list of operations.
#[derive(Debug)]
pub struct OperationsWriter<'a> {
    out: &'a mut Vec<u8>,
    last: Option<SubscriptionNo>,
}

impl<'a> OperationsWriter<'a> {
    /// Begins a list behind what `out` holds. A strict one is refused as a whole unless each operation concerns every message
    /// that it names.
    pub fn new(out: &'a mut Vec<u8>, strict: bool) -> Self {
        out.extend_from_slice(&[FORM, if strict { STRICT } else { 0 }]);
        Self { out, last: None }
    }

    /// Bytes of what the list, and all before it, takes by now.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Adds an operation.
    pub fn push(&mut self, subscription: SubscriptionNo, operation: &Operation<'_>) {
        if self.last == Some(subscription) {
            self.out.push(operation.tag() | SAME);
        } else {
            self.out.push(operation.tag());
            put_u64(self.out, subscription.0);
            self.last = Some(subscription);
        }
        operation.encode_fields(self.out);
    }
}

/// A list of operations in its stored form, checked.
#[derive(Debug, Clone, Copy)]
pub struct OperationList<'a> {
    /// Whether the list is refused as a whole unless each operation concerns every message that it names.
    pub strict: bool,
    body: &'a [u8],
}

impl<'a> OperationList<'a> {
    /// Reads an entry's body.
    ///
    /// # Errors
    /// A newer form or operation, a cut body, a value out of range.
    pub fn decode(mut body: &'a [u8]) -> Result<Self, DecodeError> {
        take_form(&mut body, FORM)?;
        let marks = take_u8(&mut body)?;
        if marks & !STRICT != 0 {
            return Err(DecodeError::Field("marks"));
        }
        let list = Self { strict: marks & STRICT != 0, body };
        let (mut rest, mut last) = (body, None);
        while !rest.is_empty() {
            take_operation(&mut rest, &mut last)?;
        }
        Ok(list)
    }

    /// The operations, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (SubscriptionNo, Operation<'a>)> + use<'a> {
        let (mut rest, mut last) = (self.body, None);
        std::iter::from_fn(move || {
            let more = !rest.is_empty();
            more.then(|| take_operation(&mut rest, &mut last).expect("checked when it was decoded"))
        })
    }
}

fn take_operation<'a>(
    input: &mut &'a [u8],
    last: &mut Option<SubscriptionNo>,
) -> Result<(SubscriptionNo, Operation<'a>), DecodeError> {
    let tag = take_u8(input)?;
    if tag & SAME == 0 {
        *last = Some(SubscriptionNo(take_u64(input)?));
    }
    let subscription = last.ok_or(DecodeError::Field("subscription"))?;
    Ok((subscription, Operation::decode_fields(tag & !SAME, input)?))
}
