//! What the API answers, and that its description says the same.

mod definitions;
mod delayed;
mod groups;
mod namespaces;
mod redrives;

use std::collections::BTreeSet;

use sabir_broker::queue::SubscriptionSpec;
use sabir_broker::{BrokerOptions, Caller, Fence, NewTopic, OffsetCommit, Text};
use sabir_model::{LeaderEpoch, Namespace, Offset, TopicConfig, TopicError, TopicField};
use serde_json::{Value, json};

use crate::testing::{Served, body, broker_options, code, content, open};
use crate::{Options, Writes};

fn description() -> Value {
    serde_json::from_str(super::OPENAPI).unwrap()
}

/// Whether `value` is what `schema` says: the part of JSON Schema that the description uses, and nothing that it does not name.
fn check(value: &Value, schema: &Value, all: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/components/schemas/").unwrap();
        return check(value, &all["components"]["schemas"][name], all, at);
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
        kind => vec![kind.as_str().unwrap()],
    };
    let is = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{at}: the description has a type {other}"),
    };
    if !kinds.iter().any(is) {
        return Err(format!("{at}: {value} is not {kinds:?}"));
    }
    if let Some(values) = schema["enum"].as_array().filter(|values| !values.contains(value)) {
        return Err(format!("{at}: {value} is none of {values:?}"));
    }
    if schema["minimum"].as_f64().is_some_and(|least| value.as_f64().is_some_and(|v| v < least)) {
        return Err(format!("{at}: {value} is below what it may be"));
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        check(item, &schema["items"], all, &format!("{at}[{i}]"))?;
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    let Some(known) = schema["properties"].as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Err(format!("{at} has no {name}"));
        }
    }
    for (name, field) in fields {
        let schema = known.get(name).ok_or(format!("{at}.{name} is not described"))?;
        check(field, schema, all, &format!("{at}.{name}"))?;
    }
    Ok(())
}

/// Asks, and holds the answer to the description.
async fn ask(served: &Served, method: &str, path: &str, body: Value) -> (u16, Value) {
    let all = description();
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let answer = served.send(method, &format!("/sabir/v1{path}"), "", &text).await;
    let (code, content) = (code(&answer), content(&answer));
    let (known, operation) = operation(&all, method, path);
    let responses = &operation["responses"];
    let described = responses.get(code.to_string()).unwrap_or(&responses["default"]);
    match described["content"].as_object().map(|forms| forms.iter().next().unwrap()) {
        None => assert_eq!(content, Value::Null, "{method} {known}"),
        Some((form, described)) => {
            assert!(answer.contains(&format!("content-type: {form}\r\n")), "{answer}");
            check(&content, &described["schema"], &all, &format!("{method} {known}")).unwrap();
        }
    }
    (code, content)
}

/// The operation that a path means.
fn operation<'a>(all: &'a Value, method: &str, path: &str) -> (&'a str, &'a Value) {
    let path = path.split('?').next().unwrap();
    let parts: Vec<_> = path.split('/').collect();
    let means = |known: &&String| {
        let known: Vec<_> = known.split('/').collect();
        let same = |(a, b): (&&str, &&str)| a == b || a.starts_with('{');
        known.len() == parts.len() && known.iter().zip(&parts).all(same)
    };
    let paths = all["paths"].as_object().unwrap();
    let known = paths.keys().find(means).unwrap();
    (known, paths[known].get(method.to_lowercase()).unwrap())
}

fn kind(problem: &Value) -> &str {
    problem["type"].as_str().unwrap().strip_prefix("urn:sabir:problem:").unwrap()
}

async fn commit(served: &Served, group: &str, topic: &str, offset: i64) {
    commit_of(served, &Caller::OPERATOR, group, topic, offset).await;
}

async fn commit_of(served: &Served, caller: &Caller, group: &str, topic: &str, offset: i64) {
    let broker = served.broker.as_ref().unwrap();
    let topic = broker.catalog().topic(topic).unwrap().id;
    let fence = Fence { generation: -1, member: Text::from(""), instance: None };
    let leader_epoch = LeaderEpoch::UNKNOWN;
    let position =
        OffsetCommit { topic, partition: 0, offset: Offset(offset), leader_epoch, metadata: Text::from("m") };
    for outcome in broker.groups(caller).commit(group, fence, vec![position]).await {
        outcome.unwrap();
    }
}

/// A topic `t` with one partition, made by a front end.
fn new_topic(config: TopicConfig) -> NewTopic {
    NewTopic { name: "t".into(), partitions: 1, config, internal: false, unlike: false }
}

