//! Timers against a plain map, restarted from their stored form at any moment.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Default)]
struct Disk(BTreeMap<(u64, u32), Vec<u8>>);

impl RunSink for Disk {
    fn write(&mut self, run: u64, page: u32, stored: Vec<u8>) {
        assert!(self.0.insert((run, page), stored).is_none(), "a page is written once");
    }

    fn drop_run(&mut self, run: u64) {
        self.0.retain(|(number, _), _| *number != run);
    }
}

struct Shard {
    timers: Timers,
    upcoming: UpcomingTimers,
    disk: Disk,
}

impl Shard {
    fn new(most: usize) -> Self {
        Self { timers: Timers::new(most), upcoming: UpcomingTimers::default(), disk: Disk::default() }
    }

    /// Fires what is due, and gives it; and when the next one is. Timers of `late` are set between proposal and effect.
    fn fire(
        &mut self,
        now_ms: i64,
        most: usize,
        late: &mut Vec<(i64, u64)>,
    ) -> (Vec<(TimerKey, TimerTarget)>, Option<i64>) {
        let mut fired = Vec::new();
        loop {
            match self.upcoming.due(&self.timers, self.timers.fired(), now_ms, most) {
                DueTimers::Nothing(next) => return (fired, next),
                DueTimers::Read { run, page } => {
                    let timers = Timers::decode_page(&self.disk.0[&(run, page)]).unwrap();
                    self.upcoming.page(run, page, timers);
                }
                DueTimers::Fire(due) => {
                    let below = self.timers.next_number();
                    for (due_ms, n) in late.drain(..) {
                        self.timers.set(due_ms, TimerTarget::Kept(n), &mut self.disk);
                    }
                    if self.timers.fire(due[due.len() - 1].0, below, &mut self.disk) {
                        fired.extend(due);
                    }
                }
            }
        }
    }

    fn restart(&mut self) {
        let mut stored = Vec::new();
        self.timers.encode(&mut stored);
        let again = Timers::decode(&stored).unwrap();
        assert_eq!(again, self.timers);
        (self.timers, self.upcoming) = (again, UpcomingTimers::default());
    }
}

#[derive(Debug, Clone)]
enum Event {
    Set(u16),
    SetLate(u16),
    Recall(u8),
    /// Every eighth of them, where it is in memory.
    RecallInMemory(u8),
    Pass(u16, u8),
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        20 => (0..5_000u16).prop_map(Event::Set),
        4 => (0..2_000u16).prop_map(Event::SetLate),
        4 => any::<u8>().prop_map(Event::Recall),
        1 => any::<u8>().prop_map(Event::RecallInMemory),
        3 => (0..400u16, 1..20u8).prop_map(|(ms, most)| Event::Pass(ms, most)),
        1 => Just(Event::Restart),
    ];
    vec(event, 1..300)
}

