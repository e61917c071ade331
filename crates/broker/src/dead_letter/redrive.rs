//! Redrives: an operator has dead letters go back to the queues that gave them up.
//!
//! One thread reads what is ready in a queue, a piece at a time, and has what is wanted of it come to wait for the reason *redriven*: then no consumer gets it
//! any more. The thread of dead letters sends it back (`sent_back.rs`): one entry appends a message where it goes and settles it, or has it be ready again
//! where it is, if it is not taken there. So a message that waits when the node stops goes back after the next start; the redrive is not gone on with.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_delivery::policy::DeathReason;
use sabir_delivery::subscription::MessageState;
use sabir_model::{ErrorAbout, QueueConfig, ReadError, ShardFailure, Subject};
use tracing::info;

use super::driver::DeadLetterDriver;
use super::messages::{Flow, FoundRecord, WaitingMessage, WaitingRun, each_message};
use super::sent_back::origin_named;
use super::tally::{Figures, RedriveTally};
use crate::broker::Broker;
use crate::caller::Caller;
use crate::catalog::Topic;
use crate::level::FormatLevel;
use crate::queue::{QueueError, QueueTarget};
use crate::shard::Shard;
use crate::timer::Alarm;

/// Redrives that run at a time, at the most.
pub const MOST_REDRIVES: usize = 16;
/// Those that have ended and are shown.
const SHOWN: usize = 100;
/// Messages that are looked at in one go, and that come to wait by one entry.
const PIECE: u64 = 256;
/// For how long one redrive is read for while others wait.
const TURN: Duration = Duration::from_millis(50);
/// Parts of a second in each of which so many messages go back as a limit has it.
const PARTS: u32 = 10;
/// Origins and reasons that are counted apart.
const ORIGINS: usize = 1000;

/// Which dead letters of a queue go back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedriveSpec {
    /// So many at the most, the oldest.
    pub most: Option<u64>,
    /// Those alone that the queue of this name gave up last.
    pub origin: Option<String>,
    /// Those alone that it gave up for this reason.
    pub reason: Option<DeathReason>,
    /// So many a second at the most.
    pub per_second: Option<u32>,
    /// None does: they are counted.
    pub dry_run: bool,
}

/// Why no redrive begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedriveRefused {
    /// A client asked.
    #[error("only an operator has dead letters go back")]
    NotOperator,
    /// The queue cannot be used so.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// None, or none a second, is wanted.
    #[error("a redrive moves at least one message, and at least one a second")]
    Nothing,
    /// One of the queue's is running.
    #[error("a redrive of this queue is running: wait for it, or cancel it")]
    IsRunning,
    /// As many are running as may.
    #[error("{MOST_REDRIVES} redrives are running, and no more do: wait for one, or cancel it")]
    TooMany,
    /// The data directory is of a format level that has none.
    #[error("redrives need format level {needs}, and the data directory has {has}: raise data.format_level")]
    NeedsLevel {
        /// The directory's.
        has: u32,
        /// The one it takes.
        needs: u32,
    },
}

impl From<ShardFailure> for RedriveRefused {
    fn from(failure: ShardFailure) -> Self {
        Self::Queue(failure.into())
    }
}

/// How a redrive stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedriveState {
    /// It goes on.
    Running,
    /// It has come to the message that was the queue's last when it began, or has moved as many as were wanted.
    Done,
    /// It was cancelled.
    Cancelled,
    /// The queue is gone, or its shard takes no entries.
    Failed(QueueError),
    /// The queue cannot be read now.
    Unreadable(ReadError),
}

/// Messages that one queue gave up for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedriveOrigin {
    /// That queue.
    pub queue: String,
    /// The reason.
    pub reason: DeathReason,
    /// How many.
    pub messages: u64,
    /// Whether that queue is there: else they stay.
    pub is_there: bool,
}

/// How far a redrive has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedriveProgress {
    /// How it stands.
    pub state: RedriveState,
    /// What has become of the messages that it has come to.
    pub counts: RedriveCounts,
    /// Those that are wanted, and what gave them up, by its name; of a thousand origins and reasons, what is in others is in `wanted` alone.
    pub origins: Vec<RedriveOrigin>,
}

