//! Options of remote stores, as names and values; values that open doors are never shown.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Error;

/// Stands for a value that must not be shown.
pub(crate) const HIDDEN: &str = "(hidden)";

/// Shorter values are not looked for in messages: they would be found in ordinary words.
const HIDDEN_BYTES_MIN: usize = 4;

/// Named options of a remote store, such as `region` or `endpoint`. `Debug` hides secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StorageOptions {
    values: BTreeMap<String, String>,
}

impl StorageOptions {
    /// No options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an option; a later value for a name wins. Names are not told apart by case.
    #[must_use]
    pub fn with(mut self, name: impl AsRef<str>, value: impl Into<String>) -> Self {
        self.set(name.as_ref(), value);
        self
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.values.insert(name.to_ascii_lowercase(), value.into());
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Refuses options where they would do nothing.
    pub(crate) fn refuse_for(&self, location: &str) -> Result<(), Error> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::Option {
                name: name.clone(),
                reason: format!(
                    "has no meaning for {location}, which takes no options; leave it out"
                ),
            }),
        }
    }
}

impl fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value)| (name, if is_secret(name) { HIDDEN } else { value });
        f.debug_map().entries(self.iter().map(shown)).finish()
    }
}

/// Whether the option of this name opens doors. In doubt it does.
pub(crate) fn is_secret(name: &str) -> bool {
    /// These are about keys and tokens without being any.
    const PUBLIC: [&str; 8] = [
        "sse_kms_key_id",
        "sse_bucket_key_enabled",
        "web_identity_token_file",
        "container_authorization_token_file",
        "federated_token_file",
        "application_credentials",
        "container_credentials_relative_uri",
        "fabric_token_service_url",
    ];
    const WORDS: [&str; 7] = ["secret", "key", "token", "password", "sas", "credential", "proxy"];
    let name = name.to_ascii_lowercase();
    let bare = ["aws_", "google_", "azure_"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(&name);
    !PUBLIC.contains(&bare) && WORDS.iter().any(|word| bare.contains(word))
}

/// The values that no message may hold.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    values: Vec<String>,
}

impl Secrets {
    pub(crate) fn add(&mut self, value: impl Into<String>) {
        let value = value.into();
        if value.len() >= HIDDEN_BYTES_MIN {
            self.values.push(value);
        }
        // What holds another must be replaced first, or the rest of it would stay.
        self.values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// The text without them.
    pub(crate) fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in &self.values {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), HIDDEN);
            }
        }
        text
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_their_names_and_not_shown() {
        for secret in [
            "aws_secret_access_key",
            "secret_access_key",
            "access_key_id",
            "AWS_SESSION_TOKEN",
            "token",
            "azure_storage_account_key",
            "sas_key",
            "client_secret",
            "google_service_account_key",
            "proxy_url",
            "sse_customer_key_base64",
        ] {
            assert!(is_secret(secret), "{secret}");
            let options = StorageOptions::new().with(secret, "canary");
            assert!(!format!("{options:?}").contains("canary"), "{secret}");
        }
        for public in [
            "region",
            "endpoint",
            "path_style",
            "allow_http",
            "aws_sse_kms_key_id",
            "web_identity_token_file",
            "service_account",
            "account_name",
        ] {
            assert!(!is_secret(public), "{public}");
            assert!(format!("{:?}", StorageOptions::new().with(public, "shown")).contains("shown"));
        }
    }

    #[test]
    fn secrets_are_taken_out_of_texts_longest_first() {
        let mut secrets = Secrets::default();
        secrets.add("canary");
        secrets.add("canary-long");
        secrets.add("abc");
        assert_eq!(secrets.hide("canary-long abc canary"), "(hidden) abc (hidden)");
        assert!(!format!("{secrets:?}").contains("canary"));
    }
}
