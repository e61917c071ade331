//! One name for one thing: no two public types of the workspace share a name, wherever they stand.
//!
//! Looked at are types that are declared as `pub`, tests and their helpers aside. The messages of a protocol's wire, which a macro
//! declares, are not: they are named as the protocol's specification names them.

mod sources;

use std::collections::BTreeMap;

use sources::{folder, metadata, sources, without_comments};

/// Names that stand for more than one type, each with the reason why another name would be worse.
const SHARED: &[(&str, &str)] = &[];

/// Where each name is declared.
type Places = BTreeMap<String, Vec<String>>;

#[test]
fn no_public_type_name_stands_twice_without_a_stated_reason() {
    let mut places = Places::new();
    for package in metadata().workspace_packages() {
        for (path, code) in sources(&folder(package).join("src")) {
            note(&mut places, &path.display().to_string(), &code);
        }
    }
    assert!(places.len() > 200, "the types are found");
    let twice = twice(&places);
    let reason = |name: &str| SHARED.iter().find(|(shared, _)| *shared == name).map(|(_, why)| *why);
    let unexplained: Vec<_> =
        twice.iter().filter(|(name, _)| reason(name).is_none_or(str::is_empty)).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    let idle: Vec<_> = SHARED.iter().filter(|(name, _)| !twice.contains_key(*name)).collect();
    assert!(idle.is_empty(), "these names stand once: {idle:?}");
}

fn note(places: &mut Places, path: &str, code: &str) {
    for (number, line) in code.lines().enumerate() {
        if let Some(name) = declared(line) {
            places.entry(name.to_owned()).or_default().push(format!("{path}:{}", number + 1));
        }
    }
}

fn twice(places: &Places) -> BTreeMap<&str, &[String]> {
    let several = places.iter().filter(|(_, places)| places.len() > 1);
    several.map(|(name, places)| (name.as_str(), places.as_slice())).collect()
}

/// The type that a line declares in public.
fn declared(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
    let rest =
        ["struct ", "enum ", "trait ", "type ", "union "].iter().find_map(|word| rest.strip_prefix(word))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

#[test]
fn a_name_that_stands_twice_is_found_and_one_that_is_not_public_is_not() {
    let mut places = Places::new();
    let one = "pub struct Place<T>(T);\npub(crate) struct Inner;\nenum Inner {}\n// pub struct Quiet;\npub enum Quiet {}";
    note(&mut places, "one.rs", &without_comments(one));
    note(&mut places, "two.rs", "mod m {\n    pub unsafe trait Place {}\n    pub const Quiet: u8 = 1;\n}");
    let found = twice(&places);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["Place"]);
    assert_eq!(found["Place"], ["one.rs:1", "two.rs:2"]);
}
