//! The broker: shards, the projections over their journals, topics and partitions, behind one handle.
//!
//! Start at [`Broker`]. A front end checks, translates, makes one call here and replies.
#![deny(missing_docs)]

mod answer;
mod append;
mod backend;
mod broker;
mod caller;
mod catalog;
mod codec;
mod converter;
mod dead_letter;
mod definitions;
mod directory;
mod disk_watch;
mod entry;
pub mod exchange;
mod front_ends;
mod group;
mod housekeeper;
mod lag;
mod level;
pub mod live;
mod lock;
mod mismatch;
mod notes;
mod open;
mod options;
#[cfg(any(test, feature = "testing"))]
mod panicking;
mod partition;
mod private;
pub mod projection;
mod publish;
pub mod push;
pub mod queue;
mod read;
mod relay;
mod shard;
mod start_keeper;
mod state;
mod stats;
mod strays;
mod survey;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod timer;
mod topics;
mod traffic;
mod watch;

pub use append::{Append, AppendAcks, AppendRefusal, AppendTarget, Appended, Appending};
pub use backend::check_uring;
pub use broker::Broker;
pub use caller::{Caller, Principal, ReservedTopic, SessionId};
pub use catalog::{CatalogView, NewTopic, Partition, Topic};
pub use converter::{
    AddressOf, Converter, DeadLetter, DeadLetterOf, DeadLetterRecord, DeadRecord, DelayQueueOf,
    DelayedAddress, RedriveOf, RedrivenRecord,
};
pub use dead_letter::{
    DeadLetterStats, MOST_REDRIVES, Redrive, RedriveCounts, RedriveOrigin, RedriveProgress, RedriveRefused,
    RedriveSpec, RedriveState,
};
pub use disk_watch::STALLED;
pub use front_ends::{EntryRef, EntryRefused, ProjectionEntry};
pub use group::{
    ClientIdentity, Committed, Committing, DeletingOffsets, Fence, GroupId, GroupLimits, GroupListing,
    GroupOptions, GroupPhase, GroupProtocol, GroupView, Groups, JoinRefusal, JoinRequest, Joined,
    JoinedMember, LeaveRequest, Left, MAX_GROUP_ID, MAX_METADATA, MemberMemory, MemberView, OffsetCommit,
    Reply, SyncRequest, Synced, Text,
};
pub use lag::{GroupLag, PartitionLag, TopicLag};
pub use level::FormatLevel;
pub use lock::check_free;
pub use open::refuse_foreign;
pub use options::{BrokerOptions, DiskKind, StartError};
pub use publish::{
    Publish, PublishBatch, PublishDedup, PublishOutcome, PublishOutcomes, PublishRefused, PublishTargets,
    PublishTransaction, PublishVerdict,
};
pub use read::{
    Damage, DamageCause, EpochEnd, Fetched, Follower, FoundOffset, OffsetSpec, READ_FOR, ReadGrant, ReadHold,
    ReadMemory, ReadPosition, ReadRoom, ReadTarget, Slice, held,
};
pub use sabir_delivery::policy::{DeathReason, Deaths};
pub use sabir_delivery::timer::Repetition;
pub use sabir_journal::disk::free_of;
pub use sabir_journal::{StartProgress, StartStep};
pub use stats::{DelayedStats, PartitionStats, ShardStats, Stats};
pub use survey::ShardsError;
pub use timer::{
    BadDelayedPosition, DelayedMessages, DelayedPart, DelayedPosition, DelayedRefused, RecallOutcome,
};
pub use traffic::{OTHER, TopicTraffic, Traffic};
pub use watch::DataWatch;

#[cfg(test)]
mod tests;
