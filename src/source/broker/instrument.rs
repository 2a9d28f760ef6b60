//! What is traded, where, and through which broker's feed it is seen.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

/// Whose feed a record came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Broker {
    /// Zerodha's Kite ticker.
    Zerodha,
    /// A Symphony XTS dealer ("Pro") deployment.
    XtsPro,
    /// A Symphony XTS investor ("Client") deployment.
    XtsClient,
    /// Not a broker: a feed that lives in this process, such as a test's.
    #[serde(skip)]
    InProcess,
}

impl fmt::Display for Broker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Zerodha => "zerodha",
            Self::XtsPro => "xts_pro",
            Self::XtsClient => "xts_client",
            Self::InProcess => "in_process",
        })
    }
}

/// Where an instrument is traded. Names as Kite writes them, where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[expect(missing_docs, reason = "the names of the exchanges' segments")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Exchange {
    Nse,
    Nfo,
    Cds,
    Nco,
    Slbm,
    Nifsc,
    Bse,
    Bfo,
    Bcd,
    Bco,
    Mcx,
    Mcxsx,
    NseIndex,
    BseIndex,
    Ncdex,
    Mse,
    Msefo,
    Msecd,
    /// The broker's own segment number.
    #[serde(skip)]
    Unknown(u16),
}

impl fmt::Display for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nse => "NSE",
            Self::Nfo => "NFO",
            Self::Cds => "CDS",
            Self::Nco => "NCO",
            Self::Slbm => "SLBM",
            Self::Nifsc => "NIFSC",
            Self::Bse => "BSE",
            Self::Bfo => "BFO",
            Self::Bcd => "BCD",
            Self::Bco => "BCO",
            Self::Mcx => "MCX",
            Self::Mcxsx => "MCXSX",
            Self::NseIndex => "NSE_INDEX",
            Self::BseIndex => "BSE_INDEX",
            Self::Ncdex => "NCDEX",
            Self::Mse => "MSE",
            Self::Msefo => "MSEFO",
            Self::Msecd => "MSECD",
            Self::Unknown(segment) => return write!(formatter, "SEGMENT{segment}"),
        })
    }
}

impl Exchange {
    /// Whether it is a segment of indices, which nobody trades.
    pub const fn is_index(self) -> bool {
        matches!(self, Self::NseIndex | Self::BseIndex)
    }
}

/// One instrument of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instrument {
    /// What clients subscribe by: the configured name, else `<exchange>:<id>`.
    pub symbol: Arc<str>,
    /// Where it is traded.
    pub exchange: Exchange,
    /// Kite's instrument token, or XTS's exchangeInstrumentID.
    pub id: u64,
}
