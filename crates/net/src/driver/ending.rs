//! How connections end, and what is counted of them.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_base::metrics::Exposition;
use sabir_base::throttle::LogBudget;

use super::deadlines::Overdue;
use super::input::NoMemory;

/// Why the broker closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// It speaks something else.
    Foreign,
    /// It announced a frame of a size that is not taken.
    FrameSize,
    /// It did not introduce itself in time.
    Handshake,
    /// A frame took too long to arrive, or came too slowly while others lacked the memory that it kept.
    SlowWriter,
    /// It did not read what was sent to it.
    SlowReader,
    /// Nothing was asked for too long.
    Idle,
    /// Nothing at all came from it for longer than was agreed.
    Silent,
    /// It no longer answers the system's questions whether it is there.
    Vanished,
    /// No memory was left for its incomplete frame, for what it asks for, or for what it does not read.
    Memory,
    /// An operator closed it.
    Operator,
    /// Another connection has taken over its client's name.
    TakenOver,
    /// One of the protocol's own.
    Protocol(OwnReason),
}

/// A reason that one protocol has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnReason {
    label: &'static str,
    says: &'static str,
}

impl OwnReason {
    /// A reason with its name in metrics, and what the log says of it: goes on after "connection closed: ".
    pub const fn new(label: &'static str, says: &'static str) -> Self {
        Self { label, says }
    }
}

/// The reasons that every protocol has.
const COMMON: [DropReason; 11] = [
    DropReason::Foreign,
    DropReason::FrameSize,
    DropReason::Handshake,
    DropReason::SlowWriter,
    DropReason::SlowReader,
    DropReason::Idle,
    DropReason::Silent,
    DropReason::Vanished,
    DropReason::Memory,
    DropReason::Operator,
    DropReason::TakenOver,
];

impl DropReason {
    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::FrameSize => "frame_size",
            Self::Handshake => "handshake",
            Self::SlowWriter => "slow_writer",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Silent => "silent",
            Self::Vanished => "vanished",
            Self::Memory => "memory",
            Self::Operator => "operator",
            Self::TakenOver => "taken_over",
            Self::Protocol(own) => own.label,
        }
    }

    /// What the log says of it, where there is no more to say.
    fn says(self) -> &'static str {
        match self {
            Self::Foreign => "it speaks another protocol",
            Self::FrameSize => "it sent a frame of a size that is not taken",
            Self::Handshake => "it did not introduce itself in time (net.handshake_timeout)",
            Self::SlowWriter => {
                "a frame took too long to arrive (net.frame_timeout), or for others that lacked the memory it kept (net.frame_memory)"
            }
            Self::SlowReader => "what was sent to it was not read in time (net.write_timeout)",
            Self::Idle => "no request for too long (net.idle_timeout)",
            Self::Silent => "nothing came from it for longer than was agreed",
            Self::Vanished => "it vanished without a word (net.keepalive)",
            Self::Memory => {
                "no memory is left for its incomplete frame, for what it asks for, or for what it does not read \
                 (net.frame_memory)"
            }
            Self::Operator => "an operator asked for it (/sabir/v1/connections)",
            Self::TakenOver => "its client's name is another connection's now",
            Self::Protocol(own) => own.says,
        }
    }
}

/// How a connection ends.
#[derive(Debug)]
pub enum Ending {
    /// The client went.
    Gone,
    /// The node drains.
    Drained,
    /// The socket failed.
    Broken(io::Error),
    /// The broker has had enough of it.
    Dropped {
        /// Why, for the counters.
        reason: DropReason,
        /// Why, for the log: goes on after "connection closed: ".
        says: Cow<'static, str>,
    },
}

impl Ending {
    /// A connection dropped, with what the log says of it.
    pub fn dropped(reason: DropReason, says: impl Into<Cow<'static, str>>) -> Self {
        Self::Dropped { reason, says: says.into() }
    }

    /// Whether there is a client that would read of it.
    pub(super) fn can_be_told(&self) -> bool {
        match self {
            Self::Gone | Self::Broken(_) => false,
            Self::Drained => true,
            Self::Dropped { reason, .. } => !matches!(reason, DropReason::Vanished | DropReason::SlowReader),
        }
    }

    /// Whether another connection waits for it, whose client has mostly lost this one.
    pub(super) fn is_pressing(&self) -> bool {
        matches!(self, Self::Dropped { reason: DropReason::TakenOver, .. })
    }
}

impl From<DropReason> for Ending {
    fn from(reason: DropReason) -> Self {
        Self::dropped(reason, reason.says())
    }
}

