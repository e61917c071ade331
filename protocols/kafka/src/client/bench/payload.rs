//! What the messages say.

/// Content to cut messages from: letters, as Kafka's own load tool sends them, so that compression has as much to do.
#[derive(Debug)]
pub(super) struct Payload {
    letters: Vec<u8>,
    size: usize,
}

/// Where messages begin is spread over so much.
const SPREAD: usize = 64 << 10;

impl Payload {
    pub fn new(size: usize, seed: u64) -> Self {
        let mut state = seed | 1;
        let mut letter = || {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b'A' + (state >> 32) as u8 % 26
        };
        Self { letters: (0..SPREAD + size).map(|_| letter()).collect(), size }
    }

    /// The content of message number `index`.
    pub fn of(&self, index: u64) -> &[u8] {
        let start = (index as usize).wrapping_mul(7919) % SPREAD;
        &self.letters[start..start + self.size]
    }
}
