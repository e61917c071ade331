//! How long a connection may take for what: its first words, its frames, our answers, and doing nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::ending::DropReason;
use crate::connection::Limits;

/// How long a client that sends no more, or is to be gone, may take to read what is sent to it.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// How much must arrive in which time of a frame that holds memory, while others lack it.
const PACE: usize = 16 * 1024;
const PACE_TIME: Duration = Duration::from_millis(300);

/// When a connection that nothing bounds is looked at again.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// How long a connection's client may keep its place, as far as the session decides it: that knows how far the client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From the accept until the client has introduced itself; none where it has.
    pub hello: Option<Duration>,
    /// From its last frame, while nothing is under way; none where it may stay for as long as it likes.
    pub idle: Option<Duration>,
    /// From its last byte, whatever is under way: what protocols with heartbeats agree on.
    pub silence: Option<Duration>,
}

impl Patience {
    /// That of the node, for a protocol without heartbeats.
    pub fn of(limits: &Limits, introduced: bool) -> Self {
        let hello = (!introduced).then_some(limits.handshake_timeout);
        Self { hello, idle: Some(limits.idle_timeout), silence: None }
    }
}

/// What a connection looks like at the end of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes that have arrived of a frame, if it is the client that is waited for.
    pub(super) arriving: Option<usize>,
    /// Whether that frame waits for memory that other connections have.
    pub(super) waits: bool,
    /// Whether memory is held for it, and whether there is too little of that.
    pub(super) holds: bool,
    pub(super) is_short: bool,
    /// Bytes that the client has not read yet.
    pub(super) unread: usize,
    /// Whether something is under way that the client waits for, or that it may wait for as long as it likes.
    pub(super) busy: bool,
    /// Whether the client sends no more.
    pub(super) ended: bool,
    /// Whether what the client sends is read: else its silence says nothing.
    pub(super) reading: bool,
    pub(super) patience: Patience,
}

/// A deadline that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The client is to blame.
    Dropped(DropReason),
    /// It had gone already.
    Gone,
    /// An answer that the client was to have before its connection ends, which it is told of all the same.
    Answer,
}

/// A connection's deadlines. Told what the connection looks like and what time it is.
#[derive(Debug)]
pub(super) struct Deadlines {
    opened: Instant,
    arriving_since: Option<Instant>,
    waits_since: Option<Instant>,
    /// Since when its pace is measured, and how much had arrived then.
    pace: Option<(Instant, usize)>,
    idle_since: Instant,
    silent_since: Instant,
    ended_since: Option<Instant>,
    /// Whether a frame was taken, and whether bytes came, since the last look.
    asked: bool,
    heard: bool,
    sent: u64,
    /// How many bytes must have been sent by when.
    unread: Option<(u64, Instant)>,
}

