//! Exchanges and bindings through the broker's own calls: what is declared, where it routes to, and what a restart leaves.

use std::sync::Arc;

use sabir_model::batch::{BatchBuilder, Compression};
use sabir_model::{FrontendNo, Namespace, TopicConfig};

use super::rig::{create, new_topic, open, options, read, soon, values};
use crate::exchange::{
    Argument, ArgumentRef, ArgumentValue, Arguments, Attributes, ExchangeError, ExchangeKind,
    ExchangeOptions, ExchangeSpec, HashOn, HashedProperty, InvalidBinding, MAX_KEY_BYTES, NamedBinding,
    NamedDestination, PredeclaredExchange, Publication, Route, RouteError, RouteScratch,
};
use crate::{AppendRefusal, Broker, BrokerOptions, Caller, NewTopic, Publish, SessionId};

const CLIENT: Caller = Caller::client("one", SessionId(1));
const OWN: FrontendNo = FrontendNo(1);

fn queue(name: &str) -> NamedDestination {
    NamedDestination::Queue(name.to_owned())
}

fn other(name: &str) -> NamedDestination {
    NamedDestination::Exchange(name.to_owned())
}

fn keyed(source: &str, destination: NamedDestination, key: &str) -> NamedBinding {
    NamedBinding::keyed(source, destination, key.as_bytes())
}

async fn declare(broker: &Broker, name: &str, spec: ExchangeSpec) {
    soon(broker.exchanges().declare(&CLIENT, name, spec)).await.unwrap();
}

async fn bind(broker: &Broker, binding: NamedBinding) {
    soon(broker.exchanges().bind(&CLIENT, binding)).await.unwrap();
}

fn route(broker: &Broker, exchange: &str, publication: &Publication<'_>) -> Arc<Route> {
    broker.exchanges().route(&CLIENT, exchange, publication, &mut RouteScratch::default()).unwrap()
}

/// The names of the topics of a route, sorted.
fn names(route: &Route) -> Vec<&str> {
    let mut names: Vec<&str> = route.topics().iter().map(|topic| &*topic.name).collect();
    names.sort_unstable();
    names
}

/// Where a key leads, sorted.
fn routed(broker: &Broker, exchange: &str, key: &str) -> Vec<String> {
    let route = route(broker, exchange, &Publication::keyed(key.as_bytes()));
    names(&route).into_iter().map(str::to_owned).collect()
}

fn reopen(broker: Broker, options: BrokerOptions) -> Broker {
    broker.shutdown();
    drop(broker);
    open(options)
}

fn text(name: &str, value: &str) -> Argument {
    let value = ArgumentValue::Text(value.as_bytes().into());
    Argument { name: name.as_bytes().into(), tag: b'S', value }
}

struct Headers(&'static [(&'static str, &'static str)]);

impl Attributes for Headers {
    fn header(&self, name: &[u8]) -> Option<ArgumentRef<'_>> {
        let found = self.0.iter().find(|(other, _)| other.as_bytes() == name)?;
        Some(ArgumentRef::Text(found.1.as_bytes()))
    }

    fn property(&self, _: HashedProperty) -> Option<ArgumentRef<'_>> {
        None
    }
}

