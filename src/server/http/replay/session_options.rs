//! Settings of sessions, as far as negotiate chooses them.

/// Settings of sessions, as far as negotiate chooses them.
#[derive(Debug, Clone, clap::Args)]
pub struct SessionOptions {
    /// Which clients have a clock of their own: named, those that negotiate with ?session=NAME; per-key, all, one
    /// clock for each API key
    #[arg(long, env = "FLOWCAST_SESSIONS", value_enum, default_value_t = SessionPolicy::Named, value_name = "POLICY")]
    pub sessions: SessionPolicy,
}

/// Which clients have a clock of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SessionPolicy {
    /// Those that name a session.
    Named,
    /// All: those of one API key share one.
    PerKey,
}
