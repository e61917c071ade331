//! Entries of front ends that are answered by entries behind them.

use bytes::Bytes;
use sabir_journal::Replicator;
use sabir_model::{ShardFailure, ShardId};

use super::registers::{REGISTERS, answer, set, wait};
use super::rig::{pending, soon, until};
use super::sim::{Machine, Seam};
use crate::{Broker, Caller, ProjectionEntry, Reply};

type Answer = Reply<Result<Bytes, ShardFailure>>;

fn machine(shards: usize, seam: Seam) -> Machine {
    Machine { projections: vec![REGISTERS], ..Machine::new(12, shards, seam) }
}

fn write(broker: &Broker, shard: u32, command: Bytes) -> Answer {
    let number = broker.projection("registers").unwrap();
    let (_, answer) = broker
        .write(&Caller::front_end("registers"), ShardId(shard), number, &ProjectionEntry::new(command))
        .unwrap();
    broker.flush();
    answer
}

async fn ask(broker: &Broker, shard: u32, command: Bytes) -> Bytes {
    soon(write(broker, shard, command)).await.unwrap()
}

async fn waits_and_is_answered(shards: usize) {
    let machine = machine(shards, Seam::Solo);
    let broker = machine.open();
    for shard in 1..=shards as u32 {
        let (mut one, mut two) = (write(&broker, shard, wait("one")), write(&broker, shard, wait("two")));
        assert_eq!(ask(&broker, shard, set("k", b"v")).await, "");
        assert!(pending(&mut one).await && pending(&mut two).await, "others are answered meanwhile");
        assert_eq!(ask(&broker, shard, answer("two", b"2")).await, "answered");
        assert_eq!(soon(two).await.unwrap(), "2");
        assert!(pending(&mut one).await);
        // In one block with what it answers.
        let (three, answered) =
            (write(&broker, shard, wait("three")), write(&broker, shard, answer("three", b"3")));
        assert_eq!(
            (soon(three).await.unwrap(), soon(answered).await.unwrap()),
            ("3".into(), "answered".into())
        );
        assert_eq!(ask(&broker, shard, answer("one", b"1")).await, "answered");
        assert_eq!(soon(one).await.unwrap(), "1");
        assert_eq!(ask(&broker, shard, answer("one", b"1")).await, "nothing waits");
    }
    machine.agrees_with_replay(&broker);
    broker.shutdown();
}

#[tokio::test]
async fn an_entry_is_answered_by_one_behind_it_with_one_data_shard() {
    waits_and_is_answered(1).await;
}

#[tokio::test]
async fn an_entry_is_answered_by_one_behind_it_with_three_data_shards() {
    waits_and_is_answered(3).await;
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_node_goes_down_and_is_not_waited_for_by_the_next_run() {
    let machine = machine(1, Seam::Solo);
    let broker = machine.open();
    let waits = write(&broker, 1, wait("k"));
    ask(&broker, 1, set("k", b"v")).await;
    broker.shutdown();
    assert_eq!(soon(waits).await, Err(ShardFailure::ShuttingDown));
    drop(broker);
    let broker = machine.open();
    assert_eq!(ask(&broker, 1, answer("k", b"1")).await, "too late");
    let machine = machine.crash(broker);
    let broker = machine.open();
    assert_eq!(ask(&broker, 1, answer("k", b"1")).await, "nothing waits");
    machine.agrees_with_replay(&broker);
    broker.shutdown();
}

#[tokio::test]
async fn whoever_waits_is_told_when_another_term_begins() {
    let machine = machine(1, Seam::Told);
    let broker = machine.open();
    let late = machine.late.lock()[1].clone();
    let shard = broker.inner.shards[1].clone();
    let mut waits = write(&broker, 1, wait("k"));
    until(|| {
        machine.commit_all();
        shard.in_flight() == 0 && shard.waiting_bytes() == 0
    })
    .await;
    assert!(pending(&mut waits).await);
    let cut = write(&broker, 1, answer("k", b"lost"));
    until(|| shard.in_flight() == 1).await;
    let after = late.committed();
    tokio::task::spawn_blocking(move || late.cut(after).unwrap()).await.unwrap();
    assert_eq!(soon(cut).await, Err(ShardFailure::NotLeader));
    until(|| {
        machine.commit_all();
        shard.in_flight() == 0 && shard.waiting_bytes() == 0
    })
    .await;
    assert_eq!(soon(waits).await, Err(ShardFailure::NotLeader));
    let answered = write(&broker, 1, answer("k", b"1"));
    until(|| {
        machine.commit_all();
        shard.in_flight() == 0 && shard.waiting_bytes() == 0
    })
    .await;
    assert_eq!(soon(answered).await.unwrap(), "too late");
    machine.freely(|| broker.shutdown());
}

#[tokio::test]
async fn those_that_do_not_wait_any_more_take_no_memory() {
    let machine = machine(1, Seam::Solo);
    let broker = machine.open();
    let waits = write(&broker, 1, wait("kept"));
    for number in 0..1000 {
        drop(write(&broker, 1, wait(&number.to_string())));
    }
    ask(&broker, 1, set("k", b"v")).await;
    assert!(broker.inner.shards[1].waiting_answers() < 200, "{}", broker.inner.shards[1].waiting_answers());
    assert_eq!(ask(&broker, 1, answer("kept", b"1")).await, "answered");
    assert_eq!(soon(waits).await.unwrap(), "1");
    broker.shutdown();
}
