//! The client against a broker's admin port, and against what is none.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use sabir_server::client::{
    Client, Endpoint, GroupAdmin, Outgoing, Position, PublishOptions, SettingChange, Start, TopicAdmin,
    TopicInfo, TopicSpec,
};
use sabir_server::config::{ServerConfig, Sources};
use sabir_server::{Running, protocols, start};
use serde_json::json;

use super::*;
use crate::testing::NoClient;

const PATIENCE: Duration = Duration::from_secs(20);

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

/// A broker with its data.
struct Served {
    running: Option<Running>,
    _data: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let listen = protocols().iter().map(|p| format!("{}.listen=127.0.0.1:0", p.name()));
        let set = listen.chain(["admin.listen=127.0.0.1:0".to_owned()]).collect();
        let sources = Sources { data: Some(data.path().into()), set, ..Sources::default() };
        let config = ServerConfig::load(&sources, protocols()).unwrap();
        Self { running: Some(start(config).unwrap()), _data: data }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    fn admin(&self) -> AdminClient {
        let url = self.running().admin()[0].to_string();
        AdminClient::new(url.parse().unwrap(), PATIENCE)
    }

    /// Publishes this many messages to partition 0.
    async fn publish(&self, topic: &str, count: usize) {
        let address = self.running().serving()[0].listening[0].address.to_string();
        let mut client =
            protocols()[0].connector().connect(Endpoint::plain(address), PATIENCE).await.unwrap();
        let message = Outgoing { partition: Some(0), value: Some("x".into()), ..Outgoing::default() };
        client.publish(topic, vec![message; count], &PublishOptions::default()).await.unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.running.take().map(Running::stop);
    }
}

fn spec(name: &str, partitions: i32, configs: &[(&str, &str)]) -> TopicSpec {
    let configs = configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    TopicSpec { name: name.into(), partitions: Some(partitions), configs, dry_run: false }
}

fn names(topics: &[TopicInfo]) -> Vec<&str> {
    topics.iter().map(|topic| topic.name.as_str()).collect()
}

fn failure<T>(outcome: Result<T, ClientError>) -> Failure {
    outcome.err().expect("it is refused").failure
}

#[test]
fn topics_are_administered_by_way_of_the_admin_port() {
    let served = Served::start();
    let mut client = Administered::new(Box::new(NoClient), served.admin());
    run(async {
        let topics = client.topics().expect("by the admin port, since the protocol has none");
        let wanted = spec("a/ö", 2, &[("retention_ms", "1000"), ("timestamp", "append")]);
        topics.create(TopicSpec { dry_run: true, ..wanted.clone() }).await.unwrap();
        assert_eq!(names(&topics.list().await.unwrap()), [""; 0]);
        topics.create(wanted.clone()).await.unwrap();
        assert_eq!(failure(topics.create(wanted.clone()).await), Failure::Exists);
        assert_eq!(failure(topics.create(TopicSpec { dry_run: true, ..wanted }).await), Failure::Exists);
        assert_eq!(failure(topics.create(spec("b", 1, &[("retention_ms", "-5")])).await), Failure::Refused);
        let listed = topics.list().await.unwrap();
        assert_eq!((names(&listed), listed[0].partitions.len()), (vec!["a/ö"], 2));

        topics.add_partitions("a/ö", 3, true).await.unwrap();
        assert_eq!(topics.describe("a/ö").await.unwrap().partitions.len(), 2);
        topics.add_partitions("a/ö", 3, false).await.unwrap();
        for dry_run in [true, false] {
            assert_eq!(failure(topics.add_partitions("a/ö", 3, dry_run).await), Failure::Refused);
        }
        topics.delete("a/ö").await.unwrap();
        assert_eq!(failure(topics.describe("a/ö").await), Failure::NotFound);
    });
}

#[test]
fn settings_of_topics_are_set_and_taken_away() {
    let served = Served::start();
    let mut admin = served.admin();
    run(async {
        let mut settings = async |changes: &[(&str, Option<&str>)], dry_run| {
            let change = |(name, value): &(&str, Option<&str>)| SettingChange {
                name: name.to_string(),
                value: value.map(str::to_owned),
            };
            let changes: Vec<_> = changes.iter().map(change).collect();
            admin.change("t", &changes, dry_run).await?;
            let all = admin.settings("t").await?;
            assert!(all.iter().all(|setting| setting.help.is_some()), "{all:?}");
            let own = all.into_iter().filter(|setting| setting.own);
            Ok::<_, ClientError>(
                own.map(|setting| (setting.name, setting.value.unwrap())).collect::<Vec<_>>(),
            )
        };
        served.admin().create(spec("t", 1, &[])).await.unwrap();
        let own = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert_eq!(settings(&[("retention_ms", Some("5"))], true).await.unwrap(), []);
        let set =
            settings(&[("retention_ms", Some("5")), ("compression", Some("zstd"))], false).await.unwrap();
        assert_eq!(set.len(), 2);
        assert_eq!(settings(&[("retention_ms", None)], true).await.unwrap().len(), 2);
        assert_eq!(settings(&[("retention_ms", None)], false).await.unwrap(), own("compression", "zstd"));
        assert_eq!(
            settings(&[("compression", Some("null"))], false).await.unwrap(),
            own("compression", "null")
        );
        for wrong in [("retention_ms", Some("soon")), ("retention", Some("5")), ("retention", None)] {
            assert_eq!(failure(settings(&[wrong], false).await), Failure::Refused, "{wrong:?}");
        }
    });
}

