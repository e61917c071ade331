//! The client that the command line uses.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use sabir_amqp::Amqp;
use sabir_amqp::wire::*;
use sabir_frontend::Protocol;
use sabir_frontend::client::{
    Client, ClientError, ClientOptions, Endpoint, Failure, Incoming, Load, LoadPlan, LoadReport, Outgoing,
    PublishOptions, Settling, Start,
};
use tokio::task::LocalSet;

use crate::node::{Node, PATIENCE};

fn on_a_thread<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(PATIENCE, future).await.expect("it ends within half a minute")
    })
}

async fn connected(node: &Node) -> Box<dyn Client> {
    Amqp.connector().connect(Endpoint::plain(node.address.to_string()), PATIENCE).await.unwrap()
}

fn load(node: &Node, load: Load, size: usize, count: u64, clients: usize) -> Result<LoadReport, ClientError> {
    let (topic, options) = ("bench".to_owned(), ClientOptions::default());
    let (duration, warmup) = (Some(PATIENCE), Duration::ZERO);
    let plan =
        LoadPlan { load, topic, size, rate: None, count: Some(count), duration, warmup, clients, options };
    on_a_thread(Amqp.connector().bench(
        Endpoint::plain(node.address.to_string()),
        plan,
        Box::leak(Box::default()),
    ))
}

/// All that is in a queue now.
async fn read(client: &mut dyn Client, queue: &str) -> Vec<Incoming> {
    let mut positions = client.positions(queue, None, Start::Earliest).await.unwrap();
    let mut all = Vec::new();
    while positions[0].next < positions[0].end {
        all.extend(client.read(queue, &mut positions, Duration::from_millis(500)).await.unwrap());
    }
    all
}

#[test]
fn a_load_that_reads_takes_what_it_counts_and_leaves_the_rest() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("bench");
    client.select_confirms();
    client.publish("bench", &["abc"; 250]);
    client.confirmed(250);
    let report = load(&node, Load::Consume, 0, 130, 1).unwrap();
    assert_eq!((report.messages, report.bytes, report.errors), (130, 390, 0));
    assert_eq!(client.declare("bench").1, 120, "what a channel had in hand is back when it has closed");
}

#[test]
fn end_to_end_counts_its_own_messages_alone() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    load(&node, Load::Produce, 100, 10, 1).unwrap();
    let refused = load(&node, Load::EndToEnd, 100, 10, 1).unwrap_err();
    assert_eq!(refused.failure, Failure::Refused);
    assert!(refused.message.contains("queue bench has 10 messages"), "{refused}");
    load(&node, Load::Consume, 0, 10, 1).unwrap();
    // A client that shares a queue reads what the others send.
    let report = load(&node, Load::EndToEnd, 100, 2_000, 3).unwrap();
    assert_eq!((report.messages, report.latency_us.len(), report.errors), (2_000, 2_000, 0));
    assert_eq!(load(&node, Load::Produce, 7, 10, 1).unwrap_err().failure, Failure::Refused);
}

