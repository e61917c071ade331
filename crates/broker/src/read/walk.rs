//! The records of what was read of a partition.

use sabir_model::batch::{RecordView, records, split};
use sabir_model::{ErrorAbout, FrontendNo, Offset, ReadError};

use super::types::{Fetched, ReadTarget};
use crate::broker::Broker;
use crate::relay::RECORDS_MAX;

impl Broker {
    /// Gives the records of what was read of a partition, from an offset on, each with the front end that wrote it, and the offset to go on at. It decompresses
    /// them, which may take as long as a second. What is damaged ends it, is counted and logged as what a read finds damaged, and is what the next read begins
    /// with.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`]: what stands at `from` is damaged.
    pub fn walk(
        &self,
        target: ReadTarget,
        fetched: &Fetched,
        from: Offset,
        mut each: impl FnMut(FrontendNo, &RecordView<'_>),
    ) -> Result<Offset, ErrorAbout<ReadError>> {
        let mut next = from;
        for slice in &fetched.slices {
            if walk(slice.origin, &slice.joined(), &mut next, &mut each).is_none() {
                self.damaged(target, next, ReadError::Corrupt);
                return if next == from { Err(self.about(target, ReadError::Corrupt)) } else { Ok(next) };
            }
            next = next.max(slice.next_offset);
        }
        Ok(next)
    }
}

/// None where something is damaged.
fn walk(
    origin: FrontendNo,
    batches: &[u8],
    next: &mut Offset,
    each: &mut impl FnMut(FrontendNo, &RecordView<'_>),
) -> Option<()> {
    for batch in split(batches) {
        let (header, batch) = batch.ok()?;
        let behind = Offset(header.last_offset().0 + 1);
        if behind <= *next {
            continue;
        }
        if !header.is_control() {
            for record in &records(batch, RECORDS_MAX).ok()? {
                let record = record.ok()?;
                if record.offset >= *next {
                    each(origin, &record);
                    *next = Offset(record.offset.0 + 1);
                }
            }
        }
        *next = behind;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sabir_model::LeaderEpoch;
    use sabir_model::batch::{BatchBuilder, Compression};

    use super::*;
    use crate::read::Slice;
    use crate::tests::rig::{create, open, options};

    fn batch(base: i64, values: &[&[u8]]) -> Vec<u8> {
        let mut batch = BatchBuilder::new(Compression::None).base_offset(Offset(base));
        values.iter().for_each(|value| batch.push(1, None, Some(value), &[]));
        batch.build().into()
    }

    #[tokio::test]
    async fn records_are_given_up_to_what_is_damaged_and_that_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(options(dir.path()));
        let topic = create(&broker, "t", 1).await;
        let target = ReadTarget::of(topic.partition(0).unwrap());
        let mut damaged = batch(2, &[b"c", b"d"]);
        // The length of its second record.
        let at = damaged.len() - 8;
        damaged[at] = 0x7f;
        let slice = |body: Vec<u8>| Slice {
            base_offset: Offset(0),
            next_offset: Offset(4),
            leader_epoch: LeaderEpoch(0),
            origin: FrontendNo(7),
            head: Bytes::new(),
            body: body.into(),
            is_held: false,
        };
        let whole = [batch(0, &[b"a", b"b"]), batch(2, &[b"c", b"d"])].concat();
        let damaged = [batch(0, &[b"a", b"b"]), damaged].concat();
        let walk = |body: &[u8], from: i64| {
            let fetched = Fetched { slices: vec![slice(body.into())], ..Fetched::default() };
            let mut found = String::new();
            let each = |origin: FrontendNo, record: &RecordView<'_>| {
                assert_eq!(origin, FrontendNo(7));
                found.push_str(std::str::from_utf8(record.value.unwrap()).unwrap());
            };
            let next = broker.walk(target, &fetched, Offset(from), each);
            (found, next.map(|next| next.0))
        };
        assert_eq!(walk(&whole, 1), ("bcd".into(), Ok(4)));
        let corrupt = || broker.stats().shards[1].corrupt;
        assert_eq!(corrupt(), 0);
        assert_eq!(walk(&damaged, 1), ("bc".into(), Ok(3)));
        assert_eq!(walk(&damaged, 3), (String::new(), Err(ReadError::Corrupt.into())));
        assert_eq!(corrupt(), 2);
        broker.shutdown();
    }
}
