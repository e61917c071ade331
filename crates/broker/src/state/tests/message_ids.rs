//! Queues that drop a message with the id of an earlier one.

use sabir_delivery::subscription::{MessageState, SubscriptionNo};
use sabir_model::DedupLimit;

use super::checkpoints::write_checkpoint;
use super::subscriptions::{limited, queue_settings};
use super::*;

const LIMIT: DedupLimit = DedupLimit { window_ms: 50, most: 300 };

/// A batch of messages with these ids; 0 has none.
fn with_ids(id: u64, ids: &[u64]) -> AppendBody {
    let mut facts = RecordFacts::new();
    for id in ids {
        let message_id = (*id > 0).then(|| id.to_string().into_bytes().into());
        facts.push(Facts { size: 10, message_id, ..Facts::default() }).unwrap();
    }
    AppendBody { facts: Some(Box::new(facts)), partial: true, ..append_to(id, ids.len() as u32) }
}

/// The messages of a queue that are there to be delivered.
fn ready(shard: &Shard, id: u64) -> Vec<u64> {
    let queue = shard.state.subscriptions.get(SubscriptionNo(id)).unwrap();
    (queue.floor()..queue.end()).filter(|at| queue.state(*at) == MessageState::Ready).collect()
}

fn with_queue(dedup: DedupLimit) -> Shard {
    let mut shard = Shard::new();
    shard.state.level = FormatLevel::NEWEST;
    shard.one(&limited(1, |queue| queue.dedup = Some(Box::new(dedup)))).unwrap();
    shard
}

#[test]
fn a_message_with_a_known_id_is_taken_and_never_delivered() {
    let mut shard = with_queue(LIMIT);
    shard.one(&limited(2, |_| {})).unwrap();
    let taken = shard.append(&with_ids(1, &[5, 6, 5, 0, 0, 7, 7, 7])).unwrap();
    assert_eq!((taken.records, ready(&shard, 1)), (8, vec![0, 1, 3, 4, 5]), "in one batch, too");
    shard.append(&with_ids(1, &[7, 8])).unwrap();
    assert_eq!((ready(&shard, 1).last(), shard.state.partitions.counters.repeated), (Some(&9), 4));
    shard.append(&with_ids(2, &[5, 5])).unwrap();
    assert_eq!(ready(&shard, 2), [0, 1], "another queue has not asked for it");
    shard.append(&append_to(1, 2)).unwrap();
    assert_eq!(ready(&shard, 1).len(), 8, "nothing is known of these");
    shard.now += 50;
    shard.append(&with_ids(1, &[5])).unwrap();
    assert_eq!((ready(&shard, 1).len(), shard.state.partitions.message_ids.len()), (9, 1));
}

#[test]
fn what_comes_twice_takes_no_room_in_a_queue_of_limited_length() {
    let mut shard = Shard::new();
    let limits = |queue: &mut crate::entry::QueueSettings| {
        (queue.dedup, queue.max_length, queue.overflow) =
            (Some(Box::new(LIMIT)), Some(2), Overflow::DropHead);
    };
    shard.one(&limited(1, limits)).unwrap();
    shard.append(&with_ids(1, &[1, 2, 1])).unwrap();
    assert_eq!(ready(&shard, 1), [0, 1], "the oldest one is not dropped for it");
    shard.append(&with_ids(1, &[2])).unwrap();
    assert_eq!(ready(&shard, 1), [0, 1]);
    shard.append(&with_ids(1, &[3])).unwrap();
    assert_eq!(ready(&shard, 1), [1, 4]);
    // Messages that were not taken are not remembered.
    let limits = |queue: &mut crate::entry::QueueSettings| queue.overflow = Overflow::Reject;
    shard.one(&limited(9, limits)).unwrap();
    let mut full = limited(3, limits);
    full.settings
        .queue
        .iter_mut()
        .for_each(|queue| (queue.dedup, queue.max_length) = (Some(Box::new(LIMIT)), Some(1)));
    shard.one(&full).unwrap();
    assert_eq!(shard.append(&with_ids(3, &[1, 2])).unwrap().records, 1);
    assert_eq!(shard.append(&with_ids(3, &[2])), Err(AppendError::QueueFull));
}

#[test]
fn ids_go_with_their_queue_and_with_the_setting() {
    let mut shard = with_queue(LIMIT);
    shard.append(&with_ids(1, &[1, 2])).unwrap();
    let settings = PartitionSettings { version: 2, ..queue_settings(2) };
    shard.one(&PartitionsConfigured { settings, partitions: vec![PartitionId(1)] }).unwrap();
    assert!(shard.state.partitions.message_ids.is_empty());
    shard.append(&with_ids(1, &[1, 2])).unwrap();
    assert_eq!(ready(&shard, 1), [0, 1, 2, 3]);
    let mut shard = with_queue(LIMIT);
    shard.append(&with_ids(1, &[1, 2])).unwrap();
    shard.one(&PartitionsDeleted { partitions: vec![PartitionId(1)] }).unwrap();
    assert!(shard.state.partitions.message_ids.is_empty());
}

proptest! {
    /// A state that came from its pages at any moment goes on as the one that was there all the time.
    #[test]
    fn what_is_known_is_the_same_after_a_checkpoint_at_any_moment(
        steps in proptest::collection::vec((proptest::collection::vec(0u64..500, 1..60), 0i64..40, any::<bool>()), 1..40),
    ) {
        let mut shard = with_queue(LIMIT);
        let pages = MemPages::default();
        write_checkpoint(&mut shard.state, &pages);
        let mut restored = ShardState::restore(&pages, known()).unwrap();
        for (ids, passed, checkpoint) in steps {
            shard.now += passed;
            shard.push(&with_ids(1, &ids), Some(b"batch"));
            let (sequence, term, content) = shard.close();
            apply(&mut shard.state, sequence, term, &content);
            apply(&mut restored, sequence, term, &content);
            if checkpoint {
                write_checkpoint(&mut restored, &pages);
                restored = ShardState::restore(&pages, known()).unwrap();
            }
            let len = |state: &ShardState| state.partitions.message_ids.len();
            prop_assert_eq!(len(&restored), len(&shard.state));
            let other = MemPages::default();
            prop_assert_eq!(restored.dump(&pages).unwrap(), shard.state.dump(&other).unwrap());
        }
    }
}
