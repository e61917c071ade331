//! Reading records back: from the index to the bytes, patched or rebuilt for the reader.

mod assemble;
mod cache;
mod damage;
mod fetch;
mod follow;
mod lookup;
mod memory;
mod plan;
mod rebuild;
mod record;
mod settled;
mod source;
mod types;
mod walk;

pub(crate) use cache::PageCache;
pub(crate) use damage::Damages;
pub use damage::{Damage, DamageCause};
pub use fetch::READ_FOR;
pub(crate) use fetch::ReadSpec;
pub use follow::{Follower, ReadPosition};
pub use memory::{ReadGrant, ReadHold, ReadMemory, held};
pub(crate) use memory::{ReadMemoryOf, UNHELD, hold};
pub(crate) use record::StoredBatch;
pub use types::{EpochEnd, Fetched, FoundOffset, OffsetSpec, ReadRoom, ReadTarget, Slice};
