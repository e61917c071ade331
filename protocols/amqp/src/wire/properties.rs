//! The properties of a message: all fourteen.

use bytes::{Bytes, BytesMut};

use super::exception::Malformed;
use super::reader::ArgumentReader;
use super::table::{self, FieldTable};
use super::text::ShortBytes;
use super::writer::{ArgumentWriter, WriteArgument};

/// The class whose contents there are.
pub const CLASS_BASIC: u16 = 60;

/// Flags that stand for no property: more flags follow, which no property of this class needs, and one that is not given to any.
const NO_PROPERTY: u16 = 0b11;

macro_rules! properties {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $bit:literal, $read:ident;)*) => {
        /// The properties of a message. Short strings are as they came: it is not looked at whether they are UTF-8.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct BasicProperties<'a> {
            $($(#[$doc])* pub $name: Option<$ty>,)*
        }

        impl<'a> BasicProperties<'a> {
            /// Names of the properties, in their order on the wire.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            #[inline]
            fn read_checked(r: &mut ArgumentReader<'a>) -> Result<Self, Malformed> {
                let flags = r.u16()?;
                Ok(Self {
                    $($name: if flags >> $bit & 1 == 1 {
                        Some(properties!(@read $read, r, table::checked_before))
                    } else {
                        None
                    },)*
                })
            }

            /// Reads flags and values without keeping any.
            #[inline]
            fn skim(r: &mut ArgumentReader<'a>) -> Result<(), Malformed> {
                let flags = r.u16()?;
                if flags & NO_PROPERTY != 0 {
                    return Err(Malformed::UnknownProperty);
                }
                $(if flags >> $bit & 1 == 1 {
                    properties!(@read $read, r, table::checked);
                })*
                r.finish()
            }

            fn flags(&self) -> u16 {
                0 $(| u16::from(self.$name.is_some()) << $bit)*
            }

            /// Writes flags and values.
            pub fn write(&self, w: &mut ArgumentWriter<'_>) {
                self.flags().write(w);
                $(if let Some(value) = &self.$name {
                    value.write(w);
                })*
            }
        }
    };
    (@read headers, $r:ident, $table:path) => { $table($r.long_bytes()?)? };
    (@read $read:ident, $r:ident, $table:path) => { $r.$read()? };
}

properties! {
    /// MIME type of the body.
    content_type: ShortBytes<'a> = 15, short_bytes;
    /// MIME encoding of the body.
    content_encoding: ShortBytes<'a> = 14, short_bytes;
    /// The application's headers.
    headers: FieldTable<'a> = 13, headers;
    /// 2 for persistent, else transient.
    delivery_mode: u8 = 12, u8;
    /// Higher ones first.
    priority: u8 = 11, u8;
    /// What a reply is the reply to.
    correlation_id: ShortBytes<'a> = 10, short_bytes;
    /// Where replies go.
    reply_to: ShortBytes<'a> = 9, short_bytes;
    /// Milliseconds, as digits.
    expiration: ShortBytes<'a> = 8, short_bytes;
    /// The application's id of the message.
    message_id: ShortBytes<'a> = 7, short_bytes;
    /// Seconds since 1970, by the application.
    timestamp: u64 = 6, u64;
    /// The application's type of the message.
    kind: ShortBytes<'a> = 5, short_bytes;
    /// The user who publishes; RabbitMQ checks it.
    user_id: ShortBytes<'a> = 4, short_bytes;
    /// The application that publishes.
    app_id: ShortBytes<'a> = 3, short_bytes;
    /// Reserved.
    cluster_id: ShortBytes<'a> = 2, short_bytes;
}

impl<'a> BasicProperties<'a> {
    /// Reads flags and values, and looks into the headers.
    ///
    /// # Errors
    /// They are cut, have an illegal value or an unknown flag, or are followed by something.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::check(bytes)?;
        Ok(Self::read_again(bytes))
    }

    /// Whether bytes that have been read before have headers.
    pub(crate) fn has_headers(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|flags| flags & 1 << 5 != 0)
    }

    /// Whether bytes that have been read before have a priority.
    pub(crate) fn has_priority(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|flags| flags & 1 << 3 != 0)
    }

    /// Whether bytes that have been read before have a message id.
    pub(crate) fn has_message_id(bytes: &[u8]) -> bool {
        bytes.get(1).is_some_and(|flags| flags & 1 << 7 != 0)
    }

    /// Whether bytes that have been read before have a time after which the message is of no use.
    pub(crate) fn has_expiration(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|flags| flags & 1 != 0)
    }

    /// Looks whether [`read`](Self::read) could read this.
    ///
    /// # Errors
    /// As of `read`.
    #[inline]
    pub fn check(bytes: &'a [u8]) -> Result<(), Malformed> {
        Self::skim(&mut ArgumentReader::new(bytes))
    }

    /// Reads what [`read`](Self::read) has read before.
    pub(crate) fn read_again(bytes: &'a [u8]) -> Self {
        let read = Self::read_checked(&mut ArgumentReader::new(bytes));
        read.expect("these bytes have been read before")
    }

    /// Its bytes on the wire.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        self.write(&mut ArgumentWriter::new(&mut out));
        out.freeze()
    }
}
