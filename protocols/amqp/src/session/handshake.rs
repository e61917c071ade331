//! Before a connection is open: the protocol header, and the limits on which both sides agree.

use crate::wire::*;

/// What the server offers and takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// Channels a connection may have open; 0 for as many as there are numbers.
    pub channel_max: u16,
    /// Bytes of the largest frame, at least [`FRAME_MIN`].
    pub frame_max: u32,
    /// Seconds between signs of life that the server proposes; 0 for none.
    pub heartbeat: u16,
    /// Bytes of the largest message.
    pub message_max: u64,
    /// Bytes of messages that have come in part, all channels together.
    pub unfinished_max: u64,
}

impl Default for ConnectionOptions {
    /// RabbitMQ's, and what a message may have there by default.
    fn default() -> Self {
        Self {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 60,
            message_max: 16 << 20,
            unfinished_max: 64 << 20,
        }
    }
}

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Channels that may be open; 0 for as many as there are numbers.
    pub channel_max: u16,
    /// Bytes of the largest frame.
    pub frame_max: u32,
    /// Seconds between signs of life; 0 for none.
    pub heartbeat: u16,
}

impl ConnectionOptions {
    /// What is agreed on with a client that answers `tune_ok`. Its heartbeat holds, whatever was proposed.
    ///
    /// # Errors
    /// It wants larger frames or more channels than were offered, or frames smaller than both must take.
    pub fn agree(&self, tune_ok: &ConnectionTuneOk) -> Result<Tuning, ConnectionException> {
        let frame_max = within("frame_max", tune_ok.frame_max, FRAME_MIN, self.frame_max)?;
        let channels = within("channel_max", tune_ok.channel_max.into(), 1, self.channel_max.into())?;
        let channel_max = u16::try_from(channels).expect("no larger than what the client sent");
        Ok(Tuning { channel_max, frame_max, heartbeat: tune_ok.heartbeat })
    }
}

/// Zero is for no limit, which is more than any limit.
fn within(name: &str, wanted: u32, least: u32, most: u32) -> Result<u32, ConnectionException> {
    let text = match (wanted, most) {
        (0, 0) => return Ok(0),
        (0, most) => {
            format!("negotiated {name} = 0 (no limit) is higher than the maximum allowed value ({most})")
        }
        (wanted, most) if most != 0 && wanted > most => {
            format!("negotiated {name} = {wanted} is higher than the maximum allowed value ({most})")
        }
        (wanted, _) if wanted < least => {
            format!("negotiated {name} = {wanted} is lower than the minimum allowed value ({least})")
        }
        (wanted, _) => return Ok(wanted),
    };
    Err(ConnectionException::new(ReplyCode::NotAllowed, text))
}

/// Bytes of a protocol header.
const HEADER: usize = 8;
/// The one that this server speaks, and answers others with.
pub(super) const OURS: [u8; HEADER] = *b"AMQP\x00\x00\x09\x01";

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderFound {
    /// Too little to tell; so far it may be AMQP's.
    Unsure,
    /// 0-9-1, or 0-9 as some clients of 0-9-1 have it.
    Amqp091,
    /// AMQP 1.0: another front end's. With SASL before it, if so.
    Amqp10 {
        /// The layer of SASL comes first.
        sasl: bool,
    },
    /// AMQP of a version that there is not here: to be answered with the header of ours, and closed.
    OtherVersion,
    /// Not AMQP at all. RabbitMQ answers as to another version.
    Foreign,
}

/// Tells what a connection begins with, by its first bytes.
pub fn protocol_header(first: &[u8]) -> HeaderFound {
    let name = &first[..first.len().min(4)];
    if !b"AMQP".starts_with(name) {
        return HeaderFound::Foreign;
    }
    let Some(header) = first.first_chunk::<HEADER>() else { return HeaderFound::Unsure };
    match header[4..] {
        [0, 0, 9, 1] | [1, 1, 0, 9] => HeaderFound::Amqp091,
        [0, 1, 0, 0] => HeaderFound::Amqp10 { sasl: false },
        [3, 1, 0, 0] => HeaderFound::Amqp10 { sasl: true },
        _ => HeaderFound::OtherVersion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_told_as_soon_as_it_can_be() {
        let found = |bytes: &[u8]| protocol_header(bytes);
        assert_eq!(found(b""), HeaderFound::Unsure);
        assert_eq!(found(b"AMQP\x00\x00\x09"), HeaderFound::Unsure);
        assert_eq!(found(b"AMQP\x00\x00\x09\x01"), HeaderFound::Amqp091);
        assert_eq!(found(b"AMQP\x01\x01\x00\x09"), HeaderFound::Amqp091);
        assert_eq!(found(b"AMQP\x00\x01\x00\x00"), HeaderFound::Amqp10 { sasl: false });
        assert_eq!(found(b"AMQP\x03\x01\x00\x00"), HeaderFound::Amqp10 { sasl: true });
        assert_eq!(found(b"AMQP\x01\x01\x08\x00"), HeaderFound::OtherVersion);
        assert_eq!(found(b"G"), HeaderFound::Foreign);
        assert_eq!(found(b"AMQX\x00"), HeaderFound::Foreign);
    }

    #[test]
    fn limits_are_those_of_the_client_where_they_are_within_the_servers() {
        let options = ConnectionOptions::default();
        let agree = |channel_max, frame_max| {
            options.agree(&ConnectionTuneOk { channel_max, frame_max, heartbeat: 7 }).map_err(|e| e.code)
        };
        assert_eq!(agree(10, 4096), Ok(Tuning { channel_max: 10, frame_max: 4096, heartbeat: 7 }));
        assert_eq!(agree(2047, 131_072).map(|t| t.frame_max), Ok(131_072));
        for (channels, frames) in [(0, 4096), (2048, 4096), (1, 0), (1, 4095), (1, 131_073)] {
            assert_eq!(agree(channels, frames), Err(ReplyCode::NotAllowed), "{channels} {frames}");
        }
        let unlimited = ConnectionOptions { channel_max: 0, ..options };
        let all = unlimited.agree(&ConnectionTuneOk { channel_max: 0, frame_max: 4096, heartbeat: 0 });
        assert_eq!(all.map(|t| t.channel_max), Ok(0));
    }
}
