//! Patterns against a matcher that tries everything.

use std::time::Duration;

use proptest::prelude::*;
use sabir_routing::trie::{Trie, TrieScratch};
use sabir_routing::{KeySyntax, MAX_WORDS, swap_separators};

/// Whether the words of a pattern match those of a key, by every way to take them.
fn matches(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), None) => matches(rest, key),
        (Some((&"#", rest)), Some((_, keys))) => matches(rest, key) || matches(pattern, keys),
        (Some((word, rest)), Some((first, keys))) => (*word == "*" || word == first) && matches(rest, keys),
        _ => false,
    }
}

fn split(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

/// What a slashed filter matches, by its own specification.
fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    // A star of a filter is a star.
    let star = |level: &str| level.replace('*', "star");
    let filter: Vec<String> = filter.split('/').map(|level| star(level).replace('+', "*")).collect();
    let topic: Vec<String> = topic.split('/').map(star).collect();
    let [filter, topic] = [&filter, &topic].map(|of| of.iter().map(String::as_str).collect::<Vec<_>>());
    matches(&filter, &topic)
}

fn words(of: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(of), 0..=most).prop_map(|words| words.join("."))
}

fn found(trie: &Trie, scratch: &mut TrieScratch, key: &str) -> Vec<u32> {
    let mut out = Vec::new();
    trie.matches(key.as_bytes(), scratch, &mut out).expect("short");
    out.sort_unstable();
    out.dedup();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn dotted_patterns_match_as_a_naive_matcher_says(
        steps in proptest::collection::vec((any::<bool>(), words(&["a", "b", "", "*", "#"], 5), 0..4u32), 1..40),
        keys in proptest::collection::vec(words(&["a", "b", "c", ""], 6), 1..10),
    ) {
        let (mut trie, mut scratch) = (Trie::new(), TrieScratch::default());
        let mut held: Vec<(String, u32)> = Vec::new();
        for (add, pattern, value) in steps {
            let at = held.iter().position(|(p, v)| *v == value && normal(p) == normal(&pattern));
            if add {
                trie.insert(pattern.as_bytes(), KeySyntax::Dotted, value).expect("short");
                held.push((pattern, value));
            } else {
                prop_assert_eq!(trie.remove(pattern.as_bytes(), KeySyntax::Dotted, value), at.is_some());
                at.map(|at| held.remove(at));
            }
            for key in &keys {
                let wanted = |(p, _): &&(String, u32)| matches(&split(p), &split(key));
                let mut want: Vec<u32> = held.iter().filter(wanted).map(|(_, v)| *v).collect();
                want.sort_unstable();
                want.dedup();
                prop_assert_eq!(found(&trie, &mut scratch, key), want, "{} in {:?}", key, &held);
            }
        }
        for (pattern, value) in held {
            prop_assert!(trie.remove(pattern.as_bytes(), KeySyntax::Dotted, value));
        }
        prop_assert_eq!(trie.nodes(), 2, "only the roots are left");
    }

    #[test]
    fn slashed_filters_match_as_a_naive_matcher_says(
        filters in proptest::collection::vec(
            (proptest::collection::vec(proptest::sample::select(&["a", "b", "", "+", "$x", "*", "c.d"][..]), 1..4), any::<bool>()),
            1..20,
        ),
        topics in proptest::collection::vec(
            proptest::collection::vec(proptest::sample::select(&["a", "b", "", "$x", "*", "c.d"][..]), 1..5),
            1..10,
        ),
    ) {
        let (mut trie, mut scratch) = (Trie::new(), TrieScratch::default());
        let mut held = Vec::new();
        for (value, (levels, open)) in filters.into_iter().enumerate() {
            let mut filter = levels.join("/");
            filter.push_str(if open { "/#" } else { "" });
            if filter.is_empty() {
                continue;
            }
            trie.insert(filter.as_bytes(), KeySyntax::Slashed, value as u32).expect("valid");
            held.push((filter, value as u32));
        }
        for topic in topics.iter().map(|levels| levels.join("/")).filter(|topic| !topic.is_empty()) {
            let mut key = topic.clone().into_bytes();
            swap_separators(&mut key);
            let key = String::from_utf8(key).expect("text stays text");
            let want: Vec<u32> =
                held.iter().filter(|(f, _)| filter_matches(f, &topic)).map(|(_, value)| *value).collect();
            prop_assert_eq!(found(&trie, &mut scratch, &key), want, "{}", topic);
        }
    }
}

/// Two patterns are one to a trie if they differ only in how often `#` is repeated.
fn normal(pattern: &str) -> Vec<&str> {
    let mut words = split(pattern);
    words.dedup_by(|one, other| *one == "#" && *other == "#");
    words
}

#[test]
fn topics_that_begin_with_a_dollar_are_for_those_who_name_them() {
    let (mut trie, mut scratch) = (Trie::new(), TrieScratch::default());
    for (value, filter) in ["#", "+/a", "$SYS/#", "$SYS/+"].iter().enumerate() {
        trie.insert(filter.as_bytes(), KeySyntax::Slashed, value as u32).expect("valid");
    }
    trie.insert(b"#", KeySyntax::Dotted, 9).expect("valid");
    assert_eq!(found(&trie, &mut scratch, "$SYS.a"), [2, 3, 9], "a dotted # is for all");
    assert_eq!(found(&trie, &mut scratch, "b.a"), [0, 1, 9]);
}

/// A matcher that tries every way would take longer than there is time.
#[test]
fn patterns_of_many_wildcards_are_not_exponential() {
    let (mut trie, mut scratch) = (Trie::new(), TrieScratch::default());
    for value in 0..120u32 {
        let many = "#.*.".repeat(1 + value as usize % 60) + if value < 60 { "a" } else { "#.x" };
        trie.insert(many.as_bytes(), KeySyntax::Dotted, value).expect("short");
    }
    let key = vec!["a"; MAX_WORDS].join(".");
    let begin = std::time::Instant::now();
    let got = found(&trie, &mut scratch, &key);
    assert_eq!(got, (0..60).collect::<Vec<_>>());
    // It would not end at all.
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn a_key_of_too_many_words_is_refused_and_leaves_the_scratch_usable() {
    let (mut trie, mut scratch) = (Trie::new(), TrieScratch::default());
    trie.insert(b"#.a", KeySyntax::Dotted, 1).expect("short");
    let mut out = Vec::new();
    assert!(trie.matches(&[b'.'; MAX_WORDS], &mut scratch, &mut out).is_err());
    assert_eq!(found(&trie, &mut scratch, "b.a"), [1]);
}
