//! Dead letters of shards, as their leader has them: messages that queues gave up are published where their queue's address says.
//!
//! `apply` decides that a message is given up, for which reason, and has it wait in its queue, where no consumer gets it; so does what a start finds.
//! One thread reads what waits of the shards that are led here, has the queue's front end say what becomes of each message and routes it as things
//! are then. Some of a shard's goes into one entry, which publishes it and settles it in its queue: within a shard none is lost or doubled, whatever
//! is lost with a node. What goes to other shards, or is too large for an entry, is published there first, and may come twice where the node dies
//! between. What reads as damaged stays where it is, and is tried again after a while.
//!
//! An operator may have dead letters go back to the queues that gave them up (`redrive.rs`).

mod driver;
mod letters;
mod messages;
mod put_off;
mod redrive;
mod sent_back;
mod tally;
mod target;
mod waiting;

pub(crate) use driver::DeadLetterDriver;
pub(crate) use redrive::RedriveDriver;
pub use redrive::{
    MOST_REDRIVES, Redrive, RedriveCounts, RedriveOrigin, RedriveProgress, RedriveRefused, RedriveSpec,
    RedriveState,
};
pub(crate) use tally::RedriveTally;
pub use waiting::DeadLetterStats;
pub(crate) use waiting::ShardDeadLetters;