#[test]
fn the_description_lists_every_path() {
    let all = description();
    let described: BTreeSet<_> = all["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let served: BTreeSet<_> = super::routes().into_iter().map(|(path, _)| path).collect();
    assert_eq!(served, described);
}

#[tokio::test]
async fn every_operation_is_served() {
    let served = Served::running(Options::default());
    for (path, operations) in description()["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let path = format!("/sabir/v1{}", path.replace("{name}", "x").replace("{id}", "x"));
            let answer = served.send(&method.to_uppercase(), &path, "", "").await;
            assert!(code(&answer) != 405, "{method} {path}: {answer}");
            assert!(code(&answer) != 404 || !answer.contains("unknown-path"), "{method} {path}: {answer}");
        }
    }
    let answer = served.send("PUT", "/sabir/v1/topics", "", "").await;
    assert_eq!((code(&answer), kind(&content(&answer))), (405, "method-not-allowed"));
    let answer = served.get("/sabir/v1/nothing").await;
    assert_eq!((code(&answer), kind(&content(&answer))), (404, "unknown-path"));
}

#[tokio::test]
async fn the_node_and_its_shards_are_shown() {
    let served = Served::running(Options::default());
    let (code, node) = ask(&served, "GET", "/node", Value::Null).await;
    assert_eq!((code, &node["durability"], &node["shards"]), (200, &json!("sync"), &json!(2)));
    assert_eq!(node["listeners"][0]["listening"], json!(["127.0.0.1:1"]));
    assert_eq!(
        node["listeners"][1],
        json!({"protocol": "test", "listening": ["[::1]:2"], "advertise": "there:2"})
    );
    let (_, shards) = ask(&served, "GET", "/shards", Value::Null).await;
    assert_eq!(shards["shards"][0]["holds"], "catalog");
    assert_eq!(shards["shards"][1]["state"], "running");
    let (_, connections) = ask(&served, "GET", "/connections", Value::Null).await;
    assert_eq!((&connections["open"], &connections["protocols"][0]["refused"]), (&json!(1), &json!(3)));
    let (code, health) = ask(&served, "GET", "/health", Value::Null).await;
    assert_eq!((code, &health["status"]), (200, &json!("ready")));
    let (code, same) = ask(&served, "GET", "/openapi.json", Value::Null).await;
    assert_eq!((code, same), (200, description()));
}

#[tokio::test]
async fn connections_are_listed_and_closed() {
    let mut served = Served::running(Options::default());
    let connection = served.connection.take().unwrap();
    connection.introduce("billing-1");
    let (code, all) = ask(&served, "GET", "/connections", Value::Null).await;
    let listed = &all["connections"];
    assert_eq!((code, listed.as_array().unwrap().len(), &all["next"]), (200, 1, &Value::Null));
    assert_eq!((&listed[0]["client"], &listed[0]["peer"]), (&json!("billing-1"), &json!("127.0.0.1:7")));
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    for (query, count) in
        [("?prefix=bill", 1), ("?prefix=b2", 0), ("?after=0", 1), (&format!("?after={id}"), 0)]
    {
        let (_, some) = ask(&served, "GET", &format!("/connections{query}"), Value::Null).await;
        assert_eq!(some["connections"].as_array().unwrap().len(), count, "{query}");
    }
    let path = format!("/connections/{id}");
    let (code, one) = ask(&served, "GET", &path, Value::Null).await;
    assert_eq!((code, &one["client"]), (200, &json!("billing-1")));
    assert_eq!(ask(&served, "DELETE", &path, Value::Null).await.0, 204);
    assert!(connection.is_closing());
    drop(connection);
    let (code, problem) = ask(&served, "DELETE", &path, Value::Null).await;
    assert_eq!((code, kind(&problem)), (404, "unknown-connection"));
    let (code, problem) = ask(&served, "GET", "/connections/x", Value::Null).await;
    assert_eq!((code, kind(&problem)), (400, "bad-request"));
}

