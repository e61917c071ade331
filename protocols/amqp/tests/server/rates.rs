//! Queues that are consumed at a rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use sabir_amqp::wire::*;
use sabir_base::testing::best_of_three;
use sabir_broker::Caller;
use sabir_model::{TopicConfig, TopicError, TopicKind};

use crate::node::{Client, Node};

fn table(rate: i32, burst: i32) -> FieldTableBuf {
    let mut table = FieldTableBuf::new();
    table.push(ShortBytes::cut("x-consume-rate"), FieldValue::I32(rate));
    table.push(ShortBytes::cut("x-consume-burst"), FieldValue::I32(burst));
    table
}

fn declare(client: &mut Client, rate: i32, burst: i32) {
    let arguments = table(rate, burst);
    let (queue, arguments) = (ShortStr::cut("q"), arguments.as_table());
    client.declare_as(&QueueDeclare { queue, durable: true, arguments, ..Default::default() });
}

fn publish(client: &mut Client, messages: usize) {
    client.select_confirms();
    client.publish("q", &vec!["m"; messages]);
    assert_eq!(client.confirmed(messages as u64), [0; 0]);
}

/// As the admin port does.
fn set_rate(node: &Node, rate: Option<u32>) {
    let queue = node.broker().catalog().topic("q").unwrap().id;
    let change = |config: &mut TopicConfig| {
        let TopicKind::Queue(queue) = &mut config.kind else { panic!("it is a queue") };
        let queue = Arc::make_mut(queue);
        (queue.consume_rate, queue.consume_burst) = (rate, None);
        Ok::<(), TopicError>(())
    };
    let changing = node.broker().change_topic(&Caller::OPERATOR, queue, change);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(changing).unwrap();
}

/// How long three consumers take for so many messages.
fn consume(node: &Node, messages: usize) -> Duration {
    let mut clients = [node.open(), node.open(), node.open()];
    let (taken, began) = (AtomicUsize::new(0), Instant::now());
    clients.iter_mut().for_each(|client| client.consume("q", "c", true));
    let one = |client: &mut Client| {
        loop {
            client.content();
            if taken.fetch_add(1, SeqCst) + 1 >= messages {
                return began.elapsed();
            }
        }
    };
    std::thread::scope(|scope| {
        let all = clients.each_mut().map(|client| scope.spawn(move || one(client)));
        all.map(|one| one.join().unwrap()).into_iter().min().unwrap()
    })
}

#[test]
fn consumers_together_get_no_more_than_a_queues_rate_and_not_much_less() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare(&mut client, 500, 50);
    publish(&mut client, 5_000);
    best_of_three(Duration::from_millis(2_100), || {
        // The burst is there again.
        std::thread::sleep(Duration::from_millis(200));
        let took = consume(&node, 50 + 2 * 500);
        assert!(took >= Duration::from_millis(1_990), "{took:?}");
        took
    });
}

#[test]
fn a_rate_is_changed_while_consumers_wait_for_it() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare(&mut client, 1, 1);
    publish(&mut client, 100);
    let mut consumer = node.open();
    consumer.consume("q", "c", true);
    consumer.content();
    set_rate(&node, Some(10_000));
    (1..50).for_each(|_| drop(consumer.content()));
    set_rate(&node, None);
    (50..100).for_each(|_| drop(consumer.content()));
    set_rate(&node, Some(1));
    client.publish("q", &["m"; 50]);
    client.confirmed_from(100, 150);
    let got = std::iter::from_fn(|| client.get("q", true)).count();
    assert!(got < 50, "{got}");
    declare(&mut client, 1, 1);
}

#[test]
fn a_rate_outlives_a_start_and_is_compared() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare(&mut client, 1, 2);
    publish(&mut client, 100);
    drop(client);
    node.stop();
    let node = Node::start(data.path());
    let mut client = node.open();
    let got = std::iter::from_fn(|| client.get("q", true)).count();
    assert!((2..50).contains(&got), "{got}");
    declare(&mut client, 1, 2);
    for (rate, burst, says) in [(2, 2, "x-consume-rate"), (1, 1, "x-consume-burst")] {
        let arguments = table(rate, burst);
        let (queue, arguments) = (ShortStr::cut("q"), arguments.as_table());
        let refused = client.refused(&QueueDeclare { queue, durable: true, arguments, ..Default::default() });
        assert!(refused.0 == 406 && refused.1.contains(says), "{refused:?}");
    }
}
