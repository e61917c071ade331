//! The document as it is written.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use sabir_broker::exchange::{ExchangeError, ListedBinding, NamedDestination};
use sabir_broker::{Broker, Caller, CatalogView, Topic};
use serde::Serialize;

use super::super::request::{Open, Within};
use super::document::{BindingDefinition, ExchangeDefinition, TopicDefinition, VERSION};
use super::is_kept;
use crate::Admin;
use crate::workers::AnswerWorkers;

/// Topics that are looked up together while a document is made.
const PAGE: usize = 1000;
/// Bytes after which a piece of the document is sent.
const PIECE: usize = 32 << 10;

/// The document, made piece by piece as it is read: each topic, queue, exchange and binding as it is when its turn comes.
pub async fn export(State(admin): State<Admin>, Open(shown): Open, Within(caller): Within) -> Response {
    let pieces = Pieces::new(shown.broker.clone(), caller);
    let body =
        Body::from_stream(stream::try_unfold(pieces, move |pieces| next(admin.workers.clone(), pieces)));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The next piece, made by a worker.
async fn next(workers: AnswerWorkers, mut pieces: Pieces) -> io::Result<Option<(Bytes, Pieces)>> {
    let broken = || io::Error::other("the document broke off");
    let made = workers.run(move || Ok(pieces.next()?.map(|piece| (piece, pieces)))).await;
    made.map_err(|_| broken())?.map_err(|_: ExchangeError| broken())
}

/// The lists of the document, as they follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Topics,
    Queues,
    Exchanges,
    Bindings,
    Done,
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Self::Topics => "topics",
            Self::Queues => "queues",
            Self::Exchanges => "exchanges",
            Self::Bindings | Self::Done => "bindings",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Topics => Self::Queues,
            Self::Queues => Self::Exchanges,
            Self::Exchanges => Self::Bindings,
            Self::Bindings | Self::Done => Self::Done,
        }
    }
}

struct Pieces {
    broker: Broker,
    caller: Caller,
    /// What comes next is of it.
    section: Section,
    /// The list that stands open; one without an entry is left out, but for the first.
    open: Option<Section>,
    /// Whether an entry stands in it.
    further: bool,
    /// The topics, or queues, that come next.
    page: VecDeque<Arc<Topic>>,
    /// The last of them that was looked up.
    after: Option<Arc<str>>,
    /// The exchanges that come next, once it is their turn; bindings go through them again.
    exchanges: Option<VecDeque<Box<str>>>,
    /// The exchange whose bindings come next, and those.
    bindings: (Box<str>, VecDeque<ListedBinding>),
    ended: bool,
}

impl Pieces {
    fn new(broker: Broker, caller: Caller) -> Self {
        Self {
            broker,
            caller,
            section: Section::Topics,
            open: None,
            further: false,
            page: VecDeque::new(),
            after: None,
            exchanges: None,
            bindings: ("".into(), VecDeque::new()),
            ended: false,
        }
    }

    fn next(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        if self.ended {
            return Ok(None);
        }
        let mut piece = Vec::with_capacity(2 * PIECE);
        if self.open.is_none() {
            piece.extend_from_slice(format!("{{\"version\":{VERSION},\"topics\":[").as_bytes());
            self.open = Some(Section::Topics);
        }
        while piece.len() < PIECE && !self.ended {
            self.add(&mut piece)?;
        }
        Ok(Some(piece.into()))
    }

    /// What comes next, on a line of its own, or the end.
    fn add(&mut self, piece: &mut Vec<u8>) -> Result<(), ExchangeError> {
        let Some(entry) = self.entry()? else {
            piece.extend_from_slice(b"\n]}\n");
            self.ended = true;
            return Ok(());
        };
        if self.open != Some(self.section) {
            piece.extend_from_slice(format!("\n],\"{}\":[", self.section.name()).as_bytes());
            (self.open, self.further) = (Some(self.section), false);
        }
        piece.extend_from_slice(if self.further { b",\n" } else { b"\n" });
        piece.extend_from_slice(&entry);
        self.further = true;
        Ok(())
    }

