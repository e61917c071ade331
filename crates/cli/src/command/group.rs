//! `sabir group`.

use sabir_server::client::{Client, GroupInfo, GroupOffset, GroupSummary, MemberInfo, Start};
use serde_json::{Value, json};

use super::{block_on, in_time};
use crate::args::{ClientArgs, GroupCommand, ResetArgs, To};
use crate::failure::{CliError, Exit};
use crate::output::{Format, Show, Table, grouped, print};

pub fn run(command: GroupCommand, client: &ClientArgs) -> Result<(), CliError> {
    block_on(dispatch(command, client))
}

async fn dispatch(command: GroupCommand, args: &ClientArgs) -> Result<(), CliError> {
    let mut client = args.connect().await?;
    match command {
        GroupCommand::List { output } => {
            let groups = in_time(args.timeout.0, client.groups()).await?;
            Ok(print(output.output, &List(groups))?)
        }
        GroupCommand::Describe { groups, output } => {
            let mut found = Vec::new();
            for id in &groups {
                found.push(in_time(args.timeout.0, client.group(id)).await?);
            }
            Ok(print(output.output, &Details(found))?)
        }
        GroupCommand::Lag { groups, output } => {
            let mut found = Vec::new();
            for id in groups {
                let offsets = in_time(args.timeout.0, client.group_offsets(&id)).await?;
                found.push((id, offsets));
            }
            Ok(print(output.output, &Lag(found))?)
        }
        GroupCommand::Reset(reset) => reset_offsets(&mut *client, args, reset).await,
        GroupCommand::Delete { groups, dry_run, output } => {
            delete(&mut *client, args, groups, dry_run, output.output).await
        }
    }
}

async fn delete(
    client: &mut dyn Client,
    args: &ClientArgs,
    groups: Vec<String>,
    dry_run: bool,
    format: Format,
) -> Result<(), CliError> {
    // All must be there, and without members, before the first is gone.
    for id in &groups {
        let group = in_time(args.timeout.0, client.group(id)).await?;
        if !group.members.is_empty() {
            let problem = format!("group {id} has {} members", group.members.len());
            return Err(CliError::new(Exit::Refused, problem).advise("Stop its consumers first."));
        }
    }
    let mut done = Vec::new();
    for id in groups {
        if !dry_run {
            in_time(args.timeout.0, client.delete_group(&id)).await?;
        }
        done.push((id, if dry_run { "would be deleted" } else { "deleted" }));
    }
    Ok(print(format, &Done(done))?)
}

async fn reset_offsets(client: &mut dyn Client, args: &ClientArgs, reset: ResetArgs) -> Result<(), CliError> {
    let committed = in_time(args.timeout.0, client.group_offsets(&reset.group)).await?;
    let mut topics = reset.topics.clone();
    if topics.is_empty() {
        topics = committed.iter().map(|o| o.topic.clone()).collect();
        topics.dedup();
    }
    if topics.is_empty() {
        let problem = format!("group {} has committed nothing", reset.group);
        return Err(CliError::new(Exit::NotFound, problem).advise("Name the topics with --topic."));
    }
    let mut moves = Vec::new();
    for topic in topics {
        let asking = client.positions(&topic, reset.partition, start(&reset.to));
        for position in in_time(args.timeout.0, asking).await? {
            let before = committed.iter().find(|o| o.topic == topic && o.partition == position.partition);
            moves.push(Move {
                topic: topic.clone(),
                partition: position.partition,
                before: before.map(|o| o.committed),
                after: position.next,
                end: position.end,
            });
        }
    }
    if !reset.dry_run {
        let offsets: Vec<_> = moves.iter().map(|m| (m.topic.clone(), m.partition, m.after)).collect();
        in_time(args.timeout.0, client.commit(&reset.group, &offsets)).await?;
    }
    let shown = Moves { group: reset.group, moves, outcome: if reset.dry_run { "would be" } else { "is" } };
    Ok(print(reset.output.output, &shown)?)
}

