//! What we say to Kite: JSON texts that turn what is subscribed into what is wanted.
//!
//! There is no acknowledgement. Subscribing comes before the mode, which is always said: what a
//! server starts with is not documented. Source: `docs/protocols/kite.md`, "Messages to Kite".

use std::collections::BTreeMap;

use serde_json::json;

use super::assign::WantedInstruments;
use crate::source::broker::symbols::Mode;

/// What is subscribed on an open connection.
pub type SubscribedModes = BTreeMap<u32, Mode>;

/// The texts, `batch` instruments at most in each, in the order they must be sent; afterwards
/// `subscribed` is what the server will have.
pub fn commands(subscribed: &mut SubscribedModes, wanted: &WantedInstruments, batch: usize) -> Vec<String> {
    let gone: Vec<u32> = subscribed.keys().filter(|token| !wanted.contains_key(token)).copied().collect();
    let new: Vec<u32> = wanted.keys().filter(|token| !subscribed.contains_key(token)).copied().collect();
    let mut texts = Vec::new();
    for tokens in gone.chunks(batch) {
        texts.push(json!({ "a": "unsubscribe", "v": tokens }).to_string());
    }
    for tokens in new.chunks(batch) {
        texts.push(json!({ "a": "subscribe", "v": tokens }).to_string());
    }
    for (name, mode) in Mode::NAMES {
        let changed = wanted.iter().filter(|(token, entry)| entry.mode == mode && subscribed.get(token) != Some(&mode));
        let changed: Vec<u32> = changed.map(|(token, _)| *token).collect();
        for tokens in changed.chunks(batch) {
            texts.push(json!({ "a": "mode", "v": [name, tokens] }).to_string());
        }
    }
    *subscribed = wanted.iter().map(|(token, entry)| (*token, entry.mode)).collect();
    texts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::source::broker::instrument::{Exchange, Instrument};
    use crate::source::broker::kite::assign::WantedInstrument;

    fn assigned(tokens: &[(u32, Mode)]) -> WantedInstruments {
        let instrument = |id: u32| Instrument { symbol: "X".into(), exchange: Exchange::Nse, id: id.into() };
        tokens
            .iter()
            .map(|&(token, mode)| (token, Arc::new(WantedInstrument { instrument: instrument(token), mode })))
            .collect()
    }

    #[test]
    fn only_what_changed_is_said_and_subscribing_comes_before_the_mode() {
        let mut subscribed = SubscribedModes::new();
        let first = assigned(&[(1, Mode::Quote), (2, Mode::Full), (3, Mode::Full)]);
        assert_eq!(
            commands(&mut subscribed, &first, 2),
            [
                r#"{"a":"subscribe","v":[1,2]}"#,
                r#"{"a":"subscribe","v":[3]}"#,
                r#"{"a":"mode","v":["quote",[1]]}"#,
                r#"{"a":"mode","v":["full",[2,3]]}"#
            ]
        );
        assert_eq!(commands(&mut subscribed, &first, 2), [""; 0]);
        let then = assigned(&[(2, Mode::Ltp), (3, Mode::Full)]);
        assert_eq!(
            commands(&mut subscribed, &then, 2),
            [r#"{"a":"unsubscribe","v":[1]}"#, r#"{"a":"mode","v":["ltp",[2]]}"#]
        );
    }
}
