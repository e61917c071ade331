//! Subscriptions of queues: what entries do to them and to their partitions, against a naive model, over checkpoints and restarts.

use std::collections::BTreeMap;
use std::ops::Range;

use sabir_delivery::subscription::{
    HeldBy, MessageOwner, MessageState, Operation, OperationsWriter, RangesBuffer, Settlement, Subscription,
    SubscriptionNo, Terms,
};
use sabir_journal::pages::Budget;

use super::*;
use crate::entry::{DeliveryBody, DeliveryError, DeliveryOutcome, QueueSettings};
use crate::partition::RunKind;
use crate::projection::Projection;
use crate::state::TouchedMessages;

/// The settings of a queue without limits.
pub(super) fn queue_settings(version: u64) -> PartitionSettings {
    let (max_length, max_length_bytes, overflow, dead_letters) = (None, None, Overflow::DropHead, false);
    let queue = QueueSettings {
        max_length,
        max_length_bytes,
        overflow,
        dead_letters,
        max_priority: None,
        delays: false,
        message_ttl_ms: None,
        delivery_limit: None,
        retry: None,
        dedup: None,
    };
    PartitionSettings { queue: Some(queue), ..settings(version) }
}

pub(super) fn queue_created(id: u64) -> PartitionsCreated {
    PartitionsCreated { settings: queue_settings(1), ..created(&[id]) }
}

pub(super) fn limited(id: u64, change: impl FnMut(&mut QueueSettings)) -> PartitionsCreated {
    let mut settings = queue_settings(1);
    settings.queue.iter_mut().for_each(change);
    PartitionsCreated { settings, ..created(&[id]) }
}

