//! OffsetDelete: committed offsets to be gone.

use crate::wire::Str;

schema! {
    OffsetDelete: OffsetDeleteRequest => OffsetDeleteResponse, versions 0..=0, flexible i16::MAX;

    OffsetDeleteRequest {
        group_id: Str [0..],
        topics: Vec<OffsetDeleteRequestTopic> [0..],
    }

    OffsetDeleteRequestTopic {
        name: Str [0..],
        partitions: Vec<OffsetDeleteRequestPartition> [0..],
    }

    OffsetDeleteRequestPartition {
        partition_index: i32 [0..],
    }

    OffsetDeleteResponse {
        error_code: i16 [0..],
        throttle_time_ms: i32 [0..],
        topics: Vec<OffsetDeleteResponseTopic> [0..],
    }

    OffsetDeleteResponseTopic {
        name: Str [0..],
        partitions: Vec<OffsetDeleteResponsePartition> [0..],
    }

    OffsetDeleteResponsePartition {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}
