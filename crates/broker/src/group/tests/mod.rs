//! The driver over a shard of its own: a list of entries that commit when told.

mod flow;
mod memory;
mod replay;
mod upkeep;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use sabir_base::clock::{Clock, ManualClock};
use sabir_base::wake::WakeBatch;
use sabir_model::{ErrorAbout, LeaderEpoch, Offset, TopicId};

use super::*;

const START: i64 = 1_700_000_000_000;

/// A committed entry: its kind, its body, its block's time.
type Logged = (u16, Vec<u8>, i64);

/// A shard whose blocks hold one entry each.
struct FakeShard {
    clock: Arc<ManualClock>,
    state: Mutex<FakeState>,
}

struct FakeState {
    table: GroupTable,
    log: Vec<Logged>,
    waiting: VecDeque<(u16, Vec<u8>, GroupWaiter)>,
    /// Whether a flush commits at once.
    prompt: bool,
    refuses: Option<ShardFailure>,
}

impl FakeShard {
    fn new(clock: Arc<ManualClock>, table: GroupTable) -> Arc<Self> {
        let state = FakeState { table, log: vec![], waiting: VecDeque::new(), prompt: true, refuses: None };
        Arc::new(Self { clock, state: Mutex::new(state) })
    }

    /// Commits and applies the first entry that waits.
    fn commit_one(&self) -> bool {
        let mut state = self.state.lock();
        let Some((kind, body, waiter)) = state.waiting.pop_front() else { return false };
        let time_ms = self.clock.now_ms();
        let outcome = state.table.apply_entry(kind, &body, time_ms).unwrap();
        state.log.push((kind, body, time_ms));
        drop(state);
        self.complete(waiter, outcome);
        true
    }

    fn commit(&self) {
        while self.commit_one() {}
    }

    /// Drops what is not committed.
    fn cut(&self, failure: ShardFailure) {
        self.cut_first(usize::MAX, failure);
    }

    /// Drops the first of what is not committed; the rest stood in the open block and goes on.
    fn cut_first(&self, entries: usize, failure: ShardFailure) {
        let mut state = self.state.lock();
        let entries = entries.min(state.waiting.len());
        let cut: Vec<_> = state.waiting.drain(..entries).collect();
        drop(state);
        for (_, _, waiter) in cut {
            self.complete(waiter, Err(failure.into()));
        }
    }

    fn complete(&self, waiter: GroupWaiter, outcome: Result<(), GroupError>) {
        let mut wakes = WakeBatch::default();
        waiter.complete(outcome, &mut wakes);
        wakes.deliver();
    }

    fn log_len(&self) -> usize {
        self.state.lock().log.len()
    }
}

impl GroupShard for FakeShard {
    fn propose(
        &self,
        kind: u16,
        body: &[u8],
        waiter: GroupWaiter,
    ) -> Result<(), (ShardFailure, GroupWaiter)> {
        let mut state = self.state.lock();
        match state.refuses {
            Some(error) => Err((error, waiter)),
            None => {
                state.waiting.push_back((kind, body.to_vec(), waiter));
                Ok(())
            }
        }
    }

    fn propose_together(&self, kind: u16, entries: Vec<(Vec<u8>, GroupWaiter)>) -> Result<(), ShardFailure> {
        let mut state = self.state.lock();
        match state.refuses {
            Some(error) => Err(error),
            None => {
                state.waiting.extend(entries.into_iter().map(|(body, waiter)| (kind, body, waiter)));
                Ok(())
            }
        }
    }

    fn level(&self) -> FormatLevel {
        FormatLevel::NEWEST
    }

    fn read_groups(&self, read: &mut dyn FnMut(&GroupTable)) {
        read(&self.state.lock().table);
    }

    fn flush(&self) {
        if self.state.lock().prompt {
            self.commit();
        }
    }
}

struct Rig {
    clock: Arc<ManualClock>,
    shard: Arc<FakeShard>,
    groups: Groups,
    options: GroupOptions,
}

