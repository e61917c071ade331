//! Committed offsets, and what is asked about groups from outside.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use sabir_delivery::group::Group;
use sabir_delivery::group::entries::{GroupDeleted, OffsetsCommitted, OffsetsDeleted, WhichOffsets};
use sabir_delivery::group::state::GroupState;
use sabir_model::{ErrorKind, Offset, TopicId};

use super::entries::GroupEntry;
use super::reply::Reply;
use super::waiter::{GroupWaiter, Requester};
use super::{
    Committed, Fence, GroupPhase, GroupView, Groups, MAX_METADATA, OffsetCommit, Text, check_group_id,
};

/// The answers to a commit, in the order of its offsets.
#[derive(Debug)]
#[must_use = "the commit is answered through it"]
pub struct Committing {
    reply: Reply<Result<(), ErrorKind>>,
    /// Offsets that were refused by themselves.
    answers: Vec<Result<(), ErrorKind>>,
}

impl Future for Committing {
    type Output = Vec<Result<(), ErrorKind>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(outcome) = Pin::new(&mut self.reply).poll(cx) else { return Poll::Pending };
        let answers = std::mem::take(&mut self.answers);
        Poll::Ready(answers.into_iter().map(|own| own.and(outcome)).collect())
    }
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Its id.
    pub group: Text,
    /// Its kind; empty if it never had members.
    pub protocol_type: Text,
    /// Its state.
    pub phase: GroupPhase,
    /// How many members it has.
    pub members: usize,
}

impl Groups {
    /// Commits positions, all in one entry; answered when it is applied, where the fence is judged.
    ///
    /// Each answer's error is [`ErrorKind::OffsetMetadataTooLarge`] for this offset alone (over [`MAX_METADATA`] bytes), or for all:
    /// [`ErrorKind::UnknownMember`], [`ErrorKind::FencedInstance`], [`ErrorKind::IllegalGeneration`],
    /// [`ErrorKind::RebalanceInProgress`], [`ErrorKind::GroupNotFound`] (a member of a group that does not exist),
    /// [`ErrorKind::InvalidGroupId`], [`ErrorKind::LimitReached`], or what kept the entry from being stored.
    pub fn commit(&self, group: &str, fence: Fence, offsets: Vec<OffsetCommit>) -> Committing {
        let fits = |offset: &OffsetCommit| offset.metadata.len() <= MAX_METADATA;
        let judge = |offset| if fits(offset) { Ok(()) } else { Err(ErrorKind::OffsetMetadataTooLarge) };
        let answers = offsets.iter().map(judge).collect();
        let offsets: Vec<_> = offsets.into_iter().filter(fits).collect();
        let reply = match self.admit(group, &fence) {
            Err(error) => Reply::ready(Err(error)),
            Ok(_) if offsets.is_empty() => Reply::ready(Ok(())),
            Ok(group) => self.request(&GroupEntry::Committed(OffsetsCommitted { group, fence, offsets })),
        };
        Committing { reply, answers }
    }