#[tokio::test]
async fn an_exchange_is_declared_once_and_again_only_alike() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let exchanges = broker.exchanges();
    let spec = ExchangeSpec {
        kept: Arguments::new(vec![text("note", "mine")]),
        ..ExchangeSpec::of(ExchangeKind::Topic)
    };
    declare(&broker, "e", spec.clone()).await;
    declare(&broker, "e", spec.clone()).await;
    assert_eq!(exchanges.get(&CLIENT, "e").unwrap().as_deref(), Some(&spec));
    for (different, what) in [
        (ExchangeSpec { kind: ExchangeKind::Direct, ..spec.clone() }, Some("type")),
        (ExchangeSpec { durable: false, ..spec.clone() }, Some("durable")),
        (ExchangeSpec { auto_delete: true, ..spec.clone() }, Some("auto_delete")),
        (ExchangeSpec { internal: true, ..spec.clone() }, Some("internal")),
        (ExchangeSpec { alternate: Some("a".into()), ..spec.clone() }, Some("alternate-exchange")),
        (ExchangeSpec { kept: Arguments::default(), ..spec.clone() }, None),
    ] {
        let declared = soon(exchanges.declare(&CLIENT, "e", different)).await;
        let differs = |what| ExchangeError::Differs { name: "e".into(), what };
        assert_eq!(declared.err(), what.map(differs));
    }
    let hash = |on| ExchangeSpec::of(ExchangeKind::ConsistentHash(on));
    declare(&broker, "h", hash(HashOn::Key)).await;
    let differs = soon(exchanges.declare(&CLIENT, "h", hash(HashOn::Header(b"h"[..].into())))).await;
    assert_eq!(differs, Err(ExchangeError::Differs { name: "h".into(), what: "hashed part" }));
    assert_eq!(exchanges.get(&CLIENT, "e").unwrap().as_deref(), Some(&spec), "nothing changed it");
    broker.shutdown();
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let exchanges = broker.exchanges();
    let direct = || ExchangeSpec::of(ExchangeKind::Direct);
    let tried = |name: String, spec| async move { soon(exchanges.declare(&CLIENT, &name, spec)).await };
    assert_eq!(tried("".into(), direct()).await, Err(ExchangeError::Default));
    for name in ["x".repeat(1025), "a\nb".to_owned()] {
        assert_eq!(tried(name, direct()).await, Err(ExchangeError::InvalidName { most: 1024 }));
    }
    tried("x".repeat(1024), direct()).await.unwrap();
    declare(&broker, "t", ExchangeSpec::of(ExchangeKind::Topic)).await;
    declare(&broker, "c", ExchangeSpec::of(ExchangeKind::ConsistentHash(HashOn::Key))).await;
    create(&broker, "q", 1).await;
    let kept = NewTopic { internal: true, ..new_topic("kept", 1) };
    soon(broker.create_topics(&Caller::front_end("one"), vec![kept])).await.remove(0).unwrap();
    let unknown = |name: &str| ExchangeError::Unknown(name.into());
    let many_words = ".".repeat(256);
    for (binding, why) in [
        (keyed("none", queue("q"), ""), unknown("none")),
        (keyed("t", other("none"), ""), unknown("none")),
        (keyed("t", queue("none"), ""), ExchangeError::UnknownQueue("none".into())),
        (keyed("t", queue("kept"), ""), ExchangeError::Internal("kept".into())),
        (keyed("", queue("q"), ""), ExchangeError::Default),
        (keyed("t", other(""), ""), ExchangeError::Default),
        (keyed("c", queue("q"), "x"), InvalidBinding::Weight.into()),
        (
            keyed("t", queue("q"), &"x".repeat(MAX_KEY_BYTES + 1)),
            ExchangeError::LongKey { most: MAX_KEY_BYTES },
        ),
    ] {
        assert_eq!(soon(exchanges.bind(&CLIENT, binding)).await, Err(why));
    }
    let words = soon(exchanges.bind(&CLIENT, keyed("t", queue("q"), &many_words))).await;
    assert!(matches!(words, Err(ExchangeError::Binding(InvalidBinding::Key(_)))), "{words:?}");
    assert_eq!(soon(exchanges.delete(&CLIENT, "none", false)).await, Err(unknown("none")));
    assert_eq!(soon(exchanges.delete(&CLIENT, "", false)).await, Err(ExchangeError::Default));
    for gone in [keyed("none", queue("q"), ""), keyed("t", queue("none"), ""), keyed("t", queue("q"), "x")] {
        assert_eq!(soon(exchanges.unbind(&CLIENT, gone)).await, Ok(()), "there is nothing to take away");
    }
    let unbound = soon(exchanges.unbind(&CLIENT, keyed("", queue("q"), "q"))).await;
    assert_eq!(unbound, Err(ExchangeError::Default));
    broker.shutdown();
}

