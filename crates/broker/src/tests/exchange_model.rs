//! Exchanges and bindings against a naive model: random changes, restarts, checkpoints and power cuts. What was answered holds, routes are the
//! model's, and after every start the projections are those of a replay from zero.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sabir_model::TopicError;

use super::rig::{create, soon};
use super::sim::{Machine, Seam};
use crate::exchange::{
    ExchangeError, ExchangeKind, ExchangeSpec, NamedBinding, NamedDestination, Publication, RouteScratch,
};
use crate::{Broker, Caller};

const EXCHANGES: [&str; 4] = ["a", "b", "c", "d"];
const QUEUES: [&str; 3] = ["p", "q", "r"];
const KEYS: [&str; 4] = ["", "x", "x.y", "p"];
const PATTERNS: [&str; 5] = ["x", "x.*", "#", "*", ""];
const CALLER: Caller = Caller::client("one", crate::SessionId(1));

#[derive(Debug, Clone)]
enum Step {
    Declare { name: usize, kind: usize, marks: u8, alternate: Option<usize> },
    Delete { name: usize, if_unused: bool },
    Bind(Bound),
    Unbind(Bound),
    Create(usize),
    DeleteTopic(usize),
    Checkpoint,
    Restart,
    Crash,
}

/// Exchange, destination (exchanges first, then queues), pattern.
type Bound = (usize, usize, usize);

fn step() -> impl Strategy<Value = Step> {
    let bound = || (0..EXCHANGES.len(), 0..EXCHANGES.len() + QUEUES.len(), 0..PATTERNS.len());
    let name = 0..EXCHANGES.len();
    prop_oneof![
        6 => (name.clone(), 0..3usize, 0..8u8, prop::option::of(0..EXCHANGES.len() + 1))
            .prop_map(|(name, kind, marks, alternate)| Step::Declare { name, kind, marks, alternate }),
        2 => (name, any::<bool>()).prop_map(|(name, if_unused)| Step::Delete { name, if_unused }),
        12 => bound().prop_map(Step::Bind),
        4 => bound().prop_map(Step::Unbind),
        4 => (0..QUEUES.len()).prop_map(Step::Create),
        2 => (0..QUEUES.len()).prop_map(Step::DeleteTopic),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

fn kind(of: usize) -> ExchangeKind {
    [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic][of].clone()
}

fn spec(of: usize, marks: u8, alternate: Option<usize>) -> ExchangeSpec {
    ExchangeSpec {
        durable: marks & 1 == 0,
        auto_delete: marks & 2 != 0,
        internal: marks & 4 != 0,
        alternate: alternate.map(|at| EXCHANGES.get(at).copied().unwrap_or_default().into()),
        ..ExchangeSpec::of(kind(of))
    }
}

fn binding((source, to, pattern): Bound) -> NamedBinding {
    let destination = match EXCHANGES.get(to) {
        Some(name) => NamedDestination::Exchange((*name).to_owned()),
        None => NamedDestination::Queue(QUEUES[to - EXCHANGES.len()].to_owned()),
    };
    NamedBinding::keyed(EXCHANGES[source], destination, PATTERNS[pattern].as_bytes())
}

/// Whether a key matches a pattern, word by word.
fn matches(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), _) => matches(rest, key) || (!key.is_empty() && matches(pattern, &key[1..])),
        (Some((&"*", rest)), Some((_, others))) => matches(rest, others),
        (Some((word, rest)), Some((other, others))) => word == other && matches(rest, others),
        _ => false,
    }
}

fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

#[derive(Debug, Default, Clone)]
struct Model {
    exchanges: BTreeMap<usize, ExchangeSpec>,
    bindings: BTreeSet<Bound>,
    queues: BTreeSet<usize>,
}

impl Model {
    fn is_there(&self, to: usize) -> bool {
        if to < EXCHANGES.len() {
            self.exchanges.contains_key(&to)
        } else {
            self.queues.contains(&(to - EXCHANGES.len()))
        }
    }

    fn delete(&mut self, name: usize) {
        self.exchanges.remove(&name);
        self.remove_where(|(source, to, _)| *source == name || *to == name);
    }

