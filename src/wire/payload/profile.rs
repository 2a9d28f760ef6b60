//! Profiles: the scale of the numbers in a payload.

use std::fmt;

/// Which generation of the real API a client expects: a set of scale factors.
///
/// The client divides state and orderflow fields by 100 since 2026-04; before, it took the
/// integers as they are (`docs/protocols/gexbot.md`, "Client generations", "Scaling"). Prices are ×100 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Profile {
    /// State and orderflow fields unscaled, cut toward zero.
    #[value(name = "2025-11")]
    V2025_11,
    /// Every field ×100, exactly; digits behind the second decimal are cut.
    #[value(name = "2026-04")]
    V2026_04,
}

impl Profile {
    /// Both profiles, in the order of [`Profile::index`].
    pub const ALL: [Self; 2] = [Self::V2025_11, Self::V2026_04];

    /// 0 or 1: its position in [`Profile::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name used in settings, metrics and the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V2025_11 => "2025-11",
            Self::V2026_04 => "2026-04",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
