//! GexBot's names: of hubs, of packages and categories, and of groups.
//!
//! ```text
//! {prefix}_{ticker}_{package}_{category}     blue_ES_SPX_state_gamma_zero
//! {prefix}_{ticker}_spot                     blue_SPX_spot
//! ```
//!
//! The prefix has no `_`, the ticker may (`ES_SPX`). Clients find the category behind the *last*
//! package separator and the ticker behind the *first* `_`; so do we. Source:
//! `docs/protocols/gexbot.md`, "Hubs and groups".

use std::fmt;

use jiff::civil::Date;

/// The hub of orderflow records, and the package of its groups.
pub const ORDERFLOW_HUB: &str = Package::Orderflow.name();

/// The group of a ticker's orderflow records.
pub fn orderflow_group(prefix: &str, ticker: &str) -> String {
    let series = Series::Records { package: Package::Orderflow, category: ORDERFLOW_HUB };
    GroupName { ticker, series }.with_prefix(prefix)
}

/// What a group carries: one of GexBot's four payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadKind {
    /// Gamma exposure by strike.
    Gex,
    /// One greek by contract.
    Greek,
    /// The figures of orderflow: the only ones whose scale differs between the profiles.
    Orderflow,
    /// A ticker's price alone.
    Spot,
}

impl PayloadKind {
    /// The type URL of its `Any`. Clients match it as a substring.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Gex => "proto.gex",
            Self::Greek => "proto.greek",
            Self::Orderflow => "proto.orderflow",
            Self::Spot => "proto.spot",
        }
    }
}

/// The subject of a hub. Each exists in two generations, see [`HubName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HubTopic {
    /// GEX by open interest and volume: the package classic.
    Classic,
    /// GEX by the state of the book: the GEX categories of the package state.
    StateGex,
    /// Greeks of the nearest expiry.
    StateGreeksZero,
    /// Greeks of the expiry after it.
    StateGreeksOne,
    /// Greeks of an expiry that the group names.
    StateGreeks,
    /// The 35 figures of a record of the package orderflow.
    Orderflow,
}

impl HubTopic {
    /// All of them, in the order in which negotiate lists them.
    pub const ALL: [Self; 6] = [
        Self::Classic,
        Self::StateGex,
        Self::StateGreeksZero,
        Self::StateGreeksOne,
        Self::StateGreeks,
        Self::Orderflow,
    ];

    /// The hub of this topic in either generation.
    pub const fn hub(self, v2: bool) -> HubName {
        HubName { topic: self, v2 }
    }

    /// The groups of its hubs, without prefix, in words.
    pub const fn group_form(self) -> &'static str {
        match self {
            Self::Classic => "TICKER_classic_CATEGORY with gex_full, gex_zero, gex_one or gex_YYYYMMDD",
            Self::StateGex => "TICKER_state_CATEGORY with gex_full, gex_zero, gex_one or gex_YYYYMMDD",
            Self::StateGreeksZero => "TICKER_state_CATEGORY with delta_zero, gamma_zero, vanna_zero or charm_zero",
            Self::StateGreeksOne => "TICKER_state_CATEGORY with delta_one, gamma_one, vanna_one or charm_one",
            Self::StateGreeks => "TICKER_state_GREEK_YYYYMMDD with delta, gamma, vanna or charm",
            Self::Orderflow => "TICKER_orderflow_orderflow or TICKER_orderflow_YYYYMMDD",
        }
    }
}

/// A hub as it is called on the wire. Both generations carry the same groups; only v2 hubs have spot groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HubName {
    /// What the hub is about.
    pub topic: HubTopic,
    /// Whether it is the `v2_` hub.
    pub v2: bool,
}