    /// Takes bindings away, and exchanges that go with their last one.
    fn remove_where(&mut self, gone: impl Fn(&Bound) -> bool) {
        let removed: Vec<Bound> = self.bindings.iter().filter(|bound| gone(bound)).copied().collect();
        removed.iter().for_each(|bound| {
            self.bindings.remove(bound);
        });
        for (source, ..) in removed {
            let used = self.bindings.iter().any(|(other, ..)| *other == source);
            if !used && self.exchanges.get(&source).is_some_and(|spec| spec.auto_delete) {
                self.delete(source);
            }
        }
    }

    fn start(&mut self) {
        while let Some(name) = self.exchanges.iter().find(|(_, spec)| !spec.durable).map(|(name, _)| *name) {
            self.delete(name);
        }
    }

    fn route(&self, exchange: usize, key: &str) -> BTreeSet<usize> {
        let (mut seen, mut pending, mut found) = (BTreeSet::new(), vec![exchange], BTreeSet::new());
        while let Some(at) = pending.pop() {
            if !seen.insert(at) {
                continue;
            }
            if at == EXCHANGES.len() {
                found.extend(
                    QUEUES.iter().position(|name| *name == key).filter(|at| self.queues.contains(at)),
                );
                continue;
            }
            let Some(spec) = self.exchanges.get(&at) else { continue };
            let met = |bound: &&Bound| bound.0 == at && self.is_met(&spec.kind, bound, key);
            let met: Vec<usize> = self.bindings.iter().filter(met).map(|(_, to, _)| *to).collect();
            if met.is_empty() {
                let alternate = spec.alternate.as_deref();
                pending.extend(alternate.map(|name| {
                    EXCHANGES.iter().position(|other| *other == name).unwrap_or(EXCHANGES.len())
                }));
            }
            for to in met {
                match to.checked_sub(EXCHANGES.len()) {
                    None => pending.push(to),
                    Some(queue) => found.extend([queue]),
                }
            }
        }
        found
    }

    fn is_met(&self, kind: &ExchangeKind, (_, _, pattern): &Bound, key: &str) -> bool {
        match kind {
            ExchangeKind::Direct => PATTERNS[*pattern] == key,
            ExchangeKind::Topic => matches(&words(PATTERNS[*pattern]), &words(key)),
            _ => true,
        }
    }
}

struct World {
    machine: Machine,
    broker: Broker,
    model: Model,
    scratch: RouteScratch,
}

impl World {
    async fn take(mut self, step: &Step) -> Self {
        match step {
            Step::Declare { name, kind, marks, alternate } => {
                self.declare(*name, spec(*kind, *marks, *alternate)).await;
            }
            Step::Delete { name, if_unused } => self.delete(*name, *if_unused).await,
            Step::Bind(bound) => self.bind(*bound).await,
            Step::Unbind(bound) => {
                soon(self.broker.exchanges().unbind(&CALLER, binding(*bound))).await.unwrap();
                self.model.remove_where(|other| other == bound);
            }
            Step::Create(queue) => {
                if self.model.queues.insert(*queue) {
                    create(&self.broker, QUEUES[*queue], 1).await;
                }
            }
            Step::DeleteTopic(queue) => self.delete_topic(*queue).await,
            Step::Checkpoint => self.broker.catalog_shard().checkpoint().unwrap(),
            Step::Restart => {
                let broker = self.broker.clone();
                tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
                return self
                    .started(|machine, broker| {
                        drop(broker);
                        machine
                    })
                    .await;
            }
            Step::Crash => return self.started(Machine::crash).await,
        }
        self.check_routes();
        self
    }

    async fn declare(&mut self, name: usize, spec: ExchangeSpec) {
        let declared = soon(self.broker.exchanges().declare(&CALLER, EXCHANGES[name], spec.clone())).await;
        let held = self.model.exchanges.entry(name).or_insert(spec.clone());
        match declared {
            Ok(()) => assert_eq!(*held, spec),
            Err(ExchangeError::Differs { .. }) => assert_ne!(*held, spec),
            Err(error) => panic!("{error}"),
        }
    }

