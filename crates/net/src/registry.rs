//! The node's open connections: listed, closed by an operator, and found by what their clients call themselves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use sabir_base::wake::{ThreadSlot, WakeBatch, current_slot};
use sabir_broker::Reply;
use sabir_broker::push::{Ask, AskFailure, PushSeat};
use tokio_util::sync::CancellationToken;

use crate::driver::DropReason;

/// Bytes of a name that are kept to be shown.
const SHOWN_NAME: usize = 256;
/// Rates are of so long at least.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// A connection's number. No other one has it in the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Under which a client is known where one name has one connection: MQTT's client identifier, JMS' client id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// The front end's name.
    pub front_end: &'static str,
    /// The namespace that the name is of.
    pub namespace: Box<str>,
    /// The name.
    pub client: Box<str>,
}

/// An open connection, as an operator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionView {
    /// Its number.
    pub id: ConnectionId,
    /// The front end that serves it; empty while its first bytes have not told.
    pub protocol: &'static str,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// When it was accepted.
    pub since: SystemTime,
    /// What the client calls itself; empty if it has not. The first 256 bytes of it.
    pub client: String,
    /// The user as which it logged in; empty if it has not. The first 256 bytes of it.
    pub user: String,
    /// Bytes that came from the client.
    pub received: u64,
    /// Bytes that were sent to the client.
    pub sent: u64,
    /// Bytes a second from the client: since the last look at the list that is five seconds old or older.
    pub receive_rate: f64,
    /// The same to the client.
    pub send_rate: f64,
}

/// What both sides of a connection have moved, and at what rate.
#[derive(Debug, Clone, Copy)]
struct Rates {
    at: Instant,
    received: u64,
    sent: u64,
    receive_rate: f64,
    send_rate: f64,
}

impl Rates {
    fn beginning(at: Instant) -> Self {
        Self { at, received: 0, sent: 0, receive_rate: 0.0, send_rate: 0.0 }
    }

    /// Reckons anew with what has moved up to `now`, unless it is too soon for that.
    fn note(&mut self, now: Instant, received: u64, sent: u64) {
        let seconds = now.saturating_duration_since(self.at);
        if seconds < RATE_WINDOW {
            return;
        }
        let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds.as_secs_f64();
        let (receive_rate, send_rate) = (rate(received, self.received), rate(sent, self.sent));
        *self = Self { at: now, received, sent, receive_rate, send_rate };
    }
}

/// What a client has said of itself.
#[derive(Debug, Default)]
struct Identity {
    client: Box<str>,
    user: Box<str>,
}

/// A connection that is open, or was: the holder of this may outlive it.
pub struct OpenConnection {
    id: ConnectionId,
    protocol: OnceLock<&'static str>,
    peer: SocketAddr,
    local: SocketAddr,
    since: SystemTime,
    identity: Mutex<Identity>,
    received: AtomicU64,
    sent: AtomicU64,
    rates: Mutex<Rates>,
    closer: Mutex<Closer>,
    /// Whether it is to be closed, to be looked at without the lock.
    closing: AtomicBool,
    name: Mutex<HeldName>,
    seat: OnceLock<PushSeat>,
    ended: CancellationToken,
}

/// The name that a connection has, which only one may have.
#[derive(Default)]
enum HeldName {
    #[default]
    None,
    Key(ClientKey),
    /// It has left: it is given no name any more, since nothing would take that back.
    Left,
}

/// How a connection hears that it is to be closed.
#[derive(Default)]
struct Closer {
    why: Option<DropReason>,
    task: Option<(ThreadSlot, Waker)>,
}

