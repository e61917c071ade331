//! The slot beside the segments: the few numbers that must be durable before a block is.
//!
//! Two copies of 4 KiB take turns, so that a torn write leaves the one before it.

use std::sync::Arc;

use sabir_base::crc::crc32c;
use sabir_base::node_time::{ClockLag, ClockNote, LAGS, Lags};
use sabir_model::{NodeId, Sequence, ShardId, Term};

use crate::content::field;
use crate::disk::{Disk, DiskError, FileId};
use crate::error::JournalError;
use crate::segment::{Aligned, UNFINISHED};

pub(crate) const NAME: &str = "slots";
const MAGIC: [u8; 4] = *b"SBRV";
const VERSION: u16 = 6;
/// It ended before the start's id.
const VERSION_5: u16 = 5;
/// Its notes ended before how long nodes had run.
const VERSION_4: u16 = 4;
/// Its notes ended before the confirmed time.
const VERSION_3: u16 = 3;
/// Its form ended before the notes.
const VERSION_2: u16 = 2;
/// Its form ended before the identity.
const VERSION_1: u16 = 1;
/// Where the notes on other shards begin, and how many bytes each takes.
const ENDS_AT: usize = 160;
const END_BYTES: usize = 16;
/// Where the confirmed time stands, behind them.
const CONFIRMED_AT: usize = ENDS_AT + SHARD_ENDS * END_BYTES;
/// For how long nodes have run, how far behind the time may be, and then what looks older than it is.
const RAN_AT: usize = CONFIRMED_AT + 8;
const LAGS_AT: usize = RAN_AT + 16;
const LAG_BYTES: usize = 16;
/// The id of the last start, behind them.
const START_AT: usize = LAGS_AT + LAGS * LAG_BYTES;
const COPY: u64 = 4096;
const CRC_AT: usize = 4092;

/// A vote given to a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// The term it was given in.
    pub term: Term,
    /// The node it was given to.
    pub node: NodeId,
    /// Whether that node is known to have won.
    pub won: bool,
}

/// Which shard of which data directory a journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardIdentity {
    /// The random id of the cluster, which all shards of a data directory share.
    pub cluster: [u8; 16],
    /// The shard's number.
    pub shard: ShardId,
    /// How many data shards there are beside shard 0.
    pub data_shards: u32,
}

/// The random id of one start of a data directory: two starts of copies of it may have the same number. What the end of a run
/// enters has its start's id, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartId(pub [u8; 16]);

/// Which of its forms a slot is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotForm {
    /// The first with notes.
    Notes,
    /// With what looks older than it is.
    Ages,
    /// With the start's id.
    Start,
}

/// How far the journals of other shards were durable; 0 where nothing is known.
pub type ShardEnds = [(ShardId, Sequence); SHARD_ENDS];
/// Of how many other shards a slot says that.
pub const SHARD_ENDS: usize = 16;

/// What a journal's slot says of the world around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotNotes {
    /// What time it was.
    pub clock: Option<ClockNote>,
    /// How far others were.
    pub ends: ShardEnds,
}

impl SlotNotes {
    /// How far the clocks may be apart before that is worth a write, in milliseconds.
    const DRIFT: u64 = 60_000;

    /// Whether `later` says what is worth a write; of other shards those first `ends` count.
    pub(crate) fn is_old(&self, later: &Self, ends: usize) -> bool {
        let clock = match (self.clock, later.clock) {
            (Some(noted), Some(now)) => {
                let passed = now.monotonic_ms.saturating_sub(noted.monotonic_ms) as i64;
                let drift = now.time_ms.saturating_sub(noted.time_ms).saturating_sub(passed);
                noted.boot != now.boot
                    || noted.is_confirmed() != now.is_confirmed()
                    || drift.unsigned_abs() > Self::DRIFT
                    || noted.behind_ms.abs_diff(now.behind_ms) > Self::DRIFT
                    || noted.lags.differ(&now.lags, Self::DRIFT)
            }
            (noted, now) => noted.is_some() != now.is_some(),
        };
        clock || self.ends[..ends] != later.ends[..ends]
    }
}

