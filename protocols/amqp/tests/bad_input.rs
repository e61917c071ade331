//! Bytes from strangers: no panic, no more memory than what was sent and the limits allow. The same bytes every time, by seed.
#![allow(clippy::unwrap_used, reason = "a failure is what a test is for")]

#[path = "../fuzz/targets.rs"]
mod targets;

use sabir_amqp::session::ConnectionOptions;
use sabir_amqp::wire::*;
use sabir_base::testing::{Bits, CountingAllocator, peak_of};
use targets::rig::{self, Client};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Mostly what passes for counts, lengths and flags.
fn octet(g: &mut Bits) -> u8 {
    [0, 1, 2, 0x7f, 0x80, 0xff, FRAME_END, b'F', b'A', b'S', g.next() as u8][below(g, 11)]
}

fn below(g: &mut Bits, bound: usize) -> usize {
    g.below(bound as u64) as usize
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
        let (part, rest) = left.split_at(left.len().min(1 + below(g, 3000)));
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
        let g = &mut Bits(seed);
        let mut bytes = CAPTURES[below(g, 4)].to_vec();
        bytes.truncate(bytes.len().min(3000));
        for _ in 0..=below(g, 4) {
            let at = 8 + below(g, bytes.len() - 8);
            match below(g, 4) {
                0 => drop(bytes.drain(at..(at + 1 + below(g, 9)).min(bytes.len()))),
                1 => bytes.insert(at, octet(g)),
                _ => bytes[at] = octet(g),
            }
        }
        let (client, peak) = peak_of(|| {
            let mut client = Client::new();
            play(&mut client, &bytes, g);
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
        let g = &mut Bits(seed ^ 0xf00d);
        let mut bytes = Vec::new();
        for _ in 0..1 + below(g, 12) {
            let (class, id) = METHODS[below(g, METHODS.len())].id;
            let mut payload = [class.to_be_bytes(), id.to_be_bytes()].concat();
            payload.extend((0..below(g, 30)).map(|_| octet(g)));
            bytes.push([1, 1, 1, 2, 3, 8][below(g, 6)]);
            bytes.extend([0, below(g, 3) as u8]);
            bytes.extend((payload.len() as u32).to_be_bytes());
            bytes.extend(payload);
            bytes.push(FRAME_END);
        }
        let (_, peak) = peak_of(|| {
            let mut client = Client::running(ConnectionOptions::default());
            play(&mut client, &bytes, g);
        });
        assert!(peak < 100_000, "seed {seed}: {peak}");
    }
}

#[test]
fn any_bytes_as_a_table_are_refused_or_gone_through() {
    let mut taken = 0;
    for seed in 0..50_000 {
        let g = &mut Bits(seed ^ 0x7ab1e);
        let bytes: Vec<u8> = (0..below(g, 40))
            .map(|_| if below(g, 3) == 0 { octet(g) } else { b"tVbF\0\x01"[below(g, 6)] })
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

/// What `./test fuzz` goes on with for longer.
#[test]
fn what_is_fuzzed_bears_captures_and_noise() {
    for seed in 0..300 {
        let g = &mut Bits(seed ^ 0xf022);
        let capture = CAPTURES[below(g, 4)];
        let mut data = vec![octet(g)];
        data.extend(&capture[..capture.len().min(2000)]);
        let at = below(g, data.len());
        data[at] = octet(g);
        targets::conversations(&data);
        targets::frames(&data[9..]);
        let noise: Vec<u8> = (0..below(g, 60)).map(|_| octet(g)).collect();
        [targets::conversations, targets::frames, targets::tables]
            .into_iter()
            .for_each(|target| target(&noise));
    }
}
