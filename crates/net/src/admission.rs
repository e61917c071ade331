//! Which connections are taken: they are counted, by listener and in all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Connections of all listeners.
#[derive(Debug)]
pub(crate) struct NodeLimit {
    open: AtomicUsize,
    max: usize,
}

/// Connections of one listener.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) name: &'static str,
    node_limit: Arc<NodeLimit>,
    open: AtomicUsize,
    max: usize,
    accepted: AtomicU64,
    refused: AtomicU64,
    panicked: AtomicU64,
    tls_failed: AtomicU64,
}

/// A listener's counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerStats {
    /// The front end's name.
    pub name: &'static str,
    /// Connections open now.
    pub open: usize,
    /// Connections taken.
    pub accepted: u64,
    /// Connections closed at once because a limit was reached.
    pub refused: u64,
    /// Connections that ended by a panic while they were served.
    pub panicked: u64,
    /// Connections whose TLS handshake failed, or took too long.
    pub tls_failed: u64,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The listener has as many as it may have.
    Listener(usize),
    /// All listeners together have.
    Node(usize),
}

/// A place for one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    /// Connections of the I/O thread it was dealt to.
    thread: Arc<AtomicUsize>,
}

impl NodeLimit {
    pub(crate) fn new(max: usize) -> Self {
        Self { open: AtomicUsize::new(0), max }
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

impl Admission {
    pub(crate) fn new(name: &'static str, node_limit: Arc<NodeLimit>, max: usize) -> Self {
        let (accepted, refused, panicked, tls_failed) = Default::default();
        Self { name, node_limit, open: AtomicUsize::new(0), max, accepted, refused, panicked, tls_failed }
    }

    /// Takes a place for a connection on the I/O thread that counts in `thread`.
    pub(crate) fn enter(self: &Arc<Self>, thread: &Arc<AtomicUsize>) -> Result<Permit, Full> {
        if !take_place(&self.open, self.max) {
            self.refused.fetch_add(1, Relaxed);
            return Err(Full::Listener(self.max));
        }
        if !take_place(&self.node_limit.open, self.node_limit.max) {
            self.open.fetch_sub(1, Relaxed);
            self.refused.fetch_add(1, Relaxed);
            return Err(Full::Node(self.node_limit.max));
        }
        self.accepted.fetch_add(1, Relaxed);
        thread.fetch_add(1, Relaxed);
        Ok(Permit { admission: self.clone(), thread: thread.clone() })
    }

    pub(crate) fn stats(&self) -> ListenerStats {
        ListenerStats {
            name: self.name,
            open: self.open.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            panicked: self.panicked.load(Relaxed),
            tls_failed: self.tls_failed.load(Relaxed),
        }
    }
}

fn take_place(open: &AtomicUsize, max: usize) -> bool {
    open.fetch_update(Relaxed, Relaxed, |n| (n < max).then_some(n + 1)).is_ok()
}

impl Permit {
    /// Counts that its connection ended by a panic.
    pub(crate) fn panicked(&self) {
        self.admission.panicked.fetch_add(1, Relaxed);
    }

    /// The name of its listener.
    pub(crate) fn listener(&self) -> &'static str {
        self.admission.name
    }

    /// Counts that there was no TLS with it.
    pub(crate) fn tls_failed(&self) {
        self.admission.tls_failed.fetch_add(1, Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Relaxed);
        self.admission.node_limit.open.fetch_sub(1, Relaxed);
        self.thread.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_places_come_back() {
        let node_limit = Arc::new(NodeLimit::new(3));
        let small = Arc::new(Admission::new("small", node_limit.clone(), 1));
        let wide = Arc::new(Admission::new("wide", node_limit.clone(), 9));
        let thread = Arc::new(AtomicUsize::new(0));
        let first = small.enter(&thread).expect("empty");
        assert_eq!(small.enter(&thread).err(), Some(Full::Listener(1)));
        let _second = wide.enter(&thread).expect("room");
        let _third = wide.enter(&thread).expect("room");
        assert_eq!(wide.enter(&thread).err(), Some(Full::Node(3)));
        assert_eq!((node_limit.open(), thread.load(Relaxed)), (3, 3));
        drop(first);
        assert_eq!((node_limit.open(), thread.load(Relaxed)), (2, 2));
        assert_eq!(
            small.stats(),
            ListenerStats { name: "small", open: 0, accepted: 1, refused: 1, panicked: 0, tls_failed: 0 }
        );
        assert!(wide.enter(&thread).is_ok());
    }
}