#[test]
fn the_rate_of_a_queue_is_a_setting_and_what_else_it_was_declared_with_is_shown() {
    let served = Served::start();
    let mut admin = served.admin();
    run(async {
        let queues = json!([{"name": "q", "queue": {"max_length": 5}}]);
        let document = json!({"version": 1, "topics": [], "queues": queues});
        let _: Value = admin.ask(Method::POST, "/definitions", document.to_string().into()).await.unwrap();
        let change = |name: &str, value: Option<&str>| SettingChange {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        let rate = ["consume_rate", "consume_burst"];
        for (values, shown) in [
            ([Some("500"), Some("50")], ["500", "50"]),
            ([Some("9"), None], ["9", "null"]),
            ([None, None], ["null", "null"]),
        ] {
            let bytes = change("retention_bytes", Some("null"));
            let changes = [change(rate[0], values[0]), change(rate[1], values[1]), bytes];
            admin.change("q", &changes, false).await.unwrap();
            let all = admin.settings("q").await.unwrap();
            for (name, shown) in rate.iter().zip(shown) {
                let setting = all.iter().find(|setting| setting.name == *name).unwrap();
                let wanted = (Some(shown), shown != "null", false, true);
                let has_help = setting.help.is_some();
                assert_eq!((setting.value.as_deref(), setting.own, setting.read_only, has_help), wanted);
            }
            let kept = all.iter().find(|setting| setting.name == "max_length").unwrap();
            assert_eq!((kept.value.as_deref(), kept.read_only), (Some("5"), true));
        }
        for wrong in [change("consume_rate", Some("0")), change("max_length", Some("6"))] {
            assert_eq!(failure(admin.change("q", &[wrong], false).await), Failure::Refused);
        }
    });
}

#[test]
fn records_are_deleted_by_way_of_the_admin_port() {
    let served = Served::start();
    let mut admin = served.admin();
    run(async {
        admin.create(spec("t", 2, &[])).await.unwrap();
        served.publish("t", 5).await;
        assert_eq!(admin.delete_records("t", &[(0, 3), (1, 0)]).await.unwrap(), [(0, 3), (1, 0)]);
        let described = TopicAdmin::describe(&mut admin, "t").await.unwrap();
        assert_eq!(described.partitions[0].offsets, Some((3, 5)));
        // Nothing is deleted where one of them cannot be.
        assert_eq!(failure(admin.delete_records("t", &[(0, 4), (1, 1)]).await), Failure::Refused);
        assert_eq!(failure(admin.delete_records("t", &[(0, 4), (2, 0)]).await), Failure::NotFound);
        let described = TopicAdmin::describe(&mut admin, "t").await.unwrap();
        assert_eq!(described.partitions[0].offsets, Some((3, 5)));
    });
}

#[test]
fn groups_are_administered_by_way_of_the_admin_port() {
    let served = Served::start();
    let mut client = Administered::new(Box::new(NoClient), served.admin());
    run(async {
        served.admin().create(spec("t", 300, &[])).await.unwrap();
        served.publish("t", 5).await;
        let groups = client.groups().expect("by the admin port, since the protocol has none");
        assert_eq!(failure(groups.describe("g").await), Failure::NotFound);
        let positions: Vec<_> = (0..300).map(|partition| ("t".to_owned(), partition, 0)).collect();
        groups.commit("g", &positions).await.unwrap();
        groups.commit("g", &[("t".into(), 0, 2)]).await.unwrap();
        assert_eq!(failure(groups.commit("g", &[("t".into(), 300, 2)]).await), Failure::NotFound);
        assert_eq!(failure(groups.commit("g", &[("t".into(), 0, -1)]).await), Failure::Refused);
        let listed = groups.list().await.unwrap();
        assert_eq!((listed[0].id.as_str(), listed[0].state.as_str()), ("g", "Empty"));
        assert_eq!(groups.describe("g").await.unwrap().members, []);
        let offsets = groups.offsets("g").await.unwrap();
        assert_eq!((offsets.len(), offsets[0].committed, offsets[0].end), (300, 2, Some(5)));
        groups.delete_offsets("g", "t", &(1..300).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(groups.offsets("g").await.unwrap().len(), 1);
        groups.delete("g").await.unwrap();
        assert_eq!(failure(groups.delete("g").await), Failure::NotFound);
        assert_eq!(failure(groups.delete_offsets("g", "t", &[0]).await), Failure::NotFound);
    });
}

#[test]
fn topics_and_groups_of_another_namespace_are_administered_by_way_of_the_admin_port() {
    let served = Served::start();
    let about = |protocol: Option<&str>, namespace: Option<&str>| {
        let [protocol, namespace] = [protocol, namespace].map(|said| said.map(str::to_owned));
        served.admin().about(AdminScope { protocol, namespace })
    };
    run(async {
        served.admin().create(spec("t", 1, &[])).await.unwrap();
        let mut other = about(None, Some("a/b"));
        assert_eq!(failure(TopicAdmin::describe(&mut other, "t").await), Failure::NotFound);
        other.create(spec("t", 2, &[])).await.unwrap();
        other.add_partitions("t", 3, false).await.unwrap();
        for (admin, partitions) in [(&mut served.admin(), 1), (&mut other, 3)] {
            let listed = TopicAdmin::list(admin).await.unwrap();
            assert_eq!((names(&listed), listed[0].partitions.len()), (vec!["t"], partitions));
        }
        let places = other.places("t", Some(2), Start::Latest).await.unwrap();
        assert_eq!(places, [Position { partition: 2, first: 0, next: 0, end: 0 }]);
        assert_eq!(failure(other.places("t", Some(3), Start::Latest).await), Failure::NotFound);
        assert_eq!(failure(other.places("t", None, Start::Time(1)).await), Failure::Unsupported);

        let protocol = protocols().last().unwrap().name();
        let mut groups = about(Some(protocol), Some("a/b"));
        groups.commit("g", &[("t".into(), 2, 0)]).await.unwrap();
        let listed = GroupAdmin::list(&mut groups).await.unwrap();
        let owner = (listed[0].protocol.as_deref(), listed[0].namespace.as_deref());
        assert_eq!((listed.len(), owner), (1, (Some(protocol), Some("a/b"))));
        assert_eq!(failure(GroupAdmin::describe(&mut served.admin(), "g").await), Failure::NotFound);
        groups.delete_offsets("g", "t", &[2]).await.unwrap();
        GroupAdmin::delete(&mut groups, "g").await.unwrap();
        assert_eq!(GroupAdmin::list(&mut groups).await.unwrap(), []);
        TopicAdmin::delete(&mut other, "t").await.unwrap();
        assert_eq!(names(&TopicAdmin::list(&mut served.admin()).await.unwrap()), ["t"]);
        assert_eq!(failure(GroupAdmin::list(&mut about(Some("none"), None)).await), Failure::Refused);
    });
}

/// A server that answers each request so, and closes the connection.
fn answering(answer: String) -> AdminClient {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    AdminClient::new(url.parse().unwrap(), PATIENCE)
}

#[test]
fn what_is_no_admin_port_is_told_from_one_that_refuses() {
    let problem = "HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\r\n\
        {\"type\": \"urn:sabir:problem:unknown-topic\", \"title\": \"\", \"status\": 404, \"detail\": \"there is no topic\"}";
    for (answer, wanted, says) in [
        (problem, Failure::NotFound, "there is no topic"),
        ("HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n<html>", Failure::AdminPort, "says 404"),
        ("+OK\r\n", Failure::AdminPort, "http://127.0.0.1:"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", Failure::Broken, "broke off"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Failure::Broken, "topics"),
    ] {
        let error = run(TopicAdmin::list(&mut answering(answer.into()))).unwrap_err();
        assert_eq!(error.failure, wanted, "{error}");
        assert!(error.message.contains(says), "{error}");
    }
    let mut silent = AdminClient::new("127.0.0.1:1".parse().unwrap(), PATIENCE);
    assert_eq!(failure(run(TopicAdmin::list(&mut silent))), Failure::AdminPort);
}

#[test]
fn answers_are_bounded_in_bytes_and_in_time() {
    let client = answering(format!("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{}", "x".repeat(2000)));
    for (most, taken) in [(2000, true), (1999, false)] {
        let whole = run(async {
            let answer = client.send(Method::GET, "/node", Bytes::new()).await?;
            client.whole(answer, most).await
        });
        assert_eq!(whole.is_ok(), taken, "{most}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = listener.local_addr().unwrap().to_string().parse().unwrap();
    let mut mute = AdminClient::new(url, Duration::from_millis(200));
    assert_eq!(failure(run(GroupAdmin::list(&mut mute))), Failure::Timeout);
}

#[test]
fn a_url_names_a_host_and_a_port() {
    for (text, shown) in [
        ("http://a:1", "http://a:1"),
        ("http://a:1/", "http://a:1"),
        ("http://a", "http://a:15672"),
        ("a:1", "http://a:1"),
        ("[::1]:1", "http://[::1]:1"),
        ("http://[::1]", "http://[::1]:15672"),
    ] {
        assert_eq!(text.parse::<AdminUrl>().unwrap().to_string(), shown);
    }
    for wrong in ["https://a", "ftp://a", "http://a/sabir", "http://a?x", "", "http://", "a:b"] {
        assert!(wrong.parse::<AdminUrl>().is_err(), "{wrong}");
    }
    for (address, beside) in [
        ("broker.lan:9092", "http://broker.lan:15672"),
        ("[::1]:9092", "http://[::1]:15672"),
        ("127.0.0.1:1", "http://127.0.0.1:15672"),
    ] {
        assert_eq!(AdminUrl::beside(address).to_string(), beside);
    }
}
