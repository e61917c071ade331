//! Values of field tables, as what routes messages sees them.

use std::cell::OnceCell;

use sabir_broker::exchange::{Argument, ArgumentRef, ArgumentValue, Arguments, Attributes, HashedProperty};

use crate::wire::*;

/// Headers up to this many are looked through; more are sorted.
const FEW: usize = 8;

/// A message's headers and properties.
pub(super) struct MessageAttributes<'a> {
    /// As on the wire.
    properties: &'a [u8],
    /// The headers, gathered when one is asked for: many bindings may ask for many of them. By their names, if there are more than a few; clients choose
    /// the names, so that no hash is to be relied on.
    headers: OnceCell<Vec<(&'a [u8], FieldValue<'a>)>>,
}

impl<'a> MessageAttributes<'a> {
    pub(super) fn new(properties: &'a [u8]) -> Self {
        Self { properties, headers: OnceCell::new() }
    }

    /// The properties, which few exchanges look at.
    fn properties(&self) -> BasicProperties<'a> {
        BasicProperties::read_again(self.properties)
    }

    fn headers(&self) -> Vec<(&'a [u8], FieldValue<'a>)> {
        let headers = self.properties().headers.unwrap_or_default();
        let mut headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value)).collect();
        if headers.len() > FEW {
            // Of one name the first stays the first.
            headers.sort_by_key(|(name, _)| *name);
        }
        headers
    }
}

impl Attributes for MessageAttributes<'_> {
    fn header(&self, name: &[u8]) -> Option<ArgumentRef<'_>> {
        let headers = self.headers.get_or_init(|| self.headers());
        let at = match headers.len() {
            0..=FEW => headers.iter().position(|(of, _)| *of == name)?,
            _ => headers.partition_point(|(of, _)| *of < name),
        };
        headers.get(at).filter(|(of, _)| *of == name).map(|(_, value)| seen(*value))
    }

    fn property(&self, property: HashedProperty) -> Option<ArgumentRef<'_>> {
        let properties = self.properties();
        match property {
            HashedProperty::CorrelationId => Some(ArgumentRef::Text(properties.correlation_id?.as_bytes())),
            HashedProperty::MessageId => Some(ArgumentRef::Text(properties.message_id?.as_bytes())),
            HashedProperty::Timestamp => properties.timestamp.and_then(moment),
        }
    }
}

fn moment(seconds: u64) -> Option<ArgumentRef<'static>> {
    i64::try_from(seconds).ok().map(ArgumentRef::Timestamp)
}

/// A value as it is compared: whole numbers whatever their width.
pub(super) fn seen(value: FieldValue<'_>) -> ArgumentRef<'_> {
    match value {
        FieldValue::Bool(v) => ArgumentRef::Bool(v),
        FieldValue::I8(v) => ArgumentRef::Integer(v.into()),
        FieldValue::U8(v) => ArgumentRef::Integer(v.into()),
        FieldValue::I16(v) => ArgumentRef::Integer(v.into()),
        FieldValue::U16(v) => ArgumentRef::Integer(v.into()),
        FieldValue::I32(v) => ArgumentRef::Integer(v.into()),
        FieldValue::U32(v) => ArgumentRef::Integer(v.into()),
        FieldValue::I64(v) => ArgumentRef::Integer(v),
        FieldValue::F32(v) => ArgumentRef::Float(v.into()),
        FieldValue::F64(v) => ArgumentRef::Float(v),
        FieldValue::Decimal { scale, value } => {
            ArgumentRef::Decimal { scale, value: i32::try_from(value).unwrap_or(i32::MAX) }
        }
        FieldValue::LongStr(v) | FieldValue::Binary(v) => ArgumentRef::Text(v),
        FieldValue::Timestamp(v) => ArgumentRef::Timestamp(i64::try_from(v).unwrap_or(i64::MAX)),
        FieldValue::Array(v) => ArgumentRef::Composite(v.as_bytes()),
        FieldValue::Table(v) => ArgumentRef::Composite(v.as_bytes()),
        FieldValue::Void => ArgumentRef::Null,
    }
}

/// The letter of a value's type.
fn letter(value: FieldValue<'_>) -> u8 {
    match value {
        FieldValue::Bool(_) => b't',
        FieldValue::I8(_) => b'b',
        FieldValue::U8(_) => b'B',
        FieldValue::I16(_) => b's',
        FieldValue::U16(_) => b'u',
        FieldValue::I32(_) => b'I',
        FieldValue::U32(_) => b'i',
        FieldValue::I64(_) => b'l',
        FieldValue::F32(_) => b'f',
        FieldValue::F64(_) => b'd',
        FieldValue::Decimal { .. } => b'D',
        FieldValue::LongStr(_) => b'S',
        FieldValue::Binary(_) => b'x',
        FieldValue::Timestamp(_) => b'T',
        FieldValue::Array(_) => b'A',
        FieldValue::Table(_) => b'F',
        FieldValue::Void => b'V',
    }
}

/// The arguments in a table, to be kept.
pub(super) fn arguments(table: FieldTable<'_>) -> Arguments {
    let argument = |(name, value): (ShortBytes<'_>, FieldValue<'_>)| Argument {
        name: name.as_bytes().into(),
        tag: letter(value),
        value: kept(seen(value)),
    };
    Arguments::new(table.iter().map(argument).collect())
}

fn kept(value: ArgumentRef<'_>) -> ArgumentValue {
    match value {
        ArgumentRef::Null => ArgumentValue::Null,
        ArgumentRef::Bool(v) => ArgumentValue::Bool(v),
        ArgumentRef::Integer(v) => ArgumentValue::Integer(v),
        ArgumentRef::Float(v) => ArgumentValue::Float(v),
        ArgumentRef::Decimal { scale, value } => ArgumentValue::Decimal { scale, value },
        ArgumentRef::Text(v) => ArgumentValue::Text(v.into()),
        ArgumentRef::Timestamp(v) => ArgumentValue::Timestamp(v),
        ArgumentRef::Composite(v) => ArgumentValue::Composite(v.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_headers_with_one_name_the_first_counts() {
        for others in [0, FEW, 1_000] {
            let mut headers = FieldTableBuf::new();
            let mut add = |name: &str, value| {
                headers.push(ShortBytes::cut(name), FieldValue::I32(value));
            };
            [("b", 1), ("d", 2), ("b", 3)].into_iter().for_each(|(name, value)| add(name, value));
            (0..others).for_each(|other| add(&format!("c{other}"), 4));
            add("d", 5);
            let properties =
                BasicProperties { headers: Some(headers.as_table()), ..Default::default() }.to_bytes();
            let attributes = MessageAttributes::new(&properties);
            assert_eq!(attributes.header(b"b"), Some(ArgumentRef::Integer(1)));
            assert_eq!(attributes.header(b"d"), Some(ArgumentRef::Integer(2)));
            assert!(["a", "c", "e"].iter().all(|name| attributes.header(name.as_bytes()).is_none()));
        }
        let none = BasicProperties::default().to_bytes();
        assert_eq!(MessageAttributes::new(&none).header(b"a"), None);
    }
}
