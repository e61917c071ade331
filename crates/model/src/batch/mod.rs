//! Kafka's v2 record batch: the form of every record on disk.
//!
//! A batch is a header of 61 bytes, big endian, and records, compressed or not:
//!
//! ```text
//!  0 base offset i64 · 8 length i32 (of what follows) · 12 leader epoch i32 · 16 magic i8 (2) · 17 crc u32 (CRC-32C from 21 on)
//! 21 attributes i16 · 23 last offset delta i32 · 27 base timestamp i64 · 35 max timestamp i64
//! 43 producer id i64 · 51 producer epoch i16 · 53 base sequence i32 · 57 record count i32 · 61 records
//! ```
//!
//! Base offset and leader epoch lie before the CRC, so both are set without touching it.

mod builder;
mod check;
mod checked;
mod compress;
mod facts;
mod header;
mod inline;
mod lz4;
mod paced;
mod recompress;
mod records;
mod rules;
mod split;
mod stored_for;

pub use builder::BatchBuilder;
pub use check::{RecordSummary, check_records};
pub use checked::{BatchCheck, CheckCost, CheckedBatch, LongCheck, SMALL_LIMIT};
pub use compress::Compression;
pub use facts::FactsOf;
pub use header::{
    BatchHeader, HEADER_LEN, patch_base_offset, patch_leader_epoch, rewrite_header, stamp_log_append_time,
    verify_crc,
};
pub use inline::InlineBudget;
pub use paced::records_paced;
pub use records::{
    HeaderView, Headers, RecordView, Records, RecordsIter, RecordsPlace, records, uncompressed_records,
};
pub use rules::{BatchRefusal, BatchRules, RulesOf};
pub use split::{Split, split};
pub use stored_for::{stored_base_offset, stored_for};

/// Why bytes are not a record batch that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("the batch needs {need} bytes, {have} are there")]
    Truncated {
        /// Bytes the batch needs, as far as they can be told.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// A message format other than v2.
    #[error("message format v{0} is not v2")]
    Magic(i8),
    /// A header field that no batch can have.
    #[error("the batch header's {field} is {value}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// The checksum does not fit the bytes.
    #[error("the batch's CRC is {stored:#010x}, its bytes have {computed:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes have.
        computed: u32,
    },
    /// A codec that does not exist.
    #[error("compression codec {0} is not known")]
    Codec(u8),
    /// The compressed records cannot be decompressed.
    #[error("the records are not {0}")]
    Decompress(Compression),
    /// Decompressed, the records exceed the caller's limit.
    #[error("the records exceed {limit} bytes when decompressed")]
    TooLarge {
        /// The caller's limit, in bytes.
        limit: usize,
    },
    /// A Zstandard frame whose window is larger than there is memory for.
    #[error("to decompress the records takes a window of {window} bytes, {most} are given")]
    Window {
        /// The window, in bytes.
        window: u64,
        /// The largest that is taken.
        most: u64,
    },
    /// A record is malformed.
    #[error("record {index}: {what}")]
    Record {
        /// Counted from 0.
        index: u32,
        /// What is wrong with it.
        what: &'static str,
    },
}
