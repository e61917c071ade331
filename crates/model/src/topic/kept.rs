//! Settings that change nothing here and are kept for clients that ask for them.

/// Names and values, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeptSettings(Vec<(Box<str>, Box<str>)>);

/// What a setting takes beside its texts, about.
const ENTRY: usize = size_of::<(Box<str>, Box<str>)>() + 2 * 16;

impl KeptSettings {
    /// The memory that they take, about.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| ENTRY + name.len() + value.len()).sum()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value kept under a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.find(name).ok()?;
        Some(&self.0[at].1)
    }

    /// Keeps a value under a name.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.find(name) {
            Ok(at) => self.0[at].1 = value.into(),
            Err(at) => self.0.insert(at, (name.into(), value.into())),
        }
    }

    /// Keeps nothing under a name.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.0.remove(at);
        }
    }

    /// Sorted, so that two configurations that say the same are the same.
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TopicConfig;

    #[test]
    fn what_is_kept_is_kept_once_by_name() {
        let mut config = TopicConfig::default();
        let kept = &mut config.kept;
        kept.set("b", "1");
        kept.set("a", "2");
        kept.set("b", "3");
        assert_eq!((kept.get("a"), kept.get("b"), kept.get("c")), (Some("2"), Some("3"), None));
        assert_eq!(kept.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "3")]);
        assert_eq!(kept.bytes(), 2 * ENTRY + 4);
        kept.remove("b");
        kept.remove("a");
        assert_eq!(config, TopicConfig::default());
    }
}
