//! Which version of each API both sides know.

use crate::wire::api::coded_versions;
use crate::wire::messages::api_versions::ApiVersionsResponse;
use crate::wire::messages::metadata::MetadataRequest;
use crate::wire::{ApiKey, RequestMessage};

use super::error::Error;

/// The first metadata that shows topics' ids.
const METADATA_WITH_IDS: i16 = 10;
/// The last versions that name topics rather than give their ids.
const LAST_BY_NAME: [(ApiKey, i16); 4] =
    [(ApiKey::Produce, 12), (ApiKey::Fetch, 12), (ApiKey::OffsetCommit, 9), (ApiKey::OffsetFetch, 9)];

/// The versions that a broker offers.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    /// (key, lowest, highest), as the broker listed them.
    offered: Vec<(i16, i16, i16)>,
    caps: Vec<(ApiKey, i16)>,
}

impl Versions {
    pub(super) fn unknown() -> Self {
        Self::default()
    }

    pub(super) fn new(response: &ApiVersionsResponse, caps: &[(ApiKey, i16)]) -> Self {
        let offered = response.api_keys.iter().map(|a| (a.api_key, a.min_version, a.max_version)).collect();
        let mut versions = Self { offered, caps: caps.to_vec() };
        if versions.of::<MetadataRequest>().is_ok_and(|version| version < METADATA_WITH_IDS) {
            versions.caps.extend(LAST_BY_NAME);
        }
        versions
    }

    /// The highest version of ours under the caps.
    pub(super) fn capped<R: RequestMessage>(&self, caps: &[(ApiKey, i16)]) -> i16 {
        let caps = caps.iter().filter(|(api, _)| *api == R::KEY).map(|(_, cap)| *cap);
        caps.fold(*R::VERSIONS.end(), i16::min)
    }

    /// What the broker offers of an API.
    pub fn offered(&self, api: ApiKey) -> Option<(i16, i16)> {
        let found = self.offered.iter().find(|(key, ..)| *key == api as i16);
        found.map(|&(_, low, high)| (low, high))
    }

    /// Every API that the broker offers: (key, lowest, highest).
    pub fn all(&self) -> &[(i16, i16, i16)] {
        &self.offered
    }

    /// The version to use for a request: the highest that both know.
    ///
    /// # Errors
    /// There is none.
    pub fn of<R: RequestMessage>(&self) -> Result<i16, Error> {
        let unsupported = |offered| Error::Unsupported { api: R::KEY, offered };
        let offered = self.offered(R::KEY).ok_or(unsupported(None))?;
        let version = self.capped::<R>(&self.caps).min(offered.1);
        let lowest = coded_versions(R::KEY).map_or(i16::MAX, |ours| *ours.start()).max(offered.0);
        if version < lowest { Err(unsupported(Some(offered))) } else { Ok(version) }
    }
}
