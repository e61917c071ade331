//! Single rules of exchanges and bindings.

use std::sync::Arc;

use sabir_model::{PartitionId, ShardId, TopicId};
use sabir_routing::{
    Argument, ArgumentRef, ArgumentValue, Arguments, Attributes, Binding, BindingError, BindingId,
    DeclareError, Destination, ExchangeDeleteError, ExchangeId, ExchangeKind, ExchangeSettings, HashOn,
    HashedProperty, InvalidBinding, KeyError, KeySyntax, Publication, Removed, ResolveError, ResolveScratch,
    RouteCache, RouteSets, RouteTarget, Router, RouterLimits,
};

fn router() -> Router {
    Router::new(RouterLimits::default())
}

fn queue(number: u64) -> RouteTarget {
    RouteTarget::Partition { shard: ShardId(1), partition: PartitionId(number) }
}

fn to(number: u64) -> Destination {
    Destination::Target(queue(number))
}

fn declare(router: &mut Router, name: &str, kind: ExchangeKind) -> ExchangeId {
    router.declare(name, ExchangeSettings::of(kind)).expect("new")
}

fn routed(router: &Router, exchange: ExchangeId, publication: &Publication<'_>) -> Vec<RouteTarget> {
    let mut scratch = ResolveScratch::default();
    router.resolve(exchange, publication, &mut scratch).expect("the exchange is there");
    scratch.targets().to_vec()
}

/// The bindings that a change took away.
fn bindings(removed: &Removed) -> Vec<&Binding> {
    removed.bindings.iter().map(|(_, binding)| &**binding).collect()
}

fn text(value: &str) -> ArgumentValue {
    ArgumentValue::Text(value.as_bytes().into())
}

fn arguments(list: &[(&str, ArgumentValue)]) -> Arguments {
    let argument = |(name, value): &(&str, ArgumentValue)| Argument {
        name: name.as_bytes().into(),
        tag: 0,
        value: value.clone(),
    };
    Arguments::new(list.iter().map(argument).collect())
}

struct Headers(Vec<(&'static str, ArgumentRef<'static>)>);

impl Attributes for Headers {
    fn header(&self, name: &[u8]) -> Option<ArgumentRef<'_>> {
        self.0.iter().find(|(other, _)| other.as_bytes() == name).map(|(_, value)| *value)
    }

    fn property(&self, property: HashedProperty) -> Option<ArgumentRef<'_>> {
        (property == HashedProperty::MessageId).then_some(ArgumentRef::Text(b"m"))
    }
}

fn with<'a>(attributes: &'a dyn Attributes) -> Publication<'a> {
    Publication { attributes, ..Publication::keyed(b"") }
}

#[test]
fn headers_are_matched_by_value_and_x_headers_only_where_asked() {
    let one = || ("a", ArgumentValue::Integer(1));
    let x = || ("x-a", ArgumentValue::Integer(1));
    let rule = |name| ("x-match", text(name));
    let headers = |list: &[(&'static str, ArgumentRef<'static>)]| Headers(list.to_vec());
    let integer = |value| ArgumentRef::Integer(value);
    let cases = [
        (vec![], headers(&[]), true),
        (vec![rule("all")], headers(&[]), true),
        (vec![rule("any")], headers(&[("a", integer(1))]), false),
        (vec![one()], headers(&[("a", integer(1)), ("b", integer(2))]), true),
        (vec![one()], headers(&[("a", integer(2))]), false),
        (vec![one()], headers(&[("a", ArgumentRef::Float(1.0))]), false),
        (vec![one()], headers(&[("a", ArgumentRef::Text(b"1"))]), false),
        (vec![one(), ("b", text("x"))], headers(&[("a", integer(1))]), false),
        (vec![rule("any"), one(), ("b", text("x"))], headers(&[("a", integer(1))]), true),
        (vec![("a", ArgumentValue::Null)], headers(&[("a", ArgumentRef::Composite(b"..."))]), true),
        (vec![("a", ArgumentValue::Null)], headers(&[]), false),
        (vec![one(), x()], headers(&[("a", integer(1))]), true),
        (vec![rule("any"), x()], headers(&[("x-a", integer(1))]), false),
        (vec![rule("all-with-x"), one(), x()], headers(&[("a", integer(1))]), false),
        (vec![rule("all-with-x"), one(), x()], headers(&[("a", integer(1)), ("x-a", integer(1))]), true),
        (vec![rule("any-with-x"), one(), x()], headers(&[("x-a", integer(1))]), true),
        (vec![rule("any-with-x")], headers(&[("x-match", ArgumentRef::Text(b"any-with-x"))]), false),
    ];
    for (at, (wanted, headers, want)) in cases.into_iter().enumerate() {
        let mut router = router();
        let exchange = declare(&mut router, "h", ExchangeKind::Headers);
        let binding = Binding { arguments: arguments(&wanted), ..Binding::keyed(exchange, to(1), b"") };
        router.bind(binding).expect("valid");
        assert_eq!(!routed(&router, exchange, &with(&headers)).is_empty(), want, "case {at}");
    }
}

