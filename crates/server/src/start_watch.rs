//! Tells of a start that takes long: what it is at, and whether it gets on. A disk that does not answer says nothing by itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sabir_broker::{StartProgress, StartStep};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// Watches until it is dropped.
pub(crate) struct StartWatch {
    /// Dropped to end it.
    over: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StartWatch {
    /// Says every five seconds how far a start has come.
    pub(crate) fn begin(data: &Path, progress: Arc<StartProgress>) -> std::io::Result<Self> {
        tracing::debug!(data = %data.display(), "opening the data directory");
        Self::every(EVERY, progress, say)
    }

    fn every(
        every: Duration,
        progress: Arc<StartProgress>,
        say: impl Fn(&StartStep, bool, Duration) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (over, ended) = mpsc::channel::<()>();
        let watch = move || {
            let (began, mut before) = (Instant::now(), progress.step());
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let step = progress.step();
                say(&step, step.changes > before.changes, began.elapsed());
                before = step;
            }
        };
        let thread = std::thread::Builder::new().name("start-watch".into()).spawn(watch)?;
        Ok(Self { over: Some(over), thread: Some(thread) })
    }
}

impl Drop for StartWatch {
    fn drop(&mut self) {
        self.over = None;
        // It ends by itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn say(step: &StartStep, gets_on: bool, since: Duration) {
    let seconds = since.as_secs();
    if gets_on {
        tracing::info!("still starting after {seconds} s: {step}");
        return;
    }
    let why = match step.full {
        true => "the disk is full, and it goes on once there is space",
        false => "the disk does not answer, or is slow",
    };
    tracing::warn!("the start does not get on, after {seconds} s: {why}: {step}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_gets_on_is_told_from_one_that_does_not() {
        let progress = Arc::new(StartProgress::default());
        let (told, heard) = mpsc::channel();
        let say =
            move |step: &StartStep, gets_on, _: Duration| told.send((step.to_string(), gets_on)).unwrap();
        let watch = StartWatch::every(Duration::from_millis(20), progress.clone(), say).unwrap();
        progress.enter(Path::new("/data"), "taking the lock");
        let stuck = heard.iter().find(|(_, gets_on)| !gets_on);
        assert_eq!(stuck, Some(("/data: taking the lock".to_owned(), false)));
        progress.begin("segment-000001", "replaying", Some((1, 2)));
        let going = heard.iter().find(|(_, gets_on)| *gets_on);
        assert_eq!(going, Some(("/data/segment-000001: replaying, 1 of 2 done".to_owned(), true)));
        drop(watch);
        heard.iter().for_each(drop);
    }
}
