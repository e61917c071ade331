//! Groups on stdout.

use sabir_server::client::{GroupInfo, GroupOffset, GroupSummary, MemberInfo};
use serde_json::{Value, json};

use crate::output::{Show, Table, grouped, known};

pub struct GroupsListed(pub Vec<GroupSummary>);

impl Show for GroupsListed {
    fn json(&self) -> Value {
        let one = |g: &GroupSummary| {
            json!({"group": g.id, "state": known(&g.state), "kind": known(&g.kind), "protocol": g.protocol,
                   "namespace": g.namespace})
        };
        self.0.iter().map(one).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let mut head = vec!["GROUP", "STATE", "KIND"];
        let mut rows: Vec<_> =
            self.0.iter().map(|g| vec![g.id.clone(), g.state.clone(), g.kind.clone()]).collect();
        // A protocol's own list does not say whose they are.
        if self.0.iter().any(|g| g.namespace.is_some()) {
            head.extend(["PROTOCOL", "NAMESPACE"]);
            for (row, g) in rows.iter_mut().zip(&self.0) {
                row.extend(
                    [&g.protocol, &g.namespace].map(|said| said.clone().unwrap_or_else(|| "-".into())),
                );
            }
        }
        vec![Table { title: None, head, rows }]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|g| g.id.clone()).collect()
    }
}

/// How far a group is in a partition.
pub struct Progress {
    pub topic: String,
    pub partition: i32,
    /// None where it has read nothing yet.
    pub committed: Option<i64>,
    /// None where the partition is gone.
    pub end: Option<i64>,
}

impl From<GroupOffset> for Progress {
    fn from(o: GroupOffset) -> Self {
        Self { topic: o.topic, partition: o.partition, committed: Some(o.committed), end: o.end }
    }
}

impl Progress {
    fn lag(&self) -> Option<u64> {
        Some((self.end? - self.committed?).max(0) as u64)
    }
}

/// All that there is to say about a group.
pub struct Detail {
    pub info: GroupInfo,
    pub partitions: Vec<Progress>,
}

impl Detail {
    fn lag(&self) -> u64 {
        self.partitions.iter().filter_map(Progress::lag).sum()
    }

    /// The member that reads a partition.
    fn member(&self, progress: &Progress) -> Option<&MemberInfo> {
        let reads = |m: &&MemberInfo| {
            m.assigned.iter().any(|(topic, p)| *topic == progress.topic && *p == progress.partition)
        };
        self.info.members.iter().find(reads)
    }
}

pub struct GroupsDescribed(pub Vec<Detail>);

impl Show for GroupsDescribed {
    fn json(&self) -> Value {
        self.0.iter().map(detail_json).collect()
    }

    fn tables(&self) -> Vec<Table> {
        self.0.iter().flat_map(detail_tables).collect()
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|d| d.info.summary.id.clone()).collect()
    }
}

fn detail_json(detail: &Detail) -> Value {
    let assigned = |m: &MemberInfo| -> Value {
        m.assigned.iter().map(|(topic, partition)| json!({"topic": topic, "partition": partition})).collect()
    };
    let member = |m: &MemberInfo| {
        json!({"member": m.id, "instance": m.instance, "client": known(&m.client), "host": known(&m.host),
               "assigned": assigned(m)})
    };
    let partition = |p: &Progress| {
        let member = detail.member(p).map(|m| m.id.clone());
        json!({"topic": p.topic, "partition": p.partition, "committed": p.committed, "end": p.end,
               "lag": p.lag(), "member": member})
    };
    let GroupInfo { summary, assignor, coordinator, members } = &detail.info;
    let members: Value = members.iter().map(member).collect();
    let partitions: Value = detail.partitions.iter().map(partition).collect();
    json!({"group": summary.id, "state": known(&summary.state), "kind": known(&summary.kind),
           "assignor": known(assignor), "coordinator": coordinator, "lag": detail.lag(), "members": members, "partitions": partitions})
}

fn detail_tables(detail: &Detail) -> Vec<Table> {
    let member = |m: &MemberInfo| {
        let assigned: Vec<_> =
            m.assigned.iter().map(|(topic, partition)| format!("{topic}-{partition}")).collect();
        let instance = m.instance.clone().unwrap_or_else(|| "-".into());
        vec![m.client.clone(), instance, m.host.clone(), assigned.join(","), m.id.clone()]
    };
    let partition = |p: &Progress| {
        let number = |n: Option<String>, none: &str| n.unwrap_or_else(|| none.into());
        let committed = number(p.committed.map(|c| c.to_string()), "-");
        let end = number(p.end.map(|e| e.to_string()), "gone");
        let lag = number(p.lag().map(grouped), "-");
        let client = detail.member(p).map_or("-".into(), |m| m.client.clone());
        vec![p.topic.clone(), p.partition.to_string(), committed, end, lag, client]
    };
    let GroupSummary { id, state, .. } = &detail.info.summary;
    let title = [id, state, &detail.info.assignor].map(String::as_str).join("  ");
    let mut tables = Vec::new();
    if !detail.info.members.is_empty() {
        let head = vec!["CLIENT", "INSTANCE", "HOST", "PARTITIONS", "MEMBER"];
        let rows = detail.info.members.iter().map(member).collect();
        tables.push(Table { title: Some(title.trim_end().into()), head, rows });
    }
    tables.push(Table {
        title: Some(format!("{id}  {state}: {} behind", grouped(detail.lag()))),
        head: vec!["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "CLIENT"],
        rows: detail.partitions.iter().map(partition).collect(),
    });
    tables
}

pub struct Lag(pub Vec<(String, Vec<GroupOffset>)>);

fn lag(offset: &GroupOffset) -> Option<u64> {
    offset.end.map(|end| (end - offset.committed).max(0) as u64)
}

impl Show for Lag {
    fn json(&self) -> Value {
        let offset = |o: &GroupOffset| {
            json!({"topic": o.topic, "partition": o.partition, "committed": o.committed, "end": o.end,
                   "lag": lag(o)})
        };
        let group = |(id, offsets): &(String, Vec<GroupOffset>)| {
            let total: u64 = offsets.iter().filter_map(lag).sum();
            let partitions: Value = offsets.iter().map(offset).collect();
            json!({"group": id, "lag": total, "partitions": partitions})
        };
        self.0.iter().map(group).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let number = |n: Option<String>| n.unwrap_or_else(|| "gone".into());
        let row = |o: &GroupOffset| {
            let end = number(o.end.map(|e| e.to_string()));
            let lag = number(lag(o).map(grouped));
            vec![o.topic.clone(), o.partition.to_string(), o.committed.to_string(), end, lag]
        };
        let table = |(id, offsets): &(String, Vec<GroupOffset>)| {
            let total: u64 = offsets.iter().filter_map(lag).sum();
            Table {
                title: Some(format!("{id}: {} behind", grouped(total))),
                head: vec!["TOPIC", "PARTITION", "COMMITTED", "END", "LAG"],
                rows: offsets.iter().map(row).collect(),
            }
        };
        self.0.iter().map(table).collect()
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|(id, _)| id.clone()).collect()
    }
}

/// What became of each group.
pub struct GroupOutcomes(pub Vec<(String, &'static str)>);

impl Show for GroupOutcomes {
    fn json(&self) -> Value {
        self.0.iter().map(|(id, outcome)| json!({"group": id, "outcome": outcome})).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let rows = self.0.iter().map(|(id, outcome)| vec![id.clone(), (*outcome).into()]).collect();
        vec![Table { title: None, head: vec!["GROUP", "OUTCOME"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|(id, _)| id.clone()).collect()
    }
}
