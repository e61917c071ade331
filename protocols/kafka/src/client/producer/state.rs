//! What a producer holds: batches being filled, waiting and under way. Time comes in; sending is handing a request to a
//! connection, which does not block.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use sabir_model::ProducerId;
use tokio::sync::oneshot;

use super::super::Acks;
use super::{Full, OnDelivery, ProducerOptions, Shared};
use crate::client::batch::{Filling, Numbering, Record};
use crate::client::connection::{BrokerConnection, Handed};
use crate::client::{Error, TopicMetadata};
use crate::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use crate::wire::{Str, Uuid};

/// Buffers kept for further batches.
const SPARE_BUFFERS: usize = 256;
/// An idempotent producer's batches that Kafka remembers per partition, so many may be under way.
const IDEMPOTENT_IN_FLIGHT: usize = 5;

/// Gets a record's offset.
pub(super) type Waiter = oneshot::Sender<Result<i64, Error>>;

pub(super) struct State {
    pub options: ProducerOptions,
    pub identity: Option<(ProducerId, i16)>,
    pub on_delivery: Option<OnDelivery>,
    pub topics: Vec<TopicState>,
    pub nodes: Vec<Node>,
    /// Bytes of records that are not settled.
    pub buffered: usize,
    pub flushing: usize,
    /// Leaders have to be asked for again.
    pub stale: bool,
    /// When the upkeep task looks again by itself.
    pub looks_at: Option<Instant>,
    /// The earliest time at which a batch that is being filled has lingered enough, as far as pushes have shown.
    pub due_at: Option<Instant>,
    /// Connections to be dropped outside the lock: their end calls back into the state.
    pub ended: Vec<Arc<BrokerConnection>>,
    next_request: u64,
    spare: Vec<Vec<u8>>,
    spare_stamps: Vec<Vec<u64>>,
    me: Weak<Shared>,
}

pub(super) struct TopicState {
    pub name: Str,
    pub id: Uuid,
    pub partitions: Vec<Partition>,
    turn: usize,
}

#[derive(Default)]
pub(super) struct Partition {
    /// The leader's place among the nodes.
    pub node: Option<usize>,
    /// Records without a key that were placed here.
    keyless: u64,
    pub open: Option<Open>,
    /// Closed batches in order.
    pub ready: VecDeque<Batch>,
    pub in_flight: usize,
    next_number: u64,
    next_sequence: i32,
    /// Set from a failure that may pass until a success: when to try again, one batch at a time.
    pub retry_at: Option<Instant>,
    /// Numbered batches behind one that failed for good cannot be written any more.
    pub broken: Option<Error>,
}

/// A batch that is being filled.
pub(super) struct Open {
    filling: Filling,
    stamps: Vec<u64>,
    waiters: Vec<(i32, Waiter)>,
    pub since: Instant,
}

/// A batch as it is sent.
pub(super) struct Batch {
    pub bytes: Bytes,
    pub records: i32,
    /// What it counts for in the buffer.
    pub held: usize,
    pub stamps: Vec<u64>,
    pub waiters: Vec<(i32, Waiter)>,
    pub since: Instant,
    /// Its place in the partition's order.
    pub number: u64,
    /// Why it was not written when it was last tried.
    pub failed: Option<Error>,
}

pub(super) struct Node {
    pub id: i32,
    pub connection: Option<Arc<BrokerConnection>>,
    /// Requests without an answer, oldest first.
    pub sent: VecDeque<Sent>,
    /// (topic, partition) of those led here.
    pub partitions: Vec<(usize, usize)>,
    /// Where the next request begins to collect.
    turn: usize,
}

pub(super) struct Sent {
    pub request: u64,
    pub at: Instant,
    pub version: i16,
    pub batches: Vec<((usize, usize), Batch)>,
}

impl TopicState {
    /// `turn` is any number: the partition that a first record without a key goes to follows from it.
    pub fn new(topic: &TopicMetadata, turn: usize) -> Self {
        let partitions: Vec<_> = topic.leaders.iter().map(|_| Partition::default()).collect();
        let turn = turn % partitions.len().max(1);
        Self { name: topic.name.clone(), id: topic.id, partitions, turn }
    }

