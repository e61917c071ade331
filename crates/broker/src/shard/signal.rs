//! A descriptor that becomes readable when it is raised.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// A pipe that holds at most a few bytes.
#[derive(Debug)]
pub(super) struct Signal {
    reader: PipeReader,
    raiser: Arc<Raiser>,
}

/// Raises a [`Signal`].
#[derive(Debug)]
pub(super) struct Raiser {
    raised: AtomicBool,
    writer: PipeWriter,
}

impl Signal {
    pub(super) fn new() -> std::io::Result<Self> {
        let (reader, writer) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        Ok(Self { reader, raiser: Arc::new(Raiser { raised: AtomicBool::new(false), writer }) })
    }

    pub(super) fn raiser(&self) -> Arc<Raiser> {
        self.raiser.clone()
    }

    /// Takes the signal back, before the work it asks for. One raised from now on is seen again.
    pub(super) fn clear(&self) {
        // First the byte, then the mark: one raised between the two writes none, but is served by the work to come. Without a byte
        // the raiser is about to write it: the mark stays for the clearing that it will call for, or that byte would lie in the
        // pipe with no mark to have it read, and make it readable for ever.
        if self.raiser.raised.load(SeqCst) && (&self.reader).read(&mut [0; 16]).is_ok_and(|read| read > 0) {
            self.raiser.raised.store(false, SeqCst);
        }
    }

    /// Raises it such that the watching thread sees it come, even where it is raised already: that may have been seen while another thread
    /// was at the work, and been left to that thread.
    pub(super) fn raise_anew(&self) {
        self.clear();
        self.raiser.raise();
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Raiser {
    pub(super) fn raise(&self) {
        if !self.raised.swap(true, SeqCst) {
            // A full pipe is readable already.
            let _ = (&self.writer).write(&[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn readable(signal: &Signal) -> bool {
        let mut fds = [PollFd::new(&signal.reader, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn is_readable_from_raise_to_clear() {
        let signal = Signal::new().unwrap();
        assert!(!readable(&signal));
        (0..100_000).for_each(|_| signal.raiser().raise());
        assert!(readable(&signal));
        signal.clear();
        assert!(!readable(&signal));
        signal.raiser().raise();
        assert!(readable(&signal));
    }

    #[test]
    fn raised_anew_it_is_a_new_edge_even_where_it_is_raised() {
        use rustix::event::epoll;
        let signal = Signal::new().unwrap();
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&watch, &signal.reader, epoll::EventData::new_u64(1), edges).unwrap();
        let seen = || {
            let mut events = Vec::with_capacity(4);
            epoll::wait(&watch, rustix::buffer::spare_capacity(&mut events), Some(&Timespec::default()))
                .unwrap();
            events.len()
        };
        signal.raiser().raise();
        assert_eq!((seen(), seen()), (1, 0), "an edge is seen once");
        signal.raiser().raise();
        assert_eq!(seen(), 0, "it was raised already");
        signal.raise_anew();
        assert_eq!(seen(), 1);
    }

    #[test]
    fn one_cleared_while_it_is_raised_is_cleared_whole_by_the_next() {
        let signal = Signal::new().unwrap();
        // Its raiser has set the mark and not yet written the byte.
        signal.raiser.raised.store(true, SeqCst);
        signal.clear();
        (&signal.raiser.writer).write_all(&[1]).unwrap();
        assert!(readable(&signal));
        signal.clear();
        assert!(!readable(&signal), "nothing is left that nobody would read");
        signal.raiser().raise();
        assert!(readable(&signal));
    }
}
