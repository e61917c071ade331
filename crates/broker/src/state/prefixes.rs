//! What the keys of all pages of a shard's store begin with. None begins another, or a scan of the one would find the other's.

use sabir_model::FrontendNo;

/// Declares prefixes, and lists them for what has to hold for all.
macro_rules! prefixes {
    ($($(#[$doc:meta])* $name:ident = $bytes:literal;)+) => {
        $($(#[$doc])* pub(crate) const $name: &[u8] = $bytes;)+

        #[cfg(test)]
        const ALL: &[&[u8]] = &[$($name),+];
    };
}

prefixes! {
    /// What there is one of.
    SHARD = b"m";
    /// Partitions.
    PARTITIONS = b"p";
    /// What they remember of producers.
    PRODUCERS = b"i";
    /// Unfinished fragmented batches.
    UNFINISHED = b"o";
    /// Topics.
    TOPICS = b"c";
    /// Consumer groups.
    GROUPS = b"group/";
    /// Exchanges and bindings.
    EXCHANGES = b"exchange/";
    /// Whose records lie in which segment; a node's own.
    SEGMENT_USAGE = b"s";
    /// The journal's tables; a node's own.
    TABLES = b"j";
    /// Subscriptions of queues and topics.
    SUBSCRIPTIONS = b"q";
    /// The names and settings of topics' subscriptions.
    NAMED_SUBSCRIPTIONS = b"named/";
    /// Ids of messages that queues remember.
    MESSAGE_IDS = b"known/";
    /// Timers.
    TIMERS = b"due/";
    /// Pages of timers that are not in memory.
    TIMER_RUNS = b"run/";
    /// Closed pages of a partition's index.
    INDEX_PAGES = b"x";
    /// Chunk lists of fragmented batches.
    CHUNK_LISTS = b"t";
    /// Maps of front ends; see [`of_front_end`].
    FRONT_ENDS = b"f";
}

/// What the keys of a map of a front end's projection begin with, by the number that the catalog gave the projection and that of the map.
/// All are of one length, so that none begins another.
pub(crate) fn of_front_end(projection: FrontendNo, map: u8) -> Vec<u8> {
    [FRONT_ENDS, &projection.0.to_be_bytes(), &[map]].concat()
}

/// The maps that every checkpoint lists; those of [queues](QUEUE_MAPS) and of front ends come behind them.
pub(crate) const MAPS: [&[u8]; 6] = [PARTITIONS, PRODUCERS, UNFINISHED, TOPICS, GROUPS, SEGMENT_USAGE];

/// The maps that checkpoints list from the level of queues on.
pub(crate) const QUEUE_MAPS: [&[u8]; 3] = [SUBSCRIPTIONS, EXCHANGES, TIMERS];

/// The maps that a checkpoint lists if there is something in them.
pub(crate) const FILLED_MAPS: [&[u8]; 2] = [NAMED_SUBSCRIPTIONS, MESSAGE_IDS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_begins_another() {
        assert!(MAPS.iter().chain(&QUEUE_MAPS).chain(&FILLED_MAPS).all(|map| ALL.contains(map)));
        for (at, one) in ALL.iter().enumerate() {
            assert!(!one.is_empty());
            assert!(
                ALL.iter().skip(at + 1).all(|other| !other.starts_with(one) && !one.starts_with(other)),
                "{one:?}"
            );
        }
    }

    #[test]
    fn front_ends_maps_lie_side_by_side() {
        let some = [(1, 0), (1, 1), (1, 255), (256, 0), (257, 1), (u16::MAX, 9)];
        let all = some.map(|(number, map)| of_front_end(FrontendNo(number), map));
        assert_eq!(all[4], b"f\x01\x01\x01");
        for (at, one) in all.iter().enumerate() {
            assert!(one.starts_with(FRONT_ENDS) && one.len() == 4);
            assert!(!all[at + 1..].contains(one));
        }
    }
}
