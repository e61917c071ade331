//! Messages on their way into the broker: those of one read that go to the same targets are one batch.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use sabir_broker::exchange::{ExchangeId, RoutedTargets};
use sabir_broker::queue::LocalTransaction;
use sabir_broker::{Broker, Caller, Publish, PublishOutcomes, PublishTargets, PublishVerdict};
use sabir_model::batch::{BatchBuilder, Compression, InlineBudget};
use sabir_model::{Overflow, ShardId};

use super::facts::BatchFacts;
use super::mandatory::{KeptMessage, Mandatory, MandatoryRecords, MandatoryTogether, Unroutable};
use super::records::{Envelope, RECORD, RecordWriter};
use super::transaction::HeldMessage;

/// A batch that is larger is sent on its way.
const BATCH: usize = 256 * 1024;
/// The same of messages that are kept back, each of which is looked for in its batch when its time comes.
const DELAYED_BATCH: usize = 4 * 1024;
/// What may be compressed of the batches that are sent together, some 128 KiB: of a transaction, or of a message that goes to many topics, the
/// rest is stored as it came.
const BUDGET: InlineBudget = InlineBudget(1 << 20);
/// With so many bytes to compress what is open is sent, and the time looked at: seven eighths of what a batch may have that is compressed.
const TO_COMPRESS: usize = BatchBuilder::COMPRESSED / 8 * 7;
/// So many batches are filled at the same time.
const OPEN: usize = 64;
/// With more publishes that are not decided no further message is taken.
const UNDECIDED: usize = 1024;
/// With more bytes, about, of messages that wait for room in their shards no further message is taken.
const HELD_BACK: usize = 64 * 1024;

/// Why messages are held back, and in which shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeldBack {
    /// Too much waits there to be written.
    Crowded(ShardId),
    /// Its disk has no space.
    Full(ShardId),
}

impl HeldBack {
    fn of(broker: &Broker, targets: &PublishTargets) -> Option<Self> {
        let crowded = broker.crowded_by(targets).map(Self::Crowded);
        crowded.or_else(|| broker.full_by(targets).map(Self::Full))
    }

    /// Waits until that may be over.
    pub(super) async fn over(self, broker: Broker) {
        match self {
            Self::Crowded(shard) => broker.room(shard).await,
            Self::Full(shard) => broker.space(shard).await,
        }
    }
}

/// A channel, and which of those that had its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChannelId {
    pub(super) number: u16,
    pub(super) serial: u64,
}

/// The tags of a batch's records, where they are to be confirmed: runs of (first record, its tag).
#[derive(Debug, Default)]
struct Tags(Vec<(u32, u64)>);

impl Tags {
    fn push(&mut self, record: u32, tag: u64) {
        let follows = self.0.last().is_some_and(|(first, start)| start + u64::from(record - first) == tag);
        if !follows {
            self.0.push((record, tag));
        }
    }

    /// Those of some records of a batch that has `count`.
    fn of(&self, records: Range<u32>, count: u32) -> impl Iterator<Item = Range<u64>> {
        let ends = self.0.iter().skip(1).map(|(first, _)| *first).chain([count]);
        self.0.iter().zip(ends).filter_map(move |((first, tag), end)| {
            let (from, to) = (records.start.max(*first), records.end.min(end));
            (from < to).then(|| tag + u64::from(from - first)..tag + u64::from(to - first))
        })
    }
}

/// A batch that is being filled.
struct OpenBatch {
    channel: ChannelId,
    routed: Arc<RoutedTargets>,
    /// Which of the route's publishes.
    part: usize,
    terms: Terms,
    batch: BatchBuilder,
    facts: BatchFacts,
    tags: Tags,
    mandatory: MandatoryRecords,
}

/// On which terms targets take batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    /// The largest batch that all of them take.
    most: usize,
    /// Bytes behind which another batch is begun.
    full: usize,
    /// Whether it is to be compressed.
    compressed: bool,
    /// Whether one of them may refuse a message and take a smaller one behind it: of a batch it refuses all from the first on that has no room (in a
    /// transaction, the whole batch), so that batches have one message then.
    singly: bool,
}

