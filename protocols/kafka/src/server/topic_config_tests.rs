use super::*;

fn set_on_default(name: &str, value: &str) -> Result<TopicConfig, String> {
    let mut config = TopicConfig::default();
    set(&mut config, name, value).map(|()| config)
}

/// A value of each setting that Kafka takes and that is not its default, where there is one here.
const OTHERS: &[(&str, &str)] = &[
    ("compression.gzip.level", "9"),
    ("compression.type", "zstd"),
    ("compression.zstd.level", "-7"),
    ("delete.retention.ms", "1"),
    ("file.delete.delay.ms", "0"),
    ("flush.messages", "1"),
    ("flush.ms", "0"),
    ("follower.replication.throttled.replicas", "0:1,1:2"),
    ("index.interval.bytes", "0"),
    ("leader.replication.throttled.replicas", "*"),
    ("local.retention.bytes", "-1"),
    ("local.retention.ms", "7"),
    ("max.compaction.lag.ms", "1"),
    ("max.message.bytes", "2000000"),
    ("message.timestamp.after.max.ms", "5"),
    ("message.timestamp.before.max.ms", "6"),
    ("message.timestamp.type", "LogAppendTime"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("min.compaction.lag.ms", "9"),
    ("min.insync.replicas", "2"),
    ("preallocate", "true"),
    ("remote.log.copy.disable", "true"),
    ("remote.log.delete.on.disable", "true"),
    ("retention.bytes", "1000"),
    ("retention.ms", "-1"),
    ("segment.bytes", "1048576"),
    ("segment.index.bytes", "4"),
    ("segment.jitter.ms", "3"),
    ("segment.ms", "1"),
    ("unclean.leader.election.enable", "true"),
    ("sabir.durability", "os"),
];

/// Those that have one value.
const SINGLE: &[&str] = &["cleanup.policy", "compression.lz4.level", "remote.storage.enable"];

#[test]
fn what_is_set_is_shown_and_can_be_taken_back() {
    let defaults = TopicConfig::default();
    for (name, value) in OTHERS {
        let mut config = set_on_default(name, value).expect(name);
        let own: Vec<_> = shown(&config, &defaults).filter(|shown| shown.own).collect();
        assert_eq!(own.len(), 1, "{name}");
        assert_eq!((own[0].name, own[0].value.as_str(), own[0].fixed), (*name, *value, false));
        assert_ne!(own[0].default, *value);
        reset(&mut config, name, &defaults);
        assert_eq!(config, defaults);
    }
    let tested = OTHERS.iter().map(|(name, _)| name).chain(SINGLE);
    assert!(shown(&defaults, &defaults).all(|shown| tested.clone().any(|name| *name == shown.name)));
}

#[test]
fn what_says_the_default_is_the_topics_own_all_the_same() {
    let defaults = TopicConfig { durability: Some(Durability::Sync), ..TopicConfig::default() };
    for shown in shown(&defaults, &defaults) {
        assert!(!shown.own && shown.value == shown.default && shown.default == shown.built_in);
        let config = set_on_default(shown.name, &shown.default).expect(shown.name);
        assert_ne!(config, defaults, "{}", shown.name);
        let now = super::shown(&config, &defaults).find(|now| now.name == shown.name).expect("still there");
        assert!(now.own && now.value == now.default, "{}", now.name);
    }
}

#[test]
fn durability_that_follows_the_broker_is_shown_as_the_brokers() {
    let node = TopicConfig { durability: Some(Durability::Os), ..TopicConfig::default() };
    let find = |config: &TopicConfig| shown(config, &node).find(|shown| shown.name == DURABILITY);
    let follows = find(&TopicConfig::default()).expect("it is there");
    assert_eq!(
        (&*follows.value, &*follows.default, &*follows.built_in, follows.own),
        ("os", "os", "sync", false)
    );
    let own = find(&set_on_default(DURABILITY, "sync").expect("it can be")).expect("it is there");
    assert_eq!((&*own.value, &*own.default, own.own), ("sync", "os", true));
}

#[test]
fn any_negative_number_of_bytes_is_no_bound_to_what_is_kept() {
    for value in ["-1", "-2", "-9223372036854775808"] {
        assert_eq!(set_on_default("retention.bytes", value).expect("it is taken").retention_bytes, None);
    }
    assert!(set_on_default("retention.ms", "-2").is_err());
}

#[test]
fn what_follows_the_broker_shows_the_brokers_value() {
    let node = TopicConfig { retention_ms: Some(5), ..TopicConfig::default() };
    let retention = shown(&node, &node).find(|shown| shown.name == "retention.ms").expect("it is there");
    assert_eq!((&*retention.value, &*retention.default, &*retention.built_in), ("5", "5", "604800000"));
    assert!(!retention.own);
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    for (name, value, problem) in [
        ("cleanup.policy", "compact", "compaction is not built"),
        ("cleanup.policy", "compact,delete", "compaction is not built"),
        ("cleanup.policy", "delete, compact", "compaction is not built"),
        ("cleanup.policy", "x", "expected delete"),
        ("cleanup.policy", "", "retention.bytes to -1"),
        ("compression.type", "brotli", "expected one of producer, uncompressed, gzip"),
        ("compression.gzip.level", "0", "expected a number from 1 to 9"),
        ("compression.gzip.level", "10", "expected a number"),
        ("compression.lz4.level", "5", "one level"),
        ("compression.zstd.level", "23", "expected a number from -131072 to 22"),
        ("segment.bytes", "1", "expected a number from 1048576"),
        ("segment.ms", "0", "expected a number from 1"),
        ("min.cleanable.dirty.ratio", "1.1", "expected a number from 0 to 1"),
        ("min.cleanable.dirty.ratio", "NaN", "expected a number from 0 to 1"),
        ("preallocate", "yes", "expected true or false"),
        ("remote.storage.enable", "true", "no remote storage"),
        ("leader.replication.throttled.replicas", "0:1,*", "expected partition:broker"),
        ("nonsense", "1", "no topic setting has this name"),
        ("retention.ms", "-2", "expected a number from -1"),
        ("retention.ms", "soon", "not \"soon\""),
        ("min.insync.replicas", "0", "expected a number from 1"),
        ("max.message.bytes", "2147483648", "expected a number"),
    ] {
        let refused = set_on_default(name, value).expect_err(name);
        assert!(refused.starts_with(name) && refused.contains(problem), "{refused}");
    }
    let mut config = TopicConfig::default();
    reset(&mut config, "nonsense", &TopicConfig::default());
    assert_eq!(config, TopicConfig::default());
}

#[test]
fn every_field_has_a_name_of_kafkas() {
    for field in TopicField::ALL {
        let name = name_of(field);
        assert!(name.contains('.') && SETTINGS.iter().any(|setting| setting.name == name), "{name}");
    }
}

#[test]
fn a_flush_that_is_never_due_is_no_bound() {
    for name in ["flush.messages", "flush.ms"] {
        let config = set_on_default(name, NEVER).expect(name);
        assert_eq!((config.flush_messages, config.flush_ms), (None, None));
        let shown = shown(&config, &TopicConfig::default()).find(|shown| shown.name == name).expect(name);
        assert!(shown.own && shown.value == NEVER);
    }
}

#[test]
fn compaction_lags_do_not_cross() {
    let mut config = set_on_default(MIN_LAG, "5").expect("a number");
    assert!(check(&config).is_ok());
    set(&mut config, MAX_LAG, "4").expect("a number");
    assert!(check(&config).is_err_and(|problem| problem.starts_with(MIN_LAG)));
}

#[test]
fn names_are_listed_once_and_in_order() {
    let defaults = TopicConfig::default();
    let names: Vec<_> = shown(&defaults, &defaults).map(|shown| shown.name).collect();
    let kafkas = &names[..names.len() - 1];
    assert!(kafkas.is_sorted_by(|a, b| a < b), "{kafkas:?}");
    assert_eq!((kafkas.len(), names.last()), (33, Some(&DURABILITY)));
}
