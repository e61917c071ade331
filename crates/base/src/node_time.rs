//! The node's own time: it follows the wall clock, but not its jumps.
//!
//! Block times never fall, and records are stamped with them. So a wall clock that is a year ahead for four seconds must not be
//! believed, or every later stamp is a year ahead. [`NodeTime`] is a pure machine, from what is known at a start and the machine's
//! clocks to what time it is:
//!
//! ```text
//!   wall clock is               the node's time
//!   ────────────────────────    ─────────────────────────────────────────────────────────────────────────────
//!   ahead by up to 5 minutes    follows at once; by so much a credit that fills as fast as time passes
//!   where it was, had the       follows at once
//!   time not gone back
//!   ahead by more               goes twice as fast as the monotonic clock until it has caught up
//!   behind by up to 5 minutes   stands until that is over
//!   behind by more              goes half as fast, until the wall clock is known to be right: then it is what that shows
//! ```
//!
//! Something is known of the wall clock if the kernel calls it synchronised (by NTP), or if it went on as time passes for ten
//! minutes. Then the node's time goes *back* to it, and only then, and records are stamped with that. Block times do not: one is at
//! least the last one's, so they stand at the last one until the right time has come to it.
//!
//! **A start.** Where the machine has not been started anew meanwhile, the monotonic clock tells how long the node was off
//! ([`ClockNote`]), and the wall clock is followed as if it had run. Else, or where the kernel calls the wall clock synchronised, it is
//! believed at once, since a node may have been off for a week; what comes in the next ten minutes from the kernel may still correct
//! it. Where it is more than 90 days ahead of the last time, or behind it, or before this program was written (a machine without a
//! battery), and not synchronised, the node goes on from its last time. In the first two cases that ends when the wall clock is known
//! to be right, in the last one when it is set. One that is behind the last time, but not behind the confirmed one, is believed: it was
//! the last run's that was wrong.
//!
//! **What is deleted by age** goes by [`expiry_ms`](NodeTime::expiry_ms): never ahead of either time, nor, where the node's time is more
//! than a day ahead of it, of the *confirmed* time. That goes on as time passes, and goes with the node's time only once a wall clock
//! that it agrees with has been followed without a jump for a day in one run, or for ten minutes where the kernel calls it
//! synchronised, or where the machine has run on since the node's time was confirmed. So what a start under a wrong clock writes down
//! ends no waiting, however often it comes: an operator that sees that the clock is wrong can still set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock::{Clock, ClockReading};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// How far the wall clock may jump and be followed at once.
const LEAP: i64 = 5 * MINUTE;
/// What two clocks that are read one after the other, in whole milliseconds, may differ by.
const AGREE: i64 = 2;
/// By how much the time may be ahead of the confirmed one and still be deleted by, and after how much time off the wall clock is not
/// believed at once.
const LONG_OFF: i64 = DAY;
const TOO_LONG_OFF: i64 = 90 * DAY;
/// How long a wall clock must go on as time passes to be believed, and how long until the time is confirmed.
const WAIT: u64 = 10 * MINUTE as u64;
/// The latter where nothing synchronises the wall clock.
const UNSURE_WAIT: u64 = DAY as u64;
/// A wall clock before this (2026-01-01) has not been set.
const UNSET_BEFORE: i64 = 1_767_225_600_000;
/// How often a wall clock that is not followed is worth a word.
const TELL_EVERY: u64 = MINUTE as u64;

/// What time it was at some moment of a machine's run, so that a later start knows how long it was off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockNote {
    /// The machine's run: a random number that it has from its start to its end.
    pub boot: [u8; 16],
    /// Its monotonic clock, in milliseconds.
    pub monotonic_ms: u64,
    /// The node's time, in milliseconds since the epoch.
    pub time_ms: i64,
    /// What of it was confirmed: the time that things must be older than to be deleted, and what has passed since. 0 where nothing is
    /// known of it.
    pub confirmed_ms: i64,
}

impl ClockNote {
    /// Whether the time was confirmed.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed_ms != 0 && self.time_ms.saturating_sub(self.confirmed_ms) <= LEAP
    }

    /// What time it is by the monotonic clock alone, if this is the same run of the same machine.
    fn now_ms(&self, boot: Option<[u8; 16]>, monotonic_ms: u64) -> Option<i64> {
        let passed = monotonic_ms.checked_sub(self.monotonic_ms).filter(|_| boot == Some(self.boot))?;
        Some(self.time_ms.saturating_add(i64::try_from(passed).ok()?))
    }
}

/// What is known of the time when a node starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastTime {
    /// The time of the last block, if there is one.
    pub block_ms: Option<i64>,
    /// The node's time when that was last noted. The last block may be ahead of it, where the time went back.
    pub noted_ms: Option<i64>,
    /// What the monotonic clock makes of that, where it went on since then.
    pub steady_ms: Option<i64>,
    /// The confirmed time when that was noted.
    pub confirmed_ms: Option<i64>,
    /// Whether what the monotonic clock makes of the time is confirmed.
    pub steady_confirmed: bool,
}

impl LastTime {
    /// From what was noted, in any order, as a machine's clocks look upon it.
    fn of(block_ms: i64, notes: &[ClockNote], boot: Option<[u8; 16]>, monotonic_ms: u64) -> Self {
        let same_run = notes.iter().filter(|note| note.now_ms(boot, monotonic_ms).is_some());
        let latest = same_run.max_by_key(|note| note.monotonic_ms);
        Self {
            block_ms: Some(block_ms),
            noted_ms: notes.iter().map(|note| note.time_ms).max(),
            steady_ms: latest.and_then(|note| note.now_ms(boot, monotonic_ms)),
            confirmed_ms: Self::confirmed(notes),
            steady_confirmed: latest.is_some_and(ClockNote::is_confirmed),
        }
    }

