//! What a client's frames amount to.

use super::channel::PublishedContent;
use super::handshake::Tuning;
use crate::wire::*;

/// What a client's frames amount to. What is not answered by the machine says what answers it.
#[derive(Debug)]
pub enum ClientEvent<'a> {
    /// The client says who it is. Answered by [`challenge`](super::ConnectionMachine::challenge),
    /// [`authenticated`](super::ConnectionMachine::authenticated) or [`fail`](super::ConnectionMachine::fail).
    Authenticate(ConnectionStartOk<'a>),
    /// The client answers a challenge. Answered as [`Authenticate`](Self::Authenticate).
    AuthenticateFurther(ConnectionSecureOk<'a>),
    /// Limits have been agreed on.
    Tuned(Tuning),
    /// The client wants a virtual host. Answered by [`opened`](super::ConnectionMachine::opened) or
    /// [`fail`](super::ConnectionMachine::fail).
    OpenVirtualHost(ShortStr<'a>),
    /// The client has a new secret. Answered by `connection.update-secret-ok` on channel 0.
    UpdateSecret(ConnectionUpdateSecret<'a>),
    /// A channel is open, and the client has been told.
    ChannelOpened(u16),
    /// A request on a channel.
    Request(u16, ChannelRequest<'a>),
    /// A message, whole.
    Publish(u16, PublishedContent),
    /// The client closes a channel. Answered by [`channel_closed`](super::ConnectionMachine::channel_closed), after all that
    /// is still to be said on it.
    ChannelClosing(u16, ChannelClose<'a>),
    /// The client knows that a channel was closed; its number is free.
    ChannelClosed(u16),
    /// The client did what ended this channel, and has been told; the channel is to be laid down.
    ChannelFailed(u16, ChannelException),
    /// The client closes the connection. Answered by [`connection_closed`](super::ConnectionMachine::connection_closed).
    ConnectionClosing(ConnectionClose<'a>),
    /// The client did what ended the connection, and has been told; all is to be laid down. What comes until it answers is passed over.
    ConnectionFailed(ConnectionException),
    /// The client knows that the connection was closed: the socket can be.
    Ended,
}

macro_rules! channel_requests {
    ($($(#[$doc:meta])* $request:ident = $method:ident $(<$life:lifetime>)?;)*) => {
        /// What a client may ask for on an open channel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ChannelRequest<'a> {
            $($(#[$doc])* $request($method $(<$life>)?),)*
        }

        impl<'a> ChannelRequest<'a> {
            /// The request that a method is; `None` where it is none.
            pub(super) fn of(method: Method<'a>) -> Option<Self> {
                Some(match method {
                    $(Method::$method(arguments) => Self::$request(arguments),)*
                    _ => return None,
                })
            }

            /// The method's class and number.
            pub fn id(&self) -> (u16, u16) {
                match self { $(Self::$request(_) => <$method $(<$life>)? as MethodArguments>::ID,)* }
            }

            /// The method's name in the specification.
            pub fn name(&self) -> &'static str {
                method_name(self.id()).expect("every method has a name")
            }
        }
    };
}

channel_requests! {
    /// `channel.flow`: RabbitMQ answers `active`, and refuses its opposite with 540.
    Flow = ChannelFlow;
    /// `access.request`: does nothing and is answered; from the time before 0-9-1.
    Access = AccessRequest<'a>;
    /// `exchange.declare`
    DeclareExchange = ExchangeDeclare<'a>;
    /// `exchange.delete`
    DeleteExchange = ExchangeDelete<'a>;
    /// `exchange.bind`
    BindExchange = ExchangeBind<'a>;
    /// `exchange.unbind`
    UnbindExchange = ExchangeUnbind<'a>;
    /// `queue.declare`
    DeclareQueue = QueueDeclare<'a>;
    /// `queue.bind`
    BindQueue = QueueBind<'a>;
    /// `queue.unbind`
    UnbindQueue = QueueUnbind<'a>;
    /// `queue.purge`
    PurgeQueue = QueuePurge<'a>;
    /// `queue.delete`
    DeleteQueue = QueueDelete<'a>;
    /// `basic.qos`
    Qos = BasicQos;
    /// `basic.consume`
    Consume = BasicConsume<'a>;
    /// `basic.cancel`
    Cancel = BasicCancel<'a>;
    /// `basic.get`
    Get = BasicGet<'a>;
    /// `basic.ack`
    Ack = BasicAck;
    /// `basic.nack`
    Nack = BasicNack;
    /// `basic.reject`
    Reject = BasicReject;
    /// `basic.recover`
    Recover = BasicRecover;
    /// `basic.recover-async`
    RecoverAsync = BasicRecoverAsync;
    /// `confirm.select`
    SelectConfirms = ConfirmSelect;
    /// `tx.select`
    SelectTransactions = TxSelect;
    /// `tx.commit`
    Commit = TxCommit;
    /// `tx.rollback`
    Rollback = TxRollback;
}
