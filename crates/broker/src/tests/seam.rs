//! What is not committed is seen by no reader, and what is cut is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_base::buf::BufPool;
use sabir_base::testing::{keep_log, logged};
use sabir_journal::disk::sim::Op;
use sabir_journal::{Block, BlockBuilder, Replicator};
use sabir_model::{
    AppendError, Durability, GroupError, LeaderEpoch, NodeId, Offset, ReadError, ShardFailure, Term,
};

use super::rig::{append, batch, create, item, pending, read, soon, until, values};
use super::sim::{Machine, Seam};
use crate::entry::{Body, Started};
use crate::shard::{Leading, Shard};
use crate::{Appending, Broker, Caller, OffsetSpec, ReadTarget, Topic};

fn start(broker: &Broker, topic: &Topic, text: &[u8], time: i64) -> Appending {
    let appending = broker.append(vec![item(topic, 0, batch(&[text], time))]);
    broker.flush();
    appending
}

/// Starts an append, and waits until its block is in the journal.
async fn sent(broker: &Broker, topic: &Topic, text: &[u8], time: i64) -> Appending {
    let appending = start(broker, topic, text, time);
    until(|| is_sent(&broker.inner.shards[1])).await;
    appending
}

fn is_sent(shard: &Shard) -> bool {
    shard.waiting_bytes() == 0
        && shard.journal.committed().0 + shard.in_flight() as u64 == shard.journal.last().0
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A broker whose blocks commit when told, with a topic of one partition in shard 1; nothing is under way.
fn told() -> (Machine, Broker, std::sync::Arc<Topic>) {
    let machine = Machine::new(3, 1, Seam::Told);
    let broker = machine.open();
    let topic = machine.freely(|| runtime().block_on(create(&broker, "t", 1)));
    runtime().block_on(machine.settle(&broker));
    (machine, broker, topic)
}

#[test]
fn the_uncommitted_is_seen_by_no_reader_index_or_watch() {
    let (machine, broker, topic) = told();
    let partition = *topic.partition(0).unwrap();
    runtime().block_on(async {
        let mut watch = broker.watch(&[ReadTarget::of(&partition)], 1);
        let mut first = start(&broker, &topic, b"one", 50);
        assert!(pending(&mut first).await);
        assert!(pending(&mut watch).await);
        let fetched = read(&broker, &topic, 0, 0, 1 << 20).await.unwrap();
        assert_eq!((fetched.high_watermark, fetched.slices.len()), (Offset(0), 0));
        let beyond = read(&broker, &topic, 0, 1, 1 << 20).await;
        let (asked, start, end) = (Offset(1), Offset(0), Offset(0));
        assert_eq!(beyond.unwrap_err(), ReadError::OutOfRange { asked, start, end }.into());
        for spec in [OffsetSpec::Timestamp(0), OffsetSpec::MaxTimestamp] {
            let found = broker.offsets(ReadTarget::of(&partition), spec).await.unwrap();
            assert_eq!(found.offset, Offset(-1));
        }
        let latest = broker.offsets(ReadTarget::of(&partition), OffsetSpec::Latest).await.unwrap();
        assert_eq!(latest.offset, Offset(0));

        assert_eq!(machine.committing(first).await.remove(0).unwrap().base_offset, Offset(0));
        soon(watch).await;
        let fetched = read(&broker, &topic, 0, 0, 1 << 20).await.unwrap();
        assert_eq!(values(&fetched), [(0, b"one".to_vec())]);
        let found = broker.offsets(ReadTarget::of(&partition), OffsetSpec::MaxTimestamp).await.unwrap();
        assert_eq!((found.offset, found.timestamp), (Offset(0), 50));
    });
}

#[test]
fn a_cut_tail_is_told_and_leaves_no_trace() {
    let (machine, broker, topic) = told();
    let late = machine.late.lock()[1].clone();
    let partition = *topic.partition(0).unwrap();
    let (before, _) = broker.leadership(partition.shard).unwrap();
    runtime().block_on(async {
        let kept = sent(&broker, &topic, b"kept", 1).await;
        machine.committing(kept).await.remove(0).unwrap();

        let cut = sent(&broker, &topic, b"cut", 2).await;
        let after = late.committed();
        tokio::task::spawn_blocking({
            let late = late.clone();
            move || late.cut(after).unwrap()
        })
        .await
        .unwrap();
        // It goes out in the new term, perhaps before the cut has been heard of.
        let mut open = start(&broker, &topic, b"in the next term", 3);
        assert_eq!(soon(cut).await[0], Err(AppendError::Shard(ShardFailure::NotLeader).into()));
        assert!(pending(&mut open).await, "it was not cut, and is not committed");
        assert_eq!(machine.committing(open).await.remove(0).unwrap().base_offset, Offset(1));

        let fetched = read(&broker, &topic, 0, 0, 1 << 20).await.unwrap();
        assert_eq!(values(&fetched), [(0, b"kept".to_vec()), (1, b"in the next term".to_vec())]);
        let epochs: Vec<_> = fetched.slices.iter().map(|slice| slice.leader_epoch).collect();
        let (now, _) = broker.leadership(partition.shard).unwrap();
        assert!(now > before);
        assert_eq!(epochs, [partition.leader_epoch(before), partition.leader_epoch(now)]);
        let end = |epoch| broker.end_of_epoch(ReadTarget::of(&partition), epoch).unwrap();
        assert_eq!(end(partition.leader_epoch(before)).end_offset, Offset(1));
        assert_eq!(end(partition.leader_epoch(now)).end_offset, Offset(2));
        assert_eq!(end(LeaderEpoch(99)).end_offset, Offset(-1));
    });
}

#[test]
fn who_does_not_lead_takes_nothing() {
    let (machine, broker, topic) = told();
    let late = machine.late.lock()[1].clone();
    runtime().block_on(async {
        late.lead(false).unwrap();
        assert_eq!(
            append(&broker, &topic, 0, batch(&[b"x"], 1)).await,
            Err(AppendError::Shard(ShardFailure::NotLeader).into())
        );
        late.lead(true).unwrap();
        let mut taken = start(&broker, &topic, b"x", 1);
        assert!(pending(&mut taken).await);
        machine.committing(taken).await.remove(0).unwrap();
    });
}

/// A block by which another node says that it leads.
fn led_elsewhere(time_ms: i64) -> Block {
    let (mut builder, mut body) = (BlockBuilder::new(BufPool::new(0)), Vec::new());
    Started { node: NodeId(2), clean: false }.encode(&mut body);
    builder.push(Started::KIND, &body, None, 0, Durability::Sync);
    builder.take(time_ms)
}

#[test]
fn a_node_that_comes_to_lead_goes_on_from_the_time_of_another_leaders_last_block() {
    const HOUR: i64 = 3_600_000;
    let (machine, broker, topic) = told();
    let time = |broker: &Broker| broker.inner.shards[1].state.read().time_ms;
    let write = |machine: &Machine, broker: &Broker, topic: &Topic| {
        machine.freely(|| runtime().block_on(append(broker, topic, 0, batch(&[b"x"], 1)))).unwrap();
    };
    let (late, shard) = (machine.late.lock()[1].clone(), broker.inner.shards[1].clone());
    let ahead = time(&broker) + HOUR;
    late.lead(false).unwrap();
    late.take_in(led_elsewhere(ahead)).unwrap();
    late.lead(true).unwrap();
    write(&machine, &broker, &topic);
    assert_eq!(time(&broker), ahead);
    // What is found in the journal and is not committed counts, too.
    late.lead(false).unwrap();
    late.take_in(led_elsewhere(ahead + HOUR)).unwrap();
    runtime().block_on(until(|| shard.journal.acked() == shard.journal.last()));
    drop((late, shard));
    let machine = machine.crash(broker);
    let broker = machine.open();
    let topic = broker.catalog().topic("t").cloned().unwrap();
    write(&machine, &broker, &topic);
    assert_eq!(time(&broker), ahead + HOUR);
    machine.freely(|| broker.shutdown());
}

/// Told of leadership, and what it was told.
#[derive(Default)]
struct Told(Mutex<Vec<Option<Term>>>);

impl Leading for Told {
    fn led(self: Arc<Self>, term: Term) {
        self.0.lock().push(Some(term));
    }

    fn laid_down(self: Arc<Self>) {
        self.0.lock().push(None);
    }
}

#[test]
fn what_a_leader_does_begins_when_all_before_it_is_applied_and_ends_when_it_follows() {
    let (machine, broker, topic) = told();
    let (late, shard) = (machine.late.lock()[1].clone(), broker.inner.shards[1].clone());
    let part = Arc::new(Told::default());
    let leading: Arc<dyn Leading> = part.clone();
    broker.lead_with(shard.id, &leading);
    let first = late.term();
    assert_eq!(*part.0.lock(), [Some(first)], "it is led already");
    runtime().block_on(async {
        assert_eq!((shard.is_led(), broker.groups(&Caller::OPERATOR).ready()), (true, Ok(())));
        // Committed by the next leader, as far as this one can tell.
        let mut earlier = sent(&broker, &topic, b"earlier", 1).await;
        late.lead(false).unwrap();
        until(|| broker.groups(&Caller::OPERATOR).ready() == Err(GroupError::Shard(ShardFailure::NotLeader)))
            .await;
        assert!(!shard.is_led() && broker.inner.shards[0].is_led());
        late.lead(true).unwrap();
        assert!(pending(&mut earlier).await);
        until(|| shard.in_flight() == 2).await;
        assert_eq!(*part.0.lock(), [Some(first), None], "not before that is applied");
        // What says so is cut, and said again.
        let after = late.committed();
        tokio::task::spawn_blocking({
            let late = late.clone();
            move || late.cut(after).unwrap()
        })
        .await
        .unwrap();
        until(|| {
            late.commit_all();
            broker.groups(&Caller::OPERATOR).ready().is_ok() && part.0.lock().len() > 2
        })
        .await;
        let told = part.0.lock().clone();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[2] > Some(first) && shard.is_led());
        let appended = start(&broker, &topic, b"goes on", 2);
        assert!(machine.committing(appended).await[0].is_ok());
    });
    drop(leading);
    drop(part);
    machine.freely(|| broker.shutdown());
    assert_eq!(broker.groups(&Caller::OPERATOR).ready(), Err(GroupError::Shard(ShardFailure::ShuttingDown)));
}

