//! Which groups a client is asked for, from the words that were typed.

use anyhow::bail;

use crate::wire::gexbot::{CATEGORIES, GroupName, HubTopic, ORDERFLOW_HUB, Package, Series, is_ticker};

/// What was typed, before the prefix and the server's tickers are known.
#[derive(Debug, Default)]
pub(super) struct GroupChoice {
    /// Whole group names, with their prefix.
    names: Vec<String>,
    /// What to join of each ticker: a package and its category, or spot.
    series: Vec<Option<(Package, String)>>,
    /// Tickers; none for all of the server's.
    tickers: Vec<String>,
}

/// A group to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedGroup {
    /// With the prefix, as on the wire.
    pub name: String,
    /// The subject of its hub; `None` for spot, which every v2 hub carries.
    pub topic: Option<HubTopic>,
    /// Whose data it has.
    pub ticker: String,
}

impl GroupChoice {
    /// Reads words: whole group names, tickers, `package/category`, `package/*` and `spot`.
    pub fn read(words: &[String]) -> anyhow::Result<Self> {
        let mut wanted = Self::default();
        for word in words.iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()) {
            if word == "spot" {
                wanted.series.push(None);
            } else if let Some((package, category)) = word.split_once('/') {
                wanted.series.extend(series(word, package, category)?);
            } else if GroupName::parse(word).is_ok() {
                wanted.names.push(word.to_owned());
            } else {
                wanted.tickers.push(ticker(word)?.to_owned());
            }
        }
        let only_names = wanted.series.is_empty() && wanted.tickers.is_empty() && !wanted.names.is_empty();
        if wanted.series.is_empty() && !only_names {
            wanted.series.push(Some((Package::Orderflow, ORDERFLOW_HUB.to_owned())));
        }
        Ok(wanted)
    }

    /// Whether the server's tickers are needed.
    pub fn needs_tickers(&self) -> bool {
        !self.series.is_empty() && self.tickers.is_empty()
    }

    /// Takes tickers that were typed in another case than the server has them as those that it has; says which.
    pub fn correct_case(&mut self, known: &[String]) -> Vec<(String, String)> {
        let mut corrected = Vec::new();
        for typed in &mut self.tickers {
            let is_meant = |known: &&String| known.eq_ignore_ascii_case(typed);
            if !known.contains(typed)
                && let Some(meant) = known.iter().find(is_meant)
            {
                corrected.push((std::mem::replace(typed, meant.clone()), meant.clone()));
            }
        }
        corrected
    }

    /// The tickers that were typed and are not among `known`.
    pub fn unknown<'a>(&'a self, known: &'a [String]) -> impl Iterator<Item = &'a str> {
        let of_names = self.names.iter().filter_map(|name| GroupName::parse(name).ok()).map(|(_, group)| group.ticker);
        let typed = self.tickers.iter().map(String::as_str).chain(of_names);
        typed.filter(|ticker| !known.iter().any(|known| known == ticker))
    }

    /// The groups, each once. `tickers` are the server's.
    pub fn groups(&self, prefix: &str, tickers: &[String]) -> Vec<WantedGroup> {
        let tickers = if self.tickers.is_empty() { tickers } else { &self.tickers };
        let mut groups = Vec::new();
        let mut add = |group: GroupName<'_>, name: String| {
            let group = WantedGroup { name, topic: group.series.topic(), ticker: group.ticker.to_owned() };
            if !groups.contains(&group) {
                groups.push(group);
            }
        };
        for ticker in tickers {
            for series in &self.series {
                let series = match series {
                    Some((package, category)) => Series::Records { package: *package, category },
                    None => Series::Spot,
                };
                let group = GroupName { ticker, series };
                add(group, group.with_prefix(prefix));
            }
        }
        for name in &self.names {
            if let Ok((_, group)) = GroupName::parse(name) {
                add(group, name.clone());
            }
        }
        groups
    }
}

