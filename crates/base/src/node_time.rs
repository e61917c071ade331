//! The node's own time: it follows the wall clock, but not its jumps.
//!
//! Block times never fall, and records are stamped with them. So a wall clock that is a year ahead for four seconds must not be
//! believed, or every later stamp is a year ahead. [`NodeTime`] is a pure machine, from the time of the last block and two clocks
//! to what time it is:
//!
//! ```text
//!   wall clock is               the node's time
//!   ────────────────────────    ─────────────────────────────────────────────────────────────────────────────
//!   ahead by up to 5 minutes    follows at once; by so much a credit that fills as fast as time passes
//!   ahead by more               goes twice as fast as the monotonic clock until it has caught up
//!   behind by up to 5 minutes   stands until that is over
//!   behind by more              goes half as fast
//! ```
//!
//! So a jump that lasts for four seconds costs four seconds, made good in four more. A true jump is caught up with in as long as it
//! was, or by a restart: a start takes the wall clock's word, since a node may have been off for a week, unless that is more than
//! 90 days behind the last block. Then the wall clock must have gone on from there for ten minutes. Where it is *before* the
//! last block, or before this program was written (a machine without a battery), the node goes on from its last block, and
//! what a start does is done once the wall clock is set.
//!
//! What is deleted by age goes by [`expiry_ms`](NodeTime::expiry_ms): never ahead of either time. For the first ten minutes after a
//! start whose last block is more than a day old the time that the node was off does not count: whoever sees that the clock is
//! wrong can still set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock::Clock;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// How far the wall clock may jump and be followed at once.
const LEAP: i64 = 5 * MINUTE;
/// What two clocks that are read one after the other, in whole milliseconds, may differ by.
const AGREE: i64 = 2;
/// After how much time off nothing is deleted by age for a while, and after how much the wall clock is not believed at once.
const LONG_OFF: i64 = DAY;
const TOO_LONG_OFF: i64 = 90 * DAY;
/// How long either lasts.
const WAIT: u64 = 10 * MINUTE as u64;
/// A wall clock before this (2026-01-01) has not been set.
const UNSET_BEFORE: i64 = 1_767_225_600_000;
/// How often a wall clock that is not followed is worth a word.
const TELL_EVERY: u64 = MINUTE as u64;

/// A wall clock that nobody believes yet.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    wall_ms: i64,
    since_ms: u64,
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
    /// The wall clock is so many milliseconds ahead of the last block: more than is believed at once.
    Doubted(i64),
    /// The node was off for so many milliseconds: what is deleted by age waits.
    Waits(i64),
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
    /// The time of the last block, if there is one, and the monotonic clock at the start.
    last_ms: Option<i64>,
    started_ms: u64,
    /// Whether time off does not count yet for what is deleted by age.
    waits: bool,
    unset: bool,
    doubt: Option<Doubt>,
    /// What was said last, and when.
    told: Option<(Notice, u64)>,
}

impl NodeTime {
    /// The time of a node whose last block has that time.
    pub fn start(last_ms: Option<i64>, wall_ms: i64, monotonic_ms: u64) -> Self {
        let last = last_ms.unwrap_or(wall_ms);
        let off = wall_ms.saturating_sub(last);
        let believed = (0..=TOO_LONG_OFF).contains(&off);
        Self {
            now_ms: if believed { wall_ms } else { last },
            at_ms: monotonic_ms,
            credit: LEAP,
            last_ms,
            started_ms: monotonic_ms,
            waits: off > LONG_OFF,
            unset: off < -LEAP || wall_ms < UNSET_BEFORE,
            doubt: (off > TOO_LONG_OFF).then_some(Doubt { wall_ms, since_ms: monotonic_ms }),
            told: None,
        }
    }

    /// What time it was when [`advance`](Self::advance) was last called.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// How far the wall clock is ahead of it; negative if it is behind.
    pub fn ahead_ms(&self, wall_ms: i64, monotonic_ms: u64) -> i64 {
        wall_ms.saturating_sub(self.steady(monotonic_ms))
    }

    /// The time that things must be older than to be deleted by age.
    pub fn expiry_ms(&self, wall_ms: i64, monotonic_ms: u64) -> i64 {
        let now = self.steady(monotonic_ms).min(wall_ms);
        let since = monotonic_ms.saturating_sub(self.started_ms);
        match self.last_ms {
            Some(last) if self.waits && since < WAIT => now.min(last.saturating_add(since as i64)),
            _ => now,
        }
    }

    /// The time if nothing but the monotonic clock went on.
    fn steady(&self, monotonic_ms: u64) -> i64 {
        self.now_ms.saturating_add(monotonic_ms.saturating_sub(self.at_ms) as i64)
    }