/// How many messages of a redrive came to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RedriveCounts {
    /// Messages that it has looked at.
    pub read: u64,
    /// Those of them that go back, or would.
    pub wanted: u64,
    /// Those that went back.
    pub moved: u64,
    /// Those that the queue which gave them up did not take: it is full, or gone since. They stay.
    pub refused: u64,
    /// Those that are to go back, and have not come there. They go whatever becomes of the redrive.
    pub waiting: u64,
    /// Those that a consumer had got.
    pub taken: u64,
    /// Those of which the queue that gave them up is not there: they stay.
    pub origin_gone: u64,
    /// Those that say of no queue that it gave them up: they stay.
    pub without_origin: u64,
    /// Those that cannot be read: they stay.
    pub unreadable: u64,
}

/// A redrive, running or ended.
#[derive(Debug, Clone)]
pub struct Redrive(Arc<Job>);

#[derive(Debug)]
struct Job {
    number: u64,
    topic: Arc<Topic>,
    target: QueueTarget,
    spec: RedriveSpec,
    /// Those published later are not looked at, such as come back.
    until: u64,
    tally: Arc<RedriveTally>,
    alarm: Arc<Alarm>,
    is_cancelled: AtomicBool,
    work: Mutex<Work>,
}

/// How far it has come.
#[derive(Debug)]
struct Work {
    state: RedriveState,
    /// The next message to look at.
    at: u64,
    /// No more messages come to wait before then.
    not_before: Instant,
    /// But for what the tally has.
    counts: RedriveCounts,
    origins: BTreeMap<(String, DeathReason), Origin>,
}

#[derive(Debug, Clone, Copy)]
struct Origin {
    messages: u64,
    is_there: bool,
}

/// What a message is to a redrive.
enum Judged {
    Wanted { origin: String, reason: DeathReason, is_there: bool },
    Other,
    WithoutOrigin,
    Unreadable,
}

impl Redrive {
    /// Its number, in the life of the process.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// The queue whose messages go back.
    pub fn queue(&self) -> &Topic {
        &self.0.topic
    }

    /// Which of them.
    pub fn spec(&self) -> &RedriveSpec {
        &self.0.spec
    }

    /// How far it has come.
    pub fn progress(&self) -> RedriveProgress {
        self.0.progress()
    }

    /// Whether it goes on.
    pub fn is_running(&self) -> bool {
        self.0.is_running()
    }

    /// Ends it. What is on its way back goes there.
    pub fn cancel(&self) {
        self.0.is_cancelled.store(true, SeqCst);
        self.0.alarm.raise();
    }
}

impl Job {
    fn is_running(&self) -> bool {
        self.work.lock().state == RedriveState::Running
    }

    fn progress(&self) -> RedriveProgress {
        let (work, figures) = (self.work.lock(), self.tally.figures());
        let of = |((queue, reason), origin): (&(String, DeathReason), &Origin)| RedriveOrigin {
            queue: queue.clone(),
            reason: *reason,
            messages: origin.messages,
            is_there: origin.is_there,
        };
        let Figures { waiting, moved, stayed, .. } = figures;
        RedriveProgress {
            state: work.state,
            counts: RedriveCounts { moved, refused: stayed, waiting, ..work.counts },
            origins: work.origins.iter().map(of).collect(),
        }
    }
}

/// What runs redrives.
pub(crate) struct RedriveDriver {
    letters: Arc<DeadLetterDriver>,
    alarm: Arc<Alarm>,
    is_closed: AtomicBool,
    jobs: Mutex<Jobs>,
}

/// Those that run and those that ended last, by number.
#[derive(Default)]
struct Jobs {
    last: u64,
    all: Vec<Arc<Job>>,
}

impl Broker {
    /// Has dead letters of a queue go back to the queues that gave them up, while the node runs and until all have.
    ///
    /// # Errors
    /// See [`RedriveRefused`].
    pub fn redrive(
        &self,
        caller: &Caller,
        queue: &Arc<Topic>,
        spec: RedriveSpec,
    ) -> Result<Redrive, ErrorAbout<RedriveRefused>> {
        self.begin_redrive(caller, queue, spec)
            .map_err(|error| ErrorAbout::new(error, Subject::Queue(queue.name.as_ref().into())))
    }

