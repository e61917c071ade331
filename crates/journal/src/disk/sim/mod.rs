//! A disk in memory that does, by seed, whatever a real one may.
//!
//! - A submitted operation completes when the test [steps](SimDisk::step), in an order that the seed picks.
//! - What has not been made durable is lost, kept or torn at a [crash](SimDisk::crash); so are names and lengths.
//! - A write with `sync` makes its own bytes durable and no others, as a disk that writes through does.
//! - What a sync was to make durable that failed, no later one does, as where a cache lets go of what it could not write.
//! - Faults are [injected](SimDisk::inject); operations [stall](SimDisk::stall); bits [flip](SimDisk::flip_bit).
//! - A [recording](SimDisk::record) gives the disk at every moment, and from each the disks that a power cut could leave.

mod crash;
mod image;
mod rng;
mod state;
#[cfg(test)]
mod tests;

pub use crash::{CrashPoint, Fate, Unsynced};

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::state::{Action, DirOp, InFlight, Inode, InodeNo, State, UnsyncedWrite};
use super::{Completion, Disk, DiskError, FileId, WakeFn, WriteOp, check_bounds, check_name, check_sectors};

/// The parts in which a disk keeps or loses a write, in bytes, unless [set](SimDisk::set_atom) otherwise.
pub const ATOM: usize = 512;

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// [`Disk::create`].
    Create,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// A write, submitted or not.
    Write,
    /// A sync of a file, submitted or not.
    Sync,
    /// [`Disk::read_at`]; not counted among the [operations](SimDisk::operations).
    Read,
}

/// What goes wrong with an operation. A write that fails may have been written in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An input/output error.
    Io,
    /// No space left.
    Full,
    /// A write of fewer bytes than given; an input/output error for what does not write.
    Short,
    /// No descriptor left: nothing is done.
    NoDescriptors,
    /// A read that gives a wrong bit in each sector, where the disk has the right one; an input/output error for what does not read.
    WrongBits,
}

/// A fault to come.
#[derive(Debug, Clone, Copy)]
pub struct Injection {
    /// For which kind; `None`: any but reads.
    pub op: Option<Op>,
    /// How many of them still go well.
    pub skip: u64,
    /// What happens to the next.
    pub fault: Fault,
    /// Whether it also happens to all after it.
    pub lasting: bool,
}

/// The simulated disk.
pub struct SimDisk {
    inner: Mutex<Inner>,
    wake: Mutex<Option<WakeFn>>,
    frozen: Mutex<bool>,
    thawed: Condvar,
    /// How long each read takes.
    read_time: Mutex<Duration>,
}

struct Inner {
    state: State,
    atom: usize,
    auto: bool,
    recording: Option<Vec<CrashPoint>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.lock();
        f.debug_struct("SimDisk").field("names", &inner.state.names).finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty disk whose choices follow from `seed`, moved by what the environment's `SIM_SEED` says, so that the same tests can be
    /// run with others. A test that fails prints it.
    pub fn new(seed: u64) -> Arc<Self> {
        let moved = std::env::var("SIM_SEED").ok().and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
        println!("a simulated disk with seed {seed}, SIM_SEED={moved}");
        Self::over(State::new(seed.wrapping_add(moved.wrapping_mul(1_000_003))), ATOM, false)
    }

    fn over(state: State, atom: usize, auto: bool) -> Arc<Self> {
        let inner = Inner { state, atom, auto, recording: None };
        let (frozen, thawed, read_time) = Default::default();
        Arc::new(Self { inner: Mutex::new(inner), wake: Mutex::default(), frozen, thawed, read_time })
    }

    /// The parts in which a crash keeps or loses a write: 512 bytes as disks promise, or down to 1.
    pub fn set_atom(&self, bytes: usize) {
        self.inner.lock().atom = bytes.max(1);
    }

    /// Whether what was submitted completes, in an order the seed picks, as soon as any thread reaps or waits, without a step. The waker
    /// is then called from within `submit`, so it must only signal.
    pub fn set_auto(&self, auto: bool) {
        self.inner.lock().auto = auto;
    }

