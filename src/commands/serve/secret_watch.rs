//! Reads the files of secrets and keys again when one of them changes, and at SIGHUP.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};

use crate::server::http::app::App;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Begins to watch, if there are such files. SIGHUP no longer ends the process then.
pub fn begin(app: &Arc<App>) -> io::Result<()> {
    let files = app.authority.files();
    if files.is_empty() {
        return Ok(());
    }
    let mut hangup = signal(SignalKind::hangup())?;
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let mut seen = stamps(&files);
        loop {
            let is_asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let now = stamps(&files);
            if !is_asked && now == seen {
                continue;
            }
            seen = now;
            match app.authority.reload() {
                Ok(()) => tracing::info!(?files, "the keys of tokens were read again"),
                Err(error) => tracing::error!(%error, "the keys of tokens stay as they were"),
            }
        }
    });
    Ok(())
}

/// What changes with each file; `None` while it cannot be seen.
fn stamps(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let stamp = |file: &PathBuf| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(stamp).collect()
}
