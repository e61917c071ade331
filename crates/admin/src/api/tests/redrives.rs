//! Redrives, as the API has them. That messages go back is tested where there are any.

use sabir_broker::{Caller, NewTopic};
use sabir_model::{QueueConfig, TopicConfig};
use serde_json::{Value, json};

use super::{ask, kind, new_topic};
use crate::Options;
use crate::testing::Served;

#[tokio::test]
async fn a_redrive_is_begun_shown_and_cancelled() {
    let served = Served::running(Options::default());
    let queue = NewTopic { name: "dead".into(), ..new_topic(TopicConfig::of_queue(QueueConfig::default())) };
    let broker = served.broker.as_ref().unwrap();
    broker.create_topics(&Caller::OPERATOR, vec![queue]).await.remove(0).unwrap();
    ask(&served, "POST", "/topics", json!({"name": "plain"})).await;
    let wanted =
        json!({"origin": "orders", "reason": "length", "most": 5, "per_second": 100, "dry_run": true});
    let (code, redrive) = ask(&served, "POST", "/topics/dead/redrive", wanted).await;
    assert_eq!((code, &redrive["state"], &redrive["id"]), (200, &json!("done"), &json!("1")));
    assert_eq!((&redrive["reason"], &redrive["most"]), (&json!("length"), &json!(5)));
    let (code, _) = ask(&served, "POST", "/topics/dead/redrive", json!({})).await;
    assert_eq!(code, 200);
    let (_, all) = ask(&served, "GET", "/redrives", Value::Null).await;
    assert_eq!(all["redrives"][0], redrive);
    assert_eq!(all["redrives"][1]["id"], "2");
    assert_eq!(ask(&served, "GET", "/redrives/1", Value::Null).await, (200, redrive));
    assert_eq!(ask(&served, "DELETE", "/redrives/2", Value::Null).await.0, 204);
    for (method, path, body, code, wanted) in [
        ("POST", "/topics/none/redrive", json!({}), 404, "unknown-topic"),
        ("POST", "/topics/plain/redrive", json!({}), 422, "invalid"),
        ("POST", "/topics/dead/redrive", json!({"most": 0}), 422, "invalid"),
        ("POST", "/topics/dead/redrive", json!({"reason": "none"}), 400, "bad-request"),
        ("POST", "/topics/dead/redrive", json!({"from": "orders"}), 400, "bad-request"),
        ("GET", "/redrives/3", Value::Null, 404, "unknown-redrive"),
        ("DELETE", "/redrives/x", Value::Null, 400, "bad-request"),
    ] {
        let (got, problem) = ask(&served, method, path, body).await;
        assert_eq!((got, kind(&problem)), (code, wanted), "{method} {path}: {problem}");
    }
}
