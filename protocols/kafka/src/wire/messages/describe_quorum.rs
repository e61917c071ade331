//! DescribeQuorum: who keeps the metadata, and how far they are.

use crate::wire::{Str, Uuid};

schema! {
    DescribeQuorum: DescribeQuorumRequest => DescribeQuorumResponse, versions 0..=2, flexible 0;

    DescribeQuorumRequest {
        topics: Vec<TopicData> [0..],
    }

    TopicData {
        topic_name: Str [0..],
        partitions: Vec<PartitionData> [0..],
    }

    PartitionData {
        partition_index: i32 [0..],
    }

    DescribeQuorumResponse {
        error_code: i16 [0..],
        error_message: Option<Str> [2.., null 2..],
        topics: Vec<DescribedTopic> [0..],
        nodes: Vec<Node> [2..],
    }

    DescribedTopic {
        topic_name: Str [0..],
        partitions: Vec<DescribedPartition> [0..],
    }

    DescribedPartition {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Str> [2.., null 2..],
        leader_id: i32 [0..],
        leader_epoch: i32 [0..],
        high_watermark: i64 [0..],
        current_voters: Vec<ReplicaState> [0..],
        observers: Vec<ReplicaState> [0..],
    }

    ReplicaState {
        replica_id: i32 [0..],
        replica_directory_id: Uuid [2..],
        log_end_offset: i64 [0..],
        last_fetch_timestamp: i64 [1..] = -1,
        last_caught_up_timestamp: i64 [1..] = -1,
    }

    Node {
        node_id: i32 [2..],
        listeners: Vec<Listener> [2..],
    }

    Listener {
        name: Str [2..],
        host: Str [2..],
        /// Unsigned in the schema, of the same bits.
        port: i16 [2..],
    }
}
