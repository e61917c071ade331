//! Redrives: dead letters go back to the queues that gave them up, and what is not taken there stays. Over stops they are part of the model of dead letters.

use std::sync::Arc;
use std::time::Duration;

use sabir_delivery::policy::DeathReason;
use sabir_delivery::subscription::Subscription;
use sabir_model::{Overflow, QueueConfig};

use super::dead_letters::{
    CALLER, Fate, at_rest, close, get, lies_in, open, publish, publish_bodies, queue, stats, to,
    with_history, with_subscription,
};
use super::rig::{create, soon, until};
use super::sim::{Machine, Seam};
use crate::queue::QueueError;
use crate::{
    Broker, Caller, RedriveCounts, RedriveOrigin, RedriveProgress, RedriveRefused, RedriveSpec, RedriveState,
    Topic,
};

/// Has some dead letters go back, and waits for it.
async fn redriven(broker: &Broker, queue: &Arc<Topic>, spec: RedriveSpec) -> RedriveProgress {
    let redrive = broker.redrive(&Caller::OPERATOR, queue, spec).unwrap();
    until(|| !redrive.is_running()).await;
    let progress = redrive.progress();
    assert_eq!((progress.state, progress.counts.waiting, progress.counts.taken), (RedriveState::Done, 0, 0));
    progress
}

async fn reject(broker: &Broker, queue: &Arc<Topic>, ids: &[u64]) {
    for id in ids {
        assert_eq!(get(broker, queue, Fate::Reject).await, Some(*id));
    }
    at_rest(broker).await;
}

#[tokio::test]
async fn dead_letters_go_back_to_the_queue_that_gave_them_up_in_their_order() {
    let machine = Machine::new(1, 1, Seam::Solo);
    let broker = open(&machine);
    let dead = queue(&broker, "dead", QueueConfig::default()).await;
    let (one, two) = (
        queue(&broker, "one", to("", Some("dead"))).await,
        queue(&broker, "two", to("", Some("dead"))).await,
    );
    publish(&broker, &one, &[1, 2, 3]).await.unwrap();
    publish(&broker, &two, &[4, 5]).await.unwrap();
    reject(&broker, &one, &[1, 2, 3]).await;
    reject(&broker, &two, &[4, 5]).await;
    publish(&broker, &dead, &[6]).await.unwrap();

    let counted = redriven(&broker, &dead, RedriveSpec { dry_run: true, ..RedriveSpec::default() }).await;
    let origin = |queue: &str, messages| RedriveOrigin {
        queue: queue.to_owned(),
        reason: DeathReason::Rejected,
        messages,
        is_there: true,
    };
    let RedriveCounts { read, wanted, without_origin, moved, .. } = counted.counts;
    assert_eq!((read, wanted, without_origin, moved), (6, 5, 1, 0));
    assert_eq!(counted.origins, [origin("one", 3), origin("two", 2)]);
    assert_eq!(lies_in(&broker, &dead).await, [1, 2, 3, 4, 5, 6]);

    let of_two = RedriveSpec { most: Some(1), origin: Some("two".to_owned()), ..RedriveSpec::default() };
    let progress = redriven(&broker, &dead, of_two).await;
    assert_eq!((progress.counts.moved, progress.origins), (1, vec![origin("two", 1)]));
    let expired = RedriveSpec { reason: Some(DeathReason::Expired), ..RedriveSpec::default() };
    assert_eq!(redriven(&broker, &dead, expired).await.counts.wanted, 0);
    assert_eq!(redriven(&broker, &dead, RedriveSpec::default()).await.counts.moved, 4);
    let lie = [lies_in(&broker, &one).await, lies_in(&broker, &two).await, lies_in(&broker, &dead).await];
    assert_eq!(lie, [vec![1, 2, 3], vec![4, 5], vec![6]]);
    assert_eq!((stats(&broker).redriven, stats(&broker).redrives_refused), (5, 0));
    assert_eq!(stats(&broker).published, [5, 0, 0, 0], "these are no dead letters more");

    // It may die once more, for as often as that happens.
    reject(&broker, &one, &[1]).await;
    let history = with_history(&broker, &dead).await;
    let deaths: Vec<_> = history[1].1.iter().map(|death| (&*death.queue, death.count)).collect();
    assert_eq!((history[1].0, deaths), (1, vec![("one", 2)]));
    assert_eq!(redriven(&broker, &dead, RedriveSpec::default()).await.counts.moved, 1);
    assert_eq!(lies_in(&broker, &one).await, [2, 3, 1]);
    machine.agrees_with_replay(&broker);
    close(broker).await;
}

