//! Deliveries on their way to the client: the broker names messages, the session reads them and sends what there is.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Instant;

use rustc_hash::FxHashMap;
use sabir_broker::Broker;
use sabir_broker::push::PushedMessages;
use sabir_broker::queue::reader::{Found, MessagesPutOff, QueueReader, UnreadableMessages};
use sabir_broker::queue::{Credit, QueueTarget};
use sabir_model::{FrontendNo, ReadError};
use sabir_net::{FrameMemory, Grant, Io, UNCOUNTED};

use super::arguments::{precondition, queue};
use super::channel::{Channel, Consumer, RefillOn};
use super::connection::AmqpSession;
use super::records::{with_returns, without_added};
use super::settling::Fate;
use super::stored::Message;
use super::unacked::Delivered;
use crate::wire::*;

/// Bytes put out at a time, beside what is put out already.
const AT_ONCE: usize = 128 * 1024;
/// Messages that a consumer may have on their way which sets no bound.
pub(super) const WINDOW: u32 = 2048;

/// What is to be delivered.
#[derive(Default)]
pub(super) struct Deliveries {
    waiting: VecDeque<PushedMessages>,
    readers: FxHashMap<QueueTarget, QueueReader>,
    /// Memory for what was read and is small.
    granted: Option<Grant>,
    /// What could not be read.
    pub(super) put_off: MessagesPutOff,
}

/// What became of the first delivery that waits.
enum Sent {
    /// So much of it is sent, or is gone.
    Some,
    /// It is to be read.
    Unread,
    /// The client is to be told that its channel fails.
    Failed(u16, ChannelException),
}

impl Deliveries {
    pub(super) fn add(&mut self, messages: PushedMessages) {
        self.waiting.push_back(messages);
    }

    /// Keeps what was read of the first one that waits alone: the rest is read again when its turn comes.
    pub(super) fn keep_first(&mut self) {
        let first = self.waiting.front().map(|messages| messages.target);
        self.readers.retain(|target, _| Some(*target) == first);
    }

    /// Has none but the first one that waits have memory of the node's, or ask for some: that one waits for it.
    fn hold_first(&mut self) {
        let first = self.waiting.front().map(|messages| messages.target);
        self.readers.retain(|target, reader| Some(*target) == first || !reader.holds_memory());
    }

    /// Of a queue that was the first one nothing is read next: memory that was held for it is another reader's.
    fn let_go(&mut self, target: QueueTarget) {
        let goes_on = self.waiting.front().is_some_and(|next| next.target == target);
        if !goes_on && self.readers.get(&target).is_some_and(QueueReader::holds_memory) {
            self.readers.remove(&target);
        }
    }

    /// Keeps nothing of what was read: all of it is read again when its turn comes.
    pub(super) fn keep_none(&mut self) {
        self.readers.values_mut().for_each(QueueReader::let_go);
    }

    /// Sees to it that there is memory for what was read and is kept until the client reads on, or keeps none of it.
    pub(super) fn settle(&mut self, memory: &FrameMemory) {
        let read: usize = self.readers.values().map(QueueReader::read_bytes).sum();
        if read <= UNCOUNTED {
            self.granted = None;
        } else if self.granted.as_ref().is_none_or(|granted| granted.bytes() < read) {
            self.granted = None;
            self.granted = memory.try_take_of_plenty(read);
            if self.granted.is_none() {
                self.keep_none();
            }
        }
    }

    /// Bytes that are held beside what was read.
    pub(super) fn held_bytes(&self) -> usize {
        self.readers.values().map(QueueReader::held_bytes).sum()
    }
}

/// Why no further message was sent.
enum Stop {
    /// All were.
    Done,
    /// Enough is written for now.
    Full,
    /// The next one is gone.
    Gone,
    /// The next one is to be read.
    Unread,
    /// Those before this offset cannot be read.
    Unreadable(u64, ReadError),
    /// The next one cannot be sent on this connection.
    TooLarge,
}

/// Messages that are being written, for one consumer.
struct Sending<'a> {
    out: &'a mut FrameBuffer,
    frame_max: u32,
    channel: &'a mut Channel,
    consumer: &'a Consumer,
    sent: u64,
}

