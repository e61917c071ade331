//! The state of every message: a floor, a head, and a ring of containers for what these two do not say.
//!
//! ```text
//!   0 ........ floor ........ head ........ end
//!     settled       in flight      ready          what a slot without a container says
//! ```
//!
//! Taking in order moves the head and settling in order moves the floor, so neither needs a container.

use std::collections::VecDeque;

use sabir_model::DecodeError;
use sabir_model::stored::{take, take_u8};

/// Messages of a container.
pub const CONTAINER: u64 = 1024;

const PER_WORD: u64 = 32;
const WORDS: usize = (CONTAINER / PER_WORD) as usize;
/// The low bit of each message's two.
const LOW: u64 = 0x5555_5555_5555_5555;

/// Where a message stands with one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageState {
    /// Can be delivered.
    Ready = 0,
    /// An owner has it; an owner record says which.
    InFlight = 1,
    /// Becomes ready at a time that its timer knows.
    Parked = 2,
    /// Done with: acknowledged, expired, dropped, dead-lettered or gone.
    Settled = 3,
}

impl MessageState {
    fn of(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Ready,
            1 => Self::InFlight,
            2 => Self::Parked,
            _ => Self::Settled,
        }
    }

    /// A word of 32 messages in this state.
    fn word(self) -> u64 {
        self as u64 * LOW
    }
}

type Container = Box<[u64; WORDS]>;

/// What is known of a container's worth of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ContainerState {
    /// In flight below the head, ready from it on.
    Plain,
    /// All alike.
    Uniform(MessageState),
    /// Two bits a message.
    Bits(Container),
}

/// Floor, head, end, and the ring.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct States {
    pub floor: u64,
    pub head: u64,
    pub end: u64,
    /// The first slot is that of the floor; slots beyond the last are plain.
    ring: VecDeque<ContainerState>,
}

/// The container's number that holds an offset.
pub(super) fn block_of(offset: u64) -> u64 {
    offset / CONTAINER
}

impl States {
    /// The state of one message; what is not published yet counts as ready.
    pub fn state(&self, offset: u64) -> MessageState {
        self.run(offset).0
    }

    /// The state of `offset`, and the end of a run of messages that share it (not always the longest one).
    pub fn run(&self, offset: u64) -> (MessageState, u64) {
        if offset < self.floor {
            return (MessageState::Settled, self.floor);
        }
        let block = block_of(offset);
        let block_end = (block + 1) * CONTAINER;
        match self.slot(block) {
            Some(ContainerState::Bits(words)) => {
                let (state, end) = run_in(words, offset % CONTAINER);
                (state, block * CONTAINER + end)
            }
            Some(ContainerState::Uniform(state)) => (*state, block_end),
            Some(ContainerState::Plain) => self.plain_run(offset, block_end),
            None => self.plain_run(offset, u64::MAX),
        }
    }

    fn plain_run(&self, offset: u64, end: u64) -> (MessageState, u64) {
        if offset < self.head {
            (MessageState::InFlight, end.min(self.head))
        } else {
            (MessageState::Ready, end)
        }
    }

    /// The first published message at or behind `from` that is ready.
    pub fn next_ready(&self, from: u64) -> Option<u64> {
        let mut at = from.max(self.floor);
        while at < self.end {
            let (state, end) = self.run(at);
            if state == MessageState::Ready {
                return Some(at);
            }
            at = end;
        }
        None
    }

    /// How many of these are in `state`.
    pub fn count(&self, state: MessageState, from: u64, to: u64) -> u64 {
        let (mut at, mut count) = (from, 0);
        while at < to {
            let (found, end) = self.run(at);
            let end = end.min(to);
            count += if found == state { end - at } else { 0 };
            at = end;
        }
        count
    }

    /// One behind the last message that is not ready.
    pub fn last_unready_end(&self) -> u64 {
        let base = self.base();
        let slots = self.ring.iter().enumerate().rev();
        let last = slots
            .filter_map(|(place, slot)| Some((base + place as u64) * CONTAINER + slot.last_unready_end()?));
        last.take(1).fold(self.head, u64::max)
    }

    fn base(&self) -> u64 {
        block_of(self.floor)
    }

    fn slot(&self, block: u64) -> Option<&ContainerState> {
        self.ring.get(block.checked_sub(self.base())? as usize)
    }

