//! Definitions: all topics as one document.

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
    let both = |outcome| json!([{"topic": "a", "outcome": outcome}, {"topic": "b/ö", "outcome": outcome}]);
    let (code, done) = ask(&two, "POST", "/definitions?dry_run=true", document.clone()).await;
    assert_eq!((code, &done), (200, &json!({"dry_run": true, "topics": both("created")})));
    assert_eq!(ask(&two, "GET", "/topics", Value::Null).await.1["topics"], json!([]), "nothing was done");
    for outcome in ["created", "exists"] {
        let (code, done) = ask(&two, "POST", "/definitions", document.clone()).await;
        assert_eq!((code, &done), (200, &json!({"dry_run": false, "topics": both(outcome)})));
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
        (json!({"name": "q", "partitions": 1, "kind": "queue"}), 422, "invalid", "declares"),
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
            r#"{"version": 2, "exchanges": [], "topics": []}"#,
            "version: this broker takes definitions of version 1, not 2",
        ),
        (r#"{"topics": []}"#, "missing field `version`"),
        (r#"{"version": 1}"#, "missing field `topics`"),
        (r#"{"version": 1, "topics": [], "queues": []}"#, "unknown field `queues`"),
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
