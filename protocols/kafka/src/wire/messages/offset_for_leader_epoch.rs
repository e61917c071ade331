//! OffsetForLeaderEpoch: where a leader epoch ended.

use crate::wire::Str;

schema! {
    OffsetForLeaderEpoch: OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse,
    versions 2..=4, flexible 4;

    OffsetForLeaderEpochRequest {
        replica_id: i32 [3..] = -2,
        topics: Vec<OffsetForLeaderTopic> [0..],
    }

    OffsetForLeaderTopic {
        topic: Str [0..],
        partitions: Vec<OffsetForLeaderPartition> [0..],
    }

    OffsetForLeaderPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [2..] = -1,
        leader_epoch: i32 [0..],
    }

    OffsetForLeaderEpochResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<OffsetForLeaderTopicResult> [0..],
    }

    OffsetForLeaderTopicResult {
        topic: Str [0..],
        partitions: Vec<EpochEndOffset> [0..],
    }

    EpochEndOffset {
        error_code: i16 [0..],
        partition: i32 [0..],
        leader_epoch: i32 [1..] = -1,
        end_offset: i64 [0..] = -1,
    }
}
