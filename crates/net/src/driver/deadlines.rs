//! How long a connection may take for what: its frames, our answers, and doing nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::ending::DropReason;
use crate::connection::Limits;

/// How long a client that sends no more may take to read the answers under way.
const LINGER: Duration = Duration::from_secs(5);

/// What a connection looks like at the end of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes that have arrived of a frame, if the client is the one who is waited for.
    pub(super) arriving: Option<usize>,
    /// Bytes that the client has not read yet.
    pub(super) unread: usize,
    /// Whether something is under way that the client waits for, or that it may wait for as long as it likes.
    pub(super) busy: bool,
    /// Whether the client sends no more.
    pub(super) ended: bool,
}

/// A deadline that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The client is to blame.
    Dropped(DropReason),
    /// It had gone already.
    Gone,
}

/// A connection's deadlines. Told what the connection looks like and what time it is.
#[derive(Debug)]
pub(super) struct Deadlines {
    arriving_since: Option<Instant>,
    idle_since: Instant,
    ended_since: Option<Instant>,
    sent: u64,
    /// How many bytes must have been sent by when.
    unread: Option<(u64, Instant)>,
}

impl Deadlines {
    pub(super) fn new(now: Instant) -> Self {
        Self { arriving_since: None, idle_since: now, ended_since: None, sent: 0, unread: None }
    }

    /// A whole frame was taken out of the input: what arrives now is another one.
    pub(super) fn frame_taken(&mut self) {
        self.arriving_since = None;
    }

    /// The client has taken bytes.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The next deadline, for a connection that looks like this now.
    pub(super) fn next(&mut self, limits: &Limits, progress: Progress, now: Instant) -> (Instant, Overdue) {
        self.look(limits, progress, now);
        let frame = progress.arriving.zip(self.arriving_since).map(|(bytes, since)| {
            (since + Limits::allowed(limits.frame_timeout, bytes), Overdue::Dropped(DropReason::SlowWriter))
        });
        let unread = self.unread.map(|(_, until)| (until, Overdue::Dropped(DropReason::SlowReader)));
        let ended = self.ended_since.map(|since| (since + LINGER, Overdue::Gone));
        let idle = (self.idle_since + limits.idle_timeout, Overdue::Dropped(DropReason::Idle));
        [frame, unread, ended].into_iter().flatten().fold(idle, |a, b| if b.0 < a.0 { b } else { a })
    }

    fn look(&mut self, limits: &Limits, progress: Progress, now: Instant) {
        match progress.arriving {
            None => self.arriving_since = None,
            Some(_) => drop(self.arriving_since.get_or_insert(now)),
        }
        if progress.busy {
            self.idle_since = now;
        }
        if progress.ended {
            self.ended_since.get_or_insert(now);
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

    const REST: Progress = Progress { arriving: None, unread: 0, busy: false, ended: false };

    fn limits() -> Limits {
        Limits {
            frame_memory: FrameMemory::new(0),
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
