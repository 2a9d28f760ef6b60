//! Reads the files of secrets and keys again when one of them changes, and at SIGHUP.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::server::http::app::App;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What changes with a file; `None` while it cannot be seen.
type Stamp = Option<(SystemTime, u64)>;

/// The files of secrets and keys, as they were before they were read last.
pub struct SecretWatch {
    files: Vec<PathBuf>,
    seen: Vec<Stamp>,
    hangup: Option<Signal>,
}

impl SecretWatch {
    /// Looks at the files, and if there are any, SIGHUP no longer ends the process. Must come before they are read:
    /// a change after that would never be noticed.
    pub fn new(files: Vec<PathBuf>) -> io::Result<Self> {
        let hangup = (!files.is_empty()).then(|| signal(SignalKind::hangup())).transpose()?;
        let seen = stamps(&files);
        Ok(Self { files, seen, hangup })
    }

    /// Begins to watch, if there are such files.
    pub fn begin(mut self, app: &Arc<App>) {
        let Some(mut hangup) = self.hangup.take() else { return };
        let app = Arc::clone(app);
        tokio::spawn(async move {
            loop {
                let is_asked = tokio::select! {
                    _ = hangup.recv() => true,
                    () = tokio::time::sleep(LOOK) => false,
                };
                if !self.has_changed() && !is_asked {
                    continue;
                }
                match app.authority.reload() {
                    Ok(()) => tracing::info!(files = ?self.files, "the keys of tokens were read again"),
                    Err(error) => tracing::error!(%error, "the keys of tokens stay as they were"),
                }
            }
        });
    }

    /// Whether a file is another one than at the last look.
    fn has_changed(&mut self) -> bool {
        let before = std::mem::replace(&mut self.seen, stamps(&self.files));
        before != self.seen
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_changes_before_the_watch_begins_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets");
        fs::write(&file, "old").unwrap();
        let mut watch = SecretWatch::new(vec![file.clone(), folder.path().join("keys.json")]).unwrap();
        assert!(!watch.has_changed());
        fs::write(&file, "newer").unwrap();
        assert!(watch.has_changed() && !watch.has_changed());
        fs::remove_file(&file).unwrap();
        assert!(watch.has_changed() && !watch.has_changed());
        fs::write(folder.path().join("keys.json"), "{}").unwrap();
        assert!(watch.has_changed() && !watch.has_changed());
    }

    #[tokio::test]
    async fn sighup_ends_the_process_no_more_from_the_first_look_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = SecretWatch::new(vec![folder.path().join("secrets")]).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
        assert!(watch.hangup.as_mut().unwrap().recv().await.is_some(), "and it is noticed later");
        assert!(SecretWatch::new(Vec::new()).unwrap().hangup.is_none());
    }
}
