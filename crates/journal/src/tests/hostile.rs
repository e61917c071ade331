//! Bytes that no journal wrote: readers answer with an error, never with a panic or with memory for what is not there.

use proptest::prelude::*;
use sabir_base::buf::BufPool;
use sabir_model::batch::{BatchBuilder, Compression};
use sabir_model::{Durability, Sequence};

use super::rig::payload_of;
use crate::disk::DiskError;
use crate::slots::HardState;
use crate::space::splitmix;
use crate::testing::{follow_frames, frame_content, frame_contents, walk_content};
use crate::walk::{Chain, Found, Missing, Source, Window, examine, scan};
use crate::{BlockBuilder, LocalTables, SegmentTable};

#[path = "../../fuzz/targets.rs"]
mod targets;

struct Image(Vec<u8>);

impl Source for Image {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        buf.copy_from_slice(&self.0[pos as usize..pos as usize + buf.len()]);
        Ok(())
    }
}

fn good_content(state: &mut u64) -> Vec<u8> {
    let mut builder = BlockBuilder::new(BufPool::new(0));
    for id in 0..splitmix(state) % 12 + 1 {
        let payload = payload_of(id, (splitmix(state) % 6000) as usize);
        let body = &payload[..payload.len() / 50];
        let with = splitmix(state).is_multiple_of(2);
        builder.push(splitmix(state) as u16 % 500, body, with.then_some(&payload), id % 3, Durability::Sync);
    }
    builder.take(1).content().to_vec()
}

/// Changes a few bytes, cuts, extends, or puts huge numbers into the header.
fn mangle(bytes: &mut Vec<u8>, state: &mut u64) {
    for _ in 0..splitmix(state) % 4 + 1 {
        if bytes.is_empty() {
            return;
        }
        let at = splitmix(state) as usize % bytes.len();
        match splitmix(state) % 6 {
            0 => bytes[at] = splitmix(state) as u8,
            1 => bytes[at] ^= 1 << (splitmix(state) % 8),
            2 => bytes.truncate(at),
            3 => bytes.extend(payload_of(at as u64, 40)),
            4 => {
                let field = (splitmix(state) as usize % 8) * 4;
                let value = [0, 1, u32::MAX, i32::MAX as u32, bytes.len() as u32][at % 5];
                if let Some(place) = bytes.get_mut(field..field + 4) {
                    place.copy_from_slice(&value.to_le_bytes());
                }
            }
            _ => bytes[at..].iter_mut().take(10).for_each(|byte| *byte = 0xff),
        }
    }
}

#[test]
fn a_mangled_content_is_refused_or_read_within_its_bounds() {
    let mut state = 1;
    let (mut refused, mut read) = (0, 0);
    for _ in 0..4000 {
        let mut content = good_content(&mut state);
        assert!(walk_content(&content).is_some());
        for _ in 0..5 {
            mangle(&mut content, &mut state);
            match walk_content(&content) {
                Some(_) => read += 1,
                None => refused += 1,
            }
        }
    }
    assert!(refused > 1000 && read > 100, "both happen: {refused} refused, {read} read");
}

#[test]
fn random_bytes_are_no_content() {
    let mut state = 2;
    for len in 0..600 {
        let bytes = payload_of(splitmix(&mut state), len);
        assert_eq!(walk_content(&bytes), None);
    }
    assert_eq!(walk_content(&[0; 4096]), None);
}

