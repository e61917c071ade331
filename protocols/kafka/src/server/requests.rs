//! One connection as a machine: bytes in, requests out; answers in, bytes out in the order of the requests.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use sabir_net::{Claim, DropReason, OwnReason};

use crate::server::foreign::looks_like;
use crate::wire::api::{SUPPORTED, coded_versions};
use crate::wire::{ApiKey, Encoded, Reader, RequestHeader, WireError};

/// Bytes of the first message by which a peer is known that speaks something else.
const FIRST: usize = 16;

/// A request's place in the order of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestNumber(u64);

/// A request whose header is known and whose body is not decoded yet.
#[derive(Debug)]
pub(crate) struct Request {
    pub number: RequestNumber,
    pub api: ApiKey,
    pub version: i16,
    pub header: RequestHeader,
    /// What stands behind the header; nothing, where the version is not known.
    pub body: Bytes,
}

/// Whether a connection may be Kafka's that begins with these bytes: a size, an API and a version that there are.
pub(crate) fn claims(first: &[u8], max_frame: u64) -> Claim {
    let Some((size, rest)) = first.split_first_chunk::<4>() else {
        return if first.iter().all(|byte| *byte == 0) { Claim::Unsure } else { Claim::Foreign };
    };
    if !(LEAST_REQUEST..=max_frame).contains(&u64::from(u32::from_be_bytes(*size))) {
        return Claim::Foreign;
    }
    let number = |at| rest.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(i16::from_be_bytes);
    match (number(0).map(ApiKey::from_i16), number(2)) {
        (Some(None), _) => Claim::Foreign,
        (_, Some(version)) if !(0..MOST_VERSIONS).contains(&version) => Claim::Foreign,
        (Some(Some(_)), Some(_)) => Claim::Mine,
        _ => Claim::Unsure,
    }
}

/// Bytes of the shortest header.
const LEAST_REQUEST: u64 = 8;
/// No API has as many versions as that.
const MOST_VERSIONS: i16 = 64;

/// What stands at the front of the input.
#[derive(Debug)]
pub(crate) enum Next {
    /// A whole frame of so many bytes with its length. What it produces is copied at once; another may be kept while its request waits.
    Frame { len: usize, produces: bool },
    /// Not a whole frame; the next one can be told once there are so many bytes.
    Need(usize),
}

/// Why a connection is closed by the broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("what looks like {0}, and no request of Kafka's")]
    Foreign(&'static str),
    #[error("a frame of {size} bytes, where 1 to {max} are taken")]
    FrameSize { size: i32, max: usize },
    #[error("a request header that cannot be read: {0}")]
    Header(WireError),
    #[error("a request of {}, which is not served here", named(*.0))]
    UnknownApi(i16),
    #[error("a {api} request of version {version}, which is not served here")]
    UnknownVersion { api: ApiKey, version: i16 },
    #[error("a {api} request of version {version} that cannot be read: {source}")]
    Body { api: ApiKey, version: i16, source: WireError },
}

impl BadRequest {
    /// Why its connection is dropped.
    pub fn reason(&self) -> DropReason {
        match self {
            Self::Foreign(_) => DropReason::Foreign,
            Self::FrameSize { .. } => DropReason::FrameSize,
            Self::Header(_) => DropReason::Protocol(HEADER),
            Self::UnknownApi(_) => DropReason::Protocol(UNKNOWN_API),
            Self::UnknownVersion { .. } => DropReason::Protocol(UNKNOWN_VERSION),
            Self::Body { .. } => DropReason::Protocol(BODY),
        }
    }
}

/// The reasons for which connections are dropped beside those of every protocol.
pub(crate) const OWN_REASONS: [OwnReason; 5] =
    [HEADER, UNKNOWN_API, UNKNOWN_VERSION, BODY, REFUSED_UNANSWERED];

const HEADER: OwnReason = OwnReason::new("header", "it sent a request header that cannot be read");
const UNKNOWN_API: OwnReason =
    OwnReason::new("unknown_api", "it sent a request of an API that is not served");
const UNKNOWN_VERSION: OwnReason =
    OwnReason::new("unknown_version", "it sent a request of a version that is not served");
