//! Machines whose wall clocks step, and what the time of a node on them is.

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
        let sure = LastTime { steady_confirmed: true, ..LastTime::default() };
        let last = LastTime { block_ms, noted_ms, steady_ms, confirmed_ms, ..sure };
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
        assert_eq!(self.pass_anyhow(ms), falls, "whether it went back");
    }

    /// The same; whether it fell.
    fn pass_anyhow(&mut self, ms: i64) -> bool {
        let (mut left, mut fell) = (ms, false);
        while left > 0 {
            let step = left.min(50);
            (self.wall, self.monotonic, left) = (self.wall + step, self.monotonic + step as u64, left - step);
            let before = self.time.now_ms();
            let back = self.time.advance(self.clock());
            assert_eq!(back, self.time.now_ms() < before);
            fell |= back;
            self.notices.extend(self.time.notice(self.clock()));
        }
        fell
    }

    fn now(&self) -> i64 {
        self.time.now_ms()
    }

    /// What things are deleted by that are kept for a moment only.
    fn expiry(&self) -> i64 {
        self.age_limits().now_ms(0)
    }

    fn age_limits(&self) -> AgeLimits {
        self.time.age_limits(self.clock())
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
fn time_off_that_only_an_unsynchronised_clock_tells_of_deletes_nothing_for_ten_minutes() {
    for off in [10 * MINUTE, 4 * 60 * MINUTE, 20 * 60 * MINUTE] {
        let mut rig = Rig::starting(Some(NOW), NOW + off);
        rig.pass(9 * MINUTE);
        assert_eq!((rig.now(), rig.expiry()), (NOW + off + 9 * MINUTE, NOW + 9 * MINUTE));
        assert_eq!(rig.notices, [Notice::Off(off)]);
        rig.pass(2 * MINUTE);
        assert_eq!(rig.expiry(), rig.now(), "it was off");

        // It was wrong, and is set right.
        let mut rig = Rig::starting(Some(NOW), NOW + off);
        rig.pass(MINUTE);
        (rig.wall, rig.synchronised) = (rig.wall - off, true);
        rig.pass_back(MINUTE, true);
        assert_eq!((rig.now(), rig.expiry()), (NOW + 2 * MINUTE, NOW + 2 * MINUTE));

        // The kernel says that it is right.
        let mut rig = Rig::starting(Some(NOW), NOW + off);
        rig.pass(MINUTE);
        rig.synchronised = true;
        rig.pass(MINUTE);
        assert_eq!(rig.expiry(), rig.now());
    }
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
fn a_clock_that_was_put_right_by_an_hour_is_taken_over_in_ten_minutes() {
    for synchronised in [false, true] {
        let mut rig = Rig::starting(Some(NOW), NOW);
        rig.pass(60 * MINUTE);
        (rig.wall, rig.synchronised) = (rig.wall + 60 * MINUTE, synchronised);
        rig.pass(9 * MINUTE);
        assert_eq!(rig.now(), NOW + 60 * MINUTE + 18 * MINUTE, "twice as fast until then");
        rig.pass(2 * MINUTE);
        assert_eq!(rig.now(), rig.wall);
        let limits = rig.age_limits();
        assert_eq!(limits.now_ms(7 * DAY), rig.wall - 60 * MINUTE, "what was stamped before ages no faster");
        rig.pass(2 * 60 * MINUTE);
        assert_eq!(rig.age_limits().now_ms(30 * MINUTE), rig.wall, "all that is kept for so long is later");
        let [Notice::Ahead(_), Notice::Stepped(_), Notice::Agrees] = rig.notices[..] else {
            panic!("{:?}", rig.notices)
        };
    }
}

#[test]
fn a_step_that_is_taken_back_within_seconds_is_told_of_both_times() {
    let mut rig = Rig::starting(Some(NOW), NOW);
    rig.pass(1_000);
    (rig.wall, rig.synchronised) = (rig.wall + YEAR, true);
    rig.pass(3_000);
    assert_eq!(rig.now(), rig.wall, "it was the first word");
    rig.wall -= YEAR;
    rig.pass_back(1_000, true);
    assert_eq!(rig.now(), rig.wall);
    assert_eq!(rig.notices, [Notice::Stepped(YEAR), Notice::SteppedBack(YEAR)]);
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
    let [Notice::Behind(_), Notice::SteppedBack(_), Notice::Stands(_), Notice::Agrees] = rig.notices[..]
    else {
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
        ran_ms: before.time.ran_ms,
        behind_ms: before.time.note([0; 16], clock).behind_ms,
        lags: before.time.lags,
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

/// Starts again at once, on the same machine or one that was started anew, with what was noted last.
fn started_again(before: &Rig, noted: ClockNote, another_boot: bool) -> Rig {
    let block = before.time.stamped_ms.max(before.now());
    let (boot, monotonic) = if another_boot { ([9; 16], 777) } else { ([0; 16], before.monotonic) };
    let last = LastTime::of(block, &[noted], Some(boot), monotonic);
    let clock = ClockReading { monotonic_ms: monotonic, ..before.clock() };
    let time = NodeTime::start(last, clock);
    Rig { monotonic, time, notices: Vec::new(), ..*before }
}

/// What [`started_again`] takes.
fn noted(rig: &Rig) -> ClockNote {
    rig.time.note([0; 16], rig.clock())
}

/// How a run ends: what it noted last is of its end, or of its start.
#[derive(Debug, Clone, Copy)]
struct Ends {
    another_boot: bool,
    killed: bool,
}

impl Ends {
    const ALL: [Self; 4] = [
        Self { another_boot: false, killed: false },
        Self { another_boot: false, killed: true },
        Self { another_boot: true, killed: false },
        Self { another_boot: true, killed: true },
    ];

    /// Runs for so long, ends so, and starts again.
    fn run(self, rig: &mut Rig, ms: i64) {
        let at_start = noted(rig);
        rig.pass(ms);
        let last = if self.killed { at_start } else { noted(rig) };
        *rig = started_again(rig, last, self.another_boot);
    }
}

#[test]
fn each_start_under_an_unconfirmed_clock_waits_ten_minutes_of_its_own() {
    let cases = [20 * 60 * MINUTE, 22 * 60 * MINUTE, 60 * MINUTE]
        .into_iter()
        .flat_map(|jump| [MINUTE, 5 * MINUTE, 9 * MINUTE, 10 * MINUTE - 50].map(|run| (jump, run)));
    for ((jump, run), ends) in cases.flat_map(|case| Ends::ALL.map(|ends| (case, ends))) {
        let mut rig = Rig::starting(Some(NOW), NOW);
        rig.pass(5_000);
        let last = noted(&rig);
        rig.wall += jump;
        rig = started_again(&rig, last, true);
        for start in 0..4 {
            let right = rig.wall - jump;
            assert!((rig.now() - rig.wall).abs() <= LEAP, "what is stamped is as the clock shows");
            assert!(rig.expiry() <= right, "{jump} {run} {ends:?} {start}: {}", rig.expiry() - right);
            ends.run(&mut rig, run);
        }
        let right = rig.wall - jump;
        rig.pass(10 * MINUTE - 50);
        assert!(rig.expiry() <= right + 10 * MINUTE, "{jump} {run} {ends:?}");
        let [Notice::Off(said)] = rig.notices[..] else { panic!("{ends:?}: {:?}", rig.notices) };
        assert!((jump..=jump + 60 * MINUTE).contains(&said), "{said}");
        rig.pass(50);
        assert_eq!(rig.expiry(), rig.now(), "it was off");
        // It was believed, but that is not confirmed.
        for run in [MINUTE, 11 * MINUTE, 60 * MINUTE] {
            ends.run(&mut rig, run);
            assert!(rig.expiry() < rig.now() - LEAP, "{jump} {run} {ends:?}");
            rig.pass(50);
            assert!(matches!(rig.notices[..], [Notice::Off(_)]), "{:?}", rig.notices);
        }
        // What has been followed for a day is.
        rig.pass(DAY);
        rig = started_again(&rig, noted(&rig), ends.another_boot);
        rig.pass(50);
        assert_eq!((rig.expiry(), rig.notices.len()), (rig.now(), 0));
    }
}

#[test]
fn one_that_is_put_right_while_a_later_start_waits_deletes_nothing_and_is_soon_in_stamps() {
    for ends in Ends::ALL {
        for (jump, synchronised) in [(20 * 60 * MINUTE, false), (20 * 60 * MINUTE, true), (YEAR, false)] {
            let mut rig = Rig::starting(Some(NOW), NOW + jump);
            ends.run(&mut rig, 5 * MINUTE);
            rig.pass(4 * MINUTE);
            (rig.wall, rig.synchronised) = (rig.wall - jump, synchronised);
            for _ in 0..20 {
                rig.pass_anyhow(MINUTE);
                assert!(rig.expiry() <= rig.wall);
            }
            // A run that was killed while its clock was in doubt may have been off for as long as it ran.
            let right = |rig: &Rig| rig.now() == rig.wall && rig.wall - rig.expiry() <= 5 * MINUTE;
            assert!(right(&rig), "{ends:?} {jump} {synchronised}: {:?}", rig.time);
            rig = started_again(&rig, noted(&rig), ends.another_boot);
            rig.pass(MINUTE);
            assert!(right(&rig), "{ends:?} {jump} {synchronised}: {:?}", rig.time);
        }
    }
}

#[test]
fn one_that_jumps_again_while_a_start_waits_is_waited_for_anew() {
    let hours = 60 * MINUTE;
    for (first, second) in [(2 * hours, 20 * hours), (20 * hours, 2 * hours), (YEAR, 20 * hours)] {
        let mut rig = Rig::starting(Some(NOW), NOW + first);
        rig.pass(5 * MINUTE);
        rig.wall += second - first;
        for _ in 0..9 {
            let back = rig.wall < rig.now() && (rig.wall - rig.now()).abs() > LEAP;
            rig.pass(MINUTE);
            assert!(rig.expiry() <= rig.wall - second, "{first} {second} {back}: {:?}", rig.time);
        }
        rig.pass_back(2 * MINUTE, second < first && first < DAY);
        assert_eq!((rig.now(), rig.expiry()), (rig.wall, rig.age_limits().now_ms(0)), "{first} {second}");
        assert!(rig.age_limits().at_most_ms > rig.wall - LEAP, "in ten minutes: {first} {second}");
    }
}

/// There is nothing that the clock could contradict, and nothing that it could have deleted: what is stamped under it is as old by it.
#[test]
fn a_new_directory_takes_the_clock_that_it_finds() {
    for ends in Ends::ALL {
        let mut rig = Rig::starting(None, NOW + YEAR);
        for _ in 0..3 {
            ends.run(&mut rig, 5 * MINUTE);
            rig.pass(50);
            assert_eq!((rig.now(), rig.notices.len()), (rig.wall, 0));
        }
        let stamped = rig.now();
        rig.wall -= YEAR;
        ends.run(&mut rig, MINUTE);
        assert!(rig.expiry() <= rig.wall);
        rig.pass_back(11 * MINUTE, true);
        assert_eq!((rig.now(), rig.expiry()), (rig.wall, rig.wall));
        assert!(
            rig.age_limits().since_ms(0) < stamped,
            "what was stamped then stays until it is old by the right time"
        );
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
        ..ClockNote::default()
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
    assert!(rig.now() < NOW + 20 * MINUTE, "ahead it is not, whatever the kernel says: {}", rig.now() - NOW);
}

#[test]
fn a_clock_that_was_behind_and_jumps_ahead_is_not_believed_for_that() {
    let mut rig = Rig::starting(Some(NOW), NOW);
    rig.wall -= YEAR;
    rig.pass(5 * MINUTE);
    for ahead in [YEAR + 60 * DAY, YEAR] {
        rig.wall += ahead;
        rig.pass(9 * MINUTE);
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
    assert_eq!((off.now(), off.expiry()), (NOW + 7 * DAY + 9 * MINUTE, NOW + 9 * MINUTE), "off for a week");
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
    let last = LastTime { block_ms: Some(NOW - DAY / 3), ..LastTime::default() };
    let night = Rig::with(last, NOW, true);
    assert_eq!((night.now(), night.expiry()), (NOW, NOW));
}

#[test]
fn a_year_at_a_start_is_believed_after_ten_minutes_or_when_it_is_put_right() {
    let mut rig = Rig::starting(Some(NOW), NOW + YEAR);
    assert_eq!(rig.now(), NOW);
    rig.pass(5 * MINUTE);
    assert!(rig.now() <= NOW + 10 * MINUTE && rig.expiry() <= NOW + 5 * MINUTE);
    let mut right = rig.time.clone();
    let put_right = ClockReading { wall_ms: NOW + 3 * DAY, monotonic_ms: rig.monotonic + 50, ..rig.clock() };
    right.advance(put_right);
    assert_eq!(right.now_ms(), NOW + 3 * DAY, "it was off for three days");
    assert!(right.age_limits(put_right).now_ms(0) < NOW + DAY, "which still age nothing");
    rig.pass(5 * MINUTE);
    assert_eq!(rig.now(), rig.wall, "it was off for a year");
    assert!(rig.expiry() < NOW + DAY);
    rig.pass(MINUTE);
    let [Notice::Doubted(_), Notice::Stepped(_), Notice::Waits(..)] = rig.notices[..] else {
        panic!("{:?}", rig.notices)
    };
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
            ran_ms: steady_ms.map_or(0, |ms| ms as u64),
            behind_ms: steady_ms.unwrap_or(0),
            lags: Lags([ClockLag { until_ms: u64::MAX, by_ms: i64::MAX }; LAGS]),
        })
    });
    for (last, wall_ms, synchronised) in starts
        .flat_map(|last| clocks.into_iter().map(move |wall| (last, wall)))
        .flat_map(|(last, wall)| [(last, wall, false), (last, wall, true)])
    {
        let monotonic_ms = u64::MAX / 2;
        let mut time = NodeTime::start(last, ClockReading { wall_ms, monotonic_ms, synchronised });
        for (i, wall_ms) in clocks.into_iter().enumerate() {
            let clock = ClockReading { wall_ms, monotonic_ms: monotonic_ms + i as u64 * 50, synchronised };
            time.advance(clock);
            let _ = (time.age_limits(clock).since_ms(5), time.notice(clock), time.stamps_ahead_ms());
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
    let noted = NodeClock::new(machine.clone()).note();
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

/// A machine that does not tell one run of it from another.
struct Nameless(ManualClock);

impl Clock for Nameless {
    fn now_ms(&self) -> i64 {
        self.0.now_ms()
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.monotonic_ms()
    }
}

#[test]
fn a_machine_that_does_not_tell_its_runs_is_taken_for_another_at_each_start() {
    let machine = Arc::new(Nameless(ManualClock::at(NOW)));
    let (hours, mut notes) = (20 * 60 * MINUTE, vec![NodeClock::new(machine.clone()).note()]);
    machine.0.set_by(hours);
    for _ in 0..3 {
        let clock = NodeClock::new(machine.clone());
        clock.start(machine.now_ms(), &notes);
        assert_eq!(
            (clock.now_ms(), clock.age_limits().now_ms(0)),
            (machine.now_ms(), machine.now_ms() - hours)
        );
        machine.0.advance(9 * MINUTE);
        clock.tick();
        notes = vec![clock.note()];
    }
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