    fn entry(&mut self) -> Result<Option<Vec<u8>>, ExchangeError> {
        loop {
            let found = match self.section {
                Section::Topics | Section::Queues => {
                    self.topic().map(|topic| json(&TopicDefinition::of(&topic)))
                }
                Section::Exchanges => self.exchange()?.map(|exchange| json(&exchange)),
                Section::Bindings => self.binding()?.map(|binding| json(&binding)),
                Section::Done => return Ok(None),
            };
            if found.is_some() {
                return Ok(found);
            }
            self.section = self.section.next();
            (self.after, self.exchanges) = (None, None);
        }
    }

    fn topic(&mut self) -> Option<Arc<Topic>> {
        if self.page.is_empty() {
            let queues = self.section == Section::Queues;
            let wanted =
                |topic: &Topic| topic.config.queue().is_some() == queues && is_kept(&self.broker, topic);
            self.page = page_after(&self.broker.catalog(), &self.caller, self.after.as_deref(), wanted);
            self.after = self.page.back().map(|last| last.name.clone());
        }
        self.page.pop_front()
    }

    /// The next exchange that outlives a start.
    fn source(&mut self) -> Result<Option<Box<str>>, ExchangeError> {
        if self.exchanges.is_none() {
            self.exchanges = Some(self.broker.exchanges().durable(&self.caller)?.into());
        }
        Ok(self.exchanges.as_mut().and_then(VecDeque::pop_front))
    }

    /// The next one that a client made.
    fn exchange(&mut self) -> Result<Option<ExchangeDefinition>, ExchangeError> {
        while let Some(name) = self.source()? {
            let exchanges = self.broker.exchanges();
            let is_predeclared = exchanges.predeclared_as(&name).is_some();
            if let Some(spec) = exchanges.get(&self.caller, &name)?.filter(|_| !is_predeclared) {
                return Ok(Some(ExchangeDefinition::new(&name, &spec)));
            }
        }
        Ok(None)
    }

    /// The next binding that leads to something which stands in a document.
    fn binding(&mut self) -> Result<Option<BindingDefinition>, ExchangeError> {
        loop {
            let (source, listed) = &mut self.bindings;
            if let Some(listed) = listed.pop_front() {
                let named = self.broker.exchanges().named(&self.caller, source, &listed)?;
                if let Some(named) = named
                    && self.leads_on(&named.destination)?
                {
                    return Ok(Some(BindingDefinition::of(&named)));
                }
                continue;
            }
            let Some(source) = self.source()? else { return Ok(None) };
            let listed = self.broker.exchanges().bindings_from(&self.caller, &source)?;
            self.bindings = (source, listed.into());
        }
    }

    fn leads_on(&self, destination: &NamedDestination) -> Result<bool, ExchangeError> {
        match destination {
            NamedDestination::Queue(name) => {
                let catalog = self.broker.catalog();
                Ok(catalog.topic_of(&self.caller, name).is_some_and(|topic| is_kept(&self.broker, topic)))
            }
            NamedDestination::Exchange(name) => {
                Ok(self.broker.exchanges().get(&self.caller, name)?.is_some_and(|spec| spec.durable))
            }
        }
    }
}

fn json(entry: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(entry).expect("texts and numbers can be written")
}

/// The caller's first wanted topics by name behind one.
fn page_after(
    catalog: &CatalogView,
    caller: &Caller,
    after: Option<&str>,
    wanted: impl Fn(&Topic) -> bool,
) -> VecDeque<Arc<Topic>> {
    let mut first: BTreeMap<&str, &Arc<Topic>> = BTreeMap::new();
    let behind = |topic: &&Arc<Topic>| after.is_none_or(|after| &*topic.name > after) && wanted(topic);
    for topic in catalog.topics_of(caller).filter(behind) {
        first.insert(&topic.name, topic);
        if first.len() > PAGE {
            first.pop_last();
        }
    }
    first.into_values().cloned().collect()
}
