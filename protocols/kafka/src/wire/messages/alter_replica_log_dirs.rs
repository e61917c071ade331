//! AlterReplicaLogDirs: replicas to be moved to another directory of their broker.

use crate::wire::Str;

schema! {
    AlterReplicaLogDirs: AlterReplicaLogDirsRequest => AlterReplicaLogDirsResponse, versions 1..=2, flexible 2;

    AlterReplicaLogDirsRequest {
        dirs: Vec<AlterReplicaLogDir> [0..],
    }

    AlterReplicaLogDir {
        path: Str [0..],
        topics: Vec<AlterReplicaLogDirTopic> [0..],
    }

    AlterReplicaLogDirTopic {
        name: Str [0..],
        partitions: Vec<i32> [0..],
    }

    AlterReplicaLogDirsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AlterReplicaLogDirTopicResult> [0..],
    }

    AlterReplicaLogDirTopicResult {
        topic_name: Str [0..],
        partitions: Vec<AlterReplicaLogDirPartitionResult> [0..],
    }

    AlterReplicaLogDirPartitionResult {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}
