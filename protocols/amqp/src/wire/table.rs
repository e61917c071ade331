//! Field tables and arrays: RabbitMQ's types, in their order, as the bytes they are.
//!
//! A table is checked once, when it arrives, without building anything; it is read by going through it.

use super::exception::Malformed;
use super::reader::ArgumentReader;
use super::text::ShortBytes;

/// How deep tables and arrays may be nested; the outermost is at depth one. `x-death`, the deepest that brokers make, has three.
pub const MAX_DEPTH: usize = 64;

/// A table of names and values. Its bytes have been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldTable<'a>(&'a [u8]);

/// Values without names. Its bytes have been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldArray<'a>(&'a [u8]);

/// A value, with the letter of its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldValue<'a> {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`; the specification says `U`, which RabbitMQ does not know.
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`, and `L`, which RabbitMQ takes for the same. Written as `l`.
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: a number and how many of its digits are behind the point.
    Decimal {
        /// Digits behind the point.
        scale: u8,
        /// All digits.
        value: u32,
    },
    /// `S`: usually text, but it is not looked at whether it is UTF-8.
    LongStr(&'a [u8]),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `x`
    Binary(&'a [u8]),
    /// `A`
    Array(FieldArray<'a>),
    /// `F`
    Table(FieldTable<'a>),
    /// `V`
    Void,
}

impl<'a> FieldTable<'a> {
    /// The empty one.
    pub const EMPTY: Self = Self(&[]);

    /// Its bytes, without their length.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Names and values in their order; a name may come twice.
    pub fn iter(self) -> TableItems<'a> {
        TableItems(ArgumentReader::new(self.0))
    }

    /// The first value of this name.
    pub fn get(self, name: &str) -> Option<FieldValue<'a>> {
        self.iter().find(|(key, _)| key.as_bytes() == name.as_bytes()).map(|(_, value)| value)
    }
}

impl<'a> FieldArray<'a> {
    /// Its bytes, without their length.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The values in their order.
    pub fn iter(self) -> FieldItems<'a> {
        FieldItems(ArgumentReader::new(self.0))
    }
}

impl<'a> IntoIterator for FieldTable<'a> {
    type Item = (ShortBytes<'a>, FieldValue<'a>);
    type IntoIter = TableItems<'a>;

    fn into_iter(self) -> TableItems<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for FieldArray<'a> {
    type Item = FieldValue<'a>;
    type IntoIter = FieldItems<'a>;

    fn into_iter(self) -> FieldItems<'a> {
        self.iter()
    }
}

/// Goes through a table.
#[derive(Debug, Clone)]
pub struct TableItems<'a>(ArgumentReader<'a>);

impl<'a> Iterator for TableItems<'a> {
    type Item = (ShortBytes<'a>, FieldValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        // A table has been checked, so that an error is its end.
        let name = self.0.short_bytes().ok()?;
        Some((name, value(&mut self.0).ok()?))
    }
}

/// Goes through an array.
#[derive(Debug, Clone)]
pub struct FieldItems<'a>(ArgumentReader<'a>);

impl<'a> Iterator for FieldItems<'a> {
    type Item = FieldValue<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        value(&mut self.0).ok()
    }
}

/// A value; tables and arrays in it are not looked into.
fn value<'a>(r: &mut ArgumentReader<'a>) -> Result<FieldValue<'a>, Malformed> {
    Ok(match r.u8()? {
        b'S' => FieldValue::LongStr(r.long_bytes()?),
        b'I' => FieldValue::I32(i32::from_be_bytes(r.array()?)),
        b't' => FieldValue::Bool(r.u8()? != 0),
        b'l' | b'L' => FieldValue::I64(i64::from_be_bytes(r.array()?)),
        b'F' => FieldValue::Table(FieldTable(r.long_bytes()?)),
        b'A' => FieldValue::Array(FieldArray(r.long_bytes()?)),
        b'T' => FieldValue::Timestamp(r.u64()?),
        b'b' => FieldValue::I8(i8::from_be_bytes(r.array()?)),
        b'B' => FieldValue::U8(r.u8()?),
        b's' => FieldValue::I16(i16::from_be_bytes(r.array()?)),
        b'u' => FieldValue::U16(r.u16()?),
        b'i' => FieldValue::U32(r.u32()?),
        b'f' => FieldValue::F32(f32::from_bits(r.u32()?)),
        b'd' => FieldValue::F64(f64::from_bits(r.u64()?)),
        b'D' => FieldValue::Decimal { scale: r.u8()?, value: r.u32()? },
        b'x' => FieldValue::Binary(r.long_bytes()?),
        b'V' => FieldValue::Void,
        other => return Err(Malformed::UnknownFieldType(other)),
    })
}

/// `bytes` as a table, if all in it can be read.
pub(super) fn checked(bytes: &[u8]) -> Result<FieldTable<'_>, Malformed> {
    check_table(bytes, 1)?;
    Ok(FieldTable(bytes))
}

/// `bytes` that have been checked before as a table: never an error.
pub(super) fn checked_before(bytes: &[u8]) -> Result<FieldTable<'_>, Malformed> {
    Ok(FieldTable(bytes))
}

fn check_table(bytes: &[u8], depth: usize) -> Result<(), Malformed> {
    let mut r = ArgumentReader::new(bytes);
    while !r.rest().is_empty() {
        r.short_bytes()?;
        check_value(&mut r, depth)?;
    }
    Ok(())
}

fn check_array(bytes: &[u8], depth: usize) -> Result<(), Malformed> {
    let mut r = ArgumentReader::new(bytes);
    while !r.rest().is_empty() {
        check_value(&mut r, depth)?;
    }
    Ok(())
}

fn check_value(r: &mut ArgumentReader<'_>, depth: usize) -> Result<(), Malformed> {
    let inner = value(r)?;
    if !matches!(inner, FieldValue::Table(_) | FieldValue::Array(_)) {
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return Err(Malformed::TooDeep);
    }
    match inner {
        FieldValue::Table(table) => check_table(table.0, depth + 1),
        FieldValue::Array(array) => check_array(array.0, depth + 1),
        _ => Ok(()),
    }
}

/// A table under construction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldTableBuf(Vec<u8>);

impl FieldTableBuf {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value behind those that are there. It is not looked at whether the name is there already, nor how deep the table becomes.
    pub fn push(&mut self, name: ShortBytes<'_>, value: FieldValue<'_>) -> &mut Self {
        self.0.push(u8::try_from(name.len()).expect("short bytes are at most 255"));
        self.0.extend_from_slice(&name);
        push_value(&mut self.0, value);
        self
    }

    /// The table so far.
    pub fn as_table(&self) -> FieldTable<'_> {
        FieldTable(&self.0)
    }

    /// The bytes of an array of these values, as [`FieldArray::from_values`] reads them.
    pub fn array(values: &[FieldValue<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        values.iter().for_each(|value| push_value(&mut out, *value));
        out
    }
}

impl<'a> FieldArray<'a> {
    /// An array of bytes that [`FieldTableBuf::array`] wrote, or that came from elsewhere.
    ///
    /// # Errors
    /// The bytes are no array.
    pub fn from_values(bytes: &'a [u8]) -> Result<Self, Malformed> {
        check_array(bytes, 1)?;
        Ok(Self(bytes))
    }
}

impl<'a> FieldTable<'a> {
    /// The table that these bytes are, without their length.
    ///
    /// # Errors
    /// The bytes are no table.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, Malformed> {
        checked(bytes)
    }
}

fn push_value(out: &mut Vec<u8>, value: FieldValue<'_>) {
    match value {
        FieldValue::Bool(v) => push_tagged(out, b't', &[u8::from(v)]),
        FieldValue::I8(v) => push_tagged(out, b'b', &v.to_be_bytes()),
        FieldValue::U8(v) => push_tagged(out, b'B', &[v]),
        FieldValue::I16(v) => push_tagged(out, b's', &v.to_be_bytes()),
        FieldValue::U16(v) => push_tagged(out, b'u', &v.to_be_bytes()),
        FieldValue::I32(v) => push_tagged(out, b'I', &v.to_be_bytes()),
        FieldValue::U32(v) => push_tagged(out, b'i', &v.to_be_bytes()),
        FieldValue::I64(v) => push_tagged(out, b'l', &v.to_be_bytes()),
        FieldValue::F32(v) => push_tagged(out, b'f', &v.to_bits().to_be_bytes()),
        FieldValue::F64(v) => push_tagged(out, b'd', &v.to_bits().to_be_bytes()),
        FieldValue::Timestamp(v) => push_tagged(out, b'T', &v.to_be_bytes()),
        FieldValue::Decimal { scale, value } => {
            push_tagged(out, b'D', &[scale]);
            out.extend_from_slice(&value.to_be_bytes());
        }
        FieldValue::LongStr(v) => push_long(out, b'S', v),
        FieldValue::Binary(v) => push_long(out, b'x', v),
        FieldValue::Array(v) => push_long(out, b'A', v.0),
        FieldValue::Table(v) => push_long(out, b'F', v.0),
        FieldValue::Void => out.push(b'V'),
    }
}

fn push_tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn push_long(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("what goes into a frame is smaller than 4 GiB");
    push_tagged(out, tag, &len.to_be_bytes());
    out.extend_from_slice(bytes);
}