#[tokio::test]
async fn every_kind_routes_to_queues_and_topics_alike() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    for (name, partitions) in [("q1", 1), ("q2", 1), ("log", 3)] {
        create(&broker, name, partitions).await;
    }
    for (name, kind) in [
        ("direct", ExchangeKind::Direct),
        ("fanout", ExchangeKind::Fanout),
        ("topic", ExchangeKind::Topic),
        ("headers", ExchangeKind::Headers),
        ("hash", ExchangeKind::ConsistentHash(HashOn::Key)),
    ] {
        declare(&broker, name, ExchangeSpec::of(kind)).await;
    }
    bind(&broker, keyed("direct", queue("q1"), "a")).await;
    bind(&broker, keyed("direct", queue("log"), "a")).await;
    bind(&broker, keyed("direct", queue("q2"), "b")).await;
    assert_eq!(routed(&broker, "direct", "a"), ["log", "q1"]);
    assert_eq!(routed(&broker, "direct", "c"), [""; 0]);
    bind(&broker, keyed("fanout", queue("q1"), "whatever")).await;
    bind(&broker, keyed("fanout", other("topic"), "")).await;
    bind(&broker, keyed("topic", queue("q2"), "a.*")).await;
    bind(&broker, keyed("topic", queue("log"), "#")).await;
    assert_eq!(routed(&broker, "topic", "a.b"), ["log", "q2"]);
    assert_eq!(routed(&broker, "fanout", "a.b"), ["log", "q1", "q2"]);
    assert_eq!(routed(&broker, "fanout", "a"), ["log", "q1"]);
    let arguments = Arguments::new(vec![text("x-match", "any"), text("color", "red"), text("size", "xl")]);
    bind(&broker, NamedBinding { arguments, ..keyed("headers", queue("q1"), "") }).await;
    for (headers, to) in
        [(&[("color", "red")][..], vec!["q1"]), (&[("color", "blue")], vec![]), (&[], vec![])]
    {
        let publication = Publication { attributes: &Headers(headers), ..Publication::keyed(b"a") };
        assert_eq!(names(&route(&broker, "headers", &publication)), to);
    }
    for (queue_name, weight) in [("q1", "1"), ("q2", "2"), ("log", "1")] {
        bind(&broker, keyed("hash", queue(queue_name), weight)).await;
    }
    let hashed: Vec<_> = (0..200).map(|key| routed(&broker, "hash", &key.to_string())).collect();
    assert!(hashed.iter().all(|to| to.len() == 1));
    for name in ["q1", "q2", "log"] {
        assert!(hashed.iter().any(|to| to == &[name]), "{name}");
    }
    let several = Publication { further_keys: &[b"b", b"a"], ..Publication::keyed(b"c") };
    assert_eq!(names(&route(&broker, "direct", &several)), ["log", "q1", "q2"]);
    let broker = reopen(broker, options(dir.path()));
    let again: Vec<_> = (0..200).map(|key| routed(&broker, "hash", &key.to_string())).collect();
    assert_eq!(again, hashed, "a key goes the same way after a restart");
    assert_eq!(routed(&broker, "fanout", "a.b"), ["log", "q1", "q2"]);
    broker.shutdown();
}

#[tokio::test]
async fn the_default_exchange_leads_to_any_topic_of_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    create(&broker, "q", 1).await;
    create(&broker, "log", 3).await;
    let kept = NewTopic { internal: true, ..new_topic("kept", 1) };
    soon(broker.create_topics(&Caller::front_end("one"), vec![kept])).await.remove(0).unwrap();
    for (key, to) in [("q", vec!["q"]), ("log", vec!["log"]), ("none", vec![]), ("kept", vec![])] {
        assert_eq!(routed(&broker, "", key), to);
    }
    let several = Publication { further_keys: &[b"log", b"none"], ..Publication::keyed(b"q") };
    assert_eq!(names(&route(&broker, "", &several)), ["log", "q"]);
    let not_text = Publication::keyed(b"\xff");
    assert!(route(&broker, "", &not_text).is_empty());
    // As an alternate, too.
    let spec = ExchangeSpec { alternate: Some("".into()), ..ExchangeSpec::of(ExchangeKind::Direct) };
    declare(&broker, "e", spec).await;
    assert_eq!(routed(&broker, "e", "q"), ["q"]);
    assert_eq!(routed(&broker, "e", "none"), [""; 0]);
    create(&broker, "none", 1).await;
    assert_eq!(routed(&broker, "e", "none"), ["none"], "nothing was remembered");
    broker.shutdown();
}

