//! Settings of the live page, and how settings are shown.

use std::fmt;

/// Settings of the live page.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct LiveOptions {
    /// The live page at / and what it reads below /live: on; summary, without addresses and users; or off
    #[arg(long, env = "FLOWCAST_LIVE_PAGE", value_enum, default_value_t = LivePage::On, value_name = "PAGE")]
    pub live_page: LivePage,
    /// Largest number of readers of /live/events: pages and `flowcast top`; further ones are answered with 503
    #[arg(long, env = "FLOWCAST_MAX_LIVE_READERS", default_value_t = 16, value_name = "READERS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub max_live_readers: usize,
    /// Connections that the live page lists, those that are most frames behind
    #[arg(long, env = "FLOWCAST_LIVE_CONNECTIONS", default_value_t = 100, value_name = "CONNECTIONS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=1000))]
    pub live_connections: usize,
    /// Groups that the live page lists, and data files, those with problems first
    #[arg(long, env = "FLOWCAST_LIVE_GROUPS", default_value_t = 200, value_name = "GROUPS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=2000))]
    pub live_groups: usize,
}

/// How much the live page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LivePage {
    /// Everything.
    On,
    /// No addresses and no users.
    Summary,
    /// There is none.
    Off,
}

impl LivePage {
    /// As the snapshot names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Summary => "summary",
            Self::Off => "off",
        }
    }
}

/// A setting as a report shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ShownSetting {
    /// Without `--`.
    pub name: String,
    /// `***` for a secret.
    pub value: String,
    /// `flag`, `environment`, `file` or `default`.
    pub source: &'static str,
    /// Whether it has its default value.
    pub is_default: bool,
    /// Whether it is free text, such as an address or a path: a summary leaves it out.
    #[serde(skip)]
    pub is_text: bool,
}

impl fmt::Display for ShownSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={} ({})", self.name, self.value, self.source)
    }
}