impl Sending<'_> {
    fn run(
        &mut self,
        reader: &mut QueueReader,
        broker: &Broker,
        own: FrontendNo,
        messages: &PushedMessages,
    ) -> Stop {
        for offset in messages.offsets.clone() {
            if self.out.len() >= AT_ONCE {
                return Stop::Full;
            }
            let message = match reader.find(broker, offset) {
                Found::Message(stored) => Message::of(broker, own, &self.consumer.queue.name, &stored),
                Found::Gone => return Stop::Gone,
                Found::Unread => return Stop::Unread,
                Found::Unreadable { end, error } => return Stop::Unreadable(end, error),
            };
            if self.write(message, messages).is_err() {
                return Stop::TooLarge;
            }
            self.sent += 1;
        }
        Stop::Done
    }

    fn write(&mut self, message: Message<'_>, of: &PushedMessages) -> Result<(), HeaderTooLarge> {
        let PushedMessages { redelivered, returned, .. } = *of;
        let returned = if self.consumer.queue.says_returns { returned } else { 0 };
        let counted = with_returns(&message.properties, returned);
        let properties = counted.as_deref().unwrap_or(&message.properties);
        let deliver = BasicDeliver {
            consumer_tag: ShortStr::cut(&self.consumer.tag),
            delivery_tag: self.channel.next_tag(),
            redelivered,
            exchange: message.exchange,
            routing_key: message.routing_key,
        };
        let (number, body) = (self.channel.id.number, ContentBody::of(message.body));
        self.out.hold(message.is_held);
        let written = self.out.content(number, &deliver, properties, &body, self.frame_max);
        let written = written.or_else(|HeaderTooLarge| {
            self.out.content(number, &deliver, &without_added(properties), &body, self.frame_max)
        });
        self.out.hold(false);
        written
    }
}

impl AmqpSession {
    /// Sends what there is, as far as the client reads.
    pub(super) fn deliver(&mut self, io: &mut Io, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.deliveries.waiting.is_empty() && !io.output.is_full() {
            match self.deliver_first() {
                Sent::Some => {}
                Sent::Unread if self.read_first(cx) => {}
                Sent::Unread => return moved,
                Sent::Failed(channel, exception) => self.fail(channel, exception),
            }
            self.put_out(io);
            moved = true;
        }
        if self.deliveries.waiting.is_empty() {
            self.deliveries.readers.clear();
        }
        moved
    }

    fn deliver_first(&mut self) -> Sent {
        let Self { deliveries, consumers, channels, amqp, machine, out, settling, refills, .. } = self;
        let Some(first) = deliveries.waiting.front_mut() else { return Sent::Some };
        let found = consumers.get_mut(&first.consumer);
        let found = found.and_then(|consumer| Some((channels.get_mut(&consumer.channel)?, consumer)));
        let Some((channel, consumer)) = found else {
            self.give_first_back();
            return Sent::Some;
        };
        let reader = deliveries.readers.entry(first.target);
        let reader = reader.or_insert_with_key(|target| QueueReader::new(*target));
        let (start, tag) = (first.offsets.start, channel.last_tag + 1);
        let mut sending = Sending {
            out,
            frame_max: machine.frame_max(),
            channel: &mut *channel,
            consumer: &*consumer,
            sent: 0,
        };
        let stop = sending.run(reader, &amqp.broker, amqp.number(), first);
        let sent = sending.sent;
        if sent > 0 && consumer.settles {
            settling.add(first.target, consumer.owner, Fate::Settled, start..start + sent);
        } else if sent > 0 {
            let (target, consumer) = (first.target, Some(first.consumer));
            channel.unacked.add(Delivered { tags: tag..tag + sent, offset: start, target, consumer });
        }
        let refill = if consumer.refill_on() == RefillOn::Sending { sent } else { 0 };
        first.offsets.start += sent;
        let shard = first.target.shard();
        consumer.refill(shard, u32::try_from(refill).unwrap_or(u32::MAX), first.consumer, refills);
        if let Stop::Gone = stop {
            let gone = first.offsets.start;
            settling.add(first.target, consumer.owner, Fate::Settled, gone..gone + 1);
            first.offsets.start += 1;
            consumer.refill(shard, 1, first.consumer, refills);
        }
        if first.offsets.is_empty() {
            let target = first.target;
            deliveries.waiting.pop_front();
            deliveries.let_go(target);
        }
        match stop {
            Stop::Unread if sent == 0 => Sent::Unread,
            Stop::Unreadable(end, error) => {
                self.put_off(end, error);
                Sent::Some
            }
            Stop::TooLarge => {
                let exception = undeliverable(&consumer.queue.name, machine.frame_max());
                Sent::Failed(channel.id.number, exception)
            }
            _ => Sent::Some,
        }
    }

