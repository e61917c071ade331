//! A file below redb of which every block that is read is verified, so that rot is an error by name before a B-tree is walked on it.
//!
//! ```text
//!   header A │ header B │ sums 0 │ blocks 1..=1016 │ sums 1 │ blocks 1017..=2032 │ …
//!    2 blocks   2 blocks   1 block                   1 block
//! ```
//!
//! Each 512-byte sector of a sums block holds 127 sums and a CRC-32C over them, so that sums which are gone are told from sums of
//! blocks that were never written. Files of the first form have 1,024 sums a block and no such check; they stay as they are.
//!
//! redb rewrites its first block in place, guided by nothing but its own order of syncs. It is kept in memory and written at a
//! sync, once to each copy with a flush between, so that one of them is whole at any moment. Every other block has a CRC-32C in
//! the sums before it, 0 for one never written, which reads as zeros. Sums are written with the next sync: a crash before it can
//! part them only from blocks that no committed tree holds, since redb writes no block that one does. A sum lies with its check
//! in one sector, so tearing changes none that stands for an older block. Sums of blocks that a longer file has are synced
//! before a header says that it is longer.
//!
//! The file may be longer than its header says: what lies behind that is [kept](Preallocation) for it to grow into, and means nothing.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;
use rustc_hash::FxHashMap;
use sabir_base::crc::crc32c;

use crate::disk::{UnderWay, lengthen_allocated};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Sums in a sector, before the check.
const SUMS_IN_SECTOR: usize = SECTOR / 4 - 1;
/// Blocks of both copies of the header.
const HEADERS: u64 = 4;
#[cfg(test)]
pub(super) const HEADER_BYTES: usize = HEADERS as usize * BLOCK;
const MAGIC_1: &[u8; 8] = b"sabirpg1";
const MAGIC_2: &[u8; 8] = b"sabirpg2";
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
    /// What the file takes on its disk, in bytes; holes do not count.
    fn taken(&self) -> io::Result<u64>;
    /// Has the file system set space aside for a range that begins at or before the end and goes on behind it, and makes the file so long. What
    /// is in it stays.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()>;
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
    fn taken(&self) -> io::Result<u64> {
        // In units of 512 bytes, whatever the file system's are.
        self.metadata().map(|m| m.blocks() * 512)
    }
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        lengthen_allocated(self, from, to)
    }
}

/// What is kept behind the end of a checked file: space of the file's own, which a commit grows into where the file system has none left for it,
/// and which no other program gets at any moment.
#[derive(Debug, Default)]
pub(super) struct Preallocation(Mutex<PreallocationPlaces>);

#[derive(Debug, Default)]
struct PreallocationPlaces {
    /// Where the file ends by its header, or by what it is about to say.
    end: u64,
    /// How much is to be kept behind it.
    wanted: u64,
    /// Up to where space is allocated, as far as is known.
    allocated: u64,
}

impl Preallocation {
    /// Where the file ends without it.
    pub(super) fn end(&self) -> u64 {
        self.0.lock().end
    }

    /// How much of the file is allocated, as far as is known.
    pub(super) fn allocated(&self) -> u64 {
        self.0.lock().allocated
    }

    /// Has so many bytes allocated behind the end. An error leaves what there was.
    pub(super) fn keep(&self, file: &dyn RawFile, bytes: u64) -> io::Result<()> {
        // Held while the file gets longer, so that nothing is in what is added meanwhile.
        let mut places = self.0.lock();
        places.wanted = bytes;
        let to = places.end + bytes;
        if places.allocated >= to {
            return Ok(());
        }
        let before = file.len()?;
        // A file system may ask for space anew for a range that has all of it, and not find it (XFS).
        if before >= to && file.taken()? >= to {
            places.allocated = to;
            return Ok(());
        }
        // With what was added to the content behind an older tail, and has its space only as it is written.
        let allocated = file.allocate(places.allocated.min(places.end), to);
        match allocated {
            Ok(()) => places.allocated = to,
            // A part of it would take all the space that is left, and be counted nowhere.
            Err(_) => file.set_len(before)?,
        }
        allocated
    }

