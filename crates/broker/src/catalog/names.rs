//! Which topic has a name, and which names are alike.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use sabir_model::TopicId;

use super::view::Topic;

/// The names of all topics, by namespace; follows from the topics.
#[derive(Debug, Default)]
pub(super) struct Names {
    namespaces: FxHashMap<Arc<str>, NamesOfOne>,
}

#[derive(Debug, Default)]
struct NamesOfOne {
    ids: FxHashMap<Arc<str>, TopicId>,
    /// The names with `.` or `_` in them.
    alike: FxHashMap<Alike, Vec<Arc<str>>>,
}

impl Names {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<TopicId> {
        self.namespaces.get(namespace)?.ids.get(name).copied()
    }

    /// A topic's name that differs from this one in `.` and `_` alone.
    pub(super) fn alike(&self, namespace: &str, name: &str) -> Option<&Arc<str>> {
        let alike = Alike::new(&name.into())?;
        self.namespaces.get(namespace)?.alike.get(&alike)?.iter().find(|other| ***other != *name)
    }

    pub(super) fn insert(&mut self, topic: &Topic) {
        let names = self.namespaces.entry(topic.namespace.clone()).or_default();
        names.ids.insert(topic.name.clone(), topic.id);
        if let Some(alike) = Alike::new(&topic.name) {
            names.alike.entry(alike).or_insert_with(|| Vec::with_capacity(1)).push(topic.name.clone());
        }
    }

    pub(super) fn remove(&mut self, topic: &Topic) {
        let Some(names) = self.namespaces.get_mut(&topic.namespace) else { return };
        names.ids.remove(&topic.name);
        let Some(alike) = Alike::new(&topic.name) else { return };
        if let Some(all) = names.alike.get_mut(&alike) {
            all.retain(|name| *name != topic.name);
            if all.is_empty() {
                names.alike.remove(&alike);
            }
        }
    }
}

/// A name in which `.` and `_` are the same.
#[derive(Debug, Clone)]
struct Alike(Arc<str>);

impl Alike {
    /// `None` for a name that has neither, and so is like no other.
    fn new(name: &Arc<str>) -> Option<Self> {
        name.contains(['.', '_']).then(|| Self(name.clone()))
    }

    fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.bytes().map(|byte| if byte == b'.' { b'_' } else { byte })
    }
}

impl PartialEq for Alike {
    fn eq(&self, other: &Self) -> bool {
        self.bytes().eq(other.bytes())
    }
}

impl Eq for Alike {}

impl Hash for Alike {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().for_each(|byte| state.write_u8(byte));
    }
}

#[cfg(test)]
mod tests {
    use sabir_model::{FrontendNo, TopicConfig, ValidConfig};

    use super::*;

    fn topic(name: String) -> Topic {
        Topic {
            id: TopicId([1; 16]),
            name: name.into(),
            namespace: "/".into(),
            version: 1,
            config: ValidConfig::trusted(TopicConfig::default()),
            partitions: Vec::new(),
            internal: false,
            made_by: FrontendNo::NONE,
            traffic: Default::default(),
        }
    }

    /// Were it a scan, this would take minutes.
    #[test]
    fn among_a_hundred_thousand_names_one_is_found_at_once() {
        let mut names = Names::default();
        let all: Vec<Topic> = (0..100_000).map(|i| topic(format!("orders.{i}_eu"))).collect();
        for topic in &all {
            assert_eq!(names.alike("/", &topic.name), None);
            names.insert(topic);
        }
        for topic in &all {
            assert_eq!(names.alike("/", &topic.name), None, "a name is not like itself");
            assert_eq!(names.alike("/", &topic.name.replace('.', "_")), Some(&topic.name));
            assert_eq!(names.alike("other", &topic.name.replace('.', "_")), None);
        }
        all.iter().for_each(|topic| names.remove(topic));
        let namespace = &names.namespaces["/"];
        assert!(namespace.ids.is_empty() && namespace.alike.is_empty());
    }
}
