//! RFC 6455 framing: finished frames downstream, messages from a client's bytes upstream.
//!
//! Server frames are unmasked (§5.1), so a frame is the same bytes for every client: [`append`]
//! writes header and payload once and everybody gets those bytes. Upstream, [`inbound::Inbound`] unmasks in
//! place in the reader's buffer and keeps bytes of its own only while a message is partial, so that
//! an idle connection owns no buffer at all. Header parsing is tungstenite's.
//!
//! Nothing here reads or writes a socket.

pub mod inbound;

use bytes::BufMut;

/// What a downstream frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A message whose payload is UTF-8.
    Text = 1,
    /// A message of any bytes.
    Binary = 2,
    /// Close, with code and reason.
    Close = 8,
    /// Asks the client for a pong with the same payload.
    Ping = 9,
    /// Answers a client's ping, with its payload.
    Pong = 10,
}

/// Bytes of the longest header an unmasked frame has.
pub const MAX_HEADER: usize = 10;

/// Appends one finished, final, unmasked frame.
pub fn append(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    append_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends the header of a final, unmasked frame of `len` payload bytes.
pub fn append_header(opcode: Opcode, len: usize, out: &mut Vec<u8>) {
    out.put_u8(0x80 | opcode as u8);
    match len {
        0..=125 => out.put_u8(len as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(len as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
}

/// The payload of a frame that [`append`] wrote.
pub fn payload(frame: &[u8]) -> &[u8] {
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    &frame[header..]
}

/// Appends a close frame. `reason` is cut to the 123 bytes that fit.
pub fn append_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let end = (0..=reason.len().min(123)).rev().find(|&end| reason.is_char_boundary(end)).unwrap_or(0);
    append_header(Opcode::Close, 2 + end, out);
    out.put_u16(code);
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

/// One message of a client, or one of its control frames.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// A whole text message, checked to be UTF-8.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with its payload.
    Ping(&'a [u8]),
    /// The answer to a ping of ours.
    Pong,
    /// The client closes; `None`: without a code.
    Close(Option<u16>),
}

/// A breach of RFC 6455 by a client. The connection is closed with [`Violation::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// §5.1: every client frame is masked.
    #[error("expected a masked frame, got an unmasked one")]
    Unmasked,
    /// §5.2: no extension was negotiated.
    #[error("expected no reserved bits and opcodes, got one")]
    Reserved,
    /// §5.5: control frames are whole and at most 125 bytes.
    #[error("expected a whole control frame of at most 125 bytes, got a longer or fragmented one")]
    BadControl,
    /// §5.4: a continuation continues something, and nothing else comes between.
    #[error("expected fragments of one message in order, got another data frame")]
    BadContinuation,
    /// §5.5.1, §7.4: a close carries nothing, or a valid code and text.
    #[error("expected a close code of RFC 6455 §7.4 and a UTF-8 reason, got something else")]
    BadClose,
    /// §8.1: text is UTF-8.
    #[error("expected UTF-8 in a text message, got something else")]
    NotUtf8,
    /// A message over `--max-message-bytes`.
    #[error("expected messages of at most {limit} bytes, got a longer one")]
    TooLarge {
        /// The setting that was exceeded.
        limit: usize,
    },
    /// Not the client's fault alone: the unfinished messages of all clients together exceed `--unfinished-bytes`.
    #[error("expected whole messages: the server has no room for more unfinished ones")]
    NoRoom,
}

impl Violation {
    /// The code of the close frame that the client gets.
    pub const fn code(self) -> u16 {
        match self {
            Self::Unmasked | Self::Reserved | Self::BadControl | Self::BadContinuation | Self::BadClose => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge { .. } => 1009,
            // "Try again later", of the registry that RFC 6455 §7.4.1 begins.
            Self::NoRoom => 1013,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unmasked_frames_of_rfc_6455_section_5_7_are_written() {
        let mut out = Vec::new();
        append(Opcode::Text, b"Hello", &mut out);
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        for (length, header) in [(256, vec![0x82, 126, 1, 0]), (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0])] {
            let mut out = Vec::new();
            append(Opcode::Binary, &vec![7; length], &mut out);
            assert_eq!(out[..header.len()], header);
            assert_eq!(payload(&out), vec![7; length]);
        }
    }

    #[test]
    fn a_close_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        append_close(1008, &"ä".repeat(100), &mut out);
        assert_eq!(std::str::from_utf8(&payload(&out)[2..]).unwrap(), "ä".repeat(61));
    }
}