    /// So much is behind the end of a file that is opened: it stays until it is said how much is to be kept.
    fn find(&self, bytes: u64) {
        let mut places = self.0.lock();
        places.wanted = places.wanted.max(bytes);
    }

    /// The file's content gets longer: the file, too, where the tail does not do.
    fn lengthen(&self, file: &dyn RawFile, end: u64) -> io::Result<()> {
        let mut places = self.0.lock();
        places.end = places.end.max(end);
        if end > file.len()? { file.set_len(end) } else { Ok(()) }
    }

    /// The file's content ends there, durably: what lies behind the tail is given back.
    fn cut(&self, file: &dyn RawFile, end: u64) -> io::Result<()> {
        let mut places = self.0.lock();
        places.end = end;
        let kept = end + places.wanted;
        if file.len()? <= kept {
            return Ok(());
        }
        places.allocated = places.allocated.min(kept);
        file.set_len(kept)
    }
}

/// A file whose changes and reads are noted while they are under way.
#[derive(Debug)]
pub(super) struct WatchedFile {
    pub(super) file: File,
    pub(super) under_way: Arc<UnderWay>,
}

impl RawFile for WatchedFile {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.under_way.during(|| RawFile::read_at(&self.file, pos, buf))
    }
    fn write_at(&self, pos: u64, data: &[u8]) -> io::Result<()> {
        self.under_way.during(|| RawFile::write_at(&self.file, pos, data))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.under_way.during(|| self.file.set_len(len))
    }
    fn len(&self) -> io::Result<u64> {
        RawFile::len(&self.file)
    }
    fn sync(&self) -> io::Result<()> {
        self.under_way.during(|| self.file.sync())
    }
    fn taken(&self) -> io::Result<u64> {
        self.under_way.during(|| RawFile::taken(&self.file))
    }
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.under_way.during(|| self.file.allocate(from, to))
    }
}

/// How the sums lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// 1,024 in a block.
    First,
    /// 127 and a check in each sector of a block.
    Second,
}

impl Form {
    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::First => MAGIC_1,
            Self::Second => MAGIC_2,
        }
    }

    /// Sums, and so blocks, of a group.
    const fn group(self) -> usize {
        match self {
            Self::First => BLOCK / 4,
            Self::Second => BLOCK / SECTOR * SUMS_IN_SECTOR,
        }
    }

    fn group_of(self, block: u64) -> (u64, usize) {
        ((block - 1) / self.group() as u64, ((block - 1) % self.group() as u64) as usize)
    }

    fn sums_at(self, group: u64) -> u64 {
        (HEADERS + group * (self.group() as u64 + 1)) * BLOCK as u64
    }

    fn place_of(self, block: u64) -> u64 {
        let (group, index) = self.group_of(block);
        self.sums_at(group) + (1 + index as u64) * BLOCK as u64
    }

    /// The length of a file in which redb sees `len` bytes.
    fn raw_len(self, len: u64) -> u64 {
        match len.div_ceil(BLOCK as u64) {
            0 | 1 => HEADERS * BLOCK as u64,
            blocks => self.place_of(blocks - 1) + BLOCK as u64,
        }
    }

    /// Groups of a file in which redb sees `len` bytes.
    fn groups(self, len: u64) -> u64 {
        match len.div_ceil(BLOCK as u64) {
            0 | 1 => 0,
            blocks => self.group_of(blocks - 1).0 + 1,
        }
    }

    fn encode(self, group: u64, sums: &[u32]) -> Vec<u8> {
        let bytes = |sums: &[u32]| sums.iter().flat_map(|sum| sum.to_le_bytes()).collect::<Vec<u8>>();
        match self {
            Self::First => bytes(sums),
            Self::Second => {
                let sectors = sums.chunks(SUMS_IN_SECTOR).enumerate();
                let sector = |(number, sums)| {
                    let sums = bytes(sums);
                    let check = check_of(group, number, &sums).to_le_bytes();
                    [sums.as_slice(), &check].concat()
                };
                sectors.flat_map(sector).collect()
            }
        }
    }

    /// The sums of a block, or the number of a sector that is not whole.
    fn decode(self, group: u64, block: &[u8; BLOCK]) -> Result<Vec<u32>, usize> {
        let words = |bytes: &[u8]| -> Vec<u32> {
            bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        if self == Self::First {
            return Ok(words(block));
        }
        let mut sums = Vec::with_capacity(self.group());
        for (number, sector) in block.chunks(SECTOR).enumerate() {
            let (body, check) = sector.split_at(SECTOR - 4);
            if check != check_of(group, number, body).to_le_bytes() {
                return Err(number);
            }
            sums.extend(words(body));
        }
        Ok(sums)
    }
}

