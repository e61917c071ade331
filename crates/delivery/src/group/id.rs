//! Which group.

use sabir_base::varint::{put_u64, take_u64};
use sabir_model::stored::{DecodeError, put_bytes, take_str, take_u8};
use sabir_model::{FrontendNo, Namespace};

use super::Text;

/// The form of groups that name no front end, in the default namespace: it gives the name alone.
const BARE: u8 = 1;
/// The form of all others.
const OWNED: u8 = 2;

/// A group: two front ends, or two namespaces, may have one of the same name each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId {
    /// The namespace.
    pub namespace: Namespace,
    /// The front end whose group it is. [`FrontendNo::NONE`] is the one that had groups before they named a front end.
    pub front_end: FrontendNo,
    /// Its name.
    pub name: Text,
}

impl GroupId {
    /// Whether its name says all: it is in the default namespace and names no front end.
    pub fn is_bare(&self) -> bool {
        self.namespace.is_default() && self.front_end == FrontendNo::NONE
    }

    /// Appends an entry's form and the group.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if self.is_bare() {
            out.push(BARE);
        } else {
            out.push(OWNED);
            put_u64(out, self.front_end.0.into());
            put_bytes(out, self.namespace.as_str().as_bytes());
        }
        put_bytes(out, self.name.as_bytes());
    }

    /// Takes them off the front of an entry's body.
    ///
    /// # Errors
    /// A newer form, a cut body, what has the first form in the second.
    pub(super) fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match take_u8(input)? {
            BARE => Ok(Self::from(take_str(input)?)),
            OWNED => Self::decode_owned(input),
            form => Err(DecodeError::Version(form)),
        }
    }

    fn decode_owned(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let number = u16::try_from(take_u64(input)?).map_err(|_| DecodeError::Field("front end"))?;
        let namespace = Namespace::named(take_str(input)?).ok_or(DecodeError::Field("namespace"))?;
        let id = Self { namespace, front_end: FrontendNo(number), name: take_str(input)?.into() };
        if id.is_bare() { Err(DecodeError::Field("group")) } else { Ok(id) }
    }
}

impl<T: Into<Text>> From<T> for GroupId {
    /// A group that its name says all of.
    fn from(name: T) -> Self {
        Self { namespace: Namespace::DEFAULT, front_end: FrontendNo::NONE, name: name.into() }
    }
}

impl std::fmt::Display for GroupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}
