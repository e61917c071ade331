//! Fetch: what it waits for, what it gives, and its sessions.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use sabir_base::testing::{keep_log, logged};
use sabir_broker::BrokerOptions;
use sabir_kafka::wire::messages::api_versions::ApiVersionsRequest;
use sabir_kafka::wire::messages::delete_topics::DeleteTopicsRequest;
use sabir_kafka::wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic, PartitionData,
};
use sabir_kafka::wire::messages::heartbeat::HeartbeatRequest;
use sabir_kafka::wire::{ErrorCode, Uuid};
use sabir_model::ShardId;
use sabir_model::batch::split;

use crate::rig::{PATIENCE, Raw, Rig, Setup, assert_code, batch, produce_request};

fn partition(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition { partition, fetch_offset, partition_max_bytes: 1 << 20, ..Default::default() }
}

/// A fetch by name without a session, to be sent in version 12.
fn fetch(partitions: Vec<FetchPartition>) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        session_epoch: -1,
        topics: vec![FetchTopic { topic: "t".into(), partitions, ..Default::default() }],
        ..Default::default()
    }
}

fn only(response: &FetchResponse) -> &PartitionData {
    assert_eq!(response.error_code, 0);
    &response.responses[0].partitions[0]
}

/// Offsets of the records' batches: (first, last).
fn batches(data: &PartitionData) -> Vec<(i64, i64)> {
    let bytes = data.records.as_ref().unwrap().to_bytes();
    let whole = split(&bytes).map(|batch| batch.unwrap().0);
    whole.map(|header| (header.base_offset.0, header.last_offset().0)).collect()
}

#[tokio::test]
async fn a_fetch_from_the_middle_of_a_batch_gets_all_of_it() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    raw.put("t", 0, &["a", "b", "c", "d"]).await;
    raw.put("t", 0, &["e", "f"]).await;
    for (from, expected) in
        [(0, &[(0, 3), (4, 5)][..]), (2, &[(0, 3), (4, 5)]), (3, &[(0, 3), (4, 5)]), (5, &[(4, 5)])]
    {
        let response = raw.call(12, &fetch(vec![partition(0, from)])).await;
        assert_eq!(batches(only(&response)), expected, "{from}");
    }
    let end = raw.call(12, &fetch(vec![partition(0, 6)])).await;
    assert_eq!((only(&end).error_code, batches(only(&end)).len()), (0, 0));
}

/// Any negative leader epoch is none, in a fetch alone.
#[tokio::test]
async fn a_fetch_that_knows_no_leader_epoch_is_served() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    raw.put("t", 0, &["a"]).await;
    for current_leader_epoch in [-1, -2, i32::MIN] {
        let partition = FetchPartition { current_leader_epoch, ..partition(0, 0) };
        let response = raw.call(12, &fetch(vec![partition])).await;
        assert_eq!(batches(only(&response)), [(0, 0)], "{current_leader_epoch}");
    }
}

#[tokio::test]
async fn who_read_in_an_epoch_that_is_yet_to_come_is_told_at_once_that_its_offset_is_none() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 2).await;
    raw.put("t", 1, &["a"]).await;
    for index in 0..2 {
        let mut request = fetch(vec![FetchPartition { last_fetched_epoch: 500, ..partition(index, 0) }]);
        request.max_wait_ms = 600_000;
        assert_code(only(&raw.call(12, &request).await).error_code, ErrorCode::OffsetOutOfRange);
    }
}

#[tokio::test]
async fn who_has_more_of_an_epoch_than_there_is_of_it_learns_where_it_ends_and_how_far_the_log_goes() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    raw.put("t", 0, &["a", "b", "c", "d", "e"]).await;
    let ahead = FetchPartition { last_fetched_epoch: 1, ..partition(0, 99) };
    let response = raw.call(12, &fetch(vec![ahead])).await;
    let told = only(&response);
    assert_eq!((told.error_code, told.diverging_epoch.epoch, told.diverging_epoch.end_offset), (0, 1, 5));
    assert_eq!((told.high_watermark, told.last_stable_offset, told.log_start_offset), (5, 5, 0));
    assert_eq!(batches(told), []);
}

