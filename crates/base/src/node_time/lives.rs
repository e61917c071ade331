//! Lives of a machine: its wall clock steps, it is paused, the node is stopped and killed. Whatever happens, nothing that was stamped while
//! a node ran is too old before its time, and soon after the last step stamps are right.

use super::*;

const HOUR: i64 = 60 * MINUTE;
const NOW: i64 = UNSET_BEFORE + 1_000 * DAY;
/// What may be lost of what a crash finds not written down yet, as slots are written.
const UNNOTED: i64 = 3 * MINUTE;
const LIMITS: [i64; 4] = [30 * MINUTE, 2 * HOUR, DAY, 7 * DAY];

struct Life {
    wall: i64,
    monotonic: u64,
    synchronised: bool,
    boot: u8,
    time: NodeTime,
    noted: ClockNote,
    jumps: u64,
    block: i64,
    /// For how long nodes ran or were off, and what was stamped when by that.
    ran: i64,
    stamped: Vec<(i64, i64)>,
    slack: i64,
}

impl Life {
    fn new(synchronised: bool) -> Self {
        let clock = ClockReading { wall_ms: NOW, monotonic_ms: 5, synchronised };
        let time = NodeTime::start(LastTime::default(), clock);
        let noted = time.note([0; 16], clock);
        let mut life = Self {
            wall: NOW,
            monotonic: 5,
            synchronised,
            boot: 0,
            time,
            noted,
            jumps: 0,
            block: NOW,
            ran: 0,
            stamped: Vec::new(),
            slack: 0,
        };
        life.run(HOUR);
        life
    }

    fn clock(&self) -> ClockReading {
        let Self { wall, monotonic, synchronised, .. } = *self;
        ClockReading { wall_ms: wall, monotonic_ms: monotonic, synchronised }
    }

    fn note(&self) -> ClockNote {
        self.time.note([self.boot; 16], self.clock())
    }

    /// The machine is paused, and none of its monotonic clocks goes on.
    fn pause(&mut self, ms: i64) {
        self.wall += ms;
    }

    /// Runs for so long: first it looks often at the clocks.
    fn run(&mut self, ms: i64) {
        let mut ran = 0;
        while ran < ms {
            let tick = if ran < 15 * MINUTE { 20_000 } else { 10 * MINUTE }.min(ms - ran);
            ran += tick;
            (self.wall, self.monotonic, self.ran) =
                (self.wall + tick, self.monotonic + tick as u64, self.ran + tick);
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.time.advance(self.clock());
        self.stamped.push((self.ran, self.time.now_ms()));
        self.stamped.retain(|(ran, _)| self.ran - ran < 8 * DAY);
        let now = self.note();
        let drift = now.behind_ms.abs_diff(self.noted.behind_ms) > MINUTE as u64;
        let jumped = self.time.jumps != self.jumps;
        if jumped || drift || self.noted.lags.differ(&now.lags, MINUTE as u64) {
            (self.noted, self.jumps) = (now, self.time.jumps);
        }
        self.check();
    }

    /// Nothing is due that is younger than its limit.
    fn check(&self) {
        let limits = self.time.age_limits(self.clock());
        for limit in LIMITS {
            let since = limits.since_ms(limit);
            for &(ran, stamp) in &self.stamped {
                let age = self.ran - ran;
                assert!(
                    stamp > since || age + self.slack >= limit,
                    "of {} min, with a limit of {} min, and {} min too old: {:?}",
                    age / MINUTE,
                    limit / MINUTE,
                    (since - stamp) / MINUTE,
                    self.time
                );
            }
        }
    }

    /// What is stamped now is as the wall clock shows.
    fn is_right(&self) -> bool {
        (self.time.now_ms() - self.wall).abs() <= LEAP
    }

    fn stop(&mut self) {
        self.noted = self.note();
    }

    /// Starts again after so much time, on the same machine or one that was started anew.
    fn start(&mut self, off: i64, another_boot: bool) {
        let last = self.stamped.last().map_or(NOW, |(_, stamp)| *stamp);
        self.block = self.block.max(last);
        (self.wall, self.monotonic, self.ran) =
            (self.wall + off, self.monotonic + off as u64, self.ran + off);
        if another_boot {
            (self.boot, self.monotonic) = (self.boot + 1, 7);
        }
        let last = LastTime::of(self.block, &[self.noted], Some([self.boot; 16]), self.monotonic);
        self.time = NodeTime::start(last, self.clock());
        (self.noted, self.jumps) = (self.note(), 0);
        self.check();
    }

    fn kill_and_start(&mut self, off: i64, another_boot: bool) {
        self.slack += UNNOTED;
        self.start(off, another_boot);
    }
}

#[test]
fn fresh_records_outlive_the_restart_after_a_pause_that_was_true() {
    for (pause, run) in
        [(3 * HOUR, 5 * MINUTE), (3 * HOUR, 30 * MINUTE), (20 * HOUR, HOUR), (240 * HOUR, HOUR)]
    {
        for (synchronised, another_boot) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut life = Life::new(synchronised);
            life.pause(pause);
            life.run(run);
            assert_eq!(life.is_right(), run >= 30 * MINUTE, "it is taken over in ten minutes");
            life.stop();
            life.start(10_000, another_boot);
            life.run(14 * MINUTE);
            assert!(life.is_right());
            life.run(9 * DAY);
            let limits = life.time.age_limits(life.clock());
            assert_eq!(limits.now_ms(7 * DAY), life.time.now_ms(), "and in the end all is as it was");
        }
    }
}