impl Terms {
    fn of(targets: &PublishTargets) -> Self {
        let rules = targets.rules();
        let compressed = rules.is_compressed();
        // What is larger is not compressed.
        let full = if compressed { BatchBuilder::COMPRESSED } else { BATCH };
        let mut terms = Self { most: rules.max_bytes(), full, compressed, singly: false };
        for target in targets.targets() {
            let Some(queue) = target.topic().config.queue() else { continue };
            let is_bounded = queue.max_length.is_some() || queue.max_length_bytes.is_some();
            terms.singly |= is_bounded && queue.overflow != Overflow::DropHead;
        }
        terms
    }
}

impl OpenBatch {
    /// So many bytes it may have with another record.
    fn limit(&self) -> usize {
        self.terms.most.min(if self.facts.delays() { DELAYED_BATCH } else { self.terms.full })
    }
}

/// A record is larger than a target takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

/// A publish that is not decided.
struct Undecided {
    channel: ChannelId,
    tags: Tags,
    mandatory: MandatoryRecords,
    count: u32,
    outcomes: Option<PublishOutcomes>,
}

/// What is known of messages that are to be confirmed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// A target refused them. One that is gone does not.
    Refused(Range<u64>),
    /// A publish of them is decided.
    Decided(Range<u64>),
}

/// A message on its way into batches.
pub(super) struct Outgoing<'a> {
    pub(super) channel: ChannelId,
    pub(super) routed: &'a Arc<RoutedTargets>,
    /// By which it is confirmed, where it is.
    pub(super) tag: Option<u64>,
    pub(super) is_mandatory: bool,
    /// The exchange that keeps it back, where one does.
    pub(super) kept_by: Option<ExchangeId>,
    /// Its time, in milliseconds: that of its arrival, or until when it is kept back.
    pub(super) time_ms: i64,
    pub(super) envelope: Envelope<'a>,
    pub(super) body: &'a [u8],
}

/// What a connection publishes.
#[derive(Default)]
pub(super) struct Publisher {
    open: Vec<OpenBatch>,
    /// Whether some of these wait for room in their shards.
    holds_back: bool,
    undecided: VecDeque<Undecided>,
    mandatory: Mandatory,
    /// Those of them that go back.
    unroutable: Vec<Unroutable>,
    writer: RecordWriter,
}

