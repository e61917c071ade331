//! The reference of all keys, made from the same lists that the configuration is checked against.

use std::fmt::Write;

use sabir_frontend::config::{Setting, SettingsTable};
use sabir_frontend::{ListenerSpec, Protocol};
use serde_json::Value;

use super::sections::{ACCESS, CORE, LISTEN};
use super::tls::{PROTOCOL_TLS, TLS_LISTEN};
use super::{ConfigErrors, Sources};

/// All keys of a protocol's table: first the common ones, then its own.
pub fn protocol_settings(protocol: &dyn Protocol) -> Vec<Setting> {
    let mut all: Vec<_> = protocol.listeners().iter().flat_map(listener_settings).collect();
    all.extend_from_slice(&ACCESS);
    if speaks_tls(protocol) {
        all.extend_from_slice(&PROTOCOL_TLS);
    }
    all.extend_from_slice(protocol.settings());
    all
}

/// Whether it has a listener for TLS.
pub fn speaks_tls(protocol: &dyn Protocol) -> bool {
    protocol.listeners().iter().any(|spec| spec.tls)
}

/// The keys of one of its listeners.
pub fn listener_settings(spec: &ListenerSpec) -> [Setting; 2] {
    let [listen, advertise] = if spec.tls { TLS_LISTEN } else { LISTEN };
    [
        Setting { key: spec.listen, default: spec.default, ..listen },
        Setting { key: spec.advertise, ..advertise },
    ]
}

const HEAD: &str = "\
# Configuration

`sabir serve --config FILE` reads one TOML file; without `--config` (or `SABIR_CONFIG`) every key has its default. What
the file says is overridden by environment variables `SABIR__SECTION__KEY`, and those by `--set section.key=value`:

```sh
sabir serve --config sabir.toml --set admin.listen=127.0.0.1:9192
SABIR__DATA__DURABILITY=os sabir serve
```

A key that is not listed here is an error, and so is a value that cannot be understood: the broker says where it stands and
does not start. `sabir config` prints the values that hold, and where each comes from (`-o toml` as a file that says the same).

Sizes are written `4096`, `64KiB`, `1.5GiB` or `10MB`; lengths of time `250ms`, `30s`, `15m`, `12h` or `7d`.

This page is printed by `sabir config reference`.
";

/// What all those settings come to.
const TAIL: &str = "
## What a client may cost

| a client that | is dropped | counted as `sabir_dropped_connections_total{reason=...}` |
| --- | --- | --- |
| connects and says nothing, or says its first words slowly | `net.handshake_timeout` after it was accepted | `handshake` |
| sends a request slowly, or announces one and never sends it | `net.frame_timeout` after its first byte; while others lack the memory that it keeps, 0.3 s after the last 16 KiB of it | `slow_writer` |
| does not read its answers | `net.write_timeout` after the socket would take no more | `slow_reader` |
| asks for nothing | after `net.idle_timeout`; not while it waits for an answer | `idle` |
| has vanished without a word | after twice `net.keepalive` | `vanished` |
| announces a size that is not positive, or above the protocol's `max_request` | at once | `frame_size` |
| speaks another protocol, such as TLS or HTTP | at once | `foreign` |
| speaks no TLS where that is spoken, or cannot show what `client_auth` asks for | at once, or after `net.handshake_timeout` | `sabir_failed_tls_handshakes_total` |
| sends what cannot be read, or an API or version that is not served | at once | `header`, `body`, `unknown_api`, `unknown_version` |
| sends a batch with `acks=0` that is refused | at once | `refused_unanswered` |
| leaves more unfinished or unread, or asks for more, than there is memory for | at once; a large request waits for memory as long as it may take to arrive | `memory` |
| is one too many | at once | `sabir_refused_connections_total` |

The log names them, too: of each reason at most ten in ten seconds, and then how many were not named; of refused connections one in ten
seconds.

Memory is bounded by the sum of

