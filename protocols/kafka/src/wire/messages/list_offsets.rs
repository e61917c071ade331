//! ListOffsets: the offset of a timestamp, the first, the next.

use crate::wire::Str;

/// Asks for the next offset to be written.
pub const LATEST_TIMESTAMP: i64 = -1;
/// Asks for the first offset still there.
pub const EARLIEST_TIMESTAMP: i64 = -2;
/// Asks for the offset of the record with the highest timestamp (version 7 on).
pub const MAX_TIMESTAMP: i64 = -3;
/// Asks for the first offset on the broker's own disks (version 8 on).
pub const EARLIEST_LOCAL_TIMESTAMP: i64 = -4;
/// Asks for the last offset in tiered storage (version 9 on).
pub const LATEST_TIERED_TIMESTAMP: i64 = -5;
/// Asks for the first offset not in tiered storage yet (version 11 on).
pub const EARLIEST_PENDING_UPLOAD_TIMESTAMP: i64 = -6;

schema! {
    ListOffsets: ListOffsetsRequest => ListOffsetsResponse, versions 1..=11, flexible 6;

    ListOffsetsRequest {
        replica_id: i32 [0..] = -1,
        isolation_level: i8 [2..],
        topics: Vec<ListOffsetsTopic> [0..],
        timeout_ms: i32 [10..],
    }

    ListOffsetsTopic {
        name: Str [0..],
        partitions: Vec<ListOffsetsPartition> [0..],
    }

    ListOffsetsPartition {
        partition_index: i32 [0..],
        current_leader_epoch: i32 [4..] = -1,
        timestamp: i64 [0..],
    }

    ListOffsetsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<ListOffsetsTopicResponse> [0..],
    }

    ListOffsetsTopicResponse {
        name: Str [0..],
        partitions: Vec<ListOffsetsPartitionResponse> [0..],
    }

    ListOffsetsPartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        timestamp: i64 [1..] = -1,
        offset: i64 [1..] = -1,
        leader_epoch: i32 [4..] = -1,
    }
}
