//! Lists of numbers inside a record: strikes, contracts, priors.
//!
//! A GEX record holds some 700 numbers in nested lists. serde has read the line and so checked that a list's text is
//! JSON; here it is walked once more, number by number, and nothing is allocated. Whatever the text is, the walk ends
//! and does not panic.

use super::decimal;
use super::fields::Noticed;

/// Reads the rows of a list: `read` gets each inner list, and skips the row by returning `None`. What is no list, and
/// what was skipped, is counted.
///
/// `text` is a JSON array.
pub fn rows<'a, T>(
    text: &'a str,
    expected: usize,
    noticed: &mut Noticed,
    mut read: impl FnMut(&mut Row<'_, 'a>) -> Option<T>,
) -> Vec<T> {
    let (mut walk, mut out) = (Walk::new(text), Vec::with_capacity(expected));
    while let Some(element) = walk.next(0) {
        let row = match element {
            Element::List => {
                let depth = walk.depth;
                let row = read(&mut Row { walk: &mut walk, depth });
                walk.skip_above(depth - 1);
                row
            }
            Element::Number(_) | Element::Other => None,
        };
        noticed.skipped_rows += u32::from(row.is_none());
        out.extend(row);
    }
    out
}

/// A row that is being read, element by element.
pub struct Row<'r, 'a> {
    walk: &'r mut Walk<'a>,
    /// How deep its elements stand.
    depth: usize,
}

impl Row<'_, '_> {
    /// The next element as a number, ×10^`places`. `None` if the row has ended, or something else stands there, or the
    /// number does not fit.
    pub fn number<T: TryFrom<i64>>(&mut self, places: u32) -> Option<T> {
        match self.next(places)? {
            Element::Number(value) => fitting(value),
            Element::List | Element::Other => None,
        }
    }

    /// The next element as a number that may be null or missing: then it is absent. `None` for anything else.
    #[expect(clippy::option_option, reason = "three cases: a number, none there, and a row to skip")]
    pub fn optional_number<T: TryFrom<i64>>(&mut self, places: u32) -> Option<Option<T>> {
        match self.next(places) {
            Some(Element::Number(value)) => fitting(value).map(Some),
            Some(Element::List) => None,
            Some(Element::Other) | None => Some(None),
        }
    }

    /// The next element as a list of numbers, ×10^`places`, that may be null: then it is empty. `None` if the row has
    /// ended, or something else stands there.
    pub fn list(&mut self, places: u32) -> Option<Vec<i32>> {
        let ended = self.walk.depth < self.depth;
        let values = self.optional_list(places)?;
        (!ended && self.walk.depth == self.depth).then_some(values)
    }

    /// The next element as a list of numbers, ×10^`places`, that may be null or missing: then it is empty. `None` if
    /// something else stands there or in it.
    pub fn optional_list(&mut self, places: u32) -> Option<Vec<i32>> {
        match self.next(places) {
            Some(Element::List) => {
                let mut values = Vec::with_capacity(5);
                while let Some(element) = self.walk.next(places) {
                    let Element::Number(value) = element else { return None };
                    values.push(fitting(value)?);
                }
                Some(values)
            }
            Some(Element::Number(_)) => None,
            Some(Element::Other) | None => Some(Vec::new()),
        }
    }

    fn next(&mut self, places: u32) -> Option<Element> {
        // Past its end the walk stands among the other rows.
        (self.walk.depth == self.depth).then(|| self.walk.next(places)).flatten()
    }
}

fn fitting<T: TryFrom<i64>>(value: Option<i64>) -> Option<T> {
    T::try_from(value?).ok()
}

/// An element of a list.
#[derive(Debug, PartialEq, Eq)]
enum Element {
    /// A number, scaled; `None` if it does not fit.
    Number(Option<i64>),
    /// A list: its elements come next, up to the [`None`] that ends it.
    List,
    /// Something else, already skipped.
    Other,
}

/// Walks a list's text.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    /// Lists around the next element.
    depth: usize,
}