pub(super) fn body(strict: bool, operations: &[(u64, Operation<'_>)]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = OperationsWriter::new(&mut body, strict);
    operations.iter().for_each(|(id, operation)| writer.push(SubscriptionNo(*id), operation));
    body
}

pub(super) fn one_range(messages: Range<u64>) -> RangesBuffer {
    RangesBuffer::of(std::iter::once(messages))
}

pub(super) const NO: SubscriptionNo = SubscriptionNo(1);

pub(super) fn session(number: u64) -> Terms {
    Terms { owner: MessageOwner::Session(number), timeout_ms: 0, token: 0 }
}

impl Shard {
    fn with_queue() -> Self {
        let mut shard = Self::new();
        shard.one(&queue_created(1)).unwrap();
        shard
    }

    pub(super) fn push_delivery(&mut self, body: &[u8]) {
        self.builder.push(DeliveryBody::KIND, body, None, 0, Durability::Sync);
    }

    fn deliver(
        &mut self,
        strict: bool,
        operations: &[(u64, Operation<'_>)],
    ) -> Result<DeliveryOutcome, DeliveryError> {
        self.push_delivery(&body(strict, operations));
        EntryOutcome::of(self.apply().remove(0))
    }

    fn acquire(&mut self, messages: Range<u64>, to: u64) -> u64 {
        let ranges = one_range(messages);
        let acquired = Operation::Acquired { ranges: ranges.ranges(), terms: session(to) };
        self.deliver(false, &[(1, acquired)]).unwrap().concerned
    }

    fn settle(&mut self, messages: Range<u64>, of: u64) -> u64 {
        let ranges = one_range(messages);
        let held_by = HeldBy::Owner(MessageOwner::Session(of));
        let settled = Operation::Settled { ranges: ranges.ranges(), held_by, why: Settlement::Acknowledged };
        self.deliver(false, &[(1, settled)]).unwrap().concerned
    }

    fn queue(&self) -> &Subscription {
        self.state.subscriptions.get(NO).unwrap()
    }
}

#[test]
fn an_entry_of_deliveries_has_its_stored_form() {
    let ranges = RangesBuffer::of([5..8, 300..301]);
    let ranges = ranges.ranges();
    let held_by = HeldBy::Owner(MessageOwner::Session(9));
    let settled = Operation::Settled { ranges, held_by, why: Settlement::Acknowledged };
    let stored = body(true, &[(7, Operation::Acquired { ranges, terms: session(9) }), (7, settled)]);
    let list = [2, 5, 2, 0xa4, 2, 0];
    let golden = [&[1, 1, 2, 7][..], &list, &[0, 9, 0, 0, 0x85], &list, &[1, 0, 9, 0]].concat();
    assert_eq!(stored, golden);
    assert_eq!(DeliveryBody::KIND, 60);
    let body = DeliveryBody::decode(&golden).unwrap();
    assert!(body.0.strict && body.0.iter().all(|(number, _)| number == SubscriptionNo(7)));
    assert!(DeliveryBody::decode(&[2, 0]).is_err(), "a newer form");
    // None of the other kinds is known yet.
    let mut shard = Shard::with_queue();
    shard.builder.push(69, &golden, None, 0, Durability::Sync);
    let (sequence, term, content) = shard.close();
    let error = shard.state.apply_block(sequence, term, &content, &locate, &mut |_, _, _| {}).unwrap_err();
    assert!(error.to_string().contains("entry 0 has kind 69"), "{error}");
}

#[test]
fn what_is_appended_is_ready_and_what_is_settled_is_let_go() {
    let mut shard = Shard::with_queue();
    shard.append(&append_to(1, 3)).unwrap();
    let targets = Targets::Several(vec![PartitionId(1), PartitionId(9)]);
    shard.append(&AppendBody { targets, ..append_to(0, 2) }).unwrap();
    shard.push_front_end(1, Some("registers"), &registers::log_new("k", b"v"), Some(1));
    shard.apply();
    assert_eq!((shard.queue().floor(), shard.queue().end()), (0, 7));
    assert_eq!(shard.acquire(0..4, 5), 4);
    assert_eq!(shard.settle(1..4, 5), 3);
    let start = |shard: &Shard| shard.state.partition(PartitionId(1)).unwrap().log_start.0;
    assert_eq!(start(&shard), 0, "the first one holds the others back");
    assert_eq!(shard.settle(0..9, 5), 1);
    assert_eq!((start(&shard), shard.queue().floor()), (4, 4));
    assert_eq!(shard.append(&append_to(1, 1)).unwrap().log_start, Offset(4));
}

#[test]
fn a_strict_list_that_is_refused_does_nothing_and_says_which() {
    let mut shard = Shard::with_queue();
    shard.append(&append_to(1, 3)).unwrap();
    let (two, five) = (one_range(0..2), one_range(0..5));
    let acquired = |ranges| Operation::Acquired { ranges, terms: session(1) };
    let list = [(1, acquired(two.ranges())), (1, acquired(five.ranges()))];
    assert_eq!(shard.deliver(true, &list), Err(DeliveryError::Refused { operation: 1 }));
    assert_eq!(shard.queue().state(0), MessageState::Ready);
    let named = |messages| TouchedMessages::Named { subscription: NO, messages };
    assert_eq!(shard.state.subscriptions.touched, [named(0..2), named(0..5)], "it is decided all the same");
    assert_eq!(shard.deliver(false, &list), Ok(DeliveryOutcome { concerned: 3 }));
    assert_eq!(
        shard.deliver(true, &[(8, acquired(two.ranges()))]),
        Err(DeliveryError::Refused { operation: 0 })
    );
}

#[test]
fn what_a_block_did_to_messages_is_told_in_runs_and_in_order() {
    let mut shard = Shard::with_queue();
    shard.push(&append_to(1, 3), Some(b"batch"));
    shard.push(&append_to(1, 2), Some(b"batch"));
    let (ranges, first) = (one_range(0..9), one_range(0..1));
    let terms = Terms { timeout_ms: 30, ..session(4) };
    let acquired = Operation::Acquired { ranges: ranges.ranges(), terms };
    let held_by = HeldBy::Any;
    let settled = Operation::Settled { ranges: first.ranges(), held_by, why: Settlement::Dropped };
    shard.push_delivery(&body(false, &[(1, acquired), (1, settled)]));
    shard.apply();
    let (subscription, owner) = (NO, MessageOwner::Session(4));
    let deadline_ms = Some(shard.now + 30);
    assert_eq!(
        shard.state.subscriptions.touched,
        [
            TouchedMessages::Ready { subscription, messages: 0..3 },
            TouchedMessages::Ready { subscription, messages: 3..5 },
            TouchedMessages::Acquired { subscription, messages: 0..5, owner, deadline_ms },
            TouchedMessages::Settled { subscription, messages: 0..1, why: Settlement::Dropped },
            TouchedMessages::Named { subscription, messages: 0..9 },
            TouchedMessages::Named { subscription, messages: 0..1 },
        ]
    );
    shard.one(&PartitionsDeleted { partitions: vec![PartitionId(1)] }).unwrap();
    assert_eq!(shard.state.subscriptions.touched, [TouchedMessages::Gone { subscription }]);
    assert!(shard.state.subscriptions.get(NO).is_none());
}

#[test]
fn a_start_gives_back_what_sessions_had_and_flags_what_may_have_been_sent() {
    let mut shard = Shard::with_queue();
    shard.append(&append_to(1, 5)).unwrap();
    assert_eq!(shard.acquire(0..2, 7), 2);
    shard.deliver(false, &[(1, Operation::Claimed { to: 4 })]).unwrap();
    shard.one(&Started { node: NodeId(1), clean: true }).unwrap();
    let flagged = |shard: &Shard| (0..5).map(|at| shard.queue().is_redelivered(at)).collect::<Vec<_>>();
    assert_eq!(flagged(&shard), [true, true, false, false, false]);
    assert_eq!(shard.queue().state(0), MessageState::Ready);
    shard.one(&Started { node: NodeId(1), clean: false }).unwrap();
    assert_eq!(flagged(&shard), [true, true, true, true, false]);
}

#[test]
fn nothing_but_its_subscription_empties_a_queue() {
    let mut shard = Shard::with_queue();
    shard.append(&append_to(1, 5)).unwrap();
    let moved = LogStartsMoved { moves: vec![(PartitionId(1), Offset(3))] };
    assert_eq!(shard.one(&moved), Err(TopicError::QueuePartition(PartitionId(1))));
    let settings = PartitionSettings { retention_ms: 0, retention_bytes: 0, ..queue_settings(2) };
    shard.one(&PartitionsConfigured { settings, partitions: vec![PartitionId(1)] }).unwrap();
    let partition = shard.state.partition(PartitionId(1)).unwrap();
    assert_eq!((partition.retention_due(i64::MAX), partition.log_start), (None, Offset(0)));
}

#[test]
fn entries_of_one_block_settle_one_after_the_other() {
    let mut shard = Shard::with_queue();
    shard.append(&append_to(1, 5)).unwrap();
    shard.acquire(0..5, 7);
    for messages in [0..1, 1..3] {
        let ranges = one_range(messages);
        let held_by = HeldBy::Owner(MessageOwner::Session(7));
        let settled = Operation::Settled { ranges: ranges.ranges(), held_by, why: Settlement::Acknowledged };
        shard.push_delivery(&body(false, &[(1, settled)]));
    }
    shard.apply();
    assert_eq!(shard.state.partition(PartitionId(1)).unwrap().log_start, Offset(3));
}

fn sized(id: u64, sizes: &[u32]) -> AppendBody {
    let mut facts = RecordFacts::new();
    sizes.iter().for_each(|size| facts.push(Facts { size: *size, ..Facts::default() }).unwrap());
    AppendBody { facts: Some(Box::new(facts)), ..append_to(id, sizes.len() as u32) }
}

#[test]
fn a_full_queue_refuses_by_count_and_by_bytes_until_there_is_room() {
    for overflow in [Overflow::Reject, Overflow::RejectAndDeadLetter] {
        let mut shard = Shard::new();
        let limits = |queue: &mut QueueSettings| {
            (queue.overflow, queue.max_length, queue.max_length_bytes) = (overflow, Some(4), Some(100));
        };
        shard.one(&limited(1, limits)).unwrap();
        shard.append(&sized(1, &[30, 30])).unwrap();
        assert_eq!(shard.append(&sized(1, &[41])), Err(AppendError::QueueFull), "bytes");
        assert_eq!(shard.append(&sized(1, &[1, 1, 1])), Err(AppendError::QueueFull), "messages");
        assert_eq!(shard.append(&sized(1, &[40])).unwrap().base_offset, Offset(2));
        // What is in flight does not count.
        assert_eq!(shard.acquire(0..1, 7), 1);
        assert_eq!(shard.append(&sized(1, &[30])).unwrap().base_offset, Offset(3));
        let backlog = shard.queue().backlog();
        assert_eq!((backlog.messages, backlog.bytes), (3, 100));
        shard.push_front_end(1, Some("registers"), &registers::log_new("k", b"v"), Some(1));
        shard.apply();
        assert_eq!(shard.queue().end(), 4, "a front end's own entry is judged too");
        assert_eq!(shard.settle(0..1, 7), 1);
        assert_eq!(shard.append(&sized(1, &[1])), Err(AppendError::QueueFull), "it was in flight");
        // It takes what it has from its pages.
        let pages = MemPages::default();
        shard.state.level = FormatLevel::NEWEST;
        write_pages(&mut shard.state, &pages);
        shard.state = ShardState::restore(&pages, known()).unwrap();
        assert_eq!(shard.queue().backlog(), backlog);
        assert_eq!(shard.append(&sized(1, &[0])).unwrap().base_offset, Offset(4));
        assert_eq!(shard.append(&sized(1, &[0])), Err(AppendError::QueueFull));
    }
}

#[test]
fn a_batch_that_may_be_divided_is_taken_up_to_where_its_queue_is_full() {
    let mut shard = Shard::new();
    let limits = |queue: &mut QueueSettings| {
        (queue.overflow, queue.max_length, queue.max_length_bytes) = (Overflow::Reject, Some(4), Some(100));
    };
    shard.one(&limited(1, limits)).unwrap();
    let divisible = |sizes: &[u32]| AppendBody { partial: true, ..sized(1, sizes) };
    let mut taken = |body: &AppendBody| shard.append(body).map(|at| (at.base_offset.0, at.records));
    assert_eq!(taken(&divisible(&[30, 30, 50, 1])), Ok((0, 2)), "by bytes, and the last would have fitted");
    let producer = Some(Producer { id: ProducerId(7), epoch: 0, base_sequence: 0 });
    let produced = AppendBody { producer, ..divisible(&[1, 1, 1]) };
    assert_eq!(taken(&produced), Err(AppendError::QueueFull), "its producer would send it again");
    assert_eq!(taken(&divisible(&[41, 0])), Err(AppendError::QueueFull));
    assert_eq!(taken(&divisible(&[0, 40, 0])), Ok((2, 2)), "by count");
    assert_eq!(taken(&divisible(&[0])), Err(AppendError::QueueFull));
    let backlog = shard.queue().backlog();
    assert_eq!((shard.queue().end(), backlog.messages, backlog.bytes), (4, 4, 100));
    let partition = shard.state.partition(PartitionId(1)).unwrap();
    let runs = partition.index.open().iter().map(|run| (run.kind, run.first_record, run.records));
    assert_eq!(runs.collect::<Vec<_>>(), [(RunKind::Reference, 0, 2); 2]);
}

fn write_pages(state: &mut ShardState, pages: &MemPages) {
    let cut = state.begin_checkpoint().unwrap();
    let mut batch = PageBatch::default();
    while state.capture() {}
    batch.extend(state.take_captured());
    cut.put(&mut batch);
    pages.commit(batch).unwrap();
    state.checkpoint_committed();
}

#[test]
fn the_oldest_ready_messages_go_where_a_queue_drops_them() {
    let mut shard = Shard::new();
    shard.one(&limited(1, |queue| queue.max_length_bytes = Some(100))).unwrap();
    shard.append(&sized(1, &[60, 30, 10])).unwrap();
    assert_eq!(shard.acquire(0..1, 7), 1);
    shard.append(&sized(1, &[20, 41])).unwrap();
    // 30, 10, 20 and 41 were ready.
    let states = (0..5).map(|at| shard.queue().state(at)).collect::<Vec<_>>();
    let [ready, settled, in_flight] = [MessageState::Ready, MessageState::Settled, MessageState::InFlight];
    assert_eq!(states, [in_flight, settled, ready, ready, ready]);
    let dropped = TouchedMessages::Settled { subscription: NO, messages: 1..2, why: Settlement::TooMany };
    assert_eq!(shard.state.subscriptions.touched.last(), Some(&dropped));
    assert_eq!(shard.settle(0..1, 7), 1);
    assert_eq!(shard.state.partition(PartitionId(1)).unwrap().log_start, Offset(2));
    shard.append(&sized(1, &[101])).unwrap();
    assert_eq!((shard.queue().floor(), shard.queue().end()), (6, 6), "larger than all there may be");
}

#[test]
fn limits_hold_from_when_they_are_set() {
    let mut shard = Shard::with_queue();
    shard.append(&append_to(1, 5)).unwrap();
    let PartitionsCreated { mut settings, .. } =
        limited(1, |queue| (queue.max_length, queue.overflow) = (Some(6), Overflow::Reject));
    settings.version = 2;
    shard.one(&PartitionsConfigured { settings, partitions: vec![PartitionId(1)] }).unwrap();
    assert_eq!(shard.append(&append_to(1, 2)), Err(AppendError::QueueFull));
    shard.append(&append_to(1, 1)).unwrap();
    assert_eq!(shard.append(&append_to(1, 1)), Err(AppendError::QueueFull));
}

#[test]
fn messages_expire_when_their_queue_says_or_sooner() {
    let mut shard = Shard::new();
    shard.one(&limited(1, |queue| queue.message_ttl_ms = Some(100))).unwrap();
    shard.one(&queue_created(2)).unwrap();
    let mut facts = RecordFacts::new();
    for expires_ms in [None, Some(shard.now + 50), Some(shard.now + 50), Some(i64::MAX), None] {
        facts.push(Facts { size: 1, expires_ms, ..Facts::default() }).unwrap();
    }
    let soon = shard.now + 50;
    let targets = Targets::Several(vec![PartitionId(1), PartitionId(2)]);
    let both = AppendBody { facts: Some(Box::new(facts)), targets, ..append_to(0, 5) };
    shard.push(&both, Some(b"batch"));
    shard.push(&append_to(2, 2), Some(b"batch"));
    shard.apply();
    let late = shard.now + 100;
    let expiries = |shard: &Shard, id, to| {
        let queue = shard.state.subscriptions.get(SubscriptionNo(id)).unwrap();
        (0..to).map(|at| queue.expires_ms(at)).collect::<Vec<_>>()
    };
    assert_eq!(expiries(&shard, 1, 5), [late, soon, soon, late, late].map(Some));
    let other = [None, Some(soon), Some(soon), Some(i64::MAX), None, None, None];
    assert_eq!(expiries(&shard, 2, 7), other);
    let expiring = |id| TouchedMessages::Expiring { subscription: SubscriptionNo(id) };
    let told = |shard: &Shard| {
        let touched = shard.state.subscriptions.touched.iter();
        touched.filter(|event| matches!(event, TouchedMessages::Expiring { .. })).cloned().collect::<Vec<_>>()
    };
    assert_eq!(told(&shard), [expiring(1), expiring(2)]);
    shard.append(&append_to(1, 1)).unwrap();
    assert_eq!(told(&shard), [], "it had some");
    assert_eq!(shard.state.subscriptions.expiring().count(), 2);
    // What it has is taken from its pages.
    let pages = MemPages::default();
    shard.state.level = FormatLevel::NEWEST;
    write_pages(&mut shard.state, &pages);
    shard.state = ShardState::restore(&pages, known()).unwrap();
    assert_eq!(expiries(&shard, 2, 7), other);
    // What is settled is forgotten with what is before it.
    assert_eq!((shard.acquire(0..6, 7), shard.settle(0..6, 7)), (6, 6));
    assert_eq!(shard.state.subscriptions.expiring().collect::<Vec<_>>(), [SubscriptionNo(2)]);
    shard.append(&append_to(1, 1)).unwrap();
    assert_eq!(told(&shard), [expiring(1)]);
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        id: u64,
        count: u32,
    },
    Acquire {
        id: u64,
        messages: Range<u64>,
        session: u64,
    },
    Settle {
        id: u64,
        messages: Range<u64>,
        session: Option<u64>,
    },
    Return {
        id: u64,
        messages: Range<u64>,
        session: u64,
        counted: bool,
    },
    Release {
        id: u64,
        session: u64,
    },
    Start {
        clean: bool,
    },
    Create {
        id: u64,
    },
    Delete {
        id: u64,
    },
    /// So many pages are captured before the steps that come meanwhile.
    Checkpoint {
        captured: usize,
        meanwhile: Vec<Step>,
        fails: bool,
    },
    Restart,
}

fn messages() -> impl Strategy<Value = Range<u64>> {
    // Beyond a container, which has 1,024 messages.
    (0u64..1400, 1u64..60).prop_map(|(from, len)| from..from + len)
}

fn change() -> impl Strategy<Value = Step> {
    let (id, session) = (1u64..4, 0u64..3);
    prop_oneof![
        6 => (id.clone(), 1u32..300).prop_map(|(id, count)| Step::Publish { id, count }),
        8 => (id.clone(), messages(), session.clone())
            .prop_map(|(id, messages, session)| Step::Acquire { id, messages, session }),
        8 => (id.clone(), messages(), prop::option::of(session.clone()))
            .prop_map(|(id, messages, session)| Step::Settle { id, messages, session }),
        4 => (id.clone(), messages(), session.clone(), any::<bool>())
            .prop_map(|(id, messages, session, counted)| Step::Return { id, messages, session, counted }),
        2 => (id.clone(), session).prop_map(|(id, session)| Step::Release { id, session }),
        1 => any::<bool>().prop_map(|clean| Step::Start { clean }),
        2 => id.clone().prop_map(|id| Step::Create { id }),
        1 => id.prop_map(|id| Step::Delete { id }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => change(),
        3 => (0usize..6, prop::collection::vec(change(), 0..6), any::<bool>())
            .prop_map(|(captured, meanwhile, fails)| Step::Checkpoint { captured, meanwhile, fails }),
        1 => Just(Step::Restart),
    ]
}

/// A message of a queue: where it stands, which owner has it, and whether it came back.
#[derive(Debug, Clone, Copy)]
struct Message {
    state: MessageState,
    session: u64,
    came_back: bool,
    level: u8,
}

/// The highest priority that counts in a queue.
fn highest(id: u64) -> Option<u8> {
    (id == 1).then_some(3)
}

/// The priorities of so many messages that come behind `from` others.
fn priorities(from: u64, count: u32) -> impl Iterator<Item = u8> {
    (from..from + u64::from(count)).map(|offset| (offset / 3 % 6) as u8)
}

/// How many ready messages a queue may have.
fn most(id: u64) -> Option<u64> {
    (id == 2).then_some(400)
}

/// A shard with queues, what they must hold, and all blocks and pages.
struct World {
    shard: Shard,
    queues: BTreeMap<u64, Vec<Message>>,
    pages: MemPages,
    blocks: Vec<(Sequence, Term, Vec<u8>)>,
}

impl World {
    fn new() -> Self {
        let (shard, pages) = (Shard::new(), MemPages::default());
        Self { shard, queues: BTreeMap::new(), pages, blocks: Vec::new() }
    }

    fn block(&mut self) -> Outcome {
        let block = self.shard.close();
        let outcome = apply(&mut self.shard.state, block.0, block.1, &block.2).remove(0);
        self.blocks.push(block);
        outcome
    }

    fn entry<B: Body>(&mut self, body: &B) {
        self.shard.push(body, (B::KIND == kind::APPEND).then_some(b"batch"));
        self.block();
    }

    fn deliver(&mut self, id: u64, operation: Operation<'_>, expected: u64) {
        self.shard.push_delivery(&body(false, &[(id, operation)]));
        let outcome: Result<DeliveryOutcome, DeliveryError> = EntryOutcome::of(self.block());
        assert_eq!(outcome, Ok(DeliveryOutcome { concerned: expected }), "{operation:?}");
    }

    /// Changes the messages that something holds for; tells how many.
    fn each(
        &mut self,
        id: u64,
        messages: Range<u64>,
        wanted: impl Fn(&Message) -> bool,
        change: impl Fn(&mut Message),
    ) -> u64 {
        let Some(queue) = self.queues.get_mut(&id) else { return 0 };
        let end = messages.end.min(queue.len() as u64);
        let range = messages.start.min(end) as usize..end as usize;
        let concerned = queue[range].iter_mut().filter(|message| wanted(message));
        concerned.map(change).count() as u64
    }

    fn take(&mut self, step: &Step) {
        let ready = |message: &Message| message.state == MessageState::Ready;
        let of = |session: u64| {
            move |message: &Message| message.state == MessageState::InFlight && message.session == session
        };
        let give_back =
            |message: &mut Message| (message.state, message.came_back) = (MessageState::Ready, true);
        match step.clone() {
            Step::Publish { id, count } => {
                let from = self.queues.get(&id).map_or(0, |queue| queue.len() as u64);
                let mut facts = RecordFacts::new();
                let all = priorities(from, count)
                    .map(|priority| Facts { priority: Some(priority), ..Facts::default() });
                all.for_each(|each| facts.push(each).unwrap());
                // What comes without facts has no priority.
                let facts = (count % 2 == 0).then_some(Box::new(facts));
                let level =
                    |priority: u8| if facts.is_some() { priority.min(highest(id).unwrap_or(0)) } else { 0 };
                let new = |priority| Message {
                    state: MessageState::Ready,
                    session: 0,
                    came_back: false,
                    level: level(priority),
                };
                let new: Vec<Message> = priorities(from, count).map(new).collect();
                self.queues.entry(id).and_modify(|queue| queue.extend(new));
                self.entry(&AppendBody { facts, ..append_to(id, count) });
                self.drop_excess(id);
            }
            Step::Acquire { id, messages, session: to } => {
                let ranges = one_range(messages.clone());
                let take =
                    |message: &mut Message| (message.state, message.session) = (MessageState::InFlight, to);
                let expected = self.each(id, messages, ready, take);
                self.deliver(
                    id,
                    Operation::Acquired { ranges: ranges.ranges(), terms: session(to) },
                    expected,
                );
            }
            Step::Settle { id, messages, session } => {
                let ranges = one_range(messages.clone());
                let held_by = session.map_or(HeldBy::Any, |of| HeldBy::Owner(MessageOwner::Session(of)));
                let wanted = |message: &Message| match session {
                    Some(session) => of(session)(message),
                    None => message.state != MessageState::Settled,
                };
                let expected =
                    self.each(id, messages, wanted, |message| message.state = MessageState::Settled);
                let why = Settlement::Acknowledged;
                self.deliver(id, Operation::Settled { ranges: ranges.ranges(), held_by, why }, expected);
            }
            Step::Return { id, messages, session, counted } => {
                let ranges = one_range(messages.clone());
                let held_by = HeldBy::Owner(MessageOwner::Session(session));
                let expected = self.each(id, messages, of(session), give_back);
                let (ranges, not_before_ms) = (ranges.ranges(), 0);
                self.deliver(id, Operation::Returned { ranges, held_by, counted, not_before_ms }, expected);
                self.drop_excess(id);
            }
            Step::Release { id, session } => {
                let expected = self.each(id, 0..u64::MAX, of(session), give_back);
                let owner = MessageOwner::Session(session);
                self.deliver(id, Operation::Released { owner, counted: true }, expected);
                self.drop_excess(id);
            }
            Step::Start { clean } => {
                self.entry(&Started { node: NodeId(1), clean });
                let in_flight = |message: &Message| message.state == MessageState::InFlight;
                for id in 1..4 {
                    self.each(id, 0..u64::MAX, in_flight, give_back);
                    self.drop_excess(id);
                }
            }
            Step::Create { id } => {
                let change = |queue: &mut QueueSettings| {
                    (queue.max_length, queue.max_priority) = (most(id), highest(id));
                    queue.message_ttl_ms = (id == 3).then_some(5);
                };
                self.entry(&limited(id, change));
                self.queues.entry(id).or_default();
            }
            Step::Delete { id } => {
                self.entry(&PartitionsDeleted { partitions: vec![PartitionId(id)] });
                self.queues.remove(&id);
            }
            Step::Checkpoint { captured, meanwhile, fails } => self.checkpoint(captured, &meanwhile, fails),
            Step::Restart => self.shard.state = self.restored(),
        }
    }

    fn drop_excess(&mut self, id: u64) {
        let (Some(most), Some(queue)) = (most(id), self.queues.get_mut(&id)) else { return };
        let ready = |message: &Message| message.state == MessageState::Ready;
        let over = queue.iter().filter(|message| ready(message)).count().saturating_sub(most as usize);
        let oldest = queue.iter_mut().filter(|message| ready(message)).take(over);
        oldest.for_each(|message| message.state = MessageState::Settled);
    }

    fn checkpoint(&mut self, captured: usize, meanwhile: &[Step], fails: bool) {
        let cut = self.shard.state.begin_checkpoint().unwrap();
        for _ in 0..captured {
            let maps = self.shard.state.subscriptions.maps();
            for map in maps {
                map.capture(&mut Budget { entries: 1, bytes: 1 });
            }
        }
        meanwhile.iter().for_each(|step| self.take(step));
        if fails {
            return self.shard.state.checkpoint_failed();
        }
        let mut batch = PageBatch::default();
        while self.shard.state.capture() {}
        batch.extend(self.shard.state.take_captured());
        cut.put(&mut batch);
        self.pages.commit(batch).unwrap();
        self.shard.state.checkpoint_committed();
    }

    /// What a start finds: the last checkpoint, and the blocks behind it.
    fn restored(&self) -> ShardState {
        let mut restored = ShardState::restore(&self.pages, known()).unwrap();
        for (sequence, term, content) in &self.blocks {
            if *sequence > restored.applied {
                apply(&mut restored, *sequence, *term, content);
            }
        }
        restored.level = FormatLevel::NEWEST;
        restored
    }

    /// Of each level with unsettled messages the first ready one is found from anywhere.
    fn check_levels(subscription: &Subscription, queue: &[Message]) {
        let unsettled = queue.iter().filter(|message| message.state != MessageState::Settled);
        let mut levels: Vec<u8> = unsettled.map(|message| message.level).chain([0]).collect();
        levels.sort_unstable_by(|a, b| b.cmp(a));
        levels.dedup();
        assert_eq!(subscription.levels().collect::<Vec<_>>(), levels);
        for level in levels {
            let ready = |message: &Message| message.state == MessageState::Ready && message.level == level;
            for from in [0, queue.len() / 2] {
                let first = queue.iter().skip(from).position(ready).map(|at| (from + at) as u64);
                assert_eq!(
                    subscription.next_ready_of(level, from as u64),
                    first,
                    "level {level} from {from}"
                );
            }
        }
    }

    fn check(&self) {
        for id in 1..4 {
            let subscription = self.shard.state.subscriptions.get(SubscriptionNo(id));
            let partition = self.shard.state.partition(PartitionId(id));
            let Some(queue) = self.queues.get(&id) else {
                assert!(subscription.is_none() && partition.is_none());
                continue;
            };
            let (subscription, partition) = (subscription.unwrap(), partition.unwrap());
            assert_eq!(partition.next.0 as u64, subscription.end());
            assert_eq!(partition.log_start.0 as u64, subscription.floor());
            let first = queue.iter().position(|message| message.state != MessageState::Settled);
            assert_eq!(subscription.floor(), first.unwrap_or(queue.len()) as u64);
            let ready = queue.iter().filter(|message| message.state == MessageState::Ready).count();
            assert_eq!(subscription.backlog().messages, ready as u64);
            Self::check_levels(subscription, queue);
            for (offset, message) in (0..).zip(queue) {
                assert_eq!(subscription.state(offset), message.state, "{offset}");
                let owner = subscription.holding(offset).map(|holding| holding.owner);
                let in_flight = message.state == MessageState::InFlight;
                assert_eq!(owner, in_flight.then_some(MessageOwner::Session(message.session)));
                if message.came_back && message.state == MessageState::Ready {
                    assert!(subscription.is_redelivered(offset), "{offset}");
                }
            }
        }
    }

    /// From the last checkpoint and from nothing: all the same.
    fn agrees(&mut self) {
        let expected = self.shard.state.dump(&self.pages).unwrap();
        assert_eq!(self.restored().dump(&self.pages).unwrap(), expected, "checkpoint and replay");
        let mut zero = ShardState::new(known());
        for (sequence, term, content) in &self.blocks {
            apply(&mut zero, *sequence, *term, content);
        }
        assert_eq!(zero.dump(&MemPages::default()).unwrap(), expected, "replay from zero");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn queues_are_what_their_entries_say_over_checkpoints_and_restarts(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        world.shard.state.level = FormatLevel::NEWEST;
        for id in 1..3 {
            world.take(&Step::Create { id });
            world.take(&Step::Publish { id, count: 700 });
        }
        for step in &steps {
            world.take(step);
            world.check();
        }
        world.agrees();
        world.take(&Step::Checkpoint { captured: 0, meanwhile: Vec::new(), fails: false });
        world.agrees();
    }
}

/// A shard may not have been told its level yet: what is there is never left out.
#[test]
fn a_checkpoint_lists_subscriptions_where_there_are_some_whatever_its_level() {
    let mut world = World::new();
    let checkpoint = Step::Checkpoint { captured: 0, meanwhile: Vec::new(), fails: false };
    world.take(&checkpoint);
    let without = world.pages.get(prefixes::SHARD).unwrap().unwrap();
    assert_eq!(without[0], 1, "of the first level");
    world.take(&Step::Create { id: 1 });
    world.take(&Step::Publish { id: 1, count: 3 });
    world.take(&checkpoint);
    let listed = world.pages.get(prefixes::SHARD).unwrap().unwrap();
    assert_eq!((listed[0], listed.ends_with(b"\x01s\x01q\x09exchange/\x04due/")), (2, true), "{listed:?}");
    world.agrees();
    world.take(&Step::Restart);
    world.check();
}

#[test]
fn pages_that_are_lost_are_missed() {
    let mut world = World::new();
    world.take(&Step::Create { id: 1 });
    world.take(&Step::Publish { id: 1, count: 3 });
    world.take(&Step::Acquire { id: 1, messages: 1..2, session: 0 });
    world.take(&Step::Checkpoint { captured: 0, meanwhile: Vec::new(), fails: false });
    let mut keys = Vec::new();
    let mut visit = |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        Ok(std::ops::ControlFlow::Continue(()))
    };
    world.pages.scan(prefixes::SUBSCRIPTIONS, &[], &mut visit).unwrap();
    assert_eq!(keys.len(), 4, "a summary, a header, a container and its owners");
    for key in keys {
        let page = world.pages.get(&key).unwrap().unwrap();
        let mut batch = PageBatch::default();
        batch.delete(key.clone());
        world.pages.commit(batch).unwrap();
        assert!(ShardState::restore(&world.pages, known()).is_err(), "{key:?}");
        let mut batch = PageBatch::default();
        batch.put(key, page);
        world.pages.commit(batch).unwrap();
    }
    assert!(ShardState::restore(&world.pages, known()).is_ok());
}
