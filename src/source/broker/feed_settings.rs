//! `[[feeds]]` of the settings file: the settings of a feed, checked before anything is opened.
//!
//! They contain no credentials, only where those come from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

use super::credentials::CredentialSource;
use super::instrument::Broker;
use super::setting_values::{PerSecond, SettingSpan, SettingsError, Whole, read};
use super::symbols::{MappedInstrument, Mode, mapped};
use crate::source::broker::net::backoff::BackoffSettings;
use crate::source::broker::net::recovery::RecoverySettings;
use crate::source::broker::xts::event_fields::Code;
use crate::source::broker::xts::socketio::Eio;

/// One `[[feeds]]` block after it was checked.
#[derive(Debug, Clone)]
pub struct FeedSettings {
    /// What it is called in status, metrics and logs; unique.
    pub id: Arc<str>,
    /// Which broker it connects to.
    pub broker: Broker,
    /// Base URL of the REST calls.
    pub base_url: String,
    /// URL of the WebSocket.
    pub ws_url: String,
    /// Certificates that are trusted besides Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// Where the credentials come from.
    pub credentials: CredentialSource,
    /// The instruments that have names.
    pub instruments: Vec<MappedInstrument>,
    /// Whether symbols such as `NSE:2885` are taken too.
    pub unmapped: bool,
    /// How much is asked for, unless an instrument says otherwise.
    pub mode: Mode,
    /// When a lost connection is tried again.
    pub recovery: RecoverySettings,
    /// A socket silent for this long is dropped; `None`: what the server's handshake says.
    pub silence: Option<Duration>,
    /// Rates and sizes that the broker allows, or fewer.
    pub limits: Limits,
    /// Settings that only XTS has.
    pub xts: XtsSettings,
}

/// Limits of one feed.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sockets opened per second.
    pub connects_per_second: f64,
    /// Subscription messages (Kite) or REST calls (XTS) per second.
    pub calls_per_second: f64,
    /// Instruments in one subscription message or call.
    pub batch: usize,
    /// Most connections with one key.
    pub connections: usize,
    /// Most instruments of one connection.
    pub instruments: usize,
    /// How long opening a socket, or a REST call, may take.
    pub timeout: Duration,
    /// The largest message or answer, bytes.
    pub max_message_bytes: usize,
}

/// Settings that only XTS has.
#[derive(Debug, Clone)]
pub struct XtsSettings {
    /// Which Engine.IO the server speaks.
    pub eio: Eio,
    /// Whether events carry everything, or only what changed.
    pub broadcast_mode: BroadcastMode,
    /// The field `source` of the login.
    pub source: String,
    /// Codes that are subscribed instead of the mode's.
    pub codes: Option<Vec<Code>>,
}

/// What an XTS server is asked to send, in the wire's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum BroadcastMode {
    /// Every event carries all fields.
    #[default]
    Full,
    /// Events carry the fields that changed.
    Partial,
}

impl BroadcastMode {
    /// As the wire writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "Full",
            Self::Partial => "Partial",
        }
    }
}

/// Longest duration a setting takes, in milliseconds.
const HOUR_MS: u64 = 3_600_000;

/// One `[[feeds]]` block as it is written. Which keys a broker knows is checked afterwards.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedBlock {
    id: Option<String>,
    broker: Option<Broker>,
    base_url: Option<String>,
    ws_url: Option<String>,
    ca_file: Option<PathBuf>,
    credentials_file: Option<PathBuf>,
    api_key_env: Option<String>,
    access_token_env: Option<String>,
    app_key_env: Option<String>,
    secret_key_env: Option<String>,
    #[serde(default)]
    symbols: toml::Table,
    symbols_file: Option<PathBuf>,
    #[serde(default)]
    unmapped: bool,
    #[serde(default)]
    mode: Mode,
    backoff_base: Option<SettingSpan<1, HOUR_MS>>,
    backoff_cap: Option<SettingSpan<1, HOUR_MS>>,
    backoff_limit: Option<Whole<0, 1_000_000>>,
    stable_after: Option<SettingSpan<0, HOUR_MS>>,
    credentials_poll: Option<SettingSpan<1, HOUR_MS>>,
    silence: Option<SettingSpan<10, HOUR_MS>>,
    connects_per_second: Option<PerSecond>,
    calls_per_second: Option<PerSecond>,
    batch: Option<Whole<1, 3000>>,
    connections: Option<Whole<1, { u64::MAX }>>,
    instruments_per_connection: Option<Whole<1, { u64::MAX }>>,
    timeout: Option<SettingSpan<10, HOUR_MS>>,
    max_message_bytes: Option<Whole<4096, { 64 << 20 }>>,
    eio: Option<Whole<3, 4>>,
    broadcast_mode: Option<BroadcastMode>,
    source: Option<String>,
    codes: Option<Vec<DataCode>>,
}

