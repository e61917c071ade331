//! What can be said of publishing, or of a load, in one protocol, which declares the options: the command line knows none of them.

/// An option of a protocol's client, as a user gives it by name.
#[derive(Debug, Clone, Copy)]
pub struct ClientOption {
    /// Its name: lower case, words joined by hyphens.
    pub name: &'static str,
    /// What its value is called in help; none for an option that is there or not, which is `true` or `false`.
    pub value: Option<&'static str>,
    /// What holds where it is not given.
    pub default: &'static str,
    /// What it does, in a line.
    pub help: &'static str,
    /// Whether a value can be taken; the error says what would be right.
    pub check: fn(&str) -> Result<(), String>,
}

/// The options that were given, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientOptions(Vec<(&'static str, String)>);

impl ClientOptions {
    /// Notes the value of an option.
    pub fn set(&mut self, option: &ClientOption, value: impl Into<String>) {
        self.0.retain(|(name, _)| *name != option.name);
        self.0.push((option.name, value.into()));
    }

    /// The value of an option: what was given, else its default.
    pub fn get(&self, option: &ClientOption) -> &str {
        let given = self.0.iter().find(|(name, _)| *name == option.name);
        given.map_or(option.default, |(_, value)| value)
    }

    /// The names of the options that were given.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_last_holds_and_else_the_default() {
        let option = |name| ClientOption { name, value: None, default: "no", help: "", check: |_| Ok(()) };
        let mut given = ClientOptions::default();
        given.set(&option("a"), "1");
        given.set(&option("a"), "2");
        assert_eq!((given.get(&option("a")), given.get(&option("b"))), ("2", "no"));
        assert_eq!(given.names().collect::<Vec<_>>(), ["a"]);
        let mut same = ClientOptions::default();
        same.set(&option("a"), "2");
        assert_eq!(given, same);
    }
}
