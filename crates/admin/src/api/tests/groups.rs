//! Consumer groups.

use super::*;

#[tokio::test]
async fn groups_are_shown_reset_and_deleted() {
    let served = Served::running(Options::default());
    ask(&served, "POST", "/topics", json!({"name": "t"})).await;
    commit(&served, "g", "t", 0).await;
    commit(&served, "h", "t", 0).await;
    let (_, list) = ask(&served, "GET", "/groups?limit=1", Value::Null).await;
    assert_eq!((&list["groups"][0]["group"], &list["next"]), (&json!("g"), &json!("g")));
    let (_, list) = ask(&served, "GET", "/groups?after=g", Value::Null).await;
    assert_eq!((&list["groups"][0]["group"], &list["next"]), (&json!("h"), &Value::Null));
    let (code, group) = ask(&served, "GET", "/groups/g", Value::Null).await;
    assert_eq!((code, &group["state"], &group["lag"]), (200, &json!("Empty"), &json!(0)));
    assert_eq!((&group["offsets"][0]["topic"], &group["offsets"][0]["metadata"]), (&json!("t"), &json!("m")));

    commit(&served, "g", "t", 7).await;
    for (to, dry_run, after) in [
        (json!("latest"), true, 0),
        (json!({"offset": 5}), true, 0),
        (json!({"time_ms": 1}), true, 0),
        (json!("earliest"), false, 0),
    ] {
        let wanted = json!({"to": to, "dry_run": dry_run});
        let (code, done) = ask(&served, "POST", "/groups/g/reset", wanted).await;
        assert_eq!(code, 200, "{done}");
        let change = json!([{"topic": "t", "partition": 0, "before": 7, "after": after}]);
        assert_eq!((&done["dry_run"], &done["offsets"]), (&json!(dry_run), &change));
    }
    let (_, group) = ask(&served, "GET", "/groups/g", Value::Null).await;
    assert_eq!(group["offsets"][0]["committed"], 0);
    // A group that nobody has heard of may be told where to begin.
    let (code, done) =
        ask(&served, "POST", "/groups/new/reset", json!({"to": "latest", "topics": ["t"]})).await;
    assert_eq!((code, &done["offsets"][0]["before"]), (200, &Value::Null));
    assert_eq!(ask(&served, "DELETE", "/groups/new", Value::Null).await.0, 204);
    assert_eq!(ask(&served, "GET", "/groups/new", Value::Null).await.0, 404);
}

#[tokio::test]
async fn groups_of_one_name_are_told_apart_by_whose_they_are() {
    let data = tempfile::tempdir().unwrap();
    let unnamed_groups = Some("one");
    let options =
        BrokerOptions { front_ends: vec!["one", "two"], unnamed_groups, ..broker_options(data.path()) };
    let served = Served::over(open(options), Options::default());
    ask(&served, "POST", "/topics", json!({"name": "t"})).await;
    let other = Caller::OPERATOR.about("two").within(Namespace::named("other").unwrap());
    for (offset, caller) in (1..).zip([Caller::OPERATOR, Caller::OPERATOR.about("two"), other]) {
        commit_of(&served, &caller, "g", "t", offset).await;
    }
    let owners = [("one", "/"), ("two", "/"), ("two", "other")]
        .map(|(protocol, namespace)| json!({"protocol": protocol, "namespace": namespace}));
    let mut after = String::new();
    for owner in &owners {
        let (_, list) = ask(&served, "GET", &format!("/groups?limit=1{after}"), Value::Null).await;
        assert_eq!((&list["groups"][0]["group"], &list["groups"][0]["owner"]), (&json!("g"), owner));
        after = list["next"]
            .as_str()
            .map_or_else(String::new, |next| format!("&after={}", next.replace('\n', "%0A")));
    }
    assert_eq!(after, "", "the list ends");
    let queries = ["", "?protocol=two", "?protocol=two&namespace=other"];
    for ((offset, query), owner) in (1..).zip(queries).zip(&owners) {
        let (code, group) = ask(&served, "GET", &format!("/groups/g{query}"), Value::Null).await;
        assert_eq!((code, &group["owner"], &group["offsets"][0]["committed"]), (200, owner, &json!(offset)));
    }
    for (query, found) in [("?protocol=two", 2), ("?protocol=two&namespace=other", 1), ("?protocol=one", 1)] {
        let (_, list) = ask(&served, "GET", &format!("/groups{query}"), Value::Null).await;
        assert_eq!(list["groups"].as_array().unwrap().len(), found, "{query}");
    }
    let text = served.get("/metrics").await;
    for labels in [r#"group="g",topic="t""#, r#"group="g",topic="t",protocol="two",namespace="other""#] {
        assert!(text.contains(&format!("sabir_group_lag{{{labels}}} 0")), "{labels}: {text}");
    }
    for (query, code) in [("?protocol=three", 400), ("?namespace=", 400), ("?namespace=none", 404)] {
        assert_eq!(ask(&served, "GET", &format!("/groups/g{query}"), Value::Null).await.0, code, "{query}");
    }
    let reset = json!({"to": "earliest"});
    assert_eq!(ask(&served, "POST", "/groups/g/reset?protocol=two", reset).await.0, 200);
    assert_eq!(ask(&served, "DELETE", "/groups/g?protocol=two", Value::Null).await.0, 204);
    assert_eq!(ask(&served, "GET", "/groups/g?protocol=two", Value::Null).await.0, 404);
    assert_eq!(ask(&served, "GET", "/groups/g", Value::Null).await.1["offsets"][0]["committed"], 1);
}

