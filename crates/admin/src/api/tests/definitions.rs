//! Definitions: all topics as one document.

use sabir_broker::exchange::{
    Argument, ArgumentValue, Arguments, ExchangeKind, ExchangeOptions, ExchangeSpec, HashOn, KeySyntax,
    NamedBinding, NamedDestination, PredeclaredExchange, Publication, RouteScratch,
};
use sabir_broker::{Broker, Converter, ReservedTopic, SessionId};
use sabir_model::{DeadLetterAddress, Message, QueueConfig};

use super::*;

/// Topics of all sorts.
async fn defined(served: &Served) {
    let config =
        json!({"retention_ms": null, "compression": "zstd", "zstd_level": 9, "timestamp_after_max_ms": null});
    ask(served, "POST", "/topics", json!({"name": "b/ö", "partitions": 3, "config": config})).await;
    let mut kept = TopicConfig::default();
    kept.kept.set("segment.bytes", "1048576");
    let broker = served.broker.as_ref().unwrap();
    let internal = NewTopic { internal: true, name: "__kept".into(), ..new_topic(TopicConfig::default()) };
    let a = NewTopic { name: "a".into(), ..new_topic(kept) };
    for made in broker.create_topics(&Caller::OPERATOR, vec![internal, a]).await {
        made.unwrap();
    }
}

#[tokio::test]
async fn definitions_go_from_one_broker_to_another() {
    let one = Served::running(Options::default());
    defined(&one).await;
    commit(&one, "g", "a", 0).await;
    let (code, document) = ask(&one, "GET", "/definitions", Value::Null).await;
    let wanted = json!({"version": 1, "topics": [
        {"name": "a", "partitions": 1, "kind": "retention", "config": {}, "kept_settings": {"segment.bytes": "1048576"}},
        {"name": "b/ö", "partitions": 3, "kind": "retention", "config": {"retention_ms": null, "compression": "zstd",
            "zstd_level": 9, "timestamp_after_max_ms": null}},
    ]});
    assert_eq!((code, &document), (200, &wanted));
    // A topic a line, and the version first: what was changed is seen line by line.
    let text = body(&one.get("/sabir/v1/definitions").await);
    assert!(text.starts_with("{\"version\":1,\"topics\":[\n{") && text.lines().count() == 4, "{text}");

    let two = Served::running(Options::default());
    let both = |dry_run: bool, outcome| {
        let topics = json!([{"topic": "a", "outcome": outcome}, {"topic": "b/ö", "outcome": outcome}]);
        json!({"dry_run": dry_run, "topics": topics, "queues": [], "exchanges": [], "bindings": []})
    };
    let (code, done) = ask(&two, "POST", "/definitions?dry_run=true", document.clone()).await;
    assert_eq!((code, &done), (200, &both(true, "created")));
    assert_eq!(ask(&two, "GET", "/topics", Value::Null).await.1["topics"], json!([]), "nothing was done");
    for outcome in ["created", "exists"] {
        let (code, done) = ask(&two, "POST", "/definitions", document.clone()).await;
        assert_eq!((code, &done), (200, &both(false, outcome)));
        assert_eq!(body(&two.get("/sabir/v1/definitions").await), text);
    }
}

