//! The machines of the groups that are led, the requests parked in them, and when each wants to be woken.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use parking_lot::MutexGuard;
use rustc_hash::FxHashMap;
use sabir_base::panics::contain;
use sabir_base::wake::WakeBatch;
use sabir_delivery::group::entries::{GroupChange, GroupChanged};
use sabir_delivery::group::{Action, Answer, Group, GroupEvent, GroupId, GroupPhase, RequestId, Text, Token};
use sabir_model::{ErrorAbout, GroupError, ShardFailure};

use super::entries::GroupBody;
use super::given::GivenIds;
use super::reply::Replier;
use super::steady::Steady;
use super::totals::Totals;
use super::waiter::GroupWaiter;
use super::{GroupTable, Groups, JoinRefusal, Joined, Left, Synced, about};
use crate::entry::Body;

/// Void entries of the heap that are not worth a look at all of them.
const VOID_WAKES: usize = 1024;

/// A group's machine.
pub(super) struct LedGroup {
    pub machine: Group,
    /// Tells this machine from an earlier one of the same group.
    pub incarnation: u64,
    /// The earliest time the heap wakes it.
    scheduled: i64,
    /// Entries proposed and not yet applied: until they are, the table does not know what the machine knows.
    in_flight: usize,
    /// Whether the table has the group, as far as this machine has heard.
    pub stored: bool,
    /// What it is counted with: what it took when it was last settled, or more if it takes more. So its rebalance finds what it has
    /// given up for it.
    pub reserved: usize,
    /// The address of the client that made it, or made it anew when it had no members.
    made_by: Text,
    /// Bytes of the ids given out.
    pending: usize,
    /// Whether it has nothing but such ids.
    only_ids: bool,
}

impl LedGroup {
    /// What it is to be counted with now.
    fn reserves(&self, group: &GroupId) -> usize {
        let bytes = with_name(group, self.machine.bytes());
        match self.machine.state() {
            GroupPhase::PreparingRebalance | GroupPhase::CompletingRebalance => bytes.max(self.reserved),
            GroupPhase::Empty | GroupPhase::Stable | GroupPhase::Dead => bytes,
        }
    }

    /// A client of that address joins: the group is its, if the group has no members.
    pub fn joined_from(&mut self, address: &Text) {
        if self.reserved == 0 {
            self.made_by = address.clone();
        }
    }

    /// The address of the client that made it.
    pub fn made_by(&self) -> &Text {
        &self.made_by
    }

    /// Whether no client has joined it, and it is there for ids alone that were given out.
    fn has_only_ids(&self) -> bool {
        let is_empty = self.machine.state() == GroupPhase::Empty && !self.stored;
        is_empty && self.machine.pending_bytes() > 0
    }
}

/// What a group takes with its name that takes anything.
pub(super) fn with_name(group: &GroupId, bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes + group.name.len() }
}

/// A parked request, and at which group.
struct Parked {
    group: GroupId,
    waits: Waits,
}

/// What answers a parked request.
pub(super) enum Waits {
    Join(Replier<Result<Joined, JoinRefusal>>),
    Sync(Replier<Result<Synced, ErrorAbout<GroupError>>>),
}

impl Parked {
    fn refuse(self, error: GroupError, wakes: &mut WakeBatch) {
        let group = &*self.group.name;
        match self.waits {
            Waits::Join(replier) => {
                let (error, member) = (about(group, error), Text::from(""));
                replier.send(Err(JoinRefusal { error, member }), wakes);
            }
            Waits::Sync(replier) => replier.send(Err(about(group, error)), wakes),
        }
    }
}

/// Everything under the groups' lock.
pub(super) struct LedGroups {
    pub led: FxHashMap<GroupId, LedGroup>,
    /// When to look at a group, with the incarnation it was meant for. An entry that its group no longer waits for is void.
    wakes: BinaryHeap<Reverse<(i64, u64, GroupId)>>,
    parked: FxHashMap<RequestId, Parked>,
    steady: Steady,
    last_ticket: u64,
    last_incarnation: u64,
    /// What the drivers of all shards count.
    pub totals: Arc<Totals>,
    /// Ids that were given out and have not come back.
    pub given: GivenIds,
    /// When it was last told that memory is short, by the clock of the machines.
    pub told_at: Option<i64>,
    /// Why no group is led here, if none is.
    pub closed: Option<GroupError>,
}

