//! What the I/O threads do for the broker.

use sabir_broker::Broker;
use sabir_net::Watched;

/// What the I/O threads watch for the broker: completions of each shard's disk.
pub fn watched(broker: &Broker) -> Vec<Watched> {
    let watch = |(shard, fd)| {
        let broker = broker.clone();
        Watched { fd, drive: Box::new(move || broker.drive(shard)) }
    };
    broker.event_fds().into_iter().map(watch).collect()
}
