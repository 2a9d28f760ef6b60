//! Patterns of names: `*` is any number of characters, `?` is one.

use std::fmt;

/// Characters of the longest pattern.
pub const MAX_GLOB: usize = 256;

/// A pattern of names.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob(Box<[char]>);

/// Without the pattern, which may be a client's key.
impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Glob")
    }
}

impl Glob {
    /// A pattern; `None` if it is empty, or longer than [`MAX_GLOB`].
    pub fn new(text: &str) -> Option<Self> {
        let pattern: Box<[char]> = text.chars().collect();
        (1..=MAX_GLOB).contains(&pattern.len()).then_some(Self(pattern))
    }

    /// Whether it matches nothing but this name.
    pub fn is_exactly(&self, name: &str) -> bool {
        self.0.iter().copied().eq(name.chars())
    }

    /// Whether it matches a name. Takes at most pattern × name steps: only the last `*` is ever tried again.
    pub fn matches(&self, name: &str) -> bool {
        let (mut at, mut rest) = (0, name.chars());
        let mut star = None;
        loop {
            let here = rest.clone();
            match (self.0.get(at), rest.next()) {
                (Some('*'), _) => {
                    star = Some((at + 1, here.clone()));
                    at += 1;
                    rest = here;
                }
                (Some(&wanted), Some(got)) if wanted == '?' || wanted == got => at += 1,
                (None, None) => return true,
                (_, _) => {
                    // The star takes one character more.
                    let Some((after, mut from)) = star.take() else { return false };
                    if from.next().is_none() {
                        return false;
                    }
                    star = Some((after, from.clone()));
                    (at, rest) = (after, from);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_star_is_anything_and_a_question_mark_is_one_character() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "x"),
            ("k*", "k"),
            ("k*", "k12"),
            ("*_SPX_*", "blue_SPX_orderflow_orderflow"),
            ("a*b*c", "aXbXbXc"),
            ("?", "ä"),
            ("a?c", "abc"),
            ("**", "ab"),
            ("*ab", "aab"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("k*", "x"), ("?", ""), ("?", "ab"), ("a*b", "abc"), ("*_SPX_*", "blue_SPXW"), ("A", "a")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(Glob::new("").is_none() && Glob::new(&"*".repeat(257)).is_none());
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = format!("{}b", "a*".repeat(100));
        assert!(!matches(&pattern, &"a".repeat(10_000)));
    }

    fn slow(pattern: &[char], name: &[char]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some('*'), _) => slow(&pattern[1..], name) || (!name.is_empty() && slow(pattern, &name[1..])),
            (Some(wanted), Some(got)) if *wanted == '?' || wanted == got => slow(&pattern[1..], &name[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_the_definition_says(pattern in "[ab*?]{1,8}", name in "[ab]{0,8}") {
            let (of_pattern, of_name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(matches(&pattern, &name), slow(&of_pattern, &of_name));
        }
    }
}
