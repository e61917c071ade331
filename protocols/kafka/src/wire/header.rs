//! What stands before every request and response, and whole frames with it.

use bytes::Bytes;

use super::api::{ApiKey, ApiMessage, RequestMessage, request_header_version, response_header_version};
use super::primitives::{Cx, Wire};
use super::{Encoded, Reader, Str, WireError, Writer};

/// The client id is never compact, even in flexible headers: a broker reads it before it knows the version.
const CLASSIC: Cx = Cx { version: 1, flexible: false, nullable: true };

/// A request's header. Every version of every API begins with these fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestHeader {
    /// The API's key as it came: it may be none of ours.
    pub api_key: i16,
    /// The message's version.
    pub api_version: i16,
    /// The client's number for the request, given back in the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// Reads the header; the reader then stands at the body, unless the API or version is unknown: then nothing behind the
    /// header's own fields can be told.
    ///
    /// # Errors
    /// What is wrong with the bytes. An unknown API or version is none: the caller answers that.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let header = Self {
            api_key: r.i16()?,
            api_version: r.i16()?,
            correlation_id: r.i32()?,
            client_id: Wire::read(r, CLASSIC)?,
        };
        let version = header.api().and_then(|api| request_header_version(api, header.api_version));
        if version == Some(2) {
            r.tagged(|_, _| Ok(false))?;
        }
        Ok(header)
    }

    /// Writes the header.
    pub fn encode(&self, w: &mut Writer) {
        w.i16(self.api_key);
        w.i16(self.api_version);
        w.i32(self.correlation_id);
        self.client_id.write(w, CLASSIC);
        if self.api().and_then(|api| request_header_version(api, self.api_version)) == Some(2) {
            w.varint(0);
        }
    }

    /// The API, if the key is one's.
    pub fn api(&self) -> Option<ApiKey> {
        ApiKey::from_i16(self.api_key)
    }
}

/// A response's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseHeader {
    /// The request's number.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads the header that answers a request of this API and version.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(r: &mut Reader<'_>, api: ApiKey, version: i16) -> Result<Self, WireError> {
        let header = Self { correlation_id: r.i32()? };
        if response_header_version(api, version) == Some(1) {
            r.tagged(|_, _| Ok(false))?;
        }
        Ok(header)
    }

    /// Writes the header.
    pub fn encode(&self, w: &mut Writer, api: ApiKey, version: i16) {
        w.i32(self.correlation_id);
        if response_header_version(api, version) == Some(1) {
            w.varint(0);
        }
    }
}

/// A whole request frame: length, header, body.
pub fn encode_request<R: RequestMessage>(
    version: i16,
    correlation_id: i32,
    client_id: Option<&Str>,
    body: &R,
) -> Encoded {
    let mut w = Writer::with_capacity(512);
    w.begin_frame();
    let header = RequestHeader {
        api_key: R::KEY as i16,
        api_version: version,
        correlation_id,
        client_id: client_id.cloned(),
    };
    header.encode(&mut w);
    body.encode(&mut w, version);
    w.finish_frame()
}

/// A whole response frame: length, header, body.
pub fn encode_response<M: ApiMessage>(api: ApiKey, version: i16, correlation_id: i32, body: &M) -> Encoded {
    let mut w = Writer::with_capacity(512);
    w.begin_frame();
    ResponseHeader { correlation_id }.encode(&mut w, api, version);
    body.encode(&mut w, version);
    w.finish_frame()
}

/// Takes a response frame (without its length) apart. `limit` bounds the memory of the decoded arrays.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode_response<R: RequestMessage>(
    frame: &Bytes,
    version: i16,
    limit: usize,
) -> Result<(ResponseHeader, R::Response), WireError> {
    let mut r = Reader::with_limit(frame, limit);
    let header = ResponseHeader::decode(&mut r, R::KEY, version)?;
    Ok((header, R::Response::decode(&mut r, version)?))
}