#[test]
fn bindings_that_an_exchange_cannot_have_are_refused() {
    let mut router = router();
    let headers = declare(&mut router, "h", ExchangeKind::Headers);
    let topic = declare(&mut router, "t", ExchangeKind::Topic);
    let hash = declare(&mut router, "c", ExchangeKind::ConsistentHash(HashOn::Key));
    for wrong in [text("some"), ArgumentValue::Integer(1)] {
        let binding =
            Binding { arguments: arguments(&[("x-match", wrong)]), ..Binding::keyed(headers, to(1), b"") };
        assert_eq!(router.bind(binding), Err(BindingError::Invalid(InvalidBinding::Match)));
    }
    let wild = Binding { syntax: KeySyntax::Slashed, ..Binding::keyed(topic, to(1), b"#/a") };
    let misplaced = InvalidBinding::Key(KeyError::MisplacedWildcard);
    assert_eq!(router.bind(wild), Err(BindingError::Invalid(misplaced)));
    assert_eq!(
        router.bind(Binding::keyed(hash, to(1), b"x")),
        Err(BindingError::Invalid(InvalidBinding::Weight))
    );
    let default = Binding::keyed(ExchangeId::DEFAULT, to(1), b"x");
    assert_eq!(router.unbind(&default), Err(BindingError::DefaultExchange));
    assert_eq!(router.bind(default), Err(BindingError::DefaultExchange));
    let to_default = Binding::keyed(topic, Destination::Exchange(ExchangeId::DEFAULT), b"x");
    assert_eq!(router.bind(to_default), Err(BindingError::DefaultExchange));
    assert_eq!(router.bind(Binding::keyed(ExchangeId(99), to(1), b"x")), Err(BindingError::NoExchange));
    let to_none = Binding::keyed(topic, Destination::Exchange(ExchangeId(99)), b"x");
    assert_eq!(router.bind(to_none), Err(BindingError::NoExchange));
    assert_eq!(router.bindings(), 0);
}

#[test]
fn a_binding_is_itself_by_key_arguments_and_their_types() {
    let mut router = router();
    let exchange = declare(&mut router, "d", ExchangeKind::Direct);
    let typed = |tag| {
        let argument = Argument { name: b"a".as_slice().into(), tag, value: ArgumentValue::Integer(1) };
        Binding { arguments: Arguments::new(vec![argument]), ..Binding::keyed(exchange, to(1), b"k") }
    };
    for binding in [Binding::keyed(exchange, to(1), b"k"), typed(b'I'), typed(b'l')] {
        assert_eq!(router.bind(binding.clone()), Ok(true));
        assert_eq!(router.bind(binding), Ok(false), "binding again changes nothing");
    }
    assert_eq!(router.bindings_from(exchange).count(), 3);
    for binding in [typed(b'I'), Binding::keyed(exchange, to(1), b"k")] {
        assert_eq!(bindings(&router.unbind(&binding).expect("allowed")), [&binding]);
        assert_eq!(routed(&router, exchange, &Publication::keyed(b"k")), [queue(1)]);
    }
    assert!(router.unbind(&typed(b'S')).expect("allowed").bindings.is_empty(), "there was none");
    router.unbind(&typed(b'l')).expect("allowed");
    assert_eq!(routed(&router, exchange, &Publication::keyed(b"k")), []);
}

