//! The projections of front ends: each is made when the first of its entries is applied, and of what a checkpoint has of it.

use std::sync::Arc;

use sabir_journal::EntryView;
use sabir_journal::pages::PageError;
use sabir_model::{DecodeError, FrontendNo, PartitionId};

use super::{At, EntryError, Outcome, ShardParts, StoredMaps, bad_body, payload, prefixes};
use crate::codec::{Reader, put_len, put_str, put_u32};
use crate::entry::FrontendBody;
use crate::projection::{Effects, FrontendProjection, Maps, ProjectionFactory};

/// The projections of front ends in a shard.
#[derive(Default)]
pub(crate) struct FrontendProjections {
    /// Those that this program has.
    known: Arc<[ProjectionFactory]>,
    /// Those that the shard has heard of, by number.
    bound: Vec<Bound>,
    /// Those that it heard of first in the block applied last.
    pub(crate) fresh: Vec<FrontendNo>,
    /// Whether a checkpoint is under way. A projection that is made meanwhile is not in it, but takes part, as one that was empty at the cut.
    pub(super) checkpoint_under_way: bool,
}

struct Bound {
    number: FrontendNo,
    name: &'static str,
    /// The numbers of its maps.
    maps: Vec<u8>,
    projection: Box<dyn FrontendProjection>,
}

/// A projection's number and name, as the page of what there is one of has them.
pub(super) type Named = (FrontendNo, String);

impl FrontendProjections {
    pub(crate) fn new(known: Arc<[ProjectionFactory]>) -> Self {
        Self { known, ..Self::default() }
    }

    /// As the last checkpoint left them.
    pub(super) fn restore(
        known: Arc<[ProjectionFactory]>,
        named: &[Named],
        stored: &StoredMaps<'_>,
    ) -> Result<Self, PageError> {
        let mut all = Self::new(known);
        for (number, name) in named {
            let factory = all.factory(name).ok_or_else(|| undecodable(unknown(name)))?;
            all.bind(*number, factory, Some(stored))?;
        }
        Ok(all)
    }

    fn factory(&self, name: &str) -> Option<ProjectionFactory> {
        self.known.iter().find(|factory| factory.name == name).copied()
    }

    fn bind(
        &mut self,
        number: FrontendNo,
        factory: ProjectionFactory,
        stored: Option<&StoredMaps<'_>>,
    ) -> Result<(), PageError> {
        let mut maps = Maps::new(number, stored);
        let mut projection = (factory.make)(&mut maps)?;
        if self.checkpoint_under_way {
            projection.maps().into_iter().for_each(|map| map.begin_checkpoint());
        }
        let at = self.bound.partition_point(|bound| bound.number < number);
        self.bound.insert(at, Bound { number, name: factory.name, maps: maps.made(), projection });
        Ok(())
    }

    /// A block begins.
    pub(super) fn begin_block(&mut self) {
        self.fresh.clear();
    }

    pub(super) fn apply(
        &mut self,
        entry: &EntryView<'_>,
        at: &At,
        shard: ShardParts<'_>,
    ) -> Result<Outcome, EntryError> {
        let body = FrontendBody::decode(entry.body).map_err(|source| bad_body(entry, source))?;
        let (index, number) = (entry.index, body.number);
        let offset = match body.batches.is_empty() {
            true => 0,
            false => whole_payload(entry, &body)?,
        };
        self.learn(index, &body)?;
        let bound = self.find(number).ok_or(EntryError::Unnamed { index, number: number.0 })?;
        let mut effects =
            Effects::new(number, shard, at, body.seed.unwrap_or(0), body.batches, (index, offset));
        let bytes = bound
            .projection
            .apply(body.command, &mut effects)
            .map_err(|source| EntryError::Frontend { index, name: bound.name, source })?;
        Ok(Outcome::Projection(Box::new(effects.into_answer(bytes))))
    }

    /// A partition of the shard was deleted.
    pub(super) fn partition_gone(&mut self, id: PartitionId) {
        self.bound.iter_mut().for_each(|bound| bound.projection.partition_gone(id));
    }