const BODY: OwnReason = OwnReason::new("body", "it sent a request that cannot be read");
/// A batch sent without waiting for an answer was refused; closing is the only way to say so.
pub(crate) const REFUSED_UNANSWERED: OwnReason =
    OwnReason::new("refused_unanswered", "a batch sent with acks=0 was refused");

fn named(key: i16) -> String {
    ApiKey::from_i16(key).map_or_else(|| format!("API {key}"), |api| format!("{api} ({key})"))
}

/// A connection's requests and answers, and their order.
#[derive(Debug)]
pub(crate) struct Requests {
    max_frame: usize,
    max_open: usize,
    opened: u64,
    /// Answers from the oldest open request on; outer `None` where there is none yet, inner where none is to be sent.
    answers: VecDeque<Option<Option<Encoded>>>,
}

impl Requests {
    /// A session that takes frames of up to `max_frame` bytes and holds up to `max_open` requests without an answer.
    pub fn new(max_frame: usize, max_open: usize) -> Self {
        Self { max_frame, max_open, opened: 0, answers: VecDeque::new() }
    }

    /// Requests without an answer, or whose answer was not taken out yet.
    pub fn open(&self) -> usize {
        self.answers.len()
    }

    /// Whether a request has been taken.
    pub fn has_begun(&self) -> bool {
        self.opened > 0
    }

    /// Whether no further request may be taken before one is answered.
    pub fn is_full(&self) -> bool {
        self.open() >= self.max_open
    }

    /// What stands at the front of the input.
    ///
    /// # Errors
    /// Bytes after which nothing can be told or answered: the connection is to be closed.
    pub fn next(&self, input: &[u8]) -> Result<Next, BadRequest> {
        self.look(input).map_err(|bad| self.known(bad, input))
    }

    /// Takes the request out of a frame.
    ///
    /// # Errors
    /// Bytes after which nothing can be told or answered: the connection is to be closed.
    pub fn take(&mut self, mut frame: Bytes) -> Result<Request, BadRequest> {
        let first = (!self.has_begun()).then(|| frame.clone());
        frame.advance(size_of::<i32>());
        let request = self.request(&frame);
        request.map_err(|bad| match first {
            Some(first) => self.known(bad, &first),
            None => bad,
        })
    }

    /// What a peer whose first bytes are no request seems to speak.
    fn known(&self, bad: BadRequest, first: &[u8]) -> BadRequest {
        let foreign = if self.has_begun() { None } else { looks_like(&first[..first.len().min(FIRST)]) };
        foreign.map_or(bad, BadRequest::Foreign)
    }

    fn look(&self, input: &[u8]) -> Result<Next, BadRequest> {
        let Some(length) = input.first_chunk::<4>() else { return Ok(Next::Need(4)) };
        let size = i32::from_be_bytes(*length);
        let length = usize::try_from(size).unwrap_or(0);
        if length == 0 || length > self.max_frame {
            return Err(BadRequest::FrameSize { size, max: self.max_frame });
        }
        if input.len() < 4 + length {
            return Ok(Next::Need(4 + length));
        }
        let produces = input[4..].starts_with(&(ApiKey::Produce as i16).to_be_bytes());
        Ok(Next::Frame { len: 4 + length, produces })
    }

    fn request(&mut self, frame: &Bytes) -> Result<Request, BadRequest> {
        let mut reader = Reader::new(frame);
        let header = RequestHeader::decode(&mut reader).map_err(BadRequest::Header)?;
        let served = header.api().filter(|api| coded_versions(*api).is_some());
        let api = served.ok_or(BadRequest::UnknownApi(header.api_key))?;
        let version = header.api_version;
        if !answers(api, version) {
            return Err(BadRequest::UnknownVersion { api, version });
        }
        let number = RequestNumber(self.opened);
        self.opened += 1;
        self.answers.push_back(None);
        Ok(Request { number, api, version, header, body: reader.rest() })
    }

    /// Gives a request's answer; `None` where the protocol sends none.
    pub fn answer(&mut self, number: RequestNumber, answer: Option<Encoded>) {
        let oldest = self.opened - self.answers.len() as u64;
        let place = number.0.checked_sub(oldest).and_then(|at| self.answers.get_mut(at as usize));
        let place = place.expect("a request is answered while it is open");
        debug_assert!(place.is_none(), "a request is answered once");
        *place = Some(answer);
    }