/// What stands behind the sums of a sector; not 0, and another one for the same sums elsewhere.
fn check_of(group: u64, sector: usize, sums: &[u8]) -> u32 {
    let place = (group as u32).wrapping_mul(8).wrapping_add(sector as u32).wrapping_mul(0x9e37_79b9);
    (crc32c(sums) ^ place).max(1)
}

/// redb's first block and the file's length as redb sees it.
#[derive(Debug, Clone)]
struct Header {
    form: Form,
    block: Box<[u8; BLOCK]>,
    len: u64,
    /// How often it has been written.
    written: u64,
}

impl Header {
    fn encode(&self) -> [u8; 2 * BLOCK] {
        let mut copy = [0; 2 * BLOCK];
        copy[..BLOCK].copy_from_slice(&*self.block);
        copy[BLOCK..BLOCK + 8].copy_from_slice(self.form.magic());
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
        let form = [Form::First, Form::Second].into_iter().find(|form| trailer.starts_with(form.magic()))?;
        let whole = trailer[24..28] == sum;
        whole.then(|| Self { form, block: Box::new(*block), len: field(8), written: field(16) })
    }
}

/// The sums of a group of blocks.
#[derive(Debug)]
struct Sums {
    sums: Vec<u32>,
    dirty: bool,
}

#[derive(Debug)]
struct State {
    header: Header,
    dirty: bool,
    /// Whether sums have to be synced before a header that counts their blocks.
    grown: bool,
    groups: FxHashMap<u64, Sums>,
    /// Whether the file has failed to take something; what it holds then is for the next opening to see.
    failed: bool,
}

/// The file, as redb's storage.
#[derive(Debug)]
pub(super) struct Checked<F> {
    file: F,
    form: Form,
    state: Mutex<State>,
    tail: Arc<Preallocation>,
}

