//! What is not served, and is refused in words that clients take for final; what there is none of, and is listed as none.

use sabir_base::testing::{keep_log, logged};
use sabir_kafka::wire::messages::alter_client_quotas::{AlterClientQuotasRequest, QuotaAlteration};
use sabir_kafka::wire::messages::alter_configs as replace;
use sabir_kafka::wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, ScramDeletion, ScramUpsertion,
};
use sabir_kafka::wire::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use sabir_kafka::wire::messages::create_acls::{AclCreation, CreateAclsRequest};
use sabir_kafka::wire::messages::create_topics::CreateTopicsRequest;
use sabir_kafka::wire::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
use sabir_kafka::wire::messages::describe_acls::DescribeAclsRequest;
use sabir_kafka::wire::messages::describe_client_quotas::{DescribeClientQuotasRequest, QuotaComponent};
use sabir_kafka::wire::messages::describe_transactions::DescribeTransactionsRequest;
use sabir_kafka::wire::messages::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, ScramUser,
};
use sabir_kafka::wire::messages::find_coordinator::FindCoordinatorRequest;
use sabir_kafka::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use sabir_kafka::wire::messages::init_producer_id::InitProducerIdRequest;
use sabir_kafka::wire::messages::list_transactions::ListTransactionsRequest;
use sabir_kafka::wire::messages::sasl_authenticate::SaslAuthenticateRequest;
use sabir_kafka::wire::messages::sasl_handshake::SaslHandshakeRequest;
use sabir_kafka::wire::{ErrorCode, Str};
use sabir_model::ProducerId;
use sabir_model::batch::{BatchBuilder, Compression};

use crate::rig::{Raw, Rig, assert_code, batch, batch_with, creatable, produce_request};

/// Whether the log has named the API as refused to this client, with these words, once.
#[track_caller]
fn assert_told(raw: &Raw, api: &str, why: &str) {
    let peer = format!("peer={} ", raw.stream.local_addr().unwrap());
    let lines = logged(&[&peer]);
    let told =
        lines.iter().filter(|line| line.contains(&format!("{api} is refused: ")) && line.contains(why));
    assert_eq!(told.count(), 1, "{api}: {why}: {lines:?}");
}

const NO_TRANSACTIONS: &str = "transactions are not served by this broker";

#[tokio::test]
async fn the_log_names_who_produces_in_transactions() {
    keep_log();
    let rig = Rig::start();
    rig.raw().await.topic("t", 1).await;
    let marked = BatchBuilder::new(Compression::None).producer(ProducerId(1), 0, 0).transactional();
    let mut raw = rig.raw().await;
    assert_code(
        raw.produce("t", 0, batch_with(marked, &["a"])).await.error_code,
        ErrorCode::UnsupportedVersion,
    );
    assert_told(&raw, "Produce", NO_TRANSACTIONS);
    let mut raw = rig.raw().await;
    let mut request = produce_request(-1, "t", 0, batch(&["a"]));
    request.transactional_id = Some("x".into());
    let answer = raw.call(12, &request).await.responses.remove(0).partition_responses.remove(0);
    assert_code(answer.error_code, ErrorCode::UnsupportedVersion);
    assert_told(&raw, "Produce", NO_TRANSACTIONS);
}

/// A change of one setting.
fn change(
    resource_type: i8,
    name: &str,
    operation: i8,
    value: Option<&str>,
) -> IncrementalAlterConfigsRequest {
    let setting = AlterableConfig {
        name: "cleanup.policy".into(),
        config_operation: operation,
        value: value.map(Into::into),
    };
    let resource = AlterConfigsResource { resource_type, resource_name: name.into(), configs: vec![setting] };
    IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() }
}

