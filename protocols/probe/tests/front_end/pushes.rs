//! What any part of the node may push to a session, without knowing whose it is.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use sabir_base::clock::SystemClock;
use sabir_base::wake::WakeBatch;
use sabir_broker::live::{LiveConsumer, NotLeft};
use sabir_broker::push::{AskFailure, CancelReason, Confirmation, Push, PushSeat, PushedMessages, Scarcity};
use sabir_broker::queue::QueueTarget;
use sabir_broker::{Broker, BrokerOptions, Caller, NewTopic};
use sabir_frontend::{FrontendContext, Listening, Protocol, watched};
use sabir_model::{QueueConfig, TopicConfig};
use sabir_net::{ListenOptions, Listener, Net, NetOptions, Registry};
use sabir_probe::Probe;

use crate::node::{PATIENCE, SHARDS};

/// A node without a server, so that its parts are at hand.
pub struct Parts {
    net: Net,
    broker: Broker,
    address: SocketAddr,
    data: tempfile::TempDir,
}

impl Parts {
    pub fn start(data_shards: u32) -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), data_shards)
    }

    pub fn start_on(data: tempfile::TempDir, data_shards: u32) -> Self {
        let projections = Probe.projections().to_vec();
        let converters = Probe.converter().into_iter().collect();
        let options = BrokerOptions {
            data_shards,
            keep_free: 0,
            segment_bytes: 4 << 20,
            projections,
            converters,
            ..BrokerOptions::new(data.path())
        };
        let broker = Broker::open(options, Arc::new(SystemClock)).unwrap();
        let net =
            Net::start(&NetOptions { io_threads: 2, ..NetOptions::default() }, watched(&broker)).unwrap();
        broker.hold_reads_in(&net.read_memory());
        let addresses = vec!["127.0.0.1:0".parse().unwrap()];
        let listen = ListenOptions { section: "probe", addresses, anonymous: false, max_connections: 100 };
        let listener = Listener::bind(&listen).unwrap();
        let address = listener.addresses()[0];
        let context = FrontendContext {
            broker: broker.clone(),
            workers: net.workers().clone(),
            tasks: net.tasks(),
            registry: net.registry().clone(),
            listening: vec![Listening { key: "listen", address, advertise: None }],
            memory: 1 << 30,
        };
        let started = Probe.configure(Default::default()).unwrap().start(context);
        net.serve(listener, started.frontend);
        Self { net, broker, address, data }
    }

    /// A client of that name, and its session's outbox.
    pub fn client(&self, name: &str) -> (BufReader<TcpStream>, PushSeat) {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = BufReader::new(stream);
        assert!(ask(&mut client, &format!("HELLO {name}")).starts_with("OK "));
        (client, seat(self.net.registry(), name))
    }

    /// Ends in order, and gives the data directory back.
    pub fn stop(self) -> tempfile::TempDir {
        self.net.drain(Duration::from_secs(5));
        self.broker.shutdown();
        drop(self.net);
        self.data
    }
}

fn seat(registry: &Registry, name: &str) -> PushSeat {
    let view = registry.list().into_iter().find(|view| view.client == name).unwrap();
    registry.get(view.id).unwrap().seat().unwrap().clone()
}

fn line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line.trim_end_matches('\n').to_owned()
}

pub fn ask(client: &mut BufReader<TcpStream>, request: &str) -> String {
    writeln!(client.get_mut(), "{request}").unwrap();
    line(client)
}

/// A queue that is made.
fn queue(broker: &Broker, name: &str) -> QueueTarget {
    let config = TopicConfig::of_queue(QueueConfig::default());
    let queue = NewTopic { name: name.to_owned(), partitions: 1, config, internal: false, unlike: false };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let topic = runtime.block_on(broker.create_topics(&Caller::OPERATOR, vec![queue])).remove(0).unwrap();
    QueueTarget::new(&Caller::OPERATOR, &topic).unwrap()
}

