//! A value over pages: the stored key ends in the page's number, page 0 begins with how many there are.

use std::collections::BTreeMap;

use sabir_base::varint;

use super::{MAX_PAGE, PageDecodeError};

/// Room for the count in page 0.
const COUNT: usize = 5;
const FIRST: usize = MAX_PAGE - COUNT;

/// The pages of a value, at least one.
pub(super) fn pages(value: &[u8]) -> Vec<Vec<u8>> {
    let (first, rest) = value.split_at(value.len().min(FIRST));
    let count = 1 + rest.len().div_ceil(MAX_PAGE);
    let mut page = Vec::with_capacity(first.len() + COUNT);
    varint::put_u64(&mut page, count as u64);
    page.extend_from_slice(first);
    std::iter::once(page).chain(rest.chunks(MAX_PAGE).map(<[u8]>::to_vec)).collect()
}

/// Ends a stored key.
pub(super) fn put_number(key: &mut Vec<u8>, number: u32) {
    key.extend_from_slice(&number.to_be_bytes());
}

/// ValuePages a stored key from its page's number.
pub(super) fn take_number(key: &[u8]) -> Result<(&[u8], u32), PageDecodeError> {
    let (key, number) = key
        .split_last_chunk::<4>()
        .ok_or_else(|| PageDecodeError("its key ends before a page number".into()))?;
    Ok((key, u32::from_be_bytes(*number)))
}

/// The pages of one value, as a scan brings them: not always next to one another, since another key may continue this one.
#[derive(Debug, Default)]
pub(super) struct ValuePages {
    count: Option<u32>,
    pages: BTreeMap<u32, Vec<u8>>,
}

impl ValuePages {
    /// Adds a page; true when the value is whole.
    pub(super) fn add(&mut self, number: u32, mut page: &[u8]) -> Result<bool, PageDecodeError> {
        if number == 0 {
            let count =
                varint::take_u32(&mut page).map_err(|e| PageDecodeError(format!("its page count: {e}")))?;
            self.count = Some(count);
        }
        self.pages.insert(number, page.to_vec());
        let last = self.pages.last_key_value().map_or(0, |(&last, _)| last);
        match self.count {
            Some(count) if last >= count => {
                Err(PageDecodeError(format!("page {last} of a value of {count}")))
            }
            Some(count) => Ok(self.pages.len() == count as usize),
            None => Ok(false),
        }
    }

    /// How many pages there are.
    pub(super) fn count(&self) -> u32 {
        self.pages.len() as u32
    }

    /// The value.
    pub(super) fn joined(&self) -> Vec<u8> {
        self.pages.values().map(Vec::as_slice).collect::<Vec<_>>().concat()
    }
}
