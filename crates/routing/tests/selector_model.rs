//! Random selectors against an evaluator on their trees, and texts that are no selectors.

use std::cmp::Ordering;

use proptest::prelude::*;
use sabir_routing::selector::{Dialect, Properties, PropertyValue, Selector, Truth};

#[derive(Debug, Clone)]
enum Term {
    Property(usize),
    Integer(i64),
    Float(i32),
    Negated(Box<Term>),
    Calculated(char, Box<Term>, Box<Term>),
}

#[derive(Debug, Clone)]
enum Condition {
    Bool(bool),
    Property(usize),
    Compared(&'static str, Term, Term),
    EqualsText(bool, usize, &'static str),
    Between(bool, Term, Term, Term),
    In(bool, usize, Vec<&'static str>),
    Like(bool, usize, &'static str),
    IsNull(bool, usize),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const TEXTS: [&str; 4] = ["", "x", "it's", "xyx"];

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(&'static str),
}

struct Message([Option<Value>; 5]);

impl Properties for Message {
    fn get(&self, name: &str) -> Option<PropertyValue<'_>> {
        let at = NAMES.iter().position(|other| *other == name).expect("a name that was written");
        self.0[at].as_ref().map(|value| match value {
            Value::Bool(value) => PropertyValue::Bool(*value),
            Value::Integer(value) => PropertyValue::Integer(*value),
            Value::Float(value) => PropertyValue::Float(*value),
            Value::Text(value) => PropertyValue::Text(value),
        })
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        (-2..3i64).prop_map(Value::Integer),
        Just(Value::Integer(i64::MIN)),
        (-3..4i32).prop_map(|half| Value::Float(f64::from(half) / 2.0)),
        proptest::sample::select(&TEXTS[..]).prop_map(Value::Text),
    ]
}

fn name() -> impl Strategy<Value = usize> {
    0..NAMES.len()
}

fn term() -> impl Strategy<Value = Term> {
    let leaf = prop_oneof![
        name().prop_map(Term::Property),
        (-2..3i64).prop_map(Term::Integer),
        (-3..4i32).prop_map(Term::Float),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|term| Term::Negated(term.into())),
            (proptest::sample::select(&['+', '-', '*', '/'][..]), inner.clone(), inner)
                .prop_map(|(of, left, right)| Term::Calculated(of, left.into(), right.into())),
        ]
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let text = || proptest::sample::select(&TEXTS[..]);
    let leaf = prop_oneof![
        1 => any::<bool>().prop_map(Condition::Bool),
        1 => name().prop_map(Condition::Property),
        4 => (proptest::sample::select(&["=", "<>", "<", "<=", ">", ">="][..]), term(), term())
            .prop_map(|(of, left, right)| Condition::Compared(of, left, right)),
        1 => (any::<bool>(), name(), text()).prop_map(|(not, name, text)| Condition::EqualsText(not, name, text)),
        2 => (any::<bool>(), term(), term(), term()).prop_map(|(not, a, b, c)| Condition::Between(not, a, b, c)),
        1 => (any::<bool>(), name(), proptest::collection::vec(text(), 1..4))
            .prop_map(|(not, name, list)| Condition::In(not, name, list)),
        1 => (any::<bool>(), name(), proptest::sample::select(&["%", "x%", "_", "%y_", ""][..]))
            .prop_map(|(not, name, pattern)| Condition::Like(not, name, pattern)),
        1 => (any::<bool>(), name()).prop_map(|(not, name)| Condition::IsNull(not, name)),
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|condition| Condition::Not(condition.into())),
            (inner.clone(), inner.clone())
                .prop_map(|(left, right)| Condition::And(left.into(), right.into())),
            (inner.clone(), inner).prop_map(|(left, right)| Condition::Or(left.into(), right.into())),
        ]
    })
}

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// How tightly an expression binds; one that binds looser stands in brackets.
fn bracketed(text: String, binds: u8, wanted: u8) -> String {
    if binds < wanted { format!("({text})") } else { text }
}

