//! Can a reconnection token, or what a key's holder has signed, panic the server?
//!
//! The input is taken as a token, which nobody has signed, and as what is under a signature: whatever is read from that
//! means the same when it is written and read again, and its groups can be joined by name.
#![no_main]

use std::sync::LazyLock;

use flowcast::server::shard::session_token::{SessionTicket, SessionTokens};
use flowcast::wire::gexbot::GroupName;
use libfuzzer_sys::fuzz_target;

static TOKENS: LazyLock<SessionTokens> = LazyLock::new(|| SessionTokens::new(&["fuzz".repeat(8).into()]));

fuzz_target!(|input: &[u8]| {
    if let Ok(token) = str::from_utf8(input) {
        assert!(TOKENS.open(token, 0).is_none(), "forged");
    }
    let Some((ticket, issued)) = SessionTicket::read(input) else { return };
    assert!(ticket.wire.reliable && ticket.groups.iter().all(|group| GroupName::parse(group).is_ok()));
    let written = ticket.write(issued).expect("what was read fits");
    let (again, at) = SessionTicket::read(&written).expect("what was written");
    assert!(at == issued && sorted(&again) == sorted(&ticket));
    assert!((again.id, again.secret, again.hub, again.wire) == (ticket.id, ticket.secret, ticket.hub, ticket.wire));
    if let Some(token) = TOKENS.seal(&ticket, issued) {
        assert!(TOKENS.open(&token, issued).is_some_and(|opened| sorted(&opened) == sorted(&ticket)));
    }
});

/// The user, and the groups in one order.
fn sorted<'a>(ticket: &'a SessionTicket<'_>) -> (&'a str, Vec<&'a str>) {
    let mut groups: Vec<&str> = ticket.groups.iter().map(|group| &**group).collect();
    groups.sort_unstable();
    (&ticket.user, groups)
}
