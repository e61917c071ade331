//! The architecture's rules, checked on the manifests and the sources: which crate may use which, what stays pure, and that no part of
//! the core knows a protocol by name.

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Package};
use figment::Figment;
use figment::providers::{Format, Toml};
use sources::{folder, metadata, sources, without_comments, without_tests};

/// What each crate of the core may use of the workspace. A protocol may use what [`PROTOCOL`] lists.
const CORE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("model", &["base"]),
    ("journal", &["base", "model"]),
    ("delivery", &["base", "model"]),
    ("routing", &["base", "model"]),
    ("broker", &["base", "model", "journal", "delivery", "routing"]),
    ("net", &["base", "model", "broker"]),
    ("frontend", &["base", "model", "broker", "net"]),
    ("admin", &["base", "model", "broker", "net"]),
    // And every protocol.
    ("server", &["base", "model", "broker", "net", "frontend", "admin"]),
    ("cli", &["server"]),
];

const PROTOCOL: &[&str] = &["base", "model", "broker", "net", "frontend"];

/// Crates whose code must not name a protocol, but for [`LIST`].
const NEUTRAL: &[&str] = &[
    "base", "model", "journal", "delivery", "routing", "broker", "net", "frontend", "admin", "server", "cli",
];

/// The one list of protocols.
const LIST: &str = "crates/server/src/protocols.rs";

const PROTOCOL_NAMES: &[&str] =
    &["kafka", "amqp", "rabbit", "rocketmq", "redis", "mqtt", "stomp", "openwire", "activemq"];

/// Pure parts take time and randomness as arguments and do no I/O.
const IMPURE: &[&str] = &[
    "tokio",
    "Instant",
    "SystemTime",
    "SystemClock",
    "rand",
    "getrandom",
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
];

fn short(package: &str) -> &str {
    package.strip_prefix("sabir-").unwrap_or(package)
}

fn is_protocol(package: &Package) -> bool {
    folder(package).parent().is_some_and(|p| p.ends_with("protocols"))
}

/// The workspace's crates that a package uses; with those of its tests, if asked for.
fn uses(package: &Package, members: &BTreeSet<&str>, tests_too: bool) -> BTreeSet<String> {
    let kept = package.dependencies.iter().filter(|d| tests_too || d.kind != DependencyKind::Development);
    kept.map(|d| d.name.as_str()).filter(|n| members.contains(n)).map(|n| short(n).to_owned()).collect()
}

