//! Numbers that must not be mixed up, each with a type of its own.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(inner: $inner) -> Self {
                Self(inner)
            }
        }
    };
}

id! {
    /// A record's place in its partition; dense, from 0.
    Offset(i64)
}
id! {
    /// A block's place in its shard's journal. The first block is 1; 0 stands before every block.
    Sequence(u64)
}
id! {
    /// A leader's time in office in one shard; one leader a term, never falling.
    Term(u64)
}
id! {
    /// A shard of the node; 0 holds the catalog.
    ShardId(u32)
}
id! {
    /// A partition, given by the catalog and never reused.
    PartitionId(u64)
}
id! {
    /// An idempotent producer, given by the catalog; -1 in a batch means none.
    ProducerId(i64)
}
id! {
    /// A partition's leader epoch, as clients see it; -1 means not known.
    LeaderEpoch(i32)
}
id! {
    /// The number the catalog gave a front end's registered name; 0 is none.
    FrontendNo(u16)
}
id! {
    /// A node of the cluster.
    NodeId(i32)
}

impl Offset {
    /// The first offset of a partition.
    pub const ZERO: Self = Self(0);

    /// The offset `records` further; `None` beyond the largest.
    pub fn checked_add(self, records: u32) -> Option<Self> {
        self.0.checked_add(i64::from(records)).map(Self)
    }
}

impl Sequence {
    /// Before every block.
    pub const NONE: Self = Self(0);
    /// The first block of a journal.
    pub const FIRST: Self = Self(1);

    /// The sequence of the block after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ShardId {
    /// The shard that holds the catalog.
    pub const CATALOG: Self = Self(0);
}

impl ProducerId {
    /// What a batch without a producer carries.
    pub const NONE: Self = Self(-1);

    /// The id, unless it is the mark for none.
    pub fn known(self) -> Option<Self> {
        (self.0 >= 0).then_some(self)
    }
}

impl LeaderEpoch {
    /// Not known.
    pub const UNKNOWN: Self = Self(-1);
}

impl FrontendNo {
    /// No front end.
    pub const NONE: Self = Self(0);
}

/// A topic for good: a name may be deleted and made anew, its id never comes back. A random UUID, big-endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// The id that names no topic.
    pub const ZERO: Self = Self([0; 16]);

    /// Whether it names no topic.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_show_themselves() {
        assert_eq!(Offset(-1).to_string(), "-1");
        assert_eq!(TopicId([0xab; 16]).to_string(), "abababab-abab-abab-abab-abababababab");
        assert_eq!(Offset(i64::MAX).checked_add(1), None);
        assert_eq!(ProducerId::NONE.known(), None);
    }
}
