//! The records of a JSON text, one at a time: the elements of an array, or one object after the other.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read};

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use crate::source::recorded::lines::MAX_LINE;

/// Bytes that an error shows of the text before it.
const EXCERPT: usize = 48;

/// How much may still be read. It stops a text that never ends, or that unpacks to more than a disk holds.
pub struct ReadLimit {
    element: Cell<u64>,
    total: Cell<u64>,
}

impl ReadLimit {
    /// A limit of `total` bytes over all readers that share it.
    pub fn new(total: u64) -> Self {
        Self { element: Cell::new(0), total: Cell::new(total) }
    }

    /// Each element, with its comma, and the space between two, may be as long as a line.
    fn begin_element(&self) {
        self.element.set(MAX_LINE as u64 + 1);
    }

    fn spend(&self, bytes: u64) {
        self.element.set(self.element.get().saturating_sub(bytes));
        self.total.set(self.total.get().saturating_sub(bytes));
    }
}

/// What was read last, so that an error can show where it is: a column says little in a line of 80 MB.
struct Trail {
    /// The line that is being read, from 1.
    line: Cell<u64>,
    /// The bytes read last; the oldest is overwritten next.
    last: [Cell<u8>; EXCERPT],
    /// How many were read in all.
    read: Cell<usize>,
}

impl Trail {
    fn new() -> Self {
        Self { line: Cell::new(1), last: std::array::from_fn(|_| Cell::new(0)), read: Cell::new(0) }
    }

    fn note(&self, bytes: &[u8]) {
        for &byte in bytes {
            let read = self.read.get();
            self.last[read % EXCERPT].set(byte);
            self.read.set(read + 1);
            self.line.set(self.line.get() + u64::from(byte == b'\n'));
        }
    }

    /// The text that was read last, on one line.
    fn excerpt(&self) -> String {
        let read = self.read.get();
        let bytes: Vec<u8> = (read.saturating_sub(EXCERPT)..read).map(|at| self.last[at % EXCERPT].get()).collect();
        String::from_utf8_lossy(&bytes).trim().replace(char::is_control, " ")
    }

    /// What is wrong with the text, and where.
    fn explain(&self, error: &serde_json::Error) -> String {
        let text = error.to_string();
        match text.strip_suffix(&format!(" at line {} column {}", error.line(), error.column())) {
            Some(reason) if error.line() > 0 => {
                format!("{reason}, at the end of `{}` (line {})", self.excerpt(), self.line.get())
            }
            _ => text,
        }
    }
}

/// A reader under a [`ReadLimit`].
struct LimitedReader<'l, R> {
    inner: R,
    limit: &'l ReadLimit,
    trail: &'l Trail,
}

impl<R: Read> Read for LimitedReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (element, total) = (self.limit.element.get(), self.limit.total.get());
        let most = usize::try_from(element.min(total)).unwrap_or(usize::MAX).min(buffer.len());
        // One byte over the limit is asked for, so that a text which ends right there is whole.
        let read = self.inner.read(&mut buffer[..most.max(1)])?;
        if read > most {
            return Err(io::Error::other(match element {
                0 => format!("expected records of at most {MAX_LINE} bytes, got a longer one"),
                _ => "it unpacks to more than --max-bytes allows".to_owned(),
            }));
        }
        self.limit.spend(read as u64);
        self.trail.note(&buffer[..read]);
        Ok(read)
    }
}

/// Calls `each` with the text of every record of `reader`, until one fails. Text that is not JSON is an error that
/// names the element.
pub fn for_each<E>(
    mut reader: impl BufRead,
    limit: &ReadLimit,
    mut each: impl FnMut(&str) -> Result<(), E>,
) -> Result<(), ElementError<E>> {
    let trail = Trail::new();
    let mut elements = Elements { limit, count: 0, each: &mut each, failed: None };
    match walk(&mut reader, &mut elements, &trail) {
        Ok(()) => Ok(()),
        Err(error) => Err(match elements.failed {
            Some(failed) => ElementError::Each(failed),
            None => ElementError::Text { element: elements.count + 1, reason: trail.explain(&error) },
        }),
    }
}

/// Why not all records were read.
#[derive(Debug)]
pub enum ElementError<E> {
    /// The text cannot be read, or is not JSON, at or after this element, counted from 1.
    Text {
        /// The element.
        element: u64,
        /// What is wrong.
        reason: String,
    },
    /// The caller's own.
    Each(E),
}

fn walk<E>(reader: &mut impl BufRead, elements: &mut Elements<'_, E>, trail: &Trail) -> serde_json::Result<()> {
    let is_array = begins_array(reader, trail).map_err(serde_json::Error::custom)?;
    let limit = elements.limit;
    limit.begin_element();
    let mut text = Deserializer::from_reader(LimitedReader { inner: reader, limit, trail });
    if is_array {
        text.deserialize_seq(&mut *elements)?;
        return text.end();
    }
    for object in text.into_iter::<Box<RawValue>>() {
        elements.element(&object?)?;
    }
    Ok(())
}