#[test]
fn a_session_sends_its_client_whatever_is_pushed_in_order() {
    for shards in SHARDS {
        let parts = Parts::start(shards);
        let ((mut one, to_one), (mut two, to_two)) = (parts.client("one"), parts.client("two"));
        let target = queue(&parts.broker, "q");
        let deliver = |consumer| {
            Push::Deliver(PushedMessages { consumer, target, offsets: 3..5, redelivered: true, returned: 1 })
        };
        let pushes = |consumer| {
            [
                deliver(consumer),
                Push::Confirmed(Confirmation { number: 7, stored: true }),
                Push::Confirmed(Confirmation { number: 8, stored: false }),
                Push::Alarm { of: Scarcity::Disk, raised: true },
                Push::Cancelled { consumer, why: CancelReason::Deleted },
            ]
        };
        let mut wakes = WakeBatch::default();
        for push in pushes(4) {
            to_one.push(push, &mut wakes).unwrap();
        }
        let live = LiveConsumer::new(to_one.clone(), 6, 100);
        assert_eq!(live.leave(Arc::new("as it is published".to_owned()), 100, &mut wakes), Ok(()));
        assert_eq!(live.leave(Arc::new(String::new()), 1, &mut wakes), Err(NotLeft::Full));
        for push in pushes(5) {
            to_two.push(push, &mut wakes).unwrap();
        }
        wakes.deliver();
        for (client, subscription) in [(&mut one, 4), (&mut two, 5)] {
            assert_eq!(line(client), format!("DELIVER {subscription} 3 5 again"));
            assert_eq!(
                [line(client), line(client), line(client)],
                ["CONFIRMED 7", "REFUSED 8", "ALARM disk on"]
            );
            assert_eq!(line(client), format!("END {subscription} what it was on is deleted"));
        }
        assert_eq!(line(&mut one), "LIVE 6 as it is published");
        drop(parts.stop());
    }
}

#[test]
fn a_client_that_answers_nothing_is_asked_no_more_than_so_much() {
    let parts = Parts::start(1);
    let (mut client, seat) = parts.client("silent");
    let open = parts.net.registry().list().into_iter().find(|view| view.client == "silent").unwrap();
    let open = parts.net.registry().get(open.id).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let waiting: Vec<_> = (1..=64)
        .map(|number| {
            let reply = open.ask("well?".into()).unwrap();
            assert_eq!(line(&mut client), format!("ASK {number} well?"));
            reply
        })
        .collect();
    assert_eq!(runtime.block_on(open.ask("well?".into()).unwrap()), Err(AskFailure::Busy));
    assert_eq!(ask(&mut client, "ANSWER 64 yes\nGET nothing"), "NIL");
    let mut waiting = waiting.into_iter().rev();
    assert_eq!(runtime.block_on(waiting.next().unwrap()).unwrap(), "yes");
    drop(client);
    for reply in waiting {
        assert_eq!(runtime.block_on(reply), Err(AskFailure::Ended));
    }
    runtime.block_on(open.ended());
    assert_eq!(open.ask("still?".into()).err(), Some(AskFailure::Ended));
    assert!(seat.has_ended());
    drop(parts.stop());
}

#[test]
fn a_question_that_nobody_waits_for_any_more_takes_no_place() {
    let parts = Parts::start(1);
    let (mut client, _) = parts.client("late");
    let open = parts.net.registry().list().into_iter().find(|view| view.client == "late").unwrap();
    let open = parts.net.registry().get(open.id).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for round in 0..3 {
        for number in 1..=64 {
            let reply = open.ask("well?".into()).unwrap();
            assert_eq!(line(&mut client), format!("ASK {} well?", round * 64 + number));
            drop(reply);
        }
    }
    let reply = open.ask("well?".into()).unwrap();
    assert_eq!(line(&mut client), "ASK 193 well?");
    assert_eq!(ask(&mut client, "ANSWER 1 late\nANSWER 193 in time\nGET nothing"), "NIL", "it goes on");
    assert_eq!(runtime.block_on(reply).unwrap(), "in time");
    drop(parts.stop());
}
