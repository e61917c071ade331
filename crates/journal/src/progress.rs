//! What a start is at: to be told when it takes long.

use std::fmt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// Where a start has come to. One thread starts, another one looks.
#[derive(Debug, Default)]
pub struct StartProgress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    folder: PathBuf,
    step: StartStep,
}

/// What a start does just now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartStep {
    /// The folder or file that it does it with.
    pub path: PathBuf,
    /// What it does.
    pub doing: &'static str,
    /// How much of how much is done, where that is known.
    pub count: Option<(u64, u64)>,
    /// Whether it waits for space on a disk.
    pub full: bool,
    /// How often anything of this changed so far: a step that stays the same does not get on.
    pub changes: u64,
}

impl StartProgress {
    /// From now on it is in this folder.
    pub fn enter(&self, folder: &Path, doing: &'static str) {
        let mut state = self.0.lock();
        state.folder = folder.to_owned();
        state.begin("", doing, None);
    }

    /// It begins with something else, with a file of the folder or, where that has no name, with the folder.
    pub fn begin(&self, file: &str, doing: &'static str, count: Option<(u64, u64)>) {
        self.0.lock().begin(file, doing, count);
    }

    /// One more is done of those that are counted.
    pub fn advance(&self) {
        let step = &mut self.0.lock().step;
        step.changes += 1;
        step.count = step.count.map(|(done, all)| (done + 1, all));
    }

    /// It waits for space on a disk, or does not.
    pub fn set_full(&self, full: bool) {
        self.0.lock().step.full = full;
    }

    /// What it does.
    pub fn step(&self) -> StartStep {
        self.0.lock().step.clone()
    }
}

impl State {
    fn begin(&mut self, file: &str, doing: &'static str, count: Option<(u64, u64)>) {
        let path = if file.is_empty() { self.folder.clone() } else { self.folder.join(file) };
        self.step = StartStep { path, doing, count, full: self.step.full, changes: self.step.changes + 1 };
    }
}

impl fmt::Display for StartStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.doing)?;
        self.count.map_or(Ok(()), |(done, all)| write!(f, ", {done} of {all} done"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_names_its_file_and_how_far_it_is() {
        let progress = StartProgress::default();
        progress.enter(Path::new("/data/shard-1/journal"), "opening the journal");
        assert_eq!(progress.step().to_string(), "/data/shard-1/journal: opening the journal");
        progress.begin("segment-000003", "looking for the end of the journal, by segments", Some((2, 7)));
        let text = "/data/shard-1/journal/segment-000003: looking for the end of the journal, by segments";
        assert_eq!(progress.step().to_string(), format!("{text}, 2 of 7 done"));
        let before = progress.step();
        progress.advance();
        assert_eq!((progress.step().count, progress.step().changes), (Some((3, 7)), before.changes + 1));
    }
}