impl LedGroups {
    pub fn new(monotonic_ms: u64, totals: Arc<Totals>) -> Self {
        Self {
            led: FxHashMap::default(),
            wakes: BinaryHeap::new(),
            parked: FxHashMap::default(),
            steady: Steady::new(monotonic_ms),
            last_ticket: 0,
            last_incarnation: 0,
            totals,
            given: GivenIds::default(),
            told_at: None,
            closed: Some(GroupError::Loading),
        }
    }

    pub fn now(&mut self, monotonic_ms: u64) -> i64 {
        self.steady.now(monotonic_ms)
    }

    pub fn park(&mut self, group: &GroupId, waits: Waits) -> RequestId {
        self.last_ticket += 1;
        let ticket = RequestId(self.last_ticket);
        self.parked.insert(ticket, Parked { group: group.clone(), waits });
        ticket
    }

    /// A ticket for a request whose answer the caller takes itself.
    pub fn ticket(&mut self) -> RequestId {
        self.last_ticket += 1;
        RequestId(self.last_ticket)
    }

    /// Leads a group that is new.
    pub fn put_new(&mut self, group: GroupId, machine: Group) {
        self.put(group.clone(), machine);
        if let Some(led) = self.led.get_mut(&group) {
            led.stored = false;
            self.totals.add_unstored(GroupTable::bytes_of_new(&group));
        }
    }

    fn note_stored(&mut self, group: &GroupId) {
        if let Some(led) = self.led.get_mut(group).filter(|led| !led.stored) {
            led.stored = true;
            self.totals.take_unstored(GroupTable::bytes_of_new(group));
        }
    }

    pub fn put(&mut self, group: GroupId, machine: Group) {
        self.last_incarnation += 1;
        let incarnation = self.last_incarnation;
        let made_by = machine.first_address().unwrap_or_default();
        let led = LedGroup {
            machine,
            incarnation,
            scheduled: i64::MAX,
            in_flight: 0,
            stored: true,
            reserved: 0,
            made_by,
            pending: 0,
            only_ids: false,
        };
        self.led.insert(group.clone(), led);
        self.count(&group);
        self.schedule(&group);
    }

    fn remove(&mut self, group: &GroupId) -> Option<LedGroup> {
        let led = self.led.remove(group)?;
        self.uncount(group, &led);
        Some(led)
    }

    /// Counts what a group takes now.
    fn count(&mut self, group: &GroupId) {
        let Some(led) = self.led.get_mut(group) else { return };
        let (reserved, pending) = (led.reserves(group), with_name(group, led.machine.pending_bytes()));
        self.totals.recount((reserved, pending), (led.reserved, led.pending));
        self.totals.addresses().recount(&led.made_by, reserved, led.reserved);
        let only_ids = led.has_only_ids();
        self.totals.recount_only_ids(only_ids, led.only_ids);
        (led.reserved, led.pending, led.only_ids) = (reserved, pending, only_ids);
    }

    fn uncount(&self, group: &GroupId, led: &LedGroup) {
        self.totals.recount((0, 0), (led.reserved, led.pending));
        self.totals.addresses().recount(&led.made_by, 0, led.reserved);
        self.totals.recount_only_ids(false, led.only_ids);
        if !led.stored {
            self.totals.take_unstored(GroupTable::bytes_of_new(group));
        }
    }