#[tokio::test]
async fn what_exists_differently_is_refused_by_name_before_anything_is_done() {
    let served = Served::running(Options::default());
    defined(&served).await;
    let before = body(&served.get("/sabir/v1/definitions").await);
    let new = json!({"name": "new", "partitions": 1});
    let a = |more: Value| {
        let mut topic = json!({"name": "a", "partitions": 1, "kept_settings": {"segment.bytes": "1048576"}});
        topic.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        topic
    };
    for (topic, code, kind_wanted, says) in [
        (
            a(json!({"partitions": 2})),
            409,
            "topic-exists",
            r#"topic "a" exists and differs (partitions: 1 here, 2 in the document)"#,
        ),
        (
            a(json!({"config": {"retention_ms": 5}})),
            409,
            "topic-exists",
            "retention_ms: not set here, 5 in the document",
        ),
        (
            a(json!({"kept_settings": {}})),
            409,
            "topic-exists",
            "segment.bytes: 1048576 here, not set in the document",
        ),
        (a(json!({"kind": "queue"})), 409, "topic-exists", "kind: retention here, queue in the document"),
        (json!({"name": "q", "partitions": 1, "kind": "queue"}), 422, "invalid", "stands among"),
        (json!({"name": "__kept", "partitions": 1}), 409, "internal-topic", "__kept"),
        (json!({"name": "none", "partitions": 0}), 422, "invalid", r#"topic "none": "#),
        (
            json!({"name": "bad", "partitions": 1, "config": {"gzip_level": 77}}),
            422,
            "invalid",
            r#"topic "bad": gzip_level"#,
        ),
        (json!({"name": "", "partitions": 1}), 422, "invalid", "name"),
        (
            json!({"name": "new", "partitions": 1}),
            400,
            "bad-request",
            r#""new" stands in the document twice"#,
        ),
        (json!({"name": "x", "partitions": 1, "retention": 1}), 400, "bad-request", "topics[1]"),
        (json!({"name": "x", "partitions": 10_000_000}), 422, "invalid", "max_partitions"),
    ] {
        for path in ["/definitions?dry_run=true", "/definitions"] {
            let document = json!({"version": 1, "topics": [new, topic]});
            let (got, problem) = ask(&served, "POST", path, document).await;
            assert_eq!((got, kind(&problem)), (code, kind_wanted), "{topic}: {problem}");
            assert!(problem["detail"].as_str().unwrap().contains(says), "{topic}: {problem}");
            assert_eq!(body(&served.get("/sabir/v1/definitions").await), before, "nothing was done");
        }
    }
    let differing = |i: usize| json!({"name": format!("{i}"), "partitions": 0});
    let topics: Vec<_> = (0..25).map(differing).collect();
    let (_, problem) = ask(&served, "POST", "/definitions", json!({"version": 1, "topics": topics})).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.ends_with("; and 5 more") && detail.matches("partitions (").count() == 20, "{detail}");
}