#[tokio::test]
async fn the_log_names_who_asks_for_compaction() {
    const WHY: &str = "compaction is not built yet";
    keep_log();
    let rig = Rig::start();
    rig.raw().await.topic("t", 1).await;
    for (at, policy) in ["compact", "delete, compact", " compact ,delete"].into_iter().enumerate() {
        for validate_only in [false, true] {
            let mut raw = rig.raw().await;
            let topics = vec![creatable(&format!("u{at}"), 1, &[("cleanup.policy", policy)])];
            let request = CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only };
            assert_code(raw.ask(&request).await.topics[0].error_code, ErrorCode::InvalidConfig);
            assert_told(&raw, "CreateTopics", WHY);
        }
        // Set, and appended.
        for operation in [0, 2] {
            let mut raw = rig.raw().await;
            let answer = raw.ask(&change(2, "t", operation, Some(policy))).await;
            assert_code(answer.responses[0].error_code, ErrorCode::InvalidConfig);
            assert_told(&raw, "IncrementalAlterConfigs", WHY);
        }
        let mut raw = rig.raw().await;
        let setting = replace::AlterableConfig { name: "cleanup.policy".into(), value: Some(policy.into()) };
        let resource = replace::AlterConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configs: vec![setting],
        };
        let request = replace::AlterConfigsRequest { resources: vec![resource], ..Default::default() };
        assert_code(raw.ask(&request).await.responses[0].error_code, ErrorCode::InvalidConfig);
        assert_told(&raw, "AlterConfigs", WHY);
    }
    // Nothing of it is there, and taking it away is no wish for it.
    let mut raw = rig.raw().await;
    assert_code(raw.ask(&change(2, "t", 3, Some("compact"))).await.responses[0].error_code, ErrorCode::None);
    let peer = format!("peer={} ", raw.stream.local_addr().unwrap());
    assert!(logged(&[&peer, "is refused"]).is_empty());
}

#[tokio::test]
async fn the_log_names_who_sets_what_has_no_settings_here_and_who_looks_for_other_coordinators() {
    keep_log();
    let rig = Rig::start();
    for (resource_type, name, why) in
        [(4, "1", "read from its configuration file"), (32, "g", "not resources of type 32")]
    {
        let mut raw = rig.raw().await;
        let answer = raw.ask(&change(resource_type, name, 0, Some("delete"))).await;
        assert_code(answer.responses[0].error_code, ErrorCode::InvalidRequest);
        assert_told(&raw, "IncrementalAlterConfigs", why);
    }
    let mut raw = rig.raw().await;
    let request =
        FindCoordinatorRequest { key_type: 2, coordinator_keys: vec!["x".into()], ..Default::default() };
    assert_code(raw.ask(&request).await.coordinators[0].error_code, ErrorCode::InvalidRequest);
    assert_told(&raw, "FindCoordinator", "only groups (0) have coordinators here");
}

#[tokio::test]
async fn transactions_are_refused_with_what_producers_take_for_final() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for version in 1..=6 {
        let request = FindCoordinatorRequest {
            key: "x".into(),
            key_type: 1,
            coordinator_keys: if version >= 4 { vec!["x".into()] } else { vec![] },
        };
        let response = raw.call(version, &request).await;
        let (code, text) = match response.coordinators.first() {
            Some(one) => (one.error_code, one.error_message.clone()),
            None => (response.error_code, response.error_message),
        };
        assert_code(code, ErrorCode::ClusterAuthorizationFailed);
        assert_eq!(text.as_deref(), Some("transactions are not served by this broker"));
    }
    let request = InitProducerIdRequest { transactional_id: Some("x".into()), ..Default::default() };
    let response = raw.ask(&request).await;
    assert_code(response.error_code, ErrorCode::ClusterAuthorizationFailed);
    assert_eq!((response.producer_id, response.producer_epoch), (-1, -1));
}

#[tokio::test]
async fn there_are_no_transactions_to_be_listed_or_described() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let filters = ["Ongoing", "Lost", "Lost", "PrepareEpochFence"].map(Str::from_static).to_vec();
    let listed = raw.ask(&ListTransactionsRequest { state_filters: filters, ..Default::default() }).await;
    assert_eq!((listed.error_code, listed.transaction_states.len()), (0, 0));
    assert_eq!(listed.unknown_state_filters, ["Lost"]);
    let transactional_ids = ["x", "", "x"].map(Str::from_static).to_vec();
    let described = raw.ask(&DescribeTransactionsRequest { transactional_ids }).await.transaction_states;
    let told: Vec<_> = described.iter().map(|t| (t.transactional_id.as_str(), t.error_code)).collect();
    let expected = [("x", ErrorCode::TransactionalIdNotFound), ("", ErrorCode::InvalidRequest)];
    assert_eq!(told, expected.map(|(id, error)| (id, error.code())));
}

