//! What is done by time, on threads of its own: ticks, segments made ready, retention, checkpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use sabir_base::buf::BufPool;
use sabir_base::clock::Clock;
use sabir_base::node_time::{AgeLimits, NodeClock, Notice};
use sabir_base::panics::contain;
use sabir_journal::{Prepared, Priority, SHARD_ENDS};
use sabir_model::{Offset, PartitionId};
use tracing::{error, info, warn};

use crate::dead_letter::{DeadLetterDriver, RedriveDriver};
use crate::definitions::Definitions;
use crate::disk_watch::{self, Told, ToldFull};
use crate::entry::{LogStartsMoved, ProducersExpired};
use crate::group::GroupDrivers;
use crate::queue::QueueAlarm;
use crate::shard::Shard;
use crate::timer::{Alarm, GoneDriver, TimerDriver};

/// How often the replicators and groups look at the time, and the pool of segments is filled.
const TICK: Duration = Duration::from_millis(50);
/// The same while a segment is zeroed: little at a time.
const ZEROING: Duration = Duration::from_millis(5);
/// How often it is looked whether a checkpoint is due.
const CHECKPOINTS: Duration = Duration::from_millis(200);
/// How often it is looked at the disks: whether they answer, and what is free.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is written down how much of each journal is durable: this often, and on a slow disk less, so that it takes no more than a
/// tenth of the time.
const GROWTH: Duration = Duration::from_secs(1);
const GROWTH_TENTH: u32 = 10;
/// How often it is, at the least, and how often every shard writes down how far all those are that it knows of; otherwise only that its
/// next one has grown is worth a write.
const GROWTH_OF_ALL: Duration = Duration::from_secs(5);
/// How often a failed definition is tried again.
const DEFINITIONS: Duration = Duration::from_secs(1);
/// How often idle producers are looked for.
const PRODUCERS: Duration = Duration::from_secs(60);
/// How often groups are tidied up.
const GROUPS: Duration = Duration::from_secs(300);
/// How long a buffer waits that is not in use.
const BUFFERS: Duration = Duration::from_secs(30);
/// Partitions looked at under one lock of the projections, and moves in one entry.
const PORTION: usize = 512;

/// Says when to end.
#[derive(Debug, Default)]
struct End {
    ended: Mutex<bool>,
    told: Condvar,
}

impl End {
    fn has_come(&self) -> bool {
        *self.ended.lock()
    }

    /// Sleeps; true when it is time to end.
    fn sleep(&self, time: Duration) -> bool {
        let mut ended = self.ended.lock();
        if !*ended {
            self.told.wait_for(&mut ended, time);
        }
        *ended
    }
}

/// The threads; they end with [`Housekeeper::end`].
#[derive(Debug)]
pub(crate) struct Housekeeper {
    end: Arc<End>,
    /// What wakes the threads that fire timers, drop what exchanges that are gone kept back, publish dead letters, and redrive them.
    alarms: [Arc<Alarm>; 4],
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads keep in order.
#[derive(Clone)]
pub(crate) struct Maintenance {
    pub(crate) shards: Vec<Arc<Shard>>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) groups: GroupDrivers,
    pub(crate) timers: Arc<TimerDriver>,
    pub(crate) delays_gone: Arc<GoneDriver>,
    pub(crate) dead_letters: Arc<DeadLetterDriver>,
    pub(crate) redrives: Arc<RedriveDriver>,
    pub(crate) queue_alarm: Arc<QueueAlarm>,
    pub(crate) clock: Arc<NodeClock>,
    pub(crate) retention_interval: Duration,
    /// How long nothing is asked of a disk before it is; zero for ever.
    pub(crate) idle_check: Duration,
    pub(crate) producer_expiry: Duration,
    pub(crate) pool: Arc<BufPool>,
    pub(crate) partition_producers_max: usize,
    pub(crate) producers_max: usize,
    /// What the replicators' time counts from.
    pub(crate) began: Instant,
}

type Job = fn(&Maintenance, &End);