    fn begin_redrive(
        &self,
        caller: &Caller,
        queue: &Arc<Topic>,
        spec: RedriveSpec,
    ) -> Result<Redrive, RedriveRefused> {
        caller.may_redrive()?;
        let target = QueueTarget::of(caller, queue)?;
        let (has, needs) = (self.format_level(), FormatLevel::RETRIES);
        if has < needs {
            return Err(RedriveRefused::NeedsLevel { has: has.number(), needs: needs.number() });
        }
        if spec.most == Some(0) || spec.per_second == Some(0) {
            return Err(RedriveRefused::Nothing);
        }
        self.inner.redrives.begin(queue, target, spec)
    }

    /// The redrives that are running, and those that ended last, by number.
    ///
    /// # Errors
    /// A client asks; it names no queue.
    pub fn redrives(&self, caller: &Caller) -> Result<Vec<Redrive>, ErrorAbout<RedriveRefused>> {
        caller.may_redrive()?;
        Ok(self.inner.redrives.jobs.lock().all.iter().cloned().map(Redrive).collect())
    }
}

impl RedriveDriver {
    pub(crate) fn new(letters: Arc<DeadLetterDriver>) -> Arc<Self> {
        Arc::new(Self {
            letters,
            alarm: Arc::default(),
            is_closed: AtomicBool::new(false),
            jobs: Mutex::default(),
        })
    }

