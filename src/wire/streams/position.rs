//! Where a client stands in a channel: an epoch, and the number of the last message it has.
//!
//! `{"epoch":"5f0c…","seq":42}`. The numbers of a channel that Kafka feeds count per partition; with more than one
//! partition `seq` is an object, `{"0":42,"1":7}`. A partition that is not named stands at 0.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Bytes of the longest epoch a client may name.
const MAX_EPOCH: usize = 64;

/// Partitions a position may name.
const MAX_PARTITIONS: usize = 10_000;

/// Numbers of messages, by partition. Those of this process have one partition, 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seqs(pub BTreeMap<u32, u64>);

impl Seqs {
    /// The number in one partition; 0 if it is not named.
    pub fn of(&self, partition: u32) -> u64 {
        self.0.get(&partition).copied().unwrap_or(0)
    }
}

impl Serialize for Seqs {
    /// A plain number while there is only the partition 0.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.keys().all(|&partition| partition == 0) {
            serializer.serialize_u64(self.of(0))
        } else {
            serializer.collect_map(&self.0)
        }
    }
}

/// What a client has of a channel: everything up to these numbers of this epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// The epoch that the numbers belong to.
    pub epoch: Box<str>,
    /// The numbers of the last messages it has.
    pub seqs: Seqs,
}

impl Since {
    fn parse(value: &Value) -> Result<Self, String> {
        let wrong = || format!(r#"expected {{"epoch":"…","seq":n}}, got {}"#, shown(value));
        let fields = value.as_object().ok_or_else(wrong)?;
        let epoch = match fields.get("epoch") {
            Some(Value::String(epoch)) if (1..=MAX_EPOCH).contains(&epoch.len()) => epoch.as_str().into(),
            Some(other) => return Err(format!("expected an epoch of 1 to 64 bytes, got {}", shown(other))),
            None => return Err(wrong()),
        };
        let number = |value: &Value| {
            let number = value.as_u64().filter(|&number| number < 1 << 53);
            number.ok_or_else(|| format!("expected a seq of 0 to 2^53 - 1, got {}", shown(value)))
        };
        let seqs = match fields.get("seq") {
            Some(Value::Object(partitions)) if partitions.len() > MAX_PARTITIONS => {
                return Err(format!("expected at most {MAX_PARTITIONS} partitions, got {}", partitions.len()));
            }
            Some(Value::Object(partitions)) => {
                let pair = |(partition, seq): (&String, &Value)| {
                    let known = partition.parse().ok().filter(|&partition: &u32| i32::try_from(partition).is_ok());
                    let partition = known.ok_or_else(|| format!("expected a partition number, got {partition:?}"))?;
                    Ok((partition, number(seq)?))
                };
                partitions.iter().map(pair).collect::<Result<_, String>>()?
            }
            Some(seq) => BTreeMap::from([(0, number(seq)?)]),
            None => return Err(wrong()),
        };
        Ok(Self { epoch, seqs: Seqs(seqs) })
    }

    /// What `since` says of the channels of a request: one position if the request names one channel, or an
    /// object of positions by channel.
    pub(super) fn parse_all(value: &Value, channels: &[Cow<'_, str>]) -> Result<Vec<(Box<str>, Self)>, String> {
        let is_plain = |fields: &Map<String, Value>| {
            ["epoch", "seq"].iter().any(|key| fields.get(*key).is_some_and(|value| !is_position(value)))
        };
        match (value, channels) {
            (Value::Object(fields), _) if !is_plain(fields) && !fields.is_empty() => {
                let position = |(channel, position): (&String, &Value)| {
                    if !channels.iter().any(|named| *named == channel.as_str()) {
                        return Err(format!("since: expected the channels of the request, got {}", quoted(channel)));
                    }
                    let since =
                        Self::parse(position).map_err(|reason| format!("since of {}: {reason}", quoted(channel)))?;
                    Ok((channel.as_str().into(), since))
                };
                fields.iter().map(position).collect()
            }
            (_, [channel]) => {
                let since = Self::parse(value).map_err(|reason| format!("since: {reason}"))?;
                Ok(vec![(channel.as_ref().into(), since)])
            }
            _ => Err(format!("since: expected an object of positions by channel, got {}", shown(value))),
        }
    }
}

fn is_position(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.contains_key("epoch"))
}

/// A value as an error repeats it.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

fn quoted(name: &str) -> String {
    format!("{:?}", name.chars().take(60).collect::<String>())
}

/// Why missed messages are not sent again. The client goes on with what is published from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRecovered {
    /// The position counts in another epoch: that of an earlier process, or of a topic that was deleted.
    UnknownEpoch,
    /// Messages after the position are no longer kept.
    TooOld,
    /// The position is after the newest message.
    Ahead,
    /// The channel sends states: the current one says everything, and follows.
    Conflated,
    /// The log that the messages must be read from does not answer, or too many clients ask for it.
    Unavailable,
}

