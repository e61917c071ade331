//! The file in which a data directory says that it was made, and as what. Shards may be file systems of their own: where none is there and this
//! file is, they are not mounted, and nothing is made in their place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sabir_base::crc::crc32c;
use tracing::warn;

use crate::options::StartError;

/// The file's name; what is written before it is renamed has the other one.
pub(crate) const NAME: &str = "identity";
pub(crate) const NAME_NEW: &str = "identity.new";

const MAGIC: [u8; 4] = *b"SBRD";
const VERSION: u16 = 1;
const LEN: usize = 64;
const CRC_AT: usize = LEN - 4;

/// What a data directory was made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectoryIdentity {
    pub(crate) cluster: [u8; 16],
    pub(crate) data_shards: u32,
}

impl DirectoryIdentity {
    fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.cluster);
        bytes[24..28].copy_from_slice(&self.data_shards.to_le_bytes());
        let crc = crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let damaged = "it is damaged. If every shard is there, remove it: the next start writes it anew";
        let bytes: &[u8; LEN] = bytes.try_into().map_err(|_| damaged)?;
        let (said, rest) = bytes.split_at(CRC_AT);
        if said[..4] != MAGIC || crc32c(said).to_le_bytes() != rest {
            return Err(damaged);
        }
        if said[4..6] != VERSION.to_le_bytes() {
            return Err("it is of a newer version");
        }
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&said[8..24]);
        let data_shards = u32::from_le_bytes([said[24], said[25], said[26], said[27]]);
        Ok(Self { cluster, data_shards })
    }

    /// What a data directory says; `None` if it was never made, or by a version that did not write it down.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or of a newer version.
    pub(crate) fn read(data: &Path) -> Result<Option<Self>, StartError> {
        let path = data.join(NAME);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read,
        };
        let decoded = read.and_then(|bytes| {
            Self::decode(&bytes).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
        });
        decoded.map(Some).map_err(|source| StartError::Io { op: "read", path, source })
    }

    /// Writes it down durably, whole or not at all. A full disk is no reason not to start: the next start tries again.
    ///
    /// # Errors
    /// Any other one.
    pub(crate) fn write(&self, data: &Path) -> Result<(), StartError> {
        let path = data.join(NAME);
        match self.replace(data, &path) {
            Err(source) if is_shortage(&source) => {
                warn!(path = %path.display(), error = %source, "there is no space to write down that the data directory was made");
                Ok(())
            }
            written => written.map_err(|source| StartError::Io { op: "write", path, source }),
        }
    }

    fn replace(&self, data: &Path, path: &Path) -> io::Result<()> {
        let new = data.join(NAME_NEW);
        // Whatever a link leads to would be overwritten.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(data)?.sync_all()
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: DirectoryIdentity = DirectoryIdentity { cluster: [7; 16], data_shards: 3 };

    #[test]
    fn the_bytes_stay_as_they_are() {
        let mut golden = vec![0; 64];
        golden[..4].copy_from_slice(b"SBRD");
        golden[4] = 1;
        golden[8..24].fill(7);
        golden[24] = 3;
        let crc = crc32c(&golden[..60]).to_le_bytes();
        golden[60..].copy_from_slice(&crc);
        assert_eq!(ONE.encode().to_vec(), golden);
        assert_eq!(DirectoryIdentity::decode(&golden), Ok(ONE));
    }

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(DirectoryIdentity::read(dir.path()).unwrap(), None);
        fs::write(dir.path().join(NAME_NEW), b"left of a crash").unwrap();
        ONE.write(dir.path()).unwrap();
        assert_eq!(DirectoryIdentity::read(dir.path()).unwrap(), Some(ONE));
        let whole = fs::read(dir.path().join(NAME)).unwrap();
        let mut newer = whole.clone();
        newer[4] = 2;
        let crc = crc32c(&newer[..60]).to_le_bytes();
        newer[60..].copy_from_slice(&crc);
        for (bytes, says) in [
            (Vec::new(), "damaged"),
            (whole[..63].to_vec(), "damaged"),
            (vec![0; 64], "damaged"),
            (newer, "newer"),
        ] {
            fs::write(dir.path().join(NAME), bytes).unwrap();
            let error = DirectoryIdentity::read(dir.path()).unwrap_err().to_string();
            assert!(error.contains("identity") && error.contains(says), "{error}");
        }
    }
}
