//! ConsumerGroupHeartbeat: the one request by which a consumer of the newer group protocol joins, stays and leaves.

use crate::wire::{Str, Uuid};

schema! {
    ConsumerGroupHeartbeat: ConsumerGroupHeartbeatRequest => ConsumerGroupHeartbeatResponse,
        versions 0..=1, flexible 0;

    ConsumerGroupHeartbeatRequest {
        group_id: Str [0..],
        member_id: Str [0..],
        member_epoch: i32 [0..],
        instance_id: Option<Str> [0.., null 0..],
        rack_id: Option<Str> [0.., null 0..],
        rebalance_timeout_ms: i32 [0..] = -1,
        subscribed_topic_names: Option<Vec<Str>> [0.., null 0..],
        subscribed_topic_regex: Option<Str> [1.., null 1..],
        server_assignor: Option<Str> [0.., null 0..],
        topic_partitions: Option<Vec<OwnedTopicPartitions>> [0.., null 0..],
    }

    ConsumerGroupHeartbeatResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Str> [0.., null 0..],
        member_id: Option<Str> [0.., null 0..],
        member_epoch: i32 [0..],
        heartbeat_interval_ms: i32 [0..],
        assignment: Option<MemberAssignment> [0.., null 0..],
    }

    MemberAssignment {
        topic_partitions: Vec<OwnedTopicPartitions> [0..],
    }

    OwnedTopicPartitions {
        topic_id: Uuid [0..],
        partitions: Vec<i32> [0..],
    }
}