    /// The space for all files, in bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.inner.lock().state.capacity = bytes;
    }

    /// Makes something go wrong.
    pub fn inject(&self, injection: Injection) {
        self.inner.lock().state.injections.push(injection);
    }

    /// Nothing that was injected goes wrong any more.
    pub fn end_faults(&self) {
        self.inner.lock().state.injections.clear();
    }

    /// Nothing changes any more until [`resume`](Self::resume): a call that would change something waits, as does one that asks for the free
    /// space. Reads go on.
    pub fn freeze(&self) {
        self.stall(Op::Write);
        self.stall(Op::Sync);
        *self.frozen.lock() = true;
    }

    /// The state, once the disk is not frozen.
    fn thawed(&self) -> MutexGuard<'_, Inner> {
        let mut frozen = self.frozen.lock();
        while *frozen {
            self.thawed.wait(&mut frozen);
        }
        self.inner.lock()
    }

    /// The state, once reads do not stall.
    fn reading(&self) -> MutexGuard<'_, Inner> {
        let mut frozen = self.frozen.lock();
        loop {
            let inner = self.inner.lock();
            if !inner.state.stalled.contains(&Op::Read) {
                return inner;
            }
            drop(inner);
            self.thawed.wait(&mut frozen);
        }
    }

    /// Submitted operations of this kind complete no more, and reads do not return, until [`resume`](Self::resume). Other blocking calls do not
    /// stall.
    pub fn stall(&self, op: Op) {
        self.inner.lock().state.stalled.push(op);
    }

    /// Each read takes so long from now on.
    pub fn slow_reads(&self, each: Duration) {
        *self.read_time.lock() = each;
    }

    /// Ends all stalls.
    pub fn resume(&self) {
        let mut frozen = self.frozen.lock();
        *frozen = false;
        self.inner.lock().state.stalled.clear();
        self.thawed.notify_all();
        drop(frozen);
        self.wake();
    }

    /// Operations, other than reads, that were carried out or failed so far.
    pub fn operations(&self) -> u64 {
        self.inner.lock().state.operations
    }

    /// Turns one bit of a file over, on the platter and in the cache.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn flip_bit(&self, name: &str, pos: u64, bit: u8) {
        let mut inner = self.inner.lock();
        let no = *inner.state.names.get(name).expect("a bit is flipped in a file that exists");
        let inode = inner.state.inode_mut(no);
        assert!(pos < inode.len, "a bit is flipped inside the file");
        for image in [&mut inode.cached, &mut inode.durable] {
            let mut byte = [0];
            image.read(pos, &mut byte);
            image.write(pos, &[byte[0] ^ (1 << bit)]);
        }
    }

    /// Completes one submitted operation; false when none can.
    pub fn step(&self) -> bool {
        let stepped = self.inner.lock().step();
        if stepped {
            self.wake();
        }
        stepped
    }

    /// Completes all submitted operations that can; gives how many.
    pub fn run(&self) -> usize {
        std::iter::from_fn(|| self.step().then_some(())).count()
    }

    /// Cuts the power. What was not durable has a fate that the seed picks; this disk answers errors only, and the one
    /// returned is what is found afterwards.
    pub fn crash(&self) -> Arc<Self> {
        let point = self.power_off();
        let fates = point.random_fates();
        point.survive(&fates)
    }

    /// Cuts the power and leaves it to the caller what is kept. Calls on this disk fail from now on: it is gone.
    pub fn power_off(&self) -> CrashPoint {
        let point = self.inner.lock().power_off();
        self.wake();
        point
    }

    /// The disk as a power cut at this moment would find it.
    pub fn crash_point(&self) -> CrashPoint {
        self.inner.lock().crash_point()
    }

    /// Keeps, from now on, a [`CrashPoint`] after every submission, completion and blocking operation.
    pub fn record(&self) {
        let mut inner = self.inner.lock();
        let first = inner.crash_point();
        inner.recording = Some(vec![first]);
    }

    /// What was recorded, from the first moment on; ends the recording.
    pub fn recorded(&self) -> Vec<CrashPoint> {
        self.inner.lock().recording.take().unwrap_or_default()
    }

    fn wake(&self) {
        let wake = self.wake.lock().clone();
        if let Some(wake) = wake {
            wake();
        }
    }
}

impl Inner {
    fn crash_point(&self) -> CrashPoint {
        CrashPoint::new(self.state.clone(), self.atom, self.auto)
    }

