//! The projection: every exchange and binding as committed entries made it. It lives in the catalog's shard, since topics are what bindings
//! lead to.

use std::collections::BTreeSet;
use std::sync::Arc;

use sabir_journal::EntryView;
use sabir_journal::pages::{PageError, Paged};
use sabir_model::FrontendNo;
use sabir_routing::{Binding, BindingId, Destination, ExchangeId, Removed, RouteTarget};

use super::routers::{NamespaceRouter, Routers};
use super::rows::{ExchangeRow, Numbers, Row, RowKey, topic};
use super::{ExchangeError, ExchangeSpec, NamedBinding, NamedDestination, alike};
use crate::caller::is_routed_to;
use crate::catalog::{Catalog, Topic};
use crate::entry::{ExchangeBound, ExchangeDeclared, ExchangeDeleted, ExchangeUnbound, Kinds, kind};
use crate::projection::{PageMap, Projection};
use crate::state::{EntryError, Outcome, StoredMaps, applied, prefixes};

/// All exchanges and bindings. Deterministic: nothing but entries goes in.
pub(crate) struct ExchangeTable {
    rows: Paged<RowKey, Row>,
    /// Follow from the rows.
    routers: Arc<Routers>,
    /// The exchanges that go at the next start; follow from the rows.
    transient: BTreeSet<ExchangeId>,
    /// How many exchanges there are, and what they take; follow from the rows.
    exchanges: usize,
    exchange_bytes: usize,
}

impl Default for ExchangeTable {
    fn default() -> Self {
        Self::of(Paged::new(prefixes::EXCHANGES))
    }
}

impl ExchangeTable {
    const NAME: &'static str = "exchanges";
    const KINDS: Kinds = &[kind::EXCHANGES];

    fn of(rows: Paged<RowKey, Row>) -> Self {
        let (routers, transient) = (Arc::default(), BTreeSet::new());
        Self { rows, routers, transient, exchanges: 0, exchange_bytes: 0 }
    }

    pub(crate) fn applies(of: u16) -> bool {
        Self::KINDS.iter().any(|kinds| kinds.contains(&of))
    }

    /// As the last checkpoint left it.
    pub(crate) fn restore(stored: &StoredMaps<'_>) -> Result<Self, PageError> {
        let mut table = Self::of(stored.restore(prefixes::EXCHANGES)?);
        table.rebuild().map_err(|key| PageError::Undecodable {
            key: [prefixes::EXCHANGES, format!("{key:?}").as_bytes()].concat(),
            detail: "no router takes it".into(),
        })?;
        Ok(table)
    }

    /// Makes the routers anew, by the order of the numbers. An error names what none takes.
    fn rebuild(&mut self) -> Result<(), RowKey> {
        let (mut exchanges, mut bindings) = (Vec::new(), Vec::new());
        for (key, row) in self.rows.iter() {
            match (key, row) {
                (RowKey::Exchange(number), Row::Exchange(row)) => exchanges.push((*number, row.clone())),
                (RowKey::Binding(number), Row::Binding(binding)) => bindings.push((*number, binding.clone())),
                (RowKey::Numbers, Row::Numbers(_)) => {}
                _ => return Err(*key),
            }
        }
        exchanges.sort_unstable_by_key(|(number, _)| *number);
        bindings.sort_unstable_by_key(|(number, _)| *number);
        for (number, row) in exchanges {
            self.enter(ExchangeId(number), &row).map_err(|_| RowKey::Exchange(number))?;
        }
        for (number, binding) in bindings {
            let router = self.router_of(binding.source).ok_or(RowKey::Binding(number))?;
            let bound = router.change(|router| router.bind_as(BindingId(number), binding));
            bound.ok().filter(|new| *new).ok_or(RowKey::Binding(number))?;
        }
        Ok(())
    }

    pub(crate) fn routers(&self) -> &Arc<Routers> {
        &self.routers
    }

    /// An exchange's specification.
    pub(crate) fn spec(&self, namespace: &str, name: &str) -> Option<&Arc<ExchangeSpec>> {
        self.named(namespace, name).map(|row| &row.spec)
    }

    /// Which exchange has a name, and its specification.
    pub(crate) fn declared(&self, namespace: &str, name: &str) -> Option<(ExchangeId, &Arc<ExchangeSpec>)> {
        let id = self.routers.get(namespace)?.read().ok()?.exchange(name)?;
        self.row(id).map(|row| (id, &row.spec))
    }

    /// Whether one is gone of all that there ever were.
    pub(crate) fn has_lost_any(&self) -> bool {
        match self.rows.get(&RowKey::Numbers) {
            Some(Row::Numbers(numbers)) => numbers.exchange != self.exchanges as u64,
            _ => false,
        }
    }

