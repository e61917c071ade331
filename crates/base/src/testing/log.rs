//! What a process logs, kept for its tests to look at.

use std::fmt::{Debug, Write};
use std::sync::Once;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static KEEP: Once = Once::new();
static KEPT: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        written.expect("a String takes every write");
    }
}

/// Keeps events and knows nothing of spans.
struct Keeper;

impl Subscriber for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        KEPT.lock().push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// From now on keeps every line that any thread of this process logs, but for those of debugging.
///
/// # Panics
/// If the process logs elsewhere already.
pub fn keep_log() {
    KEEP.call_once(|| {
        tracing::subscriber::set_global_default(Keeper)
            .expect("nothing else of a test's process sets where it logs to");
    });
}

/// The lines kept so far that have all these words. All tests of a process share the log, so one of the words is to be the test's own.
pub fn logged(words: &[&str]) -> Vec<String> {
    let has_all = |line: &&String| words.iter().all(|word| line.contains(word));
    KEPT.lock().iter().filter(has_all).cloned().collect()
}
