//! Tells of a start that takes long: what it is at, and whether it gets on. A disk that does not answer says nothing by itself.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sabir_base::ticker::Ticker;
use sabir_broker::{StartProgress, StartStep};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// Says every five seconds how far a start has come, until what is given is dropped.
pub(crate) fn begin(data: &Path, progress: Arc<StartProgress>) -> std::io::Result<Ticker> {
    tracing::debug!(data = %data.display(), "opening the data directory");
    watch(EVERY, progress, say)
}

fn watch(
    every: Duration,
    progress: Arc<StartProgress>,
    say: impl Fn(&StartStep, bool, Duration) + Send + 'static,
) -> std::io::Result<Ticker> {
    let (began, mut before) = (Instant::now(), progress.step());
    Ticker::begin("start-watch", every, move || {
        let step = progress.step();
        say(&step, step.changes > before.changes, began.elapsed());
        before = step;
    })
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
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_start_that_gets_on_is_told_from_one_that_does_not() {
        let progress = Arc::new(StartProgress::default());
        let (told, heard) = mpsc::channel();
        let say =
            move |step: &StartStep, gets_on, _: Duration| told.send((step.to_string(), gets_on)).unwrap();
        let watching = watch(Duration::from_millis(20), progress.clone(), say).unwrap();
        progress.enter(Path::new("/data"), "taking the lock");
        let stuck = heard.iter().find(|(_, gets_on)| !gets_on);
        assert_eq!(stuck, Some(("/data: taking the lock".to_owned(), false)));
        progress.begin("segment-000001", "replaying", Some((1, 2)));
        let going = heard.iter().find(|(_, gets_on)| *gets_on);
        assert_eq!(going, Some(("/data/segment-000001: replaying, 1 of 2 done".to_owned(), true)));
        drop(watching);
        heard.iter().for_each(drop);
    }
}
