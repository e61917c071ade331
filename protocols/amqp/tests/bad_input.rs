//! Bytes from strangers: no panic, no more memory than what was sent and the limits allow. The same bytes every time, by seed.
#![allow(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rig::Client;
use sabir_amqp::session::ConnectionOptions;
use sabir_amqp::wire::*;

/// Counts what the calling thread holds, and the most it held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counters are plain thread-local cells that
// allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that `run` held beside what was there before.
fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = run();
    (result, (PEAK.get() - before) as usize)
}

/// A seeded source of bits (splitmix64).
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Mostly what passes for counts, lengths and flags.
    fn octet(&mut self) -> u8 {
        [0, 1, 2, 0x7f, 0x80, 0xff, FRAME_END, b'F', b'A', b'S', self.next() as u8][self.below(11)]
    }
}

const CAPTURES: [&[u8]; 4] = [
    include_bytes!("captures/pika.bin"),
    include_bytes!("captures/pyamqp.bin"),
    include_bytes!("captures/amqplib.bin"),
    include_bytes!("captures/java.bin"),
];

/// Feeds a client's bytes in pieces; what is left behind is what the machine says is left.
fn play(client: &mut Client, bytes: &[u8], g: &mut Bits) {
    let mut left = bytes;
    while !left.is_empty() {
        let (part, rest) = left.split_at(left.len().min(1 + g.below(3000)));
        client.feed(part, &mut |event| drop(rig::word(event)));
        left = rest;
    }
    let machine = &client.machine;
    assert!(machine.unfinished_bytes() <= bytes.len() as u64);
    assert!(machine.is_running() || machine.unfinished_bytes() == 0);
    client.said_anything();
}

#[test]
fn damaged_conversations_end_in_an_error_or_go_on() {
    let mut failed = 0;
    for seed in 0..6000 {
        let mut g = Bits(seed);
        let mut bytes = CAPTURES[g.below(4)].to_vec();
        bytes.truncate(bytes.len().min(3000));
        for _ in 0..=g.below(4) {
            let at = 8 + g.below(bytes.len() - 8);
            match g.below(4) {
                0 => drop(bytes.drain(at..(at + 1 + g.below(9)).min(bytes.len()))),
                1 => bytes.insert(at, g.octet()),
                _ => bytes[at] = g.octet(),
            }
        }
        let (client, peak) = peak_of(|| {
            let mut client = Client::new();
            play(&mut client, &bytes, &mut g);
            client
        });
        failed += usize::from(!client.machine.is_running());
        assert!(peak < 100_000, "seed {seed}: {peak}");
    }
    assert!((1000..6000).contains(&failed), "{failed}");
}

#[test]
fn any_frames_on_an_open_connection_end_in_an_error_or_go_on() {
    for seed in 0..20_000 {
        let mut g = Bits(seed ^ 0xf00d);
        let mut bytes = Vec::new();
        for _ in 0..1 + g.below(12) {
            let (class, id) = METHODS[g.below(METHODS.len())].id;
            let mut payload = [class.to_be_bytes(), id.to_be_bytes()].concat();
            payload.extend((0..g.below(30)).map(|_| g.octet()));
            bytes.push([1, 1, 1, 2, 3, 8][g.below(6)]);
            bytes.extend([0, g.below(3) as u8]);
            bytes.extend((payload.len() as u32).to_be_bytes());
            bytes.extend(payload);
            bytes.push(FRAME_END);
        }
        let (_, peak) = peak_of(|| {
            let mut client = Client::running(ConnectionOptions::default());
            play(&mut client, &bytes, &mut g);
        });
        assert!(peak < 100_000, "seed {seed}: {peak}");
    }
}

#[test]
fn any_bytes_as_a_table_are_refused_or_gone_through() {
    let mut taken = 0;
    for seed in 0..50_000 {
        let mut g = Bits(seed ^ 0x7ab1e);
        let bytes: Vec<u8> = (0..g.below(40))
            .map(|_| if g.below(3) == 0 { g.octet() } else { b"tVbF\0\x01"[g.below(6)] })
            .collect();
        let ((), peak) = peak_of(|| {
            let Ok(table) = FieldTable::from_bytes(&bytes) else { return };
            taken += 1;
            let mut again = FieldTableBuf::new();
            table.iter().for_each(|(name, value)| {
                again.push(name, value);
            });
            assert_eq!(again.as_table().as_bytes().len(), bytes.len(), "{bytes:?}");
        });
        assert!(peak < 1000, "{peak}");
    }
    assert!(taken > 1000, "{taken}");
}

/// Nothing is taken because it was announced.
#[test]
fn memory_follows_what_came_not_what_was_announced() {
    let mut client =
        Client::running(ConnectionOptions { message_max: u64::MAX, ..ConnectionOptions::default() });
    let mut out = FrameBuffer::new();
    out.arguments(1, &BasicPublish::default());
    let mut bytes = out.take_all().to_vec();
    bytes.extend(rig::unhex("02 0001 0000000e 003c 0000 ffffffffffffffff 0000 ce  03 0001 0001ffff"));
    let ((), peak) = peak_of(|| client.feed(&bytes, &mut |_| {}));
    assert!(peak < 4096, "{peak}");
}

/// A body of frames of one byte is held in about its own size.
#[test]
fn tiny_frames_of_a_body_are_gathered() {
    let options = ConnectionOptions { message_max: u64::MAX, ..ConnectionOptions::default() };
    let mut client = Client::running(options);
    let mut out = FrameBuffer::new();
    out.arguments(1, &BasicPublish::default());
    let mut head = out.take_all().to_vec();
    head.extend(rig::unhex("02 0001 0000000e 003c 0000 0000000000100000 0000 ce"));
    client.feed(&head, &mut |_| {});
    let tiny = rig::unhex("03 0001 00000001 78 ce").repeat(100);
    let (_, peak) = peak_of(|| (0..10_000).for_each(|_| client.feed(&tiny, &mut |_| {})));
    assert_eq!(client.machine.unfinished_bytes(), 1_000_000);
    assert!(peak < 2_500_000, "{peak}");
}

/// A channel costs little, and there are only as many as was agreed.
#[test]
fn channels_are_small() {
    let options = ConnectionOptions { channel_max: 0, ..ConnectionOptions::default() };
    let mut client = Client::running(options);
    let open: Vec<u8> = (2..=u16::MAX)
        .flat_map(|channel| {
            let mut out = FrameBuffer::new();
            out.arguments(channel, &ChannelOpen::default());
            out.take_all().to_vec()
        })
        .collect();
    client.feed(&open[..13], &mut |_| {});
    let ((), peak) = peak_of(|| {
        open[13..].chunks(13_000).for_each(|part| {
            client.feed(part, &mut |_| {});
            client.said_anything();
        });
    });
    assert_eq!(client.machine.channels(), 65_535);
    assert!(peak < 65_535 * 450, "{peak}");
}
