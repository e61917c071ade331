//! What a queue must know of each record without looking into it.

use sabir_base::varint;
use twox_hash::XxHash3_128;

use crate::stored::{DecodeError, put_bytes, take, take_bytes, take_count, take_form, take_marks, take_u8};

/// What stands beside a record for a queue, so that nothing that applies entries parses records. Times are milliseconds since the epoch.
///
/// A publish brings them where its front end says them, and a queue reads what its settings ask for. Where nothing is said of a size, a message's
/// part of its batch stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Facts {
    /// Bytes of the message, as its queue's limits count them.
    pub size: u32,
    /// When it expires.
    pub expires_ms: Option<i64>,
    /// Its priority, where it has one: the higher the earlier.
    pub priority: Option<u8>,
    /// When it is delivered at the earliest.
    pub deliver_at_ms: Option<i64>,
    /// The group that its writer put it in. No front end writes it yet, and no queue reads it.
    pub group: Option<Box<[u8]>>,
    /// What it is known by where duplicates are looked for.
    pub message_id: Option<Box<[u8]>>,
    /// A hash of its tag, by which filters pass most others over. No front end writes it yet, and no queue reads it.
    pub tag_hash: Option<u32>,
    /// Whether it outlives a restart of the node. No front end writes it yet, and no queue reads it.
    pub persistent: bool,
}

/// The [`Facts`] of a batch's records, in their order; neighbours that are alike are one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RecordFacts {
    runs: Vec<(u32, Facts)>,
}

const FORM: u8 = 1;

const EXPIRES: u8 = 1 << 0;
const PRIORITY: u8 = 1 << 1;
const DELIVER_AT: u8 = 1 << 2;
const GROUP: u8 = 1 << 3;
const MESSAGE_ID: u8 = 1 << 4;
const TAG_HASH: u8 = 1 << 5;
const PERSISTENT: u8 = 1 << 6;
const KNOWN: u8 = (1 << 7) - 1;

impl Facts {
    /// The longest group and message id, in bytes.
    pub const NAME_MAX: usize = 1024;

    /// Whether they say nothing but a size.
    pub fn is_plain(&self) -> bool {
        self.marks() == 0
    }

    /// A hash of its message id (XXH3, 128 bits, without a seed): it is the same for ever, and what queues remember of an id.
    pub fn message_hash(&self) -> Option<u128> {
        self.message_id.as_deref().map(XxHash3_128::oneshot)
    }

    /// Bytes of the stored form, by itself.
    pub(crate) fn stored_bytes(&self) -> usize {
        let mut stored = Vec::new();
        self.put(&mut stored);
        stored.len() + 1
    }

    fn marks(&self) -> u8 {
        let mark = |on: bool, bit: u8| if on { bit } else { 0 };
        mark(self.expires_ms.is_some(), EXPIRES)
            | mark(self.priority.is_some(), PRIORITY)
            | mark(self.deliver_at_ms.is_some(), DELIVER_AT)
            | mark(self.group.is_some(), GROUP)
            | mark(self.message_id.is_some(), MESSAGE_ID)
            | mark(self.tag_hash.is_some(), TAG_HASH)
            | mark(self.persistent, PERSISTENT)
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.marks());
        varint::put_u64(out, self.size.into());
        self.expires_ms.iter().for_each(|time| varint::put_i64(out, *time));
        out.extend(self.priority);
        self.deliver_at_ms.iter().for_each(|time| varint::put_i64(out, *time));
        self.group.iter().for_each(|group| put_bytes(out, group));
        self.message_id.iter().for_each(|id| put_bytes(out, id));
        self.tag_hash.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let marks = take_marks(input, KNOWN, "facts")?;
        let has = |bit: u8| marks & bit != 0;
        Ok(Self {
            size: varint::take_u32(input)?,
            expires_ms: has(EXPIRES).then(|| varint::take_i64(input)).transpose()?,
            priority: has(PRIORITY).then(|| take_u8(input)).transpose()?,
            deliver_at_ms: has(DELIVER_AT).then(|| varint::take_i64(input)).transpose()?,
            group: has(GROUP).then(|| take_name(input)).transpose()?,
            message_id: has(MESSAGE_ID).then(|| take_name(input)).transpose()?,
            tag_hash: has(TAG_HASH).then(|| take(input).map(u32::from_le_bytes)).transpose()?,
            persistent: has(PERSISTENT),
        })
    }
}

fn take_name(input: &mut &[u8]) -> Result<Box<[u8]>, DecodeError> {
    let name = take_bytes(input)?;
    if name.len() > Facts::NAME_MAX { Err(DecodeError::Field("name in facts")) } else { Ok(name.into()) }
}