    /// Whether an exchange that had this name and this number was there, and is not any more.
    pub(crate) fn is_gone(&self, namespace: &str, name: &str, id: ExchangeId) -> bool {
        let Some(Row::Numbers(numbers)) = self.rows.get(&RowKey::Numbers) else { return false };
        id.0 <= numbers.exchange && self.declared(namespace, name).is_none_or(|(there, _)| there != id)
    }

    /// The front end that made an exchange.
    pub(crate) fn made_by(&self, namespace: &str, name: &str) -> Option<FrontendNo> {
        self.named(namespace, name).map(|row| row.made_by)
    }

    fn named(&self, namespace: &str, name: &str) -> Option<&ExchangeRow> {
        let id = self.routers.get(namespace)?.read().ok()?.exchange(name)?;
        self.row(id)
    }

    /// Whether there never was one.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many exchanges there are, and what they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.exchanges, self.exchange_bytes)
    }

    /// How many rows there are of exchanges and of bindings.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> (usize, usize) {
        let of = |wanted: fn(&Row) -> bool| self.rows.iter().filter(|(_, row)| wanted(row)).count();
        (of(|row| matches!(row, Row::Exchange(_))), of(|row| matches!(row, Row::Binding(_))))
    }

    /// # Errors
    /// It is none that this version can read: then nothing has changed.
    pub(crate) fn apply(&mut self, entry: &EntryView<'_>, catalog: &Catalog) -> Result<Outcome, EntryError> {
        let outcome = match entry.kind {
            kind::EXCHANGE_DECLARED => applied(entry, |body: ExchangeDeclared| self.declare(body)),
            kind::EXCHANGE_DELETED => applied(entry, |body: ExchangeDeleted| self.delete(&body)),
            kind::EXCHANGE_BOUND => applied(entry, |body: ExchangeBound| self.bind(body, catalog)),
            kind::EXCHANGE_UNBOUND => applied(entry, |body: ExchangeUnbound| self.unbind(body, catalog)),
            _ => Err(EntryError::unknown(entry)),
        };
        outcome.map_err(|source| EntryError::In { name: Self::NAME, source: source.into() })
    }

    /// A topic was deleted: so are the bindings to it, and exchanges that go with their last binding.
    pub(crate) fn topic_deleted(&mut self, deleted: &Topic) {
        let Some(router) = self.routers.get(&deleted.namespace) else { return };
        let removed = router.change(|router| router.remove_target(RouteTarget::Topic(deleted.id)));
        self.forget(removed);
    }

    /// A node started: what was to last till then goes.
    pub(crate) fn started(&mut self) {
        while let Some(id) = self.transient.pop_first() {
            let Some(router) = self.router_of(id) else { continue };
            // One that went with another's last binding is not there any more.
            let removed = router.change(|router| router.delete(id, false)).unwrap_or_default();
            self.forget(removed);
        }
    }

    pub(super) fn declare(&mut self, body: ExchangeDeclared) -> Result<(), ExchangeError> {
        let (namespace, router) = self.routers.enter(&body.namespace);
        let there = router.read()?.exchange(&body.name);
        if let Some(id) = there {
            let held = self.row(id).ok_or(ExchangeError::Default)?;
            return alike(&held.name, &held.spec, &body.spec);
        }
        let number = self.numbers().exchange + 1;
        let (name, spec) = (body.name.into(), Arc::new(body.spec));
        let row = ExchangeRow { namespace, name, made_by: body.made_by, spec };
        self.enter(ExchangeId(number), &row)?;
        self.numbers().exchange = number;
        self.rows.insert(RowKey::Exchange(number), Row::Exchange(row));
        Ok(())
    }

    /// Has an exchange route.
    fn enter(&mut self, id: ExchangeId, row: &ExchangeRow) -> Result<(), ExchangeError> {
        let (_, router) = self.routers.enter(&row.namespace);
        let declared = router.change(|router| router.declare_as(id, &row.name, row.spec.settings()));
        declared.map_err(|error| ExchangeError::declare(&row.name, error))?;
        self.exchanges += 1;
        self.exchange_bytes += row.bytes();
        if !row.spec.durable {
            self.transient.insert(id);
        }
        Ok(())
    }

    fn delete(&mut self, body: &ExchangeDeleted) -> Result<(), ExchangeError> {
        let (router, id) = self.find(&body.namespace, &body.name)?;
        let removed = router.change(|router| router.delete(id, body.if_unused));
        self.forget(removed.map_err(|error| ExchangeError::delete(&body.name, error))?);
        Ok(())
    }

    pub(super) fn bind(&mut self, body: ExchangeBound, catalog: &Catalog) -> Result<(), ExchangeError> {
        let ExchangeBound { namespace, binding } = body;
        let (router, source) = self.find(&namespace, &binding.source)?;
        let destination = self.destination(&namespace, &binding.destination, catalog)?;
        let named = binding.source.clone();
        let binding = Arc::new(resolved(binding, source, destination));
        let number = self.numbers().binding + 1;
        let bound = router.change(|router| router.bind_as(BindingId(number), binding.clone()));
        if bound.map_err(|error| ExchangeError::bind(&named, error))? {
            self.numbers().binding = number;
            self.rows.insert(RowKey::Binding(number), Row::Binding(binding));
        }
        Ok(())
    }

    /// To take away what is not there is no error, whatever of it is not there.
    fn unbind(&mut self, body: ExchangeUnbound, catalog: &Catalog) -> Result<(), ExchangeError> {
        let ExchangeUnbound { namespace, binding } = body;
        if binding.source.is_empty() {
            return Err(ExchangeError::Default);
        }
        let Ok((router, source)) = self.find(&namespace, &binding.source) else { return Ok(()) };
        let destination = self.destination(&namespace, &binding.destination, catalog);
        let Ok(destination) = destination else { return Ok(()) };
        let binding = resolved(binding, source, destination);
        let removed = router.change(|router| router.unbind(&binding));
        self.forget(removed.map_err(|error| ExchangeError::bind("", error))?);
        Ok(())
    }

    /// Whether a binding is there.
    pub(super) fn has_binding(
        &self,
        namespace: &str,
        binding: &NamedBinding,
        catalog: &Catalog,
    ) -> Result<bool, ExchangeError> {
        let (router, source) = self.find(namespace, &binding.source)?;
        let destination = self.destination(namespace, &binding.destination, catalog)?;
        Ok(router.read()?.has_binding(&resolved(binding.clone(), source, destination)))
    }

    fn find(&self, namespace: &str, name: &str) -> Result<(Arc<NamespaceRouter>, ExchangeId), ExchangeError> {
        if name.is_empty() {
            return Err(ExchangeError::Default);
        }
        let unknown = || ExchangeError::Unknown(name.into());
        let router = self.routers.get(namespace).ok_or_else(unknown)?;
        let id = router.read()?.exchange(name).ok_or_else(unknown)?;
        Ok((router, id))
    }

    fn destination(
        &self,
        namespace: &str,
        destination: &NamedDestination,
        catalog: &Catalog,
    ) -> Result<Destination, ExchangeError> {
        match destination {
            NamedDestination::Exchange(name) => {
                self.find(namespace, name).map(|(_, id)| Destination::Exchange(id))
            }
            NamedDestination::Queue(name) => match catalog.topic_named(namespace, name) {
                None => Err(ExchangeError::UnknownQueue((**name).into())),
                Some(found) if is_routed_to(found) => Ok(topic(found.id)),
                Some(_) => Err(ExchangeError::Internal((**name).into())),
            },
        }
    }

    fn numbers(&mut self) -> &mut Numbers {
        let row = self.rows.get_or_insert_with(RowKey::Numbers, || Row::Numbers(Numbers::default()));
        match row {
            Row::Numbers(numbers) => numbers,
            _ => unreachable!("a row is what its key says: restoring has looked at each"),
        }
    }

    fn row(&self, id: ExchangeId) -> Option<&ExchangeRow> {
        match self.rows.get(&RowKey::Exchange(id.0)) {
            Some(Row::Exchange(row)) => Some(row),
            _ => None,
        }
    }

    fn router_of(&self, id: ExchangeId) -> Option<Arc<NamespaceRouter>> {
        self.routers.get(&self.row(id)?.namespace)
    }

    /// Lets go of the rows of what a router let go of.
    fn forget(&mut self, removed: Removed) {
        for (id, _) in removed.exchanges {
            self.transient.remove(&id);
            if let Some(Row::Exchange(row)) = self.rows.remove(&RowKey::Exchange(id.0)) {
                self.exchanges -= 1;
                self.exchange_bytes -= row.bytes();
                if row.spec.delayed {
                    self.routers.delays_gone.note();
                }
            }
        }
        removed.bindings.iter().for_each(|(id, _)| drop(self.rows.remove(&RowKey::Binding(id.0))));
    }
}

fn resolved(binding: NamedBinding, source: ExchangeId, destination: Destination) -> Binding {
    let NamedBinding { key, syntax, arguments, .. } = binding;
    Binding { source, destination, key: key.into(), syntax, arguments }
}

impl Projection for ExchangeTable {
    fn maps(&mut self) -> Vec<&mut dyn PageMap> {
        vec![&mut self.rows]
    }
}
