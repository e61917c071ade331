//! What a map's pages add up to.

use std::fmt;

use super::PageDecodeError;

const FORM: u8 = 1;
const BYTES: usize = 17;

/// How many entries are stored, and the sum of their checksums (each over the key and the whole value).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Summary {
    entries: u64,
    checksums: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries (checksum {:016x})", self.entries, self.checksums)
    }
}

impl Summary {
    /// An entry that was counted as `counted` now counts as `checksum`.
    pub(super) fn count(&mut self, counted: &mut Option<u32>, checksum: u32) {
        self.uncount(counted);
        self.entries += 1;
        self.checksums = self.checksums.wrapping_add(u64::from(checksum));
        *counted = Some(checksum);
    }

    /// An entry that was counted as `counted` is no more.
    pub(super) fn uncount(&mut self, counted: &mut Option<u32>) {
        if let Some(checksum) = counted.take() {
            self.entries -= 1;
            self.checksums = self.checksums.wrapping_sub(u64::from(checksum));
        }
    }

    /// How many entries are stored.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(BYTES);
        page.push(FORM);
        page.extend_from_slice(&self.entries.to_le_bytes());
        page.extend_from_slice(&self.checksums.to_le_bytes());
        page
    }

    pub(super) fn decode(page: &[u8]) -> Result<Self, PageDecodeError> {
        let page: [u8; BYTES] =
            page.try_into().map_err(|_| PageDecodeError(format!("a summary of {} bytes", page.len())))?;
        if page[0] != FORM {
            return Err(PageDecodeError(format!("a summary of form {}", page[0])));
        }
        let field = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| page[at + i]));
        Ok(Self { entries: field(1), checksums: field(9) })
    }
}
