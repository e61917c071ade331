//! DeleteRecords: a partition's new start.

use crate::wire::Str;

schema! {
    DeleteRecords: DeleteRecordsRequest => DeleteRecordsResponse, versions 0..=2, flexible 2;

    DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic> [0..],
        timeout_ms: i32 [0..],
    }

    DeleteRecordsTopic {
        name: Str [0..],
        partitions: Vec<DeleteRecordsPartition> [0..],
    }

    DeleteRecordsPartition {
        partition_index: i32 [0..],
        offset: i64 [0..],
    }

    DeleteRecordsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DeleteRecordsTopicResult> [0..],
    }

    DeleteRecordsTopicResult {
        name: Str [0..],
        partitions: Vec<DeleteRecordsPartitionResult> [0..],
    }

    DeleteRecordsPartitionResult {
        partition_index: i32 [0..],
        low_watermark: i64 [0..],
        error_code: i16 [0..],
    }
}
