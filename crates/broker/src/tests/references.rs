//! References: records shown in a further partition, as an overlay has them.

use bytes::Bytes;
use sabir_model::batch::{BatchBuilder, Compression, records};
use sabir_model::{Extent, Offset, Overlay, OverlayBody, ProducerId, ReadError};

use super::rig::{append, batch, create, read, soon, until, values};
use super::sim::{Machine, Seam};
use crate::entry::{RecordPlace, ReferenceBody};
use crate::partition::{Run, RunDetail};
use crate::{Broker, Caller, Fetched, Topic};

fn id(topic: &Topic) -> sabir_model::PartitionId {
    topic.partition(0).unwrap().id
}

/// The run that holds an offset, and what it has beside.
fn run(broker: &Broker, topic: &Topic, offset: i64) -> (Run, Option<RunDetail>) {
    let state = broker.inner.shards[1].state.read();
    let runs = state.partition(id(topic)).unwrap().index.open_runs();
    let run = runs.list().iter().find(|run| run.next().0 > offset).unwrap();
    (*run, runs.detail(run).copied())
}

/// A reference in `to` to records of `from`, from an offset on.
fn reference(broker: &Broker, from: &Topic, offset: i64, records: u32, to: &Topic) -> ReferenceBody {
    let (run, _) = run(broker, from, offset);
    let extent = Extent {
        block: run.block,
        offset: run.offset,
        len: run.len,
        first_record: run.first_record + (offset - run.base.0) as u32,
        records,
        origin: run.origin,
        overlay: Overlay::None,
    };
    let source = Some(RecordPlace { partition: id(from), offset: Offset(offset) });
    ReferenceBody { targets: vec![id(to)], max_ts: 3, source, extent }
}

async fn refer(broker: &Broker, body: &ReferenceBody, overlay: Option<&[u8]>) {
    soon(broker.inner.shards[1].refer(body, overlay)).await.first().unwrap();
}

async fn refer_overlaid(broker: &Broker, mut body: ReferenceBody, overlay: &OverlayBody) {
    body.extent.overlay = Overlay::Payload;
    refer(broker, &body, Some(&overlay.encode().unwrap())).await;
}

/// Three records with two headers `h` and one `kept`.
fn three(compression: Compression) -> Bytes {
    let mut batch = BatchBuilder::new(compression).producer(ProducerId(9), 1, 0);
    for (i, value) in [b"a", b"b", b"c"].into_iter().enumerate() {
        let headers: [(&[u8], Option<&[u8]>); 3] = [(b"h", Some(b"1")), (b"kept", Some(b"2")), (b"h", None)];
        batch.push(i as i64 + 1, Some(b"k"), Some(value), &headers);
    }
    batch.build()
}

fn overlay() -> OverlayBody {
    OverlayBody {
        removed: vec![b"h".to_vec(), b"not there".to_vec()],
        added: vec![(b"why".to_vec(), Some(b"expired".to_vec())), (b"flag".to_vec(), None)],
        ..OverlayBody::default()
    }
}

/// Value, time and headers of each record.
fn shown(fetched: &Fetched) -> Vec<(Vec<u8>, i64, String)> {
    let mut all = Vec::new();
    for slice in &fetched.slices {
        let bytes = slice.joined();
        for one in sabir_model::batch::split(&bytes) {
            let records = records(one.unwrap().1, 1 << 20).unwrap();
            all.extend(records.iter().map(|record| {
                let record = record.unwrap();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let header =
                    |key: &[u8], value: Option<&[u8]>| format!("{}={:?}", text(key), value.map(text));
                let headers: Vec<_> = record.headers.map(|h| header(h.key, h.value)).collect();
                (record.value.unwrap().to_vec(), record.timestamp, headers.join(" "))
            }));
        }
    }
    all
}

const OVERLAID: &str = r#"kept=Some("2") why=Some("expired") flag=None"#;
const AS_STORED: &str = r#"h=Some("1") kept=Some("2") h=None"#;

fn expected(values: &[&[u8]], headers: &str) -> Vec<(Vec<u8>, i64, String)> {
    values.iter().map(|value| (value.to_vec(), i64::from(value[0] - b'a') + 1, headers.to_owned())).collect()
}

/// Refers to all, to some, and to what was referred to; then a batch of its own. Each target has another view of the records.
async fn write_references(broker: &Broker, from: &Topic, to: &Topic, dead: &Topic) {
    refer_overlaid(broker, reference(broker, from, 0, 3, to), &overlay()).await;
    refer_overlaid(broker, reference(broker, from, 1, 2, to), &overlay()).await;
    refer(broker, &reference(broker, from, 0, 3, to), None).await;
    // Further on with the overlay that it has, and with another one.
    let mut onwards = reference(broker, to, 3, 2, dead);
    onwards.extent.overlay = Overlay::At(run(broker, to, 3).1.unwrap().overlay.unwrap());
    refer(broker, &onwards, None).await;
    refer_overlaid(broker, reference(broker, to, 4, 1, dead), &OverlayBody::default()).await;
    append(broker, to, 0, batch(&[b"own"], 9)).await.unwrap();
}