#[tokio::test]
async fn what_no_binding_wants_goes_to_the_alternate_if_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let (exchanges, mut scratch) = (broker.exchanges(), RouteScratch::default());
    create(&broker, "q", 1).await;
    create(&broker, "rest", 1).await;
    let spec = ExchangeSpec { alternate: Some("alt".into()), ..ExchangeSpec::of(ExchangeKind::Direct) };
    declare(&broker, "e", spec).await;
    bind(&broker, keyed("e", queue("q"), "k")).await;
    let mut to = |key: &str| {
        let route = exchanges.route(&CLIENT, "e", &Publication::keyed(key.as_bytes()), &mut scratch).unwrap();
        names(&route).join(",")
    };
    assert_eq!((to("k"), to("x")), ("q".into(), "".into()));
    declare(&broker, "alt", ExchangeSpec { internal: true, ..ExchangeSpec::of(ExchangeKind::Fanout) }).await;
    bind(&broker, keyed("alt", queue("rest"), "")).await;
    assert_eq!((to("k"), to("x")), ("q".into(), "rest".into()), "what was remembered does not hold");
    let published = exchanges.route(&CLIENT, "alt", &Publication::keyed(b"x"), &mut RouteScratch::default());
    assert_eq!(published.err(), Some(RouteError::Internal));
    soon(exchanges.delete(&CLIENT, "alt", false)).await.unwrap();
    assert_eq!((to("k"), to("x")), ("q".into(), "".into()));
    soon(exchanges.delete(&CLIENT, "e", false)).await.unwrap();
    let gone = exchanges.route(&CLIENT, "e", &Publication::keyed(b"k"), &mut scratch);
    assert_eq!(gone.err(), Some(RouteError::NoExchange));
    broker.shutdown();
}

#[tokio::test]
async fn bindings_go_with_what_they_lead_to_and_exchanges_with_their_last_binding() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let exchanges = broker.exchanges();
    let auto = |kind| ExchangeSpec { auto_delete: true, ..ExchangeSpec::of(kind) };
    let q = create(&broker, "q", 1).await;
    declare(&broker, "kept", ExchangeSpec::of(ExchangeKind::Fanout)).await;
    declare(&broker, "first", auto(ExchangeKind::Fanout)).await;
    declare(&broker, "second", auto(ExchangeKind::Direct)).await;
    bind(&broker, keyed("kept", queue("q"), "")).await;
    bind(&broker, keyed("kept", other("second"), "")).await;
    bind(&broker, keyed("first", other("second"), "")).await;
    bind(&broker, keyed("second", queue("q"), "k")).await;
    bind(&broker, keyed("second", queue("q"), "k")).await;
    assert_eq!(soon(exchanges.delete(&CLIENT, "kept", true)).await, Err(ExchangeError::InUse("kept".into())));
    assert_eq!(routed(&broker, "first", "k"), ["q"]);
    soon(broker.delete_topics(&CLIENT, vec![q.id])).await.remove(0).unwrap();
    let there = |name: &str| broker.exchanges().exists(&CLIENT, name).unwrap();
    assert_eq!(["kept", "first", "second"].map(there), [true, false, false]);
    create(&broker, "q", 1).await;
    assert_eq!(
        routed(&broker, "kept", "k"),
        [""; 0],
        "another queue of the name is not the one that was bound"
    );
    soon(exchanges.delete(&CLIENT, "kept", true)).await.unwrap();

    declare(&broker, "third", auto(ExchangeKind::Direct)).await;
    bind(&broker, keyed("third", queue("q"), "k")).await;
    assert!(broker.exchanges().exists(&CLIENT, "third").unwrap());
    soon(exchanges.unbind(&CLIENT, keyed("third", queue("q"), "k"))).await.unwrap();
    assert!(!broker.exchanges().exists(&CLIENT, "third").unwrap());
    let state = broker.catalog_shard().state.read();
    assert_eq!(state.exchanges.size(), (0, 0), "all is accounted for");
    drop(state);
    broker.shutdown();
}

