//! Names of days and tickers in paths. Only what is checked here becomes part of a file's path, so that no request
//! leaves the data folder.

use jiff::civil::Date;

use super::rest_refusal::{RestRefusal, shown};
use crate::wire::gexbot::is_ticker;

/// A day's folder name; only the full form.
pub fn date(text: &str) -> Result<Date, RestRefusal> {
    let date = text.parse::<Date>().ok().filter(|date| date.to_string() == text);
    date.ok_or_else(|| RestRefusal::BadDate { date: shown(text) })
}

/// The name of a ticker's folder, if it can be one.
pub fn ticker(name: &str) -> Result<&str, RestRefusal> {
    if is_ticker(name) { Ok(name) } else { Err(RestRefusal::BadTicker { ticker: shown(name) }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_leads_out_of_the_folder(name in "[./\\\\a-zA-Z0-9-]{0,12}|.{0,12}") {
            for valid in [date(&name).map(|date| date.to_string()), ticker(&name).map(str::to_owned)].into_iter().flatten() {
                prop_assert!(!valid.contains(['/', '\\', '\0']) && valid != "." && valid != "..", "{valid:?}");
            }
        }
    }
}
