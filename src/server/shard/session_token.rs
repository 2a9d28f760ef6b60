//! Reconnection tokens that carry their session, for nodes that share a key (`docs/scaling.md`, "What a restart costs").
//!
//! Without a key a token is a random number, which the session's own node compares. With one it also says everything
//! that another node, or this one after a restart, needs to take the session back. It is signed, not encrypted: its
//! client knows all that is in it.
//!
//! ```text
//! token    base64url( version 1 │ issued 8 │ connection id 16 │ secret 16 │ hub 1 │ form 1 │ user 2 + … │ groups … │ HMAC-SHA256 32 )
//! groups   the prefix, then for each series "\n" and its name, and " " and the ticker of each group
//! ```
//!
//! Numbers are big-endian. Names have neither blanks nor line breaks ([`GroupName`]).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::wire::gexbot::{GroupName, HubName};
use crate::wire::webpubsub::{PlainForm, PubSubWire};

/// Characters of the longest token. A client sends it in a URL, of which proxies take 8 KB: with 150 usual groups it has
/// 1,200 to 1,700.
pub const MAX_SESSION_TOKEN: usize = 4096;

/// How long a token is accepted, seconds: a week, as Azure's.
pub const TOKEN_LIFETIME_S: u64 = 7 * 24 * 60 * 60;

/// Bytes of the shortest key that is as strong as the signature (RFC 2104 §3).
pub const MIN_SESSION_KEY: usize = 32;

/// Changes when a node could misread what another one wrote.
const VERSION: u8 = 1;

const SIGNATURE: usize = 32;

/// A session as its token describes it. It has a credential in it, and no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionTicket<'a> {
    /// The connection id.
    pub id: Uuid,
    /// What the session's own node compares: it changes when another node takes the session back.
    pub secret: u128,
    /// The hub that the client connected to.
    pub hub: HubName,
    /// The subprotocol, a reliable one.
    pub wire: PubSubWire,
    /// Who the client says it is. A credential: never logged.
    pub user: Cow<'a, str>,
    /// Full names of its groups, in no order.
    pub groups: Vec<Cow<'a, str>>,
}

/// Signs tokens and reads them. It has keys in it, and no `Debug`.
pub struct SessionTokens {
    /// The first one signs, all of them are accepted.
    keys: Vec<hmac::Key>,
}

impl SessionTokens {
    /// Tokens of these keys. The first one signs; one at least is expected.
    pub fn new(keys: &[SecretString]) -> Self {
        Self {
            keys: keys.iter().map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret().as_bytes())).collect(),
        }
    }

    /// The token of a session; `None` if it would be too long.
    pub fn seal(&self, ticket: &SessionTicket<'_>, now_unix_s: u64) -> Option<String> {
        let mut bytes = ticket.write(now_unix_s)?;
        let signature = hmac::sign(self.keys.first()?, &bytes);
        bytes.extend_from_slice(signature.as_ref());
        let token = URL_SAFE_NO_PAD.encode(bytes);
        (token.len() <= MAX_SESSION_TOKEN).then_some(token)
    }

    /// The session of a token, if a node with one of the keys has signed it within the last week.
    pub fn open(&self, token: &str, now_unix_s: u64) -> Option<SessionTicket<'static>> {
        if token.len() > MAX_SESSION_TOKEN {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE>()?;
        // In constant time.
        let is_ours = self.keys.iter().any(|key| hmac::verify(key, signed, signature).is_ok());
        let (ticket, issued_unix_s) = is_ours.then(|| SessionTicket::read(signed))??;
        (now_unix_s.saturating_sub(issued_unix_s) <= TOKEN_LIFETIME_S).then_some(ticket)
    }
}