    fn find(&mut self, number: FrontendNo) -> Option<&mut Bound> {
        let at = self.bound.binary_search_by_key(&number, |bound| bound.number).ok()?;
        Some(&mut self.bound[at])
    }

    /// Takes in whose a number is, if it is new and the entry says so.
    fn learn(&mut self, index: u32, body: &FrontendBody<'_>) -> Result<(), EntryError> {
        let Some(name) = body.name else { return Ok(()) };
        let refused = |reason| EntryError::Projection { index, reason };
        match self.find(body.number).map(|bound| bound.name) {
            Some(known) if known == name => return Ok(()),
            Some(known) => return Err(refused(format!("number {} is {known}'s, not {name}'s", body.number))),
            None => {}
        }
        let factory = self.factory(name).ok_or_else(|| refused(unknown(name)))?;
        self.bind(body.number, factory, None).map_err(|error| refused(error.to_string()))?;
        self.fresh.push(body.number);
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(dyn FrontendProjection + 'static)> {
        self.bound.iter().map(|bound| &*bound.projection)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut (dyn FrontendProjection + 'static)> {
        self.bound.iter_mut().map(|bound| &mut *bound.projection)
    }

    /// The projection of that number with its name, once the shard has heard of it.
    pub(crate) fn get(
        &self,
        number: FrontendNo,
    ) -> Option<(&'static str, &(dyn FrontendProjection + 'static))> {
        let at = self.bound.binary_search_by_key(&number, |bound| bound.number).ok()?;
        Some((self.bound[at].name, &*self.bound[at].projection))
    }

    /// The numbers that the shard has heard of.
    pub(crate) fn numbers(&self) -> Vec<FrontendNo> {
        self.bound.iter().map(|bound| bound.number).collect()
    }

    #[cfg(test)]
    pub(crate) fn known(&self) -> Arc<[ProjectionFactory]> {
        self.known.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bound.is_empty()
    }

    /// What the keys of their maps begin with.
    pub(super) fn prefixes(&self) -> Vec<Vec<u8>> {
        let of = |bound: &Bound| {
            let number = bound.number;
            bound.maps.iter().map(move |map| prefixes::of_front_end(number, *map)).collect::<Vec<_>>()
        };
        self.bound.iter().flat_map(of).collect()
    }

    /// Puts a list of their numbers and names.
    pub(super) fn put_names(&self, out: &mut Vec<u8>) {
        put_len(out, self.bound.len());
        for bound in &self.bound {
            put_u32(out, bound.number.0.into());
            put_str(out, bound.name);
        }
    }

    /// What a map is called that the checkpoint lists and no projection here makes.
    pub(super) fn describe(&self, prefix: &[u8]) -> String {
        let own = prefix.strip_prefix(prefixes::FRONT_ENDS).and_then(|rest| <[u8; 3]>::try_from(rest).ok());
        match own {
            Some([high, low, map]) => {
                let number = FrontendNo(u16::from_be_bytes([high, low]));
                let known = self.bound.iter().find(|bound| bound.number == number);
                let whose =
                    known.map_or_else(|| format!("front end {number}"), |bound| bound.name.to_owned());
                format!("map {map} of {whose}")
            }
            None => format!("map `{}`", String::from_utf8_lossy(prefix)),
        }
    }
}

/// Reads one entry of the list that [`FrontendProjections::put_names`] puts.
pub(super) fn take_name(input: &mut Reader<'_>) -> Result<Named, DecodeError> {
    Ok((input.front_end()?, input.str()?.to_owned()))
}

fn unknown(name: &str) -> String {
    format!("the shard has state of the front end {name}, which this version does not know")
}

pub(super) fn undecodable(detail: String) -> PageError {
    PageError::Undecodable { key: prefixes::SHARD.to_vec(), detail }
}

/// Where the payload lies, all of which is batches.
fn whole_payload(entry: &EntryView<'_>, body: &FrontendBody<'_>) -> Result<u32, EntryError> {
    let (offset, len) = payload(entry)?;
    let sum = body.batches.iter().try_fold(0u32, |sum, batch| sum.checked_add(batch.len));
    match sum == Some(len) {
        true => Ok(offset),
        false => Err(bad_body(entry, DecodeError::Field("lengths of batches"))),
    }
}