async fn check_references(broker: &Broker, to: &Topic, dead: &Topic) {
    let fetched = soon(read(broker, to, 0, 0, 1 << 20)).await.unwrap();
    let offsets: Vec<i64> = values(&fetched).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (0..9).collect::<Vec<_>>());
    let mut all = expected(&[b"a", b"b", b"c"], OVERLAID);
    all.extend(expected(&[b"b", b"c"], OVERLAID));
    all.extend(expected(&[b"a", b"b", b"c"], AS_STORED));
    all.push((b"own".to_vec(), 9, String::new()));
    assert_eq!(shown(&fetched), all);
    let mut all = expected(&[b"b", b"c"], OVERLAID);
    all.extend(expected(&[b"c"], AS_STORED));
    assert_eq!(shown(&soon(read(broker, dead, 0, 0, 1 << 20)).await.unwrap()), all);
}

#[tokio::test]
async fn each_target_shows_the_records_with_its_own_headers_after_a_start_and_a_power_cut_too() {
    for codec in [Compression::None, Compression::Lz4] {
        let mut machine = Machine { recycle: false, ..Machine::new(3, 1, Seam::Solo) };
        let broker = machine.open();
        let (from, to) = (create(&broker, "from", 1).await, create(&broker, "to", 1).await);
        let dead = create(&broker, "dead", 1).await;
        append(&broker, &from, 0, three(codec)).await.unwrap();
        write_references(&broker, &from, &to, &dead).await;
        check_references(&broker, &to, &dead).await;
        broker.inner.shards[1].checkpoint().unwrap();
        broker.shutdown();
        drop(broker);
        let broker = machine.open();
        check_references(&broker, &to, &dead).await;
        assert!(broker.stats().shards[1].cold_bytes > 0);
        machine.agrees_with_replay(&broker);
        // Some behind the checkpoint, and no end in order.
        refer_overlaid(&broker, reference(&broker, &from, 0, 1, &dead), &overlay()).await;
        machine = machine.crash(broker);
        let broker = machine.open();
        let last = soon(read(&broker, &dead, 0, 3, 1 << 20)).await.unwrap();
        assert_eq!(shown(&last), expected(&[b"a"], OVERLAID));
        machine.agrees_with_replay(&broker);
        broker.shutdown();
    }
}

#[tokio::test]
async fn an_overlay_that_is_damaged_is_an_error_for_its_own_reader_alone() {
    let machine = Machine::new(4, 1, Seam::Solo);
    let broker = machine.open();
    let (from, to) = (create(&broker, "from", 1).await, create(&broker, "to", 1).await);
    append(&broker, &from, 0, three(Compression::None)).await.unwrap();
    let mut bad = reference(&broker, &from, 0, 3, &to);
    refer(&broker, &bad.clone(), None).await;
    bad.extent.overlay = Overlay::Payload;
    let mut stored = overlay().encode().unwrap();
    stored[2] ^= 1;
    refer(&broker, &bad, Some(&stored)).await;
    let before = soon(read(&broker, &to, 0, 0, 1 << 20)).await.unwrap();
    assert_eq!(shown(&before), expected(&[b"a", b"b", b"c"], AS_STORED));
    assert_eq!(soon(read(&broker, &to, 0, 3, 1 << 20)).await.unwrap_err(), ReadError::Corrupt.into());
    let found = broker.stats().shards[1].damaged.clone();
    assert_eq!((found.len(), found[0].topic, found[0].offset), (1, to.id, Offset(3)));
    assert_eq!(shown(&soon(read(&broker, &from, 0, 0, 1 << 20)).await.unwrap()).len(), 3);
    broker.shutdown();
}

/// A segment's worth of records, which go again.
async fn fill_and_drop(broker: &Broker, name: &str) {
    let topic = create(broker, name, 1).await;
    for _ in 0..25 {
        append(broker, &topic, 0, batch(&[&[1; 100_000]], 1)).await.unwrap();
    }
    broker.delete_topics(&Caller::OPERATOR, vec![topic.id]).await.remove(0).unwrap();
}

#[tokio::test]
async fn segments_are_kept_that_nothing_but_a_reference_or_an_overlay_needs() {
    let machine = Machine::new(5, 1, Seam::Solo);
    let broker = machine.open();
    let (from, to) = (create(&broker, "from", 1).await, create(&broker, "to", 1).await);
    append(&broker, &from, 0, three(Compression::None)).await.unwrap();
    fill_and_drop(&broker, "between").await;
    refer_overlaid(&broker, reference(&broker, &from, 0, 3, &to), &overlay()).await;
    fill_and_drop(&broker, "behind").await;
    broker.delete_topics(&Caller::OPERATOR, vec![from.id]).await.remove(0).unwrap();
    fill_and_drop(&broker, "at the end").await;
    let shard = &broker.inner.shards[1];
    // The dead ones are found once a checkpoint covers them.
    (0..2).for_each(|_| shard.checkpoint().unwrap());
    let (run, detail) = run(&broker, &to, 0);
    let overlay = detail.unwrap().overlay.unwrap();
    let (of_run, of_overlay) = (shard.journal.segment_of(run.block), shard.journal.segment_of(overlay.block));
    assert!(of_run.is_some() && of_overlay.is_some() && of_run != of_overlay);
    let first = soon(read(&broker, &to, 0, 0, 1 << 20)).await.unwrap();
    assert_eq!(shown(&first), expected(&[b"a", b"b", b"c"], OVERLAID));
    broker.delete_topics(&Caller::OPERATOR, vec![to.id]).await.remove(0).unwrap();
    until(|| {
        shard.checkpoint().unwrap();
        shard.journal.segment_of(run.block).is_none() && shard.journal.segment_of(overlay.block).is_none()
    })
    .await;
    broker.shutdown();
}
