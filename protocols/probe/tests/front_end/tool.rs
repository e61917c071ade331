//! The command line's client, and records of other protocols.

use std::time::Duration;

use sabir_server::client::{
    Client, ClientOptions, Endpoint, Failure, Load, LoadPlan, LoadReport, LocalFuture, Outgoing, Position,
    PublishOptions, Settling, Start,
};
use sabir_server::protocols;

use crate::node::{Node, SHARDS};

async fn connect(protocol: &str, address: std::net::SocketAddr) -> Box<dyn Client> {
    let protocol = protocols().iter().find(|p| p.name() == protocol).unwrap();
    protocol.connector().connect(Endpoint::plain(address.to_string()), Duration::from_secs(30)).await.unwrap()
}

async fn read_all(client: &mut dyn Client, topic: &str, start: Start) -> Vec<String> {
    let mut positions: Vec<Position> = client.positions(topic, None, start).await.unwrap();
    let mut all = Vec::new();
    while positions.iter().any(|position| position.next < position.end) {
        let read = client.read(topic, &mut positions, Duration::from_secs(5)).await.unwrap();
        all.extend(read.into_iter().map(|m| String::from_utf8_lossy(&m.value.unwrap()).into_owned()));
    }
    all
}

async fn publish(client: &mut dyn Client, topic: &str, text: &'static str) {
    let message = Outgoing { value: Some(text.into()), ..Outgoing::default() };
    client.publish(topic, vec![message], &PublishOptions::default()).await.unwrap();
}

fn locally(work: impl FnOnce() -> LocalFuture<'static, ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work()).unwrap();
}

#[test]
fn the_command_lines_client_publishes_and_reads_and_says_what_it_cannot() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        assert_eq!(node.connect().ask("CREATE t 2"), "OK");
        let address = node.addresses[0];
        locally(move || {
            Box::pin(async move {
                let mut client = connect("probe", address).await;
                publish(&mut *client, "t", "one").await;
                publish(&mut *client, "t", "two").await;
                assert_eq!(read_all(&mut *client, "t", Start::Earliest).await, ["one", "two"]);
                assert_eq!(read_all(&mut *client, "t", Start::Last(1)).await, ["two"]);
                let keyed = Outgoing { key: Some("k".into()), ..Outgoing::default() };
                let options = PublishOptions::default();
                let refused = client.publish("t", vec![keyed], &options).await.unwrap_err();
                assert_eq!(refused.failure, Failure::Unsupported);
                let missing = client.positions("none", None, Start::Latest).await.unwrap_err();
                assert_eq!(missing.failure, Failure::NotFound);
                Ok(())
            })
        });
        node.stop();
    }
}

#[test]
fn what_is_settled_leaves_the_queue_and_what_another_one_has_does_not() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let mut other = node.connect();
        assert_eq!(other.ask("QUEUE q"), "OK");
        for text in ["a", "b", "c"] {
            assert!(other.ask(&format!("PUBLISH q 0 {text}")).starts_with("OK"));
        }
        let address = node.addresses[0];
        locally(move || {
            Box::pin(async move {
                let mut client = connect("probe", address).await;
                let group = Settling::Group { group: "g", before: &[(0, 1)] };
                assert!(!client.settles(group) && client.settles(Settling::Messages(&[])));
                client.settle("q", Settling::Messages(&[(0, 0), (0, 1)])).await.unwrap();
                let again = client.settle("q", Settling::Messages(&[(0, 1)])).await.unwrap_err();
                assert_eq!(again.failure, Failure::Refused);
                Ok(())
            })
        });
        let (leased, _) = other.leased("q");
        assert!(leased.ends_with(" 2 c"), "{leased}");
        node.stop();
    }
}

async fn load(address: std::net::SocketAddr, load: Load, count: u64, rate: Option<f64>) -> LoadReport {
    let protocol = protocols().iter().find(|p| p.name() == "probe").unwrap();
    let (topic, options) = ("t".to_owned(), ClientOptions::default());
    let (duration, warmup) = (Some(Duration::from_secs(30)), Duration::ZERO);
    let plan =
        LoadPlan { load, topic, size: 100, rate, count: Some(count), duration, warmup, clients: 1, options };
    let endpoint = Endpoint::plain(address.to_string());
    protocol.connector().bench(endpoint, plan, Box::leak(Box::default())).await.unwrap()
}

#[test]
fn a_load_counts_what_it_has_published_and_read() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let address = node.addresses[0];
        locally(move || {
            Box::pin(async move {
                for (kind, count, rate) in [
                    (Load::Produce, 700, None),
                    (Load::Consume, 650, None),
                    (Load::EndToEnd, 600, None),
                    (Load::EndToEnd, 100, Some(1_000.0)),
                ] {
                    let report = load(address, kind, count, rate).await;
                    assert_eq!(
                        (report.messages, report.bytes, report.errors),
                        (count, 100 * count, 0),
                        "{kind}"
                    );
                    assert_eq!(report.latency_us.len(), count, "{kind}");
                }
                Ok(())
            })
        });
        assert_eq!(node.connect().ask("OFFSETS t"), "OK 0:1400");
        node.stop();
    }
}

#[test]
fn what_another_protocol_wrote_is_pushed_and_read_too() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let mut reader = node.connect();
        assert_eq!(reader.ask("CREATE t 1"), "OK");
        assert_eq!(reader.ask("SUBSCRIBE t"), "OK 1");
        reader.send(&["CREDIT 5"]);
        let address = node.kafka;
        locally(move || {
            Box::pin(async move {
                publish(&mut *connect("kafka", address).await, "t", "from another\nprotocol").await;
                Ok(())
            })
        });
        assert_eq!(reader.line(), "MSG 1 0 0 from another protocol");
        assert_eq!(reader.ask("PUBLISH t 0 own"), "OK 1");
        node.stop();
    }
}
