//! DeleteTopics: topics to be gone.

use crate::wire::{Str, Uuid};

schema! {
    DeleteTopics: DeleteTopicsRequest => DeleteTopicsResponse, versions 1..=6, flexible 4;

    DeleteTopicsRequest {
        topics: Vec<DeleteTopicState> [6..],
        topic_names: Vec<Str> [0..=5],
        timeout_ms: i32 [0..],
    }

    DeleteTopicState {
        name: Option<Str> [6.., null 6..],
        topic_id: Uuid [6..],
    }

    DeleteTopicsResponse {
        throttle_time_ms: i32 [1..],
        responses: Vec<DeletableTopicResult> [0..],
    }

    DeletableTopicResult {
        name: Option<Str> [0.., null 6..],
        topic_id: Uuid [6..],
        error_code: i16 [0..],
        error_message: Option<Str> [5.., null 5..],
    }
}
