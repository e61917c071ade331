//! What selectors say of messages, case by case.

use std::collections::HashMap;

use sabir_routing::selector::{
    Dialect, MAX_BYTES, MAX_DEPTH, MAX_TERMS, Properties, PropertyValue, Selector, SelectorError, Truth,
};

use PropertyValue::{Bool, Float, Integer, Text};
use Truth::{False, True, Unknown};

struct Message(HashMap<&'static str, PropertyValue<'static>>);

impl Properties for Message {
    fn get(&self, name: &str) -> Option<PropertyValue<'_>> {
        self.0.get(name).copied()
    }
}

fn message() -> Message {
    Message(HashMap::from([
        ("i", Integer(7)),
        ("big", Integer(i64::MAX)),
        ("f", Float(2.5)),
        ("nan", Float(f64::NAN)),
        ("s", Text("red")),
        ("number", Text("7")),
        ("fraction", Text(" 7.5 ")),
        ("yes", Text("true")),
        ("quote", Text("it's")),
        ("percent", Text("100%")),
        ("under", Text("_foo")),
        ("t", Bool(true)),
        ("u", Bool(false)),
        ("JMSPriority", Integer(9)),
        ("JMSDeliveryMode", Text("PERSISTENT")),
        ("content-type", Text("text/plain")),
        ("größe", Integer(3)),
        ("LIKE", Text("a")),
    ]))
}

fn all_are(dialect: Dialect, cases: &[(&str, Truth)]) {
    let message = message();
    for (text, want) in cases {
        let selector = Selector::parse(text, dialect).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selector.truth(&message), *want, "{text}");
        assert_eq!(selector.matches(&message), *want == True, "{text}");
    }
}

fn all_are_refused(dialect: Dialect, texts: &[&str]) {
    for text in texts {
        assert!(Selector::parse(text, dialect).is_err(), "{text} is no selector");
    }
}

#[test]
fn comparisons_of_like_types() {
    all_are(
        Dialect::Jms,
        &[
            ("i = 7", True),
            ("i <> 7", False),
            ("i = 7.0", True),
            ("i = 0x7 AND i = 07 AND i = 7L AND i = 7e0 AND i = 7.f", True),
            ("i < 8 AND i <= 7 AND i > 6 AND i >= 7", True),
            ("7 < i OR i < 7", False),
            ("f > 2 AND f < 3", True),
            ("big > 9223372036854775806", True),
            ("big = 9223372036854775807.0", True),
            ("s = 'red'", True),
            ("s = 'RED'", False),
            ("s <> 'blue'", True),
            ("quote = 'it''s'", True),
            ("t = TRUE AND u = false AND t <> u", True),
            ("(i > 3) = TRUE", True),
            ("JMSPriority >= 9 AND JMSDeliveryMode = 'PERSISTENT'", True),
            ("größe = 3", True),
            ("\"content-type\" = 'text/plain'", True),
        ],
    );
}

#[test]
fn comparisons_of_unlike_types_are_false_and_text_is_no_number() {
    all_are(
        Dialect::Jms,
        &[
            ("number = 7", False),
            ("number <> 7", False),
            ("number > 6", False),
            ("NOT number > 6", True),
            ("number BETWEEN 6 AND 8", False),
            ("number NOT BETWEEN 6 AND 8", False),
            ("s = TRUE", False),
            ("t = 'true'", False),
            ("t = 1", False),
            ("s > number", False),
            ("nan = nan", False),
            ("nan <> 1", False),
            ("i LIKE '7'", False),
            ("i NOT LIKE '8'", False),
            ("i IN ('7')", Unknown),
            ("s", False),
        ],
    );
}

#[test]
fn what_is_not_there_makes_unknown_what_is_said_of_it() {
    all_are(
        Dialect::Jms,
        &[
            ("x = 1", Unknown),
            ("x <> 1", Unknown),
            ("x = x", Unknown),
            ("NOT x = 1", Unknown),
            ("x", Unknown),
            ("NOT x", Unknown),
            ("x > 1 OR i = 7", True),
            ("i = 7 OR x > 1", True),
            ("x > 1 OR i = 8", Unknown),
            ("x > 1 AND i = 7", Unknown),
            ("i = 7 AND x > 1", Unknown),
            ("x > 1 AND i = 8", False),
            ("i = 8 AND x > 1", False),
            ("x > 1 AND y > 1", Unknown),
            ("NOT (x > 1 AND i = 8)", True),
            ("x IN ('a')", Unknown),
            ("x NOT IN ('a')", Unknown),
            ("x LIKE 'a'", Unknown),
            ("x NOT LIKE 'a'", Unknown),
            ("x BETWEEN 1 AND 2", Unknown),
            ("i BETWEEN x AND 6", False),
            ("i BETWEEN x AND 8", Unknown),
            ("i NOT BETWEEN x AND 6", True),
            ("x + 1 = 1", Unknown),
            ("-x = 1", Unknown),
            ("x IS NULL", True),
            ("x IS NOT NULL", False),
            ("(i) IS NULL", False),
            ("i IS NOT NULL AND NOT i IS NULL", True),
        ],
    );
}

