//! Which categories are generated.

use std::str::FromStr;

use crate::wire::gexbot::{CATEGORIES, Package};

/// A category that can be generated, with its package.
pub type Category = (Package, &'static str);

/// One item of `--categories`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CategoryChoice {
    /// Every category there is.
    All,
    /// All of a package.
    Package(Package),
    /// A single category, such as `state/gamma_zero`.
    One(Category),
}

impl CategoryChoice {
    fn has(self, category: Category) -> bool {
        match self {
            Self::All => true,
            Self::Package(package) => package == category.0,
            Self::One(one) => one == category,
        }
    }
}

impl FromStr for CategoryChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let wanted = |&(package, name): &Category| text.split_once('/') == Some((package.name(), name));
        Package::parse(text).map(Self::Package).or_else(|| all().find(wanted).map(Self::One)).ok_or_else(|| {
            let known: Vec<String> = all().map(|(package, name)| format!("{}/{name}", package.name())).collect();
            format!("expected all, a package (classic, state, orderflow) or one of {}", known.join(", "))
        })
    }
}

fn all() -> impl Iterator<Item = Category> {
    CATEGORIES.iter().flat_map(|&(package, names)| names.iter().map(move |&name| (package, name)))
}

/// The categories that any of the choices has, each once.
pub fn chosen(choices: &[CategoryChoice]) -> Vec<Category> {
    all().filter(|&category| choices.iter().any(|choice| choice.has(category))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&'static str> {
        let choices: Vec<CategoryChoice> = text.split(',').map(|item| item.parse().unwrap()).collect();
        chosen(&choices).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn a_choice_is_everything_a_package_or_one_category() {
        assert_eq!(names("all").len(), 15);
        assert_eq!(names("orderflow"), ["orderflow"]);
        assert_eq!(names("state").len(), 11);
        assert_eq!(names("state/gamma_zero,classic/gex_full,classic/gex_full"), ["gex_full", "gamma_zero"]);
    }

    #[test]
    fn an_unknown_category_is_refused_with_those_there_are() {
        for text in ["", "gex_full", "classic/gamma_zero", "state/", "ALL"] {
            assert!(text.parse::<CategoryChoice>().unwrap_err().contains("state/gamma_zero"), "{text}");
        }
    }
}
