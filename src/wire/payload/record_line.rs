//! A payload as JSON: the record as it stands in a JSONL file, the same keys, and numbers at the scale of the source.

use prost::Message as _;
use serde_json::{Map, Value, json};

use super::gex::{Gex, MaxPriorsTuple, Strike};
use super::greek::{MiniContract, OptionProfile};
use super::orderflow::{self, Orderflow};
use super::spot::SpotPrice;
use super::{Profile, decompress};
use crate::wire::gexbot::PayloadKind;

/// Why a payload is no record.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum PayloadError {
    /// Another service's, or a new kind.
    #[error("expected a payload of proto.gex, proto.greek, proto.orderflow or proto.spot, got {type_url}")]
    UnknownType { type_url: String },
    /// Damaged, not compressed, or too large.
    #[error("expected a payload compressed with zstd, of at most {limit} bytes without: {source}")]
    NotCompressed { limit: usize, source: std::io::Error },
    /// More strikes or contracts than any chain has: as JSON each takes a hundred times its bytes.
    #[error("expected at most {MAX_ROWS} strikes or contracts, got {rows}")]
    TooManyRows { rows: usize },
    /// Another message than its type says.
    #[error("expected a payload of {}: {source}", kind.type_url())]
    Malformed { kind: PayloadKind, source: prost::DecodeError },
}

/// Strikes or contracts of a record that is shown: some ten times those of the longest chain.
pub const MAX_ROWS: usize = 8192;

/// A payload's record, and its length without compression in bytes. A payload that would be longer than `limit` is
/// refused.
pub fn record_of(
    type_url: &str,
    payload: &[u8],
    profile: Profile,
    limit: usize,
) -> Result<(Map<String, Value>, usize), PayloadError> {
    let kinds = [PayloadKind::Gex, PayloadKind::Greek, PayloadKind::Orderflow, PayloadKind::Spot];
    let known = kinds.into_iter().find(|kind| type_url.contains(kind.type_url()));
    let kind = known.ok_or_else(|| PayloadError::UnknownType { type_url: type_url.to_owned() })?;
    let message = decompress(payload, limit).map_err(|source| PayloadError::NotCompressed { limit, source })?;
    let message = message.as_slice();
    let malformed = |source| PayloadError::Malformed { kind, source };
    let bounded = |rows: usize| if rows > MAX_ROWS { Err(PayloadError::TooManyRows { rows }) } else { Ok(()) };
    let record = match kind {
        PayloadKind::Gex => {
            let record = Gex::decode(message).map_err(malformed)?;
            bounded(record.strikes.len())?;
            gex(&record)
        }
        PayloadKind::Greek => {
            let record = OptionProfile::decode(message).map_err(malformed)?;
            bounded(record.mini_contracts.len())?;
            greek(&record)
        }
        PayloadKind::Orderflow => of_orderflow(&Orderflow::decode(message).map_err(malformed)?, profile),
        PayloadKind::Spot => spot(&SpotPrice::decode(message).map_err(malformed)?),
    };
    Ok((record.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(), message.len()))
}