impl HubName {
    /// The name on the wire, such as `v2_state_gex`.
    pub const fn name(self) -> &'static str {
        match (self.topic, self.v2) {
            (HubTopic::Classic, false) => "classic",
            (HubTopic::Classic, true) => "v2_classic",
            (HubTopic::StateGex, false) => "state_gex",
            (HubTopic::StateGex, true) => "v2_state_gex",
            (HubTopic::StateGreeksZero, false) => "state_greeks_zero",
            (HubTopic::StateGreeksZero, true) => "v2_state_greeks_zero",
            (HubTopic::StateGreeksOne, false) => "state_greeks_one",
            (HubTopic::StateGreeksOne, true) => "v2_state_greeks_one",
            (HubTopic::StateGreeks, false) => "state_greeks",
            (HubTopic::StateGreeks, true) => "v2_state_greeks",
            (HubTopic::Orderflow, false) => "orderflow",
            (HubTopic::Orderflow, true) => "v2_orderflow",
        }
    }

    /// How many there are.
    pub const COUNT: usize = 2 * HubTopic::ALL.len();

    /// Its place in [`HubName::all`].
    pub const fn index(self) -> usize {
        self.topic as usize + if self.v2 { HubTopic::ALL.len() } else { 0 }
    }

    /// All twelve, those without `v2` first, in the order of [`HubName::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        [false, true].into_iter().flat_map(|v2| HubTopic::ALL.map(|topic| topic.hub(v2)))
    }

    /// The names of all twelve, for error messages.
    pub fn all_names() -> String {
        Self::all().map(Self::name).collect::<Vec<_>>().join(", ")
    }

    /// The hub of this name. Case does not matter (`docs/protocols/webpubsub.md`, "Endpoint and tokens").
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|hub| hub.name().eq_ignore_ascii_case(name))
    }

    /// Whether a group of this series may be joined here.
    pub fn carries(self, series: &Series<'_>) -> bool {
        series.topic().map_or(self.v2, |topic| topic == self.topic)
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A family of records of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Package {
    /// Gamma exposure, by open interest and volume.
    Classic,
    /// The state of the book: gamma exposure and greeks.
    State,
    /// Figures of the trades and of the book of all expiries.
    Orderflow,
}

impl Package {
    /// All of them, in the order in which clients look for them in a group's name.
    pub const ALL: [Self; 3] = [Self::Classic, Self::State, Self::Orderflow];

    /// The name in groups, files and paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::State => "state",
            Self::Orderflow => "orderflow",
        }
    }

    /// The package of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|package| package.name() == name)
    }

    /// Its categories, for error messages.
    pub const fn categories(self) -> &'static str {
        match self {
            Self::Classic => "gex_full, gex_zero, gex_one or gex_YYYYMMDD",
            Self::State => "gex_full, gex_zero, gex_one, gex_YYYYMMDD or {delta|gamma|vanna|charm}_{zero|one|YYYYMMDD}",
            Self::Orderflow => "orderflow or YYYYMMDD",
        }
    }
}

/// The categories that a recorded day may have beside those of single expiries, by package.
pub const CATEGORIES: [(Package, &[&str]); 3] = [
    (Package::Classic, &GEX),
    (Package::State, &[GEX[0], GEX[1], GEX[2], ZERO[0], ZERO[1], ZERO[2], ZERO[3], ONE[0], ONE[1], ONE[2], ONE[3]]),
    (Package::Orderflow, &["orderflow"]),
];

const GEX: [&str; 3] = ["gex_full", "gex_zero", "gex_one"];
const ZERO: [&str; 4] = ["delta_zero", "gamma_zero", "vanna_zero", "charm_zero"];
const ONE: [&str; 4] = ["delta_one", "gamma_one", "vanna_one", "charm_one"];
const GREEKS: [&str; 4] = ["delta", "gamma", "vanna", "charm"];

/// What a ticker's group carries: the records of a category, or its spot price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Series<'a> {
    /// The records of one category.
    Records {
        /// The package that the category belongs to.
        package: Package,
        /// The category's name, such as `gamma_zero`, `gex_20251219`.
        category: &'a str,
    },
    /// The price of each record of the ticker.
    Spot,
}

impl<'a> Series<'a> {
    /// The series of a package and a category; `None` if the package has no such category.
    pub fn records(package: Package, category: &'a str) -> Option<Self> {
        let series = Self::Records { package, category };
        let is_known = match package {
            Package::Classic => is_gex(category),
            Package::State => series.topic().is_some(),
            Package::Orderflow => category == "orderflow" || is_expiry(category),
        };
        is_known.then_some(series)
    }

    /// The hub that carries it, in either generation; `None` for spot, which every v2 hub carries.
    pub fn topic(&self) -> Option<HubTopic> {
        let Self::Records { package, category } = self else { return None };
        match package {
            Package::Classic => Some(HubTopic::Classic),
            Package::Orderflow => Some(HubTopic::Orderflow),
            Package::State if is_gex(category) => Some(HubTopic::StateGex),
            Package::State if ZERO.contains(category) => Some(HubTopic::StateGreeksZero),
            Package::State if ONE.contains(category) => Some(HubTopic::StateGreeksOne),
            Package::State => category
                .split_once('_')
                .is_some_and(|(greek, expiry)| GREEKS.contains(&greek) && is_expiry(expiry))
                .then_some(HubTopic::StateGreeks),
        }
    }

