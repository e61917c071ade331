//! The one list of front ends.

use sabir_frontend::Protocol;

/// Every protocol this server speaks. The first one is what the command line uses when none is named.
pub fn protocols() -> &'static [&'static dyn Protocol] {
    &[&sabir_kafka::Kafka, &sabir_amqp::Amqp, &sabir_probe::Probe]
}
