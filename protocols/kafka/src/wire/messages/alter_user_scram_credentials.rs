//! AlterUserScramCredentials: users that are to log in by SCRAM, or no longer.

use bytes::Bytes;

use crate::wire::Str;

schema! {
    AlterUserScramCredentials: AlterUserScramCredentialsRequest => AlterUserScramCredentialsResponse,
        versions 0..=0, flexible 0;

    AlterUserScramCredentialsRequest {
        deletions: Vec<ScramDeletion> [0..],
        upsertions: Vec<ScramUpsertion> [0..],
    }

    ScramDeletion {
        name: Str [0..],
        mechanism: i8 [0..],
    }

    ScramUpsertion {
        name: Str [0..],
        mechanism: i8 [0..],
        iterations: i32 [0..],
        salt: Bytes [0..],
        salted_password: Bytes [0..],
    }

    AlterUserScramCredentialsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AlteredScramUser> [0..],
    }

    AlteredScramUser {
        user: Str [0..],
        error_code: i16 [0..],
        error_message: Option<Str> [0.., null 0..],
    }
}
