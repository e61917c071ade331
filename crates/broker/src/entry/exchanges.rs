//! Entries about exchanges and bindings.

use sabir_model::{DecodeError, FrontendNo};

use super::{Body, kind};
use crate::codec::{Reader, put_str, put_u32};
use crate::exchange::{ExchangeError, ExchangeSpec, NamedBinding};

/// An exchange made, if there is none of the name: version 2 · namespace · name · origin, which version 1 did not have · specification. Refused beside
/// one that is not alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExchangeDeclared {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The front end that makes it.
    pub(crate) made_by: FrontendNo,
    pub(crate) spec: ExchangeSpec,
}

impl Body for ExchangeDeclared {
    const KIND: u16 = kind::EXCHANGE_DECLARED;
    type Outcome = Result<(), ExchangeError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(2);
        put_str(out, &self.namespace);
        put_str(out, &self.name);
        put_u32(out, self.made_by.0.into());
        self.spec.put(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let form = input.u8()?;
        if !(1..=2).contains(&form) {
            return Err(DecodeError::Version(form));
        }
        let (namespace, name) = (input.str()?.to_owned(), input.str()?.to_owned());
        let made_by = if form == 1 { FrontendNo::NONE } else { input.front_end()? };
        let body = Self { namespace, name, made_by, spec: ExchangeSpec::take(&mut input)? };
        input.end()?;
        Ok(body)
    }
}

/// An exchange deleted, with the bindings from it and to it: version 1 · namespace · name · whether only without bindings u8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExchangeDeleted {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) if_unused: bool,
}

impl Body for ExchangeDeleted {
    const KIND: u16 = kind::EXCHANGE_DELETED;
    type Outcome = Result<(), ExchangeError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_str(out, &self.namespace);
        put_str(out, &self.name);
        out.push(self.if_unused.into());
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let (namespace, name) = (input.str()?.to_owned(), input.str()?.to_owned());
        let body = Self { namespace, name, if_unused: input.bool("condition")? };
        input.end()?;
        Ok(body)
    }
}

/// A binding made, unless it is there: version 1 · namespace · binding, by names. They stand for what has them when this is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExchangeBound {
    pub(crate) namespace: String,
    pub(crate) binding: NamedBinding,
}

impl Body for ExchangeBound {
    const KIND: u16 = kind::EXCHANGE_BOUND;
    type Outcome = Result<(), ExchangeError>;

    fn encode(&self, out: &mut Vec<u8>) {
        put_binding(out, &self.namespace, &self.binding);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        take_binding(bytes).map(|(namespace, binding)| Self { namespace, binding })
    }
}

/// A binding taken away, if it is there: as [`ExchangeBound`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExchangeUnbound {
    pub(crate) namespace: String,
    pub(crate) binding: NamedBinding,
}

impl Body for ExchangeUnbound {
    const KIND: u16 = kind::EXCHANGE_UNBOUND;
    type Outcome = Result<(), ExchangeError>;

    fn encode(&self, out: &mut Vec<u8>) {
        put_binding(out, &self.namespace, &self.binding);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        take_binding(bytes).map(|(namespace, binding)| Self { namespace, binding })
    }
}

fn put_binding(out: &mut Vec<u8>, namespace: &str, binding: &NamedBinding) {
    out.push(1);
    put_str(out, namespace);
    binding.put(out);
}

fn take_binding(bytes: &[u8]) -> Result<(String, NamedBinding), DecodeError> {
    let mut input = Reader::new(bytes);
    input.version(1)?;
    let (namespace, binding) = (input.str()?.to_owned(), NamedBinding::take(&mut input)?);
    input.end()?;
    Ok((namespace, binding))
}