#[tokio::test]
async fn offsets_outside_are_refused() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 2).await;
    raw.put("t", 0, &["a"]).await;
    let began = Instant::now();
    for from in [-1, 2, i64::MAX] {
        let mut request = fetch(vec![partition(0, from)]);
        request.max_wait_ms = 60_000;
        let response = raw.call(12, &request).await;
        assert_code(only(&response).error_code, ErrorCode::OffsetOutOfRange);
        // Beside one that has nothing yet.
        request.topics[0].partitions.push(partition(1, 0));
        let partitions = raw.call(12, &request).await.responses.remove(0).partitions;
        let codes: Vec<_> = partitions.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [ErrorCode::OffsetOutOfRange.code(), 0]);
    }
    assert!(
        began.elapsed() < PATIENCE,
        "an error of the log ends the wait for others: {:?}",
        began.elapsed()
    );
    let unknown = raw.call(12, &fetch(vec![partition(9, 0)])).await;
    assert_code(only(&unknown).error_code, ErrorCode::UnknownTopicOrPartition);
    let mut follower = fetch(vec![partition(0, 0)]);
    follower.replica_id = 3;
    assert_code(only(&raw.call(12, &follower).await).error_code, ErrorCode::NotLeaderOrFollower);
}

#[tokio::test]
async fn sizes_are_kept_but_for_the_first_batch() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 2).await;
    let large = "x".repeat(10_000);
    for p in 0..2 {
        for _ in 0..5 {
            raw.put("t", p, &[&large]).await;
        }
    }
    let sizes = |response: &FetchResponse| -> Vec<usize> {
        let partitions = &response.responses[0].partitions;
        partitions.iter().map(|p| batches(p).len()).collect()
    };
    let limited = |max_bytes, partition_max_bytes| {
        let mut request = fetch(vec![partition(0, 0), partition(1, 0)]);
        request.max_bytes = max_bytes;
        request.topics[0].partitions.iter_mut().for_each(|p| p.partition_max_bytes = partition_max_bytes);
        request
    };
    for (max_bytes, partition_max, expected) in [
        (i32::MAX, i32::MAX, [5, 5]),
        (1, 1, [1, 0]),
        (i32::MAX, 25_000, [2, 2]),
        (25_000, i32::MAX, [2, 0]),
        (65_000, i32::MAX, [5, 1]),
        (0, 0, [1, 0]),
        (-1, -1, [1, 0]),
    ] {
        let response = raw.call(12, &limited(max_bytes, partition_max)).await;
        assert_eq!(sizes(&response), expected, "{max_bytes} {partition_max}");
    }
}

#[tokio::test]
async fn a_fetch_waits_for_records_and_no_longer_than_it_wants() {
    let rig = Rig::start();
    let (mut reader, mut writer) = (rig.raw().await, rig.raw().await);
    writer.topic("t", 1).await;
    let mut request = fetch(vec![partition(0, 0)]);
    request.max_wait_ms = 150;
    let began = Instant::now();
    let empty = reader.call(12, &request).await;
    assert!(batches(only(&empty)).is_empty());
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());

    request.max_wait_ms = 60_000;
    let began = Instant::now();
    let correlation = reader.send(12, &request).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    writer.put("t", 0, &["a"]).await;
    let woken = reader.receive::<FetchRequest>(12, correlation).await;
    assert_eq!(batches(only(&woken)), [(0, 0)]);
    assert!(began.elapsed() < PATIENCE);

    // Less than wanted is not enough until the time is up.
    request.min_bytes = 1_000_000;
    request.max_wait_ms = 300;
    let began = Instant::now();
    let few = reader.call(12, &request).await;
    assert_eq!(batches(only(&few)), [(0, 0)]);
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_there_already_counts_for_what_is_waited_for() {
    let rig = Rig::start();
    let (mut reader, mut writer) = (rig.raw().await, rig.raw().await);
    writer.topic("t", 1).await;
    let large = "x".repeat(10_000);
    writer.put("t", 0, &[&large]).await;
    let mut request = fetch(vec![partition(0, 0)]);
    (request.min_bytes, request.max_wait_ms) = (15_000, 60_000);
    let correlation = reader.send(12, &request).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    writer.put("t", 0, &[&large]).await;
    let woken = reader.receive::<FetchRequest>(12, correlation).await;
    assert_eq!(batches(only(&woken)), [(0, 0), (1, 1)]);
}

