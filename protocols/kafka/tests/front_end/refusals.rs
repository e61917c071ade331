//! What is not served, and is refused in words that clients take for final; what there is none of, and is listed as none.

use sabir_kafka::wire::messages::alter_client_quotas::{AlterClientQuotasRequest, QuotaAlteration};
use sabir_kafka::wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, ScramDeletion, ScramUpsertion,
};
use sabir_kafka::wire::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use sabir_kafka::wire::messages::create_acls::{AclCreation, CreateAclsRequest};
use sabir_kafka::wire::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
use sabir_kafka::wire::messages::describe_acls::DescribeAclsRequest;
use sabir_kafka::wire::messages::describe_client_quotas::{DescribeClientQuotasRequest, QuotaComponent};
use sabir_kafka::wire::messages::describe_transactions::DescribeTransactionsRequest;
use sabir_kafka::wire::messages::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, ScramUser,
};
use sabir_kafka::wire::messages::find_coordinator::FindCoordinatorRequest;
use sabir_kafka::wire::messages::init_producer_id::InitProducerIdRequest;
use sabir_kafka::wire::messages::list_transactions::ListTransactionsRequest;
use sabir_kafka::wire::messages::sasl_authenticate::SaslAuthenticateRequest;
use sabir_kafka::wire::messages::sasl_handshake::SaslHandshakeRequest;
use sabir_kafka::wire::{ErrorCode, Str};

use crate::rig::{Rig, assert_code};

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