#[tokio::test]
async fn the_shard_that_holds_the_groups_is_named() {
    for data_shards in [1, 3] {
        let data = tempfile::tempdir().unwrap();
        let broker = open(BrokerOptions { data_shards, ..broker_options(data.path()) });
        let served = Served::over(broker, Options::default());
        ask(&served, "POST", "/topics", json!({"name": "t"})).await;
        let applied = async || {
            let (_, all) = ask(&served, "GET", "/shards", Value::Null).await;
            let shards = all["shards"].as_array().unwrap().clone();
            shards.into_iter().map(|shard| (shard["holds_groups"].clone(), shard["applied"].clone()))
        };
        let before = applied().await;
        commit(&served, "g", "t", 0).await;
        let changed =
            before.zip(applied().await).map(|((_, before), (holds, after))| (holds, before != after));
        let changed: Vec<_> = changed.collect();
        assert_eq!(changed.len() as u32, data_shards + 1);
        assert_eq!(changed.iter().filter(|(_, changed)| *changed).count(), 1);
        assert!(changed.iter().all(|(holds, changed)| holds == *changed), "{changed:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_open_says_so() {
    let served = Served::starting();
    let (code, health) = ask(&served, "GET", "/health", Value::Null).await;
    assert_eq!((code, &health["status"], &health["ready"]), (503, &json!("starting"), &json!(false)));
    let (code, problem) = ask(&served, "GET", "/topics", Value::Null).await;
    assert_eq!((code, kind(&problem)), (503, "unavailable"));
    served.admin.stopping();
    let (_, problem) = ask(&served, "DELETE", "/topics/x", Value::Null).await;
    assert!(problem["detail"].as_str().unwrap().contains("stopping"), "{problem}");
}

#[tokio::test]
async fn what_the_broker_keeps_for_itself_is_shown_and_not_changed() {
    let served = Served::running(Options::default());
    let internal = NewTopic { internal: true, name: "__kept".into(), ..new_topic(TopicConfig::default()) };
    let broker = served.broker.as_ref().unwrap();
    broker.create_topics(&Caller::OPERATOR, vec![internal]).await.remove(0).unwrap();
    let (code, topic) = ask(&served, "GET", "/topics/__kept", Value::Null).await;
    assert_eq!((code, &topic["internal"]), (200, &json!(true)));
    for (method, body) in [("DELETE", Value::Null), ("PATCH", json!({"partitions": 3}))] {
        let (code, problem) = ask(&served, method, "/topics/__kept", body).await;
        assert_eq!((code, kind(&problem)), (409, "internal-topic"), "{method}");
    }
    // That some protocol takes two names for one is that protocol's rule.
    let (code, _) = ask(&served, "POST", "/topics", json!({"name": "_.kept"})).await;
    assert_eq!(code, 201);
}

#[tokio::test]
async fn a_topic_lives_and_dies() {
    let served = Served::running(Options::default());
    let wanted = json!({"name": "a/ö", "partitions": 2,
        "config": {"retention_ms": null, "durability": "os", "timestamp": "append"}});
    let answer = served.send("POST", "/sabir/v1/topics", "", &wanted.to_string()).await;
    assert_eq!(code(&answer), 201, "{answer}");
    assert!(answer.contains("location: /sabir/v1/topics/a%2F%C3%B6\r\n"), "{answer}");
    let (code, problem) = ask(&served, "POST", "/topics", wanted).await;
    assert_eq!((code, kind(&problem)), (409, "topic-exists"));

    let (code, topic) = ask(&served, "GET", "/topics/a%2F%C3%B6", Value::Null).await;
    assert_eq!((code, topic["partitions"].as_array().unwrap().len()), (200, 2));
    assert_eq!(topic["config"]["retention_ms"], Value::Null);
    assert_eq!(topic["config"]["own"], json!(["retention_ms", "timestamp", "durability"]));
    assert_eq!(
        (&topic["config"]["durability"], &topic["config"]["timestamp"]),
        (&json!("os"), &json!("append"))
    );
    let change = json!({"partitions": 3, "config": {"retention_ms": 1000, "durability": null}});
    let (code, topic) = ask(&served, "PATCH", "/topics/a%2F%C3%B6", change).await;
    assert_eq!((code, topic["partitions"].as_array().unwrap().len()), (200, 3), "{topic}");
    assert_eq!(
        (&topic["config"]["retention_ms"], &topic["config"]["durability"]),
        (&json!(1000), &Value::Null)
    );
    assert_eq!(topic["config"]["timestamp"], "append");
    assert_eq!(topic["config"]["own"], json!(["retention_ms", "timestamp"]));

    let (_, list) = ask(&served, "GET", "/topics?prefix=a&limit=1", Value::Null).await;
    assert_eq!((&list["topics"][0]["name"], &list["next"]), (&json!("a/ö"), &Value::Null));
    let (code, _) = ask(&served, "DELETE", "/topics/a%2F%C3%B6", Value::Null).await;
    assert_eq!(code, 204);
    for method in ["GET", "DELETE"] {
        let (code, problem) = ask(&served, method, "/topics/a%2F%C3%B6", Value::Null).await;
        assert_eq!((code, kind(&problem)), (404, "unknown-topic"));
    }
}

#[tokio::test]
async fn what_is_said_is_the_topics_own_also_where_it_is_the_nodes_default() {
    let served = Served::running(Options::default());
    let week = 7 * 24 * 3600 * 1000_i64;
    let given = json!({"retention_ms": week, "retention_bytes": null, "max_message_bytes": 1_048_588, "timestamp": "create"});
    let own = json!(["retention_ms", "retention_bytes", "max_message_bytes", "timestamp"]);
    let (_, made) = ask(&served, "POST", "/topics", json!({"name": "t", "config": given})).await;
    assert_eq!(made["config"]["own"], own);
    let (_, made) = ask(&served, "POST", "/topics", json!({"name": "u"})).await;
    assert_eq!(made["config"]["own"], json!([]));
    let (_, changed) = ask(&served, "PATCH", "/topics/u", json!({"config": given})).await;
    assert_eq!(changed["config"]["own"], own);
}

#[tokio::test]
async fn a_change_right_after_a_start_makes_no_earlier_default_the_topics_own() {
    let data = tempfile::tempdir().unwrap();
    let broker = open(broker_options(data.path()));
    let before = broker
        .create_topics(&Caller::OPERATOR, vec![new_topic(TopicConfig::default())])
        .await
        .remove(0)
        .unwrap();
    broker.shutdown();
    drop(broker);
    let defaults = TopicConfig { retention_ms: Some(55), ..TopicConfig::default() };
    let broker = open(BrokerOptions { defaults, ..broker_options(data.path()) });
    let change = |config: &mut TopicConfig| {
        // As it was seen before the topics had been told of the new defaults.
        *config = TopicConfig::clone(&before.config);
        config.max_message_bytes = 99;
        config.own(TopicField::MaxMessageBytes);
        Ok::<(), TopicError>(())
    };
    let after = broker.change_topic(&Caller::OPERATOR, before.id, change).await.unwrap().config.clone();
    assert_eq!((after.retention_ms, after.max_message_bytes), (Some(55), 99));
    assert!(after.owns(TopicField::MaxMessageBytes) && !after.owns(TopicField::RetentionMs));
    broker.shutdown();
}

#[tokio::test]
async fn a_change_that_cannot_be_made_whole_is_not_begun() {
    let served = Served::running(Options::default());
    let (_, made) = ask(&served, "POST", "/topics", json!({"name": "t", "partitions": 2})).await;
    for partitions in [0, 1, 1_000_000] {
        let change = json!({"partitions": partitions, "config": {"retention_ms": 1000}});
        let (code, problem) = ask(&served, "PATCH", "/topics/t", change).await;
        assert_eq!((code, kind(&problem)), (422, "invalid"), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("partitions"), "{problem}");
        assert_eq!(ask(&served, "GET", "/topics/t", Value::Null).await.1, made);
    }
    let (code, _) = ask(&served, "PATCH", "/topics/t", json!({"partitions": 2})).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn a_topic_that_is_to_be_flushed_sooner_is_not_left_to_the_system() {
    for (name, value, refused) in
        [("flush_messages", 1, true), ("flush_ms", 500, true), ("flush_ms", 1000, false)]
    {
        let served = Served::running(Options::default());
        let made = ask(&served, "POST", "/topics", json!({"name": "t", "config": {name: value}})).await;
        assert_eq!((made.0, &made.1["config"][name]), (201, &json!(value)));
        let change = json!({"config": {"durability": "os"}});
        let (code, answer) = ask(&served, "PATCH", "/topics/t", change).await;
        if refused {
            assert_eq!((code, kind(&answer)), (422, "invalid"), "{name}={value}");
            assert!(answer["detail"].as_str().unwrap().contains(name), "{answer}");
        } else {
            assert_eq!((code, &answer["config"]["durability"]), (200, &json!("os")), "{name}={value}");
        }
        for harmless in
            [json!({"durability": "sync"}), json!({"durability": null}), json!({"retention_ms": 1})]
        {
            let (code, answer) = ask(&served, "PATCH", "/topics/t", json!({"config": harmless})).await;
            assert_eq!(code, 200, "{answer}");
        }
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_reason() {
    let served = Served::running(Options::default());
    for (method, path, body, code, kind_wanted, says) in [
        (
            "POST",
            "/topics",
            r#"{"name": "t", "partition": 1}"#,
            400,
            "bad-request",
            "unknown field `partition`",
        ),
        (
            "POST",
            "/topics",
            r#"{"name": "t", "config": {"durability": "no"}}"#,
            400,
            "bad-request",
            "config.durability",
        ),
        ("POST", "/topics", r#"{"name": "t"} x"#, 400, "bad-request", "trailing"),
        ("POST", "/topics", r#"{"name": "t", "partitions": 0}"#, 422, "invalid", "partitions"),
        (
            "POST",
            "/topics",
            r#"{"name": "t", "config": {"retention_ms": -1}}"#,
            422,
            "invalid",
            "retention_ms",
        ),
        ("POST", "/topics", r#"{"name": ""}"#, 422, "invalid", "topic's name"),
        ("PATCH", "/topics/none", r#"{"partitions": 2}"#, 404, "unknown-topic", "none"),
        ("GET", "/topics?limit=0", "", 400, "bad-request", "limit"),
        ("GET", "/topics?limt=1", "", 400, "bad-request", "limt"),
        ("GET", "/topics/%ff", "", 400, "bad-request", "UTF-8"),
        ("GET", "/groups/none", "", 404, "unknown-group", "none"),
        ("DELETE", "/groups/none", "", 404, "unknown-group", "none"),
        ("POST", "/groups/none/reset", r#"{"to": "earliest"}"#, 404, "unknown-group", "none"),
        ("POST", "/groups/g/reset", r#"{"to": "there"}"#, 400, "bad-request", "to: unknown variant"),
        ("POST", "/groups/g/reset", r#"{"to": "latest", "topics": ["no"]}"#, 404, "unknown-topic", "no"),
    ] {
        let (got, problem) = served.json(method, &format!("/sabir/v1{path}"), body).await;
        assert_eq!((got, kind(&problem)), (code, kind_wanted), "{method} {path} {body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{method} {path} {body}: {problem}");
        let all = description();
        check(&problem, &all["components"]["schemas"]["Problem"], &all, path).unwrap();
    }
    let answer = served.send("POST", "/sabir/v1/topics", "", &format!("\"{}\"", "x".repeat(100_000))).await;
    assert_eq!((code(&answer), kind(&content(&answer))), (413, "too-large"));
    let text = "POST /sabir/v1/topics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
        content-type: text/plain\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(code(&served.ask(text).await), 415);
}

#[tokio::test]
async fn metrics_show_topics_and_groups_up_to_a_limit() {
    for (metrics_limit, shown) in [(1, true), (0, false)] {
        let served = Served::running(Options { metrics_limit, ..Options::default() });
        ask(&served, "POST", "/topics", json!({"name": "t", "partitions": 2})).await;
        commit(&served, "g", "t", 0).await;
        let text = served.get("/metrics").await;
        for line in [r#"sabir_topic_partitions{topic="t"} 2"#, r#"sabir_group_lag{group="g",topic="t"} 0"#] {
            assert_eq!(text.contains(line), shown, "{line}: {text}");
        }
        let given = "sabir_metrics_left_out{metrics=\"sabir_topic_*\"} 0\n";
        assert_eq!(text.contains(given), shown, "{text}");
        assert!(text.contains("\nsabir_groups 1\n"), "{text}");
        // One more of each, and none is shown.
        ask(&served, "POST", "/topics", json!({"name": "u"})).await;
        commit(&served, "h", "u", 0).await;
        let text = served.get("/metrics").await;
        assert!(!text.contains("sabir_topic_partitions") && !text.contains("sabir_group_lag"), "{text}");
        for metrics in ["sabir_topic_*", "sabir_group_*"] {
            let given = format!("sabir_metrics_left_out{{metrics=\"{metrics}\"}} 1\n");
            assert_eq!(text.contains(&given), shown, "{text}");
        }
    }
}

#[tokio::test]
async fn bytes_in_and_out_are_shown_by_topic_up_to_a_limit_and_then_together() {
    let data = tempfile::tempdir().unwrap();
    let options = BrokerOptions { counted_topics_max: 2, ..broker_options(data.path()) };
    let served = Served::over(open(options), Options { metrics_limit: 0, ..Options::default() });
    for name in ["a", "other"] {
        ask(&served, "POST", "/topics", json!({"name": name})).await;
    }
    let line =
        |topic, way: &str, bytes| format!("\nsabir_topic_{way}_bytes_total{{topic=\"{topic}\"}} {bytes}\n");
    let text = served.get("/metrics").await;
    assert!(text.contains(&line("a", "received", 0)), "from the start, while all have room: {text}");
    ask(&served, "POST", "/topics", json!({"name": "b"})).await;
    ask(&served, "POST", "/topics", json!({"name": "c"})).await;
    let broker = served.broker.as_ref().unwrap();
    for (name, bytes) in [("b", 1), ("c", 2), ("a", 4), ("other", 8)] {
        broker.catalog().topic(name).unwrap().traffic.send(bytes);
    }
    let text = served.get("/metrics").await;
    for (topic, sent) in [("b", 1), ("c", 2), ("other", 12)] {
        assert!(text.contains(&line(topic, "sent", sent)), "{topic}: {text}");
        assert!(text.contains(&line(topic, "received", 0)), "{topic}: {text}");
    }
    assert_eq!(text.matches("sabir_topic_sent_bytes_total{").count(), 3, "{text}");
    ask(&served, "DELETE", "/topics/b", Value::Null).await;
    let text = served.get("/metrics").await;
    assert!(!text.contains("topic=\"b\"") && text.contains(&line("other", "sent", 12)), "{text}");
    let broker = served.broker.as_ref().unwrap();
    broker.catalog().topic("a").unwrap().traffic.send(1);
    assert!(served.get("/metrics").await.contains(&line("other", "sent", 13)), "it stays with the others");
}

#[tokio::test]
async fn changes_are_taken_from_where_they_may_come() {
    for (writes, headers, wanted) in [
        (Writes::Off, "", 403),
        (Writes::Loopback, "", 404),
        (Writes::Anywhere, "", 404),
        (Writes::Loopback, "origin: http://elsewhere.example\r\n", 403),
        (Writes::Anywhere, "origin: null\r\n", 403),
    ] {
        let served = Served::running(Options { writes, ..Options::default() });
        let answer = served.send("DELETE", "/sabir/v1/topics/none", headers, "").await;
        assert_eq!(code(&answer), wanted, "{writes:?} {headers}: {answer}");
        assert_eq!(code(&served.send("GET", "/sabir/v1/topics", headers, "").await), 200);
    }
}

#[tokio::test]
async fn what_is_shown_of_a_topic_can_be_changed_or_it_is_said_why_not() {
    let served = Served::running(Options::default());
    ask(&served, "POST", "/topics", json!({"name": "t"})).await;
    let given = json!({"retention_ms": 1, "retention_bytes": 2, "max_message_bytes": 3, "timestamp": "append",
        "durability": "sync", "compression": "gzip", "min_insync": 2, "timestamp_before_max_ms": 4,
        "timestamp_after_max_ms": null, "flush_ms": 5, "flush_messages": null, "gzip_level": 9, "zstd_level": -7});
    let (code, topic) = ask(&served, "PATCH", "/topics/t", json!({"config": given, "partitions": 2})).await;
    assert_eq!((code, topic["partitions"].as_array().unwrap().len()), (200, 2), "{topic}");
    let refused = async |field: &str, change: Value| {
        let (code, problem) = ask(&served, "PATCH", "/topics/t", change).await;
        assert_eq!((code, kind(&problem)), (400, "bad-request"), "{field}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        let (field, shown) = (format!("{}: ", field.replace("config.", "config: ")), format!("{detail}: "));
        assert!(shown.starts_with(&field) && detail.contains("changed"), "{detail}");
        assert_eq!(ask(&served, "GET", "/topics/t", Value::Null).await.1, topic, "nothing was done");
    };
    for (name, shown) in topic["config"].as_object().unwrap() {
        match given.get(name) {
            Some(wanted) => assert_eq!(shown, wanted, "{name}"),
            None => {
                refused(&format!("config.{name}"), json!({"config": {name: shown, "min_insync": 9}})).await
            }
        }
    }
    for (name, shown) in topic.as_object().unwrap().iter().filter(|(name, _)| *name != "config") {
        refused(name, json!({name: shown, "config": {"min_insync": 9}})).await;
    }
    refused("id", json!({"id": null})).await;
    let names = |list: &Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&topic["config"]["own"]), given.as_object().unwrap().keys().cloned().collect());
    let (code, topic) = ask(&served, "PATCH", "/topics/t", json!({"config": {"compression": null}})).await;
    assert_eq!((code, &topic["config"]["compression"]), (200, &Value::Null));
    for (wrong, wanted) in [
        (json!({"min_insync": 0}), 400),
        (json!({"compression": "lzma"}), 400),
        (json!({"timestamp_after_max_ms": -1}), 422),
        (json!({"gzip_level": 10}), 422),
        (json!({"zstd_level": 23}), 422),
        (json!({"timestamp_before_max_ms": -1}), 422),
    ] {
        let (code, problem) = ask(&served, "PATCH", "/topics/t", json!({"config": wrong})).await;
        assert_eq!(code, wanted, "{problem}");
        let named = wrong.as_object().unwrap().keys().next().unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
    }
}

#[tokio::test]
async fn a_queues_rate_is_changed_and_nothing_else_of_the_queue() {
    let served = Served::running(Options::default());
    let queue = json!({"name": "q", "queue": {"max_length": 5, "consume_rate": 7}});
    let document = json!({"version": 1, "topics": [{"name": "t", "partitions": 1}], "queues": [queue]});
    assert_eq!(ask(&served, "POST", "/definitions", document).await.0, 200);
    for (change, shown) in [
        (json!({}), json!({"max_length": 5, "consume_rate": 7})),
        (json!({"consume_burst": 3}), json!({"max_length": 5, "consume_rate": 7, "consume_burst": 3})),
        (json!({"consume_rate": 9}), json!({"max_length": 5, "consume_rate": 9, "consume_burst": 3})),
        (json!({"consume_burst": null}), json!({"max_length": 5, "consume_rate": 9})),
        (json!({"consume_burst": 2}), json!({"max_length": 5, "consume_rate": 9, "consume_burst": 2})),
        (json!({"consume_rate": null}), json!({"max_length": 5})),
        (
            json!({"consume_rate": 4_294_967_295_u32}),
            json!({"max_length": 5, "consume_rate": 4_294_967_295_u32}),
        ),
    ] {
        let (code, topic) = ask(&served, "PATCH", "/topics/q", json!({"queue": change})).await;
        assert_eq!((code, &topic["queue"]), (200, &shown), "{topic}");
        assert_eq!(ask(&served, "GET", "/topics/q", Value::Null).await.1["queue"], shown);
        let (_, document) = ask(&served, "GET", "/definitions", Value::Null).await;
        assert_eq!(document["queues"][0]["queue"], shown);
    }
    for (name, change, wanted, says) in [
        ("q", json!({"consume_rate": 0}), 422, "a queue's consume_rate: expected a number from 1"),
        (
            "q",
            json!({"consume_rate": null, "consume_burst": 5}),
            422,
            "consume_burst: expected consume_rate with it",
        ),
        ("q", json!({"consume_rate": -1}), 400, "queue.consume_rate"),
        ("q", json!({"max_length": 6}), 400, "queue: max_length: it cannot be changed"),
        ("t", json!({"consume_rate": 5}), 422, "the topic is no queue"),
    ] {
        let (code, problem) =
            ask(&served, "PATCH", &format!("/topics/{name}"), json!({"queue": change})).await;
        assert_eq!(code, wanted, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    assert!(ask(&served, "GET", "/topics/t", Value::Null).await.1.get("queue").is_none());
}

#[tokio::test]
async fn what_cannot_be_changed_at_all_says_why_and_what_can_be_done() {
    let served = Served::running(Options::default());
    for (path, allow, says) in [
        ("/node", "GET,HEAD", "configuration"),
        ("/shards", "GET,HEAD", "configuration"),
        ("/connections", "GET,HEAD", "cannot be set"),
        ("/health", "GET,HEAD", "cannot be set"),
        ("/topics", "GET,HEAD,POST", "one by one"),
        ("/groups", "GET,HEAD", "reset"),
        ("/groups/g", "DELETE,GET,HEAD", "reset"),
        ("/groups/g/reset", "POST", "reset"),
        ("/definitions", "GET,HEAD,POST", "/topics/{name}"),
    ] {
        let answer = served.send("PATCH", &format!("/sabir/v1{path}"), "", "{}").await;
        let problem = content(&answer);
        assert_eq!((code(&answer), kind(&problem)), (405, "method-not-allowed"), "{path}: {answer}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{path}: {problem}");
        let head = answer.to_ascii_lowercase();
        let shown = head.lines().find_map(|line| line.strip_prefix("allow: ")).expect("it has the header");
        let mut methods: Vec<_> = shown.split(',').map(|m| m.trim().to_uppercase()).collect();
        methods.sort();
        assert_eq!(methods.join(","), allow, "{path}");
    }
}

#[tokio::test]
async fn a_change_can_be_tried_and_an_own_setting_taken_away() {
    let served = Served::running(Options::default());
    let tried = json!({"name": "t", "config": {"retention_ms": 5}, "dry_run": true});
    assert_eq!(ask(&served, "POST", "/topics", tried.clone()).await, (204, Value::Null));
    assert_eq!(ask(&served, "GET", "/topics/t", Value::Null).await.0, 404, "nothing was done");
    let (_, made) =
        ask(&served, "POST", "/topics", json!({"name": "t", "config": {"retention_ms": 5}})).await;
    assert_eq!(ask(&served, "POST", "/topics", tried).await.0, 409);
    let with = |more: Value| {
        let mut change = json!({"dry_run": true});
        change.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        change
    };
    for (change, code, says) in [
        (json!({"partitions": 2}), 204, ""),
        (json!({"unset": ["retention_ms"], "config": {"compression": "zstd"}}), 204, ""),
        (json!({"partitions": 0}), 422, "partitions"),
        (json!({"config": {"retention_ms": -1}}), 422, "retention_ms"),
        (json!({"unset": ["retention"]}), 400, "unset[0]: unknown setting `retention`"),
    ] {
        let (got, answer) = ask(&served, "PATCH", "/topics/t", with(change)).await;
        assert_eq!(got, code, "{answer}");
        assert!(answer["detail"].as_str().unwrap_or_default().contains(says), "{answer}");
        assert_eq!(ask(&served, "GET", "/topics/t", Value::Null).await.1, made, "nothing was done");
    }
    let change = json!({"unset": ["retention_ms"], "config": {"compression": "zstd"}});
    let (_, topic) = ask(&served, "PATCH", "/topics/t", change).await;
    let week = 7 * 24 * 3600 * 1000_i64;
    assert_eq!(
        (&topic["config"]["own"], &topic["config"]["retention_ms"]),
        (&json!(["compression"]), &json!(week))
    );
}

#[tokio::test]
async fn records_are_deleted_only_where_all_of_them_can_be() {
    let served = Served::running(Options::default());
    ask(&served, "POST", "/topics", json!({"name": "t", "partitions": 2})).await;
    let cut = |partition: i32, offset: i64| json!({"before": [{"partition": 0, "offset": 0}, {"partition": partition, "offset": offset}]});
    let (code, done) = ask(&served, "POST", "/topics/t/delete-records", cut(1, 0)).await;
    let starts = json!([{"partition": 0, "start": 0}, {"partition": 1, "start": 0}]);
    assert_eq!((code, &done), (200, &json!({"topic": "t", "partitions": starts})));
    for (partition, offset, wanted) in [(1, 1, 422), (1, -1, 422), (2, 0, 404), (-1, 0, 404)] {
        let (code, problem) = ask(&served, "POST", "/topics/t/delete-records", cut(partition, offset)).await;
        assert_eq!(code, wanted, "{problem}");
    }
    let (code, problem) = ask(&served, "POST", "/topics/none/delete-records", cut(0, 0)).await;
    assert_eq!((code, kind(&problem)), (404, "unknown-topic"));
}

#[tokio::test]
async fn a_topic_shows_its_subscriptions_and_they_can_be_removed() {
    let served = Served::running(Options::default());
    ask(&served, "POST", "/topics", json!({"name": "t", "partitions": 2})).await;
    let broker = served.broker.as_ref().unwrap();
    let topic = broker.catalog().topic("t").unwrap().clone();
    let spec = SubscriptionSpec::default();
    broker.subscribe(&Caller::OPERATOR, &topic, "a/b", &spec).await.unwrap();
    let (_, shown) = ask(&served, "GET", "/topics/t", Value::Null).await;
    let one = json!({"name": "a/b", "owner": null, "ready": 0, "in_flight": 0, "consumers": 0});
    assert_eq!(shown["subscriptions"], json!([one]));
    let path = "/topics/t/subscriptions/a%2Fb";
    assert_eq!(ask(&served, "DELETE", path, Value::Null).await.0, 204);
    let (code, problem) = ask(&served, "DELETE", path, Value::Null).await;
    assert_eq!((code, kind(&problem)), (404, "unknown-subscription"));
    let (code, problem) = ask(&served, "DELETE", "/topics/none/subscriptions/s", Value::Null).await;
    assert_eq!((code, kind(&problem)), (404, "unknown-topic"));
    let (_, shown) = ask(&served, "GET", "/topics/t", Value::Null).await;
    assert_eq!(shown["subscriptions"], json!([]));
}

#[tokio::test]
async fn positions_are_set_and_taken_away() {
    let served = Served::running(Options::default());
    ask(&served, "POST", "/topics", json!({"name": "t", "partitions": 2})).await;
    let change = |partition: i32, offset: Value| json!({"offsets": [{"topic": "t", "partition": partition, "offset": offset}]});
    let committed = async || {
        let (_, group) = ask(&served, "GET", "/groups/g", Value::Null).await;
        let all = group["offsets"].as_array().cloned().unwrap_or_default();
        all.iter()
            .map(|o| (o["partition"].as_i64().unwrap(), o["committed"].as_i64().unwrap()))
            .collect::<Vec<_>>()
    };
    let (code, problem) = ask(&served, "PATCH", "/groups/g/offsets", change(0, Value::Null)).await;
    assert_eq!((code, kind(&problem)), (404, "unknown-group"), "there is nothing to be taken away");
    for (partition, offset) in [(0, 7), (1, 8), (0, 9)] {
        assert_eq!(ask(&served, "PATCH", "/groups/g/offsets", change(partition, json!(offset))).await.0, 204);
    }
    assert_eq!(committed().await, [(0, 9), (1, 8)]);
    for (partition, offset, wanted) in [(2, json!(0), 404), (0, json!(-1), 422), (0, json!("x"), 400)] {
        let (code, problem) = ask(&served, "PATCH", "/groups/g/offsets", change(partition, offset)).await;
        assert_eq!(code, wanted, "{problem}");
    }
    let without = json!({"offsets": [{"topic": "t", "partition": 0}]});
    assert_eq!(ask(&served, "PATCH", "/groups/g/offsets", without).await.0, 400, "null must be said");
    assert_eq!(ask(&served, "PATCH", "/groups/g/offsets", change(0, Value::Null)).await.0, 204);
    assert_eq!(committed().await, [(1, 8)]);
}

#[tokio::test]
async fn many_topics_are_told_in_order_and_piece_by_piece() {
    let served = Served::running(Options::default());
    let broker = served.broker.as_ref().unwrap();
    let many =
        (0..2_500).rev().map(|i| NewTopic { name: format!("t{i:04}"), ..new_topic(TopicConfig::default()) });
    for made in broker.create_topics(&Caller::OPERATOR, many.collect()).await {
        made.unwrap();
    }
    let answer = served.get("/sabir/v1/definitions").await;
    assert!(answer.contains("transfer-encoding: chunked"), "it is not made whole first");
    let topics = content(&answer)["topics"].as_array().unwrap().clone();
    let names: Vec<_> = topics.iter().map(|topic| topic["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, (0..2_500).map(|i| format!("t{i:04}")).collect::<Vec<_>>());
}
