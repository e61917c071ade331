//! FindCoordinator: who looks after a group or a transaction.

use crate::wire::Str;

schema! {
    FindCoordinator: FindCoordinatorRequest => FindCoordinatorResponse, versions 0..=6, flexible 3;

    FindCoordinatorRequest {
        key: Str [0..=3],
        key_type: i8 [1..],
        coordinator_keys: Vec<Str> [4..],
    }

    FindCoordinatorResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..=3],
        error_message: Option<Str> [1..=3, null 1..=3],
        node_id: i32 [0..=3],
        host: Str [0..=3],
        port: i32 [0..=3],
        coordinators: Vec<Coordinator> [4..],
    }

    Coordinator {
        key: Str [4..],
        node_id: i32 [4..],
        host: Str [4..],
        port: i32 [4..],
        error_code: i16 [4..],
        error_message: Option<Str> [4.., null 4..],
    }
}