/// Skips a byte order mark and spaces; whether an array begins there.
fn begins_array(reader: &mut impl BufRead, trail: &Trail) -> io::Result<bool> {
    const NEITHER: &str = "expected a JSON array of records, or one record a line";
    const MARK: &[u8] = "\u{feff}".as_bytes();
    if reader.fill_buf()?.starts_with(MARK) {
        reader.consume(MARK.len());
    }
    let mut spaces = 0;
    loop {
        let Some(&first) = reader.fill_buf()?.first() else {
            return Err(io::Error::other(format!("{NEITHER}; got an empty file")));
        };
        match first {
            b' ' | b'\t' | b'\r' | b'\n' if spaces < MAX_LINE => {
                trail.note(&[first]);
                reader.consume(1);
                spaces += 1;
            }
            b'[' => return Ok(true),
            b'{' => return Ok(false),
            other => return Err(io::Error::other(format!("{NEITHER}; got {:?}", char::from(other)))),
        }
    }
}

/// Passes each element on, and holds one at a time.
struct Elements<'e, E> {
    limit: &'e ReadLimit,
    count: u64,
    each: &'e mut dyn FnMut(&str) -> Result<(), E>,
    failed: Option<E>,
}

impl<E> Elements<'_, E> {
    fn element(&mut self, element: &RawValue) -> serde_json::Result<()> {
        self.count += 1;
        self.limit.begin_element();
        (self.each)(element.get()).map_err(|failed| {
            self.failed = Some(failed);
            serde_json::Error::custom("stopped")
        })
    }
}

impl<'de, E> Visitor<'de> for &mut Elements<'_, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element_seed(OneElement(self.limit))? {
            self.element(&element).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// One element's text, under a limit of its own.
struct OneElement<'l>(&'l ReadLimit);

impl<'de> DeserializeSeed<'de> for OneElement<'_> {
    type Value = Box<RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, text: D) -> Result<Self::Value, D::Error> {
        self.0.begin_element();
        serde::Deserialize::deserialize(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, total: u64) -> (Vec<String>, Option<String>) {
        let mut seen = Vec::new();
        let result = for_each(text.as_bytes(), &ReadLimit::new(total), |element| -> Result<(), String> {
            if element == "\"stop\"" {
                return Err("stopped here".to_owned());
            }
            seen.push(element.to_owned());
            Ok(())
        });
        let error = result.err().map(|error| match error {
            ElementError::Text { element, reason } => format!("{element}: {reason}"),
            ElementError::Each(own) => own,
        });
        (seen, error)
    }

    #[test]
    fn an_array_and_one_object_a_line_give_the_same_elements() {
        for text in
            ["[{\"a\":1},\n {\"b\":[2,3]}]\n", "{\"a\":1}\n\n{\"b\":[2,3]}", "\u{feff} [{\"a\":1},{\"b\":[2,3]}]"]
        {
            assert_eq!(read(text, 1000), (vec!["{\"a\":1}".to_owned(), "{\"b\":[2,3]}".to_owned()], None), "{text}");
        }
        assert_eq!(read("[]", 1000), (vec![], None));
    }

    #[test]
    fn what_is_no_json_names_the_element() {
        for (text, element) in
            [("[{},{}", "3: "), ("[{},{]", "2: "), ("[{}]x", "2: "), ("{}\n{", "2: "), ("", "1: "), ("x", "1: ")]
        {
            let error = read(text, 1000).1.unwrap();
            assert!(error.starts_with(element), "{text}: {error}");
        }
    }

    #[test]
    fn an_error_shows_the_line_and_the_text_before_it() {
        let long = format!("\n[{}{{\"spot\":1,\n\"strikes\":[1,]}}]", "{},".repeat(9000));
        let error = read(&long, u64::MAX).1.unwrap();
        assert!(error.starts_with("9001: expected value, at the end of `"), "{error}");
        assert!(error.ends_with(",{},{\"spot\":1, \"strikes\":[1,]` (line 3)"), "{error}");
        let error = read("[{},", 1000).1.unwrap();
        assert_eq!(error, "2: EOF while parsing a value, at the end of `[{},` (line 1)");
    }

    #[test]
    fn the_callers_error_ends_the_reading() {
        let (seen, error) = read("[1,\"stop\",2]", 1000);
        assert_eq!((seen.len(), error.as_deref()), (1, Some("stopped here")));
    }

    #[test]
    fn an_element_and_the_whole_are_bounded() {
        let long = format!("[1,\"{}\"]", "x".repeat(2 * MAX_LINE));
        assert!(read(&long, u64::MAX).1.unwrap().contains("expected records of at most 1048576 bytes"));
        let spaces = format!("[1,{}2]", " ".repeat(2 * MAX_LINE));
        assert!(read(&spaces, u64::MAX).1.is_some());
        assert!(read("[1,2,3,4,5,6]", 8).1.unwrap().contains("--max-bytes"));
        assert_eq!(read("[1,2,3]", 7).1, None);
    }
}
