//! Taking a run of batches apart.

use super::header::whole;
use super::{BatchError, BatchHeader};

/// The batches in `bytes`, one after the other, each with exactly its bytes.
///
/// A batch that is cut or malformed is the last item, an error: nothing behind it can be told.
pub fn split(bytes: &[u8]) -> Split<'_> {
    Split { rest: bytes }
}

/// The iterator made by [`split`].
#[derive(Debug, Clone)]
pub struct Split<'a> {
    rest: &'a [u8],
}

impl<'a> Split<'a> {
    /// Bytes not yet taken apart; after an error, none.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self) -> Result<(BatchHeader, &'a [u8]), BatchError> {
        let header = BatchHeader::parse(self.rest)?;
        let batch = whole(self.rest, &header)?;
        self.rest = &self.rest[batch.len()..];
        Ok((header, batch))
    }
}

impl<'a> Iterator for Split<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let taken = self.take();
        if taken.is_err() {
            self.rest = &[];
        }
        Some(taken)
    }
}