#[test]
fn a_fragmented_batch_that_was_cut_in_half_is_sent_again() {
    let (machine, broker, topic) = told();
    let late = machine.late.lock()[1].clone();
    let big = vec![5u8; 3 << 20];
    runtime().block_on(async {
        let cut = sent(&broker, &topic, &big, 1).await;
        // Its first chunks are final, the rest is not.
        let after = late.committed().next();
        late.commit(1);
        until(|| broker.stats().shards[1].applied == after).await;
        tokio::task::spawn_blocking({
            let late = late.clone();
            move || late.cut(after).unwrap()
        })
        .await
        .unwrap();
        machine.settle(&broker).await;
        assert_eq!(soon(cut).await[0], Err(AppendError::Shard(ShardFailure::NotLeader).into()));
        assert_eq!(read(&broker, &topic, 0, 0, 1 << 20).await.unwrap().high_watermark, Offset(0));
    });
    let again = machine.freely(|| runtime().block_on(append(&broker, &topic, 0, batch(&[&big], 2))));
    assert_eq!(again.unwrap().base_offset, Offset(0));
    let fetched = runtime().block_on(read(&broker, &topic, 0, 0, 100)).unwrap();
    assert_eq!(values(&fetched), [(0, big)]);
}

#[test]
fn a_disk_that_does_not_answer_is_shown_and_does_not_hold_up_a_stop() {
    let (machine, broker, topic) = told();
    let age = || broker.stats().shards[1].commit_age;
    assert_eq!(age(), Duration::ZERO);
    let asked = start(&broker, &topic, b"x", 1);
    runtime().block_on(until(|| age() >= Duration::from_millis(20)));
    let began = Instant::now();
    broker.shutdown();
    // It does not answer before.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let answered = machine.freely(|| runtime().block_on(soon(asked)));
    assert_eq!(answered.len(), 1);
}

