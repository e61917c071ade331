//! What TLS is served with: `[tls]`, and what a protocol's table says in its place.

use std::path::PathBuf;

use sabir_frontend::config::{ConfigError, Setting, SettingsTable, parse_table};
use sabir_net::{ClientAuth, TlsOptions};
use serde::Deserialize;

/// `[tls]`: what TLS is served with where a protocol does not say otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// See [`TLS`].
    pub certificate: String,
    /// See [`TLS`].
    pub key: String,
    /// See [`TLS`].
    pub client_ca: String,
    /// See [`TLS`].
    pub client_auth: ClientAuthSetting,
}

impl TlsSection {
    /// The files and what is asked of clients.
    ///
    /// # Errors
    /// The key that names a file which must be there, and does not.
    pub fn options(&self) -> Result<TlsOptions, &'static str> {
        let client_auth = match self.client_auth {
            ClientAuthSetting::None => ClientAuth::None,
            ClientAuthSetting::Wanted => ClientAuth::Wanted,
            ClientAuthSetting::Required => ClientAuth::Required,
        };
        let file = |key, path: &str| if path.is_empty() { Err(key) } else { Ok(PathBuf::from(path)) };
        let client_ca = file("client_ca", &self.client_ca);
        Ok(TlsOptions {
            certificate: file("certificate", &self.certificate)?,
            key: file("key", &self.key)?,
            client_ca: if client_auth == ClientAuth::None { client_ca.ok() } else { Some(client_ca?) },
            client_auth,
        })
    }
}

/// Keys of `[tls]`.
pub const TLS: &[Setting] = &[
    Setting {
        key: "certificate",
        default: "\"\"",
        help: "What is shown to clients that come by a protocol's `tls_listen`: a file in PEM with the certificate, and behind it those \
               between it and the authority's. The files named here are read again when they change, looked at every ten seconds and on \
               SIGHUP; connections that are there go on with what they began with.",
    },
    Setting {
        key: "key",
        default: "\"\"",
        help: "The file with its private key, in PEM: PKCS #8, PKCS #1 or SEC 1.",
    },
    Setting {
        key: "client_ca",
        default: "\"\"",
        help: "The file with the authorities whose certificates clients may show, in PEM.",
    },
    Setting {
        key: "client_auth",
        default: "\"none\"",
        help: "Whether clients have to show a certificate: `none`, they are not asked for one; `wanted`, one that is shown must be good; \
               `required`, without a good one they are refused. Where it is required, `tls_listen` may be an address that other machines \
               reach.",
    },
];

/// The settings of a listener for TLS, as [`LISTEN`](super::sections::LISTEN) has those of another.
pub const TLS_LISTEN: [Setting; 2] = [
    Setting {
        key: "tls_listen",
        default: "\"off\"",
        help: "Where it listens for clients that speak TLS, of version 1.2 or 1.3; `[tls]` says what it is served with. As `listen`.",
    },
    Setting {
        key: "tls_advertise",
        default: "\"auto\"",
        help: "The address that clients are told who came by `tls_listen`. As `advertise`: a name that the certificate is for.",
    },
];

/// The settings of a protocol that has a listener for TLS.
pub const PROTOCOL_TLS: [Setting; 4] = [
    Setting {
        key: "tls_certificate",
        default: "\"auto\"",
        help: "A certificate for this protocol alone; `auto` is `tls.certificate`.",
    },
    Setting { key: "tls_key", default: "\"auto\"", help: "Its private key; `auto` is `tls.key`." },
    Setting {
        key: "tls_client_ca",
        default: "\"auto\"",
        help: "The authorities of this protocol's clients; `auto` is `tls.client_ca`.",
    },
    Setting {
        key: "tls_client_auth",
        default: "\"auto\"",
        help: "Whether this protocol's clients have to show a certificate; `auto` is `tls.client_auth`.",
    },
];

/// What a protocol says where the node's value holds.
const AUTO: &str = "auto";

/// What a protocol's TLS is served with: what its table says, and where that is `auto` what `node` does, the section of that name, which is good. What
/// the table says of it is taken out.
///
/// # Errors
/// What is wrong, by the protocol's own key.
pub fn of_protocol(
    name: &str,
    own: &mut SettingsTable,
    node: &SettingsTable,
) -> Result<TlsSection, ConfigError> {
    let mut table = SettingsTable::new();
    for (setting, of_node) in PROTOCOL_TLS.iter().zip(TLS) {
        let said = own.remove(setting.key).filter(|said| said.as_str() != Some(AUTO));
        let value = said.or_else(|| node.get(of_node.key).cloned());
        table.extend(value.map(|value| (of_node.key.to_owned(), value)));
    }
    let called = |error: ConfigError| {
        let own = TLS.iter().position(|of_node| of_node.key == error.key).map(|at| PROTOCOL_TLS[at].key);
        ConfigError { key: own.map_or(error.key, str::to_owned), ..error }
    };
    parse_table(name, table, TLS).map_err(called)
}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthSetting {
    /// They are not asked.
    None,
    /// They are asked.
    Wanted,
    /// They have to.
    Required,
}
