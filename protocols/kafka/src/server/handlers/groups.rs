//! Consumer groups: FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DescribeGroups, ListGroups, DeleteGroups.

use std::sync::Arc;

use sabir_broker::{
    ClientIdentity, Fence, GroupProtocol, GroupView, JoinRequest, Joined, LeaveRequest, SyncRequest,
};
use sabir_model::GroupError;

use super::metadata::GROUP_OPERATIONS;
use super::transactions::{NO_COORDINATOR, WHY_NOT};
use super::{Call, Client, Reply, Unanswered, commit_by, decode, first_error, once, within};
use crate::server::map::group_error_code;
use crate::server::requests::{BadRequest, Request};
use crate::wire::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::wire::messages::delete_groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};
use crate::wire::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use crate::wire::messages::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::wire::messages::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};
use crate::wire::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberResponse};
use crate::wire::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::wire::{ApiKey, ErrorCode, Str};

/// What a coordinator looks after, as Kafka numbers it.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// The first version that names several keys.
const KEYS_SINCE: i16 = 4;
/// The first version of JoinGroup whose clients come back with an id they are given.
const ID_REQUIRED_SINCE: i16 = 4;
/// The first version of JoinGroup in which a static leader may be told to leave the assignment as it is.
const SKIP_SINCE: i16 = 9;
/// The first version of LeaveGroup that names several members.
const MEMBERS_SINCE: i16 = 3;
/// The first version of DescribeGroups that tells a group that does not exist from a dead one.
const NOT_FOUND_SINCE: i16 = 6;

pub(super) fn find_coordinator(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: FindCoordinatorRequest = decode(request)?;
    let keys = if call.version >= KEYS_SINCE { body.coordinator_keys } else { vec![body.key] };
    let coordinators: Vec<_> = keys.into_iter().map(|key| coordinator(client, key, body.key_type)).collect();
    let error = first_error(coordinators.iter().map(|c| c.error_code));
    if call.version >= KEYS_SINCE {
        return Ok(call.reply(&FindCoordinatorResponse { coordinators, ..Default::default() }, error));
    }
    let one = coordinators.into_iter().next().unwrap_or_default();
    let response = FindCoordinatorResponse {
        error_code: one.error_code,
        error_message: one.error_message,
        node_id: one.node_id,
        host: one.host,
        port: one.port,
        ..Default::default()
    };
    Ok(call.reply(&response, error))
}

fn coordinator(client: &Client, key: Str, key_type: i8) -> Coordinator {
    let refused = |error: ErrorCode, message: &'static str| Coordinator {
        key: key.clone(),
        node_id: -1,
        host: Str::default(),
        port: -1,
        error_code: error.code(),
        error_message: Some(Str::from_static(message)),
    };
    match key_type {
        GROUP => Coordinator {
            node_id: client.kafka.node_id(),
            host: client.host.clone(),
            port: client.port,
            error_code: ErrorCode::None.code(),
            error_message: None,
            key,
        },
        TRANSACTION => {
            client.refused(ApiKey::FindCoordinator, WHY_NOT);
            refused(NO_COORDINATOR, WHY_NOT)
        }
        _ => {
            client.refused(ApiKey::FindCoordinator, GROUPS_ONLY);
            refused(ErrorCode::InvalidRequest, GROUPS_ONLY)
        }
    }
}

const GROUPS_ONLY: &str = "only groups (0) have coordinators here";
const CLASSIC_ONLY: &str =
    "consumers of the newer group protocol are not served by this broker: set group.protocol=classic";

/// Refused as by a Kafka whose newer group coordinator is switched off. If it were not listed, librdkafka would wait for it for ever.
pub(super) fn consumer_group_heartbeat(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    decode::<ConsumerGroupHeartbeatRequest>(request)?;
    client.refused(call.api, CLASSIC_ONLY);
    let error = ErrorCode::UnsupportedVersion;
    let error_message = Some(Str::from_static(CLASSIC_ONLY));
    let response =
        ConsumerGroupHeartbeatResponse { error_code: error.code(), error_message, ..Default::default() };
    Ok(call.reply(&response, error))
}

