//! Errors name what they are about, so that a front end which tells them need not know the call.

use std::fmt::Debug;

use sabir_model::{
    DeadLetterAddress, ErrorAbout, FrontendNo, Namespace, QueueConfig, ReadError, ShardFailure, Subject,
    TopicConfig,
};

use super::queues::{Client, queue};
use super::rig::{append, batch, create, new_topic, open, options, read, soon};
use super::sim::{Machine, Seam};
use crate::queue::reader::{NextError, PackedBatch, Unpack, Unpacking};
use crate::queue::{
    QueueError, QueueTarget, StartAt, SubscribeRefused, SubscriptionSettings, SubscriptionSpec,
    SubscriptionStart,
};
use crate::{
    AppendAcks, AppendTarget, Caller, Fence, NewTopic, OffsetSpec, ReadTarget, RedriveRefused, RedriveSpec,
    SessionId, Text,
};

const CALLER: Caller = Caller::OPERATOR;

struct AtOnce;

impl Unpack for AtOnce {
    fn unpack(&self, batch: PackedBatch) -> Unpacking {
        Box::pin(async move { batch.unpack() })
    }
}

fn of_queue(name: &str) -> Option<Subject> {
    Some(Subject::Queue(name.into()))
}

fn of_subscription(topic: &str, name: &str) -> Option<Subject> {
    Some(Subject::Subscription { topic: topic.into(), name: name.into() })
}

#[track_caller]
fn is<T: Debug, E: PartialEq + Debug>(refused: Result<T, ErrorAbout<E>>, error: E, about: Option<Subject>) {
    let refused = refused.unwrap_err();
    assert_eq!((&refused.error, refused.subject()), (&error, about.as_ref()));
}

#[tokio::test]
async fn errors_say_which_partition_queue_or_group_they_are_about() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let topic = create(&broker, "orders", 2).await;
    let new = NewTopic { config: TopicConfig::of_queue(QueueConfig::default()), ..new_topic("mail", 1) };
    let queue = broker.create_topics(&Caller::OPERATOR, vec![new]).await.remove(0).unwrap();
    let missing = ReadTarget::new(&Caller::OPERATOR, &topic, 3).unwrap_err();
    assert_eq!(missing.to_string(), "partition 3 of topic \"orders\": there is no such partition");
    let missing = AppendTarget::new(&Caller::OPERATOR, &topic, 3, AppendAcks::Leader, FrontendNo::NONE);
    assert_eq!(missing.unwrap_err().to_string(), "partition 3 of topic \"orders\": no such partition");
    append(&broker, &topic, 1, batch(&[b"x"], 1)).await.unwrap();
    let beyond = soon(read(&broker, &topic, 1, 9, 100)).await.unwrap_err().to_string();
    assert_eq!(
        beyond,
        "partition 1 of topic \"orders\": offset 9 is out of range: the partition keeps 0 to 1"
    );
    let member = Fence { generation: 1, member: Text::from("m"), instance: None };
    let unknown = broker.groups(&Caller::client("x", crate::SessionId(1))).heartbeat("g", &member);
    assert!(unknown.unwrap_err().to_string().starts_with("group \"g\": "));
    let unknown = soon(broker.groups(&Caller::OPERATOR).delete("g")).await.unwrap_err();
    assert_eq!(unknown.to_string(), "group \"g\": no such group");
    broker.delete_topics(&Caller::OPERATOR, vec![topic.id]).await.remove(0).unwrap();
    let gone = append(&broker, &topic, 1, batch(&[b"x"], 1)).await.unwrap_err();
    assert_eq!(gone.subject(), Some(&Subject::Partition { topic: "orders".into(), partition: 1 }));
    // Its name may be another topic's by now.
    let target = ReadTarget::new(&Caller::OPERATOR, &topic, 1).unwrap();
    let gone = soon(broker.offsets(target, OffsetSpec::Latest)).await.unwrap_err();
    assert_eq!(gone.subject(), None);
    assert_eq!(gone, ErrorAbout::from(ReadError::UnknownPartition));
    broker.shutdown();
    let closed = append(&broker, &queue, 0, batch(&[b"x"], 1)).await.unwrap_err();
    assert_eq!(closed.to_string(), "queue \"mail\": the broker is shutting down");
}

