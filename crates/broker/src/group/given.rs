//! Member ids that were given out, in order: where they take all that they may, the oldest are forgotten. Clients come back with theirs at
//! once, so those that do not are the oldest soon; one whose id is forgotten too early asks for another.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use sabir_base::wake::WakeBatch;
use sabir_delivery::group::{GroupEvent, GroupId, LeaveRequest, Text};

use super::Groups;
use super::led::{Inner, Led};

/// How many may stand here that have come back, beside as many as have not.
const SOME: usize = 1024;

/// The ids, the oldest first. Some have come back, or were forgotten by their group.
#[derive(Debug, Default)]
pub(super) struct GivenIds {
    ids: VecDeque<(GroupId, Text)>,
    /// More than these are looked through for those that have come back.
    most: usize,
}

impl GivenIds {
    fn push(&mut self, group: &GroupId, id: Text, led: &FxHashMap<GroupId, Led>) {
        self.ids.push_back((group.clone(), id));
        if self.ids.len() > self.most.max(SOME) {
            self.ids.retain(|(group, id)| is_out(led, group, id));
            self.most = 2 * self.ids.len() + SOME;
        }
    }

    fn oldest(&mut self, led: &FxHashMap<GroupId, Led>) -> Option<(GroupId, Text)> {
        std::iter::from_fn(|| self.ids.pop_front()).find(|(group, id)| is_out(led, group, id))
    }
}

/// Whether a group still waits for an id.
fn is_out(led: &FxHashMap<GroupId, Led>, group: &GroupId, id: &Text) -> bool {
    led.get(group).is_some_and(|led| led.machine.waits_for(id))
}

impl Inner {
    /// Notes that a group gave out an id, if it did.
    pub fn note_given(&mut self, group: &GroupId, id: Text) {
        if is_out(&self.led, group, &id) {
            self.given.push(group, id, &self.led);
        }
    }
}

impl Groups {
    /// Makes room for one more id: it may take as much as it likes for itself.
    pub(super) fn make_room_for_id(&self, inner: &mut Inner, wakes: &mut WakeBatch) {
        let most = self.shared.options.max_member_bytes / super::memory::PART;
        while inner.pending_bytes > most
            && let Some((group, member)) = inner.given.oldest(&inner.led)
        {
            let ticket = inner.ticket();
            let gone = vec![LeaveRequest { member, instance: None }];
            self.drive(inner, &group, GroupEvent::Leave(ticket, gone), wakes);
            self.tell_forgotten(inner, &group);
        }
    }
}