/// A word that is nothing else must be a ticker. What has the parts of a group's name is a mistyped one.
fn ticker(word: &str) -> anyhow::Result<&str> {
    for package in Package::ALL {
        let Some((before, category)) = word.rsplit_once(&format!("_{}_", package.name())) else { continue };
        if Series::records(package, category).is_none() {
            bail!("{word}: {} has no category {category:?}; it has {}", package.name(), package.categories());
        }
        if !before.contains('_') {
            bail!(
                "expected a group's whole name, such as blue_{word}, or words such as SPX classic/gex_full; got {word}"
            );
        }
    }
    if word.ends_with("_spot") {
        bail!("expected a group's whole name, such as blue_{word}, or a ticker and the word spot; got {word}");
    }
    if is_ticker(word) {
        return Ok(word);
    }
    bail!("expected a ticker, package/category, package/*, spot or a group's whole name; got {word:?}")
}

/// What `package/category` means: one category, or all that a recorded day has of the package.
fn series(word: &str, package: &str, category: &str) -> anyhow::Result<Vec<Option<(Package, String)>>> {
    let Some(package) = Package::parse(package) else {
        bail!("expected a package (classic, state, orderflow) before the / of {word:?}, got {package:?}");
    };
    let listed = CATEGORIES.iter().find(|(name, _)| *name == package).map_or(&[][..], |(_, names)| names);
    if category == "*" {
        return Ok(listed.iter().map(|category| Some((package, (*category).to_owned()))).collect());
    }
    if Series::records(package, category).is_none() {
        bail!("{} has no category {category:?}; it has {}", package.name(), package.categories());
    }
    Ok(vec![Some((package, category.to_owned()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(line: &str, tickers: &[&str]) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let tickers: Vec<String> = tickers.iter().map(ToString::to_string).collect();
        let names = GroupChoice::read(&words).unwrap().groups("blue", &tickers).into_iter().map(|group| group.name);
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn series_are_crossed_with_the_tickers_and_names_stay() {
        for (line, expected) in [
            ("", "blue_A_orderflow_orderflow blue_B_orderflow_orderflow"),
            ("SPX", "blue_SPX_orderflow_orderflow"),
            ("classic/gex_full,spot", "blue_A_classic_gex_full blue_A_spot blue_B_classic_gex_full blue_B_spot"),
            ("state/gamma_zero SPX spot", "blue_SPX_state_gamma_zero blue_SPX_spot"),
            ("red_ES_SPX_state_gex_20260717", "red_ES_SPX_state_gex_20260717"),
            ("SPX red_ES_SPX_spot SPX", "blue_SPX_orderflow_orderflow red_ES_SPX_spot"),
        ] {
            assert_eq!(groups(line, &["A", "B"]), expected, "{line}");
        }
        assert_eq!(groups("classic/* state/* orderflow/* SPX", &[]).split(' ').count(), 15);
    }

    #[test]
    fn a_category_that_is_none_is_named() {
        for (word, named) in [
            ("classic/gamma_zero", "classic has no category"),
            ("futures/x", "expected a package"),
            ("blue_SPX_classic_gex_nope", "classic has no category \"gex_nope\"; it has gex_full, "),
            ("blue_SPX_state_gamma_20260230", "state has no category \"gamma_20260230\""),
            ("SPX_classic_gex_full", "such as blue_SPX_classic_gex_full"),
            ("SPX_spot", "such as blue_SPX_spot"),
            ("S&P", "expected a ticker, "),
        ] {
            let error = GroupChoice::read(&[word.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_ticker_in_another_case_is_the_one_that_the_server_has() {
        let mut wanted = GroupChoice::read(&["spx".to_owned(), "NDX".to_owned(), "nope".to_owned()]).unwrap();
        let known = ["SPX".to_owned(), "NDX".to_owned()];
        assert_eq!(wanted.correct_case(&known), [("spx".to_owned(), "SPX".to_owned())]);
        assert_eq!(wanted.unknown(&known).collect::<Vec<_>>(), ["nope"]);
        let mut both = GroupChoice::read(&["spx".to_owned()]).unwrap();
        assert!(both.correct_case(&["SPX".to_owned(), "spx".to_owned()]).is_empty(), "it has this one");
    }

    #[test]
    fn tickers_that_the_server_does_not_have_are_known() {
        let words = ["SPX".to_owned(), "blue_NOPE_spot".to_owned(), "NONE".to_owned()];
        let wanted = GroupChoice::read(&words).unwrap();
        let known = ["SPX".to_owned()];
        assert_eq!(wanted.unknown(&known).collect::<Vec<_>>(), ["NONE", "NOPE"]);
    }
}