#[test]
fn a_consistent_hash_exchange_hashes_what_it_was_told_to() {
    let on = [
        HashOn::Key,
        HashOn::Header(b"h".as_slice().into()),
        HashOn::Property(HashedProperty::MessageId),
        HashOn::Property(HashedProperty::Timestamp),
    ];
    let spread = on.map(|on| {
        let mut router = router();
        let exchange = declare(&mut router, "c", ExchangeKind::ConsistentHash(on));
        for number in 0..8 {
            router.bind(Binding::keyed(exchange, to(number), b"1")).expect("valid");
        }
        let ways = (0..64u64).map(|n| {
            let key = n.to_string();
            let headers = Headers(vec![("h", ArgumentRef::Integer(n as i64))]);
            let publication = Publication { attributes: &headers, ..Publication::keyed(key.as_bytes()) };
            let targets = routed(&router, exchange, &publication);
            assert_eq!(targets.len(), 1, "one destination a message");
            targets[0]
        });
        ways.collect::<std::collections::BTreeSet<_>>().len()
    });
    assert!(spread[0] > 4 && spread[1] > 4, "{spread:?}");
    assert_eq!(spread[2..], [1, 1], "one message id, and no timestamp, are one way");
}

#[test]
fn an_alternate_exchange_gets_what_no_binding_wants_even_if_it_comes_later() {
    let mut router = router();
    let settings =
        ExchangeSettings { alternate: Some("later".into()), ..ExchangeSettings::of(ExchangeKind::Direct) };
    let exchange = router.declare("e", settings).expect("new");
    router.bind(Binding::keyed(exchange, to(1), b"k")).expect("valid");
    let (mut cache, mut sets) = (RouteCache::new(16), RouteSets::new(1 << 20));
    let mut by = |router: &Router, key: &[u8]| {
        let set = cache.route(router, &mut sets, exchange, &Publication::keyed(key)).expect("there");
        set.targets().to_vec()
    };
    assert_eq!(by(&router, b"other"), []);
    let later = declare(&mut router, "later", ExchangeKind::Fanout);
    assert_eq!(by(&router, b"other"), []);
    router.bind(Binding::keyed(later, to(2), b"")).expect("valid");
    assert_eq!(by(&router, b"other"), [queue(2)]);
    assert_eq!(by(&router, b"k"), [queue(1)]);
    router.delete(later, false).expect("there");
    assert_eq!(by(&router, b"other"), []);
}

#[test]
fn an_alternate_exchange_is_not_asked_where_another_exchange_is_bound() {
    let mut router = router();
    let settings = ExchangeSettings {
        alternate: Some("alternate".into()),
        ..ExchangeSettings::of(ExchangeKind::Fanout)
    };
    let exchange = router.declare("e", settings).expect("new");
    let alternate = declare(&mut router, "alternate", ExchangeKind::Fanout);
    let empty = declare(&mut router, "empty", ExchangeKind::Fanout);
    router.bind(Binding::keyed(alternate, to(1), b"")).expect("valid");
    router.bind(Binding::keyed(exchange, Destination::Exchange(empty), b"")).expect("valid");
    assert_eq!(routed(&router, exchange, &Publication::keyed(b"")), []);
}

#[test]
fn the_default_exchange_asks_by_name_for_queues_that_the_router_does_not_have() {
    let mut router = router();
    let settings =
        ExchangeSettings { alternate: Some("".into()), ..ExchangeSettings::of(ExchangeKind::Direct) };
    let exchange = router.declare("e", settings).expect("new");
    router.add_queue("own", queue(1));
    let queues = |name: &[u8]| (name == b"other").then(|| queue(2));
    let (mut cache, mut sets) = (RouteCache::new(16), RouteSets::new(1 << 20));
    for (key, found) in [(&b"own"[..], vec![queue(1)]), (b"other", vec![queue(2)]), (b"none", vec![])] {
        let publication = Publication { queues: &queues, ..Publication::keyed(key) };
        for exchange in [exchange, ExchangeId::DEFAULT, exchange] {
            let route = cache.route(&router, &mut sets, exchange, &publication).expect("there");
            assert_eq!(route.targets(), found);
        }
        let gone = cache.route(&router, &mut sets, exchange, &Publication::keyed(key)).expect("there");
        assert_eq!(gone.is_empty(), key != b"own", "what the router does not know is asked for each time");
    }
}