#[tokio::test]
async fn a_start_leaves_what_is_durable_and_takes_the_rest_with_its_bindings() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    create(&broker, "q", 1).await;
    let of = |durable, auto_delete| ExchangeSpec {
        durable,
        auto_delete,
        ..ExchangeSpec::of(ExchangeKind::Fanout)
    };
    declare(&broker, "durable", of(true, false)).await;
    declare(&broker, "transient", of(false, false)).await;
    declare(&broker, "follows", of(true, true)).await;
    bind(&broker, keyed("durable", queue("q"), "")).await;
    bind(&broker, keyed("durable", other("transient"), "")).await;
    bind(&broker, keyed("transient", queue("q"), "")).await;
    bind(&broker, keyed("follows", other("transient"), "")).await;
    assert_eq!(routed(&broker, "follows", ""), ["q"]);
    let broker = reopen(broker, options(dir.path()));
    let there = |name: &str| broker.exchanges().exists(&CLIENT, name).unwrap();
    assert_eq!(["durable", "transient", "follows"].map(there), [true, false, false]);
    assert_eq!(routed(&broker, "durable", ""), ["q"]);
    assert_eq!(broker.catalog_shard().state.read().exchanges.size().0, 1);
    broker.shutdown();
}

#[tokio::test]
async fn front_ends_exchanges_are_in_every_namespace_that_was_prepared() {
    let dir = tempfile::tempdir().unwrap();
    let predeclared = vec![
        PredeclaredExchange { name: "own.direct", by: "own", spec: ExchangeSpec::of(ExchangeKind::Direct) },
        PredeclaredExchange { name: "own.fanout", by: "own", spec: ExchangeSpec::of(ExchangeKind::Fanout) },
    ];
    let exchanges = ExchangeOptions { predeclared, ..ExchangeOptions::default() };
    let with = || BrokerOptions { exchanges: exchanges.clone(), ..options(dir.path()) };
    let broker = open(with());
    let other = CLIENT.within(Namespace::named("other").unwrap());
    let there = |broker: &Broker, caller: &Caller| {
        ["own.direct", "own.fanout"].map(|name| broker.exchanges().exists(caller, name).unwrap())
    };
    assert_eq!((there(&broker, &CLIENT), there(&broker, &other)), ([true; 2], [false; 2]));
    soon(broker.exchanges().prepare(&other)).await.unwrap();
    assert_eq!(there(&broker, &other), [true; 2]);
    // Names are a namespace's own.
    create(&broker, "q", 1).await;
    bind(&broker, keyed("own.fanout", queue("q"), "")).await;
    let bound = soon(broker.exchanges().bind(&other, keyed("own.fanout", queue("q"), ""))).await;
    assert_eq!(bound, Err(ExchangeError::UnknownQueue("q".into())));
    let mut scratch = RouteScratch::default();
    for (caller, to) in [(&CLIENT, 1), (&other, 0), (&CLIENT, 1)] {
        let exchanges = broker.exchanges();
        let route = exchanges.route(caller, "own.fanout", &Publication::keyed(b""), &mut scratch).unwrap();
        assert_eq!(route.topics().len(), to);
    }
    let kept = || Err(ExchangeError::Reserved { name: "own.direct".into(), by: "own" });
    let own = Caller::front_end("own");
    for caller in [CLIENT, Caller::OPERATOR, Caller::client("own", SessionId(1)), Caller::front_end("two")] {
        assert_eq!(soon(broker.exchanges().delete(&caller, "own.direct", false)).await, kept());
        let third = caller.within(Namespace::named("third").unwrap());
        let direct = ExchangeSpec::of(ExchangeKind::Direct);
        assert_eq!(soon(broker.exchanges().declare(&third, "own.direct", direct)).await, kept());
    }
    soon(broker.exchanges().delete(&own, "own.direct", false)).await.unwrap();
    let broker = reopen(broker, with());
    assert_eq!((there(&broker, &CLIENT), there(&broker, &other)), ([true; 2], [true; 2]));
    assert_eq!(routed(&broker, "own.fanout", ""), ["q"]);
    broker.shutdown();
}