#[tokio::test]
async fn errors_of_queues_name_the_queue_while_it_is_there() {
    for shards in [1, 3] {
        let machine = Machine::new(40, shards, Seam::Solo);
        let broker = machine.open();
        let (queues, session) = (broker.queues(), |number| Caller::client("one", SessionId(number)));
        let (own, other) = (session(7), session(8));
        let new = |name: &str, config, internal| NewTopic {
            config: TopicConfig::of_queue(config),
            internal,
            ..new_topic(name, 1)
        };
        let exclusive = new("own", QueueConfig { exclusive: true, ..QueueConfig::default() }, false);
        let locked = broker.create_topics(&own, vec![exclusive]).await.remove(0).unwrap();
        let target = QueueTarget::new(&other, &locked).unwrap();
        is(broker.may_use(&other, &locked), QueueError::Locked, of_queue("own"));
        is(
            soon(queues.get(&other, target, queues.owner(), false)).await,
            QueueError::Locked,
            of_queue("own"),
        );
        is(soon(queues.purge(&other, target)).await, QueueError::Locked, of_queue("own"));
        let next = soon(broker.next_message(&other, target, queues.owner(), &AtOnce)).await;
        is(next, NextError::Queue(QueueError::Locked), of_queue("own"));

        let front_end = Caller::front_end("one");
        let internal = new("kept", QueueConfig::default(), true);
        let internal = broker.create_topics(&front_end, vec![internal]).await.remove(0).unwrap();
        is(QueueTarget::new(&own, &internal), QueueError::Internal, of_queue("kept"));
        let plain = create(&broker, "plain", 1).await;
        is(QueueTarget::new(&own, &plain), QueueError::NotAQueue, of_queue("plain"));

        let (mail, target) = queue(&broker, "mail", QueueConfig::default()).await;
        let elsewhere = session(9).within(Namespace::named("other").unwrap());
        is(QueueTarget::new(&elsewhere, &mail), QueueError::Unknown, of_queue("mail"));
        let attach = |exclusive| Client::try_attach(&broker, target, 1, |spec| spec.exclusive = exclusive);
        let first = attach(false).unwrap();
        is(attach(true).map(drop), QueueError::InUse, of_queue("mail"));
        first.leave();
        let first = attach(true).unwrap();
        is(attach(false).map(drop), QueueError::Exclusive, of_queue("mail"));
        first.leave();
        let of_no_term = Client::try_attach(&broker, target, 1, |spec| queues.end_demand(spec.demand));
        is(of_no_term.map(drop), QueueError::Shard(ShardFailure::NotLeader), of_queue("mail"));

        let redrive = |caller, topic| broker.redrive(caller, topic, RedriveSpec::default());
        is(redrive(&own, &mail), RedriveRefused::NotOperator, of_queue("mail"));
        is(redrive(&CALLER, &plain), RedriveRefused::Queue(QueueError::NotAQueue), of_queue("plain"));
        is(broker.redrives(&own), RedriveRefused::NotOperator, None);

        // Its name may be another queue's by now.
        assert_eq!(broker.delete_topics(&CALLER, vec![mail.id]).await, [Ok(())]);
        is(attach(false).map(drop), QueueError::Unknown, None);
        is(soon(queues.get(&CALLER, target, queues.owner(), false)).await, QueueError::Unknown, None);
        is(soon(queues.purge(&CALLER, target)).await, QueueError::Unknown, None);
        is(soon(queues.settled_stats(target)).await, QueueError::Unknown, None);
        is(queues.stats(target), QueueError::Unknown, None);
        broker.shutdown();
    }
}

#[tokio::test]
async fn errors_of_subscriptions_name_the_subscription_and_its_topic() {
    for shards in [1, 3] {
        let machine = Machine::new(41, shards, Seam::Solo);
        let (broker, plain) = (machine.open(), SubscriptionSpec::default());
        let (topic, (mail, _)) =
            (create(&broker, "events", 2).await, queue(&broker, "mail", QueueConfig::default()).await);
        let parts = soon(broker.subscribe(&CALLER, &topic, "s", &plain)).await.unwrap();
        let refused = async |name: &str, spec: &SubscriptionSpec, error: SubscribeRefused| {
            is(
                soon(broker.subscribe(&CALLER, &topic, name, spec)).await,
                error,
                of_subscription("events", name),
            );
        };
        refused("", &plain, SubscribeRefused::Name).await;
        let at = SubscriptionSpec { start: StartAt::Place(SubscriptionStart::At(1)), ..plain.clone() };
        refused("new", &at, SubscribeRefused::SeveralPartitions).await;
        let dead_letter = |exchange: &str| {
            let address = DeadLetterAddress { exchange: exchange.into(), routing_key: None };
            let settings = SubscriptionSettings { dead_letter: Some(address), delivery_limit: None };
            SubscriptionSpec { settings, ..plain.clone() }
        };
        refused("s", &dead_letter("x"), SubscribeRefused::Differs).await;
        refused("new", &dead_letter(&"x".repeat(1025)), SubscribeRefused::DeadLetter).await;
        let of_mail = soon(broker.subscribe(&CALLER, &mail, "s", &plain)).await;
        is(of_mail, SubscribeRefused::IsQueue, of_subscription("mail", "s"));

        let elsewhere = Caller::client("one", SessionId(9)).within(Namespace::named("other").unwrap());
        let (unknown, subject) =
            (SubscribeRefused::Topic(QueueError::Unknown), of_subscription("events", "s"));
        is(broker.subscription(&elsewhere, &topic, "s"), unknown, subject.clone());
        is(soon(broker.unsubscribe(&elsewhere, &topic, "s")).await, unknown, subject.clone());
        let whole = Some(Subject::Topic("events".into()));
        is(broker.subscriptions(&elsewhere, &topic), QueueError::Unknown, whole.clone());
        is(broker.may_use(&elsewhere, &topic), QueueError::Unknown, whole);

        let first = Client::try_attach(&broker, parts[1], 1, |spec| spec.exclusive = true).unwrap();
        let second = Client::try_attach(&broker, parts[1], 1, |_| {});
        is(second.map(drop), QueueError::Exclusive, subject.clone());
        let purged = soon(broker.queues().purge(&elsewhere, parts[0])).await.unwrap_err();
        assert_eq!(purged.to_string(), "subscription \"s\" of topic \"events\": no such queue");
        first.leave();

        assert_eq!(soon(broker.unsubscribe(&CALLER, &topic, "s")).await, Ok(true));
        let of_part = |partition| Some(Subject::Partition { topic: "events".into(), partition });
        is(broker.subscription_stats(&parts), QueueError::Unknown, of_part(0));
        is(broker.queues().stats(parts[1]), QueueError::Unknown, of_part(1));
        assert_eq!(broker.delete_topics(&CALLER, vec![topic.id]).await, [Ok(())]);
        is(broker.queues().stats(parts[1]), QueueError::Unknown, None);
        broker.shutdown();
    }
}
