//! Does a client say the same however TCP cuts its bytes, and never a panic?
//!
//! The first byte chooses the message limit, the second seeds the random cuts; the rest is what the
//! client sends. Whole, in single bytes and in random pieces it must give the same messages and the
//! same end.
#![no_main]

use flowcast::wire::websocket::inbound::Inbound;
use flowcast::wire::websocket::{ClientMessage, Violation};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [limit, seed, bytes @ ..] = input else { return };
    let limit = usize::from(*limit) * 16;
    let whole = heard(bytes, limit, |_| usize::MAX);
    for message in &whole.0 {
        match message {
            Said::Text(bytes) | Said::Binary(bytes) => assert!(bytes.len() <= limit),
            Said::Ping(bytes) => assert!(bytes.len() <= 125),
            Said::Close(Some(code)) => assert!(matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)),
            Said::Pong | Said::Close(None) => {}
        }
    }
    if let Err(violation) = whole.1 {
        assert!(matches!(violation.code(), 1002 | 1007 | 1009));
    }
    assert_eq!(heard(bytes, limit, |_| 1), whole, "in single bytes");
    let mut state = u32::from(*seed) + 1;
    let random = |_| {
        // Marsaglia's xorshift: mostly small pieces, so that headers are cut too.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state % if state & 0x100 == 0 { 4 } else { 90 }) as usize + 1
    };
    assert_eq!(heard(bytes, limit, random), whole, "in random pieces");
});

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// Everything said up to the first close or violation, as a connection reads it.
fn heard(bytes: &[u8], limit: usize, mut piece: impl FnMut(usize) -> usize) -> (Vec<Said>, Result<(), Violation>) {
    let mut inbound = Inbound::default();
    let mut heard = Vec::new();
    // The reader unmasks in place, so every run needs bytes of its own.
    let mut bytes = bytes.to_vec();
    let mut rest = bytes.as_mut_slice();
    let mut closed = false;
    while !rest.is_empty() && !closed {
        let (now, later) = rest.split_at_mut(piece(rest.len()).min(rest.len()));
        rest = later;
        let read = inbound.read(now, limit, |message| {
            assert!(!closed, "a message after the reader was told to stop");
            closed = matches!(message, ClientMessage::Close(_));
            heard.push(match message {
                ClientMessage::Text(text) => Said::Text(text.into()),
                ClientMessage::Binary(bytes) => Said::Binary(bytes.into()),
                ClientMessage::Ping(bytes) => Said::Ping(bytes.into()),
                ClientMessage::Pong => Said::Pong,
                ClientMessage::Close(code) => Said::Close(code),
            });
            !closed
        });
        if let Err(violation) = read {
            return (heard, Err(violation));
        }
    }
    (heard, Ok(()))
}