fn write_term(term: &Term, wanted: u8) -> String {
    let (text, binds) = match term {
        Term::Property(name) => (NAMES[*name].to_owned(), 9),
        Term::Integer(value) => (value.to_string(), if *value < 0 { 8 } else { 9 }),
        Term::Float(half) => (format!("{:?}", f64::from(*half) / 2.0), if *half < 0 { 8 } else { 9 }),
        // Two signs without a blank would begin a comment.
        Term::Negated(term) => (format!("- {}", write_term(term, 8)), 8),
        Term::Calculated(of, left, right) => {
            let binds = if matches!(of, '+' | '-') { 6 } else { 7 };
            (format!("{} {of} {}", write_term(left, binds), write_term(right, binds + 1)), binds)
        }
    };
    bracketed(text, binds, wanted)
}

fn write(condition: &Condition, wanted: u8) -> String {
    let (text, binds) = match condition {
        Condition::Bool(value) => (value.to_string(), 9),
        Condition::Property(name) => (NAMES[*name].to_owned(), 9),
        Condition::Compared(of, left, right) => {
            (format!("{} {of} {}", write_term(left, 6), write_term(right, 6)), 4)
        }
        Condition::EqualsText(not, name, text) => {
            (format!("{} {} {}", NAMES[*name], if *not { "<>" } else { "=" }, quoted(text)), 4)
        }
        Condition::Between(of, value, low, high) => {
            let [value, low, high] = [value, low, high].map(|term| write_term(term, 6));
            (format!("{value} {}BETWEEN {low} AND {high}", not(*of)), 5)
        }
        Condition::In(of, name, list) => {
            let list: Vec<_> = list.iter().map(|text| quoted(text)).collect();
            (format!("{} {}IN ({})", NAMES[*name], not(*of), list.join(", ")), 5)
        }
        Condition::Like(of, name, pattern) => {
            (format!("{} {}LIKE {}", NAMES[*name], not(*of), quoted(pattern)), 5)
        }
        Condition::IsNull(of, name) => (format!("{} IS {}NULL", NAMES[*name], not(*of)), 4),
        Condition::Not(condition) => (format!("NOT {}", write(condition, 3)), 3),
        Condition::And(left, right) => (format!("{} AND {}", write(left, 2), write(right, 3)), 2),
        Condition::Or(left, right) => (format!("{} OR {}", write(left, 1), write(right, 2)), 1),
    };
    bracketed(text, binds, wanted)
}

fn number(term: &Term, message: &Message) -> Option<Value> {
    match term {
        Term::Property(name) => message.0[*name].clone(),
        Term::Integer(value) => Some(Value::Integer(*value)),
        Term::Float(half) => Some(Value::Float(f64::from(*half) / 2.0)),
        Term::Negated(term) => match number(term, message)? {
            Value::Integer(value) => Some(Value::Integer(value.wrapping_neg())),
            Value::Float(value) => Some(Value::Float(-value)),
            Value::Bool(_) | Value::Text(_) => None,
        },
        Term::Calculated(of, left, right) => calculated(*of, number(left, message)?, number(right, message)?),
    }
}

fn calculated(of: char, left: Value, right: Value) -> Option<Value> {
    if let (Value::Integer(left), Value::Integer(right)) = (&left, &right) {
        return Some(Value::Integer(match of {
            '+' => left.wrapping_add(*right),
            '-' => left.wrapping_sub(*right),
            '*' => left.wrapping_mul(*right),
            _ if *right == 0 => return None,
            _ => left.wrapping_div(*right),
        }));
    }
    let (left, right) = (float(&left)?, float(&right)?);
    Some(Value::Float(match of {
        '+' => left + right,
        '-' => left - right,
        '*' => left * right,
        _ => left / right,
    }))
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        Value::Bool(_) | Value::Text(_) => None,
    }
}

type Known = Option<bool>;

fn compared(of: &str, left: Option<Value>, right: Option<Value>) -> Known {
    let (left, right) = (left?, right?);
    let ordering = match (&left, &right) {
        (Value::Integer(left), Value::Integer(right)) => left.partial_cmp(right),
        (Value::Bool(_), Value::Bool(_)) | (Value::Text(_), Value::Text(_)) => {
            return Some((of == "=" && left == right) || (of == "<>" && left != right));
        }
        _ => float(&left).zip(float(&right)).and_then(|(left, right)| left.partial_cmp(&right)),
    };
    Some(ordering.is_some_and(|ordering| match of {
        "=" => ordering == Ordering::Equal,
        "<>" => ordering != Ordering::Equal,
        "<" => ordering == Ordering::Less,
        "<=" => ordering != Ordering::Greater,
        ">" => ordering == Ordering::Greater,
        _ => ordering != Ordering::Less,
    }))
}

