//! CreateAcls: what somebody is to be allowed or forbidden.

use crate::wire::Str;

schema! {
    CreateAcls: CreateAclsRequest => CreateAclsResponse, versions 1..=3, flexible 2;

    CreateAclsRequest {
        creations: Vec<AclCreation> [1..],
    }

    AclCreation {
        resource_type: i8 [1..],
        resource_name: Str [1..],
        resource_pattern_type: i8 [1..] = 3,
        principal: Str [1..],
        host: Str [1..],
        operation: i8 [1..],
        permission_type: i8 [1..],
    }

    CreateAclsResponse {
        throttle_time_ms: i32 [1..],
        results: Vec<AclCreationResult> [1..],
    }

    AclCreationResult {
        error_code: i16 [1..],
        error_message: Option<Str> [1.., null 1..],
    }
}
