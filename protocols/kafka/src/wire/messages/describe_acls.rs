//! DescribeAcls: who may do what.

use crate::wire::Str;

schema! {
    DescribeAcls: DescribeAclsRequest => DescribeAclsResponse, versions 1..=3, flexible 2;

    DescribeAclsRequest {
        resource_type_filter: i8 [1..],
        resource_name_filter: Option<Str> [1.., null 1..],
        pattern_type_filter: i8 [1..] = 3,
        principal_filter: Option<Str> [1.., null 1..],
        host_filter: Option<Str> [1.., null 1..],
        operation: i8 [1..],
        permission_type: i8 [1..],
    }

    DescribeAclsResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [1..],
        error_message: Option<Str> [1.., null 1..],
        resources: Vec<DescribeAclsResource> [1..],
    }

    DescribeAclsResource {
        resource_type: i8 [1..],
        resource_name: Str [1..],
        pattern_type: i8 [1..] = 3,
        acls: Vec<AclDescription> [1..],
    }

    AclDescription {
        principal: Str [1..],
        host: Str [1..],
        operation: i8 [1..],
        permission_type: i8 [1..],
    }
}
