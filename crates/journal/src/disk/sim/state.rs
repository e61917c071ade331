//! The state of a simulated disk: what is on the platter, what is only in a cache, what is in flight.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::image::Image;
use super::rng::Rng;
use super::{Injection, Op};
use crate::disk::{Completion, DiskError, FileId};

pub(super) type InodeNo = u64;

/// A write that has completed and is not durable.
#[derive(Debug, Clone)]
pub(super) struct UnsyncedWrite {
    /// The number of its completion.
    pub(super) completed: u64,
    pub(super) pos: u64,
    pub(super) data: Bytes,
}

impl UnsyncedWrite {
    /// What is left of it outside `from..to`.
    fn outside(self, from: u64, to: u64) -> impl Iterator<Item = Self> {
        let end = self.pos + self.data.len() as u64;
        let (before, after) = (from.clamp(self.pos, end), to.clamp(self.pos, end));
        let piece = move |from: u64, to: u64| Self {
            completed: self.completed,
            pos: from,
            data: self.data.slice((from - self.pos) as usize..(to - self.pos) as usize),
        };
        [piece(self.pos, before), piece(after, end)].into_iter().filter(|p| !p.data.is_empty())
    }
}

/// A file, whatever it is called.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) len: u64,
    pub(super) len_durable: bool,
    /// What reads see.
    pub(super) cached: Image,
    /// What a power cut keeps for certain.
    pub(super) durable: Image,
    /// In the order of completion.
    pub(super) pending: Vec<UnsyncedWrite>,
    /// What a sync did not make durable that failed: reads may see it, and no later sync makes it durable.
    pub(super) doubted: Vec<UnsyncedWrite>,
}

impl Inode {
    pub(super) fn new(len: u64) -> Self {
        Self {
            len,
            len_durable: false,
            cached: Image::default(),
            durable: Image::default(),
            pending: Vec::new(),
            doubted: Vec::new(),
        }
    }

    /// A write has completed.
    pub(super) fn complete(&mut self, write: UnsyncedWrite, durable: bool) {
        self.cached.write(write.pos, &write.data);
        if durable {
            self.settle(write);
        } else {
            self.pending.push(write);
        }
    }

    /// These bytes are on the platter, over whatever older ones a cache still holds.
    fn settle(&mut self, write: UnsyncedWrite) {
        self.durable.write(write.pos, &write.data);
        self.len_durable = true;
        let (from, to) = (write.pos, write.pos + write.data.len() as u64);
        for unsynced in [&mut self.pending, &mut self.doubted] {
            *unsynced = std::mem::take(unsynced).into_iter().flat_map(|p| p.outside(from, to)).collect();
        }
    }

    /// A sync that was asked for when `completed` operations had completed.
    pub(super) fn flush(&mut self, completed: u64) {
        self.len_durable = true;
        let (flushed, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|p| p.completed <= completed);
        for p in flushed {
            self.durable.write(p.pos, &p.data);
            let (from, to) = (p.pos, p.pos + p.data.len() as u64);
            let doubted = std::mem::take(&mut self.doubted).into_iter();
            self.doubted = doubted.flat_map(|p| p.outside(from, to)).collect();
        }
        self.pending = left;
    }

    /// The same for a sync that failed.
    pub(super) fn doubt(&mut self, completed: u64) {
        self.doubted.extend(self.pending.extract_if(.., |p| p.completed <= completed));
    }
}

/// A change of the directory.
#[derive(Debug, Clone)]
pub(super) enum DirOp {
    Create(String, InodeNo),
    Rename(String, String, InodeNo),
    Remove(String, InodeNo),
}

impl DirOp {
    fn touches(&self, other: &Self) -> bool {
        let (own, theirs) = (self.names(), other.names());
        self.inode() == other.inode() || own.iter().flatten().any(|n| theirs.contains(&Some(n)))
    }

    fn inode(&self) -> InodeNo {
        match self {
            Self::Create(_, no) | Self::Rename(_, _, no) | Self::Remove(_, no) => *no,
        }
    }

