//! What is said where the files of a shard do not belong together: what one of them is instead, as far as it can be told.

use std::path::{Path, PathBuf};

use sabir_journal::JournalError;

use crate::backend::{Backend, JournalMark, PAGES};
use crate::shard::OpenError;

/// A file that is not the one which belongs in its place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MismatchError {
    #[error(
        "there is no page store {path}, and the journal beside it has let go of what only a checkpoint knows: {source}. Put it back; nothing \
         was made in its place"
    )]
    NoPages { path: PathBuf, source: JournalError },
    #[error(
        "the page store {path} holds no checkpoint, and the journal beside it does not do without: {source}. It was made anew, or is an \
         older copy: put back the one that belongs here"
    )]
    NewPages { path: PathBuf, source: JournalError },
    #[error("the page store {path} is {what}: {source}. Put back the one that belongs here")]
    OtherPages { path: PathBuf, what: String, source: JournalError },
    #[error("{path} is a segment of {what}. Put back the one that belongs here")]
    OtherSegment { path: PathBuf, what: String },
    #[error(
        "{path} is an older copy, or of a copy of this data directory that went on by itself: {source}. Put back the one that belongs here"
    )]
    OldSegment { path: PathBuf, source: JournalError },
    #[error(
        "the page store {path} and the journal beside it do not belong together: {source}. One of the two is an older copy, or of another \
         data directory"
    )]
    Unlike { path: PathBuf, source: JournalError },
}

/// Names what does not belong in a shard's folder, where that is why it does not open.
pub(crate) fn explain(error: OpenError, folder: &Path, backend: &dyn Backend) -> OpenError {
    let (path, journal) = (folder.join(PAGES), folder.join("journal"));
    let mismatch = match error {
        OpenError::NoCheckpoint { store: false, source } => MismatchError::NoPages { path, source },
        OpenError::NoCheckpoint { store: true, source } => MismatchError::NewPages { path, source },
        OpenError::Journal(source @ JournalError::Unmatched { .. }) => {
            return unmatched(source, folder, backend);
        }
        OpenError::Journal(JournalError::Foreign { file, journal: number }) => {
            let owner = backend.shard_with(JournalMark::Number(number));
            let what =
                owner.map_or_else(|| "another data directory".to_owned(), |shard| format!("shard {shard}"));
            MismatchError::OtherSegment { path: journal.join(file), what }
        }
        other => return other,
    };
    OpenError::Mismatch(mismatch.into())
}

/// A segment that the checkpoint lists is not there: files are used again for higher segments, so one that has a higher one now is newer than
/// the checkpoint.
fn unmatched(source: JournalError, folder: &Path, backend: &dyn Backend) -> OpenError {
    let JournalError::Unmatched { missing, generation, ref file, instead, others, .. } = source else {
        return source.into();
    };
    let path = folder.join(PAGES);
    let pages_of =
        |path, what: &str, source| MismatchError::OtherPages { path, what: what.to_owned(), source };
    let mismatch = match (backend.shard_with(JournalMark::Generation(generation)), instead) {
        (Some(shard), _) => pages_of(path, &format!("that of shard {shard}"), source),
        (None, None) => return source.into(),
        (None, Some(instead)) if instead > missing && others => pages_of(path, "an older copy", source),
        (None, Some(instead)) if instead > missing => {
            pages_of(path, "an older copy, or of another data directory", source)
        }
        (None, Some(_)) if others => {
            MismatchError::OldSegment { path: folder.join("journal").join(file), source }
        }
        (None, Some(_)) => MismatchError::Unlike { path, source },
    };
    OpenError::Mismatch(mismatch.into())
}
