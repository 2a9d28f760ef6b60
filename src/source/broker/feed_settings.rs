//! `[[feeds]]` of the settings file: what a feed is, checked before anything is opened.
//!
//! Credentials do not stand here, only where they come from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::credentials::CredentialSource;
use super::quote::Broker;
use super::symbols::{MappedInstrument, Mode, mapped};
use super::table::{SettingsError, Table};
use crate::source::broker::net::backoff::BackoffSettings;
use crate::source::broker::net::recovery::RecoverySettings;
use crate::source::broker::xts::fields::Code;
use crate::source::broker::xts::socketio::Eio;

/// One feed.
#[derive(Debug, Clone)]
pub struct FeedSettings {
    /// What it is called in status, metrics and logs; unique.
    pub id: Arc<str>,
    /// Whose it is.
    pub broker: Broker,
    /// Where REST calls go.
    pub base_url: String,
    /// Where the socket is.
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
    /// How connections are kept.
    pub recovery: RecoverySettings,
    /// A socket silent for this long is dropped; `None`: what the server's handshake says.
    pub silence: Option<Duration>,
    /// What the broker allows, and what we allow it.
    pub limits: Limits,
    /// What only XTS has.
    pub xts: XtsSettings,
}

/// Bounds of one feed.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sockets opened, a second.
    pub connects_per_second: f64,
    /// Subscription messages (Kite) or REST calls (XTS), a second.
    pub calls_per_second: f64,
    /// Instruments in one of them.
    pub batch: usize,
    /// Connections of one key.
    pub connections: usize,
    /// Instruments of one connection.
    pub instruments: usize,
    /// How long opening a socket, or a REST call, may take.
    pub timeout: Duration,
    /// The largest message or answer, bytes.
    pub max_message_bytes: usize,
}

/// What only XTS has.
#[derive(Debug, Clone)]
pub struct XtsSettings {
    /// Which Engine.IO the server speaks.
    pub eio: Eio,
    /// `Full` or `Partial`.
    pub broadcast_mode: &'static str,
    /// What the login calls itself.
    pub source: String,
    /// What is subscribed instead of the mode's codes.
    pub codes: Option<Vec<Code>>,
}

/// Reads the value of the key `feeds`.
pub fn feeds(value: toml::Value) -> Result<Vec<FeedSettings>, SettingsError> {
    let toml::Value::Array(blocks) = value else {
        return Err(SettingsError::new("feeds", "[[feeds]] blocks", value.type_str()));
    };
    let mut feeds: Vec<FeedSettings> = Vec::new();
    for (at, block) in blocks.into_iter().enumerate() {
        let path = format!("feeds[{at}]");
        let toml::Value::Table(table) = block else {
            return Err(SettingsError::new(path, "a [[feeds]] block", block.type_str()));
        };
        let feed = feed(Table::new(path.clone(), table))?;
        if feeds.iter().any(|other| other.id == feed.id) {
            return Err(SettingsError::new(path + ".id", "an id of its own", format_args!("{:?}", feed.id)));
        }
        feeds.push(feed);
    }
    Ok(feeds)
}

const BROKERS: &str = "zerodha, xts_pro or xts_client";