impl Publisher {
    /// Whether all that was published is decided.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.undecided.is_empty()
    }

    /// Whether so much is not decided that no more is taken.
    pub(super) fn is_full(&self) -> bool {
        let is_held_back = self.holds_back && self.open_bytes() >= HELD_BACK;
        is_held_back || self.undecided.len() >= UNDECIDED || self.mandatory.is_full()
    }

    fn open_bytes(&self) -> usize {
        self.open.iter().map(|open| open.batch.bytes()).sum()
    }

    /// Whether messages of a channel wait for room, so that nothing that was said behind them is to have an effect before.
    /// Messages of the same read may not have been tried yet.
    pub(super) fn holds_back(&self, channel: u16, broker: &Broker) -> bool {
        let has_no_room =
            |open: &OpenBatch| HeldBack::of(broker, &open.routed.publishes[open.part]).is_some();
        let mut open = self.open.iter().filter(|open| open.channel.number == channel);
        open.any(|open| self.holds_back || has_no_room(open))
    }

    /// Messages that are to be given back.
    pub(super) fn take_unroutable(&mut self) -> Vec<Unroutable> {
        std::mem::take(&mut self.unroutable)
    }

    /// Bytes of messages that are held until there is room for them, or until they are decided.
    pub(super) fn held_bytes(&self) -> usize {
        self.mandatory.bytes() + if self.holds_back { self.open_bytes() } else { 0 }
    }

    /// Whether batches are to be sent before another message is taken.
    pub(super) fn is_heavy(&self) -> bool {
        !self.holds_back && (self.open.len() >= OPEN || self.to_compress() >= TO_COMPRESS)
            || self.open.last().is_some_and(|last| last.batch.bytes() >= BATCH)
    }

    /// Bytes that are to be compressed as they are sent. What is larger than that is not.
    fn to_compress(&self) -> usize {
        let sizes = self.open.iter().filter(|open| open.terms.compressed).map(|open| open.batch.bytes());
        sizes.filter(|size| *size <= BatchBuilder::COMPRESSED).sum()
    }

    /// Puts a message into the batches of its route.
    pub(super) fn add(&mut self, message: &Outgoing<'_>) -> Result<(), TooLarge> {
        self.put(message)?;
        if message.is_mandatory {
            let kept = KeptMessage::new(&message.envelope, message.body);
            self.mandatory.keep(message.channel, message.routed.publishes.len(), kept);
        }
        Ok(())
    }

    /// The same of one that a transaction held, at a time in milliseconds.
    pub(super) fn add_held(
        &mut self,
        channel: ChannelId,
        time_ms: i64,
        held: HeldMessage,
    ) -> Result<(), TooLarge> {
        let HeldMessage { routed, is_mandatory, message } = held;
        let (envelope, body, routed) = (message.envelope(), message.body(), &routed);
        let kept_by = None;
        self.put(&Outgoing { channel, routed, tag: None, is_mandatory, kept_by, time_ms, envelope, body })?;
        if is_mandatory {
            self.mandatory.keep(channel, routed.publishes.len(), message);
        }
        Ok(())
    }

    /// Puts a message into batches; a mandatory one is kept next, unless it is too large.
    fn put(&mut self, message: &Outgoing<'_>) -> Result<(), TooLarge> {
        let Outgoing { channel, routed, tag, time_ms, ref envelope, body, .. } = *message;
        let publishes = routed.publishes.len();
        if publishes > 1 || message.is_mandatory {
            check_size(routed, envelope, body)?;
        }
        let number = message.is_mandatory.then(|| self.mandatory.next());
        for part in 0..publishes {
            let size = record_size(envelope, body);
            let at = self.batch(channel, routed, part, size)?;
            let open = &mut self.open[at];
            tag.into_iter().for_each(|tag| open.tags.push(open.batch.count(), tag));
            number.into_iter().for_each(|number| open.mandatory.push(open.batch.count(), number));
            open.facts.push(&open.batch, time_ms, envelope, body);
            match message.kept_by {
                None => self.writer.push(&mut open.batch, time_ms, envelope, body),
                Some(id) => self.writer.push_delayed(&mut open.batch, time_ms, (id, envelope), body),
            }
        }
        Ok(())
    }

    /// The batch into which a record of this size goes: the last one of its channel and route that has room. A later one of the channel may
    /// be there that goes elsewhere: order is kept within a target.
    fn batch(
        &mut self,
        channel: ChannelId,
        routed: &Arc<RoutedTargets>,
        part: usize,
        size: usize,
    ) -> Result<usize, TooLarge> {
        let fits = |open: &OpenBatch| {
            open.channel == channel && open.part == part && Arc::ptr_eq(&open.routed, routed)
        };
        let has_room = |open: &OpenBatch| !open.terms.singly && open.batch.bytes() + size <= open.limit();
        if let Some(at) = self.open.iter().rposition(fits)
            && has_room(&self.open[at])
        {
            return Ok(at);
        }
        let terms = Terms::of(&routed.publishes[part]);
        if size > terms.most {
            return Err(TooLarge);
        }
        let (batch, tags) = (BatchBuilder::new(Compression::None), Tags::default());
        let facts = BatchFacts::of(&routed.publishes[part]);
        let (routed, mandatory) = (routed.clone(), MandatoryRecords::default());
        self.open.push(OpenBatch { channel, routed, part, terms, batch, facts, tags, mandatory });
        Ok(self.open.len() - 1)
    }

    /// Sends batches on their way but for those of shards that have no room, and whatever would overtake one of these; says why the first of them is held
    /// back, if one is.
    pub(super) fn send(&mut self, broker: &Broker, caller: &Caller) -> Option<HeldBack> {
        let (mut why, mut held_back) = (None, Vec::new());
        let (mut passed_over, mut budget) = (Vec::<ShardId>::new(), BUDGET);
        for open in std::mem::take(&mut self.open) {
            let targets = &open.routed.publishes[open.part];
            let has_no_room = HeldBack::of(broker, targets);
            if has_no_room.is_none() && !targets.shards().any(|shard| passed_over.contains(&shard)) {
                self.send_batch(broker, caller, open, &mut budget);
                continue;
            }
            why = why.or(has_no_room);
            passed_over.extend(targets.shards());
            held_back.push(open);
        }
        (self.open, self.holds_back) = (held_back, why.is_some());
        why
    }

    /// Sends all batches on their way, whether there is room for them or not: no session is left to hold them.
    pub(super) fn send_all(&mut self, broker: &Broker, caller: &Caller) {
        let mut budget = BUDGET;
        let open = std::mem::take(&mut self.open);
        open.into_iter().for_each(|open| self.send_batch(broker, caller, open, &mut budget));
        self.holds_back = false;
    }

    fn send_batch(&mut self, broker: &Broker, caller: &Caller, open: OpenBatch, budget: &mut InlineBudget) {
        let OpenBatch { channel, routed, part, batch, facts, tags, mandatory, .. } = open;
        let count = batch.count();
        let outcomes = publish(broker, caller, &routed.publishes[part], (batch, facts), budget);
        self.undecided.push_back(Undecided { channel, tags, mandatory, count, outcomes });
    }

    /// What is filled, as publishes of a transaction; none if a batch is not what its targets take.
    pub(super) fn into_transaction(self, broker: &Broker) -> Option<(LocalTransaction, MandatoryTogether)> {
        let (mut transaction, mut budget) = (LocalTransaction::default(), BUDGET);
        let mut together = MandatoryTogether::of(self.mandatory);
        for open in self.open {
            let targets = &open.routed.publishes[open.part];
            transaction.publish(publish_of(broker, targets, (open.batch, open.facts), &mut budget)?);
            together.push(open.mandatory);
        }
        Some((transaction, together))
    }

    /// The next decision about a channel's messages.
    pub(super) fn poll_decision(
        &mut self,
        cx: &mut Context<'_>,
        mut decide: impl FnMut(ChannelId, Decision),
    ) -> bool {
        let mut moved = false;
        while let Some(first) = self.undecided.front_mut() {
            match first.poll(cx, &mut decide) {
                Poll::Pending => break,
                Poll::Ready(()) => {
                    self.unroutable.extend(first.mandatory.decide(&mut self.mandatory));
                    drop(self.undecided.pop_front());
                }
            }
            moved = true;
        }
        moved
    }
}

