//! Where a message goes, and whether a consumer wants it: exchanges, bindings, wildcards, tags and selectors, as pure functions of what
//! they are given. No clock, no randomness that a result depends on, no I/O.
#![deny(missing_docs)]

mod argument;
mod binding;
mod cache;
mod counted_set;
mod exchange;
mod hash_ring;
mod header_rule;
mod publication;
mod resolve;
mod route_set;
mod router;
pub mod selector;
mod tags;
pub mod trie;
mod words;

pub use argument::{Argument, ArgumentRef, ArgumentValue, Arguments};
pub use binding::{Binding, BindingId, Destination};
pub use cache::RouteCache;
pub use exchange::{ExchangeId, ExchangeKind, ExchangeSettings, InvalidBinding};
pub use hash_ring::{HashOn, MAX_WEIGHT};
pub use publication::{Attributes, HashedProperty, NoAttributes, Publication, QueueNames};
pub use resolve::{ResolveError, ResolveScratch};
pub use route_set::{RouteSet, RouteSetId, RouteSets, RouteTarget, SessionNo};
pub use router::{BindingError, DeclareError, ExchangeDeleteError, Removed, Router, RouterLimits};
pub use tags::{TagError, TagFilter, tag_hash};
pub use words::{KeyError, KeySyntax, MAX_KEY_BYTES, MAX_WORDS, swap_separators};
