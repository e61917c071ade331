//! Looks at the machine as the broker would find it, and explains what it sees.

mod disk;
mod system;

use std::path::{Path, PathBuf};

use crate::config::ServerConfig;

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, but not as well as it could.
    Poor,
    /// The broker would not start, or would break a promise.
    Bad,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What it is.
    pub found: String,
    /// What to do about it; empty where nothing has to be done.
    pub advice: String,
}

impl Finding {
    fn good(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Good, found: found.into(), advice: String::new() }
    }

    fn poor(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Poor, found: found.into(), advice: advice.into() }
    }

    fn bad(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Bad, found: found.into(), advice: advice.into() }
    }
}

/// Runs every check for a configuration. Writes files into the data directory's file system for about a second, and removes
/// them.
pub fn examine(config: &ServerConfig) -> Vec<Finding> {
    let (data, dir) = (&config.data.dir, nearest_existing(&config.data.dir));
    let mut findings = vec![
        disk::holder(data, &dir),
        disk::access(data),
        disk::place(data, &dir),
        disk::free_space(&dir, config.data.keep_free.0),
        disk::sync_rate(&dir),
        disk::direct_io(&dir),
        disk::io_uring(&dir, config.data.disk),
        system::kernel(),
        system::open_files(config.net.max_connections.get() as u64),
        system::file_size(),
        system::clock(),
        system::synchronised(),
        system::clock_source(),
        system::memory(&config.memory_budgets()),
    ];
    let running = sabir_broker::check_free(data).is_err();
    findings.extend(config.front_ends.iter().map(|f| system::listen(&f.listen, running)));
    let admin = config.admin_listen();
    if !admin.addresses.is_empty() {
        findings.push(system::listen(&admin, running));
    }
    findings
}

/// The data directory, or what it would be made in.
fn nearest_existing(dir: &Path) -> PathBuf {
    let full = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let found = full.ancestors().find(|a| a.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::protocols;

    #[test]
    fn the_admin_ports_address_is_tried_too() {
        let dir = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = |listen: String| {
            let set = vec!["net.default_listen=off".into(), listen];
            let sources = Sources { data: Some(dir.path().to_owned()), set, ..Sources::default() };
            let findings = examine(&ServerConfig::load(&sources, protocols()).unwrap());
            findings.into_iter().find(|finding| finding.found.contains("admin.listen"))
        };
        let finding = found(format!("admin.listen={}", taken.local_addr().unwrap())).unwrap();
        assert_eq!(finding.verdict, Verdict::Bad, "{finding:?}");
        assert_eq!(found("admin.listen=127.0.0.1:0".into()).unwrap().verdict, Verdict::Good);
        assert_eq!(found("admin.listen=off".into()), None);
    }

    #[test]
    fn a_folder_is_examined_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources { data: Some(dir.path().join("new/data")), ..Sources::default() };
        let sources = Sources { set: vec!["kafka.listen=127.0.0.1:0".into()], ..sources };
        let config = ServerConfig::load(&sources, protocols()).unwrap();
        let findings = examine(&config);
        let subjects: Vec<_> = findings.iter().map(|f| f.subject).collect();
        for subject in ["disk sync", "io_uring", "open files", "clock", "memory", "address"] {
            assert!(subjects.contains(&subject), "{subject} in {subjects:?}");
        }
        assert!(findings[0].found.contains("not there yet"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        for finding in &findings {
            assert_eq!(finding.advice.is_empty(), finding.verdict == Verdict::Good, "{finding:?}");
        }
    }
}
