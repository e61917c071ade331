//! Where messages go.

use std::sync::Arc;

use sabir_broker::exchange::{Publication, Route, RouteError, RouteScratch, RoutedTargets};
use sabir_broker::{AppendAcks, AppendRefusal, AppendTarget, Broker, Caller, PublishTargets, Topic};
use sabir_model::FrontendNo;

use super::attributes::MessageAttributes;
use super::delays::DELAYED;
use super::records::Envelope;
use crate::wire::*;

/// The headers of a message that name further routing keys. The second is not shown to the clients that get the message.
const FURTHER: [&str; 2] = ["CC", "BCC"];

/// The routes that a connection's messages take.
#[derive(Default)]
pub(super) struct Routes {
    scratch: RouteScratch,
    /// The last one, if its targets are the same for all of its messages.
    last: Option<(Arc<Route>, Arc<RoutedTargets>)>,
    /// Where messages go that are kept back.
    delayed: Option<(Arc<Topic>, Arc<RoutedTargets>)>,
    /// Chooses among partitions for messages without a key; those of a read stay together.
    turn: u32,
}

impl Routes {
    /// Another read begins.
    pub(super) fn turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// Whether a route had to be looked for since this was asked last, which may take long.
    pub(super) fn take_resolved(&mut self) -> bool {
        self.scratch.take_resolved()
    }

    /// Where a message goes.
    ///
    /// # Errors
    /// There is no such exchange, or a target takes nothing from clients.
    pub(super) fn find(
        &mut self,
        broker: &Broker,
        caller: &Caller,
        origin: FrontendNo,
        envelope: &Envelope<'_>,
    ) -> Result<Arc<RoutedTargets>, Exception> {
        let name = std::str::from_utf8(envelope.exchange.as_bytes()).map_err(|_| no_exchange(envelope))?;
        let further = further_keys(envelope.properties)?;
        let publication = Publication {
            key: envelope.routing_key.as_bytes(),
            further_keys: &further,
            attributes: &MessageAttributes::new(envelope.properties),
            queues: &|_| None,
        };
        let route = broker.exchanges().route(caller, name, &publication, &mut self.scratch);
        let route = route.map_err(|error| refused(envelope, error))?;
        match &self.last {
            Some((last, targets)) if Arc::ptr_eq(last, &route) => return Ok(targets.clone()),
            _ => {}
        }
        Ok(self.targets(caller, origin, envelope, route)?)
    }

    /// Where messages wait for their time.
    ///
    /// # Errors
    /// There is no such place, or it takes nothing.
    pub(super) fn delayed(
        &mut self,
        broker: &Broker,
        caller: &Caller,
        origin: FrontendNo,
    ) -> Result<Arc<RoutedTargets>, ChannelException> {
        let missing =
            || precondition("delayed messages have no place: declare their exchange again".to_owned());
        let topic = broker.catalog().topic_of(caller, DELAYED).cloned().ok_or_else(missing)?;
        if let Some((_, targets)) = self.delayed.as_ref().filter(|(known, _)| Arc::ptr_eq(known, &topic)) {
            return Ok(targets.clone());
        }
        let target = AppendTarget::new(caller, &topic, 0, AppendAcks::InSync, origin);
        let target = target.map_err(|why| precondition(format!("delayed messages: {why}")))?;
        let publishes = PublishTargets::new(vec![target]).map_err(|why| precondition(why.to_string()))?;
        let targets = Arc::new(RoutedTargets { publishes: vec![publishes], refused: Vec::new() });
        self.delayed = Some((topic, targets.clone()));
        Ok(targets)
    }

