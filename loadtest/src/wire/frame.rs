//! RFC 6455 frames: reading the server's (unmasked), writing a client's (masked).

/// The largest message the swarm accepts. Azure's own limit for a message is 1 MiB; the receive
/// buffer of a worker must hold one message and what follows it.
pub const MAX_MESSAGE_BYTES: usize = 512 * 1024;

/// What a frame is for (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Continues a fragmented message.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Binary data.
    Binary,
    /// Ends the connection, with a code and a reason.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    /// Control frames are at most 125 bytes long and never fragmented.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of a server's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether this is the last frame of its message.
    pub is_final: bool,
    /// What the frame is for.
    pub opcode: Opcode,
    /// Bytes of the header itself.
    pub header_len: usize,
    /// Bytes of the payload that follows it.
    pub payload_len: usize,
}

impl Header {
    /// Header and payload together.
    pub fn frame_len(&self) -> usize {
        self.header_len + self.payload_len
    }
}

/// Why bytes are not a server's frame. All are the server's fault; the connection is over.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No extension was negotiated, so the reserved bits must be zero.
    #[error("reserved bits are set in a frame header: {0:#04x}")]
    ReservedBits(u8),
    /// Opcodes 3–7 and 11–15 mean nothing.
    #[error("a frame has the unknown opcode {0:#x}")]
    UnknownOpcode(u8),
    /// RFC 6455 §5.1: a client must close when it sees a masked frame.
    #[error("a frame from the server is masked")]
    Masked,
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("a control frame is fragmented or longer than 125 bytes")]
    BadControl,
    /// More than the swarm is prepared to hold.
    #[error("a message of {actual} bytes is over the limit of {limit}")]
    TooLarge {
        /// What the swarm accepts.
        limit: usize,
        /// What the header announced.
        actual: u64,
    },
}

/// Reads the header of the frame that starts at `bytes[0]`; `None` while it is incomplete.
pub fn parse_header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBits(first));
    }
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(FrameError::UnknownOpcode(first & 0x0f))?;
    let is_final = first & 0x80 != 0;
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    if opcode.is_control() && (second > 125 || !is_final) {
        return Err(FrameError::BadControl);
    }
    let (header_len, payload_len) = match second {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (4, u64::from(u16::from_be_bytes([a, b]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|eight| <[u8; 8]>::try_from(eight).ok()) {
            Some(eight) => (10, u64::from_be_bytes(eight)),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    if payload_len > MAX_MESSAGE_BYTES as u64 {
        return Err(FrameError::TooLarge { limit: MAX_MESSAGE_BYTES, actual: payload_len });
    }
    Ok(Some(Header { is_final, opcode, header_len, payload_len: payload_len as usize }))
}

/// Appends one masked frame to `out`, with a fresh masking key (RFC 6455 §5.3).
pub fn write_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.push(0x80 | opcode.bits());
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 0x7e);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 0x7f);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    let key = fastrand::u32(..).to_ne_bytes();
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Code and reason of a close frame's payload; 1005 where it carries none (RFC 6455 §7.1.5).
pub fn parse_close(payload: &[u8]) -> (u16, String) {
    match payload {
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned()),
        _ => (1005, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn server_frame(payload_len: usize) -> Vec<u8> {
        let mut frame = vec![0x82];
        match payload_len {
            0..=125 => frame.push(payload_len as u8),
            126..=0xffff => {
                frame.push(126);
                frame.extend((payload_len as u16).to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((payload_len as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + payload_len, 7);
        frame
    }

    #[test]
    fn headers_of_every_length_form_are_read() {
        for len in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, MAX_MESSAGE_BYTES] {
            let frame = server_frame(len);
            let header = parse_header(&frame).unwrap().unwrap();
            assert_eq!(header.payload_len, len);
            assert_eq!(header.frame_len(), frame.len());
            for cut in 0..header.header_len {
                assert_eq!(parse_header(&frame[..cut]), Ok(None), "{len} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        assert_eq!(parse_header(&[0x82, 0x81]), Err(FrameError::Masked));
        assert_eq!(parse_header(&[0xc2, 0x01]), Err(FrameError::ReservedBits(0xc2)));
        assert_eq!(parse_header(&[0x83, 0x01]), Err(FrameError::UnknownOpcode(3)));
        assert_eq!(parse_header(&[0x09, 0x01]), Err(FrameError::BadControl));
        assert_eq!(parse_header(&[0x89, 126, 0, 126]), Err(FrameError::BadControl));
        let huge = [0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0];
        assert!(matches!(parse_header(&huge), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn a_close_without_a_code_reads_as_1005() {
        assert_eq!(parse_close(&[]), (1005, String::new()));
        assert_eq!(parse_close(&[3, 240, b'n', b'o']), (1008, "no".to_owned()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = parse_header(&bytes);
        }

        #[test]
        fn masking_is_undone_by_its_key(payload in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let mut frame = Vec::new();
            write_masked(&mut frame, Opcode::Text, &payload);
            let header_len = match payload.len() { 0..=125 => 2, 126..=0xffff => 4, _ => 10 };
            let key = &frame[header_len..header_len + 4];
            let unmasked: Vec<u8> = frame[header_len + 4..].iter().zip(key.iter().cycle()).map(|(b, m)| b ^ m).collect();
            prop_assert_eq!(unmasked, payload);
        }
    }
}
