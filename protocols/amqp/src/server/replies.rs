//! Direct replies: messages that go straight from the client that answers to the channel that asked, and into no queue.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use sabir_base::wake::WakeBatch;
use sabir_broker::live::{LiveConsumer, LiveDelivery};
use sabir_broker::push::PushSeat;
use sabir_net::{Grant, Io};

use super::connection::{AmqpSession, channel_of};
use crate::wire::*;

/// What a client consumes to be sent replies, and what it says replies go to. Where they go is this, a dot, and a token.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Bytes that wait for a channel that does not take them; with more, no other one is taken.
const WAITING: usize = 1 << 20;
/// Bytes that a reply is counted with beside its own.
const BESIDE: usize = 256;
/// Bytes put out at a time, beside what is put out already.
const AT_ONCE: usize = 128 * 1024;

/// By which replies find the channel that asked: only a client that was told knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Token(u128);

/// The channels that may be sent replies on this node.
#[derive(Debug, Default)]
pub(crate) struct Replies(Mutex<FxHashMap<Token, LiveConsumer>>);

/// A reply on its way.
pub(super) struct Reply {
    pub(super) exchange: Box<[u8]>,
    pub(super) routing_key: Box<[u8]>,
    pub(super) properties: Bytes,
    pub(super) body: Bytes,
    /// What it takes of the node's memory, for as long as it waits.
    pub(super) memory: Grant,
}

impl Reply {
    fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Bytes that one with such parts takes.
    pub(super) fn takes(envelope: usize, body: usize) -> usize {
        envelope + body + BESIDE
    }
}

/// A channel's consumer of replies.
#[derive(Debug)]
pub(super) struct ReplyConsumer {
    pub(super) tag: Box<str>,
    /// The number that its session gave it.
    number: u64,
    token: Token,
    replies: Arc<Replies>,
}

impl ReplyConsumer {
    /// Where replies to it go.
    pub(super) fn address(&self) -> String {
        let mut address = format!("{REPLY_TO}.");
        let _ = write!(address, "{:032x}", self.token.0);
        address
    }
}

impl Drop for ReplyConsumer {
    fn drop(&mut self) {
        self.replies.0.lock().remove(&self.token);
    }
}

/// The token of an address.
fn token(address: &[u8]) -> Option<Token> {
    let digits = address.strip_prefix(REPLY_TO.as_bytes())?.strip_prefix(b".")?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 32)?;
    u128::from_str_radix(digits, 16).ok().map(Token)
}

/// Whether a routing key is where replies go, or went.
pub(super) fn is_address(key: &[u8]) -> bool {
    key.strip_prefix(REPLY_TO.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'.'))
}

impl Replies {
    /// Has a session's consumer of that number and tag be sent replies, by a token of these random bytes.
    pub(super) fn consume(
        self: &Arc<Self>,
        (number, tag): (u64, &str),
        seat: PushSeat,
        random: [u8; 16],
    ) -> ReplyConsumer {
        let token = Token(u128::from_be_bytes(random));
        self.0.lock().insert(token, LiveConsumer::new(seat, number, WAITING));
        ReplyConsumer { tag: tag.into(), number, token, replies: self.clone() }
    }

    /// Whether what a client names is there.
    pub(super) fn is_there(&self, address: &str) -> bool {
        address == REPLY_TO || self.consumer(address.as_bytes()).is_some()
    }

    fn consumer(&self, address: &[u8]) -> Option<LiveConsumer> {
        self.0.lock().get(&token(address)?).cloned()
    }

    /// Leaves a reply for the channel that asked. Tells whether it was taken: the channel may have gone, or takes none of what waits already.
    pub(super) fn leave(&self, reply: Reply, wakes: &mut WakeBatch) -> bool {
        let Some(consumer) = self.consumer(&reply.routing_key) else { return false };
        let bytes = reply.bytes();
        consumer.leave(Arc::new(reply), bytes, wakes).is_ok()
    }
}

impl AmqpSession {
    /// Sends a reply to the channel that asked, unless what it consumed replies with has ended.
    pub(super) fn deliver_reply(&mut self, delivery: &LiveDelivery, io: &mut Io) {
        let number = channel_of(delivery.consumer);
        let Some(channel) = number.and_then(|number| self.channels.get_mut(&number)) else { return };
        let is_its = |consumer: &ReplyConsumer| consumer.number == delivery.consumer;
        let (Some(number), true) = (number, channel.replies.as_ref().is_some_and(is_its)) else { return };
        let Some(reply) = delivery.message.downcast_ref::<Reply>() else { return };
        let delivery_tag = channel.next_tag();
        let Some(consumer) = &channel.replies else { return };
        let deliver = BasicDeliver {
            consumer_tag: ShortStr::cut(&consumer.tag),
            delivery_tag,
            redelivered: false,
            exchange: ShortBytes::new(&reply.exchange).unwrap_or_default(),
            routing_key: ShortBytes::new(&reply.routing_key).unwrap_or_default(),
        };
        let (body, frame_max) = (ContentBody::of(reply.body.clone()), self.machine.frame_max());
        if self.out.content(number, &deliver, &reply.properties, &body, frame_max).is_err() {
            let text = format!("a reply needs a larger frame_max than {frame_max} for its properties");
            self.fail(number, ChannelException::precondition_failed(text));
        }
        if self.out.len() >= AT_ONCE {
            self.put_out(io);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_consumers_for_as_long_as_it_is_there() {
        let replies = Arc::new(Replies::default());
        let outbox = sabir_base::outbox::Outbox::new();
        let consumer = replies.consume((1, "c"), outbox.seat(), [7; 16]);
        let address = consumer.address();
        assert_eq!(address, format!("amq.rabbitmq.reply-to.{}", "07".repeat(16)));
        assert!(is_address(address.as_bytes()) && replies.is_there(&address) && replies.is_there(REPLY_TO));
        for other in [&address[..address.len() - 1], "amq.rabbitmq.reply-to.", "amq.rabbitmq.reply-to.7"] {
            assert!(is_address(other.as_bytes()) && !replies.is_there(other), "{other}");
        }
        assert!(!is_address(REPLY_TO.as_bytes()) && !is_address(b"amq.rabbitmq.reply-tox"));
        drop(consumer);
        assert!(!replies.is_there(&address));
    }
}
