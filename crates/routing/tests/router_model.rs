//! Random declarations, bindings and messages against a router that knows no index and no cache.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sabir_model::{PartitionId, ShardId};
use sabir_routing::{
    Argument, ArgumentRef, ArgumentValue, Arguments, Attributes, Binding, Destination, ExchangeId,
    ExchangeKind, ExchangeSettings, HashedProperty, KeySyntax, Publication, Removed, ResolveScratch,
    RouteCache, RouteSets, RouteTarget, Router, RouterLimits, SessionNo,
};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const KEYS: [&str; 6] = ["", "x", "x.y", "*", "#", "x.*"];
const QUEUES: [&str; 4] = ["x", "x.y", "q", "r"];

#[derive(Debug, Clone)]
enum Op {
    Declare { name: usize, kind: usize, alternate: Option<usize>, auto_delete: bool },
    Delete { name: usize, if_unused: bool },
    AddQueue { name: usize, target: usize },
    RemoveTarget(usize),
    Bind(Draft),
    Unbind(Draft),
    Route { exchange: usize, keys: Vec<usize>, header: Option<i64> },
}

#[derive(Debug, Clone)]
struct Draft {
    source: usize,
    /// Below the number of names: an exchange.
    destination: usize,
    key: usize,
    arguments: usize,
}

fn draft() -> impl Strategy<Value = Draft> {
    (0..NAMES.len(), 0..NAMES.len() + 4, 0..KEYS.len(), 0..4usize)
        .prop_map(|(source, destination, key, arguments)| Draft { source, destination, key, arguments })
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..NAMES.len();
    let alternate = proptest::option::of(0..=NAMES.len());
    prop_oneof![
        3 => (name.clone(), 0..4usize, alternate, any::<bool>())
            .prop_map(|(name, kind, alternate, auto_delete)| Op::Declare { name, kind, alternate, auto_delete }),
        1 => (name, any::<bool>()).prop_map(|(name, if_unused)| Op::Delete { name, if_unused }),
        1 => (0..QUEUES.len(), 0..4usize).prop_map(|(name, target)| Op::AddQueue { name, target }),
        1 => (0..4usize).prop_map(Op::RemoveTarget),
        6 => draft().prop_map(Op::Bind),
        2 => draft().prop_map(Op::Unbind),
        8 => (0..=NAMES.len(), proptest::collection::vec(0..KEYS.len(), 1..3), proptest::option::of(1..3i64))
            .prop_map(|(exchange, keys, header)| Op::Route { exchange, keys, header }),
    ]
}

fn target(number: usize) -> RouteTarget {
    match number {
        3 => RouteTarget::Session(SessionNo(3)),
        _ => RouteTarget::Partition {
            shard: ShardId(number as u32 % 2),
            partition: PartitionId(number as u64),
        },
    }
}

fn kind(number: usize) -> ExchangeKind {
    [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers][number].clone()
}

fn arguments(number: usize) -> Vec<Argument> {
    let text = |name: &str, value: &str| {
        let value = ArgumentValue::Text(value.as_bytes().into());
        Argument { name: name.as_bytes().into(), tag: b'S', value }
    };
    let header = |value| Argument { name: b"h".as_slice().into(), tag: b'I', value };
    match number {
        0 => vec![],
        1 => vec![text("x-match", "any"), header(ArgumentValue::Integer(1))],
        2 => vec![header(ArgumentValue::Null)],
        _ => vec![header(ArgumentValue::Integer(2)), text("other", "x")],
    }
}

struct OneHeader(Option<i64>);

impl Attributes for OneHeader {
    fn header(&self, name: &[u8]) -> Option<ArgumentRef<'_>> {
        self.0.filter(|_| name == b"h").map(ArgumentRef::Integer)
    }

    fn property(&self, _: HashedProperty) -> Option<ArgumentRef<'_>> {
        None
    }
}

#[derive(Default)]
struct Model {
    exchanges: BTreeMap<usize, ExchangeSettings>,
    queues: BTreeMap<usize, usize>,
    bindings: BTreeSet<(usize, usize, usize, usize)>,
}

impl Model {
    fn route(&self, exchange: usize, keys: &[usize], header: Option<i64>) -> BTreeSet<usize> {
        let (mut targets, mut seen) = (BTreeSet::new(), BTreeSet::new());
        self.pass(exchange, keys, header, &mut targets, &mut seen);
        targets
    }

