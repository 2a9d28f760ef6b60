//! A line of JSON, made of integers: numbers with decimals are hundredths, written without a float in between.

/// A line that is being written; its buffer is used again for the next.
#[derive(Debug, Default)]
pub struct JsonLine {
    bytes: Vec<u8>,
}

impl JsonLine {
    /// Begins a record: its braces, time and ticker.
    pub fn begin(&mut self, timestamp: i64, ticker: &str) {
        self.bytes.clear();
        self.text("{\"timestamp\":").integer(timestamp).text(",\"ticker\":\"").text(ticker).text("\"");
    }

    /// Ends the record; the line with its line break.
    pub fn end(&mut self) -> &[u8] {
        self.text("}\n");
        &self.bytes
    }

    /// Text as it is: punctuation and what needs no escapes.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    /// A comma, a key and a colon.
    pub fn key(&mut self, key: &str) -> &mut Self {
        self.text(",\"").text(key).text("\":")
    }

    /// A value without decimals: a count, a time.
    pub fn integer(&mut self, value: i64) -> &mut Self {
        self.text(itoa::Buffer::new().format(value))
    }

    /// `value` / 100, with as many decimals as it needs.
    pub fn hundredths(&mut self, value: i64) -> &mut Self {
        self.decimal(value, 2)
    }

    /// `value` / 1000, with as many decimals as it needs.
    pub fn thousandths(&mut self, value: i64) -> &mut Self {
        self.decimal(value, 3)
    }

    /// A list of what `each` writes of the values, or of nothing.
    pub fn list<T>(&mut self, values: impl IntoIterator<Item = T>, mut each: impl FnMut(&mut Self, T)) -> &mut Self {
        self.bytes.push(b'[');
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.bytes.push(b',');
            }
            each(self, value);
        }
        self.bytes.push(b']');
        self
    }

    fn decimal(&mut self, value: i64, places: u32) -> &mut Self {
        if value < 0 {
            self.bytes.push(b'-');
        }
        let unit = 10_u64.pow(places);
        let magnitude = value.unsigned_abs();
        self.text(itoa::Buffer::new().format(magnitude / unit));
        let (mut rest, mut unit) = (magnitude % unit, unit);
        if rest > 0 {
            self.bytes.push(b'.');
        }
        while rest > 0 {
            unit /= 10;
            self.bytes.push(b'0' + (rest / unit) as u8);
            rest %= unit;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_as_many_decimals_as_it_needs() {
        let mut line = JsonLine::default();
        line.begin(1, "SPX");
        line.key("a").list([682_295, 680_000, -5, 50, 0, -12_010], |line, value| {
            line.hundredths(value);
        });
        line.key("b").thousandths(-31).text(",").thousandths(1_522_117).text(",").thousandths(2_500);
        let expected =
            "{\"timestamp\":1,\"ticker\":\"SPX\",\"a\":[6822.95,6800,-0.05,0.5,0,-120.1],\"b\":-0.031,1522.117,2.5}\n";
        assert_eq!(std::str::from_utf8(line.end()).unwrap(), expected);
    }
}