#[tokio::test]
async fn who_takes_no_bytes_waits_for_the_first_batch_all_the_same() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let mut request = fetch(vec![partition(0, 0)]);
    (request.max_bytes, request.max_wait_ms) = (0, 150);
    let began = Instant::now();
    assert!(batches(only(&raw.call(12, &request).await)).is_empty());
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_fetch_that_waits_holds_up_nobody_else() {
    let rig = Rig::with(Setup {
        net: sabir_net::NetOptions { io_threads: 1, ..Default::default() },
        ..Setup::default()
    });
    let mut other = rig.raw().await;
    other.topic("t", 1).await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut raw = rig.raw().await;
        let mut request = fetch(vec![partition(0, 0)]);
        request.max_wait_ms = 60_000;
        let fetching = raw.send(12, &request).await;
        // A later request on the same connection has its turn when the fetch is answered.
        let behind = raw.send(0, &ApiVersionsRequest::default()).await;
        waiting.push((raw, fetching, behind));
    }
    let began = Instant::now();
    for _ in 0..100 {
        other.call(0, &ApiVersionsRequest::default()).await;
    }
    // All of them wait for as long as this runs.
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    other.put("t", 0, &["a"]).await;
    for (mut raw, fetching, behind) in waiting {
        let response = raw.receive::<FetchRequest>(12, fetching).await;
        assert_eq!(batches(only(&response)), [(0, 0)]);
        raw.receive::<ApiVersionsRequest>(0, behind).await;
    }
}

#[tokio::test]
async fn produce_requests_behind_a_fetch_wait_their_turn() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let mut request = fetch(vec![partition(0, 0)]);
    request.max_wait_ms = 200;
    let fetching = raw.send(12, &request).await;
    let producing = raw.send(12, &produce_request(-1, "t", 0, batch(&["a"]))).await;
    let again = raw.send(12, &fetch(vec![partition(0, 0)])).await;
    assert!(batches(only(&raw.receive::<FetchRequest>(12, fetching).await)).is_empty());
    raw.receive::<sabir_kafka::wire::messages::produce::ProduceRequest>(12, producing).await;
    assert_eq!(batches(only(&raw.receive::<FetchRequest>(12, again).await)), [(0, 0)]);
}

#[tokio::test]
async fn a_session_is_told_only_news() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 3).await;
    raw.put("t", 1, &["a"]).await;
    let mut request = fetch(vec![partition(0, 0), partition(1, 0), partition(2, 0)]);
    request.session_epoch = 0;
    let first = raw.call(12, &request).await;
    let id = first.session_id;
    assert!(id > 0);
    assert_eq!(first.responses[0].partitions.len(), 3);

    let go_on =
        |session_epoch, topics| FetchRequest { session_id: id, session_epoch, topics, ..fetch(vec![]) };
    let moved =
        vec![FetchTopic { topic: "t".into(), partitions: vec![partition(1, 1)], ..Default::default() }];
    let quiet = raw.call(12, &go_on(1, moved)).await;
    assert_eq!((quiet.error_code, quiet.responses.len(), quiet.session_id), (0, 0, id));

    raw.put("t", 2, &["b"]).await;
    let news = raw.call(12, &go_on(2, vec![])).await;
    assert_eq!(news.responses[0].partitions.len(), 1);
    assert_eq!((only(&news).partition_index, batches(only(&news))), (2, vec![(0, 0)]));

    let mut forget = go_on(3, vec![]);
    forget.forgotten_topics_data =
        vec![ForgottenTopic { topic: "t".into(), partitions: vec![2], ..Default::default() }];
    assert_eq!(raw.call(12, &forget).await.responses.len(), 0);

    let late = raw.call(12, &go_on(3, vec![])).await;
    assert_code(late.error_code, ErrorCode::InvalidFetchSessionEpoch);
    let mut unknown = go_on(4, vec![]);
    unknown.session_id = id + 1000;
    assert_code(raw.call(12, &unknown).await.error_code, ErrorCode::FetchSessionIdNotFound);
}

#[tokio::test]
async fn committed_reads_list_no_aborted_transactions_and_others_none() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    raw.put("t", 0, &["a"]).await;
    let mut request = fetch(vec![partition(0, 0)]);
    let uncommitted = raw.call(12, &request).await;
    assert_eq!(only(&uncommitted).aborted_transactions, None);
    request.isolation_level = 1;
    let committed = raw.call(12, &request).await;
    assert_eq!(only(&committed).aborted_transactions, Some(vec![]));
    assert_eq!((only(&committed).last_stable_offset, batches(only(&committed)).len()), (1, 1));
}

