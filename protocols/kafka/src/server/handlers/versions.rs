//! ApiVersions.

use super::{Call, Reply, decode};
use crate::server::requests::{BadRequest, Request};
use crate::wire::api::SUPPORTED;
use crate::wire::messages::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use crate::wire::{ApiKey, ErrorCode, RequestMessage as _};

/// Says what is served. A version that is not gets the error with the range of this API alone, in the form of version 0, which every client
/// can read: one that was told all of them would not ask again, and not learn what later forms say beside.
pub(super) fn api_versions(request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    if !ApiVersionsRequest::VERSIONS.contains(&request.version) {
        let error = ErrorCode::UnsupportedVersion;
        let api_keys = ranges(|key| key == ApiKey::ApiVersions);
        let response = ApiVersionsResponse { error_code: error.code(), api_keys, ..Default::default() };
        return Ok(Call { version: 0, ..call }.reply(&response, error));
    }
    let body: ApiVersionsRequest = decode(request)?;
    let named = |text: &str| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
        text.bytes().all(legal)
            && !text.starts_with(['.', '-'])
            && !text.ends_with(['.', '-'])
            && !text.is_empty()
    };
    let unnamed =
        request.version >= 3 && !(named(&body.client_software_name) && named(&body.client_software_version));
    let error = if unnamed { ErrorCode::InvalidRequest } else { ErrorCode::None };
    let api_keys = if unnamed { Vec::new() } else { ranges(|_| true) };
    Ok(call.reply(&ApiVersionsResponse { error_code: error.code(), api_keys, ..Default::default() }, error))
}

fn ranges(shown: impl Fn(ApiKey) -> bool) -> Vec<ApiVersion> {
    let range = |&(key, min_version, max_version): &(ApiKey, i16, i16)| ApiVersion {
        api_key: key as i16,
        min_version,
        max_version,
    };
    SUPPORTED.iter().filter(|(key, ..)| shown(*key)).map(range).collect()
}
