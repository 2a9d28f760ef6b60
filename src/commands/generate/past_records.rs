//! The values of a row in the last records, for the priors.

/// How many records back the priors of a record lie, the newest first.
pub const LAGS: [usize; 5] = [1, 5, 10, 15, 30];

/// Records that are kept: the newest, and as far back as the longest lag.
const KEPT: usize = LAGS[LAGS.len() - 1] + 1;

/// The last rows of one kind, of the same length each. They are a fixed number, whatever the day's length.
pub struct History {
    rows: Vec<Vec<i64>>,
    /// Rows written so far, all told.
    written: usize,
}

impl History {
    /// A history of rows of this length.
    pub fn new(length: usize) -> Self {
        Self { rows: vec![vec![0; length]; KEPT], written: 0 }
    }

    /// The row for the next record, to be filled; it holds old values.
    pub fn advance(&mut self) -> &mut [i64] {
        self.written += 1;
        &mut self.rows[(self.written - 1) % KEPT]
    }

    /// The row filled last.
    pub fn newest(&self) -> &[i64] {
        self.before(0)
    }

    /// The rows of [`LAGS`]. Before the day began, values were as in its first record.
    pub fn priors(&self) -> [&[i64]; LAGS.len()] {
        LAGS.map(|lag| self.before(lag))
    }

    fn before(&self, lag: usize) -> &[i64] {
        &self.rows[self.written.saturating_sub(1 + lag) % KEPT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priors_are_what_the_values_were_and_at_the_start_the_first() {
        let mut history = History::new(1);
        for record in 1..=100 {
            history.advance()[0] = record;
            let expected = LAGS.map(|lag| (record - lag as i64).max(1));
            assert_eq!(history.priors().map(|row| row[0]), expected, "{record}");
            assert_eq!(history.newest(), [record]);
        }
    }
}
