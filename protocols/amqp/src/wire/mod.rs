//! AMQP 0-9-1's wire format with RabbitMQ's extensions, as slices of what was read. No I/O, no clock.
//!
//! What is decoded borrows from the frame; nothing is copied but small pieces of bodies (see [`ContentBody`]). Field tables and
//! properties are checked when they arrive and read when they are asked for; their bytes are kept, so that a message goes out as it came.

mod body;
mod content;
#[cfg(test)]
mod crosscheck;
mod exception;
mod frame;
mod method;
mod output;
mod properties;
mod reader;
mod table;
#[cfg(test)]
mod testing;
mod text;
mod writer;

pub use body::ContentBody;
pub use content::{ContentHeader, HeaderTooLarge, header_fits};
pub use exception::{ChannelException, ConnectionException, Exception, ExceptionParts, Malformed, ReplyCode};
pub use frame::{
    EMPTY_FRAME, FRAME_END, FRAME_MIN, FRAME_PREFIX, Frame, FrameKind, PRE_AUTHENTICATION_MAX, Whole,
    whole_frames,
};
pub use method::*;
pub use output::{FrameBuffer, SHARED_FROM};
pub use properties::{BasicProperties, CLASS_BASIC};
pub use reader::ArgumentReader;
pub use table::{FieldArray, FieldItems, FieldTable, FieldTableBuf, FieldValue, MAX_DEPTH, TableItems};
pub use text::{ShortBytes, ShortStr};
pub use writer::ArgumentWriter;