#[tokio::test]
async fn names_that_no_topic_can_have_leave_nothing_behind() {
    let rig = Rig::start();
    for _ in 0..30 {
        let mut raw = rig.raw().await;
        let name = |i: usize| format!("{i:05}{}", "x".repeat(30_000));
        let wanted = FetchPartition { partition: 0, partition_max_bytes: 1000, ..Default::default() };
        let topic =
            |i| FetchTopic { topic: name(i).into(), partitions: vec![wanted.clone()], ..Default::default() };
        let topics = (0..100).map(topic).collect();
        let response = raw
            .call(12, &FetchRequest { max_bytes: 1000, session_epoch: 0, topics, ..Default::default() })
            .await;
        assert_eq!((response.session_id, response.responses.len()), (0, 100));
        assert!(response.responses.iter().all(|t| t.partitions[0].error_code == 3));
    }
    assert_eq!(rig.metric("sabir_kafka_fetch_session_bytes"), 0);
    assert_eq!(rig.metric("sabir_kafka_refused_fetch_sessions_total"), 30);
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let wanted = FetchPartition { partition: 0, partition_max_bytes: 1000, ..Default::default() };
    let topic = FetchTopic { topic: "t".into(), partitions: vec![wanted], ..Default::default() };
    raw.call(
        12,
        &FetchRequest { max_bytes: 1000, session_epoch: 0, topics: vec![topic], ..Default::default() },
    )
    .await;
    assert_eq!(rig.metric("sabir_kafka_fetch_sessions"), 1);
    assert_eq!(rig.metric("sabir_kafka_fetch_session_partitions"), 1);
    assert!((500..2000).contains(&rig.metric("sabir_kafka_fetch_session_bytes")));
}

/// What a fetch waits that nothing ends.
const WAIT: Duration = Duration::from_millis(300);

async fn delete(raw: &mut Raw, name: &str) {
    let request = DeleteTopicsRequest { topic_names: vec![name.into()], ..Default::default() };
    assert_eq!(raw.call(5, &request).await.responses[0].error_code, 0);
}

/// A fetch from the start of these topics' first partitions.
fn of_topics(session: (i32, i32), topics: &[(&str, Uuid)]) -> FetchRequest {
    let topic = |&(name, topic_id): &(&str, Uuid)| {
        let partitions = vec![partition(0, 0)];
        FetchTopic { topic: name.into(), topic_id, partitions }
    };
    FetchRequest {
        max_wait_ms: WAIT.as_millis() as i32,
        min_bytes: 1,
        session_id: session.0,
        session_epoch: session.1,
        topics: topics.iter().map(topic).collect(),
        ..Default::default()
    }
}

/// The errors of a fetch's partitions.
async fn errors(raw: &mut Raw, version: i16, request: &FetchRequest) -> Vec<i16> {
    let response = raw.call(version, request).await;
    assert_eq!(response.error_code, 0);
    let partitions = response.responses.iter().flat_map(|t| &t.partitions);
    partitions.map(|p| p.error_code).collect()
}

/// Those of one that waits its time.
async fn errors_in_time(raw: &mut Raw, version: i16, request: &FetchRequest) -> Vec<i16> {
    let began = Instant::now();
    let errors = errors(raw, version, request).await;
    assert!(began.elapsed() >= WAIT, "{errors:?} after {:?}", began.elapsed());
    errors
}

/// Those of one that does not wait: else it would for longer than its answer is waited for.
async fn errors_at_once(raw: &mut Raw, version: i16, request: &FetchRequest) -> Vec<i16> {
    errors(raw, version, &FetchRequest { max_wait_ms: 600_000, ..request.clone() }).await
}

#[tokio::test]
async fn a_topic_deleted_under_a_session_does_not_end_its_waits_and_one_made_again_does() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let (a, b) = (raw.topic("a", 1).await, raw.topic("b", 1).await);
    let mut begin = of_topics((0, 0), &[("", a), ("", b)]);
    begin.max_wait_ms = 0;
    let id = raw.call(13, &begin).await.session_id;
    assert_ne!(id, 0);
    delete(&mut raw, "a").await;
    for epoch in 1..=3 {
        let told = errors_in_time(&mut raw, 13, &of_topics((id, epoch), &[])).await;
        assert_eq!(told, vec![ErrorCode::UnknownTopicOrPartition.code()]);
    }
    let unknown = ErrorCode::UnknownTopicId.code();
    for epoch in [0, -1] {
        let told = errors_in_time(&mut raw, 13, &of_topics((0, epoch), &[("", a), ("", b)])).await;
        assert_eq!(told, vec![unknown, 0], "without a session, or in a new one");
    }
    let told = errors_at_once(&mut raw, 13, &of_topics((0, -1), &[("", a)])).await;
    assert_eq!(told, vec![unknown], "there is nothing else to wait for");

    let again = raw.topic("a", 1).await;
    assert_ne!(again, a);
    let told = errors_at_once(&mut raw, 13, &of_topics((id, 4), &[])).await;
    assert_eq!(told, vec![ErrorCode::InconsistentTopicId.code()]);
    let told = errors_in_time(&mut raw, 13, &of_topics((0, -1), &[("", a), ("", b)])).await;
    assert_eq!(told, vec![unknown, 0]);
}

