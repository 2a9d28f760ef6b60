//! Which groups a run is about, and at which hubs they are joined.

use crate::wire::group::{GroupName, Series};

/// A group list that means nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GroupsError(String);

/// A hub, as the run needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// Its name on the wire.
    pub name: String,
    /// Whether each group of the plan is joined here.
    pub carries: Vec<bool>,
}

/// What `--groups` asks for, before the server's tickers and prefix are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whole group names.
    names: Vec<String>,
    /// What to join of the tickers.
    series: Vec<Series>,
    /// The tickers; `None` for all of the server's.
    tickers: Option<Vec<String>>,
}

impl Wanted {
    /// Reads the list.
    pub fn typed(typed: &[String]) -> Result<Self, GroupsError> {
        let orderflow = || vec![Series::Records("orderflow", "orderflow".to_owned())];
        match typed {
            [one] if one == "none" => return Ok(Self { tickers: Some(Vec::new()), ..Self::default() }),
            [one] if one == "all" => return Ok(Self { series: orderflow(), ..Self::default() }),
            _ => {}
        }
        let mut wanted = Self::default();
        let mut tickers = Vec::new();
        for name in typed {
            match name.as_str() {
                "" => return Err(GroupsError("an empty name".to_owned())),
                "all" | "none" => return Err(GroupsError(format!("{name:?} stands alone"))),
                name if name == "spot" || name.contains('/') => {
                    wanted.series.extend(Series::typed(name).map_err(GroupsError)?);
                }
                name if GroupName::parse(name).is_some() => wanted.names.push(name.to_owned()),
                ticker => tickers.push(ticker.to_owned()),
            }
        }
        let names_something = !wanted.series.is_empty();
        if !names_something && !tickers.is_empty() {
            wanted.series = orderflow();
        }
        wanted.tickers = (!names_something || !tickers.is_empty()).then_some(tickers);
        Ok(wanted)
    }

    /// Whether the server must be asked for its tickers.
    pub fn needs_tickers(&self) -> bool {
        self.tickers.is_none()
    }

    /// Whole group names, sorted; `tickers` are the server's, `None` where nobody told.
    pub fn groups(&self, prefix: &str, tickers: Option<&[String]>) -> Result<Vec<String>, GroupsError> {
        let fail = |reason: &str| Err(GroupsError(reason.to_owned()));
        let tickers = match (&self.tickers, tickers) {
            (Some(typed), _) => typed.as_slice(),
            (None, None) => return fail("the server does not list its tickers; name them"),
            (None, Some([])) => return fail("the server has no tickers"),
            (None, Some(listed)) => listed,
        };
        let of_ticker =
            |ticker: &String| self.series.iter().map(|series| series.group(prefix, ticker)).collect::<Vec<_>>();
        let mut groups: Vec<String> = tickers.iter().flat_map(of_ticker).chain(self.names.iter().cloned()).collect();
        groups.sort();
        groups.dedup();
        Ok(groups)
    }

    /// How many hubs a client has a connection to, at most.
    pub fn hub_count(&self) -> u32 {
        let parsed = self.names.iter().filter_map(|name| GroupName::parse(name)).map(|name| name.series);
        let mut hubs: Vec<&str> = self.series.iter().cloned().chain(parsed).filter_map(|series| series.hub()).collect();
        hubs.sort_unstable();
        hubs.dedup();
        hubs.len().max(1) as u32
    }
}

/// The hubs that groups belong to. A spot group is on every v2 hub that has another group of its ticker; with
/// one among them, all hubs are v2 hubs, as a server that joins for its clients chooses them.
pub fn hubs_of_groups(groups: &[String]) -> Result<Vec<Hub>, GroupsError> {
    let parse =
        |name: &String| GroupName::parse(name).ok_or_else(|| GroupsError(format!("{name:?} is no group of any hub")));
    let parsed = groups.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let generation = if parsed.iter().any(|group| group.series == Series::Spot) { "v2_" } else { "" };
    let mut topics: Vec<&str> = parsed.iter().filter_map(|group| group.series.hub()).collect();
    topics.sort_unstable();
    topics.dedup();
    let has = |topic: &str, ticker: &str| {
        parsed.iter().any(|group| group.series.hub() == Some(topic) && group.ticker == ticker)
    };
    if let Some(alone) = parsed
        .iter()
        .find(|group| group.series == Series::Spot && !topics.iter().any(|topic| has(topic, &group.ticker)))
    {
        let ticker = &alone.ticker;
        return Err(GroupsError(format!(
            "{ticker}_spot needs another group of {ticker} beside it, such as classic/gex_full: spot groups have no hub of their own"
        )));
    }
    let hub = |topic: &&str| Hub {
        name: format!("{generation}{topic}"),
        carries: parsed
            .iter()
            .map(|group| group.series.hub().map_or_else(|| has(topic, &group.ticker), |hub| hub == *topic))
            .collect(),
    };
    Ok(topics.iter().map(hub).collect())
}

