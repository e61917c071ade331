//! SaslHandshake: which way of logging in a client means to go.

use crate::wire::Str;

schema! {
    SaslHandshake: SaslHandshakeRequest => SaslHandshakeResponse, versions 0..=1, flexible i16::MAX;

    SaslHandshakeRequest {
        mechanism: Str [0..],
    }

    SaslHandshakeResponse {
        error_code: i16 [0..],
        mechanisms: Vec<Str> [0..],
    }
}
