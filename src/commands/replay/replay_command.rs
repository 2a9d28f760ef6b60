//! What `flowcast replay` is told on the command line.

use serde_json::{Value, json};

use crate::commands::control_client::ControlToken;
use crate::replay::wanted_dates::WantedDates;

/// Which server, and what it is to do.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayCommand {
    /// Server to steer: an http(s):// URL without a path, or host:port
    #[arg(long, global = true, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
    /// The session whose clock is meant, in place of the clock that all share
    #[arg(long, global = true, value_name = "NAME")]
    pub session: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub token: ControlToken,
    /// Print what the server answers, as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print the state every second, until Ctrl-C
    #[arg(long, global = true)]
    pub watch: bool,
    #[command(subcommand)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub action: Option<ReplayAction>,
}

/// What the replay is to do. Without it, its state is printed.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ReplayAction {
    /// Stay where it is
    Pause,
    /// Go on
    Play,
    /// Go to the first record and stay there
    Stop,
    /// Play so many times as fast as it was recorded, or as fast as the server can: max
    #[command(allow_negative_numbers = true)]
    Speed {
        /// A number from 0.01 to 100000, or max
        speed: String,
    },
    /// Go to a time: 14:30 (exchange time), 2025-12-01T15:00:00Z, Unix seconds, +30s, -5m, 50% or record:100
    #[command(allow_hyphen_values = true)]
    Seek {
        /// Where to
        moment: String,
    },
    /// Publish ticks while it is paused; a negative number goes back
    #[command(allow_negative_numbers = true)]
    Step {
        /// How many
        #[arg(default_value_t = 1)]
        ticks: i64,
    },
    /// Play up to a time, then pause
    #[command(allow_hyphen_values = true)]
    Until {
        /// Where to, as for seek
        moment: String,
        /// How fast: a number, or max
        #[arg(long, value_name = "SPEED")]
        speed: Option<String>,
    },
    /// Load other dates and play them: A..B, or A,B
    Load {
        /// The dates, as 2025-11-24..2025-11-28 or 2025-11-24,2025-11-28
        dates: WantedDates,
    },
    /// List the dates that can be loaded
    Dates,
}

/// The change that plays up to a moment.
pub(super) fn until(moment: &str, speed: Option<Value>) -> Value {
    let mut change = json!({ "state": "playing", "pause_at": moment });
    if let Some(speed) = speed {
        change["speed"] = speed;
    }
    change
}
