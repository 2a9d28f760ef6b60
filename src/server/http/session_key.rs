//! The key that reconnection tokens are signed with.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::jwt::secret;
use super::token_keys::{KeyFileError, secrets_of};
use crate::server::shard::session_token::{MIN_SESSION_KEY, SessionTokens};

/// What lets other nodes take a reliable session back.
#[derive(Debug, Clone, clap::Args)]
pub struct SessionKeyOptions {
    /// Key that reconnection tokens are signed with, at least 32 bytes. Every node with this key, also one that was
    /// restarted, takes a reliable session back with its groups; without it only the node that has the session does
    #[arg(long, env = "FLOWCAST_SESSION_KEY", hide_env_values = true, value_name = "KEY", value_parser = secret)]
    pub session_key: Option<SecretString>,
    /// File with the key in its first line and, if there is one, the previous key in its second, in place of
    /// FLOWCAST_SESSION_KEY
    #[arg(long, env = "FLOWCAST_SESSION_KEY_FILE", value_name = "FILE")]
    pub session_key_file: Option<PathBuf>,
}

impl SessionKeyOptions {
    /// Checks the settings, here and not in clap, which would show a key that is too short. `Err` says what is accepted.
    pub fn check(&self) -> Result<(), String> {
        let length = self.session_key.as_ref().map(|key| key.expose_secret().len());
        if let Some(actual) = length.filter(|&length| length < MIN_SESSION_KEY) {
            return Err(format!(
                "--session-key (FLOWCAST_SESSION_KEY): expected at least {MIN_SESSION_KEY} bytes, got {actual}"
            ));
        }
        if self.session_key.is_some() && self.session_key_file.is_some() {
            return Err(
                "--session-key and --session-key-file (FLOWCAST_SESSION_KEY, FLOWCAST_SESSION_KEY_FILE): expected one of them"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Signs and reads tokens with the keys of the settings; `None` without one.
    pub fn tokens(&self) -> Result<Option<SessionTokens>, KeyFileError> {
        let Some(path) = &self.session_key_file else {
            return Ok(self.session_key.as_ref().map(|key| SessionTokens::new(std::slice::from_ref(key))));
        };
        let keys = secrets_of(path)?;
        if let Some(actual) = keys.iter().map(|key| key.expose_secret().len()).find(|&length| length < MIN_SESSION_KEY)
        {
            return Err(KeyFileError::Short { path: path.clone(), least: MIN_SESSION_KEY, actual });
        }
        Ok(Some(SessionTokens::new(&keys)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_32_bytes_and_is_not_shown() {
        let key = "hush".repeat(8);
        let of = |key: &str| SessionKeyOptions { session_key: Some(secret(key).unwrap()), session_key_file: None };
        let refused = of(&key[1..]).check().unwrap_err();
        assert!(refused.contains("32 bytes, got 31") && !refused.contains("hush"), "{refused}");
        let options = of(&key);
        assert!(options.check().is_ok() && !format!("{options:?}").contains("hush"));
        assert!(options.tokens().unwrap().is_some());
        let none = SessionKeyOptions { session_key: None, session_key_file: None };
        assert!(none.check().is_ok() && none.tokens().unwrap().is_none());
    }

    #[test]
    fn a_file_has_one_key_or_two_and_says_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let options = SessionKeyOptions { session_key: None, session_key_file: Some(file.clone()) };
        let [old, new] = ["o", "n"].map(|letter| letter.repeat(32));
        for good in [format!("{old}\n"), format!("{new}\n{old}\n")] {
            std::fs::write(&file, good).unwrap();
            assert!(options.tokens().is_ok());
        }
        for bad in [String::new(), "short".to_owned(), format!("{new}\nshort"), format!("\n{new}")] {
            std::fs::write(&file, bad).unwrap();
            let error = options.tokens().err().unwrap().to_string();
            assert!(error.contains("line") && !error.contains("short\n") && !error.contains(&new), "{error}");
        }
        let both = SessionKeyOptions { session_key: Some(old.into()), ..options };
        assert!(both.check().unwrap_err().contains("--session-key-file"));
    }
}
