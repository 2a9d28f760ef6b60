//! Settings of POST and PATCH negotiate.

/// Settings of POST and PATCH negotiate.
#[derive(Debug, Clone, clap::Args)]
pub struct NegotiateOptions {
    /// Memberships, pairs of hub and group, that one POST or PATCH negotiate may ask for; more are answered with
    /// 403
    #[arg(long, env = "FLOWCAST_MAX_MEMBERSHIPS", default_value_t = 150, value_name = "MEMBERSHIPS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub max_memberships: usize,
    /// What POST negotiate does with the earlier connections of the same key: replace closes them, as GexBot does;
    /// many leaves them, for load tests with one key
    #[arg(long, env = "FLOWCAST_SLOT_POLICY", value_enum, default_value_t = SlotPolicy::Replace, value_name = "POLICY")]
    pub slot_policy: SlotPolicy,
    /// Largest number of API slots, one for each POST negotiate that is not replaced; of more the oldest without a
    /// connection goes, and if all are connected the answer is 503. A slot takes up to some 100 bytes per membership
    #[arg(long, env = "FLOWCAST_MAX_SLOTS", default_value_t = 10_000, value_name = "SLOTS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_slots: usize,
}

/// How many API slots a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SlotPolicy {
    /// One: the next POST takes its place.
    Replace,
    /// One per POST, up to `--max-slots` for all keys together.
    Many,
}

impl NegotiateOptions {
    /// Bytes of the longest body that can be within the limits: a pair of hub and group has at most about 150.
    pub fn max_body_bytes(&self) -> usize {
        4096 + 256 * self.max_memberships
    }
}