#[test]
fn lists_ranges_and_patterns() {
    all_are(
        Dialect::Jms,
        &[
            ("s IN ('blue', 'red', 'red')", True),
            ("s NOT IN ('blue','green')", True),
            ("s in ('blue')", False),
            ("i BETWEEN 7 AND 7", True),
            ("i BETWEEN 8 AND 6", False),
            ("i NOT BETWEEN 8 AND 9", True),
            ("i + 1 BETWEEN f * 2 AND 9", True),
            ("s LIKE 'r_d'", True),
            ("s LIKE 'r%'", True),
            ("s NOT LIKE '%x%'", True),
            ("s LIKE 'R%'", False),
            ("percent LIKE '100\\%' ESCAPE '\\'", True),
            ("percent LIKE '%!%' ESCAPE '!'", True),
            ("under LIKE '\\_%' ESCAPE '\\'", True),
            ("s LIKE '\\_%' ESCAPE '\\'", False),
            ("under LIKE '%\\oo' escape '\\'", True),
        ],
    );
}

#[test]
fn arithmetic_is_that_of_java() {
    all_are(
        Dialect::Jms,
        &[
            ("1 + 2 * 3 = 7", True),
            ("(1 + 2) * 3 = 9", True),
            ("7 / 2 = 3", True),
            ("7 / 2.0 = 3.5", True),
            ("-7 / 2 = -3", True),
            ("10 - 3 - 2 = 5", True),
            ("- -i = 7 AND -(i) = -7 AND +i = 7", True),
            ("i / 0 = 1", Unknown),
            ("1 / 0.0 > big", True),
            ("big + 1 = -9223372036854775808", True),
            ("-9223372036854775808 / -1 < 0", True),
            ("s + 1 = 1", Unknown),
            ("1 - -1 = 2", True),
        ],
    );
}

#[test]
fn not_binds_tighter_than_and_and_that_tighter_than_or() {
    all_are(
        Dialect::Jms,
        &[
            ("TRUE OR TRUE AND FALSE", True),
            ("(TRUE OR TRUE) AND FALSE", False),
            ("NOT FALSE AND FALSE", False),
            ("NOT (FALSE AND FALSE)", True),
            ("NOT i = 8", True),
            ("NOT NOT t", True),
            ("not t Or nOT u", True),
            ("t AND NOT u", True),
            ("i = 7 -- and a comment\n AND /* another */ t", True),
        ],
    );
}

#[test]
fn properties_of_text_are_numbers_where_numbers_are_asked_for() {
    all_are(
        Dialect::TextProperties,
        &[
            ("number = 7", True),
            ("7 = number", True),
            ("number <> 7", False),
            ("number > 6.5 AND number <= 7", True),
            ("fraction > number", True),
            ("fraction BETWEEN 7 AND 8", True),
            ("number NOT BETWEEN 7 AND 8", False),
            ("number + 1 = 8 AND -number = -7", True),
            ("number = '7'", True),
            ("number = '7.0'", False),
            ("yes = TRUE", True),
            ("s = TRUE", False),
            ("yes", False),
            ("t = 1", False),
            ("t <> 1", True),
            ("s IN ('red')", True),
            ("x > 1", Unknown),
            ("x IS NULL", True),
            ("s LIKE 'r%'", True),
            ("LIKE = 'a'", True),
            ("LIKE LIKE 'a'", True),
        ],
    );
}

#[test]
fn text_that_is_no_number_makes_the_message_unwanted_unless_it_is_not_asked() {
    all_are(
        Dialect::TextProperties,
        &[
            ("s > 1", Unknown),
            ("s = 1", Unknown),
            ("NOT s = 1", Unknown),
            ("s > 1 OR number = 7", Unknown),
            ("number = 7 OR s > 1", True),
            ("number = 8 AND s > 1", False),
            ("s > number", Unknown),
        ],
    );
}

#[test]
fn texts_are_searched() {
    all_are(
        Dialect::TextProperties,
        &[
            ("s CONTAINS 'e'", True),
            ("s STARTSWITH 're' AND s ENDSWITH 'ed'", True),
            ("s NOT CONTAINS 'x' AND s NOT STARTSWITH 'x' AND s NOT ENDSWITH 'x'", True),
            ("s NOT CONTAINS 'e'", False),
            ("x CONTAINS 'e'", False),
            ("x NOT CONTAINS 'e'", False),
            ("i NOT CONTAINS 'e'", False),
            ("s CONTAINS ''", False),
            ("s NOT CONTAINS ''", False),
        ],
    );
    all_are_refused(Dialect::Jms, &["s CONTAINS 'e'", "s STARTSWITH 'e'"]);
    all_are_refused(Dialect::TextProperties, &["CONTAINS = 1", "s CONTAINS e", "s CONTAINS"]);
}