#[tokio::test]
async fn what_one_front_end_made_another_one_does_not_delete() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let (one, two) = (Caller::client("one", SessionId(1)), Caller::client("two", SessionId(2)));
    let direct = || ExchangeSpec::of(ExchangeKind::Direct);
    for name in ["a", "b"] {
        soon(broker.exchanges().declare(&one, name, direct())).await.unwrap();
    }
    soon(broker.exchanges().declare(&Caller::OPERATOR, "everybody's", direct())).await.unwrap();
    let broker = reopen(broker, options(dir.path()));
    let exchanges = broker.exchanges();
    assert_eq!(soon(exchanges.declare(&two, "a", direct())).await, Ok(()), "it is there, and alike");
    let refused = Err(ExchangeError::MadeElsewhere("a".into()));
    assert_eq!(soon(exchanges.delete(&two, "a", false)).await, refused);
    assert_eq!(soon(exchanges.delete(&one, "a", false)).await, Ok(()));
    assert_eq!(soon(exchanges.delete(&Caller::OPERATOR, "b", false)).await, Ok(()));
    assert_eq!(soon(exchanges.delete(&two, "everybody's", false)).await, Ok(()));
    assert_eq!(soon(exchanges.delete(&two, "a", false)).await, Err(ExchangeError::Unknown("a".into())));
    broker.shutdown();
}

#[tokio::test]
async fn what_is_durable_is_listed_with_its_bindings_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let elsewhere = CLIENT.within(Namespace::named("other").unwrap());
    create(&broker, "q", 1).await;
    let gone = create(&broker, "gone", 1).await;
    let fanout = || ExchangeSpec::of(ExchangeKind::Fanout);
    declare(&broker, "b", fanout()).await;
    declare(&broker, "a", fanout()).await;
    declare(&broker, "transient", ExchangeSpec { durable: false, ..fanout() }).await;
    let arguments = Arguments::new(vec![text("color", "red")]);
    let made = [
        keyed("a", queue("q"), "z"),
        NamedBinding { arguments, ..keyed("a", queue("q"), "y") },
        keyed("a", other("b"), ""),
        keyed("a", queue("gone"), ""),
        keyed("a", queue("q"), "x"),
    ];
    for binding in &made {
        bind(&broker, binding.clone()).await;
    }
    let listed = |broker: &Broker, caller: &Caller| {
        let exchanges = broker.exchanges();
        let bindings = exchanges.bindings_from(caller, "a").unwrap();
        let named = bindings.iter().filter_map(|listed| exchanges.named(caller, "a", listed).unwrap());
        (exchanges.durable(caller).unwrap(), named.collect::<Vec<_>>())
    };
    let names = ["a", "b"].map(Box::from).to_vec();
    assert_eq!(listed(&broker, &CLIENT), (names.clone(), made.to_vec()));
    assert_eq!(listed(&broker, &elsewhere), (vec![], vec![]), "names are a namespace's own");
    assert!(made.iter().all(|binding| broker.exchanges().is_bound(&CLIENT, binding).unwrap()));
    assert_eq!(broker.exchanges().is_bound(&CLIENT, &keyed("b", queue("q"), "")), Ok(false));
    let unknown = broker.exchanges().is_bound(&elsewhere, &made[0]);
    assert_eq!(unknown, Err(ExchangeError::Unknown("a".into())));
    // One that is made anew counts as the last one, wherever it stands in memory.
    soon(broker.exchanges().unbind(&CLIENT, made[0].clone())).await.unwrap();
    soon(broker.delete_topics(&CLIENT, vec![gone.id])).await.remove(0).unwrap();
    bind(&broker, made[0].clone()).await;
    let left = [1, 2, 4, 0].map(|at: usize| made[at].clone()).to_vec();
    assert_eq!(listed(&broker, &CLIENT), (names.clone(), left.clone()));
    let broker = reopen(broker, options(dir.path()));
    assert_eq!(listed(&broker, &CLIENT), (names, left));
    broker.shutdown();
}