impl SessionTicket<'_> {
    /// What is signed; `None` if something does not fit.
    pub fn write(&self, issued_unix_s: u64) -> Option<Vec<u8>> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&issued_unix_s.to_be_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.secret.to_be_bytes());
        out.push(self.hub.index() as u8);
        out.push(self.wire.plain_form().index() as u8);
        out.extend_from_slice(&u16::try_from(self.user.len()).ok()?.to_be_bytes());
        out.extend_from_slice(self.user.as_bytes());
        let (prefix, mut groups) = self.by_series()?;
        groups.sort_unstable();
        out.extend_from_slice(prefix.as_bytes());
        for of_series in groups.chunk_by(|(series, _), (other, _)| series == other) {
            out.push(b'\n');
            out.extend_from_slice(of_series[0].0.as_bytes());
            for (_, ticker) in of_series {
                out.push(b' ');
                out.extend_from_slice(ticker.as_bytes());
            }
        }
        Some(out)
    }

    /// The prefix of all its groups, and series and ticker of each; `None` if they have different prefixes, or one is no
    /// name of a group.
    fn by_series(&self) -> Option<(&str, Vec<(&str, &str)>)> {
        let mut common = "";
        let mut groups = Vec::with_capacity(self.groups.len());
        for name in &self.groups {
            let (prefix, group) = GroupName::parse(name).ok()?;
            if !groups.is_empty() && prefix != common {
                return None;
            }
            common = prefix;
            groups.push((&name[prefix.len() + group.ticker.len() + 2..], group.ticker));
        }
        Some((common, groups))
    }

    /// Reads what [`SessionTicket::write`] has written, and when that was; `None` if it is something else.
    pub fn read(bytes: &[u8]) -> Option<(SessionTicket<'static>, u64)> {
        let mut rest = bytes;
        let [VERSION] = take(&mut rest)? else { return None };
        let issued_unix_s = u64::from_be_bytes(take(&mut rest)?);
        let id = Uuid::from_bytes(take(&mut rest)?);
        let secret = u128::from_be_bytes(take(&mut rest)?);
        let [hub, form] = take(&mut rest)?;
        let hub = HubName::all().nth(usize::from(hub))?;
        let PlainForm { syntax, profile } = *PlainForm::ALL.get(usize::from(form))?;
        let length = u16::from_be_bytes(take(&mut rest)?);
        let (user, groups) = rest.split_at_checked(usize::from(length))?;
        let (user, groups) = (str::from_utf8(user).ok()?.to_owned().into(), read_groups(str::from_utf8(groups).ok()?)?);
        let wire = PubSubWire { syntax, reliable: true, profile };
        Some((SessionTicket { id, secret, hub, wire, user, groups }, issued_unix_s))
    }
}

/// The first bytes of `rest`, which begins behind them afterwards; `None` if there are too few.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}

