//! Idempotent producers in bounded number, whichever clients make ids up.

use sabir_model::{AppendError, ErrorAbout};

use super::rig::{append, create, open, options, produced, until};
use crate::{Appended, Broker, BrokerOptions, Topic};

async fn send(
    broker: &Broker,
    topic: &Topic,
    partition: i32,
    producer: i64,
    sequence: i32,
) -> Result<Appended, ErrorAbout<AppendError>> {
    append(broker, topic, partition, produced(&[b"x"], producer, 0, sequence)).await
}

fn known(broker: &Broker) -> u64 {
    broker.stats().shards.iter().map(|shard| shard.producers).sum()
}

#[tokio::test]
async fn made_up_ids_are_forgotten_and_a_producer_at_work_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let bounded = BrokerOptions { partition_producers_max: 50, ..options(dir.path()) };
    let broker = open(bounded.clone());
    let topic = create(&broker, "t", 2).await;
    for sequence in 0..3 {
        send(&broker, &topic, 0, 7, sequence).await.unwrap();
    }
    // Another partition's producers are its own.
    send(&broker, &topic, 1, 7, 0).await.unwrap();
    for id in 1000..2000 {
        send(&broker, &topic, 0, id, 5).await.unwrap();
        if id % 200 == 0 {
            until(|| known(&broker) <= 51).await;
        }
    }
    until(|| known(&broker) <= 51).await;
    assert!(broker.stats().shards[1].crowded_out >= 950, "{:?}", broker.stats().shards[1].crowded_out);
    let again = send(&broker, &topic, 0, 7, 2).await.unwrap();
    assert!(again.duplicate, "its last batch is known");
    assert!(send(&broker, &topic, 1, 7, 0).await.unwrap().duplicate);
    assert_eq!(
        send(&broker, &topic, 0, 7, 9).await,
        Err(AppendError::OutOfOrderSequence { expected: 3, got: 9 }.into())
    );
    // Of one that was forgotten any sequence is the next, as of a new one.
    assert!(!send(&broker, &topic, 0, 1000, 99).await.unwrap().duplicate);
    broker.shutdown();
    drop(broker);

    // Larger bounds do not bring back what was forgotten, nor does a replay.
    let broker = open(options(dir.path()));
    let left = known(&broker);
    assert!(left <= 52, "{left}");
    assert!(send(&broker, &topic, 0, 7, 2).await.unwrap().duplicate);
    assert!(!send(&broker, &topic, 0, 1001, 99).await.unwrap().duplicate);
    broker.shutdown();
    drop(broker);

    // Smaller ones are kept to from the start.
    let broker = open(BrokerOptions { partition_producers_max: 10, ..options(dir.path()) });
    until(|| known(&broker) <= 11).await;
    assert!(send(&broker, &topic, 0, 7, 2).await.unwrap().duplicate);
    broker.shutdown();
}

#[tokio::test]
async fn of_those_that_came_back_the_ones_silent_for_longest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let topic = create(&broker, "t", 1).await;
    for id in 0..100 {
        send(&broker, &topic, 0, id, 0).await.unwrap();
        send(&broker, &topic, 0, id, 1).await.unwrap();
    }
    send(&broker, &topic, 0, 500, 0).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    for id in 50..100 {
        send(&broker, &topic, 0, id, 2).await.unwrap();
    }
    broker.shutdown();
    drop(broker);
    let broker = open(BrokerOptions { partition_producers_max: 60, ..options(dir.path()) });
    until(|| known(&broker) <= 60).await;
    for id in 50..100 {
        assert!(send(&broker, &topic, 0, id, 2).await.unwrap().duplicate, "{id}");
    }
    assert!(!send(&broker, &topic, 0, 500, 0).await.unwrap().duplicate, "it came once");
    broker.shutdown();
}

#[tokio::test]
async fn the_nodes_bound_is_kept_over_shards_and_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let bounded = BrokerOptions { producers_max: 200, data_shards: 2, ..options(dir.path()) };
    let broker = open(bounded);
    let topic = create(&broker, "t", 8).await;
    for partition in 0..8 {
        for sequence in 0..2 {
            send(&broker, &topic, partition, 7, sequence).await.unwrap();
        }
    }
    for id in 1000..1500 {
        send(&broker, &topic, (id % 8) as i32, id, 0).await.unwrap();
    }
    until(|| known(&broker) <= 200).await;
    assert!(known(&broker) > 100, "{}: no more than needed", known(&broker));
    for partition in 0..8 {
        assert!(send(&broker, &topic, partition, 7, 1).await.unwrap().duplicate, "{partition}");
    }
    broker.shutdown();
}
