//! The reference of all keys, made from the same lists that the configuration is checked against.

use std::fmt::Write;

use sabir_net::config::Setting;
use sabir_net::protocol::Protocol;

use super::sections::{CORE, LISTEN};
use super::sources::Tree;
use super::{ConfigErrors, Sources};

/// All keys of a protocol's table: first the common ones, then its own.
pub fn protocol_settings(protocol: &dyn Protocol) -> Vec<Setting> {
    let mut all = LISTEN.to_vec();
    all[0].default = protocol.default_listen();
    all.extend_from_slice(protocol.settings());
    all
}

const HEAD: &str = "\
# Configuration

`sabir serve --config FILE` reads one TOML file; without `--config` (or `SABIR_CONFIG`) every key has its default. What
the file says is overridden by environment variables `SABIR__SECTION__KEY`, and those by `--set section.key=value`:

```sh
sabir serve --config sabir.toml --set kafka.listen=127.0.0.1:9192
SABIR__DATA__DURABILITY=os sabir serve
```

A key that is not listed here is an error, and so is a value that cannot be understood: the broker says where it stands and
does not start. `sabir config show` prints the values that hold, and where each comes from.

Sizes are written `4096`, `64KiB`, `1.5GiB` or `10MB`; lengths of time `250ms`, `30s`, `15m`, `12h` or `7d`.

This page is printed by `sabir config reference`.
";

/// The reference page, in Markdown.
pub fn markdown(protocols: &[&'static dyn Protocol]) -> String {
    let mut page = String::from(HEAD);
    for (name, settings) in CORE {
        section(&mut page, name, settings);
    }
    for protocol in protocols {
        section(&mut page, protocol.name(), &protocol_settings(*protocol));
    }
    page
}

fn section(page: &mut String, name: &str, settings: &[Setting]) {
    // Writing to a String cannot fail.
    let _ = write!(page, "\n## `[{name}]`\n\n| key | default | |\n| --- | --- | --- |\n");
    for s in settings {
        let _ = writeln!(page, "| `{name}.{}` | `{}` | {} |", s.key, s.default, s.help);
    }
}

/// The values that hold, as a file that would say the same, with the place where each was said.
pub fn effective(sources: &Sources, protocols: &[&'static dyn Protocol]) -> Result<String, ConfigErrors> {
    super::Config::load(sources, protocols)?;
    let tree = sources.read().map_err(|problem| ConfigErrors(vec![problem]))?;
    let mut page = String::new();
    for (name, settings) in CORE {
        values(&mut page, &tree, name, settings);
    }
    for protocol in protocols {
        values(&mut page, &tree, protocol.name(), &protocol_settings(*protocol));
    }
    Ok(page)
}

fn values(page: &mut String, tree: &Tree, name: &str, settings: &[Setting]) {
    let said = tree.section(name).unwrap_or_default();
    let _ = writeln!(page, "{}[{name}]", if page.is_empty() { "" } else { "\n" });
    for s in settings {
        // What is a key's value in JSON is one in TOML too: there are no tables or nulls among them.
        let _ = match said.get(s.key) {
            None => writeln!(page, "{} = {}", s.key, s.default),
            Some(value) => {
                let source = tree.source(&format!("{name}.{}", s.key)).unwrap_or_default();
                writeln!(page, "{} = {value}  # {source}", s.key)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_values_and_keys_are_unique() {
        for (name, settings) in CORE {
            for (i, s) in settings.iter().enumerate() {
                s.default_value();
                assert!(settings[..i].iter().all(|o| o.key != s.key), "{name}.{} stands twice", s.key);
            }
        }
    }
}