    /// Stays with a partition while it has a batch being filled. Then comes the one that was given least, however batches fall.
    pub fn next_in_turn(&mut self) -> usize {
        if self.partitions[self.turn].open.is_none() {
            let (count, after) = (self.partitions.len(), self.turn + 1);
            let others = (0..count).map(|i| (after + i) % count);
            self.turn = others.min_by_key(|&i| self.partitions[i].keyless).unwrap_or(0);
        }
        self.partitions[self.turn].keyless += 1;
        self.turn
    }
}

impl Partition {
    /// Whether a batch may be sent: while it recovers from a failure, one at a time.
    fn may_send(&self, now: Instant) -> bool {
        self.broken.is_none() && self.retry_at.is_none_or(|at| at <= now && self.in_flight == 0)
    }

    /// Puts a batch back into its place.
    pub fn requeue(&mut self, batch: Batch, retry_at: Instant) {
        let place = self.ready.partition_point(|b| b.number < batch.number);
        self.ready.insert(place, batch);
        self.retry_at = Some(retry_at);
    }
}

impl State {
    pub fn new(
        options: ProducerOptions,
        identity: Option<(ProducerId, i16)>,
        on_delivery: Option<OnDelivery>,
        me: Weak<Shared>,
    ) -> Self {
        Self {
            options,
            identity,
            on_delivery,
            topics: Vec::new(),
            nodes: Vec::new(),
            buffered: 0,
            flushing: 0,
            stale: false,
            looks_at: None,
            due_at: None,
            ended: Vec::new(),
            next_request: 0,
            spare: Vec::new(),
            spare_stamps: Vec::new(),
            me,
        }
    }

    pub fn partition(&mut self, (topic, partition): (usize, usize)) -> &mut Partition {
        &mut self.topics[topic].partitions[partition]
    }

    /// Takes over where a topic's partitions are led.
    pub fn place_partitions(&mut self, found: &TopicMetadata) {
        let Some(index) = self.topics.iter().position(|t| t.name == found.name) else { return };
        self.topics[index].id = found.id;
        self.nodes.iter_mut().for_each(|node| node.partitions.retain(|&(topic, _)| topic != index));
        for (number, &leader) in found.leaders.iter().enumerate() {
            if number == self.topics[index].partitions.len() {
                self.topics[index].partitions.push(Partition::default());
            }
            let node = (leader >= 0).then(|| self.node_index(leader));
            self.topics[index].partitions[number].node = node;
            if let Some(node) = node {
                self.nodes[node].partitions.push((index, number));
            }
        }
    }

    fn node_index(&mut self, id: i32) -> usize {
        self.nodes.iter().position(|node| node.id == id).unwrap_or_else(|| {
            let node = Node { id, connection: None, sent: VecDeque::new(), partitions: Vec::new(), turn: 0 };
            self.nodes.push(node);
            self.nodes.len() - 1
        })
    }

    pub fn take_connections(&mut self) -> Vec<Arc<BrokerConnection>> {
        let open = self.nodes.iter_mut().filter_map(|node| node.connection.take());
        open.chain(self.ended.drain(..)).collect()
    }

    pub fn push(
        &mut self,
        at: (usize, usize),
        record: &Record<'_>,
        stamp: u64,
        waiter: Option<Waiter>,
        (now, now_ms): (Instant, i64),
    ) -> Result<(), Full> {
        let size = record.size_bound();
        if self.buffered > 0 && self.buffered + size > self.options.buffer_bytes {
            return Err(Full);
        }
        let batch_bytes = self.options.batch_bytes;
        let open = self.partition(at).open.as_ref();
        if open.is_some_and(|open| open.filling.len() + size > batch_bytes) {
            self.close(at);
        }
        if self.partition(at).open.is_none() {
            self.open(at, now);
        }
        let open = self.partition(at).open.as_mut().expect("opened above");
        let before = open.filling.len();
        open.filling.push(record, now_ms);
        open.stamps.push(stamp);
        let index = open.filling.count() - 1;
        open.waiters.extend(waiter.map(|waiter| (index, waiter)));
        let after = open.filling.len();
        self.buffered += after - before;
        // One that has no room for another record like this goes at once, and the next keyless record to the next partition.
        if after + size > batch_bytes {
            self.close(at);
        }
        Ok(())
    }

