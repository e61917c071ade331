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
//!   ahead by more               goes twice as fast as the monotonic clock
//!   behind by up to 5 minutes   stands until that is over
//!   behind by more              goes half as fast
//!   off by more than 5 minutes  is what that shows: the step is taken over
//!   for ten minutes
//! ```
//!
//! For ten minutes means that it went on as time passes: one that jumps again is waited for anew. The kernel's word that it is synchronised
//! (by NTP) does not shorten that in a running node, since a time server may be wrong for seconds, but where the node's time is ahead of
//! what is confirmed (see below) and the wall clock goes back towards that. A step that is itself taken back within ten
//! minutes is undone at once. Where the time goes *back*, records are stamped with that. Block times do not: one is at least the last
//! one's, so they stand at the last one until the right time has come to it.
//!
//! **A start.** Where the machine has not been started anew meanwhile, the monotonic clock tells how long the node was off
//! ([`ClockNote`]), and the wall clock is followed as if it had run. Else, or where the kernel calls the wall clock synchronised, it is
//! believed at once, since a node may have been off for a week; the kernel's first word in the next ten minutes may still correct it.
//! Where it is more than 90 days ahead of the last time, or behind it, or before this program was written (a machine without a
//! battery), and not synchronised, the node goes on from its last time. In the first two cases that ends when the wall clock has gone on
//! for ten minutes, in the last one when it is set. Where it is ahead by less, and nothing synchronises it, nothing is deleted for that in the
//! first ten minutes, so that what sets it may have its say: ahead of the *confirmed* time (see below), so that each start waits for itself,
//! whatever an earlier one wrote down under the same clock. One that is behind the last time, but not behind the confirmed one, is believed: it
//! was the last run's that was wrong.
//!
//! **What is deleted by age** goes by [`age_limits`](NodeTime::age_limits), of which two things hold.
//!
//! Nothing that was stamped while the node ran looks older than it is by the monotonic clock: each step of the time against that clock is
//! counted for as long as what was stamped before it is younger than its limit ([`Lags`]). A step at a start counts wholly where the
//! monotonic clock tells that the node was not off for so long. Else the node may have been off, and it counts by as much as the last run's
//! stamps may have been behind: that is noted too, as what the wall clock was ahead, or what the time had gone back by.
//!
//! And no time off is believed for what a start makes of it: ages are never reckoned from a time ahead of either clock, nor, where the
//! node's time is more than a day ahead of it, of the *confirmed* time. That goes on as time passes, and goes with the node's time only
//! once a wall clock that it agrees with has been followed without a jump for a day in one run, or for ten minutes where the kernel calls
//! it synchronised, or where the machine has run on since the node's time was confirmed. So what a start under a wrong clock writes down
//! ends no waiting, however often it comes: an operator that sees that the clock is wrong can still set it.

mod lags;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock::{Clock, ClockReading};

pub use lags::{AgeLimits, ClockLag, LAGS, Lags};

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
    /// For how long nodes have run on this data, as far as that is known.
    pub ran_ms: u64,
    /// By how much the time may be behind: it has gone back by so much, or the wall clock is off by so much.
    pub behind_ms: i64,
    /// How much older than they are things look that were stamped before.
    pub lags: Lags,
}

impl ClockNote {
    /// Whether the time was confirmed.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed_ms != 0 && self.time_ms.saturating_sub(self.confirmed_ms) <= LEAP
    }

    /// What time it is by the monotonic clock alone, if this is the same run of the same machine.
    fn now_ms(&self, boot: Option<[u8; 16]>, monotonic_ms: u64) -> Option<i64> {
        let passed = self.passed_ms(boot, monotonic_ms)?;
        Some(self.time_ms.saturating_add(i64::try_from(passed).ok()?))
    }

    /// How much time has passed since, if so.
    fn passed_ms(&self, boot: Option<[u8; 16]>, monotonic_ms: u64) -> Option<u64> {
        monotonic_ms.checked_sub(self.monotonic_ms).filter(|_| boot == Some(self.boot))
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
    /// For how long nodes have run, with the time off that the monotonic clock tells.
    pub ran_ms: u64,
    /// By how much the noted time may have been behind.
    pub behind_ms: i64,
    /// How much older than they are things look by it.
    pub lags: Lags,
}