/// Some blocks in a row of one group, and where in the caller's buffer they lie.
struct Run {
    first: u64,
    from: usize,
    to: usize,
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
        let header = Header { form: Form::Second, block: Box::new([0; BLOCK]), len: 0, written: 0 };
        Ok(Self::over(file, header, Arc::default()))
    }

    /// A file that was closed or crashed, and what is kept behind its end.
    pub(super) fn open(file: F, tail: Arc<Preallocation>) -> io::Result<Self> {
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
        tail.find(file.len()?.saturating_sub(header.form.raw_len(header.len)));
        Ok(Self::over(file, header, tail))
    }

    fn over(file: F, header: Header, tail: Arc<Preallocation>) -> Self {
        let form = header.form;
        tail.0.lock().end = form.raw_len(header.len);
        let state = State { header, dirty: false, grown: false, groups: FxHashMap::default(), failed: false };
        Self { file, form, state: Mutex::new(state), tail }
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
            let counted = group < self.form.groups(state.header.len);
            let sums = Sums { sums: self.read_sums(group, counted)?, dirty: false };
            state.groups.insert(group, sums);
        }
        Ok(work(state.groups.get_mut(&group).expect("read in the lines above")))
    }

    /// The sums of a group; those of one that the header does not count yet may never have been written.
    fn read_sums(&self, group: u64, counted: bool) -> io::Result<Vec<u32>> {
        let at = self.form.sums_at(group);
        if at + BLOCK as u64 <= self.file.len()? {
            let mut bytes = [0; BLOCK];
            self.file.read_at(at, &mut bytes)?;
            match self.form.decode(group, &bytes) {
                Ok(sums) => return Ok(sums),
                Err(sector) if counted => {
                    let position = at + (sector * SECTOR) as u64;
                    return Err(rotten(format_args!("the checksums at byte {position} are damaged")));
                }
                Err(_) => {}
            }
        } else if counted && self.form == Form::Second {
            return Err(rotten(format_args!(
                "it ends before byte {}, where checksums stand",
                at + BLOCK as u64
            )));
        }
        Ok(vec![0; self.form.group()])
    }

    fn read_run(&self, run: &Run, out: &mut [u8]) -> io::Result<()> {
        let (group, index) = self.form.group_of(run.first);
        let (mut sums, count) = ([0; LONGEST_RUN], out.len() / BLOCK);
        self.with_sums(&mut self.state.lock(), group, |s| {
            sums[..count].copy_from_slice(&s.sums[index..index + count]);
        })?;
        self.file.read_at(self.form.place_of(run.first), out)?;
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
        self.file.write_at(self.form.place_of(run.first), data)?;
        let (group, index) = self.form.group_of(run.first);
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
        &self,
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
                let in_group = (self.form.group() - self.form.group_of(first).1).min(LONGEST_RUN);
                (left / BLOCK).min(in_group) * BLOCK
            };
            each(first, skip, Run { first, from: done, to: done + n })?;
            done += n;
        }
        Ok(())
    }

    fn write_sums(&self, state: &mut State) -> io::Result<()> {
        for (&group, sums) in state.groups.iter_mut().filter(|(_, sums)| sums.dirty) {
            self.file.write_at(self.form.sums_at(group), &self.form.encode(group, &sums.sums))?;
            sums.dirty = false;
        }
        Ok(())
    }

    /// Forgets the sums of blocks beyond the end, so that they read as zeros if the file grows again.
    fn forget_beyond(&self, state: &mut State, old_len: u64, len: u64) -> io::Result<()> {
        let (first, end) = (len.div_ceil(BLOCK as u64).max(1), old_len.div_ceil(BLOCK as u64));
        for block in first..end {
            let (group, index) = self.form.group_of(block);
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
        self.count_groups(&mut state, old_len, len);
        self.tail.lengthen(&self.file, self.form.raw_len(len))
    }

    /// Makes sums for the groups that a longer file has.
    fn count_groups(&self, state: &mut State, old_len: u64, len: u64) {
        for group in self.form.groups(old_len)..self.form.groups(len) {
            state.groups.insert(group, Sums { sums: vec![0; self.form.group()], dirty: true });
            state.grown = true;
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        self.write_sums(&mut state)?;
        if !state.dirty {
            return self.file.sync();
        }
        if std::mem::take(&mut state.grown) {
            self.file.sync()?;
        }
        state.header.written += 1;
        let copy = state.header.encode();
        for at in [0, copy.len() as u64] {
            self.file.write_at(at, &copy)?;
            self.file.sync()?;
        }
        state.dirty = false;
        self.tail.cut(&self.file, self.form.raw_len(state.header.len))
    }

    fn write_parts(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_range(offset, data.len())?;
        self.for_each_part(offset, data.len(), |first, skip, run| {
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

impl<F: RawFile> StorageBackend for Checked<F> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().header.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, out.len())?;
        self.for_each_part(offset, out.len(), |first, skip, run| {
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn golden_bytes_of_sums() {
        let sums: Vec<u32> = (1..=Form::Second.group() as u32).collect();
        let block = Form::Second.encode(3, &sums);
        assert_eq!((block.len(), &block[..8]), (BLOCK, [1, 0, 0, 0, 2, 0, 0, 0].as_slice()));
        assert_eq!(block[512..516], 128u32.to_le_bytes());
        let check = crc32c(&block[512..1020]) ^ 25u32.wrapping_mul(0x9e37_79b9);
        assert_eq!(block[1020..1024], check.to_le_bytes());
        let block: [u8; BLOCK] = block.try_into().unwrap();
        assert_eq!(Form::Second.decode(3, &block), Ok(sums));
        assert_eq!(Form::Second.decode(4, &block), Err(0), "it belongs elsewhere");
        assert_eq!(Form::Second.decode(3, &[0; BLOCK]), Err(0), "it is gone");
    }

    #[test]
    fn a_file_grows_into_its_tail_and_keeps_it_when_it_gets_shorter() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tail");
        let open =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let of_blocks = |count: u64| count * BLOCK as u64;
        drop(Checked::create(open()).unwrap());
        let tail = Arc::new(Preallocation::default());
        let file = Checked::open(open(), tail.clone());
        assert!(file.is_err(), "nothing is durable yet");
        let file = Checked::create(open()).unwrap();
        file.set_len(of_blocks(20)).unwrap();
        file.sync_data().unwrap();
        drop(file);
        let file = Checked::open(open(), tail.clone()).unwrap();
        let (end, bytes) = (tail.end(), of_blocks(3000));
        tail.keep(&open(), bytes).unwrap();
        let on_disk = || std::fs::metadata(&path).map(|meta| (meta.len(), meta.blocks() * 512)).unwrap();
        let (len, blocks) = on_disk();
        assert!(len == end + bytes && blocks >= len, "{len} {blocks}");
        file.set_len(of_blocks(2000)).unwrap();
        for block in 1..2000 {
            file.write(of_blocks(block), &[block as u8; BLOCK]).unwrap();
        }
        file.sync_data().unwrap();
        assert_eq!(on_disk(), (len, blocks), "it has its space already");
        tail.keep(&open(), bytes).unwrap();
        let longer = on_disk();
        assert!(longer.0 == tail.end() + bytes && longer.1 >= longer.0, "{longer:?}");
        file.set_len(of_blocks(20)).unwrap();
        file.sync_data().unwrap();
        assert_eq!((tail.end(), on_disk().0), (end, end + bytes), "what is behind it is given back");
        drop(file);
        let file = Checked::open(open(), Arc::default()).unwrap();
        file.set_len(of_blocks(2000)).unwrap();
        let mut block = [1; BLOCK];
        for at in 1..2000 {
            file.read(of_blocks(at), &mut block).unwrap();
            let expected = if at < 20 { at as u8 } else { 0 };
            assert!(block == [expected; BLOCK], "{at}");
        }
        file.sync_data().unwrap();
    }

    #[test]
    fn a_file_of_the_first_form_is_read_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("first");
        let open =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        open().set_len(0).unwrap();
        let header = Header { form: Form::First, block: Box::new([7; BLOCK]), len: 0, written: 0 };
        let file = Checked::over(open(), header, Arc::default());
        let len = 3000 * BLOCK as u64;
        file.set_len(len).unwrap();
        file.write(len - BLOCK as u64, &[5; BLOCK]).unwrap();
        file.sync_data().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), (4 + 3 + 2999) * BLOCK as u64);
        let again = Checked::open(open(), Arc::default()).unwrap();
        assert_eq!(again.form, Form::First);
        let mut block = [0; BLOCK];
        again.read(len - BLOCK as u64, &mut block).unwrap();
        assert_eq!(block, [5; BLOCK]);
        again.read(BLOCK as u64, &mut block).unwrap();
        assert_eq!(block, [0; BLOCK], "never written");
    }

    #[test]
    fn sums_that_are_gone_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("second");
        let file = Checked::create(File::create_new(&path).unwrap()).unwrap();
        file.set_len(2000 * BLOCK as u64).unwrap();
        file.sync_data().unwrap();
        drop(file);
        let gone = File::options().read(true).write(true).open(&path).unwrap();
        gone.write_all_at(&[0; SECTOR], Form::Second.sums_at(1) + SECTOR as u64).unwrap();
        let file = Checked::open(gone, Arc::default()).unwrap();
        let mut block = [0; BLOCK];
        file.read(BLOCK as u64, &mut block).unwrap();
        let error = file.read(1500 * BLOCK as u64, &mut block).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("checksums"), "{error}");
    }
}
