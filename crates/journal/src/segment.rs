//! Segment files: a header that says which part of the journal the file holds, then frames.

use std::fmt;
use std::sync::Arc;

use sabir_base::crc::crc32c;
use sabir_model::Sequence;

use crate::content::field;
use crate::disk::{Disk, DiskError, FileId};

/// A segment's place in the order of the journal, from 1. Not its file's name: files are recycled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNo(pub u64);

impl SegmentNo {
    /// The first segment of a journal.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for SegmentNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A segment that holds blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its place in the order.
    pub no: SegmentNo,
    /// Its first block.
    pub first: Sequence,
    /// Its last block so far.
    pub last: Sequence,
    /// Whether later blocks go elsewhere.
    pub closed: bool,
}

/// Bytes of a segment's header; frames start behind it.
pub(crate) const SEGMENT_HEADER: usize = 4096;

const MAGIC: [u8; 4] = *b"SBRS";
const VERSION: u16 = 2;
/// Its form does not say how long the file is.
const VERSION_1: u16 = 1;
const CRC_AT: usize = SEGMENT_HEADER - 4;

/// A segment's header, synced when the segment is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The journal it belongs to.
    pub journal: u64,
    pub no: SegmentNo,
    /// Random; what a frame must carry to belong here.
    pub generation: u64,
    /// Bytes of the whole file; 0 if that was not written down.
    pub len: u64,
}

/// What the first page of a segment file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderPage {
    Good(SegmentHeader),
    /// All zeros: made, never given a place.
    Raw,
    /// Torn or flipped.
    Bad,
    Newer(u16),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[8..16].copy_from_slice(&self.journal.to_le_bytes());
        out[16..24].copy_from_slice(&self.no.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.generation.to_le_bytes());
        out[32..40].copy_from_slice(&self.len.to_le_bytes());
        let crc = crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(page: &[u8; SEGMENT_HEADER]) -> HeaderPage {
        if page.iter().all(|&b| b == 0) {
            return HeaderPage::Raw;
        }
        let u64_at = |at| field(page, at).map_or(0, u64::from_le_bytes);
        let crc = field(page, CRC_AT).map(u32::from_le_bytes);
        if page[..4] != MAGIC || crc != Some(crc32c(&page[..CRC_AT])) {
            return HeaderPage::Bad;
        }
        match field(page, 4).map_or(0, u16::from_le_bytes) {
            VERSION | VERSION_1 => HeaderPage::Good(Self {
                journal: u64_at(8),
                no: SegmentNo(u64_at(16)),
                generation: u64_at(24),
                len: u64_at(32),
            }),
            version if version > VERSION => HeaderPage::Newer(version),
            _ => HeaderPage::Bad,
        }
    }
}

/// The newest version of the header.
pub(crate) const SEGMENT_VERSION: u16 = VERSION;

const PREFIX: &str = "segment-";
/// What a file is called until its name may be relied on.
pub(crate) const UNFINISHED: &str = ".new";

pub(crate) fn file_name(number: u32) -> String {
    format!("{PREFIX}{number:06}")
}

/// The number in a segment file's name.
pub(crate) fn file_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix(PREFIX)?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// Whether a file has a name that a journal gives.
pub fn is_journal_file(name: &str) -> bool {
    let name = name.strip_suffix(UNFINISHED).unwrap_or(name);
    name == crate::slots::NAME || name == crate::disk::PROBE || file_number(name).is_some()
}

/// An open segment file; closed when its last holder lets go of it.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    disk: Arc<dyn Disk>,
    pub number: u32,
    pub id: FileId,
    pub len: u64,
}

impl SegmentFile {
    pub(crate) fn open(disk: &Arc<dyn Disk>, number: u32) -> Result<Self, DiskError> {
        let id = disk.open(&file_name(number))?;
        let mut file = Self { disk: disk.clone(), number, id, len: 0 };
        file.len = disk.len(id)?;
        Ok(file)
    }

    /// Makes a file of zeros under its durable name, or leaves nothing behind.
    pub(crate) fn create(disk: &Arc<dyn Disk>, number: u32, len: u64) -> Result<Self, DiskError> {
        let name = file_name(number);
        let unfinished = format!("{name}{UNFINISHED}");
        let id = disk.create(&unfinished, len)?;
        let file = Self { disk: disk.clone(), number, id, len };
        let named = disk.sync(id).and_then(|()| disk.rename(&unfinished, &name));
        if let Err(error) = named {
            // The next try takes this name again; if it cannot be removed either, it says so then.
            let _ = disk.remove(&unfinished);
            return Err(error);
        }
        disk.sync_dir()?;
        Ok(file)
    }

