//! What no client should send: the documented error or a closed connection, a counter, and a broker that goes on.

use sabir_kafka::wire::api::SUPPORTED;
use sabir_kafka::wire::messages::api_versions::ApiVersionsRequest;
use sabir_kafka::wire::{ApiKey, ErrorCode};

use crate::rig::{Rig, Setup, assert_code, batch, produce_request};

#[tokio::test]
async fn frames_of_impossible_sizes_close_the_connection() {
    let rig = Rig::with(Setup { kafka: r#"{"max_request": "1MiB"}"#, ..Setup::default() });
    for size in [-1, i32::MIN, 0, (1 << 20) + 1, i32::MAX] {
        let mut raw = rig.raw().await;
        raw.write(&size.to_be_bytes()).await;
        assert_eq!(raw.closed().await, b"", "{size}");
    }
    assert_eq!(rig.dropped("frame_size"), 5);
    rig.raw().await.call(0, &ApiVersionsRequest::default()).await;
}

#[tokio::test]
async fn headers_that_cannot_be_read_close_the_connection() {
    let rig = Rig::start();
    for frame in [&b"\0"[..], b"\0\x12\0\0\0\0\0\x07\0\x09me", b"\0\x12\0\0\0\0\0\x07\0\x02\xff\xff"] {
        let mut raw = rig.raw().await;
        raw.write(&(frame.len() as i32).to_be_bytes()).await;
        raw.write(frame).await;
        assert_eq!(raw.closed().await, b"");
    }
    assert_eq!(rig.dropped("header"), 3);
}

#[tokio::test]
async fn apis_and_versions_that_are_not_served_close_the_connection() {
    let rig = Rig::start();
    let served = |key: i16| SUPPORTED.iter().any(|(api, ..)| *api as i16 == key);
    let unknown: Vec<i16> = (-1..=100).chain([i16::MAX]).filter(|key| !served(*key)).collect();
    for key in &unknown {
        let mut raw = rig.raw().await;
        raw.write(&[&10i32.to_be_bytes(), &key.to_be_bytes()[..], b"\0\0\0\0\0\x07\xff\xff"].concat()).await;
        assert_eq!(raw.closed().await, b"", "{key}");
    }
    assert_eq!(rig.dropped("unknown_api"), unknown.len() as u64);
    let mut outside = 0;
    for &(api, min, max) in SUPPORTED.iter().filter(|(api, ..)| *api != ApiKey::ApiVersions) {
        for version in [-1, min - 1, max + 1, i16::MAX] {
            let mut raw = rig.raw().await;
            let head = [(api as i16).to_be_bytes(), version.to_be_bytes()].concat();
            raw.write(&[&11i32.to_be_bytes(), &head[..], b"\0\0\0\x07\xff\xff\0"].concat()).await;
            assert_eq!(raw.closed().await, b"", "{api} {version}");
            outside += 1;
        }
    }
    assert_eq!(rig.dropped("unknown_version"), outside);
}

/// Every API, every version, bodies of all ones, all zeros and nothing: read as far as they can be, and refused or answered.
#[tokio::test]
async fn bodies_made_to_hurt_are_refused() {
    let rig = Rig::start();
    for &(api, min, max) in SUPPORTED {
        for version in min..=max {
            for body in
                [&[][..], &[0xff; 300], &[0x7f; 300], &[0; 300], &[0x00, 0x7f, 0xff, 0xff, 0xff, 0x01]]
            {
                let mut raw = rig.raw().await;
                let head = [(api as i16).to_be_bytes(), version.to_be_bytes()].concat();
                let frame = [&head[..], b"\0\0\0\x07\xff\xff\0", body].concat();
                raw.write(&[&(frame.len() as i32).to_be_bytes(), &frame[..]].concat()).await;
                // Sends no more, so that the broker does not wait for more, whether it could read this or not.
                tokio::io::AsyncWriteExt::shutdown(&mut raw.stream).await.unwrap();
                raw.closed().await;
            }
        }
    }
    assert!(rig.dropped("body") > 0);
    rig.raw().await.call(0, &ApiVersionsRequest::default()).await;
}

#[tokio::test]
async fn a_broken_batch_is_counted_and_the_connection_goes_on() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let good = batch(&["a", "b"]);
    let mut crc = good.to_vec();
    crc[20] ^= 1;
    let mut old = good.to_vec();
    old[16] = 1;
    let mut huge = good.to_vec();
    huge[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    for (bytes, expected) in [
        (crc, ErrorCode::CorruptMessage),
        (old, ErrorCode::InvalidRecord),
        (huge, ErrorCode::InvalidRecord),
        (good[..40].to_vec(), ErrorCode::InvalidRecord),
        (good[..good.len() - 1].to_vec(), ErrorCode::InvalidRecord),
        ([&good[..], &good[..]].concat(), ErrorCode::InvalidRecord),
        (vec![], ErrorCode::InvalidRecord),
    ] {
        let answer = raw.produce("t", 0, bytes.into()).await;
        assert_code(answer.error_code, expected);
        assert_eq!(answer.base_offset, -1);
        assert!(answer.error_message.is_some());
    }
    assert_eq!(rig.metric("sabir_bad_batches_total{protocol=\"kafka\"}"), 7);
    assert_eq!(raw.put("t", 0, &["c"]).await, 0);
}

#[tokio::test]
async fn requests_are_counted_by_their_first_error() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    raw.call(12, &produce_request(1, "t", 0, batch(&["a"]))).await;
    raw.call(12, &produce_request(1, "t", 7, batch(&["a"]))).await;
    let counted = |error: &str| {
        let labels = format!("{{protocol=\"kafka\",api=\"Produce\",error=\"{error}\"}}");
        rig.metric(&format!("sabir_requests_total{labels}"))
    };
    assert_eq!((counted("NONE"), counted("UNKNOWN_TOPIC_OR_PARTITION")), (1, 1));
    assert!(rig.metric("sabir_received_bytes_total{protocol=\"kafka\"}") > 100);
    assert!(rig.metric("sabir_sent_bytes_total{protocol=\"kafka\"}") > 100);
}
