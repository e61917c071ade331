//! Records as messages that every protocol understands: what wrote a record knows how to read it.

use sabir_delivery::policy::{DeathReason, Deaths};
use sabir_delivery::timer::Repetition;
use sabir_model::batch::RecordView;
use sabir_model::{Facts, FrontendNo, Message, TopicError};
use sabir_routing::Attributes;

use crate::broker::Broker;
use crate::caller::Caller;
use crate::catalog::NewTopic;
use crate::exchange::ExchangeId;

/// Where a message goes that is published by the broker: what it is routed by when its time has come, or when it is a dead letter.
#[derive(Clone)]
pub struct DelayedAddress<'a> {
    /// The exchange that it was published to.
    pub exchange: &'a str,
    /// Which of those that have had this name: no other one routes it. None where any does, as it is for a dead letter.
    pub exchange_id: Option<ExchangeId>,
    /// Its routing key, dotted.
    pub key: &'a [u8],
    /// Further routing keys.
    pub further_keys: &'a [&'a [u8]],
    /// Its headers and properties.
    pub attributes: &'a dyn Attributes,
    /// Chooses among the partitions of topics that have several.
    pub hash: u32,
    /// What queues must know of it.
    pub facts: Facts,
    /// How often it is published again, of a message that is kept back; from format level 5 on.
    pub repetition: Option<Repetition>,
}

/// How a message came to be a dead letter, and where its queue has those go.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetter<'a> {
    /// The queue's name.
    pub queue: &'a str,
    /// Why the queue gave it up.
    pub reason: DeathReason,
    /// When it is published, in milliseconds.
    pub time_ms: i64,
    /// The exchange.
    pub exchange: &'a str,
    /// The routing key; `None` for those that it was published with.
    pub routing_key: Option<&'a str>,
}

/// A dead letter as it lies in its queue.
#[derive(Debug, Clone, Copy)]
pub enum DeadRecord<'a> {
    /// A record that this front end wrote.
    Own(&'a RecordView<'a>),
    /// A message that another one wrote.
    Other(&'a Message),
}

/// A dead letter as it is published: a record that says how it came to be one.
pub struct DeadLetterRecord<'a> {
    /// What it is routed by.
    pub address: &'a DelayedAddress<'a>,
    /// How it came here, this time included. It is not published to a queue to which it would go round for ever.
    pub deaths: &'a Deaths,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// A dead letter as it goes back: what the queue had that gave it up, and what it says of its deaths.
#[derive(Debug, Clone)]
pub struct RedrivenRecord<'a> {
    /// The queue that gave it up last, other than the one that it is in.
    pub origin: &'a str,
    /// Why.
    pub reason: DeathReason,
    /// What queues must know of it.
    pub facts: Facts,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Makes what goes back of a dead letter that this front end wrote, and that is in the queue of that name; nothing of what does not say where it comes
/// from.
pub type RedriveOf = fn(&RecordView<'_>, &str, &mut dyn FnMut(&RedrivenRecord<'_>));

/// Makes a dead letter of a record; of what cannot be read none.
pub type DeadLetterOf = fn(&DeadRecord<'_>, &DeadLetter<'_>, &mut dyn FnMut(&DeadLetterRecord<'_>));

/// Tells where a record goes; what cannot be read goes nowhere.
pub type AddressOf = fn(&RecordView<'_>, &mut dyn FnMut(&DelayedAddress<'_>));

/// The queue in which messages are kept back, as it is made.
pub type DelayQueueOf = fn() -> NewTopic;

/// How the records of one front end become messages.
#[derive(Debug, Clone, Copy)]
pub struct Converter {
    /// The front end's name.
    pub front_end: &'static str,
    /// Whether it reads batches too that are stored as a client sent them, and so name no front end.
    pub reads_unnamed: bool,
    /// The message that a record holds. No record is without one: what cannot be understood is a header or the body.
    pub to_message: fn(&RecordView<'_>) -> Message,
    /// Of a front end whose messages may be kept back: where they go.
    pub address: Option<AddressOf>,
    /// Of the same: the queue in which they are kept back until their time, one in each namespace that has an exchange which delays.
    pub delay_queue: Option<DelayQueueOf>,
    /// Of a front end whose queues may have their dead letters published: what they are.
    pub dead_letter: Option<DeadLetterOf>,
    /// Of the same: how those go back to where they come from.
    pub redrive: Option<RedriveOf>,
}

impl Broker {
    /// The message in a record of a batch that `origin` built. `None` where this server does not know that front end.
    pub fn to_message(&self, origin: FrontendNo, record: &RecordView<'_>) -> Option<Message> {
        let reads = |converter: &&Converter| match origin {
            FrontendNo::NONE => converter.reads_unnamed,
            origin => self.front_end_number(converter.front_end) == Some(origin),
        };
        let converter = self.options().converters.iter().find(reads)?;
        Some((converter.to_message)(record))
    }

    /// Whether a front end keeps messages back, so that an exchange may delay.
    pub fn can_delay(&self) -> bool {
        self.options().converters.iter().any(|converter| converter.delay_queue.is_some())
    }

    /// Makes the queues in which front ends keep messages back in the caller's namespace, where there are none.
    ///
    /// # Errors
    /// One is not made.
    pub async fn prepare_delays(&self, caller: &Caller) -> Result<(), TopicError> {
        let wanted = self.options().converters.iter().filter_map(|converter| {
            let queue = converter.delay_queue?();
            let is_there = self.catalog().topic_of(caller, &queue.name).is_some();
            (!is_there).then_some((converter.front_end, queue))
        });
        for (front_end, queue) in wanted.collect::<Vec<_>>() {
            let origin = Caller::front_end(front_end).within(caller.namespace().clone());
            match self.create_topics(&origin, vec![queue]).await.pop() {
                Some(Ok(_) | Err(TopicError::Exists(_))) | None => {}
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sabir_model::batch::{BatchBuilder, Compression, records};

    use super::*;
    use crate::BrokerOptions;
    use crate::tests::rig::{create, open, options};

    fn titled(title: &'static str) -> Message {
        Message { message_id: Some(title.into()), ..Message::default() }
    }

    #[tokio::test]
    async fn a_record_is_read_by_the_front_end_that_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let converters = vec![
            Converter {
                front_end: "one",
                reads_unnamed: false,
                to_message: |_| titled("one"),
                address: None,
                delay_queue: None,
                dead_letter: None,
                redrive: None,
            },
            Converter {
                front_end: "two",
                reads_unnamed: true,
                to_message: |_| titled("two"),
                address: None,
                delay_queue: None,
                dead_letter: None,
                redrive: None,
            },
        ];
        let broker = open(BrokerOptions { converters, ..options(dir.path()) });
        create(&broker, "by the operator", 1).await;
        let topic = NewTopic { name: "t".into(), ..crate::tests::rig::new_topic("t", 1) };
        broker.create_topics(&Caller::front_end("one"), vec![topic]).await.remove(0).unwrap();
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(1, None, Some(b"x"), &[]);
        let batch = batch.build();
        let all = records(&batch, 1000).unwrap();
        let record = all.iter().next().unwrap().unwrap();
        let title = |origin| broker.to_message(origin, &record)?.message_id;
        let one = broker.front_end_number("one").expect("it made a topic");
        assert_eq!(title(one).as_deref(), Some("one"));
        assert_eq!(title(FrontendNo::NONE).as_deref(), Some("two"));
        assert_eq!(title(FrontendNo(99)), None);
        broker.shutdown();
    }
}
