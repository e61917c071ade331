//! One name for one thing: no two public types of the workspace share a name, wherever they stand, and no two types of a crate that more
//! than their own module sees.
//!
//! Tests and their helpers aside. The messages of a protocol's wire, which a macro declares, are not looked at: they are named as the
//! protocol's specification names them. What one module alone sees may be called what it is called there.

mod sources;

use std::collections::BTreeMap;
use std::path::Path;

use sources::{folder, metadata, sources, without_comments};

/// Names that stand for more than one type, each with the reason why another name would be worse.
const SHARED: &[(&str, &str)] = &[];

/// The same of types that are not public, with their crate.
const SHARED_WITHIN: &[(&str, &str, &str)] = &[];

/// Where each name is declared.
type Places = BTreeMap<String, Vec<String>>;

/// Who sees a type beside its own module.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Every crate that has its path.
    Everywhere,
    /// Other modules of its crate.
    Within,
}

#[test]
fn no_public_type_name_stands_twice_without_a_stated_reason() {
    let mut places = Places::new();
    for package in metadata().workspace_packages() {
        note(&mut places, &folder(package).join("src"), |seen| seen == Seen::Everywhere);
    }
    assert!(places.len() > 200, "the types are found");
    check(&places, SHARED);
}

#[test]
fn no_type_name_stands_twice_in_a_crate_without_a_stated_reason() {
    for package in metadata().workspace_packages() {
        let mut places = Places::new();
        note(&mut places, &folder(package).join("src"), |_| true);
        let of_crate = SHARED_WITHIN.iter().filter(|(of, ..)| *of == *package.name);
        check(&places, &of_crate.map(|(_, name, why)| (*name, *why)).collect::<Vec<_>>());
    }
}

/// Names that stand twice have a reason, and reasons are of names that do.
fn check(places: &Places, shared: &[(&str, &str)]) {
    let twice = twice(places);
    let reason = |name: &str| shared.iter().find(|(shared, _)| *shared == name).map(|(_, why)| *why);
    let unexplained: Vec<_> =
        twice.iter().filter(|(name, _)| reason(name).is_none_or(str::is_empty)).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    let idle: Vec<_> = shared.iter().filter(|(name, _)| !twice.contains_key(*name)).collect();
    assert!(idle.is_empty(), "these names stand once: {idle:?}");
}

fn note(places: &mut Places, folder: &Path, counts: impl Fn(Seen) -> bool) {
    for (path, code) in sources(folder) {
        note_code(places, &path.display().to_string(), &code, &counts);
    }
}

fn note_code(places: &mut Places, path: &str, code: &str, counts: impl Fn(Seen) -> bool) {
    for (number, line) in code.lines().enumerate() {
        if let Some((_, name)) = declared(line).filter(|(seen, _)| counts(*seen)) {
            places.entry(name.to_owned()).or_default().push(format!("{path}:{}", number + 1));
        }
    }
}

fn twice(places: &Places) -> BTreeMap<&str, &[String]> {
    let several = places.iter().filter(|(_, places)| places.len() > 1);
    several.map(|(name, places)| (name.as_str(), places.as_slice())).collect()
}

/// The type that a line declares for more than its own module.
fn declared(line: &str) -> Option<(Seen, &str)> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let (seen, rest) = match rest.strip_prefix('(') {
        Some(rest) => (Seen::Within, rest.split_once(')')?.1),
        None => (Seen::Everywhere, rest),
    };
    let rest = rest.strip_prefix(' ')?;
    let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
    let rest =
        ["struct ", "enum ", "trait ", "type ", "union "].iter().find_map(|word| rest.strip_prefix(word))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    (end > 0).then(|| (seen, &rest[..end]))
}

#[test]
fn a_name_that_stands_twice_is_found_and_one_that_its_module_alone_sees_is_not() {
    let one = "pub struct Place<T>(T);\npub(crate) struct Inner;\nenum Inner {}\n// pub struct Quiet;\npub enum Quiet {}";
    let other = "mod m {\n    pub unsafe trait Place {}\n    pub const Quiet: u8 = 1;\n    pub(in crate::m) type Inner = u8;\n}";
    let found = |counts: fn(Seen) -> bool| {
        let mut places = Places::new();
        note_code(&mut places, "one.rs", &without_comments(one), counts);
        note_code(&mut places, "two.rs", other, counts);
        twice(&places)
            .into_iter()
            .map(|(name, places)| (name.to_owned(), places.to_vec()))
            .collect::<Vec<_>>()
    };
    let place = ("Place".to_owned(), vec!["one.rs:1".to_owned(), "two.rs:2".to_owned()]);
    assert_eq!(found(|seen| seen == Seen::Everywhere), std::slice::from_ref(&place));
    let inner = ("Inner".to_owned(), vec!["one.rs:2".to_owned(), "two.rs:4".to_owned()]);
    assert_eq!(found(|_| true), [inner, place]);
}
