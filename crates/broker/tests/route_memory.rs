//! What routing allocates: nothing, for what was routed before.

use std::sync::Arc;

use sabir_base::clock::SystemClock;
use sabir_base::testing::{CountingAllocator, peak_of};
use sabir_broker::exchange::{
    ExchangeKind, ExchangeSpec, NamedBinding, NamedDestination, Publication, RouteScratch,
};
use sabir_broker::{Broker, BrokerOptions, Caller, DiskKind, NewTopic};
use sabir_model::{FrontendNo, TopicConfig};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn queue(name: &str) -> NewTopic {
    let config = TopicConfig::default();
    NewTopic { name: name.to_owned(), partitions: 1, config, internal: false, unlike: false }
}

#[tokio::test]
async fn a_message_that_goes_where_others_went_is_routed_without_an_allocation() {
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions {
        data_shards: 1,
        disk: DiskKind::Pwrite,
        keep_free: 0,
        ..BrokerOptions::new(dir.path())
    };
    let broker = Broker::open(options, Arc::new(SystemClock)).unwrap();
    let (caller, exchanges) = (Caller::OPERATOR, broker.exchanges());
    let made = broker.create_topics(&caller, vec![queue("q1"), queue("q2")]).await;
    assert!(made.iter().all(Result::is_ok));
    for (name, kind) in [("t", ExchangeKind::Topic), ("d", ExchangeKind::Direct), ("f", ExchangeKind::Fanout)]
    {
        exchanges.declare(&caller, name, ExchangeSpec::of(kind)).await.unwrap();
        for queue in ["q1", "q2"] {
            let queue = NamedDestination::Queue(queue.to_owned());
            exchanges.bind(&caller, NamedBinding::keyed(name, queue, b"a.b")).await.unwrap();
        }
    }
    let mut scratch = RouteScratch::default();
    let route_all = |scratch: &mut RouteScratch| {
        for (exchange, key, topics) in [("t", "a.b", 2), ("d", "a.b", 2), ("f", "any", 2), ("", "q1", 1)] {
            let publication = Publication::keyed(key.as_bytes());
            let route = exchanges.route(&caller, exchange, &publication, scratch).unwrap();
            assert_eq!(route.topics().len(), topics);
            assert_eq!(route.targets(&caller, FrontendNo(1), 0).unwrap().publishes.len(), 1);
        }
    };
    route_all(&mut scratch);
    let ((), allocated) = peak_of(|| (0..100).for_each(|_| route_all(&mut scratch)));
    assert_eq!(allocated, 0);
    let ((), control) = peak_of(|| route_all(&mut RouteScratch::default()));
    assert!(control > 0, "allocations are seen");
    broker.shutdown();
}
