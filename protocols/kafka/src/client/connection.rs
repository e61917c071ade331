//! One connection: requests are written as they come and answered in their order.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use sabir_frontend::client::{Dialer, Socket};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::error::Error;
use super::versions::Versions;
use crate::wire::messages::api_versions::ApiVersionsRequest;
use crate::wire::{
    Encoded, ErrorCode, Reader, RequestMessage, ResponseHeader, Str, decode_response, encode_request,
};

/// Decoded arrays of one answer take no more than this.
const DECODE_LIMIT: usize = 1 << 30;
/// An answer longer than this is taken for garbage.
const FRAME_LIMIT: usize = 1 << 30;
const READ_AT_LEAST: usize = 64 << 10;

/// How to connect and how long to wait.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// What the client calls itself.
    pub client_id: Str,
    /// For the TCP connection and the exchange of versions.
    pub connect_timeout: Duration,
    /// For the answer to any request, beside what the request itself may wait for; and for errors that pass by themselves.
    pub request_timeout: Duration,
    /// Highest versions to use, for tests of older ones.
    pub version_caps: Vec<(crate::wire::ApiKey, i16)>,
    /// What makes the connections.
    pub dialer: Dialer,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            client_id: Str::from_static("sabir"),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            version_caps: Vec::new(),
            dialer: Dialer::default(),
        }
    }
}

/// What is to be done with an answer's frame. Runs on the connection's reader; must not block.
pub(crate) type Done = Box<dyn FnOnce(Result<Bytes, Error>) + Send>;

/// A connection to one broker. Dropping it closes it.
#[derive(Debug)]
pub struct BrokerConnection {
    shared: Arc<Shared>,
    versions: Versions,
    options: ConnectOptions,
    tasks: [AbortHandle; 2],
}

struct Shared {
    address: String,
    socket: Socket,
    out: Mutex<Out>,
    /// Something waits to be written that the socket did not take at once.
    unwritten: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("address", &self.address).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Out {
    queue: VecDeque<Unwritten>,
    /// Requests without an answer, in order.
    pending: VecDeque<Pending>,
    next_correlation: i32,
    closed: Option<Arc<str>>,
}

struct Unwritten {
    frame: Encoded,
    /// For a request that is never answered.
    written: Option<Done>,
}

struct Pending {
    correlation: i32,
    done: Done,
}

/// What becomes of a request that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// Its callback will be called.
    CalledBack,
    /// It expects no answer and is with the system already: its callback was dropped.
    Written,
}