impl std::fmt::Debug for OpenConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenConnection")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl OpenConnection {
    fn new(id: ConnectionId, peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            id,
            protocol: OnceLock::new(),
            peer,
            local,
            since: SystemTime::now(),
            identity: Mutex::default(),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            rates: Mutex::new(Rates::beginning(Instant::now())),
            closer: Mutex::default(),
            closing: AtomicBool::default(),
            name: Mutex::default(),
            seat: OnceLock::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Its number.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Takes what the client calls itself, for operators who look at the list.
    pub fn introduce(&self, client: &str) {
        self.identity.lock().client = beginning(client);
    }

    /// Takes the user as which the client has logged in, for operators who look at the list.
    pub fn log_in(&self, user: &str) {
        self.identity.lock().user = beginning(user);
    }

    /// Has the connection closed, in the way that its protocol takes leave. The first reason counts; one that has ended is left alone.
    pub fn close(&self, why: DropReason) {
        let task = {
            let mut closer = self.closer.lock();
            closer.why.get_or_insert(why);
            self.closing.store(true, SeqCst);
            closer.task.clone()
        };
        if let Some((slot, waker)) = task {
            let mut wakes = WakeBatch::default();
            wakes.add(slot, waker);
            wakes.deliver();
        }
    }

    /// Lets others reach its client by its session's outbox; said once, where the session [opens](crate::Session::opened).
    pub fn reach_by(&self, seat: PushSeat) {
        // A second one would be the same.
        let _ = self.seat.set(seat);
    }

    /// Its session's outbox, if that takes pushes.
    pub fn seat(&self) -> Option<&PushSeat> {
        self.seat.get()
    }

    /// Asks its client something, in the form of its protocol. How long the answer is waited for is the caller's to decide.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn ask(&self, payload: Bytes) -> Result<Reply<Result<Bytes, AskFailure>>, AskFailure> {
        Ask::send(self.seat.get().ok_or(AskFailure::Unsupported)?, payload)
    }

    /// Whether it is to be closed.
    pub fn is_closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    /// How it is now.
    pub fn view(&self) -> ConnectionView {
        self.view_at(Instant::now())
    }

    /// Waits until the connection's session is gone. Its socket may be there for a moment, so that the client reads why.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub(crate) fn serve(&self, protocol: &'static str) {
        // Only the task that serves it says so, once.
        let _ = self.protocol.set(protocol);
    }

    /// Has the calling task woken when the connection is to be closed.
    pub(crate) fn attend(&self, waker: &Waker) {
        self.closer.lock().task = Some((current_slot(), waker.clone()));
    }

    /// Why it is to be closed, if it is.
    #[inline]
    pub(crate) fn close_wanted(&self) -> Option<DropReason> {
        if self.is_closing() { self.closer.lock().why } else { None }
    }

    #[inline]
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    #[inline]
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    fn view_at(&self, now: Instant) -> ConnectionView {
        let (received, sent) = (self.received.load(Relaxed), self.sent.load(Relaxed));
        let rates = {
            let mut rates = self.rates.lock();
            rates.note(now, received, sent);
            *rates
        };
        let identity = self.identity.lock();
        ConnectionView {
            id: self.id,
            protocol: self.protocol.get().copied().unwrap_or_default(),
            peer: self.peer,
            local: self.local,
            since: self.since,
            client: identity.client.to_string(),
            user: identity.user.to_string(),
            received,
            sent,
            receive_rate: rates.receive_rate,
            send_rate: rates.send_rate,
        }
    }
}

/// The part of a name that is shown.
fn beginning(name: &str) -> Box<str> {
    name[..name.floor_char_boundary(SHOWN_NAME)].into()
}

/// The node's open connections. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: AtomicU64,
    open: Mutex<HashMap<ConnectionId, Arc<OpenConnection>>>,
    holders: Mutex<HashMap<ClientKey, ConnectionId>>,
}

impl Registry {
    /// Enters a connection that was accepted; it stands here until what is given back is dropped.
    pub fn enter(&self, peer: SocketAddr, local: SocketAddr) -> Registered {
        let id = ConnectionId(self.inner.next.fetch_add(1, Relaxed) + 1);
        let connection = Arc::new(OpenConnection::new(id, peer, local));
        self.inner.open.lock().insert(id, connection.clone());
        Registered { registry: self.clone(), connection }
    }

    /// Every open connection, in no order.
    pub fn list(&self) -> Vec<ConnectionView> {
        let all: Vec<_> = self.inner.open.lock().values().cloned().collect();
        let now = Instant::now();
        all.iter().map(|connection| connection.view_at(now)).collect()
    }

    /// An open connection.
    pub fn get(&self, id: ConnectionId) -> Option<Arc<OpenConnection>> {
        self.inner.open.lock().get(&id).cloned()
    }

    /// Gives a connection a name that only one may have, and gives back the one that had it. The session has that one closed
    /// ([`DropReason::TakenOver`]) and waits for its [end](OpenConnection::ended) before it goes on with what the name stands for. One that has
    /// ended itself is given none.
    pub fn take_over(&self, key: ClientKey, by: &OpenConnection) -> Option<Arc<OpenConnection>> {
        let former = {
            // In this order, as where a connection leaves.
            let mut holders = self.inner.holders.lock();
            let mut name = by.name.lock();
            if matches!(*name, HeldName::Left) {
                return None;
            }
            if let HeldName::Key(other) = std::mem::replace(&mut *name, HeldName::Key(key.clone()))
                && other != key
                && holders.get(&other) == Some(&by.id)
            {
                holders.remove(&other);
            }
            holders.insert(key, by.id)
        };
        former.filter(|id| *id != by.id).and_then(|id| self.get(id))
    }

