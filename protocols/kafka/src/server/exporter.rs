//! Offsets, members and lag under the names and labels of kafka_exporter, so that its dashboards and alerts serve here too.
//!
//! A node has one sample or more for each partition, and for each position that a group has committed; where there are more of
//! them than `kafka.exporter_partitions`, those are left out, and `sabir_metrics_left_out` says so.

use sabir_base::metrics::Exposition;
use sabir_broker::{CatalogView, GroupLag, PartitionLag, ReadTarget, Topic, TopicLag};

use crate::server::frontend::{CALLER, KafkaFrontend};
use crate::server::names;

/// How many more positions are summed up than are shown one by one.
const SUMMED: usize = 10;

/// What kafka_exporter shows of a partition that a group has no position in, though it has one in the topic.
const NONE: i64 = -1;

/// Writes everything, if it is wanted.
pub(crate) fn expose(kafka: &KafkaFrontend, out: &mut Exposition) {
    let limit = kafka.config.exporter_partitions;
    if limit == 0 {
        return;
    }
    let catalog = kafka.broker.catalog();
    nodes(kafka, out);
    let partitions_fit = topics(kafka, &catalog, limit, out);
    left_out(out, "kafka_topic_partition_*", !partitions_fit);
    let survey = kafka.broker.groups_lag(&CALLER, limit.saturating_mul(SUMMED));
    left_out(out, "kafka_consumergroup_*", survey.is_none());
    let groups = survey.unwrap_or_default();
    let positions_fit = positions(&groups) <= limit;
    left_out(out, "kafka_consumergroup_*{partition}", !positions_fit);
    groups.iter().for_each(|group| group_sums(group, out));
    if positions_fit {
        groups.iter().for_each(|group| group_partitions(group, out));
    }
}

fn left_out(out: &mut Exposition, of: &str, left_out: bool) {
    let help = "Whether metrics of these names are left out, since there would be too many of them.";
    out.gauge("sabir_metrics_left_out", help, &[("metrics", of)], left_out.into());
}

fn nodes(kafka: &KafkaFrontend, out: &mut Exposition) {
    out.gauge("kafka_brokers", "Number of brokers in the cluster.", &[], 1);
    let (id, address) = (kafka.node_id().to_string(), kafka.shown_address());
    out.info("kafka_broker", "The broker's id and address.", &[("id", &id), ("address", &address)]);
}

/// Tells whether the partitions are shown one by one.
fn topics(kafka: &KafkaFrontend, catalog: &CatalogView, limit: usize, out: &mut Exposition) -> bool {
    let seen = || names::shown(catalog, &CALLER);
    if catalog.len() <= limit {
        for topic in seen() {
            let help = "Number of partitions of the topic.";
            let labels = [("topic", &*names::client_name(&topic.name))];
            out.gauge("kafka_topic_partitions", help, &labels, topic.partitions.len() as i64);
        }
    }
    let fit = catalog.partitions() <= limit;
    if fit {
        seen().for_each(|topic| topic_partitions(kafka, topic, out));
    }
    fit
}

fn topic_partitions(kafka: &KafkaFrontend, topic: &Topic, out: &mut Exposition) {
    let name = names::client_name(&topic.name);
    for partition in &topic.partitions {
        let target = ReadTarget::new(&CALLER, topic, partition.index);
        let Ok(kept) = target.and_then(|target| kafka.broker.partition_stats(target)) else { continue };
        let leader = kafka.leader(partition).map_or(NONE, |(leader, _)| leader.into());
        let led = i64::from(leader >= 0);
        let number = partition.index.to_string();
        let labels = [("topic", &*name), ("partition", &*number)];
        for (metric, help, value) in [
            ("kafka_topic_partition_current_offset", "The offset behind the last record.", kept.end.0),
            ("kafka_topic_partition_oldest_offset", "The first offset.", kept.start.0),
            ("kafka_topic_partition_leader", "The leader's id; -1 if there is none.", leader),
            ("kafka_topic_partition_replicas", "Number of replicas.", 1),
            ("kafka_topic_partition_in_sync_replica", "Number of in-sync replicas.", led),
            ("kafka_topic_partition_leader_is_preferred", "Whether the preferred replica leads.", led),
            ("kafka_topic_partition_under_replicated_partition", "Whether a replica is missing.", 1 - led),
        ] {
            out.gauge(metric, help, &labels, value);
        }
    }
}

fn positions(groups: &[GroupLag]) -> usize {
    // As many as there are partitions: those without a position are shown too.
    groups.iter().flat_map(|group| &group.topics).map(|topic| topic.topic.partitions.len()).sum()
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn group_sums(group: &GroupLag, out: &mut Exposition) {
    let id = &*group.group.group.name;
    let help = "Number of members of the group.";
    out.gauge(
        "kafka_consumergroup_members",
        help,
        &[("consumergroup", id)],
        signed(group.group.members as u64),
    );
    for topic in &group.topics {
        let labels = [("consumergroup", id), ("topic", &*names::client_name(&topic.topic.name))];
        let sum = topic.partitions.iter().map(|p| p.committed.0).fold(0, i64::saturating_add);
        let help = "The sum of the group's positions in the topic.";
        out.gauge("kafka_consumergroup_current_offset_sum", help, &labels, sum);
        let help = "How many records of the topic the group is behind.";
        out.gauge("kafka_consumergroup_lag_sum", help, &labels, signed(topic.lag()));
    }
}

fn group_partitions(group: &GroupLag, out: &mut Exposition) {
    for topic in &group.topics {
        let name = names::client_name(&topic.topic.name);
        for (number, position) in every_partition(topic) {
            let number = number.to_string();
            let labels =
                [("consumergroup", &*group.group.group.name), ("topic", &*name), ("partition", &*number)];
            let (offset, lag) = position.map_or((NONE, NONE), |p| (p.committed.0, signed(p.lag())));
            let help = "The group's position in the partition; -1 if it has none.";
            out.gauge("kafka_consumergroup_current_offset", help, &labels, offset);
            let help = "How many records of the partition the group is behind; -1 if it has no position.";
            out.gauge("kafka_consumergroup_lag", help, &labels, lag);
        }
    }
}

/// All partitions of the topic, with the group's position where it has one.
fn every_partition(topic: &TopicLag) -> impl Iterator<Item = (i32, Option<PartitionLag>)> {
    let mut known = topic.partitions.iter().peekable();
    topic.topic.partitions.iter().map(move |partition| {
        (partition.index, known.next_if(|position| position.partition == partition.index).copied())
    })
}
