//! Where values come from, and which of them wins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider, Source};
use sabir_frontend::Protocol;
use sabir_frontend::config::SettingsTable;

use super::{About, ConfigProblem};

/// What the configuration is read from; each wins over those before it.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `section.key=value` that stand in for the built-in defaults; for programs that start a broker for a purpose.
    pub defaults: Vec<String>,
    /// The file, if one is named. It must exist.
    pub file: Option<PathBuf>,
    /// The environment: `SABIR__SECTION__KEY` and everything else there is.
    pub env: Vec<(String, String)>,
    /// `section.key=value`, in the order given.
    pub set: Vec<String>,
    /// `--data`, which stands for `data.dir`.
    pub data: Option<PathBuf>,
}

const ENV_PREFIX: &str = "SABIR__";

/// What the built-in defaults' stand-ins are called.
const DEFAULT: &str = "default";

/// Says where protocols listen of which nothing is said.
const DEFAULT_LISTEN: &str = "net.default_listen";

impl Sources {
    /// The process's environment, a file and flags.
    pub fn from_process(file: Option<PathBuf>, set: Vec<String>) -> Self {
        // A variable that is not Unicode cannot be one of ours: our names and values are text.
        let env =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self { file, env: env.collect(), set, ..Self::default() }
    }

    /// What is said, for these protocols.
    pub(super) fn read(&self, protocols: &[&'static dyn Protocol]) -> Result<Tree, ConfigProblem> {
        let mut tree = self.tree()?;
        tree.turn_off_unsaid(protocols);
        Ok(tree)
    }

    fn tree(&self) -> Result<Tree, ConfigProblem> {
        let mut figment = Figment::new();
        for pair in &self.defaults {
            figment = figment.merge(One::pair(DEFAULT.into(), pair)?);
        }
        if let Some(file) = &self.file {
            // Figment's own words for a file that cannot be read do not name it.
            fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
            // `file_exact`: no parent folder is searched.
            figment = figment.merge(Toml::file_exact(file));
        }
        for (name, value) in &self.env {
            let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
            let path = path.to_lowercase().replace("__", ".");
            figment = figment.merge(One::new(format!("environment variable {name}"), &path, value)?);
        }
        for flag in &self.set {
            figment = figment.merge(One::pair(format!("--set {flag}"), flag)?);
        }
        if let Some(dir) = &self.data {
            let Some(text) = dir.to_str() else {
                let message = format!("--data {}: the path is not Unicode", dir.display());
                return Err(ConfigProblem::of_value(None, message));
            };
            figment = figment.merge(One::text("--data".into(), "data", "dir", text));
        }
        match figment.data() {
            Ok(mut profiles) => {
                Ok(Tree { values: profiles.remove(&Profile::Default).unwrap_or_default(), figment })
            }
            Err(e) => Err(self.read_problem(&e)),
        }
    }

    /// Of all there is, only a file can be written in a way that cannot be read.
    fn read_problem(&self, error: &Error) -> ConfigProblem {
        let file = self.file.as_ref().map(|file| file.display().to_string());
        let source = file.or_else(|| error.metadata.as_ref().map(describe));
        ConfigProblem { source, message: error.kind.to_string().trim().into(), about: About::Syntax }
    }
}

fn unreadable(file: &Path, error: &io::Error) -> ConfigProblem {
    let message = format!("{}: {error}", file.display());
    ConfigProblem { source: None, message, about: About::File(error.kind()) }
}

/// One value by its path.
struct One {
    name: String,
    dict: Dict,
}

impl One {
    fn pair(name: String, pair: &str) -> Result<Self, ConfigProblem> {
        match pair.split_once('=') {
            Some((path, value)) => Self::new(name, path.trim(), value.trim()),
            None => {
                let message = format!("{pair}: write it as section.key=value");
                Err(ConfigProblem::of_value(Some(name), message))
            }
        }
    }

    fn new(name: String, path: &str, text: &str) -> Result<Self, ConfigProblem> {
        let Some((section, key)) = path.split_once('.').filter(|(s, k)| !s.is_empty() && !k.is_empty())
        else {
            let message = format!("{path}: names no key; it takes the form section.key");
            return Err(ConfigProblem::of_value(Some(name), message));
        };
        let value = text.parse::<Value>().unwrap_or_else(|never| match never {});
        Ok(Self::value(name, section, key, value))
    }

    fn text(name: String, section: &str, key: &str, text: &str) -> Self {
        Self::value(name, section, key, Value::from(text))
    }

    fn value(name: String, section: &str, key: &str, value: Value) -> Self {
        let inner = Dict::from([(key.to_owned(), value)]);
        Self { name, dict: Dict::from([(section.to_owned(), Value::from(inner))]) }
    }
}

impl Provider for One {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

/// All values, merged.
pub(super) struct Tree {
    values: BTreeMap<String, Value>,
    figment: Figment,
}

impl Tree {
    /// Has protocols be off of which nothing is said, if that is how it is wanted.
    fn turn_off_unsaid(&mut self, protocols: &[&'static dyn Protocol]) {
        let wanted = self.figment.find_value(DEFAULT_LISTEN).ok();
        if wanted.is_none_or(|wanted| wanted.as_str() != Some("off")) {
            return;
        }
        let keys = |protocol: &&'static dyn Protocol| {
            let name = protocol.name();
            protocol.listeners().into_iter().map(move |listener| (name, listener.listen))
        };
        for (name, key) in protocols.iter().flat_map(keys) {
            let said = self.figment.find_metadata(&format!("{name}.{key}"));
            let section = self.values.entry(name.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, section) = section
                && said.is_none_or(|said| said.name == DEFAULT)
            {
                section.insert(key.into(), Value::from("off"));
            }
        }
    }

    pub fn section_names(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }

    /// A section's values, empty where nothing is said; `None` if it is no table.
    pub fn section(&self, name: &str) -> Option<SettingsTable> {
        let Some(value) = self.values.get(name) else { return Some(SettingsTable::new()) };
        // Figment's values are JSON's and a few kinds of number more.
        match serde_json::to_value(value) {
            Ok(serde_json::Value::Object(table)) => Some(table),
            _ => None,
        }
    }

    /// What said the value at `path`, in words.
    pub fn source(&self, path: &str) -> Option<String> {
        self.figment.find_metadata(path).map(describe)
    }

    /// The same where a value holds that differs from its default: what turned a protocol off that is not spoken of.
    pub fn source_of(&self, path: &str, value: &serde_json::Value) -> Option<String> {
        let off = path.ends_with("listen") && value == "off";
        self.source(path).or_else(|| self.source(DEFAULT_LISTEN).filter(|_| off))
    }
}

fn describe(metadata: &Metadata) -> String {
    match &metadata.source {
        Some(Source::File(path)) => path.display().to_string(),
        _ => metadata.name.to_string(),
    }
}
