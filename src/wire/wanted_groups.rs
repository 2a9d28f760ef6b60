//! What the bodies of POST and PATCH negotiate ask for: groups, by hub.
//!
//! Source: `docs/protocols/gexbot.md`, "POST: memberships by the server", "PATCH: another set of groups".

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::gexbot::{GroupName, HubName, HubTopic, Series};

/// Characters of the longest name in a body. GexBot's longest has about 40; the server keeps what it accepts.
const MAX_NAME: usize = 64;

/// How much a body may ask for.
#[derive(Debug, Clone, Copy)]
pub struct WantedLimits<'a> {
    /// First part of every group's name on the wire, which bodies leave out.
    pub prefix: &'a str,
    /// Pairs of hub and group.
    pub memberships: usize,
    /// Groups of one hub.
    pub groups_of_hub: usize,
}

/// Groups by hub, all of one generation of hubs.
#[derive(Debug, PartialEq, Eq)]
pub struct WantedGroups {
    v2: bool,
    by_topic: [BTreeSet<Box<str>>; 6],
}

/// Why a body is refused. All are the client's to fix.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum WantedError {
    /// It is not JSON, or not UTF-8.
    #[error("expected JSON in the body: {0}")]
    NotJson(String),
    /// A value is missing or of another type.
    #[error("expected {expected} as {place}, got {got}")]
    OtherType { expected: &'static str, place: String, got: &'static str },
    /// The list is empty.
    #[error("expected at least one group in groups, got none")]
    Empty,
    /// A name is longer than any group's.
    #[error("groups[{at}]: expected a name of at most {MAX_NAME} characters, got {length}")]
    LongName { at: usize, length: usize },
    /// The name has the prefix that the server adds.
    #[error("groups[{at}]: expected the name without its prefix, {unprefixed}, got {name}")]
    Prefixed { at: usize, unprefixed: String, name: String },
    /// The name has no form that a group has.
    #[error("groups[{at}]: unknown group {name:?}; expected a name such as SPX_classic_gex_full or SPX_spot")]
    UnknownGroup { at: usize, name: String },
    /// There is no such hub.
    #[error("groups[{at}]: unknown hub {name:?}; expected one of {}", HubName::all_names())]
    UnknownHub { at: usize, name: String },
    /// The group is not on this hub.
    #[error("groups[{at}]: {group} is a group of {}, not of {hub}", carriers(*.carrier))]
    OtherHub { at: usize, group: String, hub: HubName, carrier: Option<HubTopic> },
    /// Current and v2 hubs together.
    #[error("expected hubs of one generation, got {first} and {second}")]
    TwoGenerations { first: HubName, second: HubName },
    /// A ticker's analytics come without its spot group, although v2 hubs are asked for.
    #[error("expected {ticker}_spot beside the analytics of {ticker}{}", on(*.hub))]
    NoSpot { ticker: String, hub: Option<HubName> },
    /// A ticker's spot group comes alone.
    #[error("expected analytics of {ticker}, such as {ticker}_classic_gex_full, beside {ticker}_spot{}", on(*.hub))]
    NoAnalytics { ticker: String, hub: Option<HubName> },
    /// More pairs of hub and group than a key may have.
    #[error("expected at most {limit} memberships (pairs of hub and group), got {got}")]
    TooMany { limit: usize, got: usize },
    /// More groups than a connection may join.
    #[error("expected at most {limit} groups on one hub, got {got} on {hub}")]
    TooManyOfHub { limit: usize, got: usize, hub: HubName },
}

fn on(hub: Option<HubName>) -> String {
    hub.map(|hub| format!(" on {hub}")).unwrap_or_default()
}

fn carriers(topic: Option<HubTopic>) -> String {
    topic.map_or("the v2 hubs".to_owned(), |topic| format!("{} and {}", topic.hub(false), topic.hub(true)))
}

impl WantedError {
    /// Whether the body is well-formed and only asks for too much.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::TooMany { .. } | Self::TooManyOfHub { .. })
    }
}

impl WantedGroups {
    /// Reads a POST's body. A spot group asks for the v2 hubs, and is put on each of them that has analytics of
    /// its ticker; without any the groups are on the current hubs.
    pub fn of_post(body: &[u8], limits: &WantedLimits<'_>) -> Result<Self, WantedError> {
        let list = list(body)?;
        let names = list.iter().enumerate().map(|(at, item)| {
            let name = text(Some(item), || format!("groups[{at}]"))?;
            group(at, name, limits.prefix)
        });
        let mut wanted = Self::none(false);
        let (mut analytics, mut spots) = (BTreeMap::<&str, BTreeSet<HubTopic>>::new(), BTreeSet::new());
        for name in names {
            let name = name?;
            match name.series.topic() {
                Some(topic) => {
                    wanted.add(topic, &name);
                    analytics.entry(name.ticker).or_default().insert(topic);
                }
                None => _ = spots.insert(name.ticker),
            }
        }
        wanted.v2 = !spots.is_empty();
        if let Some(ticker) = analytics.keys().find(|&ticker| wanted.v2 && !spots.contains(ticker)) {
            return Err(WantedError::NoSpot { ticker: (*ticker).to_owned(), hub: None });
        }
        for ticker in spots {
            let topics = analytics.get(ticker);
            let topics = topics.ok_or_else(|| WantedError::NoAnalytics { ticker: ticker.to_owned(), hub: None })?;
            for &topic in topics {
                wanted.add(topic, &GroupName { ticker, series: Series::Spot });
            }
        }
        wanted.within(limits)
    }

