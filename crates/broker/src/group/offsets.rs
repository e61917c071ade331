//! Committed offsets, and what is asked about groups from outside.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustc_hash::{FxHashMap, FxHashSet};
use sabir_delivery::group::Group;
use sabir_delivery::group::entries::{GroupDeleted, OffsetsCommitted, OffsetsDeleted, WhichOffsets};
use sabir_delivery::group::state::GroupState;
use sabir_model::{ErrorAbout, GroupError, Offset, TopicId};

use super::entries::GroupBody;
use super::led::LedGroup;
use super::reply::Reply;
use super::underway::Share;
use super::waiter::{GroupWaiter, Requester};
use super::{
    Committed, Fence, GROUP_SHARE, GroupId, GroupPhase, GroupTable, GroupView, Groups, OffsetCommit, Text,
    about, metadata_fits,
};

/// The answers to a commit, in the order of its offsets.
#[derive(Debug)]
#[must_use = "the commit is answered through it"]
pub struct Committing {
    group: Text,
    parts: Parts,
    /// For each offset, which part it went with, or why it was refused by itself.
    places: Vec<Result<usize, GroupError>>,
}

impl Future for Committing {
    type Output = Vec<Result<(), ErrorAbout<GroupError>>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(outcomes) = self.parts.poll(cx) else { return Poll::Pending };
        let places = std::mem::take(&mut self.places);
        let outcome = |place: Result<usize, GroupError>| match place {
            Ok(part) => outcomes[part].clone(),
            Err(error) => Err(about(&self.group, error)),
        };
        Poll::Ready(places.into_iter().map(outcome).collect())
    }
}

/// The answer to a deletion of positions.
#[derive(Debug)]
#[must_use = "the deletion is answered through it"]
pub struct DeletingOffsets(Parts);

impl Future for DeletingOffsets {
    type Output = Result<(), ErrorAbout<GroupError>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx).map(|outcomes| outcomes.into_iter().collect())
    }
}

/// The answers to the entries that one request went in.
#[derive(Debug)]
struct Parts(Vec<Part>);

#[derive(Debug)]
enum Part {
    Waiting(Reply<Result<(), ErrorAbout<GroupError>>>),
    Done(Result<(), ErrorAbout<GroupError>>),
}

impl Parts {
    fn done(outcome: Result<(), ErrorAbout<GroupError>>) -> Self {
        Self(vec![Part::Done(outcome)])
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Result<(), ErrorAbout<GroupError>>>> {
        let mut all = Vec::with_capacity(self.0.len());
        for part in &mut self.0 {
            if let Part::Waiting(reply) = part {
                let Poll::Ready(outcome) = Pin::new(reply).poll(cx) else { return Poll::Pending };
                *part = Part::Done(outcome);
            }
            if let Part::Done(outcome) = part {
                all.push(outcome.clone());
            }
        }
        Poll::Ready(all)
    }
}

/// Bytes of positions that one entry takes: there is room beside them for the group and its fence.
const PART_BYTES: usize = 512 << 10;
/// Bytes that a position takes in an entry beside its metadata, at the most.
const POSITION_BYTES: usize = 48;
/// Positions, or topics, that one entry deletes.
pub(super) const DELETED_AT_ONCE: usize = PART_BYTES / POSITION_BYTES;

/// The positions in portions of an entry each, and for each the portion it is in. Of a partition that is named more than once
/// the last position counts.
fn portions(offsets: Vec<OffsetCommit>) -> (Vec<Vec<OffsetCommit>>, Vec<usize>) {
    let mut last = FxHashMap::default();
    for (at, offset) in offsets.iter().enumerate() {
        last.insert((offset.topic, offset.partition), at);
    }
    let key = |offset: &OffsetCommit| last[&(offset.topic, offset.partition)];
    let kept: Vec<usize> = offsets.iter().map(key).collect();
    let (mut portions, mut bytes, mut portion_of) = (vec![Vec::new()], 0, vec![0; kept.len()]);
    for (at, offset) in offsets.into_iter().enumerate().filter(|(at, _)| kept[*at] == *at) {
        bytes += POSITION_BYTES + offset.metadata.len();
        if bytes > PART_BYTES {
            portions.push(Vec::new());
            bytes = POSITION_BYTES + offset.metadata.len();
        }
        portion_of[at] = portions.len() - 1;
        portions.last_mut().expect("there is one from the start").push(offset);
    }
    let places = kept.into_iter().map(|at| portion_of[at]).collect();
    (portions, places)
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Its id.
    pub group: GroupId,
    /// Its kind; empty if it never had members.
    pub protocol_type: Text,
    /// Its state.
    pub phase: GroupPhase,
    /// How many members it has.
    pub members: usize,
}

impl Groups {
    /// Commits positions; answered when they are applied, where the fence is judged. What is too much for one entry goes in several,
    /// one right after the other, so that no change of the group comes between: all of them pass the fence, or none. Of a partition
    /// that is named more than once the last position counts.
    ///
    /// Each answer's error is [`GroupError::MetadataTooLarge`] for this offset alone (over [`MAX_METADATA`](super::MAX_METADATA)), or for all:
    /// [`GroupError::UnknownMember`], [`GroupError::FencedInstance`], [`GroupError::IllegalGeneration`],
    /// [`GroupError::RebalanceInProgress`], [`GroupError::NotFound`] (a member of a group that does not exist),
    /// [`GroupError::InvalidId`], [`GroupError::LimitReached`], or what kept the entry from being stored.
    pub fn commit(&self, group: &str, fence: Fence, offsets: Vec<OffsetCommit>) -> Committing {
        let group = match self.positions_id(group) {
            Ok(group) => group,
            Err(error) => {
                let places = offsets.iter().map(|_| Ok(0)).collect();
                return Committing {
                    group: group.into(),
                    parts: Parts::done(Err(about(group, error))),
                    places,
                };
            }
        };
        let (judged, share) = self.judge(&group, &offsets);
        if judged.contains(&Err(GroupError::LimitReached)) {
            self.refuse_new(&mut self.shared.inner.lock(), &group, "");
        }
        let fit = offsets.into_iter().zip(&judged).filter(|(_, judged)| judged.is_ok());
        let (portions, portion_of) = portions(fit.map(|(offset, _)| offset).collect());
        let mut portion_of = portion_of.into_iter();
        let place = |judged: Result<(), GroupError>| judged.map(|()| portion_of.next().unwrap_or(0));
        let mut places: Vec<_> = judged.into_iter().map(place).collect();
        let parts = match self.admit(&group, &fence) {
            Ok(()) if places.iter().all(Result::is_err) => Parts::done(Ok(())),
            Ok(()) => {
                let entry = |offsets| {
                    let (group, fence) = (group.clone(), fence.clone());
                    OffsetsCommitted { group, fence, offsets }
                };
                self.request_together(&group.name, portions.into_iter().map(entry), share)
            }
            Err(error) => Parts::done(Err(about(&group.name, error))),
        };
        // Where nothing was pushed there is one answer to all of it.
        if parts.0.len() == 1 {
            places.iter_mut().flatten().for_each(|part| *part = 0);
        }
        Committing { group: group.name, parts, places }
    }

