//! GexBot's names: `{prefix}_{ticker}_{package}_{category}` for groups.
//!
//! The prefix has no `_`, the ticker may (`ES_SPX`). Clients find the category behind the *last*
//! package separator and the ticker behind the *first* `_`; so do we. Source:
//! `docs/protocols/gexbot.md`, "Hubs and groups".

/// The hub of orderflow records, and the package of its groups.
pub const ORDERFLOW_HUB: &str = "orderflow";

/// The group of a ticker's orderflow records.
pub fn orderflow_group(prefix: &str, ticker: &str) -> String {
    format!("{prefix}_{ticker}_orderflow_orderflow")
}

/// Why a name is not a group of the orderflow hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// It does not have the form of a GexBot group.
    Malformed,
    /// It belongs to another hub.
    OtherHub,
    /// It belongs to this hub, but its prefix is not the negotiated one.
    OtherPrefix,
}

/// Checks a name that a client wants to join on the orderflow hub.
///
/// Categories are `orderflow` and dates (`20251219`); whether there is data is another question.
pub fn check_orderflow_group(name: &str, prefix: &str) -> Result<(), NameError> {
    let (head, package, category) = split(name).ok_or(NameError::Malformed)?;
    if package != ORDERFLOW_HUB {
        return Err(NameError::OtherHub);
    }
    let (own_prefix, ticker) = head.split_once('_').ok_or(NameError::Malformed)?;
    let is_date = category.len() == 8 && category.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    if !is_plain(own_prefix) || !is_plain(ticker) || !(category == ORDERFLOW_HUB || is_date) {
        return Err(NameError::Malformed);
    }
    if own_prefix == prefix { Ok(()) } else { Err(NameError::OtherPrefix) }
}

/// Splits at the last separator of the first package that has one; the order of packages is the clients'.
fn split(name: &str) -> Option<(&str, &'static str, &str)> {
    [("_classic_", "classic"), ("_state_", "state"), ("_orderflow_", ORDERFLOW_HUB)]
        .into_iter()
        .find_map(|(separator, package)| name.rsplit_once(separator).map(|(head, category)| (head, package, category)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticker_may_contain_underscores() {
        for ticker in ["SPX", "ES_SPX", "A_B_C"] {
            assert_eq!(check_orderflow_group(&orderflow_group("blue", ticker), "blue"), Ok(()), "{ticker}");
        }
        assert_eq!(check_orderflow_group("blue_SPX_orderflow_20251219", "blue"), Ok(()));
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
            ("blue_S X_orderflow_orderflow", NameError::Malformed),
            ("blue_SPX_classic_gex_full", NameError::OtherHub),
            ("blue_SPX_state_gamma_zero", NameError::OtherHub),
            ("red_SPX_orderflow_orderflow", NameError::OtherPrefix),
        ] {
            assert_eq!(check_orderflow_group(name, "blue"), Err(error), "{name}");
        }
    }
}