    /// Reads a PATCH's body, which names the hub of each group.
    pub fn of_patch(body: &[u8], limits: &WantedLimits<'_>) -> Result<Self, WantedError> {
        let list = list(body)?;
        let mut pairs = Vec::with_capacity(list.len());
        for (at, item) in list.iter().enumerate() {
            let Value::Object(pair) = item else {
                let place = format!("groups[{at}]");
                let expected = r#"an object such as {"hub":"classic","group":"SPX_classic_gex_full"}"#;
                return Err(WantedError::OtherType { expected, place, got: type_of(Some(item)) });
            };
            let hub_name = text(pair.get("hub"), || format!("groups[{at}].hub"))?;
            let hub = HubName::parse(hub_name)
                .ok_or_else(|| WantedError::UnknownHub { at, name: hub_name.chars().take(MAX_NAME).collect() })?;
            let name = text(pair.get("group"), || format!("groups[{at}].group"))?;
            let group = group(at, name, limits.prefix)?;
            if !hub.carries(&group.series) {
                let carrier = group.series.topic();
                return Err(WantedError::OtherHub { at, group: name.to_owned(), hub, carrier });
            }
            pairs.push((hub, group));
        }
        let first = pairs[0].0;
        if let Some((second, _)) = pairs.iter().find(|(hub, _)| hub.v2 != first.v2) {
            return Err(WantedError::TwoGenerations { first, second: *second });
        }
        let mut wanted = Self::none(first.v2);
        for (hub, group) in &pairs {
            wanted.add(hub.topic, group);
        }
        if first.v2 {
            covered(&pairs)?;
        }
        wanted.within(limits)
    }

    /// Whether the groups are on the v2 hubs.
    pub fn is_v2(&self) -> bool {
        self.v2
    }

    /// The groups of one hub, without prefix and in order; none if it is not asked for.
    pub fn groups(&self, topic: HubTopic) -> impl ExactSizeIterator<Item = &str> {
        self.by_topic[topic as usize].iter().map(|name| &**name)
    }

    /// Pairs of hub and group.
    pub fn memberships(&self) -> usize {
        self.by_topic.iter().map(BTreeSet::len).sum()
    }

    fn none(v2: bool) -> Self {
        Self { v2, by_topic: Default::default() }
    }

    fn add(&mut self, topic: HubTopic, group: &GroupName<'_>) {
        self.by_topic[topic as usize].insert(group.series.unprefixed(group.ticker).into());
    }

    fn within(self, limits: &WantedLimits<'_>) -> Result<Self, WantedError> {
        let WantedLimits { memberships: limit, groups_of_hub, .. } = *limits;
        let got = self.memberships();
        if got > limit {
            return Err(WantedError::TooMany { limit, got });
        }
        for topic in HubTopic::ALL {
            let got = self.groups(topic).len();
            if got > groups_of_hub {
                return Err(WantedError::TooManyOfHub { limit: groups_of_hub, got, hub: topic.hub(self.v2) });
            }
        }
        Ok(self)
    }
}