#[test]
fn headers_are_shown_as_the_values_they_are_and_times_where_there_are_some() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.select_confirms();
    let mut inner = FieldTableBuf::new();
    inner
        .push(ShortBytes::cut("t"), FieldValue::LongStr(b"text"))
        .push(ShortBytes::cut("b"), FieldValue::Binary(b"\xff\x01"));
    let list = FieldTableBuf::array(&[FieldValue::Table(inner.as_table()), FieldValue::Bool(true)]);
    let mut headers = FieldTableBuf::new();
    for (name, value) in [
        ("key", FieldValue::LongStr(b"k")),
        ("int", FieldValue::I32(-1)),
        ("bool", FieldValue::Bool(false)),
        ("float", FieldValue::F64(0.5)),
        ("text", FieldValue::LongStr(b"a")),
        ("bytes", FieldValue::Binary(b"\xff")),
        ("time", FieldValue::Timestamp(7)),
        ("table", FieldValue::Table(inner.as_table())),
        ("list", FieldValue::Array(FieldArray::from_values(&list).unwrap())),
        ("nothing", FieldValue::Void),
    ] {
        headers.push(ShortBytes::cut(name), value);
    }
    let headers = Some(headers.as_table());
    let publish = BasicPublish { routing_key: ShortBytes::cut("q"), ..Default::default() };
    for timestamp in [None, Some(1_700_000_000), Some(u64::MAX)] {
        client.publish_as(&publish, &BasicProperties { headers, timestamp, ..Default::default() }, &["m"]);
    }
    client.confirmed(3);
    let shown = on_a_thread(async { read(&mut *connected(&node).await, "q").await });
    let times: Vec<_> = shown.iter().map(|message| message.timestamp_ms).collect();
    assert_eq!(times, [None, Some(1_700_000_000_000), None]);
    assert_eq!(shown[0].key.as_deref(), Some(&b"k"[..]));
    let expected = [
        ("int", Some(&b"-1"[..])),
        ("bool", Some(b"false")),
        ("float", Some(b"0.5")),
        ("text", Some(b"a")),
        ("bytes", Some(b"\xff")),
        ("time", Some(b"7")),
        ("table", Some(br#"{"t":"text","b":"ff01"}"#)),
        ("list", Some(br#"[{"t":"text","b":"ff01"},true]"#)),
        ("nothing", None),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.map(Bytes::from_static)));
    assert_eq!(shown[0].headers, expected);
}

#[test]
fn a_long_queue_is_read_to_its_end_and_given_back() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.select_confirms();
    client.publish("q", &["m"; 1_200]);
    client.confirmed(1_200);
    for _ in 0..2 {
        assert_eq!(client.declare("q").1, 1_200, "what a channel had in hand is back when it has closed");
        let shown = on_a_thread(async {
            let mut reader = connected(&node).await;
            let shown = read(&mut *reader, "q").await;
            reader.stop_reading().await.unwrap();
            shown
        });
        assert_eq!(shown.len(), 1_200);
    }
    assert_eq!(client.declare("q").1, 1_200, "what a channel had in hand is back when it has closed");
    assert!(client.get("q", false).unwrap().got().redelivered);
}

#[test]
fn what_is_settled_is_gone_and_the_rest_comes_back() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.select_confirms();
    client.publish("q", &["a", "b", "c", "d"]);
    client.confirmed(4);
    on_a_thread(async {
        let mut reader = connected(&node).await;
        assert!(reader.settles(Settling::Messages(&[])));
        assert!(!reader.settles(Settling::Group { group: "g", before: &[] }));
        assert_eq!(read(&mut *reader, "q").await.len(), 4);
        reader.settle("q", Settling::Messages(&[(0, 0), (0, 2)])).await.unwrap();
        reader.stop_reading().await.unwrap();
    });
    let left = [client.get("q", true), client.get("q", true)];
    assert_eq!(left.map(|message| message.unwrap().body), [b"b", b"d"]);
    assert_eq!(client.declare("q").1, 0);
}

#[test]
fn what_cannot_be_says_what_there_is() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    node.open().declare("q");
    let says = |error: ClientError, failure: Failure, word: &str| {
        assert_eq!(error.failure, failure, "{error}");
        assert!(error.advice.as_deref().is_some_and(|advice| advice.contains(word)), "{error:?}");
    };
    on_a_thread(async {
        let mut client = connected(&node).await;
        for start in [Start::Offset(3), Start::Last(10), Start::Time(0), Start::Latest] {
            let refused = client.positions("q", None, start).await.unwrap_err();
            says(refused, Failure::Unsupported, "--offset, --last and --since");
        }
        says(
            client.positions("q", Some(1), Start::Earliest).await.unwrap_err(),
            Failure::NotFound,
            "--partition",
        );
        let (message, options) = (Outgoing::default(), PublishOptions::default());
        let refused = client.publish("absent", vec![message], &options).await.unwrap_err();
        says(refused, Failure::NotFound, "queue.declare");
        let refused = client.positions("absent", None, Start::Earliest).await.unwrap_err();
        says(refused, Failure::NotFound, "queue.declare");
    });
}

#[test]
fn what_one_reader_leaves_the_next_one_finds() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.select_confirms();
    client.publish("q", &["a", "b", "c"]);
    client.confirmed(3);
    for look in 0..50 {
        on_a_thread(async {
            let mut reader = connected(&node).await;
            assert_eq!(read(&mut *reader, "q").await.len(), 3, "look {look}");
            reader.stop_reading().await.unwrap();
        });
    }
}