impl NotRecovered {
    /// The reason on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownEpoch => "unknown_epoch",
            Self::TooOld => "too_old",
            Self::Ahead => "ahead",
            Self::Conflated => "conflated",
            Self::Unavailable => "unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(value: &Value, channels: &[&'static str]) -> Result<Vec<(Box<str>, Since)>, String> {
        let channels: Vec<Cow<'_, str>> = channels.iter().map(|&channel| channel.into()).collect();
        Since::parse_all(value, &channels)
    }

    fn since(epoch: &str, seqs: &[(u32, u64)]) -> Since {
        Since { epoch: epoch.into(), seqs: Seqs(seqs.iter().copied().collect()) }
    }

    #[test]
    fn a_position_is_for_the_one_channel_or_stands_under_its_channel() {
        let one = parsed(&json!({"epoch": "e", "seq": 7}), &["lines"]).unwrap();
        assert_eq!(one, [("lines".into(), since("e", &[(0, 7)]))]);
        let by_channel = json!({"lines": {"epoch": "e", "seq": {"0": 1, "3": 9}}, "epoch": {"epoch": "f", "seq": 0}});
        let both = parsed(&by_channel, &["lines", "epoch", "signals"]).unwrap();
        assert_eq!(both, [("lines".into(), since("e", &[(0, 1), (3, 9)])), ("epoch".into(), since("f", &[(0, 0)]))]);
    }

    #[test]
    fn what_is_no_position_is_refused_with_what_was_expected() {
        for (value, words) in [
            (json!(7), "expected"),
            (json!("NaN"), "expected"),
            (json!(null), "expected"),
            (json!({}), "expected"),
            (json!({"seq": 7}), "epoch"),
            (json!({"epoch": "e"}), "seq"),
            (json!({"epoch": "", "seq": 1}), "epoch of 1 to 64"),
            (json!({"epoch": 5, "seq": 1}), "epoch of 1 to 64"),
            (json!({"epoch": "e", "seq": -1}), "seq of 0"),
            (json!({"epoch": "e", "seq": 1.5}), "seq of 0"),
            (json!({"epoch": "e", "seq": "1"}), "seq of 0"),
            (json!({"epoch": "e", "seq": 1u64 << 53}), "seq of 0"),
            (json!({"epoch": "e", "seq": {"-1": 1}}), "partition number"),
            (json!({"epoch": "e", "seq": {"4294967295": 1}}), "partition number"),
            (json!({"epoch": "e", "seq": {"0": null}}), "seq of 0"),
            (json!({"signals": {"epoch": "e", "seq": 1}}), "channels of the request"),
        ] {
            let refused = parsed(&value, &["lines"]).unwrap_err();
            assert!(refused.contains(words), "{value}: {refused}");
        }
        assert!(parsed(&json!({"epoch": "e", "seq": 1}), &["lines", "signals"]).unwrap_err().contains("by channel"));
    }

    #[test]
    fn a_single_partition_is_told_as_a_number() {
        let text = |seqs: &[(u32, u64)]| serde_json::to_string(&since("e", seqs).seqs).unwrap();
        assert_eq!([text(&[]), text(&[(0, 7)]), text(&[(0, 7), (1, 2)])], ["0", "7", r#"{"0":7,"1":2}"#]);
    }
}
