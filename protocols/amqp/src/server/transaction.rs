//! What a channel's client wants to take effect together, held until it commits.

use std::sync::Arc;

use bytes::Bytes;
use sabir_broker::exchange::RoutedTargets;

use super::mandatory::KeptMessage;
use super::records::Envelope;
use super::settling::Fate;
use super::unacked::Delivered;
use crate::wire::FrameBuffer;

/// Bytes that something held is counted with beside its own.
const BESIDE: usize = 128;

/// What a channel holds.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) messages: Vec<HeldMessage>,
    /// What became of deliveries, in the order in which it was said.
    pub(super) settled: Vec<(Fate, Delivered)>,
    /// Messages that no queue takes, as the frames in which they go back.
    pub(super) returns: Vec<Bytes>,
    bytes: usize,
}

/// A message that is published when its transaction is committed, to where it was routed when it came.
#[derive(Debug)]
pub(super) struct HeldMessage {
    pub(super) routed: Arc<RoutedTargets>,
    pub(super) is_mandatory: bool,
    pub(super) message: KeptMessage,
}

impl Transaction {
    /// Bytes that are counted for all that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Deliveries to consumers that it settles.
    pub(super) fn delivered(&self) -> u64 {
        let to_consumers = self.settled.iter().filter(|(_, delivered)| delivered.consumer.is_some());
        to_consumers.map(|(_, delivered)| delivered.count()).sum()
    }

    pub(super) fn hold(
        &mut self,
        routed: Arc<RoutedTargets>,
        is_mandatory: bool,
        envelope: &Envelope<'_>,
        body: &[u8],
    ) {
        let message = KeptMessage::new(envelope, body);
        self.bytes += message.size();
        self.messages.push(HeldMessage { routed, is_mandatory, message });
    }

    pub(super) fn give_back(&mut self, mut frames: FrameBuffer) {
        let frames = frames.take_all();
        self.bytes += frames.len() + BESIDE;
        self.returns.push(frames);
    }

    pub(super) fn settle(&mut self, fate: Fate, delivered: Vec<Delivered>) {
        self.bytes += delivered.len() * BESIDE;
        self.settled.extend(delivered.into_iter().map(|delivered| (fate, delivered)));
    }
}