    fn open(&mut self, at: (usize, usize), now: Instant) {
        let buffer = self.buffer();
        let stamps = self.spare_stamps.pop().unwrap_or_default();
        self.partition(at).open =
            Some(Open { filling: Filling::new(buffer), stamps, waiters: Vec::new(), since: now });
        if self.options.linger.is_zero() {
            // Sent as soon as a connection takes it: no time has to be waited for.
            return;
        }
        let due = now + self.options.linger;
        self.due_at = Some(self.due_at.map_or(due, |at| at.min(due)));
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(self.options.batch_bytes + 128))
    }

    /// Closes the batch that is being filled, numbering it.
    pub fn close(&mut self, at: (usize, usize)) {
        let identity = self.identity;
        let compression = self.options.compression;
        let partition = self.partition(at);
        let Some(open) = partition.open.take() else { return };
        let records = open.filling.count();
        let numbering = identity.map(|(producer, epoch)| Numbering {
            producer,
            epoch,
            base_sequence: partition.next_sequence,
        });
        // Sequence numbers wrap to 0 after the largest.
        partition.next_sequence = partition.next_sequence.wrapping_add(records) & i32::MAX;
        let number = partition.next_number;
        partition.next_number += 1;
        let held = open.filling.len() - sabir_model::batch::HEADER_LEN;
        let (bytes, raw) = open.filling.seal(compression, numbering, || self.buffer());
        self.keep_buffer(raw);
        let batch = Batch {
            bytes,
            records,
            held,
            stamps: open.stamps,
            waiters: open.waiters,
            since: open.since,
            number,
            failed: None,
        };
        self.partition(at).ready.push_back(batch);
    }

    fn keep_buffer(&mut self, buffer: Option<Vec<u8>>) {
        if self.spare.len() < SPARE_BUFFERS {
            self.spare.extend(buffer);
        }
    }

    /// Takes back what a settled batch was made of.
    pub fn recycle(&mut self, bytes: Bytes, mut stamps: Vec<u64>) {
        self.keep_buffer(bytes.try_into_mut().ok().map(Vec::from));
        if self.spare_stamps.len() < SPARE_BUFFERS {
            stamps.clear();
            self.spare_stamps.push(stamps);
        }
    }

    /// Sends what is due, as far as connections take further requests.
    pub fn pump(&mut self, now: Instant) {
        let limit = match self.identity {
            Some(_) => self.options.in_flight.clamp(1, IDEMPOTENT_IN_FLIGHT),
            None => self.options.in_flight.max(1),
        };
        for node in 0..self.nodes.len() {
            while self.nodes[node].sent.len() < limit && self.nodes[node].connection.is_some() {
                let batches = self.collect(node, now);
                if batches.is_empty() || !self.send(node, batches, now) {
                    break;
                }
            }
        }
    }

    /// Whether the partition has something that should go now.
    fn is_due(&self, (topic, partition): (usize, usize), now: Instant) -> bool {
        let partition = &self.topics[topic].partitions[partition];
        let lingered = |open: &Open| self.flushing > 0 || open.since + self.options.linger <= now;
        partition.may_send(now)
            && (!partition.ready.is_empty() || partition.open.as_ref().is_some_and(lingered))
    }

    /// Whether the partition has something that may as well go along with what should.
    fn is_worth_it(&self, at: (usize, usize), now: Instant) -> bool {
        if self.is_due(at, now) {
            return true;
        }
        let partition = &self.topics[at.0].partitions[at.1];
        let half_full = |open: &Open| {
            open.filling.len() >= self.options.batch_bytes / 2 || open.since + self.options.linger / 2 <= now
        };
        partition.may_send(now) && partition.open.as_ref().is_some_and(half_full)
    }

    /// One batch of each partition that is due, until the request is large enough.
    fn collect(&mut self, node: usize, now: Instant) -> Vec<((usize, usize), Batch)> {
        let partitions = std::mem::take(&mut self.nodes[node].partitions);
        let count = partitions.len();
        let first = self.nodes[node].turn;
        let in_turn = |i: usize| partitions[(first + i) % count];
        let mut batches = Vec::new();
        if (0..count).any(|i| self.is_due(in_turn(i), now)) {
            let mut bytes = 0;
            for i in 0..count {
                if bytes >= self.options.request_bytes {
                    // The next request begins with what this one had no room for.
                    self.nodes[node].turn = (first + i) % count;
                    break;
                }
                if self.is_worth_it(in_turn(i), now)
                    && let Some(batch) = self.take(in_turn(i))
                {
                    bytes += batch.bytes.len();
                    batches.push((in_turn(i), batch));
                }
            }
        }
        self.nodes[node].partitions = partitions;
        batches
    }

    fn take(&mut self, at: (usize, usize)) -> Option<Batch> {
        if self.partition(at).ready.is_empty() {
            self.close(at);
        }
        let partition = self.partition(at);
        let batch = partition.ready.pop_front()?;
        partition.in_flight += 1;
        Some(batch)
    }

    /// Hands a request to the node's connection; `false` if that has ended.
    fn send(&mut self, node: usize, batches: Vec<((usize, usize), Batch)>, now: Instant) -> bool {
        let Some(connection) = self.nodes[node].connection.clone() else { return false };
        let request = self.next_request;
        self.next_request += 1;
        let version = connection.versions().of::<ProduceRequest>();
        let me = self.me.clone();
        let done = Box::new(move |frame| {
            if let Some(shared) = me.upgrade() {
                shared.answered(node, request, frame);
            }
        });
        let acks = self.acks();
        let handed = version.and_then(|version| {
            let body = self.request(&batches, version);
            self.nodes[node].sent.push_back(Sent { request, at: now, version, batches: Vec::new() });
            connection.send(version, &body, done, acks != 0)
        });
        match handed {
            Ok(Handed::CalledBack) => {
                if let Some(sent) = self.nodes[node].sent.back_mut() {
                    sent.batches = batches;
                }
                true
            }
            Ok(Handed::Written) => {
                self.nodes[node].sent.pop_back();
                self.settle(batches.into_iter().map(|(at, batch)| (at, batch, Ok(-1))).collect(), now);
                true
            }
            Err(error) => {
                self.nodes[node].sent.retain(|sent| sent.request != request);
                self.lost(node);
                self.settle(
                    batches.into_iter().map(|(at, batch)| (at, batch, Err(error.clone()))).collect(),
                    now,
                );
                false
            }
        }
    }

    fn acks(&self) -> i16 {
        match self.options.acks {
            _ if self.identity.is_some() => -1,
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }

    fn request(&self, batches: &[((usize, usize), Batch)], version: i16) -> ProduceRequest {
        let mut topic_data: Vec<TopicProduceData> = Vec::new();
        let mut last = usize::MAX;
        for ((topic, partition), batch) in batches {
            if *topic != last {
                last = *topic;
                let TopicState { name, id, .. } = &self.topics[*topic];
                let name = if version < 13 { name.clone() } else { Str::default() };
                topic_data.push(TopicProduceData { name, topic_id: *id, ..Default::default() });
            }
            if let Some(topic) = topic_data.last_mut() {
                let records = Some(batch.bytes.clone());
                topic.partition_data.push(PartitionProduceData { index: *partition as i32, records });
            }
        }
        ProduceRequest {
            transactional_id: None,
            acks: self.acks(),
            timeout_ms: self.options.request_timeout.as_millis() as i32,
            topic_data,
        }
    }

    /// The node's connection has ended: the upkeep task opens another.
    pub fn lost(&mut self, node: usize) {
        self.stale = true;
        self.ended.extend(self.nodes[node].connection.take());
    }

    /// Whether the upkeep task must look sooner than it means to.
    pub fn wants_upkeep(&self) -> bool {
        let late = |due: Instant| self.looks_at.is_none_or(|at| due < at);
        self.stale || self.due_at.is_some_and(late)
    }
}