#[tokio::test]
async fn what_the_queue_does_not_take_that_gave_it_up_stays() {
    let machine = Machine::new(2, 1, Seam::Solo);
    let broker = open(&machine);
    let dead = queue(&broker, "dead", QueueConfig::default()).await;
    let limits = QueueConfig { max_length: Some(1), overflow: Overflow::Reject, ..to("", Some("dead")) };
    let full = queue(&broker, "full", limits.clone()).await;
    // One of them is more than an entry takes.
    let large = [2u64.to_be_bytes().to_vec(), vec![7; 1 << 20]].concat();
    publish(&broker, &full, &[1]).await.unwrap();
    reject(&broker, &full, &[1]).await;
    publish_bodies(&broker, &full, &[large]).await.unwrap();
    reject(&broker, &full, &[2]).await;
    publish(&broker, &full, &[3]).await.unwrap();
    let progress = redriven(&broker, &dead, RedriveSpec::default()).await;
    assert_eq!((progress.counts.moved, progress.counts.refused, progress.counts.wanted), (0, 2, 2));
    let ready = |broker: &Broker, queue: &Topic| {
        with_subscription(broker, queue, |queue: &Subscription| queue.backlog().messages)
    };
    assert_eq!((ready(&broker, &dead), ready(&broker, &full)), (2, 1));
    assert_eq!((stats(&broker).redriven, stats(&broker).redrives_refused), (0, 2));
    // There is room for one at a time.
    for id in [1, 2] {
        get(&broker, &full, Fate::Settle).await;
        let progress = redriven(&broker, &dead, RedriveSpec::default()).await;
        assert_eq!((progress.counts.moved, progress.counts.refused), (1, 2 - id));
        assert_eq!(lies_in(&broker, &full).await, [id]);
    }
    assert_eq!(ready(&broker, &dead), 0);

    // What gives up what it refuses has it as a dead letter once more.
    let gives = QueueConfig { overflow: Overflow::RejectAndDeadLetter, ..limits };
    let gives = queue(&broker, "gives", gives).await;
    publish(&broker, &gives, &[4]).await.unwrap();
    reject(&broker, &gives, &[4]).await;
    publish(&broker, &gives, &[5]).await.unwrap();
    assert_eq!(redriven(&broker, &dead, RedriveSpec::default()).await.counts.moved, 1);
    at_rest(&broker).await;
    let history = with_history(&broker, &dead).await;
    assert_eq!(history.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [4]);
    assert_eq!(history[0].1.iter().next().unwrap().reason, DeathReason::QueueLength);

    // So does one whose queue is gone.
    soon(broker.delete_topics(&CALLER, vec![gives.id])).await.remove(0).unwrap();
    let progress = redriven(&broker, &dead, RedriveSpec::default()).await;
    assert_eq!((progress.counts.wanted, progress.counts.origin_gone, progress.counts.moved), (0, 1, 0));
    assert!(!progress.origins[0].is_there);
    assert_eq!(lies_in(&broker, &dead).await, [4]);
    machine.agrees_with_replay(&broker);
    close(broker).await;
}

#[tokio::test]
async fn a_redrive_keeps_to_its_rate_until_it_is_cancelled_and_is_an_operators() {
    let machine = Machine::new(3, 1, Seam::Solo);
    let broker = open(&machine);
    let dead = queue(&broker, "dead", QueueConfig::default()).await;
    let work = queue(&broker, "work", QueueConfig { message_ttl_ms: Some(50), ..to("", Some("dead")) }).await;
    let all: Vec<u64> = (0..1_000).collect();
    publish(&broker, &work, &all).await.unwrap();
    super::dead_letters::advance(&machine, &broker, 50);
    until(|| with_subscription(&broker, &dead, |dead| dead.backlog().messages) == 1_000).await;

    let spec = RedriveSpec { per_second: Some(20), ..RedriveSpec::default() };
    let refused = |caller: &Caller, queue: &Arc<Topic>, spec: RedriveSpec| {
        broker.redrive(caller, queue, spec).unwrap_err()
    };
    assert_eq!(refused(&CALLER, &dead, spec.clone()), RedriveRefused::NotOperator.into());
    assert!(broker.redrives(&CALLER).is_err());
    let nothing = RedriveSpec { most: Some(0), ..spec.clone() };
    assert_eq!(refused(&Caller::OPERATOR, &dead, nothing), RedriveRefused::Nothing.into());
    let topic = create(&broker, "topic", 1).await;
    let no_queue = RedriveRefused::Queue(QueueError::NotAQueue).into();
    assert_eq!(refused(&Caller::OPERATOR, &topic, spec.clone()), no_queue);

    let began = std::time::Instant::now();
    let redrive = broker.redrive(&Caller::OPERATOR, &dead, spec.clone()).unwrap();
    assert_eq!(refused(&Caller::OPERATOR, &dead, spec), RedriveRefused::IsRunning.into());
    until(|| redrive.progress().counts.moved >= 6).await;
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    redrive.cancel();
    until(|| !redrive.is_running()).await;
    assert_eq!(redrive.progress().state, RedriveState::Cancelled);
    at_rest(&broker).await;
    let moved = stats(&broker).redriven;
    assert!((6..100).contains(&moved), "{moved}");
    let numbers: Vec<_> =
        broker.redrives(&Caller::OPERATOR).unwrap().iter().map(|redrive| redrive.number()).collect();
    assert_eq!(numbers, [1]);
    // What has expired since is a dead letter again, and comes behind all that were there.
    let rest = redriven(&broker, &dead, RedriveSpec::default()).await;
    assert_eq!(rest.counts.moved, rest.counts.read);
    at_rest(&broker).await;
    let mut there = [lies_in(&broker, &work).await, lies_in(&broker, &dead).await].concat();
    there.sort_unstable();
    assert_eq!(there, all);
    close(broker).await;
}
