//! Where a message goes that was kept back: its front end says by what it is routed, and it is routed as things are when its timer fires.

use std::sync::Arc;

use sabir_delivery::timer::Repetition;
use sabir_model::batch::RecordView;
use sabir_model::{Facts, FrontendNo, Namespace, ShardId};

use super::driver::TimerDriver;
use crate::append::{AppendAcks, AppendTarget};
use crate::caller::Caller;
use crate::catalog::Topic;
use crate::converter::{Converter, DelayedAddress};
use crate::exchange::{Publication, Route, RouteError, RouteScratch};
use crate::relay::Later;

/// Where a message goes.
#[derive(Debug, Default)]
pub(super) struct FiringTargets {
    /// Partitions of the shard that has it, each the only one of its topic.
    pub(super) here: Vec<AppendTarget>,
    /// All others.
    pub(super) elsewhere: Vec<AppendTarget>,
    pub(super) facts: Facts,
    /// Whether it fires again.
    pub(super) repetition: Option<Repetition>,
}

impl TimerDriver {
    /// As which caller a message is published that lies in a topic: the topic's front end, in its namespace.
    pub(super) fn caller_of(&self, topic: &Topic, origin: FrontendNo) -> Option<(Caller, &Converter)> {
        let converter = self.converter(origin)?;
        let namespace = Namespace::named(&topic.namespace)?;
        Some((Caller::front_end(converter.front_end).within(namespace), converter))
    }

    fn converter(&self, origin: FrontendNo) -> Option<&Converter> {
        let state = self.shards[0].state.read();
        let is_its = |converter: &&Converter| {
            origin != FrontendNo::NONE && state.catalog.front_end(converter.front_end) == Some(origin)
        };
        self.converters.iter().find(is_its)
    }

    /// Where a record goes, as its front end reads it; nowhere if that cannot say.
    pub(super) fn targets(
        &self,
        (caller, converter): (&Caller, &Converter),
        (shard, origin): (ShardId, FrontendNo),
        record: &RecordView<'_>,
        scratch: &mut RouteScratch,
    ) -> Result<FiringTargets, Later> {
        let mut found = Ok(FiringTargets::default());
        if let Some(address_of) = converter.address {
            address_of(record, &mut |address: &DelayedAddress<'_>| {
                found = self.route(caller, address, scratch).map(|route| FiringTargets {
                    facts: address.facts.clone(),
                    repetition: address.repetition,
                    ..split(caller, &route, (shard, origin), address.hash)
                });
            });
        }
        found
    }

    fn route(
        &self,
        caller: &Caller,
        address: &DelayedAddress<'_>,
        scratch: &mut RouteScratch,
    ) -> Result<Arc<Route>, Later> {
        let DelayedAddress { exchange, exchange_id, key, further_keys, attributes, .. } = *address;
        let publication = Publication { key, further_keys, attributes, queues: &|_| None };
        match self.exchanges.route_kept(caller, (exchange, exchange_id), &publication, scratch) {
            Ok(route) => Ok(route),
            Err(RouteError::Shard(_)) => Err(Later),
            // The exchange went meanwhile, and with it all that it led to.
            Err(RouteError::NoExchange | RouteError::Internal | RouteError::Key(_)) => Ok(Arc::default()),
        }
    }
}

fn split(caller: &Caller, route: &Route, (shard, origin): (ShardId, FrontendNo), hash: u32) -> FiringTargets {
    let mut targets = FiringTargets::default();
    for topic in route.topics() {
        let index = (hash as usize % topic.partitions.len().max(1)) as i32;
        // One that takes nothing of the kind gets nothing: no client waits for an answer.
        let Ok(target) = AppendTarget::new(caller, topic, index, AppendAcks::Leader, origin) else {
            continue;
        };
        match &topic.partitions[..] {
            [only] if only.shard == shard => targets.here.push(target),
            _ => targets.elsewhere.push(target),
        }
    }
    targets
}