impl BrokerConnection {
    /// Connects and agrees on versions.
    ///
    /// # Errors
    /// No server answers at `address`, or what answers does not speak Kafka's protocol.
    pub async fn open(address: &str, options: ConnectOptions) -> Result<Self, Error> {
        let within = options.connect_timeout;
        let late = |what| Error::Timeout { what, after: within };
        let connected =
            timeout(within, options.dialer.connect(address)).await.map_err(|_| late("connect"))?;
        let failed = |source| Error::Connect { address: address.to_owned(), source: Arc::new(source) };
        let socket = connected.map_err(failed)?;
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            socket,
            out: Mutex::default(),
            unwritten: Notify::new(),
        });
        let tasks = [
            tokio::spawn(read_answers(shared.clone())).abort_handle(),
            tokio::spawn(write_rest(shared.clone())).abort_handle(),
        ];
        let mut connection = Self { shared, versions: Versions::unknown(), options, tasks };
        let agreed = timeout(within, connection.agree()).await.map_err(|_| late("ApiVersions"))?;
        connection.versions = agreed?;
        Ok(connection)
    }

    /// Asks for the broker's versions in the newest form; an older broker says so in the oldest.
    async fn agree(&self) -> Result<Versions, Error> {
        let api = ApiVersionsRequest::KEY;
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("sabir"),
            client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
        };
        let newest = self.versions.capped::<ApiVersionsRequest>(&self.options.version_caps);
        let frame = self.exchange(newest, &request).await?;
        let mut r = Reader::new(&frame);
        let code = ResponseHeader::decode(&mut r, api, newest).and_then(|_| r.i16());
        let wire = |source| Error::Wire { api, source };
        let version = if code.map_err(wire)? == ErrorCode::UnsupportedVersion.code() { 0 } else { newest };
        let frame = if version == newest { frame } else { self.exchange(0, &request).await? };
        let decoded = decode_response::<ApiVersionsRequest>(&frame, version, DECODE_LIMIT);
        let (_, response) = decoded.map_err(wire)?;
        Error::check(api, response.error_code, String::new)?;
        Ok(Versions::new(&response, &self.options.version_caps))
    }

    /// The other end, as it was connected to.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// What the broker speaks.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.out.lock().closed.is_some()
    }

    /// Ends it; whatever waits for an answer fails.
    pub fn close(&self, reason: &str) {
        self.shared.close(reason);
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// No common version, a broken connection, no answer in time. An error code in the answer is for the caller to see.
    pub async fn call<R: RequestMessage>(&self, request: &R) -> Result<R::Response, Error> {
        self.call_waiting(request, Duration::ZERO).await
    }

    /// [`call`](Self::call) for a request that the broker may sit on for `wait`.
    ///
    /// # Errors
    /// Those of [`call`](Self::call).
    pub async fn call_waiting<R: RequestMessage>(
        &self,
        request: &R,
        wait: Duration,
    ) -> Result<R::Response, Error> {
        let version = self.versions.of::<R>()?;
        let after = self.options.request_timeout + wait;
        let late = |_| Error::Timeout { what: R::KEY.name(), after };
        let frame = timeout(after, self.exchange(version, request)).await.map_err(late)??;
        self.decode::<R>(&frame, version)
    }

    /// Takes an answer's frame apart.
    pub(crate) fn decode<R: RequestMessage>(
        &self,
        frame: &Bytes,
        version: i16,
    ) -> Result<R::Response, Error> {
        let decoded = decode_response::<R>(frame, version, DECODE_LIMIT);
        decoded.map(|(_, response)| response).map_err(|source| Error::Wire { api: R::KEY, source })
    }

    async fn exchange<R: RequestMessage>(&self, version: i16, request: &R) -> Result<Bytes, Error> {
        let (sender, receiver) = oneshot::channel();
        let done: Done = Box::new(move |frame| drop(sender.send(frame)));
        self.send(version, request, done, true)?;
        receiver.await.unwrap_or_else(|_| Err(self.shared.error("the connection was dropped")))
    }

    /// Sends a request; `done` gets the answer's frame, or is called once the request is written if it has none.
    pub(crate) fn send<R: RequestMessage>(
        &self,
        version: i16,
        request: &R,
        done: Done,
        answered: bool,
    ) -> Result<Handed, Error> {
        let mut out = self.shared.out.lock();
        if let Some(reason) = &out.closed {
            return Err(self.shared.error(reason));
        }
        let correlation = out.next_correlation;
        out.next_correlation = correlation.wrapping_add(1);
        let frame = encode_request(version, correlation, Some(&self.options.client_id), request);
        let written = if answered {
            out.pending.push_back(Pending { correlation, done });
            None
        } else {
            Some(done)
        };
        out.queue.push_back(Unwritten { frame, written });
        // An error is met again, and dealt with, by the task that writes the rest.
        if out.queue.len() == 1 && matches!(self.shared.write_some(&mut out, &mut Vec::new()), Ok(true)) {
            return Ok(if answered { Handed::CalledBack } else { Handed::Written });
        }
        self.shared.unwritten.notify_one();
        Ok(Handed::CalledBack)
    }
}