#[test]
fn a_cache_that_may_hold_all_routes_remembers_all() {
    let mut router = router();
    let exchange = declare(&mut router, "d", ExchangeKind::Direct);
    let keys: Vec<String> = (0..200u64).map(|key| key.to_string()).collect();
    for (number, key) in (0..).zip(&keys) {
        router.bind(Binding::keyed(exchange, to(number), key.as_bytes())).expect("valid");
    }
    let (mut cache, mut sets) = (RouteCache::new(1 << 16), RouteSets::new(1 << 20));
    let find = |cache: &RouteCache, key: &str| {
        cache.find(&router, exchange, &Publication::keyed(key.as_bytes())).map(|set| set.targets().to_vec())
    };
    for (number, key) in (0..).zip(&keys) {
        assert_eq!(find(&cache, key), None);
        cache.route(&router, &mut sets, exchange, &Publication::keyed(key.as_bytes())).expect("there");
        assert_eq!(find(&cache, key), Some(vec![queue(number)]));
    }
    for (number, key) in (0..).zip(&keys) {
        assert_eq!(find(&cache, key), Some(vec![queue(number)]), "none had to go");
    }
}

#[test]
fn numbers_are_told_with_what_goes_and_go_on_from_those_that_were_given() {
    let mut router = router();
    let exchange =
        router.declare_as(ExchangeId(7), "e", ExchangeSettings::of(ExchangeKind::Direct)).expect("new");
    let binding = |key| Arc::new(Binding::keyed(exchange, to(1), key));
    assert_eq!(router.bind_as(BindingId(9), binding(b"a")), Ok(true));
    assert_eq!(router.bind_as(BindingId(10), binding(b"a")), Ok(false), "it is there, as number 9");
    router.bind(Binding::keyed(exchange, to(1), b"b")).expect("valid");
    let removed = router.remove_target(queue(1));
    assert_eq!(removed.bindings, [(BindingId(9), binding(b"a")), (BindingId(10), binding(b"b"))]);
    assert_eq!(declare(&mut router, "f", ExchangeKind::Direct), ExchangeId(8));
}

#[test]
fn cycles_of_exchanges_are_passed_once() {
    let mut router = router();
    let ids: Vec<_> =
        ["a", "b", "c"].iter().map(|name| declare(&mut router, name, ExchangeKind::Fanout)).collect();
    for (at, id) in ids.iter().enumerate() {
        for next in &ids {
            router.bind(Binding::keyed(*id, Destination::Exchange(*next), b"")).expect("valid");
        }
        router.bind(Binding::keyed(*id, to(at as u64), b"")).expect("valid");
        router.bind(Binding::keyed(*id, to(7), b"")).expect("valid");
    }
    assert_eq!(routed(&router, ids[1], &Publication::keyed(b"")), [0, 1, 2, 7].map(queue));
}

#[test]
fn exchanges_that_delete_themselves_do_so_with_their_last_binding_and_take_others_along() {
    let mut router = router();
    let auto = |kind| ExchangeSettings { auto_delete: true, ..ExchangeSettings::of(kind) };
    let first = router.declare("first", auto(ExchangeKind::Fanout)).expect("new");
    let second = router.declare("second", auto(ExchangeKind::Direct)).expect("new");
    let kept = declare(&mut router, "kept", ExchangeKind::Fanout);
    assert!(router.exchange("first").is_some(), "it never had a binding");
    router.bind(Binding::keyed(first, Destination::Exchange(second), b"")).expect("valid");
    router.bind(Binding::keyed(kept, Destination::Exchange(second), b"")).expect("valid");
    let last = Binding::keyed(second, to(1), b"k");
    router.bind(last.clone()).expect("valid");

    let removed = router.unbind(&last).expect("allowed");
    assert_eq!(removed.exchanges, [(second, "second".into()), (first, "first".into())]);
    assert_eq!(removed.bindings.len(), 3);
    assert_eq!((router.exchange("second"), router.exchange("first")), (None, None));
    assert!(router.exchange("kept").is_some() && router.bindings() == 0);
}