impl From<io::Error> for Ending {
    /// The system says so where a peer answers nothing any more, not even that it is there.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => DropReason::Vanished.into(),
            _ => Self::Broken(error),
        }
    }
}

impl From<NoMemory> for Ending {
    fn from(NoMemory: NoMemory) -> Self {
        DropReason::Memory.into()
    }
}

impl From<Overdue> for Ending {
    fn from(overdue: Overdue) -> Self {
        match overdue {
            Overdue::Dropped(reason) => reason.into(),
            Overdue::Gone => Self::Gone,
            Overdue::Answer => Self::Drained,
        }
    }
}

/// How many lines about one reason the log is given in [`WINDOW`].
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Drops {
    label: &'static str,
    count: u64,
    lines: LogBudget,
}

impl Drops {
    fn of(reason: DropReason) -> Self {
        Self { label: reason.label(), count: 0, lines: LogBudget::new(LINES, WINDOW) }
    }
}

/// What is counted of a front end's connections, since the start.
#[derive(Debug)]
pub struct ConnectionCounters {
    protocol: &'static str,
    /// Those that are known from the start, and whatever else has occurred.
    drops: Mutex<Vec<Drops>>,
    received: AtomicU64,
    sent: AtomicU64,
}

impl ConnectionCounters {
    /// Counters of a protocol's connections, which it drops for the common reasons and for its `own`.
    pub fn new(protocol: &'static str, own: &[OwnReason]) -> Self {
        let own = own.iter().copied().map(DropReason::Protocol);
        let drops = Mutex::new(COMMON.into_iter().chain(own).map(Drops::of).collect());
        Self { protocol, drops, received: AtomicU64::default(), sent: AtomicU64::default() }
    }

    /// Counts bytes read off sockets.
    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes written to sockets.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts a connection that the broker closed. Where the log is to name it, gives how many before it were not named.
    pub(super) fn dropped(&self, reason: DropReason, now: Instant) -> Option<u64> {
        let mut drops = self.drops.lock();
        let known = drops.iter().position(|drops| drops.label == reason.label());
        let at = known.unwrap_or(drops.len());
        if at == drops.len() {
            drops.push(Drops::of(reason));
        }
        drops[at].count += 1;
        drops[at].lines.allows(now)
    }

    /// Adds the figures.
    pub fn expose(&self, out: &mut Exposition) {
        for Drops { label, count, .. } in self.drops.lock().iter() {
            let labels = [("protocol", self.protocol), ("reason", label)];
            let help = "Connections that the broker closed.";
            out.counter("sabir_dropped_connections", help, &labels, *count);
        }
        let labels = [("protocol", self.protocol)];
        let (received, sent) = (self.received.load(Relaxed), self.sent.load(Relaxed));
        out.counter("sabir_received_bytes", "Bytes read off connections.", &labels, received);
        out.counter("sabir_sent_bytes", "Bytes written to connections.", &labels, sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: OwnReason = OwnReason::new("body", "its body cannot be read");

    #[test]
    fn a_flood_of_one_kind_is_a_few_lines_and_a_count() {
        let (counters, began) = (ConnectionCounters::new("probe", &[BODY]), Instant::now());
        let lines = (0..70).filter(|_| counters.dropped(DropReason::Foreign, began).is_some()).count();
        assert_eq!(lines, 10);
        let other = DropReason::Protocol(BODY);
        assert_eq!(counters.dropped(other, began), Some(0), "another kind has lines of its own");
        let later = began + Duration::from_secs(10);
        assert_eq!(counters.dropped(DropReason::Foreign, later), Some(60));
        assert_eq!(counters.dropped(DropReason::Foreign, later), Some(0));
    }

    #[test]
    fn every_reason_has_a_counter() {
        let counters = ConnectionCounters::new("probe", &[BODY]);
        counters.dropped(DropReason::Idle, Instant::now());
        counters.dropped(DropReason::Protocol(BODY), Instant::now());
        // Not named at the start: counted all the same.
        counters.dropped(DropReason::Protocol(OwnReason::new("other", "")), Instant::now());
        counters.received(7);
        let mut out = Exposition::default();
        counters.expose(&mut out);
        let text = out.render();
        for line in [
            "sabir_dropped_connections_total{protocol=\"probe\",reason=\"idle\"} 1",
            "sabir_dropped_connections_total{protocol=\"probe\",reason=\"body\"} 1",
            "sabir_dropped_connections_total{protocol=\"probe\",reason=\"other\"} 1",
            "sabir_dropped_connections_total{protocol=\"probe\",reason=\"memory\"} 0",
            "sabir_received_bytes_total{protocol=\"probe\"} 7",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