impl Housekeeper {
    pub(crate) fn start(maintenance: &Maintenance) -> std::io::Result<Self> {
        let end = Arc::new(End::default());
        let mut threads = Vec::new();
        let jobs: [(&str, Job); 11] = [
            ("ticks", Maintenance::ticks),
            ("timers", Maintenance::fire_timers),
            ("delays", Maintenance::drop_delayed),
            ("dead-letters", Maintenance::publish_dead_letters),
            ("redrives", Maintenance::redrive),
            ("deadlines", Maintenance::deadlines),
            ("segments", Maintenance::segments),
            ("growth", Maintenance::growth),
            ("checkpoints", Maintenance::checkpoints),
            ("free-space", Maintenance::free_space),
            ("disk-watch", Maintenance::disk_watch),
        ];
        for (name, job) in jobs {
            let (maintenance, end) = (maintenance.clone(), end.clone());
            threads
                .push(std::thread::Builder::new().name(name.into()).spawn(move || job(&maintenance, &end))?);
        }
        let Maintenance { timers, delays_gone, dead_letters, redrives, .. } = maintenance;
        let alarms =
            [timers.alarm(), delays_gone.alarm(), dead_letters.alarm(), redrives.alarm()].map(Arc::clone);
        Ok(Self { end, alarms, threads: Mutex::new(threads) })
    }