    /// What is wrong with each position by itself. Where all groups, or this one, take what they may, positions that are
    /// there are moved on as before, and nothing is added: no group, no position and no text. Else what they add is counted until it is there.
    fn judge(
        &self,
        group: &GroupId,
        offsets: &[OffsetCommit],
    ) -> (Vec<Result<(), GroupError>>, Option<Share>) {
        let coming: usize = offsets.iter().map(|offset| Committed::cost(&offset.metadata)).sum();
        let is_new = self.read(|table| table.get(group).is_none());
        let made = if is_new { GroupTable::bytes_of_new(group) } else { 0 };
        let share = self.shared.underway.begin(coming + made, is_new.into());
        let expected = self.shared.underway.bytes();
        let most = self.shared.options.max_offset_bytes;
        let elsewhere = self.elsewhere(GroupTable::bytes);
        let (judged, tight) = self.read(|table| {
            let state = table.get(group);
            let own = state.map_or(0, GroupState::bytes);
            let tight = table.bytes() + elsewhere + expected > most || own + expected > most / GROUP_SHARE;
            let is_new = |offset: &OffsetCommit| {
                state.is_none_or(|state| state.offset(offset.topic, offset.partition).is_none())
            };
            let judge = |offset: &OffsetCommit| match &*offset.metadata {
                text if !metadata_fits(text) || (tight && !text.is_empty()) => {
                    Err(GroupError::MetadataTooLarge)
                }
                _ if tight && is_new(offset) => Err(GroupError::LimitReached),
                _ => Ok(()),
            };
            (offsets.iter().map(judge).collect(), tight)
        });
        (judged, Some(share).filter(|_| !tight))
    }

    /// Proposes the entries that one request goes in.
    fn request_together<B: GroupBody>(
        &self,
        group: &Text,
        entries: impl Iterator<Item = B>,
        share: Option<Share>,
    ) -> Parts {
        let (mut pushed, mut parts) = (Vec::new(), Vec::new());
        for entry in entries {
            let (replier, reply) = Reply::pair();
            pushed.push((entry.encoded(), Requester { replier, group: group.clone(), share: None }));
            parts.push(Part::Waiting(reply));
        }
        if let Some((_, last)) = pushed.last_mut() {
            last.share = share;
        }
        let pushed =
            pushed.into_iter().map(|(body, requester)| (body, GroupWaiter::Request(requester))).collect();
        match self.shared.shard.propose_together(B::KIND, pushed) {
            Ok(()) => {
                self.shared.shard.flush();
                Parts(parts)
            }
            Err(failure) => Parts::done(Err(about(group, failure.into()))),
        }
    }