impl Undecided {
    fn poll(&mut self, cx: &mut Context<'_>, decide: &mut impl FnMut(ChannelId, Decision)) -> Poll<()> {
        let mut refuse = |tags: &Tags, records: Range<u32>, count: u32| {
            tags.of(records, count).for_each(|tags| decide(self.channel, Decision::Refused(tags)));
        };
        match &mut self.outcomes {
            None => {
                self.mandatory.refused();
                refuse(&self.tags, 0..self.count, self.count);
            }
            Some(outcomes) => {
                while let Some(outcome) = std::task::ready!(outcomes.poll_next(cx)) {
                    self.mandatory.note(&outcome);
                    if let PublishVerdict::Refused(_) = outcome.verdict() {
                        refuse(&self.tags, outcome.records, self.count);
                    }
                }
            }
        }
        let all = self.tags.of(0..self.count, self.count);
        all.for_each(|tags| decide(self.channel, Decision::Decided(tags)));
        Poll::Ready(())
    }
}

/// Refuses a message that is too large for a target of its route.
pub(super) fn check_size(
    routed: &RoutedTargets,
    envelope: &Envelope<'_>,
    body: &[u8],
) -> Result<(), TooLarge> {
    let size = record_size(envelope, body);
    let takes = |targets: &PublishTargets| size <= targets.rules().max_bytes();
    if routed.publishes.iter().all(takes) { Ok(()) } else { Err(TooLarge) }
}