    fn pass(
        &self,
        exchange: usize,
        keys: &[usize],
        header: Option<i64>,
        targets: &mut BTreeSet<usize>,
        seen: &mut BTreeSet<usize>,
    ) {
        if !seen.insert(exchange) {
            return;
        }
        if exchange == NAMES.len() {
            let named = |key: &usize| QUEUES.iter().position(|queue| *queue == KEYS[*key]);
            targets.extend(keys.iter().filter_map(named).filter_map(|queue| self.queues.get(&queue)));
            return;
        }
        let settings = &self.exchanges[&exchange];
        let met: Vec<_> =
            self.bindings.iter().filter(|b| b.0 == exchange && is_met(settings, b, keys, header)).collect();
        let alternate = settings.alternate.as_deref().filter(|_| met.is_empty()).and_then(index);
        let next = met.iter().map(|b| b.1).chain(alternate);
        for to in next {
            if to > NAMES.len() {
                targets.insert(to - NAMES.len() - 1);
            } else if to == NAMES.len() || self.exchanges.contains_key(&to) {
                self.pass(to, keys, header, targets, seen);
            }
        }
    }

    fn unbind(&mut self, binding: (usize, usize, usize, usize)) {
        if self.bindings.remove(&binding) {
            self.delete_idle(binding.0);
        }
    }

    fn delete_idle(&mut self, exchange: usize) {
        let idle = !self.bindings.iter().any(|b| b.0 == exchange);
        if idle && self.exchanges.get(&exchange).is_some_and(|settings| settings.auto_delete) {
            self.delete(exchange);
        }
    }

    fn delete(&mut self, exchange: usize) {
        self.exchanges.remove(&exchange);
        self.bindings.retain(|b| b.0 != exchange);
        self.unbind_to(exchange);
    }

    fn unbind_to(&mut self, destination: usize) {
        while let Some(binding) = self.bindings.iter().find(|b| b.1 == destination).copied() {
            self.unbind(binding);
        }
    }
}

/// Exchanges by name; the number behind them is the default exchange's, and targets follow.
fn index(name: &str) -> Option<usize> {
    if name.is_empty() { Some(NAMES.len()) } else { NAMES.iter().position(|other| *other == name) }
}

fn is_met(
    settings: &ExchangeSettings,
    binding: &(usize, usize, usize, usize),
    keys: &[usize],
    header: Option<i64>,
) -> bool {
    match settings.kind {
        ExchangeKind::Direct => keys.contains(&binding.2),
        ExchangeKind::Fanout => true,
        ExchangeKind::Topic => keys.iter().any(|key| topic_matches(KEYS[binding.2], KEYS[*key])),
        ExchangeKind::Headers => match binding.3 {
            0 => true,
            1 => header == Some(1),
            2 => header.is_some(),
            _ => false,
        },
        ExchangeKind::ConsistentHash(_) => unreachable!("not declared here"),
    }
}

fn topic_matches(pattern: &str, key: &str) -> bool {
    match pattern {
        "#" => true,
        "*" => !key.is_empty() && !key.contains('.'),
        "x.*" => key == "x.y" || key == "x.*",
        literal => literal == key,
    }
}

struct World {
    model: Model,
    router: Router,
    sets: RouteSets,
    cache: RouteCache,
    scratch: ResolveScratch,
}

impl World {
    fn new() -> Self {
        Self {
            model: Model::default(),
            router: Router::new(RouterLimits::default()),
            sets: RouteSets::new(10_000),
            cache: RouteCache::new(4),
            scratch: ResolveScratch::default(),
        }
    }

    fn destination(&self, number: usize) -> Option<Destination> {
        match number {
            exchange if exchange < NAMES.len() => {
                self.router.exchange(NAMES[exchange]).map(Destination::Exchange)
            }
            other => Some(Destination::Target(target(other - NAMES.len()))),
        }
    }