    /// What its groups carry.
    pub fn kind(&self) -> PayloadKind {
        match self {
            Self::Spot => PayloadKind::Spot,
            Self::Records { package: Package::Orderflow, .. } => PayloadKind::Orderflow,
            Self::Records { package: Package::Classic, .. } => PayloadKind::Gex,
            Self::Records { category, .. } if is_gex(category) => PayloadKind::Gex,
            Self::Records { .. } => PayloadKind::Greek,
        }
    }

    /// The name of a ticker's group without the prefix, as in negotiate's bodies.
    pub fn unprefixed(&self, ticker: &str) -> String {
        match self {
            Self::Spot => format!("{ticker}_spot"),
            Self::Records { package, category } => format!("{ticker}_{}_{category}", package.name()),
        }
    }
}

/// `gex_full`, `gex_zero`, `gex_one`, or the GEX of one expiry: `gex_20251219`.
fn is_gex(category: &str) -> bool {
    GEX.contains(&category) || category.strip_prefix("gex_").is_some_and(is_expiry)
}

/// A date as `20251219`, one that the calendar has.
fn is_expiry(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<Date>().is_ok()
}

/// Whether the name of a folder, or the key of a live record, can be a ticker: part of a group's name and of a log
/// line. `streams` is the folder of the JSON streams.
pub fn is_ticker(name: &str) -> bool {
    name != "streams"
        && (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-^".contains(&byte))
        && !name.starts_with('.')
        // Such a name would make the group's name that of another hub.
        && !Package::ALL.iter().any(|package| format!("_{name}_").contains(&format!("_{}_", package.name())))
}

/// A group's name in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupName<'a> {
    /// Whose data it is about, such as `ES_SPX`.
    pub ticker: &'a str,
    /// What it carries of the ticker.
    pub series: Series<'a>,
}

impl<'a> GroupName<'a> {
    /// Reads a name with its prefix, as on the wire; the prefix comes first.
    pub fn parse(name: &'a str) -> Result<(&'a str, Self), NameError> {
        let (prefix, unprefixed) = name.split_once('_').ok_or(NameError::Malformed)?;
        Ok((is_plain(prefix).then_some(prefix).ok_or(NameError::Malformed)?, Self::parse_unprefixed(unprefixed)?))
    }

    /// Reads a name without prefix, as in negotiate's bodies.
    pub fn parse_unprefixed(name: &'a str) -> Result<Self, NameError> {
        let (ticker, series) = split(name).ok_or(NameError::Malformed)?;
        if is_plain(ticker) { Ok(Self { ticker, series }) } else { Err(NameError::Malformed) }
    }

    /// Reads a name that a client of `hub` wants to join. Whether there is data is another question.
    pub fn joinable(name: &'a str, hub: HubName, prefix: &str) -> Result<Self, NameError> {
        let (own_prefix, group) = Self::parse(name)?;
        if !hub.carries(&group.series) {
            return Err(NameError::OtherHub { topic: group.series.topic() });
        }
        if own_prefix == prefix { Ok(group) } else { Err(NameError::OtherPrefix) }
    }

    /// The full name, as on the wire.
    pub fn with_prefix(&self, prefix: &str) -> String {
        format!("{prefix}_{}", self.series.unprefixed(self.ticker))
    }
}

/// Why a name is not a group that can be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// It does not have the form of a GexBot group.
    Malformed,
    /// It belongs to another hub.
    OtherHub {
        /// The hub that carries it, in either generation; `None` for spot, which every v2 hub carries.
        topic: Option<HubTopic>,
    },
    /// It belongs to this hub, but its prefix is not the negotiated one.
    OtherPrefix,
}

