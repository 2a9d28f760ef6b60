//! Names of groups and hubs, as the vendor's clients take them apart.
//!
//! ```text
//! {prefix}_{ticker}_{package}_{category}     blue_ES_SPX_state_gamma_zero
//! {prefix}_{ticker}_spot                     blue_SPX_spot
//! ```
//!
//! The prefix has no `_`, a ticker may have one. Source: `docs/protocols/gexbot.md`, "Hubs and groups".

use super::payload::Kind;

/// The packages, in the order in which clients look for them in a name.
pub const PACKAGES: [&str; 3] = ["classic", "state", "orderflow"];

/// The word of spot groups, in names and on the command line.
pub const SPOT: &str = "spot";

const GEX: [&str; 3] = ["gex_full", "gex_zero", "gex_one"];
const GREEKS: [&str; 4] = ["delta", "gamma", "vanna", "charm"];

/// What a group carries: the records of a package and category, or a ticker's price alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Series {
    /// One of [`PACKAGES`], and a category such as `gamma_zero`.
    Records(&'static str, String),
    /// The price.
    Spot,
}

/// A group's name without its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupName {
    /// Whose data it is.
    pub ticker: String,
    /// What it carries.
    pub series: Series,
}

impl Series {
    /// Reads `package/category`, `package/*` (all categories of a recorded day) or `spot`; the error says
    /// what was expected.
    pub fn typed(text: &str) -> Result<Vec<Self>, String> {
        if text == SPOT {
            return Ok(vec![Self::Spot]);
        }
        let expected = || format!("expected package/category such as classic/gex_full, got {text:?}");
        let (package, category) = text.split_once('/').ok_or_else(expected)?;
        let package = PACKAGES
            .into_iter()
            .find(|name| *name == package)
            .ok_or_else(|| format!("expected one of the packages {}, got {package:?}", PACKAGES.join(", ")))?;
        if category == "*" {
            return Ok(categories(package).into_iter().map(|category| Self::Records(package, category)).collect());
        }
        if !is_category(package, category) {
            let known = categories(package).join(", ");
            return Err(format!(
                "{package} has no category {category:?}; it has {known}, and those of one expiry date"
            ));
        }
        Ok(vec![Self::Records(package, category.to_owned())])
    }

    /// What its payloads are.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Spot => Kind::Spot,
            Self::Records("orderflow", _) => Kind::Orderflow,
            Self::Records("state", category) if !category.starts_with("gex_") => Kind::Greek,
            Self::Records(..) => Kind::Gex,
        }
    }

    /// The hub that carries it, by its name without `v2_`; `None` for spot, which every v2 hub carries.
    pub fn hub(&self) -> Option<&'static str> {
        let Self::Records(package, category) = self else { return None };
        Some(match *package {
            "state" if category.starts_with("gex_") => "state_gex",
            "state" if category.ends_with("_zero") => "state_greeks_zero",
            "state" if category.ends_with("_one") => "state_greeks_one",
            "state" => "state_greeks",
            package => package,
        })
    }

    /// The group of a ticker, with its prefix.
    pub fn group(&self, prefix: &str, ticker: &str) -> String {
        match self {
            Self::Records(package, category) => format!("{prefix}_{ticker}_{package}_{category}"),
            Self::Spot => format!("{prefix}_{ticker}_{SPOT}"),
        }
    }
}

impl GroupName {
    /// Reads a name with its prefix. The category is not checked: a server says for itself what it refuses.
    pub fn parse(name: &str) -> Option<Self> {
        let (_, name) = name.split_once('_')?;
        for package in PACKAGES {
            if let Some((ticker, category)) = name.rsplit_once(&format!("_{package}_")) {
                let series = Series::Records(package, category.to_owned());
                return Some(Self { ticker: ticker.to_owned(), series });
            }
        }
        let ticker = name.strip_suffix("_spot")?.to_owned();
        Some(Self { ticker, series: Series::Spot })
    }
}

/// The categories of a package that a recorded day has.
fn categories(package: &str) -> Vec<String> {
    match package {
        "classic" => GEX.map(str::to_owned).to_vec(),
        "state" => {
            let greeks = ["zero", "one"].into_iter().flat_map(|expiry| GREEKS.map(|greek| format!("{greek}_{expiry}")));
            GEX.map(str::to_owned).into_iter().chain(greeks).collect()
        }
        _ => vec!["orderflow".to_owned()],
    }
}

/// Whether a package has a category; those of one expiry end in its date, such as `gex_20260717`.
fn is_category(package: &str, category: &str) -> bool {
    let is_date = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    let of_expiry = category.rsplit_once('_').filter(|(_, date)| is_date(date)).map(|(name, _)| name);
    categories(package).iter().any(|known| known == category)
        || match package {
            "classic" => of_expiry == Some("gex"),
            "state" => of_expiry.is_some_and(|name| name == "gex" || GREEKS.contains(&name)),
            _ => is_date(category),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_the_vendors_clients_do() {
        for (name, ticker, hub, kind) in [
            ("blue_SPX_classic_gex_full", "SPX", Some("classic"), Kind::Gex),
            ("red_ES_SPX_state_gex_20260717", "ES_SPX", Some("state_gex"), Kind::Gex),
            ("blue_ES_SPX_state_gamma_zero", "ES_SPX", Some("state_greeks_zero"), Kind::Greek),
            ("blue_SPX_state_charm_one", "SPX", Some("state_greeks_one"), Kind::Greek),
            ("blue_SPX_state_vanna_20260717", "SPX", Some("state_greeks"), Kind::Greek),
            ("blue_SPX_orderflow_orderflow", "SPX", Some("orderflow"), Kind::Orderflow),
            ("blue_ES_SPX_spot", "ES_SPX", None, Kind::Spot),
        ] {
            let parsed = GroupName::parse(name).unwrap();
            assert_eq!(
                (parsed.ticker.as_str(), parsed.series.hub(), parsed.series.kind()),
                (ticker, hub, kind),
                "{name}"
            );
            assert_eq!(parsed.series.group(name.split_once('_').unwrap().0, ticker), name);
        }
        for name in ["SPX", "blue_SPX", "blue_SPX_classic", "spot"] {
            assert_eq!(GroupName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_star_is_every_category_of_a_recorded_day() {
        let count = |text: &str| Series::typed(text).unwrap().len();
        assert_eq!((count("classic/*"), count("state/*"), count("orderflow/*"), count("spot")), (3, 11, 1, 1));
        for text in ["state/gamma_zero", "state/delta_20260717", "classic/gex_20260717", "orderflow/20251219"] {
            assert_eq!(count(text), 1, "{text}");
        }
    }

    #[test]
    fn a_category_that_no_package_has_is_named() {
        for (text, named) in [
            ("classic/gamma_zero", "classic has no category \"gamma_zero\""),
            ("state/gex_2026", "state has no category"),
            ("futures/gex_full", "one of the packages"),
            ("classic", "package/category"),
        ] {
            let error = Series::typed(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
