//! What to do about what the system refuses.

use std::ffi::OsStr;
use std::io;

/// What to do where the system does not let this user at a file, or has no room for it.
pub fn advice_on(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::PermissionDenied => Some(
            "This user may not: `ls -ld` shows whose it is. Run as that user, or give it to this one (chown), or name \
             another place.",
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("The file system is mounted read-only: name another place, or have it mounted for writing.")
        }
        io::ErrorKind::NotADirectory => {
            Some("A file stands where a folder is needed: name a folder, or move the file out of the way.")
        }
        io::ErrorKind::StorageFull => Some("The disk is full: make space, or name another place."),
        _ => None,
    }
}

/// A word of a command that is advised, as a shell takes it for one.
pub fn shell_quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    match text.chars().all(plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
