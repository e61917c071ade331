//! The command line's client, and records of other protocols.

use std::time::Duration;

use sabir_server::client::{
    Client, Endpoint, Failure, LocalFuture, Outgoing, Position, PublishOptions, Start,
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
