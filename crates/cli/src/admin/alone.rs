//! The admin port as a client of its own, for what is no protocol's that is spoken here: topics and groups of another one, or of another
//! namespace. It carries no messages.

use std::time::Duration;

use sabir_server::client::{
    Client, ClientError, Failure, GroupAdmin, Incoming, LocalFuture, Outgoing, Position, PublishOptions,
    Receipt, Settling, Start, TopicAdmin,
};

use super::AdminClient;

fn no_messages<'a, T: 'a>() -> LocalFuture<'a, T> {
    let error = ClientError::new(Failure::Unsupported, "the admin port carries no messages");
    Box::pin(async { Err(error) })
}

impl Client for AdminClient {
    fn publish<'a>(
        &'a mut self,
        _: &'a str,
        _: Vec<Outgoing>,
        _: &'a PublishOptions,
    ) -> LocalFuture<'a, Vec<Receipt>> {
        no_messages()
    }

    fn positions<'a>(&'a mut self, _: &'a str, _: Option<i32>, _: Start) -> LocalFuture<'a, Vec<Position>> {
        no_messages()
    }

    fn read<'a>(
        &'a mut self,
        _: &'a str,
        _: &'a mut [Position],
        _: Duration,
    ) -> LocalFuture<'a, Vec<Incoming>> {
        no_messages()
    }

    fn settles(&self, _: Settling<'_>) -> bool {
        false
    }

    fn settle<'a>(&'a mut self, _: &'a str, _: Settling<'a>) -> LocalFuture<'a, ()> {
        no_messages()
    }

    fn stop_reading(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn topics(&mut self) -> Option<&mut dyn TopicAdmin> {
        Some(self)
    }

    fn groups(&mut self) -> Option<&mut dyn GroupAdmin> {
        Some(self)
    }
}