    fn power_off(&mut self) -> CrashPoint {
        let point = self.crash_point();
        self.state.powered = false;
        for op in std::mem::take(&mut self.state.in_flight) {
            let result = self.check_power();
            self.state.done.push(Completion { token: op.token, result });
        }
        point
    }

    fn note(&mut self) {
        if self.recording.is_some() {
            let point = self.crash_point();
            self.recording.iter_mut().for_each(|r| r.push(point.clone()));
        }
    }

    fn check_power(&self) -> Result<(), DiskError> {
        if self.state.powered {
            return Ok(());
        }
        Err(io_fault("reach", "the disk after a power cut".into()))
    }

    fn check(&self) -> Result<(), DiskError> {
        self.check_power()?;
        match &self.state.failed {
            Some(cause) => Err(DiskError::Failed { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// The fault, if any, that befalls this operation; counts it.
    fn fault(&mut self, op: Op) -> Option<Fault> {
        self.state.operations += u64::from(op != Op::Read);
        let concerned = |i: &Injection| i.op.map_or(op != Op::Read, |only| only == op);
        let mut befallen = None;
        for (i, injection) in self.state.injections.iter_mut().enumerate().filter(|(_, i)| concerned(i)) {
            match injection.skip.checked_sub(1) {
                Some(left) => injection.skip = left,
                None => befallen = befallen.or(Some(i)),
            }
        }
        let i = befallen?;
        let Injection { fault, lasting, .. } = self.state.injections[i];
        if !lasting {
            self.state.injections.remove(i);
        }
        Some(fault)
    }

    /// An operation on the directory or a file, which fails if a fault befalls it.
    fn attempt(&mut self, op: Op, path: &str) -> Result<(), DiskError> {
        match self.fault(op) {
            None => Ok(()),
            Some(Fault::Full) => Err(DiskError::full("change", path.to_owned())),
            Some(Fault::Io | Fault::Short | Fault::WrongBits) => Err(io_fault("change", path.to_owned())),
            Some(Fault::NoDescriptors) => Err(DiskError::NoDescriptors { path: path.to_owned() }),
        }
    }

    fn fail(&mut self, error: &DiskError) {
        self.state.failed.get_or_insert_with(|| Arc::new(error.clone()));
    }

    fn check_write(&self, file: FileId, pos: u64, len: u64) -> Result<InodeNo, DiskError> {
        self.check()?;
        let no = self.state.inode_no(file)?;
        check_sectors(pos, len, || self.state.path(no))?;
        check_bounds(pos, len, self.state.inode(no).len, || self.state.path(no))?;
        Ok(no)
    }

    fn write(&mut self, no: InodeNo, pos: u64, data: bytes::Bytes, sync: bool) -> Result<(), DiskError> {
        let len = data.len() as u64;
        let fault = self.fault(Op::Write);
        // A write that failed was carried out up to some place; a short one not to its end.
        let done = match fault {
            None => len,
            Some(Fault::Short) => self.state.rng.below(len / 512) * 512,
            Some(Fault::Full | Fault::Io | Fault::WrongBits) => self.state.rng.below(len / 512 + 1) * 512,
            Some(Fault::NoDescriptors) => 0,
        };
        self.state.completed += 1;
        let completed = self.state.completed;
        if done > 0 {
            let pending = UnsyncedWrite { completed, pos, data: data.slice(..done as usize) };
            self.state.inode_mut(no).complete(pending, sync && fault.is_none());
        }
        let path = self.state.path(no);
        match fault {
            None => Ok(()),
            Some(Fault::Full) => Err(DiskError::full("write", path)),
            Some(Fault::Short) => Err(DiskError::ShortWrite { path, pos, len, done }),
            Some(Fault::Io | Fault::WrongBits) => Err(io_fault("write", path)),
            Some(Fault::NoDescriptors) => Err(DiskError::NoDescriptors { path }),
        }
    }

    fn sync(&mut self, no: InodeNo, completed: u64) -> Result<(), DiskError> {
        let path = self.state.path(no);
        self.state.completed += 1;
        let result = self.attempt(Op::Sync, &path);
        let inode = self.state.inode_mut(no);
        match result {
            Ok(()) => inode.flush(completed),
            Err(_) => inode.doubt(completed),
        }
        result
    }

    fn step(&mut self) -> bool {
        let state = &mut self.state;
        let ready: Vec<usize> = (0..state.in_flight.len())
            .filter(|&i| state.powered && !state.stalled.contains(&state.in_flight[i].action.op()))
            .collect();
        if ready.is_empty() {
            return false;
        }
        let chosen = ready[state.rng.below(ready.len() as u64) as usize];
        let InFlight { token, inode, action } = state.in_flight.remove(chosen);
        let result = self.check().and_then(|()| match action {
            Action::Write { pos, data, sync } => self.write(inode, pos, data, sync),
            Action::Sync { completed } => self.sync(inode, completed),
        });
        if let Err(error) = &result
            && !error.is_shortage()
        {
            self.fail(error);
        }
        self.state.done.push(Completion { token, result });
        self.forget_unreachable();
        self.note();
        true
    }

    fn submit(&mut self, op: InFlight) {
        self.state.in_flight.push(op);
        self.note();
    }

    fn forget_unreachable(&mut self) {
        let state = &mut self.state;
        let reachable = |no: &InodeNo| {
            [&state.names, &state.durable_names].iter().any(|names| names.values().any(|n| n == no))
                || state.open.values().any(|n| n == no)
                || state.in_flight.iter().any(|f| f.inode == *no)
        };
        let kept: BTreeMap<_, _> =
            state.inodes.iter().filter(|(no, _)| reachable(no)).map(|(no, i)| (*no, i.clone())).collect();
        state.inodes = kept;
    }

    fn run_if_auto(&mut self) {
        while self.auto && self.step() {}
    }
}

/// A bit of each sector, behind what a block's frame takes of its first one.
fn flip_bits(buf: &mut [u8]) {
    buf.chunks_mut(512).filter_map(|sector| sector.get_mut(300)).for_each(|byte| *byte ^= 4);
}

fn io_fault(op: &'static str, path: String) -> DiskError {
    DiskError::Io { op, path, source: Arc::new(io::Error::other("a simulated fault")) }
}

impl Disk for SimDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        let inner = self.inner.lock();
        inner.check_power()?;
        Ok(inner.state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, len: u64) -> Result<FileId, DiskError> {
        let mut inner = self.thawed();
        inner.check()?;
        check_name(name)?;
        check_sectors(0, len, || name.to_owned())?;
        if inner.state.names.contains_key(name) {
            return Err(DiskError::Exists { path: name.to_owned() });
        }
        inner.attempt(Op::Create, name)?;
        if inner.state.used().saturating_add(len) > inner.state.capacity {
            return Err(DiskError::full("create", name.to_owned()));
        }
        let no = inner.state.next_inode;
        inner.state.next_inode += 1;
        inner.state.inodes.insert(no, Arc::new(Inode::new(len)));
        inner.state.change_dir(DirOp::Create(name.to_owned(), no));
        inner.note();
        Ok(inner.open_inode(no))
    }

    fn open(&self, name: &str) -> Result<FileId, DiskError> {
        let mut inner = self.inner.lock();
        inner.check_power()?;
        check_name(name)?;
        let no = inner.state.names.get(name).copied();
        let no = no.ok_or_else(|| DiskError::NotFound { path: name.to_owned() })?;
        Ok(inner.open_inode(no))
    }

    fn close(&self, file: FileId) {
        let mut inner = self.inner.lock();
        inner.state.open.remove(&file);
        inner.forget_unreachable();
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut inner = self.thawed();
        inner.check()?;
        check_name(to)?;
        if inner.state.names.contains_key(to) {
            return Err(DiskError::Exists { path: to.to_owned() });
        }
        let no = inner.state.names.get(from).copied();
        let no = no.ok_or_else(|| DiskError::NotFound { path: from.to_owned() })?;
        inner.attempt(Op::Rename, from)?;
        inner.state.change_dir(DirOp::Rename(from.to_owned(), to.to_owned(), no));
        inner.note();
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let mut inner = self.thawed();
        inner.check()?;
        let no = inner.state.names.get(name).copied();
        let no = no.ok_or_else(|| DiskError::NotFound { path: name.to_owned() })?;
        inner.attempt(Op::Remove, name)?;
        inner.state.change_dir(DirOp::Remove(name.to_owned(), no));
        inner.note();
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        let mut inner = self.thawed();
        inner.check()?;
        if let Err(error) = inner.attempt(Op::SyncDir, "the directory") {
            if !error.is_shortage() {
                inner.fail(&error);
            }
            return Err(error);
        }
        inner.state.durable_names = inner.state.names.clone();
        inner.state.dir_ops.clear();
        inner.forget_unreachable();
        inner.note();
        Ok(())
    }

    fn len(&self, file: FileId) -> Result<u64, DiskError> {
        let inner = self.inner.lock();
        inner.check_power()?;
        inner.state.inode_no(file).map(|no| inner.state.inode(no).len)
    }

    fn read_at(&self, file: FileId, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let read_time = *self.read_time.lock();
        if !read_time.is_zero() {
            std::thread::sleep(read_time);
        }
        let mut inner = self.reading();
        inner.check_power()?;
        let no = inner.state.inode_no(file)?;
        let path = inner.state.path(no);
        check_bounds(pos, buf.len() as u64, inner.state.inode(no).len, || path.clone())?;
        let fault = inner.fault(Op::Read);
        if fault.is_some_and(|fault| fault != Fault::WrongBits) {
            return Err(io_fault("read", path));
        }
        inner.state.inode(no).cached.read(pos, buf);
        if fault == Some(Fault::WrongBits) {
            flip_bits(buf);
        }
        Ok(())
    }

    fn write_at(&self, file: FileId, pos: u64, data: &[u8]) -> Result<(), DiskError> {
        let mut inner = self.thawed();
        let no = inner.check_write(file, pos, data.len() as u64)?;
        let result = inner.write(no, pos, bytes::Bytes::copy_from_slice(data), false);
        inner.note();
        result
    }

    fn sync(&self, file: FileId) -> Result<(), DiskError> {
        let mut inner = self.thawed();
        inner.check()?;
        let no = inner.state.inode_no(file)?;
        let completed = inner.state.completed;
        let result = inner.sync(no, completed);
        if let Err(error) = &result
            && !error.is_shortage()
        {
            inner.fail(error);
        }
        inner.note();
        result
    }

    fn submit(&self, op: WriteOp) -> Result<(), DiskError> {
        {
            let mut inner = self.inner.lock();
            let inode = inner.check_write(op.file, op.pos, op.data.len() as u64)?;
            let action = Action::Write { pos: op.pos, data: op.data, sync: op.sync };
            inner.submit(InFlight { token: op.token, inode, action });
        }
        self.wake_if_auto();
        Ok(())
    }

    fn submit_sync(&self, token: u64, file: FileId) -> Result<(), DiskError> {
        {
            let mut inner = self.inner.lock();
            inner.check()?;
            let inode = inner.state.inode_no(file)?;
            let action = Action::Sync { completed: inner.state.completed };
            inner.submit(InFlight { token, inode, action });
        }
        self.wake_if_auto();
        Ok(())
    }

    fn reap(&self, out: &mut Vec<Completion>) {
        let mut inner = self.inner.lock();
        inner.run_if_auto();
        out.append(&mut inner.state.done);
    }

    fn wait(&self, _timeout: Duration) -> bool {
        let ready = || !self.inner.lock().state.done.is_empty();
        // No other thread would step while the caller waits.
        ready() || (self.step() && ready())
    }

    fn event_fd(&self) -> Option<RawFd> {
        None
    }

    fn set_waker(&self, wake: WakeFn) {
        *self.wake.lock() = Some(wake);
    }

    fn depth(&self) -> usize {
        let inner = self.inner.lock();
        inner.state.in_flight.len() + inner.state.done.len()
    }

    fn has_completions(&self) -> bool {
        !self.inner.lock().state.done.is_empty()
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let inner = self.thawed();
        inner.check_power()?;
        Ok(inner.state.capacity.saturating_sub(inner.state.used()))
    }
}

impl SimDisk {
    fn wake_if_auto(&self) {
        if self.inner.lock().auto {
            self.wake();
        }
    }
}

impl Inner {
    fn open_inode(&mut self, no: InodeNo) -> FileId {
        let file = FileId(self.state.next_file);
        self.state.next_file += 1;
        self.state.open.insert(file, no);
        file
    }
}
