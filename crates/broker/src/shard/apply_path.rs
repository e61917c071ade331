//! The apply path: from what the replicator made final to the projections, their checkpoints, and the waiters.

use std::sync::atomic::{AtomicBool, AtomicI64};

use parking_lot::Mutex;
use sabir_base::drain_loop::DrainLoop;

use super::checkpoint::Checkpointer;
use super::crowd::Crowd;
use super::dead_segments::DelayedSurvey;
use super::drive::Worker;
use super::late::LateAnswers;
use super::leadership::Leadership;
use super::signal::Signal;

/// What drives a shard: it applies blocks, answers, and sees to what follows from them.
pub(super) struct ApplyPath {
    pub(super) driving: DrainLoop,
    /// Only the thread that is in that loop locks it.
    pub(super) worker: Mutex<Worker>,
    /// Whether a block is in no flight any more and not applied yet.
    pub(super) is_applying: AtomicBool,
    /// Raised by the replicator where it has no event descriptor, or something that it does not show.
    pub(super) signal: Signal,
    /// Whether an I/O thread watches the descriptors.
    pub(super) watched: AtomicBool,
    pub(super) checkpointer: Mutex<Checkpointer>,
    /// What the checkpointer last found of delayed messages on a full disk.
    pub(super) delayed: Mutex<DelayedSurvey>,
    pub(super) crowd: Crowd,
    pub(super) late: LateAnswers,
    pub(super) leadership: Leadership,
    /// How many bytes of commits of positions the space is for that is kept for a checkpoint. Where the disk has no more they end with that.
    pub(super) commit_room: AtomicI64,
    /// Whether the disk had no space for the next checkpoint when it was last asked.
    pub(super) lacks_room: AtomicBool,
    /// Whether something panicked and the waiters have not been told yet.
    pub(super) panicked: AtomicBool,
}

impl ApplyPath {
    pub(super) fn new(signal: Signal, checkpointer: Checkpointer) -> Self {
        Self {
            driving: DrainLoop::default(),
            worker: Mutex::new(Worker::default()),
            is_applying: AtomicBool::new(false),
            signal,
            watched: AtomicBool::new(false),
            checkpointer: Mutex::new(checkpointer),
            delayed: Mutex::default(),
            crowd: Crowd::default(),
            late: LateAnswers::default(),
            leadership: Leadership::default(),
            commit_room: AtomicI64::new(i64::MAX),
            lacks_room: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        }
    }
}