/// What the slot of a journal that is not opened says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalFound {
    /// The journal's own number, which its segments carry.
    pub journal: u64,
    /// Which shard it is; `None` if that was never written down.
    pub identity: Option<ShardIdentity>,
    /// The last start that began with this shard, counted from 1.
    pub run: u64,
    /// The id of that start; `None` where it is not known.
    pub start: Option<StartId>,
    /// The last start that is known to have reached every shard.
    pub confirmed_run: u64,
    /// Whether the journal may hold blocks.
    pub begun: bool,
    /// What it says of the world around it.
    pub notes: SlotNotes,
}

/// Looks at a journal without opening it: `None` where there is neither a slot nor a segment. Changes nothing. Blocking.
///
/// # Errors
/// The slot is missing, damaged, or of a newer version.
pub fn look_at(disk: &Arc<dyn Disk>) -> Result<Option<JournalFound>, JournalError> {
    let names = disk.list().map_err(JournalError::disk("list its files"))?;
    let segments = names.iter().any(|name| crate::segment::file_number(name).is_some());
    if !names.iter().any(|name| name == NAME) {
        return if segments { Err(missing()) } else { Ok(None) };
    }
    let slots = Slots::load(disk)?;
    let slot = slots.get();
    // Nothing is appended before the first run is entered, but by a version that did not write it down.
    let begun = if slots.version == VERSION_1 { segments } else { slot.run > 0 };
    Ok(Some(JournalFound { begun, ..slot.found() }))
}

fn missing() -> JournalError {
    let reason = "the file is missing, though there are segments".to_owned();
    JournalError::Slots { file: NAME.to_owned(), reason }
}

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct HardState {
    /// The journal's own number, random; its segments carry it too.
    pub journal: u64,
    pub term: Term,
    pub vote: Option<Vote>,
    /// A lower bound of what is committed and durable.
    pub committed: Sequence,
    /// How often a tail was cut; frames carry the count they were written under.
    pub cuts: u32,
    /// The first sequence of the last cut, and the term that cut it; 0 before the first.
    pub first_cut: Sequence,
    pub cut_term: Term,
    /// The last block, where the journal was shut down behind it; 0 while it runs.
    pub clean: Sequence,
    pub identity: Option<ShardIdentity>,
    /// The last start that began with this shard, counted from 1.
    pub run: u64,
    /// The id of that start; none where a version entered it that gave none.
    pub start: Option<StartId>,
    /// The last start that every shard of the data directory is known to have begun.
    pub confirmed_run: u64,
    /// The highest number that a segment was ever given; 0 before the first. Its header was durable before.
    pub segment: u64,
    pub notes: SlotNotes,
}

impl HardState {
    pub(crate) fn found(&self) -> JournalFound {
        let &Self { journal, identity, run, start, confirmed_run, notes, .. } = self;
        JournalFound { journal, identity, run, start, confirmed_run, begun: run > 0, notes }
    }

    /// Whether a frame was cut off: it is above the last cut and was written before it.
    pub(crate) fn has_cut(&self, sequence: Sequence, cuts: u32) -> bool {
        cuts < self.cuts && sequence >= self.first_cut
    }