#[tokio::test]
async fn a_document_of_another_form_is_told_by_its_version() {
    let served = Served::running(Options::default());
    for (text, says) in [
        (
            r#"{"version": 2, "policies": [], "topics": []}"#,
            "version: this broker takes definitions of version 1, not 2",
        ),
        (r#"{"topics": []}"#, "missing field `version`"),
        (r#"{"version": 1}"#, "missing field `topics`"),
        (r#"{"version": 1, "topics": [], "policies": []}"#, "unknown field `policies`"),
        (
            r#"{"version": 1, "topics": [], "queues": [{"name": "q", "queue": {"ttl": 5}}]}"#,
            "unknown field `ttl`",
        ),
        (r#"{"version": 1, "topics": [], "exchanges": [{"name": "e"}]}"#, "missing field `kind`"),
        (
            r#"{"version": 1, "topics": [], "exchanges": [{"name": "e", "kind": "random"}]}"#,
            "unknown variant `random`",
        ),
        (
            r#"{"version": 1, "topics": [], "bindings": [{"source": "e", "queue": "q"}]}"#,
            "unknown field `queue`",
        ),
        (r#"{"version": 1, "topics": [] "#, "EOF"),
        (r#"[]"#, ""),
    ] {
        let (code, problem) = served.json("POST", "/sabir/v1/definitions", text).await;
        assert_eq!((code, kind(&problem)), (400, "bad-request"), "{text}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{text}: {problem}");
    }
    let query =
        served.json("POST", "/sabir/v1/definitions?dryrun=true", r#"{"version": 1, "topics": []}"#).await;
    assert_eq!((query.0, kind(&query.1)), (400, "bad-request"));
}

#[tokio::test]
async fn all_that_a_document_wants_must_have_room_together() {
    let data = tempfile::tempdir().unwrap();
    let options = BrokerOptions { partitions_total_max: 5, ..broker_options(data.path()) };
    let served = Served::over(open(options), Options::default());
    ask(&served, "POST", "/topics", json!({"name": "t", "partitions": 2})).await;
    let document = |partitions: u32| {
        let topics = json!([{"name": "u", "partitions": 2}, {"name": "v", "partitions": partitions}]);
        json!({"version": 1, "topics": topics})
    };
    for path in ["/definitions?dry_run=true", "/definitions"] {
        let (code, problem) = ask(&served, "POST", path, document(2)).await;
        assert_eq!((code, kind(&problem)), (422, "invalid"), "{problem}");
        assert_eq!(ask(&served, "GET", "/topics/u", Value::Null).await.0, 404, "nothing was done");
    }
    assert_eq!(ask(&served, "POST", "/definitions", document(1)).await.0, 200);
}

/// The front end whose clients declare the queues and exchanges of these tests.
const ORIGIN: &str = "origin";
const CLIENT: Caller = Caller::client(ORIGIN, SessionId(1));

/// A broker with such a front end.
fn with_origin(change: impl FnOnce(&mut BrokerOptions)) -> (Served, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let predeclared = |name, kind| PredeclaredExchange { name, by: ORIGIN, spec: ExchangeSpec::of(kind) };
    let mut options = BrokerOptions {
        front_ends: vec![ORIGIN],
        generated: vec![ReservedTopic { name: "made.*", by: ORIGIN }],
        exchanges: ExchangeOptions {
            predeclared: vec![predeclared("own.topic", ExchangeKind::Topic)],
            ..ExchangeOptions::default()
        },
        converters: vec![Converter {
            front_end: ORIGIN,
            reads_unnamed: false,
            to_message: |_| Message::default(),
            address: Some(|_, _| {}),
            delay_queue: Some(|| {
                let config = TopicConfig::of_queue(QueueConfig { delays: true, ..QueueConfig::default() });
                NewTopic { internal: true, name: "__delayed".into(), ..new_topic(config) }
            }),
            dead_letter: None,
            redrive: None,
        }],
        ..broker_options(data.path())
    };
    change(&mut options);
    (Served::over(open(options), Options::default()), data)
}

fn queue(name: &str, queue: QueueConfig) -> NewTopic {
    let mut config = TopicConfig::of_queue(queue);
    config.timestamp_after_max_ms = i64::MAX;
    config.kept.set("origin.arguments", "00ff");
    NewTopic { name: name.into(), ..new_topic(config) }
}

fn to_queue(source: &str, queue: &str, key: &str) -> NamedBinding {
    NamedBinding::keyed(source, NamedDestination::Queue(queue.into()), key.as_bytes())
}

fn to_exchange(source: &str, exchange: &str) -> NamedBinding {
    NamedBinding::keyed(source, NamedDestination::Exchange(exchange.into()), b"")
}

/// Queues, exchanges and bindings of all sorts, those too that no document has.
async fn declared(broker: &Broker) {
    let usual = QueueConfig::default;
    let full = QueueConfig {
        single_active: true,
        delivery_limit: Some(3),
        message_ttl_ms: Some(60_000),
        max_length: Some(5),
        max_priority: Some(9),
        dead_letter: Some(DeadLetterAddress { exchange: "events".into(), routing_key: None }),
        ..usual()
    };
    let topic = NewTopic { name: "log".into(), partitions: 3, ..new_topic(TopicConfig::default()) };
    let queues = vec![
        topic,
        queue("jobs", full),
        queue("plain", usual()),
        queue("passing", QueueConfig { durable: false, ..usual() }),
        queue("mine", QueueConfig { exclusive: true, ..usual() }),
        queue("brief", QueueConfig { auto_delete: true, ..usual() }),
        queue("made.by-itself", usual()),
    ];
    for made in broker.create_topics(&CLIENT, queues).await {
        made.unwrap();
    }
    broker.prepare_delays(&CLIENT).await.unwrap();
    let note =
        Argument { name: b"note"[..].into(), tag: b'S', value: ArgumentValue::Text(b"mine"[..].into()) };
    let arguments = Arguments::new(vec![note]);
    let hash = ExchangeKind::ConsistentHash(HashOn::Header(b"h"[..].into()));
    let exchanges = broker.exchanges();
    for (name, spec) in [
        ("events", ExchangeSpec { kept: arguments.clone(), ..ExchangeSpec::of(ExchangeKind::Topic) }),
        ("late", ExchangeSpec { delayed: true, ..ExchangeSpec::of(ExchangeKind::Direct) }),
        ("inner", ExchangeSpec { internal: true, ..ExchangeSpec::of(ExchangeKind::Headers) }),
        (
            "spread",
            ExchangeSpec { auto_delete: true, alternate: Some("none".into()), ..ExchangeSpec::of(hash) },
        ),
        ("transient", ExchangeSpec { durable: false, ..ExchangeSpec::of(ExchangeKind::Fanout) }),
    ] {
        exchanges.declare(&CLIENT, name, spec).await.unwrap();
    }
    for binding in [
        to_queue("events", "plain", "b.#"),
        to_queue("events", "jobs", "a.*"),
        NamedBinding { syntax: KeySyntax::Slashed, arguments, ..to_queue("events", "log", "a/+") },
        to_queue("own.topic", "jobs", "#"),
        to_exchange("own.topic", "inner"),
        to_queue("inner", "plain", ""),
        to_queue("spread", "plain", "2"),
        to_queue("spread", "jobs", "1"),
        to_queue("events", "made.by-itself", "b"),
        to_queue("events", "passing", "b"),
        to_exchange("events", "transient"),
        to_queue("transient", "jobs", ""),
    ] {
        exchanges.bind(&CLIENT, binding).await.unwrap();
    }
}

/// List and outcome of each entry.
fn outcomes(done: &Value) -> Vec<(&'static str, &str)> {
    let mut all = Vec::new();
    for list in ["topics", "queues", "exchanges", "bindings"] {
        let told = done[list].as_array().unwrap().iter();
        all.extend(told.map(|one| (list, one["outcome"].as_str().unwrap())));
    }
    all
}

#[tokio::test]
async fn queues_exchanges_and_bindings_go_from_one_broker_to_another() {
    let (one, _data) = with_origin(|_| {});
    declared(one.broker.as_ref().unwrap()).await;
    let (code, document) = ask(&one, "GET", "/definitions", Value::Null).await;
    let config = json!({"retention_ms": null, "retention_bytes": null, "max_message_bytes": 135_266_304,
        "timestamp_after_max_ms": null});
    let queue = |name: &str, queue: Value| json!({"name": name, "queue": queue, "config": config, "kept_settings": {"origin.arguments": "00ff"}});
    let arguments = json!([{"name": "note", "tag": 83, "value": {"text": "mine"}}]);
    let wanted = json!({
        "version": 1,
        "topics": [{"name": "log", "partitions": 3, "kind": "retention", "config": {}}],
        "queues": [
            queue("jobs", json!({"single_active": true, "delivery_limit": 3, "message_ttl_ms": 60_000, "max_length": 5,
                "max_priority": 9, "dead_letter": {"exchange": "events"}})),
            queue("plain", json!({})),
        ],
        "exchanges": [
            {"name": "events", "kind": "topic", "arguments": arguments},
            {"name": "inner", "kind": "headers", "internal": true},
            {"name": "late", "kind": "direct", "delayed": true},
            {"name": "spread", "kind": {"consistent_hash": {"header": "h"}}, "auto_delete": true, "alternate": "none"},
        ],
        "bindings": [
            {"source": "events", "destination": {"queue": "plain"}, "key": "b.#"},
            {"source": "events", "destination": {"queue": "jobs"}, "key": "a.*"},
            {"source": "events", "destination": {"queue": "log"}, "key": "a/+", "syntax": "slashed", "arguments": arguments},
            {"source": "inner", "destination": {"queue": "plain"}},
            {"source": "own.topic", "destination": {"queue": "jobs"}, "key": "#"},
            {"source": "own.topic", "destination": {"exchange": "inner"}},
            {"source": "spread", "destination": {"queue": "plain"}, "key": "2"},
            {"source": "spread", "destination": {"queue": "jobs"}, "key": "1"},
        ],
    });
    assert_eq!((code, &document), (200, &wanted));
    let text = body(&one.get("/sabir/v1/definitions").await);
    let (_, done) = ask(&one, "POST", "/definitions", document.clone()).await;
    assert!(outcomes(&done).iter().all(|(_, outcome)| *outcome == "exists"), "{done}");
    let count = outcomes(&done).len();
    assert_eq!(count, 15);

    // Into a namespace in which nothing is, and which has not been used before.
    let (two, _data) = with_origin(|_| {});
    for (path, outcome) in [
        ("/definitions?namespace=other&dry_run=true", "created"),
        ("/definitions?namespace=other", "created"),
        ("/definitions?namespace=other", "exists"),
    ] {
        let (code, done) = ask(&two, "POST", path, document.clone()).await;
        assert_eq!(code, 200, "{done}");
        let all = outcomes(&done);
        assert!(all.len() == count && all.iter().all(|(_, told)| *told == outcome), "{path}: {done}");
        let there = body(&two.get("/sabir/v1/definitions?namespace=other").await);
        assert_eq!(there == text, !path.ends_with("dry_run=true"), "{there}");
    }
    let broker = two.broker.as_ref().unwrap();
    let other = CLIENT.within(Namespace::named("other").unwrap());
    let routed = |exchange: &str, key: &[u8]| {
        let mut scratch = RouteScratch::default();
        let route = broker.exchanges().route(&other, exchange, &Publication::keyed(key), &mut scratch);
        let route = route.unwrap();
        let mut names: Vec<String> = route.topics().iter().map(|topic| topic.name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(routed("events", b"a.x"), ["jobs", "log"]);
    assert_eq!(routed("own.topic", b""), ["jobs", "plain"]);
    assert!(
        broker.catalog().topic_of(&other, "__delayed").is_some(),
        "there is a place for delayed messages"
    );
    // It is the operator's, so that clients of any protocol go on as if they had declared it.
    let changed = broker.exchanges().delete(&other, "events", false).await;
    assert_eq!(changed, Ok(()));
    let jobs = broker.catalog().topic_of(&other, "jobs").unwrap().id;
    broker.delete_topics(&other, vec![jobs]).await.remove(0).unwrap();
}

#[tokio::test]
async fn what_was_cut_short_is_completed_by_the_same_document() {
    let (one, _data) = with_origin(|_| {});
    declared(one.broker.as_ref().unwrap()).await;
    let (_, document) = ask(&one, "GET", "/definitions", Value::Null).await;
    let text = body(&one.get("/sabir/v1/definitions").await);
    // As a kill leaves it: what was made comes in the order of the lists, and may end within any of them.
    let lists =
        [("topics", 1), ("queues", 1), ("queues", 2), ("exchanges", 2), ("exchanges", 4), ("bindings", 3)];
    for (ends_in, at) in lists {
        let mut made = document.clone();
        let mut ended = false;
        for list in ["topics", "queues", "exchanges", "bindings"] {
            let entries = made[list].as_array_mut().unwrap();
            entries.truncate(if ended {
                0
            } else if list == ends_in {
                at
            } else {
                usize::MAX
            });
            ended |= list == ends_in;
        }
        let (two, _data) = with_origin(|_| {});
        assert_eq!(ask(&two, "POST", "/definitions", made).await.0, 200);
        let (code, done) = ask(&two, "POST", "/definitions", document.clone()).await;
        assert_eq!(code, 200, "{ends_in} {at}: {done}");
        assert!(outcomes(&done).contains(&(ends_in, "exists")), "{ends_in} {at}: {done}");
        assert_eq!(body(&two.get("/sabir/v1/definitions").await), text, "{ends_in} {at}");
    }
}

#[tokio::test]
async fn queues_exchanges_and_bindings_that_cannot_be_are_refused_by_name() {
    let (served, _data) = with_origin(|_| {});
    declared(served.broker.as_ref().unwrap()).await;
    let before = body(&served.get("/sabir/v1/definitions").await);
    let new = json!({"name": "new", "kind": "fanout"});
    let plain = |queue: Value| {
        json!({"queues": [{"name": "plain", "queue": queue, "config": {"timestamp_after_max_ms": null},
            "kept_settings": {"origin.arguments": "00ff"}}]})
    };
    let binding = |more: Value| {
        let mut binding = json!({"source": "events", "destination": {"queue": "plain"}, "key": "k"});
        binding.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"bindings": [binding]})
    };
    assert_eq!(ask(&served, "POST", "/definitions?dry_run=true", with(&new, plain(json!({})))).await.0, 200);
    for (lists, code, kind_wanted, says) in [
        (
            plain(json!({"max_length": 5})),
            409,
            "topic-exists",
            r#"queue "plain" exists and differs (max_length: not set here, 5 in the document)"#,
        ),
        (
            json!({"queues": [{"name": "plain"}]}),
            409,
            "topic-exists",
            "origin.arguments: 00ff here, not set in the document",
        ),
        (
            json!({"queues": [{"name": "log"}]}),
            409,
            "topic-exists",
            "kind: retention here, queue in the document",
        ),
        (
            json!({"queues": [{"name": "passing"}]}),
            409,
            "topic-exists",
            "durable: false here, true in the document",
        ),
        (
            json!({"queues": [{"name": "mine"}]}),
            409,
            "topic-exists",
            "exclusive: true here, false in the document",
        ),
        (json!({"queues": [{"name": "brief"}]}), 409, "topic-exists", "auto_delete: true here"),
        (json!({"queues": [{"name": "__delayed"}]}), 409, "internal-topic", "__delayed"),
        (
            json!({"queues": [{"name": "q", "queue": {"max_priority": 0}}]}),
            422,
            "invalid",
            r#"topic "q": settings: a queue's max_priority"#,
        ),
        (
            json!({"queues": [{"name": "q"}, {"name": "q"}]}),
            400,
            "bad-request",
            r#"queue "q" stands in the document twice"#,
        ),
        (
            json!({"topics": [{"name": "q", "partitions": 1}], "queues": [{"name": "q"}]}),
            400,
            "bad-request",
            r#"queue "q" stands in the document twice"#,
        ),
        (
            json!({"exchanges": [{"name": "events", "kind": "fanout"}]}),
            409,
            "exchange-exists",
            r#"the exchange "events" exists with another type"#,
        ),
        (
            json!({"exchanges": [{"name": "transient", "kind": "fanout"}]}),
            409,
            "exchange-exists",
            "another durable",
        ),
        (
            json!({"exchanges": [{"name": "own.topic", "kind": "fanout"}]}),
            409,
            "exchange-exists",
            "own.topic",
        ),
        (json!({"exchanges": [{"name": "", "kind": "fanout"}]}), 422, "invalid", r#"exchange "": "#),
        (
            json!({"exchanges": [new, new]}),
            400,
            "bad-request",
            r#"exchange "new" stands in the document twice"#,
        ),
        (binding(json!({"source": "none"})), 422, "invalid", r#"there is no exchange "none""#),
        (binding(json!({"source": ""})), 422, "invalid", "default exchange"),
        (binding(json!({"destination": {"queue": "none"}})), 422, "invalid", r#"there is no queue "none""#),
        (
            binding(json!({"destination": {"exchange": "none"}})),
            422,
            "invalid",
            r#"there is no exchange "none""#,
        ),
        (binding(json!({"destination": {"queue": "__delayed"}})), 409, "internal-topic", "__delayed"),
        (
            binding(json!({"source": "spread"})),
            422,
            "invalid",
            r#"binding of queue "plain" to "spread" by "k": the binding key"#,
        ),
        (binding(json!({"key": {"hex": "f"}})), 400, "bad-request", "bindings[0].key"),
        (
            json!({"bindings": [binding(json!({}))["bindings"][0], binding(json!({}))["bindings"][0]]}),
            400,
            "bad-request",
            "twice",
        ),
    ] {
        for path in ["/definitions?dry_run=true", "/definitions"] {
            let (got, problem) = ask(&served, "POST", path, with(&new, lists.clone())).await;
            assert_eq!((got, kind(&problem)), (code, kind_wanted), "{lists}: {problem}");
            assert!(problem["detail"].as_str().unwrap().contains(says), "{lists}: {problem}");
            assert_eq!(body(&served.get("/sabir/v1/definitions").await), before, "nothing was done");
        }
    }
}

/// A document of these lists, and of an exchange that can be made, unless they have exchanges.
fn with(exchange: &Value, lists: Value) -> Value {
    let mut document = json!({"version": 1, "topics": [], "exchanges": [exchange]});
    document.as_object_mut().unwrap().extend(lists.as_object().unwrap().clone());
    document
}

#[tokio::test]
async fn exchanges_and_bindings_must_have_room_together() {
    let exchanges = |count: usize| {
        (0..count).map(|n| json!({"name": format!("e{n}"), "kind": "fanout"})).collect::<Vec<_>>()
    };
    let bindings = |count: usize| {
        let one =
            |n: usize| json!({"source": "own.topic", "destination": {"queue": "q"}, "key": format!("{n}")});
        (0..count).map(one).collect::<Vec<_>>()
    };
    type Limit = fn(&mut BrokerOptions);
    let limits: [(Limit, &str); 3] = [
        (|options| options.exchanges.exchanges_max = 1 + 3, "exchanges, which is the limit"),
        (|options| options.exchanges.bindings_max = 3, "bindings, which is the limit"),
        (|options| options.exchanges.bytes_max = 8_000, "topic.exchange_memory"),
    ];
    for (limit, says) in limits {
        let (served, _data) = with_origin(limit);
        let document = |count: usize| {
            json!({"version": 1, "topics": [], "queues": [{"name": "q"}], "exchanges": exchanges(count),
                "bindings": bindings(count)})
        };
        for path in ["/definitions?dry_run=true", "/definitions"] {
            let (code, problem) = ask(&served, "POST", path, document(4)).await;
            assert_eq!((code, kind(&problem)), (422, "invalid"), "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
            assert_eq!(ask(&served, "GET", "/topics/q", Value::Null).await.0, 404, "nothing was done");
        }
        assert_eq!(ask(&served, "POST", "/definitions", document(2)).await.0, 200, "{says}");
    }
}

#[tokio::test]
async fn many_bindings_of_one_exchange_keep_their_order() {
    let (one, _data) = with_origin(|_| {});
    let broker = one.broker.as_ref().unwrap();
    let queues = (0..50).map(|n| queue(&format!("q{n}"), QueueConfig::default())).collect();
    broker.create_topics(&CLIENT, queues).await.into_iter().for_each(|made| drop(made.unwrap()));
    broker.exchanges().declare(&CLIENT, "spread", ExchangeSpec::of(ExchangeKind::Fanout)).await.unwrap();
    let bindings = (0..2500).map(|n| to_queue("spread", &format!("q{}", n % 50), &format!("{}", 2500 - n)));
    let client = CLIENT;
    let binding = bindings.map(|binding| broker.exchanges().bind(&client, binding));
    for bound in futures_util::future::join_all(binding).await {
        bound.unwrap();
    }
    let text = body(&one.get("/sabir/v1/definitions").await);
    let keys: Vec<&str> = text.lines().filter_map(|line| line.split("\"key\":\"").nth(1)).collect();
    assert_eq!(keys.len(), 2500);
    assert!(
        keys[0].starts_with("2500\"") && keys[2499].starts_with("1\""),
        "in the order in which they were made"
    );
    let (two, _data) = with_origin(|_| {});
    let (code, _) = ask(&two, "POST", "/definitions", serde_json::from_str(&text).unwrap()).await;
    assert_eq!((code, body(&two.get("/sabir/v1/definitions").await)), (200, text));
}
