//! Messages that come twice within a window are taken once.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use sabir_base::varint;
pub use sabir_model::DedupLimit;
use sabir_model::stored::{take, take_count, take_form};
use sabir_model::{DecodeError, stored};

const FORM: u8 = 1;
/// Ids of a page.
const PAGE: usize = 128;

/// Ids that are remembered, the oldest first, each with the time at which its message was published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DedupPage {
    ids: VecDeque<(i64, u128)>,
}

impl DedupPage {
    /// Appends the stored form: 1 · list of ids: time in milliseconds, signed · hash, 16 bytes, little endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        varint::put_u64(out, self.ids.len() as u64);
        for (time_ms, id) in &self.ids {
            varint::put_i64(out, *time_ms);
            out.extend_from_slice(&id.to_le_bytes());
        }
    }

    /// Reads the stored form, all of it.
    ///
    /// # Errors
    /// A newer form, a cut input, bytes behind it.
    pub fn decode(mut stored: &[u8]) -> Result<Self, DecodeError> {
        let input = &mut stored;
        take_form(input, FORM)?;
        let count = take_count(input, 17)?;
        let mut ids = VecDeque::with_capacity(count);
        for _ in 0..count {
            ids.push_back((varint::take_i64(input)?, u128::from_le_bytes(take(input)?)));
        }
        stored::end(input)?;
        Ok(Self { ids })
    }
}

/// Where the pages of a window are kept.
pub trait DedupPages {
    /// The page of that number, if it is there.
    fn look(&self, number: u64) -> Option<&DedupPage>;

    /// The page of that number, to be changed; an empty one where it is not there yet.
    fn page(&mut self, number: u64) -> &mut DedupPage;

    /// A page has no ids any more.
    fn remove(&mut self, number: u64);
}

/// Ids of the messages that were published lately, as hashes of 128 bits.
///
/// What is forgotten is decided by the blocks' time and the number of ids, so that every replica forgets the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DedupWindow {
    known: BTreeSet<u128>,
    pages: Range<u64>,
}

