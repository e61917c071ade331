// What is fuzzed; the same functions run bounded on stable in `src/tests/hostile.rs`.

use sabir_base::crc::crc32c;
use sabir_journal::testing::{follow_frames, frame_contents, walk_content};
use sabir_model::batch::{BatchHeader, HEADER_LEN, check_records, records, split};

/// Records may take so much when decompressed.
const LIMIT: usize = 1 << 20;

/// The content of a block: whatever its bytes say, the walk stays inside them.
pub fn content(data: &[u8]) {
    walk_content(data);
}

/// A segment: arbitrary bytes, and good frames around them with one of their bytes changed.
pub fn segment(data: &[u8]) {
    follow_frames(data);
    let Some((&[count, a, b, c, change], rest)) = data.split_first_chunk() else { return };
    if rest.is_empty() {
        return;
    }
    let contents: Vec<&[u8]> = rest.chunks(rest.len().div_ceil(usize::from(count % 8) + 1)).collect();
    let (mut image, places) = frame_contents(&contents);
    assert_eq!(follow_frames(&image), contents.len() as u64, "all are good");
    let at = u32::from_le_bytes([a, b, c, 0]) as usize % image.len();
    image[at] ^= change;
    let hit = places.iter().position(|place| change != 0 && place.contains(&at));
    assert_eq!(follow_frames(&image), hit.unwrap_or(contents.len()) as u64, "up to the changed one");
}

/// A record batch as a producer might send it: as it is, and with a right CRC and length, so that the walk gets further.
pub fn batch(data: &[u8]) {
    walk_batches(data);
    let mut mended = data.to_vec();
    if mended.len() >= HEADER_LEN {
        let len = (mended.len() - 12) as i32;
        mended[8..12].copy_from_slice(&len.to_be_bytes());
        mended[16] = 2;
        let crc = crc32c(&mended[21..]);
        mended[17..21].copy_from_slice(&crc.to_be_bytes());
        walk_batches(&mended);
    }
}

fn walk_batches(data: &[u8]) {
    let mut taken = 0;
    for found in split(data) {
        let Ok((header, bytes)) = found else { break };
        assert_eq!(header.total_len(), bytes.len());
        taken += bytes.len();
        walk_records(bytes, &header);
    }
    assert!(taken <= data.len());
}

fn walk_records(bytes: &[u8], header: &BatchHeader) {
    let checked = check_records(bytes, LIMIT, &mut || {});
    let Ok(records) = records(bytes, LIMIT) else {
        return assert!(checked.is_err(), "what is taken can be read");
    };
    assert!(records.bytes() <= LIMIT.max(bytes.len()));
    let mut good = 0;
    for record in &records {
        let Ok(record) = record else {
            return assert!(checked.is_err(), "what is taken can be read");
        };
        good += 1;
        let held = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        assert!(held + record.headers.count() <= records.bytes());
    }
    assert_eq!(good, header.count, "all records or an error");
}
