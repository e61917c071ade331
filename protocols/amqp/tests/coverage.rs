//! The coverage table in the README lists what there is, and nothing else.
#![allow(clippy::unwrap_used, reason = "a failure is what a test is for")]

use sabir_amqp::wire::{BasicProperties, METHODS, MethodInfo, Sender};

const README: &str = include_str!("../README.md");

/// The first four columns of a method's row.
fn row(method: &MethodInfo) -> String {
    let sender = match method.sender {
        Sender::Client => "client",
        Sender::Server => "server",
        Sender::Both => "both",
    };
    let names: Vec<_> = method.arguments.iter().map(|name| format!("`{name}`")).collect();
    let arguments = if names.is_empty() { "–".to_owned() } else { names.join(", ") };
    let content = if method.has_content { "; content" } else { "" };
    format!("| {}.{} | `{}` | {sender} | {arguments}{content} |", method.id.0, method.id.1, method.name)
}

#[test]
fn every_method_and_argument_has_its_row() {
    let rows: Vec<_> = README.lines().map(|line| line.replace(" (RabbitMQ)", "")).collect();
    for method in METHODS {
        let want = row(method);
        assert!(rows.iter().any(|line| line.starts_with(&want)), "{want}");
    }
    let methods = rows
        .iter()
        .filter(|line| line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit()));
    assert_eq!(methods.filter(|line| line.contains("| done |")).count(), METHODS.len());
}

#[test]
fn every_property_is_named() {
    assert_eq!(BasicProperties::NAMES.len(), 14);
    BasicProperties::NAMES.iter().for_each(|name| assert!(README.contains(&format!("`{name}`")), "{name}"));
}
