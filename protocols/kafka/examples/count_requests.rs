//! Requests through the front end, one at a time on one thread, so that callgrind can count what one of them costs the broker:
//! `bench/callgrind.py` runs it.
//!
//! `count_requests CASE COUNT` sends COUNT requests after a warm-up. What is to be counted happens inside functions whose names
//! begin with `counted`: the polls of the connection's task, and the drives of the shards, on this thread alone. Client and
//! runtime are left out.

use std::cell::Cell;
use std::error::Error;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use sabir_base::clock::SystemClock;
use sabir_base::wake;
use sabir_broker::{Broker, BrokerOptions, Caller, DiskKind, NewTopic};
use sabir_frontend::{FrontendContext, Listening, Protocol};
use sabir_kafka::Kafka;
use sabir_kafka::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use sabir_kafka::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use sabir_kafka::wire::{RequestMessage, Str, decode_response, encode_request};
use sabir_model::batch::{BatchBuilder, Compression};
use sabir_model::{ShardId, TopicConfig};
use sabir_net::{Connection, FrameMemory, Limits, LocalBoxFuture, Registry, Tasks, Workers};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TOPIC: &str = "counted";
const WARM_UP: usize = 100;
const VERSION: i16 = 12;
/// No deadline is to pass, however slow callgrind makes everything.
const PATIENCE: Duration = Duration::from_secs(3600);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, count] = arguments.as_slice() else { return Err("count_requests CASE COUNT".into()) };
    let (load, records): (Load, usize) = match case.as_str() {
        "produce-100b" => (Load::Produce, 1),
        "produce-16k" => (Load::Produce, 140),
        "fetch-100b" => (Load::Fetch, 1),
        "fetch-16k" => (Load::Fetch, 140),
        other => return Err(format!("no such case: {other}").into()),
    };
    let dir = tempfile::tempdir()?;
    // One shard, and a disk without a ring: valgrind knows no io_uring.
    let options = BrokerOptions { data_shards: 1, disk: DiskKind::Pwrite, ..BrokerOptions::new(dir.path()) };
    let broker = Broker::open(options, Arc::new(SystemClock))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From here on what waits on this thread is woken by its tasks, and so nothing may block it.
    wake::register_io_thread();
    let ran = LocalSet::new().block_on(&runtime, run(broker.clone(), load, records, count.parse()?));
    broker.shutdown();
    ran
}

#[derive(Clone, Copy)]
enum Load {
    Produce,
    Fetch,
}

async fn run(broker: Broker, load: Load, records: usize, count: usize) -> Result<()> {
    let counting = Rc::new(Cell::new(false));
    tokio::task::spawn_local(wake::dispatch());
    for (shard, fd) in broker.event_fds() {
        tokio::task::spawn_local(watch(broker.clone(), shard, fd, counting.clone()));
    }
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: 1,
        config: TopicConfig::default(),
        internal: false,
        unlike: false,
    };
    broker.create_topics(&Caller::OPERATOR, vec![topic]).await.remove(0).map_err(|kind| kind.to_string())?;
    let mut client = connect(&broker, counting.clone()).await?;
    let produce = produce_request(records);
    client.call(&produce).await?;
    for round in 0..WARM_UP + count {
        counting.set(round >= WARM_UP);
        match load {
            Load::Produce => {
                let answer = client.call(&produce).await?;
                assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
            }
            Load::Fetch => {
                let answer = client.call(&fetch_request()).await?;
                assert!(answer.responses[0].partitions[0].records.as_ref().is_some_and(|r| r.len() > 100));
            }
        }
        counting.set(false);
    }
    Ok(())
}

/// A connection's task or a shard's drive, as callgrind sees it.
#[inline(never)]
fn counted_poll(task: Pin<&mut dyn Future<Output = ()>>, cx: &mut Context<'_>) -> Poll<()> {
    task.poll(cx)
}

#[inline(never)]
fn counted_drive(broker: &Broker, shard: ShardId) {
    broker.drive(shard);
}

struct Served {
    task: LocalBoxFuture,
    counting: Rc<Cell<bool>>,
}

impl Future for Served {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.counting.get() {
            true => counted_poll(self.task.as_mut(), cx),
            false => self.task.as_mut().poll(cx),
        }
    }
}

async fn watch(broker: Broker, shard: ShardId, fd: OwnedFd, counting: Rc<Cell<bool>>) {
    // SAFETY: the descriptor is owned and given away here, so it is open and the same for as long as the `AsyncFd` is.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    let fd = registered.expect("a shard's descriptor can be watched");
    while let Ok(mut guard) = fd.readable().await {
        guard.clear_ready();
        match counting.get() {
            true => counted_drive(&broker, shard),
            false => broker.drive(shard),
        }
    }
}

struct Client {
    stream: TcpStream,
    correlation: i32,
}

/// A client, and the front end's task at the other end of its connection.
async fn connect(broker: &Broker, counting: Rc<Cell<bool>>) -> Result<Client> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let local = listener.local_addr()?;
    let stream = TcpStream::connect(local).await?;
    let (accepted, peer) = listener.accept().await?;
    accepted.set_nodelay(true)?;
    stream.set_nodelay(true)?;
    let started = Kafka.configure(Default::default())?.start(FrontendContext {
        broker: broker.clone(),
        workers: Workers::of_node(64 << 20),
        tasks: Tasks::default(),
        registry: Registry::default(),
        listening: vec![Listening { key: "listen", address: local, advertise: None }],
        memory: 1 << 30,
    });
    let limits = Limits {
        frame_memory: FrameMemory::new(64 << 20),
        handshake_timeout: PATIENCE,
        frame_timeout: PATIENCE,
        write_timeout: PATIENCE,
        idle_timeout: PATIENCE,
    };
    let connection = Connection {
        stream: accepted.into(),
        opened: tokio::time::Instant::now(),
        prefix: Bytes::new(),
        peer,
        local,
        listener: 0,
        takes: "kafka".into(),
        open: Registry::default().enter(peer, local),
        limits: Arc::new(limits),
        closing: CancellationToken::new(),
    };
    tokio::task::spawn_local(Served { task: started.frontend.serve(connection), counting });
    Ok(Client { stream, correlation: 0 })
}

impl Client {
    async fn call<R: RequestMessage>(&mut self, request: &R) -> Result<R::Response> {
        self.correlation += 1;
        let name = Str::from_static("counted");
        let frame = encode_request(VERSION, self.correlation, Some(&name), request).to_bytes();
        self.stream.write_all(&frame).await?;
        let mut answer = vec![0; self.stream.read_i32().await? as usize];
        self.stream.read_exact(&mut answer).await?;
        let (header, answer) = decode_response::<R>(&Bytes::from(answer), VERSION, 1 << 20)?;
        assert_eq!(header.correlation_id, self.correlation);
        Ok(answer)
    }
}

/// One batch of records of 100 B.
fn produce_request(records: usize) -> ProduceRequest {
    let mut batch = BatchBuilder::new(Compression::None);
    (0..records).for_each(|_| batch.push(1_700_000_000_000, None, Some(&[b'x'; 100]), &[]));
    let data = PartitionProduceData { index: 0, records: Some(batch.build()) };
    let topic =
        TopicProduceData { name: TOPIC.into(), partition_data: vec![data], ..TopicProduceData::default() };
    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() }
}

/// For the one batch there is.
fn fetch_request() -> FetchRequest {
    let partition = FetchPartition { partition_max_bytes: 1 << 20, ..FetchPartition::default() };
    let topic = FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest { max_wait_ms: 500, min_bytes: 1, topics: vec![topic], ..FetchRequest::default() }
}
