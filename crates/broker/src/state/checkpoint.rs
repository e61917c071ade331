//! Projections to pages and back.

use std::sync::Arc;

use sabir_journal::pages::{
    Budget, PageBatch, PageCapture, PageChange, PageDecodeError, PageError, PageKey, PageStore, PageValue,
    Paged, StoredMark,
};
use sabir_model::{DecodeError, Sequence, Term};

use super::front_ends::{Named, take_name, undecodable};
use super::{
    CoreProjection, Counters, FrontendProjections, Partitions, ShardState, SubscriptionTable, TimerTable,
    prefixes,
};
use crate::catalog::{Catalog, Singles};
use crate::codec::{Reader, put_bytes, put_i64, put_len, put_u64};
use crate::exchange::ExchangeTable;
use crate::group::GroupTable;
use crate::level::FormatLevel;
use crate::projection::{PageMap, ProjectionFactory};

/// The forms of the page of what there is one of in a shard: the first one names neither the level nor the maps.
const FORM_1: u8 = 1;
/// One without front ends' projections.
const FORM_2: u8 = 2;
/// Behind the maps come the numbers and names of the front ends' projections.
const FORM: u8 = 3;

/// The maps that a checkpoint lists. One that it lacks is newer than it and starts empty; of one that it lists nothing may be missing.
pub(crate) struct StoredMaps<'a> {
    store: &'a dyn PageStore,
    listed: Vec<Vec<u8>>,
    /// What there is one of in the catalog.
    pub(crate) singles: Singles,
}

impl<'a> StoredMaps<'a> {
    /// Fails where one is listed that this version does not know: to go on without it would lose it.
    fn check(&self, front_ends: &FrontendProjections) -> Result<(), PageError> {
        let own = front_ends.prefixes();
        let core = [&prefixes::MAPS[..], &prefixes::QUEUE_MAPS, &prefixes::FILLED_MAPS].concat();
        let known = |map: &Vec<u8>| core.contains(&map.as_slice()) || own.contains(map);
        match self.listed.iter().find(|map| !known(map)) {
            None => Ok(()),
            Some(unknown) => {
                let map = front_ends.describe(unknown);
                let detail = format!("the checkpoint holds the {map}, which this version does not know");
                Err(undecodable(detail))
            }
        }
    }

    /// Where all are listed.
    #[cfg(test)]
    pub(crate) fn all(store: &'a dyn PageStore) -> Self {
        let all = prefixes::MAPS.iter().chain(&prefixes::QUEUE_MAPS).chain(&prefixes::FILLED_MAPS);
        Self { store, listed: all.map(|map| map.to_vec()).collect(), singles: Singles::default() }
    }

    pub(crate) fn restore<K: PageKey, V: PageValue>(&self, prefix: &[u8]) -> Result<Paged<K, V>, PageError> {
        if self.lists(prefix) { Paged::restore(prefix, self.store) } else { Ok(Paged::new(prefix)) }
    }

    /// What writes the pages of a map whose values are kept in another way; `each` is given them.
    pub(crate) fn restore_pages<K: PageKey>(
        &self,
        prefix: &[u8],
        each: impl FnMut(K, &[u8], StoredMark) -> Result<(), PageDecodeError>,
    ) -> Result<PageCapture<K>, PageError> {
        if self.lists(prefix) {
            PageCapture::restore(prefix, self.store, each)
        } else {
            Ok(PageCapture::new(prefix))
        }
    }

    fn lists(&self, prefix: &[u8]) -> bool {
        self.listed.iter().any(|map| map == prefix)
    }
}

/// What is known at the moment of the cut.
pub(crate) struct Cut {
    pub(crate) sequence: Sequence,
    shard_page: Vec<u8>,
}

impl Cut {
    /// Adds what is already known to the checkpoint's batch.
    pub(crate) fn put(self, batch: &mut PageBatch) {
        batch.put(prefixes::SHARD.to_vec(), self.shard_page);
    }
}

impl ShardState {
    fn maps(&mut self) -> impl Iterator<Item = &mut dyn PageMap> {
        self.projections_mut().flat_map(|projection| projection.maps())
    }

    /// Cuts: the checkpoint is of this moment, whatever is applied while it is written; `None` within a block.
    pub(crate) fn begin_checkpoint(&mut self) -> Option<Cut> {
        if self.half_applied.is_some() {
            return None;
        }
        self.maps().for_each(|map| map.begin_checkpoint());
        self.front_ends.checkpoint_under_way = true;
        let shard_page = self.shard_page(self.level);
        Some(Cut { sequence: self.applied, shard_page })
    }

    /// Captures a bounded part of what the checkpoint under way needs; true while there is more.
    pub(crate) fn capture(&mut self) -> bool {
        let mut budget = Budget::MILLISECOND;
        self.maps().any(|map| map.capture(&mut budget))
    }