#[test]
fn what_is_deleted_takes_its_bindings_along_in_both_directions() {
    let mut router = router();
    let [a, b] = ["a", "b"].map(|name| declare(&mut router, name, ExchangeKind::Fanout));
    router.add_queue("q", queue(1));
    for binding in [
        Binding::keyed(a, Destination::Exchange(b), b""),
        Binding::keyed(b, to(1), b""),
        Binding::keyed(a, to(1), b"x"),
    ] {
        router.bind(binding).expect("valid");
    }
    assert_eq!(router.delete(b, true), Err(ExchangeDeleteError::InUse));
    assert_eq!(router.delete(b, false).expect("there").bindings.len(), 2);
    assert_eq!(router.delete(b, false), Err(ExchangeDeleteError::NoExchange));
    assert_eq!(router.delete(ExchangeId::DEFAULT, false), Err(ExchangeDeleteError::DefaultExchange));
    assert_eq!(router.bindings_to(to(1)).count(), 1);
    assert_eq!(routed(&router, ExchangeId::DEFAULT, &Publication::keyed(b"q")), [queue(1)]);
    assert_eq!(bindings(&router.remove_target(queue(1))), [&Binding::keyed(a, to(1), b"x")]);
    assert_eq!(routed(&router, ExchangeId::DEFAULT, &Publication::keyed(b"q")), []);
    assert_eq!(routed(&router, a, &Publication::keyed(b"q")), []);
    let gone = router.resolve(b, &Publication::keyed(b""), &mut ResolveScratch::default());
    assert_eq!(gone, Err(ResolveError::NoExchange));
}

#[test]
fn a_message_with_several_keys_goes_where_any_of_them_leads_once() {
    let mut router = router();
    let exchange = declare(&mut router, "d", ExchangeKind::Direct);
    router.add_queue("a", queue(1));
    router.bind(Binding::keyed(exchange, to(1), b"a")).expect("valid");
    router.bind(Binding::keyed(exchange, to(1), b"b")).expect("valid");
    router.bind(Binding::keyed(exchange, to(2), b"c")).expect("valid");
    let publication = Publication { further_keys: &[b"a", b"c", b"a"], ..Publication::keyed(b"b") };
    assert_eq!(routed(&router, exchange, &publication), [queue(1), queue(2)]);
    assert_eq!(routed(&router, ExchangeId::DEFAULT, &publication), [queue(1)]);
}

#[test]
fn an_exchange_is_declared_again_only_alike() {
    let mut router = router();
    let settings = ExchangeSettings::of(ExchangeKind::Topic);
    let id = router.declare("e", settings.clone()).expect("new");
    assert_eq!(router.declare("e", settings.clone()), Ok(id));
    for (other, what) in [
        (ExchangeSettings::of(ExchangeKind::Direct), "type"),
        (ExchangeSettings { alternate: Some("x".into()), ..settings.clone() }, "alternate exchange"),
        (ExchangeSettings { auto_delete: true, ..settings.clone() }, "auto-delete"),
        (ExchangeSettings { delayed: true, ..settings.clone() }, "delay"),
        (ExchangeSettings { internal: true, ..settings.clone() }, "internal mark"),
    ] {
        assert_eq!(router.declare("e", other), Err(DeclareError::Differs(what)));
    }
    assert_eq!(router.declare("", settings.clone()), Err(DeclareError::DefaultExchange));
    router.delete(id, false).expect("there");
    assert!(router.declare("e", settings).expect("new") > id, "a number is never given twice");
}