impl Drop for BrokerConnection {
    fn drop(&mut self) {
        self.shared.close("dropped");
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Shared {
    fn error(&self, reason: &str) -> Error {
        Error::Closed { address: self.address.clone(), reason: reason.into() }
    }

    /// Fails what waits. Callbacks run without the lock.
    fn close(&self, reason: &str) {
        let waiting: Vec<Done> = {
            let mut out = self.out.lock();
            out.closed.get_or_insert_with(|| reason.into());
            let unwritten: Vec<_> = out.queue.drain(..).filter_map(|u| u.written).collect();
            out.pending.drain(..).map(|p| p.done).chain(unwritten).collect()
        };
        let error = self.error(reason);
        waiting.into_iter().for_each(|done| done(Err(error.clone())));
    }

    /// Writes as much as the socket takes and says whether that was all.
    fn write_some(&self, out: &mut Out, written: &mut Vec<Done>) -> io::Result<bool> {
        while let Some(front) = out.queue.front_mut() {
            let mut slices = [IoSlice::new(&[]); 64];
            let count = front.frame.chunks_vectored(&mut slices);
            match self.socket.try_write_vectored(&slices[..count]) {
                Ok(n) => front.frame.advance(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
            if !front.frame.has_remaining() {
                written.extend(out.queue.pop_front().and_then(|u| u.written));
            }
        }
        Ok(true)
    }

    /// Hands an answer to the oldest request.
    fn answer(&self, frame: Bytes) -> Result<(), String> {
        let correlation = frame.first_chunk().map(|id| i32::from_be_bytes(*id));
        let pending = self.out.lock().pending.pop_front();
        let Some(pending) = pending else { return Err("an answer that nobody asked for".into()) };
        if correlation != Some(pending.correlation) {
            (pending.done)(Err(self.error("answers came out of order")));
            return Err(format!("an answer to {correlation:?} where {} was due", pending.correlation));
        }
        (pending.done)(Ok(frame));
        Ok(())
    }
}

/// Writes what the socket did not take at once.
async fn write_rest(shared: Arc<Shared>) {
    loop {
        shared.unwritten.notified().await;
        if let Err(e) = write_all(&shared).await {
            return shared.close(&e.to_string());
        }
    }
}

async fn write_all(shared: &Shared) -> io::Result<()> {
    loop {
        shared.socket.writable().await?;
        let mut written = Vec::new();
        let all = shared.write_some(&mut shared.out.lock(), &mut written);
        written.into_iter().for_each(|done| done(Ok(Bytes::new())));
        if all? {
            return Ok(());
        }
    }
}

async fn read_answers(shared: Arc<Shared>) {
    let reason = match read_until_closed(&shared).await {
        Ok(()) => "the broker closed it".to_owned(),
        Err(reason) => reason,
    };
    tracing::debug!(address = shared.address, reason, "connection ended");
    shared.close(&reason);
}

async fn read_until_closed(shared: &Shared) -> Result<(), String> {
    let mut buffer = BytesMut::new();
    loop {
        let missing = loop {
            match next_frame(&mut buffer)? {
                Ok(frame) => shared.answer(frame)?,
                Err(missing) => break missing,
            }
        };
        buffer.reserve(missing.max(READ_AT_LEAST));
        shared.socket.readable().await.map_err(|e| e.to_string())?;
        match shared.socket.try_read_buf(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e.to_string()),
        }
    }
}

/// The next whole frame without its length, or how many bytes it still wants.
fn next_frame(buffer: &mut BytesMut) -> Result<Result<Bytes, usize>, String> {
    let Some(length) = buffer.first_chunk().map(|length| i32::from_be_bytes(*length)) else {
        return Ok(Err(4 - buffer.len()));
    };
    let length = usize::try_from(length).ok().filter(|&length| length <= FRAME_LIMIT);
    let Some(length) = length else { return Err("it sends what is not Kafka's protocol".into()) };
    if buffer.len() < 4 + length {
        return Ok(Err(4 + length - buffer.len()));
    }
    buffer.advance(4);
    Ok(Ok(buffer.split_to(length).freeze()))
}