/// Waits until something that happens by itself is so.
fn wait_until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_disk_that_hangs_while_nobody_waits_is_shown_and_holds_up_neither_figures_nor_a_stop() {
    let machine = Machine::new(4, 1, Seam::Solo);
    let broker = machine.open();
    let topic = runtime().block_on(create(&broker, "t", 1));
    runtime().block_on(append(&broker, &topic, 0, batch(&[b"x"], 1))).unwrap();
    let free = broker.stats().shards[1].free_bytes;
    assert!(free.is_some());
    // What comes next is the seal of an idle journal, and a look at the free space.
    machine.disks.iter().for_each(|disk| disk.freeze());
    let figures = || {
        let began = Instant::now();
        let figures = broker.stats().shards.swap_remove(1);
        assert!(began.elapsed() < crate::STALLED / 2, "{:?}", began.elapsed());
        figures
    };
    wait_until(|| figures().disk_wait >= Duration::from_secs(2));
    let shard = figures();
    assert_eq!((shard.commit_age, shard.in_flight, shard.free_bytes), (Duration::ZERO, 0, free));
    // One that has not answered for so long is not waited for.
    wait_until(|| figures().disk_wait >= crate::STALLED);
    let began = Instant::now();
    broker.shutdown();
    assert!(began.elapsed() < crate::STALLED, "{:?}", began.elapsed());
    machine.disks.iter().for_each(|disk| disk.resume());
}