    /// What wakes the thread.
    pub(crate) fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// The node is going down: what has not come to wait stays where it is.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, SeqCst);
        self.alarm.raise();
    }

    /// Runs what there is until it is time to end.
    pub(crate) fn run(&self, has_ended: impl Fn() -> bool) {
        while !has_ended() {
            let jobs: Vec<_> = self.jobs.lock().all.iter().filter(|job| job.is_running()).cloned().collect();
            let mut again: Option<Duration> = None;
            for job in jobs {
                let Some(shard) = self.shard(&job) else { continue };
                let mut after = None;
                if !shard.contain("redrive dead letters", || after = self.step(shard, &job)) {
                    after = Some(Duration::ZERO);
                }
                again = again.into_iter().chain(after).min();
            }
            self.alarm.wait(again);
        }
    }

    fn shard(&self, job: &Job) -> Option<&Arc<Shard>> {
        self.letters.shards.get(job.target.shard().0 as usize)
    }

    fn begin(
        &self,
        topic: &Arc<Topic>,
        target: QueueTarget,
        spec: RedriveSpec,
    ) -> Result<Redrive, RedriveRefused> {
        let (shard, queue) = (self.letters.shards.get(target.shard().0 as usize), target.subscription());
        let shard = shard.ok_or(QueueError::Unknown)?;
        let (at, until) = {
            let state = shard.state.read();
            let queue = state.subscriptions.get(queue).ok_or(QueueError::Unknown)?;
            (queue.floor(), queue.end())
        };
        let mut jobs = self.jobs.lock();
        if jobs.all.iter().filter(|job| job.is_running()).count() >= MOST_REDRIVES {
            return Err(RedriveRefused::TooMany);
        }
        let tally = Arc::new(RedriveTally::new(queue, self.alarm.clone()));
        if !shard.dead_letters.redrives.begin(&tally) {
            return Err(RedriveRefused::IsRunning);
        }
        jobs.last += 1;
        let job = Arc::new(Job {
            number: jobs.last,
            topic: topic.clone(),
            target,
            spec,
            until,
            tally,
            alarm: self.alarm.clone(),
            is_cancelled: AtomicBool::new(false),
            work: Mutex::new(Work {
                state: RedriveState::Running,
                at,
                not_before: Instant::now(),
                counts: RedriveCounts::default(),
                origins: BTreeMap::new(),
            }),
        });
        jobs.add(job.clone());
        drop(jobs);
        let (RedriveSpec { most, origin, reason, per_second, dry_run }, number) = (&job.spec, job.number);
        info!(
            redrive = number,
            queue = %topic.name,
            namespace = %topic.namespace,
            ?most,
            ?origin,
            ?reason,
            ?per_second,
            dry_run,
            "an operator has dead letters go back to where they come from"
        );
        self.alarm.raise();
        Ok(Redrive(job))
    }

    /// Does some of it. Tells when it is to be gone on with, whatever is told.
    fn step(&self, shard: &Shard, job: &Job) -> Option<Duration> {
        let figures = job.tally.figures();
        if !figures.is_asked && figures.failed.is_none() && !job.spec.dry_run {
            let mut work = job.work.lock();
            work.counts.taken = work.counts.wanted.saturating_sub(figures.acquired);
        }
        if shard.is_stopped() {
            self.end(shard, job, RedriveState::Failed(ShardFailure::StorageError.into()));
        } else if let Some(failed) = figures.failed {
            self.end(shard, job, RedriveState::Failed(failed));
        } else if figures.is_asked {
            // An entry is decided, or lost, and that is told.
        } else if self.is_closed.load(SeqCst) {
            self.end(shard, job, RedriveState::Failed(ShardFailure::ShuttingDown.into()));
        } else if job.is_cancelled.load(SeqCst) {
            self.end(shard, job, RedriveState::Cancelled);
        } else if figures.waiting == 0 {
            return self.go_on(shard, job);
        }
        None
    }

    fn go_on(&self, shard: &Shard, job: &Job) -> Option<Duration> {
        let (work, now) = (job.work.lock(), Instant::now());
        let left = job.spec.most.map_or(u64::MAX, |most| most.saturating_sub(work.counts.wanted));
        if work.at >= job.until || left == 0 {
            drop(work);
            self.end(shard, job, RedriveState::Done);
            return None;
        }
        if work.not_before > now {
            return Some(work.not_before - now);
        }
        drop(work);
        let piece = job.spec.per_second.map_or(PIECE, |most| PIECE.min(most.div_ceil(PARTS).into()));
        let wanted = match self.look(shard, job, piece.min(left)) {
            Ok(wanted) => wanted,
            Err(error) => {
                self.end(shard, job, RedriveState::Unreadable(error));
                return None;
            }
        };
        let count: u64 = wanted.iter().map(|messages| messages.end - messages.start).sum();
        let mut work = job.work.lock();
        work.counts.wanted += count;
        if let Some(most) = job.spec.per_second.filter(|_| !job.spec.dry_run) {
            work.not_before = work.not_before.max(now) + Duration::from_secs(count) / most;
        }
        drop(work);
        if count == 0 || job.spec.dry_run {
            return Some(Duration::ZERO);
        }
        job.tally.ask();
        match self.config(job) {
            Some(config) => shard.redrive(job.target, &config, wanted, job.tally.clone()),
            None => job.tally.answer(Err(QueueError::Unknown)),
        }
        None
    }

    /// The queue's configuration as it is.
    fn config(&self, job: &Job) -> Option<QueueConfig> {
        let view = self.letters.definitions.view();
        view.topic_by_id(job.topic.id)?.config.queue().map(|config| QueueConfig::clone(config))
    }

    /// Looks at some more messages. Gives those that go back, so many at the most.
    fn look(&self, shard: &Shard, job: &Job, most: u64) -> Result<Vec<Range<u64>>, ReadError> {
        let began = Instant::now();
        let (runs, end) = ready(shard, job);
        let (mut judged, mut count, mut is_cut) = (Vec::new(), 0, false);
        each_message(shard, job.target.read_target().partition, &runs, |message| {
            is_cut = is_enough(judged.len(), count, most, began.elapsed());
            if is_cut {
                return Flow::Stop;
            }
            let what = self.judge(job, message);
            count += u64::from(matches!(what, Judged::Wanted { is_there: true, .. }));
            judged.push((message.offset, what));
            Flow::On
        })?;
        // While it is read the figures are looked at.
        let mut work = job.work.lock();
        match judged.last() {
            Some((last, _)) if is_cut => work.at = last + 1,
            _ => work.at = end,
        }
        let mut wanted = Vec::new();
        for (offset, what) in judged {
            if work.take(what) {
                add(&mut wanted, offset);
            }
        }
        Ok(wanted)
    }

    fn judge(&self, job: &Job, message: &WaitingMessage<'_>) -> Judged {
        let stored = match message.found {
            FoundRecord::Record(stored) => stored,
            FoundRecord::Gone | FoundRecord::Unreadable => return Judged::Unreadable,
        };
        let Some((redrive, caller)) = self.letters.redriver(stored.origin, &job.topic) else {
            return Judged::WithoutOrigin;
        };
        let mut judged = Judged::WithoutOrigin;
        redrive(&stored.record, &job.topic.name, &mut |record| {
            let by_origin = job.spec.origin.as_deref().is_none_or(|wanted| wanted == record.origin);
            let by_reason = job.spec.reason.is_none_or(|wanted| wanted == record.reason);
            judged = match by_origin && by_reason {
                true => Judged::Wanted {
                    origin: record.origin.to_owned(),
                    reason: record.reason,
                    is_there: origin_named(&self.letters.definitions, &caller, record.origin).is_some(),
                },
                false => Judged::Other,
            };
        });
        judged
    }

    fn end(&self, shard: &Shard, job: &Job, state: RedriveState) {
        shard.dead_letters.redrives.end(&job.tally);
        job.work.lock().state = state;
        let RedriveCounts {
            read,
            wanted: _,
            moved,
            refused,
            waiting,
            taken,
            origin_gone,
            without_origin,
            unreadable,
        } = job.progress().counts;
        info!(
            redrive = job.number,
            queue = %job.topic.name,
            namespace = %job.topic.namespace,
            dry_run = job.spec.dry_run,
            ?state,
            read,
            moved,
            refused,
            waiting,
            taken,
            origin_gone,
            without_origin,
            unreadable,
            "a redrive has ended"
        );
    }
}

