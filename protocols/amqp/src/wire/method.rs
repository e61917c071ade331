//! The methods of AMQP 0-9-1, with RabbitMQ's. The table at the end is all there is.

use super::exception::{ConnectionException, Malformed, ReplyCode};
use super::reader::{Argument, ArgumentReader};
use super::table::FieldTable;
use super::text::{ShortBytes, ShortStr};
use super::writer::{ArgumentWriter, WriteArgument};

/// Who sends a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Clients only.
    Client,
    /// Servers only.
    Server,
    /// Both.
    Both,
}

impl Sender {
    /// Whether a client may send it.
    pub fn may_be_client(self) -> bool {
        self != Self::Server
    }
}

/// A method, without arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodInfo {
    /// Class and method.
    pub id: (u16, u16),
    /// Its name in the specification.
    pub name: &'static str,
    /// Who sends it.
    pub sender: Sender,
    /// Whether a content follows.
    pub has_content: bool,
    /// Names of its arguments.
    pub arguments: &'static [&'static str],
}

/// What a method says of itself.
pub trait MethodArguments {
    /// Class and method.
    const ID: (u16, u16);
    /// Writes the arguments.
    fn write(&self, w: &mut ArgumentWriter<'_>);
}

macro_rules! methods {
    ($(
        ($class:literal, $id:literal) $name:ident $(<$life:lifetime>)? = $text:literal, $sender:ident $(, $content:ident)?
        { $($(#[$doc:meta])* $field:ident: $ty:ty),* $(,)? }
    )*) => {
        $(
            #[doc = concat!("`", $text, "`")]
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
            pub struct $name $(<$life>)? {
                $(
                    #[doc = concat!("The argument `", stringify!($field), "`.")]
                    $(#[$doc])*
                    pub $field: $ty,
                )*
            }

            impl $(<$life>)? MethodArguments for $name $(<$life>)? {
                const ID: (u16, u16) = ($class, $id);

                #[inline]
                fn write(&self, w: &mut ArgumentWriter<'_>) {
                    let _ = &w;
                    $(WriteArgument::write(&self.$field, w);)*
                }
            }

            impl $(<$life>)? $name $(<$life>)? {
                #[doc = concat!("Reads the arguments of `", $text, "`.")]
                ///
                /// # Errors
                /// They are cut, have an illegal value, or are followed by something.
                #[inline]
                pub fn read(r: &mut methods!(@reader $($life)?)) -> Result<Self, Malformed> {
                    let read = Self { $($field: Argument::read(r)?,)* };
                    r.finish()?;
                    Ok(read)
                }

                #[doc = concat!("Whether a method's frame with this payload is one of `", $text, "`.")]
                #[inline]
                pub fn is(payload: &[u8]) -> bool {
                    const ID: [[u8; 2]; 2] = [u16::to_be_bytes($class), u16::to_be_bytes($id)];
                    payload.starts_with(ID.as_flattened())
                }

                #[doc = concat!("Reads the payload of a frame of `", $text, "`.")]
                ///
                /// # Errors
                /// It is of another method, or its arguments cannot be read.
                #[inline]
                pub fn read_payload(payload: methods!(@payload $($life)?)) -> Result<Self, ConnectionException> {
                    let arguments = if Self::is(payload) { &payload[4..] } else { return Err(another(($class, $id))) };
                    Self::read(&mut ArgumentReader::new(arguments)).map_err(|bad| unreadable(($class, $id), bad))
                }
            }
        )*

        #[cfg(test)]
        impl<'a> Method<'a> {
            /// The method of this number in [`METHODS`], with random arguments.
            pub(crate) fn sample(number: usize, g: &mut super::testing::Source<'a>) -> Self {
                let _ = &g;
                let all: &[fn(&mut super::testing::Source<'a>) -> Self] = &[
                    $(|_g| Self::$name($name { $($field: super::testing::Sample::sample(_g),)* }),)*
                ];
                all[number](g)
            }
        }

        /// A method and its arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Method<'a> {
            $(#[doc = concat!("`", $text, "`")] $name($name $(<$life>)?),)*
        }

        /// Every method there is.
        pub const METHODS: &[MethodInfo] = &[$(MethodInfo {
            id: ($class, $id),
            name: $text,
            sender: Sender::$sender,
            has_content: methods!(@content $($content)?),
            arguments: &[$(stringify!($field)),*],
        },)*];

        impl<'a> Method<'a> {
            /// Reads the arguments of a method; `None` where there is no such method.
            #[inline]
            fn arguments(id: (u16, u16), r: &mut ArgumentReader<'a>) -> Option<Result<Self, Malformed>> {
                Some(match id {
                    $(($class, $id) => $name::read(r).map(Self::$name),)*
                    _ => return None,
                })
            }

            /// Class and method.
            #[inline]
            pub fn id(&self) -> (u16, u16) {
                match self { $(Self::$name(_) => ($class, $id),)* }
            }

            /// Its name in the specification.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => $text,)* }
            }

            /// Who sends it.
            #[inline]
            pub fn sender(&self) -> Sender {
                match self { $(Self::$name(_) => Sender::$sender,)* }
            }

            /// Whether a content follows.
            #[inline]
            pub fn has_content(&self) -> bool {
                match self { $(Self::$name(_) => methods!(@content $($content)?),)* }
            }

            /// Writes class, method and arguments: the payload of its frame.
            pub fn write(&self, w: &mut ArgumentWriter<'_>) {
                match self { $(Self::$name(arguments) => write_method(arguments, w),)* }
            }
        }
    };
    (@reader $life:lifetime) => { ArgumentReader<$life> };
    (@reader) => { ArgumentReader<'_> };
    (@payload $life:lifetime) => { &$life [u8] };
    (@payload) => { &[u8] };
    (@content content) => { true };
    (@content) => { false };
}

/// Writes class, method and arguments: the payload of a method's frame.
#[inline]
pub(super) fn write_method<M: MethodArguments>(arguments: &M, w: &mut ArgumentWriter<'_>) {
    WriteArgument::write(&M::ID.0, w);
    WriteArgument::write(&M::ID.1, w);
    arguments.write(w);
}

impl<'a> Method<'a> {
    /// Reads the payload of a method's frame.
    ///
    /// # Errors
    /// There is no such method, or its arguments cannot be read.
    #[inline]
    pub fn read(payload: &'a [u8]) -> Result<Self, ConnectionException> {
        let mut r = ArgumentReader::new(payload);
        let id = Self::read_id(&mut r)?;
        match Self::arguments(id, &mut r) {
            Some(read) => read.map_err(|malformed| unreadable(id, malformed)),
            None => Err(unknown(id)),
        }
    }

    #[inline]
    fn read_id(r: &mut ArgumentReader<'a>) -> Result<(u16, u16), ConnectionException> {
        let class = r.u16().map_err(|malformed| ConnectionException::malformed("a method", malformed))?;
        let method = r.u16().map_err(|malformed| ConnectionException::malformed("a method", malformed))?;
        Ok((class, method))
    }
}

/// A method's name.
pub fn method_name(id: (u16, u16)) -> Option<&'static str> {
    METHODS.iter().find(|known| known.id == id).map(|known| known.name)
}

#[cold]
fn unreadable(id: (u16, u16), malformed: Malformed) -> ConnectionException {
    ConnectionException::malformed(method_name(id).unwrap_or("a method"), malformed).caused_by(id)
}

#[cold]
fn another(id: (u16, u16)) -> ConnectionException {
    let text = format!("expected {}, got another method", method_name(id).unwrap_or("a method"));
    ConnectionException::new(ReplyCode::CommandInvalid, text).caused_by(id)
}

#[cold]
fn unknown(id: (u16, u16)) -> ConnectionException {
    let text = format!("there is no method {} in class {}", id.1, id.0);
    ConnectionException::new(ReplyCode::NotImplemented, text).caused_by(id)
}

methods! {
    (10, 10) ConnectionStart<'a> = "connection.start", Server {
        version_major: u8, version_minor: u8, server_properties: FieldTable<'a>, mechanisms: &'a [u8], locales: &'a [u8],
    }
    (10, 11) ConnectionStartOk<'a> = "connection.start-ok", Client {
        client_properties: FieldTable<'a>, mechanism: ShortStr<'a>, response: &'a [u8], locale: ShortStr<'a>,
    }
    (10, 20) ConnectionSecure<'a> = "connection.secure", Server { challenge: &'a [u8] }
    (10, 21) ConnectionSecureOk<'a> = "connection.secure-ok", Client { response: &'a [u8] }
    (10, 30) ConnectionTune = "connection.tune", Server { channel_max: u16, frame_max: u32, heartbeat: u16 }
    (10, 31) ConnectionTuneOk = "connection.tune-ok", Client { channel_max: u16, frame_max: u32, heartbeat: u16 }
    (10, 40) ConnectionOpen<'a> = "connection.open", Client {
        virtual_host: ShortStr<'a>,
        /// Reserved.
        capabilities: ShortStr<'a>,
        /// Reserved.
        insist: bool,
    }
    (10, 41) ConnectionOpenOk<'a> = "connection.open-ok", Server {
        /// Reserved.
        known_hosts: ShortStr<'a>,
    }
    (10, 50) ConnectionClose<'a> = "connection.close", Both {
        reply_code: u16, reply_text: ShortStr<'a>, class_id: u16, method_id: u16,
    }
    (10, 51) ConnectionCloseOk = "connection.close-ok", Both {}
    (10, 60) ConnectionBlocked<'a> = "connection.blocked", Server { reason: ShortStr<'a> }
    (10, 61) ConnectionUnblocked = "connection.unblocked", Server {}
    (10, 70) ConnectionUpdateSecret<'a> = "connection.update-secret", Client { new_secret: &'a [u8], reason: ShortStr<'a> }
    (10, 71) ConnectionUpdateSecretOk = "connection.update-secret-ok", Server {}

    (20, 10) ChannelOpen<'a> = "channel.open", Client {
        /// Reserved.
        out_of_band: ShortStr<'a>,
    }
    (20, 11) ChannelOpenOk<'a> = "channel.open-ok", Server {
        /// Reserved.
        channel_id: &'a [u8],
    }
    (20, 20) ChannelFlow = "channel.flow", Both { active: bool }
    (20, 21) ChannelFlowOk = "channel.flow-ok", Both { active: bool }
    (20, 40) ChannelClose<'a> = "channel.close", Both {
        reply_code: u16, reply_text: ShortStr<'a>, class_id: u16, method_id: u16,
    }
    (20, 41) ChannelCloseOk = "channel.close-ok", Both {}

    (30, 10) AccessRequest<'a> = "access.request", Client {
        realm: ShortStr<'a>, exclusive: bool, passive: bool, active: bool, write: bool, read: bool,
    }
    (30, 11) AccessRequestOk = "access.request-ok", Server { ticket: u16 }

    (40, 10) ExchangeDeclare<'a> = "exchange.declare", Client {
        /// Reserved.
        ticket: u16,
        exchange: ShortStr<'a>, kind: ShortStr<'a>, passive: bool, durable: bool, auto_delete: bool, internal: bool,
        no_wait: bool, arguments: FieldTable<'a>,
    }
    (40, 11) ExchangeDeclareOk = "exchange.declare-ok", Server {}
    (40, 20) ExchangeDelete<'a> = "exchange.delete", Client {
        /// Reserved.
        ticket: u16,
        exchange: ShortStr<'a>, if_unused: bool, no_wait: bool,
    }
    (40, 21) ExchangeDeleteOk = "exchange.delete-ok", Server {}
    (40, 30) ExchangeBind<'a> = "exchange.bind", Client {
        /// Reserved.
        ticket: u16,
        destination: ShortStr<'a>, source: ShortStr<'a>, routing_key: ShortStr<'a>, no_wait: bool, arguments: FieldTable<'a>,
    }
    (40, 31) ExchangeBindOk = "exchange.bind-ok", Server {}
    (40, 40) ExchangeUnbind<'a> = "exchange.unbind", Client {
        /// Reserved.
        ticket: u16,
        destination: ShortStr<'a>, source: ShortStr<'a>, routing_key: ShortStr<'a>, no_wait: bool, arguments: FieldTable<'a>,
    }
    (40, 51) ExchangeUnbindOk = "exchange.unbind-ok", Server {}

    (50, 10) QueueDeclare<'a> = "queue.declare", Client {
        /// Reserved.
        ticket: u16,
        queue: ShortStr<'a>, passive: bool, durable: bool, exclusive: bool, auto_delete: bool, no_wait: bool,
        arguments: FieldTable<'a>,
    }
    (50, 11) QueueDeclareOk<'a> = "queue.declare-ok", Server { queue: ShortStr<'a>, message_count: u32, consumer_count: u32 }
    (50, 20) QueueBind<'a> = "queue.bind", Client {
        /// Reserved.
        ticket: u16,
        queue: ShortStr<'a>, exchange: ShortStr<'a>, routing_key: ShortStr<'a>, no_wait: bool, arguments: FieldTable<'a>,
    }
    (50, 21) QueueBindOk = "queue.bind-ok", Server {}
    (50, 30) QueuePurge<'a> = "queue.purge", Client {
        /// Reserved.
        ticket: u16,
        queue: ShortStr<'a>, no_wait: bool,
    }
    (50, 31) QueuePurgeOk = "queue.purge-ok", Server { message_count: u32 }
    (50, 40) QueueDelete<'a> = "queue.delete", Client {
        /// Reserved.
        ticket: u16,
        queue: ShortStr<'a>, if_unused: bool, if_empty: bool, no_wait: bool,
    }
    (50, 41) QueueDeleteOk = "queue.delete-ok", Server { message_count: u32 }
    (50, 50) QueueUnbind<'a> = "queue.unbind", Client {
        /// Reserved.
        ticket: u16,
        queue: ShortStr<'a>, exchange: ShortStr<'a>, routing_key: ShortStr<'a>, arguments: FieldTable<'a>,
    }
    (50, 51) QueueUnbindOk = "queue.unbind-ok", Server {}

    (60, 10) BasicQos = "basic.qos", Client { prefetch_size: u32, prefetch_count: u16, global: bool }
    (60, 11) BasicQosOk = "basic.qos-ok", Server {}
    (60, 20) BasicConsume<'a> = "basic.consume", Client {
        /// Reserved.
        ticket: u16,
        queue: ShortStr<'a>, consumer_tag: ShortStr<'a>, no_local: bool, no_ack: bool, exclusive: bool, no_wait: bool,
        arguments: FieldTable<'a>,
    }
    (60, 21) BasicConsumeOk<'a> = "basic.consume-ok", Server { consumer_tag: ShortStr<'a> }
    (60, 30) BasicCancel<'a> = "basic.cancel", Both { consumer_tag: ShortStr<'a>, no_wait: bool }
    (60, 31) BasicCancelOk<'a> = "basic.cancel-ok", Both { consumer_tag: ShortStr<'a> }
    (60, 40) BasicPublish<'a> = "basic.publish", Client, content {
        /// Reserved.
        ticket: u16,
        exchange: ShortBytes<'a>, routing_key: ShortBytes<'a>, mandatory: bool, immediate: bool,
    }
    (60, 50) BasicReturn<'a> = "basic.return", Server, content {
        reply_code: u16, reply_text: ShortStr<'a>, exchange: ShortBytes<'a>, routing_key: ShortBytes<'a>,
    }
    (60, 60) BasicDeliver<'a> = "basic.deliver", Server, content {
        consumer_tag: ShortStr<'a>, delivery_tag: u64, redelivered: bool, exchange: ShortBytes<'a>, routing_key: ShortBytes<'a>,
    }
    (60, 70) BasicGet<'a> = "basic.get", Client {
        /// Reserved.
        ticket: u16,
        queue: ShortStr<'a>, no_ack: bool,
    }
    (60, 71) BasicGetOk<'a> = "basic.get-ok", Server, content {
        delivery_tag: u64, redelivered: bool, exchange: ShortBytes<'a>, routing_key: ShortBytes<'a>, message_count: u32,
    }
    (60, 72) BasicGetEmpty<'a> = "basic.get-empty", Server {
        /// Reserved.
        cluster_id: ShortStr<'a>,
    }
    (60, 80) BasicAck = "basic.ack", Both { delivery_tag: u64, multiple: bool }
    (60, 90) BasicReject = "basic.reject", Client { delivery_tag: u64, requeue: bool }
    (60, 100) BasicRecoverAsync = "basic.recover-async", Client { requeue: bool }
    (60, 110) BasicRecover = "basic.recover", Client { requeue: bool }
    (60, 111) BasicRecoverOk = "basic.recover-ok", Server {}
    (60, 120) BasicNack = "basic.nack", Both { delivery_tag: u64, multiple: bool, requeue: bool }

    (85, 10) ConfirmSelect = "confirm.select", Client { no_wait: bool }
    (85, 11) ConfirmSelectOk = "confirm.select-ok", Server {}

    (90, 10) TxSelect = "tx.select", Client {}
    (90, 11) TxSelectOk = "tx.select-ok", Server {}
    (90, 20) TxCommit = "tx.commit", Client {}
    (90, 21) TxCommitOk = "tx.commit-ok", Server {}
    (90, 30) TxRollback = "tx.rollback", Client {}
    (90, 31) TxRollbackOk = "tx.rollback-ok", Server {}
}
