//! Which messages of a channel are confirmed: in the order of their tags, as few confirmations as that takes.

use std::collections::VecDeque;
use std::ops::Range;

use crate::wire::{BasicAck, BasicNack, FrameBuffer};

/// Marks a message that was refused somewhere. The other bits count the publishes of it that are not decided.
const REFUSED: u8 = 1 << 7;

/// A channel's messages that are not confirmed.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// The last tag that was confirmed.
    confirmed: u64,
    /// What is known of those behind it.
    fates: VecDeque<u8>,
}

impl Confirms {
    /// The tag of another message, for which so many publishes are made.
    pub(super) fn publish(&mut self, publishes: usize) -> u64 {
        let open = u8::try_from(publishes).unwrap_or(u8::MAX);
        debug_assert!(open < REFUSED, "there is a publish for each of a few codecs");
        self.fates.push_back(open);
        self.confirmed + self.fates.len() as u64
    }

    /// Messages are refused by one of those that they are for.
    pub(super) fn refuse(&mut self, tags: Range<u64>) {
        self.range(tags).for_each(|fate| *fate |= REFUSED);
    }

    /// A publish of these messages is decided.
    pub(super) fn decide(&mut self, tags: Range<u64>) {
        self.range(tags).for_each(|fate| *fate -= 1);
    }

    fn range(&mut self, tags: Range<u64>) -> impl Iterator<Item = &mut u8> {
        let place = |tag: u64| (tag - self.confirmed - 1) as usize;
        self.fates.range_mut(place(tags.start)..place(tags.end))
    }

    /// Says what is known of the first ones.
    pub(super) fn say(&mut self, channel: u16, out: &mut FrameBuffer) {
        while let Some(fate) = self.fates.front().copied().filter(|fate| fate & !REFUSED == 0) {
            let alike = self.fates.iter().take_while(|other| **other == fate).count();
            self.fates.drain(..alike);
            self.confirmed += alike as u64;
            let (delivery_tag, multiple) = (self.confirmed, alike > 1);
            match fate {
                0 => out.arguments(channel, &BasicAck { delivery_tag, multiple }),
                _ => out.arguments(channel, &BasicNack { delivery_tag, multiple, requeue: false }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Frame, Method};

    fn said(confirms: &mut Confirms) -> Vec<(bool, u64, bool)> {
        let mut out = FrameBuffer::new();
        confirms.say(1, &mut out);
        let (bytes, mut at, mut all) = (out.take_all(), 0, Vec::new());
        while let Some(frame) = Frame::next(&bytes, &mut at, 4096).unwrap() {
            all.push(match Method::read(frame.payload).unwrap() {
                Method::BasicAck(ack) => (true, ack.delivery_tag, ack.multiple),
                Method::BasicNack(nack) => (false, nack.delivery_tag, nack.multiple),
                other => panic!("{other:?}"),
            });
        }
        all
    }

    #[test]
    fn confirmations_come_in_the_order_of_the_tags_and_together() {
        let mut confirms = Confirms::default();
        assert_eq!((0..6).map(|_| confirms.publish(1)).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        confirms.decide(2..4);
        assert_eq!(said(&mut confirms), [], "the first one is open");
        confirms.decide(1..2);
        assert_eq!(said(&mut confirms), [(true, 3, true)]);
        confirms.decide(6..7);
        confirms.refuse(4..5);
        confirms.decide(4..5);
        assert_eq!(said(&mut confirms), [(false, 4, false)]);
        confirms.decide(5..6);
        assert_eq!(said(&mut confirms), [(true, 6, true)]);
        assert_eq!(confirms.publish(0), 7);
        assert_eq!(said(&mut confirms), [(true, 7, false)], "what goes nowhere is taken");
    }

    #[test]
    fn a_message_is_decided_when_all_of_its_publishes_are() {
        let mut confirms = Confirms::default();
        for _ in 0..3 {
            confirms.publish(2);
        }
        confirms.refuse(2..3);
        confirms.decide(1..4);
        assert_eq!(said(&mut confirms), []);
        confirms.decide(1..4);
        assert_eq!(said(&mut confirms), [(true, 1, false), (false, 2, false), (true, 3, false)]);
    }
}
