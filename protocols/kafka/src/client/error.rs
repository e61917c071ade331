//! Why a request of the client failed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sabir_model::batch::BatchError;

use crate::wire::{ApiKey, ErrorCode, WireError};

/// A request that failed. Cheap to clone: one broken connection fails many requests.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No server answers there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The address tried.
        address: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The broker does not answer where it says that it is.
    #[error("{reason}; {address} is the address that the broker tells its clients")]
    Advertised {
        /// The address that the broker told.
        address: String,
        /// Why it cannot be reached.
        reason: Arc<Error>,
    },
    /// The connection ended before the answer came.
    #[error("the connection to {address} is closed: {reason}")]
    Closed {
        /// The other end.
        address: String,
        /// Why.
        reason: Arc<str>,
    },
    /// No answer in time.
    #[error("no answer to {what} after {after:?}")]
    Timeout {
        /// What was asked for.
        what: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The answer is not what it should be.
    #[error("the answer to {api} makes no sense: {source}")]
    Wire {
        /// What was asked for.
        api: ApiKey,
        /// What is wrong with it.
        source: WireError,
    },
    /// The broker answered with an error.
    #[error("{api}: {code}{}", detail(.message))]
    Broker {
        /// What was asked for.
        api: ApiKey,
        /// The broker's error.
        code: ErrorCode,
        /// What it is about, or what the broker said beside its code.
        message: String,
    },
    /// The broker and this client have no version of an API in common.
    #[error("the broker has no version of {api} that this client knows (it offers {offered:?})")]
    Unsupported {
        /// The API.
        api: ApiKey,
        /// The broker's versions of it, if it has any.
        offered: Option<(i16, i16)>,
    },
    /// Records that cannot be read.
    #[error("records of {topic}-{partition} cannot be read: {source}")]
    Records {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What is wrong with them.
        source: BatchError,
    },
    /// What the caller asked for cannot be.
    #[error("{0}")]
    Usage(String),
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl Error {
    /// `Ok` for code 0, else the broker's error about `message`.
    pub(crate) fn check(api: ApiKey, code: i16, message: impl FnOnce() -> String) -> Result<(), Self> {
        ErrorCode::check(code).map_err(|code| Self::Broker { api, code, message: message() })
    }

    /// The broker's error code, if it answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The same of an address that the broker told, at which no connection is to be had: no server answers there, or another one.
    pub(crate) fn advertised(self, address: &str) -> Self {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Closed { .. } | Self::Wire { .. } => {
                Self::Advertised { address: address.to_owned(), reason: Arc::new(self) }
            }
            other => other,
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn retriable(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code.retriable(),
            Self::Connect { .. } | Self::Closed { .. } | Self::Timeout { .. } => true,
            Self::Advertised { reason, .. } => reason.retriable(),
            Self::Wire { .. } | Self::Unsupported { .. } | Self::Records { .. } | Self::Usage(_) => false,
        }
    }
}