impl LastTime {
    /// From what was noted, in any order, as a machine's clocks look upon it.
    fn of(block_ms: i64, notes: &[ClockNote], boot: Option<[u8; 16]>, monotonic_ms: u64) -> Self {
        let same_run = notes.iter().filter(|note| note.now_ms(boot, monotonic_ms).is_some());
        let latest = same_run.max_by_key(|note| note.monotonic_ms);
        let last = notes.iter().max_by_key(|note| (note.ran_ms, note.time_ms));
        let off = |note: &ClockNote| note.passed_ms(boot, monotonic_ms).unwrap_or(0);
        Self {
            block_ms: Some(block_ms),
            noted_ms: last.map(|note| note.time_ms),
            ran_ms: last.map_or(0, |note| note.ran_ms.saturating_add(off(note))),
            behind_ms: last.map_or(0, |note| note.behind_ms.max(0)),
            lags: last.map_or(Lags::default(), |note| note.lags),
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
}

impl Doubt {
    fn new(at_start: bool, clock: ClockReading) -> Self {
        Self { wall_ms: clock.wall_ms, since_ms: clock.monotonic_ms, at_start }
    }

    /// Whether the wall clock has gone on as time passes, and for long enough, if so.
    fn kept(&self, clock: ClockReading) -> Option<bool> {
        let since = clock.monotonic_ms.saturating_sub(self.since_ms);
        let went_on = clock.wall_ms.saturating_sub(self.wall_ms).saturating_sub(since as i64);
        (went_on.saturating_abs() <= LEAP).then_some(since >= WAIT)
    }
}

/// Time since the confirmed one that a start has from the wall clock alone, which nothing has synchronised yet.
#[derive(Debug, Clone, Copy)]
struct TimeOff {
    off_ms: i64,
    /// Up to when on the monotonic clock nothing is deleted for it.
    until_ms: u64,
}

impl TimeOff {
    /// Where it is so much that a wall clock that is set says.
    fn found(off_ms: i64, clock: ClockReading) -> Option<Self> {
        (off_ms > LEAP).then_some(Self { off_ms, until_ms: clock.monotonic_ms.saturating_add(WAIT) })
    }
}

/// Where the time would be had it not stepped.
#[derive(Debug, Clone, Copy)]
struct Unstepped {
    time_ms: i64,
    /// Up to when on the monotonic clock a wall clock that comes back to it is believed at once.
    until_ms: u64,
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
    /// A start finds that so many milliseconds have passed since the confirmed time, as the wall clock has it, which nothing synchronises: what
    /// is deleted by age waits for ten minutes.
    Off(i64),
    /// The time is so many milliseconds ahead of the confirmed one: what is deleted by age waits for so many.
    Waits(i64, u64),
    /// The time has stepped ahead by so many milliseconds: what was stamped before looks older by so many, and is kept for so many more.
    Stepped(i64),
    /// The time has stepped back by so many milliseconds.
    SteppedBack(i64),
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
    /// Up to when on the monotonic clock the kernel's first word that the wall clock is synchronised corrects what the start took for the
    /// time.
    settling_until_ms: u64,
    unset: bool,
    doubt: Option<Doubt>,
    off: Option<TimeOff>,
    /// What the latest block's time may be: those of blocks to come are not below it.
    stamped_ms: i64,
    unstepped: Option<Unstepped>,
    /// For how long nodes have run on this data.
    ran_ms: u64,
    /// By how much the time may be behind for having gone back.
    behind_ms: i64,
    lags: Lags,
    /// The last step ahead, or back while the node ran, that nothing was said of; 0 where there is none.
    untold_ms: i64,
    /// What the wall clock was ahead of the monotonic one, and how often that or the time has jumped.
    wall_offset_ms: i64,
    jumps: u64,
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
        let until_ms = if believed { monotonic_ms.saturating_add(WAIT) } else { u64::MAX };
        let unstepped = (believed && off.saturating_abs() > LEAP || doubted && off < 0)
            .then_some(Unstepped { time_ms: goes_on, until_ms });
        let aged_ms = last.aged_ms(now_ms);
        // What an earlier start took for the time is in `goes_on`, but not in the confirmed time.
        let unsure = !known && !last.steady_confirmed;
        let mut time = Self {
            now_ms,
            at_ms: monotonic_ms,
            credit: LEAP,
            last,
            aged_ms,
            aged_at_ms: monotonic_ms,
            waits_since_ms: monotonic_ms,
            sure: last.steady_confirmed,
            settling_until_ms: if known { 0 } else { monotonic_ms.saturating_add(WAIT) },
            unset: wall_ms < UNSET_BEFORE,
            doubt: doubted.then_some(Doubt::new(true, clock)),
            off: TimeOff::found(now_ms.saturating_sub(aged_ms), clock).filter(|_| unsure),
            stamped_ms: last.block_ms.unwrap_or(i64::MIN),
            unstepped,
            // So that what this run notes is later than what it was told.
            ran_ms: last.ran_ms.saturating_add(1),
            behind_ms: last.behind_ms,
            lags: last.lags,
            untold_ms: 0,
            wall_offset_ms: wall_ms.saturating_sub(monotonic_ms as i64),
            jumps: 0,
            told: None,
        };
        let step = now_ms.saturating_sub(goes_on);
        time.note_step(if same_run { step } else { step.min(last.behind_ms) }, false);
        time
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

    /// What things must be older than to be deleted by age.
    pub fn age_limits(&self, clock: ClockReading) -> AgeLimits {
        let now_ms = self.steady(clock.monotonic_ms);
        let aged = self.confirmed_ms(clock.monotonic_ms);
        let unsure = self.off.is_some_and(|off| clock.monotonic_ms < off.until_ms);
        let far = now_ms.saturating_sub(aged) > LONG_OFF || unsure || !self.agrees(clock);
        let by = if far { aged.min(now_ms) } else { now_ms };
        let (at_most_ms, ran_ms) = (by.min(clock.wall_ms), self.ran(clock.monotonic_ms));
        AgeLimits { at_most_ms, now_ms, ran_ms, lags: self.lags }
    }

    /// For how long nodes have run.
    fn ran(&self, monotonic_ms: u64) -> u64 {
        self.ran_ms.saturating_add(monotonic_ms.saturating_sub(self.at_ms))
    }

    /// What a later start is to know.
    fn note(&self, boot: [u8; 16], clock: ClockReading) -> ClockNote {
        let monotonic_ms = clock.monotonic_ms;
        let behind = self.behind_ms.max(if self.is_unset() { TOO_LONG_OFF } else { 0 });
        ClockNote {
            boot,
            monotonic_ms,
            time_ms: self.steady(monotonic_ms),
            confirmed_ms: self.confirmed_ms(monotonic_ms),
            ran_ms: self.ran(monotonic_ms),
            // A start may take the wall clock over: one that is behind leaves the time as far behind.
            behind_ms: behind.saturating_add(self.ahead_ms(clock).saturating_abs()),
            lags: self.lags,
        }
    }

    /// Whether the time goes on from the last one, and it is not known how long the node was off.
    fn is_unset(&self) -> bool {
        self.unset || self.doubt.is_some_and(|doubt| doubt.at_start)
    }

    /// The time has stepped by so much against the monotonic clock; whether it made good by that what it was behind. A step ahead may
    /// be another matter: a machine was paused whose wall clock is still as far behind.
    fn note_step(&mut self, by_ms: i64, makes_good: bool) {
        self.lags.step(by_ms, self.ran_ms);
        let by_known = if makes_good { by_ms } else { by_ms.min(0) };
        self.behind_ms = self.behind_ms.saturating_sub(by_known).max(0);
        if by_ms > LEAP {
            self.untold_ms = by_ms;
        }
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
        self.off = self.off.filter(|off| !is_synchronised(clock) && clock.monotonic_ms < off.until_ms);
        let steady = self.steady(clock.monotonic_ms);
        self.ran_ms = self.ran(clock.monotonic_ms);
        let passed = steady.saturating_sub(self.now_ms);
        if let Some(unstepped) = &mut self.unstepped {
            unstepped.time_ms = unstepped.time_ms.saturating_add(passed);
        }
        let undone = self.is_undone(steady, clock);
        let now_ms = if undone {
            clock.wall_ms
        } else if self.is_known(steady, clock) {
            self.step(steady, clock)
        } else {
            self.followed(steady, clock)
        };
        let step = now_ms.saturating_sub(steady);
        self.note_step(step, undone || self.doubt.is_none() && step <= LEAP);
        if step < -LEAP {
            self.untold_ms = step;
        }
        self.note_jump(step, clock);
        (self.now_ms, self.at_ms) = (now_ms, self.at_ms.max(clock.monotonic_ms));
        self.confirm(clock);
        now_ms < before
    }

    /// Counts jumps of the wall clock, and steps of the time.
    fn note_jump(&mut self, step_ms: i64, clock: ClockReading) {
        let wall_offset_ms = clock.wall_ms.saturating_sub(clock.monotonic_ms as i64);
        let jump = wall_offset_ms.saturating_sub(self.wall_offset_ms);
        self.wall_offset_ms = wall_offset_ms;
        if jump.saturating_abs().max(step_ms.saturating_abs()) > MINUTE {
            self.jumps += 1;
        }
    }

    /// Whether the wall clock has come back to where it was before a step was taken over, soon after that; it is as if there had been none.
    fn is_undone(&mut self, steady: i64, clock: ClockReading) -> bool {
        let Some(Unstepped { time_ms, until_ms }) = self.unstepped else { return false };
        let near = |ms: i64| clock.wall_ms.saturating_sub(ms).saturating_abs() <= LEAP;
        let undone = clock.monotonic_ms < until_ms && near(time_ms) && !near(steady);
        if undone {
            (self.unstepped, self.doubt) = (None, None);
        }
        undone
    }

    /// Takes over the wall clock. One that nothing synchronises and that is behind may be set right whenever an operator notices.
    fn step(&mut self, steady: i64, clock: ClockReading) -> i64 {
        let back = self.unstepped.filter(|_| clock.wall_ms < steady);
        let time_ms = back.map_or(steady, |unstepped| unstepped.time_ms);
        let soon = clock.wall_ms >= steady || is_synchronised(clock);
        let until_ms = if soon { clock.monotonic_ms.saturating_add(WAIT) } else { u64::MAX };
        self.unstepped = Some(Unstepped { time_ms, until_ms });
        clock.wall_ms
    }

    /// The time as it follows a wall clock of which nothing is known.
    fn followed(&mut self, steady: i64, clock: ClockReading) -> i64 {
        let elapsed = clock.monotonic_ms.saturating_sub(self.at_ms) as i64;
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

    /// Starts anew where the wall clock has been set at last.
    fn set_out(&mut self, clock: ClockReading) {
        if !self.unset || clock.wall_ms < UNSET_BEFORE {
            return;
        }
        let reached = self.steady(clock.monotonic_ms);
        let confirmed_ms = Some(self.confirmed_ms(clock.monotonic_ms));
        let last = LastTime { steady_ms: self.last.steady_ms.map(|_| reached), confirmed_ms, ..self.last };
        let (ran_ms, behind_ms, lags) = (self.ran(clock.monotonic_ms), self.behind_ms, self.lags);
        let Self { told, stamped_ms, jumps, .. } = *self;
        let set = Self::start(last, clock);
        *self = Self { told, stamped_ms, jumps: jumps + 1, untold_ms: 0, ran_ms, behind_ms, lags, ..set };
        if !is_synchronised(clock) {
            self.now_ms = self.now_ms.max(reached);
        }
        self.note_step(self.now_ms.saturating_sub(reached), false);
    }

    /// Whether the wall clock is to be taken over although the node's time differs: the kernel says that it is
    /// right, for the first time or where the time is ahead of what was confirmed, or it has gone on as time passes for long enough.
    fn is_known(&mut self, steady: i64, clock: ClockReading) -> bool {
        let ahead = clock.wall_ms.saturating_sub(steady);
        if is_synchronised(clock) && (self.takes_first_word(clock) || self.is_put_right(ahead, clock)) {
            self.doubt = None;
            return true;
        }
        if self.unset {
            return false;
        }
        if ahead.saturating_abs() > LEAP && self.doubt.is_none() {
            self.doubt = Some(Doubt::new(false, clock));
            if ahead < 0 {
                self.unstepped = Some(Unstepped { time_ms: steady, until_ms: u64::MAX });
            }
        }
        self.clears_doubt(ahead, clock)
    }

    /// Whether the kernel's word is the first one, soon after the start.
    fn takes_first_word(&mut self, clock: ClockReading) -> bool {
        clock.monotonic_ms < std::mem::take(&mut self.settling_until_ms)
    }

    /// Whether the wall clock goes back towards the confirmed time, and not behind it: what the node took for the time was wrong.
    fn is_put_right(&self, ahead: i64, clock: ClockReading) -> bool {
        ahead < -LEAP && clock.wall_ms >= self.confirmed_ms(clock.monotonic_ms).saturating_sub(LEAP)
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
        let met = (-LEAP..=near).contains(&ahead);
        let long_enough = kept == Some(true);
        if met || long_enough {
            self.doubt = None;
        }
        let put_right = met && at_start && ahead >= 0;
        if put_right && !is_synchronised(clock) {
            let aged = self.confirmed_ms(clock.monotonic_ms);
            self.off = TimeOff::found(clock.wall_ms.saturating_sub(aged), clock).or(self.off);
        }
        if met { put_right } else { long_enough }
    }

    /// What is to be said now, if anything.
    pub fn notice(&mut self, clock: ClockReading) -> Option<Notice> {
        let stepped = std::mem::take(&mut self.untold_ms);
        if stepped != 0 {
            let notice = if stepped > 0 {
                Notice::Stepped(stepped)
            } else {
                Notice::SteppedBack(stepped.saturating_neg())
            };
            self.told = Some((notice, clock.monotonic_ms));
            return Some(notice);
        }
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
            _ if self.doubt.is_some_and(|doubt| doubt.at_start) => Notice::Doubted(ahead),
            _ if ahead > LEAP => Notice::Ahead(ahead),
            _ if unconfirmed > LONG_OFF => Notice::Waits(unconfirmed, self.wait(clock)),
            _ if let Some(off) = self.off => Notice::Off(off.off_ms),
            _ if self.stamps_ahead_ms() > LEAP => Notice::Stands(self.stamps_ahead_ms()),
            _ => Notice::Agrees,
        }
    }
}

/// Whether the kernel calls the wall clock synchronised, and it can be.
fn is_synchronised(clock: ClockReading) -> bool {
    clock.synchronised && clock.wall_ms >= UNSET_BEFORE
}

fn random_boot() -> [u8; 16] {
    // Each has keys of its own.
    let half = || RandomState::new().build_hasher().finish();
    (u128::from(half()) << 64 | u128::from(half())).to_le_bytes()
}

/// The clock of a node: [`NodeTime`] over the machine's clocks. Reading it takes no lock.
pub struct NodeClock {
    machine: Arc<dyn Clock>,
    /// The machine's run, where it tells.
    boot: Option<[u8; 16]>,
    /// What notes have for it: else a number of this run's own, which no later one takes for its own.
    noted_boot: [u8; 16],
    time: Mutex<NodeTime>,
    /// What is added to the monotonic clock, and what a reader may have seen before that last changed.
    offset: AtomicI64,
    reached: AtomicI64,
    ticks: AtomicU64,
    jumps: AtomicU64,
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
        let noted_boot = boot.unwrap_or_else(random_boot);
        let (reached, ticks, jumps) = (AtomicI64::new(i64::MIN), AtomicU64::default(), AtomicU64::default());
        Self { machine, boot, noted_boot, time, offset, reached, ticks, jumps }
    }

    /// Goes on from a last block's time, and what was noted of the time then; before anything is stamped.
    pub fn start(&self, last_block_ms: i64, notes: &[ClockNote]) {
        let now = self.machine.reading();
        let mut time = self.time.lock();
        *time = NodeTime::start(LastTime::of(last_block_ms, notes, self.boot, now.monotonic_ms), now);
        self.show(&time, now.monotonic_ms);
    }

    /// What is to be known at the next start.
    pub fn note(&self) -> ClockNote {
        let time = self.time.lock();
        time.note(self.noted_boot, self.machine.reading())
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
        self.jumps.store(time.jumps, Ordering::Release);
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

    /// How often the wall clock or the time has jumped: then what [`note`](Self::note) gives is to be written down soon.
    pub fn jumps(&self) -> u64 {
        self.jumps.load(Ordering::Acquire)
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

    fn age_limits(&self) -> AgeLimits {
        self.time.lock().age_limits(self.machine.reading())
    }
}

#[cfg(test)]
mod lives;
#[cfg(test)]
mod tests;
