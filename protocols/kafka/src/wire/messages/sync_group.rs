//! SyncGroup: the assignment of a generation.

use bytes::Bytes;

use crate::wire::Str;

schema! {
    SyncGroup: SyncGroupRequest => SyncGroupResponse, versions 0..=5, flexible 4;

    SyncGroupRequest {
        group_id: Str [0..],
        generation_id: i32 [0..],
        member_id: Str [0..],
        group_instance_id: Option<Str> [3.., null 3..],
        protocol_type: Option<Str> [5.., null 5..],
        protocol_name: Option<Str> [5.., null 5..],
        assignments: Vec<SyncGroupRequestAssignment> [0..],
    }

    SyncGroupRequestAssignment {
        member_id: Str [0..],
        assignment: Bytes [0..],
    }

    SyncGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
        protocol_type: Option<Str> [5.., null 5..],
        protocol_name: Option<Str> [5.., null 5..],
        assignment: Bytes [0..],
    }
}
