//! A file below redb of which every block that is read is verified, so that rot is an error by name before a B-tree is walked on it.
//!
//! ```text
//!   header A │ header B │ sums 0 │ blocks 1..=1024 │ sums 1 │ blocks 1025..=2048 │ …
//!    2 blocks   2 blocks   1 block                   1 block
//! ```
//!
//! redb rewrites its first block in place, guided by nothing but its own order of syncs. It is kept in memory and written at a
//! sync, once to each copy with a flush between, so that one of them is whole at any moment. Every other block has a CRC-32C in
//! the sums before it, 0 for one never written, which reads as zeros. Sums are written with the next sync: a crash before it can
//! part them only from blocks that no committed tree holds, since redb writes no block that one does. A sum lies within
//! one sector, so tearing changes none that stands for an older block.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use parking_lot::Mutex;
use redb::StorageBackend;
use rustc_hash::FxHashMap;
use sabir_base::crc::crc32c;

const BLOCK: usize = 4096;
const SUMS: usize = BLOCK / 4;
/// Blocks of both copies of the header.
const HEADERS: u64 = 4;
const MAGIC: &[u8; 8] = b"sabirpg1";
/// Blocks read or written by one call at most.
const LONGEST_RUN: usize = 16;
/// Sums kept in memory unless they are to be written: 4 KiB each, for 4 MiB of blocks.
const KEEP_SUMS: usize = 256;

/// What a checked file lies in.
pub(super) trait RawFile: fmt::Debug + Send + Sync + 'static {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, pos: u64, data: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn sync(&self) -> io::Result<()>;
}

impl RawFile for File {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buf, pos)
    }
    fn write_at(&self, pos: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, pos)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }
    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|m| m.len())
    }
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// redb's first block and the file's length as redb sees it.
#[derive(Debug, Clone)]
struct Header {
    block: Box<[u8; BLOCK]>,
    len: u64,
    /// How often it has been written.
    written: u64,
}

impl Header {
    fn encode(&self) -> [u8; 2 * BLOCK] {
        let mut copy = [0; 2 * BLOCK];
        copy[..BLOCK].copy_from_slice(&*self.block);
        copy[BLOCK..BLOCK + 8].copy_from_slice(MAGIC);
        copy[BLOCK + 8..BLOCK + 16].copy_from_slice(&self.len.to_le_bytes());
        copy[BLOCK + 16..BLOCK + 24].copy_from_slice(&self.written.to_le_bytes());
        let sum = crc32c(&copy[..BLOCK + 24]);
        copy[BLOCK + 24..BLOCK + 28].copy_from_slice(&sum.to_le_bytes());
        copy
    }

    /// The header of a copy that is whole.
    fn decode(copy: &[u8; 2 * BLOCK]) -> Option<Self> {
        let (block, trailer) = copy.split_first_chunk::<BLOCK>()?;
        let field = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| trailer[at + i]));
        let sum = crc32c(&copy[..BLOCK + 24]).to_le_bytes();
        let whole = trailer.starts_with(MAGIC) && trailer[24..28] == sum;
        whole.then(|| Self { block: Box::new(*block), len: field(8), written: field(16) })
    }
}

/// The sums of a group of blocks.
#[derive(Debug)]
struct Sums {
    sums: Box<[u32; SUMS]>,
    dirty: bool,
}

#[derive(Debug)]
struct State {
    header: Header,
    dirty: bool,
    groups: FxHashMap<u64, Sums>,
    /// Whether the file has failed to take something; what it holds then is for the next opening to see.
    failed: bool,
}

/// The file, as redb's storage.
#[derive(Debug)]
pub(super) struct Checked<F> {
    file: F,
    state: Mutex<State>,
}

/// Some blocks in a row of one group, and where in the caller's buffer they lie.
struct Run {
    first: u64,
    from: usize,
    to: usize,
}

fn group_of(block: u64) -> (u64, usize) {
    ((block - 1) / SUMS as u64, ((block - 1) % SUMS as u64) as usize)
}

fn sums_at(group: u64) -> u64 {
    (HEADERS + group * (SUMS as u64 + 1)) * BLOCK as u64
}

fn place_of(block: u64) -> u64 {
    let (group, index) = group_of(block);
    sums_at(group) + (1 + index as u64) * BLOCK as u64
}