/// Bytes that a message takes in a batch, at the most.
fn record_size(envelope: &Envelope<'_>, body: &[u8]) -> usize {
    RECORD + envelope.len() + body.len()
}

/// A batch for its targets; none where it is not what they take.
fn publish_of(
    broker: &Broker,
    targets: &PublishTargets,
    (batch, facts): (BatchBuilder, BatchFacts),
    budget: &mut InlineBudget,
) -> Option<Publish> {
    let batch = batch.build_within(&targets.rules(), broker.wall_ms(), budget);
    let batch = batch.map_err(|refusal| targets.refused(refusal));
    let batch = batch.inspect_err(|refusal| tracing::debug!(%refusal, "messages are not taken")).ok()?;
    let mut publish = Publish::new(targets.clone(), [batch]);
    publish.batches[0].facts = facts.take();
    Some(publish)
}

/// Has the broker take a batch; none where it does not.
fn publish(
    broker: &Broker,
    caller: &Caller,
    targets: &PublishTargets,
    batch: (BatchBuilder, BatchFacts),
    budget: &mut InlineBudget,
) -> Option<PublishOutcomes> {
    // A batch is the messages of one read: a queue that is full for the last ones takes those before.
    let publish = Publish { partial: true, ..publish_of(broker, targets, batch, budget)? };
    let published = broker.publish(caller, &publish);
    published.inspect_err(|refused| tracing::debug!(%refused, "messages are not taken")).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sabir_base::clock::SystemClock;
    use sabir_broker::{AppendAcks, AppendTarget, BrokerOptions, DiskKind, NewTopic, Topic};
    use sabir_model::{FrontendNo, QueueConfig, TopicConfig};

    use super::super::config::NAME;
    use super::*;
    use crate::wire::ShortBytes;

    const CHANNEL: ChannelId = ChannelId { number: 1, serial: 1 };
    static CALLER: Caller = Caller::front_end(NAME);

    /// A broker, messages on their way into it, and what is known of them.
    struct Publishing {
        broker: Broker,
        origin: FrontendNo,
        publisher: Publisher,
        last: u64,
    }

    impl Publishing {
        async fn begin(data: &Path) -> Self {
            let options = BrokerOptions {
                disk: DiskKind::Pwrite,
                segment_bytes: 8 << 20,
                keep_free: 0,
                ..BrokerOptions::new(data)
            };
            let broker = Broker::open(options, Arc::new(SystemClock)).unwrap();
            let origin = broker.number_of(&CALLER).await.unwrap();
            Self { broker, origin, publisher: Publisher::default(), last: 0 }
        }

        async fn queue(&self, name: &str, config: QueueConfig) -> Arc<Topic> {
            self.topic(name, TopicConfig::of_queue(config)).await
        }

        async fn topic(&self, name: &str, config: TopicConfig) -> Arc<Topic> {
            let new = NewTopic { name: name.into(), partitions: 1, config, internal: false, unlike: false };
            self.broker.create_topics(&CALLER, vec![new]).await.remove(0).unwrap()
        }

        async fn delete(&self, queue: &Topic) {
            self.broker.delete_topics(&CALLER, vec![queue.id]).await.remove(0).unwrap();
        }

        /// A route to each list of queues by a publish of its own.
        fn routed(&self, publishes: &[&[&Arc<Topic>]]) -> Arc<RoutedTargets> {
            let target = |topic: &&Arc<Topic>| {
                AppendTarget::new(&CALLER, topic, 0, AppendAcks::InSync, self.origin).unwrap()
            };
            let targets =
                |topics: &&[&Arc<Topic>]| PublishTargets::new(topics.iter().map(target).collect()).unwrap();
            Arc::new(RoutedTargets {
                publishes: publishes.iter().map(targets).collect(),
                refused: Vec::new(),
            })
        }

        /// A message that is to be confirmed.
        fn add(&mut self, routed: &Arc<RoutedTargets>, is_mandatory: bool, body: &str) {
            self.last += 1;
            let (exchange, routing_key) = (ShortBytes::cut(""), ShortBytes::cut("q"));
            let envelope = Envelope { exchange, routing_key, properties: &[0, 0] };
            let (tag, body) = (Some(self.last), body.as_bytes());
            let time_ms = self.broker.now_ms();
            let kept_by = None;
            let message =
                Outgoing { channel: CHANNEL, routed, tag, is_mandatory, kept_by, time_ms, envelope, body };
            self.publisher.add(&message).unwrap();
        }

        /// Sends all of them; the tags that were refused, and the bodies of those that go back.
        async fn decided(&mut self) -> (Vec<u64>, Vec<String>) {
            self.publisher.send(&self.broker, &CALLER);
            self.broker.flush();
            let mut refused = Vec::new();
            std::future::poll_fn(|cx| {
                self.publisher.poll_decision(cx, |_, decision| match decision {
                    Decision::Refused(tags) => refused.extend(tags),
                    Decision::Decided(_) => {}
                });
                if self.publisher.is_idle() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let text = |back: Unroutable| String::from_utf8(back.message.body().to_vec()).unwrap();
            assert_eq!(self.publisher.held_bytes(), 0);
            (refused, self.publisher.take_unroutable().into_iter().map(text).collect())
        }
    }

    #[tokio::test]
    async fn a_target_that_is_gone_refuses_nothing() {
        let data = tempfile::tempdir().unwrap();
        let mut publishing = Publishing::begin(data.path()).await;
        let queue = publishing.queue("q", QueueConfig::default()).await;
        let routed = publishing.routed(&[&[&queue]]);
        for (is_mandatory, body) in [(false, "1"), (true, "2"), (false, "3"), (true, "4")] {
            publishing.add(&routed, is_mandatory, body);
        }
        publishing.delete(&queue).await;
        assert_eq!(publishing.decided().await, (vec![], vec!["2".into(), "4".into()]));
        // Another one has the name: what was routed before is not for it.
        let anew = publishing.queue("q", QueueConfig::default()).await;
        publishing.add(&routed, true, "5");
        assert_eq!(publishing.decided().await, (vec![], vec!["5".into()]));
        let routed = publishing.routed(&[&[&anew]]);
        publishing.add(&routed, true, "6");
        assert_eq!(publishing.decided().await, (vec![], vec![]));
        publishing.broker.shutdown();
    }

    #[tokio::test]
    async fn those_that_are_there_decide() {
        let data = tempfile::tempdir().unwrap();
        let mut publishing = Publishing::begin(data.path()).await;
        let (gone, good) = (QueueConfig::default(), QueueConfig::default());
        let (gone, good) = (publishing.queue("gone", gone).await, publishing.queue("good", good).await);
        let full = QueueConfig { max_length: Some(0), overflow: Overflow::Reject, ..QueueConfig::default() };
        let full = publishing.queue("full", full).await;
        publishing.delete(&gone).await;
        // By one publish, and by two.
        for (number, beside) in [(1, &good), (3, &full)] {
            let by_one = publishing.routed(&[&[beside, &gone]]);
            let by_two = publishing.routed(&[&[&gone], &[beside]]);
            publishing.add(&by_one, true, "one");
            publishing.add(&by_two, true, "two");
            let refused = if number == 3 { vec![3, 4] } else { vec![] };
            assert_eq!(publishing.decided().await, (refused, vec![]), "none goes back");
        }
        let nowhere = publishing.routed(&[&[&gone], &[&gone]]);
        publishing.add(&nowhere, true, "back");
        assert_eq!(publishing.decided().await, (vec![], vec!["back".into()]), "once");
        publishing.broker.shutdown();
        let routed = publishing.routed(&[&[&gone]]);
        publishing.add(&routed, true, "lost");
        assert_eq!(publishing.decided().await, (vec![6], vec![]), "of a broker that stops nothing is known");
    }

    #[tokio::test]
    async fn a_message_that_a_transaction_held_is_kept_as_it_is() {
        let data = tempfile::tempdir().unwrap();
        let mut publishing = Publishing::begin(data.path()).await;
        let queue = publishing.queue("q", QueueConfig::default()).await;
        let routed = publishing.routed(&[&[&queue]]);
        publishing.delete(&queue).await;
        let (exchange, routing_key) = (ShortBytes::cut(""), ShortBytes::cut("q"));
        let envelope = Envelope { exchange, routing_key, properties: &[0, 0] };
        let message = KeptMessage::new(&envelope, b"body");
        let place = message.body().as_ptr();
        let held = HeldMessage { routed, is_mandatory: true, message };
        publishing.publisher.add_held(CHANNEL, 1, held).unwrap();
        let publisher = std::mem::take(&mut publishing.publisher);
        let (transaction, mut together) = publisher.into_transaction(&publishing.broker).unwrap();
        let committing = publishing.broker.commit(&CALLER, transaction).unwrap();
        publishing.broker.flush();
        committing.done(|publish, outcome| together.note(publish, outcome)).await.unwrap();
        let back = together.decide().remove(0);
        assert_eq!((back.message.body(), back.message.body().as_ptr()), (&b"body"[..], place));
        publishing.broker.shutdown();
    }

    #[tokio::test]
    async fn little_is_compressed_before_the_time_is_looked_at_and_of_what_is_sent_together() {
        let data = tempfile::tempdir().unwrap();
        let mut publishing = Publishing::begin(data.path()).await;
        let dear = TopicConfig {
            compression: Some(Compression::Zstd),
            zstd_level: 22,
            ..TopicConfig::of_queue(QueueConfig::default())
        };
        let (dear, plain) =
            (publishing.topic("dear", dear).await, publishing.topic("plain", TopicConfig::default()).await);
        let (dear, plain) = (publishing.routed(&[&[&dear]]), publishing.routed(&[&[&plain]]));
        let body = "a message, ".repeat(31_000 / 11);
        publishing.add(&plain, false, &body);
        assert!(!publishing.publisher.is_heavy());
        publishing.add(&dear, false, &body);
        assert!(publishing.publisher.is_heavy(), "another one waits until this one is sent");
        // Those of one message, or of a transaction.
        (0..99).for_each(|_| publishing.add(&dear, false, &body));
        let (mut budget, mut compressed) = (BUDGET, 0);
        for open in std::mem::take(&mut publishing.publisher.open) {
            let targets = &open.routed.publishes[open.part];
            let publish =
                publish_of(&publishing.broker, targets, (open.batch, open.facts), &mut budget).unwrap();
            let batch = &publish.batches[0].batch;
            compressed += usize::from(batch.header().compression() == Ok(Compression::Zstd));
        }
        assert!((3..=5).contains(&compressed), "{compressed} of 100");
        publishing.broker.shutdown();
    }

    #[test]
    fn records_have_the_tags_of_their_messages() {
        let mut tags = Tags::default();
        for (record, tag) in [(0, 5), (1, 6), (2, 9), (3, 10), (4, 20)] {
            tags.push(record, tag);
        }
        assert_eq!(tags.0.len(), 3);
        let of = |records| tags.of(records, 5).collect::<Vec<_>>();
        assert_eq!(of(0..5), [5..7, 9..11, 20..21]);
        assert_eq!(of(1..3), [6..7, 9..10]);
        assert_eq!(of(4..5), vec![20..21]);
        assert_eq!(of(2..2), []);
        assert_eq!(Tags::default().of(0..5, 5).count(), 0, "none are to be confirmed");
    }
}
