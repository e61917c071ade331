//! The subscriptions of a shard with what a checkpoint must know of each.
//!
//! A checkpoint is cut by copy on write: at the cut those that changed since the last one are due; each is captured within the budget, and
//! one that is about to change while it is due is captured first.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use sabir_delivery::policy::DeathPolicy;
use sabir_delivery::subscription::{Subscription, SubscriptionNo, SubscriptionPage, Subscriptions};
use sabir_journal::pages::{
    Budget, PageCapture, PageChange, PageDecodeError, PageError, PageKey, Rising, StoredMark,
};
use sabir_model::DecodeError;

use crate::projection::{Dump, PageMap};
use crate::state::{StoredMaps, prefixes};

/// The number of the time between two cuts. 0: not changed since it was captured.
type Era = u32;
const CAPTURED: Era = 0;

/// A page's key: the subscription's number, big-endian, and the page's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct SubscriptionPageKey {
    subscription: SubscriptionNo,
    page: SubscriptionPage,
}

impl PageKey for SubscriptionPageKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.subscription.0.to_be_bytes());
        self.page.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let short = || PageDecodeError("a subscription's key begins with 8 bytes".into());
        let (number, page) = bytes.split_first_chunk().ok_or_else(short)?;
        let page = SubscriptionPage::decode(page).map_err(in_page)?;
        Ok(Self { subscription: SubscriptionNo(u64::from_be_bytes(*number)), page })
    }
}

fn in_page(error: DecodeError) -> PageDecodeError {
    PageDecodeError(error.to_string())
}

/// A subscription, or what the store still has of one that is gone.
struct PagedSubscription {
    subscription: Option<Subscription>,
    /// The era of its last change.
    changed: Era,
    header: StoredMark,
    /// There while it has other pages than the header, or some are to be captured again.
    more: Option<Box<MorePages>>,
}

#[derive(Default)]
struct MorePages {
    marks: BTreeMap<SubscriptionPage, StoredMark>,
    /// To be captured whether the subscription says that they changed or not.
    again: BTreeSet<SubscriptionPage>,
}

impl PagedSubscription {
    fn new(subscription: Option<Subscription>) -> Self {
        Self { subscription, changed: CAPTURED, header: StoredMark::NONE, more: None }
    }

    fn more(&mut self) -> &mut MorePages {
        self.more.get_or_insert_default()
    }

    fn mark(&mut self, page: SubscriptionPage) -> &mut StoredMark {
        match page {
            SubscriptionPage::Header => &mut self.header,
            other => self.more().marks.entry(other).or_default(),
        }
    }

    /// All pages that the store has are to be captured again.
    fn again_all(&mut self) {
        let more = self.more();
        more.again.extend(more.marks.keys());
        more.again.insert(SubscriptionPage::Header);
    }

    /// What is to be captured of it, the last one first: from now on nothing is, until it changes.
    fn take_due(&mut self) -> Vec<SubscriptionPage> {
        let mut due = match &mut self.more {
            Some(more) => std::mem::take(&mut more.again),
            None => BTreeSet::new(),
        };
        if let Some(subscription) = &mut self.subscription {
            subscription.take_dirty(|page| {
                due.insert(page);
            });
        }
        due.into_iter().rev().collect()
    }

    fn capture(
        &mut self,
        number: SubscriptionNo,
        page: SubscriptionPage,
        capture: &mut PageCapture<SubscriptionPageKey>,
    ) -> usize {
        let key = SubscriptionPageKey { subscription: number, page };
        let mut mark = std::mem::take(self.mark(page));
        let subscription = self.subscription.as_ref();
        let bytes = capture.capture(&key, &mut mark, |out| {
            subscription.is_some_and(|subscription| subscription.encode_page(page, out))
        });
        *self.mark(page) = mark;
        bytes
    }

    /// All that was due of it is captured: what it does not need for that any more goes.
    fn captured(&mut self) {
        self.changed = CAPTURED;
        if let Some(more) = &mut self.more {
            more.marks.retain(|_, mark| !mark.is_none());
            if more.marks.is_empty() && more.again.is_empty() {
                self.more = None;
            }
        }
        if let Some(subscription) = &mut self.subscription {
            subscription.shrink();
        }
    }
}

