//! Namespaces: what keeps the topics and groups of one use of a node apart from those of another.

use std::fmt;
use std::sync::Arc;

use sabir_base::crc::crc32c;

use crate::ShardId;

/// The name of the namespace that names without another one belong to.
pub const DEFAULT_NAMESPACE: &str = "/";

/// A namespace's name. Cheap to clone; that of the default one takes no memory.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Namespace(Option<Arc<str>>);

impl Namespace {
    /// The one that names without another one belong to.
    pub const DEFAULT: Self = Self(None);
    /// The longest name, in bytes. Other names have up to 1,024: the page key of a group has its namespace's length in one byte, and room for one long
    /// name, the group's.
    pub const MOST: usize = 255;

    /// The namespace of that name; `None` if none can have it: it has 1 to 255 bytes and no control characters.
    pub fn named(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && name.len() <= Self::MOST && !name.contains(char::is_control);
        fits.then(|| Self((name != DEFAULT_NAMESPACE).then(|| name.into())))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }

    /// Its home: the shard of its groups, and of its topics of one partition, where there are so many data shards. That of the default
    /// namespace is the first. What is stored relies on it, so that it stays as it is.
    pub fn home(&self, data_shards: u32) -> ShardId {
        match &self.0 {
            None => ShardId(1),
            Some(name) => ShardId(1 + crc32c(name.as_bytes()) % data_shards.max(1)),
        }
    }

    /// Whether it is the default one.
    pub fn is_default(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_name_and_the_default_one_has_no_second_form() {
        assert_eq!(Namespace::named("/"), Some(Namespace::DEFAULT));
        assert_eq!(Namespace::DEFAULT.as_str(), "/");
        let named = Namespace::named("orders").unwrap();
        assert_eq!((named.as_str(), named.is_default()), ("orders", false));
        for name in ["", "a\nb", &"x".repeat(256)] {
            assert_eq!(Namespace::named(name), None, "{name:?}");
        }
        assert!(Namespace::named(&"x".repeat(255)).is_some());
    }

    #[test]
    fn a_namespace_s_home_is_for_good() {
        let homes = |name: &str| [1, 2, 3, 8].map(|n| Namespace::named(name).unwrap().home(n).0);
        assert_eq!(homes("/"), [1, 1, 1, 1]);
        assert_eq!(homes("orders"), [1, 1, 3, 3]);
        let used: std::collections::BTreeSet<_> =
            (0..100).map(|i| Namespace::named(&format!("n{i}")).unwrap().home(3).0).collect();
        assert_eq!(used.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
