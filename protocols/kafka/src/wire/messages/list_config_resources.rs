//! ListConfigResources: what has settings. Version 0 asked for the subscriptions of client metrics only.

use crate::wire::Str;

schema! {
    ListConfigResources: ListConfigResourcesRequest => ListConfigResourcesResponse, versions 0..=1, flexible 0;

    ListConfigResourcesRequest {
        resource_types: Vec<i8> [1..],
    }

    ListConfigResourcesResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        config_resources: Vec<ConfigResource> [0..],
    }

    ConfigResource {
        resource_name: Str [0..],
        resource_type: i8 [1..] = 16,
    }
}
