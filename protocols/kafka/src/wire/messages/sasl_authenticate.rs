//! SaslAuthenticate: one step of logging in.

use bytes::Bytes;

use crate::wire::Str;

schema! {
    SaslAuthenticate: SaslAuthenticateRequest => SaslAuthenticateResponse, versions 0..=2, flexible 2;

    SaslAuthenticateRequest {
        auth_bytes: Bytes [0..],
    }

    SaslAuthenticateResponse {
        error_code: i16 [0..],
        error_message: Option<Str> [0.., null 0..],
        auth_bytes: Bytes [0..],
        session_lifetime_ms: i64 [1..],
    }
}