    /// What the first one names is for a consumer that has ended. Where its channel has ended as well all of it was given back with that.
    fn give_first_back(&mut self) {
        let Some(messages) = self.deliveries.waiting.pop_front() else { return };
        self.deliveries.let_go(messages.target);
        if let Some(owner) = self.owner_of(messages.consumer) {
            let fate = Fate::GivenBack { counted: false };
            self.settling.add(messages.target, owner, fate, messages.offsets);
        }
    }

    /// Reads what the first one names; says whether it has been read.
    fn read_first(&mut self, cx: &mut Context<'_>) -> bool {
        let Self { deliveries, amqp, workers, .. } = self;
        let Some(first) = deliveries.waiting.front() else { return false };
        let Some(reader) = deliveries.readers.get_mut(&first.target) else { return false };
        let Poll::Ready(loaded) = reader.poll_load(&amqp.broker, workers, first.offsets.clone(), cx) else {
            deliveries.hold_first();
            return false;
        };
        if let Err(error) = loaded {
            self.cannot_read(error);
        }
        true
    }

    /// Of the messages that the first one names those before `end` cannot be read: those behind them are sent, and they are tried again after a while.
    fn put_off(&mut self, end: u64, error: ReadError) {
        let Self { deliveries, consumers, refills, .. } = self;
        let Some(first) = deliveries.waiting.front_mut() else { return };
        let Some(consumer) = consumers.get_mut(&first.consumer) else { return self.give_first_back() };
        let offsets = first.offsets.start..end.min(first.offsets.end);
        let count = u32::try_from(offsets.end - offsets.start).unwrap_or(u32::MAX);
        first.offsets.start = offsets.end;
        let messages = UnreadableMessages { target: first.target, owner: consumer.owner, offsets };
        if !deliveries.put_off.add(messages, Instant::now()) {
            return self.cannot_read(error);
        }
        consumer.refill(first.target.shard(), count, first.consumer, refills);
        if first.offsets.is_empty() {
            deliveries.waiting.pop_front();
        }
    }

    /// The same of what was asked for; what there is no room for is given back at once.
    pub(super) fn keep_unreadable(&mut self, all: Vec<UnreadableMessages>) {
        let now = Instant::now();
        for messages in all {
            if !self.deliveries.put_off.add(messages.clone(), now) {
                self.give_back_unreadable(messages);
            }
        }
    }

    /// Gives back what could not be read a while ago.
    pub(super) fn try_again(&mut self) {
        let now = Instant::now();
        while let Some(messages) = self.deliveries.put_off.take_due(now) {
            self.give_back_unreadable(messages);
        }
    }

    pub(super) fn give_back_unreadable(&mut self, messages: UnreadableMessages) {
        let UnreadableMessages { target, owner, offsets } = messages;
        self.settling.add(target, owner, Fate::GivenBack { counted: false }, offsets);
    }

    /// Messages that cannot be read end the connection that wants them, which gives them back.
    fn cannot_read(&mut self, error: ReadError) {
        if self.deliveries.waiting.pop_front().is_some() {
            let text = format!("messages cannot be read: {error}");
            self.fail_connection(ConnectionException::new(ReplyCode::InternalError, text));
        }
    }

    /// Tells the broker what consumers may be given more.
    pub(super) fn tell_refills(&mut self) {
        for number in std::mem::take(&mut self.refills) {
            let Some(consumer) = self.consumers.get_mut(&number) else { continue };
            for drawing in consumer.drawings.iter_mut().filter(|drawing| drawing.refill > 0) {
                let more = std::mem::take(&mut drawing.refill);
                self.amqp.broker.queues().refill(drawing.demand, more, 0);
            }
        }
    }
}

/// A message has larger properties than fit a frame of this connection. It is ready again, for one that has larger frames.
pub(super) fn undeliverable(name: &str, frame_max: u32) -> ChannelException {
    precondition(format!(
        "a message of {} needs a larger frame_max than {frame_max} for its properties",
        queue(name)
    ))
}

/// The credit with which a consumer begins, and when it gets more.
pub(super) fn credit(prefetch: u16, settles: bool) -> (Credit, RefillOn) {
    match prefetch {
        _ if settles => (Credit::messages(WINDOW), RefillOn::Sending),
        0 => (Credit::messages(WINDOW), RefillOn::Sending),
        bound => (Credit::messages(bound.into()), RefillOn::Settling),
    }
}