    /// The next group whose time has come.
    pub fn due(&mut self, now: i64) -> Option<GroupId> {
        while self.wakes.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Reverse((at, incarnation, group)) = self.wakes.pop()?;
            let led = self.led.get_mut(&group);
            if let Some(led) = led.filter(|led| led.incarnation == incarnation && led.scheduled == at) {
                led.scheduled = i64::MAX;
                return Some(group);
            }
        }
        None
    }

    fn schedule(&mut self, group: &GroupId) {
        let Some(led) = self.led.get_mut(group) else { return };
        let at = led.machine.wake_at();
        if at < led.scheduled {
            led.scheduled = at;
            self.wakes.push(Reverse((at, led.incarnation, group.clone())));
        }
        self.drop_void_wakes();
    }

    /// Groups that come and go leave void entries behind, for as long as their sessions would have lasted: not more of them than there are
    /// groups, or some.
    fn drop_void_wakes(&mut self) {
        if self.wakes.len() > 2 * self.led.len() + VOID_WAKES {
            let scheduled = self.led.iter().filter(|(_, led)| led.scheduled < i64::MAX);
            self.wakes = scheduled
                .map(|(group, led)| Reverse((led.scheduled, led.incarnation, group.clone())))
                .collect();
        }
    }

    #[cfg(test)]
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    #[cfg(test)]
    pub fn wakes(&self) -> usize {
        self.wakes.len()
    }
}

/// Whether a group goes on without the entry: it alone was not taken.
fn may_pass(failure: ShardFailure) -> bool {
    match failure {
        ShardFailure::StorageFull | ShardFailure::Timeout | ShardFailure::TooLarge => true,
        ShardFailure::NotLeader | ShardFailure::StorageError | ShardFailure::ShuttingDown => false,
    }
}

fn handle(_group: &GroupId, machine: &mut Group, event: GroupEvent, now: i64) -> Vec<Action> {
    #[cfg(any(test, feature = "testing"))]
    crate::panicking::panic_if_wanted("group", _group.name.as_bytes());
    machine.handle(event, now)
}

impl Groups {
    /// Gives an event to a group's machine and does what it says. The answer to a leave, which is never parked, comes back.
    pub(super) fn drive(
        &self,
        inner: &mut LedGroups,
        group: &GroupId,
        event: GroupEvent,
        wakes: &mut WakeBatch,
    ) -> Option<Vec<Left>> {
        let now = inner.now(self.shared.clock.monotonic_ms());
        let mut left = None;
        let mut events = vec![event];
        let mut cut_off = false;
        while let Some(event) = events.pop() {
            let Some(led) = inner.led.get_mut(group) else { break };
            let Some(actions) = contain(|| handle(group, &mut led.machine, event, now)) else {
                inner.abandon(group, wakes);
                break;
            };
            inner.count(group);
            for action in actions {
                match action {
                    Action::Answer(_, Answer::Left(answer)) => left = answer.ok(),
                    Action::Answer(ticket, answer) => inner.answer(ticket, answer, wakes),
                    Action::Persist(token, change) => {
                        match self.persist(inner, group, token, change) {
                            Ok(()) => {}
                            // Told after the actions of this event, or the machine would hear of it amid them.
                            Err(failure) if may_pass(failure) => {
                                events.push(GroupEvent::Refused(token, failure.into()));
                            }
                            Err(failure) => {
                                cut_off |= failure == ShardFailure::NotLeader;
                                events.push(GroupEvent::Retire(failure.into()));
                            }
                        }
                    }
                }
            }
        }
        inner.schedule(group);
        inner.drop_if_idle(group);
        if cut_off {
            // Leadership that is lost for good closes all groups; this may pass, and members must be watched.
            self.lead_one(inner, group, wakes);
        }
        left
    }

    fn persist(
        &self,
        inner: &mut LedGroups,
        group: &GroupId,
        token: Token,
        change: GroupChange,
    ) -> Result<(), ShardFailure> {
        let Some(led) = inner.led.get_mut(group) else { return Ok(()) };
        let entry = GroupChanged { group: group.clone(), change };
        let waiter = GroupWaiter::Machine {
            groups: self.clone(),
            group: group.clone(),
            incarnation: led.incarnation,
            token,
        };
        match self.shared.shard.propose(GroupChanged::KIND, &entry.encoded(), waiter) {
            Ok(()) => {
                led.in_flight += 1;
                Ok(())
            }
            Err((error, _)) => {
                tracing::debug!(group = &*group.name, %error, "a change of the group cannot be stored");
                Err(error)
            }
        }
    }

