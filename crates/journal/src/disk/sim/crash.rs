//! What a power cut leaves: every disk that the rules allow.

use std::sync::Arc;

use bytes::Bytes;

use super::SimDisk;
use super::rng::Rng;
use super::state::{Action, DirOp, Inode, InodeNo, State, names_after};

/// Something a power cut may take.
#[derive(Debug, Clone)]
pub enum Unsynced {
    /// A name made, changed or removed since the directory was synced.
    Name(String),
    /// The length of a new file; without it the file is empty.
    Length(String),
    /// A write, completed or in flight.
    Write {
        /// Its file's name.
        file: String,
        /// Where it begins, in bytes.
        pos: u64,
        /// How long it is, in bytes.
        len: u64,
        /// Whether it had completed.
        completed: bool,
    },
}

/// What becomes of something unsynced. A name or a length is kept by `Kept` and lost by all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing of it is left.
    Lost,
    /// All of it is there.
    Kept,
    /// Its first bytes are there.
    Prefix(u64),
    /// All but its first bytes are there.
    Suffix(u64),
    /// Each atom is there or not, as this seed picks.
    Atoms(u64),
}

/// A write whose fate is open.
#[derive(Debug, Clone)]
struct OpenWrite {
    inode: InodeNo,
    pos: u64,
    data: Bytes,
    completed: bool,
}

/// A disk at one moment, and what is unsynced in it.
#[derive(Debug, Clone)]
pub struct CrashPoint {
    state: State,
    atom: usize,
    auto: bool,
    lengths: Vec<InodeNo>,
    /// In the order in which a cache would write them back.
    writes: Vec<OpenWrite>,
}

impl CrashPoint {
    pub(super) fn new(state: State, atom: usize, auto: bool) -> Self {
        let lengths = state.inodes.iter().filter(|(_, i)| !i.len_durable).map(|(no, _)| *no).collect();
        let writes = open_writes(&state);
        Self { state, atom, auto, lengths, writes }
    }

    /// How many operations there had been; as [`SimDisk::operations`].
    pub fn operations(&self) -> u64 {
        self.state.operations
    }

    /// What is unsynced, in the order of the fates: names, lengths, completed writes, writes in flight.
    pub fn unsynced(&self) -> Vec<Unsynced> {
        let names = self.state.dir_ops.iter().map(|op| match op {
            DirOp::Create(name, _) | DirOp::Remove(name, _) | DirOp::Rename(_, name, _) => {
                Unsynced::Name(name.clone())
            }
        });
        let lengths = self.lengths.iter().map(|&no| Unsynced::Length(self.state.path(no)));
        let writes = self.writes.iter().map(|w| Unsynced::Write {
            file: self.state.path(w.inode),
            pos: w.pos,
            len: w.data.len() as u64,
            completed: w.completed,
        });
        names.chain(lengths).chain(writes).collect()
    }

    fn count(&self) -> usize {
        self.state.dir_ops.len() + self.lengths.len() + self.writes.len()
    }

    /// The disk found if everything unsynced has the same fate.
    pub fn survive_all(&self, fate: Fate) -> Arc<SimDisk> {
        self.survive(&vec![fate; self.count()])
    }

    /// The disk found if what is [unsynced](Self::unsynced) has these fates; missing ones are `Lost`.
    pub fn survive(&self, fates: &[Fate]) -> Arc<SimDisk> {
        let fate = |i: usize| fates.get(i).copied().unwrap_or(Fate::Lost);
        let (dir_ops, lengths) = (self.state.dir_ops.len(), self.lengths.len());
        let names = names_after(&self.state.durable_names, &self.state.dir_ops, |i| fate(i) == Fate::Kept);

        // Another sequence than the one that picked these fates.
        let mut found = State::new(self.state.rng.clone().next());
        found.capacity = self.state.capacity;
        found.next_inode = self.state.next_inode;
        // Numbers of files opened before the cut stay unknown to the disk after it.
        found.next_file = self.state.next_file;
        for &no in names.values() {
            let mut inode = self.survivor(no);
            let unsynced_len = self.lengths.iter().position(|&l| l == no);
            if unsynced_len.is_some_and(|i| fate(dir_ops + i) != Fate::Kept) {
                inode = Inode::new(0);
            }
            inode.len_durable = true;
            found.inodes.insert(no, Arc::new(inode));
        }
        for (i, write) in self.writes.iter().enumerate() {
            let inode = found.inodes.get_mut(&write.inode).map(Arc::make_mut);
            if let Some(inode) = inode.filter(|inode| inode.len > 0) {
                self.keep_parts(inode, write, fate(dir_ops + lengths + i));
            }
        }
        (found.names, found.durable_names) = (names.clone(), names);
        SimDisk::over(found, self.atom, self.auto)
    }

    fn survivor(&self, no: InodeNo) -> Inode {
        let inode = self.state.inode(no);
        let mut found = Inode::new(inode.len);
        found.durable = inode.durable.clone();
        found.cached = inode.durable.clone();
        found
    }