    /// What was captured since the last call.
    pub(crate) fn take_captured(&mut self) -> Vec<PageChange> {
        self.maps().flat_map(|map| map.take_captured()).collect()
    }

    pub(crate) fn checkpoint_committed(&mut self) {
        self.maps().for_each(|map| map.checkpoint_committed());
        self.front_ends.checkpoint_under_way = false;
    }

    pub(crate) fn checkpoint_failed(&mut self) {
        self.maps().for_each(|map| map.checkpoint_failed());
        self.front_ends.checkpoint_under_way = false;
    }

    /// The page of what there is one of, in the form of a level.
    pub(super) fn shard_page(&self, level: FormatLevel) -> Vec<u8> {
        let own = !self.front_ends.is_empty();
        // Where there are some the level allows it, whatever the shard was told yet: else their entries would not be there.
        let queues = level >= FormatLevel::QUEUES
            || !self.subscriptions.is_empty()
            || !self.exchanges.is_empty()
            || !self.timers.is_empty();
        let lists = level >= FormatLevel::LISTED || own || queues;
        let mut out = vec![if own {
            FORM
        } else if lists {
            FORM_2
        } else {
            FORM_1
        }];
        put_u64(&mut out, self.applied.0);
        put_u64(&mut out, self.term.0);
        put_i64(&mut out, self.time_ms);
        put_u64(&mut out, self.starts);
        self.catalog.put_singles(&mut out, lists);
        if lists {
            let of_front_ends = self.front_ends.prefixes();
            // A program that knows no queues opens no checkpoint that lists what is theirs.
            let of_queues = if queues { &prefixes::QUEUE_MAPS[..] } else { &[] };
            // Nor does one that knows no subscriptions of topics, or no message ids, where there are some.
            let named = self.subscriptions.has_named().then_some(&prefixes::NAMED_SUBSCRIPTIONS);
            let ids = (!self.partitions.message_ids.is_empty()).then_some(&prefixes::MESSAGE_IDS);
            let listed = prefixes::MAPS.iter().chain(of_queues).chain(named).chain(ids);
            put_len(&mut out, listed.clone().count() + of_front_ends.len());
            listed.for_each(|map| put_bytes(&mut out, map));
            of_front_ends.iter().for_each(|map| put_bytes(&mut out, map));
        }
        if own {
            self.front_ends.put_names(&mut out);
        }
        out
    }

    /// The projections of the last checkpoint; those of an empty journal where there is none.
    pub(crate) fn restore(store: &dyn PageStore, known: Arc<[ProjectionFactory]>) -> Result<Self, PageError> {
        let Some(page) = store.get(prefixes::SHARD)? else { return Ok(Self::new(known)) };
        let page = ShardPage::take(&page).map_err(|error| undecodable(error.to_string()))?;
        let ShardPage { applied, term, time_ms, starts, singles, maps, named } = page;
        let stored = StoredMaps { store, listed: maps, singles };
        let front_ends = FrontendProjections::restore(known, &named, &stored)?;
        stored.check(&front_ends)?;
        let catalog = Catalog::restore(&stored)?;
        let (mut partitions, mut subscriptions) =
            (Partitions::restore(&stored)?, SubscriptionTable::restore(&stored)?);
        subscriptions.backlogs().for_each(|(id, backlog)| partitions.note_backlog(id, backlog));
        partitions.deaths().for_each(|(id, deaths)| subscriptions.set_deaths(id, deaths));
        subscriptions.sealed().for_each(|id| partitions.note_sealed(id, true));
        subscriptions.subscribed().for_each(|id| partitions.note_subscribed(id, true));
        Ok(Self {
            applied,
            term,
            time_ms,
            half_applied: None,
            within_entry: false,
            starts,
            level: catalog.level(),
            partitions,
            catalog,
            groups: GroupTable::restore(&stored)?,
            subscriptions,
            timers: TimerTable::restore(&stored)?,
            exchanges: ExchangeTable::restore(&stored)?,
            front_ends,
            counters: Counters::default(),
        })
    }
}

/// The page of what there is one of.
struct ShardPage {
    applied: Sequence,
    term: Term,
    time_ms: i64,
    starts: u64,
    singles: Singles,
    maps: Vec<Vec<u8>>,
    named: Vec<Named>,
}

impl ShardPage {
    fn take(page: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(page);
        let form = input.u8()?;
        if !(FORM_1..=FORM).contains(&form) {
            return Err(DecodeError::Version(form));
        }
        let lists = form > FORM_1;
        let page = Self {
            applied: Sequence(input.u64()?),
            term: Term(input.u64()?),
            time_ms: input.i64()?,
            starts: input.u64()?,
            singles: Singles::take(&mut input, lists)?,
            maps: if lists {
                input.list(1, Reader::bytes)?
            } else {
                prefixes::MAPS.map(<[u8]>::to_vec).into()
            },
            named: if form == FORM { input.list(2, take_name)? } else { Vec::new() },
        };
        input.end()?;
        Ok(page)
    }
}