    /// Takes a look at the clocks; to be called every 50 ms or so.
    pub fn advance(&mut self, wall_ms: i64, monotonic_ms: u64) {
        self.set_out(wall_ms, monotonic_ms);
        let elapsed = monotonic_ms.saturating_sub(self.at_ms) as i64;
        let steady = self.steady(monotonic_ms);
        let ahead = wall_ms.saturating_sub(steady);
        self.credit = self.credit.saturating_add(elapsed).min(LEAP);
        self.now_ms = if self.is_cleared(ahead, wall_ms, monotonic_ms) {
            wall_ms
        } else if ahead.saturating_abs() <= AGREE {
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
        };
        self.at_ms = self.at_ms.max(monotonic_ms);
    }

    /// Starts anew where the wall clock has been set at last.
    fn set_out(&mut self, wall_ms: i64, monotonic_ms: u64) {
        let floor = self.last_ms.map_or(UNSET_BEFORE, |last| last.max(UNSET_BEFORE));
        if self.unset && wall_ms >= floor {
            let reached = self.steady(monotonic_ms);
            *self = Self { told: self.told, ..Self::start(self.last_ms, wall_ms, monotonic_ms) };
            self.now_ms = self.now_ms.max(reached);
        }
    }

    /// Whether a wall clock that was in doubt is to be believed: it was put right, or has kept its word for long enough.
    fn is_cleared(&mut self, ahead: i64, wall_ms: i64, monotonic_ms: u64) -> bool {
        let Some(doubt) = self.doubt else { return false };
        if ahead <= TOO_LONG_OFF {
            self.doubt = None;
            return ahead >= 0;
        }
        let since = monotonic_ms.saturating_sub(doubt.since_ms);
        let kept =
            wall_ms.saturating_sub(doubt.wall_ms).saturating_sub(since as i64).saturating_abs() <= LEAP;
        let cleared = kept && since >= WAIT;
        if cleared {
            self.doubt = None;
        } else if !kept {
            self.doubt = Some(Doubt { wall_ms, since_ms: monotonic_ms });
        }
        cleared
    }

    /// What is to be said now, if anything.
    pub fn notice(&mut self, wall_ms: i64, monotonic_ms: u64) -> Option<Notice> {
        let notice = self.state(wall_ms, monotonic_ms);
        let before = self.told.map(|(said, _)| said);
        let news = match (notice, before) {
            (Notice::Agrees, None | Some(Notice::Agrees)) => false,
            (_, None) => true,
            (now, Some(before)) => std::mem::discriminant(&now) != std::mem::discriminant(&before),
        };
        // One that jumps to and fro is told of now and then.
        let late = self.told.is_none_or(|(_, at)| monotonic_ms.saturating_sub(at) >= TELL_EVERY);
        let tell = news && (late || notice == Notice::Agrees);
        if tell {
            self.told = Some((notice, monotonic_ms));
        }
        tell.then_some(notice)
    }

    fn state(&self, wall_ms: i64, monotonic_ms: u64) -> Notice {
        let ahead = self.ahead_ms(wall_ms, monotonic_ms);
        let off = wall_ms.saturating_sub(self.last_ms.unwrap_or(wall_ms));
        match ahead {
            _ if self.unset => Notice::Unset(off.saturating_neg()),
            _ if self.doubt.is_some() => Notice::Doubted(off),
            _ if ahead > LEAP => Notice::Ahead(ahead),
            _ if ahead < -LEAP => Notice::Behind(ahead.saturating_neg()),
            _ if self.waits && monotonic_ms.saturating_sub(self.started_ms) < WAIT => Notice::Waits(off),
            _ => Notice::Agrees,
        }
    }
}