fn start(to: &To) -> Start {
    match (to.earliest, to.latest, to.offset, to.since) {
        (true, ..) => Start::Earliest,
        (_, true, ..) => Start::Latest,
        (_, _, Some(offset), _) => Start::Offset(offset),
        (_, _, _, Some(since)) => Start::Time(since.at()),
        // The grammar asks for one of them.
        _ => Start::Earliest,
    }
}

struct List(Vec<GroupSummary>);

fn summary(g: &GroupSummary) -> Value {
    json!({"group": g.id, "state": g.state, "kind": g.kind})
}

impl Show for List {
    fn json(&self) -> Value {
        self.0.iter().map(summary).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let rows = self.0.iter().map(|g| vec![g.id.clone(), g.state.clone(), g.kind.clone()]).collect();
        vec![Table { title: None, head: vec!["GROUP", "STATE", "KIND"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|g| g.id.clone()).collect()
    }
}

struct Details(Vec<GroupInfo>);

impl Show for Details {
    fn json(&self) -> Value {
        let assigned = |m: &MemberInfo| -> Value {
            m.assigned
                .iter()
                .map(|(topic, partition)| json!({"topic": topic, "partition": partition}))
                .collect()
        };
        let member = |m: &MemberInfo| {
            json!({"member": m.id, "instance": m.instance, "client": m.client, "host": m.host,
                   "assigned": assigned(m)})
        };
        let group = |g: &GroupInfo| {
            let members: Value = g.members.iter().map(member).collect();
            json!({"group": g.summary.id, "state": g.summary.state, "kind": g.summary.kind,
                   "assignor": g.assignor, "coordinator": g.coordinator, "members": members})
        };
        self.0.iter().map(group).collect()
    }

    fn tables(&self) -> Vec<Table> {
        self.0.iter().map(detail_table).collect()
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|g| g.summary.id.clone()).collect()
    }
}

fn detail_table(group: &GroupInfo) -> Table {
    let row = |m: &MemberInfo| {
        let assigned: Vec<_> =
            m.assigned.iter().map(|(topic, partition)| format!("{topic}-{partition}")).collect();
        let instance = m.instance.clone().unwrap_or_else(|| "-".into());
        vec![m.client.clone(), instance, m.host.clone(), assigned.join(","), m.id.clone()]
    };
    let GroupSummary { id, state, .. } = &group.summary;
    Table {
        title: Some(format!("{id}  {state}  {}", group.assignor)),
        head: vec!["CLIENT", "INSTANCE", "HOST", "PARTITIONS", "MEMBER"],
        rows: group.members.iter().map(row).collect(),
    }
}

struct Lag(Vec<(String, Vec<GroupOffset>)>);

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

struct Move {
    topic: String,
    partition: i32,
    before: Option<i64>,
    after: i64,
    end: i64,
}

struct Moves {
    group: String,
    moves: Vec<Move>,
    outcome: &'static str,
}

impl Show for Moves {
    fn json(&self) -> Value {
        let one = |m: &Move| {
            json!({"topic": m.topic, "partition": m.partition, "before": m.before, "after": m.after,
                   "lag": (m.end - m.after).max(0)})
        };
        let moves: Value = self.moves.iter().map(one).collect();
        json!({"group": self.group, "outcome": format!("{} reset", self.outcome), "partitions": moves})
    }

    fn tables(&self) -> Vec<Table> {
        let row = |m: &Move| {
            let before = m.before.map_or("-".into(), |b| b.to_string());
            let lag = grouped((m.end - m.after).max(0) as u64);
            vec![m.topic.clone(), m.partition.to_string(), before, m.after.to_string(), lag]
        };
        vec![Table {
            title: Some(format!("{} {} reset", self.group, self.outcome)),
            head: vec!["TOPIC", "PARTITION", "BEFORE", "AFTER", "LAG"],
            rows: self.moves.iter().map(row).collect(),
        }]
    }

    fn names(&self) -> Vec<String> {
        vec![self.group.clone()]
    }
}

/// What became of each group.
struct Done(Vec<(String, &'static str)>);

impl Show for Done {
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