fn and(left: Known, right: Known) -> Known {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn or(left: Known, right: Known) -> Known {
    and(left.map(|known| !known), right.map(|known| !known)).map(|known| !known)
}

fn like(pattern: &str, text: &str) -> bool {
    let rest = |text: &str| text.chars().skip(1).collect::<String>();
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('%') => like(&pattern[1..], text) || (!text.is_empty() && like(pattern, &rest(text))),
        Some('_') => !text.is_empty() && like(&pattern[1..], &rest(text)),
        Some(c) => text.starts_with(c) && like(&pattern[1..], &rest(text)),
    }
}

fn known(condition: &Condition, message: &Message) -> Known {
    match condition {
        Condition::Bool(value) => Some(*value),
        Condition::Property(name) => message.0[*name].as_ref().map(|value| *value == Value::Bool(true)),
        Condition::Compared(of, left, right) => compared(of, number(left, message), number(right, message)),
        Condition::EqualsText(not, name, text) => {
            compared(if *not { "<>" } else { "=" }, message.0[*name].clone(), Some(Value::Text(text)))
        }
        Condition::Between(not, value, low, high) => {
            let [value, low, high] = [value, low, high].map(|term| number(term, message));
            match not {
                true => or(compared("<", value.clone(), low), compared(">", value, high)),
                false => and(compared(">=", value.clone(), low), compared("<=", value, high)),
            }
        }
        Condition::In(not, name, list) => match message.0[*name] {
            Some(Value::Text(text)) => Some(list.contains(&text) != *not),
            _ => None,
        },
        Condition::Like(not, name, pattern) => match message.0[*name].as_ref()? {
            Value::Text(text) => Some(like(pattern, text) != *not),
            _ => Some(false),
        },
        Condition::IsNull(not, name) => Some(message.0[*name].is_none() != *not),
        Condition::Not(condition) => known(condition, message).map(|known| !known),
        Condition::And(left, right) => and(known(left, message), known(right, message)),
        Condition::Or(left, right) => or(known(left, message), known(right, message)),
    }
}

fn truth(known: Known) -> Truth {
    match known {
        Some(true) => Truth::True,
        Some(false) => Truth::False,
        None => Truth::Unknown,
    }
}

/// A part of a text that may or may not be a selector.
fn part() -> impl Strategy<Value = String> {
    const PARTS: &[&str] = &[
        "a",
        "b",
        "1",
        "2.5",
        "'x'",
        "'it''s'",
        "(",
        ")",
        "=",
        "<>",
        "<",
        ">=",
        "+",
        "-",
        "*",
        "/",
        ",",
        "AND",
        "OR",
        "NOT",
        "BETWEEN",
        "IN",
        "LIKE",
        "ESCAPE",
        "IS",
        "NULL",
        "TRUE",
        "CONTAINS",
        "'%_'",
        "'\\'",
        "\"",
        "'",
        "--",
        "/*",
        "*/",
        "\n",
        "0x",
        "1e",
        ".",
        "é",
        "\u{0}",
        "\u{1f600}",
        "9223372036854775808",
    ];
    prop_oneof![20 => proptest::sample::select(PARTS).prop_map(str::to_owned), 1 => ".{0,3}"]
}

struct AllThere;

impl Properties for AllThere {
    fn get(&self, name: &str) -> Option<PropertyValue<'_>> {
        (name != "b").then_some(PropertyValue::Text("7"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn selectors_say_what_their_trees_say(
        condition in condition(),
        values in proptest::array::uniform5(proptest::option::of(value())),
    ) {
        let message = Message(values);
        let text = write(&condition, 0);
        let selector = Selector::parse(&text, Dialect::Jms);
        let selector = selector.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(selector.truth(&message), truth(known(&condition, &message)), "{}", text);
    }

    #[test]
    fn no_text_panics(parts in proptest::collection::vec(part(), 0..24), blank in any::<bool>()) {
        let text = parts.join(if blank { " " } else { "" });
        for dialect in [Dialect::Jms, Dialect::TextProperties] {
            if let Ok(selector) = Selector::parse(&text, dialect) {
                selector.truth(&AllThere);
            }
        }
    }
}
