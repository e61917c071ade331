//! Heartbeat: a member is alive.

use crate::wire::Str;

schema! {
    Heartbeat: HeartbeatRequest => HeartbeatResponse, versions 0..=4, flexible 4;

    HeartbeatRequest {
        group_id: Str [0..],
        generation_id: i32 [0..],
        member_id: Str [0..],
        group_instance_id: Option<Str> [3.., null 3..],
    }

    HeartbeatResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
    }
}