#[tokio::test]
async fn a_topic_named_before_it_is_there_is_known_once_it_was() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let (a, b) = (raw.topic("a", 1).await, raw.topic("b", 1).await);
    delete(&mut raw, "a").await;
    let mut begin = of_topics((0, 0), &[("", a), ("", b)]);
    begin.max_wait_ms = 0;
    let response = raw.call(13, &begin).await;
    assert_code(response.responses[0].partitions[0].error_code, ErrorCode::UnknownTopicId);
    let told = errors_in_time(&mut raw, 13, &of_topics((response.session_id, 1), &[])).await;
    assert_eq!(told, vec![ErrorCode::UnknownTopicId.code()]);
}

#[tokio::test]
async fn names_of_deleted_topics_do_not_end_a_wait_and_are_read_once_they_are_back() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("a", 1).await;
    raw.topic("b", 1).await;
    let none = [0; 16];
    let mut begin = of_topics((0, 0), &[("a", none), ("b", none)]);
    begin.max_wait_ms = 0;
    let id = raw.call(12, &begin).await.session_id;
    delete(&mut raw, "a").await;
    let gone = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(errors_in_time(&mut raw, 12, &of_topics((id, 1), &[])).await, vec![gone]);
    let sessionless = of_topics((0, -1), &[("a", none), ("b", none)]);
    assert_eq!(errors_in_time(&mut raw, 12, &sessionless).await, vec![gone, 0]);
    let mut no_such_partition = of_topics((0, -1), &[("b", none), ("b", none)]);
    no_such_partition.topics[1].partitions[0].partition = 7;
    assert_eq!(errors_in_time(&mut raw, 12, &no_such_partition).await, vec![0, gone]);
    raw.topic("a", 1).await;
    raw.put("a", 0, &["x"]).await;
    assert_eq!(errors_at_once(&mut raw, 12, &of_topics((id, 2), &[])).await, vec![0]);
}

#[tokio::test]
async fn a_topic_that_is_deleted_ends_the_wait_of_a_fetch_that_waits_already_and_no_other() {
    let rig = Rig::start();
    let (mut reader, mut writer) = (rig.raw().await, rig.raw().await);
    let b = writer.topic("b", 1).await;
    let gone = ErrorCode::UnknownTopicOrPartition.code();
    for version in [8, 12, 16] {
        for in_session in [false, true] {
            let a = writer.topic("a", 2).await;
            let ids = |id| if version < 13 { [0; 16] } else { id };
            let all = of_topics((0, if in_session { 0 } else { -1 }), &[("a", ids(a)), ("b", ids(b))]);
            let mut request = all.clone();
            if in_session {
                let begin = FetchRequest { max_wait_ms: 0, ..all };
                request = of_topics((reader.call(version, &begin).await.session_id, 1), &[]);
            }
            request.max_wait_ms = 600_000;
            let correlation = reader.send(version, &request).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            delete(&mut writer, "a").await;
            let response = reader.receive::<FetchRequest>(version, correlation).await;
            let told = response.responses.iter().flat_map(|topic| &topic.partitions);
            let told: Vec<_> = told.map(|partition| partition.error_code).collect();
            assert_eq!(told, if in_session { vec![gone] } else { vec![gone, 0] }, "version {version}");
            let next = if in_session { 2 } else { -1 };
            let mut again = FetchRequest { session_epoch: next, ..request };
            again.max_wait_ms = WAIT.as_millis() as i32;
            errors_in_time(&mut reader, version, &again).await;
        }
    }
}

