//! Can a service, or a capture file, panic `flowcast tail`?
//!
//! The first byte chooses the syntax (even: JSON), the rest is one downstream message.
#![no_main]

use flowcast::wire::payload::decompress;
use flowcast::wire::webpubsub::Syntax;
use flowcast::wire::webpubsub::received::{ServiceMessage, receive};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, message)) = input.split_first() else { return };
    let syntax = if choice % 2 == 0 { Syntax::Json } else { Syntax::Protobuf };
    let received = receive(syntax, message);
    if syntax == Syntax::Json && received.is_ok() {
        assert!(message.trim_ascii_start().starts_with(b"{"), "only an object is a message");
    }
    match received {
        Ok(ServiceMessage::Data { payload, .. }) => {
            const LIMIT: usize = 64 << 10;
            // What comes out of a payload is bounded, whatever its zstd header announces.
            if let Ok(message) = decompress(&payload, LIMIT) {
                assert!(message.len() <= LIMIT);
            }
        }
        Ok(_) => {}
        Err(error) => assert_eq!(error.code(), 1007),
    }
});
