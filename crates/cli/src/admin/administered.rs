//! A protocol's client, with the admin port's administration where the protocol has none of its own.

use std::time::Duration;

use sabir_server::client::{
    Client, ClusterInfo, GroupAdmin, Incoming, LocalFuture, Outgoing, Position, PublishOptions, Receipt,
    Settling, Start, TopicAdmin,
};

use super::AdminClient;

pub struct Administered {
    client: Box<dyn Client>,
    admin: AdminClient,
}

impl Administered {
    pub fn new(client: Box<dyn Client>, admin: AdminClient) -> Self {
        Self { client, admin }
    }
}

impl Client for Administered {
    fn publish<'a>(
        &'a mut self,
        topic: &'a str,
        messages: Vec<Outgoing>,
        options: &'a PublishOptions,
    ) -> LocalFuture<'a, Vec<Receipt>> {
        self.client.publish(topic, messages, options)
    }

    fn positions<'a>(
        &'a mut self,
        topic: &'a str,
        partition: Option<i32>,
        start: Start,
    ) -> LocalFuture<'a, Vec<Position>> {
        self.client.positions(topic, partition, start)
    }

    fn read<'a>(
        &'a mut self,
        topic: &'a str,
        positions: &'a mut [Position],
        wait: Duration,
    ) -> LocalFuture<'a, Vec<Incoming>> {
        self.client.read(topic, positions, wait)
    }

    fn settles(&self, what: Settling<'_>) -> bool {
        self.client.settles(what)
    }

    fn settle<'a>(&'a mut self, topic: &'a str, what: Settling<'a>) -> LocalFuture<'a, ()> {
        self.client.settle(topic, what)
    }

    fn stop_reading(&mut self) -> LocalFuture<'_, ()> {
        self.client.stop_reading()
    }

    fn cluster(&mut self) -> LocalFuture<'_, ClusterInfo> {
        self.client.cluster()
    }

    fn topics(&mut self) -> Option<&mut dyn TopicAdmin> {
        let Self { client, admin } = self;
        Some(client.topics().unwrap_or(admin))
    }

    fn groups(&mut self) -> Option<&mut dyn GroupAdmin> {
        let Self { client, admin } = self;
        Some(client.groups().unwrap_or(admin))
    }
}