#[test]
fn what_was_stamped_just_after_a_pause_outlives_a_crash_and_another_boot() {
    for another_boot in [false, true] {
        let mut life = Life::new(true);
        life.pause(240 * HOUR);
        life.run(20_000);
        life.kill_and_start(60_000, another_boot);
        assert!(life.is_right(), "the start takes it over");
        life.run(8 * DAY);
    }
}

#[test]
fn five_seconds_behind_leave_no_stamp_behind_whoever_calls_them_synchronised() {
    for synchronised in [true, false] {
        let mut life = Life::new(synchronised);
        life.run(DAY);
        life.wall -= 204 * HOUR;
        life.run(5_000);
        assert!(life.time.now_ms() > life.wall + 203 * HOUR);
        life.wall += 204 * HOUR;
        life.run(20_000);
        assert_eq!(life.time.now_ms(), life.wall);
        life.run(DAY);
        life.stop();
        life.start(0, false);
        life.run(8 * DAY);
        assert_eq!(life.time.lags.within(7 * DAY, life.time.ran_ms), 0);
    }
}

/// The kernel's first word in a run is taken at once, and may be as wrong.
#[test]
fn a_first_word_that_is_days_behind_is_undone_at_once() {
    let mut life = Life::new(false);
    life.stop();
    life.start(60_000, true);
    life.run(60_000);
    (life.wall, life.synchronised) = (life.wall - 8 * DAY, true);
    life.run(5_000);
    assert_eq!(life.time.now_ms(), life.wall);
    life.wall += 8 * DAY;
    life.run(50);
    assert_eq!(life.time.now_ms(), life.wall);
    life.run(8 * DAY);
}

/// The same in a node that is killed meanwhile, and comes back when the clock is right.
#[test]
fn what_a_run_stamped_that_was_days_behind_is_not_older_for_the_next_one() {
    for (another_boot, synchronised) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut life = Life::new(false);
        (life.wall, life.synchronised) = (life.wall - 8 * DAY, true);
        life.run(HOUR);
        assert!(life.is_right());
        life.kill_and_start(3 * DAY, false);
        life.run(60_000);
        (life.wall, life.synchronised) = (life.wall + 8 * DAY, synchronised);
        life.kill_and_start(60_000, another_boot);
        life.run(HOUR);
        assert!(life.is_right());
        life.run(8 * DAY);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    fn of(&mut self, choices: &[i64]) -> i64 {
        choices[self.below(choices.len())]
    }
}

/// What the wall clock is off the world's time by, for errors and not for pauses.
fn happen(life: &mut Life, error: &mut i64, random: &mut Random) {
    match random.below(8) {
        0 | 1 => {
            let wrong = random.of(&[
                -400 * DAY,
                -8 * DAY,
                -HOUR,
                -4 * MINUTE,
                0,
                0,
                3 * MINUTE,
                HOUR,
                8 * DAY,
                400 * DAY,
            ]);
            life.wall += wrong - *error;
            *error = wrong;
        }
        2 => {
            let pause = random.of(&[4 * MINUTE, 3 * HOUR, 20 * HOUR, 10 * DAY]);
            // One that is followed at once is taken for what makes good a few minutes that the time was behind.
            life.slack += pause.min(LEAP);
            life.pause(pause);
        }
        3 => life.synchronised ^= true,
        4 => {
            life.stop();
            life.start(random.of(&[0, 5_000, HOUR, 3 * DAY]), false);
        }
        5 => life.kill_and_start(random.of(&[5_000, HOUR, 3 * DAY]), false),
        which => {
            // A start that finds the clock further ahead than the last run did is another matter: that may be true.
            if *error < 0 && random.below(2) == 0 {
                (life.wall, *error) = (life.wall - *error, 0);
            }
            match which {
                6 => life.stop(),
                _ => life.slack += UNNOTED,
            }
            life.start(random.of(&[5_000, HOUR, 3 * DAY]), true);
        }
    }
}

#[test]
fn in_random_lives_nothing_is_too_old_before_its_time_and_stamps_are_soon_right() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut life = Life::new(random.below(2) == 0);
        let mut error = 0;
        for _ in 0..12 {
            happen(&mut life, &mut error, &mut random);
            let run = random.of(&[1_000, 20_000, 5 * MINUTE, 12 * MINUTE, HOUR, DAY]);
            life.run(run);
            assert!(run < 12 * MINUTE || life.is_right(), "{seed}: {} {:?}", life.wall, life.time);
        }
        life.run(9 * DAY);
        let (limits, now) = (life.time.age_limits(life.clock()), life.time.now_ms());
        assert!(limits.now_ms(7 * DAY) >= now - LEAP, "{seed}: in the end it is as it was: {:?}", life.time);
    }
}