    /// Puts published, unsettled messages into a state. Tells each container's number that changed.
    pub fn set(&mut self, from: u64, to: u64, state: MessageState, changed: &mut impl FnMut(u64)) {
        let (from, to) = (from.max(self.floor), to.min(self.end));
        if from >= to {
            return;
        }
        match state {
            MessageState::InFlight if from == self.head => {
                self.fill(from, to, state, false, changed);
                self.head = to;
            }
            MessageState::Ready if to == self.head => {
                self.fill(from, to, state, false, changed);
                self.head = from;
            }
            MessageState::Settled if from == self.floor => {
                self.fill(from, to, state, false, changed);
                self.raise_floor(to, changed);
            }
            _ => self.fill(from, to, state, true, changed),
        }
    }

    /// Writes a state into the containers of a range; plain slots get one only if told so.
    fn fill(
        &mut self,
        from: u64,
        to: u64,
        state: MessageState,
        plain_too: bool,
        changed: &mut impl FnMut(u64),
    ) {
        let base = self.base();
        let last = if plain_too { block_of(to - 1) } else { block_of(to - 1).min(self.last_block()) };
        if plain_too && base + self.ring.len() as u64 <= last {
            self.ring.resize((last + 1 - base) as usize, ContainerState::Plain);
        }
        if self.ring.is_empty() {
            return;
        }
        for block in block_of(from)..=last {
            let start = block * CONTAINER;
            let (first, end) = (from.max(start) - start, to.min(start + CONTAINER) - start);
            let head = self.head.clamp(start, start + CONTAINER) - start;
            let slot = &mut self.ring[(block - base) as usize];
            if plain_too || *slot != ContainerState::Plain {
                slot.fill(first, end, state, head);
                changed(block);
            }
        }
    }

    fn last_block(&self) -> u64 {
        (self.base() + self.ring.len() as u64).saturating_sub(1)
    }

    /// Moves the floor to at least `to`, and on over what is settled there.
    fn raise_floor(&mut self, to: u64, changed: &mut impl FnMut(u64)) {
        let base = self.base();
        let mut floor = to;
        while floor < self.end {
            let block = (block_of(floor) - base) as usize;
            let Some(slot) = self.ring.get(block) else { break };
            let start = block_of(floor) * CONTAINER;
            let (state, end) = match slot {
                ContainerState::Plain => break,
                ContainerState::Uniform(state) => (*state, CONTAINER),
                ContainerState::Bits(words) => run_in(words, floor % CONTAINER),
            };
            if state != MessageState::Settled {
                break;
            }
            floor = (start + end).min(self.end);
        }
        self.floor = floor;
        self.head = self.head.max(floor);
        for block in base..self.base() {
            match self.ring.pop_front() {
                None => break,
                Some(ContainerState::Plain) => {}
                Some(_) => changed(block),
            }
        }
    }

    /// Lowers the floor; what comes to lie above it is still settled, but each in its own right.
    pub fn lower_floor(&mut self, to: u64, changed: &mut impl FnMut(u64)) {
        let (old, base) = (self.floor, self.base());
        if to >= old {
            return;
        }
        self.floor = to;
        for block in (self.base()..base).rev() {
            self.ring.push_front(ContainerState::Uniform(MessageState::Settled));
            changed(block);
        }
        let start = (base * CONTAINER).max(to);
        if start < old {
            self.fill(start, old, MessageState::Settled, true, changed);
        }
    }

    /// Moves the floor over what is settled there.
    pub fn settle_floor(&mut self, changed: &mut impl FnMut(u64)) {
        self.raise_floor(self.floor, changed);
    }

    /// Forgets all states: everything from `floor` on is ready. Tells the containers that go.
    pub fn restart_at(&mut self, floor: u64, changed: &mut impl FnMut(u64)) {
        self.each_container(changed);
        self.ring.clear();
        self.floor = floor;
        self.head = floor;
    }

    /// The numbers of all containers.
    pub fn each_container(&self, each: &mut impl FnMut(u64)) {
        let base = self.base();
        let kept = self.ring.iter().zip(base..).filter(|(slot, _)| **slot != ContainerState::Plain);
        kept.for_each(|(_, block)| each(block));
    }

    /// Bytes of memory behind the struct.
    pub fn bytes(&self) -> usize {
        let boxed = self.ring.iter().filter(|slot| matches!(slot, ContainerState::Bits(_))).count();
        self.ring.capacity() * size_of::<ContainerState>() + boxed * size_of::<[u64; WORDS]>()
    }

    /// Gives back memory of a ring that is empty.
    pub fn shrink(&mut self) {
        if self.ring.iter().all(|slot| *slot == ContainerState::Plain) {
            self.ring = VecDeque::new();
        }
    }