pub(super) async fn join_group(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: JoinGroupRequest = decode(&request)?;
    let join = JoinRequest {
        member: body.member_id.as_str().into(),
        instance: body.group_instance_id.as_deref().map(Into::into),
        client: ClientIdentity {
            id: request.header.client_id.as_deref().unwrap_or_default().into(),
            host: format!("/{}", client.peer.ip()).into(),
        },
        connection: client.caller.session().0,
        protocol_type: body.protocol_type.as_str().into(),
        protocols: body
            .protocols
            .iter()
            .map(|p| GroupProtocol { name: p.name.as_str().into(), metadata: p.metadata.clone() })
            .collect(),
        session_timeout_ms: body.session_timeout_ms.into(),
        // Version 0 had one time for both.
        rebalance_timeout_ms: match call.version {
            0 => body.session_timeout_ms.into(),
            _ => body.rebalance_timeout_ms.into(),
        },
        id_required: call.version >= ID_REQUIRED_SINCE,
        may_skip_assignment: call.version >= SKIP_SINCE,
    };
    let joining = client.groups().join(&body.group_id, join);
    // The wait may be long: let go of the request.
    drop((body, request));
    let (response, error) = match joining.await {
        Ok(joined) => (join_response(joined, call.version), ErrorCode::None),
        Err(refused) => {
            let error = group_error_code(refused.error.error);
            let member_id = Str::from(&*refused.member);
            (JoinGroupResponse { error_code: error.code(), member_id, ..no_group(call.version) }, error)
        }
    };
    Ok(call.reply(&response, error))
}

/// Where there is no protocol, it is null from version 7 on, and empty before.
fn no_group(version: i16) -> JoinGroupResponse {
    let protocol_name = (version < 7).then(Str::default);
    JoinGroupResponse { protocol_name, ..Default::default() }
}

fn join_response(joined: Joined, version: i16) -> JoinGroupResponse {
    let member = |m: &sabir_broker::JoinedMember| JoinGroupResponseMember {
        member_id: Str::from(&*m.member),
        group_instance_id: m.instance.as_deref().map(Str::from),
        metadata: m.metadata.clone(),
    };
    JoinGroupResponse {
        generation_id: joined.generation,
        protocol_type: joined.protocol_type.as_deref().map(Str::from),
        protocol_name: joined.protocol.as_deref().map(Str::from).or(no_group(version).protocol_name),
        leader: Str::from(&*joined.leader),
        skip_assignment: joined.skip_assignment,
        member_id: Str::from(&*joined.member),
        members: joined.members.iter().map(member).collect(),
        ..Default::default()
    }
}

fn fence(generation: i32, member: &Str, instance: Option<&Str>) -> Fence {
    Fence { generation, member: member.as_str().into(), instance: instance.map(|i| i.as_str().into()) }
}

pub(super) async fn sync_group(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: SyncGroupRequest = decode(&request)?;
    let sync = SyncRequest {
        fence: fence(body.generation_id, &body.member_id, body.group_instance_id.as_ref()),
        protocol_type: body.protocol_type.as_deref().map(Into::into),
        protocol: body.protocol_name.as_deref().map(Into::into),
        assignments: body
            .assignments
            .iter()
            .map(|a| (a.member_id.as_str().into(), a.assignment.clone()))
            .collect(),
    };
    // A member that brings assignments waits for their commit; the others for the leader, which the group sees to.
    let commits = !sync.assignments.is_empty();
    let syncing = client.groups().sync(&body.group_id, sync);
    drop((body, request));
    let synced = if commits { within(commit_by(), syncing).await } else { syncing.await };
    let (response, error) = match synced {
        Ok(synced) => {
            let response = SyncGroupResponse {
                protocol_type: synced.protocol_type.as_deref().map(Str::from),
                protocol_name: synced.protocol.as_deref().map(Str::from),
                assignment: synced.assignment,
                ..Default::default()
            };
            (response, ErrorCode::None)
        }
        Err(refused) => {
            let error = match refused.error {
                // All assignments together are too large to be stored; the leader cannot mend it by trying again.
                GroupError::TooLarge => ErrorCode::UnknownServerError,
                other => group_error_code(other),
            };
            (SyncGroupResponse { error_code: error.code(), ..Default::default() }, error)
        }
    };
    Ok(call.reply(&response, error))
}

pub(super) fn heartbeat(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: HeartbeatRequest = decode(request)?;
    let fence = fence(body.generation_id, &body.member_id, body.group_instance_id.as_ref());
    let alive = client.groups().heartbeat(&body.group_id, &fence);
    let error = alive.map_or_else(|refused| group_error_code(refused.error), |()| ErrorCode::None);
    Ok(call.reply(&HeartbeatResponse { error_code: error.code(), ..Default::default() }, error))
}

