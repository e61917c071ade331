//! The layout of a block's content, the same on every replica; `docs/adr/0001-journal-format.md` draws it.

/// Bytes of the content's header.
pub(crate) const CONTENT_HEADER: usize = 32;

/// The first and only version.
pub(crate) const CONTENT_VERSION: u16 = 1;

/// What an entry takes beside its body at most: its kind with a flag, and three numbers below 2 MiB.
pub(crate) const ENTRY_OVERHEAD: usize = 3 + 3 + 3 + 3;

/// The content's header. The payload area runs from its end to `entries_off`, the entries area from there to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentHeader {
    pub time_ms: i64,
    pub entries: u32,
    pub entries_off: u32,
    pub entries_len: u32,
    pub version: u16,
    pub flags: u16,
    pub reserved: u64,
}

impl ContentHeader {
    pub(crate) fn encode(&self) -> [u8; CONTENT_HEADER] {
        let mut out = [0; CONTENT_HEADER];
        out[0..8].copy_from_slice(&self.time_ms.to_le_bytes());
        out[8..12].copy_from_slice(&self.entries.to_le_bytes());
        out[12..16].copy_from_slice(&self.entries_off.to_le_bytes());
        out[16..20].copy_from_slice(&self.entries_len.to_le_bytes());
        out[20..22].copy_from_slice(&self.version.to_le_bytes());
        out[22..24].copy_from_slice(&self.flags.to_le_bytes());
        out[24..32].copy_from_slice(&self.reserved.to_le_bytes());
        out
    }

    /// The header of a content that is long enough to have one.
    pub(crate) fn decode(content: &[u8]) -> Option<Self> {
        let bytes = content.first_chunk::<CONTENT_HEADER>()?;
        Some(Self {
            time_ms: field(bytes, 0).map(i64::from_le_bytes)?,
            entries: field(bytes, 8).map(u32::from_le_bytes)?,
            entries_off: field(bytes, 12).map(u32::from_le_bytes)?,
            entries_len: field(bytes, 16).map(u32::from_le_bytes)?,
            version: field(bytes, 20).map(u16::from_le_bytes)?,
            flags: field(bytes, 22).map(u16::from_le_bytes)?,
            reserved: field(bytes, 24).map(u64::from_le_bytes)?,
        })
    }
}

/// `N` bytes at `at`.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}
