//! DeleteGroups: groups to be gone.

use crate::wire::Str;

schema! {
    DeleteGroups: DeleteGroupsRequest => DeleteGroupsResponse, versions 0..=2, flexible 2;

    DeleteGroupsRequest {
        groups_names: Vec<Str> [0..],
    }

    DeleteGroupsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<DeletableGroupResult> [0..],
    }

    DeletableGroupResult {
        group_id: Str [0..],
        error_code: i16 [0..],
    }
}