/// All subscriptions of a shard by number, as a map of pages.
pub(super) struct PagedSubscriptions {
    subscriptions: FxHashMap<SubscriptionNo, PagedSubscription>,
    /// How many of them are there.
    len: usize,
    /// The numbers of those that changed since the last cut, each once.
    dirty: Vec<SubscriptionNo>,
    /// Those that had changed at the cut; one that no longer says the era before was captured.
    due: Rising<SubscriptionNo>,
    /// One of these that is captured in part, and what is left of it.
    partly: Option<(SubscriptionNo, Vec<SubscriptionPage>)>,
    era: Era,
    under_way: bool,
    capture: PageCapture<SubscriptionPageKey>,
}

impl Default for PagedSubscriptions {
    fn default() -> Self {
        Self {
            subscriptions: FxHashMap::default(),
            len: 0,
            dirty: Vec::new(),
            due: Rising::default(),
            partly: None,
            // The era before the first must not be CAPTURED.
            era: CAPTURED + 2,
            under_way: false,
            capture: PageCapture::new(prefixes::SUBSCRIPTIONS),
        }
    }
}

impl Subscriptions for PagedSubscriptions {
    fn get(&self, number: SubscriptionNo) -> Option<&Subscription> {
        self.subscriptions.get(&number)?.subscription.as_ref()
    }

    fn get_mut(&mut self, number: SubscriptionNo) -> Option<&mut Subscription> {
        self.get(number)?;
        self.touch(number)?.subscription.as_mut()
    }
}