    fn keep_parts(&self, inode: &mut Inode, write: &OpenWrite, fate: Fate) {
        let len = write.data.len();
        let at = |bytes: u64| (bytes as usize).min(len);
        match fate {
            Fate::Lost => {}
            Fate::Kept => keep(inode, write, 0, len),
            Fate::Prefix(bytes) => keep(inode, write, 0, at(bytes)),
            Fate::Suffix(bytes) => keep(inode, write, at(bytes), len),
            Fate::Atoms(seed) => {
                let mut rng = Rng::new(seed);
                for from in (0..len).step_by(self.atom).filter(|_| rng.below(2) == 0) {
                    keep(inode, write, from, len.min(from + self.atom));
                }
            }
        }
    }

    /// Fates that the disk's seed picks. A write is rarely all there or all gone.
    pub fn random_fates(&self) -> Vec<Fate> {
        self.fates_by(&mut self.state.rng.clone())
    }

    /// Fates that `seed` picks.
    pub fn fates_of(&self, seed: u64) -> Vec<Fate> {
        self.fates_by(&mut Rng::new(seed))
    }

    fn fates_by(&self, rng: &mut Rng) -> Vec<Fate> {
        let whole = self.state.dir_ops.len() + self.lengths.len();
        let lens = self.writes.iter().map(|w| (w.data.len() / self.atom) as u64 + 1);
        let either = |rng: &mut Rng| if rng.below(2) == 0 { Fate::Lost } else { Fate::Kept };
        let mut fates: Vec<Fate> = (0..whole).map(|_| either(rng)).collect();
        fates.extend(lens.map(|atoms| match rng.below(5) {
            0 => Fate::Lost,
            1 => Fate::Kept,
            2 => Fate::Prefix(rng.below(atoms) * self.atom as u64),
            3 => Fate::Suffix(rng.below(atoms) * self.atom as u64),
            _ => Fate::Atoms(rng.next()),
        }));
        fates
    }

    /// Every subset of what is unsynced, kept or lost, if there are no more than `limit`; else nothing, all, all but one,
    /// only one, and as many seeded others as the limit leaves.
    pub fn subsets(&self, limit: usize) -> Vec<Vec<Fate>> {
        let n = self.count();
        let of = |kept: &dyn Fn(usize) -> bool| -> Vec<Fate> {
            (0..n).map(|i| if kept(i) { Fate::Kept } else { Fate::Lost }).collect()
        };
        if u32::try_from(n).ok().and_then(|n| 1usize.checked_shl(n)).is_some_and(|all| all <= limit) {
            return (0..1usize << n).map(|bits| of(&|i| bits >> i & 1 == 1)).collect();
        }
        let mut subsets = vec![of(&|_| false), of(&|_| true)];
        subsets.extend((0..n).flat_map(|only| [of(&|i| i == only), of(&|i| i != only)]));
        let mut rng = Rng::new(n as u64);
        while subsets.len() < limit {
            let seed = rng.next();
            let bits = move |i: usize| Rng::new(seed ^ i as u64).next() & 1 == 1;
            subsets.push(of(&bits));
        }
        subsets.truncate(limit);
        subsets
    }

    /// Each unsynced write torn at each multiple of `step` bytes, once with its beginning kept and once with its end, all else being kept.
    pub fn tears(&self, step: usize) -> Vec<Vec<Fate>> {
        let first = self.count() - self.writes.len();
        let mut all = Vec::new();
        for (i, write) in self.writes.iter().enumerate() {
            for cut in (0..write.data.len()).step_by(step.max(1)) {
                for fate in [Fate::Prefix(cut as u64), Fate::Suffix(cut as u64)] {
                    let mut fates = vec![Fate::Kept; self.count()];
                    fates[first + i] = fate;
                    all.push(fates);
                }
            }
        }
        all
    }
}

fn keep(inode: &mut Inode, write: &OpenWrite, from: usize, to: usize) {
    for image in [&mut inode.durable, &mut inode.cached] {
        image.write(write.pos + from as u64, &write.data[from..to]);
    }
}

fn open_writes(state: &State) -> Vec<OpenWrite> {
    let pending = state.inodes.iter().flat_map(|(&inode, i)| {
        i.pending.iter().chain(&i.doubted).map(move |p| {
            (p.completed, OpenWrite { inode, pos: p.pos, data: p.data.clone(), completed: true })
        })
    });
    let mut completed: Vec<_> = pending.collect();
    completed.sort_by_key(|(number, _)| *number);
    let in_flight = state.in_flight.iter().filter_map(|f| match &f.action {
        Action::Write { pos, data, .. } => {
            Some(OpenWrite { inode: f.inode, pos: *pos, data: data.clone(), completed: false })
        }
        Action::Sync { .. } => None,
    });
    completed.into_iter().map(|(_, write)| write).chain(in_flight).collect()
}