/// Checks that on each hub the tickers with analytics are those with a spot group.
fn covered(pairs: &[(HubName, GroupName<'_>)]) -> Result<(), WantedError> {
    let of = |spot: bool| {
        let chosen = pairs.iter().filter(move |(_, group)| (group.series == Series::Spot) == spot);
        chosen.map(|(hub, group)| (*hub, group.ticker)).collect::<BTreeSet<_>>()
    };
    let (analytics, spots) = (of(false), of(true));
    if let Some((hub, ticker)) = analytics.difference(&spots).next() {
        return Err(WantedError::NoSpot { ticker: (*ticker).to_owned(), hub: Some(*hub) });
    }
    if let Some((hub, ticker)) = spots.difference(&analytics).next() {
        return Err(WantedError::NoAnalytics { ticker: (*ticker).to_owned(), hub: Some(*hub) });
    }
    Ok(())
}

/// The list `groups` of a body, which has an element.
fn list(body: &[u8]) -> Result<Vec<Value>, WantedError> {
    let body = serde_json::from_slice(body).map_err(|error| WantedError::NotJson(error.to_string()))?;
    let mut object: Map<String, Value> = match body {
        Value::Object(object) => object,
        other => {
            let expected = r#"an object such as {"groups":[…]}"#;
            return Err(WantedError::OtherType { expected, place: "the body".to_owned(), got: type_of(Some(&other)) });
        }
    };
    match object.remove("groups") {
        Some(Value::Array(list)) if list.is_empty() => Err(WantedError::Empty),
        Some(Value::Array(list)) => Ok(list),
        other => {
            let got = type_of(other.as_ref());
            Err(WantedError::OtherType { expected: "an array", place: "groups".to_owned(), got })
        }
    }
}

fn text(value: Option<&Value>, place: impl FnOnce() -> String) -> Result<&str, WantedError> {
    match value {
        Some(Value::String(text)) => Ok(text),
        other => Err(WantedError::OtherType { expected: "a string", place: place(), got: type_of(other) }),
    }
}

fn type_of(value: Option<&Value>) -> &'static str {
    match value {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
    }
}

fn group<'a>(at: usize, name: &'a str, prefix: &str) -> Result<GroupName<'a>, WantedError> {
    let length = name.chars().count();
    if length > MAX_NAME {
        return Err(WantedError::LongName { at, length });
    }
    let group = GroupName::parse_unprefixed(name);
    let group = group.map_err(|_| WantedError::UnknownGroup { at, name: name.to_owned() })?;
    // It would be a group of the ticker blue_SPX, and silent.
    if let Ok((own_prefix, without)) = GroupName::parse(name)
        && own_prefix == prefix
    {
        let unprefixed = without.series.unprefixed(without.ticker);
        return Err(WantedError::Prefixed { at, unprefixed, name: name.to_owned() });
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: WantedLimits<'static> = WantedLimits { prefix: "blue", memberships: 150, groups_of_hub: 150 };

    fn post(groups: &[&str]) -> Result<WantedGroups, WantedError> {
        WantedGroups::of_post(serde_json::json!({ "groups": groups }).to_string().as_bytes(), &LIMITS)
    }

    fn patch(pairs: &[(&str, &str)]) -> Result<WantedGroups, WantedError> {
        let pairs: Vec<_> =
            pairs.iter().map(|(hub, group)| serde_json::json!({ "hub": hub, "group": group })).collect();
        WantedGroups::of_patch(serde_json::json!({ "groups": pairs }).to_string().as_bytes(), &LIMITS)
    }

    fn on(wanted: &WantedGroups, topic: HubTopic) -> Vec<&str> {
        wanted.groups(topic).collect()
    }

    fn words<T: std::fmt::Debug>(result: Result<T, WantedError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_spot_group_is_put_on_each_hub_with_analytics_of_its_ticker() {
        // The example of `docs/protocols/gexbot.md`, "POST: memberships by the server".
        let names =
            ["SPX_classic_gex_full", "SPX_state_gamma_zero", "SPX_spot", "ES_SPX_orderflow_orderflow", "ES_SPX_spot"];
        let wanted = post(&names).unwrap();
        assert!(wanted.is_v2());
        assert_eq!(on(&wanted, HubTopic::Classic), ["SPX_classic_gex_full", "SPX_spot"]);
        assert_eq!(on(&wanted, HubTopic::StateGreeksZero), ["SPX_spot", "SPX_state_gamma_zero"]);
        assert_eq!(on(&wanted, HubTopic::Orderflow), ["ES_SPX_orderflow_orderflow", "ES_SPX_spot"]);
        assert_eq!(wanted.memberships(), 6);
        let same = patch(&[
            ("v2_classic", names[0]),
            ("v2_classic", names[2]),
            ("v2_state_greeks_zero", names[1]),
            ("v2_state_greeks_zero", names[2]),
            ("v2_orderflow", names[3]),
            ("v2_orderflow", names[4]),
        ]);
        assert_eq!(same.unwrap(), wanted);
    }

    #[test]
    fn without_a_spot_group_the_current_hubs_are_meant_and_duplicates_count_once() {
        let wanted = post(&["SPX_state_gex_one", "SPX_classic_gex_zero", "SPX_state_gex_one"]).unwrap();
        assert_eq!((wanted.is_v2(), wanted.memberships()), (false, 2));
        let patched = patch(&[("classic", "SPX_classic_gex_zero"), ("STATE_gex", "SPX_state_gex_one")]).unwrap();
        assert_eq!(patched, wanted);
    }

    #[test]
    fn spot_and_analytics_need_each_other_on_the_v2_hubs() {
        let missing = words(post(&["SPX_classic_gex_full", "NDX_classic_gex_full", "NDX_spot"]));
        assert_eq!(missing, "expected SPX_spot beside the analytics of SPX");
        let alone = words(post(&["SPX_classic_gex_full", "SPX_spot", "NDX_spot"]));
        assert_eq!(alone, "expected analytics of NDX, such as NDX_classic_gex_full, beside NDX_spot");
        let missing = words(patch(&[("v2_classic", "SPX_classic_gex_full")]));
        assert_eq!(missing, "expected SPX_spot beside the analytics of SPX on v2_classic");
        let elsewhere =
            [("v2_classic", "SPX_classic_gex_full"), ("v2_classic", "SPX_spot"), ("v2_orderflow", "SPX_spot")];
        assert!(words(patch(&elsewhere)).ends_with("beside SPX_spot on v2_orderflow"));
    }

    #[test]
    fn a_group_must_stand_with_a_hub_that_carries_it() {
        for (pair, expected) in [
            (("v2_orderflow", "SPX_classic_gex_full"), "is a group of classic and v2_classic, not of v2_orderflow"),
            (("classic", "SPX_spot"), "groups[0]: SPX_spot is a group of the v2 hubs, not of classic"),
            (("v3_classic", "SPX_spot"), r#"groups[0]: unknown hub "v3_classic"; expected one of classic, "#),
        ] {
            let words = words(patch(&[pair]));
            assert!(words.contains(expected), "{words}");
        }
        let both = words(patch(&[("classic", "SPX_classic_gex_full"), ("v2_classic", "SPX_spot")]));
        assert_eq!(both, "expected hubs of one generation, got classic and v2_classic");
    }

    #[test]
    fn an_unknown_name_is_quoted_and_a_prefix_is_told_to_be_left_out() {
        for name in ["", "SPX", "SPX_classic_gex", "_spot", "S X_spot"] {
            assert_eq!(post(&[name]), Err(WantedError::UnknownGroup { at: 0, name: name.to_owned() }));
        }
        let prefixed = words(post(&["SPX_spot", "blue_ES_SPX_classic_gex_full"]));
        assert!(prefixed.starts_with("groups[1]: expected the name without its prefix, ES_SPX_classic"), "{prefixed}");
        assert!(post(&["blue_orderflow_orderflow"]).is_ok(), "a ticker may be called like the prefix");
        let long = format!("{}_spot", "S".repeat(60));
        assert_eq!(post(&[&long]), Err(WantedError::LongName { at: 0, length: 65 }));
    }

    #[test]
    fn a_body_of_another_shape_is_told_where_and_what_was_expected() {
        for (body, expected) in [
            ("", "expected JSON in the body: EOF"),
            ("{", "expected JSON in the body: EOF"),
            ("\"\u{fffd}", "expected JSON in the body"),
            ("[]", r#"expected an object such as {"groups":[…]} as the body, got an array"#),
            ("{}", "expected an array as groups, got nothing"),
            (r#"{"groups":null}"#, "expected an array as groups, got null"),
            (r#"{"groups":[]}"#, "expected at least one group in groups, got none"),
        ] {
            for parse in [WantedGroups::of_post, WantedGroups::of_patch] {
                let words = words(parse(body.as_bytes(), &LIMITS));
                assert!(words.starts_with(expected), "{words}");
            }
        }
        let of_post = words(WantedGroups::of_post(br#"{"groups":["SPX_spot",7]}"#, &LIMITS));
        assert_eq!(of_post, "expected a string as groups[1], got a number");
        for (item, expected) in [
            (r#""SPX_spot""#, "as groups[0], got a string"),
            (r#"{"group":"SPX_spot"}"#, "expected a string as groups[0].hub, got nothing"),
            (r#"{"hub":"v2_classic","group":true}"#, "expected a string as groups[0].group, got a boolean"),
        ] {
            let words = words(WantedGroups::of_patch(format!(r#"{{"groups":[{item}]}}"#).as_bytes(), &LIMITS));
            assert!(words.ends_with(expected), "{words}");
        }
    }

    #[test]
    fn memberships_are_counted_after_the_expansion() {
        // Two analytics on two hubs, and the spot group on both: four pairs for three names.
        let names: Vec<String> = (0..50)
            .flat_map(|n| ["classic_gex_full", "state_gex_full", "spot"].map(|group| format!("T{n}_{group}")))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let error = post(&names).unwrap_err();
        assert_eq!(error, WantedError::TooMany { limit: 150, got: 200 });
        assert!(error.is_limit());
        assert_eq!(post(&names[..111]).unwrap().memberships(), 148);
        let few = WantedLimits { groups_of_hub: 1, ..LIMITS };
        let error = WantedGroups::of_post(br#"{"groups":["A_classic_gex_one","A_spot"]}"#, &few).unwrap_err();
        assert_eq!(error.to_string(), "expected at most 1 groups on one hub, got 2 on v2_classic");
    }
}