/// Full names of groups.
fn read_groups(text: &str) -> Option<Vec<Cow<'static, str>>> {
    let mut lines = text.split('\n');
    let prefix = lines.next()?;
    let mut groups = Vec::new();
    for line in lines {
        let mut words = line.split(' ');
        let series = words.next()?;
        for ticker in words {
            let name = format!("{prefix}_{ticker}_{series}");
            GroupName::parse(&name).ok()?;
            groups.push(name.into());
        }
    }
    Some(groups)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::payload::Profile;
    use crate::wire::webpubsub::Syntax;

    const NOW: u64 = 1_800_000_000;

    fn tokens(keys: &[&str]) -> SessionTokens {
        let keys: Vec<SecretString> = keys.iter().map(|key| key.repeat(MIN_SESSION_KEY).into()).collect();
        SessionTokens::new(&keys)
    }

    fn ticket(groups: Vec<Cow<'static, str>>) -> SessionTicket<'static> {
        let wire = PubSubWire { syntax: Syntax::Json, reliable: true, profile: Profile::V2026_04 };
        let hub = HubName { topic: crate::wire::gexbot::HubTopic::StateGex, v2: true };
        SessionTicket { id: Uuid::from_u128(7), secret: u128::MAX - 9, hub, wire, user: "my-key".into(), groups }
    }

    /// 150 tickers, or ten with fifteen categories.
    fn many(tickers: usize, categories: usize) -> Vec<Cow<'static, str>> {
        let expiries = (0..categories).map(|day| format!("gex_202512{:02}", day + 1));
        let of =
            |category: String| (0..tickers).map(move |ticker| format!("blue_TK{ticker:03}_state_{category}").into());
        expiries.flat_map(of).collect()
    }

    fn same(one: &SessionTicket<'_>, other: &SessionTicket<'_>) -> bool {
        let sorted = |ticket: &SessionTicket<'_>| {
            let mut groups: Vec<String> = ticket.groups.iter().map(ToString::to_string).collect();
            groups.sort_unstable();
            groups
        };
        let without = |ticket: &SessionTicket<'_>| {
            (ticket.id, ticket.secret, ticket.hub, ticket.wire, ticket.user.clone().into_owned())
        };
        sorted(one) == sorted(other) && without(one) == without(other)
    }

    #[test]
    fn a_token_says_all_of_its_session_and_150_groups_fit() {
        for groups in [vec![], vec!["blue_ES_SPX_spot".into()], many(150, 1), many(10, 15)] {
            let (count, ticket) = (groups.len(), ticket(groups));
            let token = tokens(&["k"]).seal(&ticket, NOW).unwrap();
            assert!(token.len() <= 140 + 12 * count, "{count} groups: {} characters", token.len());
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "fits a URL");
            assert!(Uuid::try_parse(&token).is_err(), "no plain token");
            assert!(same(&tokens(&["k"]).open(&token, NOW).unwrap(), &ticket));
        }
    }

    #[test]
    fn what_does_not_fit_has_no_token() {
        let long =
            |length: usize| -> Vec<Cow<'static, str>> { vec![format!("blue_{}_spot", "T".repeat(length)).into()] };
        assert!(tokens(&["k"]).seal(&ticket(long(2900)), NOW).is_some());
        assert!(tokens(&["k"]).seal(&ticket(long(3000)), NOW).is_none());
        let user = "u".repeat(1 << 16).into();
        assert!(tokens(&["k"]).seal(&SessionTicket { user, ..ticket(vec![]) }, NOW).is_none());
        for strange in [vec!["nonsense".into()], vec!["blue_SPX_spot".into(), "red_SPX_spot".into()]] {
            assert!(tokens(&["k"]).seal(&ticket(strange), NOW).is_none());
        }
    }

    #[test]
    fn a_token_is_accepted_for_a_week_and_by_nodes_that_have_its_key() {
        let (old, new, both) = (tokens(&["o"]), tokens(&["n"]), tokens(&["n", "o"]));
        let by_old = old.seal(&ticket(vec![]), NOW).unwrap();
        assert!(new.open(&by_old, NOW).is_none());
        assert!(both.open(&by_old, NOW).is_some(), "while the key changes");
        assert!(new.open(&both.seal(&ticket(vec![]), NOW).unwrap(), NOW).is_some(), "the first key signs");
        assert!(old.open(&by_old, NOW + TOKEN_LIFETIME_S).is_some());
        assert!(old.open(&by_old, NOW + TOKEN_LIFETIME_S + 1).is_none());
        assert!(old.open(&by_old, NOW - 5).is_some(), "by a clock that is behind");
    }

    #[test]
    fn a_token_that_was_changed_or_cut_is_none() {
        let tokens = tokens(&["k"]);
        let token = tokens.seal(&ticket(vec!["blue_SPX_state_gex_full".into()]), NOW).unwrap();
        for length in 0..token.len() {
            assert!(tokens.open(&token[..length], NOW).is_none(), "cut to {length}");
        }
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..8 * bytes.len() {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(tokens.open(&URL_SAFE_NO_PAD.encode(changed), NOW).is_none(), "bit {bit}");
        }
        for wrong in ["", "=", "é", &format!("{token}A"), &format!("{token}="), &"A".repeat(5000)] {
            assert!(tokens.open(wrong, NOW).is_none(), "{wrong}");
        }
    }

    /// Names that [`GroupName`] takes.
    fn group() -> impl Strategy<Value = Cow<'static, str>> {
        let series = prop_oneof![
            Just("spot".to_owned()),
            Just("orderflow_orderflow".to_owned()),
            "classic_gex_(full|zero|one)",
            "state_(delta|vanna)_(zero|one|20251219)",
        ];
        ("[^\\s\\p{Cc}]{1,12}", series)
            .prop_map(|(ticker, series)| format!("blue_{ticker}_{series}"))
            .prop_filter("a group's name", |name| GroupName::parse(name).is_ok())
            .prop_map(Cow::from)
    }

    proptest! {
        #[test]
        fn whatever_is_sealed_is_opened(
            id: u128,
            secret: u128,
            hub in 0..HubName::COUNT,
            form in 0..PlainForm::ALL.len(),
            user in "\\PC{0,40}",
            groups in proptest::collection::vec(group(), 0..30),
        ) {
            let PlainForm { syntax, profile } = PlainForm::ALL[form];
            let wire = PubSubWire { syntax, reliable: true, profile };
            let hub = HubName::all().nth(hub).unwrap();
            let ticket = SessionTicket { id: Uuid::from_u128(id), secret, hub, wire, user: user.into(), groups };
            let token = tokens(&["k"]).seal(&ticket, NOW).unwrap();
            prop_assert!(same(&tokens(&["k"]).open(&token, NOW).unwrap(), &ticket));
        }

        #[test]
        fn whatever_comes_is_no_panic(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(tokens(&["k"]).open(&text, NOW).is_none());
            prop_assert!(tokens(&["k"]).open(&URL_SAFE_NO_PAD.encode(&bytes), NOW).is_none());
            if let Some((ticket, issued)) = SessionTicket::read(&bytes) {
                let again = ticket.write(issued).and_then(|bytes| SessionTicket::read(&bytes));
                prop_assert!(again.is_some_and(|(again, at)| at == issued && same(&again, &ticket)));
            }
        }
    }
}
