//! Dead letters where entries are applied: what waits, and that it is published and settled once.

use std::ops::Range;

use sabir_delivery::policy::DeathReason;
use sabir_delivery::subscription::{MessageOwner, Operation, SubscriptionNo, Terms};

use super::subscriptions::{NO, body, limited, one_range, queue_created};
use super::*;
use crate::entry::{DeadLettered, DeadLetters, DeliveryOutcome, PublishedLetters};
use crate::state::TouchedMessages;

/// Two queues, of which the first refuses more than two messages and has its dead letters published.
fn shard() -> Shard {
    let mut shard = Shard::new();
    let refuses = limited(1, |queue| {
        (queue.max_length, queue.overflow) = (Some(2), Overflow::RejectAndDeadLetter);
        queue.dead_letters = true;
    });
    shard.one(&refuses).unwrap();
    shard.one(&queue_created(2)).unwrap();
    shard
}

fn letter(first: u64, count: u32) -> DeadLetters {
    let targets = vec![PartitionId(2), PartitionId(9)];
    let published = PublishedLetters { targets, max_ts: 5, origin: FrontendNo(1), len: 5, facts: None };
    let reason = DeathReason::QueueLength;
    DeadLetters { queue: SubscriptionNo(1), first, count, reason, published: Some(published), stay: false }
}

fn dead_letter(shard: &mut Shard, letters: Vec<DeadLetters>) -> u64 {
    let payload = b"batch".repeat(letters.len());
    shard.push(&DeadLettered { letters }, Some(&payload));
    let outcome: Result<DeliveryOutcome, crate::entry::DeliveryError> =
        EntryOutcome::of(shard.apply().remove(0));
    outcome.unwrap().concerned
}

fn waiting(shard: &Shard) -> Vec<Range<u64>> {
    let queue = shard.state.subscriptions.get(NO).unwrap();
    queue.dead_letters().map(|(messages, _)| messages).collect()
}

#[test]
fn what_a_queue_refuses_waits_there_to_be_published_elsewhere() {
    let mut shard = shard();
    let partial = AppendBody { partial: true, origin: FrontendNo(1), ..append_to(1, 4) };
    assert_eq!(shard.append(&partial).unwrap().records, 2);
    assert_eq!(shard.append(&append_to(1, 1)), Err(AppendError::QueueFull));
    assert_eq!(waiting(&shard), [2..4, 4..5]);
    let owner = MessageOwner::DeadLetter(DeathReason::QueueLength);
    let told = TouchedMessages::Acquired { subscription: NO, messages: 4..5, owner, deadline_ms: None };
    assert_eq!(shard.state.subscriptions.touched.last(), Some(&told));
    let queue = shard.state.subscriptions.get(NO).unwrap();
    assert_eq!((queue.backlog().messages, queue.end()), (2, 5));
    assert_eq!(shard.state.partitions.counters.refused, 1);
}

#[test]
fn dead_letters_are_published_and_settled_once_and_together() {
    let mut shard = shard();
    let partial = AppendBody { partial: true, origin: FrontendNo(1), ..append_to(1, 6) };
    shard.append(&partial).unwrap();
    let end = |shard: &Shard| shard.state.partition(PartitionId(2)).unwrap().next.0;
    assert_eq!(dead_letter(&mut shard, vec![letter(1, 2)]), 0, "one of them is ready");
    assert_eq!(end(&shard), 0);
    assert_eq!(dead_letter(&mut shard, vec![letter(2, 1), letter(4, 2), letter(2, 1)]), 3);
    assert_eq!((end(&shard), waiting(&shard).first()), (3, Some(&(3..4))));
    assert_eq!(shard.state.partitions.counters.dead_letters_refused, 3, "there is no queue 9");
    let dropped = DeadLetters { published: None, ..letter(3, 1) };
    assert_eq!(dead_letter(&mut shard, vec![dropped]), 1);
    assert_eq!((end(&shard), waiting(&shard)), (3, vec![]));
    // A batch that the payload does not have is no entry of this version.
    shard.push(&DeadLettered { letters: vec![letter(0, 1)] }, Some(b"bat"));
    let (sequence, term, content) = shard.close();
    let failed = shard.state.apply_block(sequence, term, &content, &locate, &mut |_, _, _| {});
    assert!(failed.unwrap_err().to_string().contains("length of a batch"));
}

/// Of what goes back to the queue that gave it up the front is done with that this takes, and the others are ready again.
#[test]
fn what_goes_back_is_settled_as_far_as_it_is_taken() {
    let mut shard = Shard::new();
    shard.one(&queue_created(1)).unwrap();
    let short = |overflow| {
        limited(2, move |queue| {
            (queue.max_length, queue.overflow, queue.dead_letters) = (Some(2), overflow, true);
        })
    };
    shard.one(&short(Overflow::Reject)).unwrap();
    shard.append(&append_to(1, 5)).unwrap();
    let owner = MessageOwner::DeadLetter(DeathReason::Redriven);
    let (ranges, terms) = (one_range(0..5), Terms { owner, timeout_ms: 0, token: 0 });
    let acquired = Operation::Acquired { ranges: ranges.ranges(), terms };
    shard.push_delivery(&body(false, &[(1, acquired)]));
    shard.apply();
    assert_eq!(waiting(&shard), [0..5; 1]);
    let back = |first, count| {
        let letter = letter(first, count);
        let published = letter.published.map(|all| PublishedLetters { targets: vec![PartitionId(2)], ..all });
        DeadLetters { reason: DeathReason::Redriven, published, ..letter }
    };
    let figures = |shard: &Shard| {
        let counters = shard.state.partitions.counters;
        (counters.redriven, counters.redrives_refused, counters.dead_letters_refused)
    };
    let queue = |shard: &Shard| {
        let queue = shard.state.subscriptions.get(NO).unwrap();
        (queue.floor(), queue.next_ready(0), queue.backlog().messages)
    };
    assert_eq!(dead_letter(&mut shard, vec![back(0, 3)]), 3);
    assert_eq!((figures(&shard), queue(&shard)), ((2, 1, 0), (2, Some(2), 1)));
    let stays = DeadLetters { published: None, stay: true, ..back(3, 1) };
    assert_eq!(dead_letter(&mut shard, vec![back(2, 1), stays]), 1, "that one is ready");
    assert_eq!((figures(&shard), queue(&shard)), ((2, 2, 0), (2, Some(2), 2)));
    // It went elsewhere before.
    let gone = DeadLetters { published: None, ..back(4, 1) };
    assert_eq!(dead_letter(&mut shard, vec![gone]), 1);
    assert_eq!((figures(&shard), waiting(&shard)), ((3, 2, 0), vec![]));
    assert_eq!(shard.state.partition(PartitionId(2)).unwrap().next.0, 2);
}
