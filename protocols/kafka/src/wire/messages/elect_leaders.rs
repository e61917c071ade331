//! ElectLeaders: leaders to be chosen anew.

use crate::wire::Str;

schema! {
    ElectLeaders: ElectLeadersRequest => ElectLeadersResponse, versions 0..=2, flexible 2;

    ElectLeadersRequest {
        election_type: i8 [1..],
        topic_partitions: Option<Vec<TopicPartitions>> [0.., null 0..],
        timeout_ms: i32 [0..] = 60_000,
    }

    TopicPartitions {
        topic: Str [0..],
        partitions: Vec<i32> [0..],
    }

    ElectLeadersResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [1..],
        replica_election_results: Vec<ReplicaElectionResult> [0..],
    }

    ReplicaElectionResult {
        topic: Str [0..],
        partition_result: Vec<PartitionResult> [0..],
    }

    PartitionResult {
        partition_id: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Str> [0.., null 0..],
    }
}
