//! Changes of a frame's bytes that leave its WebSocket framing whole. Always on a copy: frames are shared.

use bytes::Bytes;

use crate::wire::websocket::{self, Opcode};

/// A frame of which one bit of the message is flipped, and which one: byte `bit / 8`, counted from the least
/// significant. `drawn` chooses it, from the middle half of the message. A text stays UTF-8. `None`: there is nothing to
/// flip.
pub fn corrupted(frame: &[u8], drawn: u64) -> Option<(Bytes, u64)> {
    let header = frame.len() - websocket::payload(frame).len();
    let message = &frame[header..];
    let (quarter, half) = (message.len() / 4, message.len().div_ceil(2));
    let begin = quarter + usize::try_from(drawn % half.max(1) as u64).unwrap_or(0);
    let bits = if is_text(frame) { 7 } else { 8 };
    // What is not ASCII in a text could not be changed by one bit and stay UTF-8.
    let is_free = |at: &usize| !is_text(frame) || message[*at].is_ascii();
    let at = (begin..message.len()).chain(0..begin.min(message.len())).find(is_free)?;
    let bit = (drawn >> 32) % bits;
    let mut copy = frame.to_vec();
    copy[header + at] ^= 1 << bit;
    Some((copy.into(), at as u64 * 8 + bit))
}

/// A frame with the first half of the message, and how many bytes that are.
pub fn truncated(frame: &[u8]) -> (Bytes, usize) {
    let message = websocket::payload(frame);
    let mut kept = message.len() / 2;
    let opcode = if is_text(frame) {
        // A text that ends within a character is no text.
        while kept > 0 && (message[kept] & 0xc0) == 0x80 {
            kept -= 1;
        }
        Opcode::Text
    } else {
        Opcode::Binary
    };
    let mut copy = Vec::with_capacity(websocket::MAX_HEADER + kept);
    websocket::append(opcode, &message[..kept], &mut copy);
    (copy.into(), kept)
}

fn is_text(frame: &[u8]) -> bool {
    frame[0] & 0x0f == Opcode::Text as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: Opcode, message: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        websocket::append(opcode, message, &mut frame);
        frame
    }

    proptest! {
        #[test]
        fn one_bit_differs_and_flipping_it_back_restores_the_message(
            message in prop::collection::vec(any::<u8>(), 1..300), drawn in any::<u64>(),
        ) {
            let whole = frame(Opcode::Binary, &message);
            let (broken, bit) = corrupted(&whole, drawn).unwrap();
            let mut restored = websocket::payload(&broken).to_vec();
            prop_assert_ne!(&restored, &message);
            restored[(bit / 8) as usize] ^= 1 << (bit % 8);
            prop_assert_eq!(restored, message);
        }

        #[test]
        fn a_text_stays_a_text(message in "\\PC{1,200}", drawn in any::<u64>()) {
            let whole = frame(Opcode::Text, message.as_bytes());
            if let Some((broken, _)) = corrupted(&whole, drawn) {
                prop_assert!(std::str::from_utf8(websocket::payload(&broken)).is_ok());
            }
            let (short, kept) = truncated(&whole);
            let text = std::str::from_utf8(websocket::payload(&short)).unwrap();
            prop_assert_eq!((text, text.len()), (&message[..kept], kept));
        }
    }

    #[test]
    fn the_flipped_bit_is_in_the_middle_of_the_message() {
        let whole = frame(Opcode::Binary, &[0; 1000]);
        for drawn in (0..64u64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let (_, bit) = corrupted(&whole, drawn).unwrap();
            assert!((250 * 8..750 * 8).contains(&bit), "{bit}");
        }
        assert_eq!(corrupted(&frame(Opcode::Text, "ä".as_bytes()), 1), None);
        assert_eq!(corrupted(&frame(Opcode::Binary, b""), 1), None);
    }
}
