//! What the configuration says, in the broker's terms.

use sabir_broker::exchange::ExchangeOptions;
use sabir_broker::{BrokerOptions, DiskKind, GroupLimits, GroupOptions};
use sabir_frontend::config::Span;
use sabir_model::{Durability, NodeId, TimestampType, TopicConfig};
use sabir_net::{ListenOptions, machine_name};

use super::ServerConfig;
use super::sections::{DiskSetting, TopicSection, WritesSetting};
use super::sections::{DurabilitySetting, Timestamp};

impl ServerConfig {
    /// The admin port's options.
    pub fn admin_options(&self) -> sabir_admin::Options {
        sabir_admin::Options {
            writes: match self.admin.writes {
                WritesSetting::Off => sabir_admin::Writes::Off,
                WritesSetting::Loopback => sabir_admin::Writes::Loopback,
                WritesSetting::Anywhere => sabir_admin::Writes::Anywhere,
            },
            hosts: self.admin_hosts(),
            metrics_limit: self.admin.metrics_limit,
            prefixes: self.front_ends.iter().filter_map(|f| f.configured.http_prefix()).collect(),
            ..sabir_admin::Options::default()
        }
    }

    /// Names that are this machine's, or the user's.
    fn admin_hosts(&self) -> Vec<String> {
        let mut hosts = self.admin.hosts.0.clone();
        hosts.extend_from_slice(&self.admin.listen.names);
        hosts.push(machine_name());
        hosts
    }

    /// Where the admin port listens; at no address where it is off.
    pub(crate) fn admin_listen(&self) -> ListenOptions {
        ListenOptions {
            section: "admin",
            addresses: super::plain(&self.admin.listen.addresses),
            anonymous: self.admin.anonymous,
            max_connections: usize::MAX,
        }
    }

    /// The broker's options.
    pub fn broker_options(&self) -> BrokerOptions {
        let data = &self.data;
        let defaults = BrokerOptions::new(&data.dir);
        BrokerOptions {
            data_shards: data.shards.0.map_or(defaults.data_shards, u32::from),
            data_shards_auto: data.shards.0.is_none(),
            format_level: data.format_level.0.map(u32::from),
            disk: match data.disk {
                DiskSetting::Auto => DiskKind::Auto,
                DiskSetting::IoUring => DiskKind::Uring,
                DiskSetting::Pwrite => DiskKind::Pwrite,
            },
            node_id: NodeId(self.node.id.into()),
            defaults: topic_config(&self.topic),
            durability: match data.durability {
                DurabilitySetting::Sync => Durability::Sync,
                DurabilitySetting::Os => Durability::Os,
            },
            tail_cache_bytes: data.tail_cache_bytes() as usize,
            checkpoint_bytes: data.checkpoint_bytes.0,
            checkpoint_entries: data.checkpoint_entries,
            idle_check: data.idle_check.0,
            retention_interval: data.retention_interval.0,
            producer_expiry: data.producer_expiry.0,
            partition_producers_max: data.partition_producers.get(),
            producers_max: data.most_producers(),
            open_bytes_max: data.open_bytes() as usize,
            keep_free: data.keep_free.0,
            partitions_max: self.topic.max_partitions,
            partitions_total_max: self.topic.most_partitions(),
            settings_max: self.topic.settings_bytes() as usize,
            dedup_max: self.topic.dedup_bytes() as usize,
            reserved: self.reserved.clone(),
            of_clients: self.of_clients.clone(),
            generated: self.generated.clone(),
            front_ends: self.protocols.clone(),
            unnamed_groups: self.converters.iter().find(|c| c.reads_unnamed).map(|c| c.front_end),
            projections: self.projections.clone(),
            converters: self.converters.clone(),
            exchanges: ExchangeOptions {
                bytes_max: self.topic.exchange_bytes() as usize,
                predeclared: self.exchanges.clone(),
                ..ExchangeOptions::default()
            },
            counted_topics_max: self.admin.counted_topics,
            groups: group_options(&self.group),
            ..defaults
        }
    }
}

fn group_options(group: &super::sections::GroupSection) -> GroupOptions {
    let defaults = GroupLimits::default();
    let ms = |span: Span| i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX);
    GroupOptions {
        limits: GroupLimits {
            initial_rebalance_delay_ms: ms(group.initial_rebalance_delay),
            min_session_timeout_ms: ms(group.min_session_timeout),
            max_session_timeout_ms: ms(group.max_session_timeout),
            max_members: group.max_members.get(),
            ..defaults
        },
        offsets_retention: group.offsets_retention.0,
        max_groups: group.max_groups.get(),
        max_member_bytes: group.member_bytes() as usize,
        max_offset_bytes: group.offset_bytes() as usize,
    }
}

fn topic_config(topic: &TopicSection) -> TopicConfig {
    let bounded = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    TopicConfig {
        retention_ms: topic.retention.0.map(|span| bounded(span.0.as_millis() as u64)),
        retention_bytes: topic.retention_size.0.map(|size| bounded(size.0)),
        max_message_bytes: u32::try_from(topic.max_message.0).unwrap_or(u32::MAX),
        timestamp_type: match topic.timestamp {
            Timestamp::Create => TimestampType::CreateTime,
            Timestamp::Append => TimestampType::LogAppendTime,
        },
        ..TopicConfig::default()
    }
}