pub(super) fn leave_group(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: LeaveGroupRequest = decode(request)?;
    let leaving = if call.version >= MEMBERS_SINCE {
        let member = |m: &crate::wire::messages::leave_group::MemberIdentity| LeaveRequest {
            member: m.member_id.as_str().into(),
            instance: m.group_instance_id.as_deref().map(Into::into),
        };
        body.members.iter().map(member).collect()
    } else {
        vec![LeaveRequest { member: body.member_id.as_str().into(), instance: None }]
    };
    let response = match client.groups().leave(&body.group_id, leaving) {
        Err(refused) => {
            LeaveGroupResponse { error_code: group_error_code(refused.error).code(), ..Default::default() }
        }
        Ok(left) => {
            let member = |left: &sabir_broker::Left| MemberResponse {
                member_id: Str::from(&*left.member),
                group_instance_id: left.instance.as_deref().map(Str::from),
                error_code: left.result.map_or_else(|kind| group_error_code(kind).code(), |()| 0),
            };
            let members: Vec<_> = left.iter().map(member).collect();
            // Before there were several, the one member's error was the request's.
            let error_code =
                if call.version < MEMBERS_SINCE { members.first().map_or(0, |m| m.error_code) } else { 0 };
            LeaveGroupResponse { error_code, members, ..Default::default() }
        }
    };
    let error = first_error(
        std::iter::once(response.error_code).chain(response.members.iter().map(|m| m.error_code)),
    );
    Ok(call.reply(&response, error))
}

pub(super) fn describe_groups(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: DescribeGroupsRequest = decode(request)?;
    let groups = client.groups();
    let ready = groups.ready();
    let describe = |id: &Str| {
        if let Err(kind) = ready {
            let error_code = group_error_code(kind).code();
            return DescribedGroup { group_id: id.clone(), error_code, ..Default::default() };
        }
        let mut described = match groups.describe(id) {
            Some(view) => described(id, &view),
            None => dead(id, call.version),
        };
        if body.include_authorized_operations {
            described.authorized_operations = GROUP_OPERATIONS;
        }
        described
    };
    let groups: Vec<_> = once(&body.groups, Clone::clone).map(describe).collect();
    let error = first_error(groups.iter().map(|g| g.error_code));
    Ok(call.reply(&DescribeGroupsResponse { groups, ..Default::default() }, error))
}

fn described(id: &Str, view: &GroupView) -> DescribedGroup {
    let member = |m: &sabir_broker::MemberView| DescribedGroupMember {
        member_id: Str::from(&*m.member),
        group_instance_id: m.instance.as_deref().map(Str::from),
        client_id: Str::from(&*m.client.id),
        client_host: Str::from(&*m.client.host),
        member_metadata: m.metadata.clone(),
        member_assignment: m.assignment.clone(),
    };
    DescribedGroup {
        group_id: id.clone(),
        group_state: Str::from(view.state.name()),
        protocol_type: Str::from(&*view.protocol_type),
        protocol_data: Str::from(view.protocol.as_deref().unwrap_or_default()),
        members: view.members.iter().map(member).collect(),
        ..Default::default()
    }
}

fn dead(id: &Str, version: i16) -> DescribedGroup {
    let base =
        DescribedGroup { group_id: id.clone(), group_state: Str::from_static("Dead"), ..Default::default() };
    if version < NOT_FOUND_SINCE {
        return base;
    }
    DescribedGroup {
        error_code: ErrorCode::GroupIdNotFound.code(),
        error_message: Some(Str::from(format!("Group {id} not found."))),
        ..base
    }
}

pub(super) fn list_groups(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: ListGroupsRequest = decode(request)?;
    let named =
        |filter: &[Str], name: &str| filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(name));
    let groups = client.groups();
    if let Err(kind) = groups.ready() {
        let error = group_error_code(kind);
        return Ok(call.reply(&ListGroupsResponse { error_code: error.code(), ..Default::default() }, error));
    }
    let groups = groups.list();
    let listed = groups.iter().filter(|g| named(&body.states_filter, g.phase.name()));
    let listed = listed.filter(|_| named(&body.types_filter, CLASSIC)).map(|g| ListedGroup {
        group_id: Str::from(&*g.group.name),
        protocol_type: Str::from(&*g.protocol_type),
        group_state: Str::from(g.phase.name()),
        group_type: Str::from_static(CLASSIC),
    });
    let response = ListGroupsResponse { groups: listed.collect(), ..Default::default() };
    Ok(call.reply(&response, ErrorCode::None))
}

/// The type of groups whose members agree among themselves.
const CLASSIC: &str = "classic";

pub(super) async fn delete_groups(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: DeleteGroupsRequest = decode(&request)?;
    drop(request);
    let groups = client.groups();
    // All at once, so that they share a commit.
    let deleting: Vec<_> = body.groups_names.into_iter().map(|id| (groups.delete(&id), id)).collect();
    let mut results = Vec::with_capacity(deleting.len());
    let until = commit_by();
    for (deleted, group_id) in deleting {
        let deleted = within(until, deleted).await;
        let error_code = deleted.map_or_else(|refused| group_error_code(refused.error).code(), |()| 0);
        results.push(DeletableGroupResult { group_id, error_code });
    }
    let error = first_error(results.iter().map(|r| r.error_code));
    Ok(call.reply(&DeleteGroupsResponse { results, ..Default::default() }, error))
}
