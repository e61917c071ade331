//! ListGroups: the groups there are.

use crate::wire::Str;

schema! {
    ListGroups: ListGroupsRequest => ListGroupsResponse, versions 0..=5, flexible 3;

    ListGroupsRequest {
        states_filter: Vec<Str> [4..],
        types_filter: Vec<Str> [5..],
    }

    ListGroupsResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
        groups: Vec<ListedGroup> [0..],
    }

    ListedGroup {
        group_id: Str [0..],
        protocol_type: Str [0..],
        group_state: Str [4..],
        group_type: Str [5..],
    }
}