impl Rig {
    fn new() -> Self {
        Self::with(GroupOptions::default())
    }

    fn with(mut options: GroupOptions) -> Self {
        options.limits.initial_rebalance_delay_ms = 0;
        let clock = Arc::new(ManualClock::at(START));
        Self::on(FakeShard::new(clock.clone(), GroupTable::new()), clock, options)
    }

    fn on(shard: Arc<FakeShard>, clock: Arc<ManualClock>, options: GroupOptions) -> Self {
        let groups = Groups::new(shard.clone(), options.clone(), clock.clone());
        groups.lead();
        Self { clock, shard, groups, options }
    }

    /// The broker starts anew on what was applied.
    fn restart(&mut self) {
        self.shard.state.lock().waiting.clear();
        let groups = Groups::new(self.shard.clone(), self.options.clone(), self.clock.clone());
        groups.lead();
        self.groups = groups;
    }

    fn prompt(&self, prompt: bool) {
        self.shard.state.lock().prompt = prompt;
    }

    fn pass(&self, ms: i64) {
        for _ in 0..ms / 500 {
            self.clock.advance(500);
            self.groups.tick();
        }
        self.clock.advance(ms % 500);
        self.groups.tick();
    }

    fn join(&self, group: &str, client: &Client1) -> Reply<Result<Joined, JoinRefusal>> {
        self.groups.join(group, client.request())
    }

    /// Joins an empty group as its only member and brings it to rest.
    fn settle_alone(&self, group: &str, client: &mut Client1) {
        let joined = now(&mut self.join(group, client)).expect("nobody else is waited for").unwrap();
        client.take(&joined);
        let synced = now(&mut self.sync(group, client, &[(client, "all")])).expect("it leads").unwrap();
        assert_eq!(synced.assignment, "all");
    }

    fn sync(
        &self,
        group: &str,
        client: &Client1,
        plan: &[(&Client1, &'static str)],
    ) -> Reply<Result<Synced, ErrorAbout<GroupError>>> {
        let assignments =
            plan.iter().map(|(c, what)| (c.member.clone(), Bytes::from_static(what.as_bytes()))).collect();
        let fence = client.fence();
        self.groups.sync(group, SyncRequest { fence, protocol_type: None, protocol: None, assignments })
    }

    fn commit_offset(&self, group: &str, fence: Fence, offset: i64) -> Committing {
        self.groups.commit(group, fence, vec![at(1, 0, offset)])
    }
}

fn at(topic: u8, partition: i32, offset: i64) -> OffsetCommit {
    OffsetCommit {
        topic: TopicId([topic; 16]),
        partition,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(-1),
        metadata: Text::from(""),
    }
}

fn outside() -> Fence {
    Fence { generation: -1, member: Text::from(""), instance: None }
}

/// What a future has to say at this moment.
fn now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// A client of a group.
#[derive(Debug, Clone)]
struct Client1 {
    member: Text,
    instance: Option<Text>,
    generation: i32,
    metadata: &'static [u8],
}

fn client() -> Client1 {
    Client1 { member: Text::from(""), instance: None, generation: -1, metadata: b"topics" }
}

impl Client1 {
    fn request(&self) -> JoinRequest {
        JoinRequest {
            member: self.member.clone(),
            instance: self.instance.clone(),
            client: ClientIdentity { id: Text::from("app"), host: Text::from("127.0.0.1") },
            connection: 0,
            protocol_type: Text::from("consumer"),
            protocols: vec![GroupProtocol {
                name: Text::from("range"),
                metadata: Bytes::from_static(self.metadata),
            }],
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 30_000,
            id_required: false,
            may_skip_assignment: true,
        }
    }

    fn fence(&self) -> Fence {
        Fence { generation: self.generation, member: self.member.clone(), instance: self.instance.clone() }
    }

    fn take(&mut self, joined: &Joined) {
        self.member = joined.member.clone();
        self.generation = joined.generation;
    }
}
