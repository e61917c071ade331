//! What is stored of exchanges and bindings: one row each, and one of the numbers given last.

use std::sync::Arc;

use sabir_journal::pages::{PageDecodeError, PageKey, PageValue};
use sabir_model::{DecodeError, FrontendNo, TopicId};
use sabir_routing::{Binding, Destination, ExchangeId, RouteTarget};

use super::spec::{ExchangeSpec, put_arguments, put_syntax, take_arguments, take_syntax};
use crate::codec::{Reader, put_bytes, put_str, put_u32, put_u64};

/// Which row: 0 the numbers, 1 an exchange, 2 a binding; the latter two with their number, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum RowKey {
    Numbers,
    Exchange(u64),
    Binding(u64),
}

impl PageKey for RowKey {
    fn encode(&self, out: &mut Vec<u8>) {
        let (of, number) = match self {
            Self::Numbers => return out.push(0),
            Self::Exchange(number) => (1, number),
            Self::Binding(number) => (2, number),
        };
        out.push(of);
        out.extend(number.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let number = |rest: &[u8]| rest.try_into().ok().map(u64::from_be_bytes);
        let key = match bytes {
            [0] => Some(Self::Numbers),
            [1, rest @ ..] => number(rest).map(Self::Exchange),
            [2, rest @ ..] => number(rest).map(Self::Binding),
            _ => None,
        };
        key.ok_or_else(|| PageDecodeError("the key of an exchange or a binding".into()))
    }
}

/// The numbers given last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Numbers {
    pub(super) exchange: u64,
    pub(super) binding: u64,
}

/// An exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExchangeRow {
    pub(super) namespace: Arc<str>,
    pub(super) name: Box<str>,
    /// The front end that made it.
    pub(super) made_by: FrontendNo,
    pub(super) spec: Arc<ExchangeSpec>,
}

impl ExchangeRow {
    pub(super) fn bytes(&self) -> usize {
        exchange_bytes(&self.name, &self.spec)
    }
}

/// Bytes that an exchange takes, about: its name stands in its row, in its router's exchange, and by which that is found.
pub(super) fn exchange_bytes(name: &str, spec: &ExchangeSpec) -> usize {
    const TABLES: usize = 1024;
    TABLES + 3 * name.len() + spec.bytes()
}

/// A row: version 1, of an exchange 2 · which u8, as in its key · its fields. The numbers: exchange · binding. An exchange: namespace · name ·
/// origin (the number of the front end that made it), which version 1 did not have · specification. A binding: exchange · destination u8 (0 a topic,
/// of 16 bytes, 1 an exchange) · key · syntax · arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row {
    Numbers(Numbers),
    Exchange(ExchangeRow),
    Binding(Arc<Binding>),
}

const FORM: u8 = 1;
/// Of exchanges that say which front end made them.
const MADE_FORM: u8 = 2;

impl PageValue for Row {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(if matches!(self, Self::Exchange(_)) { MADE_FORM } else { FORM });
        match self {
            Self::Numbers(numbers) => {
                out.push(0);
                put_u64(out, numbers.exchange);
                put_u64(out, numbers.binding);
            }
            Self::Exchange(row) => {
                out.push(1);
                put_str(out, &row.namespace);
                put_str(out, &row.name);
                put_u32(out, row.made_by.0.into());
                row.spec.put(out);
            }
            Self::Binding(binding) => {
                out.push(2);
                put_binding(out, binding);
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        take_row(bytes).map_err(|error| PageDecodeError(error.to_string()))
    }
}

fn put_binding(out: &mut Vec<u8>, binding: &Binding) {
    put_u64(out, binding.source.0);
    match binding.destination {
        Destination::Target(RouteTarget::Topic(topic)) => {
            out.push(0);
            out.extend(topic.0);
        }
        Destination::Exchange(id) => {
            out.push(1);
            put_u64(out, id.0);
        }
        Destination::Target(RouteTarget::Partition { .. } | RouteTarget::Session(_)) => {
            unreachable!("bindings that are stored lead to topics and exchanges")
        }
    }
    put_bytes(out, &binding.key);
    put_syntax(out, binding.syntax);
    put_arguments(out, &binding.arguments);
}

fn take_row(bytes: &[u8]) -> Result<Row, DecodeError> {
    let mut input = Reader::new(bytes);
    let form = input.u8()?;
    if !(FORM..=MADE_FORM).contains(&form) {
        return Err(DecodeError::Version(form));
    }
    let row = match input.u8()? {
        0 if form == FORM => Row::Numbers(Numbers { exchange: input.u64()?, binding: input.u64()? }),
        1 => Row::Exchange(ExchangeRow {
            namespace: input.str()?.into(),
            name: input.str()?.into(),
            made_by: if form == FORM { FrontendNo::NONE } else { input.front_end()? },
            spec: Arc::new(ExchangeSpec::take(&mut input)?),
        }),
        2 if form == FORM => Row::Binding(Arc::new(take_binding(&mut input)?)),
        _ => return Err(DecodeError::Field("row")),
    };
    input.end()?;
    Ok(row)
}

fn take_binding(input: &mut Reader<'_>) -> Result<Binding, DecodeError> {
    Ok(Binding {
        source: ExchangeId(input.u64()?),
        destination: match input.u8()? {
            0 => topic(input.topic()?),
            1 => Destination::Exchange(ExchangeId(input.u64()?)),
            _ => return Err(DecodeError::Field("destination")),
        },
        key: input.bytes()?.into(),
        syntax: take_syntax(input)?,
        arguments: take_arguments(input)?,
    })
}

/// A topic as a destination, whatever its partitions.
pub(super) fn topic(id: TopicId) -> Destination {
    Destination::Target(RouteTarget::Topic(id))
}

#[cfg(test)]
mod tests {
    use sabir_routing::{Arguments, ExchangeKind, KeySyntax};

