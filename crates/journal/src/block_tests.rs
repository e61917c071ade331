use super::*;
use crate::view::EntryView;

fn builder() -> BlockBuilder {
    BlockBuilder::new(BufPool::new(8 << 20))
}

fn entries(block: &Block) -> Vec<EntryView<'_>> {
    BlockView::parse(block.content()).unwrap().entries().collect::<Result<_, _>>().unwrap()
}

fn payload_of<'a>(block: &'a Block, entry: &EntryView<'_>) -> &'a [u8] {
    let (offset, len) = entry.payload.unwrap();
    BlockView::parse(block.content()).unwrap().payload(offset, len).unwrap()
}

#[test]
fn the_front_of_the_last_payload_is_put_in_wherever_it_stands() {
    for len in [0, 3, 8, 100, 5000] {
        let mut open = builder();
        open.push(1, b"", Some(&[1; 9]), 0, Durability::Os);
        open.push(1, b"", Some(&vec![2; len]), 0, Durability::Os);
        open.put_front(&[7; 8]);
        let block = open.take(0);
        let view = BlockView::parse(block.content()).unwrap();
        let entries: Vec<_> = view.entries().map(|entry| entry.unwrap()).collect();
        assert_eq!(payload_of(&block, &entries[0]), [1; 9], "{len}");
        let (payload, front) = (payload_of(&block, &entries[1]), if len < 8 { 0 } else { 8 });
        assert!(
            payload[..front].iter().all(|byte| *byte == 7) && payload[front..].iter().all(|byte| *byte == 2)
        );
    }
}

#[test]
fn golden_bytes_of_a_content() {
    let mut open = builder();
    open.push(10, b"abc", None, 0, Durability::Os);
    open.push(1, b"", Some(b"second"), 9, Durability::Os);
    open.push(300, b"xy", Some(b"first"), 4, Durability::Sync);
    let block = open.take(0x0102_0304_0506_0708);
    let hex: String = block.content().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            // time; 3 entries; entries at 43; 16 bytes of them; version 1; flags 0; reserved
            "0807060504030201",
            "03000000",
            "2b000000",
            "10000000",
            "0100",
            "0000",
            "0000000000000000",
            // payloads, group 4 before group 9: "first", "second"
            "6669727374",
            "7365636f6e64",
            // kind 10, no payload, 3 bytes: "abc"
            "14",
            "03",
            "616263",
            // kind 1, payload, no body, at 37, 6 bytes
            "03",
            "00",
            "25",
            "06",
            // kind 300, payload, 2 bytes, at 32, 5 bytes: "xy"
            "d904",
            "02",
            "20",
            "05",
            "7879",
        )
    );
    assert_eq!(block.durability(), Durability::Sync);
    assert_eq!(block.time_ms(), 0x0102_0304_0506_0708);
}

#[test]
fn entries_stay_in_order_and_small_payloads_of_a_group_run_on() {
    let mut open = builder();
    for i in 0..90u64 {
        let payload = format!("payload {i}");
        assert_eq!(
            open.push(1, &i.to_le_bytes(), Some(payload.as_bytes()), i % 3, Durability::Sync),
            i as u32
        );
    }
    let block = open.take(5);
    let seen = entries(&block);
    for (i, entry) in seen.iter().enumerate() {
        assert_eq!(entry.body, (i as u64).to_le_bytes());
        assert_eq!(payload_of(&block, entry), format!("payload {i}").as_bytes());
    }
    for group in 0..3 {
        let spans: Vec<_> = seen.iter().skip(group).step_by(3).map(|e| e.payload.unwrap()).collect();
        for pair in spans.windows(2) {
            assert_eq!(pair[0].0 + pair[0].1, pair[1].0, "a group's payloads touch");
        }
    }
}

#[test]
fn large_and_small_payloads_share_a_block() {
    let mut open = builder();
    let large: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; 4096 + usize::from(i) * 301]).collect();
    for (i, bytes) in large.iter().enumerate() {
        open.push(1, b"large", Some(bytes), 0, Durability::Os);
        open.push(1, b"small", Some(&[i as u8; 10]), 1, Durability::Os);
        open.push(2, b"none", None, 1, Durability::Os);
    }
    let bound = open.bytes();
    let block = open.take(5);
    assert!(block.framed_len() <= round_up(bound));
    for (i, chunk) in entries(&block).chunks(3).enumerate() {
        assert_eq!(payload_of(&block, &chunk[0]), large[i]);
        assert_eq!(payload_of(&block, &chunk[1]), [i as u8; 10]);
        assert_eq!((chunk[2].body, chunk[2].payload), (b"none".as_slice(), None));
    }
    assert!(open.is_empty());
}

