//! What it costs to find where a message goes, by `Exchanges::route`: `cargo run --release -p sabir-broker --example route_speed`.

use std::sync::Arc;
use std::time::Instant;

use sabir_base::clock::SystemClock;
use sabir_broker::exchange::{
    ExchangeKind, ExchangeSpec, NamedBinding, NamedDestination, Publication, RouteScratch,
};
use sabir_broker::{Broker, BrokerOptions, Caller, NewTopic};
use sabir_model::TopicConfig;

const BINDINGS: u64 = 100_000;
const QUEUES: u64 = 1_000;
/// Bindings that are asked for at once.
const AT_ONCE: usize = 5_000;

/// Steps through numbers without a pattern (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn key(numbers: &mut Numbers) -> String {
    let parts: Vec<_> = (0..5).map(|at| format!("w{}", numbers.below(10u64.pow(1 + at % 3)))).collect();
    parts.join(".")
}

/// What devices are bound by: one matches each key.
fn device(number: u64) -> String {
    match number % 10 {
        0 => format!("site.*.device.{number}.#"),
        _ => format!("site.{}.device.{number}.state", number % 100),
    }
}

/// A pattern of five words, half of them with wildcards.
fn pattern(numbers: &mut Numbers) -> String {
    let key = key(numbers);
    let mut words: Vec<_> = key.split('.').collect();
    match numbers.below(6) {
        0 => words[numbers.below(5) as usize] = "*",
        1 => words.splice(2.., ["#"]).for_each(drop),
        2 => words[1] = "#",
        _ => {}
    }
    words.join(".")
}

/// Nanoseconds of each call: the median of batches, and the best, which says what a machine that is busy otherwise hides.
fn measure(what: &str, times: u64, mut call: impl FnMut(u64)) {
    const BATCHES: u64 = 200;
    let size = times / BATCHES;
    let mut batch = |number: u64| {
        let begin = Instant::now();
        (number * size..(number + 1) * size).for_each(&mut call);
        begin.elapsed().as_nanos() as f64 / size as f64
    };
    let mut figures: Vec<_> = (0..BATCHES).map(&mut batch).collect();
    figures.sort_by(f64::total_cmp);
    println!("{what:<60} {:>9.1} ns, at best {:>9.1} ns", figures[figures.len() / 2], figures[0]);
}

fn topic(number: u64) -> NewTopic {
    let config = TopicConfig::default();
    NewTopic { name: format!("queue-{number}"), partitions: 1, config, internal: false, unlike: false }
}

async fn bind_all(broker: &Broker, bindings: Vec<NamedBinding>) {
    let begin = Instant::now();
    for some in bindings.chunks(AT_ONCE) {
        let exchanges = broker.exchanges();
        let bind = |binding: &NamedBinding| {
            let (exchanges, binding) = (exchanges.clone(), binding.clone());
            tokio::spawn(async move { exchanges.bind(&Caller::OPERATOR, binding).await })
        };
        let asked: Vec<_> = some.iter().map(bind).collect();
        for bound in asked {
            bound.await.expect("it ends").expect("it can be bound");
        }
    }
    let each = begin.elapsed().as_nanos() as f64 / BINDINGS as f64;
    println!("{:<60} {each:>9.1} ns", "bind, each, several thousand at once, with their commit");
}

fn routes(broker: &Broker, keys: &[String]) {
    let (exchanges, mut scratch) = (broker.exchanges(), RouteScratch::default());
    let mut measured = |what: &str, times: u64, exchange: &str, key: &mut dyn FnMut(u64) -> String| {
        let keys: Vec<String> = (0..times).map(key).collect();
        let mut targets = 0;
        measure(what, times, |at| {
            let publication = Publication::keyed(keys[at as usize].as_bytes());
            let route = exchanges.route(&Caller::OPERATOR, exchange, &publication, &mut scratch);
            targets += route.expect("the exchange is there").topics().len();
        });
        println!("{:<60} {:>9.1}", "  targets of each", targets as f64 / times as f64);
    };
    let some_device = |at: u64| at * 7_919 % BINDINGS;
    let state = |number: u64| format!("site.{}.device.{number}.state", number % 100);
    measured("topic exchange, 100,000 bindings of devices, any key", 200_000, "devices", &mut |at| {
        state(some_device(at))
    });
    measured("the same, 100 keys again and again", 1_000_000, "devices", &mut |at| state(at % 100));
    measured("topic exchange, 100,000 patterns, any key", 200_000, "patterns", &mut |at| {
        keys[at as usize % keys.len()].clone()
    });
    measured("the same, 100 keys again and again", 1_000_000, "patterns", &mut |at| {
        keys[at as usize % 100].clone()
    });
    measured("the default exchange, 100 queues", 1_000_000, "", &mut |at| format!("queue-{}", at % 100));
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dir = tempfile::tempdir().expect("a folder for the data");
    let options = BrokerOptions { data_shards: 1, keep_free: 0, ..BrokerOptions::new(dir.path()) };
    let broker = Broker::open(options, Arc::new(SystemClock)).expect("a new data directory opens");
    let topics = (0..QUEUES).map(topic).collect();
    assert!(broker.create_topics(&Caller::OPERATOR, topics).await.iter().all(Result::is_ok));
    let mut numbers = Numbers(1);
    for exchange in ["devices", "patterns"] {
        let spec = ExchangeSpec::of(ExchangeKind::Topic);
        broker.exchanges().declare(&Caller::OPERATOR, exchange, spec).await.expect("it can be declared");
        let mut key = |at| if exchange == "devices" { device(at) } else { pattern(&mut numbers) };
        let mut binding = |at| {
            let queue = NamedDestination::Queue(format!("queue-{}", at % QUEUES));
            NamedBinding::keyed(exchange, queue, key(at).as_bytes())
        };
        bind_all(&broker, (0..BINDINGS).map(&mut binding).collect()).await;
    }
    let keys: Vec<_> = (0..10_000).map(|_| key(&mut numbers)).collect();
    routes(&broker, &keys);
    broker.shutdown();
}
