//! A message on stdout.

use std::io::{self, BufWriter, Stdout, Write};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use sabir_server::client::Incoming;
use serde_json::{Map, Value, json};

use crate::args::message::MessageFormat;
use crate::args::template::{Part, Template};
use crate::output::{visible, visible_json};

/// How messages are written.
#[derive(Debug, Clone)]
pub enum Form {
    Named(MessageFormat),
    Template(Template),
}

impl Form {
    pub fn of(named: MessageFormat, template: Option<Template>) -> Self {
        template.map_or(Form::Named(named), Form::Template)
    }
}

/// Writes messages in one form.
pub struct Printer {
    topic: String,
    form: Form,
    out: BufWriter<Stdout>,
}

impl Printer {
    pub fn new(topic: &str, form: Form) -> Self {
        Self { topic: topic.into(), form, out: BufWriter::new(io::stdout()) }
    }

    pub fn show(&mut self, message: &Incoming) -> io::Result<()> {
        let format = match &self.form {
            Form::Named(format) => format,
            Form::Template(template) => return fill(&mut self.out, template, &self.topic, message),
        };
        match format {
            MessageFormat::Table => writeln!(self.out, "{}", text(message)),
            MessageFormat::Json => {
                writeln!(self.out, "{}", visible_json(&json(&self.topic, message).to_string()))
            }
            MessageFormat::Hex => {
                let dumped = hex(message.value.as_deref().unwrap_or_default());
                write!(self.out, "{}\n{dumped}", head(message))
            }
            MessageFormat::Value => {
                self.out.write_all(message.value.as_deref().unwrap_or_default())?;
                self.out.write_all(b"\n")
            }
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A template's places get what they stand for, byte by byte.
fn fill(out: &mut impl Write, template: &Template, topic: &str, message: &Incoming) -> io::Result<()> {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(-1, |bytes| bytes.len() as i64);
    for part in &template.0 {
        match part {
            Part::Text(letter) => write!(out, "{letter}")?,
            Part::Topic => write!(out, "{topic}")?,
            Part::Partition => write!(out, "{}", message.partition)?,
            Part::Offset => write!(out, "{}", message.offset)?,
            Part::Timestamp => write!(out, "{}", message.timestamp_ms.unwrap_or(-1))?,
            Part::Key => out.write_all(message.key.as_deref().unwrap_or_default())?,
            Part::KeyLength => write!(out, "{}", length(&message.key))?,
            Part::Value => out.write_all(message.value.as_deref().unwrap_or_default())?,
            Part::ValueLength => write!(out, "{}", length(&message.value))?,
            Part::Headers => headers(out, &message.headers)?,
        }
    }
    Ok(())
}

/// `name=value`, separated by commas.
fn headers(out: &mut impl Write, headers: &[(String, Option<Bytes>)]) -> io::Result<()> {
    for (i, (name, value)) in headers.iter().enumerate() {
        write!(out, "{}{name}=", if i > 0 { "," } else { "" })?;
        out.write_all(value.as_deref().unwrap_or(b"NULL"))?;
    }
    Ok(())
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |t| format!("{t:.3}"))
}

/// Place, time and key.
fn head(message: &Incoming) -> String {
    let place = format!("{}:{}", message.partition, message.offset);
    let key = message.key.as_ref().map_or("-".into(), |k| printable(k));
    let time = message.timestamp_ms.map_or("-".into(), time);
    format!("{place}  {time}  {key}")
}

fn text(message: &Incoming) -> String {
    let value = message.value.as_ref().map_or("(no content)".into(), |v| printable(v));
    let mut line = format!("{}  {value}", head(message));
    for (name, value) in &message.headers {
        let value = value.as_ref().map_or("(none)".into(), |v| printable(v));
        line += &format!("  [{}={value}]", visible(name));
    }
    line
}

/// Text with control characters escaped, so that no message can talk to the terminal; else the number of its bytes.
fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => visible(text),
        Err(_) => format!("({} bytes, not text)", bytes.len()),
    }
}

/// Sixteen bytes a line: where they stand, what they are, and what they look like.
fn hex(bytes: &[u8]) -> String {
    let mut lines = String::new();
    for (i, row) in bytes.chunks(16).enumerate() {
        let codes: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let seen = |&byte: &u8| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
        let text: String = row.iter().map(seen).collect();
        lines += &format!("    {:08x}  {:<47}  {text}\n", i * 16, codes.join(" "));
    }
    lines
}