impl RecordFacts {
    /// Those of no record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds those of the next record.
    ///
    /// # Errors
    /// A group or a message id is longer than [`Facts::NAME_MAX`].
    pub fn push(&mut self, facts: Facts) -> Result<(), DecodeError> {
        let long = |name: &Option<Box<[u8]>>| name.as_ref().is_some_and(|name| name.len() > Facts::NAME_MAX);
        if long(&facts.group) || long(&facts.message_id) {
            return Err(DecodeError::Field("name in facts"));
        }
        match self.runs.last_mut() {
            Some((count, last)) if *last == facts && *count < u32::MAX => *count += 1,
            _ => self.runs.push((1, facts)),
        }
        Ok(())
    }

    /// How many records they are of.
    pub fn records(&self) -> u64 {
        self.runs.iter().map(|(count, _)| u64::from(*count)).sum()
    }

    /// Runs of records with the same facts: how many records, and which.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = (u32, &Facts)> {
        self.runs.iter().map(|(count, facts)| (*count, facts))
    }

    /// Appends the stored form: 1 · list of runs: how many records · marks u8 (1 expiry, 2 priority, 4 deliver-at, 8 group, 16 message id, 32 tag
    /// hash, 64 persistent; 128 is kept for a second byte of them) · size · then in this order what is marked: expiry, signed · priority, a byte · deliver-at, signed ·
    /// group · message id · tag hash, 4 bytes, little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        varint::put_u64(out, self.runs.len() as u64);
        for (count, facts) in &self.runs {
            varint::put_u64(out, (*count).into());
            facts.put(out);
        }
    }

    /// Bytes of the stored form.
    pub fn stored_bytes(&self) -> usize {
        let mut stored = Vec::new();
        self.encode(&mut stored);
        stored.len()
    }

    /// Takes them off the front of `input`.
    ///
    /// # Errors
    /// A cut input, a newer form, a run of no records, a name that is too long.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        take_form(input, FORM)?;
        let count = take_count(input, 3)?;
        let mut runs = Vec::with_capacity(count);
        for _ in 0..count {
            match varint::take_u32(input)? {
                0 => return Err(DecodeError::Field("number of records")),
                records => runs.push((records, Facts::take(input)?)),
            }
        }
        Ok(Self { runs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Facts {
        Facts {
            size: 300,
            expires_ms: Some(1_000_000),
            priority: Some(9),
            deliver_at_ms: Some(-1),
            group: Some(b"g".as_slice().into()),
            message_id: Some(b"id".as_slice().into()),
            tag_hash: Some(0x0102_0304),
            persistent: true,
        }
    }

    fn of(facts: &[Facts]) -> RecordFacts {
        let mut all = RecordFacts::new();
        facts.iter().for_each(|facts| all.push(facts.clone()).unwrap());
        all
    }

    #[test]
    fn only_what_is_set_takes_bytes_and_equal_neighbours_are_one_run() {
        let plain = Facts { size: 5, ..Facts::default() };
        let facts = of(&[plain.clone(), plain.clone(), all(), plain]);
        let mut stored = Vec::new();
        facts.encode(&mut stored);
        let every = b"\x01\x7f\xac\x02\x80\x89\x7a\x09\x01\x01g\x02id\x04\x03\x02\x01";
        assert_eq!(stored, [b"\x01\x03\x02\x00\x05", &every[..], b"\x01\x00\x05"].concat());
        assert_eq!((facts.records(), facts.runs().count()), (4, 3));
        let mut input = stored.as_slice();
        assert_eq!(RecordFacts::decode(&mut input), Ok(facts));
        assert_eq!(input, b"");
        for len in 0..stored.len() {
            assert!(RecordFacts::decode(&mut &stored[..len]).is_err(), "{len} bytes");
        }
    }

    /// The hash stands in checkpoints.
    #[test]
    fn an_id_has_its_hash_for_ever() {
        assert_eq!(Facts::default().message_hash(), None);
        let of = |id: &[u8]| Facts { message_id: Some(id.into()), ..Facts::default() }.message_hash();
        assert_eq!(of(b""), Some(0x99aa_06d3_0147_98d8_6001_c324_468d_497f));
        assert_ne!(of(b"a"), of(b"b"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let decode = |bytes: &[u8]| RecordFacts::decode(&mut &bytes[..]).unwrap_err();
        assert_eq!(decode(&[2, 0]), DecodeError::Version(2));
        assert_eq!(decode(&[1, 1, 1, 0x80, 5]), DecodeError::MoreMarks("facts"));
        assert_eq!(decode(&[1, 1, 0, 0, 5]), DecodeError::Field("number of records"));
        assert_eq!(decode(&[1, 0xff, 0xff, 3, 0]), DecodeError::Truncated, "a count is not believed");
        let long = Some(vec![0; Facts::NAME_MAX + 1].into());
        for facts in [
            Facts { group: long.clone(), ..Facts::default() },
            Facts { message_id: long, ..Facts::default() },
        ] {
            assert!(RecordFacts::new().push(facts).is_err());
        }
    }
}
