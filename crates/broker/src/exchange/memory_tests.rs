//! What exchanges and bindings take of the heap, beside what is counted of it.

use sabir_base::testing::taken_by;
use sabir_model::FrontendNo;
use sabir_routing::{Argument, ArgumentValue, Arguments, ExchangeKind};

use super::table::ExchangeTable;
use super::{ExchangeSpec, NamedBinding, NamedDestination};
use crate::catalog::Catalog;
use crate::entry::{ExchangeBound, ExchangeDeclared};

/// Right after a hash table has grown, when it is emptiest, and right before.
const COUNTS: [usize; 2] = [15_000, 28_000];

struct Rig {
    table: ExchangeTable,
    catalog: Catalog,
}

impl Rig {
    fn declare(&mut self, name: &str, kind: ExchangeKind) {
        let (namespace, name, made_by) = ("/".to_owned(), name.to_owned(), FrontendNo(1));
        let body = ExchangeDeclared { namespace, name, spec: ExchangeSpec::of(kind), made_by };
        self.table.declare(body).unwrap();
    }

    fn bind(&mut self, binding: NamedBinding) {
        self.table.bind(ExchangeBound { namespace: "/".to_owned(), binding }, &self.catalog).unwrap();
    }

    fn counted(&self) -> usize {
        self.table.size().1 + self.table.routers().binding_bytes()
    }
}

fn is_counted(what: &str, kind: ExchangeKind, make: impl Fn(&mut Rig, usize)) {
    for count in COUNTS {
        let mut rig = Rig { table: ExchangeTable::default(), catalog: Catalog::default() };
        rig.declare("from", kind.clone());
        rig.declare("to", ExchangeKind::Fanout);
        let before = rig.counted();
        let ((), taken) = taken_by(|| (0..count).for_each(|i| make(&mut rig, i)));
        let counted = rig.counted() - before;
        println!("{what}: {} bytes each, {} counted", taken / count, counted / count);
        assert!(taken <= counted && counted < 2 * taken, "{what}, {count}: {taken} taken, {counted} counted");
    }
}

fn bound(key: String, arguments: Vec<Argument>) -> NamedBinding {
    NamedBinding {
        arguments: Arguments::new(arguments),
        ..NamedBinding::keyed("from", NamedDestination::Exchange("to".to_owned()), key.as_bytes())
    }
}

fn header(name: &str, value: String) -> Argument {
    let value = ArgumentValue::Text(value.into_bytes().into());
    Argument { name: name.as_bytes().into(), tag: b'S', value }
}

fn number(name: &str, value: usize) -> Argument {
    Argument { name: name.as_bytes().into(), tag: b'I', value: ArgumentValue::Integer(value as i64) }
}

#[test]
fn what_exchanges_and_bindings_take_is_counted() {
    let key = |i: usize| format!("{i}{}", ".a-word".repeat(30));
    let short = |i: usize| format!("k{i}");
    let all = || header("x-match", "all".to_owned());
    is_counted("an exchange", ExchangeKind::Fanout, |rig, i| rig.declare(&short(i), ExchangeKind::Direct));
    is_counted("a topic exchange", ExchangeKind::Fanout, |rig, i| {
        rig.declare(&short(i), ExchangeKind::Topic)
    });
    is_counted("a binding", ExchangeKind::Direct, |rig, i| rig.bind(bound(short(i), vec![])));
    is_counted("a binding with a long key", ExchangeKind::Direct, |rig, i| rig.bind(bound(key(i), vec![])));
    is_counted("a fanout with a long key", ExchangeKind::Fanout, |rig, i| rig.bind(bound(key(i), vec![])));
    is_counted("a pattern", ExchangeKind::Topic, |rig, i| rig.bind(bound(short(i), vec![])));
    is_counted("a pattern with a long key", ExchangeKind::Topic, |rig, i| rig.bind(bound(key(i), vec![])));
    let hash = || ExchangeKind::ConsistentHash(sabir_routing::HashOn::Key);
    is_counted("a weight", hash(), |rig, i| rig.bind(bound("1".to_owned(), vec![number("n", i)])));
    is_counted("a header", ExchangeKind::Headers, |rig, i| {
        rig.bind(bound(String::new(), vec![all(), number("n", i)]));
    });
    is_counted("three headers", ExchangeKind::Headers, |rig, i| {
        let of = |name: &str| header(name, format!("value {i}"));
        rig.bind(bound(String::new(), vec![all(), of("kind"), of("country"), number("n", i)]));
    });
    is_counted("twenty headers", ExchangeKind::Headers, |rig, i| {
        let many = (0..20).map(|j| header(&format!("name {j}"), format!("value {i}"))).collect();
        rig.bind(bound(String::new(), many));
    });
    is_counted("an exchange bound to one of its own", ExchangeKind::Direct, |rig, i| {
        rig.declare(&key(i), ExchangeKind::Fanout);
        let to = NamedDestination::Exchange(key(i));
        rig.bind(NamedBinding::keyed("from", to, key(i).as_bytes()));
    });
}