#[tokio::test]
async fn there_are_no_more_exchanges_and_bindings_than_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let exchanges = ExchangeOptions {
        exchanges_max: 3,
        bindings_max: 2,
        bytes_max: 10_000,
        ..ExchangeOptions::default()
    };
    let broker = open(BrokerOptions { exchanges, ..options(dir.path()) });
    let exchanges = broker.exchanges();
    create(&broker, "q", 1).await;
    declare(&broker, "e", ExchangeSpec::of(ExchangeKind::Direct)).await;
    let large = Arguments::new(vec![text("note", &"x".repeat(10_000))]);
    let spec = ExchangeSpec { kept: large.clone(), ..ExchangeSpec::of(ExchangeKind::Direct) };
    let refused = soon(exchanges.declare(&CLIENT, "large", spec.clone())).await;
    assert_eq!(refused, Err(ExchangeError::NoRoom { most: 10_000 }));
    declare(&broker, "e", spec).await;
    declare(&broker, "f", ExchangeSpec::of(ExchangeKind::Direct)).await;
    declare(&broker, "g", ExchangeSpec::of(ExchangeKind::Direct)).await;
    let refused = soon(exchanges.declare(&CLIENT, "h", ExchangeSpec::of(ExchangeKind::Direct))).await;
    assert_eq!(refused, Err(ExchangeError::TooMany { what: "exchanges", has: 3 }));
    let binding = NamedBinding { arguments: large, ..keyed("e", queue("q"), "k") };
    let refused = soon(exchanges.bind(&CLIENT, binding)).await;
    assert_eq!(refused, Err(ExchangeError::NoRoom { most: 10_000 }));
    assert_eq!(exchanges.memory().refused, 2);
    bind(&broker, keyed("e", queue("q"), "a")).await;
    bind(&broker, keyed("e", queue("q"), "b")).await;
    let refused = soon(exchanges.bind(&CLIENT, keyed("e", queue("q"), "c"))).await;
    assert_eq!(refused, Err(ExchangeError::TooMany { what: "bindings", has: 2 }));
    soon(exchanges.unbind(&CLIENT, keyed("e", queue("q"), "a"))).await.unwrap();
    bind(&broker, keyed("e", queue("q"), "c")).await;
    broker.shutdown();
}

#[tokio::test]
async fn bindings_of_all_namespaces_have_room_together_and_what_is_stored_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let with = |bytes_max| BrokerOptions {
        exchanges: ExchangeOptions { bytes_max, ..ExchangeOptions::default() },
        ..options(dir.path())
    };
    let broker = open(with(1 << 20));
    let (exchanges, other) = (broker.exchanges(), CLIENT.within(Namespace::named("other").unwrap()));
    let topic = || ExchangeSpec::of(ExchangeKind::Topic);
    create(&broker, "q", 1).await;
    for (caller, name) in [(&CLIENT, "t"), (&CLIENT, "u"), (&other, "t"), (&other, "u")] {
        soon(exchanges.declare(caller, name, topic())).await.unwrap();
    }
    let long = |at: usize| format!("#.{at}.#.{}", "a.".repeat(100));
    let to_u = |at| keyed("t", NamedDestination::Exchange("u".into()), &long(at));
    let mut bound = 0;
    let refused = loop {
        let caller = if bound % 2 == 0 { &CLIENT } else { &other };
        match soon(exchanges.bind(caller, to_u(bound))).await {
            Ok(()) => bound += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ExchangeError::NoRoom { most: 1 << 20 });
    let memory = exchanges.memory();
    assert!((1_000_000..=1 << 20).contains(&memory.bytes) && memory.refused == 1, "{memory:?}");
    assert_eq!(soon(exchanges.bind(&CLIENT, keyed("t", queue("q"), &long(7)))).await, Err(refused));
    soon(exchanges.unbind(&CLIENT, to_u(0))).await.unwrap();
    soon(exchanges.bind(&CLIENT, keyed("t", queue("q"), "short"))).await.unwrap();
    let broker = reopen(broker, with(50_000));
    let exchanges = broker.exchanges();
    let loaded = exchanges.memory().bytes;
    assert!((1_000_000..=1 << 20).contains(&loaded), "{loaded}");
    assert_eq!(routed(&broker, "t", "short"), ["q"]);
    let refused = Err(ExchangeError::NoRoom { most: 50_000 });
    assert_eq!(soon(exchanges.bind(&CLIENT, keyed("t", queue("q"), "another"))).await, refused);
    soon(exchanges.delete(&CLIENT, "t", false)).await.unwrap();
    soon(exchanges.delete(&other, "t", false)).await.unwrap();
    assert!(exchanges.memory().bytes < 5_000, "{:?}", exchanges.memory());
    broker.shutdown();
}

