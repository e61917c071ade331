//! A message from a line of JSON, as `message read -o json` writes it.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use sabir_server::client::Outgoing;
use serde_json::{Map, Value};

/// What a message has.
const FIELDS: [&str; 10] = [
    "topic",
    "partition",
    "offset",
    "timestamp",
    "timestamp_ms",
    "key",
    "key_base64",
    "value",
    "value_base64",
    "headers",
];
/// What a header has.
const HEADER_FIELDS: [&str; 3] = ["name", "value", "value_base64"];

/// The message in a line. Where it stood and when is left behind: its new place and time are other ones.
pub fn message(line: &[u8], partition: Option<i32>) -> Result<Outgoing, String> {
    let value: Value = serde_json::from_slice(line).map_err(|problem| problem.to_string())?;
    let object = value.as_object().ok_or("it is no object")?;
    no_others(object, &FIELDS)?;
    // A tombstone deletes: it is not what comes of a field that was forgotten.
    if !object.contains_key("value") && !object.contains_key("value_base64") {
        return Err(
            "there is neither `value` nor `value_base64`; a message without content says `\"value\": null`"
                .into(),
        );
    }
    let headers = match object.get("headers") {
        None | Some(Value::Null) => Vec::new(),
        Some(headers) => {
            let list = headers.as_array().ok_or("`headers` is no list")?;
            list.iter().map(header).collect::<Result<_, _>>()?
        }
    };
    Ok(Outgoing { partition, key: bytes(object, "key")?, value: bytes(object, "value")?, headers })
}

fn header(value: &Value) -> Result<(String, Option<Bytes>), String> {
    let pair = value.as_object().ok_or("a header is no object")?;
    no_others(pair, &HEADER_FIELDS)?;
    let name = pair.get("name").and_then(Value::as_str).ok_or("a header has no `name`")?;
    Ok((name.to_owned(), bytes(pair, "value")?))
}

/// Refuses a field that is none of a message's.
fn no_others(object: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("unknown field {name:?}, expected one of `{}`", known.join("`, `"))),
        None => Ok(()),
    }
}

/// Text under `name`, or other bytes in base64 under `name_base64`.
fn bytes(object: &Map<String, Value>, name: &str) -> Result<Option<Bytes>, String> {
    let encoded = format!("{name}_base64");
    match (object.get(name), object.get(&encoded)) {
        (None | Some(Value::Null), None | Some(Value::Null)) => Ok(None),
        (Some(Value::String(text)), None | Some(Value::Null)) => Ok(Some(text.clone().into())),
        (None | Some(Value::Null), Some(Value::String(text))) => BASE64_STANDARD
            .decode(text)
            .map(|bytes| Some(bytes.into()))
            .map_err(|problem| format!("`{encoded}`: {problem}")),
        (None | Some(Value::Null), _) => Err(format!("`{encoded}` is no text")),
        (_, None | Some(Value::Null)) => Err(format!("`{name}` is no text")),
        _ => Err(format!("there are both `{name}` and `{encoded}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_read() {
        let line = br#"{"offset": 7, "key": null, "value_base64": "/w==", "headers": [{"name": "h", "value": "1"}]}"#;
        let found = message(line, Some(2)).unwrap();
        assert_eq!((found.partition, found.key), (Some(2), None));
        assert_eq!(found.value.as_deref(), Some(&b"\xff"[..]));
        assert_eq!(found.headers, [("h".to_owned(), Some(Bytes::from_static(b"1")))]);
    }

    #[test]
    fn a_tombstone_is_said_and_a_field_that_is_unknown_is_named() {
        for (said, expected) in [
            (r#"{"value": null}"#, Ok(None)),
            (r#"{"value_base64": null}"#, Ok(None)),
            (r#"{}"#, Err("neither `value` nor `value_base64`")),
            (r#"{"key": "k"}"#, Err("neither `value` nor `value_base64`")),
            (r#"{"nope": 1}"#, Err("unknown field \"nope\"")),
            (r#"{"value": "v", "vlaue": 1}"#, Err("unknown field \"vlaue\"")),
            (r#"{"value": "v", "headers": [{"name": "h", "vlaue": "1"}]}"#, Err("unknown field \"vlaue\"")),
        ] {
            match (message(said.as_bytes(), None), expected) {
                (Ok(found), Ok(value)) => assert_eq!(found.value, value, "{said}"),
                (Err(told), Err(why)) => assert!(told.contains(why), "{said}: {told}"),
                (found, _) => panic!("{said}: {:?}", found.map(|m| m.value)),
            }
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for wrong in [
            "",
            "[]",
            "{",
            r#"{"value": 1}"#,
            r#"{"value": "a", "value_base64": "YQ=="}"#,
            r#"{"value_base64": "?"}"#,
            r#"{"value": "a", "headers": {}}"#,
            r#"{"value": "a", "headers": [{"value": "1"}]}"#,
            r#"{"value": "a", "headers": [{"name": 1}]}"#,
        ] {
            assert!(message(wrong.as_bytes(), None).is_err(), "{wrong}");
        }
    }
}