- `data.tail_cache`, and half as much again while slow readers hold of it what is no longer cached: from a quarter more on they are given copies,
  which `net.frame_memory` counts, and a quarter of it is left to those who keep up; beside it what is not on the disk yet,
  what is read ahead from the disk, a quarter of it or 256 KiB a shard, and what is being read just then, an eighth of it or 2 MiB a shard,
- `net.frame_memory`, for requests under way and unread answers; a quarter of it is kept for what arrives from clients that have sent a whole
  request before; and one batch more (see below),
- a quarter as much for those of them that are no more than 64 KiB: whoever has little under way is not closed for what others have,
- for each connection less than 10 KiB, if nothing is under way, 4 KiB for its channels and consumers where it has any (what more of them take
  `net.frame_memory` counts, up to half of it), and 4 KiB each of a request and of unread answers that are not counted,
- for each I/O thread one request while it is decoded: its arrays take half a MiB at most, and those of a larger one, on a thread of its own,
  32 MiB; `net.frame_memory` counts what more than a few of its elements come to until it is answered,
- five eighths of `net.frame_memory` for what decompresses and compresses batches, a quarter (8 MiB at the least, 256 MiB at the most) of
  which one may take: what comes out of a batch is not held as a whole, but of snappy's and in queues; a window, or what is held, that
  is larger is refused as too large; a level of Zstandard that would take more is done with less,
- what topics, exchanges, partitions, producers and groups there are, as bounded by `topic.max_total_partitions`, `topic.settings_memory`,
  `topic.dedup_memory`, `topic.exchange_memory`, `data.producers`,
  `group.member_memory` and `group.offset_memory`; and `data.open_bytes_max` for each shard's disk,
- what protocols keep of their clients beside that: OF_PROTOCOLS.

What queues know of their messages is beside that, and no setting bounds it; length limits of the queues do (`max-length`). A message that is taken
and settled in its order takes nothing. All others take, until they and those before them are settled: a quarter of a byte behind the
first one that is not settled, once messages behind it are; 16 bytes where a message expires at a moment of its own, 12 where
its size counts for a limit, and none where that is as of the one before; some 50 bytes where a message was given back more often than the one before.
Five million messages that each expire at another moment take 80 MiB.

What is `auto` of these follows the memory that the machine or the control group (of version 1 or 2) has, and from 256 MiB on all of it together
fits. What is set is taken as it is: where that is more than there is, the log of a start and `sabir doctor` name the settings that exceed `auto`. A
directory that holds more partitions than may be made is served all the same, and a start names the setting before it loads them.

A fetch reads for a second at the most, once it has something, and the next one goes on with the partitions that are left. It reads no more at a time
than a quarter of what is left of the other three quarters of `net.frame_memory`, or 64 KiB, or one batch.

A batch that a fetch has no such memory for, or of more than 64 KiB that is read for a consumer of a queue, holds memory of
`net.frame_memory` from before it is read until its client has taken it. So does what it becomes where it is unpacked or rebuilt for its
reader. All readers together have half of that at the most; further ones wait, in the order of asking, and hold none meanwhile: each has its
turn when a client has taken its own, or `net.write_timeout` is over. One of them is held up by no frames: one batch can always be read,
though it be larger than what is left.
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
    page.push_str(&TAIL.replace("OF_PROTOCOLS", &memory_settings(protocols)));
    page
}

/// The settings of protocols that bound memory.
fn memory_settings(protocols: &[&'static dyn Protocol]) -> String {
    let of = |protocol: &&'static dyn Protocol| {
        // It has a default for every key.
        protocol.configure(SettingsTable::default()).map(|configured| configured.memory()).unwrap_or_default()
    };
    let names = protocols.iter().flat_map(of).map(|memory| format!("`{}`", memory.setting));
    names.collect::<Vec<_>>().join(", ")
}