impl DedupWindow {
    /// The window of pages as they were kept: a number for each, rising by one.
    ///
    /// # Errors
    /// A page is missing, or has no ids.
    pub fn restore<'a>(pages: impl IntoIterator<Item = (u64, &'a DedupPage)>) -> Result<Self, DecodeError> {
        let mut window = Self::default();
        for (number, page) in pages {
            if window.pages.is_empty() {
                window.pages = number..number;
            }
            if number != window.pages.end || page.ids.is_empty() {
                return Err(DecodeError::Field("page of message ids"));
            }
            window.pages.end = number.saturating_add(1);
            window.known.extend(page.ids.iter().map(|(_, id)| *id));
        }
        Ok(window)
    }

    /// Whether a message with this id was published within the limit. Remembers it if not, at that time, and forgets what is beyond the limit.
    pub fn is_known(
        &mut self,
        id: u128,
        time_ms: i64,
        limit: &DedupLimit,
        pages: &mut impl DedupPages,
    ) -> bool {
        self.forget(time_ms, limit, pages);
        if !self.known.insert(id) {
            return true;
        }
        if self.known.len() > limit.most.max(1) as usize {
            self.forget_oldest(pages);
        }
        if !self.has_room(pages) {
            self.pages.end += 1;
        }
        pages.page(self.pages.end - 1).ids.push_back((time_ms, id));
        false
    }

    /// Whether its last page has room for another id.
    fn has_room(&self, pages: &impl DedupPages) -> bool {
        let last = self.pages.clone().next_back().and_then(|last| pages.look(last));
        last.is_some_and(|page| page.ids.len() < PAGE)
    }

    /// Forgets what is older than the window, and the oldest beyond the most that are kept.
    fn forget(&mut self, time_ms: i64, limit: &DedupLimit, pages: &mut impl DedupPages) {
        while !self.pages.is_empty() {
            let oldest = pages.look(self.pages.start).and_then(|page| page.ids.front());
            let is_old = oldest.is_none_or(|(then, _)| {
                u64::try_from(time_ms.saturating_sub(*then)).is_ok_and(|age| age >= limit.window_ms)
            });
            if !is_old && self.known.len() <= limit.most as usize {
                return;
            }
            self.forget_oldest(pages);
        }
    }

    fn forget_oldest(&mut self, pages: &mut impl DedupPages) {
        if self.pages.is_empty() {
            return;
        }
        let first = pages.page(self.pages.start);
        if let Some((_, id)) = first.ids.pop_front() {
            self.known.remove(&id);
        }
        if first.ids.is_empty() {
            pages.remove(self.pages.start);
            self.pages.start += 1;
        }
    }

    /// The numbers of its pages.
    pub fn pages(&self) -> Range<u64> {
        self.pages.clone()
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default, Clone, PartialEq)]
    struct Kept(BTreeMap<u64, DedupPage>);

    impl DedupPages for Kept {
        fn look(&self, number: u64) -> Option<&DedupPage> {
            self.0.get(&number)
        }

        fn page(&mut self, number: u64) -> &mut DedupPage {
            self.0.entry(number).or_default()
        }

        fn remove(&mut self, number: u64) {
            assert!(self.0.remove(&number).is_some_and(|page| page.ids.is_empty()));
        }
    }

    /// As slow as it is plain: all ids ever, with their times.
    #[derive(Default)]
    struct Naive(Vec<(i64, u128)>);

    impl Naive {
        fn is_known(&mut self, id: u128, time_ms: i64, limit: &DedupLimit) -> bool {
            self.0.retain(|(then, _)| time_ms - then < limit.window_ms as i64);
            self.0.drain(..self.0.len().saturating_sub(limit.most as usize));
            let is_known = self.0.iter().any(|(_, known)| *known == id);
            if !is_known {
                self.0.push((time_ms, id));
                self.0.drain(..self.0.len().saturating_sub(limit.most as usize));
            }
            is_known
        }
    }

    proptest! {
        #[test]
        fn a_window_knows_what_a_plain_list_does_over_restarts(
            steps in proptest::collection::vec((0u128..400, 0i64..4, 0u32..40), 1..1_500),
            window_ms in 1u64..3_000,
            most in 1u32..600,
        ) {
            let (mut naive, mut window, mut kept) = (Naive::default(), DedupWindow::default(), Kept::default());
            let (mut now, mut limit) = (-500, DedupLimit { window_ms, most });
            for (id, passed, event) in steps {
                now += passed;
                match event {
                    0 => {
                        let stored = |page: &DedupPage| {
                            let mut out = Vec::new();
                            page.encode(&mut out);
                            DedupPage::decode(&out).unwrap()
                        };
                        kept = Kept(kept.0.iter().map(|(number, page)| (*number, stored(page))).collect());
                        let again = DedupWindow::restore(kept.0.iter().map(|(number, page)| (*number, page)));
                        prop_assert_eq!(again.as_ref().map(|window| (&window.known, window.len())), Ok((&window.known, window.len())));
                        if !window.is_empty() {
                            prop_assert_eq!(again.unwrap(), window);
                            window = DedupWindow::restore(kept.0.iter().map(|(number, page)| (*number, page))).unwrap();
                        }
                    }
                    1 => limit.most = (limit.most * 7 % 600).max(1),
                    2 => limit.window_ms = (limit.window_ms * 7 % 3_000).max(1),
                    _ => prop_assert_eq!(
                        window.is_known(id, now, &limit, &mut kept),
                        naive.is_known(id, now, &limit)
                    ),
                }
                prop_assert_eq!(kept.0.keys().copied().collect::<Vec<_>>(), window.pages().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn an_id_is_known_for_the_length_of_the_window() {
        let (mut window, mut kept) = (DedupWindow::default(), Kept::default());
        let limit = DedupLimit { window_ms: 100, most: 3 };
        let mut at = |time_ms, id| window.is_known(id, time_ms, &limit, &mut kept);
        assert_eq!(
            [(0, 1), (10, 1), (99, 1), (100, 1), (101, 1)].map(|(now, id)| at(now, id)),
            [false, true, true, false, true]
        );
        assert!([2, 3, 4].iter().all(|id| !at(102, *id)));
        assert!(!at(103, 1), "three are remembered");
        assert!(at(50, 4), "a clock that steps back forgets nothing");
    }

    #[test]
    fn pages_that_do_not_go_together_are_refused() {
        let page = |ids: &[u128]| DedupPage { ids: ids.iter().map(|id| (5, *id)).collect() };
        let (one, two, none) = (page(&[1]), page(&[2]), page(&[]));
        assert_eq!(DedupWindow::restore([(7, &one), (8, &two)]).unwrap().len(), 2);
        assert!(DedupWindow::restore([(7, &one), (9, &two)]).is_err());
        assert!(DedupWindow::restore([(7, &none)]).is_err());
        let mut stored = Vec::new();
        one.encode(&mut stored);
        assert_eq!(stored, [&[1, 1, 10, 1][..], &[0; 15]].concat());
        assert!((0..stored.len()).all(|len| DedupPage::decode(&stored[..len]).is_err()));
        assert!(DedupPage::decode(&[&stored[..], &[0]].concat()).is_err());
        assert_eq!(DedupPage::decode(&[2, 0]), Err(DecodeError::Version(2)));
    }
}