/// The clock of a node: [`NodeTime`] over the machine's clocks. Reading it takes no lock.
pub struct NodeClock {
    machine: Arc<dyn Clock>,
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
        let (wall, monotonic) = (machine.now_ms(), machine.monotonic_ms());
        let time = Mutex::new(NodeTime::start(None, wall, monotonic));
        let offset = AtomicI64::new(wall - monotonic as i64);
        Self { machine, time, offset, reached: AtomicI64::new(i64::MIN), ticks: AtomicU64::new(0) }
    }

    /// Goes on from a last block's time; before anything is stamped.
    pub fn start(&self, last_ms: i64) {
        let (wall, monotonic) = (self.machine.now_ms(), self.machine.monotonic_ms());
        let mut time = self.time.lock();
        *time = NodeTime::start(Some(last_ms), wall, monotonic);
        self.offset.store(time.now_ms() - monotonic as i64, Ordering::Release);
    }

    /// Looks at the machine's clocks; to be called every 50 ms or so. What comes back is to be logged.
    pub fn tick(&self) -> Option<Notice> {
        let (wall, monotonic) = (self.machine.now_ms(), self.machine.monotonic_ms());
        let mut time = self.time.lock();
        time.advance(wall, monotonic);
        // First what was reached: a reader must not see less than before.
        let offset = self.offset.load(Ordering::Acquire);
        self.reached.fetch_max((monotonic as i64).saturating_add(offset), Ordering::Release);
        self.offset.store(time.now_ms() - monotonic as i64, Ordering::Release);
        let notice = time.notice(wall, monotonic);
        self.ticks.fetch_add(1, Ordering::Release);
        notice
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
        let (wall, monotonic) = (self.machine.now_ms(), self.machine.monotonic_ms());
        self.time.lock().ahead_ms(wall, monotonic)
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
        let (wall, monotonic) = (self.machine.now_ms(), self.machine.monotonic_ms());
        self.time.lock().expiry_ms(wall, monotonic)
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
        time: NodeTime,
        notices: Vec<Notice>,
    }

    impl Rig {
        fn starting(last: Option<i64>, wall: i64) -> Self {
            Self { wall, monotonic: 777, time: NodeTime::start(last, wall, 777), notices: Vec::new() }
        }

        fn pass(&mut self, ms: i64) {
            let mut left = ms;
            while left > 0 {
                let step = left.min(50);
                (self.wall, self.monotonic, left) =
                    (self.wall + step, self.monotonic + step as u64, left - step);
                let before = self.time.now_ms();
                self.time.advance(self.wall, self.monotonic);
                assert!(self.time.now_ms() >= before, "it never falls");
                self.notices.extend(self.time.notice(self.wall, self.monotonic));
            }
        }

        fn now(&self) -> i64 {
            self.time.now_ms()
        }

        fn expiry(&self) -> i64 {
            self.time.expiry_ms(self.wall, self.monotonic)
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
    fn one_that_is_set_back_is_waited_for_at_half_the_pace_and_then_standing() {
        let mut rig = Rig::starting(Some(NOW), NOW);
        rig.wall -= 10 * MINUTE;
        rig.pass(10 * MINUTE);
        assert_eq!(rig.now(), NOW + 5 * MINUTE);
        assert_eq!(rig.expiry(), NOW, "nothing is deleted before its time");
        rig.pass(10 * MINUTE);
        assert_eq!(rig.now(), rig.wall);
        assert!(matches!(rig.notices[..], [Notice::Behind(_), Notice::Agrees]), "{:?}", rig.notices);
        rig.wall -= YEAR;
        rig.pass(60_000);
        assert_eq!((rig.now() - rig.wall - YEAR) / 1000, -30, "it goes on");
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
    fn a_week_off_is_believed_at_once_but_ages_nothing_for_ten_minutes() {
        let mut rig = Rig::starting(Some(NOW - 7 * DAY), NOW);
        assert_eq!(rig.now(), NOW);
        rig.pass(9 * MINUTE);
        assert_eq!(rig.now(), NOW + 9 * MINUTE);
        assert_eq!(rig.expiry(), NOW - 7 * DAY + 9 * MINUTE);
        rig.pass(MINUTE);
        assert_eq!(rig.expiry(), NOW + 10 * MINUTE);
        assert!(matches!(rig.notices[..], [Notice::Waits(_), Notice::Agrees]), "{:?}", rig.notices);
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
        right.advance(NOW + 3 * DAY, rig.monotonic + 50);
        assert_eq!(right.now_ms(), NOW + 3 * DAY, "it was off for three days");
        assert!(right.expiry_ms(NOW + 3 * DAY, rig.monotonic + 50) < NOW + DAY, "which still age nothing");
        rig.pass(5 * MINUTE);
        assert_eq!(rig.now(), rig.wall, "it was off for a year");
        assert!(matches!(rig.notices[..], [Notice::Doubted(_), Notice::Agrees]), "{:?}", rig.notices);
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
        for last in [None, Some(i64::MIN), Some(0), Some(NOW), Some(i64::MAX)] {
            for wall in clocks {
                let mut time = NodeTime::start(last, wall, u64::MAX / 2);
                for (i, next) in clocks.into_iter().enumerate() {
                    let monotonic = u64::MAX / 2 + i as u64 * 50;
                    time.advance(next, monotonic);
                    let _ = (time.expiry_ms(next, monotonic), time.notice(next, monotonic));
                }
            }
        }
    }

    #[test]
    fn a_reader_never_sees_time_fall() {
        let machine = Arc::new(ManualClock::at(NOW));
        let clock = NodeClock::new(machine.clone());
        clock.start(NOW - 5);
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