/// A file in which every key stands as a comment, with its default: to copy, and to change what shall be different.
pub fn sample(protocols: &[&'static dyn Protocol]) -> String {
    let mut page = String::from(
        "# A configuration for `sabir serve --config FILE`. Every key stands here with its default: take away the # in front of\n\
         # what shall be different. docs/configuration.md explains more.\n",
    );
    for keys in all(protocols).chunk_by(|a, b| a.0 == b.0) {
        let _ = write!(page, "\n[{}]\n", keys[0].0);
        for (_, setting) in keys {
            page.push('\n');
            comment(&mut page, setting.help);
            let _ = writeln!(page, "#{} = {}", setting.key, setting.default);
        }
    }
    page
}

/// A text as lines of comment that fit a screen.
fn comment(page: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > 100 {
            let _ = writeln!(page, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(page, "{line}");
}

fn section(page: &mut String, name: &str, settings: &[Setting]) {
    // Writing to a String cannot fail.
    let _ = write!(page, "\n## `[{name}]`\n\n| key | default | |\n| --- | --- | --- |\n");
    for s in settings {
        let _ = writeln!(page, "| `{name}.{}` | `{}` | {} |", s.key, s.default, s.help);
    }
}

/// Every key there is, with its section, in the order in which they are shown.
pub fn all(protocols: &[&'static dyn Protocol]) -> Vec<(&'static str, Setting)> {
    let core = CORE.iter().flat_map(|(name, settings)| settings.iter().map(|s| (*name, *s)));
    let of = |p: &&'static dyn Protocol| {
        protocol_settings(*p).into_iter().map(|s| (p.name(), s)).collect::<Vec<_>>()
    };
    core.chain(protocols.iter().flat_map(of)).collect()
}

/// A value that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The section.
    pub section: &'static str,
    /// The key inside it.
    pub key: &'static str,
    /// The value, as it was said.
    pub value: Value,
    /// What holds when nothing is said.
    pub default: Value,
    /// The file, environment variable or flag that said it; none for the default.
    pub source: Option<String>,
}

impl Held {
    /// Section and key.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

/// The values that hold, and where each was said.
///
/// # Errors
/// What is wrong with the configuration.
pub fn effective(sources: &Sources, protocols: &[&'static dyn Protocol]) -> Result<Vec<Held>, ConfigErrors> {
    super::ServerConfig::load(sources, protocols)?;
    let tree = sources.read(protocols).map_err(|problem| ConfigErrors(vec![problem]))?;
    let held = |(section, setting): (&'static str, Setting)| {
        let default = setting.default_value();
        let given = tree.section(section).and_then(|mut table| table.remove(setting.key));
        let source =
            given.as_ref().and_then(|value| tree.source_of(&format!("{section}.{}", setting.key), value));
        Held { section, key: setting.key, value: given.unwrap_or_else(|| default.clone()), default, source }
    };
    Ok(all(protocols).into_iter().map(held).collect())
}

/// Values as a file that would say the same, with the place where each was said.
pub fn toml(held: &[Held]) -> String {
    let mut page = String::new();
    for section in held.chunk_by(|a, b| a.section == b.section) {
        let _ = writeln!(page, "{}[{}]", if page.is_empty() { "" } else { "\n" }, section[0].section);
        for Held { key, value, source, .. } in section {
            // What is a key's value in JSON is one in TOML too: there are no tables or nulls among them.
            let _ = match source {
                None => writeln!(page, "{key} = {value}"),
                Some(source) => writeln!(page, "{key} = {value}  # {source}"),
            };
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_a_configuration_with_and_without_its_comments() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sabir.toml");
        let page = sample(crate::protocols());
        assert!(page.lines().all(|line| line.len() <= 120), "{page}");
        // A comment is `# ` and words; a key is `#` and its name.
        let given: String = page
            .lines()
            .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        for (text, from_file) in [(&page, false), (&given, true)] {
            std::fs::write(&file, text).unwrap();
            let sources = Sources { file: Some(file.clone()), ..Sources::default() };
            let held = effective(&sources, crate::protocols()).unwrap();
            assert_eq!(held.len(), all(crate::protocols()).len());
            for held in held {
                assert_eq!(
                    (&held.value, held.source.is_some()),
                    (&held.default, from_file),
                    "{}",
                    held.path()
                );
            }
        }
    }

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
