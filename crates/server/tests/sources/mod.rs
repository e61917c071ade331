//! Reads the sources of the workspace for the tests that look at them.

use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand, Package};

/// The workspace as cargo knows it.
pub fn metadata() -> Metadata {
    MetadataCommand::new().no_deps().exec().expect("cargo metadata describes the workspace")
}

/// Where a package lies.
pub fn folder(package: &Package) -> PathBuf {
    package.manifest_path.parent().expect("a manifest lies in a folder").as_std_path().to_owned()
}

/// The Rust files below a folder (or the one named), without comments and without their tests.
pub fn sources(path: &Path) -> Vec<(PathBuf, String)> {
    if path.is_file() {
        let text = std::fs::read_to_string(path).expect("a source is text");
        return vec![(path.to_owned(), without_tests(&without_comments(&text)).to_owned())];
    }
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("a folder can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let test = matches!(name.as_str(), "tests" | "testing" | "tests.rs" | "testing.rs")
            || name.ends_with("_tests.rs");
        if !test && (path.is_dir() || name.ends_with(".rs")) {
            found.extend(sources(&path));
        }
    }
    found
}

/// Tests stand at the end of their file.
pub fn without_tests(code: &str) -> &str {
    let begin = code.match_indices("#[cfg(test)]").find(|(at, mark)| {
        let rest = code[at + mark.len()..].trim_start();
        rest.starts_with("mod ") && rest.find(['{', ';']).is_some_and(|at| rest[at..].starts_with('{'))
    });
    begin.map_or(code, |(at, _)| &code[..at])
}

/// The code with its strings and line breaks, but without comments.
pub fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (token, keep) = match c {
            '/' if rest.starts_with("//") => (line_comment(rest), false),
            '/' if rest.starts_with("/*") => (block_comment(rest), false),
            '"' => (string(rest), true),
            'r' if raw_string(rest) > 0 && !ends_in_word(&out) => (raw_string(rest), true),
            '\'' => (character(rest), true),
            c => (c.len_utf8(), true),
        };
        match keep {
            true => out.push_str(&rest[..token]),
            false => out.extend(rest[..token].chars().filter(|c| *c == '\n')),
        }
        rest = &rest[token..];
    }
    out
}

fn ends_in_word(code: &str) -> bool {
    code.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn line_comment(rest: &str) -> usize {
    rest.find('\n').unwrap_or(rest.len())
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let ahead = &rest.as_bytes()[at..];
        match ahead {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a raw string that begins here, 0 if none does.
fn raw_string(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    if !rest[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let open = 2 + hashes;
    rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len())
}

/// A character, or the tick of a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            rest[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 3)
        }
        Some((at, c)) if rest[at + c.len_utf8()..].starts_with('\'') => at + c.len_utf8() + 1,
        _ => 1,
    }
}
