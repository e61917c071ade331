//! Why a consumer group does not do what it is asked to.

use crate::ShardFailure;

/// Why a consumer group does not do what it is asked to. The group is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GroupError {
    /// The state of the groups is still being read.
    #[error("the groups are still being read: ask again")]
    Loading,
    /// The group is not led here any more.
    #[error("this node does not lead the group: look for its coordinator")]
    NotCoordinator,
    /// No group can have this id.
    #[error("a group's id is empty, or too long")]
    InvalidId,
    /// The data directory may be opened by a version that knows no such groups.
    #[error(
        "the data directory has format level {has}, and this takes level {needs}: raise data.format_level once the version before this one \
         is not needed any more"
    )]
    Level {
        /// What it has.
        has: u32,
        /// What it would have to have.
        needs: u32,
    },
    /// The catalog does not know the front end whose group it is.
    #[error("the front end has no number in the catalog, and so no groups")]
    UnknownFrontend,
    /// There is no such group.
    #[error("no such group")]
    NotFound,
    /// The group has members.
    #[error("the group has members: stop them, and ask again")]
    NotEmpty,
    /// The group has no member of this id.
    #[error("unknown member: join the group again")]
    UnknownMember,
    /// The generation is not the group's.
    #[error("illegal generation: join the group again")]
    IllegalGeneration,
    /// The group is rebalancing.
    #[error("the group is rebalancing: join it again")]
    RebalanceInProgress,
    /// Another member took over this static instance id.
    #[error("another member took over this instance id")]
    FencedInstance,
    /// The session timeout is outside of what the broker allows.
    #[error(
        "a session timeout is {min_ms} to {max_ms} ms (group.min_session_timeout, group.max_session_timeout)"
    )]
    InvalidSessionTimeout {
        /// The shortest allowed.
        min_ms: i64,
        /// The longest allowed.
        max_ms: i64,
    },
    /// The member's protocols have nothing in common with the group's.
    #[error("the member follows no protocol that all members of the group follow")]
    InconsistentProtocol,
    /// The member names none of what it needs to be one, or names a protocol twice.
    #[error("the request to join makes no sense")]
    InvalidRequest,
    /// The member is to come back with the id that comes with this answer.
    #[error("join again with the member id of this answer")]
    MemberIdRequired,
    /// The group has as many members as it may have, or they bring as much.
    #[error("the group has as many members as it may have, or they bring as much")]
    Full,
    /// The text that comes with a position is too long, or there is no more room for such texts.
    #[error("the text that comes with the position is too long")]
    MetadataTooLarge,
    /// All groups, or their members or positions, are as many as they may be.
    #[error("the groups take as much memory as they may: ask again later, or delete groups")]
    LimitReached,
    /// What the member brings, or the group with it, is more than an entry takes.
    #[error("what is to be stored of the group is larger than an entry of the journal takes")]
    TooLarge,
    /// The shard of the groups did not take the change, or gave it up.
    #[error(transparent)]
    Shard(ShardFailure),
}

impl From<ShardFailure> for GroupError {
    fn from(failure: ShardFailure) -> Self {
        match failure {
            ShardFailure::TooLarge => Self::TooLarge,
            ShardFailure::NotLeader
            | ShardFailure::StorageError
            | ShardFailure::StorageFull
            | ShardFailure::Timeout
            | ShardFailure::ShuttingDown => Self::Shard(failure),
        }
    }
}
