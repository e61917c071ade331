//! AlterConfigs: all of a resource's configs replaced.

use crate::wire::Str;

schema! {
    AlterConfigs: AlterConfigsRequest => AlterConfigsResponse, versions 0..=2, flexible 2;

    AlterConfigsRequest {
        resources: Vec<AlterConfigsResource> [0..],
        validate_only: bool [0..],
    }

    AlterConfigsResource {
        resource_type: i8 [0..],
        resource_name: Str [0..],
        configs: Vec<AlterableConfig> [0..],
    }

    AlterableConfig {
        name: Str [0..],
        value: Option<Str> [0.., null 0..],
    }

    AlterConfigsResponse {
        throttle_time_ms: i32 [0..],
        responses: Vec<AlterConfigsResourceResponse> [0..],
    }

    AlterConfigsResourceResponse {
        error_code: i16 [0..],
        error_message: Option<Str> [0.., null 0..],
        resource_type: i8 [0..],
        resource_name: Str [0..],
    }
}
