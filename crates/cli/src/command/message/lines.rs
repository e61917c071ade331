//! A message from a line of JSON, as `message read -o json` writes it.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use sabir_server::client::Outgoing;
use serde_json::{Map, Value};

/// The message in a line. Where it stood and when is left behind: its new place and time are other ones.
pub fn message(line: &[u8], partition: Option<i32>) -> Result<Outgoing, String> {
    let value: Value = serde_json::from_slice(line).map_err(|problem| problem.to_string())?;
    let object = value.as_object().ok_or("it is no object")?;
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
    let name = pair.get("name").and_then(Value::as_str).ok_or("a header has no `name`")?;
    Ok((name.to_owned(), bytes(pair, "value")?))
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
    fn what_is_no_message_is_refused() {
        for wrong in [
            "",
            "[]",
            "{",
            r#"{"value": 1}"#,
            r#"{"value": "a", "value_base64": "YQ=="}"#,
            r#"{"value_base64": "?"}"#,
            r#"{"headers": {}}"#,
            r#"{"headers": [{"value": "1"}]}"#,
            r#"{"headers": [{"name": 1}]}"#,
        ] {
            assert!(message(wrong.as_bytes(), None).is_err(), "{wrong}");
        }
    }
}
