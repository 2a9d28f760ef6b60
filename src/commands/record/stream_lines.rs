//! Messages of `/ws` as the lines of a recording: each in the shape in which its channel is fed
//! (`docs/protocols/streams.md`, "Input shapes"), with the digits it came with.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::heard::{Heard, stream_file};
use super::recorded_files::RecordedRecord;
use crate::engine::system_clock;
use crate::wire::streams::rfc3339::UtcTime;
use crate::wire::streams::{PORTFOLIO, PRICE_UPDATES, SIGNALS, TRADES};

/// A JSON object: its members in their order, values as they stand in the text.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((MemberName(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[derive(Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Members<'a> {
    fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    /// The value of a text.
    fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        serde_json::from_str::<MemberName<'a>>(self.get(key)?.get()).ok().map(|MemberName(text)| text)
    }
}

/// The server's answer to a request to subscribe, if a message is one: that it is granted, or why not.
pub fn answer(message: &str) -> Option<Result<(), String>> {
    let told: Members<'_> = serde_json::from_str(message).ok()?;
    match &*told.text("type")? {
        "subscribed" => Some(Ok(())),
        "error" => Some(Err(error_of(&told, message))),
        _ => None,
    }
}

/// The words of an error.
fn error_of(told: &Members<'_>, message: &str) -> String {
    told.text("error").map_or_else(|| message.to_owned(), Cow::into_owned)
}

/// What a message brings: nothing, as an answer does, one or more records, or that some are left out.
pub fn heard(message: &str) -> Result<Vec<Heard>, String> {
    let told: Members<'_> =
        serde_json::from_str(message).map_err(|error| format!("expected a JSON object: {error}"))?;
    let stamp = told.get("timestamp");
    let unix_seconds = |stamp: &RawValue| {
        let text: MemberName<'_> = serde_json::from_str(stamp.get()).ok()?;
        Some(UtcTime::parse(&text.0)?.timestamp()?.as_second())
    };
    let at = stamp.and_then(unix_seconds).unwrap_or_else(|| (system_clock::unix_ns() / 1_000_000_000) as i64);
    let record =
        |channel: &str, line: Vec<u8>| Heard::Record(RecordedRecord { series: stream_file(channel), at, line });
    let with_stamp = |members: &[(Cow<'_, str>, &RawValue)]| {
        let stamp = stamp.map(|stamp| (Cow::Borrowed("timestamp"), stamp));
        object(stamp.iter().chain(members).map(|(key, value)| (&**key, *value)))
    };
    let kind = told.text("type").ok_or("expected a message with a type")?;
    Ok(match &*kind {
        "message" => {
            let channel = told.text("channel").ok_or("expected a message with a channel")?;
            match (told.get("payload"), told.get("encoding")) {
                (Some(payload), None) => vec![record(&channel, one_line(payload.get()))],
                _ => vec![Heard::LeftOut(format!("{channel}: a payload that is not JSON"))],
            }
        }
        "signal" => vec![record(SIGNALS, without_frame(&told))],
        "trade_executed" => vec![record(TRADES, without_frame(&told))],
        "portfolio_update" => {
            let data: Members<'_> = nested(&told, "data")?;
            vec![record(PORTFOLIO, with_stamp(&data.0))]
        }
        "price_update" => {
            let symbols: Members<'_> = nested(&told, "symbols")?;
            let mut records = Vec::with_capacity(symbols.0.len());
            for (symbol, price) in &symbols.0 {
                let price: Members<'_> = serde_json::from_str(price.get()).map_err(|error| error.to_string())?;
                let symbol = serde_json::value::to_raw_value(symbol).map_err(|error| error.to_string())?;
                let mut members = vec![(Cow::Borrowed("symbol"), &*symbol)];
                // They are computed again from the others.
                let computed = ["change", "change_pct", "close"];
                members.extend(price.0.iter().filter(|(key, _)| !computed.contains(&&**key)).cloned());
                records.push(record(PRICE_UPDATES, with_stamp(&members)));
            }
            records
        }
        "skipped" => {
            let channel = told.text("channel").ok_or("expected a message with a channel")?.into_owned();
            let count = told.get("count").and_then(|count| count.get().parse().ok());
            vec![Heard::Skipped { channel, count: count.ok_or("expected a message with a count")? }]
        }
        "error" => return Err(error_of(&told, message)),
        _ => Vec::new(),
    })
}

fn nested<'a>(told: &Members<'a>, key: &str) -> Result<Members<'a>, String> {
    let value = told.get(key).ok_or_else(|| format!("expected a message with {key}"))?;
    serde_json::from_str(value.get()).map_err(|error| format!("{key}: {error}"))
}

/// A message without what belongs to the connection and not to the record.
fn without_frame(told: &Members<'_>) -> Vec<u8> {
    let own = ["type", "channel", "seq", "epoch", "partition"];
    let kept = told.0.iter().filter(|(key, _)| !own.contains(&&**key));
    object(kept.map(|(key, value)| (&**key, *value)))
}

fn object<'a>(members: impl Iterator<Item = (&'a str, &'a RawValue)>) -> Vec<u8> {
    let mut line = vec![b'{'];
    for (at, (key, value)) in members.enumerate() {
        if at > 0 {
            line.push(b',');
        }
        line.extend(serde_json::to_vec(key).expect("a text is JSON"));
        line.push(b':');
        line.extend(one_line(value.get()));
    }
    line.push(b'}');
    line
}