#[tokio::test]
async fn records_end_a_wait_beside_a_topic_that_is_gone() {
    let rig = Rig::start();
    let (mut reader, mut writer) = (rig.raw().await, rig.raw().await);
    writer.topic("b", 1).await;
    let mut request = of_topics((0, -1), &[("a", [0; 16]), ("b", [0; 16])]);
    request.max_wait_ms = 60_000;
    let began = Instant::now();
    let correlation = reader.send(12, &request).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    writer.put("b", 0, &["x"]).await;
    let response = reader.receive::<FetchRequest>(12, correlation).await;
    assert_code(response.responses[0].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(batches(&response.responses[1].partitions[0]), [(0, 0)]);
    assert!(began.elapsed() < PATIENCE);
}

/// Whatever the error: a client that asks again at once is answered at once ten times in ten seconds, and no more often.
#[tokio::test]
async fn who_fetches_over_and_over_what_fails_is_held_back() {
    let rig = Rig::start();
    rig.raw().await.topic("b", 1).await;
    rig.raw().await.topic("c", 1).await;
    let unknown = of_topics((0, -1), &[("gone", [0; 16])]);
    let mut outside = of_topics((0, -1), &[("b", [0; 16])]);
    outside.topics[0].partitions[0].fetch_offset = 99;
    let mut beside = of_topics((0, -1), &[("b", [0; 16]), ("c", [0; 16])]);
    beside.topics[0].partitions[0].current_leader_epoch = 99;
    let mut held = 0;
    keep_log();
    for (request, why) in [
        (unknown, "UNKNOWN_TOPIC_OR_PARTITION of partition 0 of \"gone\""),
        (outside, "OFFSET_OUT_OF_RANGE of partition 0 of \"b\""),
        (beside, "UNKNOWN_LEADER_EPOCH of partition 0 of \"b\""),
    ] {
        let mut raw = rig.raw().await;
        for _ in 0..10 {
            errors_at_once(&mut raw, 12, &request).await;
        }
        for _ in 0..3 {
            errors_in_time(&mut raw, 12, &request).await;
        }
        held += 3;
        assert_eq!(rig.metric("sabir_kafka_held_fetches_total"), held);
        let said = format!("it fetches over and over what fails, and is held back: {why}");
        let peer = format!("peer={} client=\"raw\"", raw.stream.local_addr().unwrap());
        assert_eq!(logged(&["WARN", &said, &peer]).len(), 1, "once in a while: {:?}", logged(&[&peer]));
    }
}

/// Whatever it is that fails: a client which waits before it asks again has not so many errors.
#[tokio::test]
async fn who_does_nothing_but_fail_is_told_of_in_the_log() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    keep_log();
    let peer = format!("peer={} client=\"raw\"", raw.stream.local_addr().unwrap());
    let stranger = HeartbeatRequest { group_id: "nobody".into(), ..Default::default() };
    for _ in 0..199 {
        assert_code(raw.ask(&stranger).await.error_code, ErrorCode::UnknownMemberId);
    }
    assert!(logged(&[&peer]).is_empty(), "{:?}", logged(&[&peer]));
    for _ in 0..100 {
        raw.ask(&stranger).await;
    }
    let said =
        "200 of its requests failed within ten seconds, the last of them a Heartbeat with UNKNOWN_MEMBER_ID";
    assert_eq!(logged(&["WARN", said, &peer]).len(), 1, "{:?}", logged(&[&peer]));
}

/// Turns a byte over in the middle of a value, wherever it stands below a folder.
fn spoil(folder: &Path, value: &[u8]) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found += spoil(&path, value);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(value.len()).position(|window| window == value) {
            let at = at + value.len() / 2;
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 8], at as u64).unwrap();
            found += 1;
        }
    }
    found
}