/// A code that can be subscribed.
struct DataCode(Code);

impl<'de> Deserialize<'de> for DataCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        let code = Code::from_number(number).filter(|&code| code != Code::MarketStatus);
        code.map(Self).ok_or_else(|| {
            D::Error::invalid_value(Unexpected::Unsigned(number), &"one of 1501, 1502, 1505, 1510 and 1512")
        })
    }
}

/// Reads the value of the key `feeds`.
pub fn feeds(value: toml::Value) -> Result<Vec<FeedSettings>, SettingsError> {
    let toml::Value::Array(blocks) = value else {
        return Err(SettingsError::new("feeds", "[[feeds]] blocks", value.type_str()));
    };
    let mut feeds: Vec<FeedSettings> = Vec::new();
    for (at, block) in blocks.into_iter().enumerate() {
        let path = format!("feeds[{at}]");
        let feed = feed(&path, read(&path, block)?)?;
        if feeds.iter().any(|other| other.id == feed.id) {
            return Err(SettingsError::new(path + ".id", "an id of its own", format_args!("{:?}", feed.id)));
        }
        feeds.push(feed);
    }
    Ok(feeds)
}

fn feed(path: &str, mut block: FeedBlock) -> Result<FeedSettings, SettingsError> {
    let at = |key: &str| format!("{path}.{key}");
    let id = block.id.take().ok_or_else(|| SettingsError::missing(at("id"), "a name such as kite"))?;
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if id.is_empty() || id.len() > 64 || !id.bytes().all(valid) {
        let shown: String = id.chars().take(60).collect();
        return Err(SettingsError::new(at("id"), "1 to 64 letters, digits, -, _ and .", format_args!("{shown:?}")));
    }
    let named = block.broker.ok_or_else(|| SettingsError::missing(at("broker"), "zerodha, xts_pro or xts_client"));
    let broker = named?;
    let is_kite = broker == Broker::Zerodha;
    block.refuse_foreign_keys(path, is_kite)?;
    let (base_url, ws_url) = block.urls(path, is_kite)?;
    let credentials = block.credentials(path, is_kite)?;
    let limits = block.limits(path, is_kite)?;
    let xts = block.xts(path)?;
    // A Kite server sends a heartbeat every couple of seconds; an XTS server tells its own rhythm.
    let silence = block.silence.map(|silence| silence.0).or(is_kite.then_some(Duration::from_secs(5)));
    Ok(FeedSettings {
        id: id.into(),
        broker,
        base_url,
        ws_url,
        recovery: block.recovery(),
        ca_file: block.ca_file,
        credentials,
        instruments: mapped(path, block.symbols, block.symbols_file, is_kite)?,
        unmapped: block.unmapped,
        mode: block.mode,
        silence,
        limits,
        xts,
    })
}

