//! The messages in what a client sends, however the bytes come.

use std::io::Cursor;
use std::sync::Arc;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{ClientMessage, Violation};
use crate::wire::byte_budget::{ByteBudget, HeldBytes};

/// Bytes of an unfinished message that every client may have, whatever the others have: a request that TCP has cut in
/// two.
const ALWAYS_KEPT: usize = 2048;

/// The bytes of a client that are kept between two reads: none, unless a frame or message is incomplete.
#[derive(Debug, Default)]
pub struct Inbound(Option<Box<PartialMessage>>);

#[derive(Debug, Default)]
struct PartialMessage {
    /// Bytes of an incomplete frame, still masked.
    frame: Vec<u8>,
    /// Bytes of its payload that `text` has seen.
    seen: usize,
    /// What is there of an incomplete text message.
    text: TextCheck,
    /// Payload of the fragments so far, unmasked, and the opcode of the first.
    message: Vec<u8>,
    opcode: Option<Data>,
    /// What both take of the budget; `None` until it is asked.
    held: Option<HeldBytes>,
    /// Since when the message is unfinished, ms; `None` if it began with the last bytes read.
    since_ms: Option<u64>,
    /// Something was refused: whatever the client still sends is dropped, since nobody knows any more where a frame
    /// begins, and a client that goes on sending must not fill the memory until it is gone.
    is_over: bool,
}

