//! What routing costs: `cargo run --release -p sabir-routing --example routing_speed`.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use sabir_model::{PartitionId, ShardId};
use sabir_routing::selector::{Dialect, Properties, PropertyValue, Selector};
use sabir_routing::trie::{Trie, TrieScratch};
use sabir_routing::{
    Binding, Destination, ExchangeId, ExchangeKind, ExchangeSettings, KeySyntax, Publication, ResolveScratch,
    RouteCache, RouteSets, RouteTarget, Router, RouterLimits, TagFilter, tag_hash,
};

const BINDINGS: u64 = 100_000;

/// Steps through numbers without a pattern (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
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

fn queue(number: u64) -> RouteTarget {
    RouteTarget::Partition { shard: ShardId(1), partition: PartitionId(number) }
}

fn key(numbers: &mut Numbers, words: u64) -> String {
    let parts: Vec<_> =
        (0..words).map(|at| format!("w{}", numbers.below(10u64.pow(1 + at as u32 % 3)))).collect();
    parts.join(".")
}

/// A pattern of five words, half of them with wildcards.
fn pattern(numbers: &mut Numbers) -> String {
    let key = key(numbers, 5);
    let mut words: Vec<_> = key.split('.').collect();
    match numbers.below(6) {
        0 => words[numbers.below(5) as usize] = "*",
        1 => words.splice(2.., ["#"]).for_each(drop),
        2 => words[1] = "#",
        _ => {}
    }
    words.join(".")
}

fn exchange(kind: ExchangeKind) -> (Router, ExchangeId) {
    let mut router = Router::new(RouterLimits::default());
    let id = router.declare("e", ExchangeSettings::of(kind)).expect("new");
    (router, id)
}

fn bind(router: &mut Router, id: ExchangeId, to: u64, key: &str) {
    router.bind(Binding::keyed(id, Destination::Target(queue(to)), key.as_bytes())).expect("valid");
}

fn topic() {
    let mut numbers = Numbers(1);
    let (mut router, id) = exchange(ExchangeKind::Topic);
    let begin = Instant::now();
    for at in 0..BINDINGS {
        let pattern = pattern(&mut numbers);
        bind(&mut router, id, at, &pattern);
    }
    println!("{:<60} {:>9.1} ns", "bind, topic, each", begin.elapsed().as_nanos() as f64 / BINDINGS as f64);
    let keys: Vec<_> = (0..10_000).map(|_| key(&mut numbers, 5)).collect();
    let mut scratch = ResolveScratch::default();
    let mut targets = 0;
    measure("route, topic of 100,000 patterns, not cached", 200_000, |at| {
        let key = keys[at as usize % keys.len()].as_bytes();
        router.resolve(id, &Publication::keyed(key), &mut scratch).expect("there");
        targets += scratch.targets().len();
    });
    println!("{:<60} {:>9.1}", "  targets of each", targets as f64 / 200_000.0);
    cached("route, topic, cached, 1,000 keys", &router, id, &keys[..1_000]);
    cached("route, topic, 10,000 keys and 4,096 places", &router, id, &keys);
}

fn cached(what: &str, router: &Router, id: ExchangeId, keys: &[String]) {
    let (mut cache, mut sets) = (RouteCache::new(4_096), RouteSets::new(64 << 20));
    measure(what, 1_000_000, |at| {
        let key = keys[at as usize % keys.len()].as_bytes();
        black_box(cache.route(router, &mut sets, id, &Publication::keyed(key)).expect("there"));
    });
    println!("{:<60} {:>9}", "  sets kept", sets.len());
}

fn filters() {
    let (mut trie, mut scratch) = (Trie::new(), TrieScratch::default());
    for at in 0..BINDINGS {
        let filter = match at % 10 {
            0 => format!("site/+/device/{at}/#"),
            _ => format!("site/{}/device/{at}/state", at % 100),
        };
        trie.insert(filter.as_bytes(), KeySyntax::Slashed, at as u32).expect("valid");
    }
    let mut out = Vec::new();
    let keys: Vec<_> = (0..BINDINGS).map(|at| format!("site.{}.device.{at}.state", at % 100)).collect();
    measure("match, 100,000 filters of devices", 200_000, |at| {
        out.clear();
        let key = &keys[(at * 7_919 % BINDINGS) as usize];
        trie.matches(key.as_bytes(), &mut scratch, &mut out).expect("short");
        assert_eq!(out.len(), 1);
    });
}

fn adversarial() {
    let (mut trie, mut scratch) = (Trie::new(), TrieScratch::default());
    for at in 0..1_000u32 {
        let pattern = format!("{}a{at}", "#.*.".repeat(1 + at as usize % 60));
        trie.insert(pattern.as_bytes(), KeySyntax::Dotted, at).expect("short");
    }
    trie.insert(b"#.#.#.a", KeySyntax::Dotted, 1_000).expect("short");
    let key = vec!["a"; 128].join(".");
    let mut out = Vec::new();
    measure("match, 60 nested # and *, 128 words", 1_000, |_| {
        out.clear();
        trie.matches(key.as_bytes(), &mut scratch, &mut out).expect("short");
        assert_eq!(out, [1_000]);
    });
}

fn others() {
    for (what, kind) in [("direct", ExchangeKind::Direct), ("fanout", ExchangeKind::Fanout)] {
        let fanout = kind == ExchangeKind::Fanout;
        let (mut router, id) = exchange(kind);
        for at in 0..BINDINGS {
            bind(&mut router, id, if fanout { at % 100 } else { at }, &at.to_string());
        }
        let keys: Vec<_> = (0..1_000).map(|at| at.to_string()).collect();
        cached(&format!("route, {what}, 100,000 bindings, cached"), &router, id, &keys);
        let mut scratch = ResolveScratch::default();
        measure(&format!("route, {what}, 100,000 bindings, not cached"), 200_000, |at| {
            let key = keys[at as usize % keys.len()].as_bytes();
            router.resolve(id, &Publication::keyed(key), &mut scratch).expect("there");
            black_box(scratch.targets());
        });
    }
    let (mut router, _) = exchange(ExchangeKind::Direct);
    let keys: Vec<_> = (0..1_000).map(|at| format!("queue-{at}")).collect();
    keys.iter().enumerate().for_each(|(at, name)| router.add_queue(name, queue(at as u64)));
    cached("route, default exchange, cached", &router, ExchangeId::DEFAULT, &keys);
}

struct Message(HashMap<&'static str, PropertyValue<'static>>);

impl Properties for Message {
    fn get(&self, name: &str) -> Option<PropertyValue<'_>> {
        self.0.get(name).copied()
    }
}

fn filtering() {
    let message = Message(HashMap::from([
        ("color", PropertyValue::Text("red")),
        ("weight", PropertyValue::Integer(2_600)),
        ("JMSPriority", PropertyValue::Integer(4)),
    ]));
    for text in
        ["JMSPriority >= 4", "color IN ('blue', 'red') AND weight BETWEEN 2500 AND 3000 AND color LIKE 'r%'"]
    {
        let selector = Selector::parse(text, Dialect::Jms).expect("valid");
        measure(&format!("select, {} bytes", text.len()), 2_000_000, |_| {
            assert!(black_box(&selector).matches(black_box(&message)));
        });
    }
    let filter = TagFilter::parse("a || b || c || d").expect("valid");
    let hash = Some(tag_hash("c"));
    measure("tag, by hash", 10_000_000, |_| assert!(black_box(&filter).may_match(black_box(hash))));
}

fn main() {
    topic();
    filters();
    adversarial();
    others();
    filtering();
}