impl FeedBlock {
    /// Refuses keys that only the other broker has.
    fn refuse_foreign_keys(&self, path: &str, is_kite: bool) -> Result<(), SettingsError> {
        let of_kite =
            [("api_key_env", self.api_key_env.is_some()), ("access_token_env", self.access_token_env.is_some())];
        let of_xts = [
            ("app_key_env", self.app_key_env.is_some()),
            ("secret_key_env", self.secret_key_env.is_some()),
            ("eio", self.eio.is_some()),
            ("broadcast_mode", self.broadcast_mode.is_some()),
            ("source", self.source.is_some()),
            ("codes", self.codes.is_some()),
        ];
        let (kite, xts) = ("zerodha", "xts_pro and xts_client");
        let (foreign, here, there) = if is_kite { (&of_xts[..], kite, xts) } else { (&of_kite[..], xts, kite) };
        match foreign.iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => Err(SettingsError::missing(
                format!("{path}.{key}"),
                format!("the name of a setting of {here}; this one is for {there} only"),
            )),
            None => Ok(()),
        }
    }

    /// Kite is one service; every XTS broker runs a deployment of its own.
    fn urls(&mut self, path: &str, is_kite: bool) -> Result<(String, String), SettingsError> {
        let url = |key: &str, url: Option<String>, schemes: [&str; 2]| {
            let Some(url) = url else { return Ok(None) };
            let host = schemes.iter().find_map(|scheme| url.strip_prefix(scheme)).unwrap_or_default();
            if host.is_empty()
                || host.starts_with('/')
                || url.contains(['?', '#', '@'])
                || url.parse::<http::Uri>().is_err()
            {
                let expected = format!("a URL that begins with {} or {}, without a query", schemes[0], schemes[1]);
                // The text is not printed: somebody may have pasted a URL with a token.
                return Err(SettingsError::new(format!("{path}.{key}"), expected, "another text"));
            }
            Ok(Some(url.trim_end_matches('/').to_owned()))
        };
        let base = url("base_url", self.base_url.take(), ["https://", "http://"])?;
        let ws = url("ws_url", self.ws_url.take(), ["wss://", "ws://"])?;
        if is_kite {
            let base = base.unwrap_or_else(|| "https://api.kite.trade".to_owned());
            return Ok((base, ws.unwrap_or_else(|| "wss://ws.kite.trade".to_owned())));
        }
        let expected = "the deployment's URL, such as https://host/apimarketdata";
        let base = base.ok_or_else(|| SettingsError::missing(format!("{path}.base_url"), expected))?;
        let ws = ws.unwrap_or_else(|| format!("ws{}/socket.io", &base["http".len()..]));
        Ok((base, ws))
    }

    fn credentials(&mut self, path: &str, is_kite: bool) -> Result<CredentialSource, SettingsError> {
        let (key, secret) = if is_kite { ("api_key", "access_token") } else { ("app_key", "secret_key") };
        let names = if is_kite {
            (self.api_key_env.take(), self.access_token_env.take())
        } else {
            (self.app_key_env.take(), self.secret_key_env.take())
        };
        match (names, self.credentials_file.take()) {
            ((Some(key), Some(secret)), None) => Ok(CredentialSource::Environment { key, secret }),
            ((None, None), Some(path)) => Ok(CredentialSource::File { path, key, secret }),
            _ => Err(SettingsError::missing(
                format!("{path}.credentials_file"),
                format!("either {key}_env and {secret}_env, or a file with {key} and {secret}"),
            )),
        }
    }

    fn recovery(&self) -> RecoverySettings {
        let base = self.backoff_base.map_or(Duration::from_secs(1), |base| base.0);
        RecoverySettings {
            backoff: BackoffSettings {
                base,
                cap: self.backoff_cap.map_or(Duration::from_mins(1), |cap| cap.0).max(base),
                // 0 stands for: for ever.
                limit: self.backoff_limit.and_then(|limit| u32::try_from(limit.0).ok()).filter(|&limit| limit > 0),
            },
            stable_after: self.stable_after.map_or(Duration::from_secs(10), |after| after.0),
            credentials_poll: self.credentials_poll.map_or(Duration::from_secs(5), |poll| poll.0),
        }
    }

    fn limits(&self, path: &str, is_kite: bool) -> Result<Limits, SettingsError> {
        let at_most = |key: &str, number: Option<Whole<1, { u64::MAX }>>, most: usize| match number {
            Some(Whole(number)) if number > most as u64 => {
                Err(SettingsError::new(format!("{path}.{key}"), format!("a whole number from 1 to {most}"), number))
            }
            number => Ok(number.map_or(most, |number| number.0 as usize)),
        };
        let (connections, instruments) = if is_kite { (3, 3000) } else { (1, 10_000) };
        Ok(Limits {
            connects_per_second: self.connects_per_second.map_or(1.0, |rate| rate.0),
            calls_per_second: self.calls_per_second.map_or(if is_kite { 10.0 } else { 2.0 }, |rate| rate.0),
            batch: self.batch.map_or(if is_kite { 500 } else { 50 }, |batch| batch.0 as usize),
            connections: at_most("connections", self.connections, connections)?,
            instruments: at_most("instruments_per_connection", self.instruments_per_connection, instruments)?,
            timeout: self.timeout.map_or(Duration::from_secs(10), |timeout| timeout.0),
            max_message_bytes: self.max_message_bytes.map_or(1 << 20, |bytes| bytes.0 as usize),
        })
    }

    fn xts(&mut self, path: &str) -> Result<XtsSettings, SettingsError> {
        let codes = self.codes.take().map(|codes| codes.into_iter().map(|code| code.0).collect::<Vec<_>>());
        if codes.as_ref().is_some_and(Vec::is_empty) {
            return Err(SettingsError::new(format!("{path}.codes"), "a list of codes such as [1501, 1510]", "[]"));
        }
        Ok(XtsSettings {
            eio: if self.eio.is_some_and(|eio| eio.0 == 4) { Eio::V4 } else { Eio::V3 },
            broadcast_mode: self.broadcast_mode.unwrap_or_default(),
            source: self.source.take().unwrap_or_else(|| "WEBAPI".to_owned()),
            codes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::broker::instrument::Exchange;
    use crate::source::broker::symbols::Address;
    use crate::source::broker::xts::event_fields::Key;

    fn read(text: &str) -> Result<Vec<FeedSettings>, String> {
        let mut table: toml::Table = toml::from_str(text).unwrap();
        feeds(table.remove("feeds").unwrap()).map_err(|error| error.to_string())
    }

    const KITE: &str =
        "[[feeds]]\nid = \"kite\"\nbroker = \"zerodha\"\napi_key_env = \"A\"\naccess_token_env = \"B\"\n";
    const XTS: &str = "[[feeds]]\nid = \"xts\"\nbroker = \"xts_pro\"\napp_key_env = \"A\"\nsecret_key_env = \"B\"\nbase_url = \"https://host/apimarketdata\"\n";

    #[test]
    fn the_brokers_defaults_fill_what_is_not_said() {
        let feeds = read(&format!("{KITE}symbols = {{ INFY = 408065, NIFTY = {{ token = 256265, mode = \"full\" }} }}\n{XTS}symbols = {{ RELIANCE = {{ segment = 1, id = 2885 }}, NIFTY = {{ segment = 1, id = 26000, index = true }} }}")).unwrap();
        let [kite, xts] = &feeds[..] else { panic!() };
        assert_eq!((kite.ws_url.as_str(), kite.silence), ("wss://ws.kite.trade", Some(Duration::from_secs(5))));
        assert_eq!((kite.limits.connections, kite.limits.instruments), (3, 3000));
        assert_eq!(kite.instruments[1].mode, Some(Mode::Full));
        assert_eq!(kite.instruments[1].instrument.exchange, Exchange::NseIndex);
        assert_eq!(xts.ws_url, "wss://host/apimarketdata/socket.io");
        assert_eq!((xts.xts.eio, xts.xts.broadcast_mode, xts.silence), (Eio::V3, BroadcastMode::Full, None));
        assert_eq!(xts.recovery.backoff.limit, None);
        let by_name = |name: &str| xts.instruments.iter().find(|one| &*one.instrument.symbol == name).unwrap();
        assert_eq!(by_name("RELIANCE").address, Address::Xts(Key { segment: 1, id: 2885 }));
        assert_eq!(by_name("NIFTY").instrument.exchange, Exchange::NseIndex);
    }

    #[test]
    fn the_two_xts_presets_are_equal() {
        let strip = |text: &str| {
            let mut feed = read(text).unwrap().remove(0);
            feed.broker = Broker::XtsPro;
            format!("{feed:?}")
        };
        assert_eq!(strip(XTS), strip(&XTS.replace("xts_pro", "xts_client")));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        for (text, words) in [
            ("feeds = 5", "feeds: expected [[feeds]] blocks, got integer"),
            ("[[feeds]]\nbroker = \"zerodha\"", "feeds[0].id: expected a name such as kite"),
            ("[[feeds]]\nid = \"a b\"", "feeds[0].id: expected 1 to 64 letters"),
            (
                &KITE.replace("zerodha", "upstox"),
                "feeds[0].broker: expected zerodha, xts_pro or xts_client, got \"upstox\"",
            ),
            (&format!("{KITE}symbls = {{}}"), "feeds[0].symbls: expected the name of a setting; did you mean symbols?"),
            (&format!("{KITE}eio = 3"), "feeds[0].eio: expected the name of a setting"),
            (&format!("{KITE}mode = \"all\""), "feeds[0].mode: expected ltp, quote or full, got \"all\""),
            (&format!("{KITE}backoff_base = 5"), "feeds[0].backoff_base: expected a duration such as 500ms"),
            (&format!("{KITE}connections = 4"), "feeds[0].connections: expected a whole number from 1 to 3, got 4"),
            (&format!("{KITE}symbols = {{ A = 1, B = 1 }}"), "feeds[0].symbols.B: expected an instrument of its own"),
            (&format!("{KITE}symbols = {{ A = \"x\" }}"), "feeds[0].symbols.A: expected"),
            (
                &format!("{KITE}symbols = {{ A = 31132427 }}"),
                "feeds[0].symbols.A: expected a token of a segment with a documented price unit (1 to 9 or 12, the low \
                 byte of the instrument token), got segment 11",
            ),
            (&format!("{KITE}symbols = {{ A = {{ token = 1, x = 2 }} }}"), "feeds[0].symbols.A.x: expected the name"),
            (&format!("{XTS}symbols = {{ A = 1 }}"), "feeds[0].symbols.A: expected { segment = 1, id = 2885 }"),
            (&format!("{XTS}eio = 5"), "feeds[0].eio: expected a whole number from 3 to 4"),
            (&format!("{XTS}codes = [1501, 1504]"), "feeds[0].codes[1]: expected one of 1501"),
            (&XTS.replace("base_url", "#"), "feeds[0].base_url: expected the deployment's URL"),
            (
                &XTS.replace("host/apimarketdata", "host/?token=hunter2"),
                "feeds[0].base_url: expected a URL that begins with https:// or http://",
            ),
            (
                &KITE.replace("api_key_env", "#"),
                "feeds[0].credentials_file: expected either api_key_env and access_token_env",
            ),
            (&format!("{KITE}{KITE}"), "feeds[1].id: expected an id of its own, got \"kite\""),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(words) && !said.contains("hunter2"), "{said:?} for {text}");
        }
    }
}