impl Deadlines {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            opened: now,
            arriving_since: None,
            waits_since: None,
            pace: None,
            idle_since: now,
            silent_since: now,
            ended_since: None,
            asked: false,
            heard: false,
            sent: 0,
            unread: None,
        }
    }

    /// A whole frame was taken out of the input: what arrives now is another one.
    pub(super) fn frame_taken(&mut self) {
        self.arriving_since = None;
        self.pace = None;
        self.asked = true;
    }

    /// Bytes have come from the client.
    pub(super) fn received(&mut self) {
        self.heard = true;
    }

    /// The client has taken bytes.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The next deadline, for a connection that looks like this now.
    pub(super) fn next(&mut self, limits: &Limits, progress: Progress, now: Instant) -> (Instant, Overdue) {
        self.look(limits, progress, now);
        let Patience { hello, idle, silence } = progress.patience;
        let arrived = progress.arriving.unwrap_or(0);
        let dropped = |reason| move |until| (until, Overdue::Dropped(reason));
        let allowed = |since| since + Limits::allowed(limits.frame_timeout, arrived);
        // The client is not to blame for the time for which its frame waits for memory.
        let frame = self.arriving_since.filter(|_| !progress.waits).map(allowed);
        let memory = self.waits_since.map(allowed);
        let hello = hello.map(|hello| self.opened + Limits::allowed(hello, arrived));
        let all = [
            frame.map(dropped(DropReason::SlowWriter)),
            memory.map(dropped(DropReason::Memory)),
            self.pace.map(|(since, _)| since + PACE_TIME).map(dropped(DropReason::SlowWriter)),
            hello.map(dropped(DropReason::Handshake)),
            self.unread.map(|(_, until)| until).map(dropped(DropReason::SlowReader)),
            silence.map(|silence| self.silent_since + silence).map(dropped(DropReason::Silent)),
            idle.map(|idle| self.idle_since + idle).map(dropped(DropReason::Idle)),
            self.ended_since.map(|since| (since + LINGER, Overdue::Gone)),
        ];
        let never = (now + LONG, Overdue::Gone);
        all.into_iter().flatten().fold(never, |a, b| if b.0 < a.0 { b } else { a })
    }

    /// Since when the pace is measured: from now on, if it was kept, or need not be.
    fn pace(&self, progress: Progress, now: Instant) -> Option<(Instant, usize)> {
        let arrived = progress.arriving.filter(|_| progress.holds && !progress.waits)?;
        let is_going = |(since, before): &(Instant, usize)| {
            now - *since < PACE_TIME || (progress.is_short && arrived.saturating_sub(*before) < PACE)
        };
        self.pace.filter(is_going).or(Some((now, arrived)))
    }

    fn look(&mut self, limits: &Limits, progress: Progress, now: Instant) {
        match progress.arriving {
            None => self.arriving_since = None,
            Some(_) => drop(self.arriving_since.get_or_insert(now)),
        }
        match (progress.waits, self.waits_since) {
            (true, None) => self.waits_since = Some(now),
            (false, Some(since)) => {
                self.arriving_since = self.arriving_since.map(|arriving| arriving + (now - since));
                self.waits_since = None;
            }
            _ => {}
        }
        self.pace = self.pace(progress, now);
        if std::mem::take(&mut self.asked) || progress.busy || progress.waits {
            self.idle_since = now;
        }
        if std::mem::take(&mut self.heard) || !progress.reading {
            self.silent_since = now;
        }
        match progress.ended {
            true => drop(self.ended_since.get_or_insert(now)),
            false => self.ended_since = None,
        }
        if progress.unread == 0 {
            self.unread = None;
        } else if self.unread.is_none_or(|(mark, _)| self.sent >= mark) {
            let until = now + Limits::allowed(limits.write_timeout, progress.unread);
            self.unread = Some((self.sent + progress.unread as u64, until));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::memory::FrameMemory;

    use super::*;

    const REST: Progress = Progress {
        arriving: None,
        waits: false,
        holds: false,
        is_short: false,
        unread: 0,
        busy: false,
        ended: false,
        reading: true,
        patience: IDLE,
    };
    const IDLE: Patience = Patience { hello: None, idle: Some(Duration::from_secs(600)), silence: None };

    fn limits() -> Limits {
        Limits {
            frame_memory: FrameMemory::new(0),
            handshake_timeout: seconds(15),
            frame_timeout: seconds(30),
            write_timeout: seconds(20),
            idle_timeout: seconds(600),
        }
    }

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn idle_counts_from_the_last_request_under_way() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let idle = Overdue::Dropped(DropReason::Idle);
        assert_eq!(deadlines.next(&limits(), REST, start + seconds(5)), (start + seconds(600), idle));
        let busy = Progress { busy: true, ..REST };
        deadlines.next(&limits(), busy, start + seconds(100));
        assert_eq!(deadlines.next(&limits(), REST, start + seconds(101)), (start + seconds(700), idle));
    }

    #[test]
    fn who_asks_is_not_idle_however_fast_the_answer_comes() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let idle = Overdue::Dropped(DropReason::Idle);
        deadlines.frame_taken();
        assert_eq!(deadlines.next(&limits(), REST, start + seconds(599)), (start + seconds(1199), idle));
        assert_eq!(deadlines.next(&limits(), REST, start + seconds(700)), (start + seconds(1199), idle));
    }

    #[test]
    fn a_client_introduces_itself_in_time_or_as_fast_as_its_bytes_call_for() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let late = Overdue::Dropped(DropReason::Handshake);
        let new = Progress { patience: Patience::of(&limits(), false), ..REST };
        assert_eq!(deadlines.next(&limits(), new, start + seconds(7)), (start + seconds(15), late));
        let drips = Progress { arriving: Some(3), ..new };
        assert_eq!(deadlines.next(&limits(), drips, start + seconds(8)), (start + seconds(15), late));
        let fast = Progress { arriving: Some(5 * Limits::SLOWEST), ..new };
        assert_eq!(deadlines.next(&limits(), fast, start + seconds(9)), (start + seconds(20), late));
        let introduced = Progress { patience: Patience::of(&limits(), true), ..REST };
        let (until, _) = deadlines.next(&limits(), introduced, start + seconds(10));
        assert_eq!(until, start + seconds(600));
    }

    #[test]
    fn silence_is_broken_by_bytes_and_counts_only_while_they_are_read() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let silent = Overdue::Dropped(DropReason::Silent);
        let patience = Patience { hello: None, idle: None, silence: Some(seconds(20)) };
        let beating = Progress { busy: true, patience, ..REST };
        assert_eq!(deadlines.next(&limits(), beating, start + seconds(9)), (start + seconds(20), silent));
        deadlines.received();
        assert_eq!(deadlines.next(&limits(), beating, start + seconds(10)), (start + seconds(30), silent));
        let held_back = Progress { reading: false, ..beating };
        assert_eq!(deadlines.next(&limits(), held_back, start + seconds(29)), (start + seconds(49), silent));
        assert_eq!(deadlines.next(&limits(), beating, start + seconds(30)), (start + seconds(49), silent));
    }

    #[test]
    fn one_that_nothing_bounds_stays() {
        let start = Instant::now();
        let patience = Patience { hello: None, idle: None, silence: None };
        let (until, _) = Deadlines::new(start).next(&limits(), Progress { patience, ..REST }, start);
        assert_eq!(until, start + LONG);
    }

    #[test]
    fn only_speed_moves_a_frames_deadline() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let slow = Overdue::Dropped(DropReason::SlowWriter);
        for s in 0..5 {
            let progress = Progress { arriving: Some(s as usize), ..REST };
            assert_eq!(deadlines.next(&limits(), progress, start + seconds(s)), (start + seconds(30), slow));
        }
        let fast = Progress { arriving: Some(10 * Limits::SLOWEST), ..REST };
        assert_eq!(deadlines.next(&limits(), fast, start + seconds(6)), (start + seconds(40), slow));
        deadlines.frame_taken();
        let next = Progress { arriving: Some(4), ..REST };
        assert_eq!(deadlines.next(&limits(), next, start + seconds(7)), (start + seconds(37), slow));
    }

    #[test]
    fn a_frame_keeps_a_pace_while_others_lack_what_it_holds() {
        let (start, slow) = (Instant::now(), Overdue::Dropped(DropReason::SlowWriter));
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut deadlines = Deadlines::new(start);
        let arriving = |arrived| Progress { arriving: Some(arrived), holds: true, is_short: true, ..REST };
        assert_eq!(deadlines.next(&limits(), arriving(5000), start), (at(300), slow));
        assert_eq!(deadlines.next(&limits(), arriving(5000 + PACE), at(290)), (at(300), slow));
        assert_eq!(deadlines.next(&limits(), arriving(5000 + PACE), at(300)), (at(600), slow), "it came");
        let enough = Progress { is_short: false, ..arriving(30_000) };
        assert_eq!(deadlines.next(&limits(), enough, at(600)), (at(900), slow), "nobody lacks it");
        for held_back in [Progress { waits: true, ..arriving(30_000) }, Progress { arriving: None, ..enough }]
        {
            assert_ne!(
                deadlines.next(&limits(), held_back, at(900)).0,
                at(900),
                "the client is not to blame"
            );
        }
        assert_eq!(deadlines.next(&limits(), arriving(30_000), at(1000)), (at(1300), slow));
        deadlines.frame_taken();
        assert_eq!(deadlines.next(&limits(), arriving(20_000), at(1300)), (at(1600), slow), "it is another");
        assert_eq!(deadlines.next(&limits(), arriving(20_000 + PACE - 1), at(1600)), (at(1600), slow));
    }

    #[test]
    fn a_frame_that_waits_for_memory_is_not_its_clients_fault() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let arriving = Progress { arriving: Some(0), ..REST };
        deadlines.next(&limits(), arriving, start);
        let waiting = Progress { waits: true, ..arriving };
        let memory = Overdue::Dropped(DropReason::Memory);
        assert_eq!(deadlines.next(&limits(), waiting, start + seconds(10)), (start + seconds(40), memory));
        assert_eq!(deadlines.next(&limits(), waiting, start + seconds(35)), (start + seconds(40), memory));
        let slow = Overdue::Dropped(DropReason::SlowWriter);
        assert_eq!(deadlines.next(&limits(), arriving, start + seconds(35)), (start + seconds(55), slow));
    }

    #[test]
    fn a_reader_must_take_all_that_waited() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let slow = Overdue::Dropped(DropReason::SlowReader);
        let progress = |unread| Progress { unread, busy: true, ..REST };
        assert_eq!(deadlines.next(&limits(), progress(100), start), (start + seconds(20), slow));
        deadlines.sent(50);
        assert_eq!(deadlines.next(&limits(), progress(150), start + seconds(5)), (start + seconds(20), slow));
        deadlines.sent(50);
        assert_eq!(deadlines.next(&limits(), progress(100), start + seconds(6)), (start + seconds(26), slow));
        deadlines.sent(100);
        let (_, late) = deadlines.next(&limits(), progress(0), start + seconds(7));
        assert_eq!(late, Overdue::Dropped(DropReason::Idle));
    }

    #[test]
    fn who_sends_no_more_is_waited_for_a_moment() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let progress = Progress { ended: true, unread: 1, ..REST };
        for s in 0..3 {
            assert_eq!(
                deadlines.next(&limits(), progress, start + seconds(s)),
                (start + seconds(5), Overdue::Gone)
            );
        }
    }
}
