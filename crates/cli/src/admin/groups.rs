//! The administration of consumer groups by way of the admin port.

use hyper::Method;
use sabir_server::client::{
    ClientError, GroupAdmin, GroupInfo, GroupOffset, GroupSummary, LocalFuture, MemberInfo,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AdminClient, escaped};

/// Groups asked for at once.
const PAGE: usize = 1000;
/// Positions in one request, whose body may have 64 KiB.
const POSITIONS: usize = 50;

#[derive(Deserialize)]
struct ListedGroups {
    groups: Vec<ListedGroup>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct ListedGroup {
    group: String,
    state: String,
    kind: String,
    #[serde(default)]
    owner: ShownOwner,
}

/// Absent where a broker of an earlier version answers.
#[derive(Default, Deserialize)]
struct ShownOwner {
    protocol: Option<String>,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct ShownGroup {
    #[serde(flatten)]
    summary: ListedGroup,
    protocol: Option<String>,
    members: Vec<ShownMember>,
    offsets: Vec<ShownOffset>,
}

#[derive(Deserialize)]
struct ShownMember {
    member: String,
    instance: Option<String>,
    client: String,
    host: String,
}

#[derive(Deserialize)]
struct ShownOffset {
    topic: String,
    partition: i32,
    committed: i64,
    end: i64,
}

impl From<ListedGroup> for GroupSummary {
    fn from(group: ListedGroup) -> Self {
        let ShownOwner { protocol, namespace } = group.owner;
        Self { id: group.group, state: group.state, kind: group.kind, protocol, namespace }
    }
}

impl From<ShownMember> for MemberInfo {
    fn from(member: ShownMember) -> Self {
        let ShownMember { member: id, instance, client, host } = member;
        // What it is dealt is between the members and their protocol.
        Self { id, instance, client, host, assigned: Vec::new() }
    }
}

impl From<ShownOffset> for GroupOffset {
    fn from(offset: ShownOffset) -> Self {
        let ShownOffset { topic, partition, committed, end } = offset;
        Self { topic, partition, committed, end: Some(end) }
    }
}

impl AdminClient {
    fn group_path(&self, id: &str, below: &str) -> String {
        format!("/groups/{}{below}{}", escaped(id), self.owner.of_groups(""))
    }

    async fn group(&self, id: &str) -> Result<ShownGroup, ClientError> {
        self.get(&self.group_path(id, "")).await
    }

    async fn patch_offsets(&self, id: &str, offsets: impl Iterator<Item = Value>) -> Result<(), ClientError> {
        let path = self.group_path(id, "/offsets");
        let offsets: Vec<Value> = offsets.collect();
        for part in offsets.chunks(POSITIONS) {
            self.order(Method::PATCH, &path, Some(json!({"offsets": part}))).await?;
        }
        Ok(())
    }
}

impl GroupAdmin for AdminClient {
    fn list(&mut self) -> LocalFuture<'_, Vec<GroupSummary>> {
        Box::pin(async move {
            let mut all: Vec<GroupSummary> = Vec::new();
            let mut rest = format!("limit={PAGE}");
            loop {
                let path = format!("/groups{}", self.owner.of_groups(&rest));
                let part: ListedGroups = self.get(&path).await?;
                all.extend(part.groups.into_iter().map(GroupSummary::from));
                let Some(next) = part.next else { return Ok(all) };
                rest = format!("limit={PAGE}&after={}", escaped(&next));
            }
        })
    }

    fn describe<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, GroupInfo> {
        Box::pin(async move {
            let ShownGroup { summary, protocol, members, .. } = self.group(id).await?;
            let members = members.into_iter().map(MemberInfo::from).collect();
            let assignor = protocol.unwrap_or_default();
            Ok(GroupInfo { summary: summary.into(), assignor, coordinator: None, members })
        })
    }

    fn offsets<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, Vec<GroupOffset>> {
        Box::pin(
            async move { Ok(self.group(id).await?.offsets.into_iter().map(GroupOffset::from).collect()) },
        )
    }

    fn commit<'a>(&'a mut self, id: &'a str, offsets: &'a [(String, i32, i64)]) -> LocalFuture<'a, ()> {
        Box::pin(async move {
            let position = |(topic, partition, offset): &(String, i32, i64)| json!({"topic": topic, "partition": partition, "offset": offset});
            self.patch_offsets(id, offsets.iter().map(position)).await
        })
    }

    fn delete<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, ()> {
        Box::pin(async move { self.order(Method::DELETE, &self.group_path(id, ""), None).await })
    }

    fn delete_offsets<'a>(
        &'a mut self,
        id: &'a str,
        topic: &'a str,
        partitions: &'a [i32],
    ) -> LocalFuture<'a, ()> {
        Box::pin(async move {
            let gone = |partition: &i32| json!({"topic": topic, "partition": partition, "offset": null});
            self.patch_offsets(id, partitions.iter().map(gone)).await
        })
    }
}
