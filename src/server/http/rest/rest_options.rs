//! Settings of the REST routes.

/// Settings of the REST routes.
#[derive(Debug, Clone, clap::Args)]
pub struct RestOptions {
    /// Which record the data routes answer: the one that the hub published last, or for each API key the one
    /// after its last answer
    #[arg(long, env = "FLOWCAST_REST_CURSOR", value_enum, default_value_t = RestCursor::Clock, value_name = "CURSOR")]
    pub rest_cursor: RestCursor,
    /// Largest number of positions that --rest-cursor key remembers, one per API key and route; the one unused
    /// for longest is forgotten, and its key begins again
    #[arg(long, env = "FLOWCAST_REST_MAX_CURSORS", default_value_t = 65_536, value_name = "POSITIONS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4_194_304))]
    pub rest_max_cursors: usize,
}

/// Which record a data route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RestCursor {
    /// The record that the hub published last: all callers see the same.
    Clock,
    /// Each call answers the next record of that key, route by route.
    Key,
}

impl RestCursor {
    /// As it is typed on the command line: `clock` or `key`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Key => "key",
        }
    }
}