    fn admit(&self, group: &GroupId, fence: &Fence) -> Result<(), GroupError> {
        let mut inner = self.shared.inner.lock();
        match self.find(&mut inner, group, GroupError::NotFound) {
            Ok(()) => {
                let now = inner.now(self.shared.clock.monotonic_ms());
                let led = inner.led.get_mut(group).ok_or(GroupError::NotFound)?;
                let admitted = led.machine.admit_commit(fence, now);
                inner.drop_if_idle(group);
                admitted?;
            }
            // From outside, and the first that is heard of the group.
            Err(GroupError::NotFound) if fence.generation < 0 => {
                // It is counted already, as one under way.
                if self.groups(&inner) > self.shared.options.max_groups {
                    return Err(self.refuse_new(&mut inner, group, ""));
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Proposes an entry that answers a request.
    pub(super) fn request<B: GroupBody>(
        &self,
        group: Text,
        entry: &B,
    ) -> Reply<Result<(), ErrorAbout<GroupError>>> {
        let (replier, reply) = Reply::pair();
        let requester = Requester { replier, group: group.clone(), share: None };
        match self.shared.shard.propose(B::KIND, &entry.encoded(), GroupWaiter::Request(requester)) {
            Ok(()) => {
                self.shared.shard.flush();
                reply
            }
            Err((failure, _)) => Reply::ready(Err(about(&group, failure.into()))),
        }
    }

    /// Whether groups are led here, so that what is told of them is all that was ever acknowledged.
    ///
    /// # Errors
    /// [`GroupError::Loading`]; [`GroupError::Shard`] where the node is going down or does not lead.
    pub fn ready(&self) -> Result<(), GroupError> {
        self.shared.inner.lock().closed.map_or(Ok(()), Err)
    }

    /// The committed positions of partitions, in the order asked. Ask [`ready`](Self::ready) first.
    pub fn fetch_offsets(&self, group: &str, partitions: &[(TopicId, i32)]) -> Vec<Option<Committed>> {
        let group = self.named(group);
        self.read(|table| {
            let state = group.as_ref().and_then(|group| table.get(group));
            let offset = |&(topic, partition)| state?.offset(topic, partition).cloned();
            partitions.iter().map(offset).collect()
        })
    }

    /// All committed positions, by topic id and partition.
    pub fn all_offsets(&self, group: &str) -> Vec<((TopicId, i32), Committed)> {
        let Some(group) = self.named(group) else { return Vec::new() };
        self.read(|table| {
            let all = |state: &GroupState| {
                state.offsets().map(|(key, committed)| (*key, committed.clone())).collect()
            };
            table.get(&group).map(all).unwrap_or_default()
        })
    }

    /// At most `max` committed positions behind that of `after`, or from the first on, by topic id and partition: for a caller that goes
    /// through many and must not keep others from the group's state meanwhile.
    pub fn offsets_after(
        &self,
        group: &str,
        after: Option<(TopicId, i32)>,
        max: usize,
    ) -> Vec<((TopicId, i32), Offset)> {
        let Some(group) = self.named(group) else { return Vec::new() };
        let position = |(key, committed): (&(TopicId, i32), &Committed)| (*key, committed.offset);
        self.read(|table| {
            let page =
                |state: &GroupState| state.offsets_after(after).take(max).map(position).collect::<Vec<_>>();
            table.get(&group).map(page).unwrap_or_default()
        })
    }

    /// About how many groups the shard has; exact while none is being made.
    pub fn count(&self) -> usize {
        let led = self.shared.inner.lock().led.len();
        self.read(|table| table.len()).max(led)
    }

    /// A group as it is; none if it does not exist.
    pub fn describe(&self, group: &str) -> Option<GroupView> {
        let group = self.named(group)?;
        let inner = self.shared.inner.lock();
        if let Some(led) = inner.led.get(&group) {
            return Some(led.machine.view());
        }
        let limits = self.shared.options.limits;
        // Nothing that a view shows depends on the time.
        self.read(|table| table.get(&group).map(|state| Group::restore(limits, state, 0).view()))
    }

    /// The caller's groups, by name.
    pub fn list(&self) -> Vec<GroupListing> {
        let mut all = self.list_all();
        all.retain(|listing| self.scope.has(&listing.group));
        all
    }

    /// The shard's groups of all callers, by id. Those with machines are looked at first, and then the others: a caller that has much to list does
    /// not keep both locks.
    pub(crate) fn list_all(&self) -> Vec<GroupListing> {
        let listing = |group: &GroupId, protocol_type: &Text, phase, members| GroupListing {
            group: group.clone(),
            protocol_type: protocol_type.clone(),
            phase,
            members,
        };
        let of_machine = |(group, led): (&GroupId, &LedGroup)| {
            let machine = &led.machine;
            listing(group, machine.protocol_type(), machine.state(), machine.member_count())
        };
        let mut all: Vec<_> = self.shared.inner.lock().led.iter().map(of_machine).collect();
        let led: FxHashSet<GroupId> = all.iter().map(|listing| listing.group.clone()).collect();
        self.read(|table| {
            let rest = table.iter().filter(|(group, _)| !led.contains(*group));
            // One with members is led, but for the moment before this node takes over.
            let phase =
                |state: &GroupState| if state.is_empty() { GroupPhase::Empty } else { GroupPhase::Stable };
            let of_state = |(group, s): (&GroupId, &GroupState)| {
                listing(group, &s.record().protocol_type, phase(s), s.record().members.len())
            };
            all.extend(rest.map(of_state));
        });
        all.sort_unstable_by(|a, b| a.group.cmp(&b.group));
        all
    }

    /// Deletes a group and its positions.
    ///
    /// The answer's error is [`GroupError::NotFound`], [`GroupError::NotEmpty`] if it has members,
    /// [`GroupError::InvalidId`], or what kept the entry from being stored.
    pub fn delete(&self, group: &str) -> Reply<Result<(), ErrorAbout<GroupError>>> {
        let refused = |error| Reply::ready(Err(about(group, error)));
        let id = match self.ready().and_then(|()| self.positions_id(group)) {
            Ok(id) => id,
            Err(error) => return refused(error),
        };
        match self.describe(group).map(|view| view.state) {
            None => refused(GroupError::NotFound),
            Some(GroupPhase::Empty) => self.request(id.name.clone(), &GroupDeleted { group: id }),
            Some(_) => refused(GroupError::NotEmpty),
        }
    }

    /// Deletes positions. Whether the members of a group still read those topics is for the caller to judge: their metadata is
    /// its protocol's.
    ///
    /// The answer's error is [`GroupError::NotFound`], [`GroupError::InvalidId`], or what kept the entry from being stored.
    pub fn delete_offsets(&self, group: &str, partitions: &[(TopicId, i32)]) -> DeletingOffsets {
        let there = self.id(group).and_then(|id| self.ready().map(|()| id)).and_then(|id| {
            let is_there = self.read(|table| table.get(&id).is_some());
            if is_there { Ok(id) } else { Err(GroupError::NotFound) }
        });
        let group = match there {
            Ok(id) => id,
            Err(error) => return DeletingOffsets(Parts::done(Err(about(group, error)))),
        };
        let entry = |some: &[(TopicId, i32)]| {
            let which = WhichOffsets::Listed(some.to_vec());
            OffsetsDeleted { group: group.clone(), which }
        };
        DeletingOffsets(self.request_together(
            &group.name,
            partitions.chunks(DELETED_AT_ONCE).map(entry),
            None,
        ))
    }
}

#[cfg(test)]
mod tests {
    use sabir_model::LeaderEpoch;

    use super::*;

    fn position(partition: i32, offset: i64, metadata: usize) -> OffsetCommit {
        OffsetCommit {
            topic: TopicId([1; 16]),
            partition,
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(1),
            metadata: Text::from("x".repeat(metadata)),
        }
    }

    #[test]
    fn of_what_is_named_many_times_one_position_is_written() {
        let mut offsets: Vec<_> = (0..300).map(|i| position(0, i, 4000)).collect();
        offsets.insert(100, position(1, 7, 4000));
        let (portions, portion_of) = portions(offsets);
        let kept: Vec<_> = portions.concat().iter().map(|kept| (kept.partition, kept.offset.0)).collect();
        assert_eq!(kept, [(1, 7), (0, 299)]);
        assert_eq!((portions.len(), portion_of), (1, vec![0; 301]));
    }

    #[test]
    fn what_one_entry_does_not_take_goes_in_several_and_each_knows_its_own() {
        let (portions, portion_of) = portions((0..300).map(|i| position(i, 7, 4000)).collect());
        assert!(portions.len() >= 3, "{}", portions.len());
        for portion in &portions {
            let bytes: usize = portion.iter().map(|kept| POSITION_BYTES + kept.metadata.len()).sum();
            assert!(bytes <= PART_BYTES, "{bytes}");
        }
        for (partition, at) in (0..).zip(portion_of) {
            assert!(portions[at].iter().any(|kept| kept.partition == partition), "{partition} is in {at}");
        }
    }
}
