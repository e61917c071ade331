//! Member ids that were given out. Where they take all that they may, those of the client that was given most are forgotten, the oldest first: by the
//! address, and of that by the connection. Clients come back with theirs at once, so those that do not are the oldest soon; one whose id
//! is forgotten too early asks for another.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;
use sabir_delivery::group::{GroupEvent, GroupId, Holder, Shares, Text, id_bytes};

use super::Groups;
use super::led::{LedGroup, LedGroups};
use super::memory::PART;

/// How many may stand here that have come back, beside as many as have not.
const SOME: usize = 1024;

/// The ids. Some have come back, or were forgotten by their group.
#[derive(Debug, Default)]
pub(super) struct GivenIds {
    ids: Shares<GivenId>,
    /// More than these are looked through for those that have come back.
    most: usize,
}

#[derive(Debug)]
struct GivenId {
    group: GroupId,
    id: Text,
}

impl GivenId {
    /// Whether its group still waits for it.
    fn is_out(&self, led: &FxHashMap<GroupId, LedGroup>) -> bool {
        led.get(&self.group).is_some_and(|led| led.machine.waits_for(&self.id))
    }
}

impl GivenIds {
    fn push(&mut self, number: u64, by: Holder, given: GivenId, led: &FxHashMap<GroupId, LedGroup>) {
        self.ids.push(number, by, id_bytes(&given.id), given);
        if self.ids.len() > self.most.max(SOME) {
            self.ids.retain(|given| given.is_out(led));
            self.most = 2 * self.ids.len() + SOME;
        }
    }

    /// How much the client has that was given most, and the number of its oldest. What has come back of that is passed over.
    fn largest(&mut self, led: &FxHashMap<GroupId, LedGroup>) -> Option<(usize, Reverse<u64>)> {
        while let Some((number, given)) = self.ids.first_to_go()
            && !given.is_out(led)
        {
            self.ids.remove(number);
        }
        self.ids.largest()
    }

    fn take_first(&mut self) -> Option<GivenId> {
        let (number, _) = self.ids.first_to_go()?;
        self.ids.remove(number)
    }
}

impl LedGroups {
    /// Notes that a group gave out an id, if it did.
    pub fn note_given(&mut self, group: &GroupId, by: Holder, id: Text) {
        let given = GivenId { group: group.clone(), id };
        if given.is_out(&self.led) {
            // A lower number is older, whichever home gave it.
            let number = self.totals.next_given();
            self.given.push(number, by, given, &self.led);
        }
    }
}

impl Groups {
    /// Makes room for one more id: it may take as much as it likes for itself. Those of all homes are together in what they may take, and
    /// in how many groups they may have that no client has joined. Takes the homes' locks, one at a time.
    pub(super) fn make_room_for_id(&self) {
        while self.has_too_many_ids() {
            let homes = self.shared.homes.upgrade();
            let homes = homes.as_deref().map_or(std::slice::from_ref(self), Vec::as_slice);
            let largest = homes.iter().filter_map(|home| Some((home.largest_share()?, home)));
            let Some((_, home)) = largest.max_by_key(|(share, _)| *share) else { return };
            home.forget_first();
        }
    }

    fn has_too_many_ids(&self) -> bool {
        let (totals, options) = (&self.shared.totals, &self.shared.options);
        let is_full = totals.pending_bytes() > options.max_member_bytes / PART;
        is_full || totals.only_ids() > (options.max_groups / PART).max(1)
    }

    fn largest_share(&self) -> Option<(usize, Reverse<u64>)> {
        let mut inner = self.shared.inner.lock();
        let LedGroups { given, led, .. } = &mut *inner;
        given.largest(led)
    }

    fn forget_first(&self) {
        self.with(|inner, wakes| {
            let Some(GivenId { group, id }) = inner.given.take_first() else { return };
            self.drive(inner, &group, GroupEvent::Forget(id), wakes);
            self.tell_forgotten(inner, &group);
        });
    }
}