#[test]
fn crates_use_only_what_lies_below_them() {
    let metadata = metadata();
    let packages: Vec<&Package> = metadata.workspace_packages();
    let members: BTreeSet<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    let protocols: BTreeSet<String> =
        packages.iter().filter(|p| is_protocol(p)).map(|p| short(&p.name).to_owned()).collect();
    assert!(!protocols.is_empty(), "the protocols are found");
    let core: BTreeMap<&str, &[&str]> = CORE.iter().copied().collect();

    let mut wrong = Vec::new();
    for package in &packages {
        let name = short(&package.name);
        let mut allowed: BTreeSet<String> = match core.get(name) {
            Some(below) => below.iter().map(|s| s.to_string()).collect(),
            None if protocols.contains(name) => PROTOCOL.iter().map(|s| s.to_string()).collect(),
            // The harness, the simulation and the whole-system tests may use everything.
            None => continue,
        };
        if name == "server" {
            allowed.extend(protocols.iter().cloned());
        }
        let used = uses(package, &members, false);
        wrong.extend(used.difference(&allowed).map(|other| format!("{name} uses {other}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn protocols_do_not_know_each_other_even_in_tests() {
    let metadata = metadata();
    let packages: Vec<&Package> = metadata.workspace_packages();
    let members: BTreeSet<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    let protocols: BTreeSet<&str> =
        packages.iter().filter(|p| is_protocol(p)).map(|p| short(&p.name)).collect();
    for package in packages.iter().filter(|p| is_protocol(p)) {
        for other in uses(package, &members, true) {
            assert!(!protocols.contains(other.as_str()), "{} uses {other}", package.name);
        }
    }
}

#[test]
fn only_the_list_names_a_protocol() {
    let mut wrong = Vec::new();
    for package in metadata().workspace_packages() {
        if !NEUTRAL.contains(&short(&package.name)) {
            continue;
        }
        for (path, code) in sources(&folder(package).join("src")) {
            if path.ends_with(LIST) {
                continue;
            }
            for (number, line) in code.lines().enumerate() {
                let line = line.to_lowercase();
                let named = PROTOCOL_NAMES.iter().find(|name| line.contains(**name));
                wrong.extend(named.map(|name| format!("{}:{} names {name}", path.display(), number + 1)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What stands outside a protocol's folder because of it. Whoever adds one touches these, and the pages that are made of them.
const OUTSIDE: &[&str] = &["Cargo.toml", "crates/server/Cargo.toml", LIST];

#[test]
fn a_protocols_crate_is_named_outside_its_folder_by_two_manifests_and_the_list_alone() {
    let metadata = metadata();
    let root = metadata.workspace_root.as_std_path();
    let texts = texts(root, &[".rs", "Cargo.toml"]);
    for package in metadata.workspace_packages().iter().filter(|package| is_protocol(package)) {
        // In code it has underscores.
        let name = package.name.replace('-', "_");
        let within = folder(package);
        let outside = texts
            .iter()
            .filter(|(path, text)| !path.starts_with(&within) && has_word(&text.replace('-', "_"), &name));
        let found: BTreeSet<_> =
            outside.map(|(path, _)| path.strip_prefix(root).expect("below it")).collect();
        let allowed: BTreeSet<_> = OUTSIDE.iter().map(Path::new).collect();
        assert!(found.is_subset(&allowed), "{}: {found:?}", package.name);
        // One that is not served yet need not be in all of them.
        assert!(found == allowed || !found.contains(Path::new(LIST)), "{}: {found:?}", package.name);
    }
}

/// The files below a folder whose names end so, those of tests too.
fn texts(folder: &Path, ends: &[&str]) -> Vec<(PathBuf, String)> {
    let entries =
        std::fs::read_dir(folder).expect("a folder can be read").map(|entry| entry.expect("it is there"));
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            found.extend(texts(&path, ends));
        } else if path.is_file() && ends.iter().any(|end| name.ends_with(end)) {
            let text = std::fs::read_to_string(&path).expect("a source is text");
            found.push((path, text));
        }
    }
    found
}

/// Where the broker's own projections are: what entries say, and what they do.
const PROJECTIONS: &[&str] =
    &["entry", "state", "partition", "catalog", "exchange/table.rs", "exchange/rows.rs", "group/table.rs"];

/// Those files of a protocol that have a projection.
fn projections(all: Vec<(PathBuf, String)>) -> impl Iterator<Item = (PathBuf, String)> {
    all.into_iter().filter(|(_, code)| code.contains("impl FrontendProjection for"))
}

/// What says outside of its folder where a protocol listens, beside the first one of the list, which the tests of the whole speak.
const LISTENS: &[&str] = &[
    "tests/lib/broker.py",
    "crates/cli/tests/exit_codes.rs",
    "crates/cli/tests/queues.rs",
    "tests/limits/full.py",
];

#[test]
fn tests_and_tools_keep_quiet_what_they_do_not_speak_without_naming_it() {
    let metadata = metadata();
    let root = metadata.workspace_root.as_std_path();
    let texts = texts(root, &[".rs", ".py", ".sh"]);
    let named = |path: &Path| LISTENS.iter().any(|listens| path.ends_with(listens));
    let mut wrong = Vec::new();
    for (number, protocol) in sabir_server::protocols().iter().enumerate() {
        let folder = root.join("protocols").join(protocol.name());
        let key = format!("{}.listen", protocol.name());
        for (path, text) in texts.iter().filter(|(path, _)| !path.starts_with(&folder)) {
            let off = text.contains(&format!("{key}=off"));
            if off || (number > 0 && text.contains(&key) && !named(path)) {
                wrong.push(format!("{}: {key}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "net.default_listen=off turns off what nothing is said of: {wrong:#?}");
}

#[test]
fn pure_parts_have_no_clock_no_dice_and_no_io() {
    let mut pure = Vec::new();
    for package in metadata().workspace_packages() {
        let src = folder(package).join("src");
        match short(&package.name) {
            "delivery" | "routing" => pure.extend(sources(&src)),
            _ if is_protocol(package) => {
                pure.extend(sources(&src.join("wire")));
                pure.extend(sources(&src.join("wire.rs")));
                pure.extend(sources(&src.join("server/requests.rs")));
                // A connection as a machine; and `apply`, which every replica and every replay does the same.
                pure.extend(sources(&src.join("session")));
                pure.extend(projections(sources(&src)));
            }
            "broker" => pure.extend(PROJECTIONS.iter().flat_map(|part| sources(&src.join(part)))),
            _ => {}
        }
    }
    assert!(pure.len() > 3, "the pure parts are found");
    for part in ["session/machine.rs", "wire/frame.rs", "probe/src/state.rs", "state/apply.rs"] {
        assert!(pure.iter().any(|(path, _)| path.ends_with(part)), "{part} is found");
    }
    let mut wrong = Vec::new();
    for (path, code) in pure {
        for (number, line) in code.lines().enumerate() {
            let found = IMPURE.iter().find(|word| has_word(line, word));
            wrong.extend(found.map(|word| format!("{}:{} uses {word}", path.display(), number + 1)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn has_word(line: &str, word: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    line.match_indices(word)
        .any(|(at, _)| edge(line[..at].chars().next_back()) && edge(line[at + word.len()..].chars().next()))
}

#[test]
fn comments_and_tests_are_told_from_code() {
    let text = "a // kafka\nb /* x /* y */ kafka\n */ c \"// s\\\" kept\" r#\"/* raw \"q\" */\"# '\"' // end\n'\\'' &'a z";
    let want = "a \nb \n c \"// s\\\" kept\" r#\"/* raw \"q\" */\"# '\"' \n'\\'' &'a z";
    assert_eq!(without_comments(text), want);
    assert_eq!(without_tests("code\n#[cfg(test)]\nmod tests {\n kafka }"), "code\n");
    let elsewhere = "#[cfg(test)]\nmod tests;\ncode";
    assert_eq!(without_tests(elsewhere), elsewhere);
    assert!(has_word("use std::fs::File;", "std::fs") && !has_word("operand", "rand"));
}

/// A panic ends a connection, or a shard at worst (docs/adr/0005-panics.md); if it aborted, one would end the node with all its
/// protocols. Tests run in another profile than what is released, and would not notice.
#[test]
fn no_profile_aborts_at_a_panic() {
    let root = metadata().workspace_root.into_std_path_buf();
    for file in ["Cargo.toml", ".cargo/config.toml"] {
        let settings = Figment::from(Toml::file(root.join(file)));
        let Ok(profiles) = settings.find_value("profile") else {
            assert_ne!(file, "Cargo.toml", "its profiles are found");
            continue;
        };
        for (name, profile) in profiles.as_dict().expect("profiles have names") {
            let said = profile.find_ref("panic");
            assert!(
                said.is_none_or(|said| said.as_str() == Some("unwind")),
                "{file}: [profile.{name}] panic = {said:?}"
            );
        }
    }
}
