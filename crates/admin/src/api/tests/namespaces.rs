//! Topics of other namespaces than the default one.

use super::*;

/// A broker with `t` in two namespaces.
async fn served() -> Served {
    let served = Served::running(Options::default());
    for (path, partitions) in [("/topics", 1), ("/topics?namespace=other", 2)] {
        let made = ask(&served, "POST", path, json!({"name": "t", "partitions": partitions})).await;
        assert_eq!((made.0, &made.1["partitions"].as_array().unwrap().len()), (201, &partitions));
    }
    served
}

#[tokio::test]
async fn topics_of_one_name_are_told_apart_by_their_namespaces() {
    let served = served().await;
    let mut after = String::new();
    for namespace in ["/", "other"] {
        let (_, list) = ask(&served, "GET", &format!("/topics?limit=1{after}"), Value::Null).await;
        let found = &list["topics"][0];
        assert_eq!((&found["name"], &found["namespace"]), (&json!("t"), &json!(namespace)));
        after =
            list["next"].as_str().map_or_else(String::new, |n| format!("&after={}", n.replace('\n', "%0A")));
    }
    assert_eq!(after, "", "the list ends");
    for (query, found) in [("?namespace=other", 1), ("?namespace=/", 1), ("?namespace=none", 0), ("", 2)] {
        let (_, list) = ask(&served, "GET", &format!("/topics{query}"), Value::Null).await;
        assert_eq!(list["topics"].as_array().unwrap().len(), found, "{query}");
    }
    for (query, partitions) in [("", 1), ("?namespace=/", 1), ("?namespace=other", 2)] {
        let (code, topic) = ask(&served, "GET", &format!("/topics/t{query}"), Value::Null).await;
        assert_eq!((code, topic["partitions"].as_array().unwrap().len()), (200, partitions), "{query}");
    }
    for (query, code) in [("?namespace=none", 404), ("?namespace=", 400)] {
        assert_eq!(ask(&served, "GET", &format!("/topics/t{query}"), Value::Null).await.0, code, "{query}");
    }
    let text = served.get("/metrics").await;
    for labels in [r#"topic="t"} 1"#, r#"topic="t",namespace="other"} 2"#] {
        assert!(text.contains(&format!("sabir_topic_partitions{{{labels}")), "{labels}: {text}");
    }
}

#[tokio::test]
async fn a_topic_is_changed_emptied_and_deleted_in_its_namespace() {
    let served = served().await;
    let change = json!({"partitions": 3, "config": {"retention_ms": 5}});
    let (code, topic) = ask(&served, "PATCH", "/topics/t?namespace=other", change).await;
    assert_eq!((code, &topic["config"]["retention_ms"]), (200, &json!(5)));
    // The partition that only this one has.
    let cut = json!({"before": [{"partition": 2, "offset": 0}]});
    for (query, code) in [("?namespace=other", 200), ("", 404)] {
        let path = format!("/topics/t/delete-records{query}");
        assert_eq!(ask(&served, "POST", &path, cut.clone()).await.0, code, "{query}");
    }
    let (_, document) = ask(&served, "GET", "/definitions?namespace=other", Value::Null).await;
    assert_eq!(
        (&document["topics"][0]["partitions"], document["topics"].as_array().unwrap().len()),
        (&json!(3), 1)
    );
    let (_, plain) = ask(&served, "GET", "/definitions", Value::Null).await;
    assert_eq!(plain["topics"][0]["partitions"], 1);
    let (_, done) = ask(&served, "POST", "/definitions?namespace=third", document).await;
    assert_eq!(done["topics"][0]["outcome"], "created");
    assert_eq!(ask(&served, "GET", "/topics/t?namespace=third", Value::Null).await.0, 200);
    assert_eq!(ask(&served, "DELETE", "/topics/t?namespace=other", Value::Null).await.0, 204);
    assert_eq!(ask(&served, "GET", "/topics/t?namespace=other", Value::Null).await.0, 404);
    assert_eq!(
        ask(&served, "GET", "/topics/t", Value::Null).await.1["config"]["retention_ms"],
        plain_retention()
    );
}

/// What the node's default is.
fn plain_retention() -> Value {
    TopicConfig::default().retention_ms.into()
}

#[tokio::test]
async fn a_group_s_positions_are_in_topics_of_its_namespace() {
    let served = served().await;
    let set = json!({"offsets": [{"topic": "t", "partition": 1, "offset": 4}]});
    assert_eq!(ask(&served, "PATCH", "/groups/g/offsets", set.clone()).await.0, 404);
    assert_eq!(ask(&served, "PATCH", "/groups/g/offsets?namespace=other", set).await.0, 204);
    let reset = json!({"to": "earliest", "topics": ["t"]});
    let (code, done) = ask(&served, "POST", "/groups/g/reset?namespace=other", reset).await;
    assert_eq!((code, done["offsets"].as_array().unwrap().len()), (200, 2));
    for (query, found) in [("?namespace=other", 1), ("?namespace=/", 0)] {
        let (_, list) = ask(&served, "GET", &format!("/groups{query}"), Value::Null).await;
        assert_eq!(list["groups"].as_array().unwrap().len(), found, "{query}");
    }
}

#[tokio::test]
async fn a_list_that_goes_by_no_namespace_or_protocol_says_so() {
    let served = Served::running(Options::default());
    for path in ["/connections?namespace=/", "/connections?protocol=x", "/topics?protocol=x"] {
        assert_eq!(ask(&served, "GET", path, Value::Null).await.0, 400, "{path}");
    }
}