/// Group names as the body of a POST has them.
pub fn unprefixed(groups: &[String], prefix: &str) -> Vec<String> {
    let without = |name: &String| match name.split_once('_') {
        Some((own, rest)) if own == prefix => rest.to_owned(),
        _ => name.clone(),
    };
    groups.iter().map(without).collect()
}

impl Hub {
    /// A hub for all groups.
    pub fn of_all(name: &str, groups: usize) -> Self {
        Self { name: name.to_owned(), carries: vec![true; groups] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(typed: &str, tickers: Option<&[&str]>) -> Result<Vec<String>, GroupsError> {
        let typed: Vec<String> = typed.split(',').map(str::to_owned).collect();
        let tickers = tickers.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>());
        Wanted::typed(&typed)?.groups("blue", tickers.as_deref())
    }

    #[test]
    fn tickers_become_groups_and_groups_stay() {
        let found = groups("SPX,red_ES_SPX_orderflow_orderflow", None).unwrap();
        assert_eq!(found, ["blue_SPX_orderflow_orderflow", "red_ES_SPX_orderflow_orderflow"]);
        assert!(groups("all", None).is_err());
        assert!(groups("all,SPX", None).is_err());
        assert_eq!(groups("none", None).unwrap(), [""; 0]);
    }

    #[test]
    fn series_are_crossed_with_the_tickers_beside_them_or_else_with_the_servers() {
        let found = groups("classic/gex_full,spot", Some(&["SPX", "NDX"])).unwrap();
        assert_eq!(found, ["blue_NDX_classic_gex_full", "blue_NDX_spot", "blue_SPX_classic_gex_full", "blue_SPX_spot"]);
        let found = groups("classic/gex_full,SPX,red_NDX_spot", Some(&["SPX", "NDX"])).unwrap();
        assert_eq!(found, ["blue_SPX_classic_gex_full", "red_NDX_spot"]);
        let five = ["A", "B", "C", "D", "E"];
        assert_eq!(groups("classic/*,state/*,orderflow/*", Some(&five)).unwrap().len(), 75);
        assert!(groups("classic/gex_full", None).is_err() && groups("classic/gamma_zero,SPX", None).is_err());
    }

    #[test]
    fn a_spot_group_is_on_every_v2_hub_that_has_its_ticker() {
        let names = ["blue_SPX_classic_gex_full", "blue_SPX_state_gamma_zero", "blue_SPX_spot"]
            .into_iter()
            .chain(["blue_ES_SPX_orderflow_orderflow", "blue_ES_SPX_spot"]);
        let mut groups: Vec<String> = names.map(str::to_owned).collect();
        groups.sort();
        let hubs = hubs_of_groups(&groups).unwrap();
        let carried = |hub: &Hub| {
            let names = groups.iter().zip(&hub.carries).filter(|(_, carries)| **carries);
            names.map(|(name, _)| name.trim_start_matches("blue_")).collect::<Vec<_>>().join(" ")
        };
        let found: Vec<String> = hubs.iter().map(|hub| format!("{}: {}", hub.name, carried(hub))).collect();
        assert_eq!(
            found,
            [
                "v2_classic: SPX_classic_gex_full SPX_spot",
                "v2_orderflow: ES_SPX_orderflow_orderflow ES_SPX_spot",
                "v2_state_greeks_zero: SPX_spot SPX_state_gamma_zero",
            ]
        );
        assert!(hubs_of_groups(&["blue_SPX_spot".to_owned()]).is_err());
    }
}