    /// The binding, as the router and as the model have it.
    fn binding(&self, draft: &Draft) -> Option<(Binding, (usize, usize, usize, usize))> {
        let source = self.router.exchange(NAMES[draft.source])?;
        let destination = self.destination(draft.destination)?;
        let (key, arguments) =
            (KEYS[draft.key].as_bytes().into(), Arguments::new(arguments(draft.arguments)));
        let binding = Binding { source, destination, key, syntax: KeySyntax::Dotted, arguments };
        let to = draft.destination + usize::from(draft.destination >= NAMES.len());
        Some((binding, (draft.source, to, draft.key, draft.arguments)))
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Declare { name, kind: of, alternate, auto_delete } => {
                let alternate = alternate.map(|at| NAMES.get(at).copied().unwrap_or_default().into());
                let settings = ExchangeSettings {
                    alternate,
                    auto_delete: *auto_delete,
                    ..ExchangeSettings::of(kind(*of))
                };
                let declared = self.router.declare(NAMES[*name], settings.clone());
                let held = self.model.exchanges.entry(*name).or_insert(settings.clone());
                assert_eq!(declared.is_ok(), *held == settings);
            }
            Op::Delete { name, if_unused } => {
                let Some(id) = self.router.exchange(NAMES[*name]) else { return };
                let used = self.model.bindings.iter().any(|b| b.0 == *name);
                let deleted = self.router.delete(id, *if_unused);
                assert_eq!(deleted.is_err(), used && *if_unused);
                if deleted.is_ok() {
                    self.model.delete(*name);
                }
            }
            Op::AddQueue { name, target: to } => {
                self.router.add_queue(QUEUES[*name], target(*to));
                self.model.queues.retain(|_, other| other != to);
                self.model.queues.insert(*name, *to);
            }
            Op::RemoveTarget(to) => {
                self.router.remove_target(target(*to));
                self.model.queues.retain(|_, other| other != to);
                self.model.unbind_to(NAMES.len() + 1 + to);
            }
            Op::Bind(draft) => {
                let Some((binding, modelled)) = self.binding(draft) else { return };
                assert_eq!(self.router.bind(binding), Ok(self.model.bindings.insert(modelled)));
            }
            Op::Unbind(draft) => {
                let Some((binding, modelled)) = self.binding(draft) else { return };
                let removed = self.router.unbind(&binding).expect("not from the default exchange");
                assert_eq!(removed != Removed::default(), self.model.bindings.contains(&modelled));
                self.model.unbind(modelled);
            }
            Op::Route { exchange, keys, header } => self.route(*exchange, keys, *header),
        }
        assert_eq!(self.router.bindings(), self.model.bindings.len());
        for (at, name) in NAMES.iter().enumerate() {
            assert_eq!(self.router.exchange(name).is_some(), self.model.exchanges.contains_key(&at));
        }
    }

    fn route(&mut self, exchange: usize, keys: &[usize], header: Option<i64>) {
        let name = NAMES.get(exchange).copied().unwrap_or_default();
        let Some(id) = self.router.exchange(name) else { return };
        let mut want: Vec<_> = self.model.route(exchange, keys, header).into_iter().map(target).collect();
        want.sort();
        let further: Vec<&[u8]> = keys[1..].iter().map(|key| KEYS[*key].as_bytes()).collect();
        let attributes = OneHeader(header);
        let publication = Publication {
            further_keys: &further,
            attributes: &attributes,
            ..Publication::keyed(KEYS[keys[0]].as_bytes())
        };
        self.router.resolve(id, &publication, &mut self.scratch).expect("it is there");
        assert_eq!(self.scratch.targets(), want);
        for _ in 0..2 {
            let set = self.cache.route(&self.router, &mut self.sets, id, &publication).expect("it is there");
            assert_eq!(set.targets(), want, "the cached route of {name:?} by {keys:?}");
        }
    }

    /// Routes by every exchange and key, so that what was cached before each change is looked at after it.
    fn route_all(&mut self) {
        for exchange in 0..=NAMES.len() {
            for key in 0..KEYS.len() {
                self.route(exchange, &[key], Some(1));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn messages_go_where_a_naive_router_sends_them(ops in proptest::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
    }

    #[test]
    fn no_route_outlives_what_it_depends_on(ops in proptest::collection::vec(op(), 1..40)) {
        let mut world = World::new();
        world.cache = RouteCache::new(1_024);
        for op in &ops {
            world.apply(op);
            world.route_all();
        }
    }
}

#[test]
fn the_default_exchange_has_the_number_of_none() {
    assert_eq!(Router::new(RouterLimits::default()).exchange(""), Some(ExchangeId::DEFAULT));
}