fn feed(mut table: Table) -> Result<FeedSettings, SettingsError> {
    let id = table.required("id", "a name such as kite")?;
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if id.is_empty() || id.len() > 64 || !id.bytes().all(valid) {
        return Err(table.wrong("id", "1 to 64 letters, digits, -, _ and .", &id));
    }
    let broker = match table.required("broker", BROKERS)?.as_str() {
        "zerodha" => Broker::Zerodha,
        "xts_pro" => Broker::XtsPro,
        "xts_client" => Broker::XtsClient,
        other => return Err(table.wrong("broker", BROKERS, other)),
    };
    let is_kite = broker == Broker::Zerodha;
    let (base_url, ws_url) = urls(&mut table, is_kite)?;
    let ca_file = table.text("ca_file")?.map(PathBuf::from);
    let credentials = credentials(&mut table, is_kite)?;
    let mode = table.choice("mode", &Mode::NAMES)?.unwrap_or(Mode::Quote);
    let instruments = mapped(&mut table, is_kite)?;
    let unmapped = table.boolean("unmapped")?.unwrap_or(false);
    let recovery = recovery(&mut table)?;
    // A Kite server sends a heartbeat every couple of seconds; an XTS server tells its own rhythm.
    let silence = table.duration("silence", (Duration::from_millis(10), HOUR))?;
    let silence = silence.or(is_kite.then_some(Duration::from_secs(5)));
    let limits = limits(&mut table, is_kite)?;
    let xts = if is_kite { XtsSettings::default() } else { xts(&mut table)? };
    table.finish()?;
    Ok(FeedSettings {
        id: id.into(),
        broker,
        base_url,
        ws_url,
        ca_file,
        credentials,
        instruments,
        unmapped,
        mode,
        recovery,
        silence,
        limits,
        xts,
    })
}

const HOUR: Duration = Duration::from_hours(1);

/// Kite is one service; every XTS broker runs a deployment of its own.
fn urls(table: &mut Table, is_kite: bool) -> Result<(String, String), SettingsError> {
    let mut url = |key: &str, schemes: [&str; 2]| -> Result<Option<String>, SettingsError> {
        let Some(url) = table.text(key)? else { return Ok(None) };
        let expected = format!("a URL that begins with {} or {}, without a query", schemes[0], schemes[1]);
        let host = schemes.iter().find_map(|scheme| url.strip_prefix(scheme)).unwrap_or_default();
        if host.is_empty()
            || host.starts_with('/')
            || url.contains(['?', '#', '@'])
            || url.parse::<http::Uri>().is_err()
        {
            // Somebody may have pasted a URL with a token.
            return Err(table.wrong(key, &expected, "another text"));
        }
        Ok(Some(url.trim_end_matches('/').to_owned()))
    };
    let base = url("base_url", ["https://", "http://"])?;
    let ws = url("ws_url", ["wss://", "ws://"])?;
    if is_kite {
        let base = base.unwrap_or_else(|| "https://api.kite.trade".to_owned());
        return Ok((base, ws.unwrap_or_else(|| "wss://ws.kite.trade".to_owned())));
    }
    let Some(base) = base else {
        return Err(table.missing("base_url", "the deployment's URL, such as https://host/apimarketdata"));
    };
    let ws = ws.unwrap_or_else(|| format!("ws{}/socket.io", &base["http".len()..]));
    Ok((base, ws))
}

fn credentials(table: &mut Table, is_kite: bool) -> Result<CredentialSource, SettingsError> {
    let (key, secret) = if is_kite { ("api_key", "access_token") } else { ("app_key", "secret_key") };
    let names = (table.text(&format!("{key}_env"))?, table.text(&format!("{secret}_env"))?);
    let file = table.text("credentials_file")?;
    match (names, file) {
        ((Some(key), Some(secret)), None) => Ok(CredentialSource::Environment { key, secret }),
        ((None, None), Some(path)) => Ok(CredentialSource::File { path: path.into(), key, secret }),
        _ => {
            let expected = format!("either {key}_env and {secret}_env, or a file with {key} and {secret}");
            Err(table.missing("credentials_file", &expected))
        }
    }
}

