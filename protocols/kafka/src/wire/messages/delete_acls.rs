//! DeleteAcls: what is no longer to be allowed or forbidden.

use crate::wire::Str;

schema! {
    DeleteAcls: DeleteAclsRequest => DeleteAclsResponse, versions 1..=3, flexible 2;

    DeleteAclsRequest {
        filters: Vec<DeleteAclsFilter> [1..],
    }

    DeleteAclsFilter {
        resource_type_filter: i8 [1..],
        resource_name_filter: Option<Str> [1.., null 1..],
        pattern_type_filter: i8 [1..] = 3,
        principal_filter: Option<Str> [1.., null 1..],
        host_filter: Option<Str> [1.., null 1..],
        operation: i8 [1..],
        permission_type: i8 [1..],
    }

    DeleteAclsResponse {
        throttle_time_ms: i32 [1..],
        filter_results: Vec<DeleteAclsFilterResult> [1..],
    }

    DeleteAclsFilterResult {
        error_code: i16 [1..],
        error_message: Option<Str> [1.., null 1..],
        matching_acls: Vec<DeleteAclsMatchingAcl> [1..],
    }

    DeleteAclsMatchingAcl {
        error_code: i16 [1..],
        error_message: Option<Str> [1.., null 1..],
        resource_type: i8 [1..],
        resource_name: Str [1..],
        pattern_type: i8 [1..] = 3,
        principal: Str [1..],
        host: Str [1..],
        operation: i8 [1..],
        permission_type: i8 [1..],
    }
}
