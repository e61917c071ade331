//! A disk that tells how long it has been at its oldest operation.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::{Completion, Disk, DiskError, FileId, UnderWay, WakeFn, WriteOp};

/// Passes everything on, and notes when what may have to wait for the disk began: changes, reads, and what asks for its space.
#[derive(Debug)]
pub struct WatchedDisk {
    disk: Arc<dyn Disk>,
    under_way: UnderWay,
}

impl WatchedDisk {
    /// Watches a disk of which nothing is under way.
    pub fn over(disk: Arc<dyn Disk>) -> Arc<Self> {
        Arc::new(Self { disk, under_way: UnderWay::default() })
    }

    fn submitted(&self, token: u64, submit: impl FnOnce() -> Result<(), DiskError>) -> Result<(), DiskError> {
        // Before it can be done.
        self.under_way.submitted(token);
        // No completion follows an error.
        submit().inspect_err(|_| self.under_way.done([token].into_iter()))
    }
}

impl Disk for WatchedDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.disk.list()
    }

    fn create(&self, name: &str, len: u64) -> Result<FileId, DiskError> {
        self.under_way.changing(|| self.disk.create(name, len))
    }

    fn open(&self, name: &str) -> Result<FileId, DiskError> {
        self.under_way.during(|| self.disk.open(name))
    }

    fn close(&self, file: FileId) {
        self.disk.close(file);
    }

    fn hold(&self, file: FileId) -> Result<(), DiskError> {
        self.disk.hold(file)
    }

    fn let_go(&self, file: FileId) {
        self.disk.let_go(file);
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.under_way.changing(|| self.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.under_way.changing(|| self.disk.remove(name))
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.under_way.changing(|| self.disk.sync_dir())
    }

    fn len(&self, file: FileId) -> Result<u64, DiskError> {
        self.disk.len(file)
    }

    fn fill_holes(&self, file: FileId, keep_free: u64) -> Result<bool, DiskError> {
        self.under_way.changing(|| self.disk.fill_holes(file, keep_free))
    }

    fn read_at(&self, file: FileId, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.under_way.during(|| self.disk.read_at(file, pos, buf))
    }

    fn write_at(&self, file: FileId, pos: u64, data: &[u8]) -> Result<(), DiskError> {
        self.under_way.changing(|| self.disk.write_at(file, pos, data))
    }

    fn sync(&self, file: FileId) -> Result<(), DiskError> {
        self.under_way.changing(|| self.disk.sync(file))
    }

    fn submit(&self, op: WriteOp) -> Result<(), DiskError> {
        self.submitted(op.token, || self.disk.submit(op))
    }

    fn submit_sync(&self, token: u64, file: FileId) -> Result<(), DiskError> {
        self.submitted(token, || self.disk.submit_sync(token, file))
    }

    fn reap(&self, out: &mut Vec<Completion>) {
        let before = out.len();
        self.disk.reap(out);
        if out.len() > before {
            self.under_way.done(out[before..].iter().map(|completion| completion.token));
        }
    }

    fn wait(&self, timeout: Duration) -> bool {
        self.disk.wait(timeout)
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.disk.event_fd()
    }

    fn set_waker(&self, wake: WakeFn) {
        self.disk.set_waker(wake);
    }

    fn depth(&self) -> usize {
        self.disk.depth()
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.under_way.during(|| self.disk.free_bytes())
    }

    fn device(&self) -> Option<u64> {
        self.disk.device()
    }

    fn has_completions(&self) -> bool {
        self.disk.has_completions()
    }

    fn under_way(&self) -> Duration {
        // A disk of which something is to be reaped answers: it is the thread that reaps which is late.
        match self.disk.has_completions() {
            true => self.under_way.age_of_calls(),
            false => self.under_way.age(),
        }
    }

    fn unchanged(&self) -> Option<Duration> {
        self.under_way.unchanged()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SECTOR;
    use crate::disk::sim::{Op, SimDisk};

    fn data() -> bytes::Bytes {
        let mut buf = sabir_base::buf::BufPool::new(0).get(SECTOR);
        buf.fill(7);
        buf.freeze()
    }

    #[test]
    fn what_was_submitted_is_under_way_until_it_is_reaped() {
        let sim = SimDisk::new(1);
        sim.set_auto(true);
        let disk = WatchedDisk::over(sim.clone());
        let file = disk.create("a", SECTOR as u64).unwrap();
        assert_eq!(disk.under_way(), Duration::ZERO);
        sim.stall(Op::Write);
        disk.submit(WriteOp { token: 9, file, pos: 0, data: data(), sync: true }).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert!(disk.under_way() >= Duration::from_millis(5));
        sim.resume();
        let mut done = Vec::new();
        disk.reap(&mut done);
        assert_eq!((done.len(), disk.under_way()), (1, Duration::ZERO));
        let refused = disk.submit(WriteOp { token: 10, file, pos: 3, data: data(), sync: true });
        assert!(refused.is_err() && disk.under_way() == Duration::ZERO, "it was not begun");
    }

    #[test]
    fn what_was_last_changed_is_known_and_neither_a_read_nor_a_look_at_the_space_counts() {
        let sim = SimDisk::new(3);
        sim.set_auto(true);
        let disk = WatchedDisk::over(sim);
        assert_eq!(disk.unchanged(), None);
        let file = disk.create("a", SECTOR as u64).unwrap();
        let pause = Duration::from_millis(20);
        std::thread::sleep(pause);
        disk.read_at(file, 0, &mut [0; SECTOR]).unwrap();
        disk.free_bytes().unwrap();
        assert!(disk.unchanged().unwrap() >= pause);
        let before = std::time::Instant::now();
        disk.submit(WriteOp { token: 9, file, pos: 0, data: data(), sync: true }).unwrap();
        let unchanged = disk.unchanged().unwrap();
        assert!(unchanged <= before.elapsed());
        std::thread::sleep(pause);
        let before = std::time::Instant::now();
        disk.reap(&mut Vec::new());
        let unchanged = disk.unchanged().unwrap();
        assert!(unchanged <= before.elapsed(), "its end counts, too");
    }

    #[test]
    fn a_disk_that_has_answered_is_not_under_way_however_late_it_is_reaped() {
        let sim = SimDisk::new(4);
        let disk = WatchedDisk::over(sim.clone());
        let file = disk.create("a", 2 * SECTOR as u64).unwrap();
        for (token, pos) in [(9, 0), (10, SECTOR as u64)] {
            disk.submit(WriteOp { token, file, pos, data: data(), sync: true }).unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
        assert!(disk.under_way() >= Duration::from_millis(5));
        assert!(sim.step());
        assert_eq!((disk.has_completions(), disk.under_way()), (true, Duration::ZERO));
        let asked = disk.under_way.during(|| {
            std::thread::sleep(Duration::from_millis(5));
            disk.under_way()
        });
        assert!(asked >= Duration::from_millis(5), "what a thread waits for itself counts");
        let mut done = Vec::new();
        disk.reap(&mut done);
        assert!(!disk.has_completions());
        assert!(done.len() == 2 || disk.under_way() >= Duration::from_millis(5), "the other one is not done");
    }

    #[test]
    fn a_read_is_under_way_until_it_has_come_back() {
        let sim = SimDisk::new(2);
        sim.set_auto(true);
        let disk = WatchedDisk::over(sim.clone());
        let file = disk.create("a", SECTOR as u64).unwrap();
        sim.stall(Op::Read);
        let reader = std::thread::spawn({
            let disk = disk.clone();
            move || disk.read_at(file, 0, &mut [0; SECTOR])
        });
        let began = std::time::Instant::now();
        while disk.under_way() < Duration::from_millis(5) {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(1));
        }
        sim.resume();
        reader.join().unwrap().unwrap();
        assert_eq!(disk.under_way(), Duration::ZERO);
    }
}