impl<'a> Walk<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 1, depth: 1 }
    }

    /// The next element of the list it stands in, numbers ×10^`places`; `None` behind the last, and it then stands in
    /// the list around.
    fn next(&mut self, places: u32) -> Option<Element> {
        loop {
            let first = *self.text.as_bytes().get(self.at)?;
            match first {
                b' ' | b'\t' | b'\n' | b'\r' | b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    self.depth = self.depth.saturating_sub(1);
                    return None;
                }
                b'[' => {
                    self.at += 1;
                    self.depth += 1;
                    return Some(Element::List);
                }
                b'-' | b'0'..=b'9' => return Some(Element::Number(self.number(places))),
                _ => {
                    self.skip_value();
                    return Some(Element::Other);
                }
            }
        }
    }

    /// Skips until only `depth` lists are around.
    fn skip_above(&mut self, depth: usize) {
        while self.depth > depth && self.at < self.text.len() {
            self.next(0);
        }
    }

    /// Mostly in one pass; a number with an exponent or very many digits in a few.
    fn number(&mut self, places: u32) -> Option<i64> {
        let rest = &self.text[self.at..];
        if let Some((value, length)) = decimal::plain(rest.as_bytes(), places)
            && !rest.as_bytes().get(length).copied().is_some_and(is_of_number)
        {
            self.at += length;
            return Some(value);
        }
        let end = rest.bytes().position(|byte| !is_of_number(byte)).unwrap_or(rest.len());
        self.at += end;
        decimal::scale(&rest[..end], places).ok()
    }

    /// Skips a string, an object or a word.
    fn skip_value(&mut self) {
        let bytes = self.text.as_bytes();
        let mut depth = 0usize;
        // A bracket that closes nothing is no JSON; it is passed all the same, so that the walk goes on.
        if bytes.get(self.at) == Some(&b'}') {
            self.at += 1;
        }
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b'"' => self.skip_string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b']' | b'}' if depth == 0 => return,
                _ => self.at += 1,
            }
        }
    }

    fn skip_string(&mut self) {
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(&byte) = bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => return,
                _ => {}
            }
        }
    }
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(text: &str) -> Vec<String> {
        let (mut walk, mut seen) = (Walk::new(text), Vec::new());
        while walk.depth > 0 && walk.at < text.len() {
            let from = walk.at;
            seen.push(match walk.next(0) {
                None => "]".to_owned(),
                Some(Element::List) => "[".to_owned(),
                Some(Element::Number(_)) => text[from..walk.at].trim_start_matches([' ', '\t', ',']).to_owned(),
                Some(Element::Other) => "?".to_owned(),
            });
        }
        seen
    }

    fn pairs(text: &str) -> (Vec<(i32, Vec<i32>)>, u32) {
        let mut noticed = Noticed::default();
        let rows = rows(text, 0, &mut noticed, |row| Some((row.number(2)?, row.optional_list(0)?)));
        (rows, noticed.skipped_rows)
    }

    #[test]
    fn numbers_and_lists_come_in_order_and_the_rest_is_skipped() {
        assert_eq!(walk("[1, -2.5e3 ,[3,[ ]],null]"), ["1", "-2.5e3", "[", "3", "[", "]", "]", "?", "]"]);
        assert_eq!(walk(r#"["a]\",[", {"k":[1,{"x":"]"}]}, true, 4]"#), ["?", "?", "?", "4", "]"]);
        assert_eq!(walk("[]"), ["]"]);
    }

    #[test]
    fn a_row_may_be_longer_or_lack_what_is_optional() {
        let all = (vec![(150, vec![1, 2]), (200, vec![]), (300, vec![])], 0);
        assert_eq!(pairs(r#"[[1.5,[1,2],9,[8,[7]],"x"],[2],[3,null]]"#), all);
    }

    #[test]
    fn a_bad_row_costs_only_itself() {
        for bad in
            ["7", "null", "{}", "[]", "[null]", r#"["1"]"#, "[[1]]", "[1,2]", "[1,[2,[3]]]", "[1e30]", "[1,[2,null]]"]
        {
            assert_eq!(pairs(&format!("[{bad},[4,[5]]]")), (vec![(400, vec![5])], 1), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_walked_to_its_end(text in r#"\[[\[\]{}",:\\0-9a-z\u{e9}.\- ]{0,60}"#) {
            pairs(&text);
        }
    }
}