    fn encode(&self, counter: u64, version: u16) -> [u8; COPY as usize] {
        let mut out = [0; COPY as usize];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&version.to_le_bytes());
        out[6] = self.vote.map_or(0, |vote| 1 + u8::from(vote.won));
        let vote = self.vote.unwrap_or(Vote { term: Term(0), node: NodeId(0), won: false });
        for (at, value) in [
            (8, counter),
            (16, self.journal),
            (24, self.term.0),
            (32, vote.term.0),
            (48, self.committed.0),
            (56, self.first_cut.0),
            (64, self.cut_term.0),
            (72, self.clean.0),
            (104, self.run),
            (112, self.confirmed_run),
            (120, self.segment),
        ] {
            out[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        if let Some(identity) = self.identity {
            out[80..96].copy_from_slice(&identity.cluster);
            out[96..100].copy_from_slice(&identity.shard.0.to_le_bytes());
            out[100..104].copy_from_slice(&identity.data_shards.to_le_bytes());
        }
        if version >= VERSION_3 {
            self.encode_notes(&mut out);
        }
        if let Some(clock) = self.notes.clock.filter(|_| version >= VERSION_4) {
            out[CONFIRMED_AT..CONFIRMED_AT + 8].copy_from_slice(&clock.confirmed_ms.to_le_bytes());
        }
        if let Some(clock) = self.notes.clock.filter(|_| version >= VERSION_5) {
            encode_ages(&clock, &mut out);
        }
        if let Some(start) = self.start.filter(|_| version >= VERSION) {
            out[START_AT..START_AT + 16].copy_from_slice(&start.0);
        }
        out[40..44].copy_from_slice(&vote.node.0.to_le_bytes());
        out[44..48].copy_from_slice(&self.cuts.to_le_bytes());
        let crc = crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn encode_notes(&self, out: &mut [u8; COPY as usize]) {
        if let Some(clock) = self.notes.clock {
            out[128..144].copy_from_slice(&clock.boot);
            out[144..152].copy_from_slice(&clock.monotonic_ms.to_le_bytes());
            out[152..160].copy_from_slice(&clock.time_ms.to_le_bytes());
        }
        for ((shard, end), to) in self.notes.ends.iter().zip(out[ENDS_AT..].chunks_exact_mut(END_BYTES)) {
            to[..4].copy_from_slice(&shard.0.to_le_bytes());
            to[8..].copy_from_slice(&end.0.to_le_bytes());
        }
    }

    fn decode(page: &[u8; COPY as usize]) -> Result<(u64, Self), BadCopy> {
        let u64_at = |at| field(page, at).map_or(0, u64::from_le_bytes);
        if page.iter().all(|&b| b == 0) {
            return Err(BadCopy::Empty);
        }
        if page[..4] != MAGIC || field(page, CRC_AT).map(u32::from_le_bytes) != Some(crc32c(&page[..CRC_AT]))
        {
            return Err(BadCopy::Bad);
        }
        match field(page, 4).map_or(0, u16::from_le_bytes) {
            // What later versions added reads as zeros.
            VERSION | VERSION_5 | VERSION_4 | VERSION_3 | VERSION_2 | VERSION_1 => {}
            version => return Err(BadCopy::Newer(version)),
        }
        let vote = Vote {
            term: Term(u64_at(32)),
            node: NodeId(field(page, 40).map_or(0, i32::from_le_bytes)),
            won: page[6] == 2,
        };
        let slot = Self {
            journal: u64_at(16),
            term: Term(u64_at(24)),
            vote: (page[6] != 0).then_some(vote),
            committed: Sequence(u64_at(48)),
            cuts: field(page, 44).map_or(0, u32::from_le_bytes),
            first_cut: Sequence(u64_at(56)),
            cut_term: Term(u64_at(64)),
            clean: Sequence(u64_at(72)),
            identity: Self::identity(page),
            run: u64_at(104),
            start: Self::start(page),
            confirmed_run: u64_at(112),
            segment: u64_at(120),
            notes: Self::notes(page),
        };
        Ok((u64_at(8), slot))
    }

    fn notes(page: &[u8; COPY as usize]) -> SlotNotes {
        let u64_at = |at| field(page, at).map_or(0, u64::from_le_bytes);
        let clock = ClockNote {
            boot: std::array::from_fn(|i| page[128 + i]),
            monotonic_ms: u64_at(144),
            time_ms: u64_at(152) as i64,
            confirmed_ms: u64_at(CONFIRMED_AT) as i64,
            ran_ms: u64_at(RAN_AT),
            behind_ms: u64_at(RAN_AT + 8) as i64,
            lags: Lags(std::array::from_fn(|i| {
                let at = LAGS_AT + i * LAG_BYTES;
                ClockLag { until_ms: u64_at(at), by_ms: u64_at(at + 8) as i64 }
            })),
        };
        let end = |i: usize| {
            let at = ENDS_AT + i * END_BYTES;
            (ShardId(field(page, at).map_or(0, u32::from_le_bytes)), Sequence(u64_at(at + 8)))
        };
        // A time of 0 is none: no clock that was ever set shows it.
        SlotNotes { clock: (clock.time_ms != 0).then_some(clock), ends: std::array::from_fn(end) }
    }

    fn start(page: &[u8; COPY as usize]) -> Option<StartId> {
        const { assert!(START_AT + 16 <= CRC_AT) };
        let id: [u8; 16] = std::array::from_fn(|i| page[START_AT + i]);
        (id != [0; 16]).then_some(StartId(id))
    }

    fn identity(page: &[u8; COPY as usize]) -> Option<ShardIdentity> {
        let u32_at = |at| field(page, at).map_or(0, u32::from_le_bytes);
        let (shard, data_shards) = (ShardId(u32_at(96)), u32_at(100));
        let cluster = std::array::from_fn(|i| page[80 + i]);
        (data_shards > 0).then_some(ShardIdentity { cluster, shard, data_shards })
    }
}

fn encode_ages(clock: &ClockNote, out: &mut [u8; COPY as usize]) {
    out[RAN_AT..RAN_AT + 8].copy_from_slice(&clock.ran_ms.to_le_bytes());
    out[RAN_AT + 8..LAGS_AT].copy_from_slice(&clock.behind_ms.to_le_bytes());
    for (lag, to) in clock.lags.0.iter().zip(out[LAGS_AT..].chunks_exact_mut(LAG_BYTES)) {
        to[..8].copy_from_slice(&lag.until_ms.to_le_bytes());
        to[8..].copy_from_slice(&lag.by_ms.to_le_bytes());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BadCopy {
    Empty,
    Bad,
    Newer(u16),
}

/// The slot file.
#[derive(Debug)]
pub(crate) struct Slots {
    disk: Arc<dyn Disk>,
    file: FileId,
    counter: u64,
    slot: HardState,
    /// The version that the slot was written in.
    version: u16,
}

impl Slots {
    /// Opens the slot file, or makes it where there is neither it nor a segment.
    pub(crate) fn open(disk: &Arc<dyn Disk>, names: &[String], journal: u64) -> Result<Self, JournalError> {
        if names.iter().any(|name| name == NAME) {
            return Self::load(disk);
        }
        if names.iter().any(|name| crate::segment::file_number(name).is_some()) {
            return Err(missing());
        }
        Self::create(disk, HardState { journal, ..HardState::default() })
            .map_err(JournalError::disk("make its slots"))
    }

    fn create(disk: &Arc<dyn Disk>, slot: HardState) -> Result<Self, DiskError> {
        let unfinished = format!("{NAME}{UNFINISHED}");
        let file = disk.create(&unfinished, 2 * COPY)?;
        disk.hold(file)?;
        let mut slots = Self { disk: disk.clone(), file, counter: 0, slot, version: VERSION };
        slots.save(slot)?;
        disk.rename(&unfinished, NAME)?;
        disk.sync_dir()?;
        Ok(slots)
    }

    fn load(disk: &Arc<dyn Disk>) -> Result<Self, JournalError> {
        let reading = || JournalError::disk("read its slots");
        let file = disk.open(NAME).map_err(reading())?;
        disk.hold(file).map_err(reading())?;
        let len = disk.len(file).map_err(reading())?;
        if len < 2 * COPY {
            let reason = format!("it has {len} bytes, and was made with {}", 2 * COPY);
            return Err(JournalError::Slots { file: NAME.to_owned(), reason });
        }
        let mut copies = Vec::new();
        for copy in 0..2 {
            let mut page = Box::new(Aligned([0; COPY as usize]));
            disk.read_at(file, copy * COPY, &mut page.0).map_err(reading())?;
            let version = field(&page.0, 4).map_or(0, u16::from_le_bytes);
            copies.push(HardState::decode(&page.0).map(|(counter, slot)| (counter, slot, version)));
        }
        let best = copies.iter().filter_map(|copy| copy.as_ref().ok()).max_by_key(|(counter, ..)| *counter);
        let newer = copies.iter().find_map(|copy| match copy {
            Err(BadCopy::Newer(version)) => Some(*version),
            _ => None,
        });
        if let Some(found) = newer {
            return Err(JournalError::Newer { file: NAME.to_owned(), found, known: VERSION });
        }
        let &(counter, slot, version) = best.ok_or_else(|| JournalError::Slots {
            file: NAME.to_owned(),
            reason: "their checksums do not match".to_owned(),
        })?;
        Ok(Self { disk: disk.clone(), file, counter, slot, version })
    }

    pub(crate) fn get(&self) -> HardState {
        self.slot
    }

    /// Makes `slot` durable, over the older copy.
    pub(crate) fn save(&mut self, slot: HardState) -> Result<(), DiskError> {
        let counter = self.counter + 1;
        // What was found in an older form stays in it until it is raised, but for the first, which has no room for an identity.
        let version = self.version.max(VERSION_2);
        let page = Box::new(Aligned(slot.encode(counter, version)));
        self.disk.write_at(self.file, (counter % 2) * COPY, &page.0)?;
        self.disk.sync(self.file)?;
        (self.counter, self.slot, self.version) = (counter, slot, version);
        Ok(())
    }

    /// Gives the file the space that it has not; see [`Disk::fill_holes`].
    pub(crate) fn fill_holes(&self, keep_free: u64) -> Result<bool, DiskError> {
        self.disk.fill_holes(self.file, keep_free)
    }

    /// Has what is saved from now on be in a newer form: the version before that does not read it.
    pub(crate) fn raise(&mut self, form: SlotForm) {
        let version = match form {
            SlotForm::Notes => VERSION_4,
            SlotForm::Ages => VERSION_5,
            SlotForm::Start => VERSION,
        };
        self.version = self.version.max(version);
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.disk.close(self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> HardState {
        HardState {
            journal: 0x0102_0304_0506_0708,
            term: Term(0x11),
            vote: Some(Vote { term: Term(0x12), node: NodeId(0x1314_1516), won: true }),
            committed: Sequence(0x21),
            cuts: 0x2223_2425,
            first_cut: Sequence(0x31),
            cut_term: Term(0x32),
            clean: Sequence(0x33),
            identity: Some(ShardIdentity {
                cluster: *b"0123456789abcdef",
                shard: ShardId(0x41),
                data_shards: 0x42,
            }),
            run: 0x43,
            start: Some(StartId(*b"gfedcba987654321")),
            confirmed_run: 0x44,
            segment: 0x45,
            notes: notes(),
        }
    }

    fn notes() -> SlotNotes {
        let (boot, confirmed_ms) = (*b"fedcba9876543210", 0x53);
        let mut lags = Lags::default();
        lags.0[0] = ClockLag { until_ms: 0x56, by_ms: 0x57 };
        lags.0[LAGS - 1] = ClockLag { until_ms: 0x58, by_ms: 0x59 };
        let (monotonic_ms, time_ms, ran_ms, behind_ms) = (0x51, 0x52, 0x54, 0x55);
        let clock = ClockNote { boot, monotonic_ms, time_ms, confirmed_ms, ran_ms, behind_ms, lags };
        let mut ends = ShardEnds::default();
        ends[0] = (ShardId(0x61), Sequence(0x62));
        ends[SHARD_ENDS - 1] = (ShardId(0x63), Sequence(0x64));
        SlotNotes { clock: Some(clock), ends }
    }

    #[test]
    fn golden_bytes_of_the_first_version() {
        let mut page = slot().encode(7, VERSION);
        page[4] = 1;
        page[80..CRC_AT].fill(0);
        seal(&mut page);
        let notes = SlotNotes::default();
        let plain =
            HardState { identity: None, run: 0, start: None, confirmed_run: 0, segment: 0, notes, ..slot() };
        assert_eq!(HardState::decode(&page), Ok((7, plain)));
    }

    #[test]
    fn golden_bytes_of_the_second_version() {
        let page = slot().encode(7, VERSION_2);
        assert!(page[4] == 2 && page[128..CRC_AT].iter().all(|&byte| byte == 0));
        assert_eq!(
            HardState::decode(&page),
            Ok((7, HardState { start: None, notes: SlotNotes::default(), ..slot() }))
        );
    }

    #[test]
    fn golden_bytes_of_the_third_version() {
        let mut page = slot().encode(7, VERSION);
        page[4] = 3;
        page[416..CRC_AT].fill(0);
        seal(&mut page);
        assert_eq!(
            page,
            slot().encode(7, VERSION_3),
            "what was found in that form stays in it until it is raised"
        );
        let mut third = HardState { start: None, ..slot() };
        let clock = third.notes.clock.as_mut().unwrap();
        *clock = ClockNote { confirmed_ms: 0, ..without_ages(*clock) };
        assert_eq!(HardState::decode(&page), Ok((7, third)));
    }

    fn without_ages(clock: ClockNote) -> ClockNote {
        ClockNote { ran_ms: 0, behind_ms: 0, lags: Lags::default(), ..clock }
    }

    #[test]
    fn golden_bytes_of_the_fourth_version() {
        let mut page = slot().encode(7, VERSION);
        page[4] = 4;
        page[424..CRC_AT].fill(0);
        seal(&mut page);
        assert_eq!(page, slot().encode(7, VERSION_4));
        let mut fourth = HardState { start: None, ..slot() };
        let clock = fourth.notes.clock.as_mut().unwrap();
        *clock = without_ages(*clock);
        assert_eq!(HardState::decode(&page), Ok((7, fourth)));
    }

    #[test]
    fn golden_bytes_of_the_fifth_version() {
        let mut page = slot().encode(7, VERSION);
        page[4] = 5;
        page[568..CRC_AT].fill(0);
        seal(&mut page);
        assert_eq!(page, slot().encode(7, VERSION_5));
        assert_eq!(HardState::decode(&page), Ok((7, HardState { start: None, ..slot() })));
    }

    fn seal(page: &mut [u8; COPY as usize]) {
        let crc = crc32c(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn golden_bytes_of_a_slot() {
        let page = slot().encode(7, VERSION);
        let hex: String = page[..176].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "534252560600020007000000000000000807060504030201",
                "1100000000000000",
                "1200000000000000",
                "1615141325242322",
                "2100000000000000",
                "3100000000000000",
                "3200000000000000",
                "3300000000000000",
                "30313233343536373839616263646566",
                "4100000042000000",
                "4300000000000000",
                "4400000000000000",
                "4500000000000000",
                "66656463626139383736353433323130",
                "5100000000000000",
                "5200000000000000",
                "61000000000000006200000000000000",
            )
        );
        assert!(page[176..400].iter().all(|&byte| byte == 0));
        assert_eq!(page[400..416], *b"\x63\0\0\0\0\0\0\0\x64\0\0\0\0\0\0\0");
        assert_eq!(page[416..424], 0x53_u64.to_le_bytes());
        assert_eq!(page[424..440], *b"\x54\0\0\0\0\0\0\0\x55\0\0\0\0\0\0\0");
        assert_eq!(page[440..456], *b"\x56\0\0\0\0\0\0\0\x57\0\0\0\0\0\0\0");
        assert!(page[456..552].iter().all(|&byte| byte == 0));
        assert_eq!(page[552..568], *b"\x58\0\0\0\0\0\0\0\x59\0\0\0\0\0\0\0");
        assert_eq!(page[568..584], *b"gfedcba987654321");
        assert!(page[584..CRC_AT].iter().all(|&byte| byte == 0));
        assert_eq!(page[CRC_AT..], crc32c(&page[..CRC_AT]).to_le_bytes());
        assert_eq!(HardState::decode(&page), Ok((7, slot())));
        let plain = HardState { vote: None, ..slot() };
        assert_eq!(HardState::decode(&plain.encode(1, VERSION)), Ok((1, plain)));
    }

    #[test]
    fn a_torn_or_flipped_copy_is_seen() {
        let old = slot().encode(1, VERSION);
        let new = HardState { term: Term(99), ..slot() }.encode(3, VERSION);
        for torn in [1, 24, 25, 512, 4095] {
            let mut page = old;
            page[..torn].copy_from_slice(&new[..torn]);
            let decoded = HardState::decode(&page);
            assert!(decoded == Err(BadCopy::Bad) || decoded == Ok((1, slot())), "{torn}: {decoded:?}");
        }
        for at in [0, 4, 6, 8, 79, 80, 127, 128, 415, 2000, CRC_AT] {
            let mut page = old;
            page[at] ^= 1;
            assert_eq!(HardState::decode(&page), Err(BadCopy::Bad), "byte {at}");
        }
        assert_eq!(HardState::decode(&[0; COPY as usize]), Err(BadCopy::Empty));
    }

    /// The notes after so much time by either clock.
    fn at(passed: u64, time: i64) -> SlotNotes {
        let mut later = notes();
        let clock = later.clock.as_mut().unwrap();
        clock.monotonic_ms += passed;
        clock.time_ms += time;
        clock.confirmed_ms += time;
        later
    }

    #[test]
    fn notes_are_worth_a_write_when_others_have_grown_or_the_time_has_jumped() {
        let noted = notes();
        assert!(
            !noted.is_old(&at(3_600_000, 3_600_000), SHARD_ENDS)
                && !noted.is_old(&at(5_000, 60_000), SHARD_ENDS)
        );
        assert!(noted.is_old(&at(0, 60_001), SHARD_ENDS) && noted.is_old(&at(60_001, 0), SHARD_ENDS));
        assert!(
            noted.is_old(&SlotNotes { clock: None, ..noted }, SHARD_ENDS)
                && SlotNotes::default().is_old(&noted, SHARD_ENDS)
        );
        let mut unconfirmed = noted;
        unconfirmed.clock.as_mut().unwrap().confirmed_ms -= 86_400_000;
        assert!(noted.is_old(&unconfirmed, SHARD_ENDS) && unconfirmed.is_old(&noted, SHARD_ENDS));
        let mut stepped = noted;
        stepped.clock.as_mut().unwrap().lags.step(60_001, 7);
        assert!(noted.is_old(&stepped, SHARD_ENDS) && stepped.is_old(&noted, SHARD_ENDS));
        let mut behind = noted;
        behind.clock.as_mut().unwrap().behind_ms += 60_001;
        assert!(noted.is_old(&behind, SHARD_ENDS));
        let mut grown = noted;
        grown.ends[0].1 = Sequence(0x63);
        assert!(noted.is_old(&grown, SHARD_ENDS));
    }

    #[test]
    fn a_cut_covers_what_was_written_before_it() {
        let slot = HardState { cuts: 3, first_cut: Sequence(10), ..HardState::default() };
        assert!(slot.has_cut(Sequence(10), 2));
        assert!(!slot.has_cut(Sequence(9), 2), "below the cut");
        assert!(!slot.has_cut(Sequence(10), 3), "written after it");
    }
}