    /// The connection that has a name.
    pub fn holder(&self, key: &ClientKey) -> Option<Arc<OpenConnection>> {
        let holder = self.inner.holders.lock().get(key).copied();
        holder.and_then(|id| self.get(id))
    }

    fn leave(&self, connection: &OpenConnection) {
        {
            let mut holders = self.inner.holders.lock();
            if let HeldName::Key(key) = std::mem::replace(&mut *connection.name.lock(), HeldName::Left)
                && holders.get(&key) == Some(&connection.id)
            {
                holders.remove(&key);
            }
        }
        self.inner.open.lock().remove(&connection.id);
        connection.ended.cancel();
    }
}

/// A connection's place in the registry, given back when dropped.
#[derive(Debug)]
pub struct Registered {
    registry: Registry,
    connection: Arc<OpenConnection>,
}

impl Registered {
    /// What may be kept of the connection by others.
    pub fn shared(&self) -> Arc<OpenConnection> {
        self.connection.clone()
    }

    /// Is none of the open connections any more, and has no name.
    pub(crate) fn leave(&self) {
        self.registry.leave(&self.connection);
    }

    /// See [`Registry::take_over`].
    pub fn take_over(&self, key: ClientKey) -> Option<Arc<OpenConnection>> {
        self.registry.take_over(key, &self.connection)
    }
}

impl std::ops::Deref for Registered {
    type Target = OpenConnection;

    fn deref(&self) -> &OpenConnection {
        &self.connection
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.leave(&self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn key(client: &str) -> ClientKey {
        ClientKey { front_end: "probe", namespace: "".into(), client: client.into() }
    }

    #[test]
    fn a_connection_is_listed_for_as_long_as_it_is_open() {
        let registry = Registry::default();
        let (one, other) = (registry.enter(address(1), address(9)), registry.enter(address(2), address(9)));
        one.serve("probe");
        one.introduce(&"ä".repeat(200));
        one.received(7);
        let mut listed = registry.list();
        listed.sort_by_key(|view| view.id);
        assert_eq!((listed.len(), listed[0].protocol, listed[1].protocol), (2, "probe", ""));
        assert_eq!((listed[0].client.len(), listed[0].received), (256, 7));
        let kept = registry.get(other.id()).unwrap();
        drop(other);
        assert_eq!(registry.list().len(), 1);
        assert!(registry.get(kept.id()).is_none() && kept.ended.is_cancelled());
    }

    #[test]
    fn rates_are_of_five_seconds_at_least() {
        let began = Instant::now();
        let mut rates = Rates::beginning(began);
        rates.note(began + Duration::from_secs(1), 500, 50);
        assert_eq!((rates.receive_rate, rates.send_rate), (0.0, 0.0));
        rates.note(began + Duration::from_secs(10), 1000, 50);
        assert_eq!((rates.receive_rate, rates.send_rate), (100.0, 5.0));
        rates.note(began + Duration::from_secs(12), 9000, 50);
        assert_eq!(rates.receive_rate, 100.0);
        rates.note(began + Duration::from_secs(20), 1000, 50);
        assert_eq!((rates.receive_rate, rates.send_rate), (0.0, 0.0));
    }

    #[test]
    fn a_name_has_one_holder_and_the_former_one_is_told() {
        let registry = Registry::default();
        let (old, new) = (registry.enter(address(1), address(9)), registry.enter(address(2), address(9)));
        assert!(old.take_over(key("a")).is_none());
        assert!(old.take_over(key("a")).is_none(), "its own");
        let former = new.take_over(key("a")).unwrap();
        assert_eq!(former.id(), old.id());
        former.close(DropReason::TakenOver);
        former.close(DropReason::Operator);
        assert_eq!(old.close_wanted(), Some(DropReason::TakenOver));
        drop(old);
        assert_eq!(
            registry.holder(&key("a")).unwrap().id(),
            new.id(),
            "the former one's end changes nothing"
        );
        assert!(new.take_over(key("b")).is_none());
        assert!(registry.holder(&key("a")).is_none(), "one name at a time");
        let kept = registry.get(new.id()).unwrap();
        drop(new);
        assert!(registry.holder(&key("b")).is_none());
        assert!(registry.take_over(key("b"), &kept).is_none());
        assert!(registry.inner.holders.lock().is_empty(), "who has left is given no name");
    }
}
