//! The ids of messages that queues remember, so that what comes twice is there once.

use rustc_hash::FxHashMap;
use sabir_delivery::policy::{DedupLimit, DedupPage, DedupPages, DedupWindow};
use sabir_journal::pages::{PageDecodeError, PageError, PageKey, PageValue, Paged};
use sabir_model::PartitionId;

use super::{StoredMaps, prefixes};
use crate::projection::PageMap;

/// A page of a queue's ids; stored as both numbers, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MessageIdsKey {
    partition: PartitionId,
    number: u64,
}

impl PageKey for MessageIdsKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.partition.0.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let wrong = || PageDecodeError("the key of a page of message ids has 16 bytes".into());
        let both: [u8; 16] = bytes.try_into().map_err(|_| wrong())?;
        let both = u128::from_be_bytes(both);
        Ok(Self { partition: PartitionId((both >> 64) as u64), number: both as u64 })
    }
}

/// A page of ids, as it is stored.
#[derive(Debug, Default)]
struct MessageIdsPage(DedupPage);

impl PageValue for MessageIdsPage {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        DedupPage::decode(bytes).map(Self).map_err(|error| PageDecodeError(error.to_string()))
    }
}

/// Those of all queues of a shard.
#[derive(Debug)]
pub(crate) struct MessageIds {
    pages: Paged<MessageIdsKey, MessageIdsPage>,
    /// What follows from the pages.
    windows: FxHashMap<PartitionId, DedupWindow>,
}

impl Default for MessageIds {
    fn default() -> Self {
        Self { pages: Paged::new(prefixes::MESSAGE_IDS), windows: FxHashMap::default() }
    }
}

/// The pages of one queue.
struct PagesOf<'a> {
    partition: PartitionId,
    pages: &'a mut Paged<MessageIdsKey, MessageIdsPage>,
}

impl DedupPages for PagesOf<'_> {
    fn look(&self, number: u64) -> Option<&DedupPage> {
        self.pages.get(&MessageIdsKey { partition: self.partition, number }).map(|page| &page.0)
    }

    fn page(&mut self, number: u64) -> &mut DedupPage {
        let key = MessageIdsKey { partition: self.partition, number };
        &mut self.pages.get_or_insert_with(key, MessageIdsPage::default).0
    }

    fn remove(&mut self, number: u64) {
        self.pages.remove(&MessageIdsKey { partition: self.partition, number });
    }
}

impl MessageIds {
    pub(crate) fn restore(maps: &StoredMaps<'_>) -> Result<Self, PageError> {
        let pages: Paged<MessageIdsKey, MessageIdsPage> = maps.restore(prefixes::MESSAGE_IDS)?;
        let mut sorted: Vec<(&MessageIdsKey, &MessageIdsPage)> = pages.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| **key);
        let mut windows = FxHashMap::default();
        for of_one in sorted.chunk_by(|a, b| a.0.partition == b.0.partition) {
            let key = of_one[0].0;
            let window = DedupWindow::restore(of_one.iter().map(|(key, page)| (key.number, &page.0)));
            let window = window.map_err(|error| undecodable(key, &error.to_string()))?;
            windows.insert(key.partition, window);
        }
        Ok(Self { pages, windows })
    }

    /// Whether a queue has had a message with this id within the limit. Remembers it if not.
    pub(crate) fn is_known(
        &mut self,
        partition: PartitionId,
        id: u128,
        time_ms: i64,
        limit: &DedupLimit,
    ) -> bool {
        let window = self.windows.entry(partition).or_default();
        window.is_known(id, time_ms, limit, &mut PagesOf { partition, pages: &mut self.pages })
    }

    /// Forgets all ids of a queue.
    pub(crate) fn remove_all_of(&mut self, partition: PartitionId) {
        let Some(window) = self.windows.remove(&partition) else { return };
        for number in window.pages() {
            self.pages.remove(&MessageIdsKey { partition, number });
        }
    }

    /// How many ids are remembered.
    pub(crate) fn len(&self) -> usize {
        self.windows.values().map(DedupWindow::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(crate) fn pages(&mut self) -> &mut dyn PageMap {
        &mut self.pages
    }
}

fn undecodable(key: &MessageIdsKey, detail: &str) -> PageError {
    let mut stored = prefixes::MESSAGE_IDS.to_vec();
    key.encode(&mut stored);
    PageError::Undecodable { key: stored, detail: detail.into() }
}