    async fn delete(&mut self, name: usize, if_unused: bool) {
        let deleted = soon(self.broker.exchanges().delete(&CALLER, EXCHANGES[name], if_unused)).await;
        let used = self.model.bindings.iter().any(|(source, ..)| *source == name);
        match deleted {
            Ok(()) => {
                assert!(self.model.exchanges.contains_key(&name) && !(if_unused && used));
                self.model.delete(name);
            }
            Err(ExchangeError::Unknown(_)) => assert!(!self.model.exchanges.contains_key(&name)),
            Err(ExchangeError::InUse(_)) => assert!(if_unused && used),
            Err(error) => panic!("{error}"),
        }
    }

    async fn bind(&mut self, bound: Bound) {
        let done = soon(self.broker.exchanges().bind(&CALLER, binding(bound))).await;
        let possible = self.model.exchanges.contains_key(&bound.0) && self.model.is_there(bound.1);
        match done {
            Ok(()) => assert!(possible),
            Err(ExchangeError::Unknown(_) | ExchangeError::UnknownQueue(_)) => assert!(!possible),
            Err(error) => panic!("{error}"),
        }
        if possible {
            self.model.bindings.insert(bound);
        }
    }

    async fn delete_topic(&mut self, queue: usize) {
        let topic = self.broker.catalog().topic(QUEUES[queue]).map(|topic| topic.id);
        assert_eq!(topic.is_some(), self.model.queues.remove(&queue));
        let Some(id) = topic else { return };
        let deleted: Result<(), TopicError> =
            soon(self.broker.delete_topics(&CALLER, vec![id])).await.remove(0);
        deleted.unwrap();
        self.model.remove_where(|(_, to, _)| *to == EXCHANGES.len() + queue);
    }

    /// The machine goes down one way or the other, and starts again.
    async fn started(self, down: impl FnOnce(Machine, Broker) -> Machine + Send + 'static) -> Self {
        let Self { machine, broker, mut model, .. } = self;
        let opening = move || {
            let machine = down(machine, broker);
            let broker = machine.open();
            (machine, broker)
        };
        let (machine, broker) = tokio::task::spawn_blocking(opening).await.unwrap();
        model.start();
        let mut world = Self { machine, broker, model, scratch: RouteScratch::default() };
        world.check_routes();
        world.machine.agrees_with_replay(&world.broker);
        world
    }

    /// What is remembered from before the change, and what is found anew.
    fn check_routes(&mut self) {
        for (exchange, name) in EXCHANGES.iter().enumerate() {
            let there = self.broker.exchanges().get(&CALLER, name).unwrap();
            assert_eq!(there.as_deref(), self.model.exchanges.get(&exchange), "{name}");
            if there.is_none_or(|spec| spec.internal) {
                continue;
            }
            for key in KEYS {
                let publication = Publication::keyed(key.as_bytes());
                for scratch in [&mut self.scratch, &mut RouteScratch::default()] {
                    let route = self.broker.exchanges().route(&CALLER, name, &publication, scratch).unwrap();
                    let topics: BTreeSet<&str> = route.topics().iter().map(|topic| &*topic.name).collect();
                    let wanted = self.model.route(exchange, key);
                    let wanted: BTreeSet<&str> = wanted.iter().map(|at| QUEUES[*at]).collect();
                    assert_eq!(topics, wanted, "{name} {key:?}");
                }
            }
        }
    }
}

fn run(seed: u64, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let machine = Machine { recycle: false, ..Machine::new(seed, 1, Seam::Solo) };
        let broker = machine.open();
        let (model, scratch) = (Model::default(), RouteScratch::default());
        let mut world = Box::new(World { machine, broker, model, scratch });
        for step in steps.iter().chain([&Step::Restart, &Step::Crash]) {
            *world = Box::pin(world.take(step)).await;
        }
        let rows = world.broker.catalog_shard().state.read().exchanges.rows();
        assert_eq!(rows, (world.model.exchanges.len(), world.model.bindings.len()), "nothing is left over");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 60, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exchanges_are_what_the_model_has(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..60)) {
        run(seed, &steps);
    }
}