    fn names(&self) -> [Option<&str>; 2] {
        match self {
            Self::Create(name, _) | Self::Remove(name, _) => [Some(name), None],
            Self::Rename(from, to, _) => [Some(from), Some(to)],
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, InodeNo>) {
        match self {
            Self::Create(name, no) => {
                names.insert(name.clone(), *no);
            }
            Self::Remove(name, _) => {
                names.remove(name);
            }
            Self::Rename(from, to, no) => {
                names.remove(from);
                names.insert(to.clone(), *no);
            }
        }
    }
}

/// The names after those of `ops` that `kept` says, less those that need one that is not kept.
pub(super) fn names_after(
    durable: &BTreeMap<String, InodeNo>,
    ops: &[DirOp],
    kept: impl Fn(usize) -> bool,
) -> BTreeMap<String, InodeNo> {
    let mut names = durable.clone();
    let mut lost: Vec<&DirOp> = Vec::new();
    for (i, op) in ops.iter().enumerate() {
        if kept(i) && !lost.iter().any(|l| l.touches(op)) {
            op.apply(&mut names);
        } else {
            lost.push(op);
        }
    }
    names
}

/// A submitted operation that has not completed.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub(super) token: u64,
    pub(super) inode: InodeNo,
    pub(super) action: Action,
}

#[derive(Debug, Clone)]
pub(super) enum Action {
    Write {
        pos: u64,
        data: Bytes,
        sync: bool,
    },
    /// With the number of completions when it was submitted: what came later it promises nothing for.
    Sync {
        completed: u64,
    },
}

impl Action {
    pub(super) fn op(&self) -> Op {
        match self {
            Self::Write { .. } => Op::Write,
            Self::Sync { .. } => Op::Sync,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) inodes: BTreeMap<InodeNo, Arc<Inode>>,
    pub(super) next_inode: InodeNo,
    pub(super) names: BTreeMap<String, InodeNo>,
    pub(super) durable_names: BTreeMap<String, InodeNo>,
    /// Since the last sync of the directory.
    pub(super) dir_ops: Vec<DirOp>,
    pub(super) open: BTreeMap<FileId, InodeNo>,
    pub(super) next_file: u64,
    pub(super) in_flight: Vec<InFlight>,
    pub(super) done: Vec<Completion>,
    pub(super) completed: u64,
    pub(super) capacity: u64,
    pub(super) injections: Vec<Injection>,
    pub(super) stalled: Vec<Op>,
    /// Operations that changed or could have changed something, so far.
    pub(super) operations: u64,
    pub(super) failed: Option<Arc<DiskError>>,
    pub(super) powered: bool,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            inodes: BTreeMap::new(),
            next_inode: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            dir_ops: Vec::new(),
            open: BTreeMap::new(),
            next_file: 1,
            in_flight: Vec::new(),
            done: Vec::new(),
            completed: 0,
            capacity: 1 << 40,
            injections: Vec::new(),
            stalled: Vec::new(),
            operations: 0,
            failed: None,
            powered: true,
        }
    }

    pub(super) fn inode_no(&self, file: FileId) -> Result<InodeNo, DiskError> {
        self.open.get(&file).copied().ok_or(DiskError::NotOpen { file })
    }

    pub(super) fn inode(&self, no: InodeNo) -> &Inode {
        self.inodes.get(&no).expect("an inode lives while it is named or open")
    }

    pub(super) fn inode_mut(&mut self, no: InodeNo) -> &mut Inode {
        Arc::make_mut(self.inodes.get_mut(&no).expect("an inode lives while it is named, open or in flight"))
    }

    /// A name for messages.
    pub(super) fn path(&self, no: InodeNo) -> String {
        let named = self.names.iter().find(|&(_, &n)| n == no);
        named.map_or_else(|| format!("unnamed file {no}"), |(name, _)| name.clone())
    }

    /// What files that are named or open take.
    pub(super) fn used(&self) -> u64 {
        let live = |no: &InodeNo| {
            self.names.values().any(|n| n == no)
                || self.open.values().any(|n| n == no)
                || self.in_flight.iter().any(|f| f.inode == *no)
        };
        self.inodes.iter().filter(|(no, _)| live(no)).map(|(_, inode)| inode.len).sum()
    }

    pub(super) fn change_dir(&mut self, op: DirOp) {
        op.apply(&mut self.names);
        self.dir_ops.push(op);
    }
}