fn json(topic: &str, message: &Incoming) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), topic.into());
    object.insert("partition".into(), message.partition.into());
    object.insert("offset".into(), message.offset.into());
    object.insert("timestamp".into(), message.timestamp_ms.map(time).into());
    object.insert("timestamp_ms".into(), message.timestamp_ms.into());
    put(&mut object, "key", message.key.as_ref());
    put(&mut object, "value", message.value.as_ref());
    let header = |(name, value): &(String, Option<Bytes>)| {
        let mut pair = Map::from_iter([("name".into(), json!(name))]);
        put(&mut pair, "value", value.as_ref());
        Value::Object(pair)
    };
    object.insert("headers".into(), message.headers.iter().map(header).collect());
    Value::Object(object)
}

/// Text as it is, under `name`; other bytes in base64 under `name_base64`. The other one is null, and both are where there is nothing.
fn put(object: &mut Map<String, Value>, name: &str, bytes: Option<&Bytes>) {
    let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let encoded = bytes.filter(|_| text.is_none()).map(|bytes| BASE64_STANDARD.encode(bytes));
    object.insert(name.into(), text.into());
    object.insert(format!("{name}_base64"), encoded.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(value: &'static [u8]) -> Incoming {
        Incoming {
            partition: 1,
            offset: 7,
            timestamp_ms: Some(1_000),
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(value)),
            headers: vec![("h".into(), None), ("h".into(), Some(Bytes::from_static(b"2")))],
        }
    }

    #[test]
    fn text_cannot_reach_the_terminal() {
        let line = text(&message(b"red \x1b[31m"));
        assert_eq!(line, "1:7  1970-01-01T00:00:01.000Z  k  red \\u{1b}[31m  [h=(none)]  [h=2]");
        assert!(text(&message(b"\xff\xfe")).contains("(2 bytes, not text)"));
        let named = Incoming { headers: vec![("\x1b[2J\x07\n\u{202e}".into(), None)], ..message(b"") };
        assert!(text(&named).ends_with("  [\\u{1b}[2J\\u{7}\\n\\u{202e}=(none)]"), "{}", text(&named));
    }

    #[test]
    fn a_message_without_a_time_shows_none() {
        let timeless = Incoming { timestamp_ms: None, headers: Vec::new(), ..message(b"v") };
        assert_eq!(text(&timeless), "1:7  -  k  v");
        let shown = json("orders", &timeless);
        assert_eq!((&shown["timestamp"], &shown["timestamp_ms"]), (&Value::Null, &Value::Null));
        let mut out = Vec::new();
        fill(&mut out, &"%T".parse().unwrap(), "orders", &timeless).unwrap();
        assert_eq!(out, b"-1");
    }

    #[test]
    fn bytes_are_dumped_sixteen_a_line() {
        let dumped = hex(b"0123456789abcdef\x00\xff A");
        let lines: Vec<_> = dumped.lines().collect();
        assert_eq!(
            lines[0],
            "    00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef"
        );
        let second = format!("    00000010  {:<47}  .. A", "00 ff 20 41");
        assert_eq!(lines[1..], [second.as_str()]);
        assert_eq!(hex(b""), "");
    }

    #[test]
    fn a_template_is_filled() {
        let template = "%t/%p/%o %T %k(%K) %s(%S) [%h]%%\\n".parse().unwrap();
        let mut out = Vec::new();
        fill(&mut out, &template, "orders", &message(b"v\xff")).unwrap();
        assert_eq!(out, b"orders/1/7 1000 k(1) v\xff(2) [h=NULL,h=2]%\n");
    }

    #[test]
    fn json_keeps_every_byte_and_every_header() {
        let shown = json("orders", &message(b"\xff"));
        assert_eq!(shown["topic"], "orders");
        assert_eq!((&shown["value"], &shown["value_base64"]), (&Value::Null, &"/w==".into()));
        assert_eq!(shown["key"], "k");
        let header = |value: Option<&str>| json!({"name": "h", "value": value, "value_base64": null});
        assert_eq!(shown["headers"], json!([header(None), header(Some("2"))]));
        // Every field is there, whatever the message has: what does not apply is null.
        let bare = Incoming { key: None, value: None, headers: Vec::new(), ..message(b"") };
        for (message, nothing) in [(bare, 4), (message(b"text"), 2), (message(b"\xff"), 2)] {
            let shown = json("orders", &message);
            let bytes = ["key", "key_base64", "value", "value_base64"].map(|field| shown.get(field));
            assert_eq!(
                bytes.iter().filter(|field| **field == Some(&Value::Null)).count(),
                nothing,
                "{shown}"
            );
        }
    }
}