/// Keys in the order of the source.
type RecordKeys = Vec<(&'static str, Value)>;

fn of_orderflow(record: &Orderflow, profile: Profile) -> RecordKeys {
    let numbers = orderflow::values(record, profile).map(|(key, value, factor)| (key, scaled(value, factor)));
    head(record.timestamp, &record.ticker).into_iter().chain(numbers).collect()
}

fn gex(record: &Gex) -> RecordKeys {
    let mut keys = head(record.timestamp, &record.ticker);
    keys.extend(days(record.min_dte, record.sec_min_dte));
    keys.extend([
        ("spot", price(record.spot)),
        ("zero_gamma", price(record.zero_gamma)),
        ("major_pos_vol", price(record.major_pos_vol)),
        ("major_pos_oi", price(record.major_pos_oi)),
        ("major_neg_vol", price(record.major_neg_vol)),
        ("major_neg_oi", price(record.major_neg_oi)),
        ("strikes", record.strikes.iter().map(strike).collect()),
        ("sum_gex_vol", scaled(record.sum_gex_vol, 1_000)),
        ("sum_gex_oi", scaled(record.sum_gex_oi, 1_000)),
        ("delta_risk_reversal", scaled(record.delta_risk_reversal, 1_000)),
    ]);
    let max = |tuple: &MaxPriorsTuple| json!([scaled(tuple.first_value, 100), scaled(tuple.second_value, 1_000)]);
    keys.extend(
        record.max_priors.as_ref().map(|max_priors| ("max_priors", max_priors.tuples.iter().map(max).collect())),
    );
    keys
}

fn strike(row: &Strike) -> Value {
    let mut cells = vec![price(row.strike_price), scaled(row.value_1, 100), scaled(row.value_2, 100)];
    cells.extend(row.priors.as_ref().map(|priors| list(&priors.values, 100)));
    cells.into()
}

fn greek(record: &OptionProfile) -> RecordKeys {
    let mut keys = head(record.timestamp, &record.ticker);
    keys.push(("spot", price(record.spot)));
    keys.extend(days(record.min_dte, record.sec_min_dte));
    keys.extend([
        ("major_positive", price(record.major_call_gamma)),
        ("major_negative", price(record.major_put_gamma)),
        ("major_long_gamma", price(record.major_long_gamma)),
        ("major_short_gamma", price(record.major_short_gamma)),
        ("mini_contracts", record.mini_contracts.iter().map(contract).collect()),
    ]);
    keys
}

fn contract(row: &MiniContract) -> Value {
    json!([
        price(row.strike),
        scaled(row.call_ivol, 1_000),
        scaled(row.put_ivol, 1_000),
        scaled(row.call_cvolume, 100),
        list(&row.call_cvolume_priors, 100),
        row.put_cvolume,
        row.put_cvolume_priors.as_ref().map(|priors| list(&priors.values, 1)),
    ])
}

fn spot(record: &SpotPrice) -> RecordKeys {
    let mut keys = head(record.timestamp, &record.ticker);
    keys.push(("spot", price(record.spot)));
    keys.extend(record.source_timestamp_ms.map(|time| ("source_timestamp_ms", time.into())));
    keys
}

fn head(timestamp: i64, ticker: &str) -> RecordKeys {
    vec![("timestamp", timestamp.into()), ("ticker", ticker.into())]
}

fn days(min_dte: Option<i32>, sec_min_dte: Option<i32>) -> RecordKeys {
    [("min_dte", min_dte), ("sec_min_dte", sec_min_dte)]
        .into_iter()
        .filter_map(|(key, days)| Some((key, days?.into())))
        .collect()
}

fn price(value: u32) -> Value {
    scaled(value, 100)
}

fn list(values: &[i32], factor: u32) -> Value {
    values.iter().map(|&value| scaled(value, factor)).collect()
}

/// The number that the source had. Division rounds to the nearest double, which is the one that the source's digits
/// mean, so it is printed with these digits. Whole numbers stay whole where nothing was multiplied.
fn scaled(value: impl Into<i64>, factor: u32) -> Value {
    let value = value.into();
    if factor == 1 { value.into() } else { (value as f64 / f64::from(factor)).into() }
}

#[cfg(test)]
mod tests {
    use proptest::array::{uniform, uniform3};
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::payload::{Encoder, EncoderOptions, Record, spot as spot_price};

    const LIMIT: usize = 16 << 20;

    /// Equal as numbers: 6830 is 6830.0.
    fn assert_same(printed: &Value, source: &Value, path: &str) {
        match (printed, source) {
            (Value::Array(printed), Value::Array(source)) => {
                assert_eq!(printed.len(), source.len(), "{path}");
                printed.iter().zip(source).for_each(|(printed, source)| assert_same(printed, source, path));
            }
            (Value::Number(printed), Value::Number(source)) => {
                assert!(
                    (printed.as_f64().unwrap() - source.as_f64().unwrap()).abs() == 0.0,
                    "{path}: {printed} {source}"
                );
            }
            _ => assert_eq!(printed, source, "{path}"),
        }
    }

    #[test]
    fn the_payloads_of_a_foreign_encoder_are_printed_as_their_source_lines_have_them() {
        const GEX: (&str, &[u8]) = (
            include_str!("../../../tests/fixtures/gexbot/gex_full.jsonl"),
            include_bytes!("../../../tests/fixtures/gexbot/gex_full.payload.bin"),
        );
        const GREEK: (&str, &[u8]) = (
            include_str!("../../../tests/fixtures/gexbot/gamma_zero.jsonl"),
            include_bytes!("../../../tests/fixtures/gexbot/gamma_zero.payload.bin"),
        );
        for (type_url, (source, message)) in [("proto.gex", GEX), ("proto.greek", GREEK)] {
            let payload = zstd::encode_all(message, 3).unwrap();
            let (record, length) = record_of(type_url, &payload, Profile::V2026_04, LIMIT).unwrap();
            let source: Map<String, Value> = serde_json::from_str(source).unwrap();
            for (key, value) in &source {
                assert_same(&record[key], value, key);
            }
            assert_eq!((record.len(), length), (source.len(), message.len()), "{record:?}");
        }
    }

    /// A number of so many decimal places, as text.
    fn decimal(value: i64, places: u32) -> String {
        let (sign, value, factor) = (if value < 0 { "-" } else { "" }, value.unsigned_abs(), 10_u64.pow(places));
        let width = places as usize;
        if places == 0 {
            format!("{sign}{value}")
        } else {
            format!("{sign}{}.{:0width$}", value / factor, value % factor)
        }
    }

    fn list_of(values: &[i32], places: u32) -> String {
        let values: Vec<String> = values.iter().map(|&value| decimal(value.into(), places)).collect();
        format!("[{}]", values.join(","))
    }

    fn priors() -> impl Strategy<Value = Vec<i32>> {
        vec(any::<i32>(), 1..6)
    }

    fn prices<const N: usize>(names: [&'static str; N]) -> impl Strategy<Value = Vec<String>> {
        let text = move |values: [u32; N]| {
            names.iter().zip(values).map(|(name, value)| format!("\"{name}\":{}", decimal(value.into(), 2))).collect()
        };
        uniform(any::<u32>()).prop_map(text)
    }

    fn gex_line() -> impl Strategy<Value = String> {
        let names = ["spot", "zero_gamma", "major_pos_vol", "major_pos_oi", "major_neg_vol", "major_neg_oi"];
        let row = (any::<u32>(), any::<i32>(), any::<i32>(), priors()).prop_map(|(strike, one, two, priors)| {
            let [one, two] = [one, two].map(|value| decimal(value.into(), 2));
            format!("[{},{one},{two},{}]", decimal(strike.into(), 2), list_of(&priors, 2))
        });
        let max = (any::<i32>(), any::<i32>())
            .prop_map(|(price, change)| format!("[{},{}]", decimal(price.into(), 2), decimal(change.into(), 3)));
        let sums = ["sum_gex_vol", "sum_gex_oi", "delta_risk_reversal"];
        (prices(names), vec(row, 0..20), uniform3(any::<i32>()), vec(max, 1..7)).prop_map(
            move |(prices, rows, of, max)| {
                let of: Vec<String> = sums
                    .iter()
                    .zip(of)
                    .map(|(name, value)| format!("\"{name}\":{}", decimal(value.into(), 3)))
                    .collect();
                let (prices, rows, max) = (prices.join(","), rows.join(","), max.join(","));
                let head = r#""timestamp":1764340202,"ticker":"SPX","min_dte":0,"sec_min_dte":3"#;
                format!("{{{head},{prices},\"strikes\":[{rows}],{},\"max_priors\":[{max}]}}", of.join(","))
            },
        )
    }

    fn greek_line() -> impl Strategy<Value = String> {
        let names = ["spot", "major_positive", "major_negative", "major_long_gamma", "major_short_gamma"];
        let put = option::of((any::<i32>(), priors()));
        let row =
            (any::<[u32; 3]>(), any::<i32>(), priors(), put).prop_map(|([strike, call, put], value, of, volume)| {
                let (volume, put_priors) = volume.map_or_else(
                    || ("null".to_owned(), "null".to_owned()),
                    |(volume, priors)| (volume.to_string(), list_of(&priors, 0)),
                );
                let [call, put] = [call, put].map(|value| decimal(value.into(), 3));
                let (strike, value) = (decimal(strike.into(), 2), decimal(value.into(), 2));
                format!("[{strike},{call},{put},{value},{},{volume},{put_priors}]", list_of(&of, 2))
            });
        (prices(names), vec(row, 0..20)).prop_map(|(prices, rows)| {
            let (prices, rows) = (prices.join(","), rows.join(","));
            let head = r#""timestamp":1764340202,"ticker":"SPX","min_dte":0,"sec_min_dte":3"#;
            format!("{{{head},{prices},\"mini_contracts\":[{rows}]}}")
        })
    }

    /// Encodes a line, and prints what its payload says.
    fn printed(kind: PayloadKind, line: &str) -> Map<String, Value> {
        let record = Record::parse(kind, line.as_bytes()).unwrap().record;
        let mut encoder = Encoder::new(EncoderOptions { zstd_level: 1 }).unwrap();
        record_of(kind.type_url(), record.encode(&mut encoder), Profile::V2026_04, LIMIT).unwrap().0
    }

    proptest! {
        #[test]
        fn every_number_of_a_record_survives_its_payload(
            (kind, line) in prop_oneof![
                gex_line().prop_map(|line| (PayloadKind::Gex, line)),
                greek_line().prop_map(|line| (PayloadKind::Greek, line)),
            ],
        ) {
            let (printed, source) = (printed(kind, &line), serde_json::from_str::<Map<String, Value>>(&line).unwrap());
            for (key, value) in &source {
                assert_same(&printed[key], value, key);
            }
            prop_assert_eq!(printed.len(), source.len());
        }

        #[test]
        fn a_spot_price_survives_its_payload(timestamp in any::<i64>(), ticker in "[A-Z_]{1,10}", price in any::<u32>()) {
            let mut encoder = Encoder::new(EncoderOptions { zstd_level: 1 }).unwrap();
            let payload = encoder.encode(&spot_price::of_record(timestamp, &ticker, price));
            let (record, _) = record_of("proto.spot", payload, Profile::V2026_04, LIMIT).unwrap();
            let price: Value = serde_json::from_str(&decimal(price.into(), 2)).unwrap();
            prop_assert_eq!(Value::from(record), json!({ "timestamp": timestamp, "ticker": ticker, "spot": price }));
        }
    }

    #[test]
    fn a_spot_price_is_a_line_and_another_type_is_refused() {
        let message = include_bytes!("../../../tests/fixtures/gexbot/spot.payload.bin");
        let payload = zstd::encode_all(message.as_slice(), 3).unwrap();
        let (record, _) = record_of("proto.spot", &payload, Profile::V2026_04, LIMIT).unwrap();
        let expected = r#"{"timestamp":1764340202,"ticker":"SPX","spot":6822.95}"#;
        assert_eq!(Value::from(record), serde_json::from_str::<Value>(expected).unwrap());
        let error = record_of("proto.volume", &payload, Profile::V2026_04, LIMIT).unwrap_err();
        assert!(error.to_string().contains("got proto.volume"), "{error}");
    }

    #[test]
    fn a_payload_that_grows_beyond_the_limit_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
        let error = record_of("proto.gex", &bomb, Profile::V2026_04, 1 << 16).unwrap_err();
        assert!(matches!(error, PayloadError::NotCompressed { limit: 65_536, .. }), "{error}");
    }
}
