//! `sabir config`.

use std::io::Write;
use std::path::PathBuf;

use sabir_server::config::{Sources, reference};
use sabir_server::protocols;
use serde_json::{Value, json};

use crate::args::{ConfigArgs, ConfigCommand, ConfigShow, ConfigShowArgs};
use crate::failure::CliError;
use crate::output::{ConfigFormat, Format, PageFormat, Show, Table, print};

pub fn run(args: ConfigShowArgs) -> Result<(), CliError> {
    match args.verb {
        None => show(args.show),
        Some(ConfigCommand::Show(args)) => show(args),
        Some(ConfigCommand::Reference { output: PageFormat::Markdown }) => {
            Ok(std::io::stdout().write_all(reference::markdown(protocols()).as_bytes())?)
        }
        Some(ConfigCommand::Reference { output: PageFormat::Toml }) => {
            Ok(std::io::stdout().write_all(reference::sample(protocols()).as_bytes())?)
        }
        Some(ConfigCommand::Reference { output: PageFormat::Json }) => Ok(print(Format::Json, &Keys)?),
    }
}

fn show(args: ConfigShow) -> Result<(), CliError> {
    let ConfigShow { serve, output } = args;
    let held = reference::effective(&sources(&serve.config, serve.data), protocols())?;
    match output {
        ConfigFormat::Table => Ok(print(Format::Table, &Effective(held))?),
        ConfigFormat::Json => Ok(print(Format::Json, &Effective(held))?),
        ConfigFormat::Toml => Ok(std::io::stdout().write_all(reference::toml(&held).as_bytes())?),
    }
}

/// Everything that settings come from, `--data` included.
pub fn sources(args: &ConfigArgs, data: Option<PathBuf>) -> Sources {
    let sources = Sources::from_process(args.config.clone(), args.set.clone());
    Sources { data, ..sources }
}

/// The values that hold.
struct Effective(Vec<reference::Held>);

impl Show for Effective {
    fn json(&self) -> Value {
        let one = |h: &reference::Held| json!({"key": h.path(), "value": h.value, "default": h.default, "source": h.source});
        self.0.iter().map(one).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let source = |h: &reference::Held| h.source.clone().unwrap_or_else(|| "default".into());
        let row = |h: &reference::Held| vec![h.path(), h.value.to_string(), source(h)];
        let rows = self.0.iter().map(row).collect();
        vec![Table { title: None, head: vec!["KEY", "VALUE", "FROM"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(reference::Held::path).collect()
    }
}

/// Every key there is.
struct Keys;

impl Show for Keys {
    fn json(&self) -> Value {
        let one = |(section, setting): (&str, sabir_server::config_value::Setting)| {
            json!({"key": format!("{section}.{}", setting.key), "default": setting.default_value(),
                   "help": setting.help})
        };
        reference::all(protocols()).into_iter().map(one).collect()
    }

    fn tables(&self) -> Vec<Table> {
        Vec::new()
    }

    fn names(&self) -> Vec<String> {
        reference::all(protocols()).into_iter().map(|(section, s)| format!("{section}.{}", s.key)).collect()
    }
}