impl Jobs {
    /// Adds one, and lets go of those that ended first.
    fn add(&mut self, job: Arc<Job>) {
        let mut ended = self.all.iter().filter(|job| !job.is_running()).count();
        self.all.retain(|job| {
            let goes = ended >= SHOWN && !job.is_running();
            ended -= usize::from(goes);
            !goes
        });
        self.all.push(job);
    }
}

impl Work {
    /// Counts a message; tells whether it goes back.
    fn take(&mut self, judged: Judged) -> bool {
        self.counts.read += 1;
        match judged {
            Judged::Wanted { origin, reason, is_there } => {
                let is_counted = self.origins.len() < ORIGINS;
                let key = (origin, reason);
                if is_counted || self.origins.contains_key(&key) {
                    let none = Origin { messages: 0, is_there };
                    let counted = self.origins.entry(key).or_insert(none);
                    counted.messages += 1;
                    counted.is_there = is_there;
                }
                self.counts.origin_gone += u64::from(!is_there);
                return is_there;
            }
            Judged::Other => {}
            Judged::WithoutOrigin => self.counts.without_origin += 1,
            Judged::Unreadable => self.counts.unreadable += 1,
        }
        false
    }
}

/// What is ready in the queue next, some messages at the most, and up to where that was looked for.
fn ready(shard: &Shard, job: &Job) -> (Vec<WaitingRun>, u64) {
    let mut at = job.work.lock().at;
    let state = shard.state.read();
    let Some(queue) = state.subscriptions.get(job.target.subscription()) else {
        return (Vec::new(), job.until);
    };
    let (mut runs, mut left) = (Vec::new(), PIECE);
    while left > 0
        && let Some(from) = queue.next_ready(at).filter(|from| *from < job.until)
    {
        let (state, end) = queue.run(from);
        debug_assert_eq!(state, MessageState::Ready);
        at = end.min(job.until).min(from + left);
        left -= at - from;
        runs.push((from..at, DeathReason::Redriven));
    }
    (runs, if left > 0 { job.until } else { at })
}

/// Whether no more messages are looked at in one go. One at least is, however long it took to read it, or it would be read for ever.
fn is_enough(judged: usize, wanted: u64, most: u64, took: Duration) -> bool {
    wanted >= most || (judged > 0 && took >= TURN)
}

fn add(wanted: &mut Vec<Range<u64>>, offset: u64) {
    match wanted.last_mut().filter(|last| last.end == offset) {
        Some(last) => last.end += 1,
        None => wanted.push(offset..offset + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_takes_long_to_read_is_judged_all_the_same() {
        let long = 10 * TURN;
        assert!(!is_enough(0, 0, 1, long));
        assert!(is_enough(1, 0, 1, long) && is_enough(1, 1, 1, Duration::ZERO));
        assert!(!is_enough(200, 0, 1, TURN / 2));
    }
}