/// What stands for a block in the sums; not 0, and another one for the same bytes elsewhere.
fn sum_of(block: u64, data: &[u8]) -> u32 {
    let place = (block as u32).wrapping_mul(0x9e37_79b9);
    (crc32c(data) ^ place).max(1)
}

fn rotten(what: fmt::Arguments<'_>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl<F: RawFile> Checked<F> {
    /// A file to begin with; whatever it holds is lost.
    pub(super) fn create(file: F) -> io::Result<Self> {
        file.set_len(0)?;
        let header = Header { block: Box::new([0; BLOCK]), len: 0, written: 0 };
        Ok(Self::over(file, header))
    }

    /// A file that was closed or crashed.
    pub(super) fn open(file: F) -> io::Result<Self> {
        if file.len()? < HEADERS * BLOCK as u64 {
            return Err(rotten(format_args!("it is shorter than its header")));
        }
        let copy = |at: u64| -> io::Result<Option<Header>> {
            let mut copy = [0; 2 * BLOCK];
            file.read_at(at, &mut copy)?;
            Ok(Header::decode(&copy))
        };
        let copies = [copy(0)?, copy(2 * BLOCK as u64)?];
        let newest = copies.into_iter().flatten().max_by_key(|header| header.written);
        let header = newest.ok_or_else(|| rotten(format_args!("neither copy of its header is whole")))?;
        Ok(Self::over(file, header))
    }

    fn over(file: F, header: Header) -> Self {
        let state = State { header, dirty: false, groups: FxHashMap::default(), failed: false };
        Self { file, state: Mutex::new(state) }
    }

    fn with_sums<T>(
        &self,
        state: &mut State,
        group: u64,
        work: impl FnOnce(&mut Sums) -> T,
    ) -> io::Result<T> {
        if !state.groups.contains_key(&group) {
            if state.groups.len() >= KEEP_SUMS {
                state.groups.retain(|_, sums| sums.dirty);
            }
            let sums = Sums { sums: self.read_sums(group)?, dirty: false };
            state.groups.insert(group, sums);
        }
        Ok(work(state.groups.get_mut(&group).expect("read in the lines above")))
    }

    fn read_sums(&self, group: u64) -> io::Result<Box<[u32; SUMS]>> {
        let mut sums = Box::new([0; SUMS]);
        if sums_at(group) + BLOCK as u64 <= self.file.len()? {
            let mut bytes = [0; BLOCK];
            self.file.read_at(sums_at(group), &mut bytes)?;
            let (chunks, _) = bytes.as_chunks::<4>();
            sums.iter_mut().zip(chunks).for_each(|(sum, chunk)| *sum = u32::from_le_bytes(*chunk));
        }
        Ok(sums)
    }

    fn read_run(&self, run: &Run, out: &mut [u8]) -> io::Result<()> {
        let (group, index) = group_of(run.first);
        let (mut sums, count) = ([0; LONGEST_RUN], out.len() / BLOCK);
        self.with_sums(&mut self.state.lock(), group, |s| {
            sums[..count].copy_from_slice(&s.sums[index..index + count]);
        })?;
        self.file.read_at(place_of(run.first), out)?;
        for ((block, data), sum) in (run.first..).zip(out.chunks_mut(BLOCK)).zip(sums) {
            match sum {
                0 => data.fill(0),
                sum if sum == sum_of(block, data) => {}
                _ => return Err(rotten(format_args!("block {block} fails its checksum"))),
            }
        }
        Ok(())
    }

    fn write_run(&self, run: &Run, data: &[u8]) -> io::Result<()> {
        self.file.write_at(place_of(run.first), data)?;
        let (group, index) = group_of(run.first);
        self.with_sums(&mut self.state.lock(), group, |s| {
            s.dirty = true;
            for (i, data) in data.chunks(BLOCK).enumerate() {
                s.sums[index + i] = sum_of(run.first + i as u64, data);
            }
        })
    }

    fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        let file_len = self.state.lock().header.len;
        if offset.checked_add(len as u64).is_some_and(|end| end <= file_len) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{len} bytes at {offset} of {file_len}")))
    }

    /// Calls with the parts of `offset..offset + len` that lie in one block or are whole blocks of one group.
    fn for_each_part(
        offset: u64,
        len: usize,
        mut each: impl FnMut(u64, usize, Run) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let here = offset + done as u64;
            let (first, skip) = (here / BLOCK as u64, (here % BLOCK as u64) as usize);
            let left = len - done;
            let n = if skip > 0 || left < BLOCK || first == 0 {
                left.min(BLOCK - skip)
            } else {
                let in_group = (SUMS - group_of(first).1).min(LONGEST_RUN);
                (left / BLOCK).min(in_group) * BLOCK
            };
            each(first, skip, Run { first, from: done, to: done + n })?;
            done += n;
        }
        Ok(())
    }

    fn write_sums(&self, state: &mut State) -> io::Result<()> {
        for (&group, sums) in state.groups.iter_mut().filter(|(_, sums)| sums.dirty) {
            let bytes: Vec<u8> = sums.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
            self.file.write_at(sums_at(group), &bytes)?;
            sums.dirty = false;
        }
        Ok(())
    }

    /// Forgets the sums of blocks beyond the end, so that they read as zeros if the file grows again.
    fn forget_beyond(&self, state: &mut State, old_len: u64, len: u64) -> io::Result<()> {
        let (first, end) = (len.div_ceil(BLOCK as u64).max(1), old_len.div_ceil(BLOCK as u64));
        for block in first..end {
            let (group, index) = group_of(block);
            self.with_sums(state, group, |s| {
                s.sums[index] = 0;
                s.dirty = true;
            })?;
        }
        Ok(())
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let old_len = std::mem::replace(&mut state.header.len, len);
        state.dirty = true;
        if len < old_len {
            // The space is given back when the new length is durable.
            return self.forget_beyond(&mut state, old_len, len);
        }
        if raw_len(len) > self.file.len()? { self.file.set_len(raw_len(len)) } else { Ok(()) }
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        self.write_sums(&mut state)?;
        if !state.dirty {
            return self.file.sync();
        }
        state.header.written += 1;
        let copy = state.header.encode();
        for at in [0, copy.len() as u64] {
            self.file.write_at(at, &copy)?;
            self.file.sync()?;
        }
        state.dirty = false;
        let raw_len = raw_len(state.header.len);
        if self.file.len()? > raw_len { self.file.set_len(raw_len) } else { Ok(()) }
    }

    fn write_parts(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_range(offset, data.len())?;
        Self::for_each_part(offset, data.len(), |first, skip, run| {
            let data = &data[run.from..run.to];
            if first == 0 {
                let mut state = self.state.lock();
                state.header.block[skip..skip + data.len()].copy_from_slice(data);
                state.dirty = true;
            } else if data.len().is_multiple_of(BLOCK) {
                self.write_run(&run, data)?;
            } else {
                let mut block = [0; BLOCK];
                self.read_run(&run, &mut block)?;
                block[skip..skip + data.len()].copy_from_slice(data);
                self.write_run(&run, &block)?;
            }
            Ok(())
        })
    }

    fn noting_failure(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        work().inspect_err(|_| self.state.lock().failed = true)
    }
}

/// The length of a file in which redb sees `len` bytes.
fn raw_len(len: u64) -> u64 {
    match len.div_ceil(BLOCK as u64) {
        0 | 1 => HEADERS * BLOCK as u64,
        blocks => place_of(blocks - 1) + BLOCK as u64,
    }
}

impl<F: RawFile> StorageBackend for Checked<F> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().header.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, out.len())?;
        Self::for_each_part(offset, out.len(), |first, skip, run| {
            let out = &mut out[run.from..run.to];
            if first == 0 {
                out.copy_from_slice(&self.state.lock().header.block[skip..skip + out.len()]);
            } else if out.len().is_multiple_of(BLOCK) {
                self.read_run(&run, out)?;
            } else {
                let mut block = [0; BLOCK];
                self.read_run(&run, &mut block)?;
                out.copy_from_slice(&block[skip..skip + out.len()]);
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noting_failure(|| self.resize(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noting_failure(|| self.sync_all())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noting_failure(|| self.write_parts(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        let unwritten = {
            let state = self.state.lock();
            !state.failed && (state.dirty || state.groups.values().any(|sums| sums.dirty))
        };
        if unwritten { self.sync_data() } else { Ok(()) }
    }
}
