//! Queues that sessions have for themselves.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use sabir_model::TopicId;

use crate::caller::SessionId;

/// Which session made which exclusive queue, in this run of the node: sessions of an earlier one are gone, and no session has theirs.
#[derive(Debug, Default)]
pub(crate) struct ExclusiveOwners(Mutex<FxHashMap<TopicId, SessionId>>);

impl ExclusiveOwners {
    /// A session makes such a queue: before it is shown, so that no session finds it without an owner.
    pub(crate) fn own(&self, queue: TopicId, session: SessionId) {
        self.0.lock().insert(queue, session);
    }

    /// The session that has it.
    pub(crate) fn owner(&self, queue: TopicId) -> Option<SessionId> {
        self.0.lock().get(&queue).copied()
    }

    /// There is no such queue, or not any more.
    pub(crate) fn forget(&self, queue: TopicId) {
        self.0.lock().remove(&queue);
    }
}
