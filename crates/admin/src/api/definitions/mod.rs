//! Definitions: which topics, queues, exchanges and bindings there are and what they set for themselves, in one document that this broker
//! or another one takes.

mod document;
mod export;
mod import;
mod plan;

use sabir_broker::{Broker, Topic};

pub use document::QueueSettings;
pub use export::export;
pub use import::import;

/// Whether a topic stands in the document, as what it is: not what the broker keeps for itself, and of queues those alone that neither a
/// client's coming and going nor a start takes away, and that a client named.
fn is_kept(broker: &Broker, topic: &Topic) -> bool {
    if topic.internal {
        return false;
    }
    let Some(queue) = topic.config.queue() else { return true };
    let is_generated = broker.options().generated.iter().any(|names| names.covers(&topic.name));
    queue.durable && !queue.exclusive && !queue.auto_delete && !queue.delays && !is_generated
}