impl PagedSubscriptions {
    pub(super) fn iter(&self) -> impl Iterator<Item = (SubscriptionNo, &Subscription)> {
        self.subscriptions.iter().filter_map(|(number, paged)| Some((*number, paged.subscription.as_ref()?)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Not touched: it is no part of what a checkpoint holds.
    pub(super) fn set_deaths(&mut self, number: SubscriptionNo, deaths: DeathPolicy) {
        let paged = self.subscriptions.get_mut(&number);
        if let Some(subscription) = paged.and_then(|paged| paged.subscription.as_mut()) {
            subscription.set_deaths(deaths);
        }
    }

    /// Puts one there under a number that has none.
    pub(super) fn insert(&mut self, number: SubscriptionNo, subscription: Subscription) {
        // What is left of an earlier one goes with the next checkpoint.
        self.touch(number);
        let era = self.era;
        let paged = self.subscriptions.entry(number).or_insert_with(|| PagedSubscription::new(None));
        if paged.changed != era {
            paged.changed = era;
            self.dirty.push(number);
        }
        self.len += usize::from(paged.subscription.is_none());
        paged.subscription = Some(subscription);
    }

    pub(super) fn remove(&mut self, number: SubscriptionNo) {
        if self.get(number).is_none() {
            return;
        }
        if let Some(paged) = self.touch(number) {
            paged.subscription = None;
            paged.again_all();
            self.len -= 1;
        }
    }

    /// One that is about to change: if it is due it is captured first.
    fn touch(&mut self, number: SubscriptionNo) -> Option<&mut PagedSubscription> {
        let changed = self.subscriptions.get(&number)?.changed;
        if changed != self.era {
            if changed == self.era - 1 {
                self.capture_whole(number);
            }
            let paged = self.subscriptions.get_mut(&number)?;
            paged.changed = self.era;
            self.dirty.push(number);
        }
        self.subscriptions.get_mut(&number)
    }

    fn capture_whole(&mut self, number: SubscriptionNo) {
        let mut pages = self.due_of(number);
        let mut all = Budget { entries: usize::MAX, bytes: usize::MAX };
        self.capture_some(number, &mut pages, &mut all);
    }

    /// What is left to be captured of one that is due.
    fn due_of(&mut self, number: SubscriptionNo) -> Vec<SubscriptionPage> {
        match self.partly.take_if(|(partly, _)| *partly == number) {
            Some((_, left)) => left,
            None => self.subscriptions.get_mut(&number).map_or_else(Vec::new, PagedSubscription::take_due),
        }
    }

    /// Captures pages from the last one on, within the budget.
    fn capture_some(
        &mut self,
        number: SubscriptionNo,
        pages: &mut Vec<SubscriptionPage>,
        budget: &mut Budget,
    ) {
        let Some(paged) = self.subscriptions.get_mut(&number) else { return };
        while !budget.spent()
            && let Some(page) = pages.pop()
        {
            budget.spend(paged.capture(number, page, &mut self.capture));
        }
        if pages.is_empty() {
            paged.captured();
            if paged.subscription.is_none() {
                self.subscriptions.remove(&number);
            }
        }
    }

    /// The next one that is due, with what is left of it.
    fn next_due(&mut self) -> Option<(SubscriptionNo, Vec<SubscriptionPage>)> {
        if let Some((number, _)) = &self.partly {
            let number = *number;
            return Some((number, self.due_of(number)));
        }
        while let Some(number) = self.due.take().copied() {
            if self.subscriptions.get(&number).is_some_and(|paged| paged.changed == self.era - 1) {
                return Some((number, self.due_of(number)));
            }
        }
        None
    }

    /// Something of one is to be captured again.
    fn redo(&mut self, number: SubscriptionNo, page: SubscriptionPage) -> &mut StoredMark {
        let paged = self.subscriptions.entry(number).or_insert_with(|| PagedSubscription::new(None));
        if paged.changed != self.era {
            paged.changed = self.era;
            self.dirty.push(number);
        }
        paged.more().again.insert(page);
        paged.mark(page)
    }

    pub(super) fn restore(stored: &StoredMaps<'_>) -> Result<Self, PageError> {
        let mut restored = Self::default();
        let subscriptions = &mut restored.subscriptions;
        let capture = stored.restore_pages(prefixes::SUBSCRIPTIONS, |key, value, mark| {
            let SubscriptionPageKey { subscription: number, page } = key;
            let paged = subscriptions
                .entry(number)
                .or_insert_with(|| PagedSubscription::new(Some(Subscription::default())));
            *paged.mark(page) = mark;
            let subscription = paged.subscription.as_mut().expect("made with one");
            subscription.decode_page(page, value).map_err(in_page)
        })?;
        restored.capture = capture;
        restored.len = restored.subscriptions.len();
        restored.check()?;
        restored
            .subscriptions
            .values_mut()
            .filter_map(|paged| paged.subscription.as_mut())
            .for_each(Subscription::recount);
        Ok(restored)
    }

    /// What no single page says.
    fn check(&self) -> Result<(), PageError> {
        for (number, paged) in &self.subscriptions {
            let whole =
                paged.subscription.as_ref().is_some_and(|subscription| subscription.check_pages().is_ok());
            if paged.header.is_none() || !whole {
                let prefix = [prefixes::SUBSCRIPTIONS, &number.0.to_be_bytes()].concat();
                let detail = "they are not those of one subscription".into();
                return Err(PageError::Incomplete { prefix, detail });
            }
        }
        Ok(())
    }
}

impl PageMap for PagedSubscriptions {
    fn begin_checkpoint(&mut self) {
        assert!(!self.under_way, "a checkpoint of this map is under way");
        self.under_way = true;
        self.capture.begin();
        self.era += 1;
        self.due = Rising::new(std::mem::take(&mut self.dirty));
    }

    fn capture(&mut self, budget: &mut Budget) -> bool {
        while !budget.spent()
            && let Some((number, mut pages)) = self.next_due()
        {
            self.capture_some(number, &mut pages, budget);
            self.partly = (!pages.is_empty()).then_some((number, pages));
        }
        let more = self.partly.is_some() || self.due.left() > 0;
        if self.under_way && !more {
            self.capture.finish();
        }
        more
    }

    fn take_captured(&mut self) -> Vec<PageChange> {
        self.capture.take()
    }

    fn checkpoint_committed(&mut self) {
        self.capture.committed();
        self.under_way = false;
    }

    fn checkpoint_failed(&mut self) {
        for captured in self.capture.failed() {
            let SubscriptionPageKey { subscription, page } = captured.key;
            self.redo(subscription, page).widen(&captured);
        }
        if let Some((number, left)) = self.partly.take() {
            left.into_iter().for_each(|page| {
                self.redo(number, page);
            });
        }
        for number in std::mem::take(&mut self.due).into_left() {
            if let Some(paged) =
                self.subscriptions.get_mut(&number).filter(|paged| paged.changed == self.era - 1)
            {
                paged.changed = self.era;
                self.dirty.push(number);
            }
        }
        self.under_way = false;
    }

    fn dump(&self) -> Dump {
        let mut dump = Vec::new();
        for (subscription, state) in self.iter() {
            state.each_page(|page| {
                let (mut key, mut value) = (prefixes::SUBSCRIPTIONS.to_vec(), Vec::new());
                SubscriptionPageKey { subscription, page }.encode(&mut key);
                if state.encode_page(page, &mut value) {
                    dump.push((key, value));
                }
            });
        }
        dump.sort_unstable();
        dump
    }
}
