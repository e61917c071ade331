//! What the broker is set to, by Kafka's names. Read from the configuration file: shown, and not to be changed from outside.

use crate::server::config::KafkaConfig;
use crate::server::handlers::Client;
use crate::server::topic_config::{self, ValueType};
use sabir_broker::GroupOptions;
use sabir_frontend::config::HostPort;
use sabir_model::TopicConfig;

/// A broker's setting as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShownBrokerSetting {
    pub name: &'static str,
    pub value: String,
    /// What holds where the configuration file says nothing.
    pub built_in: String,
    pub value_type: ValueType,
    pub help: &'static str,
}

/// Every setting that has a meaning here, those of all topics included, by name.
pub(crate) fn shown(client: &Client) -> Vec<ShownBrokerSetting> {
    let kafka = &client.kafka;
    let (own, config) = (&kafka.broker.options().groups, &kafka.config);
    let mut all = of_place(client);
    all.extend(of_front_end(config));
    all.extend(of_groups(own));
    all.extend(of_topics(&kafka.shown_defaults()));
    all.sort_unstable_by_key(|shown| shown.name);
    all
}

/// One that is what it is, whatever a file says.
fn plain(name: &'static str, value_type: ValueType, value: String, help: &'static str) -> ShownBrokerSetting {
    ShownBrokerSetting { name, built_in: value.clone(), value, value_type, help }
}

fn of_place(client: &Client) -> Vec<ShownBrokerSetting> {
    let kafka = &client.kafka;
    let options = kafka.broker.options();
    let address =
        format!("PLAINTEXT://{}", HostPort { host: client.host.to_string(), port: client.port as u16 });
    // These have no values that are built in.
    let given = |name, value_type, value, help| ShownBrokerSetting {
        name,
        value,
        built_in: String::new(),
        value_type,
        help,
    };
    vec![
        given(
            "advertised.listeners",
            ValueType::String,
            address,
            "kafka.advertise: the address that clients are told.",
        ),
        given(
            "log.dirs",
            ValueType::String,
            options.data.display().to_string(),
            "data.dir: where everything is kept.",
        ),
        given("node.id", ValueType::Int, kafka.node_id().to_string(), "node.id: the number of this broker."),
        plain("default.replication.factor", ValueType::Int, "1".into(), "There is one broker."),
        plain("delete.topic.enable", ValueType::Boolean, "true".into(), "Topics can be deleted."),
    ]
}

fn of_front_end(config: &KafkaConfig) -> [ShownBrokerSetting; 3] {
    let built_in = KafkaConfig::default();
    let setting = |name, value_type, get: fn(&KafkaConfig) -> String, help| ShownBrokerSetting {
        name,
        value: get(config),
        built_in: get(&built_in),
        value_type,
        help,
    };
    [
        setting(
            "auto.create.topics.enable",
            ValueType::Boolean,
            |config| config.auto_create.to_string(),
            "kafka.auto_create: whether a topic is made when a client asks for one that does not exist.",
        ),
        setting(
            "num.partitions",
            ValueType::Int,
            |config| config.num_partitions.to_string(),
            "kafka.num_partitions: how many partitions a topic gets whose creator does not say.",
        ),
        setting(
            "socket.request.max.bytes",
            ValueType::Int,
            |config| config.max_request.0.to_string(),
            "kafka.max_request: the largest request taken.",
        ),
    ]
}

fn of_groups(options: &GroupOptions) -> [ShownBrokerSetting; 5] {
    let built_in = GroupOptions::default();
    let setting = |name, value_type, get: fn(&GroupOptions) -> String, help| ShownBrokerSetting {
        name,
        value: get(options),
        built_in: get(&built_in),
        value_type,
        help,
    };
    [
        setting(
            "group.initial.rebalance.delay.ms",
            ValueType::Int,
            |options| options.limits.initial_rebalance_delay_ms.to_string(),
            "How long an empty group waits for further members.",
        ),
        setting(
            "group.max.session.timeout.ms",
            ValueType::Int,
            |options| options.limits.max_session_timeout_ms.to_string(),
            "The longest session timeout that a member may ask for.",
        ),
        setting(
            "group.max.size",
            ValueType::Int,
            |options| options.limits.max_members.to_string(),
            "The most members of a group.",
        ),
        setting(
            "group.min.session.timeout.ms",
            ValueType::Int,
            |options| options.limits.min_session_timeout_ms.to_string(),
            "The shortest session timeout that a member may ask for.",
        ),
        setting(
            "offsets.retention.minutes",
            ValueType::Int,
            |options| (options.offsets_retention.as_secs() / 60).to_string(),
            "How long offsets are kept after their group lost its last member.",
        ),
    ]
}

/// What holds for topics that say nothing themselves.
fn of_topics(defaults: &TopicConfig) -> impl Iterator<Item = ShownBrokerSetting> {
    topic_config::shown(defaults, defaults).filter_map(|shown| {
        Some(ShownBrokerSetting {
            name: shown.broker_name?,
            value: shown.default,
            built_in: shown.built_in,
            value_type: shown.value_type,
            help: shown.help,
        })
    })
}