fn recovery(table: &mut Table) -> Result<RecoverySettings, SettingsError> {
    let waits = (Duration::from_millis(1), HOUR);
    let base = table.duration("backoff_base", waits)?.unwrap_or(Duration::from_secs(1));
    let cap = table.duration("backoff_cap", waits)?.unwrap_or(Duration::from_mins(1)).max(base);
    let limit = table.number("backoff_limit", (0, 1_000_000))?.unwrap_or(0);
    let stable_after = table.duration("stable_after", (Duration::ZERO, HOUR))?.unwrap_or(Duration::from_secs(10));
    let credentials_poll = table.duration("credentials_poll", waits)?.unwrap_or(Duration::from_secs(5));
    // 0 stands for: for ever.
    let limit = u32::try_from(limit).ok().filter(|&limit| limit > 0);
    Ok(RecoverySettings { backoff: BackoffSettings { base, cap, limit }, stable_after, credentials_poll })
}

fn limits(table: &mut Table, is_kite: bool) -> Result<Limits, SettingsError> {
    let (connections, instruments) = if is_kite { (3, 3000) } else { (1, 10_000) };
    let size = |number: Option<u64>, default: usize| number.map_or(default, |number| number as usize);
    Ok(Limits {
        connects_per_second: table.rate("connects_per_second")?.unwrap_or(1.0),
        calls_per_second: table.rate("calls_per_second")?.unwrap_or(if is_kite { 10.0 } else { 2.0 }),
        batch: size(table.number("batch", (1, 3000))?, if is_kite { 500 } else { 50 }),
        connections: size(table.number("connections", (1, connections as u64))?, connections),
        instruments: size(table.number("instruments_per_connection", (1, instruments as u64))?, instruments),
        timeout: table.duration("timeout", (Duration::from_millis(10), HOUR))?.unwrap_or(Duration::from_secs(10)),
        max_message_bytes: size(table.number("max_message_bytes", (4096, 64 << 20))?, 1 << 20),
    })
}

impl Default for XtsSettings {
    fn default() -> Self {
        Self { eio: Eio::V3, broadcast_mode: "Full", source: "WEBAPI".to_owned(), codes: None }
    }
}

fn xts(table: &mut Table) -> Result<XtsSettings, SettingsError> {
    let preset = XtsSettings::default();
    let eio = match table.number("eio", (3, 4))? {
        Some(4) => Eio::V4,
        _ => preset.eio,
    };
    let modes = [("Full", "Full"), ("Partial", "Partial")];
    let broadcast_mode = table.choice("broadcast_mode", &modes)?.unwrap_or(preset.broadcast_mode);
    let source = table.text("source")?.unwrap_or(preset.source);
    let codes = table.numbers("codes")?;
    let known = |number: u64| {
        let code = Code::from_number(number).filter(|&code| code != Code::MarketStatus);
        code.ok_or_else(|| table.wrong("codes", "some of 1501, 1502, 1505, 1510 and 1512", &number.to_string()))
    };
    let codes = codes.map(|codes| codes.into_iter().map(known).collect()).transpose()?;
    Ok(XtsSettings { eio, broadcast_mode, source, codes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::broker::quote::Exchange;
    use crate::source::broker::symbols::Address;
    use crate::source::broker::xts::fields::Key;

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
        assert_eq!((xts.xts.eio, xts.xts.broadcast_mode, xts.silence), (Eio::V3, "Full", None));
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
            (&format!("{KITE}connections = 4"), "feeds[0].connections: expected a whole number from 1 to 3, got \"4\""),
            (&format!("{KITE}symbols = {{ A = 1, B = 1 }}"), "feeds[0].symbols.B: expected an instrument of its own"),
            (&format!("{KITE}symbols = {{ A = \"x\" }}"), "feeds[0].symbols.A: expected"),
            (&format!("{KITE}symbols = {{ A = {{ token = 1, x = 2 }} }}"), "feeds[0].symbols.A.x: expected the name"),
            (&format!("{XTS}symbols = {{ A = 1 }}"), "feeds[0].symbols.A: expected { segment = 1, id = 2885 }"),
            (&format!("{XTS}eio = 5"), "feeds[0].eio: expected a whole number from 3 to 4"),
            (&format!("{XTS}codes = [1501, 1504]"), "feeds[0].codes: expected some of 1501"),
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
