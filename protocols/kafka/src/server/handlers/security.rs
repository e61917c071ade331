//! Who may do what, and who is who: neither is asked here, and a client that asks is told so as by a Kafka without an authorizer, on a
//! listener without SASL.

use std::collections::HashSet;

use super::{Call, Client, Reply, decode, first_error};
use crate::server::requests::{BadRequest, Request};
use crate::wire::messages::alter_client_quotas::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, AlteredQuota,
};
use crate::wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, AlteredScramUser,
};
use crate::wire::messages::create_acls::{AclCreationResult, CreateAclsRequest, CreateAclsResponse};
use crate::wire::messages::delete_acls::{DeleteAclsFilterResult, DeleteAclsRequest, DeleteAclsResponse};
use crate::wire::messages::describe_acls::{DescribeAclsRequest, DescribeAclsResponse};
use crate::wire::messages::describe_client_quotas::{
    DescribeClientQuotasRequest, DescribeClientQuotasResponse,
};
use crate::wire::messages::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse, DescribedScramUser, ScramUser,
};
use crate::wire::messages::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use crate::wire::messages::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};
use crate::wire::{ErrorCode, Str};

const NO_SASL: &str = "this listener asks nobody to log in: connect without SASL";
const NO_ACLS: &str = "No Authorizer is configured on the broker";
const NO_QUOTAS: &str = "this broker has no quotas";
const NO_USERS: &str = "this broker has no users";

pub(super) fn sasl_handshake(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    decode::<SaslHandshakeRequest>(request)?;
    client.refused(call.api, NO_SASL);
    let error = ErrorCode::IllegalSaslState;
    Ok(call.reply(&SaslHandshakeResponse { error_code: error.code(), ..Default::default() }, error))
}

pub(super) fn sasl_authenticate(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    decode::<SaslAuthenticateRequest>(request)?;
    client.refused(call.api, NO_SASL);
    let error = ErrorCode::IllegalSaslState;
    let error_message = Some(Str::from_static(NO_SASL));
    let response = SaslAuthenticateResponse { error_code: error.code(), error_message, ..Default::default() };
    Ok(call.reply(&response, error))
}

pub(super) fn describe_acls(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    decode::<DescribeAclsRequest>(request)?;
    client.refused(call.api, NO_ACLS);
    let error = ErrorCode::SecurityDisabled;
    let error_message = Some(Str::from_static(NO_ACLS));
    let response = DescribeAclsResponse { error_code: error.code(), error_message, ..Default::default() };
    Ok(call.reply(&response, error))
}

pub(super) fn create_acls(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: CreateAclsRequest = decode(request)?;
    client.refused(call.api, NO_ACLS);
    let error = ErrorCode::SecurityDisabled;
    let result =
        AclCreationResult { error_code: error.code(), error_message: Some(Str::from_static(NO_ACLS)) };
    let results = vec![result; body.creations.len()];
    Ok(call.reply(&CreateAclsResponse { results, ..Default::default() }, error))
}

pub(super) fn delete_acls(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: DeleteAclsRequest = decode(request)?;
    client.refused(call.api, NO_ACLS);
    let error = ErrorCode::SecurityDisabled;
    let error_message = Some(Str::from_static(NO_ACLS));
    let result = DeleteAclsFilterResult { error_code: error.code(), error_message, ..Default::default() };
    let filter_results = vec![result; body.filters.len()];
    Ok(call.reply(&DeleteAclsResponse { filter_results, ..Default::default() }, error))
}

/// What Kafka has quotas for.
const QUOTA_ENTITIES: [&str; 3] = ["user", "client-id", "ip"];

/// There are none; what cannot be asked for is refused.
pub(super) fn describe_client_quotas(request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: DescribeClientQuotasRequest = decode(request)?;
    let response = match filter_problem(&body) {
        None => DescribeClientQuotasResponse { entries: Some(Vec::new()), ..Default::default() },
        Some((error, problem)) => DescribeClientQuotasResponse {
            error_code: error.code(),
            error_message: Some(Str::from_static(problem)),
            entries: None,
            ..Default::default()
        },
    };
    let error = first_error(std::iter::once(response.error_code));
    Ok(call.reply(&response, error))
}

fn filter_problem(body: &DescribeClientQuotasRequest) -> Option<(ErrorCode, &'static str)> {
    let mut seen = HashSet::new();
    let problem = |kind: &str, is_new: bool| match kind {
        "" => Some((ErrorCode::InvalidRequest, "a component of the filter names no type of entity")),
        _ if !is_new => Some((ErrorCode::InvalidRequest, "the filter names a type of entity twice")),
        kind if QUOTA_ENTITIES.contains(&kind) => None,
        _ => Some((ErrorCode::UnsupportedVersion, "quotas are for user, client-id and ip")),
    };
    let found = body.components.iter().find_map(|c| problem(&c.entity_type, seen.insert(&*c.entity_type)));
    let is_mixed = seen.len() > 1 && seen.contains("ip");
    found.or_else(|| is_mixed.then_some((ErrorCode::InvalidRequest, "ip does not go with user or client-id")))
}

pub(super) fn alter_client_quotas(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: AlterClientQuotasRequest = decode(request)?;
    client.refused(call.api, NO_QUOTAS);
    let error = ErrorCode::UnsupportedVersion;
    let refused = |entity| AlteredQuota {
        error_code: error.code(),
        error_message: Some(Str::from_static(NO_QUOTAS)),
        entity,
    };
    let entries = body.entries.into_iter().map(|entry| refused(entry.entity)).collect();
    Ok(call.reply(&AlterClientQuotasResponse { entries, ..Default::default() }, error))
}

/// There are no users; those that are asked for by name are not found.
pub(super) fn describe_user_scram_credentials(request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: DescribeUserScramCredentialsRequest = decode(request)?;
    let results: Vec<_> = described(&body.users.unwrap_or_default());
    let error = first_error(results.iter().map(|result| result.error_code));
    Ok(call.reply(&DescribeUserScramCredentialsResponse { results, ..Default::default() }, error))
}

fn described(users: &[ScramUser]) -> Vec<DescribedScramUser> {
    let mut seen = HashSet::new();
    let twice: HashSet<_> = users.iter().map(|user| &*user.name).filter(|name| !seen.insert(*name)).collect();
    let one = |user: &ScramUser| {
        let (error, problem) = match twice.contains(&*user.name) {
            true => (ErrorCode::DuplicateResource, "the request names the user twice"),
            false => (ErrorCode::ResourceNotFound, NO_USERS),
        };
        DescribedScramUser {
            user: user.name.clone(),
            error_code: error.code(),
            error_message: Some(Str::from_static(problem)),
            ..Default::default()
        }
    };
    super::once(users, |user| user.name.clone()).map(one).collect()
}

pub(super) fn alter_user_scram_credentials(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: AlterUserScramCredentialsRequest = decode(request)?;
    client.refused(call.api, NO_USERS);
    let error = ErrorCode::UnsupportedVersion;
    let refused = |user: Str| AlteredScramUser {
        user,
        error_code: error.code(),
        error_message: Some(Str::from_static(NO_USERS)),
    };
    let deletions = body.deletions.into_iter().map(|user| user.name);
    let names: Vec<_> = deletions.chain(body.upsertions.into_iter().map(|user| user.name)).collect();
    let results = super::once(&names, Clone::clone).cloned().map(refused).collect();
    Ok(call.reply(&AlterUserScramCredentialsResponse { results, ..Default::default() }, error))
}