    /// The confirmed time of the last run. A crash within a start leaves notes of two runs: which is the later one is not known.
    fn confirmed(notes: &[ClockNote]) -> Option<i64> {
        let said: Vec<_> = notes.iter().filter(|note| note.confirmed_ms != 0).collect();
        let is_last = |note: &ClockNote| {
            !said.iter().any(|other| other.boot == note.boot && other.monotonic_ms > note.monotonic_ms)
        };
        said.iter().filter(|note| is_last(note)).map(|note| note.confirmed_ms).min()
    }

    /// The same; where nothing is known of it, it is the last time of all.
    fn aged_ms(&self, now_ms: i64) -> i64 {
        let last = [self.noted_ms, self.block_ms].into_iter().flatten().min();
        self.confirmed_ms.or(last).unwrap_or(now_ms).min(now_ms)
    }
}

/// A wall clock that is not believed yet.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    wall_ms: i64,
    since_ms: u64,
    /// Whether a start came upon it: then it may be ahead.
    at_start: bool,
    /// The time by the monotonic clock alone when it came to be doubted first, and that clock.
    time_ms: i64,
    first_ms: u64,
}

impl Doubt {
    fn new(at_start: bool, time_ms: i64, clock: ClockReading) -> Self {
        let ClockReading { wall_ms, monotonic_ms, .. } = clock;
        Self { wall_ms, since_ms: monotonic_ms, at_start, time_ms, first_ms: monotonic_ms }
    }

    /// What time it would be by the monotonic clock alone.
    fn steady(&self, monotonic_ms: u64) -> i64 {
        self.time_ms.saturating_add(monotonic_ms.saturating_sub(self.first_ms) as i64)
    }

    /// Whether the wall clock has gone on as time passes, and for long enough, if so.
    fn kept(&self, clock: ClockReading) -> Option<bool> {
        let since = clock.monotonic_ms.saturating_sub(self.since_ms);
        let went_on = clock.wall_ms.saturating_sub(self.wall_ms).saturating_sub(since as i64);
        (went_on.saturating_abs() <= LEAP).then_some(since >= WAIT)
    }
}

/// What is worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The wall clock is ahead by so many milliseconds, and is not followed at once.
    Ahead(i64),
    /// The wall clock is behind by so many milliseconds.
    Behind(i64),
    /// The wall clock, and the node's time with it, is so many milliseconds behind the last block or what can be: it is not set.
    Unset(i64),
    /// The wall clock is so many milliseconds ahead of the last time: more than is believed at once.
    Doubted(i64),
    /// The time is so many milliseconds ahead of the confirmed one: what is deleted by age waits for so many.
    Waits(i64, u64),
    /// The wall clock is right, and the last block's time so many milliseconds ahead of it: block times stand.
    Stands(i64),
    /// Both agree again.
    Agrees,
}

/// See the [module](self). All times are in milliseconds.
#[derive(Debug, Clone)]
pub struct NodeTime {
    now_ms: i64,
    /// The monotonic clock at that moment.
    at_ms: u64,
    /// By how much the wall clock may be ahead and followed at once.
    credit: i64,
    last: LastTime,
    /// The confirmed time, and the monotonic clock then.
    aged_ms: i64,
    aged_at_ms: u64,
    /// Since when the wall clock has been followed without a jump, while the time is not confirmed.
    waits_since_ms: u64,
    /// Whether ten minutes of that are enough although nothing synchronises the wall clock: the machine has run on since the time was
    /// confirmed.
    sure: bool,
    /// Whether the kernel has never called the wall clock synchronised: its first word may correct what the start took for the time.
    settling: bool,
    unset: bool,
    doubt: Option<Doubt>,
    /// What the latest block's time may be: those of blocks to come are not below it.
    stamped_ms: i64,
    /// Where the time would be had it not gone back without the kernel's word; once the wall clock comes near, it was that which was
    /// wrong.
    left_ms: i64,
    /// What was said last, and when.
    told: Option<(Notice, u64)>,
}

impl NodeTime {
    /// The time of a node that knows so much of its last run.
    pub fn start(last: LastTime, clock: ClockReading) -> Self {
        let ClockReading { wall_ms, monotonic_ms, .. } = clock;
        let (known, same_run) = (is_synchronised(clock), last.steady_ms.is_some());
        let goes_on = last.steady_ms.or(last.noted_ms).or(last.block_ms).unwrap_or(wall_ms);
        let off = wall_ms.saturating_sub(goes_on);
        let confirmed = last.confirmed_ms.unwrap_or(i64::MAX).saturating_sub(LEAP);
        let plausible = (0..=TOO_LONG_OFF).contains(&off) || off < 0 && wall_ms >= confirmed;
        let believed = known || !same_run && plausible;
        let doubted = !believed && !same_run && off.saturating_abs() > LEAP;
        let now_ms = if believed { wall_ms } else { goes_on };
        Self {
            now_ms,
            at_ms: monotonic_ms,
            credit: LEAP,
            last,
            aged_ms: last.aged_ms(now_ms),
            aged_at_ms: monotonic_ms,
            waits_since_ms: monotonic_ms,
            sure: last.steady_confirmed,
            settling: !known,
            unset: wall_ms < UNSET_BEFORE,
            doubt: doubted.then_some(Doubt::new(true, goes_on, clock)),
            stamped_ms: last.block_ms.unwrap_or(i64::MIN),
            left_ms: i64::MIN,
            told: None,
        }
    }

    /// What time it was when [`advance`](Self::advance) was last called.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// How far the wall clock is ahead of it; negative if it is behind.
    pub fn ahead_ms(&self, clock: ClockReading) -> i64 {
        clock.wall_ms.saturating_sub(self.steady(clock.monotonic_ms))
    }

    /// How far the latest block's time may be ahead of it; 0 if it is not.
    pub fn stamps_ahead_ms(&self) -> i64 {
        self.stamped_ms.saturating_sub(self.now_ms).max(0)
    }