impl Inbound {
    /// Hands every message that `bytes` completes to `deliver`, and keeps the rest. Drops everything after an error.
    ///
    /// Stops early, dropping the rest, when `deliver` returns false (the connection is closing).
    pub fn read(
        &mut self,
        bytes: &mut [u8],
        limit: usize,
        mut deliver: impl FnMut(ClientMessage<'_>) -> bool,
    ) -> Result<(), Violation> {
        let mut partial = self.0.take().unwrap_or_default();
        if partial.is_over {
            self.0 = Some(partial);
            return Ok(());
        }
        if let Err(violation) = partial.read(bytes, limit, &mut deliver) {
            self.end();
            return Err(violation);
        }
        if !partial.frame.is_empty() || partial.opcode.is_some() {
            self.0 = Some(partial);
        }
        Ok(())
    }

    /// Keeps nothing from now on.
    fn end(&mut self) {
        self.0 = Some(Box::new(PartialMessage { is_over: true, ..PartialMessage::default() }));
    }

    /// Takes the bytes that are kept out of a budget. To be called after each read; refused if there is no room.
    pub fn hold(&mut self, budget: &Arc<ByteBudget>, now_ms: u64) -> Result<(), Violation> {
        let Some(partial) = self.0.as_mut().filter(|partial| !partial.is_over) else { return Ok(()) };
        partial.since_ms.get_or_insert(now_ms);
        let bytes = partial.frame.capacity() + partial.message.capacity();
        let held = partial.held.get_or_insert_with(|| budget.nothing());
        if bytes <= ALWAYS_KEPT {
            held.set_anyway(bytes);
        } else if !held.set(bytes) {
            self.end();
            return Err(Violation::NoRoom);
        }
        Ok(())
    }

    /// Since when a message is unfinished, ms of [`Inbound::hold`]; `None` if there is none.
    pub fn unfinished_since_ms(&self) -> Option<u64> {
        self.0.as_ref()?.since_ms
    }
}

impl PartialMessage {
    fn read(
        &mut self,
        bytes: &mut [u8],
        limit: usize,
        deliver: &mut impl FnMut(ClientMessage<'_>) -> bool,
    ) -> Result<(), Violation> {
        if self.frame.is_empty() {
            let rest = self.consume(bytes, limit, deliver)?;
            self.frame = bytes[rest..].to_vec();
            return Ok(());
        }
        let mut frame = std::mem::take(&mut self.frame);
        frame.extend_from_slice(bytes);
        let rest = self.consume(&mut frame, limit, deliver)?;
        if rest > 0 {
            frame.drain(..rest);
            frame.shrink_to_fit();
        }
        self.frame = frame;
        Ok(())
    }

    /// Reads the whole frames in `bytes`; returns where the first incomplete one starts.
    fn consume(
        &mut self,
        bytes: &mut [u8],
        limit: usize,
        deliver: &mut impl FnMut(ClientMessage<'_>) -> bool,
    ) -> Result<usize, Violation> {
        let mut start = 0;
        loop {
            let mut cursor = Cursor::new(&bytes[start..]);
            // The only error is a reserved opcode.
            let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Reserved)? else {
                return Ok(start);
            };
            let body = start + cursor.position() as usize;
            // Judged by the header alone, so that nothing is buffered for a frame that is refused.
            check(&header, length, self.message.len(), limit)?;
            let end = body + length as usize;
            if end > bytes.len() {
                self.check_early(&header, &bytes[body..])?;
                return Ok(start);
            }
            let payload = &mut bytes[body..end];
            unmask(payload, header.mask.ok_or(Violation::Unmasked)?);
            if !self.frame_read(&header, payload, deliver)? {
                return Ok(bytes.len());
            }
            if self.opcode.is_none() {
                self.since_ms = None;
            }
            start = end;
        }
    }

    /// Looks at what is there of a text frame, so that its client hears of an error before it has sent the rest
    /// (RFC 6455 §8.1).
    fn check_early(&mut self, header: &FrameHeader, masked: &[u8]) -> Result<(), Violation> {
        let is_text = matches!(
            (header.opcode, self.opcode),
            (OpCode::Data(Data::Text), None) | (OpCode::Data(Data::Continue), Some(Data::Text))
        );
        let mask = header.mask.ok_or(Violation::Unmasked)?;
        let mut piece = [0; 1024];
        while is_text && self.seen < masked.len() {
            let length = piece.len().min(masked.len() - self.seen);
            for (at, byte) in piece[..length].iter_mut().enumerate() {
                *byte = masked[self.seen + at] ^ mask[(self.seen + at) % 4];
            }
            self.text.add(&piece[..length])?;
            self.seen += length;
        }
        Ok(())
    }

    fn frame_read(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        deliver: &mut impl FnMut(ClientMessage<'_>) -> bool,
    ) -> Result<bool, Violation> {
        let opcode = match (header.opcode, self.opcode) {
            (OpCode::Control(Control::Ping), _) => return Ok(deliver(ClientMessage::Ping(payload))),
            (OpCode::Control(Control::Pong), _) => return Ok(deliver(ClientMessage::Pong)),
            (OpCode::Control(Control::Close), _) => return Ok(deliver(ClientMessage::Close(close_code(payload)?))),
            (OpCode::Data(Data::Continue), Some(opcode))
            | (OpCode::Data(opcode @ (Data::Text | Data::Binary)), None) => opcode,
            (OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)), _) => {
                return Err(Violation::Reserved);
            }
            (OpCode::Data(_), _) => return Err(Violation::BadContinuation),
        };
        let seen = std::mem::take(&mut self.seen);
        if header.is_final && self.opcode.is_none() {
            self.text = TextCheck::default();
            return Ok(deliver(data(opcode, payload)?));
        }
        if opcode == Data::Text {
            self.text.add(&payload[seen..])?;
        }
        self.opcode = Some(opcode);
        self.message.extend_from_slice(payload);
        if !header.is_final {
            return Ok(true);
        }
        self.opcode = None;
        self.text = TextCheck::default();
        let message = std::mem::take(&mut self.message);
        Ok(deliver(data(opcode, &message)?))
    }
}

/// Whether text that comes in pieces can still become UTF-8.
#[derive(Debug, Default)]
struct TextCheck {
    /// The beginning of a character whose end has not come.
    begun: Vec<u8>,
}

impl TextCheck {
    fn add(&mut self, mut piece: &[u8]) -> Result<(), Violation> {
        while let ([first, rest @ ..], false) = (piece, self.begun.is_empty()) {
            self.begun.push(*first);
            piece = rest;
            match std::str::from_utf8(&self.begun) {
                Ok(_) => self.begun.clear(),
                Err(error) if error.error_len().is_some() => return Err(Violation::NotUtf8),
                Err(_) => {}
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(Violation::NotUtf8),
            Err(error) => {
                self.begun.extend_from_slice(&piece[error.valid_up_to()..]);
                Ok(())
            }
        }
    }
}

fn check(header: &FrameHeader, length: u64, collected: usize, limit: usize) -> Result<(), Violation> {
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(Violation::Reserved);
    }
    if header.mask.is_none() {
        return Err(Violation::Unmasked);
    }
    match header.opcode {
        OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => Err(Violation::Reserved),
        OpCode::Control(_) if length > 125 || !header.is_final => Err(Violation::BadControl),
        OpCode::Data(_) if length.saturating_add(collected as u64) > limit as u64 => Err(Violation::TooLarge { limit }),
        _ => Ok(()),
    }
}

fn data(opcode: Data, payload: &[u8]) -> Result<ClientMessage<'_>, Violation> {
    match opcode {
        Data::Text => std::str::from_utf8(payload).map(ClientMessage::Text).map_err(|_| Violation::NotUtf8),
        _ => Ok(ClientMessage::Binary(payload)),
    }
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if valid && std::str::from_utf8(reason).is_ok() { Ok(Some(code)) } else { Err(Violation::BadClose) }
        }
        [_] => Err(Violation::BadClose),
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let mut blocks = payload.chunks_exact_mut(4);
    for block in &mut blocks {
        for (byte, mask) in block.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in blocks.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::websocket::{Opcode, append_header};

    /// A client's frame, as RFC 6455 §5.2 draws it.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut header = Vec::new();
        append_header(Opcode::Text, payload.len(), &mut header);
        header[0] = first;
        header[1] |= 0x80;
        header.extend_from_slice(&mask);
        header.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        header
    }

    /// Everything a client's bytes say when they arrive in pieces of `piece` bytes.
    fn heard(bytes: &[u8], piece: usize, limit: usize) -> Result<Vec<String>, Violation> {
        let mut inbound = Inbound::default();
        let mut heard = Vec::new();
        for piece in bytes.to_vec().chunks_mut(piece) {
            inbound.read(piece, limit, |message| {
                heard.push(format!("{message:?}"));
                true
            })?;
        }
        Ok(heard)
    }

    #[test]
    fn the_masked_hello_of_rfc_6455_section_5_7_is_read() {
        let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(heard(&bytes, 99, 64), Ok(vec!["Text(\"Hello\")".to_owned()]));
    }

    #[test]
    fn fragments_become_one_message_with_control_frames_between() {
        let bytes = [masked(0x01, b"mar"), masked(0x89, b"?"), masked(0x00, b"k"), masked(0x80, b"et")].concat();
        for piece in 1..bytes.len() {
            assert_eq!(heard(&bytes, piece, 6), Ok(vec!["Ping([63])".to_owned(), "Text(\"market\")".to_owned()]));
        }
    }

    #[test]
    fn each_violation_is_told_apart() {
        for (bytes, violation) in [
            (vec![0x81, 0x01, b'x'], Violation::Unmasked),
            (masked(0xc1, b"x"), Violation::Reserved),
            (masked(0x83, b"x"), Violation::Reserved),
            (masked(0x8b, b"x"), Violation::Reserved),
            (masked(0x09, b"x"), Violation::BadControl),
            (masked(0x89, &[0; 126]), Violation::BadControl),
            (masked(0x80, b"x"), Violation::BadContinuation),
            ([masked(0x01, b"x"), masked(0x81, b"y")].concat(), Violation::BadContinuation),
            (masked(0x88, b"x"), Violation::BadClose),
            (masked(0x88, &1005u16.to_be_bytes()), Violation::BadClose),
            (masked(0x88, &[3, 232, 0xff]), Violation::BadClose),
            (masked(0x81, &[0xff]), Violation::NotUtf8),
            (masked(0x82, &[0; 101]), Violation::TooLarge { limit: 100 }),
            ([masked(0x02, &[0; 60]), masked(0x80, &[0; 60])].concat(), Violation::TooLarge { limit: 100 }),
        ] {
            assert_eq!(heard(&bytes, 1000, 100), Err(violation));
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_its_payload_arrives() {
        let announced = [0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(heard(&announced, 20, 100), Err(Violation::TooLarge { limit: 100 }));
    }

    #[test]
    fn nothing_is_kept_between_whole_messages() {
        let mut inbound = Inbound::default();
        inbound.read(&mut masked(0x82, b"whole"), 100, |_| true).unwrap();
        assert!(inbound.0.is_none());
    }

    #[test]
    fn what_is_kept_of_unfinished_messages_comes_out_of_one_budget() {
        let budget = ByteBudget::new(10_000, Arc::default(), Arc::default());
        let unfinished = |length: usize, now_ms: u64| {
            let mut inbound = Inbound::default();
            inbound.read(&mut masked(0x01, &vec![b'x'; length]), 1 << 20, |_| true).unwrap();
            let held = inbound.hold(&budget, now_ms);
            (inbound, held)
        };
        let (mut first, held) = unfinished(8000, 5);
        assert_eq!((held, first.unfinished_since_ms()), (Ok(()), Some(5)));
        let (second, held) = unfinished(2500, 6);
        assert_eq!(held, Err(Violation::NoRoom));
        assert_eq!((second.unfinished_since_ms(), kept(&second)), (None, 0), "given back at once");
        assert_eq!(unfinished(1500, 7).1, Ok(()), "a little is always kept");
        assert_eq!(first.unfinished_since_ms(), Some(5));
        let mut rest = [masked(0x80, b"z"), masked(0x01, b"new")].concat();
        first.read(&mut rest, 1 << 20, |_| true).unwrap();
        first.hold(&budget, 9).unwrap();
        assert_eq!(first.unfinished_since_ms(), Some(9), "the next message");
        assert_eq!(unfinished(8000, 10).1, Ok(()), "what was finished is given back");
    }

    fn kept(inbound: &Inbound) -> usize {
        inbound.0.as_ref().map_or(0, |partial| partial.frame.capacity() + partial.message.capacity())
    }

    #[test]
    fn a_client_that_was_refused_and_goes_on_sending_fills_no_memory() {
        let budget = ByteBudget::new(10_000, Arc::default(), Arc::default());
        let long = masked(0x01, &vec![b'x'; 100_000]);
        for (begin, refusal) in [(&long[..20_000], Violation::NoRoom), (&[0x81, 1, b'x'], Violation::Unmasked)] {
            let mut inbound = Inbound::default();
            let mut send = |bytes: &[u8]| {
                let read = inbound.read(&mut bytes.to_vec(), 1 << 20, |_| unreachable!("nothing is heard any more"));
                let held = read.and_then(|()| inbound.hold(&budget, 1));
                (held, kept(&inbound))
            };
            assert_eq!(send(begin), (Err(refusal), 0));
            assert_eq!(send(&long[20_000..]), (Ok(()), 0));
            assert_eq!(send(&long), (Ok(()), 0));
            assert_eq!(send(&masked(0x81, b"whole")), (Ok(()), 0));
        }
    }

    #[test]
    fn text_that_cannot_become_utf8_is_refused_before_the_rest_of_it_comes() {
        // Autobahn's cases 6.4.1 to 6.4.4: a character behind the last one of Unicode.
        let (good, bad, rest) = ("κόσμε".as_bytes(), b"\xf4\x90\x80\x80", b"edited");
        let whole = [good, bad, rest].concat();
        for cut in 0..whole.len() {
            let refuses = cut > good.len() + 1;
            let expected = if refuses { Err(Violation::NotUtf8) } else { Ok(()) };
            let mut in_fragments = Inbound::default();
            let read = in_fragments.read(&mut masked(0x01, &whole[..cut]), 1 << 20, |_| true);
            assert_eq!(read, expected, "a fragment of {cut} bytes");
            let mut frame = masked(0x81, &whole);
            let header = frame.len() - whole.len();
            let mut in_pieces = Inbound::default();
            let piece = header + cut;
            let read = frame[..piece].chunks_mut(3).try_for_each(|bytes| in_pieces.read(bytes, 1 << 20, |_| true));
            assert_eq!(read, expected, "{cut} bytes of a frame");
        }
    }

    #[test]
    fn text_in_any_pieces_is_the_same_text() {
        let text = "κόσμε 😀 é".repeat(200);
        for size in [1, 2, 3, 5, 700, 2000] {
            let mut stream: Vec<u8> = Vec::new();
            let mut fragments = text.as_bytes().chunks(size).peekable();
            let mut opcode = 0x01;
            while let Some(fragment) = fragments.next() {
                let last = if fragments.peek().is_none() { 0x80 } else { 0 };
                stream.extend(masked(opcode | last, fragment));
                opcode = 0;
            }
            stream.extend(masked(0x81, text.as_bytes()));
            let (mut inbound, mut heard) = (Inbound::default(), 0);
            for bytes in stream.chunks_mut(7) {
                let mut deliver = |message: ClientMessage<'_>| {
                    heard += u32::from(message == ClientMessage::Text(&text));
                    true
                };
                inbound.read(bytes, 1 << 20, &mut deliver).unwrap();
            }
            assert_eq!(heard, 2, "fragments of {size} bytes");
        }
    }

    proptest! {
        #[test]
        fn a_message_reads_the_same_in_any_fragmentation(
            payload in prop::collection::vec(any::<u8>(), 1..400),
            cut in 0usize..400,
            piece in 1usize..50,
        ) {
            let cut = cut.min(payload.len());
            let bytes = [masked(0x02, &payload[..cut]), masked(0x80, &payload[cut..])].concat();
            prop_assert_eq!(heard(&bytes, piece, 400), Ok(vec![format!("{:?}", ClientMessage::Binary(&payload))]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
            let _ = heard(&bytes, piece, 100);
        }
    }
}
