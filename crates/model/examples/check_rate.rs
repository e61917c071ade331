//! What it costs to look at the records of a produced batch: `cargo run --release -p sabir-model --example check_rate`.
//!
//! For each codec and size of record a line with the nanoseconds of a record, the least of many rounds: of the batch's checksum, of the
//! walk over its records, and of both one after the other.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use sabir_model::batch::{BatchBuilder, Compression, HEADER_LEN, check_records, verify_crc};

const BATCH: usize = 64 << 10;
const LIMIT: usize = 256 << 10;
const ROUNDS: usize = 2_000;

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "{:<8} {:>6} {:>8} {:>8} {:>10} {:>10} {:>10}",
        "codec", "record", "records", "bytes", "crc ns", "walk ns", "both ns"
    );
    for codec in Compression::ALL {
        for (record, count) in [(100, 1), (100, BATCH / 110), (1024, BATCH / 1034), (LIMIT / 2, 1)] {
            let batch = batch(codec, record, count);
            check_records(&batch, LIMIT, &mut || {})?;
            let crc = nanoseconds(count, || verify_crc(black_box(&batch)).is_ok());
            let walk = nanoseconds(count, || check_records(black_box(&batch), LIMIT, &mut || {}).is_ok());
            let both = nanoseconds(count, || {
                verify_crc(black_box(&batch)).is_ok()
                    && check_records(black_box(&batch), LIMIT, &mut || {}).is_ok()
            });
            let bytes = batch.len() - HEADER_LEN;
            println!("{codec:<8} {record:>6} {count:>8} {bytes:>8} {crc:>10.1} {walk:>10.1} {both:>10.1}");
        }
    }
    Ok(())
}

/// Records like lines of a log: words that come again, and numbers that do not.
fn batch(codec: Compression, record: usize, count: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    let mut number = 1u64;
    for at in 0..count {
        let mut value = Vec::new();
        while value.len() < record {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            value
                .extend_from_slice(format!("level=info request={:08x} status=200 ", number >> 32).as_bytes());
        }
        builder.push(1_700_000_000_000 + at as i64, None, Some(&value[..record]), &[]);
    }
    builder.build().to_vec()
}

/// The least time of one call, for each record.
fn nanoseconds(records: usize, call: impl Fn() -> bool) -> f64 {
    let once = || {
        let begun = Instant::now();
        assert!(call(), "the batch is good");
        begun.elapsed()
    };
    let least = (0..ROUNDS).map(|_| once()).min().unwrap_or_default();
    least.as_nanos() as f64 / records as f64
}