#[tokio::test]
async fn a_message_is_published_once_along_its_route() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    for (name, codec) in [("lz4", Compression::Lz4), ("zstd", Compression::Zstd)] {
        let config = TopicConfig { compression: Some(codec), ..TopicConfig::default() };
        let coded = NewTopic { config, ..new_topic(name, 1) };
        soon(broker.create_topics(&CLIENT, vec![coded])).await.remove(0).unwrap();
    }
    let insync = TopicConfig { min_insync: 2, ..TopicConfig::default() };
    let insync = NewTopic { config: insync, ..new_topic("insync", 1) };
    soon(broker.create_topics(&CLIENT, vec![insync])).await.remove(0).unwrap();
    let mut topics = Vec::new();
    for (name, partitions) in [("q1", 1), ("q2", 1), ("log", 3)] {
        topics.push(create(&broker, name, partitions).await);
    }
    declare(&broker, "all", ExchangeSpec::of(ExchangeKind::Fanout)).await;
    for name in ["q1", "q2", "log", "lz4", "zstd", "insync"] {
        bind(&broker, keyed("all", queue(name), "")).await;
    }
    let route = route(&broker, "all", &Publication::keyed(b"k"));
    let targets = route.targets(&CLIENT, OWN, 5).unwrap();
    let refused: Vec<_> = targets.refused.iter().map(|(topic, why)| (&*topic.name, *why)).collect();
    assert_eq!(refused, [("insync", AppendRefusal::NotEnoughReplicas { have: 1, want: 2 })]);
    assert_eq!(targets.publishes.len(), 2, "one for each codec");
    for targets in &targets.publishes {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(5, None, Some(b"message"), &[]);
        let batch = batch.build_checked(&targets.rules(), 5).unwrap();
        let outcomes = broker.publish(&CLIENT, &Publish::new(targets.clone(), [batch])).unwrap();
        broker.flush();
        soon(outcomes.confirmed()).await.unwrap();
    }
    for (topic, index) in [(&topics[0], 0), (&topics[1], 0), (&topics[2], 5 % 3)] {
        let fetched = soon(read(&broker, topic, index, 0, 1 << 20)).await.unwrap();
        assert_eq!(values(&fetched), [(0, b"message".to_vec())], "{}", topic.name);
    }
    broker.shutdown();
}

#[tokio::test]
async fn a_route_is_one_for_all_messages_that_go_there_until_a_topic_changes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let (exchanges, mut scratch) = (broker.exchanges(), RouteScratch::default());
    for name in ["q1", "q2"] {
        create(&broker, name, 1).await;
    }
    declare(&broker, "e", ExchangeSpec::of(ExchangeKind::Direct)).await;
    for key in ["a", "b"] {
        bind(&broker, keyed("e", queue("q1"), key)).await;
        bind(&broker, keyed("e", queue("q2"), key)).await;
    }
    let mut to = |exchange: &str, key: &str| {
        exchanges.route(&CLIENT, exchange, &Publication::keyed(key.as_bytes()), &mut scratch).unwrap()
    };
    let one = to("e", "a");
    assert!(Arc::ptr_eq(&one, &to("e", "b")) && Arc::ptr_eq(&one, &to("e", "a")));
    let named = to("", "q1");
    assert!(Arc::ptr_eq(&named, &to("", "q1")));
    let made = one.targets(&CLIENT, OWN, 1).unwrap();
    assert!(Arc::ptr_eq(&made, &one.targets(&CLIENT, OWN, 2).unwrap()), "made once");
    create(&broker, "another", 1).await;
    assert!(Arc::ptr_eq(&one, &to("e", "a")), "it has nothing to do with it");
    let q1 = one.topics().iter().find(|topic| &*topic.name == "q1").unwrap().id;
    soon(broker.create_partitions(&Caller::OPERATOR, q1, 2)).await.unwrap();
    let (other, named_now) = (to("e", "a"), to("", "q1"));
    assert!(!Arc::ptr_eq(&one, &other) && !Arc::ptr_eq(&named, &named_now));
    let made = other.targets(&CLIENT, OWN, 1).unwrap();
    assert!(!Arc::ptr_eq(&made, &other.targets(&CLIENT, OWN, 2).unwrap()), "the partition is chosen");
    soon(broker.delete_topics(&Caller::OPERATOR, vec![q1])).await.remove(0).unwrap();
    assert_eq!((names(&to("e", "a")), names(&to("", "q1"))), (vec!["q2"], vec![]));
    broker.shutdown();
}
