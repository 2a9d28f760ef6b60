//! Reads the file of secrets again when it changes, and at SIGHUP.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};

use crate::server::http::app::App;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Begins to watch, if the secrets are in a file. SIGHUP no longer ends the process then.
pub fn begin(app: &Arc<App>) -> io::Result<()> {
    let Some(file) = app.authority.file().map(Path::to_owned) else { return Ok(()) };
    let mut hangup = signal(SignalKind::hangup())?;
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let mut seen = stamp(&file);
        loop {
            let is_asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let now = stamp(&file);
            if !is_asked && now == seen {
                continue;
            }
            seen = now;
            match app.authority.reload() {
                Ok(()) => tracing::info!(file = %file.display(), "the secrets were read again"),
                Err(error) => tracing::error!(%error, "the secrets stay as they were"),
            }
        }
    });
    Ok(())
}

/// What changes with the file; `None` while it cannot be seen.
fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