#[test]
fn a_small_block_has_a_small_buffer_whatever_came_before() {
    let mut open = builder();
    while open.fits(8192) {
        open.push(1, b"", Some(&[7; 8192]), 0, Durability::Os);
    }
    assert!(open.take(0).buf.capacity() >= MAX_BLOCK - 16384);
    open.push(1, b"", Some(&[7; 100]), 0, Durability::Os);
    assert_eq!(open.take(0).buf.capacity(), 4096);
    open.push(1, b"", Some(&[7; 5000]), 0, Durability::Os);
    assert_eq!(open.take(0).buf.capacity(), 8192);
}

#[test]
fn closes_at_a_mebibyte_and_takes_one_larger_entry_whole() {
    let mut open = builder();
    assert!(!open.fits(LARGEST_ENTRY + 1));
    assert!(open.fits(LARGEST_ENTRY));
    let payload = vec![3; LARGEST_ENTRY - 40];
    open.push(1, &[1; 40], Some(&payload), 0, Durability::Sync);
    assert!(!open.fits(0));
    let block = open.take(0);
    assert!(block.framed_len() <= LARGEST_FRAMED);
    assert_eq!(payload_of(&block, &entries(&block)[0]), payload);

    while open.fits(1000) {
        open.push(1, &[], Some(&[1; 1000]), 0, Durability::Sync);
    }
    let block = open.take(0);
    assert!(
        block.framed_len() <= MAX_BLOCK && block.framed_len() > MAX_BLOCK - 8192,
        "{}",
        block.framed_len()
    );
}

#[test]
#[should_panic(expected = "does not fit")]
fn what_does_not_fit_is_refused() {
    builder().push(1, &[], Some(&vec![0; LARGEST_ENTRY + 1]), 0, Durability::Sync);
}

#[test]
fn time_never_falls() {
    let mut open = builder();
    let mut at = |ms| {
        open.push(1, b"", None, 0, Durability::Os);
        open.take(ms).time_ms()
    };
    assert_eq!([at(5), at(3), at(9)], [5, 5, 9]);
    open.raise_time(20);
    assert_eq!(open.time_floor(), 20);
}

#[test]
fn padding_is_zero_though_the_buffer_was_used() {
    let pool = BufPool::new(1 << 20);
    pool.get(4096).fill(0xff);
    let mut open = BlockBuilder::new(pool.clone());
    open.push(1, b"body", None, 0, Durability::Os);
    let block = open.take(0);
    assert!(block.buf[FRAME + block.content_len()..].iter().all(|&b| b == 0));
    let copy = Block::from_content(&pool, block.content(), Durability::Os).unwrap();
    assert_eq!((copy.content(), copy.content_crc()), (block.content(), block.content_crc()));
}

#[test]
fn a_content_from_elsewhere_is_checked() {
    let pool = BufPool::new(0);
    assert_eq!(Block::from_content(&pool, b"short", Durability::Os).unwrap_err(), ViewError::Truncated);
}

#[test]
fn blocks_carved_out_of_chunks_are_those_of_the_pool() {
    let pool = BufPool::new(8 << 20);
    let (mut pooled, mut carved) = (BlockBuilder::new(pool.clone()), BlockBuilder::for_tail(pool, 64 << 20));
    let sizes = [10, 5000, 70_000, 4096, 200_000, 1, 900_000, LARGEST_ENTRY - 4, 4095, 300_000];
    let mut kept = Vec::new();
    for round in 0..40_usize {
        for (n, &size) in sizes.iter().cycle().skip(round).take(1 + round % 7).enumerate() {
            let payload = vec![(round + n) as u8; size];
            if pooled.fits(size + 4) {
                let pushed = [&mut pooled, &mut carved]
                    .map(|open| open.push(3, b"body", Some(&payload), n as u64 % 3, Durability::Os));
                assert_eq!(pushed[0], pushed[1]);
            }
        }
        kept.push((pooled.take(round as i64), carved.take(round as i64)));
    }
    for (pooled, carved) in &kept {
        assert_eq!(pooled.content(), carved.content(), "blocks do not overlap");
        assert_eq!(carved.buf.capacity(), carved.framed_len(), "nor do they leave gaps");
    }
}
