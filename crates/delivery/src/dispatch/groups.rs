//! Order within groups: one unsettled delivery a group, or one member a group.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

pub use sabir_model::GroupOrder;

use super::MemberNo;
use super::range_set::RangeSet;

/// What has become of the groups of messages that were looked at.
#[derive(Debug)]
pub(super) enum GroupTable {
    Free,
    Serial(SerialGroups),
    Sticky(StickyGroups),
}

impl GroupTable {
    pub fn new(order: GroupOrder) -> Self {
        match order {
            GroupOrder::Free => Self::Free,
            GroupOrder::Serial => Self::Serial(SerialGroups::default()),
            GroupOrder::Sticky => Self::Sticky(StickyGroups::default()),
        }
    }

    pub fn order(&self) -> GroupOrder {
        match self {
            Self::Free => GroupOrder::Free,
            Self::Serial(_) => GroupOrder::Serial,
            Self::Sticky(_) => GroupOrder::Sticky,
        }
    }

    /// Whether a member may have a message now; if not, it is kept until it may.
    pub fn admit(&mut self, member: MemberNo, offset: u64, group: Option<u64>) -> bool {
        match (self, group) {
            (Self::Free, _) | (_, None) => true,
            (Self::Serial(groups), Some(group)) => groups.admit(offset, group),
            (Self::Sticky(groups), Some(group)) => groups.admit(member, offset, group),
        }
    }

    /// How many messages are kept.
    pub fn waiting(&self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Serial(groups) => groups.of.len() as u64 - groups.out,
            Self::Sticky(groups) => groups.count,
        }
    }

    /// The first message that is kept for a member alone.
    pub fn first_of(&self, member: MemberNo) -> Option<u64> {
        match self {
            Self::Sticky(groups) => groups.waiting.get(&member)?.first(),
            _ => None,
        }
    }

    /// Forgets a message that was kept for a member alone.
    pub fn take_of(&mut self, member: MemberNo, messages: Range<u64>) {
        if let Self::Sticky(groups) = self {
            groups.change(member, |waiting| waiting.remove(messages));
        }
    }

    /// A member is gone: what was kept for it alone.
    pub fn detach(&mut self, member: MemberNo) -> RangeSet {
        let Self::Sticky(groups) = self else { return RangeSet::default() };
        groups.buckets.retain(|_, of| *of != member);
        let kept = groups.waiting.remove(&member).unwrap_or_default();
        groups.count -= kept.len();
        kept
    }

    /// Messages were returned: their groups begin anew with the first of them, or with one that waits before it.
    pub fn returned(&mut self, messages: Range<u64>, offer: &mut impl FnMut(u64)) {
        if let Self::Serial(groups) = self {
            groups.returned(messages, offer);
        }
    }

    /// Messages were settled: what may be offered now instead.
    pub fn settled(&mut self, messages: Range<u64>, offer: &mut impl FnMut(u64)) {
        if let Self::Serial(groups) = self {
            groups.settled(messages, offer);
        }
    }
}

/// `serial`.
#[derive(Debug, Default)]
pub(super) struct SerialGroups {
    groups: BTreeMap<u64, SerialGroup>,
    /// The groups of messages that are out or wait.
    of: BTreeMap<u64, u64>,
    /// How many are out.
    out: u64,
}

#[derive(Debug, Default)]
struct SerialGroup {
    out: Option<u64>,
    /// Messages that were looked at and are not out.
    waiting: BTreeSet<u64>,
}

impl SerialGroups {
    fn admit(&mut self, offset: u64, group: u64) -> bool {
        let entry = self.groups.entry(group).or_default();
        self.of.insert(offset, group);
        let is_first = entry.waiting.first().is_none_or(|first| *first >= offset);
        if entry.out.is_some() || !is_first {
            entry.waiting.insert(offset);
            return false;
        }
        entry.waiting.remove(&offset);
        entry.out = Some(offset);
        self.out += 1;
        true
    }

    /// A message is out already.
    pub fn adopt(&mut self, offset: u64, group: u64) {
        let entry = self.groups.entry(group).or_default();
        if entry.out.is_none() {
            entry.out = Some(offset);
            self.out += 1;
            self.of.insert(offset, group);
        }
    }

    fn known(&self, messages: Range<u64>) -> Vec<(u64, u64)> {
        self.of.range(messages).map(|(offset, group)| (*offset, *group)).collect()
    }

    fn returned(&mut self, messages: Range<u64>, offer: &mut impl FnMut(u64)) {
        for (offset, group) in self.known(messages) {
            let Some(entry) = self.groups.get_mut(&group) else { continue };
            if entry.out == Some(offset) {
                entry.out = None;
                self.out -= 1;
            }
            entry.waiting.insert(offset);
            if let (None, Some(first)) = (entry.out, entry.waiting.first()) {
                offer(*first);
            }
        }
    }

    fn settled(&mut self, messages: Range<u64>, offer: &mut impl FnMut(u64)) {
        for (offset, group) in self.known(messages) {
            self.of.remove(&offset);
            let Some(entry) = self.groups.get_mut(&group) else { continue };
            entry.waiting.remove(&offset);
            if entry.out == Some(offset) {
                entry.out = None;
                self.out -= 1;
            }
            match (entry.out, entry.waiting.first()) {
                (None, Some(first)) => offer(*first),
                (None, None) => drop(self.groups.remove(&group)),
                (Some(_), _) => {}
            }
        }
    }
}

/// Groups share this many buckets, so that their number is bounded.
const BUCKETS: u64 = 1_024;

/// `sticky`.
#[derive(Debug, Default)]
pub(super) struct StickyGroups {
    buckets: BTreeMap<u64, MemberNo>,
    waiting: BTreeMap<MemberNo, RangeSet>,
    count: u64,
}

impl StickyGroups {
    fn admit(&mut self, member: MemberNo, offset: u64, group: u64) -> bool {
        let of = *self.buckets.entry(group % BUCKETS).or_insert(member);
        if of != member {
            self.change(of, |waiting| waiting.insert(offset..offset + 1));
        }
        of == member
    }

    fn change(&mut self, member: MemberNo, change: impl FnOnce(&mut RangeSet)) {
        let waiting = self.waiting.entry(member).or_default();
        let before = waiting.len();
        change(waiting);
        self.count = self.count + waiting.len() - before;
    }
}
