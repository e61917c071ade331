//! A thread that does something again and again.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Does something each time so long has passed, on a thread of its own, until it is dropped; what is being done then comes to its end first.
#[derive(Debug)]
pub struct Ticker {
    /// Dropped to end it.
    over: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Begins; the first time comes after `every`.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn begin(name: &str, every: Duration, mut job: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let (over, ended) = mpsc::channel::<()>();
        let work = move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                job();
            }
        };
        let thread = Builder::new().name(name.into()).spawn(work)?;
        Ok(Self { over: Some(over), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.over = None;
        // It ends by itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_again_and_again_and_not_after_the_end() {
        let (told, heard) = mpsc::channel();
        let ticker = Ticker::begin("test", Duration::from_millis(1), move || told.send(()).unwrap()).unwrap();
        (0..3).for_each(|_| heard.recv().unwrap());
        drop(ticker);
        // Its end has dropped the sender: this would not come to an end otherwise.
        heard.iter().for_each(drop);
    }
}