#[tokio::test]
async fn consumers_of_the_newer_group_protocol_are_told_of_the_older_one() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for version in 0..=1 {
        let request = ConsumerGroupHeartbeatRequest { group_id: "g".into(), ..Default::default() };
        let response = raw.call(version, &request).await;
        assert_code(response.error_code, ErrorCode::UnsupportedVersion);
        assert!(response.error_message.unwrap().contains("group.protocol=classic"));
    }
}

#[tokio::test]
async fn who_wants_to_log_in_is_told_that_nobody_does() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for version in 0..=1 {
        let handshake = raw.call(version, &SaslHandshakeRequest { mechanism: "PLAIN".into() }).await;
        assert_code(handshake.error_code, ErrorCode::IllegalSaslState);
        assert!(handshake.mechanisms.is_empty());
    }
    let response = raw.ask(&SaslAuthenticateRequest::default()).await;
    assert_code(response.error_code, ErrorCode::IllegalSaslState);
    assert!(response.error_message.is_some());
}

#[tokio::test]
async fn acls_are_answered_as_without_an_authorizer() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let disabled = ErrorCode::SecurityDisabled;
    assert_code(raw.ask(&DescribeAclsRequest::default()).await.error_code, disabled);
    let creations = vec![AclCreation::default(); 2];
    let created = raw.ask(&CreateAclsRequest { creations }).await.results;
    assert_eq!(created.iter().map(|r| r.error_code).collect::<Vec<_>>(), [disabled.code(); 2]);
    let filters = vec![DeleteAclsFilter::default(); 3];
    let deleted = raw.ask(&DeleteAclsRequest { filters }).await.filter_results;
    assert_eq!(deleted.iter().map(|r| r.error_code).collect::<Vec<_>>(), [disabled.code(); 3]);
}

#[tokio::test]
async fn there_are_no_users_and_no_quotas_and_none_are_made() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let all = raw.ask(&DescribeUserScramCredentialsRequest { users: None }).await;
    assert_eq!((all.error_code, all.results.len()), (0, 0));
    let users = Some(["a", "b", "b"].map(|name| ScramUser { name: name.into() }).to_vec());
    let named = raw.ask(&DescribeUserScramCredentialsRequest { users }).await.results;
    let told: Vec<_> = named.iter().map(|user| (user.user.as_str(), user.error_code)).collect();
    let expected = [("a", ErrorCode::ResourceNotFound), ("b", ErrorCode::DuplicateResource)];
    assert_eq!(told, expected.map(|(name, error)| (name, error.code())));
    let quotas = raw.ask(&DescribeClientQuotasRequest::default()).await;
    assert_eq!((quotas.error_code, quotas.entries), (0, Some(vec![])));
    for (kinds, expected) in [
        (&["user", "client-id"][..], ErrorCode::None),
        (&["ip"], ErrorCode::None),
        (&["zzz"], ErrorCode::UnsupportedVersion),
        (&["user", "user"], ErrorCode::InvalidRequest),
        (&["user", "ip"], ErrorCode::InvalidRequest),
        (&[""], ErrorCode::InvalidRequest),
    ] {
        let component =
            |kind: &&str| QuotaComponent { entity_type: (*kind).into(), match_type: 2, matched: None };
        let components = kinds.iter().map(component).collect();
        let quotas = raw.ask(&DescribeClientQuotasRequest { components, strict: true }).await;
        assert_code(quotas.error_code, expected);
    }

    let unsupported = ErrorCode::UnsupportedVersion;
    let request = AlterUserScramCredentialsRequest {
        deletions: vec![ScramDeletion { name: "a".into(), mechanism: 1 }],
        upsertions: vec![ScramUpsertion { name: "b".into(), ..Default::default() }],
    };
    let altered = raw.ask(&request).await.results;
    assert_eq!(altered.iter().map(|r| r.error_code).collect::<Vec<_>>(), [unsupported.code(); 2]);
    let request =
        AlterClientQuotasRequest { entries: vec![QuotaAlteration::default()], ..Default::default() };
    assert_code(raw.ask(&request).await.entries[0].error_code, unsupported);
}
