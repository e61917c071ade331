//! Consumer groups as an operator sees them.

use bytes::Bytes;
use sabir_frontend::client::{GroupInfo, GroupSummary, MemberInfo};

use super::{Error, KafkaClient};
use crate::wire::messages::delete_groups::DeleteGroupsRequest;
use crate::wire::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup, DescribedGroupMember};
use crate::wire::messages::list_groups::ListGroupsRequest;
use crate::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use crate::wire::{ApiKey, ErrorCode, Reader, WireError};

impl KafkaClient {
    /// Every group of every node, by id.
    ///
    /// # Errors
    /// A node does not answer, or refuses.
    pub async fn list_groups(&self) -> Result<Vec<GroupSummary>, Error> {
        patiently(self, async || self.list_groups_once().await).await
    }

    async fn list_groups_once(&self) -> Result<Vec<GroupSummary>, Error> {
        let nodes: Vec<i32> = self.metadata(Some(&[])).await?.brokers.iter().map(|b| b.node_id).collect();
        let mut groups = Vec::new();
        for node in nodes {
            let response = self.node(node).await?.call(&ListGroupsRequest::default()).await?;
            Error::check(ApiKey::ListGroups, response.error_code, String::new)?;
            groups.extend(response.groups.into_iter().map(|g| GroupSummary {
                id: g.group_id.to_string(),
                state: g.group_state.to_string(),
                kind: g.protocol_type.to_string(),
                ..GroupSummary::default()
            }));
        }
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(groups)
    }

    /// A group's members and what is dealt to them.
    ///
    /// # Errors
    /// There is no such group, or its coordinator does not answer.
    pub async fn describe_group(&self, group: &str) -> Result<GroupInfo, Error> {
        patiently(self, async || self.describe_group_once(group).await).await
    }

    async fn describe_group_once(&self, group: &str) -> Result<GroupInfo, Error> {
        let coordinator = self.coordinator(group).await?;
        let request = DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() };
        let response = coordinator.call(&request).await?;
        let unknown = || broker_error(ApiKey::DescribeGroups, ErrorCode::GroupIdNotFound, group);
        let described = response.groups.into_iter().next().ok_or_else(unknown)?;
        Error::check(ApiKey::DescribeGroups, described.error_code, || group.to_owned())?;
        // Before version 6 a group that does not exist is one that is dead.
        if described.group_state == *"Dead" {
            return Err(unknown());
        }
        group_info(described, coordinator.address())
    }

    /// Deletes a group without members.
    ///
    /// # Errors
    /// There is no such group, or it has members.
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        patiently(self, async || self.delete_group_once(group).await).await
    }

    async fn delete_group_once(&self, group: &str) -> Result<(), Error> {
        let coordinator = self.coordinator(group).await?;
        let request = DeleteGroupsRequest { groups_names: vec![group.into()] };
        let response = coordinator.call(&request).await?;
        let code = response.results.first().map_or(ErrorCode::UnknownServerError.code(), |r| r.error_code);
        Error::check(ApiKey::DeleteGroups, code, || group.to_owned())
    }

    /// Deletes what a group has committed of these partitions of a topic that its members do not read.
    ///
    /// # Errors
    /// There is no such group or partition, or its members read the topic.
    pub async fn delete_offsets(&self, group: &str, topic: &str, partitions: &[i32]) -> Result<(), Error> {
        patiently(self, async || self.delete_offsets_once(group, topic, partitions).await).await
    }

    async fn delete_offsets_once(&self, group: &str, topic: &str, partitions: &[i32]) -> Result<(), Error> {
        let coordinator = self.coordinator(group).await?;
        let partition = |&partition_index: &i32| OffsetDeleteRequestPartition { partition_index };
        let partitions = partitions.iter().map(partition).collect();
        let topics = vec![OffsetDeleteRequestTopic { name: topic.into(), partitions }];
        let request = OffsetDeleteRequest { group_id: group.into(), topics };
        let response = coordinator.call(&request).await?;
        Error::check(ApiKey::OffsetDelete, response.error_code, || group.to_owned())?;
        for deleted in response.topics.iter().flat_map(|t| &t.partitions) {
            let about = || format!("group {group}, {topic}-{}", deleted.partition_index);
            Error::check(ApiKey::OffsetDelete, deleted.error_code, about)?;
        }
        Ok(())
    }
}

/// Asks again while the answer is an error that passes by itself: a coordinator that loads, or has moved.
async fn patiently<T>(client: &KafkaClient, ask: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let patience = client.patience();
    loop {
        let answer = ask().await;
        if !patience.again(&answer).await {
            return answer;
        }
    }
}

fn broker_error(api: ApiKey, code: ErrorCode, about: &str) -> Error {
    Error::Broker { api, code, message: about.into() }
}

fn group_info(group: DescribedGroup, coordinator: &str) -> Result<GroupInfo, Error> {
    let consumers = group.protocol_type == *"consumer";
    let members = group.members.iter().map(|m| member_info(m, consumers)).collect::<Result<_, _>>()?;
    Ok(GroupInfo {
        summary: GroupSummary {
            id: group.group_id.to_string(),
            state: group.group_state.to_string(),
            kind: group.protocol_type.to_string(),
            ..GroupSummary::default()
        },
        assignor: group.protocol_data.to_string(),
        coordinator: Some(coordinator.to_owned()),
        members,
    })
}

fn member_info(member: &DescribedGroupMember, consumer: bool) -> Result<MemberInfo, Error> {
    // Other kinds of group (Connect, Schema Registry) have assignments of their own making.
    let assigned = if consumer { assignment(&member.member_assignment) } else { Ok(Vec::new()) };
    let assigned = assigned.map_err(|source| Error::Wire { api: ApiKey::DescribeGroups, source })?;
    Ok(MemberInfo {
        id: member.member_id.to_string(),
        instance: member.group_instance_id.as_ref().map(|i| i.to_string()),
        client: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assigned,
    })
}

/// Kafka's ConsumerProtocolAssignment: a version, then (topic, partitions). What follows is the assignor's own.
fn assignment(bytes: &Bytes) -> Result<Vec<(String, i32)>, WireError> {
    let mut assigned = Vec::new();
    if bytes.is_empty() {
        return Ok(assigned);
    }
    let mut r = Reader::new(bytes);
    r.i16()?;
    for _ in 0..r.i32()? {
        let length = r.i16()?.max(0) as usize;
        let topic = String::from_utf8_lossy(&r.bytes(length)?).into_owned();
        for _ in 0..r.i32()? {
            assigned.push((topic.clone(), r.i32()?));
        }
    }
    Ok(assigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments() {
        let bytes = b"\0\x01\0\0\0\x01\0\x02ab\0\0\0\x02\0\0\0\x05\0\0\0\x07\xff\xff\xff\xff";
        let want = vec![("ab".to_owned(), 5), ("ab".to_owned(), 7)];
        assert_eq!(assignment(&Bytes::from_static(bytes)).unwrap(), want);
        assert_eq!(assignment(&Bytes::new()).unwrap(), vec![]);
        // A count that the bytes cannot hold ends with them.
        assert!(assignment(&Bytes::from_static(b"\0\x01\x7f\xff\xff\xff\0\x02ab")).is_err());
    }
}
