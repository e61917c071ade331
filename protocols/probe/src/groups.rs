//! Groups of named consumers at a partition: subscriptions that the projection makes, takes from and settles where an entry is applied.
//!
//! Nothing of a group is kept here: the subscription has its consumers, what they hold, and how often each message was tried.

use std::collections::BTreeMap;

use sabir_broker::projection::delivery::{
    AttemptsChange, HeldBy, MessageOwner, OffsetRanges, Operation, RangesBuffer, Settlement, SubscriptionNo,
    SubscriptionSettings, SubscriptionStart, SubscriptionView, Terms,
};
use sabir_broker::projection::{Delivered, DeliveryRefused, Effects, View};
use sabir_model::{DecodeError, PartitionId};

use crate::state::{number, three};

const NONE: &str = "ERR there is no such group";
const TOO_MANY: &str = "ERR the group has too many consumers";

/// Consumers of a group.
const MOST: usize = 1000;

/// The most messages that are shown of a group, and the bytes of their lines from which on no more are: it is looked under the lock of all that the
/// shard has.
const MOST_SHOWN: usize = 1000;
pub(crate) const SHOWN_BYTES: usize = 64 * 1024;

/// Does what a command says of a group: of which partition, and behind that its name and the rest.
pub(crate) fn apply(
    word: &str,
    of: PartitionId,
    rest: &str,
    effects: &mut Effects<'_>,
) -> Result<String, DecodeError> {
    let (name, first, rest) = three(rest);
    if word == "group-make" {
        let made = effects.subscribe(of, name, SubscriptionStart::Oldest, SubscriptionSettings::default());
        return Ok(made.map_or_else(|refused| format!("ERR {refused}"), |_| "OK".into()));
    }
    let Some(group) = effects.subscription(of, name).map(|group| group.number()) else {
        return Ok(NONE.into());
    };
    let done = match word {
        "group-drop" => effects.unsubscribe(group).map(|()| "OK".to_owned()),
        "group-next" => next(group, first, number(rest)?, effects),
        "group-ack" => end(group, number(first)?, effects, |ranges, held_by| {
            let why = Settlement::Acknowledged;
            Operation::Settled { ranges, held_by, why }
        }),
        "group-return" => end(group, number(first)?, effects, |ranges, held_by| Operation::Returned {
            ranges,
            held_by,
            counted: true,
            not_before_ms: 0,
        }),
        "group-claim" => {
            let (offset, idle_ms) = rest.split_once(' ').ok_or(DecodeError::Field("command"))?;
            claim(group, first, number(offset)?, number(idle_ms)?, effects)
        }
        "group-seek" => {
            let operation = Operation::Reset { to: number(first)?, everything: false };
            effects.delivery(group, &operation).map(|_| "OK".into())
        }
        "group-leave" => leave(group, first, effects),
        _ => return Err(DecodeError::Field("command")),
    };
    Ok(done.unwrap_or_else(|refused| format!("ERR {refused}")))
}

/// The number of a consumer, which is given one where it has none; none where the group has too many.
fn consumer(
    group: SubscriptionNo,
    name: &str,
    effects: &mut Effects<'_>,
) -> Result<Option<u64>, DeliveryRefused> {
    let view = effects.messages(group).ok_or(DeliveryRefused::Unknown)?;
    if let Some(known) = number_of(&view, name) {
        return Ok(Some(known));
    }
    if view.consumers().count() >= MOST {
        return Ok(None);
    }
    let number = view.consumers().last().map_or(1, |(last, _)| last + 1);
    effects.delivery(group, &Operation::ConsumerNamed { number, name })?;
    Ok(Some(number))
}

fn number_of(group: &SubscriptionView<'_>, consumer: &str) -> Option<u64> {
    group.consumers().find(|(_, name)| *name == consumer).map(|(number, _)| number)
}

/// Gives a consumer the first messages that are ready.
fn next(
    group: SubscriptionNo,
    name: &str,
    most: u32,
    effects: &mut Effects<'_>,
) -> Result<String, DeliveryRefused> {
    let Some(number) = consumer(group, name, effects)? else { return Ok(TOO_MANY.into()) };
    let terms = Terms { owner: MessageOwner::Named(number), timeout_ms: 0, token: 0 };
    let Delivered { acquired, .. } = effects.delivery(group, &Operation::Taken { count: most, terms })?;
    let offsets: Vec<_> = acquired.into_iter().flatten().map(|offset| offset.to_string()).collect();
    Ok(if offsets.is_empty() { "NIL".into() } else { format!("OK {}", offsets.join(" ")) })
}

/// Ends the delivery of a message, whichever consumer has it; what no one has stays as it is.
fn end(
    group: SubscriptionNo,
    offset: u64,
    effects: &mut Effects<'_>,
    operation: impl FnOnce(OffsetRanges<'_>, HeldBy) -> Operation<'_>,
) -> Result<String, DeliveryRefused> {
    let message = offset..offset.saturating_add(1);
    let view = effects.messages(group).ok_or(DeliveryRefused::Unknown)?;
    let Some((_, held)) = view.held(message.clone()).next() else { return Ok("OK 0".into()) };
    let ranges = RangesBuffer::of(std::iter::once(message));
    let done = effects.delivery(group, &operation(ranges.ranges(), HeldBy::Owner(held.owner)))?;
    Ok(format!("OK {}", done.concerned))
}

/// Has a consumer take over what another one has had for so long.
fn claim(
    group: SubscriptionNo,
    name: &str,
    offset: u64,
    min_idle_ms: u32,
    effects: &mut Effects<'_>,
) -> Result<String, DeliveryRefused> {
    let Some(number) = consumer(group, name, effects)? else { return Ok(TOO_MANY.into()) };
    let ranges = RangesBuffer::of(std::iter::once(offset..offset.saturating_add(1)));
    let terms = Terms { owner: MessageOwner::Named(number), timeout_ms: 0, token: 0 };
    let (ranges, attempts) = (ranges.ranges(), AttemptsChange::Add);
    let operation =
        Operation::Transferred { ranges, terms, min_idle_ms, since_ms: None, attempts, force: false };
    Ok(format!("OK {}", effects.delivery(group, &operation)?.concerned))
}

/// Forgets a consumer. What it had is done with.
fn leave(group: SubscriptionNo, name: &str, effects: &mut Effects<'_>) -> Result<String, DeliveryRefused> {
    let view = effects.messages(group).ok_or(DeliveryRefused::Unknown)?;
    let Some(number) = number_of(&view, name) else { return Ok("NIL".into()) };
    effects.delivery(group, &Operation::ConsumerForgotten { number })?;
    Ok("OK".into())
}

/// Lines for the first messages that consumers have, and how many messages are in which state.
pub(crate) fn show(of: PartitionId, name: &str, view: &View<'_>) -> String {
    let Some(group) = view.subscription(of, name) else { return NONE.into() };
    let names: BTreeMap<_, _> = group.consumers().collect();
    let held = group.held(group.offsets()).flat_map(|(messages, held)| messages.map(move |at| (at, held)));
    let mut lines = String::new();
    for (offset, held) in held.take(MOST_SHOWN) {
        let consumer = match held.owner {
            MessageOwner::Named(number) => names.get(&number).copied(),
            _ => None,
        };
        let (consumer, tries) = (consumer.unwrap_or("-"), group.attempts(offset).acquired);
        lines.push_str(&format!("{offset} {consumer} {tries}\n"));
        if lines.len() >= SHOWN_BYTES {
            break;
        }
    }
    let counts = group.counts();
    lines + &format!("OK {} {} {} next {}", counts.ready, counts.in_flight, counts.parked, group.next())
}