    /// An entry that a machine proposed is applied, or never will be.
    pub(super) fn entry_done(
        &self,
        group: &GroupId,
        incarnation: u64,
        token: Token,
        outcome: Result<(), GroupError>,
        wakes: &mut WakeBatch,
    ) {
        let mut inner = self.shared.inner.lock();
        let Some(led) = inner.led.get_mut(group).filter(|led| led.incarnation == incarnation) else {
            // Of a machine that was given up: what it proposed after the cut is in the table all the same.
            return if outcome.is_ok() {
                self.start_again(inner, group, wakes)
            };
        };
        led.in_flight -= 1;
        match outcome {
            Ok(()) => {
                inner.note_stored(group);
                self.drive(&mut inner, group, GroupEvent::Persisted(token), wakes);
            }
            // The block found no room; what came before it stands.
            Err(error @ GroupError::Shard(ShardFailure::StorageFull)) => {
                self.drive(&mut inner, group, GroupEvent::Refused(token, error), wakes);
            }
            Err(GroupError::Shard(ShardFailure::NotLeader)) => return self.start_again(inner, group, wakes),
            // Stopped: the next request gets a machine that will not come far.
            Err(error) => inner.retire(group, error, wakes),
        }
        drop(inner);
        self.shared.shard.flush();
    }
}

impl Groups {
    /// The journal has gone another way than the machine: the requests parked in it are told, and it starts from the table.
    fn start_again(&self, mut inner: MutexGuard<'_, LedGroups>, group: &GroupId, wakes: &mut WakeBatch) {
        inner.retire(group, GroupError::Shard(ShardFailure::NotLeader), wakes);
        self.lead_one(&mut inner, group, wakes);
        drop(inner);
        self.shared.shard.flush();
    }
}

impl LedGroups {
    fn answer(&mut self, ticket: RequestId, answer: Answer, wakes: &mut WakeBatch) {
        let Some(Parked { group, waits }) = self.parked.remove(&ticket) else { return };
        match (waits, answer) {
            (Waits::Join(replier), Answer::Joined(answer)) => {
                let refused = |why: sabir_delivery::group::JoinRefused| JoinRefusal {
                    error: about(&group.name, why.error),
                    member: why.member,
                };
                replier.send(answer.map_err(refused), wakes);
            }
            (Waits::Sync(replier), Answer::Synced(answer)) => {
                replier.send(answer.map_err(|error| about(&group.name, error)), wakes);
            }
            (_, answer) => debug_assert!(false, "{answer:?} is no answer to what was parked"),
        }
    }

    /// Answers all parked requests with an error and forgets the machine.
    pub fn retire(&mut self, group: &GroupId, error: GroupError, wakes: &mut WakeBatch) {
        let Some(mut led) = self.remove(group) else { return };
        let Some(actions) = contain(|| led.machine.handle(GroupEvent::Retire(error), 0)) else {
            return self.abandon_parked(group, error, wakes);
        };
        for action in actions {
            if let Action::Answer(ticket, answer) = action {
                self.answer(ticket, answer, wakes);
            }
        }
    }

    /// Forgets a machine that panicked, and of which nothing is to be believed. All requests parked in it are told to look for the
    /// group's coordinator: a later one finds a new machine, made from the table.
    fn abandon(&mut self, group: &GroupId, wakes: &mut WakeBatch) {
        tracing::error!(group = &*group.name, "a panic in a group: it starts again from what is stored");
        // Which uncounts it.
        drop(self.remove(group));
        self.abandon_parked(group, GroupError::Shard(ShardFailure::NotLeader), wakes);
    }

    fn abandon_parked(&mut self, group: &GroupId, error: GroupError, wakes: &mut WakeBatch) {
        let of_it = |(ticket, parked): (&RequestId, &Parked)| (parked.group == *group).then_some(*ticket);
        let tickets: Vec<RequestId> = self.parked.iter().filter_map(of_it).collect();
        for parked in tickets.iter().filter_map(|ticket| self.parked.remove(ticket)) {
            parked.refuse(error, wakes);
        }
    }

    /// A machine that the table can give back, or that is of no more use, takes no memory.
    pub fn drop_if_idle(&mut self, group: &GroupId) {
        if self
            .led
            .get(group)
            .is_some_and(|led| led.machine.is_dead() || (led.in_flight == 0 && led.machine.is_idle()))
        {
            self.remove(group);
        }
    }
}
