//! Clients are told the address of the listener that they came by.

use sabir_kafka::wire::messages::describe_cluster::DescribeClusterRequest;
use sabir_kafka::wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use sabir_kafka::wire::messages::find_coordinator::FindCoordinatorRequest;
use sabir_kafka::wire::messages::metadata::MetadataRequest;

use crate::rig::{Raw, Rig, Setup};

/// What every request says that tells an address.
async fn told(raw: &mut Raw) -> (String, i32) {
    let mut all = Vec::new();
    for version in 0..=13 {
        let metadata =
            raw.call(version, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() }).await;
        all.extend(metadata.brokers.into_iter().map(|b| (b.host.to_string(), b.port)));
    }
    let cluster = raw.ask(&DescribeClusterRequest::default()).await;
    all.extend(cluster.brokers.into_iter().map(|b| (b.host.to_string(), b.port)));
    let one = raw.call(0, &FindCoordinatorRequest { key: "g".into(), ..Default::default() }).await;
    all.push((one.host.to_string(), one.port));
    let keys = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    let coordinators = raw.ask(&keys).await.coordinators;
    all.extend(coordinators.into_iter().map(|c| (c.host.to_string(), c.port)));
    all.dedup();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

async fn advertised_listeners(raw: &mut Raw) -> String {
    let resource = DescribeConfigsResource {
        resource_type: 4,
        resource_name: "1".into(),
        configuration_keys: Some(vec!["advertised.listeners".into()]),
    };
    let answer = raw.ask(&DescribeConfigsRequest { resources: vec![resource], ..Default::default() }).await;
    answer.results[0].configs[0].value.as_deref().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn each_listener_tells_of_itself() {
    let listen = &["127.0.0.1:0", "127.0.0.1:0", "127.0.0.2:0", "[::1]:0"];
    let rig = Rig::with(Setup { listen, ..Setup::default() });
    for address in &rig.addresses {
        let mut raw = rig.raw_at(*address).await;
        assert_eq!(told(&mut raw).await, (address.ip().to_string(), i32::from(address.port())));
        assert_eq!(advertised_listeners(&mut raw).await, format!("PLAINTEXT://{address}"));
    }
}

#[tokio::test]
async fn each_listener_tells_what_it_is_to_advertise() {
    let (listen, advertise) =
        (&["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"], &["inside:9092", "outside.example:0"]);
    let rig = Rig::with(Setup { listen, advertise, ..Setup::default() });
    let ports: Vec<i32> = rig.addresses.iter().map(|address| address.port().into()).collect();
    for (at, expected) in
        [("inside", 9092), ("outside.example", ports[1]), ("::1", ports[2])].into_iter().enumerate()
    {
        let (ip, port) = (if at == 2 { "[::1]" } else { "127.0.0.1" }, ports[at]);
        let mut raw = rig.raw_at(format!("{ip}:{port}").parse().unwrap()).await;
        assert_eq!(told(&mut raw).await, (expected.0.to_owned(), expected.1));
    }
}

#[tokio::test]
async fn a_listener_of_all_addresses_tells_the_one_that_was_reached() {
    let rig = Rig::with(Setup { listen: &["0.0.0.0:0", "[::1]:0"], ..Setup::default() });
    let port = rig.address.port();
    for ip in ["127.0.0.1", "127.0.0.3"] {
        let mut raw = rig.raw_at(format!("{ip}:{port}").parse().unwrap()).await;
        assert_eq!(told(&mut raw).await, (ip.to_owned(), i32::from(port)));
    }
}
