//! What the keys of all pages of a shard's store begin with. None begins another, or a scan of the one would find the other's.

/// What there is one of.
pub(crate) const SHARD: &[u8] = b"m";
/// Partitions.
pub(crate) const PARTITIONS: &[u8] = b"p";
/// What they remember of producers.
pub(crate) const PRODUCERS: &[u8] = b"i";
/// Unfinished trains.
pub(crate) const TRAINS: &[u8] = b"o";
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
/// Chunk lists of trains.
pub(crate) const CHUNK_LISTS: &[u8] = b"t";

/// The maps that a checkpoint lists.
pub(crate) const MAPS: [&[u8]; 6] = [PARTITIONS, PRODUCERS, TRAINS, TOPICS, GROUPS, SEGMENT_USAGE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_begins_another() {
        let all = [&MAPS[..], &[SHARD, TABLES, INDEX_PAGES, CHUNK_LISTS]].concat();
        for (at, one) in all.iter().enumerate() {
            assert!(!one.is_empty());
            assert!(
                all.iter().skip(at + 1).all(|other| !other.starts_with(one) && !one.starts_with(other)),
                "{one:?}"
            );
        }
    }
}
