//! For which partition a batch is stored: named in its base offset, which its CRC does not cover and which readers are given anew.
//!
//! The journal's blocks hold batches of many partitions. Should a disk write one of them in another's place, the batch there has a right
//! CRC, and is not what its partition appended.

use crate::{Offset, PartitionId};

/// What such a base offset begins with; no batch that was stored without has it.
const MARK: u64 = 0x5ab1 << 48;
/// The bits of the partition's number.
const NUMBER: u64 = (1 << 48) - 1;

/// The base offset of a batch that is stored for a partition, as the batch holds it: 0x5ab1, then the partition's number in six bytes.
pub fn stored_base_offset(partition: PartitionId) -> Option<[u8; 8]> {
    (partition.0 <= NUMBER).then(|| (MARK | partition.0).to_be_bytes())
}

/// The partition that a stored batch is for, where its base offset says so: earlier versions stored the producer's.
pub fn stored_for(base_offset: Offset) -> Option<PartitionId> {
    let bits = base_offset.0 as u64;
    (bits & !NUMBER == MARK).then_some(PartitionId(bits & NUMBER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_offset_names_its_partition_and_no_other_one_does() {
        for id in [0, 1, 77, NUMBER] {
            let bytes = stored_base_offset(PartitionId(id)).unwrap();
            assert_eq!(stored_for(Offset(i64::from_be_bytes(bytes))), Some(PartitionId(id)));
        }
        assert_eq!(stored_base_offset(PartitionId(1)), Some([0x5a, 0xb1, 0, 0, 0, 0, 0, 1]));
        assert_eq!(stored_base_offset(PartitionId(NUMBER + 1)), None);
        for plain in [0, 99, -1, i64::MAX, i64::MIN] {
            assert_eq!(stored_for(Offset(plain)), None);
        }
    }
}
