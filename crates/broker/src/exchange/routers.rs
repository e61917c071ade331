//! The routers of all namespaces, as the projection keeps them and publishes read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use rustc_hash::FxHashMap;
use sabir_model::ShardFailure;
use sabir_routing::{RouteSets, Router, RouterLimits};

use crate::timer::DelaysGone;

/// Bytes of the sets of targets that are shared.
const SET_BYTES: usize = 64 << 20;

/// A namespace's router. It follows from the projection's rows and changes with them, under a lock of its own: a publish waits for one change
/// at the most, and not for a block's.
#[derive(Debug)]
pub(crate) struct NamespaceRouter {
    guarded: RwLock<Guarded>,
    /// Bytes of the bindings of all namespaces.
    all_bytes: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Guarded {
    router: Router,
    /// Whether a change is under way. It is seen to be so only if that panicked: then nothing here is to be believed.
    changing: bool,
}

impl NamespaceRouter {
    fn new(all_bytes: Arc<AtomicUsize>) -> Self {
        // The limits are judged where changes are proposed: what was taken once is taken by every replay.
        let guarded = Guarded { router: Router::new(RouterLimits::NONE), changing: false };
        Self { guarded: RwLock::new(guarded), all_bytes }
    }

    /// # Errors
    /// It is not to be believed.
    pub(super) fn read(&self) -> Result<MappedRwLockReadGuard<'_, Router>, ShardFailure> {
        let guarded = self.guarded.read();
        if guarded.changing {
            return Err(ShardFailure::StorageError);
        }
        Ok(RwLockReadGuard::map(guarded, |guarded| &guarded.router))
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Router) -> T) -> T {
        let mut guarded = self.guarded.write();
        guarded.changing = true;
        let before = guarded.router.binding_bytes();
        let changed = change(&mut guarded.router);
        let after = guarded.router.binding_bytes();
        // What was there before was added before.
        self.all_bytes.fetch_add(after, Relaxed);
        self.all_bytes.fetch_sub(before, Relaxed);
        guarded.changing = false;
        changed
    }
}

/// The routers of all namespaces, and the sets of targets that they share.
#[derive(Debug)]
pub(crate) struct Routers {
    /// None goes: a session that routes keeps one.
    namespaces: RwLock<FxHashMap<Arc<str>, Arc<NamespaceRouter>>>,
    pub(super) sets: Mutex<RouteSets>,
    binding_bytes: Arc<AtomicUsize>,
    /// Exchanges that kept messages back and are gone.
    pub(crate) delays_gone: Arc<DelaysGone>,
}

impl Default for Routers {
    fn default() -> Self {
        let sets = Mutex::new(RouteSets::new(SET_BYTES));
        let (binding_bytes, delays_gone) = (Arc::default(), Arc::default());
        Self { namespaces: RwLock::default(), sets, binding_bytes, delays_gone }
    }
}

impl Routers {
    /// What the bindings of all namespaces take.
    pub(super) fn binding_bytes(&self) -> usize {
        self.binding_bytes.load(Relaxed)
    }

    pub(super) fn get(&self, namespace: &str) -> Option<Arc<NamespaceRouter>> {
        self.namespaces.read().get(namespace).cloned()
    }

    /// A namespace's, made if there is none, and the namespace's name.
    pub(super) fn enter(&self, namespace: &str) -> (Arc<str>, Arc<NamespaceRouter>) {
        if let Some((name, router)) = self.namespaces.read().get_key_value(namespace) {
            return (name.clone(), router.clone());
        }
        let (name, router): (Arc<str>, _) =
            (namespace.into(), Arc::new(NamespaceRouter::new(self.binding_bytes.clone())));
        self.namespaces.write().insert(name.clone(), router.clone());
        (name, router)
    }
}