#[tokio::test]
async fn a_topic_that_is_named_many_times_is_reset_once() {
    let served = Served::running(Options::default());
    for name in ["a", "t"] {
        ask(&served, "POST", "/topics", json!({"name": name, "partitions": 3})).await;
    }
    let topics = ["t", "a", "t", "t"].repeat(1000);
    let wanted = json!({"to": "earliest", "topics": topics, "dry_run": true});
    let (code, done) = ask(&served, "POST", "/groups/new/reset", wanted).await;
    assert_eq!(code, 200, "{done}");
    let offsets = done["offsets"].as_array().unwrap();
    let places: Vec<_> = offsets.iter().map(|o| (o["topic"].as_str(), o["partition"].as_i64())).collect();
    let expected: Vec<_> =
        ["a", "t"].into_iter().flat_map(|t| (0..3).map(move |p| (Some(t), Some(p)))).collect();
    assert_eq!(places, expected);
}

#[tokio::test]
async fn a_reset_of_more_partitions_than_an_answer_tells_of_is_refused() {
    let served = Served::running(Options::default());
    // 16 MiB are 9,000 partitions of topics with such names.
    let name = |i: usize| format!("{i}{}", "t".repeat(240));
    for i in 0..3 {
        let (code, made) =
            ask(&served, "POST", "/topics", json!({"name": name(i), "partitions": 4_000})).await;
        assert_eq!(code, 201, "{made}");
    }
    for (topics, expected) in [(2, 200), (3, 422)] {
        let names: Vec<_> = (0..topics).map(name).collect();
        let wanted = json!({"to": "latest", "topics": names, "dry_run": true});
        let (code, done) = ask(&served, "POST", "/groups/new/reset", wanted).await;
        assert_eq!(code, expected, "{topics} topics");
        if code == 422 {
            assert!(done["detail"].as_str().unwrap().contains("name fewer topics at a time"), "{done}");
        }
    }
}

#[tokio::test]
async fn a_partition_that_is_named_twice_is_refused() {
    let served = Served::running(Options::default());
    ask(&served, "POST", "/topics", json!({"name": "t"})).await;
    let position = |offset: Value| json!({"topic": "t", "partition": 0, "offset": offset});
    let wanted = json!({"offsets": [position(json!(0)), position(Value::Null)]});
    let (code, told) = ask(&served, "PATCH", "/groups/g/offsets", wanted).await;
    assert_eq!((code, &told["detail"]), (400, &json!("topic \"t\", partition 0 is named twice")));
    let cut = json!({"partition": 0, "offset": 0});
    let (code, told) = ask(&served, "POST", "/topics/t/delete-records", json!({"before": [cut, cut]})).await;
    assert_eq!((code, &told["detail"]), (400, &json!("topic \"t\", partition 0 is named twice")));
}
