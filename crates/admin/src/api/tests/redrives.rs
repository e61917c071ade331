//! Redrives, as the API has them. That messages go back is tested where there are any.

use std::time::{Duration, Instant};

use sabir_broker::{
    AppendAcks, AppendTarget, Broker, BrokerOptions, Caller, Converter, DeathReason, NewTopic, Publish,
    PublishTargets, RedrivenRecord,
};
use sabir_model::batch::{BatchBuilder, Compression, RecordView};
use sabir_model::{Facts, Message, QueueConfig, TopicConfig};
use serde_json::{Value, json};

use super::{ask, kind, new_topic};
use crate::Options;
use crate::testing::{Served, broker_options, open};

/// A front end of which every message was given up by the queue `work`.
const BURIER: &str = "burier";

fn redrive(record: &RecordView<'_>, _: &str, each: &mut dyn FnMut(&RedrivenRecord<'_>)) {
    let (origin, reason, facts) = ("work", DeathReason::Rejected, Facts { size: 1, ..Facts::default() });
    each(&RedrivenRecord { origin, reason, facts, key: record.key, value: record.value, headers: &[] });
}

fn queue(name: &str) -> NewTopic {
    NewTopic { name: name.into(), ..new_topic(TopicConfig::of_queue(QueueConfig::default())) }
}

/// Publishes so many of its messages to the queue `dead`.
async fn bury(broker: &Broker, messages: usize) {
    let caller = Caller::front_end(BURIER);
    let dead = broker.catalog().topic("dead").unwrap().clone();
    let origin = broker.number_of(&caller).await.unwrap();
    let target = AppendTarget::new(&caller, &dead, 0, AppendAcks::InSync, origin).unwrap();
    let targets = PublishTargets::new(vec![target]).unwrap();
    let mut batch = BatchBuilder::new(Compression::None);
    (0..messages).for_each(|_| batch.push(broker.now_ms(), None, Some(b"m"), &[]));
    let batch = batch.build_checked(&targets.rules(), broker.wall_ms()).unwrap();
    let outcomes = broker.publish(&caller, &Publish::new(targets, [batch])).unwrap();
    broker.flush();
    outcomes.confirmed().await.unwrap();
}

#[tokio::test]
async fn a_redrive_is_begun_and_shown_and_what_makes_no_sense_is_refused() {
    let served = Served::running(Options::default());
    let broker = served.broker.as_ref().unwrap();
    broker.create_topics(&Caller::OPERATOR, vec![queue("dead")]).await.remove(0).unwrap();
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
    for (method, path, body, code, wanted) in [
        ("POST", "/topics/none/redrive", json!({}), 404, "unknown-topic"),
        ("POST", "/topics/plain/redrive", json!({}), 422, "invalid"),
        ("POST", "/topics/dead/redrive", json!({"most": 0}), 422, "invalid"),
        ("POST", "/topics/dead/redrive", json!({"reason": "none"}), 400, "bad-request"),
        ("POST", "/topics/dead/redrive", json!({"from": "orders"}), 400, "bad-request"),
        ("GET", "/redrives/3", Value::Null, 404, "unknown-redrive"),
        ("DELETE", "/redrives/2", Value::Null, 409, "redrive-ended"),
        ("DELETE", "/redrives/3", Value::Null, 404, "unknown-redrive"),
        ("DELETE", "/redrives/x", Value::Null, 400, "bad-request"),
    ] {
        let (got, problem) = ask(&served, method, path, body).await;
        assert_eq!((got, kind(&problem)), (code, wanted), "{method} {path}: {problem}");
    }
}

/// The first redrive, once it is as it is waited for.
async fn shown(served: &Served, is_so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let (_, redrive) = ask(served, "GET", "/redrives/1", Value::Null).await;
        if is_so(&redrive) {
            return redrive;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{redrive}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_redrive_that_is_running_is_cancelled_once() {
    let data = tempfile::tempdir().unwrap();
    let converter = Converter {
        front_end: BURIER,
        reads_unnamed: false,
        to_message: |_| Message::default(),
        address: None,
        delay_queue: None,
        dead_letter: None,
        redrive: Some(redrive),
    };
    let options = BrokerOptions {
        front_ends: vec![BURIER],
        converters: vec![converter],
        ..broker_options(data.path())
    };
    let served = Served::over(open(options), Options::default());
    let broker = served.broker.as_ref().unwrap();
    for made in broker.create_topics(&Caller::OPERATOR, vec![queue("dead"), queue("work")]).await {
        made.unwrap();
    }
    bury(broker, 1000).await;
    let begin = async || ask(&served, "POST", "/topics/dead/redrive", json!({"per_second": 1})).await;
    let (code, redrive) = begin().await;
    assert_eq!((code, &redrive["state"], &redrive["id"]), (200, &json!("running"), &json!("1")));
    let (code, problem) = begin().await;
    assert_eq!((code, kind(&problem)), (409, "redrive-running"));
    let moves = shown(&served, |redrive| redrive["moved"] != 0).await;
    assert_eq!(moves["state"], "running");
    assert_eq!(ask(&served, "DELETE", "/redrives/1", Value::Null).await.0, 204);
    let ended = shown(&served, |redrive| redrive["state"] != "running").await;
    assert_eq!(ended["state"], "cancelled");
    assert!(ended["moved"].as_u64().unwrap() < 1000, "{ended}");
    assert_eq!(ended["origins"][0]["queue"], "work");
    let (code, problem) = ask(&served, "DELETE", "/redrives/1", Value::Null).await;
    assert_eq!((code, kind(&problem)), (409, "redrive-ended"));
    assert!(problem["detail"].as_str().unwrap().contains("cancelled"), "{problem}");
}
