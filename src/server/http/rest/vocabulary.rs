//! The names of categories in paths: two vocabularies, both understood everywhere.
//!
//! `zero` is `gex_zero`, `gamma` is `gamma_zero`, `onegamma` is `gamma_one`
//! (`docs/protocols/gexbot.md`, "REST data").

use super::rest_refusal::{RestRefusal, shown};
use crate::wire::gexbot::{Package, Series};

/// The short names, each with the name of its file.
const SHORT: [(&str, &str); 11] = [
    ("full", "gex_full"),
    ("zero", "gex_zero"),
    ("one", "gex_one"),
    ("delta", "delta_zero"),
    ("gamma", "gamma_zero"),
    ("vanna", "vanna_zero"),
    ("charm", "charm_zero"),
    ("onedelta", "delta_one"),
    ("onegamma", "gamma_one"),
    ("onevanna", "vanna_one"),
    ("onecharm", "charm_one"),
];

/// The category that a path names, as files and groups call it.
pub fn category(package: Package, name: &str) -> Result<String, RestRefusal> {
    let long = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
    if Series::records(package, long).is_some() {
        return Ok(long.to_owned());
    }
    Err(RestRefusal::UnknownCategory { name: shown(name), expected: expected(package) })
}

fn expected(package: Package) -> &'static str {
    match package {
        Package::Classic => "full, zero, one, gex_full, gex_zero, gex_one or gex_YYYYMMDD",
        Package::State => {
            "a GEX category or delta, gamma, vanna, charm, onedelta, delta_zero, delta_one, delta_YYYYMMDD …"
        }
        Package::Orderflow => "orderflow or YYYYMMDD",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::gexbot::CATEGORIES;

    #[test]
    fn both_vocabularies_name_the_same_files() {
        for (package, names) in [
            (Package::Classic, vec![("full", "gex_full"), ("zero", "gex_zero"), ("one", "gex_one")]),
            (Package::State, SHORT.to_vec()),
            (Package::Orderflow, vec![("orderflow", "orderflow"), ("20251219", "20251219")]),
        ] {
            for (short, long) in names {
                assert_eq!(category(package, short).unwrap(), long);
                assert_eq!(category(package, long).unwrap(), long);
            }
        }
    }

    #[test]
    fn every_recorded_category_has_its_own_name_and_those_of_an_expiry_too() {
        for (package, names) in CATEGORIES {
            for name in names {
                assert_eq!(category(package, name).unwrap(), *name);
            }
        }
        assert_eq!(category(Package::Classic, "gex_20251219").unwrap(), "gex_20251219");
        assert_eq!(category(Package::State, "vanna_20251219").unwrap(), "vanna_20251219");
    }

    #[test]
    fn a_name_of_another_package_is_unknown_and_the_error_says_what_is_known() {
        for (package, name) in [
            (Package::Classic, "gamma"),
            (Package::Classic, "orderflow"),
            (Package::State, "orderflow"),
            (Package::State, "gamma_two"),
            (Package::Orderflow, "full"),
            (Package::Orderflow, ""),
        ] {
            let error = category(package, name).unwrap_err().to_string();
            assert!(error.starts_with(&format!("Invalid type parameter: {name} (expected ")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_category_or_a_short_error(name in ".{0,200}") {
            for package in Package::ALL {
                match category(package, &name) {
                    Ok(long) => prop_assert!(Series::records(package, &long).is_some()),
                    Err(error) => prop_assert!(error.to_string().chars().count() < 250),
                }
            }
        }
    }
}