    /// The time that things must be older than to be deleted by age.
    pub fn expiry_ms(&self, clock: ClockReading) -> i64 {
        let steady = self.steady(clock.monotonic_ms);
        let aged = self.confirmed_ms(clock.monotonic_ms);
        let far = steady.saturating_sub(aged) > LONG_OFF || !self.agrees(clock);
        let by = if far { aged.min(steady) } else { steady };
        by.min(clock.wall_ms)
    }

    /// The confirmed time.
    fn confirmed_ms(&self, monotonic_ms: u64) -> i64 {
        self.aged_ms.saturating_add(monotonic_ms.saturating_sub(self.aged_at_ms) as i64)
    }

    /// Has the confirmed time go on: as time passes, or with the node's time once the wall clock has been followed for long enough.
    fn confirm(&mut self, clock: ClockReading) {
        let aged = self.confirmed_ms(clock.monotonic_ms);
        let agrees = self.agrees(clock);
        if !agrees {
            (self.waits_since_ms, self.sure) = (clock.monotonic_ms, false);
        }
        let waited = clock.monotonic_ms.saturating_sub(self.waits_since_ms) >= self.wait(clock);
        let gap = self.now_ms.saturating_sub(aged);
        let confirmed = agrees && (waited || gap <= LEAP);
        self.aged_ms = if confirmed { self.now_ms } else { aged.min(self.now_ms) };
        self.aged_at_ms = clock.monotonic_ms;
        if confirmed {
            self.waits_since_ms = clock.monotonic_ms;
        }
    }

    /// Whether the time is about what the wall clock shows, and that is not doubted.
    fn agrees(&self, clock: ClockReading) -> bool {
        self.ahead_ms(clock).saturating_abs() <= LEAP && self.doubt.is_none() && !self.unset
    }

    /// How long the wall clock must be followed until the time is confirmed.
    fn wait(&self, clock: ClockReading) -> u64 {
        if self.sure || is_synchronised(clock) { WAIT } else { UNSURE_WAIT }
    }

    /// The time if nothing but the monotonic clock went on.
    fn steady(&self, monotonic_ms: u64) -> i64 {
        self.now_ms.saturating_add(monotonic_ms.saturating_sub(self.at_ms) as i64)
    }

    /// Takes a look at the clocks; to be called every 50 ms or so. Whether the time went back.
    pub fn advance(&mut self, clock: ClockReading) -> bool {
        let before = self.now_ms;
        self.stamped_ms = self.stamped_ms.max(before);
        self.set_out(clock);
        let steady = self.steady(clock.monotonic_ms);
        let elapsed = steady.saturating_sub(self.now_ms);
        self.left_ms = self.left_ms.saturating_add(elapsed);
        let now_ms = if self.is_known(steady, clock) {
            self.step(steady, clock)
        } else {
            self.followed(steady, clock)
        };
        (self.now_ms, self.at_ms) = (now_ms, self.at_ms.max(clock.monotonic_ms));
        self.confirm(clock);
        now_ms < before
    }

    /// Takes over the wall clock.
    fn step(&mut self, steady: i64, clock: ClockReading) -> i64 {
        if is_synchronised(clock) || clock.wall_ms >= steady {
            self.left_ms = i64::MIN;
        }
        clock.wall_ms
    }

    /// The time as it follows a wall clock of which nothing is known.
    fn followed(&mut self, steady: i64, clock: ClockReading) -> i64 {
        let elapsed = clock.monotonic_ms.saturating_sub(self.at_ms) as i64;
        let steady = self.found_again(steady, clock.wall_ms);
        let ahead = clock.wall_ms.saturating_sub(steady);
        self.credit = self.credit.saturating_add(elapsed).min(LEAP);
        if ahead.saturating_abs() <= AGREE {
            steady
        } else if ahead > 0 {
            let gain = if ahead <= self.credit { ahead } else { elapsed.min(self.credit) };
            self.credit -= gain;
            steady.saturating_add(gain)
        } else {
            let behind = ahead.saturating_neg();
            // What a jump ahead and back has gained is lost again.
            let pause = if behind <= LEAP { elapsed } else { elapsed / 2 };
            steady - pause.min(behind)
        }
    }

    /// The time without the doubts of a wall clock that has come back to where it was.
    fn found_again(&mut self, steady: i64, wall_ms: i64) -> i64 {
        if wall_ms < self.left_ms.saturating_sub(LEAP) {
            return steady;
        }
        steady.max(std::mem::replace(&mut self.left_ms, i64::MIN))
    }

    /// Starts anew where the wall clock has been set at last.
    fn set_out(&mut self, clock: ClockReading) {
        if !self.unset || clock.wall_ms < UNSET_BEFORE {
            return;
        }
        let reached = self.steady(clock.monotonic_ms);
        let confirmed_ms = Some(self.confirmed_ms(clock.monotonic_ms));
        let last = LastTime { steady_ms: self.last.steady_ms.map(|_| reached), confirmed_ms, ..self.last };
        *self = Self { told: self.told, stamped_ms: self.stamped_ms, ..Self::start(last, clock) };
        if !is_synchronised(clock) {
            self.now_ms = self.now_ms.max(reached);
        }
    }

    /// Whether the wall clock is known to be right although the node's time differs: the kernel says so, for the first time or
    /// while the wall clock is behind; or it has gone on as time passes for long enough.
    fn is_known(&mut self, steady: i64, clock: ClockReading) -> bool {
        let ahead = clock.wall_ms.saturating_sub(steady);
        if is_synchronised(clock) && (std::mem::take(&mut self.settling) || ahead < -LEAP) {
            self.doubt = None;
            return true;
        }
        if ahead < -LEAP && self.doubt.is_none() {
            self.doubt = Some(Doubt::new(false, steady, clock));
        }
        !self.unset && self.clears_doubt(ahead, clock)
    }