proptest! {
    #[test]
    fn timers_fire_once_in_order_and_on_time(events in events(), most in 2..40usize) {
        let mut shard = Shard::new(most);
        // What was set and neither fired nor recalled: when it is due, and its key if it may be recalled.
        let mut naive: BTreeMap<u64, (i64, Option<TimerKey>)> = BTreeMap::new();
        let (mut now, mut late, mut last) = (1_000, Vec::new(), TimerKey::FIRST);
        for (event, n) in events.iter().chain([&Event::Pass(10_000, 7), &Event::Set(600), &Event::Pass(200, 1)]).zip(0..) {
            match *event {
                Event::Set(after) => {
                    let due = now - 500 + i64::from(after);
                    let key = shard.timers.set(due, TimerTarget::Kept(n), &mut shard.disk);
                    prop_assert!(key.due_ms >= due && key > shard.timers.fired());
                    naive.insert(n, (due, Some(key)));
                }
                Event::SetLate(after) => late.push((now - 500 + i64::from(after), n)),
                Event::Recall(which) => {
                    let all: Vec<_> = naive.iter().filter_map(|(n, (_, key))| Some((*n, (*key)?))).collect();
                    if let Some((n, key)) = all.get(usize::from(which) % all.len().max(1)) {
                        shard.timers.recall(*key);
                        naive.remove(n);
                    }
                }
                Event::RecallInMemory(which) => {
                    let is_meant = |target: &TimerTarget| {
                        matches!(target, TimerTarget::Kept(n) if *n % 8 == u64::from(which) % 8)
                    };
                    let in_memory = shard.timers.in_memory(TimerKey::FIRST).map(|(_, target)| target);
                    let meant: Vec<_> = in_memory.filter(is_meant).collect();
                    prop_assert_eq!(shard.timers.recall_in_memory(is_meant), meant.len());
                    for target in meant {
                        let TimerTarget::Kept(n) = target else { panic!("{target:?}") };
                        prop_assert!(naive.remove(&n).is_some());
                    }
                }
                Event::Pass(ms, batch) => {
                    now += i64::from(ms);
                    let before = late.clone();
                    let (fired, next) = shard.fire(now, batch.into(), &mut late);
                    let set = before.into_iter().filter(|each| !late.contains(each));
                    naive.extend(set.map(|(due, n)| (n, (due, None))));
                    for (key, target) in fired {
                        let TimerTarget::Kept(n) = target else { panic!("{target:?}") };
                        let (due, _) = naive.remove(&n).expect("it fires once, and not if it was recalled");
                        prop_assert!(due <= now && key > last, "in time, and in order");
                        last = key;
                    }
                    // A page that was not read may begin with a recalled timer.
                    let first = naive.values().map(|(due, _)| *due).min();
                    prop_assert!(first.is_none_or(|first| next.is_some_and(|next| now < next && next <= first)));
                }
                Event::Restart => shard.restart(),
            }
            let latest = naive.values().map(|(due, _)| *due).max();
            prop_assert!(latest <= shard.timers.last_due_ms(), "none is later");
        }
        prop_assert!(naive.is_empty());
        prop_assert!(shard.disk.0.is_empty(), "a run goes with the next timer that fires behind it");
    }
}

#[test]
fn timers_are_stored_in_these_bytes() {
    use crate::subscription::{Attempts, SubscriptionNo};
    let mut shard = Shard::new(2);
    let attempts = Attempts { acquired: 2, returned: 1 };
    let parked = TimerTarget::Parked { subscription: SubscriptionNo(7), offset: 9, resets: 0, attempts };
    shard.timers.set(3, parked, &mut shard.disk);
    let second = shard.timers.set(2, TimerTarget::Kept(5), &mut shard.disk);
    shard.timers.fire(TimerKey { due_ms: 1, number: 0 }, 3, &mut shard.disk);
    shard.timers.set(4, TimerTarget::Kept(6), &mut shard.disk);
    shard.timers.recall(TimerKey { due_ms: 4, number: 3 });
    assert_eq!(shard.disk.0[&(1, 0)], [1, 2, 6, 1, 0, 7, 9, 0, 2, 1, 8, 3, 1, 6]);
    let mut stored = Vec::new();
    shard.timers.encode(&mut stored);
    assert_eq!(stored, [1, 2, 4, 2, 2, 0, 1, 4, 2, 1, 5, 1, 1, 1, 6, 1, 8, 3, 3, 1, 8, 3]);
    assert_eq!(second, TimerKey { due_ms: 2, number: 2 });
    assert!((0..stored.len()).all(|len| Timers::decode(&stored[..len]).is_err()));
    assert!(Timers::decode_page(&[2, 0]).is_err());
    let mut shard = Shard::new(2);
    let repeated = TimerTarget::Repeated { subscription: SubscriptionNo(7), offset: 300, fired: 9 };
    shard.timers.set(3, repeated, &mut shard.disk);
    let mut stored = Vec::new();
    shard.timers.encode(&mut stored);
    assert_eq!(Timers::decode(&stored).unwrap(), shard.timers);
    assert!(stored.windows(5).any(|bytes| bytes == [3, 7, 0xac, 2, 9]), "{stored:?}");
}

#[test]
fn a_million_timers_take_a_few_megabytes() {
    const MOST: usize = 16_384;
    let mut shard = Shard::new(MOST);
    let mut spread = 1u64;
    for n in 0..1_000_000 {
        spread = spread.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        shard.timers.set((spread >> 40) as i64, TimerTarget::Kept(n), &mut shard.disk);
    }
    let (first, _) = shard.fire(1 << 14, 1_000, &mut Vec::new());
    assert!(first.len() > 500 && first.is_sorted_by_key(|(key, _)| *key));
    let bytes = shard.timers.bytes() + shard.upcoming.bytes();
    assert!(bytes < 6 << 20, "{bytes} bytes");
}