    use super::*;

    fn golden(key: RowKey, stored_key: &[u8], row: &Row, stored_row: &[u8]) {
        let (mut found_key, mut found_row) = (Vec::new(), Vec::new());
        key.encode(&mut found_key);
        row.encode(&mut found_row);
        assert_eq!((&*found_key, &*found_row), (stored_key, stored_row), "{row:?}");
        assert_eq!(RowKey::decode(stored_key).unwrap(), key);
        assert_eq!(Row::decode(stored_row).unwrap(), *row);
        (0..stored_row.len()).for_each(|len| assert!(Row::decode(&stored_row[..len]).is_err(), "{len}"));
    }

    #[test]
    fn rows_have_their_stored_form_and_come_back() {
        let numbers = Row::Numbers(Numbers { exchange: 3, binding: 300 });
        golden(RowKey::Numbers, b"\0", &numbers, b"\x01\0\x03\xac\x02");
        let spec = Arc::new(ExchangeSpec::of(ExchangeKind::Topic));
        let made_by = FrontendNo(300);
        let row = ExchangeRow { namespace: "/".into(), name: "e".into(), made_by, spec };
        golden(
            RowKey::Exchange(3),
            b"\x01\0\0\0\0\0\0\0\x03",
            &Row::Exchange(row.clone()),
            b"\x02\x01\x01/\x01e\xac\x02\x01\x02\x01\0",
        );
        let first = Row::decode(b"\x01\x01\x01/\x01e\x01\x02\x01\0").unwrap();
        assert_eq!(first, Row::Exchange(ExchangeRow { made_by: FrontendNo::NONE, ..row }));
        for bad in [&b"\x03\x01\x01/\x01e\0\x01\x02\x01\0"[..], b"\x02\0\x03\x03"] {
            assert!(Row::decode(bad).is_err(), "{bad:?}");
        }
        let binding = Binding::keyed(ExchangeId(3), topic(TopicId([7; 16])), b"k");
        let stored = [b"\x01\x02\x03\0", &[7; 16][..], b"\x01k\0\0"].concat();
        let row = Row::Binding(Arc::new(binding));
        golden(RowKey::Binding(300), b"\x02\0\0\0\0\0\0\x01\x2c", &row, &stored);
        let binding = Binding {
            syntax: KeySyntax::Slashed,
            arguments: Arguments::default(),
            ..Binding::keyed(ExchangeId(3), Destination::Exchange(ExchangeId(4)), b"")
        };
        let row = Row::Binding(Arc::new(binding));
        golden(RowKey::Binding(1), b"\x02\0\0\0\0\0\0\0\x01", &row, b"\x01\x02\x03\x01\x04\0\x01\0");
        for bad in [&b""[..], b"\x01", b"\x03\0\0\0\0\0\0\0\x01", b"\0\0"] {
            assert!(RowKey::decode(bad).is_err(), "{bad:?}");
        }
    }
}