    fn admit(&self, group: &str, fence: &Fence) -> Result<Text, ErrorKind> {
        check_group_id(group)?;
        let group = Text::from(group);
        let mut inner = self.shared.inner.lock();
        match self.find(&mut inner, &group, ErrorKind::GroupNotFound) {
            Ok(()) => {
                let now = inner.now(self.shared.clock.now_ms());
                let led = inner.led.get_mut(&group).ok_or(ErrorKind::GroupNotFound)?;
                let admitted = led.machine.admit_commit(fence, now);
                inner.drop_if_idle(&group);
                admitted?;
            }
            // From outside, and the first that is heard of the group.
            Err(ErrorKind::GroupNotFound) if fence.generation < 0 => {
                if self.is_full(&inner) {
                    return Err(ErrorKind::LimitReached);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(group)
    }

    /// Proposes an entry that answers a request.
    pub(super) fn request(&self, entry: &GroupEntry) -> Reply<Result<(), ErrorKind>> {
        let (replier, reply) = Reply::pair();
        let (kind, body) = entry.encode();
        match self.shared.shard.propose(kind, &body, GroupWaiter::Request(Requester(replier))) {
            Ok(()) => {
                self.shared.shard.flush();
                reply
            }
            Err((error, _)) => Reply::ready(Err(error)),
        }
    }

    /// Whether groups are led here, so that what is told of them is all that was ever acknowledged.
    ///
    /// # Errors
    /// [`ErrorKind::CoordinatorLoading`], [`ErrorKind::ShuttingDown`], [`ErrorKind::NotLeader`].
    pub fn ready(&self) -> Result<(), ErrorKind> {
        self.shared.inner.lock().closed.map_or(Ok(()), Err)
    }

    /// The committed positions of partitions, in the order asked. Ask [`ready`](Self::ready) first.
    pub fn fetch_offsets(&self, group: &str, partitions: &[(TopicId, i32)]) -> Vec<Option<Committed>> {
        let group = Text::from(group);
        self.read(|table| {
            let state = table.get(&group);
            let offset = |&(topic, partition)| state?.offset(topic, partition).cloned();
            partitions.iter().map(offset).collect()
        })
    }

    /// All committed positions, by topic id and partition.
    pub fn all_offsets(&self, group: &str) -> Vec<((TopicId, i32), Committed)> {
        let group = Text::from(group);
        self.read(|table| {
            let all = |state: &GroupState| {
                state.offsets().map(|(key, committed)| (*key, committed.clone())).collect()
            };
            table.get(&group).map(all).unwrap_or_default()
        })
    }

    /// At most `max` committed positions behind that of `after`, or from the first on, by topic id and partition: for who goes
    /// through many and must not keep others from the group's state meanwhile.
    pub fn offsets_after(
        &self,
        group: &str,
        after: Option<(TopicId, i32)>,
        max: usize,
    ) -> Vec<((TopicId, i32), Offset)> {
        let group = Text::from(group);
        let position = |(key, committed): (&(TopicId, i32), &Committed)| (*key, committed.offset);
        self.read(|table| {
            let page =
                |state: &GroupState| state.offsets_after(after).take(max).map(position).collect::<Vec<_>>();
            table.get(&group).map(page).unwrap_or_default()
        })
    }

    /// About how many groups there are; exact while none is being made.
    pub fn count(&self) -> usize {
        let led = self.shared.inner.lock().led.len();
        self.read(|table| table.len()).max(led)
    }

    /// A group as it is; none if it does not exist.
    pub fn describe(&self, group: &str) -> Option<GroupView> {
        let group = Text::from(group);
        let inner = self.shared.inner.lock();
        if let Some(led) = inner.led.get(&group) {
            return Some(led.machine.view());
        }
        let limits = self.shared.options.limits;
        // Nothing that a view shows depends on the time.
        self.read(|table| table.get(&group).map(|state| Group::restore(limits, state, 0).view()))
    }

    /// All groups, by id.
    pub fn list(&self) -> Vec<GroupListing> {
        let inner = self.shared.inner.lock();
        let listing = |group: &Text, protocol_type: &Text, phase, members| GroupListing {
            group: group.clone(),
            protocol_type: protocol_type.clone(),
            phase,
            members,
        };
        let led = inner.led.iter().map(|(group, led)| (group, &led.machine));
        let of_machine =
            |(group, m): (&Text, &Group)| listing(group, m.protocol_type(), m.state(), m.member_count());
        let mut all: Vec<_> = led.map(of_machine).collect();
        self.read(|table| {
            let rest = table.iter().filter(|(group, _)| !inner.led.contains_key(*group));
            // One with members is led, but for the moment before this node takes over.
            let phase =
                |state: &GroupState| if state.is_empty() { GroupPhase::Empty } else { GroupPhase::Stable };
            let of_state = |(group, s): (&Text, &GroupState)| {
                listing(group, &s.record().protocol_type, phase(s), s.record().members.len())
            };
            all.extend(rest.map(of_state));
        });
        all.sort_unstable_by(|a, b| a.group.cmp(&b.group));
        all
    }

    /// Deletes a group and its positions.
    ///
    /// The answer's error is [`ErrorKind::GroupNotFound`], [`ErrorKind::NonEmptyGroup`] if it has members,
    /// [`ErrorKind::InvalidGroupId`], or what kept the entry from being stored.
    pub fn delete(&self, group: &str) -> Reply<Result<(), ErrorKind>> {
        if let Err(error) = self.ready() {
            return Reply::ready(Err(error));
        }
        match self.describe(group).map(|view| view.state) {
            _ if check_group_id(group).is_err() => Reply::ready(Err(ErrorKind::InvalidGroupId)),
            None => Reply::ready(Err(ErrorKind::GroupNotFound)),
            Some(GroupPhase::Empty) => {
                self.request(&GroupEntry::Deleted(GroupDeleted { group: Text::from(group) }))
            }
            Some(_) => Reply::ready(Err(ErrorKind::NonEmptyGroup)),
        }
    }

    /// Deletes positions. Whether the members of a group still read those topics is for the caller to judge: their metadata is
    /// its protocol's.
    ///
    /// The answer's error is [`ErrorKind::GroupNotFound`], [`ErrorKind::InvalidGroupId`], or what kept the entry from being stored.
    pub fn delete_offsets(
        &self,
        group: &str,
        partitions: Vec<(TopicId, i32)>,
    ) -> Reply<Result<(), ErrorKind>> {
        if let Err(error) = check_group_id(group).and_then(|()| self.ready()) {
            return Reply::ready(Err(error));
        }
        let group = Text::from(group);
        if !self.read(|table| table.get(&group).is_some()) {
            return Reply::ready(Err(ErrorKind::GroupNotFound));
        }
        let which = WhichOffsets::Listed(partitions);
        self.request(&GroupEntry::OffsetsDeleted(OffsetsDeleted { group, which }))
    }
}
