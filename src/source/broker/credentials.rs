//! Credentials: where they come from, and how they are kept out of logs.
//!
//! They are read again before every login, so that a file may be replaced while the server runs.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

/// `text` without `secret`, neither as it is nor percent-encoded: tokens stand in URLs, and errors quote
/// those.
pub fn hide(secret: &SecretString, text: &str) -> String {
    let secret = secret.expose_secret();
    text.replace(secret, "***").replace(&encoded(secret), "***")
}

/// A value as it may stand in a URL's query.
pub fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The two texts that a broker asks for.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Kite's `api_key`, XTS's `app_key`.
    pub key: SecretString,
    /// Kite's `access_token`, XTS's `secret_key`.
    pub secret: SecretString,
}

/// Whether the source gives others by now. Nobody measures how long that takes.
impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.key.expose_secret() == other.key.expose_secret()
            && self.secret.expose_secret() == other.secret.expose_secret()
    }
}

impl Credentials {
    /// `text`, at most 200 characters of it, without control characters and these secrets.
    pub fn clean(&self, text: &str) -> String {
        let text = hide(&self.secret, &hide(&self.key, text));
        text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(200).collect()
    }
}

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// Two environment variables, read again before every login.
    Environment {
        /// Name of the variable with the key.
        key: String,
        /// Name of the variable with the secret.
        secret: String,
    },
    /// A TOML file with two strings.
    File {
        /// The path that `credentials_file` names.
        path: PathBuf,
        /// The key's name in it.
        key: &'static str,
        /// The secret's name in it.
        secret: &'static str,
    },
}

/// Why there are no credentials. The operator must fix it; no part of the credentials is shown.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The variable is not set, or empty, or not text.
    #[error("expected credentials in the environment variable {0}, which is not set or empty")]
    NotSet(String),
    /// The file cannot be read.
    #[error("{path}: expected a readable credentials file: {source}")]
    Unreadable {
        /// The path that `credentials_file` names.
        path: PathBuf,
        /// Why the system did not read it.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}: expected TOML with the strings {key} and {secret}")]
    NotToml {
        /// The path that `credentials_file` names.
        path: PathBuf,
        /// The key's name in the file.
        key: &'static str,
        /// The secret's name in the file.
        secret: &'static str,
    },
    /// A string is missing.
    #[error("{path}: {name}: expected a string that is not empty")]
    Missing {
        /// The path that `credentials_file` names.
        path: PathBuf,
        /// The key that is missing in the file.
        name: &'static str,
    },
    /// The thread that reads the file was not started: the process ends.
    #[error("the credentials were not read: the process is stopping")]
    Stopping,
}

impl CredentialSource {
    /// Reads the credentials as they are now.
    pub fn read(&self) -> Result<Credentials, CredentialError> {
        match self {
            Self::Environment { key, secret } => {
                let read = |name: &String| {
                    let text = std::env::var(name).ok().filter(|text| !text.trim().is_empty());
                    text.map(|text| SecretString::from(text.trim()))
                        .ok_or_else(|| CredentialError::NotSet(name.clone()))
                };
                Ok(Credentials { key: read(key)?, secret: read(secret)? })
            }
            Self::File { path, key, secret } => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| CredentialError::Unreadable { path: path.clone(), source })?;
                // The parser's own error would quote the line.
                let table: toml::Table =
                    toml::from_str(&text).map_err(|_| CredentialError::NotToml { path: path.clone(), key, secret })?;
                let read = |name: &'static str| {
                    let text = table.get(name).and_then(toml::Value::as_str).map(str::trim);
                    let text = text.filter(|text| !text.is_empty());
                    text.map(SecretString::from).ok_or_else(|| CredentialError::Missing { path: path.clone(), name })
                };
                Ok(Credentials { key: read(key)?, secret: read(secret)? })
            }
        }
    }

    /// [`read`](Self::read), on a thread that may block.
    pub async fn load(&self) -> Result<Credentials, CredentialError> {
        match self {
            Self::Environment { .. } => self.read(),
            Self::File { .. } => {
                let source = self.clone();
                tokio::task::spawn_blocking(move || source.read()).await.unwrap_or(Err(CredentialError::Stopping))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_printed_and_taken_out_of_errors() {
        let credentials = Credentials { key: "key".into(), secret: "a+b/c".into() };
        let printed = format!("{credentials:?}");
        assert!(
            printed.contains("REDACTED") && !printed.contains("\"key\"") && !printed.contains("a+b/c"),
            "{printed}"
        );
        let error = "GET /?api_key=key&access_token=a%2Bb%2Fc\n (a+b/c)";
        assert_eq!(credentials.clean(error), "GET /?api_***=***&access_token=*** (***)".replace("*** (", "***  ("));
        assert_eq!(credentials.clean(&"x".repeat(500)).len(), 200);
    }

    #[test]
    fn a_file_is_refused_by_what_is_wrong_with_it_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kite.toml");
        let source = CredentialSource::File { path: path.clone(), key: "api_key", secret: "access_token" };
        assert!(source.read().unwrap_err().to_string().contains("expected a readable credentials file"));
        for (content, words) in [
            ("api_key = hunter2", "expected TOML with the strings api_key and access_token"),
            ("api_key = \"hunter2\"", "access_token: expected a string"),
            ("api_key = \" \"\naccess_token = \"hunter2\"", "api_key: expected a string"),
        ] {
            std::fs::write(&path, content).unwrap();
            let said = source.read().unwrap_err().to_string();
            assert!(said.contains(words) && !said.contains("hunter2"), "{said}");
        }
        std::fs::write(&path, "api_key = \"k\"\naccess_token = \" t \"\n").unwrap();
        assert_eq!(source.read().unwrap().secret.expose_secret(), "t");
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let source = CredentialSource::Environment { key: "FLOWCAST_TEST_UNSET".into(), secret: "X".into() };
        assert!(source.read().unwrap_err().to_string().contains("FLOWCAST_TEST_UNSET"));
    }
}