#[test]
fn a_disk_that_hangs_from_the_stop_on_is_waited_for_until_it_counts_as_one_that_does_not_answer() {
    let machine = Machine::new(4, 1, Seam::Solo);
    let broker = machine.open();
    let topic = runtime().block_on(create(&broker, "t", 1));
    runtime().block_on(append(&broker, &topic, 0, batch(&[b"x"], 1))).unwrap();
    machine.disks.iter().for_each(|disk| disk.freeze());
    let began = Instant::now();
    broker.shutdown();
    // It does not answer before.
    assert!(began.elapsed() < crate::STALLED + Duration::from_secs(25), "{:?}", began.elapsed());
    assert!(broker.has_hung_disk());
    machine.disks.iter().for_each(|disk| disk.resume());
}

#[test]
fn a_disk_that_hangs_under_a_reader_alone_is_shown_as_one_that_does_not_answer() {
    keep_log();
    let machine = Machine::new(6, 1, Seam::Solo);
    let broker = machine.open();
    let topic = runtime().block_on(create(&broker, "t", 1));
    runtime().block_on(append(&broker, &topic, 0, batch(&[b"x"], 1))).unwrap();
    // What was there before the start is on the disk alone.
    let machine = machine.crash(broker);
    let broker = machine.open();
    let topic = broker.catalog().topic("t").cloned().unwrap();
    machine.disks[1].stall(Op::Read);
    let wait = || broker.stats().shards[1].disk_wait;
    std::thread::scope(|scope| {
        let reader = scope
            .spawn(|| runtime().block_on(read(&broker, &topic, 0, 0, 1 << 20)).map(|found| values(&found)));
        wait_until(|| wait() >= crate::STALLED);
        assert!(broker.has_hung_disk());
        wait_until(|| !logged(&["WARN", "the disk does not answer", "a read", "shard=1 "]).is_empty());
        machine.disks[1].resume();
        assert_eq!(reader.join().unwrap().unwrap(), [(0, b"x".to_vec())]);
    });
    assert_eq!(wait(), Duration::ZERO);
    broker.shutdown();
}

#[test]
fn a_disk_that_answers_again_is_not_under_way_any_more() {
    let machine = Machine::new(5, 1, Seam::Solo);
    let broker = machine.open();
    let topic = runtime().block_on(create(&broker, "t", 1));
    let wait = || broker.stats().shards[1].disk_wait;
    machine.disks[1].freeze();
    let appending = start(&broker, &topic, b"x", 1);
    wait_until(|| wait() >= Duration::from_millis(50));
    machine.disks[1].resume();
    assert!(runtime().block_on(soon(appending))[0].is_ok());
    wait_until(|| wait() == Duration::ZERO);
    broker.shutdown();
}
