//! Topics and groups one by one, while there are not too many of them for the monitoring that keeps their samples.

use sabir_base::metrics::Exposition;
use sabir_broker::{
    Broker, Caller, CatalogView, GroupLag, MemberMemory, OTHER, PartitionStats, ReadTarget, Topic, Traffic,
};
use sabir_model::DEFAULT_NAMESPACE;

/// Positions looked at for each group that may be shown.
const POSITIONS: usize = 10;

/// Writes what is within the limit, and says what is not.
pub fn expose(broker: &Broker, limit: usize, out: &mut Exposition) {
    out.gauge("sabir_groups", "Consumer groups.", &[], signed(broker.group_count() as u64));
    let groups = broker.groups(&Caller::OPERATOR);
    member_memory(&groups.member_memory(), out);
    let help = "Memory of groups and positions without members, for which group.offset_memory is the bound.";
    out.gauge("sabir_groups_stored_bytes", help, &[], signed(groups.stored_bytes() as u64));
    let catalog = broker.catalog();
    traffic(broker, &catalog, out);
    if limit == 0 {
        return;
    }
    let topics_fit = catalog.len() <= limit;
    left_out(out, "sabir_topic_*", !topics_fit);
    if topics_fit {
        catalog.topics().for_each(|topic| one_topic(broker, topic, out));
    }
    let groups = match broker.group_count() <= limit {
        true => broker.all_groups_lag(limit.saturating_mul(POSITIONS)),
        false => None,
    };
    left_out(out, "sabir_group_*", groups.is_none());
    groups.iter().flatten().for_each(|group| one_group(broker, group, out));
}

/// What members of groups take of `group.member_memory`.
fn member_memory(memory: &MemberMemory, out: &mut Exposition) {
    let help = "Memory of what the members of all groups brought and were given, for which group.member_memory is the bound.";
    out.gauge("sabir_groups_member_bytes", help, &[], signed(memory.bytes as u64));
    let help = "Memory of the ids that were given to members which have not come back with them.";
    out.gauge("sabir_groups_pending_bytes", help, &[], signed(memory.pending_bytes as u64));
    let help = "Joins, assignments and commits refused since there was no room for groups, their members or their positions.";
    out.counter("sabir_groups_refused", help, &[], memory.refused);
}

/// Bytes in and out of the topics that are counted one by one, and of the others together.
fn traffic(broker: &Broker, catalog: &CatalogView, out: &mut Exposition) {
    let (most, other) = broker.other_traffic();
    // From their first byte on, or a first scrape after it would miss what came before.
    let all_fit = catalog.len() <= most;
    for topic in catalog.topics().filter(|topic| &*topic.name != OTHER) {
        match topic.traffic.own() {
            None if !all_fit => {}
            own => one_traffic(&named(topic), own.unwrap_or(&Traffic::default()), out),
        }
    }
    one_traffic(&[("topic", OTHER)], &other, out);
}

/// A topic of another namespace than the default one says which: there may be several of one name.
fn named(topic: &Topic) -> Vec<(&'static str, &str)> {
    let mut labels = vec![("topic", &*topic.name)];
    labels.extend((*topic.namespace != *DEFAULT_NAMESPACE).then_some(("namespace", &*topic.namespace)));
    labels
}

fn one_traffic(labels: &[(&'static str, &str)], traffic: &Traffic, out: &mut Exposition) {
    let help = "Bytes of the batches that were appended to the topic.";
    out.counter("sabir_topic_received_bytes", help, labels, traffic.received());
    let help = "Bytes of the topic's batches that consumers were answered with.";
    out.counter("sabir_topic_sent_bytes", help, labels, traffic.sent());
}

fn left_out(out: &mut Exposition, metrics: &str, left_out: bool) {
    let help = "Whether metrics of these names are left out, since there would be too many of them.";
    out.gauge("sabir_metrics_left_out", help, &[("metrics", metrics)], left_out.into());
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What a topic keeps, and how many records it was ever given.
pub fn totals(broker: &Broker, topic: &Topic) -> (PartitionStats, u64) {
    let kept = topic.partitions.iter().filter_map(|partition| {
        let target = ReadTarget::new(&Caller::OPERATOR, topic, partition.index).ok()?;
        broker.partition_stats(target).ok()
    });
    let mut sum = PartitionStats::default();
    for one in kept {
        sum.start.0 += one.start.0;
        sum.end.0 += one.end.0;
        sum.bytes += one.bytes;
    }
    let records = sum.end.0 - sum.start.0;
    (sum, u64::try_from(records).unwrap_or(0))
}

fn one_topic(broker: &Broker, topic: &Topic, out: &mut Exposition) {
    let labels = named(topic);
    let (sum, kept) = totals(broker, topic);
    let help = "Partitions of the topic.";
    out.gauge("sabir_topic_partitions", help, &labels, topic.partitions.len() as i64);
    let help = "Records that the topic was given since it was made.";
    out.counter("sabir_topic_records", help, &labels, u64::try_from(sum.end.0).unwrap_or(0));
    let help = "Offsets from the first to the last record kept, over all partitions.";
    out.gauge("sabir_topic_kept_records", help, &labels, signed(kept));
    let help = "Bytes of the batches that the topic keeps.";
    out.gauge("sabir_topic_kept_bytes", help, &labels, signed(sum.bytes));
}

/// A group of another front end or namespace than the first says which: there may be several of one name.
fn one_group(broker: &Broker, group: &GroupLag, out: &mut Exposition) {
    let id = &group.group.group;
    let owner = broker.owner_of(id).filter(|_| !id.is_bare()).unwrap_or_default();
    let mut labels = vec![("group", &*id.name)];
    if !id.is_bare() {
        labels.extend([("protocol", &*owner), ("namespace", id.namespace.as_str())]);
    }
    let help = "Members of the group.";
    out.gauge("sabir_group_members", help, &labels, signed(group.group.members as u64));
    for topic in &group.topics {
        let labels = [&labels[..1], &[("topic", &*topic.topic.name)], &labels[1..]].concat();
        let help = "Records of the topic that the group is behind, over the partitions it has positions in.";
        out.gauge("sabir_group_lag", help, &labels, signed(topic.lag()));
    }
}
