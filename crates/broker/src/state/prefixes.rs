//! What the keys of all pages of a shard's store begin with. None begins another, or a scan of the one would find the other's.

use sabir_model::FrontendNo;

/// What there is one of.
pub(crate) const SHARD: &[u8] = b"m";
/// Partitions.
pub(crate) const PARTITIONS: &[u8] = b"p";
/// What they remember of producers.
pub(crate) const PRODUCERS: &[u8] = b"i";
/// Unfinished fragmented batches.
pub(crate) const UNFINISHED: &[u8] = b"o";
/// Topics.
pub(crate) const TOPICS: &[u8] = b"c";
/// Consumer groups.
pub(crate) const GROUPS: &[u8] = b"group/";
/// Whose records lie in which segment; a node's own.
pub(crate) const SEGMENT_USAGE: &[u8] = b"s";
/// The journal's tables; a node's own.
pub(crate) const TABLES: &[u8] = b"j";
/// Closed pages of a partition's index.
pub(crate) const INDEX_PAGES: &[u8] = b"x";
/// Chunk lists of fragmented batches.
pub(crate) const CHUNK_LISTS: &[u8] = b"t";

/// Maps of front ends; see [`of_front_end`].
pub(crate) const FRONT_ENDS: &[u8] = b"f";

/// What the keys of a map of a front end's projection begin with, by the number that the catalog gave the projection and that of the map.
/// All are of one length, so that none begins another.
pub(crate) fn of_front_end(projection: FrontendNo, map: u8) -> Vec<u8> {
    [FRONT_ENDS, &projection.0.to_be_bytes(), &[map]].concat()
}

/// The maps that every checkpoint lists; those of front ends come behind them.
pub(crate) const MAPS: [&[u8]; 6] = [PARTITIONS, PRODUCERS, UNFINISHED, TOPICS, GROUPS, SEGMENT_USAGE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_begins_another() {
        let all = [&MAPS[..], &[SHARD, TABLES, INDEX_PAGES, CHUNK_LISTS, FRONT_ENDS]].concat();
        for (at, one) in all.iter().enumerate() {
            assert!(!one.is_empty());
            assert!(
                all.iter().skip(at + 1).all(|other| !other.starts_with(one) && !one.starts_with(other)),
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
