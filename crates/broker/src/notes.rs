//! What each shard's slot says of the time and of other shards, so that a start after a crash knows how long it was off, and notices an
//! older copy of one of them.

use std::sync::{Arc, Weak};

use sabir_base::node_time::NodeClock;
use sabir_journal::{Journal, SHARD_ENDS, ShardEnds, SlotNotes};
use sabir_model::ShardId;

use crate::shard::Shard;

type Journals = Vec<(ShardId, Weak<Journal>)>;

/// Has every shard's slot say so from now on.
pub(crate) fn keep(shards: &[Arc<Shard>], clock: &Arc<NodeClock>) {
    for at in 0..shards.len() {
        let (others, clock) = (others(shards, at), clock.clone());
        let notes = move || SlotNotes { clock: Some(clock.note()), ends: ends(&others) };
        shards[at].journal.set_notes(Arc::new(notes));
    }
}

/// The shards that follow this one, from the last to the first again: so each is noted by as many as it notes itself.
fn others(shards: &[Arc<Shard>], at: usize) -> Journals {
    let following = shards.iter().cycle().skip(at + 1).take((shards.len() - 1).min(SHARD_ENDS));
    following.map(|shard| (shard.id, Arc::downgrade(&shard.journal))).collect()
}

fn ends(others: &Journals) -> ShardEnds {
    let mut ends = ShardEnds::default();
    for (end, (shard, journal)) in ends.iter_mut().zip(others) {
        *end = (*shard, journal.upgrade().map(|journal| journal.kept()).unwrap_or_default());
    }
    ends
}