/// Splits at the last separator of the first package that has one; the order of packages is the clients'.
fn split(name: &str) -> Option<(&str, Series<'_>)> {
    for package in Package::ALL {
        let separator = format!("_{}_", package.name());
        if let Some((ticker, category)) = name.rsplit_once(&separator) {
            return Some((ticker, Series::records(package, category)?));
        }
    }
    Some((name.strip_suffix("_spot")?, Series::Spot))
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(name: &str) -> HubName {
        HubName::parse(name).unwrap()
    }

    #[test]
    fn a_ticker_may_contain_underscores() {
        for ticker in ["SPX", "ES_SPX", "A_B_C"] {
            for series in [
                Series::records(Package::Orderflow, "orderflow").unwrap(),
                Series::records(Package::State, "gamma_zero").unwrap(),
                Series::Spot,
            ] {
                let group = GroupName { ticker, series };
                let name = group.with_prefix("blue");
                assert_eq!(GroupName::parse(&name), Ok(("blue", group)), "{name}");
            }
        }
    }

    #[test]
    fn a_group_belongs_to_one_hub_of_each_generation_and_spot_to_every_v2_hub() {
        for (name, topic, kind) in [
            ("SPX_classic_gex_full", HubTopic::Classic, PayloadKind::Gex),
            ("SPX_classic_gex_20260717", HubTopic::Classic, PayloadKind::Gex),
            ("SPX_state_gex_zero", HubTopic::StateGex, PayloadKind::Gex),
            ("SPX_state_gex_20260717", HubTopic::StateGex, PayloadKind::Gex),
            ("SPX_state_delta_zero", HubTopic::StateGreeksZero, PayloadKind::Greek),
            ("SPX_state_charm_one", HubTopic::StateGreeksOne, PayloadKind::Greek),
            ("SPX_state_vanna_20260717", HubTopic::StateGreeks, PayloadKind::Greek),
            ("SPX_orderflow_orderflow", HubTopic::Orderflow, PayloadKind::Orderflow),
            ("SPX_orderflow_20251219", HubTopic::Orderflow, PayloadKind::Orderflow),
        ] {
            let series = GroupName::parse_unprefixed(name).unwrap().series;
            assert_eq!(series.kind(), kind, "{name}");
            let carriers: Vec<HubName> = HubName::all().filter(|hub| hub.carries(&series)).collect();
            assert_eq!(carriers, [false, true].map(|v2| topic.hub(v2)), "{name}");
        }
        let spot = GroupName::parse_unprefixed("SPX_spot").unwrap().series;
        assert!(HubName::all().all(|hub| hub.carries(&spot) == hub.v2));
        assert_eq!(spot.kind().type_url(), "proto.spot");
    }

    #[test]
    fn every_listed_category_has_a_hub() {
        for (package, categories) in CATEGORIES {
            for category in categories {
                assert!(
                    Series::records(package, category).is_some_and(|series| series.topic().is_some()),
                    "{category}"
                );
            }
        }
    }

    #[test]
    fn hub_names_are_unique_and_read_without_case() {
        for (at, hub) in HubName::all().enumerate() {
            assert_eq!(HubName::parse(&hub.name().to_uppercase()), Some(hub));
            assert_eq!(hub.index(), at);
        }
        assert_eq!((HubName::all().count(), HubName::parse("v3_classic")), (HubName::COUNT, None));
    }

    #[test]
    fn each_kind_of_wrong_name_is_told_apart() {
        for (name, error) in [
            ("", NameError::Malformed),
            ("SPX", NameError::Malformed),
            ("blue_orderflow_orderflow", NameError::Malformed),
            ("blue__orderflow_orderflow", NameError::Malformed),
            ("_SPX_orderflow_orderflow", NameError::Malformed),
            ("blue_SPX_orderflow_", NameError::Malformed),
            ("blue_SPX_orderflow_gamma", NameError::Malformed),
            ("blue_SPX_state_gex", NameError::Malformed),
            ("blue_SPX_state_gamma_2026071", NameError::Malformed),
            ("blue_SPX_state_gamma_20260230", NameError::Malformed),
            ("blue_SPX_classic_gex_20261301", NameError::Malformed),
            ("blue_SPX_orderflow_00000000", NameError::Malformed),
            ("blue_S X_orderflow_orderflow", NameError::Malformed),
            ("blue_SPX_classic_gex_full", NameError::OtherHub { topic: Some(HubTopic::Classic) }),
            ("blue_SPX_state_gamma_zero", NameError::OtherHub { topic: Some(HubTopic::StateGreeksZero) }),
            ("blue_SPX_spot", NameError::OtherHub { topic: None }),
            ("red_SPX_orderflow_orderflow", NameError::OtherPrefix),
        ] {
            assert_eq!(GroupName::joinable(name, hub("orderflow"), "blue"), Err(error), "{name}");
        }
        assert!(GroupName::joinable("blue_SPX_spot", hub("v2_orderflow"), "blue").is_ok());
        assert_eq!(GroupName::joinable("red_SPX_spot", hub("v2_classic"), "blue"), Err(NameError::OtherPrefix));
    }
}