#[test]
fn what_is_no_selector_is_refused() {
    let both = [
        "",
        " ",
        "(",
        ")",
        "()",
        "a =",
        "= a",
        "a = 1)",
        "(a = 1",
        "a b",
        "a AND",
        "AND a",
        "NOT",
        "a NOT 1",
        "1",
        "'a'",
        "i + 1",
        "'a' AND t",
        "1 OR t",
        "NOT 1",
        "a = NULL",
        "NULL",
        "a > NULL",
        "a > 'b'",
        "'b' < a",
        "a > TRUE",
        "(a = 1) > 2",
        "a BETWEEN 'a' AND 'b'",
        "a BETWEEN 1",
        "a BETWEEN 1 OR 2",
        "a IN",
        "a IN ()",
        "a IN (1)",
        "a IN ('a',)",
        "a IN ('a'",
        "1 IN ('a')",
        "a + 1 IN ('a')",
        "a IS",
        "a IS NOT",
        "a IS 1",
        "1 IS NULL",
        "(a = 1) IS NULL",
        "a = 'b",
        "a = 1x",
        "a = 08",
        "a = 9223372036854775808",
        "a = -9223372036854775809",
        "a = 1e999",
        "a == 1",
        "a != 1",
        "a = 1;",
        "a.b = 1",
        "a = 'x' + 1",
        "-'a' = 1",
        "t + 1 = TRUE + 1",
        "OR",
        "between = 1",
        "True = = 1",
        "a LIKE 1",
        "a LIKE b",
        "1 LIKE 'a'",
        "a LIKE 'b' ESCAPE",
        "a LIKE 'b' ESCAPE 'xy'",
        "a LIKE 'b' ESCAPE ''",
        "a LIKE 'b!' ESCAPE '!'",
        "/* a = 1",
    ];
    all_are_refused(Dialect::Jms, &both);
    all_are_refused(Dialect::TextProperties, &both);
    all_are_refused(Dialect::Jms, &["LIKE = 1", "escape = 1", "\"\" = 1", "a = \"b"]);
    all_are_refused(Dialect::TextProperties, &["\"a\" = 1"]);
}

#[test]
fn errors_say_where_and_what() {
    let error = Selector::parse("a = 1 AND b IN (2)", Dialect::Jms).expect_err("no text");
    assert_eq!(error, SelectorError::Expected { at: 16, expected: "a text in single quotes" });
    assert_eq!(error.to_string(), "at character 16: a text in single quotes expected");
}

#[test]
fn names_are_told_once_each() {
    let selector = Selector::parse("b = 1 AND a = b OR a IS NULL", Dialect::Jms).expect("valid");
    assert_eq!(selector.names().collect::<Vec<_>>(), ["b", "a"]);
}

#[test]
fn depth_length_and_terms_are_bounded() {
    let nested = |depth: usize| format!("{}t{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Selector::parse(&nested(MAX_DEPTH), Dialect::Jms).is_ok());
    let deep = Selector::parse(&nested(MAX_DEPTH + 1), Dialect::Jms);
    assert!(matches!(deep, Err(SelectorError::TooDeep { .. })), "{deep:?}");

    let held = format!("{}1{} = 1", "1 + (".repeat(40), ")".repeat(40));
    assert!(matches!(Selector::parse(&held, Dialect::Jms), Err(SelectorError::TooDeep { .. })));

    let terms = |many: usize| vec!["t"; many].join(" OR ");
    assert!(Selector::parse(&terms(1_000), Dialect::Jms).expect("1,000 terms").matches(&message()));
    assert_eq!(Selector::parse(&terms(MAX_TERMS), Dialect::Jms).err(), Some(SelectorError::TooManyTerms));
    let listed = format!("s IN ({})", vec!["'a'"; MAX_TERMS + 1].join(","));
    assert_eq!(Selector::parse(&listed, Dialect::Jms).err(), Some(SelectorError::TooManyTerms));
    for repeated in ["NOT ", "- ", "+ "] {
        let text = format!("{}t", repeated.repeat(MAX_TERMS + 1));
        assert_eq!(Selector::parse(&text, Dialect::Jms).err(), Some(SelectorError::TooManyTerms));
    }
    let long = format!("s = '{}'", "a".repeat(MAX_BYTES));
    assert_eq!(Selector::parse(&long, Dialect::Jms).err(), Some(SelectorError::TooLong(MAX_BYTES + 6)));
    let pattern = format!("s LIKE '{}'", "%".repeat(300));
    assert!(Selector::parse(&pattern, Dialect::Jms).is_err());
}