    /// Whether a wall clock that was in doubt is to be believed: it has gone on for long enough, or a start's was put right.
    fn clears_doubt(&mut self, ahead: i64, clock: ClockReading) -> bool {
        let Some(doubt) = &mut self.doubt else { return false };
        let at_start = doubt.at_start;
        let kept = doubt.kept(clock);
        if kept.is_none() {
            (doubt.wall_ms, doubt.since_ms) = (clock.wall_ms, clock.monotonic_ms);
        }
        // What comes near by itself, as the time gains on it, was not put right.
        let near = if at_start && kept.is_none() { TOO_LONG_OFF } else { LEAP };
        let cleared = if ahead >= -LEAP && (ahead <= near || !at_start) {
            Some(at_start && ahead >= 0)
        } else {
            kept.filter(|&long_enough| long_enough)
        };
        if cleared.is_some() {
            self.left_ms = doubt.steady(clock.monotonic_ms);
            self.doubt = None;
        }
        cleared.unwrap_or(false)
    }

    /// What is to be said now, if anything.
    pub fn notice(&mut self, clock: ClockReading) -> Option<Notice> {
        let notice = self.state(clock);
        let before = self.told.map(|(said, _)| said);
        let news = match (notice, before) {
            (Notice::Agrees, None | Some(Notice::Agrees)) => false,
            (_, None) => true,
            (now, Some(before)) => std::mem::discriminant(&now) != std::mem::discriminant(&before),
        };
        // One that jumps to and fro is told of now and then.
        let late = self.told.is_none_or(|(_, at)| clock.monotonic_ms.saturating_sub(at) >= TELL_EVERY);
        let tell = news && (late || notice == Notice::Agrees);
        if tell {
            self.told = Some((notice, clock.monotonic_ms));
        }
        tell.then_some(notice)
    }

    fn state(&self, clock: ClockReading) -> Notice {
        let ahead = self.ahead_ms(clock);
        let unconfirmed = self.now_ms.saturating_sub(self.confirmed_ms(self.at_ms));
        match ahead {
            _ if self.unset => Notice::Unset(ahead.saturating_neg()),
            _ if ahead < -LEAP => Notice::Behind(ahead.saturating_neg()),
            _ if self.doubt.is_some() => Notice::Doubted(ahead),
            _ if ahead > LEAP => Notice::Ahead(ahead),
            _ if unconfirmed > LONG_OFF => Notice::Waits(unconfirmed, self.wait(clock)),
            _ if self.stamps_ahead_ms() > LEAP => Notice::Stands(self.stamps_ahead_ms()),
            _ => Notice::Agrees,
        }
    }
}

/// Whether the kernel calls the wall clock synchronised, and it can be.
fn is_synchronised(clock: ClockReading) -> bool {
    clock.synchronised && clock.wall_ms >= UNSET_BEFORE
}

/// The clock of a node: [`NodeTime`] over the machine's clocks. Reading it takes no lock.
pub struct NodeClock {
    machine: Arc<dyn Clock>,
    /// The machine's run.
    boot: Option<[u8; 16]>,
    time: Mutex<NodeTime>,
    /// What is added to the monotonic clock, and what a reader may have seen before that last changed.
    offset: AtomicI64,
    reached: AtomicI64,
    ticks: AtomicU64,
}

impl std::fmt::Debug for NodeClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeClock").field("time", &self.time).finish_non_exhaustive()
    }
}

impl NodeClock {
    /// A clock that shows what the machine's does, until it is told of a last block.
    pub fn new(machine: Arc<dyn Clock>) -> Self {
        let now = machine.reading();
        let time = Mutex::new(NodeTime::start(LastTime::default(), now));
        let offset = AtomicI64::new(now.wall_ms.saturating_sub(now.monotonic_ms as i64));
        let boot = machine.boot();
        Self { machine, boot, time, offset, reached: AtomicI64::new(i64::MIN), ticks: AtomicU64::new(0) }
    }

    /// Goes on from a last block's time, and what was noted of the time then; before anything is stamped.
    pub fn start(&self, last_block_ms: i64, notes: &[ClockNote]) {
        let now = self.machine.reading();
        let mut time = self.time.lock();
        *time = NodeTime::start(LastTime::of(last_block_ms, notes, self.boot, now.monotonic_ms), now);
        self.show(&time, now.monotonic_ms);
    }

    /// What is to be known at the next start; `None` where the machine does not tell one run of it from another.
    pub fn note(&self) -> Option<ClockNote> {
        let boot = self.boot?;
        let time = self.time.lock();
        let monotonic_ms = self.machine.monotonic_ms();
        let (time_ms, confirmed_ms) = (time.steady(monotonic_ms), time.confirmed_ms(monotonic_ms));
        Some(ClockNote { boot, monotonic_ms, time_ms, confirmed_ms })
    }

    /// Looks at the machine's clocks; to be called every 50 ms or so. What comes back is to be logged.
    pub fn tick(&self) -> Option<Notice> {
        let now = self.machine.reading();
        let mut time = self.time.lock();
        if time.advance(now) {
            self.reached.store(time.now_ms(), Ordering::Release);
        } else {
            // First what was reached: a reader must not see less than before.
            let offset = self.offset.load(Ordering::Acquire);
            self.reached.fetch_max((now.monotonic_ms as i64).saturating_add(offset), Ordering::Release);
        }
        self.show(&time, now.monotonic_ms);
        let notice = time.notice(now);
        self.ticks.fetch_add(1, Ordering::Release);
        notice
    }

    fn show(&self, time: &NodeTime, monotonic_ms: u64) {
        self.offset.store(time.now_ms().saturating_sub(monotonic_ms as i64), Ordering::Release);
    }

