//! How each type of field is read and written in each version.

use bytes::Bytes;

use super::{Reader, RecordData, Str, Uuid, WireError, Writer};

/// What decides a field's form on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Cx {
    /// The message's version.
    pub version: i16,
    /// Whether that version is flexible: compact lengths, tagged fields.
    pub flexible: bool,
    /// Whether the field may be null in that version.
    pub nullable: bool,
}

/// Whether a tagged field is worth writing.
pub(crate) fn differs<T: PartialEq>(value: &T, absent: T) -> bool {
    *value != absent
}

/// A type of field.
pub trait Wire: Sized {
    /// The fewest bytes a value takes.
    fn least(cx: Cx) -> usize;
    /// Reads a value.
    fn read(r: &mut Reader<'_>, cx: Cx) -> Result<Self, WireError>;
    /// Writes the value.
    fn write(&self, w: &mut Writer, cx: Cx);
}

/// A type of field that some version can leave null.
pub trait Nullable: Wire + Default {
    /// The fewest bytes a value or null takes.
    fn least_or_null(cx: Cx) -> usize {
        Self::least(cx)
    }
    /// Reads a value or null.
    fn read_or_null(r: &mut Reader<'_>, cx: Cx) -> Result<Option<Self>, WireError>;
    /// Writes a value where null could stand.
    fn write_some(&self, w: &mut Writer, cx: Cx) {
        self.write(w, cx);
    }
    /// Writes null.
    fn write_null(w: &mut Writer, cx: Cx);
}

/// In a version where it cannot be null, null is refused when read and written as the empty value.
impl<T: Nullable> Wire for Option<T> {
    fn least(cx: Cx) -> usize {
        if cx.nullable { T::least_or_null(cx) } else { T::least(cx) }
    }

    fn read(r: &mut Reader<'_>, cx: Cx) -> Result<Self, WireError> {
        if cx.nullable { T::read_or_null(r, cx) } else { T::read(r, cx).map(Some) }
    }

    fn write(&self, w: &mut Writer, cx: Cx) {
        match (self, cx.nullable) {
            (Some(value), true) => value.write_some(w, cx),
            (Some(value), false) => value.write(w, cx),
            (None, true) => T::write_null(w, cx),
            (None, false) => T::default().write(w, cx),
        }
    }
}

macro_rules! fixed {
    ($($ty:ident),*) => {$(
        impl Wire for $ty {
            fn least(_: Cx) -> usize {
                size_of::<Self>()
            }
            fn read(r: &mut Reader<'_>, _: Cx) -> Result<Self, WireError> {
                r.$ty()
            }
            fn write(&self, w: &mut Writer, _: Cx) {
                w.$ty(*self);
            }
        }
    )*};
}

fixed!(i8, i16, i32, i64);

impl Wire for bool {
    fn least(_: Cx) -> usize {
        1
    }
    fn read(r: &mut Reader<'_>, _: Cx) -> Result<Self, WireError> {
        Ok(r.i8()? != 0)
    }
    fn write(&self, w: &mut Writer, _: Cx) {
        w.i8(i8::from(*self));
    }
}

impl Wire for Uuid {
    fn least(_: Cx) -> usize {
        16
    }
    fn read(r: &mut Reader<'_>, _: Cx) -> Result<Self, WireError> {
        r.array()
    }
    fn write(&self, w: &mut Writer, _: Cx) {
        w.put(self);
    }
}

/// How wide a length is in versions that are not flexible.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Short,
    Long,
}

impl Width {
    fn bytes(self, cx: Cx) -> usize {
        match self {
            _ if cx.flexible => 1,
            Self::Short => 2,
            Self::Long => 4,
        }
    }

    fn read(self, r: &mut Reader<'_>, cx: Cx) -> Result<Option<usize>, WireError> {
        if cx.flexible {
            return r.compact_len();
        }
        let len = match self {
            Self::Short => i64::from(r.i16()?),
            Self::Long => i64::from(r.i32()?),
        };
        Reader::signed_len(len)
    }