    fn targets(
        &mut self,
        caller: &Caller,
        origin: FrontendNo,
        envelope: &Envelope<'_>,
        route: Arc<Route>,
    ) -> Result<Arc<RoutedTargets>, ChannelException> {
        let hash = envelope.key().map_or(self.turn, |key| murmur2(key) & 0x7fff_ffff);
        let targets = route.targets(caller, origin, hash).map_err(|why| precondition(why.to_string()))?;
        if let Some((topic, why)) = targets.refused.first() {
            let text = format!("queue '{}' in vhost '/': {why}", topic.name);
            return Err(match why {
                AppendRefusal::Internal => ChannelException::access_refused(text),
                AppendRefusal::UnknownPartition
                | AppendRefusal::NotEnoughReplicas { .. }
                | AppendRefusal::OtherRules
                | AppendRefusal::OtherFacts => precondition(text),
            });
        }
        let is_fixed = route.topics().iter().all(|topic| topic.partitions.len() == 1);
        self.last = is_fixed.then(|| (route, targets.clone()));
        Ok(targets)
    }
}

/// The routing keys that a message's headers name beside its own.
pub(super) fn further_keys(properties: &[u8]) -> Result<Vec<&[u8]>, ChannelException> {
    let mut keys = Vec::new();
    if !BasicProperties::has_headers(properties) {
        return Ok(keys);
    }
    let headers = BasicProperties::read_again(properties).headers.unwrap_or_default();
    for name in FURTHER {
        match headers.get(name) {
            None => {}
            Some(FieldValue::Array(all)) => keys.extend(all.iter().filter_map(|key| match key {
                FieldValue::LongStr(key) => Some(key),
                _ => None,
            })),
            Some(_) => return Err(precondition(format!("header '{name}' is no list of routing keys"))),
        }
    }
    Ok(keys)
}

fn precondition(text: String) -> ChannelException {
    ChannelException::precondition_failed(text)
}

fn no_exchange(envelope: &Envelope<'_>) -> ChannelException {
    let name = String::from_utf8_lossy(&envelope.exchange);
    ChannelException::not_found(format!("no exchange '{name}' in vhost '/'"))
}

fn refused(envelope: &Envelope<'_>, error: RouteError) -> Exception {
    let name = String::from_utf8_lossy(&envelope.exchange);
    match error {
        RouteError::NoExchange => no_exchange(envelope).into(),
        RouteError::Internal => {
            let text = format!("cannot publish to internal exchange '{name}' in vhost '/'");
            ChannelException::access_refused(text).into()
        }
        RouteError::Key(error) => precondition(error.to_string()).into(),
        RouteError::Shard(failure) => {
            ConnectionException::new(ReplyCode::InternalError, failure.to_string()).into()
        }
    }
}

/// The hash by which Kafka's clients choose a key's partition.
pub(super) fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ k >> 24).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| tail << 8 | u32::from(*byte));
        h = (h ^ tail).wrapping_mul(M);
    }
    h = (h ^ h >> 13).wrapping_mul(M);
    h ^ h >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_partitions_that_kafkas_clients_give_them() {
        // The values that Kafka's own test has.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
        assert_eq!(murmur2(b"abc") as i32, 479_470_107);
    }

    fn raw(headers: FieldTable<'_>) -> bytes::Bytes {
        BasicProperties { headers: Some(headers), ..Default::default() }.to_bytes()
    }

    #[test]
    fn further_keys_are_lists_in_headers() {
        let keys =
            FieldTableBuf::array(&[FieldValue::LongStr(b"a"), FieldValue::I32(1), FieldValue::LongStr(b"b")]);
        let list = FieldValue::Array(FieldArray::from_values(&keys).unwrap());
        let mut headers = FieldTableBuf::new();
        headers.push(ShortBytes::cut("BCC"), list);
        assert_eq!(further_keys(&raw(headers.as_table())).unwrap(), [b"a", b"b"]);
        assert!(further_keys(&BasicProperties::default().to_bytes()).unwrap().is_empty());
        headers.push(ShortBytes::cut("CC"), FieldValue::LongStr(b"a"));
        assert!(further_keys(&raw(headers.as_table())).is_err());
    }
}