    /// The next answer to be sent, if its turn has come.
    pub fn pop(&mut self) -> Option<Encoded> {
        while let Some(Some(_)) = self.answers.front() {
            if let Some(Some(Some(answer))) = self.answers.pop_front() {
                return Some(answer);
            }
        }
        None
    }
}

/// Whether there is something to say to a request of this version: an unknown version of ApiVersions is answered with what
/// is known, and one that is only advertised with its error.
fn answers(api: ApiKey, version: i16) -> bool {
    let advertised = SUPPORTED.iter().any(|(key, min, max)| *key == api && (*min..=*max).contains(&version));
    advertised || api == ApiKey::ApiVersions
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::messages::api_versions::ApiVersionsRequest;
    use crate::wire::messages::heartbeat::HeartbeatRequest;
    use crate::wire::{Str, encode_request};

    fn session() -> Requests {
        Requests::new(1000, 4)
    }

    fn bytes(parts: &[&[u8]]) -> BytesMut {
        BytesMut::from(parts.concat().as_slice())
    }

    fn heartbeat(correlation: i32) -> Bytes {
        encode_request(0, correlation, Some(&Str::from_static("me")), &HeartbeatRequest::default()).to_bytes()
    }

    fn try_take(session: &mut Requests, input: &mut BytesMut) -> Result<Request, BadRequest> {
        match session.next(input)? {
            Next::Frame { len, .. } => session.take(input.split_to(len).freeze()),
            other => panic!("{other:?}"),
        }
    }

    fn take(session: &mut Requests, input: &mut BytesMut) -> Request {
        try_take(session, input).expect("a request")
    }

    fn answer(text: &'static [u8]) -> Option<Encoded> {
        let mut w = crate::wire::Writer::new();
        w.put(text);
        Some(w.finish())
    }

    #[test]
    fn golden_bytes_of_a_request() {
        let frame: &[u8] = b"\0\0\0\x0c\0\x12\0\0\0\0\0\x07\0\x02me";
        let mut input = bytes(&[frame, &frame[..7]]);
        let request = take(&mut session(), &mut input);
        assert_eq!((request.api, request.version), (ApiKey::ApiVersions, 0));
        assert_eq!(request.header.correlation_id, 7);
        assert_eq!(request.header.client_id, Some(Str::from_static("me")));
        assert!(request.body.is_empty());
        assert_eq!(input, &frame[..7]);
    }

    #[test]
    fn every_prefix_says_how_much_it_needs() {
        let frame = heartbeat(1);
        for len in 0..frame.len() {
            let need = if len < 4 { 4 } else { frame.len() };
            assert!(matches!(session().next(&frame[..len]), Ok(Next::Need(n)) if n == need), "{len}");
        }
    }

    #[test]
    fn sizes_are_checked_before_anything_is_kept() {
        for (size, prefix) in [
            (-1, [0xff; 4]),
            (0, [0; 4]),
            (i32::MIN, [0x80, 0, 0, 0]),
            (i32::MAX, [0x7f, 0xff, 0xff, 0xff]),
            (1001, 1001i32.to_be_bytes()),
        ] {
            let refused = session().next(&prefix).expect_err("refused");
            assert_eq!(refused, BadRequest::FrameSize { size, max: 1000 });
        }
        assert!(matches!(session().next(&1000i32.to_be_bytes()), Ok(Next::Need(1004))));
    }

    #[test]
    fn who_speaks_something_else_is_told_by_its_first_bytes() {
        let tls = b"\x16\x03\x01\x02\0\x01\0\x01\xfc".as_slice();
        assert_eq!(session().next(tls).expect_err("refused"), BadRequest::Foreign("TLS"));
        let mut openwire = bytes(&[b"\0\0\0\x20\x01ActiveMQ", &[0; 23]]);
        let named = BadRequest::Foreign("OpenWire (ActiveMQ)");
        assert_eq!(try_take(&mut session(), &mut openwire).expect_err("refused"), named);
        let mut later = session();
        take(&mut later, &mut BytesMut::from(&heartbeat(1)[..]));
        let size = BadRequest::FrameSize { size: 0x1603_0102, max: 1000 };
        assert_eq!(later.next(tls).expect_err("refused"), size);
    }

    #[test]
    fn a_connection_is_claimed_by_its_first_request() {
        let frame = heartbeat(1);
        for len in 0..frame.len() {
            assert_eq!(
                claims(&frame[..len], 1000),
                if len < 8 { Claim::Unsure } else { Claim::Mine },
                "{len}"
            );
        }
        for foreign in
            [b"AMQP\0\0\x09\x01".as_slice(), b"*1\r\n$4\r\n", b"GET / HT", b"\x16\x03\x01\x02\0\x01"]
        {
            assert_eq!(claims(foreign, 100 << 20), Claim::Foreign, "{foreign:?}");
        }
    }

    #[test]
    fn what_cannot_be_answered_is_refused_by_name() {
        let refused = |frame: &[u8]| {
            let length = (frame.len() as i32).to_be_bytes();
            try_take(&mut session(), &mut bytes(&[&length, frame])).expect_err("refused")
        };
        assert_eq!(refused(b"\0"), BadRequest::Header(WireError::Truncated));
        assert_eq!(refused(b"\0\x12\0\0\0\0\0\x07\0\x09me"), BadRequest::Header(WireError::BadLength(9)));
        assert_eq!(refused(b"\x03\xe7\0\0\0\0\0\x07\xff\xff"), BadRequest::UnknownApi(999));
        assert_eq!(BadRequest::UnknownApi(999).to_string(), "a request of API 999, which is not served here");
        let end = BadRequest::UnknownApi(ApiKey::EndTxn as i16).to_string();
        assert_eq!(end, "a request of EndTxn (26), which is not served here");
        assert_eq!(refused(b"\xff\xff\0\0\0\0\0\x07\xff\xff"), BadRequest::UnknownApi(-1));
        let unknown = BadRequest::UnknownVersion { api: ApiKey::Heartbeat, version: 99 };
        assert_eq!(refused(b"\0\x0c\0\x63\0\0\0\x07\xff\xff\0"), unknown);
        let old = BadRequest::UnknownVersion { api: ApiKey::Fetch, version: 3 };
        assert_eq!(refused(b"\0\x01\0\x03\0\0\0\x07\xff\xff"), old);
    }

    #[test]
    fn unknown_versions_of_api_versions_and_advertised_ones_of_produce_come_through() {
        let frame = b"\0\0\0\x0b\0\x12\0\x63\0\0\0\x07\xff\xff\0".as_slice();
        assert_eq!(take(&mut session(), &mut bytes(&[frame])).version, 99);
        let produce = b"\0\0\0\x0a\0\0\0\0\0\0\0\x07\xff\xff".as_slice();
        assert_eq!(take(&mut session(), &mut bytes(&[produce])).version, 0);
    }

    #[test]
    fn answers_leave_in_the_order_of_requests() {
        let mut session = session();
        let mut input = bytes(&[&heartbeat(1), &heartbeat(2), &heartbeat(3), &heartbeat(4)]);
        let slots: Vec<_> = (0..4).map(|_| take(&mut session, &mut input).number).collect();
        assert!(session.is_full() && input.is_empty());
        session.answer(slots[2], answer(b"three"));
        session.answer(slots[1], None);
        assert!(session.pop().is_none());
        session.answer(slots[0], answer(b"one"));
        assert_eq!(session.pop().map(|a| a.to_bytes()), Some(Bytes::from_static(b"one")));
        assert_eq!(session.pop().map(|a| a.to_bytes()), Some(Bytes::from_static(b"three")));
        assert!(session.pop().is_none());
        assert_eq!((session.open(), session.is_full()), (1, false));
    }

    #[test]
    fn flexible_headers_are_taken_off() {
        let request = ApiVersionsRequest { client_software_name: "x".into(), ..Default::default() };
        let frame = encode_request(3, 9, None, &request).to_bytes();
        let taken = take(&mut session(), &mut BytesMut::from(frame));
        let decoded = ApiVersionsRequest::decode(&mut Reader::new(&taken.body), 3).expect("readable");
        assert_eq!(decoded, request);
    }
}