    /// Makes sure that no frame stands at `pos`, for good.
    pub(crate) fn blank(&self, pos: u64) -> Result<(), DiskError> {
        if pos + SEGMENT_HEADER as u64 > self.len {
            return Ok(());
        }
        let zeros = Box::new(Aligned([0; SEGMENT_HEADER]));
        self.disk.write_at(self.id, pos, &zeros.0)?;
        self.disk.sync(self.id)
    }

    /// Gives it the space that it has not; see [`Disk::fill_holes`].
    pub(crate) fn fill_holes(&self, keep_free: u64) -> Result<bool, DiskError> {
        self.disk.fill_holes(self.id, keep_free)
    }

    /// Keeps its descriptor until it is let go.
    pub(crate) fn hold(&self) -> Result<(), DiskError> {
        self.disk.hold(self.id)
    }

    pub(crate) fn let_go(&self) {
        self.disk.let_go(self.id);
    }

    pub(crate) fn name(&self) -> String {
        file_name(self.number)
    }

    pub(crate) fn read(&self, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read_at(self.id, pos, buf)
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        self.disk.close(self.id);
    }
}

/// A segment with its place. A reader pins it by holding it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub no: SegmentNo,
    pub generation: u64,
    pub file: SegmentFile,
}

impl Segment {
    /// Gives a file its place and makes that durable. What frames it holds are of another generation from now on.
    pub(crate) fn prepare(
        file: SegmentFile,
        header: SegmentHeader,
    ) -> Result<Self, (SegmentFile, DiskError)> {
        let page = Aligned(header.encode());
        let written = file.disk.write_at(file.id, 0, &page.0).and_then(|()| file.disk.sync(file.id));
        match written {
            Ok(()) => Ok(Self { no: header.no, generation: header.generation, file }),
            Err(error) => Err((file, error)),
        }
    }

    /// Reads the first page of a file.
    pub(crate) fn header_of(file: &SegmentFile) -> Result<HeaderPage, DiskError> {
        let mut page = Box::new(Aligned([0; SEGMENT_HEADER]));
        if file.len < SEGMENT_HEADER as u64 {
            return Ok(HeaderPage::Bad);
        }
        file.read(0, &mut page.0)?;
        Ok(SegmentHeader::decode(&page.0))
    }
}

/// A page in memory as the disk wants it.
#[repr(align(4096))]
pub(crate) struct Aligned(pub [u8; 4096]);

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        journal: 0x0102_0304_0506_0708,
        no: SegmentNo(9),
        generation: 0x1112_1314_1516_1718,
        len: 0x2122_2324,
    };

    #[test]
    fn golden_bytes_of_a_header() {
        let page = HEADER.encode();
        let hex: String = page[..40].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "53425253020000000807060504030201090000000000000018171615141312112423222100000000");
        assert!(page[40..CRC_AT].iter().all(|&b| b == 0));
        assert_eq!(page[CRC_AT..], crc32c(&page[..CRC_AT]).to_le_bytes());
        assert_eq!(SegmentHeader::decode(&page), HeaderPage::Good(HEADER));
    }

    #[test]
    fn golden_bytes_of_the_first_version() {
        let mut page = HEADER.encode();
        page[4] = 1;
        page[32..40].fill(0);
        let crc = crc32c(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&page), HeaderPage::Good(SegmentHeader { len: 0, ..HEADER }));
    }

    #[test]
    fn tells_raw_bad_and_newer_pages_apart() {
        assert_eq!(SegmentHeader::decode(&[0; SEGMENT_HEADER]), HeaderPage::Raw);
        for at in [0, 4, 9, 16, 24, 100, CRC_AT] {
            let mut page = HEADER.encode();
            page[at] ^= 0x40;
            assert_eq!(SegmentHeader::decode(&page), HeaderPage::Bad, "byte {at}");
        }
        let mut page = HEADER.encode();
        page[4] = 7;
        let crc = crc32c(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&page), HeaderPage::Newer(7));
    }

    #[test]
    fn only_whole_names_are_segments() {
        assert_eq!(file_number(&file_name(7)), Some(7));
        assert_eq!(file_number(&file_name(12_345_678)), Some(12_345_678));
        for name in ["segment-000001.new", "segment-1", "segment-+00001", "slots", "segment-"] {
            assert_eq!(file_number(name), None, "{name}");
        }
    }
}