    /// Appends a container's stored form: its state if all are alike, else 4 and the words. Tells whether there is one.
    pub fn encode_container(&self, block: u64, out: &mut Vec<u8>) -> bool {
        match self.slot(block) {
            None | Some(ContainerState::Plain) => return false,
            Some(ContainerState::Uniform(state)) => out.push(*state as u8),
            Some(ContainerState::Bits(words)) => {
                out.push(4);
                words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
            }
        }
        true
    }

    /// Takes a container's stored form; floor, head and end must be known before.
    pub fn decode_container(&mut self, block: u64, input: &mut &[u8]) -> Result<(), DecodeError> {
        let slot = match take_u8(input)? {
            state @ 0..=3 => ContainerState::Uniform(MessageState::of(state.into())),
            4 => ContainerState::Bits(take_words(input)?),
            _ => return Err(DecodeError::Field("container")),
        };
        if block < self.base() || block > block_of(self.end) {
            return Err(DecodeError::Field("container's number"));
        }
        let place = (block - self.base()) as usize;
        if self.ring.len() <= place {
            self.ring.resize(place + 1, ContainerState::Plain);
        }
        self.ring[place] = slot;
        Ok(())
    }
}

fn take_words(input: &mut &[u8]) -> Result<Container, DecodeError> {
    let mut words = Box::new([0; WORDS]);
    for word in words.iter_mut() {
        *word = u64::from_le_bytes(take(input)?);
    }
    Ok(words)
}

/// The state of a container's message, and where the run of messages like it ends, at the latest with the container.
fn run_in(words: &[u64; WORDS], from: u64) -> (MessageState, u64) {
    let mut word = (from / PER_WORD) as usize;
    let shift = 2 * (from % PER_WORD);
    let state = MessageState::of(words[word] >> shift);
    let mut differs = unlike(words[word], state) >> shift << shift;
    while differs == 0 {
        word += 1;
        if word == WORDS {
            return (state, CONTAINER);
        }
        differs = unlike(words[word], state);
    }
    (state, word as u64 * PER_WORD + u64::from(differs.trailing_zeros()) / 2)
}

/// The low bit of each message that is in another state.
fn unlike(word: u64, state: MessageState) -> u64 {
    let differs = word ^ state.word();
    (differs | differs >> 1) & LOW
}

impl ContainerState {
    /// Puts a range into a state. Messages below `head` are in flight if the slot was plain.
    fn fill(&mut self, first: u64, end: u64, state: MessageState, head: u64) {
        if first == 0 && end == CONTAINER || *self == Self::Uniform(state) {
            *self = Self::Uniform(state);
            return;
        }
        let words = self.words(head);
        fill_words(words, first, end, state);
        let whole = words[(first / PER_WORD) as usize] == state.word();
        if whole && state == MessageState::Settled && words.iter().all(|word| *word == state.word()) {
            *self = Self::Uniform(state);
        }
    }

    /// One behind the last message that is not ready, unless the slot is plain or all are.
    fn last_unready_end(&self) -> Option<u64> {
        let words = match self {
            Self::Plain | Self::Uniform(MessageState::Ready) => return None,
            Self::Uniform(_) => return Some(CONTAINER),
            Self::Bits(words) => words,
        };
        let (word, bits) = words.iter().enumerate().rfind(|(_, bits)| **bits != 0)?;
        Some(word as u64 * PER_WORD + u64::from(63 - bits.leading_zeros()) / 2 + 1)
    }

    fn words(&mut self, head: u64) -> &mut [u64; WORDS] {
        let before = match self {
            Self::Bits(_) => None,
            Self::Uniform(state) => Some((*state, *state)),
            Self::Plain => Some((MessageState::InFlight, MessageState::Ready)),
        };
        if let Some((below, above)) = before {
            let mut words = Box::new([above.word(); WORDS]);
            fill_words(&mut words, 0, head, below);
            *self = Self::Bits(words);
        }
        let Self::Bits(words) = self else { unreachable!("made so above") };
        words
    }
}

fn fill_words(words: &mut [u64; WORDS], first: u64, end: u64, state: MessageState) {
    let mut at = first;
    while at < end {
        let word = at / PER_WORD;
        let stop = end.min((word + 1) * PER_WORD);
        let mask = bits_below(stop - word * PER_WORD) & !bits_below(at - word * PER_WORD);
        let word = &mut words[word as usize];
        *word = *word & !mask | state.word() & mask;
        at = stop;
    }
}

/// The bits of the first `messages` of a word.
fn bits_below(messages: u64) -> u64 {
    if messages == PER_WORD { u64::MAX } else { (1 << (2 * messages)) - 1 }
}
