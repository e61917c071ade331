//! Which of the front ends at a shared address a connection is for, by its first bytes.

use bytes::{BufMut, BytesMut};
use tokio::io::AsyncReadExt;

use crate::connection::Connection;
use crate::net::ServedAt;

/// What a front end says of a connection's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It serves this one.
    Mine,
    /// This one speaks another version of its protocol: it says which one it serves, unless another front end serves that.
    OtherVersion,
    /// This one speaks something else.
    Foreign,
    /// It cannot tell from so few.
    Unsure,
}

/// The most first bytes that are looked at.
const MOST: usize = 64;

/// Reads as much as it takes to tell whose a connection is, and gives the place of that front end. What none of them claims is left to
/// the first, as is a client that says nothing in time: it knows how to say no.
pub(crate) async fn choose(connection: &mut Connection, served: &[ServedAt]) -> usize {
    let (closing, by) = (connection.closing.clone(), connection.opened + connection.limits.handshake_timeout);
    let mut first = BytesMut::new();
    let mut chosen = if served.len() > 1 { None } else { Some(0) };
    while chosen.is_none() && first.len() < MOST {
        let left = MOST - first.len();
        let mut room = (&mut first).limit(left);
        let read = tokio::select! {
            read = connection.stream.read_buf(&mut room) => read,
            () = closing.cancelled() => break,
            () = tokio::time::sleep_until(by) => break,
        };
        if !matches!(read, Ok(1..)) {
            break;
        }
        let claims = served.iter().map(|at| at.front_end.claims(&first));
        chosen = settle(&claims.collect::<Vec<_>>());
    }
    connection.prefix = first.freeze();
    chosen.unwrap_or(0)
}

/// Whose it is, once that is known: the first that claims it, unless one before that cannot tell yet; else the first whose protocol it speaks
/// in another version.
fn settle(claims: &[Claim]) -> Option<usize> {
    let first = |of: &[Claim]| claims.iter().position(|claim| of.contains(claim));
    match first(&[Claim::Mine, Claim::Unsure]) {
        Some(at) => (claims[at] == Claim::Mine).then_some(at),
        None => Some(first(&[Claim::OtherVersion]).unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_claims_it_has_it_and_what_none_does_is_the_firsts() {
        use Claim::{Foreign, Mine, OtherVersion, Unsure};
        assert_eq!(settle(&[Foreign, Mine, Mine]), Some(1));
        assert_eq!(settle(&[Unsure, Mine]), None);
        assert_eq!(settle(&[Mine, Unsure]), Some(0));
        assert_eq!(settle(&[Foreign, Foreign]), Some(0));
        assert_eq!(settle(&[Foreign, OtherVersion, OtherVersion]), Some(1));
        assert_eq!(settle(&[OtherVersion, Mine]), Some(1));
        assert_eq!(settle(&[OtherVersion, Unsure]), None);
    }
}
