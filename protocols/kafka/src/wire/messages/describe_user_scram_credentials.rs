//! DescribeUserScramCredentials: the users that log in by SCRAM.

use crate::wire::Str;

schema! {
    DescribeUserScramCredentials: DescribeUserScramCredentialsRequest => DescribeUserScramCredentialsResponse,
        versions 0..=0, flexible 0;

    DescribeUserScramCredentialsRequest {
        users: Option<Vec<ScramUser>> [0.., null 0..],
    }

    ScramUser {
        name: Str [0..],
    }

    DescribeUserScramCredentialsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Str> [0.., null 0..],
        results: Vec<DescribedScramUser> [0..],
    }

    DescribedScramUser {
        user: Str [0..],
        error_code: i16 [0..],
        error_message: Option<Str> [0.., null 0..],
        credential_infos: Vec<ScramCredentialInfo> [0..],
    }

    ScramCredentialInfo {
        mechanism: i8 [0..],
        iterations: i32 [0..],
    }
}
