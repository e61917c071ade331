//! AlterPartitionReassignments: replicas to be moved to other brokers.

use crate::wire::Str;

schema! {
    AlterPartitionReassignments: AlterPartitionReassignmentsRequest => AlterPartitionReassignmentsResponse,
        versions 0..=1, flexible 0;

    AlterPartitionReassignmentsRequest {
        timeout_ms: i32 [0..] = 60_000,
        allow_replication_factor_change: bool [1..] = true,
        topics: Vec<ReassignableTopic> [0..],
    }

    ReassignableTopic {
        name: Str [0..],
        partitions: Vec<ReassignablePartition> [0..],
    }

    ReassignablePartition {
        partition_index: i32 [0..],
        replicas: Option<Vec<i32>> [0.., null 0..],
    }

    AlterPartitionReassignmentsResponse {
        throttle_time_ms: i32 [0..],
        allow_replication_factor_change: bool [1..] = true,
        error_code: i16 [0..],
        error_message: Option<Str> [0.., null 0..],
        responses: Vec<ReassignableTopicResponse> [0..],
    }

    ReassignableTopicResponse {
        name: Str [0..],
        partitions: Vec<ReassignablePartitionResponse> [0..],
    }

    ReassignablePartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Str> [0.., null 0..],
    }
}