#[test]
fn a_mangled_segment_is_followed_to_its_first_bad_frame() {
    let mut state = 3;
    for _ in 0..300 {
        let contents: Vec<Vec<u8>> = (0..8).map(|_| good_content(&mut state)).collect();
        let (mut image, places) = frame_contents(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert_eq!(follow_frames(&image), 8);
        let at = splitmix(&mut state) as usize % image.len();
        image[at] ^= 1 << (splitmix(&mut state) % 8);
        let hit = places.iter().position(|place| place.contains(&at));
        assert_eq!(follow_frames(&image), hit.map_or(8, |i| i as u64), "byte {at}");
    }
}

#[test]
fn a_frame_of_another_history_does_not_follow() {
    let (first, crc) = frame_content(1, 0, &[1; 50]);
    let (other, _) = frame_content(2, crc ^ 1, &[2; 50]);
    let (next, _) = frame_content(2, crc, &[2; 50]);
    assert_eq!(follow_frames(&[first.clone(), next].concat()), 2);
    assert_eq!(follow_frames(&[first, other].concat()), 1);
}

#[test]
fn arbitrary_bytes_are_no_segment() {
    let mut state = 4;
    for len in [0, 1, 63, 64, 4095, 4096, 4097, 40_000] {
        let image = payload_of(splitmix(&mut state), len);
        assert_eq!(follow_frames(&image), 0);
    }
    // A frame that claims the largest length at the very end of the file.
    let (mut frame, _) = frame_content(1, 0, &[1; 5000]);
    frame.truncate(4096);
    assert_eq!(follow_frames(&frame), 0);
}

/// A stored payload that is a frame, copied from elsewhere, to the byte.
#[test]
fn a_stored_frame_is_no_frame() {
    let pool = BufPool::new(4 << 20);
    let (frame, _) = frame_content(2, 0, &[1; 100]);
    let image = Image(frame);
    let mut window = Window::new(&image, &pool);
    assert!(matches!(examine(&mut window, 0, 7).unwrap(), Found::Frame(..)));
    assert!(matches!(examine(&mut window, 0, 8).unwrap(), Found::Bad(_)), "another generation");
    let missing = Missing { sequence: Sequence(1), chain: &Chain::START, slot: &HardState::default() };
    assert_eq!(scan(&mut window, 0..4096, Some(8), &missing).unwrap().first_later, None);
}

#[test]
fn mangled_tables_are_refused_or_hold_what_they_say() {
    let table = SegmentTable {
        no: crate::SegmentNo(3),
        file: 2,
        generation: 9,
        first: Sequence(5),
        starts: (1..200).collect(),
        end: 300,
    };
    let mut good = Vec::new();
    LocalTables { through: Sequence(203), segments: vec![table] }.encode(&mut good);
    assert!(LocalTables::decode(&good).is_ok());
    let mut state = 5;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        mangle(&mut bytes, &mut state);
        if let Ok(tables) = LocalTables::decode(&bytes) {
            tables.check().unwrap();
            assert!(tables.segments.iter().map(|segment| segment.starts.len()).sum::<usize>() <= bytes.len());
        }
    }
}

/// Eight bytes at a time, as a strategy for each byte costs far more than what is done with it: half of them any, a third small, a
/// sixth 0xff.
fn bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    let eight =
        |(values, kinds): (u64, u64)| values.to_le_bytes().into_iter().zip(kinds.to_le_bytes()).map(byte);
    (prop::collection::vec(any::<(u64, u64)>(), 0..len.div_ceil(8)), 0usize..8).prop_map(
        move |(words, less)| {
            let mut bytes: Vec<u8> = words.into_iter().flat_map(eight).collect();
            bytes.truncate(bytes.len().saturating_sub(less));
            bytes
        },
    )
}

fn byte((value, kind): (u8, u8)) -> u8 {
    match kind % 6 {
        0..3 => value,
        3..5 => value % 4,
        _ => 0xff,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_as_a_content(data in bytes(600)) {
        targets::content(&data);
    }

    #[test]
    fn any_bytes_in_a_segment(data in bytes(3000)) {
        targets::segment(&data);
    }

    #[test]
    fn any_bytes_as_a_batch(data in bytes(600)) {
        targets::batch(&data);
    }

    #[test]
    fn a_damaged_batch(codec in 0usize..5, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in 0usize..40) {
        let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        let mut builder = BatchBuilder::new(codecs[codec]);
        for i in 0..5 {
            builder.push(i, Some(b"key"), Some(b"a value, a value, a value"), &[]);
        }
        let mut data = builder.build().to_vec();
        targets::batch(&data);
        let at = at.index(data.len());
        data[at] = byte;
        data.truncate(data.len() - cut.min(data.len()));
        targets::batch(&data);
    }
}