#[tokio::test]
async fn records_that_went_bad_on_the_disk_are_corrupt_for_whoever_asks_for_them_and_nobody_else() {
    let little_cached: fn(&mut BrokerOptions) = |options| options.tail_cache_bytes = 64 << 10;
    let rig = Rig::with(Setup { options: little_cached, ..Setup::default() });
    let mut raw = rig.raw().await;
    raw.topic("t", 2).await;
    let (marked, large) = ("spoilt".repeat(2000), "x".repeat(40_000));
    raw.put("t", 0, &["good"]).await;
    raw.put("t", 0, &[&marked]).await;
    for _ in 0..20 {
        raw.put("t", 1, &[&large]).await;
    }
    raw.put("t", 0, &["behind"]).await;
    assert_eq!(spoil(&rig.broker.options().data, marked.as_bytes()), 1);

    let mut request = fetch(vec![partition(0, 0), partition(1, 0)]);
    request.max_wait_ms = 60_000;
    let before = raw.call(12, &request).await;
    assert_eq!((only(&before).error_code, batches(only(&before))), (0, vec![(0, 0)]));
    for version in 4..=12 {
        request.topics[0].partitions[0].fetch_offset = 1;
        let response = raw.call(version, &request).await;
        let [bad, good] = &response.responses[0].partitions[..] else { panic!("{response:?}") };
        assert_code(bad.error_code, ErrorCode::CorruptMessage);
        assert_eq!(bad.records.as_ref().map_or(0, |records| records.len()), 0, "{version}");
        assert_eq!((good.error_code, batches(good)[0]), (0, (0, 0)), "{version}");
    }
    let behind = raw.call(12, &fetch(vec![partition(0, 2)])).await;
    assert_eq!((only(&behind).error_code, batches(only(&behind))), (0, vec![(2, 2)]));
}

#[tokio::test]
async fn bytes_in_and_out_are_counted_by_topic_once_however_often_a_long_poll_looks() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    raw.put("t", 0, &["a", "b"]).await;
    let broker = rig.broker.clone();
    let counted = move || {
        let topic = broker.catalog().topic("t").unwrap().clone();
        let own = topic.traffic.own().expect("it had traffic");
        (own.received(), own.sent())
    };
    let (first, sent) = counted();
    assert!(first > 0 && sent == 0, "{first} {sent}");
    // It waits for more than there is, and reads what there is again when more comes, and when its time is up.
    let mut waiting = rig.raw().await;
    let long = FetchRequest { max_wait_ms: 3000, min_bytes: 1 << 20, ..fetch(vec![partition(0, 0)]) };
    let (response, ()) = tokio::join!(waiting.call(12, &long), async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            raw.put("t", 0, &["c"]).await;
        }
    });
    let bytes = only(&response).records.as_ref().unwrap().len() as u64;
    let (received, sent) = counted();
    assert_eq!((sent, received), (bytes, bytes), "all of it was answered, once");
    raw.call(12, &fetch(vec![partition(0, 2)])).await;
    assert!(counted().1 > bytes && counted().1 < 2 * bytes, "{:?}", counted());
}

/// Each batch lies in a block of its own, and takes a read of the disk's.
#[tokio::test]
async fn a_fetch_that_takes_long_is_answered_with_what_there_is_and_the_next_one_begins_behind_that() {
    const PARTITIONS: i32 = 4;
    const EACH: usize = 30;
    let options = |options: &mut BrokerOptions| options.tail_cache_bytes = 64 << 10;
    let rig = Rig::with(Setup { hanging: true, options, ..Setup::default() });
    let mut raw = rig.raw().await;
    raw.topic("t", PARTITIONS).await;
    let value = "x".repeat(64 << 10);
    for _ in 0..EACH {
        for partition in 0..PARTITIONS {
            raw.put("t", partition, &[&value]).await;
        }
    }
    rig.disks.as_ref().unwrap().slow_reads(ShardId(1), Duration::from_millis(250));
    let wanted =
        || (0..PARTITIONS).map(|at| FetchPartition { partition_max_bytes: 32 << 20, ..partition(at, 0) });
    let mut given = vec![0; PARTITIONS as usize];
    // A client that is at the same place each time, and names them in the same order.
    for _ in 0..PARTITIONS {
        let began = Instant::now();
        let request = FetchRequest {
            max_bytes: 32 << 20,
            max_wait_ms: 60_000,
            min_bytes: 32 << 20,
            ..fetch(wanted().collect())
        };
        let response = raw.call(12, &request).await;
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        let answers: Vec<_> = response.responses.iter().flat_map(|topic| &topic.partitions).collect();
        let order: Vec<_> = answers.iter().map(|answer| answer.partition_index).collect();
        assert_eq!(order, (0..PARTITIONS).collect::<Vec<_>>());
        for answer in &answers {
            assert_eq!((answer.error_code, answer.high_watermark), (0, EACH as i64));
            given[answer.partition_index as usize] += batches(answer).len();
        }
        assert!(answers.iter().any(|answer| batches(answer).is_empty()), "{given:?}");
    }
    assert!(given.iter().all(|&given| given > 0), "{given:?}");
}
