// What is fuzzed; the same functions run bounded on stable in `tests/bad_input.rs`.

use sabir_amqp::session::ConnectionOptions;
use sabir_amqp::wire::{FieldTable, FieldTableBuf};

#[path = "../tests/rig/mod.rs"]
pub mod rig;

use rig::Client;

/// Feeds a client's bytes in pieces of which the first byte says how long they are.
fn play(mut client: Client, data: &[u8]) {
    let Some((&piece, bytes)) = data.split_first() else { return };
    for piece in bytes.chunks(1 + usize::from(piece)) {
        client.feed(piece, &mut |event| drop(rig::word(event)));
    }
    let machine = &client.machine;
    assert!(machine.unfinished_bytes() <= bytes.len() as u64);
    assert!(machine.is_running() || machine.unfinished_bytes() == 0);
    client.said_anything();
}

/// A connection from its first byte on.
pub fn conversations(data: &[u8]) {
    play(Client::new(), data);
}

/// Frames on a connection that is open, with a channel.
pub fn frames(data: &[u8]) {
    play(Client::running(ConnectionOptions::default()), data);
}

/// A field table: what is one is walked through, and put together again to the same length.
pub fn tables(data: &[u8]) {
    let Ok(table) = FieldTable::from_bytes(data) else { return };
    let mut again = FieldTableBuf::new();
    table.iter().for_each(|(name, value)| {
        again.push(name, value);
    });
    assert_eq!(again.as_table().as_bytes().len(), data.len());
}