    /// Ends the threads and waits for them. Blocking.
    pub(crate) fn end(&self) {
        *self.end.ended.lock() = true;
        self.end.told.notify_all();
        self.alarms.iter().for_each(|alarm| alarm.raise());
        let me = std::thread::current().id();
        for thread in self.threads.lock().drain(..).filter(|thread| thread.thread().id() != me) {
            let _ = thread.join();
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// What is due every so often.
struct Every {
    interval: Duration,
    last: Instant,
}

impl Every {
    fn new(interval: Duration) -> Self {
        Self { interval, last: Instant::now() }
    }

    fn due(&mut self) -> bool {
        let due = self.last.elapsed() >= self.interval;
        if due {
            self.last = Instant::now();
        }
        due
    }
}

impl Maintenance {
    fn fire_timers(&self, end: &End) {
        self.timers.run(|| *end.ended.lock());
    }

    fn drop_delayed(&self, end: &End) {
        self.delays_gone.run(|| *end.ended.lock());
    }

    fn publish_dead_letters(&self, end: &End) {
        self.dead_letters.run(|| *end.ended.lock());
    }

    fn redrive(&self, end: &End) {
        self.redrives.run(|| *end.ended.lock());
    }

    fn ticks(&self, end: &End) {
        let mut definitions = Every::new(DEFINITIONS);
        let mut retention = Every::new(self.retention_interval);
        let mut producers = Every::new(PRODUCERS);
        let mut groups = Every::new(GROUPS);
        let mut buffers = Every::new(BUFFERS);
        while !end.sleep(TICK) {
            self.clock.tick().into_iter().for_each(tell);
            let now = self.began.elapsed().as_millis() as u64;
            self.each_shard("tick", |shard| shard.replicator.tick(now));
            contain(|| self.groups.tick());
            // What a shard did not take, it may take now.
            self.each_shard("deal messages", |shard| shard.flush_queues());
            self.each_led("delete queues", |shard| self.definitions.delete_deserted(shard));
            self.thin_out_producers();
            if definitions.due() && self.definitions.take_unsettled() {
                let done = contain(|| self.reconcile());
                done.unwrap_or_else(|| self.definitions.unsettle());
            }
            if buffers.due() {
                self.pool.trim();
            }
            if retention.due() {
                self.each_led("retain records", |shard| shard.retain(&self.clock.age_limits()));
            }
            if producers.due() {
                let expiry = i64::try_from(self.producer_expiry.as_millis()).unwrap_or(i64::MAX);
                let idle_since = self.clock.age_limits().since_ms(expiry);
                self.each_led("expire producers", |shard| shard.expire_producers(idle_since));
            }
            if groups.due() {
                let view = self.definitions.view();
                contain(|| self.groups.housekeep(&|topic| view.topic_by_id(topic).is_some()));
            }
        }
    }

    /// Sees to what queues have due when its moment has come, to the millisecond.
    fn deadlines(&self, end: &End) {
        while !end.has_come() {
            self.each_led("see to what is due", |shard| {
                if shard.queues.due_ms() <= shard.now_ms() {
                    shard.queues.see_to_due(shard.now_ms());
                    shard.flush_queues();
                    self.definitions.delete_deserted(shard);
                }
            });
            let due_ms = self.shards.iter().filter(|shard| shard.is_led()).map(|shard| shard.queues.due_ms());
            due_ms.min().into_iter().for_each(|due_ms| self.queue_alarm.set(due_ms));
            self.queue_alarm.sleep(|| self.clock.now_ms(), TICK);
        }
    }

    /// Keeps to the bounds on idempotent producers; the node's is kept where most of them are.
    fn thin_out_producers(&self) {
        let known: Vec<usize> = self.shards.iter().map(|shard| shard.producers()).collect();
        let (all, most) = (known.iter().sum::<usize>(), self.producers_max);
        let beyond = if all > most { all - most + most / 10 } else { 0 };
        let largest = known.iter().copied().max().unwrap_or(0);
        self.each_led("thin out producers", |shard| {
            let excess = if shard.producers() >= largest { beyond } else { 0 };
            shard.thin_out_producers(self.partition_producers_max, excess);
        });
    }

    /// Does a job for each shard that has not stopped; one in whose hands it panics stops.
    fn each_shard(&self, doing: &'static str, job: impl Fn(&Shard)) {
        for shard in self.shards.iter().filter(|shard| !shard.is_stopped()) {
            shard.contain(doing, || job(shard));
        }
    }

    /// The same for what the leader of a shard proposes.
    fn each_led(&self, doing: &'static str, job: impl Fn(&Shard)) {
        self.each_shard(doing, |shard| {
            if shard.is_led() {
                job(shard);
            }
        });
    }

    fn reconcile(&self) {
        if let Err(error) = self.definitions.reconcile() {
            error!(%error, "the shards were not made to agree with the catalog");
        }
    }

    fn segments(&self, end: &End) {
        let mut tick = TICK;
        while !end.sleep(tick) {
            tick = TICK;
            let zeroing = AtomicBool::new(false);
            self.each_shard("make a segment ready", |shard| match shard.journal.prepare() {
                Ok(Prepared::Zeroing) => zeroing.store(true, Relaxed),
                Ok(Prepared::Full | Prepared::Short) => {}
                Err(error) => warn!(shard = %shard.id, %error, "a segment could not be made ready"),
            });
            if zeroing.into_inner() {
                tick = ZEROING;
            }
        }
    }

    /// Has the slots say how much is durable, on a thread of its own: a slow disk must hold up no segment that is made ready.
    fn growth(&self, end: &End) {
        let (mut growth, mut of_all, mut jumps) = (Every::new(GROWTH), Every::new(GROWTH_OF_ALL), 0);
        while !end.sleep(TICK) {
            let jumped = std::mem::replace(&mut jumps, self.clock.jumps()) != jumps;
            if !growth.due() && !jumped {
                continue;
            }
            let (began, ends) = (Instant::now(), if of_all.due() { SHARD_ENDS } else { 1 });
            self.each_shard("note what is durable", |shard| shard.journal.note_growth(ends));
            self.ask_idle_disks();
            growth.interval = (began.elapsed() * GROWTH_TENTH).clamp(GROWTH, GROWTH_OF_ALL);
        }
    }

    /// Has disks that nothing was written to for a while show whether they answer: one that is frozen would not be noticed before it is needed.
    fn ask_idle_disks(&self) {
        let shards: Vec<&Arc<Shard>> = self.shards.iter().filter(|shard| !shard.is_stopped()).collect();
        let disks: Vec<_> =
            shards.iter().map(|shard| (shard.disk.device(), shard.disk.unchanged())).collect();
        for index in disk_watch::to_ask(&disks, self.idle_check) {
            shards[index].contain("ask the disk", || shards[index].journal.ask_disk());
        }
    }

    /// Looks how much is free, on a thread of its own.
    fn free_space(&self, end: &End) {
        while !end.sleep(LOOK) {
            self.each_shard("look for space", Shard::look_at_space);
        }
    }

    /// Waits for no disk, or it would not be noticed that one does not answer.
    fn disk_watch(&self, end: &End) {
        let mut told = vec![(Told::default(), ToldFull::default()); self.shards.len()];
        while !end.sleep(LOOK) {
            for (shard, (stalled, full)) in self.shards.iter().zip(&mut told) {
                stalled.look(shard);
                full.look(shard);
            }
        }
    }

    fn checkpoints(&self, end: &End) {
        let mut last = Instant::now();
        while !end.sleep(TICK) {
            self.each_shard("keep room for a checkpoint", |shard| shard.keep_room());
            if last.elapsed() >= CHECKPOINTS {
                self.each_shard("write a checkpoint", |shard| shard.checkpoint_if_due());
                last = Instant::now();
            }
        }
    }
}

/// Logs what the clock has come to.
fn tell(notice: Notice) {
    let days = |ms: i64| format!("{:.1}", ms as f64 / 86_400_000.0);
    let seconds = |ms: i64| ms / 1000;
    match notice {
        Notice::Ahead(ms) => warn!(
            seconds = seconds(ms),
            "the system clock has jumped ahead: the broker's time does not follow, but runs at most twice as fast; it is taken over when \
             it has gone on so for ten minutes, or by a restart if the kernel calls it synchronised. Nothing is deleted early"
        ),
        Notice::Behind(ms) => warn!(
            seconds = seconds(ms),
            "the system clock was set back: the broker's time goes on more slowly, and goes back to it when it has gone on so for ten \
             minutes. Nothing is deleted early"
        ),
        Notice::Unset(ms) => warn!(
            days_behind = days(ms),
            "the system clock is not set: the broker's time goes on from the last one"
        ),
        Notice::Doubted(ms) => warn!(
            days = days(ms),
            "the system clock is this far ahead of the last time, and nothing synchronises it: the broker's time goes on from the last \
             one. Unless the clock is set it is taken over in ten minutes, and what is too old by it deleted a day later"
        ),
        Notice::Off(ms) => warn!(
            minutes = ms / 60_000,
            "by the system clock so many minutes have passed since the last time that is known to be right, and nothing synchronises that \
             clock: records are stamped with it, messages' times to live and delays go by it, and what is kept by age and too old by it is \
             deleted in ten minutes. Set it if it is wrong"
        ),
        Notice::Waits(ms, wait) if wait > 600_000 => warn!(
            days = days(ms),
            minutes = wait / 60_000,
            "the system clock is this far ahead of the last time that is known to be right, and nothing synchronises it: records are \
             stamped with it, and messages' times to live and delays go by it, but what is kept by age and too old by it is deleted only \
             when it has been synchronised, or has gone on in this run, for so many minutes. Set it if it is wrong"
        ),
        Notice::Waits(ms, wait) => info!(
            days = days(ms),
            minutes = wait / 60_000,
            "the last time that is known to be right was so long ago: what is too old now is deleted by age in so many minutes"
        ),
        Notice::Stepped(ms) => warn!(
            seconds = seconds(ms),
            "the broker's time has stepped ahead to the system clock: records are stamped with that now. What was stamped before looks \
             older by so much than it may be, and is kept for so much longer"
        ),
        Notice::SteppedBack(ms) => warn!(
            seconds = seconds(ms),
            "the broker's time has stepped back by so much, to the system clock: new records are stamped with that now, and block times stand \
             until the time has come to the last one"
        ),
        Notice::Stands(ms) => warn!(
            seconds = seconds(ms),
            "the last block's time is this far ahead: the system clock was wrong when it was written. New records are stamped with the \
             right time; block times, by which idle producers and groups' offsets age, stand until the time has come to it"
        ),
        Notice::Agrees => info!("the broker's time is that of the system clock"),
    }
}

impl Shard {
    /// Proposes to let go of what retention no longer keeps.
    pub(crate) fn retain(&self, limits: &AgeLimits) {
        let ids: Vec<PartitionId> = self.state.read().partitions.ids().collect();
        for portion in ids.chunks(PORTION) {
            let moves = self.retention_moves(portion, limits);
            if !moves.is_empty() {
                self.propose_quietly(&LogStartsMoved { moves });
            }
        }
        self.submit();
    }

    fn retention_moves(&self, ids: &[PartitionId], limits: &AgeLimits) -> Vec<(PartitionId, Offset)> {
        let state = self.state.read();
        let due = |id: &PartitionId| {
            let partition = state.partition(*id)?;
            Some((*id, partition.retention_due(limits.now_ms(partition.settings.retention_ms))?))
        };
        ids.iter().filter_map(due).collect()
    }

    /// Proposes to forget producers that have been idle since before that block time.
    pub(crate) fn expire_producers(&self, idle_since: i64) {
        loop {
            let due = {
                let mut state = self.state.write();
                state.partitions.tidy_expiry();
                state.partitions.expiry.take_idle(idle_since, PORTION)
            };
            if due.is_empty() {
                return self.submit();
            }
            let mut producers = Vec::new();
            let mut state = self.state.write();
            for key in due {
                let partitions = &mut state.partitions;
                let Some(last_ms) = partitions.producers.get(&key).map(|producer| producer.last_ms) else {
                    continue;
                };
                let idle = last_ms <= idle_since;
                // An idle one is looked at again, later, in case the entry is lost.
                partitions.expiry.note(key, if idle { self.now_ms() } else { last_ms });
                if idle {
                    producers.push((key.partition, key.producer));
                }
            }
            drop(state);
            if !producers.is_empty() {
                self.propose_quietly(&ProducersExpired { idle_since, producers });
            }
        }
    }

    pub(crate) fn propose_quietly<B: crate::entry::Body>(&self, body: &B) {
        let mut encoded = Vec::new();
        body.encode(&mut encoded);
        if let Err((error, _)) = self.push(Priority::Reserve, B::KIND, &encoded, None) {
            tracing::debug!(shard = %self.id, kind = B::KIND, %error, "not proposed");
        }
    }
}