    /// How often [`tick`](Self::tick) was called.
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Acquire)
    }

    /// What the machine's wall clock shows, believed or not.
    pub fn wall_ms(&self) -> i64 {
        self.machine.now_ms()
    }

    /// How far the wall clock is ahead, in milliseconds; negative if it is behind.
    pub fn ahead_ms(&self) -> i64 {
        self.time.lock().ahead_ms(self.machine.reading())
    }

    /// How far the latest block's time may be ahead of the time, in milliseconds; 0 if it is not.
    pub fn stamps_ahead_ms(&self) -> i64 {
        self.time.lock().stamps_ahead_ms()
    }
}

impl Clock for NodeClock {
    fn now_ms(&self) -> i64 {
        let now = (self.machine.monotonic_ms() as i64).saturating_add(self.offset.load(Ordering::Acquire));
        now.max(self.reached.load(Ordering::Acquire))
    }

    fn monotonic_ms(&self) -> u64 {
        self.machine.monotonic_ms()
    }

    fn expiry_ms(&self) -> i64 {
        self.time.lock().expiry_ms(self.machine.reading())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const NOW: i64 = UNSET_BEFORE + 100 * DAY;
    const YEAR: i64 = 365 * DAY;

    /// Two clocks and the machine that follows them, looked at every 50 ms.
    struct Rig {
        wall: i64,
        monotonic: u64,
        synchronised: bool,
        time: NodeTime,
        notices: Vec<Notice>,
    }

    impl Rig {
        /// On a machine that was started anew, so that nothing is known but the last block's time.
        fn starting(last: Option<i64>, wall: i64) -> Self {
            Self::with(LastTime { block_ms: last, ..LastTime::default() }, wall, false)
        }

        /// On a machine that has run on since it was `steady`.
        fn going_on(last: i64, steady: i64, wall: i64) -> Self {
            let (last, steady_ms) = (Some(last), Some(steady));
            let (block_ms, noted_ms, confirmed_ms) = (last, last, last);
            let last = LastTime { block_ms, noted_ms, steady_ms, confirmed_ms, steady_confirmed: true };
            Self::with(last, wall, false)
        }

        fn with(last: LastTime, wall_ms: i64, synchronised: bool) -> Self {
            let clock = ClockReading { wall_ms, monotonic_ms: 777, synchronised };
            let time = NodeTime::start(last, clock);
            Self { wall: wall_ms, monotonic: 777, synchronised, time, notices: Vec::new() }
        }

        fn clock(&self) -> ClockReading {
            let Self { wall, monotonic, synchronised, .. } = *self;
            ClockReading { wall_ms: wall, monotonic_ms: monotonic, synchronised }
        }

        /// Lets so much time pass, in which the node's time never falls.
        fn pass(&mut self, ms: i64) {
            self.pass_back(ms, false);
        }

        /// The same; whether it falls is said.
        fn pass_back(&mut self, ms: i64, falls: bool) {
            let (mut left, mut fell) = (ms, false);
            while left > 0 {
                let step = left.min(50);
                (self.wall, self.monotonic, left) =
                    (self.wall + step, self.monotonic + step as u64, left - step);
                let before = self.time.now_ms();
                let back = self.time.advance(self.clock());
                assert_eq!(back, self.time.now_ms() < before);
                fell |= back;
                self.notices.extend(self.time.notice(self.clock()));
            }
            assert_eq!(fell, falls, "whether it went back");
        }

        fn now(&self) -> i64 {
            self.time.now_ms()
        }

        fn expiry(&self) -> i64 {
            self.time.expiry_ms(self.clock())
        }
    }

    #[test]
    fn four_seconds_a_year_ahead_cost_four_seconds_and_are_made_good() {
        let mut rig = Rig::starting(Some(NOW - 1000), NOW);
        rig.pass(10_000);
        rig.wall += YEAR;
        rig.pass(4_000);
        assert_eq!(rig.now(), NOW + 18_000, "twice as fast, and no faster");
        assert!(rig.expiry() <= NOW + 18_000);
        rig.wall -= YEAR;
        assert_eq!(rig.expiry(), NOW + 14_000, "what is deleted goes by the lower one");
        rig.pass(8_000);
        assert_eq!(rig.now(), NOW + 22_000, "the right time again");
        assert_eq!(rig.notices.len(), 2, "{:?}", rig.notices);
        assert!(matches!(rig.notices[0], Notice::Ahead(ms) if ms > YEAR - MINUTE));
        assert_eq!(rig.notices[1], Notice::Agrees);
    }

    #[test]
    fn a_few_minutes_are_followed_at_once_but_not_over_and_over() {
        let mut rig = Rig::starting(Some(NOW), NOW);
        rig.wall += 4 * MINUTE;
        rig.pass(50);
        assert_eq!(rig.now(), NOW + 4 * MINUTE + 50);
        for _ in 0..100 {
            rig.wall += 4 * MINUTE;
            rig.pass(1_000);
        }
        let gained = rig.now() - NOW - 4 * MINUTE;
        assert!(gained <= 2 * 100_050 + MINUTE, "{gained}: what is left of the credit, then twice as fast");
    }

    #[test]
    fn a_clock_that_was_put_right_by_an_hour_is_caught_up_with_in_an_hour() {
        let mut rig = Rig::starting(Some(NOW), NOW);
        rig.wall += 60 * MINUTE;
        rig.pass(30 * MINUTE);
        assert_eq!(rig.now(), NOW + 60 * MINUTE);
        rig.pass(30 * MINUTE);
        assert_eq!(rig.now(), rig.wall);
        assert_eq!(rig.notices.last(), Some(&Notice::Agrees));
    }

    #[test]
    fn one_that_is_set_back_is_believed_after_ten_minutes_and_stamps_stand_until_then() {
        let mut rig = Rig::starting(Some(NOW), NOW);
        rig.wall -= 60 * MINUTE;
        rig.pass(9 * MINUTE);
        assert_eq!(rig.now(), NOW + 9 * MINUTE / 2, "at half the pace");
        assert_eq!(rig.expiry(), NOW - 51 * MINUTE, "nothing is deleted before its time");
        rig.pass_back(2 * MINUTE, true);
        assert_eq!(rig.now(), rig.wall, "the right time");
        let stamps = rig.time.stamps_ahead_ms() / MINUTE;
        assert!((53..=54).contains(&stamps), "{stamps}");
        rig.pass(55 * MINUTE);
        assert_eq!((rig.now(), rig.time.stamps_ahead_ms()), (rig.wall, 0));
        let [Notice::Behind(_), Notice::Stands(_), Notice::Agrees] = rig.notices[..] else {
            panic!("{:?}", rig.notices)
        };
    }

    /// What a run that ends after so much time leaves to one after it, whose wall clock is so much ahead.
    fn rebooted(before: &Rig, ahead: i64) -> Rig {
        let clock = before.clock();
        let last = LastTime {
            block_ms: Some(before.time.stamped_ms.max(before.now())),
            noted_ms: Some(before.now()),
            confirmed_ms: Some(before.time.confirmed_ms(clock.monotonic_ms)),
            ..LastTime::default()
        };
        Rig::with(last, before.wall + ahead, before.synchronised)
    }

    #[test]
    fn what_starts_under_the_same_wrong_clock_wrote_down_ends_no_waiting() {
        for (jump, synchronised) in [8, 60, 89, 91, 400].into_iter().flat_map(|d| [(d, false), (d, true)]) {
            let mut right = Rig::starting(Some(NOW), NOW);
            right.pass(5_000);
            let mut rig = rebooted(&right, jump * DAY);
            rig.synchronised = synchronised;
            for _ in 0..20 {
                rig.pass(9 * MINUTE);
                assert!(rig.expiry() < NOW + DAY, "{jump} days: {}", rig.expiry() - NOW);
                rig = rebooted(&rig, 1_000);
                assert!(rig.expiry() < NOW + DAY);
            }
            rig.pass(MINUTE);
            let said = rig.notices.iter().any(|said| matches!(said, Notice::Waits(..) | Notice::Doubted(_)));
            assert!(said, "{jump} {synchronised}: {:?}", rig.notices);
            rig.pass(if synchronised { 10 * MINUTE } else { DAY + 10 * MINUTE });
            assert_eq!(rig.expiry(), rig.now(), "it may be true after all");
        }
    }

    #[test]
    fn a_clock_that_is_right_after_a_run_under_a_wrong_one_is_believed_at_once() {
        for jump in [8, 60, 89] {
            let mut wrong = rebooted(&Rig::starting(Some(NOW), NOW), jump * DAY);
            wrong.pass(3_000);
            let mut rig = rebooted(&wrong, -jump * DAY);
            assert_eq!(rig.now(), rig.wall);
            rig.pass(MINUTE);
            assert_eq!((rig.now(), rig.expiry()), (rig.wall, rig.wall));
            assert!(matches!(rig.notices[..], [Notice::Stands(_)]), "{:?}", rig.notices);
        }
    }

    #[test]
    fn one_that_the_time_gains_on_is_not_put_right_by_that() {
        let mut rig = Rig::starting(Some(NOW), NOW + 90 * DAY + MINUTE);
        rig.pass(5 * MINUTE);
        assert!(rig.now() < NOW + 20 * MINUTE, "{}", rig.now() - NOW);
        rig.pass(6 * MINUTE);
        assert_eq!(rig.now(), rig.wall);
    }

    #[test]
    fn the_confirmed_time_is_that_of_the_last_note_of_a_machines_run_and_the_earlier_of_two_runs() {
        let note = |boot: u8, monotonic_ms, time_ms, confirmed_ms| ClockNote {
            boot: [boot; 16],
            monotonic_ms,
            time_ms,
            confirmed_ms,
        };
        let of = |notes: &[ClockNote]| LastTime::of(NOW, notes, Some([1; 16]), 1000).confirmed_ms;
        assert_eq!(of(&[note(1, 5, NOW, 0)]), None);
        assert_eq!(of(&[note(1, 5, NOW, 50), note(1, 6, NOW, 70), note(1, 7, NOW, 60)]), Some(60));
        assert_eq!(of(&[note(1, 5, NOW, 50), note(2, 6, NOW, 40), note(2, 7, NOW, 60)]), Some(50));
        assert!(note(1, 5, NOW, NOW).is_confirmed() && !note(1, 5, NOW + DAY, NOW).is_confirmed());
        assert!(!note(1, 5, NOW, 0).is_confirmed());
    }

    #[test]
    fn one_that_is_set_back_for_long_by_mistake_is_made_good_at_once() {
        for (back, wrong_for) in [(60 * DAY, 15 * MINUTE), (YEAR, 9 * MINUTE), (YEAR, 2 * DAY)] {
            let mut rig = Rig::starting(Some(NOW), NOW);
            rig.wall -= back;
            rig.pass_back(wrong_for, wrong_for > 10 * MINUTE);
            rig.wall += back;
            rig.pass(50);
            assert_eq!((rig.now(), rig.time.stamps_ahead_ms()), (NOW + wrong_for + 50, 0));
            assert!(rig.expiry() <= NOW + wrong_for + 50);
            rig.wall += YEAR;
            rig.pass(MINUTE);
            assert!(rig.now() < NOW + wrong_for + 10 * MINUTE);
        }
    }

    #[test]
    fn one_that_is_set_back_and_synchronised_is_believed_at_once() {
        let mut rig = Rig::starting(Some(NOW), NOW);
        rig.wall += YEAR;
        rig.pass(10 * MINUTE);
        (rig.wall, rig.synchronised) = (NOW + 10 * MINUTE, true);
        rig.pass_back(50, true);
        assert_eq!(rig.now(), rig.wall);
        assert!((0..=10 * MINUTE).contains(&rig.time.stamps_ahead_ms()));
        rig.wall += YEAR;
        rig.pass(MINUTE);
        assert!(
            rig.now() < NOW + 20 * MINUTE,
            "ahead it is not, whatever the kernel says: {}",
            rig.now() - NOW
        );
    }

    #[test]
    fn a_clock_that_was_behind_and_jumps_ahead_is_not_believed_for_that() {
        let mut rig = Rig::starting(Some(NOW), NOW);
        rig.wall -= YEAR;
        rig.pass(5 * MINUTE);
        for ahead in [YEAR + 60 * DAY, YEAR] {
            rig.wall += ahead;
            rig.pass(15 * MINUTE);
        }
        assert!(rig.now() < NOW + 120 * MINUTE, "{}", rig.now() - NOW);
    }

    #[test]
    fn a_start_on_a_machine_that_ran_on_believes_no_jump() {
        for jump in [60 * DAY, YEAR] {
            let mut rig = Rig::going_on(NOW, NOW + 60_000, NOW + 60_000 + jump);
            assert_eq!(rig.now(), NOW + 60_000);
            rig.pass(4_000);
            assert!(rig.now() <= NOW + 60_000 + 8_000 + LEAP && rig.expiry() <= NOW + 64_000 + LEAP);
            rig.wall -= jump;
            rig.pass(LEAP + 10_000);
            assert_eq!((rig.now(), rig.time.stamps_ahead_ms()), (rig.wall, 0));
            assert!(matches!(rig.notices[..], [Notice::Ahead(_), Notice::Agrees]), "{:?}", rig.notices);
        }
        let mut off = Rig::going_on(NOW, NOW + 7 * DAY, NOW + 7 * DAY);
        off.pass(9 * MINUTE);
        assert_eq!(
            (off.now(), off.expiry()),
            (NOW + 7 * DAY + 9 * MINUTE, NOW + 9 * MINUTE),
            "off for a week"
        );
        off.pass(MINUTE);
        assert_eq!(off.expiry(), off.now());
    }

    #[test]
    fn a_start_under_a_clock_that_is_sixty_days_ahead_finds_back_when_it_is_put_right() {
        for synchronised in [false, true] {
            let mut rig = Rig::starting(Some(NOW), NOW + 60 * DAY);
            assert_eq!(rig.now(), NOW + 60 * DAY, "it may have been off for so long");
            rig.pass(60 * MINUTE);
            assert!(rig.expiry() <= NOW + 60 * MINUTE, "an hour is no time in which to delete sixty days");
            (rig.wall, rig.synchronised) = (NOW + 60 * MINUTE, synchronised);
            rig.pass_back(if synchronised { 50 } else { 11 * MINUTE }, true);
            assert_eq!(rig.now(), rig.wall, "the right time");
            assert!(rig.time.stamps_ahead_ms() > 59 * DAY, "block times stand");
            // A later start knows it.
            let mut again = Rig::going_on(NOW + 60 * DAY, rig.now(), rig.wall);
            again.pass(MINUTE);
            assert_eq!(again.now(), again.wall);
            assert!(matches!(again.notices[..], [Notice::Stands(_)]), "{:?}", again.notices);
            let synchronised = Rig::with(again.time.last, rig.wall, true);
            assert_eq!(synchronised.now(), rig.wall);
        }
    }

    #[test]
    fn the_kernels_first_word_corrects_what_a_start_took_for_the_time() {
        for wrong in [NOW + 60 * DAY, NOW + YEAR, NOW - 3 * DAY, NOW] {
            let mut rig = Rig::starting(Some(NOW), wrong);
            rig.pass(MINUTE);
            (rig.wall, rig.synchronised) = (NOW + 7 * DAY, true);
            rig.pass_back(50, rig.now() > NOW + 7 * DAY);
            assert_eq!(rig.now(), rig.wall);
            assert!(rig.expiry() < NOW + 61 * DAY);
            rig.wall += 30 * DAY;
            rig.pass(MINUTE);
            assert!(rig.now() < NOW + 8 * DAY, "its second is not taken for more than it is");
        }
    }

    #[test]
    fn a_clock_that_jumps_to_and_fro_is_told_of_now_and_then() {
        let mut rig = Rig::starting(Some(NOW), NOW);
        for _ in 0..600 {
            rig.wall += YEAR;
            rig.pass(100);
            rig.wall -= YEAR;
            rig.pass(100);
        }
        assert!((2..=8).contains(&rig.notices.len()), "{:?}", rig.notices.len());
        assert!(rig.now() - rig.wall <= 100, "{}", rig.now() - rig.wall);
    }

    #[test]
    fn a_week_off_is_believed_at_once_but_ages_nothing_for_a_while() {
        for (synchronised, wait) in [(true, 10 * MINUTE), (false, DAY)] {
            let last = LastTime { block_ms: Some(NOW - 7 * DAY), ..LastTime::default() };
            let mut rig = Rig::with(last, NOW, synchronised);
            assert_eq!(rig.now(), NOW);
            rig.pass(wait - MINUTE);
            assert_eq!(rig.now(), NOW + wait - MINUTE);
            assert_eq!(rig.expiry(), NOW - 7 * DAY + wait - MINUTE);
            rig.pass(MINUTE);
            assert_eq!(rig.expiry(), NOW + wait);
            assert!(matches!(rig.notices[..], [Notice::Waits(..), Notice::Agrees]), "{:?}", rig.notices);
        }
        let night = Rig::starting(Some(NOW - DAY / 3), NOW);
        assert_eq!((night.now(), night.expiry()), (NOW, NOW));
    }

    #[test]
    fn a_year_at_a_start_is_believed_after_ten_minutes_or_when_it_is_put_right() {
        let mut rig = Rig::starting(Some(NOW), NOW + YEAR);
        assert_eq!(rig.now(), NOW);
        rig.pass(5 * MINUTE);
        assert!(rig.now() <= NOW + 10 * MINUTE && rig.expiry() <= NOW + 5 * MINUTE);
        let mut right = rig.time.clone();
        let put_right =
            ClockReading { wall_ms: NOW + 3 * DAY, monotonic_ms: rig.monotonic + 50, ..rig.clock() };
        right.advance(put_right);
        assert_eq!(right.now_ms(), NOW + 3 * DAY, "it was off for three days");
        assert!(right.expiry_ms(put_right) < NOW + DAY, "which still age nothing");
        rig.pass(5 * MINUTE);
        assert_eq!(rig.now(), rig.wall, "it was off for a year");
        assert!(rig.expiry() < NOW + DAY);
        assert!(matches!(rig.notices[..], [Notice::Doubted(_), Notice::Waits(..)]), "{:?}", rig.notices);
    }

    #[test]
    fn a_doubted_clock_that_jumps_again_is_doubted_anew() {
        let mut rig = Rig::starting(Some(NOW), NOW + YEAR);
        for _ in 0..20 {
            rig.pass(9 * MINUTE);
            rig.wall += YEAR;
        }
        assert!(rig.now() < NOW + DAY);
    }

    #[test]
    fn a_machine_without_a_battery_goes_on_from_its_last_block_until_its_clock_is_set() {
        for epoch in [0, UNSET_BEFORE - 5 * YEAR] {
            let mut rig = Rig::starting(Some(NOW), epoch);
            rig.pass(10_000);
            assert!((NOW..=NOW + 10_000).contains(&rig.now()));
            assert!(rig.expiry() <= epoch + 10_000);
            rig.wall = NOW + 7 * DAY;
            rig.pass(50);
            assert_eq!(rig.now(), rig.wall, "off for a week");
            assert!(rig.expiry() < NOW + DAY);
            assert!(matches!(rig.notices[0], Notice::Unset(_)));
        }
        let mut new = Rig::starting(None, 1_000);
        new.pass(10_000);
        assert_eq!(new.now(), 11_000);
        new.wall = NOW;
        new.pass(50);
        assert_eq!(new.now(), new.wall, "there is nothing that it could contradict");
    }

    #[test]
    fn extreme_clocks_overflow_nothing() {
        let clocks = [i64::MIN, -1, 0, NOW, i64::MAX];
        let lasts = [None, Some(i64::MIN), Some(0), Some(NOW), Some(i64::MAX)];
        let starts = lasts.into_iter().flat_map(|block_ms| {
            lasts.into_iter().map(move |steady_ms| LastTime {
                block_ms,
                noted_ms: block_ms,
                steady_ms,
                confirmed_ms: steady_ms.map(i64::wrapping_neg),
                steady_confirmed: true,
            })
        });
        for (last, wall_ms, synchronised) in starts
            .flat_map(|last| clocks.into_iter().map(move |wall| (last, wall)))
            .flat_map(|(last, wall)| [(last, wall, false), (last, wall, true)])
        {
            let monotonic_ms = u64::MAX / 2;
            let mut time = NodeTime::start(last, ClockReading { wall_ms, monotonic_ms, synchronised });
            for (i, wall_ms) in clocks.into_iter().enumerate() {
                let clock =
                    ClockReading { wall_ms, monotonic_ms: monotonic_ms + i as u64 * 50, synchronised };
                time.advance(clock);
                let _ = (time.expiry_ms(clock), time.notice(clock), time.stamps_ahead_ms());
            }
        }
    }

    #[test]
    fn a_note_holds_for_the_run_of_the_machine_it_was_made_in() {
        let machine = Arc::new(ManualClock::at(NOW));
        let started = |notes: &[ClockNote]| {
            let clock = NodeClock::new(machine.clone());
            clock.start(NOW, notes);
            clock.now_ms()
        };
        let noted = NodeClock::new(machine.clone()).note().unwrap();
        machine.advance(60_000);
        machine.set_by(60 * DAY);
        let earlier = ClockNote { time_ms: NOW + 5 * DAY, ..noted };
        let later = ClockNote { monotonic_ms: 60_000, time_ms: NOW + 30_000, ..noted };
        assert_eq!((started(&[noted]), started(&[earlier, later])), (NOW + 60_000, NOW + 30_000));
        machine.boot_again();
        let believed = NOW + 60_000 + 60 * DAY;
        assert_eq!(started(&[noted]), believed);
        let ahead = ClockNote { boot: machine.boot().unwrap(), monotonic_ms: 5, ..noted };
        assert_eq!(started(&[ahead]), believed, "a clock that began later than the note was made");
        machine.set_by(-30 * DAY);
        let clock = NodeClock::new(machine.clone());
        clock.start(NOW + 60 * DAY, &[noted]);
        assert_eq!(
            (clock.now_ms(), clock.stamps_ahead_ms() / DAY),
            (NOW + 60_000 + 30 * DAY, 29),
            "it had gone back"
        );
    }

    #[test]
    fn a_reader_never_sees_time_fall() {
        let machine = Arc::new(ManualClock::at(NOW));
        let clock = NodeClock::new(machine.clone());
        clock.start(NOW - 5, &[]);
        let mut before = clock.now_ms();
        for round in 0..2_000 {
            match round % 100 {
                10 => machine.set_by(YEAR),
                20 => machine.set_by(-YEAR),
                30 => machine.set_by(-MINUTE),
                60 => machine.set_by(MINUTE),
                _ => machine.advance(7),
            }
            let now = clock.now_ms();
            assert!(now >= before, "{now} after {before}");
            clock.tick();
            let ticked = clock.now_ms();
            assert!(ticked >= now, "{ticked} after {now}");
            before = ticked;
        }
        assert!((clock.now_ms() - machine.now_ms()).abs() < MINUTE);
        assert_eq!(clock.ahead_ms(), machine.now_ms() - clock.time.lock().now_ms());
    }
}