/// JSON without line breaks: they stand only between its tokens.
pub fn one_line(json: &str) -> Vec<u8> {
    json.trim().bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::streams::portfolio::Portfolio;
    use crate::wire::streams::shapes::{Price, Trade, TradingSignal};

    fn lines(message: &str) -> Vec<(String, i64, String)> {
        let lines = heard(message).unwrap().into_iter().map(|heard| match heard {
            Heard::Record(RecordedRecord { series, at, line }) => {
                (series.display().to_string(), at, String::from_utf8(line).unwrap())
            }
            other => panic!("{other:?}"),
        });
        lines.collect()
    }

    #[test]
    fn messages_become_what_their_channels_are_fed_with() {
        let stamp = r#""timestamp":"2024-12-19T12:00:00.123Z""#;
        let signal = r#"{"type":"signal","signal_type":"BUY","symbol":"A","price":150.10,"#.to_owned() + stamp + "}";
        let expected = r#"{"signal_type":"BUY","symbol":"A","price":150.10,"#.to_owned() + stamp + "}";
        assert_eq!(lines(&signal), [("streams/signals.jsonl".to_owned(), 1_734_609_600, expected.clone())]);
        assert!(TradingSignal::parse(expected.as_bytes()).is_ok());
        let trade = format!(
            r#"{{"type":"trade_executed","symbol":"A","side":"BUY","quantity":1,"price":2,{stamp},"seq":7,"epoch":"e","partition":3}}"#
        );
        let line = &lines(&trade)[0].2;
        assert_eq!(*line, format!(r#"{{"symbol":"A","side":"BUY","quantity":1,"price":2,{stamp}}}"#));
        assert!(Trade::parse(line.as_bytes()).is_ok());
        let portfolio = format!(
            r#"{{"type":"portfolio_update","channel":"portfolio",{stamp},"data":{{"positions":{{"A":{{"quantity":1.50}}}},"total_pnl":1,"position_count":1}}}}"#
        );
        let line = &lines(&portfolio)[0].2;
        assert_eq!(
            *line,
            format!(r#"{{{stamp},"positions":{{"A":{{"quantity":1.50}}}},"total_pnl":1,"position_count":1}}"#)
        );
        assert!(Portfolio::parse(line.as_bytes()).is_ok());
        let prices = format!(
            r#"{{"type":"price_update","symbols":{{"A":{{"price":1.50,"change":0.5,"change_pct":1,"close":1.50,"prev_close":1}},"B\"":{{"price":2}}}},{stamp}}}"#
        );
        let told = lines(&prices);
        assert_eq!(told[0].2, format!(r#"{{{stamp},"symbol":"A","price":1.50,"prev_close":1}}"#));
        assert!(
            told.iter()
                .all(|(series, _, line)| series == "streams/price_updates.jsonl"
                    && Price::parse(line.as_bytes()).is_ok())
        );
    }

    #[test]
    fn the_payload_of_a_topic_is_its_line() {
        let message = "{\"type\":\"message\",\"channel\":\"lines\",\"payload\":{\"a\":\n [1.50,\r\n2]},\"timestamp\":\"2024-12-19T12:00:00Z\"}";
        assert_eq!(
            lines(message),
            [("streams/lines.jsonl".to_owned(), 1_734_609_600, "{\"a\":  [1.50,  2]}".to_owned())]
        );
        let binary = r#"{"type":"message","channel":"lines","payload":"AAE=","encoding":"base64"}"#;
        assert!(matches!(&heard(binary).unwrap()[..], [Heard::LeftOut(_)]));
    }

    #[test]
    fn what_the_server_left_out_is_a_gap_and_no_record() {
        let skipped = r#"{"type":"skipped","channel":"lines","epoch":"e","count":180,"from":58,"to":237}"#;
        let told = heard(skipped).unwrap();
        assert!(matches!(&told[..], [Heard::Skipped { channel, count: 180 }] if channel == "lines"), "{told:?}");
        for odd in [r#"{"type":"skipped","channel":"lines"}"#, r#"{"type":"skipped","count":1}"#] {
            assert!(heard(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn only_a_grant_or_an_error_answers_a_request() {
        assert_eq!(answer(r#"{"type":"subscribed","channels":["lines"]}"#), Some(Ok(())));
        assert_eq!(answer(r#"{"type":"error","error":"no"}"#), Some(Err("no".to_owned())));
        for other in [r#"{"type":"pong"}"#, r#"{"type":"signal","symbol":"A"}"#, "[]", "{}"] {
            assert_eq!(answer(other), None, "{other}");
        }
    }

    #[test]
    fn answers_bring_nothing_and_errors_are_told() {
        for answer in [r#"{"type":"pong"}"#, r#"{"type":"subscribed","channels":["lines"]}"#] {
            assert!(heard(answer).unwrap().is_empty());
        }
        let refused = r#"{"type":"error","error":"unknown channel \"x\"","code":"unknown_channel"}"#;
        assert_eq!(heard(refused).unwrap_err(), "unknown channel \"x\"");
        for odd in ["", "[]", "{}", r#"{"type":"price_update","symbols":[]}"#, r#"{"type":"message"}"#] {
            assert!(heard(odd).is_err(), "{odd}");
        }
    }
}