#[test]
fn exchanges_and_bindings_are_bounded_in_number_and_bytes() {
    let limits = RouterLimits { exchanges: 1, bindings: 2, binding_bytes: 2_000 };
    let mut router = Router::new(limits);
    let exchange = declare(&mut router, "e", ExchangeKind::Direct);
    let more = router.declare("f", ExchangeSettings::of(ExchangeKind::Direct));
    assert_eq!(more, Err(DeclareError::TooMany(1)));
    let large = router.bind(Binding::keyed(exchange, to(1), &[0; 2_000]));
    assert_eq!(large, Err(BindingError::TooMany { bindings: 0, bytes: 0 }));
    for key in [b"a", b"b"] {
        router.bind(Binding::keyed(exchange, to(1), key)).expect("room");
    }
    let third = router.bind(Binding::keyed(exchange, to(1), b"c"));
    assert!(matches!(third, Err(BindingError::TooMany { bindings: 2, .. })), "{third:?}");
    router.remove_target(queue(1));
    router.bind(Binding::keyed(exchange, to(1), b"c")).expect("room again");
}

#[test]
fn cached_routes_are_shared_and_let_go_of_when_sets_have_no_room() {
    let mut router = router();
    let exchange = declare(&mut router, "d", ExchangeKind::Direct);
    for number in 0..10_000u64 {
        let key = number.to_string();
        router.bind(Binding::keyed(exchange, to(number % 500), key.as_bytes())).expect("valid");
    }
    let (mut cache, mut sets) = (RouteCache::new(4_096), RouteSets::new(20_000));
    let topic = declare(&mut router, "t", ExchangeKind::Topic);
    router
        .bind(Binding::keyed(topic, Destination::Target(RouteTarget::Topic(TopicId([1; 16]))), b"#"))
        .expect("valid");
    let ids: Vec<_> = [b"x".as_slice(), b"y"]
        .iter()
        .map(|key| cache.route(&router, &mut sets, topic, &Publication::keyed(key)).expect("there").id())
        .collect();
    assert_eq!(ids[0], ids[1], "one set for both keys");
    for number in 0..10_000u64 {
        let key = number.to_string();
        let set =
            cache.route(&router, &mut sets, exchange, &Publication::keyed(key.as_bytes())).expect("there");
        assert_eq!(set.targets(), [queue(number % 500)]);
        assert!(sets.bytes() <= 20_000);
    }
    cache.clear();
    sets.collect();
    assert!(sets.is_empty());
}

#[test]
fn a_fanout_is_cached_once_for_all_keys() {
    let mut router = router();
    let fanout = declare(&mut router, "f", ExchangeKind::Fanout);
    let headers = declare(&mut router, "h", ExchangeKind::Headers);
    router.bind(Binding::keyed(fanout, to(1), b"")).expect("valid");
    router.bind(Binding::keyed(headers, to(1), b"")).expect("valid");
    let (mut cache, mut sets) = (RouteCache::new(16), RouteSets::new(1 << 20));
    for exchange in [fanout, headers] {
        cache.route(&router, &mut sets, exchange, &Publication::keyed(b"x")).expect("there");
    }
    assert!(cache.find(&router, fanout, &Publication::keyed(b"never seen")).is_some());
    assert!(cache.find(&router, headers, &Publication::keyed(b"x")).is_none(), "headers decide");
}

/// If each removal counted all buckets anew, this would take minutes.
#[test]
fn a_destination_with_very_many_bindings_on_a_ring_is_removed_quickly() {
    let mut router = router();
    let exchange = declare(&mut router, "c", ExchangeKind::ConsistentHash(HashOn::Key));
    for number in 0..50_000 {
        let arguments = arguments(&[("n", ArgumentValue::Integer(number))]);
        router.bind(Binding { arguments, ..Binding::keyed(exchange, to(1), b"1") }).expect("valid");
    }
    let begin = std::time::Instant::now();
    assert_eq!(router.remove_target(queue(1)).bindings.len(), 50_000);
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    assert_eq!(routed(&router, exchange, &Publication::keyed(b"k")), []);
}
