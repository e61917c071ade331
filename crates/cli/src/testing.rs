//! What several tests of the command line need.

use std::time::Duration;

use sabir_server::client::{
    Client, Incoming, LocalFuture, Outgoing, Position, PublishOptions, Receipt, Settling, Start,
};

/// A client of a protocol that can do nothing.
pub struct NoClient;

impl Client for NoClient {
    fn publish<'a>(
        &'a mut self,
        _: &'a str,
        _: Vec<Outgoing>,
        _: &'a PublishOptions,
    ) -> LocalFuture<'a, Vec<Receipt>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn positions<'a>(&'a mut self, _: &'a str, _: Option<i32>, _: Start) -> LocalFuture<'a, Vec<Position>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn read<'a>(
        &'a mut self,
        _: &'a str,
        _: &'a mut [Position],
        _: Duration,
    ) -> LocalFuture<'a, Vec<Incoming>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn settles(&self, _: Settling<'_>) -> bool {
        false
    }

    fn settle<'a>(&'a mut self, _: &'a str, _: Settling<'a>) -> LocalFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn stop_reading(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
