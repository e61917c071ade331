//! The format level of a data directory: which stored forms may be written in it.
//!
//! A binary reads every form that was ever written, and writes only those of the directory's level. So the binary before this one still
//! opens a directory until an operator raises its level; a fresh directory begins with the newest. The level is an entry of the catalog.
//! A higher one than a binary knows stops it by name.

use sabir_model::DecodeError;

/// Which stored forms a data directory may have: older programs do not open one of a later level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FormatLevel(u32);

impl FormatLevel {
    /// The forms that were written before there were levels.
    pub const FIRST: Self = Self(1);
    /// Checkpoints list their maps, slots have notes, the catalog names its level.
    pub const LISTED: Self = Self(2);
    /// Front ends have projections and groups of their own; slots say what looks older than it is. References name their source and have overlays, and
    /// batches have facts beside them.
    pub const FRONT_ENDS: Self = Self(3);
    /// Queues: their settings, and the entries and pages that say where each message stands. Exchanges and bindings.
    pub const QUEUES: Self = Self(4);
    /// Messages that come back and wait: queues' settings, and the entries of timers, that know of them. Subscriptions of topics, front ends' own among
    /// them. Blocks say the node's time where theirs stands above it.
    pub const RETRIES: Self = Self(5);
    /// The lowest that this version writes: a directory below it is raised to it.
    pub const OLDEST: Self = Self::LISTED;
    /// The highest that this version knows.
    pub const NEWEST: Self = Self::RETRIES;

    /// The level of that number, if this version knows it.
    pub fn known(number: u32) -> Option<Self> {
        let level = Self(number);
        (Self::FIRST..=Self::NEWEST).contains(&level).then_some(level)
    }

    /// The level of that number, if this version writes it.
    pub fn written(number: u32) -> Option<Self> {
        Self::known(number).filter(|level| *level >= Self::OLDEST)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The level of a number that was stored.
    pub(crate) fn stored(number: u32) -> Result<Self, DecodeError> {
        Self::known(number).ok_or(DecodeError::Field("format level, which this version does not know"))
    }
}

impl std::fmt::Display for FormatLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_this_version_are_known_and_others_not() {
        let known = |number| FormatLevel::known(number).map(FormatLevel::number);
        assert_eq!([0, 1, 4, 5, 6].map(known), [None, Some(1), Some(4), Some(5), None]);
        let newer = FormatLevel::stored(6).unwrap_err().to_string();
        assert!(newer.contains("format level"), "{newer}");
    }
}
