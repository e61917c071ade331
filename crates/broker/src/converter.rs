//! Records as messages that every protocol understands: what wrote a record knows how to read it.

use sabir_model::batch::RecordView;
use sabir_model::{FrontendNo, Message};

use crate::broker::Broker;

/// How the records of one front end become messages.
#[derive(Debug, Clone, Copy)]
pub struct Converter {
    /// The front end's name.
    pub front_end: &'static str,
    /// Whether it reads batches too that are stored as a client sent them, and so name no front end.
    pub reads_unnamed: bool,
    /// The message that a record holds. No record is without one: what cannot be understood is a header or the body.
    pub to_message: fn(&RecordView<'_>) -> Message,
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
}

#[cfg(test)]
mod tests {
    use sabir_model::batch::{BatchBuilder, Compression, records};

    use super::*;
    use crate::tests::rig::{create, open, options};
    use crate::{BrokerOptions, Caller, NewTopic};

    fn titled(title: &'static str) -> Message {
        Message { message_id: Some(title.into()), ..Message::default() }
    }

    #[tokio::test]
    async fn a_record_is_read_by_the_front_end_that_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let converters = vec![
            Converter { front_end: "one", reads_unnamed: false, to_message: |_| titled("one") },
            Converter { front_end: "two", reads_unnamed: true, to_message: |_| titled("two") },
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
