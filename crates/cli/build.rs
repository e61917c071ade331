//! Puts the commit that this is built from into `sabir --version`.

use std::process::Command;

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=SABIR_COMMIT={commit}");
    println!("cargo:rerun-if-changed=build.rs");
    // What changes when another commit is checked out or made; a file that is not there would build it anew each time.
    let known = ["HEAD", "logs/HEAD"].iter().filter_map(|file| git(&["rev-parse", "--git-path", file]));
    for file in known.filter(|file| std::path::Path::new(file).exists()) {
        println!("cargo:rerun-if-changed={file}");
    }
}

/// What git says, where it is installed and this is a repository of it.
fn git(arguments: &[&str]) -> Option<String> {
    let done = Command::new("git").args(arguments).output().ok().filter(|done| done.status.success())?;
    let printed = String::from_utf8(done.stdout).ok()?.trim().to_owned();
    (!printed.is_empty()).then_some(printed)
}
