//! Which timers are due: the leader's reading of the runs.

use std::collections::BTreeMap;

use super::{TimerKey, TimerTarget, Timers};

/// How far the leader has read. Made anew with each leader.
#[derive(Debug, Default)]
pub struct UpcomingTimers {
    /// Pages read of each run.
    read: BTreeMap<u64, u32>,
    /// Timers of these pages that have not fired.
    ahead: BTreeMap<TimerKey, TimerTarget>,
}

/// What is to be done about timers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DueTimers {
    /// These fire now, in this order: to be proposed, with the last one's key and [`Timers::next_number`] for [`Timers::fire`].
    Fire(Vec<(TimerKey, TimerTarget)>),
    /// A page is to be read and handed in with [`UpcomingTimers::page`] before it can be told.
    Read {
        /// The run.
        run: u64,
        /// The page.
        page: u32,
    },
    /// Nothing before this moment, in milliseconds, or nothing at all.
    Nothing(Option<i64>),
}

impl UpcomingTimers {
    /// A page of a run was read.
    pub fn page(&mut self, run: u64, page: u32, timers: Vec<(TimerKey, TimerTarget)>) {
        let read = self.read.entry(run).or_default();
        if page == *read {
            *read += 1;
            self.ahead.extend(timers);
        }
    }

    /// What is due behind the timers that were proposed last (or that fired last, if that was refused), at most so many.
    pub fn due(&mut self, timers: &Timers, behind: TimerKey, now_ms: i64, most: usize) -> DueTimers {
        self.forget(timers, behind);
        let unread = self.next_unread(timers);
        if let Some((key, run, page)) = unread
            && key.due_ms <= now_ms
        {
            return DueTimers::Read { run, page };
        }
        let due = |(key, _): &(TimerKey, TimerTarget)| key.due_ms <= now_ms;
        let mut fire: Vec<_> = timers.in_memory(behind).take_while(due).take(most).collect();
        let ahead = self.ahead.iter().map(|(key, target)| (*key, *target)).take_while(due);
        fire.extend(ahead.filter(|(key, _)| !timers.is_recalled(*key)).take(most));
        fire.sort_unstable_by_key(|(key, _)| *key);
        fire.truncate(most);
        if fire.is_empty() {
            DueTimers::Nothing(self.next_ms(timers, behind, unread))
        } else {
            DueTimers::Fire(fire)
        }
    }

    fn forget(&mut self, timers: &Timers, behind: TimerKey) {
        let from = TimerKey { number: behind.number.saturating_add(1), ..behind };
        if self.ahead.first_key_value().is_some_and(|(first, _)| *first < from) {
            self.ahead = self.ahead.split_off(&from);
        }
        if self.read.len() > timers.runs().len() {
            self.read.retain(|number, _| timers.runs().iter().any(|run| run.number == *number));
        }
    }

    /// The first page that was not read.
    fn next_unread(&self, timers: &Timers) -> Option<(TimerKey, u64, u32)> {
        let unread = timers.runs().iter().filter_map(|run| {
            let page = self.read.get(&run.number).copied().unwrap_or(0);
            run.pages.get(page as usize).map(|key| (*key, run.number, page))
        });
        unread.min()
    }

    fn next_ms(
        &self,
        timers: &Timers,
        behind: TimerKey,
        unread: Option<(TimerKey, u64, u32)>,
    ) -> Option<i64> {
        let in_memory = timers.in_memory(behind).next().map(|(key, _)| key);
        let ahead = self.ahead.keys().copied().find(|key| !timers.is_recalled(*key));
        let first = in_memory.into_iter().chain(ahead).chain(unread.map(|(key, ..)| key)).min();
        first.map(|key| key.due_ms)
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        self.ahead.len() * size_of::<(TimerKey, TimerTarget)>() * 3 / 2 + self.read.len() * 24
    }
}