    fn write(self, w: &mut Writer, cx: Cx, len: Option<usize>) {
        let signed = len.map_or(-1, |len| len as i64);
        match self {
            _ if cx.flexible => w.varint((signed + 1) as u32),
            Self::Short => w.i16(signed as i16),
            Self::Long => w.i32(signed as i32),
        }
    }
}

impl Wire for Str {
    fn least(cx: Cx) -> usize {
        Width::Short.bytes(cx)
    }
    fn read(r: &mut Reader<'_>, cx: Cx) -> Result<Self, WireError> {
        Self::read_or_null(r, cx)?.ok_or(WireError::UnexpectedNull)
    }
    /// A text too long for its length field is cut at a character.
    fn write(&self, w: &mut Writer, cx: Cx) {
        let limit = if cx.flexible { self.len() } else { i16::MAX as usize };
        let text = &self[..self.floor_char_boundary(limit)];
        Width::Short.write(w, cx, Some(text.len()));
        w.put(text.as_bytes());
    }
}

impl Nullable for Str {
    fn read_or_null(r: &mut Reader<'_>, cx: Cx) -> Result<Option<Self>, WireError> {
        match Width::Short.read(r, cx)? {
            None => Ok(None),
            Some(len) => r.bytes(len).and_then(Self::from_utf8).map(Some),
        }
    }
    fn write_null(w: &mut Writer, cx: Cx) {
        Width::Short.write(w, cx, None);
    }
}

impl Wire for Bytes {
    fn least(cx: Cx) -> usize {
        Width::Long.bytes(cx)
    }
    fn read(r: &mut Reader<'_>, cx: Cx) -> Result<Self, WireError> {
        Self::read_or_null(r, cx)?.ok_or(WireError::UnexpectedNull)
    }
    fn write(&self, w: &mut Writer, cx: Cx) {
        Width::Long.write(w, cx, Some(self.len()));
        w.put_shared(self);
    }
}

impl Nullable for Bytes {
    fn read_or_null(r: &mut Reader<'_>, cx: Cx) -> Result<Option<Self>, WireError> {
        Width::Long.read(r, cx)?.map(|len| r.bytes(len)).transpose()
    }
    fn write_null(w: &mut Writer, cx: Cx) {
        Width::Long.write(w, cx, None);
    }
}

impl Wire for RecordData {
    fn least(cx: Cx) -> usize {
        Bytes::least(cx)
    }
    fn read(r: &mut Reader<'_>, cx: Cx) -> Result<Self, WireError> {
        Bytes::read(r, cx).map(Self::from)
    }
    fn write(&self, w: &mut Writer, cx: Cx) {
        Width::Long.write(w, cx, Some(self.len()));
        self.pieces().iter().for_each(|piece| w.put_shared(piece));
    }
}

impl Nullable for RecordData {
    fn read_or_null(r: &mut Reader<'_>, cx: Cx) -> Result<Option<Self>, WireError> {
        Ok(Bytes::read_or_null(r, cx)?.map(Self::from))
    }
    fn write_null(w: &mut Writer, cx: Cx) {
        Bytes::write_null(w, cx);
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn least(cx: Cx) -> usize {
        Width::Long.bytes(cx)
    }
    fn read(r: &mut Reader<'_>, cx: Cx) -> Result<Self, WireError> {
        Self::read_or_null(r, cx)?.ok_or(WireError::UnexpectedNull)
    }
    fn write(&self, w: &mut Writer, cx: Cx) {
        let element = Cx { nullable: false, ..cx };
        Width::Long.write(w, cx, Some(self.len()));
        self.iter().for_each(|item| item.write(w, element));
    }
}

impl<T: Wire> Nullable for Vec<T> {
    fn read_or_null(r: &mut Reader<'_>, cx: Cx) -> Result<Option<Self>, WireError> {
        let element = Cx { nullable: false, ..cx };
        let Some(count) = Width::Long.read(r, cx).map_err(count_error)? else { return Ok(None) };
        let mut items = r.room(count, T::least(element))?;
        for _ in 0..count {
            items.push(T::read(r, element)?);
        }
        Ok(Some(items))
    }
    fn write_null(w: &mut Writer, cx: Cx) {
        Width::Long.write(w, cx, None);
    }
}

fn count_error(error: WireError) -> WireError {
    match error {
        WireError::BadLength(count) => WireError::BadCount(count),
        other => other,
    }
}
